/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The soft side: a processor of the soft engine in ring 3 of a small guest whose tables are as Linux has
 * them, so that selectors and gates mean on it what they mean on the host. Called by the test's working
 * thread.
 */
#include "diff.h"

#include "base/bytes.h"
#include "base/error.h"
#include "engine/soft/soft.h"

#include <errno.h>
#include <string.h>

/* Guest-physical, below the data. */
#define TABLES_GPA 0x1000ull /* page tables, from the top level down */
#define TABLES_END 0x40000ull
#define GDT_GPA    0x40000ull
#define IDT_GPA    0x41000ull
#define TSS_GPA    0x42000ull
#define STACK_GPA  0x43000ull
/* Guest-virtual, for the kernel only. */
#define GDT_VA   (DIFF_KERNEL + 0x0000)
#define IDT_VA   (DIFF_KERNEL + 0x1000)
#define TSS_VA   (DIFF_KERNEL + 0x2000)
#define STACK_VA (DIFF_KERNEL + 0x3000)
/* Entry of vector n: nothing is there. */
#define HANDLER_VA (DIFF_KERNEL + 0x100000)

#define PTE_P (1ull << 0)
#define PTE_W (1ull << 1)
#define PTE_U (1ull << 2)
#define PTE_X (1ull << 63)

#define GDT_ENTRIES 16

/* Linux's per-CPU table: arch/x86/include/asm/segment.h. The accessed bits are set, TLS is empty. */
static uint64_t gdt[GDT_ENTRIES] = {
    [1] = 0x00cf9b000000ffff, /* 32-bit kernel code */
    [2] = 0x00af9b000000ffff, /* 64-bit kernel code */
    [3] = 0x00cf93000000ffff, /* kernel data */
    [4] = 0x00cffb000000ffff, /* 0x23: 32-bit user code */
    [5] = 0x00cff3000000ffff, /* 0x2b: user data */
    [6] = 0x00affb000000ffff, /* 0x33: 64-bit user code */
};
#define GDT_CPU 15 /* its limit tells the CPU and the node */

static struct soft *soft;
static struct soft_vcpu *vcpu;
static struct diff_memory *memory;
static uint64_t next_table = TABLES_GPA + DIFF_PAGE;

static int map_page(uint64_t va, uint64_t gpa, uint64_t flags)
{
    uint64_t table = TABLES_GPA;

    for (unsigned level = 4;; level--) {
        uint8_t *entry = guest_memory_at(memory->ram, table + 8 * (va >> (12 + 9 * (level - 1)) & 511), 8);

        if (level == 1) {
            put_le64(entry, gpa | flags);
            return 0;
        }
        if (!(get_le64(entry) & PTE_P)) {
            if (next_table == TABLES_END)
                return -ENOMEM;
            put_le64(entry, next_table | PTE_P | PTE_W | PTE_U);
            next_table += DIFF_PAGE;
        }
        table = get_le64(entry) & ~(DIFF_PAGE - 1);
    }
}

static int map_window(uint64_t base)
{
    int rc = 0;

    for (uint64_t page = 0; !rc && page < 8; page++) {
        int n = diff_data_page(page);
        uint64_t flags = PTE_P | PTE_U | PTE_X | (n < DIFF_RW_PAGES ? PTE_W : 0);

        if (n >= 0)
            rc = map_page(base + page * DIFF_PAGE, memory->data_gpa + (uint64_t)n * DIFF_PAGE, flags);
    }
    for (uint64_t g = 0; g < DIFF_GROUPS; g++)
        for (uint64_t page = 0; !rc && page < 3; page++)
            rc = map_page(base + DIFF_CODE + g * DIFF_GROUP + page * DIFF_PAGE,
                          memory->code_gpa + g * DIFF_GROUP_CODE + page * DIFF_PAGE, PTE_P | PTE_U);
    return rc;
}

/* Gates as Linux sets them: user code may raise 3 and 4 itself (and 0x80, which is not tried). */
static void make_idt(uint8_t *idt)
{
    for (unsigned v = 0; v < 256; v++) {
        uint64_t at = HANDLER_VA + 16 * v;
        uint64_t dpl = v == 3 || v == 4 || v == 0x80 ? 3 : 0;

        put_le64(idt + 16 * v,
                 (at & 0xffff) | 0x10ull << 16 | (0x8e | dpl << 5) << 40 | (at >> 16 & 0xffff) << 48);
        put_le64(idt + 16 * v + 8, at >> 32);
    }
}

static int make_tables(void)
{
    uint8_t *tss = guest_memory_at(memory->ram, TSS_GPA, DIFF_PAGE);
    uint8_t *table = guest_memory_at(memory->ram, GDT_GPA, DIFF_PAGE);
    uint64_t limit = 0;
    int rc = 0;

    static const uint64_t pages[] = {GDT_GPA, IDT_GPA, TSS_GPA, STACK_GPA};
    for (uint64_t n = 0; !rc && n < 4; n++)
        rc = map_page(DIFF_KERNEL + n * DIFF_PAGE, pages[n], PTE_P | PTE_W);
    /* The 64-bit TSS has its kernel stack and no I/O permissions. */
    put_le64(tss + 4, STACK_VA + DIFF_PAGE);
    put_le16(tss + 102, 104);
    gdt[8] = 103 | (TSS_VA & 0xffffff) << 16 | 0x8bull << 40 | (TSS_VA >> 24 & 0xff) << 56;
    gdt[9] = TSS_VA >> 32;
    /* As the host's own answers, for LSL. */
    __asm__("lsl %1, %0" : "+r"(limit) : "r"(8ull * GDT_CPU + 3) : "cc");
    gdt[GDT_CPU] = (limit & 0xffff) | 0xf5ull << 40 | (limit >> 16 & 0xf) << 48 | 1ull << 54;
    for (unsigned n = 0; n < GDT_ENTRIES; n++)
        put_le64(table + 8 * n, gdt[n]);
    make_idt(guest_memory_at(memory->ram, IDT_GPA, DIFF_PAGE));
    return rc;
}

static struct cpu_segment_state from_descriptor(uint16_t selector)
{
    uint64_t d = selector & ~3u ? gdt[selector >> 3] : 0;
    uint32_t limit = (uint32_t)((d & 0xffff) | (d >> 32 & 0xf0000));

    return (struct cpu_segment_state){
        .selector = selector,
        .attr = (uint16_t)(d >> 40 & 0xf0ff),
        .limit = d >> 55 & 1 ? limit << 12 | 0xfff : limit,
    };
}

static void initial_state(struct cpu_state *s)
{
    memset(s, 0, sizeof(*s));
    s->rflags = 0x202;
    for (unsigned n = 0; n < CPU_SEGMENTS; n++)
        s->seg[n] = from_descriptor(n == CPU_CS ? 0x33 : 0x2b);
    s->tr =
        (struct cpu_segment_state){.base = TSS_VA, .limit = 103, .selector = 0x40, .attr = CPU_ATTR_P | 0xb};
    s->ldtr = (struct cpu_segment_state){.attr = 0};
    s->gdt = (struct cpu_table_state){GDT_VA, 8 * GDT_ENTRIES - 1};
    s->idt = (struct cpu_table_state){IDT_VA, 16 * 256 - 1};
    s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    s->cr3 = TABLES_GPA;
    s->cr4 = CR4_PAE | CR4_MCE | CR4_PGE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE |
             CR4_OSXSAVE | CR4_SMEP | CR4_SMAP;
    s->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NX;
    s->xcr0 = 7;
    s->dr[6] = 0xffff0ff0;
    s->dr[7] = 0x400;
    s->pat = 0x0007040600070406ull;
}

unsigned diff_soft_without;

static int soft_side_open(struct diff_memory *mem)
{
    static struct cpu_state state;
    cleanup_error struct error *err = NULL;

    memory = mem;
    int rc = soft_test_create_without(&soft, mem->ram, diff_soft_without, &err);
    if (rc) {
        fprintf(stderr, "soft-diff: %s\n", error_message(err));
        return rc;
    }
    vcpu = soft_vcpu(soft, 0);
    rc = make_tables();
    if (!rc)
        rc = map_window(DIFF_LOW);
    if (!rc)
        rc = map_window(DIFF_HIGH);
    initial_state(&state);
    soft_set_state(vcpu, &state);
    return rc;
}

static void load_state(const struct diff_state *in)
{
    struct soft_vcpu *c = vcpu;

    memcpy(c->gpr, in->gpr, sizeof(c->gpr));
    c->rip = in->rip;
    soft_set_rflags(c, in->rflags, ~0ull);
    for (unsigned n = 0; n < CPU_SEGMENTS; n++)
        if (c->seg[n].selector != in->seg[n] || c->cpl != 3)
            c->seg[n] = from_descriptor(in->seg[n]);
    c->seg[CPU_FS].base = in->fs_base;
    c->seg[CPU_GS].base = in->gs_base;
    memcpy(c->xsave, in->xsave, sizeof(c->xsave));
    c->fpu_saved = 1;
    c->cpl = 3;
    c->shadow = 0;
    c->halted = false;
    c->exit_link = 0;
    soft_update_key(c);
}

static void store_state(struct diff_state *out)
{
    const struct soft_vcpu *c = vcpu;

    memcpy(out->gpr, c->gpr, sizeof(out->gpr));
    out->rip = c->rip;
    out->rflags = soft_rflags(c);
    for (unsigned n = 0; n < CPU_SEGMENTS; n++)
        out->seg[n] = c->seg[n].selector;
    out->fs_base = c->seg[CPU_FS].base;
    out->gs_base = c->seg[CPU_GS].base;
    memcpy(out->xsave, c->xsave, sizeof(out->xsave));
}

/* A software interrupt has been delivered to the kernel's entry of its vector: back to what was interrupted.
 */
static bool undo_delivery(struct diff_result *out)
{
    uint64_t frame[5];

    if (vcpu->cpl == 3 || vcpu->rip < HANDLER_VA || vcpu->rip >= HANDLER_VA + 16 * 256)
        return false;
    out->vector = (uint8_t)((vcpu->rip - HANDLER_VA) / 16);
    if (guest_memory_read(memory->ram, STACK_GPA + (vcpu->gpr[CPU_RSP] - STACK_VA), frame, sizeof(frame)))
        return true;
    out->state.rip = frame[0];
    out->state.seg[CPU_CS] = (uint16_t)frame[1];
    out->state.rflags = frame[2];
    out->state.gpr[CPU_RSP] = frame[3];
    out->state.seg[CPU_SS] = (uint16_t)frame[4];
    return true;
}

#define MAX_BLOCKS_RUN 100000

static void soft_side_run(const struct diff_state *in, bool step, struct diff_result *out)
{
    int rc = SOFT_JUMP;

    load_state(in);
    out->vector = DIFF_HUNG;
    out->error = 0;
    out->cr2 = 0;
    for (unsigned n = 0; n < MAX_BLOCKS_RUN; n++) {
        vcpu->shadow = 0;
        rc = step ? soft_step(vcpu) : soft_run_block(vcpu);
        if (rc == SOFT_FAULT || step || vcpu->cpl != 3)
            break;
    }
    store_state(&out->state);
    if (rc == SOFT_FAULT) {
        out->vector = vcpu->fault.vector;
        out->error = vcpu->fault.has_error ? vcpu->fault.error : 0;
        out->cr2 = out->vector == VEC_PF ? vcpu->fault.cr2 : 0;
    } else if (!undo_delivery(out) && step) {
        out->vector = DIFF_STEPPED;
    }
}

static void soft_side_code_changed(uint64_t offset, uint64_t len)
{
    soft_invalidate_code(soft, memory->code_gpa + offset, len);
}

const struct diff_side diff_soft = {"soft", soft_side_open, soft_side_run, soft_side_code_changed};
