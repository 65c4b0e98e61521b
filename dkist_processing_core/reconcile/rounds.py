"""
The result of one round of reconciliation: what was found about each run without an end.

It needs no database and no network. Not here: the round itself (reconciler), and its drawing (cli.reconcile).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dkist_processing_core.airflow.run_end import RunEnd, UnreportedFailures
from dkist_processing_core.identity import Run
from dkist_processing_core.reconcile.judgement import Outcome


@dataclass(frozen=True, slots=True)
class Finding:
    """What a round found about one run without an end."""

    run: Run
    outcome: Outcome
    began_at: datetime | None = None
    last_sign_at: datetime | None = None
    end: RunEnd | None = None
    """The end that was published, or would have been in a dry run."""
    failures: UnreportedFailures = field(default_factory=UnreportedFailures)
    """The failures of tasks that were published with it."""
    problem: str | None = None
    """Why Airflow gave no answer about this run."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round found."""

    where: str
    """The address of Airflow."""
    findings: Sequence[Finding] = ()
    left: int = 0
    """The number of runs about which Airflow was not asked, since the round ended before."""
    problem: str | None = None
    """Why the round ended before: Airflow did not answer."""
    is_dry: bool = False
    """Whether nothing was published."""
    workflow: str | None = None
    """The name of the workflows to which the round was restricted, in which `*` and `?` stand for any characters."""

    @property
    def is_complete(self) -> bool:
        """Whether there was an answer about every run."""
        unanswered = (Outcome.REFUSED, Outcome.UNPROVEN)
        return self.problem is None and not self.left and all(each.outcome not in unanswered for each in self.findings)

    def count(self, outcome: Outcome) -> int:
        """Return the number of runs with an outcome."""
        return sum(each.outcome is outcome for each in self.findings)
