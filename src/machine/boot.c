/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Chooses the boot loader by the kernel's contents, and tells people what a file is that no loader takes.
 * Also leaves in low memory the little that kernels expect of a BIOS. No locks: vCPUs are not running.
 */
#include "machine/boot_priv.h"

#include "base/bytes.h"
#include "base/error.h"

#include <errno.h>
#include <string.h>

/* An ELF kernel with both goes by PVH, which hands over more. */
static const struct boot_loader *const boot_loaders[] = {&boot_bzimage, &boot_pvh, &boot_multiboot};

/* Formats that are no kernel for this machine, with what to do about it. */
static const struct {
    size_t offset;
    const char *magic;
    size_t length;
    const char *advice;
} known_formats[] = {
    {0, "\x1f\x8b", 2, "it is gzip-compressed: unpack it first (gunzip), or give the bzImage"},
    {0,
     "\xfd"
     "7zXZ",
     5, "it is xz-compressed: unpack it first (unxz), or give the bzImage"},
    {0, "\x28\xb5\x2f\xfd", 4, "it is zstd-compressed: unpack it first (unzstd), or give the bzImage"},
    {0, "BZh", 3, "it is bzip2-compressed: unpack it first (bunzip2), or give the bzImage"},
    {0, "\x02\x21\x4c\x18", 4, "it is lz4-compressed: unpack it first (unlz4), or give the bzImage"},
    {0x38, "ARM\x64", 4, "it is a kernel for AArch64; this machine runs x86-64"},
    {0x38, "RSC\x05", 4, "it is a kernel for RISC-V; this machine runs x86-64"},
    {0x24, "\x18\x28\x6f\x01", 4, "it is a kernel for 32-bit ARM; this machine runs x86-64"},
    {0, "\x27\x05\x19\x56", 4, "it is a U-Boot image: give the kernel that is packed in it"},
    {0, "QFI\xfb", 4, "it is a qcow2 disk image, not a kernel"},
    {0, "070701", 6, "it is a cpio archive (an initramfs?): give it by --initrd"},
    {0, "#!", 2, "it is a script, not a kernel"},
    {0x8001, "CD001", 5, "it is a CD image, not a kernel"},
};

static const char *machine_name(unsigned machine)
{
    switch (machine) {
    case 3:
        return "i386";
    case 8:
        return "MIPS";
    case 20:
    case 21:
        return "PowerPC";
    case 22:
        return "S/390";
    case 40:
        return "32-bit ARM";
    case 62:
        return "x86-64";
    case 183:
        return "AArch64";
    case 243:
        return "RISC-V";
    case 258:
        return "LoongArch";
    default:
        return "another processor";
    }
}

/* Says what `kernel` is, as far as can be told. Always an error. */
static int reject(const struct boot_file *kernel, struct error **err)
{
    const uint8_t *d = kernel->data;

    if (kernel->size == 0)
        return error_set(err, ENOEXEC, "the file is empty: give a kernel (bzImage, ELF or Multiboot)");
    if (kernel->size >= 20 && memcmp(d, "\177ELF", 4) == 0) {
        unsigned machine = d[5] == 2 ? get_be16(d + 18) : get_le16(d + 18);

        if (machine != 3 && machine != 62)
            return error_set(err, ENOEXEC, "it is an ELF file for %s; this machine runs x86-64",
                             machine_name(machine));
        return error_set(
            err, ENOEXEC,
            "it is an %s ELF file without a PVH note or a Multiboot header: for Linux give the bzImage "
            "(arch/x86/boot/bzImage), or build it with CONFIG_PVH",
            machine_name(machine));
    }
    for (size_t i = 0; i < ARRAY_SIZE(known_formats); i++) {
        size_t at = known_formats[i].offset, n = known_formats[i].length;

        if (kernel->size >= at + n && memcmp(d + at, known_formats[i].magic, n) == 0)
            return error_set(err, ENOEXEC, "%s", known_formats[i].advice);
    }
    return error_set(
        err, ENOEXEC,
        "not a kernel this machine can boot, or cut short before its header: give a Linux bzImage, an ELF "
        "file with a PVH note, or a Multiboot 1 kernel");
}

/* The BIOS data area's words that kernels look at: the first serial port, the EBDA, and KiB below it. */
static void write_bios_data(struct guest_memory *memory)
{
    uint8_t *bda = guest_memory_at(memory, MAP_BDA, 256);
    uint8_t *ebda = guest_memory_at(memory, MAP_EBDA, MAP_EBDA_END - MAP_EBDA);

    memset(bda, 0, 256);
    put_le16(bda + 0x00, 0x3f8);
    put_le16(bda + 0x0e, MAP_EBDA >> 4);
    put_le16(bda + 0x13, MAP_EBDA >> 10);
    memset(ebda, 0, MAP_EBDA_END - MAP_EBDA);
    ebda[0] = (MAP_EBDA_END - MAP_EBDA) >> 10;
    guest_memory_mark_written(memory, MAP_BDA, 256);
    guest_memory_mark_written(memory, MAP_EBDA, MAP_EBDA_END - MAP_EBDA);
}

int boot_load(const struct boot_request *request, struct cpu_state *entry, struct error **err)
{
    const struct boot_file *kernel = &request->kernel;
    struct cpu_state state;

    for (size_t i = 0; i < ARRAY_SIZE(boot_loaders); i++) {
        if (!boot_loaders[i]->probe(kernel->data, kernel->size))
            continue;
        write_bios_data(request->memory);
        cpu_state_reset(&state, true);
        int rc = boot_loaders[i]->load(request, &state, err);
        if (rc)
            return error_wrap(err, "kernel '%s': %s", kernel->name, boot_loaders[i]->name);
        *entry = state;
        return 0;
    }
    reject(kernel, err);
    return error_wrap(err, "kernel '%s'", kernel->name);
}
