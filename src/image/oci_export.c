/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes a container image for others: as an OCI image layout (a directory, or a tar archive of one) or in
 * the form of `docker save`. Blobs go out as they came in, so their digests stay; docker's form has layers
 * uncompressed. What is not finished is taken away again. Called by the command line.
 */
#include "image/build_priv.h"
#include "image/libarchive.h"
#include "image/oci_priv.h"
#include "image/store_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK (256u << 10)

struct export
{
    const struct image *image;
    const struct oci_place *place;
    const struct image_progress *progress;
    const char *tag;
    const struct libarchive *lib;
    struct archive *tar; /* NULL for a directory */
    int directory;       /* of a layout; -1 for an archive */
    uint8_t *buf;
    uint64_t done, all; /* bytes */
    char config_digest[IMAGE_ID_LENGTH + 1];
    size_t config_size;
};

/* ---- files of either ---- */

struct source {
    int fd;            /* a blob as it is ... */
    struct archive *a; /* ... or what is in it */
    const char *text;  /* ... or a text */
    size_t at, len;
};

static ssize_t read_some(const struct export *e, struct source *s)
{
    if (s->a)
        return s->at = 0, e->lib->archive_read_data(s->a, e->buf, BLOCK);
    if (s->text) {
        size_t n = s->len - s->at < BLOCK ? s->len - s->at : BLOCK;
        memcpy(e->buf, s->text + s->at, n);
        s->at += n;
        return (ssize_t)n;
    }
    for (;;) {
        ssize_t n = read(s->fd, e->buf, BLOCK);
        if (n >= 0 || errno != EINTR || interrupted())
            return n;
    }
}

static int begin_file(struct export *e, const char *name, uint64_t size, int *fd, struct error **err)
{
    if (!e->tar) {
        *fd = openat(e->directory, ".export", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
        return *fd < 0 ? error_set_errno(err, errno, "writing '%s'", name) : 0;
    }
    struct archive_entry *entry = e->lib->archive_entry_new();
    if (!entry)
        return error_set_errno(err, ENOMEM, "image export");
    e->lib->archive_entry_set_pathname(entry, name);
    e->lib->archive_entry_set_filetype(entry, AE_IFREG);
    e->lib->archive_entry_set_perm(entry, 0644);
    e->lib->archive_entry_set_size(entry, (la_int64_t)size);
    e->lib->archive_entry_set_mtime(entry, e->image->created, 0);
    int rc = e->lib->archive_write_header(e->tar, entry);
    e->lib->archive_entry_free(entry);
    return rc == ARCHIVE_OK
               ? 0
               : error_set(err, EIO, "writing '%s': %s", name, e->lib->archive_error_string(e->tar));
}

static int write_some(struct export *e, const char *name, int fd, size_t len, struct error **err)
{
    if (e->tar)
        return e->lib->archive_write_data(e->tar, e->buf, len) == (la_ssize_t)len
                   ? 0
                   : error_set(err, EIO, "writing '%s': %s", name, e->lib->archive_error_string(e->tar));
    for (size_t done = 0; done < len;) {
        ssize_t n = write(fd, e->buf + done, len - done);
        if (n < 0 && errno != EINTR)
            return error_set_errno(err, errno, "writing '%s'", name);
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int add_file(struct export *e, const char *name, uint64_t size, struct source *source,
                    struct error **err)
{
    cleanup_close int fd = -1;
    uint64_t done = 0;
    int rc = begin_file(e, name, size, &fd, err);

    while (rc == 0) {
        ssize_t n = read_some(e, source);

        if (interrupted())
            return interrupt_error(err);
        if (n < 0)
            return error_set(err, EIO, "reading what is to be '%s': %s", name,
                             source->a ? e->lib->archive_error_string(source->a) : strerror(errno));
        if (n == 0)
            break;
        rc = write_some(e, name, fd, (size_t)n, err);
        done += (uint64_t)n;
        e->done += (uint64_t)n;
        if (e->progress && e->all)
            e->progress->report(e->progress->opaque, "exporting",
                                e->done < e->all ? (double)e->done / (double)e->all : 1);
    }
    if (rc == 0 && done != size)
        return error_set(err, EBADMSG, "'%s' has %llu bytes in the store, and not %llu", name,
                         (unsigned long long)done, (unsigned long long)size);
    if (rc == 0 && !e->tar && (fsync(fd) < 0 || renameat(e->directory, ".export", e->directory, name) < 0))
        return error_set_errno(err, errno, "writing '%s'", name);
    return rc;
}

static int add_text(struct export *e, const char *name, const char *text, size_t len, struct error **err)
{
    struct source source = {.fd = -1, .text = text, .len = len};

    return add_file(e, name, len, &source, err);
}

/* Named by its digest. */
static int add_blob_text(struct export *e, const char *text, size_t len, char digest[IMAGE_ID_LENGTH + 1],
                         struct error **err)
{
    char name[IMAGE_ID_LENGTH + 16];
    cleanup_digest struct digest d = {0};
    int rc = digest_begin(&d, err);

    if (rc)
        return rc;
    digest_add(&d, text, len);
    rc = digest_end(&d, digest, err);
    snprintf(name, sizeof(name), "blobs/sha256/%s", digest);
    return rc ? rc : add_text(e, name, text, len, err);
}

static int open_blob(const struct image_layer *layer, struct error **err)
{
    cleanup_free char *path = NULL;

    if (asprintf(&path, "%s/blob", layer->directory) < 0)
        return error_set_errno(err, ENOMEM, "image export");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? error_set_errno(err, errno, "%s", path) : fd;
}

static int read_config(struct export *e, char **text, struct error **err)
{
    cleanup_fclose FILE *f = fopen(e->image->config, "re");
    struct stat st;

    if (!f || fstat(fileno(f), &st) < 0)
        return error_set_errno(err, errno, "%s", e->image->config);
    e->config_size = (size_t)st.st_size;
    *text = malloc(e->config_size + 1);
    if (!*text || fread(*text, 1, e->config_size, f) != e->config_size)
        return error_set_errno(err, *text ? EIO : ENOMEM, "%s", e->image->config);
    return 0;
}

/* ---- the OCI image layout ---- */

static json_t *descriptor_json(const char *type, const char *digest, uint64_t size)
{
    char text[IMAGE_ID_LENGTH + 8];

    snprintf(text, sizeof(text), "sha256:%s", digest);
    return json_pack("{s:s, s:s, s:I}", "mediaType", type, "digest", text, "size", (json_int_t)size);
}

static json_t *manifest_json(const struct export *e)
{
    json_t *layers = json_array();

    for (size_t i = 0; i < e->image->n_layers; i++) {
        const struct image_layer *layer = &e->image->layers[i];
        char type[64];

        snprintf(type, sizeof(type), OCI_LAYER "%s%s", layer->compression[0] ? "+" : "", layer->compression);
        json_array_append_new(layers, descriptor_json(type, layer->digest, layer->size));
    }
    return json_pack("{s:i, s:s, s:o, s:o}", "schemaVersion", 2, "mediaType", OCI_MANIFEST, "config",
                     descriptor_json(OCI_CONFIG, e->config_digest, e->config_size), "layers", layers);
}

/* What other images the layout has. NULL for none, or with *err. */
static json_t *other_manifests(const struct export *e, struct error **err)
{
    json_t *list = json_array();

    if (e->tar || faccessat(e->directory, "index.json", F_OK, 0) < 0)
        return list;
    cleanup_close int fd = oci_source_open(e->directory, "index.json", err);
    json_t *index = fd < 0 ? NULL : json_loadfd(fd, 0, NULL);
    const json_t *theirs = json_object_get(index, "manifests"), *entry;
    size_t i;
    json_array_foreach((json_t *)(uintptr_t)theirs, i, entry)
    {
        const char *name =
            json_string_value(json_object_get(json_object_get(entry, "annotations"), OCI_REFERENCE_NAME));
        if (!name || strcmp(name, e->tag) != 0)
            json_array_append(list, (json_t *)(uintptr_t)entry);
    }
    if (fd >= 0 && !json_is_array(theirs))
        error_set(err, EINVAL, "its index.json can't be read");
    json_decref(index);
    return list;
}

static int add_index(struct export *e, const char *digest, size_t size, struct error **err)
{
    struct error *why = NULL;
    json_t *list = other_manifests(e, &why), *own = descriptor_json(OCI_MANIFEST, digest, size);

    json_object_set_new(own, "platform",
                        json_pack("{s:s, s:s}", "architecture", e->image->arch, "os", "linux"));
    json_object_set_new(own, "annotations", json_pack("{s:s}", OCI_REFERENCE_NAME, e->tag));
    json_array_append_new(list, own);
    json_t *index =
        json_pack("{s:i, s:s, s:o}", "schemaVersion", 2, "mediaType", OCI_INDEX, "manifests", list);
    cleanup_free char *text = index ? json_dumps(index, JSON_COMPACT) : NULL;
    json_decref(index);
    if (why) {
        int rc = error_set(err, error_errno(why), "%s", error_message(why));
        error_free(why);
        return rc;
    }
    return text ? add_text(e, "index.json", text, strlen(text), err)
                : error_set_errno(err, ENOMEM, "image export");
}

static int write_layout(struct export *e, const char *config, struct error **err)
{
    static const char version[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
    char digest[IMAGE_ID_LENGTH + 1];
    int rc = add_text(e, "oci-layout", version, strlen(version), err);

    if (rc == 0)
        rc = add_blob_text(e, config, e->config_size, e->config_digest, err);
    for (size_t i = 0; rc == 0 && i < e->image->n_layers; i++) {
        const struct image_layer *layer = &e->image->layers[i];
        char name[IMAGE_ID_LENGTH + 16];
        bool again = false;

        for (size_t j = 0; j < i; j++)
            again |= strcmp(layer->digest, e->image->layers[j].digest) == 0;
        if (again)
            continue;
        cleanup_close int fd = open_blob(layer, err);
        struct source source = {.fd = fd};
        snprintf(name, sizeof(name), "blobs/sha256/%s", layer->digest);
        rc = fd < 0 ? fd : add_file(e, name, layer->size, &source, err);
    }
    if (rc)
        return rc;
    json_t *json = manifest_json(e);
    cleanup_free char *manifest = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (!manifest)
        return error_set_errno(err, ENOMEM, "image export");
    rc = add_blob_text(e, manifest, strlen(manifest), digest, err);
    return rc ? rc : add_index(e, digest, strlen(manifest), err);
}

/* ---- docker's form ---- */

static int add_plain_layer(struct export *e, const struct image_layer *layer, struct error **err)
{
    char name[IMAGE_ID_LENGTH + 8];
    struct archive_entry *entry;
    cleanup_close int fd = open_blob(layer, err);
    struct source source = {.fd = fd};
    int rc = fd < 0 ? fd : 0;

    snprintf(name, sizeof(name), "%s.tar", layer->diff);
    if (rc == 0 && layer->compression[0]) {
        source.a = e->lib->archive_read_new();
        if (!source.a)
            return error_set_errno(err, ENOMEM, "image export");
        e->lib->archive_read_support_filter_gzip(source.a);
        e->lib->archive_read_support_filter_zstd(source.a);
        e->lib->archive_read_support_format_raw(source.a);
        if (e->lib->archive_read_open_fd(source.a, fd, BLOCK) != ARCHIVE_OK ||
            e->lib->archive_read_next_header(source.a, &entry) != ARCHIVE_OK)
            rc = error_set(err, EIO, "decompressing a layer: %s", e->lib->archive_error_string(source.a));
    }
    if (rc == 0)
        rc = add_file(e, name, layer->stream, &source, err);
    if (source.a)
        e->lib->archive_read_free(source.a);
    return rc;
}

static int write_docker(struct export *e, const char *config, struct error **err)
{
    char name[IMAGE_ID_LENGTH + 8], layer[IMAGE_ID_LENGTH + 8];
    json_t *layers = json_array();
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < e->image->n_layers; i++) {
        bool again = false;

        for (size_t j = 0; j < i; j++)
            again |= strcmp(e->image->layers[i].diff, e->image->layers[j].diff) == 0;
        if (!again)
            rc = add_plain_layer(e, &e->image->layers[i], err);
        snprintf(layer, sizeof(layer), "%s.tar", e->image->layers[i].diff);
        json_array_append_new(layers, json_string(layer));
    }
    snprintf(name, sizeof(name), "%s.json", e->image->id);
    if (rc == 0)
        rc = add_text(e, name, config, e->config_size, err);
    json_t *json = json_pack("[{s:s, s:[s], s:o}]", "Config", name, "RepoTags", e->tag, "Layers", layers);
    cleanup_free char *manifest = json ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (rc == 0 && !manifest)
        rc = error_set_errno(err, ENOMEM, "image export");
    return rc ? rc : add_text(e, "manifest.json", manifest, strlen(manifest), err);
}

/* ---- places ---- */

static bool is_empty(const char *path)
{
    DIR *dir = opendir(path);
    bool empty = true;

    for (struct dirent *d; dir && (d = readdir(dir));)
        empty &= strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0;
    if (dir)
        closedir(dir);
    return empty;
}

static int export_directory(struct export *e, const char *config, struct error **err)
{
    const char *path = e->place->path;
    cleanup_free char *layout = NULL;

    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "%s", path);
    if (asprintf(&layout, "%s/oci-layout", path) < 0)
        return error_set_errno(err, ENOMEM, "image export");
    if (access(layout, F_OK) < 0 && !is_empty(path))
        return error_set(err, ENOTEMPTY,
                         "%s is neither empty nor an OCI image layout: choose another directory", path);
    cleanup_close int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0 || (mkdirat(directory, "blobs", 0755) < 0 && errno != EEXIST) ||
        (mkdirat(directory, "blobs/sha256", 0755) < 0 && errno != EEXIST))
        return error_set_errno(err, errno, "%s", path);
    e->directory = directory;
    int rc = write_layout(e, config, err);
    unlinkat(directory, ".export", 0);
    return rc ? error_wrap(err, "%s", path) : 0;
}

static int export_archive(struct export *e, const char *config, struct error **err)
{
    const char *path = e->place->path;
    cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);

    if (fd < 0 && errno == EEXIST)
        return error_set(err, EEXIST, "%s is there already: remove it, or choose another file", path);
    if (fd < 0)
        return error_set_errno(err, errno, "%s", path);
    e->tar = e->lib->archive_write_new();
    int rc = e->tar ? 0 : error_set_errno(err, ENOMEM, "image export");
    if (rc == 0 && (e->lib->archive_write_set_format_pax_restricted(e->tar) != ARCHIVE_OK ||
                    e->lib->archive_write_open_fd(e->tar, fd) != ARCHIVE_OK))
        rc = error_set(err, EIO, "%s", e->lib->archive_error_string(e->tar));
    if (rc == 0)
        rc = e->place->form == OCI_ARCHIVE ? write_layout(e, config, err) : write_docker(e, config, err);
    if (rc == 0 && e->lib->archive_write_close(e->tar) != ARCHIVE_OK)
        rc = error_set(err, EIO, "%s", e->lib->archive_error_string(e->tar));
    if (rc == 0 && fsync(fd) < 0)
        rc = error_set_errno(err, errno, "writing it");
    if (e->tar)
        e->lib->archive_write_free(e->tar);
    if (rc)
        unlink(path);
    return rc ? error_wrap(err, "%s", path) : 0;
}

static int export_image(const struct image *image, const char *name, const struct oci_place *place,
                        const struct image_progress *progress, struct error **err)
{
    struct export e = {
        .image = image, .place = place, .progress = progress, .directory = -1, .lib = libarchive(err)};
    cleanup_free char *config = NULL, *tag = NULL;
    cleanup_free uint8_t *buf = malloc(BLOCK);
    bool docker = place->form == OCI_DOCKER_ARCHIVE;

    if (!e.lib)
        return -ENOPKG;
    if (!image->n_layers)
        return error_set(
            err, EINVAL,
            "image '%s' is a disk for virtual machines: only container images are exported; its disk is %s",
            name, image->disk);
    const char *own = image->name ? image->name : name;
    /* docker wants a name and a tag, a layout either. */
    if (asprintf(&tag, "%s%s", place->tag ? place->tag : own,
                 docker && !(place->tag && strchr(place->tag, ':')) ? ":latest" : "") < 0 ||
        !buf)
        return error_set_errno(err, ENOMEM, "image export");
    e.tag = tag;
    e.buf = buf;
    for (size_t i = 0; i < image->n_layers; i++)
        e.all += docker ? image->layers[i].stream : image->layers[i].size;
    int rc = read_config(&e, &config, err);
    if (rc)
        return rc;
    return place->form == OCI_DIRECTORY ? export_directory(&e, config, err) : export_archive(&e, config, err);
}

int image_export(const char *home, const char *name, const char *target,
                 const struct image_progress *progress, struct error **err)
{
    cleanup_image struct image *image = NULL;
    struct oci_place place = {0};
    int rc = oci_place_parse(target, &place);

    if (rc == 0)
        rc = error_set(err, EINVAL,
                       "'%s' does not say in which form: oci:DIR[:TAG], oci-archive:FILE[:TAG] or "
                       "docker-archive:FILE[:NAME]",
                       target);
    else if (rc < 0)
        rc = error_set_errno(err, ENOMEM, "image export");
    else
        rc = image_lookup(home, name, &image, err);
    if (rc == 0) {
        interrupt_begin();
        rc = export_image(image, name, &place, progress, err);
        interrupt_end();
    }
    oci_place_clear(&place);
    return rc;
}
