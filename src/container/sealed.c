/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Called by commands that send a process among those of a container which may look into others. No state:
 * whether the program is a copy is told by its seals, which no file on a disk has. */
#include "container/sealed.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#define SEALS         (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define ARGUMENTS_MAX (1 << 20)

extern char **environ;

static int copy_program(int program)
{
    struct stat st;
    cleanup_close int copy = memfd_create("tabique-oci", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

    if (copy < 0 && errno == EINVAL) /* before Linux 6.3 */
        copy = memfd_create("tabique-oci", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (copy < 0 || fstat(program, &st) < 0)
        return -errno;
    for (off_t done = 0; done < st.st_size;) {
        ssize_t n = sendfile(copy, program, &done, (size_t)(st.st_size - done));

        if (n <= 0)
            return n < 0 ? -errno : -EIO;
    }
    return fcntl(copy, F_ADD_SEALS, SEALS) < 0 ? -errno : steal_fd(copy);
}

/* The arguments as the kernel has them; NULL behind the last. *text holds them. */
static char **read_arguments(char **text)
{
    cleanup_close int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    size_t used = 0, n = 0;
    ssize_t k;

    *text = fd < 0 ? NULL : malloc(ARGUMENTS_MAX);
    if (!*text)
        return NULL;
    while (used < ARGUMENTS_MAX - 1 && (k = read(fd, *text + used, ARGUMENTS_MAX - 1 - used)) > 0)
        used += (size_t)k;
    (*text)[used] = '\0';
    for (size_t i = 0; i < used; i++)
        n += !(*text)[i];
    char **argv = calloc(n + 1, sizeof(*argv));
    for (size_t i = 0, at = 0; argv && i < n; i++) {
        argv[i] = *text + at;
        at += strlen(*text + at) + 1;
    }
    return argv;
}

int sealed_ensure(struct error **err)
{
    cleanup_close int program = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    if (program < 0)
        return error_set_errno(err, errno, "/proc/self/exe");
    int seals = fcntl(program, F_GET_SEALS);
    if (seals >= 0 && (seals & SEALS) == SEALS)
        return 0;
    cleanup_close int copy = copy_program(program);
    if (copy < 0)
        return error_set_errno(err, -copy, "a copy of this program in memory");
    cleanup_free char *text = NULL;
    cleanup_free char **argv = read_arguments(&text);
    if (!argv)
        return error_set_errno(err, ENOMEM, "arguments");
    syscall(SYS_execveat, copy, "", argv, environ, AT_EMPTY_PATH);
    return error_set_errno(err, errno, "executing a copy of this program in memory");
}
