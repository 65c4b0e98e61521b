"""
A storm of failures, and a receiver that is slow, down and busy: few notices, exact counts, and nothing lost.

The clock is that of the test; the server and the databases are real. Not here: the rules of the groups (test_grouping),
and a process that is killed (test_kills).
"""

import random
import threading
from collections import Counter, defaultdict
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy import text

from dkist_processing_core.bus import open_bus
from dkist_processing_core.consumer.service import ConsumerService
from dkist_processing_core.events import CONTENT_TYPE, TaskFailed, encode
from dkist_processing_core.identity import Run
from dkist_processing_core.inbox import Arrival, Database
from dkist_processing_core.notify.consumers import consumers
from dkist_processing_core.settings.reading import read_settings
from tests.facts import failed
from tests.inbox.parts import Clock
from tests.notify.receivers import Answer, HttpReceiver, Request

ROUTES = """
[routes.ops]
[routes.ops.webhook]
url = "{url}"
format = "cloudevents"
timeout = "1s"
"""
FAMILIES = 7


class Watch:
    """
    The consumers of a file of routes in one process, whose steps a test makes by its clock.
    """

    def __init__(self, database: Database, clock: Clock, routes: Path) -> None:
        """
        Open them.
        """
        settings = read_settings()
        self.clock, bus = clock, open_bus(settings)
        chance = random.Random(1)
        counting, *delivering = [
            ConsumerService(each, bus, database, clock=clock, random=chance)
            for each in consumers(settings, routes, clock=clock)
        ]
        self.counting, self.delivering = counting, delivering
        self.database = database

    def receive(self, *failures: TaskFailed) -> None:
        """
        Store failures as they arrive from the bus.
        """
        self.counting.inbox.become_intake()
        self.counting.inbox.store([Arrival(each, encode(each), CONTENT_TYPE) for each in failures])

    def work(self) -> None:
        """
        Count, issue and send what is due now.
        """
        for service in [self.counting, *self.delivering]:
            for worker in service.workers:
                while worker.step() is not None:
                    pass
            service.timers.step()
        for service in self.delivering:
            for worker in service.workers:
                while worker.step() is not None:
                    pass

    def pass_time(self, seconds: int, every: int = 1) -> None:
        """
        Work each second or more seldom.
        """
        for _ in range(0, seconds, every):
            self.clock.now += every
            self.work()

    def close(self) -> None:
        """
        End as a process does, whose claims others take.
        """
        for service in [self.counting, *self.delivering]:
            service.inbox.close()


@pytest.fixture
def routes(tmp_path: Path, receiver: HttpReceiver) -> Path:
    """
    The file of one route to the receiver.
    """
    path = tmp_path / "notify.toml"
    path.write_text(ROUTES.format(url=receiver.url))
    return path


def storm(second: int, count: int) -> list[TaskFailed]:
    """
    Return as many failures of one second of a storm: of seven families in three workflows, each run with several.
    """
    return [
        failed(
            f"Task{number % FAMILIES}",
            workflow_name=f"W{number % 3}",
            workflow_version=str(second // 30),
            run_id=f"run {second} {number // 4}",
            fingerprint=f"{number % FAMILIES:016x}",
            message="it does not converge",
        )
        for number in range(count)
    ]


def totals(requests: list[Request]) -> Counter[str]:
    """
    Return the counts of the families over all notices, each notice once.
    """
    notices = {request.key: request.notice for request in requests}
    counts: Counter[str] = Counter()
    for notice in notices.values():
        for group in notice.groups:
            counts[str(group.family)] += group.count
    return counts


def kinds(requests: list[Request]) -> list[str]:
    """
    Return the kinds of the notices, each once, in their order.
    """
    notices = {request.key: request.notice for request in requests}
    return [notice.kind for notice in sorted(notices.values(), key=lambda notice: notice.sequence)]


def test_a_storm_has_few_notices_and_none_is_lost(database: Database, receiver: HttpReceiver, routes: Path) -> None:
    """
    Ten thousand failures a minute, to a receiver that is slow, then down, then back, then too busy.
    """
    # PostgreSQL has fewer, to save time.
    count = 167 if database.dialect == "sqlite" else 21
    watch, expected = Watch(database, Clock(), routes), Counter[str]()
    answers: list[Answer] = [(503, {}, b"down")] * 3 + [(200, {}, b"")] * 2 + [(429, {"Retry-After": "90"}, b"")] * 4
    phases, first = iter(answers), threading.Event()

    def answer() -> Answer:
        if not first.is_set():
            first.set()
            # Other processes may write meanwhile, also into a file of SQLite.
            with database.transaction() as transaction:
                transaction.execute(text("INSERT INTO dkist_core_mute VALUES ('workflow', 'other', 0)"))
            # Longer than the time limit of the route.
            threading.Event().wait(1.2)
            return 200, {}, b"slow"
        return next(phases, (200, {}, b"ok"))

    receiver.answer = answer

    for second in range(60):
        watch.receive(*(failures := storm(second, count)))
        expected.update(str(each.fingerprint) for each in failures)
        watch.pass_time(1)
    in_first_minute = kinds(receiver.requests)
    watch.pass_time(3000, every=10)

    assert expected.total() == 60 * count
    assert in_first_minute == ["first"] * FAMILIES
    assert kinds(receiver.accepted) == ["first"] * FAMILIES + ["summary", "all_clear"]
    assert totals(receiver.accepted) == expected
    # The key of a notice was the same at each try. One was accepted twice: too late at first.
    assert {request.key for request in receiver.requests} == {request.key for request in receiver.accepted}
    assert sorted(Counter(request.key for request in receiver.accepted).values()) == [1] * 8 + [2]
    assert len(receiver.requests) == len(receiver.accepted) + 7
    clear = next(request.notice for request in receiver.accepted if request.notice.kind == "all_clear")
    assert {group.total for group in clear.groups} == set(expected.values())
    summary = next(request.notice for request in receiver.accepted if request.notice.kind == "summary")
    runs = defaultdict[str, set[Run]](set)
    # Timed work is due a second after its first start: the first notices have two seconds of the storm.
    for each in chain.from_iterable(storm(second, count) for second in range(2, 60)):
        runs[each.family].add(each.run)
    assert {group.family: group.run_count for group in summary.groups} == {name: len(runs[name]) for name in runs}
    assert summary.groups[0].workflows == {f"W{number}": ("0", "1") for number in range(3)}
    watch.close()
