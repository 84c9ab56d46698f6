/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The balloon under a guest that puts anything into it, and a monitor that changes its mind. Whatever
 * happened, after a reset it takes pages and statistics; and never a byte goes back that is not RAM.
 */
#include "base/bytes.h"
#include "device/devices.h"
#include "device/virtio/balloon.h"
#include "fuzz_virtio.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Beside RAM, and not the guest's. */
#define ROM_SIZE 4096u

static void special(struct fuzz_guest *g, struct fuzz_input *in)
{
    struct virtio_balloon_report report;
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    uint8_t *at = driver_ram(&g->f, DRIVER_BUFFERS + (what >> 2) * 4ull, 12);

    switch (what & 3) {
    case 0:
        virtio_balloon_set_target(g->device, fuzz_take(in, 8));
        break;
    case 1:
        virtio_balloon_ask(g->device);
        break;
    case 2: /* page numbers, or statistics */
        put_le32(at, (uint32_t)fuzz_take(in, 2));
        put_le64(at + 4, fuzz_take(in, 8));
        break;
    default:
        virtio_balloon_report(g->device, &report);
        fuzz_expect(report.target <= FIXTURE_RAM, "a target within RAM");
        fuzz_expect(report.valid < 1u << BALLOON_STATS, "statistics that exist");
    }
}

static void check_works(struct fuzz_guest *g)
{
    const struct piece list = {DRIVER_BUFFERS, 4, false}, stats = {DRIVER_BUFFERS + 0x100, 10, false};
    struct virtio_balloon_report report;
    uint32_t id, len;
    uint8_t *page = driver_ram(&g->f, 0x300000, 1);

    fuzz_virtio_restart(g, RINGS_SPLIT | VIRTIO_FEATURE(1) | VIRTIO_FEATURE(5));
    *page = 1;
    put_le32(driver_ram(&g->f, DRIVER_BUFFERS, 4), 0x300);
    driver_add(&g->queues[0], &list, 1, false);
    driver_kick(&g->queues[0]);
    fuzz_expect(driver_used(&g->queues[0], &id, &len) && !*page, "a page goes back after a reset");
    put_le16(driver_ram(&g->f, DRIVER_BUFFERS + 0x100, 2), BALLOON_FREE);
    put_le64(driver_ram(&g->f, DRIVER_BUFFERS + 0x102, 8), 12345);
    driver_add(&g->queues[2], &stats, 1, false);
    driver_kick(&g->queues[2]);
    virtio_balloon_report(g->device, &report);
    fuzz_expect(report.serial == 1 && report.stats[BALLOON_FREE] == 12345, "statistics after a reset");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_guest g;
    struct fuzz_input in = {data, size};

    g = (struct fuzz_guest){.type = VIRTIO_TYPE_BALLOON, .n_queues = 5, .special = special};
    fixture_init(&g.f);
    fuzz_expect(guest_memory_add_rom(g.f.env.memory, ROM_SIZE, NULL) == 0, "a ROM");
    uint8_t *rom = guest_memory_rom(g.f.env.memory)->host;
    *rom = 0xaa;
    const struct device_class *class = device_class_find("virtio-balloon");
    fuzz_expect(class && class->create(&g.device, &g.f.env, NULL, NULL) == 0, "the device can be made");
    fuzz_expect(driver_find(&g.d, &g.f, g.type), "the device can be found");
    fuzz_virtio_actions(&g, &in);
    check_works(&g);
    fuzz_expect(*rom == 0xaa, "the ROM is as it was");
    class->destroy(g.device);
    fixture_fini(&g.f);
    return 0;
}
