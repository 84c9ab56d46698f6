/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The network of a container with --net user. In its network namespace a tap interface is made; this process
 * keeps the other end and moves Ethernet frames between it and the network process, which speaks for the
 * guest as it does for a virtual machine. Both know a frame by the same header (struct net_header), so frames
 * pass unchanged. In the loop's thread; no locks.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "guest/container_priv.h"
#include "host/loop.h"
#include "net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/route.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define INTERFACE "eth0"
#define ADDRESS   "10.0.2.15"
#define NETMASK   "255.255.255.0"
#define GATEWAY   "10.0.2.2"
#define AT_ONCE   64 /* frames, before others have their turn */

struct container_net {
    struct net_backend *backend;
    struct loop_watch *watch;
    int tap;
    bool started, tap_waits; /* a frame from the tap is in `out`, and the backend takes none */
    size_t out_len;
    uint8_t in[NET_HEADER_SIZE + NET_FRAME_MAX], out[NET_HEADER_SIZE + NET_FRAME_MAX];
};

/* ---- in its network namespace ---- */

static int bring_up(int fd, const char *name)
{
    struct ifreq ifr = {0};

    strcpy(ifr.ifr_name, name);
    if (ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
        return -errno;
    ifr.ifr_flags |= IFF_UP | IFF_RUNNING;
    return ioctl(fd, SIOCSIFFLAGS, &ifr) < 0 ? -errno : 0;
}

static void set_address(struct sockaddr *to, const char *text)
{
    struct sockaddr_in in = {.sin_family = AF_INET};

    inet_pton(AF_INET, text, &in.sin_addr);
    memcpy(to, &in, sizeof(in));
}

static int set_addresses(int fd)
{
    struct ifreq ifr = {0};
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};

    strcpy(ifr.ifr_name, INTERFACE);
    set_address(&ifr.ifr_addr, ADDRESS);
    if (ioctl(fd, SIOCSIFADDR, &ifr) < 0)
        return -errno;
    set_address(&ifr.ifr_netmask, NETMASK);
    if (ioctl(fd, SIOCSIFNETMASK, &ifr) < 0)
        return -errno;
    int rc = bring_up(fd, INTERFACE);
    set_address(&route.rt_dst, "0.0.0.0");
    set_address(&route.rt_genmask, "0.0.0.0");
    set_address(&route.rt_gateway, GATEWAY);
    if (rc == 0 && ioctl(fd, SIOCADDRT, &route) < 0)
        rc = -errno;
    return rc;
}

/* A tap interface with the header that the backends use, and no offloads. */
static int make_tap(void)
{
    struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    int size = NET_HEADER_SIZE;
    cleanup_close int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

    strcpy(ifr.ifr_name, INTERFACE);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &size) < 0)
        return -errno;
    return steal_fd(fd);
}

static int configure(struct container_net *net, bool has_backend)
{
    cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int rc = fd < 0 ? -errno : bring_up(fd, "lo");

    if (rc || !has_backend)
        return rc;
    net->tap = make_tap();
    return net->tap < 0 ? net->tap : set_addresses(fd);
}

/* ---- frames ---- */

static void send_frames(struct container_net *net);

static void on_backend(void *opaque, unsigned queue)
{
    struct container_net *net = opaque;

    for (int i = 0; i < AT_ONCE; i++) {
        ssize_t n = net_receive(net->backend, 0, net->in, sizeof(net->in));

        if (n < 0)
            break;
        /* What the kernel does not take now, while the interface is full or down, is lost as on a wire. */
        if (n >= NET_HEADER_SIZE && write(net->tap, net->in, (size_t)n) < 0)
            continue;
    }
    send_frames(net);
}

static void send_frames(struct container_net *net)
{
    for (int i = 0; i < AT_ONCE; i++) {
        if (!net->out_len) {
            ssize_t n = read(net->tap, net->out, sizeof(net->out));
            if (n <= 0)
                break;
            net->out_len = (size_t)n;
        }
        const struct iovec iov = {.iov_base = net->out, .iov_len = net->out_len};
        int rc = net_send(net->backend, 0, &iov, 1);
        if (rc == -EAGAIN)
            break;
        net->out_len = 0;
    }
    if (net->watch)
        loop_watch_modify(net->watch, net->out_len ? 0 : EPOLLIN);
    net_watch(net->backend, 0, true, net->out_len != 0);
}

static void on_tap(void *opaque, uint32_t events)
{
    send_frames(opaque);
}

/* ---- the whole ---- */

int container_net_open(struct container_net **out, bool has_backend, struct error **err)
{
    struct container_net *net = calloc(1, sizeof(*net));

    if (!net)
        return error_set_errno(err, ENOMEM, "network");
    net->tap = -1;
    if (has_backend && access("/dev/net/tun", R_OK | W_OK) < 0) {
        int rc = error_set(
            err, errno,
            "the user network can't open /dev/net/tun (%s): 'modprobe tun' makes it, 'chmod 666' gives it to "
            "all; or run with --net none or host",
            strerror(errno));
        container_net_close(net);
        return rc;
    }
    int rc = unshare(CLONE_NEWNET) < 0 ? -errno : configure(net, has_backend);
    if (rc == 0) {
        *out = net;
        return 0;
    }
    container_net_close(net);
    return error_set_errno(err, -rc, "the container's network");
}

int container_net_start(struct container_net *net, struct loop *loop, struct net_backend *backend,
                        struct error **err)
{
    const struct net_client client = {.ready = on_backend, .opaque = net};

    net->backend = backend;
    int rc = net_start(backend, &client, loop, err);
    if (rc)
        return rc;
    net->started = true;
    rc = loop_watch_add(loop, net->tap, EPOLLIN, on_tap, net, &net->watch);
    if (rc)
        return error_set_errno(err, -rc, "the container's network");
    net_watch(backend, 0, true, false);
    return 0;
}

void container_net_close(struct container_net *net)
{
    if (!net)
        return;
    loop_watch_remove(net->watch);
    if (net->started)
        net_stop(net->backend);
    cleanup_close_fn(&net->tap);
    free(net);
}
