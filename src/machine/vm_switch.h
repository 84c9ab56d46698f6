/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The moment in which a VM's disks go on in other files (vm_message.h: VM_DISK_...). The new files come
 * first; then all vCPUs stop, each disk is brought to rest and changes its file; the supervisor writes down
 * that it did, and lets them go on. Until then nothing is in the new files, so the old ones can be taken
 * again. Called by vm.c, in the loop's thread; no locks.
 */
#ifndef TABIQUE_MACHINE_VM_SWITCH_H
#define TABIQUE_MACHINE_VM_SWITCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct machine;
struct vm_message;

struct vm_switch_file {
    size_t disk;
    int fd; /* -1: it is in use */
    char *name;
    const char
        *format; /* it stands for all the disk's files, of which it is the mirror; NULL: it comes first */
};

struct vm_switch {
    struct vm_switch_file *files;
    size_t n;
    uint32_t asked; /* VM_DISK_SWITCH or VM_DISK_GO_ON, which is to be done; 0 */
    bool keep;      /* with VM_DISK_GO_ON */
    bool switched;  /* the vCPUs have to stand still */
    bool done;      /* to be told as soon as they run */
    uint64_t since; /* when they were stopped, ns */
};

/* Takes what a VM_DISK_FILE brought, with its descriptor. */
void vm_switch_take(struct vm_switch *s, const struct vm_message *m, int fd);
void vm_switch_ask(struct vm_switch *s, const struct vm_message *m);
/* The vCPUs are about to be stopped, have stopped, run again. */
void vm_switch_begin(struct vm_switch *s);
void vm_switch_act(struct vm_switch *s, struct machine *machine, int control_fd);
void vm_switch_tell(struct vm_switch *s, int control_fd);
void vm_switch_close(struct vm_switch *s);

#endif
