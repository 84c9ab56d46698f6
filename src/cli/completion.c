/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Completion for bash, from the table. Run by the build. */
#include "cli/cli.h"

static void print_names(FILE *out, const struct cli_operation *op)
{
    for (size_t i = 0; i < op->n_arguments; i++)
        if (!op->arguments[i].positional)
            fprintf(out, "--%s ", op->arguments[i].name);
    fputs("--help", out);
}

static void print_choices(FILE *out, const struct cli_argument *a)
{
    for (size_t i = 0; a->choice(i); i++)
        fprintf(out, "%s%s", i ? " " : "", a->choice(i));
}

/* What the word after a flag can be. */
static void print_flag_values(FILE *out, const struct cli_operation *op)
{
    for (size_t i = 0; i < op->n_arguments; i++) {
        const struct cli_argument *a = &op->arguments[i];

        if (a->positional || a->type == CLI_BOOL)
            continue;
        fprintf(out, "        %s:--%s)\n            ", op->name, a->name);
        if (a->type == CLI_ENUM) {
            fputs("words='", out);
            print_choices(out, a);
            fputs("'\n", out);
        } else if (a->type == CLI_PATH || a->repeatable) {
            fputs("compopt -o default\n            return\n", out);
        } else {
            fputs("return\n", out);
        }
        fputs("            ;;\n", out);
    }
}

void cli_print_bash_completion(FILE *out)
{
    fputs("# Completion of tabique for bash. Made from the table of operations; changes here are lost.\n"
          "_tabique() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=\n"
          "    COMPREPLY=()\n"
          "    if ((COMP_CWORD == 1)); then\n"
          "        words='",
          out);
    for (size_t i = 0; i < cli_n_operations; i++)
        if (!cli_operations[i].hidden)
            fprintf(out, "%s ", cli_operations[i].name);
    fputs("--help --version'\n"
          "    else\n"
          "        case ${COMP_WORDS[1]}:$before in\n",
          out);
    for (size_t i = 0; i < cli_n_operations; i++)
        if (!cli_operations[i].hidden)
            print_flag_values(out, &cli_operations[i]);
    for (size_t i = 0; i < cli_n_operations; i++) {
        const struct cli_operation *op = &cli_operations[i];
        if (op->hidden)
            continue;
        fprintf(out, "        %s:*)\n            words='", op->name);
        for (size_t n = 0; n < op->n_arguments; n++)
            if (op->arguments[n].positional && op->arguments[n].type == CLI_ENUM) {
                print_choices(out, &op->arguments[n]);
                fputc(' ', out);
            }
        print_names(out, op);
        fputs("'\n            ;;\n", out);
    }
    fputs("        esac\n"
          "    fi\n"
          "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
          "}\n"
          "complete -F _tabique tabique\n",
          out);
}
