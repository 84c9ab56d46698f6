/* SPDX-License-Identifier: GPL-2.0-or-later */
/* LUKS headers that anyone may have made: the secret is known, and the iterations that they ask for are few,
 * for they are only a matter of time. */
#ifndef TABIQUE_FUZZ_LUKS_FUZZ_H
#define TABIQUE_FUZZ_LUKS_FUZZ_H

#include "base/bytes.h"
#include "disk_fuzz.h"

#define LUKS_HEAD 592u

static inline void fuzz_luks_few(uint8_t *iterations)
{
    put_be32(iterations, get_be32(iterations) % 16);
}

static inline void fuzz_luks_secret(void)
{
    static char name[32];
    int fd = memfd_create("secret", 0);

    if (fd < 0 || write(fd, "secret", 6) != 6)
        abort();
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    fuzz_secret = name;
}

/* The header at this place of the file. */
static inline void fuzz_luks_prepare(int fd, uint64_t at)
{
    uint8_t head[LUKS_HEAD];

    if (!fuzz_secret)
        fuzz_luks_secret();
    if (disk_read_at(fd, head, sizeof(head), at) < 0)
        return;
    fuzz_luks_few(head + 164);
    for (unsigned i = 0; i < 8; i++)
        fuzz_luks_few(head + 212 + 48 * (size_t)i);
    disk_write_at(fd, head, sizeof(head), at);
}

#endif
