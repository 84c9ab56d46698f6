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
#include "container/json_place.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define LIST_MAX 4096 /* items: far above what any host has of anything here */

static const struct json_place place_linux = {.name = "linux"};
static const struct json_place place_top = {.up = &place_linux, .name = "resources"};

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

static int read_numbers(const struct json_place *place, const json_t *object,
                        const struct number_field *fields, size_t n, void *out, struct error **err)
{
    for (size_t i = 0; i < n; i++) {
        struct container_value *value = (struct container_value *)((char *)out + fields[i].offset);
        int rc = json_member_integer(place, object, fields[i].name, fields[i].min, fields[i].max, &value->set,
                                     &value->value, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- lists of objects ---- */

/* Reads one item of a list into its zeroed place in the array. */
typedef int read_item(const struct json_place *place, const json_t *object, void *out, struct error **err);

/* The list `name` of objects: an array of `size` bytes an item, of which *n are there, also on failure. */
static int read_list(const struct json_place *place, const json_t *object, const char *name, size_t size,
                     read_item *read, void **array, size_t *n, struct error **err)
{
    struct json_place here = {.up = place, .name = name};
    const json_t *list;
    int rc = json_member(place, object, name, JSON_ARRAY, &list, err);

    if (rc || !list)
        return rc;
    size_t count = json_array_size(list);
    if (count > LIST_MAX)
        return json_place_error(&here, err, "%zu items, of which %d may be", count, LIST_MAX);
    *array = calloc(count + 1, size);
    if (!*array)
        return no_memory(err);
    for (size_t i = 0; i < count; i++) {
        struct json_place item = {.up = &here, .index = i};
        const json_t *json = json_array_get(list, i);

        if (!json_is_object(json))
            return json_place_mismatch(&item, json, "an object", err);
        *n = i + 1;
        rc = read(&item, json, (char *)*array + i * size, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int must_have(const struct json_place *place, const char *name, bool is_there, struct error **err)
{
    struct json_place here = {.up = place, .name = name};

    return is_there ? 0 : json_place_error(&here, err, "missing");
}

/* ---- devices ---- */

static int read_device_type(const struct json_place *place, const json_t *object, char *type,
                            struct error **err)
{
    struct json_place here = {.up = place, .name = "type"};
    cleanup_free char *text = NULL;
    int rc = json_member_string(place, object, "type", &text, err);

    *type = 'a';
    if (rc || !text || !*text)
        return rc;
    if (strlen(text) != 1 || !strchr("abcu", *text))
        return json_place_error(&here, err, "'%s' is none of a (all), b (block) and c (character)", text);
    *type = *text == 'u' ? 'c' : *text; /* mknod's other word for it */
    return 0;
}

static int read_device_access(const struct json_place *place, const json_t *object, unsigned *access,
                              struct error **err)
{
    struct json_place here = {.up = place, .name = "access"};
    cleanup_free char *text = NULL;
    int rc = json_member_string(place, object, "access", &text, err);

    *access = CONTAINER_DEVICE_ALL;
    if (rc || !text || !*text)
        return rc;
    *access = 0;
    for (const char *c = text; *c; c++) {
        const char *known = strchr("rwm", *c);

        if (!known)
            return json_place_error(&here, err, "'%s' is not made of r (read), w (write) and m (make a node)",
                                    text);
        *access |= 1u << (known - "rwm");
    }
    return 0;
}

static int read_device(const struct json_place *place, const json_t *object, void *out, struct error **err)
{
    static const struct number_field numbers[] = {{"major", 0, -1, UINT32_MAX}, {"minor", 0, -1, UINT32_MAX}};
    struct container_device_rule *rule = out;
    struct container_value major = {0}, minor = {0};
    bool set = false;
    int rc = json_member_boolean(place, object, "allow", &set, &rule->allow, err);

    rc = rc ? rc : must_have(place, "allow", set, err);
    rc = rc ? rc : read_device_type(place, object, &rule->type, err);
    rc = rc ? rc : read_device_access(place, object, &rule->access, err);
    rc = rc ? rc : read_numbers(place, object, &numbers[0], 1, &major, err);
    rc = rc ? rc : read_numbers(place, object, &numbers[1], 1, &minor, err);
    rule->major = major.set ? major.value : CONTAINER_DEVICE_ANY;
    rule->minor = minor.set ? minor.value : CONTAINER_DEVICE_ANY;
    return rc;
}

/* ---- memory and processors ---- */

static int read_memory(const struct json_place *top, const json_t *resources, struct container_memory *memory,
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
    struct json_place here = {.up = top, .name = "memory"};
    const json_t *object;
    bool set, value = false, hierarchy = true;
    int rc = json_member(top, resources, "memory", JSON_OBJECT, &object, err);

    if (rc || !object)
        return rc;
    rc = read_numbers(&here, object, fields, ARRAY_SIZE(fields), memory, err);
    rc = rc ? rc
            : json_member_boolean(&here, object, "disableOOMKiller", &memory->disable_oom_killer.set, &value,
                                  err);
    memory->disable_oom_killer.value = value;
    rc =
        rc ? rc
           : json_member_boolean(&here, object, "checkBeforeUpdate", &set, &memory->check_before_update, err);
    /* Kernels have no other way any more. */
    rc = rc ? rc : json_member_boolean(&here, object, "useHierarchy", &set, &hierarchy, err);
    if (rc)
        return rc;
    const struct container_value *limit = &memory->limit, *swap = &memory->swap;
    if (swap->set && swap->value > 0 && limit->set && limit->value > 0 && swap->value < limit->value) {
        struct json_place swap_place = {.up = &here, .name = "swap"};

        return json_place_error(&swap_place, err,
                                "%lld is less than memory.limit %lld: it is memory and swap together",
                                (long long)swap->value, (long long)limit->value);
    }
    return 0;
}

/* "0-3,7": the kernel tells whether such processors exist. */
static int read_set(const struct json_place *place, const json_t *object, const char *name, char **out,
                    struct error **err)
{
    struct json_place here = {.up = place, .name = name};
    int rc = json_member_string(place, object, name, out, err);

    if (rc || !*out)
        return rc;
    for (const char *c = *out; *c; c++)
        if (!isdigit((unsigned char)*c) && !strchr(",-", *c))
            return json_place_error(&here, err, "'%s' is no list of numbers and ranges as 0-3,7", *out);
    if (!**out) {
        free(*out);
        *out = NULL;
    }
    return 0;
}

static int read_cpu(const struct json_place *top, const json_t *resources, struct container_cpu *cpu,
                    struct error **err)
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
    struct json_place here = {.up = top, .name = "cpu"};
    const json_t *object;
    int rc = json_member(top, resources, "cpu", JSON_OBJECT, &object, err);

    if (rc || !object)
        return rc;
    rc = read_numbers(&here, object, fields, ARRAY_SIZE(fields), cpu, err);
    rc = rc ? rc : read_set(&here, object, "cpus", &cpu->cpus, err);
    return rc ? rc : read_set(&here, object, "mems", &cpu->mems, err);
}

/* ---- block devices ---- */

/* Major and minor number, which both must be there. */
static int read_block_device(const struct json_place *place, const json_t *object, uint32_t *major,
                             uint32_t *minor, struct error **err)
{
    static const struct number_field fields[] = {{"major", 0, 0, UINT32_MAX}, {"minor", 0, 0, UINT32_MAX}};
    uint32_t *const out[] = {major, minor};

    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        struct container_value value = {0};
        int rc = read_numbers(place, object, &fields[i], 1, &value, err);

        rc = rc ? rc : must_have(place, fields[i].name, value.set, err);
        if (rc)
            return rc;
        *out[i] = (uint32_t)value.value;
    }
    return 0;
}

static int check_weight(const struct json_place *place, const char *name, const struct container_value *value,
                        struct error **err)
{
    struct json_place here = {.up = place, .name = name};

    if (!value->set || value->value == 0 || (value->value >= 10 && value->value <= 1000))
        return 0;
    return json_place_error(&here, err, "%lld is not within 10..1000", (long long)value->value);
}

static int read_weights(const struct json_place *place, const json_t *object, struct container_value *weight,
                        struct container_value *leaf, struct error **err)
{
    static const struct number_field fields[] = {{"weight", 0, 0, UINT16_MAX},
                                                 {"leafWeight", 0, 0, UINT16_MAX}};
    int rc = read_numbers(place, object, &fields[0], 1, weight, err);

    rc = rc ? rc : check_weight(place, "weight", weight, err);
    rc = rc ? rc : read_numbers(place, object, &fields[1], 1, leaf, err);
    return rc ? rc : check_weight(place, "leafWeight", leaf, err);
}

static int read_block_weight(const struct json_place *place, const json_t *object, void *out,
                             struct error **err)
{
    struct container_block_weight *device = out;
    int rc = read_block_device(place, object, &device->major, &device->minor, err);

    return rc ? rc : read_weights(place, object, &device->weight, &device->leaf_weight, err);
}

static int read_block_limit(const struct json_place *place, const json_t *object, void *out,
                            struct error **err)
{
    static const struct number_field field = {"rate", 0, 0, INT64_MAX};
    struct container_block_limit *limit = out;
    struct container_value rate = {0};
    int rc = read_block_device(place, object, &limit->major, &limit->minor, err);

    rc = rc ? rc : read_numbers(place, object, &field, 1, &rate, err);
    rc = rc ? rc : must_have(place, "rate", rate.set, err);
    limit->rate = (uint64_t)rate.value;
    return rc;
}

static int read_block(const struct json_place *top, const json_t *resources, struct container_block_io *block,
                      struct error **err)
{
    static const char *const throttles[CONTAINER_THROTTLES] = {
        [CONTAINER_READ_BPS] = "throttleReadBpsDevice",
        [CONTAINER_WRITE_BPS] = "throttleWriteBpsDevice",
        [CONTAINER_READ_IOPS] = "throttleReadIOPSDevice",
        [CONTAINER_WRITE_IOPS] = "throttleWriteIOPSDevice",
    };
    struct json_place here = {.up = top, .name = "blockIO"};
    const json_t *object;
    int rc = json_member(top, resources, "blockIO", JSON_OBJECT, &object, err);

    if (rc || !object)
        return rc;
    rc = read_weights(&here, object, &block->weight, &block->leaf_weight, err);
    rc = rc ? rc
            : read_list(&here, object, "weightDevice", sizeof(*block->weights), read_block_weight,
                        (void **)&block->weights, &block->n_weights, err);
    for (int t = 0; rc == 0 && t < CONTAINER_THROTTLES; t++)
        rc = read_list(&here, object, throttles[t], sizeof(struct container_block_limit), read_block_limit,
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

static int read_hugepages(const struct json_place *place, const json_t *object, void *out, struct error **err)
{
    static const struct number_field field = {"limit", 0, 0, INT64_MAX};
    struct json_place here = {.up = place, .name = "pageSize"};
    struct container_hugepages *pages = out;
    struct container_value limit = {0};
    int rc = json_member_string(place, object, "pageSize", &pages->page_size, err);

    rc = rc ? rc : must_have(place, "pageSize", pages->page_size, err);
    rc = rc ? rc : read_numbers(place, object, &field, 1, &limit, err);
    rc = rc ? rc : must_have(place, "limit", limit.set, err);
    if (rc)
        return rc;
    if (!is_page_size(pages->page_size))
        return json_place_error(&here, err, "'%s' is no size as 64KB, 2MB or 1GB", pages->page_size);
    pages->limit = (uint64_t)limit.value;
    return 0;
}

static int read_pids(const struct json_place *top, const json_t *resources, struct container_value *pids,
                     struct error **err)
{
    static const struct number_field field = {"limit", 0, INT64_MIN, INT64_MAX};
    struct json_place here = {.up = top, .name = "pids"};
    const json_t *object;
    int rc = json_member(top, resources, "pids", JSON_OBJECT, &object, err);

    return rc || !object ? rc : read_numbers(&here, object, &field, 1, pids, err);
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

static int read_priority(const struct json_place *place, const json_t *object, void *out, struct error **err)
{
    static const struct number_field field = {"priority", 0, 0, UINT32_MAX};
    struct json_place here = {.up = place, .name = "name"};
    struct container_priority *priority = out;
    struct container_value value = {0};
    int rc = json_member_string(place, object, "name", &priority->interface, err);

    rc = rc ? rc : must_have(place, "name", priority->interface, err);
    rc = rc ? rc : read_numbers(place, object, &field, 1, &value, err);
    rc = rc ? rc : must_have(place, "priority", value.set, err);
    if (rc)
        return rc;
    if (!is_word(priority->interface))
        return json_place_error(&here, err, "no name of a network interface");
    priority->priority = (uint32_t)value.value;
    return 0;
}

static int read_network(const struct json_place *top, const json_t *resources,
                        struct container_resources *out, struct error **err)
{
    static const struct number_field field = {"classID", 0, 0, UINT32_MAX};
    struct json_place here = {.up = top, .name = "network"};
    const json_t *object;
    int rc = json_member(top, resources, "network", JSON_OBJECT, &object, err);

    if (rc || !object)
        return rc;
    rc = read_numbers(&here, object, &field, 1, &out->network_class, err);
    return rc ? rc
              : read_list(&here, object, "priorities", sizeof(*out->priorities), read_priority,
                          (void **)&out->priorities, &out->n_priorities, err);
}

/* ---- maps ---- */

/* The members of the object `name`, each by `read` into an array as read_list's. */
static int read_map(const struct json_place *top, const json_t *resources, const char *name, size_t size,
                    int (*read)(const struct json_place *, const char *, const json_t *, void *,
                                struct error **),
                    void **array, size_t *n, struct error **err)
{
    struct json_place here = {.up = top, .name = name};
    const json_t *object;
    int rc = json_member(top, resources, name, JSON_OBJECT, &object, err);

    if (rc || !object)
        return rc;
    if (json_object_size(object) > LIST_MAX)
        return json_place_error(&here, err, "%zu members, of which %d may be", json_object_size(object),
                                LIST_MAX);
    *array = calloc(json_object_size(object) + 1, size);
    if (!*array)
        return no_memory(err);
    for (void *i = json_object_iter((json_t *)(uintptr_t)object); i;
         i = json_object_iter_next((json_t *)(uintptr_t)object, i)) {
        struct json_place item = {.up = &here, .name = json_object_iter_key(i)};

        rc = read(&item, item.name, json_object_iter_value(i), (char *)*array + (*n)++ * size, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int read_rdma(const struct json_place *place, const char *name, const json_t *json, void *out,
                     struct error **err)
{
    static const struct number_field fields[] = {
        {"hcaHandles", offsetof(struct container_rdma, handles), 0, UINT32_MAX},
        {"hcaObjects", offsetof(struct container_rdma, objects), 0, UINT32_MAX},
    };
    struct container_rdma *rdma = out;

    if (!json_is_object(json))
        return json_place_mismatch(place, json, "an object", err);
    if (!is_word(name))
        return json_place_error(place, err, "no name of a device");
    rdma->device = strdup(name);
    return rdma->device ? read_numbers(place, json, fields, ARRAY_SIZE(fields), rdma, err) : no_memory(err);
}

static int read_unified(const struct json_place *place, const char *name, const json_t *json, void *out,
                        struct error **err)
{
    struct container_unified *unified = out;

    if (!json_is_string(json))
        return json_place_mismatch(place, json, "a string", err);
    if (!is_word(name) || strchr(name, '/') || name[0] == '.' || !strchr(name, '.'))
        return json_place_error(place, err, "no name of a file of cgroup v2, as memory.high");
    if (strlen(json_string_value(json)) != json_string_length(json))
        return json_place_error(place, err, "a zero byte in it");
    unified->file = strdup(name);
    unified->value = strdup(json_string_value(json));
    return unified->file && unified->value ? 0 : no_memory(err);
}

/* ---- all of it ---- */

int container_resources_parse(json_t *json, struct container_resources *out, struct error **err)
{
    struct container_resources r = {0};
    int rc;

    if (json && !json_is_null(json) && !json_is_object(json))
        return json_place_mismatch(&place_top, json, "an object", err);
    rc = read_list(&place_top, json, "devices", sizeof(*r.devices), read_device, (void **)&r.devices,
                   &r.n_devices, err);
    r.devices_set = r.devices;
    rc = rc ? rc : read_memory(&place_top, json, &r.memory, err);
    rc = rc ? rc : read_cpu(&place_top, json, &r.cpu, err);
    rc = rc ? rc : read_block(&place_top, json, &r.block, err);
    rc = rc ? rc
            : read_list(&place_top, json, "hugepageLimits", sizeof(*r.hugepages), read_hugepages,
                        (void **)&r.hugepages, &r.n_hugepages, err);
    rc = rc ? rc : read_pids(&place_top, json, &r.pids, err);
    rc = rc ? rc : read_network(&place_top, json, &r, err);
    rc =
        rc ? rc
           : read_map(&place_top, json, "rdma", sizeof(*r.rdma), read_rdma, (void **)&r.rdma, &r.n_rdma, err);
    rc = rc ? rc
            : read_map(&place_top, json, "unified", sizeof(*r.unified), read_unified, (void **)&r.unified,
                       &r.n_unified, err);
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
