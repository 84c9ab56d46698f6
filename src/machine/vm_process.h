/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process that a VM runs in: a fork of whoever supervises it, with a console and a control channel
 * between the two. It drops its rights before it reads a byte of guest data, and dies with its supervisor.
 * Called by the supervisor.
 */
#ifndef TABIQUE_MACHINE_VM_PROCESS_H
#define TABIQUE_MACHINE_VM_PROCESS_H

#include "machine/vm.h"

#include <sys/types.h>

struct vm_process {
    pid_t pid;      /* 0: none */
    int console_fd; /* a stream socket: the guest's console */
    int control_fd; /* vm_message.h; its end comes with the process's */
    struct net_backend *nets[VM_NETS_MAX];
};

#define VM_PROCESS_NONE ((struct vm_process){.console_fd = -1, .control_fd = -1})

/*
 * Starts a VM. The calling process must have one thread only, and that thread has to live as long as the VM
 * is to. console_fd and control_fd of the configuration are set here. 0 or -errno with *err; whether the
 * machine can be built is told by the first message, VM_READY or VM_ENDED.
 */
int vm_process_start(struct vm_process *process, const struct vm_config *config, struct error **err);

/* Sends a message that is nothing but its type. 0 or -errno. */
int vm_process_tell(const struct vm_process *process, enum vm_message_type type);

/* Kills it if it still runs, waits, and closes. Its wait status, or -1 if there was none. */
int vm_process_end(struct vm_process *process);

#endif
