# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian guest on a network: addresses and names, traffic both ways with equal bytes, published ports, a network
whose process dies. Everything stays on this host's loopback."""
import contextlib
import hashlib
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from program import BUILD, GUESTS, TREE, run
from test_linux import BOOT, PROMPT, Guest

GATEWAY = "10.0.2.2"
TRANSFER = int(os.environ.get("TABIQUE_TRANSFER_MIB", "48")) << 20  # bytes; a guest in software does some 50 MiB/s
SLOW = 60 + TRANSFER // (1 << 20)  # seconds for that much on a busy host

only_trixie = pytest.mark.parametrize("suite", ["trixie"], indirect=True)
only_bookworm = pytest.mark.parametrize("suite", ["bookworm"], indirect=True)


def with_pump(suite):
    """The suite's initramfs with tests/cli/pump.c as /tests/pump."""
    name = "initrd-pump.gz"
    subprocess.run([TREE / "tools/fetch-guest", "--suite", suite, "--out", GUESTS / suite, "--initrd", name, "--quiet",
                    "--add", f"tests/pump={BUILD / 'tests/cli/pump'}"], check=True, stdin=subprocess.DEVNULL)
    return GUESTS / suite / name


def boot(engine, suite, *args, append=""):
    return Guest(engine, suite, *args, append=f"quiet {append}", initrd=with_pump(suite))


def configure(guest, interface="eth0"):
    """By DHCP, as a guest would; what the client says."""
    return guest.ask(f"udhcpc -i {interface} -n -q -t 20 -s /tests/udhcpc-script 2>&1")


def end(guest):
    guest.send(b"exit\r")
    assert guest.wait(BOOT) == 0


def free_port(kind=socket.SOCK_STREAM):
    """One that nobody had a moment ago."""
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A TCP server on loopback that gives each connection to `handle`, one at a time."""

    def __init__(self, handle):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.handle = handle
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                with connection:
                    connection.settimeout(SLOW)
                    with contextlib.suppress(OSError):
                        self.handle(connection)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def read_all(connection):
    digest, size = hashlib.sha256(), 0
    while data := connection.recv(1 << 20):
        digest.update(data)
        size += len(data)
    return digest.hexdigest(), size


def net_process(guest):
    """The pid of the process that speaks for the guest: a child of the supervisor's."""
    for path in pathlib.Path(f"/proc/{guest.pid}/task/{guest.pid}").glob("children"):
        for pid in path.read_text().split():
            if pathlib.Path(f"/proc/{pid}/comm").read_text().strip() == "tabique-net":
                return int(pid)
    raise AssertionError("no process of the network's")


def test_addresses_names_and_ping(engine, suite):
    with boot(engine, suite, "--mac", "52:54:00:ab:cd:ef", "--cpus", "2") as guest:
        guest.shell()
        assert guest.ask("cat /sys/class/net/eth0/address") == "52:54:00:ab:cd:ef"
        assert "lease of 10.0.2.15 obtained from 10.0.2.2" in configure(guest)
        assert guest.ask("cat /etc/resolv.conf") == "nameserver 10.0.2.3"
        assert re.search(r"3 packets transmitted, 3 packets received", guest.ask(f"ping -c 3 -W 20 {GATEWAY}"))
        # Whether or not there is a name server behind it, the answer comes at once.
        started = time.monotonic()
        guest.ask("nslookup localhost.invalid 10.0.2.3")
        assert time.monotonic() - started < 30
        # The guest's own loopback addresses are no way to the host's.
        with Server(lambda c: c.sendall(b"leaked")) as server:
            guest.ask("ip route add 127.0.0.2/32 via 10.0.2.2 dev eth0; ip route add local 127.0.0.1/32 dev lo")
            assert "leaked" not in guest.ask(f"nc -w 3 127.0.0.2 {server.port} </dev/null")
            assert guest.ask(f"nc -w 20 {GATEWAY} {server.port} </dev/null") == "leaked"
        end(guest)


def test_transfer_both_ways(engine, suite):
    block = random.Random(1).randbytes(1 << 20)
    expected = hashlib.sha256(block * (TRANSFER >> 20)).hexdigest()
    received = []

    def give(connection):
        for _ in range(TRANSFER >> 20):
            connection.sendall(block)

    with Server(give) as down, Server(lambda c: received.append(read_all(c))) as up, \
            boot(engine, suite, "--memory", "512M") as guest:
        guest.shell()
        configure(guest)
        assert guest.ask(f"nc {GATEWAY} {down.port} </dev/null | sha256sum", SLOW).split()[0] == expected
        # The last packet is not larger than what is left; both shapes of it.
        for size in (TRANSFER, 100001):
            sent = guest.ask(f"head -c {size} /dev/urandom >/tmp/f; sha256sum </tmp/f; nc {GATEWAY} {up.port} </tmp/f", SLOW)
            deadline = time.monotonic() + SLOW
            while not received and time.monotonic() < deadline:
                time.sleep(0.05)
            assert received.pop() == (sent.split()[0], size)
        assert guest.ask("cat /sys/class/net/eth0/statistics/rx_errors /sys/class/net/eth0/statistics/rx_dropped "
                         "/sys/class/net/eth0/statistics/tx_dropped").split() == ["0"] * 3
        end(guest)


@only_bookworm
def test_small_packets(engine, suite):
    """Without the large packets and without anything left to the device, as simpler drivers do it."""
    with Server(lambda c: c.sendall(read_all(c)[0].encode())) as server, boot(engine, suite) as guest:
        guest.shell()
        guest.ask("ip link set eth0 mtu 1500")
        configure(guest)
        text = guest.ask(f"seq 1 100000 >/tmp/f; sha256sum </tmp/f; nc {GATEWAY} {server.port} </tmp/f", SLOW).split()
        assert text[0] == text[2]
        end(guest)


@only_trixie
def test_published_ports(engine, suite):
    tcp, udp = free_port(), free_port(socket.SOCK_DGRAM)
    with boot(engine, suite, "--publish", f"127.0.0.1:{tcp}:80", "--publish", f"udp:127.0.0.1:{udp}:7") as guest:
        guest.shell()
        configure(guest)
        guest.ask("(while true; do echo hello-from-guest | nc -l -p 80; done) >/dev/null 2>&1 &")
        guest.ask("/tests/pump echo 7 >/dev/null 2>&1 &")
        for _ in range(3):
            assert ask_tcp(tcp) == b"hello-from-guest\n"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(5)
            s.connect(("127.0.0.1", udp))
            for _ in range(10):
                with contextlib.suppress(OSError):
                    s.send(b"echo this")
                    assert s.recv(100) == b"echo this"
                    break
            else:
                raise AssertionError("no answer by UDP")
        end(guest)
    # The port is free again.
    socket.create_server(("127.0.0.1", tcp)).close()


def ask_tcp(port):
    """What a published port says; the guest's server may not be there yet or just between two connections."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as s:
                if data := s.recv(100):
                    return data
        time.sleep(0.2)
    raise AssertionError("no answer")


@pytest.mark.parametrize("kind, prefix", [(socket.SOCK_STREAM, ""), (socket.SOCK_DGRAM, "udp:")], ids=["tcp", "udp"])
def test_port_in_use(kind, prefix, echo_guest):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            s.listen()
        port = s.getsockname()[1]
        result = run("run", "--kernel", echo_guest, "--publish", f"{prefix}{port}:80")
    assert result.returncode == 1
    assert f"network: {'UDP' if prefix else 'TCP'} port {port} is in use on this host: publish another" in result.stderr
    assert result.stdout == ""


def test_no_address_of_this_host(echo_guest):
    result = run("run", "--kernel", echo_guest, "--publish", "192.0.2.123:8080:80")
    assert result.returncode == 1
    assert "192.0.2.123 is no address of this host" in result.stderr


@only_trixie
def test_dead_network_unplugs_the_cable(engine, suite):
    with boot(engine, suite) as guest:
        guest.shell()
        configure(guest)
        assert guest.ask("cat /sys/class/net/eth0/carrier") == "1"
        os.kill(net_process(guest), signal.SIGKILL)
        deadline = time.monotonic() + 30
        while guest.ask("cat /sys/class/net/eth0/carrier") != "0":
            assert time.monotonic() < deadline
        assert "100% packet loss" in guest.ask(f"ping -c 1 -W 1 {GATEWAY}") or True
        assert guest.ask("echo alive") == "alive"
        # The driver may come and go; the cable stays out.
        guest.ask("rmmod virtio_net; modprobe virtio_net; ip link set eth0 up")
        assert guest.ask("cat /sys/class/net/eth0/carrier") == "0"
        end(guest)


@only_bookworm
def test_reboot_and_driver_reload(engine, suite):
    """After each reset the card works as at first."""
    with boot(engine, suite, "--cpus", "2") as guest:
        guest.shell()
        for _ in range(3):
            guest.ask("ip link set eth0 up; rmmod virtio_net; modprobe virtio_net")
            assert "lease of 10.0.2.15" in configure(guest)
            assert "2 packets received" in guest.ask(f"ping -c 2 -W 20 {GATEWAY}")
        guest.send(b"reboot -f\r")
        guest.expect(rb"reached", BOOT)
        guest.expect(PROMPT, BOOT)
        guest.ask("stty -echo")
        assert "lease of 10.0.2.15" in configure(guest)
        assert "2 packets received" in guest.ask(f"ping -c 2 -W 20 {GATEWAY}")
        end(guest)


@only_trixie
def test_two_cards_and_none(engine, suite):
    with boot(engine, suite, "--net", "user", "--net", "user,restrict", "--mac", "52:54:00:00:00:01") as guest:
        guest.shell()
        addresses = guest.ask("cat /sys/class/net/eth*/address").split()
        assert addresses[0] == "52:54:00:00:00:01"
        assert addresses[1].startswith("52:74:") and addresses[1] != addresses[0]
        assert "lease of 10.0.2.15" in configure(guest, "eth0")
        assert "lease of 10.0.3.15" in configure(guest, "eth1")
        with Server(lambda c: c.sendall(b"reached")) as server:
            assert guest.ask(f"nc -w 20 {GATEWAY} {server.port} </dev/null") == "reached"
            assert guest.ask(f"nc -w 3 10.0.3.2 {server.port} </dev/null 2>/dev/null") == ""
        end(guest)
    with boot(engine, suite, "--net", "none") as guest:
        guest.shell()
        assert guest.ask("ls /sys/class/net") == "lo"
        end(guest)


@only_trixie
def test_processes_end_together(engine, suite):
    """The network's process goes with its supervisor, however that ends."""
    with boot(engine, suite) as guest:
        guest.shell()
        pid = net_process(guest)
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^CapEff:\s*0+$", status, re.M)
        assert re.search(r"^NoNewPrivs:\s*1$", status, re.M)
        assert re.search(r"^Seccomp:\s*2$", status, re.M)
        guest.kill(signal.SIGKILL)
        deadline = time.monotonic() + 20
        while pathlib.Path(f"/proc/{pid}").exists() and "Z" not in \
                pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
