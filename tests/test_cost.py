"""
Cost of publishing and opening, counted in system calls of the package: a count needs no quiet host.

Not here: the faults that those calls prevent (test_descriptors.py, test_trusted_files.py, bus/test_rollback.py).
"""

import cProfile
import itertools
import os
import pstats
from collections.abc import Callable
from pathlib import Path

import pytest

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.journal import Journal
from dkist_processing_core.process.descriptors import HeldDescriptors
from tests.facts import progressed
from tests.waiting import wait_until

COUNT = 20


def calls_of(action: Callable[[], object]) -> dict[str, int]:
    """
    Return how often an action calls each function of the module `posix`.
    """
    profile = cProfile.Profile()
    profile.enable()
    try:
        action()
    finally:
        profile.disable()
    found: dict[str, int] = {}
    for (_, _, name), (_, calls, *_) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if "posix." in name:
            found[name.rpartition("posix.")[2].rstrip(">")] = calls
    return found


def test_a_publish_looks_at_the_folder_and_at_the_journal_and_not_at_its_log() -> None:
    """
    After a stat of the log, Linux writes a new time into it with the next commit, which costs more than the stat
    itself.
    """
    events = itertools.count()
    with Publisher.open(DKISTProcessingCoreConfiguration()) as publisher:

        def publish() -> None:
            for _ in range(COUNT):
                publisher.publish(progressed("A", next(events)))

        def looks_little() -> bool:
            calls = calls_of(publish)
            # The maximum: two descriptors of the database, of which SQLite keeps one unused, and one of the shared
            # memory.
            few = calls.get("fstat", 0) <= 3 * COUNT
            return few and calls["stat"] == 2 * COUNT

        # At first, while the folder has just changed, it checks all of them.
        wait_until(looks_little)


@pytest.mark.parametrize("is_long_since", [False, True])
def test_a_journal_is_there_only_while_each_of_its_files_is_at_its_path(tmp_path: Path, *, is_long_since: bool) -> None:
    """
    This includes a replaced log or shared memory alone, and a removed log alone.
    """
    path, aside = tmp_path / "journal.db", tmp_path / "aside"
    found = []
    with Journal.open(path) as journal:
        for file in (Path(f"{path}-wal"), Path(f"{path}-shm"), path):
            for is_replaced in (False, True):
                if is_long_since:
                    wait_until(lambda: calls_of(lambda: journal.is_there)["stat"] == 2)
                before = journal.is_there
                file.rename(aside)
                if is_replaced:
                    file.touch()
                found.append((before, journal.is_there))
                aside.replace(file)
        if is_long_since:
            wait_until(lambda: calls_of(lambda: journal.is_there)["stat"] == 2)
        Path(f"{path}-wal").unlink()
        found.append((True, journal.is_there))

    # A file that was only moved may be at a path that this process does not see.
    assert found == [*[(True, True), (True, False)] * 3, (True, False)]


def test_a_descriptor_with_a_mark_is_recognised_without_a_look_at_its_file(tmp_path: Path) -> None:
    """
    A descriptor that was moved is recognised by its file. One that is free or another file's now is not recognised.
    """
    path = tmp_path / "file"
    path.touch()
    number = os.open(path, os.O_RDWR)
    held = HeldDescriptors([number], is_marked=lambda _: True)

    def fstats() -> int:
        return calls_of(lambda: held.are_ours).get("fstat", 0)

    looks = [fstats(), fstats()]
    # A fork has the same mark, and must not change it.
    again = HeldDescriptors([number], is_marked=lambda _: True)
    looks += [fstats(), calls_of(lambda: again.are_ours).get("fstat", 0)]
    os.lseek(number, 1, os.SEEK_SET)
    looks += [fstats()]
    is_known = [held.are_ours]
    # The offset of a file that is in use stays as it is.
    moved = HeldDescriptors([number], is_marked=lambda _: True)
    offset = os.lseek(number, 0, os.SEEK_CUR)
    is_known += [moved.are_ours]
    other = os.open(path.with_name("other"), os.O_RDONLY | os.O_CREAT)
    os.dup2(other, number)
    is_known.append(held.are_ours)
    os.close(number)
    is_known.append(held.are_ours)
    os.close(other)

    assert (looks, offset, is_known) == ([0, 0, 0, 0, 1], 1, [True, True, False, False])
