/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config.json of a container guest: namespaces, limits, devices, system calls, and the parts of the other
 * files. No state. */
#include "guest/bundle.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"
#include "container/container.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define CPU_PERIOD_US 100000

static const char *text_of(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

static bool is_privileged(const json_t *flags)
{
    return json_is_true(json_object_get(flags, "privileged"));
}

/* ---- limits ---- */

static json_t *device_rule(bool allow, const char *type, int major, int minor, const char *access)
{
    json_t *rule = json_pack("{s:b, s:s}", "allow", allow, "access", access);

    if (type)
        json_object_set_new(rule, "type", json_string(type));
    if (major >= 0)
        json_object_set_new(rule, "major", json_integer(major));
    if (minor >= 0)
        json_object_set_new(rule, "minor", json_integer(minor));
    return rule;
}

/* Those that hold nothing of the host: null, zero, full, random, urandom, tty, ptmx, terminals; console and
 * fuse are not among them. Nodes may be made, which gives no access. */
static json_t *make_devices(const json_t *flags)
{
    static const struct {
        int major, minor;
    } usual[] = {{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}, {136, -1}};
    json_t *list = json_array();

    json_array_append_new(list, device_rule(is_privileged(flags), NULL, -1, -1, "rwm"));
    if (is_privileged(flags))
        return list;
    json_array_append_new(list, device_rule(true, "c", -1, -1, "m"));
    json_array_append_new(list, device_rule(true, "b", -1, -1, "m"));
    for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
        json_array_append_new(list, device_rule(true, "c", usual[i].major, usual[i].minor, "rwm"));
    return list;
}

json_t *bundle_limits(const json_t *flags)
{
    const json_t *cpus = json_object_get(flags, "cpus"), *memory = json_object_get(flags, "memory");
    const json_t *pids = json_object_get(flags, "pids"), *weight = json_object_get(flags, "io-weight");
    json_t *limits = json_object();

    if (memory)
        json_object_set_new(limits, "memory", json_pack("{s:I}", "limit", json_integer_value(memory)));
    if (cpus)
        json_object_set_new(limits, "cpu",
                            json_pack("{s:I, s:I}", "quota",
                                      (json_int_t)(json_number_value(cpus) * CPU_PERIOD_US + 0.5), "period",
                                      (json_int_t)CPU_PERIOD_US));
    if (pids)
        json_object_set_new(limits, "pids", json_pack("{s:I}", "limit", json_integer_value(pids)));
    if (weight)
        json_object_set_new(limits, "blockIO", json_pack("{s:I}", "weight", json_integer_value(weight)));
    return limits;
}

/* ---- system calls ---- */

/*
 * What changes the host's kernel, clock or processes, or is new, rarely needed and has had holes. Most of it
 * takes capabilities that containers have not; this is the second wall. A container that has the capability
 * gets the calls.
 */
static const struct {
    const char *capability;
    const char *calls[16];
} denied[] = {
    {"CAP_SYS_ADMIN", {"bpf", "quotactl", "lookup_dcookie", "fanotify_init", "perf_event_open"}},
    {"CAP_SYS_MODULE", {"init_module", "finit_module", "delete_module", "create_module"}},
    {"CAP_SYS_BOOT", {"reboot", "kexec_load", "kexec_file_load"}},
    {"CAP_SYS_TIME", {"settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime"}},
    {"CAP_SYS_RAWIO", {"iopl", "ioperm"}},
    {"CAP_SYS_PACCT", {"acct"}},
    {"CAP_DAC_READ_SEARCH", {"open_by_handle_at"}},
    {"CAP_SYS_NICE", {"migrate_pages", "move_pages", "mbind", "set_mempolicy"}},
    {NULL,
     {"add_key", "keyctl", "request_key", "userfaultfd", "swapon", "swapoff", "nfsservctl", "vmsplice",
      "io_uring_setup", "io_uring_enter", "io_uring_register", "uselib", "ustat", "sysfs", "_sysctl"}},
};

static bool has_capability(const json_t *process, const char *name)
{
    const json_t *list = json_object_get(json_object_get(process, "capabilities"), "bounding");

    for (size_t i = 0; name && i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), name) == 0)
            return true;
    return false;
}

static json_t *usual_seccomp(const json_t *process)
{
    json_t *names = json_array();

    for (size_t i = 0; i < sizeof(denied) / sizeof(denied[0]); i++)
        for (size_t j = 0; j < 16 && denied[i].calls[j] && !has_capability(process, denied[i].capability);
             j++)
            json_array_append_new(names, json_string(denied[i].calls[j]));
    return json_pack("{s:s, s:[s, s, s], s:[{s:o, s:s, s:i}]}", "defaultAction", "SCMP_ACT_ALLOW",
                     "architectures", "SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "syscalls",
                     "names", names, "action", "SCMP_ACT_ERRNO", "errnoRet", EPERM);
}

static int add_seccomp(json_t *linux_part, const json_t *flags, const json_t *process, struct error **err)
{
    const char *option = bundle_security_option(flags, "seccomp");
    json_error_t why;

    if (option && strcmp(option, "unconfined") == 0)
        return 0;
    json_t *profile = option                 ? json_load_file(option, 0, &why)
                      : is_privileged(flags) ? NULL
                                             : usual_seccomp(process);
    if (!profile && option) {
        char shown[JSON_ERROR_TEXT_LENGTH];
        text_make_printable(shown, sizeof(shown), why.text);
        return error_set(err, EINVAL, "--security-opt: seccomp: '%s': %s", option, shown);
    }
    if (profile)
        json_object_set_new(linux_part, "seccomp", profile);
    return 0;
}

/* ---- the whole ---- */

static bool has_host_net(const json_t *flags)
{
    const char *net = json_string_value(json_array_get(json_object_get(flags, "net"), 0));

    return net && strcmp(net, "host") == 0;
}

/* The network namespace is that of the process that makes the container (container_net.c). */
static json_t *make_linux(const struct bundle *b, const json_t *process, struct error **err)
{
    static const char *const namespaces[] = {"pid", "ipc", "uts", "mount", "cgroup", NULL};
    json_t *list = json_array(), *resources = bundle_limits(b->flags);

    for (size_t i = 0; namespaces[i]; i++)
        json_array_append_new(list, json_pack("{s:s}", "type", namespaces[i]));
    if (!has_host_net(b->flags))
        json_array_append_new(list, json_pack("{s:s, s:s}", "type", "network", "path", "/proc/self/ns/net"));
    json_object_set_new(resources, "devices", make_devices(b->flags));
    json_t *json =
        json_pack("{s:o, s:o, s:s}", "namespaces", list, "resources", resources, "cgroupsPath", b->cgroup);
    bundle_hide(b->flags, json);
    if (add_seccomp(json, b->flags, process, err)) {
        json_decref(json);
        return NULL;
    }
    return json;
}

static void make_hostname(const struct bundle *b, char *out, size_t size)
{
    const char *given = text_of(b->flags, "hostname");

    snprintf(out, size, "%s", given ? given : b->name);
    for (char *p = out; *p && !given; p++)
        if (*p == '_')
            *p = '-';
}

json_t *bundle_make(const struct bundle *b, struct error **err)
{
    char hostname[65], root[4096];
    json_t *process = bundle_process(b, err);
    json_t *mounts = process ? bundle_mounts(b, err) : NULL;
    json_t *linux_part = mounts ? make_linux(b, process, err) : NULL;

    if (!linux_part) {
        json_decref(process);
        json_decref(mounts);
        return NULL;
    }
    make_hostname(b, hostname, sizeof(hostname));
    snprintf(root, sizeof(root), "%s/root", b->directory);
    json_t *json =
        json_pack("{s:s, s:o, s:{s:s, s:b}, s:s, s:o, s:o}", "ociVersion", "1.2.0", "process", process,
                  "root", "path", root, "readonly", json_is_true(json_object_get(b->flags, "read-only")),
                  "hostname", hostname, "mounts", mounts, "linux", linux_part);
    if (!json)
        error_set_errno(err, ENOMEM, "config.json");
    return json;
}

int bundle_check(const json_t *flags, struct error **err)
{
    const json_t *nets = json_object_get(flags, "net"), *ports = json_object_get(flags, "publish");
    const char *net = json_string_value(json_array_get(nets, 0));

    if (json_array_size(nets) > 1)
        return error_set(err, EINVAL, "--net: a container has one network");
    if (net && strcmp(net, "host") != 0 && strcmp(net, "none") != 0 && strcmp(net, "user") != 0 &&
        strcmp(net, "user,restrict") != 0)
        return error_set(err, EINVAL,
                         "--net: '%s' is no network of containers: choose host, none, user or user,restrict",
                         net);
    if (json_array_size(ports) && net && strncmp(net, "user", 4) != 0)
        return error_set(err, EINVAL, "--publish takes the user network, and --net is %s", net);
    int rc = bundle_check_process(flags, err);
    return rc ? rc : bundle_check_mounts(flags, err);
}

int bundle_stop_signal(const json_t *image)
{
    static const struct {
        const char *name;
        int number;
    } known[] = {{"TERM", SIGTERM}, {"INT", SIGINT},   {"QUIT", SIGQUIT},   {"HUP", SIGHUP},
                 {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"WINCH", SIGWINCH}, {"KILL", SIGKILL},
                 {"ABRT", SIGABRT}, {"PWR", SIGPWR},   {"RTMIN", 34}};
    const char *text = text_of(image, "StopSignal");
    int number, offset;
    char rest;

    if (!text)
        return SIGTERM;
    if (strncmp(text, "SIG", 3) == 0)
        text += 3;
    if (sscanf(text, "%d%c", &number, &rest) == 1 && number > 0 && number <= 64)
        return number;
    /* 34 is the first that the C library leaves to programs. */
    if (sscanf(text, "RTMIN+%d%c", &offset, &rest) == 1 && offset >= 0 && offset <= 30)
        return 34 + offset;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(text, known[i].name) == 0)
            return known[i].number;
    return SIGTERM;
}
