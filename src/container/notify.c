/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One connection, one message with the descriptor. Called by the command that makes a container, or runs a
 * process in one. */
#include "container/notify.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/console.h"
#include "container/state_priv.h"
#include "host/pass.h"

#include <errno.h>
#include <string.h>

static int send_all(int fd, const char *text, size_t size, int listener)
{
    while (size) {
        ssize_t n = pass_send(fd, text, size, listener, 0);

        if (n < 0)
            return (int)n;
        text += n;
        size -= (size_t)n;
        listener = -1; /* it goes with the first part only */
    }
    return 0;
}

int notify_send(const struct container_config *config, const struct container *container, int listener,
                struct error **err)
{
    json_t *state = state_describe(container, CONTAINER_CREATING, false);
    json_t *json =
        json_pack("{s:s, s:[s], s:i, s:s*, s:o}", "ociVersion", CONTAINER_OCI_VERSION, "fds", "seccompFd",
                  "pid", (int)container->pid, "metadata", config->seccomp.listener_metadata, "state", state);
    cleanup_free char *text = json ? json_dumps(json, JSON_COMPACT) : NULL;

    json_decref(json);
    if (!text)
        return error_set_errno(err, ENOMEM, "seccomp listener");
    cleanup_close int fd = console_connect(config->seccomp.listener_path, err);
    if (fd < 0)
        return error_wrap(err, "linux.seccomp.listenerPath");
    int rc = send_all(fd, text, strlen(text), listener);
    return rc < 0 ? error_set_errno(err, -rc, "linux.seccomp.listenerPath %s", config->seccomp.listener_path)
                  : 0;
}
