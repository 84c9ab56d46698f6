/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The firmware's image, and what the firmware configuration device tells it. The files' names and contents
 * are those that SeaBIOS reads (its docs/Runtime_config). No locks.
 */
#include "machine/firmware.h"

#include "base/bytes.h"
#include "base/error.h"
#include "device/fw_cfg.h"
#include "device/pci.h"
#include "machine/acpi.h"
#include "machine/smbios.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHADOW_MAX     (256ull << 10)
#define E820_ENTRY     20u
#define SERIAL_PORT    0x3f8u
#define WAIT_FOR_EVER  UINT32_MAX
#define BOOT_PATH_SIZE 64u

static const char *const bios_paths[] = {
    "/usr/share/seabios/bios-256k.bin", /* Debian, Ubuntu */
    "/usr/share/qemu/bios-256k.bin",    /* Fedora, Arch, a QEMU of one's own */
    "/usr/local/share/qemu/bios-256k.bin",
};

const char *firmware_path(const char *name, struct error **err)
{
    if (strcmp(name, FIRMWARE_BIOS) != 0)
        return name;
    for (size_t i = 0; i < ARRAY_SIZE(bios_paths); i++)
        if (access(bios_paths[i], F_OK) == 0)
            return bios_paths[i];
    error_set(err, ENOENT,
              "no SeaBIOS at %s: install it (apt-get install seabios), or give --firmware the path of a "
              "flat firmware image",
              bios_paths[0]);
    return NULL;
}

int firmware_check_size(uint64_t size, struct error **err)
{
    if (!size || size % GUEST_PAGE_SIZE || size > GUEST_ROM_MAX)
        return error_set(
            err, EINVAL,
            "its %llu bytes are no flat firmware image, which is a multiple of 4 KiB, up to %llu "
            "MiB: give a file like SeaBIOS's bios-256k.bin",
            (unsigned long long)size, GUEST_ROM_MAX >> 20);
    return 0;
}

int firmware_load(struct guest_memory *memory, const struct boot_file *image, struct error **err)
{
    const struct guest_memory_block *rom = guest_memory_rom(memory);
    size_t shadow = image->size < SHADOW_MAX ? image->size : SHADOW_MAX;

    if (!rom || rom->size != image->size)
        return error_set(err, EIO, "firmware '%s' has changed its size while it was in use", image->name);
    memcpy(rom->host, image->data, image->size);
    guest_memory_mark_written(memory, rom->gpa, rom->size);
    return guest_memory_write(memory, MAP_FIRMWARE_END - shadow, image->data + image->size - shadow, shadow)
               ? error_set(err, ENOMEM, "no RAM for the firmware: choose a larger --memory")
               : 0;
}

/* ---- what it is told ---- */

static size_t add_range(uint8_t *to, uint64_t base, uint64_t end, enum memory_range_type type)
{
    put_le64(to, base);
    put_le64(to + 8, end - base);
    put_le32(to + 16, type);
    return E820_ENTRY;
}

/* RAM as a whole: what the firmware uses of it, it takes out itself. */
static int add_memory_map(struct device *fw_cfg, const struct guest_memory *memory, struct error **err)
{
    uint8_t map[(ARRAY_SIZE(memory->blocks) + 1) * E820_ENTRY];
    size_t n = add_range(map, PCI_ECAM_BASE, PCI_ECAM_BASE + PCI_ECAM_SIZE, MEMORY_RESERVED);

    for (unsigned i = 0; i < memory->n_blocks; i++) {
        const struct guest_memory_block *b = &memory->blocks[i];

        n += add_range(map + n, b->gpa, b->gpa + b->size, b->rom ? MEMORY_RESERVED : MEMORY_RAM);
    }
    return fw_cfg_add_file(fw_cfg, "etc/e820", map, n, err);
}

static int add_acpi(struct device *fw_cfg, const struct firmware_config *config, struct error **err)
{
    struct acpi_config acpi = {.cpus = config->cpus};
    struct acpi_tables tables;
    size_t size = 0;
    int rc = acpi_build(&tables, &acpi, err);

    if (rc)
        return rc;
    uint8_t *script = acpi_loader_script(&tables, &size);
    rc = script ? fw_cfg_add_file(fw_cfg, ACPI_FILE_LOADER, script, size, err)
                : error_set_errno(err, ENOMEM, "ACPI loader");
    free(script);
    if (rc == 0)
        rc = fw_cfg_add_file(fw_cfg, ACPI_FILE_TABLES, tables.data, tables.size, err);
    if (rc == 0)
        rc = fw_cfg_add_file(fw_cfg, ACPI_FILE_RSDP, tables.rsdp, sizeof(tables.rsdp), err);
    acpi_tables_free(&tables);
    return rc;
}

static int add_smbios(struct device *fw_cfg, const struct firmware_config *config, struct error **err)
{
    struct smbios_config smbios = {.memory = config->memory->size, .cpus = config->cpus};
    struct smbios_tables tables;
    int rc = smbios_build(&tables, &smbios, err);

    if (rc)
        return rc;
    rc = fw_cfg_add_file(fw_cfg, SMBIOS_FILE_TABLES, tables.data, tables.size, err);
    if (rc == 0)
        rc = fw_cfg_add_file(fw_cfg, SMBIOS_FILE_ANCHOR, tables.anchor, sizeof(tables.anchor), err);
    smbios_tables_free(&tables);
    return rc;
}

/* Open Firmware's device paths, a line each, the last ended by a zero. */
static int add_boot_order(struct device *fw_cfg, const struct firmware_config *config, struct error **err)
{
    char order[PCI_SLOTS * BOOT_PATH_SIZE];
    size_t n = 0;

    for (size_t i = 0; i < config->n_boot_slots && i < PCI_SLOTS; i++)
        n += (size_t)snprintf(order + n, BOOT_PATH_SIZE, "%s/pci@i0cf8/scsi@%x/disk@0,0", n ? "\n" : "",
                              config->boot_slots[i]);
    return n ? fw_cfg_add_file(fw_cfg, "bootorder", order, n + 1, err) : 0;
}

static int add_choices(struct device *fw_cfg, struct error **err)
{
    uint8_t port[8] = {0}, wait[4];

    /* There is no display: what would be on it goes to the serial line, and keys come from there. */
    put_le64(port, SERIAL_PORT);
    put_le32(wait, WAIT_FOR_EVER);
    int rc = fw_cfg_add_file(fw_cfg, "etc/sercon-port", port, sizeof(port), err);
    /* With nothing to boot from it says so and stops, rather than to start over every minute. */
    if (rc == 0)
        rc = fw_cfg_add_file(fw_cfg, "etc/boot-fail-wait", wait, sizeof(wait), err);
    return rc;
}

static int add_numbers(struct device *fw_cfg, const struct firmware_config *config, struct error **err)
{
    const struct {
        unsigned key;
        unsigned size;
        uint64_t value;
    } numbers[] = {
        {FW_CFG_RAM_SIZE, 8, config->memory->size},
        {FW_CFG_NO_GRAPHICS, 2, 1},
        {FW_CFG_CPUS, 2, config->cpus},
        {FW_CFG_MAX_CPUS, 2, config->cpus},
        {FW_CFG_BOOT_MENU, 2, 0}, /* none, so no time to wait for a key */
        {FW_CFG_IRQ0_OVERRIDE, 1, 1},
    };
    int rc = 0;

    for (size_t i = 0; i < ARRAY_SIZE(numbers) && rc == 0; i++)
        rc = fw_cfg_add_number(fw_cfg, numbers[i].key, numbers[i].value, numbers[i].size, err);
    return rc;
}

int firmware_describe(struct device *fw_cfg, const struct firmware_config *config, struct error **err)
{
    fw_cfg_clear(fw_cfg);
    int rc = add_numbers(fw_cfg, config, err);
    if (rc == 0)
        rc = add_memory_map(fw_cfg, config->memory, err);
    if (rc == 0)
        rc = add_acpi(fw_cfg, config, err);
    if (rc == 0)
        rc = add_smbios(fw_cfg, config, err);
    if (rc == 0)
        rc = add_boot_order(fw_cfg, config, err);
    return rc ? rc : add_choices(fw_cfg, err);
}
