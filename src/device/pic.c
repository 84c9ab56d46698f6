/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two cascaded 8259A (Intel 8259A data sheet, order 231468) with their ELCR (EISA specification 3.12, as in
 * the 82371AB). One mutex guards both; it is a leaf but for the INTR callback.
 */
#include "device/pic.h"

#include "base/cleanup.h"
#include "device/io_bytes.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#define CASCADE_IRQ 2u

/* ICW1 */
#define ICW1_ICW4   0x01u
#define ICW1_SINGLE 0x02u
#define ICW1_LEVEL  0x08u
#define ICW1        0x10u
/* ICW4 */
#define ICW4_AUTO_EOI     0x02u
#define ICW4_FULLY_NESTED 0x10u /* special fully nested mode */
/* OCW2 is 000 in bits 3 and 4, OCW3 01 */
#define OCW3             0x08u
#define OCW2_EOI         0x20u
#define OCW2_SPECIFIC    0x40u
#define OCW2_ROTATE      0x80u
#define OCW3_READ_ISR    0x01u
#define OCW3_READ        0x02u
#define OCW3_POLL        0x04u
#define OCW3_SPECIAL     0x20u
#define OCW3_SET_SPECIAL 0x40u

struct pic_chip {
    bool slave;
    uint8_t lines; /* levels of the inputs */
    uint8_t irr, isr, imr;
    uint8_t elcr;      /* 1: level-triggered */
    uint8_t vector;    /* bits 7-3 */
    uint8_t lowest;    /* the input of lowest priority; the next one is the highest */
    uint8_t init_step; /* the ICW that is expected next (2-4), or 0 */
    bool init_icw4, init_single;
    bool all_level; /* ICW1.LTIM */
    bool auto_eoi, rotate_auto_eoi;
    bool fully_nested, special_mask;
    bool read_isr, poll;
};

struct pic {
    pthread_mutex_t lock;
    struct pic_chip chip[2]; /* master, slave */
    bool intr;
    void (*on_intr)(void *opaque, bool level);
    void *opaque;
    struct io_space *pio;
    struct io_region region[3]; /* master, slave, ELCR */
};

/* ---- one chip ---- */

/* The slave holds its output up until it has been served, so the cascade input counts by level. */
static uint8_t level_inputs(const struct pic_chip *c)
{
    if (c->all_level)
        return 0xff;
    return c->slave ? c->elcr : c->elcr | 1u << CASCADE_IRQ;
}

/* The most urgent bit of `set` as its input number, or -1. */
static int most_urgent(const struct pic_chip *c, uint8_t set)
{
    for (unsigned i = 1; i <= 8; i++) {
        unsigned input = (c->lowest + i) & 7;
        if (set & (1u << input))
            return (int)input;
    }
    return -1;
}

/* How urgent an input is: 0 is the most. */
static unsigned rank(const struct pic_chip *c, int input)
{
    return ((unsigned)input - c->lowest - 1) & 7;
}

/* The request that the chip would have served now, or -1. */
static int request(const struct pic_chip *c)
{
    uint8_t pending = c->irr & ~c->imr;

    /* Special mask mode: only its own service holds an input back. */
    if (c->special_mask)
        return most_urgent(c, pending & ~c->isr);
    int input = most_urgent(c, pending);
    if (input < 0)
        return -1;
    uint8_t blocking = c->isr;
    /* In special fully nested mode the cascade input may interrupt its own service. */
    if (c->fully_nested && !c->slave && input == (int)CASCADE_IRQ)
        blocking &= ~(1u << CASCADE_IRQ);
    int serving = most_urgent(c, blocking);
    return serving < 0 || rank(c, input) < rank(c, serving) ? input : -1;
}

/*
 * An edge stays requested when its line falls again. (The chip wants the line up until the acknowledge, and
 * gives input 7 otherwise; that would only lose interrupts of a guest that is late.)
 */
static void set_input(struct pic_chip *c, unsigned input, bool level)
{
    uint8_t bit = (uint8_t)(1u << input);

    if (level_inputs(c) & bit) {
        if (level)
            c->irr |= bit;
        else
            c->irr &= ~bit;
    } else if (level && !(c->lines & bit)) {
        c->irr |= bit;
    }
    if (level)
        c->lines |= bit;
    else
        c->lines &= ~bit;
}

static void end_service(struct pic_chip *c, int input, bool rotate)
{
    if (input < 0)
        return;
    c->isr &= ~(1u << input);
    if (rotate)
        c->lowest = (uint8_t)input;
}

/* Acknowledge `input`. */
static void serve(struct pic_chip *c, int input)
{
    uint8_t bit = (uint8_t)(1u << input);

    if (!(level_inputs(c) & bit))
        c->irr &= ~bit;
    c->isr |= bit;
    if (c->auto_eoi)
        end_service(c, input, c->rotate_auto_eoi);
}

static void chip_reset(struct pic_chip *c)
{
    *c = (struct pic_chip){.slave = c->slave, .lines = c->lines, .lowest = 7};
}

/* ---- the pair; the lock is held ---- */

static void update_locked(struct pic *p)
{
    set_input(&p->chip[0], CASCADE_IRQ, request(&p->chip[1]) >= 0);
    bool intr = request(&p->chip[0]) >= 0;
    if (intr == p->intr)
        return;
    p->intr = intr;
    p->on_intr(p->opaque, intr);
}

/* The slave's request may be over before its acknowledge: then it gives its input 7, as the master does. */
static int acknowledge_locked(struct pic *p)
{
    int input = request(&p->chip[0]);
    int vector;

    if (input < 0)
        return -1;
    serve(&p->chip[0], input);
    if (input == (int)CASCADE_IRQ) {
        int second = request(&p->chip[1]);
        if (second >= 0)
            serve(&p->chip[1], second);
        else
            second = 7;
        vector = p->chip[1].vector + second;
    } else {
        vector = p->chip[0].vector + input;
    }
    update_locked(p);
    return vector;
}

static void ocw2(struct pic_chip *c, uint8_t value)
{
    unsigned input = value & 7;
    bool rotate = value & OCW2_ROTATE;
    uint8_t serving = c->isr;

    switch (value & (OCW2_EOI | OCW2_SPECIFIC)) {
    case OCW2_EOI:
        /* In special mask mode masked inputs are not ended by a non-specific EOI. */
        if (c->special_mask)
            serving &= ~c->imr;
        end_service(c, most_urgent(c, serving), rotate);
        break;
    case OCW2_EOI | OCW2_SPECIFIC:
        end_service(c, (int)input, rotate);
        break;
    case OCW2_SPECIFIC:
        if (rotate)
            c->lowest = (uint8_t)input;
        break;
    default:
        c->rotate_auto_eoi = rotate;
    }
}

static void command(struct pic_chip *c, uint8_t value)
{
    if (value & ICW1) {
        uint8_t elcr = c->elcr;
        chip_reset(c);
        c->elcr = elcr;
        c->all_level = value & ICW1_LEVEL;
        c->init_icw4 = value & ICW1_ICW4;
        c->init_single = value & ICW1_SINGLE;
        c->init_step = 2;
        /* The edge sense is cleared: a line that is up must rise again, but in level mode it counts. */
        c->irr = c->lines & level_inputs(c);
    } else if (value & OCW3) {
        if (value & OCW3_SET_SPECIAL)
            c->special_mask = value & OCW3_SPECIAL;
        if (value & OCW3_POLL)
            c->poll = true;
        else if (value & OCW3_READ)
            c->read_isr = value & OCW3_READ_ISR;
    } else {
        ocw2(c, value);
    }
}

static void data(struct pic_chip *c, uint8_t value)
{
    switch (c->init_step) {
    case 2:
        c->vector = value & 0xf8;
        c->init_step = !c->init_single ? 3 : c->init_icw4 ? 4 : 0;
        break;
    case 3: /* the wiring of the cascade, which is fixed */
        c->init_step = c->init_icw4 ? 4 : 0;
        break;
    case 4:
        c->auto_eoi = value & ICW4_AUTO_EOI;
        c->fully_nested = value & ICW4_FULLY_NESTED;
        c->init_step = 0;
        break;
    default:
        c->imr = value;
    }
}

/* Polling acknowledges, too. */
static uint8_t read_polled_locked(struct pic *p, struct pic_chip *c)
{
    int input = request(c);

    c->poll = false;
    if (input < 0)
        return 0;
    serve(c, input);
    update_locked(p);
    return (uint8_t)(0x80 | input);
}

/* ---- ports ---- */

static uint8_t chip_read_byte(struct pic *p, struct pic_chip *c, unsigned offset)
{
    LOCK_SCOPE(&p->lock);
    if (c->poll)
        return read_polled_locked(p, c);
    if (offset & 1)
        return c->imr;
    return c->read_isr ? c->isr : c->irr;
}

static void chip_write_byte(struct pic *p, struct pic_chip *c, unsigned offset, uint8_t value)
{
    LOCK_SCOPE(&p->lock);
    if (offset & 1)
        data(c, value);
    else
        command(c, value);
    update_locked(p);
}

static uint8_t master_read(void *opaque, unsigned offset)
{
    struct pic *p = opaque;
    return chip_read_byte(p, &p->chip[0], offset);
}
static void master_write(void *opaque, unsigned offset, uint8_t value)
{
    struct pic *p = opaque;
    chip_write_byte(p, &p->chip[0], offset, value);
}
static uint8_t slave_read(void *opaque, unsigned offset)
{
    struct pic *p = opaque;
    return chip_read_byte(p, &p->chip[1], offset);
}
static void slave_write(void *opaque, unsigned offset, uint8_t value)
{
    struct pic *p = opaque;
    chip_write_byte(p, &p->chip[1], offset, value);
}

static uint8_t elcr_read(void *opaque, unsigned offset)
{
    struct pic *p = opaque;
    LOCK_SCOPE(&p->lock);
    return p->chip[offset & 1].elcr;
}

/* Timer, keyboard and cascade, real-time clock and coprocessor error are edges for ever. */
static void elcr_write(void *opaque, unsigned offset, uint8_t value)
{
    static const uint8_t writable[2] = {0xf8, 0xde};
    struct pic *p = opaque;
    LOCK_SCOPE(&p->lock);
    struct pic_chip *c = &p->chip[offset & 1];
    c->elcr = value & writable[offset & 1];
    c->irr = (c->irr & ~c->elcr) | (c->lines & c->elcr);
    update_locked(p);
}

#define PORT_CALLBACKS(name)                                                                                 \
    static uint64_t name##_port_read(void *opaque, uint64_t offset, unsigned size)                           \
    {                                                                                                        \
        return io_read_bytes(name##_read, opaque, offset, size);                                             \
    }                                                                                                        \
    static void name##_port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)              \
    {                                                                                                        \
        io_write_bytes(name##_write, opaque, offset, size, value);                                           \
    }
PORT_CALLBACKS(master)
PORT_CALLBACKS(slave)
PORT_CALLBACKS(elcr)

/* ---- making it ---- */

int pic_create(struct pic **out, struct io_space *pio, void (*intr)(void *opaque, bool level), void *opaque)
{
    struct pic *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    pthread_mutex_init(&p->lock, NULL);
    p->on_intr = intr;
    p->opaque = opaque;
    p->pio = pio;
    p->chip[1].slave = true;
    chip_reset(&p->chip[0]);
    chip_reset(&p->chip[1]);
    p->region[0] = (struct io_region){"pic-master", 0x20, 2, master_port_read, master_port_write, p};
    p->region[1] = (struct io_region){"pic-slave", 0xa0, 2, slave_port_read, slave_port_write, p};
    p->region[2] = (struct io_region){"pic-elcr", 0x4d0, 2, elcr_port_read, elcr_port_write, p};
    for (unsigned i = 0; i < 3; i++) {
        int rc = io_space_add(pio, &p->region[i]);
        if (rc) {
            pic_free(p);
            return rc;
        }
    }
    *out = p;
    return 0;
}

void pic_free(struct pic *p)
{
    if (!p)
        return;
    for (unsigned i = 0; i < 3; i++)
        io_space_remove(p->pio, &p->region[i]);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

void pic_reset(struct pic *p)
{
    LOCK_SCOPE(&p->lock);
    chip_reset(&p->chip[0]);
    chip_reset(&p->chip[1]);
    update_locked(p);
}

void pic_set(struct pic *p, unsigned irq, bool level)
{
    if (irq > 15 || irq == CASCADE_IRQ)
        return;
    LOCK_SCOPE(&p->lock);
    set_input(&p->chip[irq / 8], irq & 7, level);
    update_locked(p);
}

int pic_acknowledge(struct pic *p)
{
    LOCK_SCOPE(&p->lock);
    return acknowledge_locked(p);
}
