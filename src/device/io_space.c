/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of device registers, looked up on every device access of every vCPU and changed rarely (devices
 * come at start, PCI BARs move).
 *
 * Readers take no lock and write no shared memory: the sorted tables are guarded by a sequence counter, a
 * reader copies the entry it found and starts again if a writer was at work meanwhile. Writers hold `lock`.
 * A table that had to grow is kept until the space is freed (a late reader may still look at it); sizes
 * double, so all the old ones together are smaller than the present one.
 *
 * Only the signal to a doorbell's eventfd runs under a lock (`bell_lock`, shared): whoever removes a doorbell
 * may close the descriptor right after, and must not find it signalled, or another file written, later on.
 * Order: lock, then bell_lock.
 */
#include "device/io_space.h"

#include "base/cleanup.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A region's fields as they were when it was added: a reader that comes late calls the device with an offset
 * that is in range even if the owner has moved the region since. */
struct region_slot {
    _Atomic uint64_t base;
    _Atomic uint64_t last;
    uint64_t (*_Atomic read)(void *opaque, uint64_t offset, unsigned size);
    void (*_Atomic write)(void *opaque, uint64_t offset, unsigned size, uint64_t value);
    void *_Atomic opaque;
    struct io_region *region; /* identity, for writers */
};

struct region_table {
    struct region_table *older; /* replaced by this one, still readable */
    uint32_t capacity;
    struct region_slot slots[];
};

struct io_space {
    const char *name;
    _Atomic uint32_t seq; /* odd while a writer changes what readers see */
    _Atomic uint32_t n_regions;
    _Atomic(struct region_table *) table;
    _Atomic uint32_t n_bells; /* readers: only whether there is any */

    pthread_mutex_t lock;
    pthread_rwlock_t bell_lock; /* guards bells and bells_capacity */
    struct io_doorbell *bells;  /* sorted by address */
    uint32_t bells_capacity;
    struct io_space_listener listener;
};

#define FIRST_CAPACITY 32

struct io_space *io_space_new(const char *name)
{
    struct io_space *s = calloc(1, sizeof(*s));
    struct region_table *t = calloc(1, sizeof(*t) + FIRST_CAPACITY * sizeof(t->slots[0]));
    if (!s || !t) {
        free(s);
        free(t);
        return NULL;
    }
    t->capacity = FIRST_CAPACITY;
    s->name = name;
    atomic_store(&s->table, t);
    pthread_mutex_init(&s->lock, NULL);
    pthread_rwlock_init(&s->bell_lock, NULL);
    return s;
}

void io_space_free(struct io_space *s)
{
    if (!s)
        return;
    struct region_table *t = atomic_load(&s->table);
    while (t) {
        struct region_table *older = t->older;
        free(t);
        t = older;
    }
    free(s->bells);
    pthread_rwlock_destroy(&s->bell_lock);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- writers ---- */

/* All that readers see is stored with release and loaded with acquire order: then an odd count is visible
 * before any change, a change before the even count, and a reader's loads come between its two looks at it.
 */
static void write_begin(struct io_space *s)
{
    atomic_store_explicit(&s->seq, s->seq + 1, memory_order_release);
}

static void write_end(struct io_space *s)
{
    atomic_store_explicit(&s->seq, s->seq + 1, memory_order_release);
}

#define SLOT_GET(field)      atomic_load_explicit(&(field), memory_order_acquire)
#define SLOT_SET(field, val) atomic_store_explicit(&(field), (val), memory_order_release)

static void slot_copy(struct region_slot *to, const struct region_slot *from)
{
    SLOT_SET(to->base, SLOT_GET(from->base));
    SLOT_SET(to->last, SLOT_GET(from->last));
    SLOT_SET(to->read, SLOT_GET(from->read));
    SLOT_SET(to->write, SLOT_GET(from->write));
    SLOT_SET(to->opaque, SLOT_GET(from->opaque));
    to->region = from->region;
}

static void slot_set(struct region_slot *to, struct io_region *r)
{
    SLOT_SET(to->base, r->base);
    SLOT_SET(to->last, r->base + (r->size - 1));
    SLOT_SET(to->read, r->read);
    SLOT_SET(to->write, r->write);
    SLOT_SET(to->opaque, r->opaque);
    to->region = r;
}

/* A copy of the present table with twice the room, in its place. The caller holds the lock. */
static int grow_locked(struct io_space *s)
{
    struct region_table *old = atomic_load(&s->table);
    uint32_t n = atomic_load(&s->n_regions);
    uint32_t capacity = old->capacity * 2;
    struct region_table *t = calloc(1, sizeof(*t) + capacity * sizeof(t->slots[0]));
    if (!t)
        return -ENOMEM;
    t->capacity = capacity;
    t->older = old;
    for (uint32_t i = 0; i < n; i++)
        slot_copy(&t->slots[i], &old->slots[i]);
    write_begin(s);
    SLOT_SET(s->table, t);
    write_end(s);
    return 0;
}

int io_space_add(struct io_space *s, struct io_region *region)
{
    if (!region->size || region->base + (region->size - 1) < region->base)
        return -EINVAL;
    uint64_t last = region->base + (region->size - 1);
    LOCK_SCOPE(&s->lock);
    uint32_t n = atomic_load(&s->n_regions);
    struct region_table *t = atomic_load(&s->table);
    uint32_t at = 0;
    while (at < n && atomic_load(&t->slots[at].last) < region->base)
        at++;
    if (at < n && atomic_load(&t->slots[at].base) <= last)
        return -EBUSY;
    if (n == t->capacity) {
        int rc = grow_locked(s);
        if (rc)
            return rc;
        t = atomic_load(&s->table);
    }
    write_begin(s);
    for (uint32_t i = n; i > at; i--)
        slot_copy(&t->slots[i], &t->slots[i - 1]);
    slot_set(&t->slots[at], region);
    SLOT_SET(s->n_regions, n + 1);
    write_end(s);
    return 0;
}

void io_space_remove(struct io_space *s, struct io_region *region)
{
    LOCK_SCOPE(&s->lock);
    uint32_t n = atomic_load(&s->n_regions);
    struct region_table *t = atomic_load(&s->table);
    uint32_t at = 0;
    while (at < n && t->slots[at].region != region)
        at++;
    if (at == n)
        return;
    write_begin(s);
    for (uint32_t i = at; i + 1 < n; i++)
        slot_copy(&t->slots[i], &t->slots[i + 1]);
    SLOT_SET(s->n_regions, n - 1);
    write_end(s);
}

/* ---- doorbells ---- */

static bool bell_equal(const struct io_doorbell *a, const struct io_doorbell *b)
{
    return a->addr == b->addr && a->size == b->size && a->match == b->match &&
           (!a->match || a->value == b->value);
}

static bool bell_same(const struct io_doorbell *a, const struct io_doorbell *b)
{
    return bell_equal(a, b) && a->fd == b->fd;
}

/* Room for one more bell. The caller holds the lock; bell_lock is taken here. */
static int bells_reserve_locked(struct io_space *s)
{
    uint32_t n = atomic_load(&s->n_bells);
    if (n < s->bells_capacity)
        return 0;
    uint32_t capacity = s->bells_capacity ? s->bells_capacity * 2 : 16;
    struct io_doorbell *bells = calloc(capacity, sizeof(*bells));
    if (!bells)
        return -ENOMEM;
    pthread_rwlock_wrlock(&s->bell_lock);
    struct io_doorbell *old = s->bells;
    if (n)
        memcpy(bells, old, n * sizeof(*bells));
    s->bells = bells;
    s->bells_capacity = capacity;
    pthread_rwlock_unlock(&s->bell_lock);
    free(old);
    return 0;
}

int io_space_add_doorbell(struct io_space *s, const struct io_doorbell *bell)
{
    LOCK_SCOPE(&s->lock);
    uint32_t n = atomic_load(&s->n_bells);
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (bell_equal(&s->bells[i], bell))
            return -EEXIST;
        if (s->bells[i].addr <= bell->addr)
            at = i + 1;
    }
    int rc = bells_reserve_locked(s);
    if (rc)
        return rc;
    pthread_rwlock_wrlock(&s->bell_lock);
    memmove(&s->bells[at + 1], &s->bells[at], (n - at) * sizeof(*bell));
    s->bells[at] = *bell;
    atomic_store(&s->n_bells, n + 1);
    pthread_rwlock_unlock(&s->bell_lock);
    if (s->listener.doorbell_added)
        s->listener.doorbell_added(s->listener.opaque, s, bell);
    return 0;
}

void io_space_remove_doorbell(struct io_space *s, const struct io_doorbell *bell)
{
    LOCK_SCOPE(&s->lock);
    uint32_t n = atomic_load(&s->n_bells);
    uint32_t at = 0;
    while (at < n && !bell_same(&s->bells[at], bell))
        at++;
    if (at == n)
        return;
    pthread_rwlock_wrlock(&s->bell_lock);
    memmove(&s->bells[at], &s->bells[at + 1], (n - at - 1) * sizeof(*bell));
    atomic_store(&s->n_bells, n - 1);
    pthread_rwlock_unlock(&s->bell_lock);
    if (s->listener.doorbell_removed)
        s->listener.doorbell_removed(s->listener.opaque, s, bell);
}

void io_space_set_listener(struct io_space *s, const struct io_space_listener *listener)
{
    LOCK_SCOPE(&s->lock);
    s->listener = listener ? *listener : (struct io_space_listener){0};
    if (!s->listener.doorbell_added)
        return;
    for (uint32_t i = 0; i < atomic_load(&s->n_bells); i++)
        s->listener.doorbell_added(s->listener.opaque, s, &s->bells[i]);
}

/* Signals the bell that this write hits. False: there is none. */
static bool ring(struct io_space *s, uint64_t addr, unsigned size, uint64_t value)
{
    bool hit = false;
    pthread_rwlock_rdlock(&s->bell_lock);
    uint32_t low = 0, high = atomic_load_explicit(&s->n_bells, memory_order_relaxed);
    uint32_t n = high;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (s->bells[mid].addr < addr)
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < n && s->bells[low].addr == addr; low++) {
        const struct io_doorbell *b = &s->bells[low];
        if ((b->size && b->size != size) || (b->match && b->value != value))
            continue;
        /* A counter that is about to overflow (EAGAIN) is signalled already. */
        ssize_t done = write(b->fd, &(uint64_t){1}, sizeof(uint64_t));
        (void)done;
        hit = true;
        break;
    }
    pthread_rwlock_unlock(&s->bell_lock);
    return hit;
}

/* ---- readers ---- */

struct found {
    uint64_t offset;
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, unsigned size, uint64_t value);
    void *opaque;
};

/* Searches what may be changing under it: bounded by the capacity of the table in hand whatever it reads. */
static bool search(const struct region_table *t, uint32_t n, uint64_t addr, unsigned size, struct found *f)
{
    if (n > t->capacity)
        return false;
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (SLOT_GET(t->slots[mid].last) < addr)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == n)
        return false;
    const struct region_slot *slot = &t->slots[low];
    uint64_t base = SLOT_GET(slot->base);
    uint64_t last = SLOT_GET(slot->last);
    if (addr < base || last - addr < size - 1)
        return false;
    f->offset = addr - base;
    f->read = SLOT_GET(slot->read);
    f->write = SLOT_GET(slot->write);
    f->opaque = SLOT_GET(slot->opaque);
    return true;
}

static bool lookup(struct io_space *s, uint64_t addr, unsigned size, struct found *f)
{
    for (;;) {
        uint32_t seq = atomic_load_explicit(&s->seq, memory_order_acquire);
        if (!(seq & 1)) {
            const struct region_table *t = atomic_load_explicit(&s->table, memory_order_acquire);
            uint32_t n = SLOT_GET(s->n_regions);
            bool hit = search(t, n, addr, size, f);
            if (atomic_load_explicit(&s->seq, memory_order_relaxed) == seq)
                return hit;
        }
        __builtin_ia32_pause();
    }
}

static inline uint64_t size_mask(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << (size * 8)) - 1;
}

uint64_t io_space_read(struct io_space *s, uint64_t addr, unsigned size)
{
    struct found f;
    if (!lookup(s, addr, size, &f) || !f.read)
        return size_mask(size);
    return f.read(f.opaque, f.offset, size) & size_mask(size);
}

void io_space_write(struct io_space *s, uint64_t addr, unsigned size, uint64_t value)
{
    value &= size_mask(size);
    if (atomic_load_explicit(&s->n_bells, memory_order_relaxed) && ring(s, addr, size, value))
        return;
    struct found f;
    if (lookup(s, addr, size, &f) && f.write)
        f.write(f.opaque, f.offset, size, value);
}
