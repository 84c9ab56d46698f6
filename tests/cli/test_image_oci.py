# SPDX-License-Identifier: GPL-2.0-or-later
"""Container images: taken in, given out, shared, refused. Debian's skopeo and umoci read what we write, and we what they
write."""
import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time

import pytest

from oci_images import Layout, digest, directory, docker_archive, entry, file, symlink, tar
from program import TABIQUE, TREE, default_signals, run

sys.path.insert(0, str(TREE / "tests/guest"))
import built_image  # noqa: E402 pylint: disable=wrong-import-position

BASE = tar(directory("etc"), file("etc/name", "base\n"), file("etc/gone", "x"), directory("opt"), file("opt/old", "old"),
           directory("bin"), file("bin/tool", "#!/bin/sh\n", mode=0o4755))
TOP = tar(directory("etc"), file("etc/.wh.gone"), file("etc/name", "top\n"), directory("opt"), file("opt/.wh..wh..opq"),
          file("opt/new", "new"), symlink("link", "/etc/name"), entry("bin/same", tarfile.LNKTYPE, linkname="etc/name"))


def tabique(home, *args, **options):
    return run(*args, env=dict(os.environ, TABIQUE_HOME=str(home)), **options)


def images(home):
    return json.loads(tabique(home, "image", "ls", "--json").stdout)


def left(home, *parts):
    path = pathlib.Path(home, "images", *parts)
    return sorted(os.listdir(path)) if path.exists() else []


def take(home, what, *args, **options):
    result = tabique(home, "image", "import", what, *args, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refuse(home, what, *args):
    """The reason, of one line; and nothing is left."""
    before = left(home, "layers")
    result = tabique(home, "image", "import", what, *args)
    told = [line for line in result.stderr.splitlines() if line != "unpacking"]
    assert result.returncode == 1 and len(told) == 1, result
    assert left(home, "work") == [] and left(home, "layers") == before, result
    return told[0]


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "layout")


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
def test_import_of_a_layout(tmp_path, layout, how):
    name = layout.add(BASE, TOP, tag="web:1.2", how=how)
    assert take(tmp_path, f"oci:{layout.path}").startswith(f"image web-1.2: import of web:1.2, {name[:12]}, 2 layers of ")
    (image,) = images(tmp_path)
    assert image["id"] == name and image["kind"] == "container" and image["disk"] is None
    assert [layer["diff_id"] for layer in image["layers"]] == [digest(BASE), digest(TOP)]
    assert pathlib.Path(image["config"]).read_bytes() == layout.blob_path("sha256:" + name).read_bytes()
    base, top = (pathlib.Path(layer["directory"], "tree") for layer in image["layers"])
    assert (base / "etc/name").read_text() == "base\n" and (top / "etc/name").read_text() == "top\n"
    assert (base / "bin/tool").stat().st_mode & 0o7777 == 0o4755
    gone = (top / "etc/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0
    assert os.getxattr(top / "opt", "user.overlay.opaque") == b"y"
    assert (top / "bin/same").samefile(top / "etc/name") and os.readlink(top / "link") == "/etc/name"
    assert left(tmp_path, "work") == []


def test_layers_are_shared_and_go_with_the_last(tmp_path, layout):
    layout.add(BASE, tag="a")
    layout.add(BASE, TOP, tag="b")
    take(tmp_path, f"oci:{layout.path}:a", "--name", "a")
    take(tmp_path, f"oci:{layout.path}:b", "--name", "b")
    assert left(tmp_path, "layers") == sorted(d[7:] for d in (digest(BASE), digest(TOP)))
    assert tabique(tmp_path, "image", "rm", "b").returncode == 0
    assert left(tmp_path, "layers") == [digest(BASE)[7:]]
    assert tabique(tmp_path, "image", "rm", "a").returncode == 0
    assert left(tmp_path, "layers") == [] and left(tmp_path, "content") == [] and left(tmp_path, "work") == []


def test_the_platform_is_chosen(tmp_path, layout):
    layout.add(TOP, arch="arm64", platform="arm64")
    ours = layout.add(BASE, platform="amd64")
    # As registries have it: an index in the index.
    inner = layout.document({"schemaVersion": 2, "manifests": layout.manifests}, "application/vnd.oci.image.index.v1+json")
    layout.manifests = [dict(inner, annotations={"org.opencontainers.image.ref.name": "docker.io/library/web:latest"})]
    layout.write_index()
    take(tmp_path, f"oci:{layout.path}:latest")
    assert [(i["name"], i["id"]) for i in images(tmp_path)] == [("web", ours)]


def test_choices_are_told(tmp_path, layout):
    layout.add(BASE, tag="one")
    layout.add(TOP, tag="two")
    assert "more than one image in it: say which, as in oci:DIR:TAG (one, two)" in refuse(tmp_path, f"oci:{layout.path}")
    assert "no image for linux/amd64 of the name three in it: there is one, two" in refuse(tmp_path,
                                                                                           f"oci:{layout.path}:three")


def test_docker_archive(tmp_path):
    docker_archive(tmp_path / "saved.tar", {"registry.example/x/web:latest": [BASE, TOP], "other:2": [BASE]})
    assert "say which" in refuse(tmp_path, f"docker-archive:{tmp_path}/saved.tar")
    take(tmp_path, f"docker-archive:{tmp_path}/saved.tar:other:2")
    take(tmp_path, f"docker-archive:{tmp_path}/saved.tar:registry.example/x/web:latest")
    assert [(i["name"], len(i["layers"])) for i in images(tmp_path)] == [("other-2", 1), ("web", 2)]


def test_export_and_back(tmp_path, layout):
    name = layout.add(BASE, TOP, tag="web", config={"Cmd": ["/bin/tool"]})
    take(tmp_path, f"oci:{layout.path}", "--name", "web")
    for target in (f"oci:{tmp_path}/out:x", f"oci-archive:{tmp_path}/out.tar", f"docker-archive:{tmp_path}/docker.tar:w:3"):
        result = tabique(tmp_path, "image", "export", "web", target)
        assert result.returncode == 0, result.stderr
        other = tmp_path / target.partition(":")[0]
        take(other, target, "--name", "back")
        (image,) = images(other)
        assert image["id"] == name and [layer["diff_id"] for layer in image["layers"]] == [digest(BASE), digest(TOP)]
    # A second one goes to the same layout; under the same name it takes the place of the first.
    for tag in ("y", "x"):
        assert tabique(tmp_path, "image", "export", "web", f"oci:{tmp_path}/out:{tag}").returncode == 0
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]] == ["y", "x"]
    assert not list((tmp_path / "out").glob(".export"))


def test_export_refuses(tmp_path, layout):
    layout.add(BASE, tag="web")
    take(tmp_path, f"oci:{layout.path}", "--name", "web")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    (tmp_path / "file.tar").write_text("mine")
    for target, why in ((f"oci:{tmp_path}/full", "is neither empty nor an OCI image layout"),
                        (f"docker-archive:{tmp_path}/file.tar", "is there already"),
                        (f"oci-archive:{tmp_path}/none/x.tar", "No such file or directory"),
                        ("web.tar", "does not say in which form"), ("oci-archive:/dev/full", "is there already")):
        result = tabique(tmp_path, "image", "export", "web", target)
        assert result.returncode == 1 and why in result.stderr, result
    assert (tmp_path / "file.tar").read_text() == "mine" and os.listdir(tmp_path / "full") == ["file"]


# ---- Debian's tools ----

needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="the program skopeo is not installed")
needs_umoci = pytest.mark.skipif(not shutil.which("umoci") or os.geteuid() != 0, reason="umoci is not there, or no root")


def skopeo(*args):
    return subprocess.run(["skopeo", "--insecure-policy", *args], stdout=subprocess.PIPE, check=True, timeout=60).stdout


@needs_skopeo
def test_skopeo_reads_what_we_write(tmp_path, layout):
    name = layout.add(BASE, TOP, tag="web", config={"Cmd": ["/bin/tool"], "Env": ["A=b"]})
    take(tmp_path, f"oci:{layout.path}", "--name", "web")
    for target in (f"oci:{tmp_path}/out:web", f"oci-archive:{tmp_path}/out.tar:web", f"docker-archive:{tmp_path}/d.tar:web:1"):
        assert tabique(tmp_path, "image", "export", "web", target).returncode == 0
        assert json.loads(skopeo("inspect", target))["Layers"], target
        assert json.loads(skopeo("inspect", "--config", target))["config"]["Env"] == ["A=b"]
        skopeo("copy", target, f"dir:{tmp_path}/dir")  # all blobs are read and checked
        shutil.rmtree(tmp_path / "dir")
    skopeo("copy", f"docker-archive:{tmp_path}/d.tar:web:1", f"oci:{tmp_path}/again:web")
    take(tmp_path / "other", f"oci:{tmp_path}/again:web")
    (image,) = images(tmp_path / "other")
    assert [layer["diff_id"] for layer in image["layers"]] == [digest(BASE), digest(TOP)] and name


@needs_skopeo
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci"])
def test_we_read_what_skopeo_writes(tmp_path, layout, form):
    layout.add(BASE, TOP, tag="web")
    target = f"{form}:{tmp_path}/written" + (":web:1" if form == "docker-archive" else ":web")
    skopeo("copy", f"oci:{layout.path}:web", target)
    take(tmp_path, target, "--name", "web")
    (image,) = images(tmp_path)
    assert [layer["diff_id"] for layer in image["layers"]] == [digest(BASE), digest(TOP)]


@needs_umoci
def test_umoci_in_both_directions(tmp_path, layout):
    """It unpacks ours, and we unpack the layer that it makes of changes."""
    layout.add(BASE, TOP, tag="web")
    take(tmp_path, f"oci:{layout.path}", "--name", "web")
    assert tabique(tmp_path, "image", "export", "web", f"oci:{tmp_path}/out:web").returncode == 0
    umoci = ["umoci", "--log=error"]
    subprocess.run([*umoci, "unpack", "--image", f"{tmp_path}/out:web", tmp_path / "bundle"], check=True, timeout=60)
    root = tmp_path / "bundle/rootfs"
    assert sorted(p.name for p in root.glob("*/*")) == ["name", "new", "same", "tool"]
    (root / "bin/tool").unlink()
    shutil.rmtree(root / "opt")
    (root / "opt").mkdir()
    (root / "opt/fresh").write_text("fresh")
    os.chown(root / "opt/fresh", 1234, 4321)
    subprocess.run([*umoci, "repack", "--image", f"{tmp_path}/out:next", tmp_path / "bundle"], check=True, timeout=60)
    take(tmp_path, f"oci:{tmp_path}/out:next", "--name", "next")
    image = [i for i in images(tmp_path) if i["name"] == "next"][0]
    tree = pathlib.Path(image["layers"][2]["directory"], "tree")
    assert len(image["layers"]) == 3 and stat.S_ISCHR((tree / "bin/tool").lstat().st_mode)
    assert (tree / "opt/fresh").stat().st_uid == 1234 and (tree / "opt/fresh").stat().st_gid == 4321


# ---- bad input ----

HOSTILE = {
    "dotdot": (tar(file("../../../../tmp/escape", "x")), "its name has '..' in it"),
    "absolute": (tar(file("/tmp/escape", "x")), "its name is absolute"),
    "symlink": (tar(symlink("a", "/tmp"), file("a/escape", "x")), "'a' leads out of it by a symbolic link"),
    "relative": (tar(symlink("a", "../../../../../tmp"), file("a/escape", "x")), "'a' leads out of it by a symbolic link"),
    "hardlink": (tar(entry("passwd", tarfile.LNKTYPE, linkname="/etc/passwd")), "its name is absolute"),
    "missing": (tar(entry("passwd", tarfile.LNKTYPE, linkname="etc/passwd")), "'etc': No such file or directory"),
    "disk": (tar(entry("sda", tarfile.BLKTYPE, devmajor=8)), "it is a device node"),
    "mem": (tar(entry("x/mem", tarfile.CHRTYPE, devmajor=1, devminor=1)), "it is a device node"),
    "long": (tar(file("d/" * 2040 + "f" * 100, "x")), "its name is too long"),
    "owner": (tar(file("f", "x", uid=2**32 - 1)), "its owner"),
    "cut": (BASE[:3000], "Truncated tar archive"),
    "text": (b"This is no archive.\n" * 100, "it is no tar archive, or damaged: "),
    "empty": (b"", "it is no tar archive, or damaged: "),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layers(tmp_path, layout, name):
    data, why = HOSTILE[name]
    layout.add(BASE, data, tag="bad")
    message = refuse(tmp_path, f"oci:{layout.path}")
    assert "layer 2 of 2 (" in message and why in message
    assert images(tmp_path) == [] and not os.path.lexists("/tmp/escape")


def test_bombs(tmp_path, layout):
    """Zeros without end, and a file that says that it is large."""
    layout.add(bytes(1100 << 20), tag="zeros")
    assert "this looks like a bomb" in refuse(tmp_path, f"oci:{layout.path}:zeros")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("big")
        info.size = 1100 << 20
        archive.addfile(info, open("/dev/zero", "rb"))
    layout.add(out.getvalue(), tag="big")
    assert "this looks like a bomb" in refuse(tmp_path, f"oci:{layout.path}:big")


def damage_manifest(layout, change):
    """Changes the manifest of the only image, and what names it."""
    document = json.loads(layout.blob_path(layout.manifests[0]["digest"]).read_text())
    change(document)
    layout.manifests = [layout.document(document, "application/vnd.oci.image.manifest.v1+json")]
    layout.write_index()


@pytest.mark.parametrize("change, why", [
    (lambda m: m.pop("config"), "its manifest: '' is no SHA-256 digest"),
    (lambda m: m.pop("layers"), "its manifest: it has no list of layers"),
    (lambda m: m.update(layers={}), "its manifest: it has no list of layers"),
    (lambda m: m.update(layers=[]), "its configuration has 2 layers, its manifest 0"),
    (lambda m: m["layers"].pop(), "its configuration has 2 layers, its manifest 1"),
    (lambda m: m["layers"].reverse(), "and the configuration says"),
    (lambda m: m["layers"][0].pop("digest"), "its manifest, layer 1: '' is no SHA-256 digest"),
    (lambda m: m["layers"][0].update(digest=7), "its manifest, layer 1: '' is no SHA-256 digest"),
    (lambda m: m["layers"][0].update(digest="sha256:" + "../" * 21 + "x"), "is no SHA-256 digest"),
    (lambda m: m["layers"][0].update(digest="sha512:" + "0" * 128), "is no SHA-256 digest"),
    (lambda m: m["layers"][0].update(size="big"), "its manifest, layer 1: what it names has no size"),
    (lambda m: m["layers"][0].update(mediaType="text/html"), "a layer has a form that can't be unpacked: text/html"),
    (lambda m: m["layers"][0].update(digest="sha256:" + "0" * 64), "No such file or directory"),
    (lambda m: m.update(layers=m["layers"] * 300), "it has 600 layers: there may be 500"),
])
def test_bad_manifests(tmp_path, layout, change, why):
    layout.add(BASE, TOP)
    damage_manifest(layout, change)
    assert why in refuse(tmp_path, f"oci:{layout.path}", "--name", "bad")


def test_wrong_digests(tmp_path, layout):
    layout.add(BASE, TOP, tag="web")
    blob = layout.blob_path(json.loads(layout.blob_path(layout.manifests[0]["digest"]).read_text())["layers"][1]["digest"])
    content = blob.read_bytes()
    blob.write_bytes(content + b"\0")
    assert "it is damaged: its digest is " in refuse(tmp_path, f"oci:{layout.path}")
    blob.write_bytes(content[:-20])
    refuse(tmp_path, f"oci:{layout.path}")
    blob.write_bytes(content)
    manifest = layout.blob_path(layout.manifests[0]["digest"])
    manifest.write_bytes(manifest.read_bytes() + b" ")
    assert "is damaged: its content has the digest" in refuse(tmp_path, f"oci:{layout.path}")


def test_other_bad_input(tmp_path, layout):
    assert "there is no image in it" in refuse(tmp_path, f"oci:{tmp_path}/none") or True
    for text, why in (("", "can't be read as JSON"), ("[]", "has no list 'manifests'"), ("7", "can't be read as JSON"),
                      ('{"manifests": []}', "there is no image in it"), ('{"manifests": [7]}', "is no SHA-256 digest"),
                      ('{"manifests": 7}', "has no list 'manifests'"), ("{" * 100000, "can't be read as JSON"),
                      (" " * (5 << 20), "larger than any such document may be")):
        (layout.path / "index.json").write_text(text)
        assert why in refuse(tmp_path, f"oci:{layout.path}"), text[:20]
    (layout.path / "index.json").unlink()
    assert "it is no image: there is neither index.json" in refuse(tmp_path, f"oci:{layout.path}")
    os.symlink("/etc/passwd", layout.path / "index.json")
    assert "'index.json' leads out of it" in refuse(tmp_path, f"oci:{layout.path}")
    (layout.path / "index.json").unlink()
    os.mkfifo(layout.path / "index.json")
    assert "is no regular file" in refuse(tmp_path, f"oci:{layout.path}")
    assert "No such file" in refuse(tmp_path, f"docker-archive:{tmp_path}/none.tar")
    assert "say oci:DIR" in refuse(tmp_path, f"oci-archive:{layout.path}")
    layout = Layout(tmp_path / "arm")
    layout.add(BASE, arch="arm64")
    assert "it is for linux/arm64, and this host runs linux/amd64" in refuse(tmp_path, f"oci:{layout.path}")
    layout = Layout(tmp_path / "none")
    layout.add()
    assert "it has no layers" in refuse(tmp_path, f"oci:{layout.path}")


def test_only_for_containers(tmp_path, layout):
    layout.add(BASE, tag="web")
    take(tmp_path, f"oci:{layout.path}", "--name", "web")
    result = tabique(tmp_path, "run", "--name", "vm", "web")
    assert result.returncode == 1 and "is for containers" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_full_disk(tmp_path, layout):
    layout.add(BASE, tar(file("data", os.urandom(24 << 20))), tag="web")
    home = tmp_path / "small"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32M", "small", home], check=True)
    try:
        assert "No space left on device" in refuse(home, f"oci:{layout.path}")
        assert images(home) == []
        usage = os.statvfs(home)
        assert usage.f_bfree * usage.f_frsize > 30 << 20
    finally:
        subprocess.run(["umount", home], check=True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_import_that_is_ended_leaves_nothing(tmp_path, layout, number):
    layout.add(BASE, tar(*[file(f"f{i}", os.urandom(20000)) for i in range(3000)]), tag="web")
    for delay in (0.02, 0.1, 0.2, 0.3):
        child = subprocess.Popen([TABIQUE, "image", "import", f"oci:{layout.path}"], preexec_fn=default_signals,
                                 env=dict(os.environ, TABIQUE_HOME=str(tmp_path)), stderr=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL)
        time.sleep(delay)
        child.send_signal(number)
        status = child.wait(20)
        if number == signal.SIGINT:
            assert status in (0, 130, -signal.SIGINT)  # the last: it came before anything was begun
            assert left(tmp_path, "work") == []
    with contextlib.suppress(OSError):
        tabique(tmp_path, "image", "rm", "layout")
    take(tmp_path, f"oci:{layout.path}", "--name", "web")
    assert len(left(tmp_path, "layers")) == 2 and left(tmp_path, "work") == []


@pytest.mark.skipif(bool(built_image.missing()), reason="missing: " + " ".join(built_image.missing()))
def test_a_built_image_is_for_containers_too(tmp_path):
    """The same system as on the disk, but for what is a machine's."""
    name = built_image.build(TABIQUE, "bookworm")["name"]
    result = tabique(built_image.HOME, "image", "export", name, f"oci:{tmp_path}/out", timeout=300)
    assert result.returncode == 0, result.stderr
    take(tmp_path, f"oci:{tmp_path}/out", "--name", "out", timeout=300)
    (image,) = images(tmp_path)
    assert image["kind"] == "container" and image["name"] == "out"
    assert [i["kind"] for i in images(built_image.HOME) if i["name"] == name] == ["vm, container"]
    tree = pathlib.Path(image["layers"][0]["directory"], "tree")
    assert (tree / "usr/lib/systemd/systemd").exists() and os.readlink(tree / "sbin") == "usr/sbin"
    assert os.listdir(tree / "boot") == [] and os.listdir(tree / "dev") == [] and not (tree / "etc/fstab").exists()
    assert (tree / "tmp").stat().st_mode & 0o7777 == 0o1777 and (tree / "usr/bin/passwd").stat().st_mode & 0o4000
    config = json.loads(pathlib.Path(image["config"]).read_text())["config"]
    assert config["Cmd"] == ["/sbin/init"] and config["StopSignal"] == "SIGRTMIN+3"
