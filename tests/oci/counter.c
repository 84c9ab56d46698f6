/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs in containers that are checkpointed: counts, and holds what must come back. Its memory has a pattern,
 * a pipe leads to its child, the child has a file open that it appends to ("COUNT SUM" a line, the sum being
 * that of the memory), and a TCP socket listens on port 7000, whose clients are told the count. With the
 * argument "hold" they stay connected.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WORDS (1 << 19) /* 4 MiB */

static uint64_t *memory;

static void fill(void)
{
    uint64_t x = 88172645463325252ull;

    memory = malloc(WORDS * sizeof(*memory));
    if (!memory)
        exit(1);
    for (size_t i = 0; i < WORDS; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memory[i] = x;
    }
}

static uint64_t sum(void)
{
    uint64_t s = 0;

    for (size_t i = 0; i < WORDS; i++)
        s = s * 31 + memory[i];
    return s;
}

static void write_lines(int in)
{
    int out = open("/tmp/counts", O_WRONLY | O_CREAT | O_APPEND, 0644);
    uint32_t count;

    while (out >= 0 && read(in, &count, sizeof(count)) == sizeof(count))
        dprintf(out, "%u %016llx\n", count, (unsigned long long)sum());
}

static int listen_there(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(7000)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    address.sin_addr.s_addr = htonl(INADDR_ANY);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    return bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0 ? -1 : fd;
}

int main(int argc, char **argv)
{
    int hold = argc > 1 && strcmp(argv[1], "hold") == 0, pair[2], listener = listen_there();

    fill();
    if (listener < 0 || pipe(pair) < 0)
        return 1;
    if (fork() == 0) {
        close(pair[1]);
        write_lines(pair[0]);
        _exit(0);
    }
    for (uint32_t count = 1;; count++) {
        struct pollfd p = {.fd = listener, .events = POLLIN};

        if (write(pair[1], &count, sizeof(count)) != sizeof(count))
            return 1;
        if (poll(&p, 1, 20) > 0) {
            int client = accept(listener, NULL, NULL);

            dprintf(client, "%u\n", count);
            if (!hold)
                close(client);
        }
    }
}
