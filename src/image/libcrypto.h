/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is used of OpenSSL's libcrypto, which is loaded when an image is made. */
#ifndef TABIQUE_IMAGE_LIBCRYPTO_H
#define TABIQUE_IMAGE_LIBCRYPTO_H

#include "host/library.h"

#include <openssl/evp.h>

#define LIBCRYPTO(F)                                                                                         \
    F(EVP_Digest)                                                                                            \
    F(EVP_DigestFinal_ex)                                                                                    \
    F(EVP_DigestInit_ex)                                                                                     \
    F(EVP_DigestUpdate)                                                                                      \
    F(EVP_MD_CTX_free)                                                                                       \
    F(EVP_MD_CTX_new)                                                                                        \
    F(EVP_sha256)

struct libcrypto {
    LIBCRYPTO(LIBRARY_POINTER)
};

/* Its functions, or NULL with *err. */
const struct libcrypto *libcrypto(struct error **err);

#endif
