/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Whether two executions ended alike, and how a difference is told to a person. */
#include "diff.h"

#include <inttypes.h>
#include <string.h>

#define FLAG_TF 0x100ull
#define FLAG_RF 0x10000ull

#define SELECTOR_CODE32 0x23 /* Linux's for user code */

#define HOST_USER_END 0x7ffffffff000ull

static const char *const gpr_names[CPU_GPRS] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
static const char *const segment_names[CPU_SEGMENTS] = {"es", "cs", "ss", "ds", "fs", "gs"};

/* Parts of the XSAVE area (SDM vol. 1 table 10-2). The x87 pointers (FOP, FIP, FDP) are not compared: they
 * tell where the last x87 instruction was executed, which on the soft side is in its code cache. */
static const struct {
    const char *name;
    uint16_t offset, size, stride, count;
    uint8_t component;
} fpu_parts[] = {
    {"fcw", 0, 2, 0, 1, 0},       {"fsw", 2, 2, 0, 1, 0},   {"ftw", 4, 1, 0, 1, 0},
    {"mxcsr", 24, 4, 0, 1, 9},    {"st", 32, 10, 16, 8, 0}, {"xmm", 160, 16, 16, 16, 1},
    {"ymmh", 576, 16, 16, 16, 2},
};
#define N_FPU_PARTS (sizeof(fpu_parts) / sizeof(fpu_parts[0]))

/* A component that is in its initial state may be stored as anything: make it that state. */
static void normalize(uint8_t *x)
{
    if (!(x[512] & 1)) {
        memset(x, 0, 24);
        memset(x + 32, 0, 128);
        x[0] = 0x7f;
        x[1] = 3;
    }
    if (!(x[512] & 2))
        memset(x + 160, 0, 256);
    if (!(x[512] & 4))
        memset(x + 576, 0, 256);
}

static bool equal_fpu(const struct diff_state *a, const struct diff_state *b, bool no_x87, bool no_mxcsr,
                      FILE *f)
{
    static uint8_t x[832], y[832];
    bool same = true;

    memcpy(x, a->xsave, sizeof(x));
    memcpy(y, b->xsave, sizeof(y));
    normalize(x);
    normalize(y);
    for (unsigned p = 0; p < N_FPU_PARTS; p++)
        for (unsigned n = 0; n < fpu_parts[p].count; n++) {
            unsigned at = fpu_parts[p].offset + n * fpu_parts[p].stride, size = fpu_parts[p].size;
            if (!memcmp(x + at, y + at, size) || (no_x87 && fpu_parts[p].component == 0) ||
                (no_mxcsr && fpu_parts[p].offset == 24))
                continue;
            same = false;
            if (!f)
                return false;
            fprintf(f, "  %s%u: ", fpu_parts[p].name, n);
            for (unsigned k = size; k--;)
                fprintf(f, "%02x", x[at + k]);
            fprintf(f, " | ");
            for (unsigned k = size; k--;)
                fprintf(f, "%02x", y[at + k]);
            fprintf(f, "\n");
        }
    return same;
}

static bool equal_value(const char *name, uint64_t a, uint64_t b, FILE *f)
{
    if (a != b && f)
        fprintf(f, "  %s: %016" PRIx64 " | %016" PRIx64 "\n", name, a, b);
    return a == b;
}

/* The host's way back from its kernel makes every null selector 0. */
static uint16_t selector(uint16_t s)
{
    return s & ~3u ? s : 0;
}

/* Whether two different faults are both right. */
static bool either_fault(const struct diff_result *a, const struct diff_result *b,
                         const struct diff_undefined *u)
{
    const uint32_t access_faults = 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14;

    if (a->vector > 31 || b->vector > 31 || !(access_faults >> a->vector & access_faults >> b->vector & 1))
        return false;
    /* AMD's processors refuse an operand that runs over the last byte of the address space, be it below the
     * hole of 64-bit mode or at 4 GiB in a flat segment; Intel's look at the pages first. */
    if (diff_host_is_amd() && (a->vector == 14) != (b->vector == 14)) {
        uint64_t cr2 = a->vector == 14 ? a->cr2 : b->cr2, at = cr2 | 31;

        if (at == 0x7fffffffffff || at == 0xffffffff)
            return true;
        /* They take an address of FS or GS for non-canonical if the sum skips the hole, or if the operand
         * runs into it before the base is added. */
        if (at >> 31 == 0xffff800000000000 >> 31)
            return true;
        if (((cr2 - a->state.fs_base) | 31) == 0x7fffffffffff ||
            ((cr2 - a->state.gs_base) | 31) == 0x7fffffffffff)
            return true;
    }
    return u->order && (a->vector != b->vector || a->error != b->error);
}

static bool equal_exception(const struct diff_result *a, const struct diff_result *b,
                            const struct diff_undefined *u, FILE *f)
{
    uint32_t error = ~0u;
    bool same = true;

    if (!u->stack_or_gp || !((a->vector == 12 && b->vector == 13) || (a->vector == 13 && b->vector == 12)))
        same &= equal_value("vector", a->vector, b->vector, f);
    /* Linux tells user code that every page above its own part is present. */
    if (a->vector == 14 && a->cr2 >= HOST_USER_END)
        error &= ~1u;
    same &= equal_value("error code", a->error & error, b->error & error, f);
    if (!u->cr2 || a->vector != 14 || b->vector != 14)
        same &= equal_value("cr2", a->cr2, b->cr2, f);
    return same;
}

bool diff_equal(const struct diff_result *a, const struct diff_result *b, const struct diff_undefined *u,
                unsigned bits, bool step, bool faulted, FILE *f)
{
    const struct diff_state *x = &a->state, *y = &b->state;
    uint64_t width = bits == 32 ? 0xffffffff : ~0ull;
    uint64_t flags = ~(u->flags | FLAG_RF | (step ? FLAG_TF : 0));
    bool same = true;

    if (!either_fault(a, b, u))
        same &= equal_exception(a, b, u, f);
    same &= equal_value("rip", x->rip & width, y->rip & width, f);
    same &= equal_value("rflags", x->rflags & flags, y->rflags & flags, f);
    /* In compatibility mode the upper halves are undefined (SDM vol. 1 3.4.1.1). */
    if (x->seg[CPU_CS] == SELECTOR_CODE32)
        width = 0xffffffff;
    for (unsigned n = 0; n < (bits == 32 ? 8 : CPU_GPRS); n++)
        if (!(u->gprs >> n & 1))
            same &= equal_value(gpr_names[n], x->gpr[n] & width, y->gpr[n] & width, f);
    for (unsigned n = 0; n < CPU_SEGMENTS; n++)
        same &= equal_value(segment_names[n], selector(x->seg[n]), selector(y->seg[n]), f);
    if (bits == 64) {
        same &= equal_value("fs base", x->fs_base, y->fs_base, f);
        same &= equal_value("gs base", x->gs_base, y->gs_base, f);
    }
    return equal_fpu(x, y, u->x87_on_fault && faulted, u->mxcsr_on_fault && faulted, f) && same;
}

void diff_print_bytes(FILE *f, const uint8_t *p, unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        fprintf(f, "%02x%s", p[k], k + 1 < n ? " " : "");
}

void diff_print_state(FILE *f, const struct diff_state *s, unsigned bits)
{
    uint16_t fcw, fsw;
    uint32_t mxcsr;

    memcpy(&fcw, s->xsave, 2);
    memcpy(&fsw, s->xsave + 2, 2);
    memcpy(&mxcsr, s->xsave + 24, 4);
    for (unsigned n = 0; n < (bits == 32 ? 8 : CPU_GPRS); n++)
        fprintf(f, "  %s=%016" PRIx64 "%s", gpr_names[n], s->gpr[n], n % 4 == 3 ? "\n" : "");
    fprintf(f, "  rip=%016" PRIx64 "  rflags=%" PRIx64 "  fs=%x:%" PRIx64 "  gs=%x:%" PRIx64 "\n", s->rip,
            s->rflags, s->seg[CPU_FS], s->fs_base, s->seg[CPU_GS], s->gs_base);
    fprintf(f, "  fcw=%04x fsw=%04x ftw=%02x mxcsr=%08x\n", fcw, fsw, s->xsave[4], mxcsr);
}
