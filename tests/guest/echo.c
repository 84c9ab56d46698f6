/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest to talk to, for tests of the console: says `ready`, then tells each byte that comes. q leaves, f
 * prints a lot, h hangs with interrupts off, s runs in a circle. With `exit` on its command line it leaves at
 * once.
 */
#include "common/guest.h"

#define COM1        0x3f8
#define LINES       20000
#define LINE_STATUS (COM1 + 5)

/* The last word: some boot loaders put the kernel's name before the rest. */
static bool asked_to_exit(void)
{
    static const char word[] = "exit";
    const char *s = guest_boot.command_line;
    unsigned length = 0, n = sizeof(word) - 1;

    while (s[length])
        length++;
    for (unsigned i = 0; i < n; i++)
        if (length < n || s[length - n + i] != word[i])
            return false;
    return true;
}

void guest_main(void)
{
    print("ready\n");
    if (asked_to_exit())
        return;
    for (;;) {
        while (!(inb(LINE_STATUS) & 1))
            cpu_relax();
        uint8_t byte = inb(COM1);

        print("got %02x\n", byte);
        if (byte == 'q')
            return;
        if (byte == 'f') {
            for (unsigned i = 0; i < LINES; i++)
                print("line %05u of a long text that the reader may be slow to take\n", i);
        }
        if (byte == 'h')
            for (;;)
                __asm__ volatile("cli; hlt");
        if (byte == 's')
            for (;;)
                __asm__ volatile("");
    }
}
