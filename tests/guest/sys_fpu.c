/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of x87, MMX, SSE and AVX as a system sees it: which control bits forbid it and how, exceptions of
 * both kinds, MXCSR's masks, the areas of FXSAVE and XSAVE, XCR0, and that the state survives what happens
 * between (SDM vol. 1 chapters 8, 11 and 13, vol. 3A 2.5, 13).
 */
#include "common/guest.h"

#define CR0_MP         (1ull << 1)
#define CR0_EM         (1ull << 2)
#define CR0_TS         (1ull << 3)
#define CR4_OSFXSR     (1ull << 9)
#define CR4_OSXMMEXCPT (1ull << 10)
#define CR4_OSXSAVE    (1ull << 18)

static uint8_t area[4096] __attribute__((aligned(64))), other[4096] __attribute__((aligned(64)));

__asm__(".text\n"
        "f_x87: fld1; fstp %st(0); ret\n"
        "f_wait: fwait; ret\n"
        "f_mmx: movq %mm0, %mm1; emms; ret\n"
        "f_sse: movaps %xmm0, %xmm1; ret\n"
        "f_avx: vmovaps %xmm0, %xmm1; ret\n"
        "f_fxsave: fxsave area; ret\n"
        "f_ldmxcsr: ldmxcsr mxcsr_value; ret\n"
        "f_prefetch: prefetcht0 area; ret\n"
        "f_movnti: movnti %eax, other; ret\n"
        "f_mf: fninit; fldcw cw_zero; fld1; fldz; fdivrp; f_mf_next: fnop; f_mf_wait: fwait; ret\n"
        "f_mf_quiet: fninit; fldcw cw_zero; fld1; fldz; fdivrp; fnstsw sw_seen; fnclex; fwait; fninit; ret\n"
        "f_xm: ldmxcsr mxcsr_zero; xorps %xmm1, %xmm1; movss one, %xmm0; f_xm_at: divss %xmm1, %xmm0; ret\n"
        "f_xm_masked: ldmxcsr mxcsr_default; xorps %xmm1, %xmm1; movss one, %xmm0; divss %xmm1, %xmm0\n"
        "stmxcsr mxcsr_seen; ret\n"
        "f_xgetbv: xorl %ecx, %ecx; xgetbv; ret\n"
        "f_xsave: movl $7, %eax; xorl %edx, %edx; xsave area; ret\n"
        ".data\n.balign 16\n"
        "cw_zero: .word 0x037b\n sw_seen: .word 0\n"
        "mxcsr_zero: .long 0x1d80\n mxcsr_default: .long 0x1f80\n one: .float 1.0\n"
        ".globl mxcsr_value, mxcsr_seen\n mxcsr_value: .long 0x1f80\n mxcsr_seen: .long 0\n .text\n");
#define PLACE(name) extern uint8_t name[]
PLACE(f_x87);
PLACE(f_wait);
PLACE(f_mmx);
PLACE(f_sse);
PLACE(f_avx);
PLACE(f_fxsave);
PLACE(f_ldmxcsr);
PLACE(f_prefetch);
PLACE(f_movnti);
PLACE(f_mf);
PLACE(f_mf_next);
PLACE(f_mf_quiet);
PLACE(f_xm);
PLACE(f_xm_at);
PLACE(f_xm_masked);
PLACE(f_xgetbv);
PLACE(f_xsave);
extern uint16_t sw_seen;
extern uint32_t mxcsr_value, mxcsr_seen;

static void call(void *code)
{
    __asm__ volatile("call *%0" : "+r"(code) : : "rax", "rcx", "rdx", "memory", "cc");
}

static void check(const char *prefix, const char *name, uint8_t *code, int vector)
{
    struct trap_result r = trap_catch(call, code);

    check_trap(check_name(prefix, name, NULL), &r, vector, 0);
}

/* ---- which control bits forbid what ---- */

static void test_enabled(void)
{
    const uint64_t cr0 = read_cr0(), cr4 = read_cr4();

    check("allowed: ", "x87", f_x87, -1);
    check("allowed: ", "MMX", f_mmx, -1);
    check("allowed: ", "SSE", f_sse, -1);
    write_cr0(cr0 | CR0_TS);
    check("TS: ", "x87", f_x87, 7);
    check("TS: ", "FWAIT with MP", f_wait, 7);
    check("TS: ", "MMX", f_mmx, 7);
    check("TS: ", "SSE", f_sse, 7);
    check("TS: ", "FXSAVE", f_fxsave, 7);
    check("TS: ", "LDMXCSR", f_ldmxcsr, 7);
    check("TS: ", "PREFETCH", f_prefetch, -1);
    check("TS: ", "MOVNTI", f_movnti, -1);
    write_cr0((cr0 | CR0_TS) & ~CR0_MP);
    check("TS: ", "FWAIT without MP", f_wait, -1);
    write_cr0(cr0 | CR0_TS);
    __asm__ volatile("clts");
    check_value("CLTS", read_cr0() & CR0_TS, 0);
    check("CLTS: ", "SSE", f_sse, -1);
    write_cr0(cr0 | CR0_EM);
    check("EM: ", "x87", f_x87, 7);
    check("EM: ", "MMX", f_mmx, 6);
    check("EM: ", "SSE", f_sse, 6);
    write_cr0(cr0);
    write_cr4(cr4 & ~CR4_OSFXSR);
    check("OSFXSR off: ", "SSE", f_sse, 6);
    check("OSFXSR off: ", "x87", f_x87, -1);
    write_cr4(cr4);
}

/* ---- exceptions ---- */

static void test_exceptions(void)
{
    const uint64_t cr4 = read_cr4();
    struct trap_result r;

    r = trap_catch(call, f_mf);
    check_trap("#MF", &r, 16, 0);
    check_value("#MF: at the next waiting instruction", r.rip, (uint64_t)f_mf_next);
    check("#MF: ", "not for FNSTSW, nor after FNCLEX", f_mf_quiet, -1);
    check_value("#MF: the status word has ZE and ES", sw_seen & 0x84, 0x84);
    __asm__ volatile("fninit");
    check("", "MXCSR, masked: no exception", f_xm_masked, -1);
    check_value("MXCSR, masked: ZE is noted", mxcsr_seen & 0x3f, 4);
    if (processor_is_tcg()) {
        check_skip("#XM", "TCG raises none");
        check_skip("MXCSR: reserved bits", "TCG takes them");
    } else {
        r = trap_catch(call, f_xm);
        check_trap("#XM", &r, 19, 0);
        check_value("#XM: at the instruction itself", r.rip, (uint64_t)f_xm_at);
        write_cr4(cr4 & ~CR4_OSXMMEXCPT);
        r = trap_catch(call, f_xm);
        check_trap("#XM without OSXMMEXCPT is #UD", &r, 6, 0);
        write_cr4(cr4);
        mxcsr_value = 0x11f80;
        r = trap_catch(call, f_ldmxcsr);
        check_trap("MXCSR: reserved bits", &r, 13, 0);
    }
    mxcsr_value = 0x1f80;
    call(f_ldmxcsr);
}

/* ---- FXSAVE ---- */

static void fill_registers(uint64_t seed)
{
    uint64_t v[2] = {seed, ~seed};

    __asm__ volatile("movups %0, %%xmm0; movaps %%xmm0, %%xmm7; paddq %%xmm7, %%xmm7; movaps %%xmm7, "
                     "%%xmm15; paddq %%xmm0, %%xmm15\n"
                     "fninit; fildq %0; fld1; fldpi"
                     :
                     : "m"(v));
}

/* Whether the registers hold what fill_registers has put there. */
static bool registers_are(uint64_t seed)
{
    uint64_t v[2] = {seed, ~seed}, got[3][2];
    int64_t integer;
    bool ok;

    __asm__ volatile(
        "movups %%xmm0, %0; movups %%xmm7, %1; movups %%xmm15, %2; fstp %%st(0); fstp %%st(0); fistpq %3"
        : "=m"(got[0]), "=m"(got[1]), "=m"(got[2]), "=m"(integer));
    ok = got[0][0] == v[0] && got[0][1] == v[1] && got[1][0] == 2 * v[0] && got[1][1] == 2 * v[1];
    return ok && got[2][0] == 3 * v[0] && got[2][1] == 3 * v[1] && integer == (int64_t)seed;
}

static void fxsave_at(void *at)
{
    __asm__ volatile("fxsave (%0)" : : "r"(at) : "memory");
}
static void fxrstor_at(void *at)
{
    __asm__ volatile("fxrstor (%0)" : : "r"(at) : "memory");
}

static uint32_t word(const uint8_t *at)
{
    return *(const volatile uint32_t *)at;
}

static void test_fxsave(void)
{
    struct trap_result r;

    fill_registers(0x123456789abcdef);
    fxsave_at(area);
    check_value("FXSAVE: FCW", word(area) & 0xffff, 0x37f);
    check_value("FXSAVE: FSW has TOP", word(area) >> 16 & 0x3800, 5 << 11);
    check_value("FXSAVE: the short tag word", area[4], 0xe0);
    check_value("FXSAVE: MXCSR", word(area + 24), 0x1f80);
    check_value("FXSAVE: MXCSR's mask has the default bits", word(area + 28) & 0xffbf, 0xffbf);
    check_value("FXSAVE: ST(1) is 1.0", *(uint64_t *)(area + 48), 1ull << 63);
    check_value("FXSAVE: XMM0", *(uint64_t *)(area + 160), 0x123456789abcdef);
    check_value("FXSAVE: XMM15", *(uint64_t *)(area + 160 + 15 * 16), 3 * 0x123456789abcdefull);
    fill_registers(0x1111);
    fxsave_at(other);
    fxrstor_at(area);
    check_value("FXRSTOR", registers_are(0x123456789abcdef), 1);
    fxrstor_at(other);
    check_value("FXRSTOR of another", registers_are(0x1111), 1);
    fxrstor_at(area);
    if (processor_is_tcg()) {
        check_skip("FXRSTOR: reserved bits of MXCSR", "TCG takes them");
    } else {
        *(uint32_t *)(other + 24) = 0x80000000;
        r = trap_catch(fxrstor_at, other);
        check_trap("FXRSTOR: reserved bits of MXCSR", &r, 13, 0);
    }
    r = trap_catch(fxsave_at, area + 8);
    check_trap("FXSAVE: not aligned", &r, 13, 0);
    __asm__ volatile("fninit");
    uint16_t env[14];
    __asm__ volatile("fnstenv %0" : "=m"(env));
    check_value("FNINIT: control, status and tag word",
                (uint64_t)env[0] << 32 | (uint64_t)env[2] << 16 | env[4], 0x37f0000ffff);
}

/* ---- what lies between two looks at the registers ---- */

static volatile unsigned interrupts;

static void on_interrupt(struct trap_frame *frame)
{
    (void)frame;
    interrupts++;
    lapic_eoi();
}

static void test_kept(void)
{
    unsigned wrong = 0;
    uint32_t out[4];

    trap_set_handler(0x51, on_interrupt);
    lapic_enable();
    for (unsigned n = 1; n <= 50; n++) {
        fill_registers(n * 0x10101010101ull);
        cpuid(0, 0, out);
        inb(0x71);
        lapic_ipi(0, 0x40000 | 0x4000 | 0x51);
        __asm__ volatile("sti; nop; cli" : : : "memory");
        write_cr3(read_cr3());
        rdmsr(0xc0000080);
        wrong += !registers_are(n * 0x10101010101ull);
    }
    check_value("kept over C code, interrupts, TLB flushes", wrong, 0);
    check_value("kept: the interrupts came", interrupts, 50);
    /* Two tasks, switched lazily by #NM. */
    wrong = 0;
    fill_registers(1000);
    fxsave_at(area);
    fill_registers(2000);
    fxsave_at(other);
    for (unsigned n = 0; n < 50; n++) {
        uint8_t *mine = n & 1 ? other : area;

        write_cr0(read_cr0() | CR0_TS);
        struct trap_result r = trap_catch(call, f_sse);
        wrong += r.vector != 7;
        __asm__ volatile("clts");
        fxrstor_at(mine);
        wrong += !registers_are(n & 1 ? 2000 : 1000);
        fxrstor_at(mine);
        fxsave_at(mine);
    }
    check_value("kept by tasks that switch with #NM", wrong, 0);
}

/* ---- XSAVE and AVX ---- */

static uint64_t xgetbv(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}
static void xsetbv(void *v)
{
    __asm__ volatile("xsetbv"
                     :
                     : "a"((uint32_t)(uint64_t)v), "d"((uint32_t)((uint64_t)v >> 32)), "c"(0)
                     : "memory");
}
static void xrstor_at(void *at)
{
    __asm__ volatile("xrstor (%0)" : : "r"(at), "a"(7), "d"(0) : "memory");
}
static void xsave_at(void *at)
{
    __asm__ volatile("xsave (%0)" : : "r"(at), "a"(7), "d"(0) : "memory");
}
static void xsaveopt_at(void *at)
{
    __asm__ volatile("xsaveopt (%0)" : : "r"(at), "a"(7), "d"(0) : "memory");
}

static void fill_ymm(uint64_t seed)
{
    uint64_t v[4] = {seed, seed + 1, seed + 2, seed + 3};

    __asm__ volatile("vmovups %0, %%ymm0; vmovups %0, %%ymm9" : : "m"(v));
}
static bool ymm_is(uint64_t seed, bool upper)
{
    uint64_t got[2][4];
    bool ok = true;

    __asm__ volatile("vmovups %%ymm0, %0; vmovups %%ymm9, %1" : "=m"(got[0]), "=m"(got[1]));
    for (unsigned r = 0; r < 2; r++)
        for (unsigned n = 0; n < 4; n++)
            ok &= got[r][n] == (n < 2 || upper ? seed + n : 0);
    return ok;
}

static void test_avx(void)
{
    uint32_t out[4];
    struct trap_result r;

    xsetbv((void *)3);
    check("XCR0 without AVX: ", "AVX", f_avx, 6);
    check("XCR0 without AVX: ", "SSE", f_sse, -1);
    xsetbv((void *)7);
    check("XCR0 with AVX: ", "AVX", f_avx, -1);
    r = trap_catch(xsetbv, (void *)5);
    check_trap("XCR0: AVX without SSE", &r, 13, 0);
    fill_ymm(100);
    __builtin_memset(area, 0, sizeof(area));
    xsave_at(area);
    check_value("XSAVE: XSTATE_BV has SSE and AVX", *(uint64_t *)(area + 512) & 6, 6);
    check_value("XSAVE: XMM9", *(uint64_t *)(area + 160 + 9 * 16), 100);
    check_value("XSAVE: YMM9's upper half", *(uint64_t *)(area + 576 + 9 * 16), 102);
    fill_ymm(500);
    xrstor_at(area);
    check_value("XRSTOR", ymm_is(100, true), 1);
    *(uint64_t *)(area + 512) &= ~4ull;
    xrstor_at(area);
    check_value("XRSTOR: a component that is not in XSTATE_BV is cleared", ymm_is(100, false), 1);
    *(uint64_t *)(area + 512) = 0;
    xrstor_at(area);
    uint64_t low[2];
    __asm__ volatile("movups %%xmm0, %0" : "=m"(low));
    check_value("XRSTOR: nothing in XSTATE_BV", low[0] | low[1], 0);
    *(uint64_t *)(area + 512) = 1ull << 62;
    r = trap_catch(xrstor_at, area);
    check_trap("XRSTOR: a component that there is not", &r, 13, 0);
    *(uint64_t *)(area + 512) = 3;
    *(uint64_t *)(area + 528) = 1;
    if (processor_is_tcg()) {
        check_skip("XRSTOR: reserved bytes of the header", "TCG looks at half of them");
    } else {
        r = trap_catch(xrstor_at, area);
        check_trap("XRSTOR: reserved bytes of the header", &r, 13, 0);
    }
    r = trap_catch(xsave_at, area + 16);
    check_trap("XSAVE: not aligned", &r, 13, 0);
    __asm__ volatile("vzeroall");
    fill_ymm(700);
    __asm__ volatile("vzeroupper");
    check_value("VZEROUPPER", ymm_is(700, false), 1);
    fill_ymm(900);
    __asm__ volatile("movaps %xmm0, %xmm0; vmovaps %xmm9, %xmm9");
    uint64_t got[2][4];
    __asm__ volatile("vmovups %%ymm0, %0; vmovups %%ymm9, %1" : "=m"(got[0]), "=m"(got[1]));
    check_value("SSE keeps the upper half", got[0][2], 902);
    check_value("AVX of 128 bits clears it", got[1][2], 0);
    cpuid(0xd, 1, out);
    if (!(out[0] & 1)) {
        check_skip("XSAVEOPT", "this processor has none");
    } else {
        fill_ymm(40);
        __builtin_memset(area, 0, sizeof(area));
        xsaveopt_at(area);
        fill_ymm(50);
        xrstor_at(area);
        check_value("XSAVEOPT", ymm_is(40, true), 1);
    }
}

static void test_xsave(void)
{
    const uint64_t cr4 = read_cr4();
    uint32_t out[4];
    struct trap_result r;

    if (!processor_has(1, 2, 26)) {
        check_skip("X", "this processor has no XSAVE");
        check_skip("AVX", "nor AVX");
        check_skip("SSE keeps", "nor AVX");
        check_skip("VZEROUPPER", "nor AVX");
        check_skip("OSXSAVE", "this processor has no XSAVE");
        return;
    }
    check("OSXSAVE off: ", "XGETBV", f_xgetbv, 6);
    check("OSXSAVE off: ", "XSAVE", f_xsave, 6);
    check("OSXSAVE off: ", "AVX", f_avx, 6);
    check_value("OSXSAVE off: CPUID tells", processor_has(1, 2, 27), 0);
    write_cr4(cr4 | CR4_OSXSAVE);
    check_value("OSXSAVE on: CPUID tells", processor_has(1, 2, 27), 1);
    check_value("XCR0 at first", xgetbv(), 1);
    r = trap_catch(xsetbv, (void *)2);
    check_trap("XCR0: without x87", &r, 13, 0);
    r = trap_catch(xsetbv, (void *)(1ull << 62 | 7));
    check_trap("XCR0: a component that there is not", &r, 13, 0);
    xsetbv((void *)3);
    cpuid(0xd, 0, out);
    check_value("XCR0: CPUID tells the size for x87 and SSE", out[1], 576);
    write_cr0(read_cr0() | CR0_TS);
    if (processor_is_tcg())
        check_skip("TS: XSAVE", "TCG does not look");
    else
        check("TS: ", "XSAVE", f_xsave, 7);
    __asm__ volatile("clts");
    if (processor_has(1, 2, 28)) {
        test_avx();
        cpuid(0xd, 0, out);
        check_value("XCR0: CPUID tells the size with AVX", out[1], 832);
        write_cr0(read_cr0() | CR0_TS);
        check("TS: ", "AVX", f_avx, 7);
        __asm__ volatile("clts");
    } else {
        check_skip("XCR0 with", "this processor has no AVX");
    }
    write_cr4(cr4);
}

void guest_main(void)
{
    pic_disable();
    __asm__ volatile("fninit");
    call(f_ldmxcsr);
    test_enabled();
    test_exceptions();
    test_fxsave();
    test_kept();
    test_xsave();
}
