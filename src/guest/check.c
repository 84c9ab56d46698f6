/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host report: collects the items and asks each engine whether it can run. No locks. */
#include "guest/check_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "engine/engine.h"

#include <stdarg.h>
#include <string.h>
#include <sys/utsname.h>

void check_add(struct check_report *report, const char *name, bool ok, const char *advice, const char *format,
               ...)
{
    va_list args;

    if (report->n_items == CHECK_ITEMS_MAX)
        return;
    struct check_item *item = &report->items[report->n_items++];
    *item = (struct check_item){.name = name, .ok = ok, .advice = ok ? NULL : advice};
    va_start(args, format);
    if (vasprintf(&item->found, format, args) < 0)
        item->found = NULL;
    va_end(args);
}

static void check_system(struct check_report *report)
{
    struct utsname u;
    long pages = sysconf(_SC_PHYS_PAGES), cpus = sysconf(_SC_NPROCESSORS_ONLN);

    uname(&u);
    check_add(report, "host", true, NULL, "%s %s on %s, %ld processor%s, %ld MiB of memory", u.sysname,
              u.release, u.machine, cpus, cpus == 1 ? "" : "s", pages / (1048576 / sysconf(_SC_PAGESIZE)));
}

static void check_engines(struct check_report *report)
{
    for (const struct engine_class *const *c = engine_classes; *c && report->n_engines < CHECK_ENGINES_MAX;
         c++) {
        struct check_engine *engine = &report->engines[report->n_engines++];
        cleanup_error struct error *why = NULL;

        *engine = (struct check_engine){.name = (*c)->name, .summary = (*c)->summary};
        engine->usable = !(*c)->probe || (*c)->probe(&why) == 0;
        if (!engine->usable)
            engine->reason = strdup(error_message(why));
        else if (!report->automatic)
            report->automatic = engine->name;
    }
}

/* What makes an engine fast, where the host permits it. */
static void check_direct(struct check_report *report)
{
    static const char advice[] = "the soft engine translates all user code, which is slower: permit seccomp "
                                 "and pidfd_send_signal (seccomp "
                                 "profiles of containers) and more processes (ulimit -u, pids.max)";

    for (const struct engine_class *const *c = engine_classes; *c; c++) {
        cleanup_error struct error *why = NULL;

        if (!(*c)->probe_direct)
            continue;
        bool ok = (*c)->probe_direct(&why) == 0;
        check_add(report, "direct code", ok, advice, "%s",
                  ok ? "the soft engine's guests compute on the processor itself" : error_message(why));
    }
}

void check_host(struct check_report *report)
{
    *report = (struct check_report){0};
    check_system(report);
    check_processor(report);
    check_engines(report);
    check_direct(report);
    check_cgroups(report);
    check_namespaces(report);
    check_seccomp(report);
    check_confinement(report);
}

void check_report_clear(struct check_report *report)
{
    for (size_t i = 0; i < report->n_items; i++)
        free(report->items[i].found);
    for (size_t i = 0; i < report->n_engines; i++)
        free(report->engines[i].reason);
    *report = (struct check_report){0};
}
