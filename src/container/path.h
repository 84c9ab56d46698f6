/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files below a root that nobody trusts. Each path is resolved by the kernel, in one call, as if `root` were
 * "/": neither ".." nor a symbolic link leads out, whatever is exchanged meanwhile, and links such as
 * /proc/PID/fd/3 lead nowhere. What comes back is a descriptor, and who uses that instead of the path can't
 * be led elsewhere later.
 */
#ifndef TABIQUE_CONTAINER_PATH_H
#define TABIQUE_CONTAINER_PATH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* `flags` as open(2); O_CLOEXEC is added. A descriptor or -errno. */
int path_open(int root, const char *path, int flags);

/* Likewise, where no component may be a symbolic link: -ELOOP. */
int path_open_plain(int root, const char *path, int flags);

/* An O_PATH descriptor of what is at `path`, a symbolic link at its end followed. What is missing is made:
 * the directories on the way and, at the end, a directory or an empty file. -errno. */
int path_make_directory(int root, const char *path, mode_t mode);
int path_make_file(int root, const char *path);

/* The directory that `path` lies in, made where it is missing, as an O_PATH descriptor; *name points to the
 * last component in `path`. -EINVAL where there is none. */
int path_open_parent(int root, const char *path, const char **name);

#endif
