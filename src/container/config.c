/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config.json's outermost members. Called by who makes a container, by the fuzz target, and by the commands
 * that need a container's configuration later. No state. */
#include "container/config.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_MAX (16u << 20)

/* ---- documents ---- */

/* Of the digits from `text` on: how many, and whether they are more than 63 bits hold. */
static size_t digits(const char *text, const char *end, bool *large)
{
    static const char most[] = "9223372036854775807";
    const char *p = text;

    while (p < end && isdigit((unsigned char)*p))
        p++;
    size_t n = (size_t)(p - text);
    bool whole = p == end || (*p != '.' && *p != 'e' && *p != 'E');
    *large = whole && (n > 19 || (n == 19 && memcmp(text, most, 19) > 0));
    return n;
}

/*
 * A copy in which whole numbers above 2^63-1 have an exponent of 0: the parser takes them as real ones then,
 * where it would refuse them otherwise. 2^64-1 ("no limit") is such a number. Each grows by 2 bytes to 19 or
 * more.
 */
static char *mark_large_numbers(const char *text, size_t size, size_t *out_size)
{
    char *copy = malloc(size + size / 8 + 16);
    const char *p = text, *end = text + size;
    bool in_string = false;
    size_t n = 0;

    while (copy && p < end) {
        bool large = false;
        size_t run = in_string || !isdigit((unsigned char)*p) ? 0 : digits(p, end, &large);

        if (run) {
            memcpy(copy + n, p, run);
            n += run;
            p += run;
            if (large) {
                copy[n++] = 'e';
                copy[n++] = '0';
            }
            continue;
        }
        if (in_string && *p == '\\' && p + 1 < end)
            copy[n++] = *p++;
        else if (*p == '"')
            in_string = !in_string;
        copy[n++] = *p++;
    }
    *out_size = n;
    return copy;
}

json_t *container_json_read(const char *text, size_t size, struct error **err)
{
    json_error_t why;
    size_t marked_size;
    cleanup_free char *marked = mark_large_numbers(text, size, &marked_size);

    if (!marked) {
        error_set_errno(err, ENOMEM, "JSON");
        return NULL;
    }
    json_t *json = json_loadb(marked, marked_size, JSON_REJECT_DUPLICATES, &why);
    if (!json)
        error_set(err, EINVAL, "line %d, column %d: not valid JSON: %s", why.line, why.column, why.text);
    return json;
}

json_t *container_json_read_file(const char *path, struct error **err)
{
    cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        error_set_errno(err, errno, "%s", path);
        return NULL;
    }
    /* Pipes have no size. */
    size_t room = S_ISREG(st.st_mode) ? (size_t)st.st_size + 1 : FILE_MAX + 1, used = 0;
    if (room > FILE_MAX + 1) {
        error_set(err, EFBIG, "%s: larger than %u MiB", path, FILE_MAX >> 20);
        return NULL;
    }
    cleanup_free char *text = malloc(room);
    ssize_t n = text ? 1 : 0;
    while (n > 0 && used < room) {
        n = read(fd, text + used, room - used);
        used += n > 0 ? (size_t)n : 0;
    }
    if (n < 0 || !text) {
        error_set_errno(err, text ? errno : ENOMEM, "%s", path);
        return NULL;
    }
    if (used > FILE_MAX) {
        error_set(err, EFBIG, "%s: larger than %u MiB", path, FILE_MAX >> 20);
        return NULL;
    }
    json_t *json = container_json_read(text, used, err);
    if (!json)
        error_wrap(err, "%s", path);
    return json;
}

int container_json_read_in(int directory, const char *name, json_t **out, struct error **err)
{
    char path[64 + NAME_MAX];

    *out = NULL;
    if (faccessat(directory, name, F_OK, 0) < 0)
        return 0;
    snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", directory, name);
    *out = container_json_read_file(path, err);
    if (*out)
        return 0;
    return err && error_errno(*err) ? -error_errno(*err) : -EINVAL;
}

/* ---- the outermost members ---- */

/* SemVer 2.0.0 of the major version that we know. Before 1.0.0 nothing was compatible, but what bundles say
 * is what their maker once was; of those the later drafts are read alike. */
static int check_version(struct container_config *config, const struct config_node *root, struct error **err)
{
    struct config_node node;
    unsigned major, minor, patch;
    int end = 0;

    if (config_string(root, "ociVersion", true, &config->version, err) < 0)
        return -EINVAL;
    config_has(root, "ociVersion", &node);
    const char *text = config->version;
    if (strlen(text) > 64 || sscanf(text, "%5u.%5u.%5u%n", &major, &minor, &patch, &end) != 3 ||
        (text[end] && text[end] != '-' && text[end] != '+'))
        return config_fail(&node, err, "'%.64s' is not a version such as " CONTAINER_OCI_VERSION, text);
    if (major > 1)
        return config_fail(&node, err, "'%.64s' is not supported: this runtime knows 1.x", text);
    return 0;
}

static int take_root(struct container_config *config, const struct config_node *root, struct error **err)
{
    struct config_node node;

    if (config_object(root, "root", true, &node, err) < 0 ||
        config_string(&node, "path", true, &config->root_path, err) < 0 ||
        config_bool(&node, "readonly", &config->root_readonly, err) < 0)
        return -EINVAL;
    return *config->root_path ? 0 : config_fail(&node, err, "path is empty");
}

static int take_name(const struct config_node *root, const char *key, const char **out, struct error **err)
{
    struct config_node node;
    int rc = config_string(root, key, false, out, err);

    if (rc <= 0)
        return rc;
    config_has(root, key, &node);
    if (strlen(*out) > 64)
        return config_fail(&node, err, "is longer than 64 bytes");
    return 0;
}

static int take_annotations(struct container_config *config, const struct config_node *root,
                            struct error **err)
{
    struct config_node node, item;
    const char *key;
    json_t *value;
    int rc = config_object(root, "annotations", false, &node, err);

    if (rc <= 0)
        return rc;
    json_object_foreach(node.json, key, value)
    {
        item = (struct config_node){.up = &node, .key = key, .json = value};
        if (!*key)
            return config_fail(&node, err, "a key is empty");
        if (!json_is_string(value))
            return config_fail(&item, err, "must be a string");
    }
    config->annotations = node.json;
    return 0;
}

/* What one part of the document says of another. */
static int check_together(const struct container_config *config, struct error **err)
{
    bool new_user = config->has_namespace[CONTAINER_NS_USER] && !config->namespace_path[CONTAINER_NS_USER];

    if (config->hostname && !config->has_namespace[CONTAINER_NS_UTS])
        return error_set(err, EINVAL, "hostname: unable to set hostname without a private UTS namespace");
    if (config->domainname && !config->has_namespace[CONTAINER_NS_UTS])
        return error_set(err, EINVAL, "domainname: unable to set domainname without a private UTS namespace");
    if (!config->has_namespace[CONTAINER_NS_USER] && (config->maps.n_uids || config->maps.n_gids))
        return error_set(err, EINVAL,
                         "linux.uidMappings: user namespace mappings specified, but user namespace "
                         "isn't enabled in the config (linux.namespaces)");
    if (new_user && (!config->maps.n_uids || !config->maps.n_gids))
        return error_set(
            err, EINVAL,
            "linux.namespaces: a new user namespace needs linux.uidMappings and linux.gidMappings");
    if (config->has_time_offsets && !config->has_namespace[CONTAINER_NS_TIME])
        return error_set(err, EINVAL,
                         "linux.timeOffsets: time namespace offsets specified, but time namespace "
                         "isn't enabled in the config (linux.namespaces)");
    if (!config->has_namespace[CONTAINER_NS_MOUNT])
        return error_set(err, EINVAL,
                         "linux.namespaces: a container without mount namespace of its own is not supported: "
                         "add {\"type\": \"mount\"}");
    return 0;
}

static int take_all(struct container_config *config, const struct config_node *root, struct error **err)
{
    struct config_node process, hooks;
    int rc = check_version(config, root, err);

    if (rc == 0)
        rc = take_root(config, root, err);
    if (rc == 0)
        rc = config_object(root, "process", false, &process, err);
    if (rc > 0) {
        config->has_process = true;
        rc = container_process_parse(&config->pool, &process, &config->process, err);
    }
    if (rc == 0)
        rc = take_name(root, "hostname", &config->hostname, err);
    if (rc == 0)
        rc = take_name(root, "domainname", &config->domainname, err);
    if (rc == 0)
        rc = container_mounts_parse(config, root, err);
    if (rc == 0)
        rc = config_object(root, "hooks", false, &hooks, err);
    if (rc > 0)
        rc = container_hooks_parse(&config->pool, &hooks, &config->hooks, err);
    if (rc == 0)
        rc = take_annotations(config, root, err);
    if (rc == 0)
        rc = container_linux_parse(config, root, err);
    return rc ? rc : check_together(config, err);
}

static int parse_document(json_t *json, struct container_config **out, struct error **err)
{
    struct container_config *config = calloc(1, sizeof(*config));
    const struct config_node root = {.json = json};

    if (!config) {
        json_decref(json);
        return error_set_errno(err, ENOMEM, "config.json");
    }
    config->json = json;
    int rc = json_is_object(json) ? take_all(config, &root, err) : error_set(err, EINVAL, "not an object");
    if (rc) {
        container_config_free(config);
        return rc;
    }
    *out = config;
    return 0;
}

int container_config_parse(const char *text, size_t size, struct container_config **out, struct error **err)
{
    json_t *json = container_json_read(text, size, err);

    return json ? parse_document(json, out, err) : -EINVAL;
}

int container_config_load(const char *bundle, const char *name, struct container_config **out,
                          struct error **err)
{
    cleanup_free char *path = NULL;

    if (asprintf(&path, "%s/%s", bundle, name) < 0)
        return error_set_errno(err, ENOMEM, "%s", bundle);
    if (access(path, F_OK) < 0 && errno == ENOENT)
        return error_set(err, ENOENT, "JSON specification file %s not found in the bundle %s", name, bundle);
    json_t *json = container_json_read_file(path, err);
    if (!json)
        return -EINVAL;
    int rc = parse_document(json, out, err);
    return rc ? error_wrap(err, "%s", name) : 0;
}

void container_config_free(struct container_config *config)
{
    if (!config)
        return;
    container_resources_free(&config->resources);
    config_pool_free(&config->pool);
    json_decref(config->json);
    free(config);
}
