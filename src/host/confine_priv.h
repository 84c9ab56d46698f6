/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the confinement share; each step is one function. */
#ifndef TABIQUE_HOST_CONFINE_PRIV_H
#define TABIQUE_HOST_CONFINE_PRIV_H

#include "host/confine.h"

/*
 * Sanitizers open files, map anything and ask the kernel much when they report: the lists are wider in such
 * builds (meson.build defines it), and standard error stays. They are for tests only.
 */
#ifdef TABIQUE_SANITIZED
#define CONFINE_SANITIZED true
#else
#define CONFINE_SANITIZED false
#endif

/* Marks a step by the result of what it did: 0, or -errno. */
void confine_mark(struct confine_status *status, enum confine_step step, int rc);

/* ---- confine_namespaces.c ---- */
void confine_namespaces(const struct confine_config *config, struct confine_status *status);
/* An empty root; with `file`, one that holds a copy of it. */
void confine_root(const char *file, struct confine_status *status);
/* The directory as root. */
void confine_directory(int directory, struct confine_status *status);

/* ---- confine_identity.c ---- */
/* A user id of its own where root may give one, then no capability in any set. */
int confine_privileges(struct confine_status *status, struct error **err);
/* The user stays, and no capabilities but those to make files of any owner. */
int confine_privileges_unpack(struct confine_status *status, struct error **err);
void confine_session(struct confine_status *status);

/* ---- confine_landlock.c ---- */
/* After no_new_privs. */
void confine_landlock(const struct confine_config *config, struct confine_status *status);

/* ---- confine_process.c: what the process has in its hands ---- */
int confine_descriptors(const int *keep, size_t n_keep, struct error **err);
int confine_limits(const struct confine_config *config, struct error **err);
/* Opens what tells the address space's size, while /proc is there. */
void confine_watch_size(void);
/*
 * The limits that only hold once the machine is built. `own_count`: the kernel counts this process's threads
 * apart from those of the user's other processes. 0 or -errno.
 */
int confine_limits_final(bool own_count);
void confine_prefer_as_victim(void);
void confine_signals(void);
void confine_wipe(const char *title);

/* ---- confine_seccomp.c ---- */
/* Makes the programs of all lists, while files can be made. */
int confine_seccomp_prepare(struct error **err);
/* One list alone, which takes a tenth of the time. */
int confine_seccomp_prepare_one(enum confine_kind kind, struct error **err);
/* Puts `kind`'s list over the calling thread. 0 or -errno. */
int confine_seccomp_enter(enum confine_kind kind);
/* Whether a call outside the list is told on standard error before the process dies of it. */
bool confine_seccomp_logs(void);

#endif
