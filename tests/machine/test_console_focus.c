/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which console gets what is typed: by what Linux, systemd and shells really write. */
#include "machine/console_focus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MS    1000000ull
#define SHELL "\x1b[?2004hroot@web:~# "
#define DONE  "[\x1b[0;32m  OK  \x1b[0m] Finished \x1b[0;1;39mupdate-utmp\x1b[0m.\r\r\n"

struct talk {
    struct console_focus focus;
    uint64_t now;
};

static void says(struct talk *t, enum console_port port, const char *text)
{
    console_focus_output(&t->focus, port, (const uint8_t *)text, strlen(text), t->now += MS);
}

static enum console_port typed(struct talk *t, const char *text)
{
    return console_focus_input(&t->focus, (const uint8_t *)text, strlen(text), t->now += MS);
}

/* A Debian at its prompt on hvc0, with the console of the kernel and of systemd on ttyS0. */
static struct talk booted(void)
{
    struct talk t = {.now = 1000 * MS};

    says(&t, CONSOLE_SERIAL, "[    0.000000] Linux version 6.1.0\r\n");
    says(&t, CONSOLE_SERIAL, DONE);
    says(&t, CONSOLE_VIRTIO, SHELL);
    return t;
}

static void test_a_prompt_is_asked(void **state)
{
    struct talk t = booted();

    assert_int_equal(typed(&t, "l"), CONSOLE_VIRTIO);
    says(&t, CONSOLE_VIRTIO, "l");
    assert_int_equal(typed(&t, "\r"), CONSOLE_VIRTIO);
}

static void test_messages_take_nothing_away(void **state)
{
    struct talk t = booted();

    /* Half of one before the first key, one between two, while a program reads at the begin of a line, and
     * half a message. */
    says(&t, CONSOLE_SERIAL, DONE "[  OK  ] Sta");
    assert_int_equal(typed(&t, "c"), CONSOLE_VIRTIO);
    says(&t, CONSOLE_VIRTIO, "c");
    says(&t, CONSOLE_SERIAL, "[   12.345678] virtio_net: link is up\r\n");
    assert_int_equal(typed(&t, "at\r"), CONSOLE_VIRTIO);
    says(&t, CONSOLE_VIRTIO, "at\r\n");
    says(&t, CONSOLE_SERIAL, DONE);
    assert_int_equal(typed(&t, "text"), CONSOLE_VIRTIO);
    says(&t, CONSOLE_VIRTIO, "text\r\n");
    says(&t, CONSOLE_SERIAL, "[   13.345678] oom-ki");
    assert_int_equal(typed(&t, "more"), CONSOLE_VIRTIO);
    /* Hours later, too. */
    says(&t, CONSOLE_VIRTIO, SHELL);
    t.now += 10000000 * MS;
    says(&t, CONSOLE_SERIAL, DONE);
    t.now += 10000000 * MS;
    assert_int_equal(typed(&t, "x"), CONSOLE_VIRTIO);
}

static void test_escapes_are_not_seen(void **state)
{
    struct talk t = booted();

    assert_int_equal(typed(&t, "\r"), CONSOLE_VIRTIO);
    says(&t, CONSOLE_VIRTIO, "\r\n");
    /* Colours, a title and a spinner's line leave no prompt behind. */
    says(&t, CONSOLE_SERIAL, "\x1b[0m\x1b]0;root@web: ~\x07\x1b[?25h");
    says(&t, CONSOLE_SERIAL, "\x1bP>|tmux\x1b\\[ ***  ] A start job is running\x1b[K\r");
    t.now += 1000 * MS;
    assert_int_equal(typed(&t, "x"), CONSOLE_VIRTIO);
}

static void test_the_serial_line_may_ask(void **state)
{
    struct talk t = booted();

    assert_int_equal(typed(&t, "systemctl rescue\r"), CONSOLE_VIRTIO);
    says(&t, CONSOLE_VIRTIO, "systemctl rescue\r\n");
    says(&t, CONSOLE_SERIAL, "You are in rescue mode.\r\nPress Enter for maintenance: ");
    t.now += 200 * MS;
    assert_int_equal(typed(&t, "\r"), CONSOLE_SERIAL);
    says(&t, CONSOLE_SERIAL, "\r\n" SHELL);
    assert_int_equal(typed(&t, "id\r"), CONSOLE_SERIAL);
}

static void test_an_old_prompt_asks_no_more(void **state)
{
    struct talk t = booted();

    /* A login on each line: who has chosen one can read from a program there. */
    assert_int_equal(typed(&t, "\b"), CONSOLE_VIRTIO);
    says(&t, CONSOLE_SERIAL, "\r\nweb login: ");
    t.now += 1000 * MS;
    assert_int_equal(typed(&t, "cat\r"), CONSOLE_VIRTIO);
    says(&t, CONSOLE_VIRTIO, "cat\r\n");
    assert_int_equal(typed(&t, "text\r"), CONSOLE_VIRTIO);
}

static void test_who_stays_silent_loses_it(void **state)
{
    struct talk t = booted();

    /* The shell's prompt stands for ever where nobody is any more. */
    assert_int_equal(typed(&t, "x"), CONSOLE_VIRTIO);
    says(&t, CONSOLE_SERIAL, "Press Enter for maintenance: ");
    t.now += 1000 * MS;
    assert_int_equal(typed(&t, "\r"), CONSOLE_VIRTIO);
    t.now += 1000 * MS;
    assert_int_equal(typed(&t, "\r"), CONSOLE_VIRTIO);
    t.now += 1000 * MS;
    assert_int_equal(typed(&t, "\r"), CONSOLE_SERIAL);
    says(&t, CONSOLE_SERIAL, "\r\n" SHELL);
    /* Silence alone is no reason: the other must have something to say since. */
    assert_int_equal(typed(&t, "sleep 10\r"), CONSOLE_SERIAL);
    t.now += 5000 * MS;
    assert_int_equal(typed(&t, "id\r"), CONSOLE_SERIAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_prompt_is_asked),          cmocka_unit_test(test_messages_take_nothing_away),
        cmocka_unit_test(test_escapes_are_not_seen),       cmocka_unit_test(test_the_serial_line_may_ask),
        cmocka_unit_test(test_an_old_prompt_asks_no_more), cmocka_unit_test(test_who_stays_silent_loses_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
