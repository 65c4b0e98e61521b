"""
New reports in the store: many at once, each once, with few statements.

Not here: deriving the rows of their runs (collect.folding).
"""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, select

from dkist_processing_core.collect.additions import add_new
from dkist_processing_core.collect.keys import digest_of, run_identity
from dkist_processing_core.collect.parts import among
from dkist_processing_core.collect.reports.decoding import DecodedReports
from dkist_processing_core.collect.tables import MISSED_STARTS, REPORTS, RUNS
from dkist_processing_core.events import Event, WorkflowOverdue, encode
from dkist_processing_core.identity.short_ids import characters_of
from dkist_processing_core.inbox import bulk

_ENDING = 8
_COLUMNS = ("received_at", "run", "digest", "body")
_Names = tuple[str, str, str]


def add(connection: Connection, reports: Sequence[Event], now: float, decoded: DecodedReports) -> None:
    """Add reports on runs, in the caller's transaction; one that the store has already has no effect."""
    names = [(each.workflow_name, each.workflow_version, each.run_id) for each in reports]
    identities = {each: run_identity(*each) for each in dict.fromkeys(names)}
    numbers = _numbers(connection, identities, now)
    bodies = list(map(encode, reports))
    for body, report in zip(bodies, reports, strict=True):
        decoded.note(body, report)
    rows = [(now, numbers[identities[run]], digest_of(body), body) for run, body in zip(names, bodies, strict=True)]
    bulk.insert(connection, REPORTS, _COLUMNS, rows, unless_known=("digest",), often_equal=("received_at",))


def _numbers(connection: Connection, identities: Mapping[_Names, bytes], now: float) -> dict[bytes, int]:
    """Return the numbers of runs by their identities; a run that the store does not have is added."""
    found = _known(connection, list(identities.values()))
    missing = {identity: run for run, identity in identities.items() if identity not in found}
    if missing:
        # In one order, so that no two transactions wait for each other.
        rows = [_row(missing[identity], identity, now) for identity in sorted(missing)]
        add_new(connection, RUNS, rows)
        found |= _known(connection, list(missing))
    return found


def _known(connection: Connection, identities: Sequence[bytes]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for is_known in among(connection, RUNS.c.identity, identities):
        query = select(RUNS.c.identity, RUNS.c.number).where(is_known)
        found |= {row.identity: row.number for row in connection.execute(query)}
    return found


def _row(run: _Names, identity: bytes, now: float) -> dict[str, object]:
    characters = characters_of(run[2]).lower()
    return {
        "workflow_name": run[0],
        "workflow_version": run[1],
        "run_id": run[2],
        "identity": identity,
        "characters": characters,
        "ending": characters[-_ENDING:],
        "received_at": now,
        "first_received_at": now,
    }


def add_missed_starts(connection: Connection, missed: Sequence[WorkflowOverdue], now: float) -> None:
    """Add the starts that a watcher has reported as missed."""
    rows = []
    for each in missed:
        if each.expected_at is not None:
            body = encode(each)
            expected_at = each.expected_at.timestamp()
            rows.append({"digest": digest_of(body), "body": body, "expected_at": expected_at, "received_at": now})
    add_new(connection, MISSED_STARTS, rows)
