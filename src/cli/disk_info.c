/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `disk info`. */
#include "base/error.h"
#include "base/text.h"
#include "cli/disks.h"
#include "cli/guests.h"
#include "host/confine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Numbers and truths as such. */
static json_t *value_of(const char *text)
{
    if (*text && strspn(text, "0123456789") == strlen(text) && strlen(text) < 19)
        return json_integer(strtoll(text, NULL, 10));
    if (strcmp(text, "yes") == 0 || strcmp(text, "no") == 0)
        return json_boolean(text[0] == 'y');
    return json_string(text);
}

/* With qemu-img's names where it has one. */
static int print_json(const char *path, const struct disk_info *info, struct error **err)
{
    json_t *details = json_object();
    json_t *json = json_pack("{s:s, s:s, s:I, s:I, s:I}", "filename", path, "format", info->format,
                             "virtual-size", (json_int_t)info->size, "actual-size",
                             (json_int_t)info->host_bytes, "file-size", (json_int_t)info->file_size);

    for (unsigned i = 0; i < info->n_details; i++)
        json_object_set_new(details, info->details[i].name, value_of(info->details[i].value));
    if (info->backing)
        json_object_set_new(json, "backing-filename", json_string(info->backing));
    if (info->backing_format)
        json_object_set_new(json, "backing-filename-format", json_string(info->backing_format));
    json_object_set_new(json, "format-specific", details);
    return cli_print_json(json, JSON_INDENT(2), err);
}

static void print_text(const char *path, const struct disk_info *info)
{
    char size[16], host[16], file[16];

    printf("image: %s\nformat: %s\nsize: %s (%" PRIu64 " bytes)\non this host: %s (file of %s)\n", path,
           info->format, cli_human_size(info->size, size), info->size, cli_human_size(info->host_bytes, host),
           cli_human_size(info->file_size, file));
    if (info->backing)
        printf("based on: %s%s%s\n", info->backing, info->backing_format ? ", format " : "",
               info->backing_format ? info->backing_format : "");
    for (unsigned i = 0; i < info->n_details; i++)
        printf("%s: %s\n", info->details[i].name, info->details[i].value);
}

int cli_disk_info(const struct cli_values *values, int *status, struct error **err)
{
    const char *path = cli_string(values, "FILE");
    struct disk_info info;
    int rc = disk_read_info(path, cli_string(values, "format"), confine_reader, &info, err);

    if (rc)
        return rc;
    /* An image may be from anyone. */
    if (info.backing)
        text_make_printable(info.backing, strlen(info.backing) + 1, info.backing);
    if (info.backing_format)
        text_make_printable(info.backing_format, strlen(info.backing_format) + 1, info.backing_format);
    for (unsigned i = 0; i < info.n_details; i++)
        text_make_printable(info.details[i].value, sizeof(info.details[i].value), info.details[i].value);
    if (cli_bool(values, "json"))
        rc = print_json(path, &info, err);
    else
        print_text(path, &info);
    disk_info_free(&info);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}
