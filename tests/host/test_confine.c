/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The confinement step by step, as its process sees it and as the host sees the process, for everybody who
 * may start a VM (confine_fixture.h). What an attacker inside can't do is tested in tests/machine/.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "confine_fixture.h"
#include "host/confine_priv.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#ifdef TABIQUE_SANITIZED
#define SANITIZED true
#else
#define SANITIZED false
#endif

#define SECRET "TABIQUE_TEST_SECRET=0123456789"
#define TITLE  "tabique: guest a"

/* What a confined child does; its result is its exit status. */
typedef int body(int channel);

struct child {
    pid_t pid;
    int channel; /* the other end of the descriptor that the body gets */
    struct confine_status status;
};

static struct child start(enum fixture_case c, struct confine_config config, body *run)
{
    int ends[2];
    struct child child = {0};

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), 0);
    child.pid = fork();
    assert_true(child.pid >= 0);
    if (child.pid == 0) {
        struct confine_status status;
        struct error *why = NULL;

        fixture_become(c);
        if (confine_begin(getppid(), "confined", &ends[1], 1, &why) < 0 ||
            confine_process(&config, &status, &why) < 0)
            errx(98, "%s", error_message(why));
        if (write(ends[1], &status, sizeof(status)) != sizeof(status))
            _exit(97);
        _exit(run(ends[1]));
    }
    close(ends[1]);
    child.channel = ends[0];
    assert_int_equal(read(child.channel, &child.status, sizeof(child.status)), sizeof(child.status));
    return child;
}

static int finish(struct child *child)
{
    int status;

    close(child->channel);
    while (waitpid(child->pid, &status, 0) < 0)
        assert_int_equal(errno, EINTR);
    return status;
}

/* Runs the body to its end; the wait status. */
static int run_confined(enum fixture_case c, enum confine_kind kind, body *run)
{
    struct child child = start(c, (struct confine_config){.kind = kind, .headroom = 64 << 20}, run);

    return finish(&child);
}

static enum fixture_case anybody(void)
{
    return fixture_possible(AS_ROOT) ? AS_ROOT : AS_USER;
}

static int wait_for_parent(int channel)
{
    char byte;

    return confine_thread(CONFINE_MAIN) || read(channel, &byte, 1) != 0;
}

/* ---- how the host sees it ---- */

static void read_proc(pid_t pid, const char *name, char *buf, size_t len)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    cleanup_close int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    ssize_t n = read(fd, buf, len - 1);
    assert_true(n >= 0);
    buf[n] = '\0';
}

static void assert_status_line(pid_t pid, const char *line)
{
    char text[8192];

    read_proc(pid, "status", text, sizeof(text));
    if (!strstr(text, line))
        fail_msg("no '%s' in:\n%s", line, text);
}

static unsigned long long limit_of(pid_t pid, const char *name)
{
    char text[8192];

    read_proc(pid, "limits", text, sizeof(text));
    char *at = strstr(text, name);
    assert_non_null(at);
    return strtoull(at + strlen(name), NULL, 10);
}

static bool own_namespace(pid_t pid, const char *name)
{
    char path[64], ours[64] = "", theirs[64] = "";

    snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
    assert_true(readlink(path, ours, sizeof(ours) - 1) > 0);
    snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, name);
    assert_true(readlink(path, theirs, sizeof(theirs) - 1) > 0);
    return strcmp(ours, theirs) != 0;
}

static unsigned count_descriptors(pid_t pid)
{
    char path[64];
    unsigned n = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));)
        n += e->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void check_from_outside(enum fixture_case c, const struct child *child)
{
    char text[4096];

    assert_status_line(child->pid, "CapInh:\t0000000000000000");
    assert_status_line(child->pid, "CapPrm:\t0000000000000000");
    assert_status_line(child->pid, "CapEff:\t0000000000000000");
    assert_status_line(child->pid, "CapAmb:\t0000000000000000");
    assert_status_line(child->pid, "NoNewPrivs:\t1");
    assert_status_line(child->pid, "Seccomp:\t2");
    assert_status_line(child->pid, "Groups:\t \n");
    if (c == AS_ROOT || c == AS_CONTAINER_ROOT || child->status.state[CONFINE_USER] == CONFINE_DONE)
        assert_status_line(child->pid, "CapBnd:\t0000000000000000");
    assert_int_equal(limit_of(child->pid, "Max core file size"), 0);
    assert_int_equal(limit_of(child->pid, "Max open files"), 1024);
    assert_int_equal(limit_of(child->pid, "Max locked memory"), 0);
    if (child->status.state[CONFINE_IDENTITY] == CONFINE_DONE ||
        child->status.state[CONFINE_USER] == CONFINE_DONE)
        assert_true(limit_of(child->pid, "Max processes") <= 128);
    assert_true(SANITIZED || limit_of(child->pid, "Max address space") < 1ull << 40);
    read_proc(child->pid, "oom_score_adj", text, sizeof(text));
    assert_true(atoi(text) >= 300);
    read_proc(child->pid, "cmdline", text, sizeof(text));
    assert_string_equal(text, TITLE);
    assert_int_equal(getsid(child->pid), child->pid);
}

/* What only root may look at, and not in every container. */
static bool may_look(pid_t pid)
{
    char path[64], target[64];

    snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
    return readlink(path, target, sizeof(target)) > 0;
}

static void check_from_above(const struct child *child)
{
    static const struct {
        enum confine_step step;
        const char *name;
    } namespaces[] = {{CONFINE_USER, "user"}, {CONFINE_MOUNT, "mnt"}, {CONFINE_NETWORK, "net"},
                      {CONFINE_IPC, "ipc"},   {CONFINE_UTS, "uts"},   {CONFINE_CGROUP, "cgroup"}};
    char text[4096];

    for (size_t i = 0; i < ARRAY_SIZE(namespaces); i++)
        assert_int_equal(own_namespace(child->pid, namespaces[i].name),
                         child->status.state[namespaces[i].step] == CONFINE_DONE);
    assert_int_equal(count_descriptors(child->pid), 4); /* /dev/null three times, and the channel */
    read_proc(child->pid, "environ", text, sizeof(text));
    assert_string_equal(text, "");
}

static void test_what_the_host_sees(void **state)
{
    for (enum fixture_case c = 0; c < FIXTURE_CASES; c++) {
        char text[512];

        if (!fixture_possible(c))
            continue;
        struct child child =
            start(c, (struct confine_config){.kind = CONFINE_START, .headroom = 64 << 20, .title = TITLE},
                  wait_for_parent);
        confine_describe(&child.status, text, sizeof(text));
        print_message("%s: %s\n", fixture_name(c), text);
        /* It answers no more: by then it is in its last list. */
        for (int tries = 0; tries < 500 && limit_of(child.pid, "Max locked memory") != 0; tries++)
            usleep(10000);
        check_from_outside(c, &child);
        if (may_look(child.pid))
            check_from_above(&child);
        assert_int_equal(finish(&child), 0);
    }
}

/* Each step where the case permits it, and told where it does not. */
static void test_status_is_right(void **state)
{
    for (enum fixture_case c = 0; c < FIXTURE_CASES; c++) {
        if (!fixture_possible(c))
            continue;
        bool permitted = fixture_permits_namespaces(c);
        struct child child = start(c, (struct confine_config){.kind = CONFINE_START}, wait_for_parent);
        assert_int_equal(finish(&child), 0);
        assert_int_equal(child.status.state[CONFINE_MOUNT] == CONFINE_DONE, permitted);
        if (c == AS_CONTAINER_ROOT || c == AS_CONTAINER_USER) {
            assert_int_equal(child.status.state[CONFINE_NETWORK], CONFINE_REFUSED);
            assert_int_equal(child.status.error[CONFINE_NETWORK], EPERM);
            assert_false(confine_complete(&child.status));
        }
        if (c == AS_CONTAINER_ROOT)
            assert_int_equal(child.status.state[CONFINE_ROOT], CONFINE_WEAKER);
        if (c == AS_CONTAINER_USER)
            assert_int_equal(child.status.state[CONFINE_ROOT], CONFINE_REFUSED);
        if (permitted)
            assert_int_equal(child.status.state[CONFINE_ROOT], CONFINE_DONE);
        if (c == AS_ROOT)
            assert_int_not_equal(child.status.state[CONFINE_IDENTITY], CONFINE_UNNEEDED);
    }
}

static void test_description(void **state)
{
    struct confine_status status;
    char text[1024], tiny[8];

    memset(&status, CONFINE_DONE, sizeof(status.state));
    memset(status.error, 0, sizeof(status.error));
    confine_describe(&status, text, sizeof(text));
    assert_memory_equal(text, "complete: ", 10);
    assert_non_null(strstr(text, "namespaces (user, mount, net, ipc, uts, cgroup), empty root"));
    confine_mark(&status, CONFINE_NETWORK, -EPERM);
    confine_describe(&status, text, sizeof(text));
    assert_memory_equal(text, "partial: ", 9);
    assert_non_null(strstr(text, "namespaces (user, mount, ipc, uts, cgroup), empty"));
    assert_non_null(strstr(text, "; not permitted here: namespaces (net)"));
    confine_mark(&status, CONFINE_ROOT, -ENOSPC);
    confine_describe(&status, text, sizeof(text));
    assert_non_null(
        strstr(text, "; not permitted here: namespaces (net), empty root: No space left on device"));
    /* A compromised process may send anything. */
    memset(&status, 0xff, sizeof(status));
    confine_describe(&status, text, sizeof(text));
    assert_true(strlen(text) < sizeof(text));
    confine_describe(&status, tiny, sizeof(tiny));
    assert_int_equal(strlen(tiny), sizeof(tiny) - 1);
    confine_describe(&status, NULL, 0);
    assert_null(confine_step_name(CONFINE_STEPS));
}

/* ---- lists ---- */

static void *nothing(void *opaque)
{
    return opaque;
}

static int make_thread(int channel)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, nothing, NULL))
        return 1;
    pthread_join(thread, NULL);
    return 0;
}

static int make_thread_late(int channel)
{
    return confine_thread(CONFINE_MAIN) ? 2 : make_thread(channel);
}

static int make_code(int channel)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
           MAP_FAILED;
}

static int make_code_late(int channel)
{
    return confine_thread(CONFINE_MAIN) ? 2 : make_code(channel);
}

static int make_child(int channel)
{
    return fork() < 0 ? 1 : 0;
}

static int widen(int channel)
{
    return confine_thread(CONFINE_MAIN) || confine_thread(CONFINE_START);
}

static bool violated(int wait_status)
{
    return confine_violation(wait_status) != NULL;
}

static void test_the_start_may_do_more(void **state)
{
    assert_int_equal(run_confined(anybody(), CONFINE_START, make_thread), 0);
    assert_int_equal(run_confined(anybody(), CONFINE_START, make_code), 0);
    assert_true(violated(run_confined(anybody(), CONFINE_START, make_child)));
    assert_true(violated(run_confined(anybody(), CONFINE_START, make_thread_late)) || SANITIZED);
    assert_true(violated(run_confined(anybody(), CONFINE_START, make_code_late)) || SANITIZED);
    assert_true(violated(run_confined(anybody(), CONFINE_START, widen)));
    assert_null(confine_violation(0));
    assert_null(confine_violation(SIGSEGV));
}

static int map_too_much(int channel)
{
    if (confine_thread(CONFINE_MAIN))
        return 2;
    void *p = mmap(NULL, 65 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *q = mmap(NULL, 32 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p != MAP_FAILED || q == MAP_FAILED;
}

static void test_address_space_ends_at_the_headroom(void **state)
{
    if (SANITIZED)
        skip();
    assert_int_equal(run_confined(anybody(), CONFINE_START, map_too_much), 0);
}

static void test_a_violation_is_told_to_developers(void **state)
{
    int ends[2];
    char text[512] = "";

    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct confine_config config = {.kind = CONFINE_START};
        struct confine_status status;

        dup2(ends[1], STDERR_FILENO);
        setenv("TABIQUE_SECCOMP", "log", 1);
        if (confine_begin(getppid(), "confined", NULL, 0, NULL) < 0 ||
            confine_process(&config, &status, NULL) < 0 || confine_thread(CONFINE_MAIN) < 0)
            _exit(1);
        socket(AF_INET, SOCK_STREAM, 0);
        _exit(0);
    }
    close(ends[1]);
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    close(ends[0]);
    assert_non_null(strstr(text, "made system call 41 (socket), which is not on its list\n"));
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(violated(status));
}

/* ---- the process of a user-mode network ---- */

static int nat_body(int channel)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), udp = socket(AF_INET6, SOCK_DGRAM, 0);
    char byte;

    if (tcp < 0 || (udp < 0 && errno != EAFNOSUPPORT))
        return 1;
    if (bind(tcp, (struct sockaddr *)&any, sizeof(any)) < 0 || listen(tcp, 1) < 0)
        return 2;
    if (socket(AF_UNIX, SOCK_DGRAM, 0) >= 0 || errno != EAFNOSUPPORT || !if_nametoindex("lo"))
        return 5;
    int file = open("/etc/hosts", O_RDONLY);
    if (file < 0 || read(file, &byte, 1) != 1)
        return 3;
    if (open("/etc/passwd", O_RDONLY) >= 0 || open("/", O_RDONLY) >= 0)
        return 4;
    return 0;
}

static int nat_unix(int channel)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) < 0;
}

static int nat_netlink(int channel)
{
    return socket(AF_NETLINK, SOCK_RAW, 0) < 0;
}

static int nat_raw(int channel)
{
    return socket(AF_INET, SOCK_RAW, 1) < 0;
}

static int nat_write(int channel)
{
    return open("/etc/hosts", O_RDWR) < 0;
}

static void test_network_process(void **state)
{
    struct confine_config config = {.kind = CONFINE_NAT, .file = "/etc/hosts"};
    static body *const forbidden[] = {nat_unix, nat_netlink, nat_raw, nat_write, make_child, make_code};

    for (enum fixture_case c = 0; c < FIXTURE_CASES; c++) {
        if (!fixture_possible(c))
            continue;
        struct child child = start(c, config, nat_body);
        /* Landlock or a root of its own keep the other files away; where a host has neither, nothing does. */
        bool files_closed = child.status.state[CONFINE_ROOT] == CONFINE_DONE ||
                            child.status.state[CONFINE_LANDLOCK] == CONFINE_DONE;
        int status = finish(&child);
        assert_true(status == 0 || (!files_closed && WEXITSTATUS(status) == 4));
        for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++) {
            if (SANITIZED && forbidden[i] == make_code)
                continue;
            child = start(c, config, forbidden[i]);
            assert_true(violated(finish(&child)));
        }
    }
}

/* ---- the rest ---- */

static void test_dies_with_its_parent(void **state)
{
    int ends[2];
    char byte;

    assert_int_equal(pipe(ends), 0);
    pid_t supervisor = fork();
    if (supervisor == 0) {
        pid_t self = getpid();

        if (fork() == 0) {
            struct confine_config config = {.kind = CONFINE_START};
            struct confine_status status;

            if (confine_begin(self, "confined", &ends[1], 1, NULL) == 0 &&
                confine_process(&config, &status, NULL) == 0 && write(ends[1], "x", 1) == 1)
                for (;;)
                    clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){.tv_sec = 3600}, NULL);
            _exit(1);
        }
        for (;;)
            pause();
    }
    close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 1);
    kill(supervisor, SIGKILL);
    waitpid(supervisor, NULL, 0);
    /* The pipe's other end goes with the confined process. */
    assert_int_equal(read(ends[0], &byte, 1), 0);
    close(ends[0]);
}

static void test_wrong_parent(void **state)
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        _exit(confine_begin(getpid(), "confined", NULL, 0, NULL) == -ESRCH ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void *sleep_long(void *opaque)
{
    pause();
    return NULL;
}

static void test_threads_come_after(void **state)
{
    pid_t pid = fork();
    int status;

    if (SANITIZED)
        skip();
    if (pid == 0) {
        struct confine_config config = {.kind = CONFINE_START};
        pthread_t thread;

        pthread_create(&thread, NULL, sleep_long, NULL);
        _exit(confine_process(&config, &(struct confine_status){0}, NULL) == -EBUSY ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void test_wrong_use(void **state)
{
    struct confine_config config = {.kind = CONFINE_MAIN};
    struct confine_status status;
    cleanup_error struct error *why = NULL;

    assert_int_equal(confine_process(&config, &status, &why), -EINVAL);
    config.kind = CONFINE_START;
    setenv("TABIQUE_SECCOMP", "of", 1);
    error_free(steal_ptr(why));
    assert_int_equal(confine_process(&config, &status, &why), -EINVAL);
    assert_non_null(strstr(error_message(why), "TABIQUE_SECCOMP=of: only 'log' is known"));
    unsetenv("TABIQUE_SECCOMP");
    assert_int_equal(confine_thread(CONFINE_MAIN), 0); /* not confined: nothing happens */
    assert_int_equal(make_thread(0), 0);
}

static void test_trial(void **state)
{
    struct confine_status status = {0};

    assert_int_equal(confine_try(&status, NULL), 0);
    assert_int_equal(status.state[CONFINE_MOUNT] == CONFINE_DONE, fixture_permits_namespaces(anybody()));
}

int main(void)
{
    putenv((char *)SECRET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_host_sees),
        cmocka_unit_test(test_status_is_right),
        cmocka_unit_test(test_description),
        cmocka_unit_test(test_the_start_may_do_more),
        cmocka_unit_test(test_address_space_ends_at_the_headroom),
        cmocka_unit_test(test_a_violation_is_told_to_developers),
        cmocka_unit_test(test_network_process),
        cmocka_unit_test(test_dies_with_its_parent),
        cmocka_unit_test(test_wrong_parent),
        cmocka_unit_test(test_threads_come_after),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_trial),
    };
    return cmocka_run_group_tests_name("host/confine", tests, NULL, NULL);
}
