/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Moves bytes over a network as fast as it can, for tests and benchmarks of networks: it runs in the guest,
 * where busybox's own programs move a kilobyte at a time. Linked statically, for the guest has no libraries.
 *
 *     pump receive ADDRESS PORT          all that comes, until the other side closes
 *     pump send ADDRESS PORT BYTES       so many
 *     pump echo PORT                     each UDP datagram goes back, for ever
 *
 * The first two print bytes and seconds.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char buffer[256 << 10];

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static int echo(unsigned port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)}, from;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
        return fail("bind");
    for (;;) {
        socklen_t len = sizeof(from);
        ssize_t n = recvfrom(fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &len);
        if (n < 0 || sendto(fd, buffer, (size_t)n, 0, (struct sockaddr *)&from, len) < 0)
            perror("echo");
    }
}

static int connect_to(const char *address, const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1 ||
        connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0) {
        perror(address);
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    unsigned long long done = 0;
    char byte;

    if (argc == 3 && strcmp(argv[1], "echo") == 0)
        return echo((unsigned)atoi(argv[2]));
    if (argc != 4 + (argc > 1 && strcmp(argv[1], "send") == 0))
        return fprintf(stderr, "usage: pump receive|send|echo ...\n"), 2;
    int fd = connect_to(argv[2], argv[3]);
    double start = seconds();
    if (argc == 4) {
        ssize_t n;
        while ((n = read(fd, buffer, sizeof(buffer))) > 0)
            done += (unsigned long long)n;
        if (n < 0)
            return fail("read");
    } else {
        unsigned long long total = strtoull(argv[4], NULL, 10);
        while (done < total) {
            size_t want = total - done < sizeof(buffer) ? (size_t)(total - done) : sizeof(buffer);
            ssize_t n = write(fd, buffer, want);
            if (n < 0)
                return fail("write");
            done += (unsigned long long)n;
        }
        /* Over when the other side has read all of it, and closed. */
        shutdown(fd, SHUT_WR);
        if (read(fd, &byte, 1) < 0)
            return fail("read");
    }
    printf("%llu bytes %.6f seconds\n", done, seconds() - start);
    return 0;
}
