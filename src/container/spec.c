/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A configuration to begin with (`spec`), and what configurations may say (`features`, features.md of the
 * runtime specification). No state. */
#include "container/config.h"
#include "container/container.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- spec ---- */

static json_t *strings(const char *const *list)
{
    json_t *array = json_array();

    for (size_t i = 0; list[i]; i++)
        json_array_append_new(array, json_string(list[i]));
    return array;
}

/* `options` are words between commas. */
static json_t *make_mount(const char *destination, const char *type, const char *source, const char *options)
{
    json_t *list = json_array();

    for (const char *p = options; *p;) {
        size_t n = strcspn(p, ",");

        json_array_append_new(list, json_stringn(p, n));
        p += n + (p[n] == ',');
    }
    json_t *m = json_pack("{s:s, s:s, s:s}", "destination", destination, "type", type, "source", source);
    if (json_array_size(list))
        json_object_set(m, "options", list);
    json_decref(list);
    return m;
}

static json_t *make_process(void)
{
    static const char *const env[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                      "TERM=xterm", NULL};
    static const char *const capabilities[] = {"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE", NULL};
    json_t *sets = json_object();

    for (const char *const *name = (const char *const[]){"bounding", "effective", "permitted", NULL}; *name;
         name++)
        json_object_set_new(sets, *name, strings(capabilities));
    return json_pack("{s:b, s:{s:i, s:i}, s:[s], s:o, s:s, s:o, s:[{s:s, s:i, s:i}], s:b}", "terminal", 1,
                     "user", "uid", 0, "gid", 0, "args", "sh", "env", strings(env), "cwd", "/",
                     "capabilities", sets, "rlimits", "type", "RLIMIT_NOFILE", "hard", 1024, "soft", 1024,
                     "noNewPrivileges", 1);
}

static json_t *make_mounts(bool rootless)
{
    json_t *mounts = json_array();

    json_array_append_new(mounts, make_mount("/proc", "proc", "proc", ""));
    json_array_append_new(mounts,
                          make_mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"));
    json_array_append_new(mounts,
                          make_mount("/dev/pts", "devpts", "devpts",
                                     rootless ? "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"
                                              : "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"));
    json_array_append_new(
        mounts, make_mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"));
    json_array_append_new(mounts, make_mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"));
    if (rootless) {
        /* A person without a network namespace of his own can't mount it anew. */
        json_array_append_new(mounts, make_mount("/sys", "none", "/sys", "rbind,nosuid,noexec,nodev,ro"));
        return mounts;
    }
    json_array_append_new(mounts, make_mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"));
    json_array_append_new(
        mounts, make_mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"));
    return mounts;
}

void container_spec_hide(json_t *linux_part)
{
    static const char *const masked[] = {"/proc/acpi",
                                         "/proc/asound",
                                         "/proc/kcore",
                                         "/proc/keys",
                                         "/proc/latency_stats",
                                         "/proc/timer_list",
                                         "/proc/timer_stats",
                                         "/proc/sched_debug",
                                         "/proc/scsi",
                                         "/sys/firmware",
                                         "/sys/devices/virtual/powercap",
                                         NULL};
    static const char *const readonly[] = {"/proc/bus",           "/proc/fs", "/proc/irq", "/proc/sys",
                                           "/proc/sysrq-trigger", NULL};

    json_object_set_new(linux_part, "maskedPaths", strings(masked));
    json_object_set_new(linux_part, "readonlyPaths", strings(readonly));
}

static json_t *make_linux(bool rootless)
{
    static const char *const namespaces[] = {"pid", "network", "ipc", "uts", "mount", "cgroup", NULL};
    json_t *list = json_array();

    for (size_t i = 0; namespaces[i]; i++)
        if (!rootless || strcmp(namespaces[i], "network") != 0)
            json_array_append_new(list, json_pack("{s:s}", "type", namespaces[i]));
    json_t *json = json_pack("{s:o}", "namespaces", list);
    container_spec_hide(json);
    if (!rootless) {
        json_object_set_new(json, "resources",
                            json_pack("{s:[{s:b, s:s}]}", "devices", "allow", 0, "access", "rwm"));
        return json;
    }
    json_array_append_new(list, json_pack("{s:s}", "type", "user"));
    json_object_set_new(
        json, "uidMappings",
        json_pack("[{s:i, s:I, s:i}]", "containerID", 0, "hostID", (json_int_t)geteuid(), "size", 1));
    json_object_set_new(
        json, "gidMappings",
        json_pack("[{s:i, s:I, s:i}]", "containerID", 0, "hostID", (json_int_t)getegid(), "size", 1));
    return json;
}

json_t *container_spec(bool rootless)
{
    return json_pack("{s:s, s:o, s:{s:s, s:b}, s:s, s:o, s:o}", "ociVersion", CONTAINER_OCI_VERSION,
                     "process", make_process(), "root", "path", "rootfs", "readonly", 1, "hostname",
                     "tabique", "mounts", make_mounts(rootless), "linux", make_linux(rootless));
}

/* ---- features ---- */

static json_t *list_of(const char *(*item)(size_t))
{
    json_t *array = json_array();

    for (size_t i = 0; item(i); i++)
        json_array_append_new(array, json_string(item(i)));
    return array;
}

static const char *hook_name(size_t i)
{
    return i < CONTAINER_HOOKS ? container_hook_names[i] : NULL;
}

static const char *capability(size_t i)
{
    return container_capability_name((int)i);
}

/* In the order of the alphabet, as others have it. */
static const char *namespace_name(size_t i)
{
    static const char *const names[] = {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"};

    return i < sizeof(names) / sizeof(names[0]) ? names[i] : NULL;
}

static json_t *linux_features(void)
{
    json_t *seccomp = json_pack(
        "{s:b, s:o, s:o, s:o, s:o, s:o}", "enabled", 1, "actions", list_of(container_seccomp_action),
        "operators", list_of(container_seccomp_operator), "archs", list_of(container_seccomp_architecture),
        "knownFlags", list_of(container_seccomp_flag), "supportedFlags", list_of(container_seccomp_flag));

    return json_pack(
        "{s:o, s:o, s:{s:b, s:b, s:b, s:b, s:b}, s:o, s:{s:b}, s:{s:b}, s:{s:b, s:b}, s:{s:{s:b}}}",
        "namespaces", list_of(namespace_name), "capabilities", list_of(capability), "cgroup", "v1", 1, "v2",
        1, "systemd", 1, "systemdUser", 1, "rdma", 1, "seccomp", seccomp, "apparmor", "enabled", 1, "selinux",
        "enabled", 1, "intelRdt", "enabled", 1, "schemata", 1, "mountExtensions", "idmap", "enabled", 1);
}

json_t *container_features(void)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:o}", "ociVersionMin", "1.0.0", "ociVersionMax",
                     CONTAINER_OCI_VERSION, "hooks", list_of(hook_name), "mountOptions",
                     list_of(container_mount_option), "linux", linux_features());
}
