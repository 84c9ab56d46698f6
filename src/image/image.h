/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The image store: what guests are made from, virtual machines and containers. An image has what one of the
 * two needs, or both: a disk, layers. Called by the verbs `image ...` and by what makes guests.
 *
 * An image's content never changes: it lies under an id, the SHA-256 of all that a guest would see of it. A
 * name is a pointer to an id, so building `debian` again gives the name a new content and leaves guests on
 * the old one alone. Content without a name goes when its last guest does.
 *
 *     HOME/images/lock              held (flock) while names, users or contents change; never for long
 *     HOME/images/names/NAME        a symbolic link to ../content/ID, replaced as a whole
 *     HOME/images/content/ID/       disk.raw or disk.qcow2, kernel, initrd, config.json, image.json;
 * read-only files HOME/images/content/ID/guests/GUEST   a symbolic link to the directory of a guest that is
 * built on it HOME/images/layers/DIFF/      a layer of container images, kept once for all that have it
 * (oci_priv.h) HOME/images/work/X, X.lock    what is being built or imported; X.lock is held by who does it
 *     HOME/cache/                   packages; may be deleted at any time
 *
 * All functions take the state directory, or NULL for home_directory's. They may be called by any number of
 * processes at once.
 */
#ifndef TABIQUE_IMAGE_IMAGE_H
#define TABIQUE_IMAGE_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct error;

#define IMAGE_ID_LENGTH    64
#define IMAGE_ID_SHORT     12 /* as people see and type it */
#define IMAGE_NAME_MAX     63
#define IMAGE_DISK_MINIMUM (UINT64_C(1) << 30) /* of a built one: a Debian and room to work */
#define IMAGE_DISK_MAXIMUM (UINT64_C(16) << 40)

/* Of a container image; files of later ones hide those of earlier ones. */
struct image_layer {
    char diff[IMAGE_ID_LENGTH + 1];   /* SHA-256 of its tar stream, by which it is known here */
    char digest[IMAGE_ID_LENGTH + 1]; /* of its blob */
    char *directory;                  /* absolute; image_layer_tree is in it, and `blob` */
    char compression[8];              /* of the blob: "", "gzip", "zstd" */
    uint64_t size, stream;            /* bytes of the blob; of the tar stream */
    uint64_t bytes, entries;          /* of its files; 0 where it was not unpacked when it came */
};

/* One image, as found at some moment. Strings are its own; free with image_free. */
struct image {
    char id[IMAGE_ID_LENGTH + 1];
    char *name; /* NULL for content that has lost its name and lives on for its guests */
    char *disk; /* absolute path of a file that must not be written to; NULL where no machine can be made from
                   it */
    char *disk_format;          /* "raw" or "qcow2"; NULL without a disk */
    char *kernel;               /* absolute path; NULL where the disk boots by firmware */
    char *initrd;               /* absolute path, or NULL */
    char *append;               /* the kernel's command line, or NULL */
    struct image_layer *layers; /* of a container's root, the lowest first */
    size_t n_layers;            /* 0: no container can be made from it */
    char *config;               /* absolute path of the OCI image configuration; NULL without layers */
    char *origin;               /* where it is from, for people: "debian bookworm", "import of x.qcow2" */
    char *suite;                /* of a built one, else NULL */
    char *arch;                 /* Debian's name: "amd64" */
    char **packages;            /* asked for beyond the default, sorted */
    size_t n_packages;
    uint64_t size;  /* bytes, of the disk as a guest sees it; without a disk, of the files in all layers */
    uint64_t bytes; /* that all its files take on the host */
    time_t created;
    char **guests; /* the names of those that are built on it, sorted */
    size_t n_guests;
};

void image_free(struct image *image);
void image_list_free(struct image **images, size_t n);

static inline void image_cleanup(struct image **image)
{
    image_free(*image);
}
#define cleanup_image __attribute__((cleanup(image_cleanup)))

/* What can be made from it: "vm", "container", "vm, container". */
const char *image_kinds(const struct image *image);

/* An image name: a letter or digit, then letters, digits, '.', '_', '-'; at most IMAGE_NAME_MAX. Guests'
 * names have the same form. -EINVAL with a text that says so. */
int image_check_name(const char *name, struct error **err);

/* By name, or by the beginning of an id (6 digits or more). -ENOENT, with a text that tells what to do. */
int image_lookup(const char *home, const char *name, struct image **out, struct error **err);

/* All of them: first those with a name, by name; content with two names comes twice. */
int image_list(const char *home, struct image ***out, size_t *n, struct error **err);

/* Takes the name away, and the content where no other name has it. -EBUSY while guests are built on it. */
int image_remove(const char *home, const char *name, struct error **err);

/*
 * Says that `guest`, which lives in `directory` (absolute, there already), is built on the image: its content
 * stays until image_release, or until the directory is gone. The image as it is now in *out. A guest is built
 * on one image at most: an earlier hold of the same guest ends.
 */
int image_hold(const char *home, const char *name, const char *guest, const char *directory,
               struct image **out, struct error **err);

/* The guest is gone. Content that nothing needs any more goes with it. No error if it held nothing. */
int image_release(const char *home, const char *guest, struct error **err);

/* What is going on, for a person: called again and again with a fraction from 0 to 1. */
struct image_progress {
    void (*report)(void *opaque, const char *what, double fraction);
    void *opaque;
};

struct image_build {
    const char *name;   /* NULL: "debian" */
    const char *suite;  /* "bookworm", "trixie" */
    const char *arch;   /* "amd64" */
    const char *mirror; /* NULL: the one that this host uses */
    const char **packages;
    size_t n_packages;
    uint64_t size; /* bytes of the disk */
    bool rebuild;  /* even if the same was built before */
};

/*
 * Builds a Debian from its packages. Answered from the store where the same was built before; waits where it
 * is being built. `built` (may be NULL) tells whether anything was done. SIGINT, SIGTERM and SIGHUP end it
 * with -EINTR, everything cleaned up.
 */
int image_build_debian(const char *home, const struct image_build *request,
                       const struct image_progress *progress, struct image **out, bool *built,
                       struct error **err);

struct image_import {
    const char *file;
    const char *name;   /* NULL: from the file's */
    const char *format; /* of the disk: "raw", "qcow2"; NULL: told by its content */
};

/*
 * Takes a disk that boots by firmware, or a container image, into the store. A container image is an OCI
 * image layout (file "oci:DIRECTORY[:TAG]", or "oci-archive:FILE[:TAG]" in a tar archive) or what `docker
 * save` makes
 * ("docker-archive:FILE[:NAME]"); its id is that of its configuration. Of a disk the file may be compressed
 * (gzip, bzip2, xz, zstd). All of it is read and checked, by a confined process. Interrupted as
 * image_build_debian.
 */
int image_import(const char *home, const struct image_import *request, const struct image_progress *progress,
                 struct image **out, struct error **err);

/* Writes a container image to `target`, which has one of the forms of image_import. What is there already of
 * a layout stays. Interrupted as image_build_debian. */
int image_export(const char *home, const char *name, const char *target,
                 const struct image_progress *progress, struct error **err);

/* For a person's containers, whose files belong to the ids that /etc/subuid gives. `pid` is in a new user
 * namespace: the person becomes its root, the given ids what follows. 0 or -errno with *err. */
int image_map_ids(pid_t pid, struct error **err);
/* Deletes a tree with files of these ids. Says nothing. */
void image_delete_tree(const char *path);

/* Unpacks those of the image's layers that are not yet. For one that a guest holds. As image_build_debian. */
int image_unpack(const char *home, const struct image *image, const struct image_progress *progress,
                 struct error **err);
/* Where the layer's files are, once it is unpacked: in overlayfs's form, with attributes named user.overlay.
 * To be freed; NULL without memory. */
char *image_layer_tree(const struct image_layer *layer);

#endif
