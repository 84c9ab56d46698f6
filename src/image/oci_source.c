/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds an image in a directory that is an OCI image layout or what `docker save` made: index, manifest,
 * configuration, each checked against the digest by which it was named. Nothing outside of the directory is
 * read. No state.
 */
#include "image/oci_priv.h"
#include "image/store_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

int oci_source_open(int directory, const char *path, struct error **err)
{
    const struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC,
                                 .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    struct stat st;
    cleanup_close int fd = (int)syscall(SYS_openat2, directory, path, &how, sizeof(how));

    if (fd < 0 && errno == EXDEV)
        return error_set(err, EINVAL, "'%s' leads out of it", path);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "'%s'", path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "'%s' is no regular file", path);
    return steal_fd(fd);
}

static int read_whole(int fd, char **out, size_t *len_out, struct error **err)
{
    struct stat st;
    size_t len = 0;

    if (fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "reading it");
    if (st.st_size > OCI_DOCUMENT_MAX)
        return error_set(err, EFBIG, "it is larger than any such document may be (%u MiB)",
                         OCI_DOCUMENT_MAX >> 20);
    cleanup_free char *text = malloc((size_t)st.st_size + 1);
    if (!text)
        return error_set_errno(err, ENOMEM, "reading it");
    while (len < (size_t)st.st_size) {
        ssize_t n = read(fd, text + len, (size_t)st.st_size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, "reading it");
        if (n == 0)
            break;
        len += (size_t)n;
    }
    text[len] = '\0';
    *out = steal_ptr(text);
    *len_out = len;
    return 0;
}

static int read_document(int directory, const char *path, char **out, size_t *len, struct error **err)
{
    cleanup_close int fd = oci_source_open(directory, path, err);

    if (fd < 0)
        return fd;
    int rc = read_whole(fd, out, len, err);
    return rc ? error_wrap(err, "'%s'", path) : 0;
}

static int digest_of(const char *text, size_t len, char out[IMAGE_ID_LENGTH + 1], struct error **err)
{
    cleanup_digest struct digest d = {0};
    int rc = digest_begin(&d, err);

    if (rc)
        return rc;
    digest_add(&d, text, len);
    return digest_end(&d, out, err);
}

/* A document that its digest names. */
static int read_blob(int directory, const struct oci_descriptor *descriptor, char **out, size_t *len,
                     struct error **err)
{
    char path[IMAGE_ID_LENGTH + 16], digest[IMAGE_ID_LENGTH + 1];
    cleanup_free char *text = NULL;

    snprintf(path, sizeof(path), "blobs/sha256/%s", descriptor->digest);
    int rc = read_document(directory, path, &text, len, err);
    if (rc == 0)
        rc = digest_of(text, *len, digest, err);
    if (rc)
        return rc;
    if ((int64_t)*len != descriptor->size || strcmp(digest, descriptor->digest) != 0)
        return error_set(err, EBADMSG,
                         "'%s' is damaged: its content has the digest %.*s... and %zu bytes, not %" PRId64,
                         path, IMAGE_ID_SHORT, digest, *len, descriptor->size);
    *out = steal_ptr(text);
    return 0;
}

static int keep_reference(struct oci_image *image, const char *reference, struct error **err)
{
    if (!reference)
        return 0;
    free(image->reference);
    image->reference = strdup(reference);
    return image->reference ? 0 : error_set_errno(err, ENOMEM, "reading it");
}

/* From an index, through those that it names, to a manifest. */
static int find_manifest(int directory, const char *index, size_t index_len, const char *tag,
                         const char *arch, struct oci_descriptor *out, struct oci_image *image,
                         struct error **err)
{
    cleanup_free char *text = NULL;
    size_t len = index_len;

    for (int depth = 0;; depth++) {
        const char *reference = NULL;
        json_t *json = oci_json_load(text ? text : index, len, err);
        int rc = json ? 0 : error_wrap(err, "its index");

        if (rc == 0)
            rc = oci_index_choose(json, tag, arch, out, &reference, err);
        if (rc == 0)
            rc = keep_reference(image, reference, err);
        json_decref(json);
        if (rc || !out->is_index)
            return rc;
        if (depth == OCI_DEPTH_MAX)
            return error_set(err, ELOOP, "its indexes lie in each other too deep");
        free(steal_ptr(text));
        rc = read_blob(directory, out, &text, &len, err);
        if (rc)
            return rc;
        tag = NULL; /* has been followed */
    }
}

static int read_layout(int directory, const char *index, size_t index_len, const char *tag, const char *arch,
                       struct oci_image *image, struct error **err)
{
    struct oci_descriptor descriptor, config;
    cleanup_free char *text = NULL;
    size_t len;
    int rc = find_manifest(directory, index, index_len, tag, arch, &descriptor, image, err);

    if (rc == 0)
        rc = read_blob(directory, &descriptor, &text, &len, err);
    if (rc)
        return rc;
    json_t *json = oci_json_load(text, len, err);
    rc = json ? oci_manifest_parse(json, &config, image, err) : error_wrap(err, "its manifest");
    json_decref(json);
    if (rc == 0)
        rc = read_blob(directory, &config, &image->config, &image->config_len, err);
    if (rc == 0)
        strcpy(image->id, config.digest);
    return rc;
}

static int read_docker(int directory, const char *text, size_t len, const char *tag, struct oci_image *image,
                       struct error **err)
{
    json_t *json = oci_json_load(text, len, err);
    cleanup_free char *path = NULL;
    int rc = json ? oci_docker_choose(json, tag, image, &path, err) : error_wrap(err, "its manifest.json");

    json_decref(json);
    if (rc == 0)
        rc = read_document(directory, path, &image->config, &image->config_len, err);
    return rc ? rc : digest_of(image->config, image->config_len, image->id, err);
}

int oci_source_read(int directory, const char *tag, const char *arch, struct oci_image *out,
                    struct error **err)
{
    struct oci_image image = {0};
    cleanup_free char *text = NULL;
    size_t len;
    bool layout = faccessat(directory, "index.json", F_OK, 0) == 0;
    int rc;

    if (!layout && faccessat(directory, "manifest.json", F_OK, 0) < 0)
        return error_set(
            err, EINVAL,
            "it is no image: there is neither index.json (an OCI image layout) nor manifest.json (what "
            "'docker save' makes)");
    rc = read_document(directory, layout ? "index.json" : "manifest.json", &text, &len, err);
    if (rc == 0)
        rc = layout ? read_layout(directory, text, len, tag, arch, &image, err)
                    : read_docker(directory, text, len, tag, &image, err);
    if (rc == 0)
        rc = oci_config_check(&image, arch, err);
    if (rc) {
        oci_image_clear(&image);
        return rc;
    }
    *out = image;
    return 0;
}
