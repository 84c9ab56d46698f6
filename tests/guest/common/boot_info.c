/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads what the boot loader has left in memory into guest_boot: Multiboot 0.6.96 chapter 3.3, or Xen's
 * x86/HVM direct boot ABI.
 */
#include "guest_priv.h"

struct guest_boot guest_boot = {.command_line = ""};

struct multiboot_module {
    uint32_t start, end, string, reserved;
};

struct pvh_start_info {
    uint32_t magic, version, flags, n_modules;
    uint64_t modules, cmdline, rsdp, memmap;
    uint32_t n_memmap, reserved;
};
struct pvh_module {
    uint64_t start, size, cmdline, reserved;
};
struct pvh_range {
    uint64_t base, size;
    uint32_t type, reserved;
};

static const char *text_at(uint64_t address)
{
    return address ? (const char *)address : "";
}

static void add_range(uint64_t base, uint64_t size, uint32_t type)
{
    if (guest_boot.n_ranges < sizeof(guest_boot.ranges) / sizeof(guest_boot.ranges[0]))
        guest_boot.ranges[guest_boot.n_ranges++] = (struct guest_range){base, size, type};
}

static void add_module(uint64_t start, uint64_t end, uint64_t text)
{
    if (guest_boot.n_modules < sizeof(guest_boot.modules) / sizeof(guest_boot.modules[0]))
        guest_boot.modules[guest_boot.n_modules++] = (struct guest_module){start, end, text_at(text)};
}

static void read_multiboot(const uint32_t *info)
{
    guest_boot.protocol = GUEST_BOOT_MULTIBOOT;
    if (info[0] & 1 << 2)
        guest_boot.command_line = text_at(info[4]);
    if (info[0] & 1 << 3) {
        const struct multiboot_module *m = (const void *)(uint64_t)info[6];
        for (uint32_t i = 0; i < info[5]; i++)
            add_module(m[i].start, m[i].end, m[i].string);
    }
    if (info[0] & 1 << 6) {
        /* Entries are `size`, which does not count itself, base, length, type. */
        for (uint64_t at = info[12], end = at + info[11]; at < end;) {
            uint32_t entry[6];

            memcpy(entry, (const void *)at, sizeof(entry));
            add_range((uint64_t)entry[2] << 32 | entry[1], (uint64_t)entry[4] << 32 | entry[3], entry[5]);
            at += 4 + entry[0];
        }
    }
}

static void read_pvh(const struct pvh_start_info *info)
{
    const struct pvh_module *m = (const void *)info->modules;
    const struct pvh_range *r = (const void *)info->memmap;

    guest_boot.protocol = GUEST_BOOT_PVH;
    guest_boot.command_line = text_at(info->cmdline);
    guest_boot.rsdp = info->rsdp;
    for (uint32_t i = 0; i < info->n_modules; i++)
        add_module(m[i].start, m[i].start + m[i].size, m[i].cmdline);
    for (uint32_t i = 0; info->version >= 1 && i < info->n_memmap; i++)
        add_range(r[i].base, r[i].size, r[i].type);
}

void boot_info_init(void)
{
    const void *info = (const void *)(uint64_t)guest_boot_pointer;

    if (guest_boot_magic == 0x2badb002)
        read_multiboot(info);
    else if (*(const uint32_t *)info == 0x336ec578)
        read_pvh(info);
    else
        CHECK(!"booted by Multiboot or PVH");
}
