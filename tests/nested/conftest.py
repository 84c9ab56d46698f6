# SPDX-License-Identifier: GPL-2.0-or-later
"""One boot of each nested host for all tests of this folder."""
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

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
    hosts = []
    for name, add_jobs in jobs.HOSTS.items():
        hosts.append(rig.NestedHost(name, build, jobs.GUESTS, tmp_path_factory.mktemp(name)))
        add_jobs(hosts[-1])
        hosts[-1].prepare()
    # Each keeps one processor busy.
    with ThreadPoolExecutor() as pool:
        list(pool.map(rig.NestedHost.run, hosts))
    for host in hosts:
        if host.restarts:
            warnings.warn(f"{host.initrd}: {rig.STOOD_STILL}; begun anew, {host.restarts} times")
    return rig.Results(hosts)
