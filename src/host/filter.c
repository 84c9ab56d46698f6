/* SPDX-License-Identifier: GPL-2.0-or-later */
/* libseccomp's filters: filter.h. */
#include "host/filter.h"

#include "base/cleanup.h"

#include <errno.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int filter_export(void *context, struct sock_fprog *out)
{
    cleanup_close int fd = memfd_create("filter", MFD_CLOEXEC);
    struct stat st;
    int rc = fd < 0 ? -errno : seccomp_export_bpf(context, fd);

    if (rc < 0)
        return rc;
    if (fstat(fd, &st) < 0)
        return -errno;
    cleanup_free struct sock_filter *code = malloc((size_t)st.st_size);
    if (!code)
        return -ENOMEM;
    if (pread(fd, code, (size_t)st.st_size, 0) != st.st_size)
        return -EIO;
    out->len = (unsigned short)((size_t)st.st_size / sizeof(*code));
    out->filter = steal_ptr(code);
    return 0;
}
