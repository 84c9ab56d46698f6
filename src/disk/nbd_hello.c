/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client's part of the handshake: options until an export is chosen. All at once; no locks. */
#include "disk/nbd_link.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"
#include "disk/nbd_tls.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define ANSWERS_MAX 1000u /* to one option */
#define ANSWER_MAX  16384u
#define STATUS_NAME "base:allocation"

struct answer {
    uint32_t type, length;
    uint8_t data[ANSWER_MAX + 1];
};

static int broken(int rc, struct error **err)
{
    return rc == -ENOTCONN    ? error_set(err, ENOTCONN, "the server has closed the connection")
           : rc == -ETIMEDOUT ? error_set(err, ETIMEDOUT, "the server says nothing")
                              : error_set_errno(err, -rc, "talking to the server");
}

static int nonsense(struct error **err)
{
    return error_set(err, EPROTO, "the server does not speak the NBD protocol as it should");
}

static int say(struct nbd_link *link, uint32_t option, const uint8_t *data, uint32_t length,
               struct error **err)
{
    uint8_t head[NBD_OPTION_SIZE];

    put_be64(head, NBD_OPTION_MAGIC);
    put_be32(head + 8, option);
    put_be32(head + 12, length);
    int rc = nbd_link_write(link, head, sizeof(head));
    if (rc == 0 && length)
        rc = nbd_link_write(link, data, length);
    return rc ? broken(rc, err) : 0;
}

static int hear(struct nbd_link *link, uint32_t option, struct answer *a, struct error **err)
{
    uint8_t head[NBD_REPLY_SIZE];
    int rc = nbd_link_read(link, head, sizeof(head));

    if (rc)
        return broken(rc, err);
    a->type = get_be32(head + 12);
    a->length = get_be32(head + 16);
    if (get_be64(head) != NBD_REPLY_MAGIC || get_be32(head + 8) != option || a->length > ANSWER_MAX)
        return nonsense(err);
    rc = nbd_link_read(link, a->data, a->length);
    a->data[a->length] = 0;
    return rc ? broken(rc, err) : 0;
}

/* What the server says no with. */
static int refused(const struct answer *a, const struct nbd_remote *remote, struct error **err)
{
    char text[256];

    if (a->type == NBD_REP_ERR_TLS_REQD)
        return error_set(err, EPERM,
                         "the server wants TLS: say nbds:// instead of nbd://, with "
                         "?tls-certificates=DIR or ?tls-psk-file=FILE");
    if (a->type == NBD_REP_ERR_UNKNOWN)
        return error_set(err, ENOENT, "the server has no export '%s' ('nbdinfo --list' tells which it has)",
                         remote->export);
    text_make_printable(text, sizeof(text), (const char *)a->data);
    return error_set(err, EPROTO, "the server refuses (0x%" PRIx32 "%s%s)", a->type, *text ? ": " : "", text);
}

/* ---- options ---- */

static int start_tls(struct nbd_link *link, const struct nbd_remote *remote, struct answer *a,
                     struct error **err)
{
    char why[256] = "";
    int rc = say(link, NBD_OPT_STARTTLS, NULL, 0, err);

    if (rc == 0)
        rc = hear(link, NBD_OPT_STARTTLS, a, err);
    if (rc)
        return rc;
    if (a->type != NBD_REP_ACK)
        return error_set(err, EPROTO,
                         "the server has no TLS: say nbd:// instead of nbds:// if you need none");
    rc = nbd_tls_new(&link->tls, remote->tls, link->fd, remote->host);
    if (rc)
        return error_set_errno(err, -rc, "TLS");
    while ((rc = nbd_tls_shake(link->tls, why, sizeof(why))) == 0) {
        struct pollfd p = {.fd = link->fd, .events = nbd_tls_wants_to_send(link->tls) ? POLLOUT : POLLIN};
        if (poll(&p, 1, link->wait_ms) <= 0)
            return broken(-ETIMEDOUT, err);
    }
    return rc < 0 ? error_set(err, EPROTO, "TLS: %s", why) : 0;
}

static int ask_structured(struct nbd_link *link, struct answer *a, struct error **err)
{
    int rc = say(link, NBD_OPT_STRUCTURED_REPLY, NULL, 0, err);

    if (rc == 0)
        rc = hear(link, NBD_OPT_STRUCTURED_REPLY, a, err);
    if (rc == 0)
        link->structured = a->type == NBD_REP_ACK;
    return rc;
}

/* A name and its length: how many bytes. */
static uint32_t put_name(uint8_t *p, const char *name)
{
    uint32_t n = (uint32_t)strlen(name);

    put_be32(p, n);
    memcpy(p + 4, name, n);
    return 4 + n;
}

static int ask_status(struct nbd_link *link, const struct nbd_remote *remote, struct answer *a,
                      struct error **err)
{
    uint8_t data[NBD_NAME_MAX + 64];
    uint32_t n = put_name(data, remote->export);

    put_be32(data + n, 1);
    n += 4;
    n += put_name(data + n, STATUS_NAME);
    int rc = say(link, NBD_OPT_SET_META_CONTEXT, data, n, err);
    for (unsigned i = 0; rc == 0 && i < ANSWERS_MAX; i++) {
        rc = hear(link, NBD_OPT_SET_META_CONTEXT, a, err);
        if (rc || a->type == NBD_REP_ACK || a->type & NBD_REP_ERROR)
            return rc;
        if (a->type == NBD_REP_META_CONTEXT && a->length > 4 &&
            strcmp((char *)a->data + 4, STATUS_NAME) == 0) {
            link->context = get_be32(a->data);
            link->has_status = true;
        }
    }
    return rc ? rc : nonsense(err);
}

static int take_info(struct nbd_link *link, const struct answer *a, bool *known, struct error **err)
{
    uint16_t what = a->length >= 2 ? get_be16(a->data) : UINT16_MAX;

    if (what == NBD_INFO_EXPORT && a->length == 12) {
        link->size = get_be64(a->data + 2);
        link->flags = get_be16(a->data + 10);
        *known = true;
    } else if (what == NBD_INFO_BLOCK_SIZE && a->length == 14) {
        link->smallest = get_be32(a->data + 2);
        uint32_t largest = get_be32(a->data + 10);
        if (largest < link->largest)
            link->largest = ALIGN_DOWN(largest, DISK_SECTOR);
        if (!link->smallest || !link->largest)
            return nonsense(err);
    }
    return 0;
}

/* Servers from before GO. */
static int ask_by_name(struct nbd_link *link, const struct nbd_remote *remote, bool zeros, struct error **err)
{
    uint8_t data[10 + NBD_OLD_ZEROS];
    int rc = say(link, NBD_OPT_EXPORT_NAME, (const uint8_t *)remote->export, (uint32_t)strlen(remote->export),
                 err);

    if (rc)
        return rc;
    rc = nbd_link_read(link, data, zeros ? sizeof(data) : 10);
    if (rc)
        return error_set(err, -rc, "the server has no export '%s', or ended", remote->export);
    link->size = get_be64(data);
    link->flags = get_be16(data + 8);
    return 0;
}

static int ask_go(struct nbd_link *link, const struct nbd_remote *remote, bool zeros, struct answer *a,
                  struct error **err)
{
    uint8_t data[NBD_NAME_MAX + 64];
    uint32_t n = put_name(data, remote->export);
    bool known = false;

    put_be16(data + n, 1);
    put_be16(data + n + 2, NBD_INFO_BLOCK_SIZE);
    int rc = say(link, NBD_OPT_GO, data, n + 4, err);
    for (unsigned i = 0; rc == 0 && i < ANSWERS_MAX; i++) {
        rc = hear(link, NBD_OPT_GO, a, err);
        if (rc == 0 && a->type == NBD_REP_ACK)
            return known ? 0 : nonsense(err);
        if (rc == 0 && a->type == NBD_REP_ERR_UNSUP)
            return ask_by_name(link, remote, zeros, err);
        if (rc == 0 && a->type & NBD_REP_ERROR)
            return refused(a, remote, err);
        if (rc == 0 && a->type == NBD_REP_INFO)
            rc = take_info(link, a, &known, err);
    }
    return rc ? rc : nonsense(err);
}

static int haggle(struct nbd_link *link, const struct nbd_remote *remote, bool zeros, struct answer *a,
                  struct error **err)
{
    int rc = remote->tls ? start_tls(link, remote, a, err) : 0;

    if (rc == 0)
        rc = ask_structured(link, a, err);
    if (rc == 0 && a->type == NBD_REP_ERR_TLS_REQD)
        return refused(a, remote, err);
    if (rc == 0 && link->structured)
        rc = ask_status(link, remote, a, err);
    return rc ? rc : ask_go(link, remote, zeros, a, err);
}

int nbd_hello(struct nbd_link *link, const struct nbd_remote *remote, struct error **err)
{
    uint8_t greeting[18], flags[4];
    cleanup_free struct answer *a = malloc(sizeof(*a));
    int rc = nbd_link_read(link, greeting, sizeof(greeting));

    if (!a)
        return error_set_errno(err, ENOMEM, "opening it");
    if (rc)
        return broken(rc, err);
    if (get_be64(greeting) != NBD_MAGIC || get_be64(greeting + 8) != NBD_OPTION_MAGIC ||
        !(get_be16(greeting + 16) & NBD_FIXED_NEWSTYLE))
        return error_set(err, EPROTO, "there is no server of NBD's fixed newstyle protocol");
    bool zeros = !(get_be16(greeting + 16) & NBD_NO_ZEROES);
    put_be32(flags, NBD_FIXED_NEWSTYLE | (zeros ? 0 : NBD_NO_ZEROES));
    rc = nbd_link_write(link, flags, sizeof(flags));
    if (rc)
        return broken(rc, err);
    rc = haggle(link, remote, zeros, a, err);
    if (rc)
        return rc;
    if (link->smallest > DISK_SECTOR)
        return error_set(err, ENOTSUP, "the server wants requests of whole %" PRIu32 " bytes, not of %u",
                         link->smallest, DISK_SECTOR);
    if (!link->size || link->size > INT64_MAX - DISK_SECTOR)
        return error_set(err, EINVAL, "the server's disk has %" PRIu64 " bytes", link->size);
    return 0;
}
