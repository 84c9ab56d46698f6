# SPDX-License-Identifier: GPL-2.0-or-later
"""Bundles for the OCI runtime: a root file system of busybox, a config.json to change, and the runtime as a person or
an engine calls it; and one podman and one containerd, with the images of images.py in them, for the tests of those. What
a test leaves is removed."""
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import images  # noqa: E402
import peers  # noqa: E402
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


@pytest.fixture(scope="session", name="archives")
def fixture_archives(tmp_path_factory):
    """{name: archive}"""
    directory = tmp_path_factory.mktemp("images")
    reason = peers.lacking("busybox", "mmdebstrap")
    if reason:
        pytest.skip(reason)
    return {
        images.BUSYBOX_NAME: images.write_archive(directory / "busybox.tar", images.BUSYBOX_NAME, images.busybox_layer(), ["/bin/sh"]),
        images.DEBIAN_NAME: images.write_archive(directory / "debian.tar", images.DEBIAN_NAME, images.debian_layer(), ["/bin/bash"]),
    }


@pytest.fixture(scope="session", name="podman_with_images")
def fixture_podman_with_images(archives):
    reason = peers.lacking("podman", "conmon")
    if reason:
        pytest.skip(reason)
    peer = peers.Podman(tempfile.mkdtemp(prefix="tabique-oci-"))
    try:
        for archive in archives.values():
            peer.do("load", "--quiet", "--input", archive)
        yield peer
    finally:
        peer.end()


@pytest.fixture(name="podman")
def fixture_podman(podman_with_images):
    yield podman_with_images
    podman_with_images.clear()


@pytest.fixture(scope="session", name="containerd_with_images")
def fixture_containerd_with_images(archives):
    reason = peers.lacking("containerd", "ctr", "containerd-shim-runc-v2")
    if reason:
        pytest.skip(reason)
    peer = peers.Containerd(tempfile.mkdtemp(prefix="tabique-oci-"))
    try:
        for archive in archives.values():
            peer.do("images", "import", "--snapshotter", "native", archive)
        yield peer
    finally:
        peer.end()


@pytest.fixture(name="containerd")
def fixture_containerd(containerd_with_images):
    yield containerd_with_images
    containerd_with_images.clear()


def pytest_collection_modifyitems(items):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        for item in items:
            if item.path.parent == pathlib.Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason="containers take the right to make mount namespaces"))
