/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The code cache: where blocks are, by guest address and by page; linking; and what happens when guest code
 * changes. Everything is under soft->lock but running the code itself, reading page_index, and finding a
 * block: memory of blocks lives as long as a vCPU is in code, whether they are valid or not.
 *
 * A page that is about to be translated becomes a code page first; from then on every vCPU's stores to it
 * take the slow path, which calls soft_cache_written after the store. Another vCPU may still have a writable
 * TLB entry for the page: it is asked to drop it, and when it has, the page's blocks are compared with memory
 * again (soft_cache_revalidate). So a stale block lives no longer than that other vCPU's next poll.
 */
#include "engine/soft/soft_priv.h"

#include "base/bytes.h"
#include "base/error.h"
#include "engine/soft/decode_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_CODE_PAGES (64u << 10)
#define HUGE_PAGE      (2u << 20)
/* Of the bitmap of all pages. */
#define DIRECT_WORDS(s) ((s)->n_pages / 64 + 1)

static void *reserve(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void *soft_reserve_large(size_t size, int prot)
{
    size = ALIGN_UP(size, HUGE_PAGE);
    uint8_t *p = mmap(NULL, size + HUGE_PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)p & (HUGE_PAGE - 1);
    if (before)
        munmap(p, before);
    munmap(p + before + size, HUGE_PAGE - before);
    madvise(p + before, size, MADV_HUGEPAGE); /* or not, where the host has none */
    return p + before;
}

void soft_release_large(void *p, size_t size)
{
    munmap(p, ALIGN_UP(size, HUGE_PAGE));
}

int soft_cache_create(struct soft *s, unsigned cpus, struct error **err)
{
    const struct guest_memory_block *rom = guest_memory_rom(s->memory);

    s->ram_pages = s->memory->size >> 12;
    s->n_pages = s->ram_pages + (rom ? rom->size >> 12 : 0);
    s->rom_base = rom ? rom->gpa : GUEST_ROM_END;
    pthread_mutex_init(&s->lock, NULL);
    s->code_end = CODE_SIZE - COLD_SIZE - (cpus - 1) * (CODE_LESS - COLD_LESS);
    s->cold_start = s->cold_used = CODE_SIZE - COLD_SIZE;
    s->cold_end = CODE_SIZE - (cpus - 1) * COLD_LESS;
    s->meta_end = META_SIZE - (cpus - 1) * META_LESS;
    s->cache = soft_reserve_large(CODE_SIZE + META_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC);
    s->blocks = soft_reserve_large(MAX_BLOCKS * sizeof(*s->blocks), PROT_READ | PROT_WRITE);
    s->hash = soft_reserve_large(HASH_SIZE * sizeof(*s->hash), PROT_READ | PROT_WRITE);
    s->page_index = reserve(s->n_pages * sizeof(*s->page_index));
    s->direct_writable = reserve(DIRECT_WORDS(s) * sizeof(*s->direct_writable));
    s->code_pages = reserve(MAX_CODE_PAGES * sizeof(*s->code_pages));
    s->decoded = soft_decode_cache_new();
    if (!s->cache || !s->blocks || !s->decoded || !s->hash || !s->page_index || !s->direct_writable ||
        !s->code_pages) {
        int e = errno;
        soft_cache_destroy(s);
        return error_set_errno(err, e,
                               "code cache: this host does not allow memory that is writable and executable, "
                               "or has too little of it");
    }
    madvise(s->cache, CODE_SIZE + META_SIZE, MADV_DONTDUMP);
    soft_stubs_generate(s);
    s->code_used = s->code_start;
    s->n_code_pages = 1;
    return 0;
}

void soft_cache_destroy(struct soft *s)
{
    if (s->cache)
        soft_release_large(s->cache, CODE_SIZE + META_SIZE);
    if (s->blocks)
        soft_release_large(s->blocks, MAX_BLOCKS * sizeof(*s->blocks));
    if (s->hash)
        soft_release_large(s->hash, HASH_SIZE * sizeof(*s->hash));
    if (s->page_index)
        munmap(s->page_index, s->n_pages * sizeof(*s->page_index));
    soft_decode_cache_free(s->decoded);
    if (s->direct_writable)
        munmap(s->direct_writable, DIRECT_WORDS(s) * sizeof(*s->direct_writable));
    if (s->code_pages)
        munmap(s->code_pages, MAX_CODE_PAGES * sizeof(*s->code_pages));
    s->cache = NULL;
    pthread_mutex_destroy(&s->lock);
}

/* ---- pages ---- */

static struct soft_code_page *code_page(struct soft *s, uint64_t gpa)
{
    uint64_t page = soft_page_number(s, gpa);
    uint32_t i = page < s->n_pages ? s->page_index[page] : 0;
    return i ? &s->code_pages[i] : NULL;
}

bool soft_cache_mark_page_locked(struct soft *s, struct soft_vcpu *self, uint64_t gpa)
{
    uint64_t page = soft_page_number(s, gpa);
    const uint8_t *host = soft_ram_page(s, gpa);

    if (!host)
        return false;
    if (s->page_index[page])
        return true;
    uint32_t i = s->free_code_page;
    if (i) {
        s->free_code_page = s->code_pages[i].next_free;
    } else {
        if (s->n_code_pages == MAX_CODE_PAGES)
            return false; /* soft_cache_has_room_locked has made sure that it is not */
        i = s->n_code_pages++;
    }
    struct soft_code_page *p = &s->code_pages[i];
    p->gpa = gpa & ~4095ull;
    p->blocks = NULL;
    __atomic_store_n(&s->page_index[page], i, __ATOMIC_SEQ_CST);
    soft_tlb_drop_write(self, host);
    if (atomic_load(&s->direct_writable[page / 64]) >> page % 64 & 1)
        atomic_fetch_add(&s->direct_code_pages, 1);
    p->waiting = (uint8_t)(((1u << s->n_vcpus) - 1) & ~(1u << self->index));
    if (!p->waiting)
        return true;
    if (!p->unsettled) {
        p->unsettled = true;
        p->next_unsettled = s->unsettled;
        s->unsettled = i;
    }
    for (unsigned n = 0; n < s->n_vcpus; n++) {
        if (s->vcpu[n] != self)
            soft_request(s->vcpu[n], REQUEST_FLUSH_WRITE);
    }
    return true;
}

static struct soft_block **next_in_page(struct soft_block *b, uint64_t page_gpa)
{
    return &b->page_next[(b->gpa & ~4095ull) == page_gpa ? 0 : 1];
}

static void add_to_page(struct soft *s, struct soft_block *b, uint64_t gpa)
{
    struct soft_code_page *p = code_page(s, gpa);

    if (!p)
        return;
    *next_in_page(b, p->gpa) = p->blocks;
    p->blocks = b;
}

/* A page without blocks is plain memory again. */
static void remove_from_page(struct soft *s, struct soft_block *b, uint64_t gpa)
{
    struct soft_code_page *p = code_page(s, gpa);

    if (!p)
        return;
    for (struct soft_block **at = &p->blocks; *at; at = next_in_page(*at, p->gpa)) {
        if (*at == b) {
            *at = *next_in_page(b, p->gpa);
            break;
        }
    }
    if (!p->blocks) {
        uint64_t page = soft_page_number(s, gpa);
        uint32_t i = s->page_index[page];
        __atomic_store_n(&s->page_index[page], 0, __ATOMIC_SEQ_CST);
        p->next_free = s->free_code_page;
        s->free_code_page = i;
    }
}

void soft_cache_insert_locked(struct soft *s, struct soft_block *b)
{
    struct soft_block **head = &s->hash[soft_cache_hash(b->rip, b->gpa, b->key)];

    b->hash_next = *head;
    __atomic_store_n(head, b, __ATOMIC_RELEASE);
    add_to_page(s, b, b->gpa);
    if (b->gpa2 != NO_PAGE)
        add_to_page(s, b, b->gpa2);
}

bool soft_cache_has_room_locked(struct soft *s)
{
    return s->code_used + BLOCK_CODE_MAX <= s->code_end && s->cold_used + BLOCK_CODE_MAX <= s->cold_end &&
           s->meta_used + BLOCK_META_MAX <= s->meta_end && s->n_blocks + 1 < MAX_BLOCKS &&
           (s->free_code_page || s->n_code_pages + 2 < MAX_CODE_PAGES);
}

void soft_cache_flush_locked(struct soft *s)
{
    for (uint32_t i = 1; i < s->n_code_pages; i++) {
        uint64_t page = soft_page_number(s, s->code_pages[i].gpa);
        if (s->page_index[page] == i)
            s->page_index[page] = 0;
    }
    memset(s->code_pages, 0, s->n_code_pages * sizeof(*s->code_pages));
    s->n_code_pages = 1;
    s->free_code_page = s->unsettled = 0;
    s->n_blocks = 0;
    s->code_used = s->code_start;
    s->cold_used = s->cold_start;
    s->meta_used = 0;
    memset(s->hash, 0, HASH_SIZE * sizeof(*s->hash));
    for (unsigned n = 0; n < s->n_vcpus; n++) {
        for (unsigned mmu = 0; mmu < MMU_MODES; mmu++)
            soft_jump_flush(s->vcpu[n], (enum soft_mmu)mmu);
        s->vcpu[n]->exit_link = 0;
    }
    s->flushes++;
}

/* ---- links ---- */

/* The jump whose rel32 is at offset `at`. */
static void patch_jump(struct soft *s, uint32_t at, uint32_t target)
{
    int32_t rel = (int32_t)(target - (at + 4));

    __atomic_store_n((int32_t *)(s->cache + at), rel, __ATOMIC_RELEASE);
}

static void unlink_jump(struct soft *s, struct soft_link *e)
{
    patch_jump(s, e->patch, e->unlinked);
    e->to = 0;
}

void soft_cache_look_up_locked(struct soft *s, struct soft_link *e)
{
    uint32_t key = s->blocks[e->from].key;
    const uint8_t *stub =
        soft_key_moves(key) ? s->stubs.lookup_exit_moves : s->stubs.lookup_exit[soft_key_mmu(key)];

    if (e->exit.leave)
        patch_jump(s, e->unlinked + e->exit.leave, (uint32_t)(stub - s->cache));
}

void soft_cache_link_locked(struct soft *s, struct soft_link *e, struct soft_block *to)
{
    if (e->to || !to->valid || !s->blocks[e->from].valid)
        return;
    e->to = (uint32_t)(to - s->blocks) + 1;
    e->next_incoming = to->incoming;
    to->incoming = soft_link_offset(s, e);
    patch_jump(s, e->patch, to->code);
}

static void unlink_incoming(struct soft *s, struct soft_block *b)
{
    for (struct soft_link *e = soft_link_at(s, b->incoming), *next; e; e = next) {
        next = soft_link_at(s, e->next_incoming);
        unlink_jump(s, e);
        e->next_incoming = 0;
    }
    b->incoming = 0;
}

/* A vCPU may be in the block still: it must not run on into blocks that no longer know of the link. */
static void unlink_outgoing(struct soft *s, struct soft_block *b)
{
    for (struct soft_link *e = soft_link_at(s, b->exits); e; e = soft_link_at(s, e->next_outgoing)) {
        if (!e->to)
            continue;
        uint32_t *at = &s->blocks[e->to - 1].incoming;
        while (*at && *at != soft_link_offset(s, e))
            at = &soft_link_at(s, *at)->next_incoming;
        if (*at)
            *at = e->next_incoming;
        unlink_jump(s, e);
    }
}

/* Out of the jump caches, from outside their vCPUs' threads. A vCPU stores the code's address before the tag,
 * and looks whether the block is valid still after both (find_code). */
static void forget_jumps(struct soft *s, const struct soft_block *b)
{
    uint32_t i = soft_jump_index(b->rip);
    uint64_t code = (uint64_t)(uintptr_t)(s->cache + b->code);

    for (unsigned n = 0; n < s->n_vcpus; n++) {
        struct soft_vcpu *c = s->vcpu[n];
        struct soft_jump_cache *j = &c->jump[soft_key_mmu(b->key)];

        if (soft_key_moves(b->key)) { /* it may be anywhere: the vCPU's next look-up empties all of it */
            atomic_store(&c->jump_stale, true);
            __atomic_store_n(&c->pending, 1, __ATOMIC_SEQ_CST);
        } else if (__atomic_load_n(&j->at[i].code, __ATOMIC_RELAXED) == code) {
            __atomic_store_n(&j->at[i].tag, soft_jump_empty(i), __ATOMIC_RELEASE);
        }
    }
}

static void invalidate(struct soft *s, struct soft_block *b)
{
    __atomic_store_n(&b->valid, false, __ATOMIC_SEQ_CST);
    atomic_fetch_add(&s->invalidations, 1);
    unlink_incoming(s, b);
    unlink_outgoing(s, b);
    for (struct soft_block **at = &s->hash[soft_cache_hash(b->rip, b->gpa, b->key)]; *at;
         at = &(*at)->hash_next) {
        if (*at == b) {
            __atomic_store_n(at, b->hash_next, __ATOMIC_RELEASE);
            break;
        }
    }
    forget_jumps(s, b);
    uint64_t gpa = b->gpa, gpa2 = b->gpa2;
    remove_from_page(s, b, gpa);
    if (gpa2 != NO_PAGE)
        remove_from_page(s, b, gpa2);
}

/* ---- changes of guest code ---- */

static bool overlaps(const struct soft_block *b, uint64_t gpa, uint64_t len)
{
    unsigned in_page = (unsigned)(4096 - (b->gpa & 4095));
    uint64_t first = b->length < in_page ? b->length : in_page;

    if (gpa < b->gpa + first && b->gpa < gpa + len)
        return true;
    return b->gpa2 != NO_PAGE && gpa < b->gpa2 + (b->length - first) && b->gpa2 < gpa + len;
}

static void written_in_page_locked(struct soft *s, uint64_t gpa, uint64_t len)
{
    struct soft_code_page *p = code_page(s, gpa);

    if (!p)
        return;
    uint64_t page_gpa = p->gpa;
    for (struct soft_block *b = p->blocks, *next; b; b = next) {
        next = *next_in_page(b, page_gpa);
        if (overlaps(b, gpa, len))
            invalidate(s, b);
    }
}

void soft_cache_written(struct soft *s, uint64_t gpa, uint64_t len)
{
    while (len) {
        uint64_t n = 4096 - (gpa & 4095);
        if (n > len)
            n = len;
        if (soft_is_code_page(s, gpa)) {
            pthread_mutex_lock(&s->lock);
            written_in_page_locked(s, gpa, n);
            pthread_mutex_unlock(&s->lock);
        }
        gpa += n;
        len -= n;
    }
}

void soft_cache_revalidate(struct soft *s, struct soft_vcpu *c)
{
    uint8_t bit = (uint8_t)(1u << c->index);

    pthread_mutex_lock(&s->lock);
    for (uint32_t *at = &s->unsettled; *at;) {
        struct soft_code_page *p = &s->code_pages[*at];
        uint64_t page_gpa = p->gpa;

        if (p->waiting & bit)
            soft_tlb_drop_write(c, soft_ram_page(s, page_gpa)); /* before its bytes are compared */
        if ((p->waiting & bit) && s->page_index[soft_page_number(s, page_gpa)] == *at) {
            for (struct soft_block *b = p->blocks, *next; b; b = next) {
                next = *next_in_page(b, page_gpa);
                if (soft_block_hash(s, b) != b->source_hash)
                    invalidate(s, b);
            }
        }
        p->waiting &= (uint8_t)~bit;
        if (p->waiting) {
            at = &p->next_unsettled;
        } else {
            *at = p->next_unsettled;
            p->unsettled = false;
        }
    }
    pthread_mutex_unlock(&s->lock);
}

struct soft_block *soft_cache_block_at(struct soft *s, const uint8_t *host)
{
    if (host < s->cache + s->code_start || host >= s->cache + CODE_SIZE)
        return NULL;
    uint32_t at = (uint32_t)(host - s->cache);
    bool cold = at >= s->cold_start;
    struct soft_block *found = NULL;
    pthread_mutex_lock(&s->lock);
    uint32_t low = 0, high = s->n_blocks;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if ((cold ? s->blocks[mid].cold : s->blocks[mid].code) <= at)
            low = mid + 1;
        else
            high = mid;
    }
    if (low) {
        struct soft_block *b = &s->blocks[low - 1];
        if (cold ? at < b->cold + b->cold_length : at < b->code + b->code_length)
            found = b;
    }
    pthread_mutex_unlock(&s->lock);
    return found;
}

uint64_t soft_cache_guest_rip(struct soft *s, const uint8_t *host, uint64_t page)
{
    struct soft_block *b = soft_cache_block_at(s, host);
    uint64_t rip = 0;

    for (uint32_t n = 0; b && n < b->n_records && s->cache + b->records[n].host <= host; n++)
        rip = (soft_key_moves(b->key) ? page : 0) + b->rip + b->records[n].insn;
    return rip;
}
