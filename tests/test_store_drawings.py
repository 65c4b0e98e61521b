"""
The tables of `dkist-core runs`, `top` and `failures` in narrow and wide terminals, with few characters and with many.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from dkist_processing_core.cli.draw.attempt_table import draw_attempts
from dkist_processing_core.cli.draw.failure_table import draw_failures
from dkist_processing_core.cli.draw.family_sheet import draw_family
from dkist_processing_core.cli.draw.glyphs import UNICODE
from dkist_processing_core.cli.draw.run_sheet import draw_run
from dkist_processing_core.cli.draw.run_table import draw_runs, summary
from dkist_processing_core.cli.draw.stack_sheet import draw_recording
from dkist_processing_core.cli.draw.table import Column, Line, draw_table
from dkist_processing_core.cli.draw.task_sheet import draw_task
from dkist_processing_core.cli.draw.timeline import draw_timeline
from dkist_processing_core.cli.draw.usage_table import draw_usage
from dkist_processing_core.cli.store.next_steps import next_steps
from dkist_processing_core.collect.questions.answers import Choice
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.events import Event, TaskOverdue, WorkflowOverdue
from dkist_processing_core.recorder.reading import Recording
from dkist_processing_core.runs import State, kept_reports, run_view
from dkist_processing_core.testing import run_that_succeeds, run_with_killed_attempt
from tests.facts import NOON, finished, make
from tests.generated import generated_by
from tests.running import ROOT
from tests.stored import ENDED, RUNNING, ended_run, running_run
from tests.test_store import NOW, YESTERDAY, empty, fill

_Draw = Callable[..., Iterable[Text]]
_CALIBRATE = Recording(
    identity={"run_id": "20261122T090000", "task": "Calibrate", "attempt": 2},
    pid=4711,
    stack=(
        'Thread "MainThread":\n  calibrate.py:40 in fit\n  calibrate.py:12 in run\n\n'
        'Thread "reader":\n  frames.py:31 in read\n'
    ),
    stack_age=0.3,
    phase="run",
    phase_age=94.0,
    progress="4/12 frame",
    progress_age=2.1,
)


def alarms() -> Iterator[Event]:
    """
    Yield alarms about two attempts of the run that goes on, and about the run.
    """
    identity = {"workflow_name": "l1_to_l2_dlnirsp", "workflow_version": "dev", "run_id": RUNNING}
    of_alarm: dict[str, Any] = identity | {"recipe_run_id": 42, "reported_by": "watcher", "time": NOW}
    started_at = NOW - timedelta(seconds=95)
    silent, idle = NOW - timedelta(seconds=8040), NOW - timedelta(seconds=4500)
    yield make(TaskOverdue, "Gather", sequence=_number(silent), limit_seconds=90.0, exceeded="silence", **of_alarm)
    yield make(
        TaskOverdue,
        "Invert",
        attempt=2,
        max_attempts=3,
        sequence=_number(started_at),
        limit_seconds=60.0,
        exceeded="duration",
        **of_alarm,
    )
    yield make(WorkflowOverdue, sequence=_number(idle), limit_seconds=3600.0, **of_alarm)


def _number(moment: datetime) -> int:
    return 2 * int(moment.timestamp() * 1000)


@cache
def drawings() -> dict[str, _Draw]:
    """
    Return the functions that draw each table of a store with runs of every kind, given the width.
    """
    with empty() as store, store.begin() as connection:
        yesterday = ended_run(YESTERDAY, begin=NOON - timedelta(days=1), version="1.2.2")
        fill(connection, [[*yesterday, *ended_run(), *running_run(now=NOW)]])
        questions = Questions(connection)
        runs, attempts = questions.runs(Choice(), most_failures=None), questions.open_attempts(Choice())
        silent = questions.open_attempts(Choice(), silent_since=NOW - timedelta(hours=1))
        families = questions.families(Choice(since=NOON))
        limb = questions.family(Choice(family=families[0].family))
        assert limb is not None
        short_id = questions.short_ids(run.run.run_id for run in runs).of
        number = questions.run_number(ENDED)
        assert number is not None
        reports = questions.reports(number)
    with empty() as store, store.begin() as connection:
        killed = run_with_killed_attempt()
        fill(connection, [[*run_that_succeeds(run_id="1").events, *killed.events]])
        usage = Questions(connection).usages(Choice())
    with empty() as store, store.begin() as connection:
        overdue_events = [*running_run(now=NOW), *alarms()]
        fill(connection, [overdue_events])
        questions = Questions(connection)
        overdue_runs, overdue = questions.runs(Choice()), questions.open_attempts(Choice())
    of_overdue = run_view(kept_reports(overdue_events))
    of_killed = run_view(killed.events)
    view = run_view(kept_reports(reports))
    return {
        "list": partial(draw_runs, runs, short_id=short_id, now=NOW, zone=UTC),
        "show": partial(draw_run, view, reports, short_id=short_id(ENDED), now=NOW, zone=UTC),
        "top": partial(draw_attempts, attempts, short_id=short_id, now=NOW),
        "silent": partial(draw_attempts, silent, short_id=short_id, now=NOW),
        "failures": partial(draw_failures, families, short_id=short_id, zone=UTC),
        "task": partial(
            draw_task,
            of_killed,
            of_killed.tasks[1],
            killed.events,
            short_id="20261122T090000",
            now=killed.clock.now,
            zone=UTC,
        ),
        "timeline": partial(draw_timeline, of_killed, short_id="20261122T090000", now=killed.clock.now, zone=UTC),
        "usage": partial(draw_usage, *usage),
        "overdue": partial(draw_attempts, overdue, short_id=short_id, now=NOW, zone=UTC),
        "overdue list": partial(draw_runs, overdue_runs, short_id=short_id, now=NOW, zone=UTC),
        "overdue show": partial(draw_run, of_overdue, overdue_events, short_id="8bf54b12", now=NOW, zone=UTC),
        "overdue task": partial(
            draw_task, of_overdue, of_overdue.tasks[0], overdue_events, short_id="8bf54b12", now=NOW, zone=UTC
        ),
        "overdue timeline": partial(draw_timeline, of_overdue, short_id="8bf54b12", now=NOW, zone=UTC),
        "stack": partial(draw_recording, _CALIBRATE, short_id="20261122T090000"),
        "family": lambda **form: draw_family(
            limb, steps=next_steps(limb.family, short_id(ENDED)), short_id=short_id, zone=UTC, **form
        ),
    }


def text_of(lines: Iterable[Text]) -> str:
    """
    Return lines without their colours.
    """
    return "\n".join(line.plain for line in lines)


RUNS_80 = """\
  run              workflow      version  recipe  began              took  tasks
● 8bf54b12         l1_to_l2_dl…  dev          42  11-22 09:50  2 h 15 min  0/4
✗ 20261122T110000  l0_to_l1_vi…  1.2.3         7  11-22 12:00  1 min 10 s  6/6
    Calibrate: exception in run: LimbError: no limb in frame 3
    Polcal: out of memory (SIGKILL) at 61 GB
✗ 20261121T110000  l0_to_l1_vi…  1.2.2         7  11-21 12:00  1 min 10 s  6/6
    Calibrate: exception in run: LimbError: no limb in frame 3
    Polcal: out of memory (SIGKILL) at 61 GB"""

TOP_80 = """\
  run       workflow          task     attempt         age      silent  progress
● 8bf54b12  l1_to_l2_dlnirsp  Gather   1/1      2 h 14 min  2 h 14 min
● 8bf54b12  l1_to_l2_dlnirsp  Invert   2/3      1 min 35 s       2.0 s  45 %
○ 8bf54b12  l1_to_l2_dlnirsp  Publish  1/1           0.4 s       0.4 s"""

RUNS_80_OVERDUE = """\
  run       workflow          version  recipe  began              took  tasks
● 8bf54b12  l1_to_l2_dlnirsp  dev          42  11-22 09:50  2 h 15 min  0/4
    ! overdue since 11:50:00: no attempt and no report for 1 h 15 min, limit 1 h
    00 min"""

TOP_80_OVERDUE = """\
  run       workflow          task     attempt         age      silent  progress
● 8bf54b12  l1_to_l2_dlnirsp  Gather   1/1      2 h 14 min  2 h 14 min
    ! overdue since 09:52:30: silent for 2 h 14 min, limit 1 min 30 s
● 8bf54b12  l1_to_l2_dlnirsp  Invert   2/3      1 min 35 s       2.0 s  45 %
    ! overdue since 12:04:25: running for 1 min 35 s, limit 1 min 00 s
○ 8bf54b12  l1_to_l2_dlnirsp  Publish  1/1           0.4 s       0.4 s"""

SHOW_80_OVERDUE = """\
● l1_to_l2_dlnirsp dev · running for 2 h 15 min
  4 tasks: 1 waiting, 1 dispatched, 2 running
  recipe run 42 · began 2026-11-22 09:50:00 · run 8bf54b12
  id local__42__20261122T115000Z__8bf54b12
  ! overdue since 11:50:00: no attempt and no report for 1 h 15 min, limit 1 h
    00 min

  task       state       began           took  host
● Gather     running     09:51:00  2 h 14 min  node1
    ! overdue since 09:52:30: silent for 2 h 14 min, limit 1 min 30 s
● Invert     running     12:03:25  1 min 35 s  node2
    ! overdue since 12:04:25: running for 1 min 35 s, limit 1 min 00 s
    at 45/100 profile (tile 3 of 8)
○ Publish    dispatched  12:04:59
· Summarize  waiting"""

TASK_200_OVERDUE = """\
> Gather running, l1_to_l2_dlnirsp dev, recipe run 42, run 8bf54b12

> attempt 1, running for 2 h 14 min, on node1
  ! overdue since 09:52:30: silent for 2 h 14 min, limit 1 min 30 s
  times           started 09:51:00"""

TIMELINE_200_OVERDUE = """\
> l1_to_l2_dlnirsp dev, running for 2 h 15 min, 4 tasks: 1 waiting, 1 dispatched, 2 running
  recipe run 42, began 2026-11-22 09:50:00, run 8bf54b12, id local__42__20261122T115000Z__8bf54b12
  ! overdue since 11:50:00: no attempt and no report for 1 h 15 min, limit 1 h 00 min

> Gather    .======================================================================================================================================== 2 h 14 min
    ! overdue since 09:52:30: silent for 2 h 14 min, limit 1 min 30 s
> Invert    .......................................................................................................................................== 1 min 35 s
    ! overdue since 12:04:25: running for 1 min 35 s, limit 1 min 00 s
    at 45/100 profile (tile 3 of 8)
o Publish   .........................................................................................................................................
. Summarize waiting
            +---------+---------+---------+----------+---------+---------+---------+---------+---------+---------+----------+---------+---------+----
            0         10        20        30         40        50        60        70        80        90       100        110       120       130 min
            .. waiting   -- preparing   == running (the duration)"""  # noqa: E501 - the width is what is tested

TOP_200_ASCII = """\
  run       workflow          version  recipe  task     attempt  state       host          age      silent  progress
> 8bf54b12  l1_to_l2_dlnirsp  dev          42  Gather   1/1      running     node1  2 h 14 min  2 h 14 min
> 8bf54b12  l1_to_l2_dlnirsp  dev          42  Invert   2/3      running     node2  1 min 35 s       2.0 s  45 %, 45/100 profile (tile 3 of 8)
o 8bf54b12  l1_to_l2_dlnirsp  dev          42  Publish  1/1      dispatched              0.4 s       0.4 s"""  # noqa: E501 - the width is what is tested

FAILURES_80 = """\
  count  final  first seen   last seen    workflow             task
✗     2      1  11-21 12:00  11-22 12:01  l0_to_l1_visp 1.2.3  Calibrate
    exception in run: LimbError: no limb in frame 3
    family 5f0ac1d2, in 1 run of 1 recipe run, last in run 20261122T110000:
    https://airflow.example/log?task=Calibrate&try=2
✗     1      1  11-21 12:00  11-22 12:00  l0_to_l1_visp 1.2.3  Polcal
    out of memory (SIGKILL) at 61 GB
    family a078911c, in 1 run of 1 recipe run, last in run 20261122T110000"""


@pytest.mark.parametrize(
    ("name", "width", "ascii_only", "expected"),
    [
        ("list", 80, False, RUNS_80),
        ("top", 80, False, TOP_80),
        ("top", 200, True, TOP_200_ASCII),
        ("failures", 80, False, FAILURES_80),
        ("overdue", 80, False, TOP_80_OVERDUE),
        ("overdue list", 80, False, RUNS_80_OVERDUE),
        ("overdue show", 80, False, SHOW_80_OVERDUE),
        ("overdue task", 200, True, TASK_200_OVERDUE),
        ("overdue timeline", 200, True, TIMELINE_200_OVERDUE),
    ],
)
def test_a_table_is_drawn_as_intended(name: str, width: int, ascii_only: bool, expected: str) -> None:  # noqa: FBT001
    """The lines are these, character by character."""
    drawn = text_of(drawings()[name](width=width, ascii_only=ascii_only))

    # The column of the durations is as wide on a line that has none.
    assert [line.rstrip() for line in drawn.splitlines()] == expected.splitlines()


def test_a_run_is_shown_with_its_retry_its_failure_its_skipped_branch_and_its_killed_attempt() -> None:
    """Each attempt has its row with its measurements, and below it why it failed."""
    drawn = text_of(drawings()["show"](width=120))

    assert [line for line in drawn.splitlines() if line and line[0] in "✓↻✗»–"][1:] == [  # noqa: RUF001 - an en dash is meant
        "✓ ParseL0       finished         12:00:02  12.4 s  10.1 s  184 MB  node7",
        "↻ Calibrate     failed           12:00:16  21.0 s  19.0 s  2.6 GB  node7",
        "✗   attempt 2   failed           12:00:46  21.0 s  19.0 s  2.6 GB  node7",
        "✗ Polcal        failed           12:00:16  24.0 s           61 GB  node8",
        "» QualityMovie  skipped",
        "– Transfer      upstream failed",  # noqa: RUF001 - an en dash is meant
        "» Notify        skipped",
    ]
    assert "    out of memory (SIGKILL) at 61 GB\n    at 9/20 frame (dark current)" in drawn
    assert 'calibrate.py", line 131, in find_limb\n      raise LimbError(' in drawn
    assert "    log: https://airflow.example/log?task=Calibrate&try=2" in drawn


@pytest.mark.parametrize("width", [60, 80, 200, None])
def test_a_run_of_which_no_start_was_reported_began_before_its_first_report(width: int | None) -> None:
    """It lasted longer than is known, at every width."""
    with empty() as store, store.begin() as connection:
        fill(connection, [[finished("A", run_id="late", time=NOON + timedelta(seconds=3))]])
        runs = Questions(connection).runs(Choice())
    drawn = text_of(draw_runs(runs, short_id=str, now=NOW, width=width, zone=UTC)).splitlines()
    form = "2026-11-22 12:00:03" if width in (200, None) else "11-22 12:00"

    assert ">" in drawn[1]
    assert drawn[2] == f"    began before {form}: no start was reported"


@pytest.mark.parametrize("name", ["list", "show", "top", "failures", "family"])
@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 100, 139, 140, 200])
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    """A narrow terminal folds or cuts the lines."""
    widest = max(line.cell_len for line in drawings()[name](width=width))

    assert widest <= width


@pytest.mark.parametrize("name", ["list", "show", "top", "failures", "family"])
def test_a_terminal_with_few_characters_gets_only_these(name: str) -> None:
    """With ASCII alone, marks and ellipses are ASCII."""
    drawn = [text_of(drawings()[name](width=width, ascii_only=True)) for width in (60, 80, 200)]

    assert all(each.isascii() for each in drawn)


@pytest.mark.parametrize("name", ["list", "show", "top", "failures", "family"])
def test_nothing_is_cut_without_a_terminal(name: str) -> None:
    """A file gets whole names and whole reasons."""
    drawn = text_of(drawings()[name](width=None))

    assert "…" not in drawn


def test_colours_repeat_what_the_marks_state() -> None:
    """Without colours, a failed run is still told apart from one that runs."""
    marks = {line.plain[0] for line in drawings()["list"](width=200) if line.plain[0] != " "}

    assert marks == {"●", "✗"}


def test_the_summary_counts_all_runs_also_those_that_are_not_shown() -> None:
    """One line answers how it went."""
    states = {State.RUNNING: 2, State.FINISHED: 180, State.FAILED: 30}

    assert summary(states, 212, since=None) == "212 runs: 2 running, 180 finished, 30 failed"
    assert summary(states, 50, since=NOON, zone=UTC) == (
        "212 runs since 2026-11-22 12:00:00: 2 running, 180 finished, 30 failed; "
        "the latest 50 are shown, --limit 0 shows all"
    )
    assert summary({}, 0, since=NOON, zone=UTC) == "no run since 2026-11-22 12:00:00"


@given(
    texts=st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1, max_size=4),
    width=st.integers(10, 120),
)
def test_any_text_fits_the_width(texts: list[tuple[str, str]], width: int) -> None:
    """Texts with wide or invisible characters do not break the table."""
    columns = [Column("one", least=4), Column("two", is_number=True, least=4)]
    lines = [Line(("x", ""), [(one, ""), (two, "")], [(one + two, "")]) for one, two in texts]

    assert max(line.cell_len for line in draw_table(columns, lines, width=width, glyphs=UNICODE)) <= width


PAGES = {ROOT / "docs" / "how-to" / "operate.md": 7, ROOT / "docs" / "how-to" / "attempts.md": 4}
"""The pages with drawings, and how many each has."""
_DRAWN = re.compile(r"(<!-- drawn: (\w+) -->\n```console\n\$ [^\n]*\n)(.*?)(```)", re.DOTALL)


def page(text: str) -> str:
    """
    Return a page for operators with the drawings of this release, as wide as the page shows them.
    """
    below = {"list": f"{summary({State.RUNNING: 1, State.FAILED: 2}, 3, since=NOW - timedelta(days=7), zone=UTC)}\n"}
    above = {
        "top": "3 attempts of 1 run  12:05:00\n",
        "overdue": "3 attempts of 1 run  12:05:00\n",
        "silent": "1 attempt of 1 run  12:05:00\n",
    }

    def drawn(found: re.Match[str]) -> str:
        name = found[2]
        lines = text_of(drawings()[name](width=100))
        return f"{found[1]}{above.get(name, '')}{lines}\n{below.get(name, '')}{found[4]}"

    return _DRAWN.sub(drawn, text)


@generated_by(".venv/bin/python -m tests.test_store_drawings")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_a_page_for_operators_shows_what_the_commands_draw(path: Path) -> None:
    """
    Each answer on the page is the drawing of a store with runs of every kind.
    """
    written = path.read_text()

    assert len(_DRAWN.findall(written)) == PAGES[path]
    assert written == page(written)


if __name__ == "__main__":
    for each in PAGES:
        each.write_text(page(each.read_text()))
