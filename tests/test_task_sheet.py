"""
`dkist-core runs show RUN TASK`: what is known about each attempt of a task, at any width.

Not here: the command on a bus (test_store_commands).
"""

from datetime import UTC, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.cli.draw.glyphs import UNICODE
from dkist_processing_core.cli.draw.sparkline import sparkline
from dkist_processing_core.cli.draw.task_sheet import draw_task
from dkist_processing_core.events import Cause, Event, Reporter, Resources, TaskFailed
from dkist_processing_core.runs import run_view
from dkist_processing_core.runs.wording.usage import used
from dkist_processing_core.testing import SampleRun, run_that_fails, run_with_killed_attempt
from tests.strategies import events, reports

KILLED_80 = """\
✓ Calibrate finished · l0_to_l1_visp 2.16.3 · recipe run 1234 · run 20261122

↻ attempt 1 · failed after 0.3 s · on worker1 · pid 4711
  signal SIGKILL
  times           dispatched 09:00:05, started 09:00:06, ended 09:00:07
  last phase      run, entered 0.2 s before the end
  last progress   4/12 frame, 0.1 s before the end
  last stack, 0.2 s before the end
    Thread "MainThread":
      calibrate.py:40 in fit
      calibrate.py:12 in run
  last log, 0.1 s before the end
    frame 3 is read
    frame 4 is read
  memory          184 MB at most of 2.0 GB (9 %)
  CPU             0.3 s (0.2 s user, 0.1 s system), 1.0 of 2 processors on
                  average
  storage         40 MB read, 1.0 MB written
  system calls    40 MB read, 1.0 MB written
  most at a time  2 processes, 5 threads, 16 open files
  over time, with the largest value of each
  memory          ▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆▆██████████████████████████████ 184 MB
  CPU             ██████████████████████████████████████████████ 1.0 processors
  read            ████████████████▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁ 400 MB/s
  written         ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁██████████████████████████████ 5.0 MB/s
                  ╰───────┴──────┴───────┴───────┴──────┴──────┴
                  0       50    100     150     200       300 ms
"""

RUNNING_200_ASCII = """\
> ParseL0 running, l0_to_l1_visp 2.16.3, recipe run 1234, run 20261122

> attempt 1, running for 12.0 s, on worker1, pid 4711
  times           dispatched 09:00:01, started 09:00:02
  last sample     11.0 s ago, in calibrate.py:40 in fit
  memory          180 MB now, 184 MB at most of 2.0 GB (9 %)
  CPU             0.5 s (0.4 s user, 0.1 s system), 0.5 of 2 processors on average
  storage         200 MB read, 0 B written
  system calls    200 MB read, 0 B written
  now             1 process, 4 threads, 12 open files
"""


def drawn(run: SampleRun, task_name: str, width: int | None, *, ascii_only: bool = False, ago: float = 0) -> str:
    """
    Return the sheet of a task of a run as text, some seconds after the last report.
    """
    view = run_view(run.events)
    (task,) = [each for each in view.tasks if each.name == task_name]
    now = run.clock.now + timedelta(seconds=ago)
    form = {"short_id": "20261122", "now": now, "width": width, "ascii_only": ascii_only, "zone": UTC}
    return "".join(f"{line.plain}\n" for line in draw_task(view, task, run.events, **form))  # type: ignore[arg-type]


def running() -> SampleRun:
    """
    Return a run whose first task runs and was sampled.
    """
    run = SampleRun()
    run.start()
    run.begin("ParseL0")
    run.sample("ParseL0")
    return run


def test_a_killed_attempt_is_shown_with_its_last_signs_and_with_what_it_used() -> None:
    """The lines of the killed attempt are these, and the attempt that followed is below them."""
    killed, _, following = drawn(run_with_killed_attempt(), "Calibrate", 80).partition("\n✓ attempt 2")

    assert killed == KILLED_80
    assert following.startswith(" · finished after 2.5 s · on worker1 · pid 4711\n")


def test_a_running_attempt_is_shown_with_its_latest_sample() -> None:
    """The sample has its age."""
    sheet = drawn(running(), "ParseL0", 200, ascii_only=True, ago=10)

    assert sheet == RUNNING_200_ASCII


def test_an_exception_is_shown_with_its_whole_message_and_stack() -> None:
    """The message has several lines, of which the summary shows the first."""
    run = SampleRun()
    run.start()
    run.begin("ParseL0")
    stack = 'Traceback (most recent call last):\n  File "fit.py", line 3, in run\n    raise ValueError'
    facts = {"cause": Cause.EXCEPTION, "error_type": "ValueError", "message": "no fit\nof 3 lines", "stack": stack}
    run.report(TaskFailed, "ParseL0", reported_by=Reporter.TASK, **facts)
    sheet = drawn(run, "ParseL0", None)

    assert "  message\n    no fit\n    of 3 lines\n" in sheet
    assert '      File "fit.py", line 3, in run\n        raise ValueError\n' in sheet


@pytest.mark.parametrize("width", [4, 20, 40, 60, 80, 139, 200])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_no_line_of_a_sheet_is_wider_than_the_terminal(*, width: int, ascii_only: bool) -> None:
    """This holds for a killed, a failed and a running attempt."""
    sheets = [
        drawn(run, task, width, ascii_only=ascii_only)
        for run, task in (
            (run_with_killed_attempt(), "Calibrate"),
            (run_that_fails(), "Calibrate"),
            (running(), "ParseL0"),
        )
    ]

    assert max(len(line) for sheet in sheets for line in sheet.splitlines()) <= width
    assert all(sheet.isascii() for sheet in sheets) is ascii_only


@given(
    told=st.one_of(reports().filter(bool), events().map(lambda event: [event])), width=st.none() | st.integers(4, 200)
)
def test_a_sheet_of_any_reports_is_drawn(told: list[Event], width: int | None) -> None:
    """No report breaks it, and no text of a report controls the terminal."""
    view = run_view(told)
    form = {"short_id": "1", "now": told[-1].time, "width": width, "zone": UTC}
    lines = [line for task in view.tasks for line in draw_task(view, task, told, **form)]  # type: ignore[arg-type]

    assert width is None or all(line.cell_len <= width for line in lines)
    assert not any(character in line.plain for line in lines for character in "\x1b\x9b\r\n\t")


def test_a_sparkline_shows_the_largest_value_of_each_cell() -> None:
    """A cell without a value has the next one, and zero is the lowest level."""
    assert sparkline([(0.5, 1.0), (1.0, 8.0), (4.0, 0.0)], 4, UNICODE.levels) == "█▁▁▁"
    assert sparkline([(10.0, 3.0), (20.0, 6.0)], 6, UNICODE.levels) == "▄▄▄███"
    assert sparkline([(2.0, 4.0), (1.0, 8.0)], 2, UNICODE.levels) == "█▄"
    assert sparkline([], 6, UNICODE.levels) == ""
    assert sparkline([(0.0, 0.0)], 2, UNICODE.levels) == "▁▁"


def test_what_was_not_measured_has_no_row() -> None:
    """What the control group does not limit is shown without a plan."""
    only_memory = dict(used(Resources(peak_rss=184_000_000), 2.0))
    only_limit = dict(used(Resources(memory_limit_bytes=2_000_000_000), 2.0))
    pressure = "of its control group: input or output 1.5 s"
    waited = dict(used(Resources(cpu_user_seconds=3.0, io_pressure_seconds=1.5, vol_ctxt=1200), None))

    longest = used(Resources(cpu_user_seconds=1.7e308, cpu_system_seconds=1.7e308), 1.0)

    assert dict(longest)["CPU"].startswith("over 99999 d")
    assert only_memory == {"memory": "184 MB at most"}
    assert only_limit == {}
    assert waited == {"CPU": "3.0 s (3.0 s user)", "switches": "1,200 voluntary", "pressure": pressure}
