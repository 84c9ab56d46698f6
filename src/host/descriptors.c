/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Closing all but some: descriptors.h. */
#include "host/descriptors.h"

#include "base/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int close_gap(int first, unsigned last)
{
    return (unsigned)first > last ? 0 : (int)syscall(SYS_close_range, first, last, 0);
}

/* `keep` is sorted. */
static int close_gaps(int first, const int *keep, size_t n)
{
    int rc = 0;

    for (size_t i = 0; i < n && rc == 0; i++) {
        if (keep[i] < first)
            continue;
        if (keep[i] > first)
            rc = close_gap(first, (unsigned)keep[i] - 1);
        first = keep[i] + 1;
    }
    return rc ? rc : close_gap(first, ~0u);
}

static bool is_kept(int fd, const int *keep, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (keep[i] == fd)
            return true;
    return false;
}

/* Linux before 5.9, or a filter of an outer container that does not know close_range. */
static int close_by_list(int first, const int *keep, size_t n)
{
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *e;

    if (!dir)
        return -errno;
    while ((e = readdir(dir))) {
        int fd = atoi(e->d_name);
        if (fd >= first && fd != dirfd(dir) && !is_kept(fd, keep, n) && e->d_name[0] != '.')
            close(fd);
    }
    closedir(dir);
    return 0;
}

static int compare(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;

    return (x > y) - (x < y);
}

int descriptors_close_but(int first, const int *keep, size_t n)
{
    cleanup_free int *sorted = malloc((n + 1) * sizeof(*sorted));

    if (!sorted)
        return -ENOMEM;
    if (n)
        memcpy(sorted, keep, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), compare);
    return close_gaps(first, sorted, n) < 0 ? close_by_list(first, sorted, n) : 0;
}
