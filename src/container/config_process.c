/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config.json's process (config.md, "Process"), and the same as a file of its own for `exec --process`. No
 * state. */
#include "container/config.h"

#include "base/bytes.h"
#include "base/error.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <linux/sched.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

static const char *const capability_names[] = {
    [CAP_CHOWN] = "CAP_CHOWN",
    [CAP_DAC_OVERRIDE] = "CAP_DAC_OVERRIDE",
    [CAP_DAC_READ_SEARCH] = "CAP_DAC_READ_SEARCH",
    [CAP_FOWNER] = "CAP_FOWNER",
    [CAP_FSETID] = "CAP_FSETID",
    [CAP_KILL] = "CAP_KILL",
    [CAP_SETGID] = "CAP_SETGID",
    [CAP_SETUID] = "CAP_SETUID",
    [CAP_SETPCAP] = "CAP_SETPCAP",
    [CAP_LINUX_IMMUTABLE] = "CAP_LINUX_IMMUTABLE",
    [CAP_NET_BIND_SERVICE] = "CAP_NET_BIND_SERVICE",
    [CAP_NET_BROADCAST] = "CAP_NET_BROADCAST",
    [CAP_NET_ADMIN] = "CAP_NET_ADMIN",
    [CAP_NET_RAW] = "CAP_NET_RAW",
    [CAP_IPC_LOCK] = "CAP_IPC_LOCK",
    [CAP_IPC_OWNER] = "CAP_IPC_OWNER",
    [CAP_SYS_MODULE] = "CAP_SYS_MODULE",
    [CAP_SYS_RAWIO] = "CAP_SYS_RAWIO",
    [CAP_SYS_CHROOT] = "CAP_SYS_CHROOT",
    [CAP_SYS_PTRACE] = "CAP_SYS_PTRACE",
    [CAP_SYS_PACCT] = "CAP_SYS_PACCT",
    [CAP_SYS_ADMIN] = "CAP_SYS_ADMIN",
    [CAP_SYS_BOOT] = "CAP_SYS_BOOT",
    [CAP_SYS_NICE] = "CAP_SYS_NICE",
    [CAP_SYS_RESOURCE] = "CAP_SYS_RESOURCE",
    [CAP_SYS_TIME] = "CAP_SYS_TIME",
    [CAP_SYS_TTY_CONFIG] = "CAP_SYS_TTY_CONFIG",
    [CAP_MKNOD] = "CAP_MKNOD",
    [CAP_LEASE] = "CAP_LEASE",
    [CAP_AUDIT_WRITE] = "CAP_AUDIT_WRITE",
    [CAP_AUDIT_CONTROL] = "CAP_AUDIT_CONTROL",
    [CAP_SETFCAP] = "CAP_SETFCAP",
    [CAP_MAC_OVERRIDE] = "CAP_MAC_OVERRIDE",
    [CAP_MAC_ADMIN] = "CAP_MAC_ADMIN",
    [CAP_SYSLOG] = "CAP_SYSLOG",
    [CAP_WAKE_ALARM] = "CAP_WAKE_ALARM",
    [CAP_BLOCK_SUSPEND] = "CAP_BLOCK_SUSPEND",
    [CAP_AUDIT_READ] = "CAP_AUDIT_READ",
    [CAP_PERFMON] = "CAP_PERFMON",
    [CAP_BPF] = "CAP_BPF",
    [CAP_CHECKPOINT_RESTORE] = "CAP_CHECKPOINT_RESTORE",
};

int container_capability_number(const char *name)
{
    size_t skip = strncasecmp(name, "CAP_", 4) == 0 ? 0 : 4;

    for (size_t i = 0; i < ARRAY_SIZE(capability_names); i++)
        if (strcasecmp(capability_names[i] + skip, name) == 0)
            return (int)i;
    return -1;
}

const char *container_capability_name(int number)
{
    return number >= 0 && (size_t)number < ARRAY_SIZE(capability_names) ? capability_names[number] : NULL;
}

static int take_set(const struct config_node *node, const char *key, uint64_t *out, struct error **err)
{
    struct config_node array, item;
    const char *name;
    int rc = config_array(node, key, false, &array, err);

    for (size_t i = 0; rc > 0 && i < config_length(&array); i++) {
        if (config_item_string(&array, i, &name, err))
            return -EINVAL;
        int number = container_capability_number(name);
        config_item(&array, i, &item);
        if (number < 0)
            return config_fail(&item, err, "unknown capability '%.64s'", name);
        *out |= UINT64_C(1) << number;
    }
    return rc < 0 ? rc : 0;
}

static int take_capabilities(const struct config_node *node, struct container_process *out,
                             struct error **err)
{
    struct config_node sets;
    struct container_capabilities *c = &out->capabilities;
    int rc = config_object(node, "capabilities", false, &sets, err);

    if (rc <= 0)
        return rc;
    if (take_set(&sets, "effective", &c->effective, err) || take_set(&sets, "bounding", &c->bounding, err) ||
        take_set(&sets, "inheritable", &c->inheritable, err) ||
        take_set(&sets, "permitted", &c->permitted, err) || take_set(&sets, "ambient", &c->ambient, err))
        return -EINVAL;
    out->has_capabilities = true;
    return 0;
}

static const char *const rlimit_names[] = {
    "RLIMIT_AS",      "RLIMIT_CORE",     "RLIMIT_CPU",        "RLIMIT_DATA",   "RLIMIT_FSIZE", "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK", "RLIMIT_MSGQUEUE", "RLIMIT_NICE",       "RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_RSS",
    "RLIMIT_RTPRIO",  "RLIMIT_RTTIME",   "RLIMIT_SIGPENDING", "RLIMIT_STACK"};
static const int rlimit_numbers[] = {RLIMIT_AS,     RLIMIT_CORE,   RLIMIT_CPU,        RLIMIT_DATA,
                                     RLIMIT_FSIZE,  RLIMIT_LOCKS,  RLIMIT_MEMLOCK,    RLIMIT_MSGQUEUE,
                                     RLIMIT_NICE,   RLIMIT_NOFILE, RLIMIT_NPROC,      RLIMIT_RSS,
                                     RLIMIT_RTPRIO, RLIMIT_RTTIME, RLIMIT_SIGPENDING, RLIMIT_STACK};

static int take_rlimits(struct config_pool *pool, const struct config_node *node,
                        struct container_process *out, struct error **err)
{
    struct config_node array, item;
    int rc = config_array(node, "rlimits", false, &array, err);
    unsigned seen = 0;

    if (rc <= 0)
        return rc;
    size_t n = config_length(&array), which = 0;
    out->rlimits = config_alloc(pool, n, sizeof(*out->rlimits));
    if (!out->rlimits)
        return config_fail(&array, err, "out of memory");
    for (size_t i = 0; i < n; i++) {
        struct container_rlimit *limit = &out->rlimits[i];

        if (config_item_object(&array, i, &item, err) ||
            config_name(&item, "type", true, rlimit_names, ARRAY_SIZE(rlimit_names), &which, err) < 0 ||
            config_uint64(&item, "soft", true, &limit->soft, err) < 0 ||
            config_uint64(&item, "hard", true, &limit->hard, err) < 0)
            return -EINVAL;
        limit->resource = rlimit_numbers[which];
        if (seen & 1u << limit->resource)
            return config_fail(&item, err, "%s is there twice", rlimit_names[which]);
        if (limit->soft > limit->hard)
            return config_fail(&item, err, "soft is larger than hard");
        seen |= 1u << limit->resource;
    }
    out->n_rlimits = n;
    return 0;
}

static int take_user(struct config_pool *pool, const struct config_node *node, struct container_process *out,
                     struct error **err)
{
    struct config_node user, gids;
    int64_t uid = 0, gid = 0, umask = 0;
    int rc = config_object(node, "user", false, &user, err);

    if (rc <= 0)
        return rc;
    if (config_int(&user, "uid", false, 0, UINT32_MAX - 1, &uid, err) < 0 ||
        config_int(&user, "gid", false, 0, UINT32_MAX - 1, &gid, err) < 0)
        return -EINVAL;
    out->uid = (uint32_t)uid;
    out->gid = (uint32_t)gid;
    rc = config_int(&user, "umask", false, 0, 0777, &umask, err);
    if (rc < 0)
        return rc;
    out->has_umask = rc;
    out->umask = (mode_t)umask;
    rc = config_array(&user, "additionalGids", false, &gids, err);
    if (rc <= 0)
        return rc;
    size_t n = config_length(&gids);
    if (n > 65536)
        return config_fail(&gids, err, "more than 65536 groups");
    out->gids = config_alloc(pool, n, sizeof(*out->gids));
    if (!out->gids)
        return config_fail(&gids, err, "out of memory");
    for (size_t i = 0; i < n; i++) {
        struct config_node item;

        config_item(&gids, i, &item);
        json_int_t value = json_integer_value(item.json);
        if (!json_is_integer(item.json) || value < 0 || value >= UINT32_MAX)
            return config_fail(&item, err, "must be a group's number");
        out->gids[i] = (gid_t)value;
    }
    out->n_gids = n;
    return 0;
}

/* SCHED_ISO is a name without a policy behind it. */
static const char *const policies[] = {"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR",
                                       "SCHED_BATCH", "SCHED_IDLE", "SCHED_DEADLINE"};
static const uint32_t policy_numbers[] = {SCHED_NORMAL, SCHED_FIFO, SCHED_RR,
                                          SCHED_BATCH,  SCHED_IDLE, SCHED_DEADLINE};
static const char *const sched_flags[] = {"SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_RECLAIM",
                                          "SCHED_FLAG_DL_OVERRUN",    "SCHED_FLAG_KEEP_POLICY",
                                          "SCHED_FLAG_KEEP_PARAMS",   "SCHED_FLAG_UTIL_CLAMP_MIN",
                                          "SCHED_FLAG_UTIL_CLAMP_MAX"};

static int take_scheduler(const struct config_node *node, struct container_scheduler *out, struct error **err)
{
    struct config_node object, flags, item;
    int64_t nice = 0, priority = 0;
    size_t which = 0;
    int rc = config_object(node, "scheduler", false, &object, err);

    if (rc <= 0)
        return rc;
    if (config_name(&object, "policy", true, policies, ARRAY_SIZE(policies), &which, err) < 0 ||
        config_int(&object, "nice", false, -20, 19, &nice, err) < 0 ||
        config_int(&object, "priority", false, 0, 99, &priority, err) < 0 ||
        config_uint64(&object, "runtime", false, &out->runtime, err) < 0 ||
        config_uint64(&object, "deadline", false, &out->deadline, err) < 0 ||
        config_uint64(&object, "period", false, &out->period, err) < 0 ||
        (rc = config_array(&object, "flags", false, &flags, err)) < 0)
        return -EINVAL;
    for (size_t i = 0; rc > 0 && i < config_length(&flags); i++) {
        const char *name;
        size_t bit = 0;

        if (config_item_string(&flags, i, &name, err))
            return -EINVAL;
        while (bit < ARRAY_SIZE(sched_flags) && strcmp(sched_flags[bit], name) != 0)
            bit++;
        config_item(&flags, i, &item);
        if (bit == ARRAY_SIZE(sched_flags))
            return config_fail(&item, err, "unknown scheduler flag '%.64s'", name);
        out->flags |= UINT64_C(1) << bit;
    }
    out->policy = policy_numbers[which];
    out->nice = (int32_t)nice;
    out->priority = (uint32_t)priority;
    bool real_time = out->policy == SCHED_FIFO || out->policy == SCHED_RR;
    if (priority && !real_time)
        return config_fail(&object, err, "priority is for SCHED_FIFO and SCHED_RR only");
    if ((out->runtime || out->deadline || out->period) && out->policy != SCHED_DEADLINE)
        return config_fail(&object, err, "runtime, deadline and period are for SCHED_DEADLINE only");
    out->given = true;
    return 0;
}

static int take_io_priority(const struct config_node *node, int *out, struct error **err)
{
    static const char *const classes[] = {"IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"};
    static const int numbers[] = {IOPRIO_CLASS_RT, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE};
    struct config_node object;
    int64_t priority = 0;
    size_t which = 0;

    *out = -1;
    int rc = config_object(node, "ioPriority", false, &object, err);
    if (rc <= 0)
        return rc;
    if (config_name(&object, "class", true, classes, ARRAY_SIZE(classes), &which, err) < 0 ||
        config_int(&object, "priority", false, 0, 7, &priority, err) < 0)
        return -EINVAL;
    *out = IOPRIO_PRIO_VALUE(numbers[which], (int)priority);
    return 0;
}

/* "0-3,7": the form only; which processors there are is the host's to say. */
static int check_list(const struct config_node *node, const char *key, const char *list, struct error **err)
{
    struct config_node member;

    if (!list)
        return 0;
    config_has(node, key, &member);
    for (const char *p = list; *p; p++)
        if (!isdigit((unsigned char)*p) && !strchr(",- ", *p))
            return config_fail(&member, err, "'%.64s' is no list of processors such as 0-3,7", list);
    return 0;
}

static int take_affinity(const struct config_node *node, struct container_process *out, struct error **err)
{
    struct config_node object;
    int rc = config_object(node, "execCPUAffinity", false, &object, err);

    if (rc <= 0)
        return rc;
    if (config_string(&object, "initial", false, &out->affinity_initial, err) < 0 ||
        config_string(&object, "final", false, &out->affinity_final, err) < 0 ||
        check_list(&object, "initial", out->affinity_initial, err) ||
        check_list(&object, "final", out->affinity_final, err))
        return -EINVAL;
    return 0;
}

static int take_terminal(const struct config_node *node, struct container_process *out, struct error **err)
{
    struct config_node size;
    int64_t rows = 0, columns = 0;

    if (config_bool(node, "terminal", &out->terminal, err) < 0)
        return -EINVAL;
    int rc = config_object(node, "consoleSize", false, &size, err);
    if (rc <= 0)
        return rc;
    if (config_int(&size, "height", true, 0, UINT16_MAX, &rows, err) < 0 ||
        config_int(&size, "width", true, 0, UINT16_MAX, &columns, err) < 0)
        return -EINVAL;
    if (out->terminal) {
        out->rows = (uint16_t)rows;
        out->columns = (uint16_t)columns;
    }
    return 0;
}

static int take_program(struct config_pool *pool, const struct config_node *node,
                        struct container_process *out, struct error **err)
{
    struct config_node member;

    if (config_strings(pool, node, "args", true, &out->args, &out->n_args, err) < 0 ||
        config_strings(pool, node, "env", false, &out->env, &out->n_env, err) < 0 ||
        config_string(node, "cwd", true, &out->cwd, err) < 0)
        return -EINVAL;
    config_has(node, "args", &member);
    if (out->n_args == 0)
        return config_fail(&member, err, "must not be empty");
    config_has(node, "cwd", &member);
    if (!*out->cwd)
        return config_fail(&member, err, "Cwd property must not be empty");
    if (out->cwd[0] != '/')
        return config_fail(&member, err, "Cwd must be an absolute path, and '%.100s' is not", out->cwd);
    return 0;
}

int container_process_parse(struct config_pool *pool, const struct config_node *node,
                            struct container_process *out, struct error **err)
{
    int64_t score = 0;

    if (take_program(pool, node, out, err) || take_terminal(node, out, err) ||
        take_user(pool, node, out, err) || take_capabilities(node, out, err) ||
        take_rlimits(pool, node, out, err) ||
        config_bool(node, "noNewPrivileges", &out->no_new_privileges, err) < 0 ||
        config_string(node, "apparmorProfile", false, &out->apparmor_profile, err) < 0 ||
        config_string(node, "selinuxLabel", false, &out->selinux_label, err) < 0 ||
        take_scheduler(node, &out->scheduler, err) || take_io_priority(node, &out->io_priority, err) ||
        take_affinity(node, out, err))
        return -EINVAL;
    int rc = config_int(node, "oomScoreAdj", false, -1000, 1000, &score, err);
    if (rc < 0)
        return rc;
    out->has_oom_score_adj = rc;
    out->oom_score_adj = (int)score;
    return 0;
}

int container_process_load(const char *path, struct config_pool *pool, json_t **document,
                           struct container_process *out, struct error **err)
{
    json_t *json = container_json_read_file(path, err);
    const struct config_node node = {.json = json};

    if (!json)
        return -EINVAL;
    *document = json;
    int rc = json_is_object(json) ? container_process_parse(pool, &node, out, err)
                                  : error_set(err, EINVAL, "not an object");
    return rc ? error_wrap(err, "%s", path) : 0;
}
