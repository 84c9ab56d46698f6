/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The inside of disk/: the operations of a format, and the asynchronous input and output under all of them.
 */
#ifndef TABIQUE_DISK_DISK_PRIV_H
#define TABIQUE_DISK_DISK_PRIV_H

#include "disk/disk.h"
#include "disk/maintain.h"

#include <sys/types.h>

struct disk_copy;
struct disk_fill;
struct disk_namer;
struct disk_packer;
struct disk_check;
struct disk_snapshot_ops;
struct disk_bitmap_ops;

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
    struct disk *backing;   /* reads what this one does not have; NULL if there is none. Open before this one
                               is, and its own from then on */
    struct disk_fill *fill; /* what is asked of the disk goes through it; NULL: it is not being filled */
    struct disk_copy *copy; /* what is asked of the disk goes through it; NULL: it is not being copied */
};

/* A piece of a disk, all of it alike. */
struct disk_extent {
    enum disk_extent_kind kind;
    bool allocated;          /* some file of the image has something to say of it */
    bool encrypted;          /* packed: that is how */
    const struct disk *disk; /* the one that has it: the image itself, or one of those behind it */
    uint64_t length;         /* bytes of the disk */
    uint64_t offset;         /* data: in that one's file */
    uint64_t entry;          /* packed: the format's own */
    uint32_t skip;           /* packed: it begins so many bytes into what is unpacked */
};

/*
 * Making an image whole (create.c, convert.c): the disk's content comes in units, those that are not all
 * zeros, each once, in about the order in which they lie; then the tables. The file is new and nobody else's,
 * so all may be written in whatever order is quick.
 */
struct disk_build {
    const struct disk_format *format;
    int fd;
    const struct disk_create *what;
    const char *path;
    const char *name; /* the file's, without directories; for formats that write it down */
    /* Further files of the image; where something is in one of them, its offset says so. */
    struct disk_new_file *parts;
    unsigned n_parts;
    struct disk_namer *namer; /* makes and names them; NULL: we may ourselves */
    uint32_t unit;            /* bytes, a power of two */
    bool whole;               /* a last unit that the disk ends in is written whole, with zeros */
    bool ordered;             /* units must be placed in the disk's order */
    bool every;               /* zeros are to be placed and written too */
    bool seals;               /* units are encrypted by `seal` */
    bool fresh;               /* the file was empty, so what is not written there is zeros */
    size_t pack_max;          /* bytes that `pack` may need; 0: units go in as they are */
    uint64_t end;             /* of what is in the file so far */
    void *own;
};

/* A place in the further file `part`, counted from 0. */
static inline uint64_t disk_build_in_part(unsigned part, uint64_t offset)
{
    return (part + 1ull) << 48 | offset;
}

struct disk_build_ops {
    bool encrypts; /* knows what->key_file */
    /* Sets `unit` and what follows it. Checks what->..., as it is given by a person. 0 or -errno with *err.
     */
    int (*begin)(struct disk_build *build, struct error **err);
    /* Where the unit is to be written, `length` bytes of it. One call at a time. 0 or -errno. */
    int (*place)(struct disk_build *build, uint64_t index, uint32_t length, bool packed, uint64_t *offset);
    /* Packs a unit into `out`: how many bytes that takes; 0: it stays as it is. Any thread. Where there is
     * `pack_max`. */
    size_t (*pack)(const struct disk_build *build, struct disk_packer *packer, uint64_t index,
                   const uint8_t *unit, uint8_t *out);
    /* Encrypts in place what is to be written at `offset`, where `seals` is set. Any thread. 0 or -errno. */
    int (*seal)(const struct disk_build *build, uint8_t *bytes, size_t len, uint64_t offset);
    /* Writes all the rest. 0 or -errno. */
    int (*end)(struct disk_build *build);
    /* Of `own`; NULL: nothing to be freed. */
    void (*free)(struct disk_build *build);
};

/* The further files of an image. */
struct disk_names {
    char **list;
    unsigned n;
};
void disk_names_free(struct disk_names *names);
/* -ENOMEM, or 0. */
int disk_names_add(struct disk_names *names, const char *name);

struct disk_format {
    const char *name;
    /* Whether a file that begins with these bytes is of this format. NULL: that can't be told. */
    bool (*probe)(const uint8_t *head, size_t len);
    /* The name of the backing file (NULL if there is none) and of its format (NULL if that is not said), to
     * be freed. Optional. 0 or -errno with *err. */
    int (*backing)(int fd, char **name, char **format, struct error **err);
    /* Of an image in several files the names of the further ones, in the order in which the format's `open`
     * finds them behind its own (disk_part). Optional. 0 or -errno with *err; then there is nothing to free.
     */
    int (*parts)(int fd, struct disk_names *out, struct error **err);
    bool parts_apart; /* what is in the image itself can be looked at without them */
    /* Opens the file; of `common` all is set but size and granularity. 0 or -errno with *err. */
    int (*open)(struct disk **out, const struct disk *common, struct error **err);
    /* A request that disk_submit has checked. */
    void (*submit)(struct disk *disk, struct disk_request *request);
    /* Reads at once; the range is within the disk. 0 or -errno. */
    int (*read)(struct disk *disk, uint64_t offset, void *buf, size_t len);
    int (*close)(struct disk *disk);
    /* What is at `offset`, looking no further than `length` bytes, and at no other file; no request may be
     * pending. 0 or -errno. */
    int (*extent)(struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out);
    /* Reads of a packed extent all its bytes. Any thread, while the disk is open. 0 or -errno. Optional. */
    int (*unpack)(const struct disk_extent *extent, uint8_t *buf);
    /* Adds what its header says to what is known already: size and name. 0 or -errno with *err. */
    int (*describe)(int fd, struct disk_info *info, struct error **err);
    const struct disk_build_ops *build; /* NULL: can't be made */

    /* ---- maintain.h; all optional ---- */

    /* Looks at the whole file, which may be made with ill intent, and repairs what it is told to. What it
     * finds it tells with disk_check_*. 0; or -errno with *err, which says why it could not go on (not
     * -ENOTSUP: that says that a format has no check). */
    int (*check)(struct disk_check *check, struct error **err);
    /* Gives an open disk another size, a multiple of DISK_SECTOR; sets disk->size. What is new reads as
     * zeros, also where what it is based on has more. No request may be pending. 0 or -errno with *err; then
     * nothing has changed. */
    int (*resize)(struct disk *disk, uint64_t size, struct error **err);
    /* Changes the names that `backing` tells; NULL: it is based on nothing any more. Reading goes on as
     * before. 0 or -errno with *err. */
    int (*set_backing)(struct disk *disk, const char *name, const char *format, struct error **err);
    /* Forgets all that the image has itself, so that what it is based on is read. Space is given back. No
     * request may be pending. 0 or -errno. */
    int (*empty)(struct disk *disk);
    const struct disk_snapshot_ops *snapshots;
    const struct disk_bitmap_ops *bitmaps;
};

extern const struct disk_format disk_format_luks, disk_format_raw, disk_format_qcow2, disk_format_vdi,
    disk_format_vhd, disk_format_vhdx, disk_format_vmdk, disk_format_nbd;

/* The number of an image's further file `i` in its files, if it is there; else 0. */
unsigned disk_part(const struct disk *disk, unsigned i);

/* That a file for what the image is based on is given if it is based on one, and only then; of one that is
 * opened alone none is. 0 or -errno with *err. */
int disk_check_behind(const struct disk *disk, bool based, struct error **err);
/* Names the disk in an error: rc, which is 0 or -errno with *err. */
int disk_named(const struct disk *disk, int rc, struct error **err);

/* ---- request.c ---- */

/* The `done` of a request's own operation: the request has ended with its result. */
void disk_request_completed(struct disk_io_op *op, int result);
/* Has it end with `result`, from the loop: what a format's submit does for what is done already. */
void disk_request_end(struct disk_request *request, int result);
/* One of its `pending` parts less. With the last one gone it ends with its `result`; from the loop if the
 * format's submit is under way, which must not call `done`. */
void disk_request_put(struct disk_request *request, bool submitting);

/* Reads one piece from `offset` on, past a copy or a filling that the disk is under: these read so
 * themselves. */
void disk_request_read(struct disk_request *request, struct disk *disk, uint64_t offset,
                       const struct iovec *piece, void (*done)(struct disk_request *request, int result));

/* ---- info.c ---- */

bool disk_is_zero(const uint8_t *p, size_t len);
/* Reads the first `len` bytes of an extent. Any thread, while the disk is open. 0 or -errno. */
int disk_extent_read(const struct disk_extent *extent, uint8_t *buf, size_t len);
/* Adds a line to what is known of an image. */
void disk_info_add(struct disk_info *info, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- now.c ---- */

/* A request, waited for in the loop that the disk was opened with. `buf`: read and write. 0 or -errno. */
int disk_do_now(struct disk *disk, enum disk_request_kind kind, uint64_t offset, void *buf, uint64_t len);

#define DISK_COPY_PIECE (2u << 20) /* no cluster is larger */
/* Writes what another disk's extent has to `disk`, at `at`: zeros as zeros, of the rest a piece, to which the
 * extent is cut. `buf`: room for one. 0 or -errno. */
int disk_copy_now(struct disk *disk, uint64_t at, struct disk_extent *extent, uint8_t *buf);

/* ---- snapshots.c ---- */

/* On an open disk; all but `list` on one that may be written, while no request is pending. 0 or -errno with
 * *err. An end at any moment leaves what was there before, or after; some space may leak. */
struct disk_snapshot_ops {
    int (*list)(struct disk *disk, struct disk_snapshots *out, struct error **err);
    int (*create)(struct disk *disk, const char *name, struct error **err);
    int (*apply)(struct disk *disk, const char *which, struct error **err);
    int (*remove)(struct disk *disk, const char *which, struct error **err);
};

/* ---- bitmaps.c ---- */

/* On an open disk; all but `list` and `get` on one that may be written, while no request is pending. What
 * they change is in the file when the disk is closed. 0 or -errno with *err. */
struct disk_bitmap_ops {
    int (*list)(struct disk *disk, struct disk_bitmaps *out, struct error **err);
    int (*get)(struct disk *disk, const char *name, struct disk_dirty *out, struct error **err);
    int (*add)(struct disk *disk, const char *name, uint64_t granularity, struct error **err);
    int (*remove)(struct disk *disk, const char *name, struct error **err);
    int (*clear)(struct disk *disk, const char *name, struct error **err);
    int (*enable)(struct disk *disk, const char *name, bool enabled, struct error **err);
    int (*merge)(struct disk *disk, const char *name, const char *source, struct error **err);
    int (*mark)(struct disk *disk, const char *name, uint64_t offset, uint64_t length, struct error **err);
};

/* ---- check.c ---- */

struct disk_check {
    const struct disk_files *files; /* the image and its further files */
    int fd;                         /* open for writing if anything is to be repaired */
    enum disk_repair repair;
    const struct disk_job *job;
    struct disk_check_result *result; /* of which the format fills what is not counted by the calls below */
    const struct disk_checking *how;
    unsigned said;
};

/* Something is wrong with what the image says; `fixed`: it was, and the file is right now. */
void disk_check_corrupt(struct disk_check *check, bool fixed, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* `n` units of space are lost; `fixed` as above. */
void disk_check_leak(struct disk_check *check, uint64_t n, bool fixed, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Tells how far it is. True: it is to end with -EINTR. */
bool disk_check_progress(struct disk_check *check, double fraction);

/* ---- create.c ---- */

/* Begins to make an image in an empty file, which is to be found at `path`. 0 or -errno with *err. */
int disk_build_begin(struct disk_build *build, int fd, const char *path, const struct disk_create *what,
                     struct disk_namer *namer, struct error **err);
/* Writes the rest, if `ok`, and frees. 0 or -errno with *err. */
int disk_build_end(struct disk_build *build, bool ok, struct error **err);

/* Writes `len` bytes at `offset`, and zeros behind them up to `room`. 0 or -errno. */
int disk_build_write(const struct disk_build *build, const void *bytes, uint64_t len, uint64_t room,
                     uint64_t offset);

/* Begins a further file, beside the image, where none of that name may be. 0 or -errno with *err. */
int disk_build_add_part(struct disk_build *build, const char *name, struct error **err);
/* The file that *offset is in; makes *offset the one in there. */
int disk_build_file(const struct disk_build *build, uint64_t *offset);

/* NULL if there is none of that name. */
const struct disk_format *disk_format_find(const char *name);
/* What a file that begins with these bytes is: raw, if nothing else. */
const struct disk_format *disk_format_probe(const uint8_t *head, size_t len);
/* What is at `offset`, of the disk or of what it is based on, looking no further than `length` bytes; no
 * request may be pending. However long the chain is, this takes no more of the stack. 0 or -errno. */
int disk_extent(const struct disk *disk, uint64_t offset, uint64_t length, struct disk_extent *out);
/* Goes from *disk to the one of its chain that has what is at `offset`, or has nothing behind it: that one
 * can be asked for it. *length is cut to how far that holds, and to its size. 0 or -errno. */
int disk_find_owner(struct disk **disk, uint64_t offset, uint64_t *length);
/* Reads at once, with zeros behind its end, from a chain of any length. 0 or -errno. */
int disk_read_now(struct disk *disk, uint64_t offset, void *buf, size_t len);

/* Opens and (unless `unlocked`) locks the image alone, to read its header; what it is based on is not looked
 * for. Without I/O. */
int disk_files_open_first(struct disk_files **out, const char *path, const char *format, bool unlocked,
                          struct error **err);
/* Whether a part has a name that comes of the image's: "a-flat.vmdk" of "a.vmdk". */
bool disk_is_namesake(const char *image, const char *part);
/* A name as it is meant in the directory of the file `path`; to be freed. NULL if there is no memory. */
char *disk_name_beside(const char *path, const char *name);
/* A descriptor that excludes all other users of the file at `path`, which must be open as `fd`: -errno with
 * *err. */
int disk_lock_file(int fd, const char *path, bool read_only, struct error **err);

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
/* Whether no operation is under way. */
bool disk_io_is_idle(const struct disk_io *io);
/* Puts a file before all others, whose numbers become greater by one; takes it away again. No operation may
 * be under way. Descriptors stay the caller's. 0 or -ENOMEM. */
int disk_io_push(struct disk_io *io, int fd);
void disk_io_pop(struct disk_io *io);
void disk_io_avoid_uring(struct disk_io *io);
/* Takes all but the first `n` away. */
void disk_io_keep_first(struct disk_io *io, unsigned n);
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

/* How far, up to `length` bytes (whole sectors), the file is a hole or is none. Where the file system does
 * not tell, it is none. Whole sectors, at least one. */
uint64_t disk_alike_at(int fd, uint64_t offset, uint64_t length, bool *hole);

/* ---- iov.c ---- */

/* Memory for content, to be freed; NULL if there is none. It begins with a page: where it does not, there are
 * processors on which the kernel takes five times as long to copy a file's bytes there. */
void *disk_buffer_new(size_t size);

/* The `len` bytes that begin `skip` bytes into `n` pieces, into `out` (room for n): how many pieces they are.
 */
unsigned disk_iov_slice(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, struct iovec *out);
/* Fills these bytes with those at `from`, or with zeros if that is NULL. */
void disk_iov_fill(const struct iovec *iov, unsigned n, uint64_t skip, uint64_t len, const uint8_t *from);
/* Copies these bytes to `to`. */
void disk_iov_gather(const struct iovec *iov, unsigned n, uint64_t skip, void *to, size_t len);

#endif
