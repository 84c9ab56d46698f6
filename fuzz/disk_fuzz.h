/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An image that anyone may have made: opening it, and requests on it, which write its tables too. The input
 * is 256 bytes of requests, then the file. Whatever the file says, requests end, memory stays bounded, and
 * nothing outside the given buffers is touched. For one fuzz target a format.
 */
#ifndef TABIQUE_FUZZ_DISK_FUZZ_H
#define TABIQUE_FUZZ_DISK_FUZZ_H

#include "base/cleanup.h"
#include "disk/disk.h"
#include "disk/disk_priv.h"
#include "fuzz_input.h"
#include "host/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SCRIPT   256u
#define FILE_MAX (4u << 20)
#define BUFFER   (256u << 10)
#define AT_ONCE  4u

static struct loop *loop;
/* The name of a file that has the disk's secret; NULL: it has none. */
static const char *fuzz_secret;
static unsigned pending;

static inline void done(struct disk_request *request, int result)
{
    if (result > 0)
        abort();
    if (--pending == 0)
        loop_stop(loop, 0);
}

static inline int file_with(const uint8_t *bytes, size_t size)
{
    int fd = memfd_create("image", MFD_CLOEXEC);

    if (fd < 0 || disk_write_at(fd, bytes, size, 0) < 0)
        abort();
    return fd;
}

/* A few requests at once, wherever the script says. */
static inline void batch(struct disk *disk, struct fuzz_input *in)
{
    static uint8_t buffers[AT_ONCE][BUFFER];
    struct disk_request requests[AT_ONCE];
    struct iovec iov[AT_ONCE];

    for (unsigned i = 0; i < AT_ONCE && in->left; i++) {
        uint64_t sectors = disk_size(disk) / DISK_SECTOR, how = fuzz_take(in, 1), at = fuzz_take(in, 4);
        uint64_t n = 1 + fuzz_take(in, 1) * (how & 0x80 ? 2 : 1);
        /* From the start, from the end, or anywhere. */
        if (how & 0x20)
            at = at * 0x10001;
        if (how & 0x40)
            at = sectors - 1 - at % sectors;
        iov[i] = (struct iovec){buffers[i], n * DISK_SECTOR};
        requests[i] = (struct disk_request){.kind = (enum disk_request_kind)(how % 5),
                                            .unmap = how & 0x10,
                                            .offset = at % sectors * DISK_SECTOR,
                                            .length = n * DISK_SECTOR,
                                            .iov = &iov[i],
                                            .n_iov = 1,
                                            .done = done};
        if (n > sectors - at % sectors && how & 8)
            requests[i].length = iov[i].iov_len = (sectors - at % sectors) * DISK_SECTOR;
        pending++;
        disk_submit(disk, &requests[i]);
    }
    disk_start(disk);
    if (pending)
        loop_run(loop);
}

/* As commands read: piece by piece, a few of them. */
static inline void walk(struct disk *disk)
{
    static uint8_t buf[64 << 10];
    struct disk_extent e;
    uint64_t at = 0;

    for (unsigned i = 0; i < 64 && at < disk_size(disk); i++, at += e.length) {
        if (disk->format->extent(disk, at, disk_size(disk) - at, &e) < 0)
            return;
        if (!e.length || e.length > disk_size(disk) - at)
            abort();
        disk_extent_read(&e, buf, e.length < sizeof(buf) ? e.length : sizeof(buf));
    }
}

static inline void tend_bitmaps(struct disk *disk, uint8_t how)
{
    const struct disk_bitmap_ops *b = disk->format->bitmaps;
    struct disk_bitmaps list;
    struct disk_dirty dirty;
    char name[2] = {(char)('a' + how / 8 % 3), '\0'};

    if (!b)
        return;
    switch (how % 8) {
    case 0:
        if (b->list(disk, &list, NULL) == 0)
            disk_bitmaps_free(&list);
        break;
    case 1:
        b->add(disk, name, 512u << how / 32, NULL);
        break;
    case 2:
        b->remove(disk, name, NULL);
        break;
    case 3:
        b->clear(disk, name, NULL);
        break;
    case 4:
    case 5:
        b->enable(disk, name, how & 1, NULL);
        break;
    case 6:
        b->merge(disk, name, "a", NULL);
        break;
    case 7:
        if (b->get(disk, name, &dirty, NULL) == 0) {
            uint64_t length;
            for (uint64_t at = 0; at < dirty.size; at += length) {
                disk_dirty_at(&dirty, at, &length);
                if (!length || length > dirty.size - at)
                    abort();
            }
            disk_dirty_free(&dirty);
        }
        break;
    }
}

/* Sizes, snapshots and bitmaps, where the format has them. */
static inline void upkeep(struct disk *disk, struct fuzz_input *in)
{
    const struct disk_snapshot_ops *s = disk->format->snapshots;
    struct disk_snapshots list;
    char which[2] = {(char)('1' + fuzz_take(in, 1) % 4), '\0'};

    switch (fuzz_take(in, 1) % 7) {
    case 0:
        if (disk->format->resize)
            disk_resize(disk, (1 + fuzz_take(in, 3)) * DISK_SECTOR, NULL);
        break;
    case 1:
        if (s)
            s->create(disk, which, NULL);
        break;
    case 2:
        if (s)
            s->apply(disk, which, NULL);
        break;
    case 3:
        if (s)
            s->remove(disk, which, NULL);
        break;
    case 4:
        if (s && s->list(disk, &list, NULL) == 0)
            disk_snapshots_free(&list);
        break;
    case 5:
        if (disk->format->empty)
            disk->format->empty(disk);
        break;
    case 6:
        tend_bitmaps(disk, (uint8_t)fuzz_take(in, 1));
        break;
    }
}

/* What a repair calls whole is whole for the next one who looks. */
static inline void check_and_repair(const struct disk_format *which, const struct disk_files *files)
{
    int fd = files->files[0].fd;
    struct disk_job job = {0};
    struct disk_checking how = {.job = &job};
    struct disk_check_result repaired = {0}, then = {0};
    struct disk_check check = {
        .files = files, .fd = fd, .repair = DISK_REPAIR_ALL, .job = &job, .result = &repaired, .how = &how};

    if (which->check(&check, NULL) < 0 || repaired.corruptions || repaired.leaks)
        return;
    check = (struct disk_check){.files = files, .fd = fd, .job = &job, .result = &then, .how = &how};
    if (which->check(&check, NULL) < 0 || then.corruptions || then.leaks)
        abort();
}

/* Of an image in several files the input has first a sector or two that name them, and then what each of them
 * has, from another sector on. Where the image has all but the content, the part has the same bytes. */
#define PARTS_MAX 3u
#define PARTS_AT  1024u

static inline unsigned add_parts(const struct disk_format *which, int fd, struct disk_file *list)
{
    static uint8_t bytes[FILE_MAX];
    struct disk_names names = {0};
    off_t size = lseek(fd, 0, SEEK_END);
    unsigned n = 0;

    if (!which->parts || size <= (off_t)PARTS_AT)
        return 0;
    if (which->parts(fd, &names, NULL) < 0 || !names.n)
        return 0;
    if (which->parts_apart) {
        if (disk_read_at(fd, bytes, (size_t)size, 0) < 0)
            abort();
    } else {
        size -= PARTS_AT;
        if (disk_read_at(fd, bytes, (size_t)size, PARTS_AT) < 0 || ftruncate(fd, PARTS_AT) < 0)
            abort();
    }
    for (; n < names.n && n < PARTS_MAX && (off_t)(n * DISK_SECTOR) < size; n++)
        list[n] = (struct disk_file){.fd = file_with(bytes + n * DISK_SECTOR, (size_t)size - n * DISK_SECTOR),
                                     .name = (char *)"part",
                                     .format = (char *)"raw",
                                     .part = true};
    disk_names_free(&names);
    return n;
}

/* `script`: SCRIPT bytes of requests. Takes over `fd`. */
static inline void fuzz_disk_file(const char *format_name, const uint8_t *script, int fd)
{
    const struct disk_format *which = disk_format_find(format_name);
    struct fuzz_input in = {script, SCRIPT};
    uint8_t how = (uint8_t)fuzz_take(&in, 1);
    bool read_only = how & 1;
    char *name = NULL, *format = NULL;
    struct disk *disk = NULL;
    struct disk_files *files = NULL;
    uint8_t behind[4096] = "what is behind";
    struct disk_file list[2 + PARTS_MAX] = {
        {.fd = fd, .name = (char *)"image", .format = (char *)(uintptr_t)format_name}};
    unsigned n = 1 + add_parts(which, fd, list + 1);

    if (which->backing && which->backing(fd, &name, &format, NULL) == 0 && name)
        list[n++] = (struct disk_file){
            .fd = file_with(behind, sizeof(behind)), .name = (char *)"behind", .format = (char *)"raw"};
    free(name);
    free(format);
    if (loop_create(&loop, NULL) < 0 || disk_files_new(&files, list, n, read_only, NULL) < 0)
        abort();
    disk_files_avoid_uring(files);
    if (fuzz_secret && disk_files_read_secret(files, fuzz_secret, NULL) < 0)
        abort();
    if (which->check && how & 2)
        check_and_repair(which, files);
    struct disk_info info = {0};
    which->describe(fd, &info, NULL);
    if (disk_open(&disk, files, loop, NULL) == 0) {
        walk(disk);
        while (in.left) {
            batch(disk, &in);
            if (how & 4 && !read_only)
                upkeep(disk, &in);
        }
        disk_close(disk);
    }
    disk_files_close(files);
    loop_free(loop);
}

static inline int fuzz_disk(const char *format_name, const uint8_t *data, size_t size)
{
    if (size >= SCRIPT && size <= SCRIPT + FILE_MAX)
        fuzz_disk_file(format_name, data, file_with(data + SCRIPT, size - SCRIPT));
    return 0;
}

#endif
