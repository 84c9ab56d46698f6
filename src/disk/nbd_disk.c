/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The format `nbd`: a disk that a server has. Its file is the connection. What is there is asked for as it is
 * needed; data count as packed, for they are not to be had by reading a file. With a loop in its thread;
 * without one, reads may come from several threads.
 */
#include "disk/nbd_dialer.h"
#include "disk/nbd_link.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "host/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define GRANULARITY 65536u
#define PARTS_MAX   64u /* of one request, at once */
#define ZEROS       65536u
#define ZEROS_MAX   (4u << 20) /* written in one part, where the server can't do it by itself */
#define STATUS_MAX  (1u << 30)
#define CLOSE_S     10u /* so long is waited for a server when a disk is closed */

static const uint8_t zeros[ZEROS];

struct nbd_disk {
    struct disk disk;
    struct nbd_link link;
    struct loop_watch *watch;  /* of the connection */
    struct loop_watch *dialed; /* of who makes another, while there is none */
};

struct part {
    struct nbd_call call;
    struct disk_request *whole;
    struct iovec iov[];
};

static struct nbd_disk *nbd_of(struct disk *disk)
{
    return container_of(disk, struct nbd_disk, disk);
}

/* The last sector may be there in part: the rest of it reads as zeros, and is not written. */
static uint32_t there(const struct nbd_link *link, uint64_t offset, uint64_t length)
{
    return (uint32_t)(length < link->size - offset ? length : link->size - offset);
}

/* ---- requests of a loop ---- */

static void go_on(struct nbd_disk *n, struct disk_request *r);

static void part_ended(struct nbd_call *call)
{
    struct part *part = container_of(call, struct part, call);
    struct disk_request *r = part->whole;
    int result = call->result;

    free(part);
    if (result && !r->result)
        r->result = result;
    if (r->paused && r->pending <= PARTS_MAX / 2) {
        r->paused = false;
        go_on(nbd_of(r->disk), r);
    }
    disk_request_put(r, true);
}

static uint16_t command_of(const struct nbd_disk *n, const struct disk_request *r)
{
    switch (r->kind) {
    case DISK_READ:
        return NBD_READ;
    case DISK_WRITE:
        return NBD_WRITE;
    case DISK_FLUSH:
        return NBD_FLUSH;
    case DISK_DISCARD:
        return NBD_TRIM;
    case DISK_WRITE_ZEROES:
        break;
    }
    return n->link.flags & NBD_SEND_WRITE_ZEROES ? NBD_WRITE_ZEROES : NBD_WRITE;
}

static struct part *new_part(struct disk_request *r, uint16_t command, uint64_t offset, uint32_t length)
{
    bool written_zeros = command == NBD_WRITE && r->kind == DISK_WRITE_ZEROES;
    unsigned n = written_zeros ? length / ZEROS + 1 : r->n_iov;
    struct part *part = malloc(sizeof(*part) + n * sizeof(part->iov[0]));

    if (!part)
        return NULL;
    part->whole = r;
    part->call = (struct nbd_call){
        .command = command, .offset = offset, .length = length, .iov = part->iov, .ended = part_ended};
    if (command == NBD_WRITE_ZEROES && !r->unmap)
        part->call.flags = NBD_NO_HOLE;
    if (written_zeros)
        for (uint32_t at = 0; at < length; at += ZEROS)
            part->iov[part->call.n_iov++] = (struct iovec){
                .iov_base = (void *)(uintptr_t)zeros, .iov_len = length - at < ZEROS ? length - at : ZEROS};
    else if (command == NBD_READ || command == NBD_WRITE)
        part->call.n_iov = disk_iov_slice(r->iov, r->n_iov, offset - r->offset, length, part->iov);
    return part;
}

static void go_on(struct nbd_disk *n, struct disk_request *r)
{
    uint16_t command = command_of(n, r);
    uint64_t end = r->offset + r->length, most = n->link.largest;

    if (command == NBD_WRITE && r->kind == DISK_WRITE_ZEROES && most > ZEROS_MAX)
        most = ZEROS_MAX;
    while (r->at < end && !r->result) {
        if (r->pending > PARTS_MAX) {
            r->paused = true;
            return;
        }
        uint64_t length = end - r->at < most ? end - r->at : most;
        uint32_t part_length = there(&n->link, r->at, length);
        struct part *part = new_part(r, command, r->at, part_length);
        if (!part) {
            r->result = -ENOMEM;
            return;
        }
        if (command == NBD_READ && part_length < length)
            disk_iov_fill(r->iov, r->n_iov, r->at - r->offset + part_length, length - part_length, NULL);
        r->at += length;
        r->pending++;
        nbd_link_submit(&n->link, &part->call);
    }
}

static void on_socket(void *opaque, uint32_t events);
static void on_dialed(void *opaque, uint32_t events);

static void stop_watching(struct loop_watch **watch)
{
    loop_watch_remove(*watch);
    *watch = NULL;
}

static void on_lost(struct nbd_link *link)
{
    stop_watching(&container_of(link, struct nbd_disk, link)->watch);
}

/* What the loop is to look at, as it is with the connection now. */
static void update_events(struct nbd_disk *n)
{
    struct nbd_link *link = &n->link;
    int rc = 0;

    if (!n->disk.loop)
        return;
    if (link->lost)
        nbd_again_revive(link, false);
    bool dials = link->lost && !link->failure, talks = !link->lost && !link->failure;
    if (!dials)
        stop_watching(&n->dialed);
    if (!talks)
        stop_watching(&n->watch);
    if (dials && !n->dialed)
        rc = loop_watch_add(n->disk.loop, nbd_dialer_fd(link->dialer), EPOLLIN, on_dialed, n, &n->dialed);
    if (talks && n->watch)
        loop_watch_modify(n->watch, nbd_link_events(link));
    else if (talks)
        rc = loop_watch_add(n->disk.loop, link->fd, nbd_link_events(link), on_socket, n, &n->watch);
    if (rc)
        nbd_link_fail(link, rc);
}

static void nbd_submit(struct disk *disk, struct disk_request *r)
{
    struct nbd_disk *n = nbd_of(disk);
    uint16_t flags = n->link.flags;

    r->at = r->offset;
    r->pending = 1;
    r->paused = false;
    r->result = 0;
    if (r->kind != DISK_READ)
        n->link.n_status = 0;
    if (r->kind == DISK_WRITE_ZEROES && r->fast && !(flags & NBD_SEND_WRITE_ZEROES)) {
        r->result = -EOPNOTSUPP;
    } else if (r->kind == DISK_FLUSH && flags & NBD_SEND_FLUSH) {
        struct part *part = new_part(r, NBD_FLUSH, 0, 0);
        r->result = part ? 0 : -ENOMEM;
        r->pending += part ? 1 : 0;
        if (part)
            nbd_link_submit(&n->link, &part->call);
    } else if (r->kind != DISK_FLUSH && (r->kind != DISK_DISCARD || flags & NBD_SEND_TRIM)) {
        go_on(n, r);
    }
    update_events(n);
    disk_request_put(r, true);
}

static void on_socket(void *opaque, uint32_t events)
{
    struct nbd_disk *n = opaque;

    nbd_link_pump(&n->link);
    update_events(n);
}

static void on_dialed(void *opaque, uint32_t events)
{
    update_events(opaque);
}

/* ---- at once ---- */

static int read_at(struct nbd_disk *n, uint64_t offset, uint8_t *buf, size_t len)
{
    while (len) {
        uint32_t part = (uint32_t)(len < n->link.largest ? len : n->link.largest);
        uint32_t real = there(&n->link, offset, part);
        const struct iovec iov = {.iov_base = buf, .iov_len = real};
        struct nbd_call call = {
            .command = NBD_READ, .offset = offset, .length = real, .iov = &iov, .n_iov = 1};
        int rc = nbd_link_do(&n->link, &call);
        update_events(n);
        if (rc)
            return rc;
        memset(buf + real, 0, part - real);
        buf += part;
        offset += part;
        len -= part;
    }
    return 0;
}

static int nbd_read(struct disk *disk, uint64_t offset, void *buf, size_t len)
{
    return read_at(nbd_of(disk), offset, buf, len);
}

static int nbd_unpack(const struct disk_extent *e, uint8_t *buf)
{
    return read_at(nbd_of((struct disk *)(uintptr_t)e->disk), e->entry, buf, e->length);
}

/* Looks in the last answer: false if it says nothing of `offset`. */
static bool look_up(const struct nbd_link *link, uint64_t offset, uint64_t *length, bool *zero)
{
    uint64_t at = link->status_from;

    for (unsigned i = 0; i < link->n_status && at <= offset; i++) {
        uint64_t end = at + link->status[i].length;
        if (offset < end) {
            *zero = link->status[i].state & NBD_STATE_ZERO;
            *length = end - offset;
            return true;
        }
        at = end;
    }
    return false;
}

static int nbd_extent(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out)
{
    struct nbd_disk *n = nbd_of(disk);
    uint64_t alike = length;
    bool zero = false;

    if (n->link.has_status && !look_up(&n->link, offset, &alike, &zero)) {
        uint64_t most = length < GRANULARITY ? GRANULARITY : length < STATUS_MAX ? length : STATUS_MAX;
        struct nbd_call call = {
            .command = NBD_BLOCK_STATUS, .offset = offset, .length = there(&n->link, offset, most)};
        n->link.n_status = 0;
        int rc = nbd_link_do(&n->link, &call);
        update_events(n);
        if (rc == -EINVAL || rc == -ENOTSUP)
            n->link.has_status = false;
        else if (rc)
            return rc;
        else if (!look_up(&n->link, offset, &alike, &zero))
            return -EPROTO;
    }
    /* Whole sectors: one that is zeros in part has data. */
    if (offset + alike < n->link.size && alike % DISK_SECTOR) {
        if (alike < DISK_SECTOR)
            zero = false;
        alike = alike < DISK_SECTOR ? DISK_SECTOR : ALIGN_DOWN(alike, (uint64_t)DISK_SECTOR);
    }
    if (offset + alike >= n->link.size || alike > length)
        alike = length < disk->size - offset ? length : disk->size - offset;
    *out = (struct disk_extent){.kind = zero ? DISK_EXTENT_ZEROS : DISK_EXTENT_PACKED,
                                .allocated = true,
                                .disk = disk,
                                .length = alike,
                                .entry = offset};
    return 0;
}

/* ---- opening and closing ---- */

static int nbd_close(struct disk *disk)
{
    struct nbd_disk *n = nbd_of(disk);
    struct nbd_call flush = {.command = NBD_FLUSH}, bye = {.command = NBD_DISCONNECT};
    int rc = 0;

    stop_watching(&n->watch);
    stop_watching(&n->dialed);
    nbd_again_hurry(&n->link, CLOSE_S);
    if (!disk->read_only && n->link.flags & NBD_SEND_FLUSH)
        rc = nbd_link_do(&n->link, &flush);
    n->link.dialer = NULL;
    /* It has no answer. */
    bye.ended = NULL;
    if (!n->link.lost)
        nbd_link_submit(&n->link, &bye);
    nbd_link_clear(&n->link);
    free(n);
    return rc;
}

static int nbd_open(struct disk **out, const struct disk *common, struct error **err)
{
    struct nbd_disk *n = malloc(sizeof(*n));
    const struct nbd_remote *remote = common->files->files[common->file].remote;

    if (!n || !remote) {
        free(n);
        return n ? error_set(err, EINVAL, "is no address of a server")
                 : error_set_errno(err, ENOMEM, "opening it");
    }
    n->disk = *common;
    n->watch = n->dialed = NULL;
    nbd_link_init(&n->link, common->fd);
    int rc = nbd_hello(&n->link, remote, err);
    if (rc == 0 && !common->read_only && n->link.flags & NBD_READ_ONLY)
        rc = error_set(err, EROFS, "the server lets it be read only");
    if (rc == 0 && common->loop) {
        rc = loop_watch_add(common->loop, common->fd, EPOLLIN, on_socket, n, &n->watch);
        if (rc)
            error_set_errno(err, -rc, "opening it");
    }
    if (rc) {
        nbd_link_clear(&n->link);
        free(n);
        return rc;
    }
    n->link.dialer = remote->dialer;
    n->link.remote = remote;
    n->link.patience = remote->patience;
    n->link.agreed_largest = n->link.largest;
    n->link.on_lost = on_lost;
    n->disk.size = ALIGN_UP(n->link.size, (uint64_t)DISK_SECTOR);
    n->disk.granularity = GRANULARITY;
    *out = &n->disk;
    return 0;
}

int nbd_describe(struct disk_files *files, struct disk_info *info, struct error **err)
{
    const struct disk common = {
        .format = &disk_format_nbd, .files = files, .fd = files->files[0].fd, .read_only = true};
    struct disk *disk;
    int rc = nbd_open(&disk, &common, err);

    if (rc)
        return rc;
    const struct nbd_link *link = &nbd_of(disk)->link;
    info->size = disk->size;
    disk_info_add(info, "may be written", "%s", link->flags & NBD_READ_ONLY ? "no" : "yes");
    disk_info_add(info, "tells where data are", "%s", link->has_status ? "yes" : "no");
    disk_info_add(info, "with TLS", "%s", link->tls ? "yes" : "no");
    nbd_close(disk);
    return 0;
}

const struct disk_format disk_format_nbd = {
    .name = "nbd",
    .open = nbd_open,
    .submit = nbd_submit,
    .read = nbd_read,
    .close = nbd_close,
    .extent = nbd_extent,
    .unpack = nbd_unpack,
};
