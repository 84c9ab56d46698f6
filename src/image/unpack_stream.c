/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A compressed archive as a stream: its bytes are digested as they are read, decompressed, digested again as
 * the tar stream that they are, and only then understood as files. Two archives of libarchive stand one
 * behind the other. Called by unpack.c in the confined process. No locks.
 */
#include "image/unpack_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK (256u << 10)
/* What honest layers don't reach: the best that deflate can do is 1032, and of files some ten. */
#define PROPORTION  200u
#define ALWAYS_FINE (1ull << 30)

struct stream {
    const struct libarchive *lib;
    const struct unpack_job *job;
    struct archive *outer, *inner;
    struct digest blob, diff;
    uint8_t *packed, *plain;
    uint64_t size, done, produced, most;
    bool ended;            /* of the file */
    struct error *failure; /* in one of the callbacks, which can't tell it themselves */
    void (*progress)(void *opaque, double fraction);
    void *opaque;
};

static la_ssize_t read_blob(struct archive *a, void *opaque, const void **buffer)
{
    struct stream *s = opaque;
    ssize_t n;

    do
        n = read(s->job->in, s->packed, BLOCK);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        error_set_errno(&s->failure, errno, "reading it");
        return ARCHIVE_FATAL;
    }
    s->ended = n == 0;
    digest_add(&s->blob, s->packed, (size_t)n);
    s->done += (uint64_t)n;
    if (s->progress && s->size)
        s->progress(s->opaque, (double)s->done / (double)s->size);
    *buffer = s->packed;
    return n;
}

static la_ssize_t read_tar(struct archive *a, void *opaque, const void **buffer)
{
    struct stream *s = opaque;
    la_ssize_t n = s->lib->archive_read_data(s->outer, s->plain, BLOCK);

    if (s->failure)
        return ARCHIVE_FATAL;
    if (n < 0) {
        error_set(&s->failure, EINVAL, "decompressing it: %s", s->lib->archive_error_string(s->outer));
        return ARCHIVE_FATAL;
    }
    digest_add(&s->diff, s->plain, (size_t)n);
    s->produced += (uint64_t)n;
    if (s->produced > s->most) {
        error_set(&s->failure, EFBIG,
                  "it unpacks to more than %" PRIu64
                  " MiB, out of proportion to its size: this looks like a bomb",
                  s->most >> 20);
        return ARCHIVE_FATAL;
    }
    *buffer = s->plain;
    return n;
}

static int archive_failure(struct stream *s, struct archive *a, struct error **err)
{
    const char *text = s->lib->archive_error_string(a);

    if (s->failure) {
        int rc = error_set(err, error_errno(s->failure), "%s", error_message(s->failure));
        error_free(steal_ptr(s->failure));
        return rc;
    }
    return error_set(err, EINVAL, "it is no tar archive, or damaged: %s", text ? text : "no reason is known");
}

static int open_archives(struct stream *s, struct error **err)
{
    const struct libarchive *lib = s->lib;
    struct archive_entry *entry;

    lib->archive_read_support_filter_gzip(s->outer);
    lib->archive_read_support_filter_bzip2(s->outer);
    lib->archive_read_support_filter_xz(s->outer);
    lib->archive_read_support_filter_zstd(s->outer);
    lib->archive_read_support_format_raw(s->outer);
    lib->archive_read_support_format_tar(s->inner);
    if (lib->archive_read_open(s->outer, s, NULL, read_blob, NULL) != ARCHIVE_OK ||
        lib->archive_read_next_header(s->outer, &entry) != ARCHIVE_OK)
        return archive_failure(s, s->outer, err);
    if (lib->archive_read_open(s->inner, s, NULL, read_tar, NULL) != ARCHIVE_OK)
        return archive_failure(s, s->inner, err);
    return 0;
}

static int read_entries(struct stream *s, struct unpack_tree *tree, struct error **err)
{
    struct archive_entry *entry;

    for (;;) {
        int rc = s->lib->archive_read_next_header(s->inner, &entry);

        if (rc == ARCHIVE_EOF)
            return 0;
        if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
            return archive_failure(s, s->inner, err);
        rc = unpack_tree_add(tree, s->lib, s->inner, entry, err);
        /* The reason may lie below. */
        if (rc && s->failure) {
            if (err)
                error_free(steal_ptr(*err));
            return archive_failure(s, s->inner, err);
        }
        if (rc)
            return rc;
    }
}

/* What is behind the end of the files belongs to the digests too. */
static int read_rest(struct stream *s, struct error **err)
{
    const void *buffer;
    la_ssize_t n;

    while ((n = read_tar(s->inner, s, &buffer)) > 0)
        ;
    while (n == 0 && !s->ended)
        n = read_blob(s->outer, s, &buffer) < 0 ? ARCHIVE_FATAL : 0;
    return n < 0 ? archive_failure(s, s->outer, err) : 0;
}

static int run(struct stream *s, struct unpack_result *out, struct error **err)
{
    struct unpack_tree *tree = NULL;
    struct stat st;

    if (fstat(s->job->in, &st) < 0 || lseek(s->job->in, 0, SEEK_SET) < 0)
        return error_set_errno(err, errno, "reading it");
    s->size = (uint64_t)st.st_size;
    uint64_t proportion = s->size < UINT64_MAX / PROPORTION ? s->size * PROPORTION : UINT64_MAX;
    s->most = s->job->most ? s->job->most : proportion < ALWAYS_FINE ? ALWAYS_FINE : proportion;
    int rc = unpack_tree_begin(&tree, s->job, s->most, err);
    if (rc == 0)
        rc = open_archives(s, err);
    if (rc == 0)
        rc = read_entries(s, tree, err);
    if (rc == 0)
        rc = read_rest(s, err);
    if (rc == 0)
        rc = unpack_tree_end(tree, out, err);
    unpack_tree_free(tree);
    if (rc == 0)
        rc = digest_end(&s->blob, out->digest, err);
    if (rc == 0)
        rc = digest_end(&s->diff, out->diff, err);
    out->stream = s->produced;
    return rc;
}

int unpack_stream(const struct unpack_job *job, void (*progress)(void *opaque, double fraction), void *opaque,
                  struct unpack_result *out, struct error **err)
{
    struct stream s = {.lib = libarchive(err), .job = job, .progress = progress, .opaque = opaque};

    if (!s.lib)
        return -ENOPKG;
    *out = (struct unpack_result){0};
    s.outer = s.lib->archive_read_new();
    s.inner = s.lib->archive_read_new();
    s.packed = malloc(BLOCK);
    s.plain = malloc(BLOCK);
    int rc = s.outer && s.inner && s.packed && s.plain ? 0 : error_set_errno(err, ENOMEM, "unpacking");
    if (rc == 0)
        rc = digest_begin(&s.blob, err);
    if (rc == 0)
        rc = digest_begin(&s.diff, err);
    if (rc == 0)
        rc = run(&s, out, err);
    /* The inner one reads from the outer one to its last moment. */
    if (s.inner)
        s.lib->archive_read_free(s.inner);
    if (s.outer)
        s.lib->archive_read_free(s.outer);
    digest_free(&s.blob);
    digest_free(&s.diff);
    error_free(s.failure);
    free(s.packed);
    free(s.plain);
    return rc;
}
