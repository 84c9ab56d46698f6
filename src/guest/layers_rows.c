/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry's rows of layers and snapshots (layers.h). */
#include "base/cleanup.h"
#include "base/error.h"
#include "guest/layers.h"
#include "guest/registry_priv.h"

#include <errno.h>
#include <string.h>

static int no_memory(struct error **err)
{
    return error_set_errno(err, ENOMEM, "state");
}

/* Room for one more in an array that holds `n`. */
static void *grow(void *array, size_t n, size_t size)
{
    return n & (n + 1) && n ? array : realloc(array, (2 * n + 1) * size);
}

/* ---- layers ---- */

void layers_free(struct layer *layers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(layers[i].guest);
        free(layers[i].path);
        free(layers[i].format);
    }
    free(layers);
}

static char *text(sqlite3_stmt *s, int column)
{
    const char *value = (const char *)sqlite3_column_text(s, column);

    return strdup(value ? value : "");
}

static int read_layer(sqlite3_stmt *s, struct layer *out)
{
    *out = (struct layer){
        .id = sqlite3_column_int64(s, 0),
        .parent = sqlite3_column_int64(s, 1),
        .guest = text(s, 2),
        .disk = (unsigned)sqlite3_column_int(s, 3),
        .path = text(s, 4),
        .format = text(s, 5),
        .active = sqlite3_column_int(s, 6),
        .n_children = (unsigned)sqlite3_column_int(s, 7),
        .n_snapshots = (unsigned)sqlite3_column_int(s, 8),
    };
    return out->guest && out->path && out->format ? 0 : -ENOMEM;
}

/* What `read_layer` reads of the row `l`; `disk` tells whose number of the disk. */
#define COLUMNS(disk)                                                                                        \
    "SELECT l.id, l.parent, l.guest, " disk ".disk, l.path, l.format, l.active,"                             \
    " (SELECT count(*) FROM layers c WHERE c.parent = l.id),"                                                \
    " (SELECT count(*) FROM snapshot_layers x WHERE x.layer = l.id) FROM "

static int select_layers(struct registry *registry, const char *sql, const char *guest, struct layer **out,
                         size_t *n_out, struct error **err)
{
    cleanup_statement sqlite3_stmt *s = NULL;
    struct layer *layers = NULL;
    size_t n = 0;
    int step, rc = registry_prepare(registry, &s, err, sql, "s", guest);

    while (rc == 0 && (step = sqlite3_step(s)) != SQLITE_DONE) {
        struct layer *more = step == SQLITE_ROW ? grow(layers, n, sizeof(*layers)) : NULL;

        if (step != SQLITE_ROW) {
            rc = registry_error(registry, "state", err);
        } else if (!more) {
            rc = no_memory(err);
        } else {
            layers = more;
            rc = read_layer(s, &layers[n++]) ? no_memory(err) : 0;
        }
    }
    if (rc) {
        layers_free(layers, n);
        return rc;
    }
    *out = layers;
    *n_out = n;
    return 0;
}

int layers_list(struct registry *registry, const char *guest, struct layer **out, size_t *n,
                struct error **err)
{
    return select_layers(registry, COLUMNS("l") "layers l WHERE l.guest = ? ORDER BY l.id", guest, out, n,
                         err);
}

int layers_list_active(struct registry *registry, const char *guest, struct layer **out, size_t *n,
                       struct error **err)
{
    return select_layers(registry, COLUMNS("l") "layers l WHERE l.guest = ? AND l.active ORDER BY l.id",
                         guest, out, n, err);
}

int layers_list_behind(struct registry *registry, const char *guest, struct layer **out, size_t *n,
                       struct error **err)
{
    return select_layers(registry,
                         COLUMNS("a") "layers a JOIN layers l ON l.id = a.parent"
                                      " WHERE a.guest = ? AND a.active ORDER BY a.id",
                         guest, out, n, err);
}

int layers_insert_locked(struct registry *registry, struct layer *l, struct error **err)
{
    int rc = registry_execute(
        registry, err,
        "INSERT INTO layers (parent, guest, disk, path, format, active) VALUES (?, ?, ?, ?, ?, ?)", "isissi",
        l->parent, l->guest, (int64_t)l->disk, l->path, l->format, (int64_t)l->active);

    if (rc == 0)
        l->id = sqlite3_last_insert_rowid(registry->db);
    return rc;
}

int layers_freeze_locked(struct registry *registry, int64_t id, struct error **err)
{
    return registry_execute(registry, err, "UPDATE layers SET active = 0 WHERE id = ?", "i", id);
}

int layers_take_out_locked(struct registry *registry, const struct layer *layer, struct error **err)
{
    int rc = registry_execute(registry, err, "UPDATE layers SET parent = ? WHERE parent = ?", "ii",
                              layer->parent, layer->id);

    return rc ? rc : registry_execute(registry, err, "DELETE FROM layers WHERE id = ?", "i", layer->id);
}

int layers_cut_off_locked(struct registry *registry, const char *guest, unsigned disk, struct error **err)
{
    return registry_execute(registry, err,
                            "UPDATE layers SET parent = 0 WHERE guest = ? AND disk = ? AND active", "si",
                            guest, (int64_t)disk);
}

int layers_drop_unneeded_locked(struct registry *registry, const char *guest, struct error **err)
{
    int rc;

    do
        rc = registry_execute(registry, err,
                              "DELETE FROM layers WHERE guest = ? AND NOT active"
                              " AND NOT EXISTS (SELECT 1 FROM layers c WHERE c.parent = layers.id)"
                              " AND NOT EXISTS (SELECT 1 FROM snapshot_layers x WHERE x.layer = layers.id)",
                              "s", guest);
    while (rc == 0 && sqlite3_changes(registry->db));
    return rc;
}

int layers_drop_active_locked(struct registry *registry, const char *guest, struct error **err)
{
    int rc = registry_execute(registry, err, "DELETE FROM layers WHERE guest = ? AND active", "s", guest);

    return rc ? rc : layers_drop_unneeded_locked(registry, guest, err);
}

int layers_forget_locked(struct registry *registry, const char *guest, struct error **err)
{
    int rc = registry_execute(
        registry, err,
        "DELETE FROM snapshot_layers WHERE snapshot IN (SELECT id FROM snapshots WHERE guest = ?)", "s",
        guest);

    if (rc == 0)
        rc = registry_execute(registry, err, "DELETE FROM snapshots WHERE guest = ?", "s", guest);
    return rc ? rc : registry_execute(registry, err, "DELETE FROM layers WHERE guest = ?", "s", guest);
}

int layers_clones(struct registry *registry, const char *guest, int64_t layer, char **names,
                  struct error **err)
{
    cleanup_statement sqlite3_stmt *s = NULL;
    int rc = registry_prepare(registry, &s, err,
                              "SELECT group_concat(guest, ', ') FROM (SELECT DISTINCT c.guest FROM layers c"
                              " JOIN layers p ON c.parent = p.id WHERE p.guest = ? AND c.guest <> p.guest"
                              " AND (? = 0 OR p.id = ?) ORDER BY c.guest)",
                              "sii", guest, layer, layer);

    if (rc)
        return rc;
    if (sqlite3_step(s) != SQLITE_ROW)
        return registry_error(registry, "state", err);
    const char *found = (const char *)sqlite3_column_text(s, 0);
    *names = found ? strdup(found) : NULL;
    return found && !*names ? no_memory(err) : 0;
}

/* ---- snapshots ---- */

void snapshots_free(struct snapshot *snapshots, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(snapshots[i].name);
        free(snapshots[i].description);
        free(snapshots[i].layers);
    }
    free(snapshots);
}

/* A row of the join, of which each snapshot has one for each of its layers. */
static int take_row(sqlite3_stmt *s, struct snapshot **list, size_t *n)
{
    int64_t id = sqlite3_column_int64(s, 0);

    if (!*n || (*list)[*n - 1].id != id) {
        struct snapshot *more = grow(*list, *n, sizeof(**list));
        if (!more)
            return -ENOMEM;
        *list = more;
        more[(*n)++] = (struct snapshot){
            .id = id, .name = text(s, 1), .description = text(s, 2), .created = sqlite3_column_int64(s, 3)};
        if (!more[*n - 1].name || !more[*n - 1].description)
            return -ENOMEM;
    }
    struct snapshot *last = &(*list)[*n - 1];
    int64_t *layers = grow(last->layers, last->n_layers, sizeof(*layers));
    if (!layers)
        return -ENOMEM;
    last->layers = layers;
    layers[last->n_layers++] = sqlite3_column_int64(s, 4);
    return 0;
}

int snapshots_list(struct registry *registry, const char *guest, struct snapshot **out, size_t *n_out,
                   struct error **err)
{
    cleanup_statement sqlite3_stmt *s = NULL;
    struct snapshot *list = NULL;
    size_t n = 0;
    int step,
        rc = registry_prepare(registry, &s, err,
                              "SELECT s.id, s.name, s.description, s.created, x.layer FROM snapshots s"
                              " JOIN snapshot_layers x ON x.snapshot = s.id JOIN layers l ON l.id = x.layer"
                              " WHERE s.guest = ? ORDER BY s.id, l.disk",
                              "s", guest);

    while (rc == 0 && (step = sqlite3_step(s)) != SQLITE_DONE)
        rc = step != SQLITE_ROW       ? registry_error(registry, "state", err)
             : take_row(s, &list, &n) ? no_memory(err)
                                      : 0;
    if (rc) {
        snapshots_free(list, n);
        return rc;
    }
    *out = list;
    *n_out = n;
    return 0;
}

int snapshots_insert_locked(struct registry *registry, const char *guest, const char *name,
                            const char *description, struct error **err)
{
    cleanup_statement sqlite3_stmt *s = NULL;
    int rc = registry_prepare(registry, &s, err, "SELECT 1 FROM snapshots WHERE guest = ? AND name = ?", "ss",
                              guest, name);

    if (rc == 0 && sqlite3_step(s) == SQLITE_ROW)
        return error_set(
            err, EEXIST,
            "guest '%s' has a snapshot '%s' already: choose another name, or remove that one with "
            "'tabique snapshot-rm %s %s'",
            guest, name, guest, name);
    if (rc == 0)
        rc = registry_execute(registry, err,
                              "INSERT INTO snapshots (guest, name, description, created) VALUES (?, ?, ?, ?)",
                              "sssi", guest, name, description, registry_now());
    int64_t id = rc ? 0 : sqlite3_last_insert_rowid(registry->db);
    return rc ? rc
              : registry_execute(registry, err,
                                 "INSERT INTO snapshot_layers (snapshot, layer)"
                                 " SELECT ?, id FROM layers WHERE guest = ? AND active",
                                 "is", id, guest);
}

int snapshots_delete_locked(struct registry *registry, int64_t id, struct error **err)
{
    int rc = registry_execute(registry, err, "DELETE FROM snapshot_layers WHERE snapshot = ?", "i", id);

    return rc ? rc : registry_execute(registry, err, "DELETE FROM snapshots WHERE id = ?", "i", id);
}
