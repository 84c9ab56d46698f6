/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The names of a guest's functions by address, from files with a line for each: an address, a letter and a
 * name, as in /proc/kallsyms, System.map and what nm prints. The files may come from a guest: nothing in them
 * is trusted. Called by the verb `profile`. No locks.
 */
#ifndef TABIQUE_GUEST_SYMBOLS_H
#define TABIQUE_GUEST_SYMBOLS_H

#include <stddef.h>
#include <stdint.h>

struct error;
struct symbols;

/* NULL if there is no memory. */
struct symbols *symbols_new(void);
void symbols_free(struct symbols *symbols);

/* Adds those of a file's content. 0; or -errno with *err: -EINVAL if there are none in it. */
int symbols_add(struct symbols *symbols, const char *text, size_t len, struct error **err);
int symbols_add_file(struct symbols *symbols, const char *path, struct error **err);

/* A Linux kernel puts itself at an address of its choice (KASLR), and System.map does not know it: moves the
 * kernel's symbols so that `entry_SYSCALL_64`, if it is there, is at the address that the kernel has given to
 * its processor. Then they can be searched; nothing may be added any more. */
void symbols_settle(struct symbols *symbols, uint64_t syscall_entry);

/* The function that holds the address, with *offset from its beginning; or NULL. Its name has neither spaces
 * nor semicolons, and is printable. */
const char *symbols_find(const struct symbols *symbols, uint64_t address, uint64_t *offset);

#endif
