/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * External interrupts: the local APIC's vectors, priorities and masks, TPR and CR8, the shadow of STI and MOV
 * SS, HLT, self-IPIs, NMI, errors and the spurious vector; the 8259s, and the I/O APIC with edges, levels and
 * masks, the PIT as the source (SDM vol. 3A chapters 6 and 11; the 8259A's and 82093AA's data sheets).
 */
#include "common/guest.h"

#define RFLAGS_IF (1u << 9)
#define SELF      0x40000u /* ICR: shorthand, to itself */
#define LEVEL     0x4000u  /* ICR: assert */
#define MASKED    0x10000u

#define PIT_PIN             2 /* of the I/O APIC; input 0 of the first 8259 */
#define PIC_BASE            0x20
#define PIC2_BASE           0x28
#define IOAPIC_ENTRY_LEVEL  (1u << 15)
#define IOAPIC_ENTRY_MASKED (1u << 16)

#define EVENTS 32
static volatile unsigned events;
static uint8_t vectors[EVENTS];
static uint64_t places[EVENTS];
static volatile bool send_eoi = true;
/* The handler masks the pin at this many: an endless level leaves no time for anything else. */
static volatile unsigned enough;
static uint32_t isr_seen, ppr_seen;

static void note(struct trap_frame *frame)
{
    unsigned n = events;

    if (n < EVENTS) {
        vectors[n] = (uint8_t)frame->vector;
        places[n] = frame->rip;
    }
    events = n + 1;
    isr_seen = lapic_read(LAPIC_ISR + 0x10 * (unsigned)(frame->vector / 32)) >> (frame->vector % 32) & 1;
    ppr_seen = lapic_read(LAPIC_PPR);
    if (enough && events >= enough)
        ioapic_mask(PIT_PIN);
    if (send_eoi)
        lapic_eoi();
}

static void forget(void)
{
    events = 0;
    for (unsigned n = 0; n < EVENTS; n++)
        vectors[n] = 0;
}

static void self(unsigned vector)
{
    lapic_ipi(0, SELF | LEVEL | vector);
}

static bool requested(unsigned vector)
{
    return lapic_read(LAPIC_IRR + 0x10 * (vector / 32)) >> (vector % 32) & 1;
}

/* The events so far as digits of a number: their vectors' upper halves. */
static uint64_t order(void)
{
    uint64_t v = 0;

    for (unsigned n = 0; n < events && n < 16; n++)
        v = v << 8 | vectors[n];
    return v;
}

/* Interrupts on for a moment. */
static void window(void)
{
    __asm__ volatile("sti; nop; nop; cli" : : : "memory");
}

/* ---- the local APIC ---- */

static void test_priorities(void)
{
    forget();
    self(0x41);
    check_value("masked by IF: it waits", events, 0);
    check_value("masked by IF: IRR has it", requested(0x41), 1);
    window();
    check_value("masked by IF: it comes when IF is set", order(), 0x41);
    check_value("in service while its handler runs", isr_seen, 1);
    check_value("in service: its class is the processor's priority", ppr_seen & 0xf0, 0x40);
    check_value("in service no more after EOI", lapic_read(LAPIC_ISR + 0x20), 0);
    forget();
    self(0x41);
    self(0x61);
    self(0x51);
    self(0x41); /* the same again is one */
    window();
    check_value("several at once come by priority", order(), 0x615141);
    /* A handler without EOI keeps its class and those below it out. */
    forget();
    send_eoi = false;
    self(0x51);
    window();
    self(0x52);
    self(0x41);
    self(0x63);
    window();
    check_value("without EOI: only a higher class comes", order(), 0x5163);
    lapic_eoi();
    window();
    check_value("EOI ends the highest in service", order(), 0x5163);
    send_eoi = true;
    lapic_eoi();
    window();
    check_value("EOI: then the rest comes", order(), 0x51635241);
    forget();
    lapic_write(LAPIC_TPR, 0x50);
    self(0x5f);
    self(0x60);
    window();
    check_value("TPR: only a higher class comes", order(), 0x60);
    check_value("TPR: CR8 is its upper half", read_cr8(), 5);
    check_value("TPR: PPR is no lower", lapic_read(LAPIC_PPR) & 0xf0, 0x50);
    write_cr8(4);
    window();
    check_value("CR8 lower: what waited comes", order(), 0x605f);
    check_value("CR8: TPR follows", lapic_read(LAPIC_TPR), 0x40);
    write_cr8(15);
    self(0xfe);
    window();
    check_value("CR8 15 lets nothing in", order(), 0x605f);
    write_cr8(0);
    window();
    check_value("CR8 0 lets it in", order(), 0x605ffe);
}

static void test_errors(void)
{
    forget();
    lapic_write(LAPIC_ERROR, 0);
    lapic_write(LAPIC_ERROR, 0);
    check_value("ESR: clean", lapic_read(LAPIC_ERROR), 0);
    if (processor_is_tcg()) {
        check_skip("ESR: sending", "TCG's APIC does not note it");
    } else {
        lapic_write(LAPIC_LVT_ERROR, 0x71);
        self(5);
        window();
        check_value("ESR: sending an illegal vector raises its interrupt", order(), 0x71);
        lapic_write(LAPIC_ERROR, 0);
        check_value("ESR: sending an illegal vector is told", lapic_read(LAPIC_ERROR) & 0x20, 0x20);
        lapic_write(LAPIC_LVT_ERROR, MASKED);
    }
    check_value("the version has LVT entries and is of an integrated APIC",
                (lapic_read(LAPIC_VERSION) & 0xf0) == 0x10, 1);
}

/* ---- shadows ---- */

__asm__(".text\n"
        "shadow_sti: sti\n nop\n shadow_sti_2: nop\n cli\n ret\n"
        "shadow_sti_cli: sti\n cli\n nop\n ret\n"
        "shadow_sti_twice: sti\n sti\n shadow_twice_2: nop\n cli\n ret\n"
        "shadow_popf: pushq $0x202\n popfq\n shadow_popf_1: nop\n cli\n ret\n"
        "shadow_hlt: sti\n hlt\n shadow_hlt_1: cli\n ret\n");
#define PLACE(name) extern uint8_t name[]
PLACE(shadow_sti);
PLACE(shadow_sti_2);
PLACE(shadow_sti_cli);
PLACE(shadow_sti_twice);
PLACE(shadow_twice_2);
PLACE(shadow_popf);
PLACE(shadow_popf_1);
PLACE(shadow_hlt);
PLACE(shadow_hlt_1);

static uint64_t place_of(const uint8_t *code)
{
    forget();
    self(0x41);
    __asm__ volatile("call *%0" : : "r"(code) : "rax", "memory", "cc");
    return events ? places[0] : 0;
}

static void test_shadows(void)
{
    check_value("STI: one more instruction first", place_of(shadow_sti), (uint64_t)shadow_sti_2);
    check_value("STI and CLI: no interrupt between them", place_of(shadow_sti_cli), 0);
    window();
    check_value("STI when IF is set has no shadow", place_of(shadow_sti_twice), (uint64_t)shadow_twice_2);
    check_value("POPF: at once", place_of(shadow_popf), (uint64_t)shadow_popf_1);
    check_value("STI and HLT: wakes behind the HLT", place_of(shadow_hlt), (uint64_t)shadow_hlt_1);
}

/* ---- NMI ---- */

static volatile unsigned nmis;
static volatile bool nmi_again;

static void on_nmi(struct trap_frame *frame)
{
    (void)frame;
    if (nmi_again) {
        nmi_again = false;
        lapic_ipi(lapic_read(LAPIC_ID) >> 24, LEVEL | 0x400);
        for (unsigned n = 0; n < 100; n++)
            cpu_relax();
        nmis += nmis == 0 ? 0 : 100; /* it came in between: wrong */
    }
    nmis++;
}

static void send_nmi(void)
{
    lapic_ipi(lapic_read(LAPIC_ID) >> 24, LEVEL | 0x400);
    for (unsigned n = 0; n < 1000; n++)
        cpu_relax();
}

static void test_nmi(void)
{
    trap_set_handler(2, on_nmi);
    nmis = 0;
    send_nmi();
    check_value("NMI: with interrupts off", nmis, 1);
    nmis = 0;
    write_cr8(15);
    send_nmi();
    write_cr8(0);
    check_value("NMI: whatever the task priority is", nmis, 1);
    nmis = 0;
    nmi_again = true;
    send_nmi();
    check_value("NMI: a second one waits for IRET", nmis, 2);
    trap_set_handler(2, NULL);
}

/* ---- the PIT as a source ---- */

static void pit_once(unsigned us)
{
    uint32_t ticks = us * 1193182ull / 1000000;

    outb(0x43, 0x30); /* counter 0, mode 0: its output rises at the end */
    outb(0x40, (uint8_t)ticks);
    outb(0x40, (uint8_t)(ticks >> 8));
}

/* Its output is low for good: without a count it does not run. */
static void pit_low(void)
{
    outb(0x43, 0x30);
}

/* Waits with interrupts on until `n` have come, or much too long. */
static bool wait_events(unsigned n)
{
    for (unsigned tries = 0; tries < 400; tries++) {
        window();
        if (events >= n)
            return true;
        delay_us(5000);
    }
    return false;
}

static void test_ioapic(void)
{
    forget();
    ioapic_route(PIT_PIN, 0x41, 0);
    pit_once(1000);
    check_value("I/O APIC: an edge comes", wait_events(1), 1);
    check_value("I/O APIC: with its vector", order(), 0x41);
    delay_us(5000);
    window();
    check_value("I/O APIC: once", events, 1);
    ioapic_mask(PIT_PIN);
    forget();
    pit_once(1000);
    delay_us(20000);
    window();
    check_value("I/O APIC: masked, none comes", events, 0);
    ioapic_route(PIT_PIN, 0x41, 0);
    delay_us(5000);
    window();
    check_value("I/O APIC: an edge under the mask is lost", events, 0);
    pit_once(1000);
    __asm__ volatile("sti; hlt; cli" : : : "memory");
    check_value("I/O APIC: wakes from HLT", events, 1);
    ioapic_mask(PIT_PIN);
}

static void test_ioapic_level(void)
{
    /* The input stays high after the count's end: a level that no EOI ends. */
    forget();
    pit_low(); /* its output is low from now on */
    ioapic_route(PIT_PIN, 0x42, IOAPIC_ENTRY_LEVEL);
    window();
    check_value("I/O APIC level: low, none comes", events, 0);
    enough = 3;
    pit_once(1000);
    check_value("I/O APIC level: it comes again while the line is high", wait_events(3), 1);
    delay_us(2000);
    window();
    check_value("I/O APIC level: masked, no more", events, 3);
    enough = 0;
    check_value("I/O APIC level: TMR has it", lapic_read(LAPIC_TMR + 0x20) >> 2 & 1, 1);
    pit_low();
    ioapic_route(PIT_PIN, 0x42, IOAPIC_ENTRY_LEVEL);
    window();
    forget();
    delay_us(2000);
    window();
    check_value("I/O APIC level: no more when the line is low", events, 0);
    /* Without EOI it is not sent again. */
    send_eoi = false;
    pit_once(1000);
    wait_events(1);
    delay_us(2000);
    window();
    check_value("I/O APIC level: one before its EOI", events, 1);
    pit_low();
    send_eoi = true;
    lapic_eoi();
    window();
    ioapic_mask(PIT_PIN);
    forget();
    ioapic_route(PIT_PIN, 0x43, 0);
    pit_once(1000);
    check_value("I/O APIC: an edge again after levels", wait_events(1), 1);
    check_value("I/O APIC: TMR is clear for it", lapic_read(LAPIC_TMR + 0x20) >> 3 & 1, 0);
    ioapic_mask(PIT_PIN);
}

/* ---- the 8259s ---- */

static volatile uint8_t pic_isr[2];
static volatile bool pic_eoi;

static uint8_t pic_read(uint16_t port, uint8_t what)
{
    outb(port, what); /* OCW3 */
    return inb(port);
}

static void on_pic(struct trap_frame *frame)
{
    unsigned n = events;

    if (n < EVENTS)
        vectors[n] = (uint8_t)frame->vector;
    events = n + 1;
    pic_isr[0] = pic_read(0x20, 0x0b);
    pic_isr[1] = pic_read(0xa0, 0x0b);
    if (pic_eoi) {
        if (frame->vector >= PIC2_BASE)
            outb(0xa0, 0x20);
        outb(0x20, 0x20);
    }
}

static void test_pic(void)
{
    for (unsigned v = PIC_BASE; v < PIC_BASE + 16; v++)
        trap_set_handler(v, on_pic);
    pic_disable(); /* initialized, all masked */
    check_value("8259: the mask reads back", inb(0x21), 0xff);
    lapic_write(LAPIC_LVT_LINT0, 0x700); /* ExtINT */
    pic_eoi = true;
    /* TCG's I/O APIC may have sent the last edge a second time before its pin was masked. */
    window();
    forget();
    pit_once(1000);
    delay_us(10000);
    window();
    check_value("8259: masked, none comes", events, 0);
    check_value("8259: IRR has it", pic_read(0x20, 0x0a) & 1, 1);
    outb(0x21, 0xfe);
    check_value("8259: unmasked, it comes", wait_events(1), 1);
    check_value("8259: with its vector", order(), PIC_BASE);
    check_value("8259: in service in the handler", pic_isr[0], 1);
    check_value("8259: not after EOI", pic_read(0x20, 0x0b), 0);
    /* Without EOI nothing of the same or lower priority. */
    pic_eoi = false;
    forget();
    pit_once(1000);
    wait_events(1);
    pit_once(1000);
    delay_us(10000);
    window();
    check_value("8259: the next waits for EOI", events, 1);
    outb(0x20, 0x60); /* specific EOI of input 0 */
    pic_eoi = true;
    check_value("8259: after a specific EOI it comes", wait_events(2), 1);
    /* Automatic EOI. */
    outb(0x20, 0x11);
    outb(0x21, PIC_BASE);
    outb(0x21, 4);
    outb(0x21, 3);
    outb(0x21, 0xfe);
    pic_eoi = false;
    forget();
    pit_once(1000);
    wait_events(1);
    check_value("8259: with automatic EOI none is in service", pic_isr[0], 0);
    pit_once(1000);
    check_value("8259: with automatic EOI the next comes", wait_events(2), 1);
    pic_disable();
    /* Its line rests on LINT0; masked there, nothing reaches the processor. */
    outb(0x21, 0xfe);
    lapic_write(LAPIC_LVT_LINT0, MASKED | 0x700);
    forget();
    pit_once(1000);
    delay_us(10000);
    window();
    check_value("8259: LINT0 masked, none comes", events, 0);
    pic_disable();
}

/* ---- sleeping ---- */

static void test_software_disable(void)
{
    forget();
    lapic_write(LAPIC_SPURIOUS, 0xff);
    check_value("APIC disabled by software: LVT is masked", lapic_read(LAPIC_LVT_TIMER) & MASKED, MASKED);
    lapic_write(LAPIC_LVT_TIMER, 0x45);
    if (processor_is_tcg())
        check_skip("APIC disabled by software: LVT stays masked", "TCG's APIC does not hold it");
    else
        check_value("APIC disabled by software: LVT stays masked", lapic_read(LAPIC_LVT_TIMER) & MASKED,
                    MASKED);
    lapic_enable();
    self(0x41);
    window();
    check_value("APIC enabled again", order(), 0x41);
}

void guest_main(void)
{
    for (unsigned v = 0x30; v < 0x100; v++)
        trap_set_handler(v, note);
    pic_disable();
    lapic_enable();
    lapic_write(LAPIC_LVT_LINT0, MASKED);
    test_priorities();
    test_errors();
    test_shadows();
    test_nmi();
    test_ioapic();
    test_ioapic_level();
    test_pic();
    test_software_disable();
}
