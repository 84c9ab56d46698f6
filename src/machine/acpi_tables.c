/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All ACPI tables but the DSDT's contents, and where they go in memory. Called by the machine before each
 * boot. No locks.
 *
 *   RSDP -> RSDT, XSDT -> FADT -> FACS, DSDT
 *                      -> MADT
 *                      -> MCFG
 */
#include "machine/acpi.h"

#include "base/bytes.h"
#include "base/error.h"
#include "device/acpi_pm.h"
#include "device/guest_memory.h"
#include "device/pci.h"
#include "machine/acpi_aml.h"
#include "machine/memory_map.h"

#include <errno.h>
#include <string.h>

#define HEADER_SIZE 36
#define FADT_SIZE   276
#define FACS_SIZE   64
#define RSDP_SIZE   36

#define SPACE_IO 1 /* address space ids of generic address structures (5.2.3.2) */

#define FADT_WBINVD        (1u << 0)
#define FADT_PROC_C1       (1u << 2)
#define FADT_SLP_BUTTON    (1u << 5) /* no fixed-hardware sleep button */
#define FADT_TMR_VAL_EXT   (1u << 8)
#define FADT_RESET_REG     (1u << 10)
#define BOOT_ARCH_LEGACY   (1u << 0)
#define BOOT_ARCH_NO_VGA   (1u << 2) /* no bit 1: there is no keyboard controller to look for */
#define CMOS_CENTURY       0x32
#define SCI_IRQ            9
#define LATENCY_NO_C_STATE 0xffff

/* The tables' memory as it is filled from its beginning. */
struct builder {
    uint8_t *memory;
    uint64_t gpa;
    size_t size, used;
    uint32_t tables[8]; /* what RSDT and XSDT list */
    unsigned n_tables;
    bool overflow;
};

/* `size` zeroed bytes at a multiple of `align`; where they do not fit, a scratch place so that callers need
 * not check. */
static uint8_t *reserve(struct builder *b, size_t size, size_t align, uint32_t *gpa)
{
    static uint8_t scratch[512];
    size_t at = ALIGN_UP(b->used, align);

    if (at > b->size || size > b->size - at) {
        b->overflow = true;
        *gpa = 0;
        return scratch;
    }
    b->used = at + size;
    *gpa = (uint32_t)(b->gpa + at);
    memset(b->memory + at, 0, size);
    return b->memory + at;
}

static uint8_t checksum(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    while (n--)
        sum += *p++;
    return (uint8_t)-sum;
}

static void write_header(uint8_t *table, const char *signature, uint8_t revision, size_t length)
{
    memcpy(table, signature, 4);
    put_le32(table + 4, (uint32_t)length);
    table[8] = revision;
    table[9] = 0;
    memcpy(table + 10, "TABIQU", 6);
    memcpy(table + 16, "TABIQUE ", 8);
    put_le32(table + 24, 1);
    memcpy(table + 28, "TABQ", 4);
    put_le32(table + 32, 1);
    table[9] = checksum(table, length);
}

static void write_gas_port(uint8_t *p, uint16_t port, unsigned bytes)
{
    p[0] = SPACE_IO;
    p[1] = (uint8_t)(8 * bytes);
    p[2] = 0;
    p[3] = bytes == 4 ? 3 : bytes == 2 ? 2 : 1; /* access size */
    put_le64(p + 4, port);
}

static void write_fadt(struct builder *b, uint32_t facs, uint32_t dsdt)
{
    uint8_t *t = reserve(b, FADT_SIZE, 16, &b->tables[b->n_tables++]);

    put_le32(t + 36, facs);
    put_le32(t + 40, dsdt);
    put_le16(t + 46, SCI_IRQ);
    /* No SMI command port: the machine is always in ACPI mode. */
    put_le32(t + 56, ACPI_PM_EVENT);
    put_le32(t + 64, ACPI_PM_CONTROL);
    put_le32(t + 76, ACPI_PM_TIMER);
    t[88] = 4;
    t[89] = 2;
    t[91] = 4;
    put_le16(t + 96, LATENCY_NO_C_STATE);
    put_le16(t + 98, LATENCY_NO_C_STATE);
    t[108] = CMOS_CENTURY;
    put_le16(t + 109, BOOT_ARCH_LEGACY | BOOT_ARCH_NO_VGA);
    put_le32(t + 112, FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_TMR_VAL_EXT | FADT_RESET_REG);
    write_gas_port(t + 116, PCI_RESET_PORT, 1);
    t[128] = PCI_RESET_SYSTEM | PCI_RESET_TRIGGER;
    t[131] = 5; /* FADT 6.5 */
    /* The FACS by its 32-bit pointer alone: kernels that find both list it twice. */
    put_le64(t + 140, dsdt);
    write_gas_port(t + 148, ACPI_PM_EVENT, 4);
    t[148 + 3] = 2; /* two 16-bit registers */
    write_gas_port(t + 172, ACPI_PM_CONTROL, 2);
    write_gas_port(t + 208, ACPI_PM_TIMER, 4);
    memcpy(t + 268, "TABIQUE", 8);
    write_header(t, "FACP", 6, FADT_SIZE);
}

/* Interrupt controllers (5.2.12): each entry is its type, its length, its fields. */
static void write_madt(struct builder *b, unsigned cpus)
{
    size_t size = HEADER_SIZE + 8 + 8 * (size_t)cpus + 12 + 2 * 10 + 6;
    uint8_t *t = reserve(b, size, 16, &b->tables[b->n_tables++]), *e = t + HEADER_SIZE + 8;

    put_le32(t + 36, MAP_LAPIC);
    put_le32(t + 40, 1); /* there are 8259s too */
    for (unsigned i = 0; i < cpus; i++, e += 8)
        memcpy(e, (uint8_t[8]){0, 8, (uint8_t)i, (uint8_t)i, 1, 0, 0, 0}, 8);
    e[0] = 1; /* the I/O APIC, with id 0 and interrupts from 0 */
    e[1] = 12;
    put_le32(e + 4, MAP_IOAPIC);
    e += 12;
    /* The PIT's IRQ 0 is wired to pin 2; the SCI is level-triggered, active high. */
    memcpy(e, (uint8_t[10]){2, 10, 0, 0, 2, 0, 0, 0, 0, 0}, 10);
    e += 10;
    memcpy(e, (uint8_t[10]){2, 10, 0, SCI_IRQ, SCI_IRQ, 0, 0, 0, 0x0d, 0}, 10);
    e += 10;
    memcpy(e, (uint8_t[6]){4, 6, 0xff, 0, 0, 1}, 6); /* NMI at LINT1 of all processors */
    write_header(t, "APIC", 6, size);
}

static void write_mcfg(struct builder *b)
{
    size_t size = HEADER_SIZE + 8 + 16;
    uint8_t *t = reserve(b, size, 16, &b->tables[b->n_tables++]), *e = t + HEADER_SIZE + 8;

    put_le64(e, PCI_ECAM_BASE);
    e[11] = (uint8_t)(PCI_ECAM_SIZE / (1u << 20) - 1); /* last bus; segment and first bus are 0 */
    write_header(t, "MCFG", 1, size);
}

static uint32_t write_dsdt(struct builder *b, const struct acpi_config *config)
{
    uint32_t gpa;
    uint8_t *t = reserve(b, HEADER_SIZE, 16, &gpa);
    struct aml aml = {.buf = b->memory + b->used, .size = b->size - b->used};

    acpi_write_dsdt(&aml, config);
    b->used += aml.used;
    b->overflow |= aml.overflow;
    if (!b->overflow)
        write_header(t, "DSDT", 2, HEADER_SIZE + aml.used);
    return gpa;
}

static uint32_t write_facs(struct builder *b)
{
    uint32_t gpa;
    uint8_t *t = reserve(b, FACS_SIZE, 64, &gpa);

    memcpy(t, "FACS", 4);
    put_le32(t + 4, FACS_SIZE);
    t[32] = 2; /* version */
    return gpa;
}

/* RSDT and XSDT: the same list with pointers of 4 and 8 bytes. */
static uint32_t write_root(struct builder *b, const char *signature, unsigned pointer_size)
{
    uint32_t gpa;
    size_t size = HEADER_SIZE + (size_t)b->n_tables * pointer_size;
    uint8_t *t = reserve(b, size, 16, &gpa);

    for (unsigned i = 0; i < b->n_tables; i++)
        put_le32(t + HEADER_SIZE + i * pointer_size, b->tables[i]);
    write_header(t, signature, 1, size);
    return gpa;
}

static void write_rsdp(uint8_t *t, uint32_t rsdt, uint32_t xsdt)
{
    memcpy(t, "RSD PTR ", 8);
    memcpy(t + 9, "TABIQU", 6);
    t[15] = 2;
    put_le32(t + 16, rsdt);
    put_le32(t + 20, RSDP_SIZE);
    put_le64(t + 24, xsdt);
    t[8] = checksum(t, 20);
    t[32] = checksum(t, RSDP_SIZE);
}

int acpi_write(struct guest_memory *memory, const struct acpi_config *config, uint64_t *rsdp,
               struct error **err)
{
    struct builder b = {.gpa = MAP_FIRMWARE, .size = MAP_FIRMWARE_END - MAP_FIRMWARE};
    uint32_t rsdp_gpa;

    b.memory = guest_memory_at(memory, b.gpa, b.size);
    if (!b.memory)
        return error_set(err, ENOMEM, "no RAM for the ACPI tables: choose a larger --memory");
    /* First, where scanning kernels look first. */
    uint8_t *root_pointer = reserve(&b, RSDP_SIZE, 16, &rsdp_gpa);
    uint32_t facs = write_facs(&b), dsdt = write_dsdt(&b, config);
    write_fadt(&b, facs, dsdt);
    write_madt(&b, config->cpus);
    write_mcfg(&b);
    uint32_t rsdt = write_root(&b, "RSDT", 4), xsdt = write_root(&b, "XSDT", 8);
    write_rsdp(root_pointer, rsdt, xsdt);
    if (b.overflow)
        return error_set(err, ENOSPC, "the ACPI tables do not fit below 1 MiB");
    guest_memory_mark_written(memory, b.gpa, b.size);
    *rsdp = rsdp_gpa;
    return 0;
}
