/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What criu answers, and what is made of it: texts are ended, and what is written is read again as it was. */
#include "container/criu_message.h"

#include "require.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct criu_answer first, second;
    struct buffer inner = {0}, m = {0};

    if (criu_answer_parse(data, size, &first) < 0)
        return 0;
    REQUIRE(strnlen(first.script, sizeof(first.script)) < sizeof(first.script));
    REQUIRE(strnlen(first.message, sizeof(first.message)) < sizeof(first.message));
    criu_put_number(&m, 1, first.kind);
    criu_put_number(&m, 2, first.success);
    criu_put_text(&inner, 1, first.script);
    criu_put_number(&inner, 2, (uint64_t)(int64_t)first.pid);
    criu_put_message(&m, 5, &inner);
    criu_put_number(&m, 7, (uint64_t)(int64_t)first.errnum);
    criu_put_text(&m, 9, first.message);
    REQUIRE(!m.failed);
    REQUIRE(criu_answer_parse(m.data, m.size, &second) == 0);
    REQUIRE(first.kind == second.kind && first.success == second.success && first.pid == second.pid &&
            first.errnum == second.errnum && strcmp(first.script, second.script) == 0 &&
            strcmp(first.message, second.message) == 0);
    free(inner.data);
    free(m.data);
    return 0;
}
