/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All legacy devices and interrupt controllers of a PC under a guest that reads and writes anything at any
 * width, on two processors, while time passes evenly or in leaps, a terminal types and refuses output, and
 * messages arrive.
 *
 * Promised whatever the guest does: nothing reads or writes out of bounds; what a device does on its own (its
 * timers) stays below a rate, so that no guest keeps the host busy; a reset gives working devices; destroying
 * leaves nothing behind.
 */
#include "base/bytes.h"
#include "device/char.h"
#include "device/cmos.h"
#include "device/debug_exit.h"
#include "device/devices.h"
#include "device/ioapic.h"
#include "device/uart16550.h"
#include "device/watchdog.h"
#include "engine/soft/irqchip.h"
#include "engine/soft/pvclock.h"
#include "fake_loop.h"
#include "fuzz_input.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CPUS       2u
#define MAX_STEPS  4000u
#define TSC_HZ     2000000000ull
#define RAM        (1ull << 20)
#define MIN_PERIOD 50000u /* ns; of each source of timer interrupts */
#define SOURCES    (CPUS + 2u)

static const char *const class_names[] = {"cmos",      "debug-exit", "i8042",   "pit",
                                          "uart16550", "acpi-pm",    "pvpanic", "watchdog"};
#define DEVICES ARRAY_SIZE(class_names)

static struct {
    struct device_env env;
    struct irqchip *chip;
    struct pvclock *clock;
    struct device *devices[DEVICES];
    struct char_backend backend;
    size_t room;
    uint64_t tsc_offset[CPUS];
    uint64_t passed; /* ns, evenly */
    uint64_t steps;
} m;

static void expect(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

/* ---- what the devices see ---- */

static void irq_set(void *opaque, unsigned gsi, bool level)
{
    expect(gsi < 24, "a GSI that exists");
    irqchip_set(m.chip, gsi, level);
}

static void event(void *opaque, enum machine_event what, int code)
{
    expect(what == MACHINE_RESET || what == MACHINE_DEBUG_EXIT || what == MACHINE_POWEROFF ||
               what == MACHINE_PANIC || what == MACHINE_CRASH_LOADED || what == MACHINE_WATCHDOG,
           "an event of legacy devices");
}

static void wake(void *opaque, unsigned cpu)
{
    expect(cpu < CPUS, "a vCPU that exists");
}

static uint64_t tsc_offset(void *opaque, unsigned cpu)
{
    return m.tsc_offset[cpu];
}

static uint64_t read_tsc(void *opaque, unsigned cpu)
{
    return loop_now() * (TSC_HZ / 1000000000) + m.tsc_offset[cpu];
}

static void sample(void *opaque, uint64_t *tsc, uint64_t *monotonic)
{
    *monotonic = loop_now();
    *tsc = *monotonic * (TSC_HZ / 1000000000);
}

static uint64_t realtime(void *opaque)
{
    return 1700000000000000000ull + loop_now();
}

static size_t far_output(struct char_backend *backend, const uint8_t *bytes, size_t len)
{
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + bytes[i]);
    size_t n = len < m.room ? len : m.room;
    m.room -= n;
    return n;
}

static void far_input_ready(struct char_backend *backend)
{
}

/* ---- the machine ---- */

static void build(void)
{
    static const struct lapic_callbacks callbacks = {.wake = wake, .read_tsc = read_tsc, .tsc_hz = TSC_HZ};
    struct pvclock_config clock = {.cpus = CPUS,
                                   .tsc_hz = TSC_HZ,
                                   .stable = true,
                                   .tsc_offset = tsc_offset,
                                   .source = {.sample = sample, .realtime = realtime}};

    memset(&m, 0, sizeof(m));
    fake_loop_restart();
    m.backend = (struct char_backend){.output = far_output, .input_ready = far_input_ready};
    m.env = (struct device_env){
        .pio = io_space_new("pio"),
        .mmio = io_space_new("mmio"),
        .loop = fake_loop(),
        .irq_set = irq_set,
        .event = event,
    };
    expect(guest_memory_create(&m.env.memory, RAM, NULL) == 0, "guest memory");
    clock.memory = m.env.memory;
    expect(irqchip_create(&m.chip, CPUS, m.env.pio, m.env.mmio, m.env.loop, &callbacks, NULL) == 0,
           "irqchip");
    expect(pvclock_create(&m.clock, &clock) == 0, "pvclock");
    struct uart16550_config uart = {.backend = &m.backend};
    struct cmos_config cmos = {.realtime = realtime};
    for (size_t i = 0; i < DEVICES; i++) {
        const struct device_class *class = device_class_find(class_names[i]);
        const void *config = class == &uart16550_class ? (void *)&uart : class == &cmos_class ? &cmos : NULL;
        expect(class && class->create(&m.devices[i], &m.env, config, NULL) == 0, class_names[i]);
    }
}

static void tear_down(void)
{
    for (size_t i = 0; i < DEVICES; i++)
        m.devices[i]->class->destroy(m.devices[i]);
    pvclock_free(m.clock);
    irqchip_free(m.chip);
    struct io_region all = {.name = "all", .base = 0, .size = 65536};
    expect(io_space_add(m.env.pio, &all) == 0, "no port is left");
    expect(fake_loop_timers() == 0, "no timer is left");
    io_space_free(m.env.pio);
    io_space_free(m.env.mmio);
    guest_memory_free(m.env.memory);
}

/* The machine works after what it has been through. */
static void check_reset(void)
{
    for (size_t i = 0; i < DEVICES; i++)
        m.devices[i]->class->reset(m.devices[i]);
    irqchip_reset(m.chip);
    pvclock_reset(m.clock);
    m.room = SIZE_MAX;
    m.backend.output_ready(m.backend.device);
    fake_loop_advance(2000000);
    expect((io_space_read(m.env.pio, 0x3fd, 1) & 0x60) == 0x60, "the serial port can send after a reset");
    io_space_write(m.env.pio, 0x64, 1, 0xaa);
    expect(io_space_read(m.env.pio, 0x60, 1) == 0x55, "the keyboard controller answers after a reset");
    expect(io_space_read(m.env.pio, WATCHDOG_CONTROL, 4) == 0, "the watchdog stands after a reset");
    struct lapic *l = irqchip_lapic(m.chip, 0);
    expect(lapic_interrupt(l) == -1, "nothing is pending after a reset");
    lapic_write(l, 0xf0, 0x1ff);
    irqchip_msi(m.chip, 0xfee00000, 0x55);
    expect(lapic_interrupt(l) == 0x55, "messages arrive after a reset");
}

/* ---- what the guest does ---- */

static uint16_t port(struct fuzz_input *in)
{
    static const uint16_t ports[] = {0x20,  0x21,  0xa0,  0xa1,  0x40,  0x41,  0x42,  0x43,  0x60,  0x61,
                                     0x64,  0x70,  0x71,  0x92,  0xf4,  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc,
                                     0x3fd, 0x3fe, 0x3ff, 0x4d0, 0x4d1, 0x600, 0x602, 0x603, 0x604, 0x605,
                                     0x608, 0x505, 0x620, 0x624, 0x628, 0x62c, 0x630, 0x621};
    uint8_t n = (uint8_t)fuzz_take(in, 1);
    return n < 0xf8 ? ports[n % ARRAY_SIZE(ports)] : (uint16_t)fuzz_take(in, 2);
}

static void check_size(uint64_t value, unsigned size)
{
    expect(size == 8 || value >> (8 * size) == 0, "a value of the access's size");
}

static void take_interrupts(unsigned cpu)
{
    struct lapic *l = irqchip_lapic(m.chip, cpu);
    unsigned events = lapic_take_events(l);
    if (events & LAPIC_EVENT_INIT)
        lapic_reset(l, true);
    if (events & LAPIC_EVENT_SIPI)
        expect(lapic_sipi_vector(l) < 256, "a start vector of a byte");
    if (events & LAPIC_EVENT_EXTINT)
        expect(irqchip_acknowledge(m.chip) < 256, "a vector of a byte");
    int vector = lapic_interrupt(l);
    if (vector < 0)
        return;
    expect(vector >= 16 && vector < 256, "a vector that can be delivered");
    lapic_accept(l, vector);
    expect(lapic_interrupt(l) == -1 || (lapic_interrupt(l) & 0xf0) > (vector & 0xf0), "priorities");
}

static void access_lapic(struct fuzz_input *in, unsigned cpu)
{
    struct lapic *l = irqchip_lapic(m.chip, cpu);
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    uint64_t value;
    switch (how & 7) {
    case 0:
        lapic_read(l, (unsigned)fuzz_take(in, 2) & 0xfff);
        break;
    case 1:
        lapic_write(l, (unsigned)fuzz_take(in, 1) << 4, (uint32_t)fuzz_take(in, 4));
        break;
    case 2:
        lapic_write(l, (unsigned)fuzz_take(in, 2) & 0xfff, (uint32_t)fuzz_take(in, 4));
        break;
    case 3:
        lapic_msr_read(l, 0x800 + (uint32_t)fuzz_take(in, 1), &value);
        break;
    case 4:
        value = fuzz_take(in, how & 8 ? 8 : 2);
        lapic_msr_write(l, 0x800 + (uint32_t)fuzz_take(in, 1), value);
        break;
    case 5:
        lapic_msr_write(l, LAPIC_MSR_BASE, LAPIC_BASE_PAGE | (uint64_t)(how >> 3) << 8);
        break;
    case 6:
        lapic_msr_write(l, LAPIC_MSR_TSC_DEADLINE, read_tsc(NULL, cpu) + fuzz_take(in, how & 8 ? 8 : 3));
        break;
    default:
        lapic_set_cr8(l, how >> 4);
        expect(lapic_get_cr8(l) == how >> 4, "CR8 is what was written");
    }
}

static void access_clock(struct fuzz_input *in, unsigned cpu)
{
    static const uint32_t msrs[] = {PVCLOCK_MSR_WALL_CLOCK, PVCLOCK_MSR_SYSTEM_TIME,
                                    PVCLOCK_MSR_WALL_CLOCK_OLD, PVCLOCK_MSR_SYSTEM_TIME_OLD};
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    if (how & 0x80) {
        pvclock_refresh(m.clock);
    } else if (how & 0x40) {
        m.tsc_offset[cpu] = fuzz_take(in, 8);
        pvclock_tsc_changed(m.clock);
        lapic_tsc_changed(irqchip_lapic(m.chip, cpu));
    } else {
        pvclock_msr_write(m.clock, cpu, msrs[how & 3], fuzz_take(in, how & 4 ? 8 : 3));
    }
}

static void pass_time(struct fuzz_input *in, bool stall)
{
    uint64_t ns = fuzz_take(in, 3);
    if (stall) {
        fake_loop_stall(ns << 16); /* up to twelve days */
    } else {
        fake_loop_advance(ns); /* up to 17 ms */
        m.passed += ns;
    }
}

static void step(struct fuzz_input *in)
{
    uint8_t op = (uint8_t)fuzz_take(in, 1);
    unsigned size = 1u << (op >> 6), cpu = op >> 5 & 1;
    uint8_t typed[32];

    switch (op & 15) {
    case 0:
    case 1:
    case 2:
        check_size(io_space_read(m.env.pio, port(in), size), size);
        break;
    case 3:
    case 4:
    case 5: {
        uint16_t to = port(in);
        io_space_write(m.env.pio, to, size, fuzz_take(in, size));
        break;
    }
    case 6: {
        uint64_t offset = fuzz_take(in, 1);
        check_size(io_space_read(m.env.mmio, IOAPIC_BASE + offset, size), size);
        break;
    }
    case 7: {
        uint64_t offset = fuzz_take(in, 1);
        io_space_write(m.env.mmio, IOAPIC_BASE + offset, size, fuzz_take(in, size));
        break;
    }
    case 8:
        access_lapic(in, cpu);
        break;
    case 9:
        take_interrupts(cpu);
        break;
    case 10:
        pass_time(in, op >> 4 == 15);
        break;
    case 11:
        memset(typed, op, sizeof(typed));
        expect(m.backend.input(m.backend.device, typed, op >> 4) <= (size_t)(op >> 4), "input taken");
        break;
    case 12:
        m.room = fuzz_take(in, 2);
        m.backend.output_ready(m.backend.device);
        break;
    case 13:
        irqchip_set(m.chip, (unsigned)fuzz_take(in, 1) & 31, op & 0x80);
        break;
    case 14: {
        uint64_t address = 0xfee00000 | fuzz_take(in, 3);
        irqchip_msi(m.chip, address, (uint32_t)fuzz_take(in, 2));
        break;
    }
    default:
        access_clock(in, cpu);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};

    build();
    while (in.left && m.steps < MAX_STEPS) {
        step(&in);
        m.steps++;
    }
    /* Each access may set a timer or two off at once; beyond that each source keeps to its rate. */
    expect(fake_loop_fired() <= 4 * m.steps + SOURCES * (m.passed / MIN_PERIOD + 1),
           "timers are not too busy");
    check_reset();
    tear_down();
    return 0;
}
