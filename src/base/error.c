/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The error object: an errno and one line of text that grows at its front on the way up. No locks: an error
 * belongs to the call chain that made it.
 */
#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct error {
    int errnum;
    char *message;
};

/* What is reported when there is no memory left to build the real message. Never freed. */
static struct error out_of_memory = {ENOMEM, (char *)"out of memory"};

static void set_message(struct error **err, int errnum, char *message)
{
    struct error *e = message ? malloc(sizeof(*e)) : NULL;

    if (!e) {
        free(message);
        *err = &out_of_memory;
        return;
    }
    e->errnum = errnum;
    e->message = message;
    *err = e;
}

static int vset(struct error **err, int errnum, const char *suffix, const char *format, va_list args)
{
    if (err) {
        char *text = NULL, *whole = NULL;

        if (vasprintf(&text, format, args) < 0)
            text = NULL;
        if (text && suffix && asprintf(&whole, "%s: %s", text, suffix) >= 0) {
            free(text);
            text = whole;
        }
        set_message(err, errnum, text);
    }
    return errnum ? -errnum : -EINVAL;
}

int error_set(struct error **err, int errnum, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int rc = vset(err, errnum, NULL, format, args);
    va_end(args);
    return rc;
}

int error_set_errno(struct error **err, int errnum, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int rc = vset(err, errnum, strerror(errnum), format, args);
    va_end(args);
    return rc;
}

int error_wrap(struct error **err, const char *format, ...)
{
    if (!err || !*err)
        return -EINVAL;
    int errnum = (*err)->errnum;
    if (*err != &out_of_memory) {
        char *context = NULL, *whole = NULL;
        va_list args;

        va_start(args, format);
        if (vasprintf(&context, format, args) < 0)
            context = NULL;
        va_end(args);
        if (context && asprintf(&whole, "%s: %s", context, (*err)->message) >= 0) {
            free((*err)->message);
            (*err)->message = whole;
        }
        free(context);
    }
    return errnum ? -errnum : -EINVAL;
}

const char *error_message(const struct error *err)
{
    return err ? err->message : "no error";
}

int error_errno(const struct error *err)
{
    return err ? err->errnum : 0;
}

void error_free(struct error *err)
{
    if (!err || err == &out_of_memory)
        return;
    free(err->message);
    free(err);
}
