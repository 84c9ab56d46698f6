/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Threads of a VM process. */
#ifndef TABIQUE_HOST_THREAD_H
#define TABIQUE_HOST_THREAD_H

#include <pthread.h>

/*
 * As pthread_create, with the caller's signal mask and a stack that fits what this program's threads do. The
 * C library's default of 8 MiB costs nothing by itself, but where the host gives large pages to everyone
 * (/sys/kernel/mm/transparent_hugepage/enabled: always), the first byte used of a stack may be given 2 MiB.
 * One that is smaller than a large page never is. 0 or -errno.
 */
int thread_start(pthread_t *thread, void *(*run)(void *), void *opaque);

#endif
