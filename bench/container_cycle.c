/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs an OCI runtime's verbs as an engine would, and times them: for bench/containers. It is the subreaper,
 * so a container's first process becomes its child when `create` has ended, and is waited for as such.
 *
 * usage: container_cycle RUNTIME ROOT BUNDLE MODE N [FIRST]
 *     once      N times one after the other: create, start, wait, delete; a line "seconds peak-KiB" each
 *     parallel  N at once: all are created, then all started, waited for, deleted; one such line
 *     start     N are created and started, one after the other, and stay; "seconds peak-KiB"
 *     delete    these N are deleted by force; "seconds peak-KiB"
 * Containers are called cycle-NUMBER. Peak is the largest resident set of any process of the runtime, and of
 * the container's first one before it executes its program.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static const char *runtime, *root, *bundle;
static char complaints[256]; /* a file: what the containers have of ours stays open as long as they do */
static long peak;
static posix_spawn_file_actions_t quiet;

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fail(const char *what, const char *id, int status)
{
    char said[1024] = "";
    FILE *file = fopen(complaints, "r");

    if (file) {
        said[fread(said, 1, sizeof(said) - 1, file)] = '\0';
        fclose(file);
    }
    fprintf(stderr, "container_cycle: %s %s of %s: status %#x: %s\n", runtime, what, id, (unsigned)status,
            said);
    exit(1);
}

static const char *id_of(unsigned n, char id[static 32])
{
    snprintf(id, 32, "cycle-%u", n);
    return id;
}

static const char *pid_file_of(unsigned n, char path[static 256])
{
    snprintf(path, 256, "%s/cycle-%u.pid", root, n);
    return path;
}

static pid_t begin(const char *verb, unsigned n, bool forced)
{
    char id[32], pid_file[256];
    const char *words[16] = {runtime, "--root", root, verb};
    size_t at = 4;
    pid_t pid;

    if (strcmp(verb, "create") == 0) {
        words[at++] = "--bundle";
        words[at++] = bundle;
        words[at++] = "--pid-file";
        words[at++] = pid_file_of(n, pid_file);
    }
    if (forced)
        words[at++] = "--force";
    words[at++] = id_of(n, id);
    int rc = posix_spawn(&pid, runtime, &quiet, NULL, (char **)(unsigned long)words, environ);
    if (rc) {
        fprintf(stderr, "container_cycle: %s: %s\n", runtime, strerror(rc));
        exit(1);
    }
    return pid;
}

static void finish(pid_t pid, const char *verb, unsigned n, bool must_succeed)
{
    struct rusage usage;
    char id[32];
    int status;

    while (wait4(pid, &status, 0, &usage) < 0)
        if (errno != EINTR)
            fail(verb, id_of(n, id), -errno);
    if (usage.ru_maxrss > peak)
        peak = usage.ru_maxrss;
    if (must_succeed && status)
        fail(verb, id_of(n, id), status);
}

static pid_t init_of(unsigned n)
{
    char path[256];
    int pid = 0;
    FILE *file = fopen(pid_file_of(n, path), "r");

    if (!file || fscanf(file, "%d", &pid) != 1)
        fail("pid file", path, 0);
    fclose(file);
    return pid;
}

static void do_verb(const char *verb, unsigned n)
{
    finish(begin(verb, n, false), verb, n, true);
}

static void once(unsigned n)
{
    double started = now();

    do_verb("create", n);
    pid_t init = init_of(n);
    do_verb("start", n);
    finish(init, "init", n, true);
    do_verb("delete", n);
    printf("%.6f %ld\n", now() - started, peak);
    fflush(stdout);
}

static void all_at_once(const char *verb, unsigned n, pid_t *pids)
{
    for (unsigned i = 0; i < n; i++)
        pids[i] = begin(verb, i, false);
    for (unsigned i = 0; i < n; i++)
        finish(pids[i], verb, i, true);
}

static void parallel(unsigned n)
{
    pid_t *pids = calloc(n, sizeof(*pids)), *inits = calloc(n, sizeof(*inits));
    double started = now();

    all_at_once("create", n, pids);
    for (unsigned i = 0; i < n; i++)
        inits[i] = init_of(i);
    all_at_once("start", n, pids);
    for (unsigned i = 0; i < n; i++)
        finish(inits[i], "init", i, true);
    all_at_once("delete", n, pids);
    printf("%.6f %ld\n", now() - started, peak);
    free(pids);
    free(inits);
}

static void start_many(unsigned n)
{
    double started = now();

    for (unsigned i = 0; i < n; i++) {
        do_verb("create", i);
        do_verb("start", i);
    }
    printf("%.6f %ld\n", now() - started, peak);
}

static void delete_many(unsigned n)
{
    double started = now();

    for (unsigned i = 0; i < n; i++)
        finish(begin("delete", i, true), "delete", i, true);
    printf("%.6f %ld\n", now() - started, peak);
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    runtime = argv[1];
    root = argv[2];
    bundle = argv[3];
    unsigned n = (unsigned)atoi(argv[5]);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
    snprintf(complaints, sizeof(complaints), "%s/cycle.complaints", root);
    posix_spawn_file_actions_addopen(&quiet, 2, complaints, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (strcmp(argv[4], "once") == 0)
        for (unsigned i = 0; i < n; i++)
            once(i);
    else if (strcmp(argv[4], "parallel") == 0)
        parallel(n);
    else if (strcmp(argv[4], "start") == 0)
        start_many(n);
    else if (strcmp(argv[4], "delete") == 0)
        delete_many(n);
    else
        return 2;
    return 0;
}
