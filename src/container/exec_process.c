/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a process of exec is: as the container's own, but for what was asked for. */
#include "container/exec_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "container/state_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static size_t count(const char *const *list)
{
    size_t n = 0;

    while (list && list[n])
        n++;
    return n;
}

static int add_environment(struct execution *e, struct error **err)
{
    struct container_process *p = &e->process;
    size_t n = count(e->request->env);
    const char **env = config_alloc(&e->pool, p->n_env + n + 1, sizeof(*env));

    if (!env)
        return error_set_errno(err, ENOMEM, "environment");
    for (size_t i = 0; i < p->n_env; i++)
        env[i] = p->env[i];
    for (size_t i = 0; i < n; i++)
        env[p->n_env + i] = e->request->env[i];
    p->env = env;
    p->n_env += n;
    return 0;
}

static int add_groups(struct execution *e, struct error **err)
{
    struct container_process *p = &e->process;
    size_t n = count(e->request->additional_gids);
    gid_t *gids = config_alloc(&e->pool, p->n_gids + n + 1, sizeof(*gids));

    if (!gids)
        return error_set_errno(err, ENOMEM, "groups");
    for (size_t i = 0; i < p->n_gids; i++)
        gids[i] = p->gids[i];
    for (size_t i = 0; i < n; i++) {
        char *end;
        unsigned long gid = strtoul(e->request->additional_gids[i], &end, 10);

        if (*end || end == e->request->additional_gids[i] || gid >= UINT32_MAX)
            return error_set(err, EINVAL, "--additional-gids %s: not a group's number",
                             e->request->additional_gids[i]);
        gids[p->n_gids + i] = (gid_t)gid;
    }
    p->gids = gids;
    p->n_gids += n;
    return 0;
}

static int add_capabilities(struct execution *e, struct error **err)
{
    struct container_capabilities *c = &e->process.capabilities;

    for (size_t i = 0; i < count(e->request->capabilities); i++) {
        int number = container_capability_number(e->request->capabilities[i]);

        if (number < 0)
            return error_set(err, EINVAL, "--cap %s: unknown capability", e->request->capabilities[i]);
        uint64_t bit = UINT64_C(1) << number;
        c->bounding |= bit;
        c->effective |= bit;
        c->permitted |= bit;
        /* To others than root it comes through the ambient set alone. */
        if (e->process.uid || c->ambient) {
            c->inheritable |= bit;
            c->ambient |= bit;
        }
        e->process.has_capabilities = true;
    }
    return 0;
}

static int describe_by_flags(struct execution *e, struct error **err)
{
    const struct container_exec *r = e->request;
    struct container_process *p = &e->process;

    *p = e->config->process;
    p->args = (const char **)r->args;
    p->n_args = count(r->args);
    p->terminal = r->terminal;
    p->rows = p->columns = 0;
    if (r->cwd)
        p->cwd = r->cwd;
    if (p->cwd[0] != '/')
        return error_set(err, EINVAL, "Cwd must be an absolute path");
    if (r->apparmor_profile)
        p->apparmor_profile = r->apparmor_profile;
    if (r->selinux_label)
        p->selinux_label = r->selinux_label;
    if (r->has_no_new_privileges)
        p->no_new_privileges = r->no_new_privileges;
    if (r->has_user) {
        p->uid = r->uid;
        p->gid = r->gid;
    }
    if (!p->n_args)
        return error_set(err, EINVAL, "process args cannot be empty");
    int rc = add_environment(e, err);
    if (rc == 0)
        rc = add_groups(e, err);
    return rc ? rc : add_capabilities(e, err);
}

int execution_describe(struct execution *e, struct error **err)
{
    if (!e->request->process_file)
        return describe_by_flags(e, err);
    int rc = container_process_load(e->request->process_file, &e->pool, &e->document, &e->process, err);
    if (rc == 0 && e->request->terminal)
        e->process.terminal = true;
    return rc;
}

void execution_free(struct execution *e)
{
    if (e->target >= 0)
        close(e->target);
    if (e->console >= 0)
        close(e->console);
    free(e->filter.filter);
    cgroup_free(e->cgroup);
    container_config_free(e->config);
    state_close(e->container);
    config_pool_free(&e->pool);
    json_decref(e->document);
}
