"""
The number of runs of each version of a workflow in each state, kept up to date by each fold in its transaction.

Counting hundreds of thousands of runs would take longer than a page may take. Not here: the runs themselves (folding).
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, update

from dkist_processing_core.collect.keys import digest_of
from dkist_processing_core.collect.overview import WorkflowSummary
from dkist_processing_core.collect.tables import TALLIES
from dkist_processing_core.runs import State

Tally = tuple[str, str, str]
"""Name and version of a workflow, and a state."""


def add(connection: Connection, changes: Mapping[Tally, int]) -> None:
    """Add to the numbers, in the caller's transaction; other transactions that do the same wait for its end."""
    changed = {digest_of(json.dumps(tally).encode()): (tally, change) for tally, change in changes.items() if change}
    if not changed:
        return
    insert = import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert(TALLIES)
    of_key = update(TALLIES).where(TALLIES.c.key == bindparam("of_key"))
    # In one order, so that no two transactions wait for each other.
    values = [
        dict(zip(TALLIES.c.keys(), (key, *changed[key][0], 0), strict=True))
        | {"of_key": key, "change": changed[key][1]}
        for key in sorted(changed)
    ]
    names: dict[str, Any] = {name: bindparam(name) for name in TALLIES.c.keys()}  # noqa: SIM118 - the columns themselves have no order
    connection.execute(insert.values(names).on_conflict_do_nothing(), values)
    connection.execute(of_key.values(runs=TALLIES.c.runs + bindparam("change")), values)
    if any(change < 0 for _, change in changed.values()):
        connection.execute(delete(TALLIES).where(TALLIES.c.runs <= 0))


def changes_of(before: Tally | None, after: Tally | None) -> Counter[Tally]:
    """Return what a change of a run adds; None is a run that does not exist or has no state."""
    changes: Counter[Tally] = Counter()
    if before != after:
        changes.update({each: step for each, step in ((before, -1), (after, 1)) if each is not None})
    return changes


def summaries(connection: Connection) -> list[WorkflowSummary]:
    """Return all versions of all workflows, in the order of their names and versions."""
    found: dict[tuple[str, str], dict[State, int]] = defaultdict(dict)
    for row in connection.execute(select(TALLIES)):
        found[row.workflow_name, row.workflow_version][State(row.state)] = row.runs
    return [
        WorkflowSummary(*names, {state: found[names][state] for state in State if state in found[names]})
        for names in sorted(found)
    ]
