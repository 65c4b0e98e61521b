"""
Runs by the texts by which people name them: a part of the id, or a short id.

Not here: the rules for short ids (identity.short_ids).
"""

from collections.abc import Iterable

from sqlalchemy import Connection, or_, select

from dkist_processing_core.collect.parts import in_parts
from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.questions.choosing import of_identity
from dkist_processing_core.collect.questions.of_rows import identity_of
from dkist_processing_core.collect.tables import RUNS
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


def short_ids(connection: Connection, run_ids: Iterable[str]) -> ShortIds:
    """Return the short ids of runs, which no other run in the store has."""
    endings = sorted({characters_of(run_id)[-8:].lower() for run_id in run_ids})
    found: list[str] = []
    for part in in_parts(endings):
        found += connection.scalars(select(RUNS.c.run_id).where(RUNS.c.ending.in_(part)))
    return ShortIds(found)
