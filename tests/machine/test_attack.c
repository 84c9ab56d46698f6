/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VM process that has been taken over. The real one is started, from vm_process_start on, for everybody who
 * may start it (confine_fixture.h); where one of its threads would go on to serve the guest, it runs the
 * attacks of attacks.c instead. The linker puts our functions before the product's (--wrap), so that the
 * product needs no back door for this.
 *
 * Each attack is tried twice: as the process is, where its list of system calls refuses it; and with the
 * lists left out, to see that the walls behind them (root, namespaces, Landlock, ids, capabilities) stand
 * alone. In both the process is to survive its attacks, so a call outside the list is answered by SIGSYS,
 * which we catch; that it is the end of the process otherwise is tried by itself.
 */
#include "attacks.h"
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "confine_fixture.h"
#include "host/confine_priv.h"
#include "machine/vm_process.h"

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <ucontext.h>

#include <cmocka.h>

#define MAX_ATTACKS 128

enum outcome { LOST, BY_LIST, BY_WALL, SUCCEEDED };

/* Between the test and the process that it attacks from. */
static struct shared {
    struct confine_status status;
    bool ran;
    volatile bool hit; /* a signal reached the supervisor */
    uint8_t outcomes[MAX_ATTACKS];
    int errors[MAX_ATTACKS];
} * shared;

static struct plan {
    enum confine_kind kind; /* of the thread */
    bool without_lists;
    bool to_the_end; /* one forbidden call, uncaught */
} plan;

static const char *const kind_names[CONFINE_KINDS] = {
    [CONFINE_START] = "start",  [CONFINE_MAIN] = "main",   [CONFINE_VCPU_SOFT] = "soft",
    [CONFINE_VCPU_KVM] = "kvm", [CONFINE_DISK] = "disk",   [CONFINE_NET] = "net",
    [CONFINE_NAT] = "nat",      [CONFINE_SERVE] = "serve",
};

/* ---- inside ---- */

static volatile sig_atomic_t violated;

static void on_violation(int sig, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;

    violated = 1;
    uc->uc_mcontext.gregs[REG_RAX] = -EPERM;
}

static void attack(void)
{
    struct sigaction action = {.sa_sigaction = on_violation, .sa_flags = SA_SIGINFO | SA_NODEFER};

    if (plan.to_the_end) {
        shared->ran = true;
        socket(AF_UNIX, SOCK_STREAM, 0);
        _exit(0);
    }
    sigaction(SIGSYS, &action, NULL);
    for (size_t i = 0; i < n_attacks; i++) {
        violated = 0;
        errno = 0;
        bool success = attacks[i].succeeds();
        shared->errors[i] = errno;
        shared->outcomes[i] = success ? SUCCEEDED : violated ? BY_LIST : BY_WALL;
    }
    shared->ran = true;
    _exit(0);
}

int __real_confine_thread(enum confine_kind kind);
int __wrap_confine_thread(enum confine_kind kind);
int __real_confine_seccomp_enter(enum confine_kind kind);
int __wrap_confine_seccomp_enter(enum confine_kind kind);
int __real_confine_process(const struct confine_config *config, struct confine_status *status,
                           struct error **err);
int __wrap_confine_process(const struct confine_config *config, struct confine_status *status,
                           struct error **err);

int __wrap_confine_seccomp_enter(enum confine_kind kind)
{
    return plan.without_lists ? 0 : __real_confine_seccomp_enter(kind);
}

int __wrap_confine_process(const struct confine_config *config, struct confine_status *status,
                           struct error **err)
{
    int rc = __real_confine_process(config, status, err);

    shared->status = *status;
    return rc;
}

static void *attacking_thread(void *opaque)
{
    if (__real_confine_thread(plan.kind) == 0)
        attack();
    return NULL;
}

/* Threads that this machine has none of are made where the others are. */
static void attack_in_thread(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, attacking_thread, NULL) == 0)
        pthread_join(thread, NULL);
}

int __wrap_confine_thread(enum confine_kind kind)
{
    if (kind == CONFINE_MAIN && plan.kind == CONFINE_START)
        attack();
    if (kind == CONFINE_MAIN && (plan.kind == CONFINE_VCPU_KVM || plan.kind == CONFINE_NET))
        attack_in_thread();
    int rc = __real_confine_thread(kind);
    if (rc == 0 && kind == plan.kind)
        attack();
    return rc;
}

/* ---- outside ---- */

static char directory[64];

static int listener(int family, const void *address, socklen_t len)
{
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, address, len), 0);
    assert_int_equal(listen(fd, 100), 0);
    return fd;
}

static void write_file(const char *path, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    assert_true(fd >= 0);
    assert_int_equal(fchmod(fd, 0666), 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
}

static void make_victims(void)
{
    struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un path = {.sun_family = AF_UNIX}, name = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(loopback);
    int pair[2];

    snprintf(victims.file, sizeof(victims.file), "%s/other-guest", directory);
    write_file(victims.file, 4096);
    int fd = listener(AF_INET, &loopback, sizeof(loopback));
    assert_int_equal(getsockname(fd, (struct sockaddr *)&loopback, &len), 0);
    victims.tcp_port = ntohs(loopback.sin_port);
    snprintf(victims.socket, sizeof(victims.socket), "%s/socket", directory);
    strcpy(path.sun_path, victims.socket);
    listener(AF_UNIX, &path, sizeof(path));
    assert_int_equal(chmod(victims.socket, 0777), 0);
    snprintf(victims.abstract, sizeof(victims.abstract), "tabique-attack-%d", getpid());
    strcpy(name.sun_path + 1, victims.abstract);
    listener(AF_UNIX, &name,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(victims.abstract)));
    /* A datagram socket could be connected to someone else, if that were permitted. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    victims.descriptor = pair[0];
}

static int setup(void **state)
{
    strcpy(directory, "/tmp/tabique-attack-XXXXXX");
    if (!mkdtemp(directory) || chmod(directory, 0777) < 0)
        return -1;
    char kernel[128], disk[128];
    snprintf(kernel, sizeof(kernel), "%s/kernel", directory);
    snprintf(disk, sizeof(disk), "%s/disk", directory);
    write_file(kernel, 4096);
    write_file(disk, 1 << 20);
    make_victims();
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(n_attacks <= MAX_ATTACKS);
    return shared == MAP_FAILED ? -1 : 0;
}

static int teardown(void **state)
{
    static const char *const names[] = {"other-guest", "socket", "kernel", "disk"};
    char path[128];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        unlink(path);
    }
    return rmdir(directory);
}

/* The process of a user-mode network, and the one that serves disks, have no machine: they go the same way by
 * themselves. */
static int run_alone(void)
{
    int status;
    pid_t self = getpid(), pid = fork();

    if (pid == 0) {
        const struct confine_config config = {.kind = plan.kind};
        struct confine_status confined;
        struct error *why = NULL;

        if (confine_begin(self, "tabique-net", &victims.descriptor, 1, &why) < 0 ||
            confine_process(&config, &confined, &why) < 0)
            errx(98, "%s", error_message(why));
        attack();
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return status;
}

static int run_vm(void)
{
    char kernel[128], path[128];
    snprintf(kernel, sizeof(kernel), "%s/kernel", directory);
    snprintf(path, sizeof(path), "%s/disk", directory);
    const struct vm_disk disk = {.path = path, .format = "raw"};
    struct vm_config config = {.kernel = kernel,
                               .memory = 32 << 20,
                               .cpus = 1,
                               .engine = "soft",
                               .disks = &disk,
                               .n_disks = 1,
                               .inherited = &victims.descriptor,
                               .n_inherited = 1};
    struct vm_process process;
    struct error *why = NULL;
    int status;

    if (vm_process_start(&process, &config, &why) < 0)
        errx(98, "%s", error_message(why));
    while (waitpid(process.pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (!shared->ran) {
        struct vm_message m;

        while (vm_message_receive(process.control_fd, true, &m) == 0)
            fprintf(stderr, "%s\n", m.text);
    }
    return status;
}

static void on_hit(int sig)
{
    shared->hit = true;
}

/* Plays the plan as one of the fixture's kind, who is the supervisor and the victim. The wait status. */
static int play(enum fixture_case c)
{
    int status;

    memset(shared, 0, sizeof(*shared));
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        setsid(); /* "kill everybody" of a group, and signals of the terminal, concern nobody else */
        if (!plan.to_the_end)
            setenv("TABIQUE_SECCOMP", "log", 1);
        fixture_become(c);
        victims.process = getpid();
        victims.hit = &shared->hit;
        signal(SIGURG, on_hit);
        status = plan.kind == CONFINE_NAT || plan.kind == CONFINE_SERVE ? run_alone() : run_vm();
        _exit(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
    }
    while (waitpid(pid, &status, 0) < 0)
        assert_int_equal(errno, EINTR);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* ---- judging ---- */

static bool is_done(enum confine_step step)
{
    return shared->status.state[step] == CONFINE_DONE;
}

static bool root_is_empty(void)
{
    return shared->status.state[CONFINE_ROOT] == CONFINE_DONE ||
           shared->status.state[CONFINE_ROOT] == CONFINE_WEAKER;
}

static long landlock_version(void)
{
    long version = syscall(444 /* landlock_create_ruleset */, NULL, 0, 1 /* its version */);

    return is_done(CONFINE_LANDLOCK) ? version : 0;
}

static bool wall_stands(enum wall wall)
{
    switch (wall) {
    case WALL_NONE:
        return false;
    case WALL_FILES:
        return root_is_empty() || is_done(CONFINE_LANDLOCK);
    case WALL_ROOT:
        return root_is_empty();
    case WALL_NETWORK:
        return is_done(CONFINE_NETWORK);
    case WALL_ABSTRACT:
        return is_done(CONFINE_NETWORK) || landlock_version() >= 6;
    case WALL_IDENTITY:
        return is_done(CONFINE_IDENTITY);
    case WALL_SIGNALS:
        return is_done(CONFINE_IDENTITY) || landlock_version() >= 6;
    case WALL_PRIVILEGE:
        return true;
    }
    return false;
}

static unsigned bit_of(enum confine_kind kind)
{
    return kind == CONFINE_START  ? IN_START
           : kind == CONFINE_NAT  ? IN_NAT
           : kind == CONFINE_MAIN ? IN_MAIN
                                  : 8u;
}

static void try_attacks(enum confine_kind kind, bool without_lists)
{
    static const char *const outcome_names[] = {"LOST", "list", "wall", "SUCCEEDED"};
    unsigned n_bad = 0;

    for (enum fixture_case c = 0; c < FIXTURE_CASES; c++) {
        if (!fixture_possible(c))
            continue;
        plan = (struct plan){.kind = kind, .without_lists = without_lists};
        int status = play(c);
        if (status || !shared->ran) {
            print_error("%s, %s: ended with %d\n", fixture_name(c), kind_names[kind], status);
            n_bad++;
        }
        n_bad += shared->hit && (!without_lists || wall_stands(WALL_SIGNALS));
        print_message("---- %s, thread %s, %s\n", fixture_name(c), kind_names[kind],
                      without_lists ? "without lists" : "as it is");
        for (size_t i = 0; i < n_attacks; i++) {
            const struct attack *a = &attacks[i];
            bool refused = shared->outcomes[i] == BY_LIST || shared->outcomes[i] == BY_WALL;
            bool must =
                without_lists ? wall_stands(a->wall) : !(a->allowed & bit_of(kind)) || wall_stands(a->wall);

            /* What goes to the network is the network process's business. */
            if (without_lists && kind == CONFINE_NAT && (a->allowed & IN_NAT))
                must = false;
            n_bad += must && !refused;
            print_message("%-3s %-36s %-9s %s\n",
                          !must     ? ""
                          : refused ? "ok"
                                    : "BAD",
                          a->name, outcome_names[shared->outcomes[i]],
                          shared->outcomes[i] == BY_WALL && shared->errors[i] ? strerror(shared->errors[i])
                                                                              : "");
        }
    }
    assert_int_equal(n_bad, 0);
}

/* CONFINE_UNPACK, the last kind, may make files, which some attacks do: it is tried where it is used
 * (image/unpack). */
static void test_lists(void **state)
{
    for (enum confine_kind kind = 0; kind < CONFINE_UNPACK; kind++)
        try_attacks(kind, false);
}

static void test_walls_behind_the_lists(void **state)
{
    try_attacks(CONFINE_MAIN, true);
    try_attacks(CONFINE_NAT, true);
    try_attacks(CONFINE_SERVE, true);
}

/* Outside the list is the end of the whole process, whatever the thread. */
static void test_a_violation_ends_the_process(void **state)
{
    enum fixture_case c = fixture_possible(AS_ROOT) ? AS_ROOT : AS_USER;

    for (enum confine_kind kind = 0; kind < CONFINE_UNPACK; kind++) {
        plan = (struct plan){.kind = kind, .to_the_end = true};
        assert_int_equal(play(c), 128 + SIGSYS);
        assert_true(shared->ran);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_walls_behind_the_lists),
        cmocka_unit_test(test_a_violation_ends_the_process),
    };
    return cmocka_run_group_tests_name("machine/attack", tests, setup, teardown);
}
