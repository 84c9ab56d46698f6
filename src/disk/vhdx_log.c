/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log of a VHDX file (MS-VHDX 2.3): a ring of entries, each some sectors that are to be written elsewhere
 * in the file. Who finds one left behind has to do that before anything else; who only reads has it in
 * memory.
 *
 *     entry: header, descriptors | a sector of data for each of them that does not say "zeros"
 *
 * Our own entries are alone: what the one before it says is in its place, synced, when an entry is written;
 * so each names itself as the oldest that counts. No state.
 */
#include "disk/vhdx_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENTRY_SIGNATURE "loge"
#define ZERO_SIGNATURE  "zero"
#define DATA_SIGNATURE  "desc"
#define BYTES_SIGNATURE "data"

enum {
    ENTRY_HEADER = 64,
    AT_LENGTH = 8,
    AT_TAIL = 12,
    AT_SEQUENCE = 16,
    AT_DESCRIPTORS = 24,
    AT_LOG_ID = 32,
    AT_FLUSHED_END = 48,
    AT_LAST_END = 56,

    DESCRIPTOR = 32,
    AT_TRAILING = 4,
    AT_LEADING = 8, /* of zeros: how many bytes */
    AT_PLACE = 16,
    AT_DESCRIPTOR_SEQUENCE = 24,

    AT_SEQUENCE_HIGH = 4,
    AT_SEQUENCE_LOW = 4092,
};

/* Entries may lie across each other, where old ones are overwritten in part. What is spent on checking them
 * is bounded by so many times the log. */
#define CHECKED_MAX 16u
/* Each is looked at for each piece of a structure that is read. */
#define PATCHES_MAX 65536u

/* An entry that is valid by itself, or none if it has no sectors. */
struct entry {
    uint32_t sectors, tail; /* tail: its oldest entry's sector */
    uint64_t sequence;
};

struct ring {
    uint8_t *bytes;
    uint32_t n; /* sectors */
    struct entry *entries;
    const uint8_t *id;
};

static uint8_t *sector(const struct ring *r, uint64_t i)
{
    return r->bytes + i % r->n * VHDX_SECTOR;
}

static uint8_t *descriptor(const struct ring *r, uint32_t at, uint32_t i)
{
    uint64_t byte = ENTRY_HEADER + (uint64_t)i * DESCRIPTOR;

    return sector(r, at + byte / VHDX_SECTOR) + byte % VHDX_SECTOR;
}

static bool is_data(const uint8_t *d)
{
    return memcmp(d, DATA_SIGNATURE, 4) == 0;
}

static uint32_t entry_checksum(const struct ring *r, uint32_t at, uint32_t sectors)
{
    static const uint8_t none[4];
    const uint8_t *first = sector(r, at);
    uint32_t crc = crc32c(0, first, VHDX_AT_CHECKSUM);

    crc = crc32c(crc, none, 4);
    crc = crc32c(crc, first + VHDX_AT_CHECKSUM + 4, VHDX_SECTOR - VHDX_AT_CHECKSUM - 4);
    for (uint32_t i = 1; i < sectors; i++)
        crc = crc32c(crc, sector(r, (uint64_t)at + i), VHDX_SECTOR);
    return crc;
}

/* Whether the descriptors and their data belong to the entry. */
static bool parts_fit(const struct ring *r, uint32_t at, uint32_t sectors, uint32_t n, uint64_t sequence)
{
    uint64_t next = (ENTRY_HEADER + (uint64_t)n * DESCRIPTOR + VHDX_SECTOR - 1) / VHDX_SECTOR;

    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *d = descriptor(r, at, i);
        if (get_le64(d + AT_DESCRIPTOR_SEQUENCE) != sequence || get_le64(d + AT_PLACE) % VHDX_SECTOR)
            return false;
        if (!is_data(d)) {
            if (memcmp(d, ZERO_SIGNATURE, 4) != 0 || get_le64(d + AT_LEADING) % VHDX_SECTOR)
                return false;
            continue;
        }
        const uint8_t *bytes = sector(r, at + next);
        if (next++ >= sectors || memcmp(bytes, BYTES_SIGNATURE, 4) != 0 ||
            get_le32(bytes + AT_SEQUENCE_HIGH) != sequence >> 32 ||
            get_le32(bytes + AT_SEQUENCE_LOW) != (uint32_t)sequence)
            return false;
    }
    return next == sectors;
}

/* What entry, if any, begins at this sector. */
static struct entry look(const struct ring *r, uint32_t at, uint64_t *checked)
{
    const uint8_t *h = sector(r, at);
    struct entry e = {get_le32(h + AT_LENGTH) / VHDX_SECTOR, get_le32(h + AT_TAIL) / VHDX_SECTOR,
                      get_le64(h + AT_SEQUENCE)};
    uint32_t n = get_le32(h + AT_DESCRIPTORS);

    if (memcmp(h, ENTRY_SIGNATURE, 4) != 0 || memcmp(h + AT_LOG_ID, r->id, VHDX_GUID) != 0)
        return (struct entry){0};
    if (get_le32(h + AT_LENGTH) % VHDX_SECTOR || get_le32(h + AT_TAIL) % VHDX_SECTOR || !e.sequence ||
        !e.sectors || e.sectors > r->n || e.tail >= r->n || n > (uint64_t)e.sectors * 128)
        return (struct entry){0};
    *checked += e.sectors;
    if (*checked > (uint64_t)r->n * CHECKED_MAX || !parts_fit(r, at, e.sectors, n, e.sequence) ||
        entry_checksum(r, at, e.sectors) != get_le32(h + VHDX_AT_CHECKSUM))
        return (struct entry){0};
    return e;
}

/* Whether from the tail of the entry at `head` on entries follow each other up to it. */
static bool is_whole(const struct ring *r, uint32_t head)
{
    uint32_t at = r->entries[head].tail;
    uint64_t sum = r->entries[at].sectors;

    while (at != head) {
        const struct entry *e = &r->entries[at];
        uint32_t next = (uint32_t)(((uint64_t)at + e->sectors) % r->n);
        if (!e->sectors || r->entries[next].sequence != e->sequence + 1)
            return false;
        at = next;
        sum += r->entries[at].sectors;
        if (sum > r->n)
            return false;
    }
    return sum && sum <= r->n;
}

/* The newest entry that is whole with all those that it needs; false if there is none. */
static bool find_head(const struct ring *r, uint32_t *head)
{
    bool found = false;

    for (uint32_t i = 0; i < r->n; i++)
        if (r->entries[i].sectors && (!found || r->entries[i].sequence > r->entries[*head].sequence) &&
            is_whole(r, i)) {
            *head = i;
            found = true;
        }
    return found;
}

/* ---- what it says ---- */

/* The structures that it may change are those behind the headers, but not the log itself. */
static int check_patch(const struct vhdx_patch *p, const struct vhdx_region *log, struct error **err)
{
    if (p->offset < VHDX_REGIONS_1 || p->offset > 4 * VHDX_SIZE_MAX || p->length > 4 * VHDX_SIZE_MAX ||
        (p->offset < log->offset + log->length && log->offset < p->offset + p->length))
        return error_set(err, EINVAL, "is damaged: its log says what to write where it may not");
    return 0;
}

/* Puts the bytes of a sector of data where they were before it was one. */
static void restore(uint8_t *bytes, const uint8_t *d)
{
    memcpy(bytes, d + AT_LEADING, 8);
    memcpy(bytes + AT_SEQUENCE_LOW, d + AT_TRAILING, 4);
}

static int take_entry(struct vhdx_log *log, const struct ring *r, uint32_t at,
                      const struct vhdx_region *where, struct error **err)
{
    uint32_t n = get_le32(sector(r, at) + AT_DESCRIPTORS);
    uint64_t next = at + (ENTRY_HEADER + (uint64_t)n * DESCRIPTOR + VHDX_SECTOR - 1) / VHDX_SECTOR;
    struct vhdx_patch *more = realloc(log->patches, (log->n + (size_t)n + 1) * sizeof(*more));

    if (!more)
        return error_set_errno(err, ENOMEM, "reading its log");
    log->patches = more;
    if (n > PATCHES_MAX - log->n)
        return error_set(err, EFBIG, "has a log of more than %u changes", PATCHES_MAX);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *d = descriptor(r, at, i);
        struct vhdx_patch p = {get_le64(d + AT_PLACE), get_le64(d + AT_LEADING), NULL};
        if (is_data(d)) {
            uint8_t *bytes = sector(r, next++);
            restore(bytes, d);
            p.length = VHDX_SECTOR;
            p.bytes = bytes;
        }
        int rc = check_patch(&p, where, err);
        if (rc)
            return rc;
        log->patches[log->n++] = p;
    }
    return 0;
}

static int take_entries(struct vhdx_log *log, const struct ring *r, const struct vhdx_region *where,
                        uint64_t file_end, struct error **err)
{
    uint32_t head = 0;

    if (!find_head(r, &head))
        return error_set(err, EINVAL, "is damaged: it was not closed, and its log has no valid entry");
    uint64_t flushed = get_le64(sector(r, head) + AT_FLUSHED_END);
    log->file_end = get_le64(sector(r, head) + AT_LAST_END);
    if (log->file_end > 4 * VHDX_SIZE_MAX || log->file_end % VHDX_MIB)
        return error_set(err, EINVAL, "is damaged: its log gives it a size that it can't have");
    if (flushed > file_end)
        return error_set(err, EINVAL, "is cut off: its log knows it longer");
    uint32_t at = r->entries[head].tail;
    int rc = take_entry(log, r, at, where, err);
    while (rc == 0 && at != head) {
        at = (uint32_t)(((uint64_t)at + r->entries[at].sectors) % r->n);
        rc = take_entry(log, r, at, where, err);
    }
    return rc;
}

int vhdx_log_load(struct vhdx_log *log, int fd, const uint8_t *header, uint64_t file_end, struct error **err)
{
    static const uint8_t none[VHDX_GUID];
    struct vhdx_region where = {get_le64(header + VHDX_AT_LOG_OFFSET), get_le32(header + VHDX_AT_LOG_LENGTH)};
    uint64_t checked = 0;

    *log = (struct vhdx_log){0};
    if (memcmp(header + VHDX_AT_LOG_ID, none, VHDX_GUID) == 0)
        return 0;
    if (get_le16(header + VHDX_AT_LOG_VERSION))
        return error_set(err, ENOTSUP, "was not closed, and has a log of version %u: 0 is known here",
                         get_le16(header + VHDX_AT_LOG_VERSION));
    if (where.length > VHDX_LOG_MAX)
        return error_set(err, EFBIG, "was not closed, and has a log of %u MiB: %u are read here at most",
                         (unsigned)(where.length / VHDX_MIB), VHDX_LOG_MAX / VHDX_MIB);
    struct ring r = {.n = (uint32_t)(where.length / VHDX_SECTOR), .id = header + VHDX_AT_LOG_ID};
    cleanup_free struct entry *entries = calloc(r.n, sizeof(*entries));
    log->bytes = r.bytes = malloc(where.length);
    r.entries = entries;
    int rc = entries && r.bytes ? disk_read_at(fd, r.bytes, where.length, where.offset) : -ENOMEM;
    if (rc)
        return error_set_errno(err, -rc, "reading its log");
    for (uint32_t i = 0; i < r.n; i++)
        entries[i] = look(&r, i, &checked);
    return take_entries(log, &r, &where, file_end, err);
}

void vhdx_log_free(struct vhdx_log *log)
{
    free(log->bytes);
    free(log->patches);
    *log = (struct vhdx_log){0};
}

int vhdx_log_read(const struct vhdx_log *log, int fd, void *buf, size_t len, uint64_t offset)
{
    int rc = disk_read_at(fd, buf, len, offset);

    for (uint32_t i = 0; i < log->n && rc == 0; i++) {
        const struct vhdx_patch *p = &log->patches[i];
        uint64_t from = p->offset > offset ? p->offset : offset;
        uint64_t to = p->offset + p->length < offset + len ? p->offset + p->length : offset + len;
        if (from >= to)
            continue;
        if (p->bytes)
            memcpy((uint8_t *)buf + (from - offset), p->bytes + (from - p->offset), to - from);
        else
            memset((uint8_t *)buf + (from - offset), 0, to - from);
    }
    return rc;
}

/* Within the file; what is behind its end will be zeros anyway. */
static int write_zeros(int fd, uint64_t offset, uint64_t length)
{
    static const uint8_t zeros[65536];
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (offset >= (uint64_t)st.st_size)
        return 0;
    if (length > (uint64_t)st.st_size - offset)
        length = (uint64_t)st.st_size - offset;
    if (!length ||
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) == 0)
        return 0;
    for (uint64_t done = 0; done < length; done += sizeof(zeros)) {
        uint64_t n = length - done < sizeof(zeros) ? length - done : sizeof(zeros);
        int rc = disk_write_at(fd, zeros, n, offset + done);
        if (rc)
            return rc;
    }
    return 0;
}

int vhdx_log_apply(const struct vhdx_log *log, int fd)
{
    struct stat st;
    int rc = 0;

    for (uint32_t i = 0; i < log->n && rc == 0; i++) {
        const struct vhdx_patch *p = &log->patches[i];
        rc = p->bytes ? disk_write_at(fd, p->bytes, p->length, p->offset)
                      : write_zeros(fd, p->offset, p->length);
    }
    if (rc == 0 && fstat(fd, &st) < 0)
        rc = -errno;
    if (rc == 0 && (uint64_t)st.st_size < log->file_end && ftruncate(fd, (off_t)log->file_end) < 0)
        rc = -errno;
    return rc;
}

/* ---- our own ---- */

int vhdx_log_write(struct vhdx_journal *j, const struct vhdx_region *log, int fd, uint64_t end,
                   const struct vhdx_update *updates, unsigned n)
{
    uint32_t length = (n + 1) * VHDX_SECTOR, here = (uint32_t)log->length - j->next;
    cleanup_free uint8_t *e = calloc(1, length);

    if (!e)
        return -ENOMEM;
    memcpy(e, ENTRY_SIGNATURE, 4);
    put_le32(e + AT_LENGTH, length);
    put_le32(e + AT_TAIL, j->next);
    put_le64(e + AT_SEQUENCE, j->sequence);
    put_le32(e + AT_DESCRIPTORS, n);
    memcpy(e + AT_LOG_ID, j->id, VHDX_GUID);
    put_le64(e + AT_FLUSHED_END, end);
    put_le64(e + AT_LAST_END, end);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *d = e + ENTRY_HEADER + i * DESCRIPTOR, *bytes = e + (i + 1) * VHDX_SECTOR;
        memcpy(d, DATA_SIGNATURE, 4);
        memcpy(d + AT_TRAILING, updates[i].bytes + AT_SEQUENCE_LOW, 4);
        memcpy(d + AT_LEADING, updates[i].bytes, 8);
        put_le64(d + AT_PLACE, updates[i].offset);
        put_le64(d + AT_DESCRIPTOR_SEQUENCE, j->sequence);
        memcpy(bytes, updates[i].bytes, VHDX_SECTOR);
        memcpy(bytes, BYTES_SIGNATURE, 4);
        put_le32(bytes + AT_SEQUENCE_HIGH, (uint32_t)(j->sequence >> 32));
        put_le32(bytes + AT_SEQUENCE_LOW, (uint32_t)j->sequence);
    }
    put_le32(e + VHDX_AT_CHECKSUM, crc32c(0, e, length));
    if (here > length)
        here = length;
    int rc = disk_write_at(fd, e, here, log->offset + j->next);
    if (rc == 0 && here < length)
        rc = disk_write_at(fd, e + here, length - here, log->offset);
    if (rc == 0) {
        j->next = (uint32_t)((j->next + length) % log->length);
        j->sequence++;
    }
    return rc;
}
