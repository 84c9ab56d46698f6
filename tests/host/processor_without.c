/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Linked into a tabique of its own (--wrap): the host's processor lacks what TABIQUE_WITHOUT names, as the
 * engines see it. What it has it still executes; so what is tested is that nobody relies on it.
 */
#include "base/bytes.h"
#include "host/processor.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>

/* The linker's names for what it puts these in the place of. */
void __real_processor_leaf(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
void __wrap_processor_leaf(uint32_t leaf, uint32_t subleaf, uint32_t out[4]);
uint64_t __real_processor_xcr0(void);
uint64_t __wrap_processor_xcr0(void);

static const struct {
    const char *name;
    uint32_t leaf, reg, bits;
} features[] = {
    {"xsave", 1, 2, 1u << 12 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 29}, /* and what needs it */
    {"avx", 1, 2, 1u << 12 | 1u << 28 | 1u << 29},
    {"fsgsbase", 7, 1, 1u << 0},
    {"bmi2", 7, 1, 1u << 8},
};

static const char *without;

/* A VM process has no environment any more. */
__attribute__((constructor)) static void read_environment(void)
{
    const char *name = getenv("TABIQUE_WITHOUT");

    without = name ? strdup(name) : NULL;
    if (!without)
        errx(1, "TABIQUE_WITHOUT is not set");
}

void __wrap_processor_leaf(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __real_processor_leaf(leaf, subleaf, out);
    for (size_t i = 0; i < ARRAY_SIZE(features); i++)
        if (strcmp(without, features[i].name) == 0 && features[i].leaf == leaf && !subleaf)
            out[features[i].reg] &= ~features[i].bits;
}

uint64_t __wrap_processor_xcr0(void)
{
    return strcmp(without, "xsave") == 0 ? 0 : __real_processor_xcr0();
}
