"""
`dkist-core runs`, `top`, `failures` and `collect` on both buses: what they show, and what they leave behind.

Not here: the content of the store (test_store), and the drawings (test_store_drawings).
"""

import json
import os
import pty
import re
import select
import signal
import subprocess
import termios
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, func, text
from sqlalchemy import select as select_from
from typer.testing import CliRunner

from dkist_processing_core.cli import app
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.cli.run_ids import complete_family, complete_stored_run_id
from dkist_processing_core.collect.collector import Collector
from dkist_processing_core.collect.store import Store
from dkist_processing_core.collect.tables import REPORTS, RUNS
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.events import Event, WorkflowOverdue, format_time, identity_of
from dkist_processing_core.inbox import Database
from dkist_processing_core.inbox.migrating import HEAD, VERSION_TABLE, upgrade
from dkist_processing_core.settings.reading import read_settings
from tests.facts import NOON, failed, finished, make, started
from tests.running import ROOT, command, run_python
from tests.services.broker import Broker
from tests.services.postgres import PostgresServer
from tests.stored import ENDED, RUNNING, ended_run, running_run
from tests.waiting import wait_until


def publish(*events: Event) -> None:
    """
    Publish events on the bus that the environment names, and wait until it has them.
    """
    with Publisher.open(read_settings()) as publisher:
        publisher.publish(*events)
        assert publisher.flush(30)


def answer(*arguments: str) -> str:
    """
    Return the output of a command that succeeds, in this process.
    """
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def in_json(*arguments: str) -> Any:
    """
    Return the JSON that a command writes.
    """
    return json.loads(answer(*arguments, "--json"))


@pytest.fixture
def now() -> datetime:
    """
    The time at which the published runs run.
    """
    return datetime.now(UTC)


def past_and_present(now: datetime) -> list[Event]:
    """
    Return the reports on a run that failed an hour ago, and on one that runs.
    """
    return [*ended_run(begin=now - timedelta(hours=1)), *running_run(now=now)]


def missed_start() -> Event:
    """
    Return the report on a run that was expected and has not started.
    """
    return make(
        WorkflowOverdue,
        workflow_name="l0_to_l1_visp",
        workflow_version="",
        run_id="",
        expected_at=NOON,
        grace_seconds=60.0,
        reported_by="watcher",
    )


def overdue(now: datetime) -> list[Event]:
    """
    Return an alarm of two watchers about the run that goes on.
    """
    of_run = {event.run_id: event for event in running_run(now=now)}[RUNNING]
    alarm: dict[str, Any] = identity_of(of_run.run) | {"reported_by": "watcher", "limit_seconds": 3600.0}
    return [
        make(WorkflowOverdue, sequence=2 * int(now.timestamp() * 1000), time=now + timedelta(seconds=late), **alarm)
        for late in (1, 2)
    ]


def test_an_operators_questions_are_answered_by_one_command_each(now: datetime) -> None:
    """What runs now, what failed today and why, what is stuck, and how it went."""
    publish(*past_and_present(now))
    running = in_json("top")["attempts"]
    failed = in_json("failures", "--since", "1d")["failures"]
    stuck = in_json("top", "--silent", "1h")["attempts"]
    listed = in_json("runs", "list", "--since", "7d")

    assert [(each["taskName"], each["done"], each["total"]) for each in running] == [
        ("Gather", None, None),
        ("Invert", 45, 100),
        ("Publish", None, None),
    ]
    assert [(each["count"], each["last"]["summary"]) for each in failed] == [
        (2, "exception in run: LimbError: no limb in frame 3"),
        (1, "out of memory (SIGKILL) at 61 GB"),
    ]
    assert [each["taskName"] for each in stuck] == ["Gather"]
    assert listed["states"] == {"running": 1, "failed": 1}
    assert [each["dagRunId"] for each in listed["runs"]] == [RUNNING, ENDED]


def test_a_command_takes_in_what_has_happened_since_the_last_one(now: datetime) -> None:
    """The store is caught up at each call, and a repetition changes nothing."""
    publish(*running_run(now=now))
    first = in_json("runs", "list")["states"]
    publish(*ended_run(begin=now - timedelta(hours=1)))
    second, third = in_json("runs", "list")["states"], in_json("runs", "list")["states"]

    assert (first, second, third) == ({"running": 1}, {"running": 1, "failed": 1}, {"running": 1, "failed": 1})


def test_a_run_is_shown_by_its_short_id(now: datetime) -> None:
    """The sheet has its attempts, and its JSON is that of a timeline."""
    publish(*past_and_present(now))
    sheet = answer("runs", "show", "8bf54b12")

    assert "run 8bf54b12" in sheet
    assert [line.split()[1] for line in sheet.splitlines() if line[:1] in {"●", "○"}][1:] == [
        "Gather",
        "Invert",
        "Publish",
    ]
    assert in_json("runs", "show", "8bf54b12") == in_json("timeline", "8bf54b12")


def test_a_task_of_a_run_is_shown_with_all_that_is_known(now: datetime) -> None:
    """Its JSON is that of the run; a task that is not in the run is one sentence with those that are."""
    publish(*past_and_present(now))
    sheet, shown = answer("runs", "show", ENDED, "Polcal"), in_json("runs", "show", ENDED, "Polcal")
    whole = in_json("runs", "show", ENDED)
    missing = CliRunner().invoke(app, ["runs", "show", "8bf54b12", "Polcla"])
    (polcal,) = [task for task in whole["tasks"] if task["name"] == "Polcal"]

    assert "  out of memory (SIGKILL) at 61 GB\n" in sheet
    assert "  memory          61 GB at most, in one process\n" in sheet
    assert (
        shown == {name: whole[name] for name in ("workflowName", "workflowVersion", "dagRunId", "recipeRunId")} | polcal
    )
    assert (missing.exit_code, missing.stderr) == (
        1,
        "error: there is no task 'Polcla' in run 8bf54b12; its tasks: Gather, Invert, Publish, Summarize\n",
    )


def test_the_usage_of_tasks_and_queues_is_one_command(now: datetime) -> None:
    """It has the killed attempt; without an attempt it is one line."""
    publish(*past_and_present(now))
    usage = in_json("usage", "--since", "1d")
    (polcal,) = [task for task in usage["tasks"] if task["taskName"] == "Polcal"]

    assert (polcal["attempts"], polcal["died"], polcal["outOfMemory"]) == (1, 1, 1)
    assert polcal["memoryLargest"] == 61_000_000_000
    assert [(each["queue"], each["spareMemory"]) for each in usage["queues"]] == [(None, None), ("default", None)]
    assert "without a queue: the memory should not shrink, since 1 attempt ran out of it" in answer("usage")
    assert answer("usage", "--workflow", "none") == "no attempt in this choice\n"


def test_a_run_of_which_no_start_was_reported_has_none(now: datetime) -> None:
    """Its first report is a time before which it began, in a list, in its sheet and in JSON."""
    publish(*past_and_present(now), finished("A", run_id="late__12345678", time=now))
    listed = {each["dagRunId"]: (each["startedAt"], each["startedBefore"]) for each in in_json("runs", "list")["runs"]}
    shown = in_json("runs", "show", "12345678")

    assert listed["late__12345678"] == (shown["startedAt"], shown["startedBefore"]) == (None, format_time(now))
    assert listed[ENDED] == (format_time(now - timedelta(hours=1)), None)
    assert "began before" in answer("runs", "show", "12345678")
    assert f"began before {local_time(now, '%Y-%m-%d %H:%M:%S', None)}: no start was reported" in answer("runs", "list")


def test_a_family_of_failures_is_shown_by_the_beginning_of_its_id(now: datetime) -> None:
    """Its occurrences, its stack and the next steps, as text and as JSON; another choice may have none of them."""
    publish(*past_and_present(now))
    sheet = answer("failures", "5f0a")
    (family,) = in_json("failures", "5f0a")["failures"]

    assert "2 failed attempts in 1 run" in sheet
    assert '  File "/site-packages/dkist_processing_visp/tasks/calibrate.py", line 131, in find_limb' in sheet
    assert "dkist-core runs show 20261122T110000: the last run, with all its attempts" in sheet
    assert (family["family"], family["count"], family["finishedSince"]) == ("5f0ac1d2e3b4a596", 2, 0)
    assert [(each["attempt"], each["final"]) for each in family["occurrences"]] == [(2, True), (1, False)]
    assert family["stack"].endswith("LimbError: no limb in frame 3\n")
    assert in_json("failures", "5f0a", "--since", "1m") == {"failures": []}
    assert answer("failures", "5f0a", "--since", "1m") == "no failure of the family 5f0ac1d2e3b4a596 in this choice\n"
    assert ("5f0ac1d2e3b4a596", "exception in run LimbError no limb in frame 3") in complete_family("5f")


@pytest.mark.parametrize(
    ("named", "reason"), [("abcd1234", ""), ("5f0", ", and a family is named by 4 characters or more")]
)
def test_a_family_that_is_not_in_the_store_is_an_error_with_the_latest_ones(
    now: datetime, named: str, reason: str
) -> None:
    """The message names what was found and what there is."""
    publish(*ended_run(begin=now - timedelta(hours=1)))
    result = CliRunner().invoke(app, ["failures", named])

    assert result.exit_code == 1
    sentence = f"there is no family '{named}' of failures in the store{reason}; the latest there: 5f0ac1d2e3b4a596, a0"
    assert sentence in result.stderr


def test_a_run_of_which_no_attempt_runs_is_shown_below_the_attempts(now: datetime) -> None:
    """A run whose next attempt waits is neither hidden nor counted as an attempt."""
    waits = {"run_id": "waits", "workflow_name": "waiting", "time": now - timedelta(minutes=30)}
    publish(started("A", **waits), failed("A", final=False, **waits), *running_run(now=now))
    drawn = answer("top").splitlines()
    silent = in_json("top", "--silent", "20m")

    assert drawn[0].startswith("3 attempts of 1 run, 1 run without an attempt  ")
    assert drawn[-1].split()[:5] == ["·", "waits", "waiting", "1", "1"]
    assert [each["dagRunId"] for each in silent["idleRuns"]] == ["waits"]


def test_a_run_that_is_not_in_the_store_is_an_error_with_the_latest_ones(now: datetime) -> None:
    """The message names what was found and what there is."""
    publish(*running_run(now=now))
    result = CliRunner().invoke(app, ["runs", "show", "abcd1234"])

    assert result.exit_code == 1
    assert "there is no run 'abcd1234' in the store; the latest runs there: 8bf54b12" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["runs", "list", "--state", "dead"],
            "there is no state 'dead' of a run; expected one of running, finished, failed",
        ),
        (
            ["failures", "--cause", "oom"],
            "there is no cause 'oom' of failures; expected one of lost, exit_code, signal, terminated, timeout, out_of",
        ),
        (["runs", "list", "--since", "soon"], "found 'soon', expected a number followed by s, m, h or d"),
        (["collect", "--forget"], "found --forget without --rebuild; use it only together with --rebuild"),
        (["collect", "--dump", "--rebuild"], "found several of --until-idle, --dump and --rebuild; use one of them"),
    ],
)
def test_wrong_options_are_explained(arguments: list[str], message: str) -> None:
    """One sentence: what was found, and what was expected."""
    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 2
    assert message in re.sub(r"\s*│?\n│?\s*", " ", result.stderr)


def test_an_empty_store_is_no_error() -> None:
    """Before the first event, each command states that there is nothing."""
    found = [answer(*each) for each in (("runs", "list"), ("top",), ("failures",))]

    assert found == ["no run\n", f"{found[1]}", "no failure\n"]
    assert found[1].startswith("no attempt runs")


def test_an_answer_with_nothing_states_what_was_requested(now: datetime) -> None:
    """That nothing has been silent, or that nothing is in a choice, does not mean that nothing runs."""
    publish(*past_and_present(now))
    questions = ("top --silent 2d", "top --workflow other", "failures --since 1m", "runs list --workflow other")
    found = [re.sub(r" {2}\d\d:.*|\d", "", answer(*each.split())).strip() for each in questions]

    assert found == [
        "no attempt has been silent since -- ::",
        "no attempt runs in this choice",
        "no failure since -- ::",
        "no run in this choice",
    ]


def test_a_look_at_the_store_does_not_migrate_it(state_dir: Path) -> None:
    """A service of an earlier release may use the tables. The next start of `collect` migrates them."""
    state_dir.mkdir(exist_ok=True)
    engine = create_engine(f"sqlite:///{state_dir}/inbox.db")
    with engine.begin() as connection:
        upgrade(connection, "earlier", "0004")
    looks = ("runs list", "runs show 8bf54b12", "top", "failures", "failures 5f0a", "usage", "collect --dump")
    found = [CliRunner().invoke(app, each.split()) for each in looks]
    with engine.connect() as connection:
        version = text(f"SELECT version_num FROM {VERSION_TABLE}")
        before = connection.scalar(version)
        answer("collect", "--until-idle")
        after = connection.scalar(version)
    engine.dispose()

    assert {each.exit_code for each in found} == {1}
    assert all(f"have the version 0004, expected {HEAD}: nothing was changed" in each.stderr for each in found)
    assert (before, after) == ("0004", HEAD)


def test_the_store_takes_in_the_past_of_each_exchange(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    """That it has everything of one exchange of a bus does not mean that it has everything of another one."""
    with monkeypatch.context() as other:
        other.setenv("ISB_EVENT_EXCHANGE", "other.x")
        publish(*running_run(now=now))
    before = in_json("runs", "list")["states"]
    monkeypatch.setenv("ISB_EVENT_EXCHANGE", "other.x")

    assert (before, in_json("runs", "list")["states"]) == ({}, {"running": 1})


def test_without_the_extra_each_command_states_what_to_install() -> None:
    """One sentence, without a traceback."""
    program = """
import sys; sys.modules["sqlalchemy"] = None
from typer.testing import CliRunner
from dkist_processing_core.cli import app
for words in ("runs list", "runs show 8bf54b12", "top", "failures", "failures 5f0a", "usage", "collect"):
    ended = CliRunner().invoke(app, words.split())
    print(ended.exit_code, ended.stderr, end="")
"""
    ended = run_python(program, {})

    assert ended.stderr == ""
    sentence = (
        "1 error: the store of runs is read and kept with the extra 'consumer', and there is no module 'sqlalchemy' "
        "here; install it with pip install 'dkist-processing-core[consumer]'"
    )
    assert ended.stdout.splitlines() == [sentence] * 7


def many(count: int) -> list[Event]:
    """
    Return the reports on many short runs.
    """
    return [
        event
        for number in range(count)
        for event in (
            started("A", run_id=f"local__1__20261122T120000Z__{number:08x}"),
            finished("A", run_id=f"local__1__20261122T120000Z__{number:08x}"),
        )
    ]


def count_of(table: Any) -> int:
    """
    Return the number of rows in a table of the store.
    """
    with closing(Database.open(None, read_settings())) as database, database.reading() as connection:
        return connection.scalar(select_from(func.count()).select_from(table)) or 0


def test_catching_up_leaves_no_process() -> None:
    """When a command has ended, no process of its session is left."""
    publish(*many(20))
    with subprocess.Popen(
        command("runs", "list", "--json"), cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        listed = json.loads(process.communicate(timeout=300)[0])

    assert len(listed["runs"]) == 20
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_command_that_is_killed_while_it_catches_up_is_completed_by_the_next_one() -> None:
    """After kill -9 at any moment, the store becomes that of one that was never interrupted."""
    publish(*many(400))
    count_of(RUNS)
    with subprocess.Popen(command("collect", "--until-idle"), cwd=ROOT) as process:
        wait_until(lambda: count_of(REPORTS) > 0)
        process.kill()
    left = count_of(REPORTS)
    after, again = answer("collect", "--dump"), answer("collect", "--rebuild", "--forget")

    assert 0 < left < 800
    assert again == ""
    assert answer("collect", "--dump") == after
    assert len(json.loads(after)["runs"]) == 400


@contextmanager
def service() -> Iterator["subprocess.Popen[str]"]:
    """
    Run the service that keeps the store; it has begun.
    """
    with subprocess.Popen(command("collect"), cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "collecting the runs of " in process.stderr.readline()
            yield process
        finally:
            process.kill()


def test_a_service_keeps_the_store_and_the_commands_only_read_it(
    now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is published appears in the store, and SIGTERM ends the service in good order."""
    publish(*running_run(now=now))
    with service() as process:
        wait_until(lambda: in_json("runs", "list")["states"] == {"running": 1})
        publish(*ended_run(begin=now - timedelta(hours=1)))
        wait_until(lambda: in_json("runs", "list")["states"] == {"running": 1, "failed": 1})
        with Collector(read_settings()) as collector:
            wait_until(lambda: collector.completed_at() is not None)
        with monkeypatch.context() as elsewhere:
            # A command that took in events would need this broker.
            elsewhere.setenv("MESH_CONFIG", '{"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": 1}}')
            read = in_json("runs", "list")["states"]
        process.send_signal(signal.SIGTERM)
        status = process.wait(30)

    assert status == 0
    assert read == {"running": 1, "failed": 1}


def test_the_live_table_follows_the_attempts_until_ctrl_c(now: datetime) -> None:
    """An attempt that ends disappears at the next drawing, and the screen is as before at the end."""
    reports = list(running_run(now=now))
    publish(*reports)
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 100))
    variables = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | {"TERM": "xterm-256color"}
    shown = b""

    def has_shown(text: bytes) -> bool:
        nonlocal shown
        if select.select([leader], [], [], 0)[0]:
            with suppress(OSError):  # Linux ends it with EIO
                shown += os.read(leader, 65_536)
        return text in shown

    with subprocess.Popen(command("top"), cwd=ROOT, stdout=follower, stderr=follower, env=variables) as process:
        os.close(follower)
        try:
            wait_until(lambda: has_shown(b"3 attempts of 1 run"))
            identity = {"workflow_name": "l1_to_l2_dlnirsp", "workflow_version": "dev", "run_id": RUNNING}
            publish(finished("Gather", time=now, **identity))
            wait_until(lambda: has_shown(b"2 attempts of 1 run"))
            process.send_signal(signal.SIGINT)
            wait_until(lambda: has_shown(b"\x1b[?1049l"))
            status = process.wait(30)
        finally:
            process.kill()
            os.close(leader)

    assert status == 0
    assert b"Invert" in shown


def test_a_rebuild_refuses_to_lose_what_only_the_store_has(now: datetime) -> None:
    """The message names the runs, nothing is changed, and --forget gives them up."""
    publish(*running_run(now=now))
    answer("runs", "list")
    with closing(Database.open(None, read_settings())) as database, database.transaction() as transaction:
        for report in (*ended_run(), missed_start()):
            Store().add(transaction, report)
    refused = CliRunner().invoke(app, ["collect", "--rebuild"])
    kept = in_json("runs", "list")["states"]
    answer("collect", "--rebuild", "--forget")

    assert refused.exit_code == 1
    expected = "the run of l0_to_l1_visp expected at 2026-11-22T12:00:00.000000Z"
    assert f"2 runs would lose reports that the bus no longer has: {ENDED}, {expected}; " in refused.stderr
    assert kept == {"running": 1, "failed": 1}
    assert in_json("runs", "list")["states"] == {"running": 1}


def test_a_rebuild_names_a_run_whose_reports_cannot_be_read(now: datetime) -> None:
    """It may lose some; with --forget the store has what the bus has."""
    publish(*running_run(now=now))
    answer("runs", "list")
    with closing(Database.open(None, read_settings())) as database, database.transaction() as transaction:
        transaction.exec_driver_sql("UPDATE dkist_core_pack SET body = x'ff00'")
    refused = CliRunner().invoke(app, ["collect", "--rebuild"])
    answer("collect", "--rebuild", "--forget")

    assert refused.exit_code == 1
    assert f"1 run would lose reports that the bus no longer has: {RUNNING}; " in refused.stderr
    assert in_json("runs", "list")["states"] == {"running": 1}


def test_the_dump_of_a_rebuilt_store_is_equal(now: datetime) -> None:
    """A store that is built again from the events on the bus has the same dump, byte for byte."""
    reports = [*past_and_present(now), missed_start(), *overdue(now)]
    for first in range(0, len(reports), 7):
        publish(*reports[first : first + 7])
        answer("collect", "--until-idle")
    before = answer("collect", "--dump")
    answer("collect", "--rebuild")

    assert answer("collect", "--dump") == before
    assert [run["dagRunId"] for run in json.loads(before)["runs"]] == [ENDED, RUNNING]
    assert [each["data"]["dagRunId"] for each in json.loads(before)["missedStarts"]] == [""]
    assert json.loads(before)["runs"][1]["overdue"]["limitSeconds"] == 3600.0


def test_a_shell_completes_the_ids_of_stored_runs(now: datetime) -> None:
    """A run whose events the bus no longer has is completed from the store."""
    with closing(Database.open(None, read_settings())) as database, database.transaction() as transaction:
        for report in running_run(now=now):
            Store().add(transaction, report)
        Store().fold(transaction, 10)

    assert complete_stored_run_id("8b") == [("8bf54b12", "l1_to_l2_dlnirsp dev, recipe run 42")]


def test_on_a_broker_the_commands_read_its_archive_and_show_the_store_without_it(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, now: datetime
) -> None:
    """Events from before the first call are in the store, and a broker that is gone is an error after the answer."""
    for name, value in broker.env.items():
        monkeypatch.setenv(name, value)
    publish(*past_and_present(now))
    first = in_json("runs", "list")["states"]
    publish(started("Later", run_id="later", time=now))
    second = in_json("runs", "list")["states"]
    before = answer("collect", "--dump")
    answer("collect", "--rebuild")
    after = answer("collect", "--dump")
    broker.node.kill()
    gone = CliRunner().invoke(app, ["runs", "list", "--json"])

    assert (first, second) == ({"running": 1, "failed": 1}, {"running": 2, "failed": 1})
    assert after == before
    assert gone.exit_code == 1
    assert json.loads(gone.stdout)["states"] == second
    assert re.search(r"; the store has all events until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", gone.stderr.strip())


def test_the_store_may_be_in_postgresql(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, now: datetime
) -> None:
    """`DKIST_CORE_INBOX` names the database; its password is not shown."""
    postgres.create_database("collected")
    monkeypatch.setenv("DKIST_CORE_INBOX", postgres.url("collected", driver="psycopg"))
    publish(*past_and_present(now))
    found = in_json("runs", "list")["states"]
    with Collector(read_settings()) as collector:
        where = collector.where

    assert found == {"running": 1, "failed": 1}
    assert where.startswith("postgresql://core@")
    assert postgres.password not in where
