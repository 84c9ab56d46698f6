/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who gives new files their names for a process that may not any more, since it reads a stranger's image
 * (host/confine.h: confine_writer). It is forked while the image is not yet read, holds what the new file
 * takes to get its name, and does no more for whoever asks than what was decided then: end it in one of the
 * two ways, and make further files beside it that are named after it. See namer.c.
 */
#ifndef TABIQUE_DISK_NAMER_H
#define TABIQUE_DISK_NAMER_H

#include <stdbool.h>

struct disk_namer;
struct disk_new_file;
struct error;

/* From now on `image`, just opened by this path, is ended by it. A further file may be called `part` too,
 * which a person has said; NULL: none. The caller has one thread. 0 or -errno with *err. */
int disk_namer_start(struct disk_namer **out, struct disk_new_file *image, const char *path, const char *part,
                     struct error **err);
/* Waits for its end; what has no name by then vanishes. NULL is fine. */
void disk_namer_end(struct disk_namer *namer);

/* A further file, as disk_new_file_open, where none of that name may be; `name` is plain. */
int disk_namer_open(struct disk_namer *namer, const char *name, struct disk_new_file *file,
                    struct error **err);
/* As disk_new_file_end, of number `index`: 0 is the image, the others count in the order of opening. */
int disk_namer_finish(struct disk_namer *namer, unsigned index, bool ok, bool sync, struct error **err);

#endif
