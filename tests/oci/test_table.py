# SPDX-License-Identifier: GPL-2.0-or-later
"""Each test that docs/oci-runtime.md names is there."""
import re

import runtime


def test_the_table_is_true():
    text = (runtime.TREE / "docs/oci-runtime.md").read_text()
    named = re.findall(r"`(test_\w+\.(?:py|c))::(test_\w+)`", text)
    assert len(named) > 60
    for file, test in named:
        folder = "oci" if file.endswith(".py") else "container"
        source = (runtime.TREE / "tests" / folder / file).read_text()
        assert re.search(rf"\b{test}\(", source), f"{file}::{test} is named and not there"
