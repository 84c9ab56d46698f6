/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * L2 tables and refcount blocks in memory, as they are in the file. So many of them at most that a guest
 * can't make it grow; the one that was used least lately goes. The disk's thread; no locks.
 */
#include "disk/qcow2_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TABLES_MAX 128u /* they are looked through one by one */

int qcow2_cache_init(struct qcow2_cache *cache, uint32_t cluster_size, uint32_t bytes, unsigned min)
{
    unsigned max = bytes / cluster_size;

    *cache = (struct qcow2_cache){.max = max < min ? min : max > TABLES_MAX ? TABLES_MAX : max};
    cache->tables = calloc(cache->max, sizeof(*cache->tables));
    return cache->tables ? 0 : -ENOMEM;
}

void qcow2_cache_free(struct qcow2_cache *cache)
{
    for (unsigned i = 0; i < cache->n; i++)
        free(cache->tables[i].bytes);
    free(cache->tables);
    *cache = (struct qcow2_cache){0};
}

static struct qcow2_table *find(struct qcow2_cache *cache, uint64_t offset)
{
    for (unsigned i = 0; i < cache->n; i++)
        if (cache->tables[i].offset == offset)
            return &cache->tables[i];
    return NULL;
}

/* One that can be given up, or NULL if all are dirty. */
static struct qcow2_table *find_victim(struct qcow2_cache *cache)
{
    struct qcow2_table *victim = NULL;

    for (unsigned i = 0; i < cache->n; i++) {
        struct qcow2_table *t = &cache->tables[i];
        if (!t->dirty && (!victim || t->last_use < victim->last_use))
            victim = t;
    }
    return victim;
}

/* An unused place with memory of a cluster. */
static int make_room(struct qcow2 *q, struct qcow2_cache *cache, struct qcow2_table **out)
{
    if (cache->n < cache->max) {
        uint8_t *bytes = malloc(q->cluster_size);
        if (bytes) {
            cache->tables[cache->n] = (struct qcow2_table){.bytes = bytes};
            *out = &cache->tables[cache->n++];
            return 0;
        }
    }
    *out = find_victim(cache);
    if (!*out) {
        int rc = cache->n ? qcow2_write_tables(q) : -ENOMEM;
        if (rc)
            return rc;
        *out = find_victim(cache);
    }
    (*out)->offset = 0;
    return 0;
}

static void use(struct qcow2_cache *cache, struct qcow2_table *table)
{
    table->last_use = ++cache->clock;
}

int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *cache, uint64_t offset, struct qcow2_table **out)
{
    struct qcow2_table *table = find(cache, offset);

    if (!table) {
        int rc = make_room(q, cache, &table);
        if (rc == 0)
            rc = disk_read_at(q->disk.fd, table->bytes, q->cluster_size, offset);
        if (rc)
            return rc;
        table->offset = offset;
    }
    use(cache, table);
    *out = table;
    return 0;
}

int qcow2_cache_new(struct qcow2 *q, struct qcow2_cache *cache, uint64_t offset, struct qcow2_table **out)
{
    struct qcow2_table *table = find(cache, offset);
    int rc = table ? 0 : make_room(q, cache, &table);

    if (rc)
        return rc;
    table->offset = offset;
    memset(table->bytes, 0, q->cluster_size);
    qcow2_cache_mark(cache, table);
    use(cache, table);
    *out = table;
    return 0;
}

void qcow2_cache_mark(struct qcow2_cache *cache, struct qcow2_table *table)
{
    cache->n_dirty += !table->dirty;
    table->dirty = true;
}

void qcow2_cache_drop(struct qcow2_cache *cache, uint64_t offset)
{
    struct qcow2_table *table = find(cache, offset);

    if (!table)
        return;
    cache->n_dirty -= table->dirty;
    table->dirty = false;
    table->offset = 0;
    table->last_use = 0;
}

void qcow2_cache_empty(struct qcow2_cache *cache)
{
    for (unsigned i = 0; i < cache->n; i++)
        cache->tables[i].offset = cache->tables[i].last_use = 0;
}

int qcow2_cache_write(struct qcow2 *q, struct qcow2_cache *cache)
{
    for (unsigned i = 0; i < cache->n && cache->n_dirty; i++) {
        struct qcow2_table *t = &cache->tables[i];
        if (!t->dirty)
            continue;
        int rc = disk_write_at(q->disk.fd, t->bytes, q->cluster_size, t->offset);
        if (rc)
            return rc;
        t->dirty = false;
        cache->n_dirty--;
    }
    return 0;
}
