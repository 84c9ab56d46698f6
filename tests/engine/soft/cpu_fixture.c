/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See cpu_fixture.h. */
#include "cpu_fixture.h"

#include "base/bytes.h"
#include "engine/soft/soft.h"
#include "engine/soft/soft_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define RAM_SIZE (8u << 20)
#define PML4_AT  0x100000u
#define PDPT_AT  0x101000u
#define PD_AT    0x102000u
#define PT_AT    0x103000u /* for the 2 MiB with the holes */

#define P_RW   0x93u /* present, data, writable, accessed */
#define P_CODE 0x9bu /* present, code, readable, accessed */
#define G_D    0xc000u
#define G_L    0xa000u

static struct {
    struct guest_memory *memory;
    struct soft *soft;
    struct soft_vcpu *c;
    enum fixture_mode mode;
} f;

struct soft_vcpu *fixture_vcpu(void)
{
    return f.c;
}

struct soft *fixture_soft(void)
{
    return f.soft;
}

void *fixture_ram(uint64_t gpa)
{
    return guest_memory_at(f.memory, gpa, 1);
}

void fixture_map(uint64_t linear, uint64_t gpa)
{
    fixture_write(PT_AT + 8 * (linear >> 12 & 511), gpa | 7, 8);
    soft_tlb_flush_page(f.c, linear);
}

uint64_t fixture_read(uint64_t gpa, unsigned size)
{
    uint8_t bytes[8] = {0};

    memcpy(bytes, fixture_ram(gpa), size);
    return get_le64(bytes);
}

void fixture_write(uint64_t gpa, uint64_t value, unsigned size)
{
    uint8_t bytes[8];

    put_le64(bytes, value);
    memcpy(fixture_ram(gpa), bytes, size);
    soft_invalidate_code(f.soft, gpa, size);
}

uint64_t fixture_descriptor(uint32_t base, uint32_t limit, unsigned attr)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xf0ff) << 40 |
           (uint64_t)(limit & 0xf0000) << 32 | (uint64_t)(base >> 24) << 56;
}

void fixture_set_gdt(unsigned selector, uint64_t low, uint64_t high)
{
    fixture_write(GDT_AT + (selector & ~7u), low, 8);
    if (high)
        fixture_write(GDT_AT + (selector & ~7u) + 8, high, 8);
}

static bool long_mode(void)
{
    return f.mode == MODE_COMPAT || f.mode == MODE_LONG;
}

void fixture_set_gate(unsigned vector, unsigned selector, uint64_t offset, unsigned type_attr, unsigned ist)
{
    uint64_t low = (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)ist << 32 |
                   (uint64_t)type_attr << 40 | (offset & 0xffff0000) << 32;

    if (f.mode == MODE_REAL) {
        fixture_write(vector * 4, (offset & 0xffff) | selector << 16, 4);
    } else if (long_mode()) {
        fixture_write(IDT_AT + 16 * vector, low, 8);
        fixture_write(IDT_AT + 16 * vector + 8, offset >> 32, 8);
    } else {
        fixture_write(IDT_AT + 8 * vector, low, 8);
    }
}

static void set_tables(void)
{
    fixture_set_gdt(CODE0_32, fixture_descriptor(0, 0xfffff, P_CODE | G_D), 0);
    fixture_set_gdt(DATA0, fixture_descriptor(0, 0xfffff, P_RW | G_D), 0);
    fixture_set_gdt(CODE3_32, fixture_descriptor(0, 0xfffff, P_CODE | 0x60 | G_D), 0);
    fixture_set_gdt(DATA3, fixture_descriptor(0, 0xfffff, P_RW | 0x60 | G_D), 0);
    fixture_set_gdt(CODE0_64, fixture_descriptor(0, 0xfffff, P_CODE | G_L), 0);
    fixture_set_gdt(CODE3_64, fixture_descriptor(0, 0xfffff, P_CODE | 0x60 | G_L), 0);
    fixture_set_gdt(CODE0_16, fixture_descriptor(0, 0xffff, P_CODE), 0);
    fixture_set_gdt(DATA0_16, fixture_descriptor(0, 0xffff, P_RW), 0);
    fixture_set_gdt(TSS_SEL, fixture_descriptor(TSS_AT, 0x20ff, 0x8b), 0);
    fixture_set_gdt(LDT_SEL, fixture_descriptor(LDT_AT, 0xff, 0x82), 0);
    fixture_set_gdt(CODE_CONF, fixture_descriptor(0, 0xfffff, P_CODE | 4 | G_D), 0);
    fixture_set_gdt(CODE1_32, fixture_descriptor(0, 0xfffff, P_CODE | 0x20 | G_D), 0);
    fixture_set_gdt(DATA1, fixture_descriptor(0, 0xfffff, P_RW | 0x20 | G_D), 0);
    if (long_mode()) {
        for (unsigned n = 0; n < 3; n++)
            fixture_write(TSS_AT + 4 + 8 * n, STACK_AT + 0x1000 * n, 8);
        for (unsigned n = 0; n < 7; n++)
            fixture_write(TSS_AT + 0x24 + 8 * n, IST_AT + 0x1000 * n, 8);
    } else {
        fixture_write(TSS_AT + 4, STACK_AT, 4);
        fixture_write(TSS_AT + 8, DATA0, 4);
        fixture_write(TSS_AT + 12, STACK_AT + 0x1000, 4);
        fixture_write(TSS_AT + 16, DATA1, 4);
    }
    fixture_write(TSS_AT + 0x66, 0x68, 2);
}

static void set_pages(void)
{
    fixture_write(PML4_AT, PDPT_AT | 7, 8);
    fixture_write(PDPT_AT, PD_AT | 7, 8);
    for (uint64_t n = 0; n < RAM_SIZE >> 21; n++)
        fixture_write(PD_AT + 8 * n, n << 21 | 0x87, 8);
    fixture_write(PD_AT + 8 * (HOLE_AT >> 21), PT_AT | 7, 8);
    for (uint64_t n = 0; n < 512; n++)
        fixture_write(PT_AT + 8 * n, HOLE_AT + (n << 12) + 7, 8);
    fixture_write(PT_AT + 8 * (HOLE_AT >> 12 & 511), 0, 8);
    fixture_write(PT_AT + 8 * (READ_ONLY_AT >> 12 & 511), READ_ONLY_AT | 5, 8);
    fixture_write(PT_AT + 8 * (SUPERVISOR_AT >> 12 & 511), SUPERVISOR_AT | 3, 8);
}

static struct cpu_segment_state segment(unsigned selector, unsigned attr, uint32_t limit)
{
    return (struct cpu_segment_state){.limit = limit, .attr = (uint16_t)attr, .selector = (uint16_t)selector};
}

static void set_segments(struct cpu_state *s, unsigned cpl)
{
    unsigned dpl = cpl << 5;
    uint32_t flat = 0xffffffff;
    unsigned data = cpl == 3 ? DATA3 : cpl == 1 ? DATA1 : DATA0;
    unsigned code;

    switch (f.mode) {
    case MODE_REAL:
        for (int n = 0; n < CPU_SEGMENTS; n++)
            s->seg[n] = segment(0, n == CPU_CS ? P_CODE : P_RW, 0xffff);
        return;
    case MODE_PROTECTED16:
        s->seg[CPU_CS] = segment(CODE0_16, P_CODE, 0xffff);
        for (int n = 0; n < CPU_SEGMENTS; n++)
            if (n != CPU_CS)
                s->seg[n] = segment(DATA0_16, P_RW, 0xffff);
        return;
    case MODE_LONG:
        s->seg[CPU_CS] = segment(cpl ? CODE3_64 : CODE0_64, P_CODE | dpl | G_L, flat);
        break;
    default:
        code = cpl == 3 ? CODE3_32 : cpl == 1 ? CODE1_32 : CODE0_32;
        s->seg[CPU_CS] = segment(code, P_CODE | dpl | G_D, flat);
    }
    for (int n = 0; n < CPU_SEGMENTS; n++)
        if (n != CPU_CS)
            s->seg[n] = segment(data, P_RW | dpl | G_D, flat);
}

static void set_state(unsigned cpl)
{
    struct cpu_state s;

    cpu_state_reset(&s, true);
    memset(s.gpr, 0, sizeof(s.gpr));
    s.cr0 = CR0_ET | CR0_NE;
    s.rip = CODE_AT;
    s.gpr[CPU_RSP] = STACK_AT + 0x1000 * cpl;
    s.gdt = (struct cpu_table_state){GDT_AT, GDT_LIMIT};
    s.idt = (struct cpu_table_state){IDT_AT, long_mode() ? 0xfff : 0x7ff};
    s.tr = (struct cpu_segment_state){.base = TSS_AT, .limit = 0x20ff, .attr = 0x8b, .selector = TSS_SEL};
    s.ldtr = (struct cpu_segment_state){.base = LDT_AT, .limit = 0xff, .attr = 0x82, .selector = LDT_SEL};
    s.cr4 = CR4_OSFXSR;
    s.xcr0 = 1;
    if (f.mode != MODE_REAL)
        s.cr0 |= CR0_PE;
    if (f.mode == MODE_REAL || f.mode == MODE_PROTECTED16) {
        s.rip = 0x8000;
        s.gpr[CPU_RSP] = 0x7000;
    }
    if (f.mode == MODE_REAL)
        s.idt = (struct cpu_table_state){0, 0x3ff};
    if (long_mode()) {
        s.cr0 |= CR0_PG | CR0_WP;
        s.cr4 |= CR4_PAE;
        s.cr3 = PML4_AT;
        s.efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NX;
    }
    set_segments(&s, cpl);
    soft_set_state(f.c, &s);
}

struct soft_vcpu *fixture_cpu(enum fixture_mode mode, unsigned cpl)
{
    fixture_end();
    f.mode = mode;
    assert_int_equal(guest_memory_create(&f.memory, RAM_SIZE, NULL), 0);
    assert_int_equal(soft_test_create(&f.soft, f.memory, NULL), 0);
    f.soft->amd = false; /* whatever the host's processor is */
    f.c = soft_vcpu(f.soft, 0);
    set_tables();
    set_pages();
    set_state(cpl);
    return f.c;
}

void fixture_end(void)
{
    soft_test_destroy(f.soft);
    if (f.memory)
        guest_memory_free(f.memory);
    memset(&f, 0, sizeof(f));
}

int fixture_step(const uint8_t *code, size_t length)
{
    uint64_t at = f.c->rip + (f.c->key & KEY_CODE64 ? 0 : f.c->seg[CPU_CS].base);

    memcpy(fixture_ram(at), code, length);
    soft_invalidate_code(f.soft, at, length);
    soft_update_key(f.c);
    return soft_step(f.c);
}
