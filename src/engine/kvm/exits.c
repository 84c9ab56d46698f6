/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a vCPU does when KVM_RUN returns: accesses to ports and device registers, ends, failures. Called by
 * the vCPU's own thread with no lock held.
 */
#include "engine/kvm/kvm_priv.h"

#include "base/bytes.h"

#include <stdio.h>
#include <string.h>

static uint64_t load(const uint8_t *p, unsigned size)
{
    uint64_t v = 0;

    memcpy(&v, p, size);
    return v;
}

/* A string instruction comes as one exit with `count` accesses to the same port. */
static void handle_port(struct kvm_vcpu *v)
{
    struct kvm_run *run = v->cpu.run;
    struct io_space *pio = v->engine->config.pio;
    unsigned size = run->io.size;
    uint64_t end = run->io.data_offset + (uint64_t)run->io.count * size;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    if (end > v->cpu.run_size)
        return; /* never, unless the kernel is mistaken */
    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        if (run->io.direction == KVM_EXIT_IO_OUT) {
            io_space_write(pio, run->io.port, size, load(data, size));
        } else {
            uint64_t value = io_space_read(pio, run->io.port, size);
            memcpy(data, &value, size);
        }
    }
}

/* An access that crosses a page or 8 bytes comes in parts of any length: these are split to what exists. */
static void handle_mmio(struct kvm_vcpu *v)
{
    struct kvm_run *run = v->cpu.run;
    struct io_space *mmio = v->engine->config.mmio;
    uint64_t addr = run->mmio.phys_addr;
    unsigned left = run->mmio.len <= sizeof(run->mmio.data) ? run->mmio.len : sizeof(run->mmio.data);
    uint8_t *data = run->mmio.data;

    while (left) {
        unsigned size = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;

        if (run->mmio.is_write) {
            io_space_write(mmio, addr, size, load(data, size));
        } else {
            uint64_t value = io_space_read(mmio, addr, size);
            memcpy(data, &value, size);
        }
        addr += size;
        data += size;
        left -= size;
    }
}

static enum vcpu_next handle_system_event(struct kvm_vcpu *v)
{
    struct kvm_engine *k = v->engine;
    uint32_t type = v->cpu.run->system_event.type;

    switch (type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        k->config.event(k->config.opaque, MACHINE_POWEROFF, 0);
        break;
    case KVM_SYSTEM_EVENT_RESET:
        k->config.event(k->config.opaque, MACHINE_RESET, 0);
        break;
    case KVM_SYSTEM_EVENT_CRASH:
        k->config.event(k->config.opaque, MACHINE_PANIC, 0);
        break;
    default:
        kvm_engine_fail(k, "vCPU %u: KVM reported the unknown system event %u", v->index, type);
        break;
    }
    return VCPU_STRAND;
}

/* "rip 0xffffffff81000000 (long mode, CPL 0)", for failures. */
static void describe_position(struct kvm_vcpu *v, char *out, size_t size)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs;

    if (kvm_ioctl(v->cpu.fd, KVM_GET_REGS, &regs) < 0 || kvm_ioctl(v->cpu.fd, KVM_GET_SREGS, &sregs) < 0) {
        snprintf(out, size, "an unknown place");
        return;
    }
    const char *mode = !(sregs.cr0 & 1)        ? "real mode"
                       : !(sregs.efer & 0x400) ? "protected mode"
                       : sregs.cs.l            ? "long mode"
                                               : "compatibility mode";
    snprintf(out, size, "rip 0x%llx (%s, CPL %u)", (unsigned long long)regs.rip, mode, sregs.ss.dpl);
}

static void fail_internal(struct kvm_vcpu *v)
{
    static const char *const what[] = {
        "an internal error", "an instruction that it can't emulate", "an exception while it handled another",
        "an interrupt that it could not deliver", "an exit of the processor that it does not know"};
    struct kvm_run *run = v->cpu.run;
    uint32_t sub = run->internal.suberror;
    char where[96], bytes[64] = "";

    describe_position(v, where, sizeof(where));
    if (sub == KVM_INTERNAL_ERROR_EMULATION && run->emulation_failure.ndata >= 1 &&
        run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) {
        size_t n = run->emulation_failure.insn_size, used = 0;

        if (n > sizeof(run->emulation_failure.insn_bytes))
            n = sizeof(run->emulation_failure.insn_bytes);
        used = (size_t)snprintf(bytes, sizeof(bytes), ", bytes");
        for (size_t i = 0; i < n && used < sizeof(bytes) - 4; i++)
            used += (size_t)snprintf(bytes + used, sizeof(bytes) - used, " %02x",
                                     run->emulation_failure.insn_bytes[i]);
    }
    kvm_engine_fail(v->engine, "vCPU %u: KVM met %s at %s%s; --engine soft runs without KVM", v->index,
                    sub < ARRAY_SIZE(what) ? what[sub] : what[0], where, bytes);
}

enum vcpu_next kvm_exit_handle(struct kvm_vcpu *v)
{
    struct kvm_engine *k = v->engine;
    struct kvm_run *run = v->cpu.run;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        handle_port(v);
        return VCPU_FINISH;
    case KVM_EXIT_MMIO:
        handle_mmio(v);
        return VCPU_FINISH;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return VCPU_GO_ON;
    case KVM_EXIT_SHUTDOWN: /* a triple fault */
        k->config.event(k->config.opaque, MACHINE_RESET, 0);
        return VCPU_STRAND;
    case KVM_EXIT_SYSTEM_EVENT:
        return handle_system_event(v);
    case KVM_EXIT_FAIL_ENTRY:
        kvm_engine_fail(k, "vCPU %u: the processor refused to enter the guest (hardware reason 0x%llx)",
                        v->index, (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        return VCPU_STRAND;
    case KVM_EXIT_INTERNAL_ERROR:
        fail_internal(v);
        return VCPU_STRAND;
    default:
        kvm_engine_fail(k, "vCPU %u: KVM stopped for a reason that is not known here (%u)", v->index,
                        run->exit_reason);
        return VCPU_STRAND;
    }
}
