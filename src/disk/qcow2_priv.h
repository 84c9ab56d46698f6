/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of the format qcow2, as described in QEMU's docs/interop/qcow2.txt. All of it runs in the disk's
 * thread: no locks.
 *
 *     L1 table --> L2 tables --> data clusters            where a cluster of the disk is in the file
 *     refcount table --> refcount blocks --> a number     how often each cluster of the file is used
 *
 * What the process may lose at any moment is what it holds in memory, and the host, when it loses power, any
 * write since the last sync. So nothing in the file may point to what is not there yet:
 *
 *   1. data, and refcounts of clusters taken     written, then synced before
 *   2. L2 tables that point to them              written, then synced before
 *   3. L1 entries that point to these            written, then synced before
 *   4. refcounts of clusters given back; they may be used again
 *
 * L2 tables and refcount blocks are changed in a cache; a flush by the guest, or a full cache, writes them in
 * this order. If it ends in between, some clusters count as used and are not: they leak, and that is all.
 */
#ifndef TABIQUE_DISK_QCOW2_PRIV_H
#define TABIQUE_DISK_QCOW2_PRIV_H

#include "disk/disk_priv.h"

#define QCOW2_MAGIC            0x514649fbu /* "QFI\xfb" */
#define QCOW2_CLUSTER_MIN      9u
#define QCOW2_CLUSTER_MAX      21u
#define QCOW2_WIDE_CLUSTER_MIN 14u         /* of those that have subclusters */
#define QCOW2_L1_MAX           (32u << 20) /* bytes */
#define QCOW2_REFTABLE_MAX     (8u << 20)  /* bytes */
#define QCOW2_BACKING_MAX      1023u       /* length of a backing file's name */
#define QCOW2_SNAPSHOTS_MAX    65536u
#define QCOW2_SNAPSHOTS_BYTES  (64u << 20) /* of their table */
#define QCOW2_HEADER_V2        72u
#define QCOW2_HEADER_V3        104u
#define QCOW2_HEADER_LARGEST   112u

/* Where the header's fields are; big-endian. */
enum {
    QCOW2_AT_VERSION = 4,
    QCOW2_AT_BACKING_OFFSET = 8,
    QCOW2_AT_BACKING_SIZE = 16,
    QCOW2_AT_CLUSTER_BITS = 20,
    QCOW2_AT_SIZE = 24,
    QCOW2_AT_CRYPT = 32,
    QCOW2_AT_L1_SIZE = 36,
    QCOW2_AT_L1_OFFSET = 40,
    QCOW2_AT_REFTABLE_OFFSET = 48,
    QCOW2_AT_REFTABLE_CLUSTERS = 56,
    QCOW2_AT_SNAPSHOTS = 60,
    QCOW2_AT_SNAPSHOTS_OFFSET = 64,
    QCOW2_AT_INCOMPATIBLE = 72,
    QCOW2_AT_COMPATIBLE = 80,
    QCOW2_AT_AUTOCLEAR = 88,
    QCOW2_AT_REFCOUNT_ORDER = 96,
    QCOW2_AT_HEADER_LENGTH = 100,
    QCOW2_AT_COMPRESSION = 104,
};

#define QCOW2_DIRTY       (1ull << 0)
#define QCOW2_CORRUPT     (1ull << 1)
#define QCOW2_DATA_FILE   (1ull << 2)
#define QCOW2_COMPRESSION (1ull << 3)
#define QCOW2_EXTENDED_L2 (1ull << 4)
#define QCOW2_INCOMPATIBLE_KNOWN                                                                             \
    (QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_DATA_FILE | QCOW2_COMPRESSION | QCOW2_EXTENDED_L2)

#define QCOW2_EXTENSION_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXTENSION_FEATURES       0x6803f857u
#define QCOW2_EXTENSION_BITMAPS        0x23852875u
#define QCOW2_EXTENSION_CRYPT          0x0537be77u
#define QCOW2_EXTENSION_DATA_FILE      0x44415441u

#define QCOW2_LAZY_REFCOUNTS (1ull << 0) /* a compatible bit */
#define QCOW2_BITMAPS_VALID  (1ull << 0) /* autoclear bits */
#define QCOW2_DATA_FILE_RAW  (1ull << 1)

/*
 * An entry of an L2 table:
 *
 *     63      62          61..56     55..9        8..1       0
 *     COPIED  COMPRESSED  reserved   offset       reserved   ZERO (version 3)
 *
 * COPIED: the cluster is used here only, so it may be written where it is. An L1 entry looks the same,
 * without COMPRESSED and ZERO. With COMPRESSED the lower 62 bits are laid out otherwise (qcow2_compressed.c).
 *
 * An extended entry is one without ZERO and 64 bits more, two for each of 32 subclusters of the cluster: the
 * lower half says which are data, the upper half which are zeros. One that is neither is in the backing file,
 * even if the cluster has a place. A compressed cluster has none of these bits.
 *
 * With the clusters in a further file each has its place there where the disk has it, so place 0 is one too:
 * COPIED tells that there is one.
 */
#define QCOW2_SUBCLUSTERS     32u
#define QCOW2_SUBCLUSTER_BITS 5u
#define QCOW2_ALL_ZEROS       0xffffffff00000000ull
#define QCOW2_COPIED          (1ull << 63)
#define QCOW2_COMPRESSED      (1ull << 62)
#define QCOW2_ZERO            1ull
#define QCOW2_OFFSET          0x00fffffffffffe00ull
#define QCOW2_RESERVED        0x3f000000000001feull

enum { QCOW2_ZLIB = 0, QCOW2_ZSTD = 1 };
enum { QCOW2_CRYPT_NONE = 0, QCOW2_CRYPT_LUKS = 2 };
/* Of what is encrypted this much at once is on its way to a guest or from it, for each of the pieces of a
 * request. */
#define QCOW2_CRYPT_PIECE (256u << 10)

/* The header, checked against itself and the file's size: every table lies within the file, none is larger
 * than the bounds above. */
struct qcow2_header {
    unsigned version, cluster_bits, refcount_order, compression;
    uint64_t size;
    uint32_t l1_size; /* entries */
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible, compatible, autoclear;
    uint32_t header_length;
    uint64_t backing_offset;
    uint32_t backing_size;
    uint32_t crypt;                     /* QCOW2_CRYPT_...; where LUKS' header is: */
    uint64_t crypt_offset, crypt_bytes; /* by qcow2_read_header alone */
};

static inline unsigned qcow2_entry_bits(const struct qcow2_header *h)
{
    return h->incompatible & QCOW2_EXTENDED_L2 ? 4 : 3;
}

/* A table of one cluster that is in memory. */
struct qcow2_table {
    uint64_t offset; /* in the file; 0: none */
    uint64_t last_use;
    bool dirty;
    uint8_t *bytes;
};

struct qcow2_cache {
    struct qcow2_table *tables;
    unsigned n, max;
    uint64_t clock;
    unsigned n_dirty;
};

/* Clusters whose reference is gone from memory, but maybe not from the file yet. */
struct qcow2_freed {
    uint64_t cluster, n;
};
#define QCOW2_FREED_MAX 4096u

enum qcow2_flush_stage { QCOW2_IDLE, QCOW2_SYNC_REFCOUNTS, QCOW2_SYNC_L2, QCOW2_SYNC_L1, QCOW2_WAIT_FOR_IO };

/* A persistent bitmap: which parts of the disk have changed since someone looked. */
struct qcow2_bitmap {
    char *name;
    uint64_t at; /* of its entry in the file; 0: it has none yet */
    uint64_t table_offset;
    uint32_t table_size; /* entries */
    uint32_t flags;      /* QCOW2_BITMAP_... */
    uint8_t type, granularity_bits;
    uint8_t *extra; /* what is not known here of what it says */
    uint32_t n_extra;
    uint64_t *table;       /* NULL: not read yet */
    uint8_t *bits;         /* the same */
    uint64_t n_bits, room; /* bytes for bits: whole clusters */
    bool changed;          /* its bits are not what the file has */
    bool recording;        /* is told of each write */
    bool in_use;           /* the file says so, and only because of us */
    bool gone;             /* the file is not to have it any more */
};

struct qcow2_bitmaps {
    struct qcow2_bitmap *list;
    uint32_t n;
    uint64_t offset, bytes; /* of their directory in the file */
    bool read;              /* the file's are here */
    bool changed;           /* the file has others */
    uint64_t memory;        /* bytes that the bits take */
};

struct qcow2 {
    struct disk disk;
    unsigned version, cluster_bits, refcount_order, compression;
    uint32_t cluster_size;
    unsigned entry_bits; /* an entry of an L2 table has 2^entry_bits bytes */
    unsigned table_bits; /* an L2 table has 2^table_bits entries */
    unsigned block_bits; /* a refcount block has 2^block_bits counts */
    uint64_t file_end;   /* nothing was ever written from here on */
    uint64_t autoclear, incompatible;
    struct disk *data; /* the further file that the clusters are in; NULL: they are in this one */
    int data_fd;       /* where they are; -1: that file was not opened */
    unsigned data_file;
    bool data_raw;      /* that file alone has the disk's content at any moment */
    bool encrypted;     /* clusters that are not compressed are, each sector by its number in its file */
    struct luks *crypt; /* by this; NULL: the secret is not known, so they can't be read */
    uint8_t *sealed;    /* a piece, for what is written at once */
    bool behind;        /* the header names a backing file */
    bool changed;       /* since it was opened */
    bool damaged;       /* found to be inconsistent: not written any more */

    uint64_t *l1; /* as in the file, but for the byte order */
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint32_t l1_dirty_from, l1_dirty_to;

    uint64_t *reftable;
    uint64_t reftable_offset;
    uint32_t reftable_entries;

    struct qcow2_cache l2, blocks;
    uint64_t free_hint; /* no cluster before it is free */

    struct qcow2_freed *freed;
    unsigned n_freed;
    struct loop_timer *freed_timer;

    struct qcow2_bitmaps bitmaps;

    uint8_t *copy; /* two clusters, for what is around a write */
    uint8_t *unpacked, *packed;
    uint64_t unpacked_entry; /* the L2 entry whose content is in `unpacked`; 0: none */

    /* Requests. */
    bool submitting;    /* disk_submit has not returned yet */
    unsigned in_flight; /* operations on data */
    enum qcow2_flush_stage stage;
    struct disk_io_op sync;
    struct disk_request *flushing, *flush_next; /* flush requests: of the running one, of the next */
    bool flush_again;
    int flush_error;                        /* of the last one */
    struct disk_request *held, **held_tail; /* wait for the end of a flush */
};

/* ---- qcow2_header.c ---- */

bool qcow2_probe(const uint8_t *head, size_t len);
int qcow2_backing(int fd, char **name, char **format, struct error **err);
/* disk_format's `parts`: the file that has the clusters. */
int qcow2_parts(int fd, struct disk_names *out, struct error **err);
/* Reads what the header says, checked for what can't be, but against nothing else of the file. 0 or -errno
 * with *err. */
int qcow2_read_fields(int fd, struct qcow2_header *out, struct error **err);
/* Finds an extension of the header: where its data are, and how many bytes. 1; 0 if there is none; -errno. */
int qcow2_find_extension(int fd, const struct qcow2_header *header, uint32_t type, uint64_t *at,
                         uint32_t *len);
/* Reads and checks. 0 or -errno with *err. */
int qcow2_read_header(int fd, bool read_only, struct qcow2_header *out, uint64_t *file_end,
                      struct error **err);
int qcow2_describe(int fd, struct disk_info *info, struct error **err);

/* ---- qcow2_cache.c ---- */

int qcow2_cache_init(struct qcow2_cache *cache, uint32_t cluster_size, uint32_t bytes, unsigned min);
/* What one that is written needs at least. */
#define QCOW2_TABLES_MIN 4u
void qcow2_cache_free(struct qcow2_cache *cache);
/* The table at `offset`, to be used before the next call only. 0 or -errno. */
int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *cache, uint64_t offset, struct qcow2_table **out);
/* The same for one that is new in the file: all zeros, dirty. */
int qcow2_cache_new(struct qcow2 *q, struct qcow2_cache *cache, uint64_t offset, struct qcow2_table **out);
void qcow2_cache_mark(struct qcow2_cache *cache, struct qcow2_table *table);
/* Forgets the table at `offset` if it is there. */
void qcow2_cache_drop(struct qcow2_cache *cache, uint64_t offset);
/* Forgets all, of which none may be dirty. */
void qcow2_cache_empty(struct qcow2_cache *cache);
/* Writes what is dirty. 0 or -errno. */
int qcow2_cache_write(struct qcow2 *q, struct qcow2_cache *cache);

/* ---- qcow2_refcount.c ---- */

/* The i-th count of a block; counts have 2^order bits. What is set must fit. */
uint64_t qcow2_get_count(unsigned order, const uint8_t *block, uint64_t i);
void qcow2_set_count(unsigned order, uint8_t *block, uint64_t i, uint64_t count);
/* 0 or -errno. */
int qcow2_refcount(struct qcow2 *q, uint64_t cluster, uint64_t *count);
/* Takes up to `n` clusters in a row, each used once from now on: *got of them, at byte *offset; *fresh if
 * they read as zeros. 0 or -errno. */
int qcow2_take_clusters(struct qcow2 *q, uint64_t n, uint64_t *offset, uint64_t *got, bool *fresh);
/* `n` clusters in a row, whole. 0 or -errno. */
int qcow2_take_run(struct qcow2 *q, uint64_t n, uint64_t *offset);
/* The clusters of these bytes are used once more: now; -ERANGE if that is more than can be counted. */
int qcow2_raise(struct qcow2 *q, uint64_t offset, uint64_t len);
int qcow2_can_raise(struct qcow2 *q, uint64_t offset, uint64_t len);
/* And once less, where nothing in the file refers to them any more: those that are free become holes. */
int qcow2_lower(struct qcow2 *q, uint64_t offset, uint64_t len);
/* Gives back what was just taken and never referred to. */
void qcow2_untake_clusters(struct qcow2 *q, uint64_t offset, uint64_t n);
/* Remembers that the clusters of `n` bytes at `offset` are used once less: it counts after the next flush. */
void qcow2_release(struct qcow2 *q, uint64_t offset, uint64_t n);
/* Room to remember `n` more. */
bool qcow2_can_release(const struct qcow2 *q, unsigned n);
/* All that were remembered. No operation may be under way on any data. */
void qcow2_apply_releases(struct qcow2 *q);

/* ---- qcow2_map.c ---- */

enum qcow2_kind {
    QCOW2_KIND_NONE, /* the backing file's, or zeros */
    QCOW2_KIND_ZEROS,
    QCOW2_KIND_DATA,
    QCOW2_KIND_PACKED,
};

struct qcow2_extent {
    enum qcow2_kind kind;
    bool own_table;  /* the L2 table is not a snapshot's too */
    bool in_place;   /* data that may be written where they are */
    uint64_t offset; /* data: in the file, of the first byte asked for */
    uint64_t entry;  /* the L2 entry of the first cluster */
    uint64_t length; /* bytes from there on that are alike, and contiguous if they are data */
};

/* What is at byte `at` of the disk, looking no further than `length` bytes. 0 or -errno. */
int qcow2_map(struct qcow2 *q, uint64_t at, uint64_t length, struct qcow2_extent *out);
/* The L2 table for the cluster at byte `at`, ready to be changed, and the cluster's index in it. 0 or -errno.
 */
int qcow2_writable_table(struct qcow2 *q, uint64_t at, struct qcow2_table **out, uint32_t *index);
/* What an L2 entry says. False if it can't be. */
bool qcow2_read_entry(const struct qcow2 *q, uint64_t entry, enum qcow2_kind *kind, uint64_t *offset);
/* Notes that the subclusters in these bytes of a cluster are data, or zeros. */
void qcow2_set_subclusters(const struct qcow2 *q, uint8_t *entry, uint64_t from, uint64_t to, bool as_zeros);
/* Notes that an entry of the L1 table was changed. */
void qcow2_l1_changed(struct qcow2 *q, uint32_t i);
/* The bytes of this file that an L2 entry refers to; false if there are none. */
bool qcow2_entry_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *len);
/* Remembers that what an L2 entry refers to is used once less. */
void qcow2_release_entry(struct qcow2 *q, uint64_t entry);

/* ---- qcow2_compressed.c ---- */

/* Where an entry's compressed bytes are. */
void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint32_t *length);
/* Unpacks a cluster into q->unpacked. 0 or -errno. */
int qcow2_unpack(struct qcow2 *q, uint64_t entry);
/* disk_format's `unpack`. */
int qcow2_unpack_extent(const struct disk_extent *e, uint8_t *buf);

/* ---- qcow2_write.c ---- */

/* The next part of a request, from request->at on, which it moves. 1: done; 0: only after the flush that is
 * running, or is needed; -errno. */
int qcow2_write_step(struct qcow2 *q, struct disk_request *request);
int qcow2_zero_step(struct qcow2 *q, struct disk_request *request);
int qcow2_discard_step(struct qcow2 *q, struct disk_request *request);
/* Makes a part of a cluster zeros, at once. No request may be pending, and there must be room to release. */
int qcow2_zero_now(struct qcow2 *q, uint64_t at, uint64_t len);

/* ---- qcow2_flush.c ---- */

/* Writes all tables that are dirty, in the right order, at once. 0 or -errno. */
int qcow2_write_tables(struct qcow2 *q);
/* And the rest that a clean end takes: with what was given back. No request may be pending. */
int qcow2_flush_to_close(struct qcow2 *q);
void qcow2_submit_flush(struct qcow2 *q, struct disk_request *request);
/* Starts a flush that nobody asked for. */
void qcow2_flush_soon(struct qcow2 *q);
/* An operation on data is done. */
void qcow2_data_done(struct qcow2 *q);

/* ---- qcow2_snapshot_table.c ---- */

/* An internal snapshot, as the table in the file has it. */
struct qcow2_snapshot {
    uint64_t at; /* of its entry in the file */
    uint64_t l1_offset;
    uint32_t l1_size; /* entries */
    uint32_t seconds, nanoseconds;
    uint64_t vm_clock;
    uint64_t vm_state, disk_size, icount;
    bool has_icount;
    char *id, *name;
    uint8_t *more; /* what is not known here of what it says */
    uint32_t n_more;
};

struct qcow2_snapshots {
    struct qcow2_snapshot *list;
    uint32_t n;
    uint64_t bytes;    /* of the file, the table takes */
    const char *fault; /* why it could not be read to its end; NULL */
};

/* All that are in the file, as far as that can be read. 0 or -errno. */
int qcow2_read_snapshots(int fd, const struct qcow2_header *header, uint64_t file_end,
                         struct qcow2_snapshots *out);
void qcow2_free_snapshots(struct qcow2_snapshots *s);
/* The table as it is to be in the file: *bytes of it, to be freed. NULL if there is no memory. */
uint8_t *qcow2_pack_snapshots(const struct qcow2_snapshots *s, uint64_t *bytes);

/* ---- qcow2_bitmap_table.c ---- */

#define QCOW2_BITMAPS_MAX       65535u
#define QCOW2_BITMAPS_BYTES     (4u << 20)  /* of their directory */
#define QCOW2_BITMAPS_MEMORY    (64u << 20) /* of the bits of all of them */
#define QCOW2_BITMAP_NAME_MAX   1023u
#define QCOW2_BITMAP_IN_USE     1u /* what it says may not be all */
#define QCOW2_BITMAP_AUTO       2u /* enabled: whoever writes records it there */
#define QCOW2_BITMAP_COMPATIBLE 4u /* what it says beyond what is known may be kept as it is */
#define QCOW2_BITMAP_DIRTY      1u /* the only type */

/* The bitmaps that the file says are valid, none if it does not say so; without their bits. 0 or -errno with
 * *err. */
int qcow2_read_bitmaps(struct qcow2 *q, struct qcow2_bitmaps *out, struct error **err);
void qcow2_free_bitmaps(struct qcow2_bitmaps *b);
void qcow2_free_bitmap(struct qcow2_bitmap *b);
/* Whether its bits mean what is known here. */
bool qcow2_bitmap_is_known(const struct qcow2_bitmap *b);
/* How many bits the disk has in it, and entries its table. */
uint64_t qcow2_bitmap_bits(const struct qcow2 *q, const struct qcow2_bitmap *b);
uint64_t qcow2_bitmap_entries(const struct qcow2 *q, const struct qcow2_bitmap *b);
/* Reads the table, or all; once. 0 or -errno. */
int qcow2_load_bitmap_table(struct qcow2 *q, struct qcow2_bitmap *b);
int qcow2_load_bitmap(struct qcow2 *q, struct qcow2_bitmap *b);
/* The directory as it is to be in the file: *bytes of it, to be freed. NULL if there is no memory. */
uint8_t *qcow2_pack_bitmaps(const struct qcow2_bitmaps *b, uint64_t *bytes);

/* ---- qcow2_bitmap_store.c ---- */

/* Puts the bitmaps into the file as they are now. No request may be pending. 0 or -errno. */
int qcow2_store_bitmaps(struct qcow2 *q);

/* ---- qcow2_bitmap.c ---- */

extern const struct disk_bitmap_ops qcow2_bitmap_ops;
/* Before the first change of the content: from now on the file's bitmaps know of each. Those of which that
 * can't be had are no longer valid. With `all`, also those that are not enabled are held in memory. 0 or
 * -errno. */
int qcow2_begin_recording(struct qcow2 *q, bool all);
/* These bytes of the disk are about to change. */
void qcow2_record(struct qcow2 *q, uint64_t offset, uint64_t length);
/* The disk has another size now; all bitmaps must be held. */
void qcow2_resize_bitmaps(struct qcow2 *q);

/* ---- qcow2_rename.c ---- */

/* Puts an extension into the header, `len` bytes, or with `data` NULL takes it out, and sets the autoclear
 * bits, all at once. 0 or -errno. */
int qcow2_set_extension(struct qcow2 *q, uint32_t type, const void *data, uint32_t len, uint64_t autoclear);

/* disk_format's `set_backing`. */
int qcow2_set_backing(struct disk *disk, const char *name, const char *format, struct error **err);

/* ---- qcow2_snapshot.c ---- */

extern const struct disk_snapshot_ops qcow2_snapshot_ops;

/* ---- qcow2_resize.c ---- */

/* disk_format's `resize` and `empty`. */
int qcow2_resize(struct disk *disk, uint64_t size, struct error **err);
int qcow2_empty(struct disk *disk);
/* Forgets all of the disk from byte `from` on, the start of a cluster, and gives its space back with the next
 * flush. 0 or -errno. */
int qcow2_drop_from(struct qcow2 *q, uint64_t from);
/* Puts another L1 table and a size into the header, at once; both are in the file. 0 or -errno. */
int qcow2_switch_l1(struct qcow2 *q, uint64_t size, uint64_t l1_offset, uint32_t l1_size);
/* Writes an L1 table to clusters of its own, room for `room` entries. 0 or -errno. */
int qcow2_write_new_l1(struct qcow2 *q, const uint64_t *l1, uint32_t n, uint32_t room, uint64_t *offset);

/* ---- qcow2_check.c ---- */

/* disk_format's `check`. */
int qcow2_check(struct disk_check *check, struct error **err);

/* ---- qcow2_build.c ---- */

extern const struct disk_build_ops qcow2_build;

/* ---- qcow2_data.c: the file that the clusters are in ---- */

/* Looks for it among the image's files, and for the key. 0 or -errno with *err. */
int qcow2_open_data(struct qcow2 *q, const struct qcow2_header *header, struct error **err);
void qcow2_close_data(struct qcow2 *q);
/* At once; `offset` is one of that file. 0 or -errno. */
int qcow2_read_data(struct qcow2 *q, uint64_t offset, void *buf, size_t len);
int qcow2_write_data(struct qcow2 *q, const struct iovec *iov, unsigned n, uint64_t offset);
/* Whether it can be read and written: 0 or -errno. */
int qcow2_check_data(const struct qcow2 *q);
/* disk_format's `extent` of clusters that are data. 0 or -errno. */
int qcow2_data_extent(struct qcow2 *q, uint64_t offset, uint64_t length, struct disk_extent *out);
/* A cluster of a further file is not needed any more, or reads as zeros by its entry: both is so already if
 * the file's content is seen again after a crash. */
void qcow2_punch_data(struct qcow2 *q, uint64_t offset);
/* Gives a further file the disk's new size. What is behind its end now is zeros if it becomes larger. 0 or
 * -errno. */
int qcow2_resize_data(struct qcow2 *q, uint64_t size);
/* All of a further file becomes a hole. 0 or -errno. */
int qcow2_empty_data(struct qcow2 *q);
/* Syncs the clusters' file and the image at once. 0 or -errno. */
int qcow2_sync(const struct qcow2 *q);

/* ---- qcow2.c ---- */

/* Starts an operation on data of the file, part of a request: `iov` has `n` pieces of it. 0 or -errno. */
int qcow2_start_io(struct qcow2 *q, struct disk_request *request, int kind, uint64_t offset, uint64_t length,
                   const struct iovec *iov, unsigned n);
/* Has the further file that the clusters are in make zeros of `length` bytes at r->at, or discard them, as
 * the request says, which it is a part of. 0 or -errno. */
int qcow2_hand_on(struct qcow2 *q, struct disk_request *r, uint64_t length);
/* Goes on with what a flush has held up. */
void qcow2_resume_held(struct qcow2 *q);
/* Reads the disk at once. */
int qcow2_read(struct disk *disk, uint64_t offset, void *buf, size_t len);
/* What is to be called before the first change of the disk's content: 0 or -errno. */
int qcow2_begin_change(struct qcow2 *q);
/* The image is inconsistent: says so in the file, and allows no more writing. Always -EIO. */
int qcow2_damaged(struct qcow2 *q);

/* Whether the clusters are in a further file. */
static inline bool qcow2_is_apart(const struct qcow2 *q)
{
    return q->incompatible & QCOW2_DATA_FILE;
}

/* Whether entries are extended: clusters have subclusters. */
static inline bool qcow2_is_wide(const struct qcow2 *q)
{
    return q->entry_bits == 4;
}

static inline uint32_t qcow2_subcluster_size(const struct qcow2 *q)
{
    return q->cluster_size >> QCOW2_SUBCLUSTER_BITS;
}

/* The i-th entry of an L2 table. */
static inline uint8_t *qcow2_entry(const struct qcow2 *q, const struct qcow2_table *table, uint32_t i)
{
    return table->bytes + ((size_t)i << q->entry_bits);
}

static inline uint64_t qcow2_in_cluster(const struct qcow2 *q, uint64_t at)
{
    return at & (q->cluster_size - 1);
}

#endif
