/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The man page tabique(1), from the table. Run by the build. */
#include "cli/cli.h"

#include <string.h>

/* Text as roff takes it: no escapes, no requests by accident. */
static void print_text(FILE *out, const char *text)
{
    bool line_start = true;

    for (const char *p = text; *p; p++) {
        if (strncmp(p, "\n\n", 2) == 0) {
            fputs("\n.PP\n", out);
            p++;
            line_start = true;
            continue;
        }
        if (line_start && (*p == '.' || *p == '\''))
            fputs("\\&", out);
        line_start = *p == '\n';
        if (*p == '\\')
            fputs("\\e", out);
        else if (*p == '-')
            fputs("\\-", out);
        else if (*p == '\'')
            fputs("\\(aq", out);
        else
            fputc(*p, out);
    }
}

static void print_bold(FILE *out, const char *prefix, const char *text)
{
    fputs("\\fB", out);
    print_text(out, prefix);
    print_text(out, text);
    fputs("\\fR", out);
}

static void print_argument(FILE *out, const struct cli_argument *a)
{
    fputs(".TP\n", out);
    if (a->positional)
        fprintf(out, "\\fI%s\\fR", a->name);
    else
        print_bold(out, "--", a->name);
    if (a->letter)
        fprintf(out, ", \\fB\\-%c\\fR", a->letter);
    if (a->metavar)
        fprintf(out, " \\fI%s\\fR", a->metavar);
    fputc('\n', out);
    print_text(out, a->help);
    if (a->type == CLI_ENUM) {
        fputs("\nOne of", out);
        for (size_t i = 0; a->choice(i); i++) {
            fputs(i ? ", " : " ", out);
            print_bold(out, "", a->choice(i));
        }
        fputc('.', out);
    }
    if (a->fallback) {
        fputs("\nDefault: ", out);
        print_bold(out, "", a->fallback);
        fputc('.', out);
    }
    fputc('\n', out);
}

static void print_operation(FILE *out, const struct cli_operation *op)
{
    fprintf(out, ".SS tabique %s\n", op->name);
    print_text(out, op->summary);
    fputs(".\n.PP\n", out);
    print_text(out, op->description);
    fputc('\n', out);
    for (size_t i = 0; i < op->n_arguments; i++)
        print_argument(out, &op->arguments[i]);
    fputs(".PP\nExit status:\n", out);
    for (size_t i = 0; i < op->n_statuses; i++) {
        fputs(".TP\n", out);
        print_bold(out, "", op->statuses[i].status);
        fputc('\n', out);
        print_text(out, op->statuses[i].meaning);
        fputs(".\n", out);
    }
    if (op->example) {
        fputs(".PP\nExample:\n.PP\n.EX\n", out);
        print_text(out, op->example);
        fputs("\n.EE\n", out);
    }
}

void cli_print_man(FILE *out)
{
    fputs(".TH TABIQUE 1 \"\" \"Tabique " TABIQUE_VERSION "\" \"User Commands\"\n"
          ".SH NAME\ntabique \\- one machine, many guests\n"
          ".SH SYNOPSIS\n",
          out);
    const struct cli_operation *op;

    for (size_t i = 0; (op = cli_operation(i)); i++) {
        if (op->hidden)
            continue;
        fprintf(out, "%s\\fBtabique %s\\fR", i ? ".br\n" : "", op->name);
        for (size_t n = 0; n < op->n_arguments; n++) {
            const struct cli_argument *a = &op->arguments[n];
            fputs(a->required ? " " : " [", out);
            if (a->positional)
                fprintf(out, "\\fI%s\\fR", a->name);
            else
                print_bold(out, "--", a->name);
            if (a->metavar)
                fprintf(out, " \\fI%s\\fR", a->metavar);
            fputs(a->required ? "" : "]", out);
            fputs(a->repeatable ? "..." : "", out);
        }
        fputc('\n', out);
    }
    fputs(".br\n\\fBtabique \\-\\-help\\fR | \\fB\\-\\-version\\fR\n"
          ".SH DESCRIPTION\n"
          "Tabique runs guests on a Linux machine, whatever that machine can do: with the processor\\(aqs "
          "virtualization where there is one, and with a processor in software of its own where there is "
          "none. There is no service to start; each virtual machine is one process.\n"
          ".SH VERBS\n"
          "A command line that is wrong ends each of them with the status 2.\n",
          out);
    for (size_t i = 0; (op = cli_operation(i)); i++)
        if (!op->hidden)
            print_operation(out, op);
}
