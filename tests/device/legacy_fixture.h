/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine of nothing but ports, interrupt lines and a clock that the test moves: what a legacy device needs
 * to be tested alone. One thread.
 */
#ifndef TABIQUE_TESTS_DEVICE_LEGACY_FIXTURE_H
#define TABIQUE_TESTS_DEVICE_LEGACY_FIXTURE_H

#include "device/device.h"

#include "fake_loop.h"

struct legacy_fixture {
    struct device_env env;
    struct device *device;
    bool level[24];       /* of each GSI */
    unsigned rises[24];   /* how often it rose */
    unsigned changes[24]; /* irq_set calls */
    unsigned events;
    enum machine_event event; /* the last one */
    int code;
};

/* The one fixture. Sets it up and makes the device; fails the test if that fails. */
struct legacy_fixture *legacy_start(const struct device_class *class, const void *config);
/* Destroys the device (if the test hasn't); nonzero if it left a timer or a port behind. A cmocka teardown.
 */
int legacy_stop(void **state);

uint8_t in8(uint16_t port);
void out8(uint16_t port, uint8_t value);

#endif
