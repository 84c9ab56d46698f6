/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is said to criu and heard of it, in the encoding of protocol buffers (proto2): a message is a row of
 * fields, each a number and what it holds. criu's rpc.proto gives them their meaning; those used here are
 * named below. A few dozen fields are not worth a library.
 */
#ifndef TABIQUE_CONTAINER_CRIU_MESSAGE_H
#define TABIQUE_CONTAINER_CRIU_MESSAGE_H

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum criu_kind {
    CRIU_DUMP = 1,
    CRIU_RESTORE = 2,
    CRIU_PRE_DUMP = 4,
    CRIU_NOTIFY = 6,
};

enum criu_request_field { CRIU_REQUEST_KIND = 1, CRIU_REQUEST_OPTIONS = 2, CRIU_REQUEST_NOTIFY_SUCCESS = 3 };

/* Of CRIU_NETWORK_LOCK: what keeps packets away from sockets that are written, or not yet there again. */
enum criu_network_lock { CRIU_LOCK_IPTABLES = 1, CRIU_LOCK_NFTABLES = 2 };

/* Of criu_opts. */
enum criu_option {
    CRIU_IMAGES_DIR_FD = 1,
    CRIU_PID = 2,
    CRIU_LEAVE_RUNNING = 3,
    CRIU_EXT_UNIX_SK = 4,
    CRIU_TCP_ESTABLISHED = 5,
    CRIU_EVASIVE_DEVICES = 6,
    CRIU_SHELL_JOB = 7,
    CRIU_FILE_LOCKS = 8,
    CRIU_LOG_LEVEL = 9,
    CRIU_LOG_FILE = 10,
    CRIU_PAGE_SERVER = 11, /* address = 1, port = 2 */
    CRIU_NOTIFY_SCRIPTS = 12,
    CRIU_ROOT = 13,
    CRIU_PARENT_IMAGES = 14,
    CRIU_TRACK_MEMORY = 15,
    CRIU_AUTO_DEDUP = 16,
    CRIU_WORK_DIR_FD = 17,
    CRIU_LINK_REMAP = 18,
    CRIU_EXT_MOUNT = 23, /* key = 1, value = 2 */
    CRIU_MANAGE_CGROUPS = 24,
    CRIU_CGROUP_ROOT = 25, /* controllers = 1, path = 2 */
    CRIU_RESTORE_SIBLING = 26,
    CRIU_INHERIT_FD = 27, /* key = 1, descriptor = 2 */
    CRIU_MANAGE_CGROUPS_MODE = 34,
    CRIU_EXTERNAL = 37,
    CRIU_EMPTY_NAMESPACES = 38,
    CRIU_JOIN_NAMESPACE = 39, /* kind = 1, file = 2 */
    CRIU_FREEZE_CGROUP = 44,
    CRIU_TCP_SKIP_IN_FLIGHT = 46,
    CRIU_LAZY_PAGES = 48,
    CRIU_STATUS_FD = 49,
    CRIU_ORPHAN_PTS_MASTER = 50,
    CRIU_LSM_PROFILE = 53,
    CRIU_LSM_MOUNT_CONTEXT = 63,
    CRIU_NETWORK_LOCK = 64,
};

/* A message being written. */
void criu_put_number(struct buffer *m, unsigned field, uint64_t value);
void criu_put_text(struct buffer *m, unsigned field, const char *text);
void criu_put_message(struct buffer *m, unsigned field, const struct buffer *inner);
/* A message of two fields, 1 and 2, in one field: what many of criu's options are. */
void criu_put_pair(struct buffer *m, unsigned field, const char *first, const char *second);

/* A descriptor that criu was given, in the place of what has that key. */
void criu_put_inherited(struct buffer *m, const char *key, int fd);

/* What criu answers, at the end or in between (CRIU_NOTIFY). */
struct criu_answer {
    unsigned kind;
    bool success;
    pid_t pid;         /* of a restored container, or of what is told in between; 0: none */
    char script[32];   /* what is told: "post-restore" and the like */
    int errnum;        /* 0: not said */
    char message[512]; /* the first error, or "" */
};

/* -EPROTO for what is no such message. */
int criu_answer_parse(const void *data, size_t size, struct criu_answer *out);

#endif
