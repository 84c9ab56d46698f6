/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The console under a guest that does anything and a backend that stops and goes. Whatever happened, it works
 * after a reset, in both directions. */
#include "device/char.h"
#include "device/devices.h"
#include "device/virtio/console.h"
#include "fuzz_virtio.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct far_side {
    struct char_backend backend;
    size_t room;
    uint8_t last[2];
};

static size_t far_output(struct char_backend *backend, const uint8_t *bytes, size_t len)
{
    struct far_side *far = backend->opaque;
    size_t n = len < far->room ? len : far->room;
    for (size_t i = n < 2 ? 0 : n - 2; i < n; i++) {
        far->last[0] = far->last[1];
        far->last[1] = bytes[i];
    }
    far->room -= n;
    return n;
}

static void far_input_ready(struct char_backend *backend)
{
}

static struct far_side far;

static void special(struct fuzz_guest *g, struct fuzz_input *in)
{
    static const uint8_t text[512] = "input";
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    switch (what % 4) {
    case 0:
        far.room = fuzz_take(in, 2);
        far.backend.output_ready(far.backend.device);
        break;
    case 1:
        fuzz_expect(far.backend.input(far.backend.device, text, what * 2u) <= what * 2u,
                    "takes what there is");
        break;
    case 2:
        virtio_console_resize(g->device, what, what);
        break;
    case 3:
        if (g->queues[what / 4 % 2].size)
            driver_want_interrupt(&g->queues[what / 4 % 2], what / 8u % g->queues[0].size);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_guest g;
    struct fuzz_input in = {data, size};
    far = (struct far_side){.backend = {.output = far_output, .input_ready = far_input_ready, .opaque = &far},
                            .room = 4096};
    g = (struct fuzz_guest){.type = VIRTIO_TYPE_CONSOLE, .n_queues = 2, .special = special};
    fixture_init(&g.f);
    const struct virtio_console_config config = {.backend = &far.backend};
    const struct device_class *class = device_class_find("virtio-console");
    fuzz_expect(class && class->create(&g.device, &g.f.env, &config, NULL) == 0, "the device can be made");
    fuzz_expect(driver_find(&g.d, &g.f, g.type), "the device can be found");
    fuzz_virtio_actions(&g, &in);

    fuzz_virtio_restart(&g, RINGS_PACKED | RINGS_ALL);
    far.room = 4096;
    fuzz_virtio_exchange(&g, &far.backend, 0, 1, far.last);
    class->destroy(g.device);
    fixture_fini(&g.f);
    return 0;
}
