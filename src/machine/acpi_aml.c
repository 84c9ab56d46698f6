/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The AML writer. Called by acpi_dsdt.c. No locks. */
#include "machine/acpi_aml.h"

#include "base/bytes.h"

#include <string.h>

#define OP_NAME               0x08
#define OP_BYTE               0x0a
#define OP_WORD               0x0b
#define OP_DWORD              0x0c
#define OP_STRING             0x0d
#define OP_QWORD              0x0e
#define OP_SCOPE              0x10
#define OP_BUFFER             0x11
#define OP_PACKAGE            0x12
#define OP_METHOD             0x14
#define OP_EXTENDED           0x5b
#define OP_DEVICE             0x82 /* extended */
#define OP_ARG0               0x68
#define OP_OR                 0x7d
#define OP_CREATE_DWORD_FIELD 0x8a
#define OP_LEQUAL             0x93
#define OP_IF                 0xa0
#define OP_RETURN             0xa4

#define METHOD_SERIALIZED 0x08

/* Room kept for a package length, which is only known at the end; it takes 1 to 4 bytes (20.2.4). */
#define LENGTH_ROOM 4

static void put(struct aml *a, const void *data, size_t n)
{
    if (a->overflow || n > a->size - a->used) {
        a->overflow = true;
        return;
    }
    memcpy(a->buf + a->used, data, n);
    a->used += n;
}

static void put8(struct aml *a, unsigned v)
{
    uint8_t b = (uint8_t)v;

    put(a, &b, 1);
}

static void put_integer(struct aml *a, uint64_t v, unsigned bytes)
{
    uint8_t b[8];

    put_le64(b, v);
    put(a, b, bytes);
}

static size_t begin(struct aml *a)
{
    static const uint8_t room[LENGTH_ROOM];
    size_t mark = a->used;

    put(a, room, sizeof(room));
    return mark;
}

/*
 * PkgLength counts itself. One byte: 0..63. More: the low nibble is in the first byte, whose top two bits
 * count the bytes that follow.
 */
void aml_end(struct aml *a, size_t mark)
{
    uint8_t encoded[LENGTH_ROOM];
    unsigned bytes = 1;

    if (a->overflow)
        return;
    size_t body = a->used - mark - LENGTH_ROOM;
    while (body + bytes >= (bytes == 1 ? 1u << 6 : 1u << (8 * bytes - 4)))
        bytes++;
    size_t length = body + bytes;
    if (bytes == 1) {
        encoded[0] = (uint8_t)length;
    } else {
        encoded[0] = (uint8_t)((bytes - 1) << 6 | (length & 0xf));
        for (unsigned i = 1; i < bytes; i++)
            encoded[i] = (uint8_t)(length >> (8 * i - 4));
    }
    memcpy(a->buf + mark, encoded, bytes);
    memmove(a->buf + mark + bytes, a->buf + mark + LENGTH_ROOM, body);
    a->used = mark + length;
}

void aml_path(struct aml *a, const char *name)
{
    put(a, name, strlen(name));
}

size_t aml_scope(struct aml *a, const char *path)
{
    put8(a, OP_SCOPE);
    size_t mark = begin(a);
    aml_path(a, path);
    return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
    put8(a, OP_EXTENDED);
    put8(a, OP_DEVICE);
    size_t mark = begin(a);
    aml_path(a, name);
    return mark;
}

size_t aml_method(struct aml *a, const char *name, unsigned arguments)
{
    put8(a, OP_METHOD);
    size_t mark = begin(a);
    aml_path(a, name);
    put8(a, arguments | METHOD_SERIALIZED);
    return mark;
}

size_t aml_package(struct aml *a, unsigned elements)
{
    put8(a, OP_PACKAGE);
    size_t mark = begin(a);
    put8(a, elements);
    return mark;
}

size_t aml_if(struct aml *a)
{
    put8(a, OP_IF);
    return begin(a);
}

void aml_name(struct aml *a, const char *name)
{
    put8(a, OP_NAME);
    aml_path(a, name);
}

void aml_integer(struct aml *a, uint64_t v)
{
    if (v <= 1) {
        put8(a, (unsigned)v); /* ZeroOp, OneOp */
    } else if (v <= UINT8_MAX) {
        put8(a, OP_BYTE);
        put_integer(a, v, 1);
    } else if (v <= UINT16_MAX) {
        put8(a, OP_WORD);
        put_integer(a, v, 2);
    } else if (v <= UINT32_MAX) {
        put8(a, OP_DWORD);
        put_integer(a, v, 4);
    } else {
        put8(a, OP_QWORD);
        put_integer(a, v, 8);
    }
}

void aml_string(struct aml *a, const char *text)
{
    put8(a, OP_STRING);
    put(a, text, strlen(text) + 1);
}

void aml_buffer(struct aml *a, const void *data, size_t n)
{
    put8(a, OP_BUFFER);
    size_t mark = begin(a);
    aml_integer(a, n);
    put(a, data, n);
    aml_end(a, mark);
}

/*
 * Four bytes, big-endian: 0, three letters of 5 bits each ('A' is 1), four nibbles.
 */
void aml_eisa_id(struct aml *a, const char *id)
{
    uint32_t v = 0;
    uint8_t b[4];

    for (int i = 0; i < 3; i++)
        v = v << 5 | ((uint32_t)(id[i] - 'A' + 1) & 0x1f);
    for (int i = 3; i < 7; i++)
        v = v << 4 | ((uint32_t)(id[i] <= '9' ? id[i] - '0' : id[i] - 'A' + 10) & 0xf);
    put_be32(b, v);
    put8(a, OP_DWORD);
    put(a, b, sizeof(b));
}

void aml_arg(struct aml *a, unsigned n)
{
    put8(a, OP_ARG0 + n);
}

void aml_return(struct aml *a)
{
    put8(a, OP_RETURN);
}

void aml_equal(struct aml *a)
{
    put8(a, OP_LEQUAL);
}

void aml_or_into(struct aml *a, const char *target, uint64_t value)
{
    put8(a, OP_OR);
    aml_path(a, target);
    aml_integer(a, value);
    aml_path(a, target);
}

void aml_create_dword_field(struct aml *a, unsigned arg, unsigned byte_offset, const char *name)
{
    put8(a, OP_CREATE_DWORD_FIELD);
    aml_arg(a, arg);
    aml_integer(a, byte_offset);
    aml_path(a, name);
}

/* The size of a template's buffer is patched in at its end: a word, whatever it is. */
size_t aml_resources(struct aml *a)
{
    put8(a, OP_BUFFER);
    size_t mark = begin(a);
    put8(a, OP_WORD);
    put_integer(a, 0, 2);
    return mark;
}

void aml_resources_end(struct aml *a, size_t mark)
{
    put8(a, 0x79); /* end tag; a checksum of 0 means "not computed" */
    put8(a, 0);
    if (!a->overflow)
        put_le16(a->buf + mark + LENGTH_ROOM + 1, (uint16_t)(a->used - mark - LENGTH_ROOM - 3));
    aml_end(a, mark);
}

void aml_io(struct aml *a, uint16_t port, uint8_t length)
{
    put8(a, 0x47);
    put8(a, 1); /* decodes 16 bits */
    put_integer(a, port, 2);
    put_integer(a, port, 2);
    put8(a, 1); /* alignment */
    put8(a, length);
}

void aml_irq(struct aml *a, unsigned irq)
{
    put8(a, 0x22);
    put_integer(a, 1u << irq, 2);
}

void aml_memory32(struct aml *a, uint32_t base, uint32_t length)
{
    put8(a, 0x86);
    put_integer(a, 9, 2);
    put8(a, 1); /* writable */
    put_integer(a, base, 4);
    put_integer(a, length, 4);
}

#define WINDOW_MEMORY 0
#define WINDOW_IO     1
#define WINDOW_BUS    2

/* An address space descriptor (6.4.3.5) whose fields have `bytes` each: minimum and maximum are fixed, and
 * the device passes the range on to its children. */
static void window(struct aml *a, uint8_t tag, unsigned bytes, unsigned type, unsigned type_flags,
                   uint64_t first, uint64_t last)
{
    put8(a, tag);
    put_integer(a, 3 + 5 * bytes, 2);
    put8(a, type);
    put8(a, 0x0c);
    put8(a, type_flags);
    put_integer(a, 0, bytes); /* granularity */
    put_integer(a, first, bytes);
    put_integer(a, last, bytes);
    put_integer(a, 0, bytes); /* translation */
    put_integer(a, last - first + 1, bytes);
}

void aml_window_bus(struct aml *a, uint16_t first, uint16_t last)
{
    window(a, 0x88, 2, WINDOW_BUS, 0, first, last);
}

void aml_window_io(struct aml *a, uint16_t first, uint16_t last)
{
    window(a, 0x88, 2, WINDOW_IO, 3, first, last); /* the entire range, no ISA aliases */
}

void aml_window_memory32(struct aml *a, uint32_t first, uint32_t last)
{
    window(a, 0x87, 4, WINDOW_MEMORY, 1, first, last); /* writable, not cacheable */
}
