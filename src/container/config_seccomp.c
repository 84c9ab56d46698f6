/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * config.json's linux.seccomp (config-linux.md, "Seccomp"): names become libseccomp's numbers. Only its
 * header is used here; the library is loaded by who makes the filter (seccomp.c). No state.
 */
#include "container/config.h"

#include "base/bytes.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <string.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

static const char *const actions[] = {"SCMP_ACT_ALLOW",        "SCMP_ACT_ERRNO",       "SCMP_ACT_KILL",
                                      "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG",
                                      "SCMP_ACT_NOTIFY",       "SCMP_ACT_TRACE",       "SCMP_ACT_TRAP"};
static const uint32_t action_numbers[] = {SCMP_ACT_ALLOW,        SCMP_ACT_ERRNO(0),    SCMP_ACT_KILL_THREAD,
                                          SCMP_ACT_KILL_PROCESS, SCMP_ACT_KILL_THREAD, SCMP_ACT_LOG,
                                          SCMP_ACT_NOTIFY,       SCMP_ACT_TRACE(0),    SCMP_ACT_TRAP};

static const char *const operators[] = {"SCMP_CMP_EQ", "SCMP_CMP_GE",        "SCMP_CMP_GT", "SCMP_CMP_LE",
                                        "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"};
static const unsigned operator_numbers[] = {SCMP_CMP_EQ, SCMP_CMP_GE,        SCMP_CMP_GT, SCMP_CMP_LE,
                                            SCMP_CMP_LT, SCMP_CMP_MASKED_EQ, SCMP_CMP_NE};

static const char *const architectures[] = {
    "SCMP_ARCH_AARCH64",   "SCMP_ARCH_ARM",      "SCMP_ARCH_MIPS",     "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL",   "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",    "SCMP_ARCH_PARISC64", "SCMP_ARCH_PPC",      "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",   "SCMP_ARCH_RISCV64",  "SCMP_ARCH_S390",     "SCMP_ARCH_S390X",
    "SCMP_ARCH_X32",       "SCMP_ARCH_X86",      "SCMP_ARCH_X86_64"};
static const uint32_t architecture_numbers[] = {
    SCMP_ARCH_AARCH64, SCMP_ARCH_ARM,      SCMP_ARCH_MIPS,        SCMP_ARCH_MIPS64,  SCMP_ARCH_MIPS64N32,
    SCMP_ARCH_MIPSEL,  SCMP_ARCH_MIPSEL64, SCMP_ARCH_MIPSEL64N32, SCMP_ARCH_PARISC,  SCMP_ARCH_PARISC64,
    SCMP_ARCH_PPC,     SCMP_ARCH_PPC64,    SCMP_ARCH_PPC64LE,     SCMP_ARCH_RISCV64, SCMP_ARCH_S390,
    SCMP_ARCH_S390X,   SCMP_ARCH_X32,      SCMP_ARCH_X86,         SCMP_ARCH_X86_64};

static const char *const flags[] = {"SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                                    "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"};
static const unsigned long flag_numbers[] = {SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                                             SECCOMP_FILTER_FLAG_TSYNC,
                                             SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV};

const char *container_seccomp_action(size_t i)
{
    return i < ARRAY_SIZE(actions) ? actions[i] : NULL;
}

const char *container_seccomp_operator(size_t i)
{
    return i < ARRAY_SIZE(operators) ? operators[i] : NULL;
}

const char *container_seccomp_architecture(size_t i)
{
    return i < ARRAY_SIZE(architectures) ? architectures[i] : NULL;
}

const char *container_seccomp_flag(size_t i)
{
    return i < ARRAY_SIZE(flags) ? flags[i] : NULL;
}

/* An action with the errno of the member `errno_key`, EPERM if it has one and none is told. */
static int take_action(const struct config_node *node, const char *key, const char *errno_key, uint32_t *out,
                       struct error **err)
{
    size_t which = 0;
    int64_t number = EPERM;

    if (config_name(node, key, true, actions, ARRAY_SIZE(actions), &which, err) < 0)
        return -EINVAL;
    int given = config_int(node, errno_key, false, 0, UINT16_MAX, &number, err);
    if (given < 0)
        return given;
    uint32_t action = action_numbers[which];
    bool takes_errno = action == SCMP_ACT_ERRNO(0) || action == SCMP_ACT_TRACE(0);
    /* What others write along is no harm where it says the default. */
    if (given && !takes_errno)
        return config_fail(node, err, "%s takes no errno, and %s gives one", actions[which], errno_key);
    *out = takes_errno ? action | (uint32_t)number : action;
    return 0;
}

static int take_arguments(struct config_pool *pool, const struct config_node *node,
                          struct container_seccomp_rule *out, struct error **err)
{
    struct config_node array, item;
    int rc = config_array(node, "args", false, &array, err);

    if (rc <= 0)
        return rc;
    size_t n = config_length(&array);
    out->arguments = config_alloc(pool, n, sizeof(*out->arguments));
    if (!out->arguments)
        return config_fail(&array, err, "out of memory");
    for (size_t i = 0; i < n; i++) {
        struct container_seccomp_argument *a = &out->arguments[i];
        int64_t index = 0;
        size_t which = 0;

        if (config_item_object(&array, i, &item, err) ||
            config_int(&item, "index", true, 0, 5, &index, err) < 0 ||
            config_uint64(&item, "value", true, &a->value, err) < 0 ||
            config_uint64(&item, "valueTwo", false, &a->value_two, err) < 0 ||
            config_name(&item, "op", true, operators, ARRAY_SIZE(operators), &which, err) < 0)
            return -EINVAL;
        a->index = (unsigned)index;
        a->operator= operator_numbers[which];
    }
    out->n_arguments = n;
    return 0;
}

static int take_rules(struct config_pool *pool, const struct config_node *node, struct container_seccomp *out,
                      struct error **err)
{
    struct config_node array, item;
    int rc = config_array(node, "syscalls", false, &array, err);

    if (rc <= 0)
        return rc;
    size_t n = config_length(&array);
    out->rules = config_alloc(pool, n, sizeof(*out->rules));
    if (!out->rules)
        return config_fail(&array, err, "out of memory");
    for (size_t i = 0; i < n; i++) {
        struct container_seccomp_rule *rule = &out->rules[i];

        if (config_item_object(&array, i, &item, err) ||
            config_strings(pool, &item, "names", true, &rule->names, &rule->n_names, err) < 0 ||
            take_action(&item, "action", "errnoRet", &rule->action, err) ||
            take_arguments(pool, &item, rule, err))
            return -EINVAL;
        if (!rule->n_names)
            return config_fail(&item, err, "names is empty");
        out->notifies |= rule->action == SCMP_ACT_NOTIFY;
    }
    out->n_rules = n;
    return 0;
}

static int take_architectures(struct config_pool *pool, const struct config_node *node,
                              struct container_seccomp *out, struct error **err)
{
    struct config_node array, item;
    int rc = config_array(node, "architectures", false, &array, err);

    if (rc <= 0)
        return rc;
    size_t n = config_length(&array);
    out->architectures = config_alloc(pool, n, sizeof(*out->architectures));
    if (!out->architectures)
        return config_fail(&array, err, "out of memory");
    for (size_t i = 0; i < n; i++) {
        const char *name;
        size_t which = 0;

        if (config_item_string(&array, i, &name, err))
            return -EINVAL;
        while (which < ARRAY_SIZE(architectures) && strcmp(architectures[which], name) != 0)
            which++;
        config_item(&array, i, &item);
        if (which == ARRAY_SIZE(architectures))
            return config_fail(&item, err, "unknown architecture '%.64s'", name);
        out->architectures[i] = architecture_numbers[which];
    }
    out->n_architectures = n;
    return 0;
}

static int take_flags(const struct config_node *node, struct container_seccomp *out, struct error **err)
{
    struct config_node array, item;
    int rc = config_array(node, "flags", false, &array, err);

    for (size_t i = 0; rc > 0 && i < config_length(&array); i++) {
        const char *name;
        size_t which = 0;

        if (config_item_string(&array, i, &name, err))
            return -EINVAL;
        while (which < ARRAY_SIZE(flags) && strcmp(flags[which], name) != 0)
            which++;
        config_item(&array, i, &item);
        if (which == ARRAY_SIZE(flags))
            return config_fail(&item, err, "unknown flag '%.64s'", name);
        out->flags |= flag_numbers[which];
    }
    return rc < 0 ? rc : 0;
}

int container_seccomp_parse(struct config_pool *pool, const struct config_node *linux_node,
                            struct container_seccomp *out, struct error **err)
{
    struct config_node node;
    int rc = config_object(linux_node, "seccomp", false, &node, err);

    if (rc <= 0)
        return rc;
    if (take_action(&node, "defaultAction", "defaultErrnoRet", &out->default_action, err) ||
        take_architectures(pool, &node, out, err) || take_flags(&node, out, err) ||
        take_rules(pool, &node, out, err) ||
        config_string(&node, "listenerPath", false, &out->listener_path, err) < 0 ||
        config_string(&node, "listenerMetadata", false, &out->listener_metadata, err) < 0)
        return -EINVAL;
    out->notifies |= out->default_action == SCMP_ACT_NOTIFY;
    if (out->default_action == SCMP_ACT_NOTIFY)
        return config_fail(&node, err,
                           "defaultAction can't be SCMP_ACT_NOTIFY: the runtime would wait for itself");
    if (out->listener_metadata && (!out->listener_path || !*out->listener_path))
        return config_fail(&node, err, "listenerMetadata needs listenerPath");
    if (out->notifies && (!out->listener_path || !*out->listener_path))
        return config_fail(&node, err, "SCMP_ACT_NOTIFY needs listenerPath");
    /* A rule that notifies about what sends the notice's descriptor would stop the runtime for good. */
    for (size_t i = 0; i < out->n_rules; i++)
        for (size_t k = 0; out->rules[i].action == SCMP_ACT_NOTIFY && k < out->rules[i].n_names; k++)
            if (strcmp(out->rules[i].names[k], "sendmsg") == 0 ||
                strcmp(out->rules[i].names[k], "write") == 0)
                return config_fail(&node, err, "SCMP_ACT_NOTIFY can't be used for the %s syscall",
                                   out->rules[i].names[k]);
    out->given = true;
    return 0;
}
