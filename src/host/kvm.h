/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Thin wrappers over the kernel's KVM interface (Documentation/virt/kvm/api.rst): opening it with errors that
 * say what to do, ioctls that return -errno, and the signal that takes a thread out of guest code.
 */
#ifndef TABIQUE_HOST_KVM_H
#define TABIQUE_HOST_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stddef.h>

struct error;

/* One virtual processor: its file descriptor and the page that it shares with the kernel. */
struct kvm_cpu {
    int fd;
    struct kvm_run *run;
    size_t run_size;
};

#define KVM_CPU_NONE ((struct kvm_cpu){.fd = -1})

/*
 * Opens /dev/kvm and checks its version and that it has what our engine needs. The file descriptor, or
 * -errno: -ENOENT (no KVM in this kernel), -EACCES (no right to it), -ENOTSUP (too old).
 */
int kvm_open(struct error **err);

/* ioctl, tried again when a signal interrupts it. What it returned (0 or more), or -errno. */
int kvm_ioctl(int fd, unsigned long request, void *argument);
/* For requests that take a number. */
int kvm_ioctl_value(int fd, unsigned long request, unsigned long value);

/* Makes virtual processor `id` of a machine. `kvm_fd` is of kvm_open. 0 or -errno; close by kvm_cpu_close. */
int kvm_cpu_open(struct kvm_cpu *cpu, int kvm_fd, int vm_fd, unsigned id);
void kvm_cpu_close(struct kvm_cpu *cpu);

/*
 * Makes kvm_kick work in this process: a handler that does nothing for a real-time signal of our own, so that
 * its arrival ends KVM_RUN and no more. Any number of times.
 */
int kvm_kick_setup(void);
/* Blocks every signal but the kick (and faults) in the calling thread. */
void kvm_kick_only(void);
/* Takes `thread` out of KVM_RUN, now or when it enters it next. The thread must not have been joined. */
void kvm_kick(const struct kvm_cpu *cpu, pthread_t thread);

#endif
