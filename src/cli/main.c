/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tabique VERB ARGUMENTS: finds the operation's row, has it parsed, calls its handler, reports. Under the
 * name tabique-oci it is the OCI runtime, as the smaller program of that name is. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/suggest.h"
#include "cli/cli.h"
#include "cli/oci.h"

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

/* `group` is NULL where the first word is unknown. */
static int unknown_verb(const struct cli_group *group, const char *verb)
{
    const char *names[64];
    size_t n = 0;

    while (n < ARRAY_SIZE(names) && (names[n] = cli_word(group, n)))
        n++;
    const char *meant = suggest_nearest(verb, names, n);
    fprintf(stderr, "tabique%s%s: unknown %s '%s'%s%s%s\nTry 'tabique %s%s--help'.\n", group ? " " : "",
            group ? group->name : "", verb[0] == '-' ? "flag" : "verb", verb, meant ? ": did you mean '" : "",
            meant ? meant : "", meant ? "'?" : "", group ? group->name : "", group ? " " : "");
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
    rc = op->run(values, &status, &err);
    cli_values_free(values);
    /* What is wrong with an argument may be known to its handler only. */
    if (rc < 0 && status == CLI_STATUS_USAGE)
        return usage_error(op, err);
    if (rc < 0)
        fprintf(stderr, "tabique %s: %s\n", op->name, error_message(err));
    return status;
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* What follows "tabique GROUP". */
static int perform_in_group(const struct cli_group *group, int argc, char **argv)
{
    cleanup_free char *name = NULL;

    if (argc == 0) {
        cli_print_group(stderr, group);
        return CLI_STATUS_USAGE;
    }
    if (is_help(argv[0])) {
        cli_print_group(stdout, group);
        return 0;
    }
    if (asprintf(&name, "%s %s", group->name, argv[0]) < 0)
        abort();
    const struct cli_operation *op = cli_find_operation(name);
    return op ? perform(op, argc - 1, argv + 1) : unknown_verb(group, argv[0]);
}

/* A confined process wipes the arguments that it was started with (host/confine.h), so nothing points to
 * them. */
static char **copy_arguments(int argc, char **argv)
{
    char **copy = calloc((size_t)argc + 1, sizeof(*copy));

    for (int i = 0; copy && i < argc; i++) {
        copy[i] = strdup(argv[i]);
        if (!copy[i])
            return NULL;
    }
    return copy;
}

int main(int argc, char **original)
{
    static char **argv; /* kept to the end */
    int status;

    open_standard_files();
    argv = copy_arguments(argc, original);
    if (!argv) {
        fputs("tabique: out of memory\n", stderr);
        return CLI_STATUS_FAILED;
    }
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    if (argc > 0 && strcmp(slash ? slash + 1 : argv[0], "tabique-oci") == 0)
        return oci_main(argc, argv);
    if (argc < 2) {
        cli_print_overview(stderr);
        return CLI_STATUS_USAGE;
    }
    const struct cli_operation *op = cli_find_operation(argv[1]);
    const struct cli_group *group = cli_find_group(argv[1]);
    if (op && !cli_group_of(op)) {
        status = perform(op, argc - 2, argv + 2);
    } else if (group) {
        status = perform_in_group(group, argc - 2, argv + 2);
    } else if (is_help(argv[1])) {
        cli_print_overview(stdout);
        status = 0;
    } else if (strcmp(argv[1], "--version") == 0) {
        puts("tabique " TABIQUE_VERSION);
        status = 0;
    } else {
        return unknown_verb(NULL, argv[1]);
    }
    /* Output that did not arrive is a failure, though only where nothing worse happened. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == 0) {
        fprintf(stderr, "tabique: standard output: %s\n", strerror(errno));
        status = CLI_STATUS_FAILED;
    }
    return status;
}
