/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is used of libseccomp, which is loaded when a container has a profile. */
#ifndef TABIQUE_CONTAINER_LIBSECCOMP_H
#define TABIQUE_CONTAINER_LIBSECCOMP_H

#include "host/library.h"

#include <seccomp.h>

#define LIBSECCOMP(F)                                                                                        \
    F(seccomp_arch_add)                                                                                      \
    F(seccomp_arch_native)                                                                                   \
    F(seccomp_attr_set)                                                                                      \
    F(seccomp_export_bpf)                                                                                    \
    F(seccomp_init)                                                                                          \
    F(seccomp_release)                                                                                       \
    F(seccomp_rule_add_array)                                                                                \
    F(seccomp_syscall_resolve_name)                                                                          \
    F(seccomp_version)

struct libseccomp {
    LIBSECCOMP(LIBRARY_POINTER)
};

/* Its functions, or NULL with *err. */
const struct libseccomp *libseccomp(struct error **err);

#endif
