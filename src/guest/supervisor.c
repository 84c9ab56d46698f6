/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The supervisor: starts a guest's VM process, watches over it, ends it when asked, starts it again by its
 * policy, and writes down what happens. It reads nothing of the guest but console bytes, which mean nothing
 * here, and checked messages. One thread, so no locks; it holds the guest's lock as long as it lives.
 */
#include "guest/supervisor.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "guest/container_process.h"
#include "guest/lock.h"
#include "guest/supervisor_priv.h"
#include "host/confine.h"
#include "host/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#define MS 1000000ull

/* How long a VM process may take for an orderly end before it is killed. */
#define QUIT_NS (3000 * MS)
/* Guests that are just booting, or are slow, may miss the first press. */
#define BUTTON_AGAIN_NS (3000 * MS)
/* How long who reads the console may take for nothing at all, once the guest has ended. */
#define DRAIN_NS (1000 * MS)

/* ---- writing down ---- */

/* A registry that can't be written (a full disk) must not end a guest that runs: what is lost is an event,
 * and the lock still tells the truth. */
static void record(struct supervisor *s, const char *type, json_t *details)
{
    char *text = details ? json_dumps(details, JSON_COMPACT) : NULL;

    guest_record(s->guest, type, text, NULL);
    free(text);
    json_decref(details);
}

int supervisor_configure(struct supervisor *s, json_t *changes)
{
    if (json_object_update(s->config.json, changes) < 0)
        return -ENOMEM;
    char *text = json_dumps(s->config.json, JSON_COMPACT);
    if (!text)
        return -ENOMEM;
    free(s->guest->row.config);
    s->guest->row.config = text;
    return guest_record(s->guest, "updated", NULL, NULL);
}

static void set_text(char **to, const char *text)
{
    free(*to);
    *to = strdup(text);
}

static void fail(struct supervisor *s, struct error *err)
{
    if (s->failure)
        error_free(err);
    else
        s->failure = err;
}

/* ---- starting ---- */

static void on_control(void *opaque, uint32_t events);

static int start_container(struct supervisor *s, struct error **err)
{
    const struct container_process config = {
        .guest = s->guest,
        .flags = s->config.json,
        .net = s->config.vm.n_nets ? &s->config.vm.nets[0].config : NULL,
        .columns = s->config.vm.columns,
        .rows = s->config.vm.rows,
    };

    return container_process_start(&s->vm, &config, err);
}

static int start_vm(struct supervisor *s, struct error **err)
{
    int inherited[] = {lock_share(s->guest->directory), s->vsock_fd, -1};

    if (inherited[0] < 0)
        return error_set_errno(err, -inherited[0], "guest's lock");
    s->reported = false;
    s->crash[0] = s->confinement[0] = '\0';
    s->started_at = 0;
    s->pauses_answered = s->pauses_asked;
    s->phase = PHASE_STARTING;
    s->config.vm.inherited = inherited;
    s->config.vm.n_inherited = ARRAY_SIZE(inherited);
    int rc = s->config.container ? start_container(s, err) : supervisor_vsock_begin(s, &inherited[2], err);
    if (rc == 0 && !s->config.container)
        rc = vm_process_start(&s->vm, &s->config.vm, err);
    close(inherited[0]);
    cleanup_close_fn(&inherited[2]);
    if (rc)
        return rc;
    rc = loop_watch_add(s->loop, s->vm.control_fd, EPOLLIN, on_control, s, &s->control_watch);
    if (rc)
        return error_set_errno(err, -rc, "control channel");
    s->guest->row.vm = s->vm.pid;
    return 0;
}

static void tell_ready(struct supervisor *s)
{
    if (s->ready_fd < 0)
        return;
    if (write(s->ready_fd, "+", 1) < 0) {
        /* Who waited is gone; the guest runs all the same. */
    }
    s->ready_fd = -1;
}

static void on_ready(struct supervisor *s, const struct vm_message *m)
{
    struct error *err = NULL;
    bool first = !s->guest->row.restarts;
    int rc = 0;

    if (s->phase != PHASE_STARTING)
        return;
    s->phase = PHASE_RUNNING;
    s->started_at = loop_now();
    s->guest->row.state = GUEST_RUNNING;
    s->guest->row.started = registry_now();
    set_text(&s->guest->row.engine, m->text);
    set_text(&s->guest->row.reason, "");
    if (first) {
        char *details = NULL;
        json_t *json = json_pack("{s:s, s:s}", "engine", m->text, "confinement", s->confinement);

        details = json_dumps(json, JSON_COMPACT);
        json_decref(json);
        rc = guest_record(s->guest, "started", details, &err);
        free(details);
        if (rc == 0)
            rc = supervisor_console_open(s, &err);
    } else {
        record(s, "started",
               json_pack("{s:s, s:I}", "engine", m->text, "restarts", (json_int_t)s->guest->row.restarts));
    }
    if (rc == 0)
        rc = supervisor_console_begin(s, &err);
    if (rc) {
        fail(s, err);
        supervisor_kill(s);
        return;
    }
    if (s->ending == ENDING_STOP)
        vm_process_tell(&s->vm, VM_POWER_BUTTON);
    tell_ready(s);
}

/* ---- ending ---- */

static void quit(struct supervisor *s)
{
    if (s->ending >= ENDING_QUIT)
        return;
    s->ending = ENDING_QUIT;
    if (!s->vm.pid)
        return;
    /* Paused or not: the VM process's loop runs. */
    loop_timer_arm(s->limit, vm_process_tell(&s->vm, VM_QUIT) == 0 ? loop_now() + QUIT_NS : 0);
}

void supervisor_leave(struct supervisor *s, int status)
{
    if (s->left)
        return;
    s->left = status;
    /* Keys of a person; other signals come when the session or the host ends. */
    s->guest->row.by_hand |= status == GUEST_EXIT_LEFT || status == GUEST_EXIT_SIGNAL + SIGINT;
    quit(s);
    if (s->phase == PHASE_WAITING)
        loop_timer_arm(s->limit, 0);
}

void supervisor_kill(struct supervisor *s)
{
    s->ending = ENDING_KILL;
    if (s->vm.pid)
        kill(s->vm.pid, SIGKILL);
    if (s->phase == PHASE_WAITING || s->phase == PHASE_DRAINING)
        loop_timer_arm(s->limit, 0);
}

int supervisor_ask_pause(struct supervisor *s, bool pause)
{
    const struct vm_message m = {.type = pause ? VM_PAUSE : VM_RESUME, .value = s->pauses_asked + 1};
    int rc = -EAGAIN;

    if (s->pauses_asked - s->pauses_answered < SUPERVISOR_PAUSES)
        rc = vm_message_send(s->vm.control_fd, &m);
    if (rc == 0)
        s->pauses[++s->pauses_asked % SUPERVISOR_PAUSES] = NULL;
    return rc;
}

void supervisor_stop(struct supervisor *s, uint64_t timeout_ms)
{
    uint64_t until = loop_now() + timeout_ms * MS;

    if (s->phase == PHASE_WAITING) {
        s->ending = s->ending ? s->ending : ENDING_STOP;
        loop_timer_arm(s->limit, 0);
        return;
    }
    if (!s->ending) {
        s->ending = ENDING_STOP;
        record(s, "stopping", json_pack("{s:I}", "timeout-ms", (json_int_t)timeout_ms));
        /* A guest that stands still hears nothing. */
        if (s->vm.pid)
            supervisor_ask_pause(s, false);
        loop_timer_arm(s->button, 0);
    }
    /* Asked again with less patience, that counts. */
    if (!s->stop_until || until < s->stop_until) {
        s->stop_until = until;
        loop_timer_arm(s->stop_limit, until);
    }
}

static void on_button(void *opaque)
{
    struct supervisor *s = opaque;

    if (s->ending != ENDING_STOP || !s->vm.pid)
        return;
    vm_process_tell(&s->vm, VM_POWER_BUTTON);
    loop_timer_arm(s->button, loop_now() + BUTTON_AGAIN_NS);
}

static void on_stop_limit(void *opaque)
{
    quit(opaque);
}

/* What the end was, for the row and the event. */
static void describe_end(struct supervisor *s, enum guest_state *state, int *status, const char **how)
{
    *state = GUEST_STOPPED;
    *status = s->end.status;
    *how = vm_end_name((enum vm_end)s->end.end);
    if (s->reported && s->end.end != VM_END_QUIT) {
        if (s->end.end == VM_END_FAILED || s->end.end == VM_END_ENGINE)
            *state = GUEST_FAILED;
    } else if (s->left) {
        *status = s->left;
        *how = s->left == GUEST_EXIT_LEFT ? "left" : "signal";
    } else if (s->ending >= ENDING_QUIT) {
        *status = GUEST_EXIT_SIGNAL + SIGKILL;
        *how = "killed";
    } else {
        *state = GUEST_CRASHED;
        *how = "crashed";
    }
}

static void write_end(struct supervisor *s, bool again, uint64_t delay_ns)
{
    enum guest_state state;
    const char *how;
    int status;
    struct guest_row *row = &s->guest->row;

    describe_end(s, &state, &status, &how);
    const char *text = s->crash[0] ? s->crash : s->end.text;
    row->state = again ? GUEST_RESTARTING : state;
    row->exit_status = status;
    row->ended = registry_now();
    row->vm = 0;
    if (!again)
        row->supervisor = 0;
    set_text(&row->reason, text[0] ? text : how);
    json_t *details = json_pack("{s:s, s:i}", "how", how, "exit-status", status);
    if (text[0])
        json_object_set_new(details, "error", json_string(text));
    if (again)
        json_object_set_new(details, "restart-in-ms", json_integer((json_int_t)(delay_ns / MS)));
    record(s, state == GUEST_CRASHED ? "crashed" : "ended", details);
}

/* Nothing of the VM is left: that was its end, or it starts again. */
static void finish_run(struct supervisor *s)
{
    enum guest_state state;
    const char *how;
    uint64_t delay_ns = 0;
    struct policy_end end = {.ran_ns = s->started_at ? loop_now() - s->started_at : 0};

    supervisor_console_end(s);
    cleanup_close_fn(&s->vm.console_fd);
    s->vm.console_fd = -1;
    describe_end(s, &state, &end.exit_status, &how);
    if (end.ran_ns >= POLICY_LONG_RUN_NS)
        s->restarts_in_a_row = 0;
    end.in_a_row = s->restarts_in_a_row;
    /* What can't even be started the first time is to be put right by a person. */
    bool ran = s->started_at || s->guest->row.restarts;
    bool again =
        ran && !s->ending && !s->left && !s->failure && policy_restarts(&s->config.restart, &end, &delay_ns);
    write_end(s, again, delay_ns);
    if (!again) {
        s->phase = PHASE_DONE;
        loop_stop(s->loop, 0);
        return;
    }
    s->phase = PHASE_WAITING;
    loop_timer_arm(s->limit, loop_now() + delay_ns);
}

/* The process is gone, or no longer says anything that makes sense: it goes now. */
static void on_vm_gone(struct supervisor *s, bool nonsense)
{
    loop_watch_remove(steal_ptr(s->control_watch));
    supervisor_vsock_end(s);
    /* The console's end is still to be read. */
    int console_fd = steal_fd(s->vm.console_fd);
    int status = vm_process_end(&s->vm);
    supervisor_snapshot_end(s);
    supervisor_freeze_end(s);
    s->vm.console_fd = console_fd;
    /* What was killed could not clear away what it had made. */
    if (s->config.container)
        container_process_clean(s->guest->home, s->guest->row.name, NULL);
    if (!s->reported) {
        const char *what = s->config.container ? "the container's process" : "the virtual machine's process";
        const char *violation = confine_violation(status);

        s->end = (struct vm_message){.type = VM_ENDED, .end = VM_END_FAILED, .status = VM_EXIT_FAILED};
        if (WIFSIGNALED(status))
            s->end.status = GUEST_EXIT_SIGNAL + WTERMSIG(status);
        if (nonsense)
            snprintf(s->crash, sizeof(s->crash), "%s sent what it never would", what);
        else if (!s->ending && !s->left)
            snprintf(s->crash, sizeof(s->crash), "%s ended by %s %d%s%s", what,
                     WIFSIGNALED(status) ? "signal" : "itself with status",
                     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), violation ? ": " : "",
                     violation ? violation : "");
    }
    s->phase = PHASE_DRAINING;
    loop_timer_arm(s->limit, !s->console || s->console_ended ? 0 : loop_now() + DRAIN_NS);
}

/* What happens in the guest and does not end it; `what`, if not NULL, for who is at the terminal. The
 * terminal is raw while the guest has it. */
static void note(struct supervisor *s, const char *type, const char *what)
{
    const char *end = isatty(STDERR_FILENO) ? "\r\n" : "\n";

    /* Else one guest could keep the registry from all others, and have their events forgotten. */
    if (!policy_may_tell(&s->telling, loop_now()))
        return;
    record(s, type,
           s->telling.left_out ? json_pack("{s:I}", "left-out", (json_int_t)s->telling.left_out) : NULL);
    s->telling.left_out = 0;
    if (s->foreground && what)
        fprintf(stderr, "%stabique: %s%s", isatty(STDERR_FILENO) ? end : "", what, end);
}

static void on_paused(struct supervisor *s, const struct vm_message *m)
{
    enum guest_state state = m->type == VM_PAUSED ? GUEST_PAUSED : GUEST_RUNNING;

    if (s->phase != PHASE_RUNNING || m->value <= s->pauses_answered || m->value > s->pauses_asked)
        return;
    if (s->guest->row.state != state) {
        s->guest->row.state = state;
        record(s, state == GUEST_PAUSED ? "paused" : "resumed", NULL);
    }
    /* It takes them in turn: if an answer was lost, when nobody read it in time, a later one tells as much.
     */
    while (s->pauses_answered < m->value)
        supervisor_control_paused(s, ++s->pauses_answered);
}

static void on_message(struct supervisor *s, const struct vm_message *m)
{
    switch ((enum vm_message_type)m->type) {
    case VM_READY:
        on_ready(s, m);
        break;
    case VM_CONFINED:
        /* The first is said before anything of the guest's is read. */
        if (!s->confinement[0])
            snprintf(s->confinement, sizeof(s->confinement), "%.255s", m->text);
        break;
    case VM_CRASH_LOADED:
        note(s, "panicked", "the guest has panicked; its crash kernel takes over");
        break;
    case VM_WATCHDOG:
        note(s, "watchdog", "the guest's watchdog has expired");
        break;
    case VM_LINK_DOWN:
        note(s, "link-down", "a network of the guest is gone");
        break;
    case VM_RESTARTED:
        note(s, "reset", NULL);
        break;
    case VM_PAUSED:
    case VM_RESUMED:
        on_paused(s, m);
        break;
    case VM_STATS:
        supervisor_control_stats(s, m);
        break;
    case VM_PROFILE:
        supervisor_control_profile(s, m);
        break;
    case VM_BALLOON:
        supervisor_control_balloon(s, m);
        break;
    case VM_DISK_SWITCHED:
    case VM_DISK_DONE:
        supervisor_snapshot_message(s, m);
        break;
    case VM_FROZEN:
    case VM_THAWED:
        supervisor_freeze_message(s, m);
        break;
    case VM_DISK_RESIZED:
        supervisor_control_resized(s, m);
        break;
    case VM_ENDED:
        if (!s->reported)
            s->end = *m;
        s->reported = true;
        break;
    default: /* vm_message_receive lets no other through */
        break;
    }
}

static void on_control(void *opaque, uint32_t events)
{
    struct supervisor *s = opaque;
    struct vm_message m;
    int rc = vm_message_receive(s->vm.control_fd, true, &m);

    if (rc == 0)
        on_message(s, &m);
    else if (rc != -EAGAIN)
        on_vm_gone(s, rc == -EPROTO);
}

static void start_again(struct supervisor *s)
{
    struct error *err = NULL;

    if (s->ending || s->left) {
        s->guest->row.state = GUEST_STOPPED;
        s->guest->row.supervisor = 0;
        if (s->left)
            s->guest->row.exit_status = s->left;
        record(s, "ended",
               json_pack("{s:s, s:i}", "how", "stopped", "exit-status", s->guest->row.exit_status));
        s->phase = PHASE_DONE;
        loop_stop(s->loop, 0);
        return;
    }
    s->guest->row.restarts++;
    s->restarts_in_a_row++;
    s->guest->row.state = GUEST_STARTING;
    if (start_vm(s, &err)) {
        fail(s, err);
        loop_stop(s->loop, 0);
        return;
    }
    record(s, "restarting", json_pack("{s:I}", "restarts", (json_int_t)s->guest->row.restarts));
}

static void on_limit(void *opaque)
{
    struct supervisor *s = opaque;

    if (s->phase == PHASE_WAITING)
        start_again(s);
    else if (s->phase == PHASE_DRAINING)
        finish_run(s);
    else if (s->vm.pid)
        kill(s->vm.pid, SIGKILL);
}

/* ---- the whole ---- */

static int start(struct supervisor *s, struct error **err)
{
    int rc = loop_create(&s->loop, err);

    if (rc)
        return rc;
    s->limit = loop_timer_new(s->loop, on_limit, s);
    s->stop_limit = loop_timer_new(s->loop, on_stop_limit, s);
    s->button = loop_timer_new(s->loop, on_button, s);
    if (!s->limit || !s->stop_limit || !s->button)
        return error_set_errno(err, ENOMEM, "supervisor");
    rc = guest_config_parse(&s->config, s->guest->row.config, s->guest->row.name, err);
    if (rc == 0)
        rc = supervisor_hold_signals(s, err);
    if (rc == 0)
        rc = supervisor_control_open(s, err);
    if (rc == 0)
        rc = supervisor_vsock_open(s, err);
    if (rc)
        return rc;
    if (s->foreground)
        terminal_size(STDOUT_FILENO, &s->config.vm.columns, &s->config.vm.rows);
    s->guest->row.supervisor = getpid();
    rc = start_vm(s, err);
    /* Now its processes are known: from here on it can be killed by name, whatever happens to us. */
    return rc ? rc : guest_record(s->guest, NULL, NULL, err);
}

/* What the caller is told. */
static int result(struct supervisor *s, int *status, struct error **err)
{
    if (s->failure) {
        int rc = error_set(err, error_errno(s->failure), "%s", error_message(s->failure));
        *status = VM_EXIT_FAILED;
        return rc;
    }
    *status = s->guest->row.exit_status;
    const char *text = s->crash[0] ? s->crash : s->reported ? s->end.text : "";
    return !s->left && text[0] ? error_set(err, EIO, "%s", text) : 0;
}

/* If it still runs: something here has failed. */
static void abandon_vm(struct supervisor *s)
{
    loop_watch_remove(steal_ptr(s->control_watch));
    supervisor_console_end(s);
    vm_process_end(&s->vm);
    supervisor_snapshot_end(s);
}

static void stop(struct supervisor *s)
{
    supervisor_console_close(s);
    loop_timer_free(s->limit);
    loop_timer_free(s->stop_limit);
    loop_timer_free(s->button);
    supervisor_vsock_close(s);
    supervisor_release_signals(s);
    guest_config_clear(&s->config);
    error_free(s->failure);
    loop_free(s->loop);
}

/* A guest that is not to stay goes before anybody can see it ended. */
static void let_go(struct supervisor *s, bool started)
{
    struct guest *guest = s->guest;

    if (guest_state_is_live(guest->row.state)) {
        /* The supervisor itself could not go on. */
        guest->row.state = GUEST_FAILED;
        guest->row.supervisor = guest->row.vm = 0;
        guest->row.ended = registry_now();
        set_text(&guest->row.reason, s->failure ? error_message(s->failure) : "could not be started");
        guest_record(guest, "failed", NULL, NULL);
    }
    if (guest->row.transient || (s->fresh && !started))
        guest_remove(guest, NULL);
}

int supervise(struct guest *guest, const struct supervision *how, int *status, struct error **err)
{
    struct supervisor s = {
        .guest = guest,
        .fresh = how->fresh,
        .foreground = how->foreground,
        .ready_fd = how->ready_fd,
        .vm = VM_PROCESS_NONE,
        .log = {.fd = -1},
        .signal_fd = -1,
        .listen_fd = -1,
        .vsock_fd = -1,
        .dial_fd = -1,
    };
    struct error *failed = NULL;
    bool started_before = guest->row.started != 0;

    if (start(&s, &failed))
        fail(&s, failed);
    else
        loop_run(s.loop);
    bool started = guest->row.started != 0;
    int early_signal = s.early_signal;
    abandon_vm(&s);
    int rc = result(&s, status, err);
    s.exit_status = *status;
    let_go(&s, started || started_before);
    supervisor_control_close(&s);
    stop(&s);
    guest_release(guest);
    if (early_signal) {
        raise(early_signal);
        *status = GUEST_EXIT_SIGNAL + early_signal; /* where its handler lets us live */
        return 0;
    }
    return rc;
}
