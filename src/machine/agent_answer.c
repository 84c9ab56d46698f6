/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Answers of the agent in a guest: agent_answer.h. */
#include "machine/agent_answer.h"

#include "base/text.h"

#include <jansson.h>

static void take_return(const json_t *value, struct agent_answer *out)
{
    if (json_is_integer(value)) {
        out->type = AGENT_NUMBER;
        out->number = json_integer_value(value);
    } else if (json_is_string(value)) {
        out->type = AGENT_TEXT;
        text_make_printable(out->text, sizeof(out->text), json_string_value(value));
    } else if (value) {
        out->type = AGENT_OTHER;
    }
}

void agent_answer_parse(const char *line, size_t len, struct agent_answer *out)
{
    json_t *answer = json_loadb(line, len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *error = json_object_get(answer, "error");
    const char *why = json_string_value(json_object_get(error, "desc"));

    *out = (struct agent_answer){.type = AGENT_NONSENSE};
    if (error) {
        out->type = AGENT_ERROR;
        text_make_printable(out->text, sizeof(out->text), why ? why : "it does not say why");
    } else {
        take_return(json_object_get(answer, "return"), out);
    }
    json_decref(answer);
}

bool agent_line_take(struct agent_line *line, uint8_t byte, struct agent_answer *out)
{
    if (byte == 0xff) {
        line->len = 0;
        line->too_long = false;
        return false;
    }
    if (byte != '\n') {
        if (line->len < sizeof(line->bytes))
            line->bytes[line->len++] = (char)byte;
        else
            line->too_long = true;
        return false;
    }
    if (line->too_long)
        *out = (struct agent_answer){.type = AGENT_NONSENSE};
    else
        agent_answer_parse(line->bytes, line->len, out);
    line->len = 0;
    line->too_long = false;
    return true;
}
