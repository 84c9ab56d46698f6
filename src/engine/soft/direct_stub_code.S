/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a stub executes that is not the guest's (direct_stub.h): copied into its first page, so addresses are
 * relative. Whatever is in writable memory there, the guest's code may have changed, if it has found it: so nothing
 * that is read from the exchange decides more than what that code could do with its own registers.
 */
#include "engine/soft/direct_stub_layout.h"

#define SYS_rt_sigreturn      15
#define SYS_prctl             157
#define SYS_arch_prctl        158
#define SYS_futex             202
#define SYS_sched_setaffinity 203
#define SYS_exit_group        231
#define SYS_seccomp           317
#define FUTEX_WAIT            0
#define FUTEX_WAKE            1
#define SECCOMP_SET_MODE_FILTER 1
#define PR_SET_TSC            26
#define ARCH_SET_GS           0x1001
#define ARCH_SET_FS           0x1002

/* Without a stack there is nothing to return to: so no function. */
    .macro futex word, operation, value
    leaq \word, %rdi
    movl $\operation, %esi
    movl \value, %edx
    xorl %r10d, %r10d
    movl $SYS_futex, %eax
    syscall
    .endm

    .section .rodata
    .globl direct_stub_code, direct_stub_code_end, direct_stub_begin, direct_stub_handler, direct_stub_mapper
    .globl direct_stub_after_wake, direct_stub_after_wait, direct_stub_after_set_fs, direct_stub_after_set_gs
    .globl direct_stub_after_move, direct_stub_after_return, direct_stub_after_end, direct_stub_after_tsc
    .balign 16
direct_stub_code:

/* The runner's last step, from where it may still call: %rdx is its filter. Then its first stop, before it has anything
 * of the guest's: by the breakpoint, unless it has no filter. */
direct_stub_begin:
    movl $SECCOMP_SET_MODE_FILTER, %edi
    xorl %esi, %esi
    movl $SYS_seccomp, %eax
    syscall
    testq %rax, %rax
    jz 1f
    ud2
1:
    int3

/*
 * A signal: the guest's code has stopped. %edi: which; %rdx: its context, on this stack. The leader is told, and when
 * it has changed the context the code goes on from there.
 */
direct_stub_handler:
    leaq direct_stub_code + STUB_EXCHANGE_AT(%rip), %rbx
    movq %rdx, %r12
    movq %rdx, STUB_CONTEXT(%rbx)
    movl %edi, STUB_SIGNAL(%rbx)
    movw %ds, STUB_DS(%rbx)
    movw %es, STUB_ES(%rbx)
    movw %fs, STUB_FS(%rbx)
    movw %gs, STUB_GS(%rbx)
    cmpl $0, STUB_HAS_BASES(%rbx)
    je 1f
    rdfsbase %rax
    movq %rax, STUB_FS_BASE(%rbx)
    rdgsbase %rax
    movq %rax, STUB_GS_BASE(%rbx)
1:
    movl $1, %eax
    xchgl %eax, STUB_TURN(%rbx)
    futex STUB_TURN(%rbx), FUTEX_WAKE, $1
direct_stub_after_wake:
2:
    cmpl $0, STUB_TURN(%rbx)
    je 3f
    futex STUB_TURN(%rbx), FUTEX_WAIT, $1
direct_stub_after_wait:
    jmp 2b
3:
    movl $1, STUB_BEGUN(%rbx)
    movl STUB_SET(%rbx), %r13d
    testl $STUB_SET_END, %r13d
    jz 4f
    xorl %edi, %edi
    movl $SYS_exit_group, %eax
    syscall
direct_stub_after_end:
4:
    testl $STUB_SET_PROCESSORS, %r13d
    jz 5f
    xorl %edi, %edi
    movl $STUB_FIRST - STUB_PROCESSORS, %esi
    leaq direct_stub_code + STUB_COMMANDS_AT + STUB_PROCESSORS(%rip), %rdx
    movl $SYS_sched_setaffinity, %eax
    syscall
direct_stub_after_move:
5:
    testl $STUB_SET_SEGMENTS, %r13d
    jz 6f
    movzwl STUB_DS(%rbx), %eax
    movl %eax, %ds
    movzwl STUB_ES(%rbx), %eax
    movl %eax, %es
6:
    testl $STUB_SET_FS_BASE, %r13d
    jz 7f
    movl $ARCH_SET_FS, %edi
    movq STUB_FS_BASE(%rbx), %rsi
    movl $SYS_arch_prctl, %eax
    syscall
direct_stub_after_set_fs:
7:
    testl $STUB_SET_GS_BASE, %r13d
    jz 8f
    movl $ARCH_SET_GS, %edi
    movq STUB_GS_BASE(%rbx), %rsi
    movl $SYS_arch_prctl, %eax
    syscall
direct_stub_after_set_gs:
8:
    testl $STUB_SET_TSC, %r13d
    jz 9f
    movl $PR_SET_TSC, %edi
    movl STUB_TSC(%rbx), %esi
    xorl %edx, %edx
    xorl %r10d, %r10d
    xorl %r8d, %r8d
    movl $SYS_prctl, %eax
    syscall
direct_stub_after_tsc:
9:
    movq %r12, %rsp
    movl $SYS_rt_sigreturn, %eax
    syscall
direct_stub_after_return:
    ud2

/*
 * The mapper: carries out lists of system calls, each up to the first that fails or to a negative number. It has no
 * stack, and decides by its registers and by the page of commands alone.
 */
direct_stub_mapper:
    leaq direct_stub_code + STUB_COMMANDS_AT(%rip), %rbx
    leaq direct_stub_code + STUB_EXCHANGE_AT(%rip), %rbp
    xorl %r12d, %r12d               /* the last list's number */
1:
    movl STUB_SEQUENCE(%rbx), %eax
    cmpl %r12d, %eax
    jne 2f
    futex STUB_SEQUENCE(%rbx), FUTEX_WAIT, %r12d
    jmp 1b
2:
    movl %eax, %r12d
    leaq STUB_FIRST(%rbx), %r13
3:
    movq (%r13), %rax
    testq %rax, %rax
    js 4f
    movq 8(%r13), %rdi
    movq 16(%r13), %rsi
    movq 24(%r13), %rdx
    movq 32(%r13), %r10
    movq 40(%r13), %r8
    movq 48(%r13), %r9
    syscall
    cmpq $-4095, %rax
    jae 4f
    addq $STUB_COMMAND, %r13
    jmp 3b
4:
    movq %rax, STUB_RESULT(%rbp)
    movl %r12d, %eax
    xchgl %eax, STUB_DONE(%rbp)
    futex STUB_DONE(%rbp), FUTEX_WAKE, $1
    jmp 1b
direct_stub_code_end:

    .section .note.GNU-stack, "", @progbits
