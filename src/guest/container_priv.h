/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The parts of the container process: container_process.c (the container's life), container_rootfs.c (what it
 * finds in its root), container_relay.c (its console), container_net.c (its network). One process, one
 * thread, one loop: no locks.
 */
#ifndef TABIQUE_GUEST_CONTAINER_PRIV_H
#define TABIQUE_GUEST_CONTAINER_PRIV_H

#include "container/container.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroup;
struct error;
struct home;
struct loop;
struct net_backend;

/* ---- container_outside.c ---- */

/* Where a guest's groups are, for cgroupsPath. */
void container_cgroup_path(const struct home *home, const char *name, char *out, size_t size);

/* ---- container_rootfs.c ---- */

/* Mounts the image's layers at DIRECTORY/root, in a mount namespace that this process is in from then on. 0
 * or -errno with *err. */
int container_rootfs_mount(const char *directory, const json_t *flags, struct error **err);
/* The image's object "config", of the file that the guest's configuration names; NULL with *err. */
json_t *container_rootfs_config(const json_t *flags, struct error **err);
/* Writes what is shown in its etc/: resolv.conf, hosts, hostname. 0 or -errno with *err. */
int container_rootfs_etc(const char *directory, const char *hostname, const json_t *flags,
                         struct error **err);

/* Makes the volumes that the image asks for and --volume does not give, in the guest's directory, with what
 * the image has there. Those that are there stay. 0 or -errno with *err. */
int container_rootfs_volumes(const char *directory, const json_t *image, const json_t *flags,
                             struct error **err);

/* ---- container_health.c: the image's Healthcheck ---- */

/* In the guest's runtime directory, while it runs: {"status": "starting" | "healthy" | "unhealthy", ...}. */
#define CONTAINER_HEALTH_FILE "health.json"

struct container_health;

/* Runs the check in the container `name` from now on, and writes what it finds to the file `path`; nothing,
 * and *out is NULL, where the image has none. 0 or -errno with *err. */
int container_health_open(struct container_health **out, struct loop *loop,
                          const struct container_runtime *runtime, const char *name, const json_t *image,
                          const struct cgroup *cgroup, const char *path, struct error **err);
void container_health_close(struct container_health *health);

/* ---- container_relay.c: bytes from one descriptor to another, until the first has no more ---- */

struct relay;

/* Owns both descriptors. When all is written that came, or nobody reads it any more, `to` is closed and
 * `ended` called. 0 or -errno. */
int relay_open(struct relay **out, struct loop *loop, int from, int to, void (*ended)(void *opaque),
               void *opaque);
void relay_close(struct relay *relay);

/* ---- container_net.c ---- */

struct container_net;

/*
 * Takes this process, and the container that it makes then, into a new network namespace: with lo, and
 * (has_backend) an Ethernet interface, eth0, with an address of the user network. 0 or -errno with *err.
 */
int container_net_open(struct container_net **out, bool has_backend, struct error **err);
/* Moves frames between it and `backend`, which speaks for it, from now on. 0 or -errno with *err. */
int container_net_start(struct container_net *net, struct loop *loop, struct net_backend *backend,
                        struct error **err);
void container_net_close(struct container_net *net);

#endif
