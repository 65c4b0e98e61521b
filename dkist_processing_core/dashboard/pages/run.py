"""
The page about a run: its state, its graph, its timeline, when it is expected to end, and the reports on it.

Not here: the parts of the page (one_run, analysis.expected), and one attempt (pages.attempt).
"""

from collections import Counter
from collections.abc import Mapping

from dkist_processing_core.dashboard.addresses.links import (
    attempt_addresses,
    compare_with_previous_address,
    run_address,
)
from dkist_processing_core.dashboard.addresses.outside_links import trace_id_of, trace_link
from dkist_processing_core.dashboard.addresses.paging import part_of
from dkist_processing_core.dashboard.analysis.expected import Expected, expected_end, remaining_tasks
from dkist_processing_core.dashboard.asked import Asked, Page
from dkist_processing_core.dashboard.drawing.graph import NODE_HEIGHT, NODE_WIDTH
from dkist_processing_core.dashboard.drawing.timeline import Timeline, most_memory_of
from dkist_processing_core.dashboard.one_run.chosen import OneRun, one_run, steps_of
from dkist_processing_core.dashboard.one_run.events import event_rows
from dkist_processing_core.dashboard.one_run.graph import run_graph
from dkist_processing_core.dashboard.one_run.rows import drawn, rows_of, tasks_of
from dkist_processing_core.events import decode
from dkist_processing_core.runs import RunView, State
from dkist_processing_core.runs.critical_path import critical_path
from dkist_processing_core.runs.moments import Moments
from dkist_processing_core.runs.wording.overdue import standing_alarm

ROWS_AT_ONCE = EVENTS_AT_ONCE = 100
"""The largest numbers of attempts and of reports that the page shows at once."""


def page(asked: Asked) -> Page:
    """
    Return the page.

    The address names the run by `workflow`, `version` and `id`; with `at`, it is shown as it was then. `task` restricts
    the timeline to one task, and `attempts` and `events` name the first ones that are shown.

    Raises:
        PageError: The address names no run of the store.
    """
    one = one_run(asked)
    view, run = one.view, one.view.run
    moments = Moments(view, one.until)
    path = None if view.graph is None else critical_path(view, one.until)
    critical = frozenset() if path is None else frozenset(time.name for time in path.tasks)
    of_past = {} if asked.at is None else {"at": asked.query["at"]}
    short_id = asked.questions.short_ids([run.run_id]).of(run.run_id)
    trace_id = trace_id_of(run, one.whole.traceparent)
    values = {
        "view": view,
        "run": run,
        "short_id": short_id,
        "until": one.until,
        "began_at": moments.span[0],
        "seconds": (moments.span[1] - moments.span[0]).total_seconds(),
        "states": _states(view),
        "alarm": None if view.overdue is None else standing_alarm(view.overdue, one.until),
        "last_report_at": next((moment for moment in reversed(one.whole.moments) if moment <= one.until), None),
        "trace_id": trace_id,
        "trace_link": trace_link(asked.site, trace_id, run),
        "compare_link": compare_with_previous_address(run),
        "node_size": (NODE_WIDTH, NODE_HEIGHT),
        "graph": run_graph(view, moments, critical, **of_past),
        "critical": [] if path is None else [time.name for time in path.tasks],
        "at": asked.at,
        "present_link": run_address(run),
        "steps": steps_of(one.whole.changes, asked.at),
        "address_at": lambda moment: run_address(run, at=moment.isoformat()),
        "left_out": one.left_out,
        **_expected(asked, one),
        **_timeline(asked, one, moments, critical, of_past),
        **_events(asked, one),
    }
    return Page(f"{run.workflow_name} {short_id}", "run.html", values)


def _timeline(
    asked: Asked, one: OneRun, moments: Moments, critical: frozenset[str], of_past: Mapping[str, object]
) -> dict[str, object]:
    task_name = asked.text("task")
    tasks = tasks_of(one.view, task_name)
    part = part_of(range(sum(len(task.attempts) or 1 for task in tasks)), asked, "attempts", size=ROWS_AT_ONCE)
    rows = rows_of(tasks, critical, part.first, part.size)
    attempts = [row.attempt for row in rows if row.attempt is not None]
    timeline = Timeline(moments, most_memory_of(attempts))
    address_of = attempt_addresses(one.view.run, **of_past)
    hosts = one.hosts
    return {
        "task_name": task_name,
        "ticks": timeline.ticks,
        "most_memory": most_memory_of(attempts),
        "attempts": part,
        "rows": [
            drawn(
                row,
                moments=moments,
                timeline=timeline,
                hosts=hosts,
                address_of=address_of,
                now=one.until,
            )
            for row in rows
        ],
        "all_tasks_link": f"{run_address(one.view.run, **of_past)}#attempts",
    }


def _events(asked: Asked, one: OneRun) -> dict[str, object]:
    if one.of_past is None:
        encoded = part_of(one.whole.bodies, asked, "events", size=EVENTS_AT_ONCE, is_last=True)
        return {"events": encoded, "event_rows": event_rows(list(map(decode, encoded.items)), one.view)}
    part = part_of(one.of_past, asked, "events", size=EVENTS_AT_ONCE, is_last=True)
    return {"events": part, "event_rows": event_rows(part.items, one.view)}


def _states(view: RunView) -> dict[State, int]:
    """Return the number of tasks in each state."""
    counts = Counter(task.state for task in view.tasks)
    return {state: counts[state] for state in State if state in counts}


def _expected(asked: Asked, one: OneRun) -> dict[str, object]:
    """Return the expected end, by attempts that had ended when the run began: they stay the same while it goes on."""
    name, before = one.view.run.workflow_name, one.view.started_at
    nodes = [] if before is None else remaining_tasks(one.view)
    found = expected_end(one.view, asked.questions.earlier_attempts(name, nodes, before=before), one.until)
    if isinstance(found, Expected):
        return {"expected": found, "not_expected": None}
    return {"expected": None, "not_expected": found}
