/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parser and its suggestions on a made-up operation; the real ones are tested end to end. */
#include "base/bytes.h"
#include "base/error.h"
#include "base/suggest.h"
#include "cli/cli.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static const char *colour(size_t i)
{
    static const char *const colours[] = {"red", "green", "blue"};

    return i < ARRAY_SIZE(colours) ? colours[i] : NULL;
}

static const struct cli_argument arguments[] = {
    {.name = "size",
     .type = CLI_SIZE,
     .metavar = "S",
     .fallback = "4K",
     .min = 4096,
     .max = 1 << 30,
     .multiple = 4096},
    {.name = "count", .type = CLI_UINT, .metavar = "N", .min = 2, .max = 7},
    {.name = "colour", .type = CLI_ENUM, .metavar = "C", .choice = colour},
    {.name = "name", .type = CLI_STRING, .metavar = "TEXT", .repeatable = true},
    {.name = "yes", .type = CLI_BOOL},
    {.name = "SOURCE", .type = CLI_PATH, .positional = true, .required = true},
    {.name = "MORE", .type = CLI_STRING, .positional = true, .repeatable = true},
};

static const struct cli_operation operation = {
    .name = "paint", .arguments = arguments, .n_arguments = ARRAY_SIZE(arguments)};

#define PARSE(values, err, ...)                                                                              \
    ({                                                                                                       \
        char *words_[] = {__VA_ARGS__};                                                                      \
        cli_parse(&operation, ARRAY_SIZE(words_), words_, (values), (err));                                  \
    })

static void test_values(void **state)
{
    struct cli_values *v = NULL;
    size_t n;

    assert_int_equal(PARSE(&v, NULL, "a", "--count=7", "--name", "x", "--size", "2M", "b", "--name=y=z",
                           "--yes", "--colour", "blue", "--", "--count", "-c"),
                     0);
    assert_int_equal(cli_uint(v, "size"), 2 << 20);
    assert_int_equal(cli_uint(v, "count"), 7);
    assert_string_equal(cli_string(v, "colour"), "blue");
    assert_true(cli_bool(v, "yes"));
    const char **names = cli_list(v, "name", &n);
    assert_int_equal(n, 2);
    assert_string_equal(names[0], "x");
    assert_string_equal(names[1], "y=z");
    assert_string_equal(cli_string(v, "SOURCE"), "a");
    const char **more = cli_list(v, "MORE", &n);
    assert_int_equal(n, 3);
    assert_string_equal(more[0], "b");
    assert_string_equal(more[1], "--count");
    assert_string_equal(more[2], "-c");
    cli_values_free(v);
}

static void test_fallbacks(void **state)
{
    struct cli_values *v = NULL;
    size_t n = 9;

    assert_int_equal(PARSE(&v, NULL, "-"), 0);
    assert_string_equal(cli_string(v, "SOURCE"), "-");
    assert_int_equal(cli_uint(v, "size"), 4096);
    assert_int_equal(cli_uint(v, "count"), 0);
    assert_null(cli_string(v, "colour"));
    assert_false(cli_bool(v, "yes"));
    cli_list(v, "name", &n);
    assert_int_equal(n, 0);
    cli_values_free(v);
    cli_values_free(NULL);
}

static void test_help_is_no_error(void **state)
{
    cleanup_error struct error *err = NULL;
    struct cli_values *v = NULL;

    assert_int_equal(PARSE(&v, &err, "--count", "3", "--help"), -ECANCELED);
    assert_null(err);
    /* As a value, or after the end of the flags, it is a word like any other. */
    assert_int_equal(PARSE(&v, &err, "--name=--help", "--", "-h"), 0);
    assert_string_equal(cli_string(v, "SOURCE"), "-h");
    cli_values_free(v);
}

static void test_errors_leave_values_alone(void **state)
{
    struct cli_values *untouched = (struct cli_values *)state, *v = untouched;
    static const struct {
        char *word, *message;
    } bad[] = {
        {"--count=8", "--count: '8' is not a whole number from 2 to 7"},
        {"--count=1", "--count: '1' is not a whole number from 2 to 7"},
        {"--size=5000", "--size: '5000' is not a multiple of 4K"},
        {"--size=2G", "--size: '2G' is out of range: choose from 4K to 1G"},
        {"--colour=grey", "--colour: 'grey' is none of red, green, blue: did you mean green?"},
        {"--colou=red", "unknown flag --colou: did you mean --colour?"},
        {"--size", "--size needs a value: --size S"},
        {"--yes=no", "--yes takes no value"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        cleanup_error struct error *err = NULL;
        assert_int_equal(PARSE(&v, &err, "source", bad[i].word), -EINVAL);
        assert_string_equal(error_message(err), bad[i].message);
        assert_ptr_equal(v, untouched);
    }
    cleanup_error struct error *err = NULL;
    assert_int_equal(PARSE(&v, &err, "--yes"), -EINVAL);
    assert_string_equal(error_message(err), "SOURCE is missing");
    assert_int_equal(PARSE(&v, NULL, "--yes"), -EINVAL);
    assert_ptr_equal(v, untouched);
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        int rc;
        uint64_t bytes;
    } sizes[] = {
        {"0", 0, 0},
        {"1", 0, 1},
        {"18446744073709551615", 0, UINT64_MAX},
        {"18446744073709551616", -ERANGE, 0},
        {"1k", 0, 1024},
        {"3M", 0, 3 << 20},
        {"2GiB", 0, 2ull << 30},
        {"16777215T", 0, 16777215ull << 40},
        {"16777216T", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"G", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"1 ", -EINVAL, 0},
        {"1GB", -EINVAL, 0},
        {"1Gi", -EINVAL, 0},
        {"1KK", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
        {"1.5G", -EINVAL, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        uint64_t bytes = 0;
        assert_int_equal(cli_parse_size(sizes[i].text, &bytes), sizes[i].rc);
        assert_int_equal(bytes, sizes[i].bytes);
    }
}

static void test_suggestions(void **state)
{
    static const char *const names[] = {"kernel", "initrd", "append",    "memory",
                                        "cpus",   "engine", "debug-exit"};
    static const struct {
        const char *text, *meant;
    } cases[] = {
        {"kernal", "kernel"},
        {"knerel", "kernel"},
        {"cpu", "cpus"},
        {"CPUS", NULL},
        {"mem", "memory"},
        {"memmory", "memory"},
        {"debugexit", "debug-exit"},
        {"egnine", "engine"},
        {"", NULL},
        {"x", NULL},
        {"disk", NULL},
        {"a-very-long-word-that-resembles-nothing-at-all", NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *meant = suggest_nearest(cases[i].text, names, ARRAY_SIZE(names));
        if (cases[i].meant)
            assert_string_equal(meant, cases[i].meant);
        else
            assert_null(meant);
    }
    assert_null(suggest_nearest("kernel", names, 0));
}

/* Each row must be able to do what the parser, the help and the generators ask of it. */
static void test_the_table_is_sound(void **state)
{
    const struct cli_operation *op;

    for (size_t o = 0; (op = cli_operation(o)); o++) {

        assert_non_null(op->run);
        assert_true(strlen(op->summary) > 5 && op->summary[strlen(op->summary) - 1] != '.');
        assert_non_null(op->description);
        assert_true(op->hidden || op->n_statuses > 0);
        assert_ptr_equal(cli_find_operation(op->name), op);
        for (size_t i = 0; i < op->n_arguments; i++) {
            const struct cli_argument *a = &op->arguments[i];

            assert_non_null(a->help);
            assert_true(a->help[strlen(a->help) - 1] == '.');
            assert_true(a->positional || a->type == CLI_BOOL || a->metavar);
            assert_true(a->type != CLI_ENUM || a->choice);
            assert_true((a->type != CLI_UINT && a->type != CLI_SIZE) || a->max >= a->min);
            assert_true(strcmp(a->name, "help") != 0);
            for (size_t n = 0; n < i; n++)
                assert_string_not_equal(a->name, op->arguments[n].name);
        }
    }
    assert_null(cli_find_operation("nonsense"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_fallbacks),
        cmocka_unit_test(test_help_is_no_error),
        cmocka_unit_test(test_errors_leave_values_alone),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_suggestions),
        cmocka_unit_test(test_the_table_is_sound),
    };
    return cmocka_run_group_tests_name("cli/parse", tests, NULL, NULL);
}
