/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tabique-oci kill, delete. */
#include "base/bytes.h"
#include "base/error.h"
#include "cli/oci.h"

#include <errno.h>
#include <signal.h>

static const struct oci_flag kill_flags[] = {
    {"all", 'a', OCI_BOOL, NULL, "all processes of the container"},
};

static int run_kill(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                    struct error **err)
{
    const char *const *words = oci_words(values, NULL);
    int number = words[1] ? oci_signal(words[1]) : SIGTERM;

    if (number < 0)
        return error_set(err, EINVAL, "unknown signal \"%s\"", words[1]);
    return container_kill(runtime, words[0], number, oci_bool(values, "all"), err);
}

static const struct oci_flag delete_flags[] = {
    {"force", 'f', OCI_BOOL, NULL, "kill it first if it runs; no error if it is not there"},
};

static int run_delete(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                      struct error **err)
{
    return container_delete(runtime, oci_words(values, NULL)[0], oci_bool(values, "force"), err);
}

const struct oci_verb oci_kill_verb = {
    "kill", "ID [SIGNAL]", "send a signal, TERM without one", kill_flags, ARRAY_SIZE(kill_flags), 1,
    2,      run_kill};
const struct oci_verb oci_delete_verb = {
    "delete", "ID", "remove a container", delete_flags, ARRAY_SIZE(delete_flags), 1, 1, run_delete};
