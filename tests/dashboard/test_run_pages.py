"""
The pages about a run and about an attempt: their values are those of the fold, now and at any time of the past.
"""

import gc
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.collect.questions import whole_runs
from dkist_processing_core.collect.reports.decoding import event_in
from dkist_processing_core.dashboard.addresses.links import attempt_address, run_address
from dkist_processing_core.dashboard.asked import PageError
from dkist_processing_core.dashboard.one_run.chosen import steps_of
from dkist_processing_core.events import (
    Event,
    Graph,
    TaskDispatched,
    TaskFailed,
    TaskSampled,
    WorkflowOverdue,
    WorkflowStarted,
    encode,
)
from dkist_processing_core.identity import Run
from dkist_processing_core.runs import RunView, State, kept_reports, run_view
from dkist_processing_core.testing.fixed import FixedClock
from dkist_processing_core.testing.sample_run import SampleRun
from dkist_processing_core.testing.sample_runs import SAMPLE_RUNS, run_that_fails, run_with_killed_attempt
from tests.dashboard.one_store import NOW, one_store
from tests.facts import NOON, failed, finished, make, progressed, started
from tests.pace import here
from tests.stored import ENDED, RUNNING, ended_run, running_run
from tests.strategies import reports

_ENDED = Run("l0_to_l1_visp", "1.2.3", ENDED, 7)
_RUNNING = Run("l1_to_l2_dlnirsp", "dev", RUNNING, 42)
_HOSTILE = (
    "<script>alert(1)</script>",
    "\u202egnp.exe",
    "x" * 10_000,
    "a\x00b\x1b[31m\x7f",
    "\"'><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}",
    "名前" * 100,
)


def _view(events: list[Event], until: datetime | None = None) -> RunView:
    """
    Return the fold of reports that were received at `NOW`; of those until a time, without samples.
    """
    chosen = [
        event for event in events if until is None or (event.time <= until and not isinstance(event, TaskSampled))
    ]
    return run_view(kept_reports(chosen), received_at=NOW)


def _by_run(events: list[Event]) -> dict[Run, list[Event]]:
    """
    Return the reports on each run, without those on starts that were missed, which are about no run.
    """
    found: dict[Run, list[Event]] = {}
    for event in events:
        if not (isinstance(event, WorkflowOverdue) and event.is_missed_start):
            found.setdefault(Run(event.workflow_name, event.workflow_version, event.run_id, None), []).append(event)
    return found


@given(reports())
def test_a_page_has_the_values_of_the_fold_of_all_reports(events: list[Event]) -> None:
    """
    For any reports, true or false, in any order.
    """
    with one_store(events) as store:
        for run, of_run in _by_run(events).items():
            values = store.page(run_address(run)).values

            assert values["view"] == _view(of_run)


@given(reports(), st.integers(-1, 7))
def test_a_page_of_the_past_has_the_values_of_the_fold_until_then(events: list[Event], minutes: int) -> None:
    """
    Samples are left out, and when a report arrived does not matter. Of progress and alarms, the store has the latest.
    """
    at = NOON + timedelta(minutes=minutes)
    with one_store(events) as store:
        for run, of_run in _by_run(events).items():
            kept = kept_reports(of_run)
            address = run_address(run, at=at.isoformat())
            last = max(event.time for event in of_run)
            if at > max(NOW, last):
                with pytest.raises(PageError, match="not later than now, or than the last report on this run"):
                    store.page(address)
                continue
            if not [event for event in kept if event.time <= at and not isinstance(event, TaskSampled)]:
                with pytest.raises(PageError, match="expected a later time"):
                    store.page(address)
                continue
            values = store.page(address).values

            assert values["view"] == _view(kept, at)
            assert values["until"] == at
            # Of a later time, only the clock of this host decides whether it is one of the past.
            assert at > last or store.html(address).count("As it was at") == 1


@pytest.mark.parametrize("name", SAMPLE_RUNS)
def test_each_moment_of_a_run_can_be_visited(name: str) -> None:
    """
    The links of the slider lead from one report to the next, with the state of then. A sample changes no state.
    """
    run = SAMPLE_RUNS[name]()
    times = sorted({event.time for event in kept_reports(run.events) if not isinstance(event, TaskSampled)})
    with one_store(run.events) as store:
        steps: Any = store.page(run_address(run.run)).values["steps"]
        assert [step.at for step in steps.steps] == times
        for step in steps.steps:
            found: Any = store.page(run_address(run.run, at=step.at.isoformat())).values
            earlier, later = [time for time in times if time < step.at], [time for time in times if time > step.at]

            assert (found["steps"].previous, found["steps"].next) == (
                earlier[-1] if earlier else None,
                later[0] if later else None,
            )
            assert found["view"] == _view(kept_reports(run.events), step.at)


@given(st.lists(st.integers(0, 10_000), min_size=1, unique=True), st.integers(-5, 10_005))
def test_a_slider_has_few_steps_in_order(offsets: list[int], shown: int) -> None:
    """
    However many reports a run has.
    """
    moments = sorted(NOON + timedelta(seconds=each) for each in offsets)

    found = steps_of(moments, NOON + timedelta(seconds=shown), most=20)

    places = [step.place for step in found.steps]
    assert len(places) <= 20
    assert places == sorted(places)
    assert found.steps[0].at == moments[0]
    assert found.steps[-1].at == moments[-1] or len(moments) == 1
    assert 0 <= found.shown <= 100


@pytest.mark.parametrize("name", SAMPLE_RUNS)
def test_each_attempt_has_a_page(name: str) -> None:
    """
    With its state, and links to the others.
    """
    run = SAMPLE_RUNS[name]()
    with one_store(run.events) as store:
        for task in _view(run.events).tasks:
            for attempt in task.attempts:
                html = store.html(attempt_address(run.run, task.name, attempt.number))

                assert attempt.state.value in html
                assert html.count('scope="row"') == len(task.attempts)


def test_the_page_of_a_failed_attempt_shows_why() -> None:
    """
    The error, the frames of the author with the deepest first, the meaning of the cause, and where to look further.
    """
    with one_store(ended_run()) as store:
        html = store.html(attempt_address(_ENDED, "Calibrate", 1))

    assert html.index("raise LimbError(f&#34;no limb in frame") < html.index("self.find_limb(frame)")
    for text in (
        "dkist_processing_visp.errors.LimbError",
        "The code of the task raised an exception",
        'href="https://airflow.example/log?task=Calibrate&amp;try=1"',
        'href="https://traces.example/',
        "2 failures of",
        "2.6 GB at most",
    ):
        assert text in html, text


def test_the_past_knows_no_later_failure() -> None:
    """
    The page of an attempt lists the failures of its family until then.
    """
    with one_store(ended_run()) as store:
        now: Any = store.page(attempt_address(_ENDED, "Calibrate", 1)).values
        address = attempt_address(_ENDED, "Calibrate", 1, at=(NOON + timedelta(seconds=37)).isoformat())
        then: Any = store.page(address).values
        html = store.html(address)

    assert [(each.task_name, each.number) for each in now["alike"]] == [("Calibrate", 2), ("Calibrate", 1)]
    assert [(each.task_name, each.number) for each in then["alike"]] == [("Calibrate", 1)]
    assert "failures of" not in html


def test_a_run_can_be_visited_until_its_last_report_by_a_clock_that_is_ahead() -> None:
    """
    A later time is refused, as is one of a report whose time is implausible.
    """
    ahead, future = NOW + timedelta(hours=1), datetime.max.replace(tzinfo=UTC)
    failure = failed("A", run_id="r", time=ahead)
    events = [started("A", run_id="r"), failure, progressed("A", 1, run_id="r", time=future)]
    addresses = [attempt_address(failure.run, "A", 1, at=each.isoformat()) for each in (ahead, future)]

    with one_store(events) as store:
        values: Any = store.page(addresses[0]).values
        with pytest.raises(PageError, match="not later than now, or than the last report on this run"):
            store.page(addresses[1])

    assert values["until"] == ahead
    assert len(values["alike"]) == 1


def test_the_page_of_a_killed_attempt_shows_its_last_signs() -> None:
    """
    What the recorder kept: stacks of threads, log, phase and progress, with their ages, and the course of its use.
    """
    run = run_with_killed_attempt()
    with one_store(run.events) as store:
        html = store.html(attempt_address(run.run, "Calibrate", 1))

    for text in (
        "calibrate.py:40 in fit",
        "frame 4 is read",
        "4/12 frame",
        "SIGKILL",
        "ended from outside by a signal",
        "184 MB at most of 2.0 GB (9 %)",
        "<polyline",
        "worker1",
        "4711",
        "default",
    ):
        assert text in html, text


def test_a_page_without_an_attempt_in_its_address_shows_the_last_one() -> None:
    """
    As links to a task do.
    """
    run = run_that_fails()
    with one_store(run.events) as store:
        values: Any = store.page(attempt_address(run.run, "Calibrate", None)).values

        assert values["attempt"].number == 2


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/run", "workflow and id is missing"),
        ("/run?workflow=w&version=1", "id is missing"),
        ("/run?workflow=w&version=1&id=none", "the store has no run none of w 1"),
        (run_address(_ENDED, attempts="x"), "found attempts='x', expected a whole number"),
        (run_address(_ENDED, events="-1"), "found events='-1', expected a whole number"),
        (run_address(_ENDED, at="2020-01-01T00:00:00+00:00"), "expected a later time"),
        (run_address(_ENDED).replace("/run", "/attempt"), "task is missing"),
        (run_address(_ENDED, at="2099-01-01T00:00:00+00:00"), "expected a time that is not later than now, or than"),
        (attempt_address(_ENDED, "Calibrate", 1, at="9999-12-31T23:59:59.999999+00:00"), "not later than now"),
        (attempt_address(_ENDED, "Unknown", 1), "no attempt of a task Unknown"),
        (attempt_address(_ENDED, "Transfer", 1), "no attempt of a task Transfer"),
        (attempt_address(_ENDED, "Calibrate", 3), "task Calibrate has no attempt 3; expected one of 1, 2"),
        (attempt_address(_ENDED, "Calibrate", 1).replace("attempt=1", "attempt=²"), "task Calibrate has no attempt ²"),
    ],
)
def test_a_wrong_address_is_explained(address: str, message: str) -> None:
    """
    In one sentence.
    """
    with one_store(ended_run()) as store, pytest.raises(PageError, match=re.escape(message)):
        store.page(address)


def _hostile_run(text: str) -> SampleRun:
    """
    Return a run of which each text is hostile.
    """
    run = SampleRun(text, workflow_version=text, tasks=[text, "after"], run_id=f"r{text}", max_attempts=2)
    run.start()
    run.begin(text)
    run.progress(text, 1, 2)
    run.report(
        TaskFailed,
        text,
        cause="exception",
        message=text,
        stack=f'Traceback (most recent call last):\n  File "{text}", line 1, in {text}\n    {text}\n{text}: {text}',
        error_type=text,
        phase=text,
        signal=text,
        log_url=text,
        last_stack=f"{text}\n  {text}",
        last_log=text,
        last_phase=text,
        last_progress=text,
        fingerprint=text,
    )
    run.report(WorkflowOverdue, sequence=2, limit_seconds=1.0)
    run.end()
    return run


@pytest.mark.parametrize("text", _HOSTILE)
def test_hostile_texts_are_shown_as_text(text: str) -> None:
    """
    In no field do they become elements, attributes or links, hide, or turn the direction of the page.
    """
    events = _hostile_run(text).events
    # An event replaces control characters.
    run, task = events[0].run, next(event.task_name for event in events if isinstance(event, TaskFailed))
    with one_store(events) as store:
        pages = [
            store.html(run_address(run)),
            store.html(run_address(run, at=events[-1].time.isoformat())),
            store.html(attempt_address(run, task, 1)),
        ]

    for page in pages:
        # What a button copies and a form sends is the text itself.
        html = re.sub('(data-copy|value)="[^"]*"', "", page)
        assert "<script>alert" not in html
        assert "<img" not in html
        assert 'href="javascript' not in html
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b\x7f]", html)
        assert ("{{ 7 * 7 }}" in html) == (text == "{{ 7 * 7 }}")
        assert html.rstrip().endswith("</html>")


@pytest.mark.parametrize(
    ("graph", "others"),
    [
        (None, {"A", "B[0]"}),
        (Graph(nodes=("A",), edges=(("A", "A"), ("ghost", "A"), ("A", "ghost"))), {"B[0]"}),
        (Graph(nodes=(), edges=()), {"A", "B[0]"}),
        (Graph(nodes=("A", "B"), edges=(("A", "B"), ("B", "A"))), set()),
    ],
    ids=["unknown", "circles and a node without a task", "empty", "a circle, and a mapped task"],
)
def test_any_graph_is_shown(graph: Graph | None, others: set[str]) -> None:
    """
    A task that belongs to no node is listed, and nothing breaks the page.
    """
    events: list[Event] = [make(WorkflowStarted, None, time=NOON, graph=graph, reported_by="engine")]
    events += [started("A", time=NOON), started("B[0]", time=NOON)]
    with one_store(events) as store:
        (run,) = _by_run(events)
        found: Any = store.page(run_address(run)).values["graph"]
        html = store.html(run_address(run))

    assert {face.name for face in found.others} == others
    assert html.rstrip().endswith("</html>")


def test_instances_of_a_mapped_task_are_one_node() -> None:
    """
    It counts those that have ended, has the worst of their states, and leads to their attempts.
    """
    graph = Graph(nodes=("A", "B"), edges=(("A", "B"),))
    events: list[Event] = [make(WorkflowStarted, None, time=NOON, graph=graph, reported_by="engine")]
    events += [started(f"B[{number}]", time=NOON) for number in range(4)]
    events += [finished("B[0]", time=NOON), failed("B[1]", time=NOON)]
    with one_store(events) as store:
        (run,) = _by_run(events)
        graph_of: Any = store.page(run_address(run)).values["graph"]
        rows: Any = store.page(run_address(run, task="B")).values["rows"]

    _, face = graph_of.faces
    assert (face.state, face.share, face.text) == (State.FAILED, 0.5, "failed · 2 of 4")
    assert "task=B" in face.address
    assert [each.row.task.name for each in rows] == [f"B[{number}]" for number in range(4)]


def test_progress_of_a_running_task_is_in_its_node() -> None:
    """
    As a share of the whole.
    """
    with one_store(running_run(now=NOW)) as store:
        graph: Any = store.page(run_address(_RUNNING)).values["graph"]

    shares = {face.name: face.share for face in graph.faces}
    assert shares == {"Gather": None, "Invert": 0.45, "Publish": None, "Summarize": None}


def test_no_node_moves_while_a_run_goes_on() -> None:
    """
    The places depend on the graph alone.
    """
    run = run_with_killed_attempt()
    with one_store(run.events) as store:
        times = sorted({event.time for event in run.events})
        pages = [store.page(run_address(run.run, at=time.isoformat())).values["graph"] for time in times]

    layouts = {graph.layout for graph in pages if graph.layout is not None}  # type: ignore[attr-defined]
    assert len(layouts) == 1


def test_a_long_run_is_shown_in_parts() -> None:
    """
    The first attempts, and the last reports; each part is linked.
    """
    run = SampleRun(tasks=[f"T{number}" for number in range(150)], edges=())
    run.start()
    for task in run.tasks:
        run.succeed(task)
    with one_store(run.events) as store:
        address = run_address(run.run)
        first, second = store.page(address).values, store.page(f"{address}&attempts=100&events=0").values
        html = store.html(address)

    shown: Any = first["rows"]
    assert [each.row.task.name for each in shown] == list(run.tasks[:100])
    shown = second["rows"]
    assert [each.row.task.name for each in shown] == list(run.tasks[100:])
    shown = [first["event_rows"][-1].name, second["event_rows"][0].name]  # type: ignore[index]
    assert shown == ["task.finished", "workflow.started"]
    assert "attempts=100#attempts" in html
    assert "events=500#events" in html


def test_a_large_graph_leads_to_its_first_node_and_to_failures() -> None:
    """
    A window shows only a part of it.
    """
    run = SampleRun(tasks=[f"T{number}" for number in range(40)])
    run.start()
    for task in run.tasks[:20]:
        run.succeed(task)
    run.fail(run.tasks[20])
    with one_store(run.events) as store:
        jumps: Any = store.page(run_address(run.run)).values["graph"]
        html = store.html(run_address(run.run))

    assert [face.name for face in jumps.jumps] == ["T0", "T20"]
    assert 'href="#node-20"' in html
    assert 'id="node-20"' in html


def test_the_expected_end_rests_on_earlier_runs() -> None:
    """
    On those before the run began; without enough of them, the page says why there is none.
    """
    earlier: list[Event] = []
    for number in range(3):
        run = SampleRun(run_id=f"earlier-{number}", clock=FixedClock(NOON - timedelta(hours=number + 1)))
        run.start()
        for task in run.tasks:
            run.succeed(task)
        run.end()
        earlier += run.events
    now = SampleRun(run_id="now", clock=FixedClock(NOON))
    now.start()
    with one_store([*earlier[: len(earlier) * 2 // 3], *now.events]) as store:
        assert store.page(run_address(now.run)).values["expected"] is None
        assert "a remaining task has fewer than 3 earlier successful attempts" in store.html(run_address(now.run))

        store.add(*earlier[len(earlier) * 2 // 3 :])
        found: Any = store.page(run_address(now.run)).values["expected"]
        html = store.html(run_address(now.run))
        now.begin("ParseL0")
        store.add(*now.events)
        running = store.html(run_address(now.run))

    assert (found.tasks, found.attempts) == (3, 3)
    assert found.at > NOW
    assert "if all remaining tasks are fast" in html
    assert "a task has run for so long that fewer than 3 of its earlier attempts took longer" in running


def test_the_past_has_only_the_hosts_that_were_reported_until_then() -> None:
    """
    An attempt is dispatched before it is known where it runs.
    """
    run = Run("W", "1", "r", None)
    names = {"workflow_name": "W", "workflow_version": "1", "run_id": "r"}
    dispatched = make(TaskDispatched, "A", time=NOON, **names)
    began = started("A", time=NOON + timedelta(seconds=9), host="node7", **names)
    past = (NOON + timedelta(seconds=5)).isoformat()
    with one_store([dispatched, began]) as store:
        rows: list[Any] = [
            store.page(address).values["rows"] for address in (run_address(run), run_address(run, at=past))
        ]
    hosts = [[row.host for row in of_time] for of_time in rows]

    assert hosts == [["node7"], [None]]


@pytest.mark.soak
@pytest.mark.quiet
def test_a_run_of_three_thousand_attempts_is_shown_fast() -> None:
    """
    The page takes 100 ms at the server in 95 of 100 cases, once the run was read.
    """
    tasks = [f"Task{number}" for number in range(1000)]
    edges = [(tasks[max(0, number - 1 - number % 30)], tasks[number]) for number in range(1, 1000)]
    run = SampleRun(tasks=tasks, edges=edges, max_attempts=3)
    run.start()
    for task in tasks:
        run.fail(task)
        run.fail(task)
        run.succeed(task)
    run.end()
    with one_store(run.events) as store:
        # As the command does with what is in memory before it serves.
        gc.collect()
        gc.freeze()
        seconds = []
        try:
            for _ in range(41):
                began = time.perf_counter()
                store.html(run_address(run.run))
                seconds.append(time.perf_counter() - began)
        finally:
            gc.unfreeze()

    assert sorted(seconds[1:])[37] < here(0.1)


def test_contradictions_and_implausible_reports_are_marked() -> None:
    """
    They are part of what arrived, and have no effect on the state.
    """
    events: list[Event] = [
        started("A", time=NOON),
        finished("A", time=NOON, reported_by="launcher"),
        failed("A", time=NOON, reported_by="engine", provisional=True),
        started("B", time=NOON - timedelta(days=9000)),
    ]
    with one_store(events) as store:
        (run,) = _by_run(events)
        rows: Any = store.page(run_address(run)).values["event_rows"]
        html = store.html(run_address(run))

    assert [tuple(row.marks) for row in rows] == [
        (),
        (),
        ("contradicts the outcome", "provisional"),
        ("its time is not plausible, and has no effect",),
    ]
    assert '! <bdi class="name">the engine reports: failed' in html


def test_a_run_is_read_again_only_after_a_report() -> None:
    """
    The view is the same object until then, also for a report that does not change it.
    """
    run = run_that_fails()
    with one_store(run.events[:-1]) as store:
        first = store.questions.whole_run(run.run)
        assert store.questions.whole_run(run.run) is first
        assert first is not None
        assert set(first.bodies) == set(map(encode, run.events[:-1]))

        store.add(run.events[-1])
        second = store.questions.whole_run(run.run)

    assert second is not None
    assert second.view.state is State.FAILED
    assert second is not first


@pytest.mark.parametrize("is_huge", [False, True])
def test_the_known_reports_on_a_run_that_goes_on_are_not_decoded_again(
    monkeypatch: pytest.MonkeyPatch, *, is_huge: bool
) -> None:
    """
    Its page changes with each report, and a run may have thousands of them. A large run is kept as well, and of a huge
    one, whose decoded reports would fill the memory, the reports are decoded again.
    """
    monkeypatch.setattr(whole_runs, "_MOST_KEPT_BYTES", 1)
    if is_huge:
        monkeypatch.setattr(whole_runs, "_MOST_DECODED_BYTES", 1)
    run = run_that_fails()
    with one_store(run.events[:-2]) as store:
        first = store.questions.whole_run(run.run)
        kept = store.questions.whole_run(run.run)
        store.add(run.events[-2])
        decode_stored = Mock(side_effect=event_in)
        monkeypatch.setattr(whole_runs, "event_in", decode_stored)
        second = store.questions.whole_run(run.run)

    assert first is not None
    assert kept is first
    decoded = [call.args[0] for call in decode_stored.call_args_list]
    assert len(decoded) == (len(run.events) - 1 if is_huge else 1)
    assert encode(run.events[-2]) in decoded
    assert second is not None
    assert second.view == run_view(run.events[:-1], received_at=second.received_at)
    assert len(second.bodies) == len(first.bodies) + 1


def test_a_run_of_a_workflow_without_a_version_has_a_page() -> None:
    """
    An address leaves an empty parameter out.
    """
    run = SampleRun(workflow_version="")
    run.start()
    with one_store(run.events) as store:
        address = run_address(run.run)
        found: Any = store.page(address).values

    assert "version" not in address
    assert found["run"] == run.run


def test_links_lead_only_to_web_pages() -> None:
    """
    A template of a site with another scheme is not used, and values cannot change the host.
    """
    run = Run("w/../../", "1 2", "?#&", 1)
    events = [
        failed(
            "A",
            time=NOON,
            workflow_name=run.workflow_name,
            workflow_version=run.workflow_version,
            run_id=run.run_id,
            log_url="ftp://host/log",
        )
    ]
    with one_store(events) as store:
        address = attempt_address(run, "A", 1)
        linked = store.page(address).values["log_link"]
        none = store.page(address, log_url="javascript:alert({task})", trace_url="//{trace_id}").values

    assert linked == "https://logs.example/w%2F..%2F..%2F/1%202/%3F%23%26/A/1"
    assert (none["log_link"], none["trace_link"]) == (None, None)


def test_live_parts_are_those_of_the_page() -> None:
    """
    Each is in the page as it is sent.
    """
    with one_store(running_run(now=NOW)) as store:
        for address in (run_address(_RUNNING), attempt_address(_RUNNING, "Invert", 2)):
            html, parts = store.html(address), store.parts(address)

            assert len(parts) >= 3
            for name, part in parts.items():
                assert part.startswith("<")
                assert f'id="{name}"' in part.partition(">")[0]
                assert f'id="{name}"' in html
