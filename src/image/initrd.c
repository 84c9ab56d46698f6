/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The initial RAM disk of built images, in the format that Linux calls "newc" (its
 * Documentation/driver-api/early-userspace/buffer-format.rst): a directory of ASCII headers and contents,
 * each padded to 4 bytes, ended by a member of the name TRAILER!!!. Not compressed: the guest would only have
 * to undo it. No locks.
 */
#include "image/build_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "image/libarchive.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

/* The program init.c (init_blob.S). */
extern const uint8_t image_init_start[], image_init_end[];

#define MODULE_MAX (64u << 20) /* bytes; the largest of Debian's has some 10 MiB */

struct cpio {
    FILE *out;
    unsigned inode;
};

static void add_member(struct cpio *c, const char *name, unsigned mode, const void *data, size_t len)
{
    static const char zeroes[4];
    size_t name_len = strlen(name) + 1;

    /* magic, inode, mode, uid, gid, links, mtime, size, device (2), device of the node (2), name's size,
     * check */
    fprintf(c->out, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", c->inode++, mode, 0, 0, 1,
            0, (unsigned)len, 0, 0, S_ISCHR(mode) ? 5 : 0, S_ISCHR(mode) ? 1 : 0, (unsigned)name_len, 0);
    fwrite(name, 1, name_len, c->out);
    fwrite(zeroes, 1, -(110 + name_len) % 4, c->out);
    fwrite(data, 1, len, c->out);
    fwrite(zeroes, 1, -len % 4, c->out);
}

static int read_all(const struct libarchive *lib, struct archive *a, const char *path, char **out,
                    size_t *len, struct error **err)
{
    struct archive_entry *entry;
    cleanup_free char *data = NULL;
    size_t used = 0, size = 0;
    la_ssize_t n = 0;

    lib->archive_read_support_filter_all(a);
    lib->archive_read_support_format_raw(a);
    if (lib->archive_read_open_filename(a, path, 65536) != ARCHIVE_OK ||
        lib->archive_read_next_header(a, &entry) != ARCHIVE_OK)
        return error_set(err, EIO, "%s: %s", path, lib->archive_error_string(a));
    do {
        if (size - used < 65536) {
            size = size ? 2 * size : 1 << 20;
            char *more = size <= MODULE_MAX ? realloc(data, size) : NULL;
            if (!more)
                return error_set_errno(err, ENOMEM, "%s", path);
            data = more;
        }
        n = lib->archive_read_data(a, data + used, size - used);
        used += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    if (n < 0)
        return error_set(err, EIO, "%s: %s", path, lib->archive_error_string(a));
    *out = steal_ptr(data);
    *len = used;
    return 0;
}

/* The file's content, decompressed if it is compressed (Debian compresses modules since 13). */
static int read_module(const char *path, char **out, size_t *len, struct error **err)
{
    const struct libarchive *lib = libarchive(err);

    if (!lib)
        return -ENOPKG;
    struct archive *a = lib->archive_read_new();
    if (!a)
        return error_set_errno(err, ENOMEM, "%s", path);
    int rc = read_all(lib, a, path, out, len, err);
    lib->archive_read_free(a);
    return rc;
}

/* "NAME.ko.xz" is NAME.ko in there. */
static void plain_name(char *name)
{
    char *suffix = strstr(name, ".ko.");

    if (suffix)
        suffix[3] = '\0';
}

static int add_modules(struct cpio *c, const char *directory, struct error **err)
{
    cleanup_free char *order_path = NULL;
    char file[128], names[8192] = "";

    if (asprintf(&order_path, "%s/order", directory) < 0)
        return error_set_errno(err, ENOMEM, "%s", directory);
    cleanup_fclose FILE *order = fopen(order_path, "re");
    if (!order)
        return error_set_errno(err, errno, "%s", order_path);
    while (fscanf(order, "%127s", file) == 1) {
        cleanup_free char *path = NULL, *member = NULL, *data = NULL;
        size_t len = 0, used = strlen(names);

        if (asprintf(&path, "%s/%s", directory, file) < 0)
            return error_set_errno(err, ENOMEM, "%s", directory);
        int rc = read_module(path, &data, &len, err);
        if (rc)
            return rc;
        plain_name(file);
        if (asprintf(&member, "modules/%s", file) < 0 || used + strlen(file) + 2 > sizeof(names))
            return error_set_errno(err, ENOMEM, "%s", directory);
        add_member(c, member, S_IFREG | 0644, data, len);
        sprintf(names + used, "%s\n", file);
    }
    add_member(c, "modules/order", S_IFREG | 0644, names, strlen(names));
    return 0;
}

int initrd_write(const char *path, const char *directory, struct error **err)
{
    cleanup_fclose FILE *out = fopen(path, "we");
    struct cpio c = {.out = out, .inode = 1};

    if (!out)
        return error_set_errno(err, errno, "%s", path);
    /* The kernel opens /dev/console for /init before /init could make it. */
    add_member(&c, "dev", S_IFDIR | 0755, "", 0);
    add_member(&c, "dev/console", S_IFCHR | 0600, "", 0);
    add_member(&c, "init", S_IFREG | 0755, image_init_start, (size_t)(image_init_end - image_init_start));
    add_member(&c, "modules", S_IFDIR | 0755, "", 0);
    int rc = add_modules(&c, directory, err);
    if (rc)
        return rc;
    add_member(&c, "TRAILER!!!", 0, "", 0);
    if (fflush(out) || ferror(out))
        return error_set_errno(err, errno, "%s", path);
    return 0;
}
