# SPDX-License-Identifier: GPL-2.0-or-later
"""Bundles for the OCI runtime: a root file system of busybox, a config.json to change, and the runtime as a person or
an engine calls it. What a test leaves is removed."""
import pathlib
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import runtime  # noqa: E402


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory):
    """A small root file system, for all tests; those that write to it take a copy (fixture `bundle`)."""
    return runtime.make_rootfs(tmp_path_factory.mktemp("rootfs"))


@pytest.fixture
def oci(tmp_path):
    """The runtime with a state directory of this test's own."""
    tool = runtime.Runtime(tmp_path / "state")
    yield tool
    tool.clean()


@pytest.fixture
def bundle(tmp_path, rootfs, oci):
    """A bundle with a root file system of its own and the configuration that `spec` writes, without a terminal."""
    directory = tmp_path / "bundle"
    directory.mkdir()
    shutil.copytree(rootfs, directory / "rootfs", symlinks=True)
    return runtime.Bundle(directory, oci)


def pytest_collection_modifyitems(items):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        for item in items:
            if item.path.parent == pathlib.Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason="containers take the right to make mount namespaces"))
