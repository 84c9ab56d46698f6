/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Linux's bzImage by its 64-bit boot protocol, or its 32-bit one for kernels that have no 64-bit entry. The
 * format: Documentation/arch/x86/boot.rst and zero-page.rst of Linux. Called through the table in boot.c.
 *
 *   file:    | boot sector and real-mode setup, (setup_sects + 1) * 512 | protected-mode kernel ...
 *   memory:  load address | protected-mode kernel, entry at +0 (32-bit) and +0x200 (64-bit) | up to init_size
 */
#include "machine/boot_priv.h"

#include "base/bytes.h"
#include "base/error.h"

#include <errno.h>
#include <string.h>

/* Offsets in the boot sector; the setup header has the same ones in the zero page. */
#define HDR_START            0x1f1
#define HDR_SETUP_SECTS      0x1f1
#define HDR_SYSSIZE          0x1f4 /* in 16 bytes */
#define HDR_BOOT_FLAG        0x1fe
#define HDR_JUMP_LENGTH      0x201
#define HDR_MAGIC            0x202
#define HDR_VERSION          0x206
#define HDR_TYPE_OF_LOADER   0x210
#define HDR_LOADFLAGS        0x211
#define HDR_RAMDISK_IMAGE    0x218
#define HDR_RAMDISK_SIZE     0x21c
#define HDR_CMD_LINE_PTR     0x228
#define HDR_INITRD_ADDR_MAX  0x22c
#define HDR_KERNEL_ALIGNMENT 0x230
#define HDR_RELOCATABLE      0x234
#define HDR_XLOADFLAGS       0x236
#define HDR_CMDLINE_SIZE     0x238
#define HDR_PREF_ADDRESS     0x258
#define HDR_INIT_SIZE        0x260
#define HDR_END_MAX          0x290 /* where the zero page has other fields */

#define ZERO_PAGE_RSDP         0x070
#define ZERO_PAGE_EXT_RD_IMAGE 0x0c0
#define ZERO_PAGE_EXT_RD_SIZE  0x0c4
#define ZERO_PAGE_E820_ENTRIES 0x1e8
#define ZERO_PAGE_E820_TABLE   0x2d0
#define ZERO_PAGE_SIZE         4096

#define LOADFLAG_LOADED_HIGH 0x01
#define XLF_KERNEL_64        0x01
#define XLF_ABOVE_4G         0x02
#define LOADER_UNDEFINED     0xff /* the type for loaders without an assigned number */
#define ENTRY_64             0x200

struct bzimage {
    const uint8_t *setup; /* the whole file */
    const uint8_t *kernel;
    size_t kernel_size;
    unsigned version;
    uint64_t alignment, pref_address, init_size;
    bool relocatable, has_64bit_entry, initrd_above_4g;
    uint64_t initrd_addr_max, cmdline_max;
};

static bool bzimage_probe(const uint8_t *data, size_t size)
{
    return size >= HDR_VERSION && get_le16(data + HDR_BOOT_FLAG) == 0xaa55 &&
           memcmp(data + HDR_MAGIC, "HdrS", 4) == 0;
}

/* Reads the header; `out` is filled and consistent on success. */
static int parse(const uint8_t *data, size_t size, struct bzimage *out, struct error **err)
{
    if (size < HDR_INIT_SIZE + 4)
        return error_set(err, ENOEXEC, "cut short in its setup header: fetch the file again");
    unsigned version = get_le16(data + HDR_VERSION);
    if (version < 0x20a || !(data[HDR_LOADFLAGS] & LOADFLAG_LOADED_HIGH))
        return error_set(err, ENOEXEC,
                         "boot protocol %u.%02u is too old: a bzImage of Linux 2.6.31 or later is needed",
                         version >> 8, version & 0xff);

    size_t setup_size = ((data[HDR_SETUP_SECTS] ? data[HDR_SETUP_SECTS] : 4u) + 1u) * 512u;
    uint64_t promised = (uint64_t)get_le32(data + HDR_SYSSIZE) * 16;
    /* The last 16 bytes of syssize may be filled up only in part. */
    if (setup_size >= size || size - setup_size + 15 < promised || promised == 0)
        return error_set(err, ENOEXEC,
                         "cut short: its header promises %llu bytes, the file has %zu: fetch the file again",
                         (unsigned long long)(setup_size + promised), size);
    uint64_t there = size - setup_size;

    unsigned xloadflags = version >= 0x20c ? get_le16(data + HDR_XLOADFLAGS) : 0;
    *out = (struct bzimage){
        .setup = data,
        .kernel = data + setup_size,
        .kernel_size = promised < there ? promised : there,
        .version = version,
        .alignment = get_le32(data + HDR_KERNEL_ALIGNMENT),
        .pref_address = get_le64(data + HDR_PREF_ADDRESS),
        .init_size = get_le32(data + HDR_INIT_SIZE),
        .relocatable = data[HDR_RELOCATABLE],
        .has_64bit_entry = xloadflags & XLF_KERNEL_64,
        .initrd_above_4g = xloadflags & XLF_ABOVE_4G,
        .initrd_addr_max = get_le32(data + HDR_INITRD_ADDR_MAX),
        .cmdline_max = get_le32(data + HDR_CMDLINE_SIZE),
    };
    if (out->init_size < out->kernel_size)
        out->init_size = out->kernel_size;
    if (!out->alignment || (out->alignment & (out->alignment - 1)) || out->alignment > 1u << 30)
        return error_set(err, ENOEXEC, "its alignment 0x%llx is no power of two: the file is damaged",
                         (unsigned long long)out->alignment);
    if (out->has_64bit_entry && out->kernel_size <= ENTRY_64)
        return error_set(err, ENOEXEC, "its 64-bit entry point lies behind its end: the file is damaged");
    return 0;
}

/* Where the kernel goes: where it prefers to be, or as high as it fits. */
static int choose_address(const struct bzimage *image, const struct guest_memory *memory, uint64_t *address,
                          struct error **err)
{
    uint64_t end = memory->blocks[0].gpa + memory->blocks[0].size;
    uint64_t at = image->pref_address;

    if (at >= MAP_HIGH_MEMORY && at <= end && image->init_size <= end - at) {
        *address = at;
        return 0;
    }
    if (image->relocatable && image->init_size <= end) {
        at = ALIGN_DOWN(end - image->init_size, image->alignment);
        if (at >= MAP_HIGH_MEMORY) {
            *address = at;
            return 0;
        }
    }
    return error_set(err, ENOMEM,
                     "it needs %llu MiB from 0x%llx to start, the machine has %llu MiB: choose a larger "
                     "--memory",
                     (unsigned long long)(image->init_size + 0xfffff) >> 20,
                     (unsigned long long)image->pref_address, (unsigned long long)memory->size >> 20);
}

/* As high as the kernel allows, out of the way of its growth; above 4 GiB if that is the only place. */
static int place_initrd(const struct boot_request *request, const struct bzimage *image, uint64_t kernel,
                        uint64_t *address, struct error **err)
{
    const struct guest_memory *memory = request->memory;
    uint64_t size = request->initrd.size;
    uint64_t end = memory->blocks[0].gpa + memory->blocks[0].size;
    uint64_t limit = image->initrd_addr_max + 1; /* it names the last usable byte */

    if (limit > end)
        limit = end;
    if (size <= limit) {
        uint64_t at = ALIGN_DOWN(limit - size, GUEST_PAGE_SIZE);

        if (at >= kernel + image->init_size) {
            *address = at;
            return 0;
        }
        /* The kernel was itself put at the end of memory: look below it. */
        if (size <= kernel && ALIGN_DOWN(kernel - size, GUEST_PAGE_SIZE) >= MAP_HIGH_MEMORY &&
            kernel <= limit) {
            *address = ALIGN_DOWN(kernel - size, GUEST_PAGE_SIZE);
            return 0;
        }
    }
    if (image->has_64bit_entry && image->initrd_above_4g && memory->n_blocks > 1 &&
        size <= memory->blocks[1].size) {
        *address = ALIGN_DOWN(memory->blocks[1].gpa + memory->blocks[1].size - size, GUEST_PAGE_SIZE);
        return 0;
    }
    return error_set(
        err, ENOMEM,
        "initrd '%s' of %llu MiB and the kernel's %llu MiB do not fit into %llu MiB of RAM (below the "
        "kernel's limit 0x%llx): choose a larger --memory or a smaller initrd",
        request->initrd.name, (unsigned long long)(size + 0xfffff) >> 20,
        (unsigned long long)(image->init_size + 0xfffff) >> 20, (unsigned long long)memory->size >> 20,
        (unsigned long long)image->initrd_addr_max);
}

static void write_e820(uint8_t *zero_page, const struct memory_map *map)
{
    for (unsigned i = 0; i < map->n; i++) {
        uint8_t *entry = zero_page + ZERO_PAGE_E820_TABLE + 20 * i;

        put_le64(entry, map->ranges[i].base);
        put_le64(entry + 8, map->ranges[i].size);
        put_le32(entry + 16, map->ranges[i].type);
    }
    zero_page[ZERO_PAGE_E820_ENTRIES] = (uint8_t)map->n;
}

/* The zero page ("boot_params") and the command line. *gpa: where RSI must point. */
static int write_zero_page(const struct boot_request *request, const struct bzimage *image, uint64_t initrd,
                           struct boot_area *area, uint64_t *gpa, struct error **err)
{
    uint8_t *page = boot_area_alloc(area, ZERO_PAGE_SIZE, GUEST_PAGE_SIZE, gpa, err);
    uint64_t cmdline_gpa = 0;
    int rc;

    if (!page)
        return -E2BIG;
    rc = boot_area_string(area, request->command_line, &cmdline_gpa, err);
    if (rc)
        return rc;
    /* The header ends where the jump at its beginning leads to. */
    size_t header_end = HDR_MAGIC + (size_t)image->setup[HDR_JUMP_LENGTH];
    if (header_end < HDR_INIT_SIZE + 4)
        header_end = HDR_INIT_SIZE + 4;
    if (header_end > HDR_END_MAX)
        header_end = HDR_END_MAX;
    size_t available = (size_t)(image->kernel + image->kernel_size - image->setup);
    if (header_end > available)
        header_end = available;
    memcpy(page + HDR_START, image->setup + HDR_START, header_end - HDR_START);

    page[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
    put_le32(page + HDR_CMD_LINE_PTR, (uint32_t)cmdline_gpa);
    put_le32(page + HDR_RAMDISK_IMAGE, (uint32_t)initrd);
    put_le32(page + HDR_RAMDISK_SIZE, (uint32_t)request->initrd.size);
    put_le32(page + ZERO_PAGE_EXT_RD_IMAGE, (uint32_t)(initrd >> 32));
    put_le32(page + ZERO_PAGE_EXT_RD_SIZE, (uint32_t)((uint64_t)request->initrd.size >> 32));
    put_le64(page + ZERO_PAGE_RSDP, request->rsdp);
    write_e820(page, &request->map);
    return 0;
}

static int bzimage_load(const struct boot_request *request, struct cpu_state *entry, struct error **err)
{
    struct bzimage image = {0};
    struct boot_area area;
    uint64_t address = 0, initrd = 0, zero_page = 0, cmdline_length = strlen(request->command_line);
    int rc = parse(request->kernel.data, request->kernel.size, &image, err);

    if (rc)
        return rc;
    if (request->n_modules)
        return error_set(err, EINVAL, "a Linux bzImage takes no modules: use --initrd");
    if (cmdline_length > image.cmdline_max)
        return error_set(err, E2BIG,
                         "the command line has %llu bytes, this kernel takes %llu: shorten --append",
                         (unsigned long long)cmdline_length, (unsigned long long)image.cmdline_max);
    rc = choose_address(&image, request->memory, &address, err);
    if (rc == 0 && request->initrd.data)
        rc = place_initrd(request, &image, address, &initrd, err);
    if (rc)
        return rc;

    boot_area_init(&area, request->memory);
    rc = write_zero_page(request, &image, initrd, &area, &zero_page, err);
    if (rc == 0)
        rc = image.has_64bit_entry ? boot_state_long(entry, &area, address + ENTRY_64, err)
                                   : boot_state_protected(entry, &area, address, err);
    if (rc)
        return rc;
    entry->gpr[CPU_RSI] = zero_page;
    guest_memory_write(request->memory, address, image.kernel, image.kernel_size);
    if (request->initrd.data)
        guest_memory_write(request->memory, initrd, request->initrd.data, request->initrd.size);
    return 0;
}

const struct boot_loader boot_bzimage = {.name = "bzImage", .probe = bzimage_probe, .load = bzimage_load};
