/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `check`: prints the host report for people or for programs. */
#include "guest/check.h"
#include "base/error.h"
#include "cli/cli.h"

#include <errno.h>
#include <jansson.h>

static void print_line(const char *name, bool ok, const char *found, const char *advice)
{
    printf("%-12s  %-3s  %s\n", name, ok ? "ok" : "no", found ? found : "unknown");
    if (advice)
        printf("%-12s       -> %s\n", "", advice);
}

static void print_text(const struct check_report *report)
{
    for (size_t i = 0; i < report->n_items; i++) {
        const struct check_item *item = &report->items[i];
        print_line(item->name, item->ok, item->found, item->advice);
    }
    for (size_t i = 0; i < report->n_engines; i++) {
        const struct check_engine *engine = &report->engines[i];
        char name[32];

        snprintf(name, sizeof(name), "engine %s", engine->name);
        print_line(name, engine->usable, engine->usable ? engine->summary : engine->reason, NULL);
    }
    if (report->automatic)
        print_line("engine auto", true, report->automatic, NULL);
    else
        print_line("engine auto", false, "none of the engines can run here", NULL);
}

static json_t *report_to_json(const struct check_report *report)
{
    json_t *items = json_array(), *engines = json_array();

    for (size_t i = 0; i < report->n_items; i++) {
        const struct check_item *item = &report->items[i];
        json_array_append_new(items, json_pack("{s:s, s:b, s:s?, s:s?}", "name", item->name, "ok", item->ok,
                                               "found", item->found, "advice", item->advice));
    }
    for (size_t i = 0; i < report->n_engines; i++) {
        const struct check_engine *engine = &report->engines[i];
        json_array_append_new(engines,
                              json_pack("{s:s, s:s, s:b, s:s?}", "name", engine->name, "summary",
                                        engine->summary, "usable", engine->usable, "reason", engine->reason));
    }
    return json_pack("{s:s, s:o, s:o, s:s?}", "version", TABIQUE_VERSION, "checks", items, "engines", engines,
                     "auto", report->automatic);
}

int cli_check(const struct cli_values *values, int *status, struct error **err)
{
    struct check_report report;
    int rc = 0;

    check_host(&report);
    if (cli_bool(values, "json")) {
        json_t *json = report_to_json(&report);
        if (!json || json_dumpf(json, stdout, JSON_INDENT(2)) < 0)
            rc = error_set(err, EIO, "the report could not be written as JSON");
        putchar('\n');
        json_decref(json);
    } else {
        print_text(&report);
    }
    *status = rc || !report.automatic ? CLI_STATUS_FAILED : 0;
    check_report_clear(&report);
    return rc;
}
