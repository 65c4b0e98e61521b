"""
The thread that derives rows soon after their reports have arrived.
"""

import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest

from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.collect.prompt import PromptFolding
from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.store import Store
from dkist_processing_core.consumer.bell import Bell
from dkist_processing_core.consumer.caught_up import Moment
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import InboxUnavailableError
from dkist_processing_core.inbox import Database
from dkist_processing_core.settings.reading import read_settings
from tests.dashboard.serving import running
from tests.facts import started
from tests.waiting import SECONDS, wait_until


def test_what_was_left_is_folded_at_the_start_and_then_each_arrival_soon() -> None:
    """Without an arrival there is no further fold; several at one moment share one."""
    arrived, folds = Bell(), threading.Semaphore(0)
    prompt = PromptFolding(arrived, lambda *_: folds.release())
    with prompt.running():
        at_the_start = folds.acquire(timeout=SECONDS)
        is_idle = not folds.acquire(timeout=0.3)
        for _ in range(5):
            arrived.ring()
        is_folded = folds.acquire(timeout=SECONDS)
        again = folds.acquire(timeout=0.3)

    assert (at_the_start, is_idle, is_folded, again) == (True, True, True, False)


@pytest.mark.parametrize(
    ("error", "warnings"), [(InboxUnavailableError("away"), 0), (ValueError("no such state"), 1), (KeyError("x"), 1)]
)
def test_the_thread_goes_on_after_each_error_and_reports_it(
    error: Exception, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The same error is logged once, and is known until a fold succeeds."""
    arrived, calls = Bell(), threading.Semaphore(0)
    is_wrong = threading.Event()
    is_wrong.set()

    def fold(*_: object) -> None:
        calls.release()
        if is_wrong.is_set():
            raise error

    prompt = PromptFolding(arrived, fold)
    with prompt.running():
        for _ in range(2):
            assert calls.acquire(timeout=SECONDS)
            wait_until(lambda: prompt.failure is not None)
            arrived.ring()
        assert calls.acquire(timeout=SECONDS)
        is_wrong.clear()
        arrived.ring()
        wait_until(lambda: prompt.failure is None)

    assert len([each for each in caplog.records if each.levelname == "WARNING"]) == warnings


def test_an_end_leaves_a_backlog_to_the_next_start() -> None:
    """A fold that has more to do ends with the block."""
    arrived, is_folding = Bell(), threading.Event()

    def fold(is_ending: Callable[[], bool], _: Callable[[], float]) -> None:
        is_folding.set()
        wait_until(is_ending)

    with PromptFolding(arrived, fold).running():
        assert is_folding.wait(SECONDS)


def test_an_arrival_during_a_fold_is_folded_by_the_next_one() -> None:
    """None is missed between two looks."""
    arrived, is_folding, may_end = Bell(), threading.Semaphore(0), threading.Semaphore(0)

    def fold(*_: object) -> None:
        is_folding.release()
        may_end.acquire(timeout=SECONDS)

    prompt = PromptFolding(arrived, fold)
    with prompt.running():
        first = is_folding.acquire(timeout=SECONDS)
        arrived.ring()
        may_end.release()
        second = is_folding.acquire(timeout=SECONDS)
        may_end.release()

    assert (first, second) == (True, True)


def waits(clock: list[float], prompt: PromptFolding, *moments: float) -> list[float]:
    """Return how long a report has to wait at each of these moments, at which another one is added."""
    found = []
    for clock[0] in moments:
        prompt.note_added()
        found.append(prompt.shortest_wait())
    return found


def test_reports_wait_for_others_on_their_run_while_the_bus_has_more() -> None:
    """A process is behind if it has added reports for more than five seconds without a proof that these were all."""
    clock, bell = [100.0], Bell()
    prompt = PromptFolding(bell, lambda *_: None, monotonic=lambda: clock[0])

    before = waits(clock, prompt, 100.0, 105.0, 106.0)
    rung = bell.count
    prompt.note_caught_up()
    prompt.note_caught_up()
    after = waits(clock, prompt, 107.0, 112.0, 113.0)

    assert (before, after) == ([0.0, 0.0, 3.0], [0.0, 0.0, 3.0])
    # What has waited is derived, once.
    assert bell.count == rung + 1 + 3


def test_a_process_that_adds_no_reports_derives_what_another_one_has_left() -> None:
    """Another process receives them, or the broker is away."""
    clock = [100.0]
    prompt = PromptFolding(Bell(), lambda *_: None, monotonic=lambda: clock[0])

    adding = waits(clock, prompt, 100.0, 106.0)
    clock[0] = 112.0

    assert (adding, prompt.shortest_wait()) == ([0.0, 3.0], 5.0)


def test_the_pause_after_a_fold_depends_on_its_time() -> None:
    """One that is behind has hardly any, since its reports wait; another one has no long pause after a short fold."""
    clock = [100.0]
    prompt = PromptFolding(Bell(), lambda *_: None, monotonic=lambda: clock[0])
    waits(clock, prompt, 99.0)
    prompt.note_caught_up()
    live = [prompt.pause_after(took) for took in (0.0, 1.0, 60.0)]
    waits(clock, prompt, 100.0, 106.0)
    behind = [prompt.pause_after(took) for took in (0.0, 1.0, 60.0)]

    assert (live, behind) == ([0.1, 3.0, 10.0], [0.25, 0.25, 0.25])


def test_a_process_with_a_new_store_begins_behind() -> None:
    """It has the whole archive to take in."""
    clock = [100.0]
    prompt = PromptFolding(Bell(), lambda *_: None, is_behind=True, monotonic=lambda: clock[0])
    at_first = prompt.shortest_wait()
    adding = waits(clock, prompt, 100.0, 101.0)
    prompt.note_caught_up()

    assert (at_first, adding, prompt.shortest_wait()) == (3.0, [3.0, 3.0], 0.0)


def test_threads_change_often_while_rows_are_derived() -> None:
    """The process has its former interval after the last of them, whichever that is."""
    before, found = sys.getswitchinterval(), []
    with ExitStack() as second:
        with PromptFolding(Bell(), lambda *_: None).running():
            found.append(sys.getswitchinterval())
            second.enter_context(PromptFolding(Bell(), lambda *_: None).running())
            found.append(sys.getswitchinterval())
        found.append(sys.getswitchinterval())

    assert found == [pytest.approx(0.0005)] * 3
    assert sys.getswitchinterval() == before


def test_a_service_with_a_new_store_begins_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one does not, once the store had all reports of the bus."""
    waits: list[float] = []

    def fold(_: Collector, __: Callable[[], bool], shortest_wait: Callable[[], float]) -> None:
        waits.append(shortest_wait())

    monkeypatch.setattr(Collector, "fold", fold)
    for number in (1, 2):
        with Collector(read_settings()) as collector:
            with collector.service():
                wait_until(lambda number=number: len(waits) == number)  # type: ignore[misc]
            collector._note_complete()

    assert waits == [3.0, 0.0]


def test_a_service_folds_for_each_report_and_each_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the thread decide how long reports wait."""
    noted: list[str] = []
    for name in ("note_added", "note_caught_up"):
        monkeypatch.setattr(PromptFolding, name, lambda _, name=name: noted.append(name))
    with Collector(read_settings()) as collector, collector.service() as member:
        with collector._database.transaction() as transaction:
            member.consumer.handlers[0].called.function([started("A")], transaction)
        assert member.consumer.on_caught_up is not None
        member.consumer.on_caught_up(Moment(0.0, 0.0), 0.0)

    assert noted == ["note_added", "note_caught_up"]


def test_a_service_derives_at_once_what_an_earlier_one_has_left_and_its_health_has_a_failure() -> None:
    """A table that is missing is an error that no pause mends."""
    settings = read_settings()
    with closing(Database.open(None, settings)) as database, Collector(settings) as collector:
        collector._note_complete()
        with database.transaction() as transaction:
            Store().add(transaction, started("A"))
        with collector.service() as member:
            wait_until(lambda: _runs(collector) == 1)
            fault_before = member.consumer.fault()
            with database.transaction() as transaction:
                transaction.exec_driver_sql("ALTER TABLE dkist_core_tally RENAME TO away")
                member.consumer.handlers[0].called.function([started("A", run_id="another")], transaction)
            wait_until(lambda: member.consumer.fault() is not None)
            fault = member.consumer.fault()

    assert fault_before is None
    assert "dkist_core_tally" in str(fault)


def _runs(collector: Collector) -> int:
    with collector.questions() as questions:
        return len(questions.runs(Choice()))


def test_a_dashboard_that_cannot_derive_its_rows_is_not_ready() -> None:
    """Its pages would show an old state as the present one."""
    with running() as site, closing(Database.open(None, read_settings())) as database:
        with database.transaction() as transaction:
            transaction.exec_driver_sql("ALTER TABLE dkist_core_tally RENAME TO away")
        with Publisher.open(read_settings()) as publisher:
            publisher.publish(started("A"))
        wait_until(lambda: site.get("/health/ready").json["store"] == "not kept up to date")

        assert site.get("/health/ready").status == 503
