/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening and locking an image and what it is based on, by path, while we still may. Of the contents only the
 * names of backing files are read, and those by the formats' `backing`. No locks of ours.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk_priv.h"
#include "disk/luks.h"
#include "disk/nbd_link.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

/*
 * Bytes of the file that QEMU's programs lock, so that theirs and ours exclude each other: a lock on
 * QEMU_LOCK_USES + n says "I do n", one on QEMU_LOCK_REFUSES + n "nobody else may do n". Of what n can be,
 * reading and writing matter to us.
 */
#define QEMU_LOCK_USES    100
#define QEMU_LOCK_REFUSES 200
#define QEMU_LOCK_RANGE   64
#define QEMU_LOCK_READ    0
#define QEMU_LOCK_WRITE   1

#define HEAD 512u

/* For some images with chains of DISK_FILES_MAX. */
#define DESCRIPTORS_MAX 65536u

/* Which files that an image names are opened. */
enum follow {
    FOLLOW_DECLARED, /* those of an image whose format is declared */
    FOLLOW_ALLOWED,  /* those of the image too, if it is not */
    FOLLOW_REFUSED,  /* none: an image that names one is refused */
    FOLLOW_NOT,      /* none: nobody looks for them */
    FOLLOW_ALONE,    /* none: what is not in the image itself is to be read as zeros */
};

static int lock_range(int fd, bool exclusive, off_t start, off_t len)
{
    struct flock lock = {
        .l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = len};

    return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* Whether others hold a lock on a byte, of whatever kind. */
static bool is_locked(int fd, off_t at)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* Of who wrote, and now only reads. Others could not come between: what they are to be refused stays locked.
 */
static void share_lock(int fd)
{
    const off_t ranges[] = {QEMU_LOCK_USES, QEMU_LOCK_REFUSES};
    const off_t kept[] = {QEMU_LOCK_READ, QEMU_LOCK_WRITE};

    for (unsigned i = 0; i < 2; i++) {
        struct flock all = {
            .l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = ranges[i], .l_len = QEMU_LOCK_RANGE};

        lock_range(fd, false, ranges[i] + kept[i], 1);
        all.l_len = kept[i];
        if (all.l_len)
            fcntl(fd, F_OFD_SETLK, &all);
        all.l_start += kept[i] + 1;
        all.l_len = QEMU_LOCK_RANGE - kept[i] - 1;
        fcntl(fd, F_OFD_SETLK, &all);
    }
}

static int take_lock(int fd, bool read_only)
{
    int rc;

    if (read_only) {
        rc = lock_range(fd, false, QEMU_LOCK_USES + QEMU_LOCK_READ, 1);
        if (rc == 0)
            rc = lock_range(fd, false, QEMU_LOCK_REFUSES + QEMU_LOCK_WRITE, 1);
        /* Who says what it does does not keep others from refusing it: they have to look, once they have. */
        if (rc == 0 && is_locked(fd, QEMU_LOCK_USES + QEMU_LOCK_WRITE))
            rc = -EAGAIN;
    } else {
        rc = lock_range(fd, true, QEMU_LOCK_USES, QEMU_LOCK_RANGE);
        if (rc == 0)
            rc = lock_range(fd, true, QEMU_LOCK_REFUSES, QEMU_LOCK_RANGE);
    }
    return rc;
}

/*
 * A descriptor that holds the lock on the file that is open as `fd`, or -errno. It has an open file of its
 * own, for the lock goes with the last reference to that, and io_uring keeps its files for a while after the
 * end of a process.
 */
int disk_lock_file(int fd, const char *path, bool read_only, struct error **err)
{
    cleanup_close int lock_fd =
        open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat a, b;

    if (lock_fd < 0 || fstat(lock_fd, &a) < 0 || fstat(fd, &b) < 0)
        return error_set_errno(err, errno, "disk '%s'", path);
    if (a.st_dev != b.st_dev || a.st_ino != b.st_ino)
        return error_set(err, EAGAIN, "disk '%s' was replaced while it was being opened", path);
    int rc = take_lock(lock_fd, read_only);
    if (rc == -EAGAIN || rc == -EACCES)
        return error_set(err, EBUSY, "disk '%s' is in use by another program%s", path,
                         read_only ? ", which writes it" : ": only one may write it");
    return rc ? error_set_errno(err, -rc, "disk '%s': locking it", path) : steal_fd(lock_fd);
}

/* Whether the chain has come to a file that is in it already. */
static bool is_there(const struct disk_files *files, const struct stat *st)
{
    for (unsigned i = 0; i < files->n; i++)
        if (files->files[i].device == st->st_dev && files->files[i].inode == st->st_ino)
            return true;
    return false;
}

/* Opens the file at `path` and locks it; parts are files and lie where their name says. Sets of *file the
 * descriptors and what they are. 0 or -errno with *err. */
static int open_and_lock(const struct disk_files *files, const char *path, bool read_only, bool part,
                         struct disk_file *file, struct error **err)
{
    struct stat st;
    cleanup_close int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | (part ? O_NOFOLLOW : 0) | O_CLOEXEC |
                                          O_NOCTTY | O_NONBLOCK);

    if (fd < 0 && part && errno == ELOOP)
        return error_set(err, ELOOP, "disk '%s' is a symbolic link: what an image consists of lies beside it",
                         path);
    if (fd < 0 && !read_only && (errno == EACCES || errno == EROFS))
        return error_set(err, errno, "disk '%s': %s (with ',readonly' it need not be written)", path,
                         strerror(errno));
    if ((fd < 0 && errno != EISDIR) || (fd >= 0 && fstat(fd, &st) < 0))
        return error_set_errno(err, errno, "disk '%s'", path);
    if (fd < 0 || S_ISDIR(st.st_mode))
        return error_set(err, EISDIR, "disk '%s' is a directory: give a file or a block device", path);
    if (!S_ISREG(st.st_mode) && (part || !S_ISBLK(st.st_mode)))
        return error_set(err, EINVAL, "disk '%s' is %s", path,
                         part ? "no file, and part of an image" : "neither a file nor a block device");
    if (is_there(files, &st))
        return error_set(err, ELOOP,
                         part ? "disk '%s' comes twice in what an image consists of"
                              : "disk '%s' is based on itself",
                         path);
    /* It was for FIFOs. With it, io_uring would fail where it should wait. */
    fcntl(fd, F_SETFL, 0);
    int rc = files->unlocked ? -1 : disk_lock_file(fd, path, read_only, err);
    if (rc < 0 && !files->unlocked)
        return rc;
    *file = (struct disk_file){
        .fd = steal_fd(fd), .lock_fd = rc, .part = part, .device = st.st_dev, .inode = st.st_ino};
    return 0;
}

/* An image, or what it is based on. */
static int open_image(const struct disk_files *files, const char *path, struct disk_file *file,
                      struct error **err)
{
    if (nbd_is_uri(path) && files->n == 0) {
        struct nbd_remote *remote = NULL;
        int socket = nbd_connect(path, &remote, err);
        if (socket >= 0)
            *file = (struct disk_file){.fd = socket, .lock_fd = -1, .remote = remote};
        return socket < 0 ? socket : 0;
    }
    return open_and_lock(files, path, files->read_only || files->n > 0, false, file, err);
}

static int told_format(const struct disk_file *file, const struct disk_format **out, struct error **err)
{
    uint8_t head[HEAD] = {0};
    int rc = disk_read_at(file->fd, head, sizeof(head), 0);

    if (rc)
        return error_set_errno(err, -rc, "disk '%s'", file->name);
    *out = disk_format_probe(head, sizeof(head));
    return 0;
}

char *disk_name_beside(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');
    char *whole;

    if (name[0] == '/' || !slash)
        return strdup(name);
    return asprintf(&whole, "%.*s/%s", (int)(slash - path), path, name) < 0 ? NULL : whole;
}

/* Looks for what `file`, with its format not yet set where nobody has declared one, is based on. *name and
 * *format are that file's, NULL if there is none. */
static int look_behind(struct disk_file *file, enum follow follow, char **name, char **format,
                       struct error **err)
{
    bool declared = file->format;
    const struct disk_format *f = declared ? disk_format_find(file->format) : NULL;
    cleanup_free char *found = NULL;
    int rc = 0;

    *name = *format = NULL;
    if (!declared)
        rc = told_format(file, &f, err);
    else if (!f)
        rc = error_set(err, EINVAL, "disk '%s': '%s' is no format known here", file->name, file->format);
    if (rc)
        return rc;
    if (!declared) {
        file->format = strdup(f->name);
        if (!file->format)
            return error_set_errno(err, ENOMEM, "disk '%s'", file->name);
    }
    if (f->backing && follow != FOLLOW_NOT && follow != FOLLOW_ALONE)
        rc = f->backing(file->fd, &found, format, err);
    if (rc)
        return error_wrap(err, "disk '%s'", file->name);
    if (follow == FOLLOW_REFUSED && found)
        return error_set(err, EPERM,
                         "disk '%s' is based on the file '%s': if it is from somebody you trust, let that be "
                         "opened with --follow",
                         file->name, found);
    if (!declared && found && follow != FOLLOW_ALLOWED)
        return error_set(err, EINVAL,
                         "disk '%s' looks like %s and names another file, which a guest could have written "
                         "there: say format=%s if it is yours",
                         file->name, f->name, f->name);
    *name = found ? disk_name_beside(file->name, found) : NULL;
    return found && !*name ? error_set_errno(err, ENOMEM, "disk '%s'", file->name) : 0;
}

/* Says whose the file is that something is wrong with, unless that is the image itself. */
static int wrap_behind(const struct disk_files *files, unsigned file, struct error **err, int rc)
{
    return file ? error_wrap(err, "what disk '%s' is based on", files->files[file - 1].name) : rc;
}

/* Room for one more, behind the last. */
static int add_file(struct disk_files *files, struct disk_file **out)
{
    struct disk_file *more = realloc(files->files, (files->n + 1) * sizeof(*more));

    if (!more)
        return -ENOMEM;
    files->files = more;
    *out = &more[files->n];
    return 0;
}

/* Long chains take more descriptors than a process may have by default. */
static void raise_limit(void)
{
    struct rlimit now;

    if (getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur < now.rlim_max) {
        now.rlim_cur = now.rlim_max < DESCRIPTORS_MAX ? now.rlim_max : DESCRIPTORS_MAX;
        setrlimit(RLIMIT_NOFILE, &now);
    }
}

/* What a server has is the disk's content: who says raw says that. */
static int set_remote_format(struct disk_file *file, struct error **err)
{
    if (file->format && strcmp(file->format, "raw") != 0 && strcmp(file->format, "nbd") != 0)
        return error_set(err, EINVAL, "disk '%s': what a server has is read as raw, not as %s", file->name,
                         file->format);
    free(file->format);
    file->format = strdup("nbd");
    return file->format ? 0 : error_set_errno(err, ENOMEM, "disk '%s'", file->name);
}

/* ---- images in several files ---- */

int disk_names_add(struct disk_names *names, const char *name)
{
    char **more = realloc(names->list, (names->n + 1) * sizeof(*more));

    if (!more)
        return -ENOMEM;
    names->list = more;
    more[names->n] = strdup(name);
    return more[names->n] ? (names->n++, 0) : -ENOMEM;
}

void disk_names_free(struct disk_names *names)
{
    for (unsigned i = 0; i < names->n; i++)
        free(names->list[i]);
    free(names->list);
    *names = (struct disk_names){0};
}

bool disk_is_namesake(const char *image, const char *part)
{
    const char *slash = strrchr(image, '/'), *own = slash ? slash + 1 : image, *dot = strrchr(own, '.');
    size_t whole = strlen(own), stem = dot && dot != own ? (size_t)(dot - own) : whole;

    return (strncmp(own, part, whole) == 0 && part[whole] == '-') ||
           (strncmp(own, part, stem) == 0 && part[stem] == '-');
}

/* Whether the parts of image `owner` may be opened: its descriptor may be anyone's. */
static int check_part(const struct disk_file *owner, const char *name, bool declared, enum follow follow,
                      struct error **err)
{
    if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return error_set(err, EPERM,
                         "disk '%s' consists of '%s' too: only files beside it, with plain names, are opened",
                         owner->name, name);
    if (follow == FOLLOW_ALLOWED || (follow == FOLLOW_DECLARED && declared))
        return 0;
    if (follow == FOLLOW_DECLARED)
        return error_set(err, EINVAL,
                         "disk '%s' looks like %s and names another file, which a guest could have written "
                         "there: say format=%s if it is yours",
                         owner->name, owner->format, owner->format);
    return disk_is_namesake(owner->name, name)
               ? 0
               : error_set(err, EPERM,
                           "disk '%s' consists of the file '%s' too, which is not named after it: if it is "
                           "from somebody you trust, let that be opened with --follow",
                           owner->name, name);
}

static int open_part(struct disk_files *files, unsigned owner, const char *name, struct error **err)
{
    cleanup_free char *path = disk_name_beside(files->files[owner].name, name);
    struct disk_file *file = NULL;

    if (files->n == DISK_FILES_MAX)
        return error_set(err, E2BIG, "disk '%s' needs more than %u files", files->files[owner].name,
                         DISK_FILES_MAX);
    int rc = !path || add_file(files, &file)
                 ? error_set_errno(err, ENOMEM, "disk '%s'", name)
                 : open_and_lock(files, path, files->read_only || owner > 0, true, file, err);
    if (rc)
        return rc;
    files->n++;
    file->name = steal_ptr(path);
    file->format = strdup("raw");
    return file->format ? 0 : error_set_errno(err, ENOMEM, "disk '%s'", file->name);
}

/* The further files of the image that was opened last. */
static int open_parts(struct disk_files *files, bool declared, enum follow follow, struct error **err)
{
    unsigned owner = files->n - 1;
    const struct disk_format *f = disk_format_find(files->files[owner].format);
    struct disk_names names = {0};

    if (!f->parts || follow == FOLLOW_NOT)
        return 0;
    int rc = f->parts(files->files[owner].fd, &names, err);
    if (rc)
        return error_wrap(err, "disk '%s'", files->files[owner].name);
    for (unsigned i = 0; i < names.n && rc == 0; i++)
        rc = check_part(&files->files[owner], names.list[i], declared, follow, err);
    if (rc == -EPERM && f->parts_apart && follow == FOLLOW_ALONE) {
        disk_names_free(&names);
        rc = 0;
    }
    for (unsigned i = 0; i < names.n && rc == 0; i++)
        rc = open_part(files, owner, names.list[i], err)
                 ? error_wrap(err, "what disk '%s' consists of", files->files[owner].name)
                 : 0;
    disk_names_free(&names);
    return rc;
}

static int open_chain(struct disk_files *files, const char *path, const char *format, enum follow follow,
                      struct error **err)
{
    cleanup_free char *name = strdup(path);
    cleanup_free char *declared = format ? strdup(format) : NULL;

    if (!name || (format && !declared))
        return error_set_errno(err, ENOMEM, "disk '%s'", path);
    while (name) {
        if (files->n == DISK_FILES_MAX)
            return error_set(err, ELOOP, "disk '%s' is based on more than %u files", path,
                             DISK_FILES_MAX - 1);
        struct disk_file *file = NULL;
        int rc = add_file(files, &file) ? error_set_errno(err, ENOMEM, "disk '%s'", path)
                                        : open_image(files, name, file, err);
        if (rc)
            return wrap_behind(files, files->n, err, rc);
        unsigned image = files->n++;
        bool was_declared = declared;
        file->name = steal_ptr(name);
        file->format = steal_ptr(declared);
        rc = file->remote ? set_remote_format(file, err) : 0;
        if (rc)
            return rc;
        rc = look_behind(file, follow, &name, &declared, err);
        if (rc == 0)
            rc = open_parts(files, was_declared, follow, err);
        if (rc)
            return wrap_behind(files, image, err, rc);
        /* The person has spoken of the image, not of what is behind it. */
        if (follow == FOLLOW_ALLOWED)
            follow = FOLLOW_DECLARED;
    }
    return 0;
}

static int open_files(struct disk_files **out, const char *path, const char *format, bool read_only,
                      bool unlocked, enum follow follow, struct error **err)
{
    struct disk_files *files = calloc(1, sizeof(*files));

    if (!files)
        return error_set_errno(err, ENOMEM, "disk '%s'", path);
    files->read_only = read_only;
    files->unlocked = unlocked;
    raise_limit();
    files->alone = follow == FOLLOW_ALONE;
    int rc = open_chain(files, path, format, follow, err);
    if (rc == 0 && follow != FOLLOW_NOT) {
        rc = disk_io_create(&files->io, files->files, files->n);
        if (rc)
            error_set_errno(err, -rc, "disk '%s'", path);
    }
    if (rc) {
        disk_files_close(files);
        return rc;
    }
    *out = files;
    return 0;
}

int disk_files_open(struct disk_files **out, const char *path, const char *format, bool read_only,
                    struct error **err)
{
    return open_files(out, path, format, read_only, false, FOLLOW_DECLARED, err);
}

int disk_files_open_unlocked(struct disk_files **out, const char *path, const char *format, bool read_only,
                             struct error **err)
{
    return open_files(out, path, format, read_only, true, FOLLOW_DECLARED, err);
}

int disk_files_open_to_read(struct disk_files **out, const char *path, const char *format, bool follow,
                            struct error **err)
{
    return open_files(out, path, format, true, false, follow ? FOLLOW_ALLOWED : FOLLOW_REFUSED, err);
}

int disk_files_open_to_write(struct disk_files **out, const char *path, const char *format, bool follow,
                             struct error **err)
{
    return open_files(out, path, format, false, false, follow ? FOLLOW_ALLOWED : FOLLOW_REFUSED, err);
}

int disk_files_open_first(struct disk_files **out, const char *path, const char *format, bool unlocked,
                          struct error **err)
{
    return open_files(out, path, format, true, unlocked, FOLLOW_NOT, err);
}

int disk_files_open_alone(struct disk_files **out, const char *path, const char *format, bool read_only,
                          struct error **err)
{
    return open_files(out, path, format, read_only, false, FOLLOW_ALONE, err);
}

int disk_files_new(struct disk_files **out, const struct disk_file *list, unsigned n, bool read_only,
                   struct error **err)
{
    struct disk_files *files = calloc(1, sizeof(*files));
    int rc = n && n <= DISK_FILES_MAX ? 0 : -EINVAL;

    for (unsigned i = 0; files && i < n && !rc; i++) {
        struct disk_file *file;

        rc = add_file(files, &file);
        if (rc)
            break;
        files->n++;
        *file = (struct disk_file){.fd = list[i].fd,
                                   .lock_fd = -1,
                                   .part = list[i].part,
                                   .name = strdup(list[i].name),
                                   .format = strdup(list[i].format)};
        if (!file->name || !file->format)
            rc = -ENOMEM;
    }
    if (!files)
        rc = -ENOMEM;
    if (rc == 0) {
        files->read_only = read_only;
        rc = disk_io_create(&files->io, files->files, n);
    }
    if (rc) {
        for (unsigned i = files ? files->n : 0; i < n; i++)
            close(list[i].fd);
        disk_files_close(files);
        return error_set_errno(err, -rc, "disk '%s'", list[0].name);
    }
    *out = files;
    return 0;
}

int disk_files_read_secret(struct disk_files *files, const char *path, struct error **err)
{
    return disk_secret_read(&files->secret, path, err);
}

/* The number behind the last file of the image that begins with number `first`: its parts follow it. */
static unsigned end_of_image(const struct disk_files *files, unsigned first)
{
    unsigned i = first + 1;

    while (i < files->n && files->files[i].part)
        i++;
    return i;
}

static int put_first(struct disk_files *files, int fd, const char *name, const char *format)
{
    struct disk_file new = {.fd = fd, .lock_fd = -1, .name = strdup(name), .format = strdup(format)}, *last;
    int rc = !new.name || !new.format     ? -ENOMEM
             : files->n == DISK_FILES_MAX ? -ELOOP
                                          : add_file(files, &last);

    if (rc == 0)
        rc = disk_io_push(files->io, fd);
    if (rc) {
        close(fd);
        free(new.name);
        free(new.format);
        return rc;
    }
    memmove(files->files + 1, files->files, files->n++ * sizeof(*files->files));
    files->files[0] = new;
    return 0;
}

int disk_files_push(struct disk_files *files, int fd, const char *name)
{
    int rc = put_first(files, fd, name, "qcow2");

    if (rc)
        return rc;
    for (unsigned i = 1; i < end_of_image(files, 1); i++)
        if (files->files[i].lock_fd >= 0)
            share_lock(files->files[i].lock_fd);
    return 0;
}

int disk_files_replace(struct disk_files *files, int fd, const char *name, const char *format)
{
    int rc = put_first(files, fd, name, format);

    if (rc)
        return rc;
    files->n_replaced = files->n - 1;
    files->n = 1;
    return 0;
}

static void take_back_replaced(struct disk_files *files)
{
    files->n += files->n_replaced;
    files->n_replaced = 0;
}

static void close_file(struct disk_file *file)
{
    close(file->fd);
    nbd_remote_free(file->remote);
    cleanup_close_fn(&file->lock_fd);
    free(file->name);
    free(file->format);
}

void disk_files_pop(struct disk_files *files)
{
    take_back_replaced(files);
    disk_io_pop(files->io);
    close_file(&files->files[0]);
    memmove(files->files, files->files + 1, --files->n * sizeof(*files->files));
    /* Nobody knows that it could be had meanwhile. */
    for (unsigned i = 0; i < end_of_image(files, 0) && !files->read_only; i++)
        if (files->files[i].lock_fd >= 0)
            take_lock(files->files[i].lock_fd, false);
}

void disk_files_keep_first(struct disk_files *files)
{
    unsigned n = end_of_image(files, 0);

    take_back_replaced(files);
    disk_io_keep_first(files->io, n);
    while (files->n > n)
        close_file(&files->files[--files->n]);
}

int disk_hold(const char *path, struct error **err)
{
    cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    return fd < 0 ? error_set_errno(err, errno, "disk '%s'", path) : disk_lock_file(fd, path, false, err);
}

void disk_hold_shared(int lock_fd)
{
    share_lock(lock_fd);
}

void disk_files_avoid_uring(struct disk_files *files)
{
    disk_io_avoid_uring(files->io);
}

void disk_files_close(struct disk_files *files)
{
    if (!files)
        return;
    take_back_replaced(files);
    disk_io_free(files->io);
    disk_secret_free(files->secret);
    for (unsigned i = 0; i < files->n; i++)
        close_file(&files->files[i]);
    free(files->files);
    free(files);
}
