# SPDX-License-Identifier: GPL-2.0-or-later
"""The checks of the tree find what they are there to find."""
import shutil
import subprocess

import pytest

from program import TREE

LINE = "/* SPDX-License-Identifier: GPL-2.0-or-later */\n"


@pytest.fixture
def tree(tmp_path):
    """A small tree that all checks like."""
    files = {
        "src/base/a.h": "", "src/host/b.h": '#include "base/a.h"\n', "src/host/b_priv.h": '#include "host/b.h"\n',
        "src/host/b.c": '#include "host/b_priv.h"\n', "src/engine/e.h": '#include "host/b.h"\n',
        "src/image/i.c": '#include "disk/d.h"\n', "src/disk/d.h": "",
    }
    for name, text in files.items():
        write(tmp_path, name, LINE + text)
    (tmp_path / "tools").mkdir()
    for name in ("check-layers", "check-style"):
        shutil.copy(TREE / "tools" / name, tmp_path / "tools")
    return tmp_path


def write(tree, name, text):
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def check(tree, name, *args):
    return subprocess.run([str(tree / "tools" / name), *args], capture_output=True, text=True, check=False)


def test_a_good_tree_passes(tree):
    assert check(tree, "check-layers").returncode == 0
    for what in ("spdx", "size"):
        assert check(tree, "check-style", what).returncode == 0


@pytest.mark.parametrize("name, include, message", [
    ("src/base/a.h", "host/b.h", "upward"),
    ("src/disk/d.h", "net/n.h", "sideways"),
    ("src/engine/e.h", "host/b_priv.h", "private"),
    ("src/host/b.h", "host/b_priv.h", "cycle"),
    ("src/misc/m.c", "base/a.h", "not in the order"),
    ("src/engine/e.h", "b.h", "no such file"),
])
def test_layers(tree, name, include, message):
    write(tree, "src/net/n.h", LINE)
    write(tree, name, LINE + f'#include "{include}"\n')
    result = check(tree, "check-layers")
    assert result.returncode == 1
    assert message in result.stdout and name.removeprefix("src/") in result.stdout


def test_spdx(tree):
    write(tree, "src/base/new.c", "int x;\n" + LINE)
    result = check(tree, "check-style", "spdx")
    assert result.returncode == 1
    assert "src/base/new.c: does not begin" in result.stdout


def test_size(tree):
    write(tree, "src/base/new.c", LINE * 801)
    result = check(tree, "check-style", "size")
    assert result.returncode == 1
    assert "src/base/new.c: 801 lines" in result.stdout
