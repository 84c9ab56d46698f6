/* SPDX-License-Identifier: GPL-2.0-or-later */
/* create and start at once: the process does not wait in between, and what executing the program says is
 * heard over the socket that the rest came over. */
#include "container/container.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/console.h"
#include "container/create_priv.h"
#include "container/exec_priv.h"
#include "container/foreground.h"
#include "container/lifecycle_priv.h"
#include "container/message_priv.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* The socket's end, if all went well: executing the program closes the other side. */
int run_wait_for_exec(int sync, int *status, struct error **err)
{
    char buf[sizeof(struct message)] = {0};
    struct message *m = (struct message *)buf;
    ssize_t n;

    do
        n = recv(sync, buf, sizeof(buf) - 1, 0);
    while (n < 0 && (errno == EINTR || errno == ECONNRESET));
    if (n <= 0)
        return 0;
    if (n == sizeof(uint64_t)) { /* from the trampoline */
        uint64_t errnum;

        memcpy(&errnum, buf, sizeof(errnum));
        *status = errnum == ENOENT ? CONTAINER_STATUS_NOT_FOUND : CONTAINER_STATUS_NOT_EXECUTABLE;
        return error_set_errno(err, (int)errnum, "exec");
    }
    *status = m->kind == MESSAGE_FAILED ? m->number >> 16 : 1;
    return error_set(err, m->number & 0xffff, "%s", m->text);
}

static int destroy(const struct container_runtime *runtime, struct creation *c, struct error **err)
{
    /* Waited for or not: what is left of it. */
    if (c->container->pid > 0 && state_is_alive(c->container)) {
        kill(c->container->pid, SIGKILL);
        waitpid(c->container->pid, NULL, 0);
    }
    return lifecycle_destroy(runtime, c->container, err);
}

static int run(struct creation *c, bool detach, bool keep, int signals, int console, int *status,
               struct error **err)
{
    int rc = creation_make(c, status, err);

    if (rc)
        return rc;
    /* Only the process has the other end now. */
    *status = 1;
    rc = run_wait_for_exec(c->sync, status, err);
    if (rc == 0)
        rc = lifecycle_post_start(c->container, err);
    if (rc) {
        destroy(c->runtime, c, NULL);
        return error_wrap(err, "unable to start container process");
    }
    *status = 0;
    if (detach)
        return 0;
    cleanup_close int master = console >= 0 && c->config->process.terminal ? console_receive(console) : -1;
    int end = foreground_follow(signals, c->container->pid, master);
    rc = keep ? 0 : destroy(c->runtime, c, err);
    *status = end < 0 ? 1 : end;
    return rc;
}

int container_run(const struct container_runtime *runtime, const struct container_create *request,
                  bool detach, bool keep, int *status, struct error **err)
{
    struct creation c = {.runtime = runtime, .request = request, .own_console = -1, .sync = -1};
    int pair[2] = {-1, -1};
    cleanup_close int signals = detach ? -1 : foreground_begin();

    *status = 1;
    /* Its own terminal is passed through to it, unless somebody else wants it. */
    if (!detach && !request->console_socket) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return error_set_errno(err, errno, "socketpair");
        c.own_console = pair[1];
    }
    int rc = run(&c, detach, keep, signals, c.own_console >= 0 && pair[0] >= 0 ? pair[0] : -1, status, err);
    if (pair[0] >= 0)
        close(pair[0]);
    creation_free(&c);
    return rc;
}
