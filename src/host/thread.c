/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/thread.h"

/* A sanitizer's code takes several times as much. */
#ifdef TABIQUE_SANITIZED
#define STACK_SIZE (8u << 20)
#else
#define STACK_SIZE (512u << 10)
#endif

int thread_start(pthread_t *thread, void *(*run)(void *), void *opaque)
{
    pthread_attr_t attr;
    int rc = pthread_attr_init(&attr);

    if (rc)
        return -rc;
    rc = pthread_attr_setstacksize(&attr, STACK_SIZE);
    if (rc == 0)
        rc = pthread_create(thread, &attr, run, opaque);
    pthread_attr_destroy(&attr);
    return -rc;
}
