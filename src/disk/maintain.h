/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeping images in order: whether one is consistent, other sizes, snapshots inside of one, what it is based
 * on. Each is an optional operation of a format (disk_priv.h). What is done to an open disk is done at once,
 * in its thread, while no request is pending.
 */
#ifndef TABIQUE_DISK_MAINTAIN_H
#define TABIQUE_DISK_MAINTAIN_H

#include "disk/job.h"

/* ---- check.c ---- */

enum disk_repair {
    DISK_REPAIR_NONE,  /* look only */
    DISK_REPAIR_LEAKS, /* give back space that nothing uses */
    DISK_REPAIR_ALL,
};

/* What is still wrong, and what was and is not any more. */
struct disk_check_result {
    uint64_t corruptions, leaks;
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t end; /* of what the file uses, in bytes */
    /* Of the disk, in the units in which the format keeps it: of `units`, so many are in the file, of these
     * so many compressed, and so many not where the one before goes on. */
    uint64_t unit, units, allocated, packed, fragmented;
};

struct disk_checking {
    enum disk_repair repair;
    /* Called with each thing that is wrong, as far as there are not too many of them. May be NULL. */
    void (*say)(void *opaque, const char *line);
    void *opaque;
    const struct disk_job *job;
    /* Called when all is open that is needed, before more of it is read than what tells the format. 0; or
     * -errno with *err, which ends it. May be NULL. */
    int (*opened)(struct error **err);
};

/*
 * Looks whether the image at `path` is consistent, and with `repair` makes it so as far as may be. It must
 * not be in use by one who writes it. The result tells what was found; 0 also if that is bad. -ENOTSUP with
 * *err: there is nothing to be checked in this format; else -errno with *err.
 */
int disk_check(const char *path, const char *format, const struct disk_checking *how,
               struct disk_check_result *out, struct error **err);

/* ---- resize.c ---- */

/*
 * Gives an open disk another size, a multiple of DISK_SECTOR. What is new reads as zeros; what is beyond the
 * new end is lost. 0 or -errno with *err.
 */
int disk_resize(struct disk *disk, uint64_t size, struct error **err);

/* Forgets all that the image has itself, so that what it is based on, or zeros, are read. 0 or -errno with
 * *err. */
int disk_empty(struct disk *disk, struct error **err);

/* ---- snapshots.c: the state of a disk, kept inside the image ---- */

struct disk_snapshot {
    char *id, *name;
    uint64_t vm_state; /* bytes of a machine's state that belong to it */
    int64_t seconds;   /* when it was made */
    uint32_t nanoseconds;
    uint64_t vm_clock; /* nanoseconds that the machine had run */
    uint64_t disk_size;
};

struct disk_snapshots {
    struct disk_snapshot *list;
    size_t n;
};

/* Those in an image, in the order in which they were made. -ENOTSUP with *err where the format has none. */
int disk_snapshot_list(struct disk *disk, struct disk_snapshots *out, struct error **err);
void disk_snapshots_free(struct disk_snapshots *s);
/* Makes one of what the disk has now. */
int disk_snapshot_create(struct disk *disk, const char *name, struct error **err);
/* Takes the disk back to what it was; what it has now is lost. By id or name. */
int disk_snapshot_apply(struct disk *disk, const char *which, struct error **err);
int disk_snapshot_delete(struct disk *disk, const char *which, struct error **err);

/* ---- bitmaps.c: which parts of a disk have changed, kept inside the image ---- */

struct disk_bitmap {
    char *name;
    uint32_t granularity; /* bytes for which there is one bit */
    bool enabled;         /* what is written is recorded there */
    bool inconsistent;    /* its last user did not store it: it can only be removed */
    uint64_t dirty;       /* bytes of the disk */
};

struct disk_bitmaps {
    struct disk_bitmap *list;
    size_t n;
};

/* What a bitmap says, as it was when it was asked. */
struct disk_dirty {
    uint8_t *bits; /* the lowest of each byte first */
    uint32_t granularity;
    uint64_t size; /* of the disk */
};

/* Those in an image that are valid. -ENOTSUP with *err where the format has none. */
int disk_bitmap_list(struct disk *disk, struct disk_bitmaps *out, struct error **err);
void disk_bitmaps_free(struct disk_bitmaps *b);
int disk_bitmap_get(struct disk *disk, const char *name, struct disk_dirty *out, struct error **err);
/* Whether the byte at `at` has changed, and in *length, how far beyond it, that is so or not. */
bool disk_dirty_at(const struct disk_dirty *d, uint64_t at, uint64_t *length);
void disk_dirty_free(struct disk_dirty *d);
/* Makes one, enabled and empty; granularity 0: what suits the image. What these change is in the file when
 * the disk is closed. */
int disk_bitmap_add(struct disk *disk, const char *name, uint64_t granularity, struct error **err);
int disk_bitmap_remove(struct disk *disk, const char *name, struct error **err);
int disk_bitmap_clear(struct disk *disk, const char *name, struct error **err);
int disk_bitmap_enable(struct disk *disk, const char *name, bool enabled, struct error **err);
/* What has changed by `source` has by `name` too. */
int disk_bitmap_merge(struct disk *disk, const char *name, const char *source, struct error **err);

/* Those that record, for another image that goes on with the same content. What can't be had is left out: who
 * looks for it there finds that it is not. NULL is fine. */
struct disk_kept_bitmaps *disk_bitmaps_keep(struct disk *disk);
void disk_bitmaps_put(struct disk *disk, const struct disk_kept_bitmaps *kept);
void disk_kept_bitmaps_free(struct disk_kept_bitmaps *kept);

/* ---- rebase.c, commit.c: what an image is based on ---- */

struct disk_rebase {
    const char *base;        /* the new one, as seen from the image's directory; NULL: none */
    const char *base_format; /* must be given with it */
    const char *secret_file; /* opens what is encrypted; NULL */
    bool names_only;         /* the same content is there under another name: nothing is read */
    bool follow;             /* the image may be opened though it names another file */
    /* Called when all is open that is needed, before it is read. 0; or -errno with *err. May be NULL. */
    int (*opened)(struct error **err);
};

/*
 * Has an image be based on another one. What differs between the old and the new one is copied into the image
 * first, so the disk stays what it is. 0 or -errno with *err; then it is based on what it was before.
 */
int disk_rebase(const char *path, const char *format, const struct disk_rebase *what,
                const struct disk_job *job, struct error **err);

struct disk_commit {
    const char *base;        /* one of those that the image is based on; NULL: the first */
    const char *secret_file; /* opens what is encrypted; NULL */
    bool keep;               /* the image keeps what was copied; always where `base` is not the first */
    bool follow;             /* what the image names may be opened, and written */
    /* As in struct disk_rebase. */
    int (*opened)(struct error **err);
};

/* Copies what an image has into what it is based on. 0 or -errno with *err; then the image still has all. */
int disk_commit(const char *path, const char *format, const struct disk_commit *what,
                const struct disk_job *job, struct error **err);

#endif
