/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Landlock (Linux, Documentation/userspace-api/landlock.rst): a wall that needs no privileges, so it stands
 * also where namespaces are not permitted. Everything that this kernel's version knows is denied; what was
 * open before stays usable. The structures are ours since the system's headers may be older than its kernel.
 */
#include "host/confine_priv.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#define SYS_CREATE_RULESET 444
#define SYS_ADD_RULE       445
#define SYS_RESTRICT_SELF  446

#define GET_VERSION     1u
#define RULE_PATH       1
#define RIGHT_READ_FILE (1ull << 2)
#define TCP_ALL         3ull /* bind, connect */
#define SCOPE_ALL       3ull /* abstract Unix sockets, signals */

struct ruleset {
    uint64_t files, tcp, scope;
};

struct __attribute__((packed)) path_rule {
    uint64_t allowed;
    int32_t fd;
};

/* How many rights on files, and how long the structure is, from each version on (index 1 is version 1). */
static const struct {
    unsigned file_rights;
    size_t size;
} versions[] = {{0, 0}, {13, 8}, {14, 8}, {15, 8}, {15, 16}, {16, 16}, {16, 24}};

#define NEWEST_KNOWN (sizeof(versions) / sizeof(versions[0]) - 1)

static int allow_file(int ruleset, const char *path)
{
    cleanup_close int fd = open(path, O_PATH | O_CLOEXEC);
    struct path_rule rule = {.allowed = RIGHT_READ_FILE, .fd = fd};

    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    return syscall(SYS_ADD_RULE, ruleset, RULE_PATH, &rule, 0) < 0 ? -errno : 0;
}

/* Everything may be done below the directory. */
static int allow_directory(int ruleset, int directory, uint64_t files)
{
    struct path_rule rule = {.allowed = files, .fd = directory};

    return syscall(SYS_ADD_RULE, ruleset, RULE_PATH, &rule, 0) < 0 ? -errno : 0;
}

static int restrict_self(const struct confine_config *config)
{
    long version = syscall(SYS_CREATE_RULESET, NULL, 0, GET_VERSION);

    if (version < 0)
        return -errno;
    if ((unsigned long)version > NEWEST_KNOWN)
        version = NEWEST_KNOWN;
    struct ruleset rules = {.files = (1ull << versions[version].file_rights) - 1, .scope = SCOPE_ALL};
    if (config->kind != CONFINE_NAT)
        rules.tcp = TCP_ALL;
    cleanup_close int fd = (int)syscall(SYS_CREATE_RULESET, &rules, versions[version].size, 0);
    if (fd < 0)
        return -errno;
    int rc = config->file                     ? allow_file(fd, config->file)
             : config->kind == CONFINE_UNPACK ? allow_directory(fd, config->directory, rules.files)
                                              : 0;
    if (rc)
        return rc;
    return syscall(SYS_RESTRICT_SELF, fd, 0) < 0 ? -errno : 0;
}

void confine_landlock(const struct confine_config *config, struct confine_status *status)
{
    confine_mark(status, CONFINE_LANDLOCK, restrict_self(config));
}
