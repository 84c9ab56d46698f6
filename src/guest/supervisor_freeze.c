/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File systems that the guest's agent has frozen (machine/agent.h), for a snapshot or the beginning of a
 * backup: who has them frozen, and that they are thawed, whatever becomes of who asked for it. Should the
 * supervisor itself end, the guest does. Part of the supervisor's one thread.
 */
#include "base/error.h"
#include "guest/supervisor_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Nobody is told of it any more. */
static void forget(struct supervisor *s)
{
    s->freezer = (struct supervisor_freezer){0};
}

const char *supervisor_freeze(struct supervisor *s, supervisor_frozen *frozen, void *opaque)
{
    if (s->freeze != FREEZE_NOT)
        return "they are for somebody else";
    if (vm_message_send(s->vm.control_fd, &(const struct vm_message){.type = VM_FREEZE}))
        return "its process does not answer";
    s->freeze = FREEZE_ASKED;
    s->freezer = (struct supervisor_freezer){.told = frozen, .opaque = opaque};
    return NULL;
}

static int thaw(struct supervisor *s)
{
    int rc = vm_message_send(s->vm.control_fd, &(const struct vm_message){.type = VM_THAW});

    s->freeze = rc ? FREEZE_NOT : FREEZE_THAWING;
    return rc;
}

int supervisor_thaw(struct supervisor *s, supervisor_frozen *thawed, void *opaque)
{
    if (s->freeze != FREEZE_HELD || s->freezer.opaque != opaque)
        return -EINVAL; /* of a VM process that has ended */
    int rc = thaw(s);

    forget(s);
    if (rc == 0)
        s->freezer = (struct supervisor_freezer){.told = thawed, .opaque = opaque};
    return rc;
}

void supervisor_freeze_forget(struct supervisor *s, const void *opaque)
{
    if (s->freezer.opaque != opaque)
        return;
    forget(s);
    if (s->freeze == FREEZE_HELD)
        thaw(s);
}

void supervisor_freeze_message(struct supervisor *s, const struct vm_message *m)
{
    const struct supervisor_freezer who = s->freezer;
    enum supervisor_freeze expected = m->type == VM_FROZEN ? FREEZE_ASKED : FREEZE_THAWING;
    char why[160];

    /* What a VM process says that nobody asked for means nothing. */
    if (s->freeze != expected)
        return;
    s->freeze = m->type == VM_FROZEN && !m->status ? FREEZE_HELD : FREEZE_NOT;
    if (s->freeze == FREEZE_NOT)
        forget(s);
    else if (!who.told)
        thaw(s);
    snprintf(why, sizeof(why), "%.150s", m->text);
    if (who.told)
        who.told(s, who.opaque, m->value, m->status ? why : NULL);
}

void supervisor_freeze_end(struct supervisor *s)
{
    s->freeze = FREEZE_NOT;
    forget(s);
}
