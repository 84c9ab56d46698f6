/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A table of symbols from a guest. The first 8 bytes are where its kernel says it is entered, the rest the
 * file. */
#include "base/bytes.h"
#include "base/error.h"
#include "guest/symbols.h"
#include "require.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct symbols *s = symbols_new();
    struct error *err = NULL;
    uint64_t entry, offset;

    if (size < 8)
        size = 0;
    entry = size ? get_le64(data) : 0;
    REQUIRE(s);
    if (size && symbols_add(s, (const char *)data + 8, size - 8, &err))
        REQUIRE(err && *error_message(err));
    error_free(err);
    symbols_settle(s, entry);
    const uint64_t places[] = {0, 1, entry, entry + 1, UINT64_MAX, 0x401000, 0xffffffff81000000};
    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        const char *name = symbols_find(s, places[i], &offset);

        if (!name)
            continue;
        REQUIRE(offset <= places[i] && !strpbrk(name, " ;\n\t\x1b"));
    }
    symbols_free(s);
    return 0;
}
