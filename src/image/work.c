/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories in which images are made. Each has a lock file beside it, held by its maker and by the programs
 * that the maker runs; one whose lock is free was left behind by something that was killed, and is deleted by
 * the next that begins. Content gets its place by one rename.
 */
#include "image/build_priv.h"
#include "image/oci_priv.h"
#include "image/store_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

static int delete_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    /* What a build as a person leaves behind belongs to other users: then someone else has to. */
    return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

void work_delete_tree(const char *path)
{
    if (nftw(path, delete_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) < 0 && errno != ENOENT)
        sandbox_delete_tree(path);
}

/* Those of work/ that nobody holds. */
static void sweep_locked(const struct store *store)
{
    cleanup_free char *path = store_path(store, "work");
    DIR *dir = path ? opendir(path) : NULL;

    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        const char *name = entry->d_name, *dot = strrchr(name, '.');
        bool is_lock = dot && strcmp(dot, ".lock") == 0;
        cleanup_free char *full = store_path(store, "work/%s", name);
        cleanup_free char *lock_path = store_path(store, "work/%s%s", name, is_lock ? "" : ".lock");

        if (name[0] == '.' || !full || !lock_path)
            continue;
        cleanup_close int lock = open(lock_path, O_RDONLY | O_CLOEXEC);
        if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) < 0)
            continue;
        /* A directory before its lock: interrupted, it is found again. */
        if (is_lock && access((full[strlen(full) - 5] = '\0', full), F_OK) == 0)
            continue;
        if (is_lock)
            unlink(lock_path);
        else
            work_delete_tree(full);
        if (!is_lock && lock >= 0)
            unlink(lock_path);
    }
    if (dir)
        closedir(dir);
}

int work_begin(const struct store *store, struct work *out, struct error **err)
{
    struct work work = WORK_NONE;
    uint64_t number = 0;

    cleanup_close int store_lock_fd = store_lock(store, err);
    if (store_lock_fd < 0)
        return store_lock_fd;
    sweep_locked(store);
    if (getrandom(&number, sizeof(number), 0) < 0)
        number = (uint64_t)getpid();
    work.directory = store_path(store, "work/%016llx", (unsigned long long)number);
    work.lock_path = store_path(store, "work/%016llx.lock", (unsigned long long)number);
    int rc = 0;
    if (!work.directory || !work.lock_path) {
        rc = error_set_errno(err, ENOMEM, "the image store");
    } else {
        work.lock = open(work.lock_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (work.lock < 0 || flock(work.lock, LOCK_EX | LOCK_NB) < 0 || mkdir(work.directory, 0700) < 0)
            rc = error_set_errno(err, errno, "%s", work.directory);
    }
    if (rc)
        work_end(&work);
    else
        *out = work;
    return rc;
}

void work_end(struct work *work)
{
    if (work->directory && work->lock >= 0) {
        work_delete_tree(work->directory);
        unlink(work->lock_path);
    }
    if (work->lock >= 0)
        close(work->lock);
    free(work->directory);
    free(work->lock_path);
    *work = WORK_NONE;
}

/* What is in the file, and not only in memory; nobody writes to it from now on. */
static int settle_file(const char *path, struct error **err)
{
    cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (path && (fd < 0 || fchmod(fd, 0400) < 0 || fsync(fd) < 0))
        return error_set_errno(err, errno, "%s", path);
    return 0;
}

static void settle_directory(const char *path)
{
    cleanup_close int fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (fd >= 0)
        fsync(fd);
}

/* names/NAME, whatever it was before. */
static int point_name_locked(const struct store *store, const char *name, const char *id, struct error **err)
{
    cleanup_free char *path = store_path(store, "names/%s", name), *fresh = store_path(store, "names/.new");
    cleanup_free char *names = store_path(store, "names");
    char target[IMAGE_ID_LENGTH + 16];

    if (!path || !fresh || !names)
        return error_set_errno(err, ENOMEM, "image '%s'", name);
    snprintf(target, sizeof(target), "../content/%s", id);
    unlink(fresh);
    if (symlink(target, fresh) < 0 || rename(fresh, path) < 0)
        return error_set_errno(err, errno, "%s", path);
    settle_directory(names);
    return 0;
}

/* The file's new place, once its directory is moved. */
static int move_path(char **path, const char *directory)
{
    char *moved;

    if (!*path)
        return 0;
    if (asprintf(&moved, "%s/%s", directory, strrchr(*path, '/') + 1) < 0)
        return -ENOMEM;
    free(*path);
    *path = moved;
    return 0;
}

/* Layers are many files, which this process may not even be allowed to open: all of the file system is
 * synced. */
static int settle_all(const struct work *work, struct error **err)
{
    cleanup_close int fd = open(work->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 || syncfs(fd) < 0 ? error_set_errno(err, errno, "%s", work->directory) : 0;
}

static int place_layers_locked(const struct store *store, const struct work *work, const struct image *image,
                               struct error **err)
{
    cleanup_free char *left = NULL;
    int rc = layers_commit_locked(store, work, image, err);

    /* Those that the store had already. */
    if (rc == 0 && asprintf(&left, "%s/layers", work->directory) >= 0)
        work_delete_tree(left);
    return rc;
}

int work_commit(const struct store *store, struct work *work, struct image *image, const char *request,
                struct error **err)
{
    cleanup_free char *json = NULL;
    int rc;

    if ((rc = settle_file(image->disk, err)) || (rc = settle_file(image->kernel, err)) ||
        (rc = settle_file(image->initrd, err)) || (rc = settle_file(image->config, err)) ||
        (rc = image->id[0] ? 0 : digest_image(image, err)) ||
        (rc = metadata_write(work->directory, image, request, err)))
        return rc;
    cleanup_free char *place = store_path(store, "content/%s", image->id),
                      *content = store_path(store, "content");
    if (!place || !content || asprintf(&json, "%s/image.json", work->directory) < 0)
        return error_set_errno(err, ENOMEM, "image '%s'", image->name);
    rc = settle_file(json, err);
    if (rc)
        return rc;
    settle_directory(work->directory);
    rc = image->n_layers ? settle_all(work, err) : 0;
    if (rc)
        return rc;
    cleanup_close int lock = store_lock(store, err);
    if (lock < 0)
        return lock;
    rc = image->n_layers ? place_layers_locked(store, work, image, err) : 0;
    if (rc)
        return rc;
    /* The same content may be there already; then this copy of it is not needed. */
    if (access(place, F_OK) < 0 && rename(work->directory, place) < 0)
        return error_set_errno(err, errno, "%s", place);
    settle_directory(content);
    rc = point_name_locked(store, image->name, image->id, err);
    if (rc == 0 && (move_path(&image->disk, place) || move_path(&image->kernel, place) ||
                    move_path(&image->initrd, place) || move_path(&image->config, place)))
        rc = error_set_errno(err, ENOMEM, "image '%s'", image->name);
    store_collect_locked(store);
    return rc;
}
