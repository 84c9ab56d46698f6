/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Real-time clock and battery-backed memory (Motorola MC146818A data sheet; the memory's use as on the AT and
 * its followers). Ports 0x70 (index) and 0x71 (data). Registers are used by vCPU threads, the timer by the
 * loop's; one mutex, held over irq_set.
 *
 * Nothing ticks. The time of day is the host's plus a difference that the guest can change; flags are
 * computed when somebody looks, and the host's timer is armed only for an interrupt that the guest has
 * enabled.
 */
#include "device/cmos.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/io_bytes.h"
#include "host/loop.h"

#include <errno.h>
#include <time.h>

#define NS_PER_SECOND 1000000000ll

enum {
    REG_SECONDS = 0,
    REG_SECONDS_ALARM,
    REG_MINUTES,
    REG_MINUTES_ALARM,
    REG_HOURS,
    REG_HOURS_ALARM,
    REG_WEEKDAY,
    REG_DAY,
    REG_MONTH,
    REG_YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    RAM_EQUIPMENT = 0x14,
    RAM_BASE_MEMORY = 0x15, /* KiB below 1 MiB */
    RAM_EXTENDED = 0x17,    /* KiB above 1 MiB, twice */
    RAM_CHECKSUM = 0x2e,    /* of 0x10-0x2d, big-endian */
    RAM_EXTENDED_2 = 0x30,
    REG_CENTURY = CMOS_CENTURY,
    RAM_ABOVE_16M = 0x34, /* in 64 KiB, below 4 GiB */
    RAM_ABOVE_4G = 0x5b,  /* in 64 KiB, three bytes */
    RAM_MORE_CPUS = 0x5f, /* processors but the first */
    RAM_SIZE = 128,
};

#define A_UPDATING 0x80u
#define A_DIVIDER  0x70u
#define A_NORMAL   0x20u /* 32768 Hz */
#define A_RATE     0x0fu
#define A_POWER_ON 0x26u
#define B_SET      0x80u
#define B_PERIODIC 0x40u
#define B_ALARM    0x20u
#define B_UPDATE   0x10u
#define B_SQUARE   0x08u
#define B_BINARY   0x04u
#define B_24_HOURS 0x02u
#define C_IRQ      0x80u
#define C_PERIODIC 0x40u
#define C_ALARM    0x20u
#define C_UPDATE   0x10u
#define D_VALID    0x80u
#define HOUR_PM    0x80u
#define ALARM_ANY  0xc0u

#define IRQ              8
#define UPDATE_NS        2228000ll /* UIP is up for this long before each second */
#define CRYSTAL_HZ       32768u
#define MAX_WAIT_S       60          /* look again: the host's clock may have been set meanwhile */
#define RESTART_PHASE_NS 500000000ll /* after a divider reset the first update is half a second away */

/* A time of day since the epoch. Guests may set any year to 9999, which is too far away for a count of ns. */
struct moment {
    int64_t second;
    int64_t ns; /* 0-999999999 */
};

struct cmos {
    struct device device;
    struct io_region region;
    struct cmos_config config;
    struct loop_timer *timer;

    pthread_mutex_t lock;
    uint8_t index;
    uint8_t ram[RAM_SIZE]; /* time registers: only while the clock stands */
    bool irq_level;
    struct moment ahead;   /* how much the guest's time of day is ahead of the host's */
    int64_t checked;       /* the second up to which C_UPDATE and C_ALARM are computed */
    uint64_t periods_from; /* loop_now() when the divider started */
    uint64_t periods;      /* of the present rate, up to which C_PERIODIC is computed */
};

/* ---- time of day; the lock is held from here on ---- */

static struct moment moment_of(int64_t second, int64_t ns)
{
    if (ns >= NS_PER_SECOND)
        return (struct moment){second + 1, ns - NS_PER_SECOND};
    if (ns < 0)
        return (struct moment){second - 1, ns + NS_PER_SECOND};
    return (struct moment){second, ns};
}

static struct moment time_of_day(const struct cmos *c)
{
    struct timespec ts;

    if (c->config.realtime) {
        uint64_t ns = c->config.realtime(c->config.opaque);
        ts.tv_sec = (time_t)(ns / NS_PER_SECOND);
        ts.tv_nsec = (long)(ns % NS_PER_SECOND);
    } else {
        clock_gettime(CLOCK_REALTIME, &ts);
    }
    return moment_of(ts.tv_sec + c->ahead.second, ts.tv_nsec + c->ahead.ns);
}

static bool divider_runs(const struct cmos *c)
{
    return (c->ram[REG_A] & A_DIVIDER) == A_NORMAL;
}

/* While it stands the time registers are plain memory. */
static bool clock_runs(const struct cmos *c)
{
    return divider_runs(c) && !(c->ram[REG_B] & B_SET);
}

static uint8_t encode(const struct cmos *c, int value)
{
    return (uint8_t)(c->ram[REG_B] & B_BINARY ? value : value / 10 << 4 | value % 10);
}

static int decode(const struct cmos *c, uint8_t value)
{
    return c->ram[REG_B] & B_BINARY ? value : (value >> 4) * 10 + (value & 15);
}

static uint8_t encode_hour(const struct cmos *c, int hour)
{
    if (c->ram[REG_B] & B_24_HOURS)
        return encode(c, hour);
    return encode(c, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0);
}

static int decode_hour(const struct cmos *c, uint8_t value)
{
    if (c->ram[REG_B] & B_24_HOURS)
        return decode(c, value);
    return decode(c, value & (uint8_t)~HOUR_PM) % 12 + (value & HOUR_PM ? 12 : 0);
}

/* Puts the present time into the registers. */
static void load_registers(struct cmos *c)
{
    time_t seconds = time_of_day(c).second;
    struct tm tm;

    if (!gmtime_r(&seconds, &tm))
        return;
    int year = (tm.tm_year + 1900) % 10000;
    c->ram[REG_SECONDS] = encode(c, tm.tm_sec);
    c->ram[REG_MINUTES] = encode(c, tm.tm_min);
    c->ram[REG_HOURS] = encode_hour(c, tm.tm_hour);
    c->ram[REG_WEEKDAY] = encode(c, tm.tm_wday + 1);
    c->ram[REG_DAY] = encode(c, tm.tm_mday);
    c->ram[REG_MONTH] = encode(c, tm.tm_mon + 1);
    c->ram[REG_YEAR] = encode(c, year % 100);
    c->ram[REG_CENTURY] = encode(c, year / 100);
}

/* Makes the registers the present time. The fraction of the second goes on as it was. */
static void store_registers(struct cmos *c)
{
    struct tm tm = {
        .tm_sec = decode(c, c->ram[REG_SECONDS]),
        .tm_min = decode(c, c->ram[REG_MINUTES]),
        .tm_hour = decode_hour(c, c->ram[REG_HOURS]),
        .tm_mday = decode(c, c->ram[REG_DAY]),
        .tm_mon = decode(c, c->ram[REG_MONTH]) - 1,
        .tm_year = decode(c, c->ram[REG_CENTURY]) * 100 + decode(c, c->ram[REG_YEAR]) - 1900,
    };
    /* Nonsense (the 99th month) is carried over, never refused; the year is below 26,000 in any case. */
    int64_t second = timegm(&tm);
    c->ahead.second += second - time_of_day(c).second;
    c->checked = second;
}

/* ---- flags and interrupts ---- */

/* An alarm register as the value to match, ALARM_ANY for every one, or -1 if there is no such time. */
static int alarm_field(const struct cmos *c, unsigned reg, int limit)
{
    uint8_t raw = c->ram[reg];
    if (raw >= ALARM_ANY)
        return ALARM_ANY;
    int value = reg == REG_HOURS_ALARM ? decode_hour(c, raw) : decode(c, raw);
    return value < limit ? value : -1;
}

/* The first second after `from` at which the alarm goes off, or INT64_MAX. In steps of whole hours and
 * minutes where these don't match: at most some 150 rounds. */
static int64_t next_alarm(const struct cmos *c, int64_t from)
{
    int hour = alarm_field(c, REG_HOURS_ALARM, 24);
    int minute = alarm_field(c, REG_MINUTES_ALARM, 60);
    int second = alarm_field(c, REG_SECONDS_ALARM, 60);
    if (hour < 0 || minute < 0 || second < 0)
        return INT64_MAX;

    for (int64_t at = from + 1;;) {
        int in_day = (int)((at % 86400 + 86400) % 86400);
        if (hour != (int)ALARM_ANY && hour != in_day / 3600)
            at += 3600 - in_day % 3600;
        else if (minute != (int)ALARM_ANY && minute != in_day / 60 % 60)
            at += 60 - in_day % 60;
        else if (second != (int)ALARM_ANY && second != in_day % 60)
            at++;
        else
            return at;
    }
}

/* The rate selector as a shift of the crystal's ticks; the two slowest codes repeat others. */
static unsigned rate_shift(const struct cmos *c)
{
    unsigned rate = c->ram[REG_A] & A_RATE;
    return (rate <= 2 ? rate + 7 : rate) - 1;
}

static bool periodic_runs(const struct cmos *c)
{
    return (c->ram[REG_A] & A_RATE) && divider_runs(c);
}

static uint64_t periods_now(const struct cmos *c, uint64_t now)
{
    unsigned __int128 ticks = (unsigned __int128)(now - c->periods_from) * CRYSTAL_HZ / NS_PER_SECOND;
    return (uint64_t)ticks >> rate_shift(c);
}

/* Sets the flags of what has happened up to now. */
static void update_flags(struct cmos *c)
{
    if (clock_runs(c)) {
        int64_t second = time_of_day(c).second;
        if (second > c->checked) {
            c->ram[REG_C] |= C_UPDATE;
            if (next_alarm(c, c->checked) <= second)
                c->ram[REG_C] |= C_ALARM;
        }
        c->checked = second;
    }
    if (periodic_runs(c)) {
        uint64_t periods = periods_now(c, loop_now());
        if (periods > c->periods)
            c->ram[REG_C] |= C_PERIODIC;
        c->periods = periods;
    }
}

/* Arms the timer for the next flag that would interrupt and is not up yet. */
static void arm(struct cmos *c)
{
    uint8_t wanted = c->ram[REG_B] & ~c->ram[REG_C];
    int64_t wait = INT64_MAX;
    uint64_t now = loop_now();

    if (c->irq_level) { /* nothing more to say before the guest has read why */
        loop_timer_disarm(c->timer);
        return;
    }
    if (clock_runs(c) && (wanted & (B_UPDATE | B_ALARM))) {
        int64_t second = wanted & B_UPDATE ? c->checked + 1 : next_alarm(c, c->checked);
        struct moment at = time_of_day(c);
        if (second != INT64_MAX)
            wait = second - at.second > MAX_WAIT_S ? MAX_WAIT_S * NS_PER_SECOND
                                                   : (second - at.second) * NS_PER_SECOND - at.ns;
    }
    if (periodic_runs(c) && (wanted & B_PERIODIC)) {
        unsigned __int128 ticks = (unsigned __int128)(c->periods + 1) << rate_shift(c);
        uint64_t when = c->periods_from + (uint64_t)(ticks * NS_PER_SECOND / CRYSTAL_HZ) + 1;
        int64_t left = when > now ? (int64_t)(when - now) : 0;
        wait = left < wait ? left : wait;
    }
    if (wait == INT64_MAX)
        loop_timer_disarm(c->timer);
    else
        loop_timer_arm(c->timer, now + (uint64_t)(wait > 0 ? wait : 0));
}

static void update(struct cmos *c)
{
    const struct device_env *env = c->device.env;

    update_flags(c);
    bool level = c->ram[REG_C] & c->ram[REG_B] & (C_PERIODIC | C_ALARM | C_UPDATE);
    if (level)
        c->ram[REG_C] |= C_IRQ;
    else
        c->ram[REG_C] &= ~C_IRQ;
    if (level != c->irq_level) {
        c->irq_level = level;
        env->irq_set(env->opaque, IRQ, level);
    }
    arm(c);
}

static void on_timer(void *opaque)
{
    struct cmos *c = opaque;
    LOCK_SCOPE(&c->lock);
    update(c);
}

/* ---- registers ---- */

static uint8_t read_register(struct cmos *c, uint8_t index)
{
    uint8_t value;

    switch (index) {
    case REG_SECONDS:
    case REG_MINUTES:
    case REG_HOURS:
    case REG_WEEKDAY:
    case REG_DAY:
    case REG_MONTH:
    case REG_YEAR:
    case REG_CENTURY:
        if (clock_runs(c))
            load_registers(c);
        return c->ram[index];
    case REG_A: {
        bool soon = NS_PER_SECOND - time_of_day(c).ns <= UPDATE_NS;
        return c->ram[REG_A] | (clock_runs(c) && soon ? A_UPDATING : 0);
    }
    case REG_C:
        update(c);
        value = c->ram[REG_C];
        c->ram[REG_C] = 0;
        update(c);
        return value;
    default:
        return c->ram[index];
    }
}

/* A clock that stops keeps its time in the registers; one that starts takes it from them. */
static void write_control(struct cmos *c, uint8_t index, uint8_t value)
{
    bool ran = clock_runs(c), divided = divider_runs(c);

    update_flags(c);
    if (ran)
        load_registers(c);
    c->ram[index] = value;
    /* A change of format changes no register: what is there now means something else. */
    if (ran && index == REG_B && clock_runs(c))
        return;
    if (!divided && divider_runs(c)) {
        c->ahead = moment_of(c->ahead.second, c->ahead.ns + RESTART_PHASE_NS - time_of_day(c).ns);
        c->periods_from = loop_now();
    }
    if (!ran && clock_runs(c))
        store_registers(c);
    if (periodic_runs(c))
        c->periods = periods_now(c, loop_now());
}

static void write_register(struct cmos *c, uint8_t index, uint8_t value)
{
    switch (index) {
    case REG_SECONDS:
    case REG_MINUTES:
    case REG_HOURS:
    case REG_WEEKDAY:
    case REG_DAY:
    case REG_MONTH:
    case REG_YEAR:
    case REG_CENTURY:
        if (clock_runs(c))
            load_registers(c);
        c->ram[index] = value;
        if (clock_runs(c))
            store_registers(c);
        break;
    case REG_A:
        write_control(c, REG_A, value & (uint8_t)~A_UPDATING);
        break;
    case REG_B:
        /* Setting the time takes the update interrupt away. */
        if (value & B_SET)
            value &= ~B_UPDATE;
        write_control(c, REG_B, value);
        break;
    case REG_C:
    case REG_D:
        return;
    default:
        update_flags(c); /* what an alarm was, before it changes */
        c->ram[index] = value;
        break;
    }
    update(c);
}

static uint8_t read_byte(void *opaque, unsigned offset)
{
    struct cmos *c = opaque;
    return offset ? read_register(c, c->index) : 0xff;
}

/* The index port's top bit is the NMI mask, which nothing here needs. */
static void write_byte(void *opaque, unsigned offset, uint8_t value)
{
    struct cmos *c = opaque;
    if (offset)
        write_register(c, c->index, value);
    else
        c->index = value & (RAM_SIZE - 1);
}

static uint64_t cmos_read(void *opaque, uint64_t offset, unsigned size)
{
    struct cmos *c = opaque;
    LOCK_SCOPE(&c->lock);
    return io_read_bytes(read_byte, c, offset, size);
}

static void cmos_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct cmos *c = opaque;
    LOCK_SCOPE(&c->lock);
    io_write_bytes(write_byte, c, offset, size, value);
}

/* ---- the device ---- */

static uint64_t limited(uint64_t value, uint64_t limit)
{
    return value < limit ? value : limit;
}

/* The sizes of RAM as a PC's firmware leaves them for old software. */
static void describe_memory(struct cmos *c, uint64_t size)
{
    const uint64_t mib = 1ull << 20, low_end = GUEST_LOW_RAM_END;
    uint64_t low = limited(size, low_end), high = size - low;
    uint64_t extended = limited(low > mib ? (low - mib) >> 10 : 0, 0xffff);
    uint64_t above_16m = limited(low > 16 * mib ? (low - 16 * mib) >> 16 : 0, 0xffff);
    uint64_t above_4g = limited(high >> 16, 0xffffff);

    put_le16(&c->ram[RAM_BASE_MEMORY], 640);
    put_le16(&c->ram[RAM_EXTENDED], (uint16_t)extended);
    put_le16(&c->ram[RAM_EXTENDED_2], (uint16_t)extended);
    put_le16(&c->ram[RAM_ABOVE_16M], (uint16_t)above_16m);
    put_le16(&c->ram[RAM_ABOVE_4G], (uint16_t)above_4g);
    c->ram[RAM_ABOVE_4G + 2] = (uint8_t)(above_4g >> 16);
}

static void power_on(struct cmos *c)
{
    uint64_t memory = c->config.memory;

    if (!memory && c->device.env->memory)
        memory = c->device.env->memory->size;
    c->ram[REG_A] = A_POWER_ON;
    c->ram[REG_B] = B_24_HOURS;
    c->ram[REG_D] = D_VALID;
    c->ram[RAM_EQUIPMENT] = 0x02; /* a floating-point unit */
    describe_memory(c, memory);
    c->ram[RAM_MORE_CPUS] = (uint8_t)(c->config.cpus ? c->config.cpus - 1 : 0);
    uint16_t sum = 0;
    for (unsigned i = 0x10; i < RAM_CHECKSUM; i++)
        sum = (uint16_t)(sum + c->ram[i]);
    put_be16(&c->ram[RAM_CHECKSUM], sum);
    c->checked = time_of_day(c).second;
    c->periods_from = loop_now();
}

/* The battery keeps time, memory and format; only the interrupts go off. */
static void cmos_reset(struct device *device)
{
    struct cmos *c = container_of(device, struct cmos, device);
    LOCK_SCOPE(&c->lock);
    c->ram[REG_B] &= ~(B_PERIODIC | B_ALARM | B_UPDATE | B_SQUARE);
    update(c);
    c->ram[REG_C] = 0;
    c->index = 0;
}

static void cmos_free(struct cmos *c)
{
    loop_timer_free(c->timer);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void cmos_destroy(struct device *device)
{
    struct cmos *c = container_of(device, struct cmos, device);
    io_space_remove(device->env->pio, &c->region);
    cmos_free(c);
}

static int cmos_create(struct device **out, const struct device_env *env, const void *config,
                       struct error **err)
{
    struct cmos *c = calloc(1, sizeof(*c));
    if (!c)
        return error_set_errno(err, ENOMEM, "real-time clock");
    c->device = (struct device){&cmos_class, env};
    if (config)
        c->config = *(const struct cmos_config *)config;
    pthread_mutex_init(&c->lock, NULL);
    c->timer = loop_timer_new(env->loop, on_timer, c);
    c->region = (struct io_region){"cmos", 0x70, 2, cmos_read, cmos_write, c};
    power_on(c);
    int rc = c->timer ? io_space_add(env->pio, &c->region) : -ENOMEM;
    if (rc) {
        cmos_free(c);
        return error_set_errno(err, -rc, "real-time clock");
    }
    *out = &c->device;
    return 0;
}

const struct device_class cmos_class = {
    .name = "cmos",
    .summary = "real-time clock with battery-backed memory (MC146818)",
    .create = cmos_create,
    .reset = cmos_reset,
    .destroy = cmos_destroy,
};
