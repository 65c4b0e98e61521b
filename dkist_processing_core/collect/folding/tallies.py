"""
The number of runs of each version of a workflow in each state, kept up to date by each fold in its transaction.

Counting hundreds of thousands of runs would take longer than a page may take. Not here: the runs themselves
(collect.store).
"""

import json
from collections import Counter
from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, delete, update

from dkist_processing_core.collect.additions import add_new
from dkist_processing_core.collect.keys import digest_of
from dkist_processing_core.collect.tables import TALLIES

Tally = tuple[str, str, str]
"""Name and version of a workflow, and a state."""


def add(connection: Connection, changes: Mapping[Tally, int]) -> None:
    """Add to the numbers, in the caller's transaction; other transactions that do the same wait for its end."""
    changed = {digest_of(json.dumps(tally).encode()): (tally, change) for tally, change in changes.items() if change}
    if not changed:
        return
    # In one order, so that no two transactions wait for each other.
    keys = sorted(changed)
    add_new(connection, TALLIES, [dict(zip(TALLIES.c.keys(), (key, *changed[key][0], 0), strict=True)) for key in keys])
    of_key = update(TALLIES).where(TALLIES.c.key == bindparam("of_key"))
    of_key = of_key.values(runs=TALLIES.c.runs + bindparam("change"))
    connection.execute(of_key, [{"of_key": key, "change": changed[key][1]} for key in keys])
    if any(change < 0 for _, change in changed.values()):
        connection.execute(delete(TALLIES).where(TALLIES.c.runs <= 0))


def changes_of(before: Tally | None, after: Tally | None) -> Counter[Tally]:
    """Return what a change of a run adds; None is a run that does not exist or has no state."""
    changes: Counter[Tally] = Counter()
    if before != after:
        changes.update({each: step for each, step in ((before, -1), (after, 1)) if each is not None})
    return changes
