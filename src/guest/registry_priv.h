/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the registry's files share: the connection, and statements that are prepared, bound and stepped in one
 * go. */
#ifndef TABIQUE_GUEST_REGISTRY_PRIV_H
#define TABIQUE_GUEST_REGISTRY_PRIV_H

#include "guest/registry.h"

#include <sqlite3.h>

struct registry {
    sqlite3 *db;
    char *path;
    bool in_transaction;
    /* For one that may be kept: which file it is, and whether it may write. */
    bool writes;
    dev_t device;
    ino_t inode; /* 0: not to be kept */
};

/* Turns SQLite's last error into ours. */
int registry_error(struct registry *registry, const char *what, struct error **err);

/*
 * Prepares `sql` and binds its parameters by `types`, a letter each: s (const char *, NULL is NULL), i
 * (int64_t). 0 or -errno with *err. The statement is the connection's and serves who next has the same text:
 * it is stepped at once, and given back by cleanup_statement.
 */
int registry_prepare(struct registry *registry, sqlite3_stmt **out, struct error **err, const char *sql,
                     const char *types, ...);
/* The same for a statement that gives no rows, and runs it. */
int registry_execute(struct registry *registry, struct error **err, const char *sql, const char *types, ...);

static inline void registry_reset_fn(sqlite3_stmt **s)
{
    if (!*s) /* it could not be prepared */
        return;
    sqlite3_reset(*s);
    sqlite3_clear_bindings(*s);
}
#define cleanup_statement __attribute__((cleanup(registry_reset_fn)))

#endif
