/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Streams with flow control in both directions. Reads and writes happen in the loop's thread alone, so other
 * threads only copy into the output ring. Guards the ring with a mutex of its own, held for no callback.
 */
#include "host/stream.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "host/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define INPUT_SIZE  65536
#define OUTPUT_SIZE 65536 /* a power of two */

#define OUTPUT_BATCH  4096u
#define RETRY_NS      10000000ull /* where epoll can't tell that there is room */
#define INPUT_DROPPED 256

struct stream {
    struct loop *loop;
    const struct stream_events *events;
    void *opaque;
    bool always_read;

    /* Input: the loop's thread only, but for in_timer, which any may arm. */
    int in_fd;
    struct loop_watch *in_watch; /* NULL: a file, read whenever more is wanted */
    bool in_ended;
    uint8_t in[INPUT_SIZE];
    size_t in_start, in_end;
    struct loop_timer *in_timer;

    /* Output */
    int out_fd;
    uint64_t out_delay_ns;
    enum { OUT_NONBLOCKING, OUT_SOCKET, OUT_SHARED } out_kind;
    bool out_is_ours; /* to be closed */
    struct loop_watch *out_watch;
    struct loop_timer *out_timer;
    pthread_mutex_t lock;        /* guards what follows */
    uint64_t out_head, out_tail; /* bytes written to the ring and taken from it, ever */
    bool out_armed;              /* the timer or the watch will flush */
    bool out_refused;            /* output_ready is owed */
    bool out_broken;             /* nobody reads: bytes are dropped */
    bool out_ends;               /* nothing is written any more */
    uint8_t out[OUTPUT_SIZE];
};

/*
 * O_NONBLOCK belongs to the open file, which we share with the shell that started us. So a terminal or a pipe
 * is opened again for us alone.
 */
static void open_output(struct stream *s, int fd)
{
    char path[40];
    struct stat st;

    s->out_fd = fd;
    s->out_kind = OUT_SHARED;
    if (fstat(fd, &st) < 0)
        return;
    if (S_ISSOCK(st.st_mode)) {
        s->out_kind = OUT_SOCKET;
        /* The loop knows a descriptor once only. */
        int own = fd == s->in_fd ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
        if (own >= 0) {
            s->out_fd = own;
            s->out_is_ours = true;
        }
    }
    if (!S_ISCHR(st.st_mode) && !S_ISFIFO(st.st_mode))
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own >= 0) {
        s->out_fd = own;
        s->out_kind = OUT_NONBLOCKING;
        s->out_is_ours = true;
    }
}

/* As write, without blocking: -1 with EAGAIN instead. */
static ssize_t write_some(struct stream *s, const void *bytes, size_t len)
{
    if (s->out_kind == OUT_NONBLOCKING)
        return write(s->out_fd, bytes, len);
    if (s->out_kind == OUT_SOCKET)
        return send(s->out_fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    struct pollfd p = {.fd = s->out_fd, .events = POLLOUT};
    if (poll(&p, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    /* Room for so little there is wherever poll reports any. */
    return write(s->out_fd, bytes, len < 512 ? len : 512);
}

/* Writes until the ring is empty or the reader has enough. 0, -EAGAIN, or -errno for good. */
static int flush_locked(struct stream *s)
{
    while (s->out_tail != s->out_head) {
        size_t start = s->out_tail % OUTPUT_SIZE;
        size_t len = (size_t)(s->out_head - s->out_tail);

        if (len > OUTPUT_SIZE - start)
            len = OUTPUT_SIZE - start;
        ssize_t n = write_some(s, s->out + start, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        s->out_tail += (uint64_t)n;
    }
    return 0;
}

static void flush(struct stream *s)
{
    bool broke = false, ready = false;

    pthread_mutex_lock(&s->lock);
    int rc = flush_locked(s);
    if (rc == -EAGAIN) {
        /* Without a watch (a shared descriptor that epoll refuses) look again soon. */
        if (!s->out_watch || loop_watch_modify(s->out_watch, EPOLLOUT) < 0)
            loop_timer_arm(s->out_timer, loop_now() + RETRY_NS);
    } else {
        if (s->out_watch)
            loop_watch_modify(s->out_watch, 0);
        s->out_armed = false;
        if (rc == 0 && s->out_ends && s->out_kind == OUT_SOCKET)
            shutdown(s->out_fd, SHUT_WR);
        if (rc < 0 && !s->out_broken) {
            broke = s->out_broken = true;
            s->out_tail = s->out_head;
        }
    }
    if (s->out_refused && s->out_head - s->out_tail <= OUTPUT_SIZE / 2) {
        s->out_refused = false;
        ready = true;
    }
    pthread_mutex_unlock(&s->lock);
    if (ready && s->events->output_ready)
        s->events->output_ready(s->opaque);
    if (broke && s->events->output_broke)
        s->events->output_broke(s->opaque);
}

static void on_flush_timer(void *opaque)
{
    flush(opaque);
}

static void on_writable(void *opaque, uint32_t events)
{
    flush(opaque);
}

size_t stream_write(struct stream *stream, const void *bytes, size_t len)
{
    struct stream *s = stream;
    LOCK_SCOPE(&s->lock);

    if (s->out_broken)
        return len;
    size_t room = OUTPUT_SIZE - (size_t)(s->out_head - s->out_tail);
    size_t taken = len < room ? len : room;
    size_t start = s->out_head % OUTPUT_SIZE;
    size_t first = taken < OUTPUT_SIZE - start ? taken : OUTPUT_SIZE - start;

    memcpy(s->out + start, bytes, first);
    memcpy(s->out, (const uint8_t *)bytes + first, taken - first);
    uint64_t before = s->out_head - s->out_tail;
    s->out_head += taken;
    if (!s->out_armed) {
        s->out_armed = true;
        loop_timer_arm(s->out_timer, s->out_delay_ns ? loop_now() + s->out_delay_ns : 0);
        before = 0;
    }
    /* A batch is complete: no need to wait. (When the reader is slow, this costs one try a batch.) */
    if (before < OUTPUT_BATCH && s->out_head - s->out_tail >= OUTPUT_BATCH)
        loop_timer_arm(s->out_timer, 0);
    if (taken < len)
        s->out_refused = true;
    return taken;
}

void stream_end_output(struct stream *stream)
{
    struct stream *s = stream;
    LOCK_SCOPE(&s->lock);

    s->out_ends = true;
    if (!s->out_armed) {
        s->out_armed = true;
        loop_timer_arm(s->out_timer, 0);
    }
}

size_t stream_room(struct stream *stream)
{
    struct stream *s = stream;
    LOCK_SCOPE(&s->lock);

    size_t room = OUTPUT_SIZE - (size_t)(s->out_head - s->out_tail);
    if (!room)
        s->out_refused = true;
    return room;
}

static void end_input(struct stream *s)
{
    s->in_ended = true;
    loop_watch_remove(steal_ptr(s->in_watch));
    if (s->events->input_ended)
        s->events->input_ended(s->opaque);
}

/* Reads once. False when there is nothing more for now. */
static bool read_input(struct stream *s)
{
    if (s->in_start > 0) {
        memmove(s->in, s->in + s->in_start, s->in_end - s->in_start);
        s->in_end -= s->in_start;
        s->in_start = 0;
    }
    if (s->always_read && s->in_end == INPUT_SIZE)
        s->in_end -= INPUT_DROPPED;
    size_t from = s->in_end;
    ssize_t n = read(s->in_fd, s->in + from, INPUT_SIZE - from);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return false;
    if (n <= 0) {
        end_input(s);
        return false;
    }
    s->in_end += s->events->examine ? s->events->examine(s->opaque, s->in + from, (size_t)n) : (size_t)n;
    return true;
}

/* Hands on what there is. True when all of it was taken. */
static bool deliver_input(struct stream *s)
{
    if (s->in_start < s->in_end)
        s->in_start += s->events->input(s->opaque, s->in + s->in_start, s->in_end - s->in_start);
    return s->in_start >= s->in_end;
}

static void on_readable(void *opaque, uint32_t events)
{
    struct stream *s = opaque;

    read_input(s);
    /* The other end is to feel that this one is slow. */
    if (!deliver_input(s) && !s->always_read && s->in_watch)
        loop_watch_modify(s->in_watch, 0);
}

static void pump_input(void *opaque)
{
    struct stream *s = opaque;

    bool wants_more = deliver_input(s);
    if (s->in_watch && wants_more)
        loop_watch_modify(s->in_watch, EPOLLIN);
    while (!s->in_watch && !s->in_ended && wants_more && read_input(s))
        wants_more = deliver_input(s);
}

void stream_input_ready(struct stream *stream)
{
    /* A timer and no loop_post: it can be called off when the stream is closed. */
    loop_timer_arm(stream->in_timer, 0);
}

static int watch_all(struct stream *s)
{
    int rc = loop_watch_add(s->loop, s->in_fd, EPOLLIN, on_readable, s, &s->in_watch);

    if (rc == -EPERM) {
        stream_input_ready(s); /* a file: pumped from the start */
        rc = 0;
    } else if (rc == -EBADF) {
        s->in_ended = true; /* started with standard input closed */
        rc = 0;
    }
    if (rc)
        return rc;
    rc = loop_watch_add(s->loop, s->out_fd, 0, on_writable, s, &s->out_watch);
    return rc == -EPERM || rc == -EBADF ? 0 : rc;
}

int stream_open(struct stream **out, const struct stream_config *config, struct error **err)
{
    struct stream *s = calloc(1, sizeof(*s));

    if (!s)
        return error_set_errno(err, ENOMEM, "console");
    s->loop = config->loop;
    s->events = config->events;
    s->opaque = config->opaque;
    s->always_read = config->always_read;
    s->in_fd = config->in_fd;
    s->out_delay_ns = config->out_delay_ns;
    pthread_mutex_init(&s->lock, NULL);
    open_output(s, config->out_fd);
    s->out_timer = loop_timer_new(s->loop, on_flush_timer, s);
    s->in_timer = loop_timer_new(s->loop, pump_input, s);
    int rc = s->out_timer && s->in_timer ? watch_all(s) : -ENOMEM;
    if (rc) {
        stream_close(s, 0);
        return error_set_errno(err, -rc, "console");
    }
    *out = s;
    return 0;
}

static void flush_finally(struct stream *s, unsigned wait_ms)
{
    uint64_t deadline = loop_now() + wait_ms * 1000000ull;
    LOCK_SCOPE(&s->lock);

    while (!s->out_broken && flush_locked(s) == -EAGAIN) {
        uint64_t now = loop_now();
        struct pollfd p = {.fd = s->out_fd, .events = POLLOUT};

        if (now >= deadline)
            break;
        poll(&p, 1, (int)((deadline - now) / 1000000u) + 1);
    }
}

void stream_close(struct stream *stream, unsigned wait_ms)
{
    struct stream *s = stream;

    if (!s)
        return;
    flush_finally(s, wait_ms);
    loop_watch_remove(s->in_watch);
    loop_watch_remove(s->out_watch);
    loop_timer_free(s->out_timer);
    loop_timer_free(s->in_timer);
    if (s->out_is_ours)
        close(s->out_fd);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
