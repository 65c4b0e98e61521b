"""
The suite's processes and the ports on which they listen, read from /proc.

Not here: starting or stopping a service.
"""

import ipaddress
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SESSION_VARIABLE = "DKIST_CORE_TEST_SESSION"
"""Set while a session lasts and inherited by all processes that it starts: it identifies orphans."""

_PROC = Path("/proc")
_LISTEN = "0A"
_ZOMBIE = "Z"
# Of linux/netlink.h and linux/sock_diag.h.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_OF_ALL = 0x301
_ERROR, _DONE = 2, 3
# Helpers of multiprocessing, which by design end only with the interpreter that started them.
_ENDS_WITH_US = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


@dataclass(frozen=True)
class Listener:
    """
    A listening TCP socket and the address it is bound to.
    """

    address: str
    port: int
    inode: int

    @property
    def is_loopback(self) -> bool:
        """
        Whether only this machine can reach it.
        """
        address = ipaddress.ip_address(self.address)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address.is_loopback


def listeners(pids: Iterable[int] | None = None) -> list[Listener]:
    """
    List the TCP sockets that listen on this machine, or only those of the given processes.
    """
    try:
        found = [listener for family in (socket.AF_INET, socket.AF_INET6) for listener in _ask_for_listeners(family)]
    except OSError:  # a kernel without sock_diag
        found = [listener for table in ("tcp", "tcp6") for listener in _read_listeners(_PROC / "net" / table)]
    if pids is None:
        return found
    inodes = {inode for pid in pids for inode in _socket_inodes(pid)}
    return [listener for listener in found if listener.inode in inodes]


def descendants(pid: int) -> set[int]:
    """
    Return the living children of a process, their children, and so on.
    """
    children: dict[int, list[int]] = {}
    for child, parent, state in _process_table():
        if state != _ZOMBIE:
            children.setdefault(parent, []).append(child)
    found: set[int] = set()
    unseen = [pid]
    while unseen:
        for child in children.get(unseen.pop(), []):
            found.add(child)
            unseen.append(child)
    return found


def marked(session: str) -> set[int]:
    """
    Return the living processes that were started within the named session.
    """
    return with_environment(SESSION_VARIABLE, session)


def with_environment(name: str, value: str) -> set[int]:
    """
    Return the living processes whose environment holds a variable with this value.
    """
    entry = f"{name}={value}".encode()
    found = set()
    for pid, _, state in _process_table():
        # The process belongs to another user, or has ended.
        with suppress(OSError):
            if state != _ZOMBIE and entry in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found


def is_alive(pid: int) -> bool:
    """
    Whether the process runs; one that has ended and was not yet waited for does not.
    """
    return any(state != _ZOMBIE for found, _, state in _process_table() if found == pid)


def command_line(pid: int) -> str:
    """
    Return the command of a process, empty when it has none or has ended.
    """
    with suppress(OSError):
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def wait_for_end(pids: Iterable[int], timeout: float) -> set[int]:
    """
    Wait until the processes have ended, and return those that have not in time.
    """
    deadline = time.monotonic() + timeout
    poll = select.poll()
    waiting: dict[int, int] = {}
    try:
        for pid in pids:
            # An ended process has no descriptor any more.
            with suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                waiting[descriptor] = pid
                poll.register(descriptor, select.POLLIN)
        while waiting and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                poll.unregister(descriptor)
                os.close(descriptor)
                del waiting[descriptor]
        return set(waiting.values())
    finally:
        for descriptor in waiting:
            os.close(descriptor)


class SessionWatch:
    """
    Checks that a test session opens no port to the network and leaves no process behind.

    The session's processes are this process, its descendants, and orphans that carry the session's mark.
    """

    def __init__(self, session: str) -> None:
        """
        Record the processes that existed before the session, which is named by the value of its variable.
        """
        self._session = session
        self._before = descendants(os.getpid())
        self._strangers = {listener.inode for listener in listeners() if not listener.is_loopback}

    def assert_loopback_only(self) -> None:
        """
        Fail if a listener of the session can be reached from other machines.

        Cheap enough for every test: the kernel lists the listeners, and owners are only searched for new sockets.
        """
        for listener in listeners():
            if listener.is_loopback or listener.inode in self._strangers:
                continue
            owners = [pid for pid in self._ours() if listener.inode in _socket_inodes(pid)]
            if owners:
                raise AssertionError(
                    f"process {owners[0]} ({command_line(owners[0])}) listens on {listener.address}:{listener.port}; "
                    f"bind 127.0.0.1, so that nothing but this machine can reach a test"
                )
            self._strangers.add(listener.inode)

    def assert_nothing_left(self, timeout: float = 5.0) -> None:
        """
        Fail if a process of the session still runs after the timeout, and end it.
        """
        candidates = {
            pid
            for pid in self._ours() - self._before - {os.getpid()}
            if not any(helper in command_line(pid) for helper in _ENDS_WITH_US)
        }
        left = sorted(wait_for_end(candidates, timeout))
        if left:
            commands = "; ".join(f"{pid}: {command_line(pid)}" for pid in left)
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"the tests left processes behind (now ended): {commands}")

    def _ours(self) -> set[int]:
        return {os.getpid()} | descendants(os.getpid()) | marked(self._session)


def _ask_for_listeners(family: int) -> Iterator[Listener]:
    """
    Request the listening sockets from the kernel (sock_diag(7)).

    It reads only these, while the tables of /proc contain all connections: 10 ms with each test.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        request = struct.pack("=BBxxI48x", family, socket.IPPROTO_TCP, 1 << int(_LISTEN, 16))
        header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST_OF_ALL, 0, 0)
        netlink.send(header + request)
        while True:
            answer = netlink.recv(1 << 16)
            while answer:
                size, kind = struct.unpack_from("=IH", answer)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError("the kernel does not answer this")
                # Of struct inet_diag_msg: the port, the address, and the inode.
                (port,) = struct.unpack_from("!H", answer, 20)
                address = socket.inet_ntop(family, answer[24 : 24 + (4 if family == socket.AF_INET else 16)])
                (inode,) = struct.unpack_from("=I", answer, 84)
                yield Listener(address=address, port=port, inode=inode)
                answer = answer[(size + 3) & ~3 :]


def _read_listeners(table: Path) -> Iterator[Listener]:
    # A kernel without IPv6 has no such table.
    with suppress(FileNotFoundError):
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN:
                address, port = fields[1].split(":")
                yield Listener(address=_to_address(address), port=int(port, 16), inode=int(fields[9]))


def _to_address(hexadecimal: str) -> str:
    """
    Convert an address from the form of /proc/net/tcp: 32-bit words in the byte order of the machine.
    """
    words = (int(hexadecimal[at : at + 8], 16) for at in range(0, len(hexadecimal), 8))
    return str(ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words)))


def _socket_inodes(pid: int) -> set[int]:
    inodes = set()
    # The process, or one of its descriptors, may be gone, or belong to another user.
    with suppress(OSError):
        for descriptor in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    inodes.add(int(target[len("socket:[") : -1]))
    return inodes


def _process_table() -> Iterator[tuple[int, int, str]]:
    """
    Return the number, the parent and the state of every process.
    """
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                # The command is in parentheses and may contain any character: read from the last one on.
                state, parent = (
                    (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:2]
                )
                yield int(entry.name), int(parent), state
