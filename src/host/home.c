/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The state directory: found from the environment, made on demand. No locks, no state. */
#include "host/home.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
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
