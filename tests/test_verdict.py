"""
Tests of the verdict on the end of a task's process, for each possible end.
"""

import json
import signal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkist_processing_core.events import (
    Cause,
    Reporter,
    TaskEnd,
    TaskEvent,
    TaskFailed,
    TaskFinished,
    decode,
    encode,
)
from dkist_processing_core.launcher import _verdict
from dkist_processing_core.launcher._verdict import Circumstances, bare, judge
from dkist_processing_core.launcher.process_end import FAILED as FAILED_NAME
from dkist_processing_core.launcher.process_end import FINISHED as FINISHED_NAME
from dkist_processing_core.launcher.process_end import ProcessEnd
from tests.facts import make
from tests.running import ROOT

RAISED = {
    "error_type": "ValueError",
    "message": "wrong",
    "stack": "Traceback",
    "frames": ["a:b"],
    "is_exit": False,
    "is_memory": False,
}
FINISHED = {"end": "task.finished", "is_on_disk": True, "facts": {"duration_seconds": 1.0}}
FAILED = {"end": "task.failed", "is_on_disk": True, "facts": {"cause": "exception", "error_type": "ValueError"}}
HANDED = {
    "end": "task.failed",
    "is_on_disk": False,
    "facts": {
        "cause": "terminated",
        "phase": "run",
        "stack": "s",
        "peak_memory_bytes": 3,
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
MEASURED = st.fixed_dictionaries({}, optional={"peak_memory_bytes": st.none() | st.integers(0, 2**40)})
LAST = st.fixed_dictionaries({}, optional={"last_log": st.text()})
WORDS = st.fixed_dictionaries(
    {},
    optional={
        "began": st.booleans() | JSON,
        "returned": st.booleans() | JSON,
        "raised": st.just(RAISED) | JSON,
        "end": st.sampled_from(["task.finished", "task.failed"]) | JSON,
        "is_on_disk": st.booleans() | JSON,
        "facts": JSON,
    },
)


NOTHING = Circumstances()
REQUESTED = Circumstances(termination_requested=True)
ORPHANED = Circumstances(termination_requested=True, is_orphaned=True)
OOM = Circumstances(oom_kill=True)


def end(exit_code: int | None, **reports: Any) -> ProcessEnd:
    """
    Return the end of a process that ran for three seconds.
    """
    return ProcessEnd(exit_code=exit_code, processor_seconds=2.0, duration_seconds=3.0, reports=reports)


def row(exit_code: int | None, reports: dict[str, Any], known: Circumstances = NOTHING) -> tuple[object, ...]:
    """
    Return the cause, whether the task has published it, and the exit status of the launcher.
    """
    verdict = judge(end(exit_code, **reports), known)
    return str(verdict.cause) if verdict.cause else None, verdict.is_on_disk, verdict.exit_code


@pytest.mark.parametrize(
    ("exit_code", "reports", "expected"),
    [
        (0, FINISHED, 1.0),
        (0, {**FINISHED, "is_on_disk": False}, 3.0),
        (1, {**HANDED, "facts": {"cause": "terminated", "duration_seconds": 1.0}}, 3.0),
        (-9, {}, 3.0),
    ],
)
def test_a_duration_that_the_launcher_reports_is_that_of_the_process(
    exit_code: int, reports: dict[str, Any], expected: float
) -> None:
    """
    Only a report of the task that is on disk already keeps its own duration: it cannot be changed.
    """
    assert expected == judge(end(exit_code, **reports), NOTHING).facts["duration_seconds"]


@pytest.mark.parametrize(
    ("exit_code", "reports", "known", "expected"),
    [
        # A success needs a report.
        (0, {**FINISHED, "returned": True}, NOTHING, (None, True, 0)),
        (0, {"returned": True}, NOTHING, (None, False, 0)),
        (0, {**FINISHED}, NOTHING, (None, True, 0)),
        (0, {**FINISHED, "is_on_disk": False, "returned": True}, NOTHING, (None, False, 0)),
        (0, {"began": True, "loaded": True}, NOTHING, ("exit_code", False, 1)),
        (0, {**FINISHED, "returned": True}, REQUESTED, (None, True, 0)),
        # The report of the task has priority.
        (1, {**FAILED, "raised": RAISED}, NOTHING, ("exception", True, 1)),
        (0, {**FAILED, "returned": True}, NOTHING, ("exception", True, 0)),
        (1, {**FAILED, "raised": RAISED}, REQUESTED, ("exception", True, 1)),
        # Without a report of the end, the most direct reason is taken.
        (3, {"began": True}, NOTHING, ("exit_code", False, 3)),
        (1, {"raised": RAISED}, NOTHING, ("exception", False, 1)),
        (1, {"raised": {**RAISED, "is_exit": True}}, NOTHING, ("exit_code", False, 1)),
        (1, {"raised": {**RAISED, "is_memory": True}}, NOTHING, ("out_of_memory", False, 1)),
        (-9, {}, NOTHING, ("signal", False, 137)),
        (-9, {}, OOM, ("out_of_memory", False, 137)),
        (-11, {}, OOM, ("signal", False, 139)),
        (-15, {}, NOTHING, ("terminated", False, 143)),
        (-9, {}, REQUESTED, ("terminated", False, 137)),
        (-9, {}, ORPHANED, ("lost", False, 137)),
        (1, {**HANDED, "raised": RAISED}, NOTHING, ("terminated", False, 1)),
        (1, {**HANDED, "raised": RAISED}, REQUESTED, ("terminated", False, 1)),
        (1, {**HANDED, "raised": RAISED}, ORPHANED, ("lost", False, 1)),
        (-9, {**FINISHED, "returned": True}, REQUESTED, (None, True, 0)),
        # A lost status is not taken for a success: the reports of the task decide.
        (None, {**FINISHED, "returned": True}, NOTHING, (None, True, 0)),
        (None, {"returned": True}, NOTHING, (None, False, 0)),
        (None, {**FINISHED}, NOTHING, (None, True, 0)),
        (None, {**FINISHED, "raised": RAISED}, NOTHING, ("exception", False, 1)),
        (None, {**FAILED, "raised": RAISED}, NOTHING, ("exception", True, 1)),
        (None, {**FAILED, "returned": True}, NOTHING, ("exception", True, 1)),
        (None, {"began": True, "loaded": True}, NOTHING, ("lost", False, 1)),
        (None, {}, REQUESTED, ("terminated", False, 1)),
        # A failure after a reported success makes it a failure.
        (1, {**FINISHED, "raised": RAISED}, NOTHING, ("exception", False, 1)),
        (-11, {**FINISHED, "returned": True}, NOTHING, ("signal", False, 139)),
    ],
)
def test_each_end_has_its_cause(
    exit_code: int | None, reports: dict[str, Any], known: Circumstances, expected: tuple[object, ...]
) -> None:
    """
    The table lists statuses, reports and circumstances with the resulting verdict.
    """
    assert row(exit_code, reports, known) == expected


def test_what_the_task_knows_is_kept_where_the_launcher_decides() -> None:
    """
    Phase and stack are those of the task, the cause is the launcher's, and the peak of memory is the higher one.
    """
    known = Circumstances(termination_requested=True, is_orphaned=True, measured={"peak_memory_bytes": 7})

    verdict = judge(end(1, **HANDED), known)

    assert verdict.facts["phase"] == "run"
    assert verdict.facts["stack"] == "s"
    assert verdict.facts["cause"] is Cause.LOST
    assert verdict.facts["message"] == "the process that ran the workflow (the script, or Airflow's task runner) ended"
    assert verdict.facts["peak_memory_bytes"] == 7
    assert verdict.error_type == "lost"


LAST_SIGNS = {"last_stack": "a.py:1 in run", "last_stack_age_seconds": 0.1, "last_phase": "run"}


@pytest.mark.parametrize(
    ("exit_code", "reports", "has_them"),
    [
        (-9, {}, True),
        (1, {}, True),
        (None, {}, True),
        (1, {"raised": RAISED}, True),
        (1, {"end": "task.failed", "facts": {"cause": "exception"}}, False),
        (1, {"end": "task.failed", "facts": {"cause": "terminated"}}, True),
        (1, {"end": "task.failed", "is_on_disk": True, "facts": {"cause": "exception"}}, False),
        (0, {"end": "task.finished", "returned": True}, False),
    ],
)
def test_a_failure_that_the_task_did_not_report_has_its_last_signs(
    exit_code: int | None, reports: dict[str, Any], has_them: object
) -> None:
    """
    The measurements are in each end that the launcher reports.
    """
    known = Circumstances(measured={"profile": ((1.0, 2, 0.0, 0, 0),)}, last=LAST_SIGNS)

    facts = judge(end(exit_code, **reports), known).facts

    assert ({*LAST_SIGNS} <= {*facts}) == has_them
    assert ("profile" in facts) == ("is_on_disk" not in reports)


class Counted(TaskFinished, frozen=True, kw_only=True, dict=True):
    """
    A success with a field that no other end has.
    """

    frames: int | None = None


@pytest.mark.parametrize(
    ("event_class", "reports", "exit_code"), [(Counted, FINISHED, 0), (TaskFailed, FAILED, 1)], ids=["good", "bad"]
)
def test_each_fact_that_the_task_reports_is_kept(
    event_class: type[TaskEnd], reports: dict[str, Any], exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The fields of the event itself decide, and a field of the other end is left out.
    """
    monkeypatch.setattr(_verdict, "TaskFinished", Counted)
    of_launcher = {"provisional", "resources", "profile"}
    own = {*event_class.__struct_fields__} - {*TaskEvent.__struct_fields__, *of_launcher}
    facts = dict.fromkeys(own, 7) | {"of_another_release": 7}

    verdict = judge(end(exit_code, **{**reports, "facts": facts | {"cause": "exception"}}), Circumstances())

    assert verdict.event_class is event_class
    assert own == set(verdict.facts)


def test_an_exception_of_any_release_has_its_fingerprint() -> None:
    """
    The fingerprint equals that of this release: it consists of the type and the functions, without those of this
    package.
    """
    one = judge(end(1, raised=RAISED), Circumstances()).facts
    other = judge(
        end(1, raised={**RAISED, "message": "another", "frames": ["dkist_processing_core.task:run", "a:b"]}),
        Circumstances(),
    ).facts

    assert one["fingerprint"] == other["fingerprint"]
    assert len(one["fingerprint"]) == 16


@given(
    exit_code=st.none() | st.integers(-64, 255),
    reports=WORDS,
    known=st.builds(Circumstances, st.booleans(), st.booleans(), st.booleans(), MEASURED, LAST),
)
def test_whatever_is_reported_there_is_one_verdict(
    exit_code: int | None, reports: dict[str, Any], known: Circumstances
) -> None:
    """
    There is no error, no success of a process that failed, and no status 0 for an end without a report.
    """
    end = ProcessEnd(
        exit_code=exit_code, processor_seconds=0.0, duration_seconds=0.0, reports=json.loads(json.dumps(reports))
    )
    verdict = judge(end, known)

    assert 0 <= verdict.exit_code <= 255
    assert (verdict.cause is None) == (verdict.event_class is TaskFinished)
    if verdict.event_class is TaskFinished:
        # If a task had returned, a termination request may have ended processes that it left running.
        was_ended = (
            exit_code is not None and exit_code < 0 and known.termination_requested and reports.get("returned") is True
        )
        assert verdict.exit_code == 0
        is_lost = exit_code is None and (reports.get("returned") is True or reports.get("end") == "task.finished")
        assert exit_code == 0 or was_ended or is_lost
        assert bare(end, termination_requested=known.termination_requested).cause is None
    elif exit_code is None:
        assert verdict.exit_code == 1 or reports.get("returned") is True
    elif exit_code != 0 or reports.get("returned") is not True:
        assert verdict.exit_code != 0 or reports.get("end") == "task.finished"


@pytest.mark.parametrize("number", [signal.SIGKILL, 40])
def test_a_verdict_makes_an_event(number: int) -> None:
    """
    A signal without a name is stated by its number.
    """
    verdict = judge(end(-number), Circumstances())

    event = make(TaskFailed, "A", reported_by=Reporter.LAUNCHER, **verdict.facts)
    assert decode(encode(event)) == event
    assert event.signal in {"SIGKILL", "SIG40"}


def test_the_names_of_ends_are_those_of_the_events() -> None:
    """
    The launcher uses the names before it imports any event.
    """
    assert (TaskFinished.name, TaskFailed.name) == (FINISHED_NAME, FAILED_NAME)


def test_the_page_about_ends_names_every_cause() -> None:
    """
    The table contains each cause that an event may state, and no other.
    """
    page = (ROOT / "docs" / "explanation" / "ends.md").read_text()
    rows = [line.split("|")[2].strip() for line in page.splitlines() if line.startswith("| ")]

    assert {row.strip("`") for row in rows if row.startswith("`")} == {cause.value for cause in Cause}
