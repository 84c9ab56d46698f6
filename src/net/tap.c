/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A tap interface of the host: the kernel's own network stack is the other side, with its offloads. One file
 * descriptor a queue; what a guest's process needs of them (read, write, and the two ioctls of offloads and
 * queues) takes no privilege. Locks: none; the ioctls are the kernel's to order.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "net/net_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* Since Linux 6.2; Debian 12's headers are older. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

struct net_tap {
    struct net_fds fds;
    unsigned attached; /* queues that the kernel gives frames to */
};

static const struct {
    unsigned offload, tun;
} offload_bits[] = {
    {NET_OFFLOAD_CSUM, TUN_F_CSUM}, {NET_OFFLOAD_TSO4, TUN_F_TSO4},
    {NET_OFFLOAD_TSO6, TUN_F_TSO6}, {NET_OFFLOAD_ECN, TUN_F_TSO_ECN},
    {NET_OFFLOAD_UFO, TUN_F_UFO},   {NET_OFFLOAD_USO, TUN_F_USO4 | TUN_F_USO6},
};

static int set_offloads_fd(int fd, unsigned offloads)
{
    unsigned tun = 0;
    for (unsigned i = 0; i < sizeof(offload_bits) / sizeof(offload_bits[0]); i++)
        if (offloads & offload_bits[i].offload)
            tun |= offload_bits[i].tun;
    return ioctl(fd, TUNSETOFFLOAD, (unsigned long)tun) < 0 ? -errno : 0;
}

static int tap_set_offloads(struct net_backend *backend, unsigned offloads)
{
    /* Of the interface, not of a queue. */
    return set_offloads_fd(((struct net_tap *)backend)->fds.queues[0].fd, offloads);
}

static int attach(int fd, bool yes)
{
    struct ifreq ifr = {.ifr_flags = (short)(yes ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE)};
    return ioctl(fd, TUNSETQUEUE, &ifr) < 0 ? -errno : 0;
}

static int tap_set_queues(struct net_backend *backend, unsigned n)
{
    struct net_tap *tap = (struct net_tap *)backend;
    int rc = 0;
    while (rc == 0 && tap->attached < n) {
        rc = attach(tap->fds.queues[tap->attached].fd, true);
        tap->attached += rc == 0;
    }
    while (rc == 0 && tap->attached > n) {
        rc = attach(tap->fds.queues[tap->attached - 1].fd, false);
        tap->attached -= rc == 0;
    }
    return rc;
}

static void tap_close(struct net_backend *backend)
{
    struct net_tap *tap = (struct net_tap *)backend;
    net_fds_close(&tap->fds);
    free(tap);
}

static const struct net_backend_class tap_class = {
    .name = "tap",
    .start = net_fds_start,
    .stop = net_fds_stop,
    .send = net_fds_send,
    .receive = net_fds_receive,
    .watch = net_fds_watch,
    .set_offloads = tap_set_offloads,
    .set_queues = tap_set_queues,
    .descriptors = net_fds_descriptors,
    .release = net_fds_release,
    .close = tap_close,
};

/* Flags, index or MTU of an interface: 0 or -errno. */
static int interface_ioctl(const char *name, unsigned long request, struct ifreq *ifr)
{
    cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    strncpy(ifr->ifr_name, name, IFNAMSIZ - 1);
    return ioctl(fd, request, ifr) < 0 ? -errno : 0;
}

static int check_name(const struct net_config *config, struct error **err)
{
    struct ifreq ifr = {0};
    const char *name = config->tap;
    if (!name[0] || strlen(name) >= IFNAMSIZ || strchr(name, '/') || strchr(name, '%'))
        return error_set(err, EINVAL, "'%s' is no name of an interface", name);
    int rc = interface_ioctl(name, SIOCGIFINDEX, &ifr);
    if (rc == -ENODEV && !config->create)
        return error_set(err, ENODEV,
                         "no interface '%s': make it with 'ip tuntap add mode tap %s', or give tap=%s,create",
                         name, name, name);
    if (rc && rc != -ENODEV)
        return error_set_errno(err, -rc, "interface '%s'", name);
    return 0;
}

static int explain(const char *name, int errnum, struct error **err)
{
    switch (errnum) {
    case EPERM:
    case EACCES:
        return error_set(err, errnum,
                         "interface '%s': no permission: let it belong to you ('ip tuntap add mode tap user "
                         "%s %s'), or run as root",
                         name, "NAME", name);
    case EBUSY:
        return error_set(err, errnum, "interface '%s' is in use by another guest or program", name);
    case EINVAL:
        return error_set(err, errnum, "interface '%s' is no tap interface", name);
    default:
        return error_set_errno(err, errnum, "interface '%s'", name);
    }
}

/* One more file of the interface: a descriptor or -errno. */
static int open_queue(const char *name, short flags)
{
    cleanup_close int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    struct ifreq ifr = {.ifr_flags = flags};
    strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
    if (ioctl(fd, TUNSETIFF, &ifr) < 0)
        return -errno;
    int header = NET_HEADER_SIZE, little = 1;
    if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0)
        return -errno;
    /* Kernels without this ioctl have the host's order, which is the same. */
    if (ioctl(fd, TUNSETVNETLE, &little) < 0 && errno != EINVAL)
        return -errno;
    return steal_fd(fd);
}

static int open_queues(struct net_tap *tap, const struct net_config *config, struct error **err)
{
    const short flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    unsigned wanted = config->queues ? config->queues : 1;
    bool multi = true;
    /* An interface was made for one queue or for several, and wants to be asked for what it is. */
    int fd = open_queue(config->tap, flags | IFF_MULTI_QUEUE);
    if (fd == -EINVAL) {
        multi = false;
        fd = open_queue(config->tap, flags);
    }
    if (fd == -ENOENT || fd == -ENODEV || fd == -ENXIO)
        return error_set(err, -fd, "this host has no tap interfaces: /dev/net/tun is missing (modprobe tun)");
    if (fd < 0)
        return explain(config->tap, -fd, err);
    net_fds_add(&tap->fds, fd, false);
    while (multi && tap->fds.n < wanted && tap->fds.n < NET_MAX_QUEUES) {
        fd = open_queue(config->tap, flags | IFF_MULTI_QUEUE);
        if (fd == -E2BIG)
            break; /* the interface was made with fewer */
        if (fd < 0)
            return explain(config->tap, -fd, err);
        net_fds_add(&tap->fds, fd, false);
    }
    return 0;
}

/* What this kernel knows: newer offloads are refused together with all others by older kernels. */
static unsigned probe_offloads(int fd)
{
    const unsigned base =
        NET_OFFLOAD_CSUM | NET_OFFLOAD_TSO4 | NET_OFFLOAD_TSO6 | NET_OFFLOAD_ECN | NET_OFFLOAD_UFO;
    const unsigned tries[] = {base | NET_OFFLOAD_USO, base, base & ~NET_OFFLOAD_UFO, NET_OFFLOAD_CSUM};
    unsigned found = 0;
    for (unsigned i = 0; !found && i < sizeof(tries) / sizeof(tries[0]); i++)
        if (set_offloads_fd(fd, tries[i]) == 0)
            found = tries[i];
    set_offloads_fd(fd, 0);
    return found;
}

static int bring_up(const char *name, struct error **err)
{
    struct ifreq ifr = {0};
    int rc = interface_ioctl(name, SIOCGIFFLAGS, &ifr);
    if (rc == 0 && !(ifr.ifr_flags & IFF_UP)) {
        ifr.ifr_flags |= IFF_UP;
        rc = interface_ioctl(name, SIOCSIFFLAGS, &ifr);
    }
    return rc ? error_set_errno(err, -rc, "switching interface '%s' on", name) : 0;
}

int net_tap_open(struct net_backend **out, const struct net_config *config, struct error **err)
{
    struct ifreq ifr = {0};
    int rc = check_name(config, err);
    if (rc)
        return rc;
    struct net_tap *tap = calloc(1, sizeof(*tap));
    if (!tap)
        return error_set_errno(err, ENOMEM, "tap");
    struct net_features *features = &tap->fds.backend.features;
    tap->fds.backend.class = &tap_class;
    rc = open_queues(tap, config, err);
    if (rc == 0 && config->create)
        rc = bring_up(config->tap, err);
    if (rc) {
        tap_close(&tap->fds.backend);
        return rc;
    }
    if (interface_ioctl(config->tap, SIOCGIFMTU, &ifr) == 0 && ifr.ifr_mtu > 0 && ifr.ifr_mtu <= UINT16_MAX)
        features->mtu = (uint16_t)ifr.ifr_mtu;
    features->queues = tap->fds.n;
    features->receive = probe_offloads(tap->fds.queues[0].fd);
    /* The kernel takes from us whatever it could give. */
    features->send = features->receive;
    tap->attached = tap->fds.n;
    tap_set_queues(&tap->fds.backend, 1);
    *out = &tap->fds.backend;
    return 0;
}
