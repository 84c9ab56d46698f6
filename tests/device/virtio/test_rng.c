/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of the entropy device through its registers and queue. */
#include "base/bytes.h"
#include "device/devices.h"
#include "driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct rig {
    struct fixture f;
    struct device *device;
    struct driver d;
    struct driver_queue q;
};

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    const struct device_class *class = device_class_find("virtio-rng");
    if (!r || !class)
        return -1;
    fixture_init(&r->f);
    if (class->create(&r->device, &r->f.env, NULL, NULL) < 0 || !driver_find(&r->d, &r->f, VIRTIO_TYPE_RNG))
        return -1;
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    r->device->class->destroy(r->device);
    fixture_fini(&r->f);
    free(r);
    return 0;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    while (n && !*p)
        p++, n--;
    return n == 0;
}

static void fill_and_check(struct rig *r, uint64_t features)
{
    assert_true(driver_start(&r->d, features, &r->q, 1, 64));
    const struct piece pieces[] = {{DRIVER_BUFFERS, 32, true}, {DRIVER_BUFFERS + 0x1000, 32, true}};
    uint8_t *a = driver_ram(&r->f, DRIVER_BUFFERS, 0x2000), before[32];
    uint32_t id, len;
    memset(a, 0, 0x2000);
    memset(before, 0, sizeof(before));
    for (unsigned i = 0; i < 200; i++) {
        driver_add(&r->q, pieces, 2, false);
        driver_kick(&r->q);
        assert_true(driver_used(&r->q, &id, &len));
        assert_int_equal(len, 64);
        /* 32 zero or equal bytes do not happen by chance. */
        assert_memory_not_equal(a, before, 32);
        assert_false(all_zero(a + 0x1000, 32));
        assert_true(all_zero(a + 32, 0x1000 - 32));
        memcpy(before, a, 32);
    }
}

static void test_fill(void **state)
{
    fill_and_check(*state, RINGS_SPLIT);
    fill_and_check(*state, RINGS_SPLIT | RINGS_ALL);
    fill_and_check(*state, RINGS_PACKED | RINGS_ALL);
}

/* A request of megabytes is answered with less; one without room is given back. */
static void test_odd_requests(void **state)
{
    struct rig *r = *state;
    uint32_t id, len;
    assert_true(driver_start(&r->d, RINGS_SPLIT, &r->q, 1, 64));
    const struct piece large = {DRIVER_BUFFERS, 0x200000, true}, readable = {DRIVER_BUFFERS, 16, false};
    driver_add(&r->q, &large, 1, false);
    driver_add(&r->q, &readable, 1, false);
    driver_kick(&r->q);
    assert_true(driver_used(&r->q, &id, &len));
    assert_in_range(len, 1, 0x10000);
    assert_false(all_zero(driver_ram(&r->f, DRIVER_BUFFERS, len), len));
    assert_true(driver_used(&r->q, &id, &len));
    assert_int_equal(len, 0);
    assert_int_equal(driver_status(&r->d) & VIRTIO_STATUS_NEEDS_RESET, 0);
}

static void test_full_queue(void **state)
{
    struct rig *r = *state;
    const struct piece piece = {DRIVER_BUFFERS, 8, true};
    uint32_t id, len;
    assert_true(driver_start(&r->d, RINGS_PACKED, &r->q, 1, 64));
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 64; i++)
            driver_add(&r->q, &piece, 1, false);
        driver_kick(&r->q);
        for (unsigned i = 0; i < 64; i++)
            assert_true(driver_used(&r->q, &id, &len));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fill, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_queue, setup, teardown),
    };
    return cmocka_run_group_tests_name("virtio rng", tests, NULL, NULL);
}
