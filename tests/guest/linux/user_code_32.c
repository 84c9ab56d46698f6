/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A 32-bit program for a 64-bit kernel, without a C library: it computes between its calls, has its own timer
 * interrupt it, and looks whether its registers survive both. Prints "ok", or what was wrong.
 */
#include <stddef.h>
#include <stdint.h>

#define SYS_exit         1
#define SYS_write        4
#define SYS_getpid       20
#define SYS_setitimer    104
#define SYS_rt_sigaction 174
#define SIGALRM          14
#define SA_SIGINFO       4u
#define SA_RESTORER      0x04000000u

#define ROUNDS 3000000u

void _start(void);

static int32_t call(int32_t number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d)
{
    __asm__ volatile("int $0x80" : "+a"(number) : "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
    return number;
}

static void end(const char *text, size_t length, int status)
{
    static const int32_t never[4];

    call(SYS_setitimer, 0, (uintptr_t)never, 0, 0); /* it would interrupt the write */
    call(SYS_write, 1, (uintptr_t)text, length, 0);
    call(SYS_exit, (uintptr_t)status, 0, 0, 0);
}

#define EXPECT(condition)                                                                                    \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            end("FAIL " #condition "\n", sizeof("FAIL " #condition "\n") - 1, 1);                            \
    } while (0)

static volatile uint32_t alarms;

static void on_alarm(int signal)
{
    alarms++;
    __asm__ volatile("pxor %xmm3, %xmm3; fninit");
}

/* Nothing but the call: its frame is where the handler has left the stack pointer. */
void restore(void);
__asm__("restore: mov $173, %eax; int $0x80"); /* rt_sigreturn */

static uint32_t sum(uint32_t rounds)
{
    uint32_t x = 0;

    __asm__ volatile("1: add %1, %0; dec %1; jnz 1b" : "+r"(x), "+r"(rounds) : : "cc");
    return x;
}

void _start(void)
{
    static const struct {
        void (*handler)(int);
        uint32_t flags;
        void (*restorer)(void);
        uint32_t mask[2];
    } action = {on_alarm, SA_SIGINFO | SA_RESTORER, restore, {0, 0}};
    static const int32_t often[4] = {0, 2000, 0, 2000};
    const uint32_t right = (uint32_t)((uint64_t)ROUNDS * (ROUNDS + 1ull) >> 1);
    int32_t pid = call(SYS_getpid, 0, 0, 0, 0);

    EXPECT(call(SYS_rt_sigaction, SIGALRM, (uintptr_t)&action, 0, 8) == 0);
    EXPECT(call(SYS_setitimer, 0, (uintptr_t)often, 0, 0) == 0);
    for (uint32_t n = 1; n < 200; n++) {
        uint32_t value = n * 0x01010101, low, top = 0;
        __asm__ volatile("movd %0, %%xmm3; pushl %0; fildl (%%esp); addl $4, %%esp"
                         :
                         : "r"(value)
                         : "memory");
        EXPECT(sum(ROUNDS) == right);
        __asm__ volatile("movd %%xmm3, %0; fistpl %1" : "=r"(low), "=m"(top) : : "memory");
        EXPECT(low == value);
        EXPECT(top == value);
        EXPECT(call(SYS_getpid, 0, 0, 0, 0) == pid);
    }
    EXPECT(alarms > 20);
    end("ok 32\n", 6, 0);
}
