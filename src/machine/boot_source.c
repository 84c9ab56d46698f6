/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening and reading kernels, initrds and modules. No locks. */
#include "machine/boot_source.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* A pipe can be read only once, but a reset needs it again: keep it in memory. */
static int spool(int *fd, const char *what, const char *path, uint64_t limit, struct error **err)
{
    cleanup_close int copy = memfd_create("boot-file", MFD_CLOEXEC);
    cleanup_free uint8_t *buf = malloc(1 << 16);
    uint64_t size = 0;

    if (copy < 0 || !buf)
        return error_set_errno(err, copy < 0 ? errno : ENOMEM, "%s '%s'", what, path);
    for (;;) {
        ssize_t n = read(*fd, buf, 1 << 16);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set_errno(err, errno, "%s '%s'", what, path);
        if (n == 0)
            break;
        size += (uint64_t)n;
        if (size > limit)
            return error_set(
                err, EFBIG, "%s '%s' is larger than the guest's memory of %llu MiB: choose a larger --memory",
                what, path, (unsigned long long)limit >> 20);
        for (ssize_t done = 0; done < n;) {
            ssize_t written = write(copy, buf + done, (size_t)(n - done));

            if (written < 0)
                return error_set_errno(err, errno, "%s '%s'", what, path);
            done += written;
        }
    }
    close(*fd);
    *fd = steal_fd(copy);
    return 0;
}

int boot_source_open(struct boot_source *out, const char *what, const char *path, uint64_t limit,
                     struct error **err)
{
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set_errno(err, errno, "%s '%s'", what, path);
    if (S_ISDIR(st.st_mode))
        return error_set(err, EISDIR, "%s '%s' is a directory: give a file", what, path);
    if (!S_ISREG(st.st_mode)) {
        int rc = spool(&fd, what, path, limit, err);

        if (rc)
            return rc;
        if (fstat(fd, &st) < 0)
            return error_set_errno(err, errno, "%s '%s'", what, path);
    }
    char *name = strdup(path);
    if (!name)
        return error_set_errno(err, ENOMEM, "%s '%s'", what, path);
    *out = (struct boot_source){.fd = steal_fd(fd), .size = (uint64_t)st.st_size, .name = name};
    return 0;
}

int boot_source_open_module(struct boot_source *out, const char *module, uint64_t limit, struct error **err)
{
    const char *equals = strchr(module, '=');
    cleanup_free char *path = equals ? strndup(module, (size_t)(equals - module)) : strdup(module);
    cleanup_free char *command_line = equals ? strdup(equals + 1) : NULL;

    if (!path || (equals && !command_line))
        return error_set_errno(err, ENOMEM, "module '%s'", module);
    struct boot_source source = BOOT_SOURCE_NONE;
    int rc = boot_source_open(&source, "module", path, limit, err);
    if (rc)
        return rc;
    source.command_line = steal_ptr(command_line);
    *out = source;
    return 0;
}

int boot_source_load(const struct boot_source *source, struct boot_file *file, struct error **err)
{
    uint64_t done = 0;
    /* Page by page from the system: what is read here goes back to it at once. Never empty, so that NULL
     * means none. */
    size_t room = source->size ? source->size : 1;
    uint8_t *data = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (data == MAP_FAILED)
        return error_set_errno(err, errno, "'%s' of %llu MiB", source->name,
                               (unsigned long long)source->size >> 20);
    while (done < source->size) {
        ssize_t n = pread(source->fd, data + done, source->size - done, (off_t)done);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int rc = n < 0 ? error_set_errno(err, errno, "'%s'", source->name)
                           : error_set(err, EIO, "'%s' has become shorter while it was in use", source->name);
            munmap(data, room);
            return rc;
        }
        done += (uint64_t)n;
    }
    *file = (struct boot_file){
        .data = data, .size = source->size, .name = source->name, .command_line = source->command_line};
    return 0;
}

void boot_source_unload(struct boot_file *file)
{
    if (file->data)
        munmap((void *)file->data, file->size ? file->size : 1);
    *file = (struct boot_file){0};
}

void boot_source_close(struct boot_source *source)
{
    cleanup_close_fn(&source->fd);
    free(source->name);
    free(source->command_line);
    *source = BOOT_SOURCE_NONE;
}
