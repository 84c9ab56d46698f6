/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an ordinary user's program tries against its kernel, its neighbours, and whatever it runs on. */
#include "user_code.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534u

static void become(unsigned id)
{
    if (geteuid() == 0 && (setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0))
        give_up("becoming nobody");
}

/* ---- memory ---- */

static struct range {
    uintptr_t start, end;
} ranges[4096];
static unsigned n_ranges;

static void read_maps(void)
{
    char line[512];
    unsigned long start, end;
    FILE *file = fopen("/proc/self/maps", "r");

    n_ranges = 0;
    while (file && n_ranges < 4096 && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%lx-%lx", &start, &end) == 2)
            ranges[n_ranges++] = (struct range){start, end};
    }
    if (!file || !n_ranges)
        give_up("/proc/self/maps");
    fclose(file);
}

static bool mapped(uintptr_t address)
{
    for (unsigned n = 0; n < n_ranges; n++) {
        /* The stack may grow down. */
        if (address >= ranges[n].start - (n + 4 > n_ranges ? 16 << 20 : 0) && address < ranges[n].end)
            return true;
    }
    return false;
}

static void expect_nothing_at(uintptr_t address)
{
    volatile uint8_t *at = (void *)address;
    volatile uint8_t ret = 0;
    void (*go)(void) = NULL;

    memcpy(&go, &address, 8);
    CHECK(ATTEMPT(ret = *at) == SIGSEGV, "%#lx reads as %#x", (unsigned long)address, ret);
    CHECK(ATTEMPT(*at = 0x5a) == SIGSEGV, "%#lx can be written", (unsigned long)address);
    CHECK(ATTEMPT(go()) == SIGSEGV, "%#lx can be executed", (unsigned long)address);
}

static void memory(void)
{
    static const uintptr_t kernels[] = {0xffffffff80000000,
                                        0xffffffff81000000,
                                        0xffffffffa0000000,
                                        0xffffffffff5fc000,
                                        0xffffffffff5fd000,
                                        0xffff800000000000,
                                        0xffff888000000000,
                                        0xffff888000100000,
                                        0xffffc90000000000,
                                        0xffffea0000000000,
                                        0xfffffe0000000000,
                                        0xfffffe0000001000,
                                        0xfffffffffffff000,
                                        0x7ffffffff000,
                                        0x800000000000,
                                        0x7fffffffeff8,
                                        0,
                                        8,
                                        0xfff};

    for (unsigned n = 0; n < sizeof(kernels) / sizeof(kernels[0]); n++) {
        burn(100);
        expect_nothing_at(kernels[n]);
    }
    read_maps();
    for (unsigned n = 0; n < 3000; n++) {
        uintptr_t address = random_number() >> (17 + random_number() % 16);
        /* Near what is there, too: it is where a mapping would be too long. */
        if (n % 3 == 0) {
            const struct range *near = &ranges[random_number() % n_ranges];
            address = n % 2 ? near->end + random_number() % (64 * PAGE)
                            : near->start - 1 - random_number() % (64 * PAGE);
        }
        if (mapped(address) || address >= 0xffffffffff600000)
            continue;
        expect_nothing_at(address);
        if (n % 10 == 0)
            burn(100);
    }
}

/* ---- instructions ---- */

#define EXPECT_SIGNAL(code, clobbers...)                                                                     \
    do {                                                                                                     \
        burn(100);                                                                                           \
        CHECK(ATTEMPT(__asm__ volatile(code                                                                  \
                                       :                                                                     \
                                       :                                                                     \
                                       : clobbers)) == SIGSEGV,                                              \
              "%s: signal %d", code, caught.signal);                                                         \
    } while (0)

static void privileged(void)
{
    EXPECT_SIGNAL("cli", "memory");
    EXPECT_SIGNAL("sti", "memory");
    EXPECT_SIGNAL("hlt", "memory");
    EXPECT_SIGNAL("in $0x80, %%al", "rax");
    EXPECT_SIGNAL("out %%al, $0x80", "memory");
    EXPECT_SIGNAL("mov $0x3f8, %%dx; out %%al, %%dx", "rdx");
    EXPECT_SIGNAL("mov $0x3f8, %%dx; insb", "rdx", "rdi", "memory");
    EXPECT_SIGNAL("mov $0xc0000082, %%ecx; rdmsr", "rax", "rcx", "rdx");
    EXPECT_SIGNAL("mov $0xc0000082, %%ecx; wrmsr", "rcx", "memory");
    EXPECT_SIGNAL("mov %%cr0, %%rax", "rax");
    EXPECT_SIGNAL("mov %%rax, %%cr3", "memory");
    EXPECT_SIGNAL("mov %%rax, %%dr7", "memory");
    EXPECT_SIGNAL("mov %%dr6, %%rax", "rax");
    EXPECT_SIGNAL("lgdt (%%rsp)", "memory");
    EXPECT_SIGNAL("lidt (%%rsp)", "memory");
    EXPECT_SIGNAL("xor %%eax, %%eax; lldt %%ax", "rax");
    EXPECT_SIGNAL("mov $0x40, %%eax; ltr %%ax", "rax");
    EXPECT_SIGNAL("lmsw %%ax", "memory");
    EXPECT_SIGNAL("clts", "memory");
    EXPECT_SIGNAL("invlpg (%%rsp)", "memory");
    EXPECT_SIGNAL("wbinvd", "memory");
    EXPECT_SIGNAL("iretq", "memory");
    EXPECT_SIGNAL("int $0x81", "memory");
    EXPECT_SIGNAL("int $0x20", "memory");
    EXPECT_SIGNAL("int $14", "memory");
}

static void segments(void)
{
    struct {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) to;

    for (volatile unsigned selector = 0; selector < 0x100; selector++) {
        if (selector == 0x23 || selector == 0x33 || selector == 0x30 || selector == 0x31 ||
            selector == 0x32 || selector == 0x20 || selector == 0x21 || selector == 0x22)
            continue; /* the user's own */
        to.offset = 0x1000;
        to.selector = (uint16_t)selector;
        if (selector % 16 == 0)
            burn(100);
        CHECK(ATTEMPT(__asm__ volatile("ljmp *%0"
                                       :
                                       : "m"(to))) == SIGSEGV,
              "far jump to %#x: %d", selector, caught.signal);
        if (selector > 3 && selector != 0x28 && selector != 0x29 && (selector & ~3u) != 0x28 &&
            (selector & ~3u) != 0x78)
            CHECK(ATTEMPT(__asm__ volatile("mov %0, %%es"
                                           :
                                           : "r"(selector))) == SIGSEGV,
                  "ES = %#x: %d", selector, caught.signal);
    }
    __asm__ volatile("mov %0, %%es" : : "r"(0));
}

static void own_tables(void)
{
    static uint32_t data[4] = {11, 22, 33, 44};
    struct user_desc d = {
        .entry_number = 3, .base_addr = (unsigned)(uintptr_t)data, .limit = 7, .seg_32bit = 1, .useable = 1};
    uint32_t value = 0;
    unsigned selector = 3 << 3 | 7, back;

    if (syscall(SYS_modify_ldt, 1, &d, sizeof(d)) < 0) {
        CHECK(errno == ENOSYS, "modify_ldt: %d", errno);
        return;
    }
    for (unsigned n = 0; n < 10; n++) {
        burn(150);
        __asm__ volatile("mov %2, %%gs; movl %%gs:4, %0; mov %%gs, %1; mov %3, %%gs"
                         : "=&r"(value), "=&r"(back)
                         : "r"(selector), "r"(0));
        CHECK(value == 22 && back == selector, "%u by selector %#x", value, back);
        /* Kept while it computes. */
        __asm__ volatile("mov %0, %%gs" : : "r"(selector));
        burn(3000);
        __asm__ volatile("movl %%gs:0, %0; mov %2, %%gs" : "=&r"(value) : "r"(0), "r"(0));
        CHECK(value == 11, "%u", value);
    }
}

static void bases(void)
{
    static const uint64_t evil[] = {0xffffffff81000000, 0xffff888000000000, 0x800000000000, 0x7ffffffff000};
    static uint64_t here = 4711;
    uint64_t value;
    bool may_write = getauxval(AT_HWCAP2) & 2;

    for (volatile unsigned n = 0; n < 10; n++) {
        burn(150);
        syscall(SYS_arch_prctl, ARCH_SET_GS, &here);
        burn(150);
        __asm__ volatile("mov %%gs:0, %0" : "=r"(value));
        CHECK(value == 4711, "gs:0 is %llu", (unsigned long long)value);
        CHECK(syscall(SYS_arch_prctl, ARCH_SET_GS, evil[n % 2]) == -1, "a kernel's address in GS");
        if (!may_write)
            continue;
        uint64_t base = evil[n % 4];
        if (ATTEMPT(__asm__ volatile("wrgsbase %0" : : "r"(base))) == 0) {
            CHECK(ATTEMPT(__asm__ volatile("mov %%gs:0, %0"
                                           : "=r"(value))) == SIGSEGV,
                  "base %#llx can be read", (unsigned long long)base);
            burn(150);
            __asm__ volatile("rdgsbase %0" : "=r"(value));
            CHECK(value == base, "GS base %#llx", (unsigned long long)value);
        }
        __asm__ volatile("wrgsbase %0" : : "r"(&here));
        burn(150);
        __asm__ volatile("mov %%gs:0, %0" : "=r"(value));
        CHECK(value == 4711, "gs:0 is %llu", (unsigned long long)value);
    }
    syscall(SYS_arch_prctl, ARCH_SET_GS, 0);
}

void check_attack(void)
{
    become(NOBODY);
    catch_attempts();
    get_hot();
    memory();
    privileged();
    segments();
    own_tables();
    bases();
}

/* ---- system calls ---- */

static long raw_call(long number, long a, long b, long c)
{
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = -1;
    register long r9 __asm__("r9") = 0;

    __asm__ volatile("syscall"
                     : "+a"(number)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return number;
}

static long old_call(long number)
{
    __asm__ volatile("int $0x80"
                     : "+a"(number)
                     : "b"(0), "c"(0), "d"(0)
                     : "memory", "r8", "r9", "r10", "r11");
    return number;
}

static void unknown_calls(void)
{
    for (long n = 600; n < 700; n++) {
        if (n % 10 == 0)
            burn(150);
        CHECK(raw_call(n, 0, 0, 0) == -ENOSYS, "call %ld", n);
        CHECK(raw_call(n | 0x700000000000, 0, 0, 0) == -ENOSYS, "call %ld", n);
        CHECK((int)old_call(n) == -ENOSYS, "old call %ld", n);
    }
}

/* The calls that what executes us may make itself: they must be seen by our kernel. */
static void mapping_calls(void)
{
    for (unsigned n = 0; n < 30; n++) {
        burn(150);
        uintptr_t at =
            (uintptr_t)mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        volatile uint64_t *p = (void *)at;
        p[0] = n + 1;
        burn(150);
        read_maps();
        CHECK(mapped(at), "%#lx is not in the kernel's list", (unsigned long)at);
        CHECK(raw_call(SYS_mprotect, (long)at, PAGE, PROT_READ) == 0, "mprotect");
        CHECK(p[0] == n + 1 && ATTEMPT(p[0] = 0) == SIGSEGV, "round %u", n);
        CHECK(raw_call(SYS_mprotect, (long)at, PAGE, PROT_NONE) == 0, "mprotect");
        CHECK(ATTEMPT((void)p[0]) == SIGSEGV, "round %u", n);
        burn(150);
        CHECK(raw_call(SYS_munmap, (long)at, 3 * PAGE, 0) == 0, "munmap");
        expect_nothing_at(at + PAGE);
        /* Without a right, outside of all that is ours. */
        CHECK(raw_call(SYS_mmap, (long)0xffffffff81000000, PAGE, PROT_READ) < 0, "mmap of the kernel");
    }
}

static void calls_that_end_processes(void)
{
    pid_t children[6];
    int status;

    for (unsigned n = 0; n < 6; n++) {
        children[n] = fork();
        if (children[n] == 0) {
            become(65500);
            get_hot();
            check_loop();
        }
    }
    pid_t killer = fork();
    if (killer == 0) {
        become(65500);
        get_hot();
        burn(100000);
        _exit(raw_call(SYS_kill, -1, SIGKILL, 0) == 0 ? 0 : 1);
    }
    wait_for(killer);
    for (unsigned n = 0; n < 6; n++) {
        waitpid(children[n], &status, 0);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "status %#x", status);
    }
    for (unsigned n = 0; n < 20; n++) {
        pid_t pid = fork();
        if (pid == 0) {
            get_hot();
            raw_call(SYS_exit_group, n, 0, 0);
        }
        waitpid(pid, &status, 0);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (int)n, "status %#x", status);
    }
    /* Its kernel may take it for a call of 32-bit code; no process outlives that. */
    pid_t pid = fork();
    if (pid == 0) {
        get_hot();
        __asm__ volatile("mov $1, %%eax; mov $3, %%ebx; mov %%rsp, %%rbp; sysenter"
                         :
                         :
                         : "rax", "rbx", "memory");
        _exit(9);
    }
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) != 9, "status %#x", status);
}

void check_calls(void)
{
    catch_attempts();
    get_hot();
    CHECK(raw_call(SYS_getpid, 0, 0, 0) == getpid() && getpid() < 100000, "pid %d", getpid());
    calls_that_end_processes();
    become(NOBODY);
    unknown_calls();
    mapping_calls();
    /* Others can't be led, looked at or signalled. */
    CHECK(raw_call(SYS_kill, 1, SIGKILL, 0) == -EPERM, "killing init");
    CHECK(raw_call(SYS_ptrace, 16, 1, 0) < 0, "tracing init");
}
