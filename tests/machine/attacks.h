/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What somebody tries who has taken over a confined process: a row each. Called by test_attack.c, in each
 * kind of thread.
 */
#ifndef TABIQUE_TESTS_ATTACKS_H
#define TABIQUE_TESTS_ATTACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* What stands in the way beside the list of system calls; asserted with the lists taken away. */
enum wall {
    WALL_NONE,      /* nothing: by itself it reaches nobody */
    WALL_FILES,     /* the empty root, or Landlock */
    WALL_ROOT,      /* the empty root alone */
    WALL_NETWORK,   /* the net namespace */
    WALL_ABSTRACT,  /* the net namespace, or Landlock's scope */
    WALL_IDENTITY,  /* a user id of its own */
    WALL_SIGNALS,   /* a user id of its own, or Landlock's scope */
    WALL_PRIVILEGE, /* no capabilities, not dumpable, no_new_privs */
};

/* Where allowed: part of how a machine is built, or of what the thread is for. */
#define IN_START 1u
#define IN_NAT   2u
#define IN_MAIN  4u

struct attack {
    const char *name;
    bool (*succeeds)(void); /* errno tells how it was refused */
    enum wall wall;
    unsigned allowed; /* IN_*: the list permits it there */
};

extern const struct attack attacks[];
extern const size_t n_attacks;

/* What the attacks aim at, set before the process is confined. */
struct victims {
    pid_t process;      /* of the same user, as the supervisor is */
    int tcp_port;       /* listens on 127.0.0.1 */
    char file[128];     /* another guest's, that everybody may read and write */
    char socket[100];   /* listens at this path */
    char abstract[64];  /* listens at this name, without its first byte */
    int descriptor;     /* a connected Unix socket that the process holds */
    volatile bool *hit; /* the process has been signalled */
};

extern struct victims victims;

#endif
