/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The processor that the soft engine offers: the features that it emulates on any host, and those whose
 * instructions it hands to the host's processor, as far as that has them. Called once while a machine is
 * made. No locks.
 */
#include "engine/cpuid.h"

#include "base/bytes.h"
#include "host/processor.h"

#include <string.h>

#define B(n) (1u << (n))

/* Guest-physical address bits: the engine's own page walker sets no limit, so as on common servers. */
#define PHYSICAL_BITS 46
#define LINEAR_BITS   48

#define XCR0_X87_SSE 3u
#define XCR0_AVX     4u

/*
 * One register of one leaf. `emulated`: present on every host. `native`: executed by the host's processor, so
 * present if the host's leaf has it. `avx`: the part of native that also needs the host's kernel to keep the
 * upper halves of the vector registers.
 */
struct feature_row {
    uint32_t leaf;
    enum cpuid_reg reg;
    uint32_t emulated, native, avx;
};

static const struct feature_row features[] = {
    /* DE 2, PSE 3, TSC 4, MSR 5, PAE 6, MCE 7, CX8 8, APIC 9, SEP 11, MTRR 12, PGE 13, MCA 14, PAT 16, PSE36
     * 17, CLFLUSH 19, self-snoop 27; FPU 0, CMOV 15, MMX 23, FXSR 24, SSE 25, SSE2 26. No VME. */
    {1, CPUID_EDX,
     B(2) | B(3) | B(4) | B(5) | B(6) | B(7) | B(8) | B(9) | B(11) | B(12) | B(13) | B(14) | B(16) | B(17) |
         B(19) | B(27),
     B(0) | B(15) | B(23) | B(24) | B(25) | B(26), 0},
    /* PCID 17, x2APIC 21, TSC deadline 24; SSE3 0, PCLMULQDQ 1, SSSE3 9, CX16 13, SSE4.1 19, SSE4.2 20, MOVBE
     * 22, POPCNT 23, AES 25, XSAVE 26, RDRAND 30; FMA 12, AVX 28, F16C 29. No MONITOR, no VMX. */
    {1, CPUID_ECX, B(17) | B(21) | B(24),
     B(0) | B(1) | B(9) | B(13) | B(19) | B(20) | B(22) | B(23) | B(25) | B(26) | B(30),
     B(12) | B(28) | B(29)},
    /* ARAT 2: the APIC's timer never stops. */
    {6, CPUID_EAX, B(2), 0, 0},
    /* FSGSBASE 0, TSC_ADJUST 1, SMEP 7, ERMS 9, INVPCID 10, SMAP 20; BMI1 3, BMI2 8, RDSEED 18, ADX 19, SHA
     * 29, and how x87 keeps its pointers: FDP_EXCPTN_ONLY 6, ZERO_FCS_FDS 13; AVX2 5. No MPX, no AVX-512. */
    {7, CPUID_EBX, B(0) | B(1) | B(7) | B(9) | B(10) | B(20),
     B(3) | B(6) | B(8) | B(13) | B(18) | B(19) | B(29), B(5)},
    /* UMIP 2, RDPID 22. No PKU, no LA57. */
    {7, CPUID_ECX, B(2) | B(22), 0, 0},
    /* SERIALIZE 14: otherwise Linux executes an IRET for each place of its code that it changes, and it
     * changes a hundred thousand while it boots. SPEC_CTRL 26, ARCH_CAPABILITIES 29: see
     * cpuid_arch_capabilities. */
    {7, CPUID_EDX, B(14) | B(26) | B(29), 0, 0},
    /* LAHF 0; LZCNT 5, MISALIGNSSE 7 (bit 17 of MXCSR, which is the host's), PREFETCHW 8. */
    {0x80000001, CPUID_ECX, B(0), B(5) | B(7) | B(8), 0},
    /* SYSCALL 11, NX 20, 1 GiB pages 26, LM 29. Not RDTSCP: in direct execution it would tell the number of
     * the host's processor, so it is translated, and Linux would read its clocks by it. */
    {0x80000001, CPUID_EDX, B(11) | B(20) | B(26) | B(29), 0, 0},
};

/* Leaves that describe the host's processor without promising anything. */
static const uint32_t copied_leaves[] = {0x80000002, 0x80000003, 0x80000004, 0x80000005, 0x80000006};

/*
 * IA32_ARCH_CAPABILITIES (SDM vol. 4 table 2-2): RDCL_NO 0, IBRS_ALL 1, SSB_NO 4, MDS_NO 5, PSCHANGE_MC_NO 6,
 * TAA_NO 8, SBDR_SSDP_NO 13, FBSDP_NO 14, PSDP_NO 15, BHI_NO 20, PBRSB_NO 24, GDS_NO 26, RFDS_NO 27,
 * ITS_NO 62.
 *
 * RDCL_NO is what spares a guest two address spaces a process. IBRS_ALL makes Linux write IA32_SPEC_CTRL once
 * and then use plain indirect branches, where it would otherwise build each one from a call and a return.
 * Newer kernels don't believe BHI_NO in a virtual machine and overwrite the branch history at each system
 * call, but where leaf 7.2 has BHI_CTRL they set one more bit of IA32_SPEC_CTRL instead. RSBA, which asks for
 * the costliest guard of all against RETBleed, stays clear.
 */
uint64_t cpuid_arch_capabilities(void)
{
    return 1ull << 0 | 1ull << 1 | 1ull << 4 | 1ull << 5 | 1ull << 6 | 1ull << 8 | 1ull << 13 | 1ull << 14 |
           1ull << 15 | 1ull << 20 | 1ull << 24 | 1ull << 26 | 1ull << 27 | 1ull << 62;
}

static bool host_is_amd(const uint32_t basic[CPUID_REGS])
{
    return memcmp(&basic[CPUID_EBX], "Auth", 4) == 0 || memcmp(&basic[CPUID_EBX], "Hygo", 4) == 0;
}

static void set_register(struct cpuid_table *t, uint32_t leaf, enum cpuid_reg reg, uint32_t value)
{
    struct cpuid_entry *e = cpuid_find(t, leaf, 0);

    if (!e) {
        cpuid_set(t, &(struct cpuid_entry){.leaf = leaf, .indexed = leaf == 7});
        e = cpuid_find(t, leaf, 0);
    }
    if (e)
        e->reg[reg] = value;
}

/* Leaf 7: EAX tells the last subleaf. Subleaf 2 EDX 4, BHI_CTRL: see cpuid_arch_capabilities. */
static void add_extended_features(struct cpuid_table *t)
{
    set_register(t, 7, CPUID_EAX, 2);
    cpuid_set(t, &(struct cpuid_entry){7, 2, true, {0, 0, 0, B(4)}});
}

static void add_features(struct cpuid_table *t, const struct cpuid_host *host, bool avx)
{
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
        const struct feature_row *f = &features[i];
        uint32_t out[CPUID_REGS];

        host->leaf(f->leaf, 0, out);
        set_register(t, f->leaf, f->reg, f->emulated | (out[f->reg] & (f->native | (avx ? f->avx : 0))));
    }
}

/* Leaf 0xD: EBX of subleaf 0 follows XCR0 (cpuid_lookup_live). */
static void add_xsave(struct cpuid_table *t, bool avx)
{
    uint32_t size = avx ? 832 : 576;

    cpuid_set(
        t, &(struct cpuid_entry){0xd, 0, true, {avx ? XCR0_X87_SSE | XCR0_AVX : XCR0_X87_SSE, 576, size, 0}});
    cpuid_set(t, &(struct cpuid_entry){0xd, 1, true, {B(0), 0, 0, 0}}); /* XSAVEOPT alone */
    if (avx)
        cpuid_set(t, &(struct cpuid_entry){0xd, 2, true, {256, 576, 0, 0}});
}

/* The host's caches by leaf 4; cpuid_apply_platform puts the guest's own topology in. */
static void add_intel_leaves(struct cpuid_table *t, const struct cpuid_host *host)
{
    cpuid_set(t, &(struct cpuid_entry){2, 0, false, {0xff01, 0, 0, 0}}); /* caches: see leaf 4 */
    for (uint32_t i = 0; i < 8; i++) {
        struct cpuid_entry e = {.leaf = 4, .subleaf = i, .indexed = true};

        host->leaf(4, i, e.reg);
        cpuid_set(t, &e);
        if (!(e.reg[CPUID_EAX] & 0x1f))
            break;
    }
}

/*
 * AMD says in its own leaves what Intel says in ARCH_CAPABILITIES. 0x80000008 EBX: BTC_NO 29. 0x80000021 EAX:
 * LFENCE serializes 2, a null selector clears the base 6, SRSO_NO 29; ECX: TSA_SQ_NO 1, TSA_L1_NO 2.
 */
static void add_amd_leaves(struct cpuid_table *t)
{
    struct cpuid_entry *one = cpuid_find(t, 1, 0);

    set_register(t, 0x80000000, CPUID_EAX, 0x80000021);
    set_register(t, 0x80000008, CPUID_EBX, B(29));
    cpuid_set(t, &(struct cpuid_entry){0x80000021, 0, false, {B(2) | B(6) | B(29), 0, B(1) | B(2), 0}});
    /* There, the extended leaf repeats most of leaf 1 EDX. */
    struct cpuid_entry *ext = cpuid_find(t, 0x80000001, 0);
    if (ext && one)
        ext->reg[CPUID_EDX] |= one->reg[CPUID_EDX] & 0x0183f3ff;
}

void cpuid_build_soft_on(struct cpuid_table *t, const struct cpuid_host *host, unsigned cpus, uint64_t tsc_hz)
{
    struct cpuid_entry e = {0};
    uint32_t basic[CPUID_REGS], one[CPUID_REGS];

    memset(t, 0, sizeof(*t));
    host->leaf(0, 0, basic);
    host->leaf(1, 0, one);
    bool avx =
        (host->xcr0 & (XCR0_X87_SSE | XCR0_AVX)) == (XCR0_X87_SSE | XCR0_AVX) && (one[CPUID_ECX] & B(28));
    basic[CPUID_EAX] = 0x0d;
    memcpy(e.reg, basic, sizeof(e.reg));
    cpuid_set(t, &e);
    cpuid_set(t, &(struct cpuid_entry){.leaf = 1, .reg = {one[CPUID_EAX], one[CPUID_EBX] & 0xff00}});
    cpuid_set(t, &(struct cpuid_entry){.leaf = 0x80000000, .reg = {0x80000008}});
    add_features(t, host, avx);
    add_extended_features(t);
    if (!host->xcr0)
        set_register(t, 1, CPUID_ECX, cpuid_find(t, 1, 0)->reg[CPUID_ECX] & ~B(26));
    else
        add_xsave(t, avx);
    for (unsigned i = 0; i < ARRAY_SIZE(copied_leaves); i++) {
        e = (struct cpuid_entry){.leaf = copied_leaves[i]};
        host->leaf(e.leaf, 0, e.reg);
        cpuid_set(t, &e);
    }
    cpuid_set(t, &(struct cpuid_entry){.leaf = 0x80000007, .reg = {[CPUID_EDX] = B(8)}}); /* invariant TSC */
    cpuid_set(t, &(struct cpuid_entry){.leaf = 0x80000008, .reg = {LINEAR_BITS << 8 | PHYSICAL_BITS}});
    if (host_is_amd(basic))
        add_amd_leaves(t);
    else
        add_intel_leaves(t, host);
    cpuid_apply_platform(t, cpus, tsc_hz,
                         CPUID_KVM_NOP_IO_DELAY | CPUID_KVM_CLOCKSOURCE2 | CPUID_KVM_CLOCKSOURCE_STABLE);
}

void cpuid_build_soft(struct cpuid_table *t, unsigned cpus, uint64_t tsc_hz)
{
    cpuid_build_soft_on(t, &(struct cpuid_host){.leaf = processor_leaf, .xcr0 = processor_xcr0()}, cpus,
                        tsc_hz);
}
