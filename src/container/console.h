/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The terminal of a container's process: its slave side inside, its master side to who asked for it. */
#ifndef TABIQUE_CONTAINER_CONSOLE_H
#define TABIQUE_CONTAINER_CONSOLE_H

#include "container/config.h"

struct error;

/* A new terminal of the container's own devpts, found below `root`. *slave is for console_take. */
int console_open(int root, const struct container_process *process, int *master, int *slave,
                 struct error **err);

/* Sends the master over a connected Unix socket (SCM_RIGHTS), with a name, as runc does. */
int console_send(int socket, int master, struct error **err);
/* The other end of that. A descriptor or -errno. */
int console_receive(int socket);

/* Connects to the socket at `path`. A descriptor or -errno with *err. */
int console_connect(const char *path, struct error **err);

/* The slave becomes standard input, output and error and the session's terminal; it is closed. -errno. */
int console_take(int slave);

/* Shows the slave as /dev/console below `root`. */
int console_show(int root, int slave, struct error **err);

#endif
