/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The firmware configuration device that QEMU's machines have (its docs/specs/fw_cfg), so that firmware and
 * kernels made for these find what the machine has to tell: read-only here, by port and by DMA. Called by the
 * machine (fw_cfg.h) and by vCPU threads; `lock` covers the state, and a DMA transfer is made under it.
 *
 *   +0 selector, 16 bits, written: the item that is read from its beginning
 *   +1 data, 8 bits, read: the item's next byte, 0 behind its end
 *   +4 address of a request, big-endian; a write to its lower half (+8) has the request done at once
 *
 *   request, big-endian:  0 control   31-16 item  4 WRITE  3 SELECT  2 SKIP  1 READ  0 ERROR
 *                         4 length
 *                         8 address
 */
#include "device/fw_cfg.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define ITEM_SIGNATURE  0x0000u
#define ITEM_VERSION    0x0001u
#define ITEM_DIRECTORY  0x0019u
#define ITEM_FIRST_FILE 0x0020u
#define ITEM_MASK       0xbfffu /* 0x4000 asks for writing, which no item takes */

#define VERSION_TRADITIONAL 1u
#define VERSION_DMA         2u

#define DMA_ERROR  0x01u
#define DMA_READ   0x02u
#define DMA_SKIP   0x04u
#define DMA_SELECT 0x08u
#define DMA_WRITE  0x10u
#define DMA_SIZE   16u
/* No item is nearly as large; a transfer holds the device and its vCPU. */
#define DMA_LENGTH_MAX (16u << 20)

#define FIXED_ITEMS 10u
#define MAX_ITEMS   (FIXED_ITEMS + FW_CFG_MAX_FILES)
#define DIR_ENTRY   64u
#define DIR_SIZE    (4u + FW_CFG_MAX_FILES * DIR_ENTRY)

struct item {
    unsigned key;
    size_t size;
    uint8_t *data;
};

struct fw_cfg {
    struct device device;
    struct io_region region;
    pthread_mutex_t lock;
    struct item items[MAX_ITEMS];
    unsigned n_items, n_files;
    uint8_t directory[DIR_SIZE];
    const struct item *selected; /* NULL: one that there isn't, which reads as zeros */
    size_t offset;               /* in it; stops at its end */
    uint32_t address_high;
};

static const uint8_t dma_signature[8] = "QEMU CFG";

static void select_locked(struct fw_cfg *f, unsigned key)
{
    f->selected = NULL;
    f->offset = 0;
    for (unsigned i = 0; i < f->n_items; i++)
        if (f->items[i].key == (key & ITEM_MASK))
            f->selected = &f->items[i];
}

/* The item's next bytes in place: at most *n; fewer, or none, at its end. Moves on. */
static const uint8_t *next_locked(struct fw_cfg *f, size_t *n)
{
    size_t left = f->selected ? f->selected->size - f->offset : 0;
    const uint8_t *at = f->selected ? f->selected->data + f->offset : NULL;

    if (*n > left)
        *n = left;
    f->offset += *n;
    return at;
}

/* ---- DMA ---- */

/* The item's bytes and then zeros to guest memory, all of it or none. */
static int store_locked(struct fw_cfg *f, uint64_t gpa, size_t length)
{
    static const uint8_t zeros[4096];
    const struct guest_memory *memory = f->device.env->memory;
    size_t n = length;

    /* Past the first byte that is no RAM nothing may have been written, so look before. */
    for (size_t done = 0; done < length;) {
        size_t in_page = GUEST_PAGE_SIZE - ((gpa + done) & (GUEST_PAGE_SIZE - 1));
        size_t part = length - done < in_page ? length - done : in_page;

        if (!guest_memory_ram_at(memory, gpa + done, part))
            return -EFAULT;
        done += part;
    }
    const uint8_t *from = next_locked(f, &n);
    if (n)
        guest_memory_write(memory, gpa, from, n);
    while (n < length) {
        size_t part = length - n < sizeof(zeros) ? length - n : sizeof(zeros);

        guest_memory_write(memory, gpa + n, zeros, part);
        n += part;
    }
    return 0;
}

static bool transfer_locked(struct fw_cfg *f, uint32_t control, uint32_t length, uint64_t gpa)
{
    size_t skipped = length;

    if (length > DMA_LENGTH_MAX)
        return false;
    if (control & DMA_SELECT)
        select_locked(f, control >> 16);
    if (control & DMA_READ)
        return store_locked(f, gpa, length) == 0;
    if (control & DMA_WRITE)
        return false;
    if (control & DMA_SKIP)
        next_locked(f, &skipped);
    return true;
}

/* A request that is not in RAM has no place for an answer. */
static void request_locked(struct fw_cfg *f, uint64_t gpa)
{
    const struct guest_memory *memory = f->device.env->memory;
    uint8_t request[DMA_SIZE], answer[4];

    if (guest_memory_read(memory, gpa, request, sizeof(request)) < 0)
        return;
    bool ok = transfer_locked(f, get_be32(request), get_be32(request + 4), get_be64(request + 8));
    put_be32(answer, ok ? 0 : DMA_ERROR);
    guest_memory_write(memory, gpa, answer, sizeof(answer));
}

/* ---- ports ---- */

static uint64_t fw_cfg_read(void *opaque, uint64_t offset, unsigned size)
{
    struct fw_cfg *f = opaque;
    uint64_t value = 0;
    LOCK_SCOPE(&f->lock);

    if (offset >= 4 && size <= 8) {
        for (unsigned i = 0; i < size && offset - 4 + i < sizeof(dma_signature); i++)
            value |= (uint64_t)dma_signature[offset - 4 + i] << (8 * i);
    } else if (offset == 1 && size == 1) {
        size_t n = 1;
        const uint8_t *byte = next_locked(f, &n);

        value = n ? *byte : 0;
    }
    return value;
}

static void fw_cfg_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct fw_cfg *f = opaque;
    LOCK_SCOPE(&f->lock);

    if (offset == 0 && size == 2) {
        select_locked(f, (unsigned)value);
    } else if (offset == 4 && size == 4) {
        f->address_high = __builtin_bswap32((uint32_t)value);
    } else if (offset == 8 && size == 4) {
        uint64_t gpa = (uint64_t)f->address_high << 32 | __builtin_bswap32((uint32_t)value);

        f->address_high = 0;
        request_locked(f, gpa);
    } else if (offset == 4 && size == 8) {
        request_locked(f, __builtin_bswap64(value));
    }
}

/* ---- contents ---- */

static int add_item(struct fw_cfg *f, unsigned key, const void *data, size_t size, struct error **err)
{
    if (f->n_items == MAX_ITEMS)
        return error_set(err, ENOSPC, "more than %u items of firmware configuration", MAX_ITEMS);
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        return error_set_errno(err, ENOMEM, "firmware configuration");
    if (size)
        memcpy(copy, data, size);
    f->items[f->n_items++] = (struct item){.key = key, .size = size, .data = copy};
    return 0;
}

static struct item *find(struct fw_cfg *f, unsigned key)
{
    for (unsigned i = 0; i < f->n_items; i++)
        if (f->items[i].key == key)
            return &f->items[i];
    return NULL;
}

static int add_own_items(struct fw_cfg *f, struct error **err)
{
    uint8_t version[4];

    put_le32(version, VERSION_TRADITIONAL | VERSION_DMA);
    int rc = add_item(f, ITEM_SIGNATURE, "QEMU", 4, err);
    if (rc == 0)
        rc = add_item(f, ITEM_VERSION, version, sizeof(version), err);
    if (rc == 0) /* its full size: it grows in place */
        rc = add_item(f, ITEM_DIRECTORY, f->directory, sizeof(f->directory), err);
    return rc;
}

static void drop_from(struct fw_cfg *f, unsigned first)
{
    while (f->n_items > first)
        free(f->items[--f->n_items].data);
}

void fw_cfg_clear(struct device *device)
{
    struct fw_cfg *f = container_of(device, struct fw_cfg, device);
    LOCK_SCOPE(&f->lock);

    drop_from(f, 3);
    memset(find(f, ITEM_DIRECTORY)->data, 0, DIR_SIZE);
    f->n_files = 0;
    f->selected = NULL;
}

int fw_cfg_add_number(struct device *device, unsigned key, uint64_t value, unsigned size, struct error **err)
{
    struct fw_cfg *f = container_of(device, struct fw_cfg, device);
    uint8_t bytes[8];
    LOCK_SCOPE(&f->lock);

    if (size > sizeof(bytes) || find(f, key))
        return error_set(err, EINVAL, "firmware configuration item %#x", key);
    put_le64(bytes, value);
    return add_item(f, key, bytes, size, err);
}

/* A directory entry: size, item, two reserved bytes, name; big-endian, after the number of entries. */
int fw_cfg_add_file(struct device *device, const char *name, const void *data, size_t size,
                    struct error **err)
{
    struct fw_cfg *f = container_of(device, struct fw_cfg, device);
    unsigned key = ITEM_FIRST_FILE + f->n_files;
    LOCK_SCOPE(&f->lock);

    if (f->n_files == FW_CFG_MAX_FILES || strlen(name) >= FW_CFG_FILE_NAME || size > UINT32_MAX)
        return error_set(err, EINVAL, "firmware configuration file '%s'", name);
    int rc = add_item(f, key, data, size, err);
    if (rc)
        return rc;
    uint8_t *directory = find(f, ITEM_DIRECTORY)->data, *entry = directory + 4 + f->n_files * DIR_ENTRY;
    put_be32(entry, (uint32_t)size);
    put_be16(entry + 4, (uint16_t)key);
    memcpy(entry + 8, name, strlen(name) + 1);
    put_be32(directory, ++f->n_files);
    return 0;
}

/* ---- the device ---- */

static void fw_cfg_reset(struct device *device)
{
    struct fw_cfg *f = container_of(device, struct fw_cfg, device);
    LOCK_SCOPE(&f->lock);

    select_locked(f, ITEM_SIGNATURE);
    f->address_high = 0;
}

static void fw_cfg_free(struct fw_cfg *f)
{
    drop_from(f, 0);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

static void fw_cfg_destroy(struct device *device)
{
    struct fw_cfg *f = container_of(device, struct fw_cfg, device);

    io_space_remove(device->env->pio, &f->region);
    fw_cfg_free(f);
}

static int fw_cfg_create(struct device **out, const struct device_env *env, const void *config,
                         struct error **err)
{
    struct fw_cfg *f = calloc(1, sizeof(*f));

    if (!f)
        return error_set_errno(err, ENOMEM, "fw-cfg");
    f->device = (struct device){.class = &fw_cfg_class, .env = env};
    pthread_mutex_init(&f->lock, NULL);
    f->region = (struct io_region){
        .name = "fw-cfg",
        .base = FW_CFG_BASE,
        .size = FW_CFG_SIZE,
        .read = fw_cfg_read,
        .write = fw_cfg_write,
        .opaque = f,
    };
    int rc = add_own_items(f, err);
    if (rc == 0) {
        rc = io_space_add(env->pio, &f->region);
        if (rc)
            error_set_errno(err, -rc, "fw-cfg");
    }
    if (rc) {
        fw_cfg_free(f);
        return rc;
    }
    fw_cfg_reset(&f->device);
    *out = &f->device;
    return 0;
}

const struct device_class fw_cfg_class = {
    .name = "fw-cfg",
    .summary = "firmware configuration: what the machine tells its firmware",
    .create = fw_cfg_create,
    .reset = fw_cfg_reset,
    .destroy = fw_cfg_destroy,
};
