/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where Tabique keeps its state: $TABIQUE_HOME, or /var/lib/tabique for root, or $XDG_DATA_HOME/tabique
 * ($HOME/.local/share/tabique). And what does not outlast the host's next start, sockets: /run/tabique for
 * root, run/ in the state directory for others and where $TABIQUE_HOME is set. Called by all that stores
 * something.
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

/* Removes a directory with all that is in it, following no link and staying on its file system. What is not
 * there is no error. 0 or -errno of the first thing that stayed. */
int home_remove_tree(const char *path);

/* Both directories; absolute paths without a final slash. */
struct home {
    char *state;
    char *run;
};

/* Finds both; makes nothing. 0 with *out, to be cleared by home_clear; or -errno with *err. */
int home_find(struct home *out, struct error **err);
/* Makes both, for their owner alone. 0 or -errno with *err. */
int home_make(const struct home *home, struct error **err);
void home_clear(struct home *home);

static inline void home_cleanup(struct home *home)
{
    home_clear(home);
}
#define cleanup_home __attribute__((cleanup(home_cleanup)))

#endif
