/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading and writing integers of a stated byte order at any alignment. */
#ifndef TABIQUE_BASE_BYTES_H
#define TABIQUE_BASE_BYTES_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BYTES_DEFINE(bits)                                                                                   \
    static inline uint##bits##_t get_le##bits(const void *p)                                                 \
    {                                                                                                        \
        uint##bits##_t v;                                                                                    \
        memcpy(&v, p, sizeof(v));                                                                            \
        return le##bits##toh(v);                                                                             \
    }                                                                                                        \
    static inline void put_le##bits(void *p, uint##bits##_t v)                                               \
    {                                                                                                        \
        v = htole##bits(v);                                                                                  \
        memcpy(p, &v, sizeof(v));                                                                            \
    }                                                                                                        \
    static inline uint##bits##_t get_be##bits(const void *p)                                                 \
    {                                                                                                        \
        uint##bits##_t v;                                                                                    \
        memcpy(&v, p, sizeof(v));                                                                            \
        return be##bits##toh(v);                                                                             \
    }                                                                                                        \
    static inline void put_be##bits(void *p, uint##bits##_t v)                                               \
    {                                                                                                        \
        v = htobe##bits(v);                                                                                  \
        memcpy(p, &v, sizeof(v));                                                                            \
    }
BYTES_DEFINE(16)
BYTES_DEFINE(32)
BYTES_DEFINE(64)
#undef BYTES_DEFINE

#define ARRAY_SIZE(a)         (sizeof(a) / sizeof((a)[0]))
#define ALIGN_UP(x, a)        (((x) + (__typeof__(x))(a)-1) & ~((__typeof__(x))(a)-1))
#define ALIGN_DOWN(x, a)      ((x) & ~((__typeof__(x))(a)-1))
#define container_of(p, t, m) ((t *)((char *)(p)-offsetof(t, m)))

#endif
