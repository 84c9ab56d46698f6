/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `disk map`. */
#include "base/error.h"
#include "cli/disks.h"
#include "cli/guests.h"
#include "host/confine.h"

#include <inttypes.h>
#include <string.h>

static void print_line(const struct disk_files *files, const struct disk_piece *p)
{
    if (p->kind == DISK_EXTENT_DATA)
        printf("%-16" PRIu64 "  %-14" PRIu64 "  %-10s  %-16" PRIu64 "  %s\n", p->start, p->length, "data",
               p->offset, files->files[p->file].name);
    else if (p->kind == DISK_EXTENT_PACKED)
        printf("%-16" PRIu64 "  %-14" PRIu64 "  %-10s  %-16s  %s\n", p->start, p->length,
               p->encrypted ? "encrypted" : "compressed", "-", files->files[p->file].name);
}

static void print_item(const struct disk_files *files, const struct disk_piece *p)
{
    json_t *json = json_pack("{s:I, s:I, s:i, s:b, s:b, s:b, s:b}", "start", (json_int_t)p->start, "length",
                             (json_int_t)p->length, "depth", (int)p->depth, "present", p->allocated, "zero",
                             p->kind == DISK_EXTENT_ZEROS, "data", p->kind != DISK_EXTENT_ZEROS, "compressed",
                             p->kind == DISK_EXTENT_PACKED && !p->encrypted);

    if (p->kind == DISK_EXTENT_DATA) {
        json_object_set_new(json, "offset", json_integer((json_int_t)p->offset));
        json_object_set_new(json, "filename", json_string(files->files[p->file].name));
    }
    printf("%s", p->start ? ",\n" : "[");
    json_dumpf(json, stdout, JSON_COMPACT);
    json_decref(json);
}

static int print_map(struct disk *disk, const struct disk_files *files, bool json, struct error **err)
{
    uint64_t size = disk_size(disk);
    struct disk_piece piece;

    if (!json)
        printf("%-16s  %-14s  %-10s  %-16s  %s\n", "START", "LENGTH", "KIND", "AT", "FILE");
    for (uint64_t at = 0; at < size; at += piece.length) {
        int rc = disk_map(disk, at, size - at, &piece);
        if (rc)
            return error_set_errno(err, -rc, "disk '%s': reading its tables", files->files[0].name);
        if (json)
            print_item(files, &piece);
        else
            print_line(files, &piece);
    }
    if (json)
        puts("]");
    return 0;
}

int cli_disk_map(const struct cli_values *values, int *status, struct error **err)
{
    struct disk_files *files = NULL;
    struct disk *disk = NULL;
    int rc = cli_disk_open(values, cli_string(values, "FILE"), cli_string(values, "format"), &files, err);

    if (rc == 0)
        rc = confine_reader(err);
    if (rc == 0)
        rc = disk_open(&disk, files, NULL, err);
    if (rc == 0)
        rc = print_map(disk, files, cli_bool(values, "json"), err);
    disk_close(disk);
    disk_files_close(files);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}
