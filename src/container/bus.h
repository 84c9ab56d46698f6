/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Calls over D-Bus, of which this program needs four (cgroup_systemd.c): a connection, a call, its answer.
 * Nothing is offered to others, and signals are not listened to. One thread.
 */
#ifndef TABIQUE_CONTAINER_BUS_H
#define TABIQUE_CONTAINER_BUS_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Arguments of a call, being written: each is aligned to its own size, as the receiver reads it. */
void bus_put_u32(struct buffer *b, uint32_t value); /* also b, a boolean */
void bus_put_u64(struct buffer *b, uint64_t value);
void bus_put_string(struct buffer *b, const char *text);
/* An array of what is put until bus_end_array, whose items are aligned to `alignment` (8 of a structure). The
 * value is for that. */
size_t bus_begin_array(struct buffer *b, size_t alignment);
void bus_end_array(struct buffer *b, size_t begin, size_t alignment);
/* Items of an array of properties, a(sv): a name, and a value of that type. */
void bus_put_property_string(struct buffer *b, const char *name, const char *value);
void bus_put_property_bool(struct buffer *b, const char *name, bool value);
void bus_put_property_u64(struct buffer *b, const char *name, uint64_t value);
/* "au" of one number. */
void bus_put_property_list(struct buffer *b, const char *name, uint32_t only);

struct bus_peer {
    const char *name, *path, *interface;
};

/* What is answered. */
struct bus_answer {
    uint8_t type; /* BUS_RETURN or BUS_ERROR */
    uint32_t serial;
    char error[256]; /* of BUS_ERROR: what it says, or its name */
};
#define BUS_RETURN 2
#define BUS_ERROR  3

/* A message of `size` bytes. -EPROTO for what is none; other types than those two are fine. */
int bus_parse(const uint8_t *data, size_t size, struct bus_answer *out);

/* The person's bus or the system's. A descriptor, or -errno. */
int bus_open(bool user);
/* Calls. `signature` tells the types in `body`. 0, or -errno with a text in `why`; -EREMOTEIO: the peer
 * refuses. */
int bus_call(int bus, const struct bus_peer *peer, const char *method, const char *signature,
             const struct buffer *body, char *why, size_t size);

#endif
