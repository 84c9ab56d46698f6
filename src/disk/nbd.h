/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The numbers of the Network Block Device protocol, by its specification (NetworkBlockDevice/nbd,
 * doc/proto.md). All are big-endian on the wire. Shared by the server and the client.
 *
 *     server                                  client
 *     MAGIC  OPTION_MAGIC  u16 flags    -->
 *                                       <--   u32 flags
 *                                       <--   OPTION_MAGIC  u32 option  u32 length  data
 *     REPLY_MAGIC u32 option u32 type
 *     u32 length data                   -->                          ... until GO or EXPORT_NAME
 *                                       <--   REQUEST_MAGIC u16 flags u16 command u64 cookie
 *                                             u64 offset u32 length [data of a write]
 *     SIMPLE_MAGIC u32 error u64 cookie [data of a read]       -->
 *     CHUNK_MAGIC u16 flags u16 type u64 cookie u32 length data  -->   with structured replies
 */
#ifndef TABIQUE_DISK_NBD_H
#define TABIQUE_DISK_NBD_H

#define NBD_MAGIC         0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC  0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_REPLY_MAGIC   0x0003e889045565a9ull
#define NBD_REQUEST_MAGIC 0x25609513u
#define NBD_SIMPLE_MAGIC  0x67446698u
#define NBD_CHUNK_MAGIC   0x668e33efu

#define NBD_PORT         10809
#define NBD_NAME_MAX     4096u       /* bytes of a name or a description */
#define NBD_REQUEST_MAX  (32u << 20) /* bytes that a read or write may have if nothing else was agreed on */
#define NBD_REQUEST_SIZE 28u
#define NBD_OPTION_SIZE  16u /* of a client's option without its data */
#define NBD_REPLY_SIZE   20u /* of an answer to it */
#define NBD_SIMPLE_SIZE  16u
#define NBD_CHUNK_SIZE   20u
#define NBD_OLD_ZEROS    124u /* behind the answer to EXPORT_NAME, if the client does not do without */

/* Of both sides at the beginning. */
enum { NBD_FIXED_NEWSTYLE = 1 << 0, NBD_NO_ZEROES = 1 << 1 };

enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_STARTTLS = 5,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_ERROR (1u << 31)
enum nbd_reply {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
    NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERR_UNSUP           (NBD_REP_ERROR + 1)
#define NBD_REP_ERR_POLICY          (NBD_REP_ERROR + 2)
#define NBD_REP_ERR_INVALID         (NBD_REP_ERROR + 3)
#define NBD_REP_ERR_TLS_REQD        (NBD_REP_ERROR + 5)
#define NBD_REP_ERR_UNKNOWN         (NBD_REP_ERROR + 6)
#define NBD_REP_ERR_BLOCK_SIZE_REQD (NBD_REP_ERROR + 8)
#define NBD_REP_ERR_TOO_BIG         (NBD_REP_ERROR + 9)

enum { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

/* What an export can do. */
enum {
    NBD_HAS_FLAGS = 1 << 0,
    NBD_READ_ONLY = 1 << 1,
    NBD_SEND_FLUSH = 1 << 2,
    NBD_SEND_FUA = 1 << 3,
    NBD_SEND_TRIM = 1 << 5,
    NBD_SEND_WRITE_ZEROES = 1 << 6,
    NBD_SEND_DF = 1 << 7,
    NBD_CAN_MULTI_CONN = 1 << 8,
    NBD_SEND_CACHE = 1 << 10,
    NBD_SEND_FAST_ZERO = 1 << 11,
};

enum nbd_command {
    NBD_READ = 0,
    NBD_WRITE = 1,
    NBD_DISCONNECT = 2,
    NBD_FLUSH = 3,
    NBD_TRIM = 4,
    NBD_CACHE = 5,
    NBD_WRITE_ZEROES = 6,
    NBD_BLOCK_STATUS = 7,
};

/* Of a request. */
enum {
    NBD_FUA = 1 << 0,
    NBD_NO_HOLE = 1 << 1,
    NBD_DF = 1 << 2, /* the answer to a read in one piece */
    NBD_REQ_ONE = 1 << 3,
    NBD_FAST_ZERO = 1 << 4,
};

/* Structured replies. */
enum { NBD_CHUNK_DONE = 1 << 0 };
enum nbd_chunk {
    NBD_CHUNK_NONE = 0,
    NBD_CHUNK_OFFSET_DATA = 1,
    NBD_CHUNK_OFFSET_HOLE = 2,
    NBD_CHUNK_BLOCK_STATUS = 5,
    NBD_CHUNK_ERROR = 1 << 15 | 1,
    NBD_CHUNK_ERROR_OFFSET = 1 << 15 | 2,
};

/* Of base:allocation. */
enum { NBD_STATE_HOLE = 1 << 0, NBD_STATE_ZERO = 1 << 1 };
/* Of qemu:dirty-bitmap:NAME. */
enum { NBD_STATE_DIRTY = 1 << 0 };

/* Errors: Linux's numbers, these only. */
enum {
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_EOVERFLOW = 75,
    NBD_ENOTSUP = 95,
    NBD_ESHUTDOWN = 108,
};

#endif
