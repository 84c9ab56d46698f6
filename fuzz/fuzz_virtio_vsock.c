/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The socket device between a guest that does anything and programs of the host that come, talk, stop reading
 * and go. Whatever happened, after a reset a program reaches the guest; and no socket is left when the device
 * has gone.
 */
#include "base/bytes.h"
#include "device/device.h"
#include "device/virtio/vsock.h"
#include "fuzz_virtio.h"
#include "host/dial.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CID      3u
#define PROGRAMS 8u
#define PACKET   (DRIVER_BUFFERS + 0x8000)

/* What the host has, made once. */
static char path[64];
static int listen_fd, server_fd, channel[2];
/* Its programs, those of them that are connected. */
static int programs[PROGRAMS] = {-1, -1, -1, -1, -1, -1, -1, -1};

static void make_host(void)
{
    char name[80], dir[] = "/tmp/tabique-fuzz-XXXXXX";

    fuzz_expect(mkdtemp(dir), "a directory");
    snprintf(path, sizeof(path), "%s/s", dir);
    snprintf(name, sizeof(name), "%s_80", path);
    listen_fd = dial_listen(path, NULL);
    server_fd = dial_listen(name, NULL);
    fuzz_expect(listen_fd >= 0 && server_fd >= 0 && dial_channel(channel, NULL) == 0, "sockets");
}

static int connect_program(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, path, sizeof(path));
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void leave(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void talk(int *fd, struct fuzz_input *in, uint8_t how)
{
    static uint8_t bytes[65536];
    char hello[32];

    switch (how % 6) {
    case 0:
        leave(fd);
        *fd = connect_program();
        break;
    case 1:
        if (*fd >= 0)
            send(*fd, hello,
                 (size_t)snprintf(hello, sizeof(hello), "CONNECT %u\n", (unsigned)fuzz_take(in, 1) % 4),
                 MSG_NOSIGNAL);
        break;
    case 2:
        if (*fd >= 0)
            send(*fd, bytes, fuzz_take(in, 2), MSG_NOSIGNAL);
        break;
    case 3:
        if (*fd >= 0)
            recv(*fd, bytes, fuzz_take(in, 2), 0);
        break;
    case 4:
        if (*fd >= 0)
            shutdown(*fd, SHUT_WR);
        break;
    default:
        leave(fd);
    }
}

/* A packet that is well-formed, between few ports, so that it meets connections. */
static void packet(struct fuzz_guest *g, struct fuzz_input *in)
{
    struct driver_queue *q = &g->queues[1];
    uint8_t what = (uint8_t)fuzz_take(in, 1), *h = driver_ram(&g->f, PACKET, 64);
    uint16_t len = what & 0x10 ? (uint16_t)fuzz_take(in, 2) % 0x7000 : 0;
    const struct piece pieces[] = {{PACKET, 44, false}, {PACKET + 44, len, false}};

    put_le64(h, CID);
    put_le64(h + 8, 2);
    put_le32(h + 16, what >> 5 & 3);
    put_le32(h + 20, what & 0x80 ? 80 : 0x40000000u + (uint32_t)fuzz_take(in, 1) % 4);
    put_le32(h + 24, len);
    put_le16(h + 28, 1);
    put_le16(h + 30, what & 7);
    put_le32(h + 32, (uint32_t)fuzz_take(in, 1));
    put_le32(h + 36, (uint32_t)fuzz_take(in, 3));
    put_le32(h + 40, (uint32_t)fuzz_take(in, 1));
    if (q->size && q->size <= 128)
        driver_add(q, pieces, len ? 2 : 1, false);
    if (q->doorbell)
        io_space_write(g->f.env.mmio, q->doorbell, 2, q->index);
    fixture_run_loop(&g->f);
}

static void special(struct fuzz_guest *g, struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);

    if (what & 0x80) {
        packet(g, in);
    } else if (what & 0x40) {
        dial_answer(channel[0], path);
        int fd = accept4(server_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            leave(&programs[what % PROGRAMS]);
            programs[what % PROGRAMS] = fd;
        }
        fixture_run_loop(&g->f);
    } else {
        talk(&programs[what % PROGRAMS], in, what / PROGRAMS);
        fixture_run_loop(&g->f);
    }
}

static void check_works(struct fuzz_guest *g)
{
    const struct piece room = {DRIVER_BUFFERS, 4096, true};
    uint32_t id, len;

    for (unsigned i = 0; i < PROGRAMS; i++)
        leave(&programs[i]);
    /* Those that are still at the door would come first. */
    fixture_run_loop(&g->f);
    fixture_run_loop(&g->f);
    fuzz_virtio_restart(g, RINGS_SPLIT);
    int fd = connect_program();
    fuzz_expect(fd >= 0 && send(fd, "CONNECT 9\n", 10, MSG_NOSIGNAL) == 10, "a program comes after a reset");
    driver_add(&g->queues[0], &room, 1, false);
    driver_kick(&g->queues[0]);
    for (unsigned i = 0; i < 4; i++)
        fixture_run_loop(&g->f);
    fuzz_expect(driver_used(&g->queues[0], &id, &len) && len == 44, "the guest is asked after a reset");
    const uint8_t *h = driver_ram(&g->f, DRIVER_BUFFERS, 44);
    fuzz_expect(get_le32(h + 20) == 9 && get_le16(h + 30) == 1, "for the connection that was wanted");
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_guest g;
    struct fuzz_input in = {data, size};

    if (!path[0])
        make_host();
    const struct virtio_vsock_config config = {.cid = CID, .listen_fd = listen_fd, .dial_fd = channel[1]};
    g = (struct fuzz_guest){.type = VIRTIO_TYPE_VSOCK, .n_queues = 3, .special = special};
    fixture_init(&g.f);
    fuzz_expect(virtio_vsock_class.create(&g.device, &g.f.env, &config, NULL) == 0, "the device can be made");
    fuzz_expect(driver_find(&g.d, &g.f, g.type), "the device can be found");
    fuzz_virtio_actions(&g, &in);
    check_works(&g);
    g.device->class->destroy(g.device);
    /* What was asked for and not answered is nothing to the next one. */
    while (dial_answer(channel[0], path) == 0)
        leave(&(int){accept4(server_fd, NULL, NULL, SOCK_CLOEXEC)});
    uint32_t id;
    int fd;
    while (dial_take(channel[1], &id, &fd) == 0)
        leave(&fd);
    fixture_fini(&g.f);
    return 0;
}
