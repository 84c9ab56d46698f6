/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a container guest finds mounted: the kernel's file systems, volumes of the host, files of its own
 * etc/. */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"
#include "guest/bundle.h"
#include "guest/names.h"
#include "host/home.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* `options` are words between commas. */
static void add(json_t *mounts, const char *destination, const char *type, const char *source,
                const char *options)
{
    json_t *list = json_array();

    for (const char *p = options; *p;) {
        size_t n = strcspn(p, ",");

        json_array_append_new(list, json_stringn(p, n));
        p += n + (p[n] == ',');
    }
    json_array_append_new(mounts, json_pack("{s:s, s:s, s:s, s:o}", "destination", destination, "type", type,
                                            "source", source, "options", list));
}

static void add_kernel(json_t *mounts, const struct bundle *b, bool system)
{
    bool privileged = json_is_true(json_object_get(b->flags, "privileged"));
    const char *net = json_string_value(json_array_get(json_object_get(b->flags, "net"), 0));
    bool own_net = !net || strcmp(net, "host") != 0;
    char options[128];

    add(mounts, "/proc", "proc", "proc", "nosuid,noexec,nodev");
    add(mounts, "/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k");
    add(mounts, "/dev/pts", "devpts", "devpts",
        b->rootless ? "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"
                    : "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5");
    add(mounts, "/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k");
    add(mounts, "/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev");
    /* sysfs is of a network namespace, whose owner alone may mount it. */
    if (b->rootless && !own_net)
        add(mounts, "/sys", "none", "/sys", "rbind,nosuid,noexec,nodev,ro");
    else
        add(mounts, "/sys", "sysfs", "sysfs", privileged ? "nosuid,noexec,nodev" : "nosuid,noexec,nodev,ro");
    snprintf(options, sizeof(options), "nosuid,noexec,nodev,relatime%s", privileged || system ? "" : ",ro");
    if (!b->rootless || own_net)
        add(mounts, "/sys/fs/cgroup", "cgroup", "cgroup", options);
    if (system) {
        add(mounts, "/run", "tmpfs", "tmpfs", "nosuid,nodev,mode=755");
        add(mounts, "/run/lock", "tmpfs", "tmpfs", "nosuid,nodev,noexec,mode=1777");
        add(mounts, "/tmp", "tmpfs", "tmpfs", "nosuid,nodev,mode=1777");
    }
}

/* ---- volumes: SOURCE:DESTINATION[:ro|rw] ---- */

struct volume {
    char *source, *destination;
    bool read_only;
};

static void volume_clear(struct volume *v)
{
    free(v->source);
    free(v->destination);
}

static int parse_volume(const char *text, struct volume *out, struct error **err)
{
    const char *first = strchr(text, ':'), *second = first ? strchr(first + 1, ':') : NULL;
    bool ro = second && strcmp(second + 1, "ro") == 0, rw = second && strcmp(second + 1, "rw") == 0;
    char shown[160];

    text_make_printable(shown, sizeof(shown), text);
    if (!first || first == text || first[1] != '/' || (second && !ro && !rw))
        return error_set(err, EINVAL,
                         "--volume: '%s' is not of the form SOURCE:DESTINATION or SOURCE:DESTINATION:ro, "
                         "with a destination "
                         "that begins with '/'",
                         shown);
    out->source = strndup(text, (size_t)(first - text));
    out->destination = second ? strndup(first + 1, (size_t)(second - first - 1)) : strdup(first + 1);
    out->read_only = ro;
    if (!out->source || !out->destination)
        return error_set_errno(err, ENOMEM, "--volume");
    if (!strchr(out->source, '/') && name_check(out->source, NULL))
        return error_set(
            err, EINVAL,
            "--volume: '%s' is neither a path (./NAME is one of this directory) nor the name of a volume",
            out->source);
    return 0;
}

/* A name is a volume of Tabique's own, which is made; a relative path starts where `run` was called. */
static int find_source(const struct bundle *b, const struct volume *v, char **out, struct error **err)
{
    const char *from = json_string_value(json_object_get(b->flags, "directory"));
    int n = v->source[0] == '/'       ? asprintf(out, "%s", v->source)
            : !strchr(v->source, '/') ? asprintf(out, "%s/%s", b->volumes, v->source)
                                      : asprintf(out, "%s/%s", from ? from : "", v->source);

    if (n < 0) {
        *out = NULL;
        return error_set_errno(err, ENOMEM, "--volume");
    }
    if (!strchr(v->source, '/'))
        return home_make_directory(*out, 0755, err);
    return access(*out, F_OK) < 0 ? error_set_errno(err, errno, "--volume: '%s'", *out) : 0;
}

static int add_volumes(json_t *mounts, const struct bundle *b, struct error **err)
{
    const json_t *list = json_object_get(b->flags, "volume");
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) {
        struct volume v = {0};
        cleanup_free char *source = NULL;

        rc = parse_volume(json_string_value(json_array_get(list, i)), &v, err);
        if (rc == 0)
            rc = find_source(b, &v, &source, err);
        if (rc == 0)
            add(mounts, v.destination, "bind", source,
                v.read_only ? "rbind,rprivate,nosuid,nodev,ro" : "rbind,rprivate,nosuid,nodev");
        volume_clear(&v);
    }
    return rc;
}

/* ---- those that the image asks for: "Volumes": {"/data": {}} ---- */

static bool is_same_place(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);

    while (n > 1 && a[n - 1] == '/')
        n--;
    while (m > 1 && b[m - 1] == '/')
        m--;
    return n == m && memcmp(a, b, n) == 0;
}

bool bundle_wants_volume(const json_t *flags, const char *destination)
{
    const json_t *list = json_object_get(flags, "volume");
    bool given = destination[0] != '/';

    for (size_t i = 0; i < json_array_size(list); i++) {
        struct volume v = {0};

        if (parse_volume(json_string_value(json_array_get(list, i)), &v, NULL) == 0)
            given |= is_same_place(v.destination, destination);
        volume_clear(&v);
    }
    return !given;
}

/* "/var/lib" is "%2Fvar%2Flib": one name for each place. */
char *bundle_volume_name(const char *destination)
{
    char *name = malloc(3 * strlen(destination) + 1), *p = name;

    for (; name && *destination; destination++)
        if (*destination == '/' || *destination == '%')
            p += sprintf(p, "%%%02X", *destination);
        else
            *p++ = *destination;
    if (name)
        *p = '\0';
    return name;
}

static void add_image_volumes(json_t *mounts, const struct bundle *b)
{
    json_t *volumes = json_object_get(b->image, "Volumes"), *unused;
    const char *destination;

    json_object_foreach(volumes, destination, unused)
    {
        cleanup_free char *name = bundle_volume_name(destination), *source = NULL;

        if (name && bundle_wants_volume(b->flags, destination) &&
            asprintf(&source, "%s/" BUNDLE_VOLUMES "/%s", b->directory, name) >= 0)
            add(mounts, destination, "bind", source, "rbind,rprivate,nosuid,nodev");
    }
}

/* Those that its directory has. A whole system may look after its name servers itself, and is told of ours
 * where its resolver looks. */
static void add_etc(json_t *mounts, const struct bundle *b, bool system)
{
    static const struct {
        const char *name, *destination;
        bool of_system, of_others;
    } files[] = {
        {"resolv.conf", "/etc/resolv.conf", false, true},
        {"resolved.conf", "/etc/systemd/resolved.conf.d/tabique.conf", true, false},
        {"hosts", "/etc/hosts", true, true},
        {"hostname", "/etc/hostname", true, true},
    };

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        cleanup_free char *source = NULL;

        if (asprintf(&source, "%s/%s", b->directory, files[i].name) < 0)
            return;
        if ((system ? files[i].of_system : files[i].of_others) && access(source, F_OK) == 0)
            add(mounts, files[i].destination, "bind", source, "bind,rprivate");
    }
}

json_t *bundle_mounts(const struct bundle *b, struct error **err)
{
    json_t *mounts = json_array();

    bool system = bundle_is_system(b->flags, b->image);

    add_kernel(mounts, b, system);
    add_etc(mounts, b, system);
    cleanup_free char *init = NULL;
    if (json_is_true(json_object_get(b->flags, "init")) && asprintf(&init, "%s/init", b->directory) >= 0)
        add(mounts, "/dev/init", "bind", init, "bind,rprivate,ro,nosuid,nodev");
    add_image_volumes(mounts, b);
    if (add_volumes(mounts, b, err)) {
        json_decref(mounts);
        return NULL;
    }
    return mounts;
}

int bundle_check_mounts(const json_t *flags, struct error **err)
{
    const json_t *list = json_object_get(flags, "volume");
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++) {
        struct volume v = {0};

        rc = parse_volume(json_string_value(json_array_get(list, i)), &v, err);
        volume_clear(&v);
    }
    return rc;
}
