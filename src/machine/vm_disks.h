/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A VM's disks: opened by path before privileges go, then what the machine makes its devices from. Called by
 * vm.c. */
#ifndef TABIQUE_MACHINE_VM_DISKS_H
#define TABIQUE_MACHINE_VM_DISKS_H

#include <stddef.h>

struct disk_files;
struct error;
struct virtio_block_config;
struct vm_disk;

struct vm_disks {
    struct disk_files **files;
    struct virtio_block_config *configs;
    size_t n;
};

/* Opens and locks the files. 0 or -errno with *err; vm_disks_close is due in both cases. */
int vm_disks_open(struct vm_disks *disks, const struct vm_disk *wanted, size_t n, struct error **err);
/* How many descriptors their files have. */
unsigned vm_disks_descriptors(const struct vm_disks *disks);
/* After the machine has gone. */
void vm_disks_close(struct vm_disks *disks);

#endif
