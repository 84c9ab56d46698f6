/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The verb `profile`: asks again and again, until the time is over or a person has seen enough. */
#include "guest/profile.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "cli/guests.h"
#include "cli/options.h"
#include "guest/control.h"
#include "guest/symbols.h"
#include "host/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <time.h>

/* The engine keeps what it finds in a quarter of a second at least. */
#define ASK_NS    100000000
#define ANSWER_MS 10000

static volatile sig_atomic_t enough;

static void on_signal(int signal)
{
    enough = signal;
}

static int gather(const struct home *home, const char *name, uint64_t frequency, uint64_t until,
                  struct profile *profile, struct error **err)
{
    const struct control_request request = {.verb = CONTROL_PROFILE, .frequency = frequency};
    cleanup_close int fd = control_connect(home, name, err);
    bool last = false, more = false;

    if (fd < 0)
        return fd;
    while (!last || more) {
        json_t *answer = NULL;
        int rc = control_send(fd, &request, err);

        last = enough || loop_now() >= until;
        if (rc == 0)
            rc = control_receive(fd, ANSWER_MS, &answer, err);
        if (rc == 0)
            rc = profile_add(profile, answer, err);
        more = json_is_true(json_object_get(answer, "more"));
        json_decref(answer);
        if (rc)
            return error_wrap(err, "guest '%s'", name);
        if (!last && !more)
            nanosleep(&(struct timespec){.tv_nsec = ASK_NS}, NULL);
    }
    return 0;
}

static int add_symbols(const struct cli_values *values, struct symbols *symbols, struct error **err)
{
    size_t n;
    const char **paths = cli_list(values, "symbols", &n);

    for (size_t i = 0; i < n; i++) {
        int rc = symbols_add_file(symbols, paths[i], err);
        if (rc)
            return rc;
    }
    return 0;
}

static int make(const struct home *home, const struct cli_values *values, struct profile_config *config,
                struct error **err)
{
    const struct sigaction action = {.sa_handler = on_signal};
    struct profile *profile = profile_new(config);
    uint64_t ms = 0, lost;

    if (!profile)
        return error_set_errno(err, ENOMEM, "profile");
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    cli_parse_duration(cli_string(values, "time"), &ms);
    int rc = gather(home, cli_string(values, "NAME"), cli_uint(values, "frequency"),
                    loop_now() + ms * 1000000, profile, err);
    /* A guest that ends has told all that there was. */
    int written = profile_end(profile, rc ? NULL : err);
    uint64_t looks = profile_looks(profile, &lost);
    if (lost)
        fprintf(stderr, "%" PRIu64 " of %" PRIu64 " looks were lost: this host was too busy to fetch them\n",
                lost, looks);
    profile_free(profile);
    return rc ? rc : written;
}

int cli_profile(const struct cli_values *values, int *status, struct error **err)
{
    cleanup_home struct home home = {0};
    const char *path = cli_string(values, "output");
    struct profile_config config = {
        .out = stdout,
        .format = strcmp(cli_string(values, "format"), "perf") == 0 ? PROFILE_PERF : PROFILE_FOLDED,
        .activities = cli_bool(values, "activities"),
        .symbols = symbols_new(),
    };
    cleanup_fclose FILE *file = NULL;
    int rc = config.symbols ? home_find(&home, err) : error_set_errno(err, ENOMEM, "symbols");

    if (rc == 0)
        rc = add_symbols(values, config.symbols, err);
    if (rc == 0 && path) {
        config.out = file = fopen(path, "we");
        if (!file)
            rc = error_set_errno(err, errno, "'%s'", path);
    }
    if (rc == 0)
        rc = make(&home, values, &config, err);
    symbols_free(config.symbols);
    *status = rc ? CLI_STATUS_FAILED : 0;
    return rc;
}
