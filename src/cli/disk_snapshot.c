/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `disk snapshot`. */
#include "base/error.h"
#include "base/text.h"
#include "cli/disks.h"
#include "cli/guests.h"
#include "disk/maintain.h"
#include "host/confine.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

static const struct {
    const char *name;
    int (*run)(struct disk *disk, const char *name, struct error **err); /* NULL: list */
} actions[] = {
    {"list", NULL},
    {"create", disk_snapshot_create},
    {"apply", disk_snapshot_apply},
    {"delete", disk_snapshot_delete},
};

const char *cli_disk_snapshot_action(size_t i)
{
    return i < sizeof(actions) / sizeof(actions[0]) ? actions[i].name : NULL;
}

/* With qemu-img's names. */
static int print_json(const struct disk_snapshots *s, struct error **err)
{
    json_t *all = json_array();

    for (size_t i = 0; i < s->n; i++) {
        const struct disk_snapshot *one = &s->list[i];
        json_array_append_new(all,
                              json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I}", "id", one->id, "name",
                                        one->name, "vm-state-size", (json_int_t)one->vm_state, "date-sec",
                                        (json_int_t)one->seconds, "date-nsec", (json_int_t)one->nanoseconds,
                                        "vm-clock-sec", (json_int_t)(one->vm_clock / 1000000000),
                                        "vm-clock-nsec", (json_int_t)(one->vm_clock % 1000000000),
                                        "disk-size", (json_int_t)one->disk_size));
    }
    return cli_print_json(all, JSON_INDENT(2), err);
}

static void print_text(const struct disk_snapshots *s)
{
    char size[16], state[16], when[32];

    if (s->n)
        printf("%-4s  %-24s  %-8s  %-8s  %s\n", "ID", "NAME", "SIZE", "VM STATE", "MADE");
    for (size_t i = 0; i < s->n; i++) {
        const struct disk_snapshot *one = &s->list[i];
        time_t t = (time_t)one->seconds;
        struct tm tm;
        localtime_r(&t, &tm);
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
        printf("%-4s  %-24s  %-8s  %-8s  %s\n", one->id, one->name, cli_human_size(one->disk_size, size),
               one->vm_state ? cli_human_size(one->vm_state, state) : "-", when);
    }
}

static int list(struct disk *disk, bool json, struct error **err)
{
    struct disk_snapshots s;
    int rc = disk_snapshot_list(disk, &s, err);

    if (rc)
        return rc;
    /* An image may be from anyone. */
    for (size_t i = 0; i < s.n; i++) {
        text_make_printable(s.list[i].id, strlen(s.list[i].id) + 1, s.list[i].id);
        text_make_printable(s.list[i].name, strlen(s.list[i].name) + 1, s.list[i].name);
    }
    if (json)
        rc = print_json(&s, err);
    else
        print_text(&s);
    disk_snapshots_free(&s);
    return rc;
}

int cli_disk_snapshot(const struct cli_values *values, int *status, struct error **err)
{
    const char *action = cli_string(values, "ACTION"), *name = cli_string(values, "NAME");
    struct disk_files *files = NULL;
    struct disk *disk = NULL;
    size_t i = 0;

    tzset(); /* the time zone's file can't be read later */

    while (strcmp(actions[i].name, action) != 0)
        i++;
    *status = CLI_STATUS_USAGE;
    if (!actions[i].run != !name)
        return error_set(err, EINVAL, name ? "list takes no NAME" : "%s needs the NAME of a snapshot",
                         action);
    *status = CLI_STATUS_FAILED;
    int rc = disk_files_open_alone(&files, cli_string(values, "FILE"), cli_string(values, "format"),
                                   !actions[i].run, err);
    if (rc == 0)
        rc = actions[i].run ? confine_writer(err) : confine_reader(err);
    if (rc == 0)
        rc = disk_open(&disk, files, NULL, err);
    if (rc == 0)
        rc = actions[i].run ? actions[i].run(disk, name, err) : list(disk, cli_bool(values, "json"), err);
    int end = disk_close(disk);
    if (rc == 0 && end)
        rc = error_set_errno(err, -end, "disk '%s': writing it", cli_string(values, "FILE"));
    disk_files_close(files);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}
