/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Wrappers over the kernel's KVM interface. Called by the kvm engine. No locks. */
#include "host/kvm.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define KVM_DEVICE   "/dev/kvm"
#define KVM_OUR_API  12 /* the version since Linux 2.6.22; the interface grows by capabilities alone */
#define KICK_SIGNAL  (SIGRTMIN + 5)
#define OLDEST_LINUX "4.11" /* the first that has them all */

static const int needed[] = {
    KVM_CAP_IRQCHIP,    KVM_CAP_USER_MEMORY, KVM_CAP_SET_TSS_ADDR,   KVM_CAP_EXT_CPUID,   KVM_CAP_MP_STATE,
    KVM_CAP_IOEVENTFD,  KVM_CAP_IRQ_ROUTING, KVM_CAP_DEBUGREGS,      KVM_CAP_VCPU_EVENTS, KVM_CAP_XSAVE,
    KVM_CAP_SIGNAL_MSI, KVM_CAP_GET_TSC_KHZ, KVM_CAP_IMMEDIATE_EXIT,
};

int kvm_ioctl(int fd, unsigned long request, void *argument)
{
    int rc;

    do {
        rc = ioctl(fd, request, argument);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : rc;
}

int kvm_ioctl_value(int fd, unsigned long request, unsigned long value)
{
    int rc;

    do {
        rc = ioctl(fd, request, value);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? -errno : rc;
}

int kvm_open(struct error **err)
{
    cleanup_close int fd = open(KVM_DEVICE, O_RDWR | O_CLOEXEC);

    if (fd < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO))
        return error_set(err, ENOENT,
                         "no " KVM_DEVICE ": this host offers no hardware virtualization, or the modules "
                         "kvm-intel or kvm-amd are not loaded; use --engine soft");
    if (fd < 0 && (errno == EACCES || errno == EPERM))
        return error_set(err, EACCES,
                         "no permission to use " KVM_DEVICE
                         ": join its group (usermod -aG kvm $USER, then log in anew), or use --engine soft");
    if (fd < 0)
        return error_set_errno(err, errno, "cannot open " KVM_DEVICE);
    int version = kvm_ioctl_value(fd, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return error_set(err, ENOTSUP, KVM_DEVICE " is not KVM's device; use --engine soft");
    if (version != KVM_OUR_API)
        return error_set(err, ENOTSUP,
                         KVM_DEVICE " speaks version %d of its interface, not %d; use --engine soft", version,
                         KVM_OUR_API);
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
        if (kvm_ioctl_value(fd, KVM_CHECK_EXTENSION, (unsigned long)needed[i]) <= 0)
            return error_set(err, ENOTSUP,
                             "this kernel's KVM lacks capability %d: Linux " OLDEST_LINUX
                             " or later is needed; use --engine soft",
                             needed[i]);
    }
    return steal_fd(fd);
}

int kvm_cpu_open(struct kvm_cpu *cpu, int kvm_fd, int vm_fd, unsigned id)
{
    int size = kvm_ioctl_value(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    int fd = size < 0 ? size : kvm_ioctl_value(vm_fd, KVM_CREATE_VCPU, id);

    *cpu = KVM_CPU_NONE;
    if (fd < 0)
        return fd;
    void *run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (run == MAP_FAILED) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    *cpu = (struct kvm_cpu){.fd = fd, .run = run, .run_size = (size_t)size};
    return 0;
}

void kvm_cpu_close(struct kvm_cpu *cpu)
{
    if (cpu->run)
        munmap(cpu->run, cpu->run_size);
    if (cpu->fd >= 0)
        close(cpu->fd);
    *cpu = KVM_CPU_NONE;
}

static void on_kick(int signal)
{
}

int kvm_kick_setup(void)
{
    struct sigaction action = {.sa_handler = on_kick}; /* no SA_RESTART: KVM_RUN is to end */

    sigemptyset(&action.sa_mask);
    return sigaction(KICK_SIGNAL, &action, NULL) < 0 ? -errno : 0;
}

void kvm_kick_only(void)
{
    static const int open_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT};
    sigset_t set;

    sigfillset(&set);
    sigdelset(&set, KICK_SIGNAL);
    for (size_t i = 0; i < ARRAY_SIZE(open_signals); i++)
        sigdelset(&set, open_signals[i]);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
}

void kvm_kick(const struct kvm_cpu *cpu, pthread_t thread)
{
    /* The flag first: a signal that comes between the thread's last look and KVM_RUN would be lost without.
     */
    __atomic_store_n(&cpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    pthread_kill(thread, KICK_SIGNAL);
}
