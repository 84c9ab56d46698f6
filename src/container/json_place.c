/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Typed access to JSON with complaints that name the field. No state, no locks. */
#include "container/json_place.h"

#include "base/error.h"
#include "base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PLACE_MAX 256
#define NAME_MAX_ 64

void json_place_format(const struct json_place *place, char *text, size_t size)
{
    char name[NAME_MAX_];

    text[0] = '\0';
    if (!place)
        return;
    json_place_format(place->up, text, size);
    size_t used = strlen(text);
    if (place->name) {
        /* Names of maps are the configuration's own. */
        text_make_printable(name, sizeof(name), place->name);
        snprintf(text + used, size - used, "%s%s", used ? "." : "", name);
    } else {
        snprintf(text + used, size - used, "[%zu]", place->index);
    }
}

int json_place_error(const struct json_place *place, struct error **err, const char *format, ...)
{
    char where[PLACE_MAX], what[512];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    json_place_format(place, where, sizeof(where));
    return error_set(err, EINVAL, "%s: %s", where, what);
}

static const char *kind_name(json_type kind)
{
    switch (kind) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_TRUE:
    case JSON_FALSE:
        return "true or false";
    default:
        return "null";
    }
}

int json_place_mismatch(const struct json_place *place, const json_t *json, const char *wanted,
                        struct error **err)
{
    return json_place_error(place, err, "%s expected, not %s", wanted, kind_name(json_typeof(json)));
}

int json_member(const struct json_place *place, const json_t *object, const char *name, json_type kind,
                const json_t **out, struct error **err)
{
    const json_t *json = json_object_get(object, name);
    struct json_place here = {.up = place, .name = name};

    *out = NULL;
    if (!json || json_is_null(json))
        return 0;
    if (json_typeof(json) != kind)
        return json_place_mismatch(&here, json, kind_name(kind), err);
    *out = json;
    return 0;
}

int json_member_integer(const struct json_place *place, const json_t *object, const char *name, int64_t min,
                        int64_t max, bool *set, int64_t *out, struct error **err)
{
    const json_t *json;
    struct json_place here = {.up = place, .name = name};
    int rc = json_member(place, object, name, JSON_INTEGER, &json, err);

    if (rc)
        return rc;
    if (!json) {
        *set = false;
        return 0;
    }
    int64_t value = json_integer_value(json);
    if (value < min || value > max) {
        if (max == INT64_MAX)
            return json_place_error(&here, err, "%" PRId64 " is too small, the least is %" PRId64, value,
                                    min);
        return json_place_error(&here, err, "%" PRId64 " is not within %" PRId64 "..%" PRId64, value, min,
                                max);
    }
    *set = true;
    *out = value;
    return 0;
}

int json_member_boolean(const struct json_place *place, const json_t *object, const char *name, bool *set,
                        bool *out, struct error **err)
{
    const json_t *json = json_object_get(object, name);
    struct json_place here = {.up = place, .name = name};

    *set = false;
    if (!json || json_is_null(json))
        return 0;
    if (!json_is_boolean(json))
        return json_place_mismatch(&here, json, kind_name(JSON_TRUE), err);
    *set = true;
    *out = json_is_true(json);
    return 0;
}

int json_member_string(const struct json_place *place, const json_t *object, const char *name, char **out,
                       struct error **err)
{
    const json_t *json;
    struct json_place here = {.up = place, .name = name};
    int rc = json_member(place, object, name, JSON_STRING, &json, err);

    if (rc || !json)
        return rc;
    if (strlen(json_string_value(json)) != json_string_length(json))
        return json_place_error(&here, err, "a zero byte in it");
    char *copy = strdup(json_string_value(json));
    if (!copy)
        return error_set_errno(err, ENOMEM, "reading a configuration");
    *out = copy;
    return 0;
}
