/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mounts that show other owners than the files have (mount_setattr(2), MOUNT_ATTR_IDMAP). Called by create.c
 * while it still has the rights of the host. */
#include "container/create_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>

/* Ids of the container and those that the host has: which way a mount's map reads is the kernel's to say, and
 * it is the same as a user namespace's. */
int creation_idmap(const struct container_mount *m, const struct container_id_maps *maps, int tree,
                   struct error **err)
{
    const struct container_id_maps *use = m->maps.n_uids ? &m->maps : maps;

    if (!use->n_uids || !use->n_gids)
        return error_set(err, EINVAL,
                         "idmap needs uidMappings and gidMappings, of the mount or of the container's user "
                         "namespace");
    cleanup_close int user = idmap_namespace(use, err);
    if (user < 0)
        return user;
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)(unsigned)user};
    unsigned flags = AT_EMPTY_PATH | (m->idmap == CONTAINER_IDMAP_RECURSIVE ? AT_RECURSIVE : 0);
    if (mount_setattr(tree, "", flags, &attr, sizeof(attr)) < 0)
        return error_set_errno(err, errno, "idmap: this file system may not have it on this kernel");
    return 0;
}
