/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between paths of Windows' and of this system. No state. */
#include "disk/windows_path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void replace(char *text, char from, char to)
{
    for (char *p = text; *p; p++)
        if (*p == from)
            *p = to;
}

char *windows_path_to_here(const char *path)
{
    char *whole = strdup(path);

    if (!whole)
        return NULL;
    replace(whole, '\\', '/');
    if (strncmp(whole, "./", 2) == 0)
        memmove(whole, whole + 2, strlen(whole + 2) + 1);
    return whole;
}

char *windows_path_of(const char *name)
{
    char *path;

    if (asprintf(&path, "%s%s", name[0] == '/' || name[0] == '.' ? "" : "./", name) < 0)
        return NULL;
    replace(path, '/', '\\');
    return path;
}
