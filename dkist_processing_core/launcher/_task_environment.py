"""
The environment of one attempt: prepared before the task is started, and rebuilt once if it is damaged.

Not here: the building and caching of environments (environments), and the variables of the process (task_variables).
"""

import errno
import sys
import time
from typing import TYPE_CHECKING

from dkist_processing_core.environments import Environment, Environments, Requirement, folder_of
from dkist_processing_core.launcher._task_log import errors_logged, show

if TYPE_CHECKING:
    from dkist_processing_core.launcher._on_demand import ReportsOnDemand
    from dkist_processing_core.launcher._reports import Reports
    from dkist_processing_core.launcher.process_end import ProcessEnd
    from dkist_processing_core.launcher.termination_requests import TerminationRequests

_DAMAGE = frozenset({errno.ENOENT, errno.ENOEXEC, errno.EACCES, errno.ELOOP, errno.ENOTDIR})


class TaskEnvironment:
    """The environment that a task runs in: its own, if it requires a release, or else the launcher's."""

    def __init__(
        self, requirement: Requirement | None, reports: "ReportsOnDemand", requests: "TerminationRequests"
    ) -> None:
        """Store the requirement, None for the launcher's environment. Nothing is prepared."""
        self._requirement = requirement
        self._reports = reports
        self._requests = requests
        self._prepared_ns = (0, 0)
        self.own: Environment | None = None
        """The task's own environment; None before it is prepared, or if the task runs in the launcher's."""

    @property
    def python(self) -> str:
        """The path of the interpreter that runs the task."""
        return sys.executable if self.own is None else self.own.python

    @property
    def seconds(self) -> float | None:
        """The time to find or build the task's own environment, in seconds; None if it has none."""
        return None if self.own is None else self.own.seconds

    def prepare(self) -> None:
        """
        Find the environment, or build it.

        Raises:
            EnvironmentBuildError: It cannot be built.
        """
        if self._requirement is None:
            return
        environments = Environments(folder_of())
        began_ns = time.time_ns()
        self.own = environments.find(self._requirement)
        if self.own is None:
            # The build takes long. A user may wait for the attempt's first event, or may kill this process.
            self._reports.report(lambda _: self._requests.watch_parent())
            try:
                self.own = environments.prepare(self._requirement, on_output=show)
            except BaseException as error:
                self._report_failure(began_ns, error)
                raise
        self._prepared_ns = began_ns, time.time_ns()

    def _report_failure(self, began_ns: int, error: BaseException) -> None:
        self._reports.report(lambda reports: reports.prepared(began_ns, time.time_ns(), "failed", error))

    def rebuild(self, damage: str) -> None:
        """
        Replace the damaged environment by a new one.

        Raises:
            EnvironmentBuildError: It cannot be built.
        """
        damaged = self.own
        assert damaged is not None
        show(f"{damaged.folder} does not work, and {damaged.requirement} is installed again: {damage}")
        began_ns = time.time_ns()
        self.own = Environments(folder_of()).rebuild(damaged, problem=damage, on_output=show)
        self._prepared_ns = began_ns, time.time_ns()

    def damage_after(self, end: "ProcessEnd") -> str | None:
        """
        Return the damage of the environment that kept the task from being loaded.

        Return None if there is another reason, or if the previous environment had the same damage, since a rebuilt one
        would have it again.
        """
        with errors_logged():
            damage = self._found_damage(end)
            if damage is None or self.own is None:
                return None
            if Environments(folder_of()).is_worth_rebuilding(self.own, damage):
                return damage
            show(f"{self.own.folder} does not work, and was installed again for the same reason before: {damage}")
        return None

    def _found_damage(self, end: "ProcessEnd") -> str | None:
        is_over = end.exit_code == 0 or "loaded" in end.reports or self._requests.received is not None
        if is_over or self.own is None:
            return None
        if end.not_started is not None:
            # If processes or memory are exhausted, the environment is not damaged.
            return str(end.not_started) if end.not_started.errno in _DAMAGE else None
        if "began" not in end.reports and end.exit_code is not None and end.exit_code > 0:
            return f"its interpreter exited with status {end.exit_code} before it began"
        return Environments(folder_of()).problem_of(self.own)

    def lend_lock(self) -> list[int]:
        """Return the descriptors by which the task's process holds the environment's lock."""
        # If this fails, this process still holds the lock while the task runs.
        with errors_logged():
            return [] if self.own is None else [self.own.lend_lock()]
        return []

    def report_start(self, reports: "Reports", pid: int, started_ns: int) -> None:
        """Report the start of the task's process, and the preparation of its environment before it."""
        if self.own is None:
            reports.started(pid, started_ns, None, None)
            return
        state = "built" if self.own.built else "reused"
        reports.prepared(*self._prepared_ns, state)
        reports.started(pid, started_ns, state, self.seconds)

    def close(self) -> None:
        """Release the environment."""
        with errors_logged():
            if self.own is not None:
                self.own.close()
