/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The lists of confine_calls.def as programs for the kernel's filter (libseccomp makes them). All are made
 * while there is one thread and everything is permitted; to enter one is a single system call then.
 */
#include "host/confine_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "host/filter.h"

#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define START          (1u << CONFINE_START)
#define MAIN           (1u << CONFINE_MAIN)
#define SOFT           (1u << CONFINE_VCPU_SOFT)
#define KVM            (1u << CONFINE_VCPU_KVM)
#define DISK           (1u << CONFINE_DISK)
#define NET            (1u << CONFINE_NET)
#define NAT            (1u << CONFINE_NAT)
#define SERVE          (1u << CONFINE_SERVE)
#define UNPACK         (1u << CONFINE_UNPACK)
#define READ           (1u << CONFINE_READ)
#define WRITE          (1u << CONFINE_WRITE)
#define ALL            ((1u << CONFINE_KINDS) - 1)
#define SOCK_TYPE_MASK 0xfu /* beside SOCK_CLOEXEC and SOCK_NONBLOCK */

/* What pthread_create asks for, with or without the flag that has no meaning any more. */
#define THREAD_FLAGS                                                                                         \
    (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |       \
     CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

#define MAX_TESTS 2
#define IS_SELF   ~0u /* marks a test for this process's number */

struct rule {
    int call;
    unsigned kinds;
    int error; /* 0: allowed */
    struct scmp_arg_cmp tests[MAX_TESTS];
    unsigned n_tests;
};

#define EQ(argument, value)                                                                                  \
    {                                                                                                        \
        argument, SCMP_CMP_EQ, value, 0                                                                      \
    }
#define BITS(argument, mask, value)                                                                          \
    {                                                                                                        \
        argument, SCMP_CMP_MASKED_EQ, mask, value                                                            \
    }
#define SELF(argument)                                                                                       \
    {                                                                                                        \
        argument, SCMP_CMP_EQ, IS_SELF, 0                                                                    \
    }
#define ALLOW(name, kinds) {SCMP_SYS(name), kinds, 0, {{0}}, 0},
#define ALLOW_IF(name, kinds, ...)                                                                           \
    {SCMP_SYS(name),                                                                                         \
     kinds,                                                                                                  \
     0,                                                                                                      \
     {__VA_ARGS__},                                                                                          \
     sizeof((struct scmp_arg_cmp[]){__VA_ARGS__}) / sizeof(struct scmp_arg_cmp)},
#define FAIL(name, kinds, error) {SCMP_SYS(name), kinds, error, {{0}}, 0},
#define FAIL_IF(name, kinds, error, ...)                                                                     \
    {SCMP_SYS(name),                                                                                         \
     kinds,                                                                                                  \
     error,                                                                                                  \
     {__VA_ARGS__},                                                                                          \
     sizeof((struct scmp_arg_cmp[]){__VA_ARGS__}) / sizeof(struct scmp_arg_cmp)},

static const struct rule rules[] = {
#include "host/confine_calls.def"
#ifdef TABIQUE_SANITIZED
#include "host/confine_calls_sanitized.def"
#endif
};

static struct sock_fprog programs[CONFINE_KINDS];
static bool logs;

/* ---- telling ---- */

/* Names are looked up before, since a handler may not. */
#define NAMES 512
static char *names[NAMES];

static size_t put(char *out, const char *text)
{
    size_t n = strlen(text);

    memcpy(out, text, n);
    return n;
}

static size_t put_number(char *out, unsigned n)
{
    char digits[12];
    size_t used = 0, len = 0;

    do {
        digits[used++] = (char)('0' + n % 10);
        n /= 10;
    } while (n);
    while (used)
        out[len++] = digits[--used];
    return len;
}

static void on_violation(int sig, siginfo_t *info, void *context)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    unsigned call = (unsigned)info->si_syscall;
    char line[160];
    size_t n = put(line, "tabique: thread ");

    n += put_number(line + n, (unsigned)gettid());
    n += put(line + n, " made system call ");
    n += put_number(line + n, call);
    n += put(line + n, " (");
    n += put(line + n, call < NAMES && names[call] ? names[call] : "unknown");
    n += put(line + n, "), which is not on its list\n");
    if (write(STDERR_FILENO, line, n) < 0)
        n = 0;
    sigaction(sig, &standard, NULL);
    syscall(SYS_tgkill, getpid(), gettid(), sig);
}

static void tell_violations(void)
{
    struct sigaction action = {.sa_sigaction = on_violation, .sa_flags = SA_SIGINFO | SA_NODEFER};

    for (int i = 0; i < NAMES; i++)
        names[i] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, i);
    sigaction(SIGSYS, &action, NULL);
}

bool confine_seccomp_logs(void)
{
    const char *mode = getenv("TABIQUE_SECCOMP");

    return mode && strcmp(mode, "log") == 0;
}

/* ---- making ---- */

static int add_rule(scmp_filter_ctx ctx, const struct rule *r)
{
    struct scmp_arg_cmp tests[MAX_TESTS];
    uint32_t action = r->error ? SCMP_ACT_ERRNO((unsigned)r->error) : SCMP_ACT_ALLOW;

    memcpy(tests, r->tests, sizeof(tests));
    for (unsigned i = 0; i < r->n_tests; i++) {
        if (tests[i].op == SCMP_CMP_EQ && tests[i].datum_a == IS_SELF)
            tests[i].datum_a = (scmp_datum_t)getpid();
    }
    return seccomp_rule_add_array(ctx, action, r->call, r->n_tests, tests);
}

/* What is in no row. */
static uint32_t other_action(enum confine_kind kind)
{
    switch (kind) {
    case CONFINE_READ: /* a command goes on without what it does not get, and says so */
    case CONFINE_WRITE:
        return SCMP_ACT_ERRNO(EPERM);
    case CONFINE_START: /* ends the process too, but for the soft engine's stubs, which take the signal */
        return SCMP_ACT_TRAP;
    default:
        return SCMP_ACT_KILL_PROCESS;
    }
}

static int add_rules(scmp_filter_ctx ctx, enum confine_kind kind)
{
    int rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, other_action(kind));

    /* A tree instead of a chain: nobody waits long for his row. */
    if (rc == 0)
        rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    for (size_t i = 0; i < ARRAY_SIZE(rules) && rc == 0; i++) {
        unsigned kinds =
            rules[i].kinds | (rules[i].kinds & ~(NAT | SERVE | UNPACK | READ | WRITE) ? START : 0);

        if (kinds & 1u << kind)
            rc = add_rule(ctx, &rules[i]);
    }
    return rc;
}

static int make_program(enum confine_kind kind)
{
    scmp_filter_ctx ctx = seccomp_init(logs ? SCMP_ACT_TRAP : other_action(kind));
    int rc = ctx ? add_rules(ctx, kind) : -ENOMEM;

    free(programs[kind].filter);
    programs[kind] = (struct sock_fprog){0};
    if (rc == 0)
        rc = filter_export(ctx, &programs[kind]);
    if (ctx)
        seccomp_release(ctx);
    return rc;
}

static int begin(struct error **err)
{
    const char *mode = getenv("TABIQUE_SECCOMP");

    if (mode && mode[0] && strcmp(mode, "log") != 0)
        return error_set(err, EINVAL, "TABIQUE_SECCOMP=%s: only 'log' is known", mode);
    logs = confine_seccomp_logs();
    if (logs)
        tell_violations();
    return 0;
}

int confine_seccomp_prepare_one(enum confine_kind kind, struct error **err)
{
    int rc = begin(err);

    if (rc)
        return rc;
    rc = make_program(kind);
    return rc ? error_set_errno(err, -rc, "making a list of system calls") : 0;
}

int confine_seccomp_prepare(struct error **err)
{
    int rc = begin(err);

    for (unsigned kind = 0; kind < CONFINE_KINDS && rc == 0; kind++) {
        rc = make_program((enum confine_kind)kind);
        if (rc < 0)
            rc = error_set_errno(err, -rc, "making a list of system calls");
    }
    return rc;
}

int confine_seccomp_enter(enum confine_kind kind)
{
    if ((unsigned)kind >= CONFINE_KINDS || !programs[kind].filter)
        return -EINVAL;
    if (logs) {
        sigset_t set;

        /* Threads block what is the main thread's to handle. */
        sigemptyset(&set);
        sigaddset(&set, SIGSYS);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    }
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &programs[kind]) < 0 ? -errno : 0;
}
