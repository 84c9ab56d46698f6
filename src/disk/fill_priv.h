/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What disk.c and copy.c see of fill.c. */
#ifndef TABIQUE_DISK_FILL_PRIV_H
#define TABIQUE_DISK_FILL_PRIV_H

#include "disk/fill.h"

#include <stdbool.h>

struct disk_fill;
struct disk_request;

/* A request on a disk that is being filled. */
void disk_fill_submit(struct disk_fill *fill, struct disk_request *request);
/* Whether it is being filled, and not only as it is read. */
bool disk_fill_is_busy(const struct disk *disk);
/* The disk is about to be closed, and no request is pending: forgets it without `ended`. */
void disk_fill_forget(struct disk_fill *fill);

#endif
