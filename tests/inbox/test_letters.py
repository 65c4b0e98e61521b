"""
Dead letters: grouped by their kind of failure, retried with their history, archived, restored and discarded.
"""

from collections.abc import Callable

import pytest
from sqlalchemy import select

from dkist_processing_core.events import Event
from dkist_processing_core.inbox import Arrival, Database, DeadLetters, Inbox, Life
from dkist_processing_core.inbox.tables import CLEARED
from dkist_processing_core.inbox.tables import inbox as rows
from tests.facts import failed, finished
from tests.inbox.parts import Clock, arrival, dead_letter, failures

Open = Callable[..., Inbox]


@pytest.fixture
def letters(database: Database, clock: Clock) -> DeadLetters:
    """
    The dead letters of the database.
    """
    return DeadLetters(database, clock=clock)


def test_letters_are_grouped_by_consumer_and_kind_of_failure(inboxes: Open, letters: DeadLetters, clock: Clock) -> None:
    """
    An operator sees each problem once, with the number of its victims and its newest one.
    """
    inbox = inboxes(max_tries=1)
    inbox.store(failures(3))
    dead_letter(inbox, 2, KeyError("missing"))
    clock.now += 10
    last = dead_letter(inbox, 1, OSError("gone"))
    inboxes("other").store([Arrival(None, b"\xff", reason="the body is not JSON")])

    groups = letters.groups()

    assert [(group.consumer, group.count, group.newest.error_type) for group in groups] == [
        ("consumer", 1, "OSError"),
        ("other", 1, None),
        ("consumer", 2, "KeyError"),
    ]
    assert groups[0].newest.seq == last[0]
    assert (groups[2].first_failed_at, groups[2].last_failed_at) == (clock.now - 10, clock.now - 10)
    assert groups[1].newest.reason == "the body is not JSON"


def test_a_letter_has_the_event_and_the_failure(inboxes: Open, letters: DeadLetters, clock: Clock) -> None:
    """
    It shows what was to be handled, what happened and how often.
    """
    inbox = inboxes(max_tries=1)
    inbox.store([arrival(failed("A"))])
    (seq,) = dead_letter(inbox, 1, ValueError("no such\x00 table at https://user:hunter22@host/"))

    letter = letters.show(seq)

    assert letter is not None
    assert letter.event == failed("A")
    assert (letter.tries, letter.first_failed_at, letter.last_failed_at) == (1, clock.now, clock.now)
    assert letter.error_message == "no such\N{REPLACEMENT CHARACTER} table at https://[redacted]@host/"
    assert "ValueError" in (letter.stack or "")
    assert letters.show(seq + 1) is None


def test_raw_bytes_and_headers_of_an_undecodable_message_are_kept(inboxes: Open, letters: DeadLetters) -> None:
    """
    They show which publisher sent it.
    """
    inboxes().store([Arrival(None, b"\xff\x00", "text/plain", {"a": b"b", "n": [1]}, reason="the body is not JSON")])

    (letter,) = letters.list()

    assert (letter.body, letter.content_type, letter.headers) == (b"\xff\x00", "text/plain", {"a": "b", "n": [1]})
    assert letter.event is None


def test_a_group_is_retried_with_its_history(inboxes: Open, letters: DeadLetters, clock: Clock) -> None:
    """
    A retried row begins anew, and keeps how it failed before.
    """
    inbox = inboxes(max_tries=1)
    inbox.store(failures(3))
    dead_letter(inbox, 2, KeyError("missing"))
    dead_letter(inbox, 1, OSError("gone"))
    family = letters.groups()[1].family if letters.groups()[0].count == 1 else letters.groups()[0].family
    clock.now += 5

    retried = letters.retry(family=family)
    dead_letter(inbox, 9, OSError("gone"))

    assert retried == 2
    (group,) = letters.groups()
    assert group.count == 3
    (life,) = group.newest.history
    assert isinstance(life, Life)
    assert (life.error_type, life.tries, life.retried_at) == ("KeyError", 1, clock.now)


def test_an_undecodable_message_is_decoded_again_at_a_retry(inboxes: Open, letters: DeadLetters) -> None:
    """
    A newer release may know the event; this one does not, so it is dead again, and no handler sees it.
    """
    inbox = inboxes()
    inbox.store([Arrival(None, b"{}", reason="unknown")])

    letters.retry(every=True)

    assert letters.list() == []
    assert inbox.claim(9) == []
    (letter,) = letters.list()
    assert letter.reason == "the event's data is null, expected a JSON object"
    assert [life.reason for life in letter.history] == ["unknown"]


def test_archived_letters_are_out_of_the_list_until_restored(inboxes: Open, letters: DeadLetters) -> None:
    """
    An operator puts away what is known, and loses nothing.
    """
    inbox = inboxes(max_tries=1)
    inbox.store(failures(2))
    one, other = dead_letter(inbox, 2, KeyError("missing"))

    assert letters.archive(one) == 1
    assert [letter.seq for letter in letters.list()] == [other]
    assert [letter.seq for letter in letters.list(archived=True)] == [one]
    assert inbox.counts().archived == 1
    assert letters.restore(every=True) == 1
    assert {letter.seq for letter in letters.list()} == {one, other}


def test_a_discarded_letter_is_gone_and_its_repetition_is_known(inboxes: Open, letters: DeadLetters) -> None:
    """
    The same event does not come back.
    """
    inbox = inboxes(max_tries=1)
    inbox.store(failures(1))
    dead_letter(inbox, 1, KeyError("missing"))

    assert letters.discard(every=True) == 1
    assert letters.list() == letters.list(archived=True) == []
    assert inbox.store(failures(1)).new == 0
    assert inbox.next_due() is None


def test_letters_of_one_consumer_can_be_looked_at_alone(inboxes: Open, database: Database) -> None:
    """
    A command about one consumer does not change another's.
    """
    for name in ("one", "other"):
        inboxes(name).store([Arrival(None, b"\xff", reason="no event")])

    assert DeadLetters(database).consumers() == ["one", "other"]
    assert DeadLetters(database, "one").discard(every=True) == 1
    assert [letter.consumer for letter in DeadLetters(database).list()] == ["other"]


@pytest.mark.parametrize("selection", [{}, {"family": "a", "every": True}])
def test_a_change_needs_a_selection(letters: DeadLetters, selection: dict[str, object]) -> None:
    """
    A forgotten argument does not discard everything.
    """
    with pytest.raises(ValueError, match="expected numbers, or a family, or every=True"):
        letters.discard(**selection)  # type: ignore[arg-type]


def undecodable(event: Event) -> Arrival:
    """
    Return the message of an event that an earlier release could not decode.
    """
    return arrival(event)._replace(event=None, reason="unknown")


def test_the_effect_of_an_event_that_can_be_decoded_now_happens_once(inboxes: Open, letters: DeadLetters) -> None:
    """
    A retry after an update gives the row the key of its event; a row whose key is known is a repetition.
    """
    inbox = inboxes()
    inbox.store([undecodable(failed(task)) for task in "ABC"])
    inbox.store([arrival(failed("A"))])
    before = inbox.claim(9)
    letters.retry(every=True)
    rows = inbox.claim(9)
    inbox.mark_done([*before, *rows])

    again = inbox.store([arrival(failed(task)) for task in "ABC"])

    assert [row.event for row in before] == [failed("A")]
    assert [(row.seq, row.event) for row in rows] == [(2, failed("B")), (3, failed("C"))]
    assert (again.new, inbox.claim(9), letters.list()) == (0, [], [])


def test_an_event_that_can_be_decoded_now_has_its_place_in_its_run(inboxes: Open, letters: DeadLetters) -> None:
    """
    It is handled before later rows of its run, also while another run is busy, and keeps its history.
    """
    inbox = inboxes(ordered=True, max_tries=1)
    inbox.store([arrival(failed("A", run_id="busy"))])
    held = inbox.claim(9)
    inbox.store([undecodable(failed("A")), arrival(failed("B")), arrival(failed("C"))])
    letters.retry(every=True)

    (seq,) = dead_letter(inbox, 1, KeyError("missing"))
    held_up = inbox.claim(9)
    letter = letters.show(seq)
    letters.retry(seq)
    rows = inbox.claim(9)
    inbox.mark_done(rows)

    assert len(held) == 1
    assert held_up == []
    assert letter is not None
    assert (letter.event, [life.reason for life in letter.history]) == (failed("A"), ["unknown"])
    assert [row.seq for row in rows] == [seq] == [2]
    assert [row.seq for row in inbox.claim(9)] == [3, 4]


def test_a_firm_report_that_can_be_decoded_now_replaces_a_provisional_one(inboxes: Open, letters: DeadLetters) -> None:
    """
    As one that has just arrived.
    """
    inbox = inboxes()
    inbox.store([undecodable(failed("A", cause="out_of_memory")), undecodable(finished("B"))])
    inbox.store(
        [arrival(failed(task, cause="lost", reported_by="engine", provisional=True)) for task in ("A", "B", "C")]
    )

    letters.retry(every=True)

    assert [row.event for row in inbox.claim(9)] == [finished("B"), failed("A", cause="out_of_memory")]
    assert inbox.counts().waiting == 1


def test_messages_with_equal_bodies_and_other_attributes_are_separate_letters(
    inboxes: Open, letters: DeadLetters
) -> None:
    """
    In binary mode the headers hold the event's id; what a broker adds to them makes no difference.
    """
    messages = [
        Arrival(None, b"{}", "application/json", {"cloudEvents:id": number, **of_broker}, reason="no type")
        for number in "12"
        for of_broker in ({}, {"x-stream-offset": 7})
    ]

    stored = inboxes().store(messages)

    assert (stored.new, stored.repeated) == (2, 2)
    assert {letter.headers["cloudEvents:id"] for letter in letters.list()} == {"1", "2"}


@pytest.mark.parametrize("ordered", [False, True])
def test_retried_letters_and_new_events_do_not_hold_each_other_up(
    inboxes: Open, letters: DeadLetters, clock: Clock, *, ordered: bool
) -> None:
    """
    The new ones come first. While there are more than one claim takes, the two take turns, however slow the handler is.
    """
    inbox = inboxes(max_tries=1, ordered=ordered)
    inbox.store([arrival(failed("A", run_id=f"r{number}")) for number in range(8)])
    dead_letter(inbox, 8, KeyError("missing"))
    letters.retry(every=True)
    inbox.store([arrival(failed("B", run_id=f"s{number}")) for number in range(8)])
    first = inbox.claim(2)
    inbox.mark_done(first)
    claimed = []
    for _ in range(7):
        clock.now += 2
        rows = inbox.claim(2)
        inbox.mark_done(rows)
        claimed.append([row.seq for row in rows])

    assert [row.seq for row in first] == [9, 10]
    assert claimed == [[1, 2], [11, 12], [3, 4], [13, 14], [5, 6], [15, 16], [7, 8]]


@pytest.mark.parametrize("end", ["done", "done with others", "repeated", "cancelled", "discarded"])
def test_a_finished_row_keeps_its_key_without_its_message_and_its_failures(
    inboxes: Open, letters: DeadLetters, database: Database, end: str
) -> None:
    """
    A stack may have 32,000 characters, and a row is kept for a week.
    """
    inbox = inboxes(max_tries=2, first_pause=0.0, doubted=frozenset())
    event = failed("A", reported_by="engine", provisional=True)
    inbox.store([undecodable(event) if end == "repeated" else arrival(event)])
    if end == "repeated":
        inbox.store([arrival(event)])
        inbox.mark_done(inbox.claim(1))
    else:
        dead_letter(inbox, 1, KeyError("missing"))
        dead_letter(inbox, 1, KeyError("missing"))
        letters.retry(1)
        dead_letter(inbox, 1, KeyError("missing"))
    match end:
        case "done":
            inbox.mark_done(inbox.claim(1))
        case "done with others":
            inbox.store(failures(3, run_id="other"))
            inbox.mark_done(inbox.claim(9))
        case "repeated":
            letters.retry(1)
            assert inbox.claim(9) == []
        case "cancelled":
            inbox.store([arrival(finished("A"))])
        case _:
            dead_letter(inbox, 1, KeyError("missing"))
            letters.discard(1)

    with database.reading() as connection:
        row = connection.execute(select(rows).where(rows.c.seq == 1)).mappings().one()
    assert row["state"] == end.partition(" ")[0].replace("repeated", "done")
    assert row["key"]
    assert {name: row[name] for name in CLEARED if row[name] is not None} == {}
