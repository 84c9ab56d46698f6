/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `events`. */
#include "base/error.h"
#include "cli/guests.h"
#include "cli/options.h"

#include <errno.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

/* Where the database's log can't be watched, or does not exist yet, it is looked at so often. */
#define LOOK_MS 500

struct printing {
    int64_t last_id;
    struct error **err;
};

static int print_event(void *opaque, const struct registry_event *event)
{
    struct printing *p = opaque;
    json_t *json = json_object(), *details = json_loads(event->details, 0, NULL);
    char time[64];

    cli_format_time(time, sizeof(time), event->time);
    json_object_set_new(json, "id", json_integer(event->id));
    json_object_set_new(json, "time", json_string(time));
    json_object_set_new(json, "guest", json_string(event->guest));
    json_object_set_new(json, "event", json_string(event->type));
    json_object_update_missing(json, details);
    json_decref(details);
    p->last_id = event->id;
    return cli_print_json(json, JSON_COMPACT, p->err);
}

static int print_new(const struct home *home, struct printing *p, int64_t since, struct error **err)
{
    struct registry *registry = NULL;
    int rc = registry_open(&registry, home->state, REGISTRY_READ, err);

    if (rc == -ENOENT && !*err)
        return 0;
    if (rc == 0)
        rc = registry_each_event(registry, p->last_id, since, print_event, p, err);
    registry_close(registry);
    return rc;
}

/* Until something may have been written. */
static void wait_for_more(int watch_fd)
{
    struct pollfd p = {.fd = watch_fd, .events = POLLIN};
    char events[4096];

    if (poll(&p, 1, LOOK_MS) > 0 && read(watch_fd, events, sizeof(events)) < 0)
        usleep(LOOK_MS * 1000);
}

int cli_events(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    struct printing p = {.err = err};
    int64_t since = 0;
    int rc = home_find(&home, err);

    if (rc)
        return rc;
    if (cli_string(values, "since"))
        cli_parse_time(cli_string(values, "since"), &since);
    /* Before the first look, so that nothing falls between. */
    int watch_fd = inotify_init1(IN_CLOEXEC);
    if (watch_fd >= 0)
        inotify_add_watch(watch_fd, home.state, IN_MODIFY | IN_CREATE | IN_MOVED_TO);
    for (;;) {
        /* A guest may have been killed with its supervisor: to look is to write it down. */
        struct guest_row *rows;
        size_t n;
        if (guest_list(&home, &rows, &n, NULL) == 0)
            guest_list_free(rows, n);
        rc = print_new(&home, &p, since, err);
        if (rc || !cli_bool(values, "follow"))
            break;
        if (fflush(stdout) != 0) {
            rc = error_set_errno(err, errno, "standard output");
            break;
        }
        wait_for_more(watch_fd);
    }
    if (watch_fd >= 0)
        close(watch_fd);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}
