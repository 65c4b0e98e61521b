"""
Runs by the texts by which people name them: the id, a part of it, or a short id.

Not here: the rules for short ids (identity.short_ids).
"""

from collections.abc import Iterable

from sqlalchemy import Connection, or_, select

from dkist_processing_core.collect.keys import run_identity
from dkist_processing_core.collect.parts import in_parts
from dkist_processing_core.collect.questions.answers import Choice, StoredRun
from dkist_processing_core.collect.questions.choosing import of_identity
from dkist_processing_core.collect.questions.of_rows import identity_of, runs_of
from dkist_processing_core.collect.tables import RUNS, TALLIES
from dkist_processing_core.identity.short_ids import ShortIds, characters_of, one_named_run


def run_number(connection: Connection, named: str, workflow: str | None) -> int | None:
    """Return the number of the run that a text names; see `Questions.run_number`."""
    characters = characters_of(named).lower()
    is_named = RUNS.c.characters.contains(characters, autoescape=True) if characters else RUNS.c.run_id == named
    of_workflow = of_identity(connection, Choice(workflow=workflow))
    query = select(RUNS).where(or_(RUNS.c.run_id == named, is_named), *of_workflow)
    rows = {identity_of(row): row.number for row in connection.execute(query.order_by(RUNS.c.number))}
    run = one_named_run(named, rows)
    # Another version of the workflow may have a run of the same id; the newest is meant.
    return None if run is None else rows[run]


def last_run(connection: Connection, workflow_name: str, run_id: str) -> StoredRun | None:
    """Return the run of an id in any version of a workflow; see `Questions.last_run`."""
    versions = select(TALLIES.c.workflow_version).where(TALLIES.c.workflow_name == workflow_name).distinct()
    # An index has the digests of the identities, and none the ids.
    identities = [run_identity(workflow_name, version, run_id) for version in connection.scalars(versions)]
    query = select(RUNS).where(RUNS.c.state.is_not(None)).order_by(RUNS.c.last_sign_at.desc(), RUNS.c.number.desc())
    found = [
        run
        for part in in_parts(identities)
        for run in runs_of(connection, query.where(RUNS.c.identity.in_(part)).limit(1))
    ]
    return max(found, key=lambda each: (each.last_sign_at, each.number), default=None)


def short_ids(connection: Connection, run_ids: Iterable[str]) -> ShortIds:
    """Return the short ids of runs, which no other run in the store has."""
    endings = sorted({characters_of(run_id)[-8:].lower() for run_id in run_ids})
    found: list[str] = []
    for part in in_parts(endings):
        found += connection.scalars(select(RUNS.c.run_id).where(RUNS.c.ending.in_(part)))
    return ShortIds(found)
