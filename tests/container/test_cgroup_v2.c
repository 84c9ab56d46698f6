/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is written to cgroup v2's files, in a directory of plain files (this needs no such host), and the
 * program that guards devices, which the kernel itself runs where there is any v2 tree.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include <cmocka.h>

static char root[64], group[80];

static void put_file(const char *name, const char *text)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", group, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void assert_file(const char *name, const char *expected)
{
    char text[512];

    if (cgroup_read(group, name, text, sizeof(text)) < 0)
        fail_msg("no %s", name);
    assert_string_equal(text, expected);
}

static int set_up(void **state)
{
    strcpy(root, "/tmp/tabique-test-v2-XXXXXX");
    assert_non_null(mkdtemp(root));
    snprintf(group, sizeof(group), "%s/c", root);
    assert_int_equal(mkdir(group, 0755), 0);
    static const char *const files[] = {
        "cgroup.procs",  "memory.max", "memory.swap.max", "memory.low",           "cpu.weight",
        "cpu.max.burst", "cpu.idle",   "cpuset.cpus",     "cpuset.mems",          "io.weight",
        "io.max",        "pids.max",   "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max", "rdma.max",
        "memory.high"};
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        put_file(files[i], "");
    put_file("cpu.max", "max 100000\n");
    put_file("memory.current", "1000000\n");
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    return remove(path);
}

static int tear_down(void **state)
{
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static struct cgroup *fake(void)
{
    struct cgroup *cgroup;
    json_t *saved = json_pack("{s:s, s:b, s:[{s:s, s:s, s:s}]}", "layout", "unified", "rootless", 0, "trees",
                              "controllers", "", "mount", root, "directory", group);

    assert_int_equal(cgroup_open_saved(saved, &cgroup, NULL), 0);
    json_decref(saved);
    return cgroup;
}

static int apply(const char *json_text, struct error **err)
{
    struct container_resources r;
    struct cgroup *cgroup = fake();
    json_t *json = json_loads(json_text, 0, NULL);

    assert_non_null(json);
    assert_int_equal(container_resources_parse(json, &r, NULL), 0);
    json_decref(json);
    int rc = cgroup_apply(cgroup, &r, err);
    container_resources_free(&r);
    cgroup_free(cgroup);
    return rc;
}

static void apply_well(const char *json_text)
{
    struct error *err = NULL;

    if (apply(json_text, &err))
        fail_msg("%s: %s", json_text, error_message(err));
}

static void test_memory(void **state)
{
    apply_well("{\"memory\": {\"limit\": 2000000, \"swap\": 5000000, \"reservation\": 1000}}");
    assert_file("memory.max", "2000000");
    assert_file("memory.swap.max", "3000000");
    assert_file("memory.low", "1000");
    put_file("memory.max", "");
    put_file("memory.swap.max", "");
    apply_well("{\"memory\": {\"limit\": -1}}");
    assert_file("memory.max", "max");
    assert_file("memory.swap.max", "max");
    put_file("memory.swap.max", "");
    apply_well("{\"memory\": {\"limit\": 7, \"swap\": 7}}");
    assert_file("memory.swap.max", "0");
    put_file("memory.max", "untouched");
    apply_well("{\"memory\": {\"limit\": 0, \"swap\": 0}}");
    assert_file("memory.max", "untouched");
}

static void assert_complaint(const char *json_text, int errnum, const char *part)
{
    cleanup_error struct error *err = NULL;

    assert_int_equal(apply(json_text, &err), -errnum);
    if (!strstr(error_message(err), part))
        fail_msg("%s: %s", json_text, error_message(err));
}

static void test_what_can_not_be(void **state)
{
    assert_complaint("{\"memory\": {\"swap\": 5}}", EINVAL,
                     "linux.resources.memory.swap: it is memory and swap together");
    assert_complaint("{\"memory\": {\"limit\": 999999, \"checkBeforeUpdate\": true}}", EBUSY,
                     "memory.limit: 999999 is less than the 1000000 bytes in use");
    assert_complaint("{\"cpu\": {\"realtimeRuntime\": 5}}", ENOTSUP,
                     "cpu.realtimeRuntime: cgroup v2 has no such");
    assert_complaint("{\"network\": {\"classID\": 5}}", ENOTSUP, "network: cgroup v2 has no classes");
    assert_complaint("{\"unified\": {\"misc.max\": \"5\"}}", ENOTSUP,
                     "unified.misc.max: this container's group has no misc.max: the controller 'misc'");
    assert_complaint("{\"hugepageLimits\": [{\"pageSize\": \"1GB\", \"limit\": 1}]}", ENOTSUP,
                     "hugetlb.1GB.max");
}

static void test_processors(void **state)
{
    apply_well(
        "{\"cpu\": {\"shares\": 1024, \"quota\": 50000, \"cpus\": \"0-1\", \"mems\": \"0\", \"idle\": 1}}");
    assert_file("cpu.weight", "39");
    assert_file("cpu.max", "50000 100000"); /* the period that was there */
    assert_file("cpuset.cpus", "0-1");
    assert_file("cpuset.mems", "0");
    assert_file("cpu.idle", "1");
    put_file("cpu.max", "70000 200000\n");
    apply_well("{\"cpu\": {\"period\": 400000}}");
    assert_file("cpu.max", "70000 400000");
    put_file("cpu.max", "70000 200000\n");
    put_file("cpu.max.burst", "");
    apply_well("{\"cpu\": {\"quota\": -1, \"burst\": 1000}}");
    assert_file("cpu.max", "max 20000000"); /* in a plain file the rest of the older text */
    assert_int_equal(cgroup_v2_weight(0), 1);
    assert_int_equal(cgroup_v2_weight(2), 1);
    assert_int_equal(cgroup_v2_weight(262144), 10000);
    assert_int_equal(cgroup_v2_weight(INT64_MAX), 10000);
}

static void test_devices_and_pages(void **state)
{
    apply_well("{\"blockIO\": {\"weight\": 10, \"throttleReadBpsDevice\": [{\"major\": 8, \"minor\": 0, "
               "\"rate\": 600}]}}");
    assert_file("io.weight", "1");
    assert_file("io.max", "8:0 rbps=600");
    put_file("io.max", "");
    put_file("io.weight", "");
    apply_well("{\"blockIO\": {\"weight\": 1000, \"throttleWriteIOPSDevice\": [{\"major\": 8, \"minor\": 1, "
               "\"rate\": 0}]}}");
    assert_file("io.weight", "10000");
    assert_file("io.max", "8:1 wiops=max");
    put_file("io.bfq.weight", "");
    apply_well("{\"blockIO\": {\"weight\": 500}}");
    assert_file("io.bfq.weight", "500");
    apply_well("{\"hugepageLimits\": [{\"pageSize\": \"2MB\", \"limit\": 4194304}]}");
    assert_file("hugetlb.2MB.max", "4194304");
    assert_file("hugetlb.2MB.rsvd.max", "4194304");
    apply_well("{\"rdma\": {\"mlx5_1\": {\"hcaHandles\": 3, \"hcaObjects\": 10}}}");
    assert_file("rdma.max", "mlx5_1 hca_handle=3 hca_object=10");
    apply_well("{\"pids\": {\"limit\": -1}, \"unified\": {\"memory.high\": \"77\"}}");
    assert_file("pids.max", "max");
    assert_file("memory.high", "77");
}

static void test_handing_down(void **state)
{
    char path[128];

    put_file("cgroup.controllers", "cpuset cpu io memory pids\n");
    put_file("cgroup.subtree_control", "cpu\n");
    snprintf(path, sizeof(path), "%s/x", group);
    cgroup_v2_enable(group, path, NULL);
    assert_file("cgroup.subtree_control", "+cpuset +io +memory +pids");
    put_file("cgroup.subtree_control", "cpuset cpu io memory pids\n");
    cgroup_v2_enable(group, path, NULL);
    assert_file("cgroup.subtree_control", "cpuset cpu io memory pids");
    /* One with processes hands down nothing, but for the tree's root. */
    put_file("cgroup.subtree_control", "");
    put_file("cgroup.procs", "1\n");
    cgroup_v2_enable(root, path, NULL);
    assert_file("cgroup.subtree_control", "");
    cgroup_v2_enable(group, path, NULL);
    assert_file("cgroup.subtree_control", "+cpuset +cpu +io +memory +pids");
}

static void test_statistics(void **state)
{
    struct cgroup *cgroup = fake();

    put_file("cpu.stat",
             "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\n");
    put_file("memory.stat", "anon 1\nfile 4096\nkernel 9\n");
    put_file("memory.events", "low 0\nhigh 0\nmax 6\noom 2\noom_kill 1\n");
    put_file("memory.max", "2000000\n");
    put_file("memory.swap.max", "max\n");
    put_file("memory.swap.current", "5\n");
    put_file("memory.peak", "1500000\n");
    put_file(
        "memory.pressure",
        "some avg10=0.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=7\n");
    put_file("io.stat", "8:0 rbytes=4096 wbytes=1 rios=2 wios=3 dbytes=0 dios=0\n7:0 \n");
    put_file("pids.current", "3\n");
    put_file("pids.max", "10\n");
    put_file("cpuset.cpus.effective", "0-2,5\n");
    put_file("hugetlb.2MB.current", "0\n");
    put_file("hugetlb.2MB.max", "4194304\n");
    put_file("hugetlb.2MB.events", "max 8\n");
    json_t *stats = cgroup_stats(cgroup, NULL);
    char *text = json_dumps(stats, JSON_COMPACT | JSON_SORT_KEYS);
    static const char *const parts[] = {
        "\"usage\":{\"kernel\":10000,\"total\":30000,\"user\":20000}",
        "\"throttling\":{\"periods\":4,\"throttledPeriods\":3,\"throttledTime\":2000}",
        "\"cpus\":[0,1,2,5]",
        "\"usage\":{\"failcnt\":6,\"limit\":2000000,\"max\":1500000,\"usage\":1000000}",
        "\"swap\":{\"failcnt\":0,\"limit\":9223372036854775807,\"usage\":1000005}",
        "\"cache\":4096",
        "\"full\":{\"avg10\":0.25,\"avg300\":0.0,\"avg60\":0.0,\"total\":7}",
        "\"pids\":{\"current\":3,\"limit\":10}",
        "{\"major\":8,\"minor\":0,\"op\":\"Read\",\"value\":4096}",
        "{\"major\":8,\"minor\":0,\"op\":\"Write\",\"value\":3}",
        "\"hugetlb\":{\"2MB\":{\"failcnt\":8,\"max\":4194304,\"usage\":0}}",
    };
    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        if (!strstr(text, parts[i]))
            fail_msg("no %s in %s", parts[i], text);
    assert_int_equal(cgroup_oom_kills(cgroup), 1);
    free(text);
    json_decref(stats);
    cgroup_free(cgroup);
}

/* ---- where the trees are ---- */

static void test_finding_trees(void **state)
{
    static const char mountinfo[] =
        "24 1 0:22 / /proc rw - proc proc rw\n"
        "30 24 0:26 / /else/where rw - cgroup cgroup rw,cpu,cpuacct\n"
        "31 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "32 24 0:27 /docker/x /sys/fs/cgroup/me\\040mory rw - cgroup cgroup rw,memory\n"
        "33 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
        "34 24 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
    static const char own[] =
        "5:memory:/docker/x/y\n4:cpu,cpuacct:/a\n3:pids:/nowhere\n1:name=systemd:/s\n0::/u/v\n";
    static const char *const expected[][3] = {
        {"memory", "/sys/fs/cgroup/me mory", "/y"},
        {"cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", "/a"},
        {"name=systemd", "/sys/fs/cgroup/systemd", "/s"},
        {"", "/sys/fs/cgroup/unified", "/u/v"},
    };
    struct cgroup_tree *trees;
    size_t n;

    assert_int_equal(cgroup_parse_trees(mountinfo, own, &trees, &n), 0);
    assert_int_equal(n, ARRAY_SIZE(expected));
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(trees[i].controllers, expected[i][0]);
        assert_string_equal(trees[i].mount, expected[i][1]);
        assert_string_equal(trees[i].own, expected[i][2]);
    }
    cgroup_trees_free(trees, n);
    /* The v2 line may come first. */
    assert_int_equal(cgroup_parse_trees(mountinfo, "0::/\n1:name=systemd:/", &trees, &n), 0);
    assert_int_equal(n, 2);
    assert_string_equal(trees[1].controllers, "");
    cgroup_trees_free(trees, n);
    assert_int_equal(cgroup_parse_trees("", "rubbish\n:::\n", &trees, &n), 0);
    assert_int_equal(n, 0);
    cgroup_trees_free(trees, n);
}

/* ---- the guard of devices ---- */

/* Any v2 tree will do; "" without. */
static void find_v2(char *directory, size_t size)
{
    struct cgroup_tree *trees;
    size_t n;

    directory[0] = '\0';
    if (cgroup_find_trees(&trees, &n, NULL))
        return;
    if (!*trees[n - 1].controllers)
        snprintf(directory, size, "%s/tabique-test-devices-%d", trees[n - 1].mount, getpid());
    cgroup_trees_free(trees, n);
}

/* What a process in the group gets for each of a device's node: errno of an open for reading, writing, both,
 * mknod. */
static void try_in(const char *directory, const char *node, int result[static 4])
{
    static const int flags[] = {O_RDONLY, O_WRONLY, O_RDWR};
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int mine[4] = {0};
        char path[128];
        struct stat st;

        if (cgroup_write(directory, "cgroup.procs", "0") || stat(node, &st) < 0)
            _exit(1);
        for (int i = 0; i < 3; i++)
            mine[i] = open(node, flags[i]) < 0 ? errno : 0;
        snprintf(path, sizeof(path), "%s/node", root);
        mine[3] = mknod(path, S_IFCHR | 0600, st.st_rdev) < 0 ? errno : 0;
        unlink(path);
        _exit(write(ends[1], mine, sizeof(mine)) != sizeof(mine));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(read(ends[0], result, 4 * sizeof(int)), 4 * sizeof(int));
    close(ends[0]);
    close(ends[1]);
}

static void assert_access(const char *directory, const char *node, int r, int w, int both, int m)
{
    int result[4];

    try_in(directory, node, result);
    if (result[0] != r || result[1] != w || result[2] != both || result[3] != m)
        fail_msg("%s: %d %d %d %d, not %d %d %d %d", node, result[0], result[1], result[2], result[3], r, w,
                 both, m);
}

static void test_the_kernel_obeys(void **state)
{
    static const struct container_device_rule first[] = {
        {true, 'c', 1, 8, CONTAINER_DEVICE_ALL}, /* forgotten: the next one is for everything */
        {false, 'a', -1, -1, CONTAINER_DEVICE_ALL},
        {true, 'c', 1, 3, CONTAINER_DEVICE_READ}, /* in two rules */
        {true, 'c', 1, 3, CONTAINER_DEVICE_WRITE},
        {true, 'c', 1, 5, CONTAINER_DEVICE_ALL},
        {false, 'c', 1, -1, CONTAINER_DEVICE_MKNOD}, /* taken from the one before */
        {true, 'c', 1, 7, CONTAINER_DEVICE_READ | CONTAINER_DEVICE_MKNOD},
        {true, 'b', 1, 9, CONTAINER_DEVICE_ALL}, /* another kind */
    };
    static const struct container_device_rule second[] = {
        {true, 'a', -1, -1, CONTAINER_DEVICE_ALL},
        {false, 'a', 1, 3, CONTAINER_DEVICE_WRITE},
    };
    char directory[128];
    cleanup_error struct error *err = NULL;

    find_v2(directory, sizeof(directory));
    if (geteuid() != 0 || !*directory || mkdir(directory, 0755) < 0)
        skip(); /* needs root and a v2 tree */
    assert_int_equal(cgroup_v2_devices(directory, first, ARRAY_SIZE(first), &err), 0);
    assert_access(directory, "/dev/null", 0, 0, 0, EPERM);
    assert_access(directory, "/dev/zero", 0, 0, 0, EPERM);
    assert_access(directory, "/dev/full", 0, EPERM, EPERM, 0);
    assert_access(directory, "/dev/random", EPERM, EPERM, EPERM, EPERM);
    assert_access(directory, "/dev/urandom", EPERM, EPERM, EPERM, EPERM);
    /* The new program is in the place of the old one. */
    assert_int_equal(cgroup_v2_devices(directory, second, ARRAY_SIZE(second), &err), 0);
    assert_access(directory, "/dev/null", 0, EPERM, EPERM, 0);
    assert_access(directory, "/dev/urandom", 0, 0, 0, 0);
    /* Far more than any container has. */
    struct container_device_rule many[900];
    for (size_t i = 0; i < ARRAY_SIZE(many); i++)
        many[i] = (struct container_device_rule){i % 2, 'c', (int64_t)i % 500, (int64_t)i, 7};
    many[0] = (struct container_device_rule){true, 'c', 1, 3, 7};
    assert_int_equal(cgroup_v2_devices(directory, many, ARRAY_SIZE(many), &err), 0);
    assert_access(directory, "/dev/null", 0, 0, 0, 0);
    assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_can_not_be, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_processors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_devices_and_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_handing_down, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_statistics, set_up, tear_down),
        cmocka_unit_test(test_finding_trees),
        cmocka_unit_test_setup_teardown(test_the_kernel_obeys, set_up, tear_down),
    };
    return cmocka_run_group_tests_name("container/cgroup_v2", tests, NULL, NULL);
}
