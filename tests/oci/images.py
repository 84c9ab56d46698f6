# SPDX-License-Identifier: GPL-2.0-or-later
"""Container images for the tests, made of Debian's packages without any other tool: an OCI layout in a tar file, as
`podman load` and `ctr images import` take it."""
import gzip
import hashlib
import io
import json
import pathlib
import sys
import tarfile

TREE = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TREE / "bench"))
import userland  # noqa: E402 pylint: disable=wrong-import-position

BUSYBOX = pathlib.Path("/bin/busybox")
APPLETS = ("sh true false sleep cat echo ls ps id mount umount head tail dd touch mkdir rm chmod chown kill grep wc nc hostname "
           "sha256sum seq test tr stat readlink env pwd yes mknod date ip ln").split()
BUSYBOX_NAME, DEBIAN_NAME = "localhost/busybox:test", "localhost/debian:test"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def add(tar, name, data=b"", kind=tarfile.REGTYPE, mode=0o755, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.linkname = len(data), kind, mode, link
    tar.addfile(info, io.BytesIO(data))


def busybox_layer():
    """A static shell and its tools, and the files that users are looked up in."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for directory in ("bin", "etc", "dev", "proc", "sys", "root", "var"):
            add(tar, directory, kind=tarfile.DIRTYPE)
        add(tar, "tmp", kind=tarfile.DIRTYPE, mode=0o1777)
        add(tar, "bin/busybox", BUSYBOX.read_bytes())
        for applet in APPLETS:
            add(tar, f"bin/{applet}", kind=tarfile.SYMTYPE, link="busybox")
        add(tar, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n", mode=0o644)
        add(tar, "etc/group", b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\n", mode=0o644)
    return out.getvalue()


def debian_layer():
    """Debian's essential packages and Python: a program with shared libraries, threads and packages' users."""
    directory = TREE / "build/bench/oci-bookworm"
    directory.mkdir(parents=True, exist_ok=True)
    return userland.fetch(directory, "bookworm", "python3-minimal,procps").read_bytes()


def write_archive(path, name, layer, command):
    """An image of one layer, as a layout in a tar file."""
    packed = gzip.compress(layer, 1)
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
                         "history": [{"created_by": "the tests"}],
                         "config": {"Cmd": command, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}}).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(packed), "size": len(packed)}],
    }).encode()
    index = json.dumps({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(manifest), "size": len(manifest),
        "annotations": {"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}}]}).encode()
    with tarfile.open(path, "w") as tar:
        add(tar, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}', mode=0o644)
        add(tar, "index.json", index, mode=0o644)
        for blob in (config, packed, manifest):
            add(tar, "blobs/sha256/" + digest(blob).split(":")[1], blob, mode=0o644)
    return path
