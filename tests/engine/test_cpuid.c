/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The CPUID model: topology, clocks, and what the soft engine offers on hosts of different kinds. */
#include "engine/cpuid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define B(n) (1u << (n))
#define HZ   2500000000ull

/* A host that has every bit of every leaf set, so that what comes through is what the table lets through. */
static const char *fake_vendor = "GenuineIntel";
static uint32_t fake_features;

static void fake_leaf(uint32_t leaf, uint32_t subleaf, uint32_t out[CPUID_REGS])
{
    for (int i = 0; i < CPUID_REGS; i++)
        out[i] = fake_features;
    if (leaf == 0) {
        memcpy(&out[CPUID_EBX], fake_vendor, 4);
        memcpy(&out[CPUID_EDX], fake_vendor + 4, 4);
        memcpy(&out[CPUID_ECX], fake_vendor + 8, 4);
    } else if (leaf == 1) {
        out[CPUID_EAX] = 0x50657;
        out[CPUID_EBX] = 0x12345678;
    } else if (leaf == 4) {
        /* L1d, L1i, L2, L3, the last one shared by 64, in a package of 32 cores */
        static const uint32_t eax[] = {0x7c004121, 0x7c004122, 0x7c004143, 0x7c0fc163, 0};
        out[CPUID_EAX] = eax[subleaf < 5 ? subleaf : 4];
    }
}

static void build(struct cpuid_table *t, const char *vendor, uint32_t bits, uint64_t xcr0, unsigned cpus)
{
    fake_vendor = vendor;
    fake_features = bits;
    cpuid_build_soft_on(t, &(struct cpuid_host){.leaf = fake_leaf, .xcr0 = xcr0}, cpus, HZ);
    assert_false(t->full);
}

static uint32_t reg(const struct cpuid_table *t, uint32_t leaf, uint32_t subleaf, enum cpuid_reg r)
{
    uint32_t out[CPUID_REGS];

    cpuid_lookup(t, leaf, subleaf, out);
    return out[r];
}

static void test_features_of_a_full_host(void **state)
{
    struct cpuid_table t;

    build(&t, "GenuineIntel", ~0u, ~0ull, 1);
    /* What the engine can't do stays away however much the host has. */
    assert_int_equal(reg(&t, 1, 0, CPUID_ECX) & (B(3) | B(5) | B(15) | B(27)),
                     0); /* MONITOR VMX PDCM OSXSAVE */
    assert_int_equal(reg(&t, 1, 0, CPUID_EDX) & (B(1) | B(10) | B(18) | B(21) | B(22)), 0);
    assert_int_equal(reg(&t, 7, 0, CPUID_EBX) & (B(2) | B(4) | B(11) | B(14) | B(16) | B(17) | B(30) | B(31)),
                     0);
    assert_int_equal(reg(&t, 7, 0, CPUID_ECX), B(2) | B(22));
    assert_int_equal(reg(&t, 7, 0, CPUID_EAX), 2);
    assert_int_equal(reg(&t, 7, 2, CPUID_EDX), B(4)); /* BHI_CTRL alone */
    assert_int_equal(reg(&t, 7, 3, CPUID_EDX), 0);
    assert_int_equal(reg(&t, 7, 1, CPUID_EAX), 0);
    assert_int_equal(reg(&t, 0xd, 0, CPUID_EAX), 7);
    assert_int_equal(reg(&t, 0xd, 0, CPUID_ECX), 832);
    assert_int_equal(reg(&t, 0xd, 1, CPUID_EAX), 1); /* no XSAVEC, XGETBV1, XSAVES */
    assert_int_equal(reg(&t, 5, 0, CPUID_EAX), 0);
    assert_int_equal(reg(&t, 0xa, 0, CPUID_EAX), 0);
    /* And all that it does is there: AVX, FMA, F16C; AVX2, BMI; SHA. */
    assert_int_equal(reg(&t, 1, 0, CPUID_ECX) & (B(12) | B(28) | B(29)), B(12) | B(28) | B(29));
    assert_int_equal(reg(&t, 7, 0, CPUID_EBX) & (B(3) | B(5) | B(8) | B(29)), B(3) | B(5) | B(8) | B(29));
    assert_int_equal(reg(&t, 0x80000001, 0, CPUID_ECX), B(0) | B(5) | B(7) | B(8));
    assert_int_equal(reg(&t, 1, 0, CPUID_EAX), 0x50657);
    assert_int_equal(cpuid_physical_bits(&t), 46);
}

static void test_features_of_a_bare_host(void **state)
{
    struct cpuid_table t;

    build(&t, "GenuineIntel", 0, 0, 1);
    assert_int_equal(reg(&t, 1, 0, CPUID_ECX), B(17) | B(21) | B(24) | B(31)); /* all emulated */
    assert_int_equal(reg(&t, 7, 0, CPUID_EBX), B(0) | B(1) | B(7) | B(9) | B(10) | B(20));
    assert_int_equal(reg(&t, 7, 0, CPUID_EDX), B(14) | B(26) | B(29));
    assert_int_equal(reg(&t, 0xd, 0, CPUID_EAX), 0);
    assert_int_equal(reg(&t, 0x80000001, 0, CPUID_EDX), B(11) | B(20) | B(26) | B(29));
}

static void test_avx_needs_the_host_kernel(void **state)
{
    struct cpuid_table t;

    build(&t, "GenuineIntel", ~0u, 3, 1);
    assert_int_equal(reg(&t, 1, 0, CPUID_ECX) & (B(12) | B(28) | B(29)), 0);
    assert_int_equal(reg(&t, 1, 0, CPUID_ECX) & B(26), B(26));
    assert_int_equal(reg(&t, 7, 0, CPUID_EBX) & B(5), 0);
    assert_int_equal(reg(&t, 7, 0, CPUID_EBX) & B(3), B(3)); /* BMI1 has no vector state */
    assert_int_equal(reg(&t, 0xd, 0, CPUID_EAX), 3);
    assert_int_equal(reg(&t, 0xd, 0, CPUID_ECX), 576);
    assert_int_equal(reg(&t, 0xd, 2, CPUID_EAX), 0);
    build(&t, "GenuineIntel", ~0u, 0, 1);
    assert_int_equal(reg(&t, 1, 0, CPUID_ECX) & B(26), 0);
    assert_int_equal(reg(&t, 0xd, 0, CPUID_EAX), 0);
}

static void test_topology(void **state)
{
    static const struct {
        unsigned cpus, bits;
    } rows[] = {{1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {8, 3}};

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct cpuid_table t;
        unsigned cpus = rows[i].cpus, bits = rows[i].bits;

        build(&t, "GenuineIntel", ~0u, 7, cpus);
        assert_int_equal(reg(&t, 0xb, 0, CPUID_EAX), 0);
        assert_int_equal(reg(&t, 0xb, 0, CPUID_EBX), 1);
        assert_int_equal(reg(&t, 0xb, 0, CPUID_ECX), 0x100);
        assert_int_equal(reg(&t, 0xb, 1, CPUID_EAX), bits);
        assert_int_equal(reg(&t, 0xb, 1, CPUID_EBX), cpus);
        assert_int_equal(reg(&t, 0xb, 1, CPUID_ECX), 0x201);
        assert_int_equal(reg(&t, 0xb, 2, CPUID_ECX), 2);
        assert_int_equal(reg(&t, 1, 0, CPUID_EBX) >> 16, 1u << bits);
        assert_int_equal(reg(&t, 1, 0, CPUID_EBX) & 0xffff,
                         0x5600); /* the host's CLFLUSH size, no brand index */
        assert_int_equal(!!(reg(&t, 1, 0, CPUID_EDX) & B(28)), cpus > 1);
        /* own L1 and L2, one L3 for all */
        assert_int_equal(reg(&t, 4, 0, CPUID_EAX), 0x121 | ((1u << bits) - 1) << 26);
        assert_int_equal(reg(&t, 4, 2, CPUID_EAX), 0x143 | ((1u << bits) - 1) << 26);
        assert_int_equal(reg(&t, 4, 3, CPUID_EAX),
                         0x163 | ((1u << bits) - 1) << 26 | ((1u << bits) - 1) << 14);
        assert_int_equal(reg(&t, 4, 4, CPUID_EAX), 0);
    }
}

static void test_amd(void **state)
{
    struct cpuid_table t;

    build(&t, "AuthenticAMD", ~0u, 7, 6);
    assert_int_equal(reg(&t, 0x80000008, 0, CPUID_ECX), 3 << 12 | 5);
    assert_int_equal(reg(&t, 0x80000001, 0, CPUID_ECX) & B(1), B(1));
    assert_int_equal(reg(&t, 0x80000001, 0, CPUID_EDX) & 0x3ff, reg(&t, 1, 0, CPUID_EDX) & 0x3ff);
    assert_int_equal(reg(&t, 0x80000000, 0, CPUID_EAX), 0x80000021);
    assert_int_equal(reg(&t, 0x80000021, 0, CPUID_EAX) & B(29), B(29));
    assert_int_equal(reg(&t, 4, 0, CPUID_EAX), 0);
    assert_int_equal(reg(&t, 0x15, 0, CPUID_EAX), 0);
    assert_int_equal(reg(&t, 0, 0, CPUID_EBX), 0x68747541);
    /* beyond the end: zeros */
    assert_int_equal(reg(&t, 0x1000, 0, CPUID_EAX), 0);
}

static void test_clocks(void **state)
{
    static const uint64_t exact = 2500000000ull, odd = 2499998123ull;
    struct cpuid_table t;

    fake_vendor = "GenuineIntel";
    fake_features = ~0u;
    struct cpuid_host host = {.leaf = fake_leaf, .xcr0 = 7};
    cpuid_build_soft_on(&t, &host, 1, exact);
    assert_int_equal(reg(&t, CPUID_HV_TIMING, 0, CPUID_EAX), 2500000);
    assert_int_equal(reg(&t, CPUID_HV_TIMING, 0, CPUID_EBX), CPUID_APIC_BUS_HZ / 1000);
    assert_int_equal(reg(&t, 0x15, 0, CPUID_EAX), 2);
    assert_int_equal(reg(&t, 0x15, 0, CPUID_EBX), 5);
    assert_int_equal(reg(&t, 0x15, 0, CPUID_ECX), CPUID_APIC_BUS_HZ);
    assert_int_equal(reg(&t, 0x16, 0, CPUID_EAX), 2500);
    /* No ratio rather than a wrong one. */
    cpuid_build_soft_on(&t, &host, 1, odd);
    assert_int_equal(reg(&t, CPUID_HV_TIMING, 0, CPUID_EAX), 2499998);
    assert_int_equal(reg(&t, 0x15, 0, CPUID_EAX), 0);
    assert_int_equal(reg(&t, 0x15, 0, CPUID_EBX), 0);
    assert_int_equal(reg(&t, 0x16, 0, CPUID_EAX), 2500);
    assert_int_equal(reg(&t, 0x80000007, 0, CPUID_EDX) & B(8), B(8));
}

static void test_paravirtual_leaves(void **state)
{
    struct cpuid_table t;
    uint32_t out[CPUID_REGS];

    build(&t, "GenuineIntel", ~0u, 7, 2);
    cpuid_lookup(&t, CPUID_KVM_SIGNATURE, 0, out);
    assert_memory_equal(&out[CPUID_EBX], "KVMKVMKVM\0\0\0", 12);
    assert_int_equal(out[CPUID_EAX], CPUID_HV_TIMING);
    /* No feature that would need a hypercall, which the soft engine has none of. */
    assert_int_equal(reg(&t, CPUID_KVM_FEATURES, 0, CPUID_EAX),
                     CPUID_KVM_NOP_IO_DELAY | CPUID_KVM_CLOCKSOURCE2 | CPUID_KVM_CLOCKSOURCE_STABLE);
    assert_int_equal(reg(&t, CPUID_KVM_FEATURES, 0, CPUID_EDX), 0);
    assert_int_equal(reg(&t, 1, 0, CPUID_ECX) & B(31), B(31));
}

static void test_out_of_range(void **state)
{
    struct cpuid_table t;
    uint32_t last[CPUID_REGS], out[CPUID_REGS];

    build(&t, "GenuineIntel", ~0u, 7, 2);
    assert_int_equal(reg(&t, 0, 0, CPUID_EAX), 0x16);
    cpuid_lookup(&t, 0x16, 0, last);
    assert_int_not_equal(last[CPUID_EAX], 0);
    static const uint32_t beyond[] = {0x17, 0x3fffffff, 0x40000011, 0x80000009, 0xc0000000};
    for (unsigned i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
        cpuid_lookup(&t, beyond[i], 0, out);
        assert_memory_equal(out, last, sizeof(out));
    }
    static const uint32_t gaps[] = {3, 0x12, 0x14, 0x40000005};
    for (unsigned i = 0; i < sizeof(gaps) / sizeof(gaps[0]); i++) {
        cpuid_lookup(&t, gaps[i], 0, out);
        assert_int_equal(out[0] | out[1] | out[2] | out[3], 0);
    }
    /* An index on a leaf that has none changes nothing. */
    assert_int_equal(reg(&t, 1, 77, CPUID_EAX), reg(&t, 1, 0, CPUID_EAX));
}

static void test_live(void **state)
{
    struct cpuid_table t;
    struct cpuid_context c = {.apic_id = 5, .cr4 = 0, .xcr0 = 1, .apic_base = 0xfee00800};
    uint32_t out[CPUID_REGS];

    build(&t, "GenuineIntel", ~0u, 7, 8);
    cpuid_lookup_live(&t, &c, 1, 0, out);
    assert_int_equal(out[CPUID_EBX] >> 24, 5);
    assert_int_equal(out[CPUID_ECX] & B(27), 0);
    assert_int_equal(out[CPUID_EDX] & B(9), B(9));
    cpuid_lookup_live(&t, &c, 0xd, 0, out);
    assert_int_equal(out[CPUID_EBX], 576);
    c.cr4 = B(18);
    c.xcr0 = 7;
    c.apic_base = 0xfee00000;
    cpuid_lookup_live(&t, &c, 1, 0, out);
    assert_int_equal(out[CPUID_ECX] & B(27), B(27));
    assert_int_equal(out[CPUID_EDX] & B(9), 0);
    cpuid_lookup_live(&t, &c, 0xd, 0, out);
    assert_int_equal(out[CPUID_EBX], 832);
    cpuid_lookup_live(&t, &c, 0xb, 0x103, out);
    assert_int_equal(out[CPUID_ECX], 3);
    assert_int_equal(out[CPUID_EDX], 5);
}

static void test_overflow_is_seen(void **state)
{
    struct cpuid_table t = {0};

    for (uint32_t i = 0; i < CPUID_MAX_ENTRIES; i++)
        cpuid_set(&t, &(struct cpuid_entry){.leaf = i});
    assert_false(t.full);
    cpuid_set(&t, &(struct cpuid_entry){.leaf = 3, .reg = {9}}); /* replaces */
    assert_false(t.full);
    assert_int_equal(cpuid_find(&t, 3, 0)->reg[0], 9);
    cpuid_set(&t, &(struct cpuid_entry){.leaf = CPUID_MAX_ENTRIES});
    assert_true(t.full);
    cpuid_remove(&t, 3);
    assert_null(cpuid_find(&t, 3, 0));
    assert_int_equal(t.n, CPUID_MAX_ENTRIES - 1);
}

static void test_this_host(void **state)
{
    struct cpuid_table t;

    cpuid_build_soft(&t, 2, HZ);
    assert_false(t.full);
    /* Every x86-64 processor has these; a wrong column in the feature rows would lose them. */
    assert_int_equal(reg(&t, 1, 0, CPUID_EDX) & (B(0) | B(15) | B(23) | B(24) | B(25) | B(26)),
                     B(0) | B(15) | B(23) | B(24) | B(25) | B(26));
    assert_int_not_equal(reg(&t, 1, 0, CPUID_EAX) & 0xf00, 0);
}

static void test_arch_capabilities(void **state)
{
    uint64_t caps = cpuid_arch_capabilities();

    assert_true(caps & 1);         /* RDCL_NO: no page-table isolation */
    assert_true(caps & 2);         /* IBRS_ALL: no retpolines */
    assert_false(caps & 4);        /* RSBA would bring them back */
    assert_false(caps & (1 << 7)); /* TSX_CTRL: an MSR that does not exist */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_features_of_a_full_host),
        cmocka_unit_test(test_features_of_a_bare_host),
        cmocka_unit_test(test_avx_needs_the_host_kernel),
        cmocka_unit_test(test_topology),
        cmocka_unit_test(test_amd),
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_paravirtual_leaves),
        cmocka_unit_test(test_out_of_range),
        cmocka_unit_test(test_live),
        cmocka_unit_test(test_overflow_is_seen),
        cmocka_unit_test(test_this_host),
        cmocka_unit_test(test_arch_capabilities),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
