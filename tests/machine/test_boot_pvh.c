/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ELF reader and the PVH loader: start information, entry state, and files that are wrong. */
#include "boot_images.h"

#include "base/bytes.h"

#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MIB (1ull << 20)

static struct guest_memory *memory;
static struct test_image image;

static int setup(void **state)
{
    test_elf(&image, true, true);
    return guest_memory_create(&memory, 16 * MIB, NULL);
}

static int teardown(void **state)
{
    guest_memory_free(memory);
    memory = NULL;
    return 0;
}

static void check_entry_state(const struct cpu_state *state)
{
    assert_int_equal(state->rip, TEST_ELF_ADDRESS + 0x20);
    assert_int_equal(state->cr0, 0x11);
    assert_int_equal(state->cr4, 0);
    assert_int_equal(state->efer, 0);
    assert_int_equal(state->rflags, 2);
    assert_int_equal(state->seg[CPU_CS].base, 0);
    assert_int_equal(state->seg[CPU_CS].limit, 0xffffffff);
    assert_int_equal(state->seg[CPU_CS].attr, 0xc09b);
    assert_int_equal(state->seg[CPU_ES].attr, 0xc093);
    assert_int_equal(state->tr.limit, 0x67);
    assert_int_equal(state->tr.attr, 0x8b);
}

static void test_start_info(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    uint8_t initrd[5000], module[3] = {7, 8, 9};
    struct boot_file modules[] = {{module, sizeof(module), "m", "its arguments"}};
    struct cpu_state state;

    memset(initrd, 0x33, sizeof(initrd));
    /* What the segment leaves uninitialized must be cleared. */
    memset(guest_memory_at(memory, TEST_ELF_ADDRESS, 4096), 0xff, 4096);
    request.initrd = (struct boot_file){.data = initrd, .size = sizeof(initrd), .name = "initrd"};
    request.modules = modules;
    request.n_modules = 1;
    request.command_line = "a b";
    test_expect_boot(&request, &state);
    check_entry_state(&state);
    const uint8_t *kernel = guest_memory_at(memory, TEST_ELF_ADDRESS, 4096);
    for (int i = 0; i < TEST_ELF_MEMORY_SIZE; i++)
        assert_int_equal(kernel[i], i < TEST_ELF_FILE_SIZE ? 0xcc : 0);
    assert_int_equal(kernel[TEST_ELF_MEMORY_SIZE], 0xff);

    const uint8_t *info = guest_memory_at(memory, state.gpr[CPU_RBX], 56);
    assert_int_equal(get_le32(info), 0x336ec578);
    assert_int_equal(get_le32(info + 4), 1);
    assert_int_equal(get_le32(info + 12), 2);
    assert_string_equal((char *)guest_memory_at(memory, get_le64(info + 24), 4), "a b");
    assert_int_equal(get_le64(info + 32), 0xe0000);
    assert_int_equal(get_le32(info + 48), request.map.n);
    const uint8_t *map = guest_memory_at(memory, get_le64(info + 40), 24 * request.map.n);
    for (unsigned i = 0; i < request.map.n; i++) {
        assert_int_equal(get_le64(map + 24 * i), request.map.ranges[i].base);
        assert_int_equal(get_le64(map + 24 * i + 8), request.map.ranges[i].size);
        assert_int_equal(get_le32(map + 24 * i + 16), request.map.ranges[i].type);
    }
    const uint8_t *list = guest_memory_at(memory, get_le64(info + 16), 64);
    assert_int_equal(get_le64(list), TEST_ELF_ADDRESS + 4096);
    assert_int_equal(get_le64(list + 8), sizeof(initrd));
    assert_int_equal(get_le64(list + 16), 0);
    assert_memory_equal(guest_memory_at(memory, get_le64(list), sizeof(initrd)), initrd, sizeof(initrd));
    assert_int_equal(get_le64(list + 32), TEST_ELF_ADDRESS + 4096 + 8192);
    assert_memory_equal(guest_memory_at(memory, get_le64(list + 32), 3), module, 3);
    assert_string_equal((char *)guest_memory_at(memory, get_le64(list + 48), 14), "its arguments");
}

static void test_elf32(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    struct cpu_state state;

    test_elf(&image, false, true);
    test_expect_boot(&request, &state);
    check_entry_state(&state);
}

static void test_bios_data_area(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    struct cpu_state state;

    test_expect_boot(&request, &state);
    assert_int_equal(get_le16(guest_memory_at(memory, 0x400, 2)), 0x3f8);
    assert_int_equal(get_le16(guest_memory_at(memory, 0x40e, 2)), 0x9fc0);
    assert_int_equal(get_le16(guest_memory_at(memory, 0x413, 2)), 639);
}

static void test_every_truncation_is_an_error(void **unused)
{
    struct boot_request request = test_request(&image, memory);

    /* The note, which lies last, tells that it is PVH at all. */
    image.size = TEST_ELF_NOTE + 44;
    for (size_t n = 0; n < image.size; n++) {
        request.kernel.size = n;
        test_expect_error(&request, "kernel 'kernel'");
    }
    test_elf(&image, true, true);
    Elf64_Phdr *load = (Elf64_Phdr *)(image.data + sizeof(Elf64_Ehdr));
    request.kernel.size = image.size;
    load->p_filesz = load->p_memsz = image.size;
    test_expect_error(&request, "cut short in segment 0");
    load->p_offset = UINT64_MAX - 10;
    test_expect_error(&request, "cut short in segment 0");
}

static void test_segments_out_of_place(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    Elf64_Phdr *load = (Elf64_Phdr *)(image.data + sizeof(Elf64_Ehdr));

    load->p_memsz = 100;
    test_expect_error(&request, "larger in the file than in memory");
    load->p_memsz = 15 * MIB;
    test_expect_error(&request, "outside of the 16 MiB of RAM: choose a larger --memory");
    load->p_memsz = UINT64_MAX;
    test_expect_error(&request, "outside of the 16 MiB");
    load->p_memsz = 512;
    load->p_paddr = 0xfff0000000;
    put_le32(image.data + TEST_ELF_NOTE + 40, 0x10);
    test_expect_error(&request, "PVH entry point 0x10 is in no loaded segment");
    load->p_paddr = 0x80010;
    put_le32(image.data + TEST_ELF_NOTE + 40, 0x80020);
    test_expect_error(&request, "lies in low memory");
    load->p_paddr = 0xfff00;
    put_le32(image.data + TEST_ELF_NOTE + 40, 0xfff20);
    test_expect_error(&request, "lies in low memory");
}

static void test_wrong_files(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    static const char xz[] = "\xfd"
                             "7zXZ",
                      script[] = "#!/bin/sh\n";
    uint8_t arm64[64] = {0};

    test_elf(&image, true, false);
    test_expect_error(&request, "an x86-64 ELF file without a PVH note");
    test_elf(&image, false, false);
    test_expect_error(&request, "an i386 ELF file without a PVH note");
    put_le16(image.data + 18, EM_AARCH64);
    test_expect_error(&request, "ELF file for AArch64");
    request.kernel.size = 0;
    test_expect_error(&request, "the file is empty");
    memcpy(arm64 + 0x38, "ARM\x64", 4);
    request.kernel = (struct boot_file){.data = arm64, .size = sizeof(arm64), .name = "Image"};
    test_expect_error(&request, "kernel 'Image': it is a kernel for AArch64");
    request.kernel.data = (const uint8_t *)xz;
    request.kernel.size = sizeof(xz);
    test_expect_error(&request, "unxz");
    request.kernel.data = (const uint8_t *)"\x1f\x8b\x08";
    request.kernel.size = 3;
    test_expect_error(&request, "gunzip");
    request.kernel.data = (const uint8_t *)script;
    request.kernel.size = sizeof(script);
    test_expect_error(&request, "script");
    request.kernel.size = 1;
    test_expect_error(&request, "not a kernel this machine can boot");
}

static void test_modules_that_do_not_fit(void **unused)
{
    struct boot_request request = test_request(&image, memory);
    uint8_t byte = 0;

    request.initrd = (struct boot_file){.data = &byte, .size = 15 * MIB, .name = "huge"};
    test_expect_error(&request, "'huge' of 15360 KiB does not fit");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_start_info, setup, teardown),
        cmocka_unit_test_setup_teardown(test_elf32, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bios_data_area, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_truncation_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_segments_out_of_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wrong_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_modules_that_do_not_fit, setup, teardown),
    };

    return cmocka_run_group_tests_name("boot_pvh", tests, NULL, NULL);
}
