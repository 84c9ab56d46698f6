/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Backups of a guest's disks, as of one moment. While it runs the VM process reads them and sends what they
 * have (disk/copy.h); the command writes it, with its own rights, so a target that hangs or is full is the
 * command's trouble and not the guest's. Called by the command line.
 */
#ifndef TABIQUE_GUEST_BACKUP_H
#define TABIQUE_GUEST_BACKUP_H

#include "disk/job.h"
#include "guest/control.h"

struct error;
struct home;

enum guest_backup_kind {
    GUEST_BACKUP_CHANGED,   /* what has changed since an earlier one */
    GUEST_BACKUP_ALL,       /* all */
    GUEST_BACKUP_ALL_AGAIN, /* all, for the disk has no record of what has changed since the earlier ones */
};

struct guest_backup {
    const char *guest;
    const char *disk; /* "vda"; NULL: all, or the only one */
    /*
     * A directory: each disk gets a file GUEST-vdX-ID.qcow2 there, which has what changed since the newest of
     * those that the disk has a bitmap for, and is based on that; else, and with `full`, all. Or a new file,
     * a block device or a server's disk (nbd://) for one disk: it gets all.
     */
    const char *target;
    const char *format; /* of a new file; NULL: by the end of its name */
    bool full;
    bool mirror;                /* of one disk, as it is at the end; not to a directory */
    bool pivot;                 /* and the guest, which runs, goes on in the mirror: a new file */
    enum control_freeze freeze; /* of the guest's file systems, while a backup begins */
    uint64_t rate;              /* bytes a second of each disk; 0: no limit */
    const struct disk_job *job;
    /* Called for each disk that is there. */
    void (*done)(void *opaque, const char *disk, const char *path, uint64_t bytes,
                 enum guest_backup_kind kind);
    /* How freezing went, in words. */
    void (*frozen)(void *opaque, const char *note);
    void *opaque;
};

/* 0; or -errno with *err: of each disk there is a whole backup or none. */
int guest_backup(const struct home *home, const struct guest_backup *what, struct error **err);

#endif
