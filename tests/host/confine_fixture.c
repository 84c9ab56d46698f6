/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Becoming root or not, inside a container or not. The container is made of what it would forbid. */
#include "confine_fixture.h"

#include <err.h>
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY    65534
#define NAMESPACE 0x7e020000u /* CLONE_NEW*, in clone's flags */

static bool in_container(enum fixture_case c)
{
    return c == AS_CONTAINER_ROOT || c == AS_CONTAINER_USER;
}

static bool is_root(enum fixture_case c)
{
    return c == AS_ROOT || c == AS_CONTAINER_ROOT;
}

const char *fixture_name(enum fixture_case c)
{
    static const char *const names[] = {"root", "user", "root in a container", "user in a container"};

    return names[c];
}

bool fixture_possible(enum fixture_case c)
{
    return geteuid() == 0 || !is_root(c);
}

/* Docker's default list refuses these to those without CAP_SYS_ADMIN. */
static void forbid_namespaces(void)
{
    static const int calls[] = {SCMP_SYS(unshare), SCMP_SYS(mount),  SCMP_SYS(umount2), SCMP_SYS(pivot_root),
                                SCMP_SYS(setns),   SCMP_SYS(keyctl), SCMP_SYS(bpf),     SCMP_SYS(add_key)};
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int rc = ctx ? 0 : -ENOMEM;

    for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]) && rc == 0; i++)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), calls[i], 0);
    for (unsigned bit = 0; bit < 32 && rc == 0; bit++) {
        if (NAMESPACE & 1u << bit)
            rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                  SCMP_A0(SCMP_CMP_MASKED_EQ, 1u << bit, 1u << bit));
    }
    if (rc == 0)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (rc == 0)
        rc = seccomp_load(ctx);
    if (rc) {
        errno = -rc;
        err(99, "the container's filter");
    }
    seccomp_release(ctx);
}

static void drop_admin(void)
{
    static const cap_value_t admin[] = {CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYS_RESOURCE, CAP_NET_ADMIN};
    cap_t caps = cap_get_proc();

    if (!caps || cap_set_flag(caps, CAP_EFFECTIVE, 4, admin, CAP_CLEAR) < 0 ||
        cap_set_flag(caps, CAP_PERMITTED, 4, admin, CAP_CLEAR) < 0 || cap_set_proc(caps) < 0)
        err(99, "capabilities");
    cap_free(caps);
}

void fixture_become(enum fixture_case c)
{
    if (!is_root(c) && geteuid() == 0) {
        if (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
            setresuid(NOBODY, NOBODY, NOBODY) < 0)
            err(99, "becoming nobody");
        /* As after an exec: /proc/self belongs to the user. */
        prctl(PR_SET_DUMPABLE, 1);
    }
    if (in_container(c)) {
        forbid_namespaces();
        if (is_root(c))
            drop_admin();
    }
}

bool fixture_permits_namespaces(enum fixture_case c)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        fixture_become(c);
        _exit(unshare(is_root(c) ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) < 0);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}
