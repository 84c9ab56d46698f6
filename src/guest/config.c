/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Configurations from JSON. Called by the supervisor before it starts a VM. No state, no locks. */
#include "guest/config.h"

#include "base/error.h"
#include "guest/bundle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *string_of(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

static uint64_t number_of(const json_t *json, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(json, key));

    return value < 0 ? 0 : (uint64_t)value;
}

static bool is_true(const json_t *json, const char *key)
{
    return json_is_true(json_object_get(json, key));
}

/* The strings of a list; an array to be freed whose strings belong to `json`. 0, -EINVAL, -ENOMEM. */
static int list_of(const json_t *json, const char *key, const char ***out, size_t *n_out)
{
    const json_t *list = json_object_get(json, key);
    size_t n = json_array_size(list);
    const char **strings = calloc(n + 1, sizeof(*strings));

    if (!strings)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        strings[i] = json_string_value(json_array_get(list, i));
        if (!strings[i]) {
            free(strings);
            return -EINVAL;
        }
    }
    *out = strings;
    *n_out = n;
    return 0;
}

/* The disks; an array to be freed whose strings belong to `json`. 0, -EINVAL, -ENOMEM. */
static int read_disks(struct vm_config *vm, const json_t *json)
{
    const json_t *list = json_object_get(json, "disk");
    size_t n = json_array_size(list);
    struct vm_disk *disks = calloc(n + 1, sizeof(*disks));

    if (!disks)
        return -ENOMEM;
    vm->disks = disks;
    vm->n_disks = n;
    for (size_t i = 0; i < n; i++) {
        const json_t *disk = json_array_get(list, i);

        disks[i] = (struct vm_disk){
            .path = string_of(disk, "path"),
            .format = string_of(disk, "format"),
            .serial = string_of(disk, "serial"),
            .secret_file = string_of(disk, "secret-file"),
            .read_only = is_true(disk, "read-only"),
            .copy_on_read = is_true(disk, "copy-on-read"),
        };
        for (unsigned k = 0; k < DISK_LIMITS; k++)
            disks[i].limits.values[k] = number_of(disk, disk_limit_name(k));
        if (!disks[i].path)
            return -EINVAL;
    }
    return 0;
}

static int read_vm(struct vm_config *vm, const json_t *json)
{
    vm->directory = string_of(json, "directory");
    vm->firmware = string_of(json, "firmware");
    vm->firmware_log = string_of(json, "firmware-log");
    vm->vsock = string_of(json, "vsock");
    vm->vsock_cid = (uint32_t)number_of(json, "vsock-cid");
    vm->balloon = number_of(json, "balloon");
    vm->watchdog = string_of(json, "watchdog");
    vm->kernel = string_of(json, "kernel");
    vm->initrd = string_of(json, "initrd");
    vm->append = string_of(json, "append");
    vm->memory = number_of(json, "memory");
    vm->cpus = (unsigned)number_of(json, "cpus");
    vm->engine = string_of(json, "engine");
    vm->debug_exit = is_true(json, "debug-exit");
    vm->console_fd = vm->control_fd = -1;
    int rc = read_disks(vm, json);
    return rc ? rc : list_of(json, "module", &vm->modules, &vm->n_modules);
}

static int read_nets(struct guest_config *config, const char *name, struct error **err)
{
    const char **nets = NULL, **macs = NULL, **ports = NULL;
    size_t n_nets, n_macs, n_ports;
    int rc = list_of(config->json, "net", &nets, &n_nets);

    rc = rc ? rc : list_of(config->json, "mac", &macs, &n_macs);
    rc = rc ? rc : list_of(config->json, "publish", &ports, &n_ports);
    if (rc)
        error_set(err, -rc, "its configuration of networks can't be read");
    else
        rc = net_options_parse(&config->nets, nets, n_nets, macs, n_macs, ports, n_ports, name,
                               config->vm.cpus, err);
    free(nets);
    free(macs);
    free(ports);
    config->vm.nets = config->nets.nets;
    config->vm.n_nets = rc ? 0 : config->nets.n_nets;
    return rc;
}

/* The user network takes no card, but the network process is told the same. */
static int read_container(struct guest_config *config, const char *name, struct error **err)
{
    const char *net = json_string_value(json_array_get(json_object_get(config->json, "net"), 0));

    config->container = true;
    config->vm.cpus = 1;
    config->vm.console_fd = config->vm.control_fd = -1;
    int rc = bundle_check(config->json, err);
    return rc || (net && strncmp(net, "user", 4) != 0) ? rc : read_nets(config, name, err);
}

static bool is_container(const json_t *json)
{
    const char *kind = string_of(json, "kind");

    return kind && strcmp(kind, "container") == 0;
}

int guest_config_parse(struct guest_config *out, const char *text, const char *name, struct error **err)
{
    json_error_t where;
    struct guest_config config = {.json = json_loads(text, JSON_REJECT_DUPLICATES, &where)};

    if (!config.json)
        return error_set(err, EINVAL, "its configuration can't be read: %s", where.text);
    bool container = is_container(config.json);
    int rc = container                     ? read_container(&config, name, err)
             : json_is_object(config.json) ? read_vm(&config.vm, config.json)
                                           : -EINVAL;
    if (rc && !container)
        error_set(err, -rc, "its configuration is not one that this Tabique understands");
    else if (rc == 0 && !container)
        rc = read_nets(&config, name, err);
    const char *restart = string_of(config.json, "restart");
    if (rc == 0)
        rc = policy_parse(&config.restart, restart ? restart : "no", err);
    if (rc) {
        guest_config_clear(&config);
        return rc;
    }
    *out = config;
    /* It points into the structure itself. */
    out->vm.nets = out->nets.nets;
    return 0;
}

int guest_config_reload_disks(struct guest_config *config)
{
    struct vm_disk *before = (struct vm_disk *)(uintptr_t)config->vm.disks;
    int rc = read_disks(&config->vm, config->json);

    if (rc == 0)
        free(before);
    return rc;
}

void guest_config_clear(struct guest_config *config)
{
    free(config->vm.modules);
    free((struct vm_disk *)(uintptr_t)config->vm.disks);
    net_options_free(&config->nets);
    json_decref(config->json);
    *config = (struct guest_config){0};
}
