/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a VM process that its guest has taken over can send as the copy of a disk. All of the input is that;
 * then the connection ends. Either there is a whole file, of the size that was told, or there is none. */
#include "disk/copy_receive.h"
#include "require.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define SENT_MAX       100000u
#define SIZE_MAX_TRIED (1ull << 32)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct disk_job job = {0};
    struct disk_copy_begun begun;
    struct error *err = NULL;
    struct stat st;
    char path[64];
    int pair[2];

    snprintf(path, sizeof(path), "/tmp/fuzz-disk-copy-%d", (int)getpid());
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    if (size > SENT_MAX)
        size = SENT_MAX;
    REQUIRE(send(pair[0], data, size, MSG_NOSIGNAL) == (ssize_t)size);
    REQUIRE(shutdown(pair[0], SHUT_WR) == 0);
    int rc = disk_copy_meet(pair[1], &job, &begun, &err);
    REQUIRE(rc == 0 || (err && !strchr(error_message(err), '\n')));
    if (rc == 0 && begun.size <= SIZE_MAX_TRIED) {
        const struct disk_copy_target target = {.path = path, .format = size % 2 ? "raw" : "qcow2"};

        rc = disk_copy_receive(pair[1], &begun, &target, &job, &err);
        REQUIRE(rc <= 0 && (rc == 0 || (err && !strchr(error_message(err), '\n'))));
        REQUIRE((stat(path, &st) == 0) == (rc == 0));
        if (rc == 0 && size % 2)
            REQUIRE((uint64_t)st.st_size == begun.size);
        unlink(path);
    }
    error_free(err);
    close(pair[0]);
    close(pair[1]);
    return 0;
}
