/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VHDX file that anyone may have made: see disk_fuzz.h. Its structures are far apart, so the input has them
 * in pieces: where each lies (4 bytes), its length (4) and its bytes. Checksums are made right, for nothing
 * is found behind a wrong one.
 */
#include "base/bytes.h"
#include "disk/crc32c.h"
#include "disk_fuzz.h"

#define PLACE_MAX (64u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fix(int fd, uint64_t at, const char *signature, uint32_t length)
{
    static uint8_t bytes[1 << 20];

    if (length < 8 || length > sizeof(bytes) || disk_read_at(fd, bytes, length, at) < 0 ||
        memcmp(bytes, signature, 4) != 0)
        return;
    put_le32(bytes + 4, 0);
    put_le32(bytes + 4, crc32c(0, bytes, length));
    disk_write_at(fd, bytes + 4, 4, at + 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < SCRIPT || size > SCRIPT + FILE_MAX)
        return 0;
    int fd = memfd_create("image", MFD_CLOEXEC);
    const uint8_t *p = data + SCRIPT, *end = data + size;
    if (fd < 0)
        abort();
    for (; end - p >= 8; p += 8 + get_le32(p + 4)) {
        uint32_t at = get_le32(p) % PLACE_MAX, n = get_le32(p + 4);
        if (n > (size_t)(end - p) - 8)
            break;
        disk_write_at(fd, p + 8, n, at);
    }
    for (uint64_t at = 1 << 20; at < 2 << 20; at += 4096) {
        uint8_t length[4];
        if (disk_read_at(fd, length, 4, at + 8) == 0)
            fix(fd, at, "loge", get_le32(length));
    }
    fix(fd, 64 << 10, "head", 4096);
    fix(fd, 128 << 10, "head", 4096);
    fix(fd, 192 << 10, "regi", 65536);
    fix(fd, 256 << 10, "regi", 65536);
    fuzz_disk_file("vhdx", data, fd);
    return 0;
}
