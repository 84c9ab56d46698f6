/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Maps of user namespaces: written by this process where it may, by the set-user-id programs newuidmap and
 * newgidmap where a person has no more right than /etc/subuid gives (user_namespaces(7)). Called by the
 * command that makes a container.
 */
#include "container/setup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define TEXT_MAX 16384

static int format_map(const struct container_id_map *maps, size_t n, char *text, size_t size)
{
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        int k =
            snprintf(text + used, size - used, "%u %u %u\n", maps[i].container, maps[i].host, maps[i].size);

        if (k < 0 || (size_t)k >= size - used)
            return -E2BIG;
        used += (size_t)k;
    }
    return (int)used;
}

static int write_file(pid_t pid, const char *name, const char *text, size_t size)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return write(fd, text, size) < 0 ? -errno : 0;
}

/* The program's arguments are the map's numbers, each a word. */
static int run_helper(const char *program, pid_t pid, const struct container_id_map *maps, size_t n,
                      struct error **err)
{
    char words[3 * 340 + 2][12];
    char *argv[3 * 340 + 3];
    size_t k = 0;
    int status;

    argv[k++] = (char *)program;
    snprintf(words[0], sizeof(words[0]), "%d", (int)pid);
    argv[k++] = words[0];
    for (size_t i = 0; i < n; i++) {
        const uint32_t numbers[3] = {maps[i].container, maps[i].host, maps[i].size};

        for (size_t j = 0; j < 3; j++) {
            snprintf(words[k - 1], sizeof(words[0]), "%u", numbers[j]);
            argv[k] = words[k - 1];
            k++;
        }
    }
    argv[k] = NULL;
    pid_t child = fork();
    if (child == 0) {
        execvp(program, argv);
        _exit(errno == ENOENT ? 127 : 126);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (child < 0)
        return error_set_errno(err, errno, "%s", program);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return error_set(err, ENOENT,
                         "%s is not there and this user may not map ids without it: "
                         "apt-get install uidmap",
                         program);
    if (status)
        return error_set(err, EPERM, "%s refused the map: it must lie within what %s gives this user",
                         program, strcmp(program, "newuidmap") == 0 ? "/etc/subuid" : "/etc/subgid");
    return 0;
}

static int write_map(pid_t pid, bool users, const struct container_id_map *maps, size_t n, struct error **err)
{
    cleanup_free char *text = malloc(TEXT_MAX);
    const char *name = users ? "uid_map" : "gid_map";
    int size = text ? format_map(maps, n, text, TEXT_MAX) : -ENOMEM;

    if (size < 0)
        return error_set_errno(err, -size, "%s", name);
    int rc = write_file(pid, name, text, (size_t)size);
    if (rc != -EPERM || geteuid() == 0)
        return rc < 0 ? error_set_errno(err, -rc, "writing %s", name) : 0;
    /* A person may map himself alone: groups of others are given up first. */
    if (n == 1 && maps[0].size == 1 && maps[0].host == (users ? geteuid() : getegid())) {
        if (!users)
            write_file(pid, "setgroups", "deny", 4);
        rc = write_file(pid, name, text, (size_t)size);
        if (rc == 0)
            return 0;
    }
    return run_helper(users ? "newuidmap" : "newgidmap", pid, maps, n, err);
}

int idmap_write(pid_t pid, const struct container_id_maps *maps, struct error **err)
{
    int rc = write_map(pid, false, maps->gids, maps->n_gids, err);

    return rc ? rc : write_map(pid, true, maps->uids, maps->n_uids, err);
}

int idmap_namespace(const struct container_id_maps *maps, struct error **err)
{
    int ready[2];
    char byte = 0, path[64];

    if (pipe2(ready, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "pipe");
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        byte = (char)(unshare(CLONE_NEWUSER) < 0 ? errno : 0);
        if (write(ready[1], &byte, 1) == 1)
            pause();
        _exit(0);
    }
    close(ready[1]);
    int rc = child < 0 ? error_set_errno(err, errno, "fork") : 0;
    if (rc == 0 && (read(ready[0], &byte, 1) != 1 || byte))
        rc = error_set_errno(err, byte ? byte : EIO, "user namespace");
    close(ready[0]);
    if (rc == 0)
        rc = idmap_write(child, maps, err);
    if (rc == 0) {
        snprintf(path, sizeof(path), "/proc/%d/ns/user", (int)child);
        rc = open(path, O_RDONLY | O_CLOEXEC);
        if (rc < 0)
            rc = error_set_errno(err, errno, "%s", path);
    }
    if (child > 0) {
        kill(child, SIGKILL);
        while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    return rc;
}
