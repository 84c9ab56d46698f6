/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sizes.json beside criu's images: {"pages-1.img": BYTES, ...}. A checkpoint that was cut off on its way is
 * found by it before anything is made of it. One without it, of another runtime, is taken as it is. Called by
 * checkpoint.c and restore.c.
 */
#include "container/checkpoint_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_NAME "sizes.json"

static bool is_image(const char *name)
{
    size_t n = strlen(name);

    return n > 4 && strcmp(name + n - 4, ".img") == 0;
}

static json_t *list_sizes(int images)
{
    cleanup_close int copy = openat(images, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    json_t *sizes = dir ? json_object() : NULL;
    struct dirent *entry;

    while (sizes && (entry = readdir(dir))) {
        struct stat st;

        if (is_image(entry->d_name) && fstatat(images, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            json_object_set_new(sizes, entry->d_name, json_integer(st.st_size));
    }
    if (dir) {
        closedir(dir);
        (void)steal_fd(copy);
    }
    return sizes;
}

int checkpoint_note_sizes(int images, struct error **err)
{
    json_t *sizes = list_sizes(images);
    cleanup_free char *text = sizes ? json_dumps(sizes, JSON_COMPACT) : NULL;

    json_decref(sizes);
    cleanup_close int fd =
        text ? openat(images, FILE_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
        int rc = error_set_errno(err, text ? errno : ENOMEM, "%s", FILE_NAME);

        unlinkat(images, FILE_NAME, 0);
        return rc;
    }
    return 0;
}

static int check(int images, json_t *sizes, struct error **err)
{
    const char *name;
    json_t *value;

    if (!json_is_object(sizes))
        return error_set(err, EINVAL, "%s: must be an object: the checkpoint is damaged", FILE_NAME);
    json_object_foreach(sizes, name, value)
    {
        struct stat st;

        if (strchr(name, '/') || !json_is_integer(value))
            return error_set(err, EINVAL, "%s: the checkpoint is damaged", FILE_NAME);
        if (fstatat(images, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return error_set_errno(err, errno, "%s: the checkpoint is not complete", name);
        if (st.st_size != json_integer_value(value))
            return error_set(err, EINVAL, "%s has %lld bytes and should have %lld: the checkpoint is damaged",
                             name, (long long)st.st_size, (long long)json_integer_value(value));
    }
    return 0;
}

int checkpoint_check_sizes(int images, struct error **err)
{
    json_t *sizes = NULL;
    int rc = container_json_read_in(images, FILE_NAME, &sizes, err);

    if (rc || !sizes)
        return rc ? error_wrap(err, "%s", FILE_NAME) : 0;
    rc = check(images, sizes, err);
    json_decref(sizes);
    return rc;
}
