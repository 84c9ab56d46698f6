/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When user code is to run in a stub: once it is likely to gain more there than the ways there and back and
 * the mapping of its pages take.
 *
 * Two things are known of each address space. How long its code stays in user mode between two entries of the
 * kernel that it causes itself (`mean`): it must be worth a way there and back. And an account: a new program
 * has to stay translated for as long as mapping its pages may take (most end before that); what a stub then
 * gains and what it takes are held against each other, and a program that loses there is translated for a
 * multiple of the loss before it is tried again, and for twice that if it loses again. So bad luck costs no
 * more than a part of the time, and less and less of it.
 *
 * Time is the processor's, in ticks of the TSC. For the vCPU's thread.
 */
#ifndef TABIQUE_ENGINE_SOFT_DIRECT_POLICY_H
#define TABIQUE_ENGINE_SOFT_DIRECT_POLICY_H

#include <stdbool.h>
#include <stdint.h>

struct soft_vcpu;

/* Address spaces that are known; others share a place, and begin anew each time. */
#define DIRECT_HISTORIES 256u

struct direct_history {
    uint64_t cr3;     /* page of the top table */
    uint64_t tables;  /* what tells it from another one that had this page before */
    uint64_t since;   /* in user mode since it last entered the kernel by itself */
    uint64_t mean;    /* of such stretches, as if all were translated */
    uint64_t debt;    /* so long it is translated before a stub is tried */
    int64_t balance;  /* what stubs have gained since then */
    uint64_t caution; /* the debt after the next loss, in the price of an attempt */
};

struct direct_policy {
    struct direct_history histories[DIRECT_HISTORIES];
    struct direct_history *current;
    uint64_t flushes; /* soft_vcpu.flushes when it was found */
    uint64_t worth;   /* a stretch that is worth the way */
    uint64_t price;   /* what it may take until a program's pages are mapped */
    uint64_t entered; /* user mode, or what has been counted of it */
    uint64_t gained;  /* by stubs since then: what the same would have taken beyond that */
};

/* `trip`: the way to a stub and back. */
void direct_policy_init(struct direct_policy *p, uint64_t trip);

/* User mode begins, or ends; `interrupted`: by something that its code has not caused. */
void direct_policy_enter(struct direct_policy *p, const struct soft_vcpu *c, uint64_t now);
void direct_policy_leave(struct direct_policy *p, uint64_t now, bool interrupted);
/* The stretch is over, even if the kernel is not entered. */
void direct_policy_cut(struct direct_policy *p, uint64_t now);

/* Whether to run in a stub. */
bool direct_policy_wants(const struct direct_policy *p);
/* It did, from tick `begin` to `now`; of these its code had `ran`, and others the processor for `waited`. */
void direct_policy_account(struct direct_policy *p, uint64_t begin, uint64_t now, uint64_t ran,
                           uint64_t waited);

#endif
