/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The network card under a guest that does anything and a network that stops, goes and sends what it will.
 * Whatever happened, it works after a reset, in both directions and on the control queue. */
#include "base/bytes.h"
#include "device/devices.h"
#include "device/virtio/net.h"
#include "fake_net.h"
#include "fuzz_virtio.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAIRS 2u

static struct fake_net net;

/* A frame with a header of any sort, of a size that is often near an edge. */
static void deliver(struct fuzz_input *in)
{
    static const uint8_t frame[NET_FRAME_MAX];
    struct net_header header;
    unsigned queue = (unsigned)fuzz_take(in, 1) % PAIRS;
    size_t len = fuzz_take(in, 2);
    put_le64(&header, fuzz_take(in, 8));
    put_le32((uint8_t *)&header + 8, (uint32_t)fuzz_take(in, 4));
    fake_net_deliver(&net, queue, &header, frame, len);
}

static void special(struct fuzz_guest *g, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    struct net_stats stats;
    switch (what % 5) {
    case 0:
    case 1:
        deliver(in);
        break;
    case 2:
        net.full = what & 0x80;
        fake_net_ready(&net, what >> 6 & 1);
        break;
    case 3:
        virtio_net_stats(g->device, &stats);
        break;
    case 4:
        net.gone |= what == 0xfd;
        fake_net_ready(&net, what >> 6 & 1);
        break;
    }
}

/* What was to be received and sent must work again, unless the network has gone. */
static void check(struct fuzz_guest *g, uint64_t rings)
{
    static const uint8_t frame[60] = {0x52, 0x54, 0, 1, 2, 3};
    const struct piece in_piece = {DRIVER_BUFFERS, 1526, true},
                       out_piece = {DRIVER_BUFFERS + 0x1000, 72, false},
                       command[] = {{DRIVER_BUFFERS + 0x2000, 3, false}, {DRIVER_BUFFERS + 0x2100, 1, true}};
    bool up = virtio_net_link_up(g->device);
    uint32_t id, len;
    unsigned sent = net.n_sent;
    /* Only what the driver accepts now counts. */
    fuzz_virtio_restart(g, rings | VIRTIO_FEATURE(17) | VIRTIO_FEATURE(18) | VIRTIO_FEATURE(22));
    net.full = false;
    memset(driver_ram(&g->f, DRIVER_BUFFERS, 0x3000), 0, 0x3000);
    driver_add(&g->queues[1], &out_piece, 1, false);
    driver_kick(&g->queues[1]);
    fuzz_expect(driver_used(&g->queues[1], &id, &len) && net.n_sent == sent + up, "output after a reset");
    driver_add(&g->queues[0], &in_piece, 1, false);
    driver_kick(&g->queues[0]);
    fake_net_deliver(&net, 0, NULL, frame, sizeof(frame));
    fuzz_expect(driver_used(&g->queues[0], &id, &len) == up, "input after a reset");
    driver_add(&g->queues[2 * PAIRS], command, 2, false);
    driver_kick(&g->queues[2 * PAIRS]);
    fuzz_expect(driver_used(&g->queues[2 * PAIRS], &id, &len) &&
                    !*driver_ram(&g->f, DRIVER_BUFFERS + 0x2100, 1),
                "a command after a reset");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_guest g;
    const unsigned all =
        NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN | NET_OFFLOAD_UFO;
    const struct net_features features = {.send = all, .receive = all, .mtu = 1500, .queues = PAIRS};
    struct fuzz_input in = {data, size};
    const struct virtio_net_config config = {.backend = &net.backend, .mac = {0x52, 0x54, 0, 1, 2, 3}};
    const struct device_class *class = device_class_find("virtio-net");
    g = (struct fuzz_guest){
        .type = VIRTIO_TYPE_NET, .n_queues = 2 * PAIRS + 1, .features = ~(~0ull << 24), .special = special};
    fixture_init(&g.f);
    fake_net_init(&net, &features);
    fuzz_expect(class && class->create(&g.device, &g.f.env, &config, NULL) == 0, "the device can be made");
    fuzz_expect(driver_find(&g.d, &g.f, g.type), "the device can be found");
    g.features &= driver_offered(&g.d);
    fuzz_virtio_actions(&g, &in);
    check(&g, RINGS_PACKED | RINGS_ALL);
    check(&g, RINGS_SPLIT);
    class->destroy(g.device);
    fixture_fini(&g.f);
    return 0;
}
