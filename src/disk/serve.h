/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Serving images to other programs over NBD, until a signal says that it is enough: a process of its own,
 * which is confined before it reads a header or a client's byte, and one that waits for it.
 */
#ifndef TABIQUE_DISK_SERVE_H
#define TABIQUE_DISK_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;

#define DISK_SERVE_MAX 64u /* images */

struct disk_serve {
    const char **paths;
    size_t n_paths;
    const char *format; /* of all of them; NULL: told by the content */
    const char *secret; /* the file that has it, of all that are encrypted; NULL: none is */
    bool read_only, follow;
    const char *bitmap; /* of each, whose content clients can ask for; NULL: none */
    const char **names; /* what clients call them, as many as there are paths; NULL: see disk_serve */
    /* Where: a Unix socket, or a TCP port at an address. */
    const char *socket;
    const char *address;            /* of this host; a name or a number */
    uint16_t port;                  /* 0: any */
    unsigned clients;               /* at once */
    bool persistent;                /* goes on when the last client has gone */
    const char *certificates, *psk; /* see nbd_tls.h; NULL: no TLS */
    const char *pid_file;           /* has the process's number when it is ready; NULL: none */
    /* Called when clients can come, with where: "nbd+unix:///NAME?socket=PATH" or "nbd://HOST:PORT/NAME" of
     * each. May be NULL. */
    void (*ready)(const char *uri);
};

/*
 * One image is the export "", several have their files' names without directories. Ends on SIGINT, SIGTERM or
 * SIGHUP, or when the last client has gone: what clients have flushed, and what else was written, is in the
 * images then. 0 or -errno with *err.
 */
int disk_serve(const struct disk_serve *what, struct error **err);

#endif
