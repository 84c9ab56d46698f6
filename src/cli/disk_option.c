/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The value of --disk: FILE[,format=FORMAT][,readonly][,copy-on-read][,serial=TEXT][,secret-file=FILE]. A
 * comma that belongs to a name or a serial is written twice. No locks, no state.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/suggest.h"
#include "cli/cli.h"
#include "cli/options.h"
#include "device/virtio/block.h"
#include "disk/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const words[] = {"format",      "readonly", "copy-on-read", "serial",
                                    "secret-file", "bps",      "iops"};

char *cli_take_word(const char **text)
{
    const char *from = *text;
    char *word = malloc(strlen(from) + 1), *to = word;

    if (!word)
        return NULL;
    *text = NULL;
    while (*from) {
        bool comma = *from == ',';
        if (comma && from[1] != ',') {
            *text = from + 1;
            break;
        }
        from += comma;
        *to++ = *from++;
    }
    *to = '\0';
    return word;
}

static bool format_known(const char *name)
{
    for (size_t i = 0; disk_format_name(i); i++)
        if (strcmp(disk_format_name(i), name) == 0)
            return true;
    return false;
}

static int set_format(struct vm_disk *disk, const char *value, struct error **err)
{
    if (!format_known(value))
        return error_set(err, EINVAL,
                         "--disk: '%s' is no format: choose raw, luks, qcow2, vdi, vhd, vhdx or vmdk", value);
    disk->format = strdup(value);
    return disk->format ? 0 : error_set_errno(err, ENOMEM, "--disk");
}

static int set_serial(struct vm_disk *disk, const char *value, struct error **err)
{
    if (!*value || strlen(value) > VIRTIO_BLOCK_SERIAL_MAX)
        return error_set(err, EINVAL, "--disk: serial '%s': choose 1 to %u characters", value,
                         VIRTIO_BLOCK_SERIAL_MAX);
    disk->serial = strdup(value);
    return disk->serial ? 0 : error_set_errno(err, ENOMEM, "--disk");
}

int cli_take_limit(struct disk_limits *limits, const char *option, struct error **err)
{
    for (unsigned i = 0; i < DISK_LIMITS; i++) {
        const char *name = disk_limit_name(i);
        size_t len = strlen(name);

        if (strncmp(option, name, len) || option[len] != '=')
            continue;
        if (cli_parse_size(option + len + 1, &limits->values[i]) || limits->values[i] > INT64_MAX)
            return error_set(err, EINVAL, "--disk: %s: '%s' is no number such as 500, 4K or 20M", name,
                             option + len + 1);
        return 1;
    }
    return 0;
}

static int take_option(struct vm_disk *disk, const char *option, struct error **err)
{
    const char *value = strchr(option, '=');

    if (strcmp(option, "readonly") == 0) {
        disk->read_only = true;
        return 0;
    }
    if (strcmp(option, "copy-on-read") == 0) {
        disk->copy_on_read = true;
        return 0;
    }
    if (strncmp(option, "format=", 7) == 0 && !disk->format)
        return set_format(disk, value + 1, err);
    if (strncmp(option, "serial=", 7) == 0 && !disk->serial)
        return set_serial(disk, value + 1, err);
    if (strncmp(option, "secret-file=", 12) == 0 && !disk->secret_file) {
        disk->secret_file = strdup(value + 1);
        return disk->secret_file ? 0 : error_set_errno(err, ENOMEM, "--disk");
    }
    if (value) {
        int taken = cli_take_limit(&disk->limits, option, err);
        if (taken)
            return taken < 0 ? taken : 0;
    }
    cleanup_free char *name = value ? strndup(option, (size_t)(value - option)) : strdup(option);
    if (!name)
        return error_set_errno(err, ENOMEM, "--disk");
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(words[i], name) == 0)
            return error_set(err, EINVAL,
                             value && strcmp(name, "readonly") && strcmp(name, "copy-on-read")
                                 ? "--disk: '%s' is given twice"
                             : value ? "--disk: '%s' takes no value"
                                     : "--disk: '%s' needs a value",
                             name);
    const char *meant = suggest_nearest(name, words, sizeof(words) / sizeof(words[0]));
    return error_set(err, EINVAL,
                     "--disk: unknown option '%s'%s%s%s (a comma in a file's name is written twice)", name,
                     meant ? ": did you mean " : "", meant ? meant : "", meant ? "?" : "");
}

void cli_disk_free(struct vm_disk *disk)
{
    free((char *)(uintptr_t)disk->path);
    free((char *)(uintptr_t)disk->format);
    free((char *)(uintptr_t)disk->serial);
    free((char *)(uintptr_t)disk->secret_file);
    *disk = (struct vm_disk){0};
}

int cli_parse_disk(const char *text, struct vm_disk *out, struct error **err)
{
    struct vm_disk disk = {.path = cli_take_word(&text)};
    int rc = disk.path ? 0 : error_set_errno(err, ENOMEM, "--disk");

    if (rc == 0 && !*disk.path)
        rc = error_set(err, EINVAL, "--disk: the file's name is empty");
    while (rc == 0 && text) {
        cleanup_free char *option = cli_take_word(&text);
        rc = option ? take_option(&disk, option, err) : error_set_errno(err, ENOMEM, "--disk");
    }
    if (rc == 0 && disk.read_only && disk.copy_on_read)
        rc = error_set(err, EINVAL,
                       "--disk: copy-on-read writes the disk, which is to be readonly: choose one");
    if (rc) {
        cli_disk_free(&disk);
        return rc;
    }
    *out = disk;
    return 0;
}

int cli_check_disk(const char *text, struct error **err)
{
    struct vm_disk disk;
    int rc = cli_parse_disk(text, &disk, err);

    if (rc == 0)
        cli_disk_free(&disk);
    return rc;
}
