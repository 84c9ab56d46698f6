/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror's bookkeeping. A chunk stands for the 2 MiB that one page table, or one large page, maps; for
 * each of its 512 pages it has the physical address and the rights that the stub has been given, in the form
 * in which page-table entries are compared with it: a mapping stays while the entry still says at least that
 * much.
 *
 * A page of code that only the translator may execute a few instructions of is mapped as a copy that has UD2
 * in their place, if it is beyond doubt where these are and user code can't write to it. Before each entry
 * it is compared with what it was made from. In case of doubt, none of the page is executable.
 *
 * Pages that hold translated code are never writable in a stub, so that stores to them are noticed: a page is
 * announced as writable before it is looked at whether it holds code, and code is marked before it is looked
 * at whether the page is announced (soft_cache_mark_page_locked).
 */
#include "engine/soft/direct_space.h"

#include "base/error.h"
#include "engine/soft/direct_scan.h"
#include "engine/soft/paging.h"
#include "engine/soft/soft_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE        4096u
#define CHUNK_SHIFT 21
#define CHUNK_PAGES 512u
/* Pages around the one that was touched that are mapped with it, if the guest has them in use. */
#define AROUND 16u
/* The host's limit (vm.max_map_count) is 65530 areas for a process, unless it has been changed. */
#define MAX_AREAS  30000u
#define MAX_CHUNKS 512u

/* A page as it is mapped. Addresses stand where page-table entries have them. */
#define HAS_READ  1ull
#define HAS_WRITE 2ull
#define HAS_EXEC  4ull
#define RIGHTS    (HAS_READ | HAS_WRITE | HAS_EXEC)
#define IS_COPY   8ull

#define UD2 0x0b /* after the escape byte */

struct direct_chunk {
    uint64_t number; /* address >> CHUNK_SHIFT */
    struct direct_chunk *next;
    unsigned first, end; /* no other pages are mapped */
    bool large;          /* some of them were of a large page */
    uint64_t pages[CHUNK_PAGES];
};

#define CHUNKS_SIZE (MAX_CHUNKS * sizeof(struct direct_chunk))
#define BOOKS_SIZE  (CHUNKS_SIZE + STUB_COPIES * PAGE)

/* What maps a chunk now: a page table, or one large page. */
struct direct_tables {
    const uint64_t *table; /* NULL where there is none */
    uint64_t large;        /* then: the first page's entry, or 0 */
    bool huge;             /* which is of 1 GiB */
    uint64_t rights;       /* of the levels above: HAS_WRITE, HAS_EXEC */
};

/* ---- the guest's tables ---- */

static const uint64_t *table_at(const struct soft_vcpu *c, uint64_t entry)
{
    return guest_memory_at(c->soft->memory, entry & PTE_ADDRESS, 4096);
}

/* Only what has been used already is taken over (the A bits are set); the rest comes by soft_walk. False with
 * nothing allowed if there is nothing. */
static bool find_tables(const struct soft_vcpu *c, uint64_t address, struct direct_tables *t)
{
    uint64_t entry = c->cr3;

    *t = (struct direct_tables){.rights = HAS_WRITE | HAS_EXEC};
    for (unsigned shift = 39; shift > 12; shift -= 9) {
        const uint64_t *table = table_at(c, entry);
        entry = table ? __atomic_load_n(&table[(address >> shift) & 511], __ATOMIC_ACQUIRE) : 0;
        if ((entry & (PTE_P | PTE_U | PTE_A)) != (PTE_P | PTE_U | PTE_A))
            return false;
        if (!(entry & PTE_W))
            t->rights &= ~HAS_WRITE;
        if (entry & PTE_NX)
            t->rights &= ~HAS_EXEC;
        if (entry & PTE_PS) {
            if (shift > 30)
                return false;
            /* Of a page of 1 GiB: the 2 MiB that are asked for. */
            uint64_t mask = (1ull << shift) - 1;
            t->large = (entry & ~(PTE_ADDRESS & mask)) | (address & mask & ~((1ull << CHUNK_SHIFT) - 1));
            t->huge = shift == 30;
            return true;
        }
    }
    t->table = table_at(c, entry);
    return t->table != NULL;
}

/* The page's address and rights as the tables have them now; 0 if it is not to be mapped. */
static uint64_t allowed(const struct direct_tables *t, unsigned index)
{
    uint64_t entry = t->table ? __atomic_load_n(&t->table[index], __ATOMIC_ACQUIRE) : t->large;
    uint64_t page;

    if ((entry & (PTE_P | PTE_U | PTE_A)) != (PTE_P | PTE_U | PTE_A))
        return 0;
    page = (entry & PTE_ADDRESS) | HAS_READ;
    if (!t->table)
        page = (page & ~0x1fffffull) | HAS_READ | (uint64_t)index << 12;
    if ((t->rights & HAS_WRITE) && (entry & (PTE_W | PTE_D)) == (PTE_W | PTE_D))
        page |= HAS_WRITE;
    if ((t->rights & HAS_EXEC) && !(entry & PTE_NX))
        page |= HAS_EXEC;
    return page;
}

/* ---- chunks ---- */

static struct direct_chunk **bucket(struct direct_space *space, uint64_t number)
{
    return &space->buckets[(number ^ number >> 7) % DIRECT_BUCKETS];
}

static struct direct_chunk *find_chunk(struct direct_space *space, uint64_t number)
{
    struct direct_chunk *chunk = *bucket(space, number);

    while (chunk && chunk->number != number)
        chunk = chunk->next;
    return chunk;
}

static void forget_chunks(struct direct_space *space)
{
    memset(space->buckets, 0, sizeof(space->buckets));
    if (space->chunks) /* what is left reads as zero */
        madvise(space->chunks, CHUNKS_SIZE, MADV_DONTNEED);
    space->n_chunks = space->n_areas = space->n_copies = 0;
    space->huge = false;
}

static int empty(struct direct_space *space)
{
    forget_chunks(space);
    int rc = direct_stub_unmap_all(&space->stub);
    return rc ? rc : direct_stub_apply(&space->stub);
}

static struct direct_chunk *get_chunk(struct direct_space *space, uint64_t number)
{
    struct direct_chunk *chunk = find_chunk(space, number);

    if (chunk)
        return chunk;
    if (space->n_chunks >= MAX_CHUNKS && empty(space) < 0)
        return NULL;
    chunk = &space->chunks[space->n_chunks++];
    chunk->number = number;
    chunk->first = CHUNK_PAGES;
    chunk->next = *bucket(space, number);
    *bucket(space, number) = chunk;
    return chunk;
}

int direct_space_create(struct direct_space *space, int memory_fd, struct error **err)
{
    void *chunks =
        mmap(NULL, BOOKS_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    *space = (struct direct_space){.cr3 = UINT64_MAX, .cpu = -1};
    if (chunks == MAP_FAILED)
        return error_set_errno(err, errno, "direct execution: memory");
    madvise(chunks, BOOKS_SIZE, MADV_NOHUGEPAGE); /* most have few */
    int rc = direct_stub_create(&space->stub, memory_fd, err);
    space->chunks = chunks;
    for (unsigned n = 0; n < STUB_COPIES; n++) {
        space->copies[n].number = n;
        space->copies[n].source = (uint8_t *)chunks + CHUNKS_SIZE + (size_t)n * PAGE;
    }
    if (rc < 0)
        direct_space_free(space);
    return rc;
}

int direct_space_assign(struct direct_space *space, uint64_t cr3)
{
    int rc = 0;

    if (space->n_chunks)
        rc = empty(space);
    space->cr3 = cr3;
    space->refused = 0;
    return rc;
}

void direct_space_free(struct direct_space *space)
{
    if (space->chunks)
        munmap(space->chunks, BOOKS_SIZE);
    space->chunks = NULL;
    direct_stub_destroy(&space->stub);
}

/* ---- comparing ---- */

static uint64_t address_of(const struct direct_chunk *chunk, unsigned index)
{
    return chunk->number << CHUNK_SHIFT | (uint64_t)index << 12;
}

/* [first, end) of the chunk's pages. */
static int unmap_pages(struct direct_space *space, struct direct_chunk *chunk, unsigned first, unsigned end)
{
    memset(chunk->pages + first, 0, (end - first) * sizeof(chunk->pages[0]));
    return direct_stub_unmap(&space->stub, address_of(chunk, first), (uint64_t)(end - first) << 12);
}

static bool holds(const struct soft_vcpu *c, const struct direct_tables *t, unsigned index, uint64_t page)
{
    uint64_t now = allowed(t, index);

    if ((now ^ page) & PTE_ADDRESS || (page & RIGHTS & ~now))
        return false;
    return !(page & HAS_WRITE) || !soft_is_guarded_page(c->soft, page & PTE_ADDRESS);
}

static int validate_chunk(struct direct_space *space, struct soft_vcpu *c, struct direct_chunk *chunk)
{
    struct direct_tables t;
    int rc = 0;

    find_tables(c, chunk->number << CHUNK_SHIFT, &t);
    for (unsigned n = chunk->first; n < chunk->end && rc == 0;) {
        unsigned first = n;
        while (n < chunk->end && chunk->pages[n] && !holds(c, &t, n, chunk->pages[n]))
            n++;
        if (n > first)
            rc = unmap_pages(space, chunk, first, n);
        else
            n++;
    }
    return rc;
}

/* As after INVLPG. */
static int validate_page(struct direct_space *space, struct soft_vcpu *c, uint64_t address)
{
    struct direct_chunk *chunk = find_chunk(space, address >> CHUNK_SHIFT);
    unsigned index = (address >> 12) & (CHUNK_PAGES - 1);
    struct direct_tables t;

    if (chunk && chunk->large)
        return validate_chunk(space, c, chunk);
    if (!chunk || !chunk->pages[index])
        return 0;
    find_tables(c, address, &t);
    return holds(c, &t, index, chunk->pages[index]) ? 0 : unmap_pages(space, chunk, index, index + 1);
}

static int validate_all(struct direct_space *space, struct soft_vcpu *c)
{
    int rc = 0;

    for (unsigned n = 0; n < DIRECT_BUCKETS; n++) {
        for (struct direct_chunk *chunk = space->buckets[n]; chunk && rc == 0; chunk = chunk->next)
            rc = validate_chunk(space, c, chunk);
    }
    return rc;
}

static bool same_as_copied(const struct soft_vcpu *c, const struct direct_copy *copy, uint64_t page)
{
    return memcmp(soft_ram_page(c->soft, page & PTE_ADDRESS), copy->source, PAGE) == 0;
}

static int validate_copies(struct direct_space *space, struct soft_vcpu *c)
{
    int rc = 0;

    for (unsigned n = 0; n < space->n_copies && rc == 0;) {
        struct direct_copy *copy = &space->copies[n], gone = *copy;
        uint64_t page = copy->chunk->pages[copy->index];
        if ((page & IS_COPY) && same_as_copied(c, copy, page)) {
            n++;
            continue;
        }
        *copy = space->copies[--space->n_copies];
        space->copies[space->n_copies] = gone;
        if (page & IS_COPY)
            rc = unmap_pages(space, gone.chunk, gone.index, gone.index + 1);
    }
    return rc;
}

/* ---- mapping ---- */

static struct direct_scan how_to_scan(const struct soft_vcpu *c)
{
    return (struct direct_scan){.amd = c->soft->amd, .more_state = c->xcr0 != c->soft->host_xcr0};
}

/* The page before the one at `index`, if code may run on from there; else NULL. */
static const uint8_t *page_before(const struct soft_vcpu *c, const struct direct_tables *t, unsigned index)
{
    uint64_t entry = index ? allowed(t, index - 1) : 0;

    return entry & HAS_EXEC ? soft_ram_page(c->soft, entry & PTE_ADDRESS) : NULL;
}

/* Of the page at `index`. Programs have the same pages again and again: verdicts are kept. */
static enum direct_verdict verdict_on(const struct soft_vcpu *c, const struct direct_tables *t,
                                      unsigned index)
{
    struct direct_scan how = how_to_scan(c);
    const uint8_t *before = page_before(c, t, index);
    const uint8_t *page = soft_ram_page(c->soft, allowed(t, index) & PTE_ADDRESS);
    uint64_t hash = direct_scan_hash(&how, before, page) & ~3ull;
    _Atomic uint64_t *kept = &c->soft->direct_verdicts[(hash >> 2) % DIRECT_VERDICTS];
    uint64_t known = atomic_load_explicit(kept, memory_order_relaxed);
    struct direct_sites sites;

    if (known && (known & ~3ull) == hash)
        return (enum direct_verdict)((known & 3) - 1);
    enum direct_verdict verdict = direct_scan_page(&how, before, page, &sites);
    atomic_store_explicit(kept, hash | (verdict + 1), memory_order_relaxed);
    return verdict;
}

/* A copy of the page with UD2 in the place of what must not be executed. False if there can be none. */
static bool make_copy(struct direct_space *space, struct soft_vcpu *c, struct direct_chunk *chunk,
                      const struct direct_tables *t, unsigned index)
{
    struct direct_copy *copy = &space->copies[space->n_copies];
    struct direct_scan how = how_to_scan(c);
    struct direct_sites sites;

    if (chunk->pages[index] & IS_COPY) /* it is there, and as good as when it was made */
        return true;
    if (space->n_copies == STUB_COPIES)
        return false;
    memcpy(copy->source, soft_ram_page(c->soft, allowed(t, index) & PTE_ADDRESS), PAGE);
    /* It may have changed since it was looked at. */
    if (direct_scan_page(&how, page_before(c, t, index), copy->source, &sites) != DIRECT_CERTAIN)
        return false;
    uint8_t *changed = direct_stub_copy(&space->stub, copy->number);
    memcpy(changed, copy->source, PAGE);
    for (unsigned n = 0; n < sites.n; n++)
        changed[sites.at[n]] = UD2;
    copy->chunk = chunk;
    copy->index = index;
    space->n_copies++;
    return true;
}

/* What the stub is to have of a page. `run`: code wants to run there. Copies have to be compared at each
 * entry, and are not quite what is to be read there, so nothing else becomes one. */
static uint64_t for_stub(struct direct_space *space, struct soft_vcpu *c, struct direct_chunk *chunk,
                         const struct direct_tables *t, unsigned index, bool run)
{
    uint64_t page = allowed(t, index), gpa = page & PTE_ADDRESS;
    uint64_t number = soft_page_number(c->soft, gpa);
    bool writable = page & HAS_WRITE;

    if (!page || number >= c->soft->n_pages)
        return 0;
    if (writable) {
        atomic_fetch_or(&c->soft->direct_writable[number / 64], 1ull << number % 64);
        if (soft_is_guarded_page(c->soft, gpa))
            page &= ~HAS_WRITE;
    }
    if (!(page & HAS_EXEC))
        return page;
    switch (verdict_on(c, t, index)) {
    case DIRECT_HARMLESS:
        return page;
    case DIRECT_CERTAIN:
        if (run && !writable && make_copy(space, c, chunk, t, index))
            return page | IS_COPY;
        break;
    case DIRECT_DOUBTFUL:
        break;
    }
    return page & ~HAS_EXEC;
}

static uint64_t file_offset(const struct soft_vcpu *c, uint64_t page)
{
    uint64_t gpa = page & PTE_ADDRESS;
    const struct guest_memory_block *b = guest_memory_block_at(c->soft->memory, gpa, 4096);

    return b->offset + (gpa - b->gpa);
}

static int map_copy(struct direct_space *space, struct direct_chunk *chunk, unsigned index)
{
    for (unsigned n = 0; n < space->n_copies; n++) {
        const struct direct_copy *copy = &space->copies[n];
        if (copy->chunk == chunk && copy->index == index)
            return direct_stub_map_copy(&space->stub, address_of(chunk, index), PROT_READ | PROT_EXEC,
                                        copy->number);
    }
    return -ENOENT;
}

/* Maps chunk->pages[first, end), which lie one after the other in the guest's memory as well. */
static int map_run(struct direct_space *space, struct soft_vcpu *c, struct direct_chunk *chunk,
                   unsigned first, unsigned end)
{
    uint64_t page = chunk->pages[first];
    int prot = PROT_READ | (page & HAS_WRITE ? PROT_WRITE : 0) | (page & HAS_EXEC ? PROT_EXEC : 0);

    space->n_areas++;
    if (page & IS_COPY)
        return map_copy(space, chunk, first);
    return direct_stub_map(&space->stub, address_of(chunk, first), (uint64_t)(end - first) << 12, prot,
                           file_offset(c, page));
}

/* With the same rights, and in one piece of the file. */
static bool follows(const struct soft_vcpu *c, uint64_t page, uint64_t next)
{
    return next == page + 4096 && !(page & IS_COPY) &&
           guest_memory_block_at(c->soft->memory, page & PTE_ADDRESS, 8192);
}

/* `wanted` for the page `at`, and those around it that are not mapped yet. */
static int map_around(struct direct_space *space, struct soft_vcpu *c, struct direct_chunk *chunk,
                      const struct direct_tables *t, unsigned at, uint64_t wanted)
{
    unsigned around = t->table ? AROUND : CHUNK_PAGES;
    unsigned first = at & ~(around - 1), run = CHUNK_PAGES;
    int rc = 0;

    chunk->large |= !t->table;
    space->huge |= t->huge;
    for (unsigned n = first; n <= first + around && rc == 0; n++) {
        bool fresh = n < first + around && !chunk->pages[n];
        uint64_t page = n == at ? wanted : fresh ? for_stub(space, c, chunk, t, n, false) : 0;

        if (run < n && !(page && follows(c, chunk->pages[n - 1], page))) {
            rc = map_run(space, c, chunk, run, n);
            run = CHUNK_PAGES;
        }
        if (page) {
            chunk->pages[n] = page;
            chunk->first = n < chunk->first ? n : chunk->first;
            chunk->end = n < chunk->end ? chunk->end : n + 1;
            if (run > n)
                run = n;
        }
    }
    return rc ? rc : direct_stub_apply(&space->stub);
}

/* What the code wanted of the page, as far as can be told: the host says nothing but the address. */
static unsigned wanted_access(uint64_t page, uint64_t rip, uint64_t address)
{
    bool fetch = rip >> 12 == address >> 12 || (!(address & 4095) && (rip + 14) >> 12 == address >> 12);

    if (fetch && !(page & HAS_EXEC))
        return ACCESS_EXEC;
    return page & HAS_READ ? ACCESS_WRITE : ACCESS_READ;
}

enum direct_resolve direct_space_resolve(struct direct_space *space, struct soft_vcpu *c, uint64_t rip,
                                         uint64_t address)
{
    unsigned index = (address >> 12) & (CHUNK_PAGES - 1);
    struct direct_tables t;
    struct soft_walk w;

    if (address >= DIRECT_USER_END || direct_stub_occupies(&space->stub, address & ~4095ull, 4096))
        return DIRECT_REFUSED;
    if (space->n_areas >= MAX_AREAS && empty(space) < 0)
        return DIRECT_BROKEN;
    struct direct_chunk *chunk = get_chunk(space, address >> CHUNK_SHIFT);
    if (!chunk)
        return DIRECT_BROKEN;
    uint64_t before = chunk->pages[index];
    unsigned access = wanted_access(before, rip, address);
    /* Sets the accessed and dirty bits, as the access itself will not. */
    if (soft_walk(c, address, access, MMU_USER, &w) != SOFT_NEXT || !find_tables(c, address, &t)) {
        space->refused = address;
        return DIRECT_REFUSED;
    }
    uint64_t page = for_stub(space, c, chunk, &t, index, access == ACCESS_EXEC);
    if (access == ACCESS_EXEC && page && !(page & HAS_EXEC))
        return DIRECT_NO_CODE;
    if (!page || page == before)
        return DIRECT_REFUSED;
    int rc = map_around(space, c, chunk, &t, index, page);
    if (rc == -ENOMEM) /* too many areas, or page tables: anew, once */
        rc = empty(space);
    return rc == 0 ? DIRECT_MAPPED : DIRECT_BROKEN;
}

/* What the guest's kernel has been asked for by a page fault is most likely there when the code goes on. */
static int map_refused(struct direct_space *space, struct soft_vcpu *c)
{
    uint64_t address = space->refused;
    unsigned index = (address >> 12) & (CHUNK_PAGES - 1);
    struct direct_tables t;

    space->refused = 0;
    struct direct_chunk *chunk =
        find_tables(c, address, &t) ? get_chunk(space, address >> CHUNK_SHIFT) : NULL;
    uint64_t page = chunk ? for_stub(space, c, chunk, &t, index, false) : 0;
    return page && page != chunk->pages[index] ? map_around(space, c, chunk, &t, index, page) : 0;
}

int direct_space_validate(struct direct_space *space, struct soft_vcpu *c)
{
    uint64_t code = atomic_load(&c->soft->direct_code_pages);
    bool all = space->flush != c->flushes || space->code != code;
    unsigned first = all ? 0 : space->n_flushed;
    int rc = 0;

    /* INVLPG drops all of a page of 1 GiB, which is many chunks. */
    all = all || (space->huge && c->n_flushed > first);
    space->flush = c->flushes;
    space->n_flushed = c->n_flushed;
    space->code = code;
    if (all)
        rc = validate_all(space, c);
    for (unsigned n = first; n < c->n_flushed && !all && rc == 0; n++)
        rc = validate_page(space, c, c->flushed[n]);
    if (rc == 0)
        rc = validate_copies(space, c);
    if (rc == 0 && space->refused)
        rc = map_refused(space, c);
    return rc ? rc : direct_stub_apply(&space->stub);
}
