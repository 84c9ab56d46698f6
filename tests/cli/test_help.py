# SPDX-License-Identifier: GPL-2.0-or-later
"""Help, version, man page and completion: all from one table, so each must know every verb and flag."""
import re
import shutil
import subprocess

import pytest

from program import TABIQUE, TREE, run

VERBS = {
    "run": ["--kind", "--name", "--detach", "--rm", "--restart", "--firmware", "--firmware-log", "--kernel", "--initrd", "--append",
            "--memory", "--cpus", "--engine", "--disk", "--cloud-init", "--debug-exit", "--vsock", "--vsock-cid",
            "--balloon", "--watchdog", "--net", "--mac", "--publish", "--module", "--pids", "--io-weight", "--volume",
            "--env", "--user", "--workdir", "--hostname", "--privileged", "--init", "--read-only", "--cap-add", "--cap-drop",
            "--security-opt"],
    "ps": ["--all", "--quiet", "--json"],
    "console": [],
    "logs": ["--follow"],
    "inspect": [],
    "stats": ["--json", "--watch"],
    "profile": ["--time", "--frequency", "--symbols", "--format", "--activities", "--output"],
    "stop": ["--timeout", "--all", "--shutdown"],
    "kill": [],
    "start": ["--attach", "--all"],
    "restart": ["--timeout"],
    "pause": [],
    "resume": [],
    "balloon": [],
    "exec": ["--user", "--workdir", "--env"],
    "cp": [],
    "update": ["--memory", "--cpus", "--pids", "--io-weight", "--disk"],
    "rm": ["--force"],
    "events": ["--follow", "--since"],
    "snapshot": ["--description", "--freeze"],
    "snapshots": ["--json"],
    "restore": [],
    "snapshot-rm": [],
    "backup": ["--disk", "--full", "--freeze", "--output-format", "--rate"],
    "mirror": ["--disk", "--pivot", "--output-format", "--rate"],
    "stream": ["--disk", "--rate"],
    "clone": ["--full", "--freeze", "--snapshot"],
    "check": ["--json"],
    "image build": ["--name", "--suite", "--size", "--package", "--arch", "--mirror", "--rebuild"],
    "image import": ["--name", "--format"],
    "image export": [],
    "image ls": ["--json", "--quiet"],
    "image inspect": [],
    "image rm": [],
    "disk create": ["--format", "--option", "--backing", "--backing-format"],
    "disk info": ["--format", "--json"],
    "disk check": ["--format", "--json"],
    "disk repair": ["--format", "--repair", "--json"],
    "disk map": ["--format", "--json", "--follow", "--secret-file"],
    "disk compare": ["--format", "--format2", "--strict", "--follow", "--secret-file"],
    "disk convert": ["--format", "--output-format", "--option", "--compress", "--no-sync", "--follow", "--secret-file"],
    "disk serve": ["--format", "--secret-file", "--socket", "--port", "--bind", "--read-only", "--export", "--tls-certificate", "--tls-psk",
                   "--persistent", "--shared", "--bitmap", "--pid-file", "--follow"],
    "disk resize": ["--format", "--shrink", "--follow", "--secret-file"],
    "disk snapshot": ["--format", "--json"],
    "disk bitmap": ["--format", "--json", "--granularity"],
    "disk rebase": ["--format", "--backing", "--backing-format", "--unsafe", "--follow", "--secret-file"],
    "disk commit": ["--format", "--base", "--keep", "--follow", "--secret-file"],
    "help": [],
}
GROUPS = ["image", "disk"]


def words(group=None):
    """The words that can follow `tabique` or `tabique GROUP`, in their order."""
    if group:
        return [verb.split()[1] for verb in VERBS if verb.startswith(group + " ")]
    return [verb for verb in VERBS if " " not in verb] + GROUPS


def test_overview_names_each_verb():
    result = run("--help")
    assert result.returncode == 0 and result.stderr == ""
    listed = [word for name in [None, *GROUPS] for word in words(name) if word not in GROUPS]
    assert re.findall(r"^  ([a-z][\w-]*) ", result.stdout, re.MULTILINE) == listed
    assert run("-h").stdout == result.stdout
    assert run("help").stdout == result.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb(verb):
    result = run(*verb.split(), "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith(f"usage: tabique {verb}")
    assert re.findall(r"^  (--[\w-]+)", result.stdout, re.MULTILINE) == VERBS[verb] + ["--help"]
    example = result.stdout.find("\nexample:")
    assert all(len(line) <= 80 for line in result.stdout[:example].splitlines())
    assert run("help", *verb.split()).stdout == result.stdout
    # Wherever it stands, and whatever else is wrong after it.
    assert run(*verb.split(), "-h", "--nonsense").stdout == result.stdout


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group(group):
    result = run(group, "--help")
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout.startswith(f"usage: tabique {group} VERB")
    assert re.findall(r"^  (\w+) ", result.stdout, re.MULTILINE) == words(group)
    assert run("help", group).stdout == result.stdout
    alone = run(group)
    assert alone.returncode == 2 and alone.stdout == "" and alone.stderr == result.stdout


def test_words_that_are_no_verbs():
    for args, said in [
        (["image", "biuld"], "tabique image: unknown verb 'biuld': did you mean 'build'?\nTry 'tabique image --help'.\n"),
        (["image", "--json"], "tabique image: unknown flag '--json'\nTry 'tabique image --help'.\n"),
        (["imago"], "tabique: unknown verb 'imago': did you mean 'image'?\nTry 'tabique --help'.\n"),
        (["image build"], "tabique: unknown verb 'image build'\nTry 'tabique --help'.\n"),
        (["help", "check", "ls"], "tabique help: 'check' has no verbs after it\nTry 'tabique help --help'.\n"),
        (["help", "image", "sl"], "tabique help: 'image' has no verb 'sl'\nTry 'tabique help --help'.\n"),
    ]:
        result = run(*args)
        assert (result.returncode, result.stdout, result.stderr) == (2, "", said)


def test_help_documents_the_exit_statuses():
    text = run("run", "--help").stdout
    for status in ["0", "1", "2", "3", "4", "130", "(value << 1) | 1", "128 + N"]:
        assert re.search(rf"^  {re.escape(status)} ", text, re.MULTILINE), status


def test_version_is_the_build_systems():
    version = re.search(r"version: '([^']+)'", (TREE / "meson.build").read_text()).group(1)
    assert run("--version").stdout == f"tabique {version}\n"


def test_output_that_does_not_arrive_is_an_error():
    with open("/dev/full", "w", encoding="ascii") as full:
        result = subprocess.run([TABIQUE, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert "No space left on device" in result.stderr


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_standard_files(closed):
    """What is opened first must not take their numbers."""
    result = subprocess.run(["sh", "-c", f'exec "$0" check {closed}>&-', TABIQUE], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    assert result.returncode in (0, 1)
    assert (result.stdout != b"") == (closed != 1)


def test_man_page_has_it_all():
    text = run("generate", "man").stdout
    assert text.startswith(".TH TABIQUE 1")
    plain = text.replace("\\-", "-")
    for verb, flags in VERBS.items():
        assert f".SS tabique {verb}\n" in plain
        for flag in flags:
            assert f"\\fB{flag}\\fR" in plain
    assert "generate" not in plain


@pytest.mark.skipif(not shutil.which("man"), reason="the program man is not installed")
def test_man_page_is_sound_roff(tmp_path):
    page = tmp_path / "tabique.1"
    page.write_text(run("generate", "man").stdout)
    result = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", str(page)], capture_output=True, text=True,
                            env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80", "LC_ALL": "C.UTF-8"}, check=False)
    assert result.returncode == 0 and result.stderr == ""
    assert "Ctrl-]" in result.stdout


def complete(*words):
    """What bash offers for the last of `words`."""
    script = run("generate", "bash-completion").stdout + """
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
    compopt() { :; }
    _tabique
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    result = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    return sorted(result.stdout.split())


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_completion():
    assert complete("tabique", "") == sorted([*words(), "--help", "--version"])
    assert complete("tabique", "ru") == ["run"]
    assert complete("tabique", "run", "--") == sorted(VERBS["run"] + ["--help"])
    assert complete("tabique", "run", "--m") == ["--mac", "--memory", "--module"]
    assert complete("tabique", "run", "--engine", "") == ["auto", "kvm", "soft"]
    assert complete("tabique", "run", "--engine", "s") == ["soft"]
    assert complete("tabique", "run", "--memory", "") == []
    assert complete("tabique", "run", "--kernel", "x") == []  # bash's own file names
    assert complete("tabique", "help", "ch") == ["check"]
    assert complete("tabique", "check", "--j") == ["--json"]
    for group in GROUPS:
        assert complete("tabique", group, "") == sorted([*words(group), "--help"])
    assert complete("tabique", "image", "b") == ["build"]
    assert complete("tabique", "image", "build", "") == sorted(["debian", *VERBS["image build"], "--help"])
    assert complete("tabique", "image", "build", "debian", "--suite", "t") == ["trixie"]
    assert complete("tabique", "image", "ls", "--j") == ["--json"]
