/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All ACPI tables but the DSDT's contents, as one block with a list of the pointers in it and of the
 * checksums over it: whoever places the block, we or a firmware, fills these in. Called by the machine before
 * each boot. No locks.
 *
 *   RSDP -> RSDT, XSDT -> FADT -> FACS, DSDT
 *                      -> MADT
 *                      -> MCFG
 *                      -> WDAT
 */
#include "machine/acpi.h"

#include "base/bytes.h"
#include "base/error.h"
#include "device/acpi_pm.h"
#include "device/guest_memory.h"
#include "device/pci.h"
#include "device/watchdog.h"
#include "machine/acpi_aml.h"
#include "machine/memory_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_SIZE 36
#define FADT_SIZE   276
#define FACS_SIZE   64
#define WDAT_FIELDS 32
#define WDAT_ENTRY  24

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

/* Room for the block; that of eight processors has some 6 KiB. */
#define BLOCK_SIZE (MAP_ACPI_END - MAP_ACPI - 64)

/* The block as it is filled from its beginning. */
struct builder {
    struct acpi_tables *out;
    uint32_t tables[8]; /* what RSDT and XSDT list */
    unsigned n_tables;
    bool overflow;
};

/* `size` zeroed bytes at a multiple of `align`; where they do not fit, a scratch place so that callers need
 * not check. */
static uint8_t *reserve(struct builder *b, size_t size, size_t align, uint32_t *offset)
{
    static uint8_t scratch[512];
    size_t at = ALIGN_UP(b->out->size, align);

    if (at > BLOCK_SIZE || size > BLOCK_SIZE - at) {
        b->overflow = true;
        *offset = 0;
        return scratch;
    }
    b->out->size = at + size;
    *offset = (uint32_t)at;
    memset(b->out->data + at, 0, size);
    return b->out->data + at;
}

/* A field that holds the offset of another table, and becomes its address. */
static void add_pointer(struct builder *b, bool in_rsdp, uint32_t at, unsigned size, uint32_t to)
{
    struct acpi_tables *t = b->out;
    uint8_t *field = (in_rsdp ? t->rsdp : t->data) + at;

    if (b->overflow || t->n_pointers == ARRAY_SIZE(t->pointers)) {
        b->overflow = true;
        return;
    }
    put_le32(field, to);
    t->pointers[t->n_pointers++] = (struct acpi_pointer){.in_rsdp = in_rsdp, .at = at, .size = size};
}

static void add_checksum(struct builder *b, bool in_rsdp, uint32_t at, uint32_t start, uint32_t length)
{
    struct acpi_tables *t = b->out;

    if (b->overflow || t->n_checksums == ARRAY_SIZE(t->checksums)) {
        b->overflow = true;
        return;
    }
    t->checksums[t->n_checksums++] =
        (struct acpi_checksum){.in_rsdp = in_rsdp, .at = at, .start = start, .length = length};
}

static uint8_t checksum(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    while (n--)
        sum += *p++;
    return (uint8_t)-sum;
}

static void write_header(struct builder *b, uint32_t offset, const char *signature, uint8_t revision,
                         size_t length)
{
    if (b->overflow)
        return;
    uint8_t *table = b->out->data + offset;
    memcpy(table, signature, 4);
    put_le32(table + 4, (uint32_t)length);
    table[8] = revision;
    memcpy(table + 10, "TABIQU", 6);
    memcpy(table + 16, "TABIQUE ", 8);
    put_le32(table + 24, 1);
    memcpy(table + 28, "TABQ", 4);
    put_le32(table + 32, 1);
    add_checksum(b, false, offset + 9, offset, (uint32_t)length);
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
    uint32_t offset;
    uint8_t *t = reserve(b, FADT_SIZE, 16, &offset);

    b->tables[b->n_tables++] = offset;
    add_pointer(b, false, offset + 36, 4, facs);
    add_pointer(b, false, offset + 40, 4, dsdt);
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
    add_pointer(b, false, offset + 140, 8, dsdt);
    write_gas_port(t + 148, ACPI_PM_EVENT, 4);
    t[148 + 3] = 2; /* two 16-bit registers */
    write_gas_port(t + 172, ACPI_PM_CONTROL, 2);
    write_gas_port(t + 208, ACPI_PM_TIMER, 4);
    memcpy(t + 268, "TABIQUE", 8);
    write_header(b, offset, "FACP", 6, FADT_SIZE);
}

/* Interrupt controllers (5.2.12): each entry is its type, its length, its fields. */
static void write_madt(struct builder *b, unsigned cpus)
{
    size_t size = HEADER_SIZE + 8 + 8 * (size_t)cpus + 12 + 2 * 10 + 6;
    uint32_t offset;
    uint8_t *t = reserve(b, size, 16, &offset), *e = t + HEADER_SIZE + 8;

    b->tables[b->n_tables++] = offset;
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
    write_header(b, offset, "APIC", 6, size);
}

static void write_mcfg(struct builder *b)
{
    size_t size = HEADER_SIZE + 8 + 16;
    uint32_t offset;
    uint8_t *e = reserve(b, size, 16, &offset) + HEADER_SIZE + 8;

    b->tables[b->n_tables++] = offset;
    put_le64(e, PCI_ECAM_BASE);
    e[11] = (uint8_t)(PCI_ECAM_SIZE / (1u << 20) - 1); /* last bus; segment and first bus are 0 */
    write_header(b, offset, "MCFG", 1, size);
}

/*
 * The watchdog (Microsoft's "Hardware Watchdog Timers Design Specification", which ACPI 6.5, 5.2.6, refers
 * to): first which PCI device it is (none), how long a count is and how many there may be, then an entry for
 * each action.
 *
 *   0 action  1 instruction  4 register  16 value  20 mask
 */
static void write_wdat(struct builder *b)
{
    enum { READ_VALUE, READ_COUNT, WRITE_VALUE, WRITE_COUNT };
    static const struct {
        uint8_t action, instruction;
        uint16_t port;
        uint32_t value, mask;
    } entries[] = {
        {0x01, WRITE_VALUE, WATCHDOG_RELOAD, 1, 1},                 /* begin anew */
        {0x04, READ_COUNT, WATCHDOG_LEFT, 0, WATCHDOG_COUNT_MAX},   /* what is left */
        {0x05, READ_COUNT, WATCHDOG_COUNT, 0, WATCHDOG_COUNT_MAX},  /* what it is set to */
        {0x06, WRITE_COUNT, WATCHDOG_COUNT, 0, WATCHDOG_COUNT_MAX}, /* set it */
        {0x08, READ_VALUE, WATCHDOG_CONTROL, WATCHDOG_RUNS, WATCHDOG_RUNS},
        {0x09, WRITE_VALUE, WATCHDOG_CONTROL, WATCHDOG_RUNS, WATCHDOG_RUNS},
        {0x0a, READ_VALUE, WATCHDOG_CONTROL, 0, WATCHDOG_RUNS},  /* does it stand? */
        {0x0b, WRITE_VALUE, WATCHDOG_CONTROL, 0, WATCHDOG_RUNS}, /* stop */
        {0x20, READ_VALUE, WATCHDOG_STATUS, WATCHDOG_RESTARTED, WATCHDOG_RESTARTED},
        {0x21, WRITE_VALUE, WATCHDOG_STATUS, WATCHDOG_RESTARTED, WATCHDOG_RESTARTED}, /* forget that */
    };
    size_t size = HEADER_SIZE + WDAT_FIELDS + WDAT_ENTRY * ARRAY_SIZE(entries);
    uint32_t offset;
    uint8_t *t = reserve(b, size, 16, &offset), *e = t + HEADER_SIZE + WDAT_FIELDS;

    b->tables[b->n_tables++] = offset;
    put_le32(t + 36, WDAT_FIELDS);
    put_le16(t + 40, 0xff); /* no PCI segment, bus, device, function */
    memset(t + 42, 0xff, 3);
    put_le32(t + 48, WATCHDOG_COUNT_MS);
    put_le32(t + 52, WATCHDOG_COUNT_MAX);
    put_le32(t + 56, 1);
    t[60] = 1; /* enabled */
    put_le32(t + 64, ARRAY_SIZE(entries));
    for (size_t i = 0; i < ARRAY_SIZE(entries); i++, e += WDAT_ENTRY) {
        e[0] = entries[i].action;
        e[1] = entries[i].instruction;
        write_gas_port(e + 4, entries[i].port, 4);
        put_le32(e + 16, entries[i].value);
        put_le32(e + 20, entries[i].mask);
    }
    write_header(b, offset, "WDAT", 1, size);
}

static uint32_t write_dsdt(struct builder *b, const struct acpi_config *config)
{
    uint32_t offset;

    reserve(b, HEADER_SIZE, 16, &offset);
    struct aml aml = {.buf = b->out->data + b->out->size, .size = BLOCK_SIZE - b->out->size};
    acpi_write_dsdt(&aml, config);
    b->out->size += aml.used;
    b->overflow |= aml.overflow;
    write_header(b, offset, "DSDT", 2, HEADER_SIZE + aml.used);
    return offset;
}

static uint32_t write_facs(struct builder *b)
{
    uint32_t offset;
    uint8_t *t = reserve(b, FACS_SIZE, ACPI_ALIGNMENT, &offset);

    memcpy(t, "FACS", 4);
    put_le32(t + 4, FACS_SIZE);
    t[32] = 2; /* version */
    return offset;
}

/* RSDT and XSDT: the same list with pointers of 4 and 8 bytes. */
static uint32_t write_root(struct builder *b, const char *signature, unsigned pointer_size)
{
    uint32_t offset;
    size_t size = HEADER_SIZE + (size_t)b->n_tables * pointer_size;

    reserve(b, size, 16, &offset);
    for (unsigned i = 0; i < b->n_tables; i++)
        add_pointer(b, false, offset + HEADER_SIZE + i * pointer_size, pointer_size, b->tables[i]);
    write_header(b, offset, signature, 1, size);
    return offset;
}

static void write_rsdp(struct builder *b, uint32_t rsdt, uint32_t xsdt)
{
    uint8_t *t = b->out->rsdp;

    memcpy(t, "RSD PTR ", 8);
    memcpy(t + 9, "TABIQU", 6);
    t[15] = 2;
    add_pointer(b, true, 16, 4, rsdt);
    put_le32(t + 20, ACPI_RSDP_SIZE);
    add_pointer(b, true, 24, 8, xsdt);
    add_checksum(b, true, 8, 0, 20);
    add_checksum(b, true, 32, 0, ACPI_RSDP_SIZE);
}

int acpi_build(struct acpi_tables *out, const struct acpi_config *config, struct error **err)
{
    struct builder b = {.out = out};

    *out = (struct acpi_tables){.data = calloc(1, BLOCK_SIZE)};
    if (!out->data)
        return error_set_errno(err, ENOMEM, "ACPI tables");
    uint32_t facs = write_facs(&b), dsdt = write_dsdt(&b, config);
    write_fadt(&b, facs, dsdt);
    write_madt(&b, config->cpus);
    write_mcfg(&b);
    write_wdat(&b);
    uint32_t rsdt = write_root(&b, "RSDT", 4), xsdt = write_root(&b, "XSDT", 8);
    write_rsdp(&b, rsdt, xsdt);
    if (!b.overflow)
        return 0;
    acpi_tables_free(out);
    return error_set(err, ENOSPC, "the ACPI tables do not fit below 1 MiB");
}

void acpi_tables_free(struct acpi_tables *tables)
{
    free(tables->data);
    *tables = (struct acpi_tables){0};
}

/* What a firmware does by the loader's script. */
static void link_at(struct acpi_tables *t, uint64_t gpa)
{
    for (unsigned i = 0; i < t->n_pointers; i++) {
        uint8_t *field = (t->pointers[i].in_rsdp ? t->rsdp : t->data) + t->pointers[i].at;

        put_le32(field, get_le32(field) + (uint32_t)gpa);
    }
    for (unsigned i = 0; i < t->n_checksums; i++) {
        const struct acpi_checksum *c = &t->checksums[i];
        uint8_t *base = c->in_rsdp ? t->rsdp : t->data;

        base[c->at] = checksum(base + c->start, c->length);
    }
}

int acpi_write(struct guest_memory *memory, const struct acpi_config *config, uint64_t *rsdp,
               struct error **err)
{
    /* The root pointer first, where scanning kernels look first. */
    const uint64_t gpa = ALIGN_UP(MAP_ACPI + ACPI_RSDP_SIZE, ACPI_ALIGNMENT);
    struct acpi_tables tables;
    uint8_t *to = guest_memory_at(memory, MAP_ACPI, MAP_ACPI_END - MAP_ACPI);

    if (!to)
        return error_set(err, ENOMEM, "no RAM for the ACPI tables: choose a larger --memory");
    int rc = acpi_build(&tables, config, err);
    if (rc)
        return rc;
    link_at(&tables, gpa);
    memset(to, 0, gpa - MAP_ACPI);
    memcpy(to, tables.rsdp, ACPI_RSDP_SIZE);
    memcpy(to + (gpa - MAP_ACPI), tables.data, tables.size);
    guest_memory_mark_written(memory, MAP_ACPI, MAP_ACPI_END - MAP_ACPI);
    acpi_tables_free(&tables);
    *rsdp = MAP_ACPI;
    return 0;
}
