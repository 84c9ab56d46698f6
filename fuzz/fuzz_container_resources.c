/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `linux.resources` of any JSON text. What is taken must be safe in file names and in lines for the kernel;
 * what is not must be told with its place. */
#include "base/error.h"
#include "container/resources.h"
#include "require.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_line_word(const char *text)
{
    return *text && !strpbrk(text, " \t\n/") && strlen(text) < 256;
}

static void check(const struct container_resources *r)
{
    for (size_t i = 0; i < r->n_devices; i++)
        REQUIRE(strchr("abc", r->devices[i].type) && r->devices[i].access <= CONTAINER_DEVICE_ALL &&
                r->devices[i].major >= -1 && r->devices[i].minor >= -1);
    for (size_t i = 0; i < r->n_hugepages; i++)
        REQUIRE(is_line_word(r->hugepages[i].page_size));
    for (size_t i = 0; i < r->n_rdma; i++)
        REQUIRE(*r->rdma[i].device && !strpbrk(r->rdma[i].device, " \n"));
    for (size_t i = 0; i < r->n_priorities; i++)
        REQUIRE(*r->priorities[i].interface && !strpbrk(r->priorities[i].interface, " \n"));
    for (size_t i = 0; i < r->n_unified; i++)
        REQUIRE(is_line_word(r->unified[i].file) && r->unified[i].file[0] != '.');
    REQUIRE(!r->cpu.cpus || strspn(r->cpu.cpus, "0123456789,-") == strlen(r->cpu.cpus));
    REQUIRE(!r->memory.limit.set || r->memory.limit.value >= -1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct container_resources r;
    struct error *err = NULL;
    json_t *json = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);

    if (!json)
        return 0;
    if (container_resources_parse(json, &r, &err) == 0) {
        json_decref(json);
        REQUIRE(!err);
        check(&r);
        container_resources_free(&r);
        return 0;
    }
    json_decref(json);
    REQUIRE(err && strncmp(error_message(err), "linux.resources", 15) == 0);
    error_free(err);
    return 0;
}
