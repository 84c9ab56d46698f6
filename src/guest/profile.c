/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest's profile in the forms that other programs read: profile.h. */
#include "guest/profile.h"

#include "base/error.h"
#include "guest/symbols.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct profile {
    struct profile_config config;
    json_t *counts; /* PROFILE_FOLDED: by stack */
    uint64_t looks, lost;
    bool settled;
};

struct profile *profile_new(const struct profile_config *config)
{
    struct profile *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->config = *config;
    p->counts = json_object();
    return p;
}

void profile_free(struct profile *p)
{
    if (!p)
        return;
    json_decref(p->counts);
    free(p);
}

static uint64_t address_of(const json_t *text)
{
    const char *s = json_string_value(text);

    return s ? strtoull(s, NULL, 16) : 0;
}

static int64_t number(const json_t *json, const char *key)
{
    return json_integer_value(json_object_get(json, key));
}

/* "function", with its place in it where it is wanted, or the address. */
static void print_place(const struct profile *p, FILE *out, uint64_t address, bool offsets)
{
    uint64_t offset;
    const char *name = symbols_find(p->config.symbols, address, &offset);

    if (!name)
        fprintf(out, "0x%" PRIx64, address);
    else if (offsets)
        fprintf(out, "%s+0x%" PRIx64, name, offset);
    else
        fputs(name, out);
}

static const char *at(const json_t *sample)
{
    const char *text = json_string_value(json_object_get(sample, "at"));

    return text ? text : "?";
}

/* The stack as one line, without its count. */
static void fold(const struct profile *p, FILE *out, const json_t *sample)
{
    const json_t *stack = json_object_get(sample, "stack");
    size_t n = json_array_size(stack);

    if (!n)
        fputs("idle", out);
    else if (number(sample, "cpl") == 3)
        fprintf(out, "user 0x%" PRIx64, address_of(json_object_get(sample, "cr3")));
    else
        fputs("kernel", out);
    while (n--) {
        uint64_t address = address_of(json_array_get(stack, n));

        fputc(';', out);
        /* A return address may be behind its function, where that never returns. */
        print_place(p, out, address - (n > 0), false);
        if (number(sample, "cpl") != 3)
            fputs("_[k]", out);
    }
    if (p->config.activities && json_array_size(stack))
        fprintf(out, ";[%s]", at(sample));
}

static int count(struct profile *p, const json_t *sample)
{
    char *line = NULL;
    size_t len;
    FILE *out = open_memstream(&line, &len);
    int rc = -ENOMEM;

    if (!out)
        return rc;
    fold(p, out, sample);
    if (fclose(out) == 0)
        rc = json_object_set_new(p->counts, line,
                                 json_integer(number(p->counts, line) + number(sample, "weight")))
                 ? -ENOMEM
                 : 0;
    free(line);
    return rc;
}

/* As `perf script` has it: a line of who, where and when, the stack from the innermost, and an empty line. */
static void script(const struct profile *p, const json_t *sample)
{
    FILE *out = p->config.out;
    const json_t *stack = json_object_get(sample, "stack");
    bool user = number(sample, "cpl") == 3;
    int64_t time = number(sample, "time-ns");
    /* The number of a process is told by its page table's, which is all that a processor knows of it. */
    uint64_t process = user ? address_of(json_object_get(sample, "cr3")) >> 12 : 0;

    fprintf(out, "%s %5" PRIu64 " [%03" PRId64 "] %" PRId64 ".%06" PRId64 ": %10" PRId64 " cpu-clock: \n",
            !json_array_size(stack) ? "idle"
            : user                  ? "user"
                                    : "kernel",
            process, number(sample, "vcpu"), time / 1000000000, time / 1000 % 1000000,
            number(sample, "weight"));
    if (p->config.activities || !json_array_size(stack))
        fprintf(out, "\t%16x [%s] ([tabique])\n", 0, at(sample));
    for (size_t n = 0; n < json_array_size(stack); n++) {
        uint64_t address = address_of(json_array_get(stack, n)) - (n > 0);

        fprintf(out, "\t%16" PRIx64 " ", address);
        print_place(p, out, address, true);
        fprintf(out, " (%s)\n", user ? "[guest.user]" : "[guest.kernel.kallsyms]");
    }
    fputc('\n', out);
}

int profile_add(struct profile *p, const json_t *answer, struct error **err)
{
    const json_t *samples = json_object_get(answer, "samples"), *sample;
    size_t i;
    int rc = 0;

    if (!json_is_array(samples))
        return error_set(err, EPROTO, "the guest's supervisor does not make sense");
    if (!p->settled)
        symbols_settle(p->config.symbols, address_of(json_object_get(answer, "syscall-entry")));
    p->settled = true;
    p->looks += (uint64_t)number(answer, "lost");
    p->lost += (uint64_t)number(answer, "lost");
    json_array_foreach(samples, i, sample)
    {
        p->looks += (uint64_t)number(sample, "weight");
        if (p->config.format == PROFILE_PERF)
            script(p, sample);
        else if (rc == 0)
            rc = count(p, sample);
    }
    return rc ? error_set_errno(err, -rc, "profile") : 0;
}

int profile_end(struct profile *p, struct error **err)
{
    const char *line;
    json_t *n;

    json_object_foreach(p->counts, line, n)
        fprintf(p->config.out, "%s %" PRId64 "\n", line, (int64_t)json_integer_value(n));
    return fflush(p->config.out) != 0 ? error_set_errno(err, errno, "profile") : 0;
}

uint64_t profile_looks(const struct profile *p, uint64_t *lost)
{
    *lost = p->lost;
    return p->looks;
}
