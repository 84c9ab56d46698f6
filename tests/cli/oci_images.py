# SPDX-License-Identifier: GPL-2.0-or-later
"""Container images made by hand, by the letter of the OCI image specification, for the tests of image import."""
import gzip
import hashlib
import io
import json
import pathlib
import subprocess
import tarfile

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def file(name, content=b"", **fields):
    return tarfile.TarInfo(name), fields, content if isinstance(content, bytes) else content.encode()


def entry(name, kind, **fields):
    return tarfile.TarInfo(name), dict(fields, type=kind), b""


def directory(name, **fields):
    return entry(name, tarfile.DIRTYPE, **dict({"mode": 0o755}, **fields))


def symlink(name, target, **fields):
    return entry(name, tarfile.SYMTYPE, linkname=target, **fields)


def tar(*entries):
    """A tar archive of what the functions above give."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, fields, content in entries:
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def compress(data, how):
    if how == "gzip":
        return gzip.compress(data, mtime=0)
    if how == "zstd":
        return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


class Layout:
    """An OCI image layout that is written image by image."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.manifests = []
        (self.path / "blobs/sha256").mkdir(parents=True)
        (self.path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob_path(self, name):
        return self.path / "blobs" / name.replace(":", "/")

    def blob(self, data, kind):
        self.blob_path(digest(data)).write_bytes(data)
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    def document(self, value, kind):
        return self.blob(json.dumps(value).encode(), kind)

    def add(self, *layers, tag=None, how="gzip", config=None, arch="amd64", platform=None, **fields):
        """One more image of uncompressed tars; gives its id."""
        document = dict({"architecture": arch, "os": "linux", "config": config or {},
                         "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}}, **fields)
        ending = f"+{how}" if how else ""
        described = self.document(document, CONFIG)
        manifest = self.document({"schemaVersion": 2, "mediaType": MANIFEST, "config": described,
                                  "layers": [self.blob(compress(layer, how), LAYER + ending) for layer in layers]},
                                 MANIFEST)
        if tag:
            manifest["annotations"] = {"org.opencontainers.image.ref.name": tag}
        if platform:
            manifest["platform"] = {"os": "linux", "architecture": platform}
        self.manifests.append(manifest)
        self.write_index()
        return described["digest"].partition(":")[2]

    def write_index(self):
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.manifests}))


def docker_archive(path, images):
    """As `docker save` of old: {name: [layer, ...]}."""
    manifest, files = [], []
    for name, layers in images.items():
        config = json.dumps({"architecture": "amd64", "os": "linux", "config": {},
                             "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]}}).encode()
        hashes = [digest(layer).partition(":")[2] for layer in layers]
        files += [file(f"{h}/layer.tar", layer) for h, layer in zip(hashes, layers)]
        files.append(file(digest(config).partition(":")[2] + ".json", config))
        manifest.append({"Config": digest(config).partition(":")[2] + ".json", "RepoTags": [name],
                         "Layers": [f"{h}/layer.tar" for h in hashes]})
    pathlib.Path(path).write_bytes(tar(*files, file("manifest.json", json.dumps(manifest))))
