/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ELF kernels by PVH, Xen's direct boot ABI: an ELF note names a 32-bit entry point, which gets a structure
 * in EBX. Facts: Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h. Linux has it with
 * CONFIG_PVH, FreeBSD and OpenBSD too. Called through the table in boot.c.
 */
#include "machine/boot_elf.h"
#include "machine/boot_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <string.h>

#define NOTE_PHYS32_ENTRY 18u

#define START_INFO_MAGIC   0x336ec578u
#define START_INFO_VERSION 1u
#define START_INFO_SIZE    56
#define MODULE_SIZE        32
#define RANGE_SIZE         24

/* Looks through one PT_NOTE segment. */
static bool find_in_notes(const struct elf_file *elf, const struct elf_segment *s, uint64_t *entry)
{
    uint64_t align = s->align == 8 ? 8 : 4;
    uint64_t size = s->file_size;

    if (s->offset > elf->size || size > elf->size - s->offset)
        return false;
    const uint8_t *note = elf->data + s->offset;
    while (size >= 12) {
        uint64_t name_size = get_le32(note), desc_size = get_le32(note + 4);
        uint64_t desc_at = ALIGN_UP(12 + name_size, align);
        uint64_t next = desc_at + ALIGN_UP(desc_size, align);

        if (desc_at > size || desc_size > size - desc_at)
            return false;
        if (get_le32(note + 8) == NOTE_PHYS32_ENTRY && name_size == 4 && memcmp(note + 12, "Xen", 4) == 0 &&
            (desc_size == 4 || desc_size == 8)) {
            *entry = desc_size == 4 ? get_le32(note + desc_at) : get_le64(note + desc_at);
            return true;
        }
        if (next > size)
            return false;
        note += next;
        size -= next;
    }
    return false;
}

static bool find_entry(const struct elf_file *elf, uint64_t *entry)
{
    struct elf_segment s;

    for (unsigned i = 0; i < elf->ph_count; i++) {
        elf_segment_get(elf, i, &s);
        if (s.type == ELF_PT_NOTE && find_in_notes(elf, &s, entry))
            return true;
    }
    return false;
}

static bool pvh_probe(const uint8_t *data, size_t size)
{
    struct elf_file elf;
    uint64_t entry;

    return elf_open(&elf, data, size, NULL) == 0 && find_entry(&elf, &entry);
}

/* struct hvm_modlist_entry for each: address, size, command line, reserved. */
static int write_modules(const struct boot_file *files, size_t n, const uint64_t *gpas,
                         struct boot_area *area, uint64_t *list, struct error **err)
{
    uint8_t *entry = boot_area_alloc(area, n * MODULE_SIZE, 8, list, err);

    if (!entry)
        return -E2BIG;
    for (size_t i = 0; i < n; i++, entry += MODULE_SIZE) {
        uint64_t text = 0;

        put_le64(entry, gpas[i]);
        put_le64(entry + 8, files[i].size);
        if (files[i].command_line) {
            int rc = boot_area_string(area, files[i].command_line, &text, err);
            if (rc)
                return rc;
        }
        put_le64(entry + 16, text);
    }
    return 0;
}

static int write_memory_map(const struct memory_map *map, struct boot_area *area, uint64_t *list,
                            struct error **err)
{
    uint8_t *entry = boot_area_alloc(area, map->n * RANGE_SIZE, 8, list, err);

    if (!entry)
        return -E2BIG;
    for (unsigned i = 0; i < map->n; i++, entry += RANGE_SIZE) {
        put_le64(entry, map->ranges[i].base);
        put_le64(entry + 8, map->ranges[i].size);
        put_le32(entry + 16, map->ranges[i].type);
    }
    return 0;
}

/* struct hvm_start_info and all that it points to. */
static int write_start_info(const struct boot_request *request, uint64_t kernel_end, struct boot_area *area,
                            uint64_t *gpa, struct error **err)
{
    cleanup_free struct boot_file *files = NULL;
    uint64_t cmdline, modules = 0, map;
    size_t n;
    uint8_t *info = boot_area_alloc(area, START_INFO_SIZE, 8, gpa, err);

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
        rc = write_memory_map(&request->map, area, &map, err);
    if (rc == 0)
        rc = boot_place_modules(request, kernel_end, files, n, gpas, err);
    if (rc == 0 && n)
        rc = write_modules(files, n, gpas, area, &modules, err);
    if (rc)
        return rc;
    put_le32(info, START_INFO_MAGIC);
    put_le32(info + 4, START_INFO_VERSION);
    put_le32(info + 8, 0); /* not the initial domain */
    put_le32(info + 12, (uint32_t)n);
    put_le64(info + 16, modules);
    put_le64(info + 24, cmdline);
    put_le64(info + 32, request->rsdp);
    put_le64(info + 40, map);
    put_le32(info + 48, request->map.n);
    return 0;
}

static int pvh_load(const struct boot_request *request, struct cpu_state *state, struct error **err)
{
    struct elf_file elf;
    struct boot_area area;
    uint64_t entry, end, info;
    int rc = elf_open(&elf, request->kernel.data, request->kernel.size, err);

    if (rc)
        return rc;
    if (!find_entry(&elf, &entry))
        return error_set(err, ENOEXEC, "no PVH entry point");
    if (entry > UINT32_MAX || !elf_covers(&elf, entry))
        return error_set(err, ENOEXEC,
                         "its PVH entry point 0x%llx is in no loaded segment: the file is damaged",
                         (unsigned long long)entry);
    rc = elf_load(&elf, request->memory, &end, NULL, err);
    if (rc)
        return rc;
    boot_area_init(&area, request->memory);
    rc = write_start_info(request, end < MAP_HIGH_MEMORY ? MAP_HIGH_MEMORY : end, &area, &info, err);
    if (rc == 0)
        rc = boot_state_protected(state, &area, entry, err);
    if (rc)
        return rc;
    state->gpr[CPU_RBX] = info;
    return 0;
}

const struct boot_loader boot_pvh = {.name = "PVH", .probe = pvh_probe, .load = pvh_load};
