/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A container's first process, a fork of the command that makes it: sets up its namespaces from inside,
 * becomes the user that it is to be, tells the command that it is ready, and waits at the fifo until it is
 * started. What it waits with is what the kernel copies of the command's memory when it is written to, and
 * that is little.
 */
#include "container/init.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "container/console.h"
#include "container/container.h"
#include "container/hooks.h"
#include "container/identity.h"
#include "container/message_priv.h"
#include "container/path.h"
#include "container/program.h"
#include "container/setup_priv.h"
#include "container/state_priv.h"
#include "host/descriptors.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

static __attribute__((noreturn)) void fail(const struct container_setup *setup, int status,
                                           const struct error *err)
{
    message_send(setup->sync, MESSAGE_FAILED, error_errno(err) | status << 16, error_message(err), -1);
    _exit(status);
}

/* The message brings this process's number as the host sees it. */
static int wait_for_go(const struct container_setup *setup)
{
    struct message m;
    int rc = message_receive(setup->sync, &m, NULL);

    if (rc < 0 || m.kind != MESSAGE_GO)
        return rc < 0 ? rc : -EPROTO;
    setup->container->pid = m.number;
    return 0;
}

static int run_own_hooks(const struct container_setup *setup, enum container_hook_kind kind,
                         enum container_status status, struct error **err)
{
    if (!setup->config->hooks.n[kind])
        return 0;
    cleanup_free char *state = state_describe_text(setup->container, status);
    return state ? hooks_run(&setup->config->hooks, kind, state, err) : error_set_errno(err, ENOMEM, "state");
}

/* ---- before the file system ---- */

/* In a network of the container's own: without it 127.0.0.1 answers nobody, and nothing else there is up. */
static int raise_loopback(const struct container_config *config, struct error **err)
{
    struct ifreq lo = {.ifr_name = "lo"};

    if (!config->has_namespace[CONTAINER_NS_NETWORK] || config->namespace_path[CONTAINER_NS_NETWORK])
        return 0;
    cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 && errno == EAFNOSUPPORT)
        return 0; /* a kernel without any network */
    lo.ifr_flags = IFF_UP | IFF_RUNNING;
    return fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0 ? error_set_errno(err, errno, "loopback interface") : 0;
}

static int begin(struct container_setup *setup, struct error **err)
{
    const struct container_config *config = setup->config;

    /* Whoever is not yet in a container must not outlive who makes it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* It may have ended before that: then the socket tells. */
    close(setup->peer);
    /* The container's lock is its maker's alone, and goes with it. */
    close(setup->container->dir);
    setup->container->dir = -1;
    if (setup->cgroup && cgroup_enter(setup->cgroup, 0, err))
        return -1;
    if (wait_for_go(setup) < 0)
        _exit(1);
    if (setup->mapped && config->maps.n_uids && (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0))
        return error_set_errno(err, errno, "becoming root in the user namespace: id 0 must be mapped");
    /* Changing the user forgets it, and lets others of that user look into this process. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 0);
    if (setsid() < 0 && errno != EPERM)
        return error_set_errno(err, errno, "setsid");
    if (!setup->no_new_keyring) {
        char name[128];

        snprintf(name, sizeof(name), "_ses.%.100s", setup->id);
        if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) < 0 && errno != ENOSYS && errno != EPERM)
            return error_set_errno(err, errno, "session keyring");
    }
    umask(0);
    if (config->hostname && sethostname(config->hostname, strlen(config->hostname)) < 0)
        return error_set_errno(err, errno, "hostname");
    if (config->domainname && setdomainname(config->domainname, strlen(config->domainname)) < 0)
        return error_set_errno(err, errno, "domainname");
    return raise_loopback(config, err);
}

/* ---- hooks ---- */

static int run_hooks(const struct container_setup *setup, struct error **err)
{
    const struct container_hooks *hooks = &setup->config->hooks;
    bool outside = hooks->n[CONTAINER_HOOK_PRESTART] || hooks->n[CONTAINER_HOOK_CREATE_RUNTIME] ||
                   hooks->n[CONTAINER_HOOK_CREATE_CONTAINER];

    if (!outside)
        return 0;
    if (message_send(setup->sync, MESSAGE_HOOKS, 0, NULL, -1) < 0 || wait_for_go(setup) < 0)
        _exit(1);
    return run_own_hooks(setup, CONTAINER_HOOK_CREATE_CONTAINER, CONTAINER_CREATING, err);
}

/* ---- the file system, and what goes with it ---- */

static int open_null(struct container_setup *setup, struct error **err)
{
    struct stat st;

    setup->null_fd = open("/dev/null", O_PATH | O_CLOEXEC);
    if (setup->null_fd < 0 || fstat(setup->null_fd, &st) < 0)
        return error_set_errno(err, errno, "/dev/null");
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
        return error_set(err, ENODEV, "/dev/null on this host is something else");
    return 0;
}

static int open_console(struct container_setup *setup, int *slave, struct error **err)
{
    cleanup_close int master = -1;

    if (!setup->config->process.terminal)
        return 0;
    int rc = console_open(setup->root, &setup->config->process, &master, slave, err);
    if (rc == 0)
        rc = console_show(setup->root, *slave, err);
    return rc ? rc : console_send(setup->console_socket, master, err);
}

static int join(const struct container_setup *setup, enum container_namespace which, struct error **err)
{
    cleanup_close int fd = open(setup->config->namespace_path[which], O_RDONLY | O_CLOEXEC);

    if (fd < 0 || setns(fd, container_namespace_flags[which]) < 0)
        return error_set_errno(err, errno, "namespace %s", setup->config->namespace_path[which]);
    return 0;
}

static int set_up_files(struct container_setup *setup, int *slave, struct error **err)
{
    const struct container_config *config = setup->config;

    if (config->namespace_path[CONTAINER_NS_MOUNT])
        return join(setup, CONTAINER_NS_MOUNT, err);
    int rc = open_null(setup, err);
    if (rc == 0)
        rc = rootfs_prepare(setup, err);
    if (rc == 0)
        rc = run_hooks(setup, err);
    if (rc == 0)
        rc = sysctl_write(config, err);
    if (rc == 0)
        rc = open_console(setup, slave, err);
    return rc ? rc : rootfs_enter(setup, err);
}

static int take_cgroup_namespace(const struct container_setup *setup, struct error **err)
{
    const struct container_config *config = setup->config;

    if (!config->has_namespace[CONTAINER_NS_CGROUP])
        return 0;
    if (config->namespace_path[CONTAINER_NS_CGROUP])
        return join(setup, CONTAINER_NS_CGROUP, err);
    return unshare(CLONE_NEWCGROUP) < 0 ? error_set_errno(err, errno, "cgroup namespace") : 0;
}

/* ---- the program ---- */

/* While it waits it must hold nothing open that others take for a sign of life: who makes it may be killed,
 * and the ends of its sockets and pipes are here, too. */
static int close_others(const struct container_setup *setup, const struct program *program,
                        struct error **err)
{
    const int keep[] = {setup->sync, setup->fifo, program->label_fd};
    int rc = descriptors_close_but(3 + (int)setup->preserve_fds, keep, 3);

    return rc < 0 ? error_set_errno(err, -rc, "closing descriptors") : 0;
}

static void tell_listener(const struct container_setup *setup, int listener, int status)
{
    struct error *err = NULL;

    if (listener < 0)
        return;
    if (message_send(setup->sync, MESSAGE_LISTENER, 0, NULL, listener) < 0 || wait_for_go(setup) < 0) {
        error_set(&err, EPIPE, "seccomp listener");
        fail(setup, status, err);
    }
    close(listener);
}

/* Told over the fifo, where nobody listens to the socket any more. */
static __attribute__((noreturn)) void fail_late(const struct container_setup *setup, int fd, const char *text)
{
    if (write(fd, text, strlen(text)) < 0)
        _exit(1);
    _exit(1);
}

/* Until `start` writes a byte. */
static void wait_at_fifo(const struct container_setup *setup)
{
    char byte;

    while (read(setup->fifo, &byte, 1) < 0)
        if (errno != EINTR)
            _exit(1);
}

static void start(struct container_setup *setup, struct program *program)
{
    struct error *err = NULL;
    int error_fd = setup->fifo >= 0 ? setup->fifo : setup->sync;

    if (setup->fifo >= 0) {
        close(setup->sync);
        wait_at_fifo(setup);
    }
    if (run_own_hooks(setup, CONTAINER_HOOK_START_CONTAINER, CONTAINER_CREATED, &err)) {
        if (setup->fifo < 0)
            fail(setup, 1, err);
        fail_late(setup, error_fd, error_message(err));
    }
    int rc = program_execute(program, error_fd);
    error_set_errno(&err, -rc, "exec %s", program->path);
    if (setup->fifo < 0)
        fail(setup, CONTAINER_STATUS_NOT_EXECUTABLE, err);
    fail_late(setup, error_fd, error_message(err));
}

void init_main(struct container_setup *setup)
{
    const struct container_config *config = setup->config;
    struct program program = {
        .process = &config->process, .preserve_fds = setup->preserve_fds, .label_fd = -1};
    struct error *err = NULL;
    int slave = -1, listener = -1, status = 1;

    if (begin(setup, &err))
        fail(setup, 1, err);
    /* While the host's /proc is in place: attributes of a process are found by its number there. */
    if (config->has_process && program_open_label(&config->process, &program.label_fd, &program.label, &err))
        fail(setup, 1, err);
    if (set_up_files(setup, &slave, &err) || take_cgroup_namespace(setup, &err))
        fail(setup, 1, err);
    if (slave >= 0 && console_take(slave) < 0) {
        error_set_errno(&err, errno, "controlling terminal");
        fail(setup, 1, err);
    }
    if (config->has_personality && personality(config->personality) < 0) {
        error_set_errno(&err, errno, "personality");
        fail(setup, 1, err);
    }
    if (close_others(setup, &program, &err))
        fail(setup, 1, err);
    if (setup->has_filter) {
        program.filter = &setup->filter;
        program.filter_flags = config->seccomp.flags;
    }
    unsigned long flags =
        program.filter_flags | (config->seccomp.notifies ? SECCOMP_FILTER_FLAG_NEW_LISTENER : 0);
    program.limited = identity_filters_early(&config->process, program.filter, flags);
    if (identity_take(&config->process, program.filter, flags, &listener, &err))
        fail(setup, 1, err);
    if (config->seccomp.notifies)
        program.filter = NULL;
    tell_listener(setup, listener, 1);
    /* Changing the user has made this process visible to others of that user. */
    prctl(PR_SET_DUMPABLE, 0);
    if (program_find(&program, &status, &err))
        fail(setup, status, err);
    if (program_prepare(&program, setup->fifo >= 0 ? setup->fifo : setup->sync, &err))
        fail(setup, 1, err);
    prctl(PR_SET_PDEATHSIG, 0);
    if (message_send(setup->sync, MESSAGE_READY, 0, NULL, -1) < 0)
        _exit(1);
    start(setup, &program);
    _exit(1);
}
