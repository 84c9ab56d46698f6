/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of one VM: open the files, build the machine, boot, serve events until one ends it, and take
 * everything down again. Called by vm_process.c; runs the loop in the caller's thread. No locks.
 */
#include "machine/vm.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/virtio/balloon.h"
#include "device/virtio/net.h"
#include "device/virtio/vsock.h"
#include "disk/copy.h"
#include "engine/engine.h"
#include "host/confine.h"
#include "host/loop.h"
#include "machine/agent.h"
#include "machine/boot_source.h"
#include "machine/console.h"
#include "machine/firmware.h"
#include "machine/machine.h"
#include "machine/vm_disks.h"
#include "machine/vm_switch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>

/* Kernels with all their debugging information stay below it; a disk image given by mistake may not. */
#define KERNEL_FILE_MAX (4ull << 30)

struct vm {
    const struct vm_config *config;
    const char *firmware_name; /* as in the configuration, or what its disks imply; NULL: a kernel */
    struct boot_source firmware, kernel, initrd;
    int firmware_log;
    struct boot_source *modules;
    size_t n_modules; /* opened so far */
    struct vm_disks disks;
    const struct engine_class *engine;
    int engine_fd; /* what it works on, or -1 */
    struct loop *loop;
    struct loop_watch *control_watch;
    struct console console;
    struct agent agent;
    struct virtio_net_config *nets;
    struct machine *machine;
    bool paused, quit; /* as the supervisor asked for */
    bool pause_asked;  /* a VM_PAUSE or VM_RESUME is to be answered, by this number */
    uint64_t pause_number;
    struct vm_switch disk_switch;
    enum watchdog_action watchdog;
    uint64_t stats[VM_STATS_COUNT];
};

static int check_config(const struct vm_config *config, struct error **err)
{
    if (!config->kernel && !config->firmware && !config->n_disks)
        return error_set(err, EINVAL, "nothing to boot: give --kernel FILE or --disk FILE");
    if (config->kernel && config->firmware)
        return error_set(
            err, EINVAL,
            "a kernel and a firmware: give --kernel to boot it without firmware, or --firmware to "
            "boot from a disk");
    if (!config->kernel && (config->initrd || config->append || config->n_modules))
        return error_set(
            err, EINVAL,
            "--initrd, --append and --module are for a kernel: give --kernel too, or leave them out");
    if (config->cpus < 1 || config->cpus > ENGINE_MAX_CPUS)
        return error_set(err, EINVAL, "%u processors: choose --cpus from 1 to %u", config->cpus,
                         ENGINE_MAX_CPUS);
    if (config->memory < GUEST_MEMORY_MIN || config->memory > GUEST_MEMORY_MAX)
        return error_set(err, EINVAL, "%llu bytes of memory: choose --memory from 1M to 1024G",
                         (unsigned long long)config->memory);
    if (config->balloon >= config->memory)
        return error_set(err, EINVAL,
                         "a balloon of %llu bytes leaves the guest nothing: choose a --balloon below "
                         "--memory",
                         (unsigned long long)config->balloon);
    if (config->memory % GUEST_PAGE_SIZE)
        return error_set(err, EINVAL, "%llu bytes of memory: choose a --memory that is a multiple of 4K",
                         (unsigned long long)config->memory);
    return 0;
}

static int take_watchdog(struct vm *vm, struct error **err)
{
    const char *name = vm->config->watchdog;

    if (!name || strcmp(name, "reset") == 0)
        vm->watchdog = WATCHDOG_RESET;
    else if (strcmp(name, "poweroff") == 0)
        vm->watchdog = WATCHDOG_POWEROFF;
    else if (strcmp(name, "none") == 0)
        vm->watchdog = WATCHDOG_NONE;
    else
        return error_set(err, EINVAL, "watchdog '%s': choose reset, poweroff or none", name);
    return 0;
}

static int open_firmware(struct vm *vm, struct error **err)
{
    const char *path = firmware_path(vm->firmware_name, err);

    if (!path)
        return -ENOENT;
    int rc = boot_source_open(&vm->firmware, "firmware", path, GUEST_ROM_MAX, err);
    if (rc)
        return rc;
    rc = firmware_check_size(vm->firmware.size, err);
    return rc ? error_wrap(err, "firmware '%s'", path) : 0;
}

static int open_firmware_log(struct vm *vm, struct error **err)
{
    const char *path = vm->config->firmware_log;

    vm->firmware_log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666);
    return vm->firmware_log < 0 ? error_set_errno(err, errno, "firmware log '%s'", path) : 0;
}

static int open_kernel(struct vm *vm, struct error **err)
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

static int open_sources(struct vm *vm, struct error **err)
{
    int rc = vm->firmware_name ? open_firmware(vm, err) : open_kernel(vm, err);

    if (rc == 0 && vm->config->firmware_log)
        rc = open_firmware_log(vm, err);
    return rc ? rc : vm_disks_open(&vm->disks, vm->config->disks, vm->config->n_disks, err);
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

static int boot_firmware(struct vm *vm, struct error **err)
{
    struct machine_payload payload = {0};
    int rc = boot_source_load(&vm->firmware, &payload.firmware, err);

    if (rc == 0)
        rc = machine_load(vm->machine, &payload, err);
    boot_source_unload(&payload.firmware);
    return rc ? error_wrap(err, "firmware") : 0;
}

static int boot(struct vm *vm, struct error **err)
{
    if (vm->firmware_name)
        return boot_firmware(vm, err);
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

static void tell(struct vm *vm, enum vm_message_type type, const char *text)
{
    struct vm_message m = {.type = type};

    if (vm->config->control_fd < 0)
        return;
    vm_message_set_text(&m, text);
    memcpy(m.stats, vm->stats, sizeof(m.stats));
    if (type == VM_STATS)
        machine_engine_stats(vm->machine, &m.engine);
    /* A supervisor that does not read is not waited for: it asks again. */
    vm_message_send(vm->config->control_fd, &m);
}

/* Has serve look at what was asked for, with the vCPUs paused. */
static void interrupt(struct vm *vm)
{
    loop_stop(vm->loop, 0);
}

static void count_net(struct vm *vm)
{
    struct net_stats net;

    machine_net_stats(vm->machine, &net);
    vm->stats[VM_STAT_NET_RX_PACKETS] = net.rx_packets;
    vm->stats[VM_STAT_NET_RX_BYTES] = net.rx_bytes;
    vm->stats[VM_STAT_NET_RX_DROPS] = net.rx_drops;
    vm->stats[VM_STAT_NET_TX_PACKETS] = net.tx_packets;
    vm->stats[VM_STAT_NET_TX_BYTES] = net.tx_bytes;
    vm->stats[VM_STAT_NET_TX_DROPS] = net.tx_drops;
}

static void take_balloon(struct vm *vm)
{
    static const enum virtio_balloon_stat told[] = {BALLOON_TOTAL, BALLOON_FREE, BALLOON_AVAILABLE,
                                                    BALLOON_CACHES};
    struct virtio_balloon_report report;

    machine_balloon(vm->machine, &report);
    vm->stats[VM_STAT_BALLOON_DRIVER] = report.driver;
    vm->stats[VM_STAT_BALLOON_TARGET] = report.target;
    vm->stats[VM_STAT_BALLOON] = report.actual;
    vm->stats[VM_STAT_MEMORY_REPORTED] = report.reported;
    for (unsigned i = 0; i < ARRAY_SIZE(told); i++)
        vm->stats[VM_STAT_MEMORY_TOTAL + i] = report.valid >> told[i] & 1 ? report.stats[told[i]] : 0;
}

/* A target that nobody in the guest works towards would be a promise, and take hold at some later time. */
static void set_balloon(struct vm *vm, uint64_t bytes)
{
    take_balloon(vm);
    if (vm->stats[VM_STAT_BALLOON_DRIVER]) {
        machine_set_balloon(vm->machine, bytes);
        take_balloon(vm);
    }
    tell(vm, VM_BALLOON, "");
}

static void tell_profile(struct vm *vm, unsigned hz)
{
    struct vm_message m = {.type = VM_PROFILE};

    machine_profile(vm->machine, hz, &m.profile);
    vm_message_send(vm->config->control_fd, &m);
}

static void resize_disk(struct vm *vm, const struct vm_message *m)
{
    struct vm_message answer = {.type = VM_DISK_RESIZED};
    int rc = machine_resize_disk(vm->machine, m->value, m->size);

    if (rc) {
        answer.status = 1;
        vm_message_set_text(&answer, rc == -EBUSY ? VM_COPYING : strerror(-rc));
    }
    vm_message_send(vm->config->control_fd, &answer);
}

static void copy_disk(struct vm *vm, struct vm_message *m, int fd)
{
    char *bitmap = strchr(m->text, ' ');
    struct disk_copying what = {.since = *m->text && m->text != bitmap ? m->text : NULL,
                                .bitmap = bitmap && bitmap[1] ? bitmap + 1 : NULL,
                                .mirror = m->size == VM_COPY_MIRROR || m->size == VM_COPY_PIVOT,
                                .pivot = m->size == VM_COPY_PIVOT,
                                .fill = m->size == VM_COPY_FILL,
                                .rate = m->limits.values[DISK_LIMIT_BPS]};

    if (bitmap)
        *bitmap = '\0';
    if (fd >= 0)
        machine_copy_disk(vm->machine, m->value, fd, &what);
}

static void on_agent(void *opaque, bool thaw, uint64_t n, const char *why)
{
    struct vm *vm = opaque;
    struct vm_message m = {.type = thaw ? VM_THAWED : VM_FROZEN, .status = why != NULL, .value = n};

    vm_message_set_text(&m, why ? why : "");
    vm_message_send(vm->config->control_fd, &m);
}

static void freeze(struct vm *vm)
{
    if (vm->agent.state != AGENT_IDLE)
        on_agent(vm, false, 0, "its agent is busy");
    else if (vm->paused)
        on_agent(vm, false, 0, "it is paused");
    else if (!agent_is_there(&vm->agent))
        on_agent(vm, false, 0, "no agent runs in it");
    else
        agent_freeze(&vm->agent);
}

static void act_on(struct vm *vm, const struct vm_message *m)
{
    switch ((enum vm_message_type)m->type) {
    case VM_POWER_BUTTON:
        machine_press_power_button(vm->machine);
        break;
    case VM_PAUSE:
    case VM_RESUME:
        vm->paused = m->type == VM_PAUSE;
        vm->pause_asked = true;
        vm->pause_number = m->value;
        interrupt(vm);
        break;
    case VM_RESIZE:
        machine_resize_console(vm->machine, m->columns, m->rows);
        break;
    case VM_SET_BALLOON:
        set_balloon(vm, m->value);
        break;
    case VM_STATS_WANTED:
        count_net(vm);
        take_balloon(vm);
        tell(vm, VM_STATS, "");
        break;
    case VM_PROFILE_WANTED:
        tell_profile(vm, (unsigned)m->value);
        break;
    case VM_DISK_SWITCH:
    case VM_DISK_GO_ON:
        vm_switch_ask(&vm->disk_switch, m);
        interrupt(vm);
        break;
    case VM_DISK_LIMIT:
        machine_limit_disk(vm->machine, m->value, &m->limits);
        break;
    case VM_DISK_RESIZE:
        resize_disk(vm, m);
        break;
    case VM_FREEZE:
        freeze(vm);
        break;
    case VM_THAW:
        agent_thaw(&vm->agent);
        break;
    case VM_QUIT:
        vm->quit = true;
        interrupt(vm);
        break;
    default: /* vm_message_receive lets no other through */
        break;
    }
}

static void on_control(void *opaque, uint32_t events)
{
    struct vm *vm = opaque;
    struct vm_message m;
    int rc = 0, passed;

    /* What comes after a pause finds the guest paused, and each pause its answer: it is read later. */
    while (!vm->pause_asked && !vm->disk_switch.asked &&
           (rc = vm_message_receive_passed(vm->config->control_fd, &m, &passed)) == 0) {
        if (m.type == VM_DISK_FILE)
            vm_switch_take(&vm->disk_switch, &m, steal_fd(passed));
        else if (m.type == VM_DISK_COPY)
            copy_disk(vm, &m, steal_fd(passed));
        else
            act_on(vm, &m);
        cleanup_close_fn(&passed);
    }
    /* No supervisor, or one that has lost its mind: nobody could stop this guest any more. */
    if (rc && rc != -EAGAIN) {
        vm->quit = true;
        loop_watch_modify(vm->control_watch, 0);
        interrupt(vm);
    }
}

static int restart(struct vm *vm, struct error **err)
{
    int rc = machine_reset(vm->machine, err);

    console_reset(&vm->console);
    if (rc == 0)
        rc = boot(vm, err);
    if (rc)
        return error_wrap(err, "restarting after the guest's reset");
    vm->stats[VM_STAT_RESTARTS]++;
    tell(vm, VM_RESTARTED, "");
    return 0;
}

/* Acts on one event; true when it ends the VM, with *end, *status and *rc set. vCPUs are paused. */
static bool handle_event(struct vm *vm, enum machine_event event, int code, enum vm_end *end, int *status,
                         int *rc, struct error **err)
{
    *rc = 0;
    switch (event) {
    case MACHINE_POWEROFF:
        *end = VM_END_POWEROFF;
        *status = VM_EXIT_POWEROFF;
        return true;
    case MACHINE_DEBUG_EXIT:
        *end = VM_END_DEBUG_EXIT;
        *status = (int)(((unsigned)code << 1 | 1) & 0xff);
        return true;
    case MACHINE_PANIC:
        *end = VM_END_PANIC;
        *status = VM_EXIT_PANIC;
        return true;
    case MACHINE_ENGINE_FAILED:
        *end = VM_END_ENGINE;
        *status = VM_EXIT_ENGINE;
        *rc = error_set(err, EIO, "engine %s: %s", vm->engine->name, machine_failure(vm->machine));
        return true;
    case MACHINE_CRASH_LOADED:
        tell(vm, VM_CRASH_LOADED, "");
        return false;
    case MACHINE_WATCHDOG:
        if (code == WATCHDOG_POWEROFF) {
            *end = VM_END_WATCHDOG;
            *status = VM_EXIT_WATCHDOG;
            return true;
        }
        tell(vm, VM_WATCHDOG, "");
        if (code != WATCHDOG_RESET)
            return false;
        /* fall through */
    case MACHINE_RESET:
        *rc = restart(vm, err);
        return *rc != 0;
    }
    return false;
}

static void answer_pause(struct vm *vm)
{
    const struct vm_message m = {.type = vm->paused ? VM_PAUSED : VM_RESUMED, .value = vm->pause_number};

    vm->pause_asked = false;
    vm_message_send(vm->config->control_fd, &m);
}

static int serve(struct vm *vm, enum vm_end *end, int *status, struct error **err)
{
    for (;;) {
        enum machine_event event;
        int code, rc;

        if (!vm->paused && !vm->disk_switch.switched) {
            rc = machine_resume(vm->machine, err);
            if (rc)
                return rc;
        }
        if (vm->pause_asked)
            answer_pause(vm);
        vm_switch_tell(&vm->disk_switch, vm->config->control_fd);
        loop_run(vm->loop);
        vm_switch_begin(&vm->disk_switch);
        machine_pause(vm->machine);
        /* What the guest itself decided goes before what a person asked for meanwhile. */
        if (machine_take_event(vm->machine, &event, &code) &&
            handle_event(vm, event, code, end, status, &rc, err))
            return rc;
        if (vm->quit) {
            *end = VM_END_QUIT;
            return 0;
        }
        vm_switch_act(&vm->disk_switch, vm->machine, vm->config->control_fd);
    }
}

static int open_engine(struct vm *vm, struct error **err)
{
    const char *name = vm->config->engine ? vm->config->engine : "auto";
    const struct engine_class *class = engine_find(name, err);

    if (!class)
        return -ENODEV;
    /* A probe's text says what would help; what creating meets in the same case says less. `auto` has probed.
     */
    int rc = class->probe && strcmp(name, "auto") != 0 ? class->probe(err) : 0;
    if (rc == 0 && class->open) {
        rc = class->open(err);
        if (rc >= 0) {
            vm->engine_fd = rc;
            rc = 0;
        }
    }
    vm->engine = class;
    return rc ? error_wrap(err, "engine %s", class->name) : 0;
}

static int open_all(struct vm *vm, struct error **err)
{
    int rc = check_config(vm->config, err);

    if (rc == 0)
        rc = take_watchdog(vm, err);
    if (rc == 0)
        rc = open_sources(vm, err);
    if (rc == 0)
        rc = open_engine(vm, err);
    return rc;
}

int vm_open(struct vm **out, const struct vm_config *config, struct error **err)
{
    struct vm *vm = calloc(1, sizeof(*vm));

    if (!vm)
        return error_set_errno(err, ENOMEM, "virtual machine");
    vm->config = config;
    vm->firmware_name = config->firmware || config->kernel ? config->firmware : FIRMWARE_BIOS;
    vm->firmware = vm->kernel = vm->initrd = BOOT_SOURCE_NONE;
    vm->firmware_log = -1;
    vm->engine_fd = -1;
    int rc = open_all(vm, err);
    if (rc) {
        vm_free(vm);
        return rc;
    }
    *out = vm;
    return 0;
}

uint64_t vm_files_size(const struct vm *vm)
{
    uint64_t size = vm->kernel.size + vm->initrd.size;

    for (size_t i = 0; i < vm->n_modules; i++)
        size += vm->modules[i].size;
    return size;
}

unsigned vm_disk_descriptors(const struct vm *vm)
{
    return vm_disks_descriptors(&vm->disks);
}

static void on_link_down(void *opaque)
{
    tell(opaque, VM_LINK_DOWN, "");
}

static int configure_nets(struct vm *vm, struct machine_config *machine_config, struct error **err)
{
    const struct vm_config *config = vm->config;

    vm->nets = calloc(config->n_nets + 1, sizeof(*vm->nets));
    if (!vm->nets)
        return error_set_errno(err, ENOMEM, "network cards");
    for (size_t i = 0; i < config->n_nets; i++) {
        vm->nets[i] = (struct virtio_net_config){
            .backend = config->backends[i], .link_down = on_link_down, .opaque = vm};
        memcpy(vm->nets[i].mac, config->nets[i].mac, NET_MAC_SIZE);
    }
    machine_config->nets = vm->nets;
    machine_config->n_nets = config->n_nets;
    return 0;
}

static int build(struct vm *vm, struct error **err)
{
    const struct vm_config *config = vm->config;
    const struct virtio_vsock_config vsock = {
        .cid = config->vsock_cid, .listen_fd = config->vsock_listen_fd, .dial_fd = config->vsock_dial_fd};
    struct machine_config machine_config = {
        .memory = config->memory,
        .cpus = config->cpus,
        .engine = vm->engine,
        .engine_fd = vm->engine_fd,
        .debug_exit = config->debug_exit,
        .vsock = config->vsock ? &vsock : NULL,
        .balloon = config->balloon,
        .watchdog = vm->watchdog,
        .serial = &vm->console.ports[CONSOLE_SERIAL],
        .console = &vm->console.ports[CONSOLE_VIRTIO],
        .agent = &vm->agent.port,
        .columns = config->columns,
        .rows = config->rows,
        .firmware_size = vm->firmware_name ? vm->firmware.size : 0,
        .firmware_log = vm->firmware_log,
    };
    int rc = loop_create(&vm->loop, err);

    if (rc)
        return rc;
    console_init(&vm->console);
    rc = agent_open(&vm->agent, vm->loop, on_agent, vm, err);
    if (rc)
        return rc;
    machine_config.loop = vm->loop;
    machine_config.disks = vm->disks.configs;
    machine_config.n_disks = vm->disks.n;
    rc = configure_nets(vm, &machine_config, err);
    if (rc == 0)
        rc = machine_create(&vm->machine, &machine_config, err);
    if (rc == 0) {
        /* Nothing more is made: no memory to execute, no descriptor, no thread. */
        rc = confine_thread(CONFINE_MAIN);
        if (rc < 0)
            error_set_errno(err, -rc, "confining the main thread");
    }
    if (rc == 0)
        rc = boot(vm, err);
    if (rc == 0 && config->console_fd >= 0)
        rc = console_begin(&vm->console, vm->loop, config->console_fd, err);
    if (rc == 0 && config->control_fd >= 0) {
        rc = loop_watch_add(vm->loop, config->control_fd, EPOLLIN, on_control, vm, &vm->control_watch);
        if (rc)
            error_set_errno(err, -rc, "control channel");
    }
    return rc;
}

int vm_serve(struct vm *vm, enum vm_end *end, int *status, struct error **err)
{
    *end = VM_END_FAILED;
    *status = VM_EXIT_FAILED;
    int rc = build(vm, err);
    if (rc == 0)
        rc = machine_resume(vm->machine, err);
    if (rc)
        return rc;
    tell(vm, VM_READY, vm->engine->name);
    return serve(vm, end, status, err);
}

void vm_free(struct vm *vm)
{
    if (!vm)
        return;
    /* Devices may still have output, so the console stays until they are gone. */
    vm_switch_close(&vm->disk_switch);
    machine_free(vm->machine);
    console_close(&vm->console);
    agent_close(&vm->agent);
    loop_watch_remove(vm->control_watch);
    loop_free(vm->loop);
    boot_source_close(&vm->firmware);
    cleanup_close_fn(&vm->firmware_log);
    boot_source_close(&vm->kernel);
    boot_source_close(&vm->initrd);
    for (size_t i = 0; i < vm->n_modules; i++)
        boot_source_close(&vm->modules[i]);
    free(vm->modules);
    vm_disks_close(&vm->disks);
    free(vm->nets);
    cleanup_close_fn(&vm->engine_fd);
    free(vm);
}
