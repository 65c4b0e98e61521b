"""
Reports as compressed bytes: those on one run together, and the large parts of a report each by itself.

The first byte names the dictionary, of which a release may add another one; the earlier ones remain. Not here: which
reports are packed together (stored).
"""

import zlib
from collections.abc import Iterable
from typing import NamedTuple

from dkist_processing_core.collect.reports.dictionary import DICTIONARIES
from dkist_processing_core.errors import ReportsUnreadableError

# A higher one takes half as long again, and a twentieth less room.
_LEVEL = 3
_NEWEST = len(DICTIONARIES)


class StoredReport(NamedTuple):
    """The body of a report, which has one line, and when it was received, in seconds since 1970."""

    body: bytes
    received_at: float


def packed(text: bytes) -> bytes:
    """Return bytes in a compressed form, which `unpacked` reads."""
    compressor = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS, zdict=DICTIONARIES[_NEWEST - 1])
    return bytes([_NEWEST]) + compressor.compress(text) + compressor.flush()


def unpacked(stored: bytes) -> bytes:
    """
    Return the bytes that were packed.

    Raises:
        ReportsUnreadableError: A newer release has packed them, or they are damaged.
    """
    number = stored[0] if stored else 0
    if not 0 < number <= _NEWEST:
        msg = f"packed reports name the dictionary {number}, expected one from 1 to {_NEWEST}: use the newer release"
        raise ReportsUnreadableError(msg)
    decompressor = zlib.decompressobj(wbits=-zlib.MAX_WBITS, zdict=DICTIONARIES[number - 1])
    try:
        text = decompressor.decompress(stored[1:]) + decompressor.flush()
    except zlib.error as error:
        msg = f"packed reports of {len(stored)} bytes are damaged: {error}"
        raise ReportsUnreadableError(msg) from error
    if not decompressor.eof:
        msg = f"packed reports of {len(stored)} bytes are damaged: their end is missing"
        raise ReportsUnreadableError(msg)
    return text


def packed_reports(reports: Iterable[StoredReport]) -> bytes:
    """Return reports in a compressed form, which `unpacked_reports` reads."""
    return packed(b"\n".join(repr(report.received_at).encode() + b" " + report.body for report in reports))


def unpacked_reports(stored: bytes) -> list[StoredReport]:
    """Return the reports that were packed, in their order; see `unpacked`."""
    parts = (line.partition(b" ") for line in unpacked(stored).split(b"\n") if line)
    try:
        return [StoredReport(body, float(received_at)) for received_at, _, body in parts]
    except ValueError as error:
        # What is compressed has no checksum.
        msg = f"packed reports of {len(stored)} bytes are damaged: a report has no time"
        raise ReportsUnreadableError(msg) from error
