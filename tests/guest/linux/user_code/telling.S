/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Instructions that tell of the processor, in pages without anything else: an engine that executes code directly
 * may have to leave whole pages with them to a translator.
 */
    .text
    .p2align 12
    .globl ask_cpuid, read_xcr0, save_state, restore_state, read_pid
    .type ask_cpuid, @function
    .type read_xcr0, @function
    .type save_state, @function
    .type restore_state, @function
    .type read_pid, @function

/* void ask_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]) */
ask_cpuid:
    push %rbx
    mov %rdx, %r8
    mov %edi, %eax
    mov %esi, %ecx
    cpuid
    mov %eax, (%r8)
    mov %ebx, 4(%r8)
    mov %ecx, 8(%r8)
    mov %edx, 12(%r8)
    pop %rbx
    ret

/* uint64_t read_xcr0(void) */
read_xcr0:
    xor %ecx, %ecx
    xgetbv
    shl $32, %rdx
    or %rdx, %rax
    ret

/* void save_state(void *area, int how): all that there is; XSAVE, XSAVEOPT, XSAVEC */
save_state:
    mov $-1, %eax
    mov $-1, %edx
    cmp $1, %esi
    je 1f
    ja 2f
    xsave64 (%rdi)
    ret
1:  xsaveopt64 (%rdi)
    ret
2:  xsavec64 (%rdi)
    ret

/* void restore_state(const void *area) */
restore_state:
    mov $-1, %eax
    mov $-1, %edx
    xrstor64 (%rdi)
    ret

/* uint64_t read_pid(void) */
read_pid:
    rdpid %rax
    ret
    .p2align 12
    .section .note.GNU-stack, "", @progbits
