/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The supervisor's parts: supervisor.c (the VM's life), supervisor_console.c (log, terminal and who else is
 * attached), supervisor_control.c (the control socket). One process, one thread, one loop: no locks.
 */
#ifndef TABIQUE_GUEST_SUPERVISOR_PRIV_H
#define TABIQUE_GUEST_SUPERVISOR_PRIV_H

#include "guest/config.h"
#include "guest/console_log.h"
#include "guest/control.h"
#include "guest/guest.h"
#include "host/loop.h"
#include "machine/vm_process.h"

struct loop_timer;
struct loop_watch;
struct stream;
struct terminal;
struct connection;
struct snapshot_work;
struct supervisor;

#define SUPERVISOR_FREEZE_NS (25 * 1000000000ull) /* for an agent to freeze, or to thaw, what it has */
#define SUPERVISOR_PAUSES    64                   /* that may be unanswered at once */

enum phase {
    PHASE_STARTING, /* the VM process has not said that it is ready */
    PHASE_RUNNING,
    PHASE_DRAINING, /* it is gone; its last output is still on the way */
    PHASE_WAITING,  /* for the time to start it again */
    PHASE_DONE,
};

/* Why the guest is being ended, the strongest last. */
enum ending {
    ENDING_NOT,
    ENDING_STOP, /* asked to switch itself off */
    ENDING_QUIT, /* its VM process is asked to end */
    ENDING_KILL,
};

/* File systems that the guest's agent has frozen, or is about to. */
enum supervisor_freeze { FREEZE_NOT, FREEZE_ASKED, FREEZE_HELD, FREEZE_THAWING };

/* `why`: NULL, or why it was not done. `n`: the file systems that were. */
typedef void supervisor_frozen(struct supervisor *s, void *opaque, uint64_t n, const char *why);

struct supervisor_freezer {
    supervisor_frozen *told; /* NULL: nobody any more */
    void *opaque;
};

struct supervisor {
    struct guest *guest;
    struct guest_config config;
    bool fresh; /* the guest is new: if it can't be started it goes again */
    struct loop *loop;

    enum phase phase;
    struct vm_process vm;
    struct loop_watch *control_watch;
    struct loop_timer *limit; /* of an orderly end; of the last output; until the next start */
    bool reported;            /* VM_ENDED came: `end` is what it said */
    struct vm_message end;
    char confinement[256]; /* what the host permitted, in words; "" before it was told */
    struct policy_telling telling;
    /* The numbers of the last VM_PAUSE or VM_RESUME that was sent, and that was answered; and who waits for
     * those between. */
    uint64_t pauses_asked, pauses_answered;
    struct connection *pauses[SUPERVISOR_PAUSES];
    char crash[256];     /* what is wrong with a VM process that ended without; "" */
    uint64_t started_at; /* CLOCK_MONOTONIC, ns; 0 before VM_READY */
    uint64_t restarts_in_a_row;
    struct error *failure; /* of the supervisor itself: the guest can't go on */

    enum ending ending;
    uint64_t stop_until;                    /* when it is quit; 0: not asked */
    struct loop_timer *stop_limit, *button; /* how long it may take; the next press of the power button */
    int exit_status;                        /* for those who wait for the end */
    int left; /* a person at the terminal left: the exit status; 0: nobody did */

    /* Console */
    struct stream *console; /* the VM process's; NULL while there is none */
    bool console_ended;
    bool input_ended; /* a program's: there will be no more */
    struct console_log log;
    char last_line[256]; /* what was written since the last newline: a prompt, for who attaches */
    size_t last_line_len;
    bool foreground;
    struct terminal *terminal;
    int signal_fd;
    struct loop_watch *signal_watch;
    int early_signal; /* came in the foreground before the guest ran */

    /* Control socket */
    char *run_directory;
    int listen_fd;
    struct loop_watch *listen_watch;
    struct connection *connections;
    uint64_t reaper_at;        /* UINT64_MAX: not armed */
    struct loop_timer *reaper; /* frees connections that have ended, outside their callbacks */

    /* Sockets between host and guest */
    char *vsock_path; /* NULL: none */
    int vsock_fd;     /* listens there */
    int dial_fd;      /* where the VM process asks for connections; -1 while there is none */
    struct loop_watch *dial_watch;

    /* Disks that are about to go on in new files; NULL: none are. The locks of those that have. */
    struct snapshot_work *snapshot;
    struct layer_lock {
        int fd;
        unsigned disk;
    } * layer_locks;
    size_t n_layer_locks;

    enum supervisor_freeze freeze;
    struct supervisor_freezer freezer; /* is told of what comes next, or has them frozen */

    int ready_fd; /* tells who started us; -1: nobody waits */
};

/* ---- supervisor.c ---- */

/* Presses the power button, and after the time kills the guest. */
void supervisor_stop(struct supervisor *s, uint64_t timeout_ms);
void supervisor_kill(struct supervisor *s);
/* Has the VM process stop its vCPUs, or let them go on. 0: it will answer by the number s->pauses_asked; or
 * -errno: -EAGAIN if it leaves too much unanswered. */
int supervisor_ask_pause(struct supervisor *s, bool pause);
/* Changes what the guest's configuration says, and records it. 0 or -errno. */
int supervisor_configure(struct supervisor *s, json_t *changes);
/* A person at the terminal, or a signal, ends it: the VM is given the time to leave its disks in order. */
void supervisor_leave(struct supervisor *s, int status);

/* ---- supervisor_console.c ---- */

int supervisor_console_open(struct supervisor *s, struct error **err);  /* once, when the guest runs first */
int supervisor_console_begin(struct supervisor *s, struct error **err); /* for each VM process */
void supervisor_console_end(struct supervisor *s);
void supervisor_console_close(struct supervisor *s);
/* Signals that ask for the end, where no terminal takes care of them. */
int supervisor_hold_signals(struct supervisor *s, struct error **err);
void supervisor_release_signals(struct supervisor *s);
/* Input for the guest; returns how much was taken. */
size_t supervisor_type(struct supervisor *s, const uint8_t *bytes, size_t len);

/* ---- supervisor_vsock.c ---- */

int supervisor_vsock_open(struct supervisor *s, struct error **err); /* once */
/* For each VM process: sets what its configuration needs. *theirs: to be inherited by it, and closed here. */
int supervisor_vsock_begin(struct supervisor *s, int *theirs, struct error **err);
void supervisor_vsock_end(struct supervisor *s);
void supervisor_vsock_close(struct supervisor *s);

/* ---- supervisor_freeze.c ---- */

/* Has the guest's agent freeze its file systems; `frozen` is told. NULL, or why that can't even begin. */
const char *supervisor_freeze(struct supervisor *s, supervisor_frozen *frozen, void *opaque);
/* Has who has them frozen let them go. 0 or -errno; then `thawed` is not told. */
int supervisor_thaw(struct supervisor *s, supervisor_frozen *thawed, void *opaque);
/* Who asked for it is gone: they are thawed, now or as soon as they are frozen. */
void supervisor_freeze_forget(struct supervisor *s, const void *opaque);
void supervisor_freeze_message(struct supervisor *s, const struct vm_message *m);
/* The VM process has ended. */
void supervisor_freeze_end(struct supervisor *s);

/* ---- supervisor_snapshot.c ---- */

/* Begins; `who` gets the answer. 0 or -errno with *err. */
int supervisor_snapshot_begin(struct supervisor *s, struct connection *who,
                              const struct control_request *request, struct error **err);
void supervisor_snapshot_message(struct supervisor *s, const struct vm_message *m);
/* Nobody waits any more; `failed`: and was told so, so it must not be. */
void supervisor_snapshot_forget(struct supervisor *s, const struct connection *who, bool failed);
/* The VM process has ended. */
void supervisor_snapshot_end(struct supervisor *s);

/* ---- supervisor_stats.c ---- */

/* An answer of the control socket, the caller's. `m`: what the VM process has told. */
json_t *supervisor_stats(const struct supervisor *s, const struct vm_message *m);

/* ---- supervisor_control.c ---- */

int supervisor_control_open(struct supervisor *s, struct error **err);
/* Answers who still waits, takes the socket away. */
void supervisor_control_close(struct supervisor *s);
/* Something that somebody waits for has happened. `number`: of a pause, or the end of one, that was asked
 * for. */
void supervisor_control_paused(struct supervisor *s, uint64_t number);
void supervisor_control_stats(struct supervisor *s, const struct vm_message *m);
/* Who waits for a snapshot waits so much longer for its next step, ns. */
void supervisor_control_wait(struct connection *who, uint64_t ns);
/* Takes the answer. */
void supervisor_control_snapshot(struct connection *who, json_t *answer);
void supervisor_control_balloon(struct supervisor *s, const struct vm_message *m);
void supervisor_control_resized(struct supervisor *s, const struct vm_message *m);
void supervisor_control_profile(struct supervisor *s, const struct vm_message *m);
/* The attached: room that all have for output, 0 with a promise to say when; output; more input is wanted. */
size_t supervisor_control_room(struct supervisor *s);
void supervisor_control_output(struct supervisor *s, const uint8_t *bytes, size_t len);
void supervisor_control_input_ready(struct supervisor *s);

#endif
