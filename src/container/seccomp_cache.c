/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs of profiles that were compiled before: engines give most containers the same profile, and
 * libseccomp takes some 20 ms for it. A file each, in a directory of the runtime's that nobody else can write
 * to:
 *
 *     ROOT/.seccomp/HASH     struct head, what the program was made of, the program
 *
 * The whole of what it was made of is compared, not its hash alone. A file appears complete or not at all;
 * one that does not fit is as none. Called by the commands that make processes.
 */
#include "container/setup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/container.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#define DIRECTORY   ".seccomp"
#define FILES_MAX   64   /* then new ones are not kept */
#define PROGRAM_MAX 4096 /* instructions: the kernel's limit (BPF_MAXINSNS) */

static const char format[8] = "TQSECC1";

struct head {
    char format[8];
    uint32_t key_size, n_instructions;
};

/* FNV-1a. */
static uint64_t hash_of(const char *text)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
    return hash;
}

/* The profile and the kernel, which the library asks what it can do. */
static char *make_key(const struct container_config *config)
{
    json_t *profile = json_object_get(json_object_get(config->json, "linux"), "seccomp");
    cleanup_free char *text = json_dumps(profile, JSON_COMPACT | JSON_SORT_KEYS);
    struct utsname name;
    char *key = NULL;

    if (!text || uname(&name) < 0 || asprintf(&key, "%s %s %s", name.release, name.version, text) < 0)
        return NULL;
    return key;
}

/* Nobody but this user may have had a hand in it. */
static bool is_ours(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & 022);
}

static int open_directory(const struct container_runtime *runtime)
{
    cleanup_close int root = open(runtime->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (root < 0 || !is_ours(root) || (mkdirat(root, DIRECTORY, 0700) < 0 && errno != EEXIST))
        return -1;
    cleanup_close int fd = openat(root, DIRECTORY, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd >= 0 && is_ours(fd) ? steal_fd(fd) : -1;
}

static bool find(int dir, const char *name, const char *key, struct sock_fprog *out)
{
    cleanup_close int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    size_t key_size = strlen(key);
    struct head head;

    if (fd < 0 || !is_ours(fd) || read(fd, &head, sizeof(head)) != sizeof(head) ||
        memcmp(head.format, format, sizeof(format)) != 0 || head.key_size != key_size ||
        !head.n_instructions || head.n_instructions > PROGRAM_MAX)
        return false;
    size_t size = head.n_instructions * sizeof(struct sock_filter);
    cleanup_free char *same = malloc(key_size);
    cleanup_free struct sock_filter *code = malloc(size);
    if (!same || !code || read(fd, same, key_size) != (ssize_t)key_size || memcmp(same, key, key_size) != 0 ||
        read(fd, code, size) != (ssize_t)size)
        return false;
    out->len = (unsigned short)head.n_instructions;
    out->filter = steal_ptr(code);
    return true;
}

static bool has_room(int dir)
{
    int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy < 0 ? NULL : fdopendir(copy);
    size_t n = 0;

    while (list && readdir(list))
        n++;
    if (list)
        closedir(list);
    return list && n < FILES_MAX;
}

static void keep(int dir, const char *name, const char *key, const struct sock_fprog *program)
{
    struct head head = {.key_size = (uint32_t)strlen(key), .n_instructions = program->len};
    size_t size = program->len * sizeof(struct sock_filter);
    char temporary[48];

    if (program->len > PROGRAM_MAX || !has_room(dir))
        return;
    memcpy(head.format, format, sizeof(format));
    snprintf(temporary, sizeof(temporary), ".%d.new", (int)getpid());
    cleanup_close int fd =
        openat(dir, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, &head, sizeof(head)) != sizeof(head) ||
        write(fd, key, head.key_size) != (ssize_t)head.key_size ||
        write(fd, program->filter, size) != (ssize_t)size || renameat(dir, temporary, dir, name) < 0)
        unlinkat(dir, temporary, 0);
}

int seccomp_program(const struct container_runtime *runtime, const struct container_config *config,
                    struct sock_fprog *out, struct error **err)
{
    cleanup_free char *key = make_key(config);
    cleanup_close int dir = key ? open_directory(runtime) : -1;
    char name[24];

    snprintf(name, sizeof(name), "%016" PRIx64, key ? hash_of(key) : 0);
    if (dir >= 0 && find(dir, name, key, out))
        return 0;
    int rc = seccomp_compile(&config->seccomp, out, err);
    if (rc == 0 && dir >= 0)
        keep(dir, name, key, out);
    return rc;
}
