/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 32-bit code in a 64-bit process, and filters of system calls. user_code_32.c is a whole program of 32 bits.
 */
#include "user_code.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOPS 100000u

struct far_pointer {
    uint32_t offset;
    uint16_t selector;
} __attribute__((packed));

/* Code and stack are below 4 GiB. */
static uint32_t call_compatible(const struct far_pointer *to, uint8_t *stack_end, uint32_t eax)
{
    __asm__ volatile("mov %%rsp, %%r12\n"
                     "mov %2, %%rsp\n"
                     "lcall *(%1)\n"
                     "mov %%r12, %%rsp"
                     : "+a"(eax)
                     : "r"(to), "r"(stack_end)
                     : "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "cc", "memory");
    return eax;
}

void check_compatibility(void)
{
    /* mov ecx, LOOPS; next: inc eax (REX in 64-bit mode); dec ecx; jnz next; push eax; mov eax, 20; int 0x80;
     * pop ecx; add eax, ecx; retf */
    static const uint8_t code[] = {0xb9, 0xa0, 0x86, 0x01, 0,    0x40, 0x49, 0x75, 0xfc, 0x50, 0xb8,
                                   20,   0,    0,    0,    0xcd, 0x80, 0x59, 0x01, 0xc8, 0xcb};
    uint8_t *low = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    if (low == MAP_FAILED)
        give_up("mmap");
    memcpy(low, code, sizeof(code));
    struct far_pointer to = {(uint32_t)(uintptr_t)low, 0x23};
    get_hot();
    for (uint32_t n = 0; n < 50; n++) {
        burn(150);
        uint32_t got = call_compatible(&to, low + 4 * PAGE, n), want = n + LOOPS + (uint32_t)getpid();
        CHECK(got == want, "%u, not %u", got, want);
        /* The old way to call the kernel, from 64-bit code. */
        uint64_t pid = 20;
        burn(150);
        __asm__ volatile("int $0x80" : "+a"(pid) : : "memory", "r8", "r9", "r10", "r11");
        CHECK(pid == (uint64_t)getpid(), "pid %llu", (unsigned long long)pid);
    }
}

static void filter(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 6),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getuid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getgid, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    const struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
        give_up("seccomp");
}

void check_seccomp(void)
{
    int status;

    pid_t pid = fork();
    if (pid == 0) {
        catch_attempts();
        get_hot();
        filter();
        for (unsigned n = 0; n < 50; n++) {
            burn(150);
            errno = 0;
            CHECK(syscall(SYS_getppid) == -1 && errno == 77, "errno %d", errno);
            burn(150);
            CHECK(ATTEMPT(syscall(SYS_getuid)) == SIGSYS, "signal %d", caught.signal);
        }
        if (failures)
            _exit(1);
        burn(150);
        syscall(SYS_getgid);
        _exit(2);
    }
    waitpid(pid, &status, 0);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "status %#x", status);
}
