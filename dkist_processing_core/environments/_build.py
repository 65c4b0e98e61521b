"""
Building an environment: one process at a time per key, at its final path, used only when all of it is on disk.

Not here: what the installer is told (_installer).
"""

# ruff: noqa: PTH103, PTH104, PTH105, PTH108, PTH112, PTH114, PTH116, PTH119, PTH208, PTH211 - paths are texts: pathlib is dearer than finding
import contextlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from secrets import token_hex

from dkist_processing_core.environments import _record
from dkist_processing_core.environments._cache import Environments
from dkist_processing_core.environments._environment import Environment
from dkist_processing_core.environments._installer import Installer, choose
from dkist_processing_core.environments._key import Key, interpreter_of
from dkist_processing_core.environments._locks import lock
from dkist_processing_core.environments._place import GONE, LOCK, MARKER, key_and_number
from dkist_processing_core.environments._prune import prune
from dkist_processing_core.environments._requirement import Requirement
from dkist_processing_core.errors import DKISTProcessingCoreError, EnvironmentBuildError

FROZEN = "frozen"
"""The extra by which a release pins what it was tested with."""
_TURN = 0.05
_MODE = 0o700
logger = logging.getLogger(__name__)


def build(
    cache: Environments,
    requirement: Requirement,
    key: Key,
    *,
    on_output: Callable[[str], None] | None,
    instead_of: str | None = None,
) -> Environment:
    """Return the environment of a key, built here unless another process does; `instead_of` names one not to take."""
    began = time.monotonic()
    try:
        _make_folder(cache.folder)
        with _only_builder(f"{cache.folder}/{key.name}{LOCK}", requirement, on_output) as lock_fd:
            environment = cache.find_by(key, requirement)
            if environment is not None and environment.folder == instead_of:
                environment.close()
                environment = None
            if environment is None:
                environment = _build(cache, requirement, key, lock_fd, on_output, is_mending=instead_of is not None)
    except OSError as error:
        msg = f"no environment of {requirement} can be made in {cache.folder}: {error.strerror or error}"
        raise EnvironmentBuildError(msg) from error
    environment.seconds = time.monotonic() - began
    if environment.built:
        # What is in the way of pruning concerns the next build, and no task.
        with contextlib.suppress(DKISTProcessingCoreError, OSError):
            limits = cache.limits
            prune(cache.folder, max_age_days=limits.max_age_days, max_bytes=limits.max_bytes, dry_run=False)
    return environment


def _make_folder(folder: str) -> None:
    os.makedirs(folder, mode=_MODE, exist_ok=True)
    if os.stat(folder).st_mode & stat.S_IWOTH:
        msg = f"the folder of environments {folder} may be written by anybody, and what is in it is run: chmod o-w it"
        raise EnvironmentBuildError(msg)


@contextlib.contextmanager
def _only_builder(path: str, requirement: Requirement, on_output: Callable[[str], None] | None) -> Iterator[int]:
    """Be the only process that builds for a key; others are waited for, by turns, so that a signal can end the wait."""
    descriptor = lock(path, exclusive=True, create=True)
    if descriptor is None:
        _tell(f"{requirement}: waiting for the process that builds it", on_output)
    while descriptor is None:
        time.sleep(_TURN)
        descriptor = lock(path, exclusive=True, create=True)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _build(
    cache: Environments,
    requirement: Requirement,
    key: Key,
    lock_fd: int,
    on_output: Callable[[str], None] | None,
    *,
    is_mending: bool,
) -> Environment:
    began = time.monotonic()
    path = f"{cache.folder}/{key.name}.{_next_number(cache.folder, key)}"
    installer = choose(cache, lock_fd, lambda line: _tell(line, on_output, logging.INFO))
    wanted = Requirement(requirement.name, requirement.version, (*requirement.extras, FROZEN))
    try:
        installer.install(path, wanted, asked=requirement, is_mending=is_mending)
        lacking = _lacking(path, requirement, wanted, installer, on_output)
        facts = {
            "interpreter": interpreter_of(cache.interpreter)[1],
            "installer": installer.label,
            "lacking": lacking,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began, 3),
            "bytes": _record.size_of(path),
            "distributions": _record.distributions(path),
        }
        descriptor = _record.write(path, requirement, key, facts)
    except (DKISTProcessingCoreError, OSError):
        # Not where a signal ends the build, whose sender will not wait: the next build, or prune, removes it.
        with contextlib.suppress(OSError):
            _remove(path)
        raise
    environment = Environment(path, requirement, lock_fd=descriptor, built=True)
    try:
        _link(cache.folder, key, path)
    except BaseException:
        environment.close()
        raise
    return environment


def _next_number(folder: str, key: Key) -> int:
    """Return a number that no environment of the key has, and remove what killed builds of it left."""
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
    """Remove a folder that nobody uses, and whose name is free at once."""
    aside = f"{path}{GONE}{token_hex(4)}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, aside)
        if os.path.islink(aside) or not os.path.isdir(aside):
            os.unlink(aside)
        else:
            shutil.rmtree(aside, ignore_errors=True)


def _lacking(
    path: str,
    requirement: Requirement,
    wanted: Requirement,
    installer: Installer,
    on_output: Callable[[str], None] | None,
) -> list[str]:
    """Return which of the extras the release does not have, and warn of them."""
    provided = _record.provided_extras(path, requirement.name)
    if provided is None:
        msg = f"{requirement}: {installer.label} reports success, and it is not there; it may have gone elsewhere"
        raise EnvironmentBuildError(msg, installer.last_lines)
    lacking = [extra for extra in wanted.extras if extra not in provided]
    asked_for = [extra for extra in lacking if extra in requirement.extras]
    if FROZEN in lacking:
        _tell(f"{requirement}: the release has no extra {FROZEN}, so its dependencies are the newest ones", on_output)
    if asked_for:
        _tell(
            f"{requirement}: no such extra: {', '.join(asked_for)}; it has: {', '.join(provided) or 'none'}", on_output
        )
    return lacking


def _link(folder: str, key: Key, path: str) -> None:
    """Have the key lead to an environment, from one instant to the next."""
    beside = f"{folder}/{key.name}{GONE}{token_hex(4)}"
    os.symlink(os.path.basename(path), beside)
    os.replace(beside, f"{folder}/{key.name}")
    _record.sync_folder(folder)


def _tell(line: str, on_output: Callable[[str], None] | None, level: int = logging.WARNING) -> None:
    if on_output is None:
        logger.log(level, "%s", line)
    else:
        on_output(line)
