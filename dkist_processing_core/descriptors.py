"""
File descriptors that are held for long, in a process that runs the code of others.

An author's code may close any number, and the kernel gives the lowest free one to the next file that is opened. So what
is held for long stands at high numbers, which no file of the author's is given as long as lower ones are free, and is
known by what it is: what is not the same any more is neither written to nor closed. Not here: what is held (bus).
"""

import contextlib
import fcntl
import os
import resource
from collections.abc import Callable, Iterable, Iterator

from dkist_processing_core.trusted import Identity, close_if, identity_of

# Few tasks have so many files open at once, and each opening of a journal takes all numbers below for a moment.
_HIGH = 128
_SHARE_OF_LIMIT = 4
# As long as that of SQLite's log, which has two random numbers (https://sqlite.org/fileformat2.html#walformat).
_HEAD_BYTES = 32
taken: dict[int, Identity] = {}
"""The numbers that `low_numbers_taken` holds just now; none is a file of ours."""


def move_up(descriptor: int) -> int:
    """Return a high number for a descriptor, and close the one given; that one where no high number can be had."""
    try:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _lowest_high())
    except OSError:
        return descriptor
    close_if(descriptor, identity_of(moved))
    return moved


@contextlib.contextmanager
def low_numbers_taken() -> Iterator[None]:
    """
    Have what is opened meanwhile get high numbers, where a library opens it and does not let it be moved.

    Not beside the author's code, as far as that can be helped: it may close those that are taken, and use them.
    """
    numbers: list[int] = []
    own: Identity | None = None
    try:
        # Fewer where the limit on open files or the missing device allow no more: then what is opened is still checked.
        with contextlib.suppress(OSError):
            number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            numbers.append(number)
            own = identity_of(number)
            limit = _lowest_high()
            while numbers[-1] < limit:
                numbers.append(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, numbers[-1] + 1))
            close_if(numbers.pop(), own)
        if own is not None:
            taken.update(dict.fromkeys(numbers, own))
        yield
    finally:
        # Without `close_if`, whose calls are most of what this costs.
        for number in numbers:
            taken.pop(number, None)
            try:
                found = os.fstat(number)
                if (found.st_dev, found.st_ino) == own:
                    os.close(number)
            except OSError:
                continue


def _lowest_high() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _HIGH if limit == resource.RLIM_INFINITY else min(_HIGH, limit // _SHARE_OF_LIMIT)


def open_numbers() -> list[int]:
    """Return the numbers that this process has open, as far as can be seen: some of them may be free again."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - pathlib is slower
    except OSError:
        # No /proc, as after chroot(2).
        return list(range(_lowest_high() + _HIGH))


class Held:
    """Descriptors, and what they were when they were taken."""

    def __init__(self, numbers: Iterable[int] = (), *, has_head: Callable[[Identity], bool] | None = None) -> None:
        """
        Note what they are.

        Those of which `has_head` is true are known again by how the file begins, as long as that does not change. That
        is for a file with a random head which is written to often: after fstat(2) Linux writes a new time into it with
        the next write (multigrain timestamps, from 6.13 on).
        """
        self.identities = {number: identity_of(number) for number in numbers}
        self._heads = {
            number: b""
            for number, identity in self.identities.items()
            if has_head is not None and identity is not None and has_head(identity)
        }

    @property
    def are_ours(self) -> bool:
        """Whether each of them still is what it was, and was something."""
        try:
            for number, identity in self.identities.items():
                known = self._heads.get(number)
                # Read first: what is noted must be of the file that is looked at afterwards.
                head = None if known is None else _head_of(number)
                if head and head == known:
                    continue
                found = os.fstat(number)
                if (found.st_dev, found.st_ino) != identity:
                    return False
                if head:
                    self._heads[number] = head
        except OSError:
            return False
        return True


def _head_of(descriptor: int) -> bytes:
    try:
        return os.pread(descriptor, _HEAD_BYTES, 0)
    except OSError:
        return b""
