/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * argv to checked values, by the operation's row. All is checked before anything is done with it; a message
 * names the argument, what was given, and what would do. No locks, no state.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/suggest.h"
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct cli_value {
    const char **texts; /* as given, with room for one that is not: the fallback */
    size_t n;
    uint64_t number; /* of the last text, for those that are numbers */
    bool fallback;   /* it was not given */
};

struct cli_values {
    const struct cli_operation *operation;
    struct cli_value values[]; /* in the order of the operation's arguments */
};

void cli_values_free(struct cli_values *values)
{
    if (!values)
        return;
    for (size_t i = 0; i < values->operation->n_arguments; i++)
        free(values->values[i].texts);
    free(values);
}

static void values_cleanup(struct cli_values **values)
{
    cli_values_free(*values);
}

int cli_parse_size(const char *text, uint64_t *out)
{
    static const char units[] = "KMGT";
    char *end;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno)
        return -ERANGE;
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        unsigned shift = 10 * (unsigned)(unit - units + 1);
        if (n > UINT64_MAX >> shift)
            return -ERANGE;
        n <<= shift;
        end++;
        if (end[0] == 'i' && end[1] == 'B')
            end += 2;
    }
    if (*end)
        return -EINVAL;
    *out = n;
    return 0;
}

/* The largest unit that leaves no remainder. */
static void format_size(char *buf, size_t len, uint64_t bytes)
{
    static const char units[] = {'K', 'M', 'G', 'T'};
    int unit = -1;

    while (bytes && bytes % 1024 == 0 && unit < 3) {
        bytes /= 1024;
        unit++;
    }
    snprintf(buf, len, unit < 0 ? "%" PRIu64 : "%" PRIu64 "%c", bytes, unit < 0 ? 0 : units[unit]);
}

static int check_size(const struct cli_argument *a, const char *text, uint64_t *out, struct error **err)
{
    char min[32], max[32], multiple[32];
    uint64_t n;
    int rc = cli_parse_size(text, &n);

    format_size(min, sizeof(min), a->min);
    format_size(max, sizeof(max), a->max);
    format_size(multiple, sizeof(multiple), a->multiple);
    if (rc == -EINVAL)
        return error_set(err, EINVAL,
                         "--%s: '%s' is no size: give a whole number with K, M, G or T, such as %s", a->name,
                         text, a->fallback ? a->fallback : max);
    if (rc || n < a->min || n > a->max)
        return error_set(err, EINVAL, "--%s: '%s' is out of range: choose from %s to %s%s", a->name, text,
                         min, max, !rc && n < a->min ? " (without K, M, G or T it counts bytes)" : "");
    if (a->multiple && n % a->multiple)
        return error_set(err, EINVAL, "--%s: '%s' is not a multiple of %s", a->name, text, multiple);
    *out = n;
    return 0;
}

static int check_uint(const struct cli_argument *a, const char *text, uint64_t *out, struct error **err)
{
    char *end;

    errno = 0;
    unsigned long long n = isdigit((unsigned char)text[0]) ? strtoull(text, &end, 10) : 0;
    if (!isdigit((unsigned char)text[0]) || *end || errno || n < a->min || n > a->max)
        return error_set(err, EINVAL, "--%s: '%s' is not a whole number from %" PRIu64 " to %" PRIu64,
                         a->name, text, a->min, a->max);
    *out = n;
    return 0;
}

/* "1.5" is 1500. -EINVAL for what is no such number. */
static int parse_decimal(const char *text, uint64_t *out)
{
    uint64_t n = 0;
    int digits = 0, behind = -1;

    for (const char *p = text; *p; p++) {
        if (*p == '.' && behind < 0 && digits) {
            behind = 0;
            continue;
        }
        if (!isdigit((unsigned char)*p) || ++digits > 12 || (behind >= 0 && ++behind > 3))
            return -EINVAL;
        n = n * 10 + (uint64_t)(*p - '0');
    }
    if (!digits || behind == 0)
        return -EINVAL;
    for (int i = behind < 0 ? 0 : behind; i < 3; i++)
        n *= 10;
    *out = n;
    return 0;
}

static int check_decimal(const struct cli_argument *a, const char *text, uint64_t *out, struct error **err)
{
    uint64_t n = 0;

    if (parse_decimal(text, &n) < 0 || n < a->min || n > a->max)
        return error_set(err, EINVAL, "--%s: '%s' is not a number from %g to %g", a->name, text,
                         (double)a->min / 1000, (double)a->max / 1000);
    *out = n;
    return 0;
}

static int check_enum(const struct cli_argument *a, const char *text, struct error **err)
{
    const char *names[64];
    size_t n = 0;
    char known[512] = "";

    for (const char *c; n < 64 && (c = a->choice(n)); n++) {
        if (strcmp(c, text) == 0)
            return 0;
        names[n] = c;
        size_t used = strlen(known);
        snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "", c);
    }
    const char *meant = suggest_nearest(text, names, n);
    return error_set(err, EINVAL, "%s%s: '%s' is none of %s%s%s%s", a->positional ? "" : "--", a->name, text,
                     known, meant ? ": did you mean " : "", meant ? meant : "", meant ? "?" : "");
}

/* Checks a value and keeps it. */
static int take_value(const struct cli_argument *a, struct cli_value *v, const char *text, struct error **err)
{
    int rc = 0;

    if (v->n && !a->repeatable)
        return error_set(err, EINVAL, "%s%s is given twice", a->positional ? "" : "--", a->name);
    if (a->type == CLI_SIZE)
        rc = check_size(a, text, &v->number, err);
    else if (a->type == CLI_UINT)
        rc = check_uint(a, text, &v->number, err);
    else if (a->type == CLI_DECIMAL)
        rc = check_decimal(a, text, &v->number, err);
    else if (a->type == CLI_ENUM)
        rc = check_enum(a, text, err);
    else if (a->type == CLI_PATH && !*text)
        rc = error_set(err, EINVAL, "--%s: the file's name is empty", a->name);
    else if (a->check)
        rc = a->check(text, err);
    if (rc == 0)
        v->texts[v->n++] = text;
    return rc;
}

static const struct cli_argument *find_flag(const struct cli_operation *op, const char *name, size_t len)
{
    for (size_t i = 0; i < op->n_arguments; i++) {
        const struct cli_argument *a = &op->arguments[i];
        if (!a->positional && strlen(a->name) == len && memcmp(a->name, name, len) == 0)
            return a;
    }
    return NULL;
}

static int unknown_flag(const struct cli_operation *op, const char *name, struct error **err)
{
    const char *names[64];
    size_t n = 0;

    for (size_t i = 0; i < op->n_arguments && n < 63; i++)
        if (!op->arguments[i].positional)
            names[n++] = op->arguments[i].name;
    names[n++] = "help";
    const char *meant = suggest_nearest(name, names, n);
    return error_set(err, EINVAL, "unknown flag --%s%s%s%s", name, meant ? ": did you mean --" : "",
                     meant ? meant : "", meant ? "?" : "");
}

/* `word` begins with "--". Takes a value out of the next words where the flag has one. */
static int take_flag(struct cli_values *values, const char *word, int *i, int argc, char **argv,
                     struct error **err)
{
    const struct cli_operation *op = values->operation;
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    cleanup_free char *just_name = strndup(name, len);
    const struct cli_argument *a = find_flag(op, name, len);

    if (!just_name)
        return error_set_errno(err, ENOMEM, "arguments");
    if (!a)
        return unknown_flag(op, just_name, err);
    struct cli_value *v = &values->values[a - op->arguments];
    if (a->type == CLI_BOOL) {
        if (equals)
            return error_set(err, EINVAL, "--%s takes no value", a->name);
        return take_value(a, v, "yes", err);
    }
    if (equals)
        return take_value(a, v, equals + 1, err);
    /* A forgotten value is more likely than one that reads like the next flag; = is there for those. */
    const char *next = *i + 1 < argc ? argv[*i + 1] : NULL;
    size_t next_len = next ? strcspn(next, "=") : 0;
    if (!next || (strncmp(next, "--", 2) == 0 && find_flag(op, next + 2, next_len - 2)))
        return error_set(err, EINVAL, "--%s needs a value: --%s %s", a->name, a->name, a->metavar);
    ++*i;
    return take_value(a, v, next, err);
}

/* `word` is a dash and letters. What follows the letter of a flag that has a value is the value, or the next
 * word is. */
static int take_letters(struct cli_values *values, const char *word, int *i_word, int argc, char **argv,
                        struct error **err)
{
    const struct cli_operation *op = values->operation;

    for (const char *letter = word + 1; *letter; letter++) {
        const struct cli_argument *a = NULL;

        for (size_t i = 0; i < op->n_arguments && !a; i++)
            if (op->arguments[i].letter == *letter)
                a = &op->arguments[i];
        if (!a)
            return error_set(err, EINVAL, "unknown flag -%s: flags begin with two dashes", letter);
        struct cli_value *v = &values->values[a - op->arguments];
        if (a->type != CLI_BOOL) {
            if (!letter[1] && *i_word + 1 >= argc)
                return error_set(err, EINVAL, "-%c needs a value: -%c %s", *letter, *letter, a->metavar);
            return take_value(a, v, letter[1] ? letter + 1 : argv[++*i_word], err);
        }
        int rc = take_value(a, v, "yes", err);
        if (rc)
            return rc;
    }
    return 0;
}

static int take_positional(struct cli_values *values, const char *word, struct error **err)
{
    const struct cli_operation *op = values->operation;

    for (size_t i = 0; i < op->n_arguments; i++) {
        const struct cli_argument *a = &op->arguments[i];
        if (a->positional && (a->repeatable || !values->values[i].n))
            return take_value(a, &values->values[i], word, err);
    }
    return error_set(err, EINVAL, "unexpected argument '%s'", word);
}

static int complete(struct cli_values *values, struct error **err)
{
    const struct cli_operation *op = values->operation;

    for (size_t i = 0; i < op->n_arguments; i++) {
        const struct cli_argument *a = &op->arguments[i];
        struct cli_value *v = &values->values[i];

        if (v->n)
            continue;
        if (a->required)
            return error_set(err, EINVAL, "%s%s%s%s is missing", a->positional ? "" : "--", a->name,
                             a->metavar ? " " : "", a->metavar ? a->metavar : "");
        if (a->fallback) {
            int rc = take_value(a, v, a->fallback, err);
            if (rc)
                return rc;
            v->fallback = true;
        }
    }
    return 0;
}

int cli_parse(const struct cli_operation *operation, int argc, char **argv, struct cli_values **out,
              struct error **err)
{
    size_t n = operation->n_arguments;
    __attribute__((cleanup(values_cleanup))) struct cli_values *values =
        calloc(1, sizeof(*values) + n * sizeof(values->values[0]));
    bool flags_ended = false;

    if (!values)
        return error_set_errno(err, ENOMEM, "arguments");
    values->operation = operation;
    for (size_t i = 0; i < n; i++) {
        values->values[i].texts = calloc((size_t)argc + 1, sizeof(const char *));
        if (!values->values[i].texts)
            return error_set_errno(err, ENOMEM, "arguments");
    }
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        int rc;

        if (flags_ended || word[0] != '-' || !word[1]) {
            rc = take_positional(values, word, err);
        } else if (strcmp(word, "--") == 0) {
            flags_ended = true;
            rc = 0;
        } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
            return -ECANCELED;
        } else if (word[1] != '-') {
            rc = take_letters(values, word, &i, argc, argv, err);
        } else {
            rc = take_flag(values, word, &i, argc, argv, err);
        }
        if (rc)
            return rc;
    }
    int rc = complete(values, err);
    if (rc)
        return rc;
    *out = steal_ptr(values);
    return 0;
}

static const struct cli_value *find_value(const struct cli_values *values, const char *name)
{
    for (size_t i = 0; i < values->operation->n_arguments; i++)
        if (strcmp(values->operation->arguments[i].name, name) == 0)
            return &values->values[i];
    return NULL;
}

const char *cli_verb(const struct cli_values *values)
{
    return values->operation->name;
}

const char *cli_string(const struct cli_values *values, const char *name)
{
    const struct cli_value *v = find_value(values, name);
    return v && v->n ? v->texts[0] : NULL;
}

uint64_t cli_uint(const struct cli_values *values, const char *name)
{
    const struct cli_value *v = find_value(values, name);
    return v && v->n ? v->number : 0;
}

bool cli_bool(const struct cli_values *values, const char *name)
{
    const struct cli_value *v = find_value(values, name);
    return v && v->n;
}

bool cli_given(const struct cli_values *values, const char *name)
{
    const struct cli_value *v = find_value(values, name);

    return v && v->n && !v->fallback;
}

const char **cli_list(const struct cli_values *values, const char *name, size_t *n)
{
    const struct cli_value *v = find_value(values, name);

    *n = v ? v->n : 0;
    return v ? v->texts : NULL;
}
