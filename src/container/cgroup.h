/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control groups of one container: made, limited, entered, frozen, emptied, counted and removed, on hosts
 * of all three layouts: cgroup v1, v2 (unified), and hybrid (v1 controllers and a v2 tree beside them).
 * Called by the runtime's verbs, one thread for each structure; what several processes do with one
 * container's groups the kernel orders.
 *
 * A container's way through it: cgroup_create, cgroup_apply, then the container's first process comes in (by
 * CLONE_INTO_CGROUP with cgroup_directory, or by cgroup_enter), cgroup_save into the container's state; later
 * verbs begin with cgroup_open_saved, and the last one ends with cgroup_remove.
 */
#ifndef TABIQUE_CONTAINER_CGROUP_H
#define TABIQUE_CONTAINER_CGROUP_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct cgroup;
struct container_resources;
struct error;

enum cgroup_layout {
    CGROUP_LEGACY,  /* v1 hierarchies alone */
    CGROUP_HYBRID,  /* v1 hierarchies with the controllers, and one of v2 */
    CGROUP_UNIFIED, /* v2 alone */
};

struct cgroup_request {
    const char *path; /* linux.cgroupsPath; NULL for one made of `id` */
    const char *id;
    bool systemd;  /* the groups are made by systemd, and `path` is "slice:prefix:name" */
    bool rootless; /* what a person without rights can't have is left out, unless a limit asks for it */
};

/* One of the host's trees, and the container's place in it. */
struct cgroup_hierarchy {
    char *controllers; /* as mounted: "cpu,cpuacct", "name=systemd"; "" for v2 */
    char *mount;       /* where the tree is mounted: "/sys/fs/cgroup/cpu,cpuacct" */
    char *directory;   /* the container's group, under `mount` */
};

/*
 * Makes the groups and what is missing above them; a CPU set begins with its parent's processors and memory.
 * A path that begins with '/' is from the tree's root, another one from the caller's own group (v2: from the
 * one above it if processes are in it). Groups that are there already must have no processes and not be
 * frozen. On failure nothing that was made stays. *out is to be freed with cgroup_free. 0 or -errno with
 * *err.
 */
int cgroup_create(const struct cgroup_request *request, struct cgroup **out, struct error **err);

/*
 * The same in two steps, so that whoever wants to can write down between them which groups there will be
 * (cgroup_save) and find them again, should it be killed. What is planned only is not there, and may be
 * another's: nothing but cgroup_make and cgroup_free may be done with it. (systemd's scope is there at once;
 * it ends with this process unless another one comes in.)
 */
int cgroup_plan(const struct cgroup_request *request, struct cgroup **out, struct error **err);
int cgroup_make(struct cgroup *cgroup, struct error **err);

/* What is needed to find the groups again, as JSON; NULL without memory. */
json_t *cgroup_save(const struct cgroup *cgroup);
/* The groups that `saved` tells of, whether they are still there or not. 0; -EINVAL, -ENOMEM with *err. */
int cgroup_open_saved(json_t *saved, struct cgroup **out, struct error **err);

/* Frees the structure and leaves the groups; NULL is fine. */
void cgroup_free(struct cgroup *cgroup);

enum cgroup_layout cgroup_layout(const struct cgroup *cgroup);
/* The trees, which belong to `cgroup`; v2's is the last. */
const struct cgroup_hierarchy *cgroup_hierarchies(const struct cgroup *cgroup, size_t *n);

/*
 * Sets what is set in `resources`. For the first time after cgroup_create also the rules for devices: what
 * `resources` allows (nothing without rules), and what the specification wants in every container (null,
 * zero, full, random, urandom, tty, ptmx, pts, and making nodes of all kinds). 0 or -errno with *err, which
 * names the limit.
 */
int cgroup_apply(struct cgroup *cgroup, const struct container_resources *resources, struct error **err);

/*
 * A descriptor of v2's group for clone3 with CLONE_INTO_CGROUP, which spares the child what cgroup_enter
 * costs there. On hosts with v1's trees it must enter those still; cgroup_enter knows what is left to do. It
 * belongs to `cgroup`. -ENOTSUP where there is no v2, or another -errno.
 */
int cgroup_directory(struct cgroup *cgroup);

/*
 * Moves a process into all groups. `pid` 0 is the caller, which must have one thread only and is then moved
 * without the kernel's lock against all forks and exits of the host (some 10 ms): let the child enter itself.
 */
int cgroup_enter(struct cgroup *cgroup, pid_t pid, struct error **err);

/* Returns when all processes have come to rest, or run again. 0; -ETIMEDOUT (thawed again) or -errno with
 * *err. */
int cgroup_freeze(struct cgroup *cgroup, struct error **err);
int cgroup_thaw(struct cgroup *cgroup, struct error **err);
bool cgroup_is_frozen(const struct cgroup *cgroup);

/*
 * Sends a signal to all processes, also those in groups below and those that are being made meanwhile.
 * SIGKILL reaches frozen ones too. 0, also when nobody is there; -errno with *err.
 */
int cgroup_signal_all(struct cgroup *cgroup, int signal, struct error **err);

/* Process ids in ascending order, those of groups below too: an array to be freed. 0 or -errno with *err. */
int cgroup_processes(const struct cgroup *cgroup, pid_t **out, size_t *n, struct error **err);

/* What `events --stats` tells as "data", in the form that runc gives it; NULL with *err. */
json_t *cgroup_stats(const struct cgroup *cgroup, struct error **err);

/*
 * Tells of processes that are killed for want of memory. *fd becomes readable (POLLIN) then and
 * when the group goes; cgroup_oom_read tells how many there have been since the last call, or -ENODEV when
 * the group is gone. Free with cgroup_oom_close.
 */
struct cgroup_oom;
int cgroup_oom_open(const struct cgroup *cgroup, struct cgroup_oom **out, int *fd, struct error **err);
int cgroup_oom_read(struct cgroup_oom *oom);
void cgroup_oom_close(struct cgroup_oom *oom);
/* How many processes the kernel has killed in these groups for want of memory; -errno where it does not say.
 */
int64_t cgroup_oom_kills(const struct cgroup *cgroup);

/*
 * Removes the groups and all below them; waits up to some seconds for processes that are ending. Those that
 * are gone are fine. 0; -EBUSY with *err while processes live there.
 */
int cgroup_remove(struct cgroup *cgroup, struct error **err);

#endif
