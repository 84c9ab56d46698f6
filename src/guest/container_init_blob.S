/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The program container_init.c, as bytes. */
    .section .rodata
    .global guest_container_init, guest_container_init_end
    .balign 16
guest_container_init:
    .incbin INIT
guest_container_init_end:
    .section .note.GNU-stack, "", %progbits
