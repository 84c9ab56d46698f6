/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A profile of config.json as a program for the kernel's filter; libseccomp compiles it. The command that
 * makes a container does this before it forks, so that the container's process holds the program and not the
 * library's memory.
 */
#include "container/setup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "host/filter.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <string.h>

#define ARGUMENTS_MAX 6

static scmp_datum_t second(const struct container_seccomp_argument *a)
{
    return a->operator== SCMP_CMP_MASKED_EQ ? a->value_two : 0;
}

/*
 * Conditions on different arguments must all hold. Two on the same argument can't be told to the library in
 * one rule: then each condition is a rule, and one that holds is enough, which is what profiles mean by it.
 */
static int add_call(scmp_filter_ctx ctx, const struct container_seccomp_rule *rule, int call)
{
    struct scmp_arg_cmp tests[ARGUMENTS_MAX];
    unsigned seen = 0;
    bool repeated = rule->n_arguments > ARGUMENTS_MAX;

    for (size_t i = 0; i < rule->n_arguments; i++) {
        repeated |= seen >> rule->arguments[i].index & 1;
        seen |= 1u << rule->arguments[i].index;
    }
    for (size_t i = 0; i < rule->n_arguments; i++) {
        const struct container_seccomp_argument *a = &rule->arguments[i];
        const struct scmp_arg_cmp test = {a->index, (enum scmp_compare)a->operator, a->value, second(a)};

        if (repeated) {
            int rc = seccomp_rule_add_array(ctx, rule->action, call, 1, &test);
            if (rc < 0)
                return rc;
        } else {
            tests[i] = test;
        }
    }
    return repeated ? 0 : seccomp_rule_add_array(ctx, rule->action, call, (unsigned)rule->n_arguments, tests);
}

static int add_rules(scmp_filter_ctx ctx, const struct container_seccomp *seccomp, struct error **err)
{
    for (size_t i = 0; i < seccomp->n_rules; i++) {
        const struct container_seccomp_rule *rule = &seccomp->rules[i];

        /* What happens anyway needs no rule, and the library refuses one. */
        for (size_t k = 0; rule->action != seccomp->default_action && k < rule->n_names; k++) {
            int call = seccomp_syscall_resolve_name(rule->names[k]);
            /* Profiles name calls of kernels that this library does not know; they get the default action. */
            int rc = call == __NR_SCMP_ERROR ? 0 : add_call(ctx, rule, call);

            if (rc < 0)
                return error_set_errno(err, -rc, "seccomp: the rule for %s", rule->names[k]);
        }
    }
    return 0;
}

static int prepare(scmp_filter_ctx ctx, const struct container_seccomp *seccomp, struct error **err)
{
    int rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0);

    for (size_t i = 0; i < seccomp->n_architectures && rc == 0; i++) {
        rc = seccomp_arch_add(ctx, seccomp->architectures[i]);
        /* The native one is there already; one that is unknown can't run here. */
        if (rc == -EEXIST || rc == -EDOM)
            rc = 0;
    }
    /* A tree instead of a chain: no call waits long for its rule. */
    if (rc == 0 && seccomp->n_rules > 32)
        seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    return rc < 0 ? error_set_errno(err, -rc, "seccomp: architectures") : 0;
}

int seccomp_compile(const struct container_seccomp *seccomp, struct sock_fprog *out, struct error **err)
{
    scmp_filter_ctx ctx = seccomp_init(seccomp->default_action);

    if (!ctx)
        return error_set(err, EINVAL, "seccomp: the default action is not possible here");
    int rc = prepare(ctx, seccomp, err);
    if (rc == 0)
        rc = add_rules(ctx, seccomp, err);
    if (rc == 0) {
        rc = filter_export(ctx, out);
        if (rc < 0)
            error_set_errno(err, -rc, "seccomp: making the filter");
    }
    seccomp_release(ctx);
    return rc;
}
