/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which trees of control groups this host has mounted, and where in each of them the calling process is: the
 * lines of /proc/self/cgroup ("4:cpu,cpuacct:/a/b", for v2 "0::/a/b") joined to those of
 * /proc/self/mountinfo. No state, no locks.
 */
#include "container/cgroup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TREES_MAX 32

/* A line of mountinfo, as far as it is of use:
 *     36 35 0:30 /root /mount/point rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct        */
struct mount_line {
    char root[PATH_MAX], point[PATH_MAX], type[16], options[256];
};

/* "\040" is a blank in mountinfo's paths. */
static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from;) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] && from[3]) {
            *to++ = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

static bool parse_mount(const char *line, size_t length, struct mount_line *out)
{
    char copy[3 * PATH_MAX];
    int at = 0;

    if (length >= sizeof(copy))
        return false;
    memcpy(copy, line, length);
    copy[length] = '\0';
    char *middle = strstr(copy, " - cgroup");
    if (!middle)
        return false;
    *middle = '\0';
    if (sscanf(copy, "%*s %*s %*s %4095s %4095s %n", out->root, out->point, &at) < 2 ||
        sscanf(middle + 3, "%15s %*s %255s", out->type, out->options) != 2)
        return false;
    unescape(out->root);
    unescape(out->point);
    return true;
}

static bool has_word(const char *list, const char *word, size_t length)
{
    while (*list) {
        size_t n = strcspn(list, ",");
        if (n == length && memcmp(list, word, n) == 0)
            return true;
        list += n + (list[n] == ',');
    }
    return false;
}

/* Whether the mount is of the tree with these controllers; "" is v2. */
static bool is_mount_of(const struct mount_line *mount, const char *controllers)
{
    if (!*controllers)
        return strcmp(mount->type, "cgroup2") == 0;
    return strcmp(mount->type, "cgroup") == 0 &&
           has_word(mount->options, controllers, strcspn(controllers, ","));
}

static bool find_mount(const char *mountinfo, const char *controllers, struct mount_line *out)
{
    struct mount_line mount;
    bool found = false;

    for (const char *line = mountinfo; line && *line;) {
        const char *end = strchr(line, '\n');
        size_t length = end ? (size_t)(end - line) : strlen(line);

        /* Of several mounts the one where everybody looks for it, or else the first. */
        if (parse_mount(line, length, &mount) && is_mount_of(&mount, controllers)) {
            bool usual = strncmp(mount.point, "/sys/fs/cgroup", 14) == 0;
            if (!found || usual)
                *out = mount;
            found = true;
            if (usual)
                break;
        }
        line = end ? end + 1 : NULL;
    }
    return found;
}

/* `own`, a path from the tree's root, as seen from what is mounted of it. */
static const char *below_root(const char *own, const char *root)
{
    size_t length = strlen(root);

    if (strcmp(root, "/") == 0)
        return own;
    if (strncmp(own, root, length) == 0 && (own[length] == '/' || !own[length]))
        return own[length] ? own + length : "/";
    return "/"; /* outside of it: all that can be seen is what is mounted */
}

static int add_tree(struct cgroup_tree *tree, const char *controllers, const struct mount_line *mount,
                    const char *own)
{
    *tree =
        (struct cgroup_tree){strdup(controllers), strdup(mount->point), strdup(below_root(own, mount->root))};
    return tree->controllers && tree->mount && tree->own ? 0 : -ENOMEM;
}

int cgroup_parse_trees(const char *mountinfo, const char *own, struct cgroup_tree **out, size_t *n)
{
    struct cgroup_tree *trees = calloc(TREES_MAX, sizeof(*trees));
    cleanup_free char *copy = strdup(own);
    cleanup_free struct mount_line *mount = malloc(sizeof(*mount));
    size_t count = 0;
    char *save;
    int rc = trees && copy && mount ? 0 : -ENOMEM;

    for (char *line = rc ? NULL : strtok_r(copy, "\n", &save); line && rc == 0 && count < TREES_MAX;
         line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':');
        char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path)
            continue;
        *controllers++ = '\0';
        *path++ = '\0';
        if (find_mount(mountinfo, controllers, mount))
            rc = add_tree(&trees[count++], controllers, mount, path);
    }
    if (rc) {
        cgroup_trees_free(trees, count);
        return rc;
    }
    for (size_t i = 0; i + 1 < count; i++)
        if (!*trees[i].controllers) {
            struct cgroup_tree v2 = trees[i];
            memmove(&trees[i], &trees[i + 1], (count - i - 1) * sizeof(*trees));
            trees[count - 1] = v2;
            break;
        }
    *out = trees;
    *n = count;
    return 0;
}

void cgroup_trees_free(struct cgroup_tree *trees, size_t n)
{
    for (size_t i = 0; trees && i < n; i++) {
        free(trees[i].controllers);
        free(trees[i].mount);
        free(trees[i].own);
    }
    free(trees);
}

int cgroup_find_trees(struct cgroup_tree **out, size_t *n, struct error **err)
{
    cleanup_free char *mountinfo = cgroup_read_all("/proc/self", "mountinfo");
    cleanup_free char *own = mountinfo ? cgroup_read_all("/proc/self", "cgroup") : NULL;

    if (!own)
        return error_set_errno(err, errno, "looking for control groups in /proc/self");
    int rc = cgroup_parse_trees(mountinfo, own, out, n);
    if (rc)
        return error_set_errno(err, -rc, "looking for control groups");
    if (*n == 0) {
        cgroup_trees_free(*out, 0);
        return error_set(err, ENOENT,
                         "this host has no control groups mounted: mount -t cgroup2 none /sys/fs/cgroup");
    }
    return 0;
}
