/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What of /proc and /sys a container guest does not see, or may not write to: what is usual, and what
 * --security-opt says of it. No state. */
#include "base/error.h"
#include "base/text.h"
#include "container/container.h"
#include "guest/bundle.h"

#include <errno.h>
#include <fnmatch.h>
#include <string.h>

/* The options' paths: mask=A:B, unmask=A:B. False at the end; *at goes through options and paths. */
struct walk {
    const json_t *options;
    const char *key; /* with '=' */
    size_t option;
    const char *rest;
};

static bool next_path(struct walk *w, char *out, size_t size)
{
    size_t length = strlen(w->key);

    while (!w->rest || !*w->rest) {
        const char *text = json_string_value(json_array_get(w->options, w->option));

        if (!text)
            return false;
        w->option++;
        w->rest = strncmp(text, w->key, length) == 0 ? text + length : NULL;
    }
    size_t n = strcspn(w->rest, ":");
    snprintf(out, size, "%.*s", (int)n, w->rest);
    w->rest += n + (w->rest[n] == ':');
    return true;
}

static struct walk begin(const json_t *flags, const char *key)
{
    return (struct walk){.options = json_object_get(flags, "security-opt"), .key = key};
}

int bundle_check_hidden(const json_t *flags, struct error **err)
{
    static const char *const keys[] = {"mask=", "unmask="};
    char path[4096], shown[96];

    for (size_t i = 0; i < 2; i++)
        for (struct walk w = begin(flags, keys[i]); next_path(&w, path, sizeof(path));) {
            text_make_printable(shown, sizeof(shown), path);
            if (path[0] != '/' && !(i == 1 && strcmp(path, "ALL") == 0))
                return error_set(err, EINVAL, "--security-opt: %s'%s' does not begin with '/'", keys[i],
                                 shown);
        }
    return 0;
}

static bool is_shown(const json_t *flags, const char *path)
{
    char pattern[4096];

    for (struct walk w = begin(flags, "unmask="); next_path(&w, pattern, sizeof(pattern));)
        if (strcmp(pattern, "ALL") == 0 || fnmatch(pattern, path, FNM_PATHNAME) == 0)
            return true;
    return false;
}

static void keep_hidden(const json_t *flags, json_t *list)
{
    for (size_t i = json_array_size(list); i-- > 0;)
        if (is_shown(flags, json_string_value(json_array_get(list, i))))
            json_array_remove(list, i);
}

void bundle_hide(const json_t *flags, json_t *linux_part)
{
    bool open =
        json_is_true(json_object_get(flags, "privileged")) || bundle_security_option(flags, "systempaths");
    char path[4096];

    if (!open)
        container_spec_hide(linux_part);
    keep_hidden(flags, json_object_get(linux_part, "maskedPaths"));
    keep_hidden(flags, json_object_get(linux_part, "readonlyPaths"));
    for (struct walk w = begin(flags, "mask="); next_path(&w, path, sizeof(path));) {
        json_t *masked = json_object_get(linux_part, "maskedPaths");

        if (!masked) {
            json_object_set_new(linux_part, "maskedPaths", json_array());
            masked = json_object_get(linux_part, "maskedPaths");
        }
        json_array_append_new(masked, json_string(path));
    }
}
