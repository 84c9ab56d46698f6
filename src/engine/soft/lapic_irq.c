/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is pending in a local APIC: request, service and trigger bits, priorities, events, LVT entries (SDM
 * vol. 3A 11.5, 11.8). Called by the other parts of the local APIC and by the vCPU. No locks: IRR, TMR and
 * events are set by any thread with atomic operations; all else belongs to the vCPU's thread.
 */
#include "engine/soft/lapic_priv.h"

void lapic_wake(struct lapic *l)
{
    l->bus->callbacks.wake(l->bus->callbacks.opaque, l->id);
}

void lapic_notice(struct lapic *l)
{
    if (lapic_has_work(l))
        lapic_wake(l);
}

/* ---- vectors ---- */

/* A bit that was set already has its own setter on the way to the vCPU: nothing is left to do then. */
static void request(struct lapic *l, uint8_t vector, bool level)
{
    unsigned word = vector / 32;
    uint32_t bit = 1u << (vector % 32);

    if (level)
        atomic_fetch_or(&l->tmr[word], bit);
    else if (atomic_load(&l->tmr[word]) & bit)
        atomic_fetch_and(&l->tmr[word], ~bit);
    if (atomic_fetch_or(&l->irr[word], bit) & bit)
        return;
    atomic_fetch_or(&l->irr_words, 1u << word);
    lapic_wake(l);
}

/*
 * The summary may claim a word that is empty, never the reverse: a setter sets its bit in the word first, and
 * whoever clears a summary bit looks at the word again afterwards.
 */
static void forget_word(struct lapic *l, unsigned word)
{
    atomic_fetch_and(&l->irr_words, ~(1u << word));
    if (atomic_load(&l->irr[word]))
        atomic_fetch_or(&l->irr_words, 1u << word);
}

/* The highest requested vector, or -1. Any thread. */
static int highest_request(struct lapic *l)
{
    uint32_t words = atomic_load(&l->irr_words);

    while (words) {
        unsigned word = 31u - (unsigned)__builtin_clz(words);
        uint32_t bits = atomic_load(&l->irr[word]);
        if (bits)
            return (int)(word * 32 + 31u - (unsigned)__builtin_clz(bits));
        words &= ~(1u << word);
    }
    return -1;
}

static int highest_in_service(const struct lapic *l)
{
    if (!l->isr_words)
        return -1;
    unsigned word = 31u - (unsigned)__builtin_clz(l->isr_words);
    return (int)(word * 32 + 31u - (unsigned)__builtin_clz(l->isr[word]));
}

/* SDM vol. 3A 11.8.3.1 */
void lapic_update_ppr(struct lapic *l)
{
    int vector = highest_in_service(l);
    uint32_t service = vector < 0 ? 0 : (uint32_t)vector & 0xf0;
    uint32_t ppr = (l->tpr & 0xf0) >= service ? l->tpr : service;

    atomic_store(&l->ppr, ppr);
}

int lapic_interrupt(struct lapic *l)
{
    if (!atomic_load_explicit(&l->irr_words, memory_order_acquire))
        return -1;
    int vector = highest_request(l);
    if (vector < 0 || ((uint32_t)vector & 0xf0) <= (atomic_load(&l->ppr) & 0xf0))
        return -1;
    return lapic_software_enabled(l) ? vector : -1;
}

void lapic_accept(struct lapic *l, int vector)
{
    unsigned word = (unsigned)vector / 32;
    uint32_t bit = 1u << ((unsigned)vector % 32);

    if (!(atomic_fetch_and(&l->irr[word], ~bit) & ~bit))
        forget_word(l, word);
    l->isr[word] |= bit;
    l->isr_words |= 1u << word;
    lapic_update_ppr(l);
}

void lapic_eoi(struct lapic *l)
{
    int vector = highest_in_service(l);
    if (vector < 0)
        return;
    unsigned word = (unsigned)vector / 32;
    uint32_t bit = 1u << ((unsigned)vector % 32);

    l->isr[word] &= ~bit;
    if (!l->isr[word])
        l->isr_words &= ~(1u << word);
    lapic_update_ppr(l);
    if ((atomic_load(&l->tmr[word]) & bit) && !(atomic_load(&l->svr) & SVR_NO_EOI_CAST) && l->bus->eoi)
        l->bus->eoi(l->bus->eoi_opaque, (uint8_t)vector);
    lapic_notice(l);
}

/* ---- events ---- */

/* An INIT cancels a SIPI that was not taken before it. */
static void raise_event(struct lapic *l, uint32_t set, uint32_t clear)
{
    uint32_t old = atomic_load(&l->events), new;

    do {
        new = (old & ~clear) | set;
    } while (!atomic_compare_exchange_weak(&l->events, &old, new));
    lapic_wake(l);
}

/* Whether INTR reaches the processor: LINT0 passes it as ExtINT, or the APIC is off and LINT0 is INTR (SDM
 * vol. 3A 11.4.3). */
static bool passes_intr(struct lapic *l)
{
    uint32_t lvt = atomic_load(&l->lvt[LVT_INDEX(REG_LVT_LINT0)]);

    if (!lapic_on(l))
        return true;
    return !(lvt & LVT_MASKED) && (lvt & LVT_MODE) >> LVT_MODE_SHIFT == DELIVER_EXTINT;
}

static bool extint(struct lapic *l)
{
    return atomic_load(&l->bus->intr) && passes_intr(l);
}

unsigned lapic_take_events(struct lapic *l)
{
    unsigned taken = 0;

    if (atomic_load(&l->events)) {
        uint32_t events = atomic_exchange(&l->events, 0);
        if (events & LAPIC_EVENT_SIPI)
            l->sipi_vector = (events & EVENT_SIPI_MASK) >> EVENT_SIPI_SHIFT;
        taken = events & EVENT_BITS;
    }
    return extint(l) ? taken | LAPIC_EVENT_EXTINT : taken;
}

unsigned lapic_sipi_vector(struct lapic *l)
{
    return l->sipi_vector;
}

bool lapic_has_work(struct lapic *l)
{
    return atomic_load(&l->events) || lapic_interrupt(l) >= 0 || extint(l);
}

void lapic_bus_set_intr(struct lapic_bus *bus, bool level)
{
    if (atomic_exchange(&bus->intr, level) == level)
        return;
    if (!level)
        return;
    for (unsigned n = 0; n < bus->cpus; n++) {
        struct lapic *l = &bus->apic[n];
        if (passes_intr(l))
            lapic_wake(l);
        else
            lapic_fire_lvt(l, LVT_INDEX(REG_LVT_LINT0));
    }
}

/* ---- what comes in ---- */

void lapic_error(struct lapic *l, uint32_t bit)
{
    if (atomic_fetch_or(&l->errors, bit) & bit)
        return;
    uint32_t lvt = atomic_load(&l->lvt[LVT_INDEX(REG_LVT_ERROR)]);
    uint8_t vector = lvt & LVT_VECTOR;
    /* An illegal vector here must not become one more error. */
    if (!(lvt & LVT_MASKED) && vector >= 16 && lapic_software_enabled(l))
        request(l, vector, false);
}

void lapic_receive(struct lapic *l, enum lapic_delivery mode, uint8_t vector, bool level)
{
    switch (mode) {
    case DELIVER_FIXED:
    case DELIVER_LOWEST:
        if (!lapic_software_enabled(l))
            return;
        if (vector < 16)
            lapic_error(l, ESR_RECEIVE_VECTOR);
        else
            request(l, vector, level);
        return;
    case DELIVER_SMI:
        raise_event(l, LAPIC_EVENT_SMI, 0);
        return;
    case DELIVER_NMI:
        raise_event(l, LAPIC_EVENT_NMI, 0);
        return;
    case DELIVER_INIT:
        raise_event(l, LAPIC_EVENT_INIT, LAPIC_EVENT_SIPI | EVENT_SIPI_MASK);
        return;
    case DELIVER_SIPI:
        raise_event(l, LAPIC_EVENT_SIPI | (uint32_t)vector << EVENT_SIPI_SHIFT, EVENT_SIPI_MASK);
        return;
    case DELIVER_EXTINT:
        raise_event(l, LAPIC_EVENT_EXTINT, 0);
        return;
    }
}

void lapic_fire_lvt(struct lapic *l, unsigned index)
{
    uint32_t lvt = atomic_load(&l->lvt[index]);

    if ((lvt & LVT_MASKED) || !lapic_on(l))
        return;
    /* The timer's and the error entry have no delivery mode. */
    enum lapic_delivery mode = DELIVER_FIXED;
    if (index != LVT_INDEX(REG_LVT_TIMER) && index != LVT_INDEX(REG_LVT_ERROR))
        mode = (lvt & LVT_MODE) >> LVT_MODE_SHIFT;
    if (mode == DELIVER_FIXED || mode == DELIVER_NMI || mode == DELIVER_SMI || mode == DELIVER_INIT)
        lapic_receive(l, mode, lvt & LVT_VECTOR, false);
}

void lapic_irq_reset(struct lapic *l, bool init)
{
    for (unsigned word = 0; word < 8; word++) {
        atomic_store(&l->irr[word], 0);
        forget_word(l, word);
        atomic_store(&l->tmr[word], 0);
        l->isr[word] = 0;
    }
    l->isr_words = 0;
    if (!init) {
        atomic_store(&l->events, 0);
        l->sipi_vector = 0;
    }
    lapic_update_ppr(l);
}
