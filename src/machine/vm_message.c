/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The messages between supervisor and VM process. No state, no locks. */
#include "machine/vm_message.h"

#include "base/cleanup.h"
#include "base/text.h"
#include "host/pass.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static bool profile_is_sound(const struct engine_profile *p)
{
    if (p->hz > ENGINE_PROFILE_HZ_MAX || p->n > ENGINE_SAMPLES_MAX)
        return false;
    for (unsigned i = 0; i < p->n; i++) {
        const struct engine_sample *s = &p->samples[i];

        if (s->cpu >= ENGINE_MAX_CPUS || s->activity >= ENGINE_ACTIVITIES || s->cpl > 3 ||
            s->depth > ENGINE_STACK_MAX)
            return false;
    }
    return true;
}

int vm_message_parse(const void *bytes, size_t len, bool from_vm, struct vm_message *out)
{
    struct vm_message m;

    if (len != sizeof(m))
        return -EPROTO;
    memcpy(&m, bytes, sizeof(m));
    uint32_t first = from_vm ? VM_CONFINED : VM_POWER_BUTTON, last = from_vm ? VM_FROM_LAST : VM_TO_LAST;
    if (m.type < first || m.type > last || m.end >= VM_ENDS || m.status < 0 || m.status > 255 ||
        m.engine.cpus > ENGINE_MAX_CPUS || !profile_is_sound(&m.profile))
        return -EPROTO;
    if (m.type == VM_PROFILE_WANTED && (!m.value || m.value > ENGINE_PROFILE_HZ_MAX))
        return -EPROTO;
    if (!memchr(m.text, 0, sizeof(m.text)) || !memchr(m.engine.no_direct, 0, sizeof(m.engine.no_direct)))
        return -EPROTO;
    *out = m;
    /* It goes to a person's terminal and into JSON. */
    text_make_printable(out->text, sizeof(out->text), m.text);
    text_make_printable(out->engine.no_direct, sizeof(out->engine.no_direct), m.engine.no_direct);
    return 0;
}

int vm_message_send(int fd, const struct vm_message *message)
{
    ssize_t n;

    do {
        n = send(fd, message, sizeof(*message), MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int vm_message_receive(int fd, bool from_vm, struct vm_message *out)
{
    char bytes[sizeof(struct vm_message)];
    ssize_t n;

    do {
        /* With MSG_TRUNC a longer message tells its length. */
        n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_TRUNC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    /* The end of the connection; or an empty message, which is none of ours. */
    if (n == 0)
        return -ECONNRESET;
    return vm_message_parse(bytes, (size_t)n, from_vm, out);
}

int vm_message_receive_passed(int fd, struct vm_message *out, int *passed)
{
    char bytes[sizeof(struct vm_message)];
    ssize_t n = pass_receive(fd, bytes, sizeof(bytes), passed, MSG_DONTWAIT | MSG_TRUNC);
    int rc = n < 0 ? (int)n : n == 0 ? -ECONNRESET : vm_message_parse(bytes, (size_t)n, false, out);

    if (rc) {
        cleanup_close_fn(passed);
        *passed = -1;
    }
    return rc;
}

int vm_message_pass(int fd, const struct vm_message *message, int passed)
{
    ssize_t n = pass_send(fd, message, sizeof(*message), passed, MSG_DONTWAIT);

    return n < 0 ? (int)n : 0;
}

void vm_message_set_text(struct vm_message *message, const char *text)
{
    text_make_printable(message->text, sizeof(message->text), text);
}

const char *vm_end_name(enum vm_end end)
{
    static const char *const names[VM_ENDS] = {
        [VM_END_POWEROFF] = "power-off", [VM_END_PANIC] = "panic",   [VM_END_DEBUG_EXIT] = "debug-exit",
        [VM_END_ENGINE] = "engine",      [VM_END_FAILED] = "failed", [VM_END_QUIT] = "quit",
        [VM_END_WATCHDOG] = "watchdog",  [VM_END_EXITED] = "exited",
    };

    return names[end];
}
