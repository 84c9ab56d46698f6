/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine's structure: processors, code cache, CPUID; common to the machine's engine (soft_engine.c) and
 * to the bare processor that tests use.
 */
#include "engine/soft/soft.h"

#include "base/error.h"
#include "engine/cpuid.h"
#include "engine/soft/lapic.h"
#include "engine/soft/soft_core.h"
#include "engine/soft/soft_priv.h"
#include "host/processor.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <x86intrin.h>

/* PEXT is microcode before Zen 3: shifts are faster there. */
static bool slow_pext(const uint32_t basic[4], const uint32_t one[4])
{
    return basic[1] == signature_AMD_ebx && ((one[0] >> 8) & 15) + ((one[0] >> 20) & 255) < 0x19;
}

static void look_at_host(struct soft *s, unsigned without)
{
    uint32_t basic[4], one[4], seven[4];

    processor_leaf(0, 0, basic);
    processor_leaf(1, 0, one);
    processor_leaf(7, 0, seven);
    s->host_xcr0 = processor_xcr0();
    s->have_xsave = s->host_xcr0 != 0;
    s->have_avx = (s->host_xcr0 & 6) == 6 && (one[2] & bit_AVX);
    s->use_pext = (seven[1] & bit_BMI2) && !slow_pext(basic, one) && !(without & SOFT_WITHOUT_PEXT);
    s->host_flags = __builtin_ia32_readeflags_u64() & ~(uint64_t)FLAGS_HOST;
}

void soft_reset_msrs(struct soft_vcpu *c)
{
    c->misc_enable = CPU_MISC_ENABLE_FAST_STRING;
    c->spec_ctrl = 0;
    c->mtrr_def_type = CPU_MTRR_DEF_TYPE;
    memset(c->mtrr_fixed, 0, sizeof(c->mtrr_fixed));
    memset(c->mtrr_var, 0, sizeof(c->mtrr_var));
    /* The TSC itself runs on, without the steps that the guest made. */
    c->tsc_offset -= c->tsc_adjust;
    c->tsc_adjust = 0;
}

static struct soft_vcpu *new_vcpu(struct soft *s, unsigned n)
{
    struct cpu_state state;
    struct soft_vcpu *c = soft_reserve_large(sizeof(*c), PROT_READ | PROT_WRITE);

    if (!c)
        return NULL;
    c->soft = s;
    c->index = n;
    c->index_mask = (uint64_t)(TLB_SIZE - 1) << 12;
    c->page_mask = ~4095ull;
    for (unsigned shift = 0; shift < 4; shift++)
        c->count_mask[shift] = UINT64_MAX << (12 - shift);
    c->jump_mask = JUMP_INDEX_BITS;
    c->return_mask = (RETURNS - 1) << 3;
    for (unsigned mmu = 0; mmu < MMU_MODES; mmu++)
        c->tlb_fills[mmu].n = c->jump_fills[mmu].n = UINT32_MAX; /* so that the first flush empties them */
    soft_tlb_flush(c, true);
    soft_reset_msrs(c);
    cpu_state_reset(&state, n == 0);
    soft_set_state(c, &state);
    return c;
}

int soft_core_init(struct soft *s, struct guest_memory *memory, unsigned cpus, uint64_t tsc_hz,
                   unsigned without, struct error **err)
{
    s->memory = memory;
    s->tsc_hz = tsc_hz;
    look_at_host(s, without);
    pthread_mutex_init(&s->exclusive_lock, NULL);
    pthread_mutex_init(&s->run_lock, NULL);
    pthread_cond_init(&s->run_cond, NULL);
    s->cpuid = calloc(1, sizeof(*s->cpuid));
    if (!s->cpuid)
        return error_set_errno(err, ENOMEM, "soft engine");
    cpuid_build_soft(s->cpuid, cpus, tsc_hz);
    s->phys_bits = cpuid_physical_bits(s->cpuid);
    soft_isa_init(s);
    int rc = soft_signals_install(err);
    if (rc == 0)
        rc = soft_cache_create(s, cpus, err);
    if (rc < 0)
        return rc;
    for (unsigned n = 0; n < cpus; n++) {
        s->vcpu[n] = new_vcpu(s, n);
        if (!s->vcpu[n])
            return error_set_errno(err, ENOMEM, "soft engine: vCPU %u", n);
        s->n_vcpus = n + 1;
    }
    return 0;
}

void soft_core_fini(struct soft *s)
{
    for (unsigned n = 0; n < s->n_vcpus; n++)
        soft_release_large(s->vcpu[n], sizeof(struct soft_vcpu));
    if (s->cache)
        soft_cache_destroy(s);
    free(s->cpuid);
    pthread_mutex_destroy(&s->exclusive_lock);
    pthread_mutex_destroy(&s->run_lock);
    pthread_cond_destroy(&s->run_cond);
}

/* ---- what handlers ask ---- */

uint64_t soft_read_tsc(const struct soft_vcpu *c)
{
    return __rdtsc() + c->tsc_offset;
}

void soft_cpuid(struct soft_vcpu *c, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    struct cpuid_context context = {.apic_id = c->index, .cr4 = c->cr4, .xcr0 = c->xcr0};

    if (!c->lapic || lapic_msr_read(c->lapic, LAPIC_MSR_BASE, &context.apic_base) != 0)
        context.apic_base = 0xfee00800;
    cpuid_lookup_live(c->soft->cpuid, &context, leaf, subleaf, out);
}

struct pvclock *soft_pvclock(struct soft_vcpu *c)
{
    return c->soft->pvclock;
}

uint64_t soft_pio_read(struct soft_vcpu *c, uint16_t port, unsigned size)
{
    struct io_space *space = c->soft->config.pio;

    return space ? io_space_read(space, port, size) : UINT64_MAX;
}

void soft_pio_write(struct soft_vcpu *c, uint16_t port, unsigned size, uint64_t value)
{
    if (c->soft->config.pio)
        io_space_write(c->soft->config.pio, port, size, value);
}

/* ---- the bare processor ---- */

int soft_test_create_without(struct soft **out, struct guest_memory *mem, unsigned without,
                             struct error **err)
{
    struct soft *s = calloc(1, sizeof(*s));

    if (!s)
        return error_set_errno(err, ENOMEM, "soft engine");
    int rc = soft_core_init(s, mem, 1, 1000000000, without, err);
    if (rc == 0)
        rc = soft_signals_thread_start(s->vcpu[0], err);
    if (rc < 0) {
        soft_core_fini(s);
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

int soft_test_create(struct soft **out, struct guest_memory *mem, struct error **err)
{
    return soft_test_create_without(out, mem, 0, err);
}

void soft_test_destroy(struct soft *s)
{
    if (!s)
        return;
    soft_signals_thread_end(s->vcpu[0]);
    soft_core_fini(s);
    free(s);
}

struct soft_vcpu *soft_vcpu(struct soft *s, unsigned n)
{
    return n < s->n_vcpus ? s->vcpu[n] : NULL;
}

int soft_step(struct soft_vcpu *c)
{
    __atomic_store_n(&c->pending, 0, __ATOMIC_SEQ_CST);
    return soft_run_once(c, SHADOW_STI);
}

int soft_run_block(struct soft_vcpu *c)
{
    __atomic_store_n(&c->pending, 0, __ATOMIC_SEQ_CST);
    return soft_run_once(c, 0);
}

void soft_invalidate_code(struct soft *s, uint64_t gpa, uint64_t len)
{
    soft_cache_written(s, gpa, len);
}
