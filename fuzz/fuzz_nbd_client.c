/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What any server may say to the NBD client. The input's first byte says which requests are made and whether
 * they are made at once or in a loop; the rest is all that the server says. Requests end, with an error or
 * with what was asked for.
 */
#include "disk/nbd_link.h"
#include "fuzz_input.h"
#include "host/loop.h"
#include "require.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define SAID_MAX 65536u
#define BUFFER   65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static unsigned pending;
static uint8_t buffers[4][BUFFER];

static void done(struct disk_request *request, int result)
{
    REQUIRE(result <= 0);
    if (--pending == 0)
        loop_stop(loop, 0);
}

static void requests(struct disk *disk, unsigned how)
{
    struct disk_request r[4];
    struct iovec iov[4];
    uint64_t length = disk_size(disk) < BUFFER ? disk_size(disk) : BUFFER;

    for (unsigned i = 0; i < 4; i++) {
        iov[i] = (struct iovec){buffers[i], length};
        r[i] = (struct disk_request){.kind = (enum disk_request_kind)((how + i) % 5),
                                     .length = length,
                                     .iov = &iov[i],
                                     .n_iov = 1,
                                     .done = done};
        pending++;
        disk_submit(disk, &r[i]);
    }
    disk_start(disk);
    loop_run(loop);
}

static void walk(struct disk *disk)
{
    struct disk_extent e;
    uint64_t at = 0;

    for (unsigned i = 0; i < 16 && at < disk_size(disk); i++, at += e.length) {
        if (disk_extent(disk, at, disk_size(disk) - at, &e) < 0)
            return;
        REQUIRE(e.length && e.length % DISK_SECTOR == 0 && e.length <= disk_size(disk) - at);
        disk_extent_read(&e, buffers[0], e.length < BUFFER ? e.length : BUFFER);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct disk_files *files;
    struct disk *disk = NULL;
    int pair[2];

    if (size < 1 || size > SAID_MAX)
        return 0;
    unsigned how = (unsigned)fuzz_take(&in, 1);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    const struct disk_file file = {.fd = pair[0], .name = (char *)"server", .format = (char *)"nbd"};
    REQUIRE(loop_create(&loop, NULL) == 0 && disk_files_new(&files, &file, 1, how & 1, NULL) == 0);
    disk_files_avoid_uring(files);
    files->files[0].remote = calloc(1, sizeof(*files->files[0].remote));
    REQUIRE(files->files[0].remote && (files->files[0].remote->export = strdup("disk")));
    REQUIRE(send(pair[1], in.bytes, in.left, MSG_NOSIGNAL) == (ssize_t)in.left);
    shutdown(pair[1], SHUT_WR);
    if (disk_open(&disk, files, how & 2 ? loop : NULL, NULL) == 0) {
        if (how & 2)
            requests(disk, how >> 2);
        else
            walk(disk);
        disk_close(disk);
    }
    disk_files_close(files);
    close(pair[1]);
    loop_free(loop);
    return 0;
}
