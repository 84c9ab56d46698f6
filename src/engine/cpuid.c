/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The CPUID table: lookup, and the leaves that the machine decides whatever the processor. Called by both
 * engines while they are created, and at each CPUID instruction by the soft one. No locks.
 */
#include "engine/cpuid.h"

#include "base/bytes.h"

#include <string.h>

#define LEAF1_ECX_OSXSAVE    (1u << 27)
#define LEAF1_ECX_XSAVE      (1u << 26)
#define LEAF1_ECX_HYPERVISOR (1u << 31)
#define LEAF1_EDX_APIC       (1u << 9)
#define LEAF1_EDX_HTT        (1u << 28)

#define REFERENCE_CLOCK_MHZ 100 /* what leaf 0x16 tells on every processor that has it */

#define CR4_OSXSAVE_BIT      (1u << 18)
#define APIC_BASE_ENABLE     (1u << 11)
#define XSAVE_LEGACY_BYTES   512u
#define XSAVE_HEADER_BYTES   64u
#define XSAVE_FIRST_EXTENDED 2

static const uint32_t vendor_amd[3] = {0x68747541, 0x444d4163, 0x69746e65}; /* EBX, ECX, EDX: AuthenticAMD */
static const uint32_t vendor_hygon[3] = {0x6f677948, 0x656e6975, 0x6e65476e}; /* HygonGenuine */
static const uint32_t vendor_intel[3] = {0x756e6547, 0x6c65746e, 0x49656e69}; /* GenuineIntel */

static const struct cpuid_entry *find_const(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < t->n; i++) {
        const struct cpuid_entry *e = &t->entry[i];

        if (e->leaf == leaf && (!e->indexed || e->subleaf == subleaf))
            return e;
    }
    return NULL;
}

struct cpuid_entry *cpuid_find(struct cpuid_table *t, uint32_t leaf, uint32_t subleaf)
{
    return (struct cpuid_entry *)find_const(t, leaf, subleaf);
}

void cpuid_set(struct cpuid_table *t, const struct cpuid_entry *e)
{
    struct cpuid_entry *slot = cpuid_find(t, e->leaf, e->subleaf);

    if (!slot && t->n == CPUID_MAX_ENTRIES) {
        t->full = true;
        return;
    }
    if (!slot)
        slot = &t->entry[t->n++];
    *slot = *e;
    if (!slot->indexed)
        slot->subleaf = 0;
}

void cpuid_remove(struct cpuid_table *t, uint32_t leaf)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < t->n; i++) {
        if (t->entry[i].leaf != leaf)
            t->entry[kept++] = t->entry[i];
    }
    t->n = kept;
}

static bool vendor_is(const struct cpuid_table *t, const uint32_t vendor[3])
{
    const struct cpuid_entry *e = find_const(t, 0, 0);

    return e && e->reg[CPUID_EBX] == vendor[0] && e->reg[CPUID_EDX] == vendor[2] &&
           e->reg[CPUID_ECX] == vendor[1];
}

static bool vendor_is_amd(const struct cpuid_table *t)
{
    return vendor_is(t, vendor_amd) || vendor_is(t, vendor_hygon);
}

/* What a leaf that the table lacks gives: NULL for zeros. */
static const struct cpuid_entry *out_of_range(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf)
{
    const struct cpuid_entry *basic = find_const(t, 0, 0), *range = basic;

    if (!basic || vendor_is_amd(t))
        return NULL;
    if ((leaf >> 28) == 4)
        range = find_const(t, CPUID_KVM_SIGNATURE, 0);
    else if (leaf & 0x80000000u)
        range = find_const(t, leaf & 0xffff0000u, 0);
    if (range && leaf <= range->reg[CPUID_EAX])
        return NULL;
    return find_const(t, basic->reg[CPUID_EAX], subleaf);
}

void cpuid_lookup(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf, uint32_t out[CPUID_REGS])
{
    const struct cpuid_entry *e = find_const(t, leaf, subleaf);

    /* A subleaf that an existing leaf lacks is not out of range. */
    if (!e && !find_const(t, leaf, 0))
        e = out_of_range(t, leaf, subleaf);
    if (e)
        memcpy(out, e->reg, sizeof(e->reg));
    else
        memset(out, 0, sizeof(e->reg));
}

/* The bytes of an XSAVE area in standard form for the components in xcr0 (SDM vol. 1 13.4). */
static uint32_t xsave_size(const struct cpuid_table *t, uint64_t xcr0)
{
    uint32_t size = XSAVE_LEGACY_BYTES + XSAVE_HEADER_BYTES;

    for (unsigned i = XSAVE_FIRST_EXTENDED; i < 63; i++) {
        const struct cpuid_entry *e = xcr0 >> i & 1 ? find_const(t, 0xd, i) : NULL;

        if (e && e->reg[CPUID_EAX] + e->reg[CPUID_EBX] > size)
            size = e->reg[CPUID_EAX] + e->reg[CPUID_EBX];
    }
    return size;
}

void cpuid_lookup_live(const struct cpuid_table *t, const struct cpuid_context *context, uint32_t leaf,
                       uint32_t subleaf, uint32_t out[CPUID_REGS])
{
    cpuid_lookup(t, leaf, subleaf, out);
    switch (leaf) {
    case 1:
        out[CPUID_EBX] = (out[CPUID_EBX] & 0x00ffffff) | context->apic_id << 24;
        if (!(out[CPUID_ECX] & LEAF1_ECX_XSAVE) || !(context->cr4 & CR4_OSXSAVE_BIT))
            out[CPUID_ECX] &= ~LEAF1_ECX_OSXSAVE;
        else
            out[CPUID_ECX] |= LEAF1_ECX_OSXSAVE;
        if (!(context->apic_base & APIC_BASE_ENABLE))
            out[CPUID_EDX] &= ~LEAF1_EDX_APIC;
        break;
    case 0xb:
        out[CPUID_ECX] = (out[CPUID_ECX] & 0xff00) | (subleaf & 0xff);
        out[CPUID_EDX] = context->apic_id;
        break;
    case 0xd:
        if (subleaf == 0 && out[CPUID_ECX])
            out[CPUID_EBX] = xsave_size(t, context->xcr0);
        break;
    case 0x8000001e:
        out[CPUID_EAX] = context->apic_id;
        out[CPUID_EBX] = (out[CPUID_EBX] & ~0xffu) | (context->apic_id & 0xff);
        break;
    default:
        break;
    }
}

unsigned cpuid_physical_bits(const struct cpuid_table *t)
{
    const struct cpuid_entry *e = find_const(t, 0x80000008, 0);

    return e && e->reg[CPUID_EAX] & 0xff ? e->reg[CPUID_EAX] & 0xff : 36;
}

/* How many bits of an APIC id tell `cpus` cores apart. */
static unsigned id_bits(unsigned cpus)
{
    unsigned bits = 0;

    while ((1u << bits) < cpus)
        bits++;
    return bits;
}

/*
 * Leaf 4 and AMD's 0x8000001D, EAX: 4-0 type (0: no more), 7-5 level, 25-14 the processor ids that share this
 * cache less 1, 31-26 (Intel) the core ids in the package less 1. Levels 1 and 2 are a core's own.
 */
static void apply_caches(struct cpuid_table *t, unsigned bits)
{
    uint32_t all = (1u << bits) - 1;

    for (unsigned i = 0; i < t->n; i++) {
        struct cpuid_entry *e = &t->entry[i];
        bool intel = e->leaf == 4;

        if ((!intel && e->leaf != 0x8000001d) || !(e->reg[CPUID_EAX] & 0x1f))
            continue;
        uint32_t sharing = (e->reg[CPUID_EAX] >> 5 & 7) >= 3 ? all : 0;
        e->reg[CPUID_EAX] = (e->reg[CPUID_EAX] & 0x3fff) | sharing << 14 | (intel ? all << 26 : 0);
    }
}

static void apply_topology(struct cpuid_table *t, unsigned cpus)
{
    unsigned bits = id_bits(cpus);
    struct cpuid_entry *one = cpuid_find(t, 1, 0), *e;

    if (one) {
        one->reg[CPUID_EBX] = (one->reg[CPUID_EBX] & 0xff00) | (cpus > 1 ? 1u << bits : 1u) << 16;
        one->reg[CPUID_EDX] = (one->reg[CPUID_EDX] & ~LEAF1_EDX_HTT) | (cpus > 1 ? LEAF1_EDX_HTT : 0);
    }
    apply_caches(t, bits);

    /* EAX: bits to shift the id by for the next level; EBX: processors at this level; ECX: level, its type.
     */
    cpuid_remove(t, 0xb);
    cpuid_remove(t, 0x1f);
    cpuid_set(t, &(struct cpuid_entry){0xb, 0, true, {0, 1, 1u << 8 | 0, 0}});
    cpuid_set(t, &(struct cpuid_entry){0xb, 1, true, {bits, cpus, 2u << 8 | 1, 0}});
    cpuid_set(t, &(struct cpuid_entry){0xb, 2, true, {0, 0, 2, 0}});

    if (!vendor_is_amd(t))
        return;
    e = cpuid_find(t, 0x80000008, 0); /* ECX: 7-0 cores less 1, 15-12 bits of the id that number them */
    if (e)
        e->reg[CPUID_ECX] = (e->reg[CPUID_ECX] & ~0xf0ffu) | (cpus - 1) | bits << 12;
    e = cpuid_find(t, 0x8000001e,
                   0); /* EBX: 7-0 core id, 15-8 threads a core less 1; ECX: 10-8 nodes less 1 */
    if (e)
        memset(e->reg, 0, sizeof(e->reg));
    e = cpuid_find(t, 0x80000001, 0); /* ECX 1, CmpLegacy: the count of leaf 1 is one of cores */
    if (e)
        e->reg[CPUID_ECX] = (e->reg[CPUID_ECX] & ~2u) | (cpus > 1 ? 2 : 0);
    /* 0x80000026 would tell the host's own topology, at odds with all of the above. */
    cpuid_remove(t, 0x80000026);
}

/*
 * Leaf 0x15: TSC Hz = ECX * EBX / EAX. Guests multiply kHz * EBX in 32 bits, and the crystal is also the
 * clock of the APIC's timer: told only where that fits and is exact. Leaf 0x16 (MHz) is for people to read.
 */
static void apply_frequencies(struct cpuid_table *t, uint64_t tsc_hz)
{
    uint32_t khz = (uint32_t)(tsc_hz / 1000), mhz = (uint32_t)((tsc_hz + 500000) / 1000000);
    uint32_t bus_khz = CPUID_APIC_BUS_HZ / 1000;
    struct cpuid_entry *basic = cpuid_find(t, 0, 0);

    cpuid_set(t, &(struct cpuid_entry){CPUID_HV_TIMING, 0, false, {khz, bus_khz, 0, 0}});
    cpuid_remove(t, 0x15);
    cpuid_remove(t, 0x16);
    if (!basic || !vendor_is(t, vendor_intel))
        return;
    if (basic->reg[CPUID_EAX] < 0x16)
        basic->reg[CPUID_EAX] = 0x16;
    uint64_t a = tsc_hz, b = CPUID_APIC_BUS_HZ;
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    uint64_t numerator = a ? tsc_hz / a : 0, denominator = a ? CPUID_APIC_BUS_HZ / a : 0;
    if (numerator && numerator * bus_khz <= UINT32_MAX)
        cpuid_set(t, &(struct cpuid_entry){
                         0x15, 0, false, {(uint32_t)denominator, (uint32_t)numerator, CPUID_APIC_BUS_HZ, 0}});
    cpuid_set(t, &(struct cpuid_entry){0x16, 0, false, {mhz, mhz, REFERENCE_CLOCK_MHZ, 0}});
}

void cpuid_apply_platform(struct cpuid_table *t, unsigned cpus, uint64_t tsc_hz, uint32_t kvm_features)
{
    struct cpuid_entry *e = cpuid_find(t, 1, 0);

    if (e)
        e->reg[CPUID_ECX] |= LEAF1_ECX_HYPERVISOR;
    apply_topology(t, cpus);
    apply_frequencies(t, tsc_hz);
    cpuid_set(t, &(struct cpuid_entry){CPUID_KVM_SIGNATURE,
                                       0,
                                       false,
                                       {CPUID_HV_TIMING, 0x4b4d564b, 0x564b4d56, 0x4d}}); /* KVMKVMKVM */
    cpuid_set(t, &(struct cpuid_entry){CPUID_KVM_FEATURES, 0, false, {kvm_features, 0, 0, 0}});
}
