/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs `criu swrk FD`, which serves one request over the socket that it is given and ends. Called by
 * checkpoint.c and restore.c, in programs of one thread.
 *
 *     here                        criu
 *     request             ->
 *                         <-      told: "post-restore" ...     (any number of times; it waits)
 *     go on               ->
 *                         <-      answer
 */
#include "container/criu_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "host/pass.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define ANSWER_MAX 65536
#define LOG_MAX    (4 << 20)

/* ---- the new process ---- */

static __attribute__((noreturn)) void fail(int told, int status, const char *text)
{
    if (write(told, text, strlen(text)) < 0)
        _exit(1);
    _exit(status);
}

/* With what a shell of root's would find, also where the caller's PATH is a person's. */
static void execute(const char *program, char *const argv[])
{
    static const char *const places[] = {"/usr/local/sbin/criu", "/usr/sbin/criu", "/sbin/criu"};

    if (program && *program) {
        execv(program, argv);
        return;
    }
    execvp("criu", argv);
    for (size_t i = 0; errno == ENOENT && i < sizeof(places) / sizeof(places[0]); i++)
        execv(places[i], argv);
}

static __attribute__((noreturn)) void become_criu(const struct criu_run *run, int socket, int told)
{
    char number[16], text[256];
    struct error *err = NULL;
    sigset_t none;

    if (run->dies_with_caller)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (run->prepare && run->prepare(run->opaque, &err))
        fail(told, 1, error_message(err));
    int copy = fcntl(socket, F_DUPFD, 3);
    snprintf(number, sizeof(number), "%d", copy);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execute(run->runtime->criu, (char *[]){"criu", "swrk", number, NULL});
    if (errno == ENOENT)
        snprintf(text, sizeof(text),
                 "%s: there is no such program, and it is what writes and reads checkpoints: install the "
                 "package criu, or name it with --criu",
                 run->runtime->criu && *run->runtime->criu ? run->runtime->criu : "criu");
    else
        snprintf(text, sizeof(text), "executing criu: %s", strerror(errno));
    fail(told, 127, text);
}

/* Its number once it is criu; -errno with *err. */
static pid_t start(const struct criu_run *run, int *socket, struct error **err)
{
    int pair[2], tell[2];
    char text[512];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_set_errno(err, errno, "socketpair");
    if (pipe2(tell, O_CLOEXEC) < 0) {
        int rc = error_set_errno(err, errno, "pipe");
        close(pair[0]);
        close(pair[1]);
        return rc;
    }
    pid_t pid = fork();
    if (pid == 0) {
        close(pair[0]);
        become_criu(run, pair[1], tell[1]);
    }
    int rc = pid < 0 ? error_set_errno(err, errno, "fork") : 0;
    close(pair[1]);
    close(tell[1]);
    ssize_t n = 0;
    do
        n = rc ? 0 : read(tell[0], text, sizeof(text) - 1);
    while (n < 0 && errno == EINTR);
    close(tell[0]);
    if (n > 0) {
        text[n] = '\0';
        waitpid(pid, NULL, 0);
        rc = error_set(err, ENOENT, "%s", text);
    }
    if (rc) {
        close(pair[0]);
        return rc;
    }
    *socket = pair[0];
    return pid;
}

/* ---- the conversation ---- */

static int ask(int socket, const struct criu_run *run, struct error **err)
{
    struct buffer request = {0};

    criu_put_number(&request, CRIU_REQUEST_KIND, run->kind);
    criu_put_message(&request, CRIU_REQUEST_OPTIONS, run->options);
    criu_put_number(&request, CRIU_REQUEST_NOTIFY_SUCCESS, 1);
    ssize_t n = request.failed ? -ENOMEM : pass_send(socket, request.data, request.size, -1, 0);
    free(request.data);
    return n < 0 ? error_set_errno(err, (int)-n, "asking criu") : 0;
}

static int go_on(int socket, bool success)
{
    struct buffer reply = {0};

    criu_put_number(&reply, CRIU_REQUEST_KIND, CRIU_NOTIFY);
    criu_put_number(&reply, CRIU_REQUEST_NOTIFY_SUCCESS, success);
    ssize_t n = reply.failed ? -ENOMEM : pass_send(socket, reply.data, reply.size, -1, 0);
    free(reply.data);
    return n < 0 ? (int)n : 0;
}

/* The errors in its log, of which the first is not always the one that matters. */
static void find_in_log(const struct criu_run *run, char *out, size_t size)
{
    cleanup_close int fd = openat(run->work_dir, run->log, O_RDONLY | O_CLOEXEC);
    cleanup_fclose FILE *f = fd < 0 ? NULL : fdopen(dup(fd), "r");
    char line[512];
    size_t used = 0;

    for (size_t read = 0; f && read < LOG_MAX && fgets(line, sizeof(line), f); read += strlen(line)) {
        char *text = strstr(line, "Error (");

        text = text ? strstr(text, "): ") : NULL;
        if (!text || strstr(text, "FAILED"))
            continue;
        text[strcspn(text, "\n")] = '\0';
        int n = snprintf(out + used, size - used, "%s%s", used ? "; " : "", text + 3);
        if (n < 0 || (size_t)n >= size - used)
            return;
        used += (size_t)n;
    }
}

static int fail_told(const struct criu_run *run, struct criu_answer *answer, struct error **err)
{
    int errnum = answer->errnum > 0 ? answer->errnum : EIO;

    find_in_log(run, answer->message, sizeof(answer->message));
    answer->message[strcspn(answer->message, "\n")] = '\0';
    return error_set(err, errnum, "criu failed: %s (its log is %s/%s)",
                     *answer->message ? answer->message : strerror(errnum), run->work_path, run->log);
}

static int converse(const struct criu_run *run, int socket, pid_t *pid, struct error **err)
{
    cleanup_free void *buffer = malloc(ANSWER_MAX);
    struct criu_answer answer;

    if (!buffer)
        return error_set_errno(err, ENOMEM, "criu");
    for (;;) {
        cleanup_close int fd = -1;
        ssize_t n = pass_receive(socket, buffer, ANSWER_MAX, &fd, MSG_TRUNC);

        if (n == -EINTR)
            continue;
        if (n <= 0) {
            answer = (struct criu_answer){0};
            return fail_told(run, &answer, err);
        }
        if (n > ANSWER_MAX || criu_answer_parse(buffer, (size_t)n, &answer) < 0)
            return error_set(err, EPROTO, "criu answered what is no answer of criu's");
        if (answer.kind != CRIU_NOTIFY) {
            *pid = answer.pid;
            return answer.success ? 0 : fail_told(run, &answer, err);
        }
        int rc = run->told ? run->told(run->opaque, &answer, fd, err) : 0;
        int sent = go_on(socket, rc == 0);
        if (rc)
            return rc;
        if (sent < 0)
            return error_set_errno(err, -sent, "telling criu to go on");
    }
}

int criu_run(const struct criu_run *run, pid_t *pid, struct error **err)
{
    cleanup_close int socket = -1;
    pid_t criu = start(run, &socket, err), unused = 0;

    if (criu < 0)
        return criu;
    int rc = run->begun ? run->begun(run->opaque, criu, err) : 0;
    if (rc == 0)
        rc = ask(socket, run, err);
    if (rc == 0)
        rc = converse(run, socket, pid ? pid : &unused, err);
    /* What it does not finish it takes back when its other side is gone. */
    close(steal_fd(socket));
    while (waitpid(criu, NULL, 0) < 0 && errno == EINTR)
        ;
    return rc;
}
