/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/io_space.c: lookup, overlap, doorbells, and readers racing with a writer. */
#include "device/io_space.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

struct probe {
    struct io_region region;
    unsigned reads, writes;
    uint64_t offset, value;
    unsigned size;
};

static uint64_t probe_read(void *opaque, uint64_t offset, unsigned size)
{
    struct probe *p = opaque;
    p->reads++;
    p->offset = offset;
    p->size = size;
    return 0x1122334455667788ull;
}

static void probe_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct probe *p = opaque;
    p->writes++;
    p->offset = offset;
    p->size = size;
    p->value = value;
}

static void probe_init(struct probe *p, uint64_t base, uint64_t size)
{
    *p = (struct probe){.region = {.name = "probe",
                                   .base = base,
                                   .size = size,
                                   .read = probe_read,
                                   .write = probe_write,
                                   .opaque = p}};
}

static void test_unclaimed(void **state)
{
    struct io_space *s = io_space_new("t");
    assert_int_equal(io_space_read(s, 0x80, 1), 0xff);
    assert_int_equal(io_space_read(s, 0x80, 2), 0xffff);
    assert_int_equal(io_space_read(s, 0x80, 4), 0xffffffff);
    assert_true(io_space_read(s, 0x80, 8) == UINT64_MAX);
    io_space_write(s, 0x80, 4, 1);
    io_space_free(s);
    io_space_free(NULL);
}

static void test_dispatch(void **state)
{
    struct io_space *s = io_space_new("t");
    struct probe a, b;
    probe_init(&a, 0x100, 0x10);
    probe_init(&b, 0x110, 0x10);
    assert_int_equal(io_space_add(s, &b.region), 0);
    assert_int_equal(io_space_add(s, &a.region), 0);

    assert_int_equal(io_space_read(s, 0x104, 2), 0x7788);
    assert_int_equal(a.offset, 4);
    assert_int_equal(a.size, 2);
    assert_int_equal(b.reads, 0);

    io_space_write(s, 0x11f, 1, 0xabcd);
    assert_int_equal(b.writes, 1);
    assert_int_equal(b.offset, 15);
    assert_int_equal(b.value, 0xcd);

    /* Across the end of a region, even into another one: nobody's. */
    assert_int_equal(io_space_read(s, 0x10e, 4), 0xffffffff);
    io_space_write(s, 0x11d, 4, 0);
    assert_int_equal(io_space_read(s, 0xff, 1), 0xff);
    assert_int_equal(io_space_read(s, 0x120, 1), 0xff);
    assert_int_equal(a.reads, 1);
    assert_int_equal(b.writes, 1);

    io_space_remove(s, &a.region);
    assert_int_equal(io_space_read(s, 0x104, 1), 0xff);
    a.region.base = 0x200;
    assert_int_equal(io_space_add(s, &a.region), 0);
    assert_int_equal(io_space_read(s, 0x208, 1), 0x88);
    assert_int_equal(a.offset, 8);
    io_space_free(s);
}

static void test_overlap(void **state)
{
    struct io_space *s = io_space_new("t");
    struct probe a, b;
    probe_init(&a, 0x100, 0x10);
    assert_int_equal(io_space_add(s, &a.region), 0);
    static const struct {
        uint64_t base, size;
        int rc;
    } rows[] = {
        {0x100, 0x10, -EBUSY},
        {0xf8, 9, -EBUSY},
        {0x10f, 1, -EBUSY},
        {0x80, 0x1000, -EBUSY},
        {0x108, 1, -EBUSY},
        {0xf8, 8, 0},
        {0x110, 1, 0},
        {0x500, 0, -EINVAL},
        {UINT64_MAX, 1, 0},
        {UINT64_MAX, 2, -EINVAL},
        {0x1000, UINT64_MAX, -EINVAL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        probe_init(&b, rows[i].base, rows[i].size);
        assert_int_equal(io_space_add(s, &b.region), rows[i].rc);
        if (!rows[i].rc)
            assert_int_equal(io_space_read(s, rows[i].base, 1), 0x88);
        io_space_remove(s, &b.region);
    }
    io_space_free(s);
}

static void test_many(void **state)
{
    enum { N = 500 };
    struct io_space *s = io_space_new("t");
    struct probe *p = calloc(N, sizeof(*p));
    for (unsigned i = 0; i < N; i++) {
        unsigned k = (i * 7919) % N; /* 7919 is prime: each once, out of order */
        probe_init(&p[k], k * 0x1000ull, 0x800);
        assert_int_equal(io_space_add(s, &p[k].region), 0);
    }
    for (unsigned i = 0; i < N; i++) {
        io_space_write(s, i * 0x1000ull + 0x7f8, 8, i);
        assert_int_equal(p[i].writes, 1);
        assert_int_equal(p[i].value, i);
        io_space_write(s, i * 0x1000ull + 0x800, 8, i);
    }
    for (unsigned i = 0; i < N; i += 2)
        io_space_remove(s, &p[i].region);
    for (unsigned i = 0; i < N; i++) {
        io_space_read(s, i * 0x1000ull, 4);
        assert_int_equal(p[i].reads, i % 2);
        assert_int_equal(p[i].writes, 1);
    }
    io_space_free(s);
    free(p);
}

struct bells_seen {
    unsigned added, removed;
    struct io_doorbell last;
};

static void bell_added(void *opaque, struct io_space *space, const struct io_doorbell *bell)
{
    struct bells_seen *seen = opaque;
    seen->added++;
    seen->last = *bell;
}

static void bell_removed(void *opaque, struct io_space *space, const struct io_doorbell *bell)
{
    struct bells_seen *seen = opaque;
    seen->removed++;
    seen->last = *bell;
}

static uint64_t signalled(int fd)
{
    uint64_t n = 0;
    return read(fd, &n, sizeof(n)) == (ssize_t)sizeof(n) ? n : 0;
}

static void test_doorbells(void **state)
{
    struct io_space *s = io_space_new("t");
    struct probe a;
    probe_init(&a, 0x1000, 0x100);
    assert_int_equal(io_space_add(s, &a.region), 0);
    int fd[3];
    for (int i = 0; i < 3; i++)
        fd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct io_doorbell any = {.addr = 0x1010, .fd = fd[0]};
    struct io_doorbell one = {.addr = 0x1020, .size = 2, .match = true, .value = 1, .fd = fd[1]};
    struct io_doorbell two = {.addr = 0x1020, .size = 2, .match = true, .value = 2, .fd = fd[2]};
    struct bells_seen seen = {0};
    struct io_space_listener listener = {bell_added, bell_removed, &seen};

    assert_int_equal(io_space_add_doorbell(s, &two), 0);
    io_space_set_listener(s, &listener);
    assert_int_equal(seen.added, 1);
    assert_int_equal(io_space_add_doorbell(s, &any), 0);
    assert_int_equal(io_space_add_doorbell(s, &one), 0);
    assert_int_equal(io_space_add_doorbell(s, &one), -EEXIST);
    assert_int_equal(seen.added, 3);

    io_space_write(s, 0x1010, 1, 99);
    io_space_write(s, 0x1010, 8, 98);
    assert_int_equal(signalled(fd[0]), 2);
    io_space_write(s, 0x1020, 2, 1);
    io_space_write(s, 0x1020, 2, 0x10002); /* what is above the size does not count */
    assert_int_equal(signalled(fd[1]), 1);
    assert_int_equal(signalled(fd[2]), 1);
    assert_int_equal(a.writes, 0);
    io_space_write(s, 0x1020, 4, 1); /* other size */
    io_space_write(s, 0x1020, 2, 3); /* other value */
    io_space_write(s, 0x1021, 2, 1); /* other address */
    assert_int_equal(a.writes, 3);
    io_space_read(s, 0x1010, 1);
    assert_int_equal(a.reads, 1);

    io_space_remove_doorbell(s, &one);
    assert_int_equal(seen.removed, 1);
    assert_int_equal(seen.last.value, 1);
    io_space_write(s, 0x1020, 2, 1);
    assert_int_equal(a.writes, 4);
    assert_int_equal(signalled(fd[1]), 0);
    io_space_set_listener(s, NULL);
    io_space_remove_doorbell(s, &two);
    assert_int_equal(seen.removed, 1);
    for (int i = 0; i < 3; i++)
        close(fd[i]);
    io_space_free(s);
}

static void test_many_doorbells(void **state)
{
    enum { N = 100 };
    struct io_space *s = io_space_new("t");
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(io_space_add_doorbell(s, &(struct io_doorbell){.addr = (i * 37) % N * 4, .fd = fd}),
                         0);
    for (unsigned i = 0; i < N; i++) {
        io_space_write(s, i * 4 + 1, 1, 0);
        assert_int_equal(signalled(fd), 0);
        io_space_write(s, i * 4, 1, 0);
        assert_int_equal(signalled(fd), 1);
    }
    close(fd);
    io_space_free(s);
}

/* Readers while regions come, go and move: each lookup must see a fixed region always, and a moving one
 * only with an offset inside it. */
struct race {
    struct io_space *space;
    _Atomic bool stop;
    _Atomic unsigned bad, hits;
};

static uint64_t race_read(void *opaque, uint64_t offset, unsigned size)
{
    struct race *r = opaque;
    if (offset + size > 0x100)
        atomic_fetch_add(&r->bad, 1);
    atomic_fetch_add(&r->hits, 1);
    return offset;
}

static void *race_reader(void *opaque)
{
    struct race *r = opaque;
    for (uint64_t i = 0; !atomic_load(&r->stop); i++) {
        if (io_space_read(r->space, 0x100000 + (i & 0xff), 1) != (i & 0xff))
            atomic_fetch_add(&r->bad, 1);
        io_space_read(r->space, (i * 8) & 0xffff, 8);
    }
    return NULL;
}

static void test_race(void **state)
{
    enum { MOVERS = 60 };
    struct race race = {.space = io_space_new("t")};
    struct io_region fixed = {.base = 0x100000, .size = 0x100, .read = race_read, .opaque = &race};
    assert_int_equal(io_space_add(race.space, &fixed), 0);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, race_reader, &race), 0);
    struct io_region *mover = calloc(MOVERS, sizeof(*mover));
    for (unsigned round = 0; round < 400; round++) {
        for (unsigned i = 0; i < MOVERS; i++) {
            mover[i] = (struct io_region){
                .base = i * 0x400 + (round % 3) * 0x100, .size = 0x100, .read = race_read, .opaque = &race};
            assert_int_equal(io_space_add(race.space, &mover[i]), 0);
        }
        for (unsigned i = 0; i < MOVERS; i++)
            io_space_remove(race.space, &mover[i]);
    }
    /* On a busy machine the readers may not have run yet. */
    for (unsigned i = 0; i < 2000 && atomic_load(&race.hits) < 1000; i++)
        usleep(1000);
    atomic_store(&race.stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&race.bad), 0);
    assert_true(atomic_load(&race.hits) >= 1000);
    io_space_free(race.space);
    free(mover);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unclaimed), cmocka_unit_test(test_dispatch),
        cmocka_unit_test(test_overlap),   cmocka_unit_test(test_many),
        cmocka_unit_test(test_doorbells), cmocka_unit_test(test_many_doorbells),
        cmocka_unit_test(test_race),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
