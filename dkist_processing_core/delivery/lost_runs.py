"""
The end of a local run whose process was killed: published by the next process of its host that publishes anything.

Not here: the record by which such a run is known (journal.run_record), and the end of a run that ends itself (local).
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.reporter import EventReporter, errors_logged
from dkist_processing_core.events import Cause, RecipeRunFailureMessage, Reporter, TaskFailed, WorkflowFailed
from dkist_processing_core.identity import Attempt
from dkist_processing_core.identity.trace_context import TRACEPARENT, TRACESTATE
from dkist_processing_core.journal.notes import RUN_ENDED, SUCCEEDED
from dkist_processing_core.journal.run_record import RUNNING, RecordedRun, read_lost, records_beside, take_lost
from dkist_processing_core.journal.spare import noted_on_host
from dkist_processing_core.tracing import Carrier

# The states of tasks are those of a local run, in Airflow's terms.
_SUCCESS, _FAILED = "success", "failed"


def report_lost_runs(publisher: Publisher) -> None:
    """
    Publish the ends of the lost runs of this host, each once; an error is logged.

    The final failure and the failure message are also published of each task that was running or waited for its next
    attempt, as the run itself would have done.
    """
    for path in records_beside(publisher.bus.journal_path):
        with errors_logged(f"the end of the run of {path.name} is not published"), take_lost(path) as lost:
            # The process may have been killed after it had published the end.
            if lost is not None and publisher.noted_by(lost.pid, RUN_ENDED + lost.run.run_id) is None:
                _report(publisher, lost)


def _report(publisher: Publisher, lost: RecordedRun) -> None:
    _record_successes(lost, publisher.remembers)
    for failure in failures_of(lost):
        publisher.publish_failure(RecipeRunFailureMessage.about(lost.run, failure.task_name))
        publisher.publish(failure)
    publisher.publish(end_of(lost), note=RUN_ENDED + lost.run.run_id)


def _record_successes(lost: RecordedRun, is_noted: Callable[[str], bool]) -> None:
    """Record the tasks that have succeeded after the death of the process that ran them, by their launchers' notes."""
    for name, attempt in _running(lost).items():
        if is_noted(SUCCEEDED + attempt.key):
            lost.states[name] = _SUCCESS


def final_failure(task_name: str, cause: Cause, message: str, attempt: int | None = None) -> dict[str, Any]:
    """
    Return the facts of a final failure that the engine reports for a task.

    Args:
        task_name: The name of the task.
        cause: The cause of the failure.
        message: Why no other attempt follows.
        attempt: The number of the attempt, if its own report is final; the event has the same id then.
            None if another attempt follows by that report: the event is about the task.
    """
    return {
        "task_name": task_name,
        "attempt": attempt,
        "cause": cause,
        "provisional": True,
        "final": True,
        "message": message,
    }


def failures_of(lost: RecordedRun) -> list[TaskFailed]:
    """Return the final failure of each task that was not over when the process of the run ended."""
    reporter, message = _reporter(lost), f"no other attempt follows: the run was lost, {_how(lost)}"
    return [
        reporter.event(
            TaskFailed,
            **final_failure(name, Cause.LOST, message, None if name in lost.retried else attempt.attempt),
        )
        for name, attempt in _running(lost).items()
    ]


def _reporter(lost: RecordedRun) -> EventReporter:
    context = lost.carrier
    carrier = Carrier(context[TRACEPARENT], context.get(TRACESTATE)) if TRACEPARENT in context else None
    return EventReporter(Reporter.ENGINE, lost.run, carrier=carrier)


def _how(lost: RecordedRun) -> str:
    return f"the process that ran it (pid {lost.pid}) ended without a report"


def _running(lost: RecordedRun) -> dict[str, Attempt]:
    """Return the last attempts of the tasks that were not over when the process of the run ended, by their tasks."""
    return {
        name: Attempt(lost.run, name, attempt=number, max_attempts=number)
        for name, number in lost.attempts.items()
        if lost.states[name] == RUNNING
    }


def end_of(lost: RecordedRun) -> WorkflowFailed:
    """
    Return the end of a lost run.

    Its process knew no time of the end, so the event has none, and all processes derive the same id.
    """
    states = {name: _FAILED if state == RUNNING else state for name, state in lost.states.items()}
    return _reporter(lost).event(
        WorkflowFailed,
        tasks=states,
        reason=f"{WorkflowFailed.lost} {_how(lost)}",
    )


def lost_runs(journal: Path) -> Iterator[RecordedRun]:
    """Yield the lost runs of this host whose end no process has published in this journal. Nothing is changed."""
    for lost in read_lost(journal):

        def is_noted(note: str, pid: int = lost.pid) -> bool:
            return noted_on_host(journal, [note], process=pid, patience=0.0) is not None

        if not is_noted(RUN_ENDED + lost.run.run_id):
            _record_successes(lost, is_noted)
            yield lost
