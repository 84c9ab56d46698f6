/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See nbd_tls.h. */
#include "disk/nbd_tls.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "disk/libgnutls.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define PRIORITY_CERTIFICATES "NORMAL"
#define PRIORITY_PSK          "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK"

#define KEYS_MAX 4096u /* lines of a file of keys */
#define KEY_MAX  64u   /* bytes */

struct key {
    char *name;
    uint8_t bytes[KEY_MAX];
    unsigned length;
};

struct nbd_tls_identity {
    const struct libgnutls *g;
    bool server;
    bool asks; /* for the client's certificate */
    gnutls_certificate_credentials_t certificates;
    gnutls_psk_server_credentials_t psk_server;
    gnutls_psk_client_credentials_t psk_client;
    struct key *keys;
    unsigned n_keys;
};

struct nbd_tls {
    const struct libgnutls *g;
    gnutls_session_t session;
    bool shaken;
};

/* ---- keys ---- */

static bool parse_key(const char *line, struct key *key)
{
    const char *colon = strchr(line, ':'), *hex = colon ? colon + 1 : NULL;
    size_t digits = hex ? strspn(hex, "0123456789abcdefABCDEF") : 0;

    if (!colon || colon == line || !digits || digits % 2 || digits / 2 > KEY_MAX || hex[digits])
        return false;
    key->length = (unsigned)digits / 2;
    for (unsigned i = 0; i < key->length; i++) {
        char byte[3] = {hex[2 * i], hex[2 * i + 1], 0};
        key->bytes[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
    key->name = strndup(line, (size_t)(colon - line));
    return key->name;
}

static int read_keys(struct nbd_tls_identity *identity, const char *path, struct error **err)
{
    cleanup_fclose FILE *f = fopen(path, "re");
    char line[512];
    unsigned number = 0;

    if (!f)
        return error_set_errno(err, errno, "keys '%s'", path);
    identity->keys = calloc(KEYS_MAX, sizeof(*identity->keys));
    if (!identity->keys)
        return error_set_errno(err, ENOMEM, "keys '%s'", path);
    while (fgets(line, sizeof(line), f)) {
        number++;
        line[strcspn(line, "\r\n")] = '\0';
        if (!line[0] || line[0] == '#')
            continue;
        if (identity->n_keys == KEYS_MAX)
            return error_set(err, E2BIG, "keys '%s': more than %u lines", path, KEYS_MAX);
        if (!parse_key(line, &identity->keys[identity->n_keys]))
            return error_set(err, EINVAL,
                             "keys '%s': line %u is not NAME:KEY with a key of up to %u bytes in hexadecimal "
                             "(psktool makes such files)",
                             path, number, KEY_MAX);
        identity->n_keys++;
    }
    return identity->n_keys ? 0 : error_set(err, EINVAL, "keys '%s': there is none", path);
}

/* GnuTLS has no pointer of ours but the session's. */
static int find_key(gnutls_session_t session, const char *name, gnutls_datum_t *key)
{
    const struct libgnutls *g = libgnutls(NULL);
    const struct nbd_tls_identity *identity = g->gnutls_session_get_ptr(session);

    for (unsigned i = 0; i < identity->n_keys; i++) {
        const struct key *k = &identity->keys[i];
        if (strcmp(k->name, name) != 0)
            continue;
        key->data = (*g->gnutls_malloc)(k->length);
        if (!key->data)
            return -1;
        memcpy(key->data, k->bytes, k->length);
        key->size = k->length;
        return 0;
    }
    return -1;
}

static int use_psk(struct nbd_tls_identity *identity, const struct nbd_tls_files *files, struct error **err)
{
    const struct libgnutls *g = identity->g;
    const struct key *key = NULL;
    int rc = read_keys(identity, files->psk, err);

    if (rc)
        return rc;
    if (identity->server) {
        if (g->gnutls_psk_allocate_server_credentials(&identity->psk_server) < 0)
            return error_set_errno(err, ENOMEM, "keys '%s'", files->psk);
        g->gnutls_psk_set_server_credentials_function(identity->psk_server, find_key);
        return 0;
    }
    for (unsigned i = 0; i < identity->n_keys && !key; i++)
        if (!files->user || strcmp(identity->keys[i].name, files->user) == 0)
            key = &identity->keys[i];
    if (!key)
        return error_set(err, ENOENT, "keys '%s': there is none of '%s'", files->psk, files->user);
    const gnutls_datum_t datum = {(unsigned char *)(uintptr_t)key->bytes, key->length};
    if (g->gnutls_psk_allocate_client_credentials(&identity->psk_client) < 0 ||
        g->gnutls_psk_set_client_credentials(identity->psk_client, key->name, &datum, GNUTLS_PSK_KEY_RAW) < 0)
        return error_set_errno(err, ENOMEM, "keys '%s'", files->psk);
    return 0;
}

/* ---- certificates ---- */

static char *file_in(const char *directory, const char *name)
{
    char *path;

    return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

static int use_certificates(struct nbd_tls_identity *identity, const char *directory, struct error **err)
{
    const struct libgnutls *g = identity->g;
    cleanup_free char *ca = file_in(directory, "ca-cert.pem");
    cleanup_free char *own = file_in(directory, identity->server ? "server-cert.pem" : "client-cert.pem");
    cleanup_free char *key = file_in(directory, identity->server ? "server-key.pem" : "client-key.pem");

    if (!ca || !own || !key || g->gnutls_certificate_allocate_credentials(&identity->certificates) < 0)
        return error_set_errno(err, ENOMEM, "certificates");
    bool has_ca = access(ca, F_OK) == 0, has_own = access(own, F_OK) == 0;
    if (!has_ca && !identity->server)
        return error_set_errno(err, errno, "certificate '%s', by which servers are known", ca);
    if (!has_own && identity->server)
        return error_set_errno(err, errno, "certificate '%s'", own);
    int rc = has_ca
                 ? g->gnutls_certificate_set_x509_trust_file(identity->certificates, ca, GNUTLS_X509_FMT_PEM)
                 : 1;
    if (rc <= 0)
        return error_set(err, EINVAL, "certificate '%s': %s", ca, rc ? g->gnutls_strerror(rc) : "is none");
    rc = has_own
             ? g->gnutls_certificate_set_x509_key_file(identity->certificates, own, key, GNUTLS_X509_FMT_PEM)
             : 0;
    if (rc < 0)
        return error_set(err, EINVAL, "certificate '%s' with key '%s': %s", own, key, g->gnutls_strerror(rc));
    identity->asks = has_ca;
    return 0;
}

int nbd_tls_identity_new(struct nbd_tls_identity **out, const struct nbd_tls_files *files, bool server,
                         struct error **err)
{
    const struct libgnutls *g = libgnutls(err);

    if (!g)
        return -ENOPKG;
    struct nbd_tls_identity *identity = calloc(1, sizeof(*identity));
    if (!identity)
        return error_set_errno(err, ENOMEM, "TLS");
    identity->g = g;
    identity->server = server;
    int rc =
        files->psk ? use_psk(identity, files, err) : use_certificates(identity, files->certificates, err);
    if (rc) {
        nbd_tls_identity_free(identity);
        return error_wrap(err, "TLS");
    }
    *out = identity;
    return 0;
}

void nbd_tls_identity_free(struct nbd_tls_identity *identity)
{
    if (!identity)
        return;
    const struct libgnutls *g = identity->g;
    if (identity->certificates)
        g->gnutls_certificate_free_credentials(identity->certificates);
    if (identity->psk_server)
        g->gnutls_psk_free_server_credentials(identity->psk_server);
    if (identity->psk_client)
        g->gnutls_psk_free_client_credentials(identity->psk_client);
    for (unsigned i = 0; i < identity->n_keys; i++) {
        explicit_bzero(identity->keys[i].bytes, KEY_MAX);
        free(identity->keys[i].name);
    }
    free(identity->keys);
    free(identity);
}

/* ---- sessions ---- */

static int set_up(gnutls_session_t session, const struct nbd_tls_identity *identity, const char *host)
{
    const struct libgnutls *g = identity->g;
    bool psk = !identity->certificates;
    int rc = g->gnutls_priority_set_direct(session, psk ? PRIORITY_PSK : PRIORITY_CERTIFICATES, NULL);

    if (rc == 0)
        rc = g->gnutls_credentials_set(session, psk ? GNUTLS_CRD_PSK : GNUTLS_CRD_CERTIFICATE,
                                       identity->psk_server   ? (void *)identity->psk_server
                                       : identity->psk_client ? (void *)identity->psk_client
                                                              : (void *)identity->certificates);
    if (rc == 0 && !psk && identity->server && identity->asks) {
        g->gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
        g->gnutls_session_set_verify_cert(session, NULL, 0);
    }
    if (rc == 0 && !psk && !identity->server) {
        /* A name, and not a number, is what the server may have several certificates for. */
        if (host && strspn(host, "0123456789.:") != strlen(host))
            rc = g->gnutls_server_name_set(session, GNUTLS_NAME_DNS, host, strlen(host));
        g->gnutls_session_set_verify_cert(session, host, 0);
    }
    g->gnutls_session_set_ptr(session, (void *)(uintptr_t)identity);
    return rc;
}

int nbd_tls_new(struct nbd_tls **out, const struct nbd_tls_identity *identity, int fd, const char *host)
{
    const struct libgnutls *g = identity->g;
    struct nbd_tls *tls = calloc(1, sizeof(*tls));

    if (!tls)
        return -ENOMEM;
    tls->g = g;
    if (g->gnutls_init(&tls->session, (identity->server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK |
                                          GNUTLS_NO_SIGNAL) < 0) {
        free(tls);
        return -ENOMEM;
    }
    if (set_up(tls->session, identity, host) < 0) {
        nbd_tls_free(tls);
        return -ENOMEM;
    }
    g->gnutls_transport_set_int2(tls->session, fd, fd);
    *out = tls;
    return 0;
}

void nbd_tls_free(struct nbd_tls *tls)
{
    if (!tls)
        return;
    /* What does not go out at once need not. */
    if (tls->shaken)
        tls->g->gnutls_bye(tls->session, GNUTLS_SHUT_WR);
    tls->g->gnutls_deinit(tls->session);
    free(tls);
}

int nbd_tls_shake(struct nbd_tls *tls, char *why, size_t len)
{
    const struct libgnutls *g = tls->g;

    for (;;) {
        int rc = g->gnutls_handshake(tls->session);
        if (rc == 0) {
            tls->shaken = true;
            return 1;
        }
        if (rc == GNUTLS_E_AGAIN)
            return 0;
        if (!g->gnutls_error_is_fatal(rc))
            continue;
        if (rc == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR)
            snprintf(why, len,
                     "the certificate is not what is expected (status 0x%x): it must be signed by "
                     "ca-cert.pem's, be valid today, and have the name that was asked for",
                     g->gnutls_session_get_verify_cert_status(tls->session));
        else
            snprintf(why, len, "%s", g->gnutls_strerror(rc));
        return -EPROTO;
    }
}

bool nbd_tls_wants_to_send(const struct nbd_tls *tls)
{
    return tls->g->gnutls_record_get_direction(tls->session) == 1;
}

static ssize_t result(const struct nbd_tls *tls, ssize_t rc)
{
    if (rc >= 0)
        return rc;
    return rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_INTERRUPTED || !tls->g->gnutls_error_is_fatal((int)rc)
               ? -EAGAIN
               : -EPROTO;
}

ssize_t nbd_tls_receive(struct nbd_tls *tls, void *buf, size_t len)
{
    return result(tls, tls->g->gnutls_record_recv(tls->session, buf, len));
}

ssize_t nbd_tls_send(struct nbd_tls *tls, const void *buf, size_t len)
{
    return result(tls, tls->g->gnutls_record_send(tls->session, buf, len));
}

bool nbd_tls_has_more(const struct nbd_tls *tls)
{
    return tls->g->gnutls_record_check_pending(tls->session) > 0;
}
