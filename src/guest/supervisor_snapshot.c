/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * New layers under a guest that runs: the supervisor makes the files, since the VM process has no paths, and
 * passes them to it; that one stops its processors, changes files and says so; the registry is told in one
 * transaction, and the guest goes on. Killed before the transaction, whoever it is, the guest has its old
 * files, and nothing is in the new ones; killed after it, the new ones. With a disk's mirror, in which that
 * is to go on, it is the same, but that the command has made it. Part of the supervisor's one thread.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk.h"
#include "guest/disk_update.h"
#include "guest/snapshot_priv.h"
#include "guest/supervisor_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

struct snapshot_work {
    struct connection *who; /* waits for the answer; NULL: nobody does any more */
    struct control_request request;
    struct layer_changes changes;
    bool frozen; /* the guest's file systems are */
    uint64_t pause_ns;
    char note[160];
    bool abandoned; /* who asked was told that it failed */
    bool locked;    /* the new files are */
    bool sent;      /* VM_DISK_SWITCH was */
    bool going_on;  /* VM_DISK_GO_ON was sent */
    bool ending;    /* and all is over but the thaw */
    bool committed;
    struct error *failure;
};

static void release_locks(struct supervisor *s, struct snapshot_work *w)
{
    for (size_t i = 0; w->locked && i < w->changes.n; i++)
        close(s->layer_locks[--s->n_layer_locks].fd);
    w->locked = false;
}

static void free_work(struct supervisor *s)
{
    struct snapshot_work *w = steal_ptr(s->snapshot);

    if (w->who)
        supervisor_control_snapshot(
            w->who, w->committed ? json_pack("{s:b, s:I, s:s}", "ok", 1, "pause-ns", (json_int_t)w->pause_ns,
                                             "note", w->note)
                                 : json_pack("{s:b, s:s}", "ok", 0, "error", error_message(w->failure)));
    supervisor_freeze_forget(s, w);
    if (!w->committed)
        release_locks(s, w);
    layers_done(&w->changes, w->committed);
    error_free(w->failure);
    free(w);
}

/* The new files are the guest's as long as its VM process lives; the next one locks them itself. */
static int hold_locks(struct supervisor *s, struct snapshot_work *w, struct error **err)
{
    const struct layer_changes *changes = &w->changes;
    size_t before = s->n_layer_locks;
    struct layer_lock *locks = realloc(s->layer_locks, (s->n_layer_locks + changes->n) * sizeof(*locks));

    if (!locks)
        return error_set_errno(err, ENOMEM, "locks");
    s->layer_locks = locks;
    for (size_t i = 0; i < changes->n; i++) {
        int fd = disk_hold(changes->list[i].path, err);
        if (fd < 0) {
            while (s->n_layer_locks > before)
                close(locks[--s->n_layer_locks].fd);
            return fd;
        }
        locks[s->n_layer_locks++] = (struct layer_lock){.fd = fd, .disk = changes->list[i].disk};
    }
    w->locked = true;
    return 0;
}

/* As VM_DISK_FILE has it. */
static uint64_t format_number(const char *format)
{
    size_t i = 0;

    while (format && disk_format_name(i) && strcmp(disk_format_name(i), format))
        i++;
    return format ? i + 1 : 0;
}

static int send_files(struct supervisor *s, struct snapshot_work *w, struct error **err)
{
    const struct layer_changes *changes = &w->changes;
    int rc = 0;

    for (size_t i = 0; i < changes->n && rc == 0; i++) {
        struct vm_message m = {.type = VM_DISK_FILE,
                               .value = changes->list[i].disk,
                               .size = format_number(changes->list[i].format)};
        cleanup_close int fd = open(changes->list[i].path, O_RDWR | O_CLOEXEC);

        vm_message_set_text(&m, changes->list[i].path);
        rc = fd < 0 ? -errno : vm_message_pass(s->vm.control_fd, &m, fd);
    }
    if (rc == 0)
        rc = vm_message_send(s->vm.control_fd,
                             &(const struct vm_message){.type = VM_DISK_SWITCH, .value = changes->n});
    w->sent = rc == 0;
    return rc ? error_set_errno(err, -rc, "passing new files to the guest's process") : 0;
}

/* ---- frozen file systems ---- */

static void on_thawed(struct supervisor *s, void *opaque, uint64_t n, const char *why)
{
    struct snapshot_work *w = opaque;

    if (why)
        snprintf(w->note, sizeof(w->note), "its file systems were frozen, and may be still: %.100s", why);
    free_work(s);
}

/* It is done, well or not; the guest may write again. */
static void end_work(struct supervisor *s)
{
    struct snapshot_work *w = s->snapshot;

    w->ending = true;
    if (w->who)
        supervisor_control_wait(w->who, SUPERVISOR_FREEZE_NS);
    if (!w->frozen || supervisor_thaw(s, on_thawed, w))
        free_work(s);
}

/* The mirror in which a disk is to go on. */
static int take_mirror(struct supervisor *s, const struct control_request *r, struct layer_changes *out,
                       struct error **err)
{
    struct layer_changes changes = {.list = calloc(1, sizeof(*changes.list)), .n = 1};
    const json_t *disk = guest_disk_of(s->config.json, r->disk, err);

    if (!disk || !changes.list) {
        free(changes.list);
        return disk ? error_set_errno(err, ENOMEM, "mirror") : -ENOENT;
    }
    if (json_object_get(disk, "secret-file") || (strcmp(r->format, "raw") && strcmp(r->format, "qcow2"))) {
        free(changes.list);
        return error_set(err, ENOTSUP, "a disk that is not encrypted can go on in a raw or qcow2 file only");
    }
    changes.list[0] = (struct layer_change){.disk = (unsigned)r->disk, .format = strdup(r->format)};
    /* Without a format it would be taken for a layer, and deleted where it is not used. */
    if (changes.list[0].format)
        changes.list[0].path = strdup(r->path);
    *out = changes;
    return changes.list[0].path ? 0 : error_set_errno(err, ENOMEM, "mirror");
}

/* New files are made, and the VM process asked to take them. 0 or -errno with *err. */
static int begin_switch(struct supervisor *s, struct snapshot_work *w, struct error **err)
{
    bool pivot = w->request.verb == CONTROL_PIVOT;
    int rc = pivot ? take_mirror(s, &w->request, &w->changes, err)
                   : layers_prepare(s->guest, s->config.json, &w->changes, err);

    if (rc == 0)
        rc = hold_locks(s, w, err);
    return rc ? rc : send_files(s, w, err);
}

static void on_frozen(struct supervisor *s, void *opaque, uint64_t n, const char *why)
{
    struct snapshot_work *w = opaque;

    w->frozen = !why;
    if (n)
        snprintf(w->note, sizeof(w->note), "its file systems were frozen (%llu)", (unsigned long long)n);
    else
        snprintf(w->note, sizeof(w->note), "its file systems were not frozen (%.100s), but its disks flushed",
                 why ? why : "it has none that can be");
    if (w->who)
        supervisor_control_wait(w->who, SUPERVISOR_FREEZE_NS);
    if (w->abandoned)
        error_set(&w->failure, ETIMEDOUT, "it took too long");
    else if (!n && w->request.freeze == CONTROL_FREEZE_ALWAYS)
        error_set(&w->failure, EIO, "there is no snapshot, for %s", w->note);
    else if (begin_switch(s, w, &w->failure) == 0)
        return;
    end_work(s);
}

/* 0 or -errno with *err. */
static int begin(struct supervisor *s, struct snapshot_work *w, struct error **err)
{
    const char *why = w->request.freeze ? supervisor_freeze(s, on_frozen, w) : NULL;

    if (w->request.freeze && !why)
        return 0;
    if (why && w->request.freeze == CONTROL_FREEZE_ALWAYS)
        return error_set(err, EBUSY, "there is no snapshot, for its file systems can't be frozen (%s)", why);
    snprintf(w->note, sizeof(w->note), "its file systems were not frozen%s%s%s, but its disks flushed",
             why ? " (" : "", why ? why : "", why ? ")" : "");
    return begin_switch(s, w, err);
}

int supervisor_snapshot_begin(struct supervisor *s, struct connection *who,
                              const struct control_request *request, struct error **err)
{
    if (s->snapshot)
        return error_set(err, EBUSY, "another snapshot of the guest is being made");
    struct snapshot_work *w = calloc(1, sizeof(*w));
    if (!w)
        return error_set_errno(err, ENOMEM, "snapshot");
    w->who = who;
    w->request = *request;
    int rc = begin(s, w, err);
    if (rc) {
        release_locks(s, w);
        layers_done(&w->changes, false);
        free(w);
        return rc;
    }
    s->snapshot = w;
    return 0;
}

/* Those that were new at the last time are written no more; what a mirror stands for is not even read. */
static void let_go_of_old(struct supervisor *s, const struct snapshot_work *w)
{
    size_t old = s->n_layer_locks - w->changes.n, kept = 0;

    for (size_t i = 0; i < s->n_layer_locks; i++) {
        struct layer_lock lock = s->layer_locks[i];
        bool replaced = w->request.verb == CONTROL_PIVOT && lock.disk == w->request.disk;

        if (i < old && replaced) {
            close(lock.fd);
            continue;
        }
        if (i < old && w->request.verb != CONTROL_PIVOT)
            disk_hold_shared(lock.fd);
        s->layer_locks[kept++] = lock;
    }
    s->n_layer_locks = kept;
}

static int commit(struct supervisor *s, struct snapshot_work *w)
{
    const struct control_request *r = &w->request;
    json_t *config = json_deep_copy(s->config.json);
    char *before = strdup(s->guest->row.config);
    const char *name = r->snapshot[0] ? r->snapshot : NULL;
    int rc;

    if (!config || !before)
        rc = error_set_errno(&w->failure, ENOMEM, "snapshot");
    else if (r->verb == CONTROL_PIVOT)
        rc = pivot_commit(s->guest, config, &w->changes, &w->failure);
    else
        rc = snapshot_commit(s->guest, config, &w->changes, name, r->description, &w->failure);
    if (rc == 0) {
        let_go_of_old(s, w);
        json_object_set(s->config.json, "disk", json_object_get(config, "disk"));
        guest_config_reload_disks(&s->config);
    } else if (before) {
        free(s->guest->row.config);
        s->guest->row.config = steal_ptr(before);
    }
    free(before);
    json_decref(config);
    return rc;
}

static void on_switched(struct supervisor *s, const struct vm_message *m)
{
    struct snapshot_work *w = s->snapshot;

    if (m->status) {
        error_set(&w->failure, EIO, "its disks could not be given new files: %s", m->text);
        end_work(s);
        return;
    }
    if (w->abandoned)
        error_set(&w->failure, ETIMEDOUT, "it took too long");
    w->committed = !w->abandoned && commit(s, w) == 0;
    w->going_on = true;
    vm_message_send(s->vm.control_fd,
                    &(const struct vm_message){.type = VM_DISK_GO_ON, .value = w->committed});
}

void supervisor_snapshot_message(struct supervisor *s, const struct vm_message *m)
{
    struct snapshot_work *w = s->snapshot;

    /* What a VM process says that nobody asked for means nothing. */
    if (w && m->type == VM_DISK_SWITCHED && w->sent && !w->going_on && !w->ending) {
        on_switched(s, m);
    } else if (w && m->type == VM_DISK_DONE && w->going_on && !w->ending) {
        w->pause_ns = m->value;
        end_work(s);
    }
}

void supervisor_snapshot_forget(struct supervisor *s, const struct connection *who, bool failed)
{
    if (!s->snapshot || s->snapshot->who != who)
        return;
    s->snapshot->who = NULL;
    s->snapshot->abandoned = failed;
}

void supervisor_snapshot_end(struct supervisor *s)
{
    if (s->snapshot) {
        if (!s->snapshot->failure)
            error_set(&s->snapshot->failure, ESRCH, "the guest has ended meanwhile");
        free_work(s);
    }
    while (s->n_layer_locks)
        close(s->layer_locks[--s->n_layer_locks].fd);
    free(steal_ptr(s->layer_locks));
}
