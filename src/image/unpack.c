/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process in which a strange archive is unpacked: in a sandbox, for the owners that its files are to
 * have, and confined there to the directory that they go to. It tells what it does in lines. Called by those
 * who import and make containers.
 */
#include "image/unpack_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"
#include "host/confine.h"
#include "image/build_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <string.h>
#include <sys/stat.h>

#define HEADROOM (512ull << 20) /* bytes of address space: windows of decompressors are up to 128 MiB */
#define STEPS    200            /* of progress that are told */

struct unpacking {
    const struct unpack_job *job;
    const struct image_progress *progress;
    struct unpack_result *result;
    int told; /* in the process: of STEPS */
    bool ended;
    int errnum;
    char failure[1024];
};

/* ---- in the process ---- */

static void tell_progress(void *opaque, double fraction)
{
    struct unpacking *u = opaque;
    int step = (int)(fraction * STEPS);

    if (step > u->told)
        printf("@progress %d\n", step);
    if (step > u->told)
        fflush(stdout);
    u->told = step;
}

/* Everything is opened and loaded: the archive has not been read yet. */
static int confine(const struct unpack_job *job, struct error **err)
{
    const int keep[] = {job->in, job->root, STDOUT_FILENO};
    const struct confine_config config = {
        .kind = CONFINE_UNPACK, .title = "tabique: unpack", .directory = job->root, .headroom = HEADROOM};
    cleanup_digest struct digest first = {0};
    struct confine_status status;
    int rc = confine_begin(0, "tabique-unpack", keep, 3, err);

    /* Names are UTF-8 in most archives; libarchive asks the locale what they are here. */
    setlocale(LC_CTYPE, "C.UTF-8");
    setvbuf(stdout, NULL, _IOFBF, 4096);
    umask(0);
    if (rc == 0 && !libarchive(err))
        rc = -ENOPKG;
    /* At its first digest libcrypto reads its configuration. */
    if (rc == 0)
        rc = digest_begin(&first, err);
    return rc ? rc : confine_process(&config, &status, err);
}

static int in_the_process(void *opaque)
{
    struct unpacking *u = opaque;
    struct unpack_result result;
    cleanup_error struct error *err = NULL;
    int rc = confine(u->job, &err);

    if (rc == 0)
        rc = unpack_stream(u->job, tell_progress, u, &result, &err);
    if (rc)
        printf("@error %d %s\n", -rc, error_message(err));
    else
        printf("@done %s %s %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", result.digest, result.diff, result.stream,
               result.bytes, result.entries);
    fflush(stdout);
    return rc ? 1 : 0;
}

/* ---- outside ---- */

static bool is_digest(const char *text)
{
    return strlen(text) == IMAGE_ID_LENGTH && strspn(text, "0123456789abcdef") == IMAGE_ID_LENGTH;
}

/* Believed only as far as it concerns this archive, whose digests the caller knows from elsewhere. */
static void on_line(void *opaque, const char *line)
{
    struct unpacking *u = opaque;
    struct unpack_result r = {0};
    int number, at = 0;

    if (sscanf(line, "@progress %d", &number) == 1 && number >= 0 && number <= STEPS) {
        if (u->progress)
            u->progress->report(u->progress->opaque, "unpacking", (double)number / STEPS);
    } else if (sscanf(line, "@error %d %n", &number, &at) == 1 && at) {
        u->errnum = number > 0 && number < 4096 ? number : EIO;
        text_make_printable(u->failure, sizeof(u->failure), line + at);
    } else if (sscanf(line, "@done %64s %64s %" SCNu64 " %" SCNu64 " %" SCNu64, r.digest, r.diff, &r.stream,
                      &r.bytes, &r.entries) == 5 &&
               is_digest(r.digest) && is_digest(r.diff)) {
        *u->result = r;
        u->ended = true;
    } else if (!u->failure[0]) {
        text_make_printable(u->failure, sizeof(u->failure), line);
    }
}

int unpack(const struct unpack_job *job, const struct image_progress *progress, struct unpack_result *out,
           struct error **err)
{
    struct unpack_result result;
    struct unpacking u = {.job = job, .progress = progress, .result = &result};
    const struct sandbox sandbox = {.call = in_the_process,
                                    .inherited = -1,
                                    .line = on_line,
                                    .opaque = &u,
                                    .purpose = "unpacking a layer"};
    int status = 0;
    int rc = sandbox_run(&sandbox, &status, err);

    if (rc == 0 && (status || !u.ended))
        rc = error_set(err, u.errnum ? u.errnum : EIO, "%s",
                       u.failure[0] ? u.failure : "the process that unpacks it ended unexpectedly");
    if (rc)
        return error_wrap(err, "%s", job->name);
    *out = result;
    return 0;
}
