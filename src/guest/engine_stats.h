/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an engine tells of its work (engine/stats.h) as JSON. Called by the supervisor. No state. */
#ifndef TABIQUE_GUEST_ENGINE_STATS_H
#define TABIQUE_GUEST_ENGINE_STATS_H

#include <jansson.h>

struct engine_profile;
struct engine_stats;

/* Puts `vcpus` and `code-cache` into an object; nothing for an engine that tells nothing. */
void engine_stats_put(json_t *object, const struct engine_stats *stats);

/* The answer to `profile`; NULL if there is no memory. */
json_t *engine_profile_json(const struct engine_profile *profile);

#endif
