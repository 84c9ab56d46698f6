/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes the files of an archive below a directory. Nothing outside is reached whatever names and links say:
 * each directory is opened by the kernel below the root (openat2, RESOLVE_BENEATH), each file made by its
 * last name in it. Called by unpack_stream.c in the confined process. No locks.
 *
 * Whiteouts are those of the OCI image specification (1.1, "Image Layer Filesystem Changeset"): `.wh.NAME`
 * deletes NAME of the layers below, `.wh..wh..opq` all that its directory has there. Neither concerns the
 * layer's own files.
 */
#include "image/unpack_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define WHITEOUT      ".wh."
#define OPAQUE        ".wh..wh..opq"
#define OPAQUE_NAME   "user.overlay.opaque"
#define DIRECTORIES   (1u << 20) /* at most, of one archive */
#define LOOK_AT_SPACE (64ull << 20)
#define SPACE_LEFT    50 /* the disk keeps a part of this many */

/* A directory gets its time when nothing is made in it any more. */
struct directory {
    char *path;
    struct timespec time;
};

struct unpack_tree {
    int root;
    bool layer;
    uint64_t most, bytes, entries;
    uint64_t unseen; /* bytes written since the disk's space was looked at */
    char *parent;    /* path of the directory that was opened last, and it */
    int parent_fd;
    struct directory *directories;
    size_t n_directories;
};

static const struct timespec now = {.tv_nsec = UTIME_NOW};

/* ---- paths ---- */

const char *unpack_path(char *path)
{
    char *to = path;

    if (!path[0])
        return "it has no name";
    if (path[0] == '/')
        return "its name is absolute";
    if (strlen(path) >= PATH_MAX)
        return "its name is too long";
    for (const char *from = path; *from;) {
        size_t len = strcspn(from, "/");

        if (len == 2 && from[0] == '.' && from[1] == '.')
            return "its name has '..' in it";
        if (len > NAME_MAX)
            return "its name is too long";
        if (len && !(len == 1 && from[0] == '.')) {
            if (to != path)
                *to++ = '/';
            memmove(to, from, len);
            to += len;
        }
        from += len;
        from += strspn(from, "/");
    }
    if (to == path)
        *to++ = '.';
    *to = '\0';
    return NULL;
}

static int open_beneath(int root, const char *path, uint64_t flags)
{
    const struct open_how how = {.flags = flags | O_CLOEXEC,
                                 .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    long fd;

    do
        fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return fd < 0 ? -errno : (int)fd;
}

static int directory_error(int rc, const char *path, struct error **err)
{
    if (rc == -EXDEV || rc == -ELOOP)
        return error_set(err, EINVAL, "'%s' leads out of it by a symbolic link", path);
    if (rc == -ENOTDIR)
        return error_set(err, EINVAL, "'%s' is no directory", path);
    return error_set_errno(err, -rc, "'%s'", path);
}

/* What is missing of the path's directories. */
static int make_directories(struct unpack_tree *t, char *path)
{
    for (char *slash = strchr(path, '/');; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = '\0';
        char *last = strrchr(path, '/');
        if (last)
            *last = '\0';
        cleanup_close int parent = open_beneath(t->root, last ? path : ".", O_RDONLY | O_DIRECTORY);
        if (last)
            *last = '/';
        const char *name = last ? last + 1 : path;
        int rc = parent < 0 ? parent : mkdirat(parent, name, 0755) < 0 ? -errno : 0;
        /* What a layer says nothing of is as usual, whatever this process's mask is: it covers what is below.
         */
        if (rc == 0 && t->layer && fchmodat(parent, name, 0755, 0) < 0)
            rc = -errno;
        if (slash)
            *slash = '/';
        if (rc && rc != -EEXIST)
            return rc;
        if (!slash)
            return 0;
    }
}

/* The directory that `path`, which unpack_path has seen, is in; made where it is missing. *base is its last
 * name. The descriptor stays the tree's. */
static int open_parent(struct unpack_tree *t, const char *path, const char **base, struct error **err)
{
    const char *slash = strrchr(path, '/');
    cleanup_free char *parent = slash ? strndup(path, (size_t)(slash - path)) : strdup(".");

    if (!parent)
        return error_set_errno(err, ENOMEM, "unpacking");
    *base = slash ? slash + 1 : path;
    if (t->parent && strcmp(parent, t->parent) == 0)
        return t->parent_fd;
    int fd = open_beneath(t->root, parent, O_RDONLY | O_DIRECTORY);
    if (fd == -ENOENT) {
        int rc = make_directories(t, parent);
        fd = rc ? rc : open_beneath(t->root, parent, O_RDONLY | O_DIRECTORY);
    }
    if (fd < 0)
        return directory_error(fd, parent, err);
    cleanup_close_fn(&t->parent_fd);
    free(t->parent);
    t->parent = steal_ptr(parent);
    t->parent_fd = fd;
    return fd;
}

/* After something was taken away that it may have been. */
static void forget_parent(struct unpack_tree *t)
{
    cleanup_close_fn(&t->parent_fd);
    t->parent_fd = -1;
    free(steal_ptr(t->parent));
}

/* ---- whiteouts ---- */

static bool is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(0, 0);
}

static int set_opaque(int directory, struct error **err)
{
    if (fsetxattr(directory, OPAQUE_NAME, "y", 1, 0) == 0)
        return 0;
    if (errno == EOPNOTSUPP)
        return error_set(
            err, EOPNOTSUPP,
            "the file system of the image store has no extended attributes, which layers take: put it on "
            "another (TABIQUE_HOME)");
    return error_set_errno(err, errno, "extended attribute");
}

static int add_whiteout(int parent, const char *name, struct error **err)
{
    struct stat st;

    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return error_set(err, EINVAL, "it deletes nothing that could be there");
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return mknodat(parent, name, S_IFCHR, makedev(0, 0)) < 0 ? error_set_errno(err, errno, "mknod") : 0;
    /* The layer's own file takes the place anyway; its own directory must not show what is below. */
    if (!S_ISDIR(st.st_mode))
        return 0;
    cleanup_close int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? error_set_errno(err, errno, "open") : set_opaque(fd, err);
}

/* ---- files ---- */

/* Makes room for an entry. 1 if there was a whiteout in its place, 2 if a directory is there that may stay.
 */
static int clear_place(struct unpack_tree *t, int parent, const char *base, bool directory,
                       struct error **err)
{
    struct stat st;

    if (fstatat(parent, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : error_set_errno(err, errno, "stat");
    if (S_ISDIR(st.st_mode) && directory)
        return 2;
    if (unlinkat(parent, base, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0)
        return errno == ENOTEMPTY
                   ? error_set(err, EINVAL, "it takes the place of a directory that is not empty")
                   : error_set_errno(err, errno, "unlink");
    if (S_ISDIR(st.st_mode))
        forget_parent(t);
    return is_whiteout(&st);
}

static int check_space(struct unpack_tree *t, uint64_t more, struct error **err)
{
    struct statvfs fs;

    t->unseen += more;
    if (t->unseen < LOOK_AT_SPACE || fstatvfs(t->root, &fs) < 0)
        return 0;
    t->unseen = 0;
    if (fs.f_bavail < fs.f_blocks / SPACE_LEFT)
        return error_set(err, ENOSPC, "the disk of the image store is all but full");
    return 0;
}

static int write_at(int fd, const uint8_t *p, size_t len, int64_t at, struct error **err)
{
    while (len) {
        ssize_t n = pwrite(fd, p, len, at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_set_errno(err, n < 0 ? errno : EIO, "writing it to the store");
        p += n;
        at += n;
        len -= (size_t)n;
    }
    return 0;
}

static int write_data(struct unpack_tree *t, int fd, const struct libarchive *lib, struct archive *a,
                      int64_t size, struct error **err)
{
    for (;;) {
        const void *block;
        size_t len;
        la_int64_t at;
        int rc = lib->archive_read_data_block(a, &block, &len, &at);

        if (rc == ARCHIVE_EOF)
            break;
        if (rc != ARCHIVE_OK && rc != ARCHIVE_WARN)
            return error_set(err, EINVAL, "%s", lib->archive_error_string(a));
        if (at < 0 || at > size || (int64_t)len > size - at)
            return error_set(err, EINVAL, "it has more data than it says");
        rc = check_space(t, len, err);
        if (rc == 0)
            rc = write_at(fd, block, len, at, err);
        if (rc)
            return rc;
    }
    return ftruncate(fd, size) < 0 ? error_set_errno(err, errno, "writing it to the store") : 0;
}

/* Those that mean the same everywhere: what file capabilities a program has, and what people noted. */
static bool is_kept_attribute(const char *name)
{
    return strcmp(name, "security.capability") == 0 ||
           (strncmp(name, "user.", 5) == 0 && strncmp(name, "user.overlay.", 13) != 0);
}

static int set_attributes(int fd, const struct libarchive *lib, struct archive_entry *entry,
                          struct error **err)
{
    const char *name;
    const void *value;
    size_t len;

    lib->archive_entry_xattr_reset(entry);
    while (lib->archive_entry_xattr_next(entry, &name, &value, &len) == ARCHIVE_OK) {
        if (name && is_kept_attribute(name) && fsetxattr(fd, name, value, len, 0) < 0 && errno != EOPNOTSUPP)
            return error_set_errno(err, errno, "its extended attribute");
    }
    return 0;
}

static int owner_error(int64_t uid, int64_t gid, struct error **err)
{
    if (errno == EINVAL)
        return error_set(err, EINVAL,
                         "its owner %" PRId64 ":%" PRId64
                         " is none of the ids that this process has: /etc/subuid and "
                         "/etc/subgid give them",
                         uid, gid);
    return error_set_errno(err, errno, "its owner %" PRId64 ":%" PRId64, uid, gid);
}

/* Owner first, which takes set-id bits and capabilities away. `fd` is a file or directory. */
static int dress(struct unpack_tree *t, int fd, const struct libarchive *lib, struct archive_entry *entry,
                 struct error **err)
{
    int64_t uid = lib->archive_entry_uid(entry), gid = lib->archive_entry_gid(entry);

    if (!t->layer)
        return 0;
    if (uid < 0 || gid < 0 || uid >= UINT32_MAX || gid >= UINT32_MAX)
        return error_set(err, EINVAL, "its owner %" PRId64 ":%" PRId64 " is none", uid, gid);
    if (fchown(fd, (uid_t)uid, (gid_t)gid) < 0)
        return owner_error(uid, gid, err);
    if (fchmod(fd, lib->archive_entry_perm(entry) & 07777) < 0)
        return error_set_errno(err, errno, "its mode");
    int rc = set_attributes(fd, lib, entry, err);
    return rc ? rc : unpack_set_acls(fd, lib, entry, err);
}

static void times_of(const struct libarchive *lib, struct archive_entry *entry, struct timespec times[2])
{
    times[0] = now;
    times[1] = (struct timespec){.tv_sec = lib->archive_entry_mtime(entry),
                                 .tv_nsec = lib->archive_entry_mtime_nsec(entry) % 1000000000l};
}

static int add_file(struct unpack_tree *t, int parent, const char *base, const struct libarchive *lib,
                    struct archive *a, struct archive_entry *entry, struct error **err)
{
    int64_t size = lib->archive_entry_size(entry);
    struct timespec times[2];

    if (size < 0 || (uint64_t)size > t->most - t->bytes)
        return error_set(err, EFBIG,
                         "it unpacks to more than %" PRIu64
                         " MiB, out of proportion to its size: this looks like a bomb",
                         t->most >> 20);
    t->bytes += (uint64_t)size;
    cleanup_close int fd = openat(parent, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set_errno(err, errno, "making it in the store");
    int rc = write_data(t, fd, lib, a, size, err);
    if (rc == 0)
        rc = dress(t, fd, lib, entry, err);
    times_of(lib, entry, times);
    if (rc == 0)
        futimens(fd, times);
    return rc;
}

static int remember_directory(struct unpack_tree *t, const char *path, struct timespec time,
                              struct error **err)
{
    if (t->n_directories == DIRECTORIES)
        return error_set(err, E2BIG, "there are more than %u directories", DIRECTORIES);
    if ((t->n_directories & (t->n_directories - 1)) == 0) {
        struct directory *more = realloc(t->directories, (t->n_directories * 2 + 1) * sizeof(*more));

        if (!more)
            return error_set_errno(err, ENOMEM, "unpacking");
        t->directories = more;
    }
    t->directories[t->n_directories] = (struct directory){.path = strdup(path), .time = time};
    if (!t->directories[t->n_directories].path)
        return error_set_errno(err, ENOMEM, "unpacking");
    t->n_directories++;
    return 0;
}

static int add_directory(struct unpack_tree *t, int parent, const char *base, const char *path, int place,
                         const struct libarchive *lib, struct archive_entry *entry, struct error **err)
{
    struct timespec times[2];

    if (place != 2 && mkdirat(parent, base, 0700) < 0)
        return error_set_errno(err, errno, "making it in the store");
    cleanup_close int fd = openat(parent, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return error_set_errno(err, errno, "opening it in the store");
    int rc = dress(t, fd, lib, entry, err);
    if (rc == 0 && place == 1)
        rc = set_opaque(fd, err);
    times_of(lib, entry, times);
    return rc ? rc : remember_directory(t, path, times[1], err);
}

static int add_symlink(struct unpack_tree *t, int parent, const char *base, const struct libarchive *lib,
                       struct archive_entry *entry, struct error **err)
{
    const char *target = lib->archive_entry_symlink(entry);
    struct timespec times[2];
    int64_t uid = lib->archive_entry_uid(entry), gid = lib->archive_entry_gid(entry);

    if (!target || !*target || strlen(target) >= PATH_MAX)
        return error_set(err, EINVAL, "it is a symbolic link to nothing that could be there");
    if (symlinkat(target, parent, base) < 0)
        return error_set_errno(err, errno, "making it in the store");
    if (t->layer && fchownat(parent, base, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW) < 0)
        return owner_error(uid, gid, err);
    times_of(lib, entry, times);
    utimensat(parent, base, times, AT_SYMLINK_NOFOLLOW);
    return 0;
}

static int add_link(struct unpack_tree *t, int parent, const char *base, const char *target,
                    struct error **err)
{
    cleanup_free char *path = strdup(target);
    struct stat st;

    if (!path)
        return error_set_errno(err, ENOMEM, "unpacking");
    const char *wrong = unpack_path(path);
    if (wrong)
        return error_set(err, EINVAL, "it is a link to '%s': %s", target, wrong);
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = '\0';
    cleanup_close int from = open_beneath(t->root, slash ? path : ".", O_RDONLY | O_DIRECTORY);
    if (from < 0)
        return directory_error(from, path, err);
    const char *name = slash ? slash + 1 : path;
    if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return error_set(err, EINVAL, "it is a link to '%s', which is not there", target);
    if (S_ISDIR(st.st_mode) || is_whiteout(&st))
        return error_set(err, EINVAL, "it is a link to '%s', which is no file", target);
    return linkat(from, name, parent, base, 0) < 0 ? error_set_errno(err, errno, "linking it to '%s'", target)
                                                   : 0;
}

static int add_fifo(struct unpack_tree *t, int parent, const char *base, const struct libarchive *lib,
                    struct archive_entry *entry, struct error **err)
{
    int64_t uid = lib->archive_entry_uid(entry), gid = lib->archive_entry_gid(entry);

    if (mknodat(parent, base, S_IFIFO | 0600, 0) < 0)
        return error_set_errno(err, errno, "making it in the store");
    if (fchownat(parent, base, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW) < 0)
        return owner_error(uid, gid, err);
    /* What was just made here is no link. */
    return fchmodat(parent, base, lib->archive_entry_perm(entry) & 07777, 0) < 0
               ? error_set_errno(err, errno, "its mode")
               : 0;
}

/* In dev/ the runtime has its own, and images that were made from a whole system have them too: they are left
 * out. Elsewhere nobody has an honest use for one. */
static int refuse_device(const char *path, struct error **err)
{
    return strncmp(path, "dev/", 4) == 0
               ? 0
               : error_set(err, EPERM, "it is a device node, which images have none of outside of dev/");
}

static int add_entry(struct unpack_tree *t, char *path, const struct libarchive *lib, struct archive *a,
                     struct archive_entry *entry, struct error **err)
{
    const char *link = lib->archive_entry_hardlink(entry), *base;
    mode_t type = lib->archive_entry_filetype(entry);

    if (!link && (type == AE_IFCHR || type == AE_IFBLK))
        return t->layer ? refuse_device(path, err) : error_set(err, EPERM, "it is a device node");
    if (strcmp(path, ".") == 0) {
        if (link || type != AE_IFDIR)
            return error_set(err, EINVAL, "the root is no directory");
        return dress(t, t->root, lib, entry, err);
    }
    int parent = open_parent(t, path, &base, err);
    if (parent < 0)
        return parent;
    if (t->layer && strcmp(base, OPAQUE) == 0)
        return set_opaque(parent, err);
    if (t->layer && strncmp(base, WHITEOUT WHITEOUT, 8) == 0)
        return 0; /* what one of the older union file systems noted for itself */
    if (t->layer && strncmp(base, WHITEOUT, 4) == 0)
        return add_whiteout(parent, base + 4, err);
    int place = clear_place(t, parent, base, !link && type == AE_IFDIR, err);
    if (place < 0)
        return place;
    parent = open_parent(t, path, &base, err);
    if (parent < 0)
        return parent;
    if (link)
        return add_link(t, parent, base, link, err);
    switch (type) {
    case AE_IFREG:
        return add_file(t, parent, base, lib, a, entry, err);
    case AE_IFDIR:
        return add_directory(t, parent, base, path, place, lib, entry, err);
    case AE_IFLNK:
        return add_symlink(t, parent, base, lib, entry, err);
    case AE_IFIFO:
        if (t->layer)
            return add_fifo(t, parent, base, lib, entry, err);
        break;
    default:
        break;
    }
    return error_set(err, EINVAL, "it is no kind of file that can be unpacked");
}

/* ---- the whole ---- */

int unpack_tree_begin(struct unpack_tree **out, const struct unpack_job *job, uint64_t most,
                      struct error **err)
{
    struct unpack_tree *t = calloc(1, sizeof(*t));

    if (!t)
        return error_set_errno(err, ENOMEM, "unpacking");
    *t = (struct unpack_tree){.root = job->root, .layer = job->layer, .most = most, .parent_fd = -1};
    *out = t;
    return 0;
}

int unpack_tree_add(struct unpack_tree *t, const struct libarchive *lib, struct archive *a,
                    struct archive_entry *entry, struct error **err)
{
    const char *name = lib->archive_entry_pathname(entry);
    char shown[256];

    if (!name)
        return error_set(err, EINVAL, "a file in it has a name that can't be read");
    text_make_printable(shown, sizeof(shown), name);
    cleanup_free char *path = strdup(name);
    if (!path)
        return error_set_errno(err, ENOMEM, "unpacking");
    const char *wrong = unpack_path(path);
    int rc = wrong ? error_set(err, EINVAL, "%s", wrong) : add_entry(t, path, lib, a, entry, err);
    if (rc)
        return error_wrap(err, "'%s'", shown);
    t->entries++;
    return 0;
}

int unpack_tree_end(struct unpack_tree *t, struct unpack_result *out, struct error **err)
{
    forget_parent(t);
    /* The last said counts, as with files. */
    for (size_t i = 0; i < t->n_directories; i++) {
        const struct timespec times[2] = {now, t->directories[i].time};
        cleanup_close int fd =
            open_beneath(t->root, t->directories[i].path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);

        if (fd >= 0)
            futimens(fd, times);
    }
    out->bytes = t->bytes;
    out->entries = t->entries;
    return 0;
}

void unpack_tree_free(struct unpack_tree *t)
{
    if (!t)
        return;
    forget_parent(t);
    for (size_t i = 0; i < t->n_directories; i++)
        free(t->directories[i].path);
    free(t->directories);
    free(t);
}
