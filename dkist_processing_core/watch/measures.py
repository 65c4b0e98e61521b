"""
The measures of the watcher's process: what it has judged and published, and for how long the store was complete.

Not here: the metrics of alarms that stand, which the store has (reading).
"""

import time
from collections.abc import Callable

from dkist_processing_core import semconv
from dkist_processing_core.metrics import declarations
from dkist_processing_core.metrics.accumulator import Accumulator
from dkist_processing_core.metrics.measurement import Measurement, measured
from dkist_processing_core.watch.facts import Decision
from dkist_processing_core.watch.listening import Listening

IDLE = "idle"
"""The kind of an alarm about a run."""


class Measures:
    """The measures of one process; the judge adds to them, and a server reads them."""

    def __init__(
        self,
        workflows: tuple[str, ...] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
        began_at: float | None = None,
    ) -> None:
        """
        Begin at zero.

        Args:
            workflows: The names of the workflows whose starts are expected: a rate needs a value before the first miss.
            clock: A clock that never goes back, in seconds.
            began_at: The time of the start, in seconds since 1970; by default now.
        """
        self._clock = clock
        self._judged_at = clock()
        self._began_at = time.time() if began_at is None else began_at
        self._raised = Accumulator(declarations.ALARM_RAISED, {})
        self._withdrawn = Accumulator(declarations.ALARM_WITHDRAWN, {})
        self._missed = Accumulator(declarations.START_MISSED, {})
        self._listened = Accumulator(declarations.LISTENING_TIME, {})
        self.judged_until: float | None = None
        """The time up to which the last judgement knew all reports, in seconds since 1970; None before the first."""
        for workflow in workflows:
            self._missed.add({semconv.PIPELINE_NAME: workflow}, 0.0)

    def note_published(self, decision: Decision) -> None:
        """Count an alarm or a withdrawal that was published."""
        to = self._withdrawn if decision.facts.get("withdrawn") else self._raised
        kind = decision.facts.get("exceeded") or IDLE
        to.add({semconv.PIPELINE_NAME: decision.run.workflow_name, semconv.ALARM_KIND: kind})

    def note_missed(self, workflow: str) -> None:
        """Count a missed start that was published."""
        self._missed.add({semconv.PIPELINE_NAME: workflow})

    def note_judged(self, listening: Listening) -> None:
        """Record a judgement, and for how long the store was complete since the one before."""
        now, until = self._clock(), listening.until
        seconds = 0.0 if self.judged_until is None else listening.seconds_since(self.judged_until)
        self._listened.add({semconv.LISTENING_STATE: "complete"}, seconds)
        self._listened.add({semconv.LISTENING_STATE: "incomplete"}, max(0.0, now - self._judged_at - seconds))
        self._judged_at, self.judged_until = now, until

    def measurements(self) -> list[Measurement]:
        """Return the present values."""
        until = self._began_at if self.judged_until is None else self.judged_until
        return [
            self._raised.measurement(),
            self._withdrawn.measurement(),
            self._missed.measurement(),
            self._listened.measurement(),
            # A process that never judges is noticed by the age of its start.
            measured(declarations.JUDGED_TIME, until),
        ]
