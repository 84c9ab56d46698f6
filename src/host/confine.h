/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Confinement: a process that has opened what it needs gives up everything else, before it reads a byte that
 * a guest or a stranger wrote. Called by the VM process (machine/), by the process of a user-mode network
 * (net/) and by the one that serves disks (disk/); `tabique check` tries it in a child. docs/threat-model.md
 * tells what each step is for.
 *
 *     fork -> confine_begin -> open files -> confine_process -> build the machine, start threads
 *          each thread: confine_thread(its kind);  then confine_thread(CONFINE_MAIN) -> serve
 *
 * A step that this host does not permit is left out and told in the status; only what works everywhere (no
 * new privileges, no capabilities, the system call lists, closed descriptors, limits) must succeed.
 */
#ifndef TABIQUE_HOST_CONFINE_H
#define TABIQUE_HOST_CONFINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

/* What a thread does. Each kind has its own list of system calls: confine_calls.def. */
enum confine_kind {
    CONFINE_START,     /* the VM process's only thread while it builds the machine */
    CONFINE_MAIN,      /* its event loop from then on */
    CONFINE_VCPU_SOFT, /* a processor of the soft engine */
    CONFINE_VCPU_KVM,  /* a processor of the kvm engine */
    CONFINE_DISK,      /* reads and writes disks that are open */
    CONFINE_NET,       /* moves frames between a queue and an open tap device or socket */
    CONFINE_NAT,       /* the process of a user-mode network: may make connections, has no files */
    CONFINE_SERVE,     /* serves disks that are open to whoever connects to a socket that is open */
    CONFINE_UNPACK,    /* unpacks a strange archive into a directory, which is its root */
    CONFINE_READ,      /* a command that reads strange images that are open, and says what it found */
    CONFINE_WRITE,     /* one that writes such images, or makes others of them */
    CONFINE_KINDS
};

/*
 * The first thing in a fresh child: takes it out of its parent's hands but for `keep` (in any order; those
 * below 0 don't count). All other descriptors are closed, those of standard input, output and error that are
 * not kept become /dev/null, signals have their standard effect, the session is a new one, without a
 * terminal; and the process dies when `parent` does, which must be its parent (0: it does not). `name` is the
 * thread's, of at most 15 bytes. 0 or -errno with *err.
 */
int confine_begin(pid_t parent, const char *name, const int *keep, size_t n_keep, struct error **err);

struct confine_config {
    enum confine_kind kind; /* CONFINE_START, NAT, SERVE or UNPACK: what the calling thread goes on as */
    const char *title; /* what `ps` shows instead of the arguments; these and the environment are then wiped,
                          so nothing may point into them. NULL leaves both */
    const char *file;  /* CONFINE_NAT: the one file that may still be read (/etc/resolv.conf), or NULL */
    int directory; /* CONFINE_UNPACK: becomes the root and the working directory; it keeps its user, and of
                      root's capabilities those to make files of any owner */
    uint64_t
        headroom; /* bytes of address space on top of what the machine has when it is built; 0: no limit */
    unsigned descriptors; /* at most so many are open at once, from now on; 0: 1024 */
};

/* The steps that depend on the host, in the order in which they are taken. */
enum confine_step {
    CONFINE_USER,     /* user namespace: for those who are not root, the way to all others */
    CONFINE_MOUNT,    /* mount namespace */
    CONFINE_NETWORK,  /* network namespace without an interface */
    CONFINE_IPC,      /* System V IPC and message queues */
    CONFINE_UTS,      /* host name */
    CONFINE_CGROUP,   /* cgroup namespace */
    CONFINE_ROOT,     /* an empty, read-only root directory */
    CONFINE_IDENTITY, /* started by root: a user id of its own */
    CONFINE_LANDLOCK, /* no file can be opened, no port used, no process outside signalled */
    CONFINE_SESSION,  /* a keyring of its own */
    CONFINE_STEPS
};

enum confine_state {
    CONFINE_REFUSED,  /* the host does not permit it; what the others give must do */
    CONFINE_WEAKER,   /* by a lesser means */
    CONFINE_UNNEEDED, /* makes no sense in this case */
    CONFINE_DONE,
};

/* Plain values of fixed size: a confined process sends it to its supervisor. */
struct confine_status {
    uint8_t state[CONFINE_STEPS];  /* enum confine_state */
    uint16_t error[CONFINE_STEPS]; /* why not, a positive errno; 0 where it was done */
};

/*
 * Confines the calling process, which must have one thread only and is not to go on if this fails.
 * Descriptors 0, 1 and 2 that are not kept become /dev/null. 0 with *status, or -errno with *err.
 */
int confine_process(const struct confine_config *config, struct confine_status *status, struct error **err);

/*
 * Narrows the calling thread's list to that of `kind`; it can't be widened again. With CONFINE_MAIN the
 * process's start is over: no more threads and no more address space than config->headroom. Does nothing in a
 * process that is not confined. 0 or -errno; after a failure the thread must not touch guest data.
 */
int confine_thread(enum confine_kind kind);

/*
 * For a command that has opened the images it is to read: from now on it can open, make and execute nothing,
 * has no network, and reaches no other process; it reads what is open, and says what it found. What else it
 * tries fails with -EPERM. It goes on as the user's own process, so what differs from confine_process is that
 * its descriptors and its identity stay. Threads that are started already are not confined. 0 or -errno with
 * *err.
 */
int confine_reader(struct error **err);
/* The same for one that writes what it has opened, too, and may start threads, which are confined with it. */
int confine_writer(struct error **err);

/* Whether every step was done that makes a difference. */
bool confine_complete(const struct confine_status *status);
/* One line for people, "complete: ..." or "partial: ...", cut to `len` bytes; any bytes in *status are fine.
 */
void confine_describe(const struct confine_status *status, char *buf, size_t len);
/* "mount" (a namespace up to CONFINE_CGROUP), "empty root", ...; NULL beyond the last. */
const char *confine_step_name(enum confine_step step);

/*
 * Tries what a VM process would get here, in a child; nothing stays. 0 with *status, or -errno with *err
 * where not even the necessary steps work.
 */
int confine_try(struct confine_status *status, struct error **err);

/*
 * What to say of a confined process that ended with `wait_status` because it left its list: it names the next
 * step for a developer. NULL if it ended otherwise.
 */
const char *confine_violation(int wait_status);

#endif
