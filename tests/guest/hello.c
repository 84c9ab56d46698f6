/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first of the test guests: proves the framework itself and what the boot loader hands over. It prints
 * its command line and its modules, which the runner compares.
 */
#include "common/guest.h"

static void divide_by_zero(void *arg)
{
    (void)arg;
    __asm__ volatile("divl %0" : : "r"(0), "a"(1), "d"(0) : "cc");
}

static void return_quietly(void *arg)
{
    *(int *)arg = 7;
}

static void count_up(void *arg)
{
    __atomic_add_fetch((unsigned *)arg, 1 + smp_this_cpu(), __ATOMIC_RELAXED);
}

static void check_memory_map(void)
{
    uint64_t ram = 0;

    for (unsigned i = 0; i < guest_boot.n_ranges; i++) {
        const struct guest_range *r = &guest_boot.ranges[i];

        if (r->type == 1)
            ram += r->size;
        for (unsigned j = 0; j < i; j++) {
            const struct guest_range *other = &guest_boot.ranges[j];
            CHECK(r->base + r->size <= other->base || other->base + other->size <= r->base);
        }
    }
    print("ram: %lu KiB\n", ram >> 10);
    CHECK(ram > 1 << 20);
}

void guest_main(void)
{
    int called = 0;
    unsigned sum = 0, cpus, expected = 0;

    print("hello: booted by %s\n", guest_boot.protocol == GUEST_BOOT_PVH ? "PVH" : "Multiboot");
    print("command line: [%s]\n", guest_boot.command_line);
    for (unsigned i = 0; i < guest_boot.n_modules; i++) {
        const struct guest_module *m = &guest_boot.modules[i];
        uint32_t checksum = 0;

        for (const uint8_t *p = (const uint8_t *)m->start; p < (const uint8_t *)m->end; p++)
            checksum = checksum * 31 + *p;
        print("module %u: %lu bytes, sum %08x, [%s]\n", i, m->end - m->start, checksum, m->command_line);
    }
    check_memory_map();

    CHECK_EQUAL(trap_catch(return_quietly, &called).vector, -1);
    CHECK_EQUAL(called, 7);
    CHECK_EQUAL(trap_catch(divide_by_zero, NULL).vector, 0);
    CHECK(acpi_find("FACP"));
    CHECK(acpi_find("APIC"));

    cpus = smp_start();
    for (unsigned i = 1; i < cpus; i++) {
        smp_run(i, count_up, &sum);
        expected += 1 + i;
    }
    for (unsigned i = 1; i < cpus; i++)
        smp_wait(i);
    CHECK_EQUAL(sum, expected);
    print("cpus: %u\n", cpus);
}
