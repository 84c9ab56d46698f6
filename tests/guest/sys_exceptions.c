/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How exceptions are raised and delivered: vectors, error codes and saved RIP, gates and their faults, stacks
 * (IST, RSP0, alignment), double faults by table 6-5, faults within handlers, and a triple fault that
 * restarts the machine (SDM vol. 3A chapter 6). Debug exceptions are sys_debug's, those of paging
 * sys_paging's.
 */
#include "common/guest.h"

#define VA_USER       (PAGE_FREE_VIRTUAL + 0x1000) /* a page of user code, then one of user stack */
#define VA_UNMAPPED   (PAGE_FREE_VIRTUAL + 0x100000)
#define NON_CANONICAL 0x0000800000000000ull

#define RFLAGS_IF (1u << 9)
#define RFLAGS_NT (1u << 14)
#define RFLAGS_RF (1u << 16)

#define CMOS_BYTE  0x53
#define SECOND_RUN 0x5e

struct table_pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, attr;
    uint16_t offset_mid;
    uint32_t offset_high, reserved;
};
#define GATE_PRESENT 0x80
#define GATE_TRAP    0x01 /* on top of an interrupt gate's type */

static struct gate *idt;
static uint64_t *gdt;
static uint8_t *tss;
/* TCG never sets the EXT bit of an error code. */
static unsigned ext = 1;
/* An error code names a gate by its number times 8, whatever its size. TCG has it times 16. */
static unsigned gate_scale = 8;

static void find_tables(void)
{
    struct table_pointer pointer;
    uint64_t low, high;

    __asm__ volatile("sidt %0" : "=m"(pointer));
    idt = (struct gate *)pointer.base;
    __asm__ volatile("sgdt %0" : "=m"(pointer));
    gdt = (uint64_t *)pointer.base;
    low = gdt[SELECTOR_TSS(0) / 8];
    high = gdt[SELECTOR_TSS(0) / 8 + 1];
    tss = (uint8_t *)((low >> 16 & 0xffffff) | (low >> 32 & 0xff000000) | high << 32);
}

static uint64_t *tss_rsp0(void)
{
    return (uint64_t *)(tss + 4);
}
static uint64_t *tss_ist(unsigned n)
{
    return (uint64_t *)(tss + 0x24 + 8 * (n - 1));
}

/* --- what raises what --------------------------------------------------------------------------------- */

/* Each is called as a function, faults at its label or is left by a trap just after it. */
__asm__(".text\n"
        "raise_de: xorl %ecx, %ecx; at_de: divl %ecx; ret\n"
        "raise_de_overflow: movl $5, %edx; movl $5, %ecx; at_de_overflow: divl %ecx; ret\n"
        "raise_idiv: movl $1<<31, %eax; cltd; movl $-1, %ecx; at_idiv: idivl %ecx; ret\n"
        "raise_bp: int3; at_bp: ret\n"
        "raise_int3: .byte 0xcd, 3; at_int3: ret\n"
        "raise_of: int $4; at_of: ret\n"
        "raise_int: int $0x77; at_int: ret\n"
        "raise_ud: ud2; ret\n"
        "raise_into: .byte 0xce; ret\n"
        "raise_lock: .byte 0xf0, 0x89, 0xc0; ret\n" /* lock mov %eax, %eax */
        "raise_lock_load: .byte 0xf0, 0x03, 0x07; ret\n"
        "raise_vex_lock: .byte 0xf0, 0xc5, 0xf8, 0x57, 0xc0; ret\n"
        "raise_long: .fill 15, 1, 0x66; nop; ret\n"
        "raise_gp_read: movabsq $0x800000000000, %rax; at_gp_read: movb (%rax), %al; ret\n"
        "raise_ss_read: movabsq $0x800000000000, %rax; pushq %rbp; movq %rax, %rbp; at_ss_read: movb (%rbp), "
        "%al\n"
        "raise_ss_push: movabsq $0x800000000010, %rax; movq %rax, %rsp; at_ss_push: pushq %rax\n"
        "raise_gp_cr8: movl $16, %eax; at_gp_cr8: movq %rax, %cr8; ret\n"
        "raise_gp_msr: movl $0x12345678, %ecx; at_gp_msr: rdmsr; ret\n"
        "raise_gp_wrmsr: movl $0xc0000100, %ecx; movl $0x8000, %edx; at_gp_wrmsr: wrmsr; ret\n"
        "raise_gp_ltr: movl $0x10, %eax; at_gp_ltr: ltr %ax; ret\n"
        "raise_gp_null_ss: movl $3, %eax; at_gp_null_ss: movl %eax, %ss; ret\n");

#define PLACE(name) extern uint8_t name[]
PLACE(raise_de);
PLACE(raise_de_overflow);
PLACE(raise_idiv);
PLACE(raise_bp);
PLACE(raise_int3);
PLACE(raise_of);
PLACE(raise_int);
PLACE(raise_ud);
PLACE(raise_into);
PLACE(raise_lock);
PLACE(raise_lock_load);
PLACE(raise_vex_lock);
PLACE(raise_long);
PLACE(raise_gp_read);
PLACE(raise_ss_read);
PLACE(raise_ss_push);
PLACE(raise_gp_cr8);
PLACE(raise_gp_msr);
PLACE(raise_gp_wrmsr);
PLACE(raise_gp_ltr);
PLACE(raise_gp_null_ss);
PLACE(at_de);
PLACE(at_de_overflow);
PLACE(at_idiv);
PLACE(at_bp);
PLACE(at_int3);
PLACE(at_of);
PLACE(at_int);
PLACE(at_gp_read);
PLACE(at_ss_read);
PLACE(at_ss_push);
PLACE(at_gp_cr8);
PLACE(at_gp_msr);
PLACE(at_gp_wrmsr);
PLACE(at_gp_ltr);
PLACE(at_gp_null_ss);

static void call(void *code)
{
    __asm__ volatile("call *%0" : "+r"(code) : : "rax", "rcx", "rdx", "rbp", "memory", "cc");
}

static void test_vectors(void)
{
    static const struct {
        const char *name;
        uint8_t *code, *rip;
        int vector;
        unsigned error;
        const char *tcg; /* why not there */
    } rows[] = {
        {"#DE of DIV by zero", raise_de, at_de, 0, 0, NULL},
        {"#DE of a quotient too large", raise_de_overflow, at_de_overflow, 0, 0, NULL},
        {"#DE of IDIV at the edge", raise_idiv, at_idiv, 0, 0, NULL},
        {"#BP of INT3", raise_bp, at_bp, 3, 0, NULL},
        {"INT 3 in two bytes", raise_int3, at_int3, 3, 0, NULL},
        {"INT 4", raise_of, at_of, 4, 0, NULL},
        {"INT 0x77", raise_int, at_int, 0x77, 0, NULL},
        {"#UD of UD2", raise_ud, raise_ud, 6, 0, NULL},
        {"#UD of INTO in 64-bit mode", raise_into, raise_into, 6, 0, NULL},
        {"#UD of LOCK on registers", raise_lock, raise_lock, 6, 0, "TCG carries it out"},
        {"#UD of LOCK on a load", raise_lock_load, raise_lock_load, 6, 0, NULL},
        {"#UD of LOCK before VEX", raise_vex_lock, raise_vex_lock, 6, 0, NULL},
        {"#GP of 16 bytes of instruction", raise_long, raise_long, 13, 0, NULL},
        {"#GP of a non-canonical address", raise_gp_read, at_gp_read, 13, 0, NULL},
        {"#SS of a non-canonical address by RBP", raise_ss_read, at_ss_read, 12, 0, "TCG raises #GP"},
        {"#SS of a non-canonical push", raise_ss_push, at_ss_push, 12, 0, "TCG raises #GP"},
        {"#GP of CR8 above 15", raise_gp_cr8, at_gp_cr8, 13, 0, "TCG takes any value"},
        {"#GP of an unknown MSR", raise_gp_msr, at_gp_msr, 13, 0, "TCG takes any MSR"},
        {"#GP of a non-canonical FS base", raise_gp_wrmsr, at_gp_wrmsr, 13, 0, "TCG takes any value"},
        {"#GP of LTR with a data segment", raise_gp_ltr, at_gp_ltr, 13, 0x10, NULL},
        {"#GP of a null SS with the wrong RPL", raise_gp_null_ss, at_gp_null_ss, 13, 0, "TCG takes it"},
    };

    /* For the faults whose own stack pointer is no place for a frame. */
    trap_set_gate(8, 1, 0);
    trap_set_gate(12, 1, 0);
    trap_set_gate(13, 1, 0);
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct trap_result r;

        if (rows[i].tcg && processor_is_tcg()) {
            check_skip(rows[i].name, rows[i].tcg);
            continue;
        }
        r = trap_catch(call, rows[i].code);
        check_trap(rows[i].name, &r, rows[i].vector, rows[i].error);
        check_value(check_name(rows[i].name, ", saved RIP", NULL), r.rip, (uint64_t)rows[i].rip);
    }
    trap_set_gate(8, 0, 0);
    trap_set_gate(12, 0, 0);
    trap_set_gate(13, 0, 0);
}

/* --- descriptors -------------------------------------------------------------------------------------- */

static void load_fs(void *selector)
{
    __asm__ volatile("movl %0, %%fs" : : "r"((uint32_t)(uint64_t)selector) : "memory");
}
static void load_ss(void *selector)
{
    __asm__ volatile("movl %0, %%ss" : : "r"((uint32_t)(uint64_t)selector) : "memory");
}

/* A spare slot: the last CPU's task state segment, which is not running. */
#define SELECTOR_SPARE SELECTOR_TSS(GUEST_MAX_CPUS - 1)

static void check_load(const char *name, void (*load)(void *), uint64_t descriptor, unsigned selector,
                       int vector, unsigned error)
{
    uint64_t old = gdt[SELECTOR_SPARE / 8];
    struct trap_result r;

    gdt[SELECTOR_SPARE / 8] = descriptor;
    r = trap_catch(load, (void *)(uint64_t)selector);
    check_trap(name, &r, vector, error);
    gdt[SELECTOR_SPARE / 8] = old;
    __asm__ volatile("movl %0, %%ss; movl %1, %%fs" : : "r"(SELECTOR_DATA), "r"(0));
}

static void test_descriptors(void)
{
    const uint64_t data = 0x00cf92000000ffff, present = 1ull << 47, accessed = 1ull << 40;

    __asm__ volatile("lldt %w0" : : "r"(0)); /* after a reset there is one */
    check_load("load FS: data", load_fs, data, SELECTOR_SPARE, -1, 0);
    check_load("load FS: RPL does not matter below DPL 3", load_fs, data | 3ull << 45, SELECTOR_SPARE | 3, -1,
               0);
    check_load("load FS: RPL above DPL", load_fs, data, SELECTOR_SPARE | 3, 13, SELECTOR_SPARE);
    check_load("load FS: not present", load_fs, data & ~present, SELECTOR_SPARE, 11, SELECTOR_SPARE);
    check_load("load FS: readable code", load_fs, 0x00af9a000000ffff, SELECTOR_SPARE, -1, 0);
    check_load("load FS: execute-only code", load_fs, 0x00af98000000ffff, SELECTOR_SPARE, 13, SELECTOR_SPARE);
    check_load("load FS: a system descriptor", load_fs, 0x0000890000000067, SELECTOR_SPARE, 13,
               SELECTOR_SPARE);
    check_load("load FS: past the table", load_fs, data, 0x1238, 13, 0x1238);
    check_load("load FS: no LDT", load_fs, data, 0x0c, 13, 0x0c);
    check_load("load FS: null", load_fs, data, 3, -1, 0);
    check_load("load SS: data", load_ss, data, SELECTOR_SPARE, -1, 0);
    check_load("load SS: null in ring 0", load_ss, data, 0, -1, 0);
    check_load("load SS: read-only", load_ss, data & ~(2ull << 40), SELECTOR_SPARE, 13, SELECTOR_SPARE);
    check_load("load SS: of ring 3", load_ss, data | 3ull << 45, SELECTOR_SPARE | 3, 13, SELECTOR_SPARE);
    check_load("load SS: not present", load_ss, data & ~present, SELECTOR_SPARE, 12, SELECTOR_SPARE);
    gdt[SELECTOR_SPARE / 8] = data;
    load_fs((void *)(uint64_t)SELECTOR_SPARE);
    check_value("load FS: marks the descriptor", gdt[SELECTOR_SPARE / 8], data | accessed);
    load_fs(NULL);
    gdt[SELECTOR_SPARE / 8] = 0;
}

/* --- gates -------------------------------------------------------------------------------------------- */

static void int_66(void *arg)
{
    (void)arg;
    __asm__ volatile("int $0x66" : : : "memory");
}
static void int_66_trapped(void *arg)
{
    (void)arg;
    __asm__ volatile("sti; int $0x66; cli" : : : "memory");
}

static uint64_t seen_frame, seen_flags, seen_pushed_rsp, seen_ss, seen_count, seen_pushed_flags;

/* Notes where it was called and with what, and returns. */
static void note(struct trap_frame *frame)
{
    seen_frame = (uint64_t)(frame + 1);
    seen_flags = read_rflags();
    seen_pushed_rsp = frame->rsp;
    seen_pushed_flags = frame->rflags;
    __asm__ volatile("movq %%ss, %0" : "=r"(seen_ss));
    seen_count++;
}

enum obstacle { ABSENT_GATE, ABSENT_STACK };

/* `first` is raised while its own delivery meets an obstacle. */
static struct trap_result collide(void (*fault)(void *), unsigned first, enum obstacle obstacle)
{
    struct trap_result r;
    uint64_t ist = *tss_ist(7);

    if (obstacle == ABSENT_GATE) {
        idt[first].attr &= (uint8_t)~GATE_PRESENT;
    } else {
        trap_set_gate(first, 7, 0);
        *tss_ist(7) = VA_UNMAPPED + 0x4800;
    }
    trap_set_gate(8, 1, 0);
    r = trap_catch(fault, NULL);
    trap_set_gate(8, 0, 0);
    trap_set_gate(first, 0, 0);
    *tss_ist(7) = ist;
    return r;
}

static void check_gate(const char *name, struct gate g, int vector, unsigned error)
{
    struct gate old = idt[0x66];
    struct trap_result r;

    idt[0x66] = g;
    r = trap_catch(int_66, NULL);
    check_trap(check_name("gate: ", name, NULL), &r, vector, error);
    idt[0x66] = old;
}

static void test_gates(void)
{
    const struct gate good = idt[0x66];
    struct table_pointer idtr = {0x66 * 16 + 14, (uint64_t)idt};
    struct trap_result r;
    struct gate g = good;

    check_gate("good", g, 0x66, 0);
    if (gate_scale == 8)
        check_value("the gate's number in the error code", collide(int_66, 0x66, ABSENT_GATE).error >> 3,
                    0x66);
    else
        check_skip("the gate's number in the error code", "TCG shifts it by one more; the rest is compared");
    g.attr &= (uint8_t)~GATE_PRESENT;
    check_gate("not present", g, 11, 0x66 * gate_scale + 2);
    g = good;
    g.attr = 0x82;
    check_gate("an LDT", g, 13, 0x66 * gate_scale + 2);
    g.attr = 0x85;
    check_gate("a task gate", g, 13, 0x66 * gate_scale + 2);
    g = good;
    g.selector = 0;
    check_gate("null selector", g, 13, 0);
    g.selector = SELECTOR_DATA;
    check_gate("a data segment", g, 13, SELECTOR_DATA);
    g.selector = SELECTOR_CODE32;
    check_gate("32-bit code", g, 13, SELECTOR_CODE32);
    g.selector = SELECTOR_USER_CODE64;
    check_gate("code of ring 3", g, 13, SELECTOR_USER_CODE64 & ~3);
    g.selector = 0xff8;
    check_gate("selector past the table", g, 13, 0xff8);
    __asm__ volatile("lidt %0" : : "m"(idtr));
    r = trap_catch(int_66, NULL);
    idtr.limit = 4095;
    __asm__ volatile("lidt %0" : : "m"(idtr));
    check_trap("gate: past the IDT", &r, 13, 0x66 * gate_scale + 2);

    trap_set_handler(0x66, note);
    int_66_trapped(NULL);
    check_value("interrupt gate: IF is off in the handler", seen_flags & RFLAGS_IF, 0);
    check_value("interrupt gate: IF is saved", seen_pushed_flags & RFLAGS_IF, RFLAGS_IF);
    idt[0x66].attr |= GATE_TRAP;
    int_66_trapped(NULL);
    check_value("trap gate: IF stays", seen_flags & RFLAGS_IF, RFLAGS_IF);
    idt[0x66] = good;
}

/* --- stacks ------------------------------------------------------------------------------------------- */

static void test_stacks(void)
{
    static const uint8_t user_code[] = {0xcd, 0x66, 0xcc}; /* int $0x66; int3 */
    uint8_t *code = page_alloc();
    uint64_t rsp, ss;
    struct trap_result r;

    for (unsigned i = 0; i < sizeof(user_code); i++)
        code[i] = user_code[i];
    page_map(VA_USER, (uint64_t)code, PAGE_PRESENT | PAGE_USER);
    page_map(VA_USER + 4096, (uint64_t)page_alloc(), PAGE_PRESENT | PAGE_USER | PAGE_WRITABLE);

    /* With a stack pointer that is off by 8, 9 and 15: the frame is aligned, the old value is restored. */
    for (unsigned off = 0; off < 16; off++) {
        __asm__ volatile(
            "movq %%rsp, %%rbx; andq $-16, %%rsp; subq $128, %%rsp; subq %2, %%rsp; movq %%rsp, %0\n"
            "int $0x66; movq %%rsp, %1; movq %%rbx, %%rsp"
            : "=&r"(rsp), "=&r"(ss)
            : "r"((uint64_t)off)
            : "rbx", "memory");
        if ((rsp & ~15ull) != seen_frame || seen_pushed_rsp != rsp || ss != rsp)
            break;
        rsp = 0;
    }
    check_value("stack: aligned by the delivery, restored by IRET", rsp, 0);
    trap_set_gate(0x66, 3, 0);
    int_66(NULL);
    check_value("stack: IST 3", seen_frame, *tss_ist(3));
    trap_set_gate(0x66, 7, 0);
    *tss_ist(7) -= 0x108;
    int_66(NULL);
    check_value("stack: IST 7, aligned down", seen_frame, *tss_ist(7) & ~15ull);
    *tss_ist(7) += 0x108;
    trap_set_gate(0x66, 0, 3);
    trap_set_gate(3, 0, 3);
    r = trap_catch_user(VA_USER, VA_USER + 8192, 0);
    check_trap("ring 3: INT through a gate of DPL 3", &r, 3, 0);
    check_value("ring 3: the frame is on RSP0's stack", seen_frame, *tss_rsp0() & ~15ull);
    check_value("ring 3: SS is null in the handler", seen_ss, 0);
    check_value("ring 3: RSP is saved", seen_pushed_rsp, VA_USER + 8192);
    trap_set_gate(0x66, 2, 3);
    r = trap_catch_user(VA_USER, VA_USER + 8192, 0);
    check_value("ring 3: IST comes before RSP0", seen_frame, *tss_ist(2));
    trap_set_gate(0x66, 0, 0);
    r = trap_catch_user(VA_USER, VA_USER + 8192, 0);
    check_trap("ring 3: INT through a gate of DPL 0", &r, 13, 0x66 * gate_scale + 2);
    check_value("ring 3: such an INT has not happened", r.rip, VA_USER);
    trap_set_gate(3, 0, 0);
    r = trap_catch_user(VA_USER + 2, VA_USER + 8192, 0);
    check_trap("ring 3: INT3 through a gate of DPL 0", &r, 13, 3 * gate_scale + 2);

    /* A task state segment that ends behind IST 1, which the fault itself comes by. */
    uint64_t old = gdt[SELECTOR_TSS(0) / 8];

    trap_set_gate(0x66, 7, 3);
    trap_set_gate(10, 1, 0);
    gdt[SELECTOR_TSS(0) / 8] = (old & ~0xffffull & ~(2ull << 40)) | (0x24 + 7);
    __asm__ volatile("ltr %w0" : : "r"(SELECTOR_TSS(0)));
    r = trap_catch_user(VA_USER, VA_USER + 8192, 0);
    gdt[SELECTOR_TSS(0) / 8] = old & ~(2ull << 40);
    __asm__ volatile("ltr %w0" : : "r"(SELECTOR_TSS(0)));
    check_trap("ring 3: an IST beyond the TSS", &r, 10, SELECTOR_TSS(0));
    trap_set_gate(0x66, 0, 0);
    trap_set_gate(10, 0, 0);
}

/* --- IRET --------------------------------------------------------------------------------------------- */

static void do_iret(void *arg)
{
    const uint64_t *f = arg;

    __asm__ volatile("movq %%rsp, %%rbx; pushq 32(%0); pushq 24(%0); pushq 16(%0); pushq 8(%0); pushq (%0)\n"
                     "pushfq; orq %1, (%%rsp); popfq; iretq"
                     :
                     : "r"(f), "r"(f[5])
                     : "rbx", "memory");
}

static void test_iret(void)
{
    const uint64_t here = (uint64_t)raise_bp;
    static const struct {
        const char *name;
        uint64_t rip, cs, ss, nt;
        int vector;
        unsigned error;
    } rows[] = {
        {"to ring 0", 1, SELECTOR_CODE64, SELECTOR_DATA, 0, 3, 0},
        {"to ring 0 with a null SS", 1, SELECTOR_CODE64, 0, 0, 3, 0},
        {"with NT set", 1, SELECTOR_CODE64, SELECTOR_DATA, RFLAGS_NT, 13, 0},
        {"to a null CS", 1, 0, SELECTOR_DATA, 0, 13, 0},
        {"to a data segment", 1, SELECTOR_DATA, SELECTOR_DATA, 0, 13, SELECTOR_DATA},
        {"to a CS past the table", 1, 0x4560, SELECTOR_DATA, 0, 13, 0x4560},
        {"with an RPL unlike the DPL", 1, SELECTOR_CODE64 | 3, SELECTOR_USER_DATA, 0, 13, SELECTOR_CODE64},
        {"to ring 3 with a null SS", 1, SELECTOR_USER_CODE32, 3, 0, 13, 0},
        {"to ring 3 with ring 0's SS", 1, SELECTOR_USER_CODE64, SELECTOR_DATA, 0, 13, SELECTOR_DATA},
        {"with an SS that is code", 1, SELECTOR_CODE64, SELECTOR_CODE64, 0, 13, SELECTOR_CODE64},
        {"to a non-canonical address", NON_CANONICAL, SELECTOR_CODE64, SELECTOR_DATA, 0, 13, 0},
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t frame[6] = {rows[i].rip == 1 ? here : rows[i].rip, rows[i].cs, 2,
                             (uint64_t)page_alloc() + 4096,         rows[i].ss, rows[i].nt};
        struct trap_result r = trap_catch(do_iret, frame);

        check_trap(check_name("IRET ", rows[i].name, NULL), &r, rows[i].vector, rows[i].error);
        if (rows[i].rip == 1 && rows[i].vector != 3)
            check_value(check_name("IRET ", rows[i].name, ", is itself at fault", NULL),
                        *(const uint16_t *)r.rip, 0xcf48);
    }
}

/* --- faults in deliveries and in handlers ------------------------------------------------------------- */

static void fault_ud(void *arg)
{
    (void)arg;
    __asm__ volatile("ud2");
}
static void fault_de(void *arg)
{
    (void)arg;
    call(raise_de);
}
static void fault_pf(void *arg)
{
    (void)arg;
    __asm__ volatile("movb %0, %%al" : : "m"(*(const uint8_t *)VA_UNMAPPED) : "al");
}
static void fault_gp(void *arg)
{
    (void)arg;
    call(raise_gp_read);
}
static void push_to_nowhere(void *arg)
{
    __asm__ volatile("movq %%rsp, %%rbx; movq %0, %%rsp; pushq %0; movq %%rbx, %%rsp"
                     :
                     : "r"(arg)
                     : "rbx", "memory");
}

static unsigned in_handler;

static void handler_that_faults(struct trap_frame *frame)
{
    uint64_t before = read_cr2();

    in_handler++;
    if (frame->vector == 6) {
        __asm__ volatile("int $0x66; divl %0" : : "r"(0), "a"(1), "d"(0) : "cc", "memory");
        frame->rip += 2;
    } else {
        frame->rip += 2; /* div %r32 */
    }
    if (read_cr2() != before)
        in_handler += 100;
}

static void test_nesting(void)
{
    struct trap_result r;

    if (!ext)
        check_skip("EXT", "TCG never sets this bit of the error code; the rest of it is compared");
    else
        check_value("EXT", collide(fault_ud, 6, ABSENT_GATE).error & 1, 1);
    r = collide(fault_ud, 6, ABSENT_GATE);
    check_trap("#UD, then #NP: served one after the other", &r, 11, 6 * gate_scale + 2 + ext);
    r = collide(fault_de, 0, ABSENT_GATE);
    check_trap("#DE, then #NP: double", &r, 8, 0);
    r = collide(fault_gp, 13, ABSENT_GATE);
    check_trap("#GP, then #NP: double", &r, 8, 0);
    r = collide(fault_pf, 14, ABSENT_GATE);
    check_trap("#PF, then #NP: double", &r, 8, 0);
    check_value("#PF, then #NP: CR2", r.cr2, VA_UNMAPPED);
    r = collide(fault_de, 0, ABSENT_STACK);
    check_trap("#DE, then #PF: served one after the other", &r, 14, 2);
    check_value("#DE, then #PF: CR2 is on the stack", r.cr2 & ~4095ull, VA_UNMAPPED + 0x4000);
    r = collide(fault_ud, 6, ABSENT_STACK);
    check_trap("#UD, then #PF: served one after the other", &r, 14, 2);
    r = collide(fault_pf, 14, ABSENT_STACK);
    check_trap("#PF, then #PF: double", &r, 8, 0);
    check_value("#PF, then #PF: CR2 is the second's", r.cr2 & ~4095ull, VA_UNMAPPED + 0x4000);
    r = collide(int_66, 0x66, ABSENT_STACK);
    check_trap("INT, then #PF", &r, 14, 2);
    trap_set_gate(8, 1, 0);
    r = trap_catch(push_to_nowhere, (void *)(VA_UNMAPPED + 0x800));
    trap_set_gate(8, 0, 0);
    check_trap("a push to an absent stack: double", &r, 8, 0);

    seen_count = 0;
    trap_set_handler(6, handler_that_faults);
    trap_set_handler(0, handler_that_faults);
    fault_ud(NULL);
    check_value("a handler that faults: both were called", in_handler, 2);
    check_value("a handler that faults: INT inside", seen_count, 1);
    trap_set_handler(6, NULL);
    trap_set_handler(0, NULL);
}

static void test_saved_flags(void)
{
    struct trap_result r = trap_catch(fault_ud, NULL);

    if (processor_is_tcg()) {
        check_skip("a fault saves RF set", "TCG leaves it clear");
    } else {
        check_value("a fault saves RF set", r.rflags & RFLAGS_RF, RFLAGS_RF);
    }
    trap_set_handler(0x66, NULL);
    r = trap_catch(int_66, NULL);
    check_value("a software interrupt saves RF clear", r.rflags & RFLAGS_RF, 0);
    trap_set_handler(0x66, note);
    __asm__ volatile("pushfq; orq %0, (%%rsp); popfq; int $0x66; pushfq; andq %1, (%%rsp); popfq"
                     :
                     : "i"(RFLAGS_NT), "i"(~RFLAGS_NT)
                     : "memory", "cc");
    check_value("NT is saved", seen_pushed_flags & RFLAGS_NT, RFLAGS_NT);
    check_value("NT is clear in a handler", seen_flags & RFLAGS_NT, 0);
}

/* --- the end ------------------------------------------------------------------------------------------ */

static void cmos_write(uint8_t value)
{
    outb(0x70, CMOS_BYTE);
    outb(0x71, value);
}

static uint8_t cmos_read(void)
{
    outb(0x70, CMOS_BYTE);
    return inb(0x71);
}

/* Any fault whose #DF can't be delivered either. The CMOS memory tells the second run from the first. */
static void triple_fault(void)
{
    cmos_write(SECOND_RUN);
    idt[8].attr = 0;
    idt[14].attr = 0;
    fault_pf(NULL);
}

void guest_main(void)
{
    if (cmos_read() == SECOND_RUN) {
        cmos_write(0);
        check_value("a triple fault restarts the machine", 1, 1);
        return;
    }
    pic_disable();
    find_tables();
    if (processor_is_tcg()) {
        ext = 0;
        gate_scale = 16;
    }
    test_vectors();
    test_descriptors();
    test_gates();
    test_stacks();
    test_iret();
    test_nesting();
    test_saved_flags();
    if (check_failures() == 0)
        triple_fault();
}
