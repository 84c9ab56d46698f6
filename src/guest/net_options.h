/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The flags that tell of a guest's network: --net, --mac, --publish. Called for each guest that is started.
 */
#ifndef TABIQUE_GUEST_NET_OPTIONS_H
#define TABIQUE_GUEST_NET_OPTIONS_H

#include "machine/vm.h"

#include <stdbool.h>

struct error;

struct net_options {
    struct vm_net nets[VM_NETS_MAX];
    size_t n_nets;
    struct net_publish *ports;
};

/*
 * Reads what was given for the three flags. Without --net there is one card, on the user network; --mac and
 * the order of --net go together; --publish is for the first card on the user network. Cards without a
 * --mac get one made from `name`. -EINVAL with *err; after success net_options_free is due.
 */
int net_options_parse(struct net_options *options, const char *const *nets, size_t n_nets,
                      const char *const *macs, size_t n_macs, const char *const *ports, size_t n_ports,
                      const char *name, unsigned cpus, struct error **err);
void net_options_free(struct net_options *options);

#endif
