"""
File descriptors that are held for a long time, in a process that also runs an author's code.

An author's code may close any descriptor, and the kernel gives the lowest free number to the next file that is opened.
Long-lived descriptors therefore have high numbers, which the author's files do not get as long as lower ones are free.
Each descriptor is also identified by its file: if the number now refers to another file, it is neither written to nor
closed. Not here: the files that are held (bus).
"""

import contextlib
import fcntl
import os
import resource
from collections.abc import Callable, Iterable, Iterator

from dkist_processing_core.process import forks
from dkist_processing_core.process.trusted_files import Identity, close_if, identity_of

# Few tasks have this many files open at once. Each opening of a journal occupies all lower numbers for a moment.
_HIGH = 128
_SHARE_OF_LIMIT = 4
# Offsets beyond any file's end, which every file system allows (ext3: up to 2 TiB).
_FIRST_MARK, _MARK_BYTES = 1 << 40, 5
taken: dict[int, Identity] = {}
"""The numbers that `low_numbers_taken` occupies now; none of them is a file of ours."""


def move_up(descriptor: int) -> int:
    """Move a descriptor to a high number and return it; return the same descriptor if no high number is available."""
    try:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _lowest_high())
    except OSError:
        return descriptor
    close_if(descriptor, identity_of(moved))
    return moved


@contextlib.contextmanager
def low_numbers_taken() -> Iterator[None]:
    """
    Make files that a library opens in the block get high numbers, for descriptors that cannot be moved afterwards.

    Avoid this while the author's code runs: that code may close the occupied numbers and use them.
    """
    numbers: list[int] = []
    own: Identity | None = None
    try:
        # There are fewer if the limit on open files or a missing device allows no more; the opened files are checked.
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
        # `close_if` is not used here: its calls would be most of the cost.
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
    """Return the descriptor numbers that this process seems to have open; some of them may be free again."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 - pathlib is slower
    except OSError:
        # There is no /proc, for example after chroot(2).
        return list(range(_lowest_high() + _HIGH))


def is_high(descriptor: int) -> bool:
    """Return True for the numbers of long-lived descriptors, which the author's files usually do not get."""
    return descriptor >= _lowest_high()


class HeldDescriptors:
    """Descriptors, with the identities of their files at the time when they were taken."""

    def __init__(self, numbers: Iterable[int] = (), *, is_marked: Callable[[int], bool] = lambda _: False) -> None:
        """
        Record the identities of the descriptors.

        A descriptor for which `is_marked` is true gets a random offset, by which it is recognised in a quarter of the
        time of fstat(2). Its file must be a regular one that is read and written only at stated offsets (pread(2)).
        After fstat(2) of such a file Linux would also update the file's time with the next write (multigrain
        timestamps, from 6.13 on).
        """
        self.identities = {number: identity_of(number) for number in numbers}
        self._marks = {
            number: mark
            for number, identity in self.identities.items()
            if identity is not None and is_marked(number) and (mark := _mark(number))
        }

    @property
    def are_ours(self) -> bool:
        """Return True if each descriptor was open when it was taken and still refers to the same file."""
        try:
            for number, identity in self.identities.items():
                mark = self._marks.get(number)
                if mark is not None and os.lseek(number, 0, os.SEEK_CUR) == mark:
                    continue
                found = os.fstat(number)
                if (found.st_dev, found.st_ino) != identity:
                    return False
        except OSError:
            return False
        return True


class OwnSockets(HeldDescriptors):
    """
    Sockets of this process that its forks do not keep.

    A connection, or a port that is listened on, is open until its last copy is closed, and a fork may outlive its
    parent: the other side would take the parent for alive.
    """

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        """Record the sockets, and put the null device in their place in each fork as long as this object exists."""
        super().__init__(numbers)
        forks.begin_in_forks(self)

    def begin_in_fork(self) -> None:
        """Replace the copies. Their numbers remain in use, since libraries hold them."""
        with contextlib.suppress(OSError):
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for number, identity in self.identities.items():
                if identity is not None and identity == identity_of(number):
                    os.dup2(null, number, inheritable=False)
            os.close(null)


def _mark(descriptor: int) -> int | None:
    """Give an unused descriptor a random offset, and return it; None if it has another one, or can have none."""
    try:
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        # A fork shares the offset with its parent, which must still recognise its own copy.
        if offset == 0:
            offset = os.lseek(descriptor, _FIRST_MARK + int.from_bytes(os.urandom(_MARK_BYTES)), os.SEEK_SET)
    except OSError:
        return None
    return offset if offset >= _FIRST_MARK else None
