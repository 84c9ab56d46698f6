/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mounts of the type "cgroup": the container sees its own groups, each hierarchy that the host has at the
 * place where programs look for it. Version 2 alone is one tree; version 1 is a tmpfs with a tree for each
 * hierarchy and links for the second names. All are bind mounts of the container's groups, which look like
 * the top inside a cgroup namespace. Called by mount.c, before the process has a cgroup namespace of its own.
 */
#include "container/setup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define HIERARCHIES_MAX 32

struct hierarchy {
    bool unified;
    char root[512];        /* which part of the hierarchy the host has mounted */
    char mount_point[512]; /* of the host */
    char options[256];     /* of the super block: names the controllers */
};

/* mountinfo writes spaces and the like as \040. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from;) {
        if (from[0] == '\\' && from[1] && from[2] && from[3]) {
            *to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

/* proc(5): ID PARENT MAJOR:MINOR ROOT MOUNT-POINT OPTIONS TAGS... - TYPE SOURCE SUPER-OPTIONS */
static size_t find_hierarchies(struct hierarchy *out)
{
    cleanup_fclose FILE *f = fopen("/proc/self/mountinfo", "re");
    cleanup_free char *line = NULL;
    size_t room = 0, n = 0;

    while (f && n < HIERARCHIES_MAX && getline(&line, &room, f) > 0) {
        struct hierarchy *h = &out[n];
        char type[32];
        char *dash = strstr(line, " - ");

        if (!dash || sscanf(dash, " - %31s %*s %255s", type, h->options) != 2 ||
            (strcmp(type, "cgroup") != 0 && strcmp(type, "cgroup2") != 0) ||
            sscanf(line, "%*s %*s %*s %511s %511s", h->root, h->mount_point) != 2)
            continue;
        unescape(h->root);
        unescape(h->mount_point);
        h->unified = strcmp(type, "cgroup2") == 0;
        n++;
    }
    return n;
}

/* Whether `list` of words between commas has the word of `n` bytes. */
static bool has_word(const char *list, const char *word, size_t n)
{
    for (const char *p = list; *p;) {
        size_t length = strcspn(p, ",");

        if (length == n && memcmp(p, word, n) == 0)
            return true;
        p += length + (p[length] == ',');
    }
    return false;
}

/* /proc/self/cgroup's line for a hierarchy: NUMBER:CONTROLLERS:PATH. The path, in `line`; NULL for none. */
static const char *own_group(const struct hierarchy *h, FILE *f, char **line, size_t *room)
{
    rewind(f);
    while (getline(line, room, f) > 0) {
        char *controllers = strchr(*line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;

        if (!path)
            continue;
        *path++ = '\0';
        controllers++;
        path[strcspn(path, "\n")] = '\0';
        size_t first = strcspn(controllers, ",");
        if (h->unified ? !*controllers : *controllers && has_word(h->options, controllers, first))
            return path;
    }
    return NULL;
}

/* The container's group as a detached tree. */
static int open_group(const struct hierarchy *h, FILE *f)
{
    cleanup_free char *line = NULL;
    size_t room = 0, skip = strcmp(h->root, "/") == 0 ? 0 : strlen(h->root);
    char path[PATH_MAX];
    const char *group = own_group(h, f, &line, &room);

    if (!group || strstr(group, "/.."))
        return -ENOENT;
    if (strncmp(group, h->root, skip) != 0)
        skip = 0;
    int n = snprintf(path, sizeof(path), "%s%s", h->mount_point, group + skip);
    if (n < 0 || (size_t)n >= sizeof(path))
        return -ENAMETOOLONG;
    int fd = open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int attach_group(const struct container_mount *m, const struct hierarchy *h, FILE *f, int target)
{
    cleanup_close int tree = open_group(h, f);

    if (tree < 0)
        return tree;
    int rc = mount_set(tree, m->set, m->clear & ~(uint64_t)MOUNT_ATTR_RDONLY, 0, false);
    if (rc == 0)
        rc = mount_attach(tree, target);
    return rc;
}

static int attach_below(const struct container_mount *m, const struct hierarchy *h, FILE *f, int top)
{
    const char *slash = strrchr(h->mount_point, '/'), *name = slash ? slash + 1 : h->mount_point;

    if (mkdirat(top, name, 0755) < 0 && errno != EEXIST)
        return -errno;
    cleanup_close int target = openat(top, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (target < 0)
        return -errno;
    int rc = attach_group(m, h, f, target);
    if (rc) {
        /* A hierarchy that the process is in no group of is none that it has to see. */
        unlinkat(top, name, AT_REMOVEDIR);
        return rc == -ENOENT ? 0 : rc;
    }
    /* "cpu,cpuacct" is found as "cpu" and as "cpuacct". */
    for (const char *p = name; strchr(name, ',') && *p;) {
        size_t n = strcspn(p, ",");
        char alias[64];

        if (n < sizeof(alias)) {
            memcpy(alias, p, n);
            alias[n] = '\0';
            if (symlinkat(name, top, alias) < 0 && errno != EEXIST)
                return -errno;
        }
        p += n + (p[n] == ',');
    }
    return 0;
}

static int mount_version_1(const struct container_setup *setup, const struct container_mount *m,
                           const struct hierarchy *list, size_t n, FILE *f, struct error **err)
{
    static const char *const data[] = {"mode=755"};
    uint64_t attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    cleanup_close int target = path_make_directory(setup->root, m->destination, 0755);
    cleanup_close int top = target < 0 ? -1 : mount_new("tmpfs", "tmpfs", data, 1, attributes, err);

    if (target < 0)
        return error_set_errno(err, -target, "mount point");
    if (top < 0)
        return top;
    /* Attached first: nothing can be attached below what is detached. */
    int rc = mount_attach(top, target);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = attach_below(m, &list[i], f, top);
        if (rc < 0)
            return error_set_errno(err, -rc, "hierarchy %s", list[i].mount_point);
    }
    if (rc == 0 && m->set & MOUNT_ATTR_RDONLY)
        rc = mount_set(top, MOUNT_ATTR_RDONLY, 0, 0, false);
    return rc < 0 ? error_set_errno(err, -rc, "attaching the mount") : 0;
}

int mount_cgroups(const struct container_setup *setup, const struct container_mount *m, struct error **err)
{
    cleanup_free struct hierarchy *list = calloc(HIERARCHIES_MAX, sizeof(*list));
    cleanup_fclose FILE *f = fopen("/proc/self/cgroup", "re");
    size_t n = list ? find_hierarchies(list) : 0;
    bool version_1 = false;

    if (!list || !f)
        return error_set_errno(err, list ? errno : ENOMEM, "/proc/self/cgroup");
    for (size_t i = 0; i < n; i++)
        version_1 |= !list[i].unified;
    if (version_1)
        return mount_version_1(setup, m, list, n, f, err);
    if (n == 0)
        return error_set(err, ENOENT, "no cgroup file system is mounted on this host");
    cleanup_close int target = path_make_directory(setup->root, m->destination, 0755);
    if (target < 0)
        return error_set_errno(err, -target, "mount point");
    int rc = attach_group(m, &list[0], f, target);
    return rc < 0 ? error_set_errno(err, -rc, "the container's group") : 0;
}
