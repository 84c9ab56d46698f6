/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a command that reads or writes strange images can still do, seen from inside: each attempt is one that
 * code of an attacker would make, and works before. */
#include "host/confine.h"

#include "base/bytes.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

typedef int confine_fn(struct error **err);

static bool confined_now;
static char directory[] = "/tmp/tabique-test-reader-XXXXXX", inside[64];
static int file;

static bool opens(void)
{
    return open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0;
}

static bool makes(void)
{
    return open(inside, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0 && unlink(inside) == 0;
}

static bool makes_nameless(void)
{
    return open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) >= 0;
}

static bool makes_directory(void)
{
    return mkdir(inside, 0700) == 0 && rmdir(inside) == 0;
}

static bool renames(void)
{
    return rename(directory, inside) == 0 || errno == EINVAL;
}

static bool asks_the_network(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) >= 0 || socket(AF_INET, SOCK_DGRAM, 0) >= 0;
}

static bool asks_a_service(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) >= 0;
}

static bool reaches_its_parent(void)
{
    return kill(getppid(), 0) == 0;
}

static bool has_a_child(void)
{
    pid_t pid = fork();

    if (pid == 0)
        _exit(0);
    return pid > 0 && waitpid(pid, NULL, 0) == pid;
}

/* It is confined as its maker is. */
static void *try_to_open(void *opaque)
{
    *(bool *)opaque = opens();
    return NULL;
}

static bool has_a_thread(void)
{
    bool opened = false;
    pthread_t thread;

    if (pthread_create(&thread, NULL, try_to_open, &opened))
        return false;
    pthread_join(thread, NULL);
    return !confined_now || !opened;
}

static bool writes_what_is_open(void)
{
    return pwrite(file, "x", 1, 0) == 1;
}

static bool empties_what_is_open(void)
{
    return ftruncate(file, 4096) == 0;
}

#ifndef TABIQUE_SANITIZED /* whose list is wider */
static bool makes_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
           MAP_FAILED;
}
#endif

static bool makes_a_ring(void)
{
    struct io_uring_params p = {0};

    return syscall(SYS_io_uring_setup, 4, &p) >= 0;
}

static bool runs_a_program(void)
{
    char *const words[] = {(char *)(uintptr_t) "true", NULL};

    /* From a child that shares all, so that this one goes on; it has none without that. */
    pid_t pid = vfork();
    if (pid == 0) {
        execv("/bin/true", words);
        _exit(1);
    }
    int status = 1;
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* What a writer is for: it succeeds. */
static bool is_for_writers(bool (*attempt)(void))
{
    return attempt == writes_what_is_open || attempt == empties_what_is_open || attempt == has_a_thread;
}

static const struct {
    const char *name;
    bool (*succeeds)(void);
} attempts[] = {
    {"open a file", opens},
    {"make a file", makes},
    {"make a file without name", makes_nameless},
    {"make a directory", makes_directory},
    {"rename", renames},
    {"internet", asks_the_network},
    {"services of this host", asks_a_service},
    {"signal the parent", reaches_its_parent},
    {"have a child", has_a_child},
    {"have a thread", has_a_thread},
    {"write an open file", writes_what_is_open},
    {"cut an open file", empties_what_is_open},
#ifndef TABIQUE_SANITIZED
    {"make code", makes_code},
#endif
    {"make a ring", makes_a_ring},
    {"run a program", runs_a_program},
};

/* Which attempts succeed, a bit each, confined in that way. */
static unsigned attempt_all(confine_fn *confine)
{
    int pipes[2], status;
    unsigned result = 0;

    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char byte = 0;
        if (confine && confine(NULL) < 0)
            _exit(2);
        confined_now = confine;
        for (size_t i = 0; i < ARRAY_SIZE(attempts); i++)
            result |= (unsigned)attempts[i].succeeds() << i;
        /* And what it is for. */
        if (pread(file, &byte, 1, 4095) != 1 || write(pipes[1], &result, sizeof(result)) != sizeof(result))
            _exit(3);
        _exit(0);
    }
    close(pipes[1]);
    assert_int_equal(read(pipes[0], &result, sizeof(result)), sizeof(result));
    close(pipes[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    unlink(inside);
    return result;
}

static void check(confine_fn *confine, const char *who)
{
    unsigned before = attempt_all(NULL), now = attempt_all(confine);

    for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
        /* A host may forbid rings to all. */
        if (!(before & 1u << i) && attempts[i].succeeds != makes_a_ring)
            fail_msg("an attempt proves nothing, it fails anyway: %s", attempts[i].name);
        bool may = confine == confine_writer && is_for_writers(attempts[i].succeeds);
        if (!(now & 1u << i) == may)
            fail_msg("%s %s: %s", who, may ? "can't" : "can", attempts[i].name);
    }
}

static void what_a_reader_can_not(void **state)
{
    (void)state;
    check(confine_reader, "a reader");
}

static void what_a_writer_can_not(void **state)
{
    (void)state;
    check(confine_writer, "a writer");
}

static void twice_is_once(void **state)
{
    int status;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) {
        if (confine_reader(NULL) || confine_reader(NULL))
            _exit(2);
        _exit(open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0 && (errno == EPERM || errno == EACCES) ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static int setup(void **state)
{
    char name[64];

    (void)state;
    if (!mkdtemp(directory))
        return -1;
    snprintf(inside, sizeof(inside), "%s/made", directory);
    snprintf(name, sizeof(name), "%s/file", directory);
    file = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    unlink(name);
    return ftruncate(file, 4096);
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_reader_can_not),
        cmocka_unit_test(what_a_writer_can_not),
        cmocka_unit_test(twice_is_once),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
