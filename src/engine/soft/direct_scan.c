/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Code is decoded from many places before the bytes in question. Sweeps that began within an instruction soon
 * fall into step with the others, as x86 code makes them, and those that began in a table mostly end at bytes
 * that are no instruction. So of the sweeps that come by, nearly all see an instruction that is there, and
 * next to none one that is not: a quarter is enough to believe them.
 */
#include "engine/soft/direct_scan.h"

#include "engine/soft/decode.h"

#include <string.h>

#define PAGE    4096u
#define LONGEST 15u
/* Sweeps begin so far before the bytes, and no nearer than that. */
#define FARTHEST    160u
#define NEAREST     40u
#define WINDOW      (FARTHEST + LONGEST)
#define ENOUGH(all) ((all) / 4)

/*
 * CPUID and RDPID; SYSENTER, which Intel's processors have in 64-bit mode, and whose way back the host's
 * kernel chooses; and where the host has more state than the guest, XGETBV, WRPKRU, which would keep us out
 * of the stub's own pages, and the XSAVE family, which would store that state into areas that are too small.
 * (RDTSC and RDTSCP fault in a stub.)
 */
static bool tells(const struct direct_scan *scan, ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDPID:
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
        return scan->more_state && (modrm == 0xd0 || modrm == 0xef);
    case 0xae:
        return scan->more_state && memory && reg >= 4 && reg <= 6;
    case 0xc7:
        return modrm >= 0xf8 || (scan->more_state && memory && reg == 4);
    default:
        return false;
    }
}

/* Whether instructions begin so that one that tells has its escape byte at bytes[at]. Of the bytes, those
 * from `first` on may be the beginning of one. */
static bool is_there(const struct direct_scan *scan, const uint8_t *bytes, unsigned first, unsigned at,
                     unsigned end)
{
    unsigned votes[WINDOW] = {0}; /* sweeps that come by, from `begin` on */
    unsigned all = 0, seen = 0;
    unsigned begin = at > first + FARTHEST ? at - FARTHEST : first;
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
    return seen > 0 ? seen >= ENOUGH(all) : all == 0;
}

bool direct_scan_page(const struct direct_scan *scan, const uint8_t *before, const uint8_t *page)
{
    uint8_t bytes[WINDOW + PAGE + LONGEST];
    const unsigned end = WINDOW + PAGE;
    /* What ends in this page may have begun in the one before. */
    unsigned first = before ? 0 : WINDOW;

    memset(bytes + end, 0, LONGEST);
    if (before)
        memcpy(bytes, before + PAGE - WINDOW, WINDOW);
    memcpy(bytes + WINDOW, page, PAGE);
    for (unsigned at = before ? WINDOW - 2 : WINDOW; at < end; at++) {
        const uint8_t *escape = memchr(bytes + at, 0x0f, end - at);
        if (!escape)
            break;
        at = (unsigned)(escape - bytes);
        if (may_tell(scan, escape) && is_there(scan, bytes, first, at, end + LONGEST))
            return true;
    }
    return false;
}
