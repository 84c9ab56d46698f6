/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of the named port through its registers and queues: how a driver finds it, and what goes through it.
 */
#include "base/bytes.h"
#include "device/char.h"
#include "device/devices.h"
#include "device/virtio/port.h"
#include "driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define NAME   "org.example.port"
#define QUEUES 6u
enum { FROM_DEVICE = 2, TO_DEVICE = 3, IN = 4, OUT = 5 };
enum { DEVICE_READY = 0, PORT_ADD = 1, PORT_READY = 3, PORT_OPEN = 6, PORT_NAME = 7 };

struct rig {
    struct fixture f;
    struct device *device;
    struct driver d;
    struct driver_queue q[QUEUES];
    struct char_backend backend;
    uint8_t out[1 << 18];
    size_t n_out;
};

static size_t backend_output(struct char_backend *backend, const uint8_t *bytes, size_t len)
{
    struct rig *r = backend->opaque;

    assert_true(len <= sizeof(r->out) - r->n_out);
    memcpy(r->out + r->n_out, bytes, len);
    r->n_out += len;
    return len;
}

static void backend_input_ready(struct char_backend *backend)
{
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    const struct device_class *class = device_class_find("virtio-port");

    if (!r || !class)
        return -1;
    fixture_init(&r->f);
    r->backend =
        (struct char_backend){.output = backend_output, .input_ready = backend_input_ready, .opaque = r};
    const struct virtio_port_config config = {.backend = &r->backend, .name = NAME};
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
    fixture_fini(&r->f);
    free(r);
    return 0;
}

static void send(struct rig *r, uint32_t port, uint16_t event, uint16_t value)
{
    const struct piece piece = {DRIVER_BUFFERS, 8, false};
    uint8_t *message = driver_ram(&r->f, DRIVER_BUFFERS, 8);
    uint32_t id, len;

    put_le32(message, port);
    put_le16(message + 4, event);
    put_le16(message + 6, value);
    driver_add(&r->q[TO_DEVICE], &piece, 1, false);
    driver_kick(&r->q[TO_DEVICE]);
    assert_true(driver_used(&r->q[TO_DEVICE], &id, &len));
}

/* A message is there, in the buffer that was given for it. */
static void expect(struct rig *r, uint16_t event, const char *name)
{
    const uint64_t at = DRIVER_BUFFERS + 0x1000;
    const struct piece piece = {at, 256, true};
    const uint8_t *message = driver_ram(&r->f, at, 256);
    uint32_t id, len;

    driver_add(&r->q[FROM_DEVICE], &piece, 1, false);
    driver_kick(&r->q[FROM_DEVICE]);
    assert_true(driver_used(&r->q[FROM_DEVICE], &id, &len));
    assert_int_equal(len, 8 + strlen(name));
    assert_int_equal(get_le32(message), 1);
    assert_int_equal(get_le16(message + 4), event);
    assert_int_equal(get_le16(message + 6), 1);
    assert_memory_equal(message + 8, name, strlen(name));
}

/* As a driver that knows of ports finds it, and a program opens it. */
static void start(struct rig *r, uint64_t rings)
{
    assert_true(driver_start(&r->d, rings | VIRTIO_FEATURE(1), r->q, QUEUES, 16));
    assert_int_equal(io_space_read(r->f.env.mmio, r->d.config + 4, 4), 2);
    send(r, 0, DEVICE_READY, 1);
    expect(r, PORT_ADD, "");
    send(r, 1, PORT_READY, 1);
    expect(r, PORT_NAME, NAME);
    expect(r, PORT_OPEN, "");
    assert_false(virtio_port_is_open(r->device));
    send(r, 1, PORT_OPEN, 1);
    assert_true(virtio_port_is_open(r->device));
}

static void say(struct rig *r, unsigned queue, const char *text)
{
    const uint64_t at = DRIVER_BUFFERS + 0x2000;
    const struct piece piece = {at, (uint32_t)strlen(text), false};
    uint32_t id, len;

    memcpy(driver_ram(&r->f, at, strlen(text)), text, strlen(text));
    driver_add(&r->q[queue], &piece, 1, false);
    driver_kick(&r->q[queue]);
    assert_true(driver_used(&r->q[queue], &id, &len));
}

static void test_both_ways(void **state)
{
    struct rig *r = *state;
    static const uint64_t rings[] = {RINGS_SPLIT, RINGS_SPLIT | RINGS_ALL, RINGS_PACKED,
                                     RINGS_PACKED | RINGS_ALL};

    for (unsigned i = 0; i < ARRAY_SIZE(rings); i++) {
        const uint64_t at = DRIVER_BUFFERS + 0x3000;
        const struct piece piece = {at, 4, true};
        uint32_t id, len;

        r->n_out = 0;
        start(r, rings[i]);
        say(r, OUT, "hello\n");
        assert_int_equal(r->n_out, 6);
        assert_memory_equal(r->out, "hello\n", 6);
        driver_add(&r->q[IN], &piece, 1, false);
        driver_kick(&r->q[IN]);
        assert_int_equal(r->backend.input(r->backend.device, (const uint8_t *)"abcdef", 6), 4);
        assert_true(driver_used(&r->q[IN], &id, &len));
        assert_int_equal(len, 4);
        assert_memory_equal(driver_ram(&r->f, at, 4), "abcd", 4);
    }
}

/* Port 0 leads nowhere, and to who has no program there nothing is said. */
static void test_nobody_there(void **state)
{
    struct rig *r = *state;

    assert_int_equal(r->backend.input(r->backend.device, (const uint8_t *)"x", 1), 0);
    start(r, RINGS_SPLIT);
    say(r, 1, "a console's\n");
    assert_int_equal(r->n_out, 0);
    send(r, 7, PORT_OPEN, 0);
    assert_true(virtio_port_is_open(r->device));
    send(r, 1, PORT_OPEN, 0);
    assert_false(virtio_port_is_open(r->device));
    send(r, 1, PORT_OPEN, 1);
    assert_true(virtio_port_is_open(r->device));
    assert_true(driver_start(&r->d, RINGS_SPLIT, r->q, QUEUES, 16));
    assert_false(virtio_port_is_open(r->device));
}

/* A buffer of 200,000 bytes is cut, and the loop has others to serve in between. */
static void test_large_output(void **state)
{
    struct rig *r = *state;
    const struct piece piece = {DRIVER_BUFFERS, 200000, false};
    uint32_t id, len;

    start(r, RINGS_SPLIT);
    driver_ram(&r->f, DRIVER_BUFFERS, 200000);
    driver_add(&r->q[OUT], &piece, 1, false);
    driver_kick(&r->q[OUT]);
    assert_true(driver_used(&r->q[OUT], &id, &len));
    assert_int_equal(r->n_out, 65536);
    say(r, OUT, "more");
    assert_int_equal(r->n_out, 65540);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_output, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
