/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests on a guest's control socket: a line of any bytes. What is taken must come out the same when it is
 * written and read again. */
#include "base/error.h"
#include "guest/control.h"
#include "require.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct control_request request = {.verb = CONTROL_VERBS}, again;
    struct error *err = NULL;

    if (control_parse((const char *)data, size, &request, &err)) {
        REQUIRE(err && *error_message(err) && request.verb == CONTROL_VERBS);
        error_free(err);
        return 0;
    }
    REQUIRE(!err && request.verb < CONTROL_VERBS && request.timeout_ms <= CONTROL_TIMEOUT_MS_MAX);
    char *line = control_format(&request);
    REQUIRE(line && strlen(line) < CONTROL_LINE_MAX && line[strlen(line) - 1] == '\n');
    REQUIRE(control_parse(line, strlen(line) - 1, &again, NULL) == 0);
    REQUIRE(again.verb == request.verb);
    REQUIRE(request.verb != CONTROL_STOP || again.timeout_ms == request.timeout_ms);
    REQUIRE(request.verb != CONTROL_CONSOLE ||
            (again.columns == request.columns && again.rows == request.rows));
    REQUIRE(request.verb != CONTROL_BALLOON || again.memory_bytes == request.memory_bytes);
    REQUIRE(request.verb != CONTROL_PROFILE || again.frequency == request.frequency);
    free(line);
    return 0;
}
