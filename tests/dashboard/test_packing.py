"""
The stored form of reports: compressed together, with their large parts apart, and equal to what was received.
"""

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from benchmarks.generated import Generated, run_events
from dkist_processing_core.collect import store as store_module
from dkist_processing_core.collect.dump import dump
from dkist_processing_core.collect.keys import digest_of
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.collect.reports.dictionary import DICTIONARIES
from dkist_processing_core.collect.reports.packing import (
    StoredReport,
    packed,
    packed_reports,
    unpacked,
    unpacked_reports,
)
from dkist_processing_core.collect.reports.stored import decoded_sizes, digests_on, reports_on
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import DETAILS, PACKS, RUNS
from dkist_processing_core.errors import ReportsUnreadableError
from dkist_processing_core.events import Event, encode
from dkist_processing_core.runs import kept_reports
from tests.facts import NOON, failed, finished
from tests.stored import ended_run
from tests.strategies import reports
from tests.test_store import empty, fill


@given(st.binary())
def test_what_is_packed_is_unpacked(text: bytes) -> None:
    """Any bytes."""
    assert unpacked(packed(text)) == text


@given(st.lists(st.tuples(st.binary().map(lambda body: b"{" + body.replace(b"\n", b"")), st.floats(0, 1e11))))
def test_packed_reports_keep_their_bodies_and_times(given_reports: list[tuple[bytes, float]]) -> None:
    """Each body has one line; the time is exact."""
    expected = [StoredReport(*each) for each in given_reports]

    assert unpacked_reports(packed_reports(expected)) == expected


def test_a_dictionary_is_never_changed() -> None:
    """What was packed by an earlier release can be read."""
    assert [digest_of(each).hex() for each in DICTIONARIES] == ["c733161135439134b9f5740ada6728e7"]


@pytest.mark.parametrize(
    ("stored", "message"),
    [(b"", "dictionary 0"), (b"\xff1", "newer release"), (packed(b"a" * 99)[:-2], "damaged"), (b"\x01\xff", "damaged")],
)
def test_damaged_bytes_are_an_error(stored: bytes, message: str) -> None:
    """The message names what was found."""
    with pytest.raises(ReportsUnreadableError, match=message):
        unpacked(stored)


def test_what_can_be_unpacked_and_is_no_list_of_reports_is_damaged() -> None:
    """Compressed bytes have no checksum."""
    with pytest.raises(ReportsUnreadableError, match="a report has no time"):
        unpacked_reports(packed(b"other words"))


@given(reports(), st.integers(1, 5), st.randoms(use_true_random=False))
def test_stored_reports_are_those_that_are_kept_of_all(
    received: list[Event], parts: int, chance: random.Random
) -> None:
    """In whatever parts they arrive and are folded, and with their large parts."""
    everything = [*received, *chance.sample(received, len(received) // 2)]
    with empty() as store, store.begin() as connection:
        fill(connection, [everything[first::parts] for first in range(parts)])
        runs = {event.run.run_id for event in received if event.run_id}
        stored = [report.event for number in range(1, len(runs) + 10) for report in reports_on(connection, number)]
    by_run: dict[tuple[str, str, str], list[Event]] = {}
    for event in everything:
        by_run.setdefault((event.workflow_name, event.workflow_version, event.run_id), []).append(event)
    expected = [event for (*_, run_id), each in by_run.items() if run_id for event in kept_reports(each)]

    assert sorted(map(encode, stored)) == sorted(map(encode, expected))


def test_large_parts_are_apart_and_are_read_on_request() -> None:
    """The reports without them suffice for the rows; a repetition of one changes nothing."""
    whole = list(ended_run())
    stacks = [getattr(event, "stack", None) for event in whole]
    with empty() as store, store.begin() as connection:
        fill(connection, [whole])
        before = "".join(dump(connection))
        lean = [getattr(report.event, "stack", None) for report in reports_on(connection, 1, is_whole=False)]
        read = [getattr(report.event, "stack", None) for report in reports_on(connection, 1)]
        fill(connection, [whole, [event for event in whole if getattr(event, "stack", None)]])
        counts = [connection.scalar(select(func.count()).select_from(table)) for table in (PACKS, DETAILS)]
        digests = digests_on(connection, 1)
        after = "".join(dump(connection))

    assert lean == [None] * len(whole)
    assert sorted(map(str, read)) == sorted(map(str, stacks))
    assert counts == [1, 2]
    assert set(digests) == {digest_of(encode(event)) for event in whole}
    assert after == before


def test_a_report_that_replaces_one_with_a_stack_leaves_no_stack_behind() -> None:
    """A firm report replaces a provisional one of the same reporter."""
    provisional = failed("A", provisional=True, stack="a\n" * 50, message="m", exit_code=3)
    with empty() as store, store.begin() as connection:
        fill(connection, [[provisional], [failed("A")]])
        stored = [report.event for report in reports_on(connection, 1)]
        left = connection.scalar(select(func.count()).select_from(DETAILS))

    assert stored == [failed("A")]
    assert left == 0


def test_a_packed_attempt_takes_little_room() -> None:
    """Its reports repeat each other, and the dictionary has the rest."""
    with empty() as store, store.begin() as connection:
        fill(connection, [[finished(f"Task{number}", run_id="r") for number in range(100)]])
        size = connection.scalar(select(func.length(PACKS.c.body)))

    assert 0 < (size or 0) < 100 * 100


def test_the_memory_of_reports_is_estimated_by_what_is_stored() -> None:
    """A fold has as many reports in memory as fit; packed they take a small part of that."""
    events = [event for number in range(10) for event in run_events(number, NOON, Generated(runs=10))]
    for is_packed in (False, True):
        with empty() as store, store.begin() as connection:
            Store(clock=NOON.timestamp).add(connection, *events)
            if is_packed:
                fill(connection, [[]])
            runs = list(connection.scalars(select(RUNS.c.number)))
            estimated = sum(decoded_sizes(connection, runs).values())
            tracemalloc.start()
            decoded = [reports_on(connection, run, is_whole=False) for run in runs]
            taken, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()

        assert decoded
        assert 0.5 * taken < estimated < 3 * taken
        # A hundred such runs are derived together.
        assert 10 * estimated < store_module._MOST_BYTES


def test_the_room_hardly_depends_on_the_names_that_the_dictionary_has() -> None:
    """Another site has other names of workflows, hosts and units, and another year has other times."""
    others = (("l0_to_l1_", "calibrate_x"), ("2026-", "2031-"), ("worker", "kestrel"), ("frame", "tile"))
    sizes, large = [0, 0], ("stack", "last_stack", "last_log", "profile")
    for number in range(10):
        events = run_events(number, NOON, Generated(runs=10))
        bodies = [encode(event) for event in events if not any(getattr(event, name, None) for name in large)]
        renamed = bodies
        for known, other in others:
            renamed = [body.replace(known.encode(), other.encode()) for body in renamed]
        for place, each in enumerate((bodies, renamed)):
            sizes[place] += len(packed_reports(StoredReport(body, 1.0) for body in each))

    assert sizes[0] < sizes[1] < 1.1 * sizes[0]


def test_reports_have_their_times_of_reception() -> None:
    """In the order of these times, whether they are packed or new."""
    with empty() as store, store.begin() as connection:
        for second, event in enumerate((finished("A"), finished("B"), finished("C"))):
            keeper = Store(clock=lambda second=second: 1000.125 + second)  # type: ignore[misc]
            keeper.add(connection, event)
            if second:
                continue
            keeper.fold(connection, 1)
        received = Questions(connection).reports(1)

    assert [event.received_at.timestamp() for event in received if event.received_at] == [1000.125, 1001.125, 1002.125]
