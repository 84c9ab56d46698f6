/* SPDX-License-Identifier: GPL-2.0-or-later */
/* run_without CALL PROGRAM ARGUMENT...: a program whose system calls of that name fail with EPERM. */
#include <err.h>
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("usage: run_without CALL PROGRAM ARGUMENT...\n", stderr);
        return 2;
    }
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int call = seccomp_syscall_resolve_name(argv[1]);
    if (!ctx || call == __NR_SCMP_ERROR || seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), call, 0) < 0 ||
        seccomp_load(ctx) < 0)
        errx(1, "no filter for '%s'", argv[1]);
    seccomp_release(ctx);
    execv(argv[2], argv + 2);
    err(1, "%s", argv[2]);
}
