/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest to talk to, for tests of the console: says `ready`, then tells each byte that comes. q leaves, f
 * prints a lot, h hangs with interrupts off. With `exit` on its command line it leaves at once.
 */
#include "common/guest.h"

#define COM1        0x3f8
#define LINES       20000
#define LINE_STATUS (COM1 + 5)

static bool asked_to_exit(void)
{
    const char *s = guest_boot.command_line;

    return s[0] == 'e' && s[1] == 'x' && s[2] == 'i' && s[3] == 't' && !s[4];
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
    }
}
