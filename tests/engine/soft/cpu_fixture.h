/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One bare vCPU of the soft engine over a few MiB of RAM, with descriptor tables, a TSS, stacks and page
 * tables in known places, for tests of single instructions and of the delivery of exceptions in every mode.
 * One thread.
 */
#ifndef TABIQUE_TESTS_ENGINE_SOFT_CPU_FIXTURE_H
#define TABIQUE_TESTS_ENGINE_SOFT_CPU_FIXTURE_H

#include "engine/soft/vcpu.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Physical addresses; linear ones are the same, but for the holes. */
#define GDT_AT   0x1000u
#define IDT_AT   0x2000u
#define TSS_AT   0x4000u
#define LDT_AT   0x5000u
#define CODE_AT  0x10000u
#define DATA_AT  0x20000u
#define STACK_AT 0x30000u /* tops of stacks: of CPL n at STACK_AT + n * 0x1000 */
#define IST_AT   0x38000u
/* In long mode: not mapped; read-only; for CPL 0 only. A page each, the next page after it is mapped. */
#define HOLE_AT       0x200000u
#define READ_ONLY_AT  0x202000u
#define SUPERVISOR_AT 0x204000u

/* Selectors. */
#define CODE0_32  0x08u
#define DATA0     0x10u
#define CODE3_32  0x1bu
#define DATA3     0x23u
#define CODE0_64  0x28u
#define CODE3_64  0x33u
#define CODE0_16  0x38u
#define DATA0_16  0x40u
#define TSS_SEL   0x48u /* 16 bytes in long mode */
#define LDT_SEL   0x58u /* the same */
#define CODE_CONF 0x68u /* conforming, DPL 0, 32 bits */
#define CODE1_32  0x71u
#define DATA1     0x79u
#define FREE_SEL  0x80u /* four free entries */
#define GDT_LIMIT 0x9fu

enum fixture_mode { MODE_REAL, MODE_PROTECTED16, MODE_PROTECTED32, MODE_COMPAT, MODE_LONG };

/* The vCPU in this mode and CPL: RIP at CODE_AT, RSP at the CPL's stack top, interrupts off, all else zero;
 * with the ways of Intel's processors (fixture_soft()->amd is false). */
struct soft_vcpu *fixture_cpu(enum fixture_mode mode, unsigned cpl);
void fixture_end(void);

void *fixture_ram(uint64_t gpa);
/* In long mode: maps the page at `linear`, in the 2 MiB from HOLE_AT on, to `gpa`, for everyone. */
void fixture_map(uint64_t linear, uint64_t gpa);
struct soft *fixture_soft(void);
uint64_t fixture_read(uint64_t gpa, unsigned size);
void fixture_write(uint64_t gpa, uint64_t value, unsigned size);

/* A descriptor as it is in memory; limit in units of G. */
uint64_t fixture_descriptor(uint32_t base, uint32_t limit, unsigned attr);
void fixture_set_gdt(unsigned selector, uint64_t low, uint64_t high);
/* A gate of the current mode's size. type: 0xE, 0xF, 6, 7, ...; attr: DPL and P bits. */
void fixture_set_gate(unsigned vector, unsigned selector, uint64_t offset, unsigned type_attr, unsigned ist);

/* Puts the bytes at RIP and executes them as one instruction. As soft_step. */
int fixture_step(const uint8_t *code, size_t length);
#define STEP(...) fixture_step((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* The last step ended in this exception, with RIP unchanged. */
#define ASSERT_FAULT(step, vector_, error_)                                                                  \
    do {                                                                                                     \
        uint64_t rip_before_ = fixture_vcpu()->rip;                                                          \
        assert_int_equal((step), SOFT_FAULT);                                                                \
        assert_int_equal(fixture_vcpu()->fault.vector, (vector_));                                           \
        assert_int_equal(fixture_vcpu()->fault.error, (error_));                                             \
        assert_true(fixture_vcpu()->rip == rip_before_);                                                     \
    } while (0)
#define ASSERT_DONE(step) assert_int_equal((step), SOFT_JUMP)

struct soft_vcpu *fixture_vcpu(void);

#endif
