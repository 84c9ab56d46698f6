/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The control socket in a guest's runtime directory, however long that directory's name is. */
#ifndef TABIQUE_GUEST_CONTROL_SOCKET_H
#define TABIQUE_GUEST_CONTROL_SOCKET_H

/* Listens in `directory`, in place of what a killed one has left there. A descriptor, or -errno. */
int control_socket_listen(const char *directory);
/* Connects to who listens there. A descriptor, or -errno. */
int control_socket_connect(const char *directory);

#endif
