/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small kernels made by hand for the tests of the boot loaders; each field can then be spoilt. */
#ifndef TABIQUE_TESTS_MACHINE_BOOT_IMAGES_H
#define TABIQUE_TESTS_MACHINE_BOOT_IMAGES_H

#include "machine/boot.h"

#include <stdbool.h>

#define TEST_IMAGE_MAX 16384

struct test_image {
    uint8_t data[TEST_IMAGE_MAX];
    size_t size;
};

/* A bzImage of protocol 2.15 with a 64-bit entry: one setup sector, a protected-mode part of 4 KiB whose byte
 * n is (uint8_t)n, preferred at 16 MiB, 2 MiB of it in use while it starts. */
void test_bzimage(struct test_image *image);
#define TEST_BZ_SETUP_SIZE   1024
#define TEST_BZ_KERNEL_SIZE  4096
#define TEST_BZ_PREF_ADDRESS 0x1000000ull
#define TEST_BZ_INIT_SIZE    0x200000ull

/* An ELF executable of 32 or 64 bits: one segment of 256 bytes (512 in memory) at 2 MiB, entry at +0x10, and,
 * if asked for, a PVH note whose entry is at +0x20. The first program header is PT_LOAD, the second PT_NOTE.
 */
void test_elf(struct test_image *image, bool is_64bit, bool pvh_note);
#define TEST_ELF_ADDRESS     0x200000ull
#define TEST_ELF_FILE_SIZE   256
#define TEST_ELF_MEMORY_SIZE 512
#define TEST_ELF_SEGMENT     512 /* offset in the file */
#define TEST_ELF_NOTE        1024

/* Writes a Multiboot header with `flags` at `offset`, and the five address fields if `addresses` is not NULL.
 */
void test_multiboot_header(struct test_image *image, size_t offset, uint32_t flags,
                           const uint32_t *addresses);

/* A request to boot `image` in `memory` (its map included) with an empty command line. */
struct boot_request test_request(const struct test_image *image, struct guest_memory *memory);

/* Fails the test unless booting gives an error whose text has `part` in it. */
void test_expect_error(const struct boot_request *request, const char *part);
/* Fails the test, with the message, unless it boots. */
void test_expect_boot(const struct boot_request *request, struct cpu_state *state);

#endif
