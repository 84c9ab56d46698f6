/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is used of GnuTLS, which is loaded when a disk is served or reached with TLS. */
#ifndef TABIQUE_DISK_LIBGNUTLS_H
#define TABIQUE_DISK_LIBGNUTLS_H

#include "host/library.h"

#include <gnutls/gnutls.h>

#define LIBGNUTLS(F)                                                                                         \
    F(gnutls_bye)                                                                                            \
    F(gnutls_certificate_allocate_credentials)                                                               \
    F(gnutls_certificate_free_credentials)                                                                   \
    F(gnutls_certificate_server_set_request)                                                                 \
    F(gnutls_certificate_set_x509_key_file)                                                                  \
    F(gnutls_certificate_set_x509_trust_file)                                                                \
    F(gnutls_credentials_set)                                                                                \
    F(gnutls_deinit)                                                                                         \
    F(gnutls_error_is_fatal)                                                                                 \
    F(gnutls_handshake)                                                                                      \
    F(gnutls_init)                                                                                           \
    F(gnutls_malloc)                                                                                         \
    F(gnutls_priority_set_direct)                                                                            \
    F(gnutls_psk_allocate_client_credentials)                                                                \
    F(gnutls_psk_allocate_server_credentials)                                                                \
    F(gnutls_psk_free_client_credentials)                                                                    \
    F(gnutls_psk_free_server_credentials)                                                                    \
    F(gnutls_psk_set_client_credentials)                                                                     \
    F(gnutls_psk_set_server_credentials_function)                                                            \
    F(gnutls_record_check_pending)                                                                           \
    F(gnutls_record_get_direction)                                                                           \
    F(gnutls_record_recv)                                                                                    \
    F(gnutls_record_send)                                                                                    \
    F(gnutls_server_name_set)                                                                                \
    F(gnutls_session_get_ptr)                                                                                \
    F(gnutls_session_get_verify_cert_status)                                                                 \
    F(gnutls_session_set_ptr)                                                                                \
    F(gnutls_session_set_verify_cert)                                                                        \
    F(gnutls_strerror)                                                                                       \
    F(gnutls_transport_set_int2)

struct libgnutls {
    LIBGNUTLS(LIBRARY_POINTER)
};

/* Its functions, or NULL with *err. */
const struct libgnutls *libgnutls(struct error **err);

#endif
