/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first instructions of a test guest: from the 32-bit state that Multiboot and PVH both define (flat
 * segments, no paging) to long mode with the first 4 GiB mapped one to one. GUEST_MULTIBOOT chooses the header
 * that goes into the file; the default is the PVH note.
 */
#ifdef GUEST_MULTIBOOT
    .section .boot.header, "a"
    .balign 4
    .long 0x1badb002                /* magic */
    .long 0x00000003                /* page-aligned modules, memory information */
    .long -(0x1badb002 + 0x00000003)
#else
    .section .note.pvh, "a", @note
    .balign 4
    .long 4                         /* name size */
    .long 4                         /* descriptor size */
    .long 18                        /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long start32
#endif

    .section .boot.text, "ax"
    .code32
    .globl start32
start32:
    cld
    cli
    movl $boot_stack_top, %esp
    movl %eax, guest_boot_magic
    movl %ebx, guest_boot_pointer

    /* PML4[0] -> PDPT; PDPT[0..3] -> four page directories of 2 MiB pages. */
    movl $guest_pdpt + 0x7, guest_pml4
    movl $guest_pd + 0x7, %eax
    movl $guest_pdpt, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $0x1000, %eax
    addl $8, %edi
    loop 1b
    movl $0x83, %eax                /* present, writable, 2 MiB */
    movl $guest_pd, %edi
    movl $2048, %ecx
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b

    call enter_long_mode
    .code64
    xorl %ebp, %ebp
    call guest_start
3:  cli
    hlt
    jmp 3b

/*
 * From 32-bit protected mode without paging to 64-bit mode, on the stack of the caller (a 32-bit return
 * address). Shared with the application processors.
 */
    .code32
    .globl enter_long_mode
enter_long_mode:
    popl %esi
    movl %cr4, %eax
    orl $0x620, %eax                /* PAE, OSFXSR, OSXMMEXCPT */
    movl %eax, %cr4
    movl $guest_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx          /* EFER: SCE, LME, NXE */
    rdmsr
    orl $0x901, %eax
    wrmsr
    movl %cr0, %eax
    andl $~0x6000000c, %eax         /* caches on, no TS, no EM */
    orl $0x80010022, %eax           /* PG, WP, NE, MP */
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmpl $0x08, $4f
    .code64
4:  movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    movl %esi, %esi
    jmp *%rsi

    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9a000000ffff        /* 64-bit code */
    .quad 0x00cf92000000ffff        /* data */
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .long boot_gdt

    .bss
    .balign 4096
    .globl guest_pml4
guest_pml4: .skip 4096
guest_pdpt: .skip 4096
guest_pd:   .skip 4 * 4096
    .globl guest_boot_magic, guest_boot_pointer
guest_boot_magic:   .skip 4
guest_boot_pointer: .skip 4
    .balign 16
    .skip 65536
boot_stack_top:

    .section .note.GNU-stack, "", @progbits
