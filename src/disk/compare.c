/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Comparing the content of two disks. What both have as zeros is not read. One thread; no locks. */
#include "disk/job.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK (1u << 20)

struct side {
    struct disk *disk;
    struct disk_extent extent; /* what is at the place looked at */
    uint8_t *buf;
};

/* What lies behind a disk's end counts as zeros. */
static int look(struct side *s, uint64_t at, uint64_t length)
{
    if (at >= s->disk->size) {
        s->extent = (struct disk_extent){.kind = DISK_EXTENT_ZEROS, .disk = s->disk, .length = length};
        return 0;
    }
    if (length > s->disk->size - at)
        length = s->disk->size - at;
    return disk_extent(s->disk, at, length, &s->extent);
}

static int failed(const struct side *s, int rc, struct error **err)
{
    return error_set_errno(err, -rc, "disk '%s': reading it", s->disk->files->files[0].name);
}

static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t len)
{
    uint64_t i = 0;

    while (i < len && a[i] == b[i])
        i++;
    return i;
}

static int compare(struct side *s, uint64_t size, const struct disk_job *job, struct disk_difference *out,
                   struct error **err)
{
    for (uint64_t at = 0; at < size;) {
        if (job->cancel && *job->cancel)
            return error_set(err, EINTR, "interrupted");
        for (int i = 0; i < 2; i++) {
            int rc = look(&s[i], at, size - at);
            if (rc)
                return failed(&s[i], rc, err);
        }
        uint64_t len = s[0].extent.length < s[1].extent.length ? s[0].extent.length : s[1].extent.length;
        if (s[0].extent.kind != DISK_EXTENT_ZEROS || s[1].extent.kind != DISK_EXTENT_ZEROS) {
            if (len > CHUNK)
                len = CHUNK;
            for (int i = 0; i < 2; i++) {
                int rc = disk_extent_read(&s[i].extent, s[i].buf, len);
                if (rc)
                    return failed(&s[i], rc, err);
            }
            if (memcmp(s[0].buf, s[1].buf, len) != 0) {
                out->differ = true;
                out->at = at + first_difference(s[0].buf, s[1].buf, len);
                return 0;
            }
        }
        at += len;
        if (job->report)
            job->report(job->opaque, (double)at / (double)size);
    }
    return 0;
}

int disk_compare(struct disk_files *a, struct disk_files *b, bool strict, const struct disk_job *job,
                 struct disk_difference *out, struct error **err)
{
    struct disk_files *files[2] = {a, b};
    struct side s[2] = {0};
    int rc = 0;

    *out = (struct disk_difference){0};
    for (int i = 0; i < 2 && rc == 0; i++) {
        rc = disk_open(&s[i].disk, files[i], NULL, err);
        s[i].buf = disk_buffer_new(CHUNK);
        if (rc == 0 && !s[i].buf)
            rc = error_set_errno(err, ENOMEM, "comparing");
    }
    if (rc == 0) {
        uint64_t sizes[2] = {s[0].disk->size, s[1].disk->size};
        out->sizes = sizes[0] != sizes[1];
        if (out->sizes && strict)
            out->differ = out->size_only = true;
        else
            rc = compare(s, sizes[0] > sizes[1] ? sizes[0] : sizes[1], job, out, err);
    }
    for (int i = 0; i < 2; i++) {
        disk_close(s[i].disk);
        free(s[i].buf);
    }
    return rc;
}
