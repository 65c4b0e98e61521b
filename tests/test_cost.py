"""
What publishing and opening cost, counted in system calls of the package: a count needs no quiet host.

Not here: what those calls protect from (test_descriptors.py, test_trusted.py, bus/test_rollback.py).
"""

import cProfile
import os
import pstats
from collections.abc import Callable
from pathlib import Path

from dkist_processing_core.bus import Journal
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.descriptors import Held
from dkist_processing_core.publisher import Publisher
from tests.facts import progressed

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


def test_a_publish_reads_no_time_of_the_journal_s_log() -> None:
    """
    After a stat of a file Linux writes a new time into it with its next write, which costs more than the look itself.
    """
    events = [progressed("A", sequence) for sequence in range(COUNT + 1)]
    with Publisher.open(DKISTProcessingCoreConfiguration()) as publisher:
        publisher.publish(events[COUNT])

        calls = calls_of(lambda: [*map(publisher.publish, events[:COUNT])])

    # The database and its shared memory by their paths, the log by the name of its descriptor.
    assert [calls.get(name, 0) for name in ("fstat", "stat", "readlink")] == [0, 2 * COUNT, COUNT]


def test_a_journal_is_there_only_while_each_of_its_files_is_at_its_path(tmp_path: Path) -> None:
    """
    Also where the log alone was removed, moved, or replaced by another.
    """
    path = tmp_path / "journal.db"
    log, aside = tmp_path / "journal.db-wal", tmp_path / "aside"
    found = []
    with Journal.open(path) as journal:
        journal.remember("an id")
        found.append(journal.is_there)
        log.rename(aside)
        log.touch()
        found.append(journal.is_there)
        aside.replace(log)
        found.append(journal.is_there)
        log.unlink()
        found.append(journal.is_there)

    assert found == [True, False, True, False]


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
