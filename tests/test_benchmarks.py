"""
The figures of the benchmarks: how samples become rows, how rows become the page, and whether the page matches its
figures.

Not here: measuring, which is `make bench`.
"""

import asyncio
import contextlib
import io
import json
import re
import socket
import sys
from pathlib import Path

import pytest
from msgspec import structs

from benchmarks import inbox_growth, launch, page, parse, telemetry
from benchmarks.aims import AIMS, Aim
from benchmarks.consuming import (
    EFFECTS,
    EFFECTS_BATCH,
    HAND_WRITTEN,
    SQLITE,
    STORED,
    Databases,
    filled_queue,
    with_inbox,
)
from benchmarks.corpus import event_at, write_messages
from benchmarks.figures import (
    Findings,
    Row,
    compare,
    key_of,
    median_of_rounds,
    percentile,
    percentile_99,
    rounded,
)
from benchmarks.ground import Ground, Side, run
from benchmarks.latency import UNSYNCED, UP, Scene
from benchmarks.plan import Plan
from benchmarks.rates import BULK, BULK_ENCODED, DRAIN
from benchmarks.replaced import _looks as looks
from benchmarks.replaced._homes import Home
from benchmarks.replaced._pipeline import command_of
from benchmarks.replaced._processes import COLLECTORS, mesh_config
from benchmarks.replaced._sides import OURS, THEIRS, ReplacedError, find_python, pins
from benchmarks.replaced._sides import Side as Release
from benchmarks.replay_into_inbox import replay
from benchmarks.sides.job import Job
from benchmarks.sides.library import settings_of
from benchmarks.sides.library_publish import open_publisher
from benchmarks.sides.windowed import publish_in_window
from benchmarks.task_exit import WELL, WHOLE_RUN, wall_seconds
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import encode
from dkist_processing_core.otlp import endpoint_of
from tests.generated import generated_by
from tests.services.postgres import PostgresServer
from tests.services.rabbitmq import RabbitMQNode
from tests.services.sockets import LOOPBACK, closed_port
from tests.test_export import GOLDEN

# As the replaced release exports a task, without the lines about the worker.
ESTABLISHED = """
from datetime import timedelta
from functools import partial
from airflow import DAG
from airflow.providers.standard.operators.bash import BashOperator
from dkist_processing_core.failure_callback import chat_ops_notification
with DAG(dag_id='a_1.0', schedule=None, catchup=False, tags=["1.0"]) as d:
    task_operator = BashOperator(
        task_id='Task',
        bash_command='''echo Run Main Command
python -c "with Task(recipe_run_id={{dag_run.conf['recipe_run_id']}}) as task: task()"''',
        retries=2,
        on_failure_callback=partial(chat_ops_notification, workflow_name='a', workflow_version='1.0', task_name='Task'),
        pool="default_pool",
        output_processor=str,
    )
"""
ROW = Row(name="draining", unit="messages/s", ours=20_000.0, other=12_345.678, other_name="a peer", ratio=1.62)


def results() -> page.Results:
    """
    Return the figures of the page in docs/.
    """
    return page.Results.read()


@generated_by(".venv/bin/python -m benchmarks.page")
def test_the_page_shows_the_last_figures() -> None:
    """
    docs/benchmarks.md is exactly the text that the program writes from the stored figures.
    """
    expected = page.render(results())

    assert page.PAGE.read_text(encoding="utf-8") == expected


@generated_by("make bench BENCH_ARGS=--write-docs")
def test_every_plot_of_the_page_is_there_and_small() -> None:
    """
    The page's images are in the repository, and are small.
    """
    sizes = {path.name: path.stat().st_size for path in page.IMAGES.glob("bench-*.png")}

    named = {part.split(")")[0] for part in page.PAGE.read_text().split("](images/")[1:]}
    assert set(sizes) == named
    assert max(sizes.values()) < 100_000


def test_last_figures_are_rows_of_the_promised_form() -> None:
    """
    Each row of bench.json has the same six keys, with figures as numbers.
    """
    rows = [row for part in results().parts.values() for row in part]

    assert rows
    assert {tuple(row) for row in rows} == {("name", "unit", "ours", "other", "other_name", "ratio")}
    assert {type(row[key]) for row in rows for key in ("ours", "other", "ratio")} <= {float, int}


@generated_by("make bench BENCH_ARGS=--write-docs")
def test_every_aim_finds_its_figure() -> None:
    """
    An aim without a row would never be missed.
    """
    rows = [row for part in results().parts.values() for row in part]

    without = [aim.text for aim in AIMS if aim.value(rows) is None]

    assert without == []


def test_a_row_holds_medians_and_the_median_of_the_ratios_in_pairs() -> None:
    """
    A machine that gets slower during a run slows both sides, and the ratio stays.
    """
    row = compare("draining", "messages/s", [200.0, 100.0, 60.0], [100.0, 50.0, 20.0], "a peer")

    expected = Row(name="draining", unit="messages/s", ours=100.0, other=50.0, other_name="a peer", ratio=2.0)
    assert row == expected


def test_a_finding_keeps_the_spread() -> None:
    """
    In addition to the medians, it states the spread of the samples.
    """
    findings = Findings()

    findings.add("draining", "messages/s", [3.0, 1.0, 2.0], [1.0, 1.0, 1.0], "a peer")

    assert findings.notes["draining | a peer"]["ours"] == {"median": 2.0, "least": 1.0, "most": 3.0, "samples": 3}


def test_a_plot_shows_what_the_table_does() -> None:
    """
    A disturbed round counts as one of the rounds, however many samples it has.
    """
    rounds = [[1.0, 1.0, 2.0], [1.0, 1.0, 3.0], [9.0, 9.0, 9.0]]
    row = compare("publish()", "ms", [percentile_99(samples) for samples in rounds], [1.0] * 3, "a peer")

    shown = median_of_rounds(rounds, percentile_99)

    assert shown == row["ours"] == 3.0


def test_percentile_is_a_sample() -> None:
    """
    The 99th percentile is a measured call, and of few calls the slowest.
    """
    assert percentile([5.0, 1.0, 3.0], 0.99) == 5.0
    assert percentile([float(number) for number in range(101)], 0.99) == 99.0


def test_a_table_names_a_figure_once_for_all_its_peers() -> None:
    """
    Rows of one figure form a group.
    """
    shown = page.table([ROW, Row(**{**ROW, "other_name": "another"})]).splitlines()[2:]

    assert shown == [
        "| draining, messages/s | 20,000 | 12,346 | a peer | 1.62 |",
        "|  | 20,000 | 12,346 | another | 1.62 |",
    ]


def test_a_table_shows_the_spread_of_the_rows_that_ask_for_it() -> None:
    """
    A figure with a large spread is not read as exact.
    """
    findings = Findings()
    findings.add("draining", "messages/s", [900.0, 100.0, 300.0], [50.0, 50.0, 40.0], "a peer", shows_spread=True)
    findings.add("draining", "messages/s", [900.0, 100.0, 300.0], [50.0, 50.0, 40.0], "another")

    shown = page.table(findings.rows, findings.spreads).splitlines()[2:]

    assert shown == [
        "| draining, messages/s | 300 (100 to 900) | 50.0 (40.0 to 50.0) | a peer | 7.50 |",
        "|  | 300 | 50.0 | another | 7.50 |",
    ]


def test_a_table_shows_no_spread_of_a_limit() -> None:
    """
    A value that is the same in each round was not measured.
    """
    findings = Findings()
    findings.add("added", "s", [0.1, 0.2, 0.3], [2.0] * 3, "the limit", shows_spread=True)

    shown = page.table(findings.rows, findings.spreads).splitlines()[2:]

    assert shown == ["| added, s | 0.200 (0.100 to 0.300) | 2.00 | the limit | 0.100 |"]


def test_the_page_tells_how_busy_the_machine_was() -> None:
    """
    A reader of figures from a busy machine is informed of it.
    """
    text = page.render(page.Results("a machine", 1.5, 5, {}, {}))

    assert "a machine; load average before: 1.50." in text


def test_the_cost_of_our_own_stands_beside_the_bare_insert() -> None:
    """
    A reader can subtract SQLite's part, in the tight loop and at a task's pace.
    """
    rows = [
        Row(name=aim.name, unit="ms", ours=0.25, other=0.0125, other_name=aim.other_name, ratio=20.0)
        for aim in AIMS
        if aim.shows_other
    ]

    tight, paced = page.aims_table(rows).splitlines()[2:]

    assert "in a tight loop, broker known to be dead" in tight
    assert "(bare SQLite insert, not synced, in a tight loop: 0.0125) | at most 0.1 | 0.250 | **missed** |" in tight
    assert "one each 5 ms, broker known to be dead" in paced
    assert "(bare SQLite insert, not synced: 0.0125) | at most 0.1 | 0.250 | **missed** |" in paced


@pytest.mark.parametrize(("value", "text"), [(12_345.6, "12,346"), (123.4, "123"), (1.5, "1.50"), (0.01234, "0.0123")])
def test_figures_are_shown_with_the_digits_that_count(value: float, text: str) -> None:
    """
    No measurement is exact to the seventh digit.
    """
    assert page.shown(value) == text


@pytest.mark.parametrize(("ratio", "is_met"), [(0.79, False), (0.8, True), (1.4, True)])
def test_an_aim_that_is_missed_is_said_to_be(ratio: float, is_met: bool) -> None:  # noqa: FBT001 - a table's column
    """
    The page shows aims that were not reached.
    """
    aim = Aim("draining", "draining", "a peer", "ratio", least=0.8)

    value = aim.value([Row(**{**ROW, "ratio": ratio})])

    assert value == ratio
    assert aim.is_met_by(value) is is_met


@pytest.mark.parametrize(("ratio", "is_met"), [(0.0334, False), (0.0333, True), (0.02, True)])
def test_an_aim_may_say_how_many_times_as_fast_we_are(ratio: float, is_met: bool) -> None:  # noqa: FBT001 - as above
    """
    Of seconds the ratio is a small number that is hard to picture.
    """
    aim = Aim("a second task", "a second task", "as established", "times", least=30)

    value = aim.value(
        [Row(name="a second task", unit="s", ours=0.3, other=9.0, other_name=aim.other_name, ratio=ratio)]
    )

    assert value == rounded(1 / ratio)
    assert aim.is_met_by(value) is is_met


def test_a_part_is_measured_anew_and_the_others_stay() -> None:
    """
    A single part can be measured again, and no reader takes two runs for one.
    """
    old = page.Results(
        "a machine",
        0.1,
        5,
        {"rates": [ROW], "growth": [Row(**{**ROW, "name": "growing"}), Row(**{**ROW, "name": "gone"})]},
        {"growing | a peer": {"ours": [1.0, 2.0]}, "gone | a peer": {}, "draining | a peer": {"ours": [3.0, 4.0]}},
    )
    newer = page.Results("another", 0.75, 3, {"growth": [Row(**{**ROW, "name": "growing", "ours": 7.0})]}, {})

    merged = old.with_parts_of(newer)

    assert merged.parts == {"rates": [ROW], **newer.parts}
    assert merged.spreads == {"draining | a peer": {"ours": [3.0, 4.0]}}
    assert (merged.machine, merged.load, merged.rounds) == ("a machine", 0.1, 5)
    assert merged.apart == {"growth": "on another; 3 rounds; load average before: 0.75"}


def test_the_page_tells_which_part_was_measured_apart() -> None:
    """
    The first lines of the page describe one run, which is not the run of that part.
    """
    whole = page.Results("a machine", 0.1, 5, {"rates": [ROW], "startup": [ROW]}, {})
    word = "Measured in another run,\non another; 3 rounds; load average before: 0.75."

    merged = page.render(whole.with_parts_of(page.Results("another", 0.75, 3, {"startup": [ROW]}, {})))

    assert word in merged.partition("## What a task's process costs")[2]
    assert merged.count(word) == 1
    assert "another run" in merged.partition("## At a glance")[0]
    assert "another run" not in page.render(whole)


def test_figures_are_kept_as_they_were_found(tmp_path: Path) -> None:
    """
    The written figures are read back unchanged, including those of parts measured separately.
    """
    kept = results()

    kept.write(tmp_path / "last.json")

    assert page.Results.read(tmp_path / "last.json") == kept


def test_the_callbacks_are_measured_beside_the_same_dag_without_them() -> None:
    """
    Only the parts of this library are left out: an operator of it keeps all other arguments.
    """
    exported = (GOLDEN / "l0_to_l1_visp_sample_1.2.3.py.txt").read_text()

    plain = parse.without_callbacks(exported)

    assert "dkist_processing_core." in exported
    assert not re.search(r"_callback|callbacks\b|macros|from dkist_processing_core", plain)
    for kept in ("'append_env': True", "'skip_on_exit_code': None", "retries=3", "tasks['First'] >> tasks['Second']"):
        assert kept in exported
        assert kept in plain


def test_nothing_of_the_replaced_release_is_in_the_bare_dag_beside_its_own() -> None:
    """
    Only its failure callback and the imports of the callback are removed.
    """
    plain = parse.without_callbacks(ESTABLISHED)

    assert "dkist_processing_core" not in plain
    assert "callback" not in plain
    for kept in ("retries=2", "pool='default_pool'", "output_processor=str", "echo Run Main Command"):
        assert kept in plain


def test_the_command_of_the_replaced_release_is_run_to_the_letter() -> None:
    """
    Airflow fills in the recipe run id; any other template is not guessed.
    """
    command = command_of(ESTABLISHED)

    expected = 'echo Run Main Command\npython -c "with Task(recipe_run_id=1) as task: task()"'
    assert command == expected
    with pytest.raises(ReplacedError, match="more than a recipe run id"):
        command_of(ESTABLISHED.replace("recipe_run_id'", "another'"))
    with pytest.raises(ReplacedError, match="holds no command"):
        command_of("d = 1\n")


def test_what_a_look_adds_is_measured_beside_each_sides_own_bare_dag() -> None:
    """
    Airflow's part is subtracted round by round, and the full look is shown next to it.
    """
    findings = Findings()
    bare = parse.Look(40.0, 29, 3.5)

    looks.add_looks(
        findings,
        {
            OURS: [(parse.Look(42.0, 32, 3.75), bare), (parse.Look(62.0, 32, 3.75), parse.Look(60.0, 29, 3.5))],
            THEIRS: [(parse.Look(840.0, 829, 53.5), bare), (parse.Look(840.0, 829, 53.5), bare)],
        },
    )

    shown = {row["name"]: (row["ours"], row["other"], row["ratio"]) for row in findings.rows}
    assert shown[looks.LOOK] == (52.0, 840.0, 0.0619)
    assert shown[looks.BARE] == (50.0, 40.0, 1.25)
    assert shown[looks.ADDED] == (2.0, 800.0, 0.0025)
    assert shown[looks.ADDED_MODULES] == (3.0, 800.0, 0.00375)
    assert shown[looks.ADDED_MEMORY] == (0.25, 50.0, 0.005)


def test_an_environment_is_as_big_as_what_was_installed(tmp_path: Path) -> None:
    """
    Files that Python compiles in other measurements do not count, and neither does the linked interpreter.
    """
    site = tmp_path / "lib" / "python3.13" / "site-packages"
    for name in ("one-1.0.dist-info/METADATA", "two-2.0.dist-info/METADATA", "one.py", "__pycache__/one.pyc"):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(b"0123456789")
    (site / "python").symlink_to(site / "one.py")

    home = Home(tmp_path)

    assert (home.size, home.distributions) == (30, 2)


def test_both_releases_hold_the_same_versions_of_what_they_need() -> None:
    """
    Each is installed at its own version, so the version of the lock is left out.
    """
    pinned = pins()

    names = [pin.partition("==")[0] for pin in pinned]
    assert "dkist-processing-core" not in names
    assert {"apache-airflow", "opentelemetry-sdk", "pika", "pydantic"} <= set(names)
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", pin) for pin in pinned)


@pytest.mark.processes
def test_without_the_only_python_of_both_there_are_no_figures(tmp_path: Path) -> None:
    """
    One sentence states which Python to install.
    """
    finds_none = tmp_path / "find"
    finds_none.write_text("#!/bin/sh\nexit 1\n")
    finds_none.chmod(0o755)

    with pytest.raises(ReplacedError, match=r"^Install Python 3\.13 to measure beside release 7\.5\.0[^.]*\.$"):
        find_python(finds_none)


@pytest.mark.processes
def test_another_release_is_not_taken_for_the_one_that_is_named(tmp_path: Path) -> None:
    """
    An environment may have changed since it was created, or may never have been created.
    """
    with pytest.raises(ReplacedError, match=r"imports release .*, and not 7\.5\.0"):
        Release("7.5.0", Path(sys.executable)).check()
    with pytest.raises(ReplacedError, match="make bench"):
        Release("7.5.0", tmp_path / "python").check()


@pytest.mark.parametrize("name", COLLECTORS)
def test_a_collector_that_nobody_has_tried_is_noticed(name: str) -> None:
    """
    A task that exports nothing would be fast for the wrong reason.
    """
    with COLLECTORS[name]() as (port, was_tried):
        before = was_tried(f"settings: mesh_port={port}")
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, port)).close()
        after = was_tried(f"nobody answers at {LOOPBACK}:{port}")

    assert (before, after) == (False, True)


def test_the_collector_is_named_to_both_sides_by_one_setting() -> None:
    """
    The replaced release and this library read the same setting, for each signal that both send.
    """
    settings = DKISTProcessingCoreConfiguration(mesh_config=json.loads(mesh_config(4317)))

    endpoints = [endpoint_of(settings, "traces"), endpoint_of(settings, "metrics")]

    assert endpoints == ["http://127.0.0.1:4317"] * 2


def test_a_task_says_once_when_it_began() -> None:
    """
    Other lines of its log are ignored; without the line there is no figure.
    """
    log = "installed\nfirst line at 1795378273.25\na warning\n"

    assert launch.first_line_at(log) == 1795378273.25
    for unusable in ("installed\n", log + log):
        with pytest.raises(launch.LaunchError, match="and not once"):
            launch.first_line_at(unusable)


def test_what_the_launcher_adds_is_measured_in_pairs() -> None:
    """
    In a round in which the machine is slow, both are slow, and the difference stays.
    """
    findings = Findings()
    seconds = {
        launch.SECOND: [0.3, 0.5, 0.9],
        launch.FLOOR: [0.2, 0.25, 0.8],
        launch.BY_HAND: [0.25, 0.4, 0.85],
        launch.ESTABLISHED: [9.0, 10.0, 27.0],
        launch.FIRST: [2.0, 2.5, 3.0],
    }

    launch.add_ways(findings, seconds)

    shown = {key_of(row): (row["ours"], row["other"], row["ratio"]) for row in findings.rows}
    assert shown[f"{launch.SECOND} | {launch.ESTABLISHED}"] == (0.5, 10.0, 0.03333)
    assert shown[f"{launch.ADDED} | {launch.LIMIT}"] == (0.1, 0.3, 0.3333)
    assert shown[f"{launch.ADDED_TO_CALL} | {launch.LIMIT}"][0] == 0.05
    assert set(findings.spreads) == set(shown)


def test_sides_take_turns_and_nobody_always_comes_first() -> None:
    """
    The effects of one side, such as a warm disk, do not always help the same other side.
    """
    turns = list(Plan(rounds=3).turns(["ours", "one", "two"]))

    assert turns == ["ours", "one", "two", "one", "two", "ours", "two", "ours", "one"]


@pytest.mark.parametrize("size", [1024, 16 * 1024])
def test_every_body_has_the_size_that_is_told(size: int) -> None:
    """
    1 KiB means 1024 bytes, on both sides of a comparison.
    """
    sizes = {len(encode(event_at(number, size))) for number in (0, 7, 99_999)}

    assert sizes == {size}


def test_a_side_reads_the_job_and_the_messages_that_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Peers send the bytes that the library sends.
    """
    path = tmp_path / "messages"
    write_messages(path, 5)
    job = Job("host", 1, "/", "user", "word", "x", "q", {}, str(path), "state", count=3, warm_up=2)
    monkeypatch.setattr("sys.stdin", io.StringIO(job.to_line()))

    first, timed = Job.read().prepared()

    assert [message.body for message in (*first, *timed)] == [encode(event_at(number)) for number in range(5)]
    assert len(timed) == 3
    assert json.loads(timed[0].body)["id"] == timed[0].message_id


def test_a_window_holds_as_many_publishes_as_are_told() -> None:
    """
    That many publishes wait for their confirms at any time, no more, and each message is sent once.
    """
    sent: list[int] = []
    waiting: list[int] = []
    most = 0

    async def publish(number: int) -> None:
        nonlocal most
        waiting.append(number)
        most = max(most, len(waiting))
        await asyncio.sleep(0)
        waiting.remove(number)
        sent.append(number)

    asyncio.run(publish_in_window(publish, range(10), 3))

    assert sorted(sent) == list(range(10))
    assert most == 3


@pytest.mark.parametrize("side", [DRAIN, BULK, BULK_ENCODED], ids=lambda side: side.label)
def test_the_librarys_sides_deliver_what_they_are_told(side: Side, rabbitmq: RabbitMQNode, state_dir: Path) -> None:
    """
    Each reports its time, and has checked the journal's counts before.
    """
    ground = Ground(rabbitmq, state_dir)

    with ground.job(30, warm_up=5) as job:
        found = run(side, job, ground.folder)

    assert 0 < found["seconds"] < 30


def test_the_librarys_consumer_stores_what_waits_in_its_queue(rabbitmq: RabbitMQNode, state_dir: Path) -> None:
    """
    The messages of its first batch are not timed; the side has counted the rows of the inbox.
    """
    ground = Ground(rabbitmq, state_dir)

    with filled_queue(ground, 50) as job:
        found = run(STORED[SQLITE], with_inbox(job, None), ground.folder)

    assert 50 + job.warm_up - 20 <= found["count"] < 50 + job.warm_up
    assert 0 < found["seconds"] < 30


@pytest.mark.parametrize("side", [EFFECTS, EFFECTS_BATCH, HAND_WRITTEN], ids=lambda side: side.label)
def test_the_librarys_handlers_and_the_loop_beside_them_write_each_effect(
    side: Side, rabbitmq: RabbitMQNode, postgres: PostgresServer, state_dir: Path
) -> None:
    """
    Both have counted their effects, and time what follows the warm-up.
    """
    ground = Ground(rabbitmq, state_dir)

    with ground.job(150, warm_up=50) as job, Databases(postgres).database() as address:
        found = run(side, with_inbox(job, address), ground.folder)

    assert 0 < found["count"] <= 150
    assert 0 < found["seconds"] < 30


def test_an_inbox_with_many_rows_is_measured_beside_one_with_few(tmp_path: Path) -> None:
    """
    Each size has a row for both rates.
    """
    findings = Findings()
    files = iter(range(9))

    inbox_growth.add(
        findings,
        Plan(rounds=1, scale=0.005),
        SQLITE,
        lambda: contextlib.nullcontext(f"sqlite:///{tmp_path}/{next(files)}.db"),
    )

    names = [(row["name"], row["other_name"]) for row in findings.rows]
    assert names == [
        (inbox_growth.name_of(what, SQLITE, rows), "10,000 rows")
        for what in (inbox_growth.STORE, inbox_growth.CLAIM)
        for rows in (100_000, 1_000_000)
    ]
    assert all(row["ours"] > 0 for row in findings.rows)


def test_a_replay_of_the_archive_has_one_effect_of_each_event(rabbitmq: RabbitMQNode, state_dir: Path) -> None:
    """
    The program counts the missing and the repeated effects, and compares the memory with its limit.
    """
    words, is_kept = replay(Ground(rabbitmq, state_dir), 300, None)

    assert words.startswith("300 events: ")
    assert "0 missing, 0 repeated" in words
    assert is_kept


def test_the_cost_of_telemetry_is_measured_for_each_of_its_aims(rabbitmq: RabbitMQNode, state_dir: Path) -> None:
    """
    Each task has ended well, and each span and log record of many was in the journal.
    """
    rows = telemetry.measure(Ground(rabbitmq, state_dir), Plan(rounds=1, scale=0.001)).rows

    limits = (telemetry.OFF, telemetry.LIMIT)
    measured = {aim.name for aim in AIMS if aim.other_name in limits and aim.value(rows) is not None}
    exits = {telemetry.exit_name(how, fault) for how, fault in telemetry.EXITS}
    assert measured >= {f"{telemetry.PROCESS}, cpu", f"{telemetry.PROCESS}, wall", telemetry.GROWN, *exits}
    assert all(row["other"] > 0 for row in rows)
    # An exit with a fault may be faster by chance.
    assert all(row["ours"] > 0 for row in rows if row["name"] not in exits | {telemetry.GROWN})


@pytest.mark.parametrize("scene", [UP, UNSYNCED], ids=lambda scene: scene.label)
def test_the_cost_of_a_call_has_a_lap_for_each_event(scene: Scene, rabbitmq: RabbitMQNode, state_dir: Path) -> None:
    """
    The warm-up is not counted.
    """
    ground = Ground(rabbitmq, state_dir)

    with ground.job(30, warm_up=5) as job:
        found = run(scene.side, job, ground.folder)

    assert len(found["laps"]) == 30


@pytest.mark.parametrize("synced", [True, False])
def test_the_calls_that_are_measured_redact_as_a_tasks_do(synced: bool, state_dir: Path) -> None:  # noqa: FBT001 - a table's column
    """
    Redacting the settings' secrets is part of the cost of a task's call.
    """
    password = "a-word-to-blank-out"
    with closed_port() as port:
        settings = settings_of(Job("127.0.0.1", port, "/", "user", password, "x", "q", {}, "", str(state_dir), 1))
        with open_publisher(settings, synced=synced) as publisher:
            publisher.publish(structs.replace(event_at(0), note=f"said {password}"))

    with open_bus(settings).open_journal() as journal:
        [entry] = journal.pending(0, 2)
    assert b"said " in entry.message.body
    assert password.encode() not in entry.message.body


def test_a_whole_run_of_one_task_loses_no_event(rabbitmq: RabbitMQNode, state_dir: Path) -> None:
    """
    It runs engine and task in separate processes, and the journal's counts are checked as after a task's.
    """
    ground = Ground(rabbitmq, state_dir)

    seconds = wall_seconds(ground, WELL, WHOLE_RUN)

    assert 0 < seconds < 30
