/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * tabique-oci: the OCI runtime's command line, with runc's verbs and flags, so that whoever calls that can
 * call this. Verbs are a row each in oci.c; a verb's flags are a table in its file.
 */
#ifndef TABIQUE_CLI_OCI_H
#define TABIQUE_CLI_OCI_H

#include "container/container.h"

#include <stdbool.h>
#include <stddef.h>

struct error;

enum oci_type { OCI_BOOL, OCI_STRING, OCI_LIST };

struct oci_flag {
    const char *name; /* without dashes */
    char letter;      /* its short form, or 0 */
    enum oci_type type;
    const char *metavar; /* NULL of a switch */
    const char *help;
};

struct oci_values;

/* The flag's value, NULL or false where it was not given; of a list all, with NULL behind the last. */
const char *oci_string(const struct oci_values *values, const char *name);
bool oci_bool(const struct oci_values *values, const char *name);
bool oci_given(const struct oci_values *values, const char *name);
const char *const *oci_list(const struct oci_values *values, const char *name);
/* A number of descriptors and the like. -EINVAL with *err. */
int oci_number(const struct oci_values *values, const char *name, unsigned *out, struct error **err);
/* What is no flag, with NULL behind the last. */
const char *const *oci_words(const struct oci_values *values, size_t *n);

struct oci_verb {
    const char *name, *arguments, *summary;
    const struct oci_flag *flags;
    size_t n_flags;
    size_t min_words, max_words; /* SIZE_MAX: any number; then the first word also ends the flags */
    /* 0 with *status, the exit status; -errno with *err, and *status if it is not 1. */
    int (*run)(const struct container_runtime *runtime, const struct oci_values *values, int *status,
               struct error **err);
};

/* The verbs' rows, in the files that have what they do. */
extern const struct oci_verb oci_create_verb, oci_run_verb, oci_start_verb, oci_state_verb, oci_kill_verb,
    oci_delete_verb, oci_list_verb, oci_spec_verb, oci_features_verb, oci_exec_verb, oci_pause_verb,
    oci_resume_verb, oci_update_verb, oci_ps_verb, oci_events_verb, oci_checkpoint_verb, oci_restore_verb;

/* Parses a verb's arguments. -EINVAL with *err; -ECANCELED when --help was asked for. */
int oci_parse(const struct oci_flag *flags, size_t n_flags, size_t max_words, int argc, char **argv,
              struct oci_values **out, int *used, struct error **err);
void oci_values_free(struct oci_values *values);

/* The number of "KILL", "SIGKILL" or "9", or -1. */
int oci_signal(const char *text);

int oci_main(int argc, char **argv);

#endif
