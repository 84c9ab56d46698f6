/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes what a container's processes are into a directory, by criu: it stops them, reads them, and ends them
 * or lets them go on. Whatever fails, they go on. Called by the verb, which holds the container's lock
 * meanwhile.
 */
#include "container/container.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "container/cgroup.h"
#include "container/checkpoint_priv.h"
#include "container/criu_priv.h"
#include "container/lifecycle_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG       "dump.log"
#define LOG_LEVEL 4

/* ---- in both directions ---- */

int container_cgroups_mode(const char *name)
{
    static const struct {
        const char *name;
        int mode;
    } modes[] = {{"ignore", 0}, {"soft", 3}, {"full", 4}, {"strict", 5}};

    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(modes[i].name, name) == 0)
            return modes[i].mode;
    return -1;
}

static int open_place(const char *path, bool make, struct error **err)
{
    /* The root of a user namespace reads images there too; they are files of its owner's alone. */
    if (make && mkdir(path, 0711) < 0 && errno != EEXIST)
        return error_set_errno(err, errno, "%s", path);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? error_set_errno(err, errno, "%s", path) : fd;
}

int checkpoint_open_places(const struct container_checkpoint_options *options, bool make,
                           struct checkpoint_places *out, struct error **err)
{
    const char *images = options->image_path ? options->image_path : "checkpoint";
    const char *work = options->work_path ? options->work_path : images;

    *out = (struct checkpoint_places){.image_path = images, .work_path = work, .images = -1, .work = -1};
    int fd = open_place(images, make, err);
    if (fd < 0)
        return error_wrap(err, "directory of the checkpoint");
    out->images = fd;
    out->work = open_place(work, true, err);
    if (out->work >= 0)
        return 0;
    int rc = error_wrap(err, "directory of criu's log");
    checkpoint_close_places(out);
    return rc;
}

void checkpoint_close_places(struct checkpoint_places *places)
{
    for (int *fd = (int[]){places->images, places->work, -2}; *fd != -2; fd++)
        if (*fd >= 0)
            close(*fd);
    places->images = places->work = -1;
}

/* criu calls iptables-restore unless told otherwise; hosts without it as a rule have nftables, for which criu
 * needs no program. */
static bool has_iptables(void)
{
    const char *path = getenv("PATH");
    char places[PATH_MAX], file[PATH_MAX + 32], *rest = places;

    if (snprintf(places, sizeof(places), "%s:/usr/sbin:/sbin", path ? path : "") >= (int)sizeof(places))
        return true;
    for (char *directory; (directory = strsep(&rest, ":"));) {
        snprintf(file, sizeof(file), "%s/iptables-restore", directory);
        if (directory[0] == '/' && access(file, X_OK) == 0)
            return true;
    }
    return false;
}

void checkpoint_put_common(struct buffer *m, const struct container_checkpoint_options *options,
                           const struct checkpoint_places *places, const char *log)
{
    const struct {
        unsigned field;
        bool is;
    } switches[] = {
        {CRIU_EXT_UNIX_SK, options->ext_unix_sk}, {CRIU_TCP_ESTABLISHED, options->tcp_established},
        {CRIU_SHELL_JOB, options->shell_job},     {CRIU_FILE_LOCKS, options->file_locks},
        {CRIU_LINK_REMAP, options->link_remap},   {CRIU_AUTO_DEDUP, options->auto_dedup},
        {CRIU_LAZY_PAGES, options->lazy_pages},   {CRIU_NOTIFY_SCRIPTS, true},
        {CRIU_ORPHAN_PTS_MASTER, true},
    };

    criu_put_number(m, CRIU_IMAGES_DIR_FD, (uint64_t)places->images);
    criu_put_number(m, CRIU_WORK_DIR_FD, (uint64_t)places->work);
    criu_put_number(m, CRIU_LOG_LEVEL, LOG_LEVEL);
    criu_put_text(m, CRIU_LOG_FILE, log);
    for (size_t i = 0; i < sizeof(switches) / sizeof(switches[0]); i++)
        if (switches[i].is)
            criu_put_number(m, switches[i].field, 1);
    criu_put_number(m, CRIU_NETWORK_LOCK, has_iptables() ? CRIU_LOCK_IPTABLES : CRIU_LOCK_NFTABLES);
    criu_put_number(m, CRIU_MANAGE_CGROUPS, 1);
    criu_put_number(m, CRIU_MANAGE_CGROUPS_MODE, options->cgroups_mode);
    if (options->empty_network)
        criu_put_number(m, CRIU_EMPTY_NAMESPACES, CLONE_NEWNET);
}

/* ---- the container ---- */

static int namespace_inode(pid_t pid, enum container_namespace which, ino_t *out, struct error **err)
{
    char path[64];
    struct stat st;

    snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, container_namespace_files[which]);
    if (stat(path, &st) < 0)
        return error_set_errno(err, errno, "%s", path);
    *out = st.st_ino;
    return 0;
}

/* Namespaces that were there before the container, and are when it is restored. */
static int put_namespaces(struct buffer *m, const struct container_config *config, pid_t pid,
                          struct error **err)
{
    static const struct {
        enum container_namespace which;
        const char *kind, *name;
    } outer[] = {{CONTAINER_NS_NETWORK, "net", CHECKPOINT_NETWORK},
                 {CONTAINER_NS_PID, "pid", CHECKPOINT_PIDS}};

    for (size_t i = 0; i < sizeof(outer) / sizeof(outer[0]); i++) {
        char text[96];
        ino_t inode = 0;

        if (!config->namespace_path[outer[i].which])
            continue;
        int rc = namespace_inode(pid, outer[i].which, &inode, err);
        if (rc)
            return rc;
        snprintf(text, sizeof(text), "%s[%llu]:%s", outer[i].kind, (unsigned long long)inode, outer[i].name);
        criu_put_text(m, CRIU_EXTERNAL, text);
    }
    return 0;
}

/* criu stops them all at once by it, those too that fork meanwhile. */
static void put_freezer(struct buffer *m, const struct cgroup *group)
{
    size_t n;
    const struct cgroup_hierarchy *trees = cgroup_hierarchies(group, &n);

    for (size_t i = 0; i < n; i++)
        if (strcmp(trees[i].controllers, "freezer") == 0 ||
            (!*trees[i].controllers && cgroup_layout(group) == CGROUP_UNIFIED)) {
            criu_put_text(m, CRIU_FREEZE_CGROUP, trees[i].directory);
            return;
        }
}

static void put_page_server(struct buffer *m, const struct container_checkpoint *request)
{
    struct buffer server = {0};

    if (!request->page_server)
        return;
    criu_put_text(&server, 1, request->page_server);
    criu_put_number(&server, 2, request->page_server_port);
    criu_put_message(m, CRIU_PAGE_SERVER, &server);
    free(server.data);
}

static int make_options(const struct container *c, const struct container_config *config,
                        const struct container_checkpoint *request, const struct checkpoint_places *places,
                        struct buffer *m, struct error **err)
{
    const char *root = state_text(c, "rootfs");
    struct cgroup *group = NULL;

    checkpoint_put_common(m, &request->options, places, LOG);
    criu_put_number(m, CRIU_PID, (uint64_t)c->pid);
    if (root)
        criu_put_text(m, CRIU_ROOT, root);
    if (request->leave_running)
        criu_put_number(m, CRIU_LEAVE_RUNNING, 1);
    if (request->tcp_skip_in_flight)
        criu_put_number(m, CRIU_TCP_SKIP_IN_FLIGHT, 1);
    if (request->parent_path)
        criu_put_text(m, CRIU_PARENT_IMAGES, request->parent_path);
    if (request->parent_path || request->pre_dump)
        criu_put_number(m, CRIU_TRACK_MEMORY, 1);
    if (request->has_status_fd)
        criu_put_number(m, CRIU_STATUS_FD, request->status_fd);
    put_page_server(m, request);
    int rc = lifecycle_open_group(c, &group, err);
    if (rc == 0 && group)
        put_freezer(m, group);
    cgroup_free(group);
    if (rc == 0)
        rc = put_namespaces(m, config, c->pid, err);
    if (rc == 0)
        rc = checkpoint_put_mounts(m, config, c->pid, err);
    /* Before the last round there is nobody to be restored. */
    if (rc == 0 && !request->pre_dump)
        rc = checkpoint_put_files(m, c->pid, places->images, err);
    return rc == 0 && m->failed ? error_set_errno(err, ENOMEM, "checkpoint") : rc;
}

static int check_status(const struct container *c, struct error **err)
{
    enum container_status status = state_status(c);

    if (status == CONTAINER_RUNNING || status == CONTAINER_PAUSED)
        return 0;
    return error_set(err, EINVAL, "container %s can't be checkpointed: it is %s, not running", c->id,
                     container_status_names[status]);
}

/* What the caller has left open for criu goes on to it. */
static int pass_on(void *opaque, struct error **err)
{
    const struct container_checkpoint *request = opaque;

    if (request->has_status_fd && fcntl((int)request->status_fd, F_SETFD, 0) < 0)
        return error_set(err, EBADF, "--status-fd: there is no descriptor %u", request->status_fd);
    return 0;
}

static int dump(const struct container_runtime *runtime, const struct container *c,
                const struct container_checkpoint *request, struct error **err)
{
    struct container_config *config __attribute__((cleanup(container_config_cleanup))) = NULL;
    struct checkpoint_places places;
    struct buffer options = {0};
    int rc = state_load_config((struct container *)c, &config, err);

    if (rc == 0)
        rc = checkpoint_open_places(&request->options, true, &places, err);
    if (rc)
        return rc;
    rc = make_options(c, config, request, &places, &options, err);
    if (rc == 0) {
        const struct criu_run run = {
            .runtime = runtime,
            .kind = request->pre_dump ? CRIU_PRE_DUMP : CRIU_DUMP,
            .options = &options,
            .work_path = places.work_path,
            .work_dir = places.work,
            .log = LOG,
            .prepare = pass_on,
            .opaque = (void *)request,
        };
        rc = criu_run(&run, NULL, err);
    }
    /* Too late to take it back where it has ended: what can't be checked is told, and can be restored. */
    if (rc == 0 && !request->pre_dump)
        rc = checkpoint_note_sizes(places.images, err);
    free(options.data);
    checkpoint_close_places(&places);
    return rc;
}

int container_checkpoint(const struct container_runtime *runtime, const struct container_checkpoint *request,
                         struct error **err)
{
    cleanup_container struct container *c = NULL;
    int rc = state_open(runtime, request->id, true, &c, err);

    if (rc == 0)
        rc = check_status(c, err);
    if (rc == 0) {
        rc = dump(runtime, c, request, err);
        if (rc)
            error_wrap(err, "checkpoint of container %s", request->id);
    }
    if (rc || request->leave_running || request->pre_dump)
        return rc;
    /* Its processes are in the files now, and nowhere else. */
    return lifecycle_destroy(runtime, c, err);
}
