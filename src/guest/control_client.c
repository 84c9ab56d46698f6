/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The side of the control protocol that commands have. One thread, no state. */
#include "guest/control.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "guest/control_socket.h"
#include "guest/guest.h"
#include "guest/lock.h"
#include "host/loop.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

/* From the lock to the listening socket, and back, a supervisor needs milliseconds; on a busy host some more.
 */
#define CONNECT_MS 5000
#define RETRY_NS   5000000

static int not_running(const char *name, struct error **err)
{
    return error_set(err, ESRCH, "guest '%s' is not running: 'tabique start %s' starts it", name, name);
}

int control_connect(const struct home *home, const char *name, struct error **err)
{
    cleanup_free char *directory = guest_path(home, name, NULL), *run = guest_run_path(home, name, NULL);
    uint64_t until = loop_now() + CONNECT_MS * 1000000ull;

    if (!directory || !run)
        return error_set_errno(err, ENOMEM, "guest '%s'", name);
    for (;;) {
        int fd = control_socket_connect(run);

        if (fd >= 0)
            return fd;
        if (lock_holder(directory) != LOCK_SUPERVISED)
            return not_running(name, err);
        if (fd != -ENOENT && fd != -ECONNREFUSED && fd != -EAGAIN)
            return error_set_errno(err, -fd, "guest '%s': control socket", name);
        if (loop_now() >= until)
            return error_set(err, ETIMEDOUT, "guest '%s': its supervisor does not answer", name);
        nanosleep(&(struct timespec){.tv_nsec = RETRY_NS}, NULL);
    }
}

int control_send(int fd, const struct control_request *request, struct error **err)
{
    cleanup_free char *line = control_format(request);
    size_t len = line ? strlen(line) : 0;

    if (!line)
        return error_set_errno(err, ENOMEM, "request");
    for (size_t done = 0; done < len;) {
        ssize_t n = send(fd, line + done, len - done, MSG_NOSIGNAL);
        if (n < 0 && errno == EPIPE)
            return error_set(err, ECONNRESET, "the guest's supervisor has ended");
        if (n < 0 && errno != EINTR)
            return error_set_errno(err, errno, "the guest's supervisor");
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Nothing behind its newline, since what follows an answer may be the guest's console. */
static int read_line(int fd, unsigned ms, char *line, size_t size, struct error **err)
{
    uint64_t until = loop_now() + ms * 1000000ull;
    size_t len = 0;

    for (;;) {
        uint64_t now = loop_now();
        struct pollfd p = {.fd = fd, .events = POLLIN};

        if (now >= until || poll(&p, 1, (int)((until - now + 999999) / 1000000)) == 0)
            return error_set(err, ETIMEDOUT, "the guest's supervisor does not answer");
        ssize_t n = recv(fd, line + len, size - len, MSG_DONTWAIT | MSG_PEEK);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        char *end = n > 0 ? memchr(line + len, '\n', (size_t)n) : NULL;
        if (n > 0) /* what was seen is there */
            n = recv(fd, line + len, end ? (size_t)(end + 1 - (line + len)) : (size_t)n, MSG_DONTWAIT);
        if (n <= 0)
            return error_set(err, ECONNRESET, "the guest's supervisor has ended");
        if (end) {
            *end = '\0';
            return 0;
        }
        len += (size_t)n;
        if (len == size)
            return error_set(err, EPROTO, "the guest's supervisor answers without an end");
    }
}

int control_receive(int fd, unsigned ms, json_t **out, struct error **err)
{
    cleanup_free char *line = malloc(CONTROL_ANSWER_MAX);

    if (!line)
        return error_set_errno(err, ENOMEM, "answer");
    int rc = read_line(fd, ms, line, CONTROL_ANSWER_MAX, err);
    if (rc)
        return rc;
    json_t *answer = json_loads(line, 0, NULL);
    if (!json_is_object(answer) || !json_is_true(json_object_get(answer, "ok"))) {
        const char *why = json_string_value(json_object_get(answer, "error"));
        rc = error_set(err, EIO, "%s", why ? why : "the guest's supervisor does not make sense");
        json_decref(answer);
        return rc;
    }
    *out = answer;
    return 0;
}
