/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The named port under a guest that does anything. Whatever happened, a driver finds it after a reset, and
 * what is said through it arrives. */
#include "base/bytes.h"
#include "device/char.h"
#include "device/devices.h"
#include "device/virtio/port.h"
#include "fuzz_virtio.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CONTROL_OUT = 3, IN = 4, OUT = 5, QUEUES = 6 };
enum { PORT_READY = 3, PORT_OPEN = 6 };

static struct char_backend backend;
static uint8_t last[2];

static size_t far_output(struct char_backend *b, const uint8_t *bytes, size_t len)
{
    for (size_t i = len < 2 ? 0 : len - 2; i < len; i++) {
        last[0] = last[1];
        last[1] = bytes[i];
    }
    return len;
}

static void far_input_ready(struct char_backend *b)
{
}

static void send_control(struct fuzz_guest *g, uint32_t port, uint16_t event, uint16_t value)
{
    const struct piece piece = {DRIVER_BUFFERS + 0x800, 8, false};
    uint8_t *message = driver_ram(&g->f, DRIVER_BUFFERS + 0x800, 8);

    put_le32(message, port);
    put_le16(message + 4, event);
    put_le16(message + 6, value);
    driver_add(&g->queues[CONTROL_OUT], &piece, 1, false);
    driver_kick(&g->queues[CONTROL_OUT]);
}

static void special(struct fuzz_guest *g, struct fuzz_input *in)
{
    static const uint8_t text[512] = "input";
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    if (what & 1)
        fuzz_expect(backend.input(backend.device, text, what * 2u) <= what * 2u, "takes what there is");
    else if (g->queues[CONTROL_OUT].size && g->queues[CONTROL_OUT].size <= 128)
        send_control(g, what >> 1 & 1, what >> 2 & 7, what >> 5);
    virtio_port_is_open(g->device);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_guest g;
    struct fuzz_input in = {data, size};
    backend = (struct char_backend){.output = far_output, .input_ready = far_input_ready};
    g = (struct fuzz_guest){
        .type = VIRTIO_TYPE_CONSOLE, .n_queues = QUEUES, .features = 2, .special = special};
    fixture_init(&g.f);
    const struct virtio_port_config config = {.backend = &backend, .name = "org.example.port"};
    const struct device_class *class = device_class_find("virtio-port");
    fuzz_expect(class && class->create(&g.device, &g.f.env, &config, NULL) == 0, "the device can be made");
    fuzz_expect(driver_find(&g.d, &g.f, g.type), "the device can be found");
    fuzz_virtio_actions(&g, &in);

    fuzz_virtio_restart(&g, RINGS_PACKED | RINGS_ALL);
    fuzz_expect(!virtio_port_is_open(g.device), "closed by a reset");
    send_control(&g, 1, PORT_READY, 1);
    send_control(&g, 1, PORT_OPEN, 1);
    fuzz_expect(virtio_port_is_open(g.device), "open");
    fuzz_virtio_exchange(&g, &backend, IN, OUT, last);
    class->destroy(g.device);
    fixture_fini(&g.f);
    return 0;
}
