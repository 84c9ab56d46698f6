/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Direct execution: stubs, the mirrors of address spaces in them, and what leaves them. */
#include "base/error.h"
#include "cpu_fixture.h"
#include "engine/soft/direct.h"
#include "engine/soft/direct_space.h"
#include "engine/soft/direct_stub.h"
#include "engine/soft/direct_stub_priv.h"
#include "engine/soft/soft.h"
#include "engine/soft/soft_priv.h"

#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
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
#include <x86intrin.h>

#include <cmocka.h>

#define PAGE   4096u
#define CODE   0x400000u
#define DATA   0x7f0000000000ull
#define LINUX3 0x2bu /* the stack's selector that stubs have */

static struct {
    int fd;
    uint8_t *memory;
    struct direct_stub stub;
} s;

/* ---- stubs ---- */

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
    /* Waiting, and changing what is mapped, is not. */
    usleep(20000);
    for (unsigned n = 0; n < 2000; n++) {
        assert_int_equal(direct_stub_map(&s.stub, DATA, PAGE, PROT_READ | PROT_WRITE, PAGE), 0);
        assert_int_equal(direct_stub_apply(&s.stub), 0);
    }
    r = registers(CODE);
    r.gpr[CPU_RCX] = 1;
    direct_stub_run(&s.stub, &r);
    assert_true(s.stub.ran < 1000000);
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

/* ---- the guest's code ---- */

#define PT_ENTRY(linear) (0x103000u + 8 * ((linear) >> 12 & 511))
#define USER_CODE        (HOLE_AT + 0x10000)
#define USER_DATA        (HOLE_AT + 0x20000)
#define CODE_PAGE        0x310000u
#define DATA_PAGE        0x320000u

static struct soft_vcpu *begin_guest(const uint8_t *code, size_t length)
{
    struct soft_vcpu *c = fixture_cpu(MODE_LONG, 3);
    struct error *err = NULL;

    c->seg[CPU_SS].selector = LINUX3;
    c->iflag = FLAG_IF;
    for (unsigned seg = CPU_ES; seg < CPU_SEGMENTS; seg++) {
        if (seg != CPU_CS && seg != CPU_SS)
            c->seg[seg] = (struct cpu_segment_state){0};
    }
    memcpy(fixture_ram(CODE_PAGE), code, length);
    fixture_map(USER_CODE, CODE_PAGE);
    fixture_map(USER_DATA, DATA_PAGE);
    c->rip = USER_CODE;
    c->gpr[CPU_RBX] = USER_DATA;
    if (!c->direct && soft_direct_start(c, &err) < 0)
        fail_msg("%s", error_message(err));
    c->pending = 0;
    soft_direct_note(c, false);
    return c;
}
#define BEGIN(...) begin_guest((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static int end_guest(void **state)
{
    soft_direct_end(fixture_vcpu());
    fixture_end();
    return 0;
}

static int processors(void)
{
    cpu_set_t set;

    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
    return CPU_COUNT(&set);
}

static void the_thread_stays_with_its_stubs_while_it_runs_them(void **state)
{
    int before = processors();
    struct soft_vcpu *c = BEGIN(0x0f, 0x05); /* syscall */

    assert_int_equal(processors(), before);
    soft_direct_run(c);
    assert_int_equal(processors(), 1);
    soft_direct_rest(c);
    assert_int_equal(processors(), 1); /* it may run one again at once */
    usleep(20000);
    soft_direct_rest(c);
    assert_int_equal(processors(), before);
}

static void code_runs_until_it_calls(void **state)
{
    /* mov ecx, 1000; next: add [rbx], rcx; loop next; stc; mov eax, 39; syscall */
    struct soft_vcpu *c =
        BEGIN(0xb9, 0xe8, 0x03, 0, 0, 0x48, 0x01, 0x0b, 0xe2, 0xfb, 0xf9, 0xb8, 39, 0, 0, 0, 0x0f, 0x05);

    fixture_write(DATA_PAGE, 1, 8);
    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE + 16);
    assert_int_equal(c->gpr[CPU_RAX], 39);
    assert_true(c->flags & FLAG_CF);
    assert_int_equal(fixture_read(DATA_PAGE, 8), 1 + 1000 * 1001 / 2);
    /* As the access itself would have set them. */
    assert_int_equal(fixture_read(PT_ENTRY(USER_DATA), 1) & 0x60, 0x60);
    assert_int_equal(fixture_read(PT_ENTRY(USER_CODE), 1) & 0x60, 0x20);
}

static void vector_registers_go_there_and_back(void **state)
{
    /* paddd xmm1, xmm0; movdqu [rbx], xmm1; syscall */
    struct soft_vcpu *c = BEGIN(0x66, 0x0f, 0xfe, 0xc8, 0xf3, 0x0f, 0x7f, 0x0b, 0x0f, 0x05);

    c->xsave[512] = 3;
    for (unsigned n = 0; n < 32; n++)
        c->xsave[160 + n] = (uint8_t)n;
    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE + 8);
    for (unsigned n = 0; n < 16; n++) {
        assert_int_equal(((uint8_t *)fixture_ram(DATA_PAGE))[n], 2 * n + 16);
        assert_int_equal(c->xsave[176 + n], 2 * n + 16);
    }
}

/* Registers that the guest has not been told of: another address space does not find what one has left in
 * them. */
static void registers_beyond_the_guests_begin_anew(void **state)
{
    static const uint8_t set[] = {0x62, 0x03, 0x05, 0x40, 0x25,
                                  0xff, 0xff, 0x0f, 0x05}; /* zmm31 = all ones */
    static const uint8_t show[] = {0x62, 0x61, 0xfe, 0x48,
                                   0x7f, 0x3b, 0x0f, 0x05}; /* [rbx] = zmm31; syscall */

    struct soft_vcpu *c = begin_guest(set, sizeof(set));
    if (!__builtin_cpu_supports("avx512f"))
        skip();
    memcpy(fixture_ram(CODE_PAGE + 256), show, sizeof(show));
    memset(fixture_ram(DATA_PAGE), 0x55, 64);
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 7);
    /* As many other address spaces as there are stubs, and each stub gets another one. */
    for (unsigned n = 1; n <= 4; n++) {
        uint64_t table = 0x330000 + n * PAGE;
        memcpy(fixture_ram(table), fixture_ram(c->cr3), PAGE);
        c->cr3 = table;
        soft_tlb_flush(c, false);
        c->rip = USER_CODE + 256;
        soft_direct_run(c);
        assert_true(c->rip == USER_CODE + 256 + 6);
        for (unsigned byte = 0; byte < 64; byte++)
            assert_int_equal(((uint8_t *)fixture_ram(DATA_PAGE))[byte], 0);
    }
}

static void what_the_guest_takes_away_is_gone_after_its_flush(void **state)
{
    struct soft_vcpu *c = BEGIN(0x48, 0x8b, 0x03, 0x0f, 0x05); /* mov rax, [rbx]; syscall */

    fixture_write(DATA_PAGE, 77, 8);
    soft_direct_run(c);
    assert_int_equal(c->gpr[CPU_RAX], 77);
    fixture_write(DATA_PAGE + PAGE, 78, 8);
    fixture_map(USER_DATA, DATA_PAGE + PAGE); /* flushes the page */
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_int_equal(c->gpr[CPU_RAX], 78);
    fixture_write(PT_ENTRY(USER_DATA), 0, 8);
    soft_tlb_flush(c, false);
    c->rip = USER_CODE;
    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE); /* the translator raises the page fault */
    ASSERT_FAULT(soft_step(c), VEC_PF, 4);
}

static void rights_are_those_of_the_page_tables(void **state)
{
    struct soft_vcpu *c =
        BEGIN(0x48, 0x8b, 0x03, 0x48, 0x89, 0x03, 0x0f, 0x05); /* mov rax, [rbx]; mov [rbx], rax */

    fixture_write(PT_ENTRY(USER_DATA), DATA_PAGE | 5, 8);
    soft_tlb_flush(c, false);
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 3);
    /* A page of the kernel's. */
    fixture_write(PT_ENTRY(USER_DATA), DATA_PAGE | 3, 8);
    soft_tlb_flush(c, false);
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
    /* Clean pages are not written without our notice. */
    fixture_write(PT_ENTRY(USER_DATA), DATA_PAGE | 7, 8);
    soft_tlb_flush(c, false);
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 6);
    assert_int_equal(fixture_read(PT_ENTRY(USER_DATA), 1) & 0x60, 0x60);
    /* The kernel's half is out of reach. */
    c->rip = USER_CODE;
    c->gpr[CPU_RBX] = 0xffff800000000000;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
    c->gpr[CPU_RBX] = 0x7ffffffff000;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
}

static void stores_to_translated_code_are_noticed(void **state)
{
    struct soft_vcpu *c = BEGIN(0x48, 0x89, 0x03, 0x0f, 0x05); /* mov [rbx], rax; syscall */

    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 3);
    /* Now the page is executed by the translator: mov al, 5; nop ... */
    fixture_write(DATA_PAGE, 0x9090909090900590 | 0xb000, 8);
    fixture_write(DATA_PAGE, 0x90909090909005b0, 8);
    c->rip = USER_DATA;
    assert_int_equal(soft_step(c), SOFT_JUMP);
    assert_int_equal(c->gpr[CPU_RAX] & 0xff, 5);
    c->rip = USER_CODE;
    c->gpr[CPU_RAX] = 0x90909090909006b0;
    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE); /* for the translator */
    assert_int_equal(soft_step(c), SOFT_JUMP);
    c->rip = USER_DATA;
    assert_int_equal(soft_step(c), SOFT_JUMP);
    assert_int_equal(c->gpr[CPU_RAX] & 0xff, 6);
}

static void what_tells_of_the_host_is_translated(void **state)
{
    static const uint8_t cpuid[] = {0x0f, 0xa2}, rdtscp[] = {0x0f, 0x01, 0xf9},
                         rdpid[] = {0xf3, 0x0f, 0xc7, 0xf8};
    static const uint8_t wrpkru[] = {0x0f, 0x01, 0xef}, xgetbv[] = {0x0f, 0x01, 0xd0};
    const struct {
        const uint8_t *code;
        size_t length;
    } cases[] = {{cpuid, 2}, {rdtscp, 3}, {rdpid, 4}, {wrpkru, 3}, {xgetbv, 3}};

    for (size_t n = 0; n < sizeof(cases) / sizeof(cases[0]); n++) {
        struct soft_vcpu *c = begin_guest(cases[n].code, cases[n].length);
        assert_int_equal(soft_direct_run(c), SOFT_JUMP);
        assert_true(c->rip == USER_CODE);
        end_guest(NULL);
    }
    BEGIN(0x90);
}

static void the_tsc_is_read_where_it_is_the_hosts(void **state)
{
    struct soft_vcpu *c = BEGIN(0x0f, 0x31, 0x0f, 0x05); /* rdtsc; syscall */

    uint64_t before = __rdtsc();
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 2);
    uint64_t value = c->gpr[CPU_RDX] << 32 | c->gpr[CPU_RAX];
    assert_true(value > before && value < __rdtsc());
    /* Not where the guest has set it, or forbids it. */
    c->tsc_offset = 1000;
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
    c->tsc_offset = 0;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 2);
    c->cr4 |= CR4_TSD;
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
    c->cr4 &= ~(uint64_t)CR4_TSD;
}

static void one_instruction_is_left_to_the_translator(void **state)
{
    struct soft_vcpu *c = BEGIN(0x0f, 0x0b, 0x0f, 0x05); /* ud2; syscall */

    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(soft_direct_left_one(c));
    assert_false(soft_direct_left_one(c));
    c->rip = USER_CODE + 2;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 2);
    assert_false(soft_direct_left_one(c));
}

/* The kernel is in no hurry to be asked twice. */
static void what_a_page_fault_brings_is_there_at_once(void **state)
{
    struct soft_vcpu *c = BEGIN(0x48, 0x8b, 0x03, 0x0f, 0x05); /* mov rax, [rbx]; syscall */

    fixture_write(PT_ENTRY(USER_DATA), 0, 8);
    soft_tlb_flush(c, false);
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE);
    uint64_t before = c->stats.stops[ENGINE_STOP_MAP];
    fixture_write(DATA_PAGE, 79, 8);
    fixture_write(PT_ENTRY(USER_DATA), DATA_PAGE | 0x67, 8);
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 3);
    assert_int_equal(c->gpr[CPU_RAX], 79);
    assert_int_equal(c->stats.stops[ENGINE_STOP_MAP], before);
}

static void go_to(struct soft_vcpu *c, unsigned cpl)
{
    c->cpl = (uint8_t)cpl;
    soft_update_key(c);
    soft_direct_note(c, false);
}

/* What has run for long is sent to a stub, but not a new program in the same address space. */
static void a_program_proves_that_it_computes(void **state)
{
    struct soft_vcpu *c = BEGIN(0x0f, 0x05);

    c->cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
    c->xcr0 = 7;
    for (unsigned n = 0; n < 3; n++) {
        go_to(c, 3);
        usleep(10000);
        go_to(c, 0);
    }
    go_to(c, 3);
    assert_true(soft_direct_due(c));
    go_to(c, 0);
    memset(c->gpr, 0, sizeof(c->gpr));
    c->gpr[CPU_RSP] = USER_DATA;
    go_to(c, 3);
    assert_false(soft_direct_due(c));
}

/* Of a page that user code can't write to, all but the instruction itself runs. */
static void what_tells_of_the_host_is_cut_out(void **state)
{
    uint8_t code[PAGE];

    memset(code, 0x90, sizeof(code));
    memcpy(code + 1000, (const uint8_t[]){0x0f, 0xa2, 0xff, 0xc3, 0x0f, 0x05},
           6); /* cpuid; inc ebx; syscall */
    struct soft_vcpu *c = begin_guest(code, sizeof(code));
    fixture_write(PT_ENTRY(USER_CODE), CODE_PAGE | 5, 8);
    soft_tlb_flush(c, false);
    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE + 1000);
    c->rip = USER_CODE + 1002;
    c->gpr[CPU_RBX] = 5;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 1004);
    assert_int_equal(c->gpr[CPU_RBX], 6);
    /* The guest's own is as it was, and what its kernel changes there comes to pass. */
    assert_memory_equal(fixture_ram(CODE_PAGE), code, sizeof(code));
    memcpy(fixture_ram(CODE_PAGE + 1002), (const uint8_t[]){0xff, 0xcb}, 2); /* dec ebx */
    c->rip = USER_CODE + 1002;
    soft_direct_run(c);
    assert_int_equal(c->gpr[CPU_RBX], 5);
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 1000);
    memcpy(fixture_ram(CODE_PAGE + 1000), (const uint8_t[]){0x90, 0x90}, 2);
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 1004);
}

static void what_is_only_read_is_whole(void **state)
{
    struct soft_vcpu *c = BEGIN(0x48, 0x8b, 0x03, 0x0f, 0x05); /* mov rax, [rbx]; syscall */

    memset(fixture_ram(DATA_PAGE), 0x90, PAGE);
    memcpy(fixture_ram(DATA_PAGE + 1000), (const uint8_t[]){0x0f, 0xa2}, 2);
    fixture_write(PT_ENTRY(USER_DATA), DATA_PAGE | 5, 8);
    soft_tlb_flush(c, false);
    c->gpr[CPU_RBX] = USER_DATA + 1000;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 3);
    assert_true(c->gpr[CPU_RAX] == 0x909090909090a20f);
    c->rip = USER_DATA;
    soft_direct_run(c);
    assert_true(c->rip == USER_DATA + 1000);
}

static void breakpoints_are_where_they_are(void **state)
{
    struct soft_vcpu *c = BEGIN(0x90, 0xcc);

    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 1);
    memcpy(fixture_ram(CODE_PAGE), (const uint8_t[]){0x90, 0xf1}, 2);
    c->rip = USER_CODE;
    soft_direct_run(c);
    assert_true(c->rip == USER_CODE + 1);
}

/* POPF that sets TF: the trap comes after the next instruction. */
static void single_steps_that_the_code_asks_for(void **state)
{
    /* pushf; or dword [rsp], 0x100; popf; inc eax; inc eax */
    struct soft_vcpu *c = BEGIN(0x9c, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0xff, 0xc0, 0xff, 0xc0);

    c->gpr[CPU_RSP] = USER_DATA + 0x800;
    c->gpr[CPU_RAX] = 0;
    assert_int_equal(soft_direct_run(c), SOFT_FAULT);
    assert_int_equal(c->fault.vector, VEC_DB);
    assert_int_equal(c->fault.dr6, 1u << 14);
    assert_true(c->rip == USER_CODE + 11);
    assert_int_equal(c->gpr[CPU_RAX], 1);
    assert_true(c->sysflags & FLAG_TF);
}

static void scattered_pages_beyond_every_limit(void **state)
{
    /* next: inc qword [rbx]; add rbx, 4096; dec ecx; jnz next; syscall */
    struct soft_vcpu *c =
        BEGIN(0x48, 0xff, 0x03, 0x48, 0x81, 0xc3, 0, 0x10, 0, 0, 0xff, 0xc9, 0x75, 0xf2, 0x0f, 0x05);

    /* Every other page twice: no two of them make one area. */
    for (unsigned n = 0; n < 128; n++)
        fixture_map(USER_DATA + n * PAGE, DATA_PAGE + (n % 64) * 2 * PAGE % 0x80000);
    for (unsigned round = 0; round < 600; round++) {
        c->rip = USER_CODE;
        c->gpr[CPU_RBX] = USER_DATA;
        c->gpr[CPU_RCX] = 128;
        /* Anew each time, so that the count of areas only grows. */
        for (unsigned n = 0; n < 128; n++)
            fixture_write(PT_ENTRY(USER_DATA + n * PAGE),
                          DATA_PAGE + ((n + round) % 64) * 2 * PAGE % 0x80000 + 7, 8);
        soft_tlb_flush(c, false);
        assert_int_equal(soft_direct_run(c), SOFT_JUMP);
        assert_true(c->rip == USER_CODE + 14);
    }
}

static unsigned kill_children(void)
{
    char path[64], line[256] = "";
    unsigned n = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)gettid());
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof(line), file));
    fclose(file);
    for (char *at = line, *end;; at = end, n++) {
        long pid = strtol(at, &end, 10);
        if (end == at)
            return n;
        kill((pid_t)pid, SIGKILL);
    }
}

/* As the host does when its memory runs short. What the stub was given is still here, and the translator goes
 * on. */
static void a_waiting_stub_that_is_killed_takes_nothing_along(void **state)
{
    struct soft_vcpu *c = BEGIN(0x48, 0xff, 0x03, 0x0f, 0x05); /* inc qword [rbx]; syscall */

    assert_int_equal(soft_direct_run(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE + 3);
    assert_true(kill_children() >= 4);
    usleep(50000);
    for (unsigned n = 0; n < 3; n++) {
        c->rip = USER_CODE;
        assert_int_equal(soft_direct_run(c), SOFT_JUMP);
        assert_true(c->rip == USER_CODE);
        assert_false(c->halted);
    }
    assert_int_equal(soft_step(c), SOFT_JUMP);
    assert_true(c->rip == USER_CODE + 3);
    assert_int_equal(fixture_read(DATA_PAGE, 8), 2);
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
        cmocka_unit_test_setup_teardown(it_dies_with_its_tracer, begin_stub, end_stub),
    };
    const struct CMUnitTest code[] = {
        cmocka_unit_test_teardown(code_runs_until_it_calls, end_guest),
        cmocka_unit_test_teardown(the_thread_stays_with_its_stubs_while_it_runs_them, end_guest),
        cmocka_unit_test_teardown(vector_registers_go_there_and_back, end_guest),
        cmocka_unit_test_teardown(registers_beyond_the_guests_begin_anew, end_guest),
        cmocka_unit_test_teardown(what_the_guest_takes_away_is_gone_after_its_flush, end_guest),
        cmocka_unit_test_teardown(rights_are_those_of_the_page_tables, end_guest),
        cmocka_unit_test_teardown(stores_to_translated_code_are_noticed, end_guest),
        cmocka_unit_test_teardown(what_tells_of_the_host_is_translated, end_guest),
        cmocka_unit_test_teardown(the_tsc_is_read_where_it_is_the_hosts, end_guest),
        cmocka_unit_test_teardown(one_instruction_is_left_to_the_translator, end_guest),
        cmocka_unit_test_teardown(what_a_page_fault_brings_is_there_at_once, end_guest),
        cmocka_unit_test_teardown(a_program_proves_that_it_computes, end_guest),
        cmocka_unit_test_teardown(what_tells_of_the_host_is_cut_out, end_guest),
        cmocka_unit_test_teardown(what_is_only_read_is_whole, end_guest),
        cmocka_unit_test_teardown(breakpoints_are_where_they_are, end_guest),
        cmocka_unit_test_teardown(single_steps_that_the_code_asks_for, end_guest),
        cmocka_unit_test_teardown(scattered_pages_beyond_every_limit, end_guest),
        cmocka_unit_test_teardown(a_waiting_stub_that_is_killed_takes_nothing_along, end_guest),
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
    int failed = cmocka_run_group_tests_name("engine/soft/direct: stubs", stubs, NULL, NULL);
    return failed + cmocka_run_group_tests_name("engine/soft/direct: code", code, NULL, NULL);
}
