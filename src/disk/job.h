/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Work on whole images that takes a while: it tells how far it is, and can be ended early. */
#ifndef TABIQUE_DISK_JOB_H
#define TABIQUE_DISK_JOB_H

#include "disk/disk.h"

#include <signal.h>

struct disk_job {
    /* Called now and then from one of the job's threads, one call at a time; may be NULL. */
    void (*report)(void *opaque, double fraction);
    void *opaque;
    /* Becomes other than 0, from a signal handler, when the job is to end with -EINTR; may be NULL. */
    const volatile sig_atomic_t *cancel;
};

struct disk_convert {
    struct disk_create target; /* its size is the source's */
    bool no_sync;              /* the new file need not be on the disk when it is done */
    /* Called when all is open that is needed, before the source is read: from then on no file need be opened,
     * and another process gives the new one its name. 0; or -errno with *err, which ends it. May be NULL. */
    int (*opened)(struct error **err);
};

/*
 * Makes the image `path` with what the disk has that is in `source`. What is zeros takes no space in it. The
 * file gets its name when it is whole: until then, and when that fails, nothing has changed, and what had the
 * name before is still there. It must not be in use. 0 or -errno with *err.
 */
int disk_convert(struct disk_files *source, const char *path, const struct disk_convert *what,
                 const struct disk_job *job, struct error **err);

/*
 * Writes all that the qcow2 image `from` has of its own into `to`, which it is based on and which gets its
 * size. `from` shows the same all the while, and `to` shows the same when it is done. The caller keeps all
 * others away who would write either: no lock is taken. 0 or -errno with *err.
 */
int disk_merge(const char *from, const char *to, const char *to_format, const struct disk_job *job,
               struct error **err);

struct disk_difference {
    bool differ;
    bool sizes;     /* they have different sizes */
    bool size_only; /* that is all, or what the longer one has more counts as different */
    uint64_t at;    /* else the first byte that differs */
};

/* Whether two disks have the same content. With `strict` they must have the same size too; without it what
 * one has more must be zeros. 0 or -errno with *err. */
int disk_compare(struct disk_files *a, struct disk_files *b, bool strict, const struct disk_job *job,
                 struct disk_difference *out, struct error **err);

#endif
