"""
The layout of a recorder: the places of its values in one region of memory, and how they survive a kill of the writer.

A value has two slots. The writer fills the slot with the older one, and its checksum comes last: a kill at any byte
leaves the newer one whole. The log is a ring, whose end moves after its bytes are written. Not here: the memory
(region), and the content of the values (reading).
"""

from __future__ import annotations

import struct
from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap

MAGIC = b"DKISTREC"
VERSION = 1
_HEAD = struct.Struct("<8sI")
_SLOT = struct.Struct("<QdII")  # number, time, length, checksum of these and of the value
_CHECKED = struct.Struct("<QdI")
_PAGE = 4096


class Value:
    """A value that was read, and when it was written, in the time of `time.monotonic`."""

    __slots__ = ("content", "time")

    def __init__(self, content: bytes, time: float) -> None:
        """Store both."""
        self.content = content
        self.time = time


class Section:
    """The place of one value of at most `capacity` bytes."""

    __slots__ = ("_offset", "_slot_bytes", "capacity")

    def __init__(self, offset: int, slot_bytes: int) -> None:
        """Place the two slots at an offset of the region."""
        self._offset = offset
        self._slot_bytes = slot_bytes
        self.capacity = slot_bytes - _SLOT.size

    @property
    def end(self) -> int:
        """The offset behind the slots."""
        return self._offset + 2 * self._slot_bytes

    def write(self, memory: mmap.mmap | bytearray, number: int, content: bytes, time: float) -> None:
        """
        Write the value with the next number; the value with the previous number is not touched.

        Raises:
            ValueError: The value has more bytes than the section.
        """
        if len(content) > self.capacity:
            msg = f"found {len(content)} bytes for a part of a recorder, expected at most {self.capacity}"
            raise ValueError(msg)
        start = self._offset + number % 2 * self._slot_bytes
        memory[start + _SLOT.size : start + _SLOT.size + len(content)] = content
        checked = _CHECKED.pack(number, time, len(content))
        memory[start : start + _SLOT.size] = checked + crc32(content, crc32(checked)).to_bytes(4, "little")

    def read(self, memory: mmap.mmap | bytearray) -> tuple[int, Value] | None:
        """Return the newest whole value with its number, which begins with 1; None if there is none."""
        whole = [found for start in (self._offset, self._offset + self._slot_bytes) if (found := _slot(memory, start))]
        return max(whole, key=lambda found: found[0], default=None)


def _slot(memory: mmap.mmap | bytearray, start: int) -> tuple[int, Value] | None:
    number, time, length, checksum = _SLOT.unpack(memory[start : start + _SLOT.size])
    if not number:
        return None
    content = bytes(memory[start + _SLOT.size : start + _SLOT.size + length])
    if crc32(content, crc32(_CHECKED.pack(number, time, length))) != checksum:
        return None
    return number, Value(content, time)


IDENTITY = Section(_PAGE, _PAGE)
"""The attempt and the task's pid, as JSON; written by the launcher."""
STATE = Section(IDENTITY.end, _PAGE)
"""The phase and the last progress, with their times, as JSON; written by the task."""
STACKS = Section(STATE.end, 9 * _PAGE)
"""The stacks of the task's threads, as text; written by the task."""
SAMPLES = Section(STACKS.end, 4 * _PAGE)
"""The resources and the profile so far, as JSON; written by the launcher, and read by the task at its end."""
LOG_END = Section(_PAGE // 2, 64)
"""How many bytes the log has had so far."""
_LOG = SAMPLES.end
LOG_BYTES = 64 * 1024
LONGEST_LINE = 4096
"""The most bytes that are appended to the log at once."""
REGION_BYTES = _LOG + LOG_BYTES


def begin(memory: mmap.mmap | bytearray) -> None:
    """Mark a new region, which is empty, as a recorder."""
    memory[: _HEAD.size] = _HEAD.pack(MAGIC, VERSION)


def check(memory: mmap.mmap | bytearray) -> None:
    """
    Check that a region is a recorder of this layout.

    Raises:
        ValueError: It is something else.
    """
    found = _HEAD.unpack(memory[: _HEAD.size])
    if found != (MAGIC, VERSION):
        msg = f"found {found}, expected a recorder: {(MAGIC, VERSION)}"
        raise ValueError(msg)


def end_of_log(memory: mmap.mmap | bytearray) -> int:
    """Return how many bytes the log has had so far."""
    found = LOG_END.read(memory)
    return 0 if found is None else int.from_bytes(found[1].content, "little")


def append(memory: mmap.mmap | bytearray, number: int, end: int, line: bytes, time: float) -> int:
    """
    Append to the log, and return its new end.

    Args:
        memory: The region.
        number: The number of this line, from 1.
        end: The bytes that the log has had so far.
        line: At most `LONGEST_LINE` bytes, with their line break.
        time: The present time of `time.monotonic`.
    """
    start = end % LOG_BYTES
    first = line[: LOG_BYTES - start]
    memory[_LOG + start : _LOG + start + len(first)] = first
    memory[_LOG : _LOG + len(line) - len(first)] = line[len(first) :]
    LOG_END.write(memory, number, (end + len(line)).to_bytes(8, "little"), time)
    return end + len(line)


def log_of(memory: mmap.mmap | bytearray) -> Value | None:
    """Return the last whole lines of the log; None if there are none, or if a writer is so fast that none is left."""
    before = LOG_END.read(memory)
    if before is None:
        return None
    end = int.from_bytes(before[1].content, "little")
    ring = bytes(memory[_LOG : _LOG + LOG_BYTES])
    # The bytes before this may be those of a line that is being written, or that a killed writer has left.
    oldest = max(0, end_of_log(memory) + LONGEST_LINE - LOG_BYTES)
    if oldest >= end:
        return None
    start, length = oldest % LOG_BYTES, end - oldest
    found = (ring[start:] + ring[:start])[:length]
    if oldest:
        found = found.partition(b"\n")[2]
    return Value(found, before[1].time)
