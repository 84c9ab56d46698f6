/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of the network card through its registers and queues, over a network of the test's own. */
#include "base/bytes.h"
#include "device/devices.h"
#include "device/virtio/net.h"
#include "driver.h"
#include "fake_net.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define F(bit)       VIRTIO_FEATURE(bit)
#define F_CSUM       F(0)
#define F_GUEST_CSUM F(1)
#define F_OFFLOADS   F(2)
#define F_MTU        F(3)
#define F_MAC        F(5)
#define F_GUEST_TSO4 F(7)
#define F_HOST_TSO4  F(11)
#define F_MRG        F(15)
#define F_STATUS     F(16)
#define F_CTRL       F(17)
#define F_CTRL_RX    F(18)
#define F_RX_EXTRA   F(20)
#define F_MQ         F(22)
#define F_SET_MAC    F(23)
#define F_ALL_CTRL   (F_CTRL | F_CTRL_RX | F_RX_EXTRA | F_SET_MAC | F_OFFLOADS)

#define PAIRS 2u

/* Each queue's buffers in a part of their own. */
#define RX_BUFFERS   DRIVER_BUFFERS
#define TX_BUFFERS   (DRIVER_BUFFERS + 0x80000)
#define CTRL_BUFFERS (DRIVER_BUFFERS + 0x100000)

static const uint8_t mac[NET_MAC_SIZE] = {0x52, 0x54, 0, 1, 2, 3};

struct rig {
    struct fixture f;
    struct device *device;
    struct driver d;
    struct driver_queue q[2 * PAIRS + 1];
    struct fake_net net;
    uint64_t rx_gpa[256]; /* where the receive buffer with this id is */
    unsigned link_downs;
    uint8_t frame[NET_FRAME_MAX]; /* to the card's address, with a pattern in it */
};

static void on_link_down(void *opaque)
{
    ((struct rig *)opaque)->link_downs++;
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    const struct device_class *class = device_class_find("virtio-net");
    const unsigned all = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6;
    const struct net_features features = {.send = all, .receive = all, .mtu = 9000, .queues = PAIRS};
    if (!r || !class)
        return -1;
    fixture_init(&r->f);
    fake_net_init(&r->net, &features);
    struct virtio_net_config config = {.backend = &r->net.backend, .link_down = on_link_down, .opaque = r};
    memcpy(config.mac, mac, sizeof(mac));
    if (class->create(&r->device, &r->f.env, &config, NULL) < 0 ||
        !driver_find(&r->d, &r->f, VIRTIO_TYPE_NET))
        return -1;
    for (unsigned i = 0; i < sizeof(r->frame); i++)
        r->frame[i] = (uint8_t)(i * 7 + (i >> 8));
    memcpy(r->frame, mac, sizeof(mac));
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    r->device->class->destroy(r->device);
    assert_false(r->net.started);
    fixture_fini(&r->f);
    free(r);
    return 0;
}

static void start(struct rig *r, uint64_t features)
{
    unsigned n = features & F_MQ ? 2 * PAIRS + 1 : 3;
    assert_true(driver_start(&r->d, features, r->q, n, 64));
}

static void add_rx(struct rig *r, unsigned n, uint32_t size)
{
    static unsigned next;
    for (unsigned i = 0; i < n; i++, next++) {
        const struct piece piece = {RX_BUFFERS + next % 64 * 0x2000, size, true};
        r->rx_gpa[driver_add(&r->q[0], &piece, 1, false)] = piece.gpa;
    }
    driver_kick(&r->q[0]);
}

/* Gathers a received frame: its header and bytes. The number of buffers it took. */
static unsigned take_rx(struct rig *r, struct net_header *header, uint8_t *bytes, size_t *len)
{
    uint8_t all[NET_BUFFER_MAX];
    uint32_t id, written;
    unsigned n = 0, wanted = 1;
    size_t done = 0;
    while (n < wanted) {
        if (!driver_used(&r->q[0], &id, &written))
            return 0;
        uint64_t gpa = r->rx_gpa[id];
        assert_true(done + written <= sizeof(all));
        memcpy(all + done, driver_ram(&r->f, gpa, written), written);
        for (uint32_t i = 0; i < written; i++)
            assert_true(r->f.marked[gpa + i]);
        done += written;
        if (!n++) {
            memcpy(header, all, sizeof(*header));
            wanted = le16toh(header->num_buffers);
        }
    }
    *len = done - sizeof(*header);
    memcpy(bytes, all + sizeof(*header), *len);
    return n;
}

static bool send_pieces(struct rig *r, unsigned pair, const struct piece *pieces, unsigned n)
{
    unsigned before = r->net.n_sent;
    driver_add(&r->q[2 * pair + 1], pieces, n, false);
    driver_kick(&r->q[2 * pair + 1]);
    return r->net.n_sent != before;
}

/* Sends the test's frame of `len` bytes. Whether it came out. */
static bool send(struct rig *r, const struct net_header *header, uint32_t len)
{
    uint32_t id, written;
    memcpy(driver_ram(&r->f, TX_BUFFERS, sizeof(*header)), header, sizeof(*header));
    memcpy(driver_ram(&r->f, TX_BUFFERS + 0x1000, len), r->frame, len);
    const struct piece pieces[] = {{TX_BUFFERS, sizeof(*header), false}, {TX_BUFFERS + 0x1000, len, false}};
    bool sent = send_pieces(r, 0, pieces, len ? 2 : 1);
    assert_true(driver_used(&r->q[1], &id, &written));
    assert_int_equal(written, 0);
    return sent;
}

static void test_configuration(void **state)
{
    struct rig *r = *state;
    struct io_space *mmio = r->f.env.mmio;
    uint64_t wanted = F_CSUM | F_GUEST_CSUM | F_MTU | F_MAC | F_GUEST_TSO4 | F(8) | F_HOST_TSO4 | F(12) |
                      F_MRG | F_STATUS | F_MQ | F_ALL_CTRL;
    assert_int_equal(driver_offered(&r->d) & ~(RINGS_PACKED | RINGS_ALL), wanted);
    assert_int_equal(driver_read(&r->d, C_NUM_QUEUES, 2), 2 * PAIRS + 1);
    start(r, RINGS_SPLIT | wanted);
    for (unsigned i = 0; i < NET_MAC_SIZE; i++)
        assert_int_equal(io_space_read(mmio, r->d.config + i, 1), mac[i]);
    assert_int_equal(io_space_read(mmio, r->d.config + 6, 2), 1);
    assert_int_equal(io_space_read(mmio, r->d.config + 8, 2), PAIRS);
    assert_int_equal(io_space_read(mmio, r->d.config + 10, 2), 9000);
    assert_int_equal(r->net.offloads, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6);
    /* A reset takes back what the driver had agreed on. */
    driver_write(&r->d, C_STATUS, 1, 0);
    assert_int_equal(r->net.offloads, 0);
    assert_int_equal(r->net.queues, 1);
}

static void test_send(void **state)
{
    struct rig *r = *state;
    static const uint64_t rings[] = {RINGS_SPLIT, RINGS_SPLIT | RINGS_ALL, RINGS_PACKED,
                                     RINGS_PACKED | RINGS_ALL};
    for (unsigned i = 0; i < ARRAY_SIZE(rings); i++) {
        start(r, rings[i]);
        for (unsigned k = 0; k < 150; k++) {
            const struct net_header header = {0};
            uint32_t len = 14 + k * 59;
            assert_true(send(r, &header, len));
            assert_int_equal(r->net.sent_len, NET_HEADER_SIZE + len);
            assert_memory_equal(r->net.sent + NET_HEADER_SIZE, r->frame, len);
        }
    }
    struct net_stats stats;
    virtio_net_stats(r->device, &stats);
    assert_int_equal(stats.tx_packets, 600);
    assert_int_equal(stats.tx_drops, 0);
}

/* The header's own framing does not count (5.1.6.2): in one piece with the frame, or cut through. */
static void test_send_framing(void **state)
{
    struct rig *r = *state;
    start(r, RINGS_SPLIT);
    memset(driver_ram(&r->f, TX_BUFFERS, 12), 0, 12);
    memcpy(driver_ram(&r->f, TX_BUFFERS + 12, 100), r->frame, 100);
    const struct piece whole[] = {{TX_BUFFERS, 112, false}};
    const struct piece cut[] = {
        {TX_BUFFERS, 5, false}, {TX_BUFFERS + 5, 20, false}, {TX_BUFFERS + 25, 87, false}};
    assert_true(send_pieces(r, 0, whole, 1));
    assert_int_equal(r->net.sent_len, 112);
    assert_memory_equal(r->net.sent + 12, r->frame, 100);
    memset(r->net.sent, 0, sizeof(r->net.sent));
    assert_true(send_pieces(r, 0, cut, 3));
    assert_int_equal(r->net.sent_len, 112);
    assert_memory_equal(r->net.sent + 12, r->frame, 100);
}

/* A header that asks for what was not agreed on, or points out of its frame, costs the frame and no more. */
static void test_hostile_headers(void **state)
{
    struct rig *r = *state;
    static const struct {
        struct net_header header;
        uint32_t len;
        bool plain, csum, tso; /* sent with these features agreed on */
    } cases[] = {
        {{0}, 13, false, false, false},
        {{0}, 0, false, false, false},
        {{0}, 14, true, true, true},
        {{0}, NET_FRAME_MAX, true, true, true},
        {{0}, NET_FRAME_MAX + 1, false, false, false},
        {{.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16}, 52, false, true, true},
        {{.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16}, 51, false, false, false},
        {{.flags = NET_NEEDS_CSUM, .csum_start = 13, .csum_offset = 16}, 100, false, false, false},
        {{.flags = NET_NEEDS_CSUM, .csum_start = 0xffff, .csum_offset = 0xffff}, 100, false, false, false},
        {{.flags = NET_NEEDS_CSUM, .csum_start = 14, .csum_offset = 0xffff}, 100, false, false, false},
        {{.gso_type = NET_GSO_TCPV4, .gso_size = 1448}, 3000, false, false, false},
        {{.flags = NET_NEEDS_CSUM,
          .gso_type = NET_GSO_TCPV4,
          .csum_start = 34,
          .csum_offset = 16,
          .gso_size = 1448},
         3000,
         false,
         false,
         true},
        {{.flags = NET_NEEDS_CSUM, .gso_type = NET_GSO_TCPV4, .csum_start = 34, .csum_offset = 16},
         3000,
         false,
         false,
         false},
        {{.flags = NET_NEEDS_CSUM,
          .gso_type = NET_GSO_TCPV6,
          .csum_start = 54,
          .csum_offset = 16,
          .gso_size = 1448},
         3000,
         false,
         false,
         false},
        {{.flags = NET_NEEDS_CSUM,
          .gso_type = NET_GSO_UDP,
          .csum_start = 34,
          .csum_offset = 6,
          .gso_size = 1448},
         3000,
         false,
         false,
         false},
        {{.flags = NET_NEEDS_CSUM,
          .gso_type = NET_GSO_TCPV4 | NET_GSO_ECN,
          .csum_start = 34,
          .csum_offset = 16,
          .gso_size = 1448},
         3000,
         false,
         false,
         false},
        {{.flags = NET_NEEDS_CSUM, .gso_type = 2, .csum_start = 34, .csum_offset = 16, .gso_size = 1448},
         3000,
         false,
         false,
         false},
    };
    static const uint64_t features[] = {0, F_CSUM, F_CSUM | F_HOST_TSO4};
    uint64_t drops = 0;
    for (unsigned f = 0; f < ARRAY_SIZE(features); f++) {
        start(r, RINGS_SPLIT | features[f]);
        for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
            bool expected = f == 0 ? cases[i].plain : f == 1 ? cases[i].csum : cases[i].tso;
            assert_int_equal(send(r, &cases[i].header, cases[i].len), expected);
            drops += !expected;
        }
        const struct piece half = {TX_BUFFERS, 11, false}, none = {TX_BUFFERS, 100, true};
        assert_false(send_pieces(r, 0, &half, 1));
        assert_false(send_pieces(r, 0, &none, 1));
        drops += 2;
        assert_false(driver_status(&r->d) & VIRTIO_STATUS_NEEDS_RESET);
    }
    struct net_stats stats;
    virtio_net_stats(r->device, &stats);
    assert_int_equal(stats.tx_drops, drops);
}

/* What the network can't take now waits, is sent once and in order, and is forgotten by a reset. */
static void test_send_flow_control(void **state)
{
    struct rig *r = *state;
    uint32_t id, len;
    start(r, RINGS_SPLIT);
    r->net.full = true;
    memset(driver_ram(&r->f, TX_BUFFERS, 12), 0, 12);
    const struct piece a = {TX_BUFFERS, 100, false}, b = {TX_BUFFERS, 200, false};
    assert_false(send_pieces(r, 0, &a, 1));
    assert_false(send_pieces(r, 0, &b, 1));
    assert_false(driver_used(&r->q[1], &id, &len));
    assert_true(r->net.watch_send[0]);
    r->net.full = false;
    fake_net_ready(&r->net, 0);
    assert_int_equal(r->net.n_sent, 2);
    assert_int_equal(r->net.sent_len, 200);
    assert_true(driver_used(&r->q[1], &id, &len) && driver_used(&r->q[1], &id, &len));
    assert_false(r->net.watch_send[0]);
    r->net.full = true;
    assert_false(send_pieces(r, 0, &a, 1));
    driver_write(&r->d, C_STATUS, 1, 0);
    r->net.full = false;
    fake_net_ready(&r->net, 0);
    assert_int_equal(r->net.n_sent, 2);
    start(r, RINGS_SPLIT);
    assert_true(send_pieces(r, 0, &b, 1));
    assert_int_equal(r->net.n_sent, 3);
}

static void receive_sizes(struct rig *r, uint64_t rings)
{
    static const size_t sizes[] = {14, 60, 1514, 1515, 3000, 9014, 65000};
    struct net_header header;
    uint8_t got[NET_FRAME_MAX];
    size_t len;
    start(r, rings | F_MRG);
    add_rx(r, 60, 1526);
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        fixture_clear_marks(&r->f);
        fake_net_deliver(&r->net, 0, NULL, r->frame, sizes[i]);
        unsigned n = take_rx(r, &header, got, &len);
        assert_int_equal(n, (sizes[i] + 12 + 1525) / 1526);
        assert_int_equal(len, sizes[i]);
        assert_memory_equal(got, r->frame, len);
        assert_int_equal(header.flags | header.gso_type | header.gso_size, 0);
        add_rx(r, n, 1526);
    }
}

static void test_receive(void **state)
{
    struct rig *r = *state;
    struct net_stats stats;
    receive_sizes(r, RINGS_SPLIT);
    receive_sizes(r, RINGS_SPLIT | RINGS_ALL);
    receive_sizes(r, RINGS_PACKED);
    receive_sizes(r, RINGS_PACKED | RINGS_ALL);
    virtio_net_stats(r->device, &stats);
    assert_int_equal(stats.rx_packets, 28);
    assert_int_equal(stats.rx_drops, 0);
}

/* Without the feature a frame is in one buffer or nowhere. */
static void test_receive_without_merging(void **state)
{
    struct rig *r = *state;
    struct net_header header;
    struct net_stats stats;
    uint8_t got[NET_FRAME_MAX];
    size_t len;
    start(r, RINGS_SPLIT);
    add_rx(r, 2, 1526);
    fake_net_deliver(&r->net, 0, NULL, r->frame, 1515);
    virtio_net_stats(r->device, &stats);
    assert_int_equal(stats.rx_drops, 1);
    fake_net_deliver(&r->net, 0, NULL, r->frame, 1514);
    assert_int_equal(take_rx(r, &header, got, &len), 1);
    assert_int_equal(header.num_buffers, 1);
    assert_int_equal(len, 1514);
}

/* A frame that finds too few buffers takes those that there are only when there are enough. */
static void test_receive_flow_control(void **state)
{
    struct rig *r = *state;
    struct net_header header;
    uint8_t got[NET_FRAME_MAX];
    uint32_t id, written;
    size_t len;
    start(r, RINGS_SPLIT | F_MRG);
    fake_net_deliver(&r->net, 0, NULL, r->frame, 4000);
    assert_int_equal(r->net.waiting_len[0], 0); /* the card has it */
    assert_false(r->net.watch_receive[0]);
    add_rx(r, 2, 1526);
    assert_false(driver_used(&r->q[0], &id, &written));
    assert_true(driver_kick_wanted(&r->q[0], 1));
    fake_net_deliver(&r->net, 0, NULL, r->frame, 100); /* waits outside */
    assert_int_not_equal(r->net.waiting_len[0], 0);
    add_rx(r, 2, 1526);
    assert_int_equal(take_rx(r, &header, got, &len), 3);
    assert_int_equal(len, 4000);
    assert_memory_equal(got, r->frame, len);
    assert_int_equal(take_rx(r, &header, got, &len), 1);
    assert_int_equal(len, 100);
    assert_true(r->net.watch_receive[0]);
}

/* A frame that no number of buffers holds is dropped; the buffers that were gathered serve the next. */
static void test_receive_in_tiny_buffers(void **state)
{
    struct rig *r = *state;
    struct net_header header;
    struct net_stats stats;
    uint8_t got[NET_FRAME_MAX];
    size_t len;
    start(r, RINGS_SPLIT | F_MRG);
    add_rx(r, 64, 20);
    fake_net_deliver(&r->net, 0, NULL, r->frame, 64 * 20 - 11);
    virtio_net_stats(r->device, &stats);
    assert_int_equal(stats.rx_drops, 1);
    fake_net_deliver(&r->net, 0, NULL, r->frame, 100);
    assert_int_equal(take_rx(r, &header, got, &len), 6);
    assert_int_equal(len, 100);
    fake_net_deliver(&r->net, 0, NULL, r->frame, 58 * 20 - 12);
    assert_int_equal(take_rx(r, &header, got, &len), 58);
    assert_memory_equal(got, r->frame, len);
}

/* The header says what was agreed on and no more; one that breaks that is not believed. */
static void test_receive_headers(void **state)
{
    struct rig *r = *state;
    struct net_header got_header;
    uint8_t got[NET_FRAME_MAX];
    size_t len;
    const struct net_header valid = {.flags = NET_DATA_VALID, .csum_start = 77},
                            partial = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16},
                            outside = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 0x7000},
                            segment = {.flags = NET_NEEDS_CSUM,
                                       .gso_type = NET_GSO_TCPV4,
                                       .hdr_len = 54,
                                       .gso_size = 1000,
                                       .csum_start = 34,
                                       .csum_offset = 16};
    start(r, RINGS_SPLIT | F_MRG);
    add_rx(r, 40, 1526);
    fake_net_deliver(&r->net, 0, &valid, r->frame, 100);
    assert_int_equal(take_rx(r, &got_header, got, &len), 1);
    assert_int_equal(got_header.flags | got_header.csum_start, 0);
    fake_net_deliver(&r->net, 0, &partial, r->frame, 100);
    assert_int_equal(take_rx(r, &got_header, got, &len), 0);

    start(r, RINGS_SPLIT | F_MRG | F_GUEST_CSUM);
    add_rx(r, 40, 1526);
    fake_net_deliver(&r->net, 0, &valid, r->frame, 100);
    assert_int_equal(take_rx(r, &got_header, got, &len), 1);
    assert_int_equal(got_header.flags, NET_DATA_VALID);
    assert_int_equal(got_header.csum_start, 0);
    fake_net_deliver(&r->net, 0, &partial, r->frame, 100);
    assert_int_equal(take_rx(r, &got_header, got, &len), 1);
    assert_int_equal(got_header.flags, NET_NEEDS_CSUM);
    assert_int_equal(got_header.csum_offset, 16);
    fake_net_deliver(&r->net, 0, &outside, r->frame, 100);
    assert_int_equal(take_rx(r, &got_header, got, &len), 0);
    fake_net_deliver(&r->net, 0, &segment, r->frame, 5000);
    assert_int_equal(take_rx(r, &got_header, got, &len), 0);

    start(r, RINGS_SPLIT | F_MRG | F_GUEST_CSUM | F_GUEST_TSO4);
    add_rx(r, 40, 1526);
    fake_net_deliver(&r->net, 0, &segment, r->frame, 5000);
    assert_int_equal(take_rx(r, &got_header, got, &len), 4);
    assert_int_equal(got_header.gso_type, NET_GSO_TCPV4);
    assert_int_equal(got_header.gso_size, 1000);
}

/* Nothing of before a reset comes after it, and no buffer of before it is written. */
static void test_reset_forgets(void **state)
{
    struct rig *r = *state;
    struct net_header header;
    uint8_t got[NET_FRAME_MAX];
    size_t len;
    start(r, RINGS_SPLIT | F_MRG);
    add_rx(r, 1, 1526);
    memset(driver_ram(&r->f, RX_BUFFERS, 0x80000), 0xee, 0x80000);
    fake_net_deliver(&r->net, 0, NULL, r->frame, 4000); /* held, with the one buffer */
    driver_write(&r->d, C_STATUS, 1, 0);
    fake_net_deliver(&r->net, 0, NULL, r->frame, 200); /* for a driver that is gone */
    fixture_clear_marks(&r->f);
    start(r, RINGS_SPLIT | F_MRG);
    add_rx(r, 4, 1526);
    assert_int_equal(take_rx(r, &header, got, &len), 0);
    const uint8_t *ram = driver_ram(&r->f, RX_BUFFERS, 0x80000);
    for (unsigned i = 0; i < 0x80000; i++)
        assert_int_equal(ram[i], 0xee);
    fake_net_deliver(&r->net, 0, NULL, r->frame, 300);
    assert_int_equal(take_rx(r, &header, got, &len), 1);
    assert_int_equal(len, 300);
}

static void test_queue_reset(void **state)
{
    struct rig *r = *state;
    struct net_header header;
    uint8_t got[NET_FRAME_MAX];
    size_t len;
    start(r, RINGS_SPLIT | RINGS_ALL | F_MRG);
    add_rx(r, 1, 1526);
    fake_net_deliver(&r->net, 0, NULL, r->frame, 4000);
    driver_write(&r->d, C_QUEUE_SELECT, 2, 0);
    driver_write(&r->d, C_QUEUE_RESET, 2, 1);
    driver_queue_init(&r->q[0], &r->d, 0, 64);
    fixture_run_loop(&r->f);
    add_rx(r, 4, 1526);
    fake_net_deliver(&r->net, 0, NULL, r->frame, 300);
    assert_int_equal(take_rx(r, &header, got, &len), 1);
    assert_int_equal(len, 300);
}

static void test_link_down(void **state)
{
    struct rig *r = *state;
    const struct net_header header = {0};
    start(r, RINGS_SPLIT | F_STATUS);
    fixture_msix_vector(&r->f, r->d.devfn, 0, 0x55);
    fixture_msix_control(&r->f, r->d.devfn, 0x8000);
    driver_write(&r->d, C_CONFIG_VECTOR, 2, 0);
    assert_true(virtio_net_link_up(r->device));
    r->net.gone = true;
    fake_net_ready(&r->net, 0);
    assert_false(virtio_net_link_up(r->device));
    assert_int_equal(r->link_downs, 1);
    assert_int_equal(r->f.n_messages, 1);
    assert_int_equal(io_space_read(r->f.env.mmio, r->d.config + 6, 2), 0);
    /* What is sent is lost, and its buffer comes back. */
    assert_false(send(r, &header, 100));
    assert_false(r->net.watch_receive[0]);
    start(r, RINGS_SPLIT | F_STATUS);
    assert_int_equal(io_space_read(r->f.env.mmio, r->d.config + 6, 2), 0);
    assert_int_equal(r->link_downs, 1);
}

/* A command with its data; what the device acknowledged. */
static uint8_t control(struct rig *r, unsigned queue, uint8_t class, uint8_t command, const void *data,
                       uint32_t len)
{
    uint32_t id, written;
    uint8_t *out = driver_ram(&r->f, CTRL_BUFFERS, 2 + len),
            *ack = driver_ram(&r->f, CTRL_BUFFERS + 0x8000, 1);
    out[0] = class;
    out[1] = command;
    memcpy(out + 2, data, len);
    *ack = 0xff;
    const struct piece pieces[] = {{CTRL_BUFFERS, 2 + len, false}, {CTRL_BUFFERS + 0x8000, 1, true}};
    driver_add(&r->q[queue], pieces, 2, false);
    driver_kick(&r->q[queue]);
    assert_true(driver_used(&r->q[queue], &id, &written));
    assert_int_equal(written, 1);
    return *ack;
}

/* Whether a frame to `to` is received. */
static bool passes(struct rig *r, const uint8_t *to)
{
    struct net_header header;
    uint8_t got[NET_FRAME_MAX], frame[64] = {0};
    size_t len;
    memcpy(frame, to, NET_MAC_SIZE);
    fake_net_deliver(&r->net, 0, NULL, frame, sizeof(frame));
    if (!take_rx(r, &header, got, &len))
        return false;
    add_rx(r, 1, 1526);
    return true;
}

static void test_filter(void **state)
{
    struct rig *r = *state;
    static const uint8_t all[6] = {255, 255, 255, 255, 255, 255}, other[6] = {0x52, 0x54, 9, 9, 9, 9},
                         group[6] = {1, 0, 0x5e, 0, 0, 1}, on = 1, off = 0;
    start(r, RINGS_SPLIT | F_MRG | F_ALL_CTRL);
    add_rx(r, 32, 1526);
    assert_true(passes(r, other));
    assert_int_equal(control(r, 2, 0, 0, &off, 1), 0);
    assert_false(passes(r, other) || passes(r, group));
    assert_true(passes(r, mac) && passes(r, all));
    assert_int_equal(control(r, 2, 0, 1, &on, 1), 0); /* all multicast */
    assert_true(passes(r, group) && !passes(r, other));
    assert_int_equal(control(r, 2, 0, 3, &on, 1), 0); /* no multicast */
    assert_false(passes(r, group));
    assert_int_equal(control(r, 2, 0, 3, &off, 1), 0);
    assert_int_equal(control(r, 2, 0, 1, &off, 1), 0);
    assert_int_equal(control(r, 2, 0, 5, &on, 1), 0); /* no broadcast */
    assert_false(passes(r, all));
    assert_int_equal(control(r, 2, 0, 2, &on, 1), 0); /* all unicast */
    assert_true(passes(r, other));
    assert_int_equal(control(r, 2, 0, 4, &on, 1), 0); /* no unicast */
    assert_false(passes(r, other) || passes(r, mac));
    assert_int_equal(control(r, 2, 0, 4, &off, 1), 0);
    assert_int_equal(control(r, 2, 0, 2, &off, 1), 0);

    uint8_t tables[2 * (4 + 6)] = {1, 0, 0, 0, 0x52, 0x54, 9, 9, 9, 9, 1, 0, 0, 0, 1, 0, 0x5e, 0, 0, 1};
    assert_int_equal(control(r, 2, 1, 0, tables, sizeof(tables)), 0);
    assert_true(passes(r, other) && passes(r, group));
    /* Tables that are not whole change nothing. */
    for (uint32_t len = 0; len < sizeof(tables); len++)
        assert_int_equal(control(r, 2, 1, 0, tables, len), 1);
    put_le32(tables, 0xffffffff);
    assert_int_equal(control(r, 2, 1, 0, tables, sizeof(tables)), 1);
    put_le32(tables, 0x2aaaaaaa); /* times 6 is less than it */
    assert_int_equal(control(r, 2, 1, 0, tables, sizeof(tables)), 1);
    assert_true(passes(r, other) && passes(r, group));
    /* More addresses than are kept: then all pass. */
    uint8_t many[4 + 65 * 6 + 4] = {65};
    assert_int_equal(control(r, 2, 1, 0, many, sizeof(many)), 0);
    assert_true(passes(r, other) && !passes(r, group));
    memset(many, 0, sizeof(many));
    assert_int_equal(control(r, 2, 1, 0, many, 8), 0);
    assert_false(passes(r, other) || passes(r, group));
    /* A reset is as power-on: all is received. */
    start(r, RINGS_SPLIT | F_MRG);
    add_rx(r, 32, 1526);
    assert_true(passes(r, other));
}

static void test_address(void **state)
{
    struct rig *r = *state;
    static const uint8_t fresh[6] = {0x52, 0x54, 7, 7, 7, 7}, multicast[6] = {0x53, 0x54, 7, 7, 7, 7},
                         off = 0;
    start(r, RINGS_SPLIT | F_MRG | F_ALL_CTRL);
    add_rx(r, 32, 1526);
    control(r, 2, 0, 0, &off, 1);
    assert_int_equal(control(r, 2, 1, 1, multicast, 6), 1);
    assert_int_equal(control(r, 2, 1, 1, fresh, 5), 1);
    assert_int_equal(control(r, 2, 1, 1, fresh, 6), 0);
    assert_true(passes(r, fresh) && !passes(r, mac));
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(io_space_read(r->f.env.mmio, r->d.config + i, 1), fresh[i]);
    driver_write(&r->d, C_STATUS, 1, 0);
    assert_int_equal(io_space_read(r->f.env.mmio, r->d.config, 1), mac[0]);
    assert_int_equal(io_space_read(r->f.env.mmio, r->d.config + 2, 1), mac[2]);
}

static void test_offloads_command(void **state)
{
    struct rig *r = *state;
    uint8_t bits[8];
    start(r, RINGS_SPLIT | F_ALL_CTRL | F_GUEST_CSUM | F_GUEST_TSO4);
    assert_int_equal(r->net.offloads, NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4);
    put_le64(bits, F_GUEST_CSUM);
    assert_int_equal(control(r, 2, 5, 0, bits, 8), 0);
    assert_int_equal(r->net.offloads, NET_OFFLOAD_CSUM);
    put_le64(bits, F_GUEST_CSUM | F(8)); /* was not agreed on */
    assert_int_equal(control(r, 2, 5, 0, bits, 8), 1);
    assert_int_equal(control(r, 2, 5, 0, bits, 7), 1);
    assert_int_equal(r->net.offloads, NET_OFFLOAD_CSUM);
}

static void test_queues(void **state)
{
    struct rig *r = *state;
    uint8_t n[2] = {2, 0};
    uint32_t id, len;
    start(r, RINGS_SPLIT | F_MRG | F_ALL_CTRL | F_MQ);
    const unsigned q = 2 * PAIRS;
    assert_int_equal(control(r, q, 4, 0, n, 2), 0);
    assert_int_equal(r->net.queues, 2);
    const struct piece rx = {RX_BUFFERS, 1526, true}, tx = {TX_BUFFERS, 100, false};
    driver_add(&r->q[2], &rx, 1, false);
    driver_kick(&r->q[2]);
    fake_net_deliver(&r->net, 1, NULL, r->frame, 100);
    assert_true(driver_used(&r->q[2], &id, &len));
    assert_int_equal(len, 112);
    memset(driver_ram(&r->f, TX_BUFFERS, 12), 0, 12);
    assert_true(send_pieces(r, 1, &tx, 1));
    assert_int_equal(r->net.sent_queue, 1);
    static const uint8_t bad[][2] = {{0, 0}, {3, 0}, {1, 1}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(control(r, q, 4, 0, bad[i], 2), 1);
    assert_int_equal(control(r, q, 4, 0, n, 1), 1);
    n[0] = 1;
    assert_int_equal(control(r, q, 4, 0, n, 2), 0);
    assert_int_equal(r->net.queues, 1);
    assert_false(r->net.watch_receive[1]);
}

/* A frame waits in a pair that is switched off; its buffers come meanwhile. */
static void test_queue_off_and_on(void **state)
{
    struct rig *r = *state;
    uint8_t n[2] = {2, 0};
    uint32_t id, len;
    start(r, RINGS_SPLIT | RINGS_ALL | F_MRG | F_ALL_CTRL | F_MQ);
    const unsigned q = 2 * PAIRS;
    assert_int_equal(control(r, q, 4, 0, n, 2), 0);
    fake_net_deliver(&r->net, 1, NULL, r->frame, 100);
    assert_int_equal(r->net.waiting_len[1], 0); /* the card has it */
    n[0] = 1;
    assert_int_equal(control(r, q, 4, 0, n, 2), 0);
    const struct piece rx = {RX_BUFFERS, 1526, true};
    for (unsigned i = 0; i < 2; i++) {
        driver_add(&r->q[2], &rx, 1, false);
        if (driver_kick_wanted(&r->q[2], 1))
            driver_kick(&r->q[2]);
    }
    n[0] = 2;
    assert_int_equal(control(r, q, 4, 0, n, 2), 0);
    fixture_run_loop(&r->f);
    assert_true(driver_used(&r->q[2], &id, &len));
    assert_int_equal(len, 112);
    fake_net_deliver(&r->net, 1, NULL, r->frame, 200);
    assert_true(driver_used(&r->q[2], &id, &len));
    assert_int_equal(len, 212);
}

static void test_unknown_commands(void **state)
{
    struct rig *r = *state;
    static const uint8_t data[8] = {1};
    start(r, RINGS_SPLIT | F_CTRL);
    static const uint8_t bad[][2] = {{0, 0}, {0, 6}, {1, 0}, {1, 1}, {1, 2},
                                     {2, 0}, {3, 0}, {4, 0}, {5, 0}, {9, 9}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(control(r, 2, bad[i][0], bad[i][1], data, 1), 1);
    /* Without room for an answer, and without a command. */
    uint32_t id, len;
    const struct piece mute = {CTRL_BUFFERS, 3, false}, empty = {CTRL_BUFFERS, 1, true};
    driver_add(&r->q[2], &mute, 1, false);
    driver_add(&r->q[2], &empty, 1, false);
    driver_kick(&r->q[2]);
    assert_true(driver_used(&r->q[2], &id, &len));
    assert_int_equal(len, 0);
    assert_true(driver_used(&r->q[2], &id, &len));
    assert_int_equal(len, 1);
    assert_int_equal(*driver_ram(&r->f, CTRL_BUFFERS, 1), 1);
    assert_false(driver_status(&r->d) & VIRTIO_STATUS_NEEDS_RESET);
}

static void test_needs_backend(void **state)
{
    struct rig *r = *state;
    struct device *other = NULL;
    assert_int_equal(virtio_net_class.create(&other, &r->f.env, NULL, NULL), -EINVAL);
    assert_null(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_configuration, setup, teardown),
        cmocka_unit_test_setup_teardown(test_send, setup, teardown),
        cmocka_unit_test_setup_teardown(test_send_framing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_headers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_send_flow_control, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receive, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receive_without_merging, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receive_flow_control, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receive_in_tiny_buffers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_receive_headers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_forgets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_link_down, setup, teardown),
        cmocka_unit_test_setup_teardown(test_filter, setup, teardown),
        cmocka_unit_test_setup_teardown(test_address, setup, teardown),
        cmocka_unit_test_setup_teardown(test_offloads_command, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queues, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queue_off_and_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_commands, setup, teardown),
        cmocka_unit_test_setup_teardown(test_needs_backend, setup, teardown),
    };
    return cmocka_run_group_tests_name("virtio net", tests, NULL, NULL);
}
