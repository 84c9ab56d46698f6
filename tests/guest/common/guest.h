/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What test guests are written with: freestanding 64-bit programs that print on COM1 and leave through the
 * debug-exit port 0xF4. A guest is one C file with `void guest_main(void)`, listed in
 * tests/guest/meson.build. It starts in long mode with the first 4 GiB mapped one to one (supervisor,
 * writable), interrupts off, an IDT that reports any exception and fails, and a GDT with the selectors below.
 */
#ifndef TABIQUE_TESTS_GUEST_GUEST_H
#define TABIQUE_TESTS_GUEST_GUEST_H

#include "x86.h"

#define GUEST_MAX_CPUS 8

/* In the order that SYSRET wants: 32-bit code, data, 64-bit code. */
#define SELECTOR_CODE64      0x08
#define SELECTOR_DATA        0x10
#define SELECTOR_USER_CODE32 (0x18 | 3)
#define SELECTOR_USER_DATA   (0x20 | 3)
#define SELECTOR_USER_CODE64 (0x28 | 3)
#define SELECTOR_CODE32      0x30
#define SELECTOR_TSS(cpu)    (0x38 + 16 * (cpu))

/* --- the test itself ---------------------------------------------------------------------------------- */

void guest_main(void);

/* What the debug-exit port is given; the monitor's exit status is (code << 1) | 1. */
#define GUEST_PASSED 0x10
#define GUEST_FAILED 0x11

void guest_exit(unsigned code) __attribute__((noreturn));

/* %s %c %d %u %x %p %%, with `l` and a zero-padded width: "%08x", "%016lx". */
void print(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A false condition is reported with its place and values; guest_main goes on, and the guest fails at its
 * end. */
#define CHECK(condition)          check_result((condition), __FILE__, __LINE__, #condition)
#define CHECK_EQUAL(is, expected) check_equal((uint64_t)(is), (uint64_t)(expected), __FILE__, __LINE__, #is)
/* The same with a name instead of a place, for tests of the processor: prints one line, `ok NAME` or `FAIL
 * NAME: got .. want ..`, whatever the outcome. Two monitors that behave alike print the same. */
bool check_value(const char *name, uint64_t got, uint64_t want);
/* The strings up to a NULL, joined, until the next call. */
const char *check_name(const char *first, ...) __attribute__((sentinel));
/* How many checks have failed until now. */
unsigned check_failures(void);
/* For what this processor does not have: prints `skip NAME (WHY)`. NAME covers
 * all checks whose names begin like that. */
void check_skip(const char *name, const char *why);
/*
 * Whether QEMU's TCG executes the guest, directly or with KVM in between. What TCG is known to do wrong is
 * skipped there; each place says what it is.
 */
bool processor_is_tcg(void);
/* Whether CPUID's leaf (and subleaf 0) has this bit in this register (0 EAX ... 3 EDX). */
bool processor_has(uint32_t leaf, unsigned reg, unsigned bit);
bool check_result(bool ok, const char *file, int line, const char *what);
bool check_equal(uint64_t is, uint64_t expected, const char *file, int line, const char *what);

/* --- how it was booted -------------------------------------------------------------------------------- */

enum guest_boot_protocol { GUEST_BOOT_PVH, GUEST_BOOT_MULTIBOOT };

struct guest_range {
    uint64_t base, size;
    uint32_t type; /* 1: RAM, others as in E820 */
};
struct guest_module {
    uint64_t start, end;
    const char *command_line;
};
struct guest_boot {
    enum guest_boot_protocol protocol;
    const char *command_line; /* "" if none */
    unsigned n_ranges, n_modules;
    struct guest_range ranges[32];
    struct guest_module modules[16];
    uint64_t rsdp; /* 0 if the protocol gave none */
};
extern struct guest_boot guest_boot;

/* --- traps -------------------------------------------------------------------------------------------- */

struct trap_frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error;
    uint64_t rip, cs, rflags, rsp, ss;
};
/* Called for each trap on `vector`, with interrupts off; NULL puts the default (report and fail) back. The
 * frame may be changed: the trap returns to what it says. */
void trap_set_handler(unsigned vector, void (*fn)(struct trap_frame *frame));
/* IST slot 1..7 for a vector (0: none); each CPU has a stack a slot. Descriptor privilege level: 0 or 3. */
void trap_set_gate(unsigned vector, unsigned ist, unsigned dpl);
/* The kernel stack that traps from ring 3 use on this CPU. */
extern uint8_t trap_entries[]; /* 16 bytes a vector */

/* What ended a call: vector -1 if it simply returned. */
struct trap_result {
    int vector;
    uint64_t error, cr2, rip, cs, rflags, rsp;
    struct trap_frame frame; /* all registers as they were */
};
/* Prints one line as check_value does: the call must have ended by this trap (-1: none) and error code. */
bool check_trap(const char *name, const struct trap_result *result, int vector, uint64_t error);
/* Calls fn(arg) and catches the first trap on a vector without handler. Does not nest; per CPU. */
struct trap_result trap_catch(void (*fn)(void *arg), void *arg);
/* As trap_catch, in ring 3 at virtual address `rip` (page must be mapped for users) with `arg` in RDI. */
struct trap_result trap_catch_user(uint64_t rip, uint64_t rsp, uint64_t arg);
/* As trap_catch, begun by an IRET to this place in any ring or mode. */
struct trap_start {
    uint64_t rip, cs, rflags, rsp, ss;
};
struct trap_result trap_catch_at(const struct trap_start *start, uint64_t arg);

/* --- memory ------------------------------------------------------------------------------------------- */

/* A zeroed page of RAM below 4 GiB, mapped one to one; never freed. Fails the guest when there is none. */
void *page_alloc(void);
#define PAGE_PRESENT  (1ull << 0)
#define PAGE_WRITABLE (1ull << 1)
#define PAGE_USER     (1ull << 2)
#define PAGE_ACCESSED (1ull << 5)
#define PAGE_DIRTY    (1ull << 6)
#define PAGE_LARGE    (1ull << 7)
#define PAGE_GLOBAL   (1ull << 8)
#define PAGE_NX       (1ull << 63)
#define PAGE_FRAME    0x000ffffffffff000ull
/* Room for tests' own mappings: nothing is mapped from here up. */
#define PAGE_FREE_VIRTUAL 0x8000000000ull
/* The entry that maps `va` at `level` (1: 4 KiB, 2: 2 MiB, 3: 1 GiB), making the tables above it (present,
 * writable, user). The tables in use are those of CR3. */
uint64_t *page_entry(uint64_t va, unsigned level);
/* Maps one 4 KiB page and drops the old translation on this CPU. */
void page_map(uint64_t va, uint64_t pa, uint64_t flags);

/* --- platform ----------------------------------------------------------------------------------------- */

/* The table with the four-letter signature (checksummed), or NULL. */
const void *acpi_find(const char *signature);
/* From the MADT: processors that can be used. At most GUEST_MAX_CPUS. */
unsigned smp_cpu_count(void);
/* Starts all others by INIT and SIPI; they then wait for work. Returns how many run now, this one included.
 */
unsigned smp_start(void);
/* Has CPU `cpu` (1...) run fn(arg); returns at once. smp_wait returns when it has ended. */
void smp_run(unsigned cpu, void (*fn)(void *arg), void *arg);
void smp_wait(unsigned cpu);
unsigned smp_this_cpu(void);

/* The local APIC by xAPIC registers, or by x2APIC if this CPU has that mode on. */
#define LAPIC_ID            0x20
#define LAPIC_VERSION       0x30
#define LAPIC_TPR           0x80
#define LAPIC_PPR           0xa0
#define LAPIC_EOI           0xb0
#define LAPIC_LDR           0xd0
#define LAPIC_DFR           0xe0
#define LAPIC_SPURIOUS      0xf0
#define LAPIC_ISR           0x100
#define LAPIC_TMR           0x180
#define LAPIC_IRR           0x200
#define LAPIC_ERROR         0x280
#define LAPIC_ICR_LOW       0x300
#define LAPIC_ICR_HIGH      0x310
#define LAPIC_LVT_TIMER     0x320
#define LAPIC_LVT_LINT0     0x350
#define LAPIC_LVT_LINT1     0x360
#define LAPIC_LVT_ERROR     0x370
#define LAPIC_TIMER_INITIAL 0x380
#define LAPIC_TIMER_CURRENT 0x390
#define LAPIC_TIMER_DIVIDE  0x3e0
uint32_t lapic_read(unsigned offset);
void lapic_write(unsigned offset, uint32_t value);
/* Software-enables it, spurious vector 0xff, task priority 0. */
void lapic_enable(void);
void lapic_eoi(void);
/* `icr`: vector, delivery mode, shorthand and so on, as in ICR bits 0-19. */
void lapic_ipi(uint32_t destination, uint32_t icr);
/* I/O APIC pin -> vector on CPU 0, edge, unmasked; `flags` are further bits of the entry's low half. */
void ioapic_route(unsigned pin, unsigned vector, uint32_t flags);
void ioapic_mask(unsigned pin);
/* Remaps both 8259s to vectors 0x20-0x2f and masks all. */
void pic_disable(void);
/* Busy waits, by channel 2 of the PIT: works before any clock is known. At most 50000. */
void delay_us(unsigned us);

#endif
