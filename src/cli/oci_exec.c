/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tabique-oci exec. */
#include "base/bytes.h"
#include "base/error.h"
#include "cli/oci.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

static const struct oci_flag flags[] = {
    {"console-socket", 0, OCI_STRING, "PATH", "a Unix socket that gets the master of the terminal"},
    {"cwd", 0, OCI_STRING, "DIR", "its directory; the container's without"},
    {"env", 'e', OCI_LIST, "NAME=VALUE", "a variable more"},
    {"tty", 't', OCI_BOOL, NULL, "with a terminal"},
    {"user", 'u', OCI_STRING, "UID[:GID]", "who it runs as"},
    {"additional-gids", 'g', OCI_LIST, "GID", "a group more"},
    {"process", 'p', OCI_STRING, "FILE", "all of it, as config.json's process"},
    {"detach", 'd', OCI_BOOL, NULL, "leave it running"},
    {"pid-file", 0, OCI_STRING, "FILE", "where the process's number is written"},
    {"process-label", 0, OCI_STRING, "LABEL", "its SELinux label"},
    {"apparmor", 0, OCI_STRING, "PROFILE", "its AppArmor profile"},
    {"no-new-privs", 0, OCI_BOOL, NULL, "it can't gain privileges"},
    {"cap", 'c', OCI_LIST, "CAPABILITY", "a capability more"},
    {"preserve-fds", 0, OCI_STRING, "N", "pass on N descriptors from 3 on"},
    {"cgroup", 0, OCI_STRING, "PATH", "a group below the container's"},
    {"ignore-paused", 0, OCI_BOOL, NULL, "also in a paused container"},
    {"no-subreaper", 0, OCI_BOOL, NULL, "accepted and without effect: this never is one"},
};

static int take_user(const char *text, struct container_exec *out, struct error **err)
{
    char *end;

    if (!text || !*text)
        return 0;
    unsigned long uid = strtoul(text, &end, 10), gid = 0;
    const char *second = *end == ':' ? end + 1 : NULL;
    if (second)
        gid = strtoul(second, &end, 10);
    if (*end || end == text || (second && end == second) || uid >= UINT32_MAX || gid >= UINT32_MAX)
        return error_set(err, EINVAL, "--user %s: numbers are expected, UID or UID:GID", text);
    out->has_user = true;
    out->uid = (uint32_t)uid;
    out->gid = (uint32_t)gid;
    return 0;
}

static int run(const struct container_runtime *runtime, const struct oci_values *values, int *status,
               struct error **err)
{
    const char *const *words = oci_words(values, NULL);
    const char *socket = oci_string(values, "console-socket"), *pid_file = oci_string(values, "pid-file");
    struct container_exec request = {
        .id = words[0],
        .process_file = oci_string(values, "process"),
        .args = words + 1,
        .cwd = oci_string(values, "cwd"),
        .env = oci_list(values, "env"),
        .additional_gids = oci_list(values, "additional-gids"),
        .capabilities = oci_list(values, "cap"),
        .terminal = oci_bool(values, "tty"),
        .has_no_new_privileges = oci_given(values, "no-new-privs"),
        .no_new_privileges = oci_bool(values, "no-new-privs"),
        .ignore_paused = oci_bool(values, "ignore-paused"),
        .detach = oci_bool(values, "detach"),
        .apparmor_profile = oci_string(values, "apparmor"),
        .selinux_label = oci_string(values, "process-label"),
        .console_socket = socket && *socket ? socket : NULL,
        .pid_file = pid_file && *pid_file ? pid_file : NULL,
        .cgroup = oci_string(values, "cgroup"),
    };
    int rc = take_user(oci_string(values, "user"), &request, err);

    if (rc == 0)
        rc = oci_number(values, "preserve-fds", &request.preserve_fds, err);
    if (rc == 0 && !request.process_file && !words[1])
        rc =
            error_set(err, EINVAL, "\"exec\" requires a minimum of 2 argument(s): a container and a program");
    return rc ? rc : container_exec(runtime, &request, status, err);
}

const struct oci_verb oci_exec_verb = {"exec",
                                       "ID PROGRAM [ARGUMENT...]",
                                       "run a program more in a container",
                                       flags,
                                       ARRAY_SIZE(flags),
                                       1,
                                       SIZE_MAX,
                                       run};
