/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small kernels made by hand for the tests of the boot loaders. */
#include "boot_images.h"

#include "base/bytes.h"
#include "base/error.h"

#include <elf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

void test_bzimage(struct test_image *image)
{
    uint8_t *d = image->data;

    memset(image, 0, sizeof(*image));
    image->size = TEST_BZ_SETUP_SIZE + TEST_BZ_KERNEL_SIZE;
    d[0x1f1] = 1;
    put_le32(d + 0x1f4, TEST_BZ_KERNEL_SIZE / 16);
    put_le16(d + 0x1fe, 0xaa55);
    d[0x200] = 0xeb;
    d[0x201] = 0x6a;
    memcpy(d + 0x202, "HdrS", 4);
    put_le16(d + 0x206, 0x20f);
    d[0x211] = 1; /* loaded high */
    put_le32(d + 0x22c, 0x7fffffff);
    put_le32(d + 0x230, 0x200000);
    d[0x234] = 1;
    put_le16(d + 0x236, 0x3); /* 64-bit entry, initrd may be above 4 GiB */
    put_le32(d + 0x238, 2047);
    put_le64(d + 0x258, TEST_BZ_PREF_ADDRESS);
    put_le32(d + 0x260, TEST_BZ_INIT_SIZE);
    for (int i = 0; i < TEST_BZ_KERNEL_SIZE; i++)
        d[TEST_BZ_SETUP_SIZE + i] = (uint8_t)i;
}

static void put_note(uint8_t *p)
{
    /* Another note first, with a size that needs padding. */
    put_le32(p, 4);
    put_le32(p + 4, 5);
    put_le32(p + 8, 6);
    memcpy(p + 12, "Xen", 4);
    p += 12 + 4 + 8;
    put_le32(p, 4);
    put_le32(p + 4, 4);
    put_le32(p + 8, 18);
    memcpy(p + 12, "Xen", 4);
    put_le32(p + 16, TEST_ELF_ADDRESS + 0x20);
}
#define NOTES_SIZE (12 + 4 + 8 + 12 + 4 + 4)

void test_elf(struct test_image *image, bool is_64bit, bool pvh_note)
{
    memset(image, 0, sizeof(*image));
    image->size = 2048;
    if (is_64bit) {
        Elf64_Ehdr *e = (Elf64_Ehdr *)image->data;
        Elf64_Phdr *p = (Elf64_Phdr *)(e + 1);

        memcpy(e->e_ident, ELFMAG, SELFMAG);
        e->e_ident[EI_CLASS] = ELFCLASS64;
        e->e_ident[EI_DATA] = ELFDATA2LSB;
        e->e_type = ET_EXEC;
        e->e_machine = EM_X86_64;
        e->e_entry = TEST_ELF_ADDRESS + 0x10;
        e->e_phoff = sizeof(*e);
        e->e_phentsize = sizeof(*p);
        e->e_phnum = pvh_note ? 2 : 1;
        p[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                            .p_offset = TEST_ELF_SEGMENT,
                            .p_vaddr = TEST_ELF_ADDRESS,
                            .p_paddr = TEST_ELF_ADDRESS,
                            .p_filesz = TEST_ELF_FILE_SIZE,
                            .p_memsz = TEST_ELF_MEMORY_SIZE};
        p[1] =
            (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = TEST_ELF_NOTE, .p_filesz = NOTES_SIZE, .p_align = 4};
    } else {
        Elf32_Ehdr *e = (Elf32_Ehdr *)image->data;
        Elf32_Phdr *p = (Elf32_Phdr *)(e + 1);

        memcpy(e->e_ident, ELFMAG, SELFMAG);
        e->e_ident[EI_CLASS] = ELFCLASS32;
        e->e_ident[EI_DATA] = ELFDATA2LSB;
        e->e_type = ET_EXEC;
        e->e_machine = EM_386;
        e->e_entry = TEST_ELF_ADDRESS + 0x10;
        e->e_phoff = sizeof(*e);
        e->e_phentsize = sizeof(*p);
        e->e_phnum = pvh_note ? 2 : 1;
        p[0] = (Elf32_Phdr){.p_type = PT_LOAD,
                            .p_offset = TEST_ELF_SEGMENT,
                            .p_vaddr = TEST_ELF_ADDRESS,
                            .p_paddr = TEST_ELF_ADDRESS,
                            .p_filesz = TEST_ELF_FILE_SIZE,
                            .p_memsz = TEST_ELF_MEMORY_SIZE};
        p[1] =
            (Elf32_Phdr){.p_type = PT_NOTE, .p_offset = TEST_ELF_NOTE, .p_filesz = NOTES_SIZE, .p_align = 4};
    }
    memset(image->data + TEST_ELF_SEGMENT, 0xcc, TEST_ELF_FILE_SIZE);
    if (pvh_note)
        put_note(image->data + TEST_ELF_NOTE);
}

void test_multiboot_header(struct test_image *image, size_t offset, uint32_t flags, const uint32_t *addresses)
{
    uint8_t *p = image->data + offset;

    put_le32(p, 0x1badb002);
    put_le32(p + 4, flags);
    put_le32(p + 8, -(0x1badb002 + flags));
    for (int i = 0; addresses && i < 5; i++)
        put_le32(p + 12 + 4 * i, addresses[i]);
}

struct boot_request test_request(const struct test_image *image, struct guest_memory *memory)
{
    struct boot_request request = {
        .kernel = {.data = image->data, .size = image->size, .name = "kernel"},
        .command_line = "",
        .memory = memory,
        .rsdp = 0xe0000,
    };

    memory_map_build(&request.map, memory);
    return request;
}

void test_expect_error(const struct boot_request *request, const char *part)
{
    cleanup_error struct error *err = NULL;
    struct cpu_state state = {.rip = 0x1234};

    assert_true(boot_load(request, &state, &err) < 0);
    if (!strstr(error_message(err), part))
        fail_msg("\"%s\" is not in \"%s\"", part, error_message(err));
    assert_int_equal(state.rip, 0x1234); /* untouched on failure */
}

void test_expect_boot(const struct boot_request *request, struct cpu_state *state)
{
    cleanup_error struct error *err = NULL;

    if (boot_load(request, state, &err) < 0)
        fail_msg("%s", error_message(err));
}
