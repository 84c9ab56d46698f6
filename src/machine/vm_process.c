/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The VM process, on both sides of its fork. No state, no locks. */
#include "machine/vm_process.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#ifdef __SANITIZE_ADDRESS__
#define KEEP_STDERR true /* the sanitizer's report goes there */
#else
#define KEEP_STDERR false
#endif

static int compare_fds(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* The supervisor's files are none of the VM's business: its lock, its clients, the terminal. */
static void close_others(const struct vm_config *config)
{
    size_t n = 0;
    cleanup_free int *keep = calloc(config->n_inherited + 2, sizeof(*keep));

    if (!keep)
        _exit(VM_EXIT_FAILED);
    keep[n++] = config->console_fd;
    keep[n++] = config->control_fd;
    for (size_t i = 0; i < config->n_inherited; i++)
        keep[n++] = config->inherited[i];
    qsort(keep, n, sizeof(*keep), compare_fds);
    int next = STDERR_FILENO + 1;
    for (size_t i = 0; i < n; i++) {
        if (keep[i] > next)
            close_range((unsigned)next, (unsigned)keep[i] - 1, 0);
        if (keep[i] >= next)
            next = keep[i] + 1;
    }
    close_range((unsigned)next, ~0u, 0);
}

/* The guest's output has its socket; there is no terminal here to write to. */
static void close_standard_files(void)
{
    int null = open("/dev/null", O_RDWR);

    if (null < 0)
        _exit(VM_EXIT_FAILED);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fd != STDERR_FILENO || !KEEP_STDERR)
            dup2(null, fd);
    if (null > STDERR_FILENO)
        close(null);
}

/* The supervisor's handlers know its terminal, and its mask what it waits for. */
static void reset_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int sig = 1; sig < NSIG; sig++)
        sigaction(sig, &action, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void become_vm_process(pid_t supervisor, const struct vm_config *config)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* It may have died before that. */
    if (getppid() != supervisor)
        _exit(VM_EXIT_FAILED);
    prctl(PR_SET_NAME, "tabique-vm");
    /* Out of the terminal's reach: what is typed there must not signal the VM, and it must not open it. */
    setsid();
    reset_signals();
    close_standard_files();
    close_others(config);
}

/* The supervisor reads all that comes, so this waits only for one that is being stopped. */
static void report_end(int fd, enum vm_end end, int status, const struct error *err)
{
    struct vm_message m = {.type = VM_ENDED, .end = end, .status = status};

    if (err)
        vm_message_set_text(&m, error_message(err));
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    while (send(fd, &m, sizeof(m), MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

_Noreturn static void vm_process_main(pid_t supervisor, const struct vm_config *config)
{
    cleanup_error struct error *err = NULL;
    struct vm *vm = NULL;
    enum vm_end end = VM_END_FAILED;
    int status = VM_EXIT_FAILED;

    become_vm_process(supervisor, config);
    int rc = vm_open(&vm, config, &err);
    /* Here the process gives up what it has opened its files with: the guest's data is read from now on. */
    if (rc == 0)
        rc = vm_serve(vm, &end, &status, &err);
    vm_free(vm);
    report_end(config->control_fd, end, status, rc ? err : NULL);
    _exit(status);
}

static void close_pair(int *pair)
{
    cleanup_close_fn(&pair[0]);
    cleanup_close_fn(&pair[1]);
}

int vm_process_start(struct vm_process *process, const struct vm_config *config, struct error **err)
{
    int console[2] = {-1, -1}, control[2] = {-1, -1};
    pid_t self = getpid(), pid = -1;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) == 0 &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) == 0)
        pid = fork();
    if (pid < 0) {
        int rc = error_set_errno(err, errno, "starting the virtual machine's process");
        close_pair(console);
        close_pair(control);
        return rc;
    }
    if (pid == 0) {
        struct vm_config ours = *config;

        ours.console_fd = console[1];
        ours.control_fd = control[1];
        vm_process_main(self, &ours);
    }
    close(console[1]);
    close(control[1]);
    *process = (struct vm_process){.pid = pid, .console_fd = console[0], .control_fd = control[0]};
    return 0;
}

int vm_process_tell(const struct vm_process *process, enum vm_message_type type)
{
    struct vm_message m = {.type = type};

    return vm_message_send(process->control_fd, &m);
}

int vm_process_end(struct vm_process *process)
{
    int status = -1;

    if (process->pid > 0) {
        kill(process->pid, SIGKILL);
        while (waitpid(process->pid, &status, 0) < 0 && errno == EINTR)
            ;
    }
    cleanup_close_fn(&process->console_fd);
    cleanup_close_fn(&process->control_fd);
    *process = VM_PROCESS_NONE;
    return status;
}
