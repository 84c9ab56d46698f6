/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What CPUID tells a guest, for both engines: a table of leaves, made once per machine. The kvm engine starts
 * from what the kernel supports, the soft engine from what it implements; topology, clocks and the
 * paravirtual leaves are the same for both. SDM vol. 2A CPUID; AMD64 APM vol. 3 appendix E. No state, no
 * locks: a finished table is read by any thread.
 */
#ifndef TABIQUE_ENGINE_CPUID_H
#define TABIQUE_ENGINE_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#define CPUID_MAX_ENTRIES 256

/* Registers of a result, in the order of `out` and `reg`. */
enum cpuid_reg { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX, CPUID_REGS };

/* The clock that the local APIC's timer counts (before its divider), as the in-kernel one of KVM. */
#define CPUID_APIC_BUS_HZ 1000000000u

/* The paravirtual leaves of KVM (Documentation/virt/kvm/x86/cpuid.rst). */
#define CPUID_KVM_SIGNATURE 0x40000000u
#define CPUID_KVM_FEATURES  0x40000001u
#define CPUID_HV_TIMING     0x40000010u

#define CPUID_KVM_CLOCKSOURCE        (1u << 0)
#define CPUID_KVM_NOP_IO_DELAY       (1u << 1)
#define CPUID_KVM_CLOCKSOURCE2       (1u << 3)
#define CPUID_KVM_CLOCKSOURCE_STABLE (1u << 24)

struct cpuid_entry {
    uint32_t leaf;
    uint32_t subleaf;
    bool indexed; /* the result depends on the subleaf (ECX); else subleaf is 0 and any ECX gives it */
    uint32_t reg[CPUID_REGS];
};

struct cpuid_table {
    unsigned n;
    bool full; /* an entry was lost for want of room */
    struct cpuid_entry entry[CPUID_MAX_ENTRIES];
};

/* What an answer depends on beside the table. */
struct cpuid_context {
    uint32_t apic_id;
    uint64_t cr4;       /* OSXSAVE shows there */
    uint64_t xcr0;      /* decides the size that leaf 0xD tells */
    uint64_t apic_base; /* IA32_APIC_BASE: a disabled APIC hides its feature bit */
};

/* Where the soft engine learns what the processor under it can do; tests put their own in place. */
struct cpuid_host {
    void (*leaf)(uint32_t leaf, uint32_t subleaf, uint32_t out[CPUID_REGS]);
    uint64_t xcr0; /* the state components that the host's kernel has enabled; 0 without XSAVE */
};

/* Puts an entry in, in place of one of the same leaf (and subleaf, if indexed). */
void cpuid_set(struct cpuid_table *t, const struct cpuid_entry *e);
/* Takes all subleaves of a leaf out. */
void cpuid_remove(struct cpuid_table *t, uint32_t leaf);
/* The entry itself, or NULL. Without the rule for leaves out of range. */
struct cpuid_entry *cpuid_find(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf);

/*
 * Writes what the machine decides into a table of processor features: `cpus` cores (1..255) with one thread
 * each in one socket, APIC ids from 0; the TSC's and the APIC timer's frequency (leaves 0x15, 0x16,
 * 0x40000010); the hypervisor bit and KVM's signature with `kvm_features` (leaf 0x40000001 EAX).
 */
void cpuid_apply_platform(struct cpuid_table *t, unsigned cpus, uint64_t tsc_hz, uint32_t kvm_features);

/*
 * The soft engine's table: what it implements, less what it takes from the host's processor and that lacks.
 * tsc_hz: of the guest's TSC.
 */
void cpuid_build_soft(struct cpuid_table *t, unsigned cpus, uint64_t tsc_hz);
void cpuid_build_soft_on(struct cpuid_table *t, const struct cpuid_host *host, unsigned cpus,
                         uint64_t tsc_hz);

/*
 * IA32_ARCH_CAPABILITIES (MSR 0x10A) of the soft engine: what a guest's kernel need not guard against, since
 * none of its guards would act in translated code and each would be paid for. The guest is to have
 * IA32_SPEC_CTRL (0x48) and IA32_PRED_CMD (0x49), which hold and ignore what is written.
 */
uint64_t cpuid_arch_capabilities(void);

/*
 * The answer to CPUID with EAX `leaf` and ECX `subleaf`. A leaf beyond the last of its range gives, as on
 * Intel's processors, the last basic one's; zeros on AMD's. Static: as for a processor with APIC id 0.
 */
void cpuid_lookup(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf, uint32_t out[CPUID_REGS]);
/* The same as the processor in `context` sees it at this moment. */
void cpuid_lookup_live(const struct cpuid_table *t, const struct cpuid_context *context, uint32_t leaf,
                       uint32_t subleaf, uint32_t out[CPUID_REGS]);

/* The bits of a guest-physical address (leaf 0x80000008; 36 without that leaf). */
unsigned cpuid_physical_bits(const struct cpuid_table *t);

#endif
