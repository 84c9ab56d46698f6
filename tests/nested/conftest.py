# SPDX-License-Identifier: GPL-2.0-or-later
"""One boot of the nested host for all tests of this folder."""
import shutil

import pytest

import jobs
import rig


@pytest.fixture(scope="session")
def nested(tmp_path_factory):
    build = jobs.BUILD
    if not shutil.which(rig.QEMU):
        pytest.skip(f"{rig.QEMU} is not installed: it emulates the AMD-V that the kvm engine is tested on "
                    "(tools/install-deps installs it)")
    if not (build / "tabique").exists():
        pytest.skip(f"no {build}/tabique: build it first")
    host = rig.NestedHost(build, jobs.GUESTS, tmp_path_factory.mktemp("nested"))
    jobs.add_all(host)
    host.run()
    return host
