/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that are imported as images: compressed or not, raw or qcow2, whatever their partitions say. */
#include "base/error.h"
#include "disk/disk.h"
#include "image/import_priv.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define OUTPUT_MAX (16u << 20) /* bytes: little may decompress to much */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int file_of(const uint8_t *data, size_t size)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    if (fd < 0 || (size && pwrite(fd, data, size, 0) != (ssize_t)size))
        abort();
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char name[] = "it", format[] = "raw";
    static int report = -1;
    cleanup_error struct error *err = NULL;
    struct import_message end;
    struct disk_files *files;

    if (report < 0) {
        const struct rlimit limit = {OUTPUT_MAX, OUTPUT_MAX};

        report = open("/dev/null", O_WRONLY | O_CLOEXEC);
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
    }
    int in = file_of(data, size);
    const struct disk_file out = {.fd = file_of(NULL, 0), .lock_fd = -1, .name = name, .format = format};

    if (disk_files_new(&files, &out, 1, true, NULL) < 0)
        abort();
    disk_files_avoid_uring(files);
    int rc = import_read(in, files, NULL, report, &end, &err);
    close(in);
    /* What passes is a disk; what does not says why. */
    if (rc == 0 ? !end.size : !*error_message(err))
        abort();
    return 0;
}
