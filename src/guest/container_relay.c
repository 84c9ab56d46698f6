/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One direction of a container's console. Unlike host/stream.h's both directions of one thing, each ends for
 * itself: a program's standard input may have its end long before its output has. In the loop's thread; no
 * locks. */
#include "guest/container_priv.h"

#include "base/cleanup.h"
#include "host/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#define SIZE 32768

struct relay {
    struct loop *loop;
    int from, to;
    struct loop_watch *watch; /* of `from` while nothing waits to be written, of `to` otherwise */
    size_t start, end;
    void (*ended)(void *opaque);
    void *opaque;
    uint8_t bytes[SIZE];
};

static void on_readable(void *opaque, uint32_t events);
static void on_writable(void *opaque, uint32_t events);

static void end(struct relay *r)
{
    loop_watch_remove(steal_ptr(r->watch));
    cleanup_close_fn(&r->to);
    r->to = -1;
    r->ended(r->opaque);
}

/* One of the two is watched, never both: what hangs up would be told again and again. */
static int watch(struct relay *r)
{
    bool waits = r->start < r->end;

    loop_watch_remove(steal_ptr(r->watch));
    return loop_watch_add(r->loop, waits ? r->to : r->from, waits ? EPOLLOUT : EPOLLIN,
                          waits ? on_writable : on_readable, r, &r->watch);
}

static void on_writable(void *opaque, uint32_t events)
{
    struct relay *r = opaque;

    while (r->start < r->end) {
        ssize_t n = write(r->to, r->bytes + r->start, r->end - r->start);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            break;
        if (n < 0) {
            end(r);
            return;
        }
        r->start += (size_t)n;
    }
    if (watch(r) < 0)
        end(r);
}

static void on_readable(void *opaque, uint32_t events)
{
    struct relay *r = opaque;
    ssize_t n = read(r->from, r->bytes, SIZE);

    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    /* A terminal whose last user is gone says so with an error. */
    if (n <= 0) {
        end(r);
        return;
    }
    r->start = 0;
    r->end = (size_t)n;
    on_writable(r, 0);
}

int relay_open(struct relay **out, struct loop *loop, int from, int to, void (*ended)(void *opaque),
               void *opaque)
{
    struct relay *r = calloc(1, sizeof(*r));

    if (!r) {
        close(from);
        close(to);
        return -ENOMEM;
    }
    *r = (struct relay){.loop = loop, .from = from, .to = to, .ended = ended, .opaque = opaque};
    fcntl(from, F_SETFL, fcntl(from, F_GETFL) | O_NONBLOCK);
    fcntl(to, F_SETFL, fcntl(to, F_GETFL) | O_NONBLOCK);
    int rc = watch(r);
    if (rc) {
        relay_close(r);
        return rc;
    }
    *out = r;
    return 0;
}

void relay_close(struct relay *r)
{
    if (!r)
        return;
    loop_watch_remove(r->watch);
    cleanup_close_fn(&r->from);
    cleanup_close_fn(&r->to);
    free(r);
}
