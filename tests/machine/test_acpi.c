/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ACPI tables as a kernel finds them, and the AML writer's encodings. check_acpi.py has iasl read them
 * too. */
#include "base/bytes.h"
#include "base/error.h"
#include "device/guest_memory.h"
#include "machine/acpi.h"
#include "machine/acpi_aml.h"
#include "machine/memory_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct guest_memory *memory;

static int setup(void **state)
{
    return guest_memory_create(&memory, 16 << 20, NULL);
}

static int teardown(void **state)
{
    guest_memory_free(memory);
    return 0;
}

static bool sums_to_zero(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    while (n--)
        sum += *p++;
    return sum == 0;
}

/* By the RSDT (width 4) or XSDT (width 8). */
static const uint8_t *find(const uint8_t *rsdp, unsigned width, const char *signature)
{
    uint64_t root_gpa = width == 4 ? get_le32(rsdp + 16) : get_le64(rsdp + 24);
    const uint8_t *root = guest_memory_at(memory, root_gpa, 36);

    assert_true(sums_to_zero(root, get_le32(root + 4)));
    for (uint32_t at = 36; at < get_le32(root + 4); at += width) {
        uint64_t gpa = width == 4 ? get_le32(root + at) : get_le64(root + at);
        const uint8_t *table = guest_memory_at(memory, gpa, 36);

        assert_in_range(gpa, MAP_FIRMWARE, MAP_FIRMWARE_END - 36);
        assert_true(sums_to_zero(table, get_le32(table + 4)));
        if (memcmp(table, signature, 4) == 0)
            return table;
    }
    fail_msg("no table %s", signature);
    return NULL;
}

static void test_tables_are_found_both_ways(void **unused)
{
    struct acpi_config config = {.cpus = 4};
    uint64_t rsdp_gpa = 0;

    assert_int_equal(acpi_write(memory, &config, &rsdp_gpa, NULL), 0);
    assert_in_range(rsdp_gpa, 0xe0000, 0xfffff);
    assert_int_equal(rsdp_gpa % 16, 0);
    const uint8_t *rsdp = guest_memory_at(memory, rsdp_gpa, 36);
    assert_memory_equal(rsdp, "RSD PTR ", 8);
    assert_true(sums_to_zero(rsdp, 20));
    assert_true(sums_to_zero(rsdp, 36));
    for (unsigned width = 4; width <= 8; width += 4) {
        const uint8_t *fadt = find(rsdp, width, "FACP");

        find(rsdp, width, "APIC");
        find(rsdp, width, "MCFG");
        find(rsdp, width, "WDAT");
        assert_int_equal(get_le32(fadt + 40), get_le64(fadt + 140));
        const uint8_t *dsdt = guest_memory_at(memory, get_le32(fadt + 40), 36);
        assert_memory_equal(dsdt, "DSDT", 4);
        assert_true(sums_to_zero(dsdt, get_le32(dsdt + 4)));
        assert_int_equal(get_le32(fadt + 36) % 64, 0);
        assert_memory_equal(guest_memory_at(memory, get_le32(fadt + 36), 4), "FACS", 4);
    }
}

static void test_madt_lists_every_processor_once(void **unused)
{
    for (unsigned cpus = 1; cpus <= 8; cpus++) {
        struct acpi_config config = {.cpus = cpus};
        uint64_t rsdp = 0;
        unsigned seen = 0, at = 44;

        assert_int_equal(acpi_write(memory, &config, &rsdp, NULL), 0);
        const uint8_t *madt = find(guest_memory_at(memory, rsdp, 36), 8, "APIC");
        for (; at < get_le32(madt + 4); at += madt[at + 1]) {
            assert_true(madt[at + 1] >= 2);
            if (madt[at] == 0)
                seen |= 1u << madt[at + 3];
        }
        assert_int_equal(at, get_le32(madt + 4));
        assert_int_equal(seen, (1u << cpus) - 1);
    }
}

static void test_writing_twice_gives_the_same(void **unused)
{
    struct acpi_config config = {.cpus = 2};
    uint64_t rsdp = 0;
    static uint8_t before[0x20000];

    assert_int_equal(acpi_write(memory, &config, &rsdp, NULL), 0);
    uint8_t *area = guest_memory_at(memory, MAP_FIRMWARE, sizeof(before));
    memcpy(before, area, sizeof(before));
    /* A guest may have scribbled over it before its reset. */
    memset(area, 0x5a, 0x4000);
    assert_int_equal(acpi_write(memory, &config, &rsdp, NULL), 0);
    const uint8_t *xsdt = guest_memory_at(memory, get_le64((uint8_t *)area + 24), 36);
    size_t used = (size_t)(xsdt - area) + get_le32(xsdt + 4);
    for (size_t i = 0; i < used; i++)
        if (area[i] != before[i] && before[i] != 0) /* only padding may differ */
            fail_msg("byte %zu differs", i);
}

/* 20.2.4: 63 needs one byte, 64 two, 4096 three; the length counts its own bytes. */
static void test_package_lengths(void **unused)
{
    static uint8_t buf[1 << 17];
    static const struct {
        size_t body;
        uint8_t encoded[3];
        unsigned bytes;
    } cases[] = {
        {0, {0x05}, 1},
        {58, {0x3f}, 1},
        {59, {0x41, 0x04}, 2},
        {4089, {0x4f, 0xff}, 2},
        {4090, {0x81, 0x00, 0x01}, 3},
        {65536, {0x87, 0x00, 0x10}, 3},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct aml a = {.buf = buf, .size = sizeof(buf)};
        size_t m = aml_scope(&a, "ABCD");

        for (size_t n = 0; n < cases[i].body; n++)
            aml_integer(&a, 0);
        aml_end(&a, m);
        assert_int_equal(buf[0], 0x10);
        assert_memory_equal(buf + 1, cases[i].encoded, cases[i].bytes);
        assert_memory_equal(buf + 1 + cases[i].bytes, "ABCD", 4);
        assert_int_equal(a.used, 1 + cases[i].bytes + 4 + cases[i].body);
        assert_false(a.overflow);
    }
}

static void test_integers_and_ids(void **unused)
{
    uint8_t buf[64];
    struct aml a = {.buf = buf, .size = sizeof(buf)};
    static const uint8_t expected[] = {0x00, 0x01, 0x0a, 0xff, 0x0b, 0x00, 0x01, 0x0c, 0x00,
                                       0x00, 0x01, 0x00, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x01,
                                       0x00, 0x00, 0x00, 0x0c, 0x41, 0xd0, 0x0a, 0x08};

    aml_integer(&a, 0);
    aml_integer(&a, 1);
    aml_integer(&a, 0xff);
    aml_integer(&a, 0x100);
    aml_integer(&a, 0x10000);
    aml_integer(&a, 0x100000000);
    aml_eisa_id(&a, "PNP0A08");
    assert_int_equal(a.used, sizeof(expected));
    assert_memory_equal(buf, expected, sizeof(expected));
}

static void test_overflow_is_noticed_and_harmless(void **unused)
{
    struct acpi_config config = {.cpus = 8};

    for (size_t size = 0; size < 1500; size++) {
        uint8_t *buf = malloc(size + 1); /* exactly, so that a sanitizer sees one byte too much */
        struct aml a = {.buf = buf, .size = size};

        acpi_write_dsdt(&a, &config);
        assert_true(a.overflow);
        assert_true(a.used <= size);
        free(buf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tables_are_found_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(test_madt_lists_every_processor_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writing_twice_gives_the_same, setup, teardown),
        cmocka_unit_test(test_package_lengths),
        cmocka_unit_test(test_integers_and_ids),
        cmocka_unit_test(test_overflow_is_noticed_and_harmless),
    };

    return cmocka_run_group_tests_name("acpi", tests, NULL, NULL);
}
