"""
The result of a round of reconciliation as JSON.

Not here: the result as lines (draw.findings).
"""

from collections.abc import Callable
from typing import Any

from dkist_processing_core.reconcile.rounds import Finding, Round
from dkist_processing_core.runs.as_json import identity_json, time_json


def round_json(found: Round, hide: Callable[[str], str]) -> dict[str, Any]:
    """Return a round; `hide` removes secrets from a text."""
    return {
        "airflow": hide(found.where),
        "dryRun": found.is_dry,
        "problem": None if found.problem is None else hide(found.problem),
        "notAsked": found.left,
        "runs": [_finding_json(each, hide) for each in found.findings],
    }


def _finding_json(finding: Finding, hide: Callable[[str], str]) -> dict[str, Any]:
    end = finding.end
    return {
        **identity_json(finding.run),
        "outcome": finding.outcome.value,
        "lastReportAt": time_json(finding.last_sign_at),
        "problem": None if finding.problem is None else hide(finding.problem),
        "end": None
        if end is None
        else {
            "state": end.state.value,
            "endedAt": time_json(end.over),
            "reason": end.reason,
            "tasks": end.states,
            "failedTasks": list(finding.failures.without_end),
            "announcedTasks": [name for name, _ in finding.failures.unannounced],
        },
    }
