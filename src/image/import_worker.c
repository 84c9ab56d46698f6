/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process that reads a file of unknown origin: it has two descriptors and a pipe, and no more. What
 * passes here, a guest's VM process will read; so a damaged file is found now and not by a guest.
 */
#include "image/import_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk.h"
#include "host/loop.h"
#include "image/libarchive.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK (256u << 10)
#define HOLE  4096u /* zeros of this length and alignment are not written */

struct worker {
    int in, out, report;
    uint64_t in_size;
    uint64_t written; /* the length of `out` */
    uint8_t *buf;
};

static void say(struct worker *w, int kind, double fraction)
{
    const struct import_message m = {.kind = kind, .fraction = fraction};

    /* A parent that is gone takes this process with it. */
    if (write(w->report, &m, sizeof(m)) < 0)
        return;
}

static bool is_zero(const uint8_t *p, size_t len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static int write_all(int fd, const uint8_t *p, size_t len, uint64_t offset, struct error **err)
{
    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, n < 0 ? errno : EIO, "writing it to the store: %s",
                             strerror(n < 0 ? errno : EIO));
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/* Appends to `out`; zeros become holes. */
static int append(struct worker *w, const uint8_t *p, size_t len, struct error **err)
{
    while (len) {
        size_t piece = HOLE - w->written % HOLE;

        if (piece > len)
            piece = len;
        /* As much as possible in one go: from here to the next piece of zeros. */
        bool hole = is_zero(p, piece);
        while (piece < len) {
            size_t next = len - piece < HOLE ? len - piece : HOLE;
            if (is_zero(p + piece, next) != hole)
                break;
            piece += next;
        }
        int rc = hole ? 0 : write_all(w->out, p, piece, w->written, err);
        if (rc)
            return rc;
        p += piece;
        len -= piece;
        w->written += piece;
    }
    return 0;
}

/* ---- copying ---- */

static int copy_plain(struct worker *w, struct error **err)
{
    uint64_t offset = 0;

    while (offset < w->in_size) {
        off_t data = lseek(w->in, (off_t)offset, SEEK_DATA);
        if (data < 0 && errno == ENXIO) /* a hole to the end */
            data = (off_t)w->in_size;
        if (data > (off_t)offset) {
            w->written += (uint64_t)data - offset;
            offset = (uint64_t)data;
            continue;
        }
        ssize_t n = pread(w->in, w->buf, BLOCK, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set(err, EIO, "reading it: %s", n < 0 ? strerror(errno) : "it has become shorter");
        int rc = append(w, w->buf, (size_t)n, err);
        if (rc)
            return rc;
        offset += (uint64_t)n;
        say(w, IMPORT_COPYING, (double)offset / (double)w->in_size);
    }
    return 0;
}

static int decompress(struct worker *w, const struct libarchive *lib, struct archive *a, struct error **err)
{
    struct archive_entry *entry;

    lib->archive_read_support_filter_gzip(a);
    lib->archive_read_support_filter_bzip2(a);
    lib->archive_read_support_filter_xz(a);
    lib->archive_read_support_filter_zstd(a);
    lib->archive_read_support_format_raw(a);
    if (lseek(w->in, 0, SEEK_SET) < 0 || lib->archive_read_open_fd(a, w->in, BLOCK) != ARCHIVE_OK ||
        lib->archive_read_next_header(a, &entry) != ARCHIVE_OK)
        return error_set(err, EINVAL, "decompressing it: %s", lib->archive_error_string(a));
    for (;;) {
        la_ssize_t n = lib->archive_read_data(a, w->buf, BLOCK);
        if (n == 0)
            return 0;
        if (n < 0)
            return error_set(err, EINVAL, "decompressing it: %s", lib->archive_error_string(a));
        int rc = append(w, w->buf, (size_t)n, err);
        if (rc)
            return rc;
        say(w, IMPORT_COPYING, (double)lib->archive_filter_bytes(a, -1) / (double)w->in_size);
    }
}

static int copy_compressed(struct worker *w, struct error **err)
{
    const struct libarchive *lib = libarchive(err);

    if (!lib)
        return -ENOPKG;
    struct archive *a = lib->archive_read_new();
    if (!a)
        return error_set_errno(err, ENOMEM, "decompressing it");
    int rc = decompress(w, lib, a, err);
    lib->archive_read_free(a);
    return rc;
}

static bool is_compressed(const uint8_t *head, size_t len)
{
    static const struct {
        const char *magic;
        size_t len;
    } known[] = {{"\x1f\x8b", 2},
                 {"BZh", 3},
                 {"\xfd"
                  "7zXZ\0",
                  6},
                 {"\x28\xb5\x2f\xfd", 4}};

    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (len >= known[i].len && memcmp(head, known[i].magic, known[i].len) == 0)
            return true;
    return false;
}

static int copy(struct worker *w, struct error **err)
{
    struct stat st;
    ssize_t n = pread(w->in, w->buf, 16, 0);

    if (n < 0 || fstat(w->in, &st) < 0)
        return error_set(err, errno, "reading it: %s", strerror(errno));
    w->in_size = (uint64_t)st.st_size;
    if (!w->in_size)
        return error_set(err, EINVAL, "it is empty");
    int rc = is_compressed(w->buf, (size_t)n) ? copy_compressed(w, err) : copy_plain(w, err);
    if (rc == 0 && ftruncate(w->out, (off_t)w->written) < 0)
        rc = error_set(err, errno, "writing it to the store: %s", strerror(errno));
    return rc;
}

/* ---- checking: all of the disk is read once, as a guest would ---- */

struct check {
    struct worker *worker;
    struct loop *loop;
    struct disk *disk;
    struct disk_request request;
    struct iovec iov;
    struct error **err;
};

static void read_next(struct check *c)
{
    uint64_t left = disk_size(c->disk) - c->request.offset;

    c->iov = (struct iovec){.iov_base = c->worker->buf, .iov_len = left < BLOCK ? left : BLOCK};
    c->request.length = c->iov.iov_len;
    disk_submit(c->disk, &c->request);
    disk_start(c->disk);
}

/*
 * What the disk's beginning says of its end, in sectors; 0 for nothing. A master boot record has four
 * partitions at 446, of 16 bytes each: type at 4, first sector at 8, how many at 12. One of type EE stands
 * for a GUID partition table, whose second header is in the last sector (UEFI 2.10, 5.2.3 and 5.3.2).
 */
static uint64_t told_end(const uint8_t *head, size_t len)
{
    uint64_t end = 0;

    for (const uint8_t *p = head + 446; p < head + 510; p += 16) {
        uint64_t partition_end = (uint64_t)get_le32(p + 8) + get_le32(p + 12);
        if (p[4] == 0xee && len >= 1024 && memcmp(head + 512, "EFI PART", 8) == 0)
            partition_end = get_le64(head + 512 + 32) + 1;
        if (p[4] && partition_end > end)
            end = partition_end;
    }
    return end;
}

/* The first sector of what a BIOS boots ends with 55 AA, whatever table of partitions follows. */
static int check_head(const uint8_t *head, size_t len, uint64_t size, struct error **err)
{
    if (head[510] != 0x55 || head[511] != 0xaa)
        return error_set(err, EINVAL, "nothing can boot from it: its first sector has no boot signature");
    uint64_t end = told_end(head, len);
    if (end > size / DISK_SECTOR)
        return error_set(err, EINVAL,
                         "it is cut off: its partitions reach to sector %" PRIu64 ", and it has %" PRIu64,
                         end, size / DISK_SECTOR);
    return 0;
}

static void on_read(struct disk_request *request, int result)
{
    struct check *c = container_of(request, struct check, request);

    if (result == 0 && request->offset == 0)
        result = check_head(c->worker->buf, request->length, disk_size(c->disk), c->err);
    request->offset += request->length;
    if (result || request->offset == disk_size(c->disk)) {
        loop_stop(c->loop, result);
        return;
    }
    say(c->worker, IMPORT_CHECKING, (double)request->offset / (double)disk_size(c->disk));
    read_next(c);
}

static int check_content(struct worker *w, struct disk *disk, struct loop *loop, struct error **err)
{
    struct check c = {.worker = w, .loop = loop, .disk = disk, .err = err};

    c.request = (struct disk_request){.kind = DISK_READ, .iov = &c.iov, .n_iov = 1, .done = on_read};
    read_next(&c);
    int result = loop_run(loop);
    if (result < 0 && !*err)
        return error_set(err, -result, "it is damaged: %s, at %llu of %llu bytes of the disk",
                         strerror(-result), (unsigned long long)(c.request.offset - c.request.length),
                         (unsigned long long)disk_size(disk));
    return result;
}

static int check(struct worker *w, struct disk_files *files, uint64_t *size, struct error **err)
{
    struct loop *loop = NULL;
    struct disk *disk = NULL;

    int rc = loop_create(&loop, err);
    if (rc == 0)
        rc = disk_open(&disk, files, loop, err);
    if (rc == 0 && strcmp(files->files[0].format, "raw") == 0 && w->written % DISK_SECTOR)
        rc = error_set(err, EINVAL,
                       "its %" PRIu64 " bytes are no whole number of sectors: it is cut off, or no disk",
                       w->written);
    if (rc == 0) {
        *size = disk_size(disk);
        rc = check_content(w, disk, loop, err);
    }
    disk_close(disk);
    loop_free(loop);
    return rc;
}

static int work(struct worker *w, struct disk_files *files, const char *format, struct import_message *end,
                struct error **err)
{
    static const uint8_t qcow2[4] = {'Q', 'F', 'I', 0xfb};
    uint8_t head[4] = {0};

    int rc = copy(w, err);
    if (rc)
        return rc;
    if (pread(w->out, head, sizeof(head), 0) < 0)
        return error_set(err, errno, "reading it: %s", strerror(errno));
    if (!format)
        format = memcmp(head, qcow2, sizeof(head)) == 0 ? "qcow2" : "raw";
    snprintf(end->format, sizeof(end->format), "%s", format);
    free(files->files[0].format);
    files->files[0].format = strdup(format);
    if (!files->files[0].format)
        return error_set_errno(err, ENOMEM, "reading it");
    return check(w, files, &end->size, err);
}

int import_read(int in, struct disk_files *files, const char *format, int report, struct import_message *end,
                struct error **err)
{
    struct worker w = {.in = in, .out = files->files[0].fd, .report = report, .buf = malloc(BLOCK)};

    *end = (struct import_message){.kind = IMPORT_ENDED};
    int rc = w.buf ? work(&w, files, format, end, err) : error_set_errno(err, ENOMEM, "reading it");
    free(w.buf);
    disk_files_close(files);
    return rc;
}

void import_work(int in, struct disk_files *files, const char *format, int report)
{
    cleanup_error struct error *err = NULL;
    struct import_message end;

    end.result = import_read(in, files, format, report, &end, &err);
    if (end.result)
        snprintf(end.text, sizeof(end.text), "%s", error_message(err));
    _exit(write(report, &end, sizeof(end)) == sizeof(end) ? 0 : 1);
}
