"""
Tests of drawing a run: the content of a timeline, and that no report can break the drawing.
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from dkist_processing_core.cli.draw.bars import axis
from dkist_processing_core.cli.draw.glyphs import UNICODE
from dkist_processing_core.cli.draw.lines import EventLines
from dkist_processing_core.cli.draw.scale import Scale
from dkist_processing_core.cli.draw.timeline import MAX_WIDTH, draw_timeline
from dkist_processing_core.cli.draw.words import local_time
from dkist_processing_core.cli.runs.find import PastRuns, find_run
from dkist_processing_core.consumer.backwards import Batch
from dkist_processing_core.errors import DKISTProcessingCoreError, IdentityError
from dkist_processing_core.events import (
    Event,
    Graph,
    Resources,
    TaskDispatched,
    TaskOverdue,
    TaskSkipped,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowOverdue,
    WorkflowStarted,
    format_time,
)
from dkist_processing_core.runs import RunState, RunView
from dkist_processing_core.runs.as_json import run_json
from dkist_processing_core.testing import SampleRun, run_with_killed_attempt, run_with_retry
from dkist_processing_core.text import duration
from tests.facts import NOON, failed, finished, make, progressed, sampled, started
from tests.strategies import events, reports


def after(seconds: float) -> datetime:
    """
    Return a time of the run, which starts at noon.
    """
    return NOON + timedelta(seconds=seconds)


def view_of(*told: Event) -> RunView:
    """
    Return the state of the one run in the reports.
    """
    (view,) = RunState(told).runs
    return view


def drawn(*told: Event, width: int = 60, now: float = 0.0, ascii_only: bool = False) -> list[str]:
    """
    Return the lines of the timeline of the reports, in UTC.
    """
    lines = draw_timeline(view_of(*told), width=width, now=after(now), ascii_only=ascii_only, zone=UTC)
    return [line.plain.rstrip() for line in lines]


def reader_of(*told: Event, size: int | None = None) -> "Backwards":
    """
    Return a function that reads these events backwards, in batches of that size, as the bus does.
    """
    return Backwards(told, size or max(1, len(told)))


@dataclass
class Backwards:
    """
    Events to be read backwards, and how many were read.
    """

    told: Sequence[Event]
    size: int
    read: int = 0

    def __call__(self, _: object) -> Iterator[Batch]:
        """
        Yield the newest batch first.
        """
        for end in range(len(self.told), 0, -self.size):
            events = list(self.told[max(0, end - self.size) : end])
            self.read += len(events)
            yield Batch(events, max(event.time.timestamp() for event in events))


GRAPH = Graph(nodes=("Parse", "Fit", "Sum"), edges=(("Parse", "Fit"), ("Fit", "Sum")))
BEGUN = [
    make(WorkflowStarted, started_at=NOON, graph=GRAPH, reported_by="engine"),
    make(TaskDispatched, "Parse", reported_by="engine"),
    started("Parse", time=after(1)),
    finished("Parse", time=after(5), duration_seconds=4.0),
]
FIRST_TRY = [
    make(TaskDispatched, "Fit", time=after(6), max_attempts=2, reported_by="engine"),
    started("Fit", time=after(7), max_attempts=2),
    progressed("Fit", 3, time=after(8), total=12, unit="frame", note="eit_171"),
    failed(
        "Fit",
        time=after(9),
        max_attempts=2,
        final=False,
        phase="run",
        duration_seconds=2.0,
        error_type="pipeline.errors.LimbNotFoundError",
        message="\n41 of 180 points agree\nask for more",
    ),
]
SECOND_TRY = [
    make(TaskDispatched, "Fit", time=after(11), attempt=2, max_attempts=2, reported_by="engine"),
    started("Fit", time=after(12), attempt=2, max_attempts=2),
    failed("Fit", time=after(20), attempt=2, max_attempts=2, duration_seconds=8.0, cause="signal", signal="SIGKILL"),
]
ENDED = make(
    WorkflowFailed,
    time=after(20),
    ended_at=after(20),
    reported_by="engine",
    tasks={"Parse": "success", "Fit": "failed", "Sum": "upstream_failed"},
)


def test_the_end_of_a_killed_run_has_no_time() -> None:
    """
    The report on a lost run has the time at which somebody looked, which is no duration and moves no bar.
    """
    heard = [
        make(WorkflowStarted, started_at=NOON, graph=Graph(nodes=("A",), edges=())),
        started("A", time=after(1)),
        progressed("A", 3, time=after(4)),
    ]
    ends = [
        make(WorkflowFailed, time=after(seconds), tasks={"A": "failed"}, reason="lost: it was killed")
        for seconds in (10, 90)
    ]

    (early, late), (view, _) = ([drawn(*heard, end, now=200) for end in ends], [view_of(*heard, end) for end in ends])

    assert early == late
    assert "failed at an unknown time, last sign of life after 4.0 s" in " ".join(" ".join(early).split())
    assert run_json(view)["endedAt"] is None
    attempt = run_json(view)["tasks"][0]["attempts"][0]
    assert (attempt["state"], attempt["cause"], attempt["endedAt"], attempt["durationSeconds"]) == (
        "failed",
        "lost",
        None,
        None,
    )


def test_a_failed_run_is_drawn_with_its_waits_its_tries_and_its_causes() -> None:
    """
    The drawing shows a run that failed after a retry, with all its elements.
    """
    lines = drawn(*BEGUN, *FIRST_TRY, *SECOND_TRY, ENDED, width=72)

    assert lines == [
        "✗ W 1 · failed after 20.0 s · 3 tasks: 1 finished, 1 failed, 1 not run",
        "  recipe run 1 · began 2026-11-22 12:00:00 · run r",
        "",
        "✓ Parse       ──╼━━━━━━━━━━·            ·            ·           · 4.0 s",
        "↻ Fit         ·            ░░───━━━━━╸  ·            ·           · 2.0 s",
        "    exception in run: LimbNotFoundError: 41 of 180 points agree",
        "    at 3/12 frame (eit_171)",
        "✗   attempt 2 ·            ·         ░░░░░───━━━━━━━━━━━━━━━━━━━━━ 8.0 s",
        "    signal SIGKILL",
        "– Sum         not run: an upstream task failed",  # noqa: RUF001 - an en dash is meant
        "              ╰────────────┴────────────┴────────────┴───────────┴",
        "              0            5            10           15          20 s",
        "              ░░ waiting   ── preparing   ━━ running (the duration)",
        "              ↻ failed, and another attempt followed",
    ]


def test_waiting_and_preparing_look_different() -> None:
    """
    They are not two lines of dashes.
    """
    lines = drawn(*BEGUN, *FIRST_TRY, width=72)

    (fit,) = (line for line in lines if "Fit " in line)
    assert "░░" in fit
    assert "──" in fit
    assert any("░░ waiting   ── preparing" in line for line in lines)


def test_a_terminal_that_knows_few_characters_gets_the_same_picture_in_ascii() -> None:
    """
    Marks, bars and the axis consist of ASCII characters, and fit into 60 columns.
    """
    lines = drawn(*BEGUN, *FIRST_TRY, *SECOND_TRY, ENDED, width=60, ascii_only=True)

    assert lines == [
        "x W 1, failed after 20.0 s",
        "  3 tasks: 1 finished, 1 failed, 1 not run",
        "  recipe run 1, began 2026-11-22 12:00:00, run r",
        "",
        "+ Parse       --========                               4.0 s",
        "~ Fit                   ..--====                       2.0 s",
        "    exception in run: LimbNotFoundError: 41 of 180 points",
        "    agree",
        "    at 3/12 frame (eit_171)",
        "x   attempt 2                   ....--================ 8.0 s",
        "    signal SIGKILL",
        "- Sum         not run: an upstream task failed",
        "              +---------+---------+---------+--------+",
        "              0         5         10        15       20 s",
        "              .. waiting   -- preparing   == running",
        "              ~ failed, and another attempt followed",
    ]


def test_what_has_not_ended_lasts_until_now() -> None:
    """
    A run that has not ended is drawn up to the present time.
    """
    lines = drawn(*BEGUN, *FIRST_TRY[:3], now=28)

    assert lines[0] == "● W 1 · running for 28.0 s"
    fit = next(line for line in lines if line.startswith("● Fit"))
    assert fit.endswith("━ 21.0 s")
    assert lines[lines.index(fit) + 1] == "    at 3/12 frame (eit_171)"
    assert "· Sum      waiting" in lines


def test_an_attempt_whose_end_nobody_reported_is_lost() -> None:
    """
    The end of the run closes it, and the timeline marks this as a conclusion.
    """
    lines = drawn(*BEGUN, *FIRST_TRY[:2], ENDED)

    assert "    lost: its end was not reported" in lines


def test_contradictions_stand_beside_the_outcome() -> None:
    """
    Contradicting reports and the engine's conclusions are shown.
    """
    lines = drawn(
        *BEGUN,
        make(TaskSkipped, "Fit", time=after(6), reason="no disk", reported_by="engine"),
        finished("Sum", time=after(9)),
        failed("Sum", time=after(9), reported_by="engine", provisional=True, cause="timeout"),
        make(WorkflowFailed, time=after(10), ended_at=after(10), tasks={"Parse": "failed"}, reported_by="engine"),
    )

    assert lines[0].startswith("✗ W 1 · failed after 10.0 s")
    assert "  ! the engine reports the run as failed" in lines
    assert "    ! the engine reports it as failed" in lines
    assert "    skipped: no disk" in lines
    assert "    ! the engine reports: failed: timeout" in lines


def test_a_failure_that_only_the_engine_knows_of_is_marked_so() -> None:
    """
    The callbacks of the engine are sometimes wrong.
    """
    lines = drawn(started("A"), failed("A", time=after(3), reported_by="engine", provisional=True, cause="timeout"))

    assert "    timeout (reported only by the engine)" in lines


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"cause": "exit_code", "exit_code": 3}, "exit code 3"),
        ({"cause": "terminated", "signal": "SIGTERM"}, "terminated (SIGTERM)"),
        ({"cause": "out_of_memory", "peak_memory_bytes": 8_100_000_000}, "out of memory at 8.1 GB"),
        ({"cause": "environment", "message": "pip: no such version\nsee above"}, "environment: pip: no such version"),
        ({"cause": "exception", "phase": "pre_run", "error_type": "KeyError"}, "exception in pre_run: KeyError"),
        ({"cause": "a_cause_from_the_future"}, "a cause from the future"),
    ],
)
def test_a_cause_is_told_in_an_operators_words(facts: dict[str, object], expected: str) -> None:
    """
    Each cause is shown in a short phrase with its facts.
    """
    lines = drawn(started("A"), failed("A", time=after(3), **facts))

    assert f"    {expected}" in lines


def test_a_failed_task_tells_where_its_log_is() -> None:
    """
    The line contains the link to the log.
    """
    lines = drawn(started("A"), failed("A", time=after(3), log_url="http://engine.example/log?try=1"), width=80)

    assert "    log: http://engine.example/log?try=1" in lines


def test_beside_a_duration_stand_its_parts_by_name() -> None:
    """
    The times of the environment and the phases are labelled, and left out if they leave no room for the bars.
    """
    parts = {"pre_run": 0.0, "run": 0.5, "post_run": 1.5}
    run = (
        started("A", time=after(1), environment="built", environment_seconds=9.0),
        finished("A", time=after(5), phases=parts, duration_seconds=4.0),
    )

    wide = next(line for line in drawn(*run, width=100) if " A " in line)
    narrow = next(line for line in drawn(*run, width=40) if " A " in line)

    assert wide.endswith(" 4.0 s (environment 9.0 s, 0.5 s in run, 1.5 s in post_run)")
    assert "running (the duration)" in drawn(*run, width=120)[-1]
    assert narrow.endswith(" 4.0 s")


def test_without_room_for_bars_there_are_words_and_durations() -> None:
    """
    A very narrow terminal shows the most important columns.
    """
    lines = drawn(*BEGUN, *FIRST_TRY, width=30, now=28)

    assert "✓ Parse                 4.0 s" in lines
    assert "    LimbNotFoundError: 41 of" in lines
    assert not any("━" in line for line in lines)


def test_what_succeeded_failed_or_was_retried_differs_in_colour() -> None:
    """
    Only a final failure is red.
    """
    lines = draw_timeline(view_of(*BEGUN, *FIRST_TRY, *SECOND_TRY, ENDED), width=72, now=NOON, zone=UTC)

    styles = {
        (name, str(span.style))
        for line in lines
        for name in ("Parse", "Fit", "attempt 2")
        if name in line.plain[2:14]
        for span in line.spans
        if "━" in line.plain[span.start : span.end]
    }
    assert styles == {("Parse", "green"), ("Fit", "magenta"), ("attempt 2", "red")}


def test_a_drawing_uses_the_width_up_to_a_limit() -> None:
    """
    A bar grows with the terminal, up to a limit for readability.
    """
    narrow, wide, widest = (max(map(cell_len, drawn(*BEGUN, width=width))) for width in (60, 120, 1000))

    assert (narrow, wide, widest) == (60, 120, MAX_WIDTH)


def test_names_are_never_read_as_markup() -> None:
    """
    A name with markup of the terminal library is printed unchanged, and cannot break the line.
    """
    output = io.StringIO()
    console = Console(file=output, width=100, highlight=False)

    told = [started("[red]A[/]"), failed("[red]A[/]", time=after(1), message="[link=x]y[/link]\u2028next [/nope]")]
    for line in draw_timeline(view_of(*told), width=100, now=NOON, zone=UTC):
        console.print(line, soft_wrap=True)

    assert "✗ [red]A[/] " in output.getvalue()
    assert "exception: [link=x]y[/link]\n" in output.getvalue()


@given(told=reports(), width=st.integers(1, 200), ascii_only=st.booleans(), now=st.integers(-400, 4000))
def test_no_report_spoils_the_drawing_or_leaves_its_width(
    *, told: list[Event], width: int, ascii_only: bool, now: int
) -> None:
    """
    Any reports of a run, true or false and in any order, can be drawn at any width, and as JSON.
    """
    for view in RunState(told).runs:
        lines = draw_timeline(view, width=width, now=after(now), ascii_only=ascii_only)

        assert all(line.cell_len <= width for line in lines)
        assert not any("\n" in line.plain for line in lines)
        assert json.loads(json.dumps(run_json(view)))["state"] == view.state


@given(st.lists(events(), min_size=1, max_size=6), st.integers(1, 120))
def test_no_value_of_a_field_spoils_the_drawing_or_a_line(told: list[Event], width: int) -> None:
    """
    Times at the ends of the calendar, very long durations and text in any script stay on one line.
    """
    lines = EventLines(dated=True)

    for view in RunState(told).runs:
        drawing = draw_timeline(view, width=width, now=NOON)
        assert all(line.cell_len <= width for line in drawing)
        assert json.dumps(run_json(view))
    for event in told:
        assert len(one(lines, event).plain.splitlines()) == 1


@given(st.floats(1e-3, 1e12), st.integers(16, 200))
def test_ticks_are_even_and_their_labels_apart(seconds: float, cells: int) -> None:
    """
    The axis is readable for any duration of the run and any width of the chart.
    """
    ticks = Scale(NOON, seconds, cells).ticks

    places = [tick.cell for tick in ticks]
    assert places[0] == 0
    assert all(place < cells for place in places)
    assert all(
        later - earlier > len(tick.label) for tick, earlier, later in zip(ticks, places, places[1:], strict=False)
    )
    assert ticks[-1].label.split()[1] in {"ms", "s", "min", "h", "d"}


@given(seconds=st.floats(1e-3, 1e9), cells=st.integers(16, 200), more=st.integers(0, 12))
def test_the_unit_of_the_axis_is_never_cut_off(seconds: float, cells: int, more: int) -> None:
    """
    Labels have blanks between them, and end with the line; if need be, the last one takes the place of another.
    """
    ticks = Scale(NOON, seconds, cells).ticks

    line, labels = axis(ticks, cells, UNICODE, cells + more)

    words = [tick.label for tick in ticks]
    assert len(line) == cells
    assert len(labels) <= cells + more
    assert labels.endswith(words[-1])
    assert labels.split()[:-2] in (words[:-1], words[:-2])


def test_a_run_whose_start_was_not_received_began_before_its_first_report() -> None:
    """
    While the broker is down, a host has only the events that wait for it.
    """
    lines = drawn(progressed("A", 22, time=after(3.0)), now=13.0)

    assert lines[0].startswith("● W 1 · running for more than 10.0 s")
    assert "began before 2026-11-22 12:00:03" in lines[1]
    assert view_of(started("A")).is_start_known


@pytest.mark.parametrize(
    ("seconds", "cells", "labels"),
    [
        (0.8, 40, ["0", "200", "400", "600", "800 ms"]),
        (7.2, 80, ["0", "1", "2", "3", "4", "5", "6", "7 s"]),
        (100, 30, ["0", "30", "60", "90 s"]),
        (2100, 60, ["0", "5", "10", "15", "20", "25", "30", "35 min"]),
        (10 * 3600, 40, ["0", "2", "4", "6", "8", "10 h"]),
        (4 * 86400, 40, ["0", "1", "2", "3", "4 d"]),
    ],
)
def test_ticks_stand_at_times_that_people_count_by(seconds: float, cells: int, labels: list[str]) -> None:
    """
    Ticks are at round numbers of milliseconds, seconds, minutes, hours or days.
    """
    assert labels == [tick.label for tick in Scale(NOON, seconds, cells).ticks]


@given(st.floats(0, allow_nan=False, allow_infinity=False))
def test_a_duration_is_short(seconds: float) -> None:
    """
    The column of durations is narrow.
    """
    assert len(duration(seconds)) <= len("99999 d 23 h")


def run_of(number: int) -> list[Event]:
    """
    Return the reports of one run of many; each run starts a minute after the previous one.
    """
    facts: dict[str, Any] = {"run_id": f"r{number}", "recipe_run_id": number}
    return [
        make(WorkflowStarted, time=after(60 * number), started_at=after(60 * number), **facts),
        make(WorkflowFinished, time=after(60 * number + 1), ended_at=after(60 * number + 1), **facts),
    ]


def test_the_run_that_began_last_is_found_whatever_came_last() -> None:
    """
    An end that arrives late does not make an old run the latest.
    """
    first, second = run_of(1), run_of(2)

    found = find_run(reader_of(first[0], *second, first[1]), None, where="here")

    assert found.run.run_id == "r2"


def test_a_run_is_found_by_its_id_among_any_number() -> None:
    """
    An early run is found with all its reports.
    """
    told = [event for number in range(100) for event in run_of(number)]

    found = find_run(reader_of(*told), "r3", where="here")

    assert (found.run.run_id, found.ended_at) == ("r3", after(181))


def test_the_newest_run_is_read_from_its_start_only() -> None:
    """
    Older runs are not read, however many there are, and whatever the size of a batch.
    """
    told = [event for number in range(100) for event in run_of(number)]
    reader = reader_of(*told, size=3)

    found = find_run(reader, None, where="here")

    assert (found.run.run_id, found.state) == ("r99", "finished")
    assert reader.read <= 6


def test_an_old_lost_run_is_not_the_newest() -> None:
    """
    Its end is derived when somebody looks, but it began before the newest run, which is found at once.
    """
    told = [event for number in range(100) for event in run_of(number)]
    reader = reader_of(*told, size=3)
    end = make(WorkflowFailed, run_id="r0", time=after(9000), reason="lost: it was killed")

    found = find_run(lambda takes: chain([Batch([end], began=NOON)], reader(takes)), None, where="here")

    assert found.run.run_id == "r99"
    assert reader.read <= 6


def test_a_run_is_read_back_to_the_start_before_it_was_cleared() -> None:
    """
    The later start that the engine reports is not the beginning of the run: attempts before it belong to it.
    """
    engine: dict[str, Any] = {"reported_by": "engine"}
    told = [
        make(WorkflowStarted, time=NOON, started_at=NOON, **engine),
        started("A", time=after(1)),
        finished("A", time=after(2)),
        started("B", time=after(3)),
        failed("B", time=after(4)),
        make(WorkflowFailed, time=after(5), ended_at=after(5), **engine),
        make(WorkflowStarted, time=after(60), started_at=after(60), **engine),
        started("B", time=after(61), attempt=2),
        finished("B", time=after(62), attempt=2),
    ]

    found = find_run(reader_of(*told, size=2), None, where="here")

    assert [(task.name, len(task.attempts)) for task in found.tasks] == [("A", 1), ("B", 2)]


def numbered(run_id: str, number: int, **facts: Any) -> list[Event]:
    """
    Return the reports of a run of any id.
    """
    return [msgspec.structs.replace(event, run_id=run_id, **facts) for event in run_of(number)]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_whole_id_names_its_run_however_many_newer_ids_end_alike(size: int) -> None:
    """
    The newer runs are complete, and read first; more of them than are kept in memory.
    """
    newer = [event for number in range(2, 30) for event in numbered(f"to{number}night1", number)]

    found = find_run(reader_of(*numbered("night1", 1), *newer, size=size), "night1", where="here")

    assert (found.run.run_id, found.state) == ("night1", "finished")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("named", "older", "reason"),
    [
        ("ght1", {"run_id": "night1"}, "'ght1' names 2 runs"),
        ("tonight1", {"run_id": "tonight1", "workflow_name": "l0"}, "names a run of each of 2 workflows.*l0"),
    ],
)
def test_an_older_run_of_the_same_name_is_found_behind_a_complete_one(
    size: int, named: str, older: dict[str, str], reason: str
) -> None:
    """
    Otherwise the newer one would be drawn silently; workflows of Airflow have runs of the same id.
    """
    told = [*[msgspec.structs.replace(event, **older) for event in run_of(1)], *numbered("tonight1", 3)]

    with pytest.raises(IdentityError, match=reason):
        find_run(reader_of(*told, size=size), named, where="here")
    if "workflow_name" in older:
        chosen = find_run(reader_of(*told, size=size), named, where="here", workflow="l0")
        assert (chosen.run.workflow_name, chosen.started_at) == ("l0", after(60))


def test_a_run_by_hand_is_read_back_to_the_time_in_its_id() -> None:
    """
    No engine reports its start, and its tasks may be called hours apart.
    """
    run_id = f"hand__1__{after(0):%Y%m%dT%H%M%SZ}__0123abcd"
    others = [started("A", time=after(-60 * number), run_id=f"hand__2__x{number:03}") for number in range(50, 0, -1)]
    later = [progressed("C", number, time=after(100 + number), run_id="hand__2__x") for number in range(9)]
    mine = [started("A", time=after(1), run_id=run_id), finished("B", time=after(900), run_id=run_id)]
    reader = reader_of(*others, mine[0], *later, mine[1], size=4)

    found = find_run(reader, run_id, where="here")

    assert [task.name for task in found.tasks] == ["A", "B"]
    assert reader.read < 20


def test_a_run_that_is_not_there_is_told_with_those_that_are() -> None:
    """
    The error lists the existing runs, so that a mistyped id can be corrected.
    """
    told = [event for number in range(7) for event in run_of(number)]

    with pytest.raises(
        DKISTProcessingCoreError, match=r"no run 'nope' on here; the latest runs there: r6, r5, r4, r3, r2$"
    ):
        find_run(reader_of(*told), "nope", where="here")
    with pytest.raises(DKISTProcessingCoreError, match="no run yet on here"):
        find_run(reader_of(), None, where="here")


@given(st.permutations([event for number in range(8) for event in run_of(number)]))
def test_few_runs_are_remembered_of_many(told: list[Event]) -> None:
    """
    The number of kept reports is limited, in any order of arrival.
    """
    newest = PastRuns(3)
    for event in told:
        newest.add(event)

    assert len(newest.newest_first()) == 3


def test_the_json_of_a_run_holds_what_the_picture_holds() -> None:
    """
    The JSON uses the names of the events' fields.
    """
    document = run_json(view_of(*BEGUN, *FIRST_TRY, *SECOND_TRY, ENDED))

    fit = document["tasks"][1]
    assert (document["dagRunId"], document["state"], document["verdict"]) == ("r", "failed", "failed")
    assert document["startedAt"] == "2026-11-22T12:00:00.000000Z"
    assert [(each["number"], each["state"], each["cause"]) for each in fit["attempts"]] == [
        (1, "failed", "exception"),
        (2, "failed", "signal"),
    ]
    assert fit["attempts"][0]["end"]["errorType"] == "pipeline.errors.LimbNotFoundError"
    assert fit["attempts"][0]["progress"]["done"] == 3
    assert document["tasks"][2] == {"name": "Sum", "state": "not run", "engineState": "upstream_failed", "attempts": []}


def test_the_json_of_a_run_has_no_start_that_was_not_reported() -> None:
    """
    The time of the first report is given under another name, since the start is only known to be before it.
    """
    known, unknown = run_json(view_of(*BEGUN)), run_json(view_of(finished("A")))

    assert (known["startedAt"], known["startedBefore"]) == ("2026-11-22T12:00:00.000000Z", None)
    assert (unknown["startedAt"], unknown["startedBefore"]) == (None, format_time(finished("A").time))


def one(lines: EventLines, event: Event) -> Text:
    """
    Return the one line of an event, which is not folded.
    """
    (line,) = lines.lines(event)
    return line


def test_lines_of_events_stay_in_line() -> None:
    """
    Columns have the width of usual names, so that short names are aligned with long ones.
    """
    lines = EventLines(zone=UTC)

    first = one(lines, started("CorrectFrames", max_attempts=3))
    second = one(lines, failed("Fit", message="no limb", max_attempts=3, final=False))

    assert first.plain == "12:00:00 task.started      W            CorrectFrames    1/3"
    assert second.plain == (
        "12:00:00 task.failed       W            Fit              1/3 exception: no limb, another attempt follows"
    )
    assert Text.styled("task.failed      ", "magenta").spans[0].style in {span.style for span in second.spans}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (make(TaskOverdue, "A", sequence=1, limit_seconds=600.0), "no sign of life for more than 10 min 00 s"),
        (
            make(TaskOverdue, "A", sequence=3, limit_seconds=600.0, exceeded="duration", withdrawn=True),
            "withdrawn: running for more than 10 min 00 s",
        ),
        (
            make(WorkflowOverdue, sequence=2, limit_seconds=3600.0),
            "neither an attempt nor an end for more than 1 h 00 min, run r",
        ),
        (
            make(WorkflowOverdue, run_id="", expected_at=NOON, grace_seconds=1800.0),
            "no run began at 2026-11-22 12:00:00 UTC, nor within 30 min 00 s after it",
        ),
        (make(TaskSkipped, "A", reason="no disk"), "no disk"),
        (sampled("A", 1), "1/1"),
        (
            sampled(
                "A",
                1,
                resources=Resources(rss=73_000_000, cpu_user_seconds=1, cpu_system_seconds=2, processes=4),
                top_frame="fit.py:40 in\x1b fit\nlimb",
            ),
            "73 MB, CPU 3.0 s, 4 processes, in fit.py:40 in\N{REPLACEMENT CHARACTER} fit",
        ),
        (
            failed("A", cause="signal", signal="SIGKILL", last_stack='Thread "MainThread":\n  fit.py:40 in fit\n'),
            "signal SIGKILL, last seen at fit.py:40 in fit",
        ),
        (failed("A", cause="lost", last_stack='Thread "MainThread":'), "lost"),
        (finished("A", duration_seconds=2.0, peak_memory_bytes=73_000_000), "2.0 s, peak 73 MB"),
        (finished("A", duration_seconds=2.0, phases={"pre_run": 0.0, "run": 0.5}), "took 2.0 s, 0.5 s in run"),
        (make(TaskDispatched, "A", worker="w1", queue="q", queued_seconds=90), "to w1, queue q, queued 1 min 30 s"),
        (
            started("A", host="w1", pid=7, environment="built", environment_seconds=12),
            "on w1, pid 7, environment built in 12.0 s",
        ),
        (
            make(WorkflowFailed, duration_seconds=4, reason="timeout", tasks={"A": "failed"}),
            "4.0 s, 1 task failed, failed: A, timeout, run r",
        ),
    ],
)
def test_a_line_ends_with_what_only_this_event_says(event: Event, expected: str) -> None:
    """
    The facts are short, with units.
    """
    assert one(EventLines(zone=UTC), event).plain.endswith(f" {expected}")


def test_a_moment_at_the_end_of_the_calendar_is_shown_without_a_zone() -> None:
    """
    Such a time has no equivalent in a zone east of UTC.
    """
    last = datetime.max.replace(tzinfo=UTC)

    assert local_time(last, "%Y-%m-%d %H:%M", timezone(timedelta(hours=14))) == "9999-12-31 23:59"


def test_a_wide_timeline_has_the_memory_of_each_attempt_beside_it() -> None:
    """Its course if the attempt has ended, and the latest sample if it runs; a narrow one keeps its chart."""
    run = SampleRun()
    run.start()
    run.succeed("ParseL0")
    run.begin("Calibrate")
    run.sample("Calibrate")
    wide, narrow = drawn(*run.events, width=120), drawn(*run.events, width=60)
    ascii_only = drawn(*run.events, width=120, ascii_only=True)

    assert [line[-9:] for line in wide if line.endswith("MB")] == ["▆█ 184 MB", "n  180 MB"]
    assert [line[-9:] for line in ascii_only if line.endswith("MB")] == ["*@ 184 MB", "n  180 MB"]
    assert not any("MB" in line for line in narrow)


def test_a_killed_attempt_has_its_last_frames_below_it() -> None:
    """A task that failed by an exception has none, since it could report its stack itself."""
    lines = drawn(*run_with_killed_attempt().events, width=80)
    exception = drawn(*run_with_retry().events, width=80)
    place = lines.index("    signal SIGKILL")

    assert lines[place + 1 : place + 3] == [
        "    0.2 s before the end at calibrate.py:40 in fit",
        "    called by calibrate.py:12 in run",
    ]
    assert not any("before the end" in line for line in exception)


def test_the_last_frames_are_those_of_the_author() -> None:
    """Those of this package are left out, unless there are no others."""
    frames = "  fit.py:3 in run\n  task.py:104 in __call__\n  <string>:176 in <module>\n"
    of_author, of_package = (
        drawn(failed("A", cause="signal", signal="SIGKILL", last_stack=f'Thread "MainThread":\n{stack}'))
        for stack in (frames, frames.partition("\n")[2])
    )

    assert [line.strip() for line in of_author if " at " in line or "called by" in line] == [
        "last seen at fit.py:3 in run"
    ]
    assert "    last seen at task.py:104 in __call__" in of_package


@pytest.mark.parametrize(
    ("waits", "thread"),
    [
        ("threading.py:1169 in _wait_for_tstate_lock\n  threading.py:1149 in join", "reader"),
        ("threading.py:355 in wait\n  _base.py:451 in result", "reader"),
        ("popen_fork.py:27 in poll\n  process.py:149 in join", "reader"),
        ("connection.py:395 in _recv", "reader"),
        ("selectors.py:468 in select\n  connection.py:947 in wait", "reader"),
        ("fit.py:7 in wait", None),
    ],
)
def test_the_last_frames_are_those_of_the_thread_that_did_not_wait_for_others(waits: str, thread: str | None) -> None:
    """The idle thread of a pool is passed over; if all wait, it is the main thread."""
    idle = 'Thread "ThreadPoolExecutor-0_0":\n  thread.py:81 in _worker\n  threading.py:982 in run'
    facts = {"cause": "signal", "last_stack_age_seconds": 0.4}
    main = f'Thread "MainThread":\n  {waits}\n\n{idle}'
    both = f'{main}\n\nThread "reader":\n  read.py:3 in read'
    shown, alone = (
        [line.strip() for line in drawn(failed("A", last_stack=stack, **facts), width=80) if "before the end" in line]
        for stack in (both, main)
    )

    deepest = waits.partition("\n")[0]
    assert alone == [f"0.4 s before the end at {deepest}"]
    assert shown == (alone if thread is None else [f"0.4 s before the end at read.py:3 in read (thread {thread})"])


def test_a_timeline_shows_the_peak_of_the_end_and_without_room_for_its_course_the_peak_alone() -> None:
    """The process may have held it between two samples."""
    profile = ((1.0, 400_000_000, 0.5, 0.0, 0.0), (2.0, 509_000_000, 0.5, 0.0, 0.0))
    event = failed("A", cause="out_of_memory", duration_seconds=2.0, peak_memory_bytes=580_000_000, profile=profile)
    together = msgspec.structs.replace(event, resources=Resources(peak_rss=900_000_000))
    wide, narrow = drawn(event, width=120), drawn(event, width=60)

    assert [line[-9:] for line in wide if line.endswith("MB") and "memory" not in line] == ["▇█ 580 MB"]
    assert [line[-10:] for line in narrow if line.endswith("MB") and "memory" not in line] == [" s  580 MB"]
    assert "    out of memory at 580 MB" in wide
    assert "    out of memory at 900 MB" in drawn(together, width=120)
