/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The environment of one legacy device under test. */
#include "legacy_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct legacy_fixture f;

static void irq_set(void *opaque, unsigned gsi, bool level)
{
    assert_in_range(gsi, 0, 23);
    f.changes[gsi]++;
    if (level && !f.level[gsi])
        f.rises[gsi]++;
    f.level[gsi] = level;
}

static void event(void *opaque, enum machine_event what, int code)
{
    f.events++;
    f.event = what;
    f.code = code;
}

struct legacy_fixture *legacy_start(const struct device_class *class, const void *config)
{
    memset(&f, 0, sizeof(f));
    f.env = (struct device_env){
        .pio = io_space_new("pio"), .loop = fake_loop(), .irq_set = irq_set, .event = event};
    assert_non_null(f.env.pio);
    assert_int_equal(class->create(&f.device, &f.env, config, NULL), 0);
    assert_ptr_equal(f.device->class, class);
    return &f;
}

int legacy_stop(void **state)
{
    bool left = false;

    if (f.device)
        f.device->class->destroy(f.device);
    f.device = NULL;
    static uint64_t sink;
    struct io_region all = {.name = "all", .base = 0, .size = 65536, .opaque = &sink};
    if (f.env.pio)
        left = io_space_add(f.env.pio, &all) != 0;
    io_space_free(f.env.pio);
    f.env.pio = NULL;
    return left || fake_loop_timers() ? -1 : 0;
}

uint8_t in8(uint16_t port)
{
    return (uint8_t)io_space_read(f.env.pio, port, 1);
}

void out8(uint16_t port, uint8_t value)
{
    io_space_write(f.env.pio, port, 1, value);
}
