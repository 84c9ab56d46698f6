/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of the PCI transport and of negotiation: register widths, status and features, vectors, INTx, the
 * access window, and everything a driver may get wrong before a queue runs.
 */
#include "base/bytes.h"
#include "base/error.h"
#include "device/msix.h"
#include "echo.h"

#include <errno.h>
#include <stdlib.h>

ECHO_SETUP(split, RINGS_SPLIT | RINGS_ALL)
ECHO_SETUP(packed, RINGS_PACKED)

#define STATUS_STARTED                                                                                       \
    (VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK | VIRTIO_STATUS_DRIVER_OK)

static void test_identity(void **state)
{
    struct echo *e = *state;
    assert_int_equal(fixture_config_read(&e->f, e->d.devfn, PCI_VENDOR_ID, 4), (0x1040u + 60) << 16 | 0x1af4);
    assert_in_range(fixture_config_read(&e->f, e->d.devfn, PCI_REVISION, 1), 1, 255);
    assert_in_range(fixture_config_read(&e->f, e->d.devfn, PCI_SUBSYSTEM, 2), 0x40, 0xffff);
    assert_int_equal(fixture_config_read(&e->f, e->d.devfn, PCI_INTERRUPT_PIN, 1), 1);
    assert_int_equal(driver_read(&e->d, C_NUM_QUEUES, 2), 1);
    /* No device configuration, no capability for it. */
    assert_int_equal(e->d.config, 0);
    assert_int_equal(driver_offered(&e->d), RINGS_PACKED | RINGS_ALL);
    driver_write(&e->d, C_DEVICE_FEATURE_SELECT, 4, 2);
    assert_int_equal(driver_read(&e->d, C_DEVICE_FEATURE, 4), 0);
}

static void test_registers_read_back(void **state)
{
    struct echo *e = *state;
    assert_int_equal(driver_read(&e->d, C_QUEUE_DESC, 8), e->q.desc);
    assert_int_equal(driver_read(&e->d, C_QUEUE_DRIVER, 8), e->q.driver);
    assert_int_equal(driver_read(&e->d, C_QUEUE_DEVICE + 4, 4), 0);
    assert_int_equal(driver_read(&e->d, C_QUEUE_DEVICE, 4), e->q.device);
    assert_int_equal(driver_read(&e->d, C_QUEUE_ENABLE, 2), 1);
    assert_int_equal(driver_read(&e->d, C_QUEUE_NOTIFY_DATA, 2), 0);
    assert_int_equal(driver_read(&e->d, C_DRIVER_FEATURE_SELECT, 4), 1);
    assert_int_equal(driver_read(&e->d, C_DRIVER_FEATURE, 4), e->features >> 32);
    /* Any width at any place reads the same bytes. */
    uint8_t whole[0x3c];
    for (unsigned i = 0; i < sizeof(whole); i++)
        whole[i] = (uint8_t)driver_read(&e->d, i, 1);
    for (unsigned size = 2; size <= 8; size *= 2)
        for (unsigned i = 0; i + size <= sizeof(whole); i++) {
            uint64_t v = driver_read(&e->d, i, size);
            assert_memory_equal(&v, whole + i, size);
        }
    assert_int_equal(driver_read(&e->d, 0x3c, 4), 0);
    assert_int_equal(driver_read(&e->d, 0xffc, 8), 0);
}

static void test_features(void **state)
{
    struct echo *e = *state;
    /* More than is offered, and less than version 1. */
    assert_false(driver_negotiate(&e->d, RINGS_SPLIT | 1));
    assert_false(driver_negotiate(&e->d, RINGS_SPLIT | VIRTIO_FEATURE(33)));
    assert_false(driver_negotiate(&e->d, RINGS_SPLIT | VIRTIO_FEATURE(63)));
    assert_false(driver_negotiate(&e->d, 0));
    assert_int_equal(driver_status(&e->d), VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
    /* Once agreed upon, they stay. */
    assert_true(driver_negotiate(&e->d, RINGS_SPLIT));
    driver_write(&e->d, C_DRIVER_FEATURE_SELECT, 4, 0);
    driver_write(&e->d, C_DRIVER_FEATURE, 4, 0xffffffff);
    assert_int_equal(driver_read(&e->d, C_DRIVER_FEATURE, 4), 0);
    driver_write(&e->d, C_DRIVER_FEATURE_SELECT, 4, 7);
    driver_write(&e->d, C_DRIVER_FEATURE, 4, 0xffffffff);
    assert_int_equal(e->vdev.driver_features, RINGS_SPLIT);
}

static void test_status(void **state)
{
    struct echo *e = *state;
    assert_int_equal(driver_status(&e->d), STATUS_STARTED);
    /* Bits can't be taken back, nor can the driver set the device's own or unknown ones. */
    driver_write(&e->d, C_STATUS, 1, VIRTIO_STATUS_ACKNOWLEDGE);
    assert_int_equal(driver_status(&e->d), STATUS_STARTED);
    driver_write(&e->d, C_STATUS, 1, VIRTIO_STATUS_NEEDS_RESET | 0x30);
    assert_int_equal(driver_status(&e->d), STATUS_STARTED);
    driver_write(&e->d, C_STATUS, 1, VIRTIO_STATUS_FAILED);
    assert_int_equal(driver_status(&e->d), STATUS_STARTED | VIRTIO_STATUS_FAILED);
    /* Only a write of one byte at its place is a status write. */
    driver_write(&e->d, C_STATUS, 2, 0);
    driver_write(&e->d, C_STATUS, 4, 0);
    assert_int_equal(driver_status(&e->d), STATUS_STARTED | VIRTIO_STATUS_FAILED);
    driver_write(&e->d, C_STATUS, 1, 0);
    assert_int_equal(driver_status(&e->d), 0);
    /* Ready without agreement. */
    driver_write(&e->d, C_STATUS, 1, VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER_OK);
    assert_int_equal(driver_status(&e->d), VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_NEEDS_RESET);
    echo_restart(e);
    echo_once(e, 1, false);
}

static bool broken(struct echo *e)
{
    return driver_status(&e->d) & VIRTIO_STATUS_NEEDS_RESET;
}

static void test_bad_queue_setup(void **state)
{
    struct echo *e = *state;
    const struct {
        unsigned offset, size;
        uint64_t value;
    } bad[] = {
        {C_QUEUE_SIZE, 2, 0},
        {C_QUEUE_SIZE, 2, 2 * QUEUE_SIZE},
        {C_QUEUE_SIZE, 2, 0xffff},
        {C_QUEUE_DESC, 8, DRIVER_RINGS + 8},
        {C_QUEUE_DESC, 8, FIXTURE_RAM - 16},
        {C_QUEUE_DESC, 8, UINT64_MAX - 15},
        {C_QUEUE_DRIVER, 8, DRIVER_RINGS + 1},
        {C_QUEUE_DRIVER, 8, FIXTURE_RAM},
        {C_QUEUE_DEVICE, 8, DRIVER_RINGS + 2},
        {C_QUEUE_DEVICE, 8, 0xfffffffffffffffcull},
        {C_QUEUE_DEVICE, 8, PCI_ECAM_BASE},
        {C_QUEUE_ENABLE, 2, 0},
        {C_QUEUE_ENABLE, 2, 2},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_true(driver_negotiate(&e->d, e->features));
        driver_write(&e->d, C_QUEUE_SELECT, 2, 0);
        driver_write(&e->d, C_QUEUE_DESC, 8, DRIVER_RINGS);
        driver_write(&e->d, C_QUEUE_DRIVER, 8, DRIVER_RINGS + 0x1000);
        driver_write(&e->d, C_QUEUE_DEVICE, 8, DRIVER_RINGS + 0x2000);
        assert_false(broken(e));
        driver_write(&e->d, bad[i].offset, bad[i].size, bad[i].value);
        driver_write(&e->d, C_QUEUE_ENABLE, 2, 1);
        assert_true(broken(e));
        driver_ready(&e->d);
        driver_kick(&e->q);
    }
    /* A size that is no power of two suits packed rings only. */
    assert_true(driver_negotiate(&e->d, e->features));
    driver_queue_init(&e->q, &e->d, 0, 12);
    assert_int_equal(broken(e), !e->q.packed);
    /* Changing what is in use. */
    echo_restart(e);
    driver_write(&e->d, C_QUEUE_DESC, 4, 0);
    assert_true(broken(e));
    echo_restart(e);
    driver_write(&e->d, C_QUEUE_SIZE, 2, 8);
    assert_true(broken(e));
    /* Before FEATURES_OK. */
    driver_write(&e->d, C_STATUS, 1, 0);
    driver_write(&e->d, C_QUEUE_ENABLE, 2, 1);
    assert_true(broken(e));
    assert_int_equal(driver_read(&e->d, C_QUEUE_ENABLE, 2), 0);
    echo_restart(e);
    echo_once(e, 2, false);
}

static void test_missing_queues(void **state)
{
    struct echo *e = *state;
    static const uint16_t missing[] = {1, 2, 0x8000, 0xffff};
    for (unsigned i = 0; i < ARRAY_SIZE(missing); i++) {
        driver_write(&e->d, C_QUEUE_SELECT, 2, missing[i]);
        assert_int_equal(driver_read(&e->d, C_QUEUE_SELECT, 2), missing[i]);
        assert_int_equal(driver_read(&e->d, C_QUEUE_SIZE, 2), 0);
        assert_int_equal(driver_read(&e->d, C_QUEUE_ENABLE, 2), 0);
        for (unsigned at = C_QUEUE_SIZE; at < 0x40; at += 2)
            driver_write(&e->d, at, 2, 1);
        for (unsigned at = C_QUEUE_DESC; at < C_QUEUE_NOTIFY_DATA; at += 8)
            driver_write(&e->d, at, 8, 0);
        assert_int_equal(driver_read(&e->d, C_QUEUE_ENABLE, 2), 0);
    }
    /* Notifications for them, too. */
    for (uint64_t at = 0; at < 0x1000; at += 4)
        io_space_write(e->f.env.mmio, e->d.notify + at, 4, at);
    fixture_run_loop(&e->f);
    assert_int_equal(driver_status(&e->d), STATUS_STARTED);
    echo_once(e, 3, false);
}

/* A notification is one at any width and with any value, and reads of the doorbell give nothing. */
static void test_notification_widths(void **state)
{
    struct echo *e = *state;
    for (unsigned size = 1; size <= 8; size *= 2) {
        unsigned before = e->notified;
        io_space_write(e->f.env.mmio, e->q.doorbell, size, 0xdead);
        fixture_run_loop(&e->f);
        assert_int_equal(e->notified, before + 1);
        assert_int_equal(io_space_read(e->f.env.mmio, e->q.doorbell, size), 0);
    }
}

static void test_vectors(void **state)
{
    struct echo *e = *state;
    const struct piece piece = {DRIVER_BUFFERS, 1, true};
    /* Vectors that do not exist read back as none. */
    driver_write(&e->d, C_CONFIG_VECTOR, 2, 2);
    assert_int_equal(driver_read(&e->d, C_CONFIG_VECTOR, 2), 0xffff);
    driver_write(&e->d, C_CONFIG_VECTOR, 2, 0);
    assert_int_equal(driver_read(&e->d, C_CONFIG_VECTOR, 2), 0);
    driver_write(&e->d, C_QUEUE_SELECT, 2, 0);
    driver_write(&e->d, C_QUEUE_VECTOR, 2, 0xfffe);
    assert_int_equal(driver_read(&e->d, C_QUEUE_VECTOR, 2), 0xffff);
    /* Without a vector, no message. */
    driver_want_interrupt(&e->q, 0);
    driver_add(&e->q, &piece, 1, false);
    driver_kick(&e->q);
    assert_int_equal(e->f.n_messages, 0);
    uint32_t id, len;
    assert_true(driver_used(&e->q, &id, &len));
    /* Configuration changes and faults have a vector of their own. */
    fixture_msix_vector(&e->f, e->d.devfn, 0, 0x40);
    uint8_t generation = (uint8_t)driver_read(&e->d, C_GENERATION, 1);
    pthread_mutex_lock(&e->vdev.lock);
    virtio_config_changed(&e->vdev);
    pthread_mutex_unlock(&e->vdev.lock);
    assert_int_equal(e->f.n_messages, 1);
    assert_int_equal(e->f.messages[0].data, 0x40);
    assert_int_not_equal(driver_read(&e->d, C_GENERATION, 1), generation);
    driver_write(&e->d, C_QUEUE_SIZE, 2, 0);
    assert_int_equal(e->f.n_messages, 2);
    assert_int_equal(e->f.messages[1].data, 0x40);
    /* With MSI-X on, the line stays quiet. */
    assert_int_equal(e->f.line_changes, 0);
}

static void test_intx(void **state)
{
    struct echo *e = *state;
    const struct piece piece = {DRIVER_BUFFERS, 1, true};
    unsigned gsi = pci_gsi(e->d.devfn / PCI_SLOT_FUNCS, 0);
    fixture_msix_control(&e->f, e->d.devfn, 0);
    driver_want_interrupt(&e->q, 0);
    driver_add(&e->q, &piece, 1, false);
    driver_kick(&e->q);
    assert_true(e->f.line[gsi]);
    assert_int_equal(e->f.n_messages, 0);
    /* Reading the cause takes it away. */
    assert_int_equal(io_space_read(e->f.env.mmio, e->d.isr, 1), 1);
    assert_false(e->f.line[gsi]);
    assert_int_equal(io_space_read(e->f.env.mmio, e->d.isr, 1), 0);
    pthread_mutex_lock(&e->vdev.lock);
    virtio_config_changed(&e->vdev);
    pthread_mutex_unlock(&e->vdev.lock);
    assert_true(e->f.line[gsi]);
    /* So does a reset. */
    driver_write(&e->d, C_STATUS, 1, 0);
    assert_false(e->f.line[gsi]);
    assert_int_equal(io_space_read(e->f.env.mmio, e->d.isr, 1), 0);
}

/* The window of VIRTIO_PCI_CAP_PCI_CFG, as firmware uses it that can't map BARs. */
static void window(struct echo *e, uint8_t bar, uint32_t offset, uint32_t length, unsigned *data)
{
    unsigned cap = 0;
    for (unsigned n = 0;; n++) {
        cap = fixture_capability(&e->f, e->d.devfn, PCI_CAP_ID_VENDOR, n);
        assert_int_not_equal(cap, 0);
        if (fixture_config_read(&e->f, e->d.devfn, cap + 3, 1) == 5)
            break;
    }
    fixture_config_write(&e->f, e->d.devfn, cap + 4, 1, bar);
    fixture_config_write(&e->f, e->d.devfn, cap + 8, 4, offset);
    fixture_config_write(&e->f, e->d.devfn, cap + 12, 4, length);
    *data = cap + 16;
}

static void test_access_window(void **state)
{
    struct echo *e = *state;
    unsigned data;
    uint32_t common = (uint32_t)(e->d.common - fixture_bar(&e->f, e->d.devfn, 0));
    window(e, 0, common + C_STATUS, 1, &data);
    assert_int_equal(fixture_config_read(&e->f, e->d.devfn, data, 1), STATUS_STARTED);
    window(e, 0, common + C_NUM_QUEUES, 2, &data);
    assert_int_equal(fixture_config_read(&e->f, e->d.devfn, data, 2), 1);
    /* Also while the BAR does not answer. */
    fixture_config_write(&e->f, e->d.devfn, PCI_COMMAND, 2, PCI_COMMAND_MASTER);
    window(e, 0, common + C_DRIVER_FEATURE_SELECT, 4, &data);
    fixture_config_write(&e->f, e->d.devfn, data, 4, 0x12345678);
    assert_int_equal(fixture_config_read(&e->f, e->d.devfn, data, 4), 0x12345678);
    unsigned before = e->notified;
    window(e, 0, (uint32_t)(e->d.notify - fixture_bar(&e->f, e->d.devfn, 0)), 2, &data);
    fixture_config_write(&e->f, e->d.devfn, data, 2, 0);
    fixture_run_loop(&e->f);
    assert_int_equal(e->notified, before + 1);
    window(e, 0, common + C_STATUS, 1, &data);
    fixture_config_write(&e->f, e->d.devfn, data, 1, 0);
    assert_int_equal(e->vdev.status, 0);
    /* Targets that are none. */
    static const struct {
        uint8_t bar;
        uint32_t offset, length;
    } bad[] = {{1, 0, 4}, {2, 0, 4}, {255, 0, 4},        {0, 0, 0},      {0, 0, 3},
               {0, 0, 8}, {0, 1, 4}, {0, 0xfffffffc, 4}, {0, 0x4000, 4}, {0, 0, 0xffffffff},
               {0, 3, 2}, {0, 2, 4}, {0, 0x7fffffff, 1}};
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        window(e, bad[i].bar, bad[i].offset, bad[i].length, &data);
        fixture_config_write(&e->f, e->d.devfn, data, 4, 0x0f0f0f0f);
        /* A scratch register then. */
        assert_int_equal(fixture_config_read(&e->f, e->d.devfn, data, 4), 0x0f0f0f0f);
    }
    assert_int_equal(e->vdev.status, 0);
}

static void test_power_on(void **state)
{
    struct echo *e = *state;
    echo_once(e, 1, false);
    uint64_t home = fixture_bar(&e->f, e->d.devfn, 0);
    fixture_config_write(&e->f, e->d.devfn, PCI_BAR(0), 4, 0xd0000000);
    virtio_device_power_on(&e->vdev.device);
    assert_int_equal(fixture_bar(&e->f, e->d.devfn, 0), home);
    assert_int_equal(driver_status(&e->d), 0);
    unsigned msix = fixture_capability(&e->f, e->d.devfn, PCI_CAP_ID_MSIX, 0);
    assert_int_equal(fixture_config_read(&e->f, e->d.devfn, msix + MSIX_CONTROL, 2) & MSIX_ENABLE, 0);
    assert_int_equal(driver_read(&e->d, C_QUEUE_VECTOR, 2), 0xffff);
    echo_restart(e);
    echo_once(e, 2, false);
}

/* A queue that was not reset-negotiated can't be reset alone. */
static void test_queue_reset_needs_feature(void **state)
{
    struct echo *e = *state;
    driver_write(&e->d, C_QUEUE_SELECT, 2, 0);
    driver_write(&e->d, C_QUEUE_RESET, 2, 1);
    assert_int_equal(driver_read(&e->d, C_QUEUE_ENABLE, 2), 1);
    assert_int_equal(e->queue_resets, 0);
}

/* Every write of every width to every register, with values that hit fields: the device may need a reset, and
 * works after one. */
static void test_any_write(void **state)
{
    struct echo *e = *state;
    static const uint64_t values[] = {0, 1, 2, 0xff, 0xffff, UINT64_MAX, DRIVER_RINGS};
    uint64_t base = fixture_bar(&e->f, e->d.devfn, 0);
    for (unsigned v = 0; v < ARRAY_SIZE(values); v++)
        for (unsigned size = 1; size <= 8; size *= 2)
            for (uint64_t at = 0; at < 0x4000; at += at % 0x1000 < 0x40 ? 1 : 0xfbf) {
                io_space_write(e->f.env.mmio, base + at, size, values[v]);
                io_space_read(e->f.env.mmio, base + at, size);
            }
    fixture_run_loop(&e->f);
    echo_restart(e);
    echo_once(e, 4, false);
}

/* What its author got wrong is said when the device is made, not when a guest finds it. */
static void test_unsound_classes(void **state)
{
    struct echo *e = *state;
    static const uint16_t good[] = {64}, odd[] = {48}, none[] = {0}, large[] = {2 * VIRTQUEUE_MAX_SIZE};
    static const struct virtio_device_class bad[] = {
        {.n_queues = 0, .queue_max = good},
        {.n_queues = VIRTIO_MAX_QUEUES + 1, .queue_max = good},
        {.n_queues = 1, .queue_max = odd},
        {.n_queues = 1, .queue_max = none},
        {.n_queues = 1, .queue_max = large},
        {.n_queues = 1, .queue_max = good, .config_size = VIRTIO_MAX_CONFIG + 1},
        {.n_queues = 1, .queue_max = good, .config_size = 4},
    };
    static const struct device_class class = {.name = "unsound"};
    struct virtio_device vdev;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(virtio_device_init(&vdev, &class, &bad[i], &e->f.env, NULL, NULL), -EINVAL);
    /* A machine without PCI has no place for it. */
    struct device_env bare = e->f.env;
    struct error *err = NULL;
    const struct virtio_device_class fine = {.n_queues = 1, .queue_max = good};
    bare.pci = NULL;
    assert_int_equal(virtio_device_init(&vdev, &class, &fine, &bare, NULL, NULL), 0);
    assert_int_equal(virtio_device_plug(&vdev, &err), -ENODEV);
    assert_non_null(strstr(error_message(err), "unsound: "));
    error_free(err);
    virtio_device_fini(&vdev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ECHO_TEST(test_identity, split),
        ECHO_TEST(test_registers_read_back, split),
        ECHO_TEST(test_features, split),
        ECHO_TEST(test_status, split),
        ECHO_TEST(test_bad_queue_setup, split),
        ECHO_TEST(test_bad_queue_setup, packed),
        ECHO_TEST(test_missing_queues, split),
        ECHO_TEST(test_notification_widths, split),
        ECHO_TEST(test_vectors, split),
        ECHO_TEST(test_intx, split),
        ECHO_TEST(test_access_window, split),
        ECHO_TEST(test_power_on, split),
        ECHO_TEST(test_queue_reset_needs_feature, packed),
        ECHO_TEST(test_any_write, split),
        ECHO_TEST(test_any_write, packed),
        ECHO_TEST(test_unsound_classes, split),
    };
    return cmocka_run_group_tests_name("virtio pci", tests, NULL, NULL);
}
