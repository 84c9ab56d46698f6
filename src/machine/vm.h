/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The face of the `vm` kind: builds a PC, boots a kernel in it, and serves it until it ends. Called by the
 * command line (`tabique run`).
 */
#ifndef TABIQUE_MACHINE_VM_H
#define TABIQUE_MACHINE_VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct vm_config {
    const char *kernel;   /* path: bzImage, ELF with a PVH note, or Multiboot 1 */
    const char *initrd;   /* path, or NULL */
    const char *append;   /* the kernel's command line, or NULL for an empty one */
    uint64_t memory;      /* bytes of RAM, a multiple of 4 KiB */
    unsigned cpus;        /* 1..ENGINE_MAX_CPUS */
    const char *engine;   /* "auto", "kvm", "soft"; NULL is "auto" */
    bool debug_exit;      /* the guest may leave through port 0xF4 */
    const char **modules; /* each "PATH" or "PATH=COMMAND LINE"; Multiboot and PVH only */
    size_t n_modules;
};

/*
 * What vm_run puts into *exit_status. A guest that leaves through the debug-exit port gives
 * (value << 1) | 1 in the low eight bits instead, as kernel writers know it from other machines.
 */
#define VM_EXIT_POWEROFF 0
#define VM_EXIT_FAILED   1   /* the machine could not be built or booted (vm_run fails then) */
#define VM_EXIT_PANIC    3   /* the guest announced a panic */
#define VM_EXIT_ENGINE   4   /* the engine could not go on (vm_run fails then) */
#define VM_EXIT_LEFT     130 /* the person at the terminal left with Ctrl-] */
#define VM_EXIT_SIGNAL   128 /* + the number of the signal that ended it: 143 for SIGTERM */

/*
 * Runs a VM from power-on to its end; the guest's console is this process's standard input and output. To be
 * called once a process, from the only thread. 0 with *exit_status after an orderly end; -errno with *err
 * when the machine could not be built or its engine failed, with *exit_status set to what the process should
 * return. A guest's reset is not an end: the kernel is loaded again.
 */
int vm_run(const struct vm_config *config, int *exit_status, struct error **err);

#endif
