/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An open image with a loop of its own, for the tests of disk/: requests one at a time or many at once, and
 * QEMU's programs as the second opinion. Whatever can't be done fails the test. */
#ifndef TABIQUE_TESTS_DISK_IMAGE_H
#define TABIQUE_TESTS_DISK_IMAGE_H

#include "disk/disk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

struct loop;

struct image {
    struct loop *loop;
    struct disk_files *files;
    struct disk *disk;
    unsigned pending;
};

/* A directory for the test's files, the same for the whole program; on a real file system, or in
 * TABIQUE_SCRATCH, for long series that have no need of one. */
const char *scratch(void);
/* A cmocka group teardown: removes it. */
int scratch_remove(void **state);
/* SCRATCH/name, in one of a few static buffers. */
const char *scratch_path(const char *name);

/* Those that are opened from now on are encrypted, by the bytes of this file. NULL: they are not. */
void image_use_secret(const char *path);
/* The image as words for qemu-img, with --image-opts, and its secret if there is one: before it, what it
 * needs besides. In a static buffer; scratch_path's rule holds for it too. */
const char *image_for_qemu(const char *path, const char *format);
enum image_flags { IMAGE_READ_ONLY = 1, IMAGE_NO_URING = 2 };
void image_open(struct image *image, const char *path, const char *format, unsigned flags);
/* What the message says must contain `part`. */
void image_refused(const char *path, const char *format, unsigned flags, const char *part);
void image_close(struct image *image);

/* One request to its end: its result. */
int image_read(struct image *image, uint64_t offset, void *buf, uint64_t len);
int image_write(struct image *image, uint64_t offset, const void *buf, uint64_t len);
int image_flush(struct image *image);
int image_discard(struct image *image, uint64_t offset, uint64_t len);
int image_zero(struct image *image, uint64_t offset, uint64_t len, bool unmap);

/* Many at once: each sets *result when it is done. `request` must stay until image_wait. */
struct image_request {
    struct disk_request request;
    struct iovec iov[3];
    struct image *image;
    int result;
};
void image_submit(struct image *image, struct image_request *r, enum disk_request_kind kind, uint64_t offset,
                  void *buf, uint64_t len, bool unmap);
void image_wait(struct image *image);

/* Runs a shell command in the scratch directory: its exit status. */
int shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* `qemu-img check` finds nothing, or leaks at most. */
void check_image(const char *path, bool leaks_allowed);

#endif
