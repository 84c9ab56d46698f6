/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GDT, TSS, IDT and the dispatch of traps, for each CPU; catching the faults that a test provokes. */
#include "guest_priv.h"

struct trap_catch {
    uint64_t resume_rsp; /* first: trap_catch_enter stores it */
    bool active;
    struct trap_result result;
};

struct tss {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint8_t reserved2[10];
    uint16_t io_map_base;
} __attribute__((packed));

struct gate {
    uint16_t offset_low, selector;
    uint8_t ist, attr;
    uint16_t offset_mid;
    uint32_t offset_high, reserved;
};

struct table_pointer {
    uint16_t limit;
    uint64_t base;
} __attribute__((packed));

#define STACK_SIZE 8192
#define IST_SLOTS  7

int trap_catch_enter(struct trap_catch *slot, void (*fn)(void *arg), void *arg);
void trap_enter(const struct trap_start *start, uint64_t arg);
extern uint8_t trap_catch_resume[];

static uint64_t gdt[7 + 2 * GUEST_MAX_CPUS] __attribute__((aligned(16))) = {
    0,
    0x00af9a000000ffff, /* 64-bit code */
    0x00cf92000000ffff, /* data */
    0x00cffa000000ffff, /* user 32-bit code */
    0x00cff2000000ffff, /* user data */
    0x00affa000000ffff, /* user 64-bit code */
    0x00cf9a000000ffff, /* 32-bit code */
};
static struct tss tss[GUEST_MAX_CPUS];
static struct gate idt[256] __attribute__((aligned(16)));
static struct trap_catch catches[GUEST_MAX_CPUS];
static void (*handlers[256])(struct trap_frame *);
static uint8_t stacks[GUEST_MAX_CPUS][1 + IST_SLOTS][STACK_SIZE] __attribute__((aligned(16)));

void trap_set_gate(unsigned vector, unsigned ist, unsigned dpl)
{
    uint64_t at = (uint64_t)trap_entries + 16 * (uint64_t)vector;

    idt[vector] = (struct gate){
        .offset_low = (uint16_t)at,
        .selector = SELECTOR_CODE64,
        .ist = (uint8_t)ist,
        .attr = (uint8_t)(0x8e | dpl << 5), /* present, 64-bit interrupt gate */
        .offset_mid = (uint16_t)(at >> 16),
        .offset_high = (uint32_t)(at >> 32),
    };
}

void trap_init_cpu(unsigned cpu)
{
    struct table_pointer gdtr = {sizeof(gdt) - 1, (uint64_t)gdt}, idtr = {sizeof(idt) - 1, (uint64_t)idt};
    uint64_t base = (uint64_t)&tss[cpu];

    if (cpu == 0)
        for (unsigned v = 0; v < 256; v++)
            trap_set_gate(v, 0, 0);
    tss[cpu].rsp[0] = (uint64_t)stacks[cpu][0] + STACK_SIZE;
    for (unsigned i = 0; i < IST_SLOTS; i++)
        tss[cpu].ist[i] = (uint64_t)stacks[cpu][1 + i] + STACK_SIZE;
    tss[cpu].io_map_base = sizeof(tss[cpu]); /* past the limit: no port for ring 3 */
    gdt[7 + 2 * cpu] =
        (sizeof(tss[cpu]) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[8 + 2 * cpu] = base >> 32;
    __asm__ volatile("lgdt %0" : : "m"(gdtr));
    __asm__ volatile("pushq %0; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1:"
                     :
                     : "i"(SELECTOR_CODE64)
                     : "rax", "memory");
    __asm__ volatile("movl %0, %%ds; movl %0, %%es; movl %0, %%ss" : : "r"(SELECTOR_DATA));
    __asm__ volatile("ltr %w0" : : "r"(SELECTOR_TSS(cpu)));
    __asm__ volatile("lidt %0" : : "m"(idtr));
}

void trap_set_handler(unsigned vector, void (*fn)(struct trap_frame *frame))
{
    handlers[vector] = fn;
}

unsigned smp_this_cpu(void)
{
    uint16_t selector;

    __asm__ volatile("str %0" : "=r"(selector));
    return selector < SELECTOR_TSS(0) ? 0 : (selector - SELECTOR_TSS(0)) / 16u;
}

/* Called by trap_entry.S. */
void trap_dispatch(struct trap_frame *frame)
{
    struct trap_catch *c = &catches[smp_this_cpu()];

    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
        return;
    }
    if (!c->active) {
        print("not ok: unexpected trap %lu, error 0x%lx, at 0x%lx (cs 0x%lx), cr2 0x%lx, cpu %u\n",
              frame->vector, frame->error, frame->rip, frame->cs, read_cr2(), smp_this_cpu());
        guest_exit(GUEST_FAILED);
    }
    c->active = false;
    c->result = (struct trap_result){
        .vector = (int)frame->vector,
        .error = frame->error,
        .cr2 = read_cr2(),
        .rip = frame->rip,
        .cs = frame->cs,
        .rflags = frame->rflags,
        .rsp = frame->rsp,
        .frame = *frame,
    };
    frame->rip = (uint64_t)trap_catch_resume;
    frame->cs = SELECTOR_CODE64;
    frame->ss = SELECTOR_DATA;
    frame->rsp = c->resume_rsp;
    frame->rflags = 2;
}

struct trap_result trap_catch(void (*fn)(void *arg), void *arg)
{
    struct trap_catch *c = &catches[smp_this_cpu()];

    c->result = (struct trap_result){.vector = -1};
    c->active = true;
    trap_catch_enter(c, fn, arg);
    c->active = false;
    return c->result;
}

struct enter_call {
    const struct trap_start *start;
    uint64_t arg;
};

static void enter(void *arg)
{
    struct enter_call *call = arg;

    trap_enter(call->start, call->arg);
}

struct trap_result trap_catch_at(const struct trap_start *start, uint64_t arg)
{
    struct enter_call call = {start, arg};
    struct trap_result result = trap_catch(enter, &call);

    /* Coming from ring 3, DS and ES may have been cleared. */
    __asm__ volatile("movl %0, %%ds; movl %0, %%es" : : "r"(SELECTOR_DATA));
    return result;
}

struct trap_result trap_catch_user(uint64_t rip, uint64_t rsp, uint64_t arg)
{
    struct trap_start start = {rip, SELECTOR_USER_CODE64, 0x202, rsp, SELECTOR_USER_DATA};

    return trap_catch_at(&start, arg);
}
