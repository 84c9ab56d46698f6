/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The two sides of the `user` backend: who starts the process (user.c), and the process (nat.c). */
#ifndef TABIQUE_NET_USER_PRIV_H
#define TABIQUE_NET_USER_PRIV_H

#include "net/net.h"

/* Largest IP packet on the guest's network. Large, for a packet costs the same whatever its size; but two
 * must fit into the 64 KiB that Linux receives at first. Else a window can be too small for libslirp's next
 * segment and too large for Linux to tell of a larger one, until a timer ends that after 10 s. */
#define USER_MTU 32768

struct nat;

/* Makes the network, with its published ports bound, for frames through `fd`. 0 or -errno with *err. */
int nat_create(struct nat **out, const struct net_config *config, int fd, struct error **err);
/* Serves it until the other side of `fd` is closed. */
void nat_run(struct nat *nat);
/* `fd` stays open. NULL is fine. */
void nat_free(struct nat *nat);

#endif
