/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Errors that a person may see. A function that can fail in such a way takes `struct error **err` last,
 * returns -errno, and leaves *err set; callers wrap it with what they were doing, so that the text reads from
 * the outside in: guest 'web': disk 'a.qcow2': not a qcow2 image Functions whose failures only code looks at
 * return 0 or -errno and take no `err`.
 */
#ifndef TABIQUE_BASE_ERROR_H
#define TABIQUE_BASE_ERROR_H

struct error;

/*
 * Make a new error in *err from `errnum` (a positive errno; 0 for none) and a message without final newline
 * or period. The text of errnum is not added: say what happened and what to do next. `err` may be NULL (the
 * caller does not care). Returns -errnum, or -EINVAL where errnum is 0, so that `return error_set(...)`
 * works.
 */
int error_set(struct error **err, int errnum, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* As error_set, with ": <strerror(errnum)>" appended. */
int error_set_errno(struct error **err, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "<context>: " before the message of *err, which must be set unless err is NULL. Returns the error's
 * -errno. */
int error_wrap(struct error **err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The message; valid until error_free. NULL gives "no error". */
const char *error_message(const struct error *err);

/* The positive errno, or 0. */
int error_errno(const struct error *err);

/* Frees; NULL is fine. */
void error_free(struct error *err);

static inline void error_cleanup(struct error **err)
{
    error_free(*err);
}
#define cleanup_error __attribute__((cleanup(error_cleanup)))

#endif
