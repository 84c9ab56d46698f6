/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tabique-oci state, list, spec, features: what is printed. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "cli/oci.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* As runc: two spaces, no line for it else. */
static int print(json_t *json, bool pretty, struct error **err)
{
    char *text = json ? json_dumps(json, pretty ? JSON_INDENT(2) : JSON_COMPACT) : NULL;

    json_decref(json);
    if (!text)
        return error_set_errno(err, ENOMEM, "output");
    puts(text);
    free(text);
    return fflush(stdout) ? error_set_errno(err, errno, "standard output") : 0;
}

static int state(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                 struct error **err)
{
    json_t *json = container_state(runtime, oci_words(values, NULL)[0], err);

    return json ? print(json, true, err) : -(error_errno(err ? *err : NULL) ?: EIO);
}

/* ---- list ---- */

static const struct oci_flag list_flags[] = {
    {"format", 'f', OCI_STRING, "table|json", "how it is told"},
    {"quiet", 'q', OCI_BOOL, NULL, "the ids alone"},
};

static const char *member(json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json, key));

    return text ? text : "";
}

static void print_table(json_t *list)
{
    static const char *const head[] = {"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"};
    size_t width[6], i;
    char pid[16];
    json_t *c;

    for (size_t k = 0; k < 6; k++)
        width[k] = strlen(head[k]);
    for (int round = 0; round < 2; round++) {
        if (round)
            printf("%-*s   %-*s   %-*s   %-*s   %-*s   %s\n", (int)width[0], head[0], (int)width[1], head[1],
                   (int)width[2], head[2], (int)width[3], head[3], (int)width[4], head[4], head[5]);
        json_array_foreach(list, i, c)
        {
            snprintf(pid, sizeof(pid), "%d", (int)json_integer_value(json_object_get(c, "pid")));
            const char *row[] = {member(c, "id"),      pid,
                                 member(c, "status"),  member(c, "bundle"),
                                 member(c, "created"), member(c, "owner")};
            for (size_t k = 0; k < 6 && !round; k++)
                if (strlen(row[k]) > width[k])
                    width[k] = strlen(row[k]);
            if (round)
                printf("%-*s   %-*s   %-*s   %-*s   %-*s   %s\n", (int)width[0], row[0], (int)width[1],
                       row[1], (int)width[2], row[2], (int)width[3], row[3], (int)width[4], row[4], row[5]);
        }
    }
}

static int list(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                struct error **err)
{
    const char *format = oci_string(values, "format");
    json_t *all, *c;
    size_t i;

    if (format && strcmp(format, "table") != 0 && strcmp(format, "json") != 0)
        return error_set(err, EINVAL, "invalid format option '%s': table or json", format);
    all = container_list(runtime, err);
    if (!all)
        return -EIO;
    if (oci_bool(values, "quiet")) {
        json_array_foreach(all, i, c) puts(member(c, "id"));
    } else if (format && strcmp(format, "json") == 0) {
        return print(all, false, err);
    } else {
        print_table(all);
    }
    json_decref(all);
    return 0;
}

/* ---- spec, features ---- */

static const struct oci_flag spec_flags[] = {
    {"bundle", 'b', OCI_STRING, "DIR", "where config.json is written; here without"},
    {"rootless", 0, OCI_BOOL, NULL, "one that a person may run"},
};

static int spec(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                struct error **err)
{
    const char *bundle = oci_string(values, "bundle");
    json_t *json = container_spec(oci_bool(values, "rootless"));
    cleanup_free char *text = json ? json_dumps(json, JSON_INDENT(4)) : NULL, *path = NULL;

    json_decref(json);
    if (!text || asprintf(&path, "%s/config.json", bundle ? bundle : ".") < 0)
        return error_set_errno(err, ENOMEM, "spec");
    cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno == EEXIST)
        return error_set(err, EEXIST, "File config.json exists. Remove it first");
    if (fd < 0 || dprintf(fd, "%s\n", text) < 0)
        return error_set_errno(err, errno, "%s", path);
    return 0;
}

static int features(const struct container_runtime *runtime, const struct oci_values *values, int *status,
                    struct error **err)
{
    return print(container_features(), true, err);
}

const struct oci_verb oci_state_verb = {"state", "ID", "a container's state as JSON", NULL, 0, 1, 1, state};
const struct oci_verb oci_list_verb = {"list", "",  "all containers", list_flags, ARRAY_SIZE(list_flags), 0,
                                       0,      list};
const struct oci_verb oci_spec_verb = {
    "spec", "", "write a config.json to begin with", spec_flags, ARRAY_SIZE(spec_flags), 0, 0, spec};
const struct oci_verb oci_features_verb = {"features", "",      "what configurations may say", NULL, 0, 0,
                                           0,          features};
