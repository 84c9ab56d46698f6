/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Computes for ever, three calls deep, for tests of the verb `profile`. Compiled with frame pointers. */
#include <stdint.h>

static volatile uint64_t kept;

__attribute__((noinline)) static uint64_t innermost(uint64_t value)
{
    /* A function that calls none has a frame only if it asks for it. */
    __asm__ volatile("" : : "r"(__builtin_frame_address(0)));
    for (unsigned n = 0; n < 1000; n++)
        value = value * 6364136223846793005ull + n;
    return value;
}

__attribute__((noinline)) static void middle(void)
{
    for (unsigned n = 0; n < 1000; n++)
        kept = innermost(kept);
    kept++;
}

__attribute__((noinline)) static void outermost(void)
{
    for (;;)
        middle();
}

int main(void)
{
    outermost();
}
