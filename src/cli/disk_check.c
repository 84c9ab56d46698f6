/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verbs `disk check` and `disk repair`. */
#include "base/error.h"
#include "cli/disks.h"
#include "cli/guests.h"
#include "disk/maintain.h"
#include "host/confine.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* As with qemu-img. */
#define STATUS_ERROR         1
#define STATUS_CORRUPT       2
#define STATUS_LEAKS         3
#define STATUS_NOT_SUPPORTED 63

const char *cli_disk_repair_choice(size_t i)
{
    static const char *const choices[] = {"leaks", "all", NULL};

    return choices[i];
}

static void on_fault(void *opaque, const char *line)
{
    (void)opaque;
    puts(line);
}

static json_t *number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

static int print_json(const char *path, const struct disk_check_result *r, struct error **err)
{
    json_t *json = json_object();

    json_object_set_new(json, "filename", json_string(path));
    json_object_set_new(json, "check-errors", json_integer(0));
    json_object_set_new(json, "corruptions", number(r->corruptions));
    json_object_set_new(json, "leaks", number(r->leaks));
    json_object_set_new(json, "corruptions-fixed", number(r->corruptions_fixed));
    json_object_set_new(json, "leaks-fixed", number(r->leaks_fixed));
    json_object_set_new(json, "image-end-offset", number(r->end));
    json_object_set_new(json, "total-clusters", number(r->units));
    json_object_set_new(json, "allocated-clusters", number(r->allocated));
    json_object_set_new(json, "compressed-clusters", number(r->packed));
    json_object_set_new(json, "fragmented-clusters", number(r->fragmented));
    return cli_print_json(json, JSON_INDENT(2), err);
}

static void print_text(const struct disk_check_result *r)
{
    char end[16];

    if (r->corruptions_fixed || r->leaks_fixed)
        printf("repaired: %" PRIu64 " corruptions, %" PRIu64 " leaks\n", r->corruptions_fixed,
               r->leaks_fixed);
    if (!r->corruptions && !r->leaks)
        puts("No errors were found.");
    if (r->corruptions)
        printf("%" PRIu64 " things are corrupt: what is written may be lost. 'tabique disk repair' may "
               "help; copy the file first.\n",
               r->corruptions);
    if (r->leaks)
        printf("%" PRIu64 " clusters leaked: they take space, and that is all. 'tabique disk repair -r "
               "leaks' gives them back.\n",
               r->leaks);
    if (r->units)
        printf("%" PRIu64 " of %" PRIu64 " clusters of %" PRIu64 " bytes are allocated (%.2f%%), %" PRIu64
               " of them fragmented, %" PRIu64 " compressed\n",
               r->allocated, r->units, r->unit, 100.0 * (double)r->allocated / (double)r->units,
               r->fragmented, r->packed);
    printf("the file is used up to byte %" PRIu64 " (%s)\n", r->end, cli_human_size(r->end, end));
}

static int check(const struct cli_values *values, enum disk_repair repair, int *status, struct error **err)
{
    const char *path = cli_string(values, "FILE");
    bool json = cli_bool(values, "json");
    struct disk_check_result result;
    struct cli_disk_job j;

    cli_disk_job_begin(&j, repair == DISK_REPAIR_NONE ? "checking" : "repairing");
    struct disk_checking how = {.repair = repair,
                                .say = json ? NULL : on_fault,
                                .job = &j.job,
                                .opened = repair == DISK_REPAIR_NONE ? confine_reader : confine_writer};
    int rc = disk_check(path, cli_string(values, "format"), &how, &result, err);
    cli_disk_job_end(&j);
    *status = rc == -EINTR ? CLI_STATUS_INTERRUPTED : rc == -ENOTSUP ? STATUS_NOT_SUPPORTED : STATUS_ERROR;
    if (rc)
        return rc;
    if (json)
        rc = print_json(path, &result, err);
    else
        print_text(&result);
    if (rc == 0)
        *status = result.corruptions ? STATUS_CORRUPT : result.leaks ? STATUS_LEAKS : 0;
    return rc;
}

int cli_disk_check(const struct cli_values *values, int *status, struct error **err)
{
    return check(values, DISK_REPAIR_NONE, status, err);
}

int cli_disk_repair(const struct cli_values *values, int *status, struct error **err)
{
    bool all = strcmp(cli_string(values, "repair"), "all") == 0;

    return check(values, all ? DISK_REPAIR_ALL : DISK_REPAIR_LEAKS, status, err);
}
