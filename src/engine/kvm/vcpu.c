/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vCPU threads. Each is either in KVM_RUN, or serves what made it come back, or is parked. engine->lock
 * guards the changes between these; it is not held while the guest or a device runs.
 */
#include "engine/kvm/kvm_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "host/confine.h"
#include "host/thread.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

void kvm_engine_fail(struct kvm_engine *k, const char *format, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    va_end(args);
    pthread_mutex_lock(&k->lock);
    if (!k->failure)
        k->failure = steal_ptr(text);
    pthread_mutex_unlock(&k->lock);
    free(text);
    k->config.event(k->config.opaque, MACHINE_ENGINE_FAILED, 0);
}

/* Waits while the engine is paused. False when the thread is to end. */
static bool wait_until_running(struct kvm_vcpu *v)
{
    struct kvm_engine *k = v->engine;

    LOCK_SCOPE(&k->lock);
    while (!k->quit && (!k->running || v->stranded)) {
        if (!v->parked) {
            v->parked = true;
            pthread_cond_broadcast(&k->changed);
        }
        pthread_cond_wait(&k->changed, &k->lock);
    }
    v->parked = false;
    return !k->quit;
}

static bool asked_to_park(struct kvm_vcpu *v)
{
    return __atomic_load_n(&v->cpu.run->immediate_exit, __ATOMIC_SEQ_CST);
}

static enum vcpu_next enter(struct kvm_vcpu *v)
{
    struct kvm_engine *k = v->engine;

    if (ioctl(v->cpu.fd, KVM_RUN, 0) == 0)
        return kvm_exit_handle(v);
    switch (errno) {
    case EINTR:  /* kicked */
    case EAGAIN: /* an INIT put it back to waiting for its SIPI */
        return VCPU_GO_ON;
    case EFAULT:
    case ENOMEM:
        kvm_engine_fail(k,
                        "vCPU %u: the host could not give the guest a page of its memory: choose a smaller "
                        "--memory, or free memory on the host",
                        v->index);
        return VCPU_STRAND;
    default:
        kvm_engine_fail(k, "vCPU %u: KVM_RUN: %s", v->index, strerror(errno));
        return VCPU_STRAND;
    }
}

static void *vcpu_thread(void *opaque)
{
    struct kvm_vcpu *v = opaque;
    char name[16];

    kvm_kick_only();
    snprintf(name, sizeof(name), "vcpu%u", v->index);
    pthread_setname_np(pthread_self(), name); /* another thread would need a file of /proc */
    int rc = confine_thread(CONFINE_VCPU_KVM);
    if (rc < 0) {
        kvm_engine_fail(v->engine, "vCPU %u: list of system calls: %s", v->index, strerror(-rc));
        LOCK_SCOPE(&v->engine->lock);
        v->parked = true; /* and never anything else */
        return NULL;
    }
    while (wait_until_running(v)) {
        enum vcpu_next next = VCPU_GO_ON;

        while (next == VCPU_FINISH || (next == VCPU_GO_ON && !asked_to_park(v)))
            next = enter(v);
        if (next == VCPU_STRAND) {
            LOCK_SCOPE(&v->engine->lock);
            v->stranded = true;
        }
    }
    return NULL;
}

int kvm_vcpu_start(struct kvm_vcpu *v, struct error **err)
{
    int rc = thread_start(&v->thread, vcpu_thread, v);

    if (rc)
        return error_set_errno(err, -rc, "thread of vCPU %u", v->index);
    v->started = true;
    return 0;
}

/* Makes all vCPUs leave the guest; they park unless quit is set. Lock held. */
static void kick_all_locked(struct kvm_engine *k)
{
    for (unsigned i = 0; i < k->config.cpus; i++) {
        struct kvm_vcpu *v = &k->vcpu[i];

        if (v->started && !v->parked)
            kvm_kick(&v->cpu, v->thread);
    }
}

void kvm_vcpus_stop(struct kvm_engine *k)
{
    pthread_mutex_lock(&k->lock);
    k->quit = true;
    kick_all_locked(k);
    pthread_cond_broadcast(&k->changed);
    pthread_mutex_unlock(&k->lock);
    for (unsigned i = 0; i < k->config.cpus; i++) {
        struct kvm_vcpu *v = &k->vcpu[i];

        if (v->started)
            pthread_join(v->thread, NULL);
        v->started = false;
    }
}

int kvm_resume(struct engine *engine, struct error **err)
{
    struct kvm_engine *k = (struct kvm_engine *)engine;

    LOCK_SCOPE(&k->lock);
    if (k->running)
        return 0;
    for (unsigned i = 0; i < k->config.cpus; i++) {
        k->vcpu[i].stranded = false;
        __atomic_store_n(&k->vcpu[i].cpu.run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    }
    k->running = true;
    pthread_cond_broadcast(&k->changed);
    return 0;
}

void kvm_pause(struct engine *engine)
{
    struct kvm_engine *k = (struct kvm_engine *)engine;

    LOCK_SCOPE(&k->lock);
    k->running = false;
    kick_all_locked(k);
    for (unsigned i = 0; i < k->config.cpus; i++) {
        while (!k->vcpu[i].parked)
            pthread_cond_wait(&k->changed, &k->lock);
    }
}
