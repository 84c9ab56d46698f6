/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bzImage loader: what it leaves in memory and registers, and what it says about files that are wrong. */
#include "boot_images.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MIB (1ull << 20)

static struct guest_memory *memory;
static struct test_image image;

static int setup(void **state)
{
    test_bzimage(&image);
    return guest_memory_create(&memory, 128 * MIB, NULL);
}

static int teardown(void **state)
{
    guest_memory_free(memory);
    memory = NULL;
    return 0;
}

static void use_memory(uint64_t size)
{
    guest_memory_free(memory);
    assert_int_equal(guest_memory_create(&memory, size, NULL), 0);
}

/* Follows the page tables that the state points to. */
static uint64_t translate(const struct cpu_state *state, uint64_t va)
{
    uint64_t table = state->cr3;

    for (int shift = 39;; shift -= 9) {
        const uint8_t *entry = guest_memory_at(memory, table + (va >> shift & 511) * 8, 8);
        assert_non_null(entry);
        uint64_t e = get_le64(entry);
        assert_int_equal(e & 3, 3);
        if (shift == 12 || e & 0x80)
            return (e & 0xffffffffff000ull & ~((1ull << shift) - 1)) | (va & ((1ull << shift) - 1));
        table = e & 0xffffffffff000ull;
    }
}

static void test_loads_by_64bit_protocol(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    struct cpu_state state;
    uint8_t initrd[10000];

    memset(initrd, 0x5a, sizeof(initrd));
    request.initrd = (struct boot_file){.data = initrd, .size = sizeof(initrd), .name = "initrd"};
    request.command_line = "console=ttyS0 quiet";
    test_expect_boot(&request, &state);

    assert_int_equal(state.rip, TEST_BZ_PREF_ADDRESS + 0x200);
    assert_memory_equal(guest_memory_at(memory, TEST_BZ_PREF_ADDRESS, TEST_BZ_KERNEL_SIZE),
                        image.data + TEST_BZ_SETUP_SIZE, TEST_BZ_KERNEL_SIZE);
    assert_int_equal(state.efer, 0x500);
    assert_true(state.cr0 & 1u << 31);
    assert_true(state.cr4 & 1u << 5);
    assert_int_equal(state.rflags, 2);
    assert_int_equal(state.seg[CPU_CS].selector, 0x10);
    assert_int_equal(state.seg[CPU_CS].attr, 0xa09b);
    assert_int_equal(state.seg[CPU_DS].selector, 0x18);
    assert_int_equal(state.seg[CPU_SS].attr, 0xc093);
    for (uint64_t va = 0; va < 1ull << 32; va += 0x3333333)
        assert_int_equal(translate(&state, va), va);
    const uint8_t *gdt = guest_memory_at(memory, state.gdt.base, state.gdt.limit + 1u);
    assert_int_equal(get_le64(gdt + 0x10), 0x00af9b000000ffff);
    assert_int_equal(get_le64(gdt + 0x18), 0x00cf93000000ffff);

    const uint8_t *zero_page = guest_memory_at(memory, state.gpr[CPU_RSI], 4096);
    assert_memory_equal(zero_page + 0x202, "HdrS", 4);
    assert_int_equal(zero_page[0x210], 0xff);
    assert_int_equal(get_le64(zero_page + 0x70), 0xe0000);
    assert_string_equal((char *)guest_memory_at(memory, get_le32(zero_page + 0x228), 1),
                        "console=ttyS0 quiet");
    uint64_t at = get_le32(zero_page + 0x218);
    assert_int_equal(get_le32(zero_page + 0x21c), sizeof(initrd));
    assert_int_equal(at % 4096, 0);
    assert_int_equal(at, ALIGN_DOWN(128 * MIB - sizeof(initrd), 4096));
    assert_memory_equal(guest_memory_at(memory, at, sizeof(initrd)), initrd, sizeof(initrd));
}

static void test_e820_has_all_ram_and_no_overlap(void **unused)
{
    struct cpu_state state;
    uint64_t ram = 0, end = 0;

    use_memory(5ull << 30);
    struct boot_request request = test_request(&image, memory);
    test_expect_boot(&request, &state);
    const uint8_t *zero_page = guest_memory_at(memory, state.gpr[CPU_RSI], 4096);
    assert_true(zero_page[0x1e8] >= 5);
    for (int i = 0; i < zero_page[0x1e8]; i++) {
        const uint8_t *e = zero_page + 0x2d0 + 20 * i;

        assert_true(get_le64(e) >= end);
        end = get_le64(e) + get_le64(e + 8);
        if (get_le32(e + 16) == 1) {
            ram += get_le64(e + 8);
            assert_non_null(guest_memory_at(memory, get_le64(e), get_le64(e + 8)));
        }
    }
    assert_int_equal(end, 6ull << 30); /* 3 GiB low, the rest from 4 GiB */
    assert_in_range((5ull << 30) - ram, 1, 400 * 1024);
}

static void test_kernel_without_64bit_entry_starts_in_32bit(void **unused)
{
    struct cpu_state state;
    struct boot_request request = test_request(&image, memory);

    put_le16(image.data + 0x236, 0);
    test_expect_boot(&request, &state);
    assert_int_equal(state.rip, TEST_BZ_PREF_ADDRESS);
    assert_int_equal(state.cr0, 0x11);
    assert_int_equal(state.efer, 0);
    assert_int_equal(state.seg[CPU_CS].attr, 0xc09b);
}

static void test_relocates_when_memory_is_small(void **unused)
{
    struct cpu_state state;

    use_memory(8 * MIB);
    struct boot_request request = test_request(&image, memory);
    test_expect_boot(&request, &state);
    assert_int_equal(state.rip, 6 * MIB + 0x200);
    /* The initrd then goes below it. */
    uint8_t initrd[5000] = {1};
    request.initrd = (struct boot_file){.data = initrd, .size = sizeof(initrd), .name = "initrd"};
    test_expect_boot(&request, &state);
    const uint8_t *zero_page = guest_memory_at(memory, state.gpr[CPU_RSI], 4096);
    assert_int_equal(get_le32(zero_page + 0x218), 6 * MIB - 8192);
    image.data[0x234] = 0;
    test_expect_error(&request, "choose a larger --memory");
}

static void test_initrd_keeps_below_the_kernels_limit(void **unused)
{
    struct cpu_state state;
    struct boot_request request = test_request(&image, memory);
    uint8_t initrd[4097] = {1};

    put_le32(image.data + 0x22c, 0x37fffff);
    request.initrd = (struct boot_file){.data = initrd, .size = sizeof(initrd), .name = "initrd"};
    test_expect_boot(&request, &state);
    const uint8_t *zero_page = guest_memory_at(memory, state.gpr[CPU_RSI], 4096);
    assert_int_equal(get_le32(zero_page + 0x218), 0x3800000 - 8192);
    assert_int_equal(get_le32(zero_page + 0x0c0), 0);
}

static void test_large_initrd_goes_above_4g_if_allowed(void **unused)
{
    struct cpu_state state;
    cleanup_free uint8_t *initrd = calloc(1, 64 * MIB);

    assert_non_null(initrd);
    use_memory(4ull << 30);
    struct boot_request request = test_request(&image, memory);
    put_le32(image.data + 0x22c, 32 * MIB); /* too low for it beside the kernel */
    request.initrd = (struct boot_file){.data = initrd, .size = 64 * MIB, .name = "initrd"};
    test_expect_boot(&request, &state);
    const uint8_t *zero_page = guest_memory_at(memory, state.gpr[CPU_RSI], 4096);
    uint64_t at = get_le32(zero_page + 0x218) | (uint64_t)get_le32(zero_page + 0x0c0) << 32;
    assert_int_equal(at, (5ull << 30) - 64 * MIB);
    put_le16(image.data + 0x236, 1);
    test_expect_error(&request, "choose a larger --memory or a smaller initrd");
}

static void test_initrd_larger_than_ram(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    uint8_t initrd[1];

    request.initrd = (struct boot_file){.data = initrd, .size = 129 * MIB, .name = "big"};
    test_expect_error(&request, "initrd 'big' of 129 MiB");
}

static void test_command_line_limits(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    struct cpu_state state;
    cleanup_free char *text = malloc(200001);

    memset(text, 'x', 200000);
    text[200000] = 0;
    request.command_line = text + 200000 - 2047;
    test_expect_boot(&request, &state);
    request.command_line = text + 200000 - 2048;
    test_expect_error(&request, "this kernel takes 2047: shorten --append");
    /* A kernel that takes anything is still held by the room there is. */
    put_le32(image.data + 0x238, 1u << 20);
    request.command_line = text;
    test_expect_error(&request, "shorten the command lines");
}

static void test_every_truncation_is_an_error(void **unused)
{
    struct boot_request request = test_request(&image, memory);

    /* syssize is in 16 bytes, so that the last 15 may be missing. */
    for (size_t n = 0; n <= image.size - 16; n++) {
        request.kernel.size = n;
        test_expect_error(&request, n < 0x206 ? "kernel 'kernel'" : "cut short");
    }
}

static void test_damaged_headers(void **unused)
{
    struct boot_request request = test_request(&image, memory);

    put_le32(image.data + 0x230, 3);
    test_expect_error(&request, "alignment");
    test_bzimage(&image);
    put_le16(image.data + 0x206, 0x204);
    test_expect_error(&request, "boot protocol 2.04 is too old");
    test_bzimage(&image);
    put_le32(image.data + 0x1f4, 0x10);
    test_expect_error(&request, "64-bit entry point");
    test_bzimage(&image);
    put_le32(image.data + 0x260, 0xffffffff);
    test_expect_error(&request, "choose a larger --memory");
    test_bzimage(&image);
    request.n_modules = 1;
    request.modules = &request.kernel;
    test_expect_error(&request, "takes no modules");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_loads_by_64bit_protocol, setup, teardown),
        cmocka_unit_test_setup_teardown(test_e820_has_all_ram_and_no_overlap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kernel_without_64bit_entry_starts_in_32bit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_relocates_when_memory_is_small, setup, teardown),
        cmocka_unit_test_setup_teardown(test_initrd_keeps_below_the_kernels_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_initrd_goes_above_4g_if_allowed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_initrd_larger_than_ram, setup, teardown),
        cmocka_unit_test_setup_teardown(test_command_line_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_truncation_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_headers, setup, teardown),
    };

    return cmocka_run_group_tests_name("boot_bzimage", tests, NULL, NULL);
}
