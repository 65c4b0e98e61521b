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
from collections.abc import Iterable, Iterator

# Few tasks have so many files open at once, and each opening of a journal takes all numbers below for a moment.
_HIGH = 128
_SHARE_OF_LIMIT = 4
# A place that no file of the author's is at by chance, and that fits the largest files of any file system.
_MARK = 2**40 + int.from_bytes(os.urandom(4), "big")
Identity = tuple[int, int]
"""What tells an open file from others: its device and its number there."""


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
    taken: list[int] = []
    own: Identity | None = None
    try:
        # Fewer where the limit on open files or the missing device allow no more: then what is opened is still checked.
        with contextlib.suppress(OSError):
            number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            taken.append(number)
            own = identity_of(number)
            limit = _lowest_high()
            while taken[-1] < limit:
                taken.append(fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, taken[-1] + 1))
            os.close(taken.pop())
        yield
    finally:
        # Without `close_if`, whose calls are most of what this costs.
        for number in taken:
            try:
                found = os.fstat(number)
                if (found.st_dev, found.st_ino) == own:
                    os.close(number)
            except OSError:
                continue


def close_if(descriptor: int, identity: Identity | None) -> None:
    """Close a descriptor if it is what it was: another thread may have closed it, and opened a file of its number."""
    if identity_of(descriptor) == identity:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def _lowest_high() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _HIGH if limit == resource.RLIM_INFINITY else min(_HIGH, limit // _SHARE_OF_LIMIT)


def identity_of(descriptor: int) -> Identity | None:
    """Return what a descriptor is; None for a number that is free."""
    try:
        found = os.fstat(descriptor)
    except (OSError, OverflowError):
        return None
    return found.st_dev, found.st_ino


def open_numbers() -> list[int]:
    """Return the numbers that this process has open, as far as can be seen: some of them may be free again."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - pathlib is slower
    except OSError:
        # No /proc, as after chroot(2).
        return list(range(_lowest_high() + _HIGH))


class Held:
    """Descriptors, and what they were when they were taken."""

    def __init__(self, numbers: Iterable[int] = (), *, marked: bool = False) -> None:
        """
        Note what they are.

        Those of files in which nobody needs a current place (lseek(2)) may be `marked` by that place. Then they are
        known again without fstat(2), which is slower, and slows down the next write to the file.
        """
        self.identities = {number: identity_of(number) for number in numbers}
        self._is_marked = marked and all(_is_marked(number) for number in self.identities)

    @property
    def are_ours(self) -> bool:
        """Whether each of them still is what it was, and was something."""
        return (self._is_marked and self._have_marks) or self._are_alike

    @property
    def _have_marks(self) -> bool:
        try:
            for number in self.identities:
                if os.lseek(number, 0, os.SEEK_CUR) != _MARK:
                    return False
        except OSError:
            return False
        return True

    @property
    def _are_alike(self) -> bool:
        try:
            for number, identity in self.identities.items():
                found = os.fstat(number)
                if (found.st_dev, found.st_ino) != identity:
                    return False
        except OSError:
            return False
        return True


def _is_marked(number: int) -> bool:
    """Mark a descriptor, and return whether that could be done."""
    try:
        return os.lseek(number, _MARK, os.SEEK_SET) == _MARK
    except (OSError, OverflowError):
        return False
