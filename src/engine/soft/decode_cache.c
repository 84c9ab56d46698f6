/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An entry matches instructions whose bytes are the same but for those of the displacement and the immediate.
 * Prefixes, opcode, ModRM and SIB tell where these are, and all else of the instruction; so what matches has
 * them in the same places, and nothing but their values has to be taken from its own bytes. (Not so where an
 * immediate holds a register or is part of the opcode: VEX's is4, 3DNow!; these are not kept.)
 */
#include "engine/soft/decode_cache.h"

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#define ENTRIES  1024u
#define OPERANDS 5u /* what has more is rare */
#define LONGEST  15u
/* Of struct soft_decoded, with so many operands. */
#define SIZE(operands) (offsetof(struct soft_decoded, ops) + (operands) * sizeof(ZydisDecodedOperand))

struct entry {
    uint8_t bytes[16]; /* zero where `mask` is */
    uint8_t mask[16];
    bool used, amd;
    uint8_t length, n_operands;
    uint8_t decoded[SIZE(OPERANDS)] __attribute__((aligned(8))); /* struct soft_decoded, as far as it goes */
};

struct soft_decode_cache {
    struct entry entries[ENTRIES];
};

struct soft_decode_cache *soft_decode_cache_new(void)
{
    void *p = mmap(NULL, sizeof(struct soft_decode_cache), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

void soft_decode_cache_free(struct soft_decode_cache *cache)
{
    if (cache)
        munmap(cache, sizeof(*cache));
}

/* Where an instruction is kept: by its first bytes, as far as they are no displacement or immediate. That is
 * only roughly told: what is not right costs a place. */
static unsigned place_of(const uint8_t *bytes)
{
    const uint8_t *p = bytes;
    uint32_t hash = 0;

    while (p < bytes + 3 && (*p == 0x66 || (*p & 0xf0) == 0x40 || *p == 0x65 || (*p & 0xfe) == 0xf2))
        hash = hash * 31 + *p++;
    bool two = *p == 0x0f;
    if (two)
        hash = hash * 31 + *p++;
    uint8_t opcode = *p++;
    hash = hash * 31 + opcode;
    bool modrm = two ? (opcode & 0xf0) != 0x80
                     : (opcode & 0xc4) == 0 || (opcode & 0xf0) == 0x80 || opcode == 0x63 || opcode == 0x69 ||
                           opcode == 0x6b || (opcode & 0xfe) == 0xc0 || (opcode & 0xfe) == 0xc6 ||
                           (opcode & 0xfc) == 0xd0 || (opcode & 0xf6) == 0xf6;
    if (modrm)
        hash = hash * 31 + *p;
    return (hash * 0x9e3779b1u >> 20) % ENTRIES;
}

static bool matches(const struct entry *e, const uint8_t bytes[16], unsigned length, bool amd)
{
    uint64_t have[2], mask[2], want[2];

    if (!e->used || e->length > length || e->amd != amd)
        return false;
    memcpy(have, bytes, 16);
    memcpy(mask, e->mask, 16);
    memcpy(want, e->bytes, 16);
    return (have[0] & mask[0]) == want[0] && (have[1] & mask[1]) == want[1];
}

/* `bits` of little-endian bytes, 0 for none. */
static uint64_t value_at(const uint8_t *p, unsigned bits, bool is_signed)
{
    uint64_t value = 0;

    memcpy(&value, p, bits / 8);
    if (!is_signed || !bits)
        return value;
    return (uint64_t)((int64_t)(value << (64 - bits)) >> (64 - bits));
}

/* The displacement and the immediate of these bytes in the place of those of the entry. */
static void set_values(struct soft_decoded *d, const uint8_t *bytes)
{
    ZydisDecodedInstruction *z = &d->z;
    bool has_imm = z->raw.imm[0].size;

    if (z->raw.disp.size)
        z->raw.disp.value = (int64_t)value_at(bytes + z->raw.disp.offset, z->raw.disp.size, true);
    if (has_imm)
        z->raw.imm[0].value.u =
            value_at(bytes + z->raw.imm[0].offset, z->raw.imm[0].size, z->raw.imm[0].is_signed);
    for (unsigned n = 0; n < z->operand_count; n++) {
        ZydisDecodedOperand *o = &d->ops[n];

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.disp.has_displacement)
            o->mem.disp.value = z->raw.disp.value;
        else if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && has_imm)
            o->imm.value.u = z->raw.imm[0].value.u;
    }
}

static void take(const struct entry *e, struct soft_decoded *d, const uint8_t bytes[16], uint64_t rip)
{
    memcpy(d, e->decoded, SIZE(e->n_operands));
    for (unsigned n = e->n_operands; n < ZYDIS_MAX_OPERAND_COUNT; n++)
        d->ops[n].type = ZYDIS_OPERAND_TYPE_UNUSED;
    memcpy(d->bytes, bytes, sizeof(d->bytes));
    d->rip = rip;
    set_values(d, bytes);
}

/* Memory operands without a ModRM (string instructions, MOV with an offset), and others that a displacement
 * in the bytes has nothing to do with, have their own. */
static bool displacement_is_plain(const struct soft_decoded *d)
{
    for (unsigned n = 0; n < d->z.operand_count; n++) {
        const ZydisDecodedOperand *o = &d->ops[n];

        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->mem.disp.has_displacement &&
            (!d->z.raw.disp.size || o->mem.disp.value != d->z.raw.disp.value))
            return false;
    }
    return true;
}

static bool can_be_kept(const struct soft_decoded *d)
{
    return d->z.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY && d->z.operand_count <= OPERANDS &&
           !d->z.raw.imm[1].size && displacement_is_plain(d);
}

static void free_bytes(struct entry *e, unsigned offset, unsigned bits)
{
    memset(e->mask + offset, 0, bits / 8);
}

static void keep(struct entry *e, const struct soft_decoded *d, const uint8_t bytes[16], bool amd)
{
    const ZydisDecodedInstruction *z = &d->z;

    memset(e->mask, 0, sizeof(e->mask));
    memset(e->mask, 0xff, z->length);
    free_bytes(e, z->raw.disp.offset, z->raw.disp.size);
    free_bytes(e, z->raw.imm[0].offset, z->raw.imm[0].size);
    for (unsigned n = 0; n < sizeof(e->bytes); n++)
        e->bytes[n] = bytes[n] & e->mask[n];
    e->amd = amd;
    e->length = z->length;
    e->n_operands = z->operand_count;
    memcpy(e->decoded, d, SIZE(e->n_operands));
    e->used = true;
}

enum soft_decode_result soft_decode_cached(struct soft_decode_cache *cache, struct soft_decoded *d,
                                           const uint8_t *bytes, unsigned length, unsigned bits, bool amd,
                                           uint64_t rip)
{
    uint8_t padded[16] = {0};

    if (!cache || bits != 64)
        return soft_decode(d, bytes, length, bits, amd, rip);
    length = length < LONGEST ? length : LONGEST;
    memcpy(padded, bytes, length);
    struct entry *e = &cache->entries[place_of(padded)];
    if (matches(e, padded, length, amd)) {
        take(e, d, padded, rip);
        return DECODE_OK;
    }
    enum soft_decode_result r = soft_decode(d, bytes, length, bits, amd, rip);
    if (r == DECODE_OK && can_be_kept(d))
        keep(e, d, padded, amd);
    return r;
}
