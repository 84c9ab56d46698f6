/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a stub and its leader share: between direct_stub.c and direct_stub_child.c. */
#ifndef TABIQUE_ENGINE_SOFT_DIRECT_STUB_PRIV_H
#define TABIQUE_ENGINE_SOFT_DIRECT_STUB_PRIV_H

#include "engine/soft/direct_stub_layout.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The signal that stops the guest's code. */
#define STUB_KICK SIGUSR1

/* Whose turn it is: the guest's code runs, or it has stopped. */
enum { STUB_RUNS, STUB_STOPPED };

/* Read and written by all; the guest's code may find it, so what is in it is believed no more than that code
 * is. */
struct stub_exchange {
    _Atomic uint32_t turn;
    _Atomic uint32_t begun; /* the runner has taken over what it was given */
    uint32_t signal;        /* that has stopped the code */
    uint32_t set;           /* STUB_SET_ ... */
    uint64_t context;       /* where the code's registers are, in the stub */
    uint64_t fs_base, gs_base;
    uint16_t ds, es, fs, gs;
    uint32_t has_bases;     /* the processor tells the bases of FS and GS */
    uint32_t tsc;           /* PR_TSC_ENABLE or PR_TSC_SIGSEGV */
    _Atomic uint32_t done;  /* the last list of commands that the mapper has been through */
    int64_t result;         /* of that list's last call, or what ended it */
    _Atomic int32_t mapper; /* its process */
};

/* What the mapper reads: a system call and its arguments, until a negative number. */
struct stub_command {
    int64_t call;
    uint64_t args[6];
};

_Static_assert(
    offsetof(struct stub_exchange, turn) == STUB_TURN && offsetof(struct stub_exchange, set) == STUB_SET &&
        offsetof(struct stub_exchange, signal) == STUB_SIGNAL &&
        offsetof(struct stub_exchange, context) == STUB_CONTEXT &&
        offsetof(struct stub_exchange, fs_base) == STUB_FS_BASE &&
        offsetof(struct stub_exchange, gs_base) == STUB_GS_BASE &&
        offsetof(struct stub_exchange, ds) == STUB_DS && offsetof(struct stub_exchange, es) == STUB_ES &&
        offsetof(struct stub_exchange, fs) == STUB_FS && offsetof(struct stub_exchange, gs) == STUB_GS &&
        offsetof(struct stub_exchange, has_bases) == STUB_HAS_BASES &&
        offsetof(struct stub_exchange, begun) == STUB_BEGUN &&
        offsetof(struct stub_exchange, done) == STUB_DONE &&
        offsetof(struct stub_exchange, result) == STUB_RESULT &&
        offsetof(struct stub_exchange, tsc) == STUB_TSC && sizeof(struct stub_command) == STUB_COMMAND,
    "direct_stub_layout.h says otherwise");

/* direct_stub_code.S */
extern const uint8_t direct_stub_code[], direct_stub_code_end[], direct_stub_begin[], direct_stub_handler[],
    direct_stub_mapper[], direct_stub_after_wake[], direct_stub_after_wait[], direct_stub_after_set_fs[],
    direct_stub_after_set_gs[], direct_stub_after_move[], direct_stub_after_return[], direct_stub_after_end[],
    direct_stub_after_tsc[];

/* The life of the forked process: `own` is the file of the stub's pages, `at` where they are to be. */
_Noreturn void direct_stub_child(int own, uint64_t at, int memory_fd);

#endif
