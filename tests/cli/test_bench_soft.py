# SPDX-License-Identifier: GPL-2.0-or-later
"""bench/soft's judgement, on measurements made by hand, and its sessions, with the driver on this host: what hangs, fails
or computes wrong is told as such."""
import sys
import xml.etree.ElementTree

import pytest

from program import BUILD, TREE

sys.path.insert(0, str(TREE / "bench"))
import soft_engines  # noqa: E402 pylint: disable=wrong-import-position
import soft_plot  # noqa: E402 pylint: disable=wrong-import-position
import soft_report  # noqa: E402 pylint: disable=wrong-import-position
import soft_userland  # noqa: E402 pylint: disable=wrong-import-position
import soft_works  # noqa: E402 pylint: disable=wrong-import-position

ENGINES = {"tabique", "qemu", "native"}


def took(value, result="", cpu=1.0):
    return {"value": value, "cpu": cpu, "result": result}


def table(*runs):
    """{name: row} of runs, each with (measurements, failures) of some engines."""
    filled = [{who: run.get(who, ({}, {})) for who in ENGINES} for run in runs]
    return {row["name"]: row for row in soft_report.rows(soft_works.works(False), filled, ENGINES)}


def test_ratios_and_targets():
    rows = table({"tabique": ({"init": took(2), "sha256": took(2, "x"), "getpid": took(3), "net-up": took(600), "gcm": took(90)}, {}),
                  "qemu": ({"init": took(5), "getpid": took(2), "net-up": took(200), "gcm": took(10)}, {}),
                  "native": ({"sha256": took(1.7, "x", 1.5), "gcm": took(100)}, {})})
    assert rows["init"]["ratio"] == pytest.approx(0.4) and rows["init"]["reached"] == "bar"
    assert rows["sha256"]["ratio"] == pytest.approx(0.85) and rows["sha256"]["reached"] == "bar"
    assert rows["sha256"]["cpu_to_native"] == pytest.approx(1 / 1.5)
    assert rows["gcm"]["ratio"] == pytest.approx(0.9) and rows["gcm"]["speed_of_qemu"] == pytest.approx(9)
    assert rows["getpid"]["tabique"]["median"] == 3 and rows["getpid"]["reached"] == "no"
    assert rows["net-up"]["ratio"] == pytest.approx(3) and rows["net-up"]["reached"] == "goal"
    assert rows["gcc"]["reached"] == "unknown"


def test_what_counts_is_each_run_of_its_own():
    """The host is three times as slow in one run, and one of us was disturbed in another."""
    rows = table({"tabique": ({"sha256": took(1)}, {}), "native": ({"sha256": took(0.9)}, {})},
                 {"tabique": ({"sha256": took(3)}, {}), "native": ({"sha256": took(2.7)}, {})},
                 {"tabique": ({"sha256": took(9)}, {}), "native": ({"sha256": took(0.8)}, {})},
                 {"native": ({"sha256": took(5)}, {})})
    assert rows["sha256"]["ratio"] == pytest.approx(0.9) and rows["sha256"]["tabique"]["median"] == 3


def test_two_processors():
    rows = table({"tabique": ({"one": took(1, "x"), "two": took(1.05)}, {}), "qemu": ({"one": took(1, "x")}, {"two": "died"}),
                  "native": ({"one": took(1, "x"), "two": took(1)}, {})})
    assert rows["two"]["ratio"] == pytest.approx(2 / 1.05) and rows["two"]["reached"] == "bar"
    assert "qemu" not in rows["two"] and rows["two"]["failures"] == {"qemu": ["died"]}
    assert "speed_of_native" not in rows["two"]


def test_wrong_results_and_failures_are_told(capsys):
    rows = table({"tabique": ({"sha256": took(1, "wrong"), "tar": took(1, "files")}, {"gcc": "hangs"}),
                  "native": ({"sha256": took(1, "right"), "tar": took(9, "files"), "gcc": took(1)}, {})})
    assert rows["sha256"]["reached"] == "failed" and "tabique" not in rows["sha256"]
    assert rows["gcc"]["reached"] == "failed" and not rows["tar"]["failures"]
    soft_report.print_table(list(rows.values()), 1)
    said = capsys.readouterr().out
    assert "tabique: sha256: FAILED 1 times: wrong result: 'wrong', not 'right'" in said
    assert "tabique: gcc: FAILED 1 times: hangs" in said


def test_plot_is_well_formed(tmp_path):
    rows = table({"tabique": ({"init": took(3), "getpid": took(200), "sha256": took(2)}, {"gcc": "hangs"}),
                  "qemu": ({"init": took(5), "getpid": took(2), "sha256": took(9)}, {}), "native": ({"sha256": took(1)}, {})})
    soft_plot.write_plot(list(rows.values()), tmp_path / "plot.svg")
    root = xml.etree.ElementTree.parse(tmp_path / "plot.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"kernel to /init", "1.67x", "0.01x", "failed"} <= set(texts)
    width = float(root.get("width"))
    bars = [b for b in root.iter("{http://www.w3.org/2000/svg}rect") if float(b.get("y")) > soft_plot.TOP]
    assert len(bars) == 3
    assert all(soft_plot.LEFT <= float(b.get("x")) and float(b.get("x")) + float(b.get("width")) <= width for b in bars)


def test_sources_are_the_same_each_time():
    first, second = soft_userland.files(), soft_userland.files()
    assert first == second
    assert 3000 <= first["compile.c"].count(b"\n") < 3100 and first["commands"].count(b"\n") == 2002


class Here:
    """The driver on this host, as it is."""
    title = "here"

    def __init__(self, name, path):
        self.name, self.path = name, path

    def command(self, _):
        return [BUILD / "bench/soft-driver", self.path / f"output-{self.name}"]


class Broken(Here):
    """Ends before it is ready."""

    def command(self, _):
        return ["false"]


def work(name, command, **more):
    return soft_works.Work(name, name, soft_works.KERNEL, command, **more)


def test_sessions(tmp_path):
    works = [work("fails", "echo no; exit 3"), work("hangs", "sleep 4"), work("dies", "kill -9 $PPID"),
             work("naps", "sleep 0.3; echo done", setup=f"touch {tmp_path}/set-up", check=f"ls {tmp_path}/set-up"),
             work("rate", "echo rate 500", rate=r"rate (\d+)", unit="/s"), work("unrated", "echo none", rate=r"rate (\d+)")]
    engines = [Here("tabique", tmp_path), Broken("qemu", tmp_path), Here("native", tmp_path)]
    measured, failed = soft_engines.run_works(engines, works, 2, 1 << 20, print)
    for who in ("tabique", "native"):
        assert set(failed[who]) == {"fails", "hangs", "dies", "unrated"} and set(measured[who]) == {"naps", "rate"}
        assert "status 3: no" in failed[who]["fails"] and "in 2 s" in failed[who]["hangs"]
        assert "ended before" in failed[who]["dies"]
    assert not measured["qemu"] and len(failed["qemu"]) == len(works) and "did not boot" in failed["qemu"]["fails"]
    naps = measured["tabique"]["naps"]
    assert 0.3 <= naps["value"] < 10 and naps["result"] == f"done{tmp_path}/set-up" and not naps["clock_lies"]
    # Told by a clock of its own, corrected by ours: both are one here.
    assert measured["tabique"]["rate"]["value"] == pytest.approx(500, rel=0.9)
