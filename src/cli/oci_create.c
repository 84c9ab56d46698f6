/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tabique-oci create, run, start. */
#include "base/bytes.h"
#include "base/error.h"
#include "cli/oci.h"

#include <errno.h>

#define CREATE_FLAGS                                                                                         \
    {"bundle", 'b', OCI_STRING, "DIR", "the bundle's directory; the current one without"},                   \
        {"console-socket", 0, OCI_STRING, "PATH", "a Unix socket that gets the master of the terminal"},     \
        {"pid-file", 0, OCI_STRING, "FILE", "where the process's number is written"},                        \
        {"no-pivot", 0, OCI_BOOL, NULL, "move the root instead of pivot_root: for an initial RAM disk"},     \
        {"no-new-keyring", 0, OCI_BOOL, NULL, "no session keyring of its own"},                              \
    {                                                                                                        \
        "preserve-fds", 0, OCI_STRING, "N", "pass on N descriptors from 3 on"                                \
    }

static const struct oci_flag create_flags[] = {CREATE_FLAGS};
static const struct oci_flag run_flags[] = {
    CREATE_FLAGS,
    {"detach", 'd', OCI_BOOL, NULL, "leave it running"},
    {"keep", 0, OCI_BOOL, NULL, "do not delete it at its end"},
    {"no-subreaper", 0, OCI_BOOL, NULL, "accepted and without effect: this never is one"},
};

static int take_request(const struct oci_values *values, struct container_create *out, struct error **err)
{
    *out = (struct container_create){
        .id = oci_words(values, NULL)[0],
        .bundle = oci_string(values, "bundle"),
        .console_socket = oci_string(values, "console-socket"),
        .pid_file = oci_string(values, "pid-file"),
        .no_pivot = oci_bool(values, "no-pivot"),
        .no_new_keyring = oci_bool(values, "no-new-keyring"),
    };
    if (!out->bundle || !*out->bundle)
        out->bundle = ".";
    if (out->console_socket && !*out->console_socket)
        out->console_socket = NULL;
    if (out->pid_file && !*out->pid_file)
        out->pid_file = NULL;
    return oci_number(values, "preserve-fds", &out->preserve_fds, err);
}

static int create(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                  struct error **err)
{
    struct container_create request;
    int rc = take_request(values, &request, err);

    return rc ? rc : container_create(runtime, &request, status, err);
}

static int run(const struct container_runtime *runtime, const struct oci_values *values, int *status,
               struct error **err)
{
    struct container_create request;
    int rc = take_request(values, &request, err);

    return rc ? rc
              : container_run(runtime, &request, oci_bool(values, "detach"), oci_bool(values, "keep"), status,
                              err);
}

static int start(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                 struct error **err)
{
    return container_start(runtime, oci_words(values, NULL)[0], err);
}

const struct oci_verb oci_create_verb = {
    "create", "ID",  "make a container, which waits for start", create_flags, ARRAY_SIZE(create_flags), 1,
    1,        create};
const struct oci_verb oci_run_verb = {
    "run", "ID", "make a container and start it", run_flags, ARRAY_SIZE(run_flags), 1, 1, run};
const struct oci_verb oci_start_verb = {"start", "ID", "start a container that was made", NULL, 0, 1,
                                        1,       start};
