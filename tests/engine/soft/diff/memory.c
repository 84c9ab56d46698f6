/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory that the two sides execute on, and the random numbers of the differential test. */
#include "diff.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>

/* Guest-physical: page tables and tables of the soft side's kernel lie below. */
#define DATA_GPA 0x100000ull
#define CODE_GPA 0x200000ull
#define RAM_SIZE 0x400000ull

int diff_memory_open(struct diff_memory *mem)
{
    cleanup_error struct error *err = NULL;
    int rc = guest_memory_create(&mem->ram, RAM_SIZE, &err);

    if (rc) {
        fprintf(stderr, "diff: %s\n", error_message(err));
        return rc;
    }
    mem->code_gpa = CODE_GPA;
    mem->data_gpa = DATA_GPA;
    mem->code = guest_memory_at(mem->ram, CODE_GPA, DIFF_GROUPS * DIFF_GROUP_CODE);
    mem->soft_data = guest_memory_at(mem->ram, DATA_GPA, DIFF_DATA_SIZE);
    memset(mem->code, DIFF_FILLER, DIFF_GROUPS * DIFF_GROUP_CODE);
    return 0;
}

int64_t diff_data_offset(uint64_t va, unsigned len)
{
    uint64_t base = va >= DIFF_HIGH ? DIFF_HIGH : DIFF_LOW;
    uint64_t page = (va - base) / DIFF_PAGE, last = (va + len - 1 - base) / DIFF_PAGE;

    if (va < base || page > 7 || last > 7)
        return -1;
    int first = diff_data_page(page), end = diff_data_page(last);
    if (first < 0 || end < 0 || end - first != (int)(last - page))
        return -1;
    return (int64_t)((uint64_t)first * DIFF_PAGE + va % DIFF_PAGE);
}

/* Weyl sequence with a mixing function. */
uint64_t diff_random(struct diff_random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
