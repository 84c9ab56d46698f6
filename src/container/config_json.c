/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Typed access to a JSON document, with places in its errors. Called by all who read config.json. No state.
 */
#include "container/config_json.h"

#include "base/error.h"
#include "base/suggest.h"
#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLACE_MAX 512

struct config_block {
    struct config_block *next;
    _Alignas(16) unsigned char bytes[];
};

void *config_alloc(struct config_pool *pool, size_t n, size_t size)
{
    if (size && n > (SIZE_MAX - sizeof(struct config_block)) / size)
        return NULL;
    struct config_block *block = calloc(1, sizeof(*block) + n * size);
    if (!block)
        return NULL;
    block->next = pool->blocks;
    pool->blocks = block;
    return block->bytes;
}

void config_pool_free(struct config_pool *pool)
{
    while (pool->blocks) {
        struct config_block *next = pool->blocks->next;

        free(pool->blocks);
        pool->blocks = next;
    }
}

/* "linux.seccomp.syscalls[3].names"; what does not fit is left out at the end. */
static size_t write_place(const struct config_node *node, char *to, size_t size)
{
    size_t used = node->up ? write_place(node->up, to, size) : 0;
    char key[64];
    int n = 0;

    if (!node->up || used >= size - 1)
        return used;
    if (node->key) {
        /* Names of maps are the configuration's own. */
        text_make_printable(key, sizeof(key), node->key);
        n = snprintf(to + used, size - used, "%s%s", used ? "." : "", key);
    } else
        n = snprintf(to + used, size - used, "[%zu]", node->index);
    used += n > 0 ? (size_t)n : 0;
    return used < size ? used : size - 1;
}

int config_fail(const struct config_node *node, struct error **err, const char *format, ...)
{
    char place[PLACE_MAX] = "";
    char *text = NULL;
    va_list args;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    va_end(args);
    write_place(node, place, sizeof(place));
    int rc = error_set(err, EINVAL, "%s%s%s", place, place[0] ? ": " : "", text ? text : "invalid");
    free(text);
    return rc;
}

bool config_has(const struct config_node *node, const char *key, struct config_node *out)
{
    json_t *json = json_object_get(node->json, key);

    *out = (struct config_node){.up = node, .key = key, .json = json};
    return json && !json_is_null(json);
}

/* 1, 0 or -EINVAL, as the public functions below. */
static int take(const struct config_node *node, const char *key, bool required, struct config_node *out,
                struct error **err)
{
    if (config_has(node, key, out))
        return 1;
    return required ? config_fail(out, err, "is required and missing") : 0;
}

int config_object(const struct config_node *node, const char *key, bool required, struct config_node *out,
                  struct error **err)
{
    struct config_node member;
    int rc = take(node, key, required, &member, err);

    if (rc <= 0)
        return rc;
    if (!json_is_object(member.json))
        return config_fail(&member, err, "must be an object");
    *out = member;
    return 1;
}

int config_array(const struct config_node *node, const char *key, bool required, struct config_node *out,
                 struct error **err)
{
    struct config_node member;
    int rc = take(node, key, required, &member, err);

    if (rc <= 0)
        return rc;
    if (!json_is_array(member.json))
        return config_fail(&member, err, "must be an array");
    *out = member;
    return 1;
}

int config_string(const struct config_node *node, const char *key, bool required, const char **out,
                  struct error **err)
{
    struct config_node member;
    int rc = take(node, key, required, &member, err);

    if (rc <= 0)
        return rc;
    if (!json_is_string(member.json))
        return config_fail(&member, err, "must be a string");
    *out = json_string_value(member.json);
    return 1;
}

int config_bool(const struct config_node *node, const char *key, bool *out, struct error **err)
{
    struct config_node member;
    int rc = take(node, key, false, &member, err);

    if (rc <= 0)
        return rc;
    if (!json_is_boolean(member.json))
        return config_fail(&member, err, "must be true or false");
    *out = json_is_true(member.json);
    return 1;
}

int config_int(const struct config_node *node, const char *key, bool required, int64_t min, int64_t max,
               int64_t *out, struct error **err)
{
    struct config_node member;
    int rc = take(node, key, required, &member, err);

    if (rc <= 0)
        return rc;
    if (!json_is_integer(member.json))
        return config_fail(&member, err, "must be a whole number");
    json_int_t value = json_integer_value(member.json);
    if (value < min || value > max)
        return config_fail(&member, err, "%lld is not within %lld to %lld", (long long)value, (long long)min,
                           (long long)max);
    *out = value;
    return 1;
}

int config_uint64(const struct config_node *node, const char *key, bool required, uint64_t *out,
                  struct error **err)
{
    struct config_node member;
    int rc = take(node, key, required, &member, err);

    if (rc <= 0)
        return rc;
    if (json_is_integer(member.json) && json_integer_value(member.json) >= 0) {
        *out = (uint64_t)json_integer_value(member.json);
        return 1;
    }
    /* 2^64-1, "without limit", comes as the nearest double, 2^64. */
    double value = json_is_real(member.json) ? json_real_value(member.json) : -1;
    if (!(value >= 0) || value > 0x1p64)
        return config_fail(&member, err, "must be a whole number from 0 to 18446744073709551615");
    *out = value >= 0x1p64 ? UINT64_MAX : (uint64_t)value;
    return 1;
}

size_t config_length(const struct config_node *array)
{
    return json_array_size(array->json);
}

void config_item(const struct config_node *array, size_t i, struct config_node *out)
{
    *out = (struct config_node){.up = array, .index = i, .json = json_array_get(array->json, i)};
}

int config_item_string(const struct config_node *array, size_t i, const char **out, struct error **err)
{
    struct config_node item;

    config_item(array, i, &item);
    if (!json_is_string(item.json))
        return config_fail(&item, err, "must be a string");
    *out = json_string_value(item.json);
    return 0;
}

int config_item_object(const struct config_node *array, size_t i, struct config_node *out, struct error **err)
{
    config_item(array, i, out);
    return json_is_object(out->json) ? 0 : config_fail(out, err, "must be an object");
}

int config_strings(struct config_pool *pool, const struct config_node *node, const char *key, bool required,
                   const char ***out, size_t *n, struct error **err)
{
    struct config_node array;
    int rc = config_array(node, key, required, &array, err);

    if (rc <= 0)
        return rc;
    size_t length = config_length(&array);
    const char **strings = config_alloc(pool, length + 1, sizeof(*strings));
    if (!strings)
        return config_fail(&array, err, "out of memory");
    for (size_t i = 0; i < length; i++)
        if (config_item_string(&array, i, &strings[i], err))
            return -EINVAL;
    *out = strings;
    if (n)
        *n = length;
    return 1;
}

int config_name(const struct config_node *node, const char *key, bool required, const char *const *names,
                size_t n, size_t *out, struct error **err)
{
    const char *text;
    struct config_node member;
    int rc = config_string(node, key, required, &text, err);

    if (rc <= 0)
        return rc;
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], text) == 0) {
            *out = i;
            return 1;
        }
    config_has(node, key, &member);
    const char *meant = suggest_nearest(text, names, n);
    return config_fail(&member, err, "'%.100s' is unknown%s%s%s", text, meant ? ": did you mean '" : "",
                       meant ? meant : "", meant ? "'?" : "");
}
