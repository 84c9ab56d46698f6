/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vCPU's registers, between the kernel's layouts and struct cpu_state. Called with the engine paused, by
 * the machine's thread. No locks.
 *
 * Vector state beyond AVX (AVX-512, AMX) is the guest's to use, but no part of struct cpu_state: reading
 * leaves it out, writing puts it in its initial state.
 */
#include "engine/kvm/kvm_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define XSAVE_XSTATE_BV 512
#define XSAVE_COMMON    7ull /* x87, SSE, AVX: what struct cpu_state holds */

#define MSR_IA32_SYSENTER_CS  0x174
#define MSR_IA32_SYSENTER_ESP 0x175
#define MSR_IA32_SYSENTER_EIP 0x176
#define MSR_IA32_PAT          0x277
#define MSR_STAR              0xc0000081
#define MSR_LSTAR             0xc0000082
#define MSR_CSTAR             0xc0000083
#define MSR_FMASK             0xc0000084
#define MSR_KERNEL_GS_BASE    0xc0000102
#define MSR_TSC_AUX           0xc0000103

struct msr_list {
    struct kvm_msrs head;
    struct kvm_msr_entry entry[16];
};

/* The MSRs of struct cpu_state that are not in kvm_sregs. */
static const struct {
    uint32_t index;
    size_t offset;
} msr_fields[] = {
    {MSR_STAR, offsetof(struct cpu_state, star)},
    {MSR_LSTAR, offsetof(struct cpu_state, lstar)},
    {MSR_CSTAR, offsetof(struct cpu_state, cstar)},
    {MSR_FMASK, offsetof(struct cpu_state, fmask)},
    {MSR_KERNEL_GS_BASE, offsetof(struct cpu_state, kernel_gs_base)},
    {MSR_IA32_SYSENTER_CS, offsetof(struct cpu_state, sysenter_cs)},
    {MSR_IA32_SYSENTER_ESP, offsetof(struct cpu_state, sysenter_esp)},
    {MSR_IA32_SYSENTER_EIP, offsetof(struct cpu_state, sysenter_eip)},
    {MSR_IA32_PAT, offsetof(struct cpu_state, pat)},
    {MSR_TSC_AUX, offsetof(struct cpu_state, tsc_aux)}, /* last: not every processor has it */
};

static int fail(struct error **err, int rc, const struct kvm_vcpu *v, const char *what)
{
    return error_set_errno(err, -rc, "KVM: %s of vCPU %u", what, v->index);
}

static struct kvm_segment segment_to_kvm(const struct cpu_segment_state *s)
{
    return (struct kvm_segment){.base = s->base,
                                .limit = s->limit,
                                .selector = s->selector,
                                .type = s->attr & CPU_ATTR_TYPE,
                                .s = !!(s->attr & CPU_ATTR_S),
                                .dpl = (s->attr & CPU_ATTR_DPL) >> CPU_ATTR_DPL_SHIFT,
                                .present = !!(s->attr & CPU_ATTR_P),
                                .avl = !!(s->attr & CPU_ATTR_AVL),
                                .l = !!(s->attr & CPU_ATTR_L),
                                .db = !!(s->attr & CPU_ATTR_DB),
                                .g = !!(s->attr & CPU_ATTR_G),
                                .unusable = !(s->attr & CPU_ATTR_P)};
}

static struct cpu_segment_state segment_from_kvm(const struct kvm_segment *s)
{
    return (struct cpu_segment_state){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .attr = (uint16_t)((s->type & CPU_ATTR_TYPE) | (s->s ? CPU_ATTR_S : 0) |
                           (s->dpl & 3) << CPU_ATTR_DPL_SHIFT |
                           (s->present && !s->unusable ? CPU_ATTR_P : 0) | (s->avl ? CPU_ATTR_AVL : 0) |
                           (s->l ? CPU_ATTR_L : 0) | (s->db ? CPU_ATTR_DB : 0) | (s->g ? CPU_ATTR_G : 0))};
}

static struct kvm_segment *kvm_segment_at(struct kvm_sregs *s, unsigned i)
{
    struct kvm_segment *const segments[CPU_SEGMENTS] = {
        [CPU_ES] = &s->es, [CPU_CS] = &s->cs, [CPU_SS] = &s->ss,
        [CPU_DS] = &s->ds, [CPU_FS] = &s->fs, [CPU_GS] = &s->gs};

    return segments[i];
}

/* The kernel's struct names the registers in another order than their encoding. */
static __u64 *kvm_gpr_at(struct kvm_regs *r, unsigned i)
{
    __u64 *const gprs[CPU_GPRS] = {&r->rax, &r->rcx, &r->rdx, &r->rbx, &r->rsp, &r->rbp, &r->rsi, &r->rdi,
                                   &r->r8,  &r->r9,  &r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15};

    return gprs[i];
}

static int set_general(struct kvm_vcpu *v, const struct cpu_state *state)
{
    struct kvm_regs regs = {.rip = state->rip, .rflags = state->rflags};

    for (unsigned i = 0; i < CPU_GPRS; i++)
        *kvm_gpr_at(&regs, i) = state->gpr[i];
    return kvm_ioctl(v->cpu.fd, KVM_SET_REGS, &regs);
}

static int set_system(struct kvm_vcpu *v, const struct cpu_state *state)
{
    struct kvm_sregs s = {.ldt = segment_to_kvm(&state->ldtr),
                          .tr = segment_to_kvm(&state->tr),
                          .gdt = {.base = state->gdt.base, .limit = state->gdt.limit},
                          .idt = {.base = state->idt.base, .limit = state->idt.limit},
                          .cr0 = state->cr0,
                          .cr2 = state->cr2,
                          .cr3 = state->cr3,
                          .cr4 = state->cr4,
                          .cr8 = state->cr8,
                          .efer = state->efer,
                          .apic_base = state->apic_base};

    for (unsigned i = 0; i < CPU_SEGMENTS; i++)
        *kvm_segment_at(&s, i) = segment_to_kvm(&state->seg[i]);
    return kvm_ioctl(v->cpu.fd, KVM_SET_SREGS, &s);
}

static int set_vector(struct kvm_vcpu *v, const struct cpu_state *state)
{
    struct kvm_xsave area = {0};
    struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = state->xcr0}}};
    uint8_t *bytes = (uint8_t *)area.region;

    memcpy(bytes, state->xsave, sizeof(state->xsave));
    uint64_t present = get_le64(bytes + XSAVE_XSTATE_BV) & XSAVE_COMMON & (v->engine->xcr0 | 3);
    memset(bytes + XSAVE_XSTATE_BV, 0, 64);
    put_le64(bytes + XSAVE_XSTATE_BV, present);
    int rc = v->engine->xcr0 ? kvm_ioctl(v->cpu.fd, KVM_SET_XCRS, &xcrs) : 0;
    return rc < 0 ? rc : kvm_ioctl(v->cpu.fd, KVM_SET_XSAVE, &area);
}

static int set_debug(struct kvm_vcpu *v, const struct cpu_state *state)
{
    struct kvm_debugregs d = {.db = {state->dr[0], state->dr[1], state->dr[2], state->dr[3]},
                              .dr6 = state->dr[6],
                              .dr7 = state->dr[7]};

    return kvm_ioctl(v->cpu.fd, KVM_SET_DEBUGREGS, &d);
}

static int set_msrs(struct kvm_vcpu *v, const struct cpu_state *state)
{
    struct msr_list list = {.head.nmsrs = ARRAY_SIZE(msr_fields)};

    for (unsigned i = 0; i < ARRAY_SIZE(msr_fields); i++) {
        list.entry[i].index = msr_fields[i].index;
        memcpy(&list.entry[i].data, (const uint8_t *)state + msr_fields[i].offset, sizeof(uint64_t));
    }
    int rc = kvm_ioctl(v->cpu.fd, KVM_SET_MSRS, &list);
    if (rc < 0)
        return rc;
    /* It returns how many it took. TSC_AUX may be missing; zero is what it then is anyway. */
    bool aux_alone = rc == (int)ARRAY_SIZE(msr_fields) - 1 && state->tsc_aux == 0;
    return rc == (int)ARRAY_SIZE(msr_fields) || aux_alone ? 0 : -EINVAL;
}

static int set_mp_state(struct kvm_vcpu *v, const struct cpu_state *state)
{
    struct kvm_mp_state mp = {.mp_state = state->wait_for_sipi ? KVM_MP_STATE_UNINITIALIZED
                                          : state->halted      ? KVM_MP_STATE_HALTED
                                                               : KVM_MP_STATE_RUNNABLE};

    return kvm_ioctl(v->cpu.fd, KVM_SET_MP_STATE, &mp);
}

int kvm_state_set(struct engine *engine, unsigned cpu, const struct cpu_state *state, struct error **err)
{
    struct kvm_engine *k = (struct kvm_engine *)engine;
    static const struct {
        int (*set)(struct kvm_vcpu *v, const struct cpu_state *state);
        const char *what;
    } steps[] = {
        /* Modes before the registers that depend on them; XCR0 and CR4 before the vector state. */
        {set_system, "setting the system registers"},
        {set_general, "setting the general registers"},
        {set_vector, "setting the vector registers"},
        {set_debug, "setting the debug registers"},
        {set_msrs, "setting the MSRs"},
        {set_mp_state, "setting the activity state"},
    };

    if (cpu >= k->config.cpus)
        return error_set(err, EINVAL, "there is no vCPU %u", cpu);
    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
        int rc = steps[i].set(&k->vcpu[cpu], state);

        if (rc < 0)
            return fail(err, rc, &k->vcpu[cpu], steps[i].what);
    }
    return 0;
}

static int get_general(struct kvm_vcpu *v, struct cpu_state *state)
{
    struct kvm_regs regs;
    int rc = kvm_ioctl(v->cpu.fd, KVM_GET_REGS, &regs);

    if (rc < 0)
        return rc;
    state->rip = regs.rip;
    state->rflags = regs.rflags;
    for (unsigned i = 0; i < CPU_GPRS; i++)
        state->gpr[i] = *kvm_gpr_at(&regs, i);
    return 0;
}

static int get_system(struct kvm_vcpu *v, struct cpu_state *state)
{
    struct kvm_sregs s;
    int rc = kvm_ioctl(v->cpu.fd, KVM_GET_SREGS, &s);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < CPU_SEGMENTS; i++)
        state->seg[i] = segment_from_kvm(kvm_segment_at(&s, i));
    state->ldtr = segment_from_kvm(&s.ldt);
    state->tr = segment_from_kvm(&s.tr);
    state->gdt = (struct cpu_table_state){s.gdt.base, s.gdt.limit};
    state->idt = (struct cpu_table_state){s.idt.base, s.idt.limit};
    state->cr0 = s.cr0;
    state->cr2 = s.cr2;
    state->cr3 = s.cr3;
    state->cr4 = s.cr4;
    state->cr8 = s.cr8;
    state->efer = s.efer;
    state->apic_base = s.apic_base;
    return 0;
}

static int get_vector(struct kvm_vcpu *v, struct cpu_state *state)
{
    struct kvm_xsave area;
    struct kvm_xcrs xcrs;
    int rc = kvm_ioctl(v->cpu.fd, KVM_GET_XSAVE, &area);

    if (rc < 0)
        return rc;
    memcpy(state->xsave, area.region, sizeof(state->xsave));
    put_le64(state->xsave + XSAVE_XSTATE_BV, get_le64(state->xsave + XSAVE_XSTATE_BV) & XSAVE_COMMON);
    state->xcr0 = 1;
    if (!v->engine->xcr0)
        return 0;
    rc = kvm_ioctl(v->cpu.fd, KVM_GET_XCRS, &xcrs);
    for (uint32_t i = 0; rc >= 0 && i < xcrs.nr_xcrs; i++) {
        if (xcrs.xcrs[i].xcr == 0)
            state->xcr0 = xcrs.xcrs[i].value;
    }
    return rc;
}

static int get_debug(struct kvm_vcpu *v, struct cpu_state *state)
{
    struct kvm_debugregs d;
    int rc = kvm_ioctl(v->cpu.fd, KVM_GET_DEBUGREGS, &d);

    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < 4; i++)
        state->dr[i] = d.db[i];
    state->dr[6] = d.dr6;
    state->dr[7] = d.dr7;
    return 0;
}

static int get_msrs(struct kvm_vcpu *v, struct cpu_state *state)
{
    struct msr_list list = {.head.nmsrs = ARRAY_SIZE(msr_fields)};

    for (unsigned i = 0; i < ARRAY_SIZE(msr_fields); i++)
        list.entry[i].index = msr_fields[i].index;
    int rc = kvm_ioctl(v->cpu.fd, KVM_GET_MSRS, &list);
    if (rc < (int)ARRAY_SIZE(msr_fields) - 1)
        return rc < 0 ? rc : -EINVAL;
    for (unsigned i = 0; i < ARRAY_SIZE(msr_fields); i++)
        memcpy((uint8_t *)state + msr_fields[i].offset, &list.entry[i].data, sizeof(uint64_t));
    return 0;
}

static int get_mp_state(struct kvm_vcpu *v, struct cpu_state *state)
{
    struct kvm_mp_state mp;
    int rc = kvm_ioctl(v->cpu.fd, KVM_GET_MP_STATE, &mp);

    if (rc < 0)
        return rc;
    state->halted = mp.mp_state == KVM_MP_STATE_HALTED;
    state->wait_for_sipi =
        mp.mp_state == KVM_MP_STATE_UNINITIALIZED || mp.mp_state == KVM_MP_STATE_INIT_RECEIVED;
    return 0;
}

int kvm_state_get(struct engine *engine, unsigned cpu, struct cpu_state *state, struct error **err)
{
    struct kvm_engine *k = (struct kvm_engine *)engine;
    static const struct {
        int (*get)(struct kvm_vcpu *v, struct cpu_state *state);
        const char *what;
    } steps[] = {
        {get_general, "reading the general registers"},
        {get_system, "reading the system registers"},
        {get_vector, "reading the vector registers"},
        {get_debug, "reading the debug registers"},
        {get_msrs, "reading the MSRs"},
        {get_mp_state, "reading the activity state"},
    };
    struct cpu_state read = {0};

    if (cpu >= k->config.cpus)
        return error_set(err, EINVAL, "there is no vCPU %u", cpu);
    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
        int rc = steps[i].get(&k->vcpu[cpu], &read);

        if (rc < 0)
            return fail(err, rc, &k->vcpu[cpu], steps[i].what);
    }
    *state = read;
    return 0;
}
