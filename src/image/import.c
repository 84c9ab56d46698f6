/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Importing a disk that boots by firmware, as distributions offer them. The file is opened here and read in a
 * confined process of its own (import_worker.c); what that says is believed only about this image.
 */
#include "image/build_priv.h"
#include "image/import_priv.h"
#include "image/libarchive.h"
#include "image/oci_priv.h"
#include "image/store_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"
#include "disk/disk.h"
#include "host/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define HEADROOM (64ull << 20) /* bytes of address space the reading process may come to need */

struct import {
    const char *file;
    int in, out;
    const struct image_progress *progress;
};

_Noreturn static void worker(const struct import *import, const char *format, int report, pid_t parent)
{
    const int keep[] = {import->in, import->out, report};
    const struct confine_config config = {
        .kind = CONFINE_START, .title = "tabique: import", .headroom = HEADROOM};
    char known_format[16] = "";
    struct confine_status status;
    struct disk_files *files = NULL;
    struct import_message failed = {.kind = IMPORT_ENDED, .result = -EPERM};
    cleanup_error struct error *err = NULL;

    /* The arguments, where the format is, are wiped. */
    snprintf(known_format, sizeof(known_format), "%s", format ? format : "");
    int rc = confine_begin(parent, "tabique-import", keep, 3, &err);
    if (rc == 0) {
        const char *slash = strrchr(import->file, '/');
        const struct disk_file file = {.fd = import->out,
                                       .lock_fd = -1,
                                       .name = strdup(slash ? slash + 1 : import->file),
                                       .format = strdup("raw")};
        rc = disk_files_new(&files, &file, 1, true, &err);
    }
    /* Later it could not be opened. */
    if (rc == 0 && !libarchive(&err))
        rc = -ENOPKG;
    if (rc == 0)
        rc = confine_process(&config, &status, &err);
    if (rc == 0)
        import_work(import->in, files, known_format[0] ? known_format : NULL, report);
    snprintf(failed.text, sizeof(failed.text), "%s", error_message(err));
    _exit(write(report, &failed, sizeof(failed)) == sizeof(failed) ? 0 : 1);
}

/* A whole message. 1; 0 at the end; -errno. */
static int receive(int fd, struct import_message *m)
{
    size_t got = 0;

    while (got < sizeof(*m)) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        if (poll(&p, 1, 500) < 0 && errno != EINTR)
            return -errno;
        if (interrupted())
            return -EINTR;
        if (!p.revents)
            continue;
        ssize_t n = read(fd, (char *)m + got, sizeof(*m) - got);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return 0;
        got += n > 0 ? (size_t)n : 0;
    }
    m->text[sizeof(m->text) - 1] = '\0';
    m->format[sizeof(m->format) - 1] = '\0';
    return 1;
}

static int listen_to_worker(const struct import *import, int fd, struct import_message *end,
                            struct error **err)
{
    for (;;) {
        int rc = receive(fd, end);
        if (rc == -EINTR)
            return interrupt_error(err);
        if (rc < 0)
            return error_set_errno(err, -rc, "%s", import->file);
        if (rc == 0)
            return error_set(err, EIO, "%s: the process that reads it ended unexpectedly", import->file);
        if (end->kind == IMPORT_ENDED)
            break;
        /* No number at all is none of these either. */
        if (!(end->fraction >= 0 && end->fraction <= 1))
            end->fraction = 0;
        if (import->progress)
            import->progress->report(
                import->progress->opaque, end->kind == IMPORT_COPYING ? "copying" : "checking",
                end->kind == IMPORT_COPYING ? end->fraction / 2 : 0.5 + end->fraction / 2);
    }
    if (end->result == 0)
        return 0;
    text_make_printable(end->text, sizeof(end->text), end->text);
    return error_set(err, end->result < 0 ? -end->result : EIO, "%s: %s", import->file, end->text);
}

static int read_file(const struct import *import, const char *format, struct import_message *end,
                     struct error **err)
{
    int pipe_fds[2], status = 0;
    pid_t parent = getpid();

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return error_set_errno(err, errno, "%s", import->file);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        worker(import, format, pipe_fds[1], parent);
    close(pipe_fds[1]);
    int rc = pid < 0 ? error_set_errno(err, errno, "%s", import->file)
                     : listen_to_worker(import, pipe_fds[0], end, err);
    close(pipe_fds[0]);
    if (pid < 0)
        return rc;
    if (rc)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    const char *violation = rc && !interrupted() ? confine_violation(status) : NULL;
    return violation ? error_wrap(err, "%s", violation) : rc;
}

/* "/x/debian-12-generic.qcow2.xz" gives "debian-12-generic". */
static char *name_from_file(const char *file)
{
    static const char *const endings[] = {".gz", ".xz", ".zst", ".bz2", ".qcow2", ".raw", ".img"};
    const char *slash = strrchr(file, '/');
    char *name = strdup(slash ? slash + 1 : file);

    for (size_t i = 0; name && i < sizeof(endings) / sizeof(endings[0]); i++) {
        size_t len = strlen(name), ending = strlen(endings[i]);
        if (len > ending && strcmp(name + len - ending, endings[i]) == 0)
            name[len - ending] = '\0';
    }
    return name;
}

static int open_file(const char *path, struct error **err)
{
    /* Without O_NONBLOCK, a FIFO would be waited for. */
    cleanup_close int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return error_set(err, EINVAL, "%s is no regular file", path);
    return steal_fd(fd);
}

int import_check_names_nothing(int fd, const char *file, struct error **err)
{
    uint8_t head[80] = {0};

    if (pread(fd, head, sizeof(head), 0) < 0)
        return error_set_errno(err, errno, "%s", file);
    if (get_be64(head + 8) || (get_be32(head + 4) >= 3 && get_be64(head + 72) & 4))
        return error_set(err, EINVAL,
                         "%s: it needs another file: make one of the two first ('qemu-img convert' does)",
                         file);
    return 0;
}

/* The worker's file becomes the image's. */
static int finish(const struct store *store, struct work *work, struct image *image,
                  const struct import_message *end, const struct image_import *request, struct error **err)
{
    cleanup_free char *from = NULL;
    const char *slash = strrchr(request->file, '/');
    bool qcow2 = strcmp(end->format, "qcow2") == 0;

    if (asprintf(&from, "%s/disk", work->directory) < 0 ||
        asprintf(&image->disk, "%s.%s", from, qcow2 ? "qcow2" : "raw") < 0 ||
        asprintf(&image->origin, "import of %s", slash ? slash + 1 : request->file) < 0)
        return error_set_errno(err, ENOMEM, "image import");
    image->disk_format = strdup(qcow2 ? "qcow2" : "raw");
    image->arch = strdup("amd64");
    image->packages = calloc(1, sizeof(char *));
    if (!image->disk_format || !image->arch || !image->packages)
        return error_set_errno(err, ENOMEM, "image import");
    if (rename(from, image->disk) < 0)
        return error_set_errno(err, errno, "%s", image->disk);
    image->size = end->size;
    image->created = time(NULL);
    return work_commit(store, work, image, NULL, err);
}

static int import_into(const struct store *store, const struct image_import *request,
                       const struct image_progress *progress, struct image **out, struct error **err)
{
    cleanup_image struct image *image = calloc(1, sizeof(*image));
    cleanup_work struct work work = WORK_NONE;
    cleanup_free char *path = NULL;
    struct import_message end;

    if (!image || !(image->name = request->name ? strdup(request->name) : name_from_file(request->file)))
        return error_set_errno(err, ENOMEM, "image import");
    int rc = image_check_name(image->name, err);
    if (rc)
        return request->name ? rc : error_wrap(err, "give the image a name (--name)");
    cleanup_close int in = open_file(request->file, err);
    if (in < 0)
        return in;
    if ((rc = store_create(store, err)) || (rc = work_begin(store, &work, err)))
        return rc;
    if (asprintf(&path, "%s/disk", work.directory) < 0)
        return error_set_errno(err, ENOMEM, "image import");
    cleanup_close int disk = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (disk < 0)
        return error_set_errno(err, errno, "%s", path);
    const struct import import = {.file = request->file, .in = in, .out = disk, .progress = progress};
    rc = read_file(&import, request->format, &end, err);
    if (rc == 0 && strcmp(end.format, "qcow2") == 0)
        rc = import_check_names_nothing(import.out, import.file, err);
    if (rc == 0)
        rc = finish(store, &work, image, &end, request, err);
    return rc ? rc : image_lookup(store->home, image->name, out, err);
}

int image_import(const char *home, const struct image_import *request, const struct image_progress *progress,
                 struct image **out, struct error **err)
{
    cleanup_store struct store store = {0};
    int rc = store_open(home, &store, err);

    struct oci_place place = {0};
    int container = rc ? 0 : oci_place_parse(request->file, &place);

    if (rc == 0 && container < 0)
        rc = error_set_errno(err, ENOMEM, "image import");
    if (rc == 0) {
        interrupt_begin();
        rc = container ? oci_import(&store, &place, request, progress, out, err)
                       : import_into(&store, request, progress, out, err);
        interrupt_end();
    }
    oci_place_clear(&place);
    return rc;
}
