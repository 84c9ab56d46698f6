/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where boot loaders put things: the boot data area, a kernel's own ranges, modules. No locks. */
#include "machine/boot_priv.h"

#include "base/bytes.h"
#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void boot_area_init(struct boot_area *area, struct guest_memory *memory)
{
    *area = (struct boot_area){.memory = memory, .next = MAP_BOOT_DATA};
}

void *boot_area_alloc(struct boot_area *area, size_t size, size_t align, uint64_t *gpa, struct error **err)
{
    uint64_t at = ALIGN_UP(area->next, align);

    if (at > MAP_BOOT_DATA_END || size > MAP_BOOT_DATA_END - at) {
        error_set(err, E2BIG,
                  "boot data of more than %llu KiB: shorten the command lines or give fewer modules",
                  (unsigned long long)(MAP_BOOT_DATA_END - MAP_BOOT_DATA) >> 10);
        return NULL;
    }
    void *p = guest_memory_at(area->memory, at, size);
    if (!p) {
        error_set(err, ENOMEM, "no RAM for boot data: choose a larger --memory");
        return NULL;
    }
    memset(p, 0, size);
    guest_memory_mark_written(area->memory, at, size);
    area->next = at + size;
    *gpa = at;
    return p;
}

int boot_area_string(struct boot_area *area, const char *text, uint64_t *gpa, struct error **err)
{
    size_t n = strlen(text) + 1;
    char *p = boot_area_alloc(area, n, 1, gpa, err);

    if (!p)
        return -E2BIG;
    memcpy(p, text, n);
    return 0;
}

int boot_check_range(const struct guest_memory *memory, uint64_t gpa, uint64_t size, const char *what,
                     struct error **err)
{
    if (!guest_memory_at(memory, gpa, size))
        return error_set(err, ENOMEM,
                         "%s, 0x%llx bytes at 0x%llx, is outside of the %llu MiB of RAM: choose a larger "
                         "--memory",
                         what, (unsigned long long)size, (unsigned long long)gpa,
                         (unsigned long long)memory->size >> 20);
    bool below = gpa >= MAP_LOW_FREE && gpa + size <= MAP_BOOT_DATA;
    bool above = gpa >= MAP_HIGH_MEMORY;
    if (size && !below && !above)
        return error_set(
            err, EINVAL,
            "%s, 0x%llx bytes at 0x%llx, lies in low memory that the firmware and the boot data take "
            "(free: 0x%llx-0x%llx and from 0x%llx): link it elsewhere",
            what, (unsigned long long)size, (unsigned long long)gpa, MAP_LOW_FREE, MAP_BOOT_DATA - 1,
            MAP_HIGH_MEMORY);
    return 0;
}

int boot_all_modules(const struct boot_request *request, struct boot_file **files, size_t *n,
                     struct error **err)
{
    size_t count = request->n_modules + (request->initrd.data ? 1 : 0), at = 0;
    struct boot_file *all = calloc(count + 1, sizeof(*all));

    if (!all)
        return error_set_errno(err, ENOMEM, "list of modules");
    if (request->initrd.data)
        all[at++] = request->initrd;
    for (size_t i = 0; i < request->n_modules; i++)
        all[at++] = request->modules[i];
    *files = all;
    *n = count;
    return 0;
}

int boot_place_modules(const struct boot_request *request, uint64_t from, const struct boot_file *files,
                       size_t n, uint64_t *gpas, struct error **err)
{
    const struct guest_memory_block *low = &request->memory->blocks[0];
    uint64_t end = low->gpa + low->size, next = ALIGN_UP(from, GUEST_PAGE_SIZE);

    for (size_t i = 0; i < n; i++) {
        if (next > end || files[i].size > end - next)
            return error_set(
                err, ENOMEM,
                "'%s' of %zu KiB does not fit behind the kernel into %llu MiB of RAM below 4 GiB: choose a "
                "larger --memory",
                files[i].name, files[i].size >> 10, (unsigned long long)low->size >> 20);
        gpas[i] = next;
        next = ALIGN_UP(next + files[i].size, GUEST_PAGE_SIZE);
    }
    for (size_t i = 0; i < n; i++)
        guest_memory_write(request->memory, gpas[i], files[i].data, files[i].size);
    return 0;
}
