/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Other limits or another size for a disk: disk_update.h. No state; locks: a guest that does not run is held.
 */
#include "guest/disk_update.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "disk/maintain.h"
#include "disk/nbd_link.h"
#include "guest/control.h"
#include "guest/end.h"
#include "guest/guest.h"
#include "host/loop.h"

#include <errno.h>
#include <string.h>

json_t *guest_disk_of(json_t *config, uint64_t number, struct error **err)
{
    json_t *list = json_object_get(config, "disk"), *disk = json_array_get(list, (size_t)number);

    if (!disk)
        error_set(err, ENOENT, "it has no disk vd%c: it has %zu", (int)('a' + number % 26),
                  json_array_size(list));
    else if (json_is_true(json_object_get(disk, "read-only")))
        error_set(err, EROFS, "its disk vd%c is read-only", (int)('a' + number % 26));
    else
        return disk;
    return NULL;
}

void guest_disk_set_limits(json_t *disk, const struct control_request *r)
{
    for (unsigned i = 0; i < DISK_LIMITS; i++) {
        if (r->has_limit[i] && r->limits.values[i])
            json_object_set_new(disk, disk_limit_name(i), json_integer((json_int_t)r->limits.values[i]));
        else if (r->has_limit[i])
            json_object_del(disk, disk_limit_name(i));
    }
}

static int resize(const json_t *config, const json_t *disk, uint64_t size, struct error **err)
{
    const char *path = json_string_value(json_object_get(disk, "path"));
    cleanup_free char *whole = path ? guest_disk_path(config, path) : NULL;
    struct disk_files *files = NULL;
    struct loop *loop = NULL;
    struct disk *open = NULL;

    if (!whole)
        return error_set_errno(err, ENOMEM, "disk");
    int rc = disk_files_open(&files, whole, json_string_value(json_object_get(disk, "format")), false, err);
    if (rc == 0)
        rc = loop_create(&loop, err);
    if (rc == 0)
        rc = disk_open(&open, files, loop, err);
    if (rc == 0) {
        rc = disk_resize(open, size, err);
        int closed = disk_close(open);
        if (rc == 0 && closed)
            rc = error_set_errno(err, -closed, "disk '%s'", whole);
    }
    loop_free(loop);
    disk_files_close(files);
    return rc;
}

static int update_stopped(const struct home *home, const char *name, const struct control_request *r,
                          struct error **err)
{
    struct guest guest = GUEST_NONE;
    int rc = guest_take(&guest, home, name, err);

    if (rc)
        return rc;
    json_t *config = json_loads(guest.row.config, 0, NULL), *disk = guest_disk_of(config, r->disk, err);
    rc = disk ? 0 : -ENOENT;
    if (rc == 0 && r->disk_bytes)
        rc = resize(config, disk, r->disk_bytes, err);
    if (rc == 0) {
        guest_disk_set_limits(disk, r);
        char *text = json_dumps(config, JSON_COMPACT);
        if (text) {
            free(guest.row.config);
            guest.row.config = text;
        }
        rc =
            text ? guest_record(&guest, "updated", NULL, err) : error_set_errno(err, ENOMEM, "configuration");
    }
    json_decref(config);
    guest_release(&guest);
    return rc ? error_wrap(err, "guest '%s'", name) : 0;
}

int guest_update_disk(const struct home *home, const char *name, const struct control_request *request,
                      struct error **err)
{
    struct guest_row row;
    json_t *answer = NULL;
    int rc = guest_find(home, name, &row, err);

    if (rc)
        return rc;
    bool live = guest_state_is_live(row.state);
    guest_row_clear(&row);
    if (!live)
        return update_stopped(home, name, request, err);
    rc = guest_ask(home, name, request, &answer, err);
    json_decref(answer);
    return rc;
}

char *guest_disk_path(const json_t *config, const char *path)
{
    const char *directory = json_string_value(json_object_get(config, "directory"));
    char *whole;

    if (path[0] == '/' || !directory || nbd_is_uri(path))
        return strdup(path);
    return asprintf(&whole, "%s/%s", directory, path) < 0 ? NULL : whole;
}
