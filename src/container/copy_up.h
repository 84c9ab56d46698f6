/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copies of directories of an image, for what is mounted over them: tmpcopyup, volumes. */
#ifndef TABIQUE_CONTAINER_COPY_UP_H
#define TABIQUE_CONTAINER_COPY_UP_H

struct error;

/* What lies in the directory `from`, into the directory `to`, with owners and modes. 0 or -errno with *err.
 */
int copy_up(int from, int to, struct error **err);

#endif
