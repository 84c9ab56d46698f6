/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sender's end of a copy's socket: copy_priv.h. Never waits. The disk's thread; no locks. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/copy_priv.h"
#include "host/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static uint64_t data_length(const struct copy_slot *slot)
{
    bool follows = slot->record.type == COPY_DATA || slot->record.type == COPY_FAILED;

    return follows ? slot->record.length : 0;
}

/* The receiver says one thing, once; or it goes. */
static void on_input(struct disk_copy *copy)
{
    char byte;
    ssize_t n = recv(copy->output.fd, &byte, 1, MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n == 1 && byte == COPY_KEPT && copy->sent_end && !copy->output.first && !copy->kept) {
        copy->kept = true;
        disk_copy_go_on(copy);
        return;
    }
    disk_copy_fail(copy, ECANCELED, NULL);
}

static void on_socket(void *opaque, uint32_t events)
{
    struct disk_copy *copy = opaque;

    if (events & EPOLLOUT)
        disk_copy_go_on(copy);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !copy->ending)
        on_input(copy);
}

int disk_copy_output_open(struct disk_copy *copy, int fd)
{
    struct copy_output *o = &copy->output;

    o->fd = fd;
    o->last = &o->first;
    return loop_watch_add(copy->disk->loop, fd, EPOLLIN, on_socket, copy, &o->watch);
}

void disk_copy_output_close(struct copy_output *o)
{
    loop_watch_remove(steal_ptr(o->watch));
    cleanup_close_fn(&o->fd);
}

void disk_copy_send(struct disk_copy *copy, struct copy_slot *slot)
{
    copy_record_pack(slot->header, &slot->record);
    slot->next = NULL;
    *copy->output.last = slot;
    copy->output.last = &slot->next;
}

static void sent_first(struct copy_output *o)
{
    struct copy_slot *slot = o->first;

    o->first = slot->next;
    if (!o->first)
        o->last = &o->first;
    o->sent = 0;
    slot->used = false;
}

/* How much of the first record went, or -errno. */
static ssize_t send_some(const struct copy_output *o)
{
    const struct copy_slot *slot = o->first;
    struct iovec iov[2] = {{.iov_base = o->first->header, .iov_len = COPY_HEADER_SIZE},
                           {.iov_base = slot->data, .iov_len = data_length(slot)}};
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = 2};
    ssize_t n;

    if (o->sent < COPY_HEADER_SIZE) {
        iov[0].iov_base = o->first->header + o->sent;
        iov[0].iov_len -= o->sent;
    } else {
        iov[1].iov_base = slot->data + (o->sent - COPY_HEADER_SIZE);
        iov[1].iov_len -= o->sent - COPY_HEADER_SIZE;
        m.msg_iov++;
        m.msg_iovlen--;
    }
    do
        n = sendmsg(o->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

void disk_copy_flush(struct disk_copy *copy)
{
    struct copy_output *o = &copy->output;
    ssize_t n = 0;

    while (o->first) {
        n = send_some(o);
        if (n < 0)
            break;
        o->sent += (uint64_t)n;
        if (o->sent == COPY_HEADER_SIZE + data_length(o->first))
            sent_first(o);
    }
    bool wants_room = o->first && n == -EAGAIN;
    if (wants_room != o->wants_room && o->watch)
        loop_watch_modify(o->watch, wants_room ? EPOLLIN | EPOLLOUT : EPOLLIN);
    o->wants_room = wants_room;
    if (n < 0 && n != -EAGAIN)
        disk_copy_fail(copy, ECANCELED, NULL);
}

void disk_copy_tell_done(int fd)
{
    const struct copy_record record = {.type = COPY_DONE};
    uint8_t bytes[COPY_HEADER_SIZE];

    copy_record_pack(bytes, &record);
    /* Nothing is in the socket before it that was not taken. */
    if (send(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return;
}

void disk_copy_refuse(int fd, int error, const char *text)
{
    const struct copy_record record = {
        .type = COPY_FAILED, .length = strnlen(text, COPY_TEXT_MAX), .value = (uint64_t)error};
    uint8_t bytes[COPY_HEADER_SIZE + COPY_TEXT_MAX];

    copy_record_pack(bytes, &record);
    memcpy(bytes + COPY_HEADER_SIZE, text, record.length);
    /* Where even that has no room, the end of the connection tells enough. */
    if (send(fd, bytes, COPY_HEADER_SIZE + record.length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return;
}

int disk_copy_refuse_for(int fd, struct error *why, struct error **err)
{
    int rc = -error_errno(why);

    disk_copy_refuse(fd, -rc, error_message(why));
    if (err)
        *err = why;
    else
        error_free(why);
    return rc;
}
