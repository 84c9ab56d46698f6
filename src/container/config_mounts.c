/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * config.json's mounts (config.md, "Mounts"; "Linux mount options"). Options with a meaning of their own are
 * a row each; what is left belongs to the file system. Called by config.c. No state.
 */
#include "container/config.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif

enum option_kind {
    OPTION_NOTHING,   /* is what happens anyway */
    OPTION_SET,       /* an attribute of the mount */
    OPTION_CLEAR,     /* and its opposite */
    OPTION_ATIME,     /* one of several values of one field */
    OPTION_RECURSIVE, /* is added to these three: of all mounts below too */
    OPTION_SUPER,     /* a flag of the file system's own: told to it by its name */
    OPTION_PROPAGATION,
    OPTION_BIND,
    OPTION_REMOUNT,
    OPTION_COPY_UP,
    OPTION_IDMAP,
    OPTION_NO_FOLLOW,
};

struct option {
    const char *name;
    enum option_kind kind;
    unsigned long value;
    bool recursive;
};

static const struct option options[] = {
    {"acl", OPTION_SUPER, 0, false},
    {"async", OPTION_SUPER, 0, false},
    {"atime", OPTION_CLEAR, MOUNT_ATTR_NOATIME, false},
    {"bind", OPTION_BIND, 0, false},
    {"copy-symlink", OPTION_NO_FOLLOW, 0, false},
    {"defaults", OPTION_NOTHING, 0, false},
    {"dev", OPTION_CLEAR, MOUNT_ATTR_NODEV, false},
    {"diratime", OPTION_CLEAR, MOUNT_ATTR_NODIRATIME, false},
    {"dirsync", OPTION_SUPER, 0, false},
    {"exec", OPTION_CLEAR, MOUNT_ATTR_NOEXEC, false},
    {"idmap", OPTION_IDMAP, CONTAINER_IDMAP_ONE, false},
    {"iversion", OPTION_SUPER, 0, false},
    {"lazytime", OPTION_SUPER, 0, false},
    {"loud", OPTION_NOTHING, 0, false},
    {"mand", OPTION_SUPER, 0, false},
    {"noacl", OPTION_SUPER, 0, false},
    {"noatime", OPTION_ATIME, MOUNT_ATTR_NOATIME, false},
    {"nodev", OPTION_SET, MOUNT_ATTR_NODEV, false},
    {"nodiratime", OPTION_SET, MOUNT_ATTR_NODIRATIME, false},
    {"noexec", OPTION_SET, MOUNT_ATTR_NOEXEC, false},
    {"noiversion", OPTION_NOTHING, 0, false},
    {"nolazytime", OPTION_NOTHING, 0, false},
    {"nomand", OPTION_NOTHING, 0, false},
    {"norelatime", OPTION_NOTHING, 0, false},
    {"nostrictatime", OPTION_NOTHING, 0, false},
    {"nosuid", OPTION_SET, MOUNT_ATTR_NOSUID, false},
    {"nosymfollow", OPTION_SET, MOUNT_ATTR_NOSYMFOLLOW, false},
    {"private", OPTION_PROPAGATION, MS_PRIVATE, false},
    {"ratime", OPTION_CLEAR, MOUNT_ATTR_NOATIME, true},
    {"rbind", OPTION_BIND, MS_REC, false},
    {"rdev", OPTION_CLEAR, MOUNT_ATTR_NODEV, true},
    {"rdiratime", OPTION_CLEAR, MOUNT_ATTR_NODIRATIME, true},
    {"relatime", OPTION_ATIME, MOUNT_ATTR_RELATIME, false},
    {"remount", OPTION_REMOUNT, 0, false},
    {"rexec", OPTION_CLEAR, MOUNT_ATTR_NOEXEC, true},
    {"ridmap", OPTION_IDMAP, CONTAINER_IDMAP_RECURSIVE, false},
    {"rnoatime", OPTION_ATIME, MOUNT_ATTR_NOATIME, true},
    {"rnodev", OPTION_SET, MOUNT_ATTR_NODEV, true},
    {"rnodiratime", OPTION_SET, MOUNT_ATTR_NODIRATIME, true},
    {"rnoexec", OPTION_SET, MOUNT_ATTR_NOEXEC, true},
    {"rnorelatime", OPTION_ATIME, MOUNT_ATTR_STRICTATIME, true},
    {"rnostrictatime", OPTION_ATIME, MOUNT_ATTR_RELATIME, true},
    {"rnosuid", OPTION_SET, MOUNT_ATTR_NOSUID, true},
    {"rnosymfollow", OPTION_SET, MOUNT_ATTR_NOSYMFOLLOW, true},
    {"ro", OPTION_SET, MOUNT_ATTR_RDONLY, false},
    {"rprivate", OPTION_PROPAGATION, MS_PRIVATE | MS_REC, false},
    {"rrelatime", OPTION_ATIME, MOUNT_ATTR_RELATIME, true},
    {"rro", OPTION_SET, MOUNT_ATTR_RDONLY, true},
    {"rrw", OPTION_CLEAR, MOUNT_ATTR_RDONLY, true},
    {"rshared", OPTION_PROPAGATION, MS_SHARED | MS_REC, false},
    {"rslave", OPTION_PROPAGATION, MS_SLAVE | MS_REC, false},
    {"rstrictatime", OPTION_ATIME, MOUNT_ATTR_STRICTATIME, true},
    {"rsuid", OPTION_CLEAR, MOUNT_ATTR_NOSUID, true},
    {"rsymfollow", OPTION_CLEAR, MOUNT_ATTR_NOSYMFOLLOW, true},
    {"runbindable", OPTION_PROPAGATION, MS_UNBINDABLE | MS_REC, false},
    {"rw", OPTION_CLEAR, MOUNT_ATTR_RDONLY, false},
    {"shared", OPTION_PROPAGATION, MS_SHARED, false},
    {"silent", OPTION_SUPER, 0, false},
    {"slave", OPTION_PROPAGATION, MS_SLAVE, false},
    {"strictatime", OPTION_ATIME, MOUNT_ATTR_STRICTATIME, false},
    {"suid", OPTION_CLEAR, MOUNT_ATTR_NOSUID, false},
    {"symfollow", OPTION_CLEAR, MOUNT_ATTR_NOSYMFOLLOW, false},
    {"sync", OPTION_SUPER, 0, false},
    {"tmpcopyup", OPTION_COPY_UP, 0, false},
    {"unbindable", OPTION_PROPAGATION, MS_UNBINDABLE, false},
};

const char *container_mount_option(size_t i)
{
    return i < ARRAY_SIZE(options) ? options[i].name : NULL;
}

/* The later of two that contradict each other holds. */
static void set_attribute(struct container_mount *m, const struct option *o)
{
    uint64_t *set = o->recursive ? &m->recursive_set : &m->set;
    uint64_t *clear = o->recursive ? &m->recursive_clear : &m->clear;

    if (o->kind == OPTION_SET) {
        *set |= o->value;
        *clear &= ~(uint64_t)o->value;
    } else if (o->kind == OPTION_ATIME || o->value == MOUNT_ATTR_NOATIME) {
        /* The kernel wants the whole field cleared before one of its values is set. */
        *clear |= MOUNT_ATTR__ATIME;
        *set = (*set & ~(uint64_t)MOUNT_ATTR__ATIME) | (o->kind == OPTION_ATIME ? o->value : 0);
    } else {
        *set &= ~(uint64_t)o->value;
        *clear |= o->value;
    }
}

/* False where there is no room. */
static bool apply_option(struct container_mount *m, const struct option *o, const char *text)
{
    switch (o ? o->kind : OPTION_SUPER) {
    case OPTION_SET:
    case OPTION_CLEAR:
    case OPTION_ATIME:
        set_attribute(m, o);
        return true;
    case OPTION_PROPAGATION:
        if (m->n_propagation == ARRAY_SIZE(m->propagation))
            return false;
        m->propagation[m->n_propagation++] = o->value;
        return true;
    case OPTION_BIND:
        m->bind = true;
        m->recursive |= o->value == MS_REC;
        return true;
    case OPTION_REMOUNT:
        m->remount = true;
        return true;
    case OPTION_COPY_UP:
        m->copy_up = true;
        return true;
    case OPTION_IDMAP:
        m->idmap = (enum container_idmap)o->value;
        return true;
    case OPTION_NO_FOLLOW:
        m->source_is_link = true;
        return true;
    case OPTION_SUPER:
        m->data[m->n_data++] = text;
        return true;
    default:
        return true;
    }
}

static const struct option *find_option(const char *text)
{
    size_t low = 0, high = ARRAY_SIZE(options);

    while (low < high) {
        size_t middle = (low + high) / 2;
        int order = strcmp(text, options[middle].name);

        if (order == 0)
            return &options[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static int take_options(struct config_pool *pool, const struct config_node *node, struct container_mount *m,
                        struct error **err)
{
    struct config_node array;
    int rc = config_array(node, "options", false, &array, err);
    size_t n = rc > 0 ? config_length(&array) : 0;

    if (rc < 0)
        return rc;
    m->data = config_alloc(pool, n + 1, sizeof(*m->data));
    if (!m->data)
        return config_fail(node, err, "out of memory");
    for (size_t i = 0; i < n; i++) {
        const char *text;
        struct config_node item;

        if (config_item_string(&array, i, &text, err))
            return -EINVAL;
        if (!apply_option(m, find_option(text), text)) {
            config_item(&array, i, &item);
            return config_fail(&item, err, "more than %zu options of propagation",
                               ARRAY_SIZE(m->propagation));
        }
    }
    return 0;
}

int container_id_maps_parse(struct config_pool *pool, const struct config_node *node, const char *key,
                            struct container_id_map **out, size_t *n, struct error **err)
{
    struct config_node array, item;
    int rc = config_array(node, key, false, &array, err);

    if (rc <= 0)
        return rc;
    size_t length = config_length(&array);
    if (length > 340)
        return config_fail(&array, err, "more than the kernel's 340 ranges");
    struct container_id_map *maps = config_alloc(pool, length, sizeof(*maps));
    if (!maps)
        return config_fail(&array, err, "out of memory");
    for (size_t i = 0; i < length; i++) {
        int64_t container = 0, host = 0, size = 0;

        if (config_item_object(&array, i, &item, err) ||
            config_int(&item, "containerID", true, 0, UINT32_MAX, &container, err) < 0 ||
            config_int(&item, "hostID", true, 0, UINT32_MAX, &host, err) < 0 ||
            config_int(&item, "size", true, 1, UINT32_MAX, &size, err) < 0)
            return -EINVAL;
        if (container + size > UINT32_MAX || host + size > UINT32_MAX)
            return config_fail(&item, err, "goes beyond the last id");
        maps[i] = (struct container_id_map){(uint32_t)container, (uint32_t)host, (uint32_t)size};
    }
    *out = maps;
    *n = length;
    return 0;
}

static int take_mount(struct config_pool *pool, const struct config_node *node, struct container_mount *m,
                      struct error **err)
{
    if (config_string(node, "destination", true, &m->destination, err) < 0 ||
        config_string(node, "source", false, &m->source, err) < 0 ||
        config_string(node, "type", false, &m->type, err) < 0 || take_options(pool, node, m, err) ||
        container_id_maps_parse(pool, node, "uidMappings", &m->maps.uids, &m->maps.n_uids, err) ||
        container_id_maps_parse(pool, node, "gidMappings", &m->maps.gids, &m->maps.n_gids, err))
        return -EINVAL;
    if (!*m->destination)
        return config_fail(node, err, "destination is empty");
    if (m->type && strcmp(m->type, "bind") == 0)
        m->bind = true;
    if (m->bind && !m->remount && (!m->source || !*m->source))
        return config_fail(node, err, "a bind mount needs a source");
    if (!m->bind && !m->remount && !m->type)
        return config_fail(node, err, "type is required and missing: this is no bind mount");
    if (!m->maps.n_uids != !m->maps.n_gids)
        return config_fail(node, err, "uidMappings and gidMappings go together");
    if (m->maps.n_uids && m->idmap == CONTAINER_IDMAP_NONE)
        m->idmap = CONTAINER_IDMAP_ONE;
    return 0;
}

int container_mounts_parse(struct container_config *config, const struct config_node *root,
                           struct error **err)
{
    struct config_node array, item;
    int rc = config_array(root, "mounts", false, &array, err);

    if (rc <= 0)
        return rc;
    size_t n = config_length(&array);
    config->mounts = config_alloc(&config->pool, n, sizeof(*config->mounts));
    if (!config->mounts)
        return config_fail(&array, err, "out of memory");
    for (size_t i = 0; i < n; i++)
        if (config_item_object(&array, i, &item, err) ||
            take_mount(&config->pool, &item, &config->mounts[i], err))
            return -EINVAL;
    config->n_mounts = n;
    return 0;
}
