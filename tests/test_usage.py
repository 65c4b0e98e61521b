"""
`dkist-core usage`: what tasks have used beside what was planned, and by how much a queue's memory could shrink.

Not here: the content of the store (test_store), and what one attempt has used (test_task_sheet).
"""

import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import StaticPool

from dkist_processing_core.cli.draw.usage_table import draw_usage
from dkist_processing_core.collect.questions.answers import Choice, Usage
from dkist_processing_core.collect.questions.questions import Questions
from dkist_processing_core.collect.store import Store
from dkist_processing_core.events import Event, Resources, TaskDispatched
from dkist_processing_core.inbox.migrating import upgrade
from dkist_processing_core.testing import run_that_succeeds, run_with_killed_attempt
from tests.facts import NOON, failed, finished, make, sampled, started
from tests.stored import ended_run
from tests.test_store import NOW, copy_to_earlier, empty, fill, fill_unfolded

GIB = 2**30
NUMBERS = ((127.5, 128.0), (0.01, 0.5), (0.75, 1024.0))


def attempt(
    name: str,
    run: str,
    used: int,
    *,
    queue: str = "default",
    cause: str | None = None,
    reporter: str = "launcher",
    exit_code: int | None = None,
    **facts: Any,
) -> list[Event]:
    """
    Return the reports on an attempt that used so many bytes of 16 GiB, or that was killed.
    """
    resources = Resources(peak_rss=used, memory_limit_bytes=16 * GIB, cpu_user_seconds=6.0, cpu_limit=2.0)
    end: dict[str, Any] = {"run_id": run, "resources": resources, "duration_seconds": 4.0, "reported_by": reporter}
    if exit_code is not None:
        end["exit_code"] = exit_code
    dispatched = make(TaskDispatched, name, run_id=run, queue=queue, **facts)
    ended = finished(name, **end, **facts) if cause is None else failed(name, cause=cause, **end, **facts)
    return [dispatched, started(name, run_id=run, **facts), ended]


def usages(*told: Event, choice: Choice | None = None) -> tuple[list[Usage], list[Usage]]:
    """
    Return the usage of tasks and queues by the attempts of which these reports are.
    """
    with empty() as store, store.begin() as connection:
        fill(connection, [told])
        return Questions(connection).usages(choice or Choice())


def advice(*told: Event) -> list[str]:
    """
    Return what a table advises about the memory of each queue.
    """
    lines = [line.plain for line in draw_usage(*usages(*told), width=None)]
    return lines[lines.index("") + 1 :]


def test_killed_attempts_are_counted_in() -> None:
    """The largest memory is that of an attempt that was killed, and the median that of all attempts."""
    told = [*attempt("A", "1", 2 * GIB), *attempt("A", "2", 3 * GIB), *attempt("A", "3", 7 * GIB, cause="signal")]
    (task,), (queue,) = usages(*told)

    assert (task.task_name, task.queue, task.attempts, task.died) == ("A", "default", 3, 1)
    assert (task.memory_median, task.memory_largest, task.memory_limit) == (3 * GIB, 7 * GIB, 16 * GIB)
    assert (task.cpu_mean, task.cpu_limit) == (1.5, 2.0)
    assert (queue.enough_memory, queue.spare_memory) == (7 * GIB * 120 // 100, 16 * GIB - 7 * GIB * 120 // 100)


def test_an_attempt_died_if_its_task_did_not_report_its_end() -> None:
    """A MemoryError that a task reports itself is not such an end, and an exit code may be."""
    told = [
        *attempt("A", "1", GIB, cause="exit_code", exit_code=3),
        *attempt("A", "2", GIB, cause="lost"),
        *attempt("A", "7", GIB, cause="exit_code", exit_code=4),
        *attempt("A", "3", GIB, cause="out_of_memory", reporter="task"),
        *attempt("A", "4", GIB, cause="environment"),
        *attempt("A", "5", GIB),
        started("A", run_id="6"),
    ]
    tasks, _ = usages(*told)

    # Without a queue there is one attempt more.
    assert sorted((task.attempts, task.died, task.out_of_memory) for task in tasks) == [(1, 0, 0), (6, 3, 1)]


def test_numbers_of_processors_are_written_out() -> None:
    """Also large ones, and those of a task that does next to nothing."""
    (task,), queues = usages(*attempt("A", "1", GIB))
    busy, idle, few = (replace(task, cpu_mean=mean, cpu_limit=limit) for mean, limit in NUMBERS)
    head, *rows = [line.plain.split() for line in draw_usage([busy, idle, few], queues, width=None)][:4]

    assert head[-3:] == ["processors", "their", "limit"]
    assert [row[-2:] for row in rows] == [["127.5", "128"], ["<0.1", "0.5"], ["0.8", "1,024"]]


def test_an_attempt_of_a_host_that_died_counts_with_its_latest_sample() -> None:
    """It has no end with resources."""
    sample = sampled("A", 3, resources=Resources(peak_rss=5 * GIB, read_bytes=10))
    (task,), _ = usages(started("A"), sample)

    assert (task.attempts, task.memory_largest, task.bytes_read) == (1, 5 * GIB, 10)


def test_the_memory_of_a_queue_is_not_advised_to_shrink_below_what_any_task_needs() -> None:
    """The tasks of all its workflows count, also if only one workflow is shown."""
    told = [*attempt("A", "1", 2 * GIB), *attempt("B", "2", 9 * GIB, workflow_name="other")]
    tasks, queues = usages(*told, choice=Choice(workflow="oth*"))

    assert [task.task_name for task in tasks] == ["B"]
    assert [(queue.attempts, queue.memory_largest) for queue in queues] == [(2, 9 * GIB)]


def test_each_queue_has_its_advice() -> None:
    """It states by how much the memory could shrink, or why that is not known or not advised."""
    told = [
        *attempt("A", "1", 2 * GIB),
        *attempt("A", "2", 15 * GIB, queue="full"),
        *attempt("A", "3", 15 * GIB, queue="small", cause="out_of_memory"),
        *attempt("A", "4", 1 * GIB, queue="small"),
        started("A", run_id="5"),
    ]

    assert advice(*told) == [
        "  without a queue: the memory was not measured",
        "  queue default: the memory could shrink by 15 GB, from 17 GB to 2.6 GB",
        "  queue full: the memory should not shrink: 16 GB of 17 GB were used",
        "  queue small: the memory should not shrink, since 1 attempt ran out of it",
    ]
    shrinks = "queue default: the memory could shrink by 15 GB, from 17 GB to 2.6 GB"
    assert advice(*attempt("A", "1", 2 * GIB), *attempt("A", "2", GIB, cause="signal")) == [
        f"  {shrinks}; 1 attempt died, and it may have needed more"
    ]
    assert advice(finished("A", resources=Resources(peak_rss=GIB))) == [
        "  without a queue: 1.3 GB would be enough; no limit is known"
    ]


def test_only_attempts_of_the_chosen_time_count() -> None:
    """Instances of a mapped task are one task, and an attempt that has not begun does not count."""
    old = attempt("A", "1", 8 * GIB, time=NOON - timedelta(days=2))
    new = [*attempt("A[1]", "2", 2 * GIB), *attempt("A[2]", "2", 3 * GIB), make(TaskDispatched, "B", run_id="2")]
    (task,), (queue,) = usages(*old, *new, choice=Choice(since=NOON - timedelta(days=1)))

    assert (task.task_name, task.attempts, task.memory_largest, queue.attempts) == ("A", 2, 3 * GIB, 2)


TABLE_80 = """\
  task       queue    attempts  died  median memory  largest memory  its limit
  Calibrate  default         3     1         184 MB          184 MB     2.0 GB
    l0_to_l1_visp, 0.8 of 2 processors, 440 MB read, 4.0 MB written
  ParseL0    default         2               184 MB          184 MB     2.0 GB
    l0_to_l1_visp, 0.8 of 2 processors, 400 MB read, 3.0 MB written
  WriteL1    default         2               184 MB          184 MB     2.0 GB
    l0_to_l1_visp, 0.8 of 2 processors, 400 MB read, 3.0 MB written

  queue default: the memory could shrink by 1.8 GB, from 2.0 GB to 221 MB; 1
    attempt died, and it may have needed more
"""

TABLE_160_ASCII = """\
  task       queue    attempts  died  median memory  largest memory  its limit  processors  their limit    read  written
  Calibrate  default         3     1         184 MB          184 MB     2.0 GB         0.8            2  440 MB   4.0 MB
  ParseL0    default         2               184 MB          184 MB     2.0 GB         0.8            2  400 MB   3.0 MB
  WriteL1    default         2               184 MB          184 MB     2.0 GB         0.8            2  400 MB   3.0 MB

  queue default: the memory could shrink by 1.8 GB, from 2.0 GB to 221 MB; 1 attempt died, and it may have needed more
"""


@pytest.mark.parametrize(("width", "ascii_only", "expected"), [(80, False, TABLE_80), (160, True, TABLE_160_ASCII)])
def test_usage_is_drawn_as_intended(width: int, ascii_only: bool, expected: str) -> None:  # noqa: FBT001
    """A narrow table has below each row what it has no columns for."""
    found = usages(*run_that_succeeds(run_id="1").events, *run_with_killed_attempt(run_id="2").events)
    lines = [line.plain for line in draw_usage(*found, width=width, ascii_only=ascii_only)]
    # The first column of the wide table is the workflow.
    shown = "".join(re.sub(r"^  (workflow {7}|l0_to_l1_visp  )", "  ", f"{line}\n") for line in lines)

    assert shown == expected


@pytest.mark.parametrize("width", [20, 40, 60, 80, 139, 140, 200])
def test_no_line_of_usage_is_wider_than_the_terminal(width: int) -> None:
    """A narrow terminal folds or cuts the lines."""
    found = usages(*ended_run(), *attempt("A" * 30, "3", GIB, cause="out_of_memory", queue="q" * 30))
    lines = list(draw_usage(*found, width=width))

    assert max(line.cell_len for line in lines) <= width


def test_the_runs_of_an_earlier_release_have_their_usage_after_the_migration() -> None:
    """The attempts are derived again from the stored reports."""
    earlier = create_engine("sqlite://", poolclass=StaticPool)
    with empty() as store, store.begin() as present, earlier.begin() as former:
        fill_unfolded(present, attempt("A", "1", GIB))
        upgrade(former, "in memory", "0006")
        copy_to_earlier(present, former)
        upgrade(former, "in memory")
        Store(clock=NOW.timestamp).fold(former, 10)
        (task,), _ = Questions(former).usages(Choice())
    earlier.dispose()

    assert (task.queue, task.memory_largest) == ("default", GIB)
