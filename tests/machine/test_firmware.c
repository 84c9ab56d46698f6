/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a firmware is told (src/machine/firmware.c, acpi_loader.c, smbios.c): here the firmware is this test,
 * which reads the files by port, does what the loader's script says, and finds the tables that a direct boot
 * would have. */
#include "machine/firmware.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/fw_cfg.h"
#include "machine/acpi.h"
#include "machine/memory_map.h"
#include "machine/smbios.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CPUS     4u
#define RAM      (32ull << 20)
#define ROM      (256ull << 10)
#define MAX_FILE 65536u

static struct device_env env;
static struct device *device;

static int setup(void **state)
{
    env.pio = io_space_new("pio");
    return env.pio && guest_memory_create(&env.memory, RAM, NULL) == 0 &&
                   guest_memory_add_rom(env.memory, ROM, NULL) == 0 &&
                   fw_cfg_class.create(&device, &env, NULL, NULL) == 0
               ? 0
               : -1;
}

static int teardown(void **state)
{
    device->class->destroy(device);
    io_space_free(env.pio);
    guest_memory_free(env.memory);
    return 0;
}

static uint64_t in(uint64_t port, unsigned size)
{
    return io_space_read(env.pio, port, size);
}

static void in_bytes(unsigned item, void *to, size_t n)
{
    io_space_write(env.pio, FW_CFG_BASE, 2, item);
    for (uint8_t *p = to; n--; p++)
        *p = (uint8_t)in(FW_CFG_BASE + 1, 1);
}

/* The file's bytes in `to`; its size, or 0 if there is none. */
static size_t read_file(const char *name, uint8_t to[MAX_FILE])
{
    static uint8_t directory[4 + FW_CFG_MAX_FILES * 64];

    in_bytes(0x19, directory, sizeof(directory));
    for (uint32_t i = 0; i < get_be32(directory); i++) {
        const uint8_t *entry = directory + 4 + i * 64;

        if (strcmp((const char *)entry + 8, name) != 0)
            continue;
        assert_in_range(get_be32(entry), 1, MAX_FILE);
        in_bytes(get_be16(entry + 4), to, get_be32(entry));
        return get_be32(entry);
    }
    return 0;
}

static void describe(const unsigned *slots, size_t n)
{
    const struct firmware_config config = {
        .memory = env.memory, .cpus = CPUS, .boot_slots = slots, .n_boot_slots = n};

    assert_int_equal(firmware_describe(device, &config, NULL), 0);
}

/* ---- the loader ---- */

struct loaded {
    uint8_t tables[MAX_FILE], rsdp[MAX_FILE];
    uint64_t tables_gpa;
    unsigned allocated;
};

static uint8_t *loaded_file(struct loaded *l, const char *name)
{
    if (strcmp(name, ACPI_FILE_TABLES) == 0)
        return l->tables;
    assert_string_equal(name, ACPI_FILE_RSDP);
    return l->rsdp;
}

/* One command, with the tables at l->tables_gpa. */
static void command(struct loaded *l, const uint8_t *c)
{
    uint8_t *file = loaded_file(l, (const char *)c + 4), sum = 0;

    switch (get_le32(c)) {
    case 1:
        assert_int_equal(get_le32(c + 60) & (get_le32(c + 60) - 1), 0);
        if (file == l->tables)
            assert_int_equal(l->tables_gpa % get_le32(c + 60), 0);
        assert_int_equal(c[64], file == l->tables ? 1 : 2);
        l->allocated++;
        break;
    case 2: {
        uint64_t value = 0;

        assert_int_equal(l->allocated, 2);
        assert_ptr_equal(loaded_file(l, (const char *)c + 60), l->tables);
        memcpy(&value, file + get_le32(c + 116), c[120]);
        value += l->tables_gpa;
        memcpy(file + get_le32(c + 116), &value, c[120]);
        break;
    }
    case 3:
        for (uint32_t i = 0; i < get_le32(c + 68); i++)
            sum = (uint8_t)(sum + file[get_le32(c + 64) + i]);
        file[get_le32(c + 60)] = (uint8_t)(file[get_le32(c + 60)] - sum);
        break;
    default:
        fail_msg("command %u", get_le32(c));
    }
}

static void test_tables_are_those_of_a_direct_boot(void **state)
{
    static struct loaded l;
    static uint8_t script[MAX_FILE];
    struct acpi_config config = {.cpus = CPUS};
    uint64_t rsdp = 0;

    describe(NULL, 0);
    size_t tables_size = read_file(ACPI_FILE_TABLES, l.tables);
    assert_int_equal(read_file(ACPI_FILE_RSDP, l.rsdp), ACPI_RSDP_SIZE);
    size_t size = read_file(ACPI_FILE_LOADER, script);
    assert_int_equal(size % 128, 0);
    /* Where the direct boot has them, so that the same bytes must come out. */
    assert_int_equal(acpi_write(env.memory, &config, &rsdp, NULL), 0);
    l.tables_gpa = ALIGN_UP(rsdp + ACPI_RSDP_SIZE, ACPI_ALIGNMENT);
    for (size_t at = 0; at < size; at += 128)
        command(&l, script + at);
    assert_memory_equal(l.rsdp, guest_memory_at(env.memory, rsdp, ACPI_RSDP_SIZE), ACPI_RSDP_SIZE);
    assert_memory_equal(l.tables, guest_memory_at(env.memory, l.tables_gpa, tables_size), tables_size);
}

/* ---- memory, disks, numbers ---- */

static void test_memory_map(void **state)
{
    static uint8_t map[MAX_FILE];
    const uint64_t expected[][3] = {{0xe0000000, 0x100000, 2}, {0, RAM, 1}, {GUEST_ROM_END - ROM, ROM, 2}};

    describe(NULL, 0);
    assert_int_equal(read_file("etc/e820", map), 20 * ARRAY_SIZE(expected));
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        assert_int_equal(get_le64(map + 20 * i), expected[i][0]);
        assert_int_equal(get_le64(map + 20 * i + 8), expected[i][1]);
        assert_int_equal(get_le32(map + 20 * i + 16), expected[i][2]);
    }
}

static void test_boot_order(void **state)
{
    static uint8_t order[MAX_FILE];
    const unsigned slots[] = {3, 0x1f};

    describe(NULL, 0);
    assert_int_equal(read_file("bootorder", order), 0);
    describe(slots, 2); /* again, as after a reset */
    static const char expected[] = "/pci@i0cf8/scsi@3/disk@0,0\n/pci@i0cf8/scsi@1f/disk@0,0";
    assert_int_equal(read_file("bootorder", order), sizeof(expected));
    assert_string_equal((char *)order, expected);
}

static void test_numbers(void **state)
{
    uint8_t bytes[8];

    describe(NULL, 0);
    in_bytes(FW_CFG_CPUS, bytes, 2);
    assert_int_equal(get_le16(bytes), CPUS);
    in_bytes(FW_CFG_MAX_CPUS, bytes, 2);
    assert_int_equal(get_le16(bytes), CPUS);
    in_bytes(FW_CFG_RAM_SIZE, bytes, 8);
    assert_int_equal(get_le64(bytes), RAM);
    static uint8_t file[MAX_FILE];
    assert_int_equal(read_file("etc/sercon-port", file), 8);
    assert_int_equal(get_le64(file), 0x3f8);
}

/* ---- the image ---- */

static void test_image_is_in_both_places(void **state)
{
    cleanup_free uint8_t *data = malloc(ROM);
    struct boot_file image = {.data = data, .size = ROM, .name = "image"};

    for (size_t i = 0; i < ROM; i++)
        data[i] = (uint8_t)(i * 7 + i / 256);
    assert_int_equal(firmware_load(env.memory, &image, NULL), 0);
    assert_memory_equal(guest_memory_at(env.memory, GUEST_ROM_END - ROM, ROM), data, ROM);
    assert_memory_equal(guest_memory_at(env.memory, 0x100000 - ROM, ROM), data, ROM);
    image.size = ROM - 4096; /* the file was another one before */
    assert_int_equal(firmware_load(env.memory, &image, NULL), -EIO);
}

static void test_sizes(void **state)
{
    static const struct {
        uint64_t size;
        bool ok;
    } cases[] = {{0, false},         {4095, false},         {4096, true},
                 {128 << 10, true},  {GUEST_ROM_MAX, true}, {GUEST_ROM_MAX + 4096, false},
                 {UINT64_MAX, false}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(firmware_check_size(cases[i].size, NULL), cases[i].ok ? 0 : -EINVAL);
    assert_string_equal(firmware_path("some/file", NULL), "some/file");
}

static void test_rom_of_memory(void **state)
{
    struct guest_memory *memory;
    struct memory_map map;

    assert_int_equal(guest_memory_create(&memory, 1 << 20, NULL), 0);
    assert_null(guest_memory_rom(memory));
    assert_int_equal(guest_memory_add_rom(memory, 100, NULL), -EINVAL);
    assert_int_equal(guest_memory_add_rom(memory, GUEST_ROM_MAX + 4096, NULL), -EINVAL);
    assert_int_equal(guest_memory_add_rom(memory, 8192, NULL), 0);
    assert_int_equal(guest_memory_add_rom(memory, 8192, NULL), -EINVAL); /* there is one */
    assert_non_null(guest_memory_at(memory, GUEST_ROM_END - 8192, 8192));
    assert_null(guest_memory_at(memory, GUEST_ROM_END - 8193, 1));
    assert_null(guest_memory_at(memory, GUEST_ROM_END - 1, 2));
    uint8_t byte = 0xff;
    assert_int_equal(guest_memory_write(memory, GUEST_ROM_END - 1, &byte, 1), -EFAULT);
    assert_int_equal(guest_memory_read(memory, GUEST_ROM_END - 1, &byte, 1), 0);
    assert_int_equal(byte, 0);
    memory_map_build(&map, memory);
    for (unsigned i = 0; i < map.n; i++) /* it is no RAM */
        assert_true(map.ranges[i].type != MEMORY_RAM || map.ranges[i].base < 1 << 20);
    guest_memory_free(memory);
}

/* ---- SMBIOS ---- */

static bool sums_to_zero(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;

    while (n--)
        sum = (uint8_t)(sum + *p++);
    return sum == 0;
}

/* The structure's whole size, with its strings. */
static size_t structure_size(const uint8_t *p, const uint8_t *end)
{
    size_t n = p[1];

    while (p + n + 1 < end && (p[n] || p[n + 1]))
        n++;
    assert_true(p + n + 2 <= end);
    return n + 2;
}

static void test_smbios_at_its_place(void **state)
{
    const uint8_t uuid[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    static const uint8_t stored[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    struct smbios_config config = {.memory = RAM, .cpus = CPUS, .uuid = uuid, .serial = "S1"};
    unsigned seen[256] = {0}, n = 0;
    size_t largest = 0;

    assert_int_equal(smbios_write(env.memory, &config, NULL), 0);
    const uint8_t *anchor = guest_memory_at(env.memory, MAP_SMBIOS, 31);
    assert_memory_equal(anchor, "_SM_", 4);
    assert_true(sums_to_zero(anchor, 31));
    assert_true(sums_to_zero(anchor + 16, 15));
    const uint8_t *p = guest_memory_at(env.memory, get_le32(anchor + 24), get_le16(anchor + 22));
    const uint8_t *end = p + get_le16(anchor + 22);
    for (size_t size; p < end; p += size, n++) {
        size = structure_size(p, end);
        seen[p[0]]++;
        largest = size > largest ? size : largest;
        if (p[0] == 1)
            assert_memory_equal(p + 8, stored, 16);
        if (p[0] == 17)
            assert_int_equal(get_le16(p + 12), RAM >> 20);
    }
    assert_int_equal(n, get_le16(anchor + 28));
    assert_int_equal(largest, get_le16(anchor + 8));
    assert_int_equal(seen[0], 1);
    assert_int_equal(seen[1], 1);
    assert_int_equal(seen[4], CPUS);
    assert_int_equal(seen[127], 1);
}

/* The largest machine's, too, and RAM above 4 GiB in a range of its own. */
static void test_smbios_of_large_machines(void **state)
{
    static const uint64_t sizes[] = {1 << 20, 3ull << 30, 5ull << 30, GUEST_MEMORY_MAX};
    static const unsigned modules[] = {1, 1, 1, 64}, mappings[] = {1, 1, 2, 2};

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct smbios_config config = {.memory = sizes[i], .cpus = 8};
        struct smbios_tables tables;
        unsigned found[256] = {0};

        assert_int_equal(smbios_build(&tables, &config, NULL), 0);
        const uint8_t *end = tables.data + tables.size;
        for (const uint8_t *p = tables.data; p < end; p += structure_size(p, end))
            found[p[0]]++;
        assert_int_equal(found[17], modules[i]);
        assert_int_equal(found[19], mappings[i]);
        smbios_tables_free(&tables);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tables_are_those_of_a_direct_boot, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory_map, setup, teardown),
        cmocka_unit_test_setup_teardown(test_boot_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_image_is_in_both_places, setup, teardown),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_rom_of_memory),
        cmocka_unit_test_setup_teardown(test_smbios_at_its_place, setup, teardown),
        cmocka_unit_test(test_smbios_of_large_machines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
