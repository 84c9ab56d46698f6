/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The local APICs of the soft engine's vCPUs and the bus between them (SDM vol. 3A chapter 11): xAPIC page,
 * x2APIC registers, IPIs, messages of devices and of the I/O APIC, the timer.
 *
 * Threads: what is marked "own thread" is for the thread of that vCPU (or for anyone while the vCPUs are
 * paused); everything else may be called from any thread. Nothing here blocks; the only lock is the timer's,
 * a leaf but for those of the event loop. `wake` and `eoi` are called with no lock held.
 */
#ifndef TABIQUE_ENGINE_SOFT_LAPIC_H
#define TABIQUE_ENGINE_SOFT_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

struct error;
struct loop;
struct lapic;
struct lapic_bus;

#define LAPIC_MAX_CPUS 8

/* The timer counts at this rate before its divider (CPUID 0x40000010 EBX tells guests). */
#define LAPIC_TIMER_HZ 1000000000u

/* Model-specific registers. */
#define LAPIC_MSR_BASE         0x01bu
#define LAPIC_MSR_TSC_DEADLINE 0x6e0u
#define LAPIC_MSR_X2APIC_FIRST 0x800u
#define LAPIC_MSR_X2APIC_LAST  0x8ffu

/* IA32_APIC_BASE (SDM vol. 3A figure 11-26). */
#define LAPIC_BASE_BSP    (1ull << 8)
#define LAPIC_BASE_X2APIC (1ull << 10)
#define LAPIC_BASE_ENABLE (1ull << 11)
#define LAPIC_BASE_PAGE   0xfee00000ull

/* What can be pending beside vectors. */
#define LAPIC_EVENT_NMI    (1u << 0)
#define LAPIC_EVENT_SMI    (1u << 1)
#define LAPIC_EVENT_INIT   (1u << 2)
#define LAPIC_EVENT_SIPI   (1u << 3)
#define LAPIC_EVENT_EXTINT (1u << 4) /* a level: the 8259's INTR, as far as LINT0 passes it */

struct lapic_callbacks {
    /*
     * Something became pending for vCPU `cpu`, or what was pending became deliverable (then from its own
     * thread: after an EOI, a lower TPR, an unmasked LINT0). May come more often than needed.
     */
    void (*wake)(void *opaque, unsigned cpu);
    /* The guest's time stamp counter. Any thread. */
    uint64_t (*read_tsc)(void *opaque, unsigned cpu);
    uint64_t tsc_hz;
    void *opaque;
};

/* ---- the bus ---- */

/* cpus: 1..LAPIC_MAX_CPUS; APIC n has id n, 0 is the bootstrap processor's. The loop must outlive the bus.
 * 0 or -errno. All APICs are in their reset state. */
int lapic_bus_create(struct lapic_bus **out, unsigned cpus, const struct lapic_callbacks *callbacks,
                     struct loop *loop);
/* NULL is fine. The vCPU threads have ended. */
void lapic_bus_free(struct lapic_bus *bus);
struct lapic *lapic_bus_get(struct lapic_bus *bus, unsigned cpu);

/* Who hears of the end of level-triggered interrupts: the I/O APIC. Before the vCPUs run. */
void lapic_bus_set_eoi(struct lapic_bus *bus, void (*eoi)(void *opaque, uint8_t vector), void *opaque);

/* A message-signalled interrupt (SDM vol. 3A 11.11). What no APIC takes is lost. */
void lapic_bus_deliver(struct lapic_bus *bus, uint64_t msi_address, uint32_t msi_data);

/* The level of the 8259 pair's INTR output, wired to every LINT0. */
void lapic_bus_set_intr(struct lapic_bus *bus, bool level);

/* ---- what the vCPU takes (own thread) ---- */

/* The vector to deliver now, above the processor's priority; -1 if none. */
int lapic_interrupt(struct lapic *l);
/* The vCPU delivers `vector`, which lapic_interrupt has just returned: it is in service from now on. */
void lapic_accept(struct lapic *l, int vector);
/* Takes the pending events as LAPIC_EVENT_ bits. EXTINT stays while its line is active. If INIT and SIPI come
 * together, INIT was first. */
unsigned lapic_take_events(struct lapic *l);
/* The vector (start page) of the SIPI that lapic_take_events returned last. */
unsigned lapic_sipi_vector(struct lapic *l);

/* Whether lapic_interrupt or lapic_take_events would give something. Any thread. */
bool lapic_has_work(struct lapic *l);

/* ---- registers (own thread) ---- */

/* The guest-physical page at which lapic_read and lapic_write are to be found, or UINT64_MAX when the APIC is
 * off or in x2APIC mode. */
uint64_t lapic_page(struct lapic *l);

/* The xAPIC page: offset below 4096. Reserved registers read 0 and set the error register. */
uint32_t lapic_read(struct lapic *l, unsigned offset);
void lapic_write(struct lapic *l, unsigned offset, uint32_t value);

/* IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC range. 0, or -EINVAL where the guest gets #GP. */
int lapic_msr_read(struct lapic *l, uint32_t msr, uint64_t *value);
int lapic_msr_write(struct lapic *l, uint32_t msr, uint64_t value);

/* The task-priority class, 0-15, as CR8 has it. */
uint64_t lapic_get_cr8(struct lapic *l);
void lapic_set_cr8(struct lapic *l, uint64_t value);

/* After RESET; or, with `init`, after INIT, which keeps the mode, the base and pending events. */
void lapic_reset(struct lapic *l, bool init);

/* The guest's TSC was written or stepped: the deadline timer must be set anew. */
void lapic_tsc_changed(struct lapic *l);

#endif
