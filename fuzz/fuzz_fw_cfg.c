/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The firmware configuration device under a guest that reads and writes its ports at any width and has it
 * transfer anything to anywhere, while the machine's contents change as after a reset.
 *
 * Promised whatever the guest does: nothing is read or written out of bounds; only RAM is written, and the
 * engine is told; what an item holds stays as it is; a reset gives a device that answers.
 */
#include "device/fw_cfg.h"

#include "base/bytes.h"
#include "fuzz_input.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM       (1u << 20)
#define MAX_STEPS 200u
#define FILE_SIZE 300u

static struct {
    struct device_env env;
    struct device *device;
} m;

static void expect(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

static void written(void *opaque, uint64_t gpa, uint64_t len)
{
    expect(guest_memory_at(m.env.memory, gpa, len) != NULL, "writes go to RAM");
}

static void fill(void)
{
    uint8_t bytes[FILE_SIZE];

    for (unsigned i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)i;
    fw_cfg_clear(m.device);
    expect(fw_cfg_add_number(m.device, FW_CFG_CPUS, 2, 2, NULL) == 0 &&
               fw_cfg_add_file(m.device, "etc/empty", NULL, 0, NULL) == 0 &&
               fw_cfg_add_file(m.device, "etc/bytes", bytes, sizeof(bytes), NULL) == 0,
           "room for a few items");
}

static void start(void)
{
    m.env.pio = io_space_new("pio");
    expect(m.env.pio && guest_memory_create(&m.env.memory, RAM, NULL) == 0 &&
               fw_cfg_class.create(&m.device, &m.env, NULL, NULL) == 0,
           "memory for a machine");
    m.env.memory->written = written;
    fill();
}

static void stop(void)
{
    fw_cfg_class.destroy(m.device);
    io_space_free(m.env.pio);
    guest_memory_free(m.env.memory);
}

/* As a driver that knows its trade, but not what is good for it: a request in RAM, then its address. */
static void request(struct fuzz_input *in)
{
    uint8_t bytes[16];
    uint64_t at = fuzz_take(in, 3);

    put_be32(bytes, (uint32_t)(fuzz_take(in, 2) << 16 | fuzz_take(in, 1)));
    put_be32(bytes + 4, (uint32_t)fuzz_take(in, 3));
    put_be64(bytes + 8, fuzz_take(in, 8));
    guest_memory_write(m.env.memory, at, bytes, sizeof(bytes));
    io_space_write(m.env.pio, FW_CFG_BASE + 4, 4, 0);
    io_space_write(m.env.pio, FW_CFG_BASE + 8, 4, __builtin_bswap32((uint32_t)at));
}

static void step(struct fuzz_input *in)
{
    uint8_t what = (uint8_t)fuzz_take(in, 1);
    uint64_t port = FW_CFG_BASE - 2 + (what >> 4);
    unsigned size = 1u << (what >> 2 & 3);

    switch (what & 3) {
    case 0:
        io_space_write(m.env.pio, port, size, fuzz_take(in, size));
        break;
    case 1:
        io_space_read(m.env.pio, port, size);
        break;
    case 2:
        request(in);
        break;
    default:
        if (what & 0x10)
            fill();
        m.device->class->reset(m.device);
    }
}

static void check_contents(void)
{
    io_space_write(m.env.pio, FW_CFG_BASE, 2, 0x21);
    for (unsigned i = 0; i < FILE_SIZE; i++)
        expect(io_space_read(m.env.pio, FW_CFG_BASE + 1, 1) == (uint8_t)i, "files stay as they are");
    expect(io_space_read(m.env.pio, FW_CFG_BASE + 1, 1) == 0, "zeros behind the end");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {.bytes = data, .left = size};

    start();
    for (unsigned i = 0; i < MAX_STEPS && in.left; i++)
        step(&in);
    check_contents();
    stop();
    return 0;
}
