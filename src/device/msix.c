/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * MSI-X tables. vCPU threads come in through the BAR and through pci.c (config lock held), device threads
 * through msix_send; msix->lock is a leaf under which messages are sent, so that a mask that the guest has
 * set is in force when its write returns.
 *
 * A table entry (PCI Express Base 4.0, 7.7.2.5-8), little-endian:
 *   0 message address, low half   4 its high half   8 message data   12 vector control: bit 0 masks
 */
#include "device/msix.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>

struct msix {
    pthread_mutex_t lock;
    struct pci_function *fn;
    unsigned vectors;
    unsigned capability;
    uint32_t pba_offset;
    atomic_bool enabled; /* written under the lock */
    bool masked;         /* the function as a whole, or no bus mastering */
    uint8_t *table;
    uint64_t *pending;
};

static bool vector_masked(const struct msix *m, unsigned vector)
{
    return m->masked ||
           (get_le32(m->table + vector * MSIX_ENTRY_SIZE + MSIX_ENTRY_CONTROL) & MSIX_ENTRY_MASKED);
}

static void deliver(struct msix *m, unsigned vector, const struct device_env *env)
{
    const uint8_t *entry = m->table + vector * MSIX_ENTRY_SIZE;
    m->pending[vector / 64] &= ~(1ull << vector % 64);
    env->msi_send(env->opaque, get_le64(entry), get_le32(entry + 8));
}

static void deliver_if_pending(struct msix *m, unsigned vector, const struct device_env *env)
{
    if (m->enabled && m->pending[vector / 64] >> vector % 64 & 1 && !vector_masked(m, vector))
        deliver(m, vector, env);
}

/* Reads past the entries and the pending bits give zeros, as reserved registers do. */
static uint64_t msix_bar_read(void *opaque, uint64_t offset, unsigned size)
{
    struct msix *m = opaque;
    LOCK_SCOPE(&m->lock);
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        uint64_t at = offset + i;
        uint8_t byte = 0;
        if (at < m->vectors * MSIX_ENTRY_SIZE)
            byte = m->table[at];
        else if (at >= m->pba_offset && at - m->pba_offset < (m->vectors + 63) / 64 * 8)
            byte = (uint8_t)(m->pending[(at - m->pba_offset) / 8] >> (at % 8 * 8));
        value |= (uint64_t)byte << (i * 8);
    }
    return value;
}

/* Only aligned accesses of 4 and 8 bytes are defined (7.7.2.2); others are dropped, as are those to the
 * pending bits. */
static void msix_bar_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct msix *m = opaque;
    if (size < 4 || offset % size || offset + size > (uint64_t)m->vectors * MSIX_ENTRY_SIZE)
        return;
    unsigned vector = (unsigned)(offset / MSIX_ENTRY_SIZE);
    LOCK_SCOPE(&m->lock);
    for (unsigned i = 0; i < size; i += 4)
        put_le32(m->table + offset + i, (uint32_t)(value >> (i * 8)));
    uint8_t *control = m->table + vector * MSIX_ENTRY_SIZE + MSIX_ENTRY_CONTROL;
    put_le32(control, get_le32(control) & MSIX_ENTRY_MASKED);
    deliver_if_pending(m, vector, pci_function_env(m->fn));
}

int pci_add_msix(struct pci_function *fn, unsigned bar, unsigned vectors)
{
    if (!vectors || vectors > MSIX_MAX_VECTORS || fn->msix)
        return -EINVAL;
    struct msix *m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    pthread_mutex_init(&m->lock, NULL);
    m->fn = fn;
    m->vectors = vectors;
    m->table = calloc(vectors, MSIX_ENTRY_SIZE);
    m->pending = calloc((vectors + 63) / 64, sizeof(*m->pending));
    /* Half the BAR for the table, half for the pending bits. */
    m->pba_offset = 2048;
    while (m->pba_offset < vectors * MSIX_ENTRY_SIZE)
        m->pba_offset *= 2;
    int rc = -ENOMEM;
    if (!m->table || !m->pending)
        goto fail;
    const struct io_region region = {.name = "msix",
                                     .size = 2 * m->pba_offset,
                                     .read = msix_bar_read,
                                     .write = msix_bar_write,
                                     .opaque = m};
    rc = pci_add_bar(fn, bar, PCI_BAR_MEM32, &region);
    if (rc < 0)
        goto fail;
    uint8_t body[10];
    put_le16(body, (uint16_t)(vectors - 1));
    put_le32(body + 2, bar);
    put_le32(body + 6, m->pba_offset | bar);
    rc = pci_add_capability(fn, PCI_CAP_ID_MSIX, body, 2 + sizeof(body));
    if (rc < 0)
        goto fail;
    m->capability = (unsigned)rc;
    /* Of message control, only Function Mask and Enable, in the upper byte. */
    fn->writable[m->capability + MSIX_CONTROL + 1] = (MSIX_ENABLE | MSIX_FUNCTION_MASK) >> 8;
    fn->msix = m;
    msix_reset(fn);
    return 0;
fail:
    msix_free(m);
    return rc;
}

bool msix_enabled(const struct pci_function *fn)
{
    return fn->msix && atomic_load_explicit(&fn->msix->enabled, memory_order_acquire);
}

void msix_send(struct pci_function *fn, unsigned vector)
{
    struct msix *m = fn->msix;
    if (!m || vector >= m->vectors)
        return;
    LOCK_SCOPE(&m->lock);
    if (!m->enabled)
        return;
    if (vector_masked(m, vector))
        m->pending[vector / 64] |= 1ull << vector % 64;
    else
        deliver(m, vector, pci_function_env(fn));
}

void msix_update(struct pci_function *fn)
{
    struct msix *m = fn->msix;
    if (!m)
        return;
    uint16_t control = get_le16(pci_config_bytes(fn, m->capability + MSIX_CONTROL));
    LOCK_SCOPE(&m->lock);
    m->enabled = control & MSIX_ENABLE;
    m->masked = control & MSIX_FUNCTION_MASK || !fn->master;
    if (m->masked)
        return;
    for (unsigned vector = 0; vector < m->vectors; vector++)
        deliver_if_pending(m, vector, pci_function_env(fn));
}

void msix_reset(struct pci_function *fn)
{
    struct msix *m = fn->msix;
    if (!m)
        return;
    LOCK_SCOPE(&m->lock);
    m->enabled = false;
    m->masked = false;
    memset(m->table, 0, (size_t)m->vectors * MSIX_ENTRY_SIZE);
    memset(m->pending, 0, (m->vectors + 63) / 64 * sizeof(*m->pending));
    for (unsigned vector = 0; vector < m->vectors; vector++)
        put_le32(m->table + vector * MSIX_ENTRY_SIZE + MSIX_ENTRY_CONTROL, MSIX_ENTRY_MASKED);
}

void msix_free(struct msix *msix)
{
    if (!msix)
        return;
    pthread_mutex_destroy(&msix->lock);
    free(msix->table);
    free(msix->pending);
    free(msix);
}
