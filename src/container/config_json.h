/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading JSON that somebody else wrote: each value is taken with the type and range that it must have, and
 * what is wrong is told with the value's place ("process.rlimits[2].soft: must be a number"). A place is a
 * chain of nodes on the stack, so it costs nothing unless it is told. No state.
 */
#ifndef TABIQUE_CONTAINER_CONFIG_JSON_H
#define TABIQUE_CONTAINER_CONFIG_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct config_node {
    const struct config_node *up; /* NULL for the document */
    const char *key;              /* of a member; NULL of an array's item */
    size_t index;                 /* of an array's item */
    json_t *json;
};

/* Memory that is freed at once, with the configuration. */
struct config_block;
struct config_pool {
    struct config_block *blocks;
};

/* Zeroed; NULL where there is none. `n` times `size` may be 0. */
void *config_alloc(struct config_pool *pool, size_t n, size_t size);
void config_pool_free(struct config_pool *pool);

/* -EINVAL with "<place>: <text>". */
int config_fail(const struct config_node *node, struct error **err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* *out becomes the member's node. False where there is none, or where it is null, which means the same. */
bool config_has(const struct config_node *node, const char *key, struct config_node *out);

/* The member with its type. 1 if it is there, 0 if it is not and need not be (then nothing is written),
 * -EINVAL. */
int config_object(const struct config_node *node, const char *key, bool required, struct config_node *out,
                  struct error **err);
int config_array(const struct config_node *node, const char *key, bool required, struct config_node *out,
                 struct error **err);
int config_string(const struct config_node *node, const char *key, bool required, const char **out,
                  struct error **err);
int config_bool(const struct config_node *node, const char *key, bool *out, struct error **err);
int config_int(const struct config_node *node, const char *key, bool required, int64_t min, int64_t max,
               int64_t *out, struct error **err);
/* The whole range of 64 bits: what is above 2^63-1 is a floating-point number to JSON parsers. */
int config_uint64(const struct config_node *node, const char *key, bool required, uint64_t *out,
                  struct error **err);

/* Items of an array. Strings have no 0 byte and, where `empty` is false, one character or more. */
size_t config_length(const struct config_node *array);
void config_item(const struct config_node *array, size_t i, struct config_node *out);
int config_item_string(const struct config_node *array, size_t i, const char **out, struct error **err);
int config_item_object(const struct config_node *array, size_t i, struct config_node *out,
                       struct error **err);

/* A member that is an array of strings, with NULL behind the last; NULL where it is absent. They live as long
 * as the document. */
int config_strings(struct config_pool *pool, const struct config_node *node, const char *key, bool required,
                   const char ***out, size_t *n, struct error **err);

/* A member that is one of `n` names. 1 with *out, 0 where it is absent, -EINVAL. */
int config_name(const struct config_node *node, const char *key, bool required, const char *const *names,
                size_t n, size_t *out, struct error **err);

#endif
