/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where Tabique keeps its state: $TABIQUE_HOME, or /var/lib/tabique for root, or $XDG_DATA_HOME/tabique
 * ($HOME/.local/share/tabique). Called by all that stores something.
 */
#ifndef TABIQUE_HOST_HOME_H
#define TABIQUE_HOST_HOME_H

#include <sys/types.h>

struct error;

/*
 * The state directory's absolute path in *out (free() it). It need not exist. -ENOENT where the environment
 * names none.
 */
int home_directory(char **out, struct error **err);

/* Makes `path` and what is missing above it, with `mode` (of which the umask takes its part). 0 if it is
 * there. */
int home_make_directory(const char *path, mode_t mode, struct error **err);

#endif
