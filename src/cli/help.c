/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --help of Tabique and of each operation, from the table. */
#include "base/error.h"
#include "cli/cli.h"

#include <errno.h>
#include <string.h>

#define WIDTH  80
#define INDENT 24

/* Prints text in lines of at most WIDTH, each after `indent` spaces but for the first, which begins at
 * `column`. \n\n ends a paragraph. */
static void print_wrapped(FILE *out, const char *text, int indent, int column)
{
    while (*text) {
        size_t space = strspn(text, " \n");
        bool paragraph = strncmp(text, "\n\n", 2) == 0;

        text += space;
        size_t len = strcspn(text, " \n");
        if (!len)
            break;
        if (paragraph || (column > indent && column + 1 + (int)len > WIDTH)) {
            fprintf(out, paragraph ? "\n\n%*s" : "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", (int)len, text);
        column += (int)len;
        text += len;
    }
    fputc('\n', out);
}

/* A term and its explanation, side by side where the term is short enough. */
static void print_entry(FILE *out, const char *term, const char *text)
{
    int column = fprintf(out, "  %s", term);

    if (column > INDENT - 2) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", INDENT - column, "");
    print_wrapped(out, text, INDENT, INDENT);
}

static void print_usage(FILE *out, const struct cli_operation *op)
{
    fprintf(out, "usage: tabique %s", op->name);
    for (size_t i = 0; i < op->n_arguments; i++) {
        const struct cli_argument *a = &op->arguments[i];
        if (!a->positional && a->required)
            fprintf(out, " --%s %s", a->name, a->metavar);
    }
    fputs(" [FLAG...]", out);
    for (size_t i = 0; i < op->n_arguments; i++) {
        const struct cli_argument *a = &op->arguments[i];
        if (a->positional)
            fprintf(out, a->required ? " %s%s" : " [%s%s]", a->name, a->repeatable ? "..." : "");
    }
    fputc('\n', out);
}

static void print_argument(FILE *out, const struct cli_argument *a)
{
    char term[80], text[1024];
    size_t used;

    snprintf(term, sizeof(term), "%s%s%s%s", a->positional ? "" : "--", a->name, a->metavar ? " " : "",
             a->metavar ? a->metavar : "");
    if (a->letter) {
        used = strlen(term);
        snprintf(term + used, sizeof(term) - used, ", -%c", a->letter);
    }
    snprintf(text, sizeof(text), "%s", a->help);
    if (a->type == CLI_ENUM && !a->positional) {
        for (size_t i = 0; a->choice(i); i++) {
            used = strlen(text);
            snprintf(text + used, sizeof(text) - used, "%s%s", i ? ", " : " One of: ", a->choice(i));
        }
        used = strlen(text);
        snprintf(text + used, sizeof(text) - used, ".");
    }
    if (a->fallback) {
        used = strlen(text);
        snprintf(text + used, sizeof(text) - used, " Default: %s.", a->fallback);
    }
    print_entry(out, term, text);
}

void cli_print_help(FILE *out, const struct cli_operation *op)
{
    print_usage(out, op);
    fputc('\n', out);
    print_wrapped(out, op->description, 0, 0);
    for (int positional = 1; positional >= 0; positional--) {
        bool any = !positional;
        for (size_t i = 0; i < op->n_arguments; i++)
            any |= op->arguments[i].positional == (bool)positional;
        if (any)
            fputs(positional ? "\narguments:\n" : "\nflags:\n", out);
        for (size_t i = 0; i < op->n_arguments; i++)
            if (op->arguments[i].positional == (bool)positional)
                print_argument(out, &op->arguments[i]);
    }
    print_entry(out, "--help", "Print this and end.");
    fputs("\nexit status:\n", out);
    for (size_t i = 0; i < op->n_statuses; i++)
        print_entry(out, op->statuses[i].status, op->statuses[i].meaning);
    print_entry(out, "2", "the command line was wrong");
    if (op->example)
        fprintf(out, "\nexample:\n  %s\n", op->example);
}

/* The verbs of a group, or of none, a line each. */
static void print_verbs(FILE *out, const struct cli_group *group)
{
    const struct cli_operation *op;

    for (size_t i = 0; (op = cli_operation(i)); i++)
        if (!op->hidden && cli_group_of(op) == group)
            print_entry(out, cli_verb_of(op), op->summary);
}

void cli_print_group(FILE *out, const struct cli_group *group)
{
    fprintf(out, "usage: tabique %s VERB [FLAG...]\n\n%s.\n\nverbs:\n", group->name, group->summary);
    print_verbs(out, group);
    fprintf(out, "\n'tabique %s VERB --help' explains a verb.\n", group->name);
}

void cli_print_overview(FILE *out)
{
    fputs("Tabique: one machine, many guests.\n\nusage: tabique VERB [FLAG...]\n\nverbs:\n", out);
    print_verbs(out, NULL);
    for (size_t i = 0; i < cli_n_groups; i++) {
        fprintf(out, "\nverbs after '%s':\n", cli_groups[i].name);
        print_verbs(out, &cli_groups[i]);
    }
    fputs("\nflags:\n", out);
    print_entry(out, "--help", "Print this, or after a verb what it does, and end.");
    print_entry(out, "--version", "Print the version and end.");
    fputs("\n'tabique VERB --help' explains a verb; 'man tabique' has it all.\n", out);
}

/* VERB, or GROUP, or GROUP VERB. */
int cli_help(const struct cli_values *values, int *status, struct error **err)
{
    const char *first = cli_string(values, "VERB"), *second = cli_string(values, "SECOND");
    const struct cli_group *group = first ? cli_find_group(first) : NULL;
    char name[64];

    *status = CLI_STATUS_USAGE;
    if (second && !group)
        return error_set(err, EINVAL, "'%s' has no verbs after it", first);
    snprintf(name, sizeof(name), "%s%s%s", first ? first : "", second ? " " : "", second ? second : "");
    const struct cli_operation *op = cli_find_operation(name);
    if (second && !op)
        return error_set(err, EINVAL, "'%s' has no verb '%s'", first, second);
    if (op)
        cli_print_help(stdout, op);
    else if (group)
        cli_print_group(stdout, group);
    else
        cli_print_overview(stdout);
    *status = 0;
    return 0;
}
