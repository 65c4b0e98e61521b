"""
What the judge knows, and what it decides: values without a database or a clock.

Not here: the attempts and runs in the store (collect.questions.watched), reading the facts (reading), and the judge
(judging).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dkist_processing_core.collect.questions.watched import WatchedAttempt, WatchedRun
from dkist_processing_core.events import TaskOverdue, WorkflowOverdue
from dkist_processing_core.identity import Run
from dkist_processing_core.watch.listening import Listening

Exceeded = Literal["silence", "duration"]
Subject = tuple[Run, str | None, int | None]
"""An attempt by its run, its task and its number; or a run."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One state of the store, as far as it is about what is overdue."""

    attempts: Sequence[WatchedAttempt] = ()
    """The attempts that are open, or about which an alarm stands."""
    runs: Sequence[WatchedRun] = ()
    """The runs in which no attempt runs, or about which an alarm stands."""
    listening: Listening = field(default_factory=Listening)
    """When the store was complete. Without a span, alarms are withdrawn and none is raised."""
    learnt: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """The learnt limits of the durations of attempts, by workflow and task, in seconds."""

    @property
    def subjects(self) -> set[Subject]:
        """The attempts and the runs."""
        runs: set[Subject] = {(each.run, None, None) for each in self.runs}
        return runs | {(each.run, each.task_name, each.number) for each in self.attempts}


@dataclass(frozen=True, slots=True)
class Decision:
    """An event that is to be published: an alarm, or the withdrawal of one."""

    run: Run
    event_class: type[TaskOverdue | WorkflowOverdue]
    facts: Mapping[str, Any]
    """The fields of the event, without those that identify the run."""

    @property
    def subject(self) -> Subject:
        """What it is about."""
        return (self.run, self.facts.get("task_name"), self.facts.get("attempt"))

    @property
    def sequence(self) -> int:
        """Its number: with that, and what it is about, its id is known."""
        sequence: int = self.facts["sequence"]
        return sequence
