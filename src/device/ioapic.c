/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * I/O APIC, version 0x20 (Intel 82093AA data sheet, order 290566, with the EOI register of later chipsets,
 * e.g. the ICH9 data sheet 13.5). One mutex; it is a leaf but for the message callback.
 */
#include "device/ioapic.h"

#include "base/cleanup.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

/* The window */
#define WINDOW_SELECT 0x00u
#define WINDOW_DATA   0x10u
#define WINDOW_EOI    0x40u

/* Registers behind it */
#define REG_ID       0x00u
#define REG_VERSION  0x01u
#define REG_ARBITER  0x02u
#define REG_REDIRECT 0x10u

#define VERSION (0x20u | (IOAPIC_PINS - 1) << 16)
#define ID_MASK 0x0f000000u

/*
 * A redirection entry:
 *  63-56      55-17  16      15       14          13        12      11       10-8           7-0
 * destination   -   masked  level  remote IRR  active low  pending  logical  delivery mode  vector
 */
#define ENTRY_VECTOR     0xffull
#define ENTRY_MODE_SHIFT 8
#define ENTRY_MODE       (7ull << ENTRY_MODE_SHIFT)
#define ENTRY_LOGICAL    (1ull << 11)
#define ENTRY_REMOTE_IRR (1ull << 14)
#define ENTRY_LEVEL      (1ull << 15)
#define ENTRY_MASKED     (1ull << 16)
#define ENTRY_DEST_SHIFT 56
#define ENTRY_WRITABLE   (0xffull << ENTRY_DEST_SHIFT | 0x1afffull)

#define MSI_ADDRESS     0xfee00000ull
#define MSI_LOGICAL     (1ull << 2)
#define MSI_HINT        (1ull << 3)
#define MSI_DATA_ASSERT (1u << 14)
#define MSI_DATA_LEVEL  (1u << 15)
#define MODE_FIXED      0u
#define MODE_LOWEST     1u

struct ioapic {
    pthread_mutex_t lock;
    uint32_t select;
    uint32_t id;
    uint32_t lines; /* levels of the inputs */
    uint64_t entry[IOAPIC_PINS];
    void (*message)(void *opaque, uint64_t msi_address, uint32_t msi_data);
    void *opaque;
    struct io_space *mmio;
    struct io_region region;
};

/* ---- sending; the lock is held ---- */

static void send_locked(struct ioapic *a, unsigned pin)
{
    uint64_t e = a->entry[pin];
    unsigned mode = (unsigned)((e & ENTRY_MODE) >> ENTRY_MODE_SHIFT);
    uint64_t address = MSI_ADDRESS | (e >> ENTRY_DEST_SHIFT) << 12;
    uint32_t data = (uint32_t)(e & (ENTRY_VECTOR | ENTRY_MODE)) | MSI_DATA_ASSERT;

    if (e & ENTRY_LOGICAL)
        address |= MSI_LOGICAL;
    if (mode == MODE_LOWEST)
        address |= MSI_HINT;
    if (e & ENTRY_LEVEL)
        data |= MSI_DATA_LEVEL;
    a->message(a->opaque, address, data);
}

/* An asserted level is sent once, then waits for its EOI. Only vectors come back with one. */
static void try_level_locked(struct ioapic *a, unsigned pin)
{
    uint64_t e = a->entry[pin];
    unsigned mode = (unsigned)((e & ENTRY_MODE) >> ENTRY_MODE_SHIFT);

    if (!(e & ENTRY_LEVEL) || (e & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) || !(a->lines & (1u << pin)))
        return;
    if (mode == MODE_FIXED || mode == MODE_LOWEST)
        a->entry[pin] |= ENTRY_REMOTE_IRR;
    send_locked(a, pin);
}

static void eoi_locked(struct ioapic *a, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t e = a->entry[pin];
        if ((e & ENTRY_VECTOR) != vector || !(e & ENTRY_LEVEL) || !(e & ENTRY_REMOTE_IRR))
            continue;
        a->entry[pin] &= ~ENTRY_REMOTE_IRR;
        try_level_locked(a, pin);
    }
}

/* ---- registers; the lock is held ---- */

static uint32_t read_locked(const struct ioapic *a)
{
    if (a->select == REG_ID || a->select == REG_ARBITER)
        return a->id;
    if (a->select == REG_VERSION)
        return VERSION;
    unsigned n = a->select - REG_REDIRECT;
    if (a->select < REG_REDIRECT || n >= 2 * IOAPIC_PINS)
        return UINT32_MAX;
    return (uint32_t)(a->entry[n / 2] >> (n & 1 ? 32 : 0));
}

static void write_locked(struct ioapic *a, uint32_t value)
{
    if (a->select == REG_ID)
        a->id = value & ID_MASK;
    unsigned n = a->select - REG_REDIRECT;
    if (a->select < REG_REDIRECT || n >= 2 * IOAPIC_PINS)
        return;
    unsigned pin = n / 2;
    uint64_t *e = &a->entry[pin];
    uint64_t half = n & 1 ? 0xffffffff00000000ull : 0xffffffffull;
    uint64_t writable = ENTRY_WRITABLE & half;

    *e = (*e & ~writable) | (((uint64_t)value << (n & 1 ? 32 : 0)) & writable);
    /* Remote IRR has no meaning for edges; kernels clear a stuck one by this detour. */
    if (!(*e & ENTRY_LEVEL))
        *e &= ~ENTRY_REMOTE_IRR;
    try_level_locked(a, pin);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned size)
{
    struct ioapic *a = opaque;
    LOCK_SCOPE(&a->lock);
    switch (offset) {
    case WINDOW_SELECT:
        return a->select;
    case WINDOW_DATA:
        return read_locked(a);
    default:
        return 0;
    }
}

static void mmio_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct ioapic *a = opaque;
    LOCK_SCOPE(&a->lock);
    switch (offset) {
    case WINDOW_SELECT:
        a->select = value & 0xff;
        return;
    case WINDOW_DATA: /* whole registers only */
        if (size >= 4)
            write_locked(a, (uint32_t)value);
        return;
    case WINDOW_EOI:
        eoi_locked(a, (uint8_t)value);
        return;
    default:
        return;
    }
}

/* ---- what others call ---- */

int ioapic_create(struct ioapic **out, struct io_space *mmio,
                  void (*message)(void *opaque, uint64_t msi_address, uint32_t msi_data), void *opaque)
{
    struct ioapic *a = calloc(1, sizeof(*a));
    if (!a)
        return -ENOMEM;
    pthread_mutex_init(&a->lock, NULL);
    a->message = message;
    a->opaque = opaque;
    a->mmio = mmio;
    a->region = (struct io_region){"ioapic", IOAPIC_BASE, IOAPIC_SIZE, mmio_read, mmio_write, a};
    ioapic_reset(a);
    int rc = io_space_add(mmio, &a->region);
    if (rc) {
        ioapic_free(a);
        return rc;
    }
    *out = a;
    return 0;
}

void ioapic_free(struct ioapic *a)
{
    if (!a)
        return;
    io_space_remove(a->mmio, &a->region);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

void ioapic_reset(struct ioapic *a)
{
    LOCK_SCOPE(&a->lock);
    a->select = 0;
    a->id = 0;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        a->entry[pin] = ENTRY_MASKED;
}

void ioapic_set(struct ioapic *a, unsigned pin, bool level)
{
    if (pin >= IOAPIC_PINS)
        return;
    LOCK_SCOPE(&a->lock);
    uint32_t bit = 1u << pin;
    bool rose = level && !(a->lines & bit);

    if (level)
        a->lines |= bit;
    else
        a->lines &= ~bit;
    if (a->entry[pin] & ENTRY_LEVEL)
        try_level_locked(a, pin);
    else if (rose && !(a->entry[pin] & ENTRY_MASKED)) /* an edge at a masked input is lost */
        send_locked(a, pin);
}

void ioapic_eoi(struct ioapic *a, uint8_t vector)
{
    LOCK_SCOPE(&a->lock);
    eoi_locked(a, vector);
}
