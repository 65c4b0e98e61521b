"""
The environments of one folder: finding, preparing, rebuilding, listing and pruning them.

Not here: code that takes longer than finding one; it is imported when it is needed.
"""

# ruff: noqa: PTH100, PTH115, PTH116 - paths are texts: pathlib is dearer than finding
# ruff: noqa: PLC0415 - finding an environment must not wait for what builds one
from __future__ import annotations

import os
import sys
import time

from dkist_processing_core.environments._environment import hold
from dkist_processing_core.environments._key import Key, interpreter_of
from dkist_processing_core.environments._place import distrust, key_and_number
from dkist_processing_core.process.trusted import exchangeable_above

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dkist_processing_core.environments._environment import Environment
    from dkist_processing_core.environments._requirement import Requirement
    from dkist_processing_core.environments.entries import Entry
    from dkist_processing_core.environments.limits import Limits


class Environments:
    """
    The cache in one folder, for one interpreter and one set of variables.

    `limits` is called only when something is built; by default it reads the settings. `installer` names uv or pip;
    without it, the choice is automatic.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        limits: Callable[[], Limits] | None = None,
        environ: Mapping[str, str] | None = None,
        interpreter: str = sys.executable,
        installer: str | None = None,
    ) -> None:
        """Take the folder, which need not exist; nothing is read or created yet."""
        self.folder = os.path.abspath(os.fspath(folder))
        self.environ = os.environ if environ is None else environ
        self.interpreter = interpreter
        self.installer = installer
        self._limits = limits

    @property
    def limits(self) -> Limits:
        """The timeouts and retries of an installer, and the limits for pruning."""
        from dkist_processing_core.environments.limits import Limits

        return Limits.read() if self._limits is None else self._limits()

    def key(self, requirement: Requirement) -> Key:
        """
        Return the key of a requirement for this interpreter and these variables.

        The `name` of the key is the name of the link to its environment.

        Raises:
            EnvironmentBuildError: The interpreter is not this process's own and cannot be run.
        """
        return Key(requirement, interpreter_of(self.interpreter), self.environ)

    def find(self, requirement: Requirement) -> Environment | None:
        """Return the environment that is ready for use, marked as in use, or None if there is none."""
        return self.find_by(self.key(requirement), requirement)

    def find_by(self, key: Key, requirement: Requirement) -> Environment | None:
        """Return the same as `find`, for a key that is already known."""
        began = time.monotonic()
        before = None
        # In a loop: another process may replace and prune it between reading the link and taking the lock.
        while True:
            try:
                target = os.readlink(f"{self.folder}/{key.name}")
                distrusted = distrust(os.stat(self.folder), os.geteuid()) or exchangeable_above(self.folder)
            except OSError:
                return None
            named = key_and_number(target)
            # No file outside the folder is executed, and no file that another user might have put into it.
            if distrusted or target == before or named is None or named[0] != key.name or named[1] is None:
                return None
            before = target
            found = hold(f"{self.folder}/{target}", requirement, key)
            if found is not None:
                found.seconds = time.monotonic() - began
                return found

    def prepare(self, requirement: Requirement, *, on_output: Callable[[str], None] | None = None) -> Environment:
        """
        Return an environment that is ready and marked as in use: found, built, or built by another process meanwhile.

        `on_output` receives the output of the installer, line by line and without secrets. An exception that ends the
        wait or the build, for example from a signal's handler, also ends the installer.

        Raises:
            EnvironmentBuildError: The environment cannot be built, or the folder cannot be used.
        """
        key = self.key(requirement)
        found = self.find_by(key, requirement)
        if found is not None:
            return found
        from dkist_processing_core.environments._build import build

        return build(self, requirement, key, on_output=on_output)

    def rebuild(
        self, broken: Environment, *, problem: str | None = None, on_output: Callable[[str], None] | None = None
    ) -> Environment:
        """
        Close an environment that does not work, and return a new one in its place.

        If another process has already made a new one, that one is returned. The record of the new one keeps the problem
        for `is_worth_rebuilding`.

        Raises:
            EnvironmentBuildError: As for `prepare`.
        """
        from dkist_processing_core.environments._build import build

        requirement, folder = broken.requirement, broken.folder
        broken.close()
        key = self.key(requirement)
        return build(self, requirement, key, on_output=on_output, instead_of=folder, problem=problem)

    def problem_of(self, environment: Environment) -> str | None:
        """Check each file of an environment, and return the first problem, or None if there is none."""
        from dkist_processing_core.environments._damage import problem_of

        return problem_of(environment)

    def is_worth_rebuilding(self, environment: Environment, problem: str) -> bool:
        """Return True if `rebuild` may help: not if the environment was made within a day for the same problem."""
        from dkist_processing_core.environments._damage import is_worth_rebuilding

        return is_worth_rebuilding(environment, problem)

    def entries(self) -> list[Entry]:
        """
        Return all entries of the folder, most recently used first; a missing folder has none.

        Raises:
            EnvironmentBuildError: The folder cannot be read.
        """
        from dkist_processing_core.environments.entries import entries

        return entries(self.folder)

    def prune(self, *, max_age_days: float, max_bytes: int, dry_run: bool = False) -> list[Entry]:
        """
        Remove environments unused for `max_age_days`, those that do not fit into `max_bytes`, and left-over ones.

        Environments in use are never removed. Returns the removed ones or, with `dry_run`, those that would be removed.

        Raises:
            EnvironmentBuildError: The folder cannot be read.
        """
        from dkist_processing_core.environments._prune import prune

        return prune(self.folder, max_age_days=max_age_days, max_bytes=max_bytes, dry_run=dry_run)
