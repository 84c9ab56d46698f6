/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making VMDK images:
 *
 *     monolithicSparse   header | descriptor | directory, tables | the same once more | grains
 *     streamOptimized    header | descriptor | grains, compressed, in the disk's order | tables | directory
 *                        | header once more | end; a marker before each, so that it can be read as it comes
 *     monolithicFlat, twoGbMaxExtentFlat    descriptor; beside it the content, in one file or more
 *     twoGbMaxExtentSparse                  descriptor; beside it files as monolithicSparse, without theirs
 *
 * See vmdk.c. All calls but `pack` one at a time; no locks.
 */
#include "disk/vmdk_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/new_file.h"
#include "disk/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <unistd.h>

#define GRAIN              (64u << 10)
#define DESCRIPTOR         1u /* sectors */
#define DESCRIPTOR_SECTORS 20u
#define TABLE_SECTORS      (VMDK_TABLE * 4 / DISK_SECTOR)
/* More than deflate makes of a grain that it can't compress; and with what is around it. */
#define PACK_ROOM (GRAIN + 1024u)
#define PACK_MAX  ALIGN_UP(VMDK_MARKER + PACK_ROOM, DISK_SECTOR)

static const struct kind {
    const char *name;
    bool stream, split, flat;
} kinds[] = {
    {.name = "monolithicSparse"},
    {.name = "streamOptimized", .stream = true},
    {.name = "monolithicFlat", .flat = true},
    {.name = "twoGbMaxExtentSparse", .split = true},
    {.name = "twoGbMaxExtentFlat", .split = true, .flat = true},
};

/* One of the files that have the content. */
struct extent {
    uint64_t size;             /* bytes of the disk */
    uint32_t n, n_tables;      /* grains, tables */
    uint32_t *map;             /* of each grain its sector in the file */
    uint64_t spare, directory; /* sectors */
    uint32_t directory_sectors;
    uint64_t end; /* of what is in the file so far */
    int fd;
};

struct builder {
    const struct kind *kind;
    bool alone; /* the descriptor is in the one file */
    struct extent *extents;
    unsigned n;
    uint64_t each; /* bytes of all but the last */
    uint32_t parent;
};

static int lay_out(struct extent *e, const struct builder *v)
{
    e->n = (uint32_t)(e->size / GRAIN + (e->size % GRAIN != 0));
    e->n_tables = (e->n + VMDK_TABLE - 1) / VMDK_TABLE;
    e->map = calloc((size_t)e->n_tables * VMDK_TABLE, sizeof(*e->map));
    e->directory_sectors = (e->n_tables * 4 + DISK_SECTOR - 1) / DISK_SECTOR;
    uint64_t tables = e->directory_sectors + (uint64_t)e->n_tables * TABLE_SECTORS;
    e->spare = DESCRIPTOR + (v->alone ? DESCRIPTOR_SECTORS : 0);
    e->directory = e->spare + tables;
    e->end = v->kind->stream ? GRAIN : ALIGN_UP((e->directory + tables) * DISK_SECTOR, (uint64_t)GRAIN);
    return e->map ? 0 : -ENOMEM;
}

/* "a-flat.vmdk", "a-s001.vmdk", "a-f001.vmdk" for "a.vmdk". */
static void name_extent(const struct disk_build *build, unsigned i, char out[VMDK_NAME_MAX + 1])
{
    const struct builder *v = build->own;
    const char *dot = strrchr(build->name, '.');
    int n = dot && dot != build->name && strcasecmp(dot, ".vmdk") == 0 ? (int)(dot - build->name)
                                                                       : (int)strlen(build->name);

    if (v->kind->split)
        snprintf(out, VMDK_NAME_MAX + 1, "%.*s-%c%03u.vmdk", n, build->name, v->kind->flat ? 'f' : 's',
                 i + 1);
    else
        snprintf(out, VMDK_NAME_MAX + 1, "%.*s-flat.vmdk", n, build->name);
}

static int add_extents(struct disk_build *build, struct error **err)
{
    struct builder *v = build->own;
    uint64_t size = build->what->size;
    int rc = 0;

    v->each = v->kind->split ? VMDK_SPLIT : size;
    uint64_t n = size / v->each + (size % v->each != 0);
    if (n > VMDK_EXTENTS_MAX)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes is too large: %" PRIu64 " at most", size,
                         (uint64_t)VMDK_EXTENTS_MAX * v->each);
    v->extents = calloc(n, sizeof(*v->extents));
    if (!v->extents)
        return error_set_errno(err, ENOMEM, "tables");
    for (v->n = 0; v->n < n && rc == 0; v->n++) {
        struct extent *e = &v->extents[v->n];
        char name[VMDK_NAME_MAX + 1];
        e->size = size - v->n * v->each < v->each ? size - v->n * v->each : v->each;
        e->fd = build->fd;
        if (!v->alone) {
            name_extent(build, v->n, name);
            rc = disk_build_add_part(build, name, err);
            e->fd = rc ? -1 : build->parts[v->n].fd;
        }
        if (rc == 0 && !v->kind->flat && lay_out(e, v))
            rc = error_set_errno(err, ENOMEM, "tables");
    }
    return rc;
}

/* Names are in the text, in quotes. */
static int check_name(const struct disk_build *build, struct error **err)
{
    for (const char *p = build->name; *p; p++)
        if (*p == '"' || (unsigned char)*p < ' ')
            return error_set(err, EINVAL,
                             "a name with quotes or line ends can't be written in a VMDK of "
                             "several files");
    if (strlen(build->name) + strlen("-flat.vmdk") > VMDK_NAME_MAX)
        return error_set(err, ENAMETOOLONG, "the name is too long for one with '-flat' in it");
    return 0;
}

/* The ID of the content that the image is to be based on. */
static int find_parent(struct disk_build *build, struct error **err)
{
    const struct disk_create *what = build->what;
    struct builder *v = build->own;
    cleanup_free char *path = disk_name_beside(build->path, what->backing), *text = NULL;

    if (v->kind->flat || v->kind->stream)
        return error_set(err, EINVAL, "subformat=%s can't be based on another image", v->kind->name);
    if (!what->backing_format || strcmp(what->backing_format, "vmdk") != 0)
        return error_set(err, EINVAL, "a VMDK can only be based on another VMDK ('-F vmdk')");
    if (strpbrk(what->backing, "\"\r\n"))
        return error_set(err, EINVAL, "the name of what it is based on can't have quotes or line ends in it");
    cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return error_set_errno(err, path ? errno : ENOMEM, "disk '%s'", what->backing);
    int rc = vmdk_read_text(fd, &text, err);
    v->parent = rc ? VMDK_NO_PARENT : vmdk_text_number(text, "CID");
    if (rc == 0 && v->parent == VMDK_NO_PARENT)
        rc = error_set(err, EINVAL, "has no ID that an image on it could name");
    return rc ? error_wrap(err, "disk '%s'", path) : 0;
}

static const struct kind *find_kind(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (!name || strcmp(name, kinds[i].name) == 0)
            return &kinds[i];
    return NULL;
}

static int begin(struct disk_build *build, struct error **err)
{
    const struct disk_create *what = build->what;
    const struct kind *kind = find_kind(what->subformat);
    uint64_t n = what->size / GRAIN + (what->size % GRAIN != 0);

    if (what->cluster_size || what->compression)
        return error_set(err, EINVAL, "the format vmdk has no option but subformat");
    if (!kind)
        return error_set(err, EINVAL,
                         "subformat=%s: choose monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, "
                         "twoGbMaxExtentFlat or streamOptimized",
                         what->subformat);
    if (what->compress && !kind->stream)
        return error_set(err, EINVAL, "of VMDK only subformat=streamOptimized is compressed, and always");
    if (n > VMDK_GRAINS_MAX && !kind->flat)
        return error_set(err, EFBIG, "a size of %" PRIu64 " bytes is too large: %" PRIu64 " at most",
                         what->size, (uint64_t)VMDK_GRAINS_MAX * GRAIN);
    struct builder *v = calloc(1, sizeof(*v));
    if (!v)
        return error_set_errno(err, ENOMEM, "tables");
    build->own = v;
    v->kind = kind;
    v->alone = !kind->split && !kind->flat;
    build->unit = GRAIN;
    build->whole = !kind->flat;
    build->ordered = kind->stream;
    build->pack_max = kind->stream ? PACK_MAX : 0;
    v->parent = VMDK_NO_PARENT;
    int rc = what->backing ? find_parent(build, err) : 0;
    if (rc == 0 && !v->alone)
        rc = check_name(build, err);
    return rc ? rc : add_extents(build, err);
}

static int place(struct disk_build *build, uint64_t index, uint32_t length, bool packed, uint64_t *offset)
{
    struct builder *v = build->own;
    unsigned i = (unsigned)(index * GRAIN / v->each);
    struct extent *e = &v->extents[i];
    uint64_t room = ALIGN_UP((uint64_t)length, (uint64_t)DISK_SECTOR), at = e->end;

    /* Nothing but what is compressed can be in a stream. */
    if (v->kind->stream && !packed)
        return -EIO;
    if (v->kind->flat) {
        at = index * GRAIN - i * v->each;
    } else {
        if ((e->end + room) / DISK_SECTOR > UINT32_MAX)
            return -EFBIG;
        e->map[index - i * v->each / GRAIN] = (uint32_t)(e->end / DISK_SECTOR);
        e->end += room;
    }
    *offset = v->alone ? at : disk_build_in_part(i, at);
    return 0;
}

static size_t pack(const struct disk_build *build, struct disk_packer *packer, uint64_t index,
                   const uint8_t *unit, uint8_t *out)
{
    size_t n = disk_pack_zlib(packer, unit, GRAIN, out + VMDK_MARKER, PACK_ROOM), used = n + VMDK_MARKER;
    size_t all = ALIGN_UP(used, (size_t)DISK_SECTOR);

    put_le64(out, index * (GRAIN / DISK_SECTOR));
    put_le32(out + 8, (uint32_t)n);
    memset(out + used, 0, all - used);
    return n ? all : 0;
}

/* ---- the end ---- */

static int write_tables(const struct extent *e, uint64_t directory)
{
    uint64_t first = directory + e->directory_sectors;
    cleanup_free uint8_t *bytes = calloc(e->directory_sectors, DISK_SECTOR);
    uint8_t table[VMDK_TABLE * 4];

    if (!bytes)
        return -ENOMEM;
    for (uint32_t t = 0; t < e->n_tables; t++) {
        const uint32_t *map = e->map + (size_t)t * VMDK_TABLE;
        uint64_t at = first + (uint64_t)t * TABLE_SECTORS;
        put_le32(bytes + 4 * (size_t)t, (uint32_t)at);
        for (uint32_t i = 0; i < VMDK_TABLE; i++)
            put_le32(table + 4 * (size_t)i, map[i]);
        int rc = disk_is_zero(table, sizeof(table))
                     ? 0
                     : disk_write_at(e->fd, table, sizeof(table), at * DISK_SECTOR);
        if (rc)
            return rc;
    }
    return disk_write_at(e->fd, bytes, (size_t)e->directory_sectors * DISK_SECTOR, directory * DISK_SECTOR);
}

static int write_marker(struct extent *e, uint32_t type, uint64_t sectors)
{
    uint8_t marker[DISK_SECTOR] = {0};

    put_le64(marker, sectors);
    put_le32(marker + VMDK_MARKER, type);
    int rc = disk_write_at(e->fd, marker, sizeof(marker), e->end);
    e->end += sizeof(marker);
    return rc;
}

/* The tables that have something, then the directory. */
static int write_stream_tables(struct extent *e)
{
    cleanup_free uint8_t *bytes = calloc(e->directory_sectors, DISK_SECTOR);
    uint8_t table[VMDK_TABLE * 4];
    int rc = bytes ? 0 : -ENOMEM;

    for (uint32_t t = 0; t < e->n_tables && rc == 0; t++) {
        for (uint32_t i = 0; i < VMDK_TABLE; i++)
            put_le32(table + 4 * (size_t)i, e->map[(size_t)t * VMDK_TABLE + i]);
        if (disk_is_zero(table, sizeof(table)))
            continue;
        rc = write_marker(e, VMDK_GRAIN_TABLE, TABLE_SECTORS);
        put_le32(bytes + 4 * (size_t)t, (uint32_t)(e->end / DISK_SECTOR));
        if (rc == 0)
            rc = disk_write_at(e->fd, table, sizeof(table), e->end);
        e->end += sizeof(table);
    }
    if (rc == 0)
        rc = write_marker(e, VMDK_GRAIN_DIRECTORY, e->directory_sectors);
    e->directory = e->end / DISK_SECTOR;
    if (rc == 0)
        rc = disk_write_at(e->fd, bytes, (size_t)e->directory_sectors * DISK_SECTOR, e->end);
    e->end += (uint64_t)e->directory_sectors * DISK_SECTOR;
    return rc;
}

static void fill_header(const struct builder *v, const struct extent *e, uint8_t *h, uint64_t directory)
{
    bool stream = v->kind->stream;
    uint64_t tables_end = 2 * e->directory - e->spare;

    memset(h, 0, VMDK_HEAD);
    put_le32(h, VMDK_MAGIC);
    put_le32(h + VMDK_AT_VERSION, stream ? 3 : 1);
    put_le32(h + VMDK_AT_FLAGS,
             VMDK_LINE_ENDS_VALID | (stream ? VMDK_COMPRESSED | VMDK_MARKERS : VMDK_SPARE));
    put_le64(h + VMDK_AT_CAPACITY, e->size / DISK_SECTOR);
    put_le64(h + VMDK_AT_GRAIN, GRAIN / DISK_SECTOR);
    put_le64(h + VMDK_AT_DESCRIPTOR, v->alone ? DESCRIPTOR : 0);
    put_le64(h + VMDK_AT_DESCRIPTOR_SIZE, v->alone ? DESCRIPTOR_SECTORS : 0);
    put_le32(h + VMDK_AT_TABLE_ENTRIES, VMDK_TABLE);
    put_le64(h + VMDK_AT_SPARE_DIRECTORY, stream ? 0 : e->spare);
    put_le64(h + VMDK_AT_DIRECTORY, directory);
    put_le64(h + VMDK_AT_OVERHEAD, stream
                                       ? GRAIN / DISK_SECTOR
                                       : ALIGN_UP(tables_end * DISK_SECTOR, (uint64_t)GRAIN) / DISK_SECTOR);
    memcpy(h + VMDK_AT_LINE_ENDS, VMDK_LINE_ENDS, 4);
    put_le16(h + VMDK_AT_COMPRESSION, stream ? VMDK_DEFLATE : 0);
}

/* The file's own name is in the text, in quotes: what can't be there is replaced. */
static void quote_name(const struct disk_build *build, char out[VMDK_NAME_MAX + 1])
{
    snprintf(out, VMDK_NAME_MAX + 1, "%s", build->name);
    for (char *p = out; *p; p++)
        if (*p == '"' || (unsigned char)*p < ' ')
            *p = '_';
}

/* The lines of the extents. */
static void list_extents(const struct disk_build *build, FILE *out)
{
    const struct builder *v = build->own;
    char name[VMDK_NAME_MAX + 1];

    for (unsigned i = 0; i < v->n; i++) {
        if (v->alone)
            quote_name(build, name);
        else
            name_extent(build, i, name);
        fprintf(out, "RW %" PRIu64 " %s \"%s\"%s\n", v->extents[i].size / DISK_SECTOR,
                v->kind->flat ? "FLAT" : "SPARSE", name, v->kind->flat ? " 0" : "");
    }
}

/* The descriptor; to be freed. 0 or -errno. */
static int describe(const struct disk_build *build, char **text, size_t *len)
{
    const struct builder *v = build->own;
    uint64_t cylinders = build->what->size / DISK_SECTOR / (16 * 63);
    uint32_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return -EIO;
    FILE *out = open_memstream(text, len);
    if (!out)
        return -ENOMEM;
    /* All ones mean that there is no parent. */
    fprintf(out,
            VMDK_TEXT_START "\nversion=1\nCID=%08" PRIx32 "\nparentCID=%08" PRIx32 "\ncreateType=\"%s\"\n",
            id & 0x7fffffff, v->parent, v->kind->name);
    if (build->what->backing)
        fprintf(out, "parentFileNameHint=\"%s\"\n", build->what->backing);
    fputs("\n# Extent description\n", out);
    list_extents(build, out);
    fprintf(
        out,
        "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"%" PRIu64
        "\"\nddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n",
        cylinders > 16383 ? 16383 : cylinders);
    return fclose(out) == EOF ? -ENOMEM : 0;
}

/* The descriptor of an image in one file, behind its header. */
static int write_head(struct disk_build *build)
{
    const struct builder *v = build->own;
    uint8_t head[(DESCRIPTOR + DESCRIPTOR_SECTORS) * DISK_SECTOR] = {0};
    cleanup_free char *text = NULL;
    size_t len;
    int rc = describe(build, &text, &len);

    if (rc)
        return rc;
    if (len > sizeof(head) - DESCRIPTOR * DISK_SECTOR)
        return -E2BIG;
    fill_header(v, &v->extents[0], head, v->kind->stream ? VMDK_GD_AT_END : v->extents[0].directory);
    memcpy(head + DESCRIPTOR * DISK_SECTOR, text, len);
    return disk_write_at(build->fd, head, sizeof(head), 0);
}

static int end_stream(struct disk_build *build)
{
    const struct builder *v = build->own;
    struct extent *e = &v->extents[0];
    uint8_t footer[VMDK_HEAD];
    int rc = write_stream_tables(e);

    if (rc == 0)
        rc = write_marker(e, VMDK_FOOTER, 1);
    fill_header(v, e, footer, e->directory);
    if (rc == 0)
        rc = disk_write_at(e->fd, footer, sizeof(footer), e->end);
    e->end += sizeof(footer);
    if (rc == 0)
        rc = write_marker(e, VMDK_END, 0);
    return rc ? rc : write_head(build);
}

/* All of an extent but its descriptor. */
static int end_extent(const struct builder *v, const struct extent *e)
{
    uint8_t head[VMDK_HEAD];
    /* The last grain may end in zeros that were not written. */
    int rc = ftruncate(e->fd, (off_t)(v->kind->flat ? e->size : e->end)) < 0 ? -errno : 0;

    if (rc || v->kind->flat)
        return rc;
    rc = write_tables(e, e->spare);
    if (rc == 0)
        rc = write_tables(e, e->directory);
    fill_header(v, e, head, e->directory);
    return rc || v->alone ? rc : disk_write_at(e->fd, head, sizeof(head), 0);
}

static int end(struct disk_build *build)
{
    const struct builder *v = build->own;
    cleanup_free char *text = NULL;
    size_t len;
    int rc = 0;

    if (v->kind->stream)
        return end_stream(build);
    for (unsigned i = 0; i < v->n && rc == 0; i++)
        rc = end_extent(v, &v->extents[i]);
    if (rc || v->alone)
        return rc ? rc : write_head(build);
    rc = describe(build, &text, &len);
    if (rc == 0 && len > VMDK_DESCRIPTOR_MAX)
        rc = -E2BIG;
    return rc ? rc : disk_write_at(build->fd, text, len, 0);
}

static void free_builder(struct disk_build *build)
{
    struct builder *v = build->own;

    for (unsigned i = 0; v && i < v->n; i++)
        free(v->extents[i].map);
    if (v)
        free(v->extents);
    free(v);
}

const struct disk_build_ops vmdk_build = {
    .begin = begin, .place = place, .pack = pack, .end = end, .free = free_builder};
