/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * config.json of the OCI runtime specification 1.2, checked whole: what this structure says can be done or
 * fails for reasons of the host only. Properties that are unknown are ignored (config.md, "Extensibility");
 * values that are invalid are errors with their place.
 */
#ifndef TABIQUE_CONTAINER_CONFIG_H
#define TABIQUE_CONTAINER_CONFIG_H

#include "container/config_json.h"
#include "container/resources.h"

#include <sched.h>
#include <sys/types.h>

#define CONTAINER_OCI_VERSION "1.2.0"

/* In the order in which they are joined where they exist already: the user namespace gives the right to the
 * others. */
enum container_namespace {
    CONTAINER_NS_USER,
    CONTAINER_NS_IPC,
    CONTAINER_NS_UTS,
    CONTAINER_NS_NETWORK,
    CONTAINER_NS_PID,
    CONTAINER_NS_CGROUP,
    CONTAINER_NS_TIME,
    CONTAINER_NS_MOUNT,
    CONTAINER_NAMESPACES
};

/* Their names in config.json, those of /proc/PID/ns, and the flags of clone. */
extern const char *const container_namespace_names[CONTAINER_NAMESPACES];
extern const char *const container_namespace_files[CONTAINER_NAMESPACES];
extern const int container_namespace_flags[CONTAINER_NAMESPACES];

struct container_id_map {
    uint32_t container, host, size;
};

struct container_id_maps {
    struct container_id_map *uids, *gids;
    size_t n_uids, n_gids;
};

/* Sets of capabilities, a bit each by the kernel's number. */
struct container_capabilities {
    uint64_t effective, bounding, inheritable, permitted, ambient;
};

struct container_rlimit {
    int resource;
    uint64_t soft, hard;
};

/* sched_setattr(2) */
struct container_scheduler {
    bool given;
    uint32_t policy;
    int32_t nice;
    uint32_t priority;
    uint64_t flags, runtime, deadline, period;
};

struct container_process {
    bool terminal;
    uint16_t rows, columns; /* 0: as the terminal is */
    uint32_t uid, gid;
    bool has_umask;
    mode_t umask;
    gid_t *gids;
    size_t n_gids;
    const char **args; /* NULL behind the last; one or more */
    size_t n_args;
    const char **env; /* likewise, or NULL */
    size_t n_env;
    const char *cwd;
    bool has_capabilities;
    struct container_capabilities capabilities;
    struct container_rlimit *rlimits;
    size_t n_rlimits;
    bool no_new_privileges;
    const char *apparmor_profile, *selinux_label;
    bool has_oom_score_adj;
    int oom_score_adj;
    struct container_scheduler scheduler;
    int io_priority;                               /* ioprio_set(2); -1: none */
    const char *affinity_initial, *affinity_final; /* lists of processors, or NULL */
};

enum container_idmap { CONTAINER_IDMAP_NONE, CONTAINER_IDMAP_ONE, CONTAINER_IDMAP_RECURSIVE };

struct container_mount {
    const char *destination, *source, *type;
    bool bind, recursive, remount;
    uint64_t set, clear;                     /* MOUNT_ATTR_* of the mount itself */
    uint64_t recursive_set, recursive_clear; /* and of all below it */
    unsigned long propagation[4];            /* MS_SHARED and its like, with or without MS_REC */
    size_t n_propagation;
    const char **data; /* what the file system is told: "key" or "key=value" */
    size_t n_data;
    bool copy_up;        /* tmpcopyup */
    bool source_is_link; /* src-nofollow: the bind mount's source is not followed if it is a symbolic link */
    enum container_idmap idmap;
    struct container_id_maps maps; /* none: the container's own */
};

enum container_hook_kind {
    CONTAINER_HOOK_PRESTART,
    CONTAINER_HOOK_CREATE_RUNTIME,
    CONTAINER_HOOK_CREATE_CONTAINER,
    CONTAINER_HOOK_START_CONTAINER,
    CONTAINER_HOOK_POSTSTART,
    CONTAINER_HOOK_POSTSTOP,
    CONTAINER_HOOKS
};

extern const char *const container_hook_names[CONTAINER_HOOKS];

struct container_hook {
    const char *path;
    const char **args, **env; /* NULL behind the last; NULL where there are none */
    int64_t timeout;          /* seconds; 0: none */
};

struct container_hooks {
    struct container_hook *list[CONTAINER_HOOKS];
    size_t n[CONTAINER_HOOKS];
};

struct container_device {
    const char *path;
    char type; /* c, b, p; u is c */
    unsigned major, minor;
    mode_t mode;
    uint32_t uid, gid;
};

struct container_seccomp_argument {
    unsigned index;
    uint64_t value, value_two;
    unsigned operator; /* enum scmp_compare */
};

struct container_seccomp_rule {
    const char **names;
    size_t n_names;
    uint32_t action;
    struct container_seccomp_argument *arguments;
    size_t n_arguments;
};

struct container_seccomp {
    bool given;
    bool notifies; /* some action is SCMP_ACT_NOTIFY */
    uint32_t default_action;
    uint32_t *architectures;
    size_t n_architectures;
    unsigned long flags; /* SECCOMP_FILTER_FLAG_* */
    const char *listener_path, *listener_metadata;
    struct container_seccomp_rule *rules;
    size_t n_rules;
};

struct container_intel_rdt {
    bool given;
    const char *clos_id, *l3_cache, *memory_bandwidth, *schemata;
    bool monitoring;
};

struct container_config {
    json_t *json; /* the document, which most strings belong to */
    struct config_pool pool;
    const char *version;
    bool has_process;
    struct container_process process;
    const char *root_path;
    bool root_readonly;
    const char *hostname, *domainname;
    struct container_mount *mounts;
    size_t n_mounts;
    struct container_hooks hooks;
    json_t *annotations; /* an object of strings, or NULL */

    bool has_namespace[CONTAINER_NAMESPACES];
    const char *namespace_path[CONTAINER_NAMESPACES]; /* NULL: a new one */
    struct container_id_maps maps;
    bool has_time_offsets;
    int64_t monotonic_seconds, boottime_seconds;
    uint32_t monotonic_nanoseconds, boottime_nanoseconds;
    struct container_device *devices;
    size_t n_devices;
    const char *cgroups_path;
    struct container_resources resources;
    struct container_intel_rdt intel_rdt;
    const char **sysctl; /* name, value, name, value, ... NULL */
    struct container_seccomp seccomp;
    unsigned long root_propagation;              /* MS_*; 0: not told */
    const char **masked_paths, **readonly_paths; /* NULL behind the last, or NULL */
    const char *mount_label;
    bool has_personality;
    unsigned long personality;
};

/* Reads and checks the `size` bytes of a config.json. 0 with *out, to be freed; -EINVAL or -ENOMEM with *err.
 */
int container_config_parse(const char *text, size_t size, struct container_config **out, struct error **err);
/* The file of that name in the directory `bundle`. */
int container_config_load(const char *bundle, const char *name, struct container_config **out,
                          struct error **err);
void container_config_free(struct container_config *config);

static inline void container_config_cleanup(struct container_config **config)
{
    container_config_free(*config);
}

/* ---- the parts, one file each; `pool` lives as long as what is written ---- */

/* config_process.c: an object as config.json's "process". */
int container_process_parse(struct config_pool *pool, const struct config_node *node,
                            struct container_process *out, struct error **err);
/* A file that is such an object (exec --process). *document keeps the strings. */
int container_process_load(const char *path, struct config_pool *pool, json_t **document,
                           struct container_process *out, struct error **err);
/* The number of a capability, "CAP_CHOWN" or "chown", or -1; its name, or NULL from the first that is
 * unknown. */
int container_capability_number(const char *name);
const char *container_capability_name(int number);

/* config_mounts.c */
int container_mounts_parse(struct container_config *config, const struct config_node *root,
                           struct error **err);
int container_id_maps_parse(struct config_pool *pool, const struct config_node *node, const char *key,
                            struct container_id_map **out, size_t *n, struct error **err);
/* The i-th option that is no data of the file system; NULL after the last. */
const char *container_mount_option(size_t i);

/* config_hooks.c */
int container_hooks_parse(struct config_pool *pool, const struct config_node *node,
                          struct container_hooks *out, struct error **err);

/* config_linux.c, config_seccomp.c: members of config.json's "linux" */
int container_linux_parse(struct container_config *config, const struct config_node *root,
                          struct error **err);
int container_seccomp_parse(struct config_pool *pool, const struct config_node *linux_node,
                            struct container_seccomp *out, struct error **err);
/* The i-th name of each kind that a profile may use, for `features`; NULL after the last. */
const char *container_seccomp_action(size_t i);
const char *container_seccomp_operator(size_t i);
const char *container_seccomp_architecture(size_t i);
const char *container_seccomp_flag(size_t i);

/* ---- config.c, for the parts ---- */

/* A document of JSON, numbers above 2^63-1 included (as real ones). NULL with *err. */
json_t *container_json_read(const char *text, size_t size, struct error **err);
json_t *container_json_read_file(const char *path, struct error **err);
/* The file of that name in an open directory; *out is NULL if there is none. 0 or -errno with *err. */
int container_json_read_in(int directory, const char *name, json_t **out, struct error **err);

#endif
