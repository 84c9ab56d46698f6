/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The VM process, on both sides of its fork. No state, no locks. */
#include "machine/vm_process.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "host/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* Bytes that loading files and serving devices may map on top of the built machine. */
#define HEADROOM (1ull << 30)
/* That may be open at once, besides those of disks. */
#define DESCRIPTORS 1024u

/* The supervisor's files are none of the VM's business: its lock, its clients, the terminal. */
static int become_vm_process(pid_t supervisor, const struct vm_config *config, struct error **err)
{
    cleanup_free int *keep = calloc(config->n_inherited + 2 + config->n_nets * NET_MAX_QUEUES, sizeof(*keep));
    size_t n = 0;

    if (!keep)
        return error_set_errno(err, ENOMEM, "starting the virtual machine's process");
    keep[n++] = config->console_fd;
    keep[n++] = config->control_fd;
    for (size_t i = 0; i < config->n_inherited; i++)
        keep[n++] = config->inherited[i];
    for (size_t i = 0; i < config->n_nets; i++)
        n += net_descriptors(config->backends[i], keep + n);
    return confine_begin(supervisor, "tabique-vm", keep, n, err);
}

/* Here the process gives up what it has opened its files with: the guest's data is read from now on. */
static int confine(const struct vm *vm, const struct vm_config *config, struct error **err)
{
    const struct confine_config confinement = {.kind = CONFINE_START,
                                               .title = "tabique: vm",
                                               .headroom = HEADROOM + vm_files_size(vm),
                                               .descriptors = DESCRIPTORS + vm_disk_descriptors(vm)};
    struct confine_status status;
    struct vm_message m = {.type = VM_CONFINED};
    int rc = confine_process(&confinement, &status, err);

    if (rc)
        return rc;
    confine_describe(&status, m.text, sizeof(m.text));
    vm_message_send(config->control_fd, &m);
    return 0;
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

    int rc = become_vm_process(supervisor, config, &err);
    if (rc == 0 && config->directory && chdir(config->directory) < 0)
        rc = error_set_errno(&err, errno, "'%s'", config->directory);
    if (rc == 0)
        rc = vm_open(&vm, config, &err);
    if (rc == 0)
        rc = confine(vm, config, &err);
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

static void close_nets(struct vm_process *process)
{
    for (size_t i = 0; i < VM_NETS_MAX; i++)
        net_close(steal_ptr(process->nets[i]));
}

static int open_nets(struct vm_process *process, const struct vm_config *config, struct error **err)
{
    if (config->n_nets > VM_NETS_MAX)
        return error_set(err, E2BIG, "%zu network cards: there may be %u", config->n_nets, VM_NETS_MAX);
    for (size_t i = 0; i < config->n_nets; i++) {
        int rc = net_open(&process->nets[i], &config->nets[i].config, err);

        if (rc == 0 && !process->nets[i])
            rc = error_set(err, EINVAL, "a card without a network");
        if (rc) {
            error_wrap(err, "network");
            close_nets(process);
            return rc;
        }
    }
    return 0;
}

int vm_process_start(struct vm_process *process, const struct vm_config *config, struct error **err)
{
    int console[2] = {-1, -1}, control[2] = {-1, -1};
    pid_t self = getpid(), pid = -1;
    struct vm_process started = VM_PROCESS_NONE;
    int rc = open_nets(&started, config, err);

    if (rc)
        return rc;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console) == 0 &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) == 0)
        pid = fork();
    if (pid < 0) {
        rc = error_set_errno(err, errno, "starting the virtual machine's process");
        close_nets(&started);
        close_pair(console);
        close_pair(control);
        return rc;
    }
    if (pid == 0) {
        struct vm_config ours = *config;

        ours.console_fd = console[1];
        ours.control_fd = control[1];
        ours.backends = started.nets;
        vm_process_main(self, &ours);
    }
    close(console[1]);
    close(control[1]);
    /* Theirs is the last copy now, so that each of the two sees the other's end. */
    for (size_t i = 0; i < config->n_nets; i++)
        net_release(started.nets[i]);
    started.pid = pid;
    started.console_fd = console[0];
    started.control_fd = control[0];
    *process = started;
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
    close_nets(process);
    *process = VM_PROCESS_NONE;
    return status;
}
