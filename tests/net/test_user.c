/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The user network with its real process: what crosses the socket, and both sides' ends. */
#include "base/bytes.h"
#include "base/error.h"
#include "host/loop.h"
#include "net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define TIMEOUT_MS 20000

static const uint8_t mac[6] = {0x52, 0x54, 0, 1, 2, 3};

static struct net_backend *open_user(const struct net_publish *ports, size_t n)
{
    struct net_backend *backend = NULL;
    struct error *err = NULL;
    const struct net_config config = {.kind = NET_USER, .ports = ports, .n_ports = n};
    if (net_open(&backend, &config, &err) < 0)
        fail_msg("%s", error_message(err));
    return backend;
}

static int fd_of(struct net_backend *backend)
{
    int fds[NET_MAX_QUEUES];
    assert_int_equal(net_descriptors(backend, fds), 1);
    return fds[0];
}

/* The next frame, without its header: its length, or -EPIPE. */
static ssize_t next_frame(struct net_backend *backend, uint8_t *frame)
{
    static uint8_t buffer[NET_BUFFER_MAX];
    struct pollfd p = {.fd = fd_of(backend), .events = POLLIN};
    ssize_t n;
    while ((n = net_receive(backend, 0, buffer, sizeof(buffer))) == -EAGAIN)
        assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
    if (n < 0)
        return n;
    assert_true(n >= NET_HEADER_SIZE + NET_ETHER_SIZE);
    memcpy(frame, buffer + NET_HEADER_SIZE, (size_t)n - NET_HEADER_SIZE);
    return n - NET_HEADER_SIZE;
}

static int send_frame(struct net_backend *backend, const struct net_header *header, uint8_t *frame,
                      size_t len)
{
    struct iovec iov[2] = {{(void *)(uintptr_t)header, sizeof(*header)}, {frame, len}};
    return net_send(backend, 0, iov, 2);
}

/* Who has 10.0.2.x? */
static size_t arp_request(uint8_t *frame, uint8_t x)
{
    static const uint8_t fixed[] = {0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1};
    memset(frame, 0xff, 6);
    memcpy(frame + 6, mac, 6);
    memcpy(frame + 12, fixed, sizeof(fixed));
    memcpy(frame + 22, mac, 6);
    put_be32(frame + 28, 0x0a00020f);
    memset(frame + 32, 0, 6);
    put_be32(frame + 38, 0x0a000200u | x);
    return 42;
}

/* Asks for the router's address until it answers: the process works. */
static void expect_answer(struct net_backend *backend)
{
    const struct net_header header = {0};
    uint8_t frame[NET_FRAME_MAX];
    assert_int_equal(send_frame(backend, &header, frame, arp_request(frame, 2)), 0);
    do
        assert_true(next_frame(backend, frame) > 0);
    while (get_be16(frame + 12) != 0x0806 || get_be16(frame + 20) != 2);
    assert_int_equal(get_be32(frame + 28), 0x0a000202);
    assert_memory_equal(frame, mac, 6);
}

static void test_answers(void **state)
{
    struct net_backend *backend = open_user(NULL, 0);
    assert_int_equal(backend->features.queues, 1);
    /* Two packets fit into what Linux receives at first (USER_MTU). */
    assert_true(backend->features.mtu > 30000 && backend->features.mtu <= 32768);
    expect_answer(backend);
    net_close(backend);
}

/* Whatever comes from the guest's side, the process goes on. */
static void test_survives_nonsense(void **state)
{
    struct net_backend *backend = open_user(NULL, 0);
    uint8_t bytes[300];
    srand(3);
    for (unsigned i = 0; i < 20000; i++) {
        size_t len = (size_t)rand() % sizeof(bytes);
        for (size_t k = 0; k < len; k++)
            bytes[k] = (uint8_t)(rand() >> 8);
        if (len > 30 && i % 3) {
            /* Let it look like IP more often than chance would. */
            memset(bytes, 0, 12);
            put_be16(bytes + 24, i % 3 == 1 ? 0x0800 : 0x86dd);
            bytes[26] = i % 3 == 1 ? 0x45 : 0x60;
        }
        struct iovec iov = {bytes, len};
        struct pollfd p = {.fd = fd_of(backend), .events = POLLOUT};
        while (len && net_send(backend, 0, &iov, 1) == -EAGAIN)
            assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
        uint8_t frame[NET_BUFFER_MAX];
        while (net_receive(backend, 0, frame, sizeof(frame)) > 0)
            ;
    }
    expect_answer(backend);
    net_close(backend);
}

static void test_its_end_is_told(void **state)
{
    struct net_backend *backend = open_user(NULL, 0);
    const struct net_header header = {0};
    uint8_t frame[NET_FRAME_MAX];
    char path[64];
    int child;
    expect_answer(backend);
    snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &child), 1);
    fclose(f);
    kill(child, SIGKILL);
    struct pollfd p = {.fd = fd_of(backend)};
    do
        assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
    while (!(p.revents & POLLHUP));
    /* First noticed by sending: an error, not a signal. */
    assert_int_equal(send_frame(backend, &header, frame, arp_request(frame, 2)), -EPIPE);
    assert_int_equal(next_frame(backend, frame), -EPIPE);
    net_close(backend);
}

/* The end of the guest's side ends it: the port is free again. */
static void test_published_port(void **state)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    const struct net_publish port = {.address = {127, 0, 0, 1}, .host = ntohs(at.sin_port), .guest = 80};
    const struct net_config config = {.kind = NET_USER, .ports = &port, .n_ports = 1};
    struct net_backend *backend = NULL;
    struct error *err = NULL;
    assert_int_equal(net_open(&backend, &config, &err), -EADDRINUSE);
    assert_non_null(strstr(error_message(err), "is in use on this host"));
    assert_null(backend);
    error_free(err);
    close(fd);

    backend = open_user(&port, 1);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    close(fd);
    /* It looks for the guest that the connection is for. */
    uint8_t frame[NET_FRAME_MAX];
    do
        assert_true(next_frame(backend, frame) > 0);
    while (get_be16(frame + 12) != 0x0806);
    assert_int_equal(get_be32(frame + 38), 0x0a00020f);
    net_close(backend);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof(at)), -1);
    assert_int_equal(errno, ECONNREFUSED);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_survives_nonsense),
        cmocka_unit_test(test_its_end_is_told),
        cmocka_unit_test(test_published_port),
    };
    return cmocka_run_group_tests_name("net user", tests, NULL, NULL);
}
