/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of one VM in this process: open the files, build the machine, boot, serve events until one ends
 * it, and take everything down again. Called by the command line; runs the loop in the caller's thread.
 */
#include "machine/vm.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "engine/engine.h"
#include "host/loop.h"
#include "machine/boot_source.h"
#include "machine/console.h"
#include "machine/machine.h"

#include <errno.h>

/* Kernels with all their debugging information stay below it; a disk image given by mistake may not. */
#define KERNEL_FILE_MAX (4ull << 30)

struct vm {
    const struct vm_config *config;
    struct boot_source kernel, initrd;
    struct boot_source *modules;
    size_t n_modules; /* opened so far */
    struct loop *loop;
    struct console console;
    struct machine *machine;
};

static int check_config(const struct vm_config *config, struct error **err)
{
    if (!config->kernel)
        return error_set(err, EINVAL, "no kernel: give --kernel FILE");
    if (config->cpus < 1 || config->cpus > ENGINE_MAX_CPUS)
        return error_set(err, EINVAL, "%u processors: choose --cpus from 1 to %u", config->cpus,
                         ENGINE_MAX_CPUS);
    if (config->memory < GUEST_MEMORY_MIN || config->memory > GUEST_MEMORY_MAX)
        return error_set(err, EINVAL, "%llu bytes of memory: choose --memory from 1M to 1024G",
                         (unsigned long long)config->memory);
    if (config->memory % GUEST_PAGE_SIZE)
        return error_set(err, EINVAL, "%llu bytes of memory: choose a --memory that is a multiple of 4K",
                         (unsigned long long)config->memory);
    return 0;
}

static int open_sources(struct vm *vm, struct error **err)
{
    const struct vm_config *config = vm->config;
    int rc = boot_source_open(&vm->kernel, "kernel", config->kernel, config->memory, err);

    if (rc == 0 && config->initrd)
        rc = boot_source_open(&vm->initrd, "initrd", config->initrd, config->memory, err);
    if (rc)
        return rc;
    vm->modules = calloc(config->n_modules + 1, sizeof(*vm->modules));
    if (!vm->modules)
        return error_set_errno(err, ENOMEM, "list of modules");
    for (; vm->n_modules < config->n_modules; vm->n_modules++) {
        rc = boot_source_open_module(&vm->modules[vm->n_modules], config->modules[vm->n_modules],
                                     config->memory, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* What can't fit is told before it is read. */
static int load_file(const struct vm *vm, const struct boot_source *source, struct boot_file *file,
                     struct error **err)
{
    if (source->size > vm->config->memory)
        return error_set(err, ENOMEM,
                         "'%s' of %llu MiB does not fit into %llu MiB of RAM: choose a larger --memory",
                         source->name, (unsigned long long)(source->size + 0xfffff) >> 20,
                         (unsigned long long)vm->config->memory >> 20);
    return boot_source_load(source, file, err);
}

/* May be larger than RAM: what is loaded of an ELF file is only a part. */
static int load_kernel(const struct boot_source *source, struct boot_file *file, struct error **err)
{
    if (source->size > KERNEL_FILE_MAX)
        return error_set(err, EFBIG,
                         "kernel '%s' of %llu MiB is no kernel: the largest file taken has %llu MiB",
                         source->name, (unsigned long long)source->size >> 20, KERNEL_FILE_MAX >> 20);
    int rc = boot_source_load(source, file, err);
    return rc ? error_wrap(err, "kernel") : 0;
}

static int boot(struct vm *vm, struct error **err)
{
    struct machine_payload payload = {.command_line = vm->config->append};
    cleanup_free struct boot_file *modules = calloc(vm->n_modules + 1, sizeof(*modules));

    if (!modules)
        return error_set_errno(err, ENOMEM, "list of modules");
    payload.modules = modules;
    int rc = load_kernel(&vm->kernel, &payload.kernel, err);
    if (rc == 0 && vm->initrd.fd >= 0) {
        rc = load_file(vm, &vm->initrd, &payload.initrd, err);
        if (rc)
            error_wrap(err, "initrd");
    }
    for (size_t i = 0; rc == 0 && i < vm->n_modules; i++) {
        rc = load_file(vm, &vm->modules[i], &modules[i], err);
        if (rc)
            error_wrap(err, "module");
        else
            payload.n_modules++;
    }
    if (rc == 0)
        rc = machine_load(vm->machine, &payload, err);
    boot_source_unload(&payload.kernel);
    boot_source_unload(&payload.initrd);
    for (size_t i = 0; i < vm->n_modules; i++)
        boot_source_unload(&modules[i]);
    return rc;
}

static int restart(struct vm *vm, struct error **err)
{
    int rc = machine_reset(vm->machine, err);

    if (rc == 0)
        rc = boot(vm, err);
    if (rc == 0)
        rc = machine_resume(vm->machine, err);
    return rc ? error_wrap(err, "restarting after the guest's reset") : 0;
}

/* Acts on one event; true when it ends the VM, with *rc and *exit_status set. vCPUs are paused. */
static bool handle_event(struct vm *vm, enum machine_event event, int code, int *exit_status, int *rc,
                         struct error **err)
{
    *rc = 0;
    switch (event) {
    case MACHINE_POWEROFF:
        *exit_status = VM_EXIT_POWEROFF;
        return true;
    case MACHINE_DEBUG_EXIT:
        *exit_status = (int)(((unsigned)code << 1 | 1) & 0xff);
        return true;
    case MACHINE_PANIC:
        *exit_status = VM_EXIT_PANIC;
        return true;
    case MACHINE_ENGINE_FAILED:
        *exit_status = VM_EXIT_ENGINE;
        *rc = error_set(err, EIO, "engine %s: %s", machine_engine_name(vm->machine),
                        machine_failure(vm->machine));
        return true;
    case MACHINE_RESET:
        *rc = restart(vm, err);
        if (*rc)
            *exit_status = VM_EXIT_FAILED;
        return *rc != 0;
    }
    return false;
}

static int serve(struct vm *vm, int *exit_status, struct error **err)
{
    for (;;) {
        enum machine_event event;
        int code, rc;

        loop_run(vm->loop);
        machine_pause(vm->machine);
        /* What the guest itself decided goes before what a person asked for meanwhile. */
        if (machine_take_event(vm->machine, &event, &code)) {
            if (handle_event(vm, event, code, exit_status, &rc, err))
                return rc;
            if (!console_left(&vm->console))
                continue;
        }
        if (console_left(&vm->console)) {
            *exit_status = console_left(&vm->console);
            return 0;
        }
        rc = machine_resume(vm->machine, err);
        if (rc)
            return rc;
    }
}

static void on_resized(void *opaque, uint16_t columns, uint16_t rows)
{
    struct vm *vm = opaque;

    machine_resize_console(vm->machine, columns, rows);
}

static int build(struct vm *vm, struct error **err)
{
    const struct vm_config *config = vm->config;
    struct machine_config machine_config = {
        .memory = config->memory,
        .cpus = config->cpus,
        .engine = config->engine ? config->engine : "auto",
        .debug_exit = config->debug_exit,
    };
    int rc = check_config(config, err);

    if (rc == 0)
        rc = open_sources(vm, err);
    if (rc == 0)
        rc = loop_create(&vm->loop, err);
    if (rc)
        return rc;
    console_init(&vm->console, vm->loop);
    machine_config.loop = vm->loop;
    machine_config.serial = &vm->console.ports[CONSOLE_SERIAL];
    machine_config.console = &vm->console.ports[CONSOLE_VIRTIO];
    console_size(&machine_config.columns, &machine_config.rows);
    vm->console.resized = on_resized;
    vm->console.opaque = vm;
    rc = machine_create(&vm->machine, &machine_config, err);
    if (rc == 0)
        rc = boot(vm, err);
    if (rc == 0)
        rc = console_open(&vm->console, err);
    return rc;
}

static void tear_down(struct vm *vm)
{
    /* Devices may still have output, so the terminal stays until they are gone. */
    machine_free(vm->machine);
    console_close(&vm->console);
    loop_free(vm->loop);
    boot_source_close(&vm->kernel);
    boot_source_close(&vm->initrd);
    for (size_t i = 0; i < vm->n_modules; i++)
        boot_source_close(&vm->modules[i]);
    free(vm->modules);
}

int vm_run(const struct vm_config *config, int *exit_status, struct error **err)
{
    struct vm vm = {
        .config = config, .kernel = BOOT_SOURCE_NONE, .initrd = BOOT_SOURCE_NONE, .console.resize_fd = -1};
    int rc = build(&vm, err);

    *exit_status = VM_EXIT_FAILED;
    if (rc == 0)
        rc = machine_resume(vm.machine, err);
    if (rc == 0)
        rc = serve(&vm, exit_status, err);
    tear_down(&vm);
    return rc;
}
