/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The id of an image's content. The disk counts block by block where it is not zero, so that how sparse a
 * file is makes no difference and its holes take no time. No locks.
 */
#include "image/store_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "host/libcrypto.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK 65536

int digest_begin(struct digest *d, struct error **err)
{
    d->lib = libcrypto(err);
    if (!d->lib)
        return -ENOPKG;
    d->context = d->lib->EVP_MD_CTX_new();
    if (!d->context || !d->lib->EVP_DigestInit_ex(d->context, d->lib->EVP_sha256(), NULL))
        return error_set(err, ENOMEM, "SHA-256 is not to be had");
    return 0;
}

void digest_free(struct digest *d)
{
    if (d->context)
        d->lib->EVP_MD_CTX_free(d->context);
}

void digest_add(struct digest *d, const void *bytes, size_t len)
{
    d->lib->EVP_DigestUpdate(d->context, bytes, len);
}

int digest_end(struct digest *d, char out[IMAGE_ID_LENGTH + 1], struct error **err)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;

    if (!d->lib->EVP_DigestFinal_ex(d->context, digest, &len) || len != IMAGE_ID_LENGTH / 2)
        return error_set(err, EIO, "SHA-256 failed");
    for (unsigned i = 0; i < len; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
    return 0;
}

static void add_text(struct digest *d, const char *text)
{
    /* With its final zero, which separates it from what follows. */
    digest_add(d, text ? text : "", text ? strlen(text) + 1 : 1);
}

static void add_number(struct digest *d, uint64_t n)
{
    uint8_t bytes[8];

    put_le64(bytes, n);
    digest_add(d, bytes, sizeof(bytes));
}

static bool is_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* Reads `len` bytes, or to the end of the file. The number read, or -errno. */
static ssize_t read_block(int fd, uint8_t *buf, size_t len, off_t offset)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(fd, buf + done, len - done, offset + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static int add_file(struct digest *d, const char *path, struct error **err)
{
    cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    cleanup_free uint8_t *buf = malloc(BLOCK);
    struct stat st = {0};

    if (!buf)
        return error_set_errno(err, ENOMEM, "%s", path);
    if (path && (fd < 0 || fstat(fd, &st) < 0))
        return error_set_errno(err, errno, "%s", path);
    add_number(d, path ? 1 : 0);
    add_number(d, (uint64_t)st.st_size);
    for (off_t offset = 0; offset < st.st_size; offset += BLOCK) {
        off_t data = lseek(fd, offset, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        if (data > offset)
            offset = ALIGN_DOWN(data, (off_t)BLOCK);
        ssize_t n = read_block(fd, buf, BLOCK, offset);
        if (n < 0)
            return error_set_errno(err, (int)-n, "%s", path);
        if (is_zero(buf, (size_t)n))
            continue;
        add_number(d, (uint64_t)offset);
        digest_add(d, buf, (size_t)n);
    }
    add_number(d, UINT64_MAX); /* no block begins there: the end */
    return 0;
}

int digest_image(struct image *image, struct error **err)
{
    cleanup_digest struct digest d = {0};
    int rc = digest_begin(&d, err);

    if (rc)
        return rc;
    add_text(&d, "tabique image 1");
    add_text(&d, image->disk_format);
    add_text(&d, image->append);
    if ((rc = add_file(&d, image->disk, err)) || (rc = add_file(&d, image->kernel, err)) ||
        (rc = add_file(&d, image->initrd, err)))
        return rc;
    return digest_end(&d, image->id, err);
}

int digest_text(const char *text, char out[DIGEST_TEXT_LENGTH + 1], struct error **err)
{
    const struct libcrypto *lib = libcrypto(err);
    uint8_t digest[EVP_MAX_MD_SIZE];

    if (!lib)
        return -ENOPKG;
    if (!lib->EVP_Digest(text, strlen(text), digest, NULL, lib->EVP_sha256(), NULL))
        return error_set(err, ENOMEM, "SHA-256 failed");
    for (int i = 0; i < DIGEST_TEXT_LENGTH / 2; i++)
        snprintf(out + 2 * i, 3, "%02x", digest[i]);
    return 0;
}
