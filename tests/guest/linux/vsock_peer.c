/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's end of the tests of sockets between guest and host, linked statically for the initramfs:
 *
 *   vsock_peer serve WHERE        echoes each connection's bytes, half-closed ones too, until it is killed
 *   vsock_peer send PORT BYTES    sends the host so many bytes, half-closes, takes an echo, tells both
 *   vsock_peer many PORT N        N connections at once, each with an echo of its own number
 *
 * WHERE is a port; or the path of a Unix socket, which begins with a slash: for hosts that are guests
 * themselves.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define BLOCK 65536

static struct sockaddr_vm address(uint32_t cid, const char *port)
{
    return (struct sockaddr_vm){
        .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = (uint32_t)strtoul(port, NULL, 10)};
}

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static int write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len) {
        ssize_t n = write(fd, bytes, len);
        if (n <= 0)
            return -1;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

static int echo(int fd)
{
    static uint8_t block[BLOCK];
    ssize_t n;

    while ((n = read(fd, block, sizeof(block))) > 0)
        if (write_all(fd, block, (size_t)n) < 0)
            return fail("echo: write");
    return n < 0 ? fail("echo: read") : 0;
}

static int listen_at(const char *where)
{
    struct sockaddr_vm port = address(VMADDR_CID_ANY, where);
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    bool is_path = where[0] == '/';
    int fd = socket(is_path ? AF_UNIX : AF_VSOCK, SOCK_STREAM, 0);

    snprintf(path.sun_path, sizeof(path.sun_path), "%s", where);
    if (fd < 0 ||
        bind(fd, is_path ? (struct sockaddr *)&path : (struct sockaddr *)&port,
             is_path ? sizeof(path) : sizeof(port)) < 0 ||
        listen(fd, 128) < 0)
        return -1;
    return fd;
}

static int serve(const char *where)
{
    int fd = listen_at(where);

    signal(SIGCHLD, SIG_IGN);
    if (fd < 0)
        return fail("serve");
    printf("serving %s\n", where);
    fflush(stdout);
    for (;;) {
        int conn = accept(fd, NULL, NULL);
        if (conn < 0)
            return fail("accept");
        if (fork() == 0)
            _exit(echo(conn));
        close(conn);
    }
}

static int dial(const char *port)
{
    struct sockaddr_vm a = address(VMADDR_CID_HOST, port);
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static uint64_t hash(uint64_t h, const uint8_t *bytes, size_t len)
{
    while (len--)
        h = (h ^ *bytes++) * 0x100000001b3ull;
    return h;
}

/* The sender is a process of its own, so that both directions are full at once. */
static int send_and_take(const char *port, size_t bytes)
{
    static uint8_t block[BLOCK];
    int fd = dial(port);
    uint64_t got = 0, h = 0xcbf29ce484222325ull;
    ssize_t n;

    if (fd < 0)
        return fail("connect");
    if (fork() == 0) {
        uint32_t x = 1;
        for (size_t left = bytes; left;) {
            size_t part = left < BLOCK ? left : BLOCK;
            for (size_t i = 0; i < part; i++) {
                x = x * 1664525u + 1013904223u;
                block[i] = (uint8_t)(x >> 24);
            }
            h = hash(h, block, part);
            if (write_all(fd, block, part) < 0)
                _exit(fail("write"));
            left -= part;
        }
        printf("sent %zu %016llx\n", bytes, (unsigned long long)h);
        fflush(stdout);
        _exit(shutdown(fd, SHUT_WR) < 0 ? fail("shutdown") : 0);
    }
    while ((n = read(fd, block, sizeof(block))) > 0) {
        h = hash(h, block, (size_t)n);
        got += (uint64_t)n;
    }
    if (n < 0)
        return fail("read");
    wait(NULL);
    printf("got %llu %016llx\n", (unsigned long long)got, (unsigned long long)h);
    return 0;
}

static int many(const char *port, unsigned count)
{
    int *fds = calloc(count, sizeof(*fds));

    for (unsigned i = 0; i < count; i++) {
        fds[i] = dial(port);
        if (fds[i] < 0)
            return fail("connect");
    }
    for (uint32_t i = 0; i < count; i++)
        if (write_all(fds[i], (uint8_t *)&i, sizeof(i)) < 0)
            return fail("write");
    for (uint32_t i = 0; i < count; i++) {
        uint32_t back = ~i;
        if (recv(fds[i], &back, sizeof(back), MSG_WAITALL) != sizeof(back) || back != i)
            return fail("read");
    }
    printf("all %u\n", count);
    return 0;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2]);
    if (argc == 4 && strcmp(argv[1], "send") == 0)
        return send_and_take(argv[2], strtoul(argv[3], NULL, 10));
    if (argc == 4 && strcmp(argv[1], "many") == 0)
        return many(argv[2], (unsigned)strtoul(argv[3], NULL, 10));
    fprintf(stderr, "usage: vsock_peer serve WHERE | send PORT BYTES | many PORT N\n");
    return 2;
}
