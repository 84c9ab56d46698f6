/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Joins the guest's serial line and its virtio console to one socket, at whose other end whoever supervises
 * the VM sits. Output of both appears there; input goes to the one that asks for it (console_focus.h). Called
 * by vm.c.
 */
#ifndef TABIQUE_MACHINE_CONSOLE_H
#define TABIQUE_MACHINE_CONSOLE_H

#include "device/char.h"
#include "machine/console_focus.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct error;
struct loop;
struct stream;

struct console {
    struct char_backend ports[CONSOLE_PORTS]; /* to be given to the devices */
    atomic_bool refused[CONSOLE_PORTS];       /* waits for output_ready */
    pthread_mutex_t lock;                     /* of focus; the stream's is taken under it */
    struct console_focus focus;
    struct stream *stream;
};

/* Makes the ports; nothing is connected yet. */
void console_init(struct console *console);
/* The guest begins anew: what it has said is over. Any thread. */
void console_reset(struct console *console);
/* Connects them to the socket `fd`, which stays the caller's. Before the vCPUs run. 0 or -errno with *err. */
int console_begin(struct console *console, struct loop *loop, int fd, struct error **err);
/* Disconnects, with all output written. After the devices are gone; fine if it was never opened. */
void console_close(struct console *console);

#endif
