/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The SMBIOS structures (DSP0134 2.8, clause 7) and their anchor (5.2.1). Called by the machine before each
 * boot. No locks.
 *
 *   structure: type, length of the fixed part, handle (2), ... | strings, each ended by 0 | 0
 *   A field for a string holds its number, 1 for the first; 0 for none.
 */
#include "machine/smbios.h"

#include "base/bytes.h"
#include "base/error.h"
#include "device/guest_memory.h"
#include "machine/memory_map.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERSION_MAJOR 2
#define VERSION_MINOR 8

#define BLOCK_SIZE (MAP_SMBIOS_END - MAP_SMBIOS - 64)
#define FIXED_MAX  64u

#define TYPE_BIOS          0
#define TYPE_SYSTEM        1
#define TYPE_CHASSIS       3
#define TYPE_PROCESSOR     4
#define TYPE_MEMORY_ARRAY  16
#define TYPE_MEMORY_DEVICE 17
#define TYPE_MEMORY_MAPPED 19
#define TYPE_BOOT          32
#define TYPE_END           127

/* Handles: a structure's type, and the number of it where there are several. */
#define HANDLE(type, i) ((uint16_t)((type) << 8 | (i)))
#define HANDLE_NONE     0xfffe
#define KIB             1024ull
#define GIB             (1ull << 30)

#define UNKNOWN    2
#define OTHER      1
#define STATE_SAFE 3
#define MAKER      "Tabique"
#define MODULE_MAX (16 * GIB) /* one memory device's size: 16-bit count of MiB holds it */

struct builder {
    struct smbios_tables *out;
    uint8_t *fixed; /* of the present structure */
    unsigned strings;
    unsigned structures;
    size_t largest, start;
    bool overflow;
};

static void put(struct builder *b, const void *data, size_t n)
{
    if (b->overflow || n > BLOCK_SIZE - b->out->size) {
        b->overflow = true;
        return;
    }
    memcpy(b->out->data + b->out->size, data, n);
    b->out->size += n;
}

/* Begins a structure whose fixed part has `length` zeroed bytes; its fields may be written until the end. */
static uint8_t *begin(struct builder *b, uint8_t type, uint8_t length, uint16_t handle)
{
    static uint8_t scratch[FIXED_MAX];
    const uint8_t zeros[FIXED_MAX] = {type, length, (uint8_t)handle, (uint8_t)(handle >> 8)};

    b->start = b->out->size;
    b->strings = 0;
    b->structures++;
    put(b, zeros, length);
    return b->overflow ? scratch : b->out->data + b->start;
}

/* The next string's number; 0 for NULL. */
static uint8_t string(struct builder *b, const char *text)
{
    if (!text || !*text)
        return 0;
    put(b, text, strlen(text) + 1);
    return (uint8_t)++b->strings;
}

static void end(struct builder *b)
{
    static const uint8_t zeros[2];

    put(b, zeros, b->strings ? 1 : 2);
    if (b->out->size - b->start > b->largest)
        b->largest = b->out->size - b->start;
}

static void write_bios(struct builder *b)
{
    uint8_t *t = begin(b, TYPE_BIOS, 24, HANDLE(TYPE_BIOS, 0));

    t[4] = string(b, MAKER);
    t[5] = string(b, "1");
    put_le16(t + 6, 0xe000); /* where it begins, a segment */
    t[8] = string(b, "01/01/2026");
    t[9] = 1;                   /* 128 KiB, in units of 64 less one */
    put_le64(t + 10, 1u << 3);  /* its characteristics are not told */
    put_le16(t + 18, 1u << 12); /* ACPI is there (byte 18), this is a virtual machine (byte 19, bit 4) */
    t[18] = 1;
    t[19] = 1u << 4;
    t[20] = 1;
    t[21] = 0;
    t[22] = t[23] = 0xff; /* no embedded controller */
    end(b);
}

/* The UUID's first three fields are little-endian (7.2.1). */
static void put_uuid(uint8_t *to, const uint8_t *uuid)
{
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};

    for (unsigned i = 0; uuid && i < 16; i++)
        to[i] = uuid[order[i]];
}

static void write_system(struct builder *b, const struct smbios_config *config)
{
    uint8_t *t = begin(b, TYPE_SYSTEM, 27, HANDLE(TYPE_SYSTEM, 0));

    t[4] = string(b, MAKER);
    t[5] = string(b, "Virtual Machine");
    t[6] = string(b, "1");
    t[7] = string(b, config->serial);
    put_uuid(t + 8, config->uuid);
    t[24] = 6; /* woken by the power switch */
    end(b);
}

static void write_chassis(struct builder *b)
{
    uint8_t *t = begin(b, TYPE_CHASSIS, 22, HANDLE(TYPE_CHASSIS, 0));

    t[4] = string(b, MAKER);
    t[5] = OTHER;
    t[9] = t[10] = t[11] = STATE_SAFE;
    t[12] = UNKNOWN; /* security */
    end(b);
}

static void write_processor(struct builder *b, unsigned i)
{
    uint8_t *t = begin(b, TYPE_PROCESSOR, 42, HANDLE(TYPE_PROCESSOR, i));
    char socket[16];

    snprintf(socket, sizeof(socket), "CPU %u", i);
    t[4] = string(b, socket);
    t[5] = 3; /* a central processor */
    t[6] = OTHER;
    t[7] = string(b, MAKER);
    t[24] = 0x41; /* populated, enabled */
    t[25] = OTHER;
    put_le16(t + 26, 0xffff); /* no structures for caches */
    put_le16(t + 28, 0xffff);
    put_le16(t + 30, 0xffff);
    t[35] = t[36] = t[37] = 1; /* cores, enabled ones, threads */
    put_le16(t + 38, 1u << 2); /* 64 bits */
    put_le16(t + 40, OTHER);
    end(b);
}

static void write_memory(struct builder *b, uint64_t memory)
{
    unsigned modules = (unsigned)((memory + MODULE_MAX - 1) / MODULE_MAX);
    uint8_t *t = begin(b, TYPE_MEMORY_ARRAY, 23, HANDLE(TYPE_MEMORY_ARRAY, 0));

    t[4] = OTHER;
    t[5] = 3; /* system memory */
    t[6] = UNKNOWN;
    put_le32(t + 7, 0x80000000); /* the capacity is in the wide field */
    put_le16(t + 11, HANDLE_NONE);
    put_le16(t + 13, (uint16_t)modules);
    put_le64(t + 15, memory);
    end(b);
    for (unsigned i = 0; i < modules; i++) {
        uint64_t size = memory - i * MODULE_MAX < MODULE_MAX ? memory - i * MODULE_MAX : MODULE_MAX;
        char slot[16];

        t = begin(b, TYPE_MEMORY_DEVICE, 40, HANDLE(TYPE_MEMORY_DEVICE, i));
        snprintf(slot, sizeof(slot), "DIMM %u", i);
        put_le16(t + 4, HANDLE(TYPE_MEMORY_ARRAY, 0));
        put_le16(t + 6, HANDLE_NONE);
        put_le16(t + 8, 0xffff); /* widths are not known */
        put_le16(t + 10, 0xffff);
        /* MiB; below one MiB, and where it does not come out even, KiB with the top bit set. */
        put_le16(t + 12, size % (KIB * KIB) && size / KIB < 0x8000 ? (uint16_t)(0x8000 | size / KIB)
                                                                   : (uint16_t)(size / (KIB * KIB)));
        t[14] = 9; /* a DIMM */
        t[16] = string(b, slot);
        t[18] = OTHER;
        put_le16(t + 19, 1u << 2);
        t[23] = string(b, MAKER);
        end(b);
    }
}

/* Ranges end with the last KiB in them, or, from 4 TiB on, with the last byte in the wide fields. */
static void write_mapping(struct builder *b, unsigned i, uint64_t base, uint64_t size)
{
    uint8_t *t = begin(b, TYPE_MEMORY_MAPPED, 31, HANDLE(TYPE_MEMORY_MAPPED, i));

    put_le32(t + 4, (uint32_t)(base / KIB));
    put_le32(t + 8, (uint32_t)((base + size) / KIB - 1));
    put_le16(t + 12, HANDLE(TYPE_MEMORY_ARRAY, 0));
    t[14] = 1;
    end(b);
}

static void write_boot(struct builder *b)
{
    begin(b, TYPE_BOOT, 11, HANDLE(TYPE_BOOT, 0)); /* status 0: no errors */
    end(b);
}

static uint8_t checksum(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    while (n--)
        sum += *p++;
    return (uint8_t)-sum;
}

static void write_anchor(uint8_t *a, const struct builder *b, uint32_t address)
{
    memset(a, 0, SMBIOS_ANCHOR_SIZE);
    memcpy(a, "_SM_", 4);
    a[5] = SMBIOS_ANCHOR_SIZE;
    a[6] = VERSION_MAJOR;
    a[7] = VERSION_MINOR;
    put_le16(a + 8, (uint16_t)b->largest);
    memcpy(a + 16, "_DMI_", 5);
    put_le16(a + 22, (uint16_t)b->out->size);
    put_le32(a + 24, address);
    put_le16(a + 28, (uint16_t)b->structures);
    a[30] = VERSION_MAJOR << 4 | VERSION_MINOR;
    a[21] = checksum(a + 16, 15);
    a[4] = checksum(a, SMBIOS_ANCHOR_SIZE);
}

static int build(struct smbios_tables *out, const struct smbios_config *config, uint32_t address,
                 struct error **err)
{
    struct builder b = {.out = out};
    uint64_t low = config->memory < GUEST_LOW_RAM_END ? config->memory : GUEST_LOW_RAM_END;

    *out = (struct smbios_tables){.data = calloc(1, BLOCK_SIZE)};
    if (!out->data)
        return error_set_errno(err, ENOMEM, "SMBIOS tables");
    write_bios(&b);
    write_system(&b, config);
    write_chassis(&b);
    for (unsigned i = 0; i < config->cpus; i++)
        write_processor(&b, i);
    write_memory(&b, config->memory);
    write_mapping(&b, 0, 0, low);
    if (config->memory > low)
        write_mapping(&b, 1, GUEST_HIGH_RAM, config->memory - low);
    write_boot(&b);
    begin(&b, TYPE_END, 4, HANDLE(TYPE_END, 0));
    end(&b);
    if (b.overflow) {
        smbios_tables_free(out);
        return error_set(err, ENOSPC, "the SMBIOS tables do not fit below 1 MiB");
    }
    write_anchor(out->anchor, &b, address);
    return 0;
}

int smbios_build(struct smbios_tables *out, const struct smbios_config *config, struct error **err)
{
    return build(out, config, 0, err);
}

void smbios_tables_free(struct smbios_tables *tables)
{
    free(tables->data);
    *tables = (struct smbios_tables){0};
}

int smbios_write(struct guest_memory *memory, const struct smbios_config *config, struct error **err)
{
    const size_t behind = ALIGN_UP((size_t)SMBIOS_ANCHOR_SIZE, 16);
    uint8_t *to = guest_memory_at(memory, MAP_SMBIOS, MAP_SMBIOS_END - MAP_SMBIOS);
    struct smbios_tables tables;

    if (!to)
        return error_set(err, ENOMEM, "no RAM for the SMBIOS tables: choose a larger --memory");
    int rc = build(&tables, config, (uint32_t)(MAP_SMBIOS + behind), err);
    if (rc)
        return rc;
    memset(to, 0, behind);
    memcpy(to, tables.anchor, SMBIOS_ANCHOR_SIZE);
    memcpy(to + behind, tables.data, tables.size);
    guest_memory_mark_written(memory, MAP_SMBIOS, behind + tables.size);
    smbios_tables_free(&tables);
    return 0;
}
