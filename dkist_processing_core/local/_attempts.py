"""
The running attempts of a run: each in a launcher's process that a thread follows, or called in this thread.

Not here: the pipes and signals of such a process (child), the times of the starts (engine), and the effects of the ends
(_schedule).
"""

import contextlib
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dkist_processing_core.delivery.reporter import errors_logged
from dkist_processing_core.events import TaskFinished
from dkist_processing_core.identity import Attempt
from dkist_processing_core.journal.notes import ENDED
from dkist_processing_core.launcher.process_end import SOFTWARE, USAGE
from dkist_processing_core.local import child
from dkist_processing_core.local._attempt_end import AttemptEnd
from dkist_processing_core.process.signal_safe_flag import SignalSafeFlag
from dkist_processing_core.process.signals import signals_deferred
from dkist_processing_core.process.termination import TerminationError
from dkist_processing_core.settings.origin import Origin, read_from
from dkist_processing_core.text import duration, error_line, parts_of_attempt
from dkist_processing_core.text.exception_text import message_of, qualified_name
from dkist_processing_core.text.redaction import redact
from dkist_processing_core.text.shown_stack import shown_stack_of

if TYPE_CHECKING:
    from dkist_processing_core.local._reports import RunReports
    from dkist_processing_core.local._run_display import RunDisplay
    from dkist_processing_core.local.child import LauncherProcess
    from dkist_processing_core.node import Node

# Exit statuses of a launcher that has not reported the end of its task.
_UNREPORTED = (SOFTWARE, USAGE)
logger = logging.getLogger(__name__)


class Attempts:
    """The running attempts, and the ends that are not recorded yet."""

    def __init__(self, reports: "RunReports", display: "RunDisplay", origin: Origin) -> None:
        """Store the run's reports and display, and the sources of the settings. Nothing is started."""
        self._reports = reports
        self._display = display
        self._origin = origin
        # Each entry stays there until it is recorded: an interrupt may come between any two steps.
        self._ended: deque[AttemptEnd] = deque()
        self._has_ended = SignalSafeFlag()
        # The attempt that is called in this thread, with its start time; or the attempt whose process it follows.
        self._called_here: tuple[Attempt, float] | None = None
        self._followed_here: tuple[Attempt, LauncherProcess, float] | None = None
        self._processes: dict[str, LauncherProcess] = {}
        self._running: set[str] = set()
        self.is_stopping = False
        """Whether the run ends: a process that is started now is terminated at once."""

    @property
    def count(self) -> int:
        """The number of attempts that run, or have ended and are not recorded."""
        return len(self._running)

    @property
    def is_empty(self) -> bool:
        """Whether no attempt runs, and no end is left to record."""
        return not (self._running or self._ended)

    def await_end(self, seconds: float | None) -> AttemptEnd | None:
        """Return the first end that is not recorded yet; None if there is none within `seconds`."""
        if not self._ended:
            self._has_ended.wait(seconds)
        self._has_ended.lower()
        return self._ended[0] if self._ended else None

    def forget(self, end: AttemptEnd) -> None:
        """Remove an end after it was recorded."""
        self._ended.remove(end)
        self._running.discard(end.attempt.task_name)
        self._processes.pop(end.attempt.task_name, None)

    # Starting

    def _environ(self, attempt: Attempt) -> dict[str, str]:
        return attempt.to_environ() | self._reports.environ | self._origin.to_environ()

    def start(self, attempt: Attempt, environ: dict[str, str]) -> bool:
        """Start an attempt's launcher and follow it in a thread; return False if no thread could be started."""
        thread = threading.Thread(target=self._run_process, args=(attempt, environ), daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._running.add(attempt.task_name)
            return True
        return False

    def run_here(self, attempt: Attempt, environ: dict[str, str]) -> None:
        """Run an attempt's launcher to its end in this thread, which can be interrupted."""
        self._run_process(attempt, environ, is_here=True)

    def _run_process(self, attempt: Attempt, environ: dict[str, str], *, is_here: bool = False) -> None:
        began = time.monotonic()
        # No interrupt comes between the start of the process and its registration.
        with signals_deferred(interrupts=True):
            try:
                process = child.start({**self._environ(attempt), **environ}, self._reports.record_fd)
            except Exception as error:  # noqa: BLE001 - after any error the attempt is over
                logger.error("%s cannot be started: %s", attempt.task_name, error)  # noqa: TRY400 - one line reports it
                self._record_end(AttemptEnd(attempt, SOFTWARE, time.monotonic() - began, is_reported=False))
                return
            self._processes[attempt.task_name] = process
            if is_here:
                self._running.add(attempt.task_name)
                self._followed_here = attempt, process, began
        self._display.detail(attempt.task_name, f"launcher {process.pid}, attempt {attempt.attempt}")
        if self.is_stopping:
            _send(process, signal.SIGTERM)
        try:
            for _ in self._follow(attempt, process, began):
                pass
        except BaseException:
            if not is_here:
                # The main thread waits for this entry.
                self._record_end(AttemptEnd(attempt, None, time.monotonic() - began, is_reported=False))
            raise

    def _follow(self, attempt: Attempt, process: "LauncherProcess", began: float) -> Iterator[None]:
        """Show a launcher's output until it ends, in steps, and record its end, even if reading or showing fails."""
        exit_code = None
        with errors_logged(f"the output of {attempt.task_name} is not shown"):
            for lines in child.output_of(process):
                if lines:
                    self._display.show(lambda display: display.output(attempt.task_name, lines))  # noqa: B023 - called now
                yield
        with errors_logged(f"the output of {attempt.task_name} is no longer read"):
            child.drop_output(process)
        with errors_logged(f"the status of the launcher of {attempt.task_name} is not known"):
            exit_code = child.wait(process)
        is_reported = exit_code is not None and exit_code >= 0 and exit_code not in _UNREPORTED
        facts, lasted = child.facts_of_end(process), time.monotonic() - began
        seconds, parts = _times_of(facts, otherwise=lasted)
        self._reports.add_loss(facts.get("lost", 0))
        self._display.detail(attempt.task_name, f"launcher {process.pid} ended after {duration(lasted)}")
        with signals_deferred(interrupts=True):
            self._record_end(AttemptEnd(attempt, exit_code, seconds, is_reported, parts, str(facts.get("error") or "")))
            if self._followed_here is not None and self._followed_here[0] is attempt:
                self._followed_here = None

    def _record_end(self, end: AttemptEnd) -> None:
        self._ended.append(end)
        self._has_ended.raise_()

    # Calling

    def call_here(self, attempt: Attempt, node: "Node", queued_seconds: float) -> None:
        """Run a task that no other process can load, such as one defined at a prompt, in this process and thread."""
        self._reports.dispatched(attempt, node.resource_queue.value, queued_seconds)
        began = time.monotonic()
        attempt = replace(attempt, start_id=os.urandom(8).hex())
        self._called_here = attempt, began
        exit_code, named = 1, ""
        environ = self._environ(attempt)
        before = {name: os.environ.get(name) for name in environ}
        os.environ.update(environ)
        try:
            run = attempt.run
            # The author's code may change the settings' sources, and the run's journal must stay the same.
            with (
                read_from(self._origin),
                node.task(run.recipe_run_id or 0, run.workflow_name, run.workflow_version) as task,
            ):
                task()
            exit_code = 0
        except TerminationError:
            raise
        except SystemExit as error:
            exit_code = error.code if isinstance(error.code, int) and error.code else 1
        except Exception as error:  # noqa: BLE001 - an error of the task
            # Formatted here: the logging module fails at exceptions that cannot be formatted.
            logger.error("%s failed\n%s", node.name, redact(shown_stack_of(error)).rstrip("\n"))  # noqa: TRY400 - as above
            named = error_line(qualified_name(type(error)), message_of(error))
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value
        seconds = time.monotonic() - began
        self._note_end_here(AttemptEnd(attempt, exit_code, seconds, is_reported=False, error=named))

    def _note_end_here(self, end: AttemptEnd) -> None:
        with signals_deferred(interrupts=True):
            self._record_end(end)
            self._called_here = None

    # Stopping

    def stop(self) -> Iterator[None]:
        """
        Begin to stop, and record the end of a call that was interrupted.

        Returns:
            The steps in which this thread follows a process that it followed when it was interrupted.
        """
        self.is_stopping = True
        if self._called_here is not None:
            # This call was interrupted, possibly after the task had ended.
            attempt, began = self._called_here
            is_finished = self._reports.is_noted(f"{ENDED}{attempt.start_id}/{TaskFinished.name}")
            self._note_end_here(AttemptEnd(attempt, int(not is_finished), time.monotonic() - began, is_reported=False))
        # The interrupt also ended the following of a process in this thread; its launcher lives.
        return iter(()) if self._followed_here is None else self._follow(*self._followed_here)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to all launchers."""
        for process in list(self._processes.values()):
            _send(process, number)


def _times_of(facts: dict[str, Any], *, otherwise: float) -> tuple[float, str]:
    """Return the duration that a launcher has sent, and the text of its parts; the engine's own duration without it."""
    with errors_logged("the duration of the task is that of its launcher"):
        if isinstance(seconds := facts.get("duration_seconds"), float):
            return seconds, parts_of_attempt(facts.get("phases") or {}, facts.get("preparation_seconds"))
    return otherwise, ""


def _send(process: "LauncherProcess", number: signal.Signals) -> None:
    with errors_logged(f"{number.name} is not sent to a task"):
        child.send_signal(process, number)
