/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a differencing VHD says of the image that it is based on: that one's ID, its name, and up to eight
 * places of the file that have its path, each for another system. Of these the one relative to the image is
 * ours (W2ru); where there is none, the last part of another, beside the image. No state.
 */
#include "disk/vhd_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/utf16.h"
#include "disk/windows_path.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RELATIVE    0x57327275u /* "W2ru" */
#define ABSOLUTE    0x57326b75u /* "W2ku" */
#define LOCATOR_MAX 65536u

enum { LOCATOR_CODE = 0, LOCATOR_SPACE = 4, LOCATOR_LENGTH = 8, LOCATOR_OFFSET = 16 };

/* The path in the first locator of this kind; NULL: there is none. To be freed. */
static int read_locator(int fd, const uint8_t *header, uint32_t code, char **out, struct error **err)
{
    *out = NULL;
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const uint8_t *l = header + VHD_AT_LOCATORS + (size_t)i * VHD_LOCATOR;
        uint32_t len = get_be32(l + LOCATOR_LENGTH);
        if (get_be32(l + LOCATOR_CODE) != code)
            continue;
        if (len > LOCATOR_MAX || get_be64(l + LOCATOR_OFFSET) > INT64_MAX - LOCATOR_MAX)
            return error_set(err, EINVAL, "is damaged: the name of what it is based on does not fit");
        cleanup_free uint8_t *bytes = malloc(len + 1);
        int rc = bytes ? disk_read_at(fd, bytes, len, get_be64(l + LOCATOR_OFFSET)) : -ENOMEM;
        *out = rc ? NULL : utf16_decode(bytes, len, false);
        if (rc == 0 && !*out)
            rc = -ENOMEM;
        return rc ? error_set_errno(err, -rc, "reading the name of what it is based on") : 0;
    }
    return 0;
}

static char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/'), *from = slash ? slash + 1 : path, *colon = strrchr(from, ':');

    return strdup(colon ? colon + 1 : from);
}

int vhd_parent_name(int fd, const uint8_t *header, char **out, struct error **err)
{
    cleanup_free char *path = NULL, *name = utf16_decode(header + VHD_AT_PARENT_NAME, VHD_PARENT_NAME, true);
    int rc = name ? read_locator(fd, header, RELATIVE, &path, err) : error_set_errno(err, ENOMEM, "its name");

    if (rc == 0 && path && *path) {
        *out = windows_path_to_here(path);
        return *out ? 0 : error_set_errno(err, ENOMEM, "its name");
    }
    if (rc == 0 && !*name) {
        free(path);
        path = NULL;
        rc = read_locator(fd, header, ABSOLUTE, &path, err);
        if (rc == 0 && !path)
            rc = error_set(err, EINVAL, "is based on another image, and does not say which");
    }
    if (rc)
        return rc;
    cleanup_free char *which = windows_path_to_here(*name ? name : path);
    *out = which ? last_part(which) : NULL;
    return *out ? 0 : error_set_errno(err, ENOMEM, "its name");
}

uint64_t vhd_locators_end(const uint8_t *header)
{
    uint64_t end = 0;

    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const uint8_t *l = header + VHD_AT_LOCATORS + (size_t)i * VHD_LOCATOR;
        uint64_t at = get_be64(l + LOCATOR_OFFSET), len = get_be32(l + LOCATOR_LENGTH),
                 space = get_be32(l + LOCATOR_SPACE);
        /* Some count it in sectors: that is less then. */
        if (len < space && space <= LOCATOR_MAX)
            len = space;
        if (!get_be32(l + LOCATOR_CODE) || at > INT64_MAX)
            continue;
        if (end < ALIGN_UP(at + len, (uint64_t)DISK_SECTOR))
            end = ALIGN_UP(at + len, (uint64_t)DISK_SECTOR);
    }
    return end;
}

bool vhd_hits_locator(const uint8_t *header, uint64_t start, uint64_t end)
{
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const uint8_t *l = header + VHD_AT_LOCATORS + (size_t)i * VHD_LOCATOR;
        uint64_t at = get_be64(l + LOCATOR_OFFSET);
        if (get_be32(l + LOCATOR_CODE) && at < end && start < at + get_be32(l + LOCATOR_LENGTH))
            return true;
    }
    return false;
}

int vhd_check_parent(const uint8_t *header, const struct disk *parent, struct error **err)
{
    if (!parent || parent->format != &disk_format_vhd)
        return 0;
    const struct vhd *p = container_of(parent, struct vhd, blocks.disk);
    if (memcmp(p->footer + VHD_AT_ID, header + VHD_AT_PARENT_ID, 16) == 0)
        return 0;
    return error_set(err, ESTALE, "is based on another image than '%s': that one has another ID",
                     parent->files->files[parent->file].name);
}

/* ---- making one ---- */

int vhd_put_parent(const struct disk_build *build, uint8_t *header, uint64_t at, uint8_t *sector,
                   struct error **err)
{
    const char *name = build->what->backing, *slash = strrchr(name, '/');
    cleanup_free char *path = disk_name_beside(build->path, name);
    cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    uint8_t footer[VHD_FOOTER], *l = header + VHD_AT_LOCATORS;
    uint64_t file_end;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(err, path ? errno : ENOMEM, "disk '%s'", name);
    int rc = vhd_find_footer(fd, footer, &file_end, err);
    if (rc)
        return error_wrap(err, "disk '%s'", path);
    cleanup_free char *relative = windows_path_of(name);
    size_t len = relative ? utf16_encode(relative, sector, VHD_LOCATOR_ROOM, false) : SIZE_MAX;
    if (len == SIZE_MAX || utf16_encode(slash ? slash + 1 : name, header + VHD_AT_PARENT_NAME,
                                        VHD_PARENT_NAME - 2, true) == SIZE_MAX)
        return error_set(err, EINVAL, "'%s' is too long, or no name that a VHD can have", name);
    memcpy(header + VHD_AT_PARENT_ID, footer + VHD_AT_ID, 16);
    put_be32(header + VHD_AT_PARENT_TIME, (uint32_t)(st.st_mtime - VHD_YEAR_2000));
    put_be32(l + LOCATOR_CODE, RELATIVE);
    put_be32(l + LOCATOR_SPACE, VHD_LOCATOR_ROOM);
    put_be32(l + LOCATOR_LENGTH, (uint32_t)len);
    put_be64(l + LOCATOR_OFFSET, at);
    return 0;
}
