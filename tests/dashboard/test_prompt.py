"""
The thread that derives rows soon after their reports have arrived.
"""

import threading
from collections.abc import Callable
from contextlib import closing

import pytest

from dkist_processing_core.collect.answers import Choice
from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.collect.folding import Store
from dkist_processing_core.collect.prompt import PromptFolding
from dkist_processing_core.consumer.bell import Bell
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
    prompt = PromptFolding(arrived, lambda _: folds.release())
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

    def fold(_: Callable[[], bool]) -> None:
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

    def fold(is_ending: Callable[[], bool]) -> None:
        is_folding.set()
        wait_until(is_ending)

    with PromptFolding(arrived, fold).running():
        assert is_folding.wait(SECONDS)


def test_an_arrival_during_a_fold_is_folded_by_the_next_one() -> None:
    """None is missed between two looks."""
    arrived, is_folding, may_end = Bell(), threading.Semaphore(0), threading.Semaphore(0)

    def fold(_: Callable[[], bool]) -> None:
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


def test_a_service_derives_at_once_what_an_earlier_one_has_left_and_its_health_has_a_failure() -> None:
    """A table that is missing is an error that no pause mends."""
    settings = read_settings()
    with closing(Database.open(None, settings)) as database, Collector(settings) as collector:
        with database.transaction() as transaction:
            Store().add(transaction, started("A"))
        with collector.service() as member:
            wait_until(lambda: _runs(collector) == 1)
            fault_before = member.consumer.fault()
            with database.transaction() as transaction:
                transaction.exec_driver_sql("ALTER TABLE dkist_core_tally RENAME TO away")
                Store().add(transaction, started("A", run_id="another"))
            collector._arrived.ring()
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
