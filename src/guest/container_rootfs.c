/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The root file system of a container guest: its image's layers under its own, and what is its own in etc/.
 * Called by the container process, and by those who look into a container that does not run. No state. */
#include "guest/container_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/copy_up.h"
#include "container/overlay.h"
#include "container/path.h"
#include "guest/bundle.h"
#include "host/home.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* container_init_blob.S */
extern const uint8_t guest_container_init[], guest_container_init_end[];

#define NAME_SERVER "10.0.2.3" /* of the user network */

/* What is mounted from here on goes with the processes of this namespace, however they end. */
static int leave_mounts(struct error **err)
{
    if (unshare(CLONE_NEWNS) < 0)
        return error_set_errno(err, errno, "a mount namespace of its own");
    return mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0
               ? error_set_errno(err, errno, "mount namespace")
               : 0;
}

int container_rootfs_mount(const char *directory, const json_t *flags, struct error **err)
{
    const json_t *list = json_object_get(flags, "layers");
    size_t n = json_array_size(list);
    cleanup_free const char **layers = calloc(n + 1, sizeof(*layers));
    int rc = layers ? leave_mounts(err) : error_set_errno(err, ENOMEM, "layers");

    for (size_t i = 0; rc == 0 && i < n; i++)
        if (!(layers[i] = json_string_value(json_array_get(list, i))))
            rc = error_set(err, EINVAL, "its configuration of layers can't be read");
    return rc ? rc : overlay_mount(directory, layers, n, err);
}

json_t *container_rootfs_config(const json_t *flags, struct error **err)
{
    const char *path = json_string_value(json_object_get(flags, "image-config"));
    json_error_t why;
    json_t *document = path ? json_load_file(path, 0, &why) : NULL;

    if (!document) {
        error_set(err, EINVAL, "its image's configuration can't be read: %s",
                  path ? why.text : "none is known");
        return NULL;
    }
    json_t *config = json_incref(json_object_get(document, "config"));
    json_decref(document);
    return json_is_object(config) ? config : json_object();
}

/* ---- volumes of the image ---- */

/* With the owner, the mode and the files of the image's directory of that path, if it has one. */
static int fill_volume(int root, const char *destination, int volume, struct error **err)
{
    cleanup_close int from = path_open(root, destination, O_RDONLY | O_DIRECTORY);
    struct stat st;

    if (from == -ENOENT || from == -ENOTDIR)
        return 0;
    if (from < 0 || fstat(from, &st) < 0)
        return error_set_errno(err, from < 0 ? -from : errno, "the image's directory");
    int rc = copy_up(from, volume, err);
    if (rc == 0 && (fchown(volume, st.st_uid, st.st_gid) < 0 || fchmod(volume, st.st_mode & 07777) < 0))
        rc = error_set_errno(err, errno, "its owner");
    return rc;
}

/* Under another name until it is whole: a start that was killed begins anew. */
static int make_volume(int root, int volumes, const char *destination, struct error **err)
{
    static const char unfinished[] = ".unfinished";
    cleanup_free char *name = bundle_volume_name(destination);

    if (!name)
        return error_set_errno(err, ENOMEM, "volume");
    if (faccessat(volumes, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", volumes, unfinished);
    home_remove_tree(path);
    if (mkdirat(volumes, unfinished, 0755) < 0)
        return error_set_errno(err, errno, "volume");
    cleanup_close int volume = openat(volumes, unfinished, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int rc = volume < 0 ? error_set_errno(err, errno, "volume") : fill_volume(root, destination, volume, err);
    if (rc == 0 && renameat(volumes, unfinished, volumes, name) < 0)
        rc = error_set_errno(err, errno, "volume");
    return rc;
}

int container_rootfs_volumes(const char *directory, const json_t *image, const json_t *flags,
                             struct error **err)
{
    json_t *list = json_object_get(image, "Volumes"), *unused;
    cleanup_free char *path = NULL, *root_path = NULL;
    const char *destination;
    int rc = 0;

    if (!json_object_size(list))
        return 0;
    if (asprintf(&path, "%s/" BUNDLE_VOLUMES, directory) < 0 ||
        asprintf(&root_path, "%s/root", directory) < 0)
        return error_set_errno(err, ENOMEM, "volumes");
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "%s", path);
    cleanup_close int volumes = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int root = open(root_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (volumes < 0 || root < 0)
        return error_set_errno(err, errno, "%s", volumes < 0 ? path : root_path);
    json_object_foreach(list, destination, unused)
    {
        if (rc == 0 && bundle_wants_volume(flags, destination)) {
            rc = make_volume(root, volumes, destination, err);
            if (rc)
                error_wrap(err, "the image's volume %s", destination);
        }
    }
    return rc;
}

/* ---- files in etc/ ---- */

static int write_text(const char *directory, const char *name, const char *text, struct error **err)
{
    cleanup_free char *path = NULL;

    if (asprintf(&path, "%s/%s", directory, name) < 0)
        return error_set_errno(err, ENOMEM, "%s", name);
    cleanup_fclose FILE *f = fopen(path, "we");
    return !f || fputs(text, f) == EOF || fflush(f) ? error_set_errno(err, errno, "%s", path) : 0;
}

/* The host's name servers, but for those that are only there for the host itself. */
static int copy_resolv_conf(const char *directory, struct error **err)
{
    cleanup_fclose FILE *f = fopen("/etc/resolv.conf", "re");
    char text[8192] = "";
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

    text[n] = '\0';
    return write_text(directory, "resolv.conf", text, err);
}

/* The program container_init.c, for --init. */
static int write_init(const char *directory, struct error **err)
{
    cleanup_free char *path = NULL;

    if (asprintf(&path, "%s/init", directory) < 0)
        return error_set_errno(err, ENOMEM, "init");
    size_t size = (size_t)(guest_container_init_end - guest_container_init);
    cleanup_fclose FILE *f = fopen(path, "we");
    if (!f || fwrite(guest_container_init, 1, size, f) != size || fflush(f) || fchmod(fileno(f), 0755) < 0)
        return error_set_errno(err, errno, "%s", path);
    return 0;
}

int container_rootfs_etc(const char *directory, const char *hostname, const json_t *flags, struct error **err)
{
    const char *net = json_string_value(json_array_get(json_object_get(flags, "net"), 0));
    bool user = !net || strncmp(net, "user", 4) == 0;
    char text[512];
    int rc;

    if (net && strcmp(net, "host") == 0)
        rc = copy_resolv_conf(directory, err);
    else
        rc = write_text(directory, "resolv.conf", user ? "nameserver " NAME_SERVER "\n" : "", err);
    if (rc == 0 && user)
        rc = write_text(directory, "resolved.conf", "[Resolve]\nDNS=" NAME_SERVER "\n", err);
    snprintf(text, sizeof(text),
             "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n%s\t%s\n",
             user ? "10.0.2.15" : "127.0.1.1", hostname);
    if (rc == 0)
        rc = write_text(directory, "hosts", text, err);
    snprintf(text, sizeof(text), "%s\n", hostname);
    if (rc == 0 && json_is_true(json_object_get(flags, "init")))
        rc = write_init(directory, err);
    return rc ? rc : write_text(directory, "hostname", text, err);
}
