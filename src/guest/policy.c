/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Restart policies. Called by the supervisor and, to check a text, by the command line. No state. */
#include "guest/policy.h"

#include "base/error.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_DELAY_NS 100000000ull
#define MOST_DELAY_NS  60000000000ull

#define TELL_NS    1000000000ull
#define TELL_BURST 20

int policy_parse(struct policy *out, const char *text, struct error **err)
{
    static const struct {
        const char *name;
        enum policy_kind kind;
    } kinds[] = {
        {"no", POLICY_NO},
        {"on-failure", POLICY_ON_FAILURE},
        {"always", POLICY_ALWAYS},
        {"unless-stopped", POLICY_UNLESS_STOPPED},
    };
    size_t len = strcspn(text, ":");

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strlen(kinds[i].name) != len || memcmp(kinds[i].name, text, len) != 0)
            continue;
        if (!text[len]) {
            *out = (struct policy){.kind = kinds[i].kind};
            return 0;
        }
        char *end;
        errno = 0;
        unsigned long long most =
            isdigit((unsigned char)text[len + 1]) ? strtoull(text + len + 1, &end, 10) : 0;
        if (kinds[i].kind != POLICY_ON_FAILURE || !most || *end || errno)
            break;
        *out = (struct policy){.kind = POLICY_ON_FAILURE, .most = most};
        return 0;
    }
    return error_set(
        err, EINVAL,
        "'%s' is no restart policy: choose no, on-failure, on-failure:N, always or unless-stopped", text);
}

bool policy_restarts(const struct policy *policy, const struct policy_end *end, uint64_t *delay_ns)
{
    uint64_t in_a_row = end->ran_ns >= POLICY_LONG_RUN_NS ? 0 : end->in_a_row;

    if (policy->kind == POLICY_NO || (policy->kind == POLICY_ON_FAILURE && end->exit_status == 0))
        return false;
    if (policy->most && in_a_row >= policy->most)
        return false;
    /* A guest that ends at once, each time, must not keep the host busy. */
    uint64_t delay = in_a_row > 16 ? MOST_DELAY_NS : FIRST_DELAY_NS << in_a_row;
    *delay_ns = delay < MOST_DELAY_NS ? delay : MOST_DELAY_NS;
    return true;
}

bool policy_may_tell(struct policy_telling *telling, uint64_t now)
{
    uint64_t from = telling->told > now ? telling->told : now;

    if (from - now > (TELL_BURST - 1) * TELL_NS) {
        telling->left_out++;
        return false;
    }
    telling->told = from + TELL_NS;
    return true;
}
