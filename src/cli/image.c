/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs `image ...`. */
#include "image/image.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/cli.h"
#include "cli/show.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

static const char *local_time(time_t t, char buf[24])
{
    struct tm tm;

    strftime(buf, 24, "%Y-%m-%d %H:%M", localtime_r(&t, &tm));
    return buf;
}

/* ---- build ---- */

static void on_progress(void *opaque, const char *what, double fraction)
{
    cli_bar_show(opaque, what, fraction);
}

static const char *layers_text(const struct image *image, char buf[32])
{
    snprintf(buf, 32, "%zu layer%s", image->n_layers, image->n_layers == 1 ? "" : "s");
    return buf;
}

/* Says what there is now, or sets the status for what went wrong. */
static int end_of_making(int rc, struct cli_bar *bar, const struct image *image, const char *more,
                         int *status)
{
    char bytes[16], size[16], layers[32];

    cli_bar_end(bar);
    *status = rc == 0 ? 0 : rc == -EINTR ? CLI_STATUS_INTERRUPTED : CLI_STATUS_FAILED;
    if (rc == 0)
        printf("image %s: %s, %.*s, %s of %s that take%s %s%s\n", image->name, image->origin, IMAGE_ID_SHORT,
               image->id, image->disk ? "a disk" : layers_text(image, layers),
               cli_human_size(image->size, size), image->disk || image->n_layers == 1 ? "s" : "",
               cli_human_size(image->bytes, bytes), more);
    return rc;
}

int cli_image_build(const struct cli_values *values, int *status, struct error **err)
{
    struct cli_bar bar = {.terminal = isatty(STDERR_FILENO)};
    const struct image_progress progress = {.report = on_progress, .opaque = &bar};
    struct image_build request = {
        .name = cli_string(values, "name"),
        .suite = cli_string(values, "suite"),
        .arch = cli_string(values, "arch"),
        .mirror = cli_string(values, "mirror"),
        .size = cli_uint(values, "size"),
        .rebuild = cli_bool(values, "rebuild"),
    };
    cleanup_image struct image *image = NULL;
    bool built = false;

    request.packages = cli_list(values, "package", &request.n_packages);
    int rc = image_build_debian(NULL, &request, &progress, &image, &built, err);
    return end_of_making(rc, &bar, image, built ? "" : "; it was there already", status);
}

int cli_image_import(const struct cli_values *values, int *status, struct error **err)
{
    struct cli_bar bar = {.terminal = isatty(STDERR_FILENO)};
    const struct image_progress progress = {.report = on_progress, .opaque = &bar};
    const struct image_import request = {
        .file = cli_string(values, "FILE"),
        .name = cli_string(values, "name"),
        .format = cli_string(values, "format"),
    };
    cleanup_image struct image *image = NULL;
    int rc = image_import(NULL, &request, &progress, &image, err);

    return end_of_making(rc, &bar, image, "", status);
}

int cli_image_export(const struct cli_values *values, int *status, struct error **err)
{
    struct cli_bar bar = {.terminal = isatty(STDERR_FILENO)};
    const struct image_progress progress = {.report = on_progress, .opaque = &bar};
    int rc = image_export(NULL, cli_string(values, "IMAGE"), cli_string(values, "TARGET"), &progress, err);

    cli_bar_end(&bar);
    *status = rc == 0 ? 0 : rc == -EINTR ? CLI_STATUS_INTERRUPTED : CLI_STATUS_FAILED;
    return rc;
}

/* ---- ls, inspect, rm ---- */

static json_t *layer_to_json(const struct image_layer *layer)
{
    char diff[IMAGE_ID_LENGTH + 8], digest[IMAGE_ID_LENGTH + 8];

    snprintf(diff, sizeof(diff), "sha256:%s", layer->diff);
    snprintf(digest, sizeof(digest), "sha256:%s", layer->digest);
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:s}", "diff_id", diff, "digest", digest, "compression",
                     layer->compression, "size", (json_int_t)layer->size, "bytes", (json_int_t)layer->bytes,
                     "directory", layer->directory);
}

static json_t *image_to_json(const struct image *image)
{
    json_t *packages = json_array(), *guests = json_array(), *layers = json_array();

    for (size_t i = 0; i < image->n_packages; i++)
        json_array_append_new(packages, json_string(image->packages[i]));
    for (size_t i = 0; i < image->n_guests; i++)
        json_array_append_new(guests, json_string(image->guests[i]));
    for (size_t i = 0; i < image->n_layers; i++)
        json_array_append_new(layers, layer_to_json(&image->layers[i]));
    return json_pack(
        "{s:s?, s:s, s:s, s:s, s:s?, s:s, s:o, s:I, s:I, s:I, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:o, s:o}",
        "name", image->name, "id", image->id, "kind", image_kinds(image), "origin", image->origin, "suite",
        image->suite, "arch", image->arch, "packages", packages, "size", (json_int_t)image->size, "bytes",
        (json_int_t)image->bytes, "created", (json_int_t)image->created, "disk", image->disk, "disk_format",
        image->disk_format, "kernel", image->kernel, "initrd", image->initrd, "append", image->append,
        "config", image->config, "layers", layers, "guests", guests);
}

static int print_json(json_t *json, struct error **err)
{
    int rc = 0;

    if (!json || json_dumpf(json, stdout, JSON_INDENT(2)) < 0)
        rc = error_set(err, EIO, "the answer could not be written as JSON");
    putchar('\n');
    json_decref(json);
    return rc;
}

static void print_table(struct image **images, size_t n)
{
    char size[16], bytes[16], created[24];

    printf("%-20s  %-12s  %-13s  %-24s  %6s  %8s  %-16s  %s\n", "NAME", "ID", "KIND", "FROM", "SIZE",
           "ON HOST", "CREATED", "GUESTS");
    for (size_t i = 0; i < n; i++) {
        const struct image *image = images[i];
        printf("%-20s  %-12.*s  %-13s  %-24s  %6s  %8s  %-16s  %zu\n", image->name ? image->name : "-",
               IMAGE_ID_SHORT, image->id, image_kinds(image), image->origin,
               cli_human_size(image->size, size), cli_human_size(image->bytes, bytes),
               local_time(image->created, created), image->n_guests);
    }
}

int cli_image_ls(const struct cli_values *values, int *status, struct error **err)
{
    struct image **images;
    size_t n;
    int rc = image_list(NULL, &images, &n, err);

    if (rc)
        return rc;
    if (cli_bool(values, "json")) {
        json_t *list = json_array();
        for (size_t i = 0; i < n; i++)
            json_array_append_new(list, image_to_json(images[i]));
        rc = print_json(list, err);
    } else if (cli_bool(values, "quiet")) {
        for (size_t i = 0; i < n; i++)
            if (images[i]->name)
                puts(images[i]->name);
    } else if (n) {
        print_table(images, n);
    } else {
        fputs("There are no images; 'tabique image build debian' makes one.\n", stderr);
    }
    image_list_free(images, n);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}

int cli_image_inspect(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_image struct image *image = NULL;
    int rc = image_lookup(NULL, cli_string(values, "IMAGE"), &image, err);

    if (rc == 0)
        rc = print_json(image_to_json(image), err);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}

int cli_image_rm(const struct cli_values *values, int *status, struct error **err)
{
    size_t n;
    const char **names = cli_list(values, "IMAGE", &n);

    for (size_t i = 0; i < n; i++) {
        int rc = image_remove(NULL, names[i], err);
        if (rc)
            return rc;
    }
    *status = 0;
    return 0;
}
