/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pair of 8259A interrupt controllers of a PC, with the edge/level registers of EISA. Part of the soft
 * engine's interrupt chip (the kvm engine has the kernel's), so not a device class.
 */
#ifndef TABIQUE_DEVICE_PIC_H
#define TABIQUE_DEVICE_PIC_H

#include "device/io_space.h"

#include <stdbool.h>

struct pic;

/*
 * Makes the pair at ports 0x20, 0xA0 and 0x4D0 of `pio`. `intr` is told the level of the master's INTR output
 * when it changes; it runs with the pair's lock held and must not call back. 0 or -errno.
 */
int pic_create(struct pic **out, struct io_space *pio, void (*intr)(void *opaque, bool level), void *opaque);
/* NULL is fine. */
void pic_free(struct pic *pic);

/* After power-on: nothing requested, in service or masked, vectors from 0. INTR falls. */
void pic_reset(struct pic *pic);

/* The level of input `irq`, 0-15; 2 is the cascade and is ignored. Any thread. */
void pic_set(struct pic *pic, unsigned irq, bool level);

/*
 * The processor's interrupt acknowledge cycle: the vector of the most urgent request, which is in service
 * from now on; -1 if INTR is not active (another processor was faster). Any thread.
 */
int pic_acknowledge(struct pic *pic);

#endif
