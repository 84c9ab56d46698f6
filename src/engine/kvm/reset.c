/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vCPU's reset. What the kernel made it with is remembered and written back: all MSRs that it can hold (the
 * paravirtual ones too, so that no clock page or steal-time record of the guest before is written into the
 * memory of the next), the local APIC, pending events. Called with the engine paused. No locks.
 */
#include "engine/kvm/kvm_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MSR_IA32_TSC         0x10
#define MSR_IA32_MISC_ENABLE 0x1a0
#define MSR_IA32_MTRR_DEF    0x2ff
#define MSR_EFER             0xc0000080u

/* The paravirtual ones, through which the kernel writes into guest memory. */
#define MSR_KVM_FIRST 0x4b564d00u
#define MSR_KVM_LAST  0x4b564dffu

/* Synthetic MSRs of another hypervisor's interface, which our guests don't have. */
#define MSR_FOREIGN_FIRST 0x40000000u
#define MSR_FOREIGN_LAST  0x400001ffu

#define MAX_MSRS 512

struct one_msr {
    struct kvm_msrs head;
    struct kvm_msr_entry entry;
};

static int read_msr(const struct kvm_vcpu *v, uint32_t index, uint64_t *value)
{
    struct one_msr m = {.head.nmsrs = 1, .entry.index = index};

    if (kvm_ioctl(v->cpu.fd, KVM_GET_MSRS, &m) != 1)
        return -ENOENT;
    *value = m.entry.data;
    return 0;
}

static int write_msr(const struct kvm_vcpu *v, uint32_t index, uint64_t value)
{
    struct one_msr m = {.head.nmsrs = 1, .entry = {.index = index, .data = value}};

    return kvm_ioctl(v->cpu.fd, KVM_SET_MSRS, &m) == 1 ? 0 : -EINVAL;
}

/* The indices of the MSRs that this kernel can hold, in a list that the caller frees. */
static struct kvm_msr_list *known_msrs(const struct kvm_engine *k, struct error **err)
{
    struct kvm_msr_list *list = calloc(1, sizeof(*list) + MAX_MSRS * sizeof(list->indices[0]));
    int rc = -ENOMEM;

    if (list) {
        list->nmsrs = MAX_MSRS;
        rc = kvm_ioctl(k->kvm_fd, KVM_GET_MSR_INDEX_LIST, list);
    }
    if (rc < 0) {
        free(list);
        error_set_errno(err, -rc, "KVM: listing the MSRs");
        return NULL;
    }
    return list;
}

/*
 * The TSC runs on through a reset: setting it back would only set the vCPUs' apart. EFER is set with the
 * control registers that it depends on.
 */
static bool is_reset(uint32_t msr)
{
    return msr != MSR_IA32_TSC && msr != MSR_EFER && (msr < MSR_FOREIGN_FIRST || msr > MSR_FOREIGN_LAST);
}

int kvm_state_remember(struct kvm_vcpu *v, struct error **err)
{
    cleanup_free struct kvm_msr_list *list = known_msrs(v->engine, err);

    if (!list)
        return -ENODEV;
    v->first_msrs = calloc(1, sizeof(*v->first_msrs) + list->nmsrs * sizeof(v->first_msrs->entries[0]));
    if (!v->first_msrs)
        return error_set_errno(err, ENOMEM, "MSRs of vCPU %u", v->index);
    for (uint32_t i = 0; i < list->nmsrs; i++) {
        uint64_t value;

        if (is_reset(list->indices[i]) && read_msr(v, list->indices[i], &value) == 0)
            v->first_msrs->entries[v->first_msrs->nmsrs++] =
                (struct kvm_msr_entry){.index = list->indices[i], .data = value};
    }
    int rc = kvm_ioctl(v->cpu.fd, KVM_GET_LAPIC, &v->first_lapic);
    return rc < 0 ? error_set_errno(err, -rc, "KVM: reading the local APIC of vCPU %u", v->index) : 0;
}

/*
 * Only what changed is written, and where the kernel refuses (a counter that it keeps for itself), the value
 * stays; but not so where it writes to guest memory.
 */
static int reset_msrs(struct kvm_vcpu *v, struct error **err)
{
    for (uint32_t i = 0; i < v->first_msrs->nmsrs; i++) {
        const struct kvm_msr_entry *first = &v->first_msrs->entries[i];
        uint64_t now;

        if (read_msr(v, first->index, &now) == 0 && now != first->data &&
            write_msr(v, first->index, first->data) < 0 && first->index >= MSR_KVM_FIRST &&
            first->index <= MSR_KVM_LAST)
            return error_set(err, EINVAL, "KVM: resetting MSR 0x%x of vCPU %u", first->index, v->index);
    }
    uint64_t misc = 0;
    if (read_msr(v, MSR_IA32_MISC_ENABLE, &misc) == 0)
        write_msr(v, MSR_IA32_MISC_ENABLE, misc | CPU_MISC_ENABLE_FAST_STRING);
    write_msr(v, MSR_IA32_MTRR_DEF, CPU_MTRR_DEF_TYPE);
    return 0;
}

int kvm_state_reset(struct kvm_vcpu *v, struct error **err)
{
    struct kvm_vcpu_events events;
    struct cpu_state state;
    struct cpuid_entry *one = cpuid_find(&v->engine->cpuid, 1, 0);

    /* The MSRs first: the state below sets some of them for itself. */
    int rc = reset_msrs(v, err);
    if (rc < 0)
        return rc;
    cpu_state_reset(&state, v->index == 0);
    if (one)
        state.gpr[CPU_RDX] = one->reg[CPUID_EAX];
    rc = kvm_state_set(&v->engine->engine, v->index, &state, err);
    if (rc < 0)
        return rc;
    rc = kvm_ioctl(v->cpu.fd, KVM_GET_VCPU_EVENTS, &events);
    if (rc >= 0) {
        /* No exception, interrupt or NMI on its way, nothing blocked; the kernel's own validity bits stay. */
        memset(&events.exception, 0, sizeof(events.exception));
        memset(&events.interrupt, 0, sizeof(events.interrupt));
        memset(&events.nmi, 0, sizeof(events.nmi));
        events.sipi_vector = 0;
        events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
        rc = kvm_ioctl(v->cpu.fd, KVM_SET_VCPU_EVENTS, &events);
    }
    if (rc >= 0)
        rc = kvm_ioctl(v->cpu.fd, KVM_SET_LAPIC, &v->first_lapic);
    return rc < 0 ? error_set_errno(err, -rc, "KVM: resetting vCPU %u", v->index) : 0;
}
