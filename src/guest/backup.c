/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Backups: backup.h. Each disk of a guest that runs has a connection to the supervisor, which the VM process
 * takes over (one that does not run: backup_stopped.c), and a thread that receives what comes there. With
 * more than one the guest is paused while they begin, so that all are of the same moment.
 *
 * A backup has an id, which is in its file's name and in that of the bitmap that the disk has from that
 * moment on. So a bitmap is never taken for what has changed since another backup, whatever has been
 * restored, copied or lost meanwhile.
 */
#include "guest/backup.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "disk/copy.h"
#include "disk/copy_receive.h"
#include "guest/backup_priv.h"
#include "guest/control.h"
#include "guest/end.h"
#include "guest/guest.h"
#include "guest/snapshot_priv.h"
#include "host/thread.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#define ID_LENGTH 25u /* 20260131T120000Z-0123abcd */
#define TRIES     16u /* earlier backups that a bitmap is looked for of */
#define ANSWER_MS 10000
#define DISKS_MAX 26u

#define BUSY_TRIES 20u
#define BUSY_NS    50000000

struct one {
    struct backup *all;
    unsigned number;
    char name[4];
    char *path, *base;            /* base: the name of an earlier one in the same directory; NULL: none */
    char id[ID_LENGTH + 1];       /* "": no bitmap */
    bool no_record;               /* there are earlier ones, but nothing tells what has changed since */
    struct backup_source *source; /* NULL: the guest runs */
    int fd;
    struct disk_copy_begun begun;
    struct disk_copy_target target;
    struct disk_job job;
    double fraction;
    pthread_t thread;
    bool started;
    int rc;
    struct error *err;
};

struct backup {
    const struct home *home;
    const struct guest_backup *what;
    pthread_mutex_t lock; /* of the fractions */
    struct hand hand;     /* of a guest that does not run */
    struct one disks[DISKS_MAX];
    unsigned n;
    char note[160]; /* how freezing went */
    bool may_be_frozen;
};

/* ---- names ---- */

static bool is_id(const char *text)
{
    static const char pattern[] = "########T######Z-xxxxxxxx";

    for (unsigned i = 0; i < ID_LENGTH; i++) {
        bool digit = text[i] >= '0' && text[i] <= '9', hex = digit || (text[i] >= 'a' && text[i] <= 'f');
        if (pattern[i] == '#' ? !digit : pattern[i] == 'x' ? !hex : text[i] != pattern[i])
            return false;
    }
    return true;
}

static int make_id(char *id, struct error **err)
{
    time_t now = time(NULL);
    struct tm tm;
    uint32_t random;

    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random) || !gmtime_r(&now, &tm))
        return error_set_errno(err, errno, "backup");
    strftime(id, ID_LENGTH + 1, "%Y%m%dT%H%M%SZ", &tm);
    snprintf(id + strlen(id), 10, "-%08x", random);
    return 0;
}

/* Earlier backups of the disk in the directory, the newest first: their ids. */
struct earlier {
    char (*ids)[ID_LENGTH + 1];
    size_t n;
};

static int compare_ids(const void *a, const void *b)
{
    return -strcmp(a, b);
}

static int find_earlier(const struct one *d, struct earlier *out, struct error **err)
{
    const struct guest_backup *what = d->all->what;
    cleanup_free char *prefix = NULL;
    DIR *directory = opendir(what->target);
    const struct dirent *entry;
    int rc = 0;

    *out = (struct earlier){0};
    if (!directory)
        return error_set_errno(err, errno, "'%s'", what->target);
    if (asprintf(&prefix, "%s-%s-", what->guest, d->name) < 0)
        rc = error_set_errno(err, ENOMEM, "backup");
    while (rc == 0 && (entry = readdir(directory))) {
        size_t len = strlen(prefix);
        const char *id = entry->d_name + len;

        if (strncmp(entry->d_name, prefix, len) || !is_id(id) || strcmp(id + ID_LENGTH, ".qcow2"))
            continue;
        void *more = realloc(out->ids, (out->n + 1) * sizeof(*out->ids));
        if (!more) {
            rc = error_set_errno(err, ENOMEM, "backup");
            break;
        }
        out->ids = more;
        memcpy(out->ids[out->n], id, ID_LENGTH);
        out->ids[out->n++][ID_LENGTH] = '\0';
    }
    closedir(directory);
    if (rc == 0 && out->n)
        qsort(out->ids, out->n, sizeof(*out->ids), compare_ids);
    if (rc)
        free(steal_ptr(out->ids));
    return rc;
}

static bool is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static const char *format_of(const struct guest_backup *what)
{
    const char *dot = strrchr(what->target, '.');

    if (what->format)
        return what->format;
    return dot && (strcmp(dot, ".raw") == 0 || strcmp(dot, ".img") == 0) ? "raw" : "qcow2";
}

/* ---- beginning ---- */

/* An error is answered as to any request; else what follows is the copy's. */
static int is_taken(int fd, struct error **err)
{
    char first;
    json_t *answer = NULL;
    ssize_t n;

    do
        n = recv(fd, &first, 1, MSG_PEEK);
    while (n < 0 && errno == EINTR);
    if (n != 1)
        return error_set(err, ECONNRESET, "the guest has ended");
    if (first != '{')
        return 0;
    int rc = control_receive(fd, ANSWER_MS, &answer, err);
    json_decref(answer);
    return rc ? rc : error_set(err, EPROTO, "the guest's supervisor does not make sense");
}

static int ask_once(const struct home *home, const char *guest, const struct control_request *request,
                    const struct disk_job *job, struct disk_copy_begun *begun, struct error **err)
{
    cleanup_close int fd = control_connect(home, guest, err);

    if (fd < 0)
        return fd;
    int rc = control_send(fd, request, err);
    if (rc == 0)
        rc = is_taken(fd, err);
    if (rc == 0)
        rc = disk_copy_meet(fd, job, begun, err);
    return rc ? rc : steal_fd(fd);
}

int backup_ask(const struct home *home, const char *guest, const struct control_request *request,
               const struct disk_job *job, struct disk_copy_begun *begun, struct error **err)
{
    for (unsigned tries = 1;; tries++) {
        struct error *why = NULL;
        int fd = ask_once(home, guest, request, job, begun, &why);

        if (fd != -EBUSY || tries == BUSY_TRIES) {
            if (fd < 0)
                *err = why;
            return fd;
        }
        /* One that was interrupted a moment ago may not have ended yet. */
        error_free(why);
        nanosleep(&(struct timespec){.tv_nsec = BUSY_NS}, NULL);
    }
}

/* `since`: the id of an earlier backup, NULL for none. */
static int ask(struct one *d, const char *since, struct error **err)
{
    const struct guest_backup *what = d->all->what;
    struct control_request r = {.verb = CONTROL_BACKUP,
                                .of_disk = true,
                                .disk = d->number,
                                .mirror = what->mirror,
                                .pivot = what->pivot};

    if (since)
        snprintf(r.since, sizeof(r.since), DISK_COPY_BITMAP "%s", since);
    if (d->id[0])
        snprintf(r.bitmap, sizeof(r.bitmap), DISK_COPY_BITMAP "%s", d->id);
    r.has_limit[DISK_LIMIT_BPS] = true;
    r.limits.values[DISK_LIMIT_BPS] = what->rate;
    d->fd = d->source ? backup_source_ask(d->source, &r, what->job, &d->begun, err)
                      : backup_ask(d->all->home, what->guest, &r, what->job, &d->begun, err);
    return d->fd < 0 ? d->fd : 0;
}

/* That it was asked for a bitmap that is of no use is no reason not to ask for another. */
static bool may_go_on(int rc)
{
    return rc == -ENOENT || rc == -EINVAL || rc == -ENOTSUP || rc == -EFBIG;
}

static int begin_in_directory(struct one *d, struct error **err)
{
    const struct guest_backup *what = d->all->what;
    struct earlier earlier = {0};
    int rc = make_id(d->id, err);

    if (rc == 0 && asprintf(&d->path, "%s/%s-%s-%s.qcow2", what->target, what->guest, d->name, d->id) < 0)
        rc = error_set_errno(err, ENOMEM, "backup");
    if (rc == 0 && !what->full)
        rc = find_earlier(d, &earlier, err);
    for (size_t i = 0; rc == 0 && d->fd < 0 && i < earlier.n && i < TRIES; i++) {
        struct error *why = NULL;
        rc = ask(d, earlier.ids[i], &why);
        if (rc == 0 && asprintf(&d->base, "%s-%s-%s.qcow2", what->guest, d->name, earlier.ids[i]) < 0)
            rc = error_set_errno(err, ENOMEM, "backup");
        else if (may_go_on(rc))
            rc = 0;
        else if (rc)
            *err = steal_ptr(why);
        error_free(why);
    }
    free(earlier.ids);
    d->no_record = earlier.n && d->fd < 0;
    if (rc == 0 && d->fd < 0)
        rc = ask(d, NULL, err);
    return rc;
}

static int begin(struct one *d, struct error **err)
{
    const struct guest_backup *what = d->all->what;
    int rc;

    if (is_directory(what->target)) {
        rc = begin_in_directory(d, err);
        d->target = (struct disk_copy_target){
            .path = d->path, .format = "qcow2", .backing = d->base, .backing_format = "qcow2"};
    } else {
        d->target = (struct disk_copy_target){.path = what->target, .format = format_of(what)};
        rc = ask(d, NULL, err);
    }
    return rc ? error_wrap(err, "disk %s", d->name) : 0;
}

/* ---- receiving ---- */

static void on_report(void *opaque, double fraction)
{
    struct one *d = opaque;
    struct backup *b = d->all;
    LOCK_SCOPE(&b->lock);
    double bytes = 0, done = 0;

    d->fraction = fraction;
    for (unsigned i = 0; i < b->n; i++) {
        bytes += (double)b->disks[i].begun.bytes;
        done += (double)b->disks[i].begun.bytes * b->disks[i].fraction;
    }
    if (b->what->job->report && bytes > 0)
        b->what->job->report(b->what->job->opaque, done / bytes);
}

static void *receive(void *opaque)
{
    struct one *d = opaque;

    d->rc = disk_copy_receive(d->fd, &d->begun, &d->target, &d->job, &d->err);
    /* Whoever sends sees that it is over; before a pivot it is not. */
    if (d->rc || !d->all->what->pivot)
        shutdown(d->fd, SHUT_RDWR);
    return NULL;
}

static void receive_all(struct backup *b)
{
    for (unsigned i = 0; i < b->n; i++) {
        struct one *d = &b->disks[i];

        d->job = (struct disk_job){.report = on_report, .opaque = d, .cancel = b->what->job->cancel};
        d->started = thread_start(&d->thread, receive, d) == 0;
        if (!d->started)
            d->rc = error_set_errno(&d->err, ENOMEM, "backup");
    }
    for (unsigned i = 0; i < b->n; i++)
        if (b->disks[i].started)
            pthread_join(b->disks[i].thread, NULL);
}

static int take_results(struct backup *b, struct error **err)
{
    const struct guest_backup *what = b->what;
    int rc = 0;

    for (unsigned i = 0; i < b->n; i++) {
        struct one *d = &b->disks[i];

        if (d->rc == 0 && what->done)
            what->done(what->opaque, d->name, d->target.path, d->begun.bytes,
                       d->base        ? GUEST_BACKUP_CHANGED
                       : d->no_record ? GUEST_BACKUP_ALL_AGAIN
                                      : GUEST_BACKUP_ALL);
        if (d->rc && rc == 0) {
            rc = d->rc;
            *err = steal_ptr(d->err);
            error_wrap(err, "disk %s", d->name);
        }
    }
    return rc;
}

/* ---- all together ---- */

static int count_disks(const struct home *home, const char *guest, size_t *n, struct error **err)
{
    struct guest_row row;
    int rc = guest_find(home, guest, &row, err);

    if (rc)
        return rc;
    json_t *config = json_loads(row.config, 0, NULL);
    *n = json_array_size(json_object_get(config, "disk"));
    json_decref(config);
    guest_row_clear(&row);
    return *n ? 0 : error_set(err, ENOENT, "it has no disk");
}

int backup_disk_number(const struct home *home, const char *guest, const char *disk, struct error **err)
{
    size_t n, number = disk ? (size_t)(disk[2] - 'a') : 0;
    int rc = count_disks(home, guest, &n, err);

    if (rc == 0 && number >= n)
        rc = error_set(err, ENOENT, "it has no disk %s: it has %zu", disk, n);
    if (rc == 0 && !disk && n > 1)
        rc = error_set(err, EINVAL, "it has %zu disks: choose one with --disk", n);
    return rc ? rc : (int)number;
}

static int choose_disks(struct backup *b, struct error **err)
{
    const struct guest_backup *what = b->what;
    bool all = !what->disk && !what->mirror;
    size_t n = 1;
    int first = all ? 0 : backup_disk_number(b->home, what->guest, what->disk, err);
    int rc = first < 0 ? first : all ? count_disks(b->home, what->guest, &n, err) : 0;

    if (rc)
        return rc;
    if (n > DISKS_MAX)
        return error_set(err, E2BIG, "it has more than %u disks: choose one with --disk", DISKS_MAX);
    if (what->mirror && is_directory(what->target))
        return error_set(err, EISDIR,
                         "'%s' is a directory: a mirror is a file, a block device or a server's disk",
                         what->target);
    if (n > 1 && !is_directory(what->target))
        return error_set(err, EINVAL, "it has %zu disks: choose one with --disk, or give a directory", n);
    for (b->n = 0; b->n < n; b->n++) {
        struct one *d = &b->disks[b->n];

        *d = (struct one){.all = b, .number = (unsigned)first + b->n, .fd = -1};
        snprintf(d->name, sizeof(d->name), "vd%c", (char)('a' + d->number));
    }
    return 0;
}

/* Over a connection with whose end the pause ends, however this command does. */
static int pause_guest(struct backup *b, int fd, bool pause, struct error **err)
{
    const struct guest_backup *what = b->what;
    const struct control_request r = {.verb = pause ? CONTROL_PAUSE : CONTROL_RESUME,
                                      .while_connected = pause,
                                      .freeze = pause ? what->freeze : CONTROL_FREEZE_NEVER};
    json_t *answer = NULL;
    int rc = control_send(fd, &r, err);

    if (rc == 0)
        rc = control_receive(fd, what->freeze ? CONTROL_FREEZE_MS : ANSWER_MS, &answer, err);
    const char *note = json_string_value(json_object_get(answer, "note"));
    if (note)
        snprintf(b->note, sizeof(b->note), "%s", note);
    b->may_be_frozen = note && !pause; /* of the end that is all that is told */
    json_decref(answer);
    return rc;
}

static bool is_paused(const struct backup *b)
{
    struct guest_row row;
    bool paused = false;

    if (guest_find(b->home, b->what->guest, &row, NULL) == 0) {
        paused = row.state == GUEST_PAUSED;
        guest_row_clear(&row);
    }
    return paused;
}

static int begin_all(struct backup *b, struct error **err)
{
    bool paused = is_paused(b), pause = (b->n > 1 || b->what->freeze) && !paused;

    if (paused && b->what->freeze == CONTROL_FREEZE_ALWAYS)
        return error_set(
            err, EBUSY,
            "its file systems can't be frozen while it is paused: 'tabique resume %s' has it go on",
            b->what->guest);
    if (paused && b->what->freeze)
        snprintf(b->note, sizeof(b->note), "its file systems were not frozen (it is paused)");
    cleanup_close int fd = pause ? control_connect(b->home, b->what->guest, err) : -1;
    int rc = !pause ? 0 : fd < 0 ? fd : pause_guest(b, fd, true, err);

    for (unsigned i = 0; i < b->n && rc == 0; i++)
        rc = begin(&b->disks[i], err);
    if (fd >= 0) {
        int resumed = pause_guest(b, fd, false, rc ? NULL : err);
        rc = rc ? rc : resumed;
    }
    return rc;
}

/* The guest is held from here on. */
static int begin_stopped(struct backup *b, struct error **err)
{
    int rc = 0;

    for (unsigned i = 0; i < b->n && rc == 0; i++) {
        rc = backup_source_open(&b->disks[i].source, b->hand.config, b->disks[i].number, err);
        if (rc)
            error_wrap(err, "disk %s", b->disks[i].name);
    }
    for (unsigned i = 0; i < b->n && rc == 0; i++)
        rc = begin(&b->disks[i], err);
    return rc;
}

static int check_pivot(const struct backup *b, bool runs, struct error **err)
{
    const char *format = format_of(b->what);
    struct stat st;

    if (!runs)
        return error_set(err, ESRCH, "it does not run: a mirror can take its disk's place while it does");
    if (strcmp(format, "raw") && strcmp(format, "qcow2"))
        return error_set(err, ENOTSUP, "with --pivot the mirror is a raw or qcow2 file, not %s", format);
    if (strstr(b->what->target, "://") || lstat(b->what->target, &st) == 0)
        return error_set(err, EEXIST, "'%s' is no new file, which a mirror with --pivot has to be",
                         b->what->target);
    return 0;
}

static int begin_any(struct backup *b, struct error **err)
{
    struct guest_row row;
    int rc = guest_find(b->home, b->what->guest, &row, err);

    if (rc)
        return rc;
    bool runs = guest_state_is_live(row.state);
    guest_row_clear(&row);
    if (b->what->pivot) {
        rc = check_pivot(b, runs, err);
        if (rc)
            return rc;
    }
    /* What its layers are must not be changed by others before a pivot does. */
    if (!runs || b->what->pivot) {
        rc = hand_take(&b->hand, b->home, b->what->guest, err);
        runs = b->hand.running;
        if (rc == 0 && runs && !b->what->pivot)
            hand_release(&b->hand);
    }
    const json_t *disks = json_object_get(b->hand.config, "disk");
    if (rc == 0 && b->what->pivot &&
        json_object_get(json_array_get(disks, b->disks[0].number), "secret-file"))
        rc = error_set(err, ENOTSUP,
                       "the disk is encrypted, and its mirror would not be: without --pivot it is copied");
    return rc ? rc : runs ? begin_all(b, err) : begin_stopped(b, err);
}

/* The mirror is there, and the VM process notes what is written beside it until this. */
static int pivot(const struct backup *b, struct error **err)
{
    const struct one *d = &b->disks[0];
    struct control_request r = {.verb = CONTROL_PIVOT, .of_disk = true, .disk = d->number};
    cleanup_free char *path = realpath(d->target.path, NULL);
    json_t *answer = NULL;

    if (!path || strlen(path) > CONTROL_PATH_MAX)
        return error_set_errno(err, path ? ENAMETOOLONG : errno, "'%s'", d->target.path);
    strcpy(r.path, path);
    snprintf(r.format, sizeof(r.format), "%s", d->target.format);
    int rc = guest_ask(b->home, b->what->guest, &r, &answer, err);
    json_decref(answer);
    return rc ? error_wrap(err, "'%s' is the disk's mirror, but it does not go on in it", path)
              : layers_settle(b->home, b->what->guest, true, err);
}

static int end(struct backup *b, struct error **err)
{
    int rc = 0;

    for (unsigned i = 0; i < b->n; i++) {
        int closed = backup_source_close(b->disks[i].source, rc ? NULL : err);

        rc = rc ? rc : closed;
        cleanup_close_fn(&b->disks[i].fd);
        free(b->disks[i].path);
        free(b->disks[i].base);
        error_free(b->disks[i].err);
    }
    hand_release(&b->hand);
    pthread_mutex_destroy(&b->lock);
    free(b);
    return rc;
}

int guest_backup(const struct home *home, const struct guest_backup *what, struct error **err)
{
    struct backup *b = calloc(1, sizeof(*b));

    if (!b)
        return error_set_errno(err, ENOMEM, "backup");
    b->home = home;
    b->what = what;
    b->hand = HAND_NONE;
    pthread_mutex_init(&b->lock, NULL);
    int rc = choose_disks(b, err);
    if (rc == 0)
        rc = begin_any(b, err);
    if (rc == 0) {
        receive_all(b);
        rc = take_results(b, err);
    }
    if (rc == 0 && what->pivot)
        rc = pivot(b, err);
    if (b->note[0] && (rc == 0 || b->may_be_frozen) && what->frozen)
        what->frozen(what->opaque, b->note);
    int ended = end(b, rc ? NULL : err);
    rc = rc ? rc : ended;
    return rc ? error_wrap(err, "guest '%s'", what->guest) : 0;
}
