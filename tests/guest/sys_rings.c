/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Privilege: how code gets from one ring to another (SYSCALL, SYSENTER, call gates, far returns, IRET), and
 * what ring 3 may do: privileged and IOPL-sensitive instructions, ports by the permission bitmap, UMIP,
 * FSGSBASE, TSD, questions about descriptors, alignment checks (SDM vol. 3A chapter 5, vol. 1 chapter 19; APM
 * vol. 2 chapter 4).
 */
#include "common/guest.h"

#define VA_USER  (PAGE_FREE_VIRTUAL + 0x1000) /* the page of user code below */
#define VA_STACK (PAGE_FREE_VIRTUAL + 0x2000)
#define VA_TOP   (VA_STACK + 0x1000)
#define USER(at) (VA_USER + (uint64_t)((at)-user_code))
/* The same two pages where 32-bit code reaches them, in place of a large page without RAM. */
#define VA_LOW     0x70001000ull
#define USER32(at) (VA_LOW + (uint64_t)((at)-user_code))

#define FLAG_CF         (1u << 0)
#define FLAG_ZF         (1u << 6)
#define FLAG_IF         (1u << 9)
#define FLAG_DF         (1u << 10)
#define FLAG_IOPL       (3u << 12)
#define FLAG_AC         (1u << 18)
#define CR0_AM          (1u << 18)
#define CR4_TSD         (1u << 2)
#define CR4_PCE         (1u << 8)
#define CR4_UMIP        (1u << 11)
#define CR4_FSGSBASE    (1u << 16)
#define MSR_EFER        0xc0000080
#define MSR_STAR        0xc0000081
#define MSR_LSTAR       0xc0000082
#define MSR_CSTAR       0xc0000083
#define MSR_FMASK       0xc0000084
#define MSR_FS_BASE     0xc0000100
#define MSR_GS_BASE     0xc0000101
#define MSR_KERNEL_GS   0xc0000102
#define MSR_SYSENTER_CS 0x174
#define NON_CANONICAL   0x0000800000000000ull

/* Two slots that hold the task state segment of a CPU that does not run: for gates and segments. */
#define SELECTOR_SPARE  SELECTOR_TSS(GUEST_MAX_CPUS - 1)
#define SELECTOR_SPARE2 (SELECTOR_SPARE + 8)

struct table_pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

static uint64_t *gdt;
static bool amd;

/* ---- the code of ring 3 and what it calls ---- */

#define PLACE(name) extern uint8_t name[]
__asm__(
    ".section .text.user, \"ax\"\n.balign 4096\n"
    "user_code: nop\n"
    "u_ud: ud2\n"
    "u_syscall: syscall\n u_after_syscall: ud2\n"
    "u_sysenter: sysenter\n u_after_sysenter: ud2\n"
    "u_gate: lcall *(%rdi)\n u_after_gate: ud2\n"
    "u_gate_jump: ljmp *(%rdi)\n"
    "u_lret: lretq\n"
    "u_iret: iretq\n"
    "u_in: movl %edi, %edx; inb %dx, %al; ud2\n"
    "u_in_2: movl %edi, %edx; inw %dx, %ax; ud2\n"
    "u_in_4: movl %edi, %edx; inl %dx, %eax; ud2\n"
    "u_out: movl %edi, %edx; outb %al, %dx; ud2\n"
    "u_ins: movl %edi, %edx; movabsq $0x8000002000, %rdi; insb; ud2\n"
    "u_cli: cli; u_after_cli: ud2\n"
    "u_sti: sti; ud2\n"
    "u_popf: pushq %rdi; popfq; pushfq; popq %rax; ud2\n"
    "u_load: movl (%rdi), %eax; ud2\n"
    "u_store: movl %eax, (%rdi); ud2\n"
    "u_word: movw (%rdi), %ax; ud2\n"
    "u_quad: movq (%rdi), %rax; ud2\n"
    "u_byte: movb (%rdi), %al; ud2\n"
    "u_push: movq %rdi, %rsp; pushq %rax; ud2\n"
    "u_call: movq %rdi, %rsp; call 1f; 1: ud2\n"
    "u_rmw: addl $1, (%rdi); ud2\n"
    "u_locked: lock addl $1, (%rdi); ud2\n"
    "u_movs: movq %rdi, %rsi; movsl; ud2\n"
    "u_movups: movups (%rdi), %xmm0; ud2\n"
    "u_movdqa: movdqa (%rdi), %xmm0; ud2\n"
    "u_fld: fldl (%rdi); fstp %st(0); ud2\n"
    "u_fxsave: fxsave (%rdi); ud2\n"
    "u_sgdt: sgdt (%rdi); ud2\n"
    "u_sidt: sidt (%rdi); ud2\n"
    "u_sldt: sldt %eax; ud2\n"
    "u_smsw: smsw %eax; ud2\n"
    "u_str: str %eax; ud2\n"
    "u_rdtsc: rdtsc; ud2\n"
    "u_rdtscp: rdtscp; ud2\n"
    "u_rdfsbase: rdfsbase %rax; ud2\n"
    "u_wrfsbase: wrfsbase %rdi; rdfsbase %rax; ud2\n"
    "u_wrgsbase: wrgsbase %rdi; movq %gs:0, %rax; ud2\n"
    "u_lar: larl %edi, %eax; jz 1f; movl $-1, %eax; 1: ud2\n"
    "u_lsl: lsll %edi, %eax; jz 1f; movl $-2, %eax; 1: ud2\n"
    "u_verr: verr %di; setz %al; movzbl %al, %eax; ud2\n"
    "u_verw: verw %di; setz %al; movzbl %al, %eax; ud2\n"
    ".code32\n"
    "u_syscall32: syscall; ud2\n"
    "u_32: movl $0x11223344, %eax; .byte 0x40; ud2\n" /* inc %eax, where 64-bit mode has a REX prefix */
    "u_load32: movl $0x23, %eax; movl %eax, %ds; movl (%edi), %eax; ud2\n"
    "u_push32: movl %edi, %esp; pushl %eax; ud2\n"
    ".code64\n"
    ".balign 4096\n"
    ".text\n"
    "sys_entry: movq %rsp, sys_rsp; movq %rcx, sys_rcx; movq %r11, sys_r11\n"
    "movq $sys_stack + 1024, %rsp; pushfq; popq sys_flags; movl %cs, %eax; movl %eax, sys_cs\n"
    "movl %ss, %eax; movl %eax, sys_ss; movq sys_rsp, %rsp; movl sys_return_32, %eax; testl %eax, %eax\n"
    "jnz 1f; sysretq; 1: sysretl\n"
    "sys_enter: movq %rsp, sys_rsp; movl %cs, %eax; movl %eax, sys_cs; movl %ss, %eax; movl %eax, sys_ss\n"
    "pushfq; popq sys_flags; movq sys_rcx, %rcx; movq sys_r11, %rdx; rex.w sysexit\n"
    "gate_entry: movq %rsp, sys_rsp; movl %cs, %eax; movl %eax, sys_cs; movl %ss, %eax; movl %eax, sys_ss\n"
    "movq (%rsp), %rax; movq %rax, sys_rcx; movq 8(%rsp), %rax; movq %rax, sys_r11\n"
    "movq 16(%rsp), %rax; movq %rax, sys_frame_rsp; lretq\n");
PLACE(user_code);
PLACE(u_ud);
PLACE(u_syscall);
PLACE(u_after_syscall);
PLACE(u_sysenter);
PLACE(u_after_sysenter);
PLACE(u_gate);
PLACE(u_after_gate);
PLACE(u_gate_jump);
PLACE(u_lret);
PLACE(u_iret);
PLACE(u_in);
PLACE(u_in_2);
PLACE(u_in_4);
PLACE(u_out);
PLACE(u_ins);
PLACE(u_cli);
PLACE(u_after_cli);
PLACE(u_sti);
PLACE(u_popf);
PLACE(u_load);
PLACE(u_store);
PLACE(u_word);
PLACE(u_quad);
PLACE(u_byte);
PLACE(u_push);
PLACE(u_call);
PLACE(u_rmw);
PLACE(u_locked);
PLACE(u_movs);
PLACE(u_movups);
PLACE(u_movdqa);
PLACE(u_fld);
PLACE(u_fxsave);
PLACE(u_sgdt);
PLACE(u_sidt);
PLACE(u_sldt);
PLACE(u_smsw);
PLACE(u_str);
PLACE(u_rdtsc);
PLACE(u_rdtscp);
PLACE(u_rdfsbase);
PLACE(u_wrfsbase);
PLACE(u_wrgsbase);
PLACE(u_lar);
PLACE(u_lsl);
PLACE(u_verr);
PLACE(u_verw);
PLACE(u_syscall32);
PLACE(u_32);
PLACE(u_load32);
PLACE(u_push32);
PLACE(sys_entry);
PLACE(sys_enter);
PLACE(gate_entry);

uint64_t sys_rsp, sys_rcx, sys_r11, sys_flags, sys_frame_rsp, sys_stack[128];
uint32_t sys_cs, sys_ss, sys_return_32;

static struct trap_result user(const uint8_t *code, uint64_t arg, uint64_t rflags)
{
    const struct trap_start start = {USER(code), SELECTOR_USER_CODE64, 2 | rflags, VA_TOP,
                                     SELECTOR_USER_DATA};

    return trap_catch_at(&start, arg);
}
static struct trap_result user32(const uint8_t *code, uint64_t arg, uint64_t rflags)
{
    const struct trap_start start = {USER32(code), SELECTOR_USER_CODE32, 2 | rflags, VA_LOW + 0x2000,
                                     SELECTOR_USER_DATA};

    return trap_catch_at(&start, arg);
}

/* Ring 3 reaches its UD2, or not: then by a trap with this error code. */
static void check_user(const char *name, const uint8_t *code, uint64_t arg, uint64_t rflags, int vector,
                       uint64_t error)
{
    struct trap_result r = user(code, arg, rflags);

    check_trap(name, &r, vector, error);
}

/* ---- SYSCALL ---- */

static void test_syscall(void)
{
    const uint64_t efer = rdmsr(MSR_EFER);
    struct trap_result r;

    wrmsr(MSR_STAR, (uint64_t)SELECTOR_CODE64 << 32 | (uint64_t)(SELECTOR_USER_CODE32) << 48);
    wrmsr(MSR_LSTAR, (uint64_t)sys_entry);
    wrmsr(MSR_CSTAR, (uint64_t)sys_entry);
    wrmsr(MSR_FMASK, FLAG_IF | FLAG_DF);
    wrmsr(MSR_EFER, efer & ~1ull);
    check_user("SYSCALL: not enabled", u_syscall, 0, 0, 6, 0);
    wrmsr(MSR_EFER, efer | 1);
    r = user(u_syscall, 0, FLAG_IF | FLAG_DF | FLAG_CF);
    check_trap("SYSCALL: and back by SYSRET", &r, 6, 0);
    check_value("SYSCALL: RIP after it", r.rip, USER(u_after_syscall));
    check_value("SYSCALL: CS after it", r.cs, SELECTOR_USER_CODE64);
    check_value("SYSCALL: SS after it", r.frame.ss, SELECTOR_USER_DATA);
    check_value("SYSCALL: flags after it", r.rflags & 0xfff, 2 | FLAG_IF | FLAG_DF | FLAG_CF);
    check_value("SYSCALL: RSP stays", sys_rsp, VA_TOP);
    check_value("SYSCALL: RCX", sys_rcx, USER(u_after_syscall));
    check_value("SYSCALL: R11", sys_r11 & 0xfff, 2 | FLAG_IF | FLAG_DF | FLAG_CF);
    check_value("SYSCALL: CS in the kernel", sys_cs, SELECTOR_CODE64);
    check_value("SYSCALL: SS in the kernel", sys_ss, SELECTOR_DATA);
    if (processor_is_tcg())
        check_skip("SYSCALL: flags in the kernel", "TCG loses the arithmetic flags");
    else
        check_value("SYSCALL: flags in the kernel", sys_flags & 0xfff, 2 | FLAG_CF);
    check_user("SYSRET in ring 3", u_ud, 0, 0, 6, 0);
    sys_return_32 = 1;
    r = user32(u_syscall32, 0, FLAG_IF);
    if (amd) {
        check_value("SYSCALL: in compatibility mode, as the vendor has it",
                    r.vector == 6 && r.rip == USER32(u_syscall32) + 2, 1);
        check_value("SYSCALL: in compatibility mode, CS after it", r.cs, SELECTOR_USER_CODE32);
    } else {
        check_value("SYSCALL: in compatibility mode, as the vendor has it",
                    r.vector == 6 && r.rip == USER32(u_syscall32), 1);
        check_value("SYSCALL: in compatibility mode, CS after it", r.cs, SELECTOR_USER_CODE32);
    }
    sys_return_32 = 0;
}

static void sysret_to_nowhere(void *arg)
{
    __asm__ volatile("movq %0, %%rcx; movl $2, %%r11d; sysretq" : : "r"(arg) : "rcx", "r11", "memory");
}

static void test_sysret(void)
{
    struct trap_result r;

    if (amd) { /* theirs go to ring 3 first */
        r = trap_catch(sysret_to_nowhere, (void *)NON_CANONICAL);
        check_value("SYSRET: to a non-canonical address", r.vector, processor_is_tcg() ? r.vector : 13);
    } else {
        r = trap_catch(sysret_to_nowhere, (void *)NON_CANONICAL);
        check_value("SYSRET: to a non-canonical address", r.vector << 8 | (r.cs & 3), 13 << 8);
    }
    __asm__ volatile("movl %0, %%ds; movl %0, %%es" : : "r"(SELECTOR_DATA));
}

static void test_sysenter(void)
{
    struct trap_result r;
    uint64_t seen;

    wrmsr(MSR_SYSENTER_CS, SELECTOR_CODE64);
    wrmsr(MSR_SYSENTER_CS + 1, (uint64_t)(sys_stack + 128));
    wrmsr(MSR_SYSENTER_CS + 2, (uint64_t)sys_enter);
    sys_rcx = VA_TOP - 64;
    sys_r11 = USER(u_after_sysenter);
    sys_cs = 0;
    r = user(u_sysenter, 0, FLAG_IF);
    /* AMD's processors have it in legacy mode only. */
    seen = (uint64_t)(r.vector == 6) | (uint64_t)(r.rip == USER(u_after_sysenter)) << 1 |
           (uint64_t)(sys_cs == SELECTOR_CODE64 && sys_ss == SELECTOR_DATA) << 2 |
           (uint64_t) !(sys_flags & FLAG_IF) << 3 | (uint64_t)(r.rsp == VA_TOP - 64) << 4;
    if (amd)
        check_value("SYSENTER and SYSEXIT, as the vendor has them",
                    r.vector == 6 && r.rip == USER(u_sysenter) && !sys_cs, 1);
    else
        check_value("SYSENTER and SYSEXIT, as the vendor has them", seen, 31);
    wrmsr(MSR_SYSENTER_CS, 0);
    r = user(u_sysenter, 0, 0);
    check_value("SYSENTER without a code segment", r.vector, amd ? 6 : 13);
}

/* ---- gates and far transfers ---- */

static void set_gate(uint64_t offset, unsigned selector, unsigned attr)
{
    gdt[SELECTOR_SPARE / 8] =
        (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)attr << 40 | (offset >> 16 & 0xffff) << 48;
    gdt[SELECTOR_SPARE / 8 + 1] = offset >> 32;
}

static void check_gate(const char *name, const uint8_t *code, unsigned rpl, int vector, uint64_t error)
{
    struct far_pointer {
        uint32_t offset;
        uint16_t selector;
    } __attribute__((packed)) *p = (void *)VA_STACK;

    p->offset = 0x12345678; /* a gate has its own */
    p->selector = (uint16_t)(SELECTOR_SPARE | rpl);
    check_user(check_name("call gate: ", name, NULL), code, VA_STACK, 0, vector, error);
}

static void test_gates(void)
{
    uint64_t old[2] = {gdt[SELECTOR_SPARE / 8], gdt[SELECTOR_SPARE / 8 + 1]};

    set_gate((uint64_t)gate_entry, SELECTOR_CODE64, 0xec);
    check_gate("to ring 0 and back", u_gate, 3, 6, 0);
    check_value("call gate: CS in ring 0", sys_cs, SELECTOR_CODE64);
    check_value("call gate: SS in ring 0 is null", sys_ss, 0);
    check_value("call gate: the return address is pushed", sys_rcx, USER(u_after_gate));
    check_value("call gate: CS is pushed", sys_r11 & 0xffff, SELECTOR_USER_CODE64);
    check_value("call gate: RSP is pushed", sys_frame_rsp, VA_TOP);
    check_gate("a jump to ring 0", u_gate_jump, 3, 13, SELECTOR_CODE64);
    set_gate((uint64_t)gate_entry, SELECTOR_CODE64, 0x8c);
    check_gate("DPL 0 for ring 3", u_gate, 3, 13, SELECTOR_SPARE);
    set_gate((uint64_t)gate_entry, SELECTOR_CODE64, 0x6c);
    check_gate("not present", u_gate, 3, 11, SELECTOR_SPARE);
    set_gate((uint64_t)gate_entry, 0, 0xec);
    check_gate("to a null selector", u_gate, 3, 13, 0);
    set_gate((uint64_t)gate_entry, SELECTOR_DATA, 0xec);
    check_gate("to data", u_gate, 3, 13, SELECTOR_DATA);
    set_gate((uint64_t)gate_entry, SELECTOR_CODE32, 0xec);
    check_gate("to 32-bit code", u_gate, 3, 13, SELECTOR_CODE32);
    set_gate(USER(u_ud), SELECTOR_USER_CODE64 & ~3u, 0xec);
    check_gate("to ring 3", u_gate, 3, 6, 0);
    set_gate(NON_CANONICAL, SELECTOR_CODE64, 0xec);
    if (processor_is_tcg())
        check_skip("call gate: to a non-canonical address", "TCG goes there");
    else
        check_gate("to a non-canonical address", u_gate, 3, 13, 0);
    set_gate((uint64_t)gate_entry, SELECTOR_CODE64, 0xe4);
    check_gate("of 16 bits", u_gate, 3, 13, SELECTOR_SPARE);
    set_gate((uint64_t)gate_entry, SELECTOR_CODE64, 0xec);
    gdt[SELECTOR_SPARE / 8 + 1] |= 1ull << 40;
    if (processor_is_tcg())
        check_skip("call gate: with a type in its second half", "TCG does not look");
    else
        check_gate("with a type in its second half", u_gate, 3, 13, SELECTOR_SPARE);
    gdt[SELECTOR_SPARE / 8] = old[0];
    gdt[SELECTOR_SPARE / 8 + 1] = old[1];
}

static uint64_t far_frame[5];

static void far_return(void *arg)
{
    (void)arg;
    __asm__ volatile("pushq %0; pushq %1; pushq %2; pushq %3; lretq"
                     :
                     : "r"(far_frame[3]), "r"(far_frame[2]), "r"(far_frame[1]), "r"(far_frame[0])
                     : "memory");
}

static void check_return(const char *name, uint64_t rip, unsigned cs, unsigned ss, int vector, uint64_t error)
{
    struct trap_result r;

    far_frame[0] = rip;
    far_frame[1] = cs;
    far_frame[2] = VA_TOP;
    far_frame[3] = ss;
    r = trap_catch(far_return, NULL);
    __asm__ volatile("movl %0, %%ds; movl %0, %%es" : : "r"(SELECTOR_DATA));
    check_trap(check_name("far return: ", name, NULL), &r, vector, error);
}

static void test_returns(void)
{
    check_return("to ring 3", USER(u_ud), SELECTOR_USER_CODE64, SELECTOR_USER_DATA, 6, 0);
    check_return("to ring 3 of 32 bits", USER32(u_32), SELECTOR_USER_CODE32, SELECTOR_USER_DATA, 6, 0);
    check_return("to a null CS", USER(u_ud), 0, SELECTOR_USER_DATA, 13, 0);
    check_return("to data", USER(u_ud), SELECTOR_USER_DATA, SELECTOR_USER_DATA, 13, SELECTOR_USER_DATA & ~3u);
    check_return("with an RPL unlike the DPL", USER(u_ud), SELECTOR_USER_CODE64 - 1, SELECTOR_USER_DATA, 13,
                 SELECTOR_USER_CODE64 & ~3u);
    check_return("to ring 3 with ring 0's stack", USER(u_ud), SELECTOR_USER_CODE64, SELECTOR_DATA, 13,
                 SELECTOR_DATA);
    check_return("to ring 3 with a null stack", USER(u_ud), SELECTOR_USER_CODE64, 0, 13, 0);
    *(uint64_t *)(VA_TOP - 16) = (uint64_t)gate_entry;
    *(uint64_t *)(VA_TOP - 8) = SELECTOR_CODE64;

    struct trap_start start = {USER(u_lret), SELECTOR_USER_CODE64, 2, VA_TOP - 16, SELECTOR_USER_DATA};
    struct trap_result r = trap_catch_at(&start, 0);
    check_trap("far return: to an inner ring", &r, 13, SELECTOR_CODE64);
    *(uint64_t *)(VA_TOP - 40) = (uint64_t)gate_entry;
    *(uint64_t *)(VA_TOP - 32) = SELECTOR_CODE64;
    *(uint64_t *)(VA_TOP - 24) = 2;
    *(uint64_t *)(VA_TOP - 16) = VA_TOP;
    *(uint64_t *)(VA_TOP - 8) = SELECTOR_DATA;
    start.rip = USER(u_iret);
    start.rsp = VA_TOP - 40;
    r = trap_catch_at(&start, 0);
    check_trap("IRET to an inner ring", &r, 13, SELECTOR_CODE64);

    /* Data segments that ring 3 must not have are gone; those that it may have stay. */
    uint32_t ds, es, fs;
    __asm__ volatile("movl %0, %%es; movl %1, %%fs" : : "r"(SELECTOR_USER_DATA), "r"(SELECTOR_DATA));
    r = user(u_ud, 0, 0);
    __asm__ volatile("movl %%ds, %0; movl %%es, %1; movl %%fs, %2" : "=r"(ds), "=r"(es), "=r"(fs));
    check_value("to ring 3: FS of ring 0 becomes null", fs, 0);
}

/* ---- what ring 3 may do ---- */

#define BYTES(...)                                                                                           \
    {                                                                                                        \
        __VA_ARGS__                                                                                          \
    }
static const struct {
    const char *name;
    uint8_t code[8];
    int vector;
    const char *tcg;
} privileged[] = {
    {"HLT", BYTES(0xf4), 13, NULL},
    {"CLTS", BYTES(0x0f, 0x06), 13, NULL},
    {"LGDT", BYTES(0x0f, 0x01, 0x17), 13, NULL},
    {"LIDT", BYTES(0x0f, 0x01, 0x1f), 13, NULL},
    {"LLDT", BYTES(0x0f, 0x00, 0xd0), 13, NULL},
    {"LTR", BYTES(0x0f, 0x00, 0xd8), 13, NULL},
    {"LMSW", BYTES(0x0f, 0x01, 0xf0), 13, NULL},
    {"MOV from CR0", BYTES(0x0f, 0x20, 0xc0), 13, NULL},
    {"MOV to CR3", BYTES(0x0f, 0x22, 0xd8), 13, NULL},
    {"MOV to CR8", BYTES(0x44, 0x0f, 0x22, 0xc0), 13, NULL},
    {"MOV from DR7", BYTES(0x0f, 0x21, 0xf8), 13, NULL},
    {"MOV to DR0", BYTES(0x0f, 0x23, 0xc0), 13, NULL},
    {"RDMSR", BYTES(0x0f, 0x32), 13, NULL},
    {"WRMSR", BYTES(0x0f, 0x30), 13, NULL},
    {"INVD", BYTES(0x0f, 0x08), 13, NULL},
    {"WBINVD", BYTES(0x0f, 0x09), 13, NULL},
    {"INVLPG", BYTES(0x0f, 0x01, 0x3f), 13, NULL},
    {"SWAPGS", BYTES(0x0f, 0x01, 0xf8), 13, NULL},
    {"SYSRET", BYTES(0x48, 0x0f, 0x07), 13, NULL},
    {"RDPMC", BYTES(0x0f, 0x33), 13, NULL},
    {"STAC", BYTES(0x0f, 0x01, 0xcb), 6, NULL},
    {"CLAC", BYTES(0x0f, 0x01, 0xca), 6, NULL},
    {"MONITOR", BYTES(0x0f, 0x01, 0xc8), 6, "TCG has it in any ring"},
    {"CLI", BYTES(0xfa), 13, NULL},
    {"STI", BYTES(0xfb), 13, NULL},
    {"IN", BYTES(0xec), 13, NULL},
    {"OUT", BYTES(0xee), 13, NULL},
    {"INSB", BYTES(0x6c), 13, NULL},
    {"OUTSB", BYTES(0x6e), 13, NULL},
};

static void test_privileged(void)
{
    uint8_t *page = page_alloc();

    page_map(VA_USER + 0x10000, (uint64_t)page, PAGE_PRESENT | PAGE_USER);
    for (unsigned i = 0; i < sizeof(privileged) / sizeof(privileged[0]); i++) {
        struct trap_start start = {VA_USER + 0x10000, SELECTOR_USER_CODE64, 2, VA_TOP, SELECTOR_USER_DATA};
        const char *name = check_name("in ring 3: ", privileged[i].name, NULL);

        if (privileged[i].tcg && processor_is_tcg()) {
            check_skip(name, privileged[i].tcg);
            continue;
        }
        for (unsigned k = 0; k < 8; k++)
            page[k] = privileged[i].code[k];
        for (unsigned k = 8; k > 0 && !page[k - 1]; k--) /* what follows tells that it was carried out */
            page[k - 1] = 0xcc;
        struct trap_result r = trap_catch_at(&start, VA_STACK);
        check_trap(name, &r, privileged[i].vector, 0);
    }
}

static void test_flags(void)
{
    struct trap_result r;

    check_user("IOPL 3: CLI", u_cli, 0, FLAG_IF | FLAG_IOPL, 6, 0);
    r = user(u_cli, 0, FLAG_IF | FLAG_IOPL);
    check_value("IOPL 3: CLI clears IF", r.rflags & FLAG_IF, 0);
    r = user(u_sti, 0, FLAG_IOPL);
    check_value("IOPL 3: STI sets IF", r.rflags & FLAG_IF, FLAG_IF);
    r = user(u_popf, 2, FLAG_IF);
    check_value("POPF in ring 3: IF stays", r.frame.rax & (FLAG_IF | FLAG_IOPL), FLAG_IF);
    r = user(u_popf, FLAG_IF | FLAG_IOPL | 2, 0);
    check_value("POPF in ring 3: IF and IOPL stay clear", r.frame.rax & (FLAG_IF | FLAG_IOPL), 0);
    r = user(u_popf, 2, FLAG_IF | FLAG_IOPL);
    check_value("POPF with IOPL 3: IF changes, IOPL does not", r.frame.rax & (FLAG_IF | FLAG_IOPL),
                FLAG_IOPL);
}

/* ---- ports ---- */

static void load_tss(uint64_t base, unsigned limit)
{
    gdt[SELECTOR_TSS(0) / 8] = limit | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[SELECTOR_TSS(0) / 8 + 1] = base >> 32;
    __asm__ volatile("ltr %w0" : : "r"(SELECTOR_TSS(0)));
}

static void check_port(const char *name, const uint8_t *code, unsigned port, uint64_t rflags, int vector)
{
    check_user(check_name("ports: ", name, NULL), code, port, rflags, vector, 0);
}

static void test_ports(void)
{
    const uint64_t low = gdt[SELECTOR_TSS(0) / 8], high = gdt[SELECTOR_TSS(0) / 8 + 1];
    const uint8_t *old = (const uint8_t *)((low >> 16 & 0xffffff) | (low >> 32 & 0xff000000) | high << 32);
    uint8_t *tss = page_alloc(), *map = tss + 0x68;

    for (unsigned i = 0; i < 0x68; i++)
        tss[i] = old[i];
    tss[0x66] = 0x68; /* where the map begins */
    for (unsigned i = 0; i < 64; i++)
        map[i] = 0xff;
    map[0x71 / 8] &= (uint8_t) ~(1u << (0x71 & 7));
    map[0x72 / 8] &= (uint8_t) ~(1u << (0x72 & 7));
    map[0x80 / 8] = 0xfe;
    load_tss((uint64_t)tss, 0x68 + 0x88 / 8);
    check_port("allowed", u_in, 0x71, 0, 6);
    check_port("not allowed", u_in, 0x70, 0, 13);
    check_port("OUT, allowed", u_out, 0x80, 0, 6);
    check_port("OUT, not allowed", u_out, 0x81, 0, 13);
    check_port("INS, allowed", u_ins, 0x71, 0, 6);
    check_port("INS, not allowed", u_ins, 0x73, 0, 13);
    check_port("two, both allowed", u_in_2, 0x71, 0, 6);
    check_port("two, the second not allowed", u_in_2, 0x72, 0, 13);
    check_port("two, the first not allowed", u_in_2, 0x70, 0, 13);
    check_port("four, half of them allowed", u_in_4, 0x71, 0, 13);
    check_port("not allowed, with IOPL 3", u_in, 0x70, FLAG_IOPL, 6);
    map[0x7f / 8] &= 0x7f;
    map[0x80 / 8] = 0xff;
    check_port("two in two bytes of the map", u_in_2, 0x7f, 0, 13);
    map[0x80 / 8] = 0;
    map[0x88 / 8] = 0;
    check_port("the last before the limit", u_in, 0x87, 0, 6);
    check_port("past the limit", u_in, 0x88, 0, 13);
    map[0x88 / 8] = 0xff;
    load_tss((uint64_t)tss, 0x68 + 0x80 / 8);
    check_port("whose byte is the limit's last", u_in, 0x80, 0, 13);
    tss[0x66] = 0xff;
    tss[0x67] = 0xff;
    check_port("no map", u_in, 0x71, 0, 13);
    gdt[SELECTOR_TSS(0) / 8] = low & ~(2ull << 40);
    gdt[SELECTOR_TSS(0) / 8 + 1] = high;
    __asm__ volatile("ltr %w0" : : "r"(SELECTOR_TSS(0)));
}

/* ---- what control registers take from ring 3 ---- */

static void read_tsc(void *arg)
{
    (void)arg;
    rdtsc();
}

static void test_control(void)
{
    static const struct {
        const char *name;
        const uint8_t *code;
    } tables[] = {{"SGDT", u_sgdt}, {"SIDT", u_sidt}, {"SLDT", u_sldt}, {"SMSW", u_smsw}, {"STR", u_str}};
    uint64_t cr4 = read_cr4();
    struct trap_result r;

    for (unsigned i = 0; i < 5; i++) {
        check_user(check_name("UMIP off: ", tables[i].name, NULL), tables[i].code, VA_STACK, 0, 6, 0);
        if (!processor_has(7, 2, 2)) {
            check_skip(check_name("UMIP on: ", tables[i].name, NULL), "this processor has no UMIP");
            continue;
        }
        write_cr4(cr4 | CR4_UMIP);
        check_user(check_name("UMIP on: ", tables[i].name, NULL), tables[i].code, VA_STACK, 0, 13, 0);
        write_cr4(cr4);
    }
    r = user(u_str, 0, 0);
    check_value("UMIP off: STR tells the task register", r.frame.rax & 0xffff, SELECTOR_TSS(0));
    check_user("TSD off: RDTSC", u_rdtsc, 0, 0, 6, 0);
    write_cr4(cr4 | CR4_TSD);
    check_user("TSD on: RDTSC", u_rdtsc, 0, 0, 13, 0);
    check_user("TSD on: RDTSCP", u_rdtscp, 0, 0, 13, 0);
    r = trap_catch(read_tsc, NULL);
    check_trap("TSD on: RDTSC in ring 0", &r, -1, 0);
    write_cr4(cr4);
    if (!processor_has(7, 1, 0)) {
        check_skip("FSGSBASE", "this processor has no FSGSBASE");
        return;
    }
    write_cr4(cr4 & ~(uint64_t)CR4_FSGSBASE);
    check_user("FSGSBASE off: RDFSBASE", u_rdfsbase, 0, 0, 6, 0);
    r = user(u_rdfsbase, 0, 0);
    check_value("FSGSBASE off: RIP", r.rip, USER(u_rdfsbase));
    write_cr4(cr4 | CR4_FSGSBASE);
    wrmsr(MSR_FS_BASE, 0x123456789000);
    r = user(u_rdfsbase, 0, 0);
    check_value("FSGSBASE on: RDFSBASE", r.frame.rax, 0x123456789000);
    r = user(u_wrfsbase, 0x7f0000001000, 0);
    check_value("FSGSBASE on: WRFSBASE", r.frame.rax, 0x7f0000001000);
    check_value("FSGSBASE on: the MSR has it", rdmsr(MSR_FS_BASE), 0x7f0000001000);
    *(uint64_t *)VA_STACK = 0x1122334455667788;
    r = user(u_wrgsbase, VA_STACK, 0);
    check_value("FSGSBASE on: WRGSBASE, and an access by it", r.frame.rax, 0x1122334455667788);
    wrmsr(MSR_KERNEL_GS, 0x1000);
    __asm__ volatile("swapgs" : : : "memory");
    check_value("SWAPGS: GS base", rdmsr(MSR_GS_BASE), 0x1000);
    check_value("SWAPGS: the other one", rdmsr(MSR_KERNEL_GS), VA_STACK);
    wrmsr(MSR_GS_BASE, 0);
    if (processor_is_tcg())
        check_skip("FSGSBASE on: a non-canonical base", "TCG takes any");
    else
        check_user("FSGSBASE on: a non-canonical base", u_wrfsbase, NON_CANONICAL, 0, 13, 0);
    wrmsr(MSR_FS_BASE, 0);
    write_cr4(cr4);
}

/* ---- questions about descriptors ---- */

static void check_question(const char *name, const uint8_t *code, unsigned selector, uint64_t want)
{
    struct trap_result r = user(code, selector, 0);

    if (code == u_lar && !(r.frame.rax >> 31 & 1)) /* the limit's bits in it are undefined */
        r.frame.rax &= ~0xf0000ull;
    check_value(check_name("in ring 3: ", name, NULL),
                r.vector == 6 ? r.frame.rax & 0xffffffff : 1ull << 32 | r.vector, want);
}

static void test_questions(void)
{
    check_question("LAR of user code", u_lar, SELECTOR_USER_CODE64,
                   gdt[SELECTOR_USER_CODE64 / 8] >> 32 & 0x00f0ff00);
    check_question("LAR of user data with RPL 0", u_lar, SELECTOR_USER_DATA & ~3u,
                   gdt[SELECTOR_USER_DATA / 8] >> 32 & 0x00f0ff00);
    check_question("LAR of ring 0's code", u_lar, SELECTOR_CODE64, 0xffffffff);
    check_question("LAR of ring 0's TSS", u_lar, SELECTOR_TSS(0), 0xffffffff);
    check_question("LAR of null", u_lar, 0, 0xffffffff);
    check_question("LAR past the table", u_lar, 0xff8, 0xffffffff);
    check_question("LSL of user data", u_lsl, SELECTOR_USER_DATA, 0xffffffff);
    check_question("LSL of ring 0's data", u_lsl, SELECTOR_DATA, 0xfffffffe);
    check_question("VERR of user code", u_verr, SELECTOR_USER_CODE64, 1);
    check_question("VERR of ring 0's data", u_verr, SELECTOR_DATA, 0);
    check_question("VERW of user data", u_verw, SELECTOR_USER_DATA, 1);
    check_question("VERW of user code", u_verw, SELECTOR_USER_CODE64, 0);
    check_question("VERW of null", u_verw, 3, 0);
}

/* ---- alignment ---- */

static void load_with_ac(void *at)
{
    __asm__ volatile("pushfq; orl %1, (%%rsp); popfq; movl (%0), %%eax; pushfq; andl %2, (%%rsp); popfq"
                     :
                     : "r"(at), "i"(FLAG_AC), "i"(~FLAG_AC)
                     : "rax", "memory", "cc");
}

static void test_alignment(void)
{
    static const struct {
        const char *name;
        const uint8_t *code;
        unsigned at;
        int vector;
    } rows[] = {
        {"a byte", u_byte, 1, 6},
        {"a word at 2", u_word, 2, 6},
        {"a word at 1", u_word, 1, 17},
        {"four bytes at 4", u_load, 4, 6},
        {"four bytes at 2", u_load, 2, 17},
        {"four bytes at 1", u_load, 1, 17},
        {"a store of four bytes at 1", u_store, 1, 17},
        {"eight bytes at 8", u_quad, 8, 6},
        {"eight bytes at 4", u_quad, 4, 17},
        {"a read-modify-write at 2", u_rmw, 2, 17},
        {"a locked one at 2", u_locked, 2, 17},
        {"a locked one at 4", u_locked, 4, 6},
        {"a push at 8", u_push, 0x108, 6},
        {"a push at 4", u_push, 0x104, 17},
        {"a call at 4", u_call, 0x104, 17},
        {"MOVS at 1", u_movs, 1, 17},
        {"MOVS at 4", u_movs, 4, 6},
        {"FLD of eight bytes at 4", u_fld, 4, 17},
        {"FLD of eight bytes at 8", u_fld, 8, 6},
    };
    uint64_t cr0 = read_cr0();

    if (processor_is_tcg()) {
        check_skip("alignment check: ", "TCG makes none");
        return;
    }
    write_cr0(cr0 | CR0_AM);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        check_user(check_name("alignment check: ", rows[i].name, NULL), rows[i].code, VA_STACK + rows[i].at,
                   FLAG_AC, rows[i].vector, 0);
    check_user("alignment check: AC clear", u_load, VA_STACK + 1, 0, 6, 0);
    check_user("alignment check: an absent page comes after it", u_load, VA_USER + 0x20001, FLAG_AC, 17, 0);
    check_user("alignment check: MOVDQA has its own", u_movdqa, VA_STACK + 8, FLAG_AC, 13, 0);
    struct trap_result r = user32(u_load32, VA_LOW + 0x1001, FLAG_AC);
    check_trap("alignment check: in compatibility mode", &r, 17, 0);
    r = user32(u_push32, VA_LOW + 0x1102, FLAG_AC);
    check_trap("alignment check: a push in compatibility mode", &r, 17, 0);
    r = user32(u_push32, VA_LOW + 0x1104, FLAG_AC);
    check_trap("alignment check: an aligned one", &r, 6, 0);
    write_cr0(cr0);
    check_user("alignment check: AM clear", u_load, VA_STACK + 1, FLAG_AC, 6, 0);
    write_cr0(cr0 | CR0_AM);
    r = trap_catch(load_with_ac, (void *)(VA_STACK + 1));
    check_trap("alignment check: none in ring 0", &r, -1, 0);
    write_cr0(cr0);
}

static void find_tables(void)
{
    struct table_pointer pointer;
    uint32_t out[4];

    __asm__ volatile("sgdt %0" : "=m"(pointer));
    gdt = (uint64_t *)pointer.base;
    cpuid(0, 0, out);
    amd = out[1] == 0x68747541 || out[1] == 0x6f677948; /* Auth(enticAMD), Hygo(nGenuine) */
}

void guest_main(void)
{
    uint64_t stack = (uint64_t)page_alloc();

    find_tables();
    pic_disable();
    page_map(VA_USER, (uint64_t)user_code, PAGE_PRESENT | PAGE_USER);
    page_map(VA_STACK, stack, PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER);
    *page_entry(VA_LOW, 2) = 0;
    page_map(VA_LOW, (uint64_t)user_code, PAGE_PRESENT | PAGE_USER);
    page_map(VA_LOW + 0x1000, stack, PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER);
    test_syscall();
    test_sysret();
    test_sysenter();
    test_gates();
    test_returns();
    test_privileged();
    test_flags();
    test_ports();
    test_control();
    test_questions();
    test_alignment();
}
