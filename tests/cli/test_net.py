# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian guest on a network: addresses and names, traffic both ways with equal bytes, published ports, a network
whose process dies. Everything stays on this host's loopback."""
import contextlib
import ctypes
import hashlib
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from program import BUILD, GUESTS, TABIQUE, initrd_with, run
from test_linux import BOOT, PROMPT, Guest

GATEWAY = "10.0.2.2"
TRANSFER = int(os.environ.get("TABIQUE_TRANSFER_MIB", "48")) << 20  # bytes; a guest in software does some 50 MiB/s
SLOW = 60 + TRANSFER // (1 << 20)  # seconds for that much on a busy host

only_trixie = pytest.mark.parametrize("suite", ["trixie"], indirect=True)
only_bookworm = pytest.mark.parametrize("suite", ["bookworm"], indirect=True)


def with_pump(suite):
    """The suite's initramfs with tests/cli/pump.c as /tests/pump."""
    return initrd_with(suite, "initrd-pump.gz", "--add", f"tests/pump={BUILD / 'tests/cli/pump'}")


def boot(engine, suite, *args, **options):
    return Guest(engine, suite, *args, append="quiet", initrd=with_pump(suite), **options)


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

    def __init__(self, handle, listener=None):
        self.listener = listener or socket.create_server(("127.0.0.1", 0))
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


def send_random(guest, size, address, port):
    """Has the guest send `size` random bytes; their hash, and how many."""
    guest.ask("rm -f /tmp/p; mkfifo /tmp/p")
    said = guest.ask(f"(sha256sum </tmp/p >/tmp/h & head -c {size} /dev/urandom | tee /tmp/p | nc {address} {port}; wait); "
                     "cat /tmp/h", SLOW)
    return said.split()[0], size


def wait_for_one(received):
    deadline = time.monotonic() + SLOW
    while not received and time.monotonic() < deadline:
        time.sleep(0.05)
    return received.pop()


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
            assert send_random(guest, size, GATEWAY, up.port) == wait_for_one(received)
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
        guest.expect(rb"tabique: a network of the guest is gone\r\n")
        guest.send(b"\r")
        guest.expect(PROMPT)
        deadline = time.monotonic() + 30
        while guest.ask("cat /sys/class/net/eth0/carrier") != "0":
            assert time.monotonic() < deadline
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


# ---- tap devices, in a network namespace that is made for the test ----

HOST, INSIDE = "192.168.77.1", "192.168.77.2"
CLONE_NEWNET = 0x40000000


class Namespace:
    """A network namespace; what is made in it goes with it."""

    def __init__(self):
        self.name = f"tabique-test-{os.getpid()}"
        self.prefix = ["ip", "netns", "exec", self.name]

    def __enter__(self):
        result = subprocess.run(["ip", "netns", "add", self.name], capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip(f"no network namespace can be made here: {result.stderr.strip()}")
        return self

    def __exit__(self, *_):
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def ip(self, command):
        subprocess.run(["ip", "-n", self.name, *command.split()], check=True)

    def tap(self, name, *flags):
        """A tap interface with an address, switched on."""
        self.ip(" ".join(["tuntap add mode tap", *flags, "name", name]))
        self.ip(f"addr add {HOST}/24 dev {name}")
        self.ip(f"link set {name} up")

    def run(self, *args):
        return subprocess.run([*self.prefix, TABIQUE, *map(str, args)], capture_output=True, text=True, timeout=60,
                              stdin=subprocess.DEVNULL, check=False)

    def inside(self, make):
        """What `make` returns, called inside: a socket stays where it was made."""
        made = []

        def enter():
            with open(f"/run/netns/{self.name}", "rb") as f:
                if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(make())
        thread = threading.Thread(target=enter)  # a namespace is a thread's
        thread.start()
        thread.join()
        return made[0]

    def server(self, handle):
        return Server(handle, self.inside(lambda: socket.create_server((HOST, 0))))


@pytest.fixture
def namespace():
    if os.geteuid() != 0:
        pytest.skip("network namespaces and tap interfaces need root")
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("this host has no tap interfaces: /dev/net/tun is missing")
    with Namespace() as made:
        yield made


def set_address(guest):
    guest.ask(f"ip addr add {INSIDE}/24 dev eth0; ip link set eth0 up")
    assert "2 packets received" in guest.ask(f"ping -c 2 -W 20 {HOST}")


def transfer(guest, namespace, size=TRANSFER):
    """Both ways, through everything that the kernel can leave to a card."""
    block = random.Random(2).randbytes(1 << 20)
    received = []

    def give(connection):
        for _ in range(size >> 20):
            connection.sendall(block)

    with namespace.server(give) as down, namespace.server(lambda c: received.append(read_all(c))) as up:
        expected = hashlib.sha256(block * (size >> 20)).hexdigest()
        assert guest.ask(f"nc {HOST} {down.port} </dev/null | sha256sum", SLOW).split()[0] == expected
        assert send_random(guest, size, HOST, up.port) == wait_for_one(received)


@only_trixie
def test_tap(engine, suite, namespace):
    namespace.tap("tap0")
    with boot(engine, suite, "--net", "tap=tap0", prefix=namespace.prefix) as guest:
        guest.shell()
        set_address(guest)
        transfer(guest, namespace)
        assert guest.ask("ls /sys/class/net/eth0/queues").split() == ["rx-0", "tx-0"]
        # In use; and gone under the guest's hands.
        result = namespace.run("run", "--kernel", GUESTS / suite / "vmlinuz", "--net", "tap=tap0")
        assert result.returncode == 1
        assert "network: interface 'tap0' is in use by another guest or program" in result.stderr
        namespace.ip("link del tap0")
        guest.expect(rb"a network of the guest is gone\r\n", 60)
        guest.send(b"\r")
        guest.expect(PROMPT)
        assert guest.ask("cat /sys/class/net/eth0/carrier") == "0"
        end(guest)


@only_bookworm
def test_tap_with_queues(engine, suite, namespace):
    namespace.tap("tap0", "multi_queue")
    with boot(engine, suite, "--net", "tap=tap0", "--cpus", "2", prefix=namespace.prefix) as guest:
        guest.shell()
        set_address(guest)
        assert guest.ask("ls /sys/class/net/eth0/queues").split() == ["rx-0", "rx-1", "tx-0", "tx-1"]
        with namespace.server(lambda c: c.sendall(read_all(c)[0].encode())) as server:
            for cpu in (0, 1):
                text = guest.ask(f"seq 1 200000 >/tmp/f; sha256sum </tmp/f; taskset -c {cpu} nc {HOST} {server.port} </tmp/f",
                                 SLOW).split()
                assert text[0] == text[2]
        # Each processor sends by a queue of its own, and the kernel answers on the same.
        interrupts = guest.ask("grep 'virtio.-input[.]' /proc/interrupts").splitlines()
        assert len(interrupts) == 2
        assert all(sum(map(int, line.split()[1:3])) > 0 for line in interrupts)
        end(guest)


def test_tap_errors(namespace, echo_guest):
    namespace.tap("tap0")

    def message(net, **options):
        result = subprocess.run([*namespace.prefix, TABIQUE, "run", "--kernel", str(echo_guest), "--net", net],
                                capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False, **options)
        assert result.returncode == 1
        assert result.stdout == ""
        return result.stderr

    assert "no interface 'tap9': make it with 'ip tuntap add mode tap tap9', or give tap=tap9,create" in message("tap=tap9")
    assert "interface 'lo' is no tap interface" in message("tap=lo")
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed")
    namespace.prefix += ["setpriv", "--reuid", "65534", "--clear-groups", "--inh-caps", "-all", "--bounding-set", "-all"]
    home = dict(os.environ, TABIQUE_HOME="/tmp/tabique-nobody")
    assert "interface 'tap0': no permission" in message("tap=tap0", env=home)


@only_bookworm
def test_tap_that_is_made(engine, suite, namespace):
    with boot(engine, suite, "--net", "tap=tap7,create", prefix=namespace.prefix) as guest:
        guest.shell()
        namespace.ip(f"addr add {HOST}/24 dev tap7")
        set_address(guest)
        end(guest)
    # It went with the guest.
    assert subprocess.run(["ip", "-n", namespace.name, "link", "show", "tap7"], capture_output=True, check=False).returncode


# ---- names: the host's name servers, of every sort ----

def udp_socket(address, port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, port))
    return s


def answer_names(s):
    """A name server that knows one address for everything."""
    with contextlib.suppress(OSError):
        while True:
            query, client = s.recvfrom(512)
            question = query[12:query.index(b"\0", 12) + 5]
            is_a = question[-4:-2] == b"\0\1"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\7" if is_a else b""
            s.sendto(query[:2] + b"\x81\x80\0\1" + bytes([0, int(is_a)]) + b"\0\0\0\0" + question + record, client)


@only_trixie
@pytest.mark.parametrize("servers, known", [
    ("nameserver 127.0.0.53\noptions edns0\n", True), ("", False), ("nameserver fe80::1%lo\nnameserver fe80::1%none\n", False),
], ids=["local resolver", "none", "link-local"])
def test_name_servers(engine, suite, namespace, tmp_path, servers, known):
    """The guest's is always 10.0.2.3; what stands behind it is the host's affair."""
    namespace.ip("link set lo up")
    namespace.ip("link add veth0 type veth peer name veth1")
    for end_of_it in ("veth0", "veth1"):
        namespace.ip(f"link set {end_of_it} up")
    namespace.ip("-6 addr add 2001:db8::1/64 dev veth0 nodad")
    namespace.ip("-6 route add default dev veth0")  # so that guests get IPv6 as well
    (tmp_path / "resolv.conf").write_text(servers)
    namespace.prefix += ["unshare", "-m", "sh", "-c", f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec \"$@\"", "sh"]
    with namespace.inside(lambda: udp_socket("127.0.0.53", 53)) as resolver, boot(engine, suite, prefix=namespace.prefix) as guest:
        threading.Thread(target=answer_names, args=[resolver], daemon=True).start()
        guest.shell()
        configure(guest)
        started = time.monotonic()
        said = guest.ask("nslookup -type=a tabique.example 2>&1")
        assert ("192.0.2.7" in said) == known
        assert time.monotonic() - started < 60
        # IPv6, by router advertisement; and the network is still there.
        deadline = time.monotonic() + 60
        while not re.search(r"inet6 fec0:[^\n]* scope site", guest.ask("ip -6 addr show dev eth0")):
            assert time.monotonic() < deadline
        assert "2 packets received" in guest.ask("ping -6 -c 2 -W 20 fec0::2")
        assert "2 packets received" in guest.ask(f"ping -c 2 -W 20 {GATEWAY}")
        end(guest)
