/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk images: what a virtual disk's bytes are kept in. A format is one file with a table of operations
 * (disk_priv.h); raw.c is the smallest.
 *
 * Opening has two steps, because privileges go in between: disk_files_open takes the image and all that it
 * needs by path and reads no more of it than what tells the names of these; disk_open reads everything else,
 * from those file descriptors alone.
 *
 * Requests are asynchronous. All calls on an open disk, and the callbacks, are in the thread of its loop; a
 * device gives each disk a thread, so formats may read and write their own tables synchronously.
 */
#ifndef TABIQUE_DISK_DISK_H
#define TABIQUE_DISK_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct disk;
struct disk_io;
struct disk_secret;
struct error;
struct loop;

/* Offsets and lengths of requests are multiples of it, and so is the size of a disk. */
#define DISK_SECTOR 512u

/* An image may have this many files: itself and those it is based on. Each takes two descriptors and, of its
 * tables, some 64 KiB of memory at first. */
#define DISK_FILES_MAX 2048u

/* The formats' names: "raw", "qcow2", ... NULL after the last one. */
const char *disk_format_name(size_t i);

struct disk_file {
    int fd;
    int lock_fd; /* holds the lock; -1: none */
    char *name;  /* for messages */
    char *format;
    dev_t device; /* which file it is, if it was opened by path */
    ino_t inode;
    struct nbd_remote *remote; /* it is a connection to a server's disk; NULL: it is none */
    bool part; /* what the image before it consists of, beside that file, and not what it is based on */
};

/* An image's files: the image first, then its backing file, that one's backing file, and so on; behind each
 * the parts that it has in further files. */
struct disk_files {
    struct disk_file *files;
    unsigned n, n_replaced; /* behind those `n`: what a new image stands for, until it is known to stay */
    bool read_only, unlocked;
    bool alone; /* what the image is based on is left out: what it has not itself reads as zeros */
    struct disk_secret *secret; /* opens what is encrypted; NULL: none was given */
    struct disk_io *io;         /* made with the files, for io_uring is forbidden to a confined process */
};

/*
 * Opens the image at `path`, read-only or to be written, and locks it: a writer excludes all others, also
 * other programs that lock as QEMU's do; readers share. `format` NULL: told by the content. But an image that
 * is not declared as qcow2 may have been written as raw by a guest, with a header that names a file of the
 * host: one that names any other file is refused then. 0; or -errno with *err, which names the file.
 */
int disk_files_open(struct disk_files **out, const char *path, const char *format, bool read_only,
                    struct error **err);
/*
 * For commands that read or write an image, whoever it is from. Files that it names are opened only if
 * `follow`; without that such an image is refused, and the message says so. 0 or -errno with *err.
 */
int disk_files_open_to_read(struct disk_files **out, const char *path, const char *format, bool follow,
                            struct error **err);
int disk_files_open_to_write(struct disk_files **out, const char *path, const char *format, bool follow,
                             struct error **err);
/* As disk_files_open, but nobody is kept away, for who does that by other means. */
int disk_files_open_unlocked(struct disk_files **out, const char *path, const char *format, bool read_only,
                             struct error **err);
/* Opens and locks the image alone: where it has nothing itself, it reads as zeros. 0 or -errno with *err. */
int disk_files_open_alone(struct disk_files **out, const char *path, const char *format, bool read_only,
                          struct error **err);
/* The same for file descriptors that are open (and owned from then on, also if this fails). No locking. */
int disk_files_new(struct disk_files **out, const struct disk_file *files, unsigned n, bool read_only,
                   struct error **err);
/* Reads the secret of those that are encrypted: all bytes of the file at `path`. Before disk_open, while we
 * still may. 0 or -errno with *err. */
int disk_files_read_secret(struct disk_files *files, const char *path, struct error **err);
/*
 * Puts a qcow2 file, which must be based on the image's first, before that: it is the image from then on, and
 * what was it is written no more, so others may read it. No disk is open on the files. `fd` becomes theirs,
 * also where this fails; its lock is the caller's affair. 0 or -errno.
 */
int disk_files_push(struct disk_files *files, int fd, const char *name);
/*
 * Has another image stand for all of them, which is based on nothing; else as disk_files_push. They stay
 * until disk_files_keep_first.
 */
int disk_files_replace(struct disk_files *files, int fd, const char *name, const char *format);
/* Undoes the last push, or a replacement that was not kept. */
void disk_files_pop(struct disk_files *files);
/* Closes all but the image itself and its parts: it is based on nothing any more. Nobody has them open. */
void disk_files_keep_first(struct disk_files *files);
/* The lock of who writes the file: a descriptor that holds it, or -errno with *err. */
int disk_hold(const char *path, struct error **err);
/* Makes it that of who only reads. */
void disk_hold_shared(int lock_fd);
/* Closes all. NULL is fine. After disk_close. */
void disk_files_close(struct disk_files *files);
/* Has all I/O done by plain system calls, as where the kernel offers no io_uring. Before disk_open. */
void disk_files_avoid_uring(struct disk_files *files);

/*
 * Opens what is in `files`, which must stay until disk_close; requests complete in `loop`. 0 or -errno with
 * *err. What the files contain may be made with ill intent.
 */
int disk_open(struct disk **out, struct disk_files *files, struct loop *loop, struct error **err);
/* Writes what is not yet written. No request may be pending. In the loop's thread or when that has ended. 0,
 * or -errno if something could not be written. NULL is fine. */
int disk_close(struct disk *disk);

/* Whether nothing is under way, not even what a format does by itself: only then may an open disk be closed
 * while its loop goes on. In the loop's thread. */
bool disk_is_idle(const struct disk *disk);

/* Bytes, a multiple of DISK_SECTOR. */
uint64_t disk_size(const struct disk *disk);
bool disk_is_read_only(const struct disk *disk);
/* In how large pieces, in bytes, it takes and frees space: a power of two. */
uint32_t disk_granularity(const struct disk *disk);

enum disk_compression { DISK_COMPRESS_NONE, DISK_COMPRESS_ZLIB, DISK_COMPRESS_ZSTD };

/* What a new image has before anything is written to it: tables that say where all of it is; the space too;
 * zeros that are written there. */
enum disk_preallocation {
    DISK_PREALLOCATE_OFF,
    DISK_PREALLOCATE_METADATA,
    DISK_PREALLOCATE_FALLOC,
    DISK_PREALLOCATE_FULL,
};

struct disk_create {
    const char *format; /* one that disk_format_can_create */
    uint64_t size;      /* bytes, a multiple of DISK_SECTOR */
    /* The image that has all that is never written to the new one; NULL: none. As it is to be found from the
     * new image's directory. Of vmdk, vhd and vhdx one of the same format; else qcow2 only. */
    const char *backing;
    const char *backing_format; /* must be given then */
    /* What -o says; disk_create_option sets it. 0, NULL: the format's own choice. */
    uint32_t cluster_size;
    enum disk_compression compression;
    const char *subformat;
    unsigned version;                      /* qcow2: 2, 3 */
    unsigned refcount_bits;                /* qcow2: 1, 2, 4 ... 64 */
    bool lazy_refcounts;                   /* qcow2: QEMU may leave refcounts to a later repair */
    bool extended_l2;                      /* qcow2: clusters have subclusters */
    enum disk_preallocation preallocation; /* qcow2; raw, but for metadata */
    bool compress;                         /* what is written while it is made */
    const char *data_file;                 /* qcow2: a new file beside it has the clusters */
    bool data_file_raw;                    /* and is a raw image of the disk at any moment */
    bool encrypt;                          /* by LUKS; needs: */
    const char *key_file;                  /* encrypted, by a secret: all bytes of this file */
    const struct disk_secret *secret;      /* what is in there; NULL: it is read */
    unsigned iter_time;                    /* ms that opening it is to take */
};

/* Sets what one "name=value" of -o says; strings stay the caller's. 0, or -EINVAL with *err. */
int disk_create_option(struct disk_create *what, const char *name, const char *value, struct error **err);
bool disk_format_can_create(const char *name);

/* Makes a new file, which must not exist; a failure leaves none. 0 or -errno with *err. */
int disk_create(const char *path, const struct disk_create *what, struct error **err);

/* ---- what is in an image ---- */

enum disk_extent_kind { DISK_EXTENT_ZEROS, DISK_EXTENT_DATA, DISK_EXTENT_PACKED };

struct disk_piece {
    enum disk_extent_kind kind;
    bool allocated; /* by some file of the image; where none has it, zeros are read */
    bool encrypted; /* packed: that is how */
    unsigned file;  /* which of the image's files has it: 0 is the image itself */
    unsigned depth; /* how many images of the chain are before the one that has it */
    uint64_t start, length;
    uint64_t offset; /* data: in that file */
};

/* What is at `start` of the disk, as far as it is alike, and looking no further than `length` bytes. What
 * requests change that are pending is told as it was or as it will be. 0 or -errno. */
int disk_map(struct disk *disk, uint64_t start, uint64_t length, struct disk_piece *out);

#define DISK_DETAILS_MAX 16u
struct disk_info {
    char format[16];
    uint64_t size;                  /* of the disk */
    uint64_t file_size, host_bytes; /* of the file, and what it takes */
    char *backing, *backing_format; /* as the image names them; NULL */
    struct {
        char name[32], value[64];
    } details[DISK_DETAILS_MAX];
    unsigned n_details;
};

/* What the header of an image says; opens nothing else. `format` NULL: told by the content. `opened` (may be
 * NULL) is called when the file is open, before more of it is read than that; -errno with *err ends it. 0 or
 * -errno with *err; then there is nothing to free. */
int disk_read_info(const char *path, const char *format, int (*opened)(struct error **err),
                   struct disk_info *out, struct error **err);
/* The same without the image's lock, for who holds it or knows who does. */
int disk_look(const char *path, const char *format, struct disk_info *out, struct error **err);
void disk_info_free(struct disk_info *info);
/* The size of what->backing for an image at `path`. 0 or -errno with *err. */
int disk_backing_size(const char *path, const struct disk_create *what, uint64_t *out, struct error **err);

enum disk_request_kind {
    DISK_READ,
    DISK_WRITE,
    DISK_FLUSH,        /* what was written by requests that are done stays, even if the host loses power */
    DISK_DISCARD,      /* the range's content does not matter any more */
    DISK_WRITE_ZEROES, /* the range reads as zeros; with `unmap` its space may be given back */
};

/* How formats do what is asked of them; see disk_priv.h. */
struct disk_io_op {
    int kind;
    unsigned file;
    uint64_t offset, length;
    const struct iovec *iov;
    unsigned n_iov;
    void (*done)(struct disk_io_op *op, int result);
    int result;
    struct disk_io_op *next;
};

/* Pieces of memory in one request. */
#define DISK_IOV_MAX 1000u

struct disk_request {
    enum disk_request_kind kind;
    bool unmap;
    bool fast;               /* zeros: -EOPNOTSUPP if that takes as long as writing them */
    uint64_t offset, length; /* bytes, within the disk */
    /* Read and write: pieces of memory, `length` bytes in all. They must stay until `done`. */
    const struct iovec *iov;
    unsigned n_iov;
    /* Called once, from the loop, never from within disk_submit. `result`: 0 or -errno. */
    void (*done)(struct disk_request *request, int result);

    /* The format's own. */
    struct disk *disk;
    uint64_t at;
    unsigned pending;
    bool paused;
    int result;
    struct disk_request *next;
    struct disk_io_op op;
    struct iovec piece;
    /* A copy's own: the caller's `done`. */
    void (*behind)(struct disk_request *request, int result);
    /* Of an image that is being filled, likewise. */
    void (*behind_fill)(struct disk_request *request, int result);
    struct disk_request *passing;
};

/* Takes a request; it is sure to begin with the next disk_start. */
void disk_submit(struct disk *disk, struct disk_request *request);
void disk_start(struct disk *disk);
/* `fn` is called after each series of `done` callbacks. */
void disk_on_batch_end(struct disk *disk, void (*fn)(void *opaque), void *opaque);

#endif
