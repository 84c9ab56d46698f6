/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The disk of a guest that does not run, as the source of a backup: what the VM process does for one that
 * runs, a thread of the command does here, at the other end of a socket too. The guest is held, so that
 * nobody else has its disks. Called by backup.c.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/copy.h"
#include "disk/copy_receive.h"
#include "disk/disk.h"
#include "guest/backup_priv.h"
#include "guest/control.h"
#include "guest/disk_update.h"
#include "host/loop.h"
#include "host/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

struct backup_source {
    struct disk_files *files;
    struct disk *disk;
    struct loop *loop;
    pthread_t thread;
    bool started;
    /* The thread's: */
    bool copying, closing;
};

/* What is asked for, as it is posted to the thread: who asks may not wait for it. */
struct asked {
    struct backup_source *source;
    struct control_request request;
    int fd;
};

static void *serve(void *opaque)
{
    struct backup_source *s = opaque;

    loop_run(s->loop);
    return NULL;
}

static int open_files(struct backup_source *s, const json_t *config, const json_t *disk, struct error **err)
{
    const char *secret = json_string_value(json_object_get(disk, "secret-file"));
    cleanup_free char *path = guest_disk_path(config, json_string_value(json_object_get(disk, "path")));
    cleanup_free char *secret_path = secret ? guest_disk_path(config, secret) : NULL;

    if (!path || (secret && !secret_path))
        return error_set_errno(err, ENOMEM, "backup");
    int rc = disk_files_open(&s->files, path, json_string_value(json_object_get(disk, "format")),
                             json_is_true(json_object_get(disk, "read-only")), err);
    return rc || !secret ? rc : disk_files_read_secret(s->files, secret_path, err);
}

int backup_source_open(struct backup_source **out, const json_t *config, unsigned number, struct error **err)
{
    const json_t *disk = json_array_get(json_object_get(config, "disk"), number);
    struct backup_source *s = calloc(1, sizeof(*s));

    if (!s)
        return error_set_errno(err, ENOMEM, "backup");
    int rc = open_files(s, config, disk, err);
    if (rc == 0)
        rc = loop_create(&s->loop, err);
    if (rc == 0)
        rc = disk_open(&s->disk, s->files, s->loop, err);
    if (rc == 0 && (rc = thread_start(&s->thread, serve, s)))
        error_set_errno(err, -rc, "backup");
    s->started = rc == 0;
    if (rc) {
        backup_source_close(s, NULL);
        return rc;
    }
    *out = s;
    return 0;
}

static void on_ended(void *opaque)
{
    struct backup_source *s = opaque;

    s->copying = false;
    if (s->closing)
        loop_stop(s->loop, 0);
}

/* Why it could not be is told at the other end of the socket. */
static void on_asked(void *opaque)
{
    struct asked *asked = opaque;
    struct backup_source *s = asked->source;
    const struct control_request *r = &asked->request;
    const struct disk_copying what = {.since = *r->since ? r->since : NULL,
                                      .bitmap = *r->bitmap ? r->bitmap : NULL,
                                      .mirror = r->mirror,
                                      .rate = r->limits.values[DISK_LIMIT_BPS],
                                      .ended = on_ended,
                                      .opaque = s};

    s->copying = disk_copy_begin(s->disk, asked->fd, &what, NULL) == 0;
    free(asked);
}

int backup_source_ask(struct backup_source *s, const struct control_request *request,
                      const struct disk_job *job, struct disk_copy_begun *begun, struct error **err)
{
    cleanup_free struct asked *asked = malloc(sizeof(*asked));
    int pair[2];

    if (!asked)
        return error_set_errno(err, ENOMEM, "backup");
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return error_set_errno(err, errno, "backup");
    cleanup_close int ours = pair[0];
    *asked = (struct asked){.source = s, .request = *request, .fd = pair[1]};
    int rc = loop_post(s->loop, on_asked, asked);
    if (rc) {
        close(pair[1]);
        return error_set_errno(err, -rc, "backup");
    }
    steal_ptr(asked);
    rc = disk_copy_meet(ours, job, begun, err);
    return rc ? rc : steal_fd(ours);
}

static void on_closing(void *opaque)
{
    struct backup_source *s = opaque;

    s->closing = true;
    if (s->copying)
        disk_copy_cancel(s->disk);
    else
        loop_stop(s->loop, 0);
}

int backup_source_close(struct backup_source *s, struct error **err)
{
    if (!s)
        return 0;
    if (s->started) {
        if (loop_post(s->loop, on_closing, s))
            loop_stop(s->loop, 0);
        pthread_join(s->thread, NULL);
    }
    int rc = disk_close(s->disk);
    disk_files_close(s->files);
    loop_free(s->loop);
    free(s);
    return rc ? error_set_errno(err, -rc,
                                "what changes from now on could not be recorded in the guest's disk")
              : 0;
}
