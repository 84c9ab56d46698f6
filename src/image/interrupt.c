/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Signals that end a build or an import in an orderly way. One user a process, its only thread. */
#include "image/build_priv.h"

#include "base/error.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
static struct sigaction before[sizeof(signals) / sizeof(signals[0])];
static volatile sig_atomic_t caught;
static int depth;

static void on_signal(int number)
{
    caught = number;
}

void interrupt_begin(void)
{
    /* Without SA_RESTART: what waits is to wake up. */
    const struct sigaction action = {.sa_handler = on_signal};

    if (depth++)
        return;
    caught = 0;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigaction(signals[i], NULL, &before[i]);
        /* Under nohup it stays ignored. */
        if (before[i].sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
}

void interrupt_end(void)
{
    if (--depth)
        return;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &before[i], NULL);
}

int interrupted(void)
{
    return caught;
}

int interrupt_error(struct error **err)
{
    return error_set(err, EINTR, "interrupted (%s)", strsignal(caught));
}
