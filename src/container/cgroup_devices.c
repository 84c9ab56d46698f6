/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which devices a container may open or make: the rules in their order, and as v1's list. No state, no locks.
 */
#include "container/cgroup_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ANY CONTAINER_DEVICE_ANY
#define ALL CONTAINER_DEVICE_ALL

/* Before those of the configuration. */
static const struct container_device_rule nothing = {false, 'a', ANY, ANY, ALL};

/* After them: what the runtime itself puts into every container (config-linux.md, "Default Devices"). */
static const struct container_device_rule defaults[] = {
    {true, 'c', ANY, ANY, CONTAINER_DEVICE_MKNOD},
    {true, 'b', ANY, ANY, CONTAINER_DEVICE_MKNOD},
    {true, 'c', 1, 3, ALL},     /* /dev/null */
    {true, 'c', 1, 5, ALL},     /* /dev/zero */
    {true, 'c', 1, 7, ALL},     /* /dev/full */
    {true, 'c', 1, 8, ALL},     /* /dev/random */
    {true, 'c', 1, 9, ALL},     /* /dev/urandom */
    {true, 'c', 5, 0, ALL},     /* /dev/tty */
    {true, 'c', 5, 2, ALL},     /* /dev/ptmx */
    {true, 'c', 136, ANY, ALL}, /* /dev/pts/ and a number */
};

struct container_device_rule *cgroup_device_rules(const struct container_resources *resources, size_t *n)
{
    size_t own = resources->n_devices;
    struct container_device_rule *rules = calloc(1 + own + ARRAY_SIZE(defaults), sizeof(*rules));

    if (!rules)
        return NULL;
    rules[0] = nothing;
    if (own)
        memcpy(&rules[1], resources->devices, own * sizeof(*rules));
    memcpy(&rules[1 + own], defaults, sizeof(defaults));
    *n = 1 + own + ARRAY_SIZE(defaults);
    return rules;
}

static const char *number_text(int64_t number, char text[static 24])
{
    if (number == ANY)
        return "*";
    snprintf(text, 24, "%" PRId64, number);
    return text;
}

/* A line as "c 1:3 rwm". */
static int put_rule(int fd, char type, const struct container_device_rule *rule)
{
    char line[96], major[24], minor[24];
    int n = snprintf(line, sizeof(line), "%c %s:%s %s%s%s", type, number_text(rule->major, major),
                     number_text(rule->minor, minor), rule->access & CONTAINER_DEVICE_READ ? "r" : "",
                     rule->access & CONTAINER_DEVICE_WRITE ? "w" : "",
                     rule->access & CONTAINER_DEVICE_MKNOD ? "m" : "");

    return write(fd, line, (size_t)n) < 0 ? -errno : 0;
}

/*
 * The kernel takes "a" for all devices with all access, whatever follows. So a rule for both kinds that says
 * more than that is written as two; where the list already has all or nothing, the kernel's own rules do the
 * rest.
 */
static int put_rules(int fd, const struct container_device_rule *rule)
{
    if (rule->type != 'a' || (rule->major == ANY && rule->minor == ANY && rule->access == ALL))
        return put_rule(fd, rule->type, rule);
    int rc = put_rule(fd, 'b', rule);
    return rc ? rc : put_rule(fd, 'c', rule);
}

int cgroup_v1_devices(const char *directory, const struct container_device_rule *rules, size_t n,
                      struct error **err)
{
    cleanup_free char *allow_path = NULL, *deny_path = NULL;

    if (asprintf(&allow_path, "%s/devices.allow", directory) < 0 ||
        asprintf(&deny_path, "%s/devices.deny", directory) < 0)
        return error_set_errno(err, ENOMEM, "limiting a container");
    cleanup_close int allow = open(allow_path, O_WRONLY | O_CLOEXEC);
    cleanup_close int deny = open(deny_path, O_WRONLY | O_CLOEXEC);
    if (allow < 0 || deny < 0)
        return error_set_errno(err, errno, CGROUP_FIELD "devices: %s", directory);
    for (size_t i = 0; i < n; i++) {
        int rc = put_rules(rules[i].allow ? allow : deny, &rules[i]);
        if (rc == -EPERM && rules[i].allow)
            return error_set(err, EPERM,
                             CGROUP_FIELD "devices: device %c %" PRId64 ":%" PRId64
                                          " can't be allowed: the group above %s forbids it",
                             rules[i].type, rules[i].major, rules[i].minor, directory);
        if (rc)
            return error_set_errno(err, -rc, CGROUP_FIELD "devices: writing to %s", directory);
    }
    return 0;
}
