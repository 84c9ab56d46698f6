/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config.json's hooks (config.md, "POSIX-platform Hooks"). Called by config.c. No state. */
#include "container/config.h"

#include <errno.h>
#include <string.h>

const char *const container_hook_names[CONTAINER_HOOKS] = {
    [CONTAINER_HOOK_PRESTART] = "prestart",
    [CONTAINER_HOOK_CREATE_RUNTIME] = "createRuntime",
    [CONTAINER_HOOK_CREATE_CONTAINER] = "createContainer",
    [CONTAINER_HOOK_START_CONTAINER] = "startContainer",
    [CONTAINER_HOOK_POSTSTART] = "poststart",
    [CONTAINER_HOOK_POSTSTOP] = "poststop",
};

static int take_hook(struct config_pool *pool, const struct config_node *node, struct container_hook *out,
                     struct error **err)
{
    if (config_string(node, "path", true, &out->path, err) < 0 ||
        config_strings(pool, node, "args", false, &out->args, NULL, err) < 0 ||
        config_strings(pool, node, "env", false, &out->env, NULL, err) < 0 ||
        config_int(node, "timeout", false, 1, INT32_MAX, &out->timeout, err) < 0)
        return -EINVAL;
    if (out->path[0] != '/')
        return config_fail(node, err, "path '%.100s' is not absolute", out->path);
    return 0;
}

int container_hooks_parse(struct config_pool *pool, const struct config_node *node,
                          struct container_hooks *out, struct error **err)
{
    for (size_t kind = 0; kind < CONTAINER_HOOKS; kind++) {
        struct config_node array, item;
        int rc = config_array(node, container_hook_names[kind], false, &array, err);

        if (rc < 0)
            return rc;
        if (rc == 0)
            continue;
        size_t n = config_length(&array);
        out->list[kind] = config_alloc(pool, n, sizeof(*out->list[kind]));
        if (!out->list[kind])
            return config_fail(&array, err, "out of memory");
        for (size_t i = 0; i < n; i++)
            if (config_item_object(&array, i, &item, err) || take_hook(pool, &item, &out->list[kind][i], err))
                return -EINVAL;
        out->n[kind] = n;
    }
    return 0;
}
