"""
The environments of one folder: finding, preparing, rebuilding, listing and pruning them.

Not here: how each of these is done (_environment, _build, entries, _prune); what takes longer than finding an
environment is imported when it is needed.
"""

# ruff: noqa: PTH100 - paths are texts: importing pathlib takes longer than finding
# ruff: noqa: PLC0415 - finding an environment must not import the builder
from __future__ import annotations

import os
import sys

from dkist_processing_core.environments._environment import find
from dkist_processing_core.environments._key import Key, interpreter_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dkist_processing_core.environments._build import Builder
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
        """Store the folder, which need not exist. Nothing is read or created."""
        self.folder = os.path.abspath(os.fspath(folder))
        self.environ = os.environ if environ is None else environ
        self.interpreter = interpreter
        self.installer = installer
        self._limits = limits

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
        return find(self.folder, self.key(requirement), requirement)

    def prepare(self, requirement: Requirement, *, on_output: Callable[[str], None] | None = None) -> Environment:
        """
        Return an environment that is ready and marked as in use: found, built here, or built by another process.

        `on_output` receives the output of the installer, line by line and without secrets. An exception that ends the
        wait or the build, for example from a signal handler, also ends the installer.

        Raises:
            EnvironmentBuildError: The environment cannot be built, or the folder cannot be used.
        """
        key = self.key(requirement)
        found = find(self.folder, key, requirement)
        if found is not None:
            return found
        return self._builder(requirement, key, on_output).build()

    def rebuild(
        self, broken: Environment, *, problem: str | None = None, on_output: Callable[[str], None] | None = None
    ) -> Environment:
        """
        Close an environment that does not work, and return a new one in its place.

        If another process has already built a new one, that one is returned. The record of the new one keeps the
        problem for `is_worth_rebuilding`.

        Raises:
            EnvironmentBuildError: As for `prepare`.
        """
        requirement, folder = broken.requirement, broken.folder
        broken.close()
        return self._builder(requirement, self.key(requirement), on_output).build(instead_of=folder, problem=problem)

    def _builder(self, requirement: Requirement, key: Key, on_output: Callable[[str], None] | None) -> Builder:
        from dkist_processing_core.environments._build import Builder
        from dkist_processing_core.environments._installer import InstallerSettings
        from dkist_processing_core.environments.limits import Limits

        limits = Limits.read() if self._limits is None else self._limits()
        settings = InstallerSettings(self.interpreter, self.environ, limits, self.installer)
        return Builder(self.folder, requirement, key, settings, on_output=on_output)

    def problem_of(self, environment: Environment) -> str | None:
        """Check each file of an environment, and return the first problem, or None if there is none."""
        from dkist_processing_core.environments._damage import problem_of

        return problem_of(environment)

    def is_worth_rebuilding(self, environment: Environment, problem: str) -> bool:
        """Return False if `rebuild` would not help: this one was built within a day because of the same problem."""
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
