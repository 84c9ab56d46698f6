/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every engine must do, through its table, with small guests made by hand: accesses of all kinds, ends,
 * doorbells, pause and resume, state, reset, interrupts. The engine's name is the argument. For kvm, a
 * /dev/kvm that opens is enough, even one that only emulates ring 0; exit status 77 where there is none.
 */
#include "engine/engine.h"

#include "base/bytes.h"
#include "base/error.h"
#include "host/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define RAM      (2ull << 20)
#define CODE     0x8000u
#define BELL     0xfe001000ull
#define DEVICE   0xfe000000ull
#define PORT     0x600
#define DONE     0xf4
#define MAX_SEEN 64
#define WAIT_MS  10000

static const struct engine_class *tested;

struct access {
    bool port, write;
    uint64_t addr, value;
    unsigned size;
};

struct rig {
    struct guest_memory *memory;
    struct io_space *pio, *mmio;
    struct loop *loop;
    struct io_region device, port, done;
    struct engine *engine;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct access seen[MAX_SEEN];
    unsigned n_seen;
    unsigned n_done;     /* writes to DONE */
    uint64_t done_value; /* the last one */
    unsigned n_events;
    enum machine_event event;
};

static void note(struct rig *r, bool port, bool write, uint64_t addr, unsigned size, uint64_t value)
{
    pthread_mutex_lock(&r->lock);
    if (r->n_seen < MAX_SEEN)
        r->seen[r->n_seen++] = (struct access){port, write, addr, value, size};
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

/* Each device answers with bytes that tell their address. */
static uint64_t answer(uint64_t offset, unsigned size)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)(uint8_t)(0xa0 + offset + i) << (8 * i);
    return v;
}

static uint64_t device_read(void *opaque, uint64_t offset, unsigned size)
{
    note(opaque, false, false, offset, size, answer(offset, size));
    return answer(offset, size);
}
static void device_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    note(opaque, false, true, offset, size, value);
}
static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    note(opaque, true, false, offset, size, answer(offset, size));
    return answer(offset, size);
}
static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    note(opaque, true, true, offset, size, value);
}
static uint64_t done_read(void *opaque, uint64_t offset, unsigned size)
{
    return 0;
}
static void done_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    struct rig *r = opaque;

    pthread_mutex_lock(&r->lock);
    r->n_done++;
    r->done_value = value;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void on_event(void *opaque, enum machine_event event, int code)
{
    struct rig *r = opaque;

    pthread_mutex_lock(&r->lock);
    r->n_events++;
    r->event = event;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void must(int rc, struct error *err)
{
    if (rc < 0)
        fail_msg("%s", error_message(err));
}

static void rig_open(struct rig *r, unsigned cpus)
{
    struct error *err = NULL;

    memset(r, 0, sizeof(*r));
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    must(guest_memory_create(&r->memory, RAM, &err), err);
    must(loop_create(&r->loop, &err), err);
    r->pio = io_space_new("ports");
    r->mmio = io_space_new("memory");
    r->device = (struct io_region){"device", DEVICE, 0x2000, device_read, device_write, r};
    r->port = (struct io_region){"port", PORT, 16, port_read, port_write, r};
    r->done = (struct io_region){"done", DONE, 4, done_read, done_write, r};
    assert_int_equal(io_space_add(r->mmio, &r->device), 0);
    assert_int_equal(io_space_add(r->pio, &r->port), 0);
    assert_int_equal(io_space_add(r->pio, &r->done), 0);
    const struct engine_config config = {.cpus = cpus,
                                         .memory = r->memory,
                                         .pio = r->pio,
                                         .mmio = r->mmio,
                                         .loop = r->loop,
                                         .event = on_event,
                                         .opaque = r};
    must(tested->create(&r->engine, &config, &err), err);
}

static void rig_close(struct rig *r)
{
    tested->destroy(r->engine);
    io_space_remove(r->mmio, &r->device);
    io_space_remove(r->pio, &r->port);
    io_space_remove(r->pio, &r->done);
    io_space_free(r->pio);
    io_space_free(r->mmio);
    loop_free(r->loop);
    guest_memory_free(r->memory);
}

/* 32-bit protected mode, flat, no paging, at CODE. */
static void flat_state(struct cpu_state *s)
{
    const struct cpu_segment_state code = {
        .limit = ~0u, .selector = 8, .attr = 0xb | CPU_ATTR_S | CPU_ATTR_P | CPU_ATTR_DB | CPU_ATTR_G};
    const struct cpu_segment_state data = {
        .limit = ~0u, .selector = 16, .attr = 3 | CPU_ATTR_S | CPU_ATTR_P | CPU_ATTR_DB | CPU_ATTR_G};

    cpu_state_reset(s, true);
    for (int i = 0; i < CPU_SEGMENTS; i++)
        s->seg[i] = data;
    s->seg[CPU_CS] = code;
    s->cr0 = 0x11;
    s->rip = CODE;
    s->gpr[CPU_RSP] = 0x7000;
}

static void load(struct rig *r, uint64_t at, const void *code, size_t size)
{
    assert_int_equal(guest_memory_write(r->memory, at, code, size), 0);
}

static void start(struct rig *r, const void *code, size_t size)
{
    struct cpu_state s;
    struct error *err = NULL;

    load(r, CODE, code, size);
    flat_state(&s);
    must(tested->set_state(r->engine, 0, &s, &err), err);
    must(tested->resume(r->engine, &err), err);
}

/* Waits until *what is at least `n`. */
static void await(struct rig *r, const unsigned *what, unsigned n)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    pthread_mutex_lock(&r->lock);
    int rc = 0;
    while (*what < n && !rc)
        rc = pthread_cond_timedwait(&r->changed, &r->lock, &until);
    pthread_mutex_unlock(&r->lock);
    if (rc)
        fail_msg("the guest did not get there in %d ms (%s, %u events)", WAIT_MS,
                 r->engine && tested->failure(r->engine) ? tested->failure(r->engine) : "no failure",
                 r->n_events);
}

#define RUN(r, ...)                                                                                          \
    do {                                                                                                     \
        static const uint8_t code_[] = {__VA_ARGS__};                                                        \
        start(r, code_, sizeof(code_));                                                                      \
    } while (0)

#define MOV_EAX(v) 0xb8, (v)&0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (v) >> 24 & 0xff
#define MOV_EDI(v) 0xbf, (v)&0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (v) >> 24 & 0xff
#define MOV_ESI(v) 0xbe, (v)&0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (v) >> 24 & 0xff
#define MOV_ECX(v) 0xb9, (v)&0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (v) >> 24 & 0xff
#define MOV_DX(v)  0x66, 0xba, (v)&0xff, (v) >> 8
#define MASK_PIC   0xb0, 0xff, 0xe6, 0x21, 0xe6, 0xa1 /* it is open after power-on, with vectors of its own */
#define OUT_DONE   0xe7, DONE                         /* out DONE, eax */
#define JMP_SELF   0xeb, 0xfe

static void expect(const struct rig *r, unsigned i, bool port, bool write, uint64_t addr, unsigned size,
                   uint64_t value)
{
    const struct access *a = &r->seen[i];

    assert_true(i < r->n_seen);
    assert_int_equal(a->port, port);
    assert_int_equal(a->write, write);
    assert_int_equal(a->addr, addr);
    assert_int_equal(a->size, size);
    assert_int_equal(a->value, value);
}

static void test_ports(void **state)
{
    struct rig r;

    rig_open(&r, 1);
    RUN(&r, MOV_DX(PORT), MOV_EAX(0x11223344u), 0xee, 0x66, 0xef, 0xef, /* out dx, al; ax; eax */
        0xec, 0x66, 0xed, 0xed,                                         /* in al; ax; eax */
        OUT_DONE, 0xf4);
    await(&r, &r.n_done, 1);
    expect(&r, 0, true, true, 0, 1, 0x44);
    expect(&r, 1, true, true, 0, 2, 0x3344);
    expect(&r, 2, true, true, 0, 4, 0x11223344);
    expect(&r, 3, true, false, 0, 1, 0xa0);
    assert_int_equal(r.done_value, 0xa3a2a1a0u);
    rig_close(&r);
}

static void test_string_ports(void **state)
{
    struct rig r;
    uint8_t in[8];

    rig_open(&r, 1);
    load(&r, 0x5000, "\1\2\3\4\5\6\7\10", 8);
    RUN(&r, MOV_DX(PORT + 2), MOV_ESI(0x5000u), MOV_ECX(4u), 0xf3, 0x66, 0x6f, /* rep outsw */
        MOV_EDI(0x6000u), MOV_ECX(2u), 0xf3, 0x6d,                             /* rep insd */
        OUT_DONE, 0xf4);
    await(&r, &r.n_done, 1);
    for (unsigned i = 0; i < 4; i++)
        expect(&r, i, true, true, 2, 2, 0x0201u + 0x0202u * i);
    expect(&r, 4, true, false, 2, 4, 0xa5a4a3a2u);
    expect(&r, 5, true, false, 2, 4, 0xa5a4a3a2u);
    assert_int_equal(r.n_seen, 6);
    assert_int_equal(guest_memory_read(r.memory, 0x6000, in, 8), 0);
    assert_memory_equal(in, "\xa2\xa3\xa4\xa5\xa2\xa3\xa4\xa5", 8);
    rig_close(&r);
}

static void test_mmio(void **state)
{
    struct rig r;

    rig_open(&r, 1);
    RUN(&r, MOV_EDI((uint32_t)DEVICE), MOV_EAX(0x55667788u), 0x88, 0x07, /* mov [edi], al */
        0x66, 0x89, 0x47, 0x02,                                          /* mov [edi+2], ax */
        0x89, 0x47, 0x04,                                                /* mov [edi+4], eax */
        0x8b, 0x47, 0x08,                                                /* mov eax, [edi+8] */
        OUT_DONE, 0xf4);
    await(&r, &r.n_done, 1);
    expect(&r, 0, false, true, 0, 1, 0x88);
    expect(&r, 1, false, true, 2, 2, 0x7788);
    expect(&r, 2, false, true, 4, 4, 0x55667788);
    expect(&r, 3, false, false, 8, 4, 0xabaaa9a8u);
    assert_int_equal(r.done_value, 0xabaaa9a8u);
    rig_close(&r);
}

/* A word across a page: whatever the parts, each byte must go where it belongs, in pieces that exist. */
static void test_mmio_across_a_page(void **state)
{
    struct rig r;
    uint8_t bytes[4] = {0};

    rig_open(&r, 1);
    RUN(&r, MOV_EDI((uint32_t)DEVICE + 0xfff), MOV_EAX(0x44332211u), 0x89, 0x07, 0x8b, 0x07, OUT_DONE, 0xf4);
    await(&r, &r.n_done, 1);
    for (unsigned i = 0; i < r.n_seen; i++) {
        const struct access *a = &r.seen[i];

        assert_true(a->size == 1 || a->size == 2 || a->size == 4 || a->size == 8);
        assert_true(a->addr >= 0xfff && a->addr + a->size <= 0x1003);
        for (unsigned b = 0; a->write && b < a->size; b++)
            bytes[a->addr - 0xfff + b] = (uint8_t)(a->value >> (8 * b));
    }
    assert_memory_equal(bytes, "\x11\x22\x33\x44", 4);
    assert_int_equal((uint32_t)r.done_value, (uint32_t)answer(0xfff, 4));
    rig_close(&r);
}

static void test_nobody_there(void **state)
{
    struct rig r;

    rig_open(&r, 1);
    RUN(&r, MOV_DX(0x999), MOV_EDI(0xfd000000u), 0xef, 0x89, 0x07, /* out dx, eax; mov [edi], eax */
        0x31, 0xc0, 0xed, 0x23, 0x07, OUT_DONE, 0xf4);             /* in eax, dx; and eax, [edi] */
    await(&r, &r.n_done, 1);
    assert_int_equal((uint32_t)r.done_value, 0xffffffffu);
    rig_close(&r);
}

static bool rung(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t count;

    return poll(&p, 1, 0) == 1 && read(fd, &count, sizeof(count)) == sizeof(count);
}

static void test_doorbells(void **state)
{
    struct rig r;
    int any = eventfd(0, EFD_CLOEXEC), seven = eventfd(0, EFD_CLOEXEC), port = eventfd(0, EFD_CLOEXEC);
    const struct io_doorbell bells[] = {{.addr = BELL, .size = 2, .fd = any},
                                        {.addr = BELL + 4, .size = 2, .match = true, .value = 7, .fd = seven},
                                        {.addr = PORT + 4, .size = 2, .fd = port}};

    rig_open(&r, 1);
    assert_int_equal(io_space_add_doorbell(r.mmio, &bells[0]), 0);
    assert_int_equal(io_space_add_doorbell(r.mmio, &bells[1]), 0);
    assert_int_equal(io_space_add_doorbell(r.pio, &bells[2]), 0);
    RUN(&r, MOV_EDI((uint32_t)BELL), MOV_EAX(3u), 0x66, 0x89, 0x07, /* mov [edi], ax: rings */
        0x66, 0x89, 0x47, 0x04,                                     /* mov [edi+4], ax: not 7 */
        MOV_DX(PORT + 4), 0x66, 0xef, OUT_DONE, JMP_SELF);          /* out dx, ax: rings */
    await(&r, &r.n_done, 1);
    assert_true(rung(any));
    assert_false(rung(seven));
    assert_true(rung(port));
    assert_int_equal(r.n_seen, 1); /* only the one that no doorbell took reached the device */
    expect(&r, 0, false, true, 0x1004, 2, 3);
    tested->pause(r.engine);

    /* Away again: the same write reaches the device. */
    io_space_remove_doorbell(r.mmio, &bells[0]);
    RUN(&r, MOV_EDI((uint32_t)BELL), MOV_EAX(7u), 0x66, 0x89, 0x07, 0x66, 0x89, 0x47, 0x04, OUT_DONE, 0xf4);
    await(&r, &r.n_done, 2);
    assert_false(rung(any));
    assert_true(rung(seven));
    expect(&r, 1, false, true, 0x1000, 2, 7);
    rig_close(&r);
    close(any);
    close(seven);
    close(port);
}

static void test_triple_fault_asks_for_reset(void **state)
{
    struct rig r;
    struct cpu_state s;
    struct error *err = NULL;

    rig_open(&r, 1);
    load(&r, CODE, "\x0f\x0b", 2); /* ud2, with no IDT */
    flat_state(&s);
    s.idt.limit = 0;
    must(tested->set_state(r.engine, 0, &s, &err), err);
    must(tested->resume(r.engine, &err), err);
    await(&r, &r.n_events, 1);
    assert_int_equal(r.event, MACHINE_RESET);
    tested->pause(r.engine);
    must(tested->reset(r.engine, &err), err);
    /* And lives again. */
    RUN(&r, MOV_EAX(0x77u), OUT_DONE, 0xf4);
    await(&r, &r.n_done, 1);
    assert_int_equal(r.done_value, 0x77);
    assert_int_equal(r.n_events, 1);
    rig_close(&r);
}

/* Instructions in a device's registers are what KVM can't run: the failure says where, and what would help.
 */
static void test_failure(void **state)
{
    struct rig r;

    if (strcmp(tested->name, "kvm") != 0)
        skip();
    rig_open(&r, 1);
    assert_null(tested->failure(r.engine));
    RUN(&r, MOV_EAX((uint32_t)DEVICE), 0xff, 0xe0); /* jmp eax */
    await(&r, &r.n_events, 1);
    assert_int_equal(r.event, MACHINE_ENGINE_FAILED);
    tested->pause(r.engine);
    assert_non_null(tested->failure(r.engine));
    assert_non_null(strstr(tested->failure(r.engine), "vCPU 0"));
    assert_non_null(strstr(tested->failure(r.engine), "rip 0xfe000000 (protected mode, CPL 0)"));
    rig_close(&r);
}

/* Pausing in the middle of a guest that never leaves by itself; the register access under way is not lost. */
static void test_pause_and_resume(void **state)
{
    struct rig r;
    struct cpu_state a, b;
    struct error *err = NULL;

    rig_open(&r, 1);
    /* 1: in eax, dx; test that it is right, count; jmp 1. A wrong value goes to DONE. */
    RUN(&r, MOV_DX(PORT), 0x31, 0xdb,                   /* xor ebx, ebx */
        0xed, 0x3d, 0xa0, 0xa1, 0xa2, 0xa3, 0x75, 0x03, /* 1: in eax, dx; cmp eax, answer; jne 2 */
        0x43, 0xeb, 0xf5, OUT_DONE, 0xf4);              /* inc ebx; jmp 1; 2: out DONE */
    await(&r, &r.n_seen, 1);
    uint64_t last = 0;
    for (int i = 0; i < 20; i++) {
        tested->pause(r.engine);
        must(tested->get_state(r.engine, 0, &a, &err), err);
        must(tested->get_state(r.engine, 0, &b, &err), err);
        assert_memory_equal(a.gpr, b.gpr, sizeof(a.gpr));
        assert_true(a.gpr[CPU_RBX] >= last);
        last = a.gpr[CPU_RBX];
        must(tested->resume(r.engine, &err), err);
        usleep(2000);
    }
    assert_true(last > 0);
    assert_int_equal(r.n_done, 0);
    rig_close(&r); /* while it runs */
}

static void test_state_round_trip(void **state)
{
    struct rig r;
    struct cpu_state in, out;
    struct error *err = NULL;

    rig_open(&r, 2);
    flat_state(&in);
    for (unsigned i = 0; i < CPU_GPRS; i++)
        in.gpr[i] = 0x0101010101010101ull * (i + 1);
    in.rflags = 0x246;
    in.seg[CPU_FS].base = 0x1234000;
    in.seg[CPU_GS] = (struct cpu_segment_state){0}; /* unusable */
    in.gdt = (struct cpu_table_state){0x9000, 0x37};
    in.idt = (struct cpu_table_state){0xa000, 0xfff};
    in.ldtr =
        (struct cpu_segment_state){.base = 0xb000, .limit = 0xf, .selector = 0x28, .attr = CPU_ATTR_P | 2};
    in.tr =
        (struct cpu_segment_state){.base = 0xc000, .limit = 0x67, .selector = 0x30, .attr = CPU_ATTR_P | 0xb};
    in.cr2 = 0xdeadb000;
    in.cr3 = 0x1000;
    in.cr4 = 0x620;
    in.star = 0x23001000000000ull;
    in.lstar = 0xffffffff81000000ull;
    in.fmask = 0x47700;
    in.kernel_gs_base = 0xffff888000000000ull;
    in.sysenter_cs = 0x10;
    in.sysenter_eip = 0x123450;
    in.sysenter_esp = 0x6789a0;
    in.dr[0] = 0x8123;
    in.dr[7] = 0x401;
    put_le16(in.xsave, 0x27f);
    for (int i = 0; i < 16; i++)
        in.xsave[160 + i] = (uint8_t)(i + 1); /* XMM0 */
    put_le64(in.xsave + 512, 3);
    must(tested->set_state(r.engine, 0, &in, &err), err);
    must(tested->get_state(r.engine, 0, &out, &err), err);
    assert_memory_equal(out.gpr, in.gpr, sizeof(in.gpr));
    assert_int_equal(out.rip, in.rip);
    assert_int_equal(out.rflags, in.rflags);
    for (unsigned i = 0; i < CPU_SEGMENTS; i++) {
        assert_int_equal(out.seg[i].attr & CPU_ATTR_P, in.seg[i].attr & CPU_ATTR_P);
        if (!(in.seg[i].attr & CPU_ATTR_P))
            continue;
        assert_int_equal(out.seg[i].selector, in.seg[i].selector);
        assert_int_equal(out.seg[i].base, in.seg[i].base);
        assert_int_equal(out.seg[i].limit, in.seg[i].limit);
        assert_int_equal(out.seg[i].attr, in.seg[i].attr);
    }
    assert_int_equal(out.gdt.base, in.gdt.base);
    assert_int_equal(out.idt.limit, in.idt.limit);
    assert_int_equal(out.ldtr.base, in.ldtr.base);
    assert_int_equal(out.tr.selector, in.tr.selector);
    assert_int_equal(out.cr0, in.cr0);
    assert_int_equal(out.cr2, in.cr2);
    assert_int_equal(out.cr3, in.cr3);
    assert_int_equal(out.cr4, in.cr4);
    assert_int_equal(out.star, in.star);
    assert_int_equal(out.lstar, in.lstar);
    assert_int_equal(out.fmask, in.fmask);
    assert_int_equal(out.kernel_gs_base, in.kernel_gs_base);
    assert_int_equal(out.sysenter_cs, in.sysenter_cs);
    assert_int_equal(out.sysenter_eip, in.sysenter_eip);
    assert_int_equal(out.sysenter_esp, in.sysenter_esp);
    assert_int_equal(out.pat, in.pat);
    assert_int_equal(out.dr[0], in.dr[0]);
    assert_int_equal(out.dr[7], in.dr[7]);
    assert_int_equal(get_le16(out.xsave), 0x27f);
    assert_memory_equal(out.xsave + 160, in.xsave + 160, 16);
    assert_false(out.halted);
    assert_int_equal(tested->set_state(r.engine, 2, &in, NULL), -EINVAL);
    rig_close(&r);
}

static void test_reset_state(void **state)
{
    struct rig r;
    struct cpu_state s;
    struct error *err = NULL;

    rig_open(&r, 2);
    RUN(&r, MOV_EAX(1u), OUT_DONE, JMP_SELF);
    await(&r, &r.n_done, 1);
    tested->pause(r.engine);
    must(tested->reset(r.engine, &err), err);
    for (unsigned cpu = 0; cpu < 2; cpu++) {
        must(tested->get_state(r.engine, cpu, &s, &err), err);
        assert_int_equal(s.rip, 0xfff0);
        assert_int_equal(s.seg[CPU_CS].base, 0xffff0000);
        assert_int_equal(s.seg[CPU_CS].selector, 0xf000);
        assert_int_equal(s.cr0, 0x60000010);
        assert_int_equal(s.efer, 0);
        assert_int_equal(s.rflags, 2);
        assert_int_equal(s.apic_base, 0xfee00800u | (cpu == 0 ? 0x100 : 0));
        assert_int_equal(s.wait_for_sipi, cpu != 0);
        assert_int_equal(get_le16(s.xsave), 0x37f);
    }
    rig_close(&r);
}

/* IDT vector 0x40 -> a handler that sends what is in EBX to DONE; then STI and wait. */
static void prepare_interrupt_guest(struct rig *r, struct cpu_state *s)
{
    static const uint8_t handler[] = {0x89, 0xd8, OUT_DONE, JMP_SELF}; /* mov eax, ebx; out; spin */
    uint8_t gate[8] = {0};

    put_le16(gate, 0x9000);
    put_le16(gate + 2, 8);
    gate[5] = 0x8e;
    load(r, 0xa000 + 0x40 * 8, gate, sizeof(gate));
    load(r, 0x9000, handler, sizeof(handler));
    uint8_t gdt[24] = {0};
    put_le64(gdt + 8, 0x00cf9b000000ffffull);
    put_le64(gdt + 16, 0x00cf93000000ffffull);
    load(r, 0xb000, gdt, sizeof(gdt));
    flat_state(s);
    s->idt = (struct cpu_table_state){0xa000, 0x7ff};
    s->gdt = (struct cpu_table_state){0xb000, 23};
    s->gpr[CPU_RBX] = 0x1234;
}

static void test_msi_and_lines(void **state)
{
    /* Enable the local APIC by its spurious vector register; I/O APIC pin 4 -> vector 0x40; tell; sti; hlt.
     */
    static const uint8_t code[] = {
        MASK_PIC,
        MOV_EDI(0xfee000f0u),
        MOV_EAX(0x1ffu),
        0x89,
        0x07, /* mov [edi], eax */
        MOV_EDI(0xfec00000u),
        0xc7,
        0x07,
        0x18,
        0,
        0,
        0, /* select entry 4, low: 0x10 + 2 * 4 */
        0xc7,
        0x47,
        0x10,
        0x40,
        0,
        0,
        0, /* vector 0x40, edge, unmasked */
        MOV_EAX(1u),
        OUT_DONE,
        0xfb,
        0xf4,
        0xeb,
        0xfd, /* out DONE; sti; 1: hlt; jmp 1 */
    };
    struct cpu_state s;
    struct error *err = NULL;

    for (int by_line = 0; by_line < 2; by_line++) {
        struct rig r;

        rig_open(&r, 1);
        prepare_interrupt_guest(&r, &s);
        load(&r, CODE, code, sizeof(code));
        must(tested->set_state(r.engine, 0, &s, &err), err);
        must(tested->resume(r.engine, &err), err);
        await(&r, &r.n_done, 1);
        if (by_line) {
            tested->irq_set(r.engine, 4, true);
            tested->irq_set(r.engine, 4, false);
        } else {
            tested->msi_send(r.engine, 0xfee00000, 0x40);
        }
        await(&r, &r.n_done, 2);
        assert_int_equal(r.done_value, 0x1234);
        tested->irq_set(r.engine, 99, true); /* a line that is not there: no harm */
        rig_close(&r);
    }
}

/* The timer's line is pin 2 of the I/O APIC. */
static void test_timer_line(void **state)
{
    static const uint8_t code[] = {
        MASK_PIC,
        MOV_EDI(0xfee000f0u),
        MOV_EAX(0x1ffu),
        0x89,
        0x07,
        MOV_EDI(0xfec00000u),
        0xc7,
        0x07,
        0x14,
        0,
        0,
        0,
        0xc7,
        0x47,
        0x10,
        0x40,
        0,
        0,
        0,
        MOV_EAX(1u),
        OUT_DONE,
        0xfb,
        0xf4,
        0xeb,
        0xfd,
    };
    struct cpu_state s;
    struct error *err = NULL;
    struct rig r;

    rig_open(&r, 1);
    prepare_interrupt_guest(&r, &s);
    load(&r, CODE, code, sizeof(code));
    must(tested->set_state(r.engine, 0, &s, &err), err);
    must(tested->resume(r.engine, &err), err);
    await(&r, &r.n_done, 1);
    tested->irq_set(r.engine, 0, true);
    await(&r, &r.n_done, 2);
    assert_int_equal(r.done_value, 0x1234);
    rig_close(&r);
}

#define WRMSR(index, low) MOV_ECX(index), MOV_EAX(low), 0x31, 0xd2, 0x0f, 0x30 /* xor edx, edx; wrmsr */
#define RDMSR_TO(index, at)                                                                                  \
    MOV_ECX(index), 0x0f, 0x32, 0xa3, (at)&0xff, (at) >> 8, 0, 0 /* rdmsr; mov [at], eax */

/* A guest's MSRs don't outlive it, those that no struct cpu_state holds included. */
static void test_reset_msrs(void **state)
{
    struct rig r;
    struct error *err = NULL;
    uint32_t out[4], second[4];

    rig_open(&r, 1);
    for (int boot = 0; boot < 2; boot++) {
        RUN(&r, RDMSR_TO(0x2ffu, 0x6000), RDMSR_TO(0x1a0u, 0x6004), RDMSR_TO(0x3bu, 0x6008),
            RDMSR_TO(0x4b564d01u, 0x600c), WRMSR(0x2ffu, 0u), MOV_ECX(0x1a0u), 0x0f, 0x32, 0x24, 0xfe, 0x0f,
            0x30, /* rdmsr; and al, ~1; wrmsr */
            WRMSR(0x3bu, 0x1000u), WRMSR(0x4b564d01u, 0x5001u), OUT_DONE, JMP_SELF);
        await(&r, &r.n_done, (unsigned)boot + 1);
        assert_int_equal(guest_memory_read(r.memory, 0x6000, boot ? second : out, sizeof(out)), 0);
        tested->pause(r.engine);
        must(tested->reset(r.engine, &err), err);
    }
    assert_int_equal(out[0], CPU_MTRR_DEF_TYPE);
    assert_int_equal(out[1] & CPU_MISC_ENABLE_FAST_STRING, CPU_MISC_ENABLE_FAST_STRING);
    assert_int_equal(out[2], 0);
    assert_int_equal(out[3], 0);
    assert_memory_equal(out, second, sizeof(out));
    rig_close(&r);
}

/* All that the guest sees of CPUID comes from our table. */
static void test_cpuid(void **state)
{
    struct rig r;
    uint32_t out[8];

    rig_open(&r, 2);
    RUN(&r, MOV_EAX(0x40000000u), 0x31, 0xc9, 0x0f, 0xa2, 0xa3, 0, 0x60, 0, 0, /* mov [0x6000], eax */
        0x89, 0x1d, 4, 0x60, 0, 0, MOV_EAX(0xbu), MOV_ECX(1u), 0x0f, 0xa2,     /* mov [0x6004], ebx */
        0x89, 0x1d, 8, 0x60, 0, 0, OUT_DONE, 0xf4);
    await(&r, &r.n_done, 1);
    assert_int_equal(guest_memory_read(r.memory, 0x6000, out, sizeof(out)), 0);
    assert_int_equal(out[0], 0x40000010);
    assert_memory_equal(&out[1], "KVMK", 4);
    assert_int_equal(out[2], 2); /* cores */
    rig_close(&r);
}

static void test_bad_configuration(void **state)
{
    struct engine *engine = NULL;
    struct error *err = NULL;
    struct engine_config config = {.cpus = 0};

    assert_int_equal(tested->create(&engine, &config, &err), -EINVAL);
    error_free(err);
    config.cpus = ENGINE_MAX_CPUS + 1;
    assert_int_equal(tested->create(&engine, &config, NULL), -EINVAL);
    assert_null(engine);
}

/* Whatever it finds, it is quick (but where the host itself is emulated), says what to do, and finds the same
 * again. */
static void test_probe(void **state)
{
    struct timespec a, b;
    struct error *err = NULL;

    clock_gettime(CLOCK_MONOTONIC, &a);
    int rc = tested->probe(&err);
    clock_gettime(CLOCK_MONOTONIC, &b);
    long ms = (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
    assert_in_range(ms, 0, getenv("KVM_TEST_SLOW") ? 2000 : 200);
    if (rc < 0)
        assert_non_null(strstr(error_message(err), "--engine soft"));
    error_free(err);
    assert_int_equal(tested->probe(NULL), rc);
    const char *expected = getenv("KVM_TEST_REAL"); /* set where the host is known */
    if (expected)
        assert_int_equal(rc == 0, atoi(expected));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_string_ports),
        cmocka_unit_test(test_mmio),
        cmocka_unit_test(test_mmio_across_a_page),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_doorbells),
        cmocka_unit_test(test_triple_fault_asks_for_reset),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_pause_and_resume),
        cmocka_unit_test(test_state_round_trip),
        cmocka_unit_test(test_reset_state),
        cmocka_unit_test(test_msi_and_lines),
        cmocka_unit_test(test_timer_line),
        cmocka_unit_test(test_reset_msrs),
        cmocka_unit_test(test_cpuid),
        cmocka_unit_test(test_bad_configuration),
        cmocka_unit_test(test_probe),
    };
    tested = argc == 2 ? engine_find(argv[1], NULL) : NULL;
    if (!tested) {
        print_error("usage: %s ENGINE\n", argv[0]);
        return 2;
    }
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0 && strcmp(tested->name, "kvm") == 0) {
        print_message("skipped: /dev/kvm: %s\n", strerror(errno));
        return 77;
    }
    if (fd >= 0)
        close(fd);
    return cmocka_run_group_tests_name(tested->name, tests, NULL, NULL);
}
