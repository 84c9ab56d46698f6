/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The header of LUKS, version 1, all big-endian:
 *
 *     592 bytes: cipher, digest of the key, 8 slots | of each slot the key, split and encrypted | content
 *
 * A slot's key comes from the secret by PBKDF2. It decrypts "stripes" copies' worth of bytes, from which the
 * content's key is merged: so that destroying any part of them destroys it. No state.
 */
#include "disk/luks.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk_priv.h"
#include "host/libcrypto.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    HEAD = 592,
    AT_VERSION = 6,
    AT_CIPHER = 8,
    AT_MODE = 40,
    AT_HASH = 72,
    NAME = 32,
    AT_PAYLOAD = 104, /* sectors */
    AT_KEY_BYTES = 108,
    AT_DIGEST = 112,
    DIGEST = 20,
    AT_DIGEST_SALT = 132,
    SALT = 32,
    AT_DIGEST_ITERATIONS = 164,
    AT_UUID = 168,
    AT_SLOTS = 208,
    SLOTS = 8,
    SLOT = 48,
    AT_SLOT_ITERATIONS = 4,
    AT_SLOT_SALT = 8,
    AT_SLOT_MATERIAL = 40, /* sectors */
    AT_SLOT_STRIPES = 44,
};

#define MAGIC          "LUKS\xba\xbe"
#define ACTIVE         0x00ac71f3u
#define DISABLED       0x0000deadu
#define STRIPES        4000u
#define STRIPES_MAX    16384u
#define HASH_MAX       64u
#define SECRET_MAX     65536u
#define MS             2000u
#define ITERATIONS_MIN 1000u
/* Of a slot. More is a header that is to keep us busy: some minutes. */
#define ITERATIONS_MAX 100000000u

struct slot {
    uint32_t iterations, stripes;
    uint64_t material; /* bytes */
    uint8_t salt[SALT];
};

struct header {
    char cipher[NAME + 1], mode[NAME + 1], hash[NAME + 1];
    uint32_t key_bytes, iterations;
    uint64_t payload;
    uint8_t digest[DIGEST], salt[SALT];
    unsigned n;
    struct slot slots[SLOTS];
};

/* ---- secrets ---- */

int disk_secret_read(struct disk_secret **out, const char *path, struct error **err)
{
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    const struct libcrypto *lib = libcrypto(err);
    uint8_t digest[32];
    size_t len = 0;

    if (!lib)
        return -ENOPKG;
    /* At its first digest libcrypto reads its configuration. */
    lib->EVP_Digest(path, 0, digest, NULL, lib->EVP_sha256(), NULL);
    if (fd < 0)
        return error_set_errno(err, errno, "secret '%s'", path);
    struct disk_secret *secret = malloc(sizeof(*secret) + SECRET_MAX + 1);
    if (!secret)
        return error_set_errno(err, ENOMEM, "secret '%s'", path);
    for (ssize_t n = 1; n > 0 && len <= SECRET_MAX; len += (size_t)n) {
        n = read(fd, secret->bytes + len, SECRET_MAX + 1 - len);
        if (n < 0) {
            int rc = error_set_errno(err, errno, "secret '%s'", path);
            secret->len = len;
            disk_secret_free(secret);
            return rc;
        }
    }
    secret->len = len;
    if (!len || len > SECRET_MAX) {
        disk_secret_free(secret);
        return error_set(err, EINVAL, "secret '%s' %s", path,
                         len ? "is longer than 64 KiB" : "is empty: all bytes of the file are the secret");
    }
    *out = secret;
    return 0;
}

void disk_secret_free(struct disk_secret *secret)
{
    if (!secret)
        return;
    explicit_bzero(secret->bytes, secret->len);
    free(secret);
}

/* ---- keys ---- */

/* Bytes of its digests; 0: it is not known here. */
static unsigned hash_size(const char *name)
{
    return strcmp(name, "sha1") == 0     ? 20
           : strcmp(name, "sha256") == 0 ? 32
           : strcmp(name, "sha512") == 0 ? 64
                                         : 0;
}

static const EVP_MD *hash_of(const struct libcrypto *lib, const char *name)
{
    unsigned size = hash_size(name);

    return size == 20 ? lib->EVP_sha1() : size == 32 ? lib->EVP_sha256() : lib->EVP_sha512();
}

static int pbkdf2(const struct libcrypto *lib, const char *hash, const uint8_t *from, size_t len,
                  const uint8_t *salt, uint32_t iterations, uint8_t *out, size_t out_len)
{
    return lib->PKCS5_PBKDF2_HMAC((const char *)from, (int)len, salt, SALT, (int)iterations,
                                  hash_of(lib, hash), (int)out_len, out) == 1
               ? 0
               : -EIO;
}

/* Spreads each bit of the key over all of it: each piece of a digest's size becomes its digest, with the
 * piece's number before it. */
static int diffuse(const struct libcrypto *lib, const char *hash, uint8_t *key, uint32_t len)
{
    uint8_t in[4 + HASH_MAX], out[HASH_MAX];
    unsigned size = hash_size(hash);
    const EVP_MD *md = hash_of(lib, hash);

    for (uint32_t i = 0, at = 0; at < len; i++, at += size) {
        uint32_t n = len - at < size ? len - at : size;
        put_be32(in, i);
        memcpy(in + 4, key + at, n);
        if (lib->EVP_Digest(in, 4 + n, out, NULL, md, NULL) != 1)
            return -EIO;
        memcpy(key + at, out, n);
    }
    return 0;
}

/* From all but the last stripe, what the last one is to be XORed with. */
static int mix(const struct libcrypto *lib, const char *hash, const uint8_t *stripes, uint32_t n,
               uint8_t *key, uint32_t len)
{
    int rc = 0;

    memset(key, 0, len);
    for (uint32_t i = 0; i + 1 < n && rc == 0; i++) {
        for (uint32_t k = 0; k < len; k++)
            key[k] ^= stripes[(size_t)i * len + k];
        rc = diffuse(lib, hash, key, len);
    }
    return rc;
}

static size_t material_bytes(const struct header *h, const struct slot *s)
{
    return ALIGN_UP((size_t)h->key_bytes * s->stripes, (size_t)LUKS_SECTOR);
}

/* Whether the secret opens the slot: then the cipher has its key. 1, 0 or -errno. */
static int try_slot(const struct header *h, const struct slot *s, int fd, uint64_t at,
                    const struct disk_secret *secret, struct luks_cipher *c)
{
    size_t bytes = material_bytes(h, s);
    uint8_t key[LUKS_KEY_MAX], digest[DIGEST];
    uint8_t *material = malloc(bytes);
    int rc = material ? disk_read_at(fd, material, bytes, at + s->material) : -ENOMEM;

    if (rc == 0)
        rc = pbkdf2(c->lib, h->hash, secret->bytes, secret->len, s->salt, s->iterations, key, h->key_bytes);
    if (rc == 0)
        rc = luks_cipher_set_key(c, key);
    if (rc == 0)
        rc = luks_cipher_run(c, false, 0, material, bytes);
    if (rc == 0)
        rc = mix(c->lib, h->hash, material, s->stripes, key, h->key_bytes);
    for (uint32_t k = 0; k < h->key_bytes && rc == 0; k++)
        key[k] ^= material[(size_t)(s->stripes - 1) * h->key_bytes + k];
    if (rc == 0)
        rc = pbkdf2(c->lib, h->hash, key, h->key_bytes, h->salt, h->iterations, digest, DIGEST);
    if (rc == 0 && memcmp(digest, h->digest, DIGEST) == 0) {
        rc = luks_cipher_set_key(c, key);
        rc = rc ? rc : 1;
    }
    explicit_bzero(key, sizeof(key));
    if (material)
        explicit_bzero(material, bytes);
    free(material);
    return rc;
}

/* ---- the header ---- */

static int take_slot(struct header *h, const uint8_t *p, unsigned i, struct error **err)
{
    struct slot s = {.iterations = get_be32(p + AT_SLOT_ITERATIONS),
                     .stripes = get_be32(p + AT_SLOT_STRIPES),
                     .material = (uint64_t)get_be32(p + AT_SLOT_MATERIAL) * LUKS_SECTOR};

    if (get_be32(p) == DISABLED)
        return 0;
    if (get_be32(p) != ACTIVE)
        return error_set(err, EINVAL, "is damaged: slot %u is neither in use nor free", i);
    if (!s.iterations || s.iterations > ITERATIONS_MAX || !s.stripes || s.stripes > STRIPES_MAX ||
        s.material < HEAD || s.material + material_bytes(h, &s) > h->payload)
        return error_set(err, EINVAL,
                         "is damaged: slot %u has %u iterations (%u at most), %u stripes at byte %" PRIu64, i,
                         s.iterations, ITERATIONS_MAX, s.stripes, s.material);
    memcpy(s.salt, p + AT_SLOT_SALT, SALT);
    h->slots[h->n++] = s;
    return 0;
}

static int parse(const uint8_t *p, struct header *h, struct error **err)
{
    *h = (struct header){.key_bytes = get_be32(p + AT_KEY_BYTES),
                         .iterations = get_be32(p + AT_DIGEST_ITERATIONS),
                         .payload = (uint64_t)get_be32(p + AT_PAYLOAD) * LUKS_SECTOR};
    if (memcmp(p, MAGIC, 6) != 0)
        return error_set(err, EINVAL, "is not a LUKS image");
    if (get_be16(p + AT_VERSION) != 1)
        return error_set(err, ENOTSUP,
                         "is LUKS of version %u: 1 is known here ('cryptsetup convert --type luks1' makes it "
                         "that where it can)",
                         get_be16(p + AT_VERSION));
    memcpy(h->cipher, p + AT_CIPHER, NAME);
    memcpy(h->mode, p + AT_MODE, NAME);
    memcpy(h->hash, p + AT_HASH, NAME);
    memcpy(h->digest, p + AT_DIGEST, DIGEST);
    memcpy(h->salt, p + AT_DIGEST_SALT, SALT);
    if (!hash_size(h->hash))
        return error_set(err, ENOTSUP, "has its keys by %s: sha1, sha256 and sha512 are known here", h->hash);
    if (!h->key_bytes || h->key_bytes > LUKS_KEY_MAX || !h->iterations || h->iterations > ITERATIONS_MAX)
        return error_set(err, EINVAL, "is damaged: a key of %u bytes, %u iterations", h->key_bytes,
                         h->iterations);
    if (h->payload < HEAD)
        return error_set(err, EINVAL, "is damaged: its content begins within its header");
    for (unsigned i = 0; i < SLOTS; i++) {
        int rc = take_slot(h, p + AT_SLOTS + i * SLOT, i, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int read_header(int fd, uint64_t at, struct header *h, struct error **err)
{
    uint8_t p[HEAD];
    int rc = disk_read_at(fd, p, sizeof(p), at);

    return rc ? error_set_errno(err, -rc, "reading its header") : parse(p, h, err);
}

int luks_describe(int fd, uint64_t at, struct disk_info *info, uint64_t *payload, struct error **err)
{
    struct header h;
    int rc = read_header(fd, at, &h, err);

    if (rc)
        return rc;
    *payload = h.payload;
    disk_info_add(info, "encryption", "LUKS 1, %.16s-%.20s, %u bits", h.cipher, h.mode, h.key_bytes * 8);
    disk_info_add(info, "key-slots-in-use", "%u", h.n);
    return 0;
}

int luks_open(struct luks *l, int fd, uint64_t at, const struct disk_secret *secret, struct error **err)
{
    struct header h;

    /* A confined process could not even load libcrypto any more. */
    if (!secret)
        return error_set(
            err, EACCES,
            "is encrypted: give the file that has its secret (--secret-file FILE; of a guest's disk "
            "secret-file=FILE)");
    int rc = read_header(fd, at, &h, err);
    if (rc == 0)
        rc = luks_cipher_choose(&l->cipher, h.cipher, h.mode, h.key_bytes, err);
    if (rc)
        return rc;
    l->payload = h.payload;
    for (unsigned i = 0; i < h.n; i++) {
        rc = try_slot(&h, &h.slots[i], fd, at, secret, &l->cipher);
        if (rc > 0)
            return 0;
        if (rc < 0)
            break;
    }
    luks_close(l);
    return rc ? error_set_errno(err, -rc, "finding its key")
              : error_set(err, EACCES,
                          "is encrypted, and not by this secret (all bytes of the file count, also a newline "
                          "at its end)");
}

int luks_read(const struct luks_cipher *c, int fd, uint64_t base, uint64_t offset, void *buf, size_t len)
{
    uint8_t *to = buf, sector[LUKS_SECTOR];

    while (len) {
        uint64_t first = offset / LUKS_SECTOR, skip = offset % LUKS_SECTOR;
        bool whole = !skip && len >= LUKS_SECTOR;
        uint64_t n = whole ? ALIGN_DOWN(len, (size_t)LUKS_SECTOR) : LUKS_SECTOR;
        uint8_t *p = whole ? to : sector;
        int rc = disk_read_at(fd, p, n, base + first * LUKS_SECTOR);
        if (rc == 0)
            rc = luks_cipher_run(c, false, first, p, n);
        if (rc)
            return rc;
        if (!whole) {
            n = LUKS_SECTOR - skip < len ? LUKS_SECTOR - skip : len;
            memcpy(to, sector + skip, n);
        }
        to += n;
        offset += n;
        len -= n;
    }
    return 0;
}

void luks_close(struct luks *l)
{
    explicit_bzero(&l->cipher, sizeof(l->cipher));
}

/* ---- making one ---- */

/* How many iterations take that long. */
static int measure(const struct libcrypto *lib, unsigned ms, uint32_t *out)
{
    static const uint8_t salt[SALT];
    uint8_t key[LUKS_KEY_MAX];

    for (uint32_t n = 4096;; n *= 2) {
        struct timespec a, b;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
        int rc = pbkdf2(lib, "sha256", salt, SALT, salt, n, key, sizeof(key));
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
        uint64_t us = (uint64_t)(b.tv_sec - a.tv_sec) * 1000000 + (uint64_t)(b.tv_nsec / 1000) -
                      (uint64_t)(a.tv_nsec / 1000);
        if (rc)
            return rc;
        if (us < 20000 && n < ITERATIONS_MAX / 2)
            continue;
        uint64_t wanted = (uint64_t)n * ms * 1000 / (us ? us : 1);
        *out = wanted < ITERATIONS_MIN   ? ITERATIONS_MIN
               : wanted > ITERATIONS_MAX ? ITERATIONS_MAX
                                         : (uint32_t)wanted;
        return 0;
    }
}

/* Splits the key into a slot's stripes and encrypts them. `c`: the slot's cipher. */
static int split(struct luks_cipher *c, const struct header *h, const struct slot *s, const uint8_t *key,
                 const struct disk_secret *secret, uint8_t *material)
{
    uint8_t slot_key[LUKS_KEY_MAX];
    size_t most = (size_t)h->key_bytes * (s->stripes - 1);
    uint8_t *last = material + most;
    int rc = 0;

    for (size_t done = 0; done < most && rc == 0;) {
        ssize_t n = getrandom(material + done, most - done, 0);
        if (n <= 0)
            rc = -EIO;
        done += n > 0 ? (size_t)n : 0;
    }
    if (rc == 0)
        rc = mix(c->lib, h->hash, material, s->stripes, last, h->key_bytes);
    for (uint32_t k = 0; k < h->key_bytes; k++)
        last[k] ^= key[k];
    if (rc == 0)
        rc = pbkdf2(c->lib, h->hash, secret->bytes, secret->len, s->salt, s->iterations, slot_key,
                    h->key_bytes);
    if (rc == 0)
        rc = luks_cipher_set_key(c, slot_key);
    if (rc == 0)
        rc = luks_cipher_run(c, true, 0, material, material_bytes(h, s));
    explicit_bzero(slot_key, sizeof(slot_key));
    return rc;
}

static void write_head(const struct header *h, uint8_t *p, const uint8_t uuid[16])
{
    uint32_t each = (uint32_t)(ALIGN_UP(material_bytes(h, &h->slots[0]), (size_t)4096) / LUKS_SECTOR);

    memcpy(p, MAGIC, 6);
    put_be16(p + AT_VERSION, 1);
    memcpy(p + AT_CIPHER, h->cipher, NAME);
    memcpy(p + AT_MODE, h->mode, NAME);
    memcpy(p + AT_HASH, h->hash, NAME);
    put_be32(p + AT_PAYLOAD, (uint32_t)(h->payload / LUKS_SECTOR));
    put_be32(p + AT_KEY_BYTES, h->key_bytes);
    memcpy(p + AT_DIGEST, h->digest, DIGEST);
    memcpy(p + AT_DIGEST_SALT, h->salt, SALT);
    put_be32(p + AT_DIGEST_ITERATIONS, h->iterations);
    snprintf((char *)p + AT_UUID, 40, "%08x-%04x-%04x-%04x-%04x%08x", get_be32(uuid), get_be16(uuid + 4),
             0x4000u | (get_be16(uuid + 6) & 0xfffu), 0x8000u | (get_be16(uuid + 8) & 0x3fffu),
             get_be16(uuid + 10), get_be32(uuid + 12));
    for (unsigned i = 0; i < SLOTS; i++) {
        uint8_t *s = p + AT_SLOTS + i * SLOT;
        put_be32(s, i ? DISABLED : ACTIVE);
        put_be32(s + AT_SLOT_MATERIAL, (uint32_t)(h->slots[0].material / LUKS_SECTOR) + i * each);
        put_be32(s + AT_SLOT_STRIPES, STRIPES);
    }
    put_be32(p + AT_SLOTS + AT_SLOT_ITERATIONS, h->slots[0].iterations);
    memcpy(p + AT_SLOTS + AT_SLOT_SALT, h->slots[0].salt, SALT);
}

static int make_header(struct luks *l, uint8_t *out, const struct disk_secret *secret, unsigned ms,
                       struct header *h, uint8_t *key)
{
    const struct libcrypto *lib = l->cipher.lib;
    struct slot *s = &h->slots[0];
    struct luks_cipher slot_cipher = l->cipher;
    uint8_t random[LUKS_KEY_MAX + 2 * SALT + 16];
    int rc = getrandom(random, sizeof(random), 0) == sizeof(random) ? 0 : -EIO;

    memcpy(key, random, LUKS_KEY_MAX);
    memcpy(h->salt, random + LUKS_KEY_MAX, SALT);
    memcpy(s->salt, random + LUKS_KEY_MAX + SALT, SALT);
    if (rc == 0)
        rc = measure(lib, ms ? ms : MS, &s->iterations);
    /* Who has the digest has to guess a key and not a secret: an eighth is plenty. */
    h->iterations = s->iterations / 8 < ITERATIONS_MIN ? ITERATIONS_MIN : s->iterations / 8;
    if (rc == 0)
        rc = pbkdf2(lib, h->hash, key, h->key_bytes, h->salt, h->iterations, h->digest, DIGEST);
    if (rc == 0)
        rc = split(&slot_cipher, h, s, key, secret, out + s->material);
    if (rc == 0)
        write_head(h, out, random + LUKS_KEY_MAX + 2 * SALT);
    explicit_bzero(&slot_cipher, sizeof(slot_cipher));
    explicit_bzero(random, LUKS_KEY_MAX);
    return rc ? rc : luks_cipher_set_key(&l->cipher, key);
}

int luks_format(struct luks *l, uint8_t *out, const struct disk_create *what, struct error **err)
{
    struct header h = {.cipher = "aes",
                       .mode = "xts-plain64",
                       .hash = "sha256",
                       .key_bytes = LUKS_KEY_MAX,
                       .payload = LUKS_HEADER,
                       .n = 1,
                       .slots = {{.stripes = STRIPES, .material = 4096}}};
    struct disk_secret *own = NULL;
    uint8_t key[LUKS_KEY_MAX];
    int rc = what->secret ? 0 : disk_secret_read(&own, what->key_file, err);

    if (rc == 0)
        rc = luks_cipher_choose(&l->cipher, h.cipher, h.mode, h.key_bytes, err);
    if (rc == 0) {
        memset(out, 0, LUKS_HEADER);
        l->payload = h.payload;
        rc = make_header(l, out, own ? own : what->secret, what->iter_time, &h, key);
        if (rc)
            error_set_errno(err, -rc, "making its keys");
    }
    explicit_bzero(key, sizeof(key));
    disk_secret_free(own);
    return rc;
}
