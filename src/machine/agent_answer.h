/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the agent in a guest says: lines of JSON, each an answer, judged before they are believed. Called by
 * agent.c; no locks.
 */
#ifndef TABIQUE_MACHINE_AGENT_ANSWER_H
#define TABIQUE_MACHINE_AGENT_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AGENT_LINE_MAX 4096u /* a longer answer is none of those that are asked for */
#define AGENT_TEXT_MAX 120u  /* of what it says to a person */

enum agent_answer_type {
    AGENT_NONSENSE,
    AGENT_NUMBER, /* {"return": 2} */
    AGENT_TEXT,   /* {"return": "thawed"} */
    AGENT_OTHER,  /* another return */
    AGENT_ERROR,  /* {"error": {"desc": "..."}} */
};

struct agent_answer {
    enum agent_answer_type type;
    int64_t number;
    char text[AGENT_TEXT_MAX]; /* printable */
};

/* `line` without its newline. */
void agent_answer_parse(const char *line, size_t len, struct agent_answer *out);

/* The bytes that come, until they are a line. */
struct agent_line {
    char bytes[AGENT_LINE_MAX];
    size_t len;
    bool too_long; /* and lost */
};

/* Takes a byte. True: it was the last of a line, which is an answer. A byte of 0xff, which is in no JSON,
 * begins anew: what was before is not looked at (guest-sync-delimited). */
bool agent_line_take(struct agent_line *line, uint8_t byte, struct agent_answer *out);

#endif
