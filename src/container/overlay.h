/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The root file system of a container that is made from an image: the image's layers, which stay as they are,
 * and on top what the container writes. Called by those who make containers of Tabique's own kind. */
#ifndef TABIQUE_CONTAINER_OVERLAY_H
#define TABIQUE_CONTAINER_OVERLAY_H

#include <stddef.h>

struct error;

/*
 * Mounts it at DIRECTORY/root, in the mount namespace of this process. `layers` are the n unpacked trees, the
 * lowest first, with attributes named user.overlay. What the container writes lies in DIRECTORY/upper and
 * stays. Both are made, as are DIRECTORY/work, which is overlayfs's own, and DIRECTORY/lower, which has links
 * to the layers. 0 or -errno with *err.
 */
int overlay_mount(const char *directory, const char *const *layers, size_t n, struct error **err);

#endif
