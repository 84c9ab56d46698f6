/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of what all backends share: headers, checksums, the frames of a guest, addresses made of names. */
#include "net/net.h"

#include "base/bytes.h"
#include "base/error.h"
#include "net/checksum.h"
#include "net/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* As RFC 1071 defines it, word by word. */
static uint16_t plain_sum(const uint8_t *p, size_t len)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static void test_checksum(void **state)
{
    static const uint8_t example[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}; /* of RFC 1071 */
    static uint8_t bytes[66000];
    assert_int_equal(checksum_sum(example, sizeof(example)), 0xddf2);
    assert_int_equal(checksum_sum(example, 0), 0);
    srand(1);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(rand() >> 8);
    for (size_t len = 0; len < 600; len++)
        for (size_t at = 0; at < 8; at++)
            assert_int_equal(checksum_sum(bytes + at, len), plain_sum(bytes + at, len));
    assert_int_equal(checksum_sum(bytes, sizeof(bytes)), plain_sum(bytes, sizeof(bytes)));
    memset(bytes, 0xff, sizeof(bytes));
    assert_int_equal(checksum_sum(bytes, 65535), plain_sum(bytes, 65535));
}

/* A TCP segment of `payload` bytes in IPv4 from 10.0.2.15 to `to`, without its checksum as an offloading
 * guest leaves it. Its length. */
static size_t make_tcp4(uint8_t *frame, uint32_t to, size_t payload)
{
    size_t tcp = 20 + payload;
    uint8_t *ip = frame + NET_ETHER_SIZE, *t = ip + 20, pseudo[12] = {0};
    memset(frame, 0, NET_ETHER_SIZE + 40);
    put_be16(frame + 12, 0x0800);
    ip[0] = 0x45;
    put_be16(ip + 2, (uint16_t)(20 + tcp));
    ip[8] = 64;
    ip[9] = 6;
    put_be32(ip + 12, 0x0a00020f);
    put_be32(ip + 16, to);
    put_be16(ip + 10, (uint16_t)~plain_sum(ip, 20));
    put_be16(t, 40000);
    put_be16(t + 2, 80);
    t[12] = 0x50;
    for (size_t i = 0; i < payload; i++)
        t[20 + i] = (uint8_t)(i * 13);
    memcpy(pseudo, ip + 12, 8);
    pseudo[9] = 6;
    put_be16(pseudo + 10, (uint16_t)tcp);
    put_be16(t + 16, plain_sum(pseudo, sizeof(pseudo)));
    return NET_ETHER_SIZE + 20 + tcp;
}

/* Whether the segment's checksum is right. */
static bool tcp4_sum_is_right(const uint8_t *frame, size_t len)
{
    const uint8_t *ip = frame + NET_ETHER_SIZE;
    uint8_t pseudo[12] = {0};
    memcpy(pseudo, ip + 12, 8);
    pseudo[9] = 6;
    put_be16(pseudo + 10, (uint16_t)(len - NET_ETHER_SIZE - 20));
    uint32_t sum =
        plain_sum(pseudo, sizeof(pseudo)) + (uint32_t)plain_sum(ip + 20, len - NET_ETHER_SIZE - 20);
    return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

static void test_checksums_are_filled_in(void **state)
{
    static uint8_t frame[NET_FRAME_MAX];
    static const size_t payloads[] = {0, 1, 2, 7, 1460, 1461, 9000, 65480};
    const struct net_header plain = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16},
                            segment = {.flags = NET_NEEDS_CSUM,
                                       .csum_start = 34,
                                       .csum_offset = 16,
                                       .gso_type = NET_GSO_TCPV4,
                                       .gso_size = 1448},
                            none = {0};
    for (unsigned i = 0; i < ARRAY_SIZE(payloads); i++) {
        size_t len = make_tcp4(frame, 0x0a000202, payloads[i]);
        assert_true(frame_prepare(&none, frame, len));
        assert_false(tcp4_sum_is_right(frame, len));
        assert_true(frame_prepare(i % 2 ? &segment : &plain, frame, len));
        assert_true(tcp4_sum_is_right(frame, len));
    }
    /* A sum of zero is written the other way, for UDP's sake (RFC 768). */
    memset(frame, 0, 64);
    put_be16(frame + 40, 0xffff);
    const struct net_header zero = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 10};
    assert_true(frame_prepare(&zero, frame, 64));
    assert_int_equal(get_be16(frame + 44), 0xffff);
}

/* Nothing beyond the frame is read or written, whatever the header says. */
static void test_hostile_frames(void **state)
{
    srand(2);
    for (unsigned i = 0; i < 200000; i++) {
        size_t len = (size_t)rand() % 120;
        uint8_t *frame = malloc(len + 1); /* the sanitizer watches its end */
        struct net_header header;
        assert_non_null(frame);
        for (size_t k = 0; k <= len; k++)
            frame[k] = (uint8_t)(rand() >> 8);
        frame[len] = 0xa5;
        header = (struct net_header){.flags = (uint8_t)(rand() & 3),
                                     .gso_type = (uint8_t)(rand() % 6),
                                     .gso_size = (uint16_t)(rand() & 1),
                                     .csum_start = (uint16_t)(rand() % 130),
                                     .csum_offset = (uint16_t)(rand() % 130)};
        bool taken = frame_prepare(&header, frame, len);
        if (len < NET_ETHER_SIZE || (header.flags & 1 && header.csum_start + header.csum_offset + 2u > len))
            assert_false(taken);
        assert_int_equal(frame[len], 0xa5);
        free(frame);
    }
}

static void test_loopback_is_out_of_reach(void **state)
{
    static uint8_t frame[128];
    const struct net_header none = {0};
    static const struct {
        uint32_t to;
        bool passes;
    } cases4[] = {{0x7f000001, false}, {0x7fffffff, false}, {0x7f000035, false}, {0, false},
                  {0x0a000202, true},  {0x08080808, true},  {0x80000001, true},  {0xffffffff, true}};
    for (unsigned i = 0; i < ARRAY_SIZE(cases4); i++)
        assert_int_equal(frame_prepare(&none, frame, make_tcp4(frame, cases4[i].to, 10)), cases4[i].passes);
    static const struct {
        uint8_t to[16];
        bool passes;
    } cases6[] = {{{[15] = 1}, false},
                  {{0}, false},
                  {{[10] = 0xff, 0xff, 127, 0, 0, 1}, false},
                  {{[12] = 127, 0, 0, 1}, false},
                  {{0xfe, 0xc0, [15] = 2}, true},
                  {{0xff, 2, [15] = 1}, true},
                  {{0x20, 1, [15] = 1}, true}};
    for (unsigned i = 0; i < ARRAY_SIZE(cases6); i++) {
        memset(frame, 0, sizeof(frame));
        put_be16(frame + 12, 0x86dd);
        frame[14] = 0x60;
        memcpy(frame + 38, cases6[i].to, 16);
        assert_int_equal(frame_prepare(&none, frame, 54), cases6[i].passes);
        /* Cut off before the address's end it goes nowhere, so it may pass. */
        assert_true(frame_prepare(&none, frame, 53));
    }
}

static void test_headers(void **state)
{
    const struct net_header segment = {.flags = NET_NEEDS_CSUM,
                                       .csum_start = 34,
                                       .csum_offset = 16,
                                       .gso_type = NET_GSO_TCPV4 | NET_GSO_ECN,
                                       .gso_size = 1448};
    unsigned all = NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_ECN;
    assert_true(net_header_valid(&segment, 3000, all));
    assert_false(net_header_valid(&segment, 3000, all & ~NET_OFFLOAD_ECN));
    assert_false(net_header_valid(&segment, 3000, all & ~NET_OFFLOAD_TSO4));
    assert_false(net_header_valid(&segment, 3000, all & ~NET_OFFLOAD_CSUM));
    struct net_header bad = segment;
    bad.gso_type = NET_GSO_UDP | NET_GSO_ECN;
    assert_false(net_header_valid(&bad, 3000, ~0u));
    bad.gso_type = NET_GSO_ECN;
    assert_false(net_header_valid(&bad, 3000, ~0u));
    bad = segment;
    bad.flags = 0; /* what is to be cut has no checksum yet */
    assert_false(net_header_valid(&bad, 3000, ~0u));
}

static void test_addresses_of_names(void **state)
{
    static const char *const names[] = {"", "web", "web1", "bew", "a much longer name of a guest", "web\x01"};
    uint8_t macs[ARRAY_SIZE(names) * 3][NET_MAC_SIZE], again[NET_MAC_SIZE];
    for (unsigned i = 0; i < ARRAY_SIZE(macs); i++) {
        net_mac_from_name(macs[i], names[i / 3], i % 3);
        net_mac_from_name(again, names[i / 3], i % 3);
        assert_memory_equal(again, macs[i], NET_MAC_SIZE);
        assert_int_equal(macs[i][0] & 3, 2); /* of one card, locally administered */
        for (unsigned k = 0; k < i; k++)
            assert_memory_not_equal(macs[k], macs[i], NET_MAC_SIZE);
    }
}

static void test_none(void **state)
{
    struct net_backend *backend = (void *)state;
    const struct net_config config = {.kind = NET_NONE};
    assert_int_equal(net_open(&backend, &config, NULL), 0);
    assert_null(backend);
    net_close(NULL);
    net_release(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksum),       cmocka_unit_test(test_checksums_are_filled_in),
        cmocka_unit_test(test_hostile_frames), cmocka_unit_test(test_loopback_is_out_of_reach),
        cmocka_unit_test(test_headers),        cmocka_unit_test(test_addresses_of_names),
        cmocka_unit_test(test_none),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
