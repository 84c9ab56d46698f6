/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A container's resources from JSON: all that there is, and what is wrong with what is wrong. */
#include "base/bytes.h"
#include "base/error.h"
#include "container/resources.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* JSON in which ' stands for ". */
static json_t *json_of(const char *text)
{
    char *copy = strdup(text);

    for (char *c = copy; *c; c++)
        if (*c == '\'')
            *c = '"';
    json_t *json = json_loads(copy, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    free(copy);
    return json;
}

static struct container_resources parsed(const char *text)
{
    struct container_resources r;
    struct error *err = NULL;
    json_t *json = json_of(text);

    if (container_resources_parse(json, &r, &err))
        fail_msg("%s: %s", text, error_message(err));
    json_decref(json);
    return r;
}

/* The JSON may be gone when its resources are used. */
static void test_everything(void **state)
{
    struct container_resources r = parsed(
        "{'devices': [{'allow': false, 'access': 'rwm'},"
        "             {'allow': true, 'type': 'c', 'major': 10, 'minor': 229, 'access': 'rw'},"
        "             {'allow': true, 'type': 'b', 'major': 8, 'minor': -1, 'access': 'm'}],"
        " 'memory': {'limit': 536870912, 'reservation': 268435456, 'swap': 1073741824, 'kernel': -1,"
        "            'kernelTCP': 4096, 'swappiness': 0, 'disableOOMKiller': true, 'useHierarchy': true,"
        "            'checkBeforeUpdate': true},"
        " 'cpu': {'shares': 1024, 'quota': -1, 'burst': 5, 'period': 500000, 'realtimeRuntime': 950000,"
        "         'realtimePeriod': 1000000, 'cpus': '2-3,7', 'mems': '0', 'idle': 1},"
        " 'blockIO': {'weight': 10, 'leafWeight': 1000,"
        "    'weightDevice': [{'major': 8, 'minor': 0, 'weight': 500, 'leafWeight': 300},"
        "                     {'major': 8, 'minor': 16}],"
        "    'throttleReadBpsDevice': [{'major': 8, 'minor': 0, 'rate': 600}],"
        "    'throttleWriteBpsDevice': [{'major': 8, 'minor': 1, 'rate': 601}],"
        "    'throttleReadIOPSDevice': [{'major': 8, 'minor': 2, 'rate': 602}],"
        "    'throttleWriteIOPSDevice': [{'major': 8, 'minor': 3, 'rate': 0}]},"
        " 'hugepageLimits': [{'pageSize': '2MB', 'limit': 9223372036854771712}],"
        " 'pids': {'limit': -1},"
        " 'network': {'classID': 1048577, 'priorities': [{'name': 'eth0', 'priority': 500}]},"
        " 'rdma': {'mlx5_1': {'hcaHandles': 3, 'hcaObjects': 10000}, 'mlx4_0': {'hcaObjects': 1000}},"
        " 'unified': {'memory.high': '1', 'io.max': '259:0 rbps=1\\n259:0 wbps=2'},"
        " 'somethingNew': 1}");

    assert_true(r.devices_set);
    assert_int_equal(r.n_devices, 3);
    assert_true(!r.devices[0].allow && r.devices[0].type == 'a' &&
                r.devices[0].access == CONTAINER_DEVICE_ALL);
    assert_int_equal(r.devices[0].major, CONTAINER_DEVICE_ANY);
    assert_true(r.devices[1].allow && r.devices[1].type == 'c' && r.devices[1].major == 10);
    assert_int_equal(r.devices[1].minor, 229);
    assert_int_equal(r.devices[1].access, CONTAINER_DEVICE_READ | CONTAINER_DEVICE_WRITE);
    assert_true(r.devices[2].minor == CONTAINER_DEVICE_ANY && r.devices[2].access == CONTAINER_DEVICE_MKNOD);
    assert_int_equal(r.memory.limit.value, 536870912);
    assert_int_equal(r.memory.reservation.value, 268435456);
    assert_int_equal(r.memory.swap.value, 1073741824);
    assert_true(r.memory.kernel.set && r.memory.kernel_tcp.value == 4096);
    assert_true(r.memory.swappiness.set && r.memory.swappiness.value == 0);
    assert_true(r.memory.disable_oom_killer.set && r.memory.disable_oom_killer.value == 1);
    assert_true(r.memory.check_before_update);
    assert_true(r.cpu.shares.value == 1024 && r.cpu.quota.value == -1 && r.cpu.burst.value == 5);
    assert_true(r.cpu.period.value == 500000 && r.cpu.realtime_runtime.value == 950000);
    assert_true(r.cpu.realtime_period.value == 1000000 && r.cpu.idle.value == 1);
    assert_string_equal(r.cpu.cpus, "2-3,7");
    assert_string_equal(r.cpu.mems, "0");
    assert_true(r.block.weight.value == 10 && r.block.leaf_weight.value == 1000);
    assert_int_equal(r.block.n_weights, 2);
    assert_true(r.block.weights[0].weight.value == 500 && r.block.weights[0].leaf_weight.value == 300);
    assert_true(r.block.weights[1].minor == 16 && !r.block.weights[1].weight.set);
    for (unsigned t = 0; t < CONTAINER_THROTTLES; t++) {
        assert_int_equal(r.block.throttle[t].n, 1);
        assert_int_equal(r.block.throttle[t].limits[0].minor, t);
        assert_int_equal(r.block.throttle[t].limits[0].rate, t == CONTAINER_WRITE_IOPS ? 0 : 600 + t);
    }
    assert_int_equal(r.n_hugepages, 1);
    assert_string_equal(r.hugepages[0].page_size, "2MB");
    assert_int_equal(r.hugepages[0].limit, 9223372036854771712);
    assert_true(r.pids.set && r.pids.value == -1);
    assert_int_equal(r.network_class.value, 1048577);
    assert_true(r.n_priorities == 1 && r.priorities[0].priority == 500);
    assert_string_equal(r.priorities[0].interface, "eth0");
    assert_int_equal(r.n_rdma, 2);
    assert_int_equal(r.n_unified, 2);
    container_resources_free(&r);
}

static void test_nothing(void **state)
{
    static const char *const texts[] = {"{}", "null", "{'devices': null, 'memory': null, 'rdma': null}",
                                        "{'memory': {'limit': null}, 'cpu': {'cpus': ''}}"};
    struct container_resources r;

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        json_t *json = json_of(texts[i]);

        assert_int_equal(container_resources_parse(json, &r, NULL), 0);
        json_decref(json);
        assert_true(!r.devices_set && !r.memory.limit.set && !r.cpu.cpus && !r.n_rdma);
        container_resources_free(&r);
    }
    assert_int_equal(container_resources_parse(NULL, &r, NULL), 0);
    container_resources_free(&r);
    r = parsed("{'devices': []}");
    assert_true(r.devices_set && r.n_devices == 0);
    container_resources_free(&r);
}

static const struct {
    const char *text, *complaint; /* behind "linux.resources" */
} wrong[] = {
    {"[]", ": must be an object"},
    {"{'memory': 5}", ".memory: must be an object"},
    {"{'memory': {'limit': '512M'}}", ".memory.limit: must be a whole number"},
    {"{'memory': {'limit': 1.5}}", ".memory.limit: must be a whole number"},
    {"{'memory': {'limit': -2}}", ".memory.limit: -2 is not within -1 to 9223372036854775807"},
    {"{'memory': {'swappiness': 101}}", ".memory.swappiness: 101 is not within 0 to 100"},
    {"{'memory': {'limit': 100, 'swap': 99}}",
     ".memory.swap: 99 is less than memory.limit 100: it is memory and"},
    {"{'memory': {'disableOOMKiller': 1}}", ".memory.disableOOMKiller: must be true or false"},
    {"{'memory': {'checkBeforeUpdate': 'no'}}", ".memory.checkBeforeUpdate: must be true or false"},
    {"{'memory': {'useHierarchy': []}}", ".memory.useHierarchy: must be true or false"},
    {"{'cpu': {'shares': -1}}", ".cpu.shares: -1 is not within 0 to 9223372036854775807"},
    {"{'cpu': {'cpus': '0-1;reboot'}}", ".cpu.cpus: '0-1;reboot' is no list of numbers"},
    {"{'cpu': {'mems': 0}}", ".cpu.mems: must be a string"},
    {"{'devices': {}}", ".devices: must be an array"},
    {"{'devices': ['c 1:3']}", ".devices[0]: must be an object"},
    {"{'devices': [{'allow': true}, {'access': 'r'}]}", ".devices[1].allow: is required and missing"},
    {"{'devices': [{'allow': true, 'type': 'x'}]}", ".devices[0].type: 'x' is none of a (all), b"},
    {"{'devices': [{'allow': true, 'access': 'rx'}]}", ".devices[0].access: 'rx' is not made of r (read)"},
    {"{'devices': [{'allow': true, 'major': 4294967296}]}", ".devices[0].major: 4294967296 is not within"},
    {"{'devices': [{'allow': true, 'minor': -2}]}", ".devices[0].minor: -2 is not within"},
    {"{'blockIO': {'weight': 9}}", ".blockIO.weight: 9 is not within 10..1000"},
    {"{'blockIO': {'leafWeight': 1001}}", ".blockIO.leafWeight: 1001 is not within 10..1000"},
    {"{'blockIO': {'weightDevice': [{'major': 8}]}}",
     ".blockIO.weightDevice[0].minor: is required and missing"},
    {"{'blockIO': {'weightDevice': [{'major': 8, 'minor': 0, 'weight': 5}]}}",
     ".blockIO.weightDevice[0].weight: 5 is not within 10..1000"},
    {"{'blockIO': {'throttleReadBpsDevice': [{'major': 8, 'minor': 0}]}}",
     ".blockIO.throttleReadBpsDevice[0].rate: is required and missing"},
    {"{'blockIO': {'throttleWriteIOPSDevice': [{'minor': 0, 'rate': 1}]}}",
     ".blockIO.throttleWriteIOPSDevice[0].major: is required and missing"},
    {"{'hugepageLimits': [{'limit': 1}]}", ".hugepageLimits[0].pageSize: is required and missing"},
    {"{'hugepageLimits': [{'pageSize': '2MB'}]}", ".hugepageLimits[0].limit: is required and missing"},
    {"{'hugepageLimits': [{'pageSize': '../x', 'limit': 1}]}",
     ".hugepageLimits[0].pageSize: '../x' is no size"},
    {"{'hugepageLimits': [{'pageSize': '02MB', 'limit': 1}]}",
     ".hugepageLimits[0].pageSize: '02MB' is no size"},
    {"{'pids': {'limit': true}}", ".pids.limit: must be a whole number"},
    {"{'network': {'classID': 4294967296}}", ".network.classID: 4294967296 is not within 0 to 4294967295"},
    {"{'network': {'priorities': [{'name': 'a b', 'priority': 1}]}}",
     ".network.priorities[0].name: no name of a network interface"},
    {"{'network': {'priorities': [{'name': 'eth0'}]}}",
     ".network.priorities[0].priority: is required and missing"},
    {"{'rdma': {'a': 1}}", ".rdma.a: must be an object"},
    {"{'rdma': {'a b': {}}}", ".rdma.a b: no name of a device"},
    {"{'rdma': {'a': {'hcaHandles': -1}}}", ".rdma.a.hcaHandles: -1 is not within 0 to 4294967295"},
    {"{'unified': {'memory.high': 1}}", ".unified.memory.high: must be a string"},
    {"{'unified': {'../memory.high': '1'}}", ".unified.../memory.high: no name of a file of cgroup v2"},
    {"{'unified': {'': '1'}}", ".unified.: no name of a file of cgroup v2"},
};

static void test_what_is_wrong(void **state)
{
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        cleanup_error struct error *err = NULL;
        struct container_resources r = {.n_devices = 77};
        json_t *json = json_of(wrong[i].text);

        assert_int_equal(container_resources_parse(json, &r, &err), -EINVAL);
        json_decref(json);
        assert_int_equal(r.n_devices, 77);
        const char *message = error_message(err);
        assert_memory_equal(message, "linux.resources", 15);
        if (strncmp(message + 15, wrong[i].complaint, strlen(wrong[i].complaint)) != 0)
            fail_msg("%s\n%s\n%s", wrong[i].text, message, wrong[i].complaint);
    }
}

static void test_too_much(void **state)
{
    cleanup_error struct error *err = NULL;
    struct container_resources r;
    json_t *devices = json_array(), *json = json_pack("{s:o}", "devices", devices);

    for (int i = 0; i < 5000; i++)
        json_array_append_new(devices, json_pack("{s:b}", "allow", 1));
    assert_int_equal(container_resources_parse(json, &r, &err), -EINVAL);
    assert_string_equal(error_message(err), "linux.resources.devices: 5000 items, of which 4096 may be");
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_what_is_wrong),
        cmocka_unit_test(test_too_much),
    };
    return cmocka_run_group_tests_name("container/resources", tests, NULL, NULL);
}
