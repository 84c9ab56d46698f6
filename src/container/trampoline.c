/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Builds the program of trampoline.S: an ELF file of one segment, which the kernel maps at a fixed address,
 * so that the pointers in it can be written here.
 *
 *     ADDRESS  ELF header, program header, code, struct parameters, program's path, label, filter
 */
#include "container/trampoline.h"

#include "base/bytes.h"
#include "base/cleanup.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#define ADDRESS UINT64_C(0x10000000)

extern const unsigned char trampoline_code[], trampoline_code_end[];

/* As the code reads it. */
struct parameters {
    int32_t label_fd, error_fd;
    uint64_t program;
    uint64_t label, label_size;
    uint64_t filter, filter_flags;
    /* struct sock_fprog, which `filter` points to */
    uint16_t filter_length;
    uint64_t filter_code;
};

static void fill_headers(unsigned char *image, size_t size)
{
    Elf64_Ehdr header = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = ADDRESS + sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr),
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 2,
    };
    Elf64_Phdr program[2] = {{
                                 .p_type = PT_LOAD,
                                 .p_flags = PF_R | PF_X,
                                 .p_vaddr = ADDRESS,
                                 .p_filesz = size,
                                 .p_memsz = size,
                                 .p_align = 4096,
                             },
                             /* No executable stack. */
                             {.p_type = PT_GNU_STACK, .p_flags = PF_R | PF_W}};

    memcpy(image, &header, sizeof(header));
    memcpy(image + sizeof(header), program, sizeof(program));
}

static unsigned char *build(const struct trampoline *t, size_t *out_size)
{
    size_t code = (size_t)(trampoline_code_end - trampoline_code);
    size_t at_parameters = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr) + code;
    size_t at_filter = ALIGN_UP(at_parameters + sizeof(struct parameters), 16);
    size_t filter_size = t->filter ? t->filter->len * sizeof(struct sock_filter) : 0;
    size_t at_program = at_filter + filter_size, at_label = at_program + strlen(t->program) + 1;
    size_t size = at_label + (t->label ? strlen(t->label) + 1 : 0);
    unsigned char *image = calloc(1, size);
    struct parameters p = {
        .label_fd = t->label ? t->label_fd : -1,
        .error_fd = t->error_fd,
        .program = ADDRESS + at_program,
        .label = ADDRESS + at_label,
        .label_size = t->label ? strlen(t->label) : 0,
        .filter = t->filter ? ADDRESS + at_parameters + offsetof(struct parameters, filter_length) : 0,
        .filter_flags = t->filter_flags,
        .filter_length = t->filter ? t->filter->len : 0,
        .filter_code = ADDRESS + at_filter,
    };

    if (!image)
        return NULL;
    fill_headers(image, size);
    memcpy(image + at_parameters - code, trampoline_code, code);
    memcpy(image + at_parameters, &p, sizeof(p));
    if (filter_size)
        memcpy(image + at_filter, t->filter->filter, filter_size);
    strcpy((char *)image + at_program, t->program);
    if (t->label)
        strcpy((char *)image + at_label, t->label);
    *out_size = size;
    return image;
}

int trampoline_make(const struct trampoline *t)
{
    size_t size;
    cleanup_free unsigned char *image = build(t, &size);
    /* Linux 6.3 wants to be told that it will be executed; earlier ones don't know the flag. */
    cleanup_close int fd = memfd_create("tabique", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);

    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("tabique", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || !image)
        return image ? -errno : -ENOMEM;
    if (write(fd, image, size) != (ssize_t)size)
        return errno ? -errno : -EIO;
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    return steal_fd(fd);
}

int trampoline_execute(int fd, const struct trampoline *t)
{
    char path[40];

    syscall(SYS_execveat, fd, "", t->argv, t->envp, AT_EMPTY_PATH);
    int errnum = errno;
    /* A profile may know execve alone. */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    execve(path, (char *const *)t->argv, (char *const *)t->envp);
    return -errnum;
}
