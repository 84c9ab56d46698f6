/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The disks of a VM, from its configuration to its devices'. No locks. */
#include "machine/vm_disks.h"

#include "base/error.h"
#include "device/virtio/block.h"
#include "disk/disk.h"
#include "machine/vm.h"

#include <errno.h>
#include <stdlib.h>

int vm_disks_open(struct vm_disks *disks, const struct vm_disk *wanted, size_t n, struct error **err)
{
    *disks = (struct vm_disks){.files = calloc(n + 1, sizeof(*disks->files)),
                               .configs = calloc(n + 1, sizeof(*disks->configs))};
    if (!disks->files || !disks->configs)
        return error_set_errno(err, ENOMEM, "list of disks");
    for (; disks->n < n; disks->n++) {
        const struct vm_disk *w = &wanted[disks->n];
        int rc = disk_files_open(&disks->files[disks->n], w->path, w->format, w->read_only, err);

        if (rc == 0 && w->secret_file) {
            rc = disk_files_read_secret(disks->files[disks->n], w->secret_file, err);
            if (rc)
                disk_files_close(disks->files[disks->n]);
        }
        if (rc)
            return rc;
        disks->configs[disks->n] = (struct virtio_block_config){.files = disks->files[disks->n],
                                                                .serial = w->serial,
                                                                .limits = w->limits,
                                                                .copy_on_read = w->copy_on_read};
    }
    return 0;
}

unsigned vm_disks_descriptors(const struct vm_disks *disks)
{
    unsigned n = 0;

    for (size_t i = 0; i < disks->n; i++)
        n += 2 * disks->files[i]->n;
    return n;
}

void vm_disks_close(struct vm_disks *disks)
{
    for (size_t i = 0; i < disks->n; i++)
        disk_files_close(disks->files[i]);
    free(disks->files);
    free(disks->configs);
    *disks = (struct vm_disks){0};
}
