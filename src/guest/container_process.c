/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The container process. In its own mount namespace the root file system is mounted; the container is its
 * child. One thread, one loop, no locks. */
#include "guest/container_process.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "guest/bundle.h"
#include "guest/container_priv.h"
#include "guest/guest.h"
#include "guest/lock.h"
#include "host/loop.h"
#include "host/pass.h"
#include "image/image.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define MS 1000000ull
/* The supervisor gives an orderly end 3 s. */
#define QUIT_NS (2000 * MS)
/* What is still to come of the output when the program has ended. */
#define DRAIN_NS (1000 * MS)

struct process {
    const struct container_process *config;
    const struct guest *guest;
    json_t *image; /* the image's configuration */
    char *root;    /* of the runtime */
    struct container_runtime runtime;
    struct loop *loop;
    int control, console, lock;
    bool terminal, rootless;
    int tty_listen;       /* the runtime connects here with the terminal */
    int master;           /* of the terminal, for its size; -1: none */
    int slave;            /* held until the end: an init system closes the terminal and opens it again */
    int input, output[2]; /* pipes: for the program's standard input; from its output */
    pid_t pid;
    int pidfd;
    struct cgroup *cgroup;
    struct relay *to_program, *from_program;
    struct net_backend *backend;
    struct container_net *net;
    struct container_health *health;
    struct loop_timer *limit;
    bool stop_asked, ended, drained;
    struct vm_message end;
};

static void tell(struct process *p, enum vm_message_type type, uint64_t value)
{
    struct vm_message m = {.type = type, .value = value};

    vm_message_send(p->control, &m);
}

/* ---- making the container ---- */

/* A Unix socket's name is short, a state directory's may be long: it is made from within the directory. */
static int listen_for_terminal(struct process *p, struct error **err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "tty.sock"};

    if (!p->terminal)
        return 0;
    unlink(address.sun_path);
    p->tty_listen = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (p->tty_listen < 0 || bind(p->tty_listen, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(p->tty_listen, 1) < 0)
        return error_set_errno(err, errno, "the container's terminal");
    return 0;
}

/* The program's standard input and output are this process's while it makes it. */
static int make_pipes(struct process *p, struct error **err)
{
    int in[2], out[2];

    if (p->terminal)
        return 0;
    if (pipe2(in, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "the container's input");
    p->input = in[1];
    if (pipe2(out, O_CLOEXEC) < 0) {
        close(in[0]);
        return error_set_errno(err, errno, "the container's output");
    }
    p->output[0] = out[0];
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(out[1], STDERR_FILENO);
    close(in[0]);
    close(out[1]);
    return 0;
}

static void leave_pipes(void)
{
    int null = open("/dev/null", O_RDWR);

    for (int fd = 0; null >= 0 && fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    if (null > STDERR_FILENO)
        close(null);
}

/* Of the ids in the root file system, where they are now. */
static int find_user(struct process *p, struct bundle_user *user, struct error **err)
{
    const char *given = json_string_value(json_object_get(p->config->flags, "user"));
    const char *of_image = json_string_value(json_object_get(p->image, "User"));
    cleanup_close int root = open("root", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (root < 0)
        return error_set_errno(err, errno, "root");
    return bundle_find_user(root, given ? given : of_image, user, err);
}

static int write_config(struct process *p, struct error **err)
{
    cleanup_free char *volumes = NULL;
    char cgroup[128], path[] = "config.json";
    struct bundle bundle = {.flags = p->config->flags,
                            .image = p->image,
                            .name = p->guest->row.name,
                            .directory = p->guest->directory,
                            .cgroup = cgroup,
                            .terminal = p->terminal,
                            .rootless = p->rootless,
                            .columns = p->config->columns,
                            .rows = p->config->rows};

    if (asprintf(&volumes, "%s/volumes", p->guest->home->state) < 0)
        return error_set_errno(err, ENOMEM, "volumes");
    bundle.volumes = volumes;
    container_cgroup_path(p->guest->home, p->guest->row.name, cgroup, sizeof(cgroup));
    int rc = find_user(p, &bundle.user, err);
    json_t *json = rc ? NULL : bundle_make(&bundle, err);
    if (!json)
        return rc ? rc : -EINVAL;
    errno = EIO;
    if (json_dump_file(json, path, JSON_INDENT(2)) < 0)
        rc = error_set_errno(err, errno, "%s", path);
    json_decref(json);
    return rc;
}

static int make_root(struct process *p, struct error **err)
{
    const char *hostname = json_string_value(json_object_get(p->config->flags, "hostname"));
    int rc = container_rootfs_mount(p->guest->directory, p->config->flags, err);

    if (rc == 0 && chdir(p->guest->directory) < 0)
        rc = error_set_errno(err, errno, "%s", p->guest->directory);
    return rc ? rc
              : container_rootfs_etc(p->guest->directory, hostname ? hostname : p->guest->row.name,
                                     p->config->flags, err);
}

static int find_pid(struct process *p, struct error **err)
{
    json_t *state = container_state(&p->runtime, p->guest->row.name, err);

    if (!state)
        return -ESRCH;
    p->pid = (pid_t)json_integer_value(json_object_get(state, "pid"));
    json_decref(state);
    p->pidfd = p->pid > 0 ? pidfd_open(p->pid, 0) : -1;
    return p->pidfd < 0 ? error_set(err, ESRCH, "the container's process has ended") : 0;
}

static int create(struct process *p, int *status, struct error **err)
{
    const char *name = p->guest->row.name;
    const struct container_create request = {
        .id = name, .bundle = ".", .console_socket = p->terminal ? "tty.sock" : NULL};
    int rc = listen_for_terminal(p, err);

    if (rc == 0)
        rc = make_pipes(p, err);
    if (rc == 0)
        rc = container_create(&p->runtime, &request, status, err);
    leave_pipes();
    unlink("tty.sock");
    if (rc == 0)
        rc = find_pid(p, err);
    if (rc == 0)
        rc = container_open_cgroup(&p->runtime, name, &p->cgroup, NULL, err);
    return rc;
}

static int take_terminal(struct process *p, struct error **err)
{
    int master;
    char byte;

    if (!p->terminal)
        return 0;
    cleanup_close int fd = accept4(p->tty_listen, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 || pass_receive(fd, &byte, 1, &master, 0) < 0 || master < 0)
        return error_set(err, EIO, "the container's terminal did not come");
    p->master = master;
    p->slave = ioctl(p->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return p->slave < 0 ? error_set_errno(err, errno, "the container's terminal") : 0;
}

/* ---- its life ---- */

/* All of it is in the last messages; the rest of the output is written already. */
static void finish(struct process *p)
{
    if (p->ended && p->drained)
        loop_stop(p->loop, 0);
}

static void on_drained(void *opaque)
{
    struct process *p = opaque;

    p->drained = true;
    finish(p);
}

/* The program reads no more, or nobody writes any more: that ends nothing else. */
static void on_input_ended(void *opaque)
{
}

static void on_limit(void *opaque)
{
    struct process *p = opaque;

    if (!p->ended && p->cgroup)
        cgroup_signal_all(p->cgroup, SIGKILL, NULL);
    if (!p->ended)
        kill(p->pid, SIGKILL);
    else
        on_drained(p);
}

static void describe_end(struct process *p, int status)
{
    int64_t kills = p->cgroup ? cgroup_oom_kills(p->cgroup) : 0;

    p->end.end = VM_END_EXITED;
    p->end.status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && kills > 0)
        vm_message_set_text(&p->end,
                            "the container's memory limit was reached, and the kernel killed it (OOM)");
}

static void on_exit_of_program(void *opaque, uint32_t events)
{
    struct process *p = opaque;
    int status = 0;

    if (p->ended || waitpid(p->pid, &status, WNOHANG) != p->pid)
        return;
    p->ended = true;
    describe_end(p, status);
    cleanup_close_fn(&p->slave);
    p->slave = -1;
    /* Whoever was left by the program goes with its namespace of processes; what they wrote is there now. */
    loop_timer_arm(p->limit, loop_now() + DRAIN_NS);
    finish(p);
}

static void ask_to_stop(struct process *p)
{
    if (p->stop_asked || p->ended)
        return;
    p->stop_asked = true;
    if (p->cgroup && cgroup_is_frozen(p->cgroup))
        cgroup_thaw(p->cgroup, NULL);
    container_kill(&p->runtime, p->guest->row.name, bundle_stop_signal(p->image), false, NULL);
}

static void pause_or_resume(struct process *p, const struct vm_message *m)
{
    bool pause = m->type == VM_PAUSE;

    /* Without an answer the supervisor says that it could not be done. */
    if (p->cgroup && (pause ? cgroup_freeze(p->cgroup, NULL) : cgroup_thaw(p->cgroup, NULL)) == 0)
        tell(p, pause ? VM_PAUSED : VM_RESUMED, m->value);
}

static void on_message(struct process *p, const struct vm_message *m)
{
    struct winsize size = {.ws_col = m->columns, .ws_row = m->rows};

    switch ((enum vm_message_type)m->type) {
    case VM_POWER_BUTTON:
        ask_to_stop(p);
        break;
    case VM_PAUSE:
    case VM_RESUME:
        pause_or_resume(p, m);
        break;
    case VM_RESIZE:
        if (p->master >= 0)
            ioctl(p->master, TIOCSWINSZ, &size);
        break;
    case VM_STATS_WANTED:
        tell(p, VM_STATS, 0);
        break;
    case VM_PROFILE_WANTED:
        tell(p, VM_PROFILE, 0);
        break;
    case VM_SET_BALLOON:
        tell(p, VM_BALLOON, 0);
        break;
    case VM_QUIT:
        ask_to_stop(p);
        loop_timer_arm(p->limit, loop_now() + (p->ended ? 0 : QUIT_NS));
        break;
    default: /* vm_message_receive lets no other through */
        break;
    }
}

static void on_control(void *opaque, uint32_t events)
{
    struct process *p = opaque;
    struct vm_message m;
    int rc = vm_message_receive(p->control, false, &m);

    if (rc == 0)
        on_message(p, &m);
    else if (rc != -EAGAIN)
        loop_stop(p->loop, -ECONNRESET); /* nobody supervises it any more */
}

/* ---- the whole ---- */

static int join_console(struct process *p)
{
    int to = p->terminal ? fcntl(p->master, F_DUPFD_CLOEXEC, 3) : p->input;
    int from = p->terminal ? fcntl(p->master, F_DUPFD_CLOEXEC, 3) : p->output[0];
    int own = fcntl(p->console, F_DUPFD_CLOEXEC, 3), own2 = fcntl(p->console, F_DUPFD_CLOEXEC, 3);

    p->input = p->output[0] = -1;
    int rc = relay_open(&p->to_program, p->loop, own, to, on_input_ended, p);
    if (rc == 0)
        rc = relay_open(&p->from_program, p->loop, from, own2, on_drained, p);
    return rc;
}

static int begin(struct process *p, struct error **err)
{
    struct loop_watch *control, *exited;
    int rc = loop_create(&p->loop, err);

    if (rc)
        return rc;
    p->limit = loop_timer_new(p->loop, on_limit, p);
    rc = p->limit ? loop_watch_add(p->loop, p->control, EPOLLIN, on_control, p, &control) : -ENOMEM;
    if (rc == 0)
        rc = loop_watch_add(p->loop, p->pidfd, EPOLLIN, on_exit_of_program, p, &exited);
    if (rc == 0)
        rc = join_console(p);
    return rc ? error_set_errno(err, -rc, "container") : 0;
}

/*
 * As long as this process lives, the guest does. Not before: a container's process that waits to be started
 * has what this one has open, and would hold the guest if this one were killed. If the supervisor has ended
 * meanwhile, somebody else may have the guest already: then nothing of it is ours any more.
 */
static int hold_guest(struct process *p, struct error **err)
{
    struct pollfd control = {.fd = p->control};

    p->lock = lock_share(p->guest->directory);
    if (p->lock < 0 || (poll(&control, 1, 0) == 1 && (control.revents & POLLHUP)))
        _exit(VM_EXIT_FAILED);
    return 0;
}

static int watch_health(struct process *p, struct error **err)
{
    const char *name = p->guest->row.name;
    cleanup_free char *path = guest_run_path(p->guest->home, name, CONTAINER_HEALTH_FILE);

    if (!path)
        return error_set_errno(err, ENOMEM, "container");
    return container_health_open(&p->health, p->loop, &p->runtime, name, p->image, p->cgroup, path, err);
}

static int make(struct process *p, int *status, struct error **err)
{
    const char *name = p->guest->row.name;
    const char *net = json_string_value(json_array_get(json_object_get(p->config->flags, "net"), 0));
    int rc = container_process_clean(p->guest->home, name, err);

    p->image = rc ? NULL : container_rootfs_config(p->config->flags, err);
    if (!p->image)
        return rc ? rc : -EINVAL;
    p->terminal = json_is_true(json_object_get(p->config->flags, "terminal"));
    rc = make_root(p, err);
    if (rc == 0)
        rc = container_rootfs_volumes(p->guest->directory, p->image, p->config->flags, err);
    if (rc == 0 && !(net && strcmp(net, "host") == 0))
        rc = container_net_open(&p->net, p->backend != NULL, err);
    if (rc == 0)
        rc = write_config(p, err);
    if (rc == 0)
        rc = create(p, status, err);
    if (rc == 0)
        rc = hold_guest(p, err);
    if (rc == 0)
        rc = take_terminal(p, err);
    if (rc == 0)
        rc = begin(p, err);
    if (rc == 0 && p->backend)
        rc = container_net_start(p->net, p->loop, p->backend, err);
    if (rc == 0) {
        rc = container_start(&p->runtime, name, err);
        if (rc)
            *status = rc == -ENOENT ? CONTAINER_STATUS_NOT_FOUND : CONTAINER_STATUS_NOT_EXECUTABLE;
    }
    if (rc == 0)
        rc = watch_health(p, err);
    return rc;
}

static void close_all(struct process *p)
{
    container_health_close(p->health);
    relay_close(p->to_program);
    relay_close(p->from_program);
    container_net_close(p->net);
    loop_timer_free(p->limit);
    cgroup_free(p->cgroup);
    json_decref(p->image);
}

/* What waits for these is nobody else's business. */
static void let_go_of_others(const struct process *p)
{
    const int kept[] = {p->control, p->console};
    int fds[NET_MAX_QUEUES];
    unsigned n = p->backend ? net_descriptors(p->backend, fds) : 0;

    for (int fd = 0; fd < 1024; fd++) {
        bool keep = false;

        for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
            keep |= fd == kept[i];
        for (unsigned i = 0; i < n; i++)
            keep |= fd == fds[i];
        if (!keep)
            close(fd);
    }
    leave_pipes();
}

/* ---- a person's: in a user namespace, where the person is root ---- */

/* The supervisor, who is outside, gives the ids. One byte each way: "I am in it", "they are there". */
static int become_root(int control)
{
    char byte = 0;

    if (unshare(CLONE_NEWUSER) < 0)
        byte = (char)errno;
    if (send(control, &byte, 1, MSG_NOSIGNAL) != 1 || byte || recv(control, &byte, 1, 0) != 1)
        return -EPERM;
    return setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 ? -errno : 0;
}

static int give_ids(const struct vm_process *process, struct error **err)
{
    char byte = 0;

    if (recv(process->control_fd, &byte, 1, 0) != 1)
        return error_set(err, EIO, "the container's process ended unexpectedly");
    if (byte)
        return error_set(
            err, byte,
            "no user namespace (%s): a person's containers take them (sysctl user.max_user_namespaces, "
            "kernel.unprivileged_userns_clone, or a security module's profile forbids them)",
            strerror(byte));
    int rc = image_map_ids(process->pid, err);
    if (rc == 0 && send(process->control_fd, "", 1, MSG_NOSIGNAL) != 1)
        rc = error_set(err, EIO, "the container's process ended unexpectedly");
    return rc;
}

_Noreturn static void process_main(struct process *p)
{
    struct vm_message ready = {.type = VM_READY};
    struct error *err = NULL;
    int status = VM_EXIT_FAILED;
    sigset_t none;

    if (p->rootless && become_root(p->control) < 0)
        _exit(VM_EXIT_FAILED);
    p->root = container_process_root(p->guest->home);
    p->runtime = (struct container_runtime){.root = p->root, .rootless = p->rootless};
    setsid();
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    /* What ends a whole service or session is the supervisor's to hear. */
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_NAME, "tabique-cont");
    umask(022);
    let_go_of_others(p);
    int rc = p->root ? make(p, &status, &err) : error_set_errno(&err, ENOMEM, "container");
    p->end = (struct vm_message){.type = VM_ENDED, .end = VM_END_FAILED, .status = status};
    if (rc == 0) {
        p->end.end = VM_END_QUIT;
        vm_message_set_text(&ready, "container");
        vm_message_send(p->control, &ready);
        rc = loop_run(p->loop);
    } else {
        vm_message_set_text(&p->end, error_message(err));
    }
    container_process_clean(p->guest->home, p->guest->row.name, NULL);
    close_all(p);
    fcntl(p->control, F_SETFL, fcntl(p->control, F_GETFL) & ~O_NONBLOCK);
    while (send(p->control, &p->end, sizeof(p->end), MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
    _exit(p->end.status);
}

int container_process_start(struct vm_process *process, const struct container_process *config,
                            struct error **err)
{
    int console[2] = {-1, -1}, control[2] = {-1, -1};
    struct vm_process started = VM_PROCESS_NONE;
    int rc = config->net ? net_open(&started.nets[0], config->net, err) : 0;

    if (rc)
        return error_wrap(err, "network");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) < 0 ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
        started.pid = -1;
    else
        started.pid = fork();
    if (started.pid < 0)
        rc = error_set_errno(err, errno, "starting the container's process");
    if (started.pid == 0) {
        struct process p = {.config = config,
                            .guest = config->guest,
                            .control = control[1],
                            .console = console[1],
                            .rootless = geteuid() != 0,
                            .tty_listen = -1,
                            .master = -1,
                            .slave = -1,
                            .input = -1,
                            .output = {-1, -1},
                            .pidfd = -1,
                            .backend = started.nets[0]};
        process_main(&p);
    }
    cleanup_close_fn(&console[1]);
    cleanup_close_fn(&control[1]);
    started.console_fd = console[0];
    started.control_fd = control[0];
    if (rc == 0 && geteuid() != 0)
        rc = give_ids(&started, err);
    if (rc) {
        started.pid = started.pid < 0 ? 0 : started.pid;
        vm_process_end(&started);
        return rc;
    }
    net_release(started.nets[0]);
    *process = started;
    return 0;
}
