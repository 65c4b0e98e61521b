"""
What the processes of a task have used, and what they hold now: read from /proc (proc(5)) for the whole family.

The kernel adds what a process has used to its parent when the parent waits for it. So the sum over the living
processes is the sum over all of them, except for processes whose parent died or ignores SIGCHLD: these are followed by
their pid, and their last values are kept. Not here: when the files are read (_sampling), memory that processes share
(_shared_memory), and control groups (_control_groups).
"""

# ruff: noqa: PTH116, PTH208 - a launcher reads these files before it imports anything else, and often: pathlib is slow
import contextlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from dkist_processing_core.launcher._shared_memory import Resident, SharedMemory

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Processor times in stat are whole ticks, so a sum of two of them may be this much smaller than its parts.
_TOLERANCE_SECONDS = 2.0 / _TICKS
_CHUNK = 64 * 1024


class Usage(NamedTuple):
    """What a process has used since its start, and the children that it has waited for."""

    cpu_user_seconds: float = 0.0
    cpu_system_seconds: float = 0.0
    rchar: int = 0
    wchar: int = 0
    syscr: int = 0
    syscw: int = 0
    read_bytes: int = 0
    write_bytes: int = 0

    @property
    def processor_seconds(self) -> float:
        """User and system time together."""
        return self.cpu_user_seconds + self.cpu_system_seconds


_IO = tuple(name.encode() for name in Usage._fields[2:])


def total(usages: Iterable[Usage]) -> Usage:
    """Return the sum of some usages."""
    return Usage._make(map(sum, zip(Usage(), *usages, strict=True)))


class Stat(NamedTuple):
    """The fields of one process's stat file that are of use here."""

    state: str
    parent: int
    usage: Usage
    """Without the bytes and calls, which another file has."""
    children_seconds: float
    """The part of the processor time that the children used that it has waited for."""
    threads: int
    started: int
    """The time of the start in ticks: together with the pid it identifies a process."""
    rss: int
    stack: int
    """The address at which the stack starts; 0 if it is not known."""

    @property
    def is_zombie(self) -> bool:
        """Whether the process has ended, so that only its accounts are left."""
        return self.state in ("Z", "X", "x")


def stat_of(text: bytes) -> Stat | None:
    """Return what a stat file states; None for one that cannot be read."""
    # The name in parentheses may contain blanks and parentheses.
    fields = text.rpartition(b")")[2].split()
    try:
        user, system, waited_user, waited_system = map(int, fields[11:15])
        return Stat(
            state=fields[0].decode(),
            parent=int(fields[1]),
            usage=Usage((user + waited_user) / _TICKS, (system + waited_system) / _TICKS),
            children_seconds=(waited_user + waited_system) / _TICKS,
            threads=int(fields[17]),
            started=int(fields[19]),
            rss=int(fields[21]) * _PAGE,
            stack=int(fields[25]),
        )
    except (ValueError, IndexError):
        return None


def io_of(text: bytes) -> tuple[int, ...] | None:
    """Return the bytes and calls of an io file in the order of `Usage`; None for one that cannot be read."""
    try:
        found = dict(line.split(b": ", 1) for line in text.splitlines())
        return tuple(int(found[name]) for name in _IO)
    except (ValueError, KeyError):
        return None


def high_water_of(text: bytes) -> int | None:
    """Return the largest resident size in bytes, VmHWM of a status file; None for one without it, as of a zombie."""
    _, found, rest = text.partition(b"VmHWM:")
    try:
        return int(rest[: rest.index(b"kB")]) * 1024 if found else None
    except ValueError:
        return None


class Member:
    """One process of the family, as it was read last."""

    __slots__ = ("io", "pid", "stat")

    def __init__(self, pid: int, stat: Stat, io: tuple[int, ...] | None) -> None:
        """Store what was read; `io` is None where its file is not readable."""
        self.pid = pid
        self.stat = stat
        self.io = io

    @property
    def usage(self) -> Usage:
        """What it has used, and the children that it has waited for."""
        return self.stat.usage if self.io is None else Usage(*self.stat.usage[:2], *self.io)


class Moment(NamedTuple):
    """What the living processes of a family hold together at one moment."""

    rss: int = 0
    """The resident memory, of which pages that they share count once."""
    processes: int = 0
    threads: int = 0
    open_files: int = 0


class Family:
    """A process and its descendants, also after they have got another parent."""

    def __init__(self, pid: int) -> None:
        """Store the pid of the first process, a child of this one. Nothing is read."""
        self._pid = pid
        self._members: dict[int, Member] = {}
        # The usage of processes that have ended and that no other member counts.
        self._departed = Usage()
        self._reaped: deque[tuple[int, Usage]] = deque()
        self.used = Usage()
        """What all processes have used so far; it never falls."""
        self.moment = Moment()
        """The state at the last look."""
        self.peak: Moment = Moment()
        """The largest value of each field at any look."""
        self.largest_process: int | None = None
        """The largest resident size that any single process has had, in bytes; None before it is known."""
        self.shared_memory = SharedMemory()
        """The memory that they share."""
        self.has_io = False
        """Whether bytes and calls are known."""

    def look(self) -> None:
        """Read the files of all processes, and add what they state."""
        known = self._members
        present: dict[int, Member] = {}
        threads = files = 0
        living: list[Resident] = []
        # Parents come first: a child whose parent waits for it in the meantime is then missing, not counted twice.
        queue = [self._pid, *known]
        for pid in queue:
            if pid in present:
                continue
            member = _read_member(pid)
            if member is None or (pid in known and known[pid].stat.started != member.stat.started):
                continue
            present[pid] = member
            if not member.stat.is_zombie:
                stat = member.stat
                living.append(Resident(pid, stat.started, stat.parent, stat.stack, stat.rss))
                threads += member.stat.threads
                files += _open_files(pid)
                self._note_high_water(pid)
                queue.extend(_children(pid, member.stat.threads))
        self._settle(present)
        self._members = present
        self.has_io = self.has_io or (self._pid in present and present[self._pid].io is not None)
        self._add_up()
        if living:
            resident = self.shared_memory.held(living)
            self.moment = Moment(resident, len(living), threads, files)
            highest = max(resident, self.largest_process or 0)
            self.peak = Moment(*map(max, self.peak, self.moment._replace(rss=highest)))

    def reaped(self, pid: int, usage: Usage) -> None:
        """Record what a descendant has used whose status this process takes itself; call it before that."""
        self._reaped.append((pid, usage))

    def _note_high_water(self, pid: int) -> None:
        found = high_water_of(_read(f"/proc/{pid}/status"))
        if found is not None:
            self.largest_process = max(found, self.largest_process or 0)

    def _add_up(self) -> None:
        whole = total([self._departed, *(member.usage for member in self._members.values())])
        self.used = Usage._make(map(max, self.used, whole))

    def _settle(self, present: dict[int, Member]) -> None:
        """Keep the usage of the processes that are gone, unless another one counts it now."""
        while self._reaped:
            pid, usage = self._reaped.popleft()
            present.pop(pid, None)
            self._members.pop(pid, None)
            self._departed = total([self._departed, usage])
        gone = [member for pid, member in self._members.items() if pid not in present]
        # The growth of the children's part of each member: one that has waited for a process has at least its time.
        before = {pid: member.stat.children_seconds for pid, member in self._members.items()}
        grown = {pid: member.stat.children_seconds - before.get(pid, 0.0) for pid, member in present.items()}
        for member in sorted(gone, key=lambda each: each.usage.processor_seconds, reverse=True):
            heir = self._heir(member, present)
            used = member.usage.processor_seconds
            if heir is not None and grown[heir] + _TOLERANCE_SECONDS >= used:
                grown[heir] -= used
            else:
                self._departed = total([self._departed, member.usage])

    def _heir(self, member: Member, present: dict[int, Member]) -> int | None:
        """Return the nearest ancestor that is present; None if the process had no ancestor in the family."""
        seen = set()
        parent = member.stat.parent
        while parent not in present:
            if parent in seen or parent not in self._members:
                return None
            seen.add(parent)
            parent = self._members[parent].stat.parent
        return parent


def usage_of(pid: int) -> Usage:
    """Return what a process has used that has ended, before its status is taken."""
    member = _read_member(pid)
    return Usage() if member is None else member.usage


def _read_member(pid: int) -> Member | None:
    stat = stat_of(_read(f"/proc/{pid}/stat"))
    return None if stat is None else Member(pid, stat, io_of(_read(f"/proc/{pid}/io")))


def _children(pid: int, threads: int) -> Iterator[int]:
    names: Iterable[str] = (str(pid),)
    if threads > 1:
        names = _listed(f"/proc/{pid}/task")
    for thread in names:
        yield from map(int, _read(f"/proc/{pid}/task/{thread}/children").split())


def _open_files(pid: int) -> int:
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        # The size is the number of open files from Linux 6.2 on, and 0 before.
        return os.stat(folder).st_size or len(os.listdir(folder))
    return 0


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _read(path: str) -> bytes:
    """Return a file's content; b"" if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        text = chunk = os.read(descriptor, _CHUNK)
        # The kernel gives a long list in parts.
        while len(chunk) >= _PAGE // 2:
            chunk = os.read(descriptor, _CHUNK)
            text += chunk
    except OSError:
        # The process has ended in the meantime.
        return b""
    finally:
        os.close(descriptor)
    return text
