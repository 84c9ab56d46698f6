/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tar archives made by hand, for tests: also such that no tool would make. */
#ifndef TESTS_IMAGE_TAR_H
#define TESTS_IMAGE_TAR_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct tar_entry {
    char type; /* '0' file, '1' link, '2' symbolic link, '3' and '4' devices, '5' directory, '6' FIFO, 'x' pax
                */
    const char *name, *link, *data;
    unsigned mode, uid, gid, mtime; /* up to 21 bits, mtime up to 33 */
    uint64_t claimed;               /* the size that the header has, where it is not that of the data */
};

/* The fields of POSIX.1-1988's header ("ustar"): octal numbers, and a sum over all bytes. */
static inline void tar_put(FILE *f, const struct tar_entry *e)
{
    char head[512] = "", pad[512] = "";
    size_t len = e->data ? strlen(e->data) : 0;
    unsigned sum = 0;

    snprintf(head, 101, "%s", e->name);
    snprintf(head + 100, 8, "%07o", (e->mode ? e->mode : 0644) & 07777777);
    snprintf(head + 108, 8, "%07o", e->uid & 07777777);
    snprintf(head + 116, 8, "%07o", e->gid & 07777777);
    snprintf(head + 124, 12, "%011llo", (unsigned long long)(e->claimed ? e->claimed : len) & 077777777777);
    snprintf(head + 136, 12, "%011o", e->mtime);
    memset(head + 148, ' ', 8);
    head[156] = e->type;
    snprintf(head + 157, 101, "%s", e->link ? e->link : "");
    memcpy(head + 257,
           "ustar\0"
           "00",
           8);
    memcpy(head + 329, "0000001\0000000003\0", 16);
    for (size_t i = 0; i < sizeof(head); i++)
        sum += (unsigned char)head[i];
    snprintf(head + 148, 8, "%06o", sum & 0777777);
    fwrite(head, 1, sizeof(head), f);
    if (e->data) {
        fwrite(e->data, 1, len, f);
        fwrite(pad, 1, (512 - len % 512) % 512, f);
    }
}

/* A descriptor of an archive with these entries, the last without a name. */
static inline int tar_make(const struct tar_entry *entries)
{
    char *bytes = NULL, zeros[1024] = "";
    size_t len;
    FILE *f = open_memstream(&bytes, &len);
    int fd = memfd_create("tar", MFD_CLOEXEC);

    for (; entries->name; entries++)
        tar_put(f, entries);
    fwrite(zeros, 1, sizeof(zeros), f);
    fclose(f);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
        abort();
    free(bytes);
    return fd;
}

#endif
