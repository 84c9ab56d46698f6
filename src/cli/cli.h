/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of operations. One row names an operation, its typed arguments and its handler; the parser,
 * --help, the man page and the shell completion are made from it, so none of them can say something else.
 */
#ifndef TABIQUE_CLI_CLI_H
#define TABIQUE_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct error;
struct cli_values;

#define CLI_STATUS_FAILED      1
#define CLI_STATUS_USAGE       2
#define CLI_STATUS_INTERRUPTED 130

enum cli_type {
    CLI_BOOL,    /* a flag without value */
    CLI_STRING,  /* any text */
    CLI_PATH,    /* a file on the host; only the completion knows the difference */
    CLI_UINT,    /* a decimal number from min to max */
    CLI_DECIMAL, /* likewise, with up to three digits behind a point; its number, min and max are thousandths
                  */
    CLI_SIZE,    /* bytes, with K, M, G or T for powers of 1024; min to max, a multiple of `multiple` */
    CLI_ENUM,    /* one of `choice` */
};

struct cli_argument {
    const char *name; /* without "--"; of a positional argument its name in help */
    char letter;      /* the flag's short form, such as 'd' for -d; 0: none */
    enum cli_type type;
    const char *metavar;  /* of the value, in help */
    const char *fallback; /* the value if it is not given, as one would type it; or NULL */
    const char *help;     /* a sentence or more; becomes a paragraph */
    const char *kind;     /* of `run`: the kind of guest that it is for; NULL: each */
    bool required;
    bool repeatable;
    bool positional;
    uint64_t min, max, multiple;
    /* CLI_ENUM: the i-th value, NULL after the last. */
    const char *(*choice)(size_t i);
    /* CLI_STRING: what else is to be checked. 0; or -EINVAL with *err, which names the argument. Optional. */
    int (*check)(const char *text, struct error **err);
    const char
        *listed_by; /* for completion: the words after "tabique" that print what it can be, a line each */
};

struct cli_status {
    const char *status;
    const char *meaning;
};

struct cli_operation {
    const char *name;        /* "verb", or "group verb" of a group in cli_groups */
    const char *summary;     /* one line, no period */
    const char *description; /* paragraphs, separated by \n\n */
    const struct cli_argument *arguments;
    size_t n_arguments;
    const struct cli_status *statuses; /* the exit statuses, but for 2, which all have */
    size_t n_statuses;
    const char *example; /* lines, or NULL */
    bool hidden;         /* for the build, not for people */
    /* Does it. 0 with *status, the exit status; or -errno with *err. Then *status may be set too (it is
     * CLI_STATUS_FAILED otherwise). */
    int (*run)(const struct cli_values *values, int *status, struct error **err);
};

/* The i-th of all, in the order in which they are told of; NULL after the last. */
const struct cli_operation *cli_operation(size_t i);

/* Those that operations.c does not hold itself: operations_guest.c, operations_snapshot.c, operations_disk.c.
 */
extern const struct cli_operation cli_guest_operations[], cli_snapshot_operations[], cli_disk_operations[];
extern const size_t cli_n_guest_operations, cli_n_snapshot_operations, cli_n_disk_operations;

/* Operations on one kind of thing, with a first word in common. */
struct cli_group {
    const char *name;
    const char *summary; /* one line, no period */
};

extern const struct cli_group cli_groups[];
extern const size_t cli_n_groups;

/* NULL if there is none of that name. */
const struct cli_operation *cli_find_operation(const char *name);
const struct cli_group *cli_find_group(const char *name);

/* The group that the operation belongs to, NULL if it stands alone; and its own word in it. */
const struct cli_group *cli_group_of(const struct cli_operation *operation);
const char *cli_verb_of(const struct cli_operation *operation);

/* The i-th word that can follow "tabique" (group NULL) or "tabique GROUP", in the table's order and without
 * what is hidden; NULL after the last. */
const char *cli_word(const struct cli_group *group, size_t i);

/* ---- parse.c ---- */

/*
 * Parses what follows the operation's name. -EINVAL with *err, which says what was wrong with which argument;
 * -ECANCELED when --help was asked for. Free with cli_values_free.
 */
int cli_parse(const struct cli_operation *operation, int argc, char **argv, struct cli_values **out,
              struct error **err);
void cli_values_free(struct cli_values *values);

/* The value of an argument of the operation: given or fallback. NULL, 0, false for none. Of a repeatable one
 * the first `n` with cli_list. Strings belong to `values` or to argv. */
const char *cli_string(const struct cli_values *values, const char *name);
uint64_t cli_uint(const struct cli_values *values, const char *name);
bool cli_bool(const struct cli_values *values, const char *name);
const char **cli_list(const struct cli_values *values, const char *name, size_t *n);

/* Whether it was given, and is not the fallback. */
bool cli_given(const struct cli_values *values, const char *name);

/* The name of the operation that they belong to. */
const char *cli_verb(const struct cli_values *values);

/* Bytes from text such as 512M. -EINVAL, -ERANGE. */
int cli_parse_size(const char *text, uint64_t *out);

/* ---- help.c, man.c, completion.c ---- */

void cli_print_help(FILE *out, const struct cli_operation *operation);
void cli_print_group(FILE *out, const struct cli_group *group);
void cli_print_overview(FILE *out);
void cli_print_man(FILE *out);
void cli_print_bash_completion(FILE *out);

/* ---- the operations' handlers, one file each ---- */

int cli_run(const struct cli_values *values, int *status, struct error **err);
int cli_ps(const struct cli_values *values, int *status, struct error **err);
int cli_console(const struct cli_values *values, int *status, struct error **err);
int cli_logs(const struct cli_values *values, int *status, struct error **err);
int cli_inspect(const struct cli_values *values, int *status, struct error **err);
int cli_stats(const struct cli_values *values, int *status, struct error **err);
int cli_profile(const struct cli_values *values, int *status, struct error **err);
int cli_stop(const struct cli_values *values, int *status, struct error **err);
int cli_kill(const struct cli_values *values, int *status, struct error **err);
int cli_start(const struct cli_values *values, int *status, struct error **err);
int cli_restart(const struct cli_values *values, int *status, struct error **err);
int cli_pause(const struct cli_values *values, int *status, struct error **err);
int cli_resume(const struct cli_values *values, int *status, struct error **err);
int cli_balloon(const struct cli_values *values, int *status, struct error **err);
int cli_exec(const struct cli_values *values, int *status, struct error **err);
int cli_cp(const struct cli_values *values, int *status, struct error **err);
int cli_update(const struct cli_values *values, int *status, struct error **err);
int cli_rm(const struct cli_values *values, int *status, struct error **err);
int cli_backup(const struct cli_values *values, int *status, struct error **err);
int cli_stream(const struct cli_values *values, int *status, struct error **err);
int cli_snapshot(const struct cli_values *values, int *status, struct error **err);
int cli_snapshots(const struct cli_values *values, int *status, struct error **err);
int cli_restore(const struct cli_values *values, int *status, struct error **err);
int cli_snapshot_rm(const struct cli_values *values, int *status, struct error **err);
int cli_clone(const struct cli_values *values, int *status, struct error **err);
int cli_events(const struct cli_values *values, int *status, struct error **err);
int cli_check(const struct cli_values *values, int *status, struct error **err);
int cli_image_build(const struct cli_values *values, int *status, struct error **err);
int cli_image_import(const struct cli_values *values, int *status, struct error **err);
int cli_image_export(const struct cli_values *values, int *status, struct error **err);
int cli_image_ls(const struct cli_values *values, int *status, struct error **err);
int cli_image_inspect(const struct cli_values *values, int *status, struct error **err);
int cli_image_rm(const struct cli_values *values, int *status, struct error **err);
int cli_disk_create(const struct cli_values *values, int *status, struct error **err);
int cli_disk_info(const struct cli_values *values, int *status, struct error **err);
int cli_disk_map(const struct cli_values *values, int *status, struct error **err);
int cli_disk_check(const struct cli_values *values, int *status, struct error **err);
int cli_disk_repair(const struct cli_values *values, int *status, struct error **err);
int cli_disk_rebase(const struct cli_values *values, int *status, struct error **err);
int cli_disk_commit(const struct cli_values *values, int *status, struct error **err);
int cli_disk_resize(const struct cli_values *values, int *status, struct error **err);
int cli_disk_bitmap(const struct cli_values *values, int *status, struct error **err);
int cli_disk_snapshot(const struct cli_values *values, int *status, struct error **err);
int cli_disk_compare(const struct cli_values *values, int *status, struct error **err);
int cli_disk_convert(const struct cli_values *values, int *status, struct error **err);
int cli_disk_serve(const struct cli_values *values, int *status, struct error **err);
int cli_help(const struct cli_values *values, int *status, struct error **err);
int cli_generate(const struct cli_values *values, int *status, struct error **err);

#endif
