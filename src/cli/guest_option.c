/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values of flags that have to do with guests: names, restart policies, times. No locks, no state. */
#include "base/error.h"
#include "cli/options.h"
#include "guest/names.h"
#include "guest/policy.h"
#include "guest/registry.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_SECOND 1000000000ll
#define MOST_SECONDS  86400.0

int cli_check_guest_name(const char *text, struct error **err)
{
    int rc = name_check(text, err);

    return rc ? error_wrap(err, "--name") : 0;
}

int cli_check_restart(const char *text, struct error **err)
{
    struct policy policy;
    int rc = policy_parse(&policy, text, err);

    return rc ? error_wrap(err, "--restart") : 0;
}

/* A number with its unit, seconds without; *text is then behind it. Seconds, or -1. */
static double take_span(const char **text)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"ms", 0.001}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
    char *end;

    if (!isdigit((unsigned char)**text))
        return -1;
    double number = strtod(*text, &end);
    if (end[0] == 0 && isdigit((unsigned char)end[-1])) {
        *text = end;
        return number;
    }
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        size_t len = strlen(units[i].unit);
        if (strncmp(end, units[i].unit, len) == 0 && (!end[len] || isdigit((unsigned char)end[len]))) {
            *text = end + len;
            return number * units[i].seconds;
        }
    }
    return -1;
}

/* 0 with *out in seconds, or -EINVAL. */
static int parse_span(const char *text, double *out)
{
    double sum = 0;

    /* Hexadecimal numbers and powers of ten are strtod's, not ours. */
    if (!*text || strspn(text, "0123456789.msdh") != strlen(text))
        return -EINVAL;
    while (*text) {
        double span = take_span(&text);
        if (span < 0)
            return -EINVAL;
        sum += span;
    }
    *out = sum;
    return 0;
}

int cli_parse_duration(const char *text, uint64_t *out_ms)
{
    double seconds;

    if (parse_span(text, &seconds) || seconds > MOST_SECONDS)
        return -EINVAL;
    *out_ms = (uint64_t)(seconds * 1000 + 0.5);
    return 0;
}

int cli_check_duration(const char *text, struct error **err)
{
    uint64_t ms;

    return cli_parse_duration(text, &ms)
               ? error_set(err, EINVAL,
                           "--timeout: '%s' is no span of time up to a day: give seconds, or "
                           "such as 500ms, 1.5s, 2m",
                           text)
               : 0;
}

int cli_parse_time(const char *text, int64_t *out_ns)
{
    static const char *const forms[] = {"%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S",
                                        "%Y-%m-%d %H:%M:%S"};
    double seconds;

    if (text[0] == '@') {
        char *end;
        long long n = isdigit((unsigned char)text[1]) ? strtoll(text + 1, &end, 10) : -1;
        if (n < 0 || *end || n > INT64_MAX / NS_PER_SECOND)
            return -EINVAL;
        *out_ns = n * NS_PER_SECOND;
        return 0;
    }
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct tm tm = {.tm_isdst = -1};
        const char *end = strptime(text, forms[i], &tm);
        time_t t = end && !*end ? mktime(&tm) : -1;
        if (t != -1) {
            *out_ns = (int64_t)t * NS_PER_SECOND;
            return 0;
        }
    }
    if (parse_span(text, &seconds) || seconds > 1e9)
        return -EINVAL;
    *out_ns = registry_now() - (int64_t)(seconds * 1e9);
    return 0;
}

int cli_check_time(const char *text, struct error **err)
{
    int64_t ns;

    return cli_parse_time(text, &ns)
               ? error_set(err, EINVAL,
                           "--since: '%s' is no time: give a date such as 2026-01-31T12:00:00, "
                           "or how long ago, such as 10m",
                           text)
               : 0;
}
