/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of a qcow2 file's internal snapshots, of which anyone may have made the bytes:
 *
 *     0 L1 offset   8 L1 entries  12 bytes of id  14 bytes of name   16 seconds  20 nanoseconds  24 VM's
 * clock 32 bytes of VM state  36 bytes of what follows  40 { VM state, disk's size, icount, more } id name,
 * to 8
 *
 * No state, no locks.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIXED     40u
#define KNOWN     24u /* of the bytes that follow */
#define EXTRA_MAX 1024u

static void free_snapshot(struct qcow2_snapshot *s)
{
    free(s->id);
    free(s->name);
    free(s->more);
}

void qcow2_free_snapshots(struct qcow2_snapshots *s)
{
    for (uint32_t i = 0; i < s->n; i++)
        free_snapshot(&s->list[i]);
    free(s->list);
    *s = (struct qcow2_snapshots){0};
}

static void read_extra(const uint8_t *p, uint32_t n, struct qcow2_snapshot *s)
{
    if (n >= 8)
        s->vm_state = get_be64(p);
    if (n >= 16)
        s->disk_size = get_be64(p + 8);
    s->has_icount = n >= KNOWN;
    if (s->has_icount)
        s->icount = get_be64(p + 16);
}

/* The variable part, `n` bytes that follow the fixed one: extra data, id, name. */
static int read_rest(const uint8_t *p, uint32_t extra, uint32_t id, uint32_t name, struct qcow2_snapshot *s)
{
    read_extra(p, extra, s);
    s->n_more = extra > KNOWN ? extra - KNOWN : 0;
    s->more = s->n_more ? malloc(s->n_more) : NULL;
    s->id = strndup((const char *)p + extra, id);
    s->name = strndup((const char *)p + extra + id, name);
    if (!s->id || !s->name || (s->n_more && !s->more))
        return -ENOMEM;
    if (s->n_more)
        memcpy(s->more, p + KNOWN, s->n_more);
    return 0;
}

/* The entry at `at`. 0, or -errno: -EINVAL with *fault. */
static int read_one(int fd, const struct qcow2_header *header, uint64_t at, struct qcow2_snapshot *out,
                    uint64_t *end, const char **fault)
{
    uint8_t fixed[FIXED];
    int rc = disk_read_at(fd, fixed, sizeof(fixed), at);

    if (rc)
        return rc;
    struct qcow2_snapshot s = {.at = at,
                               .l1_offset = get_be64(fixed),
                               .l1_size = get_be32(fixed + 8),
                               .seconds = get_be32(fixed + 16),
                               .nanoseconds = get_be32(fixed + 20),
                               .vm_clock = get_be64(fixed + 24),
                               .vm_state = get_be32(fixed + 32),
                               .disk_size = header->size};
    uint32_t extra = get_be32(fixed + 36), id = get_be16(fixed + 12), name = get_be16(fixed + 14);
    if (extra > EXTRA_MAX) {
        *fault = "an entry has more data than is known of";
        return -EINVAL;
    }
    cleanup_free uint8_t *rest = malloc((size_t)extra + id + name + 1);
    rc = rest ? disk_read_at(fd, rest, (size_t)extra + id + name, at + FIXED) : -ENOMEM;
    if (rc == 0)
        rc = read_rest(rest, extra, id, name, &s);
    if (rc) {
        free_snapshot(&s);
        return rc;
    }
    *end = ALIGN_UP(at + FIXED + extra + id + name, 8);
    *out = s;
    return 0;
}

int qcow2_read_snapshots(int fd, const struct qcow2_header *header, uint64_t file_end,
                         struct qcow2_snapshots *out)
{
    struct qcow2_snapshots s = {0};
    uint64_t start = header->snapshots_offset, at = start;
    int rc = 0;

    if (header->snapshots > QCOW2_SNAPSHOTS_MAX)
        s.fault = "there are more than 65536";
    else if (header->snapshots && (!start || start & ((1ull << header->cluster_bits) - 1)))
        s.fault = "it does not begin where a cluster does";
    if (!s.fault && header->snapshots)
        s.list = calloc(header->snapshots, sizeof(*s.list));
    if (!s.fault && header->snapshots && !s.list)
        return -ENOMEM;
    while (!s.fault && rc == 0 && s.n < header->snapshots) {
        uint64_t end;
        if (at > file_end || file_end - at < FIXED) {
            s.fault = "it is not in the file whole";
            break;
        }
        rc = read_one(fd, header, at, &s.list[s.n], &end, &s.fault);
        if (rc)
            break;
        s.n++;
        at = end;
        if (end - start > QCOW2_SNAPSHOTS_BYTES)
            s.fault = "it has more than 64 MiB";
    }
    if (rc && rc != -EINVAL) {
        qcow2_free_snapshots(&s);
        return rc;
    }
    s.bytes = at - start;
    *out = s;
    return 0;
}

static uint32_t size_of(const struct qcow2_snapshot *s)
{
    return ALIGN_UP(FIXED + KNOWN + s->n_more + (uint32_t)strlen(s->id) + (uint32_t)strlen(s->name), 8);
}

static void pack_one(const struct qcow2_snapshot *s, uint8_t *p)
{
    size_t id = strlen(s->id), name = strlen(s->name);
    /* Who has never heard of instructions that are counted writes 16 bytes. */
    uint32_t extra = s->n_more || s->has_icount ? KNOWN + s->n_more : 16;

    put_be64(p, s->l1_offset);
    put_be32(p + 8, s->l1_size);
    put_be16(p + 12, (uint16_t)id);
    put_be16(p + 14, (uint16_t)name);
    put_be32(p + 16, s->seconds);
    put_be32(p + 20, s->nanoseconds);
    put_be64(p + 24, s->vm_clock);
    put_be32(p + 32, s->vm_state > UINT32_MAX ? 0 : (uint32_t)s->vm_state);
    put_be32(p + 36, extra);
    put_be64(p + 40, s->vm_state);
    put_be64(p + 48, s->disk_size);
    if (extra > 16)
        put_be64(p + 56, s->icount);
    if (s->n_more)
        memcpy(p + FIXED + KNOWN, s->more, s->n_more);
    memcpy(p + FIXED + extra, s->id, id);
    memcpy(p + FIXED + extra + id, s->name, name);
}

uint8_t *qcow2_pack_snapshots(const struct qcow2_snapshots *s, uint64_t *bytes)
{
    uint64_t room = 8, at = 0;

    for (uint32_t i = 0; i < s->n; i++)
        room += size_of(&s->list[i]);
    uint8_t *all = calloc(1, room);
    for (uint32_t i = 0; all && i < s->n; i++) {
        uint32_t less = s->list[i].n_more || s->list[i].has_icount ? 0 : KNOWN - 16;
        pack_one(&s->list[i], all + at);
        at += ALIGN_UP(
            FIXED + KNOWN - less + s->list[i].n_more + strlen(s->list[i].id) + strlen(s->list[i].name), 8);
    }
    *bytes = at;
    return all;
}
