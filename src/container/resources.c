/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `linux.resources` from JSON. Called by the configuration's parser and by `update`. What later becomes part
 * of a file's name or of a line that the kernel reads is checked here (page sizes, devices of RDMA, files of
 * `unified`). No state, no locks.
 */
#include "container/resources.h"

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "container/config_json.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define LIST_MAX 4096 /* items: far above what any host has of anything here */

static int no_memory(struct error **err)
{
    return error_set_errno(err, ENOMEM, "reading a configuration's resources");
}

/* ---- numbers of a structure, by a table ---- */

struct number_field {
    const char *name;
    size_t offset; /* of a struct container_value */
    int64_t min, max;
};

static int read_numbers(const struct config_node *object, const struct number_field *fields, size_t n,
                        void *out, struct error **err)
{
    for (size_t i = 0; i < n; i++) {
        struct container_value *value = (struct container_value *)((char *)out + fields[i].offset);
        int rc = config_int(object, fields[i].name, false, fields[i].min, fields[i].max, &value->value, err);

        if (rc < 0)
            return rc;
        value->set = rc;
    }
    return 0;
}

/* One that must be there. */
static int read_number(const struct config_node *object, const char *name, int64_t min, int64_t max,
                       int64_t *out, struct error **err)
{
    int rc = config_int(object, name, true, min, max, out, err);

    return rc < 0 ? rc : 0;
}

/* ---- lists of objects ---- */

/* Reads one item of a list into its zeroed place in the array. */
typedef int read_item(const struct config_node *object, void *out, struct error **err);

/* The list `name` of objects: an array of `size` bytes an item, of which *n are there, also on failure. */
static int read_list(const struct config_node *object, const char *name, size_t size, read_item *read,
                     void **array, size_t *n, struct error **err)
{
    struct config_node list;
    int rc = config_array(object, name, false, &list, err);

    if (rc <= 0)
        return rc;
    size_t count = config_length(&list);
    if (count > LIST_MAX)
        return config_fail(&list, err, "%zu items, of which %d may be", count, LIST_MAX);
    *array = calloc(count + 1, size);
    if (!*array)
        return no_memory(err);
    for (size_t i = 0; i < count; i++) {
        struct config_node item;

        rc = config_item_object(&list, i, &item, err);
        if (rc)
            return rc;
        *n = i + 1;
        rc = read(&item, (char *)*array + i * size, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* A copy of the string `name`; NULL where there is none. */
static int copy_string(const struct config_node *object, const char *name, bool required, char **out,
                       struct error **err)
{
    const char *text;
    int rc = config_string(object, name, required, &text, err);

    if (rc <= 0)
        return rc;
    *out = strdup(text);
    return *out ? 0 : no_memory(err);
}

/* What is wrong with the member `name`. */
#define FAIL(object, name, ...) fail_member(object, name, err, __VA_ARGS__)

/* ---- devices ---- */

static int read_device_type(const struct config_node *device, char *type, struct error **err)
{
    struct config_node here;
    const char *text = "";
    int rc = config_string(device, "type", false, &text, err);

    *type = 'a';
    if (rc < 0 || !*text)
        return rc < 0 ? rc : 0;
    config_has(device, "type", &here);
    if (strlen(text) != 1 || !strchr("abcu", *text))
        return config_fail(&here, err, "'%s' is none of a (all), b (block) and c (character)", text);
    *type = *text == 'u' ? 'c' : *text; /* mknod's other word for it */
    return 0;
}

static int read_device_access(const struct config_node *device, unsigned *access, struct error **err)
{
    struct config_node here;
    const char *text = "";
    int rc = config_string(device, "access", false, &text, err);

    *access = CONTAINER_DEVICE_ALL;
    if (rc < 0 || !*text)
        return rc < 0 ? rc : 0;
    config_has(device, "access", &here);
    *access = 0;
    for (const char *c = text; *c; c++) {
        const char *known = strchr("rwm", *c);

        if (!known)
            return config_fail(&here, err, "'%s' is not made of r (read), w (write) and m (make a node)",
                               text);
        *access |= 1u << (known - "rwm");
    }
    return 0;
}

/* One that may be missing, or -1: any. */
static int read_device_number(const struct config_node *device, const char *name, int64_t *out,
                              struct error **err)
{
    int rc = config_int(device, name, false, -1, UINT32_MAX, out, err);

    if (rc == 0)
        *out = CONTAINER_DEVICE_ANY;
    return rc < 0 ? rc : 0;
}

static int read_device(const struct config_node *device, void *out, struct error **err)
{
    struct container_device_rule *rule = out;
    struct config_node allow;
    int64_t major = 0, minor = 0;
    int rc = config_bool(device, "allow", &rule->allow, err);

    if (rc == 0) {
        config_has(device, "allow", &allow);
        return config_fail(&allow, err, "is required and missing");
    }
    rc = rc < 0 ? rc : read_device_type(device, &rule->type, err);
    rc = rc ? rc : read_device_access(device, &rule->access, err);
    rc = rc ? rc : read_device_number(device, "major", &major, err);
    rc = rc ? rc : read_device_number(device, "minor", &minor, err);
    rule->major = major;
    rule->minor = minor;
    return rc;
}

/* ---- memory and processors ---- */

static int read_memory(const struct config_node *resources, struct container_memory *memory,
                       struct error **err)
{
    static const struct number_field fields[] = {
        {"limit", offsetof(struct container_memory, limit), -1, INT64_MAX},
        {"reservation", offsetof(struct container_memory, reservation), -1, INT64_MAX},
        {"swap", offsetof(struct container_memory, swap), -1, INT64_MAX},
        {"kernel", offsetof(struct container_memory, kernel), -1, INT64_MAX},
        {"kernelTCP", offsetof(struct container_memory, kernel_tcp), -1, INT64_MAX},
        {"swappiness", offsetof(struct container_memory, swappiness), 0, 100},
    };
    struct config_node object;
    bool value = false, hierarchy = true;
    int rc = config_object(resources, "memory", false, &object, err);

    if (rc <= 0)
        return rc;
    rc = read_numbers(&object, fields, ARRAY_SIZE(fields), memory, err);
    if (rc)
        return rc;
    rc = config_bool(&object, "disableOOMKiller", &value, err);
    memory->disable_oom_killer = (struct container_value){.set = rc > 0, .value = value};
    if (rc >= 0)
        rc = config_bool(&object, "checkBeforeUpdate", &memory->check_before_update, err);
    /* Kernels have no other way any more. */
    if (rc >= 0)
        rc = config_bool(&object, "useHierarchy", &hierarchy, err);
    if (rc < 0)
        return rc;
    const struct container_value *limit = &memory->limit, *swap = &memory->swap;
    if (swap->set && swap->value > 0 && limit->set && limit->value > 0 && swap->value < limit->value) {
        struct config_node member;

        config_has(&object, "swap", &member);
        return config_fail(&member, err,
                           "%lld is less than memory.limit %lld: it is memory and swap together",
                           (long long)swap->value, (long long)limit->value);
    }
    return 0;
}

/* "0-3,7": the kernel tells whether such processors exist. */
static int read_set(const struct config_node *object, const char *name, char **out, struct error **err)
{
    struct config_node here;
    const char *text = "";
    int rc = config_string(object, name, false, &text, err);

    if (rc < 0 || !*text)
        return rc < 0 ? rc : 0;
    config_has(object, name, &here);
    if (strspn(text, "0123456789,-") != strlen(text))
        return config_fail(&here, err, "'%s' is no list of numbers and ranges as 0-3,7", text);
    return copy_string(object, name, true, out, err);
}

static int read_cpu(const struct config_node *resources, struct container_cpu *cpu, struct error **err)
{
    static const struct number_field fields[] = {
        {"shares", offsetof(struct container_cpu, shares), 0, INT64_MAX},
        {"quota", offsetof(struct container_cpu, quota), INT64_MIN, INT64_MAX},
        {"burst", offsetof(struct container_cpu, burst), 0, INT64_MAX},
        {"period", offsetof(struct container_cpu, period), 0, INT64_MAX},
        {"realtimeRuntime", offsetof(struct container_cpu, realtime_runtime), -1, INT64_MAX},
        {"realtimePeriod", offsetof(struct container_cpu, realtime_period), 0, INT64_MAX},
        {"idle", offsetof(struct container_cpu, idle), INT64_MIN, INT64_MAX},
    };
    struct config_node object;
    int rc = config_object(resources, "cpu", false, &object, err);

    if (rc <= 0)
        return rc;
    rc = read_numbers(&object, fields, ARRAY_SIZE(fields), cpu, err);
    rc = rc ? rc : read_set(&object, "cpus", &cpu->cpus, err);
    return rc ? rc : read_set(&object, "mems", &cpu->mems, err);
}

/* ---- block devices ---- */

/* Major and minor number, which both must be there. */
static int read_block_device(const struct config_node *object, uint32_t *major, uint32_t *minor,
                             struct error **err)
{
    int64_t value[2] = {0};
    int rc = read_number(object, "major", 0, UINT32_MAX, &value[0], err);

    rc = rc ? rc : read_number(object, "minor", 0, UINT32_MAX, &value[1], err);
    *major = (uint32_t)value[0];
    *minor = (uint32_t)value[1];
    return rc;
}

static int check_weight(const struct config_node *object, const char *name,
                        const struct container_value *value, struct error **err)
{
    struct config_node here;

    config_has(object, name, &here);
    if (!value->set || value->value == 0 || (value->value >= 10 && value->value <= 1000))
        return 0;
    return config_fail(&here, err, "%lld is not within 10..1000", (long long)value->value);
}

static int read_weights(const struct config_node *object, struct container_value *weight,
                        struct container_value *leaf, struct error **err)
{
    static const struct number_field fields[] = {{"weight", 0, 0, UINT16_MAX},
                                                 {"leafWeight", 0, 0, UINT16_MAX}};
    int rc = read_numbers(object, &fields[0], 1, weight, err);

    rc = rc ? rc : check_weight(object, "weight", weight, err);
    rc = rc ? rc : read_numbers(object, &fields[1], 1, leaf, err);
    return rc ? rc : check_weight(object, "leafWeight", leaf, err);
}

static int read_block_weight(const struct config_node *object, void *out, struct error **err)
{
    struct container_block_weight *device = out;
    int rc = read_block_device(object, &device->major, &device->minor, err);

    return rc ? rc : read_weights(object, &device->weight, &device->leaf_weight, err);
}

static int read_block_limit(const struct config_node *object, void *out, struct error **err)
{
    struct container_block_limit *limit = out;
    int64_t rate = 0;
    int rc = read_block_device(object, &limit->major, &limit->minor, err);

    rc = rc ? rc : read_number(object, "rate", 0, INT64_MAX, &rate, err);
    limit->rate = (uint64_t)rate;
    return rc;
}

static int read_block(const struct config_node *resources, struct container_block_io *block,
                      struct error **err)
{
    static const char *const throttles[CONTAINER_THROTTLES] = {
        [CONTAINER_READ_BPS] = "throttleReadBpsDevice",
        [CONTAINER_WRITE_BPS] = "throttleWriteBpsDevice",
        [CONTAINER_READ_IOPS] = "throttleReadIOPSDevice",
        [CONTAINER_WRITE_IOPS] = "throttleWriteIOPSDevice",
    };
    struct config_node object;
    int rc = config_object(resources, "blockIO", false, &object, err);

    if (rc <= 0)
        return rc;
    rc = read_weights(&object, &block->weight, &block->leaf_weight, err);
    rc = rc ? rc
            : read_list(&object, "weightDevice", sizeof(*block->weights), read_block_weight,
                        (void **)&block->weights, &block->n_weights, err);
    for (int t = 0; rc == 0 && t < CONTAINER_THROTTLES; t++)
        rc = read_list(&object, throttles[t], sizeof(struct container_block_limit), read_block_limit,
                       (void **)&block->throttle[t].limits, &block->throttle[t].n, err);
    return rc;
}

/* ---- huge pages, processes, networks ---- */

/* [1-9][0-9]*[KMG]B, as the specification writes it. */
static bool is_page_size(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    return digits > 0 && text[0] != '0' && text[digits] && strchr("KMG", text[digits]) &&
           strcmp(text + digits + 1, "B") == 0;
}

static int read_hugepages(const struct config_node *object, void *out, struct error **err)
{
    struct config_node here;
    struct container_hugepages *pages = out;
    int64_t limit = 0;
    int rc = copy_string(object, "pageSize", true, &pages->page_size, err);

    rc = rc ? rc : read_number(object, "limit", 0, INT64_MAX, &limit, err);
    if (rc)
        return rc;
    config_has(object, "pageSize", &here);
    if (!is_page_size(pages->page_size))
        return config_fail(&here, err, "'%s' is no size as 64KB, 2MB or 1GB", pages->page_size);
    pages->limit = (uint64_t)limit;
    return 0;
}

static int read_pids(const struct config_node *resources, struct container_value *pids, struct error **err)
{
    static const struct number_field field = {"limit", 0, INT64_MIN, INT64_MAX};
    struct config_node object;
    int rc = config_object(resources, "pids", false, &object, err);

    return rc <= 0 ? rc : read_numbers(&object, &field, 1, pids, err);
}

/* A word that is safe in a line of words: no control characters, no blanks. */
static bool is_word(const char *text)
{
    if (!*text || strlen(text) > 255)
        return false;
    for (const char *c = text; *c; c++)
        if (!isgraph((unsigned char)*c))
            return false;
    return true;
}

static int read_priority(const struct config_node *object, void *out, struct error **err)
{
    struct config_node here;
    struct container_priority *priority = out;
    int64_t value = 0;
    int rc = copy_string(object, "name", true, &priority->interface, err);

    rc = rc ? rc : read_number(object, "priority", 0, UINT32_MAX, &value, err);
    if (rc)
        return rc;
    config_has(object, "name", &here);
    if (!is_word(priority->interface))
        return config_fail(&here, err, "no name of a network interface");
    priority->priority = (uint32_t)value;
    return 0;
}

static int read_network(const struct config_node *resources, struct container_resources *out,
                        struct error **err)
{
    static const struct number_field field = {"classID", 0, 0, UINT32_MAX};
    struct config_node object;
    int rc = config_object(resources, "network", false, &object, err);

    if (rc <= 0)
        return rc;
    rc = read_numbers(&object, &field, 1, &out->network_class, err);
    return rc ? rc
              : read_list(&object, "priorities", sizeof(*out->priorities), read_priority,
                          (void **)&out->priorities, &out->n_priorities, err);
}

/* ---- maps ---- */

/* Reads one member of a map, its name is the node's key, into its zeroed place in the array. */
typedef int read_member(const struct config_node *member, void *out, struct error **err);

/* The members of the object `name`, each by `read` into an array as read_list's. */
static int read_map(const struct config_node *resources, const char *name, size_t size, read_member *read,
                    void **array, size_t *n, struct error **err)
{
    struct config_node object;
    int rc = config_object(resources, name, false, &object, err);

    if (rc <= 0)
        return rc;
    size_t count = json_object_size(object.json);
    if (count > LIST_MAX)
        return config_fail(&object, err, "%zu members, of which %d may be", count, LIST_MAX);
    *array = calloc(count + 1, size);
    if (!*array)
        return no_memory(err);
    for (void *i = json_object_iter(object.json); i; i = json_object_iter_next(object.json, i)) {
        const struct config_node member = {
            .up = &object, .key = json_object_iter_key(i), .json = json_object_iter_value(i)};

        rc = read(&member, (char *)*array + (*n)++ * size, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int read_rdma(const struct config_node *member, void *out, struct error **err)
{
    static const struct number_field fields[] = {
        {"hcaHandles", offsetof(struct container_rdma, handles), 0, UINT32_MAX},
        {"hcaObjects", offsetof(struct container_rdma, objects), 0, UINT32_MAX},
    };
    struct container_rdma *rdma = out;

    if (!json_is_object(member->json))
        return config_fail(member, err, "must be an object");
    if (!is_word(member->key))
        return config_fail(member, err, "no name of a device");
    rdma->device = strdup(member->key);
    return rdma->device ? read_numbers(member, fields, ARRAY_SIZE(fields), rdma, err) : no_memory(err);
}

static int read_unified(const struct config_node *member, void *out, struct error **err)
{
    struct container_unified *unified = out;
    const char *name = member->key;

    if (!json_is_string(member->json))
        return config_fail(member, err, "must be a string");
    if (!is_word(name) || strchr(name, '/') || name[0] == '.' || !strchr(name, '.'))
        return config_fail(member, err, "no name of a file of cgroup v2, as memory.high");
    unified->file = strdup(name);
    unified->value = strdup(json_string_value(member->json));
    return unified->file && unified->value ? 0 : no_memory(err);
}

/* ---- all of it ---- */

int container_resources_parse(json_t *json, struct container_resources *out, struct error **err)
{
    const struct config_node document = {0}, linux_node = {.up = &document, .key = "linux"},
                             top = {.up = &linux_node, .key = "resources", .json = json};
    struct container_resources r = {0};
    int rc;

    if (json && !json_is_null(json) && !json_is_object(json))
        return config_fail(&top, err, "must be an object");
    rc = read_list(&top, "devices", sizeof(*r.devices), read_device, (void **)&r.devices, &r.n_devices, err);
    r.devices_set = r.devices;
    rc = rc ? rc : read_memory(&top, &r.memory, err);
    rc = rc ? rc : read_cpu(&top, &r.cpu, err);
    rc = rc ? rc : read_block(&top, &r.block, err);
    rc = rc ? rc
            : read_list(&top, "hugepageLimits", sizeof(*r.hugepages), read_hugepages, (void **)&r.hugepages,
                        &r.n_hugepages, err);
    rc = rc ? rc : read_pids(&top, &r.pids, err);
    rc = rc ? rc : read_network(&top, &r, err);
    rc = rc ? rc : read_map(&top, "rdma", sizeof(*r.rdma), read_rdma, (void **)&r.rdma, &r.n_rdma, err);
    rc = rc ? rc
            : read_map(&top, "unified", sizeof(*r.unified), read_unified, (void **)&r.unified, &r.n_unified,
                       err);
    if (rc) {
        container_resources_free(&r);
        return rc;
    }
    *out = r;
    return 0;
}

void container_resources_free(struct container_resources *r)
{
    free(r->devices);
    free(r->cpu.cpus);
    free(r->cpu.mems);
    free(r->block.weights);
    for (int t = 0; t < CONTAINER_THROTTLES; t++)
        free(r->block.throttle[t].limits);
    for (size_t i = 0; i < r->n_hugepages; i++)
        free(r->hugepages[i].page_size);
    free(r->hugepages);
    for (size_t i = 0; i < r->n_priorities; i++)
        free(r->priorities[i].interface);
    free(r->priorities);
    for (size_t i = 0; i < r->n_rdma; i++)
        free(r->rdma[i].device);
    free(r->rdma);
    for (size_t i = 0; i < r->n_unified; i++) {
        free(r->unified[i].file);
        free(r->unified[i].value);
    }
    free(r->unified);
    *r = (struct container_resources){0};
}
