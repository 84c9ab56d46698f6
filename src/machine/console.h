/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Joins the guest's serial line and its virtio console to the person's terminal. Output of both appears
 * there; input goes to the one that wrote last, the serial line at first. Called by vm.c.
 */
#ifndef TABIQUE_MACHINE_CONSOLE_H
#define TABIQUE_MACHINE_CONSOLE_H

#include "device/char.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct error;
struct loop;
struct loop_watch;
struct terminal;

enum console_port { CONSOLE_SERIAL, CONSOLE_VIRTIO, CONSOLE_PORTS };

struct console {
    struct char_backend ports[CONSOLE_PORTS]; /* to be given to the devices */
    atomic_bool refused[CONSOLE_PORTS];       /* waits for output_ready */
    atomic_int focus;                         /* enum console_port that gets input */
    struct terminal *terminal;
    struct loop *loop;
    /* Called in the loop's thread when the terminal has another size. Set by the owner; NULL: nobody minds.
     */
    void (*resized)(void *opaque, uint16_t columns, uint16_t rows);
    void *opaque;
    int resize_fd; /* tells SIGWINCH; -1 while there is no terminal */
    struct loop_watch *resize_watch;
    atomic_int left; /* why the loop was stopped from here: 0, or an exit status */
};

/* Makes the ports; no terminal yet. Blocks SIGWINCH, so it is due before threads are made. */
void console_init(struct console *console, struct loop *loop);
/* Takes the terminal over: from here on signals arrive here. Before the vCPUs run. 0 or -errno with *err. */
int console_open(struct console *console, struct error **err);
/* Gives the terminal back, with all output written. After the devices are gone; fine if it was never opened.
 */
void console_close(struct console *console);

/* The size of the terminal in characters; 0 for both if there is none. */
void console_size(uint16_t *columns, uint16_t *rows);

/* The exit status that a person or a signal has asked for, or 0. When it comes, the loop is stopped. */
int console_left(const struct console *console);

#endif
