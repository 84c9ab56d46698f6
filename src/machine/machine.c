/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Builds the PC and drives its life: load, resume, pause, reset. Called by vm.c in the loop's thread. Events
 * come from vCPU threads and devices, so they are kept in atomics.
 */
#include "machine/machine.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "device/acpi_pm.h"
#include "device/devices.h"
#include "device/fw_cfg.h"
#include "device/pci.h"
#include "device/virtio/balloon.h"
#include "device/virtio/block.h"
#include "device/virtio/console.h"
#include "device/virtio/net.h"
#include "device/virtio/virtio.h"
#include "engine/engine.h"
#include "host/loop.h"
#include "machine/acpi.h"
#include "machine/firmware.h"
#include "machine/machine_devices.h"
#include "machine/smbios.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <string.h>

#define MAX_DEVICES 64

struct machine {
    struct device_env env; /* what devices see; their calls come back with the machine as `opaque` */
    unsigned cpus;
    struct device *devices[MAX_DEVICES];
    size_t n_devices;
    struct engine *engine;
    bool running;
    atomic_uint pending;   /* one bit for each enum machine_event */
    atomic_int debug_code; /* of the first MACHINE_DEBUG_EXIT */
    atomic_int watchdog_action;
};

static void on_event(void *opaque, enum machine_event event, int code)
{
    struct machine *m = opaque;

    if (event == MACHINE_DEBUG_EXIT && !(atomic_load(&m->pending) & 1u << event))
        atomic_store(&m->debug_code, code);
    if (event == MACHINE_WATCHDOG)
        atomic_store(&m->watchdog_action, code);
    atomic_fetch_or(&m->pending, 1u << event);
    loop_stop(m->env.loop, 0);
}

bool machine_take_event(struct machine *m, enum machine_event *event, int *code)
{
    /* What ends the machine goes before what restarts it, and what tells most before the rest. */
    static const enum machine_event by_gravity[] = {MACHINE_ENGINE_FAILED, MACHINE_DEBUG_EXIT, MACHINE_PANIC,
                                                    MACHINE_POWEROFF,      MACHINE_WATCHDOG,   MACHINE_RESET,
                                                    MACHINE_CRASH_LOADED};
    unsigned pending = atomic_exchange(&m->pending, 0);

    for (size_t i = 0; i < sizeof(by_gravity) / sizeof(by_gravity[0]); i++) {
        if (!(pending & 1u << by_gravity[i]))
            continue;
        *event = by_gravity[i];
        *code = by_gravity[i] == MACHINE_DEBUG_EXIT ? atomic_load(&m->debug_code)
                : by_gravity[i] == MACHINE_WATCHDOG ? atomic_load(&m->watchdog_action)
                                                    : 0;
        return true;
    }
    return false;
}

/* The PCI host bridge is there before the engine; an interrupt would then go nowhere. */
static void on_irq(void *opaque, unsigned gsi, bool level)
{
    struct machine *m = opaque;

    if (m->engine)
        m->engine->class->irq_set(m->engine, gsi, level);
}

static void on_msi(void *opaque, uint64_t address, uint32_t data)
{
    struct machine *m = opaque;

    if (m->engine)
        m->engine->class->msi_send(m->engine, address, data);
}

static int create_engine(struct machine *m, const struct machine_config *config, struct error **err)
{
    const struct engine_class *class = config->engine;
    struct engine_config engine_config = {
        .cpus = config->cpus,
        .fd = config->engine_fd,
        .memory = m->env.memory,
        .pio = m->env.pio,
        .mmio = m->env.mmio,
        .loop = m->env.loop,
        .event = on_event,
        .opaque = m,
    };

    int rc = class->create(&m->engine, &engine_config, err);
    return rc ? error_wrap(err, "engine %s", class->name) : 0;
}

static int create_device(struct machine *m, const struct device_class *class, const void *config,
                         struct error **err)
{
    if (m->n_devices == MAX_DEVICES)
        return error_set(err, ENOSPC, "more than %d devices", MAX_DEVICES);
    int rc = class->create(&m->devices[m->n_devices], &m->env, config, err);
    if (rc)
        return error_wrap(err, "device %s", class->name);
    m->n_devices++;
    return 0;
}

static int create_devices(struct machine *m, const struct machine_config *config, struct error **err)
{
    struct device_configs configs;

    device_configs_init(&configs, config);
    for (const struct device_class *const *c = device_classes; *c; c++) {
        size_t n = device_configs_count(&configs, *c);

        for (size_t i = 0; i < n; i++) {
            int rc = create_device(m, *c, device_configs_get(&configs, *c, i), err);
            if (rc)
                return rc;
        }
    }
    return 0;
}

static int build(struct machine *m, const struct machine_config *config, struct error **err)
{
    m->cpus = config->cpus;
    m->env.loop = config->loop;
    m->env.irq_set = on_irq;
    m->env.msi_send = on_msi;
    m->env.event = on_event;
    m->env.opaque = m;
    m->env.pio = io_space_new("pio");
    m->env.mmio = io_space_new("mmio");
    if (!m->env.pio || !m->env.mmio)
        return error_set_errno(err, ENOMEM, "I/O spaces");
    int rc = guest_memory_create(&m->env.memory, config->memory, err);
    if (rc == 0 && config->firmware_size)
        rc = guest_memory_add_rom(m->env.memory, config->firmware_size, err);
    if (rc == 0)
        rc = pci_bus_create(&m->env.pci, &m->env, err);
    if (rc == 0)
        rc = create_engine(m, config, err);
    if (rc == 0)
        rc = create_devices(m, config, err);
    return rc;
}

int machine_create(struct machine **out, const struct machine_config *config, struct error **err)
{
    struct machine *m = calloc(1, sizeof(*m));

    if (!m)
        return error_set_errno(err, ENOMEM, "machine");
    int rc = build(m, config, err);
    if (rc) {
        machine_free(m);
        return rc;
    }
    *out = m;
    return 0;
}

void machine_free(struct machine *m)
{
    if (!m)
        return;
    machine_pause(m);
    /* Devices may still raise interrupts while they go, so the engine goes after them; no vCPU uses them any
     * more. */
    while (m->n_devices) {
        struct device *device = m->devices[--m->n_devices];
        device->class->destroy(device);
    }
    pci_bus_free(m->env.pci);
    if (m->engine)
        m->engine->class->destroy(m->engine);
    io_space_free(m->env.pio);
    io_space_free(m->env.mmio);
    guest_memory_free(m->env.memory);
    free(m);
}

const char *machine_failure(const struct machine *m)
{
    const char *why = m->engine->class->failure(m->engine);

    return why ? why : "it gave no reason";
}

void machine_resize_console(struct machine *m, uint16_t columns, uint16_t rows)
{
    for (size_t i = 0; i < m->n_devices; i++)
        if (m->devices[i]->class == &virtio_console_class)
            virtio_console_resize(m->devices[i], columns, rows);
}

static struct device *find_disk(const struct machine *m, size_t i)
{
    for (size_t k = 0; k < m->n_devices; k++)
        if (m->devices[k]->class == &virtio_block_class && i-- == 0)
            return m->devices[k];
    return NULL;
}

int machine_push_disk(struct machine *m, size_t i, int fd, const char *name)
{
    struct device *disk = find_disk(m, i);

    if (!disk)
        close(fd);
    return disk ? virtio_block_push(disk, fd, name) : -ENODEV;
}

int machine_pop_disk(struct machine *m, size_t i)
{
    struct device *disk = find_disk(m, i);

    return disk ? virtio_block_pop(disk) : -ENODEV;
}

int machine_replace_disk(struct machine *m, size_t i, int fd, const char *name, const char *format)
{
    struct device *disk = find_disk(m, i);

    if (!disk)
        close(fd);
    return disk ? virtio_block_replace(disk, fd, name, format) : -ENODEV;
}

int machine_keep_disk(struct machine *m, size_t i)
{
    struct device *disk = find_disk(m, i);

    return disk ? virtio_block_keep(disk) : -ENODEV;
}

int machine_copy_disk(struct machine *m, size_t i, int fd, const struct disk_copying *what)
{
    struct device *disk = find_disk(m, i);

    if (!disk)
        close(fd);
    return disk ? virtio_block_copy(disk, fd, what) : -ENODEV;
}

int machine_resize_disk(struct machine *m, size_t i, uint64_t size)
{
    struct device *disk = find_disk(m, i);

    return disk ? virtio_block_resize(disk, size) : -ENODEV;
}

void machine_limit_disk(struct machine *m, size_t i, const struct disk_limits *limits)
{
    struct device *disk = find_disk(m, i);

    if (disk)
        virtio_block_limit(disk, limits);
}

void machine_press_power_button(struct machine *m)
{
    for (size_t i = 0; i < m->n_devices; i++)
        if (m->devices[i]->class == &acpi_pm_class)
            acpi_pm_press_power_button(m->devices[i]);
}

void machine_net_stats(struct machine *m, struct net_stats *sum)
{
    *sum = (struct net_stats){0};
    for (size_t i = 0; i < m->n_devices; i++) {
        struct net_stats one;

        if (m->devices[i]->class != &virtio_net_class)
            continue;
        virtio_net_stats(m->devices[i], &one);
        sum->rx_packets += one.rx_packets;
        sum->rx_bytes += one.rx_bytes;
        sum->rx_drops += one.rx_drops;
        sum->tx_packets += one.tx_packets;
        sum->tx_bytes += one.tx_bytes;
        sum->tx_drops += one.tx_drops;
    }
}

void machine_engine_stats(struct machine *m, struct engine_stats *out)
{
    *out = (struct engine_stats){0};
    if (m->engine->class->stats)
        m->engine->class->stats(m->engine, out);
}

void machine_profile(struct machine *m, unsigned hz, struct engine_profile *out)
{
    *out = (struct engine_profile){0};
    if (m->engine->class->profile)
        m->engine->class->profile(m->engine, hz, out);
}

void machine_set_balloon(struct machine *m, uint64_t bytes)
{
    for (size_t i = 0; i < m->n_devices; i++)
        if (m->devices[i]->class == &virtio_balloon_class)
            virtio_balloon_set_target(m->devices[i], bytes);
}

void machine_balloon(struct machine *m, struct virtio_balloon_report *out)
{
    *out = (struct virtio_balloon_report){0};
    for (size_t i = 0; i < m->n_devices; i++) {
        if (m->devices[i]->class != &virtio_balloon_class)
            continue;
        virtio_balloon_report(m->devices[i], out);
        virtio_balloon_ask(m->devices[i]);
    }
}

/* The disks in the order in which they were given, which is that of their devices. */
static size_t boot_slots(const struct machine *m, unsigned *slots)
{
    size_t n = 0;

    for (size_t i = 0; i < m->n_devices; i++)
        if (m->devices[i]->class == &virtio_block_class)
            slots[n++] = virtio_device_slot(m->devices[i]);
    return n;
}

static int describe(struct machine *m, struct error **err)
{
    unsigned slots[MAX_DEVICES];
    const struct firmware_config config = {
        .memory = m->env.memory,
        .cpus = m->cpus,
        .boot_slots = slots,
        .n_boot_slots = boot_slots(m, slots),
    };

    for (size_t i = 0; i < m->n_devices; i++)
        if (m->devices[i]->class == &fw_cfg_class)
            return firmware_describe(m->devices[i], &config, err);
    return 0;
}

/* The tables that a firmware would write, then the kernel. */
static int load_kernel(struct machine *m, const struct machine_payload *payload, struct cpu_state *entry,
                       struct error **err)
{
    struct acpi_config acpi = {.cpus = m->cpus};
    struct smbios_config smbios = {.memory = m->env.memory->size, .cpus = m->cpus};
    struct boot_request request = {
        .kernel = payload->kernel,
        .initrd = payload->initrd,
        .modules = payload->modules,
        .n_modules = payload->n_modules,
        .command_line = payload->command_line ? payload->command_line : "",
        .memory = m->env.memory,
    };

    memory_map_build(&request.map, m->env.memory);
    int rc = acpi_write(m->env.memory, &acpi, &request.rsdp, err);
    if (rc == 0)
        rc = smbios_write(m->env.memory, &smbios, err);
    return rc ? rc : boot_load(&request, entry, err);
}

int machine_load(struct machine *m, const struct machine_payload *payload, struct error **err)
{
    struct cpu_state entry;
    int rc = describe(m, err);

    if (rc == 0 && payload->firmware.data) {
        cpu_state_reset(&entry, true);
        rc = firmware_load(m->env.memory, &payload->firmware, err);
    } else if (rc == 0) {
        rc = load_kernel(m, payload, &entry, err);
    }
    if (rc == 0)
        rc = m->engine->class->set_state(m->engine, 0, &entry, err);
    return rc;
}

/* The guest's watchdog counts the time in which the guest runs. */
static void hold_watchdog(struct machine *m, bool hold)
{
    for (size_t i = 0; i < m->n_devices; i++)
        if (m->devices[i]->class == &watchdog_class)
            watchdog_hold(m->devices[i], hold);
}

int machine_resume(struct machine *m, struct error **err)
{
    int rc;

    if (m->running)
        return 0;
    hold_watchdog(m, false);
    rc = m->engine->class->resume(m->engine, err);
    if (rc)
        hold_watchdog(m, true);
    else
        m->running = true;
    return rc;
}

void machine_pause(struct machine *m)
{
    if (!m->running)
        return;
    m->engine->class->pause(m->engine);
    hold_watchdog(m, true);
    m->running = false;
}

/* Gives all pages back to the host: they read as zero, and a guest that is restarted costs no more than a new
 * one. */
static int clear_memory(struct guest_memory *memory, struct error **err)
{
    if (fallocate(memory->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)memory->size) < 0)
        return error_set_errno(err, errno, "clearing guest memory");
    for (unsigned i = 0; i < memory->n_blocks; i++)
        guest_memory_mark_written(memory, memory->blocks[i].gpa, memory->blocks[i].size);
    return 0;
}

int machine_reset(struct machine *m, struct error **err)
{
    pci_bus_reset(m->env.pci);
    for (size_t i = 0; i < m->n_devices; i++)
        if (m->devices[i]->class->reset)
            m->devices[i]->class->reset(m->devices[i]);
    /* Now that no device writes to it any more. */
    int rc = clear_memory(m->env.memory, err);
    if (rc)
        return rc;
    /* The engine last: it forgets the interrupts that devices raised on their way down. */
    return m->engine->class->reset(m->engine, err);
}
