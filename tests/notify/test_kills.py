"""
A process of notices that is killed by SIGKILL at any instant: counts stay exact, and no notice is lost.

Not here: the same with a clock of the test (test_storm), and kills of any consumer (tests.consumer).
"""

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.inbox import Database
from dkist_processing_core.settings.reading import read_settings
from tests.facts import failed
from tests.notify.receivers import Answer, HttpReceiver
from tests.notify.test_storm import kinds, storm, totals
from tests.waiting import wait_until

WATCHING = """
import sys
from pathlib import Path
from dkist_processing_core.consumer.group import Group, Member
from dkist_processing_core.notify.consumers import consumers
from dkist_processing_core.settings.reading import read_settings

settings = read_settings()
Group(settings).run(lambda: [Member(each, "first") for each in consumers(settings, Path(sys.argv[1]))])
"""
# A process takes a second of a processor to start; on a loaded machine, there are many others.
SECONDS = 600
ROUTES = """
[routes.ops]
window = "1s"
clear_after = "2s"
webhook = {{ url = "{url}", format = "cloudevents", timeout = "5s" }}
"""


def watching(program: Path, routes: Path) -> "subprocess.Popen[bytes]":
    """
    Start a process of notices.
    """
    return subprocess.Popen([sys.executable, program, routes], stdin=subprocess.DEVNULL)


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.soak)])
def test_counts_stay_exact_and_no_notice_is_lost_when_the_process_is_killed(
    database: Database, receiver: HttpReceiver, tmp_path: Path, kills: int
) -> None:
    """
    A notice that is sent again has the same key, and is the same. On PostgreSQL two processes share the work, one of
    which is killed at a time.
    """
    program, routes = tmp_path / "watching.py", tmp_path / "notify.toml"
    program.write_text(WATCHING)
    routes.write_text(ROUTES.format(url=receiver.url))
    chance, expected, is_quick = random.Random(kills), Counter[str](), threading.Event()

    def answer() -> Answer:
        # Kills come while a notice is counted, issued or sent, and between its delivery and the mark.
        is_quick.wait(chance.random() / 5)
        return 200, {}, b""

    def publish(part: int) -> None:
        failures = [failed(f"T{number}", run_id=f"r{part}", fingerprint=f"{number % 7:016x}") for number in range(300)]
        expected.update(each.family for each in failures)
        with Publisher.open(read_settings()) as publisher:
            publisher.publish(*failures)

    receiver.answer = answer
    processes = [watching(program, routes) for _ in range(1 if database.dialect == "sqlite" else 2)]
    try:
        for part in range(kills):
            publish(part)
            wait_until(lambda part=part: len(receiver.requests) > part, SECONDS)  # type: ignore[misc]
            # The instant of the kill is any.
            threading.Event().wait(chance.random())
            killed = processes.pop(0)
            killed.kill()
            killed.wait()
            processes.append(watching(program, routes))
        is_quick.set()
        wait_until(lambda: totals(receiver.requests) == expected and not open_groups(receiver), SECONDS)
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait(SECONDS) for process in processes]

    notices = {request.key: request.notice for request in receiver.requests}
    assert expected.total() == 300 * kills
    assert sorted(notice.sequence for notice in notices.values()) == list(range(1, len(notices) + 1))
    assert all(notices[request.key] == request.notice for request in receiver.requests)
    assert set(codes) == {0}


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("database")
def test_a_storm_in_real_time_has_few_notices_and_none_is_lost(receiver: HttpReceiver, tmp_path: Path) -> None:
    """
    Ten thousand failures a minute for a minute and a half, to a receiver that is slow, down, back, and then too busy.
    """
    program, routes = tmp_path / "watching.py", tmp_path / "notify.toml"
    program.write_text(WATCHING)
    routes.write_text(ROUTES.format(url=receiver.url).replace('"1s"', '"60s"').replace('"2s"', '"20s"'))
    expected, begin, issued = Counter[str](), time.monotonic(), dict[str, float]()

    def answer() -> Answer:
        elapsed = time.monotonic() - begin
        if elapsed < 10:
            threading.Event().wait(2)
        elif elapsed < 40:
            return 503, {}, b"down"
        elif 60 < elapsed < 90:
            return 429, {"Retry-After": "5"}, b"too many"
        return 200, {}, b""

    receiver.answer = answer
    process = watching(program, routes)
    try:
        with Publisher.open(read_settings()) as publisher:
            for second in range(90):
                failures = storm(second, 167)
                expected.update(each.family for each in failures)
                publisher.publish(*failures)
                # The rate of the storm.
                threading.Event().wait(max(0.0, begin + second + 1 - time.monotonic()))
                issued |= {
                    request.key: time.monotonic() - begin for request in receiver.requests if request.key not in issued
                }
        wait_until(lambda: totals(receiver.accepted) == expected and not open_groups(receiver), SECONDS)
    finally:
        process.terminate()
        process.wait(SECONDS)

    assert expected.total() == 15_030
    assert sum(at < 60 for at in issued.values()) <= 10
    assert {request.key for request in receiver.requests} == {request.key for request in receiver.accepted}
    assert kinds(receiver.accepted).count("all_clear") == 1


def open_groups(receiver: HttpReceiver) -> set[str]:
    """
    Return the families without an all-clear after their last failure.
    """
    notices = {request.key: request.notice for request in receiver.requests}
    found: set[str] = set()
    for notice in sorted(notices.values(), key=lambda notice: notice.sequence):
        for group in notice.groups:
            (found.discard if group.is_over else found.add)(str(group.family))
    return found
