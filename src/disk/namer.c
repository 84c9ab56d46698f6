/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process that names new files (namer.h). It is told what to do in messages of one size, which may come
 * from a process that a stranger's image has taken over: each is checked, and none is believed to be in
 * order. It ends when the other end of its socket is closed, however that comes about. One thread on each
 * side; no locks.
 */
#include "disk/namer.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk_priv.h"
#include "disk/new_file.h"
#include "host/pass.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME_MAX_LENGTH 255u

enum what { OPEN_FILE = 1, END_FILE };

struct request {
    uint32_t what;  /* enum what */
    uint32_t index; /* END_FILE: of the files, the image is 0 */
    uint8_t ok, sync;
    char name[NAME_MAX_LENGTH + 1]; /* OPEN_FILE */
};

/* OPEN_FILE: the file's descriptor comes with it. */
struct answer {
    int32_t rc;
    char text[1024];
};

struct disk_namer {
    int socket;
    pid_t pid;
    unsigned n_opened; /* beside the image */
};

/* ---- the process ---- */

struct files {
    struct disk_new_file *list;
    unsigned n;
    const char *image; /* its path */
    const char *part;  /* a name that a person has given; NULL: none */
};

static int open_more(struct files *f, const char *name, struct error **err)
{
    cleanup_free char *path = disk_name_beside(f->image, name);
    struct disk_new_file *more = realloc(f->list, (f->n + 1) * sizeof(*more));

    if (more)
        f->list = more;
    if (!path || !more)
        return error_set_errno(err, ENOMEM, "disk '%s'", name);
    if (f->n == DISK_FILES_MAX || strchr(name, '/') ||
        (!disk_is_namesake(f->image, name) && (!f->part || strcmp(name, f->part))))
        return error_set(err, EPERM, "'%s': no such file is made beside '%s'", name, f->image);
    int rc = disk_new_file_open_beside(&more[f->n], path, err);
    if (rc == 0)
        f->n++;
    return rc;
}

static int end_one(struct files *f, const struct request *r, struct error **err)
{
    if (r->index >= f->n || f->list[r->index].fd < 0)
        return error_set(err, EINVAL, "there is no such file to be named");
    int rc = disk_new_file_end(&f->list[r->index], r->ok, r->sync, err);
    f->list[r->index].fd = -1;
    return rc;
}

static bool serve_one(int socket, struct files *f)
{
    struct request r;
    struct answer a = {0};
    struct error *err = NULL;
    int passed, fd = -1;
    ssize_t n = pass_receive(socket, &r, sizeof(r), &passed, MSG_TRUNC);

    cleanup_close_fn(&passed);
    if (n != sizeof(r) || (r.what != OPEN_FILE && r.what != END_FILE) || r.name[NAME_MAX_LENGTH])
        return false;
    if (r.what == OPEN_FILE) {
        a.rc = open_more(f, r.name, &err);
        fd = a.rc ? -1 : f->list[f->n - 1].fd;
    } else {
        a.rc = end_one(f, &r, &err);
    }
    if (err)
        snprintf(a.text, sizeof(a.text), "%s", error_message(err));
    error_free(err);
    return pass_send(socket, &a, sizeof(a), fd, 0) == sizeof(a);
}

/* What is typed at the terminal is for the command, which then says what is to be. */
static void ignore_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGPIPE};

    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        signal(signals[i], SIG_IGN);
}

static _Noreturn void run(int socket, const struct disk_new_file *image, const char *path, const char *part)
{
    struct files f = {.list = malloc(sizeof(*f.list)), .n = 1, .image = path, .part = part};

    prctl(PR_SET_NAME, "tabique-namer");
    ignore_signals();
    if (f.list) {
        f.list[0] = *image;
        while (serve_one(socket, &f))
            ;
        for (unsigned i = 0; i < f.n; i++)
            if (f.list[i].fd >= 0)
                disk_new_file_end(&f.list[i], false, false, NULL);
    }
    _exit(0);
}

/* ---- who asks ---- */

int disk_namer_start(struct disk_namer **out, struct disk_new_file *image, const char *path, const char *part,
                     struct error **err)
{
    struct disk_namer *namer = calloc(1, sizeof(*namer));
    int sockets[2];

    if (!namer)
        return error_set_errno(err, ENOMEM, "a process that names files");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0) {
        free(namer);
        return error_set_errno(err, errno, "a process that names files");
    }
    namer->pid = fork();
    if (namer->pid == 0) {
        close(sockets[0]);
        run(sockets[1], image, path, part);
    }
    int rc = namer->pid < 0 ? -errno : 0;
    close(sockets[1]);
    if (rc) {
        close(sockets[0]);
        free(namer);
        return error_set_errno(err, -rc, "a process that names files");
    }
    namer->socket = sockets[0];
    image->namer = namer;
    *out = namer;
    return 0;
}

void disk_namer_end(struct disk_namer *namer)
{
    if (!namer)
        return;
    close(namer->socket);
    while (waitpid(namer->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    free(namer);
}

static int ask(struct disk_namer *namer, const struct request *r, int *fd, struct error **err)
{
    struct answer a;
    ssize_t n = pass_send(namer->socket, r, sizeof(*r), -1, 0);

    if (n == sizeof(*r))
        n = pass_receive(namer->socket, &a, sizeof(a), fd, 0);
    if (n != sizeof(a))
        return error_set_errno(err, n < 0 ? (int)-n : EPIPE, "the process that names files has ended");
    if (a.rc) {
        a.text[sizeof(a.text) - 1] = '\0';
        return error_set(err, -a.rc, "%s", a.text);
    }
    return 0;
}

int disk_namer_open(struct disk_namer *namer, const char *name, struct disk_new_file *file,
                    struct error **err)
{
    struct request r = {.what = OPEN_FILE};
    int fd = -1;

    if (strlen(name) > NAME_MAX_LENGTH)
        return error_set_errno(err, ENAMETOOLONG, "disk '%s'", name);
    strcpy(r.name, name);
    int rc = ask(namer, &r, &fd, err);
    if (rc)
        return rc;
    *file = (struct disk_new_file){
        .fd = fd, .old_fd = -1, .lock_fd = -1, .namer = namer, .index = ++namer->n_opened};
    return 0;
}

int disk_namer_finish(struct disk_namer *namer, unsigned index, bool ok, bool sync, struct error **err)
{
    struct request r = {.what = END_FILE, .index = index, .ok = ok, .sync = sync};
    int fd = -1, rc = ask(namer, &r, &fd, err);

    cleanup_close_fn(&fd);
    return rc;
}
