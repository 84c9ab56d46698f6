/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is made of the lines that an agent in a guest writes. */
#include "machine/agent_answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* The last answer of what comes; of the type 99 if there was none. */
static struct agent_answer said(struct agent_line *line, const char *bytes, size_t len)
{
    struct agent_answer answer = {.type = (enum agent_answer_type)99}, next;

    for (size_t i = 0; i < len; i++)
        if (agent_line_take(line, (uint8_t)bytes[i], &next))
            answer = next;
    return answer;
}

#define SAID(line, text) said(line, text, sizeof(text) - 1)

static void test_answers(void **state)
{
    struct agent_line line = {0};

    assert_int_equal(SAID(&line, "{\"return\": 2}\n").number, 2);
    assert_int_equal(SAID(&line, "{\"return\": -9}\r\n").number, -9);
    assert_int_equal(SAID(&line, "{\"return\": {}}\n").type, AGENT_OTHER);
    assert_string_equal(SAID(&line, "{\"return\": \"thawed\"}\n").text, "thawed");
    assert_string_equal(SAID(&line, "{\"error\": {\"class\": \"X\", \"desc\": \"no\\u001b[2J\"}}\n").text,
                        "no?[2J");
    assert_string_equal(SAID(&line, "{\"error\": 7}\n").text, "it does not say why");
    assert_int_equal(SAID(&line, "{\"return\": 2, \"error\": {\"desc\": \"x\"}}\n").type, AGENT_ERROR);
}

static void test_nonsense(void **state)
{
    static const char *const lines[] = {"\n",
                                        "{}\n",
                                        "[]\n",
                                        "{\"return\": 99999999999999999999}\n",
                                        "{\"return\": 1, \"return\": 2}\n",
                                        "{\"return\": \"\x80\"}\n",
                                        "{\"return\": 1\n",
                                        "return\n",
                                        "{\"return\": \"a\\u0000b\"}\n"};
    struct agent_line line = {0};
    char deep[AGENT_LINE_MAX + 2];

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        assert_int_equal(said(&line, lines[i], strlen(lines[i])).type, AGENT_NONSENSE);
    memset(deep, '[', sizeof(deep));
    deep[AGENT_LINE_MAX] = '\n';
    assert_int_equal(said(&line, deep, AGENT_LINE_MAX + 1).type, AGENT_NONSENSE);
    deep[AGENT_LINE_MAX] = '[';
    deep[AGENT_LINE_MAX + 1] = '\n';
    assert_int_equal(said(&line, deep, AGENT_LINE_MAX + 2).type, AGENT_NONSENSE);
    assert_int_equal(SAID(&line, "{\"return\": 3}\n").number, 3);
}

/* What was begun before the mark is not looked at. */
static void test_mark(void **state)
{
    struct agent_line line = {0};

    assert_int_equal(SAID(&line, "{\"return\": \xff{\"return\": 5}\n").number, 5);
    for (unsigned i = 0; i < 2 * AGENT_LINE_MAX; i++)
        assert_int_equal(SAID(&line, "x").type, 99);
    assert_int_equal(SAID(&line, "\xff{\"return\": 6}\n").number, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_answers), cmocka_unit_test(test_nonsense),
                                       cmocka_unit_test(test_mark)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
