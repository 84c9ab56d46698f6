/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The control protocol's requests. Called by the supervisor and by the client. No state, no locks. */
#include "guest/control.h"

#include "base/error.h"
#include "engine/profile.h"
#include "guest/names.h"

#include <errno.h>
#include <string.h>

static const char *const verbs[CONTROL_VERBS] = {
    "status", "stop",    "kill",    "pause",  "resume",   "stats",  "console",
    "resize", "balloon", "profile", "update", "snapshot", "backup", "pivot",
};

/* A number that need not be given. 0 with *out, or -EINVAL with *err. */
static int take_number(const json_t *object, const char *key, uint64_t most, uint64_t *out,
                       struct error **err)
{
    const json_t *value = json_object_get(object, key);

    if (!value)
        return 0;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > most)
        return error_set(err, EINVAL, "'%s' is not a whole number from 0 to %llu", key,
                         (unsigned long long)most);
    *out = (uint64_t)json_integer_value(value);
    return 0;
}

/* Not always whole; 0: not given. */
static int take_processors(const json_t *object, double *out, struct error **err)
{
    const json_t *value = json_object_get(object, "cpus");

    if (!value)
        return 0;
    if (!json_is_number(value) || !(json_number_value(value) >= 0 && json_number_value(value) <= UINT16_MAX))
        return error_set(err, EINVAL, "'cpus' is not a number from 0 to %u", UINT16_MAX);
    *out = json_number_value(value);
    return 0;
}

/* A text that need not be given, into `size` bytes. 0, or -EINVAL with *err. */
static int take_text(const json_t *object, const char *key, char *out, size_t size, struct error **err)
{
    const json_t *value = json_object_get(object, key);

    if (!value)
        return 0;
    if (!json_is_string(value) || json_string_length(value) >= size)
        return error_set(err, EINVAL, "'%s' is not a text of at most %zu bytes", key, size - 1);
    strcpy(out, json_string_value(value)); /* has no zero byte: jansson refuses those */
    return 0;
}

const char *control_freeze_name(size_t i)
{
    static const char *const names[] = {
        [CONTROL_FREEZE_NEVER] = "never", [CONTROL_FREEZE_TRY] = "try", [CONTROL_FREEZE_ALWAYS] = "always"};

    return i < CONTROL_FREEZES ? names[i] : NULL;
}

static int take_freeze(const json_t *object, enum control_freeze *out, struct error **err)
{
    char name[8] = "never";
    int rc = take_text(object, "freeze", name, sizeof(name), err);

    for (size_t i = 0; rc == 0 && i < CONTROL_FREEZES; i++)
        if (strcmp(name, control_freeze_name(i)) == 0) {
            *out = (enum control_freeze)i;
            return 0;
        }
    return rc ? rc : error_set(err, EINVAL, "'freeze' is none of never, try and always");
}

static int take_flag(const json_t *object, const char *key, bool *out, struct error **err)
{
    const json_t *value = json_object_get(object, key);

    if (value && !json_is_boolean(value))
        return error_set(err, EINVAL, "'%s' is neither true nor false", key);
    *out = json_is_true(value);
    return 0;
}

/* The name of a bitmap, in a buffer of CONTROL_NAME_MAX + 1 bytes. */
static int take_bitmap(const json_t *object, const char *key, char *out, struct error **err)
{
    int rc = take_text(object, key, out, CONTROL_NAME_MAX + 1, err);

    return rc == 0 && *out ? name_check(out, err) : rc;
}

static int take_disk(const json_t *object, struct control_request *r, struct error **err)
{
    int rc = take_number(object, "disk", UINT16_MAX, &r->disk, err);

    r->of_disk = json_object_get(object, "disk") != NULL;
    if (rc == 0)
        rc = take_number(object, "disk-bytes", INT64_MAX, &r->disk_bytes, err);
    for (unsigned i = 0; i < DISK_LIMITS && rc == 0; i++) {
        rc = take_number(object, disk_limit_name(i), INT64_MAX, &r->limits.values[i], err);
        r->has_limit[i] = json_object_get(object, disk_limit_name(i)) != NULL;
    }
    return rc;
}

static int parse_object(const json_t *object, struct control_request *out, struct error **err)
{
    const char *verb = json_string_value(json_object_get(object, "request"));
    struct control_request request = {.verb = CONTROL_VERBS};
    uint64_t timeout = CONTROL_TIMEOUT_MS, columns = 0, rows = 0, memory = 0, frequency = CONTROL_FREQUENCY;
    uint64_t pids = 0, io_weight = 0;
    double cpus = 0;

    if (!verb)
        return error_set(err, EINVAL, "no 'request' that is a string");
    for (int i = 0; i < CONTROL_VERBS; i++)
        if (strcmp(verbs[i], verb) == 0)
            request.verb = (enum control_verb)i;
    if (request.verb == CONTROL_VERBS)
        return error_set(err, EINVAL, "there is no such request");
    int rc = take_number(object, "timeout-ms", CONTROL_TIMEOUT_MS_MAX, &timeout, err);
    if (rc == 0)
        rc = take_number(object, "columns", UINT16_MAX, &columns, err);
    if (rc == 0)
        rc = take_number(object, "rows", UINT16_MAX, &rows, err);
    if (rc == 0)
        rc = take_number(object, "memory-bytes", INT64_MAX, &memory, err);
    if (rc == 0)
        rc = take_number(object, "frequency", ENGINE_PROFILE_HZ_MAX, &frequency, err);
    if (rc == 0)
        rc = take_processors(object, &cpus, err);
    if (rc == 0)
        rc = take_number(object, "pids", UINT32_MAX, &pids, err);
    if (rc == 0)
        rc = take_number(object, "io-weight", 1000, &io_weight, err);
    if (rc == 0 && !frequency)
        rc = error_set(err, EINVAL, "'frequency' is 0");
    if (rc == 0 && request.verb == CONTROL_BALLOON && !json_object_get(object, "memory-bytes"))
        rc = error_set(err, EINVAL, "no 'memory-bytes': how much memory the guest is to keep");
    if (rc == 0)
        rc = take_text(object, "name", request.snapshot, sizeof(request.snapshot), err);
    if (rc == 0)
        rc = take_text(object, "description", request.description, sizeof(request.description), err);
    if (rc == 0 && request.snapshot[0])
        rc = name_check(request.snapshot, err);
    if (rc == 0)
        rc = take_bitmap(object, "since", request.since, err);
    if (rc == 0)
        rc = take_bitmap(object, "bitmap", request.bitmap, err);
    if (rc == 0)
        rc = take_disk(object, &request, err);
    if (rc == 0 && (request.verb == CONTROL_BACKUP || request.verb == CONTROL_PIVOT) && !request.of_disk)
        rc = error_set(err, EINVAL, "no 'disk': which one is to be copied");
    if (rc == 0)
        rc = take_text(object, "path", request.path, sizeof(request.path), err);
    if (rc == 0)
        rc = take_text(object, "format", request.format, sizeof(request.format), err);
    if (rc == 0 && request.verb == CONTROL_PIVOT && request.path[0] != '/')
        rc = error_set(err, EINVAL, "no 'path' that is absolute: what the disk is to go on in");
    if (rc == 0)
        rc = take_flag(object, "pivot", &request.pivot, err);
    if (rc == 0)
        rc = take_flag(object, "shutdown", &request.shutdown, err);
    if (rc == 0)
        rc = take_flag(object, "while-connected", &request.while_connected, err);
    if (rc == 0)
        rc = take_freeze(object, &request.freeze, err);
    if (rc == 0)
        rc = take_flag(object, "mirror", &request.mirror, err);
    if (rc == 0)
        rc = take_flag(object, "stream", &request.stream, err);
    if (rc)
        return rc;
    request.timeout_ms = timeout;
    request.columns = (uint16_t)columns;
    request.rows = (uint16_t)rows;
    request.memory_bytes = memory;
    request.frequency = frequency;
    request.cpus = cpus;
    request.pids = pids;
    request.io_weight = io_weight;
    *out = request;
    return 0;
}

int control_parse(const char *line, size_t len, struct control_request *out, struct error **err)
{
    json_error_t where;
    json_t *object = json_loadb(line, len, JSON_REJECT_DUPLICATES, &where);

    if (!object)
        return error_set(err, EINVAL, "not a line of JSON (%s)", where.text);
    int rc = json_is_object(object) ? parse_object(object, out, err)
                                    : error_set(err, EINVAL, "a request is a JSON object");
    json_decref(object);
    return rc;
}

char *control_format(const struct control_request *r)
{
    json_t *object = json_pack("{s:s}", "request", verbs[r->verb]);
    char *text = NULL, *line = NULL;

    if (r->verb == CONTROL_STOP)
        json_object_set_new(object, "timeout-ms", json_integer((json_int_t)r->timeout_ms));
    if (r->verb == CONTROL_STOP && r->shutdown)
        json_object_set_new(object, "shutdown", json_true());
    if (r->verb == CONTROL_PAUSE && r->while_connected)
        json_object_set_new(object, "while-connected", json_true());
    if (r->freeze)
        json_object_set_new(object, "freeze", json_string(control_freeze_name(r->freeze)));
    if (r->verb == CONTROL_CONSOLE || r->verb == CONTROL_RESIZE) {
        json_object_set_new(object, "columns", json_integer(r->columns));
        json_object_set_new(object, "rows", json_integer(r->rows));
    }
    if (r->verb == CONTROL_UPDATE) {
        json_object_set_new(object, "cpus", json_real(r->cpus));
        json_object_set_new(object, "pids", json_integer((json_int_t)r->pids));
        json_object_set_new(object, "io-weight", json_integer((json_int_t)r->io_weight));
    }
    if (r->of_disk) {
        json_object_set_new(object, "disk", json_integer((json_int_t)r->disk));
        json_object_set_new(object, "disk-bytes", json_integer((json_int_t)r->disk_bytes));
        for (unsigned i = 0; i < DISK_LIMITS; i++)
            if (r->has_limit[i])
                json_object_set_new(object, disk_limit_name(i),
                                    json_integer((json_int_t)r->limits.values[i]));
    }
    if (r->verb == CONTROL_SNAPSHOT) {
        json_object_set_new(object, "name", json_string(r->snapshot));
        json_object_set_new(object, "description", json_string(r->description));
    }
    if (r->verb == CONTROL_BACKUP) {
        json_object_set_new(object, "since", json_string(r->since));
        json_object_set_new(object, "bitmap", json_string(r->bitmap));
        json_object_set_new(object, "mirror", json_boolean(r->mirror));
        json_object_set_new(object, "stream", json_boolean(r->stream));
        json_object_set_new(object, "pivot", json_boolean(r->pivot));
    }
    if (r->verb == CONTROL_PIVOT) {
        json_object_set_new(object, "path", json_string(r->path));
        json_object_set_new(object, "format", json_string(r->format));
    }
    if (r->verb == CONTROL_BALLOON || r->verb == CONTROL_UPDATE)
        json_object_set_new(object, "memory-bytes", json_integer((json_int_t)r->memory_bytes));
    if (r->verb == CONTROL_PROFILE)
        json_object_set_new(object, "frequency", json_integer((json_int_t)r->frequency));
    if (object)
        text = json_dumps(object, JSON_COMPACT);
    if (text && asprintf(&line, "%s\n", text) < 0)
        line = NULL;
    free(text);
    json_decref(object);
    return line;
}
