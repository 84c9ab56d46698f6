/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The last program before the container's own (trampoline.c): a few instructions in a sealed memory file, which write
 * a security module's label, enter the seccomp filter, and execute the program with their own arguments and
 * environment. So what "/proc/self/exe" means while the kernel looks for the program, its interpreter or a library is
 * this, and never the runtime's file on the host's disk. The parameters (struct parameters) follow the code.
 */
    .section .rodata
    .globl trampoline_code, trampoline_code_end
    .balign 16
trampoline_code:
    leaq parameters(%rip), %rbx
    movq (%rsp), %rcx               /* the number of arguments */
    leaq 8(%rsp), %r12              /* the arguments */
    leaq 8(%r12, %rcx, 8), %r13     /* behind their NULL: the environment */

    /* What tells of failure came through one execution, and is not to come through the next. */
    movslq 4(%rbx), %rdi
    movl $2, %esi                   /* F_SETFD */
    movl $1, %edx                   /* FD_CLOEXEC */
    movl $72, %eax                  /* fcntl */
    syscall
    testq %rax, %rax
    jns 5f
    movl $126, %edi
    cmpq $-9, %rax                  /* EBADF: it is closed, so this is the second execution. The program, or */
    je 4f                           /* its interpreter, is /proc/self/exe: that would go on for ever. */
    movslq 4(%rbx), %rdi
    movl $3, %eax                   /* close: the filter forbids the other */
    syscall
5:
    movslq 0(%rbx), %rdi            /* the label's file */
    testq %rdi, %rdi
    js 1f
    movq 16(%rbx), %rsi
    movq 24(%rbx), %rdx
    movl $1, %eax                   /* write */
    syscall
    testq %rax, %rax
    js 3f
    movslq 0(%rbx), %rdi
    movl $3, %eax                   /* close */
    syscall
1:
    movq 32(%rbx), %rdx             /* the filter */
    testq %rdx, %rdx
    jz 2f
    movl $1, %edi                   /* SECCOMP_SET_MODE_FILTER */
    movq 40(%rbx), %rsi
    movl $317, %eax                 /* seccomp */
    syscall
    testq %rax, %rax
    js 3f
2:
    movq 8(%rbx), %rdi              /* the program */
    movq %r12, %rsi
    movq %r13, %rdx
    movl $59, %eax                  /* execve */
    syscall
3:
    negq %rax
    pushq %rax
    movslq 4(%rbx), %rdi            /* who hears of it */
    movq %rsp, %rsi
    movl $8, %edx
    movl $1, %eax
    syscall
    movl $126, %edi
    cmpq $2, (%rsp)                 /* ENOENT */
    jne 4f
    movl $127, %edi
4:
    movl $231, %eax                 /* exit_group */
    syscall
    hlt
    .balign 16
parameters:
trampoline_code_end:
    .section .note.GNU-stack, "", @progbits
