/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The block device under a guest that does anything. Its requests are served by a thread of its own, as
 * always; each notification is waited for, so that an input does the same each time. Whatever happened, it
 * works after a reset, and after one the guest's memory is left alone.
 */
#include "base/bytes.h"
#include "device/devices.h"
#include "device/virtio/block.h"
#include "disk/disk.h"
#include "fuzz_virtio.h"
#include "host/loop.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DISK_BYTES (64u << 10)

/* The device's thread has nothing to do for a moment. */
static void settle(struct fuzz_guest *g)
{
    fixture_run_loop(&g->f);
    usleep(100);
}

/* A request that is one, but for what the input makes of its fields. */
static void special(struct fuzz_guest *g, struct fuzz_input *in)
{
    struct driver_queue *q = &g->queues[0];
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    uint32_t len = (1 + (uint32_t)fuzz_take(in, 1) % 8) * 512;
    bool to_guest = what & 0x10;
    const struct piece pieces[] = {{DRIVER_BUFFERS, 16, false},
                                   {DRIVER_BUFFERS + 0x1000, what & 0x20 ? (len / 512) * 16 : len, to_guest},
                                   {DRIVER_BUFFERS + 0x800, 1, true}};

    if (!q->size || q->size > 128)
        return;
    put_le32(driver_ram(&g->f, DRIVER_BUFFERS, 4), what & 0xf);
    put_le64(driver_ram(&g->f, DRIVER_BUFFERS + 8, 8), fuzz_take(in, what & 0x80 ? 8 : 1));
    for (unsigned i = 0; what & 0x20 && i < len / 512; i++) {
        uint8_t *range = driver_ram(&g->f, DRIVER_BUFFERS + 0x1000 + 16 * i, 16);
        put_le64(range, fuzz_take(in, 1));
        put_le32(range + 8, (uint32_t)fuzz_take(in, 1));
        put_le32(range + 12, (uint32_t)fuzz_take(in, 1) & 3);
    }
    driver_add(q, pieces, 3, what & 0x40);
    io_space_write(g->f.env.mmio, q->doorbell, 2, 0);
    settle(g);
}

static void wait_used(struct fuzz_guest *g, uint32_t expected)
{
    uint32_t id, len;

    for (unsigned i = 0; !driver_used(&g->queues[0], &id, &len); i++) {
        fuzz_expect(i < 200000, "an answer after a reset");
        usleep(50);
    }
    fuzz_expect(len == expected, "the answer's length");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_guest g;
    struct fuzz_input in = {data, size};
    struct disk_files *files;
    bool read_only = fuzz_take(&in, 1) & 1;
    struct disk_file file = {.name = (char *)"image", .format = (char *)"raw"};

    file.fd = memfd_create("image", MFD_CLOEXEC);
    fuzz_expect(file.fd >= 0 && ftruncate(file.fd, DISK_BYTES) == 0, "a file");
    fuzz_expect(disk_files_new(&files, &file, 1, read_only, NULL) == 0, "the file can be used");
    disk_files_avoid_uring(files);
    g = (struct fuzz_guest){.type = VIRTIO_TYPE_BLOCK, .n_queues = 1, .special = special};
    fixture_init(&g.f);
    const struct virtio_block_config config = {.files = files, .serial = "fuzz"};
    const struct device_class *class = device_class_find("virtio-block");
    fuzz_expect(class && class->create(&g.device, &g.f.env, &config, NULL) == 0, "the device can be made");
    fuzz_expect(driver_find(&g.d, &g.f, g.type), "the device can be found");
    fuzz_virtio_actions(&g, &in);

    g.device->class->reset(g.device);
    uint8_t *ram = driver_ram(&g.f, DRIVER_BUFFERS, 0x10000);
    memset(ram, 0x5a, 0x10000);
    usleep(100);
    for (unsigned i = 0; i < 0x10000; i++)
        fuzz_expect(ram[i] == 0x5a, "memory is left alone after a reset");
    fuzz_virtio_restart(&g, RINGS_PACKED | RINGS_ALL);
    const struct piece read[] = {
        {DRIVER_BUFFERS, 16, false}, {DRIVER_BUFFERS + 0x1000, 512, true}, {DRIVER_BUFFERS + 0x800, 1, true}};
    memset(driver_ram(&g.f, DRIVER_BUFFERS, 16), 0, 16);
    driver_add(&g.queues[0], read, 3, false);
    io_space_write(g.f.env.mmio, g.queues[0].doorbell, 2, 0);
    wait_used(&g, 513);
    fuzz_expect(*driver_ram(&g.f, DRIVER_BUFFERS + 0x800, 1) == 0, "reading works after a reset");
    class->destroy(g.device);
    disk_files_close(files);
    fixture_fini(&g.f);
    return 0;
}
