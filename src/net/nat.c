/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process that speaks for a guest on the `user` network: libslirp, which is a router with DHCP, DNS and
 * address translation made of ordinary sockets, between them and the socket to the guest. It believes nothing
 * that comes from there. One thread, no locks.
 *
 * The guest's network is 10.0.2.0/24: the router and host is 10.0.2.2, the name server 10.0.2.3, the guest
 * gets 10.0.2.15. Packets are large (USER_MTU), so that few frames cross for much of TCP.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "net/frame.h"
#include "net/libslirp.h"
#include "net/user_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define NS_PER_MS 1000000

/* Frames that wait until the guest's side takes them. TCP keeps itself below this by its window; what is
 * beyond it is lost, as on a wire. */
#define BACKLOG_MAX (16u << 20)
/* Frames to take before the sockets get their turn. */
#define FRAMES_AT_ONCE 64
/* Connections to a published port that wait to be accepted. */
#define LISTEN_BACKLOG 128

struct waiting {
    struct waiting *next;
    size_t len;
    uint8_t bytes[];
};

struct nat_timer {
    struct nat_timer *next;
    SlirpTimerCb callback;
    void *opaque;
    int64_t expires; /* ms; -1 when not armed */
};

struct nat {
    const struct libslirp *lib;
    Slirp *slirp;
    int fd;
    struct pollfd *polls; /* the first is `fd` */
    size_t n_polls, max_polls;
    struct nat_timer *timers;
    struct waiting *first, **last;
    size_t backlog;
    uint8_t frame[NET_BUFFER_MAX];
};

static int64_t now_ns(void *opaque)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* ---- frames to the guest ---- */

static ssize_t try_send(struct nat *nat, const void *bytes, size_t len)
{
    return send(nat->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void flush(struct nat *nat)
{
    while (nat->first) {
        struct waiting *w = nat->first;
        if (try_send(nat, w->bytes, w->len) < 0 && (errno == EAGAIN || errno == ENOBUFS))
            return;
        nat->first = w->next;
        nat->backlog -= w->len;
        free(w);
    }
    nat->last = &nat->first;
}

static void keep(struct nat *nat, const struct net_header *header, const void *frame, size_t len)
{
    size_t total = sizeof(*header) + len;
    if (nat->backlog + total > BACKLOG_MAX)
        return;
    struct waiting *w = malloc(sizeof(*w) + total);
    if (!w)
        return;
    w->next = NULL;
    w->len = total;
    memcpy(w->bytes, header, sizeof(*header));
    memcpy(w->bytes + sizeof(*header), frame, len);
    *nat->last = w;
    nat->last = &w->next;
    nat->backlog += total;
}

static ssize_t send_packet(const void *frame, size_t len, void *opaque)
{
    /* libslirp has made the checksums itself, so nobody needs to check them. */
    static const struct net_header header = {.flags = NET_DATA_VALID, .num_buffers = 1};
    struct nat *nat = opaque;
    struct iovec iov[2] = {{(void *)(uintptr_t)&header, sizeof(header)}, {(void *)(uintptr_t)frame, len}};
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 2};

    if (len > NET_FRAME_MAX)
        return (ssize_t)len;
    if (nat->first || (sendmsg(nat->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
                       (errno == EAGAIN || errno == ENOBUFS)))
        keep(nat, &header, frame, len);
    return (ssize_t)len;
}

/* ---- what libslirp wants of its surroundings ---- */

static void guest_error(const char *message, void *opaque)
{
    /* Whatever the guest did wrong is its own affair. */
}

static void *timer_new(SlirpTimerCb callback, void *callback_opaque, void *opaque)
{
    struct nat *nat = opaque;
    struct nat_timer *timer = calloc(1, sizeof(*timer));
    if (!timer)
        abort(); /* libslirp knows no failure here; this process holds nothing but connections */
    *timer = (struct nat_timer){nat->timers, callback, callback_opaque, -1};
    nat->timers = timer;
    return timer;
}

static void timer_free(void *timer, void *opaque)
{
    struct nat *nat = opaque;
    for (struct nat_timer **at = &nat->timers; *at; at = &(*at)->next)
        if (*at == timer) {
            *at = (*at)->next;
            free(timer);
            return;
        }
}

static void timer_mod(void *opaque_timer, int64_t expires, void *opaque)
{
    ((struct nat_timer *)opaque_timer)->expires = expires;
}

static void ignore_fd(int fd, void *opaque)
{
    /* All descriptors are asked for before each poll. */
}

static void notify(void *opaque)
{
    /* There is one thread: whatever changed, it sees before it sleeps. */
}

static const SlirpCb callbacks = {
    .send_packet = send_packet,
    .guest_error = guest_error,
    .clock_get_ns = now_ns,
    .timer_new = timer_new,
    .timer_free = timer_free,
    .timer_mod = timer_mod,
    .register_poll_fd = ignore_fd,
    .unregister_poll_fd = ignore_fd,
    .notify = notify,
};

/* ---- the loop ---- */

static int add_poll(int fd, int events, void *opaque)
{
    struct nat *nat = opaque;
    if (nat->n_polls == nat->max_polls) {
        size_t max = nat->max_polls ? 2 * nat->max_polls : 64;
        struct pollfd *more = realloc(nat->polls, max * sizeof(*more));
        if (!more)
            return -1; /* not watched this time */
        nat->polls = more;
        nat->max_polls = max;
    }
    short wanted = 0;
    if (events & SLIRP_POLL_IN)
        wanted |= POLLIN;
    if (events & SLIRP_POLL_OUT)
        wanted |= POLLOUT;
    if (events & SLIRP_POLL_PRI)
        wanted |= POLLPRI;
    nat->polls[nat->n_polls] = (struct pollfd){.fd = fd, .events = wanted};
    return (int)nat->n_polls++;
}

static int get_revents(int i, void *opaque)
{
    const struct nat *nat = opaque;
    short got = nat->polls[i].revents;
    int events = 0;
    if (got & POLLIN)
        events |= SLIRP_POLL_IN;
    if (got & POLLOUT)
        events |= SLIRP_POLL_OUT;
    if (got & POLLPRI)
        events |= SLIRP_POLL_PRI;
    if (got & (POLLERR | POLLNVAL))
        events |= SLIRP_POLL_ERR;
    if (got & POLLHUP)
        events |= SLIRP_POLL_HUP;
    return events;
}

static void run_timers(struct nat *nat)
{
    int64_t now = now_ns(NULL) / NS_PER_MS;
    for (struct nat_timer *timer = nat->timers, *next; timer; timer = next) {
        next = timer->next;
        if (timer->expires >= 0 && timer->expires <= now) {
            timer->expires = -1;
            timer->callback(timer->opaque);
        }
    }
}

static int wait_ms(const struct nat *nat, uint32_t slirp_ms)
{
    int64_t now = now_ns(NULL) / NS_PER_MS, wait = slirp_ms == UINT32_MAX ? INT32_MAX : (int64_t)slirp_ms;
    for (const struct nat_timer *timer = nat->timers; timer; timer = timer->next)
        if (timer->expires >= 0 && timer->expires - now < wait)
            wait = timer->expires > now ? timer->expires - now : 0;
    return wait == INT32_MAX ? -1 : (int)wait;
}

/* False once the other side is gone. */
static bool take_frames(struct nat *nat)
{
    for (unsigned i = 0; i < FRAMES_AT_ONCE; i++) {
        ssize_t n = recv(nat->fd, nat->frame, sizeof(nat->frame), MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n <= 0)
            return false;
        struct net_header header;
        if ((size_t)n < sizeof(header))
            continue;
        memcpy(&header, nat->frame, sizeof(header));
        size_t len = (size_t)n - sizeof(header);
        if (frame_prepare(&header, nat->frame + sizeof(header), len))
            nat->lib->slirp_input(nat->slirp, nat->frame + sizeof(header), (int)len);
    }
    return true;
}

void nat_run(struct nat *nat)
{
    for (;;) {
        uint32_t timeout = UINT32_MAX;
        nat->n_polls = 0;
        int own = add_poll(nat->fd, SLIRP_POLL_IN | (nat->first ? SLIRP_POLL_OUT : 0), nat);
        nat->lib->slirp_pollfds_fill(nat->slirp, &timeout, add_poll, nat);
        int rc = poll(nat->polls, nat->n_polls, wait_ms(nat, timeout));
        if (rc >= 0 && own >= 0 && nat->polls[own].revents) {
            if (nat->polls[own].revents & POLLOUT)
                flush(nat);
            if (!take_frames(nat))
                return;
        }
        nat->lib->slirp_pollfds_poll(nat->slirp, rc < 0, get_revents, nat);
        run_timers(nat);
    }
}

/* ---- set-up ---- */

static int publish(struct nat *nat, const struct net_publish *port, struct error **err)
{
    struct in_addr host, any = {0};
    char text[INET_ADDRSTRLEN];
    memcpy(&host, port->address, sizeof(host));
    inet_ntop(AF_INET, &host, text, sizeof(text));
    const char *kind = port->udp ? "UDP" : "TCP";
    errno = 0;
    if (nat->lib->slirp_add_hostfwd(nat->slirp, port->udp, host, port->host, any, port->guest) == 0)
        return 0;
    switch (errno) {
    case EADDRINUSE:
        return error_set(err, EADDRINUSE,
                         "%s port %u is in use on this host: publish another, or end who has it ('ss -%cnlp "
                         "sport = :%u')",
                         kind, port->host, port->udp ? 'u' : 't', port->host);
    case EACCES:
        return error_set(err, EACCES,
                         "%s port %u: no permission: ports below 1024 need root, or a lower "
                         "net.ipv4.ip_unprivileged_port_start",
                         kind, port->host);
    case EADDRNOTAVAIL:
        return error_set(err, EADDRNOTAVAIL, "%s is no address of this host", text);
    default:
        return error_set_errno(err, errno ? errno : EIO, "publishing %s port %u", kind, port->host);
    }
}

/* Whether this host can send IPv6 anywhere. Sends nothing. */
static bool host_has_ipv6(void)
{
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(53)};
    inet_pton(AF_INET6, "2000::1", &to.sin6_addr); /* of those that are anyone's in the Internet */
    cleanup_close int fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0;
}

static struct in_addr on_subnet(unsigned subnet, unsigned host)
{
    return (struct in_addr){htonl(10u << 24 | (2 + subnet) << 8 | host)};
}

static struct in6_addr on_subnet6(unsigned subnet, unsigned host)
{
    struct in6_addr address = {.s6_addr = {0xfe, 0xc0}};
    address.s6_addr[7] = (uint8_t)subnet;
    address.s6_addr[15] = (uint8_t)host;
    return address;
}

/* Called for each published port, once. */
static int let_more_wait(int fd, int events, void *opaque)
{
    int listening = 0;
    socklen_t len = sizeof(listening);
    /* libslirp lets one connection wait. */
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) == 0 && listening)
        listen(fd, LISTEN_BACKLOG);
    return -1;
}

void nat_free(struct nat *nat)
{
    if (!nat)
        return;
    if (nat->slirp)
        nat->lib->slirp_cleanup(nat->slirp);
    while (nat->first) {
        struct waiting *w = nat->first;
        nat->first = w->next;
        free(w);
    }
    free(nat->polls);
    free(nat);
}

int nat_create(struct nat **out, const struct net_config *config, int fd, struct error **err)
{
    const struct libslirp *lib = libslirp(err);
    if (!lib)
        return -ENOPKG;
    unsigned subnet = config->subnet;
    const SlirpConfig slirp_config = {
        .version = 1,
        .restricted = config->restricted,
        .in_enabled = true,
        .vnetwork = on_subnet(subnet, 0),
        .vnetmask = {htonl(0xffffff00)},
        .vhost = on_subnet(subnet, 2),
        .vdhcp_start = on_subnet(subnet, 15),
        .vnameserver = on_subnet(subnet, 3),
        .in6_enabled = host_has_ipv6(),
        .vprefix_addr6 = on_subnet6(subnet, 0),
        .vprefix_len = 64,
        .vhost6 = on_subnet6(subnet, 2),
        .vnameserver6 = on_subnet6(subnet, 3),
        .if_mtu = USER_MTU,
        .if_mru = USER_MTU,
    };
    struct nat *nat = calloc(1, sizeof(*nat));
    if (!nat)
        return error_set_errno(err, ENOMEM, "network");
    nat->lib = lib;
    nat->fd = fd;
    nat->last = &nat->first;
    nat->slirp = lib->slirp_new(&slirp_config, &callbacks, nat);
    int rc = nat->slirp ? 0
                        : error_set(err, EINVAL, "libslirp %s does not take its configuration",
                                    lib->slirp_version_string());
    for (size_t i = 0; rc == 0 && i < config->n_ports; i++)
        rc = publish(nat, &config->ports[i], err);
    if (rc) {
        nat_free(nat);
        return rc;
    }
    uint32_t timeout = UINT32_MAX;
    nat->lib->slirp_pollfds_fill(nat->slirp, &timeout, let_more_wait, nat);
    *out = nat;
    return 0;
}
