/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of the console through its registers and queues, with a backend that takes or refuses what it will.
 */
#include "base/bytes.h"
#include "device/char.h"
#include "device/devices.h"
#include "device/virtio/console.h"
#include "driver.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct rig {
    struct fixture f;
    struct device *device;
    struct driver d;
    struct driver_queue q[2];
    struct char_backend backend;
    uint8_t out[1 << 18];
    size_t n_out, room;
    unsigned ready;
};

static size_t backend_output(struct char_backend *backend, const uint8_t *bytes, size_t len)
{
    struct rig *r = backend->opaque;
    size_t n = len < r->room ? len : r->room;
    assert_true(n <= sizeof(r->out) - r->n_out);
    memcpy(r->out + r->n_out, bytes, n);
    r->n_out += n;
    r->room -= n;
    return n;
}

static void backend_input_ready(struct char_backend *backend)
{
    ((struct rig *)backend->opaque)->ready++;
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    const struct device_class *class = device_class_find("virtio-console");
    if (!r || !class)
        return -1;
    fixture_init(&r->f);
    r->backend =
        (struct char_backend){.output = backend_output, .input_ready = backend_input_ready, .opaque = r};
    r->room = sizeof(r->out);
    const struct virtio_console_config config = {.backend = &r->backend, .columns = 132, .rows = 43};
    if (class->create(&r->device, &r->f.env, &config, NULL) < 0 ||
        !driver_find(&r->d, &r->f, VIRTIO_TYPE_CONSOLE))
        return -1;
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    r->device->class->destroy(r->device);
    assert_null(r->backend.input);
    assert_null(r->backend.output_ready);
    fixture_fini(&r->f);
    free(r);
    return 0;
}

static void start(struct rig *r, uint64_t features)
{
    assert_true(driver_start(&r->d, features, r->q, 2, 32));
}

static void say(struct rig *r, const char *text)
{
    size_t n = strlen(text);
    memcpy(driver_ram(&r->f, DRIVER_BUFFERS, n), text, n);
    const struct piece pieces[] = {{DRIVER_BUFFERS, (uint32_t)n / 2, false},
                                   {DRIVER_BUFFERS + n / 2, (uint32_t)(n - n / 2), false}};
    driver_add(&r->q[1], pieces, 2, false);
    driver_kick(&r->q[1]);
}

static void test_output(void **state)
{
    struct rig *r = *state;
    static const uint64_t rings[] = {RINGS_SPLIT, RINGS_SPLIT | RINGS_ALL, RINGS_PACKED,
                                     RINGS_PACKED | RINGS_ALL};
    for (unsigned i = 0; i < ARRAY_SIZE(rings); i++) {
        uint32_t id, len;
        start(r, rings[i]);
        for (unsigned k = 0; k < 100; k++) {
            r->n_out = 0;
            say(r, "hello, world\n");
            assert_int_equal(r->n_out, 13);
            assert_memory_equal(r->out, "hello, world\n", 13);
            assert_true(driver_used(&r->q[1], &id, &len));
            assert_int_equal(len, 0);
        }
    }
}

/* A backend that refuses loses nothing and gets nothing twice. */
static void test_output_flow_control(void **state)
{
    struct rig *r = *state;
    uint32_t id, len;
    start(r, RINGS_SPLIT | RINGS_ALL);
    r->room = 0;
    say(r, "abcdefgh");
    assert_false(driver_used(&r->q[1], &id, &len));
    for (unsigned i = 1; i <= 8; i++) {
        r->room = 1;
        r->backend.output_ready(r->backend.device);
        fixture_run_loop(&r->f);
        assert_int_equal(r->n_out, i);
        assert_int_equal(driver_used(&r->q[1], &id, &len), i == 8);
    }
    assert_memory_equal(r->out, "abcdefgh", 8);
    /* A reset forgets the rest of a buffer. */
    r->room = 3;
    say(r, "ABCDEFGH");
    start(r, RINGS_SPLIT);
    r->room = 100;
    r->backend.output_ready(r->backend.device);
    fixture_run_loop(&r->f);
    assert_int_equal(r->n_out, 11);
    say(r, "xy");
    assert_int_equal(r->n_out, 13);
    assert_memory_equal(r->out + 8, "ABCxy", 5);
}

static void test_large_output(void **state)
{
    struct rig *r = *state;
    const uint32_t size = 200000;
    uint32_t id, len;
    start(r, RINGS_SPLIT);
    uint8_t *p = driver_ram(&r->f, DRIVER_BUFFERS, size);
    for (unsigned i = 0; i < size; i++)
        p[i] = (uint8_t)(i * 7 >> 3);
    const struct piece piece = {DRIVER_BUFFERS, size, false};
    driver_add(&r->q[1], &piece, 1, false);
    driver_kick(&r->q[1]);
    /* It comes in portions, so that the loop can serve others in between. */
    for (unsigned i = 0; i < 10 && r->n_out < size; i++)
        fixture_run_loop(&r->f);
    assert_int_equal(r->n_out, size);
    assert_memory_equal(r->out, p, size);
    fixture_run_loop(&r->f);
    assert_true(driver_used(&r->q[1], &id, &len));
}

static size_t type(struct rig *r, const char *text)
{
    return r->backend.input(r->backend.device, (const uint8_t *)text, strlen(text));
}

static void test_input(void **state)
{
    struct rig *r = *state;
    static const uint64_t rings[] = {RINGS_SPLIT, RINGS_SPLIT | RINGS_ALL, RINGS_PACKED,
                                     RINGS_PACKED | RINGS_ALL};
    for (unsigned i = 0; i < ARRAY_SIZE(rings); i++) {
        uint32_t id, len;
        start(r, rings[i]);
        for (unsigned k = 0; k < 100; k++) {
            const struct piece a = {DRIVER_BUFFERS, 4, true}, b = {DRIVER_BUFFERS + 4, 100, true};
            memset(driver_ram(&r->f, DRIVER_BUFFERS, 128), 0, 128);
            driver_add(&r->q[0], &a, 1, false);
            driver_add(&r->q[0], &b, 1, false);
            driver_kick(&r->q[0]);
            assert_int_equal(type(r, "ls -l\r"), 6);
            assert_true(driver_used(&r->q[0], &id, &len));
            assert_int_equal(len, 4);
            assert_true(driver_used(&r->q[0], &id, &len));
            assert_int_equal(len, 2);
            assert_memory_equal(driver_ram(&r->f, DRIVER_BUFFERS, 7), "ls -l\r\0", 7);
        }
    }
}

static void test_input_flow_control(void **state)
{
    struct rig *r = *state;
    const struct piece piece = {DRIVER_BUFFERS, 2, true};
    uint32_t id, len;
    /* No driver: refused, and asked for once there are buffers. */
    assert_int_equal(type(r, "abc"), 0);
    assert_false(virtio_console_running(r->device));
    start(r, RINGS_SPLIT);
    assert_true(virtio_console_running(r->device));
    assert_int_equal(r->ready, 1);
    assert_int_equal(type(r, "abc"), 0);
    driver_add(&r->q[0], &piece, 1, false);
    assert_true(driver_kick_wanted(&r->q[0], 1));
    driver_kick(&r->q[0]);
    assert_int_equal(r->ready, 2);
    assert_int_equal(type(r, "abc"), 2);
    assert_true(driver_used(&r->q[0], &id, &len));
    /* Without input waiting, nobody asks. */
    driver_add(&r->q[0], &piece, 1, false);
    driver_kick(&r->q[0]);
    assert_int_equal(r->ready, 3);
    assert_int_equal(type(r, "c"), 1);
    driver_add(&r->q[0], &piece, 1, false);
    driver_kick(&r->q[0]);
    assert_int_equal(r->ready, 3);
}

/* Buffers without room for input do not keep the device busy for ever. */
static void test_input_without_room(void **state)
{
    struct rig *r = *state;
    const struct piece piece = {DRIVER_BUFFERS, 8, false};
    start(r, RINGS_SPLIT);
    for (unsigned i = 0; i < 32; i++)
        driver_add(&r->q[0], &piece, 1, false);
    driver_kick(&r->q[0]);
    assert_int_equal(type(r, "x"), 0);
    fixture_run_loop(&r->f);
    assert_int_equal(r->ready, 1);
}

static void test_configuration(void **state)
{
    struct rig *r = *state;
    struct io_space *mmio = r->f.env.mmio;
    assert_int_not_equal(r->d.config, 0);
    assert_int_equal(driver_offered(&r->d) & 0xff, 0x05); /* size and emergency write, one port */
    start(r, RINGS_SPLIT | 0x05);
    assert_int_equal(io_space_read(mmio, r->d.config, 2), 132);
    assert_int_equal(io_space_read(mmio, r->d.config + 2, 2), 43);
    assert_int_equal(io_space_read(mmio, r->d.config + 4, 4), 1);
    assert_int_equal(io_space_read(mmio, r->d.config + 12, 4), 0);
    io_space_write(mmio, r->d.config, 4, 0);
    assert_int_equal(io_space_read(mmio, r->d.config, 2), 132);
    /* A resized terminal interrupts once. */
    fixture_msix_vector(&r->f, r->d.devfn, 0, 0x55);
    fixture_msix_control(&r->f, r->d.devfn, 0x8000);
    driver_write(&r->d, C_CONFIG_VECTOR, 2, 0);
    virtio_console_resize(r->device, 80, 25);
    virtio_console_resize(r->device, 80, 25);
    assert_int_equal(r->f.n_messages, 1);
    assert_int_equal(io_space_read(mmio, r->d.config, 4), 25u << 16 | 80);
}

static void test_emergency_write(void **state)
{
    struct rig *r = *state;
    /* Without any negotiation. */
    io_space_write(r->f.env.mmio, r->d.config + 8, 4, 'P');
    io_space_write(r->f.env.mmio, r->d.config + 8, 1, '!');
    assert_int_equal(r->n_out, 2);
    assert_memory_equal(r->out, "P!", 2);
    /* Beyond the configuration's end: not one. */
    io_space_write(r->f.env.mmio, r->d.config + 8, 8, '?');
    io_space_write(r->f.env.mmio, r->d.config + 9, 4, '?');
    assert_int_equal(r->n_out, 2);
    r->room = 0;
    io_space_write(r->f.env.mmio, r->d.config + 8, 4, 'x');
    assert_int_equal(r->n_out, 2);
}

static void test_needs_backend(void **state)
{
    struct rig *r = *state;
    struct device *other = NULL;
    assert_int_equal(virtio_console_class.create(&other, &r->f.env, NULL, NULL), -EINVAL);
    assert_null(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_output, setup, teardown),
        cmocka_unit_test_setup_teardown(test_output_flow_control, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_output, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input_flow_control, setup, teardown),
        cmocka_unit_test_setup_teardown(test_input_without_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_configuration, setup, teardown),
        cmocka_unit_test_setup_teardown(test_emergency_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_needs_backend, setup, teardown),
    };
    return cmocka_run_group_tests_name("virtio console", tests, NULL, NULL);
}
