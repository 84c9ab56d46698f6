/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The flags of `run` as a guest's configuration in JSON (guest/config.h), by their rows. No state. */
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/guests.h"
#include "cli/options.h"
#include "engine/engine.h"

#include <errno.h>
#include <string.h>

/* Those that say how to run the guest this time, and not what it is. */
static bool is_of_this_run(const char *name)
{
    static const char *const names[] = {"name", "detach", "rm"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* NULL for one that is not there, and so left out. */
static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : NULL;
}

/* A value that has an inner form. *err is set where this fails. */
static json_t *disk_json(const char *text, struct error **err)
{
    struct vm_disk disk;

    if (cli_parse_disk(text, &disk, err))
        return NULL;
    json_t *json = json_pack("{s:s, s:o*, s:o*, s:o*, s:b}", "path", disk.path, "format",
                             text_or_null(disk.format), "serial", text_or_null(disk.serial), "secret-file",
                             text_or_null(disk.secret_file), "read-only", disk.read_only);
    if (disk.copy_on_read)
        json_object_set_new(json, "copy-on-read", json_true());
    for (unsigned i = 0; i < DISK_LIMITS; i++)
        if (disk.limits.values[i])
            json_object_set_new(json, disk_limit_name(i), json_integer((json_int_t)disk.limits.values[i]));
    cli_disk_free(&disk);
    return json;
}

static json_t *cloud_init_json(const char *text, struct error **err)
{
    struct seed_config seed;

    if (cli_parse_cloud_init(text, &seed, err))
        return NULL;
    json_t *json =
        json_pack("{s:s, s:o*, s:o*}", "user-data", seed.user_data, "meta-data", text_or_null(seed.meta_data),
                  "network-config", text_or_null(seed.network_config));
    cli_cloud_init_free(&seed);
    return json;
}

static json_t *list_json(const struct cli_values *values, const struct cli_argument *a, struct error **err)
{
    size_t n;
    const char **texts = cli_list(values, a->name, &n);
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++) {
        json_t *item = strcmp(a->name, "disk") == 0 ? disk_json(texts[i], err) : json_string(texts[i]);
        if (json_array_append_new(list, item) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *value_json(const struct cli_values *values, const struct cli_argument *a, struct error **err)
{
    if (a->type == CLI_BOOL)
        return json_boolean(cli_bool(values, a->name));
    if (a->type == CLI_DECIMAL)
        return cli_decimal_json(cli_uint(values, a->name));
    if (a->type == CLI_UINT || a->type == CLI_SIZE)
        return json_integer((json_int_t)cli_uint(values, a->name));
    if (strcmp(a->name, "cloud-init") == 0)
        return cloud_init_json(cli_string(values, a->name), err);
    return a->repeatable ? list_json(values, a, err) : json_string(cli_string(values, a->name));
}

json_t *cli_decimal_json(uint64_t thousandths)
{
    return thousandths % 1000 ? json_real((double)thousandths / 1000)
                              : json_integer((json_int_t)(thousandths / 1000));
}

/* Processors are whole where they are the guest's own. */
static int check_processors(const struct cli_values *values, struct error **err)
{
    uint64_t thousandths = cli_uint(values, "cpus");

    if (thousandths % 1000 == 0 && thousandths / 1000 <= ENGINE_MAX_CPUS)
        return 0;
    return error_set(err, EINVAL, "--cpus: '%s' is not a whole number from 1 to %d",
                     cli_string(values, "cpus"), ENGINE_MAX_CPUS);
}

/* A key is the flag's name, a positional argument's in small letters. */
static void set(json_t *config, const struct cli_argument *a, json_t *value)
{
    char key[64];
    size_t i = 0;

    for (; a->name[i] && i < sizeof(key) - 1; i++)
        key[i] = a->name[i] >= 'A' && a->name[i] <= 'Z' ? (char)(a->name[i] + 'a' - 'A') : a->name[i];
    key[i] = '\0';
    json_object_set_new(config, key, value);
}

char *cli_run_config(const struct cli_values *values, struct error **err)
{
    const struct cli_operation *op = cli_find_operation("run");
    cleanup_free char *directory = getcwd(NULL, 0);
    const char *kind = cli_string(values, "kind");
    bool container = strcmp(kind, "container") == 0;
    json_t *config = container || check_processors(values, err) == 0 ? json_object() : NULL;
    char *text = NULL;

    if (!config && *err)
        return NULL;
    for (size_t i = 0; config && i < op->n_arguments; i++) {
        const struct cli_argument *a = &op->arguments[i];
        size_t n;

        cli_list(values, a->name, &n);
        if (!n || is_of_this_run(a->name))
            continue;
        if (a->kind && strcmp(a->kind, kind) != 0 && cli_given(values, a->name)) {
            error_set(err, EINVAL, "%s%s is for --kind %s, and this guest is of the kind %s",
                      a->positional ? "" : "--", a->name, a->kind, kind);
            json_decref(config);
            return NULL;
        }
        /* What a machine must have a container need not be limited to. */
        if ((a->kind && strcmp(a->kind, kind) != 0) || (container && !cli_given(values, a->name)))
            continue;
        json_t *value = value_json(values, a, err);
        if (!value) {
            if (!*err)
                error_set(err, EINVAL, "--%s: its value is not valid UTF-8", a->name);
            json_decref(config);
            return NULL;
        }
        set(config, a, value);
    }
    /* A working directory that was removed has no name; then paths must be absolute. */
    if (directory)
        json_object_set_new(config, "directory", json_string(directory));
    if (container)
        json_object_set_new(
            config, "interactive",
            json_boolean(isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && !cli_bool(values, "detach")));
    if (config)
        text = json_dumps(config, JSON_COMPACT);
    json_decref(config);
    if (!text)
        error_set_errno(err, ENOMEM, "configuration");
    return text;
}
