/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the command that makes a container (create.c) and the process that becomes it (init.c, a fork) know in
 * common. The command opens what must be opened outside; the process finds it here.
 */
#ifndef TABIQUE_CONTAINER_SETUP_PRIV_H
#define TABIQUE_CONTAINER_SETUP_PRIV_H

#include "container/config.h"

#include <linux/filter.h>
#include <stdbool.h>
#include <sys/types.h>

struct error;
struct cgroup;
struct container;

struct container_setup {
    const struct container_config *config;
    const char *id;
    const char *bundle;    /* absolute */
    const char *root_path; /* absolute */
    bool mapped;           /* it has a user namespace */
    struct cgroup *cgroup; /* groups that the process enters itself, or NULL */
    /* Opened by the command: it may reach what the process in its user namespace may not. -1: not so. */
    int root_tree;
    int *mount_trees; /* one for each mount */
    int null_fd;      /* the host's /dev/null, O_PATH: what paths are masked with */
    int sync;         /* this process's end */
    int peer;         /* the command's: closed at once, so that the command's end is heard */
    int fifo;         /* O_RDWR: a byte tells to go on; -1: at once */
    int console_socket;
    unsigned preserve_fds;
    bool no_pivot, no_new_keyring;
    bool has_filter;
    struct sock_fprog filter;
    struct container *container; /* for the state that hooks get; its pid comes with the first message */
    int root;                    /* the container's "/", from rootfs_prepare on */
};

/* ---- mount.c: one mount each; `root` is the container's ---- */

/* Opens the tree that a bind mount shows, detached. A descriptor or -errno with *err. */
int mount_open_source(const struct container_mount *m, const char *bundle, struct error **err);
int mount_one(const struct container_setup *setup, size_t i, struct error **err);
/* Attaches a detached tree to what `target` is. */
int mount_attach(int tree, int target);
int mount_set(int fd, uint64_t set, uint64_t clear, unsigned long propagation, bool recursive);
/* A new file system: data is "key" or "key=value". A detached tree or -errno with *err. */
int mount_new(const char *type, const char *source, const char *const *data, size_t n_data,
              uint64_t attributes, struct error **err);

/* ---- mount_cgroup.c ---- */
int mount_cgroups(const struct container_setup *setup, const struct container_mount *m, struct error **err);

/* ---- rootfs.c ---- */
int rootfs_prepare(struct container_setup *setup, struct error **err);
int rootfs_enter(struct container_setup *setup, struct error **err);

/* ---- devices.c ---- */
int devices_make(const struct container_setup *setup, struct error **err);
/* The i-th path that a container with this configuration has a device at; NULL after the last. */
const char *devices_path(const struct container_config *config, size_t i);

/* ---- idmap.c ---- */
/* A user namespace of these maps that nobody is in. A descriptor or -errno with *err. */
int idmap_namespace(const struct container_id_maps *maps, struct error **err);
/* Writes the maps of the process's user namespace, by newuidmap where that is needed. */
int idmap_write(pid_t pid, const struct container_id_maps *maps, struct error **err);

/* ---- sysctl.c ---- */
int sysctl_write(const struct container_config *config, struct error **err);

/* ---- seccomp.c ---- */
/* The program of a profile; to be freed. */
int seccomp_compile(const struct container_seccomp *seccomp, struct sock_fprog *out, struct error **err);

/* seccomp_cache.c: the same, of the configuration's profile; kept for the next container that has it. */
struct container_runtime;
int seccomp_program(const struct container_runtime *runtime, const struct container_config *config,
                    struct sock_fprog *out, struct error **err);

#endif
