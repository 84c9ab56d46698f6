/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest of the virtio fuzz targets. Each action is a byte and its arguments. Some act as a good driver
 * would, so that the bad ones reach a device that runs.
 */
#include "fuzz_virtio.h"

#include "base/bytes.h"
#include "device/msix.h"

#include <stdio.h>
#include <stdlib.h>

void fuzz_expect(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

static const uint64_t feature_sets[] = {
    RINGS_SPLIT,
    RINGS_PACKED,
    RINGS_SPLIT | RINGS_ALL,
    RINGS_PACKED | RINGS_ALL,
};

/* Buffers, the edges of RAM, the rings themselves, registers, or anything. */
static uint64_t any_address(struct fuzz_guest *g, struct fuzz_input *in)
{
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    switch (how % 8) {
    case 0:
        return fuzz_take(in, 8);
    case 1:
        return FIXTURE_RAM - how / 8;
    case 2:
        return DRIVER_RINGS + fuzz_take(in, 2);
    case 3:
        return PCI_ECAM_BASE + fuzz_take(in, 2);
    case 4:
        return g->queues[0].indirect + how / 8 * 128ull;
    default:
        return DRIVER_BUFFERS + fuzz_take(in, 2);
    }
}

static uint32_t any_length(struct fuzz_input *in)
{
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    return how < 128 ? how : how < 192 ? (how - 128u) * 16 : (uint32_t)fuzz_take(in, 4);
}

static struct driver_queue *any_queue(struct fuzz_guest *g, struct fuzz_input *in)
{
    return &g->queues[fuzz_take(in, 1) % g->n_queues];
}

static void act_register(struct fuzz_guest *g, struct fuzz_input *in)
{
    uint8_t where = (uint8_t)fuzz_take(in, 1), how = (uint8_t)fuzz_take(in, 1);
    uint64_t at = fixture_bar(&g->f, g->d.devfn, how & 0x80 ? 2 : 0) + (how >> 2 & 3) * 0x1000ull + where;
    unsigned size = 1u << (how & 3);
    if (how & 0x40)
        io_space_read(g->f.env.mmio, at, size);
    else
        io_space_write(g->f.env.mmio, at, size, how & 0x20 ? any_address(g, in) : fuzz_take(in, size));
}

static void act_config_space(struct fuzz_guest *g, struct fuzz_input *in)
{
    uint8_t where = (uint8_t)fuzz_take(in, 1), how = (uint8_t)fuzz_take(in, 1);
    unsigned size = 1u << (how & 3);
    if (how & 0x80)
        fixture_config_read(&g->f, g->d.devfn, where, size);
    else
        fixture_config_write(&g->f, g->d.devfn, where, size, fuzz_take(in, size));
}

static void act_start(struct fuzz_guest *g, struct fuzz_input *in)
{
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    unsigned size = 1u << (how >> 2 & 7);
    uint64_t features = feature_sets[how & 3];
    if (how & 0x20)
        features |= g->features & fuzz_take(in, 8);
    if (!driver_negotiate(&g->d, features))
        return;
    for (unsigned i = 0; i < g->n_queues; i++)
        driver_queue_init(&g->queues[i], &g->d, i, how & 0x40 ? size + 1 : size);
    if (!(how & 0x80))
        driver_ready(&g->d);
}

/* A descriptor of the ring or of an indirect table, as it comes. */
static void act_descriptor(struct fuzz_guest *g, struct fuzz_input *in)
{
    struct driver_queue *q = any_queue(g, in);
    uint8_t where = (uint8_t)fuzz_take(in, 1);
    uint64_t table = where & 0x80 ? q->indirect : q->desc;
    uint64_t gpa = any_address(g, in);
    uint32_t len = any_length(in);
    uint16_t a = (uint16_t)fuzz_take(in, 1), b = (uint16_t)fuzz_take(in, 1);
    if (table)
        /* Flags are at 12 in one format and at 14 in the other; their upper bits count in the latter. */
        driver_descriptor(&g->f, table, where & 0x7f, gpa, len, a, (uint16_t)(b << 8 | (b & 0x80) | (a & 7)));
}

/* A field of the areas that are no descriptors: indexes, ring entries, flags, event positions. */
static void act_ring_field(struct fuzz_guest *g, struct fuzz_input *in)
{
    struct driver_queue *q = any_queue(g, in);
    uint8_t where = (uint8_t)fuzz_take(in, 1);
    uint16_t value = (uint16_t)fuzz_take(in, 2);
    if (q->size)
        put_le16(driver_ram(&g->f, (where & 0x80 ? q->device : q->driver) + 2ull * (where & 0x7f), 2), value);
}

/* A buffer by the rules, but for its addresses and the order of its pieces. */
static void act_add(struct fuzz_guest *g, struct fuzz_input *in)
{
    struct driver_queue *q = any_queue(g, in);
    uint8_t how = (uint8_t)fuzz_take(in, 1);
    struct piece pieces[4];
    unsigned n = 1 + (how & 3);
    for (unsigned i = 0; i < n; i++)
        pieces[i] = (struct piece){.gpa = how & 0x80 ? any_address(g, in) : DRIVER_BUFFERS + 0x100ull * i,
                                   .len = any_length(in),
                                   .writable = how >> (2 + i) & 1};
    if (q->size && q->size <= 128)
        driver_add(q, pieces, n, how & 0x40);
}

static void act_notify(struct fuzz_guest *g, struct fuzz_input *in)
{
    struct driver_queue *q = any_queue(g, in);
    if (q->doorbell)
        io_space_write(g->f.env.mmio, q->doorbell, 2, q->index);
    fixture_run_loop(&g->f);
}

void fuzz_virtio_actions(struct fuzz_guest *g, struct fuzz_input *in)
{
    while (in->left) {
        switch (fuzz_take(in, 1) % 12) {
        case 0:
            act_register(g, in);
            break;
        case 1:
            act_config_space(g, in);
            break;
        case 2:
            act_start(g, in);
            break;
        case 3:
            act_descriptor(g, in);
            break;
        case 4:
            act_ring_field(g, in);
            break;
        case 5:
            act_add(g, in);
            break;
        case 6:
        case 7:
            act_notify(g, in);
            break;
        case 8:
            g->special(g, in);
            break;
        case 9:
            fixture_msix_vector(&g->f, g->d.devfn, (unsigned)fuzz_take(in, 1) % 8, 0x40);
            break;
        case 10:
            fixture_msix_control(&g->f, g->d.devfn, (uint16_t)(fuzz_take(in, 1) << 8));
            break;
        case 11:
            g->device->class->reset(g->device);
            break;
        }
    }
}

void fuzz_virtio_restart(struct fuzz_guest *g, uint64_t features)
{
    g->device->class->reset(g->device);
    /* Identity is read-only, so the device is found as it was at first. */
    fuzz_expect(driver_find(&g->d, &g->f, g->type), "found after a reset");
    fuzz_expect(driver_start(&g->d, features, g->queues, g->n_queues, 16), "starts after a reset");
}

void fuzz_virtio_exchange(struct fuzz_guest *g, struct char_backend *backend, unsigned in, unsigned out,
                          const void *last)
{
    const struct piece in_piece = {DRIVER_BUFFERS, 16, true}, out_piece = {DRIVER_BUFFERS + 0x100, 2, false};
    uint32_t id, len;

    memcpy(driver_ram(&g->f, DRIVER_BUFFERS + 0x100, 2), "ok", 2);
    driver_add(&g->queues[out], &out_piece, 1, false);
    driver_kick(&g->queues[out]);
    fuzz_expect(driver_used(&g->queues[out], &id, &len) && !memcmp(last, "ok", 2), "output after a reset");
    driver_add(&g->queues[in], &in_piece, 1, false);
    driver_kick(&g->queues[in]);
    fuzz_expect(backend->input(backend->device, (const uint8_t *)"ls", 2) == 2, "input after a reset");
    fuzz_expect(driver_used(&g->queues[in], &id, &len) && len == 2, "input arrives after a reset");
}
