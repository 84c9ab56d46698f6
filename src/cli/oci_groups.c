/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tabique-oci pause, resume, ps. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/oci.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

extern char **environ;

static int run_pause(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                     struct error **err)
{
    return container_pause(runtime, oci_words(values, NULL)[0], err);
}

static int run_resume(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                      struct error **err)
{
    return container_resume(runtime, oci_words(values, NULL)[0], err);
}

/* ---- ps: the host's `ps`, of whose lines those of the container are shown ---- */

static const struct oci_flag ps_flags[] = {
    {"format", 'f', OCI_STRING, "table|json", "how it is told; json is the process ids alone"},
};

/* `ps` with the words behind the id, or -ef; its output as a stream. */
static int start_ps(const char *const *words, size_t n, pid_t *pid, FILE **out, struct error **err)
{
    const char **argv = calloc(n + 3, sizeof(*argv));
    posix_spawn_file_actions_t actions;
    int ends[2], rc = argv ? 0 : ENOMEM;

    if (rc || pipe2(ends, O_CLOEXEC) < 0) {
        free(argv);
        return error_set_errno(err, rc ? rc : errno, "starting ps");
    }
    argv[0] = "ps";
    argv[1] = "-ef";
    for (size_t i = 0; i < n; i++)
        argv[1 + i] = words[i];
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    rc = posix_spawnp(pid, "ps", &actions, NULL, (char **)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    free(argv);
    close(ends[1]);
    *out = rc ? NULL : fdopen(ends[0], "re");
    if (!*out)
        close(ends[0]);
    if (rc == ENOENT)
        return error_set(err, ENOENT, "there is no ps on this host: install procps, or use --format json");
    return rc ? error_set_errno(err, rc, "starting ps") : 0;
}

/* Which word of the heading is PID, or -1. */
static int pid_column(const char *heading)
{
    int column = 0;

    for (const char *p = heading + strspn(heading, " "); *p; column++) {
        size_t n = strcspn(p, " \n");
        if (n == 3 && memcmp(p, "PID", 3) == 0)
            return column;
        p += n + strspn(p + n, " \n");
    }
    return -1;
}

static bool is_listed(const char *line, int column, const pid_t *pids, size_t n)
{
    const char *p = line + strspn(line, " ");

    for (; column > 0; column--) {
        p += strcspn(p, " ");
        p += strspn(p, " ");
    }
    long pid = strtol(p, NULL, 10);
    for (size_t i = 0; i < n; i++)
        if (pids[i] == pid)
            return true;
    return false;
}

static int show_lines(FILE *in, const pid_t *pids, size_t n, struct error **err)
{
    cleanup_free char *line = NULL;
    size_t size = 0;

    if (getline(&line, &size, in) < 0)
        return error_set(err, EIO, "ps has said nothing");
    int column = pid_column(line);
    if (column < 0)
        return error_set(err, EINVAL, "ps shows no column PID with these options");
    fputs(line, stdout);
    while (getline(&line, &size, in) >= 0)
        if (is_listed(line, column, pids, n))
            fputs(line, stdout);
    return 0;
}

static int show_table(const char *const *words, size_t n_words, const pid_t *pids, size_t n,
                      struct error **err)
{
    FILE *out;
    pid_t ps;
    int rc = start_ps(words, n_words, &ps, &out, err), ended;

    if (rc)
        return rc;
    rc = show_lines(out, pids, n, err);
    fclose(out);
    while (waitpid(ps, &ended, 0) < 0 && errno == EINTR)
        ;
    return rc;
}

static void show_json(const pid_t *pids, size_t n)
{
    putchar('[');
    for (size_t i = 0; i < n; i++)
        printf("%s%d", i ? "," : "", pids[i]);
    puts("]");
}

static int run_ps(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                  struct error **err)
{
    const char *format = oci_string(values, "format");
    cleanup_free pid_t *pids = NULL;
    size_t n = 0, n_words;
    const char *const *words = oci_words(values, &n_words);

    if (format && strcmp(format, "table") != 0 && strcmp(format, "json") != 0)
        return error_set(err, EINVAL, "invalid format option '%s': table or json", format);
    int rc = container_processes(runtime, words[0], &pids, &n, err);
    if (rc)
        return rc;
    if (!format || strcmp(format, "table") == 0)
        return show_table(words + 1, n_words - 1, pids, n, err);
    show_json(pids, n);
    return 0;
}

const struct oci_verb oci_pause_verb = {
    "pause", "ID", "stop a container's processes where they are", NULL, 0, 1, 1, run_pause};
const struct oci_verb oci_resume_verb = {"resume", "ID", "let them go on", NULL, 0, 1, 1, run_resume};
const struct oci_verb oci_ps_verb = {
    "ps",  "ID [OPTIONS OF PS]", "a container's processes", ps_flags, ARRAY_SIZE(ps_flags), 1, SIZE_MAX,
    run_ps};
