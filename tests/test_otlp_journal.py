"""
The journal of telemetry: what is appended is pending, delivered, refused or dropped within its bounds, and counted.
"""

import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.errors import JournalError, JournalVersionError
from dkist_processing_core.journal.otlp import FORMAT, PAGE_SIZE, OtlpBooks, OtlpJournal, otlp_path

DESTINATION = "traces grpc http://collector:4317"
ALL = {"most_bytes": 2**30, "most_items": 10**6}
NOTHING = OtlpBooks(pending=0, delivered=0, refused=0, dropped=0)
APPEND = """
import sys
from pathlib import Path
from dkist_processing_core.journal.otlp import OtlpJournal
journal = OtlpJournal.open(Path(sys.argv[1]), destination="", patience=30.0)
for number in range(int(sys.argv[2])):
    journal.append("logs", 2, f"{sys.argv[3]} {number}".encode())
print("appended", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(state_dir: Path) -> Path:
    """
    Return the path of a journal of telemetry that does not exist yet.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    return otlp_path(state_dir, DESTINATION)


@pytest.fixture
def journal(path: Path) -> Iterator[OtlpJournal]:
    """
    Yield an open journal of telemetry.
    """
    with OtlpJournal.open(path, destination=DESTINATION) as journal:
        yield journal


def appending(path: Path, count: int, name: str) -> subprocess.Popen[str]:
    """Start a process that appends chunks of two log records each, and then waits for the end of its input."""
    return subprocess.Popen(
        [sys.executable, "-c", APPEND, str(path), str(count), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_chunks_come_back_by_signal_in_the_order_of_their_appends(journal: OtlpJournal) -> None:
    """
    Each signal has its own order, and a read may start after any chunk.
    """
    for name, items, body in (("traces", 3, b"a"), ("logs", 5, b"b"), ("traces", 4, b"c")):
        journal.append(name, items, body)

    first, second = journal.pending("traces", **ALL)
    assert [(first.items, first.body), (second.items, second.body)] == [(3, b"a"), (4, b"c")]
    assert journal.pending("traces", **ALL, after=first.seq) == [second]
    assert [chunk.body for chunk in journal.pending("logs", **ALL)] == [b"b"]
    assert journal.pending("metrics", **ALL) == []
    assert first.appended == journal.oldest


def test_a_read_returns_as_much_as_its_limits_allow_and_at_least_one_chunk(journal: OtlpJournal) -> None:
    """
    A chunk that is larger than a limit does not hold up the rest.
    """
    for _ in range(4):
        journal.append("traces", 10, bytes(100))

    assert len(journal.pending("traces", most_bytes=250, most_items=1000)) == 2
    assert len(journal.pending("traces", most_bytes=1000, most_items=30)) == 3
    assert len(journal.pending("traces", most_bytes=1, most_items=1)) == 1


def test_the_books_count_what_became_of_each_item(journal: OtlpJournal) -> None:
    """
    A collector may accept a part of what it was sent.
    """
    journal.append("metrics", 7, b"a")
    journal.append("metrics", 5, b"b")
    first, _ = journal.pending("metrics", **ALL)

    journal.remove([first], delivered=4, refused=3)

    assert journal.books() == {
        "traces": NOTHING,
        "logs": NOTHING,
        "metrics": OtlpBooks(pending=5, delivered=4, refused=3, dropped=0),
    }
    with pytest.raises(ValueError, match="found 1 delivered and 0 refused items, expected 5 together"):
        journal.remove(journal.pending("metrics", **ALL), delivered=1, refused=0)


def test_a_chunk_that_was_dropped_while_it_was_delivered_is_counted_once(path: Path) -> None:
    """
    The bound may drop a chunk between its read and its removal, and no number is given to another chunk.
    """
    with OtlpJournal.open(path, destination="", most_seconds=60.0) as journal:
        journal.clock = lambda: 0.0
        journal.append("logs", 2, b"old")
        read = journal.pending("logs", **ALL)
        journal.clock = lambda: 100.0
        journal.append("logs", 3, b"new")

        journal.remove(read, delivered=2, refused=0)

        assert journal.books()["logs"] == OtlpBooks(pending=3, delivered=0, refused=0, dropped=2)
        assert [chunk.body for chunk in journal.pending("logs", **ALL)] == [b"new"]


def test_beyond_the_bound_of_its_size_the_oldest_is_dropped_and_counted_by_signal(path: Path) -> None:
    """
    The file itself stays within the bound, too, and the newest chunk is always there.
    """
    bound = 64 * PAGE_SIZE
    with OtlpJournal.open(path, destination="", most_bytes=bound) as journal:
        for number in range(300):
            journal.append("traces" if number % 3 else "logs", 2, bytes([number % 256]) * 3000)
            assert journal.size <= bound
        books = journal.books()
        kept = {name: [chunk.body[0] for chunk in journal.pending(name, **ALL)] for name in ("traces", "logs")}

    assert path.stat().st_size <= bound
    assert {name: len(numbers) * 2 for name, numbers in kept.items()} == {
        name: books[name].pending for name in ("traces", "logs")
    }
    assert books["traces"].pending + books["traces"].dropped == 400
    assert books["logs"].pending + books["logs"].dropped == 200
    # All of the youngest are there, and none of the others.
    count = sum(map(len, kept.values()))
    assert sorted(kept["traces"] + kept["logs"]) == sorted(number % 256 for number in range(300 - count, 300))


def test_a_chunk_that_is_larger_than_the_bound_drops_no_other(path: Path) -> None:
    """
    It can never be stored, so it is the one that is dropped.
    """
    with OtlpJournal.open(path, destination="", most_bytes=32 * PAGE_SIZE) as journal:
        journal.append("logs", 1, b"small")
        journal.append("traces", 9, bytes(32 * PAGE_SIZE))

        assert journal.books()["logs"].pending == 1
        assert journal.books()["traces"] == OtlpBooks(pending=0, delivered=0, refused=0, dropped=9)


def test_telemetry_beyond_its_bound_of_age_is_dropped_and_counted(path: Path) -> None:
    """
    The next append drops it, whichever signal it is of.
    """
    with OtlpJournal.open(path, destination="", most_seconds=60.0) as journal:
        for moment, name in ((0.0, "traces"), (10.0, "logs"), (50.0, "logs"), (65.0, "metrics")):
            journal.clock = lambda now=moment: now  # type: ignore[misc]
            journal.append(name, 1, b"a")

        assert journal.books()["traces"] == OtlpBooks(pending=0, delivered=0, refused=0, dropped=1)
        assert journal.books()["logs"].pending == 2
        assert journal.oldest == 10.0


def test_telemetry_beyond_its_bound_of_age_is_not_delivered(path: Path) -> None:
    """
    A read drops it too, and all of it: perhaps no process has appended for long.
    """
    with OtlpJournal.open(path, destination="", most_seconds=60.0) as journal:
        for number in range(1500):
            journal.clock = lambda: 0.0
            journal.append("traces" if number % 2 else "logs", 1, b"a")
        journal.clock = lambda: 50.0
        journal.append("logs", 1, b"new")
        journal.clock = lambda: 100.0

        found = journal.pending("logs", **ALL)

        assert [chunk.body for chunk in found] == [b"new"]
        assert journal.books()["logs"] == OtlpBooks(pending=1, delivered=0, refused=0, dropped=750)
        assert journal.books()["traces"] == OtlpBooks(pending=0, delivered=0, refused=0, dropped=750)


def test_the_books_balance_after_the_clock_was_set_back(path: Path) -> None:
    """
    A chunk may be younger than a later one.
    """
    with OtlpJournal.open(path, destination="", most_seconds=60.0) as journal:
        for moment in (50.0, 90.0, 5.0):
            journal.clock = lambda now=moment: now  # type: ignore[misc]
            journal.append("logs", 1, b"a")
        journal.clock = lambda: 120.0
        journal.append("logs", 1, b"a")

        books = journal.books()["logs"]
        assert len(journal.pending("logs", **ALL)) == books.pending == 3
        assert books.dropped == 1


def test_the_last_part_of_a_disk_is_left_to_the_events(path: Path) -> None:
    """
    On a disk that is too full the file does not grow: the oldest makes room for the newest.
    """
    with OtlpJournal.open(path, destination="") as journal:
        for number in range(50):
            journal.append("logs", 1, bytes([number]) * 20_000)
    before = path.stat().st_size

    # No disk has more free than its whole size.
    with OtlpJournal.open(path, destination="", free_share=1.0) as journal:
        for number in range(50, 60):
            journal.append("logs", 1, bytes([number]) * 20_000)
        found = [chunk.body[0] for chunk in journal.pending("logs", **ALL)]
        books = journal.books()["logs"]

    assert found[-1] == 59
    assert found == list(range(60 - len(found), 60))
    assert (books.pending, books.dropped) == (len(found), 60 - len(found))
    assert path.stat().st_size <= before


def test_on_a_full_disk_an_empty_journal_takes_nothing_and_counts_it(path: Path) -> None:
    """
    There is nothing to drop that would make room.
    """
    with OtlpJournal.open(path, destination="", free_share=1.0) as journal:
        journal.append("traces", 3, bytes(200_000))

        assert journal.books()["traces"] == OtlpBooks(pending=0, delivered=0, refused=0, dropped=3)
        with pytest.raises(JournalError, match="has less than 100% of free space, which is left to events"):
            journal.check_room()


def test_with_enough_free_space_or_content_there_is_room(path: Path) -> None:
    """
    Old content is dropped for new one.
    """
    with OtlpJournal.open(path, destination="", free_share=0.0) as journal:
        journal.check_room()
        journal.append("traces", 1, bytes(2 * 1024**2))
        journal.free_share = 1.0
        journal.check_room()


def test_a_file_that_an_outage_has_made_large_shrinks_after_it(path: Path) -> None:
    """
    The delivery gives the pages back to the disk, some at a time.
    """
    with OtlpJournal.open(path, destination="") as journal:
        for _ in range(200):
            journal.append("logs", 1, bytes(100_000))
        while chunks := journal.pending("logs", most_bytes=500_000, most_items=1000):
            journal.remove(chunks, delivered=len(chunks), refused=0)
    large = 200 * 100_000

    assert path.stat().st_size < large * 0.6


def test_several_processes_append_to_one_journal(path: Path) -> None:
    """
    None waits for the end of another, and each chunk is there once.
    """
    processes = [appending(path, 50, f"process {number}") for number in range(3)]
    for process in processes:
        process.communicate("", timeout=300)

    with OtlpJournal.open(path, destination="") as journal:
        bodies = sorted(chunk.body.decode() for chunk in journal.pending("logs", **ALL))
        assert bodies == sorted(f"process {number} {each}" for number in range(3) for each in range(50))
        assert journal.books()["logs"].pending == 300


def test_a_process_that_is_killed_loses_nothing_that_it_appended(path: Path) -> None:
    """
    SIGKILL comes after the append, and long before any delivery.
    """
    process = appending(path, 20, "killed")
    assert process.stdout is not None
    assert process.stdout.readline() == "appended\n"

    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert process.returncode == -signal.SIGKILL
    with OtlpJournal.open(path, destination="") as journal:
        assert len(journal.pending("logs", **ALL)) == 20


def test_a_damaged_file_is_renamed_and_a_new_one_begins(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """
    Of the damaged files the last one is kept: each may be large, and is not read any more.
    """
    for content in (b"no SQLite file " * 1000, b"nor this one " * 1000):
        path.write_bytes(content)
        path.chmod(0o600)

        with OtlpJournal.open(path, destination="") as journal:
            journal.append("logs", 1, b"a")
            assert journal.books()["logs"].pending == 1

        (aside,) = path.parent.glob(f"{path.name}.damaged-*")
        assert aside.read_bytes() == content
        for each in path.parent.glob(f"{path.name}*"):
            if each != aside:
                each.unlink()
    assert f"the journal {path} is damaged" in caplog.text
    assert "its telemetry is not delivered, and a new file was created" in caplog.text


def test_an_sqlite_file_of_something_else_is_refused_and_not_changed(path: Path) -> None:
    """
    It might be the user's own.
    """
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE chunk (mine)")
    path.chmod(0o600)
    before = path.read_bytes()

    with pytest.raises(JournalError, match=r"otlp-\w{8}\.db is an SQLite file of something else, not a journal"):
        OtlpJournal.open(path, destination="")

    assert path.read_bytes() == before


def test_a_file_of_a_newer_release_is_refused_and_not_changed(path: Path) -> None:
    """
    This release cannot know what its tables mean.
    """
    OtlpJournal.open(path, destination="").close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {FORMAT.version + 1}")

    with pytest.raises(JournalVersionError, match=r"written by a newer release \(format 2, this one reads up to 1\)"):
        OtlpJournal.open(path, destination="")


def test_a_look_changes_no_file(journal: OtlpJournal, path: Path) -> None:
    """
    It shows the books and the collectors that the journal is for.
    """
    journal.append("logs", 4, b"a")
    before = sorted(path.parent.iterdir())

    def read(looked: OtlpJournal) -> tuple[OtlpBooks, str, int]:
        return looked.books()["logs"], looked.destination, looked.size

    books, destination, size = OtlpJournal.look(path, read)

    assert books == OtlpBooks(pending=4, delivered=0, refused=0, dropped=0)
    assert destination == DESTINATION
    assert size >= PAGE_SIZE
    assert sorted(path.parent.iterdir()) == before


def test_an_append_to_a_removed_file_is_an_error_that_names_it(journal: OtlpJournal, path: Path) -> None:
    """
    What is appended to a file without a name is never delivered.
    """
    journal.append("logs", 1, b"a")
    path.unlink()

    with pytest.raises(JournalError, match=f"the journal {path} was removed"):
        journal.append("logs", 1, b"b")


def test_other_collectors_have_another_journal(state_dir: Path) -> None:
    """
    The protocol counts as well as the address.
    """
    paths = {otlp_path(state_dir, each) for each in (DESTINATION, DESTINATION.replace("grpc", "http/protobuf"))}

    assert len(paths) == 2
    assert all(re.fullmatch(r"otlp-[0-9a-f]{8}\.db", path.name) for path in paths)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from(["traces", "metrics", "logs"]), st.integers(1, 9)),
        st.tuples(st.just("remove"), st.sampled_from(["traces", "metrics", "logs"]), st.integers(0, 20)),
        st.tuples(st.just("wait"), st.just(""), st.integers(1, 40)),
    ),
    max_size=40,
)


@pytest.mark.once
@given(STEPS)
def test_every_appended_item_is_pending_delivered_refused_or_dropped(steps: list[tuple[str, str, int]]) -> None:
    """
    The books balance after each step, and the pending chunks are those that the books count.
    """
    now, appended = [0.0], dict.fromkeys(("traces", "metrics", "logs"), 0)
    with (
        TemporaryDirectory() as folder,
        OtlpJournal.open(
            Path(folder, "otlp.db"), destination="", most_bytes=14 * PAGE_SIZE, most_seconds=60
        ) as journal,
    ):
        journal.clock = lambda: now[0]
        for action, name, number in steps:
            if action == "append":
                journal.append(name, number, bytes(number * 2000))
                appended[name] += number
            elif action == "remove":
                chunks = journal.pending(name, most_bytes=10**6, most_items=max(1, number))
                count = sum(chunk.items for chunk in chunks)
                journal.remove(chunks, delivered=count - min(number, count), refused=min(number, count))
            else:
                now[0] += number

            # A read drops what is too old.
            pending = {each: sum(chunk.items for chunk in journal.pending(each, **ALL)) for each in appended}
            books = journal.books()
            for each, total in appended.items():
                book = books[each]
                assert book.pending + book.delivered + book.refused + book.dropped == total
                assert min(book.pending, book.delivered, book.refused, book.dropped) >= 0
                assert pending[each] == book.pending
