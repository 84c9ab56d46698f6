/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One trip through the processor's modes: 64-bit, compatibility of 32 and 16 bits, protected with 32-bit
 * paging, with PAE paging and without, protected of 16 bits, real, unreal, and straight back to long mode;
 * and the changes of mode that are refused (SDM vol. 3A 4.1, 5, 9.8, 9.9, 20). Assembly notes what it sees in
 * each mode, C judges it.
 */
#include "common/guest.h"

#define LOW         0x8000ull /* where the 16-bit code is put; its notes are at +0x800 */
#define REAL_IVT    0x9000ull
#define MARKER      0x5eed1234u
#define ALIAS_LARGE 0x80000000u
#define ALIAS_SMALL 0x80400000u

#define CR0_PE   (1ull << 0)
#define CR0_NW   (1ull << 29)
#define CR0_CD   (1ull << 30)
#define CR0_PG   (1ull << 31)
#define CR4_PAE  (1ull << 5)
#define EFER_LME (1ull << 8)
#define MSR_EFER 0xc0000080

/* What assembly shares with C. */
uint32_t notes[32], marker = MARKER, seen_vector, seen_error, recover, marker_large, marker_small, marker_pae;
uint32_t pd32[1024] __attribute__((aligned(4096))), pt32[1024] __attribute__((aligned(4096)));
uint64_t pdpt_pae[4] __attribute__((aligned(4096))), pdpt_bad[4] __attribute__((aligned(4096)));
uint32_t pdpt_other;
uint64_t pd_pae[4][512] __attribute__((aligned(4096)));
uint64_t saved_rsp, saved_cr3, saved_cr4;
uint64_t idt32[256] __attribute__((aligned(16)));
uint8_t stack32[1024] __attribute__((aligned(16)));

__asm__(
    ".macro note n\n movl %eax, notes + 4 * \\n\n .endm\n"
    ".macro note16 n\n movl %eax, 0x800 + 4 * \\n\n .endm\n"
    ".macro efer_bits\n movl $0xc0000080, %ecx\n rdmsr\n andl $0x500, %eax\n .endm\n"
    /* a fault of the instruction is noted by its vector, none as 0 */
    ".macro faults n, insn:vararg\n movl $771f, recover\n movl $0, seen_vector\n \\insn\n"
    "771: movl seen_vector, %eax\n note \\n\n .endm\n"
    ".macro faults16 n, insn:vararg\n movw $772f - modes_low, 0x7fc\n movl $0, 0x7f8\n \\insn\n"
    "772: movl 0x7f8, %eax\n note16 \\n\n .endm\n"

    ".text\n.code64\nmodes_trip:\n"
    "pushq %rbx; pushq %rbp; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
    "movq %rsp, saved_rsp; movq %cr3, %rax; movq %rax, saved_cr3; movq %cr4, %rax; movq %rax, saved_cr4\n"
    "sgdt saved_gdtr; sidt saved_idtr; lgdt modes_gdtr\n"
    "pushq $0x18; leaq 1f(%rip), %rax; pushq %rax; lretq\n"

    /* ---- compatibility mode ---- */
    ".code32\n"
    "1: movl %cs, %eax; note 0\n"
    "movl $0x10, %eax; movl %eax, %ds; movl %eax, %es; movl %eax, %ss; movl $stack32 + 1024, %esp\n"
    "movl $5, %eax; .byte 0x48; note 1\n" /* DEC, or a REX prefix */
    "efer_bits; note 2\n"
    "movl $-4, %ebx; movl marker + 4(%ebx), %eax; note 3\n"
    "pushl $0x77; popl %eax; note 4\n"
    "movl %esp, %eax; subl $stack32, %eax; note 5\n"
    "ljmpl $0x20, $compat16 - modes_low\n"
    "back_compat: movl $0x10, %eax; movl %eax, %ds\n"

    /* ---- paging off leaves long mode ---- */
    "movl %cr0, %eax; andl $0x7fffffff, %eax; movl %eax, %cr0; jmp 1f\n 1: efer_bits; note 6\n"
    "movl $0xc0000080, %ecx; rdmsr; andl $~0x100, %eax; wrmsr; efer_bits; note 7\n"
    "lidt idt32_pointer\n"

    /* ---- 32-bit paging ---- */
    "movl %cr4, %eax; andl $~0x20, %eax; orl $0x10, %eax; movl %eax, %cr4\n"
    "movl $pd32, %eax; movl %eax, %cr3; movl %cr0, %eax; orl $0x80000000, %eax; movl %eax, %cr0; jmp 1f\n"
    "1: movl marker_large, %ebx; movl (%ebx), %eax; note 8\n"
    "movl marker_small, %ebx; movl (%ebx), %eax; note 9\n"
    "movl %eax, (%ebx)\n"
    "faults 10, movl 0x80800123, %eax\n"
    "movl seen_error, %eax; note 11; movl %cr2, %eax; note 12\n"
    "movl %cr0, %eax; andl $0x7fffffff, %eax; movl %eax, %cr0\n"

    /* ---- PAE paging ---- */
    "movl %cr4, %eax; orl $0x20, %eax; movl %eax, %cr4; movl $pdpt_pae, %eax; movl %eax, %cr3\n"
    "movl %cr0, %eax; orl $0x80000000, %eax; movl %eax, %cr0; jmp 1f\n"
    "1: movl marker_pae, %ebx; movl (%ebx), %eax; note 13; efer_bits; note 14\n"
    "movl pdpt_other, %eax\n"
    "faults 15, movl %eax, %cr3\n"
    "movl %cr0, %eax; andl $0x7fffffff, %eax; movl %eax, %cr0; movl %cr4, %eax; andl $~0x20, %eax; movl "
    "%eax, %cr4\n"

    /* ---- protected mode without paging: segments ---- */
    "movl $0x30, %eax; movl %eax, %fs\n"
    "faults 16, movl %fs:0xffc, %eax\n"
    "faults 17, movl %fs:0xffd, %eax\n"
    "movl $0x38, %eax; movl %eax, %fs\n"
    "faults 18, movl %fs:0x1000, %eax\n"
    "faults 19, movl %fs:0xffc, %eax\n"
    "movl %fs:marker, %eax; note 20\n"
    "faults 21, movl %eax, %cs:marker\n" /* code is not writable */
    "movl $0, %eax; movl %eax, %fs\n"
    "faults 22, movl %fs:marker, %eax\n" /* a null segment */
    "int $0x30\n int30_next: movl int30_eip, %eax; subl $int30_next, %eax; note 23\n"
    "movl int30_cs, %eax; note 24\n"
    "movl %cr0, %eax; andl $~1, %eax; lmsw %ax; smsw %eax; andl $1, %eax; note 25\n"
    "ljmpl $0x20, $protected16 - modes_low\n"
    "fault32_gp: movl $13, seen_vector; jmp 1f\n"
    "fault32_pf: movl $14, seen_vector\n"
    "1: popl seen_error; pushl %eax; movl recover, %eax; movl %eax, 4(%esp); popl %eax; iretl\n"
    "fault32_30: pushl %eax; movl 4(%esp), %eax; movl %eax, int30_eip; movl 8(%esp), %eax; movl %eax, "
    "int30_cs\n"
    "popl %eax; iretl\n"

    /* ---- 16 bits, at LOW ---- */
    ".balign 16\nmodes_low:\n.code16\n"
    "compat16: movw $0x28, %ax; movw %ax, %ds; movl %cs, %eax; note16 0\n"
    "xorl %eax, %eax; call 1f\n 1: popw %ax; subw $1b - modes_low, %ax; note16 1\n"
    "movl $0x11112222, %eax; note16 2\n"
    "ljmpl $0x18, $back_compat\n"
    "protected16: movw $0x28, %ax; movw %ax, %ds; movw %ax, %ss; xorl %esp, %esp; pushw $0x5555\n"
    "movzwl %sp, %eax; note16 3\n"
    "movw $0x10, %ax; movw %ax, %es\n" /* flat, for unreal mode */
    "movl %cr0, %eax; andb $0xfe, %al; movl %eax, %cr0; ljmpw $0x800, $real - modes_low\n"

    /* ---- real mode ---- */
    "real: movl %cs, %eax; movw %ax, %ds; movw %ax, %ss; movw $0x780, %sp; note16 4\n"
    "movl $marker, %ebx; movl %es:(%ebx), %eax; note16 5\n"
    "xorw %ax, %ax; movw %ax, %es; movl %es:(%ebx), %eax; note16 6\n" /* the limit stays */
    "lidtl real_idtr - modes_low\n"
    "movl $0x10000, %ebx\n"
    "faults16 7, movb (%ebx), %al\n"
    "movw $0xffff, %bx\n"
    "faults16 8, movw (%bx), %ax\n"
    "xorw %cx, %cx; xorw %dx, %dx; movw $1, %ax\n"
    "faults16 9, divw %cx\n"
    "sti; int $0x21; pushfw; cli; popw %ax; andl $0x200, %eax; note16 10\n"
    "movw 0x7f4, %ax; andl $0x200, %eax; note16 11\n"
    "movw $0x1ff, real_idtr - modes_low; lidtl real_idtr - modes_low\n"
    "faults16 12, int $0x81\n"
    "movw $0xffff, %ax; movw %ax, %fs; movl %fs:0x10, %eax; note16 13\n"
    "smsw %ax; andl $1, %eax; note16 14\n"
    "pushl $0x12345678; popw %ax; popw %bx; shll $16, %eax; movw %bx, %ax; note16 15\n"
    "movw $0x1000, %ax; movw %ax, %gs; movw $0xbeef, %gs:0; movw $0x800, %ax; movw %ax, %gs; movl "
    "%gs:0x8000, %eax\n"
    "movzwl %ax, %eax; note16 16\n"
    /* ---- to long mode in one step ---- */
    "lgdtl low_gdtr - modes_low\n"
    "movl %cr4, %eax; andl $~0x10, %eax; orl $0x20, %eax; movl %eax, %cr4\n"
    "movw $0, %ax; movw %ax, %fs; movl $saved_cr3, %ebx; movl %es:(%ebx), %eax; movl %eax, %cr3\n"
    "movl $0xc0000080, %ecx; rdmsr; orl $0x100, %eax; wrmsr\n"
    "movl %cr0, %eax; orl $0x80000001, %eax; movl %eax, %cr0; ljmpl $0x08, $back_long\n"
    "real_gp: movl $13, 0x7f8; jmp 1f\n real_de: movl $0x100, 0x7f8\n"
    "1: pushw %ax; movw 0x7fc, %ax; pushw %bp; movw %sp, %bp; movw %ax, 4(%bp); popw %bp; popw %ax; iretw\n"
    "real_21: pushw %ax; pushfw; popw %ax; movw %ax, 0x7f4; popw %ax; iretw\n"
    "real_idtr: .word 0x3ff; .long 0x9000\n"
    "low_gdtr: .word 0x3f; .long modes_gdt\n"
    "modes_low_end:\n"

    ".code64\nback_long: movl $0x10, %eax; movl %eax, %ds; movl %eax, %es; movl %eax, %ss; xorl %eax, %eax\n"
    "movl %eax, %fs; movl %eax, %gs; movq saved_rsp, %rsp; lgdt saved_gdtr; lidt saved_idtr\n"
    "movq saved_cr4, %rax; movq %rax, %cr4\n"
    "movl $0xc0000080, %ecx; rdmsr; andl $0x500, %eax; movl %eax, notes + 4 * 26\n"
    "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbp; popq %rbx; ret\n"

    ".data\n.balign 8\n"
    "modes_gdt: .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff, 0x00cf9a000000ffff\n"
    ".quad 0x00009a008000ffff, 0x000092008000ffff\n" /* 16 bits: code and data at LOW */
    ".quad 0x0040920000000fff, 0x0040960000000fff\n" /* up to 0xfff; from 0x1000 up */
    "modes_gdtr: .word 0x3f; .quad modes_gdt\n idt32_pointer: .word 0x7ff; .long idt32\n"
    "saved_gdtr: .word 0; .quad 0\n saved_idtr: .word 0; .quad 0\n"
    "int30_eip: .long 0\n int30_cs: .long 0\n\n"
    ".text\n");

void modes_trip(void);
extern uint8_t modes_low[], modes_low_end[], fault32_gp[], fault32_pf[], fault32_30[], real_gp[], real_de[],
    real_21[];

static void set_gate32(unsigned vector, const uint8_t *handler)
{
    uint64_t at = (uint64_t)handler;

    idt32[vector] = (at & 0xffff) | 0x18ull << 16 | 0x8eull << 40 | (at >> 16 & 0xffff) << 48;
}

static void set_real_vector(unsigned vector, const uint8_t *handler)
{
    volatile uint16_t *entry = (volatile uint16_t *)(REAL_IVT + 4 * vector);

    entry[0] = (uint16_t)(handler - modes_low);
    entry[1] = LOW >> 4;
}

static void prepare(void)
{
    uint64_t at = (uint64_t)&marker;

    for (unsigned n = 0; n < 1024; n++)
        pd32[n] = n < 512 ? n << 22 | 0x83 : 0; /* one to one, 4 MiB each */
    pd32[ALIAS_LARGE >> 22] = 0x83;             /* the first 4 MiB again */
    pd32[ALIAS_SMALL >> 22] = (uint32_t)(uint64_t)pt32 | 3;
    pt32[0] = (uint32_t)(at & ~0xfffull) | 3;
    marker_large = (uint32_t)(ALIAS_LARGE + at);
    marker_small = (uint32_t)(ALIAS_SMALL + (at & 0xfff));
    for (unsigned n = 0; n < 4; n++) {
        pdpt_pae[n] = (uint64_t)pd_pae[n] | 1;
        for (unsigned k = 0; k < 512; k++)
            pd_pae[n][k] = n < 2 ? ((uint64_t)n << 30) + ((uint64_t)k << 21) + 0x83 : 0;
    }
    pd_pae[3][0] = 0x83;
    marker_pae = (uint32_t)(0xc0000000u + at);
    for (unsigned n = 0; n < 4; n++)
        pdpt_bad[n] = pdpt_pae[n] | 2; /* reserved in PAE's top level */
    pdpt_other = (uint32_t)(uint64_t)(processor_is_tcg() ? pdpt_pae : pdpt_bad);
    set_gate32(13, fault32_gp);
    set_gate32(14, fault32_pf);
    set_gate32(0x30, fault32_30);
    for (unsigned n = 0; n < modes_low_end - modes_low; n++)
        ((volatile uint8_t *)LOW)[n] = modes_low[n];
    set_real_vector(0, real_de);
    set_real_vector(13, real_gp);
    set_real_vector(0x21, real_21);
    set_real_vector(0x81, real_21);
}

struct row {
    const char *name;
    unsigned note;
    uint32_t want;
    bool check; /* of a segment or of PAE's pointers, which TCG does not make */
};

static void check_notes(const struct row *rows, unsigned n, const volatile uint32_t *at)
{
    for (; n > 0; n--, rows++)
        if (rows->check && processor_is_tcg())
            check_skip(rows->name, "TCG does not look");
        else
            check_value(rows->name, at[rows->note], rows->want);
}

static void check_trip(void)
{
    const uint64_t at = (uint64_t)&marker;
    const struct row rows[] = {
        {"compatibility mode: CS", 0, 0x18, false},
        {"compatibility mode: 40 to 4F are INC and DEC", 1, 4, false},
        {"compatibility mode: EFER has LME and LMA", 2, 0x500, false},
        {"compatibility mode: addresses wrap at 4 GiB", 3, MARKER, false},
        {"compatibility mode: a push of four bytes", 4, 0x77, false},
        {"compatibility mode: ESP after it", 5, 1024, false},
        {"paging off: LMA goes, LME stays", 6, 0x100, false},
        {"paging off: LME goes", 7, 0, false},
        {"32-bit paging: a page of 4 MiB", 8, MARKER, false},
        {"32-bit paging: a page of 4 KiB", 9, MARKER, false},
        {"32-bit paging: a page fault", 10, 14, false},
        {"32-bit paging: its error code", 11, 0, false},
        {"32-bit paging: its address", 12, 0x80800123, false},
        {"PAE paging: a page of 2 MiB", 13, MARKER, false},
        {"PAE paging: EFER has neither LME nor LMA", 14, 0, false},
        {"PAE paging: reserved bits in its pointers", 15, 13, true},
        {"a segment of 4 KiB: its last bytes", 16, 0, false},
        {"a segment of 4 KiB: one byte beyond", 17, 13, true},
        {"an expand-down segment: above its limit", 18, 0, false},
        {"an expand-down segment: below it", 19, 13, true},
        {"an expand-down segment: data", 20, MARKER, false},
        {"a write to a code segment", 21, 13, true},
        {"a null segment", 22, 13, true},
        {"INT in protected mode: EIP", 23, 0, false},
        {"INT in protected mode: CS", 24, 0x18, false},
        {"LMSW does not leave protected mode", 25, 1, false},
        {"back in long mode: EFER", 26, 0x500, false},
    };
    const struct row low[] = {
        {"compatibility mode of 16 bits: CS", 0, 0x20, false},
        {"compatibility mode of 16 bits: CALL pushes IP", 1, 0, false},
        {"compatibility mode of 16 bits: an operand of 32 bits", 2, 0x11112222, false},
        {"protected mode of 16 bits: SP wraps", 3, 0xfffe, false},
        {"real mode: CS", 4, LOW >> 4, false},
        {"unreal mode: an address above 1 MiB", 5, MARKER, false},
        {"unreal mode: a load of the segment keeps the limit", 6, MARKER, false},
        {"real mode: beyond the limit", 7, 13, true},
        {"real mode: a word at the limit", 8, 13, true},
        {"real mode: #DE", 9, 0x100, false},
        {"real mode: INT and IRET restore IF", 10, 0x200, false},
        {"real mode: INT clears IF", 11, 0, false},
        {"real mode: INT beyond the table's limit", 12, 13, false},
        {"real mode: above 1 MiB by FFFF:0010", 13, *(volatile uint32_t *)0x100000, false},
        {"real mode: PE is clear", 14, 0, false},
        {"real mode: PUSH of 32 bits, POP of 16", 15, 0x56781234, false},
        {"real mode: segments overlap", 16, 0xbeef, false},
    };

    check_notes(rows, sizeof(rows) / sizeof(rows[0]), notes);
    check_notes(low, sizeof(low) / sizeof(low[0]), (volatile uint32_t *)(LOW + 0x800));
    check_value("32-bit paging: accessed and dirty", pt32[0], (uint32_t)(at & ~0xfffull) | 0x63);
    check_value("32-bit paging: a large page that was only read", pd32[ALIAS_LARGE >> 22] & 0xff, 0xa3);
    check_value("protected mode of 16 bits: the push", *(volatile uint16_t *)(LOW + 0xfffe), 0x5555);
}

/* ---- refused changes ---- */

static void set_cr0(void *v)
{
    write_cr0((uint64_t)v);
}
static void set_cr3(void *v)
{
    write_cr3((uint64_t)v);
}
static void set_cr4(void *v)
{
    write_cr4((uint64_t)v);
}
static void set_efer(void *v)
{
    wrmsr(MSR_EFER, (uint64_t)v);
}
static void load_code64_32(void *arg)
{
    (void)arg;
    __asm__ volatile("pushq %0; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1:"
                     :
                     : "i"(SELECTOR_TSS(7))
                     : "rax", "memory");
}

static void check_refused(const char *name, void (*fn)(void *), uint64_t v, const char *tcg)
{
    struct trap_result r;

    if (tcg && processor_is_tcg()) {
        check_skip(check_name("refused: ", name, NULL), tcg);
        return;
    }
    r = trap_catch(fn, (void *)v);
    check_trap(check_name("refused: ", name, NULL), &r, 13, 0);
}

static void test_refused(void)
{
    const uint64_t cr0 = read_cr0(), cr4 = read_cr4(), efer = rdmsr(MSR_EFER);
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) gdtr;

    check_refused("paging off in 64-bit mode", set_cr0, cr0 & ~CR0_PG, "TCG does it");
    check_refused("PG without PE", set_cr0, cr0 & ~CR0_PE, "TCG does it");
    check_refused("NW without CD", set_cr0, cr0 | CR0_NW, "TCG does it");
    check_refused("CR0's upper half", set_cr0, cr0 | 1ull << 32, "TCG does it");
    check_refused("PAE off in long mode", set_cr4, cr4 & ~CR4_PAE, "TCG does it");
    check_refused("reserved bits of CR4", set_cr4, cr4 | 1ull << 31, "TCG does it");
    check_refused("reserved bits of CR3", set_cr3, read_cr3() | 1ull << 60, "TCG does it");
    check_refused("LME off while paging", set_efer, efer & ~EFER_LME, "TCG does it");
    check_refused("reserved bits of EFER", set_efer, efer | 1ull << 5, "TCG does it");
    __asm__ volatile("sgdt %0" : "=m"(gdtr));
    uint64_t *slot = (uint64_t *)gdtr.base + SELECTOR_TSS(7) / 8, old = *slot;
    struct trap_result r;

    if (processor_is_tcg()) { /* and KVM on it can't go on then */
        check_skip("refused: a code segment with L and D", "TCG takes it");
        return;
    }
    *slot = 0x00ef9a000000ffff; /* L and D */
    r = trap_catch(load_code64_32, NULL);
    check_trap("refused: a code segment with L and D", &r, 13, SELECTOR_TSS(7));
    *slot = old;
}

void guest_main(void)
{
    pic_disable();
    prepare();
    modes_trip();
    check_trip();
    if (processor_is_tcg()) {
        check_skip("a second trip",
                   "KVM on TCG's SVM does not come back from it, whoever is its user: QEMU neither");
    } else {
        notes[26] = 0;
        modes_trip(); /* nothing of the first is left behind */
        check_value("a second trip ends as the first", notes[26], 0x500);
    }
    test_refused();
}
