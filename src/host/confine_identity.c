/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who the process is: user ids, capabilities, keyring. Capabilities by libcap, whose calls act on
 * the calling thread, the only one there is; no locks.
 */
#include "host/confine_priv.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"

#include <errno.h>
#include <grp.h>
#include <linux/keyctl.h>
#include <linux/securebits.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/*
 * Above what distributions, systemd and container tools hand out, below 2^31. With the process's number on
 * top no two confined processes of a host (and a PID namespace) share an id, so none may signal another, and
 * limits per user are limits per process.
 */
#define OWN_ID_BASE 1900000000u
#define NOBODY      65534u /* where a container maps too few ids */

static int take_id(unsigned id)
{
    if (setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0)
        return -errno;
    return 0;
}

static void change_identity(struct confine_status *status)
{
    if (geteuid() != 0 || status->state[CONFINE_USER] == CONFINE_DONE) {
        status->state[CONFINE_IDENTITY] = CONFINE_UNNEEDED;
        return;
    }
    if (syscall(SYS_setgroups, 0, NULL) < 0) {
        confine_mark(status, CONFINE_IDENTITY, -errno);
        return;
    }
    int rc = take_id(OWN_ID_BASE + (unsigned)getpid());
    confine_mark(status, CONFINE_IDENTITY, rc);
    if (rc && take_id(NOBODY) == 0)
        status->state[CONFINE_IDENTITY] = CONFINE_WEAKER;
}

/* What an exec could bring back. Without the right to do it no_new_privs alone must do, as it does. */
static void drop_inheritable(void)
{
    cap_reset_ambient();
    for (cap_value_t c = 0; cap_get_bound(c) >= 0; c++)
        cap_drop_bound(c);
    prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NO_CAP_AMBIENT_RAISE | SECURE_ALL_LOCKS);
}

/* No others than these. */
static int keep_capabilities(const cap_value_t *kept, int n, struct error **err)
{
    cap_t caps = cap_init();
    bool ok = caps && (!n || (cap_set_flag(caps, CAP_PERMITTED, n, kept, CAP_SET) == 0 &&
                              cap_set_flag(caps, CAP_EFFECTIVE, n, kept, CAP_SET) == 0));
    int e = ok && cap_set_proc(caps) == 0 ? 0 : errno;

    cap_free(caps);
    return e ? error_set_errno(err, e, "dropping capabilities") : 0;
}

static int drop_capabilities(struct error **err)
{
    cap_flag_value_t held = CAP_CLEAR;
    int rc = keep_capabilities(NULL, 0, err);

    if (rc)
        return rc;
    cap_t now = cap_get_proc();
    if (!now)
        return error_set_errno(err, errno, "looking at capabilities");
    for (cap_value_t c = 0; c <= cap_max_bits() && held == CAP_CLEAR; c++) {
        for (cap_flag_t set = CAP_EFFECTIVE; set <= CAP_INHERITABLE && held == CAP_CLEAR; set++)
            cap_get_flag(now, c, set, &held);
    }
    cap_free(now);
    return held == CAP_CLEAR ? 0 : error_set(err, EPERM, "capabilities stay although they were dropped");
}

int confine_privileges(struct confine_status *status, struct error **err)
{
    drop_inheritable();
    change_identity(status);
    return drop_capabilities(err);
}

int confine_privileges_unpack(struct confine_status *status, struct error **err)
{
    static const cap_value_t kept[] = {CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_FSETID, CAP_SETFCAP};

    status->state[CONFINE_IDENTITY] = CONFINE_UNNEEDED;
    drop_inheritable();
    return keep_capabilities(kept, ARRAY_SIZE(kept), err);
}

void confine_session(struct confine_status *status)
{
    int rc = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 ? -errno : 0;

    confine_mark(status, CONFINE_SESSION, rc);
}
