/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Two files that the program carries: the init of initial RAM disks, and the script that builds a Debian. */
    .section .rodata
    .globl image_init_start, image_init_end, image_debian_script, image_debian_script_end
    .balign 16
image_init_start:
    .incbin INIT
image_init_end:
image_debian_script:
    .incbin SCRIPT
    .byte 0
image_debian_script_end:

    .section .note.GNU-stack, "", @progbits
