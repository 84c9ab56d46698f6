/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest RAM and ROM behind one memfd. The layout never changes after creation, so readers take no lock. */
#include "device/guest_memory.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int guest_memory_create(struct guest_memory **out, uint64_t size, struct error **err)
{
    if (size < GUEST_MEMORY_MIN || size > GUEST_MEMORY_MAX || size % GUEST_PAGE_SIZE)
        return error_set(err, EINVAL, "guest memory of %llu bytes: must be a multiple of 4K from 1M to 1024G",
                         (unsigned long long)size);
    struct guest_memory *mem = calloc(1, sizeof(*mem));
    if (!mem)
        return error_set_errno(err, ENOMEM, "guest memory");
    mem->size = size;
    mem->fd = memfd_create("guest-ram", MFD_CLOEXEC);
    if (mem->fd < 0 || ftruncate(mem->fd, (off_t)size) < 0) {
        int rc = error_set_errno(err, errno, "guest memory of %llu MiB", (unsigned long long)(size >> 20));
        guest_memory_free(mem);
        return rc;
    }
    void *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, mem->fd, 0);
    if (host == MAP_FAILED) {
        int rc = error_set_errno(err, errno, "mapping guest memory of %llu MiB: choose a smaller --memory",
                                 (unsigned long long)(size >> 20));
        guest_memory_free(mem);
        return rc;
    }
    madvise(host, size, MADV_DONTDUMP);
    uint64_t low = size < GUEST_LOW_RAM_END ? size : GUEST_LOW_RAM_END;
    mem->n_blocks = 1;
    mem->blocks[0] = (struct guest_memory_block){.gpa = 0, .size = low, .host = host, .offset = 0};
    if (size > low) {
        mem->n_blocks = 2;
        mem->blocks[1] = (struct guest_memory_block){
            .gpa = GUEST_HIGH_RAM, .size = size - low, .host = (uint8_t *)host + low, .offset = low};
    }
    *out = mem;
    return 0;
}

int guest_memory_add_rom(struct guest_memory *mem, uint64_t size, struct error **err)
{
    if (!size || size > GUEST_ROM_MAX || size % GUEST_PAGE_SIZE || guest_memory_rom(mem))
        return error_set(err, EINVAL, "ROM of %llu bytes: must be a multiple of 4K up to %lluM",
                         (unsigned long long)size, GUEST_ROM_MAX >> 20);
    if (ftruncate(mem->fd, (off_t)(mem->size + size)) < 0)
        return error_set_errno(err, errno, "ROM");
    void *host =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, mem->fd, (off_t)mem->size);
    if (host == MAP_FAILED)
        return error_set_errno(err, errno, "mapping the ROM");
    mem->blocks[mem->n_blocks++] = (struct guest_memory_block){
        .gpa = GUEST_ROM_END - size, .size = size, .host = host, .offset = mem->size, .rom = true};
    return 0;
}

void guest_memory_free(struct guest_memory *mem)
{
    if (!mem)
        return;
    const struct guest_memory_block *rom = mem->n_blocks ? guest_memory_rom(mem) : NULL;
    if (rom)
        munmap(rom->host, rom->size);
    if (mem->n_blocks)
        munmap(mem->blocks[0].host, mem->size);
    if (mem->fd >= 0)
        close(mem->fd);
    free(mem);
}

/* Checks the whole range first, so that a failure leaves nothing half done. */
static bool range_is_there(const struct guest_memory *mem, uint64_t gpa, size_t len, bool write)
{
    while (len) {
        uint64_t in_page = GUEST_PAGE_SIZE - (gpa & (GUEST_PAGE_SIZE - 1));
        uint64_t n = len < in_page ? len : in_page;
        if (!(write ? guest_memory_ram_at(mem, gpa, n) : guest_memory_at(mem, gpa, n)))
            return false;
        gpa += n;
        len -= n;
    }
    return true;
}

int guest_memory_read(const struct guest_memory *mem, uint64_t gpa, void *buf, size_t len)
{
    const void *p = guest_memory_at(mem, gpa, len);
    if (p) {
        memcpy(buf, p, len);
        return 0;
    }
    if (!range_is_there(mem, gpa, len, false))
        return -EFAULT;
    for (uint8_t *to = buf; len; gpa++, len--)
        *to++ = *(uint8_t *)guest_memory_at(mem, gpa, 1);
    return 0;
}

int guest_memory_write(const struct guest_memory *mem, uint64_t gpa, const void *buf, size_t len)
{
    if (!range_is_there(mem, gpa, len, true))
        return -EFAULT;
    void *p = guest_memory_at(mem, gpa, len);
    if (p) {
        memcpy(p, buf, len);
    } else {
        const uint8_t *from = buf;
        for (size_t i = 0; i < len; i++)
            *(uint8_t *)guest_memory_at(mem, gpa + i, 1) = from[i];
    }
    guest_memory_mark_written(mem, gpa, len);
    return 0;
}

int guest_memory_discard(const struct guest_memory *mem, uint64_t gpa, uint64_t len)
{
    const struct guest_memory_block *b = guest_memory_block_at(mem, gpa, len);

    if (!b || b->rom)
        return -EFAULT;
    if (fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(b->offset + (gpa - b->gpa)),
                  (off_t)len) < 0)
        return -errno;
    guest_memory_mark_written(mem, gpa, len);
    return 0;
}
