/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Multiboot 1 kernels (Multiboot Specification 0.6.96): ELF files, or any file whose header has address
 * fields. A 64-bit ELF file is taken too, as GRUB does; its entry point runs in 32-bit mode all the same.
 * Called through the table in boot.c.
 */
#include "machine/boot_elf.h"
#include "machine/boot_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <string.h>

#define SEARCH_SIZE  8192u /* the header lies in the first so many bytes, on a multiple of 4 */
#define HEADER_MAGIC 0x1badb002u
#define ENTRY_MAGIC  0x2badb002u /* in EAX */

#define HEADER_PAGE_ALIGN  (1u << 0)
#define HEADER_MEMORY_INFO (1u << 1)
#define HEADER_VIDEO       (1u << 2)
#define HEADER_REQUIRED    0xffffu /* bits that a loader must understand */
#define HEADER_ADDRESSES   (1u << 16)

#define INFO_MEMORY       (1u << 0)
#define INFO_COMMAND_LINE (1u << 2)
#define INFO_MODULES      (1u << 3)
#define INFO_MEMORY_MAP   (1u << 6)
#define INFO_LOADER_NAME  (1u << 9)
#define INFO_SIZE         116
#define MODULE_SIZE       16
#define RANGE_SIZE        24

struct multiboot_header {
    size_t offset; /* in the file */
    uint32_t flags;
    uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

static bool find_header(const uint8_t *data, size_t size, struct multiboot_header *header)
{
    size_t limit = size < SEARCH_SIZE ? size : SEARCH_SIZE;

    for (size_t at = 0; at + 12 <= limit; at += 4) {
        uint32_t flags = get_le32(data + at + 4);

        if (get_le32(data + at) != HEADER_MAGIC || HEADER_MAGIC + flags + get_le32(data + at + 8) != 0)
            continue;
        *header = (struct multiboot_header){.offset = at, .flags = flags};
        if (flags & HEADER_ADDRESSES && size - at >= 32) {
            header->header_addr = get_le32(data + at + 12);
            header->load_addr = get_le32(data + at + 16);
            header->load_end_addr = get_le32(data + at + 20);
            header->bss_end_addr = get_le32(data + at + 24);
            header->entry_addr = get_le32(data + at + 28);
        }
        return true;
    }
    return false;
}

static bool multiboot_probe(const uint8_t *data, size_t size)
{
    struct multiboot_header header;

    return find_header(data, size, &header);
}

/* Loads by the header's address fields (3.1.3): no file format has to be understood. */
static int load_by_addresses(const struct boot_request *request, const struct multiboot_header *h,
                             uint64_t *end, uint64_t *entry, struct error **err)
{
    const struct boot_file *file = &request->kernel;
    uint64_t before = (uint64_t)h->header_addr - h->load_addr;

    if (file->size - h->offset < 32 || h->load_addr > h->header_addr || before > h->offset)
        return error_set(err, ENOEXEC,
                         "its header's load address 0x%x does not fit its own place 0x%x: link it again",
                         h->load_addr, h->header_addr);
    uint64_t offset = h->offset - before;
    uint64_t in_file = file->size - offset;
    if (h->load_end_addr) {
        uint64_t wanted = (uint64_t)h->load_end_addr - h->load_addr;

        if (h->load_end_addr < h->load_addr || wanted > in_file)
            return error_set(err, ENOEXEC,
                             "cut short: its header promises bytes up to 0x%x: build the file again",
                             h->load_end_addr);
        in_file = wanted;
    }
    uint64_t size = in_file;
    if (h->bss_end_addr) {
        if (h->bss_end_addr < h->load_addr + in_file)
            return error_set(err, ENOEXEC,
                             "its header ends the bss at 0x%x, inside of the data: link it again",
                             h->bss_end_addr);
        size = (uint64_t)h->bss_end_addr - h->load_addr;
    }
    int rc = boot_check_range(request->memory, h->load_addr, size, "the image", err);
    if (rc)
        return rc;
    if (h->entry_addr - (uint64_t)h->load_addr >= size)
        return error_set(err, ENOEXEC, "its entry point 0x%x is outside of what is loaded: link it again",
                         h->entry_addr);
    uint8_t *to = guest_memory_at(request->memory, h->load_addr, size);
    memcpy(to, file->data + offset, in_file);
    memset(to + in_file, 0, size - in_file);
    guest_memory_mark_written(request->memory, h->load_addr, size);
    *end = h->load_addr + size;
    *entry = h->entry_addr;
    return 0;
}

static int load_image(const struct boot_request *request, const struct multiboot_header *h, uint64_t *end,
                      uint64_t *entry, struct error **err)
{
    struct elf_file elf;

    if (h->flags & HEADER_VIDEO)
        return error_set(
            err, ENOTSUP,
            "it demands a video mode (header flag 2), this machine has no display: build it without");
    if (h->flags & HEADER_REQUIRED & ~(HEADER_PAGE_ALIGN | HEADER_MEMORY_INFO))
        return error_set(err, ENOTSUP,
                         "its header demands features 0x%x that Multiboot 0.6.96 does not define",
                         h->flags & HEADER_REQUIRED);
    if (h->flags & HEADER_ADDRESSES)
        return load_by_addresses(request, h, end, entry, err);
    int rc = elf_open(&elf, request->kernel.data, request->kernel.size, err);
    if (rc == 0)
        rc = elf_load(&elf, request->memory, end, entry, err);
    if (rc)
        return rc;
    if (*entry > UINT32_MAX)
        return error_set(err, ENOEXEC, "its entry point 0x%llx is above 4 GiB: link it lower",
                         (unsigned long long)*entry);
    return 0;
}

/* mods_addr (3.3): start, end, string, reserved for each. */
static int write_modules(const struct boot_file *files, size_t n, const uint64_t *gpas,
                         struct boot_area *area, uint64_t *list, struct error **err)
{
    uint8_t *entry = boot_area_alloc(area, n * MODULE_SIZE, 4, list, err);

    if (!entry)
        return -E2BIG;
    for (size_t i = 0; i < n; i++, entry += MODULE_SIZE) {
        uint64_t text;
        int rc = boot_area_string(area, files[i].command_line ? files[i].command_line : "", &text, err);

        if (rc)
            return rc;
        put_le32(entry, (uint32_t)gpas[i]);
        put_le32(entry + 4, (uint32_t)(gpas[i] + files[i].size));
        put_le32(entry + 8, (uint32_t)text);
    }
    return 0;
}

/* mmap_addr (3.3): the size of what follows, base, length, type for each. */
static int write_memory_map(const struct memory_map *map, struct boot_area *area, uint64_t *list,
                            struct error **err)
{
    uint8_t *entry = boot_area_alloc(area, map->n * RANGE_SIZE, 4, list, err);

    if (!entry)
        return -E2BIG;
    for (unsigned i = 0; i < map->n; i++, entry += RANGE_SIZE) {
        put_le32(entry, RANGE_SIZE - 4);
        put_le64(entry + 4, map->ranges[i].base);
        put_le64(entry + 12, map->ranges[i].size);
        put_le32(entry + 20, map->ranges[i].type);
    }
    return 0;
}

static int write_info(const struct boot_request *request, uint64_t kernel_end, struct boot_area *area,
                      uint64_t *gpa, struct error **err)
{
    cleanup_free struct boot_file *files = NULL;
    uint64_t cmdline, name, modules = 0, map;
    size_t n;
    const struct guest_memory_block *low = &request->memory->blocks[0];
    uint8_t *info = boot_area_alloc(area, INFO_SIZE, 4, gpa, err);

    if (!info)
        return -E2BIG;
    int rc = boot_all_modules(request, &files, &n, err);
    if (rc)
        return rc;
    cleanup_free uint64_t *gpas = calloc(n + 1, sizeof(*gpas));
    if (!gpas)
        return error_set_errno(err, ENOMEM, "list of modules");
    rc = boot_area_string(area, request->command_line, &cmdline, err);
    if (rc == 0)
        rc = boot_area_string(area, "Tabique", &name, err);
    if (rc == 0)
        rc = write_memory_map(&request->map, area, &map, err);
    if (rc == 0)
        rc = boot_place_modules(request, kernel_end, files, n, gpas, err);
    if (rc == 0 && n)
        rc = write_modules(files, n, gpas, area, &modules, err);
    if (rc)
        return rc;
    put_le32(info, INFO_MEMORY | INFO_COMMAND_LINE | INFO_MODULES | INFO_MEMORY_MAP | INFO_LOADER_NAME);
    put_le32(info + 4, MAP_EBDA >> 10); /* KiB below 1 MiB, and from 1 MiB up to the first hole */
    put_le32(info + 8, (uint32_t)((low->gpa + low->size - MAP_HIGH_MEMORY) >> 10));
    put_le32(info + 16, (uint32_t)cmdline);
    put_le32(info + 20, (uint32_t)n);
    put_le32(info + 24, (uint32_t)modules);
    put_le32(info + 44, request->map.n * RANGE_SIZE);
    put_le32(info + 48, (uint32_t)map);
    put_le32(info + 64, (uint32_t)name);
    return 0;
}

static int multiboot_load(const struct boot_request *request, struct cpu_state *state, struct error **err)
{
    struct multiboot_header header;
    struct boot_area area;
    uint64_t end, entry, info;

    if (!find_header(request->kernel.data, request->kernel.size, &header))
        return error_set(err, ENOEXEC, "no Multiboot header");
    int rc = load_image(request, &header, &end, &entry, err);
    if (rc)
        return rc;
    boot_area_init(&area, request->memory);
    rc = write_info(request, end < MAP_HIGH_MEMORY ? MAP_HIGH_MEMORY : end, &area, &info, err);
    if (rc == 0)
        rc = boot_state_protected(state, &area, entry, err);
    if (rc)
        return rc;
    state->gpr[CPU_RAX] = ENTRY_MAGIC;
    state->gpr[CPU_RBX] = info;
    return 0;
}

const struct boot_loader boot_multiboot = {
    .name = "Multiboot", .probe = multiboot_probe, .load = multiboot_load};
