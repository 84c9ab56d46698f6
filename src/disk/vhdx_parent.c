/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a differencing VHDX says of the image that it is based on: pairs of texts in UTF-16, one of which is
 * the ID that the parent's content had, others are its path ([MS-VHDX] 2.6.2.6). Of these the one from the
 * image's own directory is ours; where there is none, the last part of another, beside the image. No state.
 */
#include "disk/vhdx_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/utf16.h"
#include "disk/windows_path.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOCATOR_MAX 65536u
#define PAIR        12u /* bytes each: offsets of key and value (4 each), their lengths (2 each) */
#define PAIRS_AT    20u
#define PAIRS_MAX   64u
#define LINKAGE     "parent_linkage"
#define RELATIVE    "relative_path"
#define ABSOLUTE    "absolute_win32_path"
#define ID_TEXT     39u /* characters of "{...}", and a 0 */

/* The kind of locator that there is for parents that are VHDX. */
static const uint8_t kind_vhdx[] = {0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
                                    0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13};

/* The first three parts are numbers, little-endian. */
static void print_id(const uint8_t *id, char out[ID_TEXT])
{
    snprintf(out, ID_TEXT, "{%08" PRIx32 "-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x}", get_le32(id),
             get_le16(id + 4), get_le16(id + 6), id[8], id[9], id[10], id[11], id[12], id[13], id[14],
             id[15]);
}

/* The value of a key in the locator; NULL if it has none. To be freed. */
static char *find(const uint8_t *locator, uint32_t len, const char *key)
{
    uint16_t n = get_le16(locator + 18);

    for (unsigned i = 0; i < n && i < PAIRS_MAX && PAIRS_AT + (i + 1) * PAIR <= len; i++) {
        const uint8_t *pair = locator + PAIRS_AT + (size_t)i * PAIR;
        uint32_t key_at = get_le32(pair), value_at = get_le32(pair + 4);
        uint16_t key_len = get_le16(pair + 8), value_len = get_le16(pair + 10);
        if (key_at > len || key_len > len - key_at || value_at > len || value_len > len - value_at)
            continue;
        cleanup_free char *name = utf16_decode(locator + key_at, key_len, false);
        if (name && strcmp(name, key) == 0)
            return utf16_decode(locator + value_at, value_len, false);
    }
    return NULL;
}

static int read_locator(int fd, const struct vhdx_header *h, const struct vhdx_log *log, uint8_t **out,
                        struct error **err)
{
    if (h->parent_length < PAIRS_AT || h->parent_length > LOCATOR_MAX)
        return error_set(err, EINVAL, "is damaged: what it says of its parent does not fit");
    uint8_t *bytes = malloc(h->parent_length);
    int rc = bytes ? vhdx_log_read(log, fd, bytes, h->parent_length, h->parent) : -ENOMEM;
    if (rc)
        error_set_errno(err, -rc, "reading what it is based on");
    else if (memcmp(bytes, kind_vhdx, sizeof(kind_vhdx)) != 0)
        rc = error_set(err, ENOTSUP, "is based on something that is no VHDX");
    if (rc) {
        free(bytes);
        return rc;
    }
    *out = bytes;
    return 0;
}

int vhdx_parent_name(int fd, const struct vhdx_header *h, const struct vhdx_log *log, char **out,
                     struct error **err)
{
    static const char *const others[] = {ABSOLUTE, "volume_path"};
    cleanup_free uint8_t *locator = NULL;
    int rc = read_locator(fd, h, log, &locator, err);

    if (rc)
        return rc;
    cleanup_free char *path = find(locator, h->parent_length, RELATIVE);
    *out = path && *path ? windows_path_to_here(path) : NULL;
    for (unsigned i = 0; i < ARRAY_SIZE(others) && !*out; i++) {
        cleanup_free char *other = find(locator, h->parent_length, others[i]),
                          *whole = other ? windows_path_to_here(other) : NULL;
        const char *slash = whole ? strrchr(whole, '/') : NULL, *last = slash ? slash + 1 : whole;
        *out = last && *last ? strdup(last) : NULL;
    }
    return *out ? 0 : error_set(err, EINVAL, "is based on another image, and does not say which");
}

int vhdx_check_parent(int fd, const struct vhdx_header *h, const struct vhdx_log *log,
                      const struct disk *parent, struct error **err)
{
    cleanup_free uint8_t *locator = NULL;
    char found[ID_TEXT];

    if (!parent || parent->format != &disk_format_vhdx)
        return 0;
    int rc = read_locator(fd, h, log, &locator, err);
    if (rc)
        return rc;
    print_id(container_of(parent, struct vhdx, blocks.disk)->header.bytes + VHDX_AT_DATA_WRITE_ID, found);
    cleanup_free char *first = find(locator, h->parent_length, LINKAGE),
                      *second = find(locator, h->parent_length, LINKAGE "2");
    if ((first && strcasecmp(first, found) == 0) || (second && strcasecmp(second, found) == 0))
        return 0;
    return error_set(err, ESTALE, "is based on what '%s' was: that was written since, or is another file",
                     parent->files->files[parent->file].name);
}

/* ---- making one ---- */

static int put_text(uint8_t *locator, uint32_t *end, const char *text, uint8_t *at, uint8_t *length)
{
    size_t n = utf16_encode(text, locator + *end, VHDX_LOCATOR_ROOM - *end, false);

    if (n == SIZE_MAX)
        return -EINVAL;
    put_le32(at, *end);
    put_le16(length, (uint16_t)n);
    *end += (uint32_t)n;
    return 0;
}

static int put_pair(uint8_t *locator, uint32_t *end, const char *key, const char *value)
{
    uint16_t i = get_le16(locator + 18);
    uint8_t *pair = locator + PAIRS_AT + (size_t)i * PAIR;
    int rc = put_text(locator, end, key, pair, pair + 8);

    put_le16(locator + 18, i + 1);
    return rc ? rc : put_text(locator, end, value, pair + 4, pair + 10);
}

int vhdx_make_locator(const struct disk_build *build, uint8_t *locator, uint32_t *length, struct error **err)
{
    const char *name = build->what->backing;
    cleanup_free char *path = disk_name_beside(build->path, name), *relative = windows_path_of(name);
    cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    struct vhdx_header h;
    struct vhdx_log log;
    char id[ID_TEXT];
    uint64_t file_end;
    uint32_t end = PAIRS_AT + 3 * PAIR;

    if (fd < 0 || !relative)
        return error_set_errno(err, path && relative ? errno : ENOMEM, "disk '%s'", name);
    int rc = vhdx_header_read(&h, &log, fd, &file_end, err);
    vhdx_log_free(&log);
    if (rc)
        return error_wrap(err, "disk '%s'", path);
    memcpy(locator, kind_vhdx, sizeof(kind_vhdx));
    print_id(h.bytes + VHDX_AT_DATA_WRITE_ID, id);
    /* libvhdi looks for the name in the other path alone, and takes no more than the name from it. */
    if (put_pair(locator, &end, LINKAGE, id) || put_pair(locator, &end, RELATIVE, relative) ||
        put_pair(locator, &end, ABSOLUTE, relative))
        return error_set(err, EINVAL, "'%s' is too long, or no name that a VHDX can have", name);
    *length = end;
    return 0;
}
