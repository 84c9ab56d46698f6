/* SPDX-License-Identifier: GPL-2.0-or-later */
/* tabique-oci [GLOBAL FLAGS] VERB ...: finds the verb, runs it, and reports errors as runc does: as text on
 * standard error, and in the log that --log names as text or JSON lines. */
#include "cli/oci.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/suggest.h"
#include "container/config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct oci_flag globals[] = {
    {"debug", 0, OCI_BOOL, NULL, "accepted: errors say all there is to say"},
    {"log", 0, OCI_STRING, "FILE", "where errors are written too"},
    {"log-format", 0, OCI_STRING, "text|json", "the log's form"},
    {"root", 0, OCI_STRING, "DIR", "where containers are kept: /run/tabique-oci"},
    {"criu", 0, OCI_STRING, "PATH", "the program that writes and reads checkpoints; criu of PATH without"},
    {"systemd-cgroup", 0, OCI_BOOL, NULL, "groups are made by systemd"},
    {"rootless", 0, OCI_STRING, "true|false|auto", "whether a person without rights runs it"},
    {"version", 'v', OCI_BOOL, NULL, "print the version"},
};

static const struct oci_verb *const verbs[] = {
    &oci_checkpoint_verb, &oci_create_verb, &oci_delete_verb, &oci_events_verb, &oci_exec_verb,
    &oci_features_verb,   &oci_kill_verb,   &oci_list_verb,   &oci_pause_verb,  &oci_ps_verb,
    &oci_restore_verb,    &oci_resume_verb, &oci_run_verb,    &oci_spec_verb,   &oci_start_verb,
    &oci_state_verb,      &oci_update_verb,
};

/* ---- errors ---- */

/* logrus's forms: time="..." level=error msg="..." and {"level":"error","msg":"...","time":"..."}. */
static void write_log(const struct oci_values *global, const char *message)
{
    const char *path = oci_string(global, "log"), *format = oci_string(global, "log-format");
    char when[40], zone[8];
    struct tm tm;
    time_t now = time(NULL);

    if (!path || !*path)
        return;
    localtime_r(&now, &tm);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm);
    strftime(zone, sizeof(zone), "%z", &tm);
    if (strcmp(zone, "+0000") == 0)
        strcat(when, "Z");
    else
        snprintf(when + strlen(when), sizeof(when) - strlen(when), "%.3s:%.2s", zone, zone + 3);
    cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0)
        return;
    bool as_json = format && strcmp(format, "json") == 0;
    json_t *json = as_json ? json_pack("{s:s, s:s, s:s}", "level", "error", "msg", message, "time", when)
                           : json_string(message);
    cleanup_free char *text = json ? json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(json);
    if (text && as_json)
        dprintf(fd, "%s\n", text);
    else if (text)
        dprintf(fd, "time=\"%s\" level=error msg=%s\n", when, text);
}

static int report(const struct oci_values *global, const struct error *err, int status)
{
    write_log(global, error_message(err));
    fprintf(stderr, "tabique-oci: %s\n", error_message(err));
    return status ? status : 1;
}

/* ---- help ---- */

static void print_flags(FILE *out, const struct oci_flag *flags, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char name[64];

        snprintf(name, sizeof(name), "--%s%s%s", flags[i].name, flags[i].metavar ? " " : "",
                 flags[i].metavar ? flags[i].metavar : "");
        if (flags[i].letter)
            fprintf(out, "  %-28s %s (-%c)\n", name, flags[i].help, flags[i].letter);
        else
            fprintf(out, "  %-28s %s\n", name, flags[i].help);
    }
}

static void print_overview(FILE *out)
{
    fputs("usage: tabique-oci [FLAGS] VERB ...\n\nAn OCI runtime (specification " CONTAINER_OCI_VERSION
          ") with runc's command line.\n\n",
          out);
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        fprintf(out, "  %-12s %s\n", verbs[i]->name, verbs[i]->summary);
    fputs("\nflags:\n", out);
    print_flags(out, globals, ARRAY_SIZE(globals));
}

static void print_verb(FILE *out, const struct oci_verb *verb)
{
    fprintf(out, "usage: tabique-oci %s%s%s%s\n\n%s\n", verb->name, verb->n_flags ? " [FLAGS]" : "",
            *verb->arguments ? " " : "", verb->arguments, verb->summary);
    if (verb->n_flags)
        fputs("\n", out);
    print_flags(out, verb->flags, verb->n_flags);
}

static void print_version(void)
{
    puts("tabique-oci version " TABIQUE_VERSION "\nspec: " CONTAINER_OCI_VERSION
         "\n+SYSTEMD +SELINUX +APPARMOR +CAP +SECCOMP +EBPF");
}

/* ---- running a verb ---- */

static int default_root(char *out, size_t size, bool rootless)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");

    if (!rootless)
        return snprintf(out, size, "/run/tabique-oci");
    if (runtime && *runtime)
        return snprintf(out, size, "%s/tabique-oci", runtime);
    return snprintf(out, size, "/tmp/tabique-oci-%u", (unsigned)geteuid());
}

/* Root of a user namespace of which the host's root is another. */
static bool in_user_namespace(void)
{
    cleanup_fclose FILE *f = fopen("/proc/self/uid_map", "re");
    unsigned long inside, outside, count;

    return f && fscanf(f, "%lu %lu %lu", &inside, &outside, &count) == 3 &&
           !(inside == 0 && outside == 0 && count == UINT32_MAX);
}

static int take_runtime(const struct oci_values *global, struct container_runtime *out, char *root,
                        size_t size, struct error **err)
{
    const char *given = oci_string(global, "root"), *rootless = oci_string(global, "rootless");

    if (rootless && strcmp(rootless, "auto") != 0 && strcmp(rootless, "true") != 0 &&
        strcmp(rootless, "false") != 0)
        return error_set(err, EINVAL, "--rootless %s: true, false or auto", rootless);
    out->rootless = rootless && strcmp(rootless, "auto") != 0 ? strcmp(rootless, "true") == 0
                                                              : geteuid() != 0 || in_user_namespace();
    out->systemd_cgroup = oci_bool(global, "systemd-cgroup");
    out->criu = oci_string(global, "criu");
    default_root(root, size, out->rootless);
    out->root = given && *given ? given : root;
    return 0;
}

static const struct oci_verb *find_verb(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        if (strcmp(verbs[i]->name, name) == 0)
            return verbs[i];
    return NULL;
}

static int run_verb(const struct oci_verb *verb, const struct oci_values *global, int argc, char **argv)
{
    cleanup_error struct error *err = NULL;
    struct oci_values *values = NULL;
    struct container_runtime runtime;
    char root[4096];
    int status = 0;
    size_t n;
    /* 0 words and none allowed are two things: a verb without words must say so of the first that comes. */
    int rc = oci_parse(verb->flags, verb->n_flags, verb->max_words ? verb->max_words : 1, argc, argv, &values,
                       NULL, &err);

    if (rc == -ECANCELED) {
        print_verb(stdout, verb);
        return 0;
    }
    if (rc == 0)
        oci_words(values, &n);
    if (rc == 0 && n < verb->min_words)
        rc = error_set(&err, EINVAL, "\"%s\" requires %s%zu argument(s): %s", verb->name,
                       verb->min_words == verb->max_words ? "exactly " : "a minimum of ", verb->min_words,
                       verb->arguments);
    if (rc == 0 && n > verb->max_words)
        rc = error_set(&err, EINVAL, "\"%s\" takes at most %zu argument(s)", verb->name, verb->max_words);
    if (rc == 0)
        rc = take_runtime(global, &runtime, root, sizeof(root), &err);
    if (rc == 0)
        rc = verb->run(&runtime, values, &status, &err);
    oci_values_free(values);
    return rc < 0 ? report(global, err, status) : status;
}

static int unknown_verb(const char *name)
{
    const char *names[ARRAY_SIZE(verbs)];

    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        names[i] = verbs[i]->name;
    const char *meant = suggest_nearest(name, names, ARRAY_SIZE(verbs));
    fprintf(stderr, "tabique-oci: no such verb: %s%s%s%s\nTry 'tabique-oci --help'.\n", name,
            meant ? ": did you mean '" : "", meant ? meant : "", meant ? "'?" : "");
    return 1;
}

/* With one of the three closed, the next file opened would take its place, and the container would have it.
 */
static void open_standard_files(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_WRONLY : O_RDONLY) != fd)
            _exit(1);
}

int oci_main(int argc, char **argv)
{
    cleanup_error struct error *err = NULL;
    struct oci_values *global = NULL;
    int used = 0, status = 0;

    open_standard_files();
    int rc = oci_parse(globals, ARRAY_SIZE(globals), 0, argc - 1, argv + 1, &global, &used, &err);

    if (rc == -ECANCELED) {
        print_overview(stdout);
        return 0;
    }
    if (rc) {
        fprintf(stderr, "tabique-oci: %s\n", error_message(err));
        return 1;
    }
    const char *verb = used < argc - 1 ? argv[1 + used] : NULL;
    if (oci_bool(global, "version")) {
        print_version();
    } else if (!verb || strcmp(verb, "help") == 0) {
        print_overview(verb ? stdout : stderr);
        status = verb ? 0 : 1;
    } else if (find_verb(verb)) {
        status = run_verb(find_verb(verb), global, argc - 2 - used, argv + 2 + used);
    } else {
        status = unknown_verb(verb);
    }
    oci_values_free(global);
    return status;
}
