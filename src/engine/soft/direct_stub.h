/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A stub: a process that holds pages of the guest at the guest's own addresses, and executes the guest's user
 * code on them with the host's processor. Whatever stops that code is a signal there: an exception, a system
 * call (a filter makes a signal of each, before the host's kernel looks at it), or a kick. Its handler tells
 * the *leader*, the thread that made the stub, by a word in memory, and waits there for what to go on with.
 *
 * It is two processes with one memory. The *runner* executes the guest's code, and can change nothing of what
 * is mapped. The *mapper* maps and unmaps what the leader tells it to, and executes nothing else.
 *
 * What stands in their memory beside the guest's pages are eleven pages at a random place: code, the mapper's
 * commands (read-only there), and where leader and stub exchange registers. The guest's code can jump to the
 * first and write to the last, if it finds them, and gains nothing: it may make its own registers, its own
 * waiting, or its own end.
 *
 * All functions are for the thread that made the stub.
 */
#ifndef TABIQUE_ENGINE_SOFT_DIRECT_STUB_H
#define TABIQUE_ENGINE_SOFT_DIRECT_STUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct error;

/* One past the last address of user code (the host's own limit for processes, without its last page). */
#define DIRECT_USER_END 0x7ffffffff000ull

/* Pages that a stub may have that are none of the guest's. */
#define STUB_COPIES 16u

struct direct_stub {
    pid_t runner, mapper;    /* 0: not known yet; -1: it has ended */
    int pidfd;               /* of the runner, for signals from other threads */
    int memory_fd, own_fd;   /* the second's number in the stub only */
    uint8_t *shared;         /* the stub's own pages and room for copies, as they are mapped here */
    uint64_t at;             /* where they are in the stub */
    uint32_t context, xsave; /* of these: where the registers of code that has stopped are */
    uint32_t mxcsr_mask;
    unsigned queued;   /* commands that have not been executed yet */
    uint32_t sequence; /* of the last list of commands */
    uint32_t set;      /* what the runner is to do before it goes on */
    clockid_t clock;   /* of the runner's time on the processor */
    uint64_t used;     /* ns of that up to the last run's end */
    uint64_t ran;      /* ns of that in the last run */
    bool tsc_hidden;
    bool dead;
};

/* Of the guest's code, in the order of their encoding. To run it, cs is the host's 0x33, ds and es are what
 * the host's table has, fs and gs 0. */
struct direct_registers {
    uint64_t gpr[16];
    uint64_t rip, rflags, fs_base, gs_base;
    uint16_t cs, ds, es, fs, gs;
};

enum direct_stop {
    DIRECT_STOP_SYSCALL, /* rip is after the instruction, rax as it was */
    DIRECT_STOP_SIGNAL,  /* direct_stub_signal tells which */
    DIRECT_STOP_KICK,    /* somebody called direct_stub_kick */
    DIRECT_STOP_DEAD,    /* the process has ended: its registers are lost */
    DIRECT_STOP_GONE,    /* the process had ended before it could run: regs is as it was */
};

/* `memory_fd`: the memfd of guest RAM. The calling thread becomes the leader. 0 or -errno with *err; undo
 * with direct_stub_destroy. */
int direct_stub_create(struct direct_stub *stub, int memory_fd, struct error **err);
void direct_stub_destroy(struct direct_stub *stub);

/*
 * Queue a change of the address space; carried out at direct_stub_apply, or when the queue is full. `prot`:
 * PROT_READ and so on; `offset`: in the memfd. Addresses and lengths are multiples of the page size and don't
 * touch the stub's own pages. 0 or -errno of a change that was carried out.
 */
int direct_stub_map(struct direct_stub *stub, uint64_t address, uint64_t length, int prot, uint64_t offset);
int direct_stub_unmap(struct direct_stub *stub, uint64_t address, uint64_t length);
/* As map, of a page that direct_stub_copy gives. */
int direct_stub_map_copy(struct direct_stub *stub, uint64_t address, int prot, unsigned number);
int direct_stub_apply(struct direct_stub *stub);
/* Queue its going to this processor of the host, which it does not leave by itself: to where its leader runs,
 * since waking each other is many times dearer across processors. 0 or -errno. */
int direct_stub_move(struct direct_stub *stub, unsigned cpu);
/* Whether RDTSC and RDTSCP are to stop the code, from the next run on. If so, some hosts whose kernel is
 * virtualized in software take 10 us longer to go from the stub to others and back. */
void direct_stub_hide_tsc(struct direct_stub *stub, bool hide);
/* Everything but the stub's own pages. */
int direct_stub_unmap_all(struct direct_stub *stub);
/* A page that no guest's memory has, to be written here and mapped there: `number` is below STUB_COPIES. */
uint8_t *direct_stub_copy(const struct direct_stub *stub, unsigned number);
/* Whether [address, address + length) touches the stub's own pages. */
bool direct_stub_occupies(const struct direct_stub *stub, uint64_t address, uint64_t length);

/* Lets the guest's code run with these registers until it stops; `regs` are then those of the stop. */
enum direct_stop direct_stub_run(struct direct_stub *stub, struct direct_registers *regs);
/* After DIRECT_STOP_SIGNAL: its number, si_code and si_addr. */
int direct_stub_signal(const struct direct_stub *stub, int *code, uint64_t *address);
/* The x87, SSE and AVX state while no code runs: the first `size` bytes of XSAVE's standard form, the header
 * among them. What the host's processor has beyond is in its initial state. */
void direct_stub_get_xstate(const struct direct_stub *stub, uint8_t *xsave, size_t size);
void direct_stub_set_xstate(struct direct_stub *stub, const uint8_t *xsave, size_t size);

/* Any thread: stops the code that runs, or at once what is to run next. */
void direct_stub_kick(int pidfd);

#endif
