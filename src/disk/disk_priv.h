/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The inside of disk/: the operations of a format, and the asynchronous input and output under all of them.
 */
#ifndef TABIQUE_DISK_DISK_PRIV_H
#define TABIQUE_DISK_DISK_PRIV_H

#include "disk/disk.h"

#include <sys/types.h>

struct disk {
    const struct disk_format *format;
    struct disk_files *files;
    unsigned file; /* which of them */
    int fd;
    struct disk_io *io;
    struct loop *loop;
    uint64_t size;
    uint32_t granularity;
    bool read_only;
    struct disk *backing; /* reads what this one does not have; NULL if there is none */
};

struct disk_format {
    const char *name;
    /* Whether a file that begins with these bytes is of this format. NULL: any is. */
    bool (*probe)(const uint8_t *head, size_t len);
    /* The name of the backing file (NULL if there is none) and of its format (NULL if that is not said), to
     * be freed; *other is set if there is yet another file. Optional. 0 or -errno with *err. */
    int (*backing)(int fd, char **name, char **format, bool *other, struct error **err);
    /* Opens the file; of `common` all is set but size and granularity. 0 or -errno with *err. */
    int (*open)(struct disk **out, const struct disk *common, struct error **err);
    /* A request that disk_submit has checked. */
    void (*submit)(struct disk *disk, struct disk_request *request);
    /* Reads at once; the range is within the disk. 0 or -errno. */
    int (*read)(struct disk *disk, uint64_t offset, void *buf, size_t len);
    int (*close)(struct disk *disk);
};

extern const struct disk_format disk_format_raw, disk_format_qcow2;

/* NULL if there is none of that name. */
const struct disk_format *disk_format_find(const char *name);
/* What a file that begins with these bytes is: raw, if nothing else. */
const struct disk_format *disk_format_probe(const uint8_t *head, size_t len);
/* Opens files->files[file] and what follows it. */
int disk_open_file(struct disk **out, struct disk_files *files, unsigned file, struct loop *loop,
                   struct error **err);

/* ---- io.c ---- */

enum disk_io_kind {
    DISK_IO_NONE, /* nothing; complete with `result` */
    DISK_IO_READ, /* what lies behind the end of the file reads as zeros */
    DISK_IO_WRITE,
    DISK_IO_SYNC,  /* data, and the metadata that is needed to find them */
    DISK_IO_PUNCH, /* make a hole */
    DISK_IO_ZERO,  /* zeros that keep their space */
};

/*
 * For the given files, which operations name by index. Uses io_uring where the kernel lets us, with a ring
 * that can do nothing but the operations above on these files; system calls otherwise. 0 or -errno.
 */
int disk_io_create(struct disk_io **out, const struct disk_file *files, unsigned n);
void disk_io_free(struct disk_io *io);
void disk_io_avoid_uring(struct disk_io *io);
bool disk_io_has_uring(const struct disk_io *io);
/* Completions are delivered in `loop` from now on; NULL: no more. 0 or -errno. */
int disk_io_attach(struct disk_io *io, struct loop *loop);

/* Takes an operation, which must stay until its `done`: called from the loop with 0 or -errno. */
void disk_io_submit(struct disk_io *io, struct disk_io_op *op);
/* Has the kernel begin with what was submitted. */
void disk_io_start(struct disk_io *io);
void disk_io_on_batch_end(struct disk_io *io, void (*fn)(void *opaque), void *opaque);

/* Syncs a file at once: 0 or -errno. Once a sync of a file has failed, in whichever way, all later ones do.
 */
int disk_sync_now(struct disk_io *io, unsigned file);
/* At once, whole or not at all: 0 or -errno. Behind the end of the file there are zeros to read. */
int disk_read_at(int fd, void *buf, size_t len, uint64_t offset);
int disk_write_at(int fd, const void *buf, size_t len, uint64_t offset);
int disk_writev_at(int fd, const struct iovec *iov, unsigned n, uint64_t offset);
/* Makes a hole, where the file system can. */
void disk_punch_at(int fd, uint64_t offset, uint64_t len);

/* ---- iov.c ---- */

/* The `len` bytes that begin `skip` bytes into `n` pieces, into `out` (room for n): how many pieces they are.
 */
unsigned disk_iov_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, struct iovec *out);
/* Fills these bytes with those at `from`, or with zeros if that is NULL. */
void disk_iov_fill(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, const uint8_t *from);

#endif
