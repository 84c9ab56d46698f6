/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text that can do no harm. Called by who hears of confined processes. No state. */
#include "base/text.h"

#include <stdint.h>
#include <string.h>

/* The length of the UTF-8 character (RFC 3629) that `s`, which ends with a 0 byte, begins with; 0 where there
 * is none, or a control character: of those from U+0080 on terminals take commands too. */
static size_t printable(const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    uint32_t code = p[0];

    if (code < 0x80)
        return code >= 0x20 && code != 0x7f;
    size_t len = code >= 0xf0 ? 4 : code >= 0xe0 ? 3 : 2;
    static const uint32_t least[] = {0, 0, 0xa0, 0x800, 0x10000};
    if (code < 0xc2 || code > 0xf4)
        return 0;
    code &= 0x7fu >> len;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3fu);
    }
    return code >= least[len] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? len : 0;
}

void text_make_printable(char *to, size_t size, const char *from)
{
    size_t i = 0;

    while (i < size - 1 && from[i]) {
        size_t len = printable(from + i);

        if (i + len > size - 1)
            break;
        if (len)
            memmove(to + i, from + i, len);
        else
            to[i] = '?';
        i += len ? len : 1;
    }
    memset(to + i, 0, size - i);
}
