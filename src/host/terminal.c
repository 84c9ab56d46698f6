/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Input and output of the guest's console with flow control in both directions. Used by the machine; reads
 * and writes happen in the loop's thread alone, so vCPU threads only copy into the output ring. Guards the
 * ring with a mutex of its own, held for no callback.
 */
#include "host/terminal.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "host/loop.h"
#include "host/terminal_mode.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_LEAVE 0x1d /* Ctrl-] */

#define INPUT_SIZE  65536
#define OUTPUT_SIZE 65536 /* a power of two */

/* A guest writes its console byte by byte: what comes within this time goes out in one write. */
#define OUTPUT_DELAY_NS 1000000ull
#define OUTPUT_BATCH    4096u

#define CLOSE_WAIT_MS 1000

struct terminal {
    struct loop *loop;
    const struct terminal_events *events;
    void *opaque;
    bool interactive;
    bool mode_entered;

    int signal_pipe[2];
    struct loop_watch *signal_watch;

    /* Input: the loop's thread only, but for input_ready_posted. */
    int in_fd;
    struct loop_watch *in_watch; /* NULL: a file, read whenever the guest wants more */
    bool in_ended;
    uint8_t in[INPUT_SIZE];
    size_t in_start, in_end;
    atomic_bool input_ready_posted;

    /* Output */
    int out_fd;
    enum { OUT_NONBLOCKING, OUT_SOCKET, OUT_SHARED } out_kind;
    bool out_is_ours; /* to be closed */
    struct loop_watch *out_watch;
    struct loop_timer *out_timer;
    pthread_mutex_t lock;        /* guards what follows */
    uint64_t out_head, out_tail; /* bytes written to the ring and taken from it, ever */
    bool out_armed;              /* the timer or the watch will flush */
    bool out_refused;            /* output_ready is owed */
    bool out_broken;             /* nobody reads: bytes are dropped */
    uint8_t out[OUTPUT_SIZE];
};

/*
 * O_NONBLOCK belongs to the open file, which we share with the shell that started us. So a terminal or a pipe
 * is opened again for us alone.
 */
static void open_output(struct terminal *t, int fd)
{
    char path[40];
    struct stat st;

    t->out_fd = fd;
    t->out_kind = OUT_SHARED;
    if (fstat(fd, &st) < 0)
        return;
    if (S_ISSOCK(st.st_mode))
        t->out_kind = OUT_SOCKET;
    if (!S_ISCHR(st.st_mode) && !S_ISFIFO(st.st_mode))
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own >= 0) {
        t->out_fd = own;
        t->out_kind = OUT_NONBLOCKING;
        t->out_is_ours = true;
    }
}

/* As write, without blocking: -1 with EAGAIN instead. */
static ssize_t write_some(struct terminal *t, const void *bytes, size_t len)
{
    if (t->out_kind == OUT_NONBLOCKING)
        return write(t->out_fd, bytes, len);
    if (t->out_kind == OUT_SOCKET)
        return send(t->out_fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    struct pollfd p = {.fd = t->out_fd, .events = POLLOUT};
    if (poll(&p, 1, 0) == 0) {
        errno = EAGAIN;
        return -1;
    }
    /* Room for so little there is wherever poll reports any. */
    return write(t->out_fd, bytes, len < 512 ? len : 512);
}

/* Writes until the ring is empty or the reader has enough. 0, -EAGAIN, or -errno for good. */
static int flush_locked(struct terminal *t)
{
    while (t->out_tail != t->out_head) {
        size_t start = t->out_tail % OUTPUT_SIZE;
        size_t len = (size_t)(t->out_head - t->out_tail);

        if (len > OUTPUT_SIZE - start)
            len = OUTPUT_SIZE - start;
        ssize_t n = write_some(t, t->out + start, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        t->out_tail += (uint64_t)n;
    }
    return 0;
}

static void flush(struct terminal *t)
{
    bool broke = false, ready = false;

    pthread_mutex_lock(&t->lock);
    int rc = flush_locked(t);
    if (rc == -EAGAIN) {
        /* Without a watch (a shared descriptor that epoll refuses) look again soon. */
        if (!t->out_watch || loop_watch_modify(t->out_watch, EPOLLOUT) < 0)
            loop_timer_arm(t->out_timer, loop_now() + 10 * OUTPUT_DELAY_NS);
    } else {
        if (t->out_watch)
            loop_watch_modify(t->out_watch, 0);
        t->out_armed = false;
        if (rc < 0 && !t->out_broken) {
            broke = t->out_broken = true;
            t->out_tail = t->out_head;
        }
    }
    if (t->out_refused && t->out_head - t->out_tail <= OUTPUT_SIZE / 2) {
        t->out_refused = false;
        ready = true;
    }
    pthread_mutex_unlock(&t->lock);
    if (ready)
        t->events->output_ready(t->opaque);
    if (broke)
        t->events->ended(t->opaque, SIGPIPE);
}

static void on_flush_timer(void *opaque)
{
    flush(opaque);
}

static void on_writable(void *opaque, uint32_t events)
{
    flush(opaque);
}

size_t terminal_write(struct terminal *terminal, const void *bytes, size_t len)
{
    struct terminal *t = terminal;
    LOCK_SCOPE(&t->lock);

    if (t->out_broken)
        return len;
    size_t room = OUTPUT_SIZE - (size_t)(t->out_head - t->out_tail);
    size_t taken = len < room ? len : room;
    size_t start = t->out_head % OUTPUT_SIZE;
    size_t first = taken < OUTPUT_SIZE - start ? taken : OUTPUT_SIZE - start;

    memcpy(t->out + start, bytes, first);
    memcpy(t->out, (const uint8_t *)bytes + first, taken - first);
    uint64_t before = t->out_head - t->out_tail;
    t->out_head += taken;
    if (!t->out_armed) {
        t->out_armed = true;
        loop_timer_arm(t->out_timer, loop_now() + OUTPUT_DELAY_NS);
        before = 0;
    }
    /* A batch is complete: no need to wait. (When the reader is slow, this costs one try a batch.) */
    if (before < OUTPUT_BATCH && t->out_head - t->out_tail >= OUTPUT_BATCH)
        loop_timer_arm(t->out_timer, 0);
    if (taken < len)
        t->out_refused = true;
    return taken;
}

/* Ctrl-] in what was just read at the buffer's end: drops it and what follows. */
static bool take_leave_key(struct terminal *t, size_t from)
{
    uint8_t *key = t->interactive ? memchr(t->in + from, KEY_LEAVE, t->in_end - from) : NULL;

    if (key)
        t->in_end = (size_t)(key - t->in);
    return key;
}

/* Reads once. False when there is nothing more for now. */
static bool read_input(struct terminal *t)
{
    if (t->in_start > 0) {
        memmove(t->in, t->in + t->in_start, t->in_end - t->in_start);
        t->in_end -= t->in_start;
        t->in_start = 0;
    }
    /* A person's keys are read even when the guest takes none: one of them may be Ctrl-]. */
    if (t->interactive && t->in_end == INPUT_SIZE)
        t->in_end -= 256;
    size_t from = t->in_end;
    ssize_t n = read(t->in_fd, t->in + from, INPUT_SIZE - from);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return false;
    if (n <= 0) {
        t->in_ended = true;
        loop_watch_remove(steal_ptr(t->in_watch));
        return false;
    }
    t->in_end += (size_t)n;
    if (take_leave_key(t, from))
        t->events->leave(t->opaque);
    return true;
}

/* Gives the guest what there is. True when all of it was taken. */
static bool deliver_input(struct terminal *t)
{
    if (t->in_start < t->in_end)
        t->in_start += t->events->input(t->opaque, t->in + t->in_start, t->in_end - t->in_start);
    return t->in_start >= t->in_end;
}

static void on_readable(void *opaque, uint32_t events)
{
    struct terminal *t = opaque;

    read_input(t);
    /* Pipes wait for the guest: their other end is to feel that it is slow. */
    if (!deliver_input(t) && !t->interactive && t->in_watch)
        loop_watch_modify(t->in_watch, 0);
}

static void pump_input(void *opaque)
{
    struct terminal *t = opaque;

    atomic_store(&t->input_ready_posted, false);
    bool wants_more = deliver_input(t);
    if (t->in_watch && wants_more)
        loop_watch_modify(t->in_watch, EPOLLIN);
    while (!t->in_watch && !t->in_ended && wants_more && read_input(t))
        wants_more = deliver_input(t);
}

void terminal_input_ready(struct terminal *terminal)
{
    if (!atomic_exchange(&terminal->input_ready_posted, true) &&
        loop_post(terminal->loop, pump_input, terminal) < 0)
        atomic_store(&terminal->input_ready_posted, false);
}

static void on_signal(void *opaque, uint32_t events)
{
    struct terminal *t = opaque;
    unsigned char sig;

    if (read(t->signal_pipe[0], &sig, 1) == 1)
        t->events->ended(t->opaque, sig);
}

bool terminal_is_interactive(const struct terminal *terminal)
{
    return terminal->interactive;
}

static int watch_all(struct terminal *t)
{
    int rc = loop_watch_add(t->loop, t->signal_pipe[0], EPOLLIN, on_signal, t, &t->signal_watch);

    if (rc)
        return rc;
    rc = loop_watch_add(t->loop, t->in_fd, EPOLLIN, on_readable, t, &t->in_watch);
    if (rc == -EPERM) {
        terminal_input_ready(t); /* a file: pumped from the start */
        rc = 0;
    } else if (rc == -EBADF) {
        t->in_ended = true; /* started with standard input closed */
        rc = 0;
    }
    if (rc)
        return rc;
    rc = loop_watch_add(t->loop, t->out_fd, 0, on_writable, t, &t->out_watch);
    return rc == -EPERM || rc == -EBADF ? 0 : rc;
}

int terminal_open(struct terminal **out, struct loop *loop, int in_fd, int out_fd,
                  const struct terminal_events *events, void *opaque, struct error **err)
{
    struct terminal *t = calloc(1, sizeof(*t));

    if (!t)
        return error_set_errno(err, ENOMEM, "console");
    t->loop = loop;
    t->events = events;
    t->opaque = opaque;
    t->in_fd = in_fd;
    pthread_mutex_init(&t->lock, NULL);
    if (pipe2(t->signal_pipe, O_CLOEXEC | O_NONBLOCK) < 0) {
        int rc = error_set_errno(err, errno, "console");
        pthread_mutex_destroy(&t->lock);
        free(t);
        return rc;
    }
    open_output(t, out_fd);
    t->out_timer = loop_timer_new(loop, on_flush_timer, t);
    int rc = t->out_timer ? watch_all(t) : -ENOMEM;
    if (!rc)
        rc = terminal_mode_enter(in_fd, t->signal_pipe[1], &t->interactive);
    t->mode_entered = !rc;
    if (rc) {
        error_set_errno(err, -rc, "console");
        terminal_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

static void flush_finally(struct terminal *t)
{
    uint64_t deadline = loop_now() + CLOSE_WAIT_MS * 1000000ull;
    LOCK_SCOPE(&t->lock);

    while (!t->out_broken && flush_locked(t) == -EAGAIN) {
        uint64_t now = loop_now();
        struct pollfd p = {.fd = t->out_fd, .events = POLLOUT};

        if (now >= deadline)
            break;
        poll(&p, 1, (int)((deadline - now) / 1000000u) + 1);
    }
}

void terminal_close(struct terminal *terminal)
{
    struct terminal *t = terminal;

    if (!t)
        return;
    flush_finally(t);
    if (t->mode_entered)
        terminal_mode_leave();
    loop_watch_remove(t->signal_watch);
    loop_watch_remove(t->in_watch);
    loop_watch_remove(t->out_watch);
    loop_timer_free(t->out_timer);
    close(t->signal_pipe[0]);
    close(t->signal_pipe[1]);
    if (t->out_is_ours)
        close(t->out_fd);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
