/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The state directory: found from the environment, made on demand. No locks, no state. */
#include "host/home.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fts.h>
#include <string.h>
#include <sys/stat.h>

/* "<a><b>", made absolute by the working directory. */
static int absolute(const char *a, const char *b, char **out, struct error **err)
{
    cleanup_free char *here = a[0] == '/' ? NULL : getcwd(NULL, 0);

    if (a[0] != '/' && !here)
        return error_set_errno(err, errno, "the working directory");
    if (asprintf(out, "%s%s%s%s", here ? here : "", here ? "/" : "", a, b) < 0)
        return error_set_errno(err, ENOMEM, "the state directory");
    return 0;
}

int home_directory(char **out, struct error **err)
{
    const char *home = getenv("TABIQUE_HOME"), *data = getenv("XDG_DATA_HOME"), *person = getenv("HOME");

    if (home && *home)
        return absolute(home, "", out, err);
    if (geteuid() == 0)
        return absolute("/var/lib/tabique", "", out, err);
    /* The XDG Base Directory Specification has relative paths ignored. */
    if (data && data[0] == '/')
        return absolute(data, "/tabique", out, err);
    if (person && person[0] == '/')
        return absolute(person, "/.local/share/tabique", out, err);
    return error_set(err, ENOENT, "no directory for Tabique's state: set TABIQUE_HOME, or HOME");
}

int home_make_directory(const char *path, mode_t mode, struct error **err)
{
    cleanup_free char *copy = strdup(path);
    struct stat st;

    if (!copy)
        return error_set_errno(err, ENOMEM, "%s", path);
    for (char *p = copy + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char saved = *p;
        *p = '\0';
        if (mkdir(copy, mode) < 0 && errno != EEXIST && !(saved && stat(copy, &st) == 0))
            return error_set_errno(err, errno, "can't make the directory %s", copy);
        if (!saved)
            break;
        *p = saved;
    }
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
        return error_set(err, ENOTDIR, "%s is there, but it is no directory", path);
    return 0;
}

/* Where sockets are. A person's are beside the state, not in the session's directory: one state has one
 * place, whatever session or timer asks, and guests that run on after a logout can still be reached. */
static int run_directory(const char *state, char **out, struct error **err)
{
    const char *home = getenv("TABIQUE_HOME");

    if (geteuid() == 0 && !(home && *home))
        return absolute("/run/tabique", "", out, err);
    return absolute(state, "/run", out, err);
}

static void strip_slashes(char *path)
{
    for (size_t len = strlen(path); len > 1 && path[len - 1] == '/'; len--)
        path[len - 1] = '\0';
}

int home_find(struct home *out, struct error **err)
{
    struct home home = {0};
    int rc = home_directory(&home.state, err);

    if (rc == 0) {
        strip_slashes(home.state);
        rc = run_directory(home.state, &home.run, err);
    }
    if (rc) {
        home_clear(&home);
        return rc;
    }
    *out = home;
    return 0;
}

/* One that was there may be anybody's playground, who could put links and sockets of his own in our way. */
static int make_own(const char *path, struct error **err)
{
    struct stat st;
    int rc = home_make_directory(path, 0700, err);

    if (rc == 0 && stat(path, &st) == 0 && st.st_mode & S_IWOTH)
        rc = error_set(err, EPERM, "%s may be written by everybody: 'chmod o-w' it, or choose another", path);
    return rc;
}

int home_make(const struct home *home, struct error **err)
{
    int rc = make_own(home->state, err);

    if (rc == 0)
        rc = make_own(home->run, err);
    return rc ? error_wrap(err, "no place for guests (TABIQUE_HOME can name one)") : 0;
}

void home_clear(struct home *home)
{
    free(home->state);
    free(home->run);
    *home = (struct home){0};
}

int home_remove_tree(const char *path)
{
    char *roots[] = {(char *)path, NULL};
    int rc = 0;
    FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);

    if (!walk)
        return -errno;
    for (FTSENT *e; (e = fts_read(walk));) {
        int failed = 0;

        if (e->fts_info == FTS_D)
            continue;
        if (e->fts_info == FTS_DP)
            failed = rmdir(e->fts_accpath);
        else if (e->fts_info == FTS_NS || e->fts_info == FTS_DNR || e->fts_info == FTS_ERR) {
            errno = e->fts_errno;
            failed = -1;
        } else
            failed = unlink(e->fts_accpath);
        if (failed && errno != ENOENT && !rc)
            rc = -errno;
    }
    fts_close(walk);
    return rc;
}
