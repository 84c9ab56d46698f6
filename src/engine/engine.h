/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table between a machine and whatever executes its instructions. An engine owns its vCPU threads and its
 * interrupt controllers (local APICs, I/O APIC, PIC); the machine owns memory, I/O spaces, devices and the
 * event loop.
 */
#ifndef TABIQUE_ENGINE_ENGINE_H
#define TABIQUE_ENGINE_ENGINE_H

#include "device/device.h"
#include "engine/cpu_state.h"
#include "engine/profile.h"
#include "engine/stats.h"

#include <stdbool.h>
#include <stdint.h>

struct engine_config {
    unsigned cpus; /* 1..ENGINE_MAX_CPUS; vCPU n has APIC id n */
    int fd;        /* of the class's open, which stays the caller's; 0 or less: the engine opens it itself */
    struct guest_memory *memory;
    struct io_space *pio;
    struct io_space *mmio;
    struct loop *loop; /* for the engine's timers */
    /* MACHINE_RESET on a triple fault, MACHINE_ENGINE_FAILED (after which *failure of engine_failure says
     * why). */
    void (*event)(void *opaque, enum machine_event event, int code);
    void *opaque;
};

struct engine;

struct engine_class {
    const char *name;    /* "kvm", "soft": as --engine takes it */
    const char *summary; /* one line for people */
    /*
     * Whether this host can run it. 0; or -errno with *err telling why not and what would help (also told by
     * `tabique check`). Leaves nothing behind; takes below 200 ms.
     */
    int (*probe)(struct error **err);
    /*
     * Whether user code may run on the host's processor without being translated; as probe. NULL where that
     * is no question.
     */
    int (*probe_direct)(struct error **err);
    /*
     * Opens what the engine works on, for a process that will soon have no right to any file: a descriptor
     * for engine_config.fd, or -errno with *err. NULL where nothing is to be opened.
     */
    int (*open)(struct error **err);
    /* Makes the engine with its vCPUs in reset state, threads not running. */
    int (*create)(struct engine **out, const struct engine_config *config, struct error **err);
    void (*destroy)(struct engine *engine);

    /* Lets all vCPUs run. After create and after pause. 0 or -errno. */
    int (*resume)(struct engine *engine, struct error **err);
    /* Returns when no vCPU executes guest code any more (their threads wait). Not from a vCPU thread. */
    void (*pause)(struct engine *engine);
    /* vCPUs, APICs, I/O APIC and PIC back to the state after RESET. Paused only. */
    int (*reset)(struct engine *engine, struct error **err);

    /* Paused only. set_state takes everything but what the local APIC holds. */
    int (*set_state)(struct engine *engine, unsigned cpu, const struct cpu_state *state, struct error **err);
    int (*get_state)(struct engine *engine, unsigned cpu, struct cpu_state *state, struct error **err);

    /* As in struct device_env. Any thread, at any time. */
    void (*irq_set)(struct engine *engine, unsigned gsi, bool level);
    void (*msi_send)(struct engine *engine, uint64_t address, uint32_t data);

    /* The text of the failure that MACHINE_ENGINE_FAILED announced, or NULL; valid until destroy. */
    const char *(*failure)(struct engine *engine);

    /* What it has done so far. From the machine's thread. NULL where it is the processor's work, which nobody
     * counts. */
    void (*stats)(struct engine *engine, struct engine_stats *out);

    /* Where the vCPUs have been since it was last asked, at most ENGINE_SAMPLES_MAX times; and goes on
     * looking `hz` times a second (1..ENGINE_PROFILE_HZ_MAX) for some seconds. From the machine's thread.
     * NULL where only the host could look. */
    void (*profile)(struct engine *engine, unsigned hz, struct engine_profile *out);
};

/* The first member of each engine's own structure. */
struct engine {
    const struct engine_class *class;
};

/* All engines, the preferred first, NULL at the end. */
extern const struct engine_class *const engine_classes[];

/* The engine called `name`; for "auto" the first whose probe succeeds. NULL with *err. */
const struct engine_class *engine_find(const char *name, struct error **err);

#endif
