/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The image store's insides: what building and importing share with looking up and removing. */
#ifndef TABIQUE_IMAGE_STORE_PRIV_H
#define TABIQUE_IMAGE_STORE_PRIV_H

#include "image/image.h"

struct store {
    char *home; /* absolute */
    char *root; /* home/images */
};

/* Paths only; nothing need exist. Free with store_close. */
int store_open(const char *home, struct store *out, struct error **err);
void store_close(struct store *store);
#define cleanup_store __attribute__((cleanup(store_close)))

/* Makes the directories. */
int store_create(const struct store *store, struct error **err);

/* Waits for the store's lock; close the descriptor to unlock. -errno where there is no store. */
int store_lock(const struct store *store, struct error **err);

/* "<root>/<format>", to be freed; NULL without memory. */
char *store_path(const struct store *store, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Deletes content that has neither a name nor guests. With the lock. */
void store_collect_locked(const struct store *store);

/* ---- work: directories in which something is made; see store_work.c ---- */

struct work {
    char *directory; /* NULL: none */
    char *lock_path;
    int lock; /* held; inherited by what works in it, so that nobody takes it away under them */
};
#define WORK_NONE ((struct work){.lock = -1})

/* A new, empty one. Before, those whose makers are gone are deleted. */
int work_begin(const struct store *store, struct work *out, struct error **err);
/* Deletes it, if it is still there. */
void work_end(struct work *work);
/* Deletes what is at the path, whoever owns it. */
void work_delete_tree(const char *path);
#define cleanup_work __attribute__((cleanup(work_end)))

/*
 * Makes the work's files (those that `image` names in it, its layers, and its image.json) the content of
 * image->id, which it sets where there is none, and gives it image->name. All or nothing, also if the host
 * stops. -EAGAIN (without *err): a layer that was in the store has gone meanwhile.
 */
int work_commit(const struct store *store, struct work *work, struct image *image, const char *request,
                struct error **err);

/* ---- metadata.c: image.json ---- */

int metadata_write(const char *directory, const struct image *image, const char *request, struct error **err);
/* All but name, bytes and guests; *request (may be NULL) is to be freed. -ENOENT where there is none. */
int metadata_read(const char *directory, struct image *image, char **request, struct error **err);

/* ---- digest.c ---- */

/* SHA-256 bit by bit. digest_free is due after digest_begin, whatever that gave. */
struct digest {
    const struct libcrypto *lib;
    void *context;
};
int digest_begin(struct digest *d, struct error **err);
void digest_add(struct digest *d, const void *bytes, size_t len);
/* In hexadecimal digits. 0 or -errno with *err. */
int digest_end(struct digest *d, char out[IMAGE_ID_LENGTH + 1], struct error **err);
void digest_free(struct digest *d);
#define cleanup_digest __attribute__((cleanup(digest_free)))

/* The id of the content: SHA-256 over disk (where it is not zero), kernel, initrd and command line. */
int digest_image(struct image *image, struct error **err);
/* The beginning of a text's SHA-256, to tell it from others. 0 or -errno with *err. */
#define DIGEST_TEXT_LENGTH 16
int digest_text(const char *text, char out[DIGEST_TEXT_LENGTH + 1], struct error **err);

#endif
