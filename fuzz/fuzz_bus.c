/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What comes over D-Bus: an answer's text has an end. */
#include "container/bus.h"

#include "require.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bus_answer answer;

    if (bus_parse(data, size, &answer) == 0)
        REQUIRE(strnlen(answer.error, sizeof(answer.error)) < sizeof(answer.error));
    return 0;
}
