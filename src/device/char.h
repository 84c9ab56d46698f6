/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The far side of a character device (a serial line, a console port): a terminal, a file, a test. Who builds
 * the machine makes a struct char_backend and gives it to the device in its configuration; it must outlive
 * the device. Both directions have flow control, so neither side ever blocks or drops.
 *
 * Locks: a device may call the backend while it holds its own lock. So a backend must not call back into the
 * device (input, output_ready) from inside output or input_ready: it does so later, from its own event.
 */
#ifndef TABIQUE_DEVICE_CHAR_H
#define TABIQUE_DEVICE_CHAR_H

#include <stddef.h>
#include <stdint.h>

struct char_backend {
    /* ---- set by the backend's owner, never NULL ---- */

    /* Takes bytes that the guest sent. Returns how many, 0..len; after fewer than len the backend calls
     * output_ready as soon as it can take more. Any thread; does not block. */
    size_t (*output)(struct char_backend *backend, const uint8_t *bytes, size_t len);
    /* The device, which has refused input, can take some now. Any thread. */
    void (*input_ready)(struct char_backend *backend);
    void *opaque; /* the owner's */

    /* ---- set by the device while it exists, NULL before and after ---- */

    /* Gives bytes to the guest. Returns how many the device has taken, 0..len; after fewer than len it calls
     * input_ready as soon as there is room. Any thread but one at a time. */
    size_t (*input)(void *device, const uint8_t *bytes, size_t len);
    /* See output. Any thread. */
    void (*output_ready)(void *device);
    void *device;
};

#endif
