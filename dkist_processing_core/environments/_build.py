"""
The build of an environment: by one process at a time per key, at its final path, used only when all of it is on disk.

Not here: the commands of the installer (_installer), removing environments (_prune).
"""

# ruff: noqa: PTH104, PTH105, PTH108, PTH112, PTH114, PTH116, PTH119, PTH208, PTH211 - paths are texts: importing pathlib takes longer than finding
import contextlib
import errno
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from secrets import token_hex

from dkist_processing_core.environments import _record
from dkist_processing_core.environments._damage import altered, without_folder
from dkist_processing_core.environments._environment import Environment, find
from dkist_processing_core.environments._installer import Installer, InstallerSettings, choose
from dkist_processing_core.environments._key import Key, interpreter_of
from dkist_processing_core.environments._locks import lock
from dkist_processing_core.environments._place import GONE, LOCK, MARKER, distrust, key_and_number
from dkist_processing_core.environments._prune import prune
from dkist_processing_core.environments._requirement import Requirement
from dkist_processing_core.environments.entries import Entry, entries
from dkist_processing_core.errors import DKISTProcessingCoreError, EnvironmentBuildError
from dkist_processing_core.process.trusted_files import exchangeable_above, make_folder

FROZEN = "frozen"
"""The extra with which a release pins the versions that it was tested with."""
_TURN = 0.05
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_MESSAGES = ("No space left on device", "Disk quota exceeded")
logger = logging.getLogger(__name__)


class Builder:
    """
    The builder of one key's environment; other builders of the key wait for it.

    Its output goes to `on_output` line by line, or to the log.
    """

    def __init__(
        self,
        folder: str,
        requirement: Requirement,
        key: Key,
        settings: InstallerSettings,
        *,
        on_output: Callable[[str], None] | None,
    ) -> None:
        """Store the folder, the requirement, its key and the installer's settings. Nothing is created."""
        self._folder = folder
        self._requirement = requirement
        self._key = key
        self._settings = settings
        self._on_output = on_output

    def build(self, *, instead_of: str | None = None, problem: str | None = None) -> Environment:
        """
        Return the environment of the key, built here unless another process builds it; never the one at `instead_of`.

        Raises:
            EnvironmentBuildError: The environment cannot be built, or the folder cannot be used.
        """
        began = time.monotonic()
        link = f"{self._folder}/{self._key.name}"
        try:
            _make_folder(self._folder)
            _refuse_folder_at(link)
            with self._only_builder(f"{link}{LOCK}", began + self._settings.limits.longest) as lock_fd:
                environment = find(self._folder, self._key, self._requirement)
                if environment is not None and environment.folder == instead_of:
                    environment.close()
                    environment = None
                if environment is None:
                    repair = (
                        None if instead_of is None else {"rebuilt_for": problem and without_folder(problem, instead_of)}
                    )
                    environment = self._with_room(partial(self._build, lock_fd, repair))
        except OSError as error:
            # The error is about a lock, a file or a program: its name shows where to look.
            where = f": {error.filename}" if error.filename else ""
            msg = f"no environment of {self._requirement} can be built in {self._folder}: "
            msg += f"{error.strerror or error}{where}"
            raise EnvironmentBuildError(msg) from error
        environment.seconds = time.monotonic() - began
        if environment.built:
            self._make_room(self._settings.limits.max_bytes)
        return environment

    @contextlib.contextmanager
    def _only_builder(self, path: str, until: float) -> Iterator[int]:
        """Hold the build lock of the key; wait for other builders in short steps, so that a signal can end the wait."""
        descriptor = lock(path, exclusive=True, create=True)
        if descriptor is None:
            self._report(f"{self._requirement}: waiting for the process that builds it")
        while descriptor is None:
            if time.monotonic() > until:
                msg = (
                    f"no environment of {self._requirement}: another process holds {path}, and does not come to an end"
                )
                raise EnvironmentBuildError(msg)
            time.sleep(_TURN)
            descriptor = lock(path, exclusive=True, create=True)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _with_room(self, make: Callable[[], Environment]) -> Environment:
        """Prune and build; if the disk is full anyway, remove more environments and build once more."""
        self._make_room(sys.maxsize)
        try:
            return make()
        except (DKISTProcessingCoreError, OSError) as error:
            if not _is_of_full_disk(error):
                raise
            # The required space is unknown: remove half of the stored bytes, least recently used environments first.
            removed = self._make_room(sum(entry.bytes or 0 for entry in entries(self._folder)) // 2)
            if not removed:
                raise
            self._report(f"the disk is full; unused environments removed: {len(removed)}; building once more")
        return make()

    def _make_room(self, max_bytes: int) -> list[Entry]:
        max_age_days = self._settings.limits.max_age_days
        # An error in pruning must not stop a task.
        with contextlib.suppress(DKISTProcessingCoreError, OSError):
            return prune(self._folder, max_age_days=max_age_days, max_bytes=max_bytes, dry_run=False)
        return []

    def _build(self, lock_fd: int, repair: dict[str, str | None] | None) -> Environment:
        began = time.monotonic()
        requirement = self._requirement
        path = f"{self._folder}/{self._key.name}.{_next_number(self._folder, self._key)}"
        installer = choose(self._settings, lock_fd, lambda line: self._report(line, logging.INFO))
        wanted = Requirement(requirement.name, requirement.version, (*requirement.extras, FROZEN))
        try:
            installer.install(path, wanted, asked=requirement, is_repair=repair is not None)
            _record.close_to_others(path)
            lacking = self._lacking_extras(path, wanted, installer)
            details = {
                "interpreter": interpreter_of(self._settings.interpreter)[1],
                "installer": installer.label,
                "lacking": lacking,
                "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - began, 3),
                "bytes": _record.size_of(path),
                "distributions": _record.distributions(path),
                "altered": altered(path, is_final=repair is not None),
                **(repair or {}),
            }
            descriptor = _record.write(path, requirement, self._key, details)
        except (DKISTProcessingCoreError, OSError):
            # The folder is not removed here if a signal ends the build, because its sender does not wait. Then the next
            # build, or prune, removes it.
            with contextlib.suppress(OSError):
                _remove(path)
            raise
        environment = Environment(path, requirement, lock_fd=descriptor, built=True)
        try:
            _link(self._folder, self._key, path)
        except BaseException:
            environment.close()
            raise
        return environment

    def _lacking_extras(self, path: str, wanted: Requirement, installer: Installer) -> list[str]:
        """Return the extras that the release does not have, and warn about them."""
        requirement = self._requirement
        provided = _record.provided_extras(path, requirement.name)
        if provided is None:
            msg = f"{requirement}: {installer.label} reports success, and it is not there; it may have gone elsewhere"
            raise EnvironmentBuildError(msg, installer.last_lines)
        lacking = [extra for extra in wanted.extras if extra not in provided]
        asked_for = [extra for extra in lacking if extra in requirement.extras and extra != FROZEN]
        if FROZEN in lacking:
            self._report(f"{requirement}: the release has no extra {FROZEN}, so its dependencies are the newest ones")
        if asked_for:
            has = ", ".join(provided) or "none"
            self._report(f"{requirement}: no such extra: {', '.join(asked_for)}; it has: {has}")
        return lacking

    def _report(self, line: str, level: int = logging.WARNING) -> None:
        if self._on_output is None:
            logger.log(level, "%s", line)
        else:
            self._on_output(line)


def _is_of_full_disk(error: Exception) -> bool:
    lines = (str(error), *getattr(error, "last_lines", ()))
    return getattr(error, "errno", None) in _FULL or any(text in line for text in _FULL_MESSAGES for line in lines)


def _make_folder(folder: str) -> None:
    make_folder(folder)
    reason = distrust(os.stat(folder), os.geteuid()) or exchangeable_above(folder)
    if reason is not None:
        msg = f"the files in the folder of environments {folder} would be run, but {reason}"
        raise EnvironmentBuildError(msg)


def _refuse_folder_at(link: str) -> None:
    # A link cannot replace a folder, and otherwise the error would appear only after the build.
    if os.path.isdir(link) and not os.path.islink(link):
        msg = f"{link} is a folder, and a link to an environment has to be there: remove it"
        raise EnvironmentBuildError(msg)


def _next_number(folder: str, key: Key) -> int:
    """Return an unused number for an environment of the key, and remove the remains of its killed builds."""
    numbers = [0]
    for name in os.listdir(folder):
        found = key_and_number(name.partition(GONE)[0])
        if found is None or found[0] != key.name or found[1] is None:
            continue
        numbers.append(found[1])
        path = f"{folder}/{name}"
        if GONE not in name and not os.path.lexists(f"{path}/{MARKER}"):
            _remove(path)
    return max(numbers) + 1


def _remove(path: str) -> None:
    """Remove an unused folder, so that its name is free at once."""
    aside = f"{path}{GONE}{token_hex(4)}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if os.path.islink(aside) or not os.path.isdir(aside):
            os.unlink(aside)
        else:
            shutil.rmtree(aside, ignore_errors=True)


def _link(folder: str, key: Key, path: str) -> None:
    """Point the link of a key to an environment, atomically."""
    while True:
        beside = f"{folder}/{key.name}{GONE}{token_hex(4)}"
        os.symlink(os.path.basename(path), beside)
        try:
            os.replace(beside, f"{folder}/{key.name}")
        except FileNotFoundError:
            if not os.path.isdir(folder):
                raise
            # In the meantime, a pruning process has removed the new link as a left-over.
            continue
        break
    _record.sync_folder(folder)
