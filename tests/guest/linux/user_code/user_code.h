/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks of user code under Linux, one command each (main.c has the table). Each first computes until an
 * engine that executes such code directly does so, then does its thing with stretches of computing in
 * between. They pass on any real processor, too.
 */
#ifndef USER_CODE_H
#define USER_CODE_H

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <ucontext.h>

#define PAGE 4096u

extern unsigned failures;

#define CHECK(condition, ...)                                                                                \
    do {                                                                                                     \
        if (!(condition) && failures++ < 10) {                                                               \
            printf("FAIL %s:%d: %s: ", __FILE__, __LINE__, #condition);                                      \
            printf(__VA_ARGS__);                                                                             \
            printf("\n");                                                                                    \
        }                                                                                                    \
    } while (0)

/* Ends the program where going on makes no sense. */
void give_up(const char *what) __attribute__((noreturn));

/* Computes in user mode for about so long, without a system call. */
void burn(unsigned microseconds);
/* Until this process has been in user mode for longer than any engine waits. */
void get_hot(void);
/* The children's failures become ours. */
void wait_for(pid_t pid);

uint64_t random_number(void);
unsigned cpu_count(void);
void run_on(unsigned cpu);

/* ---- pages of their own (spin.S, telling.S) ---- */

/* `rounds` must not be 0. */
uint64_t compute(uint64_t x, uint64_t rounds);

void ask_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
uint64_t read_xcr0(void);
enum save { XSAVE, XSAVEOPT, XSAVEC };
/* All state that is enabled. */
void save_state(void *area, enum save how);
void restore_state(const void *area);
uint64_t read_pid(void);

struct registers {
    uint8_t ymm[16][32];
    uint64_t gpr[14]; /* rax rbx rdx rsi rdi rbp r8..r15 */
    uint64_t flags;   /* of these CF is kept */
    uint64_t avx;     /* whether the upper halves of ymm are to be used */
};

/* Has these in its registers, counts down from `count`, and tells what is in them then. */
void spin(const struct registers *in, struct registers *out, uint64_t count);
void fill_registers(struct registers *r, uint64_t seed);
bool same_registers(const struct registers *a, const struct registers *b);

/* ---- signals ---- */

/* What the last signal said. */
struct caught {
    volatile int signal, code;
    volatile uintptr_t address, rip;
    volatile uint64_t error;
};

/* Executes the statement; gives 0 or the number of the signal that it raised. */
extern __thread sigjmp_buf attempt_buffer;
extern __thread struct caught caught;
void catch_attempts(void);
#define ATTEMPT(statement)                                                                                   \
    (sigsetjmp(attempt_buffer, 1) ? caught.signal : (__extension__({                                         \
        statement;                                                                                           \
        0;                                                                                                   \
    })))

/* ---- the commands ---- */

void check_code(void);
void check_signals(void);
void check_exceptions(void);
void check_trace(void);
void check_clock(void);
void check_watch(void);
void check_processor(void);
void check_contexts(void);
void check_compatibility(void);
void check_seccomp(void);
void check_attack(void);
void check_calls(void);
void check_processes(void);
void check_scattered(void);
void check_mappings(void);
void check_copies(void);
void check_pressure(void);
void check_loop(void);

#endif
