/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host of power.h. One thread writes. */
#include "power.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define ENTRIES 100000u

static struct entry {
    enum { WRITTEN, PUNCHED, TRUNCATED, SYNCED } what;
    bool second; /* of the file that power_also names */
    uint64_t offset, length;
    uint8_t *bytes;
} log_entries[ENTRIES];
static unsigned n_entries;
static bool logging;
static unsigned syncs_to_fail;

static char also_path[200], also_start[200];

void power_also(const char *path, const char *start)
{
    snprintf(also_path, sizeof(also_path), "%s", path ? path : "");
    snprintf(also_start, sizeof(also_start), "%s", path ? start : "");
}

static bool is_second(int fd)
{
    struct stat a, b;

    return *also_path && fstat(fd, &a) == 0 && stat(also_path, &b) == 0 && a.st_ino == b.st_ino;
}

static void log_entry(int fd, struct entry e)
{
    e.second = is_second(fd);
    assert_in_range(n_entries, 0, ENTRIES - 1);
    log_entries[n_entries++] = e;
}

/* In place of the C library's, for the whole program. */
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
    if (logging) {
        struct entry e = {.what = WRITTEN, .offset = (uint64_t)offset};
        for (int i = 0; i < n; i++) {
            e.bytes = realloc(e.bytes, e.length + iov[i].iov_len);
            assert_non_null(e.bytes);
            memcpy(e.bytes + e.length, iov[i].iov_base, iov[i].iov_len);
            e.length += iov[i].iov_len;
        }
        log_entry(fd, e);
    }
    return syscall(SYS_pwritev, fd, iov, (long)n, (long)offset, 0l);
}

int fdatasync(int fd)
{
    if (syncs_to_fail) {
        syncs_to_fail--;
        errno = EIO;
        return -1;
    }
    if (logging)
        log_entry(fd, (struct entry){.what = SYNCED});
    return 0;
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (logging)
        log_entry(fd,
                  (struct entry){.what = PUNCHED, .offset = (uint64_t)offset, .length = (uint64_t)length});
    return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int ftruncate(int fd, off_t length)
{
    if (logging)
        log_entry(fd, (struct entry){.what = TRUNCATED, .length = (uint64_t)length});
    return (int)syscall(SYS_ftruncate, fd, length);
}

static void truncate_to(uint8_t *file, size_t room, size_t *end, uint64_t length)
{
    assert_true(length <= room);
    if (length < *end)
        memset(file + length, 0, *end - length);
    *end = length;
}

static void apply(uint8_t *file, size_t room, size_t *end, const struct entry *e, uint64_t skip, uint64_t n)
{
    if (e->what == SYNCED)
        return;
    assert_true(e->offset + skip + n <= room);
    if (e->what == WRITTEN)
        memcpy(file + e->offset + skip, e->bytes + skip, n);
    else
        memset(file + e->offset + skip, 0, n);
    if (e->what == WRITTEN && *end < e->offset + skip + n)
        *end = e->offset + skip + n;
}

void power_log_begin(void)
{
    n_entries = 0;
    logging = true;
}

void power_log_go_on(void)
{
    logging = true;
}

void power_log_end(void)
{
    logging = false;
}

void power_log_free(void)
{
    for (unsigned i = 0; i < n_entries; i++)
        free(log_entries[i].bytes);
    memset(log_entries, 0, sizeof(log_entries));
    n_entries = 0;
}

unsigned power_log_length(void)
{
    return n_entries;
}

void power_fail_syncs(unsigned n)
{
    syncs_to_fail = n;
}

unsigned power_syncs_to_fail(void)
{
    return syncs_to_fail;
}

/* One of the files. */
static void build(struct stamps *s, const char *start, const char *path, unsigned cut, bool second)
{
    size_t room = 64u << 20;
    uint8_t *file = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open(start, O_RDONLY | O_CLOEXEC);
    unsigned synced = 0;

    assert_true(file != MAP_FAILED && fd >= 0);
    ssize_t got = read(fd, file, room);
    assert_true(got > 0);
    close(fd);
    size_t end = (size_t)got;
    for (unsigned i = 0; i < cut; i++)
        if (log_entries[i].what == SYNCED && log_entries[i].second == second)
            synced = i;
    /* Few of the later writes, most of them, or half. */
    uint64_t chance = 1 + stamps_random(s, 3);
    for (unsigned i = 0; i < cut; i++) {
        const struct entry *e = &log_entries[i];
        if (e->second != second)
            continue;
        if (e->what == TRUNCATED) {
            if (i < synced || stamps_random(s, 4) < chance)
                truncate_to(file, room, &end, e->length);
            continue;
        }
        if (i < synced) {
            apply(file, room, &end, e, 0, e->length);
            continue;
        }
        bool by_sector = stamps_random(s, 2), all = stamps_random(s, 4) < chance;
        for (uint64_t at = 0; at < e->length; at += 512) {
            uint64_t n = e->length - at < 512 ? e->length - at : 512;
            if (by_sector ? stamps_random(s, 4) < chance : all)
                apply(file, room, &end, e, at, n);
        }
    }
    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, file, end), end);
    close(fd);
    munmap(file, room);
}

void power_build(struct stamps *s, const char *start, const char *path, unsigned cut)
{
    build(s, start, path, cut, false);
    if (*also_path)
        build(s, also_start, also_path, cut, true);
}
