"""
How many runs of each version of a workflow are in each state.

Not here: keeping these numbers up to date (collect.folding.tallies).
"""

from collections import defaultdict

from sqlalchemy import Connection, select

from dkist_processing_core.collect.questions.overview import WorkflowSummary
from dkist_processing_core.collect.tables import TALLIES
from dkist_processing_core.runs import State


def summaries(connection: Connection) -> list[WorkflowSummary]:
    """Return all versions of all workflows, in the order of their names and versions."""
    found: dict[tuple[str, str], dict[State, int]] = defaultdict(dict)
    for row in connection.execute(select(TALLIES)):
        found[row.workflow_name, row.workflow_version][State(row.state)] = row.runs
    return [
        WorkflowSummary(*names, {state: found[names][state] for state in State if state in found[names]})
        for names in sorted(found)
    ]
