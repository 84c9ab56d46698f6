/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between UTF-16 of either byte order, which may be anyone's, and UTF-8. No state. */
#include "base/utf16.h"

#include "base/bytes.h"

#include <stdlib.h>

#define REPLACEMENT 0xfffdu

static bool is_high(uint32_t c)
{
    return c >= 0xd800 && c < 0xdc00;
}

static bool is_low(uint32_t c)
{
    return c >= 0xdc00 && c < 0xe000;
}

static char *put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
        return to;
    }
    unsigned more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    *to++ = (char)((0xf0u << (3 - more) & 0xffu) | c >> 6 * more);
    while (more--)
        *to++ = (char)(0x80 | (c >> 6 * more & 0x3f));
    return to;
}

char *utf16_decode(const uint8_t *bytes, size_t len, bool big_endian)
{
    size_t n = len / 2;
    /* Two bytes become three at most, four become four. */
    char *text = malloc(3 * n + 1), *to = text;

    for (size_t i = 0; text && i < n; i++) {
        uint32_t c = big_endian ? get_be16(bytes + 2 * i) : get_le16(bytes + 2 * i), low = 0;
        if (!c)
            break;
        if (is_high(c) && i + 1 < n)
            low = big_endian ? get_be16(bytes + 2 * i + 2) : get_le16(bytes + 2 * i + 2);
        if (is_low(low)) {
            c = 0x10000 + ((c & 0x3ff) << 10 | (low & 0x3ff));
            i++;
        } else if (is_high(c) || is_low(c)) {
            c = REPLACEMENT;
        }
        to = put_utf8(to, c);
    }
    if (text)
        *to = '\0';
    return text;
}

/* The next character, or 0x110000 if what is there is none. */
static uint32_t take_utf8(const uint8_t **from)
{
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    const uint8_t *p = *from;
    unsigned more = *p < 0x80 ? 0 : *p >> 5 == 6 ? 1 : *p >> 4 == 14 ? 2 : *p >> 3 == 30 ? 3 : 4;
    uint32_t c = more == 4 ? 0x110000 : more ? *p & (0x3fu >> more) : *p;

    for (unsigned i = 1; i <= more && more < 4; i++) {
        if (p[i] >> 6 != 2)
            return 0x110000;
        c = c << 6 | (p[i] & 0x3f);
    }
    if (more == 4 || c < least[more] || is_high(c) || is_low(c))
        return 0x110000;
    *from += more + 1;
    return c;
}

static void put_unit(uint8_t *to, uint16_t unit, bool big_endian)
{
    if (big_endian)
        put_be16(to, unit);
    else
        put_le16(to, unit);
}

size_t utf16_encode(const char *text, uint8_t *out, size_t room, bool big_endian)
{
    size_t n = 0;

    for (const uint8_t *p = (const uint8_t *)text; *p;) {
        uint32_t c = take_utf8(&p);
        size_t takes = c < 0x10000 ? 2 : 4;
        if (c >= 0x110000 || n + takes > room)
            return SIZE_MAX;
        if (takes == 4) {
            put_unit(out + n, (uint16_t)(0xd800 | (c - 0x10000) >> 10), big_endian);
            c = 0xdc00 | (c & 0x3ff);
            n += 2;
        }
        put_unit(out + n, (uint16_t)c, big_endian);
        n += 2;
    }
    return n;
}
