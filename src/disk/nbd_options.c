/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is said before an export is chosen: the fixed newstyle handshake. An option is taken when all of it is
 * in the buffer and all answers before it are sent, so that nobody can have us keep many. The loop's thread;
 * no locks.
 */
#include "disk/nbd_server_priv.h"

#include "base/bytes.h"
#include "disk/nbd_tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OPTION_MAX    (32u << 10) /* bytes of one; a longer one is answered without being looked at */
#define PREFERRED_MIN 4096u
#define PREFERRED_MAX (2u << 20)
#define SERVER_FLAGS  (NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES)
#define ALLOCATION    "base:allocation"
#define DEPTH         "qemu:allocation-depth"

/* Bytes of an option, taken one after the other. */
struct words {
    const uint8_t *at;
    size_t left;
    bool bad; /* more was asked for than there is */
};

static const uint8_t *take(struct words *w, size_t n)
{
    const uint8_t *at = w->at;

    if (w->bad || n > w->left) {
        w->bad = true;
        return NULL;
    }
    w->at += n;
    w->left -= n;
    return at;
}

static uint32_t take_u32(struct words *w)
{
    const uint8_t *p = take(w, 4);

    return p ? get_be32(p) : 0;
}

static uint16_t take_u16(struct words *w)
{
    const uint8_t *p = take(w, 2);

    return p ? get_be16(p) : 0;
}

struct name {
    const char *text; /* not terminated */
    uint32_t length;
};

static struct name take_name(struct words *w)
{
    uint32_t n = take_u32(w);
    const uint8_t *p = n > NBD_NAME_MAX ? take(w, SIZE_MAX) : take(w, n);

    return p ? (struct name){(const char *)p, n} : (struct name){"", 0};
}

static struct nbd_export *find_export(const struct nbd_server *server, struct name name)
{
    if (!name.length)
        return server->exports;
    for (struct nbd_export *e = server->exports; e; e = e->next)
        if (strlen(e->name) == name.length && memcmp(e->name, name.text, name.length) == 0)
            return e;
    return NULL;
}

/* ---- saying ---- */

/* Room for `n` bytes that are sent: NULL if there is no memory, and the client is dropped. */
static uint8_t *say(struct nbd_client *client, size_t n)
{
    struct nbd_out *out = calloc(1, sizeof(*out) + n);

    if (!out) {
        nbd_break(client);
        return NULL;
    }
    out->few[0] = (struct iovec){.iov_base = out + 1, .iov_len = n};
    out->iov = out->few;
    out->n = 1;
    nbd_send(client, out);
    return (uint8_t *)(out + 1);
}

/* The head of an answer to an option, and room for `n` bytes behind it. */
static uint8_t *reply(struct nbd_client *client, uint32_t option, uint32_t type, uint32_t n)
{
    uint8_t *p = say(client, NBD_REPLY_SIZE + n);

    if (!p)
        return NULL;
    put_be64(p, NBD_REPLY_MAGIC);
    put_be32(p + 8, option);
    put_be32(p + 12, type);
    put_be32(p + 16, n);
    return p + NBD_REPLY_SIZE;
}

static void refuse(struct nbd_client *client, uint32_t option, uint32_t type, const char *why)
{
    uint8_t *p = reply(client, option, type, (uint32_t)strlen(why));

    if (p)
        memcpy(p, why, strlen(why));
}

int nbd_greet(struct nbd_client *client)
{
    uint8_t *p = say(client, 18);

    if (!p)
        return -ENOMEM;
    put_be64(p, NBD_MAGIC);
    put_be64(p + 8, NBD_OPTION_MAGIC);
    put_be16(p + 16, SERVER_FLAGS);
    return 0;
}

/* ---- options ---- */

static void choose(struct nbd_client *client, struct nbd_export *export)
{
    /* What was chosen for another export is chosen no more. */
    if (client->contexts_export != export)
        memset(client->contexts, 0, sizeof(client->contexts));
    client->export = export;
    client->state = NBD_SERVING;
}

static void export_name(struct nbd_client *client, const uint8_t *data, uint32_t length)
{
    struct nbd_export *e =
        length > NBD_NAME_MAX ? NULL : find_export(client->server, (struct name){(const char *)data, length});
    uint8_t *p = e ? say(client, client->no_zeroes ? 10 : 10 + NBD_OLD_ZEROS) : NULL;

    /* This option has no answer that says no. */
    if (!p) {
        nbd_break(client);
        return;
    }
    put_be64(p, disk_size(e->disk));
    put_be16(p + 8, nbd_export_flags(e));
    choose(client, e);
}

static void list(struct nbd_client *client, uint32_t length)
{
    if (length) {
        refuse(client, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST has no data");
        return;
    }
    for (const struct nbd_export *e = client->server->exports; e; e = e->next) {
        uint32_t name = (uint32_t)strlen(e->name), about = (uint32_t)strlen(e->description);
        uint8_t *p = reply(client, NBD_OPT_LIST, NBD_REP_SERVER, 4 + name + about);
        if (!p)
            return;
        put_be32(p, name);
        memcpy(p + 4, e->name, name);
        memcpy(p + 4 + name, e->description, about);
    }
    reply(client, NBD_OPT_LIST, NBD_REP_ACK, 0);
}

static void say_info(struct nbd_client *client, uint32_t option, const struct nbd_export *e, uint16_t info)
{
    const char *text = info == NBD_INFO_NAME ? e->name : e->description;
    uint32_t n = info == NBD_INFO_EXPORT ? 10 : info == NBD_INFO_BLOCK_SIZE ? 12 : (uint32_t)strlen(text);
    uint8_t *p = reply(client, option, NBD_REP_INFO, 2 + n);
    uint32_t preferred = disk_granularity(e->disk);

    if (!p)
        return;
    put_be16(p, info);
    if (info == NBD_INFO_EXPORT) {
        put_be64(p + 2, disk_size(e->disk));
        put_be16(p + 10, nbd_export_flags(e));
    } else if (info == NBD_INFO_BLOCK_SIZE) {
        if (preferred < PREFERRED_MIN)
            preferred = PREFERRED_MIN;
        if (preferred > PREFERRED_MAX)
            preferred = PREFERRED_MAX;
        /* Smaller ones are served too, but not quickly. */
        put_be32(p + 2, DISK_SECTOR);
        put_be32(p + 6, preferred);
        put_be32(p + 10, NBD_REQUEST_MAX);
    } else {
        memcpy(p + 2, text, n);
    }
}

/* INFO and GO. */
static void info(struct nbd_client *client, uint32_t option, struct words *w)
{
    struct name name = take_name(w);
    uint16_t n = take_u16(w);
    bool wanted[NBD_INFO_BLOCK_SIZE + 1] = {[NBD_INFO_EXPORT] = true};

    for (uint16_t i = 0; i < n && !w->bad; i++) {
        uint16_t what = take_u16(w);
        if (!w->bad && what < ARRAY_SIZE(wanted))
            wanted[what] = true;
    }
    if (w->bad || w->left) {
        refuse(client, option, NBD_REP_ERR_INVALID, "its lengths do not fit");
        return;
    }
    struct nbd_export *e = find_export(client->server, name);
    if (!e) {
        refuse(client, option, NBD_REP_ERR_UNKNOWN, "no disk of that name is served here");
        return;
    }
    for (uint16_t i = 0; i < ARRAY_SIZE(wanted); i++)
        if (wanted[i] && (i != NBD_INFO_DESCRIPTION || *e->description))
            say_info(client, option, e, i);
    if (reply(client, option, NBD_REP_ACK, 0) && option == NBD_OPT_GO)
        choose(client, e);
}

static bool query_is(struct name query, const char *text)
{
    return query.length == strlen(text) && memcmp(query.text, text, query.length) == 0;
}

static void say_context(struct nbd_client *client, uint32_t option, uint32_t id, const char *name)
{
    uint32_t n = (uint32_t)strlen(name);
    uint8_t *p = reply(client, option, NBD_REP_META_CONTEXT, 4 + n);

    if (!p)
        return;
    put_be32(p, id);
    memcpy(p + 4, name, n);
}

/* LIST_META_CONTEXT and SET_META_CONTEXT. */
static void meta_context(struct nbd_client *client, uint32_t option, struct words *w)
{
    bool set = option == NBD_OPT_SET_META_CONTEXT, found[NBD_CONTEXTS + 1] = {false};
    struct name name = take_name(w);
    struct nbd_export *e = find_export(client->server, name);
    const char *bitmap = e ? e->bitmap : NULL;
    uint32_t n = take_u32(w);

    if (set) {
        memset(client->contexts, 0, sizeof(client->contexts));
        client->contexts_export = NULL;
    }
    for (uint32_t i = 0; i < n && !w->bad; i++) {
        struct name query = take_name(w);
        /* "base:" asks for all of that kind, but chooses none. */
        found[NBD_CONTEXT_ALLOCATION] |= query_is(query, ALLOCATION) || (!set && query_is(query, "base:"));
        found[NBD_CONTEXT_DEPTH] |= query_is(query, DEPTH) || (!set && query_is(query, "qemu:"));
        found[NBD_CONTEXT_BITMAP] |=
            bitmap && (query_is(query, bitmap) ||
                       (!set && (query_is(query, "qemu:") || query_is(query, "qemu:dirty-bitmap:"))));
    }
    if (w->bad || w->left || !client->structured) {
        refuse(client, option, NBD_REP_ERR_INVALID,
               client->structured ? "its lengths do not fit" : "structured replies must be agreed on before");
        return;
    }
    if (!e) {
        refuse(client, option, NBD_REP_ERR_UNKNOWN, "no disk of that name is served here");
        return;
    }
    const char *const names[] = {NULL, ALLOCATION, DEPTH, bitmap};
    for (uint32_t id = 1; id <= NBD_CONTEXTS; id++)
        if (names[id] && (found[id] || (!set && n == 0)))
            say_context(client, option, set ? id : 0, names[id]);
    if (set) {
        memcpy(client->contexts, found, sizeof(found));
        client->contexts_export = e;
    }
    reply(client, option, NBD_REP_ACK, 0);
}

static void start_tls(struct nbd_client *client, uint32_t length)
{
    const struct nbd_tls_identity *tls = client->server->config.tls;

    if (length) {
        refuse(client, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, "STARTTLS has no data");
    } else if (client->tls) {
        refuse(client, NBD_OPT_STARTTLS, NBD_REP_ERR_INVALID, "TLS is in use already");
    } else if (!tls) {
        refuse(client, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY, "this server has no TLS");
    } else {
        reply(client, NBD_OPT_STARTTLS, NBD_REP_ACK, 0);
        nbd_push(client);
        /* Whatever came before TLS may be somebody else's. */
        if (client->out || client->in_at != client->in_end ||
            nbd_tls_new(&client->tls, tls, client->fd, NULL) < 0) {
            nbd_break(client);
            return;
        }
        client->tls_shaking = true;
        client->structured = false;
        client->contexts_export = NULL;
    }
}

static void take_option(struct nbd_client *client, uint32_t option, const uint8_t *data, uint32_t length)
{
    struct words w = {.at = data, .left = length};
    bool barred = client->server->config.tls && !client->tls;

    if (barred && option == NBD_OPT_EXPORT_NAME) {
        nbd_break(client);
        return;
    }
    if (barred && option != NBD_OPT_STARTTLS && option != NBD_OPT_ABORT) {
        refuse(client, option, NBD_REP_ERR_TLS_REQD, "this server wants TLS first");
        return;
    }
    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        export_name(client, data, length);
        break;
    case NBD_OPT_ABORT:
        reply(client, option, NBD_REP_ACK, 0);
        client->ending = true;
        break;
    case NBD_OPT_LIST:
        list(client, length);
        break;
    case NBD_OPT_STARTTLS:
        start_tls(client, length);
        break;
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        info(client, option, &w);
        break;
    case NBD_OPT_STRUCTURED_REPLY:
        if (length) {
            refuse(client, option, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY has no data");
        } else {
            client->structured = true;
            reply(client, option, NBD_REP_ACK, 0);
        }
        break;
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        meta_context(client, option, &w);
        break;
    default:
        refuse(client, option, NBD_REP_ERR_UNSUP, "this server does not know that option");
        break;
    }
}

static bool take_flags(struct nbd_client *client)
{
    if (nbd_available(client) < 4)
        return false;
    uint32_t flags = get_be32(client->in + client->in_at);
    client->in_at += 4;
    if (flags & ~(uint32_t)SERVER_FLAGS) {
        nbd_break(client);
        return true;
    }
    client->fixed = flags & NBD_FIXED_NEWSTYLE;
    client->no_zeroes = flags & NBD_NO_ZEROES;
    client->state = NBD_HAGGLING;
    return true;
}

bool nbd_haggle(struct nbd_client *client)
{
    const uint8_t *p = client->in + client->in_at;

    if (client->out) {
        client->blocked = true;
        return false;
    }
    if (client->state == NBD_GREETED)
        return take_flags(client);
    if (nbd_available(client) < NBD_OPTION_SIZE)
        return false;
    uint32_t option = get_be32(p + 8), length = get_be32(p + 12);
    if (get_be64(p) != NBD_OPTION_MAGIC || (!client->fixed && option != NBD_OPT_EXPORT_NAME)) {
        nbd_break(client);
        return true;
    }
    if (length > OPTION_MAX) {
        client->in_at += NBD_OPTION_SIZE;
        client->skip = length;
        if (option == NBD_OPT_EXPORT_NAME)
            nbd_break(client);
        else
            refuse(client, option, NBD_REP_ERR_TOO_BIG, "that is too long");
        return true;
    }
    if (nbd_available(client) < NBD_OPTION_SIZE + length)
        return false;
    client->in_at += NBD_OPTION_SIZE + length;
    take_option(client, option, p + NBD_OPTION_SIZE, length);
    return true;
}
