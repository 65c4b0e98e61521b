"""
The steps of a worker whose statements are refused or come too late, one by one.

Not here: an outage of a whole consumer (test_outages).
"""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, event

from dkist_processing_core import Consumer
from dkist_processing_core.consumer.service import ConsumerService
from dkist_processing_core.errors import InboxUnavailableError
from dkist_processing_core.events import Event
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.testing import InMemoryBus
from tests.consumer.effects import Effects
from tests.facts import progressed

Work = Callable[[Consumer, int], ConsumerService]


@pytest.fixture
def consumer_of(effects: Effects) -> Callable[..., Consumer]:
    """
    A function that returns a consumer with an inbox in the database of the effects, and without pauses.
    """
    return lambda **rules: Consumer("steps", inbox=effects.url, first_pause=0.0, longest_pause=0.0, **rules)


@pytest.fixture
def work() -> Iterator[Work]:
    """
    A function that has a consumer receive so many events of one run; then the worker claims them all.
    """
    opened: list[ConsumerService] = []

    def work(consumer: Consumer, count: int) -> ConsumerService:
        service = ConsumerService.open(consumer, read_settings())
        assert service is not None
        opened.append(service)
        assert service.intake is not None
        service.intake.step(0.0)
        # A foreign publisher may give each event of a run another recipe run.
        bus.publish(*(progressed("T", number, recipe_run_id=number + 1) for number in range(count)))
        service.intake.quiet_at = None
        while service.intake.quiet_at is None:
            service.intake.step(0.0)
        service.workers[0]._limit = count
        service.workers[0].step()
        return service

    with InMemoryBus() as bus:
        yield work
    for service in opened:
        service.close()


def refuse(service: ConsumerService, part: str, times: int = 1) -> list[str]:
    """
    Have statements with this part fail as in an outage, so many times, and return those that are left to fail.
    """
    left = [part] * times

    @event.listens_for(service.database.engine, "before_cursor_execute")
    def listen(*values: object) -> None:
        if left and part in str(values[2]):
            raise InboxUnavailableError(left.pop())

    return left


def finish(service: ConsumerService) -> None:
    """
    Let the worker make its steps until nothing is due.
    """
    while service.workers[0].step() is not None:
        pass


def test_rows_that_could_not_be_given_back_are_given_back_later(
    effects: Effects, consumer_of: Callable[..., Consumer], work: Work
) -> None:
    """
    Otherwise they would belong to the process until its end, and their run would be busy.
    """
    consumer, failures = consumer_of(ordered="run"), [OSError("gone")]

    @consumer.on("task.progressed")
    def act(event: Event, transaction: Connection) -> None:
        if event.number == "2" and failures:
            raise failures.pop()
        effects.take(transaction, event)

    service = work(consumer, 6)
    left = refuse(service, "starts - ")

    finish(service)

    assert left == []
    assert effects.events == [f"T {number}" for number in range(6)]
    assert service.inbox.counts().claimed == 0


def test_rows_behind_one_whose_failure_was_recorded_by_another_are_not_handled_before_it(
    effects: Effects, consumer_of: Callable[..., Consumer], work: Work
) -> None:
    """
    The mark finds that the claim is lost, as after a commit of the failure that seemed to be refused.
    """
    consumer, seen = consumer_of(ordered="run"), list[str]()

    @consumer.on("task.progressed")
    def act(event: Event) -> None:
        seen.append(event.number)
        effects.execute("UPDATE dkist_core_inbox SET claim = NULL, due_at = 1e12, tries = 1, starts = 0 WHERE seq = 1")

    service = work(consumer, 3)

    finish(service)

    assert seen == ["0"]
    assert service.inbox.counts().claimed == 0


@pytest.mark.parametrize("fails", [False, True])
def test_a_handler_without_the_transaction_is_not_called_again_in_an_outage(
    effects: Effects, consumer_of: Callable[..., Consumer], work: Work, *, fails: bool
) -> None:
    """
    It was called once, and what became of it is recorded when the database can be used.
    """
    consumer, seen = consumer_of(max_tries=2), list[str]()

    @consumer.on("task.progressed")
    def act(event: Event) -> None:
        seen.append(event.number)
        if fails:
            raise OSError("gone")

    service = work(consumer, 2)
    left = refuse(service, "UPDATE dkist_core_inbox SET state", 3)

    finish(service)

    assert left == []
    assert sorted(seen) == sorted("01" * (2 if fails else 1))
    assert (
        effects.of_state("dead" if fails else "done")
        == [("T", 2, "its handler failed 2 times") if fails else ("T", 0, None)] * 2
    )


def test_a_function_without_the_transaction_is_not_called_again_for_another_event(
    effects: Effects, consumer_of: Callable[..., Consumer], work: Work
) -> None:
    """
    Its effect would not be rolled back, so its event shares no transaction with others.
    """
    consumer, mails = consumer_of(batch_size=5), list[str]()

    @consumer.on("task.progressed")
    def mail(event: Event) -> None:
        mails.append(event.number)

    @consumer.on("task.progressed")
    def act(event: Event, transaction: Connection) -> None:
        effects.take(transaction, event)
        if event.number == "3" and mails.count("3") == 1:
            raise OSError("gone")

    finish(work(consumer, 6))

    assert sorted(mails) == [*"0123345"]
    assert sorted(effects.events) == [f"T {number}" for number in range(6)]
