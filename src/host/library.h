/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shared libraries that are loaded when they are first needed. What few commands or one process use is not
 * linked with the program: each library that is (and each of those that it brings along) costs every process
 * of every guest memory for its relocations, and every command time. Each such library has a header that
 * lists the functions used of it (net/libslirp.h, image/libarchive.h, host/libcrypto.h); this is what they
 * have in common. Called by one thread at a time.
 *
 *     #define LIBFOO(F) F(foo_new) F(foo_free)            the header
 *     struct libfoo {
 *         LIBFOO(LIBRARY_POINTER)
 *     };
 *
 *     static struct libfoo functions;                     the source
 *     static const char *const names[] = {LIBFOO(LIBRARY_NAME)};
 *     static const struct library library = {"libfoo.so.1", "libfoo1", names, ARRAY_SIZE(names), &functions};
 */
#ifndef TABIQUE_HOST_LIBRARY_H
#define TABIQUE_HOST_LIBRARY_H

#include <stddef.h>

struct error;

struct library {
    const char *file;         /* what the dynamic linker finds it by: its name with the interface's version */
    const char *package;      /* Debian's, that brings it */
    const char *const *names; /* of the functions that are used */
    size_t n_names;
    void *functions; /* a structure of as many pointers to functions, in the same order */
};

#define LIBRARY_POINTER(function) __typeof__(function) *function;
#define LIBRARY_NAME(function)    #function,

/*
 * Fills library->functions with what they point to from now on; all are there or none. The library stays for
 * the life of the process. 0, also when it is there already; -ENOPKG with *err, which names the package.
 */
int library_load(const struct library *library, struct error **err);

#endif
