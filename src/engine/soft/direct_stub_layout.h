/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A stub's own pages, as they lie there; for direct_stub_code.S too. */
#ifndef TABIQUE_ENGINE_SOFT_DIRECT_STUB_LAYOUT_H
#define TABIQUE_ENGINE_SOFT_DIRECT_STUB_LAYOUT_H

/* The code; commands, which can't be written there; the exchange and the signals' stack, which can. */
#define STUB_COMMANDS_AT 0x1000
#define STUB_EXCHANGE_AT 0x2000
#define STUB_STACK_AT    0x3000
#define STUB_STACK_SIZE  0x8000
#define STUB_SIZE        0xb000
/* Behind them, in the file only: copies of the guest's pages. */
#define STUB_COPIES_AT STUB_SIZE

/* Of the page of commands. */
#define STUB_SEQUENCE   0 /* counted up with each new list: what the mapper waits for */
#define STUB_PROCESSORS 64
#define STUB_FIRST      192
#define STUB_COMMAND    56 /* a system call and six arguments */

/* struct stub_exchange */
#define STUB_TURN      0
#define STUB_BEGUN     4
#define STUB_SIGNAL    8
#define STUB_SET       12
#define STUB_CONTEXT   16
#define STUB_FS_BASE   24
#define STUB_GS_BASE   32
#define STUB_DS        40
#define STUB_ES        42
#define STUB_FS        44
#define STUB_GS        46
#define STUB_HAS_BASES 48
#define STUB_TSC       52
#define STUB_DONE      56
#define STUB_RESULT    64

/* What the runner is to set before it goes on. */
#define STUB_SET_SEGMENTS   1
#define STUB_SET_FS_BASE    2
#define STUB_SET_GS_BASE    4
#define STUB_SET_PROCESSORS 8
#define STUB_SET_TSC        16
#define STUB_SET_END        32 /* its life */

#endif
