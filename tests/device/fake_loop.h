/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An event loop whose time stands still until a test moves it: what host/loop.h promises, for one thread and
 * without the kernel. Linked into a test instead of the real loop. Watches are registered but never fire.
 */
#ifndef TABIQUE_TESTS_DEVICE_FAKE_LOOP_H
#define TABIQUE_TESTS_DEVICE_FAKE_LOOP_H

#include "host/loop.h"

#include <stdint.h>

/* The one loop; what loop_create gives, too. */
struct loop *fake_loop(void);

/* Lets `ns` pass: posted calls run first, then timers as they become due, each at its own time. */
void fake_loop_advance(uint64_t ns);

/* Lets `ns` pass at once, as if the loop's thread had not run: timers that are due then fire late, once. */
void fake_loop_stall(uint64_t ns);

/* Back to the time at which every test begins. */
void fake_loop_restart(void);

/* How often a timer has fired since fake_loop_restart. */
uint64_t fake_loop_fired(void);

/* How many timers exist and how many are armed. */
unsigned fake_loop_timers(void);
unsigned fake_loop_armed(void);

#endif
