/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A container's /etc/passwd and /etc/group, with who is asked for between them: PASSWD \1 USER \1 GROUP. */
#include "base/error.h"
#include "guest/bundle.h"
#include "host/home.h"
#include "require.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char place[64];
static int root;

static void clean_up(void)
{
    home_remove_tree(place);
}

static void set_up(void)
{
    snprintf(place, sizeof(place), "%s/tabique-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    REQUIRE(mkdtemp(place));
    atexit(clean_up);
    root = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE(root >= 0 && mkdirat(root, "etc", 0755) == 0);
}

static void write_file(const char *name, const uint8_t *bytes, size_t len)
{
    int fd = openat(root, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    REQUIRE(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *first = size ? memchr(data, 1, size) : NULL;
    const uint8_t *second = first ? memchr(first + 1, 1, size - (size_t)(first + 1 - data)) : NULL;
    struct bundle_user user;
    struct error *err = NULL;
    char name[64];

    if (!place[0])
        set_up();
    if (!second)
        return 0;
    snprintf(name, sizeof(name), "%.*s", (int)(second - first - 1), (const char *)first + 1);
    write_file("etc/passwd", data, (size_t)(first - data));
    write_file("etc/group", second + 1, size - (size_t)(second + 1 - data));
    int rc = bundle_find_user(root, name, &user, &err);
    if (rc == 0)
        REQUIRE(user.n_gids <= 32 && strlen(user.home) < sizeof(user.home));
    else
        REQUIRE(*error_message(err));
    error_free(err);
    return 0;
}
