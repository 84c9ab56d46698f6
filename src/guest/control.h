/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The control protocol (docs/control-protocol.md): a request is a line with a JSON object, and so is its
 * answer. Both sides of it: the parser that the supervisor has, and the client that commands have.
 */
#ifndef TABIQUE_GUEST_CONTROL_H
#define TABIQUE_GUEST_CONTROL_H

#include "disk/throttle.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct home;

#define CONTROL_LINE_MAX        4096 /* of a request, with its newline */
#define CONTROL_ANSWER_MAX      65536
#define CONTROL_NAME_MAX        63
#define CONTROL_DESCRIPTION_MAX 500
#define CONTROL_PATH_MAX        3000
#define CONTROL_SOCKET          "control.sock"

enum control_verb {
    CONTROL_STATUS,
    CONTROL_STOP,
    CONTROL_KILL,
    CONTROL_PAUSE,
    CONTROL_RESUME,
    CONTROL_STATS,
    CONTROL_CONSOLE,
    CONTROL_RESIZE,
    CONTROL_BALLOON,
    CONTROL_PROFILE,
    CONTROL_UPDATE,
    CONTROL_SNAPSHOT,
    CONTROL_BACKUP,
    CONTROL_PIVOT,
    CONTROL_VERBS,
};

/* Whether the guest's file systems are to be frozen for a moment by its agent: if it can, or else not at all.
 */
enum control_freeze { CONTROL_FREEZE_NEVER, CONTROL_FREEZE_TRY, CONTROL_FREEZE_ALWAYS, CONTROL_FREEZES };

struct control_request {
    enum control_verb verb;
    uint64_t timeout_ms;        /* CONTROL_STOP: after it the guest is killed */
    bool while_connected;       /* CONTROL_PAUSE: it ends with the connection, if nobody ends it before */
    enum control_freeze freeze; /* CONTROL_PAUSE, with while_connected; CONTROL_SNAPSHOT */
    bool shutdown;              /* CONTROL_STOP: the host goes down; nobody stops this guest by hand */
    uint16_t columns, rows;     /* CONTROL_CONSOLE, CONTROL_RESIZE: 0 for unknown */
    uint64_t frequency;         /* CONTROL_PROFILE: looks a second, 1..ENGINE_PROFILE_HZ_MAX */
    uint64_t memory_bytes; /* CONTROL_BALLOON: what the guest is to keep; always given. CONTROL_UPDATE: 0 for
                              as it is */
    uint64_t pids, io_weight; /* CONTROL_UPDATE: likewise */
    double cpus;              /* likewise */
    /* CONTROL_UPDATE of a disk, CONTROL_BACKUP: by its number */
    bool of_disk, has_limit[DISK_LIMITS];
    uint64_t disk, disk_bytes; /* 0: as it is */
    struct disk_limits limits;
    bool mirror, stream; /* CONTROL_BACKUP: as of its end; no copy, but the disk is filled from behind */
    bool pivot;          /* with mirror: CONTROL_PIVOT is to follow */
    /* CONTROL_PIVOT: the mirror, an absolute path. */
    char path[CONTROL_PATH_MAX + 1], format[16];
    /* CONTROL_BACKUP: bitmaps, "" for none: what has changed by the first, and what will by a new one. */
    char since[CONTROL_NAME_MAX + 1], bitmap[CONTROL_NAME_MAX + 1];
    /* CONTROL_SNAPSHOT: "": the disks get new layers, and nothing a name */
    char snapshot[CONTROL_NAME_MAX + 1], description[CONTROL_DESCRIPTION_MAX + 1];
};

/* An answer to a request with `freeze` may take so long. */
#define CONTROL_FREEZE_MS 60000u

#define CONTROL_FREQUENCY      99u
#define CONTROL_TIMEOUT_MS     30000u
#define CONTROL_TIMEOUT_MS_MAX 86400000u

/* "never", "try", "always"; NULL beyond the last. */
const char *control_freeze_name(size_t i);

/* Reads a request without its newline. 0; or -EINVAL with *err. */
int control_parse(const char *line, size_t len, struct control_request *out, struct error **err);

/* The request as a line with its newline, to be freed; NULL if there is no memory. */
char *control_format(const struct control_request *request);

/* ---- client ---- */

/*
 * Connects to the supervisor of a guest that runs; one that is about to listen is waited for. A descriptor,
 * or -errno with *err.
 */
int control_connect(const struct home *home, const char *name, struct error **err);
/* Sends a request. 0 or -errno with *err. */
int control_send(int fd, const struct control_request *request, struct error **err);
/* Waits for the answer up to `ms`, and gives it if it says ok; reads nothing beyond its newline. 0 with
 * *answer; or -errno with *err (-ETIMEDOUT; -ECONNRESET: the supervisor has ended). */
int control_receive(int fd, unsigned ms, json_t **answer, struct error **err);

#endif
