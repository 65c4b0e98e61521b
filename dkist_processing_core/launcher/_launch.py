"""
One attempt, from its assignment to the status that the launcher leaves with.

The order is: check, prepare the environment, start the task, and only then import what events and spans need. Not here:
what an end means (_verdict), and how it is reported (_reports).
"""

import contextlib
import errno
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from dkist_processing_core.environments import Environment, Environments, folder_of
from dkist_processing_core.errors import EnvironmentBuildError, IdentityError
from dkist_processing_core.launcher._assignment import Assignment
from dkist_processing_core.launcher._environ import task_environ
from dkist_processing_core.launcher._memory import MemoryWatch
from dkist_processing_core.launcher._orders import GRACE_SECONDS, Orders
from dkist_processing_core.launcher._process import End, Line, TaskProcess
from dkist_processing_core.termination import TerminationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dkist_processing_core.launcher._reports import Reports
    from dkist_processing_core.launcher._verdict import Verdict

USAGE, SOFTWARE = 64, 70
"""What a launcher leaves with that was given nothing to launch, or has failed itself (sysexits(3))."""
_LOOK_SECONDS = 0.1
_DAMAGE = frozenset({errno.ENOENT, errno.ENOEXEC, errno.EACCES, errno.ELOOP, errno.ENOTDIR})
# The engine's patience is 5 s, and the end is to be in the journal before the group is killed.
_ANNOUNCE_SECONDS = GRACE_SECONDS - 0.6


def main() -> int:
    """Launch what the environment names, and return the status to leave with."""
    began_ns = time.time_ns()
    try:
        assignment = Assignment.take_from(dict(os.environ))
    except IdentityError as error:
        print(f"dkist_processing_core.launcher: {error}", file=sys.stderr)  # noqa: T201 - nobody else can be told
        return USAGE
    with Orders() as orders:
        launch = Launch(assignment, orders, began_ns)
        try:
            orders.listen()
            return launch.run()
        except TerminationError:
            return launch.conclude_without_process()
        except Exception:  # noqa: BLE001 - said in the task's log, and by the status
            _show_error()
            return SOFTWARE
        finally:
            with _observing():
                launch.close()


class Launch:
    """One attempt under way."""

    def __init__(self, assignment: Assignment, orders: Orders, began_ns: int) -> None:
        """Name what is to be done, and who may end it; nothing is started yet."""
        self._assignment = assignment
        self._orders = orders
        self._began_ns = began_ns
        self._made_reports: Reports | None = None
        self._environment: Environment | None = None
        self._prepared = (0, 0)
        self._is_dispatched = False
        self._is_started = False
        self._is_announced = False

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
        """Do all of it, and return the status to leave with."""
        if self._assignment.problem is not None:
            return self._conclude_with("CONFIGURATION", IdentityError(self._assignment.problem))
        try:
            if self._assignment.requirement is not None:
                self._environment = self._prepare()
            end, verdict = self._attempt()
            damage = self._damage(end)
            if self._environment is not None and damage is not None and self._is_worth_it(self._environment, damage):
                self._environment = self._rebuild(self._environment, damage)
                end, verdict = self._attempt()
        except EnvironmentBuildError as error:
            return self._conclude_with("ENVIRONMENT", error)
        if self._is_announced:
            # It has had its time, and whatever it has made of the rest, its end is on the bus.
            return verdict.exit_code or 1
        with _observing():
            self._reports.ended(verdict)
        return verdict.exit_code

    def close(self) -> None:
        """Deliver what was reported, and let the environment go."""
        if self._made_reports is not None:
            self._made_reports.close()
        if self._environment is not None:
            self._environment.close()

    # The environment

    def _prepare(self) -> Environment:
        requirement = self._assignment.requirement
        assert requirement is not None
        environments = Environments(folder_of(os.environ))
        began_ns = time.time_ns()
        environment = environments.find(requirement)
        if environment is None:
            # It takes long, and somebody may be waiting to hear of the attempt, or kill this process meanwhile.
            reports = self._reports
            self._orders.watch_parent()
            try:
                environment = environments.prepare(requirement, on_output=_show)
            except BaseException as error:
                reports.prepared(began_ns, time.time_ns(), "failed", error)
                raise
        self._prepared = began_ns, time.time_ns()
        return environment

    def _is_worth_it(self, broken: Environment, damage: str) -> bool:
        """Say whether to build anew: not for what was the matter with the one before, too."""
        is_new = Environments(folder_of(os.environ)).is_worth_rebuilding(broken, damage)
        if not is_new:
            _show(f"{broken.folder} does not work, and was installed anew for the same reason before: {damage}")
        return is_new

    def _rebuild(self, broken: Environment, damage: str) -> Environment:
        self._orders.begin_anew()
        _show(f"{broken.folder} does not work, and {broken.requirement} is installed anew: {damage}")
        began_ns = time.time_ns()
        environment = Environments(folder_of(os.environ)).rebuild(broken, problem=damage, on_output=_show)
        self._prepared = began_ns, time.time_ns()
        return environment

    def _damage(self, end: End) -> str | None:
        """Return for what damage of its environment the task was not even loaded; None where that is not why."""
        is_over = end.exit_code == 0 or "loaded" in end.told or self._orders.received is not None
        if is_over or self._environment is None:
            return None
        if end.not_started is not None:
            # A lack of processes or memory is no damage.
            return str(end.not_started) if end.not_started.errno in _DAMAGE else None
        if "began" not in end.told and end.exit_code > 0:
            return f"its interpreter left with status {end.exit_code} before it began"
        return Environments(folder_of(os.environ)).problem_of(self._environment)

    # The task's process

    def _attempt(self) -> "tuple[End, Verdict]":
        """Start the task and wait for its end; return what that means."""
        environment = self._environment
        python = sys.executable if environment is None else environment.python
        line = Line()
        environ = task_environ(
            os.environ, self._assignment, environment, report_fd=line.report_fd, started_fd=line.started_fd
        )
        inherits = [] if environment is None else [environment.lend_lock()]
        started_ns = time.time_ns()
        with self._orders.held_back():
            try:
                process = TaskProcess.start(python, environ, line, inherits)
            except OSError as error:
                line.close()
                return self._could_not_start(error)
            self._orders.concern(process)
        with MemoryWatch(process.pid) as memory:
            with _observing():
                self._orders.watch_parent()
            with _observing():
                self._report_start(process.pid, started_ns)
            process.note_start()
            while not process.has_ended(_LOOK_SECONDS):
                if self._orders.seconds_ago > _ANNOUNCE_SECONDS and not self._is_announced:
                    with _observing():
                        self._announce(process, memory)
        if self._orders.received is not None:
            # Nothing of what was told to end is to go on; until it is waited for, nobody else has its number.
            process.kill_group()
        self._orders.conclude()
        end = process.end()
        return end, self._judge(end, memory)

    def _report_start(self, pid: int, started_ns: int) -> None:
        reports, environment = self._reports, self._environment
        state = None if environment is None else "built" if environment.built else "reused"
        if environment is not None and state is not None:
            reports.prepared(*self._prepared, state)
        if not self._is_started:
            # Once: the start of a process in an environment that turned out to be damaged was that of the attempt.
            self._is_started = True
            reports.started(pid, started_ns, state, None if environment is None else environment.seconds)

    def _judge(self, end: End, memory: MemoryWatch) -> "Verdict":
        from dkist_processing_core.launcher._verdict import Circumstances, judge  # noqa: PLC0415 - as above

        orders = self._orders
        was_told = orders.received is not None
        return judge(end, Circumstances(was_told, orders.is_orphaned, memory.has_killed, memory.peak_bytes))

    def _announce(self, process: TaskProcess, memory: MemoryWatch) -> None:
        """Report the end of a task that was told to end and has not, before it is killed; then may be too late."""
        import signal  # noqa: PLC0415 - enum and all, for this alone

        told = process.told()
        if told.get("is_published") is True:
            return
        self._is_announced = True
        duration = time.monotonic() - process.began
        end = End(-signal.SIGKILL, _cpu_seconds(process.pid), duration, told)
        self._reports.ended(self._judge(end, memory))

    def _could_not_start(self, error: OSError) -> "tuple[End, Verdict]":
        end = End(exit_code=127, cpu_seconds=0.0, duration_seconds=0.0, told={}, not_started=error)
        from dkist_processing_core.events import Cause, TaskFailed  # noqa: PLC0415 - as above
        from dkist_processing_core.launcher._verdict import Verdict  # noqa: PLC0415

        facts = {"cause": Cause.ENVIRONMENT, "error_type": type(error).__name__, "message": str(error)}
        return end, Verdict(TaskFailed, facts, exit_code=127)

    # Ends without a process

    def conclude_without_process(self) -> int:
        """Report the end of a task that was told to end before it was started."""
        cause = "LOST" if self._orders.is_orphaned else "TERMINATED"
        return self._conclude_with(cause, TerminationError(self._orders.received or 15))

    def _conclude_with(self, cause: str, error: BaseException) -> int:
        from dkist_processing_core.events import Cause, TaskFailed  # noqa: PLC0415 - as above
        from dkist_processing_core.launcher._verdict import Verdict  # noqa: PLC0415

        facts: dict[str, Any] = {
            "cause": Cause[cause],
            "error_type": type(error).__name__,
            "message": "\n".join([str(error), *getattr(error, "last_lines", ())]),
            "duration_seconds": (time.time_ns() - self._began_ns) / 1e9,
        }
        _show(facts["message"])
        self._reports.ended(Verdict(TaskFailed, facts))
        return 1


@contextlib.contextmanager
def _observing() -> "Iterator[None]":
    """Keep what goes wrong with observing from the task, which is alive as long as its launcher is."""
    try:
        yield
    except Exception:  # noqa: BLE001 - as above
        _show_error()


def _show_error() -> None:
    import traceback  # noqa: PLC0415 - not before it is needed

    _show(f"the launcher has failed in part: an error of this package\n{traceback.format_exc()}")


def _show(line: str) -> None:
    """Say something in the task's log."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)  # noqa: T201 - the log of a task is what its process writes


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process that runs, and of its children that have ended (proc_pid_stat(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return 0.0
