/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Debug exceptions: single step through instructions of every kind, hardware breakpoints on code, data and
 * ports, DR6, DR7 and RF (SDM vol. 3B chapter 18).
 */
#include "common/guest.h"

#define VA_USER (PAGE_FREE_VIRTUAL + 0x1000)

#define RFLAGS_TF (1u << 8)
#define RFLAGS_RF (1u << 16)
#define CR4_DE    (1u << 3)
#define DR6_FIXED 0xffff0ff0ull
#define DR6_BD    (1u << 13)
#define DR6_BS    (1u << 14)
#define DR7_FIXED 0x400ull
#define DR7_GD    (1u << 13)

#define WRITE_DR(n, v) __asm__ volatile("movq %0, %%dr" #n : : "r"((uint64_t)(v)) : "memory")

enum { ON_EXEC, ON_WRITE, ON_PORT, ON_ACCESS };
/* DR7's bits for breakpoint n on `kind`, `len` bytes, enabled for all tasks. */
static uint64_t dr7_bits(unsigned n, unsigned kind, unsigned len)
{
    unsigned code = len == 8 ? 2 : len - 1;

    return 2ull << (2 * n) | (uint64_t)(kind | code << 2) << (16 + 4 * n);
}

static void set_address(unsigned n, uint64_t address)
{
    if (n == 0)
        WRITE_DR(0, address);
    else if (n == 1)
        WRITE_DR(1, address);
    else if (n == 2)
        WRITE_DR(2, address);
    else
        WRITE_DR(3, address);
}

/* What the handler of #DB has seen. */
static unsigned hits;
static uint64_t hit_rip[16], hit_dr6[16], hit_flags[16];

static void on_debug(struct trap_frame *frame)
{
    if (hits < 16) {
        hit_rip[hits] = frame->rip;
        hit_dr6[hits] = read_dr6();
        hit_flags[hits] = frame->rflags;
    }
    hits++;
    write_dr6(DR6_FIXED);
    if (!(hit_dr6[(hits - 1) & 15] & DR6_BS))
        frame->rflags |= RFLAGS_RF; /* on with the instruction */
    if (hits > 100) {
        frame->rflags &= ~(uint64_t)RFLAGS_TF;
        write_dr7(DR7_FIXED);
    }
}

static void clear_hits(void)
{
    hits = 0;
    for (unsigned i = 0; i < 16; i++)
        hit_rip[i] = hit_dr6[i] = hit_flags[i] = 0;
}

/* --- single step -------------------------------------------------------------------------------------- */

/* A place where a step is to be reported: its address goes into the table of the function around it. */
#define STEP "999: .pushsection .rodata.steps; .quad 999b; .popsection\n"
/*
 * A function with TF set in the middle. POPF that sets TF is not trapped itself, the one that clears it is.
 * `code` begins with an instruction and has a STEP after each.
 */
#define STEPPED(name, code)                                                                                  \
    __asm__(".pushsection .rodata.steps; " #name "_steps: .popsection\n"                                     \
            ".text; " #name ": pushfq; orl $0x100, (%rsp); popfq\n" code "pushfq\n" STEP                     \
            "andl $~0x100, (%rsp)\n" STEP "popfq\n" STEP "ret\n"                                             \
            ".pushsection .rodata.steps; .quad 0; .popsection\n");                                           \
    extern uint8_t name[];                                                                                   \
    extern const uint64_t name##_steps[]

static uint64_t buffer[16] __attribute__((aligned(64), used));

STEPPED(step_nothing, "");
STEPPED(step_plain, "nop\n" STEP "incl %eax\n" STEP "movl %eax, %ecx\n" STEP);
/* In the order of addresses, which is not that of execution. */
STEPPED(step_jumps,
        "jmp 1f\n ud2\n 1: " STEP "call 2f\n" STEP "jmp 3f\n 2: " STEP "ret\n 3: " STEP "nop\n" STEP);
STEPPED(step_branches, "xorl %eax, %eax\n" STEP "jz 1f\n ud2\n 1: " STEP "jnz 1b\n" STEP
                       "jmp *2f\n 2: .quad 3f\n 3: " STEP "nop\n" STEP);
STEPPED(step_memory,
        "pushq %rax\n" STEP "movl buffer, %eax\n" STEP "addl %eax, buffer+4\n" STEP "popq %rax\n" STEP);
STEPPED(step_rep, "movl $buffer, %esi\n" STEP "movl $buffer+8, %edi\n" STEP "movl $3, %ecx\n" STEP STEP STEP
                  "rep movsb\n" STEP);
STEPPED(step_rep_none, "movl $0, %ecx\n" STEP "rep stosb\n" STEP "nop\n" STEP);
STEPPED(step_system, "movl $0, %eax\n" STEP "cpuid\n" STEP "rdtsc\n" STEP "movq %cr0, %rax\n" STEP
                     "movq %rax, %cr0\n" STEP "invlpg buffer\n" STEP);
STEPPED(step_port, "inb $0x71, %al\n" STEP "outb %al, $0x80\n" STEP "nop\n" STEP);
STEPPED(step_int, "int3\n nop\n" STEP);
STEPPED(step_ud, "ud2\n nop\n" STEP);
STEPPED(step_sti, "sti\n" STEP "nop\n" STEP "cli\n" STEP);
STEPPED(step_ss, "movl %ss, %eax\n" STEP "movl %eax, %ss\n nop\n" STEP "nop\n" STEP);
STEPPED(step_locked, "lock incq buffer\n" STEP "xchgq %rax, buffer\n" STEP "cmpxchgq %rcx, buffer\n" STEP);
STEPPED(step_pushf, "pushfq\n" STEP "popq %rbx\n" STEP);
STEPPED(step_vector,
        "movups buffer, %xmm0\n" STEP "paddd %xmm0, %xmm0\n" STEP "fld1\n" STEP "fstp %st(0)\n" STEP);

static void on_ud(struct trap_frame *frame)
{
    frame->rip += 2;
}
static void on_int3(struct trap_frame *frame)
{
    (void)frame;
}

static uint64_t call(void *code)
{
    uint64_t rbx = 0;

    __asm__ volatile("call *%0"
                     : "+r"(code), "+b"(rbx)
                     :
                     : "rax", "rcx", "rdx", "rsi", "rdi", "memory", "cc");
    return rbx;
}

static void check_steps(const char *name, void *code, const uint64_t *expected)
{
    unsigned n = 0, matched = 0;
    uint64_t causes = 0;

    clear_hits();
    call(code);
    for (; expected[n]; n++)
        for (unsigned i = 0; i < hits && i < 16; i++)
            if (hit_rip[i] == expected[n]) {
                hit_rip[i] = 0;
                matched++;
                break;
            }
    for (unsigned i = 0; i < hits && i < 16; i++) {
        causes |= hit_dr6[i] ^ (DR6_FIXED | DR6_BS);
        if (hit_rip[i])
            print("a step at 0x%lx, %lu behind 0x%lx\n", hit_rip[i], hit_rip[i] - (uint64_t)code,
                  (uint64_t)code);
    }
    check_value(check_name("step: ", name, NULL), matched << 8 | hits, n << 8 | n);
    check_value(check_name("step: ", name, ", DR6", NULL), causes, 0);
}

static void test_steps(void)
{
    static const struct {
        const char *name;
        void *code;
        const uint64_t *steps;
    } rows[] = {
        {"nothing", step_nothing, step_nothing_steps},
        {"arithmetic", step_plain, step_plain_steps},
        {"jumps", step_jumps, step_jumps_steps},
        {"branches", step_branches, step_branches_steps},
        {"memory", step_memory, step_memory_steps},
        {"REP, an iteration at a time", step_rep, step_rep_steps},
        {"REP of nothing", step_rep_none, step_rep_none_steps},
        {"system instructions", step_system, step_system_steps},
        {"ports", step_port, step_port_steps},
        {"INT3, not its handler", step_int, step_int_steps},
        {"a fault that is handled", step_ud, step_ud_steps},
        {"STI", step_sti, step_sti_steps},
        {"MOV SS holds the trap back", step_ss, step_ss_steps},
        {"locked", step_locked, step_locked_steps},
        {"PUSHF", step_pushf, step_pushf_steps},
        {"vectors and x87", step_vector, step_vector_steps},
    };

    trap_set_handler(3, on_int3);
    trap_set_handler(6, on_ud);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (processor_is_tcg() && (rows[i].code == step_ss || rows[i].code == step_sti)) {
            check_skip(check_name("step: ", rows[i].name, NULL), "TCG has it the other way round");
            continue;
        }
        check_steps(rows[i].name, rows[i].code, rows[i].steps);
    }
    clear_hits();
    check_value("step: PUSHF shows TF", call(step_pushf) & RFLAGS_TF, RFLAGS_TF);
    check_value("step: TF is saved", hit_flags[0] & RFLAGS_TF, RFLAGS_TF);
    trap_set_handler(3, NULL);
    trap_set_handler(6, NULL);
    trap_set_handler(1, NULL);

    /* Begun by IRET, in ring 3. */
    uint8_t *code = page_alloc();
    const struct trap_start start = {VA_USER, SELECTOR_USER_CODE64, 2 | RFLAGS_TF, 0, SELECTOR_USER_DATA};
    struct trap_result r;

    code[0] = code[1] = code[2] = 0x90;
    page_map(VA_USER, (uint64_t)code, PAGE_PRESENT | PAGE_USER);
    r = trap_catch_at(&start, 0);
    check_trap("step: IRET that sets TF", &r, 1, 0);
    check_value("step: IRET that sets TF, after one instruction", r.rip, VA_USER + 1);
    write_dr6(DR6_FIXED);
    trap_set_handler(1, on_debug);
}

/* --- breakpoints -------------------------------------------------------------------------------------- */

__asm__(".text\n"
        "bp_code: nop; bp_0: incl %ebx; bp_1: nop; bp_2: addl $2, %ebx; bp_3: ret\n"
        "bp_data: movq (%rdi), %rax; bp_after_read: movq %rax, (%rdi); bp_after_write: nop; ret\n"
        "bp_rmw: incq (%rdi); bp_after_rmw: ret\n"
        "bp_locked: lock incq (%rdi); bp_after_locked: ret\n"
        "bp_stack: leaq 8(%rdi), %rcx; xchgq %rcx, %rsp; pushq %rax; bp_after_push: xchgq %rcx, %rsp; ret\n"
        "bp_string: movl $4, %ecx; rep stosb; bp_after_rep: ret\n"
        "bp_vector: movups %xmm0, (%rdi); bp_after_vector: ret\n"
        "bp_port: inb $0x71, %al; bp_after_in: nop; outb %al, $0x80; bp_after_out: ret\n"
        "bp_ss: movw (%rdi), %ss; nop; bp_after_ss: ret\n"
        "bp_gd: movq %dr7, %rax; ret\n"
        "bp_dr4: movq %dr4, %rbx; ret\n"
        "bp_icebp: .byte 0xf1; bp_after_icebp: ret\n");
#define PLACE(name) extern uint8_t name[]
PLACE(bp_code);
PLACE(bp_0);
PLACE(bp_1);
PLACE(bp_2);
PLACE(bp_3);
PLACE(bp_data);
PLACE(bp_after_read);
PLACE(bp_after_write);
PLACE(bp_rmw);
PLACE(bp_after_rmw);
PLACE(bp_locked);
PLACE(bp_after_locked);
PLACE(bp_stack);
PLACE(bp_after_push);
PLACE(bp_string);
PLACE(bp_after_rep);
PLACE(bp_vector);
PLACE(bp_after_vector);
PLACE(bp_port);
PLACE(bp_after_in);
PLACE(bp_after_out);
PLACE(bp_ss);
PLACE(bp_after_ss);
PLACE(bp_gd);
PLACE(bp_dr4);
PLACE(bp_icebp);
PLACE(bp_after_icebp);

static uint64_t call_with(void *code, const void *rdi)
{
    uint64_t rbx = 0;

    clear_hits();
    __asm__ volatile("call *%0"
                     : "+r"(code), "+b"(rbx), "+D"(rdi)
                     :
                     : "rax", "rcx", "rdx", "rsi", "memory", "cc");
    write_dr7(DR7_FIXED);
    return rbx;
}

static void test_code_breakpoints(void)
{
    uint8_t *const places[] = {bp_0, bp_1, bp_2, bp_3};
    uint64_t all = 0, rbx;

    for (unsigned n = 0; n < 4; n++) {
        set_address(n, (uint64_t)places[n]);
        all |= dr7_bits(n, ON_EXEC, 1);
    }
    write_dr7(DR7_FIXED | all);
    rbx = call_with(bp_code, NULL);
    check_value("breakpoints on code: each instruction runs once", rbx, 3);
    check_value("breakpoints on code: four hits", hits, 4);
    for (unsigned n = 0; n < 4; n++) {
        const char digit[2] = {(char)('0' + n), 0};

        check_value(check_name("breakpoints on code: DR6 for ", digit, NULL), hit_dr6[n],
                    DR6_FIXED | 1u << n);
        check_value(check_name("breakpoints on code: RIP for ", digit, NULL), hit_rip[n],
                    (uint64_t)places[n]);
        check_value(check_name("breakpoints on code: RF is saved clear for ", digit, NULL),
                    hit_flags[n] & RFLAGS_RF, 0);
    }
    write_dr7(DR7_FIXED | (all & ~0xffull) | 0x55); /* by the local enable bits */
    call_with(bp_code, NULL);
    check_value("breakpoints on code: enabled locally", hits, 4);
    write_dr7(DR7_FIXED | (all & ~0xffull));
    call_with(bp_code, NULL);
    check_value("breakpoints on code: disabled", hits, 0);
    set_address(0, (uint64_t)bp_2 + 1);
    write_dr7(DR7_FIXED | dr7_bits(0, ON_EXEC, 1));
    call_with(bp_code, NULL);
    check_value("breakpoints on code: not in an instruction's middle", hits, 0);
    set_address(0, 0);
    set_address(1, 0);
    set_address(2, (uint64_t)bp_1);
    set_address(3, (uint64_t)bp_1);
    write_dr7(DR7_FIXED | dr7_bits(2, ON_EXEC, 1) | dr7_bits(3, ON_EXEC, 1));
    call_with(bp_code, NULL);
    check_value("breakpoints on code: two at one place", hits << 8 | (hit_dr6[0] & 15), 1 << 8 | 12);
}

static void check_data(const char *name, unsigned offset, unsigned len, unsigned kind, void *code,
                       unsigned at, const uint8_t *after)
{
    set_address(1, (uint64_t)buffer + offset);
    write_dr7(DR7_FIXED | dr7_bits(1, kind, len));
    call_with(code, (uint8_t *)buffer + at);
    check_value(check_name("breakpoints on data: ", name, NULL), hits, after ? 1 : 0);
    if (after) {
        check_value(check_name("breakpoints on data: ", name, ", DR6", NULL), hit_dr6[0], DR6_FIXED | 2);
        check_value(check_name("breakpoints on data: ", name, ", RIP", NULL), hit_rip[0], (uint64_t)after);
    }
}

static void test_data_breakpoints(void)
{
    check_data("a write", 0, 8, ON_WRITE, bp_data, 0, bp_after_write);
    check_data("a write, one byte of it watched", 5, 1, ON_WRITE, bp_data, 0, bp_after_write);
    check_data("a write, two bytes", 6, 2, ON_WRITE, bp_data, 0, bp_after_write);
    check_data("a write, four bytes", 4, 4, ON_WRITE, bp_data, 0, bp_after_write);
    check_data("a write that overlaps from below", 16, 8, ON_WRITE, bp_data, 9, bp_after_write);
    check_data("a write before it", 16, 8, ON_WRITE, bp_data, 8, NULL);
    check_data("a write behind it", 16, 8, ON_WRITE, bp_data, 24, NULL);
    check_data("a write elsewhere in the page", 64, 8, ON_WRITE, bp_data, 0, NULL);
    check_data("read-modify-write", 0, 8, ON_WRITE, bp_rmw, 0, bp_after_rmw);
    check_data("locked", 0, 8, ON_WRITE, bp_locked, 0, bp_after_locked);
    check_data("a push", 0, 8, ON_WRITE, bp_stack, 0, bp_after_push);
    check_data("16 bytes", 8, 4, ON_WRITE, bp_vector, 0, bp_after_vector);
    set_address(0, (uint64_t)buffer);
    write_dr7(DR7_FIXED | dr7_bits(0, ON_ACCESS, 8));
    call_with(bp_data, buffer);
    check_value("breakpoints on data: an access, read and written", hits, 2);
    check_value("breakpoints on data: an access, after the read", hit_rip[0], (uint64_t)bp_after_read);
    check_value("breakpoints on data: an access, after the write", hit_rip[1], (uint64_t)bp_after_write);
    set_address(0, (uint64_t)buffer + 3);
    write_dr7(DR7_FIXED | dr7_bits(0, ON_WRITE, 1));
    call_with(bp_string, buffer);
    check_value("breakpoints on data: REP STOS, its last byte", hits, 1);
    if (processor_is_tcg())
        check_skip("breakpoints on data: REP STOS, RIP", "TCG has its last iteration begin once more");
    else
        check_value("breakpoints on data: REP STOS, RIP", hit_rip[0], (uint64_t)bp_after_rep);
    buffer[0] = SELECTOR_DATA;
    if (processor_is_tcg()) {
        check_skip("breakpoints on data: MOV SS", "TCG traps right after MOV SS");
    } else {
        set_address(0, (uint64_t)buffer);
        write_dr7(DR7_FIXED | dr7_bits(0, ON_ACCESS, 4));
        call_with(bp_ss, buffer);
        check_value("breakpoints on data: MOV SS holds the trap back", hits, 1);
        check_value("breakpoints on data: MOV SS, RIP", hit_rip[0], (uint64_t)bp_after_ss);
    }
}

static void do_call(void *code)
{
    __asm__ volatile("call *%0" : "+r"(code) : : "rax", "rbx", "memory", "cc");
}
static void write_high_dr7(void *arg)
{
    (void)arg;
    write_dr7(1ull << 32);
}

static void test_general_detect(void)
{
    struct trap_result r;

    write_dr6(DR6_FIXED);
    write_dr7(DR7_FIXED | DR7_GD);
    r = trap_catch(do_call, bp_gd);
    check_trap("DR7.GD", &r, 1, 0);
    check_value("DR7.GD: RIP is the MOV's", r.rip, (uint64_t)bp_gd);
    check_value("DR7.GD: DR6.BD", read_dr6() & 0xffffffff, (DR6_FIXED | DR6_BD));
    check_value("DR7.GD: clear in the handler", read_dr7() & DR7_GD, 0);
}

static void test_registers(void)
{
    uint64_t cr4 = read_cr4();
    struct trap_result r;

    write_cr4(cr4 | CR4_DE);
    set_address(0, 0x71);
    set_address(1, 0x80);
    write_dr7(DR7_FIXED | dr7_bits(0, ON_PORT, 1) | dr7_bits(1, ON_PORT, 1));
    call_with(bp_port, NULL);
    if (processor_is_tcg() && hits == 0) {
        check_skip("breakpoints on ports",
                   "KVM with AMD-V does not look for them where an access leaves the guest");
    } else {
        check_value("breakpoints on ports: two hits", hits, 2);
        check_value("breakpoints on ports: IN", hit_rip[0], (uint64_t)bp_after_in);
        check_value("breakpoints on ports: OUT", hit_rip[1], (uint64_t)bp_after_out);
        check_value("breakpoints on ports: DR6", (hit_dr6[0] & 15) << 4 | (hit_dr6[1] & 15), 0x12);
    }
    trap_set_handler(1, NULL);
    r = trap_catch(do_call, bp_dr4);
    check_trap("DR4 with CR4.DE", &r, 6, 0);
    write_cr4(cr4);
    write_dr6(DR6_FIXED | DR6_BS);
    check_value("DR4 without CR4.DE is DR6", call_with(bp_dr4, NULL), DR6_FIXED | DR6_BS);
    write_dr6(0);
    check_value("DR6: bits that are always set", read_dr6() & ~0xf00full & 0xffffffff, 0xffff0ff0);
    write_dr7(0);
    check_value("DR7: bits that are always set", read_dr7(), DR7_FIXED);

    if (processor_is_tcg())
        check_skip("DR7.GD", "TCG ignores it");
    else
        test_general_detect();

    /* DR6 keeps what is not cleared. */
    write_dr6(DR6_FIXED | 4);
    set_address(0, (uint64_t)bp_0);
    write_dr7(DR7_FIXED | dr7_bits(0, ON_EXEC, 1));
    r = trap_catch(do_call, bp_code);
    write_dr7(DR7_FIXED);
    check_trap("a breakpoint, caught", &r, 1, 0);
    check_value("a breakpoint: DR6 says which", read_dr6() & 1, 1);
    if (processor_is_tcg()) {
        check_skip("DR7's upper half", "TCG takes it");
        check_skip("ICEBP", "TCG stops the machine for a debugger");
    } else {
        r = trap_catch(write_high_dr7, NULL);
        check_trap("DR7's upper half", &r, 13, 0);
        r = trap_catch(do_call, bp_icebp);
        check_trap("ICEBP", &r, 1, 0);
        check_value("ICEBP: RIP", r.rip, (uint64_t)bp_after_icebp);
    }
}

void guest_main(void)
{
    trap_set_handler(1, on_debug);
    write_dr6(DR6_FIXED);
    pic_disable();
    test_steps();
    test_code_breakpoints();
    test_data_breakpoints();
    test_registers();
}
