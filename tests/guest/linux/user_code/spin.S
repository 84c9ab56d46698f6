/* SPDX-License-Identifier: GPL-2.0-or-later */
/* void spin(const struct registers *in, struct registers *out, uint64_t count): user_code.h. */

/* All of struct registers at RDI, but for RDI itself and what is beside registers. */
    .macro general what
    \what rax, 512
    \what rbx, 520
    \what rdx, 528
    \what rsi, 536
    \what rbp, 552
    \what r8, 560
    \what r9, 568
    \what r10, 576
    \what r11, 584
    \what r12, 592
    \what r13, 600
    \what r14, 608
    \what r15, 616
    .endm
    .macro load register, at
    mov \at(%rdi), %\register
    .endm
    .macro store register, at
    mov %\register, \at(%rdi)
    .endm

    .macro vectors what
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    \what \n
    .endr
    .endm
    .macro load_ymm n
    vmovdqu \n * 32(%rdi), %ymm\n
    .endm
    .macro store_ymm n
    vmovdqu %ymm\n, \n * 32(%rdi)
    .endm
    .macro load_xmm n
    movdqu \n * 32(%rdi), %xmm\n
    .endm
    .macro store_xmm n
    movdqu %xmm\n, \n * 32(%rdi)
    .endm

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
    vectors load_ymm
    jmp 2f
1:  vectors load_xmm
2:  general load
    btq $0, 624(%rdi)
    mov 544(%rdi), %rdi
3:  dec %rcx
    jnz 3b
    /* The stack below is ours: what is there is what the handlers leave. */
    pushfq
    push %rdi
    mov 16(%rsp), %rdi
    general store
    pop %rax
    mov %rax, 544(%rdi)
    pop %rax
    and $1, %eax
    mov %rax, 624(%rdi)
    cmpq $0, 632(%rdi)
    je 4f
    vectors store_ymm
    vzeroupper
    jmp 5f
4:  vectors store_xmm
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
