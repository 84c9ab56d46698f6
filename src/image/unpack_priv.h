/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unpacking of archives whose origin nobody knows: layers of container images, and the archives that whole
 * images come in. unpack.c starts the confined process, unpack_stream.c decompresses and digests in it,
 * unpack_tree.c makes the files.
 */
#ifndef TABIQUE_IMAGE_UNPACK_PRIV_H
#define TABIQUE_IMAGE_UNPACK_PRIV_H

#include "image/libarchive.h"
#include "image/store_priv.h"

#include <stdbool.h>
#include <stdint.h>

struct error;

struct unpack_job {
    const char *name; /* for people: what is unpacked */
    int in;           /* a regular file: tar, as it is or compressed; read from its beginning */
    int root;         /* an empty directory */
    /*
     * A layer: files keep their owners, and deletions become what overlayfs knows (a character device 0:0;
     * the attribute user.overlay.opaque of a directory that hides those below it). Otherwise only regular
     * files, directories and links are made, which belong to who calls.
     */
    bool layer;
    uint64_t most; /* bytes that the files, and the tar stream, may have; 0: by the size of `in` */
};

struct unpack_result {
    char digest[IMAGE_ID_LENGTH + 1]; /* SHA-256 of the file as it is */
    char diff[IMAGE_ID_LENGTH + 1]; /* of the tar stream in it: OCI image specification 1.1, "Layer DiffID" */
    uint64_t stream;                /* bytes of the tar stream */
    uint64_t bytes, entries;        /* of the files */
};

/* Does it in a confined process. 0; -EINTR when interrupted; or -errno with *err, and what is in `root` is to
 * be deleted. `progress` may be NULL. */
int unpack(const struct unpack_job *job, const struct image_progress *progress, struct unpack_result *out,
           struct error **err);

/* The same in this process, for that one and for tests. `progress` gets fractions of the file. */
int unpack_stream(const struct unpack_job *job, void (*progress)(void *opaque, double fraction), void *opaque,
                  struct unpack_result *out, struct error **err);

/* ---- unpack_tree.c: one entry after the other ---- */

struct unpack_tree;

int unpack_tree_begin(struct unpack_tree **out, const struct unpack_job *job, uint64_t most,
                      struct error **err);
/* Makes what the entry says; its data are read from `a`. 0 or -errno with *err, which names it. */
int unpack_tree_add(struct unpack_tree *tree, const struct libarchive *lib, struct archive *a,
                    struct archive_entry *entry, struct error **err);
/* Directories get their times. Counts into *out. */
int unpack_tree_end(struct unpack_tree *tree, struct unpack_result *out, struct error **err);
void unpack_tree_free(struct unpack_tree *tree);

/* What a path of an archive is below the root: without "./" at its beginning, double and final slashes; "."
 * for the root itself. In place. NULL; or what is wrong with it. */
const char *unpack_path(char *path);

/* unpack_acl.c: the access control lists of an entry, for the file or directory `fd`. 0 or -errno with *err.
 */
struct libarchive;
struct archive_entry;
int unpack_set_acls(int fd, const struct libarchive *lib, struct archive_entry *entry, struct error **err);

#endif
