/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Users of a container's root file system. passwd and group are the image's, so of unknown origin: read line
 * by line, by numbers where a name is none, and opened so that no link of theirs leads out. No state.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"
#include "guest/bundle.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILE_MAX   (1u << 20)
#define FIELDS_MAX 7

/* A file of the root; NULL where there is none that could be read. */
static FILE *open_file(int root, const char *path)
{
    const struct open_how how = {.flags = O_RDONLY | O_NONBLOCK | O_CLOEXEC,
                                 .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    struct stat st;
    int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));

    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX) {
        close(fd);
        return NULL;
    }
    FILE *f = fdopen(fd, "r");
    if (!f)
        close(fd);
    return f;
}

static bool parse_id(const char *text, uint32_t *out)
{
    char *end;

    if (!*text || strspn(text, "0123456789") != strlen(text))
        return false;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || n >= UINT32_MAX)
        return false;
    *out = (uint32_t)n;
    return true;
}

/* Splits at colons; the number of fields. */
static size_t split(char *line, char *fields[FIELDS_MAX])
{
    size_t n = 0;

    line[strcspn(line, "\n")] = '\0';
    for (char *p = line; p && n < FIELDS_MAX; n++)
        fields[n] = strsep(&p, ":");
    return n;
}

/* passwd(5): name, password, uid, gid, comment, home, shell. By name, or by the number. */
static bool find_passwd(int root, const char *name, struct bundle_user *user, char found[256])
{
    cleanup_fclose FILE *f = open_file(root, "etc/passwd");
    uint32_t wanted, uid, gid;
    bool by_number = parse_id(name, &wanted);
    char line[1024], *fields[FIELDS_MAX];

    while (f && fgets(line, sizeof(line), f)) {
        if (split(line, fields) < 6 || !parse_id(fields[2], &uid) || !parse_id(fields[3], &gid))
            continue;
        if (strcmp(fields[0], name) != 0 && !(by_number && uid == wanted))
            continue;
        user->uid = uid;
        user->gid = gid;
        snprintf(user->home, sizeof(user->home), "%.255s", fields[5]);
        snprintf(found, 256, "%.255s", fields[0]);
        return true;
    }
    return false;
}

static bool has_member(char *members, const char *name)
{
    for (char *member; (member = strsep(&members, ","));)
        if (strcmp(member, name) == 0)
            return true;
    return false;
}

/* group(5): name, password, gid, members. The groups that the user is a member of. */
static void find_groups(int root, const char *name, struct bundle_user *user)
{
    cleanup_fclose FILE *f = open_file(root, "etc/group");
    char line[4096], *fields[FIELDS_MAX];
    uint32_t gid;

    while (f && *name && fgets(line, sizeof(line), f))
        if (split(line, fields) >= 4 && parse_id(fields[2], &gid) && has_member(fields[3], name) &&
            user->n_gids < sizeof(user->gids) / sizeof(user->gids[0]))
            user->gids[user->n_gids++] = gid;
}

static bool find_group(int root, const char *name, uint32_t *out)
{
    cleanup_fclose FILE *f = open_file(root, "etc/group");
    char line[4096], *fields[FIELDS_MAX];

    while (f && fgets(line, sizeof(line), f))
        if (split(line, fields) >= 3 && strcmp(fields[0], name) == 0 && parse_id(fields[2], out))
            return true;
    return parse_id(name, out);
}

int bundle_find_user(int root, const char *text, struct bundle_user *out, struct error **err)
{
    struct bundle_user user = {.home = "/"};
    cleanup_free char *name = strdup(text && *text ? text : "0");
    char found[256] = "", shown[128];

    if (!name)
        return error_set_errno(err, ENOMEM, "user");
    text_make_printable(shown, sizeof(shown), name);
    char *group = strchr(name, ':');
    if (group)
        *group++ = '\0';
    if (!find_passwd(root, name, &user, found) && !parse_id(name, &user.uid))
        return error_set(err, EINVAL, "--user: the container has no user '%s' in its /etc/passwd", shown);
    if (user.uid == 0 && !found[0])
        strcpy(user.home, "/root");
    if (group && !find_group(root, group, &user.gid))
        return error_set(err, EINVAL, "--user: the container has no group of '%s' in its /etc/group", shown);
    if (!group && found[0]) {
        user.gids[user.n_gids++] = user.gid;
        find_groups(root, found, &user);
    }
    *out = user;
    return 0;
}
