"""
The environments of one folder: found, prepared, made anew, listed and pruned.

Not here: all that takes longer than finding one, which is imported when it is needed.
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
from dkist_processing_core.trusted import exchangeable_above

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dkist_processing_core.environments._entries import Entry
    from dkist_processing_core.environments._environment import Environment
    from dkist_processing_core.environments._limits import Limits
    from dkist_processing_core.environments._requirement import Requirement


class Environments:
    """
    The cache in one folder, for one interpreter and one set of variables.

    `limits` is called when something is built, and no sooner: by default it reads the settings. `installer` names uv or
    pip where the choice is not to be made here.
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
        """Take the folder, which need not be there; nothing is read or made yet."""
        self.folder = os.path.abspath(os.fspath(folder))
        self.environ = os.environ if environ is None else environ
        self.interpreter = interpreter
        self.installer = installer
        self._limits = limits

    @property
    def limits(self) -> Limits:
        """How patient an installer is, and what prunes."""
        from dkist_processing_core.environments._limits import Limits

        return Limits.read() if self._limits is None else self._limits()

    def key(self, requirement: Requirement) -> Key:
        """
        Return the key of a requirement here and now: its `name` is that of the link to its environment.

        Raises
        ------
        EnvironmentBuildError
            where the interpreter is another than this process's and cannot be run.

        """
        return Key(requirement, interpreter_of(self.interpreter), self.environ)

    def find(self, requirement: Requirement) -> Environment | None:
        """Return the environment that is ready for use, in use from now on; None where there is none."""
        return self.find_by(self.key(requirement), requirement)

    def find_by(self, key: Key, requirement: Requirement) -> Environment | None:
        """Return what `find` does, for a key that is known already."""
        began = time.monotonic()
        before = None
        # More than once: between reading the link and taking the lock another process may replace and prune it.
        while True:
            try:
                target = os.readlink(f"{self.folder}/{key.name}")
                distrusted = distrust(os.stat(self.folder), os.geteuid()) or exchangeable_above(self.folder)
            except OSError:
                return None
            named = key_and_number(target)
            # Nothing outside the folder is run, and nothing that somebody else might have put into it.
            if distrusted or target == before or named is None or named[0] != key.name or named[1] is None:
                return None
            before = target
            found = hold(f"{self.folder}/{target}", requirement, key)
            if found is not None:
                found.seconds = time.monotonic() - began
                return found

    def prepare(self, requirement: Requirement, *, on_output: Callable[[str], None] | None = None) -> Environment:
        """
        Return an environment that is ready for use, in use from now on: found, or built, or built by another meanwhile.

        `on_output` gets what the installer writes, line by line and without secrets. Whatever ends the wait or the
        build, as an exception from a signal's handler, ends the installer too.

        Raises
        ------
        EnvironmentBuildError
            where it cannot be built, or the folder cannot be used.

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
        Return a new environment in place of one that does not work, which is closed.

        Where another process has made a new one already, that is it. The problem is written down in the new one, for
        `is_worth_rebuilding`.

        Raises
        ------
        EnvironmentBuildError
            as `prepare` does.

        """
        from dkist_processing_core.environments._build import build

        requirement, folder = broken.requirement, broken.folder
        broken.close()
        key = self.key(requirement)
        return build(self, requirement, key, on_output=on_output, instead_of=folder, problem=problem)

    def problem_of(self, environment: Environment) -> str | None:
        """Return what is wrong with an environment's files; None where nothing is. It looks at each of them."""
        from dkist_processing_core.environments._damage import problem_of

        return problem_of(environment)

    def is_worth_rebuilding(self, environment: Environment, problem: str) -> bool:
        """Say whether `rebuild` may help: not if the environment was made within a day for the very same problem."""
        from dkist_processing_core.environments._damage import is_worth_rebuilding

        return is_worth_rebuilding(environment, problem)

    def entries(self) -> list[Entry]:
        """
        Return all that is in the folder, that used last first.

        Raises
        ------
        EnvironmentBuildError
            where the folder cannot be read; one that is not there holds nothing.

        """
        from dkist_processing_core.environments._entries import entries

        return entries(self.folder)

    def prune(self, *, max_age_days: float, max_bytes: int, dry_run: bool = False) -> list[Entry]:
        """
        Remove what was not used for so many days, what does not fit into so many bytes, and what is left over.

        Never one in use. Returns what was removed, or, with `dry_run`, would be.

        Raises
        ------
        EnvironmentBuildError
            where the folder cannot be read.

        """
        from dkist_processing_core.environments._prune import prune

        return prune(self.folder, max_age_days=max_age_days, max_bytes=max_bytes, dry_run=dry_run)
