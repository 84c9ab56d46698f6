/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Into and out of a native execution. In: rt_sigreturn(2) on a signal frame that holds the whole state.
 * Out: whatever signal ends it, on the alternate stack, from which we jump back to the caller of
 * diff_native_enter.
 *
 * No thread-local storage may be touched between the two: FS belongs to the test.
 */
    .text

/*
 * void *diff_native_enter(void *frame, const struct diff_state *in): the frame is a kernel ucontext; NULL
 * raises #UD at once. Returns the ucontext of the signal that ended it, which lies on the alternate stack.
 * Offsets into struct diff_state are checked in native.c.
 */
    .globl diff_native_enter
diff_native_enter:
    pushq %rbx
    pushq %rbp
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, host_rsp(%rip)
    rdfsbase %rax
    movq %rax, host_fs(%rip)
    rdgsbase %rax
    movq %rax, host_gs(%rip)
    testq %rdi, %rdi
    jz 1f
    movw 160(%rsi), %es
    movw 166(%rsi), %ds
    movw 168(%rsi), %fs
    movw 170(%rsi), %gs
    movq 144(%rsi), %rax
    wrfsbase %rax
    movq 152(%rsi), %rax
    wrgsbase %rax
1:  movl $1, diff_native_active(%rip)
    testq %rdi, %rdi
    jz 2f
    movq %rdi, %rsp
    movl $15, %eax
    syscall
    .globl diff_native_bad_frame
diff_native_bad_frame:
2:  ud2

/* The handler of every signal that an instruction can raise: (signo, info, ucontext). */
    .globl diff_native_signal
diff_native_signal:
    cmpl $0, diff_native_active(%rip)
    je 3f
    movl %edi, diff_native_signo(%rip)
    movw %es, diff_native_segs(%rip)
    movw %ds, diff_native_segs+2(%rip)
    movw %fs, diff_native_segs+4(%rip)
    movw %gs, diff_native_segs+6(%rip)
    rdfsbase %rax
    movq %rax, diff_native_bases(%rip)
    rdgsbase %rax
    movq %rax, diff_native_bases+8(%rip)
    xorl %eax, %eax
    movl %eax, %es
    movl %eax, %ds
    movl %eax, %fs
    movl %eax, %gs
    movq host_fs(%rip), %rax
    wrfsbase %rax
    movq host_gs(%rip), %rax
    wrgsbase %rax
    movl $0, diff_native_active(%rip)
    movq host_rsp(%rip), %rsp
    pushq $2                        /* AC, NT, ID: not ours */
    popfq
    movq %rdx, %rax
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbp
    popq %rbx
    ret
/* A signal of the other side, or of the program itself: who handled it before does. */
3:  leaq diff_native_chain(%rip), %rax
    movslq %edi, %rcx
    movq (%rax,%rcx,8), %rax
    jmp *%rax

    .globl diff_native_restorer
diff_native_restorer:
    movl $15, %eax
    syscall

    .bss
    .balign 8
host_rsp: .skip 8
host_fs: .skip 8
host_gs: .skip 8
    .globl diff_native_bases, diff_native_segs, diff_native_active, diff_native_signo
diff_native_bases: .skip 16
diff_native_segs: .skip 8
diff_native_active: .skip 4
diff_native_signo: .skip 4

    .section .note.GNU-stack, "", @progbits
