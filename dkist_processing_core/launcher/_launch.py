"""
One attempt, from its assignment to the exit status of the launcher.

The order is: check, prepare the environment, start the task, and only then import the modules for events and spans. Not
here: what an end means (_verdict), and how it is reported (_reports).
"""

import contextlib
import errno
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from dkist_processing_core.environments import Environment, Environments, folder_of
from dkist_processing_core.errors import EnvironmentBuildError, IdentityError
from dkist_processing_core.launcher._assignment import Assignment
from dkist_processing_core.launcher._end import FINISHED, SOFTWARE, USAGE, End
from dkist_processing_core.launcher._environ import task_environ
from dkist_processing_core.launcher._memory import MemoryWatch
from dkist_processing_core.launcher._orders import GRACE_SECONDS, Orders
from dkist_processing_core.launcher._process import Line, TaskProcess
from dkist_processing_core.launcher.bootstrap import FLAGS
from dkist_processing_core.process.exit_status import fill_standard_descriptors, has_ended
from dkist_processing_core.process.exit_status import take as wait_for_status
from dkist_processing_core.process.termination import TerminationError
from dkist_processing_core.settings.origin import take
from dkist_processing_core.text.redaction import redact
from dkist_processing_core.text.terminal import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dkist_processing_core.launcher._reports import Reports
    from dkist_processing_core.launcher._verdict import Verdict

_LOOK_SECONDS = 0.1
_DAMAGE = frozenset({errno.ENOENT, errno.ENOEXEC, errno.EACCES, errno.ELOOP, errno.ENOTDIR})
# The engine waits 5 s, and the end must be in the journal before the group is killed.
_ANNOUNCE_SECONDS = GRACE_SECONDS - 0.6


def main() -> int:
    """Launch the task that the environment names, and return the launcher's exit status."""
    began_ns = time.time_ns()
    # First, so that no descriptor opened from here on becomes the task's standard output stream.
    fill_standard_descriptors()
    take(os.environ)
    try:
        assignment = Assignment.take_from(dict(os.environ))
    except IdentityError as error:
        _show(f"dkist_processing_core.launcher: {error}")
        return USAGE
    status = SOFTWARE
    # Once the status is known, no later error changes it.
    with _observing(), Orders() as orders:
        launch = Launch(assignment, orders, began_ns)
        try:
            orders.listen()
            status = launch.run()
        except TerminationError:
            status = launch.conclude_without_process()
        finally:
            launch.close()
    return status


class Launch:
    """One attempt under way."""

    def __init__(self, assignment: Assignment, orders: Orders, began_ns: int) -> None:
        """Take the assignment and the receiver of termination requests; nothing is started yet."""
        self._assignment = assignment
        self._orders = orders
        self._began_ns = began_ns
        self._made_reports: Reports | None = None
        self._environment: Environment | None = None
        self._process: TaskProcess | None = None
        self._prepared = (0, 0)
        self._start_id = ""
        self._is_dispatched = False
        self._is_started = False
        self._is_announcing = self._is_announced = False

    @property
    def _reports(self) -> "Reports":
        if self._made_reports is None:
            from dkist_processing_core.launcher._reports import Reports  # noqa: PLC0415 - the task is started first

            self._made_reports = Reports(self._assignment, self._began_ns)
        if not self._is_dispatched:
            self._is_dispatched = True
            self._made_reports.dispatched()
        return self._made_reports

    def run(self) -> int:
        """Run the attempt to its end, and return the launcher's exit status."""
        if self._assignment.problem is not None:
            return self._conclude_with("CONFIGURATION", IdentityError(self._assignment.problem))
        try:
            if self._assignment.requirement is not None:
                self._environment = self._prepare()
            end, memory = self._attempt()
            damage = self._damage(end)
            if self._environment is not None and damage is not None:
                self._environment = self._rebuild(self._environment, damage)
                end, memory = self._attempt()
        except EnvironmentBuildError as error:
            return self._conclude_with("ENVIRONMENT", error)
        except Exception as error:  # noqa: BLE001 - an error of this package
            _show_error()
            if self._process is None:
                # The task was not started, or not even loaded.
                self._conclude_with("ENVIRONMENT", error)
                return SOFTWARE
            end, memory = _bare_end(self._process), None
        return self._conclude(end, memory)

    def close(self) -> None:
        """Deliver the pending reports, and release the environment."""
        with _observing():
            if self._made_reports is not None:
                self._made_reports.close()
        with _observing():
            if self._environment is not None:
                self._environment.close()

    def _report(self, report: "Callable[[Reports], object]") -> None:
        """Call `report` with the reports; an error in it does not change the attempt."""
        with _observing():
            report(self._reports)

    # The environment

    def _prepare(self) -> Environment:
        requirement = self._assignment.requirement
        assert requirement is not None
        environments = Environments(folder_of())
        began_ns = time.time_ns()
        environment = environments.find(requirement)
        if environment is None:
            # It takes long. A user may wait for the attempt's first event, or may kill this process meanwhile.
            self._report(lambda _: self._orders.watch_parent())
            try:
                environment = environments.prepare(requirement, on_output=_show)
            except BaseException as error:
                self._report_preparation(began_ns, "failed", error)
                raise
        self._prepared = began_ns, time.time_ns()
        return environment

    def _report_preparation(self, began_ns: int, state: str, error: BaseException) -> None:
        self._report(lambda reports: reports.prepared(began_ns, time.time_ns(), state, error))

    def _rebuild(self, broken: Environment, damage: str) -> Environment:
        self._orders.begin_anew()
        self._process = None
        _show(f"{broken.folder} does not work, and {broken.requirement} is installed anew: {damage}")
        began_ns = time.time_ns()
        environment = Environments(folder_of()).rebuild(broken, problem=damage, on_output=_show)
        self._prepared = began_ns, time.time_ns()
        return environment

    def _damage(self, end: End) -> str | None:
        """
        Return the damage of the environment that kept the task from being loaded.

        Return None where there is another reason, and where the previous environment had the same damage, since a
        rebuilt one would have it again.
        """
        with _observing():
            damage = self._found_damage(end)
            if damage is None or self._environment is None:
                return None
            if Environments(folder_of()).is_worth_rebuilding(self._environment, damage):
                return damage
            folder = self._environment.folder
            _show(f"{folder} does not work, and was installed anew for the same reason before: {damage}")
        return None

    def _found_damage(self, end: End) -> str | None:
        is_over = end.exit_code == 0 or "loaded" in end.told or self._was_told
        if is_over or self._environment is None:
            return None
        if end.not_started is not None:
            # A lack of processes or memory is not a damaged environment.
            return str(end.not_started) if end.not_started.errno in _DAMAGE else None
        if "began" not in end.told and end.exit_code is not None and end.exit_code > 0:
            return f"its interpreter left with status {end.exit_code} before it began"
        return Environments(folder_of()).problem_of(self._environment)

    # The task's process

    def _attempt(self) -> "tuple[End, MemoryWatch | None]":
        """Start the task and wait for its end, whatever error occurs meanwhile; return the end and the memory watch."""
        carrier = self._carrier()
        started_ns = time.time_ns()
        with self._orders.blocked():
            try:
                process = self._process = self._start(carrier)
            except OSError as error:
                return End(127, 0.0, 0.0, not_started=error), None
            with _observing():
                self._orders.concern(process)
        with _observing():
            process.guard()
        memory = self._watch(process)
        with _observing():
            self._orders.watch_parent()
        with _observing():
            self._report_start(process.pid, started_ns)
        with _observing():
            process.note_start()
        while not _has_ended(process):
            if self._orders.seconds_ago > _ANNOUNCE_SECONDS and not self._is_announcing:
                self._is_announcing = True
                with _observing():
                    self._announce(process, memory)
        with _observing():
            if memory is not None:
                memory.close()
        if self._was_told:
            # No process of the group may go on after a termination request. No other process can have the task's pid
            # until the task is waited for.
            with _observing():
                process.kill_group()
        with _observing():
            self._orders.conclude()
        with _observing():
            process.listen()
        end = process.end()
        with _observing():
            process.close()
        return end, memory

    def _carrier(self) -> "Mapping[str, str] | None":
        """
        Return the context of the attempt's span, as variables, where a provider has been set up in this process.

        `opentelemetry-instrument` sets up such a provider. The provider chooses the span's id, so the span is made
        before the task is started. Otherwise the ids are derived, and OpenTelemetry is imported after the start.
        """
        with _observing():
            trace: Any = sys.modules.get("opentelemetry.trace")
            if trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
                return self._reports.environ
        return None

    def _start(self, carrier: "Mapping[str, str] | None") -> TaskProcess:
        environment = self._environment
        python = sys.executable if environment is None else environment.python
        flags = json.loads(os.environ.get(FLAGS, "[]"))
        inherits: list[int] = []
        if environment is not None:
            # Even without lending it, this process holds the lock for as long as the task runs.
            with _observing():
                inherits.append(environment.lend_lock())
        line = Line()
        self._start_id = os.urandom(8).hex()
        environ = task_environ(
            os.environ,
            self._assignment,
            environment,
            report_fd=line.report_fd,
            started_fd=line.started_fd,
            start_id=self._start_id,
            carrier=carrier,
        )
        try:
            return TaskProcess.start([python, *flags], environ, line, inherits)
        except OSError:
            line.close()
            raise

    def _watch(self, process: TaskProcess) -> MemoryWatch | None:
        with _observing():
            return MemoryWatch.begin(process.pid)
        return None

    @property
    def _was_told(self) -> bool:
        return self._orders.received is not None

    def _report_start(self, pid: int, started_ns: int) -> None:
        reports, environment = self._reports, self._environment
        state = None if environment is None else "built" if environment.built else "reused"
        if environment is not None and state is not None:
            reports.prepared(*self._prepared, state)
        if not self._is_started:
            # Reported once: the attempt started with its first process, even if that one's environment was damaged.
            self._is_started = True
            reports.started(pid, started_ns, state, None if environment is None else environment.seconds)

    def _conclude(self, end: End, memory: MemoryWatch | None) -> int:
        """Report the end and return the launcher's exit status: the task's own, even if the report fails."""
        if "end" not in end.told and (process := self._process) is not None:
            # The author's code may have closed the pipe.
            self._report(lambda reports: end.told.update(reports.noted_end(self._start_id, process.pid)))
        # Used where `end.status` fails: then only a reported success with status 0 counts as a success.
        status = int(end.exit_code != 0 or end.reported != FINISHED)
        with _observing():
            status = end.status(was_told=self._was_told)
        if self._is_announced:
            # The task's time is over and its end is published already, so the status is never 0.
            return status or 1
        self._report(lambda reports: reports.ended(self._judge(end, memory)))
        return status

    def _judge(self, end: End, memory: MemoryWatch | None) -> "Verdict":
        from dkist_processing_core.launcher._verdict import Circumstances, bare, judge  # noqa: PLC0415 - as above

        has_killed, peak = False, None
        with _observing():
            has_killed, peak = (False, None) if memory is None else (memory.has_killed, memory.peak_bytes)
        with _observing():
            return judge(end, Circumstances(self._was_told, self._orders.is_orphaned, has_killed, peak))
        return bare(end, was_told=self._was_told)

    def _announce(self, process: TaskProcess, memory: MemoryWatch | None) -> None:
        """Report the end of a task that is still running after a termination request, before it is killed."""
        import signal  # noqa: PLC0415 - enum and all, for this alone

        told = process.told()
        if told.get("is_published") is True:
            return
        duration = time.monotonic() - process.began
        end = End(-signal.SIGKILL, _cpu_seconds(process.pid), duration, told)
        self._is_announced = self._reports.ended(self._judge(end, memory))

    # Ends without a process

    def conclude_without_process(self) -> int:
        """Report the end of a task whose termination was requested before it was started."""
        cause = "LOST" if self._orders.is_orphaned else "TERMINATED"
        return self._conclude_with(cause, TerminationError(self._orders.received or 15))

    def _conclude_with(self, cause: str, error: BaseException) -> int:
        message = "\n".join([str(error), *getattr(error, "last_lines", ())])
        _show(message)

        def report(reports: "Reports") -> None:
            from dkist_processing_core.events import Cause, TaskFailed  # noqa: PLC0415 - as above
            from dkist_processing_core.launcher._verdict import Verdict  # noqa: PLC0415

            facts: dict[str, Any] = {
                "cause": Cause[cause],
                "error_type": type(error).__name__,
                "message": message,
                "duration_seconds": (time.time_ns() - self._began_ns) / 1e9,
            }
            reports.ended(Verdict(TaskFailed, facts))

        self._report(report)
        return 1


@contextlib.contextmanager
def _observing() -> "Iterator[None]":
    """Log errors of observing and suppress them, since the task lives only as long as its launcher does."""
    try:
        yield
    except Exception:  # noqa: BLE001 - as above
        _show_error()


def _bare_end(process: TaskProcess) -> End:
    """Wait for the end of a task after an error of this package, and return the facts that are still known."""
    exit_code, _ = wait_for_status(process.pid)
    with _observing():
        process.listen()
    return End(exit_code, None, time.monotonic() - process.began, process.told())


def _has_ended(process: TaskProcess) -> bool:
    """Wait a moment for the end of the task, and return True if it has ended."""
    with _observing():
        return process.has_ended(_LOOK_SECONDS)
    time.sleep(_LOOK_SECONDS)
    return has_ended(process.pid)


def _show_error() -> None:
    import traceback  # noqa: PLC0415 - not before it is needed

    _show(f"the launcher has failed in part: an error of this package\n{traceback.format_exc()}")


def _show(line: str) -> None:
    """Write a line to the task's log, redacted."""
    with contextlib.suppress(OSError, ValueError):
        # The task's log consists of everything that its process writes.
        say(redact(line), err=True)


def _cpu_seconds(pid: int) -> float:
    """Return the processor time, in s, of a running process and of its children that have ended (proc_pid_stat(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return 0.0
