/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a program in the guest writes to the port of the guest's agent: whatever it was, the next answer
 * behind a mark is understood. */
#include "machine/agent_answer.h"
#include "require.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t last[] = "\xff{\"return\": 12345}\n";
    struct agent_line line = {0};
    struct agent_answer a;

    for (size_t i = 0; i < size; i++) {
        if (!agent_line_take(&line, data[i], &a))
            continue;
        REQUIRE(a.type <= AGENT_ERROR);
        REQUIRE(memchr(a.text, 0, sizeof(a.text)));
        for (const char *p = a.text; *p; p++)
            REQUIRE((unsigned char)*p >= 0x20 && *p != 0x7f);
    }
    for (size_t i = 0; i + 1 < sizeof(last); i++)
        REQUIRE(agent_line_take(&line, last[i], &a) == (last[i] == '\n'));
    REQUIRE(a.type == AGENT_NUMBER && a.number == 12345);
    return 0;
}
