/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The Multiboot loader: information structure, both ways of loading, and headers that are wrong. */
#include "boot_images.h"

#include "base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MIB    (1ull << 20)
#define HEADER 64 /* of an image without ELF */

static struct guest_memory *memory;
static struct test_image image;

static int setup(void **state)
{
    test_elf(&image, false, false);
    test_multiboot_header(&image, TEST_ELF_SEGMENT, 3, NULL);
    return guest_memory_create(&memory, 16 * MIB, NULL);
}

static int teardown(void **state)
{
    guest_memory_free(memory);
    memory = NULL;
    return 0;
}

static const char *text_at(uint32_t gpa)
{
    return guest_memory_at(memory, gpa, 1);
}

static void test_information(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    uint8_t first[5000] = {1}, second[1] = {2};
    struct boot_file modules[] = {{first, sizeof(first), "one", "first module"}, {second, 1, "two", NULL}};
    struct cpu_state state;

    request.modules = modules;
    request.n_modules = 2;
    request.command_line = "kernel arguments";
    test_expect_boot(&request, &state);
    assert_int_equal(state.gpr[CPU_RAX], 0x2badb002);
    assert_int_equal(state.rip, TEST_ELF_ADDRESS + 0x10);
    assert_int_equal(state.cr0, 0x11);
    const uint8_t *info = guest_memory_at(memory, state.gpr[CPU_RBX], 116);
    assert_int_equal(get_le32(info) & 0x4d, 0x4d); /* memory, command line, modules, map */
    assert_int_equal(get_le32(info + 4), 639);
    assert_int_equal(get_le32(info + 8), 15 * 1024);
    assert_string_equal(text_at(get_le32(info + 16)), "kernel arguments");
    assert_string_equal(text_at(get_le32(info + 64)), "Tabique");

    assert_int_equal(get_le32(info + 20), 2);
    const uint8_t *list = guest_memory_at(memory, get_le32(info + 24), 32);
    assert_int_equal(get_le32(list), TEST_ELF_ADDRESS + 4096);
    assert_int_equal(get_le32(list + 4), TEST_ELF_ADDRESS + 4096 + 5000);
    assert_string_equal(text_at(get_le32(list + 8)), "first module");
    assert_int_equal(get_le32(list + 16), TEST_ELF_ADDRESS + 4096 + 8192);
    assert_string_equal(text_at(get_le32(list + 24)), "");
    assert_memory_equal(text_at(get_le32(list + 16)), second, 1);

    uint32_t at = get_le32(info + 48), end = at + get_le32(info + 44);
    for (unsigned i = 0; i < request.map.n; i++) {
        const uint8_t *e = guest_memory_at(memory, at, 24);

        assert_true(at < end);
        assert_int_equal(get_le64(e + 4), request.map.ranges[i].base);
        assert_int_equal(get_le64(e + 12), request.map.ranges[i].size);
        at += 4 + get_le32(e);
    }
    assert_int_equal(at, end);
}

static void test_64bit_elf_is_taken(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    struct cpu_state state;

    test_elf(&image, true, false);
    test_multiboot_header(&image, TEST_ELF_SEGMENT, 0, NULL);
    test_expect_boot(&request, &state);
    assert_int_equal(state.seg[CPU_CS].attr, 0xc09b); /* still in 32-bit mode */
    put_le64(image.data + 24, 0x100000000ull);
    test_expect_error(&request, "entry point 0x100000000 is in no loaded segment");
}

static void test_pvh_goes_first(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    struct cpu_state state;

    test_elf(&image, true, true);
    test_multiboot_header(&image, TEST_ELF_SEGMENT, 0, NULL);
    test_expect_boot(&request, &state);
    assert_int_equal(state.rip, TEST_ELF_ADDRESS + 0x20);
}

static void raw_image(uint32_t header, uint32_t load, uint32_t load_end, uint32_t bss_end, uint32_t entry)
{
    uint32_t addresses[5] = {header, load, load_end, bss_end, entry};

    memset(&image, 0, sizeof(image));
    image.size = 1024;
    memset(image.data, 0xab, image.size);
    test_multiboot_header(&image, HEADER, 1u << 16, addresses);
}

static void test_address_fields(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    struct cpu_state state;
    uint8_t *at = guest_memory_at(memory, 4 * MIB, 4096);

    /* Loaded from 32 bytes before the header, 512 bytes, cleared up to 1024. */
    memset(at, 0xff, 4096);
    raw_image(4 * MIB + 32, 4 * MIB, 4 * MIB + 512, 4 * MIB + 1024, 4 * MIB + 100);
    request.kernel.size = image.size;
    test_expect_boot(&request, &state);
    assert_int_equal(state.rip, 4 * MIB + 100);
    assert_int_equal(get_le32(at + 32), 0x1badb002);
    assert_int_equal(at[0], 0xab);
    assert_int_equal(at[511], 0xab);
    assert_int_equal(at[512], 0);
    assert_int_equal(at[1023], 0);
    assert_int_equal(at[1024], 0xff);
    /* No end given: all of the file. */
    raw_image(4 * MIB + 32, 4 * MIB, 0, 0, 4 * MIB + 100);
    test_expect_boot(&request, &state);
    assert_int_equal(at[1024 - HEADER + 32 - 1], 0xab);
}

static void test_address_fields_that_lie(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    static const struct {
        uint32_t fields[5];
        const char *part;
    } cases[] = {
        {{4 << 20, (4 << 20) + 1, 0, 0, 4 << 20}, "does not fit its own place"},
        {{4 << 20, 1 << 20, 0, 0, 1 << 20}, "does not fit its own place"},
        {{4 << 20, 4 << 20, (4 << 20) + 1000, 0, 4 << 20}, "cut short"},
        {{4 << 20, 4 << 20, 3 << 20, 0, 4 << 20}, "cut short"},
        {{4 << 20, 4 << 20, (4 << 20) + 64, (4 << 20) + 63, 4 << 20}, "inside of the data"},
        {{4 << 20, 4 << 20, (4 << 20) + 64, 0xffffffff, 4 << 20}, "choose a larger --memory"},
        {{4 << 20, 4 << 20, (4 << 20) + 64, 0, (4 << 20) + 64}, "entry point"},
        {{0x90000, 0x90000, 0x90040, 0, 0x90000}, "low memory"},
        {{0xfffffff0, 0xfffffff0, 0, 0, 0xfffffff0}, "outside of the 16 MiB"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const uint32_t *f = cases[i].fields;

        raw_image(f[0], f[1], f[2], f[3], f[4]);
        request.kernel.size = image.size;
        test_expect_error(&request, cases[i].part);
    }
    raw_image(4 << 20, 4 << 20, 0, 0, 4 << 20);
    request.kernel.size = HEADER + 12; /* ends before the fields */
    test_expect_error(&request, "does not fit its own place");
}

static void test_demands_that_cannot_be_met(void **unused)
{
    struct boot_request request = test_request(&image, memory);

    test_multiboot_header(&image, TEST_ELF_SEGMENT, 1u << 2, NULL);
    test_expect_error(&request, "no display");
    test_multiboot_header(&image, TEST_ELF_SEGMENT, 1u << 9, NULL);
    test_expect_error(&request, "features 0x200");
    /* A wrong checksum is no header at all. */
    test_multiboot_header(&image, TEST_ELF_SEGMENT, 3, NULL);
    image.data[TEST_ELF_SEGMENT + 8] ^= 1;
    test_expect_error(&request, "without a PVH note or a Multiboot header");
    /* Nor is one behind the first 8 KiB, or at an odd address. */
    memset(image.data + TEST_ELF_SEGMENT, 0, 16);
    test_multiboot_header(&image, TEST_ELF_SEGMENT + 2, 3, NULL);
    test_expect_error(&request, "without a PVH note or a Multiboot header");
    test_multiboot_header(&image, 8192, 3, NULL);
    request.kernel.size = TEST_IMAGE_MAX;
    test_expect_error(&request, "without a PVH note or a Multiboot header");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_information, setup, teardown),
        cmocka_unit_test_setup_teardown(test_64bit_elf_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pvh_goes_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_address_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(test_address_fields_that_lie, setup, teardown),
        cmocka_unit_test_setup_teardown(test_demands_that_cannot_be_met, setup, teardown),
    };

    return cmocka_run_group_tests_name("boot_multiboot", tests, NULL, NULL);
}
