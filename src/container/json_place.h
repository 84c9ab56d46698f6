/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where in a JSON document a value stands, for complaints about it: a chain on the stack of whoever descends,
 * written out ("linux.resources.devices[2].access") only when something is wrong. Used by the parsers of
 * configurations.
 */
#ifndef TABIQUE_CONTAINER_JSON_PLACE_H
#define TABIQUE_CONTAINER_JSON_PLACE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

struct json_place {
    const struct json_place *up; /* NULL at the top */
    const char *name;            /* of a member; NULL for an item of a list */
    size_t index;
};

/* Writes the place into `text`, cut if it must be. */
void json_place_format(const struct json_place *place, char *text, size_t size);

/* "<place>: <message>" as an error of EINVAL: returns -EINVAL. */
int json_place_error(const struct json_place *place, struct error **err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "<place>: <wanted> expected, not <what json is>". */
int json_place_mismatch(const struct json_place *place, const json_t *json, const char *wanted,
                        struct error **err);

/*
 * Member `name` of `object`: NULL where it is missing or null, and that is 0; otherwise it is checked to be
 * of the kind and put into *out. -EINVAL with *err for another kind.
 */
int json_member(const struct json_place *place, const json_t *object, const char *name, json_type kind,
                const json_t **out, struct error **err);

/* The same for an integer of `min` to `max`; *set tells whether it is there. */
int json_member_integer(const struct json_place *place, const json_t *object, const char *name, int64_t min,
                        int64_t max, bool *set, int64_t *out, struct error **err);

/* The same for true and false. */
int json_member_boolean(const struct json_place *place, const json_t *object, const char *name, bool *set,
                        bool *out, struct error **err);

/* The same for a string, of which *out becomes a copy. It has no NUL byte in it. -ENOMEM too. */
int json_member_string(const struct json_place *place, const json_t *object, const char *name, char **out,
                       struct error **err);

#endif
