"""
The supervision of one process of the task by its launcher: the order of the steps from its start to its end.

Not here: each step (_process), the steps before and after the process (launch), and the verdict on its end (_verdict).
"""

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from dkist_processing_core.identity import PREFIX
from dkist_processing_core.launcher._process import Pipes, TaskProcess, processor_seconds_of
from dkist_processing_core.launcher._sample_times import SampleTimes
from dkist_processing_core.launcher._sampling import Sampler
from dkist_processing_core.launcher._task_log import errors_logged
from dkist_processing_core.launcher.bootstrap import FLAGS
from dkist_processing_core.launcher.process_end import ProcessEnd
from dkist_processing_core.launcher.task_variables import task_environ
from dkist_processing_core.launcher.termination_requests import GRACE_SECONDS, TerminationRequests
from dkist_processing_core.process.exit_status import has_ended
from dkist_processing_core.process.exit_status import take as wait_for_status
from dkist_processing_core.recorder import layout
from dkist_processing_core.recorder.reading import Recording, read
from dkist_processing_core.recorder.region import create
from dkist_processing_core.settings.origin import Origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dkist_processing_core.launcher._on_demand import ReportsOnDemand
    from dkist_processing_core.launcher._task_environment import TaskEnvironment
    from dkist_processing_core.launcher._verdict import Verdict
    from dkist_processing_core.launcher.assignment import Assignment
    from dkist_processing_core.recorder.region import Region

# A look takes 0.1 to 0.2 ms of a processor. It looks often where no descriptor ends a wait: at a process without one,
# and at the time that is left after a termination request.
_LOOK_SECONDS, _OFTEN_SECONDS = 0.5, 0.1
# Airflow waits 5 s, and the end must be in the journal before the group is killed.
_ANNOUNCE_SECONDS = GRACE_SECONDS - 0.6


class Supervision:
    """Starts one process of the task and follows it until its end."""

    def __init__(
        self,
        assignment: "Assignment",
        environment: "TaskEnvironment",
        requests: TerminationRequests,
        reports: "ReportsOnDemand",
    ) -> None:
        """
        Store everything that the process needs. Nothing is started.

        Args:
            assignment: The attempt and the task.
            environment: The environment that the task runs in, prepared before `run`.
            requests: Receives termination requests and forwards them to the process.
            reports: Reports the start, and the end of a task that does not end in time.
        """
        self._assignment = assignment
        self._environment = environment
        self._requests = requests
        self._reports = reports
        self._sampler: Sampler | None = None
        self._times: SampleTimes | None = None
        self._is_announcing = False
        self._recording = Recording()
        self.recorder: Region | None = None
        """The memory in which the task records what it does, while the process runs; None if none could be made."""
        self.process: TaskProcess | None = None
        """The process; None if it could not be started."""
        self.start_id = ""
        """The id by which the task notes its end on this host."""
        self.is_announced = False
        """Whether the end was reported before the process had ended."""
        self.announced: dict[str, Any] = {}
        """The facts of that end."""

    def run(self) -> ProcessEnd:
        """Start the task, wait for its end despite errors of this package, and return the end."""
        carrier = self._carrier()
        started_ns = time.time_ns()
        with self._requests.blocked():
            try:
                process = self.process = self._start(carrier)
            except OSError as error:
                return ProcessEnd(exit_code=127, processor_seconds=0.0, duration_seconds=0.0, not_started=error)
            with errors_logged():
                self._requests.forward_to(process)
        with errors_logged():
            process.guard()
        with errors_logged():
            self._sampler = Sampler.begin(process.pid, process.began, self._keep_samples)
            process.ending = self._sampler.count_orphan
        with errors_logged():
            self._requests.watch_parent()
        self._reports.report(lambda reports: self._environment.report_start(reports, process.pid, started_ns))
        with errors_logged():
            process.record_start()
        with errors_logged():
            if seconds := self._reports.open().sample_seconds:
                self._times = SampleTimes(seconds)
        while not _has_ended(process, self._rest(process)):
            with errors_logged():
                self._report_sample(process)
            if self._requests.seconds_ago > _ANNOUNCE_SECONDS and not self._is_announcing:
                self._is_announcing = True
                with errors_logged():
                    self._announce(process)
        ended = time.monotonic()
        with errors_logged():
            if self._sampler is not None:
                self._sampler.close()
        if self._requests.received is not None:
            # No process of the group may go on after a termination request. No other process can have the task's pid
            # until the task is waited for.
            with errors_logged():
                process.kill_group()
        with errors_logged():
            self._requests.conclude()
        with errors_logged():
            process.listen()
        with errors_logged():
            self._close_recorder(ended)
        end = process.end()
        with errors_logged():
            process.close()
        return end

    def _rest(self, process: TaskProcess) -> float:
        """Return how many seconds to wait for the end of the process before the next look."""
        if self._requests.received is not None or not process.notifies:
            return _OFTEN_SECONDS
        return _LOOK_SECONDS if self._times is None else min(_LOOK_SECONDS, self._times.left(_age(process)))

    def _carrier(self) -> "Mapping[str, str] | None":
        """
        Return the context of the attempt's span, as variables, if a provider has been set up in this process.

        `opentelemetry-instrument` sets up such a provider. The provider chooses the span's id, so the span is created
        before the task is started. Otherwise the ids are derived, and OpenTelemetry is imported after the start.
        """
        with errors_logged():
            trace: Any = sys.modules.get("opentelemetry.trace")
            if trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
                return self._reports.open().environ
        return None

    def _start(self, carrier: "Mapping[str, str] | None") -> TaskProcess:
        flags = json.loads(os.environ.get(FLAGS, "[]"))
        inherits = self._environment.lend_lock()
        pipes = Pipes()
        self.start_id = os.urandom(8).hex()
        began = time.monotonic()
        recorder_fd = self._lend_recorder()
        environ = task_environ(
            os.environ,
            self._assignment,
            self._environment.own,
            report_fd=pipes.report_fd,
            started_fd=pipes.started_fd,
            start_id=self.start_id,
            recorder_fd=recorder_fd,
            process_began=began,
            carrier=carrier,
        )
        try:
            if recorder_fd is not None:
                inherits.append(recorder_fd)
            process = TaskProcess.start([self._environment.python, *flags], environ, pipes, inherits, began)
        except OSError:
            pipes.close()
            with errors_logged():
                self._close_recorder(began)
            raise
        with errors_logged():
            self._identify(process.pid)
        return process

    def _lend_recorder(self) -> int | None:
        """Return the descriptor of a new recorder; None if there is none."""
        with errors_logged():
            self.recorder = create(_state_folder())
            return None if self.recorder is None else self.recorder.descriptor
        return None

    def _identify(self, pid: int) -> None:
        if self.recorder is not None and self.recorder.descriptor is not None:
            os.set_inheritable(self.recorder.descriptor, False)  # noqa: FBT003 - the standard library's signature
            attempt = self._assignment.attempt
            identity = {"run_id": attempt.run.run_id, "task": attempt.task_name, "attempt": attempt.attempt, "pid": pid}
            self.recorder.write(layout.IDENTITY, json.dumps(identity).encode())

    def _close_recorder(self, ended: float) -> None:
        """Keep what the task has recorded until its end, in the time of `time.monotonic`."""
        if self.recorder is not None:
            recorder, self.recorder = self.recorder, None
            try:
                self._recording = read(recorder, ended)
            finally:
                recorder.close()

    @property
    def recording(self) -> Recording:
        """What the task has recorded so far; the ages refer to the present, and then to the end of the process."""
        return self._recording if self.recorder is None else read(self.recorder)

    def _keep_samples(self, samples: "dict[str, Any]") -> None:
        """Leave the measurements to the task, which states them if it reports its end itself."""
        # The thread that samples calls this, also while the recorder is closed.
        recorder = self.recorder
        if recorder is not None:
            recorder.write(layout.SAMPLES, json.dumps(samples).encode())

    def _report_sample(self, process: TaskProcess) -> None:
        """Report that the task lives, if that is due, and what it uses."""
        if self._times is None or self._requests.received is not None:
            return
        interval = self._times.take(_age(process))
        if interval is not None:
            moment = {} if self._sampler is None else self._sampler.moment()
            self._reports.report(lambda reports: reports.sampled(interval, moment, self.recording.top_frame))

    def _announce(self, process: TaskProcess) -> None:
        """Report the end of a task that is still running after a termination request, before it is killed."""
        import signal  # noqa: PLC0415 - enum and all, for this alone

        reports = process.reports()
        if reports.get("is_on_disk") is True:
            return
        end = ProcessEnd(
            exit_code=-signal.SIGKILL,
            processor_seconds=processor_seconds_of(process.pid),
            duration_seconds=time.monotonic() - process.began,
            reports=reports,
        )
        verdict = self.verdict_on(end)
        self.announced = verdict.facts
        self.is_announced = self._reports.open().ended(verdict)

    def verdict_on(self, end: ProcessEnd) -> "Verdict":
        """
        Return the verdict on the attempt, with the measured and observed facts; a verdict without these if that fails.

        Args:
            end: The end of the process, or the expected one.
        """
        from dkist_processing_core.launcher._measured import facts_of_end, facts_of_failure  # noqa: PLC0415 - as below
        from dkist_processing_core.launcher._verdict import Circumstances, bare, judge  # noqa: PLC0415 - imports events

        is_requested, sampler = self._requests.received is not None, self._sampler
        has_killed, measured, last = False, {}, {}
        with errors_logged():
            has_killed = sampler is not None and sampler.has_killed
        with errors_logged():
            measured = {} if sampler is None else facts_of_end(sampler, end)
        with errors_logged():
            last = facts_of_failure(self.recording)
        with errors_logged():
            return judge(end, Circumstances(is_requested, self._requests.is_orphaned, has_killed, measured, last))
        return bare(end, termination_requested=is_requested)


def bare_end(process: TaskProcess) -> ProcessEnd:
    """Wait for the end of a task after an error of this package, and return the facts that are still known."""
    exit_code, _ = wait_for_status(process.pid)
    with errors_logged():
        process.listen()
    return ProcessEnd(
        exit_code=exit_code,
        processor_seconds=None,
        duration_seconds=time.monotonic() - process.began,
        reports=process.reports(),
    )


def _state_folder() -> str | None:
    """Return the folder of the journals if it exists; only a recorder that cannot be in memory needs it."""
    origin = Origin.of_process()
    try:
        folder = origin.absolute(origin.named(f"{PREFIX}STATE_DIR") or "~/.local/state/dkist-processing-core")
    except LookupError:
        return None
    return folder if os.path.isdir(folder) else None  # noqa: PTH112 - pathlib costs its import


def _age(process: TaskProcess) -> float:
    return time.monotonic() - process.began


def _has_ended(process: TaskProcess, seconds: float) -> bool:
    """Wait at most so many seconds for the end of the task, and return True if it has ended."""
    with errors_logged():
        return process.has_ended(seconds)
    time.sleep(_OFTEN_SECONDS)
    return has_ended(process.pid)
