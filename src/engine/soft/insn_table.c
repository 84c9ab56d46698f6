/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of insn.def, by mnemonic. Called by the translator, once for each instruction that it meets. */
#include "engine/soft/handlers.h"

#include <Zydis/Mnemonic.h>
#include <stddef.h>

static const struct soft_insn_row rows[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
#define INSN(name_, handler_, flags_)                                                                        \
    [ZYDIS_MNEMONIC_##name_] = {                                                                             \
        .mnemonic = ZYDIS_MNEMONIC_##name_, .flags = (flags_), .handler = (handler_), .name = #name_},
#define INSN_HINT(name_)                                                                                     \
    [ZYDIS_MNEMONIC_##name_] = {.mnemonic = ZYDIS_MNEMONIC_##name_, .flags = INSN_NOP, .name = #name_},
#include "engine/soft/insn.def"
#undef INSN
#undef INSN_HINT
};

const struct soft_insn_row *soft_insn_find(uint16_t mnemonic)
{
    return mnemonic < sizeof(rows) / sizeof(rows[0]) && rows[mnemonic].name ? &rows[mnemonic] : NULL;
}
