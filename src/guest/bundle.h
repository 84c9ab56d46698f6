/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a container guest is, in the words of the OCI runtime specification: config.json, made from the flags
 * that it was run with (guest/config.h), its image's configuration and its root file system. Called by the
 * container process at each start, and by the command line to check flags. No state.
 */
#ifndef TABIQUE_GUEST_BUNDLE_H
#define TABIQUE_GUEST_BUNDLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct error;

/* Who the program runs as. */
struct bundle_user {
    uint32_t uid, gid;
    uint32_t gids[32]; /* further groups */
    size_t n_gids;
    char home[256];
};

struct bundle {
    const json_t *flags;   /* the guest's configuration */
    const json_t *image;   /* the image's configuration: its object "config", or NULL */
    const char *name;      /* of the guest */
    const char *directory; /* of the guest, with root/, and the files that are shown in its etc/ */
    const char *volumes;   /* directory of named volumes */
    const char *cgroup;    /* where its groups are, for cgroupsPath */
    struct bundle_user user;
    bool terminal;
    bool rootless; /* in a user namespace already, without the host's rights */
    uint16_t columns, rows;
};

/* The document; to be released. NULL with *err, which names the flag. */
json_t *bundle_make(const struct bundle *bundle, struct error **err);

/* The limits among the flags, as "resources" of the document; also for `update`. To be released. */
json_t *bundle_limits(const json_t *flags);

/* Whether the flags make sense, as far as that can be told without the image. 0 or -EINVAL with *err. */
int bundle_check(const json_t *flags, struct error **err);

/* The signal that asks for the end: from the image ("SIGQUIT", "3", "SIGRTMIN+3"), or SIGTERM. */
int bundle_stop_signal(const json_t *image);

/* A volume that the image asks for at `destination`: whether no --volume is there, and the name of its
 * directory among the guest's volumes; to be freed. */
bool bundle_wants_volume(const json_t *flags, const char *destination);
char *bundle_volume_name(const char *destination);
#define BUNDLE_VOLUMES "volumes"

/* Whether the program is an init system, which is a whole system's first process and has needs of its own. */
bool bundle_is_system(const json_t *flags, const json_t *image);

/*
 * bundle_user.c. Who "NAME", "ID", "NAME:GROUP" or the like is by /etc/passwd and /etc/group of the root file
 * system `root`, a descriptor; "" or NULL is root. 0 with *out, or -errno with *err.
 */
int bundle_find_user(int root, const char *text, struct bundle_user *out, struct error **err);

/* bundle_process.c, bundle_mounts.c: members of the document. NULL with *err. */
json_t *bundle_process(const struct bundle *bundle, struct error **err);
json_t *bundle_mounts(const struct bundle *bundle, struct error **err);
/* The words of the program: flags' command, image's entry point and default. NULL with *err. */
json_t *bundle_args(const json_t *flags, const json_t *image, struct error **err);
int bundle_check_process(const json_t *flags, struct error **err);
int bundle_check_mounts(const json_t *flags, struct error **err);
/* bundle_hidden.c: "maskedPaths" and "readonlyPaths" of the document's linux part, by --security-opt. */
int bundle_check_hidden(const json_t *flags, struct error **err);
void bundle_hide(const json_t *flags, json_t *linux_part);
/* Of repeated --security-opt the value of `key`, "" where it has none; NULL if it is not there. */
const char *bundle_security_option(const json_t *flags, const char *key);

#endif
