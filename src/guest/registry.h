/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is known of guests: their configuration, their state, what happened to them. A SQLite database that
 * any number of processes use at once; each opens it for as long as it takes. What it says of a running guest
 * counts only together with the guest's lock: guest.c joins the two.
 */
#ifndef TABIQUE_GUEST_REGISTRY_H
#define TABIQUE_GUEST_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;
struct registry;

enum guest_state {
    GUEST_STARTING, /* its VM is being built */
    GUEST_RUNNING,
    GUEST_PAUSED,
    GUEST_RESTARTING, /* has ended, and its restart policy will start it again */
    GUEST_STOPPED,    /* has ended */
    GUEST_FAILED,     /* could not be started, or its engine could not go on */
    GUEST_CRASHED,    /* one of its processes was killed, or ended where it must not */
    GUEST_STATES,
};

/* "running", ... */
const char *guest_state_name(enum guest_state state);
/* Whether somebody has to hold the guest's lock in this state. */
static inline bool guest_state_is_live(enum guest_state state)
{
    return state <= GUEST_RESTARTING;
}

/* Times are nanoseconds since 1970; 0 for what has not been. */
struct guest_row {
    char *name;
    char *config; /* JSON */
    enum guest_state state;
    pid_t supervisor, vm;            /* while it is live, else 0 */
    int exit_status;                 /* of its last end, -1 if there was none */
    char *reason;                    /* how it ended last, or why it could not start; "" */
    char *engine;                    /* of its last start; "" */
    int64_t created, started, ended; /* started: for the last time, successfully */
    int64_t restarts;                /* by its restart policy, since it was started by a person */
    bool transient;                  /* to be removed at its end */
    bool by_hand;                    /* a person ended its last run, or is about to */
};

void guest_row_clear(struct guest_row *row);

enum registry_access {
    REGISTRY_READ,  /* also where nothing can be written; without a database -ENOENT, *err unset */
    REGISTRY_WRITE, /* the database must be there: else as REGISTRY_READ */
    REGISTRY_CREATE,
};

/* Opens the database in the state directory. 0; or -errno with *err (but see enum registry_access). */
int registry_open(struct registry **out, const char *directory, enum registry_access access,
                  struct error **err);
/* Ends a transaction without effect if one is open. NULL is fine. */
void registry_close(struct registry *registry);
/*
 * From now on, until as many calls of registry_let_go, one connection is not closed but serves who next opens
 * the same database: a command that does so many times would take longer for that than for all else. For
 * processes of one thread; a child must not use one of its parent's.
 */
void registry_keep(void);
void registry_let_go(void);

/*
 * Begins a transaction that alone may write, waiting for others. What is read in it stays true until
 * registry_commit. All changes take place in such a one. 0 or -errno with *err.
 */
int registry_begin(struct registry *registry, struct error **err);
int registry_commit(struct registry *registry, struct error **err);

/* 1 with *row, 0 if there is no such guest, or -errno with *err. */
int registry_find(struct registry *registry, const char *name, struct guest_row *row, struct error **err);
/* All of them, by name. 0 or -errno with *err. Free each, then the array. */
int registry_list(struct registry *registry, struct guest_row **rows, size_t *n, struct error **err);
/* Adds a guest (its name must be free), or writes all of its row but name and creation. 0 or -errno with
 * *err. */
int registry_insert(struct registry *registry, const struct guest_row *row, struct error **err);
int registry_update(struct registry *registry, const struct guest_row *row, struct error **err);
int registry_delete(struct registry *registry, const char *name, struct error **err);

struct registry_event {
    int64_t id;   /* grows */
    int64_t time; /* as in struct guest_row */
    const char *guest, *type;
    const char *details; /* a JSON object */
};

/* Records an event; the oldest are forgotten in time. 0 or -errno with *err. */
int registry_add_event(struct registry *registry, const char *guest, const char *type, const char *details,
                       struct error **err);
/* Calls fn for each event with a greater id and at or after `since`, the oldest first, until it returns
 * something else than 0, which is then returned; or -errno with *err. */
int registry_each_event(struct registry *registry, int64_t after_id, int64_t since,
                        int (*fn)(void *opaque, const struct registry_event *event), void *opaque,
                        struct error **err);

/* Nanoseconds since 1970, now. */
int64_t registry_now(void);

#endif
