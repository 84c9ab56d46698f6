/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The check that an image has for its containers (Docker's Healthcheck, which OCI's configurations carry
 * along): a program that is run in the container now and then, and says by its status whether all is well. A
 * child of the container process runs it and waits; what was found is a file, which `ps` and `inspect` read.
 * One thread, the container process's loop.
 *
 *     starting --success--> healthy --failures in a row: Retries--> unhealthy --success--> healthy
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"
#include "container/cgroup.h"
#include "guest/container_priv.h"
#include "host/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#define SECOND_NS  1000000000ll
#define OUTPUT_MAX 4096 /* of what a check says */
#define WORDS_MAX  256

struct container_health {
    struct loop *loop;
    const struct container_runtime *runtime;
    const struct cgroup *cgroup;
    char *name, *path, *pid_path;
    const char *words[WORDS_MAX + 1]; /* of the image's configuration */
    json_t *image;
    int64_t interval, timeout, start_period, start_interval;
    unsigned retries, failures;
    uint64_t began;
    struct loop_timer *timer;
    struct loop_watch *ended, *said;
    pid_t pid; /* of the child; 0: none */
    int pidfd, output;
    bool timed_out, succeeded; /* this time; ever */
    char text[OUTPUT_MAX];
    size_t text_length;
};

/* ---- what is found ---- */

static void write_state(struct container_health *h, int status)
{
    const char *name = h->failures >= h->retries ? "unhealthy" : h->succeeded ? "healthy" : "starting";
    cleanup_free char *temporary = NULL;
    char shown[2 * OUTPUT_MAX];

    h->text[h->text_length < sizeof(h->text) ? h->text_length : sizeof(h->text) - 1] = '\0';
    text_make_printable(shown, sizeof(shown), h->text);
    json_t *json =
        json_pack("{s:s, s:i, s:s}", "status", name, "failing-streak", (int)h->failures, "output", shown);
    if (status >= 0) {
        json_object_set_new(json, "exit-status", json_integer(status));
        json_object_set_new(json, "checked", json_integer((json_int_t)time(NULL)));
    }
    /* What can't be written is not known; the container goes on. */
    if (json && asprintf(&temporary, "%s.new", h->path) >= 0 && json_dump_file(json, temporary, 0) == 0 &&
        rename(temporary, h->path) < 0)
        unlink(temporary);
    json_decref(json);
}

static void wait_for_next(struct container_health *h)
{
    bool starts = !h->succeeded && loop_now() - h->began < (uint64_t)h->start_period;

    loop_timer_arm(h->timer, loop_now() + (uint64_t)(starts ? h->start_interval : h->interval));
}

static void take_result(struct container_health *h, int status)
{
    /* A program that begins may take its time, but one that was well has begun. */
    bool lenient = !h->succeeded && loop_now() - h->began < (uint64_t)h->start_period;

    if (status == 0) {
        h->succeeded = true;
        h->failures = 0;
    } else if (!lenient) {
        h->failures++;
    }
    write_state(h, status);
}

/* ---- one check ---- */

static void close_check(struct container_health *h)
{
    if (h->ended)
        loop_watch_remove(h->ended);
    if (h->said)
        loop_watch_remove(h->said);
    h->ended = h->said = NULL;
    for (int *fd = (int[]){h->pidfd, h->output, -2}; *fd != -2; fd++)
        if (*fd >= 0)
            close(*fd);
    h->pidfd = h->output = -1;
    h->pid = 0;
    unlink(h->pid_path);
}

static void read_output(struct container_health *h)
{
    char buf[1024];
    ssize_t n;

    while ((n = read(h->output, buf, sizeof(buf))) > 0)
        for (ssize_t i = 0; i < n && h->text_length < sizeof(h->text) - 1; i++)
            h->text[h->text_length++] = buf[i];
    if (n == 0 && h->said) {
        loop_watch_remove(h->said);
        h->said = NULL;
    }
}

static void on_output(void *opaque, uint32_t events)
{
    read_output(opaque);
}

static void on_check_ended(void *opaque, uint32_t events)
{
    struct container_health *h = opaque;
    int word = 0;

    if (waitpid(h->pid, &word, WNOHANG) != h->pid)
        return;
    read_output(h);
    int status = WIFEXITED(word) ? WEXITSTATUS(word) : 128 + WTERMSIG(word);
    if (h->timed_out) {
        h->text_length = (size_t)snprintf(h->text, sizeof(h->text), "it took longer than %g s",
                                          (double)h->timeout / (double)SECOND_NS);
        status = 1;
    }
    close_check(h);
    take_result(h, status);
    wait_for_next(h);
}

/* The program in the container, whose number its waiter has written down, and has not let go of while it
 * lives itself. */
static void kill_check(struct container_health *h)
{
    cleanup_fclose FILE *f = fopen(h->pid_path, "re");
    int pid;

    if (f && fscanf(f, "%d", &pid) == 1 && pid > 0)
        kill(pid, SIGKILL);
    else
        kill(h->pid, SIGKILL);
}

static _Noreturn void run_check(const struct container_health *h, int output)
{
    const struct container_exec request = {.id = h->name, .args = h->words, .pid_file = h->pid_path};
    struct error *err = NULL;
    int status = 1, null = open("/dev/null", O_RDONLY);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "tabique-check");
    dup2(null, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    /* The guest's lock among them: who holds that is the guest. */
    close_range(STDERR_FILENO + 1, ~0u, 0);
    if (container_exec(h->runtime, &request, &status, &err))
        dprintf(STDERR_FILENO, "%s\n", error_message(err));
    _exit(status);
}

static int start_check(struct container_health *h)
{
    int pipe_ends[2];

    h->timed_out = false;
    h->text_length = 0;
    unlink(h->pid_path);
    if (pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    h->pid = fork();
    if (h->pid == 0) {
        fcntl(pipe_ends[1], F_SETFL, 0);
        run_check(h, pipe_ends[1]);
    }
    int rc = h->pid < 0 ? -errno : 0;
    close(pipe_ends[1]);
    h->output = pipe_ends[0];
    h->pidfd = rc ? -1 : pidfd_open(h->pid, 0);
    if (rc == 0 && h->pidfd < 0)
        rc = -errno;
    if (rc == 0)
        rc = loop_watch_add(h->loop, h->pidfd, EPOLLIN, on_check_ended, h, &h->ended);
    if (rc == 0)
        rc = loop_watch_add(h->loop, h->output, EPOLLIN, on_output, h, &h->said);
    if (rc && h->pid > 0) {
        kill(h->pid, SIGKILL);
        waitpid(h->pid, NULL, 0);
    }
    if (rc)
        close_check(h);
    return rc;
}

/* Time for the next, or too much time for this one. */
static void on_timer(void *opaque)
{
    struct container_health *h = opaque;

    if (h->pid) {
        h->timed_out = true;
        kill_check(h);
        /* Once more, should it not have been there yet. */
        loop_timer_arm(h->timer, loop_now() + SECOND_NS / 10);
        return;
    }
    /* What is frozen does not answer, and is not ill. */
    if ((h->cgroup && cgroup_is_frozen(h->cgroup)) || start_check(h))
        wait_for_next(h);
    else
        loop_timer_arm(h->timer, loop_now() + (uint64_t)h->timeout);
}

/* ---- what the image says ---- */

/* {"Test": ["CMD", PROGRAM, ...] or ["CMD-SHELL", SCRIPT] or ["NONE"], ...}; false: none. */
static bool take_words(struct container_health *h, const json_t *test)
{
    const char *kind = json_string_value(json_array_get(test, 0));
    size_t n = 0;

    if (!kind || (strcmp(kind, "CMD") != 0 && strcmp(kind, "CMD-SHELL") != 0) || json_array_size(test) < 2 ||
        json_array_size(test) > WORDS_MAX - 2)
        return false;
    if (strcmp(kind, "CMD-SHELL") == 0) {
        h->words[n++] = "/bin/sh";
        h->words[n++] = "-c";
    }
    for (size_t i = 1; i < json_array_size(test); i++) {
        const char *word = json_string_value(json_array_get(test, i));

        if (!word)
            return false;
        h->words[n++] = word;
    }
    return true;
}

/* Nanoseconds, at least one millisecond; 0 and what is none: as by default. */
static int64_t span_of(const json_t *check, const char *key, int64_t fallback)
{
    int64_t ns = json_integer_value(json_object_get(check, key));

    return ns <= 0 ? fallback : ns < SECOND_NS / 1000 ? SECOND_NS / 1000 : ns;
}

static int fill(struct container_health *h, const json_t *check, const char *name, const char *path)
{
    int64_t retries = json_integer_value(json_object_get(check, "Retries"));

    h->interval = span_of(check, "Interval", 30 * SECOND_NS);
    h->timeout = span_of(check, "Timeout", 30 * SECOND_NS);
    h->start_period = span_of(check, "StartPeriod", 0);
    h->start_interval = span_of(check, "StartInterval", 5 * SECOND_NS);
    /* Without a word on it, as often as always. */
    if (!json_object_get(check, "StartInterval") && h->interval < h->start_interval)
        h->start_interval = h->interval;
    h->retries = retries > 0 && retries < 1000 ? (unsigned)retries : 3;
    h->name = strdup(name);
    h->path = strdup(path);
    h->timer = loop_timer_new(h->loop, on_timer, h);
    if (asprintf(&h->pid_path, "%s.pid", path) < 0)
        h->pid_path = NULL;
    return h->name && h->path && h->pid_path && h->timer ? 0 : -ENOMEM;
}

int container_health_open(struct container_health **out, struct loop *loop,
                          const struct container_runtime *runtime, const char *name, const json_t *image,
                          const struct cgroup *cgroup, const char *path, struct error **err)
{
    json_t *check = json_object_get(image, "Healthcheck");
    struct container_health *h = calloc(1, sizeof(*h));

    *out = NULL;
    if (!h)
        return error_set_errno(err, ENOMEM, "the image's check");
    *h = (struct container_health){.loop = loop,
                                   .runtime = runtime,
                                   .cgroup = cgroup,
                                   .image = json_incref(check),
                                   .began = loop_now(),
                                   .pidfd = -1,
                                   .output = -1};
    if (!take_words(h, json_object_get(check, "Test"))) {
        /* What an earlier run had is not so any more. */
        unlink(path);
        container_health_close(h);
        return 0;
    }
    if (fill(h, check, name, path)) {
        container_health_close(h);
        return error_set_errno(err, ENOMEM, "the image's check");
    }
    write_state(h, -1);
    wait_for_next(h);
    *out = h;
    return 0;
}

void container_health_close(struct container_health *h)
{
    if (!h)
        return;
    if (h->pid > 0) {
        kill_check(h);
        kill(h->pid, SIGKILL);
        waitpid(h->pid, NULL, 0);
        close_check(h);
    }
    if (h->path)
        unlink(h->path);
    loop_timer_free(h->timer);
    json_decref(h->image);
    free(h->name);
    free(h->path);
    free(h->pid_path);
    free(h);
}
