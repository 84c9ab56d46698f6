/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disks that go on in other files: vm_switch.h. */
#include "machine/vm_switch.h"

#include "base/cleanup.h"
#include "disk/disk.h"
#include "host/loop.h"
#include "machine/machine.h"
#include "machine/vm_message.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *format_at(uint64_t i)
{
    size_t n = 0;

    while (disk_format_name(n) && n < i)
        n++;
    return disk_format_name(n) ? disk_format_name(n) : "raw";
}

void vm_switch_take(struct vm_switch *s, const struct vm_message *m, int fd)
{
    struct vm_switch_file *more = realloc(s->files, (s->n + 1) * sizeof(*more));
    char *name = strdup(m->text);

    if (more)
        s->files = more;
    if (!more || !name || fd < 0) {
        /* The switch will say so: it has fewer files than were meant, and one that is in use by nobody. */
        free(name);
        cleanup_close_fn(&fd);
        return;
    }
    more[s->n++] = (struct vm_switch_file){
        .disk = m->value, .fd = fd, .name = name, .format = m->size ? format_at(m->size - 1) : NULL};
}

void vm_switch_ask(struct vm_switch *s, const struct vm_message *m)
{
    s->asked = m->type;
    s->keep = m->value & 1;
    /* With VM_DISK_SWITCH: how many files there should be. */
    if (m->type == VM_DISK_SWITCH && m->value != s->n)
        vm_switch_close(s);
}

void vm_switch_begin(struct vm_switch *s)
{
    if (s->asked == VM_DISK_SWITCH)
        s->since = loop_now();
}

static void forget_files(struct vm_switch *s)
{
    for (size_t i = 0; i < s->n; i++) {
        cleanup_close_fn(&s->files[i].fd);
        free(s->files[i].name);
    }
    free(steal_ptr(s->files));
    s->n = 0;
}

static int take_back(struct vm_switch *s, struct machine *machine, size_t n)
{
    int rc = 0;

    while (n-- > 0) {
        int popped = machine_pop_disk(machine, s->files[n].disk);
        rc = rc ? rc : popped;
    }
    return rc;
}

static int put_in_use(struct vm_switch_file *f, struct machine *machine)
{
    int fd = steal_fd(f->fd);

    return f->format ? machine_replace_disk(machine, f->disk, fd, f->name, f->format)
                     : machine_push_disk(machine, f->disk, fd, f->name);
}

static const char *reason(int rc)
{
    return rc == -EBUSY    ? VM_COPYING
           : rc == -ENODEV ? "it has no mirror that is ready"
           : rc == -EAGAIN ? "the guest writes more than can be copied in a moment"
                           : strerror(-rc);
}

static void switch_all(struct vm_switch *s, struct machine *machine, int control_fd)
{
    struct vm_message m = {.type = VM_DISK_SWITCHED};
    int rc = s->n ? 0 : -EPROTO;
    size_t n = 0;

    for (; n < s->n && rc == 0; n++)
        rc = put_in_use(&s->files[n], machine);
    if (rc) {
        take_back(s, machine, n ? n - 1 : 0);
        forget_files(s);
        m.status = 1;
        vm_message_set_text(&m, reason(rc));
    }
    s->switched = rc == 0;
    vm_message_send(control_fd, &m);
}

void vm_switch_act(struct vm_switch *s, struct machine *machine, int control_fd)
{
    uint32_t asked = s->asked;

    s->asked = 0;
    if (asked == VM_DISK_SWITCH && !s->switched) {
        switch_all(s, machine, control_fd);
    } else if (asked == VM_DISK_GO_ON && s->switched) {
        if (!s->keep)
            take_back(s, machine, s->n);
        for (size_t i = 0; i < s->n && s->keep; i++)
            if (s->files[i].format)
                machine_keep_disk(machine, s->files[i].disk);
        forget_files(s);
        s->switched = false;
        s->done = true;
    }
}

void vm_switch_tell(struct vm_switch *s, int control_fd)
{
    const struct vm_message m = {.type = VM_DISK_DONE, .value = loop_now() - s->since};

    if (s->done)
        vm_message_send(control_fd, &m);
    s->done = false;
}

void vm_switch_close(struct vm_switch *s)
{
    forget_files(s);
}
