/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Port input and output: IN, OUT, INS, OUTS, with the permission checks of IOPL and the TSS's bitmap (SDM
 * vol. 1 chapter 19). Called from translated code in the vCPU's own thread; devices are called with no lock
 * held.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

#define TSS_IO_MAP 0x66u /* where the TSS says where its bitmap is */

/* So many elements at most before interrupts get their turn. */
#define BATCH 256

int soft_check_port(struct soft_vcpu *c, uint16_t port, unsigned size)
{
    uint8_t bytes[2];
    uint32_t offset;
    unsigned mask = ((1u << size) - 1) << (port & 7);

    if (!soft_protected(c) || c->cpl <= soft_iopl(c))
        return SOFT_NEXT;
    if (!(c->tr.attr & CPU_ATTR_P) || (c->tr.attr & 0xd) != TYPE_TSS || TSS_IO_MAP + 1 > c->tr.limit)
        return soft_raise(c, VEC_GP);
    if (soft_read(c, c->tr.base + TSS_IO_MAP, bytes, 2, ACCESS_READ | ACCESS_SYSTEM))
        return SOFT_FAULT;
    /* The processor always looks at two bytes of the bitmap. */
    offset = get_le16(bytes) + port / 8u;
    if (offset + 1 > c->tr.limit)
        return soft_raise(c, VEC_GP);
    if (soft_read(c, c->tr.base + offset, bytes, 2, ACCESS_READ | ACCESS_SYSTEM))
        return SOFT_FAULT;
    return get_le16(bytes) & mask ? soft_raise(c, VEC_GP) : SOFT_NEXT;
}

/* Opcodes with bit 0 clear are for bytes; there are no 64-bit ports. */
static unsigned port_size(const struct soft_insn *i)
{
    if (!(i->opcode & 1))
        return 1;
    return i->operand_size == 2 ? 2 : 4;
}

/* Bit 3 of the opcode tells DX from an immediate port. */
static uint16_t port_number(const struct soft_vcpu *c, const struct soft_insn *i)
{
    return i->opcode & 8 ? (uint16_t)c->gpr[CPU_RDX] : (uint8_t)i->imm;
}

static void note_breakpoints(struct soft_vcpu *c, uint16_t port, unsigned size)
{
    if (c->key & KEY_DEBUG)
        c->debug_hits |= soft_debug_match(c, port, size, DEBUG_IO);
}

int op_in(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned size = port_size(i);
    uint16_t port = port_number(c, i);

    if (soft_check_port(c, port, size))
        return SOFT_FAULT;
    soft_reg_write(c, CPU_RAX, size, false, soft_pio_read(c, port, size));
    note_breakpoints(c, port, size);
    return SOFT_NEXT;
}

int op_out(struct soft_vcpu *c, const struct soft_insn *i)
{
    unsigned size = port_size(i);
    uint16_t port = port_number(c, i);

    if (soft_check_port(c, port, size))
        return SOFT_FAULT;
    soft_pio_write(c, port, size, soft_truncate(c->gpr[CPU_RAX], size));
    note_breakpoints(c, port, size);
    return SOFT_NEXT;
}

/* ---- strings ---- */

/* One element. The memory side is checked before the device is asked, which must not see an access twice. */
static int ins_element(struct soft_vcpu *c, const struct soft_insn *i, uint16_t port, unsigned size)
{
    uint64_t offset = soft_truncate(c->gpr[CPU_RDI], i->address_size);
    uint64_t linear;
    uint8_t bytes[8];

    if (soft_linear(c, CPU_ES, offset, size, true, &linear) ||
        soft_check_access(c, linear, size, ACCESS_WRITE))
        return SOFT_FAULT;
    put_le64(bytes, soft_pio_read(c, port, size));
    return soft_write(c, linear, bytes, size, ACCESS_WRITE);
}

static int outs_element(struct soft_vcpu *c, const struct soft_insn *i, uint16_t port, unsigned size)
{
    uint64_t offset = soft_truncate(c->gpr[CPU_RSI], i->address_size);
    uint8_t bytes[8] = {0};
    uint64_t linear;

    if (soft_linear(c, i->segment, offset, size, false, &linear) ||
        soft_read(c, linear, bytes, size, ACCESS_READ))
        return SOFT_FAULT;
    soft_pio_write(c, port, size, get_le64(bytes));
    return SOFT_NEXT;
}

static int io_string(struct soft_vcpu *c, const struct soft_insn *i, unsigned pointer,
                     int (*element)(struct soft_vcpu *, const struct soft_insn *, uint16_t, unsigned))
{
    unsigned size = port_size(i), asize = i->address_size, batch = c->key & KEY_STEP ? 1 : BATCH;
    uint16_t port = (uint16_t)c->gpr[CPU_RDX];
    uint64_t step = c->flags & FLAG_DF ? -(uint64_t)size : size;

    if (soft_check_port(c, port, size))
        return SOFT_FAULT;
    if (i->rep)
        soft_reg_write(c, CPU_RCX, asize, false, c->gpr[CPU_RCX]);
    for (unsigned n = 0;; n++) {
        uint64_t count = soft_reg_read(c, CPU_RCX, asize, false);

        if (i->rep && count == 0)
            return SOFT_NEXT;
        if (n == batch || (n && (c->debug_hits || __atomic_load_n(&c->pending, __ATOMIC_RELAXED))))
            return SOFT_JUMP;
        if (element(c, i, port, size))
            return SOFT_FAULT;
        note_breakpoints(c, port, size);
        soft_reg_write(c, pointer, asize, false, c->gpr[pointer] + step);
        if (!i->rep)
            return SOFT_NEXT;
        soft_reg_write(c, CPU_RCX, asize, false, count - 1);
    }
}

int op_ins(struct soft_vcpu *c, const struct soft_insn *i)
{
    return io_string(c, i, CPU_RDI, ins_element);
}

int op_outs(struct soft_vcpu *c, const struct soft_insn *i)
{
    return io_string(c, i, CPU_RSI, outs_element);
}
