/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of the PCI bus, as a guest sees it: through ECAM, the configuration ports and the BARs. */
#include "base/bytes.h"
#include "base/error.h"
#include "pci_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

/* A function with a BAR of each type. What is written to a BAR reads back there. */
struct probe {
    struct pci_function fn;
    uint64_t memory[8], wide, ports;
    unsigned masters;
    int bell;
};

static uint64_t cell_read(void *opaque, uint64_t offset, unsigned size)
{
    return __atomic_load_n((uint64_t *)opaque, __ATOMIC_RELAXED);
}

static void cell_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    __atomic_store_n((uint64_t *)opaque, value, __ATOMIC_RELAXED);
}

static void master_enabled(struct pci_function *fn)
{
    container_of(fn, struct probe, fn)->masters++;
}

static const struct pci_function_ops probe_ops = {.master_enabled = master_enabled};

static struct io_region region_of(uint64_t *cell, uint64_t size)
{
    return (struct io_region){
        .name = "probe", .size = size, .read = cell_read, .write = cell_write, .opaque = cell};
}

static void probe_describe(struct probe *p, struct fixture *f, int devfn)
{
    const struct pci_function_config config = {.vendor = 0x1234,
                                               .device = 0x5678,
                                               .subsystem_vendor = 0xabcd,
                                               .subsystem = 0xef01,
                                               .class_code = 0x0c0330,
                                               .revision = 7,
                                               .intx = true,
                                               .devfn = devfn};
    *p = (struct probe){.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    pci_function_init(&p->fn, f->env.pci, &config, &probe_ops);
    struct io_region r = region_of(p->memory, 0x1000);
    assert_int_equal(pci_add_bar(&p->fn, 0, PCI_BAR_MEM32, &r), 0);
    r = region_of(&p->wide, 0x10000);
    assert_int_equal(pci_add_bar(&p->fn, 1, PCI_BAR_MEM64, &r), 0);
    r = region_of(&p->ports, 32);
    assert_int_equal(pci_add_bar(&p->fn, 3, PCI_BAR_IO, &r), 0);
    assert_int_equal(pci_add_doorbell(&p->fn, 1, 0x40, 0, p->bell), 0);
}

static struct probe *probe_new(struct fixture *f, int devfn)
{
    struct probe *p = malloc(sizeof(*p));
    assert_non_null(p);
    probe_describe(p, f, devfn);
    assert_int_equal(pci_function_plug(&p->fn, NULL), 0);
    return p;
}

static void probe_free(struct probe *p)
{
    pci_function_unplug(&p->fn);
    close(p->bell);
    free(p);
}

static int setup(void **state)
{
    struct fixture *f = malloc(sizeof(*f));
    if (!f)
        return -1;
    fixture_init(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(*state);
    free(*state);
    return 0;
}

static uint32_t port_config_read(struct fixture *f, unsigned devfn, unsigned reg)
{
    io_space_write(f->env.pio, 0xcf8, 4, 0x80000000u | devfn << 8 | (reg & 0xfc));
    return (uint32_t)io_space_read(f->env.pio, 0xcfc + (reg & 3), reg & 3 ? 1 : 4);
}

static void test_header(void **state)
{
    struct fixture *f = *state;
    struct probe *p = probe_new(f, PCI_ANY_SLOT);
    unsigned d = PCI_DEVFN(1, 0);
    assert_int_equal(p->fn.devfn, d);
    assert_int_equal(fixture_config_read(f, d, PCI_VENDOR_ID, 4), 0x56781234);
    assert_int_equal(fixture_config_read(f, d, PCI_REVISION, 4), 0x0c033007);
    assert_int_equal(fixture_config_read(f, d, PCI_SUBSYSTEM_VENDOR, 4), 0xef01abcd);
    assert_int_equal(fixture_config_read(f, d, PCI_INTERRUPT_PIN, 1), 1);
    assert_int_equal(fixture_config_read(f, d, PCI_INTERRUPT_LINE, 1), 17);
    assert_int_equal(fixture_config_read(f, d, PCI_VENDOR_ID, 8), 0x0000000756781234ull);
    /* Identity is read-only, the interrupt line a scratch register. */
    fixture_config_write(f, d, PCI_VENDOR_ID, 4, 0);
    assert_int_equal(fixture_config_read(f, d, PCI_VENDOR_ID, 4), 0x56781234);
    fixture_config_write(f, d, PCI_INTERRUPT_LINE, 1, 0x5a);
    assert_int_equal(fixture_config_read(f, d, PCI_INTERRUPT_LINE, 1), 0x5a);
    /* The same space through the ports. */
    assert_int_equal(port_config_read(f, d, PCI_VENDOR_ID), 0x56781234);
    assert_int_equal(port_config_read(f, d, PCI_VENDOR_ID + 1), 0x12);
    assert_int_equal(io_space_read(f->env.pio, 0xcf8, 4), 0x80000000u | d << 8);
    probe_free(p);
    assert_int_equal(fixture_config_read(f, d, PCI_VENDOR_ID, 4), 0xffffffff);
}

static void test_host_bridge_and_nothing(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fixture_config_read(f, 0, PCI_CLASS, 4) & 0xffffff, 0x060000);
    assert_int_equal(fixture_config_read(f, 0, PCI_HEADER_TYPE, 1), 0);
    assert_int_equal(fixture_config_read(f, PCI_DEVFN(31, 7), 0, 2), 0xffff);
    /* Buses other than 0, and bytes beyond a function's space. */
    assert_int_equal(io_space_read(f->env.mmio, PCI_ECAM_BASE + (1u << 20), 4), 0xffffffff);
    assert_int_equal(io_space_read(f->env.mmio, PCI_ECAM_BASE + 0xffe, 4), 0xffffffff);
    io_space_write(f->env.mmio, PCI_ECAM_BASE + 0xffe, 4, 0);
    io_space_write(f->env.pio, 0xcf8, 4, 0x80010000);
    assert_int_equal(io_space_read(f->env.pio, 0xcfc, 4), 0xffffffff);
    /* No access without the enable bit, or to the address register in parts. */
    io_space_write(f->env.pio, 0xcf8, 4, 0);
    assert_int_equal(io_space_read(f->env.pio, 0xcfc, 4), 0xffffffff);
    io_space_write(f->env.pio, 0xcf8, 2, 0xffff);
    assert_int_equal(io_space_read(f->env.pio, 0xcf8, 4), 0);
    pci_config_write(f->env.pci, 0, 4095, 8, 0);
    assert_int_equal(pci_config_read(f->env.pci, 0xffffffff, 0xffffffff, 1), 0xff);
}

static void test_reset_control(void **state)
{
    struct fixture *f = *state;
    io_space_write(f->env.pio, PCI_RESET_PORT, 1, 0x02);
    assert_int_equal(f->events[MACHINE_RESET], 0);
    assert_int_equal(io_space_read(f->env.pio, PCI_RESET_PORT, 1), 0x02);
    io_space_write(f->env.pio, PCI_RESET_PORT, 1, 0x06);
    assert_int_equal(f->events[MACHINE_RESET], 1);
    /* Only the rising edge counts. */
    io_space_write(f->env.pio, PCI_RESET_PORT, 1, 0x06);
    assert_int_equal(f->events[MACHINE_RESET], 1);
    pci_bus_reset(f->env.pci);
    assert_int_equal(io_space_read(f->env.pio, PCI_RESET_PORT, 1), 0);
}

static void test_bar_sizing(void **state)
{
    struct fixture *f = *state;
    struct probe *p = probe_new(f, PCI_ANY_SLOT);
    unsigned d = p->fn.devfn;
    static const uint32_t sized[PCI_BARS] = {0xfffff000, 0xffff0004, 0xffffffff, 0xffffffe1, 0, 0};
    for (unsigned i = 0; i < PCI_BARS; i++) {
        uint64_t home = fixture_config_read(f, d, PCI_BAR(i), 4);
        fixture_config_write(f, d, PCI_BAR(i), 4, 0xffffffff);
        assert_int_equal(fixture_config_read(f, d, PCI_BAR(i), 4), sized[i]);
        fixture_config_write(f, d, PCI_BAR(i), 4, home);
        assert_int_equal(fixture_config_read(f, d, PCI_BAR(i), 4), home);
    }
    /* Back in place, everything answers. */
    io_space_write(f->env.mmio, fixture_bar(f, d, 1), 4, 0x1111);
    assert_int_equal(p->wide, 0x1111);
    probe_free(p);
}

static void test_bar_placement(void **state)
{
    struct fixture *f = *state;
    struct probe *p[8];
    for (unsigned i = 0; i < 8; i++)
        p[i] = probe_new(f, PCI_ANY_SLOT);
    for (unsigned i = 0; i < 8; i++) {
        static const unsigned bars[] = {0, 1, 3};
        for (unsigned b = 0; b < 3; b++) {
            uint64_t base = fixture_bar(f, p[i]->fn.devfn, bars[b]);
            uint64_t size = p[i]->fn.bars[bars[b]].region.size;
            assert_int_equal(base % size, 0);
            if (b == 2)
                assert_in_range(base, PCI_PIO_BASE, PCI_PIO_BASE + PCI_PIO_SIZE - size);
            else
                assert_in_range(base, PCI_MMIO_BASE, PCI_MMIO_BASE + PCI_MMIO_SIZE - size);
            /* Mapped, and to this one only: BARs that overlapped could not both be. */
            assert_true(p[i]->fn.bars[bars[b]].mapped);
        }
        io_space_write(f->env.mmio, fixture_bar(f, p[i]->fn.devfn, 0), 4, i + 100);
        io_space_write(f->env.pio, fixture_bar(f, p[i]->fn.devfn, 3), 1, i);
    }
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(p[i]->memory[0], i + 100);
        assert_int_equal(p[i]->ports, i);
        probe_free(p[i]);
    }
}

static void test_decoding(void **state)
{
    struct fixture *f = *state;
    struct probe *p = probe_new(f, PCI_ANY_SLOT);
    unsigned d = p->fn.devfn;
    uint64_t memory = fixture_bar(f, d, 0), ports = fixture_bar(f, d, 3);
    p->memory[0] = p->ports = 0x42;
    assert_int_equal(io_space_read(f->env.mmio, memory, 1), 0x42);
    fixture_config_write(f, d, PCI_COMMAND, 2, PCI_COMMAND_IO);
    assert_int_equal(io_space_read(f->env.mmio, memory, 1), 0xff);
    assert_int_equal(io_space_read(f->env.pio, ports, 1), 0x42);
    fixture_config_write(f, d, PCI_COMMAND, 1, PCI_COMMAND_MEMORY);
    assert_int_equal(io_space_read(f->env.mmio, memory, 1), 0x42);
    assert_int_equal(io_space_read(f->env.pio, ports, 1), 0xff);
    /* Bus mastering comes back. */
    unsigned before = p->masters;
    assert_false(p->fn.master);
    fixture_config_write(f, d, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    assert_true(p->fn.master);
    assert_int_equal(p->masters, before + 1);
    probe_free(p);
}

static void test_bar_moves(void **state)
{
    struct fixture *f = *state;
    struct probe *p = probe_new(f, PCI_ANY_SLOT);
    unsigned d = p->fn.devfn;
    uint64_t old = fixture_bar(f, d, 1);
    fixture_config_write(f, d, PCI_BAR(1), 4, 0x10000);
    fixture_config_write(f, d, PCI_BAR(2), 4, 0x80);
    p->wide = 0x77;
    assert_int_equal(fixture_bar(f, d, 1), 0x8000010000ull);
    assert_int_equal(io_space_read(f->env.mmio, 0x8000010000ull, 1), 0x77);
    assert_int_equal(io_space_read(f->env.mmio, old, 1), 0xff);
    /* Its doorbell went with it. */
    eventfd_t rung = 0;
    io_space_write(f->env.mmio, 0x8000010040ull, 2, 5);
    assert_int_equal(eventfd_read(p->bell, &rung), 0);
    io_space_write(f->env.mmio, old + 0x40, 2, 5);
    assert_int_equal(eventfd_read(p->bell, &rung), -1);
    assert_int_equal(p->wide, 0x77);
    /* Nowhere: over RAM, at 0, around the end. */
    static const uint64_t nowhere[] = {0, 0x100000, 0xffffffffffff0000ull};
    for (unsigned i = 0; i < ARRAY_SIZE(nowhere); i++) {
        fixture_config_write(f, d, PCI_BAR(1), 4, (uint32_t)nowhere[i]);
        fixture_config_write(f, d, PCI_BAR(2), 4, nowhere[i] >> 32);
        assert_false(p->fn.bars[1].mapped);
    }
    for (uint64_t port = 0x10000; port < 1ull << 32; port <<= 1) {
        fixture_config_write(f, d, PCI_BAR(3), 4, port);
        assert_false(p->fn.bars[3].mapped);
    }
    /* A reset brings it home. */
    pci_function_reset(&p->fn);
    assert_int_equal(fixture_bar(f, d, 1), old);
    assert_int_equal(io_space_read(f->env.mmio, old, 1), 0x77);
    probe_free(p);
}

/* Two BARs that want one address: the first keeps it, the second gets it once it is free. */
static void test_bar_conflict(void **state)
{
    struct fixture *f = *state;
    struct probe *a = probe_new(f, PCI_ANY_SLOT), *b = probe_new(f, PCI_ANY_SLOT);
    uint64_t at = fixture_bar(f, a->fn.devfn, 0), other = fixture_bar(f, b->fn.devfn, 0);
    a->memory[0] = 0xa;
    b->memory[0] = 0xb;
    fixture_config_write(f, b->fn.devfn, PCI_BAR(0), 4, at);
    assert_int_equal(io_space_read(f->env.mmio, at, 1), 0xa);
    fixture_config_write(f, a->fn.devfn, PCI_BAR(0), 4, other);
    assert_int_equal(io_space_read(f->env.mmio, at, 1), 0xb);
    assert_int_equal(io_space_read(f->env.mmio, other, 1), 0xa);
    probe_free(a);
    probe_free(b);
}

static void test_interrupt_lines(void **state)
{
    struct fixture *f = *state;
    /* Slots 1 and 5 share a line; 2 has another. */
    struct probe *a = probe_new(f, PCI_DEVFN(1, 0)), *b = probe_new(f, PCI_DEVFN(5, 0)),
                 *c = probe_new(f, PCI_DEVFN(2, 0));
    pci_set_intx(&a->fn, true);
    assert_true(f->line[17]);
    assert_false(f->line[18]);
    pci_set_intx(&b->fn, true);
    pci_set_intx(&c->fn, true);
    assert_true(f->line[18]);
    pci_set_intx(&a->fn, false);
    assert_true(f->line[17]);
    assert_int_equal(fixture_config_read(f, b->fn.devfn, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT,
                     PCI_STATUS_INTERRUPT);
    assert_int_equal(fixture_config_read(f, a->fn.devfn, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
    /* Disabled, it is pending but not seen. */
    fixture_config_write(f, b->fn.devfn, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    assert_false(f->line[17]);
    assert_int_equal(fixture_config_read(f, b->fn.devfn, PCI_STATUS, 1) & PCI_STATUS_INTERRUPT,
                     PCI_STATUS_INTERRUPT);
    fixture_config_write(f, b->fn.devfn, PCI_COMMAND, 2, 0);
    assert_true(f->line[17]);
    /* Neither reset nor removal leaves a line up. */
    pci_function_reset(&b->fn);
    assert_false(f->line[17]);
    probe_free(c);
    assert_false(f->line[18]);
    probe_free(a);
    probe_free(b);
    assert_int_equal(pci_gsi(3, 2), 17);
}

static void test_capabilities(void **state)
{
    struct fixture *f = *state;
    struct probe p;
    probe_describe(&p, f, PCI_ANY_SLOT);
    static const uint8_t body[6] = {1, 2, 3, 4, 5, 6};
    int first = pci_add_capability(&p.fn, PCI_CAP_ID_VENDOR, body, 7);
    assert_int_equal(first, 0x40);
    pci_config_writable(&p.fn, (unsigned)first + 3, 1);
    assert_int_equal(pci_add_pcie(&p.fn), 0);
    assert_int_equal(pci_add_capability(&p.fn, PCI_CAP_ID_VENDOR, body, 8), 0x84);
    assert_int_equal(pci_add_capability(&p.fn, PCI_CAP_ID_VENDOR, body, 0xff), -ENOSPC);
    assert_int_equal(pci_function_plug(&p.fn, NULL), 0);
    unsigned d = p.fn.devfn;
    assert_int_equal(fixture_config_read(f, d, PCI_STATUS, 2) & PCI_STATUS_CAPABILITIES,
                     PCI_STATUS_CAPABILITIES);
    assert_int_equal(fixture_capability(f, d, PCI_CAP_ID_VENDOR, 0), 0x40);
    assert_int_equal(fixture_capability(f, d, PCI_CAP_ID_EXPRESS, 0), 0x48);
    assert_int_equal(fixture_capability(f, d, PCI_CAP_ID_VENDOR, 1), 0x84);
    assert_int_equal(fixture_capability(f, d, PCI_CAP_ID_VENDOR, 2), 0);
    assert_int_equal(fixture_config_read(f, d, 0x4a, 2), 0x0092);
    /* Read-only but for the byte that was made writable. */
    fixture_config_write(f, d, 0x40, 8, UINT64_MAX);
    assert_int_equal(fixture_config_read(f, d, 0x40, 8), 0x00050403ff014809ull);
    pci_function_unplug(&p.fn);
    close(p.bell);
}

static void test_slots(void **state)
{
    struct fixture *f = *state;
    struct error *err = NULL;
    struct probe *all[PCI_SLOTS];
    for (unsigned i = 1; i < PCI_SLOTS; i++)
        all[i] = probe_new(f, PCI_ANY_SLOT);
    struct probe extra;
    probe_describe(&extra, f, PCI_ANY_SLOT);
    assert_int_equal(pci_function_plug(&extra.fn, &err), -ENOSPC);
    assert_non_null(err);
    error_free(err);
    pci_function_unplug(&extra.fn);
    close(extra.bell);
    probe_describe(&extra, f, PCI_DEVFN(3, 0));
    assert_int_equal(pci_function_plug(&extra.fn, NULL), -EBUSY);
    pci_function_unplug(&extra.fn);
    close(extra.bell);
    /* A second function makes the first say so. */
    assert_int_equal(fixture_config_read(f, PCI_DEVFN(3, 0), PCI_HEADER_TYPE, 1), 0);
    struct probe *second = probe_new(f, PCI_DEVFN(3, 1));
    assert_int_equal(fixture_config_read(f, PCI_DEVFN(3, 0), PCI_HEADER_TYPE, 1), PCI_HEADER_MULTIFUNCTION);
    probe_free(second);
    assert_int_equal(fixture_config_read(f, PCI_DEVFN(3, 0), PCI_HEADER_TYPE, 1), 0);
    for (unsigned i = 1; i < PCI_SLOTS; i++)
        probe_free(all[i]);
}

static void test_bad_bars(void **state)
{
    struct fixture *f = *state;
    struct probe p;
    uint64_t cell;
    probe_describe(&p, f, PCI_ANY_SLOT);
    const struct {
        unsigned index;
        enum pci_bar_type type;
        uint64_t size;
    } bad[] = {
        {0, PCI_BAR_MEM32, 0x1000}, {2, PCI_BAR_MEM32, 0x1000},     {6, PCI_BAR_MEM32, 0x1000},
        {5, PCI_BAR_MEM64, 0x1000}, {4, PCI_BAR_MEM32, 0x1800},     {4, PCI_BAR_MEM32, 8},
        {4, PCI_BAR_MEM32, 0},      {4, PCI_BAR_IO, 512},           {4, PCI_BAR_IO, 2},
        {4, PCI_BAR_NONE, 0x1000},  {4, PCI_BAR_MEM64, 1ull << 40},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        struct io_region r = region_of(&cell, bad[i].size);
        assert_int_equal(pci_add_bar(&p.fn, bad[i].index, bad[i].type, &r), -EINVAL);
    }
    assert_int_equal(pci_add_doorbell(&p.fn, 3, 0, 2, p.bell), -EINVAL);
    assert_int_equal(pci_add_doorbell(&p.fn, 0, 0xfff, 2, p.bell), -EINVAL);
    assert_int_equal(pci_add_doorbell(&p.fn, 0, 0, 3, p.bell), -EINVAL);
    pci_function_unplug(&p.fn);
    close(p.bell);
}

/* ---- Several threads: what the sanitizers look at ---- */

struct worker {
    struct fixture *f;
    struct probe *p;
    unsigned seed;
};

static void *move_and_mask(void *opaque)
{
    struct worker *w = opaque;
    unsigned d = w->p->fn.devfn;
    for (unsigned i = 0; i < 2000; i++) {
        fixture_config_write(w->f, d, PCI_BAR(0), 4, 0xd0000000 + ((i + w->seed) % 4 << 12));
        fixture_config_write(w->f, d, PCI_COMMAND, 2,
                             PCI_COMMAND_MEMORY | (i & 1 ? PCI_COMMAND_INTX_DISABLE : PCI_COMMAND_MASTER));
        io_space_read(w->f->env.mmio, 0xd0000000 + (i % 4 << 12), 4);
        fixture_config_read(w->f, d, PCI_STATUS, 2);
    }
    return NULL;
}

static void *interrupt_often(void *opaque)
{
    struct worker *w = opaque;
    for (unsigned i = 0; i < 20000; i++)
        pci_set_intx(&w->p->fn, i & 1);
    return NULL;
}

static void test_threads(void **state)
{
    struct fixture *f = *state;
    struct probe *a = probe_new(f, PCI_DEVFN(1, 0)), *b = probe_new(f, PCI_DEVFN(5, 0));
    struct worker work[] = {{f, a, 0}, {f, b, 1}, {f, a, 2}, {f, b, 3}};
    pthread_t threads[ARRAY_SIZE(work)];
    for (unsigned i = 0; i < ARRAY_SIZE(work); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, i < 2 ? move_and_mask : interrupt_often, &work[i]),
                         0);
    for (unsigned i = 0; i < ARRAY_SIZE(work); i++)
        pthread_join(threads[i], NULL);
    /* Both ended with their interrupt on but disabled. */
    assert_false(f->line[17]);
    fixture_config_write(f, a->fn.devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    fixture_config_write(f, b->fn.devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(f->line[17]);
    pci_set_intx(&a->fn, false);
    assert_true(f->line[17]);
    pci_set_intx(&b->fn, false);
    assert_false(f->line[17]);
    probe_free(a);
    probe_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_header, setup, teardown),
        cmocka_unit_test_setup_teardown(test_host_bridge_and_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_control, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_sizing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_placement, setup, teardown),
        cmocka_unit_test_setup_teardown(test_decoding, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bar_conflict, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_capabilities, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_bars, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };
    return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
