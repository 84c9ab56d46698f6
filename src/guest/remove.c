/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Taking guests away. The row goes and the directory gets another name in one transaction; its space is freed
 * after that, by whoever did it or, if that one was killed, by the next who makes or removes a guest. Called
 * by guest.c, `rm` and the supervisor of a transient guest.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "guest/container_process.h"
#include "guest/guest_priv.h"
#include "guest/layers.h"
#include "guest/lock.h"
#include "guest/names.h"
#include "image/image.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* No guest's name begins like that. */
#define TRASH ".removed-"

static int move_to_trash(const struct home *home, const char *name)
{
    static unsigned count;
    cleanup_free char *from = guest_path(home, name, NULL);
    char trash[sizeof(TRASH) + 32 + NAME_MAX_LENGTH];

    snprintf(trash, sizeof(trash), TRASH "%s-%d-%u", name, (int)getpid(), count++);
    cleanup_free char *to = guest_path(home, trash, NULL);
    if (!from || !to)
        return -ENOMEM;
    return rename(from, to) == 0 || errno == ENOENT ? 0 : -errno;
}

/* Its disks may be what others' are based on. */
static int check_clones(struct registry *registry, const char *name, struct error **err)
{
    cleanup_free char *clones = NULL;
    int rc = layers_clones(registry, name, 0, &clones, err);

    if (rc == 0 && clones)
        return error_set(
            err, EBUSY,
            "guest '%s' can't be removed: the disks of its clones are based on its own: remove those "
            "first (%s)",
            name, clones);
    return rc;
}

int guest_erase_locked(const struct home *home, struct registry *registry, const char *name,
                       struct error **err)
{
    cleanup_free char *run = guest_run_path(home, name, NULL);
    int rc = check_clones(registry, name, err);

    if (rc == 0)
        rc = layers_forget_locked(registry, name, err);
    if (rc == 0)
        rc = registry_delete(registry, name, err);
    if (rc == 0)
        rc = registry_add_event(registry, name, "removed", "{}", err);
    if (rc)
        return rc;
    if (run)
        home_remove_tree(run);
    /* Of a container that nobody could end in order; nothing for others. */
    rc = container_process_clean(home, name, err);
    if (rc)
        return error_wrap(err, "guest '%s'", name);
    rc = move_to_trash(home, name);
    if (rc)
        return error_set_errno(err, -rc, "guest '%s': removing its directory", name);
    /* Here, where nobody can have the name already and hold another image by it. */
    image_release(home->state, name, NULL);
    return 0;
}

void guest_empty_trash(const struct home *home)
{
    cleanup_free char *guests = guest_path(home, "", NULL);
    DIR *directory = guests ? opendir(guests) : NULL;

    for (struct dirent *e; directory && (e = readdir(directory));) {
        cleanup_free char *path = NULL;

        /* A person's container has files of other ids. */
        if (strncmp(e->d_name, TRASH, strlen(TRASH)) == 0 && (path = guest_path(home, e->d_name, NULL)) &&
            home_remove_tree(path))
            image_delete_tree(path);
    }
    if (directory)
        closedir(directory);
}

/* Whether there is nothing in it but what guest_create makes before the row is there. With more in it the
 * registry was lost, and a person may want the disk. */
static bool is_barren(const char *path)
{
    DIR *directory = opendir(path);
    bool barren = directory != NULL;

    for (struct dirent *e; directory && (e = readdir(directory));)
        barren &=
            strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || strcmp(e->d_name, "lock") == 0;
    if (directory)
        closedir(directory);
    return barren;
}

/* A name in one of the two directories that no row has. */
static int sweep_one(const struct home *home, struct registry *registry, const char *name, bool of_run,
                     struct error **err)
{
    struct guest_row row = {0};
    int rc = registry_find(registry, name, &row, err);

    guest_row_clear(&row);
    if (rc)
        return rc < 0 ? rc : 0;
    cleanup_free char *directory = guest_path(home, name, NULL), *run = guest_run_path(home, name, NULL);
    if (!directory || !run || lock_holder(directory) != LOCK_FREE)
        return 0;
    if (of_run) {
        home_remove_tree(run);
        return 0;
    }
    rc = is_barren(directory) ? move_to_trash(home, name) : 0;
    return rc ? error_set_errno(err, -rc, "what is left of guest '%s'", name) : 0;
}

static int sweep(const struct home *home, struct registry *registry, bool of_run, struct error **err)
{
    cleanup_free char *path = of_run ? guest_run_path(home, "", NULL) : guest_path(home, "", NULL);
    DIR *directory = path ? opendir(path) : NULL;
    int rc = 0;

    for (struct dirent *e; directory && rc == 0 && (e = readdir(directory));)
        if (name_check(e->d_name, NULL) == 0)
            rc = sweep_one(home, registry, e->d_name, of_run, err);
    if (directory)
        closedir(directory);
    return rc;
}

int guest_sweep_locked(const struct home *home, struct registry *registry, struct error **err)
{
    int rc = sweep(home, registry, false, err);

    if (rc == 0)
        rc = sweep(home, registry, true, err);
    return rc;
}

int guest_remove(struct guest *guest, struct error **err)
{
    struct registry *registry = NULL;
    int rc = guest_begin_write(guest->home, &registry, err);

    if (rc == 0)
        rc = guest_erase_locked(guest->home, registry, guest->row.name, err);
    if (rc == 0)
        rc = registry_commit(registry, err);
    registry_close(registry);
    if (rc)
        return rc;
    guest_empty_trash(guest->home);
    guest_release(guest);
    return 0;
}
