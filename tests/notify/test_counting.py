"""
The counting in its database: each event once, with what the store of runs knows.

Not here: a storm (test_storm), and the rules of the groups (test_grouping).
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import select, update

from dkist_processing_core.cli.dead_letters.texts import message_of
from dkist_processing_core.collect.store import Store
from dkist_processing_core.errors import GiveUpError, RetryLaterError
from dkist_processing_core.events import (
    MAX_ENCODED_BYTES,
    Event,
    TaskOverdue,
    WorkflowFailed,
    WorkflowOverdue,
    WorkflowStarted,
    encode,
)
from dkist_processing_core.events.notice import NoticeIssued, decode_notice
from dkist_processing_core.inbox import Database, DeadLetters, Inbox, Rules
from dkist_processing_core.inbox.tables import inbox
from dkist_processing_core.notify.counting import Counting
from dkist_processing_core.notify.mutes import mute, mutes_at, unmute
from dkist_processing_core.notify.occurrences import COUNTED, occurrence_of
from dkist_processing_core.notify.routes import Route
from dkist_processing_core.notify.tables import OCCURRENCES, ROUTES
from dkist_processing_core.settings.reading import read_settings
from tests.facts import NOON, failed, finished, make, started
from tests.inbox.parts import Clock
from tests.notify.samples import HOSTILE

if TYPE_CHECKING:
    from dkist_processing_core.dead_letters import DeadLetter

WAITS = (
    "another process counts notices for other routes: expected the same file of routes in each; this process counts "
    "nothing until 30 s after the end of the other"
)
COMMAND = {"argv": ["true"]}
OVERDUE: dict[str, Any] = {"reported_by": "watcher", "limit_seconds": 90.0, "exceeded": "silence"}


class Counted:
    """
    The counting of routes, and the notices that they have issued.
    """

    def __init__(self, database: Database, **routes: dict[str, Any]) -> None:
        """
        Open it, with a clock that the test moves.
        """
        self.clock, self.database = Clock(), database
        # The store takes no event for later than its receipt.
        self.clock.now = NOON.timestamp() + 7200
        checked = {name: Route.model_validate({"command": COMMAND} | facts) for name, facts in routes.items()}
        self.counting = Counting(read_settings(), checked, clock=self.clock)
        self._store = Store(clock=self.clock)

    def after(self, seconds: float, *events: Event, stored: Sequence[Event] = ()) -> list[NoticeIssued]:
        """
        Return the notices that are issued when events arrive after a time; some are in the store of runs.
        """
        self.clock.now += seconds
        before = self._newest
        with self.database.transaction() as transaction:
            for event in stored:
                self._store.add(transaction, event)
            self._store.fold(transaction, 1000)
        with self.database.transaction() as transaction:
            for event in events:
                self.counting.add(transaction, event)
        with self.database.transaction() as transaction:
            self.counting.fold(transaction)
        with self.database.reading() as connection:
            query = select(inbox.c.body).where(inbox.c.seq > before).order_by(inbox.c.seq)
            return [decode_notice(body) for body in connection.scalars(query)]

    @property
    def _newest(self) -> int:
        with self.database.reading() as connection:
            return connection.scalar(select(inbox.c.seq).order_by(inbox.c.seq.desc()).limit(1)) or 0


@pytest.fixture
def database(database: Database) -> Database:
    """
    A database without runs.
    """
    with database.transaction() as transaction:
        Store().clear(transaction)
    return database


def test_a_notice_names_the_first_bad_version_and_the_hosts_of_the_store(database: Database) -> None:
    """
    The first failure of the family is another one than the first that was counted.
    """
    before = NOON.replace(hour=11)
    good = [each("T", workflow_version="0", run_id="good", time=before) for each in (started, finished)]
    old = [*good, failed("T", fingerprint="f" * 16, workflow_version="1", run_id="old")]
    new = failed("T", fingerprint="f" * 16, workflow_version="2", run_id="new", time=NOON.replace(hour=13))
    begun = started("T", workflow_version="2", run_id="new", host="node-7", time=NOON.replace(hour=13))

    (notice,) = Counted(database, ops={}).after(1, new, stored=[*old, begun, new])

    (group,) = notice.groups
    assert (group.first_seen_at, group.first_bad_version, group.last_good_version) == (NOON, "1", "0")
    assert group.hosts == ("node-7",)
    assert (group.workflows, group.tasks, group.run_ids) == ({"W": ("2",)}, ("T",), ("new",))
    assert (notice.kind, notice.count, group.family) == ("first", 1, "f" * 16)


def test_without_a_run_in_the_store_the_first_that_was_counted_is_the_first(database: Database) -> None:
    """
    The store may lag behind.
    """
    (notice,) = Counted(database, ops={}).after(1, failed("T", workflow_version="9"))

    assert (notice.groups[0].first_seen_at, notice.groups[0].first_bad_version) == (NOON, "9")


def test_each_route_counts_what_it_wants(database: Database) -> None:
    """
    By event, workflow, task, cause, and whether another attempt follows.
    """
    counted = Counted(
        database,
        all={},
        runs={"events": ["workflow.failed"]},
        visp={"workflows": ["l0_*_visp"]},
        parse={"tasks": ["Parse*"]},
        memory={"causes": ["out_of_memory"]},
        final={"final_only": True},
    )
    events = [
        failed("ParseL0", final=False),
        failed("Fit", cause="out_of_memory", workflow_name="l0_to_l1_visp"),
        make(WorkflowFailed, reported_by="engine"),
        finished("ParseL0"),
    ]

    notices = counted.after(1, *events)

    found: dict[str, set[str]] = {}
    for notice in notices:
        group = notice.groups[0]
        found.setdefault(notice.route, set()).add(group.tasks[0] if group.tasks else group.event)
    assert found == {
        "all": {"ParseL0", "Fit", "workflow.failed"},
        "runs": {"workflow.failed"},
        "visp": {"Fit"},
        "parse": {"ParseL0"},
        "memory": {"Fit"},
        "final": {"Fit", "workflow.failed"},
    }


def overdue(sequence: int, **facts: Any) -> TaskOverdue:
    """
    Return an alarm about the attempt of a task.
    """
    return make(TaskOverdue, "T", sequence=sequence, **OVERDUE | facts)


@pytest.mark.parametrize("is_withdrawn", [True, False])
def test_what_is_overdue_is_clear_when_it_is_withdrawn_or_has_ended(database: Database, is_withdrawn: bool) -> None:  # noqa: FBT001
    """
    Its end comes from the store of runs.
    """
    counted = Counted(database, ops={})
    first = counted.after(1, overdue(2000), stored=[started("T"), overdue(2000)])
    still = counted.after(10_000)
    end = [overdue(2001, withdrawn=True)] if is_withdrawn else []
    clear = counted.after(10, *end, stored=[] if is_withdrawn else [finished("T")])

    assert [notice.kind for notice in (*first, *still, *clear)] == ["first", "all_clear"]
    assert first[0].groups[0].summary == "no sign of life within 1 min 30 s"
    assert clear[0].groups[0].is_over


def test_two_limits_of_an_attempt_have_two_alarms(database: Database) -> None:
    """
    That of the duration is older than the one of the silence, and comes later.
    """
    counted = Counted(database, ops={})
    open_attempt = [started("T")]
    first = counted.after(1, overdue(3000), stored=open_attempt)
    second = counted.after(400, overdue(1000, exceeded="duration"))
    half = counted.after(1, overdue(3001, withdrawn=True))
    clear = counted.after(1, overdue(1001, exceeded="duration", withdrawn=True))

    assert [notice.kind for notice in (*first, *second, *half, *clear)] == ["first", "summary", "all_clear"]
    assert half == []
    assert second[0].groups[0].summary == "it has not ended within 1 min 30 s"


def test_many_alarms_end_at_the_same_time(database: Database) -> None:
    """
    The store is asked about all of them, once in ten seconds.
    """
    counted = Counted(database, ops={})
    alarms = [overdue(2000, run_id=f"r{number}") for number in range(250)]
    ends = [finished("T", run_id=f"r{number}") for number in range(250)]
    counted.after(1, *alarms, stored=[started("T", run_id=f"r{number}") for number in range(250)])

    soon = counted.after(1, stored=ends)
    notices = counted.after(10)

    assert soon == []
    assert [(notice.kind, notice.groups[0].total) for notice in notices] == [("all_clear", 250)]


def test_the_end_of_one_overdue_task_is_no_end_of_another_one(database: Database) -> None:
    """
    Of the same run; and a start of one workflow is none of another one that was missed at the same time.
    """
    counted = Counted(database, ops={})
    facts: dict[str, Any] = {"run_id": "", "workflow_version": "", "reported_by": "watcher", "grace_seconds": 600.0}
    missed = [make(WorkflowOverdue, workflow_name=name, expected_at=NOON, **facts) for name in ("V", "W")]
    alarms = [overdue(2000), make(TaskOverdue, "U", **OVERDUE, sequence=2000)]
    begun = make(WorkflowStarted, workflow_name="V", run_id="late", time=NOON.replace(hour=13))
    counted.after(1, *alarms, *missed, stored=[started("T"), started("U")])

    waiting = counted.after(10, stored=[finished("T"), begun])
    half = counted.after(300)
    rest = counted.after(10, stored=[finished("U"), make(WorkflowStarted, run_id="w", time=begun.time)])

    assert waiting == []
    over = [[next(iter((*group.tasks, *group.workflows))) for group in notice.groups] for notice in (*half, *rest)]
    assert [sorted(names) for names in over] == [["T", "V"], ["U", "W"]]


@pytest.mark.parametrize(
    ("stored", "is_clear"),
    [([], False), ([started("other")], False), ([started("T"), make(WorkflowFailed, reported_by="engine")], True)],
    ids=["not stored", "without the attempt", "run ended by the engine"],
)
def test_an_attempt_has_ended_only_if_the_store_knows_it(
    database: Database,
    stored: Sequence[Event],
    is_clear: bool,  # noqa: FBT001
) -> None:
    """
    The store may lag behind; the end of the run ends its attempts.
    """
    counted = Counted(database, ops={})
    counted.after(1, overdue(2000))

    assert bool(counted.after(1000, stored=stored)) == is_clear


def test_processes_with_different_routes_do_not_count_at_the_same_time(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Nothing is lost: the second one counts what both have received when the first has ended.
    """
    first, second = Counted(database, ops={}, old={}), Counted(database, new={"workflows": ["V"]})
    first.after(1, failed("T"))
    refused = [second.after(seconds, failed("T", workflow_name="V")) for seconds in (1, 1)]
    with database.reading() as connection:
        waiting = len(connection.execute(select(OCCURRENCES)).all())
    taken = second.after(40)

    letters = DeadLetters(database).list()
    assert refused == [[], []]
    assert waiting == 2
    assert [record.getMessage() for record in caplog.records if "counts nothing" in record.getMessage()] == [WAITS]
    assert [(notice.route, notice.count) for notice in taken] == [("new", 2)]
    assert {letter.consumer for letter in letters} == {"dkist-core.notify.ops", "dkist-core.notify.old"}
    assert {letter.reason for letter in letters} == {"its route is no longer in the file of the routes"}
    with database.reading() as connection:
        assert sorted(connection.scalars(select(ROUTES.c.name))) == ["", "new"]


def test_an_error_of_one_route_stops_no_other(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """
    It is logged once; a state that cannot be read is such an error.
    """
    counted = Counted(database, bad={}, good={})
    counted.after(1, failed("T"))
    with database.transaction() as transaction:
        transaction.execute(update(ROUTES).where(ROUTES.c.name == "bad").values(state=b"{}"))

    notices = [notice for _ in range(3) for notice in counted.after(100)]
    more = counted.after(400, failed("T"))

    assert [notice.route for notice in (*notices, *more)] == ["good"]
    records = [record.getMessage() for record in caplog.records if "the other routes go on" in record.getMessage()]
    assert [record.split(";")[-2] for record in records] == [
        " 0 occurrences are not counted for it",
        " 1 occurrence is not counted for it",
    ]
    assert records[0].startswith("the route bad cannot be counted: ValidationError: ")


def test_the_first_of_a_group_stays_the_first(database: Database) -> None:
    """
    Without a run in the store, and with later failures in other versions.
    """
    counted = Counted(database, ops={})
    counted.after(1, failed("T", workflow_version="9"))
    (summary,) = counted.after(300, failed("T", workflow_version="10", time=NOON.replace(hour=13)))

    assert (summary.groups[0].first_seen_at, summary.groups[0].first_bad_version) == (NOON, "9")


def test_a_missed_start_is_clear_when_a_run_has_begun(database: Database) -> None:
    """
    Later than it was expected.
    """
    counted = Counted(database, ops={})
    missed = make(
        WorkflowOverdue, run_id="", workflow_version="", reported_by="watcher", expected_at=NOON, grace_seconds=600.0
    )
    first = counted.after(1, missed, stored=[make(WorkflowStarted, time=NOON.replace(hour=11))])
    still = counted.after(10_000)
    clear = counted.after(10, stored=[make(WorkflowStarted, run_id="late", time=NOON.replace(hour=13))])

    assert [notice.kind for notice in (*first, *still, *clear)] == ["first", "all_clear"]
    assert (
        first[0].groups[0].summary
        == "no run has started that was expected at 2026-11-22 12:00 UTC, and 10 min 00 s later"
    )


def test_a_run_that_is_stuck_is_clear_when_it_has_ended(database: Database) -> None:
    """
    As an attempt is.
    """
    counted = Counted(database, ops={})
    stuck = make(WorkflowOverdue, reported_by="watcher", sequence=2000, limit_seconds=3600.0, last_sign_at=NOON)
    first = counted.after(1, stuck, stored=[make(WorkflowStarted)])
    clear = counted.after(10, stored=[make(WorkflowFailed, reported_by="engine")])

    assert [notice.kind for notice in (*first, *clear)] == ["first", "all_clear"]


def test_a_mute_lasts_until_its_time(database: Database) -> None:
    """
    Its occurrences are in the next summary.
    """
    counted = Counted(database, ops={})
    with database.transaction() as transaction:
        mute(transaction, "workflow", "W", counted.clock.now + 5)
        mute(transaction, "workflow", "W", counted.clock.now + 60)
        mute(transaction, "family", "f", counted.clock.now + 60)
        assert unmute(transaction, "family", "f")
        assert not unmute(transaction, "family", "f")

    during = counted.after(50, failed("T"), failed("T", run_id="r2"))
    (notice,) = counted.after(50)

    assert during == []
    assert (notice.kind, notice.count, notice.groups[0].muted) == ("summary", 2, 2)
    with database.reading() as connection:
        assert mutes_at(connection, counted.clock.now) == []


def test_hostile_names_give_a_notice_of_limited_size(database: Database) -> None:
    """
    Of any number of groups, each with any number of names.
    """
    counted = Counted(database, ops={"most_at_once": 1})
    failures = [
        failed(
            f"{HOSTILE * 20}{number % 25}",
            workflow_name=f"{HOSTILE * 5}{number % 21}",
            workflow_version=f"{HOSTILE * 5}{number % 22}",
            fingerprint=f"{number % 23}",
            message="x" * 30_000,
            log_url=f"https://{HOSTILE * 10}",
            run_id=HOSTILE * 20,
        )
        for number in range(2500)
    ]

    _, summary = counted.after(1, *failures)

    assert len(encode(summary)) <= MAX_ENCODED_BYTES
    assert summary.more_groups + len(summary.groups) == 22
    assert summary.count == sum(number % 23 != 0 for number in range(2500))


def test_a_dead_notice_is_a_dead_letter_like_an_event(database: Database) -> None:
    """
    An answer that no try can change makes it one at once; a pause that the receiver names is kept.
    """
    counted = Counted(database, ops={})
    counted.after(1, failed("T"), failed("U"))
    opened = Inbox(database, Rules("dkist-core.notify.ops", first_pause=1.0), clock=counted.clock)
    dead, later = opened.claim(1)[0], opened.claim(1)[0]
    opened.fail(dead, GiveUpError("the webhook answered HTTP 404"))
    failure = opened.fail(later, RetryLaterError("the webhook answered HTTP 429", 500.0))
    letters = DeadLetters(database, clock=counted.clock)
    (letter,) = letters.list()
    letters.retry(letter.seq)
    (again,) = opened.claim(5)
    opened.close()

    assert (letter.reason, letter.error_message) == ("its handler gave it up", "the webhook answered HTTP 404")
    assert isinstance(letter.event, NoticeIssued)
    assert re.fullmatch("notice.issued of the route ops, first, sequence [12]", message_of(cast("DeadLetter", letter)))
    assert again.event == letter.event == dead.event
    assert again.event.id == letter.event.id
    assert failure.due_at == counted.clock.now + 500.0


@pytest.mark.parametrize("event", [failed("T"), finished("T"), make(WorkflowFailed), overdue(0)])
def test_only_events_about_absence_and_failure_are_counted(event: Event) -> None:
    """
    The others are not even stored.
    """
    found = occurrence_of(event)

    assert (found is not None) == (event.name in COUNTED)
    assert found is None or (found.event, found.workflow) == (event.name, event.workflow_name)
