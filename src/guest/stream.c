/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Streaming: stream.h. The VM process fills the image and changes its header; then the registry is told here
 * that the layer is based on nothing. Killed between, the registry keeps more than is needed, until this is
 * done again. Locks: the guest's layers.
 */
#include "guest/stream.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "disk/copy_receive.h"
#include "guest/backup_priv.h"
#include "guest/control.h"
#include "guest/guest_priv.h"
#include "guest/snapshot_priv.h"

#include <errno.h>

static int record(const struct home *home, const char *guest, unsigned disk, struct error **err)
{
    struct registry *registry = NULL;
    int rc = guest_begin_write(home, &registry, err);

    if (rc == 0)
        rc = layers_cut_off_locked(registry, guest, disk, err);
    if (rc == 0)
        rc = layers_drop_unneeded_locked(registry, guest, err);
    if (rc == 0)
        rc = registry_add_event(registry, guest, "streamed", "{}", err);
    if (rc == 0)
        rc = registry_commit(registry, err);
    registry_close(registry);
    return rc;
}

int guest_stream(const struct home *home, const char *guest, const char *disk, uint64_t rate,
                 const struct disk_job *job, struct error **err)
{
    cleanup_hand struct hand hand = HAND_NONE;
    struct control_request r = {.verb = CONTROL_BACKUP, .of_disk = true, .stream = true};
    struct disk_copy_begun begun;
    struct error *why = NULL;
    int rc = hand_take(&hand, home, guest, err);

    if (rc)
        return rc;
    if (!hand.running)
        return error_set(
            err, ESRCH,
            "guest '%s' is not running: 'tabique disk rebase -b \"\" FILE' does the same with a disk "
            "that nobody has",
            guest);
    int number = backup_disk_number(home, guest, disk, err);
    if (number < 0)
        return number;
    r.disk = (uint64_t)number;
    r.has_limit[DISK_LIMIT_BPS] = true;
    r.limits.values[DISK_LIMIT_BPS] = rate;
    cleanup_close int fd = backup_ask(home, guest, &r, job, &begun, &why);
    rc = fd < 0 ? fd : disk_copy_follow(fd, &begun, job, &why);
    /* It has been done already, and perhaps was not written down. */
    int recorded = rc == 0 || rc == -ENODATA ? record(home, guest, (unsigned)number, rc ? NULL : err) : 0;
    if (rc) {
        *err = why;
        return error_wrap(err, "guest '%s': disk vd%c", guest, 'a' + number);
    }
    return recorded ? recorded : layers_settle(home, guest, true, err);
}
