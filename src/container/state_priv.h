/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A container's directory:
 *
 *     ROOT/ID/state.json     what is known of it; replaced as a whole, so that it is the old or the new one
 *             config.json    its configuration as it was when it was made
 *             exec.fifo      its process waits at the other end until it is started
 *
 * Beside them, ROOT/.seccomp has compiled profiles (seccomp_cache.c); no container has that name.
 *
 * Whether it runs is nowhere written down: its process is there or not (by number and start time), and waits
 * or not (the fifo has a reader).
 */
#ifndef TABIQUE_CONTAINER_STATE_PRIV_H
#define TABIQUE_CONTAINER_STATE_PRIV_H

#include "container/config.h"
#include "container/container.h"

#define STATE_FIFO "exec.fifo"

struct container {
    char *id;
    int dir;
    bool locked;
    json_t *json; /* state.json; an empty object where there is none */
    pid_t pid;    /* 0: none yet */
    uint64_t start_time;
};

/* The directory of a new container; -EEXIST where it is taken. */
int state_make(const struct container_runtime *runtime, const char *id, struct container **out,
               struct error **err);
/* One that exists. With `lock`, nobody else changes it until it is closed. */
int state_open(const struct container_runtime *runtime, const char *id, bool lock, struct container **out,
               struct error **err);
void state_close(struct container *container);
/* Removes the directory with all that it holds. */
int state_remove(const struct container_runtime *runtime, struct container *container, struct error **err);

static inline void state_cleanup(struct container **container)
{
    state_close(*container);
}
#define cleanup_container __attribute__((cleanup(state_cleanup)))

int state_save(struct container *container, struct error **err);
int state_save_config(struct container *container, const struct container_config *config, struct error **err);
int state_load_config(struct container *container, struct container_config **out, struct error **err);
const char *state_text(const struct container *container, const char *key);

/* A process's start in ticks after boot, and its state's letter; 0 where it is gone. */
uint64_t state_start_time(pid_t pid, char *letter);
bool state_is_alive(const struct container *container);
/* Opens the fifo for `start`. -ENXIO: nobody waits. */
int state_open_fifo(const struct container *container);
enum container_status state_status(const struct container *container);

/* JSON for hooks and for `state`, as text; to be freed. */
json_t *state_describe(const struct container *container, enum container_status status, bool whole);
char *state_describe_text(const struct container *container, enum container_status status);

#endif
