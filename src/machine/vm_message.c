/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The messages between supervisor and VM process. No state, no locks. */
#include "machine/vm_message.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* The length of the UTF-8 character (RFC 3629) that `s`, which ends with a 0 byte, begins with; 0 where there
 * is none, or a control character: of those from U+0080 on terminals take commands too. */
static size_t printable(const char *s)
{
    const unsigned char *p = (const unsigned char *)s;
    uint32_t code = p[0];

    if (code < 0x80)
        return code >= 0x20 && code != 0x7f;
    size_t len = code >= 0xf0 ? 4 : code >= 0xe0 ? 3 : 2;
    static const uint32_t least[] = {0, 0, 0xa0, 0x800, 0x10000};
    if (code < 0xc2 || code > 0xf4)
        return 0;
    code &= 0x7fu >> len;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3fu);
    }
    return code >= least[len] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? len : 0;
}

/* The text goes to a person's terminal and into JSON: what is no printable UTF-8 becomes '?', byte by byte.
 */
static void take_text(char *to, const char *from)
{
    size_t i = 0;

    while (i < VM_TEXT_SIZE - 1 && from[i]) {
        size_t len = printable(from + i);

        if (i + len > VM_TEXT_SIZE - 1)
            break; /* it is cut there, not within a character */
        if (len)
            memcpy(to + i, from + i, len);
        else
            to[i] = '?';
        i += len ? len : 1;
    }
    memset(to + i, 0, VM_TEXT_SIZE - i);
}

int vm_message_parse(const void *bytes, size_t len, bool from_vm, struct vm_message *out)
{
    struct vm_message m;

    if (len != sizeof(m))
        return -EPROTO;
    memcpy(&m, bytes, sizeof(m));
    uint32_t first = from_vm ? VM_CONFINED : VM_POWER_BUTTON, last = from_vm ? VM_FROM_LAST : VM_TO_LAST;
    if (m.type < first || m.type > last || m.end >= VM_ENDS || m.status < 0 || m.status > 255)
        return -EPROTO;
    if (!memchr(m.text, 0, sizeof(m.text)))
        return -EPROTO;
    *out = m;
    take_text(out->text, m.text);
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

void vm_message_set_text(struct vm_message *message, const char *text)
{
    take_text(message->text, text);
}

const char *vm_end_name(enum vm_end end)
{
    static const char *const names[VM_ENDS] = {
        [VM_END_POWEROFF] = "power-off", [VM_END_PANIC] = "panic",   [VM_END_DEBUG_EXIT] = "debug-exit",
        [VM_END_ENGINE] = "engine",      [VM_END_FAILED] = "failed", [VM_END_QUIT] = "quit",
        [VM_END_WATCHDOG] = "watchdog",
    };

    return names[end];
}
