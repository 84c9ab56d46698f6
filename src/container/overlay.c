/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * overlayfs (Linux, Documentation/filesystems/overlayfs.rst). The kernel takes the layers as one text of at
 * most a page, so they go by short links from the directory of the container, which is the working directory
 * meanwhile. No locks; changes the working directory of the process for a moment.
 */
#include "container/overlay.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define OPTIONS_MAX     4095 /* what mount(2) takes, without its final zero */
#define OVERLAYFS_MAGIC 0x794c7630

static int make_directory(const char *name, mode_t mode, struct error **err)
{
    return mkdir(name, mode) < 0 && errno != EEXIST ? error_set_errno(err, errno, "%s", name) : 0;
}

/* Those of an earlier start may lead elsewhere. */
static int clear_links(struct error **err)
{
    DIR *dir = opendir("lower");

    if (!dir)
        return error_set_errno(err, errno, "lower");
    for (struct dirent *e; (e = readdir(dir));)
        unlinkat(dirfd(dir), e->d_name, 0);
    closedir(dir);
    return 0;
}

/* The topmost comes first, and has the number 0. */
static int make_links(const char *const *layers, size_t n, char **options, struct error **err)
{
    size_t len = 0;
    FILE *f = open_memstream(options, &len);

    if (!f)
        return error_set_errno(err, ENOMEM, "layers");
    fputs("userxattr,upperdir=upper,workdir=work,lowerdir=", f);
    int rc = clear_links(err);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        char link[32];

        snprintf(link, sizeof(link), "lower/%zu", i);
        if (symlink(layers[n - 1 - i], link) < 0)
            rc = error_set_errno(err, errno, "%s", link);
        fprintf(f, "%s%s", i ? ":" : "", link);
    }
    if (fclose(f) && rc == 0)
        rc = error_set_errno(err, ENOMEM, "layers");
    if (rc == 0 && len > OPTIONS_MAX)
        rc = error_set(err, E2BIG, "the image has %zu layers, more than can be mounted", n);
    return rc;
}

/* The new root is as the topmost layer's is. */
static int make_upper(const char *topmost, struct error **err)
{
    struct stat st;

    if (mkdir("upper", 0755) < 0)
        return errno == EEXIST ? 0 : error_set_errno(err, errno, "upper");
    if (stat(topmost, &st) < 0 || chown("upper", st.st_uid, st.st_gid) < 0 ||
        chmod("upper", st.st_mode & 07777) < 0)
        return error_set_errno(err, errno, "upper");
    return 0;
}

static int refused(int errnum, struct error **err)
{
    struct statfs fs;

    if (errnum == EINVAL && statfs("upper", &fs) == 0 && fs.f_type == OVERLAYFS_MAGIC)
        return error_set(
            err, errnum,
            "the state directory lies on an overlay file system, on which no other can write: put it "
            "elsewhere (TABIQUE_HOME)");
    if (errnum == ENODEV)
        return error_set(err, errnum, "the kernel has no overlay file system: modprobe overlay");
    return error_set_errno(err, errnum, "mounting the image's layers");
}

static int mount_here(const char *const *layers, size_t n, struct error **err)
{
    cleanup_free char *options = NULL;
    int rc = n ? make_upper(layers[n - 1], err) : error_set(err, EINVAL, "the image has no layers");

    if (rc == 0)
        rc = make_directory("work", 0700, err);
    if (rc == 0)
        rc = make_directory("lower", 0700, err);
    if (rc == 0)
        rc = make_directory("root", 0755, err);
    if (rc == 0)
        rc = make_links(layers, n, &options, err);
    /* Devices are those of the container's own /dev. */
    if (rc == 0 && mount("overlay", "root", "overlay", MS_NODEV, options) < 0)
        rc = refused(errno, err);
    return rc;
}

int overlay_mount(const char *directory, const char *const *layers, size_t n, struct error **err)
{
    cleanup_close int before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (chdir(directory) < 0)
        return error_set_errno(err, errno, "%s", directory);
    int rc = mount_here(layers, n, err);
    if (before < 0 || fchdir(before) < 0)
        rc = rc ? rc : chdir("/") < 0 ? error_set_errno(err, errno, "/") : 0;
    return rc;
}
