/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/engine/soft/op_io.c: ports, the TSS's permission bitmap, port strings (SDM vol. 1 chapter 19). */
#include "cpu_fixture.h"

#include "device/io_space.h"
#include "engine/soft/soft_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define BITMAP (TSS_AT + 0x68)

static struct {
    struct io_space *space;
    struct io_region region;
    unsigned reads, writes, size;
    uint64_t offset, value;
} t;

static uint64_t port_read(void *opaque, uint64_t offset, unsigned size)
{
    t.reads++;
    t.offset = offset;
    t.size = size;
    return 0x8877665544332211 + t.reads - 1;
}

static void port_write(void *opaque, uint64_t offset, unsigned size, uint64_t value)
{
    t.writes++;
    t.offset = offset;
    t.size = size;
    t.value = value;
}

static struct soft_vcpu *cpu(enum fixture_mode mode, unsigned cpl)
{
    struct soft_vcpu *c = fixture_cpu(mode, cpl);

    io_space_free(t.space);
    memset(&t, 0, sizeof(t));
    t.space = io_space_new("ports");
    t.region = (struct io_region){.name = "test", .size = 0x10000, .read = port_read, .write = port_write};
    assert_int_equal(io_space_add(t.space, &t.region), 0);
    fixture_soft()->config.pio = t.space;
    return c;
}

static void sizes_and_registers(void **state)
{
    struct soft_vcpu *c = cpu(MODE_LONG, 0);

    c->gpr[CPU_RAX] = UINT64_MAX;
    c->gpr[CPU_RDX] = 0xffff1234;
    ASSERT_DONE(STEP(0xec)); /* in al, dx */
    assert_true(c->gpr[CPU_RAX] == 0xffffffffffffff11);
    assert_int_equal(t.offset, 0x1234);
    assert_int_equal(t.size, 1);
    ASSERT_DONE(STEP(0x66, 0xed));
    assert_true(c->gpr[CPU_RAX] == 0xffffffffffff2212);
    ASSERT_DONE(STEP(0x48, 0xe5, 0x80)); /* in eax, 0x80: no 64 bits */
    assert_true(c->gpr[CPU_RAX] == 0x44332213);
    assert_int_equal(t.offset, 0x80);
    assert_int_equal(t.size, 4);
    c->gpr[CPU_RAX] = 0x123456789abcdef0;
    ASSERT_DONE(STEP(0xee));
    assert_int_equal(t.value, 0xf0);
    ASSERT_DONE(STEP(0x66, 0xe7, 0x42));
    assert_int_equal(t.value, 0xdef0);
    assert_int_equal(t.offset, 0x42);
    ASSERT_DONE(STEP(0xef));
    assert_int_equal(t.value, 0x9abcdef0);
    assert_int_equal(t.writes, 3);
}

static void the_bitmap_decides_above_iopl(void **state)
{
    struct soft_vcpu *c = cpu(MODE_LONG, 3);

    c->gpr[CPU_RDX] = 0x3f8;
    fixture_write(BITMAP + 0x3f8 / 8, 0xfffe, 2); /* port 0x3f8 alone */
    ASSERT_DONE(STEP(0xec));
    ASSERT_FAULT(STEP(0x66, 0xed), VEC_GP, 0); /* the second byte's port */
    c->gpr[CPU_RDX] = 0x3f9;
    ASSERT_FAULT(STEP(0xec), VEC_GP, 0);
    ASSERT_FAULT(STEP(0xee), VEC_GP, 0);
    /* Ports of the last byte need one more byte in the bitmap. */
    fixture_write(BITMAP + 0x3fe / 8, 0, 2);
    c->gpr[CPU_RDX] = 0x3ff;
    ASSERT_DONE(STEP(0x66, 0xed));
    c->tr.limit = 0x68 + 0x3ff / 8;
    ASSERT_FAULT(STEP(0xec), VEC_GP, 0);
    c->tr.limit = 0x66; /* no bitmap offset */
    ASSERT_FAULT(STEP(0xec), VEC_GP, 0);
    assert_int_equal(t.reads, 2);
    assert_int_equal(t.writes, 0);
    soft_set_rflags(c, FLAG_IOPL, FLAG_IOPL);
    ASSERT_DONE(STEP(0xee));
    c = cpu(MODE_PROTECTED32, 1);
    c->tr.attr = 0x83; /* a 16-bit TSS has none */
    ASSERT_FAULT(STEP(0xec), VEC_GP, 0);
    cpu(MODE_REAL, 0);
    ASSERT_DONE(STEP(0xec));
}

static void strings(void **state)
{
    struct soft_vcpu *c = cpu(MODE_LONG, 0);

    c->gpr[CPU_RDX] = 0x1f0;
    c->gpr[CPU_RDI] = DATA_AT;
    c->gpr[CPU_RCX] = 3;
    ASSERT_DONE(STEP(0x66, 0xf3, 0x6d)); /* rep insw */
    assert_int_equal(t.reads, 3);
    assert_int_equal(fixture_read(DATA_AT, 8), 0x221322122211);
    assert_int_equal(c->gpr[CPU_RDI], DATA_AT + 6);
    assert_int_equal(c->gpr[CPU_RCX], 0);
    c->gpr[CPU_RSI] = DATA_AT + 4;
    c->gpr[CPU_RCX] = 2;
    c->flags = FLAG_DF;
    ASSERT_DONE(STEP(0xf3, 0x6f)); /* rep outsd, down */
    assert_int_equal(t.writes, 2);
    assert_int_equal(t.value, 0x22122211);
    assert_int_equal(c->gpr[CPU_RSI], DATA_AT - 4);
    ASSERT_DONE(STEP(0x6c)); /* insb */
    assert_int_equal(t.reads, 4);
    c->gpr[CPU_RCX] = 0;
    ASSERT_DONE(STEP(0xf3, 0x6c)); /* nothing */
    assert_int_equal(t.reads, 4);
}

/* A device must not see an access whose memory side faults: it comes again. */
static void memory_faults_come_before_the_device(void **state)
{
    struct soft_vcpu *c = cpu(MODE_LONG, 0);

    c->gpr[CPU_RDI] = HOLE_AT - 1;
    ASSERT_FAULT(STEP(0x66, 0x6d), VEC_PF, 2);
    c->gpr[CPU_RDI] = READ_ONLY_AT;
    ASSERT_FAULT(STEP(0x6c), VEC_PF, 3);
    c->gpr[CPU_RSI] = HOLE_AT;
    ASSERT_FAULT(STEP(0x6e), VEC_PF, 0);
    assert_int_equal(t.reads + t.writes, 0);
    c->gpr[CPU_RDI] = HOLE_AT - 2;
    c->gpr[CPU_RCX] = 5;
    assert_int_equal(STEP(0xf3, 0x6c), SOFT_FAULT);
    assert_int_equal(t.reads, 2);
    assert_int_equal(c->gpr[CPU_RCX], 3);
    assert_int_equal(c->gpr[CPU_RDI], HOLE_AT);
}

static void long_strings_come_in_turns(void **state)
{
    struct soft_vcpu *c = cpu(MODE_LONG, 0);
    uint64_t rip = c->rip;

    c->gpr[CPU_RSI] = DATA_AT;
    c->gpr[CPU_RCX] = 1000;
    ASSERT_DONE(STEP(0xf3, 0x6e));
    assert_int_equal(c->rip, rip);
    assert_in_range(c->gpr[CPU_RCX], 1, 999);
    assert_int_equal(t.writes, 1000 - c->gpr[CPU_RCX]);
}

static int teardown(void **state)
{
    fixture_end();
    io_space_free(t.space);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_registers),
        cmocka_unit_test(the_bitmap_decides_above_iopl),
        cmocka_unit_test(strings),
        cmocka_unit_test(memory_faults_come_before_the_device),
        cmocka_unit_test(long_strings_come_in_turns),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
