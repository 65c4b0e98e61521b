"""
The totals of ended attempts and runs: counters and histograms in the database, so that they never fall.

A fold adds to them in its own transaction. They are no part of the store's content: they remain when old runs are
deleted, and when the store is built again. Not here: what is counted (counting), and serving them
(collect.measurements).
"""

import hashlib
import logging
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, select, update

from dkist_processing_core import semconv
from dkist_processing_core.collect.additions import add_new
from dkist_processing_core.collect.folding.counting import Increment, Marks
from dkist_processing_core.collect.parts import among
from dkist_processing_core.collect.tables import COUNTED, RUNS, TOTALS
from dkist_processing_core.metrics.measurement import Distribution, Exemplar, Kind, Measurement, Metric, Number

MOST_SETS = 2000
"""The number of sets of attributes of one metric; further ones are counted together, as OpenTelemetry's SDK does."""
_OVERFLOW = {semconv.METRIC_OVERFLOW: "true"}
_DIGEST_BYTES = 16
logger = logging.getLogger("dkist_processing_core.collect")
_Key = tuple[Metric, tuple[tuple[str, str], ...]]


class _Total(msgspec.Struct):
    """The stored value of one set of attributes."""

    bounds: list[float]
    """Those of its metric when it began: with other ones it begins again."""
    counts: list[int]
    total: float = 0.0
    exemplars: dict[int, tuple[float, float, str, str]] = {}

    def add(self, increment: Increment) -> None:
        """Add one value; of a gauge, the highest one remains."""
        if increment.metric.kind is Kind.GAUGE:
            self.total = max(self.total, increment.value)
            return
        place = bisect_left(self.bounds, increment.value)
        self.counts[place] += 1
        self.total += increment.value
        new = increment.exemplar
        if new is not None and (place not in self.exemplars or self.exemplars[place][1] <= new.at):
            self.exemplars[place] = (new.value, new.at, new.trace_id, new.span_id)


_decoded = msgspec.json.Decoder(_Total).decode
_marks_in = msgspec.json.Decoder(Marks).decode
_encoded = msgspec.json.Encoder().encode


def add(connection: Connection, increments: Iterable[Increment], now: float, *, most_sets: int = MOST_SETS) -> None:
    """Add to the totals, in the caller's transaction; other transactions that add to the same totals wait for it."""
    by_key: dict[_Key, list[Increment]] = defaultdict(list)
    for increment in increments:
        by_key[increment.metric, tuple(sorted(increment.attributes.items()))].append(increment)
    if not by_key:
        return
    digests = {_digest(*key): key for key in by_key}
    known: set[bytes] = set()
    for is_of_them in among(connection, TOTALS.c.key, list(digests)):
        known.update(connection.scalars(select(TOTALS.c.key).where(is_of_them)))
    room = _Room(connection, most_sets)
    added: dict[bytes, list[Increment]] = defaultdict(list)
    names: dict[bytes, _Key] = {}
    for digest, (metric, attributes) in digests.items():
        key = metric, attributes if digest in known or room.takes(metric) else tuple(_OVERFLOW.items())
        names[found := _digest(*key)] = key
        added[found] += by_key[metric, attributes]
    new = sorted(digest for digest in added if digest not in known)
    add_new(connection, TOTALS, [_empty_row(each, *names[each], now) for each in new])
    # Always in the same order, so that no two transactions wait for each other.
    values = [
        _added(row, names[row.key][0], added[row.key], now) | {"of_key": row.key}
        for is_of_them in among(connection, TOTALS.c.key, sorted(added))
        for row in connection.execute(select(TOTALS).where(is_of_them).order_by(TOTALS.c.key).with_for_update())
    ]
    changed: dict[str, Any] = {name: bindparam(f"new_{name}") for name in ("value", "began_at")}
    connection.execute(update(TOTALS).where(TOTALS.c.key == bindparam("of_key")).values(changed), values)


class _Room:
    """How many sets of attributes of each metric may still begin."""

    def __init__(self, connection: Connection, most: int) -> None:
        self._connection = connection
        self._most = most
        self._numbers: dict[str, int] | None = None

    def takes(self, metric: Metric) -> bool:
        if self._numbers is None:
            query = select(TOTALS.c.name, func.count().label("number")).group_by(TOTALS.c.name)
            self._numbers = {row.name: row.number for row in self._connection.execute(query)}
        number = self._numbers.get(metric.name, 0)
        self._numbers[metric.name] = number + 1
        if number >= self._most:
            _warn_of_overflow(metric.name, self._most)
        return number < self._most


@cache
def _warn_of_overflow(name: str, most: int) -> None:
    logger.warning(
        "the metric %s has as many sets of attributes as it may have, %d: what has further ones is counted together, "
        "with the attribute %s; use fewer names of workflows and tasks",
        name,
        most,
        semconv.METRIC_OVERFLOW,
    )


def _empty_row(digest: bytes, metric: Metric, attributes: tuple[tuple[str, str], ...], now: float) -> dict[str, Any]:
    values = {"key": digest, "name": metric.name, "attributes": _encoded(dict(attributes)).decode(), "began_at": now}
    return values | {"value": _encoded(_empty(metric))}


def _empty(metric: Metric) -> _Total:
    return _Total(list(metric.bounds), [0] * (len(metric.bounds) + 1))


def _added(row: Any, metric: Metric, increments: Sequence[Increment], now: float) -> dict[str, Any]:
    """Return the new values of a row; one with other bounds than those of its metric begins again."""
    total, began_at = _decoded(row.value), row.began_at
    if total.bounds != list(metric.bounds):
        total, began_at = _empty(metric), now
    for increment in increments:
        total.add(increment)
    return {"new_value": _encoded(total), "new_began_at": began_at}


def _digest(metric: Metric, attributes: tuple[tuple[str, str], ...]) -> bytes:
    return hashlib.sha256(_encoded((metric.name, attributes))).digest()[:_DIGEST_BYTES]


def measurements(connection: Connection, metrics: Iterable[Metric]) -> list[Measurement]:
    """Return the totals of metrics; one without a total has no values."""
    by_name: dict[str, list[Any]] = defaultdict(list)
    for row in connection.execute(select(TOTALS).order_by(TOTALS.c.name, TOTALS.c.attributes)):
        by_name[row.name].append(row)
    return [Measurement(metric, [_value(metric, row) for row in by_name[metric.name]]) for metric in metrics]


def _value(metric: Metric, row: Any) -> Number | Distribution:
    attributes: Mapping[str, str] = msgspec.json.decode(row.attributes)
    total = _decoded(row.value)
    if metric.kind is not Kind.HISTOGRAM:
        return Number(total.total, attributes, row.began_at)
    exemplars = {place: Exemplar(*values) for place, values in total.exemplars.items()}
    return Distribution(total.counts, total.total, attributes, row.began_at, exemplars)


def marks_of(connection: Connection, identities: Sequence[bytes]) -> dict[bytes, Marks]:
    """Return what was counted of runs, by their identities."""
    found = {identity: Marks() for identity in identities}
    for is_of_them in among(connection, COUNTED.c.identity, identities):
        for row in connection.execute(select(COUNTED).where(is_of_them)):
            found[row.identity] = _marks_in(row.marks)
    return found


def store_marks(connection: Connection, marks: Mapping[bytes, Marks], now: float) -> None:
    """Store what was counted of runs, by their identities."""
    for is_of_them in among(connection, COUNTED.c.identity, list(marks)):
        connection.execute(delete(COUNTED).where(is_of_them))
    values = [{"identity": each, "marks": _encoded(marks[each]), "counted_at": now} for each in marks]
    if values:
        connection.execute(COUNTED.insert(), values)


def prune_marks(connection: Connection, until: float, limit: int) -> None:
    """Delete what was counted of at most `limit` runs that the store no longer has, and counted before a time."""
    old = select(COUNTED.c.identity).where(
        COUNTED.c.counted_at < until, ~COUNTED.c.identity.in_(select(RUNS.c.identity))
    )
    identities = connection.scalars(old.order_by(COUNTED.c.counted_at).limit(limit)).all()
    connection.execute(delete(COUNTED).where(COUNTED.c.identity.in_(identities)))
