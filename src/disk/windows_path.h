/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of files as VHD and VHDX have them of their parents. */
#ifndef TABIQUE_DISK_WINDOWS_PATH_H
#define TABIQUE_DISK_WINDOWS_PATH_H

/* How a path of Windows' is written here, without ".\\" before it. To be freed; NULL: no memory. */
char *windows_path_to_here(const char *path);
/* The other way: as one from the image's own directory, unless it is absolute. To be freed; NULL: no memory.
 */
char *windows_path_of(const char *name);

#endif
