/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The header of a qcow2 file, which may be made with ill intent. qcow2_backing runs in a process that still
 * has its rights, so it reads no more than two names; what the rest says is checked here and used elsewhere.
 */
#include "disk/qcow2_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/luks.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

/* Extensions follow the header; nobody writes more of them. */
#define EXTENSIONS_MAX 64
#define FORMAT_MAX     64u

bool qcow2_probe(const uint8_t *head, size_t len)
{
    return len >= 4 && get_be32(head) == QCOW2_MAGIC;
}

static int parse(const uint8_t *h, struct qcow2_header *out, struct error **err)
{
    struct qcow2_header r = {
        .version = get_be32(h + QCOW2_AT_VERSION),
        .backing_offset = get_be64(h + QCOW2_AT_BACKING_OFFSET),
        .backing_size = get_be32(h + QCOW2_AT_BACKING_SIZE),
        .cluster_bits = get_be32(h + QCOW2_AT_CLUSTER_BITS),
        .size = get_be64(h + QCOW2_AT_SIZE),
        .l1_size = get_be32(h + QCOW2_AT_L1_SIZE),
        .l1_offset = get_be64(h + QCOW2_AT_L1_OFFSET),
        .reftable_offset = get_be64(h + QCOW2_AT_REFTABLE_OFFSET),
        .reftable_clusters = get_be32(h + QCOW2_AT_REFTABLE_CLUSTERS),
        .snapshots = get_be32(h + QCOW2_AT_SNAPSHOTS),
        .snapshots_offset = get_be64(h + QCOW2_AT_SNAPSHOTS_OFFSET),
        .crypt = get_be32(h + QCOW2_AT_CRYPT),
        .refcount_order = 4,
        .header_length = QCOW2_HEADER_V2,
    };

    if (get_be32(h) != QCOW2_MAGIC)
        return error_set(err, EINVAL, "is not a qcow2 image");
    if (r.version != 2 && r.version != 3)
        return error_set(err, ENOTSUP, "is qcow2 of version %u: 2 and 3 are known here", r.version);
    if (r.cluster_bits < QCOW2_CLUSTER_MIN || r.cluster_bits > QCOW2_CLUSTER_MAX)
        return error_set(err, EINVAL, "is damaged: clusters of 2^%u bytes", r.cluster_bits);
    if (r.crypt != QCOW2_CRYPT_NONE && r.crypt != QCOW2_CRYPT_LUKS)
        return error_set(err, ENOTSUP, "is encrypted by method %u: LUKS (2) is known here", r.crypt);
    if (r.version == 3) {
        r.incompatible = get_be64(h + QCOW2_AT_INCOMPATIBLE);
        r.compatible = get_be64(h + QCOW2_AT_COMPATIBLE);
        r.autoclear = get_be64(h + QCOW2_AT_AUTOCLEAR);
        r.refcount_order = get_be32(h + QCOW2_AT_REFCOUNT_ORDER);
        r.header_length = get_be32(h + QCOW2_AT_HEADER_LENGTH);
        if (r.header_length < QCOW2_HEADER_V3 || r.header_length % 8 || r.header_length >> r.cluster_bits)
            return error_set(err, EINVAL, "is damaged: a header of %u bytes", r.header_length);
        if (r.header_length > QCOW2_AT_COMPRESSION)
            r.compression = h[QCOW2_AT_COMPRESSION];
    }
    if (r.backing_offset &&
        (!r.backing_size || r.backing_size > QCOW2_BACKING_MAX || r.backing_offset >> r.cluster_bits ||
         r.backing_offset + r.backing_size > 1ull << r.cluster_bits))
        return error_set(err, EINVAL, "is damaged: the name of its backing file does not fit");
    *out = r;
    return 0;
}

int qcow2_read_fields(int fd, struct qcow2_header *out, struct error **err)
{
    uint8_t h[QCOW2_HEADER_LARGEST];
    int rc = disk_read_at(fd, h, sizeof(h), 0);

    return rc ? error_set_errno(err, -rc, "reading its header") : parse(h, out, err);
}

/* ---- the backing file's name and format ---- */

/* `len` bytes of the file as text; NULL, with *err, if they are none. */
static char *read_text(int fd, uint64_t offset, uint32_t len, const char *what, struct error **err)
{
    cleanup_free char *text = malloc(len + 1u);
    int rc = text ? disk_read_at(fd, text, len, offset) : -ENOMEM;

    if (rc) {
        error_set_errno(err, -rc, "reading %s", what);
        return NULL;
    }
    text[len] = '\0';
    if (strlen(text) != len) {
        error_set(err, EINVAL, "is damaged: %s is no text", what);
        return NULL;
    }
    return steal_ptr(text);
}

int qcow2_find_extension(int fd, const struct qcow2_header *header, uint32_t type, uint64_t *at,
                         uint32_t *len)
{
    uint64_t next = header->header_length, end = 1ull << header->cluster_bits;

    /* What is behind may be the name of the backing file already. */
    if (header->backing_offset && header->backing_offset < end)
        end = header->backing_offset;
    for (unsigned i = 0; i < EXTENSIONS_MAX && next + 8 <= end; i++) {
        uint8_t head[8];
        int rc = disk_read_at(fd, head, sizeof(head), next);
        if (rc)
            return rc;
        uint32_t found = get_be32(head), n = get_be32(head + 4);
        next += 8;
        if (!found)
            return 0;
        if (n > end - next)
            return -EINVAL;
        if (found == type) {
            *at = next;
            *len = n;
            return 1;
        }
        next += ALIGN_UP((uint64_t)n, 8);
    }
    return 0;
}

static int find_format(int fd, const struct qcow2_header *header, char **format, struct error **err)
{
    uint64_t at;
    uint32_t len;

    int rc = qcow2_find_extension(fd, header, QCOW2_EXTENSION_BACKING_FORMAT, &at, &len);

    if (rc == -EINVAL)
        return error_set(err, EINVAL, "is damaged: a header extension does not fit");
    if (rc <= 0)
        return rc ? error_set_errno(err, -rc, "reading its header") : 0;
    if (!len || len > FORMAT_MAX)
        return error_set(err, EINVAL, "is damaged: the format of its backing file");
    *format = read_text(fd, at, len, "the format of its backing file", err);
    return *format ? 0 : -EINVAL;
}

/* Names are paths. QEMU's programs may also write what is none, such as "json:{...}" or "nbd://host". */
static int check_name(const char *name, struct error **err)
{
    size_t word = strcspn(name, ":/");

    if (name[word] == ':')
        return error_set(err, ENOTSUP, "has the backing file '%s': only names of files are supported", name);
    return 0;
}

int qcow2_backing(int fd, char **name, char **format, struct error **err)
{
    struct qcow2_header header;
    cleanup_free char *found = NULL, *its_format = NULL;
    int rc = qcow2_read_fields(fd, &header, err);

    if (rc)
        return rc;
    if (header.backing_offset) {
        found =
            read_text(fd, header.backing_offset, header.backing_size, "the name of its backing file", err);
        if (!found)
            return -EINVAL;
        if (strncmp(found, "file:", 5) == 0)
            memmove(found, found + 5, strlen(found + 5) + 1);
        rc = check_name(found, err);
        if (rc == 0)
            rc = find_format(fd, &header, &its_format, err);
        if (rc)
            return rc;
    }
    *name = steal_ptr(found);
    *format = steal_ptr(its_format);
    return 0;
}

/* The name of the file that has the clusters; NULL if it is not said. */
static int data_file_name(int fd, const struct qcow2_header *h, char **out, struct error **err)
{
    uint64_t at;
    uint32_t len;
    int rc = h->incompatible & QCOW2_DATA_FILE
                 ? qcow2_find_extension(fd, h, QCOW2_EXTENSION_DATA_FILE, &at, &len)
                 : 0;

    *out = NULL;
    if (rc == -EINVAL || (rc > 0 && (!len || len > QCOW2_BACKING_MAX)))
        return error_set(err, EINVAL, "is damaged: the name of the file that has its data");
    if (rc <= 0)
        return rc ? error_set_errno(err, -rc, "reading its header") : 0;
    *out = read_text(fd, at, len, "the name of the file that has its data", err);
    return *out ? 0 : -EINVAL;
}

int qcow2_parts(int fd, struct disk_names *out, struct error **err)
{
    struct qcow2_header h;
    cleanup_free char *name = NULL;
    int rc = qcow2_read_fields(fd, &h, err);

    if (rc == 0)
        rc = data_file_name(fd, &h, &name, err);
    if (rc || !name)
        return rc;
    return disk_names_add(out, name) ? error_set_errno(err, ENOMEM, "the file that has its data") : 0;
}

/* ---- all of it ---- */

static int check_features(const struct qcow2_header *h, bool read_only, struct error **err)
{
    uint64_t unknown = h->incompatible & ~QCOW2_INCOMPATIBLE_KNOWN;

    if (unknown)
        return error_set(err, ENOTSUP,
                         "needs features that are not known here (incompatible bits 0x%" PRIx64 ")", unknown);
    if (h->incompatible & QCOW2_EXTENDED_L2 && h->cluster_bits < QCOW2_WIDE_CLUSTER_MIN)
        return error_set(err, EINVAL, "is damaged: it has subclusters in clusters of %u bytes",
                         1u << h->cluster_bits);
    if (h->incompatible & QCOW2_CORRUPT && !read_only)
        return error_set(err, EROFS,
                         "is marked as corrupt: repair it with 'tabique disk repair', or use it readonly");
    if (h->incompatible & QCOW2_DIRTY && !read_only)
        return error_set(err, EROFS,
                         "was not closed by its last user (it has lazy refcounts): repair it with 'tabique "
                         "disk repair', or use it readonly");
    if (h->compression != QCOW2_ZLIB && h->compression != QCOW2_ZSTD)
        return error_set(err, ENOTSUP, "is compressed by an unknown method (%u)", h->compression);
    if ((h->compression != QCOW2_ZLIB) != !!(h->incompatible & QCOW2_COMPRESSION))
        return error_set(err, EINVAL, "is damaged: its header contradicts itself about compression");
    if (h->refcount_order > 6)
        return error_set(err, EINVAL, "is damaged: refcounts of 2^%u bits", h->refcount_order);
    return 0;
}

static bool table_fits(const struct qcow2_header *h, uint64_t offset, uint64_t bytes, uint64_t file_end)
{
    uint64_t cluster = 1ull << h->cluster_bits;

    return offset && offset % cluster == 0 && offset <= file_end && bytes <= file_end - offset;
}

static int check_tables(const struct qcow2_header *h, uint64_t file_end, struct error **err)
{
    uint64_t reach = 1ull << (2 * h->cluster_bits - qcow2_entry_bits(h)); /* of one L1 entry */
    uint64_t entries = h->size / reach + (h->size % reach != 0);
    uint64_t reftable = (uint64_t)h->reftable_clusters << h->cluster_bits;

    if (!h->size)
        return error_set(err, EINVAL, "has a size of 0 bytes");
    if (h->size % DISK_SECTOR || h->size > INT64_MAX)
        return error_set(err, EINVAL, "has a size of %" PRIu64 " bytes, which is no number of sectors",
                         h->size);
    if (entries > QCOW2_L1_MAX / 8)
        return error_set(err, EFBIG, "has a size of %" PRIu64 " bytes, too many for its clusters", h->size);
    if (h->l1_size > QCOW2_L1_MAX / 8)
        return error_set(err, EINVAL, "is damaged: an L1 table of %" PRIu32 " entries", h->l1_size);
    if (h->l1_size < entries)
        return error_set(err, EINVAL, "is damaged: its L1 table is too small");
    if (!table_fits(h, h->l1_offset, 8ull * h->l1_size, file_end))
        return error_set(err, EINVAL, "is damaged: its L1 table is not in the file");
    if (!reftable || reftable > QCOW2_REFTABLE_MAX || !table_fits(h, h->reftable_offset, reftable, file_end))
        return error_set(err, EINVAL, "is damaged: its refcount table is not in the file");
    return 0;
}

/* Where LUKS' header is. */
static int find_crypt(int fd, struct qcow2_header *h, struct error **err)
{
    uint8_t e[16];
    uint64_t at;
    uint32_t len;
    int rc = qcow2_find_extension(fd, h, QCOW2_EXTENSION_CRYPT, &at, &len);

    if (rc == 1 && len >= sizeof(e))
        rc = disk_read_at(fd, e, sizeof(e), at);
    else if (rc >= 0)
        rc = -EINVAL;
    if (rc)
        return rc == -EINVAL ? error_set(err, EINVAL, "is damaged: it is encrypted, and has no LUKS header")
                             : error_set_errno(err, -rc, "reading its header");
    h->crypt_offset = get_be64(e);
    h->crypt_bytes = get_be64(e + 8);
    return 0;
}

int qcow2_read_header(int fd, bool read_only, struct qcow2_header *out, uint64_t *file_end,
                      struct error **err)
{
    struct qcow2_header header;
    off_t end = lseek(fd, 0, SEEK_END);

    if (end < 0)
        return error_set_errno(err, errno, "finding out its length");
    int rc = qcow2_read_fields(fd, &header, err);
    if (rc == 0)
        rc = check_features(&header, read_only, err);
    if (rc == 0)
        rc = check_tables(&header, (uint64_t)end, err);
    if (rc == 0 && header.crypt)
        rc = find_crypt(fd, &header, err);
    if (rc == 0 && header.crypt &&
        !table_fits(&header, header.crypt_offset, header.crypt_bytes, (uint64_t)end))
        rc = error_set(err, EINVAL, "is damaged: its LUKS header is not in the file");
    if (rc)
        return rc;
    *out = header;
    *file_end = (uint64_t)end;
    return 0;
}

/* How many bitmaps it has that are valid, by the header's word. */
static uint32_t count_bitmaps(int fd, const struct qcow2_header *h)
{
    uint8_t n[4];
    uint64_t at;
    uint32_t len;

    if (!(h->autoclear & QCOW2_BITMAPS_VALID) ||
        qcow2_find_extension(fd, h, QCOW2_EXTENSION_BITMAPS, &at, &len) != 1 || len < sizeof(n) ||
        disk_read_at(fd, n, sizeof(n), at) < 0)
        return 0;
    return get_be32(n);
}

int qcow2_describe(int fd, struct disk_info *info, struct error **err)
{
    struct qcow2_header h;
    cleanup_free char *data = NULL;
    uint64_t payload;
    int rc = qcow2_read_fields(fd, &h, err);

    if (rc == 0)
        rc = data_file_name(fd, &h, &data, err);
    if (rc)
        return rc;
    info->size = h.size;
    disk_info_add(info, "version", "%u", h.version);
    disk_info_add(info, "cluster-size", "%u", 1u << h.cluster_bits);
    disk_info_add(info, "compression-type", h.compression == QCOW2_ZSTD ? "zstd" : "zlib");
    disk_info_add(info, "refcount-bits", "%u", h.refcount_order <= 6 ? 1u << h.refcount_order : 0);
    disk_info_add(info, "lazy-refcounts", h.compatible & QCOW2_LAZY_REFCOUNTS ? "yes" : "no");
    disk_info_add(info, "snapshots", "%" PRIu32, h.snapshots);
    disk_info_add(info, "bitmaps", "%" PRIu32, count_bitmaps(fd, &h));
    disk_info_add(info, "corrupt", h.incompatible & QCOW2_CORRUPT ? "yes" : "no");
    disk_info_add(info, "dirty", h.incompatible & QCOW2_DIRTY ? "yes" : "no");
    disk_info_add(info, "extended-l2", h.incompatible & QCOW2_EXTENDED_L2 ? "yes" : "no");
    if (h.incompatible & QCOW2_DATA_FILE) {
        disk_info_add(info, "data-file", "%s", data ? data : "(not named)");
        disk_info_add(info, "data-file-raw", h.autoclear & QCOW2_DATA_FILE_RAW ? "yes" : "no");
    }
    if (!h.crypt)
        return 0;
    rc = find_crypt(fd, &h, err);
    return rc ? rc : luks_describe(fd, h.crypt_offset, info, &payload, err);
}
