/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tests of MSI-X: the table and the pending bits in their BAR, every way to mask, and what sends. */
#include "base/bytes.h"
#include "device/msix.h"
#include "pci_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define VECTORS 70u

struct rig {
    struct fixture f;
    struct pci_function fn;
    unsigned capability;
    uint64_t table, pending;
};

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    if (!r)
        return -1;
    fixture_init(&r->f);
    const struct pci_function_config config = {.vendor = 1, .device = 2, .intx = true, .devfn = PCI_ANY_SLOT};
    pci_function_init(&r->fn, r->f.env.pci, &config, NULL);
    if (pci_add_msix(&r->fn, 4, VECTORS) < 0 || pci_function_plug(&r->fn, NULL) < 0)
        return -1;
    r->capability = fixture_capability(&r->f, r->fn.devfn, PCI_CAP_ID_MSIX, 0);
    uint64_t base = fixture_bar(&r->f, r->fn.devfn, 4);
    r->table = base + (fixture_config_read(&r->f, r->fn.devfn, r->capability + 4, 4) & ~7ull);
    r->pending = base + (fixture_config_read(&r->f, r->fn.devfn, r->capability + 8, 4) & ~7ull);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    pci_function_unplug(&r->fn);
    fixture_fini(&r->f);
    free(r);
    return 0;
}

static uint64_t rd(struct rig *r, uint64_t at, unsigned size)
{
    return io_space_read(r->f.env.mmio, at, size);
}

static void wr(struct rig *r, uint64_t at, unsigned size, uint64_t v)
{
    io_space_write(r->f.env.mmio, at, size, v);
}

static void test_capability(void **state)
{
    struct rig *r = *state;
    assert_int_not_equal(r->capability, 0);
    assert_int_equal(fixture_config_read(&r->f, r->fn.devfn, r->capability + 2, 2), VECTORS - 1);
    assert_int_equal(fixture_config_read(&r->f, r->fn.devfn, r->capability + 4, 4) & 7, 4);
    assert_int_equal(fixture_config_read(&r->f, r->fn.devfn, r->capability + 8, 4) & 7, 4);
    /* The number of vectors can't be changed, the two control bits can. */
    fixture_msix_control(&r->f, r->fn.devfn, 0xffff);
    assert_int_equal(fixture_config_read(&r->f, r->fn.devfn, r->capability + 2, 2),
                     MSIX_ENABLE | MSIX_FUNCTION_MASK | (VECTORS - 1));
}

static void test_table_access(void **state)
{
    struct rig *r = *state;
    uint64_t entry = r->table + (VECTORS - 1) * MSIX_ENTRY_SIZE;
    assert_int_equal(rd(r, entry + 12, 4), MSIX_ENTRY_MASKED);
    wr(r, entry, 8, 0x1122334455667788);
    assert_int_equal(rd(r, entry, 8), 0x1122334455667788);
    assert_int_equal(rd(r, entry + 4, 4), 0x11223344);
    /* Reserved bits of vector control stay clear. */
    wr(r, entry + 8, 8, 0xffffffff00000005);
    assert_int_equal(rd(r, entry + 8, 8), 0x0000000100000005);
    /* Accesses that are not defined: reads are harmless, writes do nothing. */
    wr(r, entry, 1, 0xff);
    wr(r, entry, 2, 0xffff);
    wr(r, entry + 2, 4, 0xffffffff);
    assert_int_equal(rd(r, entry, 8), 0x1122334455667788);
    assert_int_equal(rd(r, entry + 1, 2), 0x6677);
    assert_int_equal(rd(r, entry + MSIX_ENTRY_SIZE, 8), 0);
    wr(r, entry + MSIX_ENTRY_SIZE, 8, UINT64_MAX);
    wr(r, entry + 12, 8, UINT64_MAX);
    assert_int_equal(rd(r, entry + MSIX_ENTRY_SIZE, 8), 0);
}

static void test_sends(void **state)
{
    struct rig *r = *state;
    fixture_msix_vector(&r->f, r->fn.devfn, 3, 0x4041);
    msix_send(&r->fn, 3);
    assert_int_equal(r->f.n_messages, 0); /* not enabled: not even pending */
    assert_int_equal(rd(r, r->pending, 8), 0);
    fixture_msix_control(&r->f, r->fn.devfn, MSIX_ENABLE);
    assert_true(msix_enabled(&r->fn));
    msix_send(&r->fn, 3);
    assert_int_equal(r->f.n_messages, 1);
    assert_int_equal(r->f.messages[0].address, 0xfee00000);
    assert_int_equal(r->f.messages[0].data, 0x4041);
    msix_send(&r->fn, VECTORS);
    msix_send(&r->fn, 0xffff);
    assert_int_equal(r->f.n_messages, 1);
}

static void test_masks(void **state)
{
    struct rig *r = *state;
    fixture_msix_vector(&r->f, r->fn.devfn, 69, 0x77);
    fixture_msix_control(&r->f, r->fn.devfn, MSIX_ENABLE);
    uint64_t control = r->table + 69 * MSIX_ENTRY_SIZE + MSIX_ENTRY_CONTROL;
    /* Vector mask: pending, once, until unmasked. */
    wr(r, control, 4, MSIX_ENTRY_MASKED);
    msix_send(&r->fn, 69);
    msix_send(&r->fn, 69);
    assert_int_equal(r->f.n_messages, 0);
    assert_int_equal(rd(r, r->pending + 8, 8), 1ull << 5);
    wr(r, r->pending + 8, 8, 0); /* read-only */
    wr(r, control, 4, 0);
    assert_int_equal(r->f.n_messages, 1);
    assert_int_equal(rd(r, r->pending + 8, 8), 0);
    /* Function mask. */
    fixture_msix_control(&r->f, r->fn.devfn, MSIX_ENABLE | MSIX_FUNCTION_MASK);
    msix_send(&r->fn, 69);
    assert_int_equal(r->f.n_messages, 1);
    fixture_msix_control(&r->f, r->fn.devfn, MSIX_ENABLE);
    assert_int_equal(r->f.n_messages, 2);
    /* No bus mastering, no messages. */
    fixture_config_write(&r->f, r->fn.devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    msix_send(&r->fn, 69);
    assert_int_equal(r->f.n_messages, 2);
    fixture_config_write(&r->f, r->fn.devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(r->f.n_messages, 3);
}

/* Switching to MSI-X takes the function off its line, and back. */
static void test_line(void **state)
{
    struct rig *r = *state;
    unsigned gsi = pci_gsi(r->fn.devfn / PCI_SLOT_FUNCS, 0);
    pci_set_intx(&r->fn, true);
    assert_true(r->f.line[gsi]);
    fixture_msix_control(&r->f, r->fn.devfn, MSIX_ENABLE);
    assert_false(r->f.line[gsi]);
    fixture_msix_control(&r->f, r->fn.devfn, 0);
    assert_true(r->f.line[gsi]);
}

static void test_reset(void **state)
{
    struct rig *r = *state;
    fixture_msix_vector(&r->f, r->fn.devfn, 1, 0x33);
    fixture_msix_control(&r->f, r->fn.devfn, MSIX_ENABLE | MSIX_FUNCTION_MASK);
    msix_send(&r->fn, 1);
    assert_int_equal(rd(r, r->pending, 4), 2);
    pci_function_reset(&r->fn);
    assert_false(msix_enabled(&r->fn));
    assert_int_equal(rd(r, r->pending, 4), 0);
    assert_int_equal(rd(r, r->table + MSIX_ENTRY_SIZE, 8), 0);
    assert_int_equal(rd(r, r->table + MSIX_ENTRY_SIZE + 8, 8), (uint64_t)MSIX_ENTRY_MASKED << 32);
    assert_int_equal(r->f.n_messages, 0);
}

static void test_bad_descriptions(void **state)
{
    struct rig *r = *state;
    struct pci_function *fn = calloc(1, sizeof(*fn));
    assert_non_null(fn);
    const struct pci_function_config config = {.devfn = PCI_ANY_SLOT};
    pci_function_init(fn, r->f.env.pci, &config, NULL);
    assert_int_equal(pci_add_msix(fn, 0, 0), -EINVAL);
    assert_int_equal(pci_add_msix(fn, 0, MSIX_MAX_VECTORS + 1), -EINVAL);
    assert_int_equal(pci_add_msix(fn, 6, 1), -EINVAL);
    assert_int_equal(pci_add_msix(fn, 0, MSIX_MAX_VECTORS), 0);
    assert_int_equal(pci_add_msix(fn, 1, 1), -EINVAL);
    pci_function_unplug(fn);
    free(fn);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_capability, setup, teardown),
        cmocka_unit_test_setup_teardown(test_table_access, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_masks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_descriptions, setup, teardown),
    };
    return cmocka_run_group_tests_name("msix", tests, NULL, NULL);
}
