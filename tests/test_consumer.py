"""
Behaviour of a subscription that is independent of the bus; the promises of both buses are in `tests.bus.contract`.
"""

import re
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import Selection, Subscription, subscribe
from dkist_processing_core.consumer._subscription import event_of
from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.consumer.since import moment_of
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import EVENT_CLASSES
from dkist_processing_core.journal.message import Message, Properties
from tests.facts import failed, finished, started
from tests.waiting import SECONDS


@pytest.fixture
def settings(state_dir: Path) -> DKISTProcessingCoreConfiguration:
    """
    Settings that name no broker.
    """
    return DKISTProcessingCoreConfiguration(dkist_core_state_dir=state_dir)


@pytest.fixture
def publisher(settings: DKISTProcessingCoreConfiguration) -> Iterator[Publisher]:
    """
    A publisher on the journal.
    """
    with Publisher.open(settings) as publisher:
        yield publisher


def test_an_error_that_decoding_does_not_expect_is_a_reason_like_any_other() -> None:
    """
    It does not end the consumer: the message is dead-lettered with it, as with a DecodeError.
    """
    impossible = Properties("m", "application/json", headers=5)  # type: ignore[arg-type]

    found = event_of(Message("x", "task.finished.W.A", b"{}", impossible))

    assert isinstance(found, AttributeError)
    assert str(found) == "'int' object has no attribute 'items'"


def append_nonsense(publisher: Publisher, count: int) -> None:
    """
    Put messages on the bus that are no events.
    """
    exchange = publisher.bus.event_exchange
    publisher._shelf.append(
        [
            Message(exchange, f"task.started.W.A{number}", b"?", Properties(f"m{number}", "application/json"))
            for number in range(count)
        ]
    )


def logged_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """
    Return the log lines up to the reason, which the codec words.
    """
    return [record.getMessage().partition(": the body")[0] for record in caplog.records]


def test_a_replay_reports_the_messages_that_are_no_events_in_one_line(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Such messages stay on the bus for a week, and each read of it meets them again.
    """
    append_nonsense(publisher, 3)
    publisher.publish(finished("A"))

    assert list(replayed(settings)) == [finished("A")]
    assert logged_in(caplog) == ["3 messages are no events and were passed over: first 'm0'"]


def test_a_running_subscription_reports_the_first_message_that_is_no_event_at_once(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    """
    All are counted at its end.
    """
    with subscribe(settings=settings, name="strict", timeout=SECONDS) as subscription:
        append_nonsense(publisher, 2)
        publisher.publish(finished("A"))
        assert next(subscription) == finished("A")
        early = logged_in(caplog)

    assert early == ["1 message is no event and was put among the dead letters: 'm0'"]
    assert logged_in(caplog)[1:] == ["2 messages are no events and were put among the dead letters: first 'm0'"]


def test_a_subscription_of_another_thread_goes_on(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher
) -> None:
    """
    A name may be shared by threads: only in its own thread is a subscription known to be abandoned.
    """
    opened: list[Subscription] = []
    with subscribe(settings=settings, name="shared", timeout=SECONDS) as mine:
        thread = threading.Thread(target=lambda: opened.append(subscribe(settings=settings, name="shared")))
        thread.start()
        thread.join()
        publisher.publish(started("A"))

        assert started("A") == next(mine)
    opened[0].close()


def test_a_timeout_of_nothing_reads_to_the_end(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher
) -> None:
    """
    Existing events are yielded without waiting.
    """
    publisher.publish(started("A"), finished("A"))

    with subscribe(settings=settings, replay=True, timeout=0.0) as subscription:
        assert list(subscription) == [started("A"), finished("A")]
        assert list(subscription) == []


PROVISIONAL = {"reported_by": "engine", "provisional": True, "final": None}


@pytest.mark.parametrize(
    ("arriving", "yielded"),
    [
        ([PROVISIONAL, {}], [PROVISIONAL, {}]),
        ([{}, PROVISIONAL], [{}]),
        ([PROVISIONAL, PROVISIONAL, {}, {}, PROVISIONAL], [PROVISIONAL, {}]),
        ([PROVISIONAL, {}, {"reported_by": "launcher"}], [PROVISIONAL, {}]),
    ],
)
def test_a_firm_report_after_a_provisional_one_is_yielded_as_well(
    settings: DKISTProcessingCoreConfiguration,
    publisher: Publisher,
    arriving: list[dict[str, object]],
    yielded: list[dict[str, object]],
) -> None:
    """
    It has what the other one lacks, such as whether the failure is final; an occurrence is yielded twice at most.
    """
    publisher.publish(*[failed("A", **facts) for facts in arriving])

    with subscribe("task.failed", settings=settings, replay=True, timeout=0.0) as subscription:
        assert list(subscription) == [failed("A", **facts) for facts in yielded]


def test_a_subscription_that_hears_nothing_for_long_keeps_its_place(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    Listening is use: pruning removes only the names that no process uses.
    """
    with subscribe("task.failed", name="patient", timeout=0.05, settings=settings) as listening:
        with open_bus(settings).open_journal() as journal:
            journal._connection.execute("UPDATE subscription SET used = 0")
        assert list(listening) == []

        with open_bus(settings).open_journal() as journal:
            (used,) = journal._connection.execute("SELECT used FROM subscription").fetchone()
        assert used > 0


@pytest.mark.parametrize(
    ("zone", "local", "fold", "utc"),
    [
        # The hour that a clock in Berlin shows twice: `fold` distinguishes them, by PEP 495.
        ("Europe/Berlin", "2026-10-25T02:30", 0, "2026-10-25T00:30"),
        ("Europe/Berlin", "2026-10-25T02:30", 1, "2026-10-25T01:30"),
        # The event that it leaves out: by the offset of before, or with `fold` of after.
        ("Europe/Berlin", "2026-03-29T02:30", 0, "2026-03-29T01:30"),
        ("Europe/Berlin", "2026-03-29T02:30", 1, "2026-03-29T00:30"),
        ("Europe/Berlin", "2026-07-01T02:30", 0, "2026-07-01T00:30"),
        ("Pacific/Honolulu", "2026-10-25T02:30", 0, "2026-10-25T12:30"),
        ("Asia/Tokyo", "2026-10-25T02:30", 1, "2026-10-24T17:30"),
        ("UTC", "2026-10-25T02:30", 0, "2026-10-25T02:30"),
    ],
)
def test_a_local_time_is_one_instant_also_where_clocks_change(
    settings: DKISTProcessingCoreConfiguration,
    publisher: Publisher,
    local_zone: Callable[[str], None],
    zone: str,
    local: str,
    fold: int,
    utc: str,
) -> None:
    """
    A replay from it yields events that reached the bus at that time, and not those of a microsecond before.
    """
    local_zone(zone)
    instant, since = datetime.fromisoformat(f"{utc}Z"), datetime.fromisoformat(local).replace(fold=fold)
    at, before = finished("A", time=instant), started("A", time=instant - timedelta(microseconds=1))
    publisher.publish(before, at)
    with open_bus(settings).open_journal() as journal:
        for seq, event in enumerate([before, at], start=1):
            journal.write("UPDATE message SET appended = ? WHERE seq = ?", event.time.timestamp(), seq)

    assert [at] == list(subscribe(settings=settings, replay=since, timeout=0.0))


def test_a_replay_from_a_time_begins_with_the_first_row_since_then(
    settings: DKISTProcessingCoreConfiguration, publisher: Publisher
) -> None:
    """
    This holds if the rows behind it have earlier times: after a clock was set back, or from a spare file.
    """
    publisher.publish(started("A"), started("B"), finished("B"), finished("A"))
    with open_bus(settings).open_journal() as journal:
        for seq, minutes in enumerate([50, 10, 40, 0], start=1):
            journal.write("UPDATE message SET appended = appended - 60 * ? WHERE seq = ?", minutes, seq)

    since = datetime.now(UTC) - timedelta(minutes=20)

    assert [started("B"), finished("B"), finished("A")] == list(subscribe(settings=settings, replay=since, timeout=0.0))


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Pacific/Honolulu", "UTC", "Europe/Berlin"])
def test_an_event_s_own_time_needs_a_zone(local_zone: Callable[[str], None], zone: str) -> None:
    """
    It goes to other hosts, which do not know the local zone.
    """
    local_zone(zone)

    with pytest.raises(ValueError, match="time: expected a time with its zone"):
        started("A", time=datetime.fromisoformat("2026-10-25T02:30"))


@pytest.mark.parametrize(
    ("selection", "patterns"),
    [
        (Selection(), ("*.*.*.#",)),
        (Selection(("task.failed",), "l0_to_l1_*"), ("task.failed.*.#",)),
        (Selection(("task.*",), "W", "Parse?"), ("task.*.W.*",)),
        (Selection(("task.f*",), "W"), ("task.finished.W.#", "task.failed.W.#")),
        (Selection(("*",), "a.b"), tuple(f"{each.name}.a-b.#" for each in EVENT_CLASSES)),
    ],
)
def test_patterns_of_names_become_bindings_where_a_broker_can_compare(
    selection: Selection, patterns: tuple[str, ...]
) -> None:
    """
    A broker compares whole words: for a part of a name the binding takes all, and the consumer compares again.
    """
    assert set(selection.patterns) == set(patterns)


def test_only_events_of_matching_names_arrive(settings: DKISTProcessingCoreConfiguration, publisher: Publisher) -> None:
    """
    `*` and `?` stand for text in names of events, workflows and tasks; other characters stand for themselves.
    """
    wanted = [failed("Parse1", workflow_name="l0_visp"), finished("Parse[", workflow_name="l0_visp")]
    others = [
        started("Parse1", workflow_name="l0_visp"),
        failed("Parse12", workflow_name="l0_visp"),
        failed("Parse1", workflow_name="l1_visp"),
    ]
    publisher.publish(*others, *wanted)

    found = subscribe("task.f*", workflow="l0_*", task="Parse?", since="first", timeout=0.0, settings=settings)

    assert list(found) == wanted


@pytest.mark.parametrize(
    ("since", "ago"),
    [
        ("30m", timedelta(minutes=30)),
        ("2H", timedelta(hours=2)),
        (" 7d ", timedelta(days=7)),
        ("0s", timedelta()),
        (timedelta(minutes=5), timedelta(minutes=5)),
    ],
)
def test_a_duration_counts_back_from_now(since: str | timedelta, ago: timedelta) -> None:
    """
    So that `2h` means the last two hours.
    """
    before = datetime.now(UTC)
    moment = moment_of(since)
    after = datetime.now(UTC)

    assert moment is not None
    assert before <= moment + ago <= after


def test_a_moment_may_be_a_time_midnight_or_the_first_event(local_zone: Callable[[str], None]) -> None:
    """
    A time without a zone is local, and nothing is older than the first event.
    """
    local_zone("Pacific/Honolulu")

    assert moment_of("2026-11-22T09:00") == datetime(2026, 11, 22, 19, tzinfo=UTC)
    assert moment_of("2026-11-22 09:00z") == datetime(2026, 11, 22, 9, tzinfo=UTC)
    assert moment_of("2026-11-22") == datetime(2026, 11, 22, 10, tzinfo=UTC)
    midnight = moment_of("today")
    assert midnight is not None
    assert midnight.hour == 10
    assert [moment_of(each) for each in ("first", "FIRST", "999999999d", "1901-01-01")] == [None] * 4


@pytest.mark.parametrize("since", ["", "soon", "2w", "1.5h", "-1h", "2026-13-01", 5])
def test_what_is_no_moment_is_refused_with_the_forms(settings: DKISTProcessingCoreConfiguration, since: object) -> None:
    """
    The message names all of them.
    """
    with pytest.raises(ValueError, match=f"found {re.escape(repr(since))}, expected a number followed by .* or first"):
        subscribe(since=since, settings=settings)  # type: ignore[arg-type]


def test_a_start_is_given_once(settings: DKISTProcessingCoreConfiguration) -> None:
    """
    `since` and `replay` mean the same.
    """
    with pytest.raises(ValueError, match="found replay=True and since='2h', expected one of them"):
        subscribe(replay=True, since="2h", settings=settings)
