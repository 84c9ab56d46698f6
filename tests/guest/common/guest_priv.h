/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of the test guests' framework share among themselves. */
#ifndef TABIQUE_TESTS_GUEST_GUEST_PRIV_H
#define TABIQUE_TESTS_GUEST_GUEST_PRIV_H

#include "guest.h"

extern uint64_t guest_pml4[512];
extern uint32_t guest_boot_magic, guest_boot_pointer;
extern uint8_t guest_image_end[];

void guest_start(void);
void console_init(void);
void boot_info_init(void);
void page_init(void);
/* Loads GDT, TSS and IDT of CPU number `cpu`. */
void trap_init_cpu(unsigned cpu);
void trap_dispatch(struct trap_frame *frame);
void smp_ap_main(void);

void *memset(void *to, int value, size_t n);
void *memcpy(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);

#endif
