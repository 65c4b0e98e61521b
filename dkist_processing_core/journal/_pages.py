"""
Reading the messages in the pages of a damaged journal without SQLite, which stops at the first damaged page.

This follows the file format that SQLite promises to keep (https://sqlite.org/fileformat2.html). A damaged page hides
only its own rows. Not here: the use of the rows (damage).
"""

import contextlib
import itertools
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from dkist_processing_core.journal._format import FORMER_PAGE_SIZE, PAGE_SIZE, WAL_MAGIC
from dkist_processing_core.process.trusted_files import open_file

_SMALLEST_PAGE, _LARGEST_PAGE = 512, 65536
_LEAF = 0x0D
_DAMAGED_LENGTHS = 8
_LARGEST_ROW = 64 * 1024 * 1024
_WAL_HEAD, _FRAME_HEAD = 32, 24
_INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_REAL, _FIRST_TEXT = 7, 12
_COLUMNS = 9
_PAGES_AT_ONCE = 256
_PAGES_OF_A_GUESS = 64
Read = Callable[[int, int], bytes]
"""Function of size and offset: returns so many bytes of a file; b"" if the disk cannot read them."""
Row = tuple[int, float, str, str, str, bytes, int, str | None, float | None]


def rows_by_page(read: Read, path: Path, first: int = 1) -> Iterator[tuple[int, list[Row]]]:
    """Yield the number of each page from `first` on, with the messages on it that can be read."""
    pages = _Pages(read, path)
    free = pages.free()
    for number, page in pages.in_order(first):
        if number not in free:
            yield number, list(pages.rows(page))


def last_number(read: Read, path: Path) -> int:
    """Return the highest number of a message; 0 if there is none. Few messages are read for this."""
    pages = _Pages(read, path)
    found = sorted(((pages.last_number(page), number) for number, page in pages.in_order(1)), reverse=True)
    last = 0
    for candidate, number in found:
        if candidate <= last:
            break
        # A damaged page may show any number: it counts only if the messages on the page can be read.
        last = max([last, *(row[0] for row in pages.rows(pages.page(number)))])
    return last


class _Pages:
    """
    The pages of a file, with the changes of its write-ahead log.

    A function reads the file; it is never opened here. This process may have it open with SQLite, whose locks would be
    dropped when another descriptor of the file is closed (fcntl(2)). The log has no locks, and may be opened.
    """

    def __init__(self, read: Read, path: Path) -> None:
        self._read = read
        head = read(100, 0)
        size = int.from_bytes(head[16:18], "big")
        length = path.stat().st_size
        is_size = _SMALLEST_PAGE <= size <= _LARGEST_PAGE and size & (size - 1) == 0 and length % size == 0
        self._log, self._length = path.with_name(path.name + "-wal"), length
        if is_size:
            self._use(size)
        else:
            self._use(max((PAGE_SIZE, FORMER_PAGE_SIZE), key=self._readable_rows))

    def _use(self, size: int) -> None:
        self._size = size
        self._logged = _logged(self._log, size)
        self.count = max([self._length // size, *self._logged])

    def _readable_rows(self, size: int) -> int:
        """Return how many rows of the first pages can be read with a page size: with the wrong one about half."""
        self._use(size)
        pages = itertools.islice(self.in_order(1), _PAGES_OF_A_GUESS * PAGE_SIZE // size)
        return sum(1 for _, page in pages for _ in self.rows(page))

    def page(self, number: int) -> bytes:
        """Return the content of a page."""
        if number in self._logged:
            return self._logged[number]
        return self._read(self._size, (number - 1) * self._size)

    def in_order(self, first: int) -> Iterator[tuple[int, bytes]]:
        """Yield number and content of each page from `first` on; several pages are read at once."""
        for start in range(first, self.count + 1, _PAGES_AT_ONCE):
            several = self._read(_PAGES_AT_ONCE * self._size, (start - 1) * self._size)
            for number in range(start, min(start + _PAGES_AT_ONCE, self.count + 1)):
                at = (number - start) * self._size
                page = self._logged.get(number, several[at : at + self._size])
                # If the disk cannot read all of these pages, it may still read this one.
                yield number, page if len(page) == self._size else self.page(number)

    def last_number(self, page: bytes) -> int:
        """Return the number of the last row on a page, which is its highest; 0 if it cannot be read."""
        if len(page) < self._size or page[0] != _LEAF:
            return 0
        count = min(int.from_bytes(page[3:5], "big"), self._size // 4)
        with contextlib.suppress(IndexError, struct.error):
            (at,) = struct.unpack(">H", page[6 + 2 * count : 8 + 2 * count]) if count else (self._size,)
            _, at = _varint(page, at)
            return _varint(page, at)[0]
        return 0

    def free(self) -> set[int]:
        """Return the numbers of the free pages, which contain only removed data."""
        free: set[int] = set()
        trunk = int.from_bytes(self.page(1)[32:36], "big")
        while 0 < trunk <= self.count and trunk not in free:
            page = self.page(trunk)
            count = min(int.from_bytes(page[4:8], "big"), self._size // 4 - 2)
            free.add(trunk)
            free.update(struct.unpack(f">{count}I", page[8 : 8 + 4 * count]))
            trunk = int.from_bytes(page[:4], "big")
        return free

    def rows(self, page: bytes) -> Iterator[Row]:
        """Yield the messages on a page."""
        if len(page) < self._size or page[0] != _LEAF:
            return
        count = min(int.from_bytes(page[3:5], "big"), self._size // 4)
        # Rows share no bytes, so all rows together fit into the file. The limit is several times the size of the file,
        # so that a few damaged lengths hide no other row.
        room = _DAMAGED_LENGTHS * self.count * self._size
        for at in dict.fromkeys(struct.unpack(f">{count}H", page[8 : 8 + 2 * count])):
            try:
                length, _ = _varint(page, at)
                if length > min(room, self.count * self._size):
                    continue
                room -= length
                row = self._row(page, at)
            except (IndexError, struct.error, ValueError):
                continue
            if row is not None:
                yield row

    def _row(self, page: bytes, at: int) -> Row | None:
        length, at = _varint(page, at)
        seq, at = _varint(page, at)
        if not 0 < length < _LARGEST_ROW or seq <= 0:
            return None
        # The number of bytes of a row on its own page: see "B-tree Cell Format".
        most, least = self._size - 35, (self._size - 12) * 32 // 255 - 23
        held = least + (length - least) % (self._size - 4)
        local = length if length <= most else held if held <= most else least
        payload = bytearray(page[at : at + local])
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        while len(payload) < length:
            if not 0 < following <= self.count:
                return None
            page = self.page(following)
            following = int.from_bytes(page[:4], "big")
            payload += page[4 : 4 + length - len(payload)]
        return _message(seq, bytes(payload))


def _logged(path: Path, size: int) -> dict[int, bytes]:
    """Return the pages in a write-ahead log, in the state of its last commit."""
    try:
        with os.fdopen(open_file(path, os.O_RDONLY, sets_mode=False), "rb") as file:
            log = file.read()
    except OSError:
        return {}
    if int.from_bytes(log[:4], "big") not in WAL_MAGIC or int.from_bytes(log[8:12], "big") != size:
        return {}
    committed: dict[int, bytes] = {}
    since: dict[int, bytes] = {}
    for at in range(_WAL_HEAD, len(log) - size - _FRAME_HEAD + 1, size + _FRAME_HEAD):
        number, commit = struct.unpack(">II", log[at : at + 8])
        if log[at + 8 : at + 16] != log[16:24]:
            break
        since[number] = log[at + _FRAME_HEAD : at + _FRAME_HEAD + size]
        if commit:
            committed |= since
            since = {}
    return committed


def _message(seq: int, payload: bytes) -> Row | None:
    """Return a row of the message table; None for a row of another table, and for a record that is not a message."""
    values = _record(payload)
    if len(values) == _COLUMNS - 1:
        # A row of the first format, which has no time of refusal.
        values.append(None)
    if len(values) != _COLUMNS:
        return None
    _, appended, exchange, key, properties, body, tries, set_aside, refused = values
    if (
        isinstance(appended, int | float)
        and isinstance(exchange, str)
        and isinstance(key, str)
        and isinstance(properties, str)
        and isinstance(body, str | bytes)
        and isinstance(tries, int)
        and isinstance(set_aside, str | None)
        and isinstance(refused, int | float | None)
    ):
        encoded = body.encode() if isinstance(body, str) else body
        return seq, appended, exchange, key, properties, encoded, tries, set_aside, refused
    return None


def _record(payload: bytes) -> list[object]:
    """Return the values of a row; see "Record Format"."""
    head, at = _varint(payload, 0)
    kinds = []
    while at < head:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values: list[object] = []
    at = head
    for kind in kinds:
        value, at = _value(payload, at, kind)
        values.append(value)
    return values


def _value(payload: bytes, at: int, kind: int) -> tuple[object, int]:
    if kind in (0, 8, 9):
        return (None, 0, 1)[max(0, kind - 7)], at
    if kind == _REAL:
        return struct.unpack(">d", payload[at : at + 8])[0], at + 8
    size = _INTEGER_SIZES.get(kind, (kind - _FIRST_TEXT) // 2)
    found = payload[at : at + size]
    if size < 0 or len(found) < size:
        msg = "a value is cut off"
        raise ValueError(msg)
    if kind in _INTEGER_SIZES:
        return int.from_bytes(found, "big", signed=True), at + size
    return (found.decode(errors="replace") if kind % 2 else found), at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(9):
        byte = data[at + place]
        if place == 8:  # noqa: PLR2004 - the ninth byte has eight bits of the value
            return value << 8 | byte, at + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:  # noqa: PLR2004 - the bit that is set if another byte follows
            return value, at + place + 1
    raise AssertionError
