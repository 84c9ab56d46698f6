/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Flags as runc takes them: --name value, --name=value, -n value, and one dash for a long name too. Called by
 * oci.c. */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/oci.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct oci_values {
    const struct oci_flag *flags;
    size_t n_flags;
    const char ***texts; /* of each flag, NULL behind the last */
    size_t *n;
    const char **words;
    size_t n_words;
};

void oci_values_free(struct oci_values *values)
{
    if (!values)
        return;
    for (size_t i = 0; values->texts && i < values->n_flags; i++)
        free(values->texts[i]);
    free(values->texts);
    free(values->n);
    free(values->words);
    free(values);
}

static void values_cleanup(struct oci_values **values)
{
    oci_values_free(*values);
}

static struct oci_values *make_values(const struct oci_flag *flags, size_t n_flags, int argc)
{
    struct oci_values *v = calloc(1, sizeof(*v));

    if (!v)
        return NULL;
    v->flags = flags;
    v->n_flags = n_flags;
    v->texts = calloc(n_flags + 1, sizeof(*v->texts));
    v->n = calloc(n_flags + 1, sizeof(*v->n));
    v->words = calloc((size_t)argc + 1, sizeof(*v->words));
    for (size_t i = 0; v->texts && i < n_flags; i++)
        v->texts[i] = calloc((size_t)argc + 1, sizeof(**v->texts));
    for (size_t i = 0; v->texts && i < n_flags; i++)
        if (!v->texts[i])
            v->words = NULL;
    if (v->texts && v->n && v->words)
        return v;
    oci_values_free(v);
    return NULL;
}

static size_t find(const struct oci_values *v, const char *name, size_t length)
{
    for (size_t i = 0; i < v->n_flags; i++)
        if ((length == 1 && v->flags[i].letter == name[0]) ||
            (strlen(v->flags[i].name) == length && strncmp(v->flags[i].name, name, length) == 0))
            return i;
    return v->n_flags;
}

static int take_flag(struct oci_values *v, int *i, int argc, char **argv, struct error **err)
{
    const char *name = argv[*i] + (argv[*i][1] == '-' ? 2 : 1), *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    size_t which = find(v, name, length);

    if ((length == 4 && strncmp(name, "help", 4) == 0) || (length == 1 && *name == 'h'))
        return -ECANCELED;
    if (which == v->n_flags)
        return error_set(err, EINVAL, "flag provided but not defined: -%.*s", (int)length, name);
    const struct oci_flag *flag = &v->flags[which];
    const char *value = equals ? equals + 1 : "true";
    if (flag->type == OCI_BOOL && equals && strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
        return error_set(err, EINVAL, "--%s=%s: true or false", flag->name, value);
    if (flag->type != OCI_BOOL && !equals) {
        if (*i + 1 >= argc)
            return error_set(err, EINVAL, "flag needs an argument: -%s", flag->name);
        value = argv[++*i];
    }
    v->texts[which][v->n[which]++] = value;
    return 0;
}

int oci_parse(const struct oci_flag *flags, size_t n_flags, size_t max_words, int argc, char **argv,
              struct oci_values **out, int *used, struct error **err)
{
    __attribute__((cleanup(values_cleanup))) struct oci_values *v = make_values(flags, n_flags, argc);
    bool ended = false;
    int i = 0;

    if (!v)
        return error_set_errno(err, ENOMEM, "arguments");
    for (; i < argc; i++) {
        if (!ended && strcmp(argv[i], "--") == 0) {
            ended = true;
        } else if (ended || argv[i][0] != '-' || !argv[i][1]) {
            /* Before the verb, the first word is the verb. */
            if (max_words == 0)
                break;
            v->words[v->n_words++] = argv[i];
            /* What follows a program belongs to it. */
            ended |= max_words == SIZE_MAX && v->n_words >= 1;
        } else {
            int rc = take_flag(v, &i, argc, argv, err);
            if (rc)
                return rc;
        }
    }
    if (used)
        *used = i;
    *out = steal_ptr(v);
    return 0;
}

static size_t index_of(const struct oci_values *v, const char *name)
{
    for (size_t i = 0; i < v->n_flags; i++)
        if (strcmp(v->flags[i].name, name) == 0)
            return i;
    abort(); /* a flag that the verb's table does not have */
}

bool oci_given(const struct oci_values *values, const char *name)
{
    return values->n[index_of(values, name)] > 0;
}

const char *oci_string(const struct oci_values *values, const char *name)
{
    size_t i = index_of(values, name);

    return values->n[i] ? values->texts[i][values->n[i] - 1] : NULL;
}

bool oci_bool(const struct oci_values *values, const char *name)
{
    const char *text = oci_string(values, name);

    return text && strcmp(text, "true") == 0;
}

const char *const *oci_list(const struct oci_values *values, const char *name)
{
    return values->texts[index_of(values, name)];
}

int oci_number(const struct oci_values *values, const char *name, unsigned *out, struct error **err)
{
    const char *text = oci_string(values, name);
    char *end;

    if (!text)
        return 0;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end || errno || number > 65536)
        return error_set(err, EINVAL, "invalid value \"%s\" for flag -%s: a number is expected", text, name);
    *out = (unsigned)number;
    return 0;
}

const char *const *oci_words(const struct oci_values *values, size_t *n)
{
    if (n)
        *n = values->n_words;
    return values->words;
}

int oci_signal(const char *text)
{
    char *end;
    long number = strtol(text, &end, 10);

    if (isdigit((unsigned char)*text))
        return *end || number < 0 || number >= NSIG ? -1 : (int)number;
    if (strncasecmp(text, "SIG", 3) == 0)
        text += 3;
    for (int i = 1; i < NSIG; i++) {
        const char *name = sigabbrev_np(i);

        if (name && strcasecmp(name, text) == 0)
            return i;
    }
    /* Real-time ones have no names of their own: RTMIN+3, RTMAX-1. */
    if (strncasecmp(text, "RTM", 3) == 0 && strlen(text) >= 5) {
        int base = strncasecmp(text, "RTMIN", 5) == 0 ? SIGRTMIN : SIGRTMAX;
        number = strtol(text + 5, &end, 10);
        return *end || base + number < SIGRTMIN || base + number > SIGRTMAX ? -1 : base + (int)number;
    }
    return -1;
}
