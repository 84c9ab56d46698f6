/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CPUID that a guest of the kvm engine sees: what the kernel supports, less nested virtualization, with
 * the machine's own topology and clocks. Called while the engine is created.
 */
#include "engine/kvm/kvm_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>

#define LEAF1_ECX_MONITOR      (1u << 3)
#define LEAF1_ECX_VMX          (1u << 5)
#define LEAF1_ECX_X2APIC       (1u << 21)
#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_XSAVE        (1u << 26)
#define EXT1_ECX_SVM           (1u << 2)

static struct kvm_cpuid2 *supported(struct kvm_engine *k, struct error **err)
{
    struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + CPUID_MAX_ENTRIES * sizeof(list->entries[0]));

    if (!list) {
        error_set_errno(err, ENOMEM, "KVM's CPUID");
        return NULL;
    }
    list->nent = CPUID_MAX_ENTRIES;
    int rc = kvm_ioctl(k->kvm_fd, KVM_GET_SUPPORTED_CPUID, list);
    if (rc < 0) {
        error_set_errno(err, -rc, "KVM: asking what it supports of CPUID");
        free(list);
        return NULL;
    }
    return list;
}

/* The guest's TSC runs at the host's rate; the kernel knows it best. */
static int read_tsc_hz(struct kvm_engine *k, struct error **err)
{
    int khz = kvm_ioctl_value(k->vcpu[0].cpu.fd, KVM_GET_TSC_KHZ, 0);

    if (khz <= 0)
        return error_set(err, ENOTSUP, "KVM does not know how fast this host's TSC runs");
    k->tsc_hz = (uint64_t)khz * 1000;
    return 0;
}

static void adapt(struct kvm_engine *k)
{
    struct cpuid_entry *e = cpuid_find(&k->cpuid, 1, 0);

    if (e) {
        e->reg[CPUID_ECX] &= ~(LEAF1_ECX_MONITOR | LEAF1_ECX_VMX);
        e->reg[CPUID_ECX] |= LEAF1_ECX_X2APIC;
        if (kvm_ioctl_value(k->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
            e->reg[CPUID_ECX] |= LEAF1_ECX_TSC_DEADLINE;
    }
    e = cpuid_find(&k->cpuid, 0x80000001, 0);
    if (e)
        e->reg[CPUID_ECX] &= ~EXT1_ECX_SVM;
    cpuid_remove(&k->cpuid, 0x8000000a); /* SVM's details */
    e = cpuid_find(&k->cpuid, CPUID_KVM_FEATURES, 0);
    cpuid_apply_platform(&k->cpuid, k->config.cpus, k->tsc_hz,
                         e ? e->reg[CPUID_EAX] : CPUID_KVM_CLOCKSOURCE2);
}

static uint64_t usable_xcr0(struct kvm_engine *k)
{
    struct cpuid_entry *one = cpuid_find(&k->cpuid, 1, 0), *xsave = cpuid_find(&k->cpuid, 0xd, 0);

    if (!one || !(one->reg[CPUID_ECX] & LEAF1_ECX_XSAVE) || !xsave)
        return 0;
    return (uint64_t)xsave->reg[CPUID_EDX] << 32 | xsave->reg[CPUID_EAX];
}

int kvm_features_build(struct kvm_engine *k, struct error **err)
{
    cleanup_free struct kvm_cpuid2 *list = supported(k, err);
    int rc = list ? read_tsc_hz(k, err) : -ENODEV;

    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < list->nent; i++) {
        const struct kvm_cpuid_entry2 *from = &list->entries[i];

        cpuid_set(&k->cpuid, &(struct cpuid_entry){.leaf = from->function,
                                                   .subleaf = from->index,
                                                   .indexed = from->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                                                   .reg = {from->eax, from->ebx, from->ecx, from->edx}});
    }
    adapt(k);
    k->xcr0 = usable_xcr0(k);
    return k->cpuid.full ? error_set(err, E2BIG, "KVM: more CPUID leaves than expected") : 0;
}

int kvm_features_apply(struct kvm_vcpu *v, struct error **err)
{
    const struct cpuid_table *t = &v->engine->cpuid;
    cleanup_free struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + t->n * sizeof(list->entries[0]));
    /* As right after RESET: the kernel itself follows CR4, XCR0 and the APIC's base from then on. */
    const struct cpuid_context context = {.apic_id = v->index, .xcr0 = 1, .apic_base = 1u << 11};

    if (!list)
        return error_set_errno(err, ENOMEM, "CPUID of vCPU %u", v->index);
    for (unsigned i = 0; i < t->n; i++) {
        const struct cpuid_entry *from = &t->entry[i];
        struct kvm_cpuid_entry2 *to = &list->entries[list->nent++];
        uint32_t out[CPUID_REGS];

        cpuid_lookup_live(t, &context, from->leaf, from->subleaf, out);
        *to = (struct kvm_cpuid_entry2){.function = from->leaf,
                                        .index = from->subleaf,
                                        .flags = from->indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
                                        .eax = out[CPUID_EAX],
                                        .ebx = out[CPUID_EBX],
                                        .ecx = out[CPUID_ECX],
                                        .edx = out[CPUID_EDX]};
    }
    int rc = kvm_ioctl(v->cpu.fd, KVM_SET_CPUID2, list);
    return rc < 0 ? error_set_errno(err, -rc, "KVM: setting the CPUID of vCPU %u", v->index) : 0;
}
