/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a VM around an engine that executes nothing: a script of events takes the place of its vCPUs.
 * This file brings its own engine table instead of engine.c's.
 */
#include "boot_images.h"

#include "base/bytes.h"
#include "base/error.h"
#include "device/guest_memory.h"
#include "device/watchdog.h"
#include "engine/engine.h"
#include "machine/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* What the guest "does" each time that it runs; then nothing more. */
struct step {
    enum machine_event event;
    int code;
};

static struct fake {
    struct engine engine;
    struct engine_config config;
    const struct step *script;
    int creates, destroys, resumes, resets, loads;
    bool running, fail_create, fail_resume;
    struct cpu_state entry;
    uint8_t *loaded; /* host address of the kernel's first byte */
    bool kernel_was_there, scribble_survived;
    pthread_t vcpu;
    bool vcpu_started;
    int message; /* to be sent by the supervisor instead of an event */
} fake;

/* Of the control channel: the supervisor's, the VM's. */
static int control[2];

static int fake_create(struct engine **out, const struct engine_config *config, struct error **err);
static void fake_destroy(struct engine *engine)
{
    if (fake.vcpu_started)
        pthread_join(fake.vcpu, NULL);
    fake.vcpu_started = false;
    fake.destroys++;
}

static void send_message(enum vm_message_type type)
{
    struct vm_message m = {.type = type};

    assert_int_equal(vm_message_send(control[0], &m), 0);
}

static void *run_step(void *unused)
{
    if (fake.message < 0)
        return NULL;
    if (fake.message)
        send_message((enum vm_message_type)fake.message);
    else
        fake.config.event(fake.config.opaque, fake.script->event, fake.script->code);
    fake.script++;
    return NULL;
}

static int fake_resume(struct engine *engine, struct error **err)
{
    assert_false(fake.running);
    fake.resumes++;
    if (fake.fail_resume)
        return error_set(err, EIO, "no vCPU wants to run");
    fake.running = true;
    uint8_t *kernel = guest_memory_at(fake.config.memory, TEST_ELF_ADDRESS, 1);
    fake.kernel_was_there = *kernel == 0xcc;
    /* The guest overwrites its kernel and some memory that nothing is loaded to. */
    *kernel = 0;
    uint8_t *scribble = guest_memory_at(fake.config.memory, 8 << 20, 1);
    fake.scribble_survived = *scribble;
    *scribble = 1;
    if (fake.vcpu_started)
        pthread_join(fake.vcpu, NULL);
    fake.vcpu_started = pthread_create(&fake.vcpu, NULL, run_step, NULL) == 0;
    return 0;
}

static void fake_pause(struct engine *engine)
{
    assert_true(fake.running);
    fake.running = false;
}

static int fake_reset(struct engine *engine, struct error **err)
{
    assert_false(fake.running);
    fake.resets++;
    return 0;
}

static int fake_set_state(struct engine *engine, unsigned cpu, const struct cpu_state *state,
                          struct error **err)
{
    assert_int_equal(cpu, 0);
    fake.loads++;
    fake.entry = *state;
    return 0;
}

static void fake_irq_set(struct engine *engine, unsigned gsi, bool level)
{
}

static void fake_msi_send(struct engine *engine, uint64_t address, uint32_t data)
{
}

static const char *fake_failure(struct engine *engine)
{
    return "the oil has run out";
}

static const struct engine_class fake_class = {
    .name = "fake",
    .create = fake_create,
    .destroy = fake_destroy,
    .resume = fake_resume,
    .pause = fake_pause,
    .reset = fake_reset,
    .set_state = fake_set_state,
    .irq_set = fake_irq_set,
    .msi_send = fake_msi_send,
    .failure = fake_failure,
};

static int fake_create(struct engine **out, const struct engine_config *config, struct error **err)
{
    fake.creates++;
    if (fake.fail_create)
        return error_set(err, ENODEV, "not today");
    fake.engine.class = &fake_class;
    fake.config = *config;
    *out = &fake.engine;
    return 0;
}

const struct engine_class *engine_find(const char *name, struct error **err)
{
    return &fake_class;
}

static char kernel_path[] = "/tmp/tabique-test-XXXXXX";
static struct vm_config config;

static int setup(void **state)
{
    struct test_image image;
    static char path[sizeof(kernel_path)];

    memset(&fake, 0, sizeof(fake));
    memcpy(path, kernel_path, sizeof(path));
    test_elf(&image, true, true);
    int fd = mkstemp(path);
    if (fd < 0 || write(fd, image.data, image.size) != (ssize_t)image.size)
        return -1;
    close(fd);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
        return -1;
    config = (struct vm_config){.kernel = path,
                                .memory = 16 << 20,
                                .cpus = 2,
                                .append = "hello",
                                .console_fd = -1,
                                .control_fd = control[1]};
    return 0;
}

static int teardown(void **state)
{
    unlink(config.kernel);
    if (control[0] >= 0)
        close(control[0]);
    close(control[1]);
    return 0;
}

/* As the VM process does. */
static int open_and_serve(enum vm_end *end, int *status, struct error **err)
{
    struct vm *vm = NULL;

    *end = VM_END_FAILED;
    *status = VM_EXIT_FAILED;
    int rc = vm_open(&vm, &config, err);
    assert_int_equal(fake.creates, 0); /* the engine comes after the process's rights have gone */
    if (rc == 0)
        rc = vm_serve(vm, end, status, err);
    vm_free(vm);
    return rc;
}

static int run(const struct step *script, enum vm_end expected_end, int expected_status)
{
    cleanup_error struct error *err = NULL;
    enum vm_end end;
    int status = -1;

    fake.script = script;
    fake.creates = fake.destroys = 0;
    int rc = open_and_serve(&end, &status, &err);
    assert_int_equal(end, expected_end);
    assert_int_equal(status, expected_status);
    assert_int_equal(fake.creates, fake.destroys);
    return rc;
}

static void test_power_off(void **state)
{
    static const struct step script[] = {{MACHINE_POWEROFF, 0}};

    assert_int_equal(run(script, VM_END_POWEROFF, VM_EXIT_POWEROFF), 0);
    assert_int_equal(fake.loads, 1);
    assert_true(fake.kernel_was_there);
    assert_int_equal(fake.entry.rip, TEST_ELF_ADDRESS + 0x20);
    assert_int_equal(fake.config.cpus, 2);
}

static void test_debug_exit_gives_the_guests_code(void **state)
{
    static const struct step zero[] = {{MACHINE_DEBUG_EXIT, 0}}, passed[] = {{MACHINE_DEBUG_EXIT, 0x10}},
                             large[] = {{MACHINE_DEBUG_EXIT, (int)0xffffffff}};

    assert_int_equal(run(zero, VM_END_DEBUG_EXIT, 1), 0);
    assert_int_equal(run(passed, VM_END_DEBUG_EXIT, 0x21), 0);
    assert_int_equal(run(large, VM_END_DEBUG_EXIT, 0xff), 0);
}

static void test_panic(void **state)
{
    static const struct step script[] = {{MACHINE_PANIC, 0}};

    assert_int_equal(run(script, VM_END_PANIC, VM_EXIT_PANIC), 0);
}

static void test_engine_failure_is_told(void **state)
{
    static const struct step script[] = {{MACHINE_ENGINE_FAILED, 0}};
    cleanup_error struct error *err = NULL;
    enum vm_end end;
    int status = 0;

    fake.script = script;
    assert_true(open_and_serve(&end, &status, &err) < 0);
    assert_int_equal(end, VM_END_ENGINE);
    assert_int_equal(status, VM_EXIT_ENGINE);
    assert_string_equal(error_message(err), "engine fake: the oil has run out");
}

static void test_reset_boots_again_from_clean_memory(void **state)
{
    static const struct step script[] = {{MACHINE_RESET, 0}, {MACHINE_RESET, 0}, {MACHINE_POWEROFF, 0}};

    assert_int_equal(run(script, VM_END_POWEROFF, VM_EXIT_POWEROFF), 0);
    assert_int_equal(fake.resets, 2);
    assert_int_equal(fake.loads, 3);
    assert_int_equal(fake.resumes, 3);
    assert_true(fake.kernel_was_there);
    assert_false(fake.scribble_survived);
}

static void test_reset_needs_no_path(void **state)
{
    static const struct step script[] = {{MACHINE_RESET, 0}, {MACHINE_POWEROFF, 0}};
    char path[64];

    /* A pipe can be read only once. */
    int ends[2];
    struct test_image image;
    test_elf(&image, true, true);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], image.data, image.size), image.size);
    close(ends[1]);
    snprintf(path, sizeof(path), "/dev/fd/%d", ends[0]);
    const char *file = config.kernel;
    config.kernel = path;
    int rc = run(script, VM_END_POWEROFF, VM_EXIT_POWEROFF);
    config.kernel = file;
    close(ends[0]);
    assert_int_equal(rc, 0);
    assert_int_equal(fake.loads, 2);
}

/* The next message that the VM sent; it must be one of this type. */
static struct vm_message expect_message(enum vm_message_type type)
{
    struct vm_message m;

    assert_int_equal(vm_message_receive(control[0], true, &m), 0);
    assert_int_equal(m.type, type);
    return m;
}

static void test_ready_and_restarts_are_told(void **state)
{
    static const struct step script[] = {{MACHINE_RESET, 0}, {MACHINE_POWEROFF, 0}};

    assert_int_equal(run(script, VM_END_POWEROFF, VM_EXIT_POWEROFF), 0);
    assert_string_equal(expect_message(VM_READY).text, "fake");
    assert_int_equal(expect_message(VM_RESTARTED).stats[VM_STAT_RESTARTS], 1);
}

/* Told before the restart that it leads to. */
static void test_watchdog_restarts(void **state)
{
    static const struct step script[] = {{MACHINE_WATCHDOG, WATCHDOG_RESET}, {MACHINE_POWEROFF, 0}};

    assert_int_equal(run(script, VM_END_POWEROFF, VM_EXIT_POWEROFF), 0);
    assert_int_equal(fake.resets, 1);
    expect_message(VM_READY);
    expect_message(VM_WATCHDOG);
    expect_message(VM_RESTARTED);
}

static void test_watchdog_switches_off_or_only_tells(void **state)
{
    static const struct step poweroff[] = {{MACHINE_WATCHDOG, WATCHDOG_POWEROFF}},
                             none[] = {{MACHINE_WATCHDOG, WATCHDOG_NONE}, {MACHINE_POWEROFF, 0}};

    assert_int_equal(run(poweroff, VM_END_WATCHDOG, VM_EXIT_WATCHDOG), 0);
    expect_message(VM_READY);
    assert_int_equal(run(none, VM_END_POWEROFF, VM_EXIT_POWEROFF), 0);
    expect_message(VM_READY);
    expect_message(VM_WATCHDOG);
    assert_int_equal(fake.resets, 0);
}

static void test_crash_kernel_runs_on(void **state)
{
    static const struct step script[] = {{MACHINE_CRASH_LOADED, 0}, {MACHINE_PANIC, 0}};

    assert_int_equal(run(script, VM_END_PANIC, VM_EXIT_PANIC), 0);
    assert_int_equal(fake.resets, 0);
    expect_message(VM_READY);
    expect_message(VM_CRASH_LOADED);
}

/* What a VM process that its guest has taken over says goes to a terminal and into JSON. */
static void test_texts(void **state)
{
    struct vm_message m = {.type = VM_READY,
                           .text = "\x1b[2J \xc2\x9b"
                                   "2J"},
                      out;

    assert_int_equal(vm_message_parse(&m, sizeof(m), true, &out), 0);
    assert_string_equal(out.text, "?[2J ??2J");
}

static void test_balloon(void **state)
{
    struct vm_message m = {.type = VM_SET_BALLOON, .value = 4 << 20};

    config.balloon = 1 << 20;
    fake.message = -1;
    send_message(VM_STATS_WANTED);
    assert_int_equal(vm_message_send(control[0], &m), 0);
    send_message(VM_STATS_WANTED);
    send_message(VM_QUIT);
    assert_int_equal(run(NULL, VM_END_QUIT, VM_EXIT_FAILED), 0);
    expect_message(VM_READY);
    assert_int_equal(expect_message(VM_STATS).stats[VM_STAT_BALLOON_TARGET], 1 << 20);
    /* No driver in this guest has the device in use: it says so, and nothing changes. */
    struct vm_message answer = expect_message(VM_BALLOON);
    assert_int_equal(answer.stats[VM_STAT_BALLOON_DRIVER], 0);
    assert_int_equal(answer.stats[VM_STAT_BALLOON_TARGET], 1 << 20);
    assert_int_equal(expect_message(VM_STATS).stats[VM_STAT_BALLOON_TARGET], 1 << 20);
}

static void test_quit(void **state)
{
    fake.message = VM_QUIT;
    assert_int_equal(run(NULL, VM_END_QUIT, VM_EXIT_FAILED), 0);
}

static void test_no_supervisor_is_an_end(void **state)
{
    close(control[0]);
    control[0] = -1;
    fake.message = -1;
    assert_int_equal(run(NULL, VM_END_QUIT, VM_EXIT_FAILED), 0);
}

static void test_nonsense_of_the_supervisor_is_an_end(void **state)
{
    assert_int_equal(send(control[0], "x", 1, 0), 1);
    fake.message = -1;
    assert_int_equal(run(NULL, VM_END_QUIT, VM_EXIT_FAILED), 0);
}

static void test_paused_guest_does_not_run(void **state)
{
    fake.message = -1;
    send_message(VM_PAUSE);
    send_message(VM_STATS_WANTED);
    send_message(VM_QUIT);
    assert_int_equal(run(NULL, VM_END_QUIT, VM_EXIT_FAILED), 0);
    assert_int_equal(fake.resumes, 1);
    expect_message(VM_READY);
    expect_message(VM_PAUSED);
    expect_message(VM_STATS);
}

/* Each is answered in its turn, however fast the next one comes, and whether or not it changes anything. */
static void test_pauses_one_after_the_other(void **state)
{
    static const enum vm_message_type asked[] = {VM_PAUSE,  VM_RESUME, VM_RESUME, VM_PAUSE,
                                                 VM_RESUME, VM_PAUSE,  VM_PAUSE};

    fake.message = -1;
    for (unsigned i = 0; i < ARRAY_SIZE(asked); i++) {
        const struct vm_message m = {.type = asked[i], .value = 7 + i};
        assert_int_equal(vm_message_send(control[0], &m), 0);
    }
    send_message(VM_QUIT);
    assert_int_equal(run(NULL, VM_END_QUIT, VM_EXIT_FAILED), 0);
    expect_message(VM_READY);
    for (unsigned i = 0; i < ARRAY_SIZE(asked); i++)
        assert_int_equal(expect_message(asked[i] == VM_PAUSE ? VM_PAUSED : VM_RESUMED).value, 7 + i);
    assert_int_equal(fake.resumes, 4);
}

static void expect_error(const char *part, int expected_creates)
{
    cleanup_error struct error *err = NULL;
    enum vm_end end;
    int status = 0;

    assert_true(open_and_serve(&end, &status, &err) < 0);
    assert_int_equal(end, VM_END_FAILED);
    assert_int_equal(status, VM_EXIT_FAILED);
    if (!strstr(error_message(err), part))
        fail_msg("\"%s\" is not in \"%s\"", part, error_message(err));
    assert_int_equal(fake.creates, expected_creates);
    /* However early it fails, what was not opened here is not closed here. */
    for (int fd = 0; fd < 3; fd++)
        assert_true(fcntl(fd, F_GETFD) >= 0);
}

static void test_bad_configurations(void **state)
{
    const char *file = config.kernel;
    const char *modules[] = {"/nonexistent/module=with arguments"};

    config.cpus = 0;
    expect_error("choose --cpus from 1 to 8", 0);
    config.cpus = 9;
    expect_error("choose --cpus from 1 to 8", 0);
    config.cpus = 1;
    config.balloon = config.memory;
    expect_error("choose a --balloon below --memory", 0);
    config.balloon = 0;
    config.watchdog = "bark";
    expect_error("choose reset, poweroff or none", 0);
    config.watchdog = NULL;
    config.memory = 4097;
    expect_error("choose --memory from 1M", 0);
    config.memory = (16 << 20) + 1;
    expect_error("multiple of 4K", 0);
    config.memory = 16 << 20;
    config.kernel = "/nonexistent/kernel";
    expect_error("kernel '/nonexistent/kernel': No such file or directory", 0);
    config.kernel = "/tmp";
    expect_error("is a directory", 0);
    config.kernel = "/dev/null";
    expect_error("the file is empty", 1);
    fake.creates = 0;
    config.kernel = file;
    config.initrd = "/nonexistent/initrd";
    expect_error("initrd '/nonexistent/initrd': No such file", 0);
    config.initrd = NULL;
    config.modules = modules;
    config.n_modules = 1;
    expect_error("module '/nonexistent/module': No such file", 0);
}

static void test_initrd_larger_than_ram(void **state)
{
    char path[] = "/tmp/tabique-test-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, 17 << 20), 0);
    close(fd);
    config.initrd = path;
    expect_error("of 17 MiB does not fit into 16 MiB of RAM: choose a larger --memory", 1);
    unlink(path);
}

static void test_engine_that_does_not_start(void **state)
{
    fake.fail_create = true;
    expect_error("engine fake: not today", 1);
    fake.fail_create = false;
    fake.fail_resume = true;
    fake.creates = 0;
    expect_error("no vCPU wants to run", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_power_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_debug_exit_gives_the_guests_code, setup, teardown),
        cmocka_unit_test_setup_teardown(test_panic, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watchdog_restarts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watchdog_switches_off_or_only_tells, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crash_kernel_runs_on, setup, teardown),
        cmocka_unit_test_setup_teardown(test_engine_failure_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_boots_again_from_clean_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_needs_no_path, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ready_and_restarts_are_told, setup, teardown),
        cmocka_unit_test(test_texts),
        cmocka_unit_test_setup_teardown(test_balloon, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_supervisor_is_an_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nonsense_of_the_supervisor_is_an_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_paused_guest_does_not_run, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pauses_one_after_the_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_configurations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_initrd_larger_than_ram, setup, teardown),
        cmocka_unit_test_setup_teardown(test_engine_that_does_not_start, setup, teardown),
    };

    return cmocka_run_group_tests_name("vm", tests, NULL, NULL);
}
