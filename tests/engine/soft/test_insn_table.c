/* SPDX-License-Identifier: GPL-2.0-or-later */
/* src/engine/soft/insn_table.c: rows are found by Zydis's mnemonics, and each of them makes sense. */
#include "engine/soft/insn.h"

#include <Zydis/Mnemonic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <strings.h>

#include <cmocka.h>

static void rows_have_the_name_of_their_mnemonic(void **state)
{
    unsigned rows = 0;

    for (unsigned m = 0; m <= ZYDIS_MNEMONIC_MAX_VALUE; m++) {
        const struct soft_insn_row *row = soft_insn_find((uint16_t)m);

        if (!row)
            continue;
        rows++;
        assert_int_equal(row->mnemonic, m);
        const char *name = ZydisMnemonicGetString((ZydisMnemonic)m);
        assert_non_null(name);
        assert_int_equal(strcasecmp(name, row->name), 0);
        assert_int_equal(row->handler == NULL, (row->flags & INSN_NOP) != 0);
        /* What jumps says where to; a flag that the block ends would be the same twice. */
        if (row->flags & INSN_JUMPS)
            assert_int_equal(row->flags & INSN_END, 0);
    }
    assert_in_range(rows, 150, 400);
}

static void the_rest_is_not_found(void **state)
{
    assert_null(soft_insn_find(ZYDIS_MNEMONIC_ADD));
    assert_null(soft_insn_find(ZYDIS_MNEMONIC_VADDPS));
    assert_null(soft_insn_find(ZYDIS_MNEMONIC_MAX_VALUE + 1));
    assert_null(soft_insn_find(UINT16_MAX));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_have_the_name_of_their_mnemonic),
        cmocka_unit_test(the_rest_is_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
