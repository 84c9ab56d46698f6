# SPDX-License-Identifier: GPL-2.0-or-later
"""Small firmware images: real-mode code that begins at the reset vector, and leaves through the debug-exit port. Used by
the end-to-end tests and the nested ones."""


def assemble(code, size=64 << 10):
    """A flat image whose reset vector jumps to `code` at its beginning's offset in F000 (real mode)."""
    image = bytearray(b"\xf4" * size)
    image[-0x10000:-0x10000 + len(code)] = code
    image[-16:-11] = b"\xea\x00\x00\x00\xf0"  # jmp F000:0000
    return bytes(image)


# mov dx, 0xF4; mov al, VALUE; out dx, al; hlt
LEAVE = b"\xba\xf4\x00\xb0%c\xee\xf4"


# With a flat DS in real mode ("unreal"): RAM at 0xFFE00 changes, and ROM at 0xFFFFFE00 does not, by a plain store or
# by a locked one. AL is then RAM's byte, AH ROM's (0xF4, the filling).
STORE_TO_ROM = bytes.fromhex(
    "fa 2e660f01164800"              # cli; lgdt cs:[0x48]
    "0f20c0 0c01 0f22c0"             # protected mode on
    "bb0800 8edb"                    # ds: the flat segment
    "24fe 0f22c0"                    # protected mode off
    "66bb00fe0f00 67c60377 678a03"   # ebx = 0xffe00; byte [ebx] = 0x77; al = [ebx]
    "66bb00feffff 67c60377"          # ebx = 0xfffffe00; byte [ebx] = 0x77
    "67f00003 678a23"                # lock add [ebx], al; ah = [ebx]
    "3d77f4 b015 7402 b001"          # al = ax == 0xf477 ? 0x15 : 1
    "baf400 ee f4 6690"              # out 0xf4, al; hlt
    "0f00 50000f00 6690"             # 0x48: the table's limit and address
    "0000000000000000 ffff000000 92cf00")

# The first time through it marks memory that no reset clears (the clock's), and resets by port 0xCF9.
RESET_ONCE = bytes.fromhex(
    "b070 e670 e471"         # al = the clock's register 0x70
    "3c5a b015 740b"         # is it 0x5a? then leave with 0x15
    "b05a e671"
    "baf90c b006 ee f4"      # out 0xcf9, 6; hlt
    "baf400 ee f4")          # out 0xf4, al; hlt
