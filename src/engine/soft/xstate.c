/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The x87, SSE and AVX state as handlers see it, and FXSAVE, XSAVE and their counterparts (SDM vol. 1 10.5
 * and chapter 13). c->xsave has the standard form of XSAVE; a component whose bit in XSTATE_BV is clear is in
 * its initial state, whatever its bytes are. Called from translated code in the vCPU's own thread; no locks.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

#include <pthread.h>

#define FCW_INIT   0x037fu
#define FSW_ES     0x0080u
#define FSW_B      0x8000u
#define FSW_TOP    0x3800u
#define EXCEPTIONS 0x003fu

/* Bytes that FXSAVE writes: XMM8-15 are there in 64-bit mode only. */
#define LEGACY_WRITTEN(c) (soft_is64(c) ? 416u : 288u)
#define VECTORS(c)        (soft_is64(c) ? 16u : 8u)

static uint64_t in_use(const struct soft_vcpu *c)
{
    return get_le64(c->xsave + XSAVE_BV);
}

static void init_x87(struct soft_vcpu *c)
{
    memset(c->xsave, 0, XSAVE_MXCSR);
    put_le16(c->xsave + XSAVE_FCW, FCW_INIT);
    memset(c->xsave + XSAVE_ST, 0, 8 * 16);
}

void soft_xstate_normalise(struct soft_vcpu *c)
{
    uint64_t bv = in_use(c);

    if (!(bv & XSTATE_X87))
        init_x87(c);
    if (!(bv & XSTATE_SSE))
        memset(c->xsave + XSAVE_XMM, 0, 16 * 16);
    if (!(bv & XSTATE_AVX))
        memset(c->xsave + XSAVE_YMM, 0, 16 * 16);
}

void soft_xstate_modify(struct soft_vcpu *c, unsigned components)
{
    soft_xstate_normalise(c);
    /* AVX state exists where the guest has enabled it, or where the host has it. */
    put_le64(c->xsave + XSAVE_BV, in_use(c) | components);
}

void soft_vector_read(const struct soft_vcpu *c, unsigned reg, uint8_t value[32])
{
    memcpy(value, c->xsave + XSAVE_XMM + 16 * (reg & 15), 16);
    memcpy(value + 16, c->xsave + XSAVE_YMM + 16 * (reg & 15), 16);
}

void soft_vector_write(struct soft_vcpu *c, unsigned reg, const uint8_t value[32])
{
    memcpy(c->xsave + XSAVE_XMM + 16 * (reg & 15), value, 16);
    memcpy(c->xsave + XSAVE_YMM + 16 * (reg & 15), value + 16, 16);
}

void soft_x87_set_top(struct soft_vcpu *c, unsigned top)
{
    uint16_t fsw = get_le16(c->xsave + XSAVE_FSW);
    unsigned old = (fsw & FSW_TOP) >> 11;
    uint8_t st[8][16];

    memcpy(st, c->xsave + XSAVE_ST, sizeof(st));
    for (unsigned i = 0; i < 8; i++)
        memcpy(c->xsave + XSAVE_ST + 16 * i, st[(top + i - old) & 7], 16);
    put_le16(c->xsave + XSAVE_FSW, (uint16_t)((fsw & ~FSW_TOP) | (top & 7) << 11));
}

void soft_x87_settle(uint16_t *fcw, uint16_t *fsw)
{
    *fcw = (*fcw & 0x1f3f) | 0x40;
    *fsw &= (uint16_t) ~(FSW_ES | FSW_B);
    if (*fsw & ~*fcw & EXCEPTIONS)
        *fsw |= FSW_ES | FSW_B;
}

int soft_x87_check(struct soft_vcpu *c)
{
    return get_le16(c->xsave + XSAVE_FSW) & FSW_ES ? soft_raise(c, VEC_MF) : SOFT_NEXT;
}

/* The host's: LDMXCSR is executed by it. */
static uint32_t host_mxcsr_mask;

static void read_mxcsr_mask(void)
{
    uint8_t area[XSAVE_LEGACY] __attribute__((aligned(16)));

    __asm__ volatile("fxsave %0" : "=m"(area));
    host_mxcsr_mask = get_le32(area + XSAVE_MXCSR_MASK);
    if (!host_mxcsr_mask)
        host_mxcsr_mask = 0xffbf; /* SDM vol. 1 11.6.6 */
}

static uint32_t mxcsr_mask(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, read_mxcsr_mask);
    return host_mxcsr_mask;
}

/* ---- the legacy area ---- */

/* The x87 part as an instruction of that width stores it. The short form has selectors, which this processor
 * (CPUID 7 EBX 13) has as zeroes. */
static void store_x87(const struct soft_vcpu *c, uint8_t *to, bool wide)
{
    memcpy(to, c->xsave, XSAVE_MXCSR);
    if (!wide) {
        memset(to + XSAVE_FIP + 4, 0, 4);
        memset(to + XSAVE_FDP + 4, 0, 4);
    }
    memcpy(to + XSAVE_ST, c->xsave + XSAVE_ST, 8 * 16);
}

static void load_x87(struct soft_vcpu *c, const uint8_t *from, bool wide)
{
    uint16_t fcw = get_le16(from + XSAVE_FCW), fsw = get_le16(from + XSAVE_FSW);

    memcpy(c->xsave, from, XSAVE_MXCSR);
    soft_x87_settle(&fcw, &fsw);
    put_le16(c->xsave + XSAVE_FCW, fcw);
    put_le16(c->xsave + XSAVE_FSW, fsw);
    c->xsave[5] = 0;
    if (!wide) {
        memset(c->xsave + XSAVE_FIP + 4, 0, 4);
        memset(c->xsave + XSAVE_FDP + 4, 0, 4);
    }
    memcpy(c->xsave + XSAVE_ST, from + XSAVE_ST, 8 * 16);
}

static void store_mxcsr(const struct soft_vcpu *c, uint8_t *to)
{
    memcpy(to + XSAVE_MXCSR, c->xsave + XSAVE_MXCSR, 4);
    put_le32(to + XSAVE_MXCSR_MASK, mxcsr_mask());
}

static int check_x87_enabled(struct soft_vcpu *c)
{
    return c->cr0 & (CR0_EM | CR0_TS) ? soft_raise(c, VEC_NM) : SOFT_NEXT;
}

/* The area of an FXSAVE or XSAVE instruction: in its segment and aligned; then its page faults, the last
 * byte's first. All of it counts as accessed, whatever is read or written. */
static int area(struct soft_vcpu *c, const struct soft_insn *i, unsigned size, unsigned align, bool write,
                uint64_t *linear)
{
    unsigned access = write ? ACCESS_WRITE : ACCESS_READ;

    if (soft_operand_linear(c, i, 1, write, linear))
        return SOFT_FAULT;
    if (*linear & (align - 1))
        return soft_raise(c, VEC_GP);
    if (soft_operand_linear(c, i, size, write, linear))
        return SOFT_FAULT;
    /* XRSTOR looks at its header before anything else. */
    if (align == 64 && !write && soft_check_access(c, *linear + XSAVE_BV + 8, 8, access))
        return SOFT_FAULT;
    return soft_probe(c, *linear + size - 1, access) ? SOFT_FAULT : soft_probe(c, *linear, access);
}

static int fxsave(struct soft_vcpu *c, const struct soft_insn *i, bool wide)
{
    unsigned size = LEGACY_WRITTEN(c);
    uint8_t image[XSAVE_LEGACY];
    uint64_t linear;

    if (check_x87_enabled(c) || area(c, i, XSAVE_LEGACY, 16, true, &linear))
        return SOFT_FAULT;
    soft_xstate_normalise(c);
    store_x87(c, image, wide);
    store_mxcsr(c, image);
    memcpy(image + XSAVE_XMM, c->xsave + XSAVE_XMM, size - XSAVE_XMM);
    return soft_write(c, linear, image, size, ACCESS_WRITE);
}

static int fxrstor(struct soft_vcpu *c, const struct soft_insn *i, bool wide)
{
    uint8_t image[XSAVE_LEGACY];
    uint64_t linear;

    if (check_x87_enabled(c) || area(c, i, XSAVE_LEGACY, 16, false, &linear) ||
        soft_read(c, linear, image, sizeof(image), ACCESS_READ))
        return SOFT_FAULT;
    if (get_le32(image + XSAVE_MXCSR) & ~mxcsr_mask())
        return soft_raise(c, VEC_GP);
    soft_xstate_modify(c, XSTATE_X87 | XSTATE_SSE);
    load_x87(c, image, wide);
    memcpy(c->xsave + XSAVE_MXCSR, image + XSAVE_MXCSR, 4);
    memcpy(c->xsave + XSAVE_XMM, image + XSAVE_XMM, LEGACY_WRITTEN(c) - XSAVE_XMM);
    return SOFT_NEXT;
}

int op_fxsave(struct soft_vcpu *c, const struct soft_insn *i)
{
    return fxsave(c, i, false);
}
int op_fxsave64(struct soft_vcpu *c, const struct soft_insn *i)
{
    return fxsave(c, i, true);
}
int op_fxrstor(struct soft_vcpu *c, const struct soft_insn *i)
{
    return fxrstor(c, i, false);
}
int op_fxrstor64(struct soft_vcpu *c, const struct soft_insn *i)
{
    return fxrstor(c, i, true);
}

/* ---- XSAVE ---- */

/* The requested-feature bitmap, after the checks that all XSAVE instructions have. */
static int requested(struct soft_vcpu *c, uint64_t *rfbm)
{
    if (!(c->cr4 & CR4_OSXSAVE))
        return soft_raise(c, VEC_UD);
    if (c->cr0 & CR0_TS)
        return soft_raise(c, VEC_NM);
    *rfbm = c->xcr0 & ((uint32_t)c->gpr[CPU_RAX] | c->gpr[CPU_RDX] << 32);
    return SOFT_NEXT;
}

/* `optimise`: components in their initial state are not written. */
static int xsave(struct soft_vcpu *c, const struct soft_insn *i, bool wide, bool optimise)
{
    uint64_t rfbm, write, linear;
    uint8_t image[XSAVE_SIZE];
    unsigned size;

    if (requested(c, &rfbm))
        return SOFT_FAULT;
    size = rfbm & XSTATE_AVX ? XSAVE_SIZE : XSAVE_HEADER;
    /* What isn't saved stays as it is. */
    if (area(c, i, size, 64, true, &linear) || soft_read(c, linear, image, size, ACCESS_READ))
        return SOFT_FAULT;
    soft_xstate_normalise(c);
    write = optimise ? rfbm & in_use(c) : rfbm;
    if (write & XSTATE_X87)
        store_x87(c, image, wide);
    if (rfbm & (XSTATE_SSE | XSTATE_AVX))
        store_mxcsr(c, image);
    if (write & XSTATE_SSE)
        memcpy(image + XSAVE_XMM, c->xsave + XSAVE_XMM, 16 * VECTORS(c));
    if (write & XSTATE_AVX)
        memcpy(image + XSAVE_YMM, c->xsave + XSAVE_YMM, 16 * VECTORS(c));
    put_le64(image + XSAVE_BV, (get_le64(image + XSAVE_BV) & ~rfbm) | (in_use(c) & rfbm));
    return soft_write(c, linear, image, size, ACCESS_WRITE);
}

static int xrstor(struct soft_vcpu *c, const struct soft_insn *i, bool wide)
{
    uint64_t rfbm, bv, linear;
    uint8_t image[XSAVE_SIZE];
    unsigned size;

    if (requested(c, &rfbm))
        return SOFT_FAULT;
    size = rfbm & XSTATE_AVX ? XSAVE_SIZE : XSAVE_HEADER;
    if (area(c, i, size, 64, false, &linear) || soft_read(c, linear, image, size, ACCESS_READ))
        return SOFT_FAULT;
    /* The compacted form isn't announced, so XCOMP_BV must be 0, as the 8 bytes after it (SDM vol. 1 13.8.1).
     */
    bv = get_le64(image + XSAVE_BV);
    if ((bv & ~c->xcr0) || get_le64(image + XSAVE_BV + 8) || get_le64(image + XSAVE_BV + 16))
        return soft_raise(c, VEC_GP);
    if ((rfbm & (XSTATE_SSE | XSTATE_AVX)) && (get_le32(image + XSAVE_MXCSR) & ~mxcsr_mask()))
        return soft_raise(c, VEC_GP);

    soft_xstate_normalise(c);
    if (rfbm & bv & XSTATE_X87)
        load_x87(c, image, wide);
    else if (rfbm & XSTATE_X87)
        init_x87(c);
    if (rfbm & (XSTATE_SSE | XSTATE_AVX))
        memcpy(c->xsave + XSAVE_MXCSR, image + XSAVE_MXCSR, 4);
    if (rfbm & XSTATE_SSE) {
        if (!(bv & XSTATE_SSE))
            memset(image + XSAVE_XMM, 0, 16 * 16);
        memcpy(c->xsave + XSAVE_XMM, image + XSAVE_XMM, 16 * VECTORS(c));
    }
    if (rfbm & XSTATE_AVX) {
        if (!(bv & XSTATE_AVX))
            memset(image + XSAVE_YMM, 0, 16 * 16);
        memcpy(c->xsave + XSAVE_YMM, image + XSAVE_YMM, 16 * VECTORS(c));
    }
    /* Outside 64-bit mode the upper 8 vector registers keep what they hold. */
    if (!soft_is64(c))
        bv |= in_use(c) & (XSTATE_SSE | XSTATE_AVX);
    put_le64(c->xsave + XSAVE_BV, (in_use(c) & ~rfbm) | (bv & rfbm));
    return SOFT_NEXT;
}

int op_xsave(struct soft_vcpu *c, const struct soft_insn *i)
{
    return xsave(c, i, false, false);
}
int op_xsave64(struct soft_vcpu *c, const struct soft_insn *i)
{
    return xsave(c, i, true, false);
}
int op_xsaveopt(struct soft_vcpu *c, const struct soft_insn *i)
{
    return xsave(c, i, false, true);
}
int op_xsaveopt64(struct soft_vcpu *c, const struct soft_insn *i)
{
    return xsave(c, i, true, true);
}
int op_xrstor(struct soft_vcpu *c, const struct soft_insn *i)
{
    return xrstor(c, i, false);
}
int op_xrstor64(struct soft_vcpu *c, const struct soft_insn *i)
{
    return xrstor(c, i, true);
}
