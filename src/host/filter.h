/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Filters of system calls as programs for the kernel (seccomp(2)). No state. */
#ifndef TABIQUE_HOST_FILTER_H
#define TABIQUE_HOST_FILTER_H

#include <linux/filter.h>

/* What libseccomp has made, which it writes to a file only; `context` is what seccomp_init gave. 0 with *out,
 * whose filter is to be freed; -errno. */
int filter_export(void *context, struct sock_fprog *out);

#endif
