/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Several processors: their start, locked operations (split over cache lines and pages too), the order in
 * which others see stores, inter-processor interrupts of every kind, TLB shoot-downs (SDM vol. 3A chapters 8
 * and 11). Made for a host that lets processors wait: nothing is in lock-step, and waits are long.
 */
#include "common/guest.h"

#define VA_SPLIT (PAGE_FREE_VIRTUAL + 0x1000) /* two pages whose frames are apart */
#define VA_SHOT  (PAGE_FREE_VIRTUAL + 0x4000)

#define ROUNDS       4000u
#define ROUNDS_SPLIT 100u /* over two pages: a monitor may stop everything for each */
#define VECTOR       0x51u

#define ICR_LOGICAL   0x800u
#define ICR_ASSERT    0x4000u
#define ICR_LOWEST    0x100u
#define ICR_NMI       0x400u
#define ICR_ALL       0x80000u
#define ICR_OTHERS    0xc0000u
#define MSR_APIC_BASE 0x1b
#define APIC_BASE_X2  (1u << 10)

static unsigned cpus;

static void on_all(void (*fn)(void *), void *arg)
{
    for (unsigned n = 1; n < cpus; n++)
        smp_run(n, fn, arg);
    fn(arg);
    for (unsigned n = 1; n < cpus; n++)
        smp_wait(n);
}

/* ---- locked operations ---- */

/* All begin when the last has come: else the first is done before the second starts. */
static volatile unsigned arrived;
static unsigned rounds;

static void meet(unsigned n)
{
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&arrived, __ATOMIC_ACQUIRE) < n)
        cpu_relax();
}

#define LOCKED(name, code)                                                                                   \
    static void name(void *at)                                                                               \
    {                                                                                                        \
        meet(cpus);                                                                                          \
        for (unsigned n = rounds; n > 0; n--)                                                                \
            __asm__ volatile(code : : "r"(at) : "rax", "rbx", "rcx", "rdx", "memory", "cc");                 \
    }
LOCKED(lock_inc, "lock incq (%0)")
LOCKED(lock_inc4, "lock incl (%0)")
LOCKED(lock_inc2, "lock incw (%0)")
LOCKED(lock_xadd, "movl $1, %%eax; lock xaddq %%rax, (%0)")
LOCKED(lock_sub, "lock subq $-1, (%0)")
LOCKED(lock_adc, "clc; lock adcq $1, (%0)")
LOCKED(lock_cmpxchg, "1: movq (%0), %%rax; leaq 1(%%rax), %%rcx; lock cmpxchgq %%rcx, (%0); jnz 1b")
LOCKED(lock_cmpxchg8b, "1: movl (%0), %%eax; movl 4(%0), %%edx; movl %%eax, %%ebx; movl %%edx, %%ecx; addl "
                       "$1, %%ebx; adcl $0, %%ecx\n"
                       "lock cmpxchg8b (%0); jnz 1b")
LOCKED(lock_cmpxchg16b, "1: movq (%0), %%rax; movq 8(%0), %%rdx; leaq 1(%%rax), %%rbx; movq %%rdx, %%rcx\n"
                        "lock cmpxchg16b (%0); jnz 1b")
/* A spin lock by XCHG and one by BTS, with a plain increment inside. */
LOCKED(lock_xchg, "1: movl $1, %%eax; xchgl %%eax, 8(%0); testl %%eax, %%eax; jz 2f; pause; jmp 1b\n"
                  "2: incq (%0); movl $0, 8(%0)")
LOCKED(lock_bts, "1: lock btsl $5, 8(%0); jnc 2f; pause; jmp 1b; 2: incq (%0); lock btrl $5, 8(%0)")
LOCKED(lock_bts_reg, "movl $69, %%ecx; 1: lock btsl %%ecx, (%0); jnc 2f; pause; jmp 1b\n"
                     "2: incq (%0); movl $69, %%ecx; lock btrl %%ecx, (%0)")

static void check_locked(const char *name, void (*fn)(void *), void *at, uint64_t mask)
{
    uint64_t v;

    __builtin_memset(at, 0, 16);
    arrived = 0;
    on_all(fn, at);
    __builtin_memcpy(&v, at, 8);
    check_value(check_name("locked: ", name, NULL), v & mask, cpus * rounds & mask);
}

static void test_locked(void)
{
    static uint8_t line[256] __attribute__((aligned(128)));
    uint8_t *first = page_alloc(), *apart;

    page_alloc();
    apart = page_alloc();
    page_map(VA_SPLIT, (uint64_t)apart, PAGE_PRESENT | PAGE_WRITABLE);
    page_map(VA_SPLIT + 4096, (uint64_t)first, PAGE_PRESENT | PAGE_WRITABLE);
    rounds = ROUNDS;
    check_locked("INC", lock_inc, line, UINT64_MAX);
    check_locked("INC of two bytes", lock_inc2, line, 0xffff);
    check_locked("XADD", lock_xadd, line, UINT64_MAX);
    check_locked("SUB", lock_sub, line, UINT64_MAX);
    check_locked("ADC", lock_adc, line, UINT64_MAX);
    check_locked("CMPXCHG", lock_cmpxchg, line, UINT64_MAX);
    check_locked("CMPXCHG8B", lock_cmpxchg8b, line, UINT64_MAX);
    if (processor_has(1, 2, 13))
        check_locked("CMPXCHG16B", lock_cmpxchg16b, line, UINT64_MAX);
    else
        check_skip("locked: CMPXCHG16B", "this processor has none");
    check_locked("XCHG as a spin lock", lock_xchg, line, UINT64_MAX);
    check_locked("BTS as a spin lock", lock_bts, line, UINT64_MAX);
    check_locked("BTS by a register as a spin lock", lock_bts_reg, line, UINT64_MAX);
    check_locked("misaligned", lock_inc, line + 3, UINT64_MAX);
    check_locked("over two cache lines", lock_inc, line + 61, UINT64_MAX);
    rounds = ROUNDS_SPLIT;
    check_locked("over two pages that are apart", lock_inc, (void *)(VA_SPLIT + 4096 - 4), UINT64_MAX);
    check_locked("over two pages, one byte in the first", lock_inc4, (void *)(VA_SPLIT + 4096 - 1),
                 UINT32_MAX);
    check_locked("over two pages, XADD", lock_xadd, (void *)(VA_SPLIT + 4096 - 7), UINT64_MAX);
    check_locked("over two pages, CMPXCHG", lock_cmpxchg, (void *)(VA_SPLIT + 4096 - 3), UINT64_MAX);
    check_locked("over two pages, BTS by a register", lock_bts_reg, (void *)(VA_SPLIT + 4096 - 10),
                 UINT64_MAX);
}

/* ---- the order of loads and stores (SDM vol. 3A 8.2.3) ---- */

#define CELLS 4096
struct litmus {
    volatile uint32_t x[CELLS], y[CELLS], a[CELLS], b[CELLS];
};
static struct litmus litmus;

static void clear_litmus(void)
{
    __builtin_memset((void *)&litmus, 0, sizeof(litmus));
    arrived = 0;
}

/* Each pair of functions goes through all cells; where they meet is left to chance. */
static void message_writer(void *arg)
{
    (void)arg;
    meet(2);
    for (unsigned n = 0; n < CELLS; n++) {
        litmus.x[n] = 1;
        litmus.y[n] = 1;
    }
}
static void message_reader(void *arg)
{
    (void)arg;
    meet(2);
    for (unsigned n = 0; n < CELLS; n++) {
        litmus.a[n] = litmus.y[n];
        litmus.b[n] = litmus.x[n];
    }
}
static void fence_one(void *arg)
{
    (void)arg;
    meet(2);
    for (unsigned n = 0; n < CELLS; n++) {
        litmus.x[n] = 1;
        __asm__ volatile("mfence" : : : "memory");
        litmus.a[n] = litmus.y[n];
    }
}
static void fence_two(void *arg)
{
    uint32_t other = 0;

    (void)arg;
    meet(2);
    for (unsigned n = 0; n < CELLS; n++) {
        litmus.y[n] = 1;
        __asm__ volatile("xchgl %0, %1" : "+r"(other), "+m"(litmus.b[n]) : : "memory"); /* a fence as well */
        litmus.b[n] = litmus.x[n];
    }
}
static void load_one(void *arg)
{
    (void)arg;
    meet(2);
    for (unsigned n = 0; n < CELLS; n++) {
        litmus.a[n] = litmus.x[n];
        litmus.y[n] = 1;
    }
}
static void load_two(void *arg)
{
    (void)arg;
    meet(2);
    for (unsigned n = 0; n < CELLS; n++) {
        litmus.b[n] = litmus.y[n];
        litmus.x[n] = 1;
    }
}

/* How many cells ended with a == `a` and b == `b`. */
static unsigned outcomes(void (*one)(void *), void (*two)(void *), uint32_t a, uint32_t b)
{
    unsigned count = 0;

    for (unsigned round = 0; round < 6; round++) {
        clear_litmus();
        smp_run(1, two, NULL);
        one(NULL);
        smp_wait(1);
        for (unsigned n = 0; n < CELLS; n++)
            count += litmus.a[n] == a && litmus.b[n] == b;
    }
    return count;
}

static void test_order(void)
{
    check_value("order: stores are seen in order", outcomes(message_writer, message_reader, 1, 0), 0);
    check_value("order: the same the other way", outcomes(message_reader, message_writer, 1, 0), 0);
    check_value("order: loads do not see stores behind them", outcomes(load_one, load_two, 1, 1), 0);
    check_value("order: fences keep loads behind stores", outcomes(fence_one, fence_two, 0, 0), 0);
}

/* ---- inter-processor interrupts ---- */

static volatile unsigned received[GUEST_MAX_CPUS], nmis[GUEST_MAX_CPUS];
static volatile bool leave;

static void on_ipi(struct trap_frame *frame)
{
    (void)frame;
    received[smp_this_cpu()]++;
    lapic_eoi();
}
static void on_nmi(struct trap_frame *frame)
{
    (void)frame;
    nmis[smp_this_cpu()]++;
}

/* What was sent to end the last listening may have come too late for it. */
static void begin_to_listen(void)
{
    __asm__ volatile("sti; nop; nop; cli" : : : "memory");
    received[smp_this_cpu()] = nmis[smp_this_cpu()] = 0;
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
}

/* Waits for interrupts until told otherwise, asleep. */
static void sleeper(void *arg)
{
    (void)arg;
    begin_to_listen();
    while (!leave)
        wait_for_interrupt();
}
static void spinner(void *arg)
{
    (void)arg;
    begin_to_listen();
    sti();
    while (!leave)
        cpu_relax();
    cli();
}

static void listen(void (*fn)(void *))
{
    leave = false;
    arrived = 0;
    for (unsigned n = 1; n < cpus; n++)
        smp_run(n, fn, NULL);
    received[0] = nmis[0] = 0;
    while (arrived < cpus - 1)
        cpu_relax();
}

/* Until the counters are these digits, the first processor's last, or for long. */
static uint64_t wait_counts(volatile unsigned *counts, uint64_t want)
{
    uint64_t v = 0;

    for (unsigned tries = 0; tries < 2000; tries++) {
        v = 0;
        for (unsigned n = cpus; n-- > 0;)
            v = v << 4 | counts[n];
        if (v == want)
            break;
        __asm__ volatile("sti; nop; nop; cli" : : : "memory");
        delay_us(1000);
    }
    return v;
}

static void end_listening(void)
{
    leave = true;
    for (unsigned n = 1; n < cpus; n++) {
        lapic_ipi(n, ICR_ASSERT | VECTOR);
        smp_wait(n);
    }
}

static void set_logical(void *arg)
{
    (void)arg;
    lapic_write(LAPIC_DFR, 0xffffffff);
    lapic_write(LAPIC_LDR, 1u << (24 + smp_this_cpu()));
}

static void check_ipis(const char *state)
{
    lapic_ipi(1, ICR_ASSERT | VECTOR);
    check_value(check_name("IPI to one, ", state, NULL), wait_counts(received, 0x0010), 0x0010);
    lapic_ipi(0, ICR_ASSERT | ICR_OTHERS | VECTOR);
    check_value(check_name("IPI to the others, ", state, NULL), wait_counts(received, 0x1120), 0x1120);
    lapic_ipi(0, ICR_ASSERT | ICR_ALL | VECTOR);
    check_value(check_name("IPI to all, ", state, NULL), wait_counts(received, 0x2231), 0x2231);
    lapic_ipi(0xff, ICR_ASSERT | VECTOR);
    check_value(check_name("IPI to the broadcast address, ", state, NULL), wait_counts(received, 0x3342),
                0x3342);
    lapic_ipi(2, ICR_ASSERT | ICR_NMI);
    check_value(check_name("NMI to one, ", state, NULL), wait_counts(nmis, 0x0100), 0x0100);
}

static unsigned sum(volatile unsigned *counts)
{
    unsigned v = 0;

    for (unsigned n = 0; n < cpus; n++)
        v += counts[n];
    return v;
}

static void test_ipis(void)
{
    trap_set_handler(VECTOR, on_ipi);
    trap_set_handler(2, on_nmi);
    listen(sleeper);
    check_ipis("asleep");
    end_listening();
    on_all(set_logical, NULL);
    listen(spinner);
    check_ipis("running");
    lapic_ipi(0x0a, ICR_ASSERT | ICR_LOGICAL | VECTOR);
    check_value("IPI to a logical set", wait_counts(received, 0x4352), 0x4352);
    lapic_ipi(0x0e, ICR_ASSERT | ICR_LOGICAL | ICR_LOWEST | VECTOR);
    for (unsigned tries = 0; tries < 2000 && sum(received) < 15; tries++)
        delay_us(1000);
    delay_us(5000);
    check_value("IPI of lowest priority to one of a set", sum(received), 15);
    /* There and back. */
    uint64_t before = received[1];
    for (unsigned n = 0; n < 200; n++) {
        lapic_ipi(1, ICR_ASSERT | VECTOR);
        while (received[1] == before)
            cpu_relax();
        before = received[1];
    }
    check_value("IPIs one after the other: none is lost", received[1] >= 200, 1);
    end_listening();
}

/* ---- TLB ---- */

static volatile uint64_t shot_seen;
static volatile unsigned shot_acks;

static void on_shot(struct trap_frame *frame)
{
    (void)frame;
    invlpg((void *)VA_SHOT);
    __atomic_add_fetch(&shot_acks, 1, __ATOMIC_SEQ_CST);
    lapic_eoi();
}

static void read_shot(void *arg)
{
    (void)arg;
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    sti();
    while (!leave)
        shot_seen = *(volatile uint64_t *)VA_SHOT;
    cli();
}

static void test_shoot_down(void)
{
    uint64_t *pages[2] = {page_alloc(), page_alloc()};
    unsigned wrong = 0;

    trap_set_handler(0x52, on_shot);
    *pages[0] = 1000;
    *pages[1] = 2000;
    page_map(VA_SHOT, (uint64_t)pages[0], PAGE_PRESENT | PAGE_WRITABLE);
    leave = false;
    arrived = 0;
    smp_run(1, read_shot, NULL);
    while (!arrived)
        cpu_relax();
    for (unsigned n = 1; n <= 100; n++) {
        page_map(VA_SHOT, (uint64_t)pages[n & 1], PAGE_PRESENT | PAGE_WRITABLE);
        shot_acks = 0;
        lapic_ipi(1, ICR_ASSERT | 0x52);
        while (!shot_acks)
            cpu_relax();
        /* What the page held until now is seen by nobody any more. */
        *pages[!(n & 1)] = 7777;
        shot_seen = 0;
        while (!shot_seen)
            cpu_relax();
        wrong += shot_seen == 7777;
        *pages[!(n & 1)] = n & 1 ? 1000 : 2000;
    }
    leave = true;
    smp_wait(1);
    check_value("TLB: after a shoot-down nobody sees the old page", wrong, 0);
}

/* ---- INIT, and x2APIC mode ---- */

static void to_x2apic(void *arg)
{
    (void)arg;
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | APIC_BASE_X2);
}

static void test_x2apic(void)
{
    if (!processor_has(1, 2, 21)) {
        check_skip("x2APIC", "this processor has none");
        return;
    }
    on_all(to_x2apic, NULL);
    check_value("x2APIC: the mode is on", rdmsr(MSR_APIC_BASE) & APIC_BASE_X2, APIC_BASE_X2);
    check_value("x2APIC: the ID", lapic_read(LAPIC_ID), 0);
    check_value("x2APIC: the logical ID follows from it", lapic_read(LAPIC_LDR), 1);
    listen(sleeper);
    lapic_ipi(3, ICR_ASSERT | VECTOR);
    check_value("x2APIC: IPI to one", wait_counts(received, 0x1000), 0x1000);
    lapic_ipi(0, ICR_ASSERT | ICR_OTHERS | VECTOR);
    check_value("x2APIC: IPI to the others", wait_counts(received, 0x2110), 0x2110);
    lapic_ipi(0x6, ICR_ASSERT | ICR_LOGICAL | VECTOR);
    check_value("x2APIC: IPI to a logical set", wait_counts(received, 0x2220), 0x2220);
    lapic_ipi(0xffffffff, ICR_ASSERT | VECTOR);
    check_value("x2APIC: IPI to the broadcast address", wait_counts(received, 0x3331), 0x3331);
    wrmsr(0x83f, VECTOR); /* SELF IPI */
    check_value("x2APIC: self IPI", wait_counts(received, 0x3332), 0x3332);
    end_listening();
}

void guest_main(void)
{
    pic_disable();
    cpus = smp_start();
    if (!check_value("all processors run", cpus, 4))
        return;
    test_locked();
    test_order();
    test_ipis();
    test_shoot_down();
    test_x2apic();
}
