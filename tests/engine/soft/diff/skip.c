/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is not executed on both sides, and why. Everything else is, the privileged and the undefined included:
 * they fault alike.
 */
#include "diff.h"

#include <cpuid.h>

#define HOST_KERNEL "enters the host's kernel or hypervisor"
#define VARIES      "reads a clock, a counter or the identity of the processor"
#define LINUX       "the host's kernel emulates it under UMIP"
#define NOT_TOLD    "the host has it and the guest is not told of it"

static const struct {
    ZydisMnemonic mnemonic;
    const char *reason;
} mnemonics[] = {
    {ZYDIS_MNEMONIC_SYSCALL, HOST_KERNEL},
    {ZYDIS_MNEMONIC_SYSENTER, HOST_KERNEL},
    {ZYDIS_MNEMONIC_VMCALL, HOST_KERNEL},
    {ZYDIS_MNEMONIC_VMMCALL, HOST_KERNEL},
    {ZYDIS_MNEMONIC_RDTSC, VARIES},
    {ZYDIS_MNEMONIC_RDTSCP, VARIES},
    {ZYDIS_MNEMONIC_RDPID, VARIES},
    {ZYDIS_MNEMONIC_CPUID, VARIES},
    {ZYDIS_MNEMONIC_RDRAND, VARIES},
    {ZYDIS_MNEMONIC_RDSEED, VARIES},
    {ZYDIS_MNEMONIC_XGETBV, "XCR0 is not the host's"},
    {ZYDIS_MNEMONIC_SGDT, LINUX},
    {ZYDIS_MNEMONIC_SIDT, LINUX},
    {ZYDIS_MNEMONIC_SLDT, LINUX},
    {ZYDIS_MNEMONIC_SMSW, LINUX},
    {ZYDIS_MNEMONIC_STR, LINUX},
    {ZYDIS_MNEMONIC_RDPKRU, NOT_TOLD},
    {ZYDIS_MNEMONIC_WRPKRU, NOT_TOLD},
};

static const struct {
    ZydisISAExt ext;
    const char *reason;
} extensions[] = {
    {ZYDIS_ISA_EXT_AVX512EVEX, NOT_TOLD},
    {ZYDIS_ISA_EXT_AVX512VEX, NOT_TOLD},
    {ZYDIS_ISA_EXT_KNC, NOT_TOLD},
    {ZYDIS_ISA_EXT_CLFLUSHOPT, NOT_TOLD},
    {ZYDIS_ISA_EXT_CLWB, NOT_TOLD},
    {ZYDIS_ISA_EXT_RTM, NOT_TOLD},
    {ZYDIS_ISA_EXT_KNCE, NOT_TOLD},
    {ZYDIS_ISA_EXT_KNCV, NOT_TOLD},
    /* XSAVE stores what the host's XCR0 enables, more than the guest's: tests/engine/soft/test_fpu.c. */
    {ZYDIS_ISA_EXT_XSAVE, "XCR0 is not the host's"},
    {ZYDIS_ISA_EXT_XSAVEC, "XCR0 is not the host's"},
    {ZYDIS_ISA_EXT_XSAVEOPT, "XCR0 is not the host's"},
    {ZYDIS_ISA_EXT_XSAVES, NOT_TOLD},
    {ZYDIS_ISA_EXT_SVM, NOT_TOLD},
    {ZYDIS_ISA_EXT_SNP, NOT_TOLD},
    {ZYDIS_ISA_EXT_CLZERO, NOT_TOLD},
    {ZYDIS_ISA_EXT_MONITORX, NOT_TOLD},
    {ZYDIS_ISA_EXT_MCOMMIT, NOT_TOLD},
    {ZYDIS_ISA_EXT_RDPRU, NOT_TOLD},
    {ZYDIS_ISA_EXT_SSE4A, NOT_TOLD},
    {ZYDIS_ISA_EXT_GFNI, NOT_TOLD},
    {ZYDIS_ISA_EXT_VAES, NOT_TOLD},
    {ZYDIS_ISA_EXT_VPCLMULQDQ, NOT_TOLD},
    {ZYDIS_ISA_EXT_AMX_BF16, NOT_TOLD},
    {ZYDIS_ISA_EXT_AMX_INT8, NOT_TOLD},
    {ZYDIS_ISA_EXT_AMX_TILE, NOT_TOLD},
    {ZYDIS_ISA_EXT_AVX_VNNI, NOT_TOLD},
    {ZYDIS_ISA_EXT_CLDEMOTE, NOT_TOLD},
    {ZYDIS_ISA_EXT_ENQCMD, NOT_TOLD},
    {ZYDIS_ISA_EXT_MOVDIR, NOT_TOLD},
    {ZYDIS_ISA_EXT_PT, NOT_TOLD},
    {ZYDIS_ISA_EXT_SERIALIZE, "the guest is told of it and not each host has it"},
    {ZYDIS_ISA_EXT_SGX, NOT_TOLD},
    {ZYDIS_ISA_EXT_TDX, NOT_TOLD},
    {ZYDIS_ISA_EXT_TSX_LDTRK, NOT_TOLD},
    {ZYDIS_ISA_EXT_UINTR, NOT_TOLD},
    {ZYDIS_ISA_EXT_WAITPKG, NOT_TOLD},
};

/* Asked once: under a hypervisor CPUID leaves the guest, which takes longer than many executions. */
bool diff_host_is_amd(void)
{
    static int known = -1;

    if (known < 0) {
        unsigned a, b = 0, c, d;

        known = __get_cpuid(0, &a, &b, &c, &d) && (b == 0x68747541 || b == 0x6f677948); /* Auth..., Hygo... */
    }
    return known;
}

static bool has_repeat_prefix(const struct diff_insn *i)
{
    for (unsigned n = 0; n < i->z.raw.prefix_count; n++)
        if (i->z.raw.prefixes[n].value == 0xf2 || i->z.raw.prefixes[n].value == 0xf3)
            return true;
    return false;
}

/* Undecodable bytes must not be something that is skipped by its name in another form: 0F 01 D0 and so on are
 * told by opcode. */
static const char *skip_bytes(const struct diff_insn *i)
{
    for (unsigned n = 0; n + 1 < sizeof(i->bytes); n++) {
        if ((i->bytes[n] == 0xc4 && n + 3 < sizeof(i->bytes) && i->bytes[n + 3] == 0xae) ||
            (i->bytes[n] == 0xc5 && n + 2 < sizeof(i->bytes) && i->bytes[n + 2] == 0xae))
            return "undocumented: real processors take some forms of VEX 0F AE for those without VEX";
        if (i->bytes[n] == 0xc4 && n + 3 < sizeof(i->bytes) && (i->bytes[n + 1] & 0x1f) == 3 &&
            !(i->bytes[n + 2] & 0x80) && i->bytes[n + 3] <= 1 && diff_host_is_amd())
            return "AMD's processors take VPERMQ and VPERMPD without VEX.W";
        if (i->bytes[n] != 0x0f)
            continue;
        if (i->bytes[n + 1] == 0x00 && diff_host_is_amd())
            return "AMD's processors look at the operand of VERW before they refuse a LOCK";
        if ((i->bytes[n + 1] == 0x20 || i->bytes[n + 1] == 0x22) && diff_host_is_amd())
            return "AMD's processors have LOCK MOV CR0 for CR8";
        if (i->bytes[n + 1] == 0x05 || i->bytes[n + 1] == 0x34)
            return HOST_KERNEL;
        if (i->bytes[n + 1] == 0x01 && n + 2 < sizeof(i->bytes) && i->bytes[n + 2] >= 0xc0)
            return HOST_KERNEL;
    }
    return NULL;
}

/* What processors of AMD's do their own way. */
static const char *skip_amd(const struct diff_insn *i)
{
    switch (i->z.mnemonic) {
    case ZYDIS_MNEMONIC_INT1:
        return "hypervisors over AMD-V leave RIP at the instruction, or behind it";
    case ZYDIS_MNEMONIC_LOOPE:
    case ZYDIS_MNEMONIC_LOOPNE:
        return has_repeat_prefix(i) ? "undocumented: a repeat prefix changes the condition" : NULL;
    default:
        return NULL;
    }
}

const char *diff_skip(const struct diff_insn *i)
{
    if (!i->valid)
        return skip_bytes(i);
    if (i->z.mnemonic == ZYDIS_MNEMONIC_INT && i->z.raw.imm[0].value.u == 0x80)
        return HOST_KERNEL;
    if (diff_host_is_amd() && skip_amd(i))
        return skip_amd(i);
    for (unsigned n = 0; n < sizeof(mnemonics) / sizeof(mnemonics[0]); n++)
        if (i->z.mnemonic == mnemonics[n].mnemonic)
            return mnemonics[n].reason;
    for (unsigned n = 0; n < sizeof(extensions) / sizeof(extensions[0]); n++)
        if (i->z.meta.isa_ext == extensions[n].ext)
            return extensions[n].reason;
    return NULL;
}
