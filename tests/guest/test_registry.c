/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The registry: rows come back as they were written, transactions keep others out, and what can't be read is
 * told. */
#include "base/error.h"
#include "guest/registry.h"
#include "host/home.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[64];

static int setup(void **state)
{
    strcpy(directory, "/tmp/tabique-test-XXXXXX");
    return mkdtemp(directory) ? 0 : -1;
}

static int teardown(void **state)
{
    return home_remove_tree(directory);
}

static struct registry *open_registry(enum registry_access access)
{
    struct registry *registry = NULL;

    assert_int_equal(registry_open(&registry, directory, access, NULL), 0);
    return registry;
}

static const struct guest_row web = {
    .name = (char *)"web",
    .config = (char *)"{\"cpus\":2}",
    .state = GUEST_PAUSED,
    .supervisor = 10,
    .vm = 11,
    .exit_status = 255,
    .reason = (char *)"a reason",
    .engine = (char *)"soft",
    .created = 1,
    .started = INT64_MAX,
    .ended = 3,
    .restarts = 4,
    .transient = true,
    .by_hand = true,
};

static void insert(struct registry *registry, const struct guest_row *row)
{
    assert_int_equal(registry_begin(registry, NULL), 0);
    assert_int_equal(registry_insert(registry, row, NULL), 0);
    assert_int_equal(registry_commit(registry, NULL), 0);
}

static void expect_row(const struct guest_row *row, const struct guest_row *expected)
{
    assert_string_equal(row->name, expected->name);
    assert_string_equal(row->config, expected->config);
    assert_string_equal(row->reason, expected->reason);
    assert_string_equal(row->engine, expected->engine);
    assert_int_equal(row->state, expected->state);
    assert_int_equal(row->supervisor, expected->supervisor);
    assert_int_equal(row->vm, expected->vm);
    assert_int_equal(row->exit_status, expected->exit_status);
    assert_int_equal(row->created, expected->created);
    assert_int_equal(row->started, expected->started);
    assert_int_equal(row->ended, expected->ended);
    assert_int_equal(row->restarts, expected->restarts);
    assert_int_equal(row->transient, expected->transient);
    assert_int_equal(row->by_hand, expected->by_hand);
}

static void test_rows(void **state)
{
    struct registry *registry = open_registry(REGISTRY_CREATE);
    struct guest_row row, changed = web, other = web, *rows;
    size_t n;

    insert(registry, &web);
    assert_int_equal(registry_find(registry, "web", &row, NULL), 1);
    expect_row(&row, &web);
    guest_row_clear(&row);
    assert_int_equal(registry_find(registry, "we", &row, NULL), 0);
    changed.state = GUEST_CRASHED;
    changed.exit_status = -1;
    changed.reason = (char *)"";
    changed.transient = false;
    changed.by_hand = false;
    assert_int_equal(registry_update(registry, &changed, NULL), 0);
    other.name = (char *)"database";
    insert(registry, &other);
    registry_close(registry);
    registry = open_registry(REGISTRY_READ);
    assert_int_equal(registry_list(registry, &rows, &n, NULL), 0);
    assert_int_equal(n, 2);
    expect_row(&rows[0], &other);
    expect_row(&rows[1], &changed);
    guest_row_clear(&rows[0]);
    guest_row_clear(&rows[1]);
    free(rows);
    registry_close(registry);
}

static void test_no_row(void **state)
{
    struct registry *registry = open_registry(REGISTRY_CREATE);
    cleanup_error struct error *err = NULL;

    assert_int_equal(registry_update(registry, &web, &err), -ENOENT);
    assert_string_equal(error_message(err), "no guest 'web'");
    registry_close(registry);
}

static void test_what_is_not_committed_has_not_been(void **state)
{
    struct registry *registry = open_registry(REGISTRY_CREATE);
    struct guest_row row;

    assert_int_equal(registry_begin(registry, NULL), 0);
    assert_int_equal(registry_insert(registry, &web, NULL), 0);
    registry_close(registry);
    registry = open_registry(REGISTRY_READ);
    assert_int_equal(registry_find(registry, "web", &row, NULL), 0);
    registry_close(registry);
}

/* Each child adds one to a number that it reads in its transaction. */
static void count_up(int times)
{
    for (int i = 0; i < times; i++) {
        struct registry *registry = NULL;
        struct guest_row row;

        if (registry_open(&registry, directory, REGISTRY_CREATE, NULL) || registry_begin(registry, NULL) ||
            registry_find(registry, "web", &row, NULL) != 1)
            _exit(1);
        row.restarts++;
        if (registry_update(registry, &row, NULL) || registry_commit(registry, NULL))
            _exit(1);
        guest_row_clear(&row);
        registry_close(registry);
    }
    _exit(0);
}

static void test_processes_wait_for_each_other(void **state)
{
    struct registry *registry = open_registry(REGISTRY_CREATE);
    struct guest_row row;

    insert(registry, &web);
    registry_close(registry);
    for (int i = 0; i < 4; i++)
        if (fork() == 0)
            count_up(25);
    for (int i = 0; i < 4; i++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    registry = open_registry(REGISTRY_READ);
    assert_int_equal(registry_find(registry, "web", &row, NULL), 1);
    assert_int_equal(row.restarts, web.restarts + 100);
    guest_row_clear(&row);
    registry_close(registry);
}

struct seen {
    int n;
    int64_t last;
    char types[64];
};

static int on_event(void *opaque, const struct registry_event *event)
{
    struct seen *seen = opaque;

    assert_true(event->id > seen->last);
    seen->last = event->id;
    seen->n++;
    snprintf(seen->types, sizeof(seen->types), "%s %s %s", event->guest, event->type, event->details);
    return seen->n == 3 ? 7 : 0;
}

static void test_events(void **state)
{
    struct registry *registry = open_registry(REGISTRY_CREATE);
    struct seen seen = {0};
    int64_t before = registry_now();

    assert_int_equal(registry_add_event(registry, "web", "created", "{}", NULL), 0);
    assert_int_equal(registry_add_event(registry, "web", "started", "{\"a\":1}", NULL), 0);
    assert_int_equal(registry_each_event(registry, 0, before, on_event, &seen, NULL), 0);
    assert_int_equal(seen.n, 2);
    assert_string_equal(seen.types, "web started {\"a\":1}");
    assert_int_equal(registry_add_event(registry, "web", "ended", "{}", NULL), 0);
    /* Only what is new; and what the callback returns ends it. */
    assert_int_equal(registry_each_event(registry, seen.last, 0, on_event, &seen, NULL), 7);
    assert_int_equal(registry_each_event(registry, 0, registry_now() + 1, on_event, &seen, NULL), 0);
    assert_int_equal(seen.n, 3);
    registry_close(registry);
}

static void test_old_events_are_forgotten(void **state)
{
    struct registry *registry = open_registry(REGISTRY_CREATE);
    struct seen seen = {.n = 10};

    assert_int_equal(registry_begin(registry, NULL), 0);
    for (int i = 0; i < 21000; i++)
        assert_int_equal(registry_add_event(registry, "web", "reset", "{}", NULL), 0);
    assert_int_equal(registry_commit(registry, NULL), 0);
    assert_int_equal(registry_each_event(registry, 0, 0, on_event, &seen, NULL), 0);
    assert_in_range(seen.n - 10, 20000, 20600);
    assert_int_equal(seen.last, 21000);
    registry_close(registry);
}

static void expect_refusal(enum registry_access access, int expected, const char *part)
{
    cleanup_error struct error *err = NULL;
    struct registry *registry = NULL;

    assert_int_equal(registry_open(&registry, directory, access, &err), expected);
    assert_null(registry);
    if (!part)
        assert_null(err);
    else if (!strstr(error_message(err), part))
        fail_msg("\"%s\" is not in \"%s\"", part, error_message(err));
}

static void test_no_database(void **state)
{
    expect_refusal(REGISTRY_READ, -ENOENT, NULL);
    expect_refusal(REGISTRY_WRITE, -ENOENT, NULL);
    assert_int_equal(rmdir(directory), 0);
    expect_refusal(REGISTRY_READ, -ENOENT, NULL);
    expect_refusal(REGISTRY_CREATE, -ENOENT, "No such file or directory");
    assert_int_equal(mkdir(directory, 0700), 0);
}

static void test_damage(void **state)
{
    char path[96];

    snprintf(path, sizeof(path), "%s/tabique.db", directory);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, "this is no database, however long it may become", 47), 47);
    assert_int_equal(ftruncate(fd, 8192), 0);
    close(fd);
    for (enum registry_access access = REGISTRY_READ; access <= REGISTRY_CREATE; access++)
        expect_refusal(access, -EBADMSG, "move it away");
}

/* It opens, but lacks what is asked for. */
static void test_a_table_that_is_not_there(void **state)
{
    struct error *err = NULL;
    struct guest_row *rows, row;
    char path[96];
    sqlite3 *db;
    size_t n;

    registry_close(open_registry(REGISTRY_CREATE));
    snprintf(path, sizeof(path), "%s/tabique.db", directory);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "DROP TABLE guests", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    struct registry *registry = open_registry(REGISTRY_READ);
    assert_true(registry_find(registry, "web", &row, &err) < 0);
    assert_non_null(strstr(error_message(err), "no such table"));
    error_free(err);
    assert_true(registry_list(registry, &rows, &n, NULL) < 0);
    registry_close(registry);
}

static bool has_web(struct registry *registry)
{
    struct guest_row row;
    int rc = registry_find(registry, "web", &row, NULL);

    assert_in_range(rc, 0, 1);
    if (rc)
        guest_row_clear(&row);
    return rc;
}

/* A connection that stays is as good as a new one. */
static void test_a_connection_that_stays(void **state)
{
    registry_keep();
    struct registry *first = open_registry(REGISTRY_CREATE), *beside = open_registry(REGISTRY_READ);

    assert_ptr_not_equal(first, beside);
    registry_close(beside);
    assert_int_equal(registry_begin(first, NULL), 0);
    assert_int_equal(registry_insert(first, &web, NULL), 0);
    registry_close(first); /* without a commit; one of the two stays */
    first = open_registry(REGISTRY_WRITE);
    assert_false(has_web(first));
    insert(first, &web);
    registry_close(first);
    beside = open_registry(REGISTRY_READ);
    assert_ptr_equal(first, beside);
    assert_true(has_web(beside));
    registry_close(beside);

    /* Another file of that name is another database. */
    assert_int_equal(home_remove_tree(directory), 0);
    assert_int_equal(registry_open(&first, directory, REGISTRY_READ, NULL), -ENOENT);
    assert_int_equal(mkdir(directory, 0700), 0);
    first = open_registry(REGISTRY_CREATE);
    assert_false(has_web(first));
    registry_close(first);
    registry_let_go();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_row, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_not_committed_has_not_been, setup, teardown),
        cmocka_unit_test_setup_teardown(test_processes_wait_for_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_events_are_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_connection_that_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_database, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_table_that_is_not_there, setup, teardown),
    };

    return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}
