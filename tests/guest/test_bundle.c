/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Flags and images as config.json: what a program gets, and what the walls are. */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "container/config.h"
#include "guest/bundle.h"
#include "host/home.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* What `flags` and `image` (JSON) become; NULL, with the reason in `why` (of 256 bytes), where that fails. */
static json_t *make(const char *flags, const char *image, uint32_t uid, char *why)
{
    json_t *flags_json = json_loads(flags, 0, NULL), *image_json = json_loads(image, 0, NULL);
    const struct bundle bundle = {.flags = flags_json,
                                  .image = image_json,
                                  .name = "web_1",
                                  .directory = "/nothing/there",
                                  .volumes = "/tmp/volumes",
                                  .cgroup = "/web",
                                  .user = {.uid = uid, .gid = uid, .home = "/home/web"}};
    struct error *err = NULL;

    assert_non_null(flags_json);
    assert_non_null(image_json);
    json_t *json = bundle_make(&bundle, &err);
    if (json) {
        /* Whatever it is, the runtime takes it. */
        struct container_config *config = NULL;
        char *text = json_dumps(json, 0);
        if (container_config_parse(text, strlen(text), &config, &err))
            fail_msg("%s", error_message(err));
        container_config_free(config);
        free(text);
    } else if (why) {
        snprintf(why, 256, "%s", error_message(err));
    }
    error_free(err);
    json_decref(flags_json);
    json_decref(image_json);
    return json;
}

static json_t *at(json_t *json, const char *a, const char *b)
{
    json_t *inner = json_object_get(json, a);

    return b ? json_object_get(inner, b) : inner;
}

static void assert_words(json_t *list, const char *expected)
{
    char text[512] = "";

    for (size_t i = 0; i < json_array_size(list); i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", i ? " " : "",
                 json_string_value(json_array_get(list, i)));
    assert_string_equal(text, expected);
}

static bool has(json_t *list, const char *word)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strcmp(json_string_value(json_array_get(list, i)), word) == 0)
            return true;
    return false;
}

static void test_words(void **state)
{
    static const struct {
        const char *flags, *image, *args;
    } cases[] = {
        {"{}", "{\"Cmd\":[\"a\",\"b\"]}", "a b"},
        {"{}", "{\"Entrypoint\":[\"e\"],\"Cmd\":[\"a\"]}", "e a"},
        {"{\"command\":[\"x\",\"y\"]}", "{\"Cmd\":[\"a\"]}", "x y"},
        {"{\"command\":[\"x\"]}", "{\"Entrypoint\":[\"e\",7],\"Cmd\":[\"a\"]}", "e x"},
        {"{}", "{\"Entrypoint\":[\"e\"],\"Cmd\":null}", "e"},
    };
    char why[256];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        json_t *json = make(cases[i].flags, cases[i].image, 0, NULL);
        assert_words(at(json, "process", "args"), cases[i].args);
        json_decref(json);
    }
    assert_null(make("{}", "{\"Cmd\":\"text\"}", 0, why));
    assert_string_equal(why, "the image does not say what to run: give a command after '--'");
}

static void test_environment(void **state)
{
    json_t *json =
        make("{\"env\":[\"A=flag\",\"C=3\"],\"workdir\":\"/w\"}",
             "{\"Cmd\":[\"a\"],\"Env\":[\"A=image\",\"B=2\",\"PATH=/bin\",\"odd\"],\"WorkingDir\":\"/i\"}", 0,
             NULL);
    assert_words(at(json, "process", "env"), "PATH=/bin HOME=/home/web container=tabique A=flag B=2 C=3");
    assert_string_equal(json_string_value(at(json, "process", "cwd")), "/w");
    assert_string_equal(json_string_value(at(json, "hostname", NULL)), "web-1");
    json_decref(json);
    json = make("{\"hostname\":\"a_b\"}", "{\"Cmd\":[\"a\"],\"WorkingDir\":\"/i\"}", 0, NULL);
    assert_string_equal(json_string_value(at(json, "process", "cwd")), "/i");
    assert_string_equal(json_string_value(at(json, "hostname", NULL)), "a_b");
    json_decref(json);
}

static json_t *capabilities(json_t *json, const char *set)
{
    return json_object_get(at(json, "process", "capabilities"), set);
}

static void test_capabilities(void **state)
{
    static const char image[] = "{\"Cmd\":[\"a\"]}";
    char why[256];
    json_t *json = make("{}", image, 0, NULL);

    assert_int_equal(json_array_size(capabilities(json, "bounding")), 14);
    assert_true(json_equal(capabilities(json, "bounding"), capabilities(json, "effective")));
    assert_false(has(capabilities(json, "bounding"), "CAP_SYS_ADMIN"));
    json_decref(json);
    /* Another user can get them by programs only. */
    json = make("{}", image, 1000, NULL);
    assert_int_equal(json_array_size(capabilities(json, "bounding")), 14);
    assert_int_equal(json_array_size(capabilities(json, "effective")), 0);
    json_decref(json);
    json = make("{\"cap-drop\":[\"all\"],\"cap-add\":[\"net_admin\",\"CAP_CHOWN\"]}", image, 0, NULL);
    assert_words(capabilities(json, "bounding"), "CAP_CHOWN CAP_NET_ADMIN");
    json_decref(json);
    json = make("{\"privileged\":true,\"cap-drop\":[\"SYS_BOOT\"]}", image, 0, NULL);
    assert_true(has(capabilities(json, "bounding"), "CAP_SYS_ADMIN"));
    assert_false(has(capabilities(json, "bounding"), "CAP_SYS_BOOT"));
    json_decref(json);
    assert_null(make("{\"cap-add\":[\"fly\"]}", image, 0, why));
    assert_non_null(strstr(why, "there is no capability 'fly'"));
}

static void test_walls(void **state)
{
    static const char image[] = "{\"Cmd\":[\"a\"]}";
    json_t *json = make("{}", image, 0, NULL), *calls;

    calls = json_object_get(json_array_get(json_object_get(at(json, "linux", "seccomp"), "syscalls"), 0),
                            "names");
    assert_true(has(calls, "kexec_load") && has(calls, "bpf") && has(calls, "keyctl"));
    assert_true(has(at(json, "linux", "maskedPaths"), "/proc/kcore"));
    assert_true(has(at(json, "linux", "readonlyPaths"), "/proc/sysrq-trigger"));
    json_decref(json);
    /* Who may reboot may call it. */
    json = make("{\"cap-add\":[\"SYS_BOOT\"]}", image, 0, NULL);
    calls = json_object_get(json_array_get(json_object_get(at(json, "linux", "seccomp"), "syscalls"), 0),
                            "names");
    assert_false(has(calls, "kexec_load"));
    json_decref(json);
    json = make("{\"privileged\":true}", image, 0, NULL);
    assert_null(at(json, "linux", "seccomp"));
    assert_null(at(json, "linux", "maskedPaths"));
    json_decref(json);
}

static void test_limits(void **state)
{
    json_t *json = make(
        "{\"memory\":1048576,\"cpus\":2,\"pids\":7,\"io-weight\":500,\"net\":[\"host\"],\"read-only\":true}",
        "{\"Cmd\":[\"a\"]}", 0, NULL);
    json_t *limits = at(json, "linux", "resources"), *namespaces = at(json, "linux", "namespaces");

    assert_int_equal(json_integer_value(at(limits, "memory", "limit")), 1048576);
    assert_int_equal(json_integer_value(at(limits, "cpu", "quota")), 200000);
    assert_int_equal(json_integer_value(at(limits, "pids", "limit")), 7);
    assert_int_equal(json_integer_value(at(limits, "blockIO", "weight")), 500);
    assert_true(json_is_true(at(json, "root", "readonly")));
    assert_int_equal(json_array_size(namespaces), 5); /* no network of its own */
    json_decref(json);
}

static void test_volumes(void **state)
{
    static const struct {
        const char *flags, *why;
    } bad[] = {{"{\"volume\":[\"x\"]}", "is not of the form"},
               {"{\"volume\":[\":/x\"]}", "is not of the form"},
               {"{\"volume\":[\"/a:b\"]}", "is not of the form"},
               {"{\"volume\":[\"/a:/b:rx\"]}", "is not of the form"},
               {"{\"volume\":[\"..:/b\"]}", "is neither a path"},
               {"{\"volume\":[\"/nothing/there:/b\"]}", "No such file or directory"}};
    char why[256];
    json_t *json = make("{\"volume\":[\"/tmp:/data:ro\"]}", "{\"Cmd\":[\"a\"]}", 0, NULL);
    json_t *last =
        json_array_get(json_object_get(json, "mounts"), json_array_size(json_object_get(json, "mounts")) - 1);

    assert_string_equal(json_string_value(json_object_get(last, "destination")), "/data");
    assert_true(has(json_object_get(last, "options"), "ro") &&
                has(json_object_get(last, "options"), "nodev"));
    json_decref(json);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_null(make(bad[i].flags, "{\"Cmd\":[\"a\"]}", 0, why));
        assert_non_null(strstr(why, bad[i].why));
    }
}

static void test_stop_signals(void **state)
{
    static const struct {
        const char *image;
        int number;
    } cases[] = {{"{}", 15},
                 {"{\"StopSignal\":\"SIGQUIT\"}", 3},
                 {"{\"StopSignal\":\"USR1\"}", 10},
                 {"{\"StopSignal\":\"9\"}", 9},
                 {"{\"StopSignal\":\"SIGRTMIN+3\"}", 37},
                 {"{\"StopSignal\":\"SIGRTMIN+99\"}", 15},
                 {"{\"StopSignal\":\"900\"}", 15},
                 {"{\"StopSignal\":7}", 15}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        json_t *image = json_loads(cases[i].image, 0, NULL);
        assert_int_equal(bundle_stop_signal(image), cases[i].number);
        json_decref(image);
    }
}

static void write_file(int root, const char *name, const char *text)
{
    cleanup_close int fd = openat(root, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static void test_users(void **state)
{
    char path[] = "/tmp/tabique-bundle-XXXXXX";
    struct bundle_user user;

    assert_non_null(mkdtemp(path));
    cleanup_close int root = open(path, O_RDONLY | O_DIRECTORY);
    /* An image may have no such files, or have them lead out. */
    assert_int_equal(bundle_find_user(root, NULL, &user, NULL), 0);
    assert_true(user.uid == 0 && strcmp(user.home, "/root") == 0);
    assert_int_equal(bundle_find_user(root, "daemon", &user, NULL), -EINVAL);
    assert_int_equal(mkdirat(root, "etc", 0755), 0);
    assert_int_equal(symlinkat("/etc/passwd", root, "etc/passwd"), 0);
    assert_int_equal(bundle_find_user(root, "daemon", &user, NULL), -EINVAL);
    unlinkat(root, "etc/passwd", 0);
    write_file(root, "etc/passwd",
               "short\nweb:x:1000:1001::/home/web:/bin/sh\nbad:x:y:z::/:\nbig:x:4294967295:1::/:\n");
    write_file(root, "etc/group", "web:x:1001:\nlogs:x:1002:a,web,b\nother:x:1003:webb\n");
    assert_int_equal(bundle_find_user(root, "web", &user, NULL), 0);
    assert_true(user.uid == 1000 && user.gid == 1001 && user.n_gids == 2 && user.gids[1] == 1002);
    assert_int_equal(bundle_find_user(root, "1000:logs", &user, NULL), 0);
    assert_true(user.uid == 1000 && user.gid == 1002 && user.n_gids == 0);
    assert_int_equal(bundle_find_user(root, "7:8", &user, NULL), 0);
    assert_true(user.uid == 7 && user.gid == 8);
    static const char *const bad[] = {"bad", "big",         "nobody",        "web:nogroup",
                                      "-1",  "99999999999", "web:4294967295"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(bundle_find_user(root, bad[i], &user, NULL), -EINVAL);
    assert_int_equal(home_remove_tree(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_capabilities), cmocka_unit_test(test_walls),
        cmocka_unit_test(test_limits),       cmocka_unit_test(test_volumes),
        cmocka_unit_test(test_users),        cmocka_unit_test(test_stop_signals),
    };
    return cmocka_run_group_tests_name("guest/bundle", tests, NULL, NULL);
}
