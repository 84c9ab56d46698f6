/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The local APIC's registers: the xAPIC page, the x2APIC MSRs, IA32_APIC_BASE, CR8 (SDM vol. 3A 11.4,
 * 11.12). Called by the vCPU's own thread. No locks here.
 */
#include "engine/soft/lapic_priv.h"

#include <errno.h>

/* Version 0x15, six LVT entries, EOI broadcasts can be suppressed (figure 11-7). */
#define VERSION 0x01050015u

/* What of each LVT entry can be written; bits 12 (delivery status) and 14 (remote IRR) are never set. */
static const uint32_t lvt_writable[LVTS] = {
    LVT_VECTOR | LVT_MASKED | LVT_TIMER_MODE,                      /* timer */
    LVT_VECTOR | LVT_MODE | LVT_MASKED,                            /* thermal */
    LVT_VECTOR | LVT_MODE | LVT_MASKED,                            /* performance counters */
    LVT_VECTOR | LVT_MODE | LVT_POLARITY | LVT_LEVEL | LVT_MASKED, /* LINT0 */
    LVT_VECTOR | LVT_MODE | LVT_POLARITY | LVT_LEVEL | LVT_MASKED, /* LINT1 */
    LVT_VECTOR | LVT_MASKED,                                       /* error */
};
#define LVT_READ_ONLY 0x5000u

#define SVR_WRITABLE 0x11ffu
#define ICR_WRITABLE 0x000ccfffu
#define ICR_STATUS   0x1000u
#define DIVIDE_BITS  0xbu

void lapic_reset(struct lapic *l, bool init)
{
    lapic_timer_reset(l);
    if (!init)
        atomic_store(&l->base, LAPIC_BASE_PAGE | LAPIC_BASE_ENABLE | (l->id ? 0 : LAPIC_BASE_BSP));
    atomic_store(&l->svr, 0xff);
    atomic_store(&l->ldr, 0);
    atomic_store(&l->dfr, UINT32_MAX);
    for (unsigned n = 0; n < LVTS; n++)
        atomic_store(&l->lvt[n], LVT_MASKED);
    /*
     * Kernels find the bootstrap processor in virtual wire mode, as firmware would leave it (MP specification
     * 1.4, 3.6.2.2): LINT0 brings the 8259's interrupts, LINT1 is NMI.
     */
    if (!init && !l->id) {
        atomic_store(&l->lvt[LVT_INDEX(REG_LVT_LINT0)], DELIVER_EXTINT << LVT_MODE_SHIFT);
        atomic_store(&l->lvt[LVT_INDEX(REG_LVT_LINT1)], DELIVER_NMI << LVT_MODE_SHIFT);
    }
    l->tpr = 0;
    l->esr = 0;
    l->icr = l->icr_high = 0;
    l->divide = 0;
    atomic_store(&l->errors, 0);
    lapic_irq_reset(l, init);
}

/* ---- single registers ---- */

static void set_tpr(struct lapic *l, uint32_t tpr)
{
    uint32_t old = l->tpr;

    l->tpr = tpr & 0xff;
    lapic_update_ppr(l);
    if (l->tpr < old)
        lapic_notice(l);
}

static void set_svr(struct lapic *l, uint32_t value)
{
    atomic_store(&l->svr, value & SVR_WRITABLE);
    if (value & SVR_ENABLE) {
        lapic_notice(l);
        return;
    }
    for (unsigned n = 0; n < LVTS; n++)
        atomic_fetch_or(&l->lvt[n], LVT_MASKED);
}

static void set_lvt(struct lapic *l, unsigned index, uint32_t value)
{
    value &= lvt_writable[index];
    if (!(atomic_load(&l->svr) & SVR_ENABLE))
        value |= LVT_MASKED;
    if (index == LVT_INDEX(REG_LVT_TIMER)) {
        /* Both mode bits set is reserved: a timer that never fires. */
        uint32_t mode = value & LVT_TIMER_MODE;
        lapic_timer_set_mode(l, mode == LVT_TIMER_MODE ? TIMER_ONE_SHOT : mode);
    }
    atomic_store(&l->lvt[index], value);
    if (index == LVT_INDEX(REG_LVT_LINT0))
        lapic_notice(l);
}

/* A write shows the errors since the last write, and rearms (SDM vol. 3A 11.5.3). */
static void latch_errors(struct lapic *l)
{
    l->esr = atomic_exchange(&l->errors, 0);
}

/* The registers that both modes share; false if there is none of this number. */
static bool read_register(struct lapic *l, unsigned reg, uint32_t *value)
{
    switch (reg) {
    case REG_VERSION:
        *value = VERSION;
        return true;
    case REG_TPR:
        *value = l->tpr;
        return true;
    case REG_PPR:
        *value = atomic_load(&l->ppr);
        return true;
    case REG_SVR:
        *value = atomic_load(&l->svr);
        return true;
    case REG_ISR ... REG_ISR + 7:
        *value = l->isr[reg - REG_ISR];
        return true;
    case REG_TMR ... REG_TMR + 7:
        *value = atomic_load(&l->tmr[reg - REG_TMR]);
        return true;
    case REG_IRR ... REG_IRR + 7:
        *value = atomic_load(&l->irr[reg - REG_IRR]);
        return true;
    case REG_ESR:
        *value = l->esr;
        return true;
    case REG_ICR:
        *value = l->icr;
        return true;
    case REG_LVT_TIMER ... REG_LVT_ERROR:
        *value = atomic_load(&l->lvt[LVT_INDEX(reg)]);
        return true;
    case REG_INITIAL_COUNT:
        *value = lapic_timer_initial(l);
        return true;
    case REG_CURRENT_COUNT:
        *value = lapic_timer_current(l);
        return true;
    case REG_DIVIDE:
        *value = l->divide;
        return true;
    default:
        return false;
    }
}

/* The same for writing; ICR is not among them, since its width differs. */
static bool write_register(struct lapic *l, unsigned reg, uint32_t value)
{
    switch (reg) {
    case REG_TPR:
        set_tpr(l, value);
        return true;
    case REG_EOI:
        lapic_eoi(l);
        return true;
    case REG_SVR:
        set_svr(l, value);
        return true;
    case REG_ESR:
        latch_errors(l);
        return true;
    case REG_LVT_TIMER ... REG_LVT_ERROR:
        set_lvt(l, LVT_INDEX(reg), value);
        return true;
    case REG_INITIAL_COUNT:
        lapic_timer_set_initial(l, value);
        return true;
    case REG_DIVIDE:
        l->divide = value & DIVIDE_BITS;
        lapic_timer_set_divide(l, l->divide);
        return true;
    default:
        return false;
    }
}

/* ---- the xAPIC page ---- */

uint64_t lapic_page(struct lapic *l)
{
    uint64_t base = atomic_load(&l->base);

    if ((base & (LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC)) != LAPIC_BASE_ENABLE)
        return UINT64_MAX;
    return base & ~0xfffull;
}

uint32_t lapic_read(struct lapic *l, unsigned offset)
{
    uint32_t value = 0;

    if (lapic_page(l) == UINT64_MAX)
        return UINT32_MAX;
    /* Registers are the first four bytes of each sixteen; the rest is undefined. */
    if (offset & 0xc)
        return 0;
    unsigned reg = offset >> 4;
    switch (reg) {
    case REG_ID:
        value = l->id << 24;
        break;
    case REG_LDR:
        value = atomic_load(&l->ldr);
        break;
    case REG_DFR:
        value = atomic_load(&l->dfr);
        break;
    case REG_ICR_HIGH:
        value = l->icr_high;
        break;
    case REG_APR: /* arbitration is not visible on a system bus */
    case REG_RRD:
    case REG_EOI:
        break;
    default:
        if (!read_register(l, reg, &value))
            lapic_error(l, ESR_REGISTER);
    }
    return value >> (offset & 3) * 8;
}

void lapic_write(struct lapic *l, unsigned offset, uint32_t value)
{
    if (lapic_page(l) == UINT64_MAX || (offset & 0xf))
        return;
    unsigned reg = offset >> 4;
    switch (reg) {
    case REG_LDR:
        atomic_store(&l->ldr, value & 0xff000000);
        break;
    case REG_DFR:
        atomic_store(&l->dfr, value | 0x0fffffff);
        break;
    case REG_ICR: {
        l->icr = value & ICR_WRITABLE;
        uint32_t dest = l->icr_high >> 24;
        lapic_send_ipi(l, l->icr, dest == 0xff ? DEST_ALL : dest);
        break;
    }
    case REG_ICR_HIGH:
        l->icr_high = value & 0xff000000;
        break;
    case REG_ID: /* constant, as on any processor with x2APIC */
    case REG_VERSION:
    case REG_APR:
    case REG_PPR:
    case REG_RRD:
    case REG_CURRENT_COUNT:
    case REG_ISR ... REG_IRR + 7:
        break;
    default:
        if (!write_register(l, reg, value))
            lapic_error(l, ESR_REGISTER);
    }
}

/* ---- x2APIC ---- */

static int x2apic_read(struct lapic *l, unsigned reg, uint64_t *value)
{
    uint32_t low = 0;

    switch (reg) {
    case REG_ID:
        *value = l->id;
        return 0;
    case REG_LDR:
        *value = lapic_x2apic_ldr(l);
        return 0;
    case REG_ICR:
        *value = (uint64_t)l->icr_high << 32 | l->icr;
        return 0;
    default:
        if (!read_register(l, reg, &low))
            return -EINVAL;
        *value = low;
        return 0;
    }
}

/* The bits that may be set in a write of each register: all others are reserved and fault (SDM vol. 3A
 * 11.12.1.2, 11.12.1.3). *known is false for what is not writable at all. */
static uint32_t x2apic_writable(unsigned reg, bool *known)
{
    *known = true;
    switch (reg) {
    case REG_TPR:
        return 0xff;
    case REG_EOI:
    case REG_ESR:
        return 0;
    case REG_SVR:
        return SVR_WRITABLE | 0x200; /* focus checking, of old: taken and ignored */
    case REG_LVT_TIMER ... REG_LVT_ERROR:
        return lvt_writable[LVT_INDEX(reg)] | LVT_READ_ONLY;
    case REG_INITIAL_COUNT:
        return UINT32_MAX;
    case REG_DIVIDE:
        return DIVIDE_BITS;
    case REG_SELF_IPI:
        return 0xff;
    default:
        *known = false;
        return 0;
    }
}

static int x2apic_write(struct lapic *l, unsigned reg, uint64_t value)
{
    if (reg == REG_ICR) {
        if ((uint32_t)value & ~(ICR_WRITABLE | ICR_STATUS))
            return -EINVAL;
        l->icr = (uint32_t)value & ICR_WRITABLE;
        l->icr_high = (uint32_t)(value >> 32);
        lapic_send_ipi(l, l->icr, l->icr_high);
        return 0;
    }
    bool known;
    uint32_t writable = x2apic_writable(reg, &known);
    if (!known || (value & ~(uint64_t)writable))
        return -EINVAL;
    if (reg == REG_SELF_IPI) {
        if (value < 16)
            lapic_error(l, ESR_SEND_VECTOR);
        else
            lapic_receive(l, DELIVER_FIXED, (uint8_t)value, false);
        return 0;
    }
    return write_register(l, reg, (uint32_t)value) ? 0 : -EINVAL;
}

/* ---- model-specific registers ---- */

/*
 * IA32_APIC_BASE: the mode goes off -> xAPIC -> x2APIC -> off only (SDM vol. 3A figure 11-27), and off clears
 * the APIC.
 */
static int set_base(struct lapic *l, uint64_t value)
{
    const uint64_t mode_bits = LAPIC_BASE_ENABLE | LAPIC_BASE_X2APIC;
    uint64_t old = atomic_load(&l->base);
    uint64_t mode = value & mode_bits, old_mode = old & mode_bits;

    if (value & ~(mode_bits | LAPIC_BASE_BSP | 0x000ffffffffff000ull))
        return -EINVAL;
    if (mode == LAPIC_BASE_X2APIC)
        return -EINVAL;
    if (mode == mode_bits && !old_mode)
        return -EINVAL;
    if (mode == LAPIC_BASE_ENABLE && old_mode == mode_bits)
        return -EINVAL;
    if (!mode && old_mode) {
        atomic_store(&l->base, value);
        lapic_reset(l, true);
    }
    if (mode == mode_bits && old_mode != mode_bits)
        l->icr_high = 0;
    atomic_store(&l->base, value);
    if (mode != old_mode)
        lapic_notice(l);
    return 0;
}

int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value)
{
    if (msr == LAPIC_MSR_BASE) {
        *value = atomic_load(&l->base);
        return 0;
    }
    if (msr == LAPIC_MSR_TSC_DEADLINE) {
        *value = lapic_timer_deadline(l);
        return 0;
    }
    if (msr < LAPIC_MSR_X2APIC_FIRST || msr > LAPIC_MSR_X2APIC_LAST || !lapic_on(l) || !lapic_x2apic(l))
        return -EINVAL;
    return x2apic_read(l, msr - LAPIC_MSR_X2APIC_FIRST, value);
}

int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value)
{
    if (msr == LAPIC_MSR_BASE)
        return set_base(l, value);
    if (msr == LAPIC_MSR_TSC_DEADLINE) {
        lapic_timer_set_deadline(l, value);
        return 0;
    }
    if (msr < LAPIC_MSR_X2APIC_FIRST || msr > LAPIC_MSR_X2APIC_LAST || !lapic_on(l) || !lapic_x2apic(l))
        return -EINVAL;
    return x2apic_write(l, msr - LAPIC_MSR_X2APIC_FIRST, value);
}

uint64_t lapic_get_cr8(struct lapic *l)
{
    return l->tpr >> 4;
}

void lapic_set_cr8(struct lapic *l, uint64_t value)
{
    set_tpr(l, (uint32_t)(value & 0xf) << 4);
}
