/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The groups of a container as a structure: made in every tree of the host, written down, found again. What
 * is done with them is in cgroup_*.c. See cgroup.h for threads and locks.
 */
#include "container/cgroup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_PREFIX "tabique-"

/* ---- which group is where ---- */

static bool has_controller(const char *controllers, const char *name)
{
    size_t length = strlen(name);

    while (*controllers) {
        size_t n = strcspn(controllers, ",");
        if (n == length && memcmp(controllers, name, n) == 0)
            return true;
        controllers += n + (controllers[n] == ',');
    }
    return false;
}

const char *cgroup_v1(const struct cgroup *cgroup, const char *controller)
{
    for (size_t i = 0; i < cgroup->n_trees; i++)
        if (has_controller(cgroup->trees[i].controllers, controller))
            return cgroup->trees[i].directory;
    return NULL;
}

const char *cgroup_v2(const struct cgroup *cgroup)
{
    const struct cgroup_hierarchy *last = cgroup->n_trees ? &cgroup->trees[cgroup->n_trees - 1] : NULL;

    return last && !*last->controllers ? last->directory : NULL;
}

const char *cgroup_reference(const struct cgroup *cgroup)
{
    static const char *const preferred[] = {"devices", "freezer", "memory", "pids"};
    const char *directory = cgroup->layout == CGROUP_UNIFIED ? cgroup_v2(cgroup) : NULL;

    for (size_t i = 0; !directory && i < sizeof(preferred) / sizeof(preferred[0]); i++)
        directory = cgroup_v1(cgroup, preferred[i]);
    return directory || !cgroup->n_trees ? directory : cgroup->trees[0].directory;
}

enum cgroup_layout cgroup_layout(const struct cgroup *cgroup)
{
    return cgroup->layout;
}

const struct cgroup_hierarchy *cgroup_hierarchies(const struct cgroup *cgroup, size_t *n)
{
    *n = cgroup->n_trees;
    return cgroup->trees;
}

static enum cgroup_layout layout_of(const struct cgroup_tree *trees, size_t n)
{
    bool has_v2 = n > 0 && !*trees[n - 1].controllers;

    if (!has_v2)
        return CGROUP_LEGACY;
    return n == 1 ? CGROUP_UNIFIED : CGROUP_HYBRID;
}

/* ---- paths ---- */

static int check_path(const char *path, struct error **err)
{
    size_t length = strlen(path);

    if (length == 0 || length > PATH_MAX / 4)
        return error_set(err, EINVAL, "linux.cgroupsPath: a path of 1 to %d bytes expected", PATH_MAX / 4);
    for (const char *part = path; *part;) {
        size_t n = strcspn(part, "/");
        if (n == 2 && memcmp(part, "..", 2) == 0)
            return error_set(err, EINVAL,
                             "linux.cgroupsPath: '%s' leads out of its tree: no '..' may be in it", path);
        part += n;
        part += strspn(part, "/");
    }
    return 0;
}

/* The group that a relative path begins at. */
static void base_of(const struct cgroup_tree *tree, enum cgroup_layout layout, char *base, size_t size)
{
    char above[PATH_MAX];

    snprintf(base, size, "%s", tree->own);
    char *slash = strrchr(base, '/');
    if (layout != CGROUP_UNIFIED || !slash)
        return;
    /*
     * On v2 a group that has processes hands no controllers down; the caller is a process in this one. To a
     * person this one alone may have been handed over, and then its children are better than nothing: they
     * can be frozen and emptied, if not limited.
     */
    int n = snprintf(above, sizeof(above), "%s%.*s", tree->mount, (int)(slash - base), base);
    if (n < (int)sizeof(above) && access(above, W_OK) == 0)
        *slash = '\0';
}

/* mount + base + path, without needless slashes; to be freed. */
static char *directory_of(const struct cgroup_tree *tree, enum cgroup_layout layout, const char *path)
{
    char base[PATH_MAX] = "";
    char *whole;

    if (path[0] != '/')
        base_of(tree, layout, base, sizeof(base));
    if (asprintf(&whole, "%s/%s/%s", tree->mount, base, path) < 0)
        return NULL;
    char *to = whole;
    for (const char *from = whole; *from; from++)
        if (*from != '/' || (from[1] != '/' && from[1]))
            *to++ = *from;
    *to = '\0';
    return whole;
}

/* ---- making ---- */

/* What was made of one tree, so that it can be undone: from this length of the directory's path on. */
struct made {
    size_t from; /* 0: nothing */
};

static int make_one(const struct cgroup_hierarchy *tree, char *path, struct made *made)
{
    if (mkdir(path, 0755) < 0)
        return -errno;
    if (!made->from || strlen(path) < made->from)
        made->from = strlen(path);
    return has_controller(tree->controllers, "cpuset") ? cgroup_v1_inherit_cpuset(path) : 0;
}

/* The directory, and those above it that are missing. 0, -EEXIST (it was there), another -errno. */
static int make_directories(const struct cgroup_hierarchy *tree, struct made *made)
{
    cleanup_free char *path = strdup(tree->directory);
    size_t root = strlen(tree->mount);

    if (!path)
        return -ENOMEM;
    int rc = make_one(tree, path, made);
    if (rc != -ENOENT)
        return rc;
    for (char *slash = strchr(path + root + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        rc = make_one(tree, path, made);
        *slash = '/';
        if (rc && rc != -EEXIST)
            return rc;
    }
    return make_one(tree, path, made);
}

static void unmake(const struct cgroup_hierarchy *tree, const struct made *made)
{
    cleanup_free char *path = strdup(tree->directory);

    while (path && made->from && strlen(path) >= made->from && rmdir(path) == 0)
        *strrchr(path, '/') = '\0';
}

/* A group that was there before must be one that nobody is in. */
static int check_idle(const struct cgroup *cgroup, const struct cgroup_hierarchy *tree, struct error **err)
{
    cleanup_free char *processes = cgroup_read_all(tree->directory, "cgroup.procs");

    if (processes && *processes)
        return error_set(err, EBUSY,
                         "control group %s has processes in it: is another container running there?",
                         tree->directory);
    if (cgroup_is_frozen(cgroup))
        return error_set(err, EBUSY, "control group %s is frozen", tree->directory);
    return has_controller(tree->controllers, "cpuset") ? cgroup_v1_inherit_cpuset(tree->directory) : 0;
}

/* Whether a tree that can't be used may be left out. */
static bool may_leave_out(const struct cgroup *cgroup, int rc)
{
    return cgroup->rootless && (rc == -EACCES || rc == -EPERM || rc == -EROFS);
}

static void drop_tree(struct cgroup *cgroup, size_t i)
{
    free(cgroup->trees[i].controllers);
    free(cgroup->trees[i].mount);
    free(cgroup->trees[i].directory);
    cgroup->n_trees--;
    memmove(&cgroup->trees[i], &cgroup->trees[i + 1], (cgroup->n_trees - i) * sizeof(cgroup->trees[0]));
}

static int make_tree(struct cgroup *cgroup, size_t i, struct made *made, struct error **err)
{
    const struct cgroup_hierarchy *tree = &cgroup->trees[i];
    int rc = make_directories(tree, made);

    /* In systemd's scope its keeper is. */
    if (rc == -EEXIST)
        return cgroup->unit ? 0 : check_idle(cgroup, tree, err);
    if (rc == -ENOSPC)
        return error_set(err, ENOSPC,
                         "control group %s can't be made: the host's number of groups is reached "
                         "(cgroup.max.descendants above it)",
                         tree->directory);
    return rc ? error_set_errno(err, -rc, "making the control group %s", tree->directory) : 0;
}

static int make_trees(struct cgroup *cgroup, struct error **err)
{
    cleanup_free struct made *made = calloc(cgroup->n_trees + 1, sizeof(*made));
    size_t i = 0;

    if (!made)
        return error_set_errno(err, ENOMEM, "making control groups");
    while (i < cgroup->n_trees) {
        struct error *why = NULL;
        int rc = make_tree(cgroup, i, &made[i], &why);

        if (rc && may_leave_out(cgroup, rc)) {
            unmake(&cgroup->trees[i], &made[i]);
            made[i].from = 0;
            drop_tree(cgroup, i);
        } else if (rc) {
            while (made[i].from ? unmake(&cgroup->trees[i], &made[i]), i-- : i--)
                ;
            if (err)
                *err = why;
            else
                error_free(why);
            return rc;
        } else {
            i++;
        }
        error_free(rc ? why : NULL);
    }
    if (cgroup->layout == CGROUP_UNIFIED && cgroup->n_trees)
        cgroup_v2_enable(cgroup->trees[0].mount, cgroup->trees[0].directory, NULL);
    return 0;
}

static struct cgroup *new_cgroup(size_t n_trees)
{
    struct cgroup *cgroup = calloc(1, sizeof(*cgroup));

    if (!cgroup)
        return NULL;
    cgroup->fd = -1;
    cgroup->trees = calloc(n_trees + 1, sizeof(*cgroup->trees));
    if (cgroup->trees)
        return cgroup;
    free(cgroup);
    return NULL;
}

/* A structure of groups in the given trees, none of which is made. */
static int describe(const char *path, bool rootless, const struct cgroup_tree *trees, size_t n,
                    struct cgroup **out, struct error **err)
{
    struct cgroup *cgroup = new_cgroup(n);

    if (!cgroup)
        return error_set_errno(err, ENOMEM, "making control groups");
    cgroup->layout = layout_of(trees, n);
    cgroup->rootless = rootless;
    cgroup->fresh = true;
    for (size_t i = 0; i < n; i++) {
        struct cgroup_hierarchy *tree = &cgroup->trees[i];

        *tree = (struct cgroup_hierarchy){strdup(trees[i].controllers), strdup(trees[i].mount),
                                          directory_of(&trees[i], cgroup->layout, path)};
        cgroup->n_trees++;
        if (!tree->controllers || !tree->mount || !tree->directory) {
            cgroup_free(cgroup);
            return error_set_errno(err, ENOMEM, "making control groups");
        }
    }
    *out = cgroup;
    return 0;
}

/* With the path known. `scope` is systemd's, or has no unit. */
static int plan_at(const char *path, const struct cgroup_request *request, struct cgroup_scope *scope,
                   struct cgroup **out, struct error **err)
{
    struct cgroup_tree *trees;
    struct cgroup *cgroup = NULL;
    size_t n;
    int rc = cgroup_find_trees(&trees, &n, err);

    if (rc)
        return rc;
    rc = describe(path, request->rootless, trees, n, &cgroup, err);
    cgroup_trees_free(trees, n);
    if (rc)
        return rc;
    cgroup->unit = steal_ptr(scope->unit);
    cgroup->keeper = scope->keeper;
    scope->keeper = 0;
    *out = cgroup;
    return 0;
}

int cgroup_plan(const struct cgroup_request *request, struct cgroup **out, struct error **err)
{
    struct cgroup_scope scope = {0};
    char name[NAME_MAX + 1];
    const char *path = request->path;

    if (request->systemd) {
        int rc = cgroup_systemd_start(request, &scope, err);
        if (rc)
            return rc;
        path = scope.path;
    } else if (!path || !*path) {
        snprintf(name, sizeof(name), NAME_PREFIX "%s", request->id);
        path = name;
    }
    int rc = check_path(path, err);
    rc = rc ? rc : plan_at(path, request, &scope, out, err);
    free(scope.unit);
    cgroup_systemd_end_keeper(scope.keeper);
    return rc;
}

int cgroup_make(struct cgroup *cgroup, struct error **err)
{
    return make_trees(cgroup, err);
}

int cgroup_create(const struct cgroup_request *request, struct cgroup **out, struct error **err)
{
    struct cgroup *cgroup;
    int rc = cgroup_plan(request, &cgroup, err);

    if (rc)
        return rc;
    rc = cgroup_make(cgroup, err);
    if (rc) {
        cgroup_free(cgroup);
        return rc;
    }
    *out = cgroup;
    return 0;
}

void cgroup_free(struct cgroup *cgroup)
{
    if (!cgroup)
        return;
    cgroup_systemd_release(cgroup);
    while (cgroup->n_trees)
        drop_tree(cgroup, cgroup->n_trees - 1);
    if (cgroup->fd >= 0)
        close(cgroup->fd);
    free(cgroup->trees);
    free(cgroup->unit);
    free(cgroup);
}

int cgroup_directory(struct cgroup *cgroup)
{
    if (!cgroup_v2(cgroup))
        return -ENOTSUP;
    if (cgroup->fd < 0)
        cgroup->fd = open(cgroup_v2(cgroup), O_PATH | O_DIRECTORY | O_CLOEXEC);
    return cgroup->fd < 0 ? -errno : cgroup->fd;
}

/* ---- written down, and found again ---- */

static const char *const layout_names[] = {
    [CGROUP_LEGACY] = "legacy", [CGROUP_HYBRID] = "hybrid", [CGROUP_UNIFIED] = "unified"};

json_t *cgroup_save(const struct cgroup *cgroup)
{
    json_t *trees = json_array();

    for (size_t i = 0; i < cgroup->n_trees; i++) {
        const struct cgroup_hierarchy *tree = &cgroup->trees[i];
        json_array_append_new(trees, json_pack("{s:s, s:s, s:s}", "controllers", tree->controllers, "mount",
                                               tree->mount, "directory", tree->directory));
    }
    return json_pack("{s:s, s:b, s:s*, s:o}", "layout", layout_names[cgroup->layout], "rootless",
                     cgroup->rootless, "unit", cgroup->unit, "trees", trees);
}

static int restore_tree(struct cgroup *cgroup, json_t *json)
{
    const char *controllers, *mount, *directory;

    if (json_unpack(json, "{s:s, s:s, s:s}", "controllers", &controllers, "mount", &mount, "directory",
                    &directory) < 0 ||
        mount[0] != '/' || strncmp(directory, mount, strlen(mount)) != 0)
        return -EINVAL;
    struct cgroup_hierarchy *tree = &cgroup->trees[cgroup->n_trees++];
    *tree = (struct cgroup_hierarchy){strdup(controllers), strdup(mount), strdup(directory)};
    return tree->controllers && tree->mount && tree->directory ? 0 : -ENOMEM;
}

static int restore(struct cgroup *cgroup, json_t *saved, json_t *trees)
{
    const char *layout = NULL, *unit = NULL;
    int rootless = 0, rc = -EINVAL;

    if (json_unpack(saved, "{s:s, s:b, s?s}", "layout", &layout, "rootless", &rootless, "unit", &unit) < 0)
        return rc;
    for (enum cgroup_layout l = CGROUP_LEGACY; l <= CGROUP_UNIFIED; l++)
        if (strcmp(layout, layout_names[l]) == 0) {
            cgroup->layout = l;
            rc = 0;
        }
    cgroup->rootless = rootless;
    if (unit && !(cgroup->unit = strdup(unit)))
        return -ENOMEM;
    for (size_t i = 0; rc == 0 && i < json_array_size(trees); i++)
        rc = restore_tree(cgroup, json_array_get(trees, i));
    return rc;
}

int cgroup_open_saved(json_t *saved, struct cgroup **out, struct error **err)
{
    json_t *trees = json_object_get(saved, "trees");
    struct cgroup *cgroup = new_cgroup(json_array_size(trees));
    int rc = cgroup ? restore(cgroup, saved, trees) : -ENOMEM;

    if (rc) {
        cgroup_free(cgroup);
        return error_set(err, -rc, "the container's state tells of no control groups that can be understood");
    }
    *out = cgroup;
    return 0;
}
