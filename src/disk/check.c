/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checking and repairing an image: what formats have in common. One thread; no locks. */
#include "disk/maintain.h"

#include "base/error.h"
#include "disk/disk_priv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

/* A file can be made that has more faults than anyone would read. */
#define LINES_MAX 200u

static void say(struct disk_check *check, const char *begin, const char *format, va_list args)
{
    char line[256];
    int n = snprintf(line, sizeof(line), "%s", begin);

    if (!check->how->say || check->said > LINES_MAX)
        return;
    if (check->said++ == LINES_MAX) {
        check->how->say(check->how->opaque, "... and more of that");
        return;
    }
    vsnprintf(line + n, sizeof(line) - (size_t)n, format, args);
    check->how->say(check->how->opaque, line);
}

void disk_check_corrupt(struct disk_check *check, bool fixed, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(check, fixed ? "repaired: " : "corrupt: ", format, args);
    va_end(args);
    *(fixed ? &check->result->corruptions_fixed : &check->result->corruptions) += 1;
}

void disk_check_leak(struct disk_check *check, uint64_t n, bool fixed, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(check, fixed ? "given back: " : "leaked: ", format, args);
    va_end(args);
    *(fixed ? &check->result->leaks_fixed : &check->result->leaks) += n;
}

bool disk_check_progress(struct disk_check *check, double fraction)
{
    if (check->job->report)
        check->job->report(check->job->opaque, fraction);
    return check->job->cancel && *check->job->cancel;
}

static int check_file(const struct disk_format *format, const struct disk_files *files,
                      const struct disk_checking *how, struct disk_check_result *out, struct error **err)
{
    int fd = files->files[0].fd;
    struct disk_check_result result = {0};
    struct disk_check check = {
        .files = files, .fd = fd, .repair = how->repair, .job = how->job, .result = &result, .how = how};
    int rc = format->check(&check, err);

    /* What is left after a repair is what somebody finds who looks again. */
    if (rc == 0 && how->repair != DISK_REPAIR_NONE && (result.corruptions_fixed || result.leaks_fixed)) {
        struct disk_check_result again = {.corruptions_fixed = result.corruptions_fixed,
                                          .leaks_fixed = result.leaks_fixed};
        struct disk_checking quiet = {.job = how->job};
        check =
            (struct disk_check){.files = files, .fd = fd, .job = how->job, .result = &again, .how = &quiet};
        rc = format->check(&check, err);
        result = again;
    }
    if (rc == 0)
        *out = result;
    return rc;
}

int disk_check(const char *path, const char *format, const struct disk_checking *how,
               struct disk_check_result *out, struct error **err)
{
    struct disk_files *files;
    int rc = disk_files_open_alone(&files, path, format, how->repair == DISK_REPAIR_NONE, err);

    if (rc)
        return rc;
    const struct disk_format *f = disk_format_find(files->files[0].format);
    rc = how->opened ? how->opened(err) : 0;
    if (rc == 0 && f->check)
        rc = check_file(f, files, how, out, err);
    else if (rc == 0)
        rc = error_set(err, ENOTSUP, "the format %s has nothing that could be checked", f->name);
    disk_files_close(files);
    return rc ? error_wrap(err, "disk '%s'", path) : 0;
}
