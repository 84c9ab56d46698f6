/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A config.json of any bytes. What is taken must be safe to act on; what is not must be told. */
#include "base/error.h"
#include "container/config.h"
#include "require.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct container_config *c)
{
    REQUIRE(c->version && c->root_path && *c->root_path && c->has_namespace[CONTAINER_NS_MOUNT]);
    REQUIRE(!c->has_process || (c->process.n_args && c->process.args[0] && c->process.cwd[0] == '/'));
    for (size_t i = 0; i < c->n_mounts; i++)
        REQUIRE(*c->mounts[i].destination &&
                (c->mounts[i].bind || c->mounts[i].remount || c->mounts[i].type));
    for (size_t i = 0; i < c->n_devices; i++)
        REQUIRE(c->devices[i].path[0] == '/' && strchr("cbp", c->devices[i].type));
    /* Written below /proc/sys: nothing that leads out. */
    for (size_t i = 0; c->sysctl && c->sysctl[i]; i += 2)
        REQUIRE(!strstr(c->sysctl[i], "..") && c->sysctl[i][0] != '/' && c->sysctl[i][0] != '.' &&
                c->sysctl[i + 1]);
    for (size_t i = 0; i < c->seccomp.n_rules; i++)
        for (size_t k = 0; k < c->seccomp.rules[i].n_arguments; k++)
            REQUIRE(c->seccomp.rules[i].arguments[k].index < 6);
    for (size_t i = 0; i < CONTAINER_NAMESPACES; i++)
        REQUIRE(!c->namespace_path[i] || c->namespace_path[i][0] == '/');
    REQUIRE(!c->intel_rdt.clos_id || !strchr(c->intel_rdt.clos_id, '/'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct container_config *config = NULL;
    struct error *err = NULL;

    if (container_config_parse((const char *)data, size, &config, &err)) {
        REQUIRE(err && *error_message(err) && !config);
        error_free(err);
        return 0;
    }
    REQUIRE(!err);
    check(config);
    container_config_free(config);
    return 0;
}
