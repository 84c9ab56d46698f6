/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ACPI's fixed power-management hardware (ACPI 6.5, 4.8.3): PM1 event and control registers with soft off and
 * the power button, and the power-management timer. Its registers are used by vCPU threads, the timer by the
 * loop's thread; `lock` covers all state.
 *
 *   +0 PM1 status    15 WAK  10 RTC  8 PWRBTN  5 GBL  0 TMR   (write 1 to clear)
 *   +2 PM1 enable            10 RTC  8 PWRBTN  5 GBL  0 TMR
 *   +4 PM1 control   13 SLP_EN  12-10 SLP_TYP  0 SCI_EN (always on: there is no legacy mode)
 *   +8 PM timer, 32 bits
 */
#include "device/acpi_pm.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/device.h"
#include "host/loop.h"

#include <errno.h>

#define STATUS_TIMER  0x0001u
#define STATUS_GLOBAL 0x0020u
#define STATUS_POWER  0x0100u
#define STATUS_RTC    0x0400u
#define STATUS_WAKE   0x8000u
#define STATUS_ALL    (STATUS_TIMER | STATUS_GLOBAL | STATUS_POWER | STATUS_RTC | STATUS_WAKE)
#define ENABLE_ALL    (STATUS_TIMER | STATUS_GLOBAL | STATUS_POWER | STATUS_RTC)

#define CONTROL_SCI_EN    0x0001u
#define CONTROL_SLP_TYP   0x1c00u
#define CONTROL_SLP_SHIFT 10
#define CONTROL_SLP_EN    0x2000u
#define CONTROL_WRITABLE  (CONTROL_SLP_TYP | 0x0006u) /* and BM_RLD, GBL_RLS, which do nothing here */
#define TIMER_CARRY_SHIFT 31                          /* TMR_STS rises whenever this bit changes */
#define NANOSECONDS       1000000000u

struct acpi_pm {
    struct device device;
    struct io_region region;
    struct loop_timer *carry_timer; /* armed while a change of the timer's top bit must interrupt */
    pthread_mutex_t lock;
    uint64_t started; /* loop_now() when the timer was 0 */
    uint64_t carries; /* changes of the timer's top bit that STATUS_TIMER has taken in */
    uint16_t status, enable, control;
};

/* Since power-on; the register shows the low 32 bits. */
static uint64_t timer_ticks(const struct acpi_pm *pm)
{
    return (uint64_t)((unsigned __int128)(loop_now() - pm->started) * ACPI_PM_TIMER_HZ / NANOSECONDS);
}

/* Brings the status, the interrupt and the host's timer in line with the time and the registers. */
static void update_locked(struct acpi_pm *pm)
{
    const struct device_env *env = pm->device.env;
    uint64_t carries = timer_ticks(pm) >> TIMER_CARRY_SHIFT;

    if (carries != pm->carries)
        pm->status |= STATUS_TIMER;
    pm->carries = carries;
    if (pm->enable & STATUS_TIMER && !(pm->status & STATUS_TIMER)) {
        unsigned __int128 next = (unsigned __int128)(carries + 1) << TIMER_CARRY_SHIFT;

        loop_timer_arm(pm->carry_timer, pm->started + (uint64_t)(next * NANOSECONDS / ACPI_PM_TIMER_HZ) + 1);
    } else {
        loop_timer_disarm(pm->carry_timer);
    }
    env->irq_set(env->opaque, ACPI_PM_GSI, pm->status & pm->enable & ENABLE_ALL);
}

static void on_carry(void *opaque)
{
    struct acpi_pm *pm = opaque;
    LOCK_SCOPE(&pm->lock);

    update_locked(pm);
}

/* All registers side by side, so that an access may have any width at any offset. */
static void registers_locked(struct acpi_pm *pm, uint8_t image[ACPI_PM_SIZE + 8])
{
    memset(image, 0, ACPI_PM_SIZE + 8);
    put_le16(image, pm->status);
    put_le16(image + 2, pm->enable);
    put_le16(image + 4, pm->control | CONTROL_SCI_EN);
    put_le32(image + 8, (uint32_t)timer_ticks(pm));
}

static uint64_t pm_read(void *opaque, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = opaque;
    uint8_t image[ACPI_PM_SIZE + 8];
    LOCK_SCOPE(&pm->lock);

    /* The timer is what is read often; it needs nothing but the time. */
    if (offset < 8)
        update_locked(pm);
    registers_locked(pm, image);
    uint64_t v = get_le64(image + offset);
    return size < 8 ? v & ((1ull << (8 * size)) - 1) : v;
}

/* Whether the register's bytes [at, at+2) are touched by the write; *value is then old with the new bytes in
 * it. */
static bool written(uint64_t offset, unsigned size, uint64_t value, unsigned at, uint16_t old,
                    uint16_t *merged)
{
    bool any = false;

    *merged = old;
    for (unsigned i = 0; i < size; i++) {
        if (offset + i != at && offset + i != at + 1)
            continue;
        unsigned shift = offset + i == at ? 0 : 8;
        *merged = (uint16_t)((*merged & ~(0xffu << shift)) | (value >> (8 * i) & 0xff) << shift);
        any = true;
    }
    return any;
}

static void pm_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct acpi_pm *pm = opaque;
    const struct device_env *env = pm->device.env;
    bool power_off = false;
    uint16_t v;

    pthread_mutex_lock(&pm->lock);
    update_locked(pm);
    if (written(offset, size, value, 0, 0, &v))
        pm->status &= (uint16_t) ~(v & STATUS_ALL);
    if (written(offset, size, value, 2, pm->enable, &v))
        pm->enable = v & ENABLE_ALL;
    if (written(offset, size, value, 4, pm->control, &v)) {
        pm->control = v & CONTROL_WRITABLE;
        power_off = v & CONTROL_SLP_EN && (v & CONTROL_SLP_TYP) >> CONTROL_SLP_SHIFT == ACPI_PM_SLEEP_S5;
    }
    update_locked(pm);
    pthread_mutex_unlock(&pm->lock);
    if (power_off)
        env->event(env->opaque, MACHINE_POWEROFF, 0);
}

void acpi_pm_press_power_button(struct device *device)
{
    struct acpi_pm *pm = container_of(device, struct acpi_pm, device);
    LOCK_SCOPE(&pm->lock);

    pm->status |= STATUS_POWER;
    update_locked(pm);
}

static void acpi_pm_reset(struct device *device)
{
    struct acpi_pm *pm = container_of(device, struct acpi_pm, device);
    LOCK_SCOPE(&pm->lock);

    pm->status = pm->enable = pm->control = 0;
    pm->started = loop_now();
    pm->carries = 0;
    update_locked(pm);
}

static void acpi_pm_destroy(struct device *device)
{
    struct acpi_pm *pm = container_of(device, struct acpi_pm, device);

    io_space_remove(device->env->pio, &pm->region);
    loop_timer_free(pm->carry_timer);
    pthread_mutex_destroy(&pm->lock);
    free(pm);
}

static int acpi_pm_create(struct device **out, const struct device_env *env, const void *config,
                          struct error **err)
{
    struct acpi_pm *pm = calloc(1, sizeof(*pm));

    if (!pm)
        return error_set_errno(err, ENOMEM, "acpi-pm");
    pm->device = (struct device){.class = &acpi_pm_class, .env = env};
    pthread_mutex_init(&pm->lock, NULL);
    pm->started = loop_now();
    pm->region = (struct io_region){
        .name = "acpi-pm",
        .base = ACPI_PM_BASE,
        .size = ACPI_PM_SIZE,
        .read = pm_read,
        .write = pm_write,
        .opaque = pm,
    };
    pm->carry_timer = loop_timer_new(env->loop, on_carry, pm);
    int rc = pm->carry_timer ? io_space_add(env->pio, &pm->region) : -ENOMEM;
    if (rc) {
        loop_timer_free(pm->carry_timer);
        pthread_mutex_destroy(&pm->lock);
        free(pm);
        return error_set_errno(err, -rc, "acpi-pm");
    }
    *out = &pm->device;
    return 0;
}

const struct device_class acpi_pm_class = {
    .name = "acpi-pm",
    .summary = "ACPI power management: soft off, power button, timer",
    .create = acpi_pm_create,
    .reset = acpi_pm_reset,
    .destroy = acpi_pm_destroy,
};
