/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of one VM in this process: builds a PC, boots a kernel or a firmware in it, and serves it until it
 * ends. In two steps, so that the process can give up its rights between them: vm_open opens every file and
 * reads none, vm_serve reads them. Called by vm_process.c.
 */
#ifndef TABIQUE_MACHINE_VM_H
#define TABIQUE_MACHINE_VM_H

#include "machine/vm_message.h"
#include "net/net.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct vm;

/* A disk of the guest's; they are /dev/vda, /dev/vdb, ... in Linux, in this order. */
struct vm_disk {
    const char *path;
    const char *format;      /* NULL: told by the file's content (disk/disk.h) */
    const char *serial;      /* NULL: none */
    const char *secret_file; /* whose bytes open it if it is encrypted; NULL: none */
    bool read_only, copy_on_read;
    struct disk_limits limits;
};

/* A network card. */
struct vm_net {
    struct net_config config;
    uint8_t mac[NET_MAC_SIZE];
};

#define VM_NETS_MAX 8u

struct vm_config {
    const char *directory; /* that relative paths start from, or NULL for the process's own */
    /* One of the two. */
    const char *firmware;     /* path of a flat image, or FIRMWARE_BIOS; NULL: the kernel is booted */
    const char *kernel;       /* path: bzImage, ELF with a PVH note, or Multiboot 1 */
    const char *initrd;       /* path, or NULL */
    const char *append;       /* the kernel's command line, or NULL for an empty one */
    uint64_t memory;          /* bytes of RAM, a multiple of 4 KiB */
    unsigned cpus;            /* 1..ENGINE_MAX_CPUS */
    const char *engine;       /* "auto", "kvm", "soft"; NULL is "auto" */
    const char *firmware_log; /* path of a file that the firmware's own log goes to, or NULL */
    bool debug_exit;          /* the guest may leave through port 0xF4 */
    const char **modules;     /* each "PATH" or "PATH=COMMAND LINE"; Multiboot and PVH only */
    size_t n_modules;
    const struct vm_disk *disks;
    size_t n_disks;
    const char *vsock; /* path of the Unix socket at which the host's programs reach the guest, or NULL */
    uint32_t vsock_cid;
    uint64_t balloon;          /* bytes of RAM that the guest is to give back at first, by its balloon */
    const char *watchdog;      /* what its expiry does: "reset", "poweroff", "none"; NULL is "reset" */
    const struct vm_net *nets; /* without those of NET_NONE */
    size_t n_nets;             /* up to VM_NETS_MAX */
    uint16_t columns, rows;    /* of the terminal behind the console; 0 if there is none */

    /* Descriptors, which stay the caller's. -1: none. */
    int console_fd;                     /* a stream socket: the guest's console */
    int control_fd;                     /* to the supervisor: vm_message.h */
    int vsock_listen_fd, vsock_dial_fd; /* of virtio_vsock_config; with `vsock` only */
    /* Where the cards' frames go, n_nets of them: opened by vm_process_start, which also closes them. */
    struct net_backend *const *backends;
    /* More of them that the VM process has to keep; it closes all others. */
    int *inherited;
    size_t n_inherited;
};

/*
 * What `tabique run` returns after each end. A guest that leaves through the debug-exit port gives (value <<
 * 1) | 1 in the low eight bits instead, as kernel writers know it from other machines.
 */
#define VM_EXIT_POWEROFF 0
#define VM_EXIT_FAILED   1 /* the machine could not be built or booted */
#define VM_EXIT_PANIC    3 /* the guest announced a panic */
#define VM_EXIT_ENGINE   4 /* the engine could not go on */
#define VM_EXIT_WATCHDOG 5 /* the guest's watchdog expired and was to switch off */

/*
 * Opens all that the VM needs: files, and the engine's device. Reads nothing of the guest's. The
 * configuration must stay until vm_free. 0 or -errno with *err.
 */
int vm_open(struct vm **out, const struct vm_config *config, struct error **err);
/* How many descriptors its disks have. */
unsigned vm_disk_descriptors(const struct vm *vm);
/* Bytes of all files that are loaded into memory while the machine boots. */
uint64_t vm_files_size(const struct vm *vm);
/*
 * Builds the machine, boots, and runs the guest to its end. To be called once, from the only thread. *end and
 * *status tell of the end also where it is a failure: then -errno with *err. A guest's reset is not an end:
 * kernel or firmware are loaded again.
 */
int vm_serve(struct vm *vm, enum vm_end *end, int *status, struct error **err);
/* NULL is fine. */
void vm_free(struct vm *vm);

#endif
