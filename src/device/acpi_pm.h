/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ACPI's fixed power-management registers: where they are, for the tables that tell guests, and the power
 * button.
 */
#ifndef TABIQUE_DEVICE_ACPI_PM_H
#define TABIQUE_DEVICE_ACPI_PM_H

struct device;
struct device_class;

extern const struct device_class acpi_pm_class;

#define ACPI_PM_BASE    0x600
#define ACPI_PM_SIZE    16
#define ACPI_PM_EVENT   (ACPI_PM_BASE + 0) /* status and enable, 16 bits each */
#define ACPI_PM_CONTROL (ACPI_PM_BASE + 4)
#define ACPI_PM_TIMER   (ACPI_PM_BASE + 8) /* 32 bits */
#define ACPI_PM_GSI     9                  /* of the SCI: level-triggered, active high */

#define ACPI_PM_TIMER_HZ 3579545u
#define ACPI_PM_SLEEP_S5 5 /* SLP_TYP for soft off; others do nothing */

/* Presses the power button: the guest's kernel is asked to shut down. Any thread. */
void acpi_pm_press_power_button(struct device *device);

#endif
