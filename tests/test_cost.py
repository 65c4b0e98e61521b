"""
What publishing and opening cost, counted in system calls of the package: a count needs no quiet host.

Not here: what those calls protect from (test_descriptors.py, test_trusted.py, bus/test_rollback.py).
"""

import cProfile
import itertools
import os
import pstats
from collections.abc import Callable
from pathlib import Path

import pytest

from dkist_processing_core.bus import Journal
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.descriptors import Held
from dkist_processing_core.publisher import Publisher
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
    After a stat of the log Linux writes a new time into it with the next commit, which costs more than the look itself.
    """
    events = itertools.count()
    with Publisher.open(DKISTProcessingCoreConfiguration()) as publisher:

        def publish() -> None:
            for _ in range(COUNT):
                publisher.publish(progressed("A", next(events)))

        def looks() -> list[int]:
            calls = calls_of(publish)
            return [calls.get("fstat", 0), calls["stat"]]

        # At first, while the folder has changed a moment ago, it looks at all of them.
        wait_until(lambda: looks() == [0, 2 * COUNT])


@pytest.mark.parametrize("is_long_since", [False, True])
def test_a_journal_is_there_only_while_each_of_its_files_is_at_its_path(tmp_path: Path, *, is_long_since: bool) -> None:
    """
    Also where another took the place of the log or of the shared memory alone, or the log alone was removed.
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

    # What was only moved may be at a path that this process does not see.
    assert found == [*[(True, True), (True, False)] * 3, (True, False)]


def test_marked_descriptors_are_known_by_their_mark_and_others_by_their_file(tmp_path: Path) -> None:
    """
    A descriptor that is opened anew at the same number has no mark, and one of a pipe cannot have any.
    """
    path = tmp_path / "file"
    path.touch()
    number, other = os.open(path, os.O_RDONLY), os.open(os.devnull, os.O_RDONLY)
    ends = os.pipe()
    held, of_pipe = Held([number], marked=True), Held(ends, marked=True)
    as_marked = calls_of(lambda: held.are_ours).get("fstat", 0)
    again = os.open(path, os.O_RDONLY)
    os.dup2(again, number)
    reopened = held.are_ours
    os.dup2(other, number)

    assert (as_marked, reopened, held.are_ours, of_pipe.are_ours) == (0, True, False, True)
    for each in (number, other, again, *ends):
        os.close(each)
