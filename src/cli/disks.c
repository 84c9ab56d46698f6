/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the verbs `disk ...` have in common. One thread calls it, and it has one job at a time. */
#include "cli/disks.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- jobs ---- */

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
static struct sigaction before[ARRAY_SIZE(signals)];
static volatile sig_atomic_t cancelled;

static void on_signal(int number)
{
    cancelled = number;
}

static void on_report(void *opaque, double fraction)
{
    struct cli_disk_job *j = opaque;

    if (j->bar.terminal)
        cli_bar_show(&j->bar, j->what, fraction);
}

void cli_disk_job_begin(struct cli_disk_job *j, const char *what)
{
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    *j = (struct cli_disk_job){.job = {.report = on_report, .opaque = j, .cancel = &cancelled},
                               .bar = {.terminal = isatty(STDERR_FILENO)},
                               .what = what};
    cancelled = 0;
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        sigaction(signals[i], NULL, &before[i]);
        /* Under nohup it stays ignored. */
        if (before[i].sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
}

void cli_disk_job_end(struct cli_disk_job *j)
{
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
        sigaction(signals[i], &before[i], NULL);
    cli_bar_end(&j->bar);
}

/* ---- options ---- */

const char *cli_disk_created_format(size_t i)
{
    const char *name;

    for (size_t n = 0; (name = disk_format_name(n)); n++)
        if (disk_format_can_create(name) && i-- == 0)
            return name;
    return NULL;
}

int cli_disk_open(const struct cli_values *values, const char *path, const char *format,
                  struct disk_files **out, struct error **err)
{
    const char *secret = cli_string(values, "secret-file");
    struct disk_files *files = NULL;
    int rc = disk_files_open_to_read(&files, path, format, cli_bool(values, "follow"), err);

    if (rc == 0 && secret)
        rc = disk_files_read_secret(files, secret, err);
    if (rc == 0)
        *out = files;
    else
        disk_files_close(files);
    return rc;
}

int cli_disk_options(const struct cli_values *values, struct disk_create *what, char **kept,
                     struct error **err)
{
    size_t n, room = 1;
    const char **given = cli_list(values, "option", &n);

    for (size_t i = 0; i < n; i++)
        room += strlen(given[i]) + 1;
    char *all = malloc(room), *at = all;
    if (!all)
        return error_set_errno(err, ENOMEM, "--option");
    *all = '\0';
    for (size_t i = 0; i < n; i++)
        at += sprintf(at, "%s%s", i ? "," : "", given[i]);
    char *rest = all, *word;
    int rc = 0;
    while (rc == 0 && (word = strsep(&rest, ","))) {
        char *value = strchr(word, '=');
        if (!*word)
            continue;
        if (!value)
            rc = error_set(err, EINVAL, "'%s' needs a value: %s=VALUE", word, word);
        else
            *value++ = '\0';
        if (rc == 0)
            rc = disk_create_option(what, word, value, err);
    }
    if (rc) {
        free(all);
        return error_wrap(err, "--option");
    }
    *kept = all;
    return 0;
}
