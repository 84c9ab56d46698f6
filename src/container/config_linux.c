/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config.json's linux (config-linux.md), but for its resources (resources.c) and seccomp (config_seccomp.c).
 * Called by config.c. No state. */
#include "container/config.h"

#include "base/bytes.h"
#include "base/error.h"

#include <ctype.h>
#include <errno.h>
#include <linux/sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/stat.h>

const char *const container_namespace_names[CONTAINER_NAMESPACES] = {
    [CONTAINER_NS_USER] = "user",       [CONTAINER_NS_IPC] = "ipc",     [CONTAINER_NS_UTS] = "uts",
    [CONTAINER_NS_NETWORK] = "network", [CONTAINER_NS_PID] = "pid",     [CONTAINER_NS_CGROUP] = "cgroup",
    [CONTAINER_NS_TIME] = "time",       [CONTAINER_NS_MOUNT] = "mount",
};
const char *const container_namespace_files[CONTAINER_NAMESPACES] = {
    [CONTAINER_NS_USER] = "user",   [CONTAINER_NS_IPC] = "ipc",   [CONTAINER_NS_UTS] = "uts",
    [CONTAINER_NS_NETWORK] = "net", [CONTAINER_NS_PID] = "pid",   [CONTAINER_NS_CGROUP] = "cgroup",
    [CONTAINER_NS_TIME] = "time",   [CONTAINER_NS_MOUNT] = "mnt",
};
const int container_namespace_flags[CONTAINER_NAMESPACES] = {
    [CONTAINER_NS_USER] = CLONE_NEWUSER, [CONTAINER_NS_IPC] = CLONE_NEWIPC,
    [CONTAINER_NS_UTS] = CLONE_NEWUTS,   [CONTAINER_NS_NETWORK] = CLONE_NEWNET,
    [CONTAINER_NS_PID] = CLONE_NEWPID,   [CONTAINER_NS_CGROUP] = CLONE_NEWCGROUP,
    [CONTAINER_NS_TIME] = CLONE_NEWTIME, [CONTAINER_NS_MOUNT] = CLONE_NEWNS,
};

static int take_namespaces(struct container_config *config, const struct config_node *node,
                           struct error **err)
{
    struct config_node array, item;
    int rc = config_array(node, "namespaces", false, &array, err);

    for (size_t i = 0; rc > 0 && i < config_length(&array); i++) {
        const char *path = NULL;
        size_t which = 0;

        if (config_item_object(&array, i, &item, err) ||
            config_name(&item, "type", true, container_namespace_names, CONTAINER_NAMESPACES, &which, err) <
                0 ||
            config_string(&item, "path", false, &path, err) < 0)
            return -EINVAL;
        if (config->has_namespace[which])
            return config_fail(&item, err, "the namespace %s is there twice",
                               container_namespace_names[which]);
        if (path && *path && *path != '/')
            return config_fail(&item, err, "path '%.100s' is not absolute", path);
        config->has_namespace[which] = true;
        config->namespace_path[which] = path && *path ? path : NULL;
    }
    return rc < 0 ? rc : 0;
}

static int take_clock(const struct config_node *node, const char *key, int64_t *seconds,
                      uint32_t *nanoseconds, struct error **err)
{
    struct config_node clock;
    int64_t nanosecs = 0;
    int rc = config_object(node, key, false, &clock, err);

    if (rc <= 0)
        return rc;
    if (config_int(&clock, "secs", false, INT64_MIN, INT64_MAX, seconds, err) < 0 ||
        config_int(&clock, "nanosecs", false, 0, 999999999, &nanosecs, err) < 0)
        return -EINVAL;
    *nanoseconds = (uint32_t)nanosecs;
    return 0;
}

static int take_time_offsets(struct container_config *config, const struct config_node *node,
                             struct error **err)
{
    struct config_node offsets;
    const char *key;
    json_t *value;
    int rc = config_object(node, "timeOffsets", false, &offsets, err);

    if (rc <= 0)
        return rc;
    json_object_foreach(offsets.json, key, value)
    {
        if (strcmp(key, "monotonic") != 0 && strcmp(key, "boottime") != 0)
            return config_fail(&offsets, err, "'%.64s' is no clock that has an offset: monotonic, boottime",
                               key);
        config->has_time_offsets = true;
    }
    if (take_clock(&offsets, "monotonic", &config->monotonic_seconds, &config->monotonic_nanoseconds, err) ||
        take_clock(&offsets, "boottime", &config->boottime_seconds, &config->boottime_nanoseconds, err))
        return -EINVAL;
    return 0;
}

static int take_device(const struct config_node *node, struct container_device *out, struct error **err)
{
    static const char *const types[] = {"c", "b", "u", "p"};
    int64_t major = 0, minor = 0, mode = 0666, uid = 0, gid = 0;
    size_t which = 0;

    if (config_name(node, "type", true, types, ARRAY_SIZE(types), &which, err) < 0 ||
        config_string(node, "path", true, &out->path, err) < 0 ||
        config_int(node, "major", types[which][0] != 'p', 0, 4095, &major, err) < 0 ||
        config_int(node, "minor", types[which][0] != 'p', 0, (1 << 20) - 1, &minor, err) < 0 ||
        config_int(node, "fileMode", false, 0, UINT32_MAX, &mode, err) < 0 ||
        config_int(node, "uid", false, 0, UINT32_MAX - 1, &uid, err) < 0 ||
        config_int(node, "gid", false, 0, UINT32_MAX - 1, &gid, err) < 0)
        return -EINVAL;
    if (out->path[0] != '/')
        return config_fail(node, err, "path '%.100s' is not absolute", out->path);
    out->type = which == 2 ? 'c' : types[which][0];
    out->major = (unsigned)major;
    out->minor = (unsigned)minor;
    /* Some write the type of file along with the permissions. */
    out->mode = (mode_t)mode & 07777;
    out->uid = (uint32_t)uid;
    out->gid = (uint32_t)gid;
    return 0;
}

static int take_devices(struct container_config *config, const struct config_node *node, struct error **err)
{
    struct config_node array, item;
    int rc = config_array(node, "devices", false, &array, err);

    if (rc <= 0)
        return rc;
    size_t n = config_length(&array);
    config->devices = config_alloc(&config->pool, n, sizeof(*config->devices));
    if (!config->devices)
        return config_fail(&array, err, "out of memory");
    for (size_t i = 0; i < n; i++)
        if (config_item_object(&array, i, &item, err) || take_device(&item, &config->devices[i], err))
            return -EINVAL;
    config->n_devices = n;
    return 0;
}

/*
 * Only what belongs to a namespace may be set, and only where the container has that namespace to itself:
 * everything else would be the host's.
 */
static const char *sysctl_refusal(const struct container_config *config, const char *name)
{
    static const char *const ipc[] = {"kernel.msgmax", "kernel.msgmnb",         "kernel.msgmni",
                                      "kernel.sem",    "kernel.shmall",         "kernel.shmmax",
                                      "kernel.shmmni", "kernel.shm_rmid_forced"};
    bool known_ipc = strncmp(name, "fs.mqueue.", 10) == 0;

    for (size_t i = 0; i < ARRAY_SIZE(ipc); i++)
        known_ipc |= strcmp(name, ipc[i]) == 0;
    if (known_ipc)
        return config->has_namespace[CONTAINER_NS_IPC] ? NULL : "is not allowed in the hosts ipc namespace";
    if (strncmp(name, "net.", 4) == 0)
        return config->has_namespace[CONTAINER_NS_NETWORK] ? NULL : "not allowed in host network namespace";
    if (strcmp(name, "kernel.domainname") == 0)
        return config->has_namespace[CONTAINER_NS_UTS] ? NULL : "not allowed in host uts namespace";
    if (strcmp(name, "kernel.hostname") == 0)
        return config->has_namespace[CONTAINER_NS_UTS] ? "conflicts with OCI field hostname: use that"
                                                       : "not allowed in host uts namespace";
    if (strncmp(name, "user.", 5) == 0)
        return config->has_namespace[CONTAINER_NS_USER] ? NULL : "not allowed in host user namespace";
    return "is not in a separate kernel namespace";
}

/* "net.ipv4.conf.eth0/100.rp_filter" and "net/ipv4/..." are two spellings: the first separator decides. The
 * first form is what is checked. */
static void spell_with_dots(char *name)
{
    char *first = strpbrk(name, "./");

    if (!first || *first == '.')
        return;
    for (char *p = name; *p; p++)
        *p = *p == '/' ? '.' : *p == '.' ? '/' : *p;
}

static bool bad_sysctl_name(const char *name)
{
    if (!isalpha((unsigned char)*name) || strlen(name) > 256)
        return true;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("._-/@:", *p))
            return true;
    /* Never out of the directory. */
    return strstr(name, "..") || strstr(name, "//") || strstr(name, "./") || strstr(name, "/.");
}

static int take_sysctl(struct container_config *config, const struct config_node *node, struct error **err)
{
    struct config_node object, item;
    const char *key;
    json_t *value;
    size_t n = 0;
    int rc = config_object(node, "sysctl", false, &object, err);

    if (rc <= 0)
        return rc;
    config->sysctl = config_alloc(&config->pool, 2 * json_object_size(object.json) + 1, sizeof(char *));
    if (!config->sysctl)
        return config_fail(&object, err, "out of memory");
    json_object_foreach(object.json, key, value)
    {
        item = (struct config_node){.up = &object, .key = key, .json = value};
        char *name = config_alloc(&config->pool, strlen(key) + 1, 1);
        if (!name)
            return config_fail(&item, err, "out of memory");
        strcpy(name, key);
        spell_with_dots(name);
        if (!json_is_string(value))
            return config_fail(&item, err, "must be a string");
        if (bad_sysctl_name(name))
            return config_fail(&item, err, "is no name of a kernel parameter");
        const char *refusal = sysctl_refusal(config, name);
        if (refusal)
            return config_fail(&item, err, "sysctl \"%.100s\" %s", name, refusal);
        config->sysctl[n++] = name;
        config->sysctl[n++] = json_string_value(value);
    }
    return 0;
}

static int take_paths(struct container_config *config, const struct config_node *node, const char *key,
                      const char ***out, struct error **err)
{
    struct config_node array, item;
    size_t n = 0;
    int rc = config_strings(&config->pool, node, key, false, out, &n, err);

    for (size_t i = 0; rc > 0 && i < n; i++)
        if ((*out)[i][0] != '/') {
            config_has(node, key, &array);
            config_item(&array, i, &item);
            return config_fail(&item, err, "'%.100s' is not absolute", (*out)[i]);
        }
    return rc < 0 ? rc : 0;
}

static int take_propagation(struct container_config *config, const struct config_node *node,
                            struct error **err)
{
    static const char *const names[] = {"",        "shared", "slave",    "private",    "unbindable",
                                        "rshared", "rslave", "rprivate", "runbindable"};
    static const unsigned long flags[] = {0,
                                          MS_SHARED,
                                          MS_SLAVE,
                                          MS_PRIVATE,
                                          MS_UNBINDABLE,
                                          MS_SHARED | MS_REC,
                                          MS_SLAVE | MS_REC,
                                          MS_PRIVATE | MS_REC,
                                          MS_UNBINDABLE | MS_REC};
    size_t which = 0;
    int rc = config_name(node, "rootfsPropagation", false, names, ARRAY_SIZE(names), &which, err);

    if (rc > 0)
        config->root_propagation = flags[which];
    return rc < 0 ? rc : 0;
}

static int take_personality(struct container_config *config, const struct config_node *node,
                            struct error **err)
{
    static const char *const domains[] = {"LINUX", "LINUX32"};
    struct config_node object, flags;
    size_t which = 0;
    int rc = config_object(node, "personality", false, &object, err);

    if (rc <= 0)
        return rc;
    if (config_name(&object, "domain", true, domains, ARRAY_SIZE(domains), &which, err) < 0 ||
        (rc = config_array(&object, "flags", false, &flags, err)) < 0)
        return -EINVAL;
    if (rc > 0 && config_length(&flags))
        return config_fail(&flags, err, "no flag is supported: the specification defines none");
    config->has_personality = true;
    config->personality = which ? PER_LINUX32 : PER_LINUX;
    return 0;
}

static int take_intel_rdt(struct container_intel_rdt *out, const struct config_node *node, struct error **err)
{
    struct config_node object;
    bool cmt = false, mbm = false;
    int rc = config_object(node, "intelRdt", false, &object, err);

    if (rc <= 0)
        return rc;
    if (config_string(&object, "closID", false, &out->clos_id, err) < 0 ||
        config_string(&object, "l3CacheSchema", false, &out->l3_cache, err) < 0 ||
        config_string(&object, "memBwSchema", false, &out->memory_bandwidth, err) < 0 ||
        config_string(&object, "schemata", false, &out->schemata, err) < 0 ||
        config_bool(&object, "enableCMT", &cmt, err) < 0 || config_bool(&object, "enableMBM", &mbm, err) < 0)
        return -EINVAL;
    if (out->clos_id && (!*out->clos_id || strchr(out->clos_id, '/') || out->clos_id[0] == '.'))
        return config_fail(&object, err, "closID '%.64s' is no name of a directory", out->clos_id);
    if (out->memory_bandwidth &&
        (strncmp(out->memory_bandwidth, "MB:", 3) != 0 || strchr(out->memory_bandwidth, '\n')))
        return config_fail(&object, err, "memBwSchema must begin with MB: and be one line");
    out->monitoring = cmt || mbm;
    out->given = true;
    return 0;
}

int container_linux_parse(struct container_config *config, const struct config_node *root, struct error **err)
{
    struct config_node node, resources;
    int rc = config_object(root, "linux", false, &node, err);

    if (rc <= 0)
        return rc;
    if (take_namespaces(config, &node, err) ||
        container_id_maps_parse(&config->pool, &node, "uidMappings", &config->maps.uids, &config->maps.n_uids,
                                err) ||
        container_id_maps_parse(&config->pool, &node, "gidMappings", &config->maps.gids, &config->maps.n_gids,
                                err) ||
        take_time_offsets(config, &node, err) || take_devices(config, &node, err) ||
        config_string(&node, "cgroupsPath", false, &config->cgroups_path, err) < 0 ||
        take_intel_rdt(&config->intel_rdt, &node, err) || take_sysctl(config, &node, err) ||
        container_seccomp_parse(&config->pool, &node, &config->seccomp, err) ||
        take_propagation(config, &node, err) ||
        take_paths(config, &node, "maskedPaths", &config->masked_paths, err) ||
        take_paths(config, &node, "readonlyPaths", &config->readonly_paths, err) ||
        config_string(&node, "mountLabel", false, &config->mount_label, err) < 0 ||
        take_personality(config, &node, err))
        return -EINVAL;
    rc = config_object(&node, "resources", false, &resources, err);
    if (rc <= 0)
        return rc;
    return container_resources_parse(resources.json, &config->resources, err);
}
