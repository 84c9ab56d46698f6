# SPDX-License-Identifier: GPL-2.0-or-later
"""`disk serve`: disks for qemu, libnbd, nbd-client, fio and nbdkit, and for clients that nobody would want."""
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time

import nbd
import pytest

from disk_programs import disk
from nbd import Client, Server
from program import run

MIB = 1 << 20
STEPS = int(os.environ.get("TABIQUE_NBD_STEPS", "600"))


def tool(*words, check=True, timeout=60, **options):
    done = subprocess.run([*map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                          timeout=timeout, **options)
    assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
    return done


def image(path, form="raw", size=24 * MIB, seed=1):
    """Data, then holes, then data."""
    chance = random.Random(seed)
    raw = path.with_suffix(".source")
    with open(raw, "wb") as file:
        for at in (0, 5 * MIB, 13 * MIB + 4096):
            file.seek(at)
            file.write(chance.randbytes(1 * MIB))
        file.truncate(size)
    if form == "raw":
        raw.rename(path)
    else:
        assert run("disk", "convert", "-O", form, raw, path).returncode == 0
        raw.unlink()
    return path


@pytest.fixture
def where(tmp_path):
    return tmp_path / "nbd.sock"


@pytest.mark.parametrize("form", ["raw", "qcow2", "vdi", "vhd"])
def test_libnbds_tools(tmp_path, where, form):
    source = image(tmp_path / "a", form)
    flat = tmp_path / "flat.raw"
    assert run("disk", "convert", "-f", form, source, flat).returncode == 0
    with Server(source, "-f", form, "--socket", where, "--persistent") as server:
        info = json.loads(tool("nbdinfo", "--json", server.uri).stdout)["exports"][0]
        assert info["export-size"] == 24 * MIB and not info["is_read_only"] and info["can_multi_conn"]
        assert info["can_trim"] and info["can_zero"] and info["can_fast_zero"] and info["can_cache"] and info["can_fua"]
        tool("nbdcopy", server.uri, tmp_path / "copy.raw")
        assert (tmp_path / "copy.raw").read_bytes() == flat.read_bytes()
        # Where data are, as the image's own tables say.
        extents = json.loads(tool("nbdinfo", "--map", "--json", server.uri).stdout)
        holes = sum(e["length"] for e in extents if e["type"] == 3)
        assert extents[-1]["offset"] + extents[-1]["length"] == 24 * MIB and holes >= 18 * MIB
        # The other way, with holes as TRIM and WRITE_ZEROES.
        other = image(tmp_path / "other", seed=2)
        tool("nbdcopy", "--destination-is-zero", other, server.uri, check=False)
        tool("nbdcopy", other, server.uri)
    tool("qemu-img", "compare", "-f", "vpc" if form == "vhd" else form, "-F", "raw", source, other)


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_qemu_as_client(tmp_path, where, form):
    source = image(tmp_path / "a", form)
    with Server(source, "--socket", where, "--persistent") as server:
        tool("qemu-io", "-f", "raw", "-c", "write -P 7 1000 5000", "-c", "read -P 7 1000 5000", "-c", "write -z 2000 1000000",
             "-c", "read -P 0 2000 1000000", "-c", "write -f -P 9 20M 1M", "-c", "flush", "-c", "discard 5M 512k",
             "-c", "aio_write -P 3 7M 1M", "-c", "aio_write -P 4 8M 1M", "-c", "aio_flush", "-c", "read -P 4 8M 1M", server.uri)
        tool("qemu-img", "bench", "-f", "raw", "-w", "-c", 500, "-d", 32, "-s", 4096, "-o", "10M", server.uri)
        tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", server.uri, tmp_path / "copy.qcow2")
    tool("qemu-img", "compare", "-f", form, "-F", "qcow2", source, tmp_path / "copy.qcow2")
    if form == "qcow2":
        tool("qemu-img", "check", "-q", source)


@pytest.mark.parametrize("form, structured", [("raw", True), ("raw", False), ("qcow2", True), ("vdi", True)])
def test_any_bytes_on_two_connections(tmp_path, where, form, structured):
    """Requests of any offset and length, each sees what was done before, through whichever connection."""
    size, chance = 3 * MIB, random.Random(7)
    path = tmp_path / "a"
    assert run("disk", "create", "-f", form, path, size).returncode == 0
    model = bytearray(size)
    with Server(path, "-f", form, "--socket", where, "--persistent"):
        clients = [Client(where).hello().go(structured=structured) for _ in range(2)]
        for step in range(STEPS):
            client, offset = chance.choice(clients), chance.randrange(size)
            length = min(chance.choice([1, 511, 512, 4096, 70000, 300000]) + chance.randrange(3) * 100, size - offset)
            if chance.random() < 0.3:
                offset, length = offset & ~511, min((length + 511) & ~511, size - (offset & ~511))
            kind, flags = chance.choice([nbd.READ, nbd.WRITE, nbd.WRITE, nbd.WRITE_ZEROES, nbd.TRIM, nbd.FLUSH]), 0
            if kind in (nbd.WRITE, nbd.WRITE_ZEROES, nbd.TRIM) and chance.random() < 0.1:
                flags = nbd.FUA
            if kind == nbd.READ:
                assert client.do(kind, offset, length) == model[offset:offset + length], step
            elif kind == nbd.WRITE:
                data = chance.randbytes(length)
                client.do(kind, offset, length, flags, data)
                model[offset:offset + length] = data
            elif kind == nbd.WRITE_ZEROES:
                client.do(kind, offset, length, flags | chance.choice([0, nbd.NO_HOLE]))
                model[offset:offset + length] = bytes(length)
            elif kind == nbd.TRIM:
                client.do(kind, offset, length, flags)
                # What is there now is the disk's choice, within whole sectors.
                got = client.do(nbd.READ, offset, length)
                first = -offset % 512
                last = max(first, length - (offset + length) % 512)
                assert got[:first] == model[offset:offset + first][:length] and got[last:] == model[offset + last:offset + length]
                model[offset:offset + length] = got
            else:
                client.do(kind)
        assert client.do(nbd.READ, 0, size) == model
        for client in clients:
            client.close()
    assert run("disk", "convert", "-f", form, path, tmp_path / "flat").returncode == 0
    assert (tmp_path / "flat").read_bytes() == model


def test_many_at_once(tmp_path, where):
    """128 requests under way on each of 8 connections, answered in whichever order; then some that meet in a sector."""
    path = tmp_path / "a.raw"
    assert run("disk", "create", path, 8 * MIB).returncode == 0
    with Server(path, "--socket", where, "--persistent"):
        clients = [Client(where).hello().go(structured=False) for _ in range(8)]
        for number, client in enumerate(clients):
            for i in range(128):
                client.request(nbd.WRITE, number * MIB + i * 4096 + 100, 4000, 0, bytes([number * 16 + i % 16]) * 4000)
        for client in clients:
            cookies = {struct.unpack(">IIQ", client.take(16))[2] for _ in range(128)}
            assert cookies == set(range(1, 129))
        for number, client in enumerate(clients):
            for i in range(64):
                client.request(nbd.WRITE, 4096 + i * 8 + number, 1, 0, bytes([number + 1]))
        for client in clients:
            for _ in range(64):
                assert struct.unpack(">II", client.take(8))[1] == 0
                client.take(8)
        assert clients[0].do(nbd.READ, 4096, 512) == bytes(range(1, 9)) * 64
        for number, client in enumerate(clients):
            assert client.do(nbd.READ, number * MIB + 60 * 4096 + 100, 4000) == bytes([number * 16 + 60 % 16]) * 4000
            client.close()


def test_status_and_holes(tmp_path, where):
    base, top = tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    image(base, "qcow2")
    assert run("disk", "create", "-f", "qcow2", "-b", base.name, "-F", "qcow2", top).returncode == 0
    assert "--follow" in run("disk", "serve", top, "--socket", where).stderr
    with Server(top, "--socket", where, "--follow", "--persistent"):
        with Client(where).hello().go(contexts=("base:allocation", "qemu:allocation-depth")) as client:
            client.do(nbd.WRITE, 20 * MIB, 65536, 0, b"x" * 65536)
            status = client.do(nbd.BLOCK_STATUS, 0, 24 * MIB)
            assert status[1][0] == (MIB, 0) and status[1][1] == (4 * MIB, 3) and sum(n for n, _ in status[1]) == 24 * MIB
            assert (65536, 1) in status[2] and status[2][0] == (MIB, 2) and status[2][-1][1] == 0
            assert client.do(nbd.BLOCK_STATUS, 1000, 3 * MIB, nbd.REQ_ONE)[1] == [(MIB - 1000, 0)]
            assert client.do(nbd.READ, 0, 24 * MIB)[20 * MIB:20 * MIB + 65536] == b"x" * 65536
            # Holes are told, not sent.
            client.request(nbd.READ, 2 * MIB, MIB)
            assert struct.unpack(">HHQIQI", client.take(4) and client.take(28))[1:] == (2, client.cookie, 12, 2 * MIB, MIB)
            assert client.do(nbd.READ, 2 * MIB, MIB, nbd.DF) == bytes(MIB)
        with Client(where).hello().go(structured=False) as client:
            with pytest.raises(nbd.Failed, match="22"):
                client.do(nbd.BLOCK_STATUS, 0, 4096)


def test_names_lists_and_errors(tmp_path, where):
    a, b, pid = image(tmp_path / "a.raw"), image(tmp_path / "b.qcow2", "qcow2"), tmp_path / "pid"
    with Server(a, b, "--socket", where, "--read-only", "--persistent", "--pid-file", pid) as server:
        assert int(pid.read_text(encoding="ascii")) == server.process.pid
        assert tool("nbd-client", "-l", "-u", where, check=False).stdout.split()[-2:] == ["a.raw", "b.qcow2"]
        listed = json.loads(tool("nbdinfo", "--list", "--json", server.uri).stdout)["exports"]
        assert [e["export-name"] for e in listed] == ["a.raw", "b.qcow2"] and all(e["is_read_only"] for e in listed)
        with Client(where).hello().go("b.qcow2") as client:
            for words, error in [((nbd.WRITE, 0, 512, 0, b"x" * 512), 1), ((nbd.TRIM, 0, 512), 1), ((nbd.READ, 24 * MIB, 1), 22),
                                 ((nbd.READ, 2**64 - 1, 512), 22), ((nbd.READ, 0, 33 * MIB), 22), ((nbd.READ, 0, 0), 22),
                                 ((77, 0, 1), 22), ((nbd.READ, 0, 512, 0x8000), 22)]:
                with pytest.raises(nbd.Failed, match=f"^{error}$"):
                    client.do(*words)
            assert client.do(nbd.READ, 0, 512) == a.read_bytes()[:512]
        with Client(where).hello() as client:
            assert client.option(nbd.GO, nbd.name("c") + b"\0\0")[0][0] == 2**31 + 6
            assert client.option(nbd.STARTTLS)[0][0] == 2**31 + 2
            assert client.option(10809)[0][0] == 2**31 + 1
            assert client.option(nbd.LIST, b"x")[0][0] == 2**31 + 3
            assert client.option(nbd.INFO, b"\xff\xff\xff\xff")[0][0] == 2**31 + 3
            assert client.option(nbd.LIST_META_CONTEXT, bytes(40000))[0][0] == 2**31 + 9
            assert client.option(nbd.ABORT) == [(nbd.ACK, b"")]
        # Who came before all of that.
        with Client(where).hello(1) as client:
            client.send(b"IHAVEOPT" + struct.pack(">II", nbd.EXPORT_NAME, 5) + b"a.raw")
            assert struct.unpack(">Q", client.take(8))[0] == 24 * MIB and client.take(126)[2:] == bytes(124)
            assert client.do(nbd.READ, 0, 700) == a.read_bytes()[:700]
    assert not pid.exists() and not where.exists()
    assert run("disk", "serve", a).returncode == 2
    assert run("disk", "serve", a, "--socket", where, "--port", "1").returncode == 2
    assert run("disk", "serve", a, "--socket", where, "-x", "one", "-x", "two").returncode == 2
    assert "No such file" in run("disk", "serve", tmp_path / "none", "--socket", where).stderr and not where.exists()


def test_ends(tmp_path, where):
    path = image(tmp_path / "a.qcow2", "qcow2")
    with Server(path, "--socket", where) as server:  # with its last client
        assert "is in use" in run("disk", "serve", path, "--socket", tmp_path / "b.sock").stderr
        one, two = Client(where).hello().go(), Client(where).hello().go()
        one.close()
        two.do(nbd.WRITE, 0, 512, 0, b"1" * 512)
        two.send(struct.pack(">IHHQQI", 0x25609513, 0, nbd.DISCONNECT, 0, 0, 0))
        assert server.process.wait(20) == 0
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with Server(path, "--socket", where, "--persistent") as server:
            client = Client(where).hello().go()
            client.do(nbd.WRITE, 512, 512, 0, b"2" * 512)
            assert server.end(sig)[0] == 0
            assert client.socket.recv(1) == b""
    # With one place the second waits for the first to go.
    with Server(path, "--socket", where, "--persistent", "--shared", "1") as server:
        first, second = Client(where).hello().go(), Client(where)
        second.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            second.take(1)
        first.close()
        second.socket.settimeout(20)
        assert second.hello().go().do(nbd.READ, 0, 1024) == b"1" * 512 + b"2" * 512
        child = server.child()
        os.kill(server.process.pid, signal.SIGKILL)
        server.status = -signal.SIGKILL
        deadline = time.monotonic() + 10
        while pathlib.Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not pathlib.Path(f"/proc/{child}").exists()
    tool("qemu-img", "check", "-q", path)


def test_is_confined(tmp_path, where):
    with Server(image(tmp_path / "a.raw"), "--socket", where, "--persistent") as server:
        status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{server.child()}/status").read_text(
            encoding="ascii").splitlines())
        assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1" and int(status["CapEff"], 16) == 0
        if os.geteuid() == 0:
            assert os.listdir(f"/proc/{server.child()}/root") == []
            assert int(status["Uid"].split()[0]) >= 1900000000


def test_encrypted(tmp_path, where):
    """Clients have the content, the file does not; without the secret, or with another, nothing is served."""
    path, secret, wrong = tmp_path / "a.luks", tmp_path / "secret", tmp_path / "wrong"
    secret.write_bytes(b"open sesame")
    wrong.write_bytes(b"open barley")
    disk("create", "-f", "luks", "-o", f"encrypt.key-file={secret},encrypt.iter-time=20", path, "4M")
    with Server(path, "--socket", where, "-f", "luks", "--secret-file", secret, "--persistent"):
        with Client(where).hello().go() as client:
            client.do(nbd.WRITE, 65536, 4096, 0, b"treasure" * 512)
            assert client.do(nbd.READ, 65536, 4096) == b"treasure" * 512
    assert b"treasure" not in path.read_bytes()
    disk("convert", "-f", "luks", "--secret-file", secret, "-O", "raw", path, tmp_path / "a.raw")
    assert (tmp_path / "a.raw").read_bytes()[65536:69632] == b"treasure" * 512
    for words, said in ((["--secret-file", wrong], "not by this secret"), ([], "--secret-file FILE")):
        assert said in disk("serve", path, "--socket", where, "-f", "luks", *words, status=1).stderr


# ---- TLS ----

@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    """Certificates of two authorities that don't know each other, and keys."""
    top = tmp_path_factory.mktemp("pki")
    for one in ("ours", "theirs"):
        directory = top / one
        directory.mkdir()
        common = "expiration_days = 3\n"
        for who, text in [("ca", 'cn = "ca"\nca\ncert_signing_key\n'),
                          ("server", 'cn = "s"\ndns_name = "localhost"\nip_address = "127.0.0.1"\ntls_www_server\nsigning_key\n'),
                          ("client", 'cn = "c"\ntls_www_client\nsigning_key\n')]:
            template = directory / f"{who}.template"
            template.write_text(text + common, encoding="ascii")
            tool("certtool", "--generate-privkey", "--key-type", "ecdsa", "--outfile", directory / f"{who}-key.pem")
            how = ["--generate-self-signed"] if who == "ca" else ["--generate-certificate", "--load-ca-certificate", directory /
                                                                  "ca-cert.pem", "--load-ca-privkey", directory / "ca-key.pem"]
            tool("certtool", *how, "--load-privkey", directory / f"{who}-key.pem", "--template", template, "--outfile",
                 directory / f"{who}-cert.pem")
    (top / "keys.psk").write_text("# who\nalice:" + "5a" * 32 + "\nbob:" + "77" * 16 + "\n", encoding="ascii")
    (top / "wrong.psk").write_text("alice:" + "5b" * 32 + "\n", encoding="ascii")
    return top


def test_tls_with_certificates(tmp_path, identities):
    source, dirs = image(tmp_path / "a.qcow2", "qcow2"), {one: identities / one for one in ("ours", "theirs")}
    with Server(source, "--port", 0, "--persistent", "--tls-certificate", dirs["ours"]) as server:
        uri = server.uri.replace("127.0.0.1", "localhost")
        port = uri.split(":")[2].strip("/")
        tool("nbdcopy", f"{uri}?tls-certificates={dirs['ours']}", tmp_path / "copy.raw")
        qemu = ["--object", f"tls-creds-x509,id=t,endpoint=client,dir={dirs['ours']}", "--image-opts"]
        tool("qemu-io", *qemu, "-c", "aio_write -P 7 1M 2M", "-c", "aio_write -P 8 4M 2M", "-c", "aio_flush", "-c",
             "read -P 8 5M 1M", f"driver=nbd,host=localhost,port={port},tls-creds=t")
        for refused in (f"{uri.replace('nbds', 'nbd')}", f"{uri}?tls-certificates={dirs['theirs']}"):
            assert tool("nbdinfo", "--size", refused, check=False).returncode != 0
        with socket.create_connection(("127.0.0.1", int(port))) as plain:
            plain.settimeout(20)
            plain.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", nbd.LIST, 0))
            plain.recv(18)
            assert struct.unpack(">QIII", plain.recv(20))[2] == 2**31 + 5  # TLS first
        with socket.create_connection(("127.0.0.1", int(port))) as plain:  # what no TLS begins with
            plain.settimeout(20)
            plain.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", nbd.STARTTLS, 0))
            plain.recv(38)
            plain.sendall(b"\x16\x03\x01\xff\xff" + bytes(70000))
        tool("nbdcopy", f"{uri}?tls-certificates={dirs['ours']}", tmp_path / "copy.raw")
    tool("qemu-img", "compare", "-F", "raw", source, tmp_path / "copy.raw")


def test_tls_with_keys(tmp_path, where, identities):
    source = image(tmp_path / "a.raw")
    with Server(source, "--socket", where, "--persistent", "--tls-psk", identities / "keys.psk") as server:
        assert server.uri == f"nbds+unix:///?socket={where}"
        uri = f"nbds+unix://alice@/?socket={where}&tls-psk-file="
        tool("nbdcopy", uri + str(identities / "keys.psk"), tmp_path / "copy.raw")
        assert (tmp_path / "copy.raw").read_bytes() == source.read_bytes()
        assert tool("nbdinfo", "--size", uri + str(identities / "wrong.psk"), check=False).returncode != 0
    (tmp_path / "bad.psk").write_text("alice\n", encoding="ascii")
    assert "line 1" in run("disk", "serve", source, "--socket", where, "--tls-psk", tmp_path / "bad.psk").stderr


# ---- clients that nobody wants ----

def memory(pid):
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


def test_hostile_clients(tmp_path, where):
    path, chance = image(tmp_path / "a.qcow2", "qcow2"), random.Random(3)
    with Server(path, "--socket", where, "--persistent", "--shared", "32") as server:
        begun = time.monotonic()
        slow = Client(where)  # says nothing at all
        slow.take(18)
        for _ in range(150):
            with Client(where) as client:
                if chance.random() < 0.5:
                    client.hello().go()
                client.send(chance.randbytes(chance.randrange(1, 5000)))
        silent = []
        for _ in range(10):  # reads 32 MiB again and again, and does not look at what comes
            client = Client(where).hello().go()
            client.send(struct.pack(">IHHQQI", 0x25609513, nbd.DF, nbd.READ, 1, 0, 24 * MIB) * 100)
            silent.append(client)
        for _ in range(10):  # announces much, and brings little
            client = Client(where).hello().go()
            client.request(nbd.WRITE, 0, 24 * MIB, 0, b"x" * 100)
            silent.append(client)
        with Client(where).hello().go() as client:  # floods
            client.send(struct.pack(">IHHQQI", 0x25609513, 0, nbd.BLOCK_STATUS, 1, 0, 4096) * 50)
            client.send(struct.pack(">IHHQQI", 0x25609513, 0, nbd.WRITE, 1, 2**63, 512) + bytes(512))
        with Client(where).hello() as client:
            thread = threading.Thread(target=lambda: pytest.raises(OSError, client.send, (
                b"IHAVEOPT" + struct.pack(">II", nbd.LIST, 0)) * 400000))
            thread.start()
            with Client(where).hello().go() as honest:
                for _ in range(50):
                    assert len(honest.do(nbd.READ, 0, MIB)) == MIB
            client.socket.shutdown(socket.SHUT_RDWR)
            thread.join(20)
        assert memory(server.child()) < 10 * 32 * MIB + 64 * MIB
        for client in silent:
            client.close()
        slow.socket.settimeout(20)
        assert slow.socket.recv(1) == b"" and time.monotonic() - begun > 10
        with Client(where).hello().go() as honest:
            assert len(honest.do(nbd.READ, 0, MIB)) == MIB
    tool("qemu-img", "check", "-q", path)


# ---- other programs ----

@pytest.mark.skipif(not shutil.which("fio"), reason="fio is not there")
def test_fio_and_nbdkit(tmp_path, where):
    path = image(tmp_path / "a.qcow2", "qcow2")
    with Server(path, "--socket", where, "--persistent") as server:
        tool("fio", "--name=t", "--ioengine=nbd", f"--uri={server.uri}", "--rw=randrw", "--bs=4k", "--iodepth=32", "--size=8M",
             "--verify=crc32c", "--do_verify=1", cwd=tmp_path)
        tool("nbdkit", "-U", "-", "nbd", f"uri={server.uri}", "shared=true", "--run",
             f"nbdcopy $uri {tmp_path / 'copy.raw'}")
    tool("qemu-img", "compare", "-F", "raw", path, tmp_path / "copy.raw")
