/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `disk bitmap`. */
#include "base/error.h"
#include "base/text.h"
#include "cli/disks.h"
#include "cli/guests.h"
#include "disk/maintain.h"
#include "host/confine.h"

#include <errno.h>
#include <string.h>

static int enable(struct disk *disk, const char *name, struct error **err)
{
    return disk_bitmap_enable(disk, name, true, err);
}

static int disable(struct disk *disk, const char *name, struct error **err)
{
    return disk_bitmap_enable(disk, name, false, err);
}

enum kind { LIST, ADD, MERGE, ONE };

static const struct {
    const char *name;
    enum kind kind;
    int (*run)(struct disk *disk, const char *name, struct error **err); /* ONE */
} actions[] = {
    {"list", LIST, NULL},
    {"add", ADD, NULL},
    {"remove", ONE, disk_bitmap_remove},
    {"clear", ONE, disk_bitmap_clear},
    {"enable", ONE, enable},
    {"disable", ONE, disable},
    {"merge", MERGE, NULL},
};

const char *cli_disk_bitmap_action(size_t i)
{
    return i < sizeof(actions) / sizeof(actions[0]) ? actions[i].name : NULL;
}

/* With qemu-img's names. */
static int print_json(const struct disk_bitmaps *b, struct error **err)
{
    json_t *all = json_array();

    for (size_t i = 0; i < b->n; i++) {
        const struct disk_bitmap *one = &b->list[i];
        json_t *flags = json_array();
        if (one->inconsistent)
            json_array_append_new(flags, json_string("in-use"));
        if (one->enabled)
            json_array_append_new(flags, json_string("auto"));
        json_t *json = json_pack("{s:s, s:I, s:o}", "name", one->name, "granularity",
                                 (json_int_t)one->granularity, "flags", flags);
        if (!one->inconsistent)
            json_object_set_new(json, "dirty", json_integer((json_int_t)one->dirty));
        json_array_append_new(all, json);
    }
    return cli_print_json(all, JSON_INDENT(2), err);
}

static void print_text(const struct disk_bitmaps *b)
{
    char granularity[16], dirty[16];

    if (b->n)
        printf("%-24s  %-12s  %-11s  %s\n", "NAME", "STATE", "GRANULARITY", "CHANGED");
    for (size_t i = 0; i < b->n; i++) {
        const struct disk_bitmap *one = &b->list[i];
        printf("%-24s  %-12s  %-11s  %s\n", one->name,
               one->inconsistent ? "inconsistent"
               : one->enabled    ? "enabled"
                                 : "disabled",
               cli_human_size(one->granularity, granularity),
               one->inconsistent ? "-" : cli_human_size(one->dirty, dirty));
    }
}

static int list(struct disk *disk, bool json, struct error **err)
{
    struct disk_bitmaps b;
    int rc = disk_bitmap_list(disk, &b, err);

    if (rc)
        return rc;
    /* An image may be from anyone. */
    for (size_t i = 0; i < b.n; i++)
        text_make_printable(b.list[i].name, strlen(b.list[i].name) + 1, b.list[i].name);
    if (json)
        rc = print_json(&b, err);
    else
        print_text(&b);
    disk_bitmaps_free(&b);
    return rc;
}

static int check(const struct cli_values *values, size_t action, struct error **err)
{
    const char *name = cli_string(values, "NAME"), *source = cli_string(values, "SOURCE");
    enum kind kind = actions[action].kind;

    if ((kind == LIST) != !name)
        return error_set(err, EINVAL, name ? "list takes no NAME" : "%s needs the NAME of a bitmap",
                         actions[action].name);
    if ((kind == MERGE) != !!source)
        return error_set(err, EINVAL, source ? "%s takes one NAME" : "%s needs NAME and SOURCE",
                         actions[action].name);
    if (cli_given(values, "granularity") && kind != ADD)
        return error_set(err, EINVAL, "--granularity is for add");
    return 0;
}

static int act(const struct cli_values *values, struct disk *disk, size_t action, struct error **err)
{
    const char *name = cli_string(values, "NAME");

    switch (actions[action].kind) {
    case LIST:
        return list(disk, cli_bool(values, "json"), err);
    case ADD:
        return disk_bitmap_add(disk, name, cli_uint(values, "granularity"), err);
    case MERGE:
        return disk_bitmap_merge(disk, name, cli_string(values, "SOURCE"), err);
    case ONE:
        return actions[action].run(disk, name, err);
    }
    return -EINVAL;
}

int cli_disk_bitmap(const struct cli_values *values, int *status, struct error **err)
{
    const char *action = cli_string(values, "ACTION");
    struct disk_files *files = NULL;
    struct disk *disk = NULL;
    size_t i = 0;

    while (strcmp(actions[i].name, action) != 0)
        i++;
    *status = CLI_STATUS_USAGE;
    int rc = check(values, i, err);
    if (rc)
        return rc;
    *status = CLI_STATUS_FAILED;
    rc = disk_files_open_alone(&files, cli_string(values, "FILE"), cli_string(values, "format"),
                               actions[i].kind == LIST, err);
    if (rc == 0)
        rc = actions[i].kind == LIST ? confine_reader(err) : confine_writer(err);
    if (rc == 0)
        rc = disk_open(&disk, files, NULL, err);
    if (rc == 0)
        rc = act(values, disk, i, err);
    int end = disk_close(disk);
    if (rc == 0 && end)
        rc = error_set_errno(err, -end, "disk '%s': writing it", cli_string(values, "FILE"));
    disk_files_close(files);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}
