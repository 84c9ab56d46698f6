/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The entropy device under a guest that does anything. Whatever happened, it works after a reset. */
#include "device/devices.h"
#include "fuzz_virtio.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Interrupts whenever, rather than by the driver's wish. */
static void special(struct fuzz_guest *g, struct fuzz_input *in)
{
    struct driver_queue *q = &g->queues[0];
    if (q->size)
        driver_want_interrupt(q, (unsigned)fuzz_take(in, 1) % q->size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_guest g;
    struct fuzz_input in = {data, size};
    g = (struct fuzz_guest){.type = VIRTIO_TYPE_RNG, .n_queues = 1, .special = special};
    fixture_init(&g.f);
    const struct device_class *class = device_class_find("virtio-rng");
    fuzz_expect(class && class->create(&g.device, &g.f.env, NULL, NULL) == 0, "the device can be made");
    fuzz_expect(driver_find(&g.d, &g.f, g.type), "the device can be found");
    fuzz_virtio_actions(&g, &in);

    fuzz_virtio_restart(&g, RINGS_SPLIT);
    const struct piece piece = {DRIVER_BUFFERS, 16, true};
    uint32_t id, len;
    driver_add(&g.queues[0], &piece, 1, false);
    driver_kick(&g.queues[0]);
    fuzz_expect(driver_used(&g.queues[0], &id, &len) && len == 16, "random bytes after a reset");
    class->destroy(g.device);
    fixture_fini(&g.f);
    return 0;
}
