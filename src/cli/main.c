/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tabique VERB ARGUMENTS: finds the operation's row, has it parsed, calls its handler, reports. */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* With one of the three closed, the next file opened would take its place and its traffic. */
static void open_standard_files(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_WRONLY : O_RDONLY) != fd)
            _exit(CLI_STATUS_FAILED);
}

static int usage_error(const struct cli_operation *op, const struct error *err)
{
    fprintf(stderr, "tabique %s: %s\nTry 'tabique %s --help'.\n", op->name, error_message(err), op->name);
    return CLI_STATUS_USAGE;
}

static int unknown_verb(const char *verb)
{
    const char *names[32];
    size_t n = 0;

    for (size_t i = 0; i < cli_n_operations && n < 32; i++)
        if (!cli_operations[i].hidden)
            names[n++] = cli_operations[i].name;
    const char *meant = cli_suggest(verb, names, n);
    fprintf(stderr, "tabique: unknown %s '%s'%s%s%s\nTry 'tabique --help'.\n",
            verb[0] == '-' ? "flag" : "verb", verb, meant ? ": did you mean '" : "", meant ? meant : "",
            meant ? "'?" : "");
    return CLI_STATUS_USAGE;
}

static int perform(const struct cli_operation *op, int argc, char **argv)
{
    cleanup_error struct error *err = NULL;
    struct cli_values *values = NULL;
    int rc = cli_parse(op, argc, argv, &values, &err);

    if (rc == -ECANCELED) {
        cli_print_help(stdout, op);
        return 0;
    }
    if (rc)
        return usage_error(op, err);
    int status = CLI_STATUS_FAILED;
    if (op->run(values, &status, &err) < 0)
        fprintf(stderr, "tabique %s: %s\n", op->name, error_message(err));
    cli_values_free(values);
    return status;
}

int main(int argc, char **argv)
{
    int status;

    open_standard_files();
    if (argc < 2) {
        cli_print_overview(stderr);
        return CLI_STATUS_USAGE;
    }
    const struct cli_operation *op = cli_find_operation(argv[1]);
    if (op) {
        status = perform(op, argc - 2, argv + 2);
    } else if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        cli_print_overview(stdout);
        status = 0;
    } else if (strcmp(argv[1], "--version") == 0) {
        puts("tabique " TABIQUE_VERSION);
        status = 0;
    } else {
        return unknown_verb(argv[1]);
    }
    /* Output that did not arrive is a failure, though only where nothing worse happened. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0) {
        fprintf(stderr, "tabique: standard output: %s\n", strerror(errno));
        status = CLI_STATUS_FAILED;
    }
    return status;
}
