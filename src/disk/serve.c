/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two processes: one makes the socket, waits for signals, and clears away; the other opens the images, is
 * confined, and serves. They are joined by two pipes: by one the server says that it is ready, or why it
 * failed; the other ends when it is to end. No locks.
 */
#include "disk/serve.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "disk/disk.h"
#include "disk/nbd.h"
#include "disk/nbd_server.h"
#include "disk/nbd_tls.h"
#include "host/confine.h"
#include "host/dial.h"
#include "host/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define BACKLOG  64
#define HEADROOM (192ull << 20) /* bytes of address space beside what clients take */

struct report {
    int errnum; /* 0: ready */
    char text[1024];
};

/* ---- the server's process ---- */

struct serving {
    const struct disk_serve *what;
    int reports, control;
    struct loop *loop;
    struct nbd_tls_identity *tls;
    struct nbd_server *server;
    struct disk_files *files[DISK_SERVE_MAX];
    struct disk *disks[DISK_SERVE_MAX];
    struct loop_watch *watch;
    bool ending;
};

static const char *name_of(const struct disk_serve *what, size_t i)
{
    const char *slash = strrchr(what->paths[i], '/');

    if (what->names)
        return what->names[i];
    return what->n_paths == 1 ? "" : slash ? slash + 1 : what->paths[i];
}

static void on_stopped(void *opaque)
{
    loop_stop(((struct serving *)opaque)->loop, 0);
}

static void end_serving(struct serving *s)
{
    if (s->ending)
        return;
    s->ending = true;
    nbd_server_stop(s->server, on_stopped, s);
}

static void on_control(void *opaque, uint32_t events)
{
    struct serving *s = opaque;

    loop_watch_remove(s->watch);
    s->watch = NULL;
    end_serving(s);
}

static void on_idle(void *opaque)
{
    struct serving *s = opaque;

    if (!s->what->persistent)
        end_serving(s);
}

/* All by path, before the process is confined. */
static int open_all(struct serving *s, struct error **err)
{
    const struct disk_serve *what = s->what;
    const struct nbd_tls_files tls = {.certificates = what->certificates, .psk = what->psk};
    int rc = tls.certificates || tls.psk ? nbd_tls_identity_new(&s->tls, &tls, true, err) : 0;

    for (size_t i = 0; i < what->n_paths && rc == 0; i++)
        rc = (what->read_only ? disk_files_open_to_read : disk_files_open_to_write)(
            &s->files[i], what->paths[i], what->format, what->follow, err);
    for (size_t i = 0; i < what->n_paths && rc == 0 && what->secret; i++)
        rc = disk_files_read_secret(s->files[i], what->secret, err);
    return rc;
}

static int confine(const struct serving *s, struct error **err)
{
    const struct confine_config config = {.kind = CONFINE_SERVE,
                                          .title = "tabique: serve",
                                          .headroom =
                                              HEADROOM + 2ull * NBD_SERVER_CLIENT_BYTES * s->what->clients,
                                          .descriptors = 256 + 2 * s->what->clients};
    struct confine_status status;

    return confine_process(&config, &status, err);
}

static int build(struct serving *s, int listener, struct error **err)
{
    const struct nbd_server_config config = {
        .loop = s->loop, .clients = s->what->clients, .tls = s->tls, .idle = on_idle, .opaque = s};
    int rc = nbd_server_new(&s->server, &config, err);

    for (size_t i = 0; i < s->what->n_paths && rc == 0; i++) {
        rc = disk_open(&s->disks[i], s->files[i], s->loop, err);
        if (rc == 0) {
            rc = nbd_server_add_export(s->server, name_of(s->what, i), "", s->disks[i]);
            if (rc)
                error_set_errno(err, -rc, "disk '%s'", s->what->paths[i]);
        }
        if (rc == 0 && s->what->bitmap)
            rc = nbd_server_add_bitmap(s->server, s->what->bitmap, err);
    }
    if (rc)
        return rc;
    rc = nbd_server_listen(s->server, listener);
    if (rc == 0)
        rc = loop_watch_add(s->loop, s->control, EPOLLIN, on_control, s, &s->watch);
    return rc ? error_set_errno(err, -rc, "serving") : 0;
}

static void tell(const struct serving *s, const struct error *err)
{
    struct report report = {0};

    if (err) {
        report.errnum = error_errno(err) ? error_errno(err) : EIO;
        strncpy(report.text, error_message(err), sizeof(report.text) - 1);
    }
    if (write(s->reports, &report, sizeof(report)) < 0)
        return;
}

/* What is not in the images yet is written now. */
static int close_all(struct serving *s, struct error **err)
{
    int rc = 0;

    for (size_t i = 0; i < s->what->n_paths; i++) {
        int end = disk_close(s->disks[i]);
        if (end && rc == 0)
            rc = error_set_errno(err, -end, "disk '%s': writing what is left", s->what->paths[i]);
    }
    return rc;
}

static _Noreturn void serve(const struct disk_serve *what, int listener, int reports, int control,
                            pid_t parent)
{
    struct serving s = {.what = what, .reports = reports, .control = control};
    const int keep[] = {listener, reports, control};
    struct error *err = NULL;
    int rc = confine_begin(parent, "tabique-serve", keep, ARRAY_SIZE(keep), &err);

    if (rc == 0)
        rc = open_all(&s, &err);
    if (rc == 0)
        rc = loop_create(&s.loop, &err);
    if (rc == 0)
        rc = confine(&s, &err);
    if (rc == 0)
        rc = build(&s, listener, &err);
    if (rc) {
        tell(&s, err);
        _exit(1);
    }
    tell(&s, NULL);
    loop_run(s.loop);
    nbd_server_free(s.server);
    rc = close_all(&s, &err);
    tell(&s, err);
    _exit(rc ? 1 : 0);
}

/* ---- the socket ---- */

static int listen_tcp(const struct disk_serve *what, uint16_t *port, struct error **err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found;
    char number[8];
    const int yes = 1;

    snprintf(number, sizeof(number), "%u", what->port);
    int rc = getaddrinfo(what->address, number, &hints, &found);
    if (rc)
        return error_set(err, EINVAL, "address '%s': %s", what->address, gai_strerror(rc));
    cleanup_close int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Connections that are accepted have these too. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes)) < 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
        rc = -errno;
    freeaddrinfo(found);
    struct sockaddr_storage own;
    socklen_t len = sizeof(own);
    if (rc == 0 && getsockname(fd, (struct sockaddr *)&own, &len) < 0)
        rc = -errno;
    if (rc)
        return error_set_errno(err, -rc, "address '%s', port %u", what->address, what->port);
    *port = ntohs(own.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&own)->sin6_port
                                            : ((struct sockaddr_in *)&own)->sin_port);
    return steal_fd(fd);
}

/* ---- the process that waits ---- */

static void tell_ready(const struct disk_serve *what, uint16_t port)
{
    bool tls = what->certificates || what->psk, six = what->address && strchr(what->address, ':');

    for (size_t i = 0; what->ready && i < what->n_paths; i++) {
        char *uri;
        const char *scheme = tls ? "nbds" : "nbd", *name = name_of(what, i);
        int n = what->socket ? asprintf(&uri, "%s+unix:///%s?socket=%s", scheme, name, what->socket)
                             : asprintf(&uri, "%s://%s%s%s:%u/%s", scheme, six ? "[" : "", what->address,
                                        six ? "]" : "", port, name);
        if (n < 0)
            continue;
        what->ready(uri);
        free(uri);
    }
}

static int write_pid(const char *path, struct error **err)
{
    cleanup_fclose FILE *f = fopen(path, "we");

    if (!f || fprintf(f, "%d\n", (int)getpid()) < 0 || fflush(f) != 0)
        return error_set_errno(err, errno, "pid file '%s'", path);
    return 0;
}

/* Reads one: false at the end. */
static bool take_report(int fd, struct report *report)
{
    ssize_t n;

    while ((n = read(fd, report, sizeof(*report))) < 0 && errno == EINTR)
        continue;
    report->text[sizeof(report->text) - 1] = '\0';
    return n == sizeof(*report);
}

/* Waits for a signal, or the server's last report. False if it ended without. */
static bool wait_for_end(int reports, int *control, int signals, struct report *report)
{
    struct pollfd fds[] = {{.fd = reports, .events = POLLIN}, {.fd = signals, .events = POLLIN}};

    for (;;) {
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[0].revents)
            return take_report(reports, report);
        struct signalfd_siginfo info;
        if (fds[1].revents && read(signals, &info, sizeof(info)) > 0 && *control >= 0)
            close(steal_fd(*control));
    }
}

static int watch_over(const struct disk_serve *what, pid_t pid, int reports, int *control, int signals,
                      uint16_t port, struct error **err)
{
    struct report report;
    int rc = 0, status = 0;
    bool said = take_report(reports, &report), named = false;

    if (said && report.errnum == 0) {
        rc = what->pid_file ? write_pid(what->pid_file, err) : 0;
        named = what->pid_file && rc == 0;
        if (rc)
            close(steal_fd(*control));
        else
            tell_ready(what, port);
        said = wait_for_end(reports, control, signals, &report);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (named)
        unlink(what->pid_file);
    if (rc)
        return rc;
    if (said)
        return report.errnum ? error_set(err, report.errnum, "%s", report.text) : 0;
    const char *why = confine_violation(status);
    return error_set(err, EIO, "the process that serves ended unexpectedly%s%s", why ? ": " : "",
                     why ? why : "");
}

static int start(const struct disk_serve *what, int listener, uint16_t port, int signals, struct error **err)
{
    int to_us[2], to_it[2];

    if (pipe2(to_us, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "pipe");
    cleanup_close int reports = to_us[0], reports_end = to_us[1];
    if (pipe2(to_it, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "pipe");
    cleanup_close int control_end = to_it[0], control = to_it[1];
    pid_t self = getpid(), pid = fork();
    if (pid < 0)
        return error_set_errno(err, errno, "starting the process that serves");
    if (pid == 0)
        serve(what, listener, reports_end, control_end, self);
    close(steal_fd(reports_end));
    close(steal_fd(control_end));
    return watch_over(what, pid, reports, &control, signals, port, err);
}

int disk_serve(const struct disk_serve *what, struct error **err)
{
    uint16_t port = what->port;
    sigset_t set, before;

    if (!what->n_paths || what->n_paths > DISK_SERVE_MAX)
        return error_set(err, EINVAL, "up to %u images can be served at once", DISK_SERVE_MAX);
    cleanup_close int listener = what->socket ? dial_listen(what->socket, err) : listen_tcp(what, &port, err);
    if (listener < 0)
        return listener;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, &before);
    cleanup_close int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    int rc = signals < 0 ? error_set_errno(err, errno, "signals") : start(what, listener, port, signals, err);
    if (what->socket)
        unlink(what->socket);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return rc;
}
