/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether /dev/kvm really has the processor behind it. There are kernels that offer the whole interface on
 * hosts with no VT-x or AMD-V: they run the guest's ring 3 on the processor and feed its ring 0 to KVM's
 * instruction emulator, some microseconds each and only those that it knows. Such a one boots kernels that
 * were made for it; an ordinary kernel ends at its first vector instruction. So we let a guest of ours run a
 * few instructions in ring 0 of long mode that each x86-64 processor has and that emulator does not: x87,
 * SSE2 arithmetic, LAR. A processor does it in microseconds. Called by `tabique check` and by the choice of
 * an engine; about 2 ms. No locks.
 */
#include "engine/kvm/kvm_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#define MEMORY_BYTES 0x10000u
#define PML4         0x1000u
#define PDPT         0x2000u
#define PD           0x3000u
#define GDT          0x4000u
#define STACK_TOP    0x7000u
#define CODE         0x8000u
#define DONE_PORT    0xf4

#define SELECTOR_CODE 0x10
#define SELECTOR_DATA 0x18

/* Only one that hangs takes this long; a busy host may take some. */
#define LIMIT_S 5

/*
 * RAX: 5 + 5 by PADDQ; RBX: 1 by FLD1, FISTP; RCX: LAR's access rights of the code segment (no paging, no
 * memory beyond the stack). Then OUT to DONE_PORT ends it.
 */
static const uint8_t program[] = {
    0xb8, 0x05, 0x00, 0x00, 0x00, /* mov eax, 5 */
    0x66, 0x48, 0x0f, 0x6e, 0xc0, /* movq xmm0, rax */
    0x66, 0x0f, 0xd4, 0xc0,       /* paddq xmm0, xmm0 */
    0x66, 0x48, 0x0f, 0x7e, 0xc0, /* movq rax, xmm0 */
    0x6a, 0x00,                   /* push 0 */
    0xdb, 0xe3,                   /* fninit */
    0xd9, 0xe8,                   /* fld1 */
    0xdf, 0x3c, 0x24,             /* fistp qword [rsp] */
    0x5b,                         /* pop rbx */
    0xba, 0x10, 0x00, 0x00, 0x00, /* mov edx, SELECTOR_CODE */
    0x0f, 0x02, 0xca,             /* lar ecx, edx */
    0xe6, 0xf4,                   /* out 0xf4, al */
};

#define EXPECT_RAX 10
#define EXPECT_RBX 1
#define EXPECT_RCX 0x00a09b00u /* bits 8-23 of the descriptor below; the limit's bits 16-19 are not told */
#define RCX_MASK   0x00f0ff00u

struct trial {
    int vm_fd;
    uint8_t *memory;
    struct kvm_cpu cpu;
};

static void trial_close(struct trial *t)
{
    kvm_cpu_close(&t->cpu);
    if (t->memory)
        munmap(t->memory, MEMORY_BYTES);
    if (t->vm_fd >= 0)
        close(t->vm_fd);
}

static int set_long_mode(struct trial *t)
{
    struct kvm_sregs s;
    const struct kvm_segment code = {
        .limit = ~0u, .selector = SELECTOR_CODE, .type = 0xb, .present = 1, .s = 1, .l = 1, .g = 1};
    const struct kvm_segment data = {
        .limit = ~0u, .selector = SELECTOR_DATA, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    struct kvm_regs regs = {.rip = CODE, .rsp = STACK_TOP, .rflags = 2};
    int rc = kvm_ioctl(t->cpu.fd, KVM_GET_SREGS, &s);

    if (rc < 0)
        return rc;
    put_le64(t->memory + PML4, PDPT | 3);
    put_le64(t->memory + PDPT, PD | 3);
    put_le64(t->memory + PD, 0x83); /* the first 2 MiB as they are */
    put_le64(t->memory + GDT + SELECTOR_CODE, 0x00af9b000000ffffull);
    put_le64(t->memory + GDT + SELECTOR_DATA, 0x00cf93000000ffffull);
    memcpy(t->memory + CODE, program, sizeof(program));
    s.cs = code;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.gdt.base = GDT;
    s.gdt.limit = SELECTOR_DATA + 7;
    s.cr3 = PML4;
    s.cr4 = 0x620;      /* PAE, OSFXSR, OSXMMEXCPT */
    s.cr0 = 0x80050033; /* PG, AM, WP, NE, ET, MP, PE */
    s.efer = 0xd00;     /* NXE, LMA, LME */
    rc = kvm_ioctl(t->cpu.fd, KVM_SET_SREGS, &s);
    return rc < 0 ? rc : kvm_ioctl(t->cpu.fd, KVM_SET_REGS, &regs);
}

static int set_cpuid(int kvm_fd, struct trial *t)
{
    cleanup_free struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + 256 * sizeof(list->entries[0]));

    if (!list)
        return -ENOMEM;
    list->nent = 256;
    int rc = kvm_ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, list);
    return rc < 0 ? rc : kvm_ioctl(t->cpu.fd, KVM_SET_CPUID2, list);
}

static int trial_open(struct trial *t, int kvm_fd)
{
    t->vm_fd = kvm_ioctl_value(kvm_fd, KVM_CREATE_VM, 0);
    if (t->vm_fd < 0)
        return t->vm_fd;
    void *memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -errno;
    t->memory = memory;
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY_BYTES,
                                                 .userspace_addr = (uintptr_t)memory};
    int rc = kvm_ioctl(t->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
    rc = rc < 0 ? rc : kvm_cpu_open(&t->cpu, kvm_fd, t->vm_fd, 0);
    rc = rc < 0 ? rc : set_cpuid(kvm_fd, t);
    return rc < 0 ? rc : set_long_mode(t);
}

struct run {
    struct trial *trial;
    int rc;
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
};

static void *run_thread(void *opaque)
{
    struct run *r = opaque;

    kvm_kick_only();
    int rc = ioctl(r->trial->cpu.fd, KVM_RUN, 0) < 0 ? -errno : 0;
    LOCK_SCOPE(&r->lock);
    r->rc = rc;
    r->done = true;
    pthread_cond_signal(&r->ended);
    return NULL;
}

/* KVM_RUN in a thread of its own, so that one that never comes back can be called off. 0 or -errno. */
static int run_for_a_while(struct trial *t)
{
    struct run r = {.trial = t, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_condattr_t attr;
    pthread_t thread;
    struct timespec until;
    int rc = kvm_kick_setup();

    if (rc < 0)
        return rc;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r.ended, &attr);
    pthread_condattr_destroy(&attr);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LIMIT_S;
    rc = -pthread_create(&thread, NULL, run_thread, &r);
    if (rc == 0) {
        pthread_mutex_lock(&r.lock);
        while (!r.done && rc == 0)
            rc = -pthread_cond_timedwait(&r.ended, &r.lock, &until);
        if (!r.done)
            kvm_kick(&t->cpu, thread);
        pthread_mutex_unlock(&r.lock);
        pthread_join(thread, NULL);
        if (rc == 0)
            rc = r.rc;
    }
    pthread_cond_destroy(&r.ended);
    pthread_mutex_destroy(&r.lock);
    return rc;
}

/* What the trial guest's end tells. 0, or -ENODEV with *err. */
static int judge(struct trial *t, struct error **err)
{
    const struct kvm_run *run = t->cpu.run;
    struct kvm_regs regs;

    if (run->exit_reason == KVM_EXIT_IO && run->io.port == DONE_PORT &&
        kvm_ioctl(t->cpu.fd, KVM_GET_REGS, &regs) >= 0 && regs.rax == EXPECT_RAX && regs.rbx == EXPECT_RBX &&
        (regs.rcx & RCX_MASK) == EXPECT_RCX)
        return 0;
    if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR && run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
        return error_set(
            err, ENODEV,
            "/dev/kvm is false: no VT-x or AMD-V is behind it, it emulates the guest's kernel and "
            "can't run an ordinary one; use --engine soft");
    return error_set(
        err, ENODEV,
        "/dev/kvm is there, but does not run a trial guest as a processor would (exit reason %u); "
        "use --engine soft",
        run->exit_reason);
}

int kvm_engine_probe(struct error **err)
{
    struct trial t = {.vm_fd = -1, .cpu = KVM_CPU_NONE};
    cleanup_close int fd = kvm_open(err);

    if (fd < 0)
        return fd;
    int rc = trial_open(&t, fd);
    if (rc < 0) {
        rc = error_set_errno(err, -rc, "/dev/kvm is there, but can't make a machine; use --engine soft");
    } else {
        rc = run_for_a_while(&t);
        if (rc < 0)
            rc = error_set_errno(err, -rc,
                                 "/dev/kvm is there, but a trial guest did not end; use --engine soft");
        else
            rc = judge(&t, err);
    }
    trial_close(&t);
    return rc;
}
