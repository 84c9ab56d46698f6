/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's memory: RAM, one memfd, mapped once, seen at one or two ranges of guest-physical addresses
 * (below the PCI hole and from 4 GiB up), and, where there is a firmware, the ROM that ends at 4 GiB. Pages
 * cost the host nothing until they are touched. Used by engines, devices and boot loaders.
 */
#ifndef TABIQUE_DEVICE_GUEST_MEMORY_H
#define TABIQUE_DEVICE_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

/* RAM below 4 GiB ends here at most; the rest continues at 4 GiB. */
#define GUEST_LOW_RAM_END 0xC0000000ull
#define GUEST_HIGH_RAM    0x100000000ull
#define GUEST_PAGE_SIZE   4096ull
#define GUEST_MEMORY_MIN  (1ull << 20)
#define GUEST_MEMORY_MAX  (1ull << 40)
#define GUEST_ROM_END     0x100000000ull /* the processor starts 16 bytes below it */
#define GUEST_ROM_MAX     (16ull << 20)  /* from 0xFF000000: above the local APICs */

struct guest_memory_block {
    uint64_t gpa;    /* first guest-physical address, page-aligned */
    uint64_t size;   /* bytes, page-aligned */
    uint8_t *host;   /* where it is mapped here */
    uint64_t offset; /* in the memfd */
    bool rom;        /* the vCPUs' stores change nothing */
};

struct guest_memory {
    uint64_t size; /* of RAM */
    int fd;
    unsigned n_blocks; /* RAM, 1 or 2, and perhaps the ROM, which is the last */
    struct guest_memory_block blocks[3];
    /*
     * Told after a device or the monitor has written RAM (not by the vCPUs' own stores): the soft engine
     * drops translations of that range. Set by the engine; NULL otherwise. Any thread.
     */
    void (*written)(void *opaque, uint64_t gpa, uint64_t len);
    void *written_opaque;
};

/* `size`: bytes, a multiple of 4 KiB, GUEST_MEMORY_MIN..MAX. 0 or -errno with *err. */
int guest_memory_create(struct guest_memory **out, uint64_t size, struct error **err);
void guest_memory_free(struct guest_memory *mem);

/* Adds `size` bytes of ROM that end at GUEST_ROM_END: a multiple of 4 KiB, at most GUEST_ROM_MAX; once,
 * before an engine sees the memory. 0 or -errno with *err. */
int guest_memory_add_rom(struct guest_memory *mem, uint64_t size, struct error **err);

/* The ROM, or NULL. */
static inline const struct guest_memory_block *guest_memory_rom(const struct guest_memory *mem)
{
    const struct guest_memory_block *last = &mem->blocks[mem->n_blocks - 1];
    return last->rom ? last : NULL;
}

/* The block that has all of [gpa, gpa+len) (len 0: gpa must still be in it), or NULL. */
static inline const struct guest_memory_block *guest_memory_block_at(const struct guest_memory *mem,
                                                                     uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < mem->n_blocks; i++) {
        const struct guest_memory_block *b = &mem->blocks[i];
        uint64_t off = gpa - b->gpa;
        if (off < b->size && len <= b->size - off)
            return b;
    }
    return NULL;
}

/* Host pointer to [gpa, gpa+len), or NULL unless all of it is RAM or ROM in one block. */
static inline void *guest_memory_at(const struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    const struct guest_memory_block *b = guest_memory_block_at(mem, gpa, len);
    return b ? b->host + (gpa - b->gpa) : NULL;
}

/* The same for what is to be written: NULL for ROM, too, which a device's stores must change as little as the
 * vCPUs' do. */
static inline void *guest_memory_ram_at(const struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    const struct guest_memory_block *rom = guest_memory_rom(mem);
    return rom && gpa - rom->gpa < rom->size ? NULL : guest_memory_at(mem, gpa, len);
}

/* Tell the engine that RAM was written through a pointer from guest_memory_at. */
static inline void guest_memory_mark_written(const struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    if (mem->written)
        mem->written(mem->written_opaque, gpa, len);
}

/* Gives whole pages of RAM back to the host: they read as zero, and cost nothing until they are touched.
 * `gpa` and `len` are multiples of the page size. 0; -EFAULT (nothing done) unless all of it is RAM in one
 * block; -errno. */
int guest_memory_discard(const struct guest_memory *mem, uint64_t gpa, uint64_t len);

/* Copy from RAM or ROM, or to RAM; marks what it writes. 0, or -EFAULT (nothing copied) if any byte is
 * neither, or not RAM. */
int guest_memory_read(const struct guest_memory *mem, uint64_t gpa, void *buf, size_t len);
int guest_memory_write(const struct guest_memory *mem, uint64_t gpa, const void *buf, size_t len);

#endif
