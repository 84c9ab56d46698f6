/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The open image of image.h. One thread. */
#include "image.h"

#include "base/error.h"
#include "host/loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[200];

const char *scratch(void)
{
    const char *where = getenv("TABIQUE_SCRATCH");

    if (*directory)
        return directory;
    snprintf(directory, sizeof(directory), "%s/tabique-test-disk-XXXXXX", where ? where : "/var/tmp");
    assert_non_null(mkdtemp(directory));
    return directory;
}

int scratch_remove(void **state)
{
    char command[200];

    snprintf(command, sizeof(command), "rm -rf '%s'", scratch());
    return system(command);
}

const char *scratch_path(const char *name)
{
    static char paths[8][200];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof(paths[0]), "%s/%s", scratch(), name);
    return path;
}

int shell(const char *format, ...)
{
    char command[2000];
    va_list args;
    int n = snprintf(command, sizeof(command), "cd '%s' && ", scratch());

    va_start(args, format);
    vsnprintf(command + n, sizeof(command) - (size_t)n, format, args);
    va_end(args);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static const char *secret;

void image_use_secret(const char *path)
{
    secret = path;
}

const char *image_for_qemu(const char *path, const char *format)
{
    static char words[500];

    if (!secret)
        snprintf(words, sizeof(words), "--image-opts driver=%s,file.filename='%s'", format, path);
    else
        snprintf(words, sizeof(words),
                 "--object secret,id=s,file='%s' --image-opts driver=%s,%skey-secret=s,file.filename='%s'",
                 secret, format, strcmp(format, "qcow2") == 0 ? "encrypt." : "", path);
    return words;
}

void check_image(const char *path, bool leaks_allowed)
{
    int status = shell("qemu-img check %s >check.log 2>&1", image_for_qemu(path, "qcow2"));

    if (status != 0 && !(leaks_allowed && status == 3)) {
        shell("head -40 check.log >&2");
        fail_msg("qemu-img check %s: %d", path, status);
    }
}

void image_open(struct image *image, const char *path, const char *format, unsigned flags)
{
    struct error *err = NULL;

    *image = (struct image){0};
    int rc = loop_create(&image->loop, &err);
    if (rc == 0)
        rc = disk_files_open(&image->files, path, format, flags & IMAGE_READ_ONLY, &err);
    if (rc == 0 && secret)
        rc = disk_files_read_secret(image->files, secret, &err);
    if (rc == 0 && flags & IMAGE_NO_URING)
        disk_files_avoid_uring(image->files);
    if (rc == 0)
        rc = disk_open(&image->disk, image->files, image->loop, &err);
    if (rc)
        fail_msg("%s", error_message(err));
}

void image_refused(const char *path, const char *format, unsigned flags, const char *part)
{
    struct disk_files *files = NULL;
    struct disk *disk = NULL;
    struct error *err = NULL;
    int rc = disk_files_open(&files, path, format, flags & IMAGE_READ_ONLY, &err);

    if (rc == 0 && secret)
        rc = disk_files_read_secret(files, secret, &err);
    if (rc == 0)
        rc = disk_open(&disk, files, NULL, &err);
    assert_true(rc < 0);
    /* One line that names the file. */
    assert_non_null(strstr(error_message(err), strrchr(path, '/') + 1));
    if (!strstr(error_message(err), part))
        fail_msg("'%s' says nothing of '%s'", error_message(err), part);
    assert_null(strchr(error_message(err), '\n'));
    error_free(err);
    disk_files_close(files);
}

void image_close(struct image *image)
{
    assert_int_equal(disk_close(image->disk), 0);
    disk_files_close(image->files);
    loop_free(image->loop);
}

static void done(struct disk_request *request, int result)
{
    struct image_request *r = (struct image_request *)request;

    r->result = result;
    if (--r->image->pending == 0)
        loop_stop(r->image->loop, 0);
}

void image_submit(struct image *image, struct image_request *r, enum disk_request_kind kind, uint64_t offset,
                  void *buf, uint64_t len, bool unmap)
{
    uint64_t third = len / 3;

    *r = (struct image_request){.request = {.kind = kind,
                                            .offset = offset,
                                            .length = len,
                                            .unmap = unmap,
                                            .iov = r->iov,
                                            .n_iov = buf ? 3 : 0,
                                            .done = done},
                                .image = image,
                                .result = 1};
    /* In pieces that follow no sectors. */
    r->iov[0] = (struct iovec){buf, third};
    r->iov[1] = (struct iovec){(char *)buf + third, third};
    r->iov[2] = (struct iovec){(char *)buf + 2 * third, len - 2 * third};
    image->pending++;
    disk_submit(image->disk, &r->request);
}

void image_wait(struct image *image)
{
    disk_start(image->disk);
    if (image->pending)
        loop_run(image->loop);
}

static int one(struct image *image, enum disk_request_kind kind, uint64_t offset, void *buf, uint64_t len,
               bool unmap)
{
    struct image_request r;

    image_submit(image, &r, kind, offset, buf, len, unmap);
    image_wait(image);
    assert_int_not_equal(r.result, 1);
    return r.result;
}

int image_read(struct image *image, uint64_t offset, void *buf, uint64_t len)
{
    return one(image, DISK_READ, offset, buf, len, false);
}

int image_write(struct image *image, uint64_t offset, const void *buf, uint64_t len)
{
    return one(image, DISK_WRITE, offset, (void *)(uintptr_t)buf, len, false);
}

int image_flush(struct image *image)
{
    return one(image, DISK_FLUSH, 0, NULL, 0, false);
}

int image_discard(struct image *image, uint64_t offset, uint64_t len)
{
    return one(image, DISK_DISCARD, offset, NULL, len, false);
}

int image_zero(struct image *image, uint64_t offset, uint64_t len, bool unmap)
{
    return one(image, DISK_WRITE_ZEROES, offset, NULL, len, unmap);
}
