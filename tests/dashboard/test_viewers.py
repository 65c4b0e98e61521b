"""
Many viewers of a live page: each that reads gets each change, others are dropped, and memory is bounded.
"""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import psycopg
import pytest

from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.dashboard.app import PAGES
from dkist_processing_core.dashboard.asked import Asked, PageError
from dkist_processing_core.dashboard.html import live
from dkist_processing_core.dashboard.http import connection
from dkist_processing_core.delivery.publisher import Publisher
from tests.dashboard.crowd import Crowd
from tests.dashboard.ground import Served
from tests.dashboard.serving import DROPPED, Site, measured, running
from tests.facts import progressed, started
from tests.pace import here
from tests.running import command
from tests.services.postgres import PostgresServer
from tests.waiting import SECONDS, wait_until

RUNS = 30
# More than the buffers of a connection hold, in bytes.
MUCH = 1_200_000
LAST = "the last note of all"


def publish(number: int, note: str) -> None:
    """Publish the progress of an attempt in each of some runs."""
    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        runs = [f"manual__2026-11-22T12:{run:02}:00+00:00" for run in range(RUNS)]
        publisher.publish(
            *(started("A", run_id=run_id, attempt=1) for run_id in (runs if number == 0 else ())),
            *(progressed("A", number, run_id=run_id, attempt=1, note=f"{note} {number}") for run_id in runs),
        )


@contextmanager
def flood(end: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Publish progress all the time during the block."""
    is_over = threading.Event()

    def run() -> None:
        number = 1
        while not is_over.wait(0.05) and not end():
            publish(number, "so far")
            number += 1
        publish(number, LAST)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_readers_get_the_last_state_and_others_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of events reaches those who read; those who do not cannot hold it up, and are given up."""
    monkeypatch.setattr(connection, "READING_SECONDS", 0.2)
    publish(0, "begun")
    with running() as site:
        wait_until(lambda: "begun" in site.get("/").text)
        crowd = Crowd(site.host, site.port, "/")
        with crowd.following(readers=25, silent=5):
            with flood():
                wait_until(lambda: min(crowd.sizes) > MUCH, 100)
                dropped = crowd.silent_were_dropped()
                page = site.get("/")
            wait_until(lambda: measured(site, DROPPED) == 5)
            viewers = measured(site, "dkist_core_viewer_active")
            wait_until(lambda: all(LAST.encode() in line for line in crowd.last))
            received, ended = list(crowd.received), crowd.ended

    assert dropped
    assert viewers == 25
    assert page.status == 200
    assert min(received) > 1
    assert ended == 0


def test_there_is_room_for_so_many_viewers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A further one gets a sentence; the place of one who goes is free again."""
    monkeypatch.setattr(live, "MOST_VIEWERS", 1)
    with running() as site:
        with site.viewer("/") as viewer:
            viewer.parts()
            refused = site.get("/live", of="/")
        wait_until(lambda: _can_view(site))

    assert (refused.status, refused.headers["Retry-After"]) == (503, "30")
    assert "1 viewers follow pages already" in refused.text


def test_so_many_pages_only_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further viewers of the same page have room, those of another one have not."""
    monkeypatch.setattr(live, "MOST_ADDRESSES", 1)
    with running() as site, site.viewer("/") as viewer, site.viewer("/") as other:
        both = viewer.parts(), other.parts()
        refused = site.get("/live", of="/runs")

    assert all(both)
    assert refused.status == 503
    assert "viewers follow 1 pages already" in refused.json["detail"]


def test_a_slow_page_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is rendered by itself."""
    is_over, is_begun = threading.Event(), threading.Event()

    def page(_: Asked) -> NoReturn:
        is_begun.set()
        is_over.wait(SECONDS)
        raise PageError("it was slow")

    monkeypatch.setitem(PAGES, "/runs", page)
    with running() as site, ExitStack() as stack:
        stack.callback(is_over.set)
        stack.enter_context(site.viewer("/runs"))
        assert is_begun.wait(SECONDS)
        viewer = stack.enter_context(site.viewer("/"))
        first = viewer.parts()
        was_slow = not is_over.is_set()

    assert first
    assert was_slow


def _can_view(site: Site) -> bool:
    with site.viewer("/") as viewer:
        return viewer.status == 200


@contextmanager
def dashboard_process(*options: str) -> Iterator[tuple[Site, "subprocess.Popen[str]"]]:
    """Run `dkist-core dashboard` on a free port."""
    arguments = command("dashboard", "--port", "0", *options)
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = re.search(r"http://\S+/", process.stderr.readline())
            assert found is not None
            served = Served(found[0])
            wait_until(served.is_ready)
            yield Site(served), process
        finally:
            process.kill()


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order_while_pages_are_followed(number: signal.Signals, tmp_path: Path) -> None:
    """The streams end, the exit code is that of a program that was asked to end, and the store is where it is named."""
    with dashboard_process("--store", f"sqlite:///{tmp_path}/store.db") as (site, process), site.viewer("/") as viewer:
        viewer.parts()
        process.send_signal(number)
        rest = viewer.rest()
        code = process.wait(40)

    assert {name for name, _ in rest} <= {"parts"}
    assert code in {0, 130}
    assert (tmp_path / "store.db").stat().st_size > 0


@contextmanager
def locked(postgres: PostgresServer, database: str) -> Iterator[Callable[[], bool]]:
    """Have another session hold all tables during the block; yield whether a query waits for one."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with psycopg.connect(postgres.url(database).replace("+psycopg2", "")) as session:
        tables = session.execute("SELECT string_agg(tablename, ', ') FROM pg_tables WHERE schemaname = 'public'")
        session.execute(f"LOCK TABLE {tables.fetchone()[0]} IN ACCESS EXCLUSIVE MODE")  # type: ignore[index]
        yield lambda: postgres.execute(waiting, database=database) != "0"


@contextmanager
def stopped(postgres: PostgresServer, database: str) -> Iterator[Callable[[], bool]]:
    """Stop the processes of a server during the block, as in a machine that hangs: it accepts and does not answer."""
    sessions = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}' AND pid <> pg_backend_pid()"
    pids = [postgres.pid, *map(int, postgres.execute(sessions).split())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield lambda: True
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.processes
@pytest.mark.parametrize("obstacle", [locked, stopped])
def test_a_signal_ends_it_in_limited_time_while_the_store_does_not_answer(
    obstacle: Callable[[PostgresServer, str], AbstractContextManager[Callable[[], bool]]], postgres: PostgresServer
) -> None:
    """One line has the reason; consumer and pages wait for the database meanwhile."""
    name = f"hanging_{obstacle.__name__}"
    postgres.create_database(name)
    with dashboard_process("--store", postgres.url(name, driver="psycopg")) as (site, process):
        assert process.stderr is not None
        with obstacle(postgres, name) as does_wait:
            publish(0, "begun")
            with site.viewer("/"):
                assert site.get("/health/ready").status == 503
                wait_until(does_wait)
                process.send_signal(signal.SIGINT)
                code = process.wait(here(40.0))
        lines = process.stderr.read().splitlines()

    assert code == 1
    (line,) = [line for line in lines if "has not answered" in line]
    assert "the store of runs has not answered" in line


@pytest.mark.soak
@pytest.mark.quiet
@pytest.mark.processes
@pytest.mark.timeout(1800)
def test_two_hundred_viewers_cost_little(print_line: Callable[[str], None]) -> None:
    """With 20 of them that never read, no page takes a second, and the memory does not grow."""
    publish(0, "begun")
    until = time.monotonic() + 90
    with dashboard_process() as (site, process):
        wait_until(lambda: "begun" in site.get("/").text)
        crowd = Crowd(site.host, site.port, "/")
        with crowd.following(readers=180, silent=20), flood(lambda: time.monotonic() > until):
            seconds, memory = [], []
            while time.monotonic() < until:
                began = time.monotonic()
                assert site.get("/").status == 200
                seconds.append(time.monotonic() - began)
                memory.append(resident(process.pid))
                threading.Event().wait(0.2)
            dropped = crowd.silent_were_dropped()
    third = len(memory) // 3
    print_line(
        f"{len(seconds)} pages: slowest {max(seconds):.3f} s, median {sorted(seconds)[len(seconds) // 2]:.3f} s; "
        f"memory {memory[0] / 1e6:.0f} MB at first, {max(memory[:third]) / 1e6:.0f} MB in the first third, "
        f"{max(memory[-third:]) / 1e6:.0f} MB in the last; events per viewer {min(crowd.received)} to "
        f"{max(crowd.received)}"
    )

    assert dropped
    assert max(seconds) < 1.0
    assert max(memory[-third:]) < max(memory[:third]) + 20_000_000


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
