# SPDX-License-Identifier: GPL-2.0-or-later
"""What the end-to-end tests share. A test that takes `engine` runs once for each engine that this host can run."""
import pytest

import life
import program


def pytest_generate_tests(metafunc):
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", program.engines())


@pytest.fixture
def echo_guest():
    """A guest that says `ready` and tells each byte it gets (tests/guest/echo.c)."""
    path = program.BUILD / "tests/guest/echo.pvh.elf"
    assert path.exists(), f"{path} is not built"
    return path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A state directory that is everybody's here, also a terminal's."""
    made = life.Home(tmp_path / "home")
    monkeypatch.setenv("TABIQUE_HOME", str(made.path))
    yield made
    made.clear()


@pytest.fixture(params=["bookworm", "trixie"])
def suite(request):
    """A Debian suite whose kernel and initramfs are there (tools/fetch-guest)."""
    if not (program.GUESTS / request.param / "initrd.gz").exists():
        pytest.skip(f"no guest for {request.param} in {program.GUESTS}: tools/fetch-guest makes it")
    return request.param
