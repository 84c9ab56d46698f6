/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The instructions that a test guest needs and C has no word for. */
#ifndef TABIQUE_TESTS_GUEST_X86_H
#define TABIQUE_TESTS_GUEST_X86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define X86_PORT_IO(letter, type)                                                                            \
    static inline type in##letter(uint16_t port)                                                             \
    {                                                                                                        \
        type v;                                                                                              \
        __asm__ volatile("in" #letter " %1, %0" : "=a"(v) : "Nd"(port) : "memory");                          \
        return v;                                                                                            \
    }                                                                                                        \
    static inline void out##letter(uint16_t port, type v)                                                    \
    {                                                                                                        \
        __asm__ volatile("out" #letter " %0, %1" : : "a"(v), "Nd"(port) : "memory");                         \
    }
X86_PORT_IO(b, uint8_t)
X86_PORT_IO(w, uint16_t)
X86_PORT_IO(l, uint32_t)
#undef X86_PORT_IO

#define X86_CONTROL_REGISTER(name)                                                                           \
    static inline uint64_t read_##name(void)                                                                 \
    {                                                                                                        \
        uint64_t v;                                                                                          \
        __asm__ volatile("mov %%" #name ", %0" : "=r"(v) : : "memory");                                      \
        return v;                                                                                            \
    }                                                                                                        \
    static inline void write_##name(uint64_t v)                                                              \
    {                                                                                                        \
        __asm__ volatile("mov %0, %%" #name : : "r"(v) : "memory");                                          \
    }
X86_CONTROL_REGISTER(cr0)
X86_CONTROL_REGISTER(cr2)
X86_CONTROL_REGISTER(cr3)
X86_CONTROL_REGISTER(cr4)
X86_CONTROL_REGISTER(cr8)
X86_CONTROL_REGISTER(dr0)
X86_CONTROL_REGISTER(dr6)
X86_CONTROL_REGISTER(dr7)
#undef X86_CONTROL_REGISTER

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t low, high;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
    return (uint64_t)high << 32 | low;
}
static inline void wrmsr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(subleaf));
}
static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}
static inline uint64_t read_rflags(void)
{
    uint64_t v;
    __asm__ volatile("pushfq; popq %0" : "=r"(v) : : "memory");
    return v;
}
static inline void invlpg(const volatile void *p)
{
    __asm__ volatile("invlpg (%0)" : : "r"(p) : "memory");
}
static inline void sti(void)
{
    __asm__ volatile("sti" : : : "memory");
}
static inline void cli(void)
{
    __asm__ volatile("cli" : : : "memory");
}
/* Interrupts on and HLT in one step, so that none slips in between. Interrupts are off again after it. */
static inline void wait_for_interrupt(void)
{
    __asm__ volatile("sti; hlt; cli" : : : "memory");
}
static inline void cpu_relax(void)
{
    __asm__ volatile("pause" : : : "memory");
}

#endif
