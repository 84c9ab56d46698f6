/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bits of a page-table entry (SDM vol. 3A 4.5), for the walk (mmu.c) and its short form (fast.c). */
#ifndef TABIQUE_ENGINE_SOFT_PAGING_H
#define TABIQUE_ENGINE_SOFT_PAGING_H

#define PTE_P       (1ull << 0)
#define PTE_W       (1ull << 1)
#define PTE_U       (1ull << 2)
#define PTE_A       (1ull << 5)
#define PTE_D       (1ull << 6)
#define PTE_PS      (1ull << 7)
#define PTE_G       (1ull << 8)
#define PTE_NX      (1ull << 63)
#define PTE_ADDRESS 0x000ffffffffff000ull

#endif
