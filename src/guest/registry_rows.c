/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry's rows: guests and events. See registry.c. */
#include "base/cleanup.h"
#include "base/error.h"
#include "guest/registry_priv.h"

#include <errno.h>
#include <string.h>

/* How many events are kept; checked now and then. */
#define EVENTS_KEPT  20000
#define EVENTS_CHECK 512

#define COLUMNS                                                                                              \
    "name, config, state, supervisor, vm, exit_status, reason, engine, created, started, ended, restarts, "  \
    "transient, by_hand"

const char *guest_state_name(enum guest_state state)
{
    static const char *const names[GUEST_STATES] = {
        "starting", "running", "paused", "restarting", "stopped", "failed", "crashed",
    };

    return (unsigned)state < GUEST_STATES ? names[state] : "unknown";
}

void guest_row_clear(struct guest_row *row)
{
    free(row->name);
    free(row->config);
    free(row->reason);
    free(row->engine);
    *row = (struct guest_row){0};
}

static char *text(sqlite3_stmt *s, int column)
{
    const char *value = (const char *)sqlite3_column_text(s, column);

    return strdup(value ? value : "");
}

/* 0 or -ENOMEM. */
static int read_row(sqlite3_stmt *s, struct guest_row *out)
{
    struct guest_row row = {
        .name = text(s, 0),
        .config = text(s, 1),
        .state = (enum guest_state)sqlite3_column_int(s, 2),
        .supervisor = sqlite3_column_int(s, 3),
        .vm = sqlite3_column_int(s, 4),
        .exit_status = sqlite3_column_int(s, 5),
        .reason = text(s, 6),
        .engine = text(s, 7),
        .created = sqlite3_column_int64(s, 8),
        .started = sqlite3_column_int64(s, 9),
        .ended = sqlite3_column_int64(s, 10),
        .restarts = sqlite3_column_int64(s, 11),
        .transient = sqlite3_column_int(s, 12),
        .by_hand = sqlite3_column_int(s, 13),
    };

    if (!row.name || !row.config || !row.reason || !row.engine) {
        guest_row_clear(&row);
        return -ENOMEM;
    }
    *out = row;
    return 0;
}

int registry_find(struct registry *registry, const char *name, struct guest_row *row, struct error **err)
{
    cleanup_statement sqlite3_stmt *s = NULL;
    int rc = registry_prepare(registry, &s, err, "SELECT " COLUMNS " FROM guests WHERE name = ?", "s", name);

    if (rc)
        return rc;
    rc = sqlite3_step(s);
    if (rc == SQLITE_DONE)
        return 0;
    if (rc != SQLITE_ROW)
        return registry_error(registry, "state", err);
    return read_row(s, row) ? error_set_errno(err, ENOMEM, "state") : 1;
}

int registry_list(struct registry *registry, struct guest_row **out, size_t *n_out, struct error **err)
{
    cleanup_statement sqlite3_stmt *s = NULL;
    struct guest_row *rows = NULL;
    size_t n = 0, room = 0;
    int step, rc = registry_prepare(registry, &s, err, "SELECT " COLUMNS " FROM guests ORDER BY name", "");

    while (rc == 0 && (step = sqlite3_step(s)) != SQLITE_DONE) {
        if (step != SQLITE_ROW) {
            rc = registry_error(registry, "state", err);
            break;
        }
        if (n == room) {
            room = room ? 2 * room : 16;
            struct guest_row *more = realloc(rows, room * sizeof(*rows));
            if (!more) {
                rc = error_set_errno(err, ENOMEM, "state");
                break;
            }
            rows = more;
        }
        rc = read_row(s, &rows[n]) ? error_set_errno(err, ENOMEM, "state") : 0;
        n += rc == 0;
    }
    if (rc) {
        while (n)
            guest_row_clear(&rows[--n]);
        free(rows);
        return rc;
    }
    *out = rows;
    *n_out = n;
    return 0;
}

int registry_insert(struct registry *registry, const struct guest_row *r, struct error **err)
{
    return registry_execute(
        registry, err, "INSERT INTO guests (" COLUMNS ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "ssiiiissiiiiii", r->name, r->config, (int64_t)r->state, (int64_t)r->supervisor, (int64_t)r->vm,
        (int64_t)r->exit_status, r->reason ? r->reason : "", r->engine ? r->engine : "", r->created,
        r->started, r->ended, r->restarts, (int64_t)r->transient, (int64_t)r->by_hand);
}

int registry_update(struct registry *registry, const struct guest_row *r, struct error **err)
{
    int rc = registry_execute(
        registry, err,
        "UPDATE guests SET config = ?, state = ?, supervisor = ?, vm = ?, exit_status = ?, "
        "reason = ?, engine = ?, "
        "started = ?, ended = ?, restarts = ?, transient = ?, by_hand = ? WHERE name = ?",
        "siiiissiiiiis", r->config, (int64_t)r->state, (int64_t)r->supervisor, (int64_t)r->vm,
        (int64_t)r->exit_status, r->reason ? r->reason : "", r->engine ? r->engine : "", r->started, r->ended,
        r->restarts, (int64_t)r->transient, (int64_t)r->by_hand, r->name);

    if (rc == 0 && !sqlite3_changes(registry->db))
        return error_set(err, ENOENT, "no guest '%s'", r->name);
    return rc;
}

int registry_delete(struct registry *registry, const char *name, struct error **err)
{
    return registry_execute(registry, err, "DELETE FROM guests WHERE name = ?", "s", name);
}

int registry_add_event(struct registry *registry, const char *guest, const char *type, const char *details,
                       struct error **err)
{
    int rc =
        registry_execute(registry, err, "INSERT INTO events (time, guest, type, details) VALUES (?, ?, ?, ?)",
                         "isss", registry_now(), guest, type, details);
    int64_t id = rc ? 0 : sqlite3_last_insert_rowid(registry->db);

    if (id && id % EVENTS_CHECK == 0)
        rc = registry_execute(registry, err, "DELETE FROM events WHERE id <= ?", "i", id - EVENTS_KEPT);
    return rc;
}

int registry_each_event(struct registry *registry, int64_t after_id, int64_t since,
                        int (*fn)(void *opaque, const struct registry_event *event), void *opaque,
                        struct error **err)
{
    cleanup_statement sqlite3_stmt *s = NULL;
    int rc = registry_prepare(
        registry, &s, err,
        "SELECT id, time, guest, type, details FROM events WHERE id > ? AND time >= ? ORDER BY id", "ii",
        after_id, since);

    while (rc == 0) {
        int step = sqlite3_step(s);
        if (step == SQLITE_DONE)
            break;
        if (step != SQLITE_ROW)
            return registry_error(registry, "state", err);
        struct registry_event event = {
            .id = sqlite3_column_int64(s, 0),
            .time = sqlite3_column_int64(s, 1),
            .guest = (const char *)sqlite3_column_text(s, 2),
            .type = (const char *)sqlite3_column_text(s, 3),
            .details = (const char *)sqlite3_column_text(s, 4),
        };
        rc = event.guest && event.type && event.details ? fn(opaque, &event)
                                                        : error_set_errno(err, ENOMEM, "state");
    }
    return rc;
}
