/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Namespaces and an empty root. Root makes the namespaces directly; anybody else makes a user namespace
 * first, in which he may. A container often permits neither: its root may still change the root directory.
 * Runs in the only thread there is; no locks.
 */
#include "host/confine_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define FILE_MAX_BYTES (64u << 10) /* of the one file that a root may hold */

static int write_text(const char *path, const char *text)
{
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return -errno;
    return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

/* In the new namespace we are whom we were: files made on its tmpfs need an id that is mapped. */
static int map_identity(uid_t uid, gid_t gid)
{
    char line[64];

    snprintf(line, sizeof(line), "%u %u 1", uid, uid);
    int rc = write_text("/proc/self/uid_map", line);
    if (rc == 0)
        rc = write_text("/proc/self/setgroups", "deny");
    snprintf(line, sizeof(line), "%u %u 1", gid, gid);
    return rc ? rc : write_text("/proc/self/gid_map", line);
}

static void enter_user_namespace(struct confine_status *status)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    int rc = unshare(CLONE_NEWUSER) < 0 ? -errno : map_identity(uid, gid);

    confine_mark(status, CONFINE_USER, rc);
}

static void enter_namespace(struct confine_status *status, enum confine_step step, int flag)
{
    confine_mark(status, step, unshare(flag) < 0 ? -errno : 0);
}

/* Whoever unpacks is where its files get the owners that they shall have: in no other user namespace. */
static void confine_unpack_namespaces(struct confine_status *status)
{
    status->state[CONFINE_USER] = CONFINE_UNNEEDED;
    enter_namespace(status, CONFINE_MOUNT, CLONE_NEWNS);
    enter_namespace(status, CONFINE_NETWORK, CLONE_NEWNET);
    enter_namespace(status, CONFINE_IPC, CLONE_NEWIPC);
    enter_namespace(status, CONFINE_UTS, CLONE_NEWUTS);
    enter_namespace(status, CONFINE_CGROUP, CLONE_NEWCGROUP);
}

void confine_namespaces(const struct confine_config *config, struct confine_status *status)
{
    if (config->kind == CONFINE_UNPACK) {
        confine_unpack_namespaces(status);
        return;
    }
    if (unshare(CLONE_NEWNS) == 0) {
        confine_mark(status, CONFINE_MOUNT, 0);
        status->state[CONFINE_USER] = CONFINE_UNNEEDED;
    } else {
        enter_user_namespace(status);
        enter_namespace(status, CONFINE_MOUNT, CLONE_NEWNS);
    }
    if (config->kind == CONFINE_NAT)
        status->state[CONFINE_NETWORK] = CONFINE_UNNEEDED; /* it is there for the host's network */
    else
        enter_namespace(status, CONFINE_NETWORK, CLONE_NEWNET);
    enter_namespace(status, CONFINE_IPC, CLONE_NEWIPC);
    enter_namespace(status, CONFINE_UTS, CLONE_NEWUTS);
    enter_namespace(status, CONFINE_CGROUP, CLONE_NEWCGROUP);
}

/* ---- the root ---- */

struct content {
    const char *path;
    size_t size;
    char bytes[FILE_MAX_BYTES];
};

static void read_content(struct content *c, const char *path)
{
    cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd < 0 ? -1 : read(fd, c->bytes, sizeof(c->bytes));

    c->path = n < 0 ? NULL : path;
    c->size = n < 0 ? 0 : (size_t)n;
}

/* Makes the directories above `path` below the current one, and the file. */
static int write_content(const struct content *c)
{
    char path[256];

    if (!c->path)
        return 0;
    if (c->path[0] != '/' || strlen(c->path) >= sizeof(path))
        return -EINVAL;
    strcpy(path, c->path + 1);
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    if (fd < 0 || fchmod(fd, 0444) < 0)
        return -errno;
    return write(fd, c->bytes, c->size) == (ssize_t)c->size ? 0 : -EIO;
}

#define NO_RIGHTS (MS_NOSUID | MS_NODEV | MS_NOEXEC)

/* Mounts on any directory that is there, and goes there: what lies below is hidden, and gone with the old
 * root. */
static int mount_somewhere(const char *source, const char *type, unsigned long flags, const char *options)
{
    static const char *const places[] = {"/tmp", "/run", "/proc", "/dev", "/var"};
    int rc = -ENOENT;

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        if (mount(source, places[i], type, flags, options) == 0)
            return chdir(places[i]) < 0 ? -errno : 0;
        rc = -errno;
    }
    return rc;
}

/* The old root goes away altogether; where it can't (it is no mount of its own: a chroot), we only leave it.
 */
static int change_root(void)
{
    if (syscall(SYS_pivot_root, ".", ".") == 0)
        return umount2(".", MNT_DETACH) < 0 ? -errno : 0;
    return chroot(".") < 0 ? -errno : 0;
}

static int enter_tmpfs(const struct content *c)
{
    char options[64];

    /* One page and one inode, for itself, unless there is a file. */
    snprintf(options, sizeof(options), "mode=0555,size=%zu,nr_inodes=%d", ALIGN_UP(c->size + 1, 4096u) * 2,
             c->path ? 16 : 1);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 && errno != EINVAL)
        return -errno;
    int rc = mount_somewhere("tmpfs", "tmpfs", NO_RIGHTS, options);
    if (rc == 0) {
        mode_t mask = umask(022);
        rc = write_content(c);
        umask(mask);
    }
    if (rc == 0)
        rc = change_root();
    if (rc == 0 && chdir("/") < 0)
        rc = -errno;
    if (rc == 0 && mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | NO_RIGHTS, NULL) < 0)
        rc = -errno;
    return rc;
}

/* What lies in it can be made and changed, but is no device, and gives nobody rights. */
static int enter_directory(int directory)
{
    if (fchdir(directory) < 0)
        return -errno;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 && errno != EINVAL)
        return -errno;
    int rc = mount_somewhere(".", NULL, MS_BIND, NULL);
    if (rc == 0 && mount(NULL, ".", NULL, MS_REMOUNT | MS_BIND | NO_RIGHTS, NULL) < 0)
        rc = -errno;
    if (rc == 0)
        rc = change_root();
    return rc == 0 && chdir("/") < 0 ? -errno : rc;
}

void confine_directory(int directory, struct confine_status *status)
{
    int rc = status->state[CONFINE_MOUNT] == CONFINE_DONE ? enter_directory(directory) : -EPERM;

    confine_mark(status, CONFINE_ROOT, rc);
    if (rc && fchdir(directory) == 0 && chroot(".") == 0)
        status->state[CONFINE_ROOT] = CONFINE_WEAKER;
}

/* A directory that has been removed: nothing is in it, and nothing can be made in it. */
static int enter_removed_directory(void)
{
    char path[] = "/tmp/tabique-XXXXXX";

    if (!mkdtemp(path))
        return -errno;
    int rc = chdir(path) < 0 ? -errno : 0;
    rmdir(path);
    if (rc == 0 && chroot(".") < 0)
        rc = -errno;
    return rc;
}

void confine_root(const char *file, struct confine_status *status)
{
    static struct content content; /* too large for a stack; used once */
    int rc = -EPERM;

    read_content(&content, file);
    if (status->state[CONFINE_MOUNT] == CONFINE_DONE)
        rc = enter_tmpfs(&content);
    confine_mark(status, CONFINE_ROOT, rc);
    if (rc && !content.path && enter_removed_directory() == 0)
        status->state[CONFINE_ROOT] = CONFINE_WEAKER;
    /* Whatever the working directory was, it is no way out. */
    if (status->state[CONFINE_ROOT] == CONFINE_REFUSED && chdir("/") < 0)
        status->error[CONFINE_ROOT] = (uint16_t)errno;
}
