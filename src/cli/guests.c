/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the verbs on guests have in common: forms of output, and doing something with each. No state. */
#include "cli/guests.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "guest/console_log.h"
#include "guest/control.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define NS 1000000000ll

void cli_format_time(char *buf, size_t len, int64_t ns)
{
    time_t seconds = (time_t)(ns / NS);
    struct tm tm;
    char day[32];

    gmtime_r(&seconds, &tm);
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(buf, len, "%s.%03dZ", day, (int)(ns % NS / 1000000));
}

void cli_format_span(char *buf, size_t len, int64_t ns)
{
    static const struct {
        const char *name;
        int64_t seconds;
    } units[] = {{"day", 86400}, {"hour", 3600}, {"minute", 60}, {"second", 1}};
    int64_t seconds = ns < 0 ? 0 : ns / NS;

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        int64_t n = seconds / units[i].seconds;
        /* 90 minutes say more than an hour. */
        if (n > 1 || (n == 1 && units[i].seconds == 1)) {
            snprintf(buf, len, "%lld %s%s", (long long)n, units[i].name, n == 1 ? "" : "s");
            return;
        }
    }
    snprintf(buf, len, "0 seconds");
}

void cli_format_bytes(char *buf, size_t len, uint64_t bytes, bool exact)
{
    static const char units[] = {'K', 'M', 'G', 'T'};
    int unit = -1;
    double rest = (double)bytes;

    while (unit < 3 && (exact ? bytes && bytes % 1024 == 0 : rest >= 1024)) {
        bytes /= 1024;
        rest /= 1024;
        unit++;
    }
    if (exact)
        snprintf(buf, len, unit < 0 ? "%llu" : "%llu%c", (unsigned long long)bytes,
                 unit < 0 ? 0 : units[unit]);
    else
        snprintf(buf, len,
                 unit < 0    ? "%.0f"
                 : rest < 10 ? "%.1f%c"
                             : "%.0f%c",
                 rest, unit < 0 ? 0 : units[unit]);
}

static void set_time(json_t *object, const char *key, int64_t ns)
{
    char text[64];

    if (ns) {
        cli_format_time(text, sizeof(text), ns);
        json_object_set_new(object, key, json_string(text));
    } else {
        json_object_set_new(object, key, json_null());
    }
}

/* Takes the path. */
static void set_path(json_t *object, const char *key, char *path)
{
    json_object_set_new(object, key, path ? json_string(path) : json_null());
    free(path);
}

json_t *cli_guest_json(const struct home *home, const struct guest_row *row, bool whole)
{
    json_t *config = json_loads(row->config, 0, NULL);
    json_t *json = json_pack("{s:s, s:s}", "name", row->name, "state", guest_state_name(row->state));

    if (!json)
        return NULL;
    set_time(json, "created", row->created);
    set_time(json, "started", row->started);
    set_time(json, "ended", row->ended);
    json_object_set_new(json, "exit-status",
                        row->exit_status < 0 ? json_null() : json_integer(row->exit_status));
    json_object_set_new(json, "reason", json_string(row->reason));
    json_object_set_new(json, "engine", json_string(row->engine));
    json_object_set_new(json, "restarts", json_integer(row->restarts));
    json_object_set_new(json, "removed-at-end", json_boolean(row->transient));
    if (whole) {
        json_object_set_new(json, "supervisor",
                            row->supervisor ? json_integer(row->supervisor) : json_null());
        json_object_set_new(json, "vm", row->vm ? json_integer(row->vm) : json_null());
        set_path(json, "directory", guest_path(home, row->name, NULL));
        set_path(json, "console-log", guest_path(home, row->name, CONSOLE_LOG));
        set_path(json, "control-socket",
                 guest_state_is_live(row->state) ? guest_run_path(home, row->name, CONTROL_SOCKET) : NULL);
        json_object_set(json, "config", config);
    } else {
        static const char *const shown[] = {"image", "kernel", "memory", "cpus", "publish"};
        for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
            if (json_object_get(config, shown[i]))
                json_object_set(json, shown[i], json_object_get(config, shown[i]));
    }
    json_decref(config);
    return json;
}

int cli_print_json(json_t *json, size_t flags, struct error **err)
{
    int rc = json ? 0 : error_set_errno(err, ENOMEM, "JSON");

    if (json && json_dumpf(json, stdout, flags) < 0)
        rc = error_set(err, EIO, "standard output: it could not be written");
    if (json)
        putchar('\n');
    json_decref(json);
    return rc;
}

int cli_each_name(const struct home *home, const struct cli_values *values, const char *const *names,
                  size_t n, int *status,
                  int (*fn)(const struct home *home, const char *name, void *opaque, struct error **err),
                  void *opaque)
{
    *status = 0;
    for (size_t i = 0; i < n; i++) {
        cleanup_error struct error *why = NULL;

        if (fn(home, names[i], opaque, &why) == 0)
            continue;
        *status = CLI_STATUS_FAILED;
        fprintf(stderr, "tabique %s: %s\n", cli_verb(values), error_message(why));
    }
    return 0;
}

int cli_each_guest(const struct cli_values *values, int *status, struct error **err,
                   int (*fn)(const struct home *home, const char *name, void *opaque, struct error **err),
                   void *opaque)
{
    cleanup_home struct home home = {0};
    size_t n;
    const char **names = cli_list(values, "NAME", &n);
    int rc = home_find(&home, err);

    return rc ? rc : cli_each_name(&home, values, names, n, status, fn, opaque);
}
