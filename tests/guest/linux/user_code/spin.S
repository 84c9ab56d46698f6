/* SPDX-License-Identifier: GPL-2.0-or-later */
/* void spin(const struct registers *in, struct registers *out, uint64_t count): user_code.h. */
    .text
    .p2align 12 /* no neighbours: telling.S */
    .globl spin, compute
    .type spin, @function
spin:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    push %rsi
    mov %rdx, %rcx
    cmpq $0, 632(%rdi)
    je 1f
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovdqu \n * 32(%rdi), %ymm\n
    .endr
    jmp 2f
1:  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movdqu \n * 32(%rdi), %xmm\n
    .endr
2:  mov 520(%rdi), %rbx
    mov 528(%rdi), %rdx
    mov 536(%rdi), %rsi
    mov 552(%rdi), %rbp
    mov 560(%rdi), %r8
    mov 568(%rdi), %r9
    mov 576(%rdi), %r10
    mov 584(%rdi), %r11
    mov 592(%rdi), %r12
    mov 600(%rdi), %r13
    mov 608(%rdi), %r14
    mov 616(%rdi), %r15
    mov 512(%rdi), %rax
    btq $0, 624(%rdi)
    mov 544(%rdi), %rdi
3:  dec %rcx
    jnz 3b
    /* The stack below is ours: what is there is what the handlers leave. */
    pushfq
    push %rdi
    mov 16(%rsp), %rdi
    mov %rax, 512(%rdi)
    mov %rbx, 520(%rdi)
    mov %rdx, 528(%rdi)
    mov %rsi, 536(%rdi)
    mov %rbp, 552(%rdi)
    mov %r8, 560(%rdi)
    mov %r9, 568(%rdi)
    mov %r10, 576(%rdi)
    mov %r11, 584(%rdi)
    mov %r12, 592(%rdi)
    mov %r13, 600(%rdi)
    mov %r14, 608(%rdi)
    mov %r15, 616(%rdi)
    pop %rax
    mov %rax, 544(%rdi)
    pop %rax
    and $1, %eax
    mov %rax, 624(%rdi)
    cmpq $0, 632(%rdi)
    je 4f
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    vmovdqu %ymm\n, \n * 32(%rdi)
    .endr
    vzeroupper
    jmp 5f
4:  .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movdqu %xmm\n, \n * 32(%rdi)
    .endr
5:  pop %rsi
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .size spin, . - spin

/* uint64_t compute(uint64_t x, uint64_t rounds) */
    .type compute, @function
compute:
    mov %rdi, %rax
    mov $6364136223846793005, %rcx
    mov $1442695040888963407, %rdx
6:  imul %rcx, %rax
    add %rdx, %rax
    dec %rsi
    jnz 6b
    ret
    .size compute, . - compute
    .p2align 12
    .section .note.GNU-stack, "", @progbits
