/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inside of the local APIC, shared by lapic.c (registers), lapic_irq.c (what is pending, priorities),
 * lapic_bus.c (messages) and lapic_timer.c. Fields say which thread may touch them; the atomic ones are
 * written without a lock.
 */
#ifndef TABIQUE_ENGINE_SOFT_LAPIC_PRIV_H
#define TABIQUE_ENGINE_SOFT_LAPIC_PRIV_H

#include "engine/soft/lapic.h"

#include "host/loop.h"

#include <pthread.h>
#include <stdatomic.h>

/* Register numbers: the xAPIC offset, and the x2APIC MSR less 0x800, times 16 (SDM vol. 3A table 11-6). */
enum lapic_register {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0a,
    REG_EOI = 0x0b,
    REG_RRD = 0x0c,
    REG_LDR = 0x0d,
    REG_DFR = 0x0e,
    REG_SVR = 0x0f,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR = 0x30,
    REG_ICR_HIGH = 0x31,
    REG_LVT_TIMER = 0x32,
    REG_LVT_THERMAL = 0x33,
    REG_LVT_PERF = 0x34,
    REG_LVT_LINT0 = 0x35,
    REG_LVT_LINT1 = 0x36,
    REG_LVT_ERROR = 0x37,
    REG_INITIAL_COUNT = 0x38,
    REG_CURRENT_COUNT = 0x39,
    REG_DIVIDE = 0x3e,
    REG_SELF_IPI = 0x3f,
};

#define LVTS          6 /* REG_LVT_TIMER .. REG_LVT_ERROR */
#define LVT_INDEX(rn) ((rn)-REG_LVT_TIMER)

/* SVR */
#define SVR_ENABLE      (1u << 8)
#define SVR_NO_EOI_CAST (1u << 12)

/* LVT entries (SDM vol. 3A figure 11-8) and ICR (figure 11-12). */
#define LVT_VECTOR     0x000ffu
#define LVT_MODE       0x00700u
#define LVT_MODE_SHIFT 8
#define LVT_POLARITY   0x02000u
#define LVT_LEVEL      0x08000u
#define LVT_MASKED     0x10000u
#define LVT_TIMER_MODE 0x60000u
#define TIMER_ONE_SHOT 0x00000u
#define TIMER_PERIODIC 0x20000u
#define TIMER_DEADLINE 0x40000u

#define ICR_LOGICAL         (1u << 11)
#define ICR_ASSERT          (1u << 14)
#define ICR_LEVEL           (1u << 15)
#define ICR_SHORTHAND_SHIFT 18

enum lapic_delivery {
    DELIVER_FIXED = 0,
    DELIVER_LOWEST = 1,
    DELIVER_SMI = 2,
    DELIVER_NMI = 4,
    DELIVER_INIT = 5,
    DELIVER_SIPI = 6,
    DELIVER_EXTINT = 7,
};

/* ESR (SDM vol. 3A figure 11-9) */
#define ESR_SEND_VECTOR    (1u << 5)
#define ESR_RECEIVE_VECTOR (1u << 6)
#define ESR_REGISTER       (1u << 7)

#define DEST_ALL UINT32_MAX

/* lapic.events: the LAPIC_EVENT_ bits, and the vector of the last SIPI above them. */
#define EVENT_SIPI_SHIFT 8
#define EVENT_SIPI_MASK  0xff00u
#define EVENT_BITS       0x00ffu

struct lapic_timer {
    pthread_mutex_t lock; /* guards what follows */
    struct loop_timer *timer;
    uint32_t mode;    /* TIMER_ONE_SHOT, ... */
    uint32_t initial; /* counts */
    uint32_t divider; /* 1..128 */
    bool running;
    uint64_t expires;  /* ns of CLOCK_MONOTONIC; one-shot and periodic, while running */
    uint64_t deadline; /* guest TSC; 0 is off */
};

struct lapic {
    struct lapic_bus *bus;
    unsigned id;

    /* Set by any thread, cleared by the own one. Bit n of irr_words: irr[n] may be nonzero. */
    _Atomic uint32_t irr_words;
    _Atomic uint32_t events;
    _Atomic uint32_t irr[8];
    _Atomic uint32_t tmr[8];
    _Atomic uint32_t errors; /* not yet latched in esr */

    /* Set by the own thread, read by any. */
    _Atomic uint64_t base; /* IA32_APIC_BASE */
    _Atomic uint32_t svr;
    _Atomic uint32_t ldr;
    _Atomic uint32_t dfr;
    _Atomic uint32_t ppr;
    _Atomic uint32_t lvt[LVTS];

    /* Own thread. */
    uint32_t tpr;
    uint32_t isr[8];
    uint32_t isr_words; /* bit n: isr[n] is nonzero */
    uint32_t esr;
    uint32_t icr, icr_high;
    uint32_t divide;
    unsigned sipi_vector;

    struct lapic_timer timer;
};

struct lapic_bus {
    unsigned cpus;
    struct lapic_callbacks callbacks;
    struct loop *loop;
    void (*eoi)(void *opaque, uint8_t vector);
    void *eoi_opaque;
    _Atomic uint32_t intr;        /* 0 or 1 */
    _Atomic uint32_t next_lowest; /* where arbitration starts, so that equals take turns */
    struct lapic apic[];
};

struct lapic_message {
    uint32_t dest; /* DEST_ALL, or an id or set of ids */
    bool logical;
    bool level;
    uint8_t mode; /* enum lapic_delivery */
    uint8_t vector;
};

static inline bool lapic_on(struct lapic *l)
{
    return atomic_load_explicit(&l->base, memory_order_relaxed) & LAPIC_BASE_ENABLE;
}
static inline bool lapic_x2apic(struct lapic *l)
{
    return atomic_load_explicit(&l->base, memory_order_relaxed) & LAPIC_BASE_X2APIC;
}
/* Globally on and enabled by SVR: takes and gives vectors. */
static inline bool lapic_software_enabled(struct lapic *l)
{
    return lapic_on(l) && (atomic_load_explicit(&l->svr, memory_order_relaxed) & SVR_ENABLE);
}

/* The logical id of an x2APIC: cluster in the upper half, one bit in the lower (SDM vol. 3A 11.12.10.2). */
static inline uint32_t lapic_x2apic_ldr(const struct lapic *l)
{
    return (uint32_t)(l->id >> 4) << 16 | 1u << (l->id & 15);
}

/* lapic_irq.c */
void lapic_wake(struct lapic *l);
/* Wakes the own vCPU if something can be delivered now. */
void lapic_notice(struct lapic *l);
void lapic_update_ppr(struct lapic *l);
void lapic_error(struct lapic *l, uint32_t bit);
/* Puts an interrupt into this APIC, as a message on the bus or an LVT entry does. Any thread. */
void lapic_receive(struct lapic *l, enum lapic_delivery mode, uint8_t vector, bool level);
void lapic_eoi(struct lapic *l);
/* Fires LVT entry `index` if it is not masked. Any thread. */
void lapic_fire_lvt(struct lapic *l, unsigned index);
void lapic_irq_reset(struct lapic *l, bool init);

/* lapic_bus.c */
void lapic_bus_send(struct lapic_bus *bus, const struct lapic_message *m);
/* A write of ICR; own thread. */
void lapic_send_ipi(struct lapic *l, uint32_t low, uint32_t dest);

/* lapic_timer.c; own thread */
int lapic_timer_init(struct lapic *l);
void lapic_timer_fini(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
void lapic_timer_set_mode(struct lapic *l, uint32_t mode);
void lapic_timer_set_initial(struct lapic *l, uint32_t count);
void lapic_timer_set_divide(struct lapic *l, uint32_t divide);
uint32_t lapic_timer_initial(struct lapic *l);
uint32_t lapic_timer_current(struct lapic *l);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
uint64_t lapic_timer_deadline(struct lapic *l);

#endif
