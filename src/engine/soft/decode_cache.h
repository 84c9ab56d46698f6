/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 64-bit instructions that have been decoded, for those that differ from them in nothing but their
 * displacement and their immediate: decoding is a third of what a translation takes, and most code is made of
 * some hundred instructions. For one thread at a time.
 */
#ifndef TABIQUE_ENGINE_SOFT_DECODE_CACHE_H
#define TABIQUE_ENGINE_SOFT_DECODE_CACHE_H

#include "engine/soft/decode.h"

struct soft_decode_cache;

/* Memory of it is touched as it fills. NULL without memory, which soft_decode_cached takes. */
struct soft_decode_cache *soft_decode_cache_new(void);
void soft_decode_cache_free(struct soft_decode_cache *cache);

/* As soft_decode, with the same result. */
enum soft_decode_result soft_decode_cached(struct soft_decode_cache *cache, struct soft_decoded *d,
                                           const uint8_t *bytes, unsigned length, unsigned bits, bool amd,
                                           uint64_t rip);

#endif
