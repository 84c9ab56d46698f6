/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is used of libarchive, which is loaded when an image or a volume for cloud-init is made: it brings an
 * XML parser, a table of all languages' characters and more, and no guest that runs needs it. */
#ifndef TABIQUE_IMAGE_LIBARCHIVE_H
#define TABIQUE_IMAGE_LIBARCHIVE_H

#include "host/library.h"

#include <archive.h>
#include <archive_entry.h>

#define LIBARCHIVE(F)                                                                                        \
    F(archive_entry_clear)                                                                                   \
    F(archive_entry_filetype)                                                                                \
    F(archive_entry_free)                                                                                    \
    F(archive_entry_gid)                                                                                     \
    F(archive_entry_hardlink)                                                                                \
    F(archive_entry_mtime)                                                                                   \
    F(archive_entry_mtime_nsec)                                                                              \
    F(archive_entry_new)                                                                                     \
    F(archive_entry_pathname)                                                                                \
    F(archive_entry_perm)                                                                                    \
    F(archive_entry_set_filetype)                                                                            \
    F(archive_entry_set_mtime)                                                                               \
    F(archive_entry_set_pathname)                                                                            \
    F(archive_entry_set_perm)                                                                                \
    F(archive_entry_set_size)                                                                                \
    F(archive_entry_size)                                                                                    \
    F(archive_entry_symlink)                                                                                 \
    F(archive_entry_uid)                                                                                     \
    F(archive_entry_acl_next)                                                                                \
    F(archive_entry_acl_reset)                                                                               \
    F(archive_entry_xattr_next)                                                                              \
    F(archive_entry_xattr_reset)                                                                             \
    F(archive_error_string)                                                                                  \
    F(archive_filter_bytes)                                                                                  \
    F(archive_read_data)                                                                                     \
    F(archive_read_data_block)                                                                               \
    F(archive_read_free)                                                                                     \
    F(archive_read_new)                                                                                      \
    F(archive_read_next_header)                                                                              \
    F(archive_read_open)                                                                                     \
    F(archive_read_open_fd)                                                                                  \
    F(archive_read_open_filename)                                                                            \
    F(archive_read_support_filter_all)                                                                       \
    F(archive_read_support_filter_bzip2)                                                                     \
    F(archive_read_support_filter_gzip)                                                                      \
    F(archive_read_support_filter_xz)                                                                        \
    F(archive_read_support_filter_zstd)                                                                      \
    F(archive_read_support_format_raw)                                                                       \
    F(archive_read_support_format_tar)                                                                       \
    F(archive_write_add_filter_zstd)                                                                         \
    F(archive_write_close)                                                                                   \
    F(archive_write_data)                                                                                    \
    F(archive_write_free)                                                                                    \
    F(archive_write_header)                                                                                  \
    F(archive_write_new)                                                                                     \
    F(archive_write_open_fd)                                                                                 \
    F(archive_write_set_format_iso9660)                                                                      \
    F(archive_write_set_format_pax_restricted)                                                               \
    F(archive_write_set_format_raw)                                                                          \
    F(archive_write_set_options)

struct libarchive {
    LIBARCHIVE(LIBRARY_POINTER)
};

/* Its functions, or NULL with *err. */
const struct libarchive *libarchive(struct error **err);

#endif
