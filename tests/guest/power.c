/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Switching off and every way to restart, as kernels do it: by what the ACPI tables say, and by what PCs have
 * always had. The command line names the way. After a restart the guest must find itself booted anew with all
 * processors; that it is the second time it knows from a byte of the CMOS memory, which a reset keeps.
 */
#include "common/guest.h"

#define CMOS_BYTE  0x52
#define SECOND_RUN 0xa7

#define POWER_BUTTON 0x100 /* in the PM1 status register */

static uint32_t field32(const uint8_t *table, unsigned offset)
{
    return *(const uint32_t *)(table + offset);
}

static void cmos_write(uint8_t index, uint8_t value)
{
    outb(0x70, index);
    outb(0x71, value);
}

static uint8_t cmos_read(uint8_t index)
{
    outb(0x70, index);
    return inb(0x71);
}

/* SLP_TYPa of \_S5: a Name, a Package with its length and count, an integer. -1 if it is not there. */
static int find_s5_type(const uint8_t *dsdt)
{
    const uint8_t *end = dsdt + field32(dsdt, 4) - 12;

    for (const uint8_t *p = dsdt + 36; p <= end; p++) {
        if (p[0] != '_' || p[1] != 'S' || p[2] != '5' || p[3] != '_' || p[4] != 0x12)
            continue;
        p += 5;
        p += (*p >> 6) + 1; /* the package's length */
        p++;                /* and its number of elements */
        return *p == 0x0a ? p[1] : *p <= 1 ? *p : -1;
    }
    return -1;
}

static void switch_off(const uint8_t *fadt)
{
    uint16_t control = (uint16_t)field32(fadt, 64);
    int type = find_s5_type((const uint8_t *)(uint64_t)field32(fadt, 40));

    CHECK(type >= 0);
    print("guest: switching off, port 0x%x, type %d\n", control, type);
    outw(control, (uint16_t)((inw(control) & 0xc3ff) | type << 10 | 1 << 13));
}

/* As a kernel with a handler for it does, though without interrupts. */
static void switch_off_by_button(const uint8_t *fadt)
{
    uint16_t status = (uint16_t)field32(fadt, 56);

    outw(status, POWER_BUTTON);
    print("guest: waits for the power button\n");
    while (!(inw(status) & POWER_BUTTON))
        delay_us(1000);
    outw(status, POWER_BUTTON);
    switch_off(fadt);
}

static void restart_by_acpi(const uint8_t *fadt)
{
    CHECK(field32(fadt, 112) & 1u << 10); /* there is a reset register */
    CHECK_EQUAL(fadt[116], 1);            /* in port space */
    outb(*(const uint16_t *)(fadt + 120), fadt[128]);
}

static void restart_by_keyboard_controller(const uint8_t *fadt)
{
    outb(0x64, 0xfe);
}

static void restart_by_reset_control(const uint8_t *fadt)
{
    outb(0xcf9, 0x02);
    outb(0xcf9, 0x06);
}

static void restart_by_triple_fault(const uint8_t *fadt)
{
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) none = {0, 0};

    __asm__ volatile("lidt %0; int3" : : "m"(none));
}

static const struct {
    const char *word;
    void (*act)(const uint8_t *fadt);
} ways[] = {
    {"off", switch_off},
    {"button", switch_off_by_button},
    {"restart-acpi", restart_by_acpi},
    {"restart-keyboard", restart_by_keyboard_controller},
    {"restart-port", restart_by_reset_control},
    {"restart-triple-fault", restart_by_triple_fault},
};

#define LAST_SWITCH_OFF 1 /* the ways from here on restart */

/* Whether `word` is one of the command line's. */
static bool asked_for(const char *word)
{
    for (const char *p = guest_boot.command_line; *p; p++) {
        const char *w = word, *q = p;

        while (*w && *w == *q) {
            w++;
            q++;
        }
        if (!*w && (!*q || *q == ' ') && (p == guest_boot.command_line || p[-1] == ' '))
            return true;
    }
    return false;
}

void guest_main(void)
{
    const uint8_t *fadt = acpi_find("FACP");
    unsigned cpus = smp_start();

    print("cpus: %u\n", cpus);
    if (cmos_read(CMOS_BYTE) == SECOND_RUN) {
        cmos_write(CMOS_BYTE, 0);
        print("guest: restarted\n");
        return;
    }
    if (!CHECK(fadt))
        return;
    for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        if (!asked_for(ways[i].word))
            continue;
        if (i > LAST_SWITCH_OFF)
            cmos_write(CMOS_BYTE, SECOND_RUN);
        ways[i].act(fadt);
        /* It happens soon after, not at once. */
        for (unsigned ms = 0; ms < 5000; ms++)
            delay_us(1000);
        CHECK(!"the machine was switched off or restarted");
        return;
    }
    CHECK(!"a way on the command line");
}
