/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the supervisor and the VM process tell each other: messages of one size over a SOCK_SEQPACKET socket.
 * The two are forks of one program, so a message is the structure as it is; but the VM process may have been
 * taken over by its guest, so what comes is checked before it is believed. Called by vm.c, vm_process.c and
 * the supervisor.
 */
#ifndef TABIQUE_MACHINE_VM_MESSAGE_H
#define TABIQUE_MACHINE_VM_MESSAGE_H

#include "disk/throttle.h"
#include "engine/profile.h"
#include "engine/stats.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vm_message_type {
    /* To the VM process */
    VM_POWER_BUTTON = 1, /* ask the guest to switch itself off */
    VM_PAUSE,            /* stop the vCPUs; VM_PAUSED answers, with the same value */
    VM_RESUME,           /* let them run again; VM_RESUMED answers, with the same value */
    VM_RESIZE,           /* columns and rows: of the terminal behind the console */
    VM_STATS_WANTED,     /* VM_STATS answers */
    VM_PROFILE_WANTED,   /* value: looks a second, 1..ENGINE_PROFILE_HZ_MAX; VM_PROFILE answers */
    VM_SET_BALLOON, /* value: bytes of RAM that the guest is to give back by its balloon; VM_BALLOON answers
                     */
    VM_DISK_FILE, /* value: the number of a disk; text: the name of a file that comes along, to be put before
                     its own; or, where size is one more than its format's number, of its mirror, in which it
                     goes on */
    VM_DISK_SWITCH, /* stop the vCPUs and put to use what VM_DISK_FILE brought; VM_DISK_SWITCHED answers */
    VM_DISK_GO_ON,  /* let the vCPUs go on, with the new files (value 1) or the old ones (0); VM_DISK_DONE
                       answers */
    VM_DISK_LIMIT,  /* value: the number of a disk; limits: what it may be asked for from now on */
    VM_DISK_COPY,   /* value: the number of a disk; size: VM_COPY_...; limits: of reading for the copy; text:
                       "SINCE BITMAP", names of bitmaps or nothing. The socket that it goes to comes along, and
                       is answered there: disk/copy.h */
    VM_DISK_RESIZE, /* value: the number of a disk; size: bytes; VM_DISK_RESIZED answers */
    VM_FREEZE,      /* have the guest's agent freeze its file systems; VM_FROZEN answers */
    VM_THAW,        /* and thaw them; VM_THAWED answers */
    VM_QUIT,        /* end in an orderly way, whatever the guest does; VM_ENDED answers */
    VM_TO_LAST = VM_QUIT,

    /* From it */
    VM_CONFINED = 64, /* nothing of the guest's has been read yet. text: what the host permitted */
    VM_READY,         /* the guest's first instruction is next. text: the engine */
    VM_RESTARTED,     /* the guest has reset the machine, which boots again */
    VM_PAUSED,
    VM_RESUMED,
    VM_STATS,
    VM_PROFILE,
    VM_BALLOON,       /* stats are as now; without a driver in the guest nothing has changed */
    VM_DISK_SWITCHED, /* status: 0, or 1 where it could not be and nothing has changed; text: why */
    VM_DISK_DONE,     /* value: for how many nanoseconds the vCPUs stood still */
    VM_DISK_RESIZED,  /* status: 0, or 1 where it could not be; text: why */
    VM_FROZEN,        /* status: 0, or 1 where they are not; value: how many are; text: why not */
    VM_THAWED,        /* likewise, without value */
    VM_CRASH_LOADED,  /* the guest has panicked, and its crash kernel takes over */
    VM_WATCHDOG,      /* the guest's watchdog has expired; VM_RESTARTED follows where it restarts the guest */
    VM_LINK_DOWN,     /* what speaks for the guest on a network is gone: that card's cable is unplugged */
    VM_ENDED,         /* the last one. end, status, text: why, for VM_END_FAILED and VM_END_ENGINE */
    VM_FROM_LAST = VM_ENDED,
};

/* What VM_DISK_COPY asks for: the disk as it is when that begins, as it is at the end, and as that if
 * the disk is to go on in it; or no copy, but that it be filled from behind (disk/fill.h). */
enum vm_copy { VM_COPY_BACKUP, VM_COPY_MIRROR, VM_COPY_PIVOT, VM_COPY_FILL };

/* How a VM can end. */
enum vm_end {
    VM_END_POWEROFF,
    VM_END_PANIC,
    VM_END_DEBUG_EXIT,
    VM_END_ENGINE,   /* the engine could not go on */
    VM_END_FAILED,   /* it could not be built or booted */
    VM_END_WATCHDOG, /* the guest's watchdog expired and was to switch off */
    VM_END_EXITED,   /* the program of a container has ended, with `status` */
    VM_END_QUIT,     /* VM_QUIT came, or nobody supervises it any more */
    VM_ENDS,
};

/* What the VM process counts. */
enum vm_stat {
    VM_STAT_RESTARTS,
    /* Of all network cards: received by the guest, sent by it. */
    VM_STAT_NET_RX_PACKETS,
    VM_STAT_NET_RX_BYTES,
    VM_STAT_NET_RX_DROPS,
    VM_STAT_NET_TX_PACKETS,
    VM_STAT_NET_TX_BYTES,
    VM_STAT_NET_TX_DROPS,
    VM_STAT_BALLOON_TARGET,  /* bytes that the guest is to give back */
    VM_STAT_BALLOON,         /* bytes that it has given back */
    VM_STAT_BALLOON_DRIVER,  /* 1: a driver in the guest serves the balloon */
    VM_STAT_MEMORY_REPORTED, /* bytes of free pages that it has reported, all together */
    /* As the guest's kernel told when it was last asked, in bytes; 0 while it has not. */
    VM_STAT_MEMORY_TOTAL,
    VM_STAT_MEMORY_FREE,
    VM_STAT_MEMORY_AVAILABLE,
    VM_STAT_MEMORY_CACHES,
    VM_STATS_COUNT,
};

/* Why a disk can't get another file or size. */
#define VM_COPYING "a copy of it is being made; wait for that, or interrupt it"

#define VM_TEXT_SIZE 4096

struct vm_message {
    uint32_t type;
    uint32_t end;   /* enum vm_end */
    int32_t status; /* what `tabique run` is to return, 0..255 */
    uint16_t columns, rows;
    uint64_t value, size;
    struct disk_limits limits;
    uint64_t stats[VM_STATS_COUNT];
    struct engine_stats engine;    /* with VM_STATS */
    struct engine_profile profile; /* with VM_PROFILE */
    char text[VM_TEXT_SIZE];       /* ends with a 0 byte; the rest is 0 as well */
};

/*
 * Judges `len` bytes that came, from the VM process or (`from_vm` false) for it. 0 with *out, whose text is
 * printable (what is not has become '?'); or -EPROTO.
 */
int vm_message_parse(const void *bytes, size_t len, bool from_vm, struct vm_message *out);

/* Sends without blocking. 0 or -errno: -EAGAIN if the other side does not read. */
int vm_message_send(int fd, const struct vm_message *message);
/* Receives without blocking, as vm_message_parse. -EAGAIN if nothing is there, -ECONNRESET at the end. */
int vm_message_receive(int fd, bool from_vm, struct vm_message *out);
/* The same for the VM process. *passed: a descriptor that came along, the caller's; or -1. */
int vm_message_receive_passed(int fd, struct vm_message *out, int *passed);
/* As vm_message_send, with a descriptor. */
int vm_message_pass(int fd, const struct vm_message *message, int passed);

/* Puts text into a message, cut where it is too long. */
void vm_message_set_text(struct vm_message *message, const char *text);

/* "power-off", "panic", ...: for events and JSON. */
const char *vm_end_name(enum vm_end end);

#endif
