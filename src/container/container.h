/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Containers as the OCI runtime specification has them: made from a bundle, started, signalled, deleted, and
 * looked at by their ids. No service runs: a container is a directory (its state), its processes and its
 * groups, and each function reads from these what is so now.
 */
#ifndef TABIQUE_CONTAINER_CONTAINER_H
#define TABIQUE_CONTAINER_CONTAINER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct error;
struct cgroup;

#define CONTAINER_STATUS_NOT_FOUND      127 /* the program is not there */
#define CONTAINER_STATUS_NOT_EXECUTABLE 126

/* Where containers are kept, and how. */
struct container_runtime {
    const char *root;    /* a directory, which is made; its children are containers */
    bool systemd_cgroup; /* groups are systemd's to make */
    bool rootless;       /* what a person may not do to groups is left out */
    const char *criu;    /* the program that writes and reads checkpoints; NULL: by PATH */
};

struct container_create {
    const char *id;
    const char *bundle;         /* a directory with config.json */
    const char *console_socket; /* a Unix socket that gets the terminal's master, or NULL */
    const char *pid_file;       /* or NULL */
    unsigned preserve_fds;      /* descriptors from 3 on that the program inherits */
    bool no_pivot, no_new_keyring;
};

enum container_status {
    CONTAINER_CREATING,
    CONTAINER_CREATED,
    CONTAINER_RUNNING,
    CONTAINER_PAUSED,
    CONTAINER_STOPPED
};
extern const char *const container_status_names[];

/*
 * Makes a container whose process waits for container_start. On failure nothing of it stays, and *status is
 * the exit status that tells a missing program from other reasons (or 1).
 */
int container_create(const struct container_runtime *runtime, const struct container_create *request,
                     int *status, struct error **err);
int container_start(const struct container_runtime *runtime, const char *id, struct error **err);

/*
 * Both at once. With `detach` it is left running. Otherwise signals to this process are passed on until its
 * end, and *status is its exit status, or 128 and the signal's number; unless `keep`, it is deleted then.
 */
int container_run(const struct container_runtime *runtime, const struct container_create *request,
                  bool detach, bool keep, int *status, struct error **err);

int container_kill(const struct container_runtime *runtime, const char *id, int signal, bool all,
                   struct error **err);
/* With `force`, one that runs is killed first, and one that is not there is no error. */
int container_delete(const struct container_runtime *runtime, const char *id, bool force, struct error **err);

/* A process in a container that runs. */
struct container_exec {
    const char *id;
    const char *process_file; /* a JSON file like config.json's process, or NULL for what follows */
    const char *const *args;  /* NULL behind the last */
    const char *cwd;
    const char *const *env; /* added to the container's; NULL behind the last, or NULL */
    bool has_user;
    uint32_t uid, gid;
    const char *const *additional_gids, *const *capabilities; /* texts, NULL behind the last, or NULL */
    bool terminal, has_no_new_privileges, no_new_privileges, ignore_paused, detach;
    const char *apparmor_profile, *selinux_label;
    const char *console_socket, *pid_file, *cgroup;
    unsigned preserve_fds;
};

int container_exec(const struct container_runtime *runtime, const struct container_exec *request, int *status,
                   struct error **err);

/* ---- checkpoints ---- */

/* Of both directions. */
struct container_checkpoint_options {
    const char *image_path; /* the directory of the images; NULL: "checkpoint" */
    const char *work_path;  /* where criu writes its log; NULL: likewise */
    bool tcp_established, ext_unix_sk, shell_job, file_locks, link_remap, auto_dedup, lazy_pages;
    bool empty_network;    /* the network namespace is restored without what was in it */
    unsigned cgroups_mode; /* criu's number: what becomes of the groups' limits */
};
/* criu's number of "soft", "full", "strict" or "ignore"; -1. */
int container_cgroups_mode(const char *name);

/* Writes the processes of a container that runs or is paused, and deletes it then, unless it is to go on. If
 * that fails it goes on. */
struct container_checkpoint {
    const char *id;
    struct container_checkpoint_options options;
    const char *parent_path; /* of an earlier pre_dump, from the images' directory; or NULL */
    bool leave_running, pre_dump, tcp_skip_in_flight;
    const char *page_server; /* an address that memory is sent to, or NULL */
    unsigned page_server_port;
    bool has_status_fd;
    unsigned status_fd;
};
int container_checkpoint(const struct container_runtime *runtime, const struct container_checkpoint *request,
                         struct error **err);

/* A container of that, as container_run has it. */
struct container_restore {
    struct container_create create;
    struct container_checkpoint_options options;
    bool detach, keep;
    const char *lsm_profile, *lsm_mount_context; /* or NULL */
};
int container_restore(const struct container_runtime *runtime, const struct container_restore *request,
                      int *status, struct error **err);

/* The state as the specification and runc's `state` have it. NULL with *err; a new reference. */
json_t *container_state(const struct container_runtime *runtime, const char *id, struct error **err);
/* All of them, an array. */
json_t *container_list(const struct container_runtime *runtime, struct error **err);

/* What config.json may say (features.md), and one to begin with. New references; NULL where memory is short.
 */
json_t *container_features(void);
json_t *container_spec(bool rootless);
/* Sets maskedPaths and readonlyPaths of a configuration's `linux`: what of the host's kernel an unprivileged
 * container sees nothing of, or can't change. */
void container_spec_hide(json_t *linux_part);

/*
 * A container that exists, for what is done to its groups. *cgroup and *status may be NULL. Free the group
 * with cgroup_free.
 */
int container_open_cgroup(const struct container_runtime *runtime, const char *id, struct cgroup **cgroup,
                          enum container_status *status, struct error **err);

/* ---- by its groups (groups.c) ---- */

int container_pause(const struct container_runtime *runtime, const char *id, struct error **err);
int container_resume(const struct container_runtime *runtime, const char *id, struct error **err);
/* Changes what `resources` sets (as linux.resources), and leaves the rest. */
int container_update(const struct container_runtime *runtime, const char *id, json_t *resources,
                     struct error **err);
/* All its processes, by their numbers on the host in ascending order: an array to be freed. */
int container_processes(const struct container_runtime *runtime, const char *id, pid_t **pids, size_t *n,
                        struct error **err);
/* What runc's `events --stats` gives as "data"; NULL with *err. */
json_t *container_stats(const struct container_runtime *runtime, const char *id, struct error **err);

#endif
