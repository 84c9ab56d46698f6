/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What any client may say to the NBD server. The input's first byte says whether the disk is raw or qcow2 and
 * read-only; the rest comes to the server through a socket, in pieces of a length that the second says, and
 * then no more. All is answered or dropped, and nothing stays.
 */
#include "disk/disk_priv.h"
#include "disk/nbd_server.h"
#include "fuzz_input.h"
#include "host/loop.h"
#include "require.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static struct nbd_server *server;

struct feed {
    int fd;
    struct loop_watch *watch;
    struct fuzz_input in;
    size_t piece;
};

static void on_stopped(void *opaque)
{
    loop_stop(loop, 0);
}

static void on_idle(void *opaque)
{
    nbd_server_stop(server, on_stopped, NULL);
}

/* The client: reads all that comes, and says the next piece. */
static void on_client(void *opaque, uint32_t events)
{
    static char answers[65536];
    struct feed *f = opaque;
    ssize_t got;

    while ((got = recv(f->fd, answers, sizeof(answers), MSG_DONTWAIT)) > 0)
        continue;
    size_t n = f->in.left < f->piece ? f->in.left : f->piece;
    ssize_t put = n ? send(f->fd, f->in.bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL) : 0;
    if (put > 0) {
        f->in.bytes += put;
        f->in.left -= (size_t)put;
    }
    if (f->in.left && !(events & EPOLLHUP))
        return;
    shutdown(f->fd, SHUT_WR);
    loop_watch_modify(f->watch, got == 0 || events & EPOLLHUP ? 0 : EPOLLIN);
}

static int new_image(bool qcow2)
{
    const struct disk_create what = {
        .format = qcow2 ? "qcow2" : "raw", .size = SIZE, .cluster_size = qcow2 ? 4096 : 0};
    struct disk_build build;
    int fd = memfd_create("image", MFD_CLOEXEC);

    REQUIRE(fd >= 0 && disk_build_begin(&build, fd, "image", &what, NULL, NULL) == 0);
    REQUIRE(disk_build_end(&build, true, NULL) == 0);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {.in = {data, size}};
    struct disk_files *files;
    struct disk *disk;
    int pair[2];

    if (size < 2)
        return 0;
    unsigned how = (unsigned)fuzz_take(&feed.in, 1);
    feed.piece = 1 + fuzz_take(&feed.in, 1) * 64;
    const struct disk_file file = {
        .fd = new_image(how & 1), .name = (char *)"image", .format = (char *)(how & 1 ? "qcow2" : "raw")};
    REQUIRE(loop_create(&loop, NULL) == 0 && disk_files_new(&files, &file, 1, how & 2, NULL) == 0);
    if (!(how & 4))
        disk_files_avoid_uring(files);
    REQUIRE(disk_open(&disk, files, loop, NULL) == 0);
    const struct nbd_server_config config = {.loop = loop, .clients = 1, .idle = on_idle};
    REQUIRE(nbd_server_new(&server, &config, NULL) == 0);
    REQUIRE(nbd_server_add_export(server, "disk", "what is served", disk) == 0);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    feed.fd = pair[0];
    REQUIRE(loop_watch_add(loop, feed.fd, EPOLLIN | EPOLLOUT, on_client, &feed, &feed.watch) == 0);
    REQUIRE(nbd_server_take(server, pair[1]) == 0);
    loop_run(loop);
    nbd_server_free(server);
    loop_watch_remove(feed.watch);
    close(feed.fd);
    disk_close(disk);
    disk_files_close(files);
    loop_free(loop);
    return 0;
}
