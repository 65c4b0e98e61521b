"""
The messages in the pages of a damaged journal, read without SQLite, which gives up at the first page that is wrong.

By the file format that SQLite promises to keep (https://sqlite.org/fileformat2.html). A damaged page hides its own rows
and no others. Not here: what is done with the rows (_damage).
"""

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from dkist_processing_core.trusted import open_file

_PAGE = 4096
_SMALLEST_PAGE, _LARGEST_PAGE = 512, 65536
_LEAF = 0x0D
_DAMAGED_LENGTHS = 8
_LARGEST_ROW = 64 * 1024 * 1024
WAL_MAGIC = (0x377F0682, 0x377F0683)
_WAL_HEAD, _FRAME_HEAD = 32, 24
_INTEGER_SIZES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_REAL, _FIRST_TEXT = 7, 12
_COLUMNS = 9
Row = tuple[int, float, str, str, str, bytes, int, str | None, float | None]


def rows_by_page(path: Path, first: int = 1) -> Iterator[tuple[int, list[Row]]]:
    """Give the messages that can be read on each page from `first` on, with the number of the page."""
    with os.fdopen(open_file(path, os.O_RDONLY, sets_mode=False), "rb") as file:
        pages = _Pages(file.read, file.seek, path)
        free = pages.free()
        for number in range(first, pages.count + 1):
            if number not in free:
                yield number, list(pages.rows(number))


class _Pages:
    """The pages of a file, as the log beside it has left them."""

    def __init__(self, read: Callable[[int], bytes], seek: Callable[[int], int], path: Path) -> None:
        self._read = read
        self._seek = seek
        head = read(100)
        size = int.from_bytes(head[16:18], "big")
        length = path.stat().st_size
        is_size = _SMALLEST_PAGE <= size <= _LARGEST_PAGE and size & (size - 1) == 0 and length % size == 0
        self._size = size if is_size else _PAGE
        self._logged = _logged(path.with_name(path.name + "-wal"), self._size)
        self.count = max([length // self._size, *self._logged])

    def _page(self, number: int) -> bytes:
        if number in self._logged:
            return self._logged[number]
        self._seek((number - 1) * self._size)
        return self._read(self._size)

    def free(self) -> set[int]:
        """Return the pages that hold nothing any more but what was removed."""
        free: set[int] = set()
        trunk = int.from_bytes(self._page(1)[32:36], "big")
        while 0 < trunk <= self.count and trunk not in free:
            page = self._page(trunk)
            count = min(int.from_bytes(page[4:8], "big"), self._size // 4 - 2)
            free.add(trunk)
            free.update(struct.unpack(f">{count}I", page[8 : 8 + 4 * count]))
            trunk = int.from_bytes(page[:4], "big")
        return free

    def rows(self, number: int) -> Iterator[Row]:
        """Give the messages on a page."""
        page = self._page(number)
        if len(page) < self._size or page[0] != _LEAF:
            return
        count = min(int.from_bytes(page[3:5], "big"), self._size // 4)
        # Rows share no bytes, so that all together fit into the file: a few lengths that are damaged hide no other row.
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
        # How much of a row lies on its own page: "B-tree Cell Format".
        most, least = self._size - 35, (self._size - 12) * 32 // 255 - 23
        held = least + (length - least) % (self._size - 4)
        local = length if length <= most else held if held <= most else least
        payload = bytearray(page[at : at + local])
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        while len(payload) < length:
            if not 0 < following <= self.count:
                return None
            page = self._page(following)
            following = int.from_bytes(page[:4], "big")
            payload += page[4 : 4 + length - len(payload)]
        return _message(seq, bytes(payload))


def _logged(path: Path, size: int) -> dict[int, bytes]:
    """Return the pages in a write-ahead log, as of its last commit."""
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
    """Return a row of the table of messages; None for one of another table, and for what cannot be one."""
    values = _record(payload)
    if len(values) == _COLUMNS - 1:
        # Of the first format, which has no time of refusal.
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
    """Return the values of a row: "Record Format"."""
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
        if byte < 0x80:  # noqa: PLR2004 - the bit that says whether another byte follows
            return value, at + place + 1
    raise AssertionError
