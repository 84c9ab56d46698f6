/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Container images as they come from elsewhere: the OCI image layout (image specification 1.1, "Image
 * Layout") and the archives of `docker save`. oci_json.c understands their documents, oci_source.c finds
 * them, oci_import.c takes an image into the store, oci_export.c writes one.
 */
#ifndef TABIQUE_IMAGE_OCI_PRIV_H
#define TABIQUE_IMAGE_OCI_PRIV_H

#include "image/image.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define OCI_DOCUMENT_MAX (4u << 20) /* bytes of a document: what registries accept */
#define OCI_LAYERS_MAX   500u       /* of one image: what overlayfs can put on top of each other */
#define OCI_DEPTH_MAX    4          /* of indexes in each other */

#define OCI_INDEX          "application/vnd.oci.image.index.v1+json"
#define OCI_MANIFEST       "application/vnd.oci.image.manifest.v1+json"
#define OCI_CONFIG         "application/vnd.oci.image.config.v1+json"
#define OCI_LAYER          "application/vnd.oci.image.layer.v1.tar"
#define OCI_REFERENCE_NAME "org.opencontainers.image.ref.name"

struct oci_descriptor {
    char digest[IMAGE_ID_LENGTH + 1]; /* SHA-256, in hexadecimal digits */
    int64_t size;
    bool is_index;
};

struct oci_layer {
    char diff[IMAGE_ID_LENGTH + 1];   /* SHA-256 of the uncompressed tar */
    char digest[IMAGE_ID_LENGTH + 1]; /* of the blob; "" where nobody says it (docker's archives) */
    char *path;                       /* of the blob below the source's directory */
};

struct oci_image {
    char id[IMAGE_ID_LENGTH + 1]; /* the digest of its configuration */
    char *reference;              /* the name that it has in the source, or NULL */
    char *config;                 /* the document */
    size_t config_len;
    struct oci_layer *layers; /* bottom first */
    size_t n_layers;
};
void oci_image_clear(struct oci_image *image);

/* ---- oci_json.c: documents of unknown origin ---- */

/* A JSON document; to be released. NULL with *err. */
json_t *oci_json_load(const char *text, size_t len, struct error **err);

/* "sha256:<64 hexadecimal digits>". 0 with the digits in `out`, or -EINVAL with *err. */
int oci_digest_parse(const char *text, char out[IMAGE_ID_LENGTH + 1], struct error **err);

/*
 * Of an index the one entry that is meant: of the reference `tag` (NULL: whatever there is) and for Linux on
 * `arch` where it says for what it is. Its reference in *reference where it has one (the JSON's own; else
 * untouched). 0 or -errno with *err, which tells what there is to choose from.
 */
int oci_index_choose(const json_t *index, const char *tag, const char *arch, struct oci_descriptor *out,
                     const char **reference, struct error **err);

/* Of a manifest the configuration's descriptor, and the layers (digest and path) into `image`. */
int oci_manifest_parse(const json_t *manifest, struct oci_descriptor *config, struct oci_image *image,
                       struct error **err);

/* Of `docker save`'s manifest.json the image that is meant: its layers (path) and reference into `image`, the
 * path of its configuration in *config, to be freed. */
int oci_docker_choose(const json_t *manifest, const char *tag, struct oci_image *image, char **config,
                      struct error **err);

/* Takes the layers' diff ids from the configuration, which is image->config already; it has to be for Linux
 * on `arch` and to have as many layers. */
int oci_config_check(struct oci_image *image, const char *arch, struct error **err);

/* ---- oci_source.c: where they lie ---- */

/* Reads what image is meant in the layout or unpacked archive of docker in `directory` (a descriptor).
 * Documents' digests are checked. 0 with *out, or -errno with *err. */
int oci_source_read(int directory, const char *tag, const char *arch, struct oci_image *out,
                    struct error **err);

/* A regular file below `directory`, whatever links there are. A descriptor, or -errno with *err. */
int oci_source_open(int directory, const char *path, struct error **err);

/* ---- oci_import.c, oci_export.c ---- */

struct store;
struct work;

enum oci_form {
    OCI_DIRECTORY,      /* "oci:PATH[:TAG]" */
    OCI_ARCHIVE,        /* "oci-archive:PATH[:TAG]" */
    OCI_DOCKER_ARCHIVE, /* "docker-archive:PATH[:NAME]" */
};

struct oci_place {
    enum oci_form form;
    char *path;
    char *tag; /* or NULL */
};

/* 1 if the text is one of these, with *out to be cleared in any case; 0 if it is none; -ENOMEM. */
int oci_place_parse(const char *text, struct oci_place *out);
void oci_place_clear(struct oci_place *place);

/* As image_import. */
int oci_import(const struct store *store, const struct oci_place *place, const struct image_import *request,
               const struct image_progress *progress, struct image **out, struct error **err);

/* ---- layers.c: layers of the store, each under its diff id ----
 *
 *     HOME/images/layers/DIFF/blob         as it came, mostly compressed
 *     HOME/images/layers/DIFF/layer.json   its digest, its form, sizes
 *     HOME/images/layers/DIFF/tree/        unpacked; may be missing, and is made when it is needed
 */

/* The directory of a layer in the store, or of one in the work; to be freed. NULL without memory. */
char *layer_path(const struct store *store, const char *diff, const char *file);
char *layer_work_path(const struct work *work, const char *diff, const char *file);

/* What is known of a layer, from its directory. -ENOENT where there is none. */
int layer_read(const char *directory, struct image_layer *out, struct error **err);

/*
 * Copies `in` to be a layer of the work, unpacks it, and checks its digests: `diff` always, `digest` where it
 * is not
 * "". Nothing to do where the store or the work has it.
 */
int layer_add(const struct store *store, const struct work *work, int in, const char *name, const char *diff,
              const char *digest, const struct image_progress *progress, struct error **err);

/* Takes a tar stream that was made here, compresses it to be a layer of the work, and does not unpack it. Its
 * diff id in `diff`. */
int layer_make(const struct work *work, int in, char diff[IMAGE_ID_LENGTH + 1], struct error **err);

/* Puts the image's layers into their place, with the lock. -EAGAIN (without *err) if one that was in the
 * store when the work began is gone. */
int layers_commit_locked(const struct store *store, const struct work *work, const struct image *image,
                         struct error **err);
/* Deletes those that no content has. With the lock. */
void layers_collect_locked(const struct store *store);

#endif
