/* SPDX-License-Identifier: GPL-2.0-or-later */
/* image.json: what is known of an image's content. Written once, before the content gets its place; no locks.
 */
#include "image/store_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT 1

static void json_cleanup(json_t **json)
{
    json_decref(*json);
}
#define cleanup_json __attribute__((cleanup(json_cleanup)))

/* The last part of a path: files are named from the directory that they lie in. */
static const char *base_name(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;

    return slash ? slash + 1 : path;
}

int metadata_write(const char *directory, const struct image *image, const char *request, struct error **err)
{
    cleanup_free char *path = NULL;
    cleanup_json json_t *packages = json_array();

    for (size_t i = 0; i < image->n_packages; i++)
        json_array_append_new(packages, json_string(image->packages[i]));
    cleanup_json json_t *layers = image->n_layers ? json_array() : NULL;
    for (size_t i = 0; i < image->n_layers; i++)
        json_array_append_new(layers, json_string(image->layers[i].diff));
    cleanup_json json_t *json = json_pack(
        "{s:i, s:s, s:s*, s:s*, s:I, s:s*, s:s*, s:s*, s:O*, s:s*, s:s, s:s*, s:s, s:O, s:I, s:s*}", "format",
        FORMAT, "id", image->id, "disk", base_name(image->disk), "disk_format", image->disk_format, "size",
        (json_int_t)image->size, "kernel", base_name(image->kernel), "initrd", base_name(image->initrd),
        "append", image->append, "layers", layers, "config", base_name(image->config), "origin",
        image->origin, "suite", image->suite, "arch", image->arch, "packages", packages, "created",
        (json_int_t)image->created, "request", request);
    if (!json || asprintf(&path, "%s/image.json", directory) < 0)
        return error_set_errno(err, ENOMEM, "%s", directory);
    errno = EIO;
    if (json_dump_file(json, path, JSON_INDENT(2)) < 0)
        return error_set_errno(err, errno, "%s", path);
    return 0;
}

/* A file of the directory that the metadata names; never one elsewhere. */
static int take_file(const char *directory, const char *name, char **out)
{
    if (!name)
        return 0;
    if (!*name || strchr(name, '/') || strcmp(name, "..") == 0)
        return -EINVAL;
    return asprintf(out, "%s/%s", directory, name) < 0 ? -ENOMEM : 0;
}

static int take_text(const char *text, char **out)
{
    if (!text)
        return 0;
    *out = strdup(text);
    return *out ? 0 : -ENOMEM;
}

static int take_packages(struct image *image, json_t *packages)
{
    size_t i;
    json_t *item;

    image->packages = calloc(json_array_size(packages) + 1, sizeof(char *));
    if (!image->packages)
        return -ENOMEM;
    json_array_foreach(packages, i, item)
    {
        if (!json_is_string(item))
            return -EINVAL;
        image->packages[i] = strdup(json_string_value(item));
        if (!image->packages[i])
            return -ENOMEM;
        image->n_packages++;
    }
    return 0;
}

static int take_layers(struct image *image, const json_t *layers)
{
    size_t n = json_array_size(layers);

    image->layers = calloc(n + 1, sizeof(*image->layers));
    if (!image->layers)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        const char *diff = json_string_value(json_array_get(layers, i));

        if (!diff || strlen(diff) != IMAGE_ID_LENGTH || strspn(diff, "0123456789abcdef") != IMAGE_ID_LENGTH)
            return -EINVAL;
        strcpy(image->layers[i].diff, diff);
        image->n_layers++;
    }
    return 0;
}

/* What was unpacked, into `image`. What it has when this fails, image_free frees. */
static int take_all(struct image *image, const char *directory, json_t *json)
{
    const char *id, *disk = NULL, *format = NULL, *kernel = NULL, *initrd = NULL, *append = NULL, *origin;
    const char *suite = NULL, *arch, *config = NULL;
    json_int_t size, created;
    int number, rc;
    json_t *packages, *layers = NULL;

    if (json_unpack(json, "{s:i, s:s, s?s, s?s, s:I, s?s, s?s, s?s, s?o, s?s, s:s, s?s, s:s, s:o, s:I}",
                    "format", &number, "id", &id, "disk", &disk, "disk_format", &format, "size", &size,
                    "kernel", &kernel, "initrd", &initrd, "append", &append, "layers", &layers, "config",
                    &config, "origin", &origin, "suite", &suite, "arch", &arch, "packages", &packages,
                    "created", &created) < 0)
        return -EINVAL;
    if (!disk != !format || !layers != !config || (!disk && !layers))
        return -EINVAL;
    if (number != FORMAT || strlen(id) != IMAGE_ID_LENGTH || size < 0 || !json_is_array(packages))
        return -EINVAL;
    strcpy(image->id, id);
    image->size = (uint64_t)size;
    image->created = (time_t)created;
    if ((rc = take_file(directory, disk, &image->disk)) ||
        (rc = take_file(directory, kernel, &image->kernel)) ||
        (rc = take_file(directory, initrd, &image->initrd)) ||
        (rc = take_file(directory, config, &image->config)) || (rc = take_layers(image, layers)) ||
        (rc = take_text(format, &image->disk_format)) || (rc = take_text(append, &image->append)) ||
        (rc = take_text(origin, &image->origin)) || (rc = take_text(suite, &image->suite)) ||
        (rc = take_text(arch, &image->arch)))
        return rc;
    return take_packages(image, packages);
}

int metadata_read(const char *directory, struct image *image, char **request, struct error **err)
{
    cleanup_free char *path = NULL;
    json_error_t why;

    if (asprintf(&path, "%s/image.json", directory) < 0)
        return error_set_errno(err, ENOMEM, "%s", directory);
    if (access(path, R_OK) < 0)
        return error_set_errno(err, errno, "%s", path);
    cleanup_json json_t *json = json_load_file(path, 0, &why);
    if (!json)
        return error_set(err, EINVAL, "%s: %s", path, why.text);
    int rc = take_all(image, directory, json);
    if (rc)
        return error_set(err, -rc, "%s: not the description of an image", path);
    if (request) {
        const char *text = json_string_value(json_object_get(json, "request"));
        *request = text ? strdup(text) : NULL;
    }
    return 0;
}
