/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs `snapshot`, `snapshots`, `restore`, `snapshot-rm` and `clone`. */
#include "guest/snapshot.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "cli/disks.h"
#include "cli/guests.h"
#include "guest/end.h"

#include <errno.h>
#include <string.h>

enum control_freeze cli_freeze(const struct cli_values *values)
{
    const char *given = cli_string(values, "freeze");
    size_t i = 0;

    while (given && control_freeze_name(i) && strcmp(control_freeze_name(i), given))
        i++;
    return given ? (enum control_freeze)i : CONTROL_FREEZE_TRY;
}

int cli_snapshot(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    const char *description = cli_string(values, "description");
    struct guest_pause pause;
    int rc = home_find(&home, err);

    if (rc == 0)
        rc = guest_snapshot(&home, cli_string(values, "NAME"), cli_string(values, "SNAPSHOT"),
                            description ? description : "", cli_freeze(values), &pause, err);
    if (rc)
        return rc;
    if (pause.running)
        printf("%s stood still for %.1f ms; %s\n", cli_string(values, "NAME"), (double)pause.ns / 1e6,
               pause.note);
    *status = 0;
    return 0;
}

/* ---- the tree ---- */

static json_t *tree_json(const struct snapshot_tree *tree)
{
    json_t *list = json_array();

    for (size_t i = 0; i < tree->n; i++) {
        const struct snapshot *s = &tree->list[i];
        const char *parent = tree->parents[i] < tree->n ? tree->list[tree->parents[i]].name : NULL;
        char created[64];

        cli_format_time(created, sizeof(created), s->created);
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:s, s:s?, s:I, s:b}", "name", s->name, "description",
                                        s->description, "created", created, "parent", parent, "bytes",
                                        (json_int_t)tree->bytes[i], "current", tree->current == i));
    }
    return list;
}

static void print_one(const struct snapshot_tree *tree, size_t i, unsigned depth)
{
    char created[64], size[16], label[512];

    snprintf(label, sizeof(label), "%*s%s", (int)(2 * depth), "", i < tree->n ? tree->list[i].name : "(now)");
    if (i == tree->n) {
        printf("%-30s  %20s  %8s\n", label, "", cli_human_size(tree->current_bytes, size));
        return;
    }
    cli_format_time(created, sizeof(created), tree->list[i].created);
    strcpy(created + strlen("2026-01-31T12:00:00"), "Z");
    printf("%-30s  %20s  %8s%s%s\n", label, created, cli_human_size(tree->bytes[i], size),
           tree->list[i].description[0] ? "  " : "", tree->list[i].description);
}

/* Those that follow `parent`, the oldest first, and what follows them. */
static void print_below(const struct snapshot_tree *tree, size_t parent, unsigned depth)
{
    for (size_t i = 0; i < tree->n; i++)
        if (tree->parents[i] == parent) {
            print_one(tree, i, depth);
            print_below(tree, i, depth + 1);
        }
    if (tree->current == parent)
        print_one(tree, tree->n, depth);
}

int cli_snapshots(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    struct snapshot_tree tree = {0};
    int rc = home_find(&home, err);

    if (rc == 0)
        rc = guest_snapshots(&home, cli_string(values, "NAME"), &tree, err);
    if (rc)
        return rc;
    if (cli_bool(values, "json")) {
        rc = cli_print_json(tree_json(&tree), JSON_INDENT(2), err);
    } else if (tree.n) {
        printf("%-30s  %20s  %8s\n", "SNAPSHOT", "MADE", "SIZE");
        print_below(&tree, tree.n, 0);
    }
    snapshot_tree_free(&tree);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}

/* ---- going back, removing ---- */

/* All that it would still write is thrown away in any case. */
static int end_guest(const struct home *home, const char *name, struct error **err)
{
    struct guest_row row;
    struct guest_end end;
    struct error *why = NULL;
    int rc = guest_find(home, name, &row, err);

    if (rc)
        return rc;
    bool transient = row.transient;
    guest_row_clear(&row);
    if (transient)
        return error_set(err, EINVAL, "guest '%s' is removed when it ends (--rm), so it can't be taken back",
                         name);
    rc = guest_end_begin(&end, home, name, GUEST_END_KILL, 0, &why);
    if (rc && rc != -ESRCH) {
        *err = why;
        return rc;
    }
    error_free(why);
    return rc ? 0 : guest_end_finish(&end, home, err);
}

/* A name that is wrong must not end the guest. */
static int check_snapshot(const struct home *home, const char *guest, const char *name, bool *live,
                          struct error **err)
{
    struct snapshot_tree tree;
    struct guest_row row;
    int rc = guest_find(home, guest, &row, err);

    if (rc)
        return rc;
    *live = guest_state_is_live(row.state);
    guest_row_clear(&row);
    rc = guest_snapshots(home, guest, &tree, err);
    if (rc)
        return rc;
    rc = -ENOENT;
    for (size_t i = 0; i < tree.n; i++)
        if (strcmp(tree.list[i].name, name) == 0)
            rc = 0;
    snapshot_tree_free(&tree);
    return rc ? error_set(err, ENOENT, "guest '%s' has no snapshot '%s': 'tabique snapshots %s' lists them",
                          guest, name, guest)
              : 0;
}

int cli_restore(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    const char *name = cli_string(values, "NAME"), *snapshot = cli_string(values, "SNAPSHOT");
    bool live;
    int rc = home_find(&home, err);

    if (rc == 0)
        rc = check_snapshot(&home, name, snapshot, &live, err);
    if (rc == 0 && live)
        rc = end_guest(&home, name, err);
    if (rc == 0)
        rc = guest_restore(&home, name, snapshot, err);
    if (rc == 0 && live)
        rc = cli_start_guest(&home, name, err);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}

int cli_snapshot_rm(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    struct cli_disk_job j;
    int rc = home_find(&home, err);

    if (rc)
        return rc;
    cli_disk_job_begin(&j, "merging");
    rc =
        guest_snapshot_remove(&home, cli_string(values, "NAME"), cli_string(values, "SNAPSHOT"), &j.job, err);
    cli_disk_job_end(&j);
    *status = rc == 0 ? 0 : rc == -EINTR ? CLI_STATUS_INTERRUPTED : CLI_STATUS_FAILED;
    return rc;
}

/* ---- cloning ---- */

int cli_clone(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    cleanup_free char *name = NULL;
    struct guest_pause pause;
    struct cli_disk_job j;
    int rc = home_find(&home, err);

    if (rc)
        return rc;
    cli_disk_job_begin(&j, "copying");
    const struct guest_clone what = {
        .source = cli_string(values, "NAME"),
        .name = cli_string(values, "NEW"),
        .snapshot = cli_string(values, "snapshot"),
        .freeze = cli_freeze(values),
        .full = cli_bool(values, "full"),
        .job = &j.job,
    };
    rc = guest_clone(&home, &what, &name, &pause, err);
    cli_disk_job_end(&j);
    if (rc == 0)
        puts(name);
    *status = rc == 0 ? 0 : rc == -EINTR ? CLI_STATUS_INTERRUPTED : CLI_STATUS_FAILED;
    return rc;
}
