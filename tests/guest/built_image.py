# SPDX-License-Identifier: GPL-2.0-or-later
"""The images that `tabique image build debian` makes, for the tests that look at them or boot them: one of each suite,
built once and kept in build/home, as are the packages. `make run` uses the same."""
import json
import os
import pathlib
import shutil
import subprocess

HOME = pathlib.Path(__file__).resolve().parent.parent.parent / "build/home"
SUITES = ("bookworm", "trixie")
SLOW = 1800  # seconds that a build may take on a busy machine
TOOLS = {"mmdebstrap": "mmdebstrap", "mkfs.ext4": "e2fsprogs"}


def missing():
    """The packages that this host lacks for building an image."""
    return [package for tool, package in TOOLS.items() if not shutil.which(tool)]


def build(tabique, suite, *packages):
    """What `tabique image inspect` knows of the suite's image, with these packages in it."""
    def run(*words):
        result = subprocess.run([str(tabique), "image", *words], env=dict(os.environ, TABIQUE_HOME=str(HOME)),
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SLOW, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    name = "-".join(["debian", suite, *packages])
    run("build", "debian", "--suite", suite, "--name", name, *[word for p in packages for word in ("--package", p)])
    return json.loads(run("inspect", name))
