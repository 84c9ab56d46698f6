/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * POSIX access control lists of a layer's files, as the kernel takes them: an extended attribute of
 *
 *     u32 version 2, and for each entry u16 tag, u16 permissions, u32 id
 *
 * in the order of the tags. Called by unpack_tree.c, in the process that unpacks. No state.
 */
#include "image/unpack_priv.h"

#include "base/bytes.h"
#include "base/error.h"
#include "image/libarchive.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define ENTRIES_MAX 1024
#define NO_ID       0xffffffffu
#define VERSION     2

/* The kernel's tags. */
enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

struct acl_entry {
    uint16_t tag, permissions;
    uint32_t id;
};

struct acl {
    uint32_t version;
    struct acl_entry entries[ENTRIES_MAX + 1]; /* and a mask */
};

static uint16_t tag_of(int tag)
{
    switch (tag) {
    case ARCHIVE_ENTRY_ACL_USER_OBJ:
        return USER_OBJ;
    case ARCHIVE_ENTRY_ACL_USER:
        return USER;
    case ARCHIVE_ENTRY_ACL_GROUP_OBJ:
        return GROUP_OBJ;
    case ARCHIVE_ENTRY_ACL_GROUP:
        return GROUP;
    case ARCHIVE_ENTRY_ACL_MASK:
        return MASK;
    case ARCHIVE_ENTRY_ACL_OTHER:
        return OTHER;
    default:
        return 0;
    }
}

/* How many there are; who is named without a number is nobody here, and is given nothing. -E2BIG. */
static int take_entries(struct acl *acl, const struct libarchive *lib, struct archive_entry *entry, int type)
{
    int kind, permissions, tag, id, n = 0;
    const char *name;

    while (lib->archive_entry_acl_next(entry, type, &kind, &permissions, &tag, &id, &name) == ARCHIVE_OK) {
        bool named = tag == ARCHIVE_ENTRY_ACL_USER || tag == ARCHIVE_ENTRY_ACL_GROUP;

        if (!tag_of(tag) || (named && id < 0))
            continue;
        if (n == ENTRIES_MAX)
            return -E2BIG;
        acl->entries[n++] = (struct acl_entry){tag_of(tag), permissions & 7, named ? (uint32_t)id : NO_ID};
    }
    return n;
}

/* Where anybody is named there is a mask: without one, all that is given to groups and to those. */
static int complete(struct acl *acl, int n)
{
    uint16_t given = 0;
    bool named = false;

    for (int i = 0; i < n; i++) {
        const struct acl_entry *e = &acl->entries[i];

        if (e->tag == MASK)
            return n;
        named |= e->tag == USER || e->tag == GROUP;
        if (e->tag & (USER | GROUP | GROUP_OBJ))
            given |= e->permissions;
    }
    if (named)
        acl->entries[n++] = (struct acl_entry){MASK, given, NO_ID};
    return n;
}

static int compare(const void *a, const void *b)
{
    const struct acl_entry *x = a, *y = b;

    return x->tag != y->tag ? (x->tag > y->tag) - (x->tag < y->tag) : (x->id > y->id) - (x->id < y->id);
}

static int set_one(int fd, const char *attribute, int type, const struct libarchive *lib,
                   struct archive_entry *entry, struct error **err)
{
    struct acl acl = {.version = VERSION};

    if (lib->archive_entry_acl_reset(entry, type) <= 0)
        return 0;
    int n = take_entries(&acl, lib, entry, type);
    if (n < 0)
        return error_set(err, E2BIG, "its access control list has more than %d entries", ENTRIES_MAX);
    n = complete(&acl, n);
    if (!n)
        return 0;
    qsort(acl.entries, (size_t)n, sizeof(acl.entries[0]), compare);
    size_t size = offsetof(struct acl, entries) + (size_t)n * sizeof(acl.entries[0]);
    if (fsetxattr(fd, attribute, &acl, size, 0) < 0 && errno != EOPNOTSUPP)
        return error_set_errno(err, errno, "its access control list");
    return 0;
}

int unpack_set_acls(int fd, const struct libarchive *lib, struct archive_entry *entry, struct error **err)
{
    struct stat st;
    int rc = set_one(fd, "system.posix_acl_access", ARCHIVE_ENTRY_ACL_TYPE_ACCESS, lib, entry, err);

    if (rc == 0 && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        rc = set_one(fd, "system.posix_acl_default", ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, lib, entry, err);
    return rc;
}
