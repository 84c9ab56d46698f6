/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers for clusters: a tree of pages, of which there are those alone that have any. No state, no locks. */
#include "disk/qcow2_check_priv.h"

#include <errno.h>
#include <stdlib.h>

#define PAGE_BITS 12u
#define NODE_BITS 9u
#define NODE      (1u << NODE_BITS)

int counts_init(struct counts *c, uint64_t n)
{
    uint64_t pages = (n >> PAGE_BITS) + 1;

    *c = (struct counts){.levels = 1};
    while (pages >> (NODE_BITS * c->levels))
        c->levels++;
    c->root = calloc(NODE, sizeof(void *));
    c->bytes = NODE * sizeof(void *);
    return c->root ? 0 : -ENOMEM;
}

static void free_node(void **node, unsigned level)
{
    for (unsigned i = 0; node && i < NODE; i++) {
        if (level)
            free_node(node[i], level - 1);
        else
            free(node[i]);
    }
    free(node);
}

void counts_free(struct counts *c)
{
    if (c->root)
        free_node(c->root, c->levels - 1);
    *c = (struct counts){0};
}

static unsigned index_at(uint64_t page, unsigned level)
{
    return (unsigned)(page >> (NODE_BITS * level)) & (NODE - 1);
}

/* Takes memory as long as there may be more. */
static void *take(struct counts *c, size_t n, size_t size)
{
    if (c->bytes + n * size > CHECK_MEMORY)
        return NULL;
    void *p = calloc(n, size);
    if (p)
        c->bytes += n * size;
    return p;
}

static uint32_t *find(struct counts *c, uint64_t page, bool make)
{
    void **node = c->root;

    if (c->last && c->page == page)
        return c->last;
    for (unsigned level = c->levels; level--;) {
        void **next = &node[index_at(page, level)];
        if (!*next && make)
            *next = level ? take(c, NODE, sizeof(void *)) : take(c, 1u << PAGE_BITS, sizeof(uint32_t));
        if (!*next)
            return NULL;
        node = *next;
    }
    c->page = page;
    c->last = (uint32_t *)node;
    return c->last;
}

uint32_t counts_get(struct counts *c, uint64_t cluster)
{
    uint32_t *page = find(c, cluster >> PAGE_BITS, false);

    return page ? page[cluster & ((1u << PAGE_BITS) - 1)] : 0;
}

uint32_t *counts_at(struct counts *c, uint64_t cluster)
{
    uint32_t *page = find(c, cluster >> PAGE_BITS, true);

    return page ? &page[cluster & ((1u << PAGE_BITS) - 1)] : NULL;
}

/* The first page from `page` on below this node. */
static uint64_t next_below(void *const *node, unsigned level, uint64_t page)
{
    uint64_t reach = 1ull << (NODE_BITS * level);

    for (unsigned i = index_at(page, level); i < NODE; i++) {
        if (node[i]) {
            uint64_t found = level ? next_below(node[i], level - 1, page) : page;
            if (found != UINT64_MAX)
                return found;
        }
        page = (page & ~(reach - 1)) + reach;
    }
    return UINT64_MAX;
}

uint64_t counts_next(const struct counts *c, uint64_t from)
{
    uint64_t first = from >> PAGE_BITS;

    if (first >> (NODE_BITS * c->levels))
        return UINT64_MAX;
    uint64_t page = next_below(c->root, c->levels - 1, first);
    if (page == UINT64_MAX)
        return page;
    return page == first ? from : page << PAGE_BITS;
}
