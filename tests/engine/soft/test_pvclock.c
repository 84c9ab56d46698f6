/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/engine/soft/pvclock.c: read as a guest reads it, with host clocks that the test moves. */
#include "engine/soft/pvclock.h"

#include "device/guest_memory.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <x86intrin.h>

#include <cmocka.h>

#define RECORD(cpu) (0x1000u + 64u * (cpu))
#define WALL        0x2000u

static struct {
    struct guest_memory *memory;
    struct pvclock *clock;
    uint64_t tsc, monotonic, realtime;
    double hz; /* the rate at which tsc really runs */
    double tsc_rest;
    uint64_t offset[PVCLOCK_MAX_CPUS];
    unsigned marks;
} t;

static void sample(void *opaque, uint64_t *tsc, uint64_t *monotonic)
{
    *tsc = t.tsc;
    *monotonic = t.monotonic;
}

static uint64_t realtime(void *opaque)
{
    return t.realtime;
}

static uint64_t tsc_offset(void *opaque, unsigned cpu)
{
    return t.offset[cpu];
}

static void written(void *opaque, uint64_t gpa, uint64_t len)
{
    t.marks++;
}

static void pass(double ns)
{
    double ticks = ns * t.hz / 1e9 + t.tsc_rest;
    t.tsc += (uint64_t)ticks;
    t.tsc_rest = ticks - floor(ticks);
    t.monotonic += (uint64_t)ns;
    t.realtime += (uint64_t)ns;
}

static void start(uint64_t said_hz, double true_hz)
{
    memset(&t, 0, sizeof(t));
    t.tsc = 123456789012ull;
    t.monotonic = 777000000000ull;
    t.realtime = 1700000000123456789ull;
    t.hz = true_hz;
    assert_int_equal(guest_memory_create(&t.memory, 1 << 20, NULL), 0);
    t.memory->written = written;
    struct pvclock_config config = {.cpus = 4,
                                    .memory = t.memory,
                                    .tsc_hz = said_hz,
                                    .stable = true,
                                    .tsc_offset = tsc_offset,
                                    .source = {.sample = sample, .realtime = realtime}};
    assert_int_equal(pvclock_create(&t.clock, &config), 0);
}

static int stop(void **state)
{
    pvclock_free(t.clock);
    guest_memory_free(t.memory);
    t.clock = NULL;
    t.memory = NULL;
    return 0;
}

static uint8_t *record(unsigned cpu)
{
    return guest_memory_at(t.memory, RECORD(cpu), 32);
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* The computation that the interface prescribes, written on its own. */
static uint64_t compute(const uint8_t *r, uint64_t guest_tsc)
{
    uint64_t delta = guest_tsc - get64(r + 8);
    int8_t shift = (int8_t)r[28];
    if (shift >= 0)
        delta <<= shift;
    else
        delta >>= -shift;
    return get64(r + 16) + (uint64_t)(((unsigned __int128)delta * get32(r + 24)) >> 32);
}

static uint64_t guest_time(unsigned cpu)
{
    assert_int_equal(get32(record(cpu)) & 1, 0);
    return compute(record(cpu), t.tsc + t.offset[cpu]);
}

static void enable(unsigned cpu)
{
    assert_int_equal(pvclock_msr_write(t.clock, cpu, PVCLOCK_MSR_SYSTEM_TIME, RECORD(cpu) | 1), 0);
}

static void test_registers(void **state)
{
    uint64_t value;
    start(2500000000, 2.5e9);
    assert_int_equal(pvclock_msr_read(t.clock, 0, PVCLOCK_MSR_SYSTEM_TIME, &value), 0);
    assert_int_equal(value, 0);
    enable(1);
    assert_int_equal(pvclock_msr_read(t.clock, 1, PVCLOCK_MSR_SYSTEM_TIME, &value), 0);
    assert_int_equal(value, RECORD(1) | 1);
    assert_int_equal(pvclock_msr_read(t.clock, 0, PVCLOCK_MSR_SYSTEM_TIME_OLD, &value), 0);
    assert_int_equal(value, 0);
    assert_int_equal(pvclock_msr_read(t.clock, 4, PVCLOCK_MSR_SYSTEM_TIME, &value), -EINVAL);
    assert_int_equal(pvclock_msr_write(t.clock, 4, PVCLOCK_MSR_SYSTEM_TIME, 1), -EINVAL);
    assert_int_equal(pvclock_msr_read(t.clock, 0, 0x10, &value), -EINVAL);
    assert_int_equal(pvclock_msr_write(t.clock, 0, 0x4b564d02, 0), -EINVAL);
    assert_true(t.marks > 0);

    /* what is not RAM, not aligned, or off is not written */
    static const uint64_t bad[] = {0x100000 | 1, 0xfffe8 | 1, UINT64_MAX, 0x1003, 0x3000, 0xfffffffffffffff1};
    uint8_t before[4096], *page = guest_memory_at(t.memory, 0x3000, 4096);
    memcpy(before, page, sizeof(before));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(pvclock_msr_write(t.clock, 2, PVCLOCK_MSR_SYSTEM_TIME, bad[i]), 0);
        assert_int_equal(pvclock_msr_write(t.clock, 2, PVCLOCK_MSR_WALL_CLOCK, bad[i] | 2), 0);
        t.marks = 0;
        pass(2e9);
        pvclock_refresh(t.clock);
    }
    assert_memory_equal(before, page, sizeof(before));

    struct pvclock *none = NULL;
    assert_int_equal(pvclock_create(&none, &(struct pvclock_config){.cpus = 0, .tsc_hz = 1}), -EINVAL);
    assert_int_equal(pvclock_create(&none, &(struct pvclock_config){.cpus = 9, .tsc_hz = 1}), -EINVAL);
    assert_int_equal(pvclock_create(&none, &(struct pvclock_config){.cpus = 1, .tsc_hz = 0}), -EINVAL);
}

static void test_time_passes(void **state)
{
    static const double rates[] = {2.5e9, 1e9, 999999937.0, 333e6, 5.1e9, 3.2e9};
    for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
        start((uint64_t)rates[i], rates[i]);
        enable(0);
        assert_int_equal(guest_time(0), 0);
        pass(1.5e9);
        assert_in_range(guest_time(0), 1499999990, 1500000010);
        /* an hour without a refresh: the multiplier's own rounding */
        pass(3600e9);
        uint64_t error = guest_time(0) - 3601500000000ull;
        assert_true((int64_t)error < 2000 && (int64_t)error > -2000);
        stop(NULL);
    }
    start(2500000000, 2.5e9);
    /* what Linux makes of it: tsc_khz */
    enable(0);
    int8_t shift = (int8_t)record(0)[28];
    uint64_t khz = (1000000ull << 32) / get32(record(0) + 24);
    khz = shift < 0 ? khz << -shift : khz >> shift;
    assert_in_range(khz, 2499998, 2500000);
    pass(5e9);
    assert_in_range(pvclock_now(t.clock), 4999999990, 5000000010);
}

static void test_wall_clock(void **state)
{
    start(2500000000, 2.5e9);
    pass(3e9);
    uint32_t *w = guest_memory_at(t.memory, WALL, 12);
    w[0] = 7; /* a leftover odd version */
    assert_int_equal(pvclock_msr_write(t.clock, 0, PVCLOCK_MSR_WALL_CLOCK, WALL), 0);
    assert_int_equal(w[0] & 1, 0);
    assert_int_not_equal(w[0], 0);
    assert_int_equal(w[1], 1700000000);
    assert_in_range(w[2], 123456780, 123456800);
}

static void test_offsets_and_flag(void **state)
{
    start(2500000000, 2.5e9);
    for (unsigned cpu = 0; cpu < 4; cpu++)
        t.offset[cpu] = (uint64_t)-5000000000ll;
    for (unsigned cpu = 0; cpu < 4; cpu++)
        enable(cpu);
    pass(1e9);
    for (unsigned cpu = 0; cpu < 4; cpu++) {
        assert_int_equal(record(cpu)[29], 1);
        assert_in_range(guest_time(cpu), 999999990, 1000000010);
    }
    /* one vCPU's TSC is stepped: its time goes on, and guests must compare from now on */
    t.offset[2] += 1234567890123ull;
    pvclock_tsc_changed(t.clock);
    pass(1e9);
    for (unsigned cpu = 0; cpu < 4; cpu++) {
        assert_int_equal(record(cpu)[29], 0);
        assert_in_range(guest_time(cpu), 1999999990, 2000000010);
    }
    pvclock_reset(t.clock);
    uint32_t version = get32(record(0));
    pass(10e9);
    pvclock_refresh(t.clock);
    assert_int_equal(get32(record(0)), version);
    t.offset[2] = t.offset[0];
    enable(0);
    assert_int_equal(record(0)[29], 1);
    assert_in_range(guest_time(0), 9999999000, 10000001000);
}

/* `said` is off by ppm; the true rate wanders. After a few seconds the guest's clock must be right to some
 * microseconds, and at every refresh it must neither jump nor go back. */
static void follow(double ppm, double wander_ppm)
{
    start((uint64_t)(2.5e9 * (1 + ppm / 1e6)), 2.5e9);
    for (unsigned cpu = 0; cpu < 4; cpu++)
        enable(cpu);
    for (int second = 0; second < 300; second++) {
        t.hz = 2.5e9 * (1 + wander_ppm / 1e6 * sin(second / 20.0));
        pass(1e9);
        uint64_t before = guest_time(0);
        pvclock_refresh(t.clock);
        for (unsigned cpu = 0; cpu < 4; cpu++)
            assert_in_range(guest_time(cpu), before, before + 1);
        double error = (double)before - 1e9 * (second + 1);
        if (fabs(error) > (second < 20 ? 2.5e6 : 50e3))
            fail_msg("%.0f ppm, %.0f ppm: %f ns off after %d s", ppm, wander_ppm, error, second + 1);
    }
    stop(NULL);
}

static void test_follows(void **state)
{
    follow(0, 0);
    follow(3, 0);
    follow(-400, 0);
    follow(800, 0);
    follow(0, 20);
    follow(-100, 10);
    start(2500000000, 2.5e9);
}

static void test_jumps(void **state)
{
    start(2500000000, 2.5e9);
    enable(0);
    pass(2e9);
    pvclock_refresh(t.clock);
    /* CLOCK_MONOTONIC is ten seconds on, the TSC is not: forward at once */
    t.monotonic += 10000000000ull;
    pvclock_refresh(t.clock);
    assert_in_range(guest_time(0), 11999000000, 12001000000);
    /* the TSC ran on while CLOCK_MONOTONIC stood: never back, but slower */
    t.tsc += 250000000; /* 100 ms */
    uint64_t last = guest_time(0);
    for (int i = 0; i < 60; i++) {
        pvclock_refresh(t.clock);
        assert_true(guest_time(0) >= last);
        pass(1e9);
        assert_true(guest_time(0) > last);
        last = guest_time(0);
    }
    int64_t error = (int64_t)(last - (t.monotonic - 777000000000ull));
    assert_true(error < 1000000 && error > -1000000);
    /* a TSC that starts anew */
    t.tsc = 5;
    pvclock_refresh(t.clock);
    uint64_t restarted = guest_time(0);
    assert_true(restarted >= last);
    pass(1e9);
    assert_true(guest_time(0) > restarted);
}

/* With the host's own clocks: a reader in another thread sees neither torn records nor time going back, while
 * records are written all the time. */
static _Atomic bool done;

static void *reader(void *opaque)
{
    const uint8_t *r[2] = {record(0), record(1)};
    uint64_t last = 0, *bad = opaque, reads = 0;
    for (unsigned i = 0; !atomic_load(&done) || reads < 1000; i++) {
        const uint8_t *p = r[i & 1];
        uint32_t version = __atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE);
        uint8_t copy[32];
        if (version & 1)
            continue;
        memcpy(copy, p, 32);
        _mm_lfence();
        uint64_t tsc = __rdtsc();
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE) != version)
            continue;
        uint64_t now = compute(copy, tsc);
        *bad += now < last;
        last = now;
        reads++;
    }
    return NULL;
}

static void test_reader_race(void **state)
{
    uint64_t bad = 0;
    pthread_t thread;
    memset(&t, 0, sizeof(t));
    assert_int_equal(guest_memory_create(&t.memory, 1 << 20, NULL), 0);
    /* the frequency is wrong by a percent, so that each refresh has something to correct */
    struct pvclock_config config = {
        .cpus = 2, .memory = t.memory, .tsc_hz = 2525000000, .stable = true, .tsc_offset = tsc_offset};
    assert_int_equal(pvclock_create(&t.clock, &config), 0);
    enable(0);
    enable(1);
    atomic_store(&done, false);
    assert_int_equal(pthread_create(&thread, NULL, reader, &bad), 0);
    for (int i = 0; i < 100000; i++) {
        pvclock_refresh(t.clock);
        if (i % 16 == 0)
            pvclock_tsc_changed(t.clock);
    }
    atomic_store(&done, true);
    pthread_join(thread, NULL);
    assert_true(bad == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_registers, stop),
        cmocka_unit_test_teardown(test_time_passes, stop),
        cmocka_unit_test_teardown(test_wall_clock, stop),
        cmocka_unit_test_teardown(test_offsets_and_flag, stop),
        cmocka_unit_test_teardown(test_follows, stop),
        cmocka_unit_test_teardown(test_jumps, stop),
        cmocka_unit_test_teardown(test_reader_race, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
