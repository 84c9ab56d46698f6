/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Paging as a kernel sees it: the rights of pages in every combination with the control bits, which level of
 * the tables restricts what, faults' error codes and CR2, reserved bits, large pages, accessed and dirty
 * bits, accesses over two pages (SDM vol. 3A chapter 4). What is cached of it is sys_tlb's.
 */
#include "common/guest.h"

#define VA_CODE   (PAGE_FREE_VIRTUAL + 0x1000)  /* user code that makes one access */
#define VA_STACK  (PAGE_FREE_VIRTUAL + 0x3000)  /* its stack's page */
#define VA_TARGET (PAGE_FREE_VIRTUAL + 0x10000) /* eight pages with all combinations of rights */
#define VA_LEVELS (2 * PAGE_FREE_VIRTUAL)       /* a page with all four tables to itself */
#define VA_LARGE  (3 * PAGE_FREE_VIRTUAL)
#define VA_HUGE   (VA_LARGE + (1ull << 30))
#define VA_PAIR   (VA_LARGE + (2ull << 30))

#define RAM_2M 0x4000000ull /* two large pages of RAM that page_alloc does not reach */

#define CR0_WP     (1u << 16)
#define CR4_UMIP   (1u << 11)
#define CR4_SMEP   (1u << 20)
#define CR4_SMAP   (1u << 21)
#define RFLAGS_AC  (1u << 18)
#define MSR_EFER   0xc0000080
#define EFER_NXE   (1u << 11)
#define ALL_RIGHTS (PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER)

/* #PF error code (SDM vol. 3A 4.7) */
#define PF_P    1u
#define PF_W    2u
#define PF_U    4u
#define PF_RSVD 8u
#define PF_I    16u
#define DONE    0xffu /* no fault */

/* TCG leaves P out. */
static unsigned pf_reserved = PF_P | PF_RSVD;

enum kind { READ, WRITE, FETCH };
static const char *const kind_names[] = {"read", "write", "fetch"};

struct table_pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

struct access {
    uint64_t va;
    enum kind kind;
    bool user, ac;
};

/* In a target page: where a kernel and a user jump to, and the data. */
#define AT_RET  0
#define AT_INT3 8
#define AT_DATA 16

/* Each at 16 times its kind: mov (%rdi),%al; int3 - movb $0x5a,(%rdi); int3 - jmp *%rdi. */
static const uint8_t user_code[] = {
    0x8a, 0x07, 0xcc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0xc6,
    0x07, 0x5a, 0xcc, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe7,
};

static void kernel_access(void *arg)
{
    const struct access *a = arg;

    __asm__ volatile("pushfq; orq %0, (%%rsp); popfq" : : "r"((uint64_t)(a->ac ? RFLAGS_AC : 0)) : "memory");
    if (a->kind == READ)
        __asm__ volatile("movb %0, %%al" : : "m"(*(const uint8_t *)a->va) : "al");
    else if (a->kind == WRITE)
        __asm__ volatile("movb $0x5a, %0" : "=m"(*(uint8_t *)a->va));
    else
        __asm__ volatile("call *%0" : : "r"(a->va) : "memory");
    __asm__ volatile("pushfq; andq %0, (%%rsp); popfq" : : "i"(~RFLAGS_AC) : "memory");
}

/* DONE, the error code of its page fault, or above 0xff what should never happen. */
static uint64_t outcome(struct access a, uint64_t expected_cr2)
{
    struct trap_result r;

    if (a.user) {
        const struct trap_start start = {VA_CODE + 16 * a.kind, SELECTOR_USER_CODE64,
                                         0x2 | (a.ac ? RFLAGS_AC : 0), VA_STACK + 4096, SELECTOR_USER_DATA};
        r = trap_catch_at(&start, a.va);
    } else {
        r = trap_catch(kernel_access, &a);
    }
    if (r.vector == (a.user ? 3 : -1))
        return DONE;
    if (r.vector != 14)
        return 0x1000u | (unsigned)r.vector;
    return r.cr2 == expected_cr2 && r.error < DONE ? r.error : 0x2000;
}

/* One access to a target page. */
static uint64_t touch(uint64_t page, enum kind kind, bool user)
{
    uint64_t va = page + (kind != FETCH ? AT_DATA : user ? AT_INT3 : AT_RET);

    return outcome((struct access){va, kind, user, false}, va);
}

static void *new_target(void)
{
    uint8_t *page = page_alloc();

    page[AT_RET] = 0xc3;
    page[AT_INT3] = 0xcc;
    return page;
}

static void set_up(void)
{
    uint8_t *code = page_alloc();

    for (unsigned i = 0; i < sizeof(user_code); i++)
        code[i] = user_code[i];
    page_map(VA_CODE, (uint64_t)code, PAGE_PRESENT | PAGE_USER);
    page_map(VA_STACK, (uint64_t)page_alloc(), ALL_RIGHTS);
    trap_set_gate(3, 0, 3);
    pic_disable();
}

/* --- rights ------------------------------------------------------------------------------------------- */

struct setting {
    bool wp, smep, smap, ac;
};

static bool allowed(const struct setting *s, uint64_t entry, enum kind kind, bool user)
{
    if (kind == FETCH && (entry & PAGE_NX))
        return false;
    if (user)
        return (entry & PAGE_USER) && (kind != WRITE || (entry & PAGE_WRITABLE));
    if ((entry & PAGE_USER) && kind == FETCH && s->smep)
        return false;
    if ((entry & PAGE_USER) && kind != FETCH && s->smap && !s->ac)
        return false;
    return kind != WRITE || (entry & PAGE_WRITABLE) || !s->wp;
}

static uint64_t rights_of(unsigned n)
{
    return PAGE_PRESENT | (n & 1 ? PAGE_WRITABLE : 0) | (n & 2 ? PAGE_USER : 0) | (n & 4 ? PAGE_NX : 0);
}

/* All eight pages by one kind of access: a byte of the values compared for each. */
static void check_pages(const struct setting *s, enum kind kind, bool user)
{
    const unsigned codes[] = {0, PF_W, PF_I};
    uint64_t got = 0, want = 0;

    for (unsigned n = 0; n < 8; n++) {
        uint64_t va = VA_TARGET + n * 4096 + (kind != FETCH ? AT_DATA : user ? AT_INT3 : AT_RET);
        uint64_t is = outcome((struct access){va, kind, user, s->ac}, va);
        unsigned error = PF_P | codes[kind] | (user ? PF_U : 0);

        got |= (is > DONE ? 0xeeu : is) << 8 * n;
        want |= (uint64_t)(allowed(s, rights_of(n), kind, user) ? DONE : error) << 8 * n;
    }
    check_value(check_name("rights: ", user ? "user " : "kernel ", kind_names[kind], s->wp ? ", WP" : "",
                           s->smep ? ", SMEP" : "", s->smap ? ", SMAP" : "", s->ac ? ", AC" : "", NULL),
                got, want);
}

static void test_rights(void)
{
    uint64_t cr0 = read_cr0(), cr4 = read_cr4();
    bool have_smep = processor_has(7, 1, 7), have_smap = processor_has(7, 1, 20);

    for (unsigned n = 0; n < 8; n++)
        page_map(VA_TARGET + n * 4096, (uint64_t)new_target(), rights_of(n));
    for (unsigned n = 0; n < 16; n++) {
        const struct setting s = {n & 1, n & 2, n & 4, n & 8};

        if ((s.smep && !have_smep) || (s.smap && !have_smap)) {
            check_skip("rights", "no SMEP or no SMAP");
            continue;
        }
        write_cr0((cr0 & ~(uint64_t)CR0_WP) | (s.wp ? CR0_WP : 0));
        write_cr4(cr4 | (s.smep ? CR4_SMEP : 0) | (s.smap ? CR4_SMAP : 0));
        for (unsigned kind = READ; kind <= FETCH; kind++) {
            check_pages(&s, (enum kind)kind, false);
            check_pages(&s, (enum kind)kind, true);
        }
    }
    write_cr0(cr0);
    write_cr4(cr4);
}

/* --- the four levels ---------------------------------------------------------------------------------- */

static const char *const level_names[] = {"", "PTE", "PDE", "PDPTE", "PML4E"};

/* Changes one entry on the way to `va` for one access. */
static uint64_t touch_with(uint64_t va, unsigned level, uint64_t clear, uint64_t set, enum kind kind,
                           bool user)
{
    uint64_t *entry = page_entry(va, level), old = *entry, result;

    *entry = (old & ~clear) | set;
    invlpg((void *)va);
    result = touch(va, kind, user);
    *entry = old;
    invlpg((void *)va);
    return result;
}

static void test_levels(void)
{
    page_map(VA_LEVELS, (uint64_t)new_target(), ALL_RIGHTS);
    check_value("levels: user write with all rights", touch(VA_LEVELS, WRITE, true), DONE);
    for (unsigned level = 1; level <= 4; level++) {
        const char *name = level_names[level];

        check_value(check_name("levels: read-only ", name, NULL),
                    touch_with(VA_LEVELS, level, PAGE_WRITABLE, 0, WRITE, true), PF_P | PF_W | PF_U);
        check_value(check_name("levels: supervisor ", name, NULL),
                    touch_with(VA_LEVELS, level, PAGE_USER, 0, READ, true), PF_P | PF_U);
        check_value(check_name("levels: no-execute ", name, NULL),
                    touch_with(VA_LEVELS, level, 0, PAGE_NX, FETCH, true), PF_P | PF_U | PF_I);
        check_value(check_name("levels: no-execute ", name, " still readable", NULL),
                    touch_with(VA_LEVELS, level, 0, PAGE_NX, READ, true), DONE);
        check_value(check_name("levels: absent ", name, ", kernel read", NULL),
                    touch_with(VA_LEVELS, level, PAGE_PRESENT, 0, READ, false), 0);
        check_value(check_name("levels: absent ", name, ", user write", NULL),
                    touch_with(VA_LEVELS, level, PAGE_PRESENT, 0, WRITE, true), PF_W | PF_U);
        check_value(check_name("levels: absent ", name, ", kernel fetch", NULL),
                    touch_with(VA_LEVELS, level, PAGE_PRESENT, 0, FETCH, false), PF_I);
    }
    check_value("levels: back to all rights", touch(VA_LEVELS, WRITE, true), DONE);
}

static void test_reserved(void)
{
    uint32_t sizes[4];
    uint64_t efer = rdmsr(MSR_EFER);

    if (processor_is_tcg()) {
        check_skip("reserved: P in the error code", "TCG leaves it clear");
        pf_reserved = PF_RSVD;
    } else {
        check_value("reserved: P in the error code",
                    touch_with(VA_LEVELS, 4, 0, PAGE_LARGE, READ, true) & PF_P, PF_P);
    }
    cpuid(0x80000008, 0, sizes);
    for (unsigned level = 1; level <= 4; level++) {
        const char *name = check_name("reserved: bit 51 of ", level_names[level], NULL);

        if ((sizes[0] & 0xff) > 51) {
            check_skip(name, "the processor has 52 physical address bits");
            continue;
        }
        check_value(name, touch_with(VA_LEVELS, level, 0, 1ull << 51, READ, false), pf_reserved);
        check_value(check_name("reserved: first bit above the physical ones of ", level_names[level], NULL),
                    touch_with(VA_LEVELS, level, 0, 1ull << (sizes[0] & 0xff), WRITE, true),
                    pf_reserved | PF_W | PF_U);
    }
    check_value("reserved: PS in a PML4E", touch_with(VA_LEVELS, 4, 0, PAGE_LARGE, READ, true),
                pf_reserved | PF_U);
    check_value("reserved: not looked at while absent",
                touch_with(VA_LEVELS, 1, PAGE_PRESENT, 1ull << 51, READ, true), PF_U);
    check_value("reserved: a read-only level above adds nothing",
                touch_with(VA_LEVELS, 1, PAGE_WRITABLE, 1ull << 51, WRITE, true), pf_reserved | PF_W | PF_U);
    wrmsr(MSR_EFER, efer & ~(uint64_t)EFER_NXE);
    for (unsigned level = 1; level <= 4; level++)
        check_value(check_name("reserved: NX without EFER.NXE in ", level_names[level], NULL),
                    touch_with(VA_LEVELS, level, 0, PAGE_NX, READ, false), pf_reserved);
    check_value("without NXE and SMEP, a fetch is not told from a read",
                touch_with(VA_LEVELS, 1, PAGE_USER, 0, FETCH, true), PF_P | PF_U);
    wrmsr(MSR_EFER, efer);
}

/* --- large pages -------------------------------------------------------------------------------------- */

static void test_large(void)
{
    volatile uint32_t *ram = (volatile uint32_t *)RAM_2M, *alias = (volatile uint32_t *)VA_LARGE;
    uint64_t *pde = page_entry(VA_LARGE, 2);

    ram[0] = 0;
    *pde = RAM_2M | PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER | PAGE_LARGE;
    ram[0x1fffff / 4] = 0x11223344;
    check_value("2 MiB page: its last word", alias[0x1fffff / 4], 0x11223344);
    check_value("2 MiB page: a read marks it accessed", *pde & (PAGE_ACCESSED | PAGE_DIRTY), PAGE_ACCESSED);
    alias[0x12345] = 0x55667788;
    check_value("2 MiB page: a word in the middle", ram[0x12345], 0x55667788);
    check_value("2 MiB page: a write makes it dirty", *pde & (PAGE_ACCESSED | PAGE_DIRTY),
                PAGE_ACCESSED | PAGE_DIRTY);
    check_value("2 MiB page: read-only", touch_with(VA_LARGE + 0x7000, 2, PAGE_WRITABLE, 0, WRITE, true),
                PF_P | PF_W | PF_U);
    check_value("2 MiB page: reserved bit 13", touch_with(VA_LARGE, 2, 0, 1 << 13, READ, true),
                pf_reserved | PF_U);
    check_value("2 MiB page: reserved bit 20", touch_with(VA_LARGE, 2, 0, 1 << 20, READ, true),
                pf_reserved | PF_U);
    check_value("2 MiB page: bit 12 is PAT, not address", touch_with(VA_LARGE, 2, 0, 1 << 12, READ, true),
                DONE);

    /* Split into small ones, the second of which is missing. */
    uint64_t *table = page_alloc();

    for (unsigned i = 0; i < 512; i++)
        table[i] = (RAM_2M + i * 4096) | ALL_RIGHTS;
    table[1] = 0;
    *pde = (uint64_t)table | ALL_RIGHTS;
    invlpg((void *)VA_LARGE);
    invlpg((void *)(VA_LARGE + 4096));
    check_value("2 MiB page split: the first small page", touch(VA_LARGE, READ, true), DONE);
    check_value("2 MiB page split: the missing one", touch(VA_LARGE + 4096, READ, true), PF_U);
    *pde = 0;
    invlpg((void *)VA_LARGE);

    if (!processor_has(0x80000001, 3, 26)) {
        check_skip("1 GiB page", "not in CPUID");
        return;
    }
    uint64_t *pdpte = page_entry(VA_HUGE, 3);

    alias = (volatile uint32_t *)VA_HUGE;
    *pdpte = PAGE_PRESENT | PAGE_WRITABLE | PAGE_USER | PAGE_LARGE;
    ram[7] = 0x99aabbcc;
    check_value("1 GiB page: a read", alias[RAM_2M / 4 + 7], 0x99aabbcc);
    check_value("1 GiB page: accessed", *pdpte & (PAGE_ACCESSED | PAGE_DIRTY), PAGE_ACCESSED);
    alias[RAM_2M / 4 + 0x40001] = 0xddeeff00;
    check_value("1 GiB page: a write", ram[0x40001], 0xddeeff00);
    check_value("1 GiB page: dirty", *pdpte & PAGE_DIRTY, PAGE_DIRTY);
    check_value("1 GiB page: reserved bit 29", touch_with(VA_HUGE, 3, 0, 1 << 29, READ, true),
                pf_reserved | PF_U);
    *pdpte = 0;
    invlpg((void *)(VA_HUGE + RAM_2M));
}

/* --- accessed and dirty ------------------------------------------------------------------------------- */

#define MARKS (PAGE_ACCESSED | PAGE_DIRTY)

/* Clears all marks on the way to VA_LEVELS, makes an access, and gives two bits a level: PTE lowest. */
static uint64_t marks_after(uint64_t rights, enum kind kind, bool user)
{
    uint64_t *pte = page_entry(VA_LEVELS, 1), marks = 0;

    for (unsigned level = 1; level <= 4; level++)
        *page_entry(VA_LEVELS, level) &= ~MARKS;
    *pte = (*pte & PAGE_FRAME) | rights;
    invlpg((void *)VA_LEVELS);
    touch(VA_LEVELS, kind, user);
    for (unsigned level = 1; level <= 4; level++)
        marks |= (*page_entry(VA_LEVELS, level) & MARKS) >> 5 << (2 * (level - 1));
    *pte = (*pte & PAGE_FRAME) | ALL_RIGHTS;
    invlpg((void *)VA_LEVELS);
    return marks;
}

static void test_marks(void)
{
    uint64_t cr0 = read_cr0();

    check_value("marks: a read", marks_after(ALL_RIGHTS, READ, true), 0x55);
    check_value("marks: a write", marks_after(ALL_RIGHTS, WRITE, true), 0x57);
    check_value("marks: a fetch", marks_after(ALL_RIGHTS, FETCH, true), 0x55);
    check_value("marks: a refused write is no write", marks_after(PAGE_PRESENT | PAGE_USER, WRITE, true) & 2,
                0);
    check_value("marks: an absent page keeps its entry", marks_after(PAGE_USER, WRITE, true) & 3, 0);
    write_cr0(cr0 & ~(uint64_t)CR0_WP);
    check_value("marks: a write to a read-only page without WP",
                marks_after(PAGE_PRESENT | PAGE_USER, WRITE, false), 0x57);
    write_cr0(cr0);
    /* A translation that a read has put into the TLB must not hide the first write. */
    page_map(VA_LEVELS, *page_entry(VA_LEVELS, 1), ALL_RIGHTS);
    touch(VA_LEVELS, READ, true);
    check_value("marks: read, not yet dirty", *page_entry(VA_LEVELS, 1) & MARKS, PAGE_ACCESSED);
    touch(VA_LEVELS, WRITE, true);
    check_value("marks: written after a read", *page_entry(VA_LEVELS, 1) & MARKS, MARKS);
}

/* --- two pages ---------------------------------------------------------------------------------------- */

static void read8(void *at)
{
    __asm__ volatile("movq %0, %%rax" : : "m"(*(uint64_t *)at) : "rax");
}
static void write8(void *at)
{
    __asm__ volatile("movq %1, %0" : "=m"(*(uint64_t *)at) : "r"(0x8877665544332211) : "memory");
}
static void add8(void *at)
{
    __asm__ volatile("addq %1, %0" : "+m"(*(uint64_t *)at) : "r"(0x0101010101010101) : "cc");
}
static void locked_add8(void *at)
{
    __asm__ volatile("lock xaddq %1, %0" : "+m"(*(uint64_t *)at) : "r"(0x0101010101010101) : "cc");
}
static void push8(void *at)
{
    __asm__ volatile("movq %%rsp, %%rbx; leaq 8(%0), %%rsp; pushq $-1; movq %%rbx, %%rsp"
                     :
                     : "r"(at)
                     : "rbx", "memory");
}
static void call_it(void *at)
{
    __asm__ volatile("call *%0" : : "r"(at) : "rax", "memory");
}

static void check_straddle(const char *name, void (*fn)(void *), uint64_t second, uint64_t error)
{
    uint64_t *first_page = (uint64_t *)(*page_entry(VA_PAIR, 1) & PAGE_FRAME);
    uint64_t before = first_page[511];
    struct trap_result r;

    *page_entry(VA_PAIR + 4096, 1) = second;
    invlpg((void *)(VA_PAIR + 4096));
    trap_set_gate(14, 1, 0); /* off the stack that `push` is tried on */
    r = trap_catch(fn, (void *)(VA_PAIR + 4096 - 3));
    trap_set_gate(14, 0, 0);
    check_trap(check_name("two pages: ", name, NULL), &r, 14, error);
    check_value(check_name("two pages: ", name, ", CR2 is the second page", NULL), r.cr2, VA_PAIR + 4096);
    check_value(check_name("two pages: ", name, ", nothing is written", NULL), first_page[511], before);
}

static void test_straddling(void)
{
    /* Frames in falling order, so that they are neighbours in one space only. */
    uint64_t *low = page_alloc(), *high = page_alloc();
    uint64_t present = (uint64_t)low | PAGE_PRESENT | PAGE_WRITABLE;
    uint8_t *code = (uint8_t *)high + 4096 - 3;
    struct trap_result r;

    page_map(VA_PAIR, (uint64_t)high, PAGE_PRESENT | PAGE_WRITABLE);
    check_straddle("read", read8, 0, 0);
    check_straddle("write", write8, 0, PF_W);
    check_straddle("write to read-only", write8, (uint64_t)low | PAGE_PRESENT, PF_P | PF_W);
    check_straddle("read-modify-write", add8, (uint64_t)low | PAGE_PRESENT, PF_P | PF_W);
    check_straddle("locked", locked_add8, (uint64_t)low | PAGE_PRESENT, PF_P | PF_W);
    check_straddle("push", push8, 0, PF_W);

    page_map(VA_PAIR + 4096, present, PAGE_PRESENT | PAGE_WRITABLE);
    write8((void *)(VA_PAIR + 4096 - 3));
    check_value("two pages: the first one's part", high[511] >> 40, 0x332211);
    check_value("two pages: the second one's part", low[0], 0x8877665544);
    locked_add8((void *)(VA_PAIR + 4096 - 3));
    check_value("two pages: locked, the first one's part", high[511] >> 40, 0x342312);
    check_value("two pages: locked, the second one's part", low[0], 0x8978675645 & 0xffffffffff);

    /* movabs $imm64, %rax; ret: ten bytes, three of them on the first page. */
    code[0] = 0x48;
    code[1] = 0xb8;
    code[2] = 1;
    *(uint64_t *)low = 0xc3ull << 56;
    r = trap_catch(call_it, (void *)(VA_PAIR + 4096 - 3));
    check_trap("two pages: an instruction", &r, -1, 0);
    check_straddle("an instruction", call_it, 0, PF_I);
    check_straddle("an instruction, second no-execute", call_it, present | PAGE_NX, PF_P | PF_I);
    *page_entry(VA_PAIR + 4096, 1) = 0;
    invlpg((void *)(VA_PAIR + 4096));
    r = trap_catch(call_it, (void *)(VA_PAIR + 4096 - 3));
    check_value("two pages: RIP stays at the instruction", r.rip, VA_PAIR + 4096 - 3);
}

/* --- UMIP, SMAP's instructions, implicit accesses ----------------------------------------------------- */

static struct trap_result run_user(const uint8_t *bytes, unsigned n, uint64_t rflags)
{
    uint8_t *code = (uint8_t *)(*page_entry(VA_CODE, 1) & PAGE_FRAME) + 0x100;
    struct trap_start start = {VA_CODE + 0x100, SELECTOR_USER_CODE64, rflags, VA_STACK + 2048,
                               SELECTOR_USER_DATA};

    for (unsigned i = 0; i < n; i++)
        code[i] = bytes[i];
    code[n] = 0xcc;
    return trap_catch_at(&start, VA_STACK);
}

static void test_umip(void)
{
    static const struct {
        const char *name;
        uint8_t bytes[4];
        unsigned n;
    } rows[] = {
        {"SGDT", {0x0f, 0x01, 0x07}, 3}, {"SIDT", {0x0f, 0x01, 0x0f}, 3}, {"SLDT", {0x0f, 0x00, 0xc0}, 3},
        {"STR", {0x0f, 0x00, 0xc8}, 3},  {"SMSW", {0x0f, 0x01, 0xe0}, 3},
    };
    uint64_t cr4 = read_cr4();

    if (!processor_has(7, 2, 2)) {
        check_skip("UMIP", "not in CPUID");
        return;
    }
    for (unsigned on = 0; on < 2; on++) {
        write_cr4(cr4 | (on ? CR4_UMIP : 0));
        for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            struct trap_result r = run_user(rows[i].bytes, rows[i].n, 0x2);
            check_trap(check_name("UMIP ", on ? "on: " : "off: ", rows[i].name, " in ring 3", NULL), &r,
                       on ? 13 : 3, 0);
        }
        struct table_pointer idt = {0, 0};

        __asm__ volatile("sidt %0" : "=m"(idt));
        check_value(check_name("UMIP ", on ? "on" : "off", ": SIDT in ring 0", NULL), idt.limit, 4095);
    }
    write_cr4(cr4);
}

/* A copy of the GDT with room for one more descriptor of 16 bytes, behind the CPUs' task state segments. */
#define SELECTOR_LDT  SELECTOR_TSS(GUEST_MAX_CPUS)
#define SELECTOR_OURS 0x0c /* the second descriptor of the LDT */

static void use_ldt(uint64_t base)
{
    struct table_pointer gdt;
    uint64_t *copy = page_alloc();

    __asm__ volatile("sgdt %0" : "=m"(gdt));
    for (unsigned i = 0; i <= gdt.limit / 8u; i++)
        copy[i] = ((const uint64_t *)gdt.base)[i];
    copy[SELECTOR_LDT / 8] = 15 | (base & 0xffffff) << 16 | 0x82ull << 40 | (base >> 24 & 0xff) << 56;
    copy[SELECTOR_LDT / 8 + 1] = base >> 32;
    gdt.base = (uint64_t)copy;
    gdt.limit = SELECTOR_LDT + 15;
    __asm__ volatile("lgdt %0; lldt %w1" : : "m"(gdt), "r"(SELECTOR_LDT));
}

static void load_fs(void *ac)
{
    __asm__ volatile("pushfq; orq %0, (%%rsp); popfq; movl %1, %%fs; pushfq; andq %2, (%%rsp); popfq"
                     :
                     : "r"(ac), "r"(SELECTOR_OURS), "i"(~RFLAGS_AC)
                     : "memory");
}

/* The processor's own reads of descriptor tables are not let through by AC (SDM vol. 3A 4.6.1). */
static void test_implicit(void)
{
    uint64_t *table = page_alloc(), cr4 = read_cr4();
    struct trap_result r;

    table[1] = 0x00cf93000000ffff;
    page_map(VA_PAIR, (uint64_t)table, ALL_RIGHTS);
    use_ldt(VA_PAIR);
    r = trap_catch(load_fs, (void *)0);
    check_trap("SMAP off: a descriptor on a user page", &r, -1, 0);
    write_cr4(cr4 | CR4_SMAP);
    r = trap_catch(load_fs, (void *)0);
    check_trap("SMAP on: a descriptor on a user page", &r, 14, PF_P);
    check_value("SMAP on: CR2 is the descriptor's address", r.cr2, VA_PAIR + 8);
    if (processor_is_tcg()) {
        check_skip("SMAP on, AC: a descriptor on a user page", "TCG lets AC open implicit accesses too");
    } else {
        r = trap_catch(load_fs, (void *)(uint64_t)RFLAGS_AC);
        check_trap("SMAP on, AC: a descriptor on a user page", &r, 14, PF_P);
    }
    write_cr4(cr4);
}

static void test_smap_details(void)
{
    static const uint8_t stac[] = {0x0f, 0x01, 0xcb}, clac[] = {0x0f, 0x01, 0xca};
    uint64_t before, set, clear;
    struct trap_result r;

    if (!processor_has(7, 1, 20)) {
        check_skip("SMAP", "not in CPUID");
        return;
    }
    before = read_rflags();
    __asm__ volatile("stac" : : : "memory");
    set = read_rflags();
    __asm__ volatile("clac" : : : "memory");
    clear = read_rflags();
    check_value("STAC and CLAC", (before | set << 1 | clear) & 3 * RFLAGS_AC, 2 * RFLAGS_AC);
    r = run_user(stac, 3, 0x2);
    check_trap("STAC in ring 3", &r, 6, 0);
    r = run_user(clac, 3, 0x2);
    check_trap("CLAC in ring 3", &r, 6, 0);
    test_implicit();
}

void guest_main(void)
{
    set_up();
    test_rights();
    test_levels();
    test_reserved();
    test_large();
    test_marks();
    test_straddling();
    test_umip();
    test_smap_details();
}
