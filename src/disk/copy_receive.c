/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Receiving a copy: copy_receive.h. What comes is judged before it is believed (copy_record.h). */
#include "disk/copy_receive.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/copy_record.h"
#include "disk/disk_priv.h"
#include "disk/nbd_link.h"
#include "disk/new_file.h"
#include "host/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#define LOOK_MS     200 /* for a wish to cancel */
#define DONE_MS     5000
#define ZEROS_PIECE (64u << 20)
#define GRAIN       65536u

/* ---- the socket ---- */

/* `timeout_ms` 0: for ever. 0; -EINTR: it is to end; -ECONNRESET: the sender has ended. */
static int receive_bytes(int fd, const struct disk_job *job, void *buf, size_t len, unsigned timeout_ms)
{
    uint64_t until = loop_now() + timeout_ms * 1000000ull;

    for (size_t done = 0; done < len;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        if (job && job->cancel && *job->cancel)
            return -EINTR;
        if (timeout_ms && loop_now() >= until)
            return -ETIMEDOUT;
        if (poll(&p, 1, LOOK_MS) <= 0)
            continue;
        ssize_t n = recv(fd, (uint8_t *)buf + done, len - done, MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return -ECONNRESET;
        done += (size_t)n;
    }
    return 0;
}

static int lost(int rc, struct error **err)
{
    if (rc == -EINTR)
        return error_set(err, EINTR, "interrupted; the guest goes on");
    if (rc == -ECONNRESET)
        return error_set(
            err, ECONNRESET,
            "the copy was broken off by the guest's side: it has ended, or it has waited too long for "
            "the target to take what it writes over");
    return error_set(err, -rc, "what the guest's process sends makes no sense");
}

/* Why it can't be, in the sender's words. */
static int refused(int fd, const struct disk_job *job, const struct copy_record *r, struct error **err)
{
    char text[COPY_TEXT_MAX + 1] = "";
    int rc = receive_bytes(fd, job, text, r->length, DONE_MS);

    for (char *p = text; *p; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    return rc ? lost(rc, err) : error_set(err, (int)r->value, "%s", *text ? text : strerror((int)r->value));
}

/* One that is not FAILED. */
static int receive_record(int fd, const struct disk_job *job, uint64_t size, unsigned timeout_ms,
                          struct copy_record *out, struct error **err)
{
    uint8_t header[COPY_HEADER_SIZE];
    int rc = receive_bytes(fd, job, header, sizeof(header), timeout_ms);

    if (rc == 0)
        rc = copy_record_parse(header, size, out);
    if (rc)
        return lost(rc, err);
    return out->type == COPY_FAILED ? refused(fd, job, out, err) : 0;
}

int disk_copy_meet(int fd, const struct disk_job *job, struct disk_copy_begun *out, struct error **err)
{
    struct copy_record r;
    int rc = receive_record(fd, job, 0, 0, &r, err);

    if (rc)
        return rc;
    *out = (struct disk_copy_begun){.size = r.offset,
                                    .bytes = r.length,
                                    .repeats = r.value & COPY_REPEATS,
                                    .has_bitmap = r.value & COPY_HAS_BITMAP};
    return 0;
}

int disk_copy_follow(int fd, const struct disk_copy_begun *begun, const struct disk_job *job,
                     struct error **err)
{
    for (;;) {
        struct copy_record r;
        int rc = receive_record(fd, job, begun->size, 0, &r, err);

        if (rc || r.type == COPY_DONE)
            return rc;
        if (r.type != COPY_PASSED)
            return lost(-EPROTO, err);
        if (job->report)
            job->report(job->opaque, (double)(r.offset + r.length) / (double)begun->size);
    }
}

/* ---- the target ---- */

struct target {
    struct disk_new_file file;
    bool is_new, blank; /* what is not written reads as zeros */
    struct disk_files *behind, *files;
    struct loop *loop;
    struct disk *disk;
    uint8_t *buf;
};

/* A file's tables, with nothing in it yet. */
static int make_image(struct target *t, const struct disk_copy_target *what, uint64_t size,
                      struct error **err)
{
    const struct disk_create create = {.format = what->format,
                                       .size = size,
                                       .backing = what->backing,
                                       .backing_format = what->backing ? what->backing_format : NULL};
    struct disk_build build;
    struct stat st;

    if (lstat(what->path, &st) == 0)
        return error_set(err, EEXIST, "'%s' is there already: choose a new name", what->path);
    int rc = disk_new_file_open(&t->file, what->path, err);
    if (rc)
        return rc;
    t->is_new = true;
    rc = disk_build_begin(&build, t->file.fd, what->path, &create, NULL, err);
    if (rc == 0)
        rc = disk_build_end(&build, true, err);
    return rc ? error_wrap(err, "disk '%s'", what->path) : 0;
}

static int add_file(struct disk_file *list, unsigned *n, int fd, const char *name, const char *format)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    if (copy < 0)
        return -errno;
    list[(*n)++] =
        (struct disk_file){.fd = copy, .name = (char *)(uintptr_t)name, .format = (char *)(uintptr_t)format};
    return 0;
}

/* The new file, which has no name yet, and what it is based on. */
static int open_image(struct target *t, const struct disk_copy_target *what, struct error **err)
{
    cleanup_free char *backing = what->backing ? disk_name_beside(what->path, what->backing) : NULL;
    unsigned n = 0;
    int rc = 0;

    if (what->backing && !backing)
        return error_set_errno(err, ENOMEM, "disk '%s'", what->path);
    if (backing)
        rc = disk_files_open(&t->behind, backing, what->backing_format, true, err);
    if (rc)
        return rc;
    unsigned room = 1 + (t->behind ? t->behind->n : 0);
    cleanup_free struct disk_file *list = calloc(room, sizeof(*list));
    rc = list ? add_file(list, &n, t->file.fd, what->path, what->format) : -ENOMEM;
    for (unsigned i = 0; rc == 0 && i + 1 < room; i++)
        rc = add_file(list, &n, t->behind->files[i].fd, t->behind->files[i].name, t->behind->files[i].format);
    if (rc) {
        while (n)
            close(list[--n].fd);
        return error_set_errno(err, -rc, "disk '%s'", what->path);
    }
    return disk_files_new(&t->files, list, n, false, err);
}

static bool is_there_to_stay(const char *path)
{
    struct stat st;

    return nbd_is_uri(path) || (stat(path, &st) == 0 && S_ISBLK(st.st_mode));
}

static int open_target(struct target *t, const struct disk_copy_target *what, uint64_t size,
                       struct error **err)
{
    int rc = loop_create(&t->loop, err);

    t->buf = disk_buffer_new(COPY_PIECE);
    if (rc == 0 && !t->buf)
        rc = error_set_errno(err, ENOMEM, "disk '%s'", what->path);
    if (rc)
        return rc;
    if (is_there_to_stay(what->path)) {
        rc = disk_files_open(&t->files, what->path, "raw", false, err);
    } else {
        t->blank = !what->backing;
        rc = make_image(t, what, size, err);
        if (rc == 0)
            rc = open_image(t, what, err);
    }
    if (rc == 0)
        rc = disk_open(&t->disk, t->files, t->loop, err);
    if (rc == 0 && disk_size(t->disk) < size)
        rc = error_set(err, ENOSPC, "disk '%s' has %llu bytes, the guest's %llu: it is too small", what->path,
                       (unsigned long long)disk_size(t->disk), (unsigned long long)size);
    return rc;
}

/* Whole and on the disk, if `ok`; else there is nothing left of a new file. */
static int close_target(struct target *t, bool ok, const char *path, struct error **err)
{
    int rc = ok ? disk_do_now(t->disk, DISK_FLUSH, 0, NULL, 0) : 0;
    int closed = disk_close(t->disk);

    rc = rc ? rc : closed;
    disk_files_close(t->files);
    if (ok && rc)
        error_set_errno(err, -rc, "disk '%s': writing it", path);
    ok = ok && rc == 0;
    if (t->is_new) {
        int end = disk_new_file_end(&t->file, ok, true, ok ? err : NULL);
        rc = rc ? rc : end;
    }
    disk_files_close(t->behind);
    loop_free(t->loop);
    free(t->buf);
    return rc;
}

/* ---- the content ---- */

static int put_zeros(struct target *t, uint64_t offset, uint64_t length)
{
    int rc = 0;

    for (uint64_t done = 0, n; !t->blank && rc == 0 && done < length; done += n) {
        n = length - done < ZEROS_PIECE ? length - done : ZEROS_PIECE;
        rc = disk_do_now(t->disk, DISK_WRITE_ZEROES, offset + done, NULL, n);
    }
    return rc;
}

/* What is zeros in it takes no space. */
static int put_data(struct target *t, uint64_t offset, uint8_t *buf, uint64_t length)
{
    int rc = 0;

    for (uint64_t at = 0, n; rc == 0 && at < length; at += n) {
        bool zeros = false;

        for (n = 0; at + n < length;) {
            uint64_t grain = length - at - n < GRAIN ? length - at - n : GRAIN;
            bool these = disk_is_zero(buf + at + n, grain);
            if (n && these != zeros)
                break;
            zeros = these;
            n += grain;
        }
        rc =
            zeros ? put_zeros(t, offset + at, n) : disk_do_now(t->disk, DISK_WRITE, offset + at, buf + at, n);
    }
    return rc;
}

static int receive_all(struct target *t, int fd, const struct disk_copy_begun *begun, const char *path,
                       const struct disk_job *job, struct error **err)
{
    uint64_t done = 0;

    for (;;) {
        struct copy_record r;
        int rc = receive_record(fd, job, begun->size, 0, &r, err);

        if (rc)
            return rc;
        if (r.type == COPY_END)
            return 0;
        if (r.type == COPY_DATA) {
            rc = receive_bytes(fd, job, t->buf, r.length, 0);
            if (rc)
                return lost(rc, err);
            rc = put_data(t, r.offset, t->buf, r.length);
        } else if (r.type == COPY_ZEROS) {
            rc = put_zeros(t, r.offset, r.length);
        } else {
            return lost(-EPROTO, err);
        }
        if (rc)
            return error_set_errno(err, -rc, "disk '%s': writing it", path);
        done += r.length;
        if (job && job->report && begun->bytes)
            job->report(job->opaque, done < begun->bytes ? (double)done / (double)begun->bytes : 1);
    }
}

int disk_copy_receive(int fd, const struct disk_copy_begun *begun, const struct disk_copy_target *what,
                      const struct disk_job *job, struct error **err)
{
    const char kept = COPY_KEPT;
    struct target t = {0};
    struct copy_record r;
    int rc = open_target(&t, what, begun->size, err);

    t.blank = t.blank && !begun->repeats;
    if (rc == 0)
        rc = receive_all(&t, fd, begun, what->path, job, err);
    int closed = close_target(&t, rc == 0, what->path, err);
    rc = rc ? rc : closed;
    if (rc)
        return rc;
    /* It is there now, whatever becomes of the guest. */
    if (send(fd, &kept, 1, MSG_NOSIGNAL) == 1)
        receive_record(fd, NULL, begun->size, DONE_MS, &r, NULL);
    return 0;
}
