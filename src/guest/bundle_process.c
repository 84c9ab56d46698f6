/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program of a container guest: its words, environment, user and capabilities. No state. */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/text.h"
#include "container/config.h"
#include "guest/bundle.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static void json_cleanup(json_t **json)
{
    json_decref(*json);
}
#define cleanup_json __attribute__((cleanup(json_cleanup)))

static const char *text_of(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

/* Appends the strings of a list, whatever else is in it. */
static void append_strings(json_t *to, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *item = json_array_get(list, i);

        if (json_is_string(item))
            json_array_append(to, item);
    }
}

/* ---- words ---- */

json_t *bundle_args(const json_t *flags, const json_t *image, struct error **err)
{
    const json_t *command = json_object_get(flags, "command");
    json_t *args = json_array();

    append_strings(args, json_object_get(image, "Entrypoint"));
    append_strings(args, json_array_size(command) ? command : json_object_get(image, "Cmd"));
    if (json_array_size(args))
        return args;
    json_decref(args);
    error_set(err, EINVAL, "the image does not say what to run: give a command after '--'");
    return NULL;
}

static bool is_init(const json_t *word)
{
    const char *text = json_string_value(word), *slash = text ? strrchr(text, '/') : NULL;

    if (!text)
        return false;
    text = slash ? slash + 1 : text;
    return strcmp(text, "init") == 0 || strcmp(text, "systemd") == 0;
}

bool bundle_is_system(const json_t *flags, const json_t *image)
{
    json_t *args = bundle_args(flags, image, NULL);
    bool system = is_init(json_array_get(args, 0));

    json_decref(args);
    return system;
}

/* ---- environment ---- */

/* Sets NAME=VALUE, in the place of one of the same name. */
static void set_env(json_t *env, const char *assignment)
{
    size_t len = strcspn(assignment, "=");

    for (size_t i = 0; i < json_array_size(env); i++) {
        const char *there = json_string_value(json_array_get(env, i));

        if (strncmp(there, assignment, len) == 0 && there[len] == '=') {
            json_array_set_new(env, i, json_string(assignment));
            return;
        }
    }
    json_array_append_new(env, json_string(assignment));
}

static void set_env_list(json_t *env, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));

        if (text && strchr(text, '='))
            set_env(env, text);
    }
}

static json_t *make_env(const struct bundle *b)
{
    json_t *env = json_pack("[s]", PATH);
    char text[300];

    snprintf(text, sizeof(text), "HOME=%s", b->user.home);
    set_env(env, text);
    if (b->terminal)
        set_env(env, "TERM=xterm");
    /* By this systemd knows what it runs in (its "Container Interface"). */
    set_env(env, "container=tabique");
    set_env_list(env, json_object_get(b->image, "Env"));
    set_env_list(env, json_object_get(b->flags, "env"));
    return env;
}

/* ---- capabilities ---- */

/* What programs in containers are used to have: over what is the container's own, and nothing of the host. */
static const char *const usual[] = {
    "CAP_CHOWN",       "CAP_DAC_OVERRIDE", "CAP_FOWNER",           "CAP_FSETID",
    "CAP_KILL",        "CAP_MKNOD",        "CAP_NET_RAW",          "CAP_SETGID",
    "CAP_SETUID",      "CAP_SETPCAP",      "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT",
    "CAP_AUDIT_WRITE", "CAP_SETFCAP"};

/* "net_admin" and "CAP_NET_ADMIN" are the same. -1 if it is none. */
static int capability(const char *text)
{
    char name[64];
    size_t n = 0;

    if (strncasecmp(text, "CAP_", 4) == 0)
        text += 4;
    n = (size_t)snprintf(name, sizeof(name), "CAP_%s", text);
    if (n >= sizeof(name))
        return -1;
    for (char *p = name; *p; p++)
        *p = (char)toupper((unsigned char)*p);
    return container_capability_number(name);
}

static uint64_t all_capabilities(void)
{
    uint64_t all = 0;

    for (int i = 0; i < 64 && container_capability_name(i); i++)
        all |= 1ull << i;
    return all;
}

static int change_capabilities(const json_t *flags, const char *key, uint64_t *set, bool add,
                               struct error **err)
{
    const json_t *list = json_object_get(flags, key);

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        int number = strcasecmp(text, "ALL") == 0 ? 0 : capability(text);
        uint64_t bits = strcasecmp(text, "ALL") == 0 ? ~0ull : 1ull << (number & 63);
        char shown[64];

        text_make_printable(shown, sizeof(shown), text);
        if (number < 0)
            return error_set(err, EINVAL,
                             "--%s: there is no capability '%s': capabilities(7) lists them; or say ALL", key,
                             shown);
        *set = add ? *set | bits : *set & ~bits;
    }
    return 0;
}

static int find_capabilities(const json_t *flags, uint64_t *out, struct error **err)
{
    bool privileged = json_is_true(json_object_get(flags, "privileged"));
    uint64_t set = 0;

    for (size_t i = 0; i < sizeof(usual) / sizeof(usual[0]); i++)
        set |= 1ull << capability(usual[i]);
    if (privileged)
        set = all_capabilities();
    int rc = change_capabilities(flags, "cap-drop", &set, false, err);
    if (rc == 0)
        rc = change_capabilities(flags, "cap-add", &set, true, err);
    *out = set & all_capabilities();
    return rc;
}

static json_t *capability_names(uint64_t set)
{
    json_t *list = json_array();

    for (int i = 0; i < 64 && container_capability_name(i); i++)
        if (set & 1ull << i)
            json_array_append_new(list, json_string(container_capability_name(i)));
    return list;
}

/* Another user than root has none, and can get those of the bounding set by programs that carry them. */
static json_t *make_capabilities(const struct bundle *b, uint64_t set)
{
    uint64_t own = b->user.uid == 0 ? set : 0;

    return json_pack("{s:o, s:o, s:o}", "bounding", capability_names(set), "effective", capability_names(own),
                     "permitted", capability_names(own));
}

/* ---- the whole ---- */

const char *bundle_security_option(const json_t *flags, const char *key)
{
    const json_t *list = json_object_get(flags, "security-opt");
    size_t len = strlen(key);

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));

        if (text && strncmp(text, key, len) == 0 && (!text[len] || text[len] == '=' || text[len] == ':'))
            return text[len] ? text + len + 1 : text + len;
    }
    return NULL;
}

json_t *bundle_process(const struct bundle *b, struct error **err)
{
    const char *cwd = text_of(b->flags, "workdir"), *of_image = text_of(b->image, "WorkingDir");
    const char *no_new = bundle_security_option(b->flags, "no-new-privileges");
    const char *apparmor = bundle_security_option(b->flags, "apparmor");
    const char *label = bundle_security_option(b->flags, "label");
    cleanup_json json_t *args = bundle_args(b->flags, b->image, err);
    uint64_t set;

    if (!args || find_capabilities(b->flags, &set, err))
        return NULL;
    if (json_is_true(json_object_get(b->flags, "init")))
        json_array_insert_new(args, 0, json_string("/dev/init"));
    json_t *gids = json_array();
    for (size_t i = 0; i < b->user.n_gids; i++)
        json_array_append_new(gids, json_integer(b->user.gids[i]));
    json_t *process = json_pack("{s:b, s:{s:I, s:I, s:o}, s:O, s:o, s:s, s:o, s:b}", "terminal", b->terminal,
                                "user", "uid", (json_int_t)b->user.uid, "gid", (json_int_t)b->user.gid,
                                "additionalGids", gids, "args", args, "env", make_env(b), "cwd",
                                cwd                     ? cwd
                                : of_image && *of_image ? of_image
                                                        : "/",
                                "capabilities", make_capabilities(b, set), "noNewPrivileges",
                                no_new && strcmp(no_new, "false") != 0);
    if (b->terminal && b->columns && b->rows)
        json_object_set_new(process, "consoleSize",
                            json_pack("{s:i, s:i}", "width", b->columns, "height", b->rows));
    if (apparmor && *apparmor && strcmp(apparmor, "unconfined") != 0)
        json_object_set_new(process, "apparmorProfile", json_string(apparmor));
    if (label && *label && strcmp(label, "disable") != 0)
        json_object_set_new(process, "selinuxLabel", json_string(label));
    if (!process)
        error_set_errno(err, ENOMEM, "config.json");
    return process;
}

static int check_env(const json_t *flags, struct error **err)
{
    const json_t *list = json_object_get(flags, "env");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        char shown[64];

        text_make_printable(shown, sizeof(shown), text);
        if (!strchr(text, '=') || text[0] == '=')
            return error_set(err, EINVAL, "--env: '%s' is not of the form NAME=VALUE", shown);
    }
    return 0;
}

static int check_security(const json_t *flags, struct error **err)
{
    static const char *const known[] = {"no-new-privileges", "seccomp", "apparmor", "label", "mask", "unmask",
                                        "systempaths"};
    const json_t *list = json_object_get(flags, "security-opt");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        size_t len = strcspn(text, "=:");
        bool ok = false;
        char shown[64];

        for (size_t j = 0; j < sizeof(known) / sizeof(known[0]); j++)
            ok |= strlen(known[j]) == len && memcmp(known[j], text, len) == 0 &&
                  (j == 0 || (text[len] && text[len + 1]));
        text_make_printable(shown, sizeof(shown), text);
        if (!ok)
            return error_set(
                err, EINVAL,
                "--security-opt: '%s' is none of no-new-privileges, seccomp=unconfined, seccomp=FILE, "
                "apparmor=PROFILE, label=LABEL, mask=PATH, unmask=PATH or ALL, systempaths=unconfined",
                shown);
        if (len == 11 && strcmp(text + len + 1, "unconfined") != 0)
            return error_set(err, EINVAL, "--security-opt: systempaths: only unconfined can be chosen");
    }
    return bundle_check_hidden(flags, err);
}

int bundle_check_process(const json_t *flags, struct error **err)
{
    const char *cwd = text_of(flags, "workdir");
    uint64_t set;
    int rc = check_env(flags, err);

    if (rc == 0)
        rc = check_security(flags, err);
    if (rc == 0 && cwd && cwd[0] != '/')
        rc = error_set(err, EINVAL, "--workdir: '%s' does not begin with '/'", cwd);
    return rc ? rc : find_capabilities(flags, &set, err);
}
