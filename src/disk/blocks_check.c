/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checking and repairing images of blocks.h: blocks that share bytes, space behind the last one, and what a
 * format's own `look` knows. Blocks that share bytes can't be told apart, so these are not repaired. No
 * state.
 */
#include "disk/blocks.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct place {
    uint64_t at;
    uint32_t block;
};

static int compare(const void *a, const void *b)
{
    const struct place *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

/* Looks at where all blocks are. 0 or -ENOMEM. */
static int check_places(const struct blocks *b, struct disk_check *check)
{
    struct disk_check_result *r = check->result;
    cleanup_free struct place *places = malloc(((size_t)b->n + 1) * sizeof(*places));
    uint64_t before = 0;
    uint32_t n = 0;

    if (!places)
        return -ENOMEM;
    r->unit = b->block_size;
    r->units = b->n;
    for (uint32_t i = 0; i < b->n; i++) {
        uint64_t at = b->ops->where(b, i);
        if (!at)
            continue;
        r->allocated++;
        r->fragmented += before && !b->uneven && at != before + b->block_size + b->before;
        before = at;
        places[n++] = (struct place){at, i};
    }
    qsort(places, n, sizeof(*places), compare);
    for (uint32_t i = 1; i < n && !b->uneven; i++)
        if (places[i].at - places[i - 1].at < (uint64_t)b->block_size + b->before)
            disk_check_corrupt(check, false, "blocks %u and %u lie in one place, at byte %" PRIu64,
                               places[i - 1].block, places[i].block, places[i].at);
    return 0;
}

static int check_end(struct blocks *b, struct disk_check *check)
{
    uint64_t end = b->end + b->behind;
    bool fix = check->repair != DISK_REPAIR_NONE && !check->result->corruptions;
    struct stat st;

    check->result->end = end;
    if (fstat(check->fd, &st) < 0)
        return -errno;
    /* QEMU makes a VHDX longer than what is in it: the first block will lie there. */
    if ((uint64_t)st.st_size <= end || (!check->result->allocated && !fix))
        return 0;
    if (fix && (b->ops->cut ? b->ops->cut(b, check->fd) : ftruncate(check->fd, (off_t)end) < 0))
        return -errno;
    disk_check_leak(check, ((uint64_t)st.st_size - end + b->block_size - 1) / b->block_size, fix,
                    "%" PRIu64 " bytes behind the last block", (uint64_t)st.st_size - end);
    return 0;
}

/* Opens it to be written, with which it is what its format wants it to be, and closes it. */
static int reopen(const struct disk_format *format, struct disk_check *check, struct error **err)
{
    struct disk_file file = {.fd = fcntl(check->fd, F_DUPFD_CLOEXEC, 0),
                             .name = (char *)"image",
                             .format = (char *)(uintptr_t)format->name};
    struct disk_files *files;
    struct disk *disk;

    if (file.fd < 0)
        return error_set_errno(err, errno, "repairing it");
    int rc = disk_files_new(&files, &file, 1, false, err);
    if (rc)
        return rc;
    files->alone = true;
    rc = disk_open(&disk, files, NULL, err);
    if (rc == 0) {
        rc = disk_close(disk);
        if (rc)
            error_set_errno(err, -rc, "repairing it");
    }
    disk_files_close(files);
    return rc;
}

int blocks_check(const struct disk_format *format, struct disk_check *check, struct error **err)
{
    const struct disk common = {.format = format, .fd = check->fd, .read_only = true};
    struct disk *disk;
    int rc = format->open(&disk, &common, err);

    if (rc)
        return rc;
    struct blocks *b = (struct blocks *)disk;
    if (!b->fixed)
        rc = check_places(b, check);
    const char *wrong = rc == 0 && b->ops->wrong ? b->ops->wrong(b) : NULL;
    bool fix = wrong && check->repair == DISK_REPAIR_ALL && !check->result->corruptions;
    if (fix) {
        rc = reopen(format, check, err);
        if (rc) {
            format->close(disk);
            return rc;
        }
    }
    if (wrong)
        disk_check_corrupt(check, fix, "%s", wrong);
    if (rc == 0 && b->end)
        rc = check_end(b, check);
    format->close(disk);
    return rc ? error_set_errno(err, -rc, "checking it") : 0;
}
