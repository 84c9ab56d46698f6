/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A file that gets its name when it is whole. See new_file.c. */
#ifndef TABIQUE_DISK_NEW_FILE_H
#define TABIQUE_DISK_NEW_FILE_H

#include <stdbool.h>

struct disk_namer;
struct error;

struct disk_new_file {
    int fd;
    char *path, *temporary;   /* temporary: the name it has until then; NULL: none */
    int old_fd, lock_fd;      /* what has the name now, locked; -1: nothing */
    struct disk_namer *namer; /* gives it its name, and knows it by its number; NULL: we may ourselves */
    unsigned index;
};

/* 0 or -errno with *err; then there is nothing to end. */
int disk_new_file_open(struct disk_new_file *file, const char *path, struct error **err);
/* The same for a file where none may be yet. */
int disk_new_file_open_beside(struct disk_new_file *file, const char *path, struct error **err);
/* `ok`: gives it its name, in place of what had that before; else it vanishes. With `sync` it is on the disk
 * before that. 0 or -errno with *err. */
int disk_new_file_end(struct disk_new_file *file, bool ok, bool sync, struct error **err);

#endif
