/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ownership by scope: a variable marked with one of these is released when it goes out of scope. */
#ifndef TABIQUE_BASE_CLEANUP_H
#define TABIQUE_BASE_CLEANUP_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free_fn(void *p)
{
    free(*(void **)p);
}
static inline void cleanup_close_fn(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}
static inline void cleanup_fclose_fn(FILE **f)
{
    if (*f)
        fclose(*f);
}
static inline void cleanup_unlock_fn(pthread_mutex_t **m)
{
    if (*m)
        pthread_mutex_unlock(*m);
}

#define cleanup_free   __attribute__((cleanup(cleanup_free_fn)))
#define cleanup_close  __attribute__((cleanup(cleanup_close_fn)))
#define cleanup_fclose __attribute__((cleanup(cleanup_fclose_fn)))

/* `LOCK_SCOPE(&mutex);` holds the mutex to the end of the scope. One a scope. */
#define LOCK_SCOPE(m)                                                                                        \
    __attribute__((cleanup(cleanup_unlock_fn), unused)) pthread_mutex_t *scope_lock_ =                       \
        (pthread_mutex_lock(m), (m))

/* Hand a scoped pointer or file descriptor on: the scope no longer releases it. */
#define steal_ptr(p)                                                                                         \
    ({                                                                                                       \
        __typeof__(p) stolen_ = (p);                                                                         \
        (p) = NULL;                                                                                          \
        stolen_;                                                                                             \
    })
#define steal_fd(fd)                                                                                         \
    ({                                                                                                       \
        int stolen_ = (fd);                                                                                  \
        (fd) = -1;                                                                                           \
        stolen_;                                                                                             \
    })

#endif
