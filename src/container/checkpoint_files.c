/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Standard input, output and error of a container may be the host's: a pipe, or a file that is in no mount of
 * the container's. What each was is noted in descriptors.json beside criu's images, by the key that criu
 * knows it by; who restores puts its own in the place. Called by checkpoint.c and restore.c.
 */
#include "container/checkpoint_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_NAME "descriptors.json"
#define STANDARD  3
#define KEY_MAX   256

/* ---- of a container that lives ---- */

/* The mount that an open file is in, or -1. */
static int mount_of(pid_t pid, int number)
{
    char path[64], line[256];
    int id = -1;

    snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)pid, number);
    cleanup_fclose FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "mnt_id: %d", &id) == 1)
            break;
    return id;
}

static bool has_mount(pid_t pid, int id)
{
    char path[64];
    cleanup_free char *line = NULL;
    size_t room = 0;
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
    cleanup_fclose FILE *f = fopen(path, "re");
    while (f && !found && getline(&line, &room, f) > 0)
        found = atoi(line) == id;
    return found;
}

/* The key; "" for what is the container's own, or can't be given to another. */
static void describe(pid_t pid, int number, char key[static KEY_MAX], bool *is_file)
{
    char path[64];
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, number);
    ssize_t n = readlink(path, key, KEY_MAX - 1);
    key[n > 0 ? n : 0] = '\0';
    *is_file = false;
    if (strncmp(key, "pipe:[", 6) == 0)
        return;
    key[0] = '\0';
    int id = mount_of(pid, number);
    if (id < 0 || stat(path, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode)) || has_mount(pid, id))
        return;
    snprintf(key, KEY_MAX, "file[%x:%" PRIx64 "]", (unsigned)id, (uint64_t)st.st_ino);
    *is_file = true;
}

int checkpoint_put_files(struct buffer *m, pid_t pid, int images, struct error **err)
{
    json_t *list = json_array();

    for (int i = 0; i < STANDARD; i++) {
        char key[KEY_MAX];
        bool is_file;

        describe(pid, i, key, &is_file);
        if (is_file)
            criu_put_text(m, CRIU_EXTERNAL, key);
        json_array_append_new(list, json_string(key));
    }
    cleanup_free char *text = list ? json_dumps(list, JSON_COMPACT) : NULL;
    json_decref(list);
    cleanup_close int fd =
        text ? openat(images, FILE_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        return error_set_errno(err, text ? errno : ENOMEM, "%s", FILE_NAME);
    return 0;
}

/* ---- of one that is to be ---- */

/* criu goes to the place in a file where the old one was. */
static int check_seekable(int number, struct error **err)
{
    static const char *const names[] = {"input", "output", "error"};

    if (lseek(number, 0, SEEK_CUR) >= 0)
        return 0;
    return error_set(err, errno, "standard %s was a file and must be one again: it is a pipe or a terminal",
                     names[number]);
}

static bool is_among(json_t *list, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++) {
        const char *other = json_string_value(json_array_get(list, i));

        if (other && strcmp(other, key) == 0)
            return true;
    }
    return false;
}

static int put_list(struct buffer *m, json_t *list, struct error **err)
{
    for (size_t i = 0; i < STANDARD && i < json_array_size(list); i++) {
        const char *key = json_string_value(json_array_get(list, i));
        bool is_file = key && strncmp(key, "file[", 5) == 0;
        int rc = is_file ? check_seekable((int)i, err) : 0;

        if (rc)
            return rc;
        /* One that two numbers lead to is one. */
        if (key && !is_among(list, i, key) && (is_file || strncmp(key, "pipe:[", 6) == 0))
            criu_put_inherited(m, key, (int)i);
    }
    return 0;
}

int checkpoint_put_inherited(struct buffer *m, int images, struct error **err)
{
    json_t *list = NULL;
    int rc = container_json_read_in(images, FILE_NAME, &list, err);

    if (rc || !list)
        return rc ? error_wrap(err, "%s", FILE_NAME) : 0;
    rc = put_list(m, list, err);
    json_decref(list);
    return rc;
}
