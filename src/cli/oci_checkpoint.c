/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tabique-oci checkpoint, restore. */
#include "base/bytes.h"
#include "base/error.h"
#include "cli/oci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define COMMON_FLAGS                                                                                         \
    {"image-path", 0, OCI_STRING, "DIR", "the checkpoint's directory; ./checkpoint without"},                \
        {"work-path", 0, OCI_STRING, "DIR",                                                                  \
         "where criu writes its log; the checkpoint's directory without"},                                   \
        {"tcp-established", 0, OCI_BOOL, NULL, "allow open TCP connections"},                                \
        {"ext-unix-sk", 0, OCI_BOOL, NULL, "allow Unix sockets whose other end is outside"},                 \
        {"shell-job", 0, OCI_BOOL, NULL, "allow a terminal that came from outside"},                         \
        {"file-locks", 0, OCI_BOOL, NULL, "allow file locks"},                                               \
        {"link-remap", 0, OCI_BOOL, NULL, "allow open files that have no name any more"},                    \
        {"lazy-pages", 0, OCI_BOOL, NULL, "memory comes when it is needed, from criu's lazy-pages"},         \
        {"auto-dedup", 0, OCI_BOOL, NULL, "free in earlier images what later ones have"},                    \
        {"manage-cgroups-mode", 0, OCI_STRING, "soft|full|strict|ignore",                                    \
         "what becomes of groups below: soft"},                                                              \
    {                                                                                                        \
        "empty-ns", 0, OCI_LIST, "network", "without what is in the network namespace"                       \
    }

static const struct oci_flag checkpoint_flags[] = {
    COMMON_FLAGS,
    {"parent-path", 0, OCI_STRING, "DIR", "an earlier --pre-dump, as seen from the checkpoint's directory"},
    {"leave-running", 0, OCI_BOOL, NULL, "let it go on afterwards"},
    {"pre-dump", 0, OCI_BOOL, NULL,
     "write memory only, and let it go on: the checkpoint proper is short then"},
    {"tcp-skip-in-flight", 0, OCI_BOOL, NULL, "leave out TCP connections that are being made"},
    {"page-server", 0, OCI_STRING, "ADDRESS:PORT", "memory goes to criu's page-server there"},
    {"status-fd", 0, OCI_STRING, "N", "a byte is written to this descriptor when lazy pages can be had"},
};
static const struct oci_flag restore_flags[] = {
    COMMON_FLAGS,
    {"bundle", 'b', OCI_STRING, "DIR", "the bundle's directory; the current one without"},
    {"console-socket", 0, OCI_STRING, "PATH", "a Unix socket that gets the master of the terminal"},
    {"pid-file", 0, OCI_STRING, "FILE", "where the process's number is written"},
    {"detach", 'd', OCI_BOOL, NULL, "leave it running"},
    {"keep", 0, OCI_BOOL, NULL, "do not delete it at its end"},
    {"no-pivot", 0, OCI_BOOL, NULL, "accepted and without effect: the root is criu's to make"},
    {"no-subreaper", 0, OCI_BOOL, NULL, "accepted and without effect: this never is one"},
    {"lsm-profile", 0, OCI_STRING, "TYPE:NAME", "another profile of AppArmor or label of SELinux"},
    {"lsm-mount-context", 0, OCI_STRING, "LABEL", "another label of SELinux for mounts"},
};

/* What was given and is not empty. */
static const char *text(const struct oci_values *values, const char *name)
{
    const char *value = oci_string(values, name);

    return value && *value ? value : NULL;
}

static int take_options(const struct oci_values *values, struct container_checkpoint_options *out,
                        struct error **err)
{
    const char *mode = text(values, "manage-cgroups-mode");
    const char *const *empty = oci_list(values, "empty-ns");
    int number = container_cgroups_mode(mode ? mode : "soft");

    if (number < 0)
        return error_set(err, EINVAL, "--manage-cgroups-mode %s: soft, full, strict or ignore", mode);
    for (size_t i = 0; empty && empty[i]; i++)
        if (strcmp(empty[i], "network") != 0)
            return error_set(err, EINVAL, "--empty-ns %s: only network may be emptied", empty[i]);
    *out = (struct container_checkpoint_options){
        .image_path = text(values, "image-path"),
        .work_path = text(values, "work-path"),
        .tcp_established = oci_bool(values, "tcp-established"),
        .ext_unix_sk = oci_bool(values, "ext-unix-sk"),
        .shell_job = oci_bool(values, "shell-job"),
        .file_locks = oci_bool(values, "file-locks"),
        .link_remap = oci_bool(values, "link-remap"),
        .lazy_pages = oci_bool(values, "lazy-pages"),
        .auto_dedup = oci_bool(values, "auto-dedup"),
        .empty_network = empty && empty[0],
        .cgroups_mode = (unsigned)number,
    };
    return 0;
}

/* ADDRESS:PORT; `address` keeps the first. */
static int take_page_server(const struct oci_values *values, char *address, size_t size,
                            struct container_checkpoint *out, struct error **err)
{
    const char *given = text(values, "page-server"), *colon = given ? strrchr(given, ':') : NULL;
    char *end = NULL;
    unsigned long port = colon ? strtoul(colon + 1, &end, 10) : 0;

    if (!given)
        return 0;
    if (!colon || colon == given || port == 0 || port > 65535 || *end ||
        (size_t)snprintf(address, size, "%.*s", (int)(colon - given), given) >= size)
        return error_set(err, EINVAL, "--page-server %s: ADDRESS:PORT is wanted", given);
    out->page_server = address;
    out->page_server_port = (unsigned)port;
    return 0;
}

static int checkpoint(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                      struct error **err)
{
    struct container_checkpoint request = {
        .id = oci_words(values, NULL)[0],
        .parent_path = text(values, "parent-path"),
        .leave_running = oci_bool(values, "leave-running"),
        .pre_dump = oci_bool(values, "pre-dump"),
        .tcp_skip_in_flight = oci_bool(values, "tcp-skip-in-flight"),
        .has_status_fd = oci_given(values, "status-fd"),
    };
    char address[256];
    int rc = take_options(values, &request.options, err);

    if (rc == 0)
        rc = take_page_server(values, address, sizeof(address), &request, err);
    if (rc == 0)
        rc = oci_number(values, "status-fd", &request.status_fd, err);
    return rc ? rc : container_checkpoint(runtime, &request, err);
}

static int restore(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                   struct error **err)
{
    const char *bundle = text(values, "bundle");
    struct container_restore request = {
        .create =
            {
                .id = oci_words(values, NULL)[0],
                .bundle = bundle ? bundle : ".",
                .console_socket = text(values, "console-socket"),
                .pid_file = text(values, "pid-file"),
            },
        .detach = oci_bool(values, "detach"),
        .keep = oci_bool(values, "keep"),
        .lsm_profile = text(values, "lsm-profile"),
        .lsm_mount_context = text(values, "lsm-mount-context"),
    };
    int rc = take_options(values, &request.options, err);

    return rc ? rc : container_restore(runtime, &request, status, err);
}

const struct oci_verb oci_checkpoint_verb = {"checkpoint",
                                             "ID",
                                             "write a container's processes into files, and delete it",
                                             checkpoint_flags,
                                             ARRAY_SIZE(checkpoint_flags),
                                             1,
                                             1,
                                             checkpoint};
const struct oci_verb oci_restore_verb = {"restore",
                                          "ID",
                                          "make a container that goes on where a checkpoint was written",
                                          restore_flags,
                                          ARRAY_SIZE(restore_flags),
                                          1,
                                          1,
                                          restore};
