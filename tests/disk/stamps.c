/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The stamped disk of stamps.h. */
#include "stamps.h"

#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SECTOR     512u
#define AT_ONCE    6u
#define LENGTH_MAX 400u /* sectors */

static size_t bytes_of(uint32_t n)
{
    return sizeof(struct stamps) + n * sizeof(struct stamp);
}

struct stamps *stamps_new(uint32_t n_sectors, uint64_t seed)
{
    struct stamps *s =
        mmap(NULL, bytes_of(n_sectors), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(s != MAP_FAILED);
    s->n = n_sectors;
    s->random = seed | 1;
    return s;
}

void stamps_free(struct stamps *s)
{
    munmap(s, bytes_of(s->n));
}

uint64_t stamps_random(struct stamps *s, uint64_t below)
{
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return (s->random * 0x2545f4914f6cdd1dull >> 11) % below;
}

static void stamp(uint8_t *bytes, uint32_t sector, uint32_t version)
{
    for (unsigned i = 0; i < SECTOR; i += 8) {
        put_le32(bytes + i, sector);
        put_le32(bytes + i + 4, version);
    }
}

struct range {
    uint32_t first, n;
};

static bool choose(struct stamps *s, struct range *ranges, unsigned i)
{
    struct range r = {.first = (uint32_t)stamps_random(s, s->n),
                      .n = 1 + (uint32_t)stamps_random(s, stamps_random(s, 2) ? 16 : LENGTH_MAX)};

    if (stamps_random(s, 3) == 0) {
        r.first &= ~127u;
        r.n = (r.n + 127) & ~127u;
    }
    if (r.n > s->n - r.first)
        r.n = s->n - r.first;
    for (unsigned k = 0; k < i; k++)
        if (r.first < ranges[k].first + ranges[k].n && ranges[k].first < r.first + r.n)
            return false;
    ranges[i] = r;
    return true;
}

/* Records it first: the process may end at any time from here on. */
static void record(struct stamps *s, struct range r, enum disk_request_kind kind, uint8_t *bytes)
{
    uint32_t version = ++s->version;

    for (uint32_t i = 0; i < r.n; i++) {
        struct stamp *sector = &s->sectors[r.first + i];
        sector->issued = version;
        if (kind == DISK_WRITE_ZEROES)
            sector->zeroed = version;
        else if (kind == DISK_DISCARD)
            sector->discarded = version;
        else
            stamp(bytes + i * SECTOR, r.first + i, version);
    }
}

void stamps_batch(struct stamps *s, struct image *image, bool flush)
{
    static uint8_t bytes[AT_ONCE][(LENGTH_MAX + 128) * SECTOR];
    static struct image_request requests[AT_ONCE + 1];
    struct range ranges[AT_ONCE];
    unsigned n = 0, wanted = 1 + (unsigned)stamps_random(s, AT_ONCE);

    for (unsigned tries = 0; n < wanted && tries < 3 * AT_ONCE; tries++) {
        static const enum disk_request_kind kinds[] = {DISK_WRITE, DISK_WRITE,        DISK_WRITE,
                                                       DISK_WRITE, DISK_WRITE_ZEROES, DISK_DISCARD};
        if (!choose(s, ranges, n))
            continue;
        enum disk_request_kind kind = kinds[stamps_random(s, 6)];
        record(s, ranges[n], kind, bytes[n]);
        image_submit(image, &requests[n], kind, (uint64_t)ranges[n].first * SECTOR,
                     kind == DISK_WRITE ? bytes[n] : NULL, (uint64_t)ranges[n].n * SECTOR,
                     stamps_random(s, 2));
        n++;
    }
    /* Flushes among requests, too: those that are not done yet may stay or not. */
    if (stamps_random(s, 4) == 0)
        image_submit(image, &requests[AT_ONCE], DISK_FLUSH, 0, NULL, 0, false);
    image_wait(image);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(requests[i].result, 0);
    if (!flush)
        return;
    assert_int_equal(image_flush(image), 0);
    for (uint32_t i = 0; i < s->n; i++)
        s->sectors[i].flushed = s->sectors[i].issued;
}

static bool is_zero(const uint8_t *p)
{
    return !p[0] && memcmp(p, p + 1, SECTOR - 1) == 0;
}

/* The version of a sector's content; 0 for zeros. */
static uint32_t version_of(const uint8_t *p, uint32_t sector)
{
    uint8_t expected[SECTOR];

    if (is_zero(p))
        return 0;
    stamp(expected, sector, get_le32(p + 4));
    if (memcmp(p, expected, SECTOR) != 0)
        fail_msg("sector %u: %02x%02x%02x%02x is what was never written there", sector, p[0], p[1], p[2],
                 p[3]);
    return get_le32(p + 4);
}

static void check_sector(const struct stamp *s, uint32_t sector, uint32_t version)
{
    bool loose = s->discarded && s->discarded >= s->flushed;
    bool fits = version ? (version >= s->flushed || loose) && version <= s->issued
                        : !s->flushed || (s->zeroed && s->zeroed >= s->flushed) || loose;

    if (!fits)
        fail_msg("sector %u: version %u, but %u was flushed and %u the last (zeroed %u, discarded %u)",
                 sector, version, s->flushed, s->issued, s->zeroed, s->discarded);
}

void stamps_check(struct stamps *s, struct image *image)
{
    static uint8_t bytes[1 << 20];

    for (uint32_t at = 0; at < s->n; at += sizeof(bytes) / SECTOR) {
        uint32_t n = s->n - at < sizeof(bytes) / SECTOR ? s->n - at : (uint32_t)(sizeof(bytes) / SECTOR);
        assert_int_equal(image_read(image, (uint64_t)at * SECTOR, bytes, (uint64_t)n * SECTOR), 0);
        for (uint32_t i = 0; i < n; i++) {
            struct stamp *sector = &s->sectors[at + i];
            uint32_t version = version_of(bytes + i * SECTOR, at + i);
            check_sector(sector, at + i, version);
            /* What is there now stays there. */
            *sector = (struct stamp){.issued = version, .flushed = version};
        }
    }
}
