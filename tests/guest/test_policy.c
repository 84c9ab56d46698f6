/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Restart policies, names, and requests on the control socket: what texts mean, and which mean nothing. */
#include "base/bytes.h"
#include "base/error.h"
#include "guest/control.h"
#include "guest/names.h"
#include "guest/policy.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define MS 1000000ull

static struct policy policy(const char *text)
{
    struct policy p = {0};

    assert_int_equal(policy_parse(&p, text, NULL), 0);
    return p;
}

static void test_policies(void **state)
{
    static const char *const wrong[] = {"",
                                        "never",
                                        "No",
                                        "on-failure:",
                                        "on-failure:0",
                                        "on-failure:-1",
                                        "on-failure:1x",
                                        "no:1",
                                        "always:3",
                                        "on-failure:99999999999999999999"};

    assert_int_equal(policy("no").kind, POLICY_NO);
    assert_int_equal(policy("always").kind, POLICY_ALWAYS);
    assert_int_equal(policy("unless-stopped").kind, POLICY_UNLESS_STOPPED);
    assert_int_equal(policy("on-failure").most, 0);
    assert_int_equal(policy("on-failure:12").most, 12);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        cleanup_error struct error *err = NULL;
        struct policy untouched = {.most = 77};

        assert_int_equal(policy_parse(&untouched, wrong[i], &err), -EINVAL);
        assert_int_equal(untouched.most, 77);
        assert_non_null(strstr(error_message(err), "choose no, on-failure"));
    }
}

static void test_what_is_started_again(void **state)
{
    static const struct {
        const char *text;
        int status;
        uint64_t in_a_row;
        bool expected;
    } cases[] = {
        {"no", 1, 0, false},           {"on-failure", 0, 0, false},    {"on-failure", 1, 0, true},
        {"on-failure", 137, 90, true}, {"on-failure:2", 1, 1, true},   {"on-failure:2", 1, 2, false},
        {"always", 0, 0, true},        {"unless-stopped", 0, 0, true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct policy p = policy(cases[i].text);
        struct policy_end end = {.exit_status = cases[i].status, .in_a_row = cases[i].in_a_row};
        uint64_t delay = 0;

        assert_int_equal(policy_restarts(&p, &end, &delay), cases[i].expected);
    }
}

/* Twice as long each time, up to a minute; a long run begins anew. */
static void test_delays(void **state)
{
    static const struct {
        uint64_t in_a_row, ran, expected;
    } cases[] = {{0, 0, 100 * MS},
                 {1, 0, 200 * MS},
                 {5, 0, 3200 * MS},
                 {9, 0, 51200 * MS},
                 {10, 0, 60000 * MS},
                 {63, 0, 60000 * MS},
                 {UINT64_MAX, 0, 60000 * MS},
                 {9, POLICY_LONG_RUN_NS, 100 * MS}};
    struct policy p = policy("always"), few = policy("on-failure:1");
    uint64_t delay;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct policy_end end = {.in_a_row = cases[i].in_a_row, .ran_ns = cases[i].ran};

        assert_true(policy_restarts(&p, &end, &delay));
        assert_int_equal(delay, cases[i].expected);
    }
    struct policy_end long_one = {.exit_status = 1, .in_a_row = 1, .ran_ns = POLICY_LONG_RUN_NS};
    assert_true(policy_restarts(&few, &long_one, &delay));
}

static void test_names(void **state)
{
    static const char *const right[] = {"a", "0", "web-1", "a.b_c", "A9"};
    static const char *const wrong[] = {"",    ".",   "..",  "-a",       ".a", "_a",
                                        "a/b", "a b", "a\n", "\xc3\xa4", "a:b"};
    char name[NAME_MAX_LENGTH + 2];

    for (size_t i = 0; i < ARRAY_SIZE(right); i++)
        assert_int_equal(name_check(right[i], NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_int_equal(name_check(wrong[i], NULL), -EINVAL);
    memset(name, 'x', sizeof(name));
    name[NAME_MAX_LENGTH] = '\0';
    assert_int_equal(name_check(name, NULL), 0);
    name[NAME_MAX_LENGTH] = 'x';
    name[NAME_MAX_LENGTH + 1] = '\0';
    assert_int_equal(name_check(name, NULL), -EINVAL);
    for (unsigned attempt = 0; attempt < 600; attempt++) {
        char made[NAME_MAX_LENGTH + 1];

        name_invent(made, sizeof(made), attempt);
        assert_int_equal(name_check(made, NULL), 0);
    }
}

static int parse(const char *line, struct control_request *out)
{
    return control_parse(line, strlen(line), out, NULL);
}

static void test_requests(void **state)
{
    static const char *const wrong[] = {
        "",
        "stop",
        "{}",
        "[]",
        "{\"request\":1}",
        "{\"request\":\"fly\"}",
        "{\"request\":\"stop\"} x",
        "{\"request\":\"stop\",\"timeout-ms\":\"1\"}",
        "{\"request\":\"stop\",\"timeout-ms\":-1}",
        "{\"request\":\"stop\",\"timeout-ms\":86400001}",
        "{\"request\":\"stop\",\"timeout-ms\":1.5}",
        "{\"request\":\"resize\",\"columns\":65536}",
        "{\"request\":\"balloon\"}",
        "{\"request\":\"balloon\",\"memory-bytes\":-1}",
        "{\"request\":\"balloon\",\"memory-bytes\":9223372036854775808}",
        "{\"request\":\"stop\",\"request\":\"kill\"}",
    };
    struct control_request r;

    assert_int_equal(parse("{\"request\":\"stop\"}", &r), 0);
    assert_int_equal(r.verb, CONTROL_STOP);
    assert_int_equal(r.timeout_ms, CONTROL_TIMEOUT_MS);
    assert_int_equal(parse(" { \"timeout-ms\" : 0, \"request\" : \"stop\", \"more\": [] } ", &r), 0);
    assert_int_equal(r.timeout_ms, 0);
    assert_int_equal(parse("{\"request\":\"console\",\"columns\":80,\"rows\":24}", &r), 0);
    assert_int_equal(r.verb, CONTROL_CONSOLE);
    assert_int_equal(r.columns, 80);
    assert_int_equal(r.rows, 24);
    assert_int_equal(parse("{\"request\":\"balloon\",\"memory-bytes\":1073741824}", &r), 0);
    assert_int_equal(r.verb, CONTROL_BALLOON);
    assert_int_equal(r.memory_bytes, 1 << 30);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct control_request untouched = {.verb = CONTROL_VERBS};

        assert_int_equal(parse(wrong[i], &untouched), -EINVAL);
        assert_int_equal(untouched.verb, CONTROL_VERBS);
    }
}

static void test_what_is_told(void **state)
{
    struct policy_telling telling = {0};
    uint64_t now = 5000 * MS;
    unsigned told = 0;

    for (int i = 0; i < 1000; i++)
        told += policy_may_tell(&telling, now);
    assert_int_equal(told, 20);
    assert_int_equal(telling.left_out, 980);
    assert_false(policy_may_tell(&telling, now + 999 * MS));
    assert_true(policy_may_tell(&telling, now + 1000 * MS));
    assert_false(policy_may_tell(&telling, now + 1000 * MS));
    /* Who was quiet for long may tell as much as at first, and not more. */
    told = 0;
    for (int i = 0; i < 1000; i++)
        told += policy_may_tell(&telling, now + 100000 * MS);
    assert_int_equal(told, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies), cmocka_unit_test(test_what_is_started_again),
        cmocka_unit_test(test_delays),   cmocka_unit_test(test_names),
        cmocka_unit_test(test_requests), cmocka_unit_test(test_what_is_told),
    };

    return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
