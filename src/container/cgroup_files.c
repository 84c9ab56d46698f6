/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The files of a control group: each holds a number, a word or lines of "key number". No state, no locks. */
#include "container/cgroup_priv.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

static int open_file(const char *directory, const char *file, int flags)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/%s", directory, file) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

int cgroup_write(const char *directory, const char *file, const char *text)
{
    cleanup_close int fd = open_file(directory, file, O_WRONLY);

    if (fd < 0)
        return fd;
    for (;;) {
        if (write(fd, text, strlen(text)) >= 0)
            return 0;
        if (errno != EINTR)
            return -errno;
    }
}

int cgroup_write_number(const char *directory, const char *file, int64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRId64, value);
    return cgroup_write(directory, file, text);
}

bool cgroup_has_file(const char *directory, const char *file)
{
    char path[PATH_MAX];

    return snprintf(path, sizeof(path), "%s/%s", directory, file) < (int)sizeof(path) &&
           access(path, F_OK) == 0;
}

ssize_t cgroup_read(const char *directory, const char *file, char *text, size_t size)
{
    cleanup_close int fd = open_file(directory, file, O_RDONLY);
    size_t used = 0;

    if (fd < 0)
        return fd;
    for (;;) {
        ssize_t n = read(fd, text + used, size - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        used += (size_t)n;
        if (used == size)
            return -E2BIG;
        if (n == 0)
            break;
    }
    while (used > 0 && text[used - 1] == '\n')
        used--;
    text[used] = '\0';
    return (ssize_t)used;
}

char *cgroup_read_all(const char *directory, const char *file)
{
    for (size_t size = 4096;; size *= 4) {
        char *text = malloc(size);
        if (!text)
            return NULL;
        ssize_t n = cgroup_read(directory, file, text, size);
        if (n >= 0)
            return text;
        free(text);
        if (n != -E2BIG || size > (64u << 20)) {
            errno = (int)-n;
            return NULL;
        }
    }
}

static int parse_number(const char *text, int64_t *out)
{
    char *end;

    if (strcmp(text, "max") == 0) {
        *out = INT64_MAX;
        return 0;
    }
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || (*end && *end != '\n' && *end != ' '))
        return -EINVAL;
    *out = value; /* what is too large, strtoll makes the largest */
    return 0;
}

int cgroup_read_number(const char *directory, const char *file, int64_t *out)
{
    char text[64];
    ssize_t n = cgroup_read(directory, file, text, sizeof(text));

    return n < 0 ? (int)n : parse_number(text, out);
}

int cgroup_read_key(const char *directory, const char *file, const char *key, int64_t *out)
{
    cleanup_free char *text = cgroup_read_all(directory, file);
    size_t length = strlen(key);

    if (!text)
        return -errno;
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) == 0 && line[length] == ' ')
            return parse_number(line + length + 1, out);
        if (!*line)
            break;
    }
    return -ENOENT;
}

void cgroup_wait_for_event(const char *directory, const char *file, int timeout_ms)
{
    cleanup_close int fd = open_file(directory, file, O_RDONLY);
    struct pollfd p = {.fd = fd, .events = POLLPRI};

    if (fd >= 0)
        poll(&p, 1, timeout_ms);
}
