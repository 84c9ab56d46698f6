/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between an import and the confined process that reads the strange file. */
#ifndef TABIQUE_IMAGE_IMPORT_PRIV_H
#define TABIQUE_IMAGE_IMPORT_PRIV_H

#include <stdint.h>

/* What the process says: fixed size, so that reading it is safe whatever it has become. */
struct import_message {
    int32_t kind; /* IMPORT_* */
    int32_t result;
    double fraction;
    uint64_t size;   /* of the disk as a guest sees it */
    char format[16]; /* of the disk: "raw", "qcow2" */
    char text[400];  /* why it failed; ends with a zero */
};

enum {
    IMPORT_COPYING,
    IMPORT_CHECKING,
    IMPORT_ENDED,
};

struct disk_files;
struct error;

/*
 * Copies (decompressed, with zeros as holes) what `in` has into the empty first of the `files`, and checks
 * that it is a disk image of `format` (NULL: told by its content) that a machine can boot from. Tells
 * `report` all along. To be called by a process that is confined; never returns. `files` are opened before,
 * as raw, for what they need (io_uring) is not to be had any more.
 */
_Noreturn void import_work(int in, struct disk_files *files, const char *format, int report);

/* The same for tests: returns, with *end filled but for its result and text. `files` are closed. 0 or -errno.
 */
int import_read(int in, struct disk_files *files, const char *format, int report, struct import_message *end,
                struct error **err);

/*
 * A guest's VM process will open what an image names before it is confined. The reading process refuses such
 * images; but it has read a stranger's data, so that this one names nothing is seen from here (qcow2: the
 * backing file's name at byte 8; from version 3 on features at 72, bit 2: data in another file). 0 or -errno
 * with *err. Called outside that process, once it has ended.
 */
int import_check_names_nothing(int fd, const char *file, struct error **err);

#endif
