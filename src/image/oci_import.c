/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Taking a container image into the store: from a directory, or from a tar archive that is unpacked first.
 * Each layer is copied, unpacked and checked in a work directory; all of them, the configuration and the name
 * get their places at once. Called by image_import.
 */
#include "image/build_priv.h"
#include "image/oci_priv.h"
#include "image/store_priv.h"
#include "image/unpack_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define ARCH     "amd64" /* what this program is built for, as the specification (and Debian) call it */
#define ATTEMPTS 3       /* others may remove what is just not needed to be made again */

int oci_place_parse(const char *text, struct oci_place *out)
{
    static const struct {
        const char *prefix;
        enum oci_form form;
    } forms[] = {
        {"oci:", OCI_DIRECTORY}, {"oci-archive:", OCI_ARCHIVE}, {"docker-archive:", OCI_DOCKER_ARCHIVE}};

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        size_t len = strlen(forms[i].prefix);

        if (strncmp(text, forms[i].prefix, len) != 0)
            continue;
        const char *path = text + len, *colon = strchr(path, ':');
        if (colon && access(path, F_OK) == 0)
            colon = NULL;
        out->form = forms[i].form;
        out->path = colon ? strndup(path, (size_t)(colon - path)) : strdup(path);
        out->tag = colon ? strdup(colon + 1) : NULL;
        return out->path && (!colon || out->tag) ? 1 : -ENOMEM;
    }
    return 0;
}

void oci_place_clear(struct oci_place *place)
{
    free(place->path);
    free(place->tag);
    *place = (struct oci_place){0};
}

/* ---- the name that an image gets by itself ---- */

/* "docker.io/library/web:1.2" gives "web-1.2", and "latest" is not said. What a name can't have becomes '-'.
 */
static char *name_from_reference(const char *reference)
{
    const char *slash = strrchr(reference, '/'), *last = slash ? slash + 1 : reference;
    size_t len = strcspn(last, "@");
    char *name = strndup(last, len), *colon = name ? strchr(name, ':') : NULL;

    if (colon && strcmp(colon, ":latest") == 0)
        *colon = '\0';
    for (char *p = name; p && *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
            *p = '-';
    return name;
}

static char *name_from_path(const char *path)
{
    cleanup_free char *copy = strdup(path);
    static const char *const endings[] = {".gz", ".xz", ".zst", ".tar"};

    if (!copy)
        return NULL;
    for (size_t len = strlen(copy); len > 1 && copy[len - 1] == '/';)
        copy[--len] = '\0';
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        size_t len = strlen(copy), ending = strlen(endings[i]);
        if (len > ending && strcmp(copy + len - ending, endings[i]) == 0)
            copy[len - ending] = '\0';
    }
    const char *slash = strrchr(copy, '/');
    return strdup(slash ? slash + 1 : copy);
}

/* A reference that is only a tag tells less than the directory's name. */
static int find_name(struct image *image, const struct image_import *request, const struct oci_place *place,
                     const struct oci_image *oci, struct error **err)
{
    const char *reference = oci->reference;
    bool tells = reference && (strchr(reference, ':') || strchr(reference, '/'));

    image->name = request->name ? strdup(request->name)
                  : tells       ? name_from_reference(reference)
                                : name_from_path(place->path);
    if (!image->name)
        return error_set_errno(err, ENOMEM, "image import");
    int rc = image_check_name(image->name, err);
    return rc && !request->name ? error_wrap(err, "give the image a name (--name)") : rc;
}

/* ---- taking it ---- */

struct whole_progress {
    const struct image_progress *progress;
    size_t done, all; /* layers */
};

static void on_layer(void *opaque, const char *what, double fraction)
{
    struct whole_progress *w = opaque;

    w->progress->report(w->progress->opaque, what, ((double)w->done + fraction) / (double)w->all);
}

static int add_layers(const struct store *store, const struct work *work, int directory,
                      const struct oci_image *oci, const struct image_progress *progress, struct error **err)
{
    struct whole_progress whole = {.progress = progress, .all = oci->n_layers};
    const struct image_progress each = {.report = on_layer, .opaque = &whole};

    for (size_t i = 0; i < oci->n_layers; i++) {
        const struct oci_layer *layer = &oci->layers[i];
        char name[80];

        snprintf(name, sizeof(name), "layer %zu of %zu (%.*s)", i + 1, oci->n_layers, IMAGE_ID_SHORT,
                 layer->diff);
        cleanup_close int in = oci_source_open(directory, layer->path, err);
        int rc = in < 0 ? in
                        : layer_add(store, work, in, name, layer->diff, layer->digest,
                                    progress ? &each : NULL, err);
        if (rc)
            return rc;
        whole.done++;
        if (interrupted())
            return interrupt_error(err);
    }
    return 0;
}

static int write_config(const struct work *work, const struct oci_image *oci, char **path, struct error **err)
{
    if (asprintf(path, "%s/config.json", work->directory) < 0) {
        *path = NULL;
        return error_set_errno(err, ENOMEM, "image import");
    }
    cleanup_fclose FILE *f = fopen(*path, "we");
    if (!f || fwrite(oci->config, 1, oci->config_len, f) != oci->config_len || fflush(f))
        return error_set_errno(err, errno, "%s", *path);
    return 0;
}

static int count_files(const struct store *store, const struct work *work, struct image *image,
                       struct error **err)
{
    for (size_t i = 0; i < image->n_layers; i++) {
        struct image_layer layer;
        cleanup_free char *here = layer_work_path(work, image->layers[i].diff, NULL);
        cleanup_free char *there = layer_path(store, image->layers[i].diff, NULL);
        int rc = here && there ? layer_read(here, &layer, NULL) : -ENOMEM;

        if (rc == -ENOENT)
            rc = layer_read(there, &layer, NULL);
        if (rc == 0) {
            image->size += layer.bytes;
            free(layer.directory);
        }
        if (rc == -ENOMEM)
            return error_set_errno(err, ENOMEM, "image import");
    }
    return 0;
}

static int describe(struct image *image, const struct oci_place *place, const struct oci_image *oci,
                    struct error **err)
{
    char shown[160];
    const char *slash = strrchr(place->path, '/');

    strcpy(image->id, oci->id);
    text_make_printable(shown, sizeof(shown),
                        oci->reference ? oci->reference
                        : slash        ? slash + 1
                                       : place->path);
    image->arch = strdup(ARCH);
    image->packages = calloc(1, sizeof(char *));
    image->layers = calloc(oci->n_layers + 1, sizeof(*image->layers));
    if (!image->arch || !image->packages || !image->layers ||
        asprintf(&image->origin, "import of %s", shown) < 0)
        return error_set_errno(err, ENOMEM, "image import");
    image->n_layers = oci->n_layers;
    for (size_t i = 0; i < oci->n_layers; i++)
        strcpy(image->layers[i].diff, oci->layers[i].diff);
    image->created = time(NULL);
    return 0;
}

/* The unpacked archive is no part of the content. */
static int drop_source(const struct work *work, struct error **err)
{
    cleanup_free char *source = NULL;

    if (asprintf(&source, "%s/source", work->directory) < 0)
        return error_set_errno(err, ENOMEM, "image import");
    work_delete_tree(source);
    return 0;
}

static int take(const struct store *store, struct work *work, int directory, const struct oci_place *place,
                const struct image_import *request, const struct image_progress *progress,
                struct image *image, struct error **err)
{
    struct oci_image oci = {0};
    int rc = oci_source_read(directory, place->tag, ARCH, &oci, err);

    if (rc == 0 && !oci.n_layers)
        rc = error_set(err, EINVAL, "it has no layers: there is nothing that a container could run");
    if (rc == 0)
        rc = find_name(image, request, place, &oci, err);
    if (rc == 0)
        rc = describe(image, place, &oci, err);
    if (rc == 0)
        rc = add_layers(store, work, directory, &oci, progress, err);
    if (rc == 0)
        rc = count_files(store, work, image, err);
    if (rc == 0)
        rc = write_config(work, &oci, &image->config, err);
    if (rc == 0)
        rc = drop_source(work, err);
    if (rc == 0)
        rc = work_commit(store, work, image, NULL, err);
    oci_image_clear(&oci);
    return rc;
}

/* The archive's files, in a directory of the work. A descriptor of it, or -errno with *err. */
static int open_archive(const struct work *work, const char *path, const struct image_progress *progress,
                        struct error **err)
{
    cleanup_free char *place = NULL;
    struct unpack_result result;
    struct stat st;
    cleanup_close int in = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (in < 0 || fstat(in, &st) < 0)
        return error_set_errno(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "%s is no regular file%s", path,
                         S_ISDIR(st.st_mode) ? ": for an OCI image layout in a directory say oci:DIR" : "");
    if (asprintf(&place, "%s/source", work->directory) < 0)
        return error_set_errno(err, ENOMEM, "image import");
    if (mkdir(place, 0700) < 0)
        return error_set_errno(err, errno, "%s", place);
    cleanup_close int root = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return error_set_errno(err, errno, "%s", place);
    const struct unpack_job job = {.name = path, .in = in, .root = root};
    int rc = unpack(&job, progress, &result, err);
    return rc ? rc : steal_fd(root);
}

static int import_once(const struct store *store, const struct oci_place *place,
                       const struct image_import *request, const struct image_progress *progress, char **name,
                       struct error **err)
{
    cleanup_image struct image *image = calloc(1, sizeof(*image));
    cleanup_work struct work work = WORK_NONE;
    int rc = image ? 0 : error_set_errno(err, ENOMEM, "image import");

    if (rc == 0 && request->format)
        rc = error_set(err, EINVAL, "--format is for disks, and %s is a container image", request->file);
    if (rc == 0 && request->name)
        rc = image_check_name(request->name, err);
    if (rc || (rc = store_create(store, err)) || (rc = work_begin(store, &work, err)))
        return rc;
    cleanup_close int directory = place->form == OCI_DIRECTORY
                                      ? open(place->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                                      : open_archive(&work, place->path, progress, err);
    if (directory < 0)
        return place->form == OCI_DIRECTORY ? error_set_errno(err, errno, "%s", place->path) : directory;
    struct error *why = NULL;
    rc = take(store, &work, directory, place, request, progress, image, &why);
    if (rc == -EAGAIN && !why)
        return rc;
    if (rc) {
        error_set(err, -rc, "%s: %s", place->path, error_message(why));
        error_free(why);
        return rc;
    }
    *name = steal_ptr(image->name);
    return 0;
}

int oci_import(const struct store *store, const struct oci_place *place, const struct image_import *request,
               const struct image_progress *progress, struct image **out, struct error **err)
{
    cleanup_free char *name = NULL;
    int rc = -EAGAIN;

    for (int i = 0; i < ATTEMPTS && rc == -EAGAIN && (!err || !*err); i++)
        rc = import_once(store, place, request, progress, &name, err);
    if (rc == -EAGAIN && (!err || !*err))
        return error_set(err, EAGAIN, "%s: others removed images with the same layers meanwhile: try again",
                         place->path);
    return rc ? rc : image_lookup(store->home, name, out, err);
}
