/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When user code is to run in a stub: direct_policy.h. */
#include "engine/soft/direct_policy.h"

#include "engine/soft/paging.h"
#include "engine/soft/soft_priv.h"

/* How much faster code runs directly: less in loops, far more where it would have to be translated first. */
#define FASTER 5u
/* A program's pages are mapped in so many stops, more or less: beyond that most have more to do. */
#define STOPS 700u
/* So much longer than the loss it is translated before the next attempt, twice as long each time, up to: */
#define CAUTION     4u
#define CAUTION_MAX 256u

void direct_policy_init(struct direct_policy *p, uint64_t trip)
{
    *p = (struct direct_policy){.worth = 2 * trip * FASTER / (FASTER - 1), .price = STOPS * trip};
}

/* Linux begins a program with all registers zero but for the stack pointer. */
static bool program_begins(const struct soft_vcpu *c)
{
    uint64_t any = 0;

    for (unsigned n = 0; n < CPU_GPRS; n++)
        any |= n == CPU_RSP ? 0 : c->gpr[n];
    return !any;
}

/* Of the user half of the top table: a forked process gets a page that another one has just left. */
static uint64_t tables_of(const struct soft_vcpu *c)
{
    const uint64_t *top = (const uint64_t *)(const void *)soft_ram_page(c->soft, c->cr3 & PTE_ADDRESS);
    uint64_t sum = 0;

    for (unsigned n = 0; top && n < 256; n++)
        sum += (top[n] & PTE_ADDRESS) * (2 * n + 1);
    return sum;
}

static struct direct_history *history_of(struct direct_policy *p, const struct soft_vcpu *c)
{
    uint64_t page = c->cr3 & ~4095ull;
    struct direct_history *h = p->current;

    bool begins = program_begins(c);
    if (h && h->cr3 == page && p->flushes == c->flushes && !begins)
        return h;
    uint64_t tables = tables_of(c);
    p->flushes = c->flushes;
    h = &p->histories[(page >> 12 ^ page >> 18) % DIRECT_HISTORIES];
    if (h->cr3 != page || h->tables != tables || begins)
        *h = (struct direct_history){.cr3 = page, .tables = tables, .debt = p->price, .caution = CAUTION};
    return h;
}

void direct_policy_enter(struct direct_policy *p, const struct soft_vcpu *c, uint64_t now)
{
    p->current = history_of(p, c);
    p->entered = now;
    p->gained = 0;
}

static void count(struct direct_policy *p, uint64_t now)
{
    struct direct_history *h = p->current;
    uint64_t translated = now - p->entered;

    h->debt -= translated < h->debt ? translated : h->debt;
    h->since += translated + p->gained;
    p->entered = now;
    p->gained = 0;
}

static void end_stretch(struct direct_history *h)
{
    h->mean += (int64_t)(h->since - h->mean) / 4;
    h->since = 0;
}

void direct_policy_leave(struct direct_policy *p, uint64_t now, bool interrupted)
{
    struct direct_history *h = p->current;

    if (!h)
        return;
    count(p, now);
    if (!interrupted)
        end_stretch(h);
    else if (h->since > h->mean)
        h->mean = h->since; /* it goes on: no need to wait for its end */
}

void direct_policy_cut(struct direct_policy *p, uint64_t now)
{
    count(p, now);
    end_stretch(p->current);
}

bool direct_policy_wants(const struct direct_policy *p)
{
    return p->current && !p->current->debt && p->current->mean >= p->worth;
}

void direct_policy_account(struct direct_policy *p, uint64_t begin, uint64_t now, uint64_t ran,
                           uint64_t waited)
{
    struct direct_history *h = p->current;
    int64_t limit = (int64_t)p->price;

    h->balance += (int64_t)(ran * FASTER) - (int64_t)(now - begin - waited);
    if (h->balance > limit) {
        h->balance = limit;
        h->caution = CAUTION;
    }
    if (h->balance < -limit) {
        h->debt = h->caution * p->price;
        h->caution = h->caution < CAUTION_MAX ? 2 * h->caution : CAUTION_MAX;
        h->balance = 0;
    }
    /* For the mean, as if it had been translated. */
    p->entered += now - begin;
    p->gained += ran * FASTER;
}
