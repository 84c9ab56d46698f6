/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The processor's state after RESET. */
#include "engine/cpu_state.h"

#include "base/bytes.h"

#include <string.h>

void cpu_state_reset(struct cpu_state *s, bool bsp)
{
    memset(s, 0, sizeof(*s));
    s->rip = 0xfff0;
    s->rflags = 2;
    s->gpr[CPU_RDX] = 0x600; /* family 6; CPUID tells the rest */
    for (int i = 0; i < CPU_SEGMENTS; i++)
        s->seg[i] = (struct cpu_segment_state){.limit = 0xffff, .attr = CPU_ATTR_P | CPU_ATTR_S | 3};
    s->seg[CPU_CS].selector = 0xf000;
    s->seg[CPU_CS].base = 0xffff0000;
    s->seg[CPU_CS].attr = CPU_ATTR_P | CPU_ATTR_S | 0xb;
    s->ldtr = (struct cpu_segment_state){.limit = 0xffff, .attr = CPU_ATTR_P | 2};
    s->tr = (struct cpu_segment_state){.limit = 0xffff, .attr = CPU_ATTR_P | 0xb};
    s->gdt.limit = s->idt.limit = 0xffff;
    s->cr0 = 0x60000010;
    s->xcr0 = 1;
    s->dr[6] = 0xffff0ff0;
    s->dr[7] = 0x400;
    s->pat = 0x0007040600070406ull;
    s->apic_base = 0xfee00000u | (1u << 11) | (bsp ? 1u << 8 : 0);
    put_le16(s->xsave, 0x37f);       /* FCW */
    put_le32(s->xsave + 24, 0x1f80); /* MXCSR */
    s->wait_for_sipi = !bsp;
}
