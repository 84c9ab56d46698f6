/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the kvm engine share. */
#ifndef TABIQUE_ENGINE_KVM_PRIV_H
#define TABIQUE_ENGINE_KVM_PRIV_H

#include "engine/cpuid.h"
#include "engine/engine.h"
#include "host/kvm.h"

#include <pthread.h>

/* I/O APIC, and the PIC's two halves. */
#define KVM_IRQCHIPS 3

struct kvm_engine;

struct kvm_vcpu {
    struct kvm_engine *engine;
    unsigned index;
    struct kvm_cpu cpu;
    pthread_t thread;
    bool started;
    /* Under engine->lock. */
    bool parked;   /* the thread waits outside KVM_RUN with no access of the guest half done */
    bool stranded; /* it met its end (triple fault, failure): runs again only after the next resume */
    /* As the kernel made them: what a reset brings back. */
    struct kvm_lapic_state first_lapic;
    struct kvm_msrs *first_msrs;
};

struct kvm_engine {
    struct engine engine;
    struct engine_config config;
    int kvm_fd, vm_fd;
    struct cpuid_table cpuid;
    uint64_t tsc_hz;
    uint64_t xcr0; /* the state components that the guest may enable */
    struct kvm_irqchip first_irqchip[KVM_IRQCHIPS];

    pthread_mutex_t lock;
    pthread_cond_t changed; /* of running, quit, parked */
    bool running, quit;
    char *failure; /* set once */

    struct kvm_vcpu vcpu[ENGINE_MAX_CPUS];
};

/* ---- probe.c ---- */
int kvm_engine_probe(struct error **err);

/* ---- features.c: CPUID ---- */
/* Makes engine->cpuid, engine->tsc_hz and engine->xcr0 from what the kernel supports. */
int kvm_features_build(struct kvm_engine *k, struct error **err);
/* Gives it to a vCPU, with its own APIC id in. */
int kvm_features_apply(struct kvm_vcpu *v, struct error **err);

/* ---- vcpu.c: threads ---- */
int kvm_vcpu_start(struct kvm_vcpu *v, struct error **err);
/* As in struct engine_class. */
int kvm_resume(struct engine *engine, struct error **err);
void kvm_pause(struct engine *engine);
/* Ends and joins all threads that run. */
void kvm_vcpus_stop(struct kvm_engine *k);
/* Records why the engine can't go on (the first reason stays) and announces it. */
void kvm_engine_fail(struct kvm_engine *k, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- exits.c ---- */
enum vcpu_next {
    VCPU_GO_ON,
    VCPU_FINISH, /* the kernel must be entered once more before parking: the instruction is half done */
    VCPU_STRAND, /* this vCPU can't continue */
};
/* Serves what made KVM_RUN return 0. */
enum vcpu_next kvm_exit_handle(struct kvm_vcpu *v);

/* ---- state.c: registers ---- */
int kvm_state_set(struct engine *engine, unsigned cpu, const struct cpu_state *state, struct error **err);
int kvm_state_get(struct engine *engine, unsigned cpu, struct cpu_state *state, struct error **err);

/* ---- reset.c ---- */
/* The registers of a vCPU and its local APIC as after RESET. */
int kvm_state_reset(struct kvm_vcpu *v, struct error **err);
/* Remembers what a fresh vCPU holds, for kvm_state_reset. */
int kvm_state_remember(struct kvm_vcpu *v, struct error **err);

/* ---- interrupts.c: interrupt controllers, doorbells ---- */
/* Before the vCPUs are made. */
int kvm_interrupts_create(struct kvm_engine *k, struct error **err);
int kvm_interrupts_reset(struct kvm_engine *k, struct error **err);
void kvm_interrupts_listen(struct kvm_engine *k, bool on);
void kvm_irq_set(struct engine *engine, unsigned gsi, bool level);
void kvm_msi_send(struct engine *engine, uint64_t address, uint32_t data);

#endif
