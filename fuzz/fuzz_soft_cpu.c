/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The soft processor under a guest that does anything: instructions of all modes and levels over descriptor
 * tables, gates, a TSS and page tables of its own making, one at a time, with their exceptions delivered.
 * Nothing may end the process, and after each instruction the processor's state must make sense.
 *
 * Input: mode and level, then records until a record says that the rest is code:
 *   0 target, 8 bytes: into the GDT, IDT, TSS, LDT or page tables
 *   1 register, 8 bytes: a general register, or one of the system's
 */
#include "cpu_fixture.h"
#include "fuzz_input.h"

#include "engine/soft/soft.h"

#include <stdlib.h>
#include <string.h>

#define STEPS      48
#define CODE_BYTES 256

#define TABLES      6
#define PAGE_TABLES 0x100000u

static void check(bool holds)
{
    if (!holds)
        abort();
}

/* What must hold between instructions, whatever the guest did. */
static void check_state(struct soft_vcpu *c)
{
    bool paging = c->cr0 & CR0_PG, long_mode = c->efer & EFER_LMA;
    uint32_t key = c->key;

    check(c->cpl <= 3);
    check((c->cr0 & CR0_PE) || (!paging && c->cpl == 0));
    check(long_mode == (paging && (c->efer & EFER_LME)));
    check(!long_mode || (c->cr4 & CR4_PAE));
    check(!(c->cr4 & CR4_PCIDE) || long_mode);
    check((c->flags & ~(uint64_t)FLAGS_HOST) == 0);
    check((c->sysflags & (FLAGS_HOST | FLAG_IF | FLAG_VM | 2)) == 0);
    if (!(key & KEY_CODE64))
        check(c->rip <= UINT32_MAX);
    /* Whoever changed the mode has also said so. */
    soft_update_key(c);
    check(c->key == key);
}

static uint64_t table_address(unsigned table, unsigned index)
{
    static const struct {
        uint32_t at, entries;
    } tables[TABLES] = {
        {GDT_AT, (GDT_LIMIT + 1) / 8}, {IDT_AT, 512}, {TSS_AT, 32}, {LDT_AT, 32},
        {PAGE_TABLES, 2048},           {0, 128},
    };

    return tables[table % TABLES].at + 8ull * (index % tables[table % TABLES].entries);
}

static void set_register(struct soft_vcpu *c, unsigned n, uint64_t value)
{
    switch (n) {
    case 16:
        soft_set_rflags(c, value, FLAGS_HOST | FLAG_IF | FLAG_TF | FLAG_IOPL | FLAG_NT | FLAG_AC | FLAG_ID);
        break;
    case 17:
        c->star = value;
        break;
    case 18:
        c->lstar = (uint64_t)((int64_t)(value << 16) >> 16);
        break;
    case 19:
        c->sysenter_cs = (uint32_t)value;
        break;
    case 20:
        c->tr.limit = (uint16_t)value;
        break;
    case 21:
        c->idt.limit = (uint16_t)value;
        break;
    case 22:
        c->gdt.limit = (uint16_t)value;
        break;
    case 23:
        c->cr4 |= value & (CR4_OSFXSR | CR4_FSGSBASE | CR4_DE | CR4_TSD | CR4_UMIP);
        break;
    case 24:
        c->dr[value & 3] = value >> 8;
        c->dr[7] = 0x400 | (value & 0xff);
        break;
    default:
        c->gpr[n & 15] = value;
    }
}

/* Returns the processor set up, and the input that is left is code. */
static struct soft_vcpu *set_up(struct fuzz_input *in)
{
    static const uint8_t levels[] = {0, 1, 3, 3};
    unsigned first = (unsigned)fuzz_take(in, 1);
    enum fixture_mode mode = (enum fixture_mode)(first % 5);
    unsigned cpl = levels[first / 5 & 3];
    struct soft_vcpu *c;

    if (mode == MODE_REAL || mode == MODE_PROTECTED16)
        cpl = 0;
    if (cpl == 1 && mode != MODE_PROTECTED32)
        cpl = 3;
    c = fixture_cpu(mode, cpl);
    for (unsigned records = 0; records < 64 && in->left; records++) {
        unsigned kind = (unsigned)fuzz_take(in, 1);

        if (kind == 0) {
            unsigned table = (unsigned)fuzz_take(in, 1), index = (unsigned)fuzz_take(in, 2);

            fixture_write(table_address(table, index), fuzz_take(in, 8), 8);
        } else if (kind == 1) {
            unsigned n = (unsigned)fuzz_take(in, 1) % 25;

            set_register(c, n, fuzz_take(in, 8));
        } else {
            break;
        }
    }
    soft_update_key(c);
    return c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct soft_vcpu *c = set_up(&in);
    uint64_t at = c->rip;

    for (unsigned n = 0; n < CODE_BYTES && in.left; n++)
        fixture_write(at + n, fuzz_take(&in, 1), 1);
    for (unsigned n = 0; n < STEPS; n++) {
        int result = soft_step(c);

        if (result == SOFT_FAULT)
            result = soft_deliver_fault(c);
        if (result == SOFT_FAULT)
            break; /* shutdown */
        c->halted = false;
        check_state(c);
        if (n % 16 == 15 && c->iflag && soft_deliver_interrupt(c, 0x20 + (uint8_t)n) == SOFT_FAULT)
            break;
    }
    return 0;
}
