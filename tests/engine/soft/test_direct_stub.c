/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Stubs: what stops the code in one, what it holds, and how it ends. */
#include "base/error.h"
#include "engine/soft/direct_stub.h"
#include "engine/soft/direct_stub_priv.h"
#include "engine/soft/vcpu.h"

#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGE 4096u
#define CODE 0x400000u
#define DATA 0x7f0000000000ull

#define OTHERS 8u /* that are busy */

static struct {
    int fd;
    uint8_t *memory;
    struct direct_stub stub;
} s;

static int begin_stub(void **state)
{
    struct error *err = NULL;

    s.fd = memfd_create("guest", MFD_CLOEXEC);
    assert_int_equal(ftruncate(s.fd, 16 * PAGE), 0);
    s.memory = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, s.fd, 0);
    assert_true(s.memory != MAP_FAILED);
    if (direct_stub_create(&s.stub, s.fd, &err) < 0)
        fail_msg("%s", error_message(err));
    return 0;
}

static int end_stub(void **state)
{
    direct_stub_destroy(&s.stub);
    munmap(s.memory, 16 * PAGE);
    close(s.fd);
    return 0;
}

static struct direct_registers registers(uint64_t rip)
{
    return (struct direct_registers){.rip = rip, .cs = 0x33, .rflags = 0x202};
}

static void map_code(const uint8_t *code, size_t length)
{
    memcpy(s.memory, code, length);
    assert_int_equal(direct_stub_map(&s.stub, CODE, PAGE, PROT_READ | PROT_EXEC, 0), 0);
    assert_int_equal(direct_stub_apply(&s.stub), 0);
}

static void a_system_call_stops_before_the_kernel_sees_it(void **state)
{
    static const uint8_t code[] = {0x48, 0xff, 0xc0, 0x0f, 0x05, 0xf4}; /* inc rax; syscall; hlt */
    struct direct_registers r = registers(CODE);

    map_code(code, sizeof(code));
    r.gpr[CPU_RAX] = SYS_exit_group - 1;
    r.gpr[CPU_RDI] = 5;
    assert_int_equal(direct_stub_run(&s.stub, &r), DIRECT_STOP_SYSCALL);
    assert_int_equal(r.gpr[CPU_RAX], SYS_exit_group);
    assert_int_equal(r.rip, CODE + 5);
    assert_int_equal(r.gpr[CPU_RDI], 5);
    /* It is alive, and goes on where it is told to. */
    r = registers(CODE);
    assert_int_equal(direct_stub_run(&s.stub, &r), DIRECT_STOP_SYSCALL);
    assert_int_equal(r.gpr[CPU_RAX], 1);
}

/* In a process where `call`, with that first argument unless that is ANY, meets with `action`: what a stub
 * makes of the guest's `asks`, by an instruction that ends at code + 2. */
#define ANY UINT32_MAX
static void under_a_filter(uint32_t call, uint32_t first, uint32_t action, const uint8_t code[2],
                           uint64_t asks)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, first, 0, first == ANY ? 0 : 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};
    int status;

    pid_t pid = fork();
    if (pid == 0) {
        struct direct_registers r = registers(CODE);
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
            _exit(2);
        if (direct_stub_create(&s.stub, s.fd, NULL) < 0)
            _exit(3);
        memcpy(s.memory, code, 2);
        r.gpr[CPU_RAX] = asks;
        if (direct_stub_map(&s.stub, CODE, PAGE, PROT_READ | PROT_EXEC, 0) < 0 ||
            direct_stub_apply(&s.stub) < 0)
            _exit(4);
        bool stopped = direct_stub_run(&s.stub, &r) == DIRECT_STOP_SYSCALL && r.gpr[CPU_RAX] == asks &&
                       r.rip == CODE + 2;
        direct_stub_destroy(&s.stub);
        _exit(stopped ? 0 : 5);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* Kernels before 5.11: the stub's own filter does it alone. */
static void calls_stop_without_dispatch(void **state)
{
    const uint32_t refused = SECCOMP_RET_ERRNO | EINVAL;

    under_a_filter(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, refused, (const uint8_t[]){0x0f, 0x05},
                   SYS_openat);
    under_a_filter(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, refused, (const uint8_t[]){0xcd, 0x80}, 5);
}

/* As a service manager may have set it: what the guest's code asks its own kernel for is not held against us.
 */
static void calls_stop_below_filters_that_kill(void **state)
{
    if (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0) < 0)
        skip(); /* a kernel before 5.11 */
    under_a_filter(SYS_mount, ANY, SECCOMP_RET_KILL_PROCESS, (const uint8_t[]){0x0f, 0x05}, SYS_mount);
}

static void calls_of_32_bit_programs_stop_too(void **state)
{
    static const uint8_t code[] = {0xcd, 0x80}; /* int 0x80 */
    struct direct_registers r = registers(CODE);

    map_code(code, sizeof(code));
    r.gpr[CPU_RAX] = 1; /* exit */
    assert_int_equal(direct_stub_run(&s.stub, &r), DIRECT_STOP_SYSCALL);
    assert_int_equal(r.gpr[CPU_RAX], 1);
    assert_int_equal(r.rip, CODE + 2);
}

static void exceptions_tell_their_address(void **state)
{
    static const uint8_t code[] = {0x48, 0x89, 0x03, 0x0f, 0x0b, 0xcc}; /* mov [rbx], rax; ud2; int3 */
    struct direct_registers r = registers(CODE);
    uint64_t address;
    int how;

    map_code(code, sizeof(code));
    r.gpr[CPU_RBX] = DATA + 8;
    assert_int_equal(direct_stub_run(&s.stub, &r), DIRECT_STOP_SIGNAL);
    assert_int_equal(direct_stub_signal(&s.stub, &how, &address), SIGSEGV);
    assert_true(address == DATA + 8);
    assert_int_equal(r.rip, CODE);

    assert_int_equal(direct_stub_map(&s.stub, DATA, PAGE, PROT_READ | PROT_WRITE, PAGE), 0);
    assert_int_equal(direct_stub_apply(&s.stub), 0);
    r.gpr[CPU_RAX] = 0x1234;
    assert_int_equal(direct_stub_run(&s.stub, &r), DIRECT_STOP_SIGNAL);
    assert_int_equal(direct_stub_signal(&s.stub, &how, &address), SIGILL);
    assert_int_equal(s.memory[PAGE + 8] | s.memory[PAGE + 9] << 8, 0x1234);

    assert_int_equal(direct_stub_unmap(&s.stub, DATA, PAGE), 0);
    assert_int_equal(direct_stub_apply(&s.stub), 0);
    r.rip = CODE;
    assert_int_equal(direct_stub_run(&s.stub, &r), DIRECT_STOP_SIGNAL);
    assert_int_equal(direct_stub_signal(&s.stub, &how, &address), SIGSEGV);
}

static void *kick_soon(void *pidfd)
{
    usleep(20000);
    direct_stub_kick(*(int *)pidfd);
    return NULL;
}

static void a_kick_ends_an_endless_loop(void **state)
{
    static const uint8_t code[] = {0xeb, 0xfe};
    struct direct_registers r = registers(CODE);
    pthread_t thread;

    map_code(code, sizeof(code));
    assert_int_equal(pthread_create(&thread, NULL, kick_soon, &s.stub.pidfd), 0);
    assert_int_equal(direct_stub_run(&s.stub, &r), DIRECT_STOP_KICK);
    assert_int_equal(r.rip, CODE);
    pthread_join(thread, NULL);
    /* One that comes too early is not lost. */
    direct_stub_kick(s.stub.pidfd);
    assert_int_equal(direct_stub_run(&s.stub, &r), DIRECT_STOP_KICK);
}

/* The stub's own code is there to be jumped into: what it calls then is the guest's call. */
static void the_stubs_code_does_nothing_for_the_guest(void **state)
{
    static const uint64_t calls[] = {SYS_mmap, SYS_munmap, SYS_mprotect, SYS_getpid, SYS_kill, SYS_exit};
    struct direct_registers r = registers(CODE);
    unsigned places = 0;
    uint64_t address;
    int how;

    map_code((const uint8_t[]){0xff, 0xe0}, 2); /* jmp rax */
    for (unsigned at = 0; at < STUB_COMMANDS_AT - 1; at++) {
        if (memcmp(s.stub.shared + at, (const uint8_t[]){0x0f, 0x05}, 2))
            continue;
        places++;
        for (unsigned n = 0; n < sizeof(calls) / sizeof(calls[0]); n++) {
            r = registers(s.stub.at + at);
            r.gpr[CPU_RAX] = calls[n];
            r.gpr[CPU_RDI] = DATA;
            r.gpr[CPU_RSI] = PAGE;
            assert_int_equal(direct_stub_run(&s.stub, &r), DIRECT_STOP_SYSCALL);
            assert_int_equal(r.gpr[CPU_RAX], calls[n]);
            assert_true(r.rip == s.stub.at + at + 2);
        }
    }
    assert_true(places >= 8);
    /* The mapper's list is not one that it can write. */
    r = registers(CODE);
    r.gpr[CPU_RAX] = s.stub.at + (uint64_t)(direct_stub_mapper - direct_stub_code);
    assert_int_equal(direct_stub_run(&s.stub, &r), DIRECT_STOP_SYSCALL);
    /* Nor can it be changed. */
    map_code((const uint8_t[]){0x48, 0x89, 0x00}, 3); /* mov [rax], rax */
    for (unsigned n = 0; n < 2; n++) {
        r = registers(CODE);
        r.gpr[CPU_RAX] = s.stub.at + n * PAGE;
        assert_int_equal(direct_stub_run(&s.stub, &r), DIRECT_STOP_SIGNAL);
        assert_int_equal(direct_stub_signal(&s.stub, &how, &address), SIGSEGV);
        assert_true(address == s.stub.at + n * PAGE);
    }
}

static unsigned count_files(pid_t pid)
{
    char path[64];
    unsigned n = 0;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *directory = opendir(path);
    assert_non_null(directory);
    for (const struct dirent *entry; (entry = readdir(directory));)
        n += entry->d_name[0] != '.';
    closedir(directory);
    return n;
}

static void it_holds_nothing_but_the_guests_pages(void **state)
{
    char path[64], line[256];
    unsigned areas = 0, seccomp = 0;

    map_code((const uint8_t[]){0xf4}, 1);
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)s.stub.runner);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file)) {
        uint64_t start = strtoull(line, NULL, 16);
        if (strstr(line, "[vsyscall]"))
            continue; /* the kernel's own: neither readable nor to be got rid of */
        assert_true(start == CODE || start == s.stub.at || start == s.stub.at + STUB_COMMANDS_AT ||
                    start == s.stub.at + STUB_EXCHANGE_AT);
        areas++;
    }
    fclose(file);
    assert_int_equal(areas, 4);
    assert_int_equal(count_files(s.stub.runner), 0);
    assert_int_equal(count_files(s.stub.mapper), 2);
    snprintf(path, sizeof(path), "/proc/%d/status", (int)s.stub.runner);
    file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file))
        seccomp += !strcmp(line, "Seccomp:\t2\n") || !strcmp(line, "NoNewPrivs:\t1\n");
    fclose(file);
    assert_int_equal(seccomp, 2);
}

static bool exists(pid_t pid)
{
    return kill(pid, 0) == 0;
}

static void its_time_is_that_of_the_guests_code(void **state)
{
    static const uint8_t code[] = {0x48, 0xff, 0xc9, 0x75, 0xfb, 0x0f, 0x05}; /* dec rcx; jnz; syscall */
    struct direct_registers r = registers(CODE);

    map_code(code, sizeof(code));
    r.gpr[CPU_RCX] = 50000000;
    direct_stub_run(&s.stub, &r);
    assert_true(s.stub.ran > 5000000);
    /* Waiting, and changing what is mapped, is not; the host's own hypervisor may disturb some. */
    uint64_t least = UINT64_MAX;
    for (unsigned again = 0; again < 5; again++) {
        usleep(20000);
        for (unsigned n = 0; n < 2000; n++) {
            assert_int_equal(direct_stub_map(&s.stub, DATA, PAGE, PROT_READ | PROT_WRITE, PAGE), 0);
            assert_int_equal(direct_stub_apply(&s.stub), 0);
        }
        r = registers(CODE);
        r.gpr[CPU_RCX] = 1;
        direct_stub_run(&s.stub, &r);
        least = s.stub.ran < least ? s.stub.ran : least;
    }
    assert_true(least < 1000000);
}

/* On a processor that others have but for one part in some thousand. */
static _Noreturn void create_slowly(void)
{
    const struct sched_param param = {0};
    struct direct_stub mine;
    pid_t others[OTHERS];
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof(one), &one) < 0)
        _exit(1);
    for (unsigned n = 0; n < OTHERS; n++) {
        others[n] = fork();
        if (others[n] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;)
                ;
        }
        if (others[n] < 0)
            _exit(2);
    }
    if (sched_setscheduler(0, SCHED_IDLE, &param) < 0)
        _exit(3);
    int rc = direct_stub_create(&mine, s.fd, NULL);
    for (unsigned n = 0; n < OTHERS; n++)
        kill(others[n], SIGKILL);
    if (rc == 0)
        direct_stub_destroy(&mine);
    _exit(rc == 0 ? 0 : 4);
}

static void it_may_take_long_to_begin(void **state)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        create_slowly();
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void it_dies_with_its_tracer(void **state)
{
    int ends[2];
    pid_t stub = 0;

    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct direct_stub mine;
        int rc = direct_stub_create(&mine, s.fd, NULL);
        stub = rc == 0 ? mine.runner : 0;
        if (write(ends[1], &stub, sizeof(stub)) != sizeof(stub))
            _exit(1);
        pause();
    }
    assert_int_equal(read(ends[0], &stub, sizeof(stub)), sizeof(stub));
    assert_true(stub > 0 && exists(stub));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    for (unsigned n = 0; n < 500 && exists(stub); n++)
        usleep(10000);
    assert_false(exists(stub));
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest stubs[] = {
        cmocka_unit_test_setup_teardown(a_system_call_stops_before_the_kernel_sees_it, begin_stub, end_stub),
        cmocka_unit_test_setup_teardown(calls_of_32_bit_programs_stop_too, begin_stub, end_stub),
        cmocka_unit_test_setup_teardown(calls_stop_without_dispatch, begin_stub, end_stub),
        cmocka_unit_test_setup_teardown(calls_stop_below_filters_that_kill, begin_stub, end_stub),
        cmocka_unit_test_setup_teardown(exceptions_tell_their_address, begin_stub, end_stub),
        cmocka_unit_test_setup_teardown(a_kick_ends_an_endless_loop, begin_stub, end_stub),
        cmocka_unit_test_setup_teardown(the_stubs_code_does_nothing_for_the_guest, begin_stub, end_stub),
        cmocka_unit_test_setup_teardown(it_holds_nothing_but_the_guests_pages, begin_stub, end_stub),
        cmocka_unit_test_setup_teardown(its_time_is_that_of_the_guests_code, begin_stub, end_stub),
        cmocka_unit_test_setup_teardown(it_may_take_long_to_begin, begin_stub, end_stub),
        cmocka_unit_test_setup_teardown(it_dies_with_its_tracer, begin_stub, end_stub),
    };
    struct direct_stub trial;
    struct error *err = NULL;

    int fd = memfd_create("trial", MFD_CLOEXEC);
    if (direct_stub_create(&trial, fd, &err) < 0) {
        printf("this host does not permit stubs: %s\n", error_message(err));
        return 77;
    }
    direct_stub_destroy(&trial);
    close(fd);
    return cmocka_run_group_tests_name("engine/soft/direct_stub", stubs, NULL, NULL);
}
