/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/device/fw_cfg.c: as SeaBIOS reads it (ports, then DMA), and as a guest would that means harm. */
#include "device/fw_cfg.h"

#include "base/bytes.h"
#include "legacy_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define RAM      (2u << 20)
#define REQUEST  0x1000u
#define BUFFER   0x2000u
#define READ     0x02u
#define SKIP     0x04u
#define SELECT   0x08u
#define WRITE    0x10u
#define ERROR    1u
#define PENDING  0xdeadbeefu
#define NO_ITEM  0x3fffu
#define DMA_PORT 0x514u

static struct legacy_fixture *f;
static struct guest_memory *memory;
static unsigned marked;

static void written(void *opaque, uint64_t gpa, uint64_t len)
{
    marked++;
}

static int setup(void **state)
{
    f = legacy_start(&fw_cfg_class, NULL);
    if (guest_memory_create(&memory, RAM, NULL) < 0)
        return -1;
    memory->written = written;
    f->env.memory = memory;
    return 0;
}

static int teardown(void **state)
{
    guest_memory_free(memory);
    return legacy_stop(state);
}

static void select_item(unsigned key)
{
    io_space_write(f->env.pio, 0x510, 2, key);
}

static void read_bytes(void *to, size_t n)
{
    for (uint8_t *p = to; n--; p++)
        *p = in8(0x511);
}

/* The request's control word afterwards. */
static uint32_t dma_at(uint64_t request, uint32_t control, uint32_t length, uint64_t address)
{
    uint8_t bytes[16];
    uint32_t answer = PENDING;

    put_be32(bytes, control);
    put_be32(bytes + 4, length);
    put_be64(bytes + 8, address);
    guest_memory_write(memory, request, bytes, sizeof(bytes));
    io_space_write(f->env.pio, DMA_PORT, 4, __builtin_bswap32((uint32_t)(request >> 32)));
    io_space_write(f->env.pio, DMA_PORT + 4, 4, __builtin_bswap32((uint32_t)request));
    if (guest_memory_read(memory, request, bytes, 4) == 0)
        answer = get_be32(bytes);
    return answer;
}

static uint32_t dma(uint32_t control, uint32_t length, uint64_t address)
{
    return dma_at(REQUEST, control, length, address);
}

static const uint8_t *ram(uint64_t gpa)
{
    return guest_memory_at(memory, gpa, 1);
}

static void test_signature_by_port(void **state)
{
    uint8_t bytes[6];

    read_bytes(bytes, 4); /* selected after reset */
    assert_memory_equal(bytes, "QEMU", 4);
    select_item(0);
    read_bytes(bytes, 6);
    assert_memory_equal(bytes, "QEMU\0\0", 6);
    select_item(1);
    read_bytes(bytes, 4);
    assert_int_equal(get_le32(bytes), 3); /* ports and DMA */
    select_item(NO_ITEM);
    assert_int_equal(in8(0x511), 0);
    assert_int_equal(io_space_read(f->env.pio, DMA_PORT, 4), 0x554d4551u /* the bytes Q, E, M, U */);
    assert_int_equal(io_space_read(f->env.pio, DMA_PORT + 4, 4), 0x47464320u);
}

static void test_numbers(void **state)
{
    uint8_t bytes[4];

    assert_int_equal(fw_cfg_add_number(f->device, FW_CFG_CPUS, 0x1234, 2, NULL), 0);
    assert_int_equal(fw_cfg_add_number(f->device, FW_CFG_CPUS, 1, 2, NULL), -EINVAL);
    assert_int_equal(fw_cfg_add_number(f->device, FW_CFG_IRQ0_OVERRIDE, 1, 1, NULL), 0);
    select_item(FW_CFG_CPUS);
    read_bytes(bytes, 4);
    assert_memory_equal(bytes, "\x34\x12\0\0", 4);
    select_item(FW_CFG_IRQ0_OVERRIDE);
    assert_int_equal(in8(0x511), 1);
    select_item(FW_CFG_CPUS | 0x4000); /* the same, for writing */
    assert_int_equal(in8(0x511), 0x34);
}

/* As SeaBIOS does: the directory's count, then entry by entry. */
static unsigned find_file(const char *name, uint32_t *size)
{
    uint8_t bytes[64];

    select_item(0x19);
    read_bytes(bytes, 4);
    for (uint32_t n = get_be32(bytes); n; n--) {
        read_bytes(bytes, 64);
        if (strcmp((char *)bytes + 8, name) == 0) {
            *size = get_be32(bytes);
            return get_be16(bytes + 4);
        }
    }
    return 0;
}

static void test_files(void **state)
{
    uint8_t bytes[8];
    uint32_t size = 0;

    assert_int_equal(fw_cfg_add_file(f->device, "etc/a", "abc", 3, NULL), 0);
    assert_int_equal(fw_cfg_add_file(f->device, "etc/b", "01234567", 8, NULL), 0);
    assert_int_equal(fw_cfg_add_file(f->device, "etc/empty", NULL, 0, NULL), 0);
    unsigned b = find_file("etc/b", &size);
    assert_int_equal(b, 0x21);
    assert_int_equal(size, 8);
    select_item(b);
    read_bytes(bytes, 8);
    assert_memory_equal(bytes, "01234567", 8);
    select_item(find_file("etc/empty", &size));
    assert_int_equal(size, 0);
    assert_int_equal(in8(0x511), 0);
    assert_int_equal(find_file("etc/c", &size), 0);

    fw_cfg_clear(f->device);
    assert_int_equal(in8(0x511), 0); /* what was selected is gone */
    assert_int_equal(find_file("etc/a", &size), 0);
    assert_int_equal(fw_cfg_add_file(f->device, "etc/c", "x", 1, NULL), 0);
    assert_int_equal(find_file("etc/c", &size), 0x20);
}

static void test_limits(void **state)
{
    char name[FW_CFG_FILE_NAME + 1];

    memset(name, 'n', sizeof(name));
    name[FW_CFG_FILE_NAME] = 0;
    assert_int_equal(fw_cfg_add_file(f->device, name, "x", 1, NULL), -EINVAL);
    name[FW_CFG_FILE_NAME - 1] = 0;
    for (unsigned i = 0; i < FW_CFG_MAX_FILES; i++)
        assert_int_equal(fw_cfg_add_file(f->device, name, "x", 1, NULL), 0);
    assert_int_equal(fw_cfg_add_file(f->device, "one more", "x", 1, NULL), -EINVAL);
}

static void test_dma_reads(void **state)
{
    fw_cfg_add_file(f->device, "file", "0123456789", 10, NULL);
    memset(guest_memory_at(memory, BUFFER, 32), 0xee, 32);
    marked = 0;
    assert_int_equal(dma(0x20u << 16 | SELECT | READ, 4, BUFFER), 0);
    assert_memory_equal(ram(BUFFER), "0123\xee", 5);
    assert_true(marked > 0); /* the engine has been told */
    assert_int_equal(dma(SKIP, 3, 0), 0);
    assert_int_equal(dma(READ, 2, BUFFER + 8), 0);
    assert_memory_equal(ram(BUFFER + 8), "78\xee", 3);
    /* Past the end zeros come, and then nothing else. */
    assert_int_equal(dma(READ, 4, BUFFER + 16), 0);
    assert_memory_equal(ram(BUFFER + 16), "9\0\0\0\xee", 5);
    assert_int_equal(dma(SKIP, 100, 0), 0);
    assert_int_equal(in8(0x511), 0);
    /* By both ways it is one position. */
    assert_int_equal(dma(0x20u << 16 | SELECT, 0, 0), 0);
    assert_int_equal(in8(0x511), '0');
    assert_int_equal(dma(READ, 1, BUFFER), 0);
    assert_int_equal(*ram(BUFFER), '1');
}

static void test_dma_is_refused(void **state)
{
    fw_cfg_add_file(f->device, "file", "0123456789", 10, NULL);
    memset(guest_memory_at(memory, RAM - 16, 16), 0xee, 16);
    /* No item can be written. */
    assert_int_equal(dma(0x20u << 16 | SELECT | WRITE, 4, BUFFER), ERROR);
    select_item(0x20);
    assert_int_equal(in8(0x511), '0');
    /* Across the end of RAM: nothing of it is stored, and the position stays. */
    assert_int_equal(dma(0x20u << 16 | SELECT | READ, 10, RAM - 4), ERROR);
    assert_int_equal(*ram(RAM - 4), 0xee);
    assert_int_equal(in8(0x511), '0');
    assert_int_equal(dma(READ, 1, RAM), ERROR);
    assert_int_equal(dma(READ, 4, UINT64_MAX - 1), ERROR);
    assert_int_equal(dma(READ, 4, 0xfee00000), ERROR);
    assert_int_equal(dma(READ, UINT32_MAX, 0), ERROR);
    assert_int_equal(dma(SKIP, UINT32_MAX, 0), ERROR);
    assert_int_equal(dma(READ, 0, RAM), 0); /* nothing to nowhere */
    assert_int_equal(in8(0x511), '1');
}

static void test_hostile_requests(void **state)
{
    const uint64_t places[] = {RAM - 8, RAM, 0xe0000000, 0xfffffffful << 12, UINT64_MAX - 7, UINT64_MAX};

    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        dma_at(places[i], 0x20u << 16 | SELECT | READ, 4, BUFFER);
    /* A request that the transfer itself overwrites is answered all the same. */
    fw_cfg_add_file(f->device, "file", "0123456789abcdef", 16, NULL);
    assert_int_equal(dma(0x20u << 16 | SELECT | READ, 16, REQUEST), 0);
    assert_memory_equal(ram(REQUEST + 4), "456789abcdef", 12);
    /* An upper half of the address is for one request alone. */
    io_space_write(f->env.pio, DMA_PORT, 4, UINT32_MAX);
    f->device->class->reset(f->device);
    assert_int_equal(dma(0x20u << 16 | SELECT | READ, 1, BUFFER), 0);
}

static void test_every_width_at_every_port(void **state)
{
    for (unsigned offset = 0; offset < FW_CFG_SIZE; offset++)
        for (unsigned size = 1; size <= 8 && offset + size <= FW_CFG_SIZE; size *= 2) {
            io_space_write(f->env.pio, FW_CFG_BASE + offset, size, UINT64_MAX);
            io_space_read(f->env.pio, FW_CFG_BASE + offset, size);
        }
    select_item(0);
    assert_int_equal(in8(0x511), 'Q');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_signature_by_port, setup, teardown),
        cmocka_unit_test_setup_teardown(test_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_reads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dma_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_width_at_every_port, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
