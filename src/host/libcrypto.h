/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is used of OpenSSL's libcrypto, which is loaded when an image is made or an encrypted disk is opened.
 */
#ifndef TABIQUE_HOST_LIBCRYPTO_H
#define TABIQUE_HOST_LIBCRYPTO_H

#include "host/library.h"

#include <openssl/evp.h>

#define LIBCRYPTO(F)                                                                                         \
    F(EVP_CIPHER_CTX_free)                                                                                   \
    F(EVP_CIPHER_CTX_new)                                                                                    \
    F(EVP_CIPHER_CTX_set_padding)                                                                            \
    F(EVP_CipherInit_ex)                                                                                     \
    F(EVP_CipherUpdate)                                                                                      \
    F(EVP_Digest)                                                                                            \
    F(EVP_DigestFinal_ex)                                                                                    \
    F(EVP_DigestInit_ex)                                                                                     \
    F(EVP_DigestUpdate)                                                                                      \
    F(EVP_MD_CTX_free)                                                                                       \
    F(EVP_MD_CTX_new)                                                                                        \
    F(EVP_aes_128_cbc)                                                                                       \
    F(EVP_aes_128_xts)                                                                                       \
    F(EVP_aes_192_cbc)                                                                                       \
    F(EVP_aes_256_cbc)                                                                                       \
    F(EVP_aes_256_ecb)                                                                                       \
    F(EVP_aes_256_xts)                                                                                       \
    F(EVP_sha1)                                                                                              \
    F(EVP_sha256)                                                                                            \
    F(EVP_sha512)                                                                                            \
    F(PKCS5_PBKDF2_HMAC)

struct libcrypto {
    LIBCRYPTO(LIBRARY_POINTER)
};

/* Its functions, or NULL with *err. */
const struct libcrypto *libcrypto(struct error **err);

#endif
