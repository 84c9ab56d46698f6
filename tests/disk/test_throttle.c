/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Token buckets, with a clock of the test's own. */
#include "disk/throttle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SECOND 1000000000ull

/* So many requests as are taken in `seconds` by one who is always ready. */
static unsigned taken(struct disk_throttle *t, bool write, uint64_t bytes, uint64_t *now, unsigned seconds)
{
    uint64_t end = *now + seconds * SECOND;
    unsigned n = 0;

    while (*now < end) {
        uint64_t wait = disk_throttle_take(t, write, bytes, *now);
        n += wait == 0;
        *now += wait;
    }
    return n;
}

static void test_rates(void **state)
{
    const struct disk_limits limits = {.values = {[DISK_LIMIT_IOPS] = 100}};
    struct disk_throttle t = {0};
    uint64_t now = 5 * SECOND;

    disk_throttle_set(&t, &limits, now);
    assert_in_range(taken(&t, true, 4096, &now, 10), 990, 1020);
    assert_in_range(taken(&t, false, 1 << 20, &now, 10), 990, 1020);
    const struct disk_limits bytes = {.values = {[DISK_LIMIT_BPS] = 1 << 20}};
    disk_throttle_set(&t, &bytes, now);
    assert_in_range(taken(&t, false, 65536, &now, 10), 158, 165);
    /* One that is larger than any bucket. */
    assert_in_range(taken(&t, false, 4 << 20, &now, 40), 9, 12);
}

static void test_kinds(void **state)
{
    const struct disk_limits limits = {
        .values = {[DISK_LIMIT_IOPS_READ] = 10, [DISK_LIMIT_BPS_WRITE] = 1000}};
    struct disk_throttle t = {0};
    uint64_t now = 0;

    disk_throttle_set(&t, &limits, now);
    assert_in_range(taken(&t, false, 1 << 20, &now, 10), 99, 103);
    assert_in_range(taken(&t, true, 100, &now, 10), 98, 104);
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(disk_throttle_take(&t, true, 0, now), 0);
}

static void test_burst(void **state)
{
    const struct disk_limits limits = {.values = {[DISK_LIMIT_IOPS] = 10, [DISK_LIMIT_IOPS_BURST] = 200}};
    const struct disk_limits none = {0};
    struct disk_throttle t = {0};
    uint64_t now = 0;
    unsigned n = 0;

    disk_throttle_set(&t, &limits, now);
    while (disk_throttle_take(&t, true, 1, now) == 0)
        n++;
    assert_in_range(n, 200, 201);
    now += 5 * SECOND;
    for (n = 0; disk_throttle_take(&t, true, 1, now) == 0;)
        n++;
    assert_in_range(n, 49, 51);
    now += 1000 * SECOND;
    for (n = 0; disk_throttle_take(&t, true, 1, now) == 0;)
        n++;
    assert_in_range(n, 200, 201);
    disk_throttle_set(&t, &none, now);
    for (n = 0; n < 100000; n++)
        assert_int_equal(disk_throttle_take(&t, n & 1, UINT64_MAX / 2, now), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_burst),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
