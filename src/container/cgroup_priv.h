/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the control groups share. */
#ifndef TABIQUE_CONTAINER_CGROUP_PRIV_H
#define TABIQUE_CONTAINER_CGROUP_PRIV_H

#include "container/cgroup.h"
#include "container/resources.h"

#include <limits.h>
#include <stdint.h>

struct cgroup {
    enum cgroup_layout layout;
    struct cgroup_hierarchy *trees; /* v2's is the last */
    size_t n_trees;
    bool rootless;
    bool fresh;   /* made by this process, and not limited yet */
    int fd;       /* of v2's directory, once it was asked for; or -1 */
    char *unit;   /* systemd's scope, or NULL */
    pid_t keeper; /* holds the scope open until the container's process is in it; 0 without */
};

#define CGROUP_FIELD "linux.resources."

/* ---- cgroup_files.c: files of one group ---- */

/* Writes `text` at once into an existing file. 0 or -errno. */
int cgroup_write(const char *directory, const char *file, const char *text);
int cgroup_write_number(const char *directory, const char *file, int64_t value);
bool cgroup_has_file(const char *directory, const char *file);
/* The file's text without the newline at its end; its length, or -errno (-E2BIG: more than `size` - 1). */
ssize_t cgroup_read(const char *directory, const char *file, char *text, size_t size);
/* The whole of a file of any length, to be freed; NULL with errno. */
char *cgroup_read_all(const char *directory, const char *file);
/* The number that is all of the file; "max" is INT64_MAX, and so is what is larger. 0 or -errno. */
int cgroup_read_number(const char *directory, const char *file, int64_t *out);
/* The number behind `key` in a file of lines "key number". 0; -ENOENT without such a line; -errno. */
int cgroup_read_key(const char *directory, const char *file, const char *key, int64_t *out);
/* Waits for a change of a v2 file (POLLPRI), at most so long. */
void cgroup_wait_for_event(const char *directory, const char *file, int timeout_ms);

/* ---- cgroup.c ---- */

/* The group in the v1 tree that has `controller`, or NULL. */
const char *cgroup_v1(const struct cgroup *cgroup, const char *controller);
/* The group in the v2 tree, or NULL. */
const char *cgroup_v2(const struct cgroup *cgroup);
/* Where processes are listed and counted: the one tree that tells of all. */
const char *cgroup_reference(const struct cgroup *cgroup);

/* ---- cgroup_find.c: the trees of this host ---- */

/* A tree with the caller's place in it, as seen from where it is mounted. */
struct cgroup_tree {
    char *controllers, *mount, *own;
};
/* All trees that are mounted, v2's last. *out: to be freed with cgroup_trees_free. 0 or -errno with *err. */
int cgroup_find_trees(struct cgroup_tree **out, size_t *n, struct error **err);
/* The same from the texts of /proc/self/mountinfo and /proc/self/cgroup. */
int cgroup_parse_trees(const char *mountinfo, const char *own, struct cgroup_tree **out, size_t *n);
void cgroup_trees_free(struct cgroup_tree *trees, size_t n);

/* ---- cgroup_apply.c: what both versions need ---- */

static inline bool cgroup_is_given(const struct container_value *value)
{
    return value->set && value->value != 0;
}
/* The number, or "max" for what is below 0; returns `text`. */
const char *cgroup_limit_text(int64_t value, char text[static 24]);
/* The line of a limit on an RDMA device; false where nothing is limited. */
bool cgroup_rdma_line(const struct container_rdma *rdma, char *text, size_t size);

/* ---- cgroup_v2.c ---- */

/* v1's scales of weights to v2's. */
int64_t cgroup_v2_weight(int64_t shares);
int64_t cgroup_v2_io_weight(int64_t weight);

/* Lets the groups above `directory`, from `mount` on, hand controllers down: all, or those of the list. */
void cgroup_v2_enable(const char *mount, const char *directory, const char *only);
int cgroup_v2_apply(const struct cgroup *cgroup, const struct container_resources *resources,
                    struct error **err);

/* ---- cgroup_v1.c ---- */
int cgroup_v1_apply(const struct cgroup *cgroup, const struct container_resources *resources,
                    struct error **err);
/* A CPU set that has no processors or no memory gets its parent's. 0 or -errno. */
int cgroup_v1_inherit_cpuset(const char *directory);

/* ---- cgroup_devices.c, cgroup_bpf.c ---- */

/* The rules of `resources`, and those that hold in every container: an array to be freed; NULL without
 * memory. */
struct container_device_rule *cgroup_device_rules(const struct container_resources *resources, size_t *n);
int cgroup_v1_devices(const char *directory, const struct container_device_rule *rules, size_t n,
                      struct error **err);
/* Puts a program with these rules on the group in the place of those that are there. */
int cgroup_v2_devices(const char *directory, const struct container_device_rule *rules, size_t n,
                      struct error **err);

/* ---- cgroup_systemd.c ---- */

struct cgroup_scope {
    char *unit;          /* to be freed */
    pid_t keeper;        /* a child in it */
    char path[PATH_MAX]; /* of the group, from its tree's root */
};
/* Starts the scope that the request's "slice:prefix:name" tells of. */
int cgroup_systemd_start(const struct cgroup_request *request, struct cgroup_scope *scope,
                         struct error **err);
int cgroup_systemd_enter(struct cgroup *cgroup, pid_t pid, struct error **err);
int cgroup_systemd_apply(struct cgroup *cgroup, const struct container_resources *resources,
                         struct error **err);
void cgroup_systemd_stop(struct cgroup *cgroup);
void cgroup_systemd_end_keeper(pid_t keeper);
/* Lets go of the process that held the scope open. */
void cgroup_systemd_release(struct cgroup *cgroup);

#endif
