/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The conversation with the agent in a guest: agent.h. */
#include "machine/agent.h"

#include "base/error.h"
#include "device/virtio/port.h"
#include "host/loop.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define TICK_NS 20000000ull

/* ---- the port ---- */

/* From the device, under its lock: what has to be done for it is done by the timer. */
static size_t take_output(struct char_backend *port, const uint8_t *bytes, size_t len)
{
    struct agent *a = port->opaque;
    struct agent_answer answer;

    for (size_t i = 0; i < len; i++) {
        a->marked = a->marked || bytes[i] == 0xff;
        if (!agent_line_take(&a->line, bytes[i], &answer) || a->answered)
            continue;
        /* What comes before the answer to the synchronization is of an earlier conversation. */
        if (a->state == AGENT_SYNCING &&
            (!a->marked || answer.type != AGENT_NUMBER || answer.number != a->id))
            continue;
        a->answer = answer;
        a->answered = true;
        loop_timer_arm(a->timer, 0);
    }
    return len;
}

static void ignore_room(struct char_backend *port)
{
}

static void write_rest(struct agent *a)
{
    size_t n =
        a->out_len && a->port.input ? a->port.input(a->port.device, (const uint8_t *)a->out, a->out_len) : 0;

    memmove(a->out, a->out + n, a->out_len - n);
    a->out_len -= n;
}

static void say(struct agent *a, enum agent_state state, uint64_t limit, const char *text)
{
    int n = snprintf(a->out, sizeof(a->out), "%s", text);

    a->out_len = n > 0 && (size_t)n < sizeof(a->out) ? (size_t)n : 0;
    a->state = state;
    a->until = loop_now() + limit;
    a->answered = false;
    write_rest(a);
    loop_timer_arm(a->timer, loop_now() + TICK_NS);
}

bool agent_is_there(const struct agent *a)
{
    return a->port.device && virtio_port_is_open(a->port.device);
}

/* ---- the conversation ---- */

#define THAW "{\"execute\":\"guest-fsfreeze-thaw\"}\n"

static void finish(struct agent *a, bool thaw, uint64_t n, const char *why)
{
    a->state = AGENT_IDLE;
    a->done(a->opaque, thaw, n, why);
}

/* One that answers late, or freezes in part, is not to leave it at that. */
static void give_up_freezing(struct agent *a, const char *why)
{
    if (a->state == AGENT_FREEZING)
        say(a, AGENT_IDLE, AGENT_THAW_NS, THAW);
    finish(a, false, 0, why);
}

static void act_on_answer(struct agent *a)
{
    const struct agent_answer *said = &a->answer;
    bool number = said->type == AGENT_NUMBER && said->number >= 0;
    char why[AGENT_TEXT_MAX + 64];

    snprintf(why, sizeof(why), "its agent says: %s",
             said->type == AGENT_ERROR ? said->text : "what makes no sense");
    switch (a->state) {
    case AGENT_SYNCING:
        say(a, AGENT_FREEZING, AGENT_FREEZE_NS, "{\"execute\":\"guest-fsfreeze-freeze\"}\n");
        break;
    case AGENT_FREEZING:
        if (number)
            finish(a, false, (uint64_t)said->number, NULL);
        else
            give_up_freezing(a, why);
        break;
    case AGENT_THAWING:
        if (number)
            say(a, AGENT_ASKING, AGENT_SYNC_NS, "{\"execute\":\"guest-fsfreeze-status\"}\n");
        else
            finish(a, true, 0, why);
        break;
    case AGENT_ASKING:
        if (said->type == AGENT_TEXT && strcmp(said->text, "thawed") == 0)
            finish(a, true, 0, NULL);
        else
            finish(a, true, 0, said->type == AGENT_TEXT ? "its agent says that they are not" : why);
        break;
    case AGENT_IDLE:
        break;
    }
}

static void on_timer(void *opaque)
{
    struct agent *a = opaque;
    bool answered = a->answered, there = agent_is_there(a);
    bool late = loop_now() >= a->until;

    a->answered = false;
    write_rest(a);
    if (a->state != AGENT_IDLE && answered) {
        act_on_answer(a);
    } else if (a->state != AGENT_IDLE && (late || !there)) {
        const char *why = there ? "its agent does not answer" : "its agent has ended meanwhile";

        if (a->state == AGENT_SYNCING || a->state == AGENT_FREEZING)
            give_up_freezing(a, why);
        else
            finish(a, true, 0, why);
    }
    if (a->state != AGENT_IDLE || (a->out_len && there && !late))
        loop_timer_arm(a->timer, loop_now() + TICK_NS);
}

void agent_freeze(struct agent *a)
{
    char text[128];

    a->id = (int64_t)(loop_now() >> 10 & INT32_MAX);
    a->marked = false;
    snprintf(text, sizeof(text), "\xff{\"execute\":\"guest-sync-delimited\",\"arguments\":{\"id\":%lld}}\n",
             (long long)a->id);
    say(a, AGENT_SYNCING, AGENT_SYNC_NS, text);
}

void agent_thaw(struct agent *a)
{
    say(a, AGENT_THAWING, AGENT_THAW_NS, THAW);
}

int agent_open(struct agent *a, struct loop *loop,
               void (*done)(void *opaque, bool thaw, uint64_t n, const char *why), void *opaque,
               struct error **err)
{
    *a = (struct agent){.port = {.output = take_output, .input_ready = ignore_room, .opaque = a},
                        .timer = loop_timer_new(loop, on_timer, a),
                        .done = done,
                        .opaque = opaque};
    return a->timer ? 0 : error_set_errno(err, ENOMEM, "agent");
}

void agent_close(struct agent *a)
{
    loop_timer_free(a->timer);
    a->timer = NULL;
}
