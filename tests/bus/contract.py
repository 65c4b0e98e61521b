"""
The promises of each bus, as one suite: `test_journal.py`, `test_amqp.py` and `test_in_memory.py` run it on their bus.

Not here: behaviour of only one of them.
"""

import itertools
import logging
import os
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from msgspec.structs import replace

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import Subscription, subscribe
from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.errors import BusError
from dkist_processing_core.events import RecipeRunFailureMessage
from dkist_processing_core.journal.message import Message, Properties, to_message
from tests.facts import failed, finished, progressed, started
from tests.running import status_of_fork

SECONDS = 100.0
"""Timeout for an event that must arrive."""
QUIET_SECONDS = 0.3
"""How long to wait to show that no event arrives."""


class BusContract:
    """
    The promises; a subclass provides the fixture `settings` of its bus.
    """

    @pytest.fixture
    def publisher(self, settings: DKISTProcessingCoreConfiguration) -> Publisher:
        """
        A publisher on the bus.
        """
        return Publisher.open(settings)

    @pytest.fixture
    def listen(
        self, settings: DKISTProcessingCoreConfiguration, request: pytest.FixtureRequest
    ) -> Callable[..., Subscription]:
        """
        A function like `subscribe`, whose subscriptions end with the test.
        """

        def listen(*names: str, timeout: float = SECONDS, **options: object) -> Subscription:
            subscription = subscribe(*names, settings=settings, timeout=timeout, **options)  # type: ignore[arg-type]
            request.addfinalizer(subscription.close)
            return subscription

        return listen

    @pytest.fixture(autouse=True)
    def _closing(self, publisher: Publisher) -> object:
        yield
        publisher.close(SECONDS)

    def test_events_arrive_as_they_were_published_in_order(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        Events published after `subscribe` returned are received, equal and in order.
        """
        events = [started("A"), progressed("A", 0), progressed("A", 1), finished("A"), failed("B")]
        subscription = listen()

        for event in events:
            publisher.publish(event)

        assert events == [next(subscription) for _ in events]

    def test_a_publisher_is_done_when_the_bus_has_everything(self, publisher: Publisher) -> None:
        """
        `flush` returns True if the bus has all events given to `publish`.
        """
        publisher.publish(*[progressed("A", number) for number in range(300)])

        assert publisher.flush(SECONDS)
        assert not publisher.is_pending

    def test_only_the_selected_events_arrive(self, publisher: Publisher, listen: Callable[..., Subscription]) -> None:
        """
        Type, workflow and task each narrow the received events.
        """
        wanted = failed("A.1")
        subscription = listen("task.failed", workflow="W", task="A.1")

        publisher.publish(finished("A.1"), failed("A-1"), failed("A.1", workflow_name="V"), started("A.1"), wanted)

        assert wanted == next(subscription)

    def test_a_name_too_long_for_a_routing_key_still_selects_exactly(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        Names over 100 bytes are cut in the routing key, and compared in full after matching.
        """
        name = "é" * 80
        subscription = listen(task=name)

        publisher.publish(failed(f"{name}x"), failed(name))

        assert failed(name).id == next(subscription).id

    def test_a_fact_is_yielded_once_however_many_report_it(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        Events are deduplicated by id; a subscriber can request every report instead.
        """
        by_task, by_engine = failed("A"), failed("A", reported_by="engine", provisional=True)
        once, each = listen(), listen(every_report=True)

        publisher.publish(by_task, by_task, by_engine, finished("B"))

        assert [by_task, finished("B")] == [next(once), next(once)]
        assert [by_task, by_task, by_engine, finished("B")] == [next(each) for _ in range(4)]

    def test_a_named_subscription_remembers_its_place(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        Events published while no process subscribes under a name are delivered later; acknowledged ones are not
        repeated.
        """
        first = listen(name="operators")
        publisher.publish(started("A"), finished("A"))
        assert started("A") == next(first)
        assert finished("A") == next(first)
        next(iter(listen(timeout=QUIET_SECONDS)), None)
        first.close()

        publisher.publish(started("B"))
        second = listen(name="operators")

        # The request for the second event acknowledged the first one; the second one stayed in hand.
        assert [finished("A"), started("B")] == [next(second), next(second)]

    def test_the_event_in_hand_comes_again_unless_it_was_acknowledged(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        Leaving the loop leaves the event in hand unacknowledged, but not after its `ack()`.
        """
        with listen(name="effects") as subscription:
            publisher.publish(started("A"), started("B"))
            for event in subscription:
                event.ack()
                break

        with listen(name="effects") as subscription:
            for event in subscription:
                in_hand = event
                break

        with listen(name="effects") as subscription:
            again = next(subscription)

        assert started("B") == in_hand
        assert started("B") == again

    def test_leaving_a_loop_ends_its_subscription(
        self, settings: DKISTProcessingCoreConfiguration, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        The next loop of that name continues where this one ended, even if events of the earlier loop are still held.
        """
        listen(name="cells").close()
        events = [progressed("A", number) for number in range(30)]
        publisher.publish(*events)

        held = []
        for event in subscribe(settings=settings, name="cells", timeout=SECONDS):
            held.append(event)
            break
        for again in subscribe(settings=settings, name="cells", timeout=SECONDS):
            again.ack()
            break
        rest = list(itertools.islice(subscribe(settings=settings, name="cells", timeout=SECONDS), 29))

        assert [*held, again] == [events[0], events[0]]
        assert events[1:] == rest

    def test_a_thread_has_one_subscription_of_a_name(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        An abandoned one that is still referenced, as by a notebook's last traceback, holds no event back.
        """
        abandoned = listen(name="cells")
        publisher.publish(started("A"), started("B"))
        assert started("A") == next(abandoned)

        second = listen(name="cells")

        assert [started("A"), started("B")] == [next(second), next(second)]
        assert list(abandoned) == []

    def test_after_its_end_a_subscription_has_no_effect(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        `ack()` of its events has no effect, and there is no next event.
        """
        subscription = listen(name="ended")
        publisher.publish(started("A"))
        event = next(subscription)

        subscription.close()
        event.ack()

        assert list(subscription) == []
        assert event == next(listen(name="ended"))

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"name": ""}, "expected one or more printable characters"),
            ({"name": "a\x00b"}, "expected one or more printable characters"),
            ({"name": "é" * 126}, "expected at most 251 bytes"),
            ({"name": "recipe.run.failure.q"}, "expected another name: this queue has its own use"),
            ({"name": "workflow.events.archive.q"}, "expected another name: this queue has its own use"),
            ({"name": "operators.dlq"}, r"expected a name that does not begin with 'amq\.' or end with '\.dlq'"),
            ({"name": "amq.operators"}, r"expected a name that does not begin with 'amq\.' or end with '\.dlq'"),
            ({"name": "operators", "replay": True}, "use only one of them"),
        ],
    )
    def test_a_name_that_no_queue_can_have_is_refused(
        self, listen: Callable[..., Subscription], options: dict[str, object], expected: str
    ) -> None:
        """
        Both buses accept the same names.
        """
        with pytest.raises(ValueError, match=f"^the subscription's name is .*{expected}"):
            listen(**options)

    def test_the_longest_name_is_taken(self, publisher: Publisher, listen: Callable[..., Subscription]) -> None:
        """
        Its length leaves enough bytes for the name of its queue of dead letters.
        """
        subscription = listen(name="é" * 125)
        publisher.publish(started("A"))

        assert started("A") == next(subscription)

    def test_subscriptions_do_not_take_from_each_other(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        Every subscription gets every event that it selects.
        """
        subscriptions = [listen(), listen(), listen(name="one"), listen(name="two")]

        publisher.publish(started("A"))

        assert [started("A")] * 4 == [next(subscription) for subscription in subscriptions]

    def test_a_subscription_begins_now_and_a_replay_at_the_beginning(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        Without a name, earlier events are only received by a replay.
        """
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)

        live, replay = listen(), listen(replay=True)
        publisher.publish(finished("A"))

        assert finished("A") == next(live)
        assert [started("A"), finished("A")] == [next(replay), next(replay)]

    def test_a_replay_has_all_there_was_however_short_its_timeout(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        Silence is measured from the end of the archive: with a timeout of 0 a replay yields exactly the existing
        events.
        """
        assert list(listen(replay=True, timeout=0.0)) == []
        publisher.publish(finished("A"), *[progressed("A", number) for number in range(400)], finished("B"))
        assert publisher.flush(SECONDS)

        assert list(listen("task.finished", replay=True, timeout=0.0)) == [finished("A"), finished("B")]
        assert len(list(listen(replay=True, timeout=0.0))) == 402
        assert list(listen(replay=datetime.now(UTC) + timedelta(hours=1), timeout=0.0)) == []

    def test_what_comes_while_the_past_is_read_is_not_of_it(
        self, settings: DKISTProcessingCoreConfiguration, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        So a replay also ends on a bus that is never quiet; a subscription without replay has no past.
        """
        past = [progressed("A", number) for number in range(3)]
        publisher.publish(*past)
        assert publisher.flush(SECONDS)
        replay = listen(replay=True)

        read = []
        for event in replayed(settings):
            read.append(event)
            publisher.publish(progressed("B", len(read)))
            assert publisher.flush(SECONDS)

        assert read == past
        assert [(next(replay), replay.has_caught_up) for _ in range(5)] == [
            *[(event, False) for event in past],
            (progressed("B", 1), True),
            (progressed("B", 2), True),
        ]
        assert listen().has_caught_up

    def test_a_replay_from_a_time_has_all_that_came_since(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        It may include slightly older ones, since clocks differ and RabbitMQ keeps its stream in chunks.
        """
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        since = datetime.now(UTC)
        publisher.publish(finished("A"))

        assert finished("A") in itertools.islice(listen(replay=since), 2)

    def test_a_batch_is_acknowledged_by_its_last_message(
        self, settings: DKISTProcessingCoreConfiguration, publisher: Publisher
    ) -> None:
        """
        Batches continue each other in order. What was not acknowledged is delivered again.
        """
        events = [progressed("A", number) for number in range(700)]
        bus = open_bus(settings)
        bus.subscribe(("#",), name="store", in_batches=True).close()
        publisher.publish(*events)
        assert publisher.flush(SECONDS)

        with bus.subscribe(("#",), name="store", in_batches=True) as receiver:
            stored: list[str] = []
            while len(stored) < 300:
                batch = receiver.receive_batch(300 - len(stored), SECONDS)
                stored += [received.message.properties.message_id for received in batch]
            batch[-1].acknowledge(SECONDS, with_earlier=True)
            assert receiver.receive_batch(50, SECONDS)
        with bus.subscribe(("#",), name="store", in_batches=True) as receiver:
            while batch := receiver.receive_batch(1000, 0.0 if len(stored) == len(events) else SECONDS):
                stored += [received.message.properties.message_id for received in batch]

        assert stored == [event.id for event in events]

    def test_a_batch_of_nothing_waits_for_its_timeout_alone(self, settings: DKISTProcessingCoreConfiguration) -> None:
        """
        A quiet bus returns an empty batch.
        """
        with open_bus(settings).subscribe(("#",), name="store", in_batches=True) as receiver:
            assert list(receiver.receive_batch(10, QUIET_SECONDS)) == []

    def test_past_messages_are_read_backwards(
        self, settings: DKISTProcessingCoreConfiguration, publisher: Publisher
    ) -> None:
        """
        They come in batches that cover everything without a gap, and later messages are not included.
        """
        told = [progressed("A", number) for number in range(900)]
        bus = open_bus(settings)
        assert list(itertools.chain(*bus.read_back(("#",)))) == []

        publisher.publish(started("A"), *told)
        assert publisher.flush(SECONDS)
        batches = bus.read_back(("task.progressed.#",))
        read = [next(batches)]
        publisher.publish(progressed("A", 900), finished("A"))
        assert publisher.flush(SECONDS)
        read += batches

        assert [message.properties.message_id for batch in reversed(read) for message in batch] == [
            event.id for event in told
        ]
        (last,) = itertools.chain(*bus.read_back(("task.finished.#",)))
        assert last.properties.message_id == finished("A").id

    def test_past_messages_are_read_backwards_to_a_time(
        self, settings: DKISTProcessingCoreConfiguration, publisher: Publisher
    ) -> None:
        """
        They include all that reached the bus at the time or later.
        """
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)
        since = datetime.now(UTC)
        publisher.publish(finished("A"))
        assert publisher.flush(SECONDS)

        read = list(itertools.chain(*open_bus(settings).read_back(("#",), since=since)))
        later = list(itertools.chain(*open_bus(settings).read_back(("#",), since=since + timedelta(hours=1))))

        assert finished("A").id in [message.properties.message_id for message in read]
        assert started("A").id not in [message.properties.message_id for message in later]

    def test_a_message_that_is_no_event_is_passed_over(
        self, settings: DKISTProcessingCoreConfiguration, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        A consumer goes on after a message that it cannot read.
        """
        good = to_message(finished("A"), settings.isb_event_exchange)
        bad = replace(good, body=b"\xff{")
        strange = Message(good.exchange, "task.finished.W.A", b"[]", Properties("", "text/plain"))
        named, unnamed = listen(name="strict"), listen()

        publisher._shelf.append([bad, strange, good])
        publisher._wake()

        assert finished("A") == next(named)
        assert finished("A") == next(unnamed)

    def test_an_event_of_a_type_that_a_later_release_adds_is_passed_over(
        self,
        settings: DKISTProcessingCoreConfiguration,
        publisher: Publisher,
        listen: Callable[..., Subscription],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """
        It is acknowledged and counted. Otherwise it would fill the dead letters of every older consumer.
        """
        known = to_message(finished("A"), settings.isb_event_exchange)
        later = replace(known, body=known.body.replace(b"task.finished", b"task.applauded"))
        subscription = listen(name="older")

        publisher._shelf.append([later, later, known])
        publisher._wake()

        assert finished("A") == next(subscription)
        assert subscription.unknown == 2
        (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert line.startswith("events of types that this release does not know are skipped; the first: type is ")

    def test_the_failure_message_is_not_shown_to_event_subscribers(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        It travels through the same journal, to a separate exchange.
        """
        subscription = listen()

        publisher.publish_failure(
            RecipeRunFailureMessage(workflow_name="W", workflow_version="1", task_name="A", dag_run_id="r")
        )
        publisher.publish(finished("A"))

        assert finished("A") == next(subscription)

    def test_a_failure_message_is_sent_once_by_one_host(
        self, settings: DKISTProcessingCoreConfiguration, publisher: Publisher
    ) -> None:
        """
        Its id is derived from run and task, and this host remembers the ids that it has sent.
        """
        message = RecipeRunFailureMessage(workflow_name="W", workflow_version="1", task_name="A", dag_run_id="r")

        publisher.publish_failure(message)
        with Publisher.open(settings) as another:
            another.publish_failure(message)

        assert publisher.flush(SECONDS)
        with publisher.bus.open_journal() as journal:
            assert journal.books().published == 1

    def test_an_unknown_event_name_is_refused(self, listen: Callable[..., Subscription]) -> None:
        """
        A subscription that could never receive anything is an error of its author.
        """
        with pytest.raises(ValueError, match=r"there is no event 'task\.exploded'; expected one of workflow\.started"):
            listen("task.exploded")

    @pytest.mark.parametrize("name", [None, "forking"])
    def test_a_fork_ends_without_touching_its_parent_s_subscription(
        self, publisher: Publisher, listen: Callable[..., Subscription], name: str | None
    ) -> None:
        """
        Whatever the threads of its parent were doing, it waits for none of them; the subscription goes on.
        """
        events = [progressed("A", number) for number in range(40)]
        subscription = listen(name=name)
        publisher.publish(*events)

        def end() -> None:
            # At the end of the loop, and in the finalizer at exit.
            subscription.close()
            subscription._receiver.close()

        received, statuses = [], set()
        for event in itertools.islice(subscription, len(events)):
            received.append(event)
            statuses.add(status_of_fork(end))
        publisher.publish(finished("A"))

        assert statuses == {0}
        assert [*events, finished("A")] == [*received, next(subscription)]

    def test_a_fork_that_uses_its_parent_s_subscription_gets_one_clear_error(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        It names both processes and the remedy; nothing is acknowledged, and the parent goes on.
        """
        subscription = listen(name="forking")
        publisher.publish(started("A"), finished("A"))
        event = next(subscription)

        def use() -> None:
            expected = rf"^the subscription belongs to process {os.getppid()}, .* found process {os.getpid()}, a fork"
            for _ in range(2):
                with pytest.raises(BusError, match=expected):
                    next(subscription)
            with pytest.raises(BusError, match=expected):
                event.ack()

        assert status_of_fork(use) == 0
        subscription.close()
        again = listen(name="forking")
        assert [started("A"), finished("A")] == [next(again), next(again)]

    def test_a_fork_subscribes_for_itself(
        self, settings: DKISTProcessingCoreConfiguration, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        It may use the name of its parent's subscription, which does not end that one.
        """
        subscription = listen(name="forking")

        def use() -> None:
            with subscribe(settings=settings, name="forking", timeout=0.0) as own:
                assert list(own) == []

        assert status_of_fork(use) == 0
        publisher.publish(started("A"))
        assert started("A") == next(subscription)

    @pytest.mark.parametrize("zone", ["Asia/Tokyo", "Pacific/Honolulu", "UTC", "Europe/Berlin"])
    def test_a_replay_from_a_time_without_a_zone_begins_there_in_local_time(
        self, publisher: Publisher, listen: Callable[..., Subscription], local_zone: Callable[[str], None], zone: str
    ) -> None:
        """
        Events that reached the bus before that time are left out, later ones are not, in any time zone of the process.
        """
        local_zone(zone)
        since = datetime.now()  # noqa: DTZ005 - that is the point
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)

        assert [started("A")] == list(listen(replay=since, timeout=0.0))
        assert [started("A")] == list(listen(replay=since.astimezone(), timeout=0.0))
        assert list(listen(replay=since + timedelta(hours=1), timeout=0.0)) == []
        assert list(listen(replay=since.astimezone() + timedelta(hours=1), timeout=0.0)) == []

    def test_a_replay_from_a_time_has_what_reached_the_bus_since_whatever_its_own_time_and_order(
        self, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        Events of several hosts, and those of an outbox, arrive late, between current ones.
        """
        instant = datetime.now(UTC)
        moments = [timedelta(seconds=seconds) for seconds in (-2, -60, -1e-6, 0.05, -2, -1800)]
        events = [progressed("A", number, time=instant + each) for number, each in enumerate(moments)]
        for event in events:
            publisher.publish(event)
        assert publisher.flush(SECONDS)

        assert events == list(listen(replay=instant, timeout=0.0))

    @pytest.mark.parametrize("zone", ["Asia/Tokyo", "Pacific/Honolulu"])
    def test_a_replay_may_begin_at_either_end_of_the_calendar(
        self, publisher: Publisher, listen: Callable[..., Subscription], local_zone: Callable[[str], None], zone: str
    ) -> None:
        """
        In some time zones such a time has no equivalent in UTC.
        """
        local_zone(zone)
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)

        for text in ("0001-01-01T00:00", "0001-01-01T00:00Z", "1969-12-31T00:00Z"):
            assert [started("A")] == list(listen(replay=datetime.fromisoformat(text), timeout=0.0))
        assert list(listen(replay=datetime.fromisoformat("9999-12-31T23:59:59"), timeout=0.0)) == []

    @pytest.mark.parametrize("replay", ["2026-11-22", date(2026, 11, 22), timedelta(minutes=1), 60])
    def test_a_replay_from_what_is_no_time_is_refused(
        self, listen: Callable[..., Subscription], replay: object
    ) -> None:
        """
        Otherwise it would begin with the oldest event, without a message.
        """
        with pytest.raises(
            ValueError, match=f"^replay is {re.escape(repr(replay))}, expected True, False or a datetim"
        ):
            listen(replay=replay)


class SharedBusContract(BusContract):
    """
    The promises of a bus that several processes share, in addition.
    """

    def test_an_acknowledgement_outlives_its_process(
        self, settings: DKISTProcessingCoreConfiguration, publisher: Publisher, listen: Callable[..., Subscription]
    ) -> None:
        """
        When `ack()` returns, the bus has the acknowledgement, even if the process ends at that moment.
        """
        listen(name="scripts").close()
        events = [progressed("A", number) for number in range(3)]
        publisher.publish(*events, started("B"))
        assert publisher.flush(SECONDS)

        for event in events:
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    received = next(subscription := subscribe(settings=settings, name="scripts", timeout=SECONDS))
                    received.ack()
                    status = 0 if received == event and subscription else 2
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0

        assert started("B") == next(listen(name="scripts"))

    def test_a_fork_publishes_for_itself(self, publisher: Publisher, listen: Callable[..., Subscription]) -> None:
        """
        A publisher created before a fork works in the child, with a separate connection and journal handle.
        """
        subscription = listen()
        publisher.publish(started("A"))
        assert publisher.flush(SECONDS)

        child = os.fork()
        if child == 0:
            status = 1
            try:
                publisher.publish(started("B"))
                status = 0 if publisher.flush(SECONDS) else 2
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        publisher.publish(finished("A"))

        assert status == 0
        assert [started("A"), started("B"), finished("A")] == [next(subscription) for _ in range(3)]
