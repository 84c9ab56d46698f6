/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The attacks. Each leaves things as they are where it fails; where it succeeds, the process ends soon. */
#include "attacks.h"

#include <arpa/inet.h>
#include <asm/ldt.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <linux/vm_sockets.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct victims victims;

static bool at_least_0(long rc)
{
    return rc >= 0;
}

/* ---- files ---- */

static bool opens(const char *path, int flags)
{
    return at_least_0(open(path, flags, 0600));
}

static bool open_passwd(void)
{
    return opens("/etc/passwd", O_RDONLY);
}

static bool open_shadow(void)
{
    return opens("/etc/shadow", O_RDONLY);
}

static bool open_other_guest(void)
{
    return opens(victims.file, O_RDONLY);
}

static bool write_other_guest(void)
{
    return opens(victims.file, O_WRONLY);
}

static bool open_upwards(void)
{
    return opens("../../../../../../etc/passwd", O_RDONLY);
}

static bool create_file(void)
{
    return opens("/tmp/tabique-attack", O_CREAT | O_WRONLY) || opens("tabique-attack", O_CREAT | O_WRONLY);
}

static bool create_unnamed_file(void)
{
    return opens("/tmp", O_TMPFILE | O_RDWR) || opens("/", O_TMPFILE | O_RDWR);
}

static bool make_directory(void)
{
    return mkdir("/tmp/tabique-attack", 0700) == 0 || mkdir("/tabique-attack", 0700) == 0;
}

static bool remove_file(void)
{
    return unlink(victims.file) == 0;
}

static bool rename_file(void)
{
    return rename(victims.file, "/tmp/tabique-attack") == 0;
}

static bool truncate_file(void)
{
    return truncate(victims.file, 0) == 0;
}

static bool change_mode(void)
{
    return chmod(victims.file, 0777) == 0;
}

static bool look_at_file(void)
{
    struct stat st;

    return stat(victims.file, &st) == 0;
}

static bool read_own_memory_file(void)
{
    return opens("/proc/self/mem", O_RDWR);
}

static bool read_other_memory_file(void)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/mem", victims.process);
    return opens(path, O_RDONLY);
}

static bool open_by_handle(void)
{
    struct file_handle handle = {.handle_bytes = 0, .handle_type = 1};

    return at_least_0(syscall(SYS_open_by_handle_at, victims.descriptor, &handle, O_RDONLY));
}

static bool open_kvm(void)
{
    return opens("/dev/kvm", O_RDWR);
}

/* ---- connections ---- */

static bool connects(int family, int type, const void *address, socklen_t len)
{
    int fd = socket(family, type, 0);

    return fd >= 0 && connect(fd, address, len) == 0;
}

static bool connect_tcp(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)victims.tcp_port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    return connects(AF_INET, SOCK_STREAM, &to, sizeof(to));
}

static bool send_udp(void)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(53), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    return fd >= 0 && sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)) == 1;
}

static bool listen_tcp(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    return fd >= 0 && bind(fd, (struct sockaddr *)&any, sizeof(any)) == 0 && listen(fd, 1) == 0;
}

static bool connect_path(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};

    strcpy(to.sun_path, victims.socket);
    return connects(AF_UNIX, SOCK_STREAM, &to, sizeof(to));
}

static bool connect_abstract(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};

    strcpy(to.sun_path + 1, victims.abstract);
    return connects(AF_UNIX, SOCK_STREAM, &to,
                    (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(victims.abstract)));
}

static bool reconnect_descriptor(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};

    strcpy(to.sun_path + 1, victims.abstract);
    return connect(victims.descriptor, (struct sockaddr *)&to,
                   (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(victims.abstract))) == 0;
}

static bool make_vsock(void)
{
    struct sockaddr_vm to = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = 1};
    struct timeval limit = {.tv_usec = 10000};
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

    /* No answer for seconds otherwise. */
    return fd >= 0 &&
           setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD, &limit, sizeof(limit)) == 0 &&
           (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 || errno == ECONNRESET);
}

static bool make_netlink(void)
{
    return at_least_0(socket(AF_NETLINK, SOCK_RAW, 0));
}

static bool make_packet(void)
{
    return at_least_0(socket(AF_PACKET, SOCK_RAW, 0));
}

static bool make_raw(void)
{
    return at_least_0(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static bool make_socketpair(void)
{
    int pair[2];

    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0;
}

/* ---- processes ---- */

static bool is_parent_of(long pid)
{
    if (pid == 0)
        _exit(0);
    return pid > 0;
}

static bool call_fork(void)
{
    return is_parent_of(fork());
}

static bool call_vfork(void)
{
    return is_parent_of(
        syscall(SYS_fork)); /* vfork's own call shares the stack; it is tried by clone's flags */
}

static bool clone_process(void)
{
    return is_parent_of(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
}

static bool clone_namespace(void)
{
    return is_parent_of(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
}

static bool clone3_process(void)
{
    unsigned long long arguments[8] = {[4] = SIGCHLD}; /* exit_signal */

    return is_parent_of(syscall(SYS_clone3, arguments, sizeof(arguments)));
}

static bool call_execve(void)
{
    static char *const arguments[] = {(char *)"true", NULL};

    execve("/bin/true", arguments, NULL);
    return false; /* success would not be here: the harness finds no result */
}

static bool exec_memory(void)
{
    static char *const arguments[] = {(char *)"x", NULL};
    int fd = memfd_create("x", 0);

    if (fd < 0 || write(fd, "#!/bin/true\n", 12) != 12)
        return false;
    syscall(SYS_execveat, fd, "", arguments, NULL, AT_EMPTY_PATH);
    return false;
}

static bool trace_other(void)
{
    return ptrace(PTRACE_SEIZE, victims.process, 0, 0) == 0;
}

static bool read_other_memory(void)
{
    char bytes[8];
    struct iovec to = {bytes, sizeof(bytes)}, from = {bytes, sizeof(bytes)};

    return process_vm_readv(victims.process, &to, 1, &from, 1, 0) > 0;
}

static bool write_other_memory(void)
{
    char bytes[8] = {0};
    struct iovec from = {bytes, sizeof(bytes)}, to = {bytes, sizeof(bytes)};

    return process_vm_writev(victims.process, &from, 1, &to, 1, 0) > 0;
}

static bool signal_other(void)
{
    return kill(victims.process, SIGURG) == 0;
}

static bool signal_other_thread(void)
{
    return syscall(SYS_tgkill, victims.process, victims.process, SIGURG) == 0;
}

/* It reports success where it was permitted to hit nobody, so the victim is asked. */
static bool signal_everybody(void)
{
    const struct timespec pause = {.tv_nsec = 20000000};

    kill(-1, SIGURG);
    nanosleep(&pause, NULL);
    return *victims.hit;
}

static bool signal_by_descriptor(void)
{
    long fd = syscall(SYS_pidfd_open, victims.process, 0);

    return fd >= 0 && syscall(SYS_pidfd_send_signal, fd, SIGURG, NULL, 0) == 0;
}

/* The kernel would send SIGIO to the victim. */
static bool signal_by_owner(void)
{
    return fcntl(victims.descriptor, F_SETOWN, victims.process) == 0;
}

static bool signal_by_ioctl(void)
{
    return ioctl(victims.descriptor, FIOSETOWN, &victims.process) == 0;
}

static bool take_descriptor(void)
{
    long fd = syscall(SYS_pidfd_open, victims.process, 0);

    return fd >= 0 && at_least_0(syscall(SYS_pidfd_getfd, fd, 0, 0));
}

static bool limit_other(void)
{
    struct rlimit none = {0, 0};

    return prlimit(victims.process, RLIMIT_NOFILE, &none, NULL) == 0;
}

static bool slow_other(void)
{
    return setpriority(PRIO_PROCESS, (id_t)victims.process, 19) == 0;
}

static bool compare_other(void)
{
    return at_least_0(syscall(SYS_kcmp, getpid(), victims.process, 0, 0, 0));
}

/* ---- privileges ---- */

static bool become_root(void)
{
    return geteuid() != 0 && setuid(0) == 0;
}

static bool leave_groups(void)
{
    gid_t group = 0;

    return syscall(SYS_setgroups, 1, &group) == 0;
}

static bool take_capabilities(void)
{
    struct {
        unsigned version;
        int pid;
    } header = {0x20080522, 0};
    struct {
        unsigned effective, permitted, inheritable;
    } data[2] = {{~0u, ~0u, 0}, {0x1ff, 0x1ff, 0}};

    return syscall(SYS_capset, &header, data) == 0;
}

static bool call_mount(void)
{
    return mount("proc", "/", "proc", 0, NULL) == 0 || mount("tmpfs", "/", "tmpfs", 0, NULL) == 0;
}

static bool call_umount(void)
{
    return umount2("/", MNT_DETACH) == 0;
}

static bool remount_root(void)
{
    return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) == 0;
}

static bool open_tree_clone(void)
{
    return at_least_0(syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* OPEN_TREE_CLONE */));
}

static bool unshare_user(void)
{
    return unshare(CLONE_NEWUSER) == 0;
}

static bool unshare_mount(void)
{
    return unshare(CLONE_NEWNS) == 0;
}

static bool enter_namespaces(void)
{
    long fd = syscall(SYS_pidfd_open, victims.process, 0);

    return fd >= 0 && setns((int)fd, CLONE_NEWNS | CLONE_NEWNET) == 0;
}

static bool change_root(void)
{
    return chroot("/") == 0;
}

static bool load_bpf(void)
{
    union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};

    return at_least_0(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)));
}

static bool open_perf(void)
{
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr)};

    return at_least_0(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}

static bool read_keyring(void)
{
    return at_least_0(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_USER_KEYRING, 1));
}

static bool store_key(void)
{
    return at_least_0(syscall(SYS_add_key, "user", "x", "x", 1, KEY_SPEC_PROCESS_KEYRING));
}

static bool make_ring(void)
{
    struct io_uring_params params = {0};

    return at_least_0(syscall(SYS_io_uring_setup, 1, &params));
}

static bool change_ring(void)
{
    return syscall(SYS_io_uring_register, victims.descriptor, IORING_REGISTER_PROBE, NULL, 0) == 0;
}

static bool make_userfault(void)
{
    return at_least_0(syscall(SYS_userfaultfd, 1 /* UFFD_USER_MODE_ONLY */));
}

static bool change_personality(void)
{
    return at_least_0(personality(ADDR_NO_RANDOMIZE));
}

static bool be_dumpable(void)
{
    return prctl(PR_SET_DUMPABLE, 1) == 0;
}

static bool survive_parent(void)
{
    return prctl(PR_SET_PDEATHSIG, 0) == 0;
}

static bool change_ldt(void)
{
    struct user_desc desc = {.entry_number = 0, .limit = 1};

    return syscall(SYS_modify_ldt, 1, &desc, sizeof(desc)) == 0;
}

static bool port_access(void)
{
    return syscall(SYS_iopl, 3) == 0 || syscall(SYS_ioperm, 0x80, 1, 1) == 0;
}

static bool read_kernel_log(void)
{
    return at_least_0(syscall(SYS_syslog, 10, NULL, 0)) &&
           at_least_0(syscall(SYS_syslog, 3, (char[64]){0}, 64));
}

static bool set_host_name(void)
{
    return sethostname("x", 1) == 0;
}

static bool set_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return clock_settime(CLOCK_REALTIME, &now) == 0;
}

static bool load_module(void)
{
    return syscall(SYS_finit_module, victims.descriptor, "", 0) == 0;
}

static bool call_reboot(void)
{
    return syscall(SYS_reboot, 0xfee1dead, 0x28121969, 0, NULL) == 0; /* CAD_OFF: changes only what keys do */
}

/* ---- the terminal, signals ---- */

static bool type_into_terminal(void)
{
    return ioctl(0, TIOCSTI, "x") == 0;
}

static bool take_terminal(void)
{
    return ioctl(0, TIOCSCTTY, 1) == 0;
}

static bool catch_signals(void)
{
    sigset_t set;

    sigfillset(&set);
    return at_least_0(syscall(SYS_signalfd4, -1, &set, 8, 0));
}

static bool watch_files(void)
{
    return at_least_0(syscall(SYS_inotify_init1, 0));
}

/* ---- memory ---- */

static bool map_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
           MAP_FAILED;
}

static bool make_code(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p != MAP_FAILED && mprotect(p, 4096, PROT_READ | PROT_EXEC) == 0;
}

static bool make_keyed_code(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p != MAP_FAILED && syscall(SYS_pkey_mprotect, p, 4096, PROT_READ | PROT_EXEC, -1) == 0;
}

static bool read_implies_exec(void)
{
    return at_least_0(personality(READ_IMPLIES_EXEC)) && make_code();
}

static bool share_memory(void)
{
    return at_least_0(syscall(SYS_shmget, 0 /* IPC_PRIVATE */, 4096, 0600));
}

static bool make_memory_file(void)
{
    return at_least_0(memfd_create("x", 0));
}

static bool lock_memory(void)
{
    return mlockall(MCL_CURRENT) == 0;
}

static bool exhaust_memory(void)
{
    unsigned n = 0;

    while (n < 64 && mmap(NULL, 1 << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                          -1, 0) != MAP_FAILED)
        n++;
    return n == 64;
}

static bool exhaust_descriptors(void)
{
    int n = 0;

    while (n < 5000 && fcntl(victims.descriptor, F_DUPFD_CLOEXEC, 0) >= 0)
        n++;
    return n == 5000;
}

/* ---- the table ---- */

const struct attack attacks[] = {
    {"open /etc/passwd", open_passwd, WALL_FILES, 0},
    {"open /etc/shadow", open_shadow, WALL_FILES, 0},
    {"open another guest's disk", open_other_guest, WALL_FILES, 0},
    {"write another guest's disk", write_other_guest, WALL_FILES, 0},
    {"open ../../etc/passwd", open_upwards, WALL_FILES, 0},
    {"create a file", create_file, WALL_FILES, 0},
    {"create a file without a name", create_unnamed_file, WALL_FILES, 0},
    {"make a directory", make_directory, WALL_FILES, 0},
    {"remove a file", remove_file, WALL_FILES, 0},
    {"rename a file", rename_file, WALL_FILES, 0},
    {"truncate a file", truncate_file, WALL_ROOT, 0},
    {"change a file's mode", change_mode, WALL_ROOT, 0},
    {"look whether a file is there", look_at_file, WALL_ROOT, IN_NAT},
    {"open /proc/self/mem", read_own_memory_file, WALL_FILES, 0},
    {"open the supervisor's /proc/PID/mem", read_other_memory_file, WALL_FILES, 0},
    {"open_by_handle_at", open_by_handle, WALL_PRIVILEGE, 0},
    {"open /dev/kvm", open_kvm, WALL_FILES, 0},
    {"inotify", watch_files, WALL_NONE, 0},
    {"connect by TCP", connect_tcp, WALL_NETWORK, IN_NAT},
    {"send by UDP", send_udp, WALL_NETWORK, IN_NAT},
    {"listen on a TCP port", listen_tcp, WALL_NONE, IN_NAT},
    {"connect to a Unix socket's path", connect_path, WALL_ROOT, 0},
    {"connect to an abstract Unix socket", connect_abstract, WALL_ABSTRACT, 0},
    {"connect an own socket anew", reconnect_descriptor, WALL_ABSTRACT, 0},
    {"vsock", make_vsock, WALL_NONE, 0},
    {"netlink", make_netlink, WALL_NONE, 0},
    {"packet socket", make_packet, WALL_PRIVILEGE, 0},
    {"raw socket", make_raw, WALL_PRIVILEGE, 0},
    {"socketpair", make_socketpair, WALL_NONE, 0},
    /* Before there are children who could be hit. */
    {"kill the supervisor", signal_other, WALL_SIGNALS, 0},
    {"tgkill the supervisor", signal_other_thread, WALL_SIGNALS, 0},
    {"kill everybody", signal_everybody, WALL_SIGNALS, 0},
    {"signal by a pidfd", signal_by_descriptor, WALL_SIGNALS, 0},
    {"fork", call_fork, WALL_NONE, 0},
    {"fork without the C library", call_vfork, WALL_NONE, 0},
    {"clone a process", clone_process, WALL_NONE, 0},
    {"clone into a user namespace", clone_namespace, WALL_NONE, 0},
    {"clone3", clone3_process, WALL_NONE, 0},
    {"execve", call_execve, WALL_FILES, 0},
    {"execveat a memory file", exec_memory, WALL_FILES, 0},
    {"ptrace the supervisor", trace_other, WALL_PRIVILEGE, 0},
    {"process_vm_readv", read_other_memory, WALL_PRIVILEGE, 0},
    {"process_vm_writev", write_other_memory, WALL_PRIVILEGE, 0},
    {"signal by F_SETOWN", signal_by_owner, WALL_NONE, 0},
    {"signal by FIOSETOWN", signal_by_ioctl, WALL_NONE, 0},
    {"take the supervisor's descriptor", take_descriptor, WALL_PRIVILEGE, 0},
    {"limit the supervisor", limit_other, WALL_IDENTITY, 0},
    {"slow the supervisor", slow_other, WALL_IDENTITY, 0},
    {"kcmp", compare_other, WALL_PRIVILEGE, 0},
    {"become root", become_root, WALL_PRIVILEGE, 0},
    {"set groups", leave_groups, WALL_PRIVILEGE, 0},
    {"take capabilities", take_capabilities, WALL_PRIVILEGE, 0},
    {"mount", call_mount, WALL_PRIVILEGE, 0},
    {"umount", call_umount, WALL_PRIVILEGE, 0},
    {"remount the root", remount_root, WALL_PRIVILEGE, 0},
    {"open_tree", open_tree_clone, WALL_PRIVILEGE, 0},
    {"unshare a mount namespace", unshare_mount, WALL_PRIVILEGE, 0},
    {"enter the supervisor's namespaces", enter_namespaces, WALL_PRIVILEGE, 0},
    {"chroot", change_root, WALL_PRIVILEGE, 0},
    {"bpf", load_bpf, WALL_NONE, 0},
    {"perf_event_open", open_perf, WALL_NONE, 0},
    {"keyctl", read_keyring, WALL_NONE, 0},
    {"add_key", store_key, WALL_NONE, 0},
    {"io_uring_setup", make_ring, WALL_NONE, 0},
    {"io_uring_register", change_ring, WALL_NONE, 0},
    {"userfaultfd", make_userfault, WALL_NONE, 0},
    {"personality", change_personality, WALL_NONE, 0},
    {"be dumpable", be_dumpable, WALL_NONE, 0},
    {"survive the supervisor", survive_parent, WALL_NONE, 0},
    {"modify_ldt", change_ldt, WALL_NONE, 0},
    {"ports", port_access, WALL_PRIVILEGE, 0},
    {"read the kernel's log", read_kernel_log, WALL_NONE, 0},
    {"set the host's name", set_host_name, WALL_PRIVILEGE, 0},
    {"set the clock", set_clock, WALL_PRIVILEGE, 0},
    {"load a kernel module", load_module, WALL_PRIVILEGE, 0},
    {"reboot", call_reboot, WALL_PRIVILEGE, 0},
    {"TIOCSTI", type_into_terminal, WALL_PRIVILEGE, 0},
    {"TIOCSCTTY", take_terminal, WALL_PRIVILEGE, 0},
    {"signalfd", catch_signals, WALL_NONE, 0},
    {"map code", map_code, WALL_NONE, IN_START},
    {"make data code", make_code, WALL_NONE, 0},
    {"make data code by a key", make_keyed_code, WALL_NONE, 0},
    {"READ_IMPLIES_EXEC", read_implies_exec, WALL_NONE, 0},
    {"shared memory", share_memory, WALL_NONE, 0},
    {"memory file", make_memory_file, WALL_NONE, IN_START},
    {"lock memory", lock_memory, WALL_NONE, 0},
    {"exhaust memory", exhaust_memory, WALL_NONE, ~IN_MAIN},
    {"exhaust descriptors", exhaust_descriptors, WALL_NONE, 0},
    /* The last: where it succeeds, all capabilities are there again, though only inside. */
    {"unshare a user namespace", unshare_user, WALL_NONE, 0},
};

const size_t n_attacks = sizeof(attacks) / sizeof(attacks[0]);
