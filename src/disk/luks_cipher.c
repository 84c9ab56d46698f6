/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ciphers that LUKS headers name, sector by sector, by libcrypto. No state but what is in its structure.
 */
#include "disk/luks.h"

#include "base/bytes.h"
#include "base/error.h"
#include "host/libcrypto.h"

#include <errno.h>
#include <string.h>

#define IV 16u

int luks_cipher_choose(struct luks_cipher *c, const char *name, const char *mode, uint32_t key_bytes,
                       struct error **err)
{
    static const struct {
        const char *name;
        enum luks_mode mode;
        enum luks_iv iv;
    } modes[] = {
        {"xts-plain64", LUKS_XTS, LUKS_PLAIN64},    {"xts-plain", LUKS_XTS, LUKS_PLAIN},
        {"cbc-plain64", LUKS_CBC, LUKS_PLAIN64},    {"cbc-plain", LUKS_CBC, LUKS_PLAIN},
        {"cbc-essiv:sha256", LUKS_CBC, LUKS_ESSIV},
    };
    size_t i = 0;

    *c = (struct luks_cipher){.lib = libcrypto(err), .key_bytes = key_bytes};
    if (!c->lib)
        return -ENOPKG;
    while (i < ARRAY_SIZE(modes) && strcmp(modes[i].name, mode) != 0)
        i++;
    if (strcmp(name, "aes") != 0 || i == ARRAY_SIZE(modes))
        return error_set(err, ENOTSUP,
                         "is encrypted by %.32s-%.32s: aes with xts or cbc-essiv:sha256 is known here", name,
                         mode);
    c->mode = modes[i].mode;
    c->iv = modes[i].iv;
    bool known = c->mode == LUKS_XTS ? key_bytes == 32 || key_bytes == 64
                                     : key_bytes == 16 || key_bytes == 24 || key_bytes == 32;
    if (!known)
        return error_set(err, EINVAL, "is damaged: a key of %u bytes", key_bytes);
    return 0;
}

int luks_cipher_set_key(struct luks_cipher *c, const uint8_t *key)
{
    memcpy(c->key, key, c->key_bytes);
    if (c->iv != LUKS_ESSIV)
        return 0;
    return c->lib->EVP_Digest(key, c->key_bytes, c->iv_key, NULL, c->lib->EVP_sha256(), NULL) == 1 ? 0 : -EIO;
}

static const EVP_CIPHER *cipher_of(const struct luks_cipher *c)
{
    const struct libcrypto *lib = c->lib;

    if (c->mode == LUKS_XTS)
        return c->key_bytes == 64 ? lib->EVP_aes_256_xts() : lib->EVP_aes_128_xts();
    return c->key_bytes == 32   ? lib->EVP_aes_256_cbc()
           : c->key_bytes == 24 ? lib->EVP_aes_192_cbc()
                                : lib->EVP_aes_128_cbc();
}

/* The number that a sector's encryption begins with. `essiv`: encrypts it, where it is to be secret. */
static int make_iv(const struct luks_cipher *c, EVP_CIPHER_CTX *essiv, uint64_t sector, uint8_t iv[IV])
{
    int n;

    memset(iv, 0, IV);
    put_le64(iv, c->iv == LUKS_PLAIN ? (uint32_t)sector : sector);
    return !essiv || c->lib->EVP_CipherUpdate(essiv, iv, &n, iv, IV) == 1 ? 0 : -EIO;
}

static int run(const struct luks_cipher *c, EVP_CIPHER_CTX *ctx, EVP_CIPHER_CTX *essiv, bool encrypt,
               uint64_t sector, uint8_t *buf, size_t len)
{
    const struct libcrypto *lib = c->lib;
    uint8_t iv[IV];
    int n;

    if (lib->EVP_CipherInit_ex(ctx, cipher_of(c), NULL, c->key, NULL, encrypt) != 1 ||
        lib->EVP_CIPHER_CTX_set_padding(ctx, 0) != 1)
        return -EIO;
    if (essiv && (lib->EVP_CipherInit_ex(essiv, lib->EVP_aes_256_ecb(), NULL, c->iv_key, NULL, 1) != 1 ||
                  lib->EVP_CIPHER_CTX_set_padding(essiv, 0) != 1))
        return -EIO;
    for (; len; len -= LUKS_SECTOR, buf += LUKS_SECTOR, sector++)
        if (make_iv(c, essiv, sector, iv) < 0 ||
            lib->EVP_CipherInit_ex(ctx, NULL, NULL, NULL, iv, encrypt) != 1 ||
            lib->EVP_CipherUpdate(ctx, buf, &n, buf, LUKS_SECTOR) != 1)
            return -EIO;
    return 0;
}

int luks_cipher_run(const struct luks_cipher *c, bool encrypt, uint64_t sector, uint8_t *buf, size_t len)
{
    EVP_CIPHER_CTX *ctx = c->lib->EVP_CIPHER_CTX_new();
    EVP_CIPHER_CTX *essiv = c->iv == LUKS_ESSIV ? c->lib->EVP_CIPHER_CTX_new() : NULL;
    int rc = ctx && (essiv || c->iv != LUKS_ESSIV) ? run(c, ctx, essiv, encrypt, sector, buf, len) : -ENOMEM;

    c->lib->EVP_CIPHER_CTX_free(ctx);
    c->lib->EVP_CIPHER_CTX_free(essiv);
    return rc;
}
