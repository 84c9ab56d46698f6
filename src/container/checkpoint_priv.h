/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What writing a checkpoint (checkpoint.c) and reading one (restore.c) have in common: what criu is told of
 * things that are not the container's own, under the same names both times. */
#ifndef TABIQUE_CONTAINER_CHECKPOINT_PRIV_H
#define TABIQUE_CONTAINER_CHECKPOINT_PRIV_H

#include "container/config.h"
#include "container/container.h"
#include "container/criu_message.h"

struct cgroup;
struct error;

#define CHECKPOINT_NETWORK "extRootNetNS"
#define CHECKPOINT_PIDS    "extRootPidNS"

/* The directories, open; paths for errors. */
struct checkpoint_places {
    const char *image_path, *work_path;
    int images, work;
};

/* With `make` those that are missing are made. -errno with *err. */
int checkpoint_open_places(const struct container_checkpoint_options *options, bool make,
                           struct checkpoint_places *out, struct error **err);
void checkpoint_close_places(struct checkpoint_places *places);

/* What both directions tell criu. */
void checkpoint_put_common(struct buffer *m, const struct container_checkpoint_options *options,
                           const struct checkpoint_places *places, const char *log);

/* checkpoint_mounts.c: mounts whose content is the host's. Of a container that lives, with its process; for a
 * new one, whose groups are to be shown. */
int checkpoint_put_mounts(struct buffer *m, const struct container_config *config, pid_t pid,
                          struct error **err);
void checkpoint_put_mount_sources(struct buffer *m, const struct container_config *config, const char *bundle,
                                  const struct cgroup *cgroup);
/* Makes what is missing in the root file system for them to be mounted on. */
int checkpoint_make_mount_points(const struct container_config *config, const char *bundle, int root,
                                 struct error **err);

/* checkpoint_files.c: standard input, output and error, where they lead out of the container. They are noted
 * beside the images; the new container gets those of who restores it. */
int checkpoint_put_files(struct buffer *m, pid_t pid, int images, struct error **err);
int checkpoint_put_inherited(struct buffer *m, int images, struct error **err);

/* checkpoint_sizes.c: how long each image is, noted beside them: criu itself waits for ever for what was cut
 * off. */
int checkpoint_note_sizes(int images, struct error **err);
int checkpoint_check_sizes(int images, struct error **err);

#endif
