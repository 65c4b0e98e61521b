"""
The store as canonical JSON: equal stores give equal bytes.

The order in which reports arrived and the times at which they were received are left out, since a store that is built
again has others. So every stated time counts here, also an implausible one. Not here: reading a dump.
"""

import json
from collections.abc import Iterator

from sqlalchemy import Connection, select

from dkist_processing_core.collect.questions.watched import all_missed_starts
from dkist_processing_core.collect.reports.stored import reports_on
from dkist_processing_core.collect.tables import MISSED_STARTS, RUNS
from dkist_processing_core.events import encode
from dkist_processing_core.runs import kept_reports, run_view
from dkist_processing_core.runs.as_json import run_json

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def dump(connection: Connection) -> Iterator[str]:
    """
    Yield the lines of a JSON object with all runs: each run is one line, with its state and the reports on it.

    Runs are in the order of their workflow's name and version, and their id. The starts that were missed follow, one in
    a line. The text is ASCII.
    """
    identity = (RUNS.c.workflow_name, RUNS.c.workflow_version, RUNS.c.run_id)
    # Each database sorts text by different rules.
    runs = sorted((*names, number) for *names, number in connection.execute(select(*identity, RUNS.c.number)))
    yield '{"runs":['
    for place, (*_, number) in enumerate(runs, 1):
        yield _run(connection, number) + ("," if place < len(runs) else "")
    yield '],"missedStarts":['
    missed = all_missed_starts(connection.scalars(select(MISSED_STARTS.c.body)).all())
    for place, start in enumerate(missed, 1):
        yield _encode(json.loads(encode(start))) + ("," if place < len(missed) else "")
    yield "]}"


def _run(connection: Connection, number: int) -> str:
    kept = kept_reports(report.event for report in reports_on(connection, number))
    reports = sorted(map(encode, kept))
    return _encode(run_json(run_view(kept)) | {"reports": [json.loads(body) for body in reports]})
