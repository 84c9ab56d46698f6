/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For devices of the ISA age, whose registers are one byte wide: a wider access is done as the bus did it, as
 * byte accesses to consecutive addresses, the lowest first. No state, no locks.
 */
#ifndef TABIQUE_DEVICE_IO_BYTES_H
#define TABIQUE_DEVICE_IO_BYTES_H

#include <stdint.h>

static inline uint64_t io_read_bytes(uint8_t (*read)(void *opaque, unsigned offset), void *opaque,
                                     uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read(opaque, (unsigned)offset + i) << (8 * i);
    return value;
}

static inline void io_write_bytes(void (*write)(void *opaque, unsigned offset, uint8_t value), void *opaque,
                                  uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++)
        write(opaque, (unsigned)offset + i, (uint8_t)(value >> (8 * i)));
}

#endif
