/* SPDX-License-Identifier: GPL-2.0-or-later */
/* madvise(2) on the executable segments of the program and its libraries. Called first thing. No state. */
#include "host/trim.h"

#include "base/bytes.h"

#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

static int trim_object(struct dl_phdr_info *info, size_t size, void *opaque)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t begin = ALIGN_DOWN(info->dlpi_addr + p->p_vaddr, page);
        uintptr_t end = ALIGN_UP(info->dlpi_addr + p->p_vaddr + p->p_memsz, page);

        /* Only what is the file's: what was written to would be lost. */
        if (p->p_type == PT_LOAD && p->p_flags & PF_X && !(p->p_flags & PF_W))
            madvise((void *)begin, end - begin, MADV_DONTNEED);
    }
    return 0;
}

void trim_code(void)
{
    dl_iterate_phdr(trim_object, NULL);
}
