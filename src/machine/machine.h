/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A PC: memory, buses, devices and an engine, built once, booted, reset and switched off. Called by vm.c,
 * from the thread that runs the loop; only the events come from others.
 */
#ifndef TABIQUE_MACHINE_MACHINE_H
#define TABIQUE_MACHINE_MACHINE_H

#include "device/device.h"
#include "device/watchdog.h"
#include "machine/boot.h"

#include <stdbool.h>
#include <stdint.h>

struct char_backend;
struct disk_copying;
struct disk_limits;
struct engine_class;
struct error;
struct loop;
struct machine;
struct virtio_balloon_report;
struct virtio_block_config;
struct virtio_vsock_config;
struct engine_profile;
struct engine_stats;
struct net_stats;
struct virtio_net_config;

struct machine_config {
    uint64_t memory; /* bytes */
    unsigned cpus;
    const struct engine_class *engine;
    int engine_fd; /* of the class's open, which stays the caller's; -1: the engine opens it itself */
    bool debug_exit;
    const struct virtio_vsock_config *vsock; /* NULL: none */
    uint64_t balloon;                        /* bytes that the guest is to give back at first */
    enum watchdog_action watchdog;           /* what is done when the guest's watchdog expires */
    uint64_t firmware_size;       /* bytes of ROM for the firmware that machine_load gets; 0: none */
    int firmware_log;             /* where the firmware logs to, or -1 */
    struct char_backend *serial;  /* the far side of COM1 */
    struct char_backend *console; /* the far side of the virtio console */
    struct char_backend *agent;   /* the far side of the port of the guest's agent; NULL: there is no such */
    uint16_t columns, rows;       /* of the terminal behind the console; 0 if unknown */
    const struct virtio_block_config *disks;
    size_t n_disks;
    const struct virtio_net_config *nets;
    size_t n_nets;
    struct loop *loop; /* must outlive the machine */
};

/* Builds everything; nothing runs yet. 0 or -errno with *err. */
int machine_create(struct machine **out, const struct machine_config *config, struct error **err);
/* Stops the vCPUs and frees everything. NULL is fine. */
void machine_free(struct machine *machine);

/* What is to be booted: a firmware (data not NULL), or a kernel; command_line and initrd as in struct
 * boot_request. */
struct machine_payload {
    struct boot_file firmware;
    struct boot_file kernel, initrd;
    const struct boot_file *modules;
    size_t n_modules;
    const char *command_line;
};

/*
 * Brings a machine that is not running (after create or machine_reset) to the first instruction of kernel or
 * firmware. The payload's bytes are copied. 0 or -errno with *err.
 */
int machine_load(struct machine *machine, const struct machine_payload *payload, struct error **err);
/* Lets the vCPUs run. 0 or -errno with *err. */
int machine_resume(struct machine *machine, struct error **err);
/* Stops them. When it returns, no vCPU executes. */
void machine_pause(struct machine *machine);
/* All devices, RAM and processors as at power-on. Paused only. 0 or -errno with *err. */
int machine_reset(struct machine *machine, struct error **err);

/*
 * The gravest event that has come since the last call, and forgets the lesser ones; false if there was none.
 * Whenever one comes, the loop is stopped.
 */
bool machine_take_event(struct machine *machine, enum machine_event *event, int *code);

/* The terminal behind the virtio console has another size now. Any thread. */
void machine_resize_console(struct machine *machine, uint16_t columns, uint16_t rows);

/* The guest's memory balloon, as in device/virtio/balloon.h. Any thread. */
void machine_set_balloon(struct machine *machine, uint64_t bytes);
/* What is known of it, and asks for news. */
void machine_balloon(struct machine *machine, struct virtio_balloon_report *out);

/* virtio_block_push and virtio_block_pop of the i-th disk. Paused only. 0 or -errno. */
int machine_push_disk(struct machine *machine, size_t i, int fd, const char *name);
int machine_pop_disk(struct machine *machine, size_t i);
/* virtio_block_replace and virtio_block_keep likewise. */
int machine_replace_disk(struct machine *machine, size_t i, int fd, const char *name, const char *format);
int machine_keep_disk(struct machine *machine, size_t i);
/* virtio_block_copy of the i-th disk. 0 or -errno. */
int machine_copy_disk(struct machine *machine, size_t i, int fd, const struct disk_copying *what);
/* virtio_block_resize and virtio_block_limit of the i-th disk. 0 or -errno. */
int machine_resize_disk(struct machine *machine, size_t i, uint64_t size);
void machine_limit_disk(struct machine *machine, size_t i, const struct disk_limits *limits);

/* Presses the power button: the guest is asked to switch itself off. Any thread. */
void machine_press_power_button(struct machine *machine);

/* The sum over all network cards. Any thread. */
void machine_net_stats(struct machine *machine, struct net_stats *sum);

/* What the engine has done so far: `cpus` is 0 where it does not tell. From the machine's thread. */
void machine_engine_stats(struct machine *machine, struct engine_stats *out);

/* Where its processors have been since this was last asked, and looks at them `hz` times a second from now
 * on, as in engine.h: `hz` in it is 0 where the engine does not tell. From the machine's thread. */
void machine_profile(struct machine *machine, unsigned hz, struct engine_profile *out);

/* Why the engine can't go on, after MACHINE_ENGINE_FAILED. */
const char *machine_failure(const struct machine *machine);

#endif
