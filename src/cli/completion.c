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
        fprintf(out, "        '%s':--%s)\n            ", op->name, a->name);
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

/* Names that are asked for when they are needed. A word that begins like a flag is none. */
static void print_listed(FILE *out, const struct cli_operation *op)
{
    for (size_t i = 0; i < op->n_arguments; i++)
        if (op->arguments[i].positional && op->arguments[i].listed_by)
            fprintf(out, "            [[ $word == -* ]] || words=$(\"${COMP_WORDS[0]}\" %s 2>/dev/null)\n",
                    op->arguments[i].listed_by);
}

/* The words that can follow "tabique" or "tabique GROUP". */
static void print_words(FILE *out, const struct cli_group *group)
{
    const char *word;

    for (size_t i = 0; (word = cli_word(group, i)); i++)
        fprintf(out, "%s ", word);
}

/* What is being completed: the operation's name as the table has it, and before it its last word's position.
 */
static void print_prologue(FILE *out)
{
    fputs("# Completion of tabique for bash. Made from the table of operations; changes here are lost.\n"
          "_tabique() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=\n"
          "    local verb=${COMP_WORDS[1]} last=1\n"
          "    COMPREPLY=()\n"
          "    case $verb in\n"
          "    ",
          out);
    for (size_t i = 0; i < cli_n_groups; i++)
        fprintf(out, "%s%s", i ? "|" : "", cli_groups[i].name);
    fputs(")\n"
          "        verb=\"$verb ${COMP_WORDS[2]}\" last=2\n"
          "        ;;\n"
          "    esac\n"
          "    if ((COMP_CWORD == 1)); then\n"
          "        words='",
          out);
    print_words(out, NULL);
    fputs("--help --version'\n"
          "    elif ((COMP_CWORD == last)); then\n"
          "        case ${COMP_WORDS[1]} in\n",
          out);
    for (size_t i = 0; i < cli_n_groups; i++) {
        fprintf(out, "        %s)\n            words='", cli_groups[i].name);
        print_words(out, &cli_groups[i]);
        fputs("--help'\n            ;;\n", out);
    }
    fputs("        esac\n"
          "    else\n"
          "        case $verb:$before in\n",
          out);
}

void cli_print_bash_completion(FILE *out)
{
    const struct cli_operation *op;

    print_prologue(out);
    for (size_t i = 0; (op = cli_operation(i)); i++)
        if (!op->hidden)
            print_flag_values(out, op);
    for (size_t i = 0; (op = cli_operation(i)); i++) {
        if (op->hidden)
            continue;
        fprintf(out, "        '%s':*)\n", op->name);
        bool files = false;
        for (size_t n = 0; n < op->n_arguments; n++)
            files |= op->arguments[n].positional && op->arguments[n].type == CLI_PATH;
        fprintf(out, "%s            words='", files ? "            compopt -o default\n" : "");
        for (size_t n = 0; n < op->n_arguments; n++)
            if (op->arguments[n].positional && op->arguments[n].type == CLI_ENUM) {
                print_choices(out, &op->arguments[n]);
                fputc(' ', out);
            }
        print_names(out, op);
        fputs("'\n", out);
        print_listed(out, op);
        fputs("            ;;\n", out);
    }
    fputs("        esac\n"
          "    fi\n"
          "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
          "}\n"
          "complete -F _tabique tabique\n",
          out);
}
