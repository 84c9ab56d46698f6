/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guests: their row, directory and lock, kept together. Whatever changes which guests there are happens in a
 * write transaction of the registry, so two never do it at once, and each begins by clearing away what a
 * killed one left. Called by the command line and the supervisor. No locks but the guests'.
 */
#include "guest/guest.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/suggest.h"
#include "guest/container_process.h"
#include "guest/guest_priv.h"
#include "guest/layers.h"
#include "guest/lock.h"
#include "guest/names.h"
#include "guest/policy.h"
#include "host/loop.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_ATTEMPTS 512

/* A guest's last processes are about to end: they need no more than that. */
#define ORPHANS_MS 3000

#define LET_GO_MS     5000
#define LOOK_AGAIN_MS 20

static char *path_in(const char *directory, const char *between, const char *name, const char *file)
{
    char *out;

    return asprintf(&out, "%s%s/%s%s%s", directory, between, name, file ? "/" : "", file ? file : "") < 0
               ? NULL
               : out;
}

char *guest_path(const struct home *home, const char *name, const char *file)
{
    return path_in(home->state, "/guests", name, file);
}

char *guest_run_path(const struct home *home, const char *name, const char *file)
{
    return path_in(home->run, "", name, file);
}

void guest_list_free(struct guest_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        guest_row_clear(&rows[i]);
    free(rows);
}

/* ---- the truth ---- */

/* Whether the row says that somebody holds the guest, and nobody does. */
bool guest_is_dead(const struct home *home, const struct guest_row *row)
{
    cleanup_free char *directory = guest_path(home, row->name, NULL);

    if (!guest_state_is_live(row->state) || !directory)
        return false;
    return lock_holder(directory) == LOCK_FREE;
}

/* What such a row becomes. */
static void make_crashed(struct guest_row *row)
{
    row->state = GUEST_CRASHED;
    row->ended = registry_now();
    row->supervisor = row->vm = 0;
    row->exit_status = -1;
    free(row->reason);
    row->reason = strdup("its supervisor was killed");
}

/* One that never ran has nothing worth keeping. */
static bool leaves_nothing(const struct guest_row *row)
{
    return row->transient || !row->started;
}

/* Clones have never run, and others may be based on one that was not to stay. */
static bool has_layers(struct registry *registry, const char *name)
{
    struct layer *layers = NULL;
    size_t n = 0;
    int rc = layers_list(registry, name, &layers, &n, NULL);

    layers_free(layers, n);
    return rc == 0 && n;
}

int guest_bury(const struct home *home, struct registry *registry, const char *name, struct error **err)
{
    struct guest_row row = {0};
    int rc = registry_find(registry, name, &row, err);

    if (rc <= 0)
        return rc;
    rc = 0;
    /* It may have been started, or have ended well, since it was looked at. */
    if (guest_is_dead(home, &row)) {
        cleanup_free char *run = guest_run_path(home, name, NULL);

        if (run)
            home_remove_tree(run);
        container_process_clean(home, name, NULL);
        make_crashed(&row);
        rc = registry_add_event(registry, name, "crashed", "{\"reason\":\"its supervisor was killed\"}", err);
        if (rc == 0 && leaves_nothing(&row) && !has_layers(registry, name))
            rc = guest_erase_locked(home, registry, name, err);
        else if (rc == 0)
            rc = registry_update(registry, &row, err);
    }
    guest_row_clear(&row);
    return rc;
}

/* Writes down which guests have crashed. Where that can't be done (a full disk, no right to write) the truth
 * is told all the same, by the caller. */
static void bury_all(const struct home *home, const struct guest_row *rows, size_t n)
{
    struct registry *registry = NULL;
    int rc = registry_open(&registry, home->state, REGISTRY_WRITE, NULL);

    if (rc == 0)
        rc = registry_begin(registry, NULL);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = guest_bury(home, registry, rows[i].name, NULL);
    if (rc == 0)
        registry_commit(registry, NULL);
    registry_close(registry);
    guest_empty_trash(home);
}

static void wait_for_orphans(const struct home *home, const struct guest_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cleanup_free char *directory = guest_path(home, rows[i].name, NULL);

        if (directory && guest_state_is_live(rows[i].state) && lock_holder(directory) == LOCK_ORPHANED) {
            int fd = lock_wait(directory, ORPHANS_MS);
            cleanup_close_fn(&fd);
        }
    }
}

/* `name`: of the one that is wanted; NULL: all. */
static int read_rows(const struct home *home, const char *name, struct guest_row **rows, size_t *n,
                     struct error **err)
{
    struct registry *registry = NULL;
    int rc = registry_open(&registry, home->state, REGISTRY_READ, err);

    *rows = NULL;
    *n = 0;
    if (rc == -ENOENT && (!err || !*err))
        return 0;
    if (rc == 0 && !name) {
        rc = registry_list(registry, rows, n, err);
    } else if (rc == 0) {
        *rows = calloc(1, sizeof(**rows));
        rc = *rows ? registry_find(registry, name, *rows, err) : error_set_errno(err, ENOMEM, "state");
        *n = rc > 0;
        rc = rc > 0 ? 0 : rc;
        if (rc)
            free(steal_ptr(*rows));
    }
    registry_close(registry);
    return rc;
}

/* As they are: those that nobody holds any more have crashed. */
static int list(const struct home *home, const char *name, struct guest_row **out, size_t *n_out,
                struct error **err)
{
    struct guest_row *rows;
    size_t n, dead = 0, kept = 0;
    int rc = read_rows(home, name, &rows, &n, err);

    if (rc)
        return rc;
    wait_for_orphans(home, rows, n);
    for (size_t i = 0; i < n; i++)
        dead += guest_is_dead(home, &rows[i]);
    if (dead) {
        bury_all(home, rows, n);
        guest_list_free(rows, n);
        rc = read_rows(home, name, &rows, &n, err);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < n; i++) {
        if (dead && guest_is_dead(home, &rows[i])) {
            make_crashed(&rows[i]);
            if (leaves_nothing(&rows[i])) {
                guest_row_clear(&rows[i]);
                continue;
            }
        }
        rows[kept++] = rows[i];
    }
    *out = rows;
    *n_out = kept;
    return 0;
}

int guest_list(const struct home *home, struct guest_row **out, size_t *n_out, struct error **err)
{
    return list(home, NULL, out, n_out, err);
}

static int no_such_guest(const struct home *home, const char *name, struct error **err)
{
    struct guest_row *rows = NULL;
    size_t n = 0;
    int rc = err ? guest_list(home, &rows, &n, err) : 0;

    if (rc)
        return rc;
    cleanup_free const char **names = calloc(n + 1, sizeof(*names));
    for (size_t i = 0; names && i < n; i++)
        names[i] = rows[i].name;
    const char *meant = names ? suggest_nearest(name, names, n) : NULL;
    rc = error_set(err, ENOENT, "no guest '%s'%s%s%s", name, meant ? ": did you mean '" : "",
                   meant ? meant
                   : n   ? "; 'tabique ps -a' lists them"
                         : ": there is none at all",
                   meant ? "'?" : "");
    guest_list_free(rows, n);
    return rc;
}

int guest_find(const struct home *home, const char *name, struct guest_row *row, struct error **err)
{
    struct guest_row *rows;
    size_t n;
    int rc = list(home, name, &rows, &n, err);

    if (rc)
        return rc;
    if (n)
        *row = rows[0];
    free(rows);
    return n ? 0 : no_such_guest(home, name, err);
}

/* ---- making ---- */

/* Chooses or checks the name, and makes the directory, which is then ours alone. */
static int claim_name(struct guest *guest, struct registry *registry, const struct guest_spec *spec,
                      struct error **err)
{
    char invented[NAME_MAX_LENGTH + 1];

    for (unsigned attempt = 0; attempt < NAME_ATTEMPTS; attempt++) {
        const char *name = spec->name;
        struct guest_row row = {0};

        if (!name) {
            name_invent(invented, sizeof(invented), attempt);
            name = invented;
        }
        int rc = guest_bury(guest->home, registry, name, err);
        if (rc == 0)
            rc = registry_find(registry, name, &row, err);
        bool live = rc > 0 && guest_state_is_live(row.state);
        guest_row_clear(&row);
        if (rc < 0)
            return rc;
        if (rc > 0 && spec->name)
            return error_set(err, EEXIST,
                             "a guest '%s' is there already, and %s: choose another --name, or %s%s", name,
                             live ? "runs" : "does not run",
                             live ? "stop it first: tabique stop " : "start it: tabique start ", name);
        if (rc > 0)
            continue;
        guest->row.name = strdup(name);
        guest->directory = guest_path(guest->home, name, NULL);
        if (!guest->row.name || !guest->directory)
            return error_set_errno(err, ENOMEM, "guest");
        if (mkdir(guest->directory, 0700) < 0)
            return errno == EEXIST && spec->name
                       ? error_set(
                             err, EEXIST,
                             "'%s' is there, of a guest that the registry does not know: move it away, or "
                             "choose another --name",
                             guest->directory)
                       : error_set_errno(err, errno, "'%s'", guest->directory);
        return 0;
    }
    return error_set(err, EEXIST, "no free name was found: give one with --name");
}

static int add(struct guest *guest, struct registry *registry, const struct guest_spec *spec,
               struct error **err)
{
    int rc = claim_name(guest, registry, spec, err);

    if (rc)
        return rc;
    guest->row.config = strdup(spec->config);
    guest->row.reason = strdup("");
    guest->row.engine = strdup("");
    guest->row.state = GUEST_STARTING;
    guest->row.supervisor = getpid();
    guest->row.exit_status = -1;
    guest->row.created = registry_now();
    guest->row.transient = spec->transient;
    guest->lock_fd = lock_take(guest->directory);
    if (guest->lock_fd < 0)
        rc = error_set_errno(err, -guest->lock_fd, "'%s'", guest->directory);
    if (rc == 0)
        rc = registry_insert(registry, &guest->row, err);
    if (rc == 0)
        rc = registry_add_event(registry, guest->row.name, "created", "{}", err);
    if (rc == 0)
        rc = registry_commit(registry, err);
    if (rc)
        home_remove_tree(guest->directory);
    return rc;
}

int guest_create(struct guest *out, const struct home *home, const struct guest_spec *spec,
                 struct error **err)
{
    struct guest guest = {.home = home, .lock_fd = -1};
    cleanup_free char *guests = path_in(home->state, "", "guests", NULL);
    struct registry *registry = NULL;
    int rc = home_make(home, err);

    if (rc == 0)
        rc = guests ? home_make_directory(guests, 0700, err) : error_set_errno(err, ENOMEM, "guest");
    if (rc == 0)
        rc = registry_open(&registry, home->state, REGISTRY_CREATE, err);
    if (rc == 0)
        rc = registry_begin(registry, err);
    if (rc == 0)
        rc = guest_sweep_locked(home, registry, err);
    if (rc == 0)
        rc = add(&guest, registry, spec, err);
    registry_close(registry);
    if (rc) {
        guest_release(&guest);
        return rc;
    }
    guest_empty_trash(home);
    *out = guest;
    return 0;
}

/* ---- taking hold ---- */

static int busy(const struct guest_row *row, struct error **err)
{
    return error_set(err, EBUSY, "guest '%s' is %s", row->name,
                     guest_state_is_live(row->state) ? guest_state_name(row->state)
                                                     : "in the hands of another command");
}

/* A supervisor that has written down its guest's end is about to let go: that one is waited for. */
static int take_lock(struct guest *guest, const char *name, struct guest_row *seen, struct error **err)
{
    uint64_t until = loop_now() + LET_GO_MS * 1000000ull;

    for (;;) {
        guest->lock_fd = lock_wait(guest->directory, LOOK_AGAIN_MS);
        if (guest->lock_fd >= 0)
            return 0;
        if (guest->lock_fd == -ENOENT)
            return -ENOENT;
        if (guest->lock_fd != -EBUSY)
            return error_set_errno(err, -guest->lock_fd, "guest '%s'", name);
        guest_row_clear(seen);
        int rc = guest_find(guest->home, name, seen, err);
        if (rc)
            return rc == -ENOENT ? -ESRCH : rc; /* removed: -ENOENT is for a directory that is gone */
        if (guest_state_is_live(seen->state) || loop_now() >= until)
            return busy(seen, err);
    }
}

/* Its row is read with the lock held, so it can't change any more. */
static int take(struct guest *guest, const char *name, bool to_start, struct error **err)
{
    struct registry *registry = NULL;
    struct guest_row seen = {0};
    int rc = guest_find(guest->home, name, &seen, err);

    if (rc)
        return rc;
    guest->directory = guest_path(guest->home, name, NULL);
    rc = guest->directory ? take_lock(guest, name, &seen, err) : error_set_errno(err, ENOMEM, "guest");
    guest_row_clear(&seen);
    /* Without its directory it can't run, but be removed. */
    if (rc && (rc != -ENOENT || to_start))
        return rc == -ENOENT ? error_set(err, ENOENT, "guest '%s': its directory is gone", name) : rc;
    rc = registry_open(&registry, guest->home->state, REGISTRY_WRITE, err);
    if (rc == 0)
        rc = registry_begin(registry, err);
    if (rc == 0) {
        rc = registry_find(registry, name, &guest->row, err);
        rc = rc == 0  ? error_set(err, ENOENT, "guest '%s' was removed by another command", name)
             : rc < 0 ? rc
                      : 0;
    }
    if (rc == 0 && to_start) {
        guest->row.state = GUEST_STARTING;
        guest->row.supervisor = getpid();
        guest->row.restarts = 0;
        guest->row.by_hand = false;
        rc = registry_update(registry, &guest->row, err);
    }
    if (rc == 0)
        rc = registry_commit(registry, err);
    registry_close(registry);
    return rc;
}

static int take_or_release(struct guest *out, const struct home *home, const char *name, bool to_start,
                           struct error **err)
{
    struct guest guest = {.home = home, .lock_fd = -1};
    int rc = take(&guest, name, to_start, err);

    if (rc) {
        guest_release(&guest);
        return rc;
    }
    *out = guest;
    return 0;
}

int guest_take_to_start(struct guest *out, const struct home *home, const char *name, struct error **err)
{
    return take_or_release(out, home, name, true, err);
}

int guest_take(struct guest *out, const struct home *home, const char *name, struct error **err)
{
    return take_or_release(out, home, name, false, err);
}

void guest_release(struct guest *guest)
{
    guest_row_clear(&guest->row);
    free(guest->directory);
    cleanup_close_fn(&guest->lock_fd);
    *guest = GUEST_NONE;
}

int guest_begin_write(const struct home *home, struct registry **out, struct error **err)
{
    struct registry *registry = NULL;
    int rc = registry_open(&registry, home->state, REGISTRY_WRITE, err);

    if (rc == -ENOENT && err && !*err)
        error_set(err, ENOENT, "the state in '%s' is gone", home->state);
    if (rc == 0)
        rc = registry_begin(registry, err);
    *out = registry;
    return rc;
}

int guest_record(struct guest *guest, const char *type, const char *details, struct error **err)
{
    struct registry *registry = NULL;
    int rc = guest_begin_write(guest->home, &registry, err);

    if (rc == 0)
        rc = registry_update(registry, &guest->row, err);
    if (rc == 0 && type)
        rc = registry_add_event(registry, guest->row.name, type, details ? details : "{}", err);
    if (rc == 0)
        rc = registry_commit(registry, err);
    registry_close(registry);
    return rc;
}

int guest_ended_by_hand(const struct home *home, const char *name, struct error **err)
{
    struct registry *registry = NULL;
    struct guest_row row = {0};
    int rc = guest_begin_write(home, &registry, err);

    if (rc == 0)
        rc = registry_find(registry, name, &row, err);
    if (rc > 0) {
        row.by_hand = true;
        rc = registry_update(registry, &row, err);
    }
    if (rc == 0)
        rc = registry_commit(registry, err);
    registry_close(registry);
    guest_row_clear(&row);
    return rc;
}

bool guest_starts_with_host(const struct guest_row *row)
{
    json_t *config = json_loads(row->config, 0, NULL);
    const char *text = json_string_value(json_object_get(config, "restart"));
    struct policy policy = {.kind = POLICY_NO};

    if (text && policy_parse(&policy, text, NULL))
        policy.kind = POLICY_NO;
    json_decref(config);
    return policy.kind == POLICY_ALWAYS || (policy.kind == POLICY_UNLESS_STOPPED && !row->by_hand);
}
