/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `ps`. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/guests.h"
#include "guest/container_process.h"

#include <errno.h>
#include <string.h>

#define COLUMNS 6

struct line {
    char cells[COLUMNS][80];
};

/* What it boots, by its last name. */
static const char *boots(const json_t *config)
{
    static const char *const keys[] = {"image", "kernel", "firmware"};

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        const char *value = json_string_value(json_object_get(config, keys[i]));
        const char *slash = value ? strrchr(value, '/') : NULL;
        if (value)
            return slash && slash[1] ? slash + 1 : value;
    }
    return "-";
}

/* "running 3 minutes", "stopped (0) 2 hours ago" */
static void format_state(char *buf, size_t len, const struct home *home, const struct guest_row *row)
{
    char span[40] = "", status[20] = "", health[24] = "";
    bool live = guest_state_is_live(row->state);
    int64_t since = row->state == GUEST_RUNNING || row->state == GUEST_PAUSED ? row->started : row->ended;

    if (since)
        cli_format_span(span, sizeof(span), registry_now() - since);
    if (!live && row->exit_status >= 0)
        snprintf(status, sizeof(status), " (%d)", row->exit_status);
    json_t *found = live ? container_process_health(home, row->name) : NULL;
    if (found)
        snprintf(health, sizeof(health), " (%.20s)", json_string_value(json_object_get(found, "status")));
    json_decref(found);
    snprintf(buf, len, "%s%s%s%s%s%s", guest_state_name(row->state), status, span[0] ? " " : "", span,
             span[0] && !live ? " ago" : "", health);
}

static void format_line(struct line *line, const struct home *home, const struct guest_row *row)
{
    json_t *config = json_loads(row->config, 0, NULL);
    size_t len = sizeof(line->cells[0]);

    snprintf(line->cells[0], len, "%s", row->name);
    format_state(line->cells[1], len, home, row);
    snprintf(line->cells[2], len, "%s", boots(config));
    snprintf(line->cells[3], len, "%s", row->engine[0] ? row->engine : "-");
    snprintf(line->cells[4], len, "%g", json_number_value(json_object_get(config, "cpus")));
    cli_format_bytes(line->cells[5], len, (uint64_t)json_integer_value(json_object_get(config, "memory")),
                     true);
    json_decref(config);
}

static int print_table(const struct home *home, const struct guest_row *rows, size_t n, struct error **err)
{
    struct line *lines = calloc(n + 1, sizeof(*lines));
    size_t widths[COLUMNS] = {0};

    if (!lines)
        return error_set_errno(err, ENOMEM, "list of guests");
    lines[0] = (struct line){{"NAME", "STATE", "BOOTS", "ENGINE", "CPUS", "MEMORY"}};
    for (size_t i = 0; i < n; i++)
        format_line(&lines[i + 1], home, &rows[i]);
    for (size_t i = 0; i <= n; i++)
        for (size_t c = 0; c < COLUMNS; c++)
            if (strlen(lines[i].cells[c]) > widths[c])
                widths[c] = strlen(lines[i].cells[c]);
    for (size_t i = 0; i <= n; i++)
        for (size_t c = 0; c < COLUMNS; c++)
            printf("%-*s%s", c + 1 < COLUMNS ? (int)widths[c] : 0, lines[i].cells[c],
                   c + 1 < COLUMNS ? "  " : "\n");
    free(lines);
    return 0;
}

static int print_json(const struct home *home, const struct guest_row *rows, size_t n, struct error **err)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, cli_guest_json(home, &rows[i], false));
    return cli_print_json(list, JSON_INDENT(2), err);
}

int cli_ps(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    struct guest_row *rows;
    size_t n, kept = 0;
    int rc = home_find(&home, err);

    if (rc == 0)
        rc = guest_list(&home, &rows, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++) {
        if (cli_bool(values, "all") || guest_state_is_live(rows[i].state))
            rows[kept++] = rows[i];
        else
            guest_row_clear(&rows[i]);
    }
    if (cli_bool(values, "json"))
        rc = print_json(&home, rows, kept, err);
    else if (!cli_bool(values, "quiet"))
        rc = print_table(&home, rows, kept, err);
    else
        for (size_t i = 0; i < kept; i++)
            puts(rows[i].name);
    guest_list_free(rows, kept);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}
