/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MOVS, STOS, LODS, CMPS and SCAS with their repeat prefixes (SDM vol. 1 7.3.9, vol. 2 REP). Called from
 * translated code in the vCPU's own thread; no locks.
 *
 * The work goes in runs of elements that lie in one page each of source and destination, on host pointers. An
 * element that crosses pages, or is no plain RAM, goes through soft_read and soft_write. Registers are up to
 * date between runs, so that a fault leaves them as after the last whole element. After BUDGET bytes, or when
 * something is pending, the instruction is left to be continued: SOFT_JUMP with RIP unchanged.
 */
#include "base/bytes.h"
#include "engine/soft/handlers.h"

#define BUDGET 65536u

/* One string instruction under way. */
struct string {
    struct soft_vcpu *c;
    const struct soft_insn *i;
    unsigned size;  /* of an element */
    unsigned asize; /* of addresses and the count */
    bool down;      /* DF */
};

/* A pointer of a string instruction, and the run of elements that it can have. */
struct side {
    unsigned reg; /* CPU_RSI or CPU_RDI */
    unsigned seg;
    bool write;
    uint64_t first; /* linear address of the run's first element, which with DF set is its highest */
    uint8_t *host;  /* of the run's lowest byte; NULL: one element only, by soft_read and soft_write */
};

static unsigned element_size(const struct soft_insn *i)
{
    return i->opcode & 1 ? i->operand_size : 1;
}

static void advance(const struct string *s, unsigned reg, uint64_t n)
{
    uint64_t bytes = n * s->size;

    soft_reg_write(s->c, reg, s->asize, false, s->c->gpr[reg] + (s->down ? -bytes : bytes));
}

/* How many elements, at most n, from the one at `address` on lie whole in the same range of 1 << shift bytes.
 */
static uint64_t run_length(const struct string *s, uint64_t address, uint64_t n, unsigned shift)
{
    uint64_t mask = shift == 64 ? UINT64_MAX : (1ull << shift) - 1;
    uint64_t at = address & mask;
    uint64_t room;

    if (mask - at < s->size - 1)
        return 0;
    room = s->down ? at / s->size + 1 : (mask - at - (s->size - 1)) / s->size + 1;
    if (room == 0) /* 2^64 bytes */
        return n;
    return room < n ? room : n;
}

static int linear_of(const struct string *s, const struct side *d, uint64_t n, uint64_t *linear)
{
    uint64_t offset = soft_truncate(s->c->gpr[d->reg], s->asize);

    if (s->down)
        offset = soft_truncate(offset - (n - 1) * s->size, s->asize);
    return soft_linear(s->c, d->seg, offset, (unsigned)(n * s->size), d->write, linear);
}

/* Finds out how far the side reaches: *n is lowered, to 1 at least. SOFT_FAULT if not even one element is in
 * the segment. */
static int measure(const struct string *s, struct side *d, uint64_t *n)
{
    uint64_t run, lowest;

    if (linear_of(s, d, 1, &d->first) || soft_check_alignment(s->c, d->first, s->size))
        return SOFT_FAULT;
    run = run_length(s, d->first, *n, 12);
    /* The offset may wrap around earlier, and the segment's limit may come first: then one by one. */
    if (run > 1)
        run = run_length(s, s->c->gpr[d->reg], run, 8 * s->asize);
    *n = run > 1 && linear_of(s, d, run, &lowest) == SOFT_NEXT ? run : 1;
    return SOFT_NEXT;
}

/* Looks up the host's address of the run of n elements, with the fault that its first element has. */
static int locate(const struct string *s, struct side *d, uint64_t n)
{
    d->host = NULL;
    if ((d->first & 4095) + s->size > 4096)
        return SOFT_NEXT;
    if (soft_host_pointer(s->c, d->first, d->write ? ACCESS_WRITE : ACCESS_READ, &d->host))
        return SOFT_FAULT;
    if (d->host && s->down)
        d->host -= (n - 1) * s->size;
    return SOFT_NEXT;
}

/* Prepares the next run: at most n elements on sides a and (unless NULL) b, whose faults come in this order.
 */
static int next_run(const struct string *s, struct side *a, struct side *b, uint64_t *n)
{
    if (measure(s, a, n))
        return SOFT_FAULT;
    if (b && measure(s, b, n)) {
        struct soft_fault later = s->c->fault;

        if (soft_check_access(s->c, a->first, s->size, a->write ? ACCESS_WRITE : ACCESS_READ) == SOFT_NEXT)
            s->c->fault = later;
        return SOFT_FAULT;
    }
    if (locate(s, a, *n))
        return SOFT_FAULT;
    /* Where a goes the slow way, its faults are still to come, and come before those of b. */
    if (b) {
        b->host = NULL;
        if (a->host && locate(s, b, *n))
            return SOFT_FAULT;
    }
    if (!a->host || (b && !b->host))
        *n = 1;
    return SOFT_NEXT;
}

/* ---- the elements of a run, in the order of the instruction ---- */

static void copy_elements(uint8_t *to, const uint8_t *from, uint64_t n, unsigned size, bool down)
{
    int64_t step = down ? -(int64_t)size : (int64_t)size;

    if (down) {
        to += (n - 1) * size;
        from += (n - 1) * size;
    }
    for (; n; n--, to += step, from += step) {
        uint64_t value = 0;

        /* Single copies, which other vCPUs see whole if they are aligned. */
        switch (size) {
        case 1:
            *(volatile uint8_t *)to = *from;
            break;
        case 2:
            memcpy(&value, from, 2);
            memcpy(to, &value, 2);
            break;
        case 4:
            memcpy(&value, from, 4);
            memcpy(to, &value, 4);
            break;
        default:
            memcpy(&value, from, 8);
            memcpy(to, &value, 8);
        }
        __asm__ volatile("" ::: "memory");
    }
}

/* Whether writing an element may change one that is read later, so that the order counts. */
static bool overlaps_ahead(const uint8_t *to, const uint8_t *from, uint64_t bytes, bool down)
{
    return down ? to < from && (uint64_t)(from - to) < bytes : to > from && (uint64_t)(to - from) < bytes;
}

static int movs_run(const struct string *s, const struct side *from, const struct side *to, uint64_t n)
{
    uint64_t bytes = n * s->size;
    uint8_t value[8];

    if (!from->host || !to->host) {
        if (soft_read(s->c, from->first, value, s->size, ACCESS_READ))
            return SOFT_FAULT;
        return soft_write(s->c, to->first, value, s->size, ACCESS_WRITE);
    }
    if (bytes <= 64 || overlaps_ahead(to->host, from->host, bytes, s->down))
        copy_elements(to->host, from->host, n, s->size, s->down);
    else
        memmove(to->host, from->host, bytes);
    return SOFT_NEXT;
}

static int stos_run(const struct string *s, const struct side *to, uint64_t n)
{
    uint64_t value = s->c->gpr[CPU_RAX];
    uint8_t bytes[8];

    put_le64(bytes, value);
    if (!to->host)
        return soft_write(s->c, to->first, bytes, s->size, ACCESS_WRITE);
    if (s->size == 1) {
        memset(to->host, (int)(value & 0xff), n);
        return SOFT_NEXT;
    }
    for (uint64_t k = 0; k < n; k++)
        memcpy(to->host + k * s->size, bytes, s->size);
    return SOFT_NEXT;
}

/* Only the last element of a run stays. */
static int lods_run(const struct string *s, const struct side *from, uint64_t n)
{
    uint8_t value[8] = {0};

    if (from->host)
        memcpy(value, from->host + (s->down ? 0 : (n - 1) * s->size), s->size);
    else if (soft_read(s->c, from->first, value, s->size, ACCESS_READ))
        return SOFT_FAULT;
    soft_reg_write(s->c, CPU_RAX, s->size, false, get_le64(value));
    return SOFT_NEXT;
}

/* ---- MOVS, STOS, LODS ---- */

/* How many elements may be done before something else gets its turn; 0 if the count is 0. */
static uint64_t wanted(const struct string *s)
{
    uint64_t count = s->i->rep ? soft_reg_read(s->c, CPU_RCX, s->asize, false) : 1;
    uint64_t most = BUDGET / s->size;

    return count < most ? count : most;
}

/* After a run of n: SOFT_NEXT when the count is used up, SOFT_JUMP to be continued later, -1 to go on now. */
static int after_run(const struct string *s, uint64_t n, uint64_t *left)
{
    struct soft_vcpu *c = s->c;
    uint64_t count;

    if (!s->i->rep)
        return SOFT_NEXT;
    count = soft_truncate(c->gpr[CPU_RCX] - n, s->asize);
    soft_reg_write(c, CPU_RCX, s->asize, false, count);
    *left -= n;
    if (count == 0)
        return SOFT_NEXT;
    if (*left == 0 || (c->key & KEY_STEP) || c->debug_hits || __atomic_load_n(&c->pending, __ATOMIC_RELAXED))
        return SOFT_JUMP;
    return -1;
}

static struct string begin(struct soft_vcpu *c, const struct soft_insn *i)
{
    /* Intel's processors write the count back whatever happens: 32-bit addresses clear its upper half. */
    if (i->rep && !soft_is_amd(c))
        soft_reg_write(c, CPU_RCX, i->address_size, false, c->gpr[CPU_RCX]);
    return (struct string){
        .c = c, .i = i, .size = element_size(i), .asize = i->address_size, .down = c->flags & FLAG_DF};
}

enum transfer { TRANSFER_MOVS, TRANSFER_STOS, TRANSFER_LODS };

static int transfer(struct soft_vcpu *c, const struct soft_insn *i, enum transfer kind)
{
    struct string s = begin(c, i);
    struct side from = {.reg = CPU_RSI, .seg = i->segment};
    struct side to = {.reg = CPU_RDI, .seg = CPU_ES, .write = true};
    uint64_t left = wanted(&s);
    int result;

    /* So do REP MOVS and REP STOS with the pointers. */
    if (i->rep && !soft_is_amd(c) && kind != TRANSFER_LODS) {
        soft_reg_write(c, CPU_RDI, s.asize, false, c->gpr[CPU_RDI]);
        if (kind == TRANSFER_MOVS)
            soft_reg_write(c, CPU_RSI, s.asize, false, c->gpr[CPU_RSI]);
    }
    if (left == 0)
        return SOFT_NEXT;
    do {
        uint64_t n = c->key & KEY_STEP ? 1 : left;

        if (kind == TRANSFER_MOVS ? next_run(&s, &from, &to, &n)
                                  : next_run(&s, kind == TRANSFER_LODS ? &from : &to, NULL, &n))
            return SOFT_FAULT;
        if (kind == TRANSFER_MOVS   ? movs_run(&s, &from, &to, n)
            : kind == TRANSFER_STOS ? stos_run(&s, &to, n)
                                    : lods_run(&s, &from, n))
            return SOFT_FAULT;
        if (kind != TRANSFER_STOS)
            advance(&s, CPU_RSI, n);
        if (kind != TRANSFER_LODS)
            advance(&s, CPU_RDI, n);
        result = after_run(&s, n, &left);
    } while (result < 0);
    return result;
}

int op_movs(struct soft_vcpu *c, const struct soft_insn *i)
{
    return transfer(c, i, TRANSFER_MOVS);
}
int op_stos(struct soft_vcpu *c, const struct soft_insn *i)
{
    return transfer(c, i, TRANSFER_STOS);
}
int op_lods(struct soft_vcpu *c, const struct soft_insn *i)
{
    return transfer(c, i, TRANSFER_LODS);
}

/* ---- CMPS, SCAS ---- */

/* The flags of a - b. */
static uint64_t subtract_flags(uint64_t a, uint64_t b, unsigned size)
{
    unsigned top = 8 * size - 1;
    uint64_t d = soft_truncate(a - b, size);

    return (a < b ? FLAG_CF : 0) | (__builtin_parity((unsigned)(d & 0xff)) ? 0 : FLAG_PF) |
           ((a ^ b ^ d) & 0x10 ? FLAG_AF : 0) | (d == 0 ? FLAG_ZF : 0) | (d >> top & 1 ? FLAG_SF : 0) |
           (((a ^ b) & (a ^ d)) >> top & 1 ? FLAG_OF : 0);
}

static uint64_t load(const uint8_t *from, unsigned size)
{
    uint64_t value = 0;

    switch (size) {
    case 1:
        return *from;
    case 2:
        memcpy(&value, from, 2);
        return value;
    case 4:
        memcpy(&value, from, 4);
        return value;
    default:
        memcpy(&value, from, 8);
        return value;
    }
}

struct compare {
    uint64_t a, b; /* of the last element that was compared */
    uint64_t n;    /* how many were */
    bool stop;     /* the repeat condition ended it */
};

static bool repeat_ends(const struct string *s, uint64_t a, uint64_t b)
{
    return s->i->rep && (a == b) == (s->i->rep == 0xf2);
}

/* Compares up to n elements; `a` is NULL for SCAS, which compares the accumulator in r->a. */
static int compare_run(const struct string *s, const struct side *a, const struct side *b, uint64_t n,
                       struct compare *r)
{
    uint8_t va[8] = {0}, vb[8] = {0};

    if ((a && !a->host) || !b->host) {
        if (soft_read(s->c, b->first, vb, s->size, ACCESS_READ) ||
            (a && soft_read(s->c, a->first, va, s->size, ACCESS_READ)))
            return SOFT_FAULT;
        if (a)
            r->a = get_le64(va);
        r->b = get_le64(vb);
        r->n = 1;
        r->stop = repeat_ends(s, r->a, r->b);
        return SOFT_NEXT;
    }
    for (uint64_t k = 0; k < n; k++) {
        uint64_t at = (s->down ? n - 1 - k : k) * s->size;

        if (a)
            r->a = load(a->host + at, s->size);
        r->b = load(b->host + at, s->size);
        r->n = k + 1;
        r->stop = repeat_ends(s, r->a, r->b);
        if (r->stop)
            break;
    }
    return SOFT_NEXT;
}

static int next_comparison(const struct string *s, bool scan, struct side *a, struct side *b, uint64_t *n,
                           struct compare *r)
{
    if (scan ? next_run(s, b, NULL, n) : next_run(s, b, a, n))
        return SOFT_FAULT;
    return compare_run(s, scan ? NULL : a, b, *n, r);
}

static void set_comparison(struct soft_vcpu *c, const struct compare *r, unsigned size)
{
    c->flags = (c->flags & FLAG_DF) | subtract_flags(r->a, r->b, size);
}

static int compare(struct soft_vcpu *c, const struct soft_insn *i, bool scan)
{
    struct string s = begin(c, i);
    struct side a = {.reg = CPU_RSI, .seg = i->segment};
    struct side b = {.reg = CPU_RDI, .seg = CPU_ES};
    struct compare r = {.a = soft_truncate(c->gpr[CPU_RAX], s.size)};
    uint64_t left = wanted(&s);
    bool any = false;
    int result;

    if (left == 0)
        return SOFT_NEXT;
    do {
        uint64_t n = c->key & KEY_STEP ? 1 : left;

        if (next_comparison(&s, scan, &a, &b, &n, &r)) {
            /* A fault leaves the flags as they were when the instruction began (SDM vol. 2 REP), on AMD's
             * processors as after the last element. */
            if (soft_is_amd(c) && any)
                set_comparison(c, &r, s.size);
            return SOFT_FAULT;
        }
        any = true;
        if (!scan)
            advance(&s, CPU_RSI, r.n);
        advance(&s, CPU_RDI, r.n);
        result = after_run(&s, r.n, &left);
        if (r.stop)
            result = SOFT_NEXT;
    } while (result < 0);
    set_comparison(c, &r, s.size);
    return result;
}

int op_cmps(struct soft_vcpu *c, const struct soft_insn *i)
{
    return compare(c, i, false);
}
int op_scas(struct soft_vcpu *c, const struct soft_insn *i)
{
    return compare(c, i, true);
}
