/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kvm engine's table, and its making and unmaking. Called by the machine. engine->lock is made here; what
 * it guards is told in kvm_priv.h.
 */
#include "engine/kvm/kvm.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "engine/kvm/kvm_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

static int add_memory(struct kvm_engine *k, struct error **err)
{
    const struct guest_memory *mem = k->config.memory;

    for (unsigned i = 0; i < mem->n_blocks; i++) {
        const struct guest_memory_block *b = &mem->blocks[i];
        struct kvm_userspace_memory_region region = {.slot = i,
                                                     .flags = b->rom ? KVM_MEM_READONLY : 0,
                                                     .guest_phys_addr = b->gpa,
                                                     .memory_size = b->size,
                                                     .userspace_addr = (uintptr_t)b->host};
        int rc = kvm_ioctl(k->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);

        if (rc < 0)
            return error_set_errno(err, -rc, "KVM: giving the guest %llu MiB of memory at 0x%llx",
                                   (unsigned long long)(b->size >> 20), (unsigned long long)b->gpa);
    }
    return 0;
}

static int add_vcpus(struct kvm_engine *k, struct error **err)
{
    for (unsigned i = 0; i < k->config.cpus; i++) {
        struct kvm_vcpu *v = &k->vcpu[i];
        int rc = kvm_cpu_open(&v->cpu, k->kvm_fd, k->vm_fd, i);

        if (rc < 0)
            return error_set_errno(err, -rc, "KVM: making vCPU %u", i);
    }
    return kvm_features_build(k, err);
}

static int kvm_reset(struct engine *engine, struct error **err)
{
    struct kvm_engine *k = (struct kvm_engine *)engine;
    int rc = 0;

    for (unsigned i = 0; i < k->config.cpus && rc >= 0; i++)
        rc = kvm_state_reset(&k->vcpu[i], err);
    return rc < 0 ? rc : kvm_interrupts_reset(k, err);
}

static int build(struct kvm_engine *k, struct error **err)
{
    k->kvm_fd = k->config.fd > 0 ? fcntl(k->config.fd, F_DUPFD_CLOEXEC, 3) : kvm_open(err);
    if (k->kvm_fd < 0)
        return k->config.fd > 0 ? error_set_errno(err, errno, "KVM: its descriptor") : k->kvm_fd;
    k->vm_fd = kvm_ioctl_value(k->kvm_fd, KVM_CREATE_VM, 0);
    if (k->vm_fd < 0)
        return error_set_errno(err, -k->vm_fd, "KVM: making a machine");
    int rc = kvm_kick_setup();
    if (rc < 0)
        return error_set_errno(err, -rc, "KVM: setting up the vCPUs' signal");
    rc = kvm_interrupts_create(k, err);
    rc = rc < 0 ? rc : add_memory(k, err);
    rc = rc < 0 ? rc : add_vcpus(k, err);
    for (unsigned i = 0; i < k->config.cpus && rc >= 0; i++) {
        rc = kvm_features_apply(&k->vcpu[i], err);
        rc = rc < 0 ? rc : kvm_state_remember(&k->vcpu[i], err);
    }
    rc = rc < 0 ? rc : kvm_reset(&k->engine, err);
    for (unsigned i = 0; i < k->config.cpus && rc >= 0; i++)
        rc = kvm_vcpu_start(&k->vcpu[i], err);
    return rc;
}

static void kvm_destroy(struct engine *engine)
{
    struct kvm_engine *k = (struct kvm_engine *)engine;

    if (!k)
        return;
    kvm_interrupts_listen(k, false);
    kvm_vcpus_stop(k);
    for (unsigned i = 0; i < k->config.cpus; i++) {
        kvm_cpu_close(&k->vcpu[i].cpu);
        free(k->vcpu[i].first_msrs);
    }
    cleanup_close_fn(&k->vm_fd);
    cleanup_close_fn(&k->kvm_fd);
    pthread_cond_destroy(&k->changed);
    pthread_mutex_destroy(&k->lock);
    free(k->failure);
    free(k);
}

static int kvm_create(struct engine **out, const struct engine_config *config, struct error **err)
{
    if (config->cpus < 1 || config->cpus > ENGINE_MAX_CPUS)
        return error_set(err, EINVAL, "%u vCPUs: choose from 1 to %u", config->cpus, ENGINE_MAX_CPUS);
    struct kvm_engine *k = calloc(1, sizeof(*k));
    if (!k)
        return error_set_errno(err, ENOMEM, "engine kvm");
    k->engine.class = &engine_kvm;
    k->config = *config;
    k->kvm_fd = k->vm_fd = -1;
    pthread_mutex_init(&k->lock, NULL);
    pthread_cond_init(&k->changed, NULL);
    for (unsigned i = 0; i < ENGINE_MAX_CPUS; i++)
        k->vcpu[i] = (struct kvm_vcpu){.engine = k, .index = i, .cpu = KVM_CPU_NONE};
    int rc = build(k, err);
    if (rc < 0) {
        kvm_destroy(&k->engine);
        return rc;
    }
    kvm_interrupts_listen(k, true);
    *out = &k->engine;
    return 0;
}

static const char *kvm_failure(struct engine *engine)
{
    struct kvm_engine *k = (struct kvm_engine *)engine;

    LOCK_SCOPE(&k->lock);
    return k->failure;
}

const struct engine_class engine_kvm = {
    .name = "kvm",
    .summary = "hardware virtualization (VT-x, AMD-V) through the kernel's KVM",
    .probe = kvm_engine_probe,
    .open = kvm_open,
    .create = kvm_create,
    .destroy = kvm_destroy,
    .resume = kvm_resume,
    .pause = kvm_pause,
    .reset = kvm_reset,
    .set_state = kvm_state_set,
    .get_state = kvm_state_get,
    .irq_set = kvm_irq_set,
    .msi_send = kvm_msi_send,
    .failure = kvm_failure,
};
