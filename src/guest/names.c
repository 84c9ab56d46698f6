/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Names of guests. Called by guest.c and the command line. No state. */
#include "guest/names.h"

#include "base/bytes.h"
#include "base/error.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* More tries than this without a number are a waste where many guests are. */
#define PLAIN_ATTEMPTS 8

static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/* A name is a directory's name, a word on the command line and of a host name, so it is plain. */
int name_check(const char *name, struct error **err)
{
    static const char all[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
    size_t len = strlen(name);

    if (len == 0)
        return error_set(err, EINVAL, "the guest's name is empty");
    if (len > NAME_MAX_LENGTH)
        return error_set(err, EINVAL, "a guest's name of %zu characters: choose one of up to %d", len,
                         NAME_MAX_LENGTH);
    if (!strchr(letters, name[0]) || strspn(name, all) != len)
        return error_set(
            err, EINVAL,
            "'%s' is no name for a guest: use letters, digits, '-', '_' and '.', a letter or digit first",
            name);
    return 0;
}

static const char *const qualities[] = {
    "amber", "brave", "bright", "calm",  "clever", "cosy",  "eager", "early",  "fair",  "fresh", "gentle",
    "glad",  "grand", "happy",  "keen",  "kind",   "light", "lucky", "mellow", "merry", "mild",  "neat",
    "noble", "plain", "proud",  "quick", "quiet",  "rapid", "sunny", "swift",  "tidy",  "warm",
};

static const char *const things[] = {
    "alder",  "badger", "beech", "birch",   "brook", "cedar",   "clover", "crane",
    "dune",   "falcon", "fern",  "finch",   "grove", "hazel",   "heron",  "lark",
    "linden", "maple",  "marsh", "otter",   "pine",  "plover",  "raven",  "reed",
    "robin",  "rowan",  "sedge", "sparrow", "stork", "thistle", "willow", "wren",
};

void name_invent(char *buf, size_t len, unsigned attempt)
{
    uint32_t random;

    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != (ssize_t)sizeof(random))
        random = (uint32_t)clock() + attempt * 2654435761u;
    const char *quality = qualities[random % ARRAY_SIZE(qualities)];
    const char *thing = things[(random >> 8) % ARRAY_SIZE(things)];
    if (attempt < PLAIN_ATTEMPTS)
        snprintf(buf, len, "%s-%s", quality, thing);
    else
        snprintf(buf, len, "%s-%s-%u", quality, thing, 2 + (random >> 16) % (100 << (attempt / 64)));
}
