/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One of the three counters of an 8254 (Intel 8254 data sheet, order 231164). Nothing ticks: counter and
 * output are computed from the time since the count was loaded. Used by pit.c, under its lock. Times are ns
 * of any clock that never goes back.
 *
 * A new count starts a new period at once, where the chip would end the present one in modes 2 and 3.
 */
#ifndef TABIQUE_DEVICE_PIT_CHANNEL_H
#define TABIQUE_DEVICE_PIT_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#define PIT_HZ 1193182u

/* The control word's access field: which bytes of the count are written and read. */
enum pit_access { PIT_LATCH, PIT_LOW, PIT_HIGH, PIT_BOTH };

struct pit_channel {
    uint8_t mode;   /* 0-5 */
    uint8_t access; /* enum pit_access, but never PIT_LATCH */
    bool bcd;
    bool gate;
    bool loaded;                /* a count has been written since the control word */
    bool armed;                 /* modes 1 and 5: triggered by the gate */
    bool write_high, read_high; /* which byte comes next in PIT_BOTH */
    uint8_t low;                /* the byte that waits for its other half */
    uint32_t count;             /* 1-65536; of the present run */
    uint32_t reload;            /* the count of the next one, in modes 1 and 5 */
    uint64_t start; /* when counting began; while the gate is low in modes 0 and 4: ticks so far */
    bool held;
    bool count_latched, status_latched;
    uint16_t latch;
    uint8_t status;
};

/* After power-on: mode 3, silent until it is programmed. */
void pit_channel_reset(struct pit_channel *c, bool gate);

/* A control word for this channel: access field (not PIT_LATCH), mode field 0-7, BCD. */
void pit_channel_control(struct pit_channel *c, enum pit_access access, unsigned mode, bool bcd);

/* A byte of the count. */
void pit_channel_write(struct pit_channel *c, uint8_t value, uint64_t now);
/* A byte of the latched status, the latched count or the counter. */
uint8_t pit_channel_read(struct pit_channel *c, uint64_t now);
/* What is latched already stays until it has been read. */
void pit_channel_latch_count(struct pit_channel *c, uint64_t now);
void pit_channel_latch_status(struct pit_channel *c, uint64_t now);

void pit_channel_set_gate(struct pit_channel *c, bool gate, uint64_t now);
bool pit_channel_output(const struct pit_channel *c, uint64_t now);

/* How many rising edges the output has had since it was loaded, and when the edge after `edges` of them comes
 * (0: never). For a channel whose gate never changes: triggers of modes 1 and 5 are not counted. */
uint64_t pit_channel_edges(const struct pit_channel *c, uint64_t now);
uint64_t pit_channel_edge_time(const struct pit_channel *c, uint64_t edges);

#endif
