/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Real control groups of this host, whichever layout it has: processes that go in are limited, frozen,
 * counted, killed. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

#define MIB (1 << 20)

static int may_not_run(void)
{
    return geteuid() != 0;
}

static struct cgroup *make(const char *path, const char *resources)
{
    char id[64];
    struct error *err = NULL;
    struct cgroup *cgroup;
    struct container_resources r;
    json_t *json = json_loads(resources, 0, NULL);

    snprintf(id, sizeof(id), "test-%d", getpid());
    struct cgroup_request request = {.path = path, .id = id};
    if (cgroup_create(&request, &cgroup, &err))
        fail_msg("create: %s", error_message(err));
    assert_int_equal(container_resources_parse(json, &r, NULL), 0);
    json_decref(json);
    if (cgroup_apply(cgroup, &r, &err)) {
        cgroup_remove(cgroup, NULL);
        fail_msg("apply: %s", error_message(err));
    }
    container_resources_free(&r);
    return cgroup;
}

static void end(struct cgroup *cgroup)
{
    struct error *err = NULL;
    size_t n;
    const struct cgroup_hierarchy *trees = cgroup_hierarchies(cgroup, &n);

    if (cgroup_remove(cgroup, &err))
        fail_msg("remove: %s", error_message(err));
    for (size_t i = 0; i < n; i++)
        assert_int_equal(access(trees[i].directory, F_OK), -1);
    assert_int_equal(cgroup_remove(cgroup, NULL), 0); /* again */
    cgroup_free(cgroup);
}

/* A child in the groups that does as it is told; with `counts` it counts up there. */
static pid_t start_in(struct cgroup *cgroup, void (*body)(volatile uint64_t *counter),
                      volatile uint64_t *counter)
{
    int ready[2];
    char byte;

    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (cgroup_enter(cgroup, 0, NULL))
            _exit(99);
        if (write(ready[1], "x", 1) != 1)
            _exit(98);
        body(counter);
        _exit(0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void count(volatile uint64_t *counter)
{
    for (;;)
        ++*counter;
}

static void wait_for_signal(volatile uint64_t *counter)
{
    for (;;)
        pause();
}

static volatile uint64_t *shared_counter(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(p, MAP_FAILED);
    return p;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static void test_freeze(void **state)
{
    volatile uint64_t *counter = shared_counter();
    struct cgroup *cgroup = make(NULL, "{}");
    pid_t pid = start_in(cgroup, count, counter);

    assert_int_equal(cgroup_freeze(cgroup, NULL), 0);
    assert_true(cgroup_is_frozen(cgroup));
    uint64_t before = *counter;
    sleep_ms(100);
    assert_int_equal(*counter, before);
    assert_int_equal(cgroup_thaw(cgroup, NULL), 0);
    assert_false(cgroup_is_frozen(cgroup));
    for (int tries = 0; *counter == before && tries < 500; tries++)
        sleep_ms(10);
    assert_int_not_equal(*counter, before);
    /* A frozen one is killed as any other. */
    assert_int_equal(cgroup_freeze(cgroup, NULL), 0);
    assert_int_equal(cgroup_signal_all(cgroup, SIGKILL, NULL), 0);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    end(cgroup);
}

/* Forks until it may not. */
static void breed(volatile uint64_t *counter)
{
    for (;;) {
        pid_t pid = fork();
        if (pid == 0)
            for (;;)
                if (fork() < 0)
                    pause();
        if (pid < 0)
            *counter = 1;
    }
}

static void test_pids_and_kill_all(void **state)
{
    volatile uint64_t *counter = shared_counter();
    struct cgroup *cgroup = make(NULL, "{\"pids\": {\"limit\": 50}}");
    pid_t *pids, pid = start_in(cgroup, breed, counter);
    size_t n;

    for (int tries = 0; !*counter && tries < 1000; tries++)
        sleep_ms(10);
    assert_true(*counter);
    assert_int_equal(cgroup_processes(cgroup, &pids, &n, NULL), 0);
    assert_true(n > 10 && n <= 50);
    bool found = false;
    for (size_t i = 0; i < n; i++) {
        found |= pids[i] == pid;
        assert_true(i == 0 || pids[i] > pids[i - 1]);
    }
    assert_true(found);
    free(pids);
    assert_int_equal(cgroup_signal_all(cgroup, SIGKILL, NULL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    end(cgroup);
}

static void test_gentle_signals(void **state)
{
    struct cgroup *cgroup = make(NULL, "{}");
    pid_t first = start_in(cgroup, wait_for_signal, NULL), second = start_in(cgroup, wait_for_signal, NULL);
    int status;

    assert_int_equal(cgroup_signal_all(cgroup, SIGTERM, NULL), 0);
    assert_int_equal(waitpid(first, &status, 0), first);
    assert_int_equal(WTERMSIG(status), SIGTERM);
    assert_int_equal(waitpid(second, &status, 0), second);
    assert_int_equal(WTERMSIG(status), SIGTERM);
    assert_int_equal(cgroup_signal_all(cgroup, SIGTERM, NULL), 0); /* nobody */
    end(cgroup);
}

static void eat_memory(volatile uint64_t *counter)
{
    for (;;) {
        char *p = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p != MAP_FAILED)
            memset(p, 1, MIB);
    }
}

static void test_memory_and_oom(void **state)
{
    struct cgroup *cgroup = make(NULL, "{\"memory\": {\"limit\": 16777216, \"swap\": 16777216}}");
    struct cgroup_oom *oom;
    int fd, status;

    assert_int_equal(cgroup_oom_open(cgroup, &oom, &fd, NULL), 0);
    pid_t pid = start_in(cgroup, eat_memory, NULL);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 20000), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    assert_int_equal(cgroup_oom_read(oom), 1);
    assert_int_equal(cgroup_oom_kills(cgroup), 1);
    json_t *stats = cgroup_stats(cgroup, NULL);
    json_t *usage = json_object_get(json_object_get(stats, "memory"), "usage");
    assert_int_equal(json_integer_value(json_object_get(usage, "limit")), 16777216);
    assert_true(json_integer_value(json_object_get(usage, "max")) > 8 * MIB);
    json_decref(stats);
    end(cgroup);
    assert_int_equal(cgroup_oom_read(oom), -ENODEV);
    cgroup_oom_close(oom);
}

static void test_cpu_quota_and_statistics(void **state)
{
    volatile uint64_t *counter = shared_counter();
    struct cgroup *cgroup =
        make(NULL, "{\"cpu\": {\"quota\": 10000, \"period\": 100000, \"shares\": 512, \"cpus\": \"0\"}}");
    pid_t pid = start_in(cgroup, count, counter);

    sleep_ms(900);
    json_t *stats = cgroup_stats(cgroup, NULL);
    json_t *cpu = json_object_get(stats, "cpu");
    int64_t total = json_integer_value(json_object_get(json_object_get(cpu, "usage"), "total"));
    int64_t throttled =
        json_integer_value(json_object_get(json_object_get(cpu, "throttling"), "throttledPeriods"));
    assert_true(total > 10 * 1000000 && total < 300 * 1000000); /* a tenth of it */
    assert_true(throttled > 0);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(stats, "pids"), "current")), 1);
    assert_int_equal(json_array_size(json_object_get(json_object_get(stats, "cpuset"), "cpus")), 1);
    json_decref(stats);
    /* What `update` does: only what is told changes. */
    struct container_resources r = {.cpu.quota = {true, -1}};
    assert_int_equal(cgroup_apply(cgroup, &r, NULL), 0);
    char text[64];
    if (cgroup_v1(cgroup, "cpu")) {
        assert_true(cgroup_read(cgroup_v1(cgroup, "cpu"), "cpu.cfs_quota_us", text, sizeof(text)) > 0);
        assert_string_equal(text, "-1");
        assert_true(cgroup_read(cgroup_v1(cgroup, "cpu"), "cpu.shares", text, sizeof(text)) > 0);
        assert_string_equal(text, "512");
    } else {
        assert_true(cgroup_read(cgroup_v2(cgroup), "cpu.max", text, sizeof(text)) > 0);
        assert_string_equal(text, "max 100000");
        assert_true(cgroup_read(cgroup_v2(cgroup), "cpu.weight", text, sizeof(text)) > 0);
        assert_string_equal(text, "20");
    }
    assert_int_equal(cgroup_signal_all(cgroup, SIGKILL, NULL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    end(cgroup);
}

/* 1: what is forbidden opens; 2: what is allowed does not. */
static void open_devices(volatile uint64_t *counter)
{
    bool null = open("/dev/null", O_RDWR) >= 0, tty = open("/dev/kmsg", O_RDONLY | O_NONBLOCK) >= 0;

    *counter = 1 + (uint64_t)null + 2 * (uint64_t)tty;
}

static uint64_t opened(struct cgroup *cgroup)
{
    volatile uint64_t *counter = shared_counter();
    int status;
    pid_t pid = start_in(cgroup, open_devices, counter);

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    return *counter - 1;
}

static void test_devices(void **state)
{
    struct cgroup *cgroup = make(NULL, "{}");
    struct container_device_rule rule = {true, 'c', 1, 11, CONTAINER_DEVICE_READ}; /* /dev/kmsg */
    struct container_resources r = {.devices_set = true, .devices = &rule, .n_devices = 1};

    assert_int_equal(opened(cgroup), 1);
    if (open("/dev/kmsg", O_RDONLY | O_NONBLOCK) >= 0) {
        assert_int_equal(cgroup_apply(cgroup, &r, NULL), 0);
        assert_int_equal(opened(cgroup), 3);
        r.n_devices = 0;
        assert_int_equal(cgroup_apply(cgroup, &r, NULL), 0);
        assert_int_equal(opened(cgroup), 1);
    }
    end(cgroup);
}

static void test_nested_paths_and_rests(void **state)
{
    char path[64], deeper[PATH_MAX];
    cleanup_error struct error *err = NULL;
    struct cgroup *second;

    snprintf(path, sizeof(path), "/tabique-test-%d/a/b", getpid());
    struct cgroup *cgroup = make(path, "{\"cpu\": {\"mems\": \"0\"}}");
    pid_t pid = start_in(cgroup, wait_for_signal, NULL);
    struct cgroup_request again = {.path = path, .id = "x"};
    assert_int_equal(cgroup_create(&again, &second, &err), -EBUSY);
    assert_non_null(strstr(error_message(err), "has processes in it"));
    /* Groups that the container has made itself go with it; its state is what finds them. */
    json_t *saved = cgroup_save(cgroup);
    cgroup_free(cgroup);
    assert_int_equal(cgroup_open_saved(saved, &cgroup, NULL), 0);
    json_decref(saved);
    snprintf(deeper, sizeof(deeper), "%s/inner", cgroup_reference(cgroup));
    assert_int_equal(mkdir(deeper, 0755), 0);
    assert_int_equal(cgroup_remove(cgroup, NULL), -EBUSY);
    assert_int_equal(cgroup_signal_all(cgroup, SIGKILL, NULL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    size_t n;
    const struct cgroup_hierarchy *trees = cgroup_hierarchies(cgroup, &n);
    char above[16][PATH_MAX];
    assert_true(n <= 16);
    for (size_t i = 0; i < n; i++)
        snprintf(above[i], PATH_MAX, "%.*s", (int)strlen(trees[i].directory) - 2, trees[i].directory);
    end(cgroup);
    for (size_t i = 0; i < 16 && i < n; i++) {
        assert_int_equal(rmdir(above[i]), 0);
        *strrchr(above[i], '/') = '\0';
        assert_int_equal(rmdir(above[i]), 0);
    }
}

static void test_bad_paths(void **state)
{
    static const char *const bad[] = {"/../x", "a/../../b", ".."};
    struct cgroup *cgroup;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        cleanup_error struct error *err = NULL;
        struct cgroup_request request = {.path = bad[i], .id = "x"};

        assert_int_equal(cgroup_create(&request, &cgroup, &err), -EINVAL);
        assert_non_null(strstr(error_message(err), "leads out of its tree"));
    }
    cleanup_error struct error *err = NULL;
    struct cgroup_request request = {.path = "only:two", .id = "x", .systemd = true};
    assert_int_equal(cgroup_create(&request, &cgroup, &err), -EINVAL);
    assert_non_null(strstr(error_message(err), "is not slice:prefix:name"));
    json_t *saved = json_pack("{s:s, s:b, s:[{s:s, s:s, s:s}]}", "layout", "unified", "rootless", 0, "trees",
                              "controllers", "", "mount", "/sys/fs/cgroup", "directory", "/etc");
    assert_int_equal(cgroup_open_saved(saved, &cgroup, NULL), -EINVAL);
    json_decref(saved);
    assert_int_equal(cgroup_open_saved(NULL, &cgroup, NULL), -EINVAL);
}

static void test_impossible_limits_say_which(void **state)
{
    cleanup_error struct error *err = NULL;
    struct cgroup *cgroup = make(NULL, "{}");
    char no_such[] = "4000";
    struct container_resources r = {.cpu.cpus = no_such};

    assert_true(cgroup_apply(cgroup, &r, &err) < 0);
    assert_non_null(strstr(error_message(err), "linux.resources.cpu.cpus: writing 4000 into "));
    end(cgroup);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_freeze),
        cmocka_unit_test(test_pids_and_kill_all),
        cmocka_unit_test(test_gentle_signals),
        cmocka_unit_test(test_memory_and_oom),
        cmocka_unit_test(test_cpu_quota_and_statistics),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_nested_paths_and_rests),
        cmocka_unit_test(test_bad_paths),
        cmocka_unit_test(test_impossible_limits_say_which),
    };
    const struct CMUnitTest anybody[] = {cmocka_unit_test(test_bad_paths)};

    if (may_not_run())
        return cmocka_run_group_tests_name("container/cgroup", anybody, NULL, NULL);
    return cmocka_run_group_tests_name("container/cgroup", tests, NULL, NULL);
}
