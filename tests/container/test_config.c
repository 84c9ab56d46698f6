/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config.json: each kind of value is taken, and what is wrong is told with its place. */
#include "base/bytes.h"
#include "base/error.h"
#include "container/config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include <cmocka.h>

#define WHOLE(process, linux_part, rest)                                                                     \
    "{'ociVersion': '1.2.0', 'root': {'path': 'rootfs'}, 'process': {'args': ['sh'], 'cwd': '/' " process    \
    "}, 'linux': {'namespaces': [{'type': 'mount'}, {'type': 'uts'}, {'type': 'ipc'}, {'type': "             \
    "'network'}] " linux_part "} " rest "}"

/* JSON in which ' stands for ". */
static int parse(const char *text, struct container_config **out, struct error **err)
{
    char *copy = strdup(text);

    for (char *c = copy; *c; c++)
        if (*c == '\'')
            *c = '"';
    int rc = container_config_parse(copy, strlen(copy), out, err);
    free(copy);
    return rc;
}

static struct container_config *parsed(const char *text)
{
    struct container_config *config = NULL;
    struct error *err = NULL;

    if (parse(text, &config, &err))
        fail_msg("%s: %s", text, error_message(err));
    return config;
}

static void refused(const char *text, const char *message)
{
    struct container_config *config = NULL;
    struct error *err = NULL;

    if (parse(text, &config, &err) == 0)
        fail_msg("accepted: %s", text);
    if (!strstr(error_message(err), message))
        fail_msg("%s: '%s' has no '%s'", text, error_message(err), message);
    assert_null(config);
    error_free(err);
}

static void test_smallest(void **state)
{
    struct container_config *c = parsed(WHOLE("", "", ""));

    assert_string_equal(c->root_path, "rootfs");
    assert_int_equal(c->process.n_args, 1);
    assert_string_equal(c->process.cwd, "/");
    assert_true(c->has_namespace[CONTAINER_NS_MOUNT] && !c->has_namespace[CONTAINER_NS_USER]);
    assert_false(c->process.has_capabilities || c->process.terminal || c->seccomp.given);
    assert_int_equal(c->process.io_priority, -1);
    container_config_free(c);
}

static void test_process(void **state)
{
    struct container_config *c = parsed(
        WHOLE(", 'terminal': true, 'consoleSize': {'height': 25, 'width': 80}, 'env': ['A=1'], 'user': "
              "{'uid': 4294967294, "
              "'gid': 5, 'umask': 63, 'additionalGids': [1, 2]}, 'noNewPrivileges': true, 'oomScoreAdj': -5, "
              "'capabilities': {'bounding': ['CAP_CHOWN', 'CAP_BPF']}, 'rlimits': [{'type': 'RLIMIT_NOFILE', "
              "'soft': 1, "
              "'hard': 18446744073709551615}], 'scheduler': {'policy': 'SCHED_BATCH', 'nice': 3}, "
              "'ioPriority': {'class': "
              "'IOPRIO_CLASS_BE', 'priority': 4}, 'execCPUAffinity': {'initial': '0', 'final': '0-1'}",
              "", ""));
    const struct container_process *p = &c->process;

    assert_true(p->terminal && p->rows == 25 && p->columns == 80);
    assert_true(p->uid == 4294967294u && p->gid == 5 && p->has_umask && p->umask == 077 && p->n_gids == 2);
    assert_true(p->no_new_privileges && p->has_oom_score_adj && p->oom_score_adj == -5);
    assert_true(p->capabilities.bounding == (1ull | 1ull << 39));
    assert_true(p->n_rlimits == 1 && p->rlimits[0].soft == 1 && p->rlimits[0].hard == UINT64_MAX);
    assert_true(p->scheduler.given && p->scheduler.policy == 3 && p->scheduler.nice == 3);
    assert_int_equal(p->io_priority, 2 << 13 | 4);
    assert_string_equal(p->affinity_final, "0-1");
    container_config_free(c);
}

static void test_mounts(void **state)
{
    struct container_config *c = parsed(
        WHOLE("", "",
              ", 'mounts': [{'destination': '/a', 'type': 'tmpfs', 'source': 'x', 'options': ['ro', "
              "'nosuid', 'rw', "
              "'size=1m', 'tmpcopyup']}, {'destination': 'b', 'source': '/x', 'options': ['rbind', 'rro', "
              "'rprivate', "
              "'noatime']}, {'destination': '/c', 'type': 'bind', 'source': 'y', 'uidMappings': "
              "[{'containerID': 0, "
              "'hostID': 1, 'size': 2}], 'gidMappings': [{'containerID': 0, 'hostID': 1, 'size': 2}]}]"));

    assert_int_equal(c->n_mounts, 3);
    assert_true(c->mounts[0].set == MOUNT_ATTR_NOSUID && c->mounts[0].clear == MOUNT_ATTR_RDONLY);
    assert_true(c->mounts[0].copy_up && c->mounts[0].n_data == 1);
    assert_string_equal(c->mounts[0].data[0], "size=1m");
    assert_true(c->mounts[1].bind && c->mounts[1].recursive);
    assert_true(c->mounts[1].recursive_set == MOUNT_ATTR_RDONLY && c->mounts[1].set == MOUNT_ATTR_NOATIME);
    assert_true(c->mounts[1].n_propagation == 1 && c->mounts[1].propagation[0] == (MS_PRIVATE | MS_REC));
    assert_true(c->mounts[2].bind && c->mounts[2].idmap == CONTAINER_IDMAP_ONE &&
                c->mounts[2].maps.n_uids == 1);
    container_config_free(c);
}

/* The table of options is searched by halves: it must be in order. */
static void test_every_option_is_found(void **state)
{
    for (size_t i = 0; container_mount_option(i); i++) {
        char text[256];

        assert_true(i == 0 || strcmp(container_mount_option(i - 1), container_mount_option(i)) < 0);
        snprintf(
            text, sizeof(text),
            "{'ociVersion': '1.0.0', 'root': {'path': 'r'}, 'linux': {'namespaces': [{'type': 'mount'}]}, "
            "'mounts': [{'destination': '/a', 'type': 'tmpfs', 'source': 's', 'options': ['%s']}]}",
            container_mount_option(i));
        container_config_free(parsed(text));
    }
}

static void test_linux(void **state)
{
    struct container_config *c = parsed(WHOLE(
        "",
        ", 'devices': [{'type': 'c', 'path': '/dev/fuse', 'major': 10, 'minor': 229, 'fileMode': 438}], "
        "'sysctl': "
        "{'net.ipv4.ip_forward': '1', 'net/ipv4/conf/a.b/rp_filter': '0'}, 'rootfsPropagation': 'slave', "
        "'maskedPaths': ['/proc/kcore'], 'personality': {'domain': 'LINUX32'}, 'seccomp': {'defaultAction': "
        "'SCMP_ACT_ERRNO', 'defaultErrnoRet': 38, 'architectures': ['SCMP_ARCH_X86_64'], 'syscalls': "
        "[{'names': "
        "['read'], 'action': 'SCMP_ACT_ALLOW', 'args': [{'index': 1, 'value': 18446744073709551615, 'op': "
        "'SCMP_CMP_EQ'}]}]}, 'resources': {'memory': {'limit': 1048576}}",
        ", 'hostname': 'h', 'hooks': {'poststop': [{'path': '/bin/true', 'timeout': 3}]}, 'annotations': "
        "{'a': ''}"));

    assert_true(c->n_devices == 1 && c->devices[0].mode == 0666 && c->devices[0].minor == 229);
    assert_string_equal(c->sysctl[0], "net.ipv4.ip_forward");
    assert_string_equal(c->sysctl[2], "net.ipv4.conf.a/b.rp_filter");
    assert_int_equal(c->root_propagation, MS_SLAVE);
    assert_string_equal(c->masked_paths[0], "/proc/kcore");
    assert_true(c->has_personality && c->personality == 8);
    assert_int_equal(c->seccomp.default_action, 0x00050000 | 38);
    assert_true(c->seccomp.rules[0].arguments[0].value == UINT64_MAX);
    assert_true(c->resources.memory.limit.set && c->resources.memory.limit.value == 1048576);
    assert_true(c->hooks.n[CONTAINER_HOOK_POSTSTOP] == 1 &&
                c->hooks.list[CONTAINER_HOOK_POSTSTOP][0].timeout == 3);
    container_config_free(c);
}

static void test_places(void **state)
{
    refused("", "not valid JSON");
    refused("[]", "not an object");
    refused("{}", "ociVersion: is required and missing");
    refused("{'ociVersion': 1}", "ociVersion: must be a string");
    refused("{'ociVersion': '2.0.0'}", "ociVersion: '2.0.0' is not supported");
    refused("{'ociVersion': 'one'}", "is not a version");
    refused("{'ociVersion': '1.0.0'}", "root: is required");
    refused("{'ociVersion': '1.0.0', 'root': []}", "root: must be an object");
    refused("{'ociVersion': '1.0.0', 'root': {}}", "root.path: is required");
    refused("{'ociVersion': '1.0.0', 'root': {'path': 'r'}, 'ociVersion': '1.0.0'}", "duplicate");
    refused(WHOLE(", 'user': {'uid': -1}", "", ""), "process.user.uid: -1 is not within");
    refused(WHOLE(", 'user': {'additionalGids': ['x']}", "", ""),
            "process.user.additionalGids[0]: must be a group");
    refused(WHOLE(", 'env': [1]", "", ""), "process.env[0]: must be a string");
    refused(WHOLE(", 'rlimits': [{'type': 'RLIMIT_NOFIL', 'soft': 1, 'hard': 1}]", "", ""),
            "process.rlimits[0].type: 'RLIMIT_NOFIL' is unknown: did you mean 'RLIMIT_NOFILE'?");
    refused(WHOLE(", 'rlimits': [{'type': 'RLIMIT_AS', 'soft': 2, 'hard': 1}]", "", ""),
            "soft is larger than hard");
    refused(
        WHOLE(", 'rlimits': [{'type': 'RLIMIT_AS', 'soft': 1, 'hard': 1}, {'type': 'RLIMIT_AS', 'soft': 1, "
              "'hard': 1}]",
              "", ""),
        "process.rlimits[1]: RLIMIT_AS is there twice");
    refused(WHOLE(", 'capabilities': {'bounding': ['CAP_X']}", "", ""),
            "process.capabilities.bounding[0]: unknown capability 'CAP_X'");
    refused(WHOLE(", 'scheduler': {'policy': 'SCHED_OTHER', 'priority': 3}", "", ""),
            "priority is for SCHED_FIFO");
    refused(WHOLE("", ", 'namespaces': 5", ""), "duplicate");
    refused(WHOLE("", ", 'uidMappings': [{'containerID': 0, 'hostID': 4294967295, 'size': 2}]", ""),
            "linux.uidMappings[0]: goes beyond");
    refused(WHOLE("", ", 'uidMappings': [{'containerID': 0, 'hostID': 0, 'size': 2}]", ""),
            "user namespace isn't enabled");
    refused(WHOLE("", ", 'timeOffsets': {'real': {}}", ""), "linux.timeOffsets: 'real' is no clock");
    refused(WHOLE("", ", 'devices': [{'type': 'c', 'path': '/dev/x', 'major': 1}]", ""),
            "linux.devices[0].minor: is required");
    refused(WHOLE("", ", 'sysctl': {'kernel.panic': '1'}", ""), "is not in a separate kernel namespace");
    refused(WHOLE("", ", 'sysctl': {'net.ipv4../../x': '1'}", ""), "is no name of a kernel parameter");
    refused(WHOLE("", ", 'maskedPaths': ['proc']", ""), "linux.maskedPaths[0]: 'proc' is not absolute");
    refused(WHOLE("",
                  ", 'seccomp': {'defaultAction': 'SCMP_ACT_ALLOW', 'syscalls': [{'names': ['x'], 'action': "
                  "'SCMP_ACT_KILL', 'errnoRet': 1}]}",
                  ""),
            "linux.seccomp.syscalls[0]: SCMP_ACT_KILL takes no errno");
    refused(WHOLE("",
                  ", 'seccomp': {'defaultAction': 'SCMP_ACT_ALLOW', 'syscalls': [{'names': ['x'], 'action': "
                  "'SCMP_ACT_NOTIFY'}]}",
                  ""),
            "needs listenerPath");
    refused(WHOLE("", "", ", 'mounts': [{'destination': '/a'}]"), "mounts[0]: type is required");
    refused(WHOLE("", "", ", 'hooks': {'prestart': [{'path': 'x'}]}"),
            "hooks.prestart[0]: path 'x' is not absolute");
    refused(WHOLE("", "", ", 'hooks': {'poststop': [{'path': '/x', 'timeout': 0}]}"),
            "hooks.poststop[0].timeout: 0");
    refused(WHOLE("", "", ", 'annotations': {'': 'x'}"), "a key is empty");
    refused(
        "{'ociVersion': '1.0.0', 'root': {'path': 'r'}, 'hostname': 'x', 'linux': {'namespaces': [{'type': "
        "'mount'}]}}",
        "without a private UTS namespace");
    refused(
        "{'ociVersion': '1.0.0', 'root': {'path': 'r'}, 'linux': {'namespaces': [{'type': 'mount'}, {'type': "
        "'mount'}]}}",
        "linux.namespaces[1]: the namespace mount is there twice");
}

static void test_unknown_is_ignored(void **state)
{
    container_config_free(
        parsed(WHOLE(", 'new': 1", ", 'newer': []", ", 'windows': {}, 'x': null, 'hostname': null")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smallest),
        cmocka_unit_test(test_process),
        cmocka_unit_test(test_mounts),
        cmocka_unit_test(test_every_option_is_found),
        cmocka_unit_test(test_linux),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_unknown_is_ignored),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
