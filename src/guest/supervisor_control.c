/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The supervisor's control socket: requests and their answers (docs/control-protocol.md), and those who are
 * attached to the console. Part of the supervisor's one thread. Connections are freed in a timer of their
 * own, never in their stream's callbacks.
 */
#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "guest/container_process.h"
#include "guest/control_socket.h"
#include "guest/disk_update.h"
#include "guest/engine_stats.h"
#include "guest/supervisor_priv.h"
#include "host/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 128

/* Who is attached and reads nothing for so long holds the guest up no more. */
#define STALL_NS (5000 * 1000000ull)
/* At the end, for the last answers and output to be taken. */
#define CLOSE_WAIT_MS 500
/* A VM process's loop answers at once, on a busy host later; a command waits a little longer. */
#define VM_ANSWER_NS (8000 * 1000000ull)
#define VM_HANGS     "the guest's process does not answer; 'tabique kill' ends it"

struct connection {
    struct supervisor *supervisor;
    struct connection *next;
    int fd;
    struct stream *stream;
    char line[CONTROL_LINE_MAX]; /* a request, as far as it is there */
    size_t len;
    bool pauses;   /* the guest, as long as it is there */
    bool attached; /* everything is the console's from now on */
    bool ended;    /* to be freed */
    bool input_ended;
    bool waits_for_end, waits_for_snapshot, waits_for_freeze;
    bool freezes;          /* its pause: the guest's file systems are frozen with it */
    bool has_to_freeze;    /* else it is none */
    char freeze_note[160]; /* how that went */
    unsigned waits_for_pauses, waits_for_stats, waits_for_balloon, waits_for_profile,
        waits_for_resize;   /* so many answers */
    uint64_t stalled_since; /* 0: not */
    uint64_t answer_by;     /* the VM process, what it was asked the last time */
};

/* ---- answers ---- */

static void arm_reaper(struct supervisor *s, uint64_t when)
{
    if (when >= s->reaper_at)
        return;
    s->reaper_at = when;
    loop_timer_arm(s->reaper, when);
}

static void end_connection(struct connection *c)
{
    c->ended = true;
    arm_reaper(c->supervisor, 0);
}

static bool waits_for_vm(const struct connection *c)
{
    return c->waits_for_snapshot || c->waits_for_pauses || c->waits_for_stats || c->waits_for_balloon ||
           c->waits_for_profile || c->waits_for_resize || c->waits_for_freeze;
}

static bool waits(const struct connection *c)
{
    return c->waits_for_end || waits_for_vm(c);
}

static void wait_for(struct connection *c, uint64_t ns)
{
    c->answer_by = loop_now() + ns;
    arm_reaper(c->supervisor, c->answer_by);
}

void supervisor_control_wait(struct connection *who, uint64_t ns)
{
    wait_for(who, ns);
}

/* Takes `answer`. */
static void answer(struct connection *c, json_t *answer)
{
    char *text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
    size_t len = text ? strlen(text) : 0;

    json_decref(answer);
    /* One who asks and asks without reading answers has no use for another. */
    if (!text || stream_room(c->stream) <= len) {
        end_connection(c);
    } else {
        stream_write(c->stream, text, len);
        stream_write(c->stream, "\n", 1);
        if (c->input_ended && !waits(c))
            end_connection(c);
    }
    free(text);
}

static void answer_error(struct connection *c, const char *why)
{
    answer(c, json_pack("{s:b, s:s}", "ok", 0, "error", why));
}

static void answer_status(struct connection *c)
{
    const struct supervisor *s = c->supervisor;
    const struct guest_row *row = &s->guest->row;

    answer(c, json_pack("{s:b, s:s, s:s, s:i, s:i, s:s, s:I, s:s}", "ok", 1, "name", row->name, "state",
                        guest_state_name(row->state), "supervisor", (int)row->supervisor, "vm",
                        (int)s->vm.pid, "engine", row->engine ? row->engine : "", "restarts",
                        (json_int_t)row->restarts, "confinement", s->confinement));
}

void supervisor_control_stats(struct supervisor *s, const struct vm_message *m)
{
    json_t *json = supervisor_stats(s, m);

    for (struct connection *c = s->connections; c; c = c->next) {
        if (!c->waits_for_stats)
            continue;
        c->waits_for_stats--;
        answer(c, json_incref(json));
    }
    json_decref(json);
}

/* Samples are given once: to whoever asked first. */
void supervisor_control_profile(struct supervisor *s, const struct vm_message *m)
{
    struct connection *c = s->connections, *first = NULL;

    for (; c; c = c->next) /* the newest connection is the first */
        first = c->waits_for_profile ? c : first;
    if (!first)
        return;
    first->waits_for_profile--;
    if (m->profile.hz)
        answer(first, engine_profile_json(&m->profile));
    else
        answer_error(
            first,
            "the processor itself executes this guest, and only the host can look at that: 'perf kvm --guest "
            "record' does");
}

static void answer_pause(struct connection *c)
{
    answer(c, json_pack("{s:b, s:s*}", "ok", 1, "note", c->freeze_note[0] ? c->freeze_note : NULL));
}

void supervisor_control_paused(struct supervisor *s, uint64_t number)
{
    struct connection **slot = &s->pauses[number % SUPERVISOR_PAUSES], *c = *slot;

    *slot = NULL;
    if (!c)
        return;
    c->waits_for_pauses--;
    answer_pause(c);
}

static void wait_for_no_pause(struct connection *c)
{
    for (unsigned i = 0; i < SUPERVISOR_PAUSES; i++)
        if (c->supervisor->pauses[i] == c)
            c->supervisor->pauses[i] = NULL;
    c->waits_for_pauses = 0;
}

void supervisor_control_snapshot(struct connection *who, json_t *json)
{
    who->waits_for_snapshot = false;
    answer(who, json);
}

static void answer_balloon(struct connection *c, const struct vm_message *m)
{
    uint64_t memory = c->supervisor->config.vm.memory, target = m->stats[VM_STAT_BALLOON_TARGET];

    if (!m->stats[VM_STAT_BALLOON_DRIVER])
        answer_error(c,
                     "no driver serves the memory balloon in the guest: nothing was changed; on Linux it is "
                     "the module virtio_balloon");
    else
        answer(c,
               json_pack("{s:b, s:I, s:I, s:I}", "ok", 1, "memory-bytes",
                         (json_int_t)(memory - (target < memory ? target : memory)), "balloon-target-bytes",
                         (json_int_t)target, "balloon-bytes", (json_int_t)m->stats[VM_STAT_BALLOON]));
}

void supervisor_control_balloon(struct supervisor *s, const struct vm_message *m)
{
    bool asked = false;

    for (struct connection *c = s->connections; c; c = c->next) {
        if (!c->waits_for_balloon)
            continue;
        asked = true;
        c->waits_for_balloon--;
        answer_balloon(c, m);
    }
    /* What its restart policy starts again goes on from there. */
    if (asked && m->stats[VM_STAT_BALLOON_DRIVER] && m->stats[VM_STAT_BALLOON_TARGET] < s->config.vm.memory)
        s->config.vm.balloon = m->stats[VM_STAT_BALLOON_TARGET];
}

/* ---- requests ---- */

static void resize(struct connection *c, const struct control_request *r)
{
    struct vm_message m = {.type = VM_RESIZE, .columns = r->columns, .rows = r->rows};

    if (!r->columns || !r->rows)
        return;
    c->supervisor->config.vm.columns = r->columns;
    c->supervisor->config.vm.rows = r->rows;
    if (c->supervisor->vm.pid)
        vm_message_send(c->supervisor->vm.control_fd, &m);
}

static bool can_ask_vm(struct connection *c)
{
    if (c->supervisor->phase != PHASE_RUNNING)
        answer_error(c, "the guest is not running at this moment");
    return c->supervisor->phase == PHASE_RUNNING;
}

/* The VM process was asked, or could not be; its answer answers. Whether there will be one. */
static bool asked_vm(struct connection *c, int rc)
{
    if (rc) {
        answer_error(c, VM_HANGS);
        return false;
    }
    wait_for(c, VM_ANSWER_NS);
    return true;
}

static void ask_vm(struct connection *c, const struct vm_message *m, unsigned *waits_for)
{
    if (can_ask_vm(c) && asked_vm(c, vm_message_send(c->supervisor->vm.control_fd, m)))
        ++*waits_for;
}

static void pause_or_resume(struct connection *c, bool pause, bool while_connected)
{
    struct supervisor *s = c->supervisor;

    c->pauses = false;
    /* What the guest will be is what was asked for last, and not answered yet, if there is such. */
    if (s->pauses_asked == s->pauses_answered &&
        s->guest->row.state == (pause ? GUEST_PAUSED : GUEST_RUNNING))
        answer(c, json_pack("{s:b}", "ok", 1));
    else if (can_ask_vm(c) && asked_vm(c, supervisor_ask_pause(s, pause))) {
        s->pauses[s->pauses_asked % SUPERVISOR_PAUSES] = c;
        c->waits_for_pauses++;
        c->pauses = pause && while_connected;
    }
}

static void on_frozen(struct supervisor *s, void *opaque, uint64_t n, const char *why)
{
    struct connection *c = opaque;
    char *note = c->freeze_note;
    size_t size = sizeof(c->freeze_note);

    c->waits_for_freeze = false;
    c->freezes = !why;
    if (n)
        snprintf(note, size, "its file systems were frozen (%llu)", (unsigned long long)n);
    else
        snprintf(note, size, "its file systems were not frozen (%.100s)",
                 why ? why : "it has none that can be");
    if (!n && c->has_to_freeze) {
        supervisor_freeze_forget(s, c);
        c->freezes = false;
        answer_error(c, note);
        return;
    }
    pause_or_resume(c, true, true);
}

static void on_thawed(struct supervisor *s, void *opaque, uint64_t n, const char *why)
{
    struct connection *c = opaque;

    c->waits_for_freeze = false;
    if (why)
        snprintf(c->freeze_note, sizeof(c->freeze_note),
                 "its file systems were frozen, and may be still: %.100s", why);
    answer_pause(c);
}

/* A pause for which the file systems are to be frozen first. */
static void freeze_and_pause(struct connection *c, const struct control_request *r)
{
    struct supervisor *s = c->supervisor;

    c->has_to_freeze = r->freeze == CONTROL_FREEZE_ALWAYS;
    if (!can_ask_vm(c))
        return;
    const char *why = supervisor_freeze(s, on_frozen, c);
    if (why) {
        on_frozen(s, c, 0, why);
    } else {
        c->waits_for_freeze = true;
        wait_for(c, SUPERVISOR_FREEZE_NS);
    }
}

/* The end of one: the guest runs before its agent is asked. */
static void resume_and_thaw(struct connection *c)
{
    struct supervisor *s = c->supervisor;

    c->pauses = c->freezes = false;
    if (s->guest->row.state == GUEST_PAUSED)
        supervisor_ask_pause(s, false);
    if (supervisor_thaw(s, on_thawed, c)) {
        on_thawed(s, c, 0, VM_HANGS);
    } else {
        c->waits_for_freeze = true;
        wait_for(c, SUPERVISOR_FREEZE_NS);
    }
}

static void set_balloon(struct connection *c, uint64_t keep)
{
    uint64_t memory = c->supervisor->config.vm.memory;
    char why[160];

    if (keep && keep <= memory) {
        ask_vm(c, &(const struct vm_message){.type = VM_SET_BALLOON, .value = memory - keep},
               &c->waits_for_balloon);
        return;
    }
    snprintf(why, sizeof(why),
             "the guest can't keep %llu bytes: choose from 1 to its memory, which is %llu (%lluM)",
             (unsigned long long)keep, (unsigned long long)memory, (unsigned long long)memory >> 20);
    answer_error(c, why);
}

static void update_disk(struct connection *c, const struct control_request *r)
{
    struct supervisor *s = c->supervisor;
    struct vm_message m = {.type = VM_DISK_LIMIT, .value = r->disk};
    cleanup_error struct error *err = NULL;
    json_t *config = json_deep_copy(s->config.json), *disk = guest_disk_of(config, r->disk, &err);

    if (!disk || !can_ask_vm(c)) {
        if (!disk)
            answer_error(c, error_message(err));
        json_decref(config);
        return;
    }
    guest_disk_set_limits(disk, r);
    json_t *changes = json_pack("{s:O}", "disk", json_object_get(config, "disk"));
    int rc = supervisor_configure(s, changes);
    json_decref(changes);
    json_decref(config);
    guest_config_reload_disks(&s->config);
    m.limits = s->config.vm.disks[r->disk].limits;
    if (rc)
        answer_error(c, "its configuration could not be written");
    else if (!r->disk_bytes && asked_vm(c, vm_message_send(s->vm.control_fd, &m)))
        answer(c, json_pack("{s:b}", "ok", 1));
    else if (r->disk_bytes && vm_message_send(s->vm.control_fd, &m) == 0)
        ask_vm(c, &(const struct vm_message){.type = VM_DISK_RESIZE, .value = r->disk, .size = r->disk_bytes},
               &c->waits_for_resize);
    else if (r->disk_bytes)
        answer_error(c, VM_HANGS);
}

/* They are answered in turn. */
void supervisor_control_resized(struct supervisor *s, const struct vm_message *m)
{
    struct connection *first = NULL;
    char why[300];

    for (struct connection *c = s->connections; c; c = c->next) /* the newest connection is the first */
        first = c->waits_for_resize ? c : first;
    if (!first)
        return;
    first->waits_for_resize--;
    snprintf(why, sizeof(why), "the disk could not be given another size: %.200s", m->text);
    if (m->status)
        answer_error(first, why);
    else
        answer(first, json_pack("{s:b}", "ok", 1));
}

/* Now, and for its later starts. */
static void update(struct connection *c, const struct control_request *r)
{
    struct supervisor *s = c->supervisor;
    cleanup_error struct error *err = NULL;
    json_t *limits = json_object();
    const struct {
        const char *key;
        uint64_t value;
    } given[] = {{"memory", r->memory_bytes}, {"pids", r->pids}, {"io-weight", r->io_weight}};

    for (size_t i = 0; i < ARRAY_SIZE(given); i++)
        if (given[i].value)
            json_object_set_new(limits, given[i].key, json_integer((json_int_t)given[i].value));
    if (r->cpus > 0)
        json_object_set_new(limits, "cpus",
                            r->cpus == (double)(json_int_t)r->cpus ? json_integer((json_int_t)r->cpus)
                                                                   : json_real(r->cpus));
    if (r->of_disk)
        update_disk(c, r);
    else if (!s->config.container)
        answer_error(c, "a virtual machine's memory and processors are those that it was made with");
    else if (s->phase == PHASE_RUNNING &&
             container_process_update(s->guest->home, s->guest->row.name, limits, &err))
        answer_error(c, error_message(err));
    else if (supervisor_configure(s, limits))
        answer_error(c, "its configuration could not be written");
    else
        answer(c, json_pack("{s:b}", "ok", 1));
    json_decref(limits);
}

static void snapshot(struct connection *c, const struct control_request *r)
{
    cleanup_error struct error *err = NULL;

    if (c->supervisor->config.container) {
        answer_error(c, "a container has no disks");
    } else if (can_ask_vm(c)) {
        if (supervisor_snapshot_begin(c->supervisor, c, r, &err)) {
            answer_error(c, error_message(err));
            return;
        }
        c->waits_for_snapshot = true;
        asked_vm(c, 0);
    }
}

/* The connection becomes the VM process's, which answers by what it sends (disk/copy_record.h). */
static void backup(struct connection *c, const struct control_request *r)
{
    struct supervisor *s = c->supervisor;
    struct vm_message m = {.type = VM_DISK_COPY,
                           .value = r->disk,
                           .size = r->stream   ? VM_COPY_FILL
                                   : r->pivot  ? VM_COPY_PIVOT
                                   : r->mirror ? VM_COPY_MIRROR
                                               : VM_COPY_BACKUP,
                           .limits = r->limits};

    if (s->config.container) {
        answer_error(c, "a container has no disks");
    } else if (r->disk >= s->config.vm.n_disks) {
        answer_error(c, "it has no such disk");
    } else if (can_ask_vm(c)) {
        snprintf(m.text, sizeof(m.text), "%s %s", r->since, r->bitmap);
        if (vm_message_pass(s->vm.control_fd, &m, c->fd))
            answer_error(c, VM_HANGS);
        else
            end_connection(c);
    }
}

static void act_on(struct connection *c, const struct control_request *r)
{
    struct supervisor *s = c->supervisor;

    switch (r->verb) {
    case CONTROL_STATUS:
        answer_status(c);
        break;
    case CONTROL_STOP:
        c->waits_for_end = true;
        s->guest->row.by_hand |= !r->shutdown;
        supervisor_stop(s, r->timeout_ms);
        break;
    case CONTROL_KILL:
        c->waits_for_end = true;
        s->guest->row.by_hand = true;
        supervisor_kill(s);
        break;
    case CONTROL_PAUSE:
    case CONTROL_RESUME:
        c->freeze_note[0] = '\0';
        if (r->verb == CONTROL_PAUSE && r->freeze && !s->config.container)
            freeze_and_pause(c, r);
        else if (r->verb == CONTROL_RESUME && c->freezes)
            resume_and_thaw(c);
        else
            pause_or_resume(c, r->verb == CONTROL_PAUSE, r->while_connected);
        break;
    case CONTROL_STATS:
        ask_vm(c, &(const struct vm_message){.type = VM_STATS_WANTED}, &c->waits_for_stats);
        break;
    case CONTROL_PROFILE:
        if (s->config.container)
            answer_error(
                c, "a container's programs run as the host's do: 'perf record' of the host looks at them");
        else
            ask_vm(c, &(const struct vm_message){.type = VM_PROFILE_WANTED, .value = r->frequency},
                   &c->waits_for_profile);
        break;
    case CONTROL_BALLOON:
        if (s->config.container)
            answer_error(c, "a container has no memory balloon: 'tabique update --memory' changes its limit");
        else
            set_balloon(c, r->memory_bytes);
        break;
    case CONTROL_SNAPSHOT:
    case CONTROL_PIVOT:
        snapshot(c, r);
        break;
    case CONTROL_BACKUP:
        backup(c, r);
        break;
    case CONTROL_UPDATE:
        update(c, r);
        break;
    case CONTROL_CONSOLE:
        answer(c, json_pack("{s:b}", "ok", 1));
        c->attached = true;
        stream_write(c->stream, s->last_line, s->last_line_len);
        resize(c, r);
        break;
    case CONTROL_RESIZE:
        resize(c, r);
        answer(c, json_pack("{s:b}", "ok", 1));
        break;
    case CONTROL_VERBS:
        break;
    }
}

static void on_line(struct connection *c)
{
    cleanup_error struct error *err = NULL;
    struct control_request request;

    if (control_parse(c->line, c->len, &request, &err) == 0)
        act_on(c, &request);
    else
        answer_error(c, error_message(err));
    c->len = 0;
}

/* ---- connections ---- */

static size_t on_input(void *opaque, const uint8_t *bytes, size_t len)
{
    struct connection *c = opaque;
    size_t done = 0;

    while (done < len && !c->ended) {
        if (c->attached)
            return done + supervisor_type(c->supervisor, bytes + done, len - done);
        uint8_t byte = bytes[done++];
        if (byte == '\n') {
            on_line(c);
        } else if (c->len == sizeof(c->line)) {
            answer_error(c, "the request has no end");
            end_connection(c);
        } else {
            c->line[c->len++] = (char)byte;
        }
    }
    return len;
}

static void on_output_ready(void *opaque)
{
    struct connection *c = opaque;

    c->stalled_since = 0;
    if (c->attached && c->supervisor->console)
        stream_input_ready(c->supervisor->console);
}

static void on_input_ended(void *opaque)
{
    struct connection *c = opaque;

    c->input_ended = true;
    if (c->attached || !waits(c))
        end_connection(c);
}

static void on_output_broke(void *opaque)
{
    end_connection(opaque);
}

static void free_connection(struct connection *c, unsigned wait_ms)
{
    wait_for_no_pause(c);
    if (c->pauses && c->supervisor->vm.pid)
        supervisor_ask_pause(c->supervisor, false);
    supervisor_freeze_forget(c->supervisor, c);
    supervisor_snapshot_forget(c->supervisor, c, false);
    stream_close(c->stream, wait_ms);
    cleanup_close_fn(&c->fd);
    free(c);
}

static void on_reaper(void *opaque)
{
    struct supervisor *s = opaque;
    uint64_t now = loop_now(), next = UINT64_MAX;

    s->reaper_at = UINT64_MAX;
    for (struct connection **p = &s->connections; *p;) {
        struct connection *c = *p;

        if (c->attached && c->stalled_since && now >= c->stalled_since + STALL_NS)
            c->ended = true;
        /* Who asked may be gone long since: such connections would become ever more. */
        if (waits_for_vm(c) && now >= c->answer_by) {
            wait_for_no_pause(c);
            supervisor_snapshot_forget(s, c, true);
            supervisor_freeze_forget(s, c);
            c->waits_for_snapshot = c->waits_for_freeze = c->freezes = false;
            c->waits_for_stats = c->waits_for_balloon = c->waits_for_profile = c->waits_for_resize = 0;
            answer_error(c, VM_HANGS);
        }
        if (c->ended) {
            *p = c->next;
            free_connection(c, 0);
            continue;
        }
        if (c->stalled_since && c->stalled_since + STALL_NS < next)
            next = c->stalled_since + STALL_NS;
        if (waits_for_vm(c) && c->answer_by < next)
            next = c->answer_by;
        p = &c->next;
    }
    if (next != UINT64_MAX)
        arm_reaper(s, next);
    /* One may have been in the others' way. */
    if (s->console)
        stream_input_ready(s->console);
}

size_t supervisor_control_room(struct supervisor *s)
{
    size_t least = SIZE_MAX;

    for (struct connection *c = s->connections; c; c = c->next) {
        if (!c->attached || c->ended)
            continue;
        size_t room = stream_room(c->stream);
        if (!room && !c->stalled_since) {
            c->stalled_since = loop_now();
            arm_reaper(s, c->stalled_since + STALL_NS);
        }
        least = room < least ? room : least;
    }
    return least;
}

void supervisor_control_output(struct supervisor *s, const uint8_t *bytes, size_t len)
{
    for (struct connection *c = s->connections; c; c = c->next)
        if (c->attached && !c->ended)
            stream_write(c->stream, bytes, len);
}

void supervisor_control_input_ready(struct supervisor *s)
{
    for (struct connection *c = s->connections; c; c = c->next)
        if (c->attached && !c->ended)
            stream_input_ready(c->stream);
}

static void add_connection(struct supervisor *s, int fd)
{
    static const struct stream_events events = {
        .input = on_input,
        .output_ready = on_output_ready,
        .input_ended = on_input_ended,
        .output_broke = on_output_broke,
    };
    struct connection *c = calloc(1, sizeof(*c));
    struct stream_config config = {
        .loop = s->loop, .in_fd = fd, .out_fd = fd, .events = &events, .opaque = c};
    size_t n = 0;

    for (struct connection *other = s->connections; other; other = other->next)
        n++;
    if (!c || n >= CONNECTIONS_MAX || stream_open(&c->stream, &config, NULL) < 0) {
        free(c);
        close(fd);
        return;
    }
    c->supervisor = s;
    c->fd = fd;
    c->next = s->connections;
    s->connections = c;
}

static void on_listen(void *opaque, uint32_t events)
{
    struct supervisor *s = opaque;
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd >= 0)
        add_connection(s, fd);
}

int supervisor_control_open(struct supervisor *s, struct error **err)
{
    s->run_directory = guest_run_path(s->guest->home, s->guest->row.name, NULL);
    s->reaper = loop_timer_new(s->loop, on_reaper, s);
    s->reaper_at = UINT64_MAX;
    if (!s->run_directory || !s->reaper)
        return error_set_errno(err, ENOMEM, "control socket");
    int rc = home_make_directory(s->run_directory, 0700, err);
    if (rc)
        return rc;
    s->listen_fd = control_socket_listen(s->run_directory);
    rc = s->listen_fd < 0 ? s->listen_fd : 0;
    if (rc == 0)
        rc = loop_watch_add(s->loop, s->listen_fd, EPOLLIN, on_listen, s, &s->listen_watch);
    return rc ? error_set_errno(err, -rc, "control socket in '%s'", s->run_directory) : 0;
}

void supervisor_control_close(struct supervisor *s)
{
    loop_watch_remove(steal_ptr(s->listen_watch));
    cleanup_close_fn(&s->listen_fd);
    s->listen_fd = -1;
    /* Not the one of a new guest of this name, if ours is removed already. */
    if (s->run_directory && s->guest->lock_fd >= 0)
        home_remove_tree(s->run_directory);
    free(steal_ptr(s->run_directory));
    while (s->connections) {
        struct connection *c = s->connections;

        s->connections = c->next;
        if (c->waits_for_end && !c->ended)
            answer(c, json_pack("{s:b, s:b, s:i}", "ok", 1, "killed", s->ending >= ENDING_QUIT, "exit-status",
                                s->exit_status));
        else if (waits(c) && !c->ended)
            answer_error(c, "the guest has ended");
        free_connection(c, CLOSE_WAIT_MS);
    }
    loop_timer_free(steal_ptr(s->reaper));
}
