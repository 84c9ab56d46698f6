/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of disks on NBD servers (NetworkBlockDevice/nbd, doc/uri.md), and connecting to them. No state, no
 * locks. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/nbd_dialer.h"
#include "disk/nbd_link.h"
#include "disk/nbd_tls.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECT_MS   15000
#define PATIENCE     60u /* seconds */
#define PATIENCE_MAX 86400u

struct uri {
    bool tls, local;
    char *user, *host, *port, *export;
    char *socket, *certificates, *keys, *hostname, *reconnect;
    unsigned patience;
};

bool nbd_is_uri(const char *name)
{
    return strncmp(name, "nbd://", 6) == 0 || strncmp(name, "nbds://", 7) == 0 ||
           strncmp(name, "nbd+unix://", 11) == 0 || strncmp(name, "nbds+unix://", 12) == 0;
}

/* `len` bytes with %XX as the byte it stands for. NULL if one stands for no text, or there is no memory. */
static char *decode(const char *text, size_t len)
{
    char *out = malloc(len + 1), *to = out;

    for (size_t i = 0; out && i < len; i++) {
        char hex[3] = "";
        if (text[i] == '%' && len - i > 2)
            memcpy(hex, text + i + 1, 2);
        if (text[i] == '%' && strspn(hex, "0123456789abcdefABCDEF") != 2) {
            free(out);
            return NULL;
        }
        *to = text[i] == '%' ? (char)strtoul(hex, NULL, 16) : text[i];
        if (!*to++) {
            free(out);
            return NULL;
        }
        i += text[i] == '%' ? 2 : 0;
    }
    if (out)
        *to = '\0';
    return out;
}

static void clear(struct uri *u)
{
    char *all[] = {u->user,         u->host, u->port,     u->export,   u->socket,
                   u->certificates, u->keys, u->hostname, u->reconnect};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
}

static int take_query(struct uri *u, const char *query, struct error **err)
{
    struct {
        const char *name;
        char **to;
    } known[] = {{"socket", &u->socket},
                 {"tls-certificates", &u->certificates},
                 {"tls-psk-file", &u->keys},
                 {"tls-hostname", &u->hostname},
                 {"reconnect", &u->reconnect}};

    while (*query) {
        size_t len = strcspn(query, "&"), name = strcspn(query, "=&"), i = 0;
        while (i < ARRAY_SIZE(known) &&
               (strlen(known[i].name) != name || strncmp(known[i].name, query, name) != 0))
            i++;
        if (i == ARRAY_SIZE(known))
            return error_set(err, EINVAL,
                             "'%.*s' is unknown: there are socket, tls-certificates, tls-psk-file, "
                             "tls-hostname and reconnect",
                             (int)name, query);
        if (name < len && !*known[i].to)
            *known[i].to = decode(query + name + 1, len - name - 1);
        if (!*known[i].to)
            return error_set(err, EINVAL, "'%s' needs a value", known[i].name);
        query += len + (query[len] == '&');
    }
    return 0;
}

/* USER@HOST:PORT, HOST in brackets if it has colons; each may be missing. */
static void take_authority(struct uri *u, const char *text, size_t len)
{
    const char *at = memchr(text, '@', len);

    if (at) {
        u->user = decode(text, (size_t)(at - text));
        len -= (size_t)(at + 1 - text);
        text = at + 1;
    }
    const char *bracket = len && text[0] == '[' ? memchr(text, ']', len) : NULL;
    const char *from = bracket ? bracket : text;
    const char *colon = memchr(from, ':', len - (size_t)(from - text));
    size_t host = colon ? (size_t)(colon - text) : len;
    u->host = bracket ? strndup(text + 1, (size_t)(bracket - text - 1)) : decode(text, host);
    if (colon)
        u->port = strndup(colon + 1, len - host - 1);
}

static int parse(const char *text, struct uri *u, struct error **err)
{
    const char *rest = strstr(text, "://") + 3;

    u->tls = text[3] == 's';
    u->local = strncmp(text + 3 + u->tls, "+unix", 5) == 0;
    size_t authority = strcspn(rest, "/?"), path = strcspn(rest + authority, "?");
    take_authority(u, rest, authority);
    u->export = decode(rest + authority + (path > 0), path - (path > 0));
    int rc = rest[authority + path] ? take_query(u, rest + authority + path + 1, err) : 0;
    if (rc)
        return rc;
    if (!u->export || !u->host || strlen(u->export) > NBD_NAME_MAX || (u->local ? !u->socket : !*u->host))
        return error_set(err, EINVAL,
                         u->local ? "say where the socket is: nbd+unix:///EXPORT?socket=PATH"
                                  : "say nbd://HOST[:PORT]/EXPORT");
    char *end = u->reconnect;
    unsigned long seconds = u->reconnect ? strtoul(u->reconnect, &end, 10) : PATIENCE;
    if (u->reconnect && (u->reconnect[0] < '0' || u->reconnect[0] > '9' || *end || seconds > PATIENCE_MAX))
        return error_set(err, EINVAL, "reconnect=%s: give seconds, %u at most, or 0 for never", u->reconnect,
                         PATIENCE_MAX);
    u->patience = (unsigned)seconds;
    if (u->tls && !u->certificates == !u->keys)
        return error_set(err, EINVAL, "TLS needs either ?tls-certificates=DIR or ?tls-psk-file=FILE");
    return 0;
}

/* ---- connecting ---- */

static int connect_one(int family, const struct sockaddr *address, socklen_t len)
{
    const int yes = 1;
    cleanup_close int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    if (connect(fd, address, len) < 0) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        int error = errno;
        socklen_t size = sizeof(error);
        if (error != EINPROGRESS)
            return -error;
        if (poll(&p, 1, CONNECT_MS) <= 0)
            return -ETIMEDOUT;
        if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0 || error)
            return -error;
    }
    return steal_fd(fd);
}

static int connect_local(const struct uri *u, struct error **err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(u->socket) >= sizeof(address.sun_path))
        return error_set(err, ENAMETOOLONG, "socket '%s': the path is too long for a socket", u->socket);
    strcpy(address.sun_path, u->socket);
    int fd = connect_one(AF_UNIX, (struct sockaddr *)&address, sizeof(address));
    return fd < 0 ? error_set_errno(err, -fd, "socket '%s'", u->socket) : fd;
}

static int connect_tcp(const struct uri *u, struct error **err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    char standard[8];
    int fd = -EHOSTUNREACH;

    snprintf(standard, sizeof(standard), "%d", NBD_PORT);
    int rc = getaddrinfo(u->host, u->port ? u->port : standard, &hints, &found);
    if (rc)
        return error_set(err, EHOSTUNREACH, "host '%s': %s", u->host, gai_strerror(rc));
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
        fd = connect_one(a->ai_family, a->ai_addr, a->ai_addrlen);
    freeaddrinfo(found);
    return fd < 0 ? error_set_errno(err, -fd, "host '%s', port %s", u->host, u->port ? u->port : standard)
                  : fd;
}

void nbd_remote_free(struct nbd_remote *remote)
{
    if (!remote)
        return;
    nbd_dialer_free(remote->dialer);
    nbd_tls_identity_free(remote->tls);
    free(remote->export);
    free(remote->host);
    free(remote);
}

static int dial(const void *opaque)
{
    const struct uri *u = opaque;

    return u->local ? connect_local(u, NULL) : connect_tcp(u, NULL);
}

static int prepare(struct uri *u, struct nbd_remote **out, struct error **err)
{
    const struct nbd_tls_files files = {.certificates = u->certificates, .psk = u->keys, .user = u->user};
    struct nbd_remote *remote = calloc(1, sizeof(*remote));
    int rc = remote ? 0 : error_set_errno(err, ENOMEM, "connecting");

    if (rc == 0 && u->tls)
        rc = nbd_tls_identity_new(&remote->tls, &files, false, err);
    if (rc == 0 && u->patience)
        rc = nbd_dialer_start(&remote->dialer, dial, u, err);
    if (rc) {
        nbd_remote_free(remote);
        return rc;
    }
    remote->patience = u->patience;
    remote->export = steal_ptr(u->export);
    remote->host = u->hostname ? steal_ptr(u->hostname) : u->local ? NULL : steal_ptr(u->host);
    *out = remote;
    return 0;
}

int nbd_connect(const char *text, struct nbd_remote **out, struct error **err)
{
    struct uri u = {0};
    struct nbd_remote *remote = NULL;
    int fd = parse(text, &u, err);

    if (fd == 0)
        fd = u.local ? connect_local(&u, err) : connect_tcp(&u, err);
    if (fd >= 0) {
        int rc = prepare(&u, &remote, err);
        if (rc) {
            close(fd);
            fd = rc;
        }
    }
    clear(&u);
    if (fd < 0)
        return error_wrap(err, "disk '%s'", text);
    *out = remote;
    return fd;
}
