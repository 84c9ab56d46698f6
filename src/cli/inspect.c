/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `inspect`. */
#include "base/cleanup.h"
#include "cli/guests.h"
#include "guest/container_process.h"
#include "guest/control.h"

/* A guest that does not answer is left out: the rest is known without it. */
#define ANSWER_MS 2000

/* What only a guest that runs knows. */
static void add_running(json_t *json, const struct home *home, const char *name)
{
    const struct control_request request = {.verb = CONTROL_STATS};
    cleanup_close int fd = control_connect(home, name, NULL);
    json_t *answer = NULL;

    if (fd >= 0 && control_send(fd, &request, NULL) == 0 &&
        control_receive(fd, ANSWER_MS, &answer, NULL) == 0)
        json_object_set(json, "no-direct-execution", json_object_get(answer, "no-direct-execution"));
    json_decref(answer);
}

int cli_inspect(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    struct guest_row row;
    int rc = home_find(&home, err);

    if (rc == 0)
        rc = guest_find(&home, cli_string(values, "NAME"), &row, err);
    if (rc)
        return rc;
    json_t *json = cli_guest_json(&home, &row, true);
    if (guest_state_is_live(row.state)) {
        add_running(json, &home, row.name);
        json_t *health = container_process_health(&home, row.name);
        if (health)
            json_object_set_new(json, "health", health);
    }
    rc = cli_print_json(json, JSON_INDENT(2), err);
    guest_row_clear(&row);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}
