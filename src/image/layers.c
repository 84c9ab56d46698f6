/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Layers of container images in the store: kept once, however many images have them, under the digest of what
 * is in them. As it came (for exports) and unpacked (for containers). Made in a work directory; moved to
 * their place, and deleted, with the store's lock.
 */
#include "image/oci_priv.h"
#include "image/store_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "image/build_priv.h"
#include "image/libarchive.h"
#include "image/unpack_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK (256u << 10)

char *layer_path(const struct store *store, const char *diff, const char *file)
{
    return store_path(store, "layers/%s%s%s", diff, file ? "/" : "", file ? file : "");
}

char *layer_work_path(const struct work *work, const char *diff, const char *file)
{
    char *path;

    return asprintf(&path, "%s/layers/%s%s%s", work->directory, diff, file ? "/" : "", file ? file : "") < 0
               ? NULL
               : path;
}

/* ---- layer.json ---- */

static int write_json(const char *directory, const struct image_layer *layer, struct error **err)
{
    cleanup_free char *path = NULL;
    json_t *json = json_pack("{s:i, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "format", 1, "diff", layer->diff,
                             "digest", layer->digest, "compression", layer->compression, "size",
                             (json_int_t)layer->size, "stream", (json_int_t)layer->stream, "bytes",
                             (json_int_t)layer->bytes, "entries", (json_int_t)layer->entries);
    int rc =
        json && asprintf(&path, "%s/layer.json", directory) >= 0 ? 0 : error_set_errno(err, ENOMEM, "layer");

    errno = EIO;
    if (rc == 0 && json_dump_file(json, path, JSON_INDENT(2)) < 0)
        rc = error_set_errno(err, errno, "%s", path);
    json_decref(json);
    return rc;
}

int layer_read(const char *directory, struct image_layer *out, struct error **err)
{
    cleanup_free char *path = NULL;
    const char *diff, *digest, *compression;
    json_int_t size, stream, bytes, entries;
    json_error_t why;
    int format;

    if (asprintf(&path, "%s/layer.json", directory) < 0)
        return error_set_errno(err, ENOMEM, "layer");
    if (access(path, R_OK) < 0)
        return error_set_errno(err, errno, "%s", path);
    json_t *json = json_load_file(path, 0, &why);
    if (!json)
        return error_set(err, EINVAL, "%s: %s", path, why.text);
    bool ok = json_unpack(json, "{s:i, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "format", &format, "diff", &diff,
                          "digest", &digest, "compression", &compression, "size", &size, "stream", &stream,
                          "bytes", &bytes, "entries", &entries) == 0 &&
              format == 1 && strlen(diff) == IMAGE_ID_LENGTH && strlen(digest) == IMAGE_ID_LENGTH &&
              strlen(compression) < sizeof(out->compression);
    struct image_layer layer = {0};
    if (ok) {
        strcpy(layer.diff, diff);
        strcpy(layer.digest, digest);
        strcpy(layer.compression, compression);
        layer.size = (uint64_t)size;
        layer.stream = (uint64_t)stream;
        layer.bytes = (uint64_t)bytes;
        layer.entries = (uint64_t)entries;
        layer.directory = strdup(directory);
    }
    json_decref(json);
    if (!ok || !layer.directory)
        return error_set(err, ok ? ENOMEM : EINVAL, "%s: not the description of a layer", path);
    *out = layer;
    return 0;
}

static bool is_layer(const char *directory)
{
    cleanup_free char *path = NULL;

    return directory && asprintf(&path, "%s/layer.json", directory) >= 0 && access(path, F_OK) == 0;
}

/* ---- making ---- */

static int make_directory(const struct work *work, const char *diff, char **out, struct error **err)
{
    cleanup_free char *layers = NULL, *directory = layer_work_path(work, diff, NULL);

    if (!directory || asprintf(&layers, "%s/layers", work->directory) < 0)
        return error_set_errno(err, ENOMEM, "layer");
    if ((mkdir(layers, 0700) < 0 && errno != EEXIST) || mkdir(directory, 0700) < 0)
        return error_set_errno(err, errno, "%s", directory);
    *out = steal_ptr(directory);
    return 0;
}

/* What the specification has names for. */
static int tell_compression(int fd, char out[8], struct error **err)
{
    uint8_t head[4] = {0};

    if (pread(fd, head, sizeof(head), 0) < 0)
        return error_set_errno(err, errno, "reading it");
    if (memcmp(head, "BZh", 3) == 0 || memcmp(head,
                                              "\xfd"
                                              "7zX",
                                              4) == 0)
        return error_set(err, EINVAL, "its compression is none that layers have (gzip, zstd)");
    strcpy(out, memcmp(head, "\x1f\x8b", 2) == 0           ? "gzip"
                : memcmp(head, "\x28\xb5\x2f\xfd", 4) == 0 ? "zstd"
                                                           : "");
    return 0;
}

static int copy_blob(int from, int to, uint64_t *size, struct error **err)
{
    cleanup_free uint8_t *buf = malloc(BLOCK);

    *size = 0;
    if (!buf || lseek(from, 0, SEEK_SET) < 0)
        return error_set_errno(err, buf ? errno : ENOMEM, "reading it");
    for (;;) {
        ssize_t n = read(from, buf, BLOCK), done = 0;

        if (n < 0 && errno == EINTR && !interrupted())
            continue;
        if (interrupted())
            return interrupt_error(err);
        if (n < 0)
            return error_set_errno(err, errno, "reading it");
        if (n == 0)
            return 0;
        while (done < n) {
            ssize_t m = write(to, buf + done, (size_t)(n - done));
            if (m < 0 && errno != EINTR)
                return error_set_errno(err, errno, "writing it to the store");
            done += m > 0 ? m : 0;
        }
        *size += (uint64_t)n;
    }
}

static int open_in(const char *directory, const char *name, int flags, struct error **err)
{
    cleanup_free char *path = NULL;

    if (asprintf(&path, "%s/%s", directory, name) < 0)
        return error_set_errno(err, ENOMEM, "layer");
    int fd = open(path, flags | O_CLOEXEC, 0600);
    return fd < 0 ? error_set_errno(err, errno, "%s", path) : fd;
}

static int make_tree(const char *directory, struct error **err)
{
    cleanup_free char *path = NULL;

    if (asprintf(&path, "%s/tree", directory) < 0)
        return error_set_errno(err, ENOMEM, "layer");
    /* As a root directory is, where the layer does not say it. */
    if (mkdir(path, 0755) < 0 || chmod(path, 0755) < 0)
        return error_set_errno(err, errno, "%s", path);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_set_errno(err, errno, "%s", path) : fd;
}

static int check_digests(const struct unpack_result *r, const char *diff, const char *digest,
                         struct error **err)
{
    if (digest[0] && strcmp(r->digest, digest) != 0)
        return error_set(err, EBADMSG, "it is damaged: its digest is %.*s..., and the manifest says %.*s...",
                         IMAGE_ID_SHORT, r->digest, IMAGE_ID_SHORT, digest);
    if (strcmp(r->diff, diff) != 0)
        return error_set(err, EBADMSG, "its content's digest is %.*s..., and the configuration says %.*s...",
                         IMAGE_ID_SHORT, r->diff, IMAGE_ID_SHORT, diff);
    return 0;
}

static int add_to(const char *directory, int in, const char *name, const char *diff, const char *digest,
                  const struct image_progress *progress, struct error **err)
{
    struct image_layer layer = {0};
    struct unpack_result result;
    cleanup_close int blob = open_in(directory, "blob", O_RDWR | O_CREAT | O_EXCL, err);
    int rc = blob < 0 ? blob : copy_blob(in, blob, &layer.size, err);

    if (rc == 0)
        rc = tell_compression(blob, layer.compression, err);
    if (rc)
        return error_wrap(err, "%s", name);
    cleanup_close int tree = make_tree(directory, err);
    if (tree < 0)
        return tree;
    const struct unpack_job job = {.name = name, .in = blob, .root = tree, .layer = true};
    rc = unpack(&job, progress, &result, err);
    if (rc)
        return rc;
    rc = check_digests(&result, diff, digest, err);
    if (rc)
        return error_wrap(err, "%s", name);
    fchmod(blob, 0400);
    strcpy(layer.diff, result.diff);
    strcpy(layer.digest, result.digest);
    layer.stream = result.stream;
    layer.bytes = result.bytes;
    layer.entries = result.entries;
    return write_json(directory, &layer, err);
}

int layer_add(const struct store *store, const struct work *work, int in, const char *name, const char *diff,
              const char *digest, const struct image_progress *progress, struct error **err)
{
    cleanup_free char *there = layer_path(store, diff, NULL), *here = layer_work_path(work, diff, NULL),
                      *made = NULL;

    if (!there || !here)
        return error_set_errno(err, ENOMEM, "layer");
    if (is_layer(there) || is_layer(here))
        return 0;
    int rc = make_directory(work, diff, &made, err);
    return rc ? rc : add_to(made, in, name, diff, digest, progress, err);
}

static int compress_to(int in, int out, struct digest *diff, uint64_t *stream, struct error **err)
{
    const struct libarchive *lib = libarchive(err);
    cleanup_free uint8_t *buf = malloc(BLOCK);
    int rc = 0;

    if (!lib)
        return -ENOPKG;
    struct archive *a = lib->archive_write_new();
    struct archive_entry *entry = lib->archive_entry_new();
    if (!a || !entry || !buf)
        rc = error_set_errno(err, ENOMEM, "layer");
    if (rc == 0) {
        lib->archive_entry_set_filetype(entry, AE_IFREG);
        lib->archive_entry_set_pathname(entry, "layer");
        if (lib->archive_write_add_filter_zstd(a) != ARCHIVE_OK ||
            lib->archive_write_set_format_raw(a) != ARCHIVE_OK ||
            lib->archive_write_open_fd(a, out) != ARCHIVE_OK ||
            lib->archive_write_header(a, entry) != ARCHIVE_OK)
            rc = error_set(err, EIO, "compressing it: %s", lib->archive_error_string(a));
    }
    while (rc == 0) {
        ssize_t n = read(in, buf, BLOCK);

        if (n < 0 && errno == EINTR && !interrupted())
            continue;
        if (interrupted())
            rc = interrupt_error(err);
        else if (n < 0)
            rc = error_set_errno(err, errno, "reading it");
        if (rc || n == 0)
            break;
        digest_add(diff, buf, (size_t)n);
        *stream += (uint64_t)n;
        if (lib->archive_write_data(a, buf, (size_t)n) != n)
            rc = error_set(err, EIO, "compressing it: %s", lib->archive_error_string(a));
    }
    if (rc == 0 && lib->archive_write_close(a) != ARCHIVE_OK)
        rc = error_set(err, EIO, "compressing it: %s", lib->archive_error_string(a));
    if (entry)
        lib->archive_entry_free(entry);
    if (a)
        lib->archive_write_free(a);
    return rc;
}

static int digest_file(int fd, char out[IMAGE_ID_LENGTH + 1], uint64_t *size, struct error **err)
{
    cleanup_digest struct digest d = {0};
    cleanup_free uint8_t *buf = malloc(BLOCK);
    ssize_t n = 0;
    int rc = digest_begin(&d, err);

    if (rc || !buf || lseek(fd, 0, SEEK_SET) < 0)
        return rc ? rc : error_set_errno(err, buf ? errno : ENOMEM, "layer");
    for (*size = 0; (n = read(fd, buf, BLOCK)) > 0; *size += (uint64_t)n)
        digest_add(&d, buf, (size_t)n);
    return n < 0 ? error_set_errno(err, errno, "layer") : digest_end(&d, out, err);
}

int layer_make(const struct work *work, int in, char diff[IMAGE_ID_LENGTH + 1], struct error **err)
{
    struct image_layer layer = {.compression = "zstd"};
    cleanup_digest struct digest d = {0};
    cleanup_free char *directory = NULL, *place = NULL;
    int rc = digest_begin(&d, err);

    if (rc == 0)
        rc = make_directory(work, ".new", &directory, err);
    if (rc)
        return rc;
    cleanup_close int blob = open_in(directory, "blob", O_RDWR | O_CREAT | O_EXCL, err);
    rc = blob < 0 ? blob : compress_to(in, blob, &d, &layer.stream, err);
    if (rc == 0)
        rc = digest_end(&d, layer.diff, err);
    if (rc == 0)
        rc = digest_file(blob, layer.digest, &layer.size, err);
    if (rc == 0)
        rc = write_json(directory, &layer, err);
    if (rc)
        return rc;
    fchmod(blob, 0400);
    place = layer_work_path(work, layer.diff, NULL);
    if (!place || rename(directory, place) < 0)
        return error_set_errno(err, place ? errno : ENOMEM, "%s", directory);
    strcpy(diff, layer.diff);
    return 0;
}

/* ---- unpacking later ---- */

static int unpack_now(const struct store *store, const struct image_layer *layer,
                      const struct image_progress *progress, struct error **err)
{
    cleanup_work struct work work = WORK_NONE;
    cleanup_free char *from = NULL, *to = layer_path(store, layer->diff, "tree");
    struct unpack_result result;
    int rc = work_begin(store, &work, err);

    if (rc)
        return rc;
    cleanup_close int blob = open_in(layer->directory, "blob", O_RDONLY, err);
    cleanup_close int tree = blob < 0 ? -1 : make_tree(work.directory, err);
    if (blob < 0 || tree < 0)
        return blob < 0 ? blob : tree;
    const struct unpack_job job = {.name = layer->diff, .in = blob, .root = tree, .layer = true};
    rc = unpack(&job, progress, &result, err);
    if (rc == 0)
        rc = check_digests(&result, layer->diff, layer->digest, err);
    if (rc)
        return rc;
    cleanup_close int lock = store_lock(store, err);
    if (lock < 0)
        return lock;
    if (!to || asprintf(&from, "%s/tree", work.directory) < 0)
        return error_set_errno(err, ENOMEM, "layer");
    syncfs(tree);
    /* Somebody else may have been as quick. */
    return access(to, F_OK) == 0 || rename(from, to) == 0 ? 0 : error_set_errno(err, errno, "%s", to);
}

int image_unpack(const char *home, const struct image *image, const struct image_progress *progress,
                 struct error **err)
{
    cleanup_store struct store store = {0};
    int rc = store_open(home, &store, err);

    if (rc)
        return rc;
    interrupt_begin();
    for (size_t i = 0; rc == 0 && i < image->n_layers; i++) {
        cleanup_free char *tree = image_layer_tree(&image->layers[i]);

        if (!tree)
            rc = error_set_errno(err, ENOMEM, "layer");
        else if (access(tree, F_OK) < 0)
            rc = unpack_now(&store, &image->layers[i], progress, err);
    }
    interrupt_end();
    return rc;
}

char *image_layer_tree(const struct image_layer *layer)
{
    char *path;

    return asprintf(&path, "%s/tree", layer->directory) < 0 ? NULL : path;
}

/* ---- their place ---- */

int layers_commit_locked(const struct store *store, const struct work *work, const struct image *image,
                         struct error **err)
{
    for (size_t i = 0; i < image->n_layers; i++) {
        const char *diff = image->layers[i].diff;
        cleanup_free char *from = layer_work_path(work, diff, NULL), *to = layer_path(store, diff, NULL);

        if (!from || !to)
            return error_set_errno(err, ENOMEM, "layer");
        if (is_layer(to))
            continue;
        if (!is_layer(from))
            return -EAGAIN;
        if (rename(from, to) < 0)
            return error_set_errno(err, errno, "%s", to);
    }
    return 0;
}

static bool is_needed(json_t *needed, const char *diff)
{
    return json_object_get(needed, diff) != NULL;
}

/* Of all contents, as keys. NULL if it can't be known. */
static json_t *find_needed(const struct store *store)
{
    cleanup_free char *path = store_path(store, "content");
    DIR *dir = path ? opendir(path) : NULL;
    json_t *needed = dir ? json_object() : NULL;

    for (struct dirent *e; needed && (e = readdir(dir));) {
        struct image *image = calloc(1, sizeof(*image));
        cleanup_free char *directory = store_path(store, "content/%s", e->d_name);

        if (e->d_name[0] == '.') {
            free(image);
            continue;
        }
        int rc = image && directory ? metadata_read(directory, image, NULL, NULL) : -ENOMEM;
        for (size_t i = 0; rc == 0 && i < image->n_layers; i++)
            json_object_set_new(needed, image->layers[i].diff, json_true());
        image_free(image);
        /* What can't be read may need any of them. */
        if (rc && rc != -ENOENT) {
            json_decref(needed);
            needed = NULL;
        }
    }
    if (dir)
        closedir(dir);
    return needed;
}

void layers_collect_locked(const struct store *store)
{
    cleanup_free char *path = store_path(store, "layers");
    DIR *dir = path ? opendir(path) : NULL;
    json_t *needed = dir ? find_needed(store) : NULL;

    for (struct dirent *e; needed && (e = readdir(dir));) {
        cleanup_free char *from = layer_path(store, e->d_name, NULL),
                          *to = store_path(store, "work/%s", e->d_name);

        if (e->d_name[0] != '.' && from && to && !is_needed(needed, e->d_name) && rename(from, to) == 0)
            work_delete_tree(to);
    }
    json_decref(needed);
    if (dir)
        closedir(dir);
}
