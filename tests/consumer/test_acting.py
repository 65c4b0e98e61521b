"""
A consumer acts on events: effects and marks in one transaction, tries, dead letters, order, and the end of its work.

Not here: consumers that are killed (test_kills), and brokers and databases that are (test_outages).
"""

import asyncio
import itertools
import logging
import re
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from dkist_processing_core import Consumer
from dkist_processing_core.consumer._consumer import Consumer as ConsumerClass
from dkist_processing_core.consumer.service import ConsumerService
from dkist_processing_core.errors import InboxError, InboxUnavailableError, RetryLaterError
from dkist_processing_core.events import Event, TaskFailed, TaskSampled
from dkist_processing_core.inbox import Database
from dkist_processing_core.journal.message import Message, Properties
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.testing import InMemoryBus
from tests.consumer.effects import Effects
from tests.facts import failed, finished, progressed, sampled, started
from tests.inbox.parts import Clock
from tests.running import run_python
from tests.waiting import wait_until


@pytest.fixture
def bus() -> Iterator[InMemoryBus]:
    """
    The bus of this process.
    """
    with InMemoryBus() as bus:
        yield bus


@pytest.fixture
def consumer_of(effects: Effects) -> Callable[..., Consumer]:
    """
    A function that returns a consumer with an inbox in the database of the effects.
    """

    def consumer_of(name: str = "actor", **rules: Any) -> Consumer:
        return Consumer(name, inbox=effects.url, first_pause=0.0, longest_pause=0.0, **rules)

    return consumer_of


def run(consumer: Consumer) -> None:
    """
    Let a consumer handle all events of the bus.
    """
    consumer.run(since="first", until_idle=True)


def test_an_event_has_its_effect_once_however_often_it_is_received(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    Reports of several reporters and repetitions are one occurrence, also at a later start that reads all again.
    """
    consumer = consumer_of()
    consumer.on("task.failed")(lambda event, transaction: effects.take(transaction, event))
    bus.publish(failed("A"), failed("A"), failed("A", reported_by="launcher"), started("B"), failed("C"))

    run(consumer)
    run(consumer)

    assert effects.events == ["A", "C"]


def test_each_sample_of_an_attempt_is_an_event_of_its_own(
    bus: InMemoryBus, consumer_of: Callable[..., Consumer]
) -> None:
    """
    Its sequence number distinguishes it, also if it arrives after the end.
    """
    consumer = consumer_of()
    handled: list[int] = []

    @consumer.on("task.sampled")
    def act(event: TaskSampled) -> None:
        handled.append(event.sequence)

    bus.publish(started("A"), sampled("A", 0), sampled("A", 1), sampled("A", 1), finished("A"), sampled("A", 2))
    run(consumer)

    assert sorted(handled) == [0, 1, 2]


def test_every_report_is_handled_on_request(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    Then a report is repeated if reporter and content are equal.
    """
    consumer = consumer_of(every_report=True)
    consumer.on("task.failed")(lambda event, transaction: effects.take(transaction, event))
    bus.publish(failed("A"), failed("A"), failed("A", reported_by="launcher"))

    run(consumer)

    assert effects.events == ["A", "A"]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_failed_handler_leaves_no_effect_and_is_tried_again(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer], batch_size: int
) -> None:
    """
    In a batch the other events are handled one by one.
    """
    consumer = consumer_of(batch_size=batch_size)
    tries: list[str] = []

    @consumer.on("task.failed")
    def act(event: TaskFailed, transaction: Connection) -> None:
        tries.append(event.task_name)
        effects.take(transaction, event)
        if event.task_name == "C" and tries.count("C") < batch_size + 1:
            raise KeyError("missing")

    bus.publish(*map(failed, "ABCDE"))
    run(consumer)

    assert sorted(effects.events) == ["A", "B", "C", "D", "E"]
    assert tries.count("C") == batch_size + 1


def test_an_event_that_always_fails_is_dead_after_its_tries_and_holds_back_no_other(
    bus: InMemoryBus,
    effects: Effects,
    consumer_of: Callable[..., Consumer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    Each failure is one line of the log.
    """
    consumer = consumer_of(max_tries=3)

    @consumer.on("task.failed")
    def act(event: TaskFailed, transaction: Connection) -> None:
        effects.take(transaction, event)
        if event.task_name == "Bad":
            raise KeyError("missing")

    bus.publish(failed("Bad"), failed("A"), failed("B"))
    run(consumer)

    assert sorted(effects.events) == ["A", "B"]
    assert effects.of_state("dead") == [("Bad", 3, "its handler failed 3 times")]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    what = "act has failed for task.failed r/Bad/1: KeyError: 'missing'"
    assert [re.sub(r" i\d+ ", " i1 ", line.rpartition("<locals>.")[2]) for line in lines] == [
        f"{what}; try 1 of 3",
        f"{what}; try 2 of 3",
        f"{what}; the event is the dead letter i1 after 3 tries",
    ]


def test_all_handlers_of_an_event_share_its_transaction(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    They are called in the order of their registration; an error of the last one undoes all.
    """
    consumer, calls = consumer_of(max_tries=2), list[str]()
    consumer.on("task.*", task="A")(lambda event, transaction: effects.take(transaction, event))

    @consumer.on("task.failed")
    def second(event: Event) -> None:
        calls.append(event.name)
        raise ValueError(event.name)

    bus.publish(failed("A"), started("A"))
    run(consumer)

    assert effects.events == ["A"]
    assert calls == ["task.failed"] * 2


@pytest.mark.parametrize("method", ["commit", "rollback", "close"])
def test_a_handler_cannot_end_the_transaction(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer], method: str
) -> None:
    """
    Its effect would be committed without the mark, or the mark without the effect.
    """
    consumer, errors = consumer_of(max_tries=1), list[str]()

    @consumer.on("task.failed")
    def act(event: TaskFailed, transaction: Connection) -> None:
        effects.take(transaction, event)
        try:
            getattr(transaction, method)()
        except InboxError as error:
            errors.append(str(error))
            raise

    bus.publish(failed("A"))
    run(consumer)

    assert effects.events == []
    (found,) = errors
    assert found.startswith(f"a handler called {method}() of its transaction")


def test_a_handler_that_ignores_a_failed_statement_fails(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    On PostgreSQL the transaction cannot be committed then; SQLite keeps its other statements.
    """
    consumer = consumer_of(max_tries=2)

    @consumer.on("task.failed")
    def act(event: TaskFailed, transaction: Connection) -> None:
        effects.take(transaction, event)
        if event.task_name == "A":
            try:
                transaction.execute(text("SELECT nothing FROM nowhere"))
            except SQLAlchemyError:
                return

    bus.publish(failed("A"), failed("B"))
    run(consumer)

    dead = [task for task, _, _ in effects.of_state("dead")]
    assert (sorted(effects.events), dead) in ((["A", "B"], []), (["B"], ["A"]))
    assert bool(dead) == effects.url.startswith("postgresql")


def use_a_file_that_is_missing(transaction: Connection) -> None:
    """
    Fail as a database whose file is lost does, by a statement of the handler alone.
    """
    if transaction.dialect.name == "postgresql":
        transaction.execute(text("COPY effect FROM '/no/such/file'"))
    else:
        transaction.execute(text("SELECT 1 UNION SELECT 2")).fetchone()
        transaction.execute(text("DROP TABLE effect"))


def exceed_a_limit(transaction: Connection) -> None:
    """
    Fail as a server without resources, or with a lock of another process, does.
    """
    if transaction.dialect.name == "postgresql":
        transaction.execute(text("SET LOCAL statement_timeout = 1"))
        transaction.execute(text("SELECT pg_sleep(9)"))
    else:
        transaction.execute(text("VACUUM INTO '/no/such/folder/file'"))


def use_another_inbox(_: Connection) -> None:
    """
    Fail as an inbox that the consumer does not have.
    """
    msg = "the inbox of another service cannot be used now"
    raise InboxUnavailableError(msg)


@pytest.mark.parametrize(
    ("fail", "joins"),
    [
        (use_a_file_that_is_missing, True),
        (use_a_file_that_is_missing, False),
        (exceed_a_limit, True),
        (exceed_a_limit, False),
        (use_another_inbox, False),
    ],
)
def test_a_statement_of_a_handler_that_cannot_succeed_is_a_failed_try_and_no_outage(
    bus: InMemoryBus,
    effects: Effects,
    consumer_of: Callable[..., Consumer],
    caplog: pytest.LogCaptureFixture,
    fail: Callable[[Connection], None],
    *,
    joins: bool,
) -> None:
    """
    Its event is dead after its tries and holds back no other, although an outage of the database has the same code.
    """
    consumer = consumer_of(max_tries=2)

    def act(event: TaskFailed, transaction: Connection) -> None:
        if event.task_name == "Bad":
            fail(transaction)
        effects.take(transaction, event)

    def act_apart(event: TaskFailed) -> None:
        with closing(Database.open(effects.url, read_settings())) as other, other.transaction() as transaction:
            act(event, transaction)

    consumer.on("task.failed")(act if joins else act_apart)
    bus.publish(failed("Bad"), failed("A"), failed("B"))
    run(consumer)

    assert sorted(effects.events) == ["A", "B"]
    assert effects.of_state("dead") == [("Bad", 2, "its handler failed 2 times")]
    assert "tries again" not in caplog.text


def test_a_part_of_an_effect_may_fail_in_a_nested_transaction(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    The rest is committed.
    """
    consumer = consumer_of()

    @consumer.on("task.failed")
    def act(event: TaskFailed, transaction: Connection) -> None:
        effects.take(transaction, event)
        try:
            with transaction.begin_nested():
                effects.take(transaction, failed("nested"))
                transaction.execute(text("SELECT nothing FROM nowhere"))
        except SQLAlchemyError:
            pass

    bus.publish(failed("A"))
    run(consumer)

    assert effects.events == ["A"]


def _by_statements(*statements: str) -> Callable[[Connection], None]:
    def end(transaction: Connection) -> None:
        for statement in statements:
            transaction.execute(text(statement))

    return end


def _below(*statements: str) -> Callable[[Connection], None]:
    def end(transaction: Connection) -> None:
        with closing(transaction.connection.cursor()) as cursor:
            for statement in statements:
                cursor.execute(statement)

    return end


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(Connection.invalidate, id="invalidate"),
        pytest.param(lambda transaction: transaction.connection.commit(), id="commit of the driver"),
        pytest.param(lambda transaction: transaction.connection.rollback(), id="rollback of the driver"),
        pytest.param(_by_statements("COMMIT"), id="COMMIT"),
        pytest.param(_by_statements("ROLLBACK"), id="ROLLBACK"),
        pytest.param(_by_statements("COMMIT", "BEGIN"), id="COMMIT, BEGIN"),
        pytest.param(_below("COMMIT", "BEGIN"), id="COMMIT, BEGIN of the driver"),
        pytest.param(_below("ROLLBACK", "BEGIN"), id="ROLLBACK, BEGIN of the driver"),
    ],
)
def test_a_transaction_that_a_handler_ends_below_the_inbox_is_a_failed_try(
    bus: InMemoryBus,
    effects: Effects,
    consumer_of: Callable[..., Consumer],
    caplog: pytest.LogCaptureFixture,
    end: Callable[[Connection], None],
) -> None:
    """
    The event is never marked as done, and is dead after its tries; the consumer goes on with the other events.
    """
    consumer = consumer_of(max_tries=1)

    @consumer.on("task.failed")
    def act(event: TaskFailed, transaction: Connection) -> None:
        effects.take(transaction, event)
        if event.task_name == "Bad":
            end(transaction)

    bus.publish(failed("Bad"), failed("A"))
    run(consumer)

    assert "A" in effects.events
    assert [task for task, _, _ in effects.of_state("done")] == ["A"]
    assert [task for task, _, _ in effects.of_state("dead")] == ["Bad"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert re.search(r"InboxError: .*transaction.*; the event is the dead letter i\d+ after 1 tries", line)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(_by_statements("COMMIT"), id="COMMIT"),
        pytest.param(_below("COMMIT", "BEGIN"), id="COMMIT, BEGIN of the driver"),
    ],
)
def test_timed_work_that_ends_its_transaction_has_failed(
    effects: Effects, consumer_of: Callable[..., Consumer], caplog: pytest.LogCaptureFixture, end: Callable[..., None]
) -> None:
    """
    It is due again after its pause.
    """
    consumer, calls = consumer_of(), list[int]()

    @consumer.every(0.01)
    def work(transaction: Connection) -> None:
        calls.append(1)
        effects.take(transaction, failed("A"))
        if len(calls) == 1:
            end(transaction)
        else:
            consumer.stop()

    consumer.run()

    assert "work has failed: InboxError: a handler has ended its transaction" in caplog.text


def test_timed_work_that_meets_an_outage_is_not_named_as_what_a_consumer_waits_for(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    It has returned.
    """
    consumer = consumer_of()

    @consumer.every(1.0)
    def work(transaction: Connection) -> None:
        use_another_inbox(transaction)

    database, clock = Database.open(effects.url, read_settings()), Clock()
    with closing(ConsumerService(consumer, bus, database, clock=clock)) as service:
        service.timers.step()
        clock.now += 2.0
        service.timers.step()

        assert (service.outage.is_going_on, service.timers.call) == (True, None)


def test_what_a_handler_writes_by_the_driver_itself_is_a_part_of_the_transaction_or_refused(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer], caplog: pytest.LogCaptureFixture
) -> None:
    """
    On SQLite the transaction begins with the first statement of SQLAlchemy, and the driver alone would commit before.
    """
    consumer = consumer_of(max_tries=1)

    @consumer.on("task.failed")
    def act(_: TaskFailed, transaction: Connection) -> None:
        _below("INSERT INTO effect VALUES (1, 'run', 'A')")(transaction)

    bus.publish(failed("A"))
    run(consumer)

    done = [task for task, _, _ in effects.of_state("done")]
    if effects.url.startswith("postgresql"):
        assert (done, effects.events) == (["A"], ["A"])
    else:
        assert done == []
        assert "InboxError: a handler has ended its transaction by a statement or by the driver" in caplog.text


def test_an_exception_without_a_text_is_a_failed_try(bus: InMemoryBus, effects: Effects) -> None:
    """
    The author's `__str__` may raise itself.
    """
    consumer = Consumer("actor", inbox=effects.url, max_tries=1)

    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("there is no text")

    @consumer.on("task.failed")
    def act(event: TaskFailed) -> None:
        raise SilentError(event)

    bus.publish(failed("A"), failed("B"))
    run(consumer)

    assert sorted(task for task, _, _ in effects.of_state("dead")) == ["A", "B"]


@pytest.mark.parametrize("seconds", ["60", float("nan"), -1, None, True])
def test_a_pause_that_is_no_number_of_seconds_is_a_failed_try(
    bus: InMemoryBus,
    effects: Effects,
    consumer_of: Callable[..., Consumer],
    caplog: pytest.LogCaptureFixture,
    seconds: Any,
) -> None:
    """
    As a handler's other errors; a header `Retry-After` is a text.
    """
    consumer = consumer_of(max_tries=2)

    @consumer.on("task.failed")
    def act(event: TaskFailed, transaction: Connection) -> None:
        effects.take(transaction, event)
        if event.task_name == "Bad":
            raise RetryLaterError("busy", seconds)

    bus.publish(failed("Bad"), failed("A"))
    run(consumer)

    assert effects.events == ["A"]
    assert effects.of_state("dead") == [("Bad", 2, "its handler failed 2 times")]
    assert f"ValueError: seconds is {seconds!r}, expected a number of seconds from 0 on; try 1 of 2" in caplog.text


class PauselessError(RetryLaterError):
    """
    It does not call the constructor.
    """

    def __init__(self) -> None:
        """
        Store no pause.
        """


class ComputedError(RetryLaterError):
    """
    It computes its pause.
    """

    @property
    def seconds(self) -> float:
        """
        Raise an error.
        """
        return float("in a minute")

    @seconds.setter
    def seconds(self, _: float) -> None:
        """
        Store nothing.
        """


class ClasslessError(Exception):
    """
    It raises an error when its class is asked for.
    """

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """
        Raise an error.
        """
        raise RuntimeError("there is no class")


@pytest.mark.parametrize(
    "make_error",
    [
        PauselessError,
        partial(ComputedError, "busy", 60),
        ClasslessError,
        partial(ValueError, "a zero \0, half a pair \ud800"),
    ],
)
def test_no_exception_of_an_author_ends_the_consumer(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer], make_error: Callable[[], Exception]
) -> None:
    """
    However its attributes behave, and whatever its text has, it is a failed try.
    """
    consumer = consumer_of(max_tries=2)

    @consumer.on("task.failed")
    def act(event: TaskFailed) -> None:
        if event.task_name == "Bad":
            raise make_error()

    bus.publish(failed("Bad"), failed("A"))
    run(consumer)

    assert [task for task, _, _ in effects.of_state("done")] == ["A"]
    assert effects.of_state("dead") == [("Bad", 2, "its handler failed 2 times")]


def test_a_long_failure_is_a_short_line_and_a_bounded_row(
    bus: InMemoryBus, effects: Effects, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The beginning of the message and the end of the stack are kept.
    """
    consumer = Consumer("actor", inbox=effects.url, max_tries=1)

    @consumer.on("task.failed")
    def act(_: TaskFailed) -> None:
        raise ValueError("found a frame " + 10_000_000 * "x")

    bus.publish(failed("A"))
    run(consumer)

    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    with closing(Database.open(consumer.inbox, read_settings())) as database, database.reading() as connection:
        query = text("SELECT error_message, stack FROM dkist_core_inbox")
        ((message, stack),) = connection.execute(query)
    assert len(line) < 1500
    assert "ValueError: found a frame xxx" in line
    assert message.startswith("found a frame xxx")
    assert (len(message), len(stack)) == (8_000, 32_000)


def test_a_function_that_returns_a_coroutine_has_not_handled_its_event(
    bus: InMemoryBus, effects: Effects, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Its work was never done, so the event is not marked as done.
    """
    consumer = Consumer("actor", inbox=effects.url, max_tries=1)

    async def act(event: Event) -> None:
        raise AssertionError(event)

    @consumer.on("task.failed")
    def begin(event: Event) -> Coroutine[Any, Any, None]:
        return act(event)

    bus.publish(failed("A"))
    run(consumer)

    assert [task for task, _, _ in effects.of_state("dead")] == ["A"]
    assert "returned coroutine, which nothing awaits; expected `async def" in caplog.text


def test_a_consumer_runs_once_at_a_time(bus: InMemoryBus, effects: Effects, caplog: pytest.LogCaptureFixture) -> None:
    """
    A second run in the same process would not be stopped by `stop`; after the first one it may run again.
    """
    consumer, handled = Consumer("actor", inbox=effects.url, max_tries=1), list[str]()

    @consumer.on("task.failed")
    def act(event: TaskFailed) -> None:
        handled.append(event.task_name)
        if event.task_name == "A":
            run(consumer)

    bus.publish(failed("A"))
    run(consumer)
    bus.publish(failed("B"))
    run(consumer)

    assert handled == ["A", "B"]
    assert "RuntimeError: the consumer 'actor' runs already, expected one run at a time" in caplog.text


def test_a_stop_before_the_run_ends_it_at_once(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    A thread may stop the consumer before another one has come to run it; the run after that is a usual one.
    """
    consumer = consumer_of()
    consumer.on("task.failed")(lambda event, transaction: effects.take(transaction, event))
    bus.publish(failed("A"))

    consumer.stop()
    consumer.run(since="first")
    stopped = effects.events
    run(consumer)

    assert (stopped, effects.events) == ([], ["A"])


async def leave(request_to_exit: BaseException) -> None:
    """
    Request to exit.
    """
    raise request_to_exit


async def leave_in_a_group(request_to_exit: BaseException) -> None:
    """
    Request to exit in a task of a group.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(leave(request_to_exit))


async def leave_in_a_task_that_nothing_awaits(request_to_exit: BaseException) -> None:
    """
    Return before the request.
    """
    task = asyncio.create_task(leave(request_to_exit))
    # It is retrieved, so that no log of asyncio follows the end of the test.
    task.add_done_callback(lambda done: done.exception())


async def leave_in_a_callback(request_to_exit: BaseException) -> None:
    """
    Return before the request.
    """
    asyncio.get_running_loop().call_soon(leave(request_to_exit).send, None)


@pytest.mark.parametrize("request_to_exit", [SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize(
    "exits",
    [
        leave,
        lambda request_to_exit: asyncio.gather(leave(request_to_exit)),
        leave_in_a_group,
        leave_in_a_task_that_nothing_awaits,
        leave_in_a_callback,
    ],
)
def test_an_async_handler_that_exits_ends_the_consumer(
    bus: InMemoryBus,
    effects: Effects,
    exits: Callable[[BaseException], Awaitable[None]],
    request_to_exit: BaseException,
) -> None:
    """
    As one without `async` does, in each part of it, instead of waiting for its loop for ever.
    """
    consumer = Consumer("actor", inbox=effects.url)

    @consumer.on("task.failed")
    async def act(_: TaskFailed) -> None:
        await exits(request_to_exit)

    bus.publish(failed("A"))
    with pytest.raises(type(request_to_exit)):
        run(consumer)


def test_an_async_handler_that_stops_its_loop_is_awaited(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    The loop goes on for it and for others.
    """
    consumer = consumer_of()

    @consumer.on("task.failed")
    async def act(event: TaskFailed, transaction: Connection) -> None:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0)
        effects.take(transaction, event)

    bus.publish(failed("A"), failed("B"))
    run(consumer)

    assert sorted(effects.events) == ["A", "B"]


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("request_to_exit", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_handler_that_exits_ends_the_consumer_and_its_event_alone_counts_as_started(
    bus: InMemoryBus,
    effects: Effects,
    consumer_of: Callable[..., Consumer],
    request_to_exit: BaseException,
    batch_size: int,
) -> None:
    """
    After `max_starts` it is dead, and the others are done.
    """
    consumer = consumer_of(max_starts=1, batch_size=batch_size)

    @consumer.on("task.failed")
    def act(event: TaskFailed, transaction: Connection) -> None:
        effects.take(transaction, event)
        if event.task_name == "Exits":
            raise request_to_exit

    # Claims have 1, 2 and 4 rows.
    names = ["A", "B", "C", "D", "Exits", "E", "F"]
    bus.publish(*map(failed, names))
    with pytest.raises(type(request_to_exit)):
        run(consumer)
    with effects._engine.connect() as connection:
        query = text("SELECT task, starts FROM dkist_core_inbox WHERE state = 'waiting'")
        starts = dict(tuple(row) for row in connection.execute(query))
    run(consumer)

    assert starts["Exits"] == 1
    assert {count for name, count in starts.items() if name != "Exits"} == {0}
    assert sorted(effects.events) == ["A", "B", "C", "D", "E", "F"]
    assert [task for task, _, _ in effects.of_state("dead")] == ["Exits"]


@pytest.mark.parametrize("workers", [1, 3])
def test_async_handlers_run_on_one_loop(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer], workers: int
) -> None:
    """
    They share it with those of other workers, and join the transaction as well.
    """
    consumer = consumer_of(workers=workers)
    loops: set[asyncio.AbstractEventLoop] = set()

    @consumer.on("task.failed")
    async def act(event: TaskFailed, transaction: Connection) -> None:
        await asyncio.sleep(0)
        loops.add(asyncio.get_running_loop())
        effects.take(transaction, event)
        if event.task_name == "Bad":
            raise KeyError("missing")

    consumer.max_tries = 2
    bus.publish(failed("Bad"), *[failed(f"Task{number}") for number in range(20)])
    run(consumer)

    assert len(effects.events) == 20
    assert len(loops) == 1
    assert [task for task, _, _ in effects.of_state("dead")] == ["Bad"]


def test_an_order_holds_back_the_later_events_of_a_run(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    Those behind a failed event wait for its next try, those behind a dead one for an operator; other runs go on.
    """
    consumer = consumer_of(ordered="run", workers=3, max_tries=3)
    fails = {("flaky", 3): 2, ("broken", 3): 99}

    @consumer.on("task.progressed")
    def act(event: Any, transaction: Connection) -> None:
        effects.take(transaction, event)
        key = (event.run_id, event.sequence)
        if fails.get(key, 0):
            fails[key] -= 1
            raise KeyError("missing")

    bus.publish(
        *[progressed("A", number, run_id=run) for number in range(8) for run in ("flaky", "broken", "good", "other")]
    )
    run(consumer)

    with effects._engine.connect() as connection:
        rows = connection.execute(text("SELECT run, event FROM effect ORDER BY seq")).all()
    of = {run: [event for name, event in rows if name == run] for run in ("flaky", "broken", "good", "other")}
    whole = [f"A {number}" for number in range(8)]
    assert of == {"flaky": whole, "broken": whole[:3], "good": whole, "other": whole}
    assert [task for task, _, _ in effects.of_state("dead")] == ["A"]


def test_a_provisional_failure_waits_for_a_firm_report(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    A firm report of it is handled in its place, a success of the attempt cancels it, in either order of arrival.
    """
    provisional = {"reported_by": "engine", "provisional": True}
    consumer, seen = consumer_of(provisional_after=3600.0), list[tuple[str, str]]()
    consumer.on("task.failed")(lambda event: seen.append((event.task_name, event.reported_by)))
    bus.publish(
        failed("Waiting", **provisional),
        failed("Firm", **provisional),
        failed("Firm"),
        failed("Wrong", **provisional),
        finished("Wrong"),
        finished("WrongLater"),
        failed("WrongLater", **provisional),
    )

    run(consumer)

    assert seen == [("Firm", "task")]
    assert [task for task, _, _ in effects.of_state("waiting")] == ["Waiting"]


@pytest.mark.parametrize("is_of_consumer", [True, False])
def test_provisional_failures_are_handled_at_once_on_request(
    bus: InMemoryBus, consumer_of: Callable[..., Consumer], *, is_of_consumer: bool
) -> None:
    """
    The firm report of the same occurrence is then a repetition. Reports of other events may still wait for firm ones.
    """
    consumer, seen = consumer_of(provisional=is_of_consumer), list[tuple[str, str]]()
    consumer.on("task.failed", provisional=True)(lambda event: seen.append((event.task_name, event.reported_by)))
    if not is_of_consumer:
        consumer.on("task.finished")(lambda event: seen.append((event.task_name, event.name)))
        bus.publish(finished("B", reported_by="engine", provisional=True))

    bus.publish(failed("A", reported_by="engine", provisional=True))
    run(consumer)
    bus.publish(failed("A"))
    run(consumer)

    assert seen == [("A", "engine")]


def test_a_message_that_is_no_event_is_a_dead_letter_at_once(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer], caplog: pytest.LogCaptureFixture
) -> None:
    """
    It keeps its bytes and the reason; an event of a type of a newer release is passed over.
    """
    consumer, seen = consumer_of(), list[Event]()
    consumer.on("task.failed")(seen.append)
    unknown = b'{"specversion": "1.0", "id": "1", "source": "/x", "type": "edu.nso.dkist.task.teleported", "data": {}}'
    for body, content_type in ((b"?", "application/json"), (unknown, "application/cloudevents+json")):
        bus.publish_raw(Message(bus.event_exchange, "task.failed.W.A", body, Properties("m", content_type)))
    bus.publish(failed("A"))

    run(consumer)

    ((_, tries, reason),) = effects.of_state("dead")
    assert seen == [failed("A")]
    assert tries == 0
    assert reason
    assert "1 message is no event and became dead letters of 'actor'" in caplog.text
    assert "events of types that this release does not know are skipped" in caplog.text


def test_an_event_of_the_inbox_states_when_it_was_received(
    bus: InMemoryBus, consumer_of: Callable[..., Consumer]
) -> None:
    """
    Its acknowledgement has no effect: the event was acknowledged when it was stored.
    """
    consumer, seen = consumer_of(), list[Event]()
    consumer.on("task.failed")(seen.append)
    consumer.on("task.failed")(TaskFailed.ack)
    before = time.time()
    bus.publish(failed("A"))

    run(consumer)

    assert seen[0].received_at is not None
    assert before <= seen[0].received_at.timestamp() <= time.time()


@pytest.mark.usefixtures("bus")
def test_timed_work_is_done_at_its_times_in_its_transaction(
    effects: Effects, consumer_of: Callable[..., Consumer], caplog: pytest.LogCaptureFixture
) -> None:
    """
    Work that fails leaves no effect, and is due again later.
    """
    consumer, calls, all_called = consumer_of(), list[str](), threading.Event()

    def count(name: str) -> None:
        calls.append(name)
        if min(map(calls.count, ("often", "plain", "broken"))) > 1:
            all_called.set()

    @consumer.every(0.05)
    def often(transaction: Connection) -> None:
        effects.take(transaction, failed("often"))
        count("often")

    @consumer.every(0.05)
    async def plain() -> None:
        count("plain")

    @consumer.every(0.05)
    def broken(transaction: Connection) -> None:
        effects.take(transaction, failed("broken"))
        count("broken")
        raise KeyError("missing")

    @consumer.every(3600)
    def hourly() -> None:
        calls.append("hourly")

    thread = threading.Thread(target=consumer.run)
    thread.start()
    assert all_called.wait(20)
    consumer.stop()
    thread.join(20)

    assert effects.events == ["often"] * calls.count("often")
    assert "hourly" not in calls
    assert "broken has failed: KeyError: 'missing'; it is tried again in 0.05 s" in caplog.text


@pytest.mark.parametrize("joins", [True, False])
def test_timed_work_that_ends_its_process_is_due_again(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer], *, joins: bool
) -> None:
    """
    At least once in each period, with a transaction and without one, on both databases.
    """
    consumer, clock, calls = consumer_of(), Clock(), list[float]()

    def work() -> None:
        calls.append(clock.now)
        if len(calls) == 1:
            raise SystemExit(3)

    def work_in(transaction: Connection) -> None:
        effects.take(transaction, failed("A"))
        work()

    consumer.every(3600)(work_in if joins else work)

    def process() -> closing[ConsumerService]:
        return closing(ConsumerService(consumer, bus, Database.open(effects.url, read_settings()), clock=clock))

    with process() as first:
        first.timers.step()
        clock.now += 3600
        with pytest.raises(SystemExit):
            first.timers.step()
    clock.now += 60
    with process() as second:
        pauses = [second.timers.step(), second.timers.step()]
        clock.now += 3540
        second.timers.step()

    assert [called - calls[0] for called in calls] == [0, 60, 3600]
    assert pauses[1] > 0
    assert effects.events == ["A", "A"] * joins


def test_timed_work_without_a_transaction_holds_none_and_is_done_by_one_process_at_a_time(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    Others can write meanwhile. Another process looks again after a pause, also if the work lasts longer than a period.
    """
    consumer, clock, calls = consumer_of(), Clock(), list[str]()
    is_at_work, goes_on = threading.Event(), threading.Event()

    @consumer.every(60)
    def work() -> None:
        calls.append("work")
        is_at_work.set()
        assert goes_on.wait(20)

    with (
        closing(ConsumerService(consumer, bus, Database.open(effects.url, read_settings()), clock=clock)) as service,
        closing(ConsumerService(consumer, bus, Database.open(effects.url, read_settings()), clock=clock)) as other,
    ):
        service.timers.step()
        clock.now += 60
        thread = threading.Thread(target=service.timers.step)
        thread.start()
        try:
            assert is_at_work.wait(20)
            clock.now += 600
            pause = other.timers.step()
            effects.execute("INSERT INTO effect VALUES (0, 'run', 'meanwhile')")
            idle = effects.idle_in_transaction
        finally:
            goes_on.set()
            thread.join(20)

    assert calls == ["work"]
    assert pause > 1
    assert idle == 0


def test_async_timed_work_without_a_transaction_lets_async_handlers_have_theirs(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    They are called one at a time for their transactions, and it has none.
    """
    consumer, handled, is_awaited = consumer_of(), asyncio.Event(), list[bool]()

    @consumer.on("task.failed")
    async def act(event: TaskFailed, transaction: Connection) -> None:
        effects.take(transaction, event)
        handled.set()

    @consumer.every(0.01)
    async def work() -> None:
        bus.publish(failed("A"))
        try:
            is_awaited.append(await asyncio.wait_for(handled.wait(), 20))
        finally:
            consumer.stop()

    consumer.run(since="first")

    assert is_awaited == [True]
    assert effects.events == ["A"]


def test_timed_work_that_is_always_due_keeps_no_consumer_from_being_idle(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    As work that takes longer than its interval: it is done once when nothing else is left.
    """
    consumer, handled_at_call = consumer_of(), list[int]()
    consumer.on("task.failed")(lambda event, transaction: effects.take(transaction, event))
    bus.publish(failed("A"))

    @consumer.every(1)
    def work() -> None:
        handled_at_call.append(service.handled.done)

    # With each look at this clock, the work is due again.
    ticks = map(float, itertools.count(int(time.time()), 10))
    service = ConsumerService(
        consumer, bus, Database.open(effects.url, read_settings()), clock=lambda: next(ticks), since=True
    )
    thread = threading.Thread(target=service.run, kwargs={"until_idle": True})
    thread.start()
    thread.join(20)
    has_ended = not thread.is_alive()
    service.stop()
    thread.join(20)

    assert has_ended
    assert effects.events == ["A"]
    assert handled_at_call[-1] == 1


@pytest.mark.usefixtures("bus")
def test_timed_work_that_is_not_due_does_not_delay_the_end_of_an_idle_consumer(
    consumer_of: Callable[..., Consumer],
) -> None:
    """
    A consumer that keeps time looks every five seconds, one that ends when it is idle looks at once.
    """
    consumer, began = consumer_of(), time.monotonic()
    consumer.on("task.failed")(list[Event]().append)
    consumer.every(3600)(consumer.stop)

    consumer.run(until_idle=True)

    assert time.monotonic() - began < 4


def test_a_consumer_runs_until_it_is_stopped_and_finishes_what_it_does(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    The event in hand is finished, those behind it are left as they were, and the next start handles them.
    """
    consumer, in_hand, goes_on = consumer_of(), threading.Event(), threading.Event()

    @consumer.on("task.failed")
    def act(event: TaskFailed, transaction: Connection) -> None:
        in_hand.set()
        assert goes_on.wait(20)
        effects.take(transaction, event)

    bus.publish(failed("A"))
    thread = threading.Thread(target=lambda: consumer.run(since="first"))
    thread.start()
    assert in_hand.wait(20)
    bus.publish(failed("B"))
    wait_until(lambda: [task for task, _, _ in effects.of_state("waiting")] == ["A", "B"] or not thread.is_alive())
    consumer.stop()
    goes_on.set()
    thread.join(20)
    stopped = effects.events
    consumer.run(until_idle=True)

    assert (stopped, effects.events) == (["A"], ["A", "B"])
    assert not thread.is_alive()


def test_a_consumer_begins_now_and_later_where_it_ended(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    Past events are taken in on request, each once.
    """
    consumer = consumer_of()
    consumer.on("task.failed")(lambda event, transaction: effects.take(transaction, event))
    bus.publish(failed("Before"))

    consumer.run(until_idle=True)
    bus.publish(failed("Between"))
    consumer.run(until_idle=True)
    consumer.run(since="first", until_idle=True)

    assert effects.events == ["Between", "Before"]


def test_the_class_is_public() -> None:
    """
    It is imported from the package.
    """
    assert Consumer is ConsumerClass


def test_the_key_of_a_handled_event_is_kept_as_long_as_a_repetition_can_come(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    That is the age of the archive, seven days.
    """
    consumer = consumer_of()
    consumer.on("task.failed")(lambda event, transaction: effects.take(transaction, event))
    bus.publish(failed("A"))
    run(consumer)

    kept = []
    for days in (6, 8):
        later = time.time() + days * 24 * 3600
        database = Database.open(effects.url, read_settings())
        ConsumerService(consumer, bus, database, clock=partial(float, later)).run(until_idle=True)
        kept.append(len(effects.of_state("done")))

    assert kept == [1, 0]


def test_a_consumer_without_its_extra_is_one_sentence() -> None:
    """
    A task's environment has no library for databases, and may import a module that defines a consumer.
    """
    program = """
import sys
sys.modules["sqlalchemy"] = None
from dkist_processing_core import Consumer
consumer = Consumer("actor")
consumer.on("task.failed")(print)
try:
    consumer.run()
except ImportError as error:
    print(error)
"""

    ran = run_python(program, {})

    assert ran.stdout == (
        "a consumer keeps its inbox with the extra 'consumer', and there is no module 'sqlalchemy' here; "
        "install it with pip install 'dkist-processing-core[consumer]'\n"
    )


def test_events_of_other_names_leave_no_row(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    A pattern of names is a wider binding. Only what may contradict a wanted report is kept, as its key.
    """
    consumer = consumer_of()
    consumer.on("task.failed", workflow="l0_*")(lambda event, transaction: effects.take(transaction, event))
    bus.publish(
        failed("A", workflow_name="l0_x"),
        failed("B", workflow_name="l1_x"),
        finished("C", workflow_name="l0_x"),
        finished("D", workflow_name="l1_x"),
    )

    run(consumer)

    assert effects.events == ["A"]
    assert [task for state in ("done", "unwanted") for task, _, _ in effects.of_state(state)] == ["A", "C"]


def test_the_past_ends_on_a_bus_that_is_never_quiet(
    bus: InMemoryBus, effects: Effects, consumer_of: Callable[..., Consumer]
) -> None:
    """
    The consumer goes on with the events of its name, which the past contains as well.
    """
    consumer, published = consumer_of(), ["Task0"]

    @consumer.on("task.failed")
    def act(event: TaskFailed, transaction: Connection) -> None:
        effects.take(transaction, event)
        if len(published) < 100:
            published.append(f"Task{len(published)}")
            bus.publish(failed(published[-1]))

    bus.publish(failed("Task0"))
    run(consumer)

    assert effects.events == published


def test_past_events_beside_a_process_that_receives_are_left_with_an_error_and_taken_in_later(
    bus: InMemoryBus,
    effects: Effects,
    consumer_of: Callable[..., Consumer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    Among the events that the other process stores they would be out of order. A service takes them in when it receives.
    """
    first, second = consumer_of(), consumer_of()
    for consumer in (first, second):
        consumer.on("task.failed")(take(effects))
    bus.publish(failed("Past"))
    with closing(ConsumerService(first, bus, Database.open(effects.url, read_settings()))) as service:
        assert service.intake is not None
        service.intake.step(0.0)

        with pytest.raises(InboxError, match="the past events were not taken in; end that process"):
            run(second)
        thread = threading.Thread(target=lambda: second.run(since="first"))
        thread.start()
        wait_until(lambda: caplog.text.count("another process receives for the consumer 'actor'") == 2)
        assert effects.events == []
    wait_until(lambda: effects.events == ["Past"])
    second.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_a_long_wait_for_another_process_of_the_consumer_is_logged_once(
    bus: InMemoryBus,
    effects: Effects,
    consumer_of: Callable[..., Consumer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    On SQLite it does nothing meanwhile. A process that replaces another one waits for a moment, which is no message.
    """
    caplog.set_level(logging.INFO)
    first, second = consumer_of(), consumer_of()
    for consumer in (first, second):
        consumer.on("task.failed")(take(effects))
    with (
        closing(ConsumerService(first, bus, Database.open(effects.url, read_settings()))) as receiving,
        closing(ConsumerService(second, bus, Database.open(effects.url, read_settings()))) as waiting,
    ):
        assert receiving.intake is not None
        assert waiting.intake is not None
        receiving.intake.step(0.0)
        waiting.intake.step(0.0)
        before = caplog.text.count("another process")
        for seconds in (0.0, 10.0, 20.0):
            waiting.intake._remark_wait(time.monotonic() + seconds)

    assert before == 0
    assert [
        (each.levelname, each.getMessage()) for each in caplog.records if "another process" in each.getMessage()
    ] == [
        ("WARNING", "another process of the consumer 'actor' uses its inbox: this one waits for the end of it")
        if effects.url.startswith("sqlite")
        else ("INFO", "another process receives for the consumer 'actor': this one handles what it stores")
    ]


def take(effects: Effects) -> Callable[[Event, Connection], None]:
    """
    Return a handler that takes the effect of an event.
    """

    def act(event: Event, transaction: Connection) -> None:
        effects.take(transaction, event)

    return act


class SilentBus(InMemoryBus):
    """
    A bus that gives no answer until the test allows it.
    """

    def __init__(self) -> None:
        """
        Nothing was asked.
        """
        super().__init__()
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def archive_end(self, name: str, *, after: int | None = None) -> None:
        """
        Wait for the test.
        """
        self.is_asked.set()
        self.may_answer.wait(20)
        super().archive_end(name, after=after)


@pytest.mark.parametrize("effects", ["sqlite"], indirect=True)
def test_a_consumer_that_ends_names_a_bus_that_does_not_answer(
    consumer_of: Callable[..., Consumer], caplog: pytest.LogCaptureFixture
) -> None:
    """
    Otherwise its manager would kill it, and its log would not have the reason.
    """
    consumer = consumer_of()
    consumer.on("task.failed")(print)
    with SilentBus() as bus:
        thread = threading.Thread(target=consumer.run)
        thread.start()
        assert bus.is_asked.wait(20)
        consumer.stop()
        wait_until(lambda: f"the consumer 'actor' ends when {bus.where} or the inbox has answered" in caplog.text)
        bus.may_answer.set()
        thread.join(20)

    assert not thread.is_alive()
