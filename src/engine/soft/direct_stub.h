/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stub: a process that holds pages of the guest at the guest's own addresses, and executes the guest's user
 * code on them with the host's processor. It never makes a system call of its own will: it is traced, system
 * calls of the guest's code stop it before the host's kernel looks at them, and so does every exception.
 *
 * What stands in its address space beside the guest's pages are two pages at a random place: a loop that maps
 * and unmaps what the second, read-only there, tells it to. The guest's code may jump into that loop, but
 * what it calls then stops like any other system call of the guest's.
 *
 * All functions are for the thread that made the stub.
 */
#ifndef TABIQUE_ENGINE_SOFT_DIRECT_STUB_H
#define TABIQUE_ENGINE_SOFT_DIRECT_STUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>
#include <time.h>

struct error;

/* One past the last address of user code (the host's own limit for processes, without its last page). */
#define DIRECT_USER_END 0x7ffffffff000ull

/* Pages that a stub may have that are none of the guest's. */
#define STUB_COPIES 16u

struct direct_stub {
    pid_t pid;
    int pidfd;             /* for signals from other threads */
    int memory_fd, own_fd; /* the second's number in the stub only */
    uint8_t *shared;       /* the two pages and room for copies, as they are mapped here */
    uint64_t at;           /* where they are in the stub */
    unsigned queued;       /* commands that have not been executed yet */
    size_t xstate_size;
    int wait_status; /* of its last stop */
    clockid_t clock; /* of its time on the processor */
    uint64_t used;   /* ns, when it was last asked for */
    bool dead;
};

enum direct_stop {
    DIRECT_STOP_SYSCALL, /* regs.rip is after the instruction, orig_rax what rax was */
    DIRECT_STOP_SIGNAL,  /* direct_stub_signal tells which */
    DIRECT_STOP_KICK,    /* somebody called direct_stub_kick */
    DIRECT_STOP_DEAD,    /* the process has ended: its registers are lost */
    DIRECT_STOP_GONE,    /* the process had ended before it could run: regs is as it was */
};

/* `memory_fd`: the memfd of guest RAM. The calling thread becomes the tracer. 0 or -errno with *err; undo
 * with direct_stub_destroy. */
int direct_stub_create(struct direct_stub *stub, int memory_fd, struct error **err);
void direct_stub_destroy(struct direct_stub *stub);

/*
 * Queue a change of the address space; carried out at direct_stub_apply, or when the queue is full. `prot`:
 * PROT_READ and so on; `offset`: in the memfd. Addresses and lengths are multiples of the page size and don't
 * touch the stub's own two pages. 0 or -errno of a change that was carried out.
 */
int direct_stub_map(struct direct_stub *stub, uint64_t address, uint64_t length, int prot, uint64_t offset);
int direct_stub_unmap(struct direct_stub *stub, uint64_t address, uint64_t length);
/* As map, of a page that direct_stub_copy gives. */
int direct_stub_map_copy(struct direct_stub *stub, uint64_t address, int prot, unsigned number);
int direct_stub_apply(struct direct_stub *stub);
/* Queue its going to this processor of the host, which it does not leave by itself: to where its tracer runs,
 * since waking each other is many times dearer across processors. */
int direct_stub_move(struct direct_stub *stub, unsigned cpu);
/* Everything but the two pages. */
int direct_stub_unmap_all(struct direct_stub *stub);
/* A page that no guest's memory has, to be written here and mapped there: `number` is below STUB_COPIES. */
uint8_t *direct_stub_copy(const struct direct_stub *stub, unsigned number);
/* Whether [address, address + length) touches the stub's own pages. */
bool direct_stub_occupies(const struct direct_stub *stub, uint64_t address, uint64_t length);

/* Lets the guest's code run with these registers until it stops; `regs` are then those of the stop. */
enum direct_stop direct_stub_run(struct direct_stub *stub, struct user_regs_struct *regs);
/* How long it has had a processor since this was last asked, or since commands were carried out, in ns. */
uint64_t direct_stub_used(struct direct_stub *stub);
/* After DIRECT_STOP_SIGNAL: its number, si_code and si_addr. */
int direct_stub_signal(struct direct_stub *stub, int *code, uint64_t *address);
/* The x87, SSE and AVX state: the first `size` bytes of XSAVE's standard form, the header among them. What
 * the host's processor has beyond is in its initial state. 0 or -errno. */
int direct_stub_get_xstate(struct direct_stub *stub, uint8_t *xsave, size_t size);
int direct_stub_set_xstate(struct direct_stub *stub, const uint8_t *xsave, size_t size);

/* Any thread: stops the code that runs, or at once what is to run next. */
void direct_stub_kick(int pidfd);

#endif
