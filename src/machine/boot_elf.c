/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reading and loading ELF executables. Called by the PVH and the Multiboot loader. No locks. */
#include "machine/boot_elf.h"

#include "base/bytes.h"
#include "base/error.h"
#include "machine/boot_priv.h"

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

bool elf_is(const uint8_t *data, size_t size)
{
    return size >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0;
}

int elf_open(struct elf_file *elf, const uint8_t *data, size_t size, struct error **err)
{
    struct elf_file e = {.data = data, .size = size};

    if (size < EI_NIDENT || !elf_is(data, size))
        return error_set(err, ENOEXEC, "not an ELF file");
    e.is_64bit = data[EI_CLASS] == ELFCLASS64;
    if ((!e.is_64bit && data[EI_CLASS] != ELFCLASS32) || data[EI_DATA] != ELFDATA2LSB)
        return error_set(err, ENOEXEC, "an ELF file of a class or byte order that is not x86's");
    if (size < (e.is_64bit ? sizeof(Elf64_Ehdr) : sizeof(Elf32_Ehdr)))
        return error_set(err, ENOEXEC, "cut short in its ELF header: fetch or build the file again");

    uint16_t type = get_le16(data + offsetof(Elf64_Ehdr, e_type));
    e.machine = get_le16(data + offsetof(Elf64_Ehdr, e_machine));
    if (e.is_64bit) {
        e.entry = get_le64(data + offsetof(Elf64_Ehdr, e_entry));
        e.ph_offset = get_le64(data + offsetof(Elf64_Ehdr, e_phoff));
        e.ph_size = get_le16(data + offsetof(Elf64_Ehdr, e_phentsize));
        e.ph_count = get_le16(data + offsetof(Elf64_Ehdr, e_phnum));
    } else {
        e.entry = get_le32(data + offsetof(Elf32_Ehdr, e_entry));
        e.ph_offset = get_le32(data + offsetof(Elf32_Ehdr, e_phoff));
        e.ph_size = get_le16(data + offsetof(Elf32_Ehdr, e_phentsize));
        e.ph_count = get_le16(data + offsetof(Elf32_Ehdr, e_phnum));
    }
    if (type != ET_EXEC && type != ET_DYN)
        return error_set(err, ENOEXEC, "an ELF file that is not linked to an executable (type %u)", type);
    if (e.machine != ELF_MACHINE_386 && e.machine != ELF_MACHINE_AMD64)
        return error_set(err, ENOEXEC, "an ELF file for another processor (machine %u)", e.machine);
    if (!e.ph_count || e.ph_size < (e.is_64bit ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
        return error_set(err, ENOEXEC, "an ELF file without program headers: nothing to load");
    if (e.ph_offset > size || (uint64_t)e.ph_count * e.ph_size > size - e.ph_offset)
        return error_set(err, ENOEXEC, "cut short in its program headers: fetch or build the file again");
    *elf = e;
    return 0;
}

void elf_segment_get(const struct elf_file *elf, unsigned index, struct elf_segment *s)
{
    const uint8_t *p = elf->data + elf->ph_offset + (size_t)index * elf->ph_size;

    s->type = get_le32(p);
    if (elf->is_64bit) {
        s->offset = get_le64(p + offsetof(Elf64_Phdr, p_offset));
        s->vaddr = get_le64(p + offsetof(Elf64_Phdr, p_vaddr));
        s->paddr = get_le64(p + offsetof(Elf64_Phdr, p_paddr));
        s->file_size = get_le64(p + offsetof(Elf64_Phdr, p_filesz));
        s->memory_size = get_le64(p + offsetof(Elf64_Phdr, p_memsz));
        s->align = get_le64(p + offsetof(Elf64_Phdr, p_align));
    } else {
        s->offset = get_le32(p + offsetof(Elf32_Phdr, p_offset));
        s->vaddr = get_le32(p + offsetof(Elf32_Phdr, p_vaddr));
        s->paddr = get_le32(p + offsetof(Elf32_Phdr, p_paddr));
        s->file_size = get_le32(p + offsetof(Elf32_Phdr, p_filesz));
        s->memory_size = get_le32(p + offsetof(Elf32_Phdr, p_memsz));
        s->align = get_le32(p + offsetof(Elf32_Phdr, p_align));
    }
}

static int check_segments(const struct elf_file *elf, const struct guest_memory *memory, struct error **err)
{
    struct elf_segment s;
    unsigned loadable = 0;

    for (unsigned i = 0; i < elf->ph_count; i++) {
        char what[32];

        elf_segment_get(elf, i, &s);
        if (s.type != ELF_PT_LOAD || !s.memory_size)
            continue;
        loadable++;
        snprintf(what, sizeof(what), "segment %u", i);
        if (s.file_size > s.memory_size)
            return error_set(err, ENOEXEC, "%s is larger in the file than in memory: the file is damaged",
                             what);
        if (s.offset > elf->size || s.file_size > elf->size - s.offset)
            return error_set(err, ENOEXEC, "cut short in %s: fetch or build the file again", what);
        int rc = boot_check_range(memory, s.paddr, s.memory_size, what, err);
        if (rc)
            return rc;
    }
    if (!loadable)
        return error_set(err, ENOEXEC, "an ELF file without a loadable segment");
    return 0;
}

int elf_load(const struct elf_file *elf, struct guest_memory *memory, uint64_t *end, uint64_t *entry_gpa,
             struct error **err)
{
    struct elf_segment s;
    uint64_t last = 0, entry = elf->entry;
    bool entry_found = false;
    int rc = check_segments(elf, memory, err);

    if (rc)
        return rc;
    for (unsigned i = 0; i < elf->ph_count; i++) {
        elf_segment_get(elf, i, &s);
        if (s.type != ELF_PT_LOAD || !s.memory_size)
            continue;
        uint8_t *to = guest_memory_at(memory, s.paddr, s.memory_size);
        memcpy(to, elf->data + s.offset, s.file_size);
        memset(to + s.file_size, 0, s.memory_size - s.file_size);
        guest_memory_mark_written(memory, s.paddr, s.memory_size);
        if (s.paddr + s.memory_size > last)
            last = s.paddr + s.memory_size;
        /* Kernels that are linked high give a virtual entry address; many give the physical one. */
        if (!entry_found && elf->entry - s.vaddr < s.memory_size) {
            entry = elf->entry - s.vaddr + s.paddr;
            entry_found = true;
        }
    }
    if (entry_gpa) {
        if (!elf_covers(elf, entry))
            return error_set(err, ENOEXEC,
                             "its entry point 0x%llx is in no loaded segment: the file is damaged",
                             (unsigned long long)elf->entry);
        *entry_gpa = entry;
    }
    *end = last;
    return 0;
}

bool elf_covers(const struct elf_file *elf, uint64_t gpa)
{
    struct elf_segment s;

    for (unsigned i = 0; i < elf->ph_count; i++) {
        elf_segment_get(elf, i, &s);
        if (s.type == ELF_PT_LOAD && gpa - s.paddr < s.memory_size)
            return true;
    }
    return false;
}
