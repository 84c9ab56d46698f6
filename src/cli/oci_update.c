/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tabique-oci update: other limits for a container that lives, from a file like linux.resources or from
 * flags. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/oci.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum kind { NUMBER, SIZE, TEXT };

/* What a flag becomes in the JSON. */
static const struct {
    const char *flag, *object, *member;
    enum kind kind;
} fields[] = {
    {"blkio-weight", "blockIO", "weight", NUMBER},
    {"cpu-period", "cpu", "period", NUMBER},
    {"cpu-quota", "cpu", "quota", NUMBER},
    {"cpu-burst", "cpu", "burst", NUMBER},
    {"cpu-share", "cpu", "shares", NUMBER},
    {"cpu-rt-period", "cpu", "realtimePeriod", NUMBER},
    {"cpu-rt-runtime", "cpu", "realtimeRuntime", NUMBER},
    {"cpu-idle", "cpu", "idle", NUMBER},
    {"cpuset-cpus", "cpu", "cpus", TEXT},
    {"cpuset-mems", "cpu", "mems", TEXT},
    {"kernel-memory", "memory", "kernel", SIZE},
    {"kernel-memory-tcp", "memory", "kernelTCP", SIZE},
    {"memory", "memory", "limit", SIZE},
    {"memory-reservation", "memory", "reservation", SIZE},
    {"memory-swap", "memory", "swap", SIZE},
    {"pids-limit", "pids", "limit", NUMBER},
};

static const struct oci_flag flags[] = {
    {"resources", 'r', OCI_STRING, "FILE", "JSON like config.json's linux.resources; - is standard input"},
    {"blkio-weight", 0, OCI_STRING, "10..1000", "its share of block devices"},
    {"cpu-period", 0, OCI_STRING, "MICROSECONDS", "what the quota is of"},
    {"cpu-quota", 0, OCI_STRING, "MICROSECONDS", "processor time in each period; -1 is no limit"},
    {"cpu-burst", 0, OCI_STRING, "MICROSECONDS", "what may be saved up of it"},
    {"cpu-share", 0, OCI_STRING, "N", "its share of the processors, 1024 as a rule"},
    {"cpu-rt-period", 0, OCI_STRING, "MICROSECONDS", "the same for real-time processes (v1)"},
    {"cpu-rt-runtime", 0, OCI_STRING, "MICROSECONDS", "the same for real-time processes (v1)"},
    {"cpu-idle", 0, OCI_STRING, "0|1", "whether it runs only when nobody else wants to"},
    {"cpuset-cpus", 0, OCI_STRING, "LIST", "processors, as 0-3,7"},
    {"cpuset-mems", 0, OCI_STRING, "LIST", "memory nodes"},
    {"kernel-memory", 0, OCI_STRING, "BYTES", "accepted: kernels have no such limit any more"},
    {"kernel-memory-tcp", 0, OCI_STRING, "BYTES", "memory for TCP's buffers (v1)"},
    {"memory", 0, OCI_STRING, "BYTES", "its memory; -1 is no limit; 512m, 2g are sizes too"},
    {"memory-reservation", 0, OCI_STRING, "BYTES", "what it keeps when memory is short"},
    {"memory-swap", 0, OCI_STRING, "BYTES", "memory and swap together"},
    {"pids-limit", 0, OCI_STRING, "N", "processes and threads; -1 is no limit"},
};

/* "512m", "1.5g", "4096", "-1": as Docker writes sizes, in powers of 1024. */
static int parse_size(const char *text, json_int_t *out)
{
    static const char units[] = "bkmgtp";
    char *end;

    if (strcmp(text, "-1") == 0) {
        *out = -1;
        return 0;
    }
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || errno || !isdigit((unsigned char)*text))
        return -EINVAL;
    end += *end == ' ';
    const char *unit = *end ? strchr(units, tolower((unsigned char)*end)) : units;
    if (!unit)
        return -EINVAL;
    if (*end)
        end++;
    if (unit != units && tolower((unsigned char)*end) == 'i')
        end++;
    if (unit != units && tolower((unsigned char)*end) == 'b')
        end++;
    for (const char *u = units; u < unit; u++)
        value *= 1024;
    if (*end || value > 9e18)
        return -EINVAL;
    *out = (json_int_t)value;
    return 0;
}

static int parse_number(const char *text, json_int_t *out)
{
    char *end;

    errno = 0;
    *out = strtoll(text, &end, 10);
    return errno || end == text || *end ? -EINVAL : 0;
}

static int add_field(json_t *resources, size_t i, const char *text, struct error **err)
{
    json_t *object = json_object_get(resources, fields[i].object), *value;
    json_int_t number = 0;
    int rc = 0;

    if (!object) {
        object = json_object();
        json_object_set_new(resources, fields[i].object, object);
    }
    if (fields[i].kind == TEXT) {
        value = json_string(text);
    } else {
        rc = fields[i].kind == SIZE ? parse_size(text, &number) : parse_number(text, &number);
        value = json_integer(number);
    }
    if (rc || !value) {
        json_decref(value);
        return error_set(err, EINVAL, "--%s %s: %s is expected", fields[i].flag, text,
                         fields[i].kind == SIZE   ? "a size as 512m"
                         : fields[i].kind == TEXT ? "text"
                                                  : "a number");
    }
    json_object_set_new(object, fields[i].member, value);
    return 0;
}

static int read_file(const char *path, json_t **out, struct error **err)
{
    json_error_t where;
    json_t *json = strcmp(path, "-") == 0 ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &where)
                                          : json_load_file(path, JSON_REJECT_DUPLICATES, &where);

    if (!json)
        return error_set(err, EINVAL, "--resources %s: line %d: %s", path, where.line, where.text);
    *out = json;
    return 0;
}

static int run(const struct container_runtime *runtime, const struct oci_values *values, int *status,
               struct error **err)
{
    const char *file = oci_string(values, "resources");
    json_t *resources = NULL;
    int rc = 0;

    if (file)
        rc = read_file(file, &resources, err); /* alone: the flags are not looked at then, as with runc */
    else if (!(resources = json_object()))
        rc = error_set_errno(err, ENOMEM, "update");
    for (size_t i = 0; rc == 0 && !file && i < ARRAY_SIZE(fields); i++) {
        const char *text = oci_string(values, fields[i].flag);

        if (text && *text)
            rc = add_field(resources, i, text, err);
    }
    if (rc == 0)
        rc = container_update(runtime, oci_words(values, NULL)[0], resources, err);
    json_decref(resources);
    return rc;
}

const struct oci_verb oci_update_verb = {
    "update", "ID", "give a container that lives other limits", flags, ARRAY_SIZE(flags), 1, 1, run};
