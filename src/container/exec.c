/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process in a container that runs. One fork, which is born into the container's process namespace, joins
 * the others in one call by the descriptor of the container's first process, and then takes the same last
 * steps as that did. It can't be looked into from inside until it has executed its program (not dumpable, and
 * see trampoline.h).
 */
#include "container/container.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "container/console.h"
#include "container/create_priv.h"
#include "container/exec_priv.h"
#include "container/foreground.h"
#include "container/identity.h"
#include "container/lifecycle_priv.h"
#include "container/message_priv.h"
#include "container/namespaces.h"
#include "container/notify.h"
#include "container/program.h"
#include "container/sealed.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* ---- inside ---- */

static __attribute__((noreturn)) void fail(const struct execution *e, int status, const struct error *err)
{
    message_send(e->sync, MESSAGE_FAILED, error_errno(err) | status << 16, error_message(err), -1);
    _exit(status);
}

/* `numbers`: also the namespace that children are born in. */
static int join(const struct execution *e, bool numbers, struct error **err)
{
    const struct container_config *config = e->config;
    int flags = 0;

    for (size_t i = 0; i < CONTAINER_NAMESPACES; i++)
        if (config->has_namespace[i] && (i != CONTAINER_NS_PID || numbers))
            flags |= container_namespace_flags[i];
    if (flags && setns(e->target, flags) < 0)
        return error_set_errno(err, errno, "joining the container's namespaces");
    if (config->has_namespace[CONTAINER_NS_USER] && (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
        return error_set_errno(err, errno, "becoming root in the user namespace");
    return 0;
}

static int take_terminal(const struct execution *e, struct error **err)
{
    cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), master = -1;
    int slave = -1;

    if (!e->process.terminal)
        return 0;
    int rc = console_open(root, &e->process, &master, &slave, err);
    if (rc == 0)
        rc = console_send(e->console, master, err);
    if (rc)
        return rc;
    rc = console_take(slave);
    return rc < 0 ? error_set_errno(err, -rc, "controlling terminal") : 0;
}

static void wait_for_go(const struct execution *e)
{
    struct message m;

    if (message_receive(e->sync, &m, NULL) < 0 || m.kind != MESSAGE_GO)
        _exit(1);
}

static void take_filter_and_user(struct execution *e, struct program *program)
{
    struct error *err = NULL;
    bool notifies = e->config->seccomp.notifies;
    int listener = -1;

    if (e->has_filter) {
        program->filter = &e->filter;
        program->filter_flags = e->config->seccomp.flags;
    }
    unsigned long flags = program->filter_flags | (notifies ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0);
    program->limited = identity_filters_early(&e->process, program->filter, flags);
    if (identity_take(&e->process, program->filter, flags, &listener, &err))
        fail(e, 1, err);
    if (notifies)
        program->filter = NULL;
    if (listener >= 0) {
        if (message_send(e->sync, MESSAGE_LISTENER, 0, NULL, listener) < 0)
            _exit(1);
        wait_for_go(e);
        close(listener);
    }
}

static __attribute__((noreturn)) void inside(struct execution *e)
{
    struct program program = {
        .process = &e->process, .preserve_fds = e->request->preserve_fds, .label_fd = -1};
    struct error *err = NULL;
    int status = 1;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (e->process.affinity_initial && identity_affinity(0, e->process.affinity_initial) < 0) {
        error_set_errno(&err, errno, "process.execCPUAffinity.initial");
        fail(e, 1, err);
    }
    if (!e->joined && ((e->cgroup && cgroup_enter(e->cgroup, 0, &err)) || execution_enter_group(e, &err)))
        fail(e, 1, err);
    wait_for_go(e);
    if (program_open_label(&e->process, &program.label_fd, &program.label, &err) ||
        (!e->joined && join(e, false, &err)))
        fail(e, 1, err);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 0);
    setsid();
    if (take_terminal(e, &err))
        fail(e, 1, err);
    if (e->config->has_personality)
        personality(e->config->personality);
    if (e->process.affinity_final && identity_affinity(0, e->process.affinity_final) < 0) {
        error_set_errno(&err, errno, "process.execCPUAffinity.final");
        fail(e, 1, err);
    }
    take_filter_and_user(e, &program);
    prctl(PR_SET_DUMPABLE, 0);
    if (program_find(&program, &status, &err))
        fail(e, status, err);
    if (program_prepare(&program, e->sync, &err))
        fail(e, 1, err);
    prctl(PR_SET_PDEATHSIG, 0);
    if (message_send(e->sync, MESSAGE_READY, 0, NULL, -1) < 0)
        _exit(1);
    int rc = program_execute(&program, e->sync);
    error_set_errno(&err, -rc, "exec %s", program.path);
    fail(e, CONTAINER_STATUS_NOT_EXECUTABLE, err);
}

/*
 * A person has the right to the container's other namespaces in its user namespace only: this process goes
 * there, and what it forks then, as its sibling, is born in all of them.
 */
static __attribute__((noreturn)) void pass_through(struct execution *e)
{
    struct error *err = NULL;

    if ((e->cgroup && cgroup_enter(e->cgroup, 0, &err)) || execution_enter_group(e, &err) ||
        join(e, true, &err))
        fail(e, 1, err);
    prctl(PR_SET_DUMPABLE, 0);
    e->joined = true;
    pid_t pid = namespaces_clone(CLONE_PARENT, -1);
    if (pid == 0)
        inside(e);
    if (pid < 0) {
        error_set_errno(&err, errno, "fork");
        fail(e, 1, err);
    }
    message_send(e->sync, MESSAGE_PID, pid, NULL, -1);
    _exit(0);
}

/* ---- outside ---- */

static int open_container(struct execution *e, const struct container_runtime *runtime, struct error **err)
{
    int rc = state_open(runtime, e->request->id, false, &e->container, err);

    if (rc)
        return rc;
    enum container_status status = state_status(e->container);
    if (status == CONTAINER_STOPPED || status == CONTAINER_CREATING)
        return error_set(err, ESRCH, "cannot exec in a stopped container");
    if (status == CONTAINER_PAUSED && !e->request->ignore_paused)
        return error_set(err, EBUSY, "cannot exec in a paused container (use --ignore-paused to override)");
    e->target = pidfd_open(e->container->pid, 0);
    if (e->target < 0 || !state_is_alive(e->container))
        return error_set(err, ESRCH, "cannot exec in a stopped container");
    rc = state_load_config(e->container, &e->config, err);
    if (rc == 0 && program_is_in_danger(e->config))
        rc = sealed_ensure(err);
    return rc ? rc : lifecycle_open_group(e->container, &e->cgroup, err);
}

static int prepare(struct execution *e, struct error **err)
{
    const struct container_exec *r = e->request;
    int rc = execution_describe(e, err);

    if (rc)
        return rc;
    if (e->process.terminal && e->console < 0 && !r->console_socket)
        return error_set(err, EINVAL,
                         "cannot allocate tty if runc will detach without setting console socket: give "
                         "--console-socket");
    for (unsigned i = 0; i < r->preserve_fds; i++)
        if (fcntl(3 + (int)i, F_GETFD) < 0)
            return error_set(err, EBADF,
                             "please check that --preserve-fds option is correct: there is no descriptor %u",
                             3 + i);
    if (e->process.terminal && e->console < 0) {
        e->console = console_connect(r->console_socket, err);
        if (e->console < 0)
            return e->console;
    }
    if (!e->config->seccomp.given)
        return 0;
    rc = seccomp_program(e->runtime, e->config, &e->filter, err);
    e->has_filter = rc == 0;
    return rc;
}

/* A child in the container's process namespace; this process stays where it is. */
static pid_t fork_inside(struct execution *e, bool two_steps, struct error **err)
{
    bool numbers = e->config->has_namespace[CONTAINER_NS_PID] && !two_steps;
    cleanup_close int own = numbers ? open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC) : -1;

    /* The child is one that others in there might look into from its first moment. */
    prctl(PR_SET_DUMPABLE, 0);
    if (numbers && (own < 0 || setns(e->target, CLONE_NEWPID) < 0))
        return error_set_errno(err, errno, "joining the container's process namespace");
    pid_t pid = namespaces_clone(0, e->cgroup ? cgroup_directory(e->cgroup) : -1);
    if (pid == 0 && two_steps)
        pass_through(e);
    if (pid == 0)
        inside(e);
    int errnum = errno;
    if (numbers)
        setns(own, CLONE_NEWPID);
    prctl(PR_SET_DUMPABLE, 1);
    return pid < 0 ? error_set_errno(err, errnum, "fork") : pid;
}

/* From the process on the way: the number of the right one. */
static int learn_pid(pid_t *pid, int sync, struct error **err)
{
    struct message m;
    int rc = message_receive(sync, &m, NULL);

    waitpid(*pid, NULL, 0);
    if (rc < 0 || (m.kind != MESSAGE_PID && m.kind != MESSAGE_FAILED))
        return error_set(err, ECHILD, "the process ended while it joined the container");
    if (m.kind == MESSAGE_FAILED)
        return error_set(err, m.number & 0xffff, "%s", m.text);
    *pid = m.number;
    return 0;
}

static int follow(struct execution *e, pid_t pid, int sync, int *status, struct error **err)
{
    for (;;) {
        struct message m;
        int fd, rc = message_receive(sync, &m, &fd);

        if (rc < 0)
            return error_set(err, ECHILD, "the process ended while it joined the container");
        if (m.kind == MESSAGE_READY)
            return 0;
        if (m.kind == MESSAGE_FAILED) {
            *status = m.number >> 16;
            return error_set(err, m.number & 0xffff, "%s", m.text);
        }
        if (m.kind != MESSAGE_LISTENER || fd < 0)
            return error_set(err, EPROTO, "unexpected message from the process");
        struct container as = *e->container;
        as.pid = pid;
        rc = notify_send(e->config, &as, fd, err);
        close(fd);
        if (rc)
            return rc;
        message_send(sync, MESSAGE_GO, pid, NULL, -1);
    }
}

static int execute(struct execution *e, int signals, int receiver, int *status, struct error **err)
{
    int sockets[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
        return error_set_errno(err, errno, "socketpair");
    cleanup_close int sync = sockets[0];
    e->sync = sockets[1];
    bool two_steps = geteuid() != 0 && e->config->has_namespace[CONTAINER_NS_USER];
    pid_t pid = fork_inside(e, two_steps, err);
    close(sockets[1]);
    if (pid < 0)
        return (int)pid;
    int rc = two_steps ? learn_pid(&pid, sync, err) : 0;
    if (rc)
        return rc;
    rc = identity_limit(pid, &e->process, err);
    if (rc == 0 && message_send(sync, MESSAGE_GO, pid, NULL, -1) < 0)
        rc = follow(e, pid, sync, status, err); /* it has told why, or is gone */
    else if (rc == 0)
        rc = follow(e, pid, sync, status, err);
    if (rc == 0)
        rc = run_wait_for_exec(sync, status, err);
    if (rc == 0)
        rc = creation_write_pid(e->request->pid_file, pid, err);
    if (rc) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return rc;
    }
    *status = 0;
    if (e->request->detach)
        return 0;
    cleanup_close int master = receiver >= 0 && e->process.terminal ? console_receive(receiver) : -1;
    int end = foreground_follow(signals, pid, master);
    *status = end < 0 ? 1 : end;
    return 0;
}

int container_exec(const struct container_runtime *runtime, const struct container_exec *request, int *status,
                   struct error **err)
{
    struct execution e = {.runtime = runtime, .request = request, .target = -1, .console = -1};
    int pair[2] = {-1, -1};
    cleanup_close int signals = request->detach ? -1 : foreground_begin();

    *status = 1;
    if (!request->detach && !request->console_socket) {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return error_set_errno(err, errno, "socketpair");
        e.console = pair[1];
    }
    int rc = open_container(&e, runtime, err);
    if (rc == 0)
        rc = prepare(&e, err);
    if (rc == 0)
        rc = execute(&e, signals, pair[0], status, err);
    if (pair[0] >= 0)
        close(pair[0]);
    execution_free(&e);
    return rc ? error_wrap(err, "exec failed: unable to start container process") : 0;
}
