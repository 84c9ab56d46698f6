/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Building a Debian: whether the store has it already, whose turn it is, the script debian.sh in a sandbox,
 * and from its files an image. The work's directory is the only place that is written to until the end.
 */
#include "image/build_priv.h"
#include "image/oci_priv.h"
#include "image/store_priv.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "host/home.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>

/* Another number builds anew what was asked for before, as another debian.sh does. To be raised with init.c.
 */
#define RECIPE 3

#define COMMAND_LINE "root=/dev/vda ro console=ttyS0 quiet systemd.show_status=true"
#define TAIL_LINES   12
#define LAST_LINES   4

extern const char image_debian_script[];

struct build {
    const struct image_build *request;
    const struct image_progress *progress;
    struct store store;
    struct work work;
    FILE *log; /* all that the programs say; NULL where it could not be made */
    char *log_path;
    char phase[96];
    double fraction;
    unsigned packages, unpacked, configured; /* announced, done */
    char failure[512];                       /* what the script itself says is wrong */
    char tail[TAIL_LINES][256];              /* the last lines, the n-th at n % TAIL_LINES */
    unsigned n_tail;
};

static void report(struct build *b, double fraction, const char *what)
{
    if (what)
        snprintf(b->phase, sizeof(b->phase), "%s", what);
    if (fraction > b->fraction)
        b->fraction = fraction;
    if (b->progress)
        b->progress->report(b->progress->opaque, b->phase, b->fraction);
}

/* ---- the script's output ---- */

/* How far it is, from what apt and dpkg say on the way. The shares are those of an unhurried build. */
static void follow(struct build *b, const char *line)
{
    unsigned upgraded, fresh;

    if (strncmp(line, "@phase packages", 15) == 0)
        report(b, 0.02, line + 7);
    else if (strcmp(line, "@phase configuration") == 0)
        report(b, 0.88, "configuring");
    else if (strcmp(line, "@phase layer") == 0)
        report(b, 0.90, "making the layer for containers");
    else if (strcmp(line, "@phase disk") == 0)
        report(b, 0.92, "making the disk");
    else if (strstr(line, "downloading packages with apt"))
        report(b, 0.05, "downloading packages");
    else if (strstr(line, "extracting archives"))
        report(b, 0.20, "unpacking the base system");
    else if (strstr(line, "installing essential packages"))
        report(b, 0.25, "installing the base system");
    else if (strstr(line, "installing remaining packages"))
        report(b, 0.45, "installing packages");
    else if (sscanf(line, "%u upgraded, %u newly installed", &upgraded, &fresh) == 2)
        b->packages += fresh;
    else if (strncmp(line, "Unpacking ", 10) == 0)
        b->unpacked++;
    else if (strncmp(line, "Setting up ", 11) == 0)
        b->configured++;
    else
        return;
    if (b->packages && b->fraction >= 0.25 && b->fraction < 0.88) {
        double done = (double)(b->unpacked + b->configured) / (2.0 * b->packages);
        report(b, 0.25 + 0.62 * (done < 1 ? done : 1), NULL);
    }
}

static void on_line(void *opaque, const char *line)
{
    struct build *b = opaque;

    if (b->log)
        fprintf(b->log, "%s\n", line);
    if (strncmp(line, "@error ", 7) == 0)
        snprintf(b->failure, sizeof(b->failure), "%s", line + 7);
    else if (*line)
        snprintf(b->tail[b->n_tail++ % TAIL_LINES], sizeof(b->tail[0]), "%s", line);
    follow(b, line);
}

/* The script has failed: its own words, or those of the lines before that look like the reason. */
static int script_error(struct build *b, struct error **err)
{
    char text[TAIL_LINES * 256] = "";
    bool full = false;

    if (b->failure[0])
        return error_set(err, EIO, "%s", b->failure);
    unsigned first = b->n_tail > TAIL_LINES ? b->n_tail - TAIL_LINES : 0;
    for (int pass = 0; pass < 2 && !text[0]; pass++)
        for (unsigned i = first; i < b->n_tail; i++) {
            const char *line = b->tail[i % TAIL_LINES];
            size_t used = strlen(text);
            bool reason =
                strncmp(line, "E: ", 3) == 0 || strstr(line, "rror:") || strstr(line, "No space left");

            full |= strstr(line, "No space left") != NULL;
            /* Without a line that looks like a reason, the last ones. */
            if (pass ? i + LAST_LINES >= b->n_tail : reason)
                snprintf(text + used, sizeof(text) - used, "\n  %s", line);
        }
    return error_set(err, full ? ENOSPC : EIO, "%s%s%s%s",
                     full ? "the disk is full:" : "the build failed:", text,
                     b->log ? "\nall of its output is in " : "", b->log ? b->log_path : "");
}

/* ---- running it ---- */

static char *join_packages(const struct image *image)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    for (size_t i = 0; f && i < image->n_packages; i++)
        fprintf(f, "%s%s", i ? " " : "", image->packages[i]);
    if (!f || fclose(f))
        return NULL;
    return text;
}

static int write_script(const char *path, struct error **err)
{
    cleanup_fclose FILE *f = fopen(path, "we");

    if (!f || fputs(image_debian_script, f) == EOF || fflush(f))
        return error_set_errno(err, errno, "%s", path);
    return 0;
}

static int run_script(struct build *b, const struct image *image, struct error **err)
{
    cleanup_free char *out = NULL, *cache = NULL, *suite = NULL, *arch = NULL, *mirror = NULL, *size = NULL;
    cleanup_free char *packages = NULL, *names = join_packages(image), *script = NULL;
    const char *given = b->request->mirror;
    int status = 0;

    if (!names || asprintf(&out, "OUT=%s", b->work.directory) < 0 ||
        asprintf(&cache, "CACHE=%s/cache/%s", b->store.home, image->suite) < 0 ||
        asprintf(&suite, "SUITE=%s", image->suite) < 0 || asprintf(&arch, "ARCH=%s", image->arch) < 0 ||
        asprintf(&mirror, "MIRROR=%s", given ? given : "") < 0 ||
        asprintf(&script, "%s/debian.sh", b->work.directory) < 0 ||
        asprintf(&size, "SIZE=%" PRIu64, image->size) < 0 || asprintf(&packages, "PACKAGES=%s", names) < 0)
        return error_set_errno(err, ENOMEM, "image build");
    int rc = write_script(script, err);
    if (rc)
        return rc;
    const char *const argv[] = {"sh", script, NULL};
    const char *const environment[] = {out, cache, suite, arch, mirror, size, packages, NULL};
    const struct sandbox job = {
        .argv = argv, .environment = environment, .inherited = b->work.lock, .line = on_line, .opaque = b};
    rc = sandbox_run(&job, &status, err);
    if (rc == 0 && status)
        rc = script_error(b, err);
    return rc;
}

/* What a container from the image runs if it is not told, in the words of the OCI image specification.
 * systemd ends by a signal of its own. */
static json_t *container_config(const struct image *image)
{
    char diff[IMAGE_ID_LENGTH + 8], created[32];
    struct tm tm;

    snprintf(diff, sizeof(diff), "sha256:%s", image->layers[0].diff);
    strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&image->created, &tm));
    return json_pack("{s:s, s:s, s:s, s:{s:[s], s:[s, s], s:s, s:s}, s:{s:s, s:[s]}, s:[{s:s, s:s}]}",
                     "created", created, "architecture", image->arch, "os", "linux", "config", "Cmd",
                     "/sbin/init", "Env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                     "LANG=C.UTF-8", "WorkingDir", "/", "StopSignal", "SIGRTMIN+3", "rootfs", "type",
                     "layers", "diff_ids", diff, "history", "created", created, "created_by", image->origin);
}

/* The same system as on the disk. It is unpacked when a container needs it. */
static int make_layer(struct build *b, struct image *image, struct error **err)
{
    cleanup_free char *path = NULL;

    image->layers = calloc(1, sizeof(*image->layers));
    if (!image->layers || asprintf(&path, "%s/root.tar", b->work.directory) < 0 ||
        asprintf(&image->config, "%s/config.json", b->work.directory) < 0)
        return error_set_errno(err, ENOMEM, "image build");
    cleanup_close int tar = open(path, O_RDONLY | O_CLOEXEC);
    int rc = tar < 0 ? error_set_errno(err, errno, "%s", path)
                     : layer_make(&b->work, tar, image->layers[0].diff, err);
    if (rc)
        return rc;
    image->n_layers = 1;
    unlink(path);
    json_t *config = container_config(image);
    errno = EIO;
    if (!config || json_dump_file(config, image->config, JSON_COMPACT) < 0)
        rc = error_set_errno(err, config ? errno : ENOMEM, "%s", image->config);
    json_decref(config);
    return rc;
}

/* The script's files become the image's. */
static int finish(struct build *b, struct image *image, const char *key, struct error **err)
{
    cleanup_free char *modules = NULL;

    if (asprintf(&image->disk, "%s/disk.raw", b->work.directory) < 0 ||
        asprintf(&image->kernel, "%s/kernel", b->work.directory) < 0 ||
        asprintf(&image->initrd, "%s/initrd", b->work.directory) < 0 ||
        asprintf(&modules, "%s/modules", b->work.directory) < 0)
        return error_set_errno(err, ENOMEM, "image build");
    int rc = initrd_write(image->initrd, modules, err);
    if (rc)
        return rc;
    static const char *const left_over[] = {"debian.sh", "modules", "sources.list", "depends"};
    for (size_t i = 0; i < sizeof(left_over) / sizeof(left_over[0]); i++) {
        cleanup_free char *path = NULL;
        if (asprintf(&path, "%s/%s", b->work.directory, left_over[i]) >= 0)
            work_delete_tree(path);
    }
    image->created = time(NULL);
    report(b, 0.94, "compressing the layer for containers");
    rc = make_layer(b, image, err);
    if (rc)
        return rc;
    report(b, 0.96, "storing");
    rc = work_commit(&b->store, &b->work, image, key, err);
    if (rc == 0)
        report(b, 1, "done");
    return rc;
}

/* ---- whether, and whose turn ---- */

/* What was asked for, in the words that say whether something else was. */
static int request_key(const struct image *image, char **out, struct error **err)
{
    cleanup_free char *packages = join_packages(image);
    char script[DIGEST_TEXT_LENGTH + 1], *key;

    int rc = digest_text(image_debian_script, script, err);
    if (rc)
        return rc;
    if (!packages || asprintf(&key, "debian %d-%s %s %s %" PRIu64 " %s", RECIPE, script, image->suite,
                              image->arch, image->size, packages) < 0)
        return error_set_errno(err, ENOMEM, "image build");
    *out = key;
    return 0;
}

/* Whether the name has just what is asked for. */
static bool in_store(const struct store *store, const char *name, const char *key, struct image **out)
{
    cleanup_image struct image *image = NULL;
    cleanup_image struct image *whole = calloc(1, sizeof(*whole));
    cleanup_free char *known = NULL, *directory = NULL;

    if (image_lookup(store->home, name, &image, NULL) || !image->name || strcmp(image->name, name) != 0)
        return false;
    directory = store_path(store, "content/%s", image->id);
    if (!directory || !whole || metadata_read(directory, whole, &known, NULL) || !known ||
        strcmp(known, key) != 0)
        return false;
    *out = steal_ptr(image);
    return true;
}

/* Held while an image of this name is built; the descriptor, or -errno. */
static int take_turn(struct build *b, const char *name, bool *waited, struct error **err)
{
    cleanup_free char *path = store_path(&b->store, ".build-%s", name);
    cleanup_close int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

    if (fd < 0)
        return error_set_errno(err, path ? errno : ENOMEM, "%s", path);
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_set_errno(err, errno, "%s", path);
        if (interrupted())
            return interrupt_error(err);
        *waited = true;
        report(b, 0, "waiting for another build of the same name");
        usleep(200000);
    }
    return steal_fd(fd);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A package's name as Debian's policy 5.6.1 has it; with "=VERSION" or "/SUITE" as apt takes it. They become
 * words of a shell script. */
static bool is_package(const char *text)
{
    static const char more[] = "+-.:=/~";

    for (const char *p = text; *p; p++)
        if (!isalnum((unsigned char)*p) && (p == text || !strchr(more, *p)))
            return false;
    return *text;
}

static int describe(const struct image_build *r, struct image *image, struct error **err)
{
    image->name = strdup(r->name ? r->name : "debian");
    image->suite = strdup(r->suite);
    image->arch = strdup(r->arch);
    image->disk_format = strdup("raw");
    image->append = strdup(COMMAND_LINE);
    image->packages = calloc(r->n_packages + 1, sizeof(char *));
    if (!image->name || !image->suite || !image->arch || !image->disk_format || !image->append ||
        !image->packages || asprintf(&image->origin, "debian %s", r->suite) < 0)
        return error_set_errno(err, ENOMEM, "image build");
    for (size_t i = 0; i < r->n_packages; i++) {
        if (!is_package(r->packages[i]))
            return error_set(err, EINVAL, "'%s' is no name of a package", r->packages[i]);
        image->packages[i] = strdup(r->packages[i]);
        if (!image->packages[i])
            return error_set_errno(err, ENOMEM, "image build");
        image->n_packages++;
    }
    qsort(image->packages, image->n_packages, sizeof(char *), compare_texts);
    image->size = r->size;
    return image_check_name(image->name, err);
}

static void open_log(struct build *b, const char *name)
{
    cleanup_free char *directory = NULL;

    if (asprintf(&directory, "%s/cache", b->store.home) < 0 || home_make_directory(directory, 0700, NULL))
        return;
    if (asprintf(&b->log_path, "%s/build-%s.log", directory, name) < 0)
        b->log_path = NULL;
    else
        b->log = fopen(b->log_path, "we");
}

static int build(struct build *b, struct image **out, bool *built, struct error **err)
{
    cleanup_image struct image *image = calloc(1, sizeof(*image));
    bool waited = false;
    cleanup_free char *key = NULL;

    int rc = image ? describe(b->request, image, err) : error_set_errno(err, ENOMEM, "image build");
    if (rc == 0)
        rc = request_key(image, &key, err);
    if (rc)
        return rc;
    *built = false;
    if (!b->request->rebuild && in_store(&b->store, image->name, key, out))
        return 0;
    rc = store_create(&b->store, err);
    if (rc)
        return rc;
    cleanup_close int turn = take_turn(b, image->name, &waited, err);
    if (turn < 0)
        return turn;
    /* Who waited takes what the other has built, if it is the same. */
    if ((!b->request->rebuild || waited) && in_store(&b->store, image->name, key, out))
        return 0;
    rc = work_begin(&b->store, &b->work, err);
    if (rc)
        return rc;
    open_log(b, image->name);
    rc = run_script(b, image, err);
    if (rc == 0 && interrupted())
        rc = interrupt_error(err);
    if (rc == 0)
        rc = finish(b, image, key, err);
    if (rc)
        return rc;
    *built = true;
    /* As all others see it. */
    return image_lookup(b->store.home, image->name, out, err);
}

int image_build_debian(const char *home, const struct image_build *request,
                       const struct image_progress *progress, struct image **out, bool *built,
                       struct error **err)
{
    struct build b = {.request = request, .progress = progress, .work = WORK_NONE};
    bool done = false;
    int rc = store_open(home, &b.store, err);

    if (rc)
        return rc;
    interrupt_begin();
    rc = build(&b, out, &done, err);
    work_end(&b.work);
    interrupt_end();
    if (b.log)
        fclose(b.log);
    if (b.log && rc == 0)
        unlink(b.log_path);
    free(b.log_path);
    store_close(&b.store);
    if (rc == 0 && built)
        *built = done;
    return rc;
}
