/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ACPI's list of processors, starting them, and giving them work. */
#include "guest_priv.h"

#define TRAMPOLINE 0x8000ull

struct acpi_header {
    char signature[4];
    uint32_t length;
    uint8_t revision, checksum;
    char oem_id[6], oem_table_id[8];
    uint32_t oem_revision, creator_id, creator_revision;
} __attribute__((packed));

struct rsdp {
    char signature[8];
    uint8_t checksum;
    char oem_id[6];
    uint8_t revision;
    uint32_t rsdt, length;
    uint64_t xsdt;
    uint8_t extended_checksum, reserved[3];
} __attribute__((packed));

struct job {
    void (*volatile fn)(void *arg);
    void *arg;
};

extern const uint8_t ap_trampoline[], ap_trampoline_end[];
/* Read by ap_start.S. */
extern uint32_t ap_stack_top;
uint32_t ap_stack_top;

static uint8_t ap_stacks[GUEST_MAX_CPUS][16384] __attribute__((aligned(16)));
static uint8_t apic_ids[GUEST_MAX_CPUS];
static struct job jobs[GUEST_MAX_CPUS];
static volatile unsigned running = 1;
static unsigned starting;

static bool sums_to_zero(const void *p, uint32_t length)
{
    const uint8_t *b = p;
    uint8_t sum = 0;

    while (length--)
        sum += *b++;
    return sum == 0;
}

static const struct rsdp *find_rsdp(void)
{
    if (guest_boot.rsdp)
        return (const struct rsdp *)guest_boot.rsdp;
    for (uint64_t at = 0xe0000; at < 0x100000; at += 16)
        if (memcmp((const void *)at, "RSD PTR ", 8) == 0 && sums_to_zero((const void *)at, 20))
            return (const struct rsdp *)at;
    return NULL;
}

const void *acpi_find(const char *signature)
{
    const struct rsdp *rsdp = find_rsdp();

    if (!rsdp)
        return NULL;
    bool wide = rsdp->revision >= 2 && rsdp->xsdt;
    const struct acpi_header *root = (const void *)(wide ? rsdp->xsdt : rsdp->rsdt);
    const uint8_t *entry = (const uint8_t *)(root + 1), *end = (const uint8_t *)root + root->length;

    for (; entry < end; entry += wide ? 8 : 4) {
        uint64_t at = 0;

        memcpy(&at, entry, wide ? 8 : 4);
        const struct acpi_header *table = (const void *)at;
        if (memcmp(table->signature, signature, 4) == 0)
            return sums_to_zero(table, table->length) ? table : NULL;
    }
    return NULL;
}

unsigned smp_cpu_count(void)
{
    const struct acpi_header *madt = acpi_find("APIC");
    unsigned n = 0;

    if (!madt)
        return 1;
    const uint8_t *at = (const uint8_t *)madt + 44, *end = (const uint8_t *)madt + madt->length;
    for (; at + 2 <= end && at[1]; at += at[1])
        if (at[0] == 0 && (at[4] & 1) && n < GUEST_MAX_CPUS)
            apic_ids[n++] = at[3];
    return n ? n : 1;
}

void smp_ap_main(void)
{
    unsigned cpu = starting;
    struct job *job = &jobs[cpu];

    trap_init_cpu(cpu);
    lapic_enable();
    __atomic_add_fetch(&running, 1, __ATOMIC_RELEASE);
    for (;;) {
        void (*fn)(void *) = __atomic_load_n(&job->fn, __ATOMIC_ACQUIRE);

        if (fn) {
            fn(job->arg);
            __atomic_store_n(&job->fn, NULL, __ATOMIC_RELEASE);
        }
        cpu_relax();
    }
}

unsigned smp_start(void)
{
    unsigned n = smp_cpu_count();

    memcpy((void *)TRAMPOLINE, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
    lapic_enable();
    for (unsigned cpu = 1; cpu < n; cpu++) {
        unsigned before = running;

        starting = cpu;
        ap_stack_top = (uint32_t)(uint64_t)(ap_stacks[cpu] + sizeof(ap_stacks[cpu]));
        lapic_ipi(apic_ids[cpu], 0x4500); /* INIT */
        delay_us(10000);
        for (unsigned try = 0; try < 2 && running == before; try++) {
            lapic_ipi(apic_ids[cpu], 0x4600 | TRAMPOLINE >> 12); /* SIPI */
            for (unsigned ms = 0; ms < 500 && running == before; ms++)
                delay_us(1000);
        }
        if (!CHECK(running == before + 1))
            break;
    }
    return running;
}

void smp_run(unsigned cpu, void (*fn)(void *arg), void *arg)
{
    jobs[cpu].arg = arg;
    __atomic_store_n(&jobs[cpu].fn, fn, __ATOMIC_RELEASE);
}

void smp_wait(unsigned cpu)
{
    while (__atomic_load_n(&jobs[cpu].fn, __ATOMIC_ACQUIRE))
        cpu_relax();
}
