/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules for devices on cgroup v2: a program that the kernel runs when a process in the group opens or makes a
 * device node (BPF_PROG_TYPE_CGROUP_DEVICE). It goes through the rules from the last to the first and keeps
 * in a register which kinds of access are not decided yet; so each kind is decided by the last rule that
 * speaks of it. No state, no locks.
 *
 *     r1  the request: access << 16 | type, major, minor        r2  type, then scratch
 *     r3  access that is to be decided: BPF_DEVCG_ACC_*          r4  major       r5  minor
 */
#include "container/cgroup_priv.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#define INSNS_A_RULE 8 /* at most */
#define INSNS_AROUND 8
#define PROGRAMS_MAX 64

struct assembler {
    struct bpf_insn *insns;
    size_t n;
};

static void emit(struct assembler *a, uint8_t code, uint8_t dst, uint8_t src, int16_t off, int32_t imm)
{
    a->insns[a->n++] =
        (struct bpf_insn){.code = code, .dst_reg = dst & 0xf, .src_reg = src & 0xf, .off = off, .imm = imm};
}

static void emit_load(struct assembler *a, uint8_t dst, size_t offset)
{
    emit(a, BPF_LDX | BPF_MEM | BPF_W, dst, BPF_REG_1, (int16_t)offset, 0);
}

static void emit_return(struct assembler *a, int32_t value)
{
    emit(a, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, value);
    emit(a, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static int32_t access_bits(unsigned access)
{
    return (access & CONTAINER_DEVICE_READ ? BPF_DEVCG_ACC_READ : 0) |
           (access & CONTAINER_DEVICE_WRITE ? BPF_DEVCG_ACC_WRITE : 0) |
           (access & CONTAINER_DEVICE_MKNOD ? BPF_DEVCG_ACC_MKNOD : 0);
}

/* Jumps out of the rule are filled in when its end is known. */
static void emit_rule(struct assembler *a, const struct container_device_rule *rule)
{
    size_t skips[4], n_skips = 0;
    int32_t access = access_bits(rule->access);

    if (rule->type != 'a') {
        skips[n_skips++] = a->n;
        emit(a, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_2, 0, 0,
             rule->type == 'b' ? BPF_DEVCG_DEV_BLOCK : BPF_DEVCG_DEV_CHAR);
    }
    if (rule->major != CONTAINER_DEVICE_ANY) {
        skips[n_skips++] = a->n;
        emit(a, BPF_JMP32 | BPF_JNE | BPF_K, BPF_REG_4, 0, 0, (int32_t)(uint32_t)rule->major);
    }
    if (rule->minor != CONTAINER_DEVICE_ANY) {
        skips[n_skips++] = a->n;
        emit(a, BPF_JMP32 | BPF_JNE | BPF_K, BPF_REG_5, 0, 0, (int32_t)(uint32_t)rule->minor);
    }
    if (rule->access == CONTAINER_DEVICE_ALL) {
        emit_return(a, rule->allow);
    } else if (rule->allow) {
        /* These are granted; when nothing is left, all is. */
        emit(a, BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_3, 0, 0, ~access);
        skips[n_skips++] = a->n;
        emit(a, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_3, 0, 0, 0);
        emit_return(a, 1);
    } else {
        /* "Jump if a bit is set" over the jump away. */
        emit(a, BPF_JMP | BPF_JSET | BPF_K, BPF_REG_3, 0, 1, access);
        skips[n_skips++] = a->n;
        emit(a, BPF_JMP | BPF_JA, 0, 0, 0, 0);
        emit_return(a, 0);
    }
    for (size_t i = 0; i < n_skips; i++)
        a->insns[skips[i]].off = (int16_t)(a->n - skips[i] - 1);
}

static bool is_for_everything(const struct container_device_rule *rule)
{
    return rule->type == 'a' && rule->major == CONTAINER_DEVICE_ANY && rule->minor == CONTAINER_DEVICE_ANY &&
           rule->access == CONTAINER_DEVICE_ALL;
}

/* The program, to be freed; NULL without memory. */
static struct bpf_insn *assemble(const struct container_device_rule *rules, size_t n, size_t *count)
{
    struct assembler a = {calloc(n * INSNS_A_RULE + INSNS_AROUND, sizeof(struct bpf_insn)), 0};
    bool allow = false;

    if (!a.insns)
        return NULL;
    emit_load(&a, BPF_REG_2, offsetof(struct bpf_cgroup_dev_ctx, access_type));
    emit(&a, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_3, BPF_REG_2, 0, 0);
    emit(&a, BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_2, 0, 0, 0xffff);
    emit(&a, BPF_ALU64 | BPF_RSH | BPF_K, BPF_REG_3, 0, 0, 16);
    emit_load(&a, BPF_REG_4, offsetof(struct bpf_cgroup_dev_ctx, major));
    emit_load(&a, BPF_REG_5, offsetof(struct bpf_cgroup_dev_ctx, minor));
    for (size_t i = n; i-- > 0;) {
        if (is_for_everything(&rules[i])) {
            allow = rules[i].allow;
            break; /* what came before it is forgotten */
        }
        if (rules[i].access)
            emit_rule(&a, &rules[i]);
    }
    emit_return(&a, allow);
    *count = a.n;
    return a.insns;
}

static int bpf(int command, union bpf_attr *attr)
{
    int rc = (int)syscall(SYS_bpf, command, attr, sizeof(*attr));

    return rc < 0 ? -errno : rc;
}

static int load(const struct bpf_insn *insns, size_t n)
{
    union bpf_attr attr = {
        .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
        .insns = (uintptr_t)insns,
        .insn_cnt = (uint32_t)n,
        .license = (uintptr_t) "GPL",
    };

    memcpy(attr.prog_name, "tabique_devices", sizeof("tabique_devices"));
    return bpf(BPF_PROG_LOAD, &attr);
}

static int attach(int group, int program)
{
    union bpf_attr attr = {.target_fd = (uint32_t)group,
                           .attach_bpf_fd = (uint32_t)program,
                           .attach_type = BPF_CGROUP_DEVICE,
                           .attach_flags = BPF_F_ALLOW_MULTI};

    return bpf(BPF_PROG_ATTACH, &attr);
}

/* The ids of the programs that are on the group; their number or -errno. */
static int query(int group, uint32_t ids[static PROGRAMS_MAX])
{
    union bpf_attr attr = {.query = {.target_fd = (uint32_t)group,
                                     .attach_type = BPF_CGROUP_DEVICE,
                                     .prog_ids = (uintptr_t)ids,
                                     .prog_cnt = PROGRAMS_MAX}};
    int rc = bpf(BPF_PROG_QUERY, &attr);

    return rc < 0 ? rc : (int)attr.query.prog_cnt;
}

static void detach(int group, uint32_t id)
{
    union bpf_attr by_id = {.prog_id = id};
    cleanup_close int program = bpf(BPF_PROG_GET_FD_BY_ID, &by_id);
    union bpf_attr attr = {
        .target_fd = (uint32_t)group, .attach_bpf_fd = (uint32_t)program, .attach_type = BPF_CGROUP_DEVICE};

    if (program >= 0)
        bpf(BPF_PROG_DETACH, &attr);
}

int cgroup_v2_devices(const char *directory, const struct container_device_rule *rules, size_t n,
                      struct error **err)
{
    uint32_t old[PROGRAMS_MAX];
    size_t count;
    cleanup_close int group = open(directory, O_DIRECTORY | O_RDONLY | O_CLOEXEC);

    if (group < 0)
        return error_set_errno(err, errno, CGROUP_FIELD "devices: %s", directory);
    cleanup_free struct bpf_insn *insns = assemble(rules, n, &count);
    if (!insns)
        return error_set_errno(err, ENOMEM, "limiting a container");
    cleanup_close int program = load(insns, count);
    if (program < 0)
        return error_set_errno(err, -program,
                               CGROUP_FIELD "devices: the kernel does not take a program of %zu rules", n);
    /* All programs of a group must agree: with the new one there the old ones may go, and nothing was open.
     */
    int n_old = query(group, old);
    int rc = attach(group, program);
    if (rc < 0)
        return error_set_errno(err, -rc, CGROUP_FIELD "devices: putting a program on %s", directory);
    for (int i = 0; i < n_old; i++)
        detach(group, old[i]);
    return 0;
}
