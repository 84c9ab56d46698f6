/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where an application processor begins after its SIPI: real mode at a page below 1 MiB, to which smp.c has
 * copied this code. Goes on to long mode and calls smp_ap_main on the stack in ap_stack_top.
 */
    .section .rodata
    .code16
    .globl ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl ap_gdt_pointer - ap_trampoline
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $ap_start32
    .balign 8
ap_gdt:
    .quad 0
    .quad 0x00cf9a000000ffff        /* 32-bit code */
    .quad 0x00cf92000000ffff        /* data */
ap_gdt_pointer:
    .word . - ap_gdt - 1
    .long ap_gdt
ap_trampoline_end:

    .section .boot.text, "ax"
    .code32
ap_start32:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl ap_stack_top, %esp
    call enter_long_mode
    .code64
    xorl %ebp, %ebp
    call smp_ap_main
1:  cli
    hlt
    jmp 1b

    .section .note.GNU-stack, "", @progbits
