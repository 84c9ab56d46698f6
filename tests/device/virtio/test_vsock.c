/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The socket device between a driver and real Unix sockets: connections, credit, ends, and a guest that lies.
 */
#include "device/virtio/vsock.h"

#include "base/bytes.h"
#include "driver.h"
#include "host/dial.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define CID      7u
#define HEADER   44u
#define ROOM     4096u /* of payload in each buffer of the driver's */
#define BUFFERS  16u
#define SLOT     0x2000ull
#define TX_AT    (DRIVER_BUFFERS + BUFFERS * SLOT)
#define CREDIT   65536u /* what the device takes before anybody reads */
#define MAX_CONN 512u

enum { RX, TX, EVENT };
enum { REQUEST = 1, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE, CREDIT_REQUEST };

struct packet {
    uint32_t src_port, dst_port, len, flags, buf_alloc, fwd_cnt;
    uint16_t op;
    uint8_t data[ROOM];
};

struct rig {
    struct fixture f;
    struct device *device;
    struct driver d;
    struct driver_queue q[3];
    char dir[32], path[64];
    int listen_fd, channel[2];
    uint16_t slot_of[256];
    uint32_t alloc, taken; /* what the guest says of its room */
};

static void start(struct rig *r);

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    if (!r)
        return -1;
    strcpy(r->dir, "/tmp/tabique-vsock-XXXXXX");
    if (!mkdtemp(r->dir))
        return -1;
    snprintf(r->path, sizeof(r->path), "%s/s", r->dir);
    fixture_init(&r->f);
    r->listen_fd = dial_listen(r->path, NULL);
    if (r->listen_fd < 0 || dial_channel(r->channel, NULL) < 0)
        return -1;
    const struct virtio_vsock_config config = {
        .cid = CID, .listen_fd = r->listen_fd, .dial_fd = r->channel[1]};
    if (virtio_vsock_class.create(&r->device, &r->f.env, &config, NULL) < 0 ||
        !driver_find(&r->d, &r->f, VIRTIO_TYPE_VSOCK))
        return -1;
    *state = r;
    start(r);
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    char command[96];
    r->device->class->destroy(r->device);
    close(r->listen_fd);
    close(r->channel[0]);
    close(r->channel[1]);
    fixture_fini(&r->f);
    snprintf(command, sizeof(command), "rm -r %s", r->dir);
    free(r);
    return system(command);
}

static void post(struct rig *r, unsigned slot)
{
    const struct piece pieces[] = {{DRIVER_BUFFERS + slot * SLOT, HEADER, true},
                                   {DRIVER_BUFFERS + slot * SLOT + 0x100, ROOM, true}};
    r->slot_of[driver_add(&r->q[RX], pieces, 2, false)] = (uint16_t)slot;
}

static void start(struct rig *r)
{
    assert_true(driver_start(&r->d, RINGS_SPLIT, r->q, 3, 64));
    r->alloc = 1 << 20;
    r->taken = 0;
    for (unsigned i = 0; i < BUFFERS; i++)
        post(r, i);
    driver_kick(&r->q[RX]);
}

static void run(struct rig *r)
{
    for (int i = 0; i < 4; i++)
        fixture_run_loop(&r->f);
}

/* The next packet for the guest; false if there is none. Its buffer goes back. */
static bool take(struct rig *r, struct packet *p)
{
    uint32_t id, len;
    run(r);
    if (!driver_used(&r->q[RX], &id, &len))
        return false;
    unsigned slot = r->slot_of[id];
    const uint8_t *h = driver_ram(&r->f, DRIVER_BUFFERS + slot * SLOT, HEADER);
    assert_int_equal(get_le64(h), 2);
    assert_int_equal(get_le64(h + 8), CID);
    assert_int_equal(get_le16(h + 28), 1);
    *p = (struct packet){.src_port = get_le32(h + 16),
                         .dst_port = get_le32(h + 20),
                         .len = get_le32(h + 24),
                         .op = get_le16(h + 30),
                         .flags = get_le32(h + 32),
                         .buf_alloc = get_le32(h + 36),
                         .fwd_cnt = get_le32(h + 40)};
    assert_int_equal(len, HEADER + p->len);
    assert_in_range(p->len, 0, ROOM);
    memcpy(p->data, driver_ram(&r->f, DRIVER_BUFFERS + slot * SLOT + 0x100, ROOM), p->len);
    post(r, slot);
    driver_kick(&r->q[RX]);
    return true;
}

static struct packet expect(struct rig *r, unsigned op)
{
    struct packet p = {0};
    for (unsigned i = 0; i < 1000 && p.op != op; i++) {
        assert_true(take(r, &p));
        if (p.op != op) /* credit may be told at any time */
            assert_int_equal(p.op, CREDIT_UPDATE);
    }
    assert_int_equal(p.op, op);
    return p;
}

static void expect_nothing(struct rig *r)
{
    struct packet p;
    while (take(r, &p))
        assert_int_equal(p.op, CREDIT_UPDATE);
}

static void send_raw(struct rig *r, uint64_t src, uint64_t dst, uint32_t guest_port, uint32_t host_port,
                     unsigned op, uint32_t flags, uint32_t len, uint32_t said)
{
    uint8_t *h = driver_ram(&r->f, TX_AT, HEADER);
    const struct piece pieces[] = {{TX_AT, HEADER, false}, {TX_AT + 0x1000, len, false}};
    uint32_t id, used;
    put_le64(h, src);
    put_le64(h + 8, dst);
    put_le32(h + 16, guest_port);
    put_le32(h + 20, host_port);
    put_le32(h + 24, said);
    put_le16(h + 28, 1);
    put_le16(h + 30, (uint16_t)op);
    put_le32(h + 32, flags);
    put_le32(h + 36, r->alloc);
    put_le32(h + 40, r->taken);
    driver_add(&r->q[TX], pieces, len ? 2 : 1, false);
    driver_kick(&r->q[TX]);
    run(r);
    driver_used(&r->q[TX], &id, &used);
}

static void send_op(struct rig *r, uint32_t guest_port, uint32_t host_port, unsigned op, uint32_t flags)
{
    send_raw(r, CID, 2, guest_port, host_port, op, flags, 0, 0);
}

static void send_data(struct rig *r, uint32_t guest_port, uint32_t host_port, uint8_t fill, uint32_t len)
{
    memset(driver_ram(&r->f, TX_AT + 0x1000, len), fill, len);
    send_raw(r, CID, 2, guest_port, host_port, RW, 0, len, len);
}

/* A host's program's connection that has said its first line. */
static int program(struct rig *r, const char *hello)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    strcpy(a.sun_path, r->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(write(fd, hello, strlen(hello)), strlen(hello));
    run(r);
    return fd;
}

static bool ended(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}

/* One that the guest has accepted at port 52; *port is the host's. */
static int connected(struct rig *r, uint32_t *port)
{
    char line[32] = "", expected[32];
    int fd = program(r, "CONNECT 52\n");
    struct packet p = expect(r, REQUEST);
    assert_int_equal(p.dst_port, 52);
    *port = p.src_port;
    send_op(r, 52, *port, RESPONSE, 0);
    snprintf(expected, sizeof(expected), "OK %u\n", *port);
    assert_int_equal(read(fd, line, sizeof(line)), strlen(expected));
    assert_string_equal(line, expected);
    return fd;
}

static int listener(struct rig *r, unsigned port)
{
    char path[80];
    snprintf(path, sizeof(path), "%s_%u", r->path, port);
    int fd = dial_listen(path, NULL);
    assert_true(fd >= 0);
    return fd;
}

static void test_from_the_host(void **state)
{
    struct rig *r = *state;
    uint32_t port;
    char text[16];
    int fd = connected(r, &port);
    assert_int_equal(write(fd, "hello", 5), 5);
    struct packet p = expect(r, RW);
    assert_int_equal(p.len, 5);
    assert_memory_equal(p.data, "hello", 5);
    send_data(r, 52, port, 'x', 3);
    assert_int_equal(read(fd, text, sizeof(text)), 3);
    assert_memory_equal(text, "xxx", 3);
    /* It closes: the guest confirms. */
    close(fd);
    p = expect(r, SHUTDOWN);
    assert_int_equal(p.flags, 3);
    send_op(r, 52, port, RST, 0);
    expect_nothing(r);
}

/* What follows the first line in one piece is the guest's, once it has accepted. */
static void test_eager_program(void **state)
{
    struct rig *r = *state;
    int fd = program(r, "CONNECT 52\nand more");
    struct packet p = expect(r, REQUEST);
    expect_nothing(r);
    send_op(r, 52, p.src_port, RESPONSE, 0);
    p = expect(r, RW);
    assert_int_equal(p.len, 8);
    assert_memory_equal(p.data, "and more", 8);
    close(fd);
}

static void test_first_lines(void **state)
{
    static const char *const wrong[] = {"CONNECT\n",    "CONNECT \n",    "CONNECT x\n",
                                        "CONNECT -1\n", "connect 5\n",   "CONNECT 4294967296\n",
                                        "\n",           "CONNECT 5 5\n", "CONNECT 00000000000000000000005\n"};
    struct rig *r = *state;
    for (unsigned i = 0; i < ARRAY_SIZE(wrong); i++) {
        int fd = program(r, wrong[i]);
        run(r);
        assert_true(ended(fd));
        close(fd);
    }
    expect_nothing(r);
    /* In pieces it is as good. */
    int fd = program(r, "CONN");
    assert_false(ended(fd));
    assert_int_equal(write(fd, "ECT 52", 6), 6);
    expect_nothing(r);
    assert_int_equal(write(fd, "\n", 1), 1);
    assert_int_equal(expect(r, REQUEST).dst_port, 52);
    close(fd);
}

static void test_refused_by_the_guest(void **state)
{
    struct rig *r = *state;
    int fd = program(r, "CONNECT 9\n");
    struct packet p = expect(r, REQUEST);
    assert_false(ended(fd));
    send_op(r, 9, p.src_port, RST, 0);
    run(r);
    assert_true(ended(fd));
    close(fd);
}

static void test_from_the_guest(void **state)
{
    struct rig *r = *state;
    char text[8];
    int server = listener(r, 80);
    send_op(r, 1000, 80, REQUEST, 0);
    assert_int_equal(dial_answer(r->channel[0], r->path), 0);
    struct packet p = expect(r, RESPONSE);
    assert_int_equal(p.src_port, 80);
    assert_int_equal(p.dst_port, 1000);
    assert_int_equal(p.buf_alloc, CREDIT);
    int fd = accept(server, NULL, NULL);
    send_data(r, 1000, 80, 'g', 4);
    assert_int_equal(read(fd, text, sizeof(text)), 4);
    assert_int_equal(write(fd, "h", 1), 1);
    assert_int_equal(expect(r, RW).len, 1);
    /* The guest sends no more, and is still sent to. */
    send_op(r, 1000, 80, SHUTDOWN, 2);
    assert_int_equal(read(fd, text, sizeof(text)), 0);
    assert_int_equal(write(fd, "end", 3), 3);
    assert_int_equal(expect(r, RW).len, 3);
    send_op(r, 1000, 80, SHUTDOWN, 3);
    expect(r, RST);
    /* The ports are free again. */
    send_op(r, 1000, 80, REQUEST, 0);
    assert_int_equal(dial_answer(r->channel[0], r->path), 0);
    expect(r, RESPONSE);
    close(fd);
    close(server);
}

static void test_nobody_on_the_host(void **state)
{
    struct rig *r = *state;
    send_op(r, 1000, 81, REQUEST, 0);
    assert_int_equal(dial_answer(r->channel[0], r->path), 0);
    struct packet p = expect(r, RST);
    assert_int_equal(p.src_port, 81);
    assert_int_equal(p.dst_port, 1000);
    /* It gave up before the answer came: what comes with it is closed. */
    int server = listener(r, 82);
    send_op(r, 1001, 82, REQUEST, 0);
    send_op(r, 1001, 82, RST, 0);
    assert_int_equal(dial_answer(r->channel[0], r->path), 0);
    expect_nothing(r);
    int fd = accept(server, NULL, NULL);
    assert_true(ended(fd));
    close(fd);
    close(server);
}

/* Connections to the port until its listener has no room for more, in *fds; how many. */
static unsigned fill_queue(const char *path, int *fds, unsigned most)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    unsigned n = 0;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    while (n < most) {
        fds[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        assert_true(fds[n] >= 0);
        if (connect(fds[n], (struct sockaddr *)&address, sizeof(address)) < 0) {
            assert_int_equal(errno, EAGAIN);
            close(fds[n]);
            return n;
        }
        n++;
    }
    fail_msg("%u connections, and the queue is not full", n);
    return n;
}

/* The trusted side answers as long as it is asked; how often it was. */
static unsigned answer_all(struct rig *r, unsigned ms)
{
    unsigned asked = 0;
    for (unsigned i = 0; i < ms; i++) {
        run(r);
        while (dial_answer(r->channel[0], r->path) == 0)
            asked++;
        usleep(1000);
    }
    return asked;
}

/* A listener with a full queue is asked again until it has room, and not all the time. */
static void test_full_queue_on_the_host(void **state)
{
    struct rig *r = *state;
    char path[80], text[8];
    int waiting[1000], server = listener(r, 80);
    snprintf(path, sizeof(path), "%s_80", r->path);
    unsigned n = fill_queue(path, waiting, ARRAY_SIZE(waiting));
    send_op(r, 1000, 80, REQUEST, 0);
    unsigned asked = answer_all(r, 300);
    assert_in_range(asked, 2, 10);
    expect_nothing(r);
    for (unsigned i = 0; i < n; i++) {
        close(waiting[i]);
        close(accept(server, NULL, NULL));
    }
    struct packet p;
    bool came = false;
    for (unsigned i = 0; i < 5000 && !came; i++) {
        answer_all(r, 1);
        came = take(r, &p);
    }
    assert_true(came);
    assert_int_equal(p.op, RESPONSE);
    assert_int_equal(p.dst_port, 1000);
    int fd = accept(server, NULL, NULL);
    send_data(r, 1000, 80, 'g', 4);
    assert_int_equal(read(fd, text, sizeof(text)), 4);
    close(fd);
    close(server);
}

static void test_half_closed_by_the_host(void **state)
{
    struct rig *r = *state;
    uint32_t port;
    char text[8];
    int fd = connected(r, &port);
    shutdown(fd, SHUT_WR);
    assert_int_equal(expect(r, SHUTDOWN).flags, 2);
    send_data(r, 52, port, 'a', 2);
    assert_int_equal(read(fd, text, sizeof(text)), 2);
    send_op(r, 52, port, SHUTDOWN, 3);
    expect(r, RST);
    run(r);
    assert_true(ended(fd));
    close(fd);
}

/* The guest's credit: not a byte more than it has room for, and on when it has some. */
static void test_credit_of_the_guest(void **state)
{
    struct rig *r = *state;
    static char block[20000];
    uint32_t port, got = 0;
    struct packet p;
    r->alloc = 10000;
    int fd = connected(r, &port);
    assert_int_equal(write(fd, block, sizeof(block)), sizeof(block));
    while (got < 10000) {
        p = expect(r, RW);
        got += p.len;
    }
    assert_int_equal(got, 10000);
    expect(r, CREDIT_REQUEST);
    expect_nothing(r);
    r->taken = 500;
    send_op(r, 52, port, CREDIT_UPDATE, 0);
    assert_int_equal(expect(r, RW).len, 500);
    expect(r, CREDIT_REQUEST);
    /* One that claims to have taken what it was not sent gets nothing. */
    r->taken = 0x80000000;
    send_op(r, 52, port, CREDIT_UPDATE, 0);
    expect(r, CREDIT_REQUEST);
    expect_nothing(r);
    close(fd);
}

/* The device's: a reader that sleeps holds up to 64 KiB back; the guest is told when it wakes. */
static void test_credit_of_the_device(void **state)
{
    struct rig *r = *state;
    uint32_t port, told = 0, sent = 0;
    static char block[1 << 20];
    struct packet p;
    int fd = connected(r, &port);
    for (;;) {
        while (take(r, &p)) {
            assert_int_equal(p.op, CREDIT_UPDATE);
            assert_int_equal(p.buf_alloc, CREDIT);
            told = p.fwd_cnt;
        }
        if (CREDIT - (sent - told) < 8192)
            break;
        send_data(r, 52, port, (uint8_t)(sent >> 13), 8192);
        sent += 8192;
        assert_in_range(sent, 1, 4 << 20);
    }
    uint32_t got = 0;
    while (got < sent) {
        ssize_t n = read(fd, block, 5000);
        if (n < 0)
            run(r);
        for (ssize_t i = 0; i < n; i++, got++)
            if ((uint8_t)block[i] != (uint8_t)(got >> 13))
                fail_msg("byte %u is wrong", got);
    }
    p = expect(r, CREDIT_UPDATE);
    assert_true(p.fwd_cnt > told);
    /* And when asked for. */
    send_op(r, 52, port, CREDIT_REQUEST, 0);
    p = expect(r, CREDIT_UPDATE);
    assert_int_equal(p.fwd_cnt, sent);
    close(fd);
}

static void test_guest_that_sends_too_much(void **state)
{
    struct rig *r = *state;
    uint32_t port;
    struct packet p = {0};
    int fd = connected(r, &port);
    for (unsigned i = 0; i < 200 && p.op != RST; i++) {
        send_data(r, 52, port, 0, 16384);
        while (p.op != RST && take(r, &p))
            ;
    }
    assert_int_equal(p.op, RST);
    close(fd);
}

static void test_strangers(void **state)
{
    struct rig *r = *state;
    uint32_t port;
    int fd = connected(r, &port);
    /* From nobody, to nobody: dropped. */
    send_raw(r, CID + 1, 2, 52, port, SHUTDOWN, 3, 0, 0);
    send_raw(r, CID, 5, 52, port, SHUTDOWN, 3, 0, 0);
    expect_nothing(r);
    /* Of no connection: a reset, but for a reset. */
    send_op(r, 52, port + 1, RW, 0);
    assert_int_equal(expect(r, RST).src_port, port + 1);
    send_op(r, 52, port + 1, RST, 0);
    expect_nothing(r);
    /* A second request for a connection, and an operation that does not exist, end it. */
    send_op(r, 52, port, 99, 0);
    assert_int_equal(expect(r, RST).src_port, port);
    run(r);
    assert_true(ended(fd));
    close(fd);
}

static void test_malformed_packets(void **state)
{
    struct rig *r = *state;
    const struct piece brief = {TX_AT, HEADER - 1, false}, none = {DRIVER_BUFFERS, HEADER - 1, true};
    driver_add(&r->q[TX], &brief, 1, false);
    driver_kick(&r->q[TX]);
    assert_true(driver_status(&r->d) & VIRTIO_STATUS_NEEDS_RESET);
    start(r);
    send_raw(r, CID, 2, 52, 1, RW, 0, 100, 101);
    assert_true(driver_status(&r->d) & VIRTIO_STATUS_NEEDS_RESET);
    /* A buffer without room for a header. */
    assert_true(driver_start(&r->d, RINGS_SPLIT, r->q, 3, 64));
    driver_add(&r->q[RX], &none, 1, false);
    driver_kick(&r->q[RX]);
    send_op(r, 52, 1, RW, 0);
    assert_true(driver_status(&r->d) & VIRTIO_STATUS_NEEDS_RESET);
}

/* More resets than the device holds: it takes no packet for which it has none. */
static void test_flood_of_strangers(void **state)
{
    struct rig *r = *state;
    const struct piece header = {TX_AT, HEADER, false};
    unsigned resets = 0;
    uint32_t id, len;
    struct packet p;
    send_op(r, 52, 1, RST, 0); /* a header to be repeated */
    put_le16(driver_ram(&r->f, TX_AT + 30, 2), RW);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 60; i++)
            driver_add(&r->q[TX], &header, 1, false);
        driver_kick(&r->q[TX]);
        while (take(r, &p))
            resets += p.op == RST;
        while (driver_used(&r->q[TX], &id, &len))
            ;
    }
    assert_int_equal(resets, 240);
}

/* The host's program sees the end at once, and not a byte is written to the guest any more. */
static void test_reset(void **state)
{
    struct rig *r = *state;
    uint32_t port;
    static uint8_t before[BUFFERS * SLOT];
    int fd = connected(r, &port), asking = program(r, "CONNECT 53\n");
    driver_write(&r->d, C_STATUS, 1, 0);
    memcpy(before, driver_ram(&r->f, DRIVER_BUFFERS, sizeof(before)), sizeof(before));
    assert_int_equal(send(fd, "late", 4, MSG_NOSIGNAL), 4);
    run(r);
    assert_true(ended(fd) && ended(asking));
    assert_memory_equal(before, driver_ram(&r->f, DRIVER_BUFFERS, sizeof(before)), sizeof(before));
    close(fd);
    close(asking);
    /* Nobody there: closed. Then all is as new. */
    fd = program(r, "CONNECT 52\n");
    assert_true(ended(fd));
    close(fd);
    start(r);
    close(connected(r, &port));
}

/* The guest has closed and is gone; what it sent before arrives at a slow reader all the same. */
static void test_slow_reader_of_a_closed_connection(void **state)
{
    struct rig *r = *state;
    uint32_t port, told = 0, sent = 0, got = 0;
    struct packet p;
    char block[4096];
    int fd = connected(r, &port);
    while (CREDIT - (sent - told) >= 8192) {
        send_data(r, 52, port, 'z', 8192);
        sent += 8192;
        while (take(r, &p))
            told = p.fwd_cnt;
    }
    send_op(r, 52, port, SHUTDOWN, 3);
    expect_nothing(r); /* not confirmed: there is some to be delivered */
    send_op(r, 52, port, RST, 0);
    for (int empty = 0; empty < 10;) {
        ssize_t n = read(fd, block, sizeof(block));
        if (n == 0)
            break;
        if (n < 0) {
            run(r);
            empty++;
        } else {
            got += (uint32_t)n;
        }
    }
    assert_int_equal(got, sent);
    expect_nothing(r);
    close(fd);
}

static void test_most_connections(void **state)
{
    struct rig *r = *state;
    static int fds[MAX_CONN];
    int server = listener(r, 80);
    struct packet p;
    for (unsigned i = 0; i < MAX_CONN; i++) {
        send_op(r, 2000 + i, 80, REQUEST, 0);
        assert_int_equal(dial_answer(r->channel[0], r->path), 0);
        expect(r, RESPONSE);
        fds[i] = accept(server, NULL, NULL);
        assert_true(fds[i] >= 0);
    }
    send_op(r, 1, 80, REQUEST, 0);
    assert_int_equal(expect(r, RST).dst_port, 1);
    for (unsigned i = 0; i < MAX_CONN; i++) {
        close(fds[i]);
        p = expect(r, SHUTDOWN);
        send_op(r, p.dst_port, p.src_port, RST, 0);
    }
    expect_nothing(r);
    send_op(r, 1, 80, REQUEST, 0);
    assert_int_equal(dial_answer(r->channel[0], r->path), 0);
    expect(r, RESPONSE);
    close(server);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_from_the_host),
        TEST(test_eager_program),
        TEST(test_first_lines),
        TEST(test_refused_by_the_guest),
        TEST(test_from_the_guest),
        TEST(test_nobody_on_the_host),
        TEST(test_full_queue_on_the_host),
        TEST(test_half_closed_by_the_host),
        TEST(test_credit_of_the_guest),
        TEST(test_credit_of_the_device),
        TEST(test_guest_that_sends_too_much),
        TEST(test_strangers),
        TEST(test_malformed_packets),
        TEST(test_flood_of_strangers),
        TEST(test_reset),
        TEST(test_slow_reader_of_a_closed_connection),
        TEST(test_most_connections),
    };
    return cmocka_run_group_tests_name("virtio vsock", tests, NULL, NULL);
}
