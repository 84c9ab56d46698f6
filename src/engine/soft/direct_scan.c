/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Code is decoded from many places before the bytes in question. Sweeps that began within an instruction soon
 * fall into step with the others, as x86 code makes them, and those that began in a table mostly end at bytes
 * that are no instruction. So of the sweeps that come by, nearly all see an instruction that is there, and
 * next to none one that is not: a quarter is enough to believe them. Where most of those that have begun come
 * by, which tables of any kind hardly let them, and nearly all of these see it, there is no doubt.
 */
#include "engine/soft/direct_scan.h"

#include "base/bytes.h"

#include "engine/soft/decode.h"

#include <emmintrin.h>
#include <string.h>

#define PAGE    4096u
#define LONGEST 15u
#define PADDING 32u
/* Sweeps begin so far before the bytes, and no nearer than that. */
#define FARTHEST      320u
#define NEAREST       48u
#define WINDOW        (FARTHEST + LONGEST)
#define BELIEVED(all) (((all) + 3) / 4)
#define NEARLY(all)   ((all) - (all) / 8)
#define MOST(begun)   ((begun) / 2)

/*
 * CPUID, RDPID and RDTSCP, which tells the processor's number as well; SYSENTER, which Intel's processors
 * have in 64-bit mode, and whose way back the host's kernel chooses; and where the host has more state than
 * the guest, XGETBV, WRPKRU, which would keep us out of the stub's own pages, and the XSAVE family, which
 * would store that state into areas that are too small. (RDTSC faults in a stub where the guest's TSC is not
 * the host's.)
 */
static bool tells(const struct direct_scan *scan, ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDPID:
    case ZYDIS_MNEMONIC_RDTSCP:
        return true;
    case ZYDIS_MNEMONIC_SYSENTER:
        return !scan->amd;
    case ZYDIS_MNEMONIC_XGETBV:
    case ZYDIS_MNEMONIC_WRPKRU:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        return scan->more_state;
    default:
        return false;
    }
}

/* The bytes after the escape byte 0F that all of these have. */
static const uint8_t opcodes[] = {0xa2, 0x34, 0x01, 0xae, 0xc7};

static bool may_tell(const struct direct_scan *scan, const uint8_t *escape)
{
    unsigned opcode = escape[1], modrm = escape[2], reg = modrm >> 3 & 7;
    bool memory = modrm < 0xc0;

    switch (opcode) {
    case 0xa2:
        return true;
    case 0x34:
        return !scan->amd;
    case 0x01:
        return modrm == 0xf9 || (scan->more_state && (modrm == 0xd0 || modrm == 0xef));
    case 0xae:
        return scan->more_state && memory && reg >= 4 && reg <= 6;
    case 0xc7:
        return modrm >= 0xf8 || (scan->more_state && memory && reg == 4);
    default:
        return false;
    }
}

/* The next escape byte from `at` on that one of these opcodes follows; `end` if there is none. At least 16
 * bytes more can be read. */
static unsigned next_escape(const uint8_t *bytes, unsigned at, unsigned end)
{
    const __m128i escape = _mm_set1_epi8(0x0f);

    for (; at < end; at += 16) {
        __m128i here = _mm_loadu_si128((const __m128i *)(const void *)(bytes + at));
        __m128i next = _mm_loadu_si128((const __m128i *)(const void *)(bytes + at + 1));
        __m128i found = _mm_setzero_si128();
        for (unsigned n = 0; n < sizeof(opcodes); n++)
            found = _mm_or_si128(found, _mm_cmpeq_epi8(next, _mm_set1_epi8((char)opcodes[n])));
        unsigned bits = (unsigned)_mm_movemask_epi8(_mm_and_si128(found, _mm_cmpeq_epi8(here, escape)));
        if (bits) {
            at += (unsigned)__builtin_ctz(bits);
            return at < end ? at : end;
        }
    }
    return end;
}

/* Whether instructions begin so that one that tells has its escape byte at bytes[at]. Of the bytes, those
 * from `first` on may be the beginning of one. */
static enum direct_verdict look_at(const struct direct_scan *scan, const uint8_t *bytes, unsigned first,
                                   unsigned at, unsigned end)
{
    unsigned votes[WINDOW] = {0}; /* sweeps that come by, from `begin` on */
    unsigned all = 0, seen = 0;
    bool enough_before = at >= first + FARTHEST;
    unsigned begin = enough_before ? at - FARTHEST : first;
    unsigned last = at > begin + NEAREST ? at - NEAREST : begin + LONGEST;

    for (unsigned n = begin; n <= at; n++) {
        ZydisDecodedInstruction z;

        if (n <= last)
            votes[n - begin]++;
        if (!votes[n - begin] || !soft_decode_briefly(&z, bytes + n, end - n, scan->amd))
            continue;
        unsigned next = n + z.length;
        if (next <= at) {
            votes[next - begin] += votes[n - begin];
        } else {
            all += votes[n - begin];
            seen += tells(scan, z.mnemonic) ? votes[n - begin] : 0;
        }
    }
    if (seen < BELIEVED(all))
        return DIRECT_HARMLESS;
    return enough_before && seen >= NEARLY(all) && seen >= MOST(last + 1 - begin) ? DIRECT_CERTAIN
                                                                                  : DIRECT_DOUBTFUL;
}

/*
 * The first page of the code that Linux maps for programs that ask what time it is. Behind its functions it
 * has, as data that nobody reads, the instructions that may be put in their place (RDTSCP for one).
 */
static bool is_vdso(const uint8_t *page)
{
    static const char name[] = "linux-vdso.so.1";

    return memcmp(page, "\177ELF", 4) == 0 && memmem(page, PAGE / 2, name, sizeof(name));
}

enum direct_verdict direct_scan_page(const struct direct_scan *scan, const uint8_t *before,
                                     const uint8_t *page, struct direct_sites *sites)
{
    uint8_t bytes[WINDOW + PAGE + PADDING];
    const unsigned end = WINDOW + PAGE;
    /* What ends in this page may have begun in the one before. */
    unsigned first = before ? 0 : WINDOW;
    bool vdso = is_vdso(page);

    sites->n = 0;
    memset(bytes + end, 0, PADDING);
    if (before)
        memcpy(bytes, before + PAGE - WINDOW, WINDOW);
    memcpy(bytes + WINDOW, page, PAGE);
    for (unsigned at = before ? WINDOW - 2 : WINDOW; at < end; at++) {
        at = next_escape(bytes, at, end);
        if (at == end)
            break;
        enum direct_verdict v =
            may_tell(scan, bytes + at) ? look_at(scan, bytes, first, at, end + LONGEST) : DIRECT_HARMLESS;
        if (v == DIRECT_HARMLESS || (v == DIRECT_DOUBTFUL && vdso))
            continue;
        if (v == DIRECT_DOUBTFUL || at + 1 < WINDOW || sites->n == DIRECT_SITES)
            return DIRECT_DOUBTFUL;
        sites->at[sites->n++] = (uint16_t)(at + 1 - WINDOW);
    }
    return sites->n ? DIRECT_CERTAIN : DIRECT_HARMLESS;
}

/* Four sums at a time, since a multiplication takes some cycles: a page takes a third of a microsecond. */
static uint64_t add_bytes(uint64_t hash, const uint8_t *bytes, size_t size)
{
    uint64_t sums[4] = {hash, ~hash, hash << 1, size}, words[4];

    for (size_t n = 0; n + sizeof(words) <= size; n += sizeof(words)) {
        memcpy(words, bytes + n, sizeof(words));
        for (unsigned k = 0; k < 4; k++)
            sums[k] = (sums[k] ^ words[k]) * 0x9e3779b97f4a7c15ull + (sums[k] >> 29);
    }
    return ((sums[0] * 3 + sums[1]) * 5 + sums[2]) * 7 + (sums[3] ^ sums[0] >> 31);
}

uint64_t direct_scan_hash(const struct direct_scan *scan, const uint8_t *before, const uint8_t *page)
{
    uint64_t hash = 1 + scan->amd + 2 * scan->more_state;

    if (before)
        hash = add_bytes(hash, before + PAGE - ALIGN_UP(WINDOW, 32), ALIGN_UP(WINDOW, 32));
    hash = add_bytes(hash, page, PAGE);
    return hash ? hash : 1;
}
