/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Layers: compressed or not, with whatever names, links and sizes. What lies beside the directory must stay
 * as it is. */
#include "base/error.h"
#include "image/unpack_priv.h"
#include "require.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST (1u << 20) /* bytes: little may unpack to much */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char place[64];

static void clean_up(void)
{
    work_delete_tree(place);
}

static void set_up(void)
{
    const struct rlimit limit = {MOST, MOST};

    snprintf(place, sizeof(place), "%s/tabique-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    REQUIRE(mkdtemp(place));
    atexit(clean_up);
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char root[80];
    struct error *err = NULL;
    struct unpack_result result;
    struct stat before, after;

    if (!place[0])
        set_up();
    snprintf(root, sizeof(root), "%s/root", place);
    REQUIRE(mkdir(root, 0755) == 0);
    int in = memfd_create("fuzz", MFD_CLOEXEC), fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(in >= 0 && fd >= 0 && pwrite(in, data, size, 0) == (ssize_t)size);
    REQUIRE(stat(place, &before) == 0);
    /* Its last byte says for whom it is: a layer, or the archive of an image. */
    const struct unpack_job job = {
        .name = "it", .in = in, .root = fd, .layer = !(size && data[size - 1] & 1), .most = MOST};
    int rc = unpack_stream(&job, NULL, NULL, &result, &err);
    REQUIRE(rc == 0 ? strlen(result.digest) == IMAGE_ID_LENGTH : *error_message(err) != '\0');
    REQUIRE(stat(place, &after) == 0 && after.st_mtim.tv_sec == before.st_mtim.tv_sec &&
            after.st_mtim.tv_nsec == before.st_mtim.tv_nsec);
    error_free(err);
    close(in);
    close(fd);
    work_delete_tree(root);
    return 0;
}
