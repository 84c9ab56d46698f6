/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Code that changes: by itself, right behind the store and further away, over page boundaries, through
 * another mapping, by instructions of every kind, by a new mapping, and by another processor (SDM vol.
 * 3A 8.1.3 and 11.6).
 */
#include "common/guest.h"

#define VA_ONE   (PAGE_FREE_VIRTUAL + 0x10000) /* two pages of code */
#define VA_ALIAS (PAGE_FREE_VIRTUAL + 0x20000) /* the same pages */
#define VA_REMAP (PAGE_FREE_VIRTUAL + 0x30000)

typedef uint64_t (*function)(uint64_t arg);

static uint8_t *pages[2];

static void put(uint64_t at, const uint8_t *code, unsigned n)
{
    for (unsigned k = 0; k < n; k++)
        ((volatile uint8_t *)at)[k] = code[k];
}

/* mov eax, n; ret */
static void put_function(uint64_t at, uint32_t n)
{
    const uint8_t code[] = {0xb8, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)(n >> 16), (uint8_t)(n >> 24),
                            0xc3};

    put(at, code, sizeof(code));
}

static uint64_t call(uint64_t at)
{
    return ((function)at)(0);
}

/* ---- stores right ahead of what they change ---- */

__asm__(".text\n"
        "own_template:\n"
        "  movb $2, 1f + 1(%rip)\n"
        "1: movl $1, %eax\n" /* becomes 2 */
        "  ret\n"
        "own_loop:\n" /* counts by adding an immediate that it increments */
        "  xorl %eax, %eax\n"
        "  movl $10, %ecx\n"
        "2: addl $1, %eax\n"
        "  incb 2b + 2(%rip)\n"
        "  decl %ecx\n"
        "  jnz 2b\n"
        "  ret\n"
        "own_branch:\n" /* a jump forward becomes none */
        "  movw $0x9090, 3f(%rip)\n"
        "  xorl %eax, %eax\n"
        "3: jmp 4f\n"
        "  incl %eax\n"
        "4: ret\n"
        "own_template_end:\n");
#define PLACE(name) extern uint8_t name[]
PLACE(own_template);
PLACE(own_loop);
PLACE(own_branch);
PLACE(own_template_end);

static void test_own(void)
{
    put(VA_ONE, own_template, (unsigned)(own_template_end - own_template));
    check_value("its next instruction", call(VA_ONE), 2);
    check_value("its next instruction, again", call(VA_ONE), 2);
    check_value("an immediate in a loop", call(VA_ONE + (uint64_t)(own_loop - own_template)),
                1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9 + 10);
    check_value("a jump that goes away", call(VA_ONE + (uint64_t)(own_branch - own_template)), 1);
}

/* ---- stores of every kind ---- */

#define STORE(name, code)                                                                                    \
    static void name(uint64_t at, uint64_t v)                                                                \
    {                                                                                                        \
        __asm__ volatile(code : "+D"(at) : "S"(v), "m"(v) : "rax", "rbx", "rcx", "rdx", "memory", "cc");     \
    }
/* RDI: where the immediate is, of four bytes; RSI and %2: its new value. */
STORE(by_mov, "movl %%esi, (%%rdi)")
STORE(by_byte, "movl %%esi, %%eax; movb %%al, (%%rdi)")
STORE(by_xchg, "xchgl %%esi, (%%rdi)")
STORE(by_add, "movl (%%rdi), %%eax; negl %%eax; addl %%esi, %%eax; addl %%eax, (%%rdi)")
STORE(by_locked, "movl (%%rdi), %%eax; negl %%eax; addl %%esi, %%eax; lock xaddl %%eax, (%%rdi)")
STORE(by_cmpxchg, "movl (%%rdi), %%eax; lock cmpxchgl %%esi, (%%rdi)")
STORE(by_stos, "movl %%esi, %%eax; stosl")
STORE(by_rep_movs, "leaq %2, %%rsi; movl $4, %%ecx; rep movsb")
STORE(by_push,
      "movq %%rsp, %%rax; leaq 4(%%rdi), %%rsp; movl %%esi, %%ecx; shrl $16, %%ecx; pushw %%cx; pushw %%si\n"
      "movq %%rax, %%rsp")
STORE(by_movnti, "movnti %%esi, (%%rdi); sfence")
STORE(by_sse, "movd %%esi, %%xmm0; movss %%xmm0, (%%rdi)")
STORE(by_x87, "fildl %2; fistpl (%%rdi)")
STORE(by_bts, "movl $0, (%%rdi); movl %%esi, %%eax; 1: bsfl %%eax, %%ecx; jz 2f; btrl %%ecx, %%eax; btsl "
              "%%ecx, (%%rdi)\n"
              "jmp 1b; 2:")
STORE(by_cmpxchg8b, "movl (%%rdi), %%eax; movl 4(%%rdi), %%edx; movl %%esi, %%ebx; movl %%edx, %%ecx\n"
                    "lock cmpxchg8b (%%rdi)")
STORE(by_stmxcsr, "subq $8, %%rsp; movl $0x1f80, (%%rsp); ldmxcsr (%%rsp); stmxcsr (%%rdi); addq $8, %%rsp; "
                  "movl %%esi, (%%rdi)")

static void test_stores(void)
{
    static const struct {
        const char *name;
        void (*fn)(uint64_t at, uint64_t v);
    } rows[] = {{"MOV", by_mov},
                {"MOV of a byte", by_byte},
                {"XCHG", by_xchg},
                {"ADD", by_add},
                {"LOCK XADD", by_locked},
                {"LOCK CMPXCHG", by_cmpxchg},
                {"STOS", by_stos},
                {"REP MOVS", by_rep_movs},
                {"PUSH", by_push},
                {"MOVNTI", by_movnti},
                {"MOVSS", by_sse},
                {"FISTP", by_x87},
                {"BTS", by_bts},
                {"LOCK CMPXCHG8B", by_cmpxchg8b},
                {"STMXCSR and MOV", by_stmxcsr}};

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned wrong = 0;

        put_function(VA_ONE + 0x200, 0);
        for (unsigned n = 1; n <= 20; n++) {
            rows[i].fn(VA_ONE + 0x201, n);
            wrong += call(VA_ONE + 0x200) != n;
        }
        check_value(check_name("changed by ", rows[i].name, NULL), wrong, 0);
    }
}

/* ---- pages ---- */

static void test_pages(void)
{
    const uint64_t across = VA_ONE + 4096 - 3; /* an instruction whose immediate is in the second page */
    unsigned wrong = 0;

    for (unsigned n = 1; n <= 20; n++) {
        put_function(across, n << 24 | n);
        wrong += call(across) != (n << 24 | n);
        ((volatile uint8_t *)VA_ONE)[4096 + 1] = (uint8_t)(n + 1); /* its upper byte */
        wrong += call(across) != ((n + 1) << 24 | n);
    }
    check_value("over two pages", wrong, 0);
    wrong = 0;
    put_function(VA_ONE + 0x300, 1);
    for (unsigned n = 2; n <= 20; n++) {
        *(volatile uint8_t *)(VA_ALIAS + 0x301) = (uint8_t)n;
        wrong += call(VA_ONE + 0x300) != n;
        wrong += call(VA_ALIAS + 0x300) != n;
    }
    check_value("through another mapping", wrong, 0);
    wrong = 0;
    for (unsigned n = 2; n <= 20; n++) {
        pages[0][0x301] = (uint8_t)(n + 100); /* and a large page */
        wrong += call(VA_ONE + 0x300) != n + 100;
    }
    check_value("through a large page", wrong, 0);
    /* Data in the same page, written over and over, leaves the code alone. */
    wrong = 0;
    for (unsigned n = 0; n < 1000; n++) {
        *(volatile uint32_t *)(VA_ONE + 0x800) = n;
        wrong += call(VA_ONE + 0x300) != 120;
    }
    check_value("data beside code", wrong, 0);

    uint8_t *other[2] = {page_alloc(), page_alloc()};
    put_function((uint64_t)other[0], 1);
    put_function((uint64_t)other[1], 2);
    wrong = 0;
    for (unsigned n = 0; n < 20; n++) {
        page_map(VA_REMAP, (uint64_t)other[n & 1], PAGE_PRESENT);
        wrong += call(VA_REMAP) != 1 + (n & 1);
    }
    check_value("another page at the same address", wrong, 0);
    wrong = 0;
    for (unsigned n = 0; n < 20; n++) {
        *page_entry(VA_REMAP, 1) = (uint64_t)other[n & 1] | PAGE_PRESENT;
        write_cr3(read_cr3());
        wrong += call(VA_REMAP) != 1 + (n & 1);
    }
    check_value("another page, by CR3", wrong, 0);
    put_function((uint64_t)other[1] + 16, 3);
    page_map(VA_REMAP, (uint64_t)other[1], PAGE_PRESENT | PAGE_NX);
    struct trap_result r = trap_catch((void (*)(void *))(VA_REMAP + 16), NULL);
    check_trap("code that becomes data", &r, 14, 0x11);
}

/* ---- by another processor (SDM vol. 3A 8.1.3) ---- */

static volatile uint32_t wanted, done, stop, loops;

static void executor(void *arg)
{
    uint32_t out[4], last = 0;

    (void)arg;
    while (!stop) {
        uint32_t n = __atomic_load_n(&wanted, __ATOMIC_ACQUIRE);

        if (n == last) {
            cpu_relax();
            continue;
        }
        cpuid(0, 0, out); /* serializes */
        last = n;
        __atomic_store_n(&done, (uint32_t)call(VA_ONE + 0x400), __ATOMIC_RELEASE);
    }
}

/* In a loop of the code itself, without serialization: the two bytes of its branch are changed in one store.
 */
static void runner(void *arg)
{
    (void)arg;
    loops = 1;
    call(VA_ONE + 0x500);
    loops = 2;
}

static void write_data(void *at)
{
    for (unsigned n = 0; n < 10; n++)
        ((volatile uint32_t *)at)[64] = n;
}
static void patch(void *at)
{
    *(volatile uint8_t *)((uint64_t)at + 1) = 99;
}

static void test_other_cpu(void)
{
    static const uint8_t spin[] = {0xeb, 0xfe, 0xc3}; /* a jump to itself, RET */
    unsigned wrong = 0;

    put_function(VA_ONE + 0x400, 0);
    smp_run(1, executor, NULL);
    for (uint32_t n = 1; n <= 200; n++) {
        *(volatile uint32_t *)(VA_ONE + 0x401) = n;
        __atomic_store_n(&wanted, n, __ATOMIC_RELEASE);
        while (__atomic_load_n(&done, __ATOMIC_ACQUIRE) == n - 1)
            cpu_relax();
        wrong += done != n;
    }
    stop = 1;
    smp_wait(1);
    check_value("by another processor", wrong, 0);
    wrong = 0;
    for (unsigned n = 0; n < 20 && !processor_is_tcg(); n++) {
        put(VA_ONE + 0x500, spin, sizeof(spin));
        loops = 0;
        smp_run(1, runner, NULL);
        while (!loops)
            cpu_relax();
        delay_us(200);
        wrong += loops != 1;
        *(volatile uint16_t *)(VA_ONE + 0x500) = 0x9090;
        smp_wait(1);
        wrong += loops != 2;
    }
    if (processor_is_tcg())
        check_skip("a loop that another processor ends", "TCG now and then never leaves it");
    else
        check_value("a loop that another processor ends", wrong, 0);
    /* The other one has written to the page when it was data; then it is code, and is written again. */
    wrong = 0;
    for (unsigned n = 1; n <= 20; n++) {
        uint64_t at = (uint64_t)page_alloc();

        smp_run(1, write_data, (void *)at);
        smp_wait(1);
        put_function(at, 0);
        wrong += call(at) != 0;
        smp_run(1, patch, (void *)at);
        smp_wait(1);
        wrong += call(at) != 99;
    }
    check_value("a page that becomes code", wrong, 0);
}

void guest_main(void)
{
    pic_disable();
    pages[0] = page_alloc();
    pages[1] = page_alloc();
    for (unsigned n = 0; n < 2; n++) {
        page_map(VA_ONE + 4096 * n, (uint64_t)pages[n], PAGE_PRESENT | PAGE_WRITABLE);
        page_map(VA_ALIAS + 4096 * n, (uint64_t)pages[n], PAGE_PRESENT | PAGE_WRITABLE);
    }
    test_own();
    test_stores();
    test_pages();
    if (check_value("two processors", smp_start(), 2))
        test_other_cpu();
}
