/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The entry points of all 256 vectors, each 16 bytes apart, and the way into code whose faults are caught.
 * struct trap_frame in guest.h is what is pushed here.
 */
    .text
    .code64
    .balign 16
    .globl trap_entries
trap_entries:
    .set vector, 0
    .rept 256
    .balign 16
    /* #DF, #TS, #NP, #SS, #GP, #PF, #AC, #CP, #VC, #SX push an error code themselves. */
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    pushq $0
    .endif
    pushq $vector
    jmp trap_common
    .set vector, vector + 1
    .endr

trap_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    movq %rsp, %rbx
    andq $-16, %rsp
    call trap_dispatch
    movq %rbx, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq

/* int trap_catch_enter(struct trap_catch *slot, void (*fn)(void *), void *arg): see trap.c. */
    .globl trap_catch_enter
trap_catch_enter:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    subq $8, %rsp
    movq %rsp, (%rdi)
    movq %rsi, %rax
    movq %rdx, %rdi
    call *%rax
    xorl %eax, %eax
    jmp 1f
/* trap_dispatch resumes here with the stack of the slot when fn faulted. */
    .globl trap_catch_resume
trap_catch_resume:
    movl $1, %eax
1:  addq $8, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    cld
    ret

/* void trap_enter(const struct trap_start *start, uint64_t arg): never returns; leave by a trap that is caught. */
    .globl trap_enter
trap_enter:
    pushq 32(%rdi)                  /* SS */
    pushq 24(%rdi)
    pushq 16(%rdi)
    pushq 8(%rdi)
    pushq (%rdi)                    /* RIP */
    movq %rsi, %rdi
    iretq

    .section .note.GNU-stack, "", @progbits
