"""
One attempt, from its assignment to the exit status of the launcher.

The order is: check, prepare the environment, start the task, and only then import the modules for events and spans. Not
here: the verdict on an end (_verdict), and its report (_reports).
"""

import json
import os
import time
from typing import TYPE_CHECKING, Any

from dkist_processing_core.errors import EnvironmentBuildError, IdentityError
from dkist_processing_core.launcher._on_demand import ReportsOnDemand
from dkist_processing_core.launcher._supervision import Supervision, bare_end
from dkist_processing_core.launcher._task_environment import TaskEnvironment
from dkist_processing_core.launcher._task_log import begin_log, errors_logged, show, show_error
from dkist_processing_core.launcher.assignment import Assignment
from dkist_processing_core.launcher.process_end import FINISHED, SOFTWARE, USAGE, ProcessEnd
from dkist_processing_core.launcher.termination_requests import TerminationRequests
from dkist_processing_core.process.exit_status import fill_standard_descriptors
from dkist_processing_core.process.termination import TerminationError
from dkist_processing_core.settings.origin import take

if TYPE_CHECKING:
    from dkist_processing_core.launcher._reports import Reports
    from dkist_processing_core.launcher._verdict import Verdict

# The causes of failures that are no error of the task: the exit status names them.
_WITHOUT_ERROR = ("terminated", "lost", "signal")


def main() -> int:
    """Launch the task that the environment names, and return the launcher's exit status."""
    began_ns = time.time_ns()
    # This is first, so that no descriptor opened later becomes the task's standard output stream.
    fill_standard_descriptors()
    take(os.environ)
    try:
        assignment = Assignment.take_from(dict(os.environ))
    except IdentityError as error:
        show(f"dkist_processing_core.launcher: {error}")
        return USAGE
    with errors_logged():
        begin_log(assignment.attempt)
    status = SOFTWARE
    # Once the status is known, no later error changes it.
    with errors_logged(), TerminationRequests() as requests:
        launch = Launch(assignment, requests, began_ns)
        try:
            requests.listen()
            status = launch.run()
        except TerminationError:
            status = launch.conclude_without_process()
        finally:
            launch.close()
    return status


class Launch:
    """Runs one attempt, from the check of its assignment to the report of its end."""

    def __init__(self, assignment: Assignment, requests: TerminationRequests, began_ns: int) -> None:
        """Store the assignment and the receiver of termination requests. Nothing is started."""
        self._assignment = assignment
        self._requests = requests
        self._began_ns = began_ns
        self._reports = ReportsOnDemand(assignment, began_ns)
        self._environment = TaskEnvironment(assignment.requirement, self._reports, requests)
        self._supervision = self._new_supervision()
        self._lost_by_task: object = 0
        for descriptor in (assignment.engine_fd, assignment.record_fd):
            if descriptor is not None:
                with errors_logged():
                    os.set_inheritable(descriptor, False)  # noqa: FBT003 - the standard library's signature

    def _new_supervision(self) -> Supervision:
        return Supervision(self._assignment, self._environment, self._requests, self._reports)

    def run(self) -> int:
        """Run the attempt to its end, and return the launcher's exit status."""
        if self._assignment.problem is not None:
            return self._conclude_with("CONFIGURATION", IdentityError(self._assignment.problem))
        try:
            self._environment.prepare()
            end = self._supervision.run()
            damage = self._environment.damage_after(end)
            if damage is not None:
                self._requests.begin_anew()
                self._supervision = self._new_supervision()
                self._environment.rebuild(damage)
                end = self._supervision.run()
        except EnvironmentBuildError as error:
            return self._conclude_with("ENVIRONMENT", error)
        except Exception as error:  # noqa: BLE001 - an error of this package
            show_error()
            if self._supervision.process is None:
                # The task was not started, or not even loaded.
                self._conclude_with("ENVIRONMENT", error)
                return SOFTWARE
            end = bare_end(self._supervision.process)
        return self._conclude(end)

    def _conclude(self, end: ProcessEnd) -> int:
        """Report the end and return the launcher's exit status: the task's own, even if the report fails."""
        supervision = self._supervision
        self._lost_by_task = end.reports.get("lost", 0)
        if "end" not in end.reports and (process := supervision.process) is not None:
            # The author's code may have closed the pipe.
            self._reports.report(
                lambda reports: end.reports.update(reports.noted_end(supervision.start_id, process.pid))
            )
        # Used where `end.status` fails: then only a reported success with status 0 counts as a success.
        status = int(end.exit_code != 0 or end.reported_event != FINISHED)
        with errors_logged():
            status = end.status(termination_requested=self._requests.received is not None)
        # The parts of the task's trace that it could not end, before the attempt's own span ends.
        self._reports.report(
            lambda reports: reports.end_open_spans(
                end.reports, cause=lambda: str(supervision.verdict_on(end).cause or "exit")
            )
        )
        if supervision.is_announced:
            self._notify_engine(supervision.announced)
            # The task's time is over and its end is published already, so the status is never 0.
            return status or 1
        self._reports.report(lambda reports: self._report_end(reports, supervision.verdict_on(end)))
        return status

    def _report_end(self, reports: "Reports", verdict: "Verdict") -> None:
        self._notify_engine(verdict.facts)
        reports.ended(verdict)

    def _notify_engine(self, facts: dict[str, Any]) -> None:
        """Send the facts of the end that a local run shows, with the values that the end event has."""
        if self._assignment.engine_fd is not None:
            shown = {name: facts.get(name) for name in ("duration_seconds", "phases")}
            with errors_logged():
                from dkist_processing_core.text import error_line  # noqa: PLC0415 - the task is started first

                if facts.get("cause") not in _WITHOUT_ERROR:
                    shown["error"] = error_line(facts.get("error_type"), facts.get("message"))
                line = json.dumps({**shown, "preparation_seconds": self._environment.seconds})
                os.write(self._assignment.engine_fd, line.encode() + b"\n")

    def conclude_without_process(self) -> int:
        """Report the end of a task whose termination was requested before it was started."""
        cause = "LOST" if self._requests.is_orphaned else "TERMINATED"
        return self._conclude_with(cause, TerminationError(self._requests.received or 15))

    def _conclude_with(self, cause: str, error: BaseException) -> int:
        message = "\n".join([str(error), *getattr(error, "last_lines", ())])
        show(message)

        def report(reports: "Reports") -> None:
            from dkist_processing_core.events import Cause, TaskFailed  # noqa: PLC0415 - the task is started first
            from dkist_processing_core.launcher._verdict import Verdict  # noqa: PLC0415

            facts: dict[str, Any] = {
                "cause": Cause[cause],
                "error_type": type(error).__name__,
                "message": message,
            }
            self._report_end(reports, Verdict(TaskFailed, facts))

        self._reports.report(report)
        return 1

    def close(self) -> None:
        """Deliver the pending reports, and release the environment."""
        if self._assignment.record_fd is not None:
            # If the process of the run has died, the last launcher that closes the record can take and report it.
            with errors_logged():
                os.close(self._assignment.record_fd)
        lost = self._reports.close(is_orphaned=self._requests.is_orphaned, lost_by_task=self._lost_by_task)
        if lost and self._assignment.engine_fd is not None:
            with errors_logged():
                os.write(self._assignment.engine_fd, json.dumps({"lost": lost}).encode() + b"\n")
        self._environment.close()
