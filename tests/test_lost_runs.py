"""
Tests of the end of a local run whose process was killed.
"""

import contextlib
import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dkist_processing_core import RunState, subscribe
from dkist_processing_core.bus import open_bus
from dkist_processing_core.delivery.lost_runs import end_of, lost_runs, report_lost_runs
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.delivery.reporter import EventReporter
from dkist_processing_core.errors import JournalError
from dkist_processing_core.events import (
    Cause,
    Event,
    Graph,
    Reporter,
    TaskFailed,
    TaskStarted,
    WorkflowFailed,
    WorkflowFinished,
    WorkflowStarted,
)
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.journal import Journal
from dkist_processing_core.journal.locks import FileLock
from dkist_processing_core.journal.notes import RUN_ENDED, SUCCEEDED
from dkist_processing_core.journal.run_record import RUNNING, RecordedRun, RunRecord, records_beside
from dkist_processing_core.local._reports import RunReports
from dkist_processing_core.outbox import Relay
from dkist_processing_core.runs import State
from dkist_processing_core.settings.reading import read_settings
from tests.running import ROOT, children_of, run_command, run_python, status_of_fork
from tests.waiting import wait_until

RUN = Run("long_run", "dev", "local__1__20261129T090000Z__0a1b2c3d", 1)
STARTED_AT = datetime(2026, 11, 29, 9, tzinfo=UTC)
BEFORE = dict.fromkeys(("First", "Last"), "no_status")


def journal_path() -> Path:
    """
    Return the path of the journal of the settings.
    """
    return open_bus(read_settings()).journal_path


def begun() -> RunRecord:
    """
    Return the record of a run with one task that runs and one that waits.
    """
    record = RunRecord(journal_path(), RUN)
    record.begin(STARTED_AT, BEFORE, {"TRACEPARENT": f"00-{1:032x}-{2:016x}-01"})
    record.note(["First"], RUNNING, 1)
    return record


def lose_a_run() -> None:
    """
    Begin a run in a fork, which ends without a report.
    """
    with Publisher.open(read_settings()) as publisher:
        EventReporter(Reporter.ENGINE, RUN, publisher=publisher).report(WorkflowStarted, started_at=STARTED_AT)
    assert status_of_fork(begun) == 0


def on_the_bus() -> list[Event]:
    """
    Return all reports on the bus.
    """
    with subscribe(replay=True, every_report=True, timeout=0.05) as events:
        return list(events)


def failure_messages() -> int:
    """
    Return the number of failure messages in the journal.
    """
    entries = Journal.look(journal_path(), lambda journal: list(journal.read(0, 100)))
    return sum(entry.message.exchange == "master.direct.x" for entry in entries)


REPORTER = """
import sys
import threading
from dkist_processing_core.delivery.lost_runs import report_lost_runs
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.settings.reading import read_settings

with Publisher.open(read_settings()) as publisher:
    print("ready", flush=True)
    sys.stdin.read()
    report_lost_runs(publisher)
    report_lost_runs(publisher)
"""


def test_two_processes_publish_the_end_of_a_lost_run_once() -> None:
    """
    The end names the reason and the state of each task, and the task that ran is announced; the record is removed.
    """
    lose_a_run()
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", REPORTER], stdin=-1, stdout=-1))
            for _ in range(2)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"

        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        statuses = [process.wait() for process in processes]

    assert statuses == [0, 0]
    (_, failure, end) = on_the_bus()
    assert isinstance(failure, TaskFailed)
    assert (failure.task_name, failure.attempt, failure.final, failure.cause) == ("First", 1, True, "lost")
    assert isinstance(end, WorkflowFailed)
    assert end.run == RUN
    assert end.tasks == {"First": "failed", "Last": "no_status"}
    assert end.reason is not None
    assert end.reason.startswith("lost: the process that ran it (pid ")
    assert end.traceparent == f"00-{1:032x}-{2:016x}-01"
    assert failure_messages() == 1
    assert records_beside(journal_path()) == []


def test_all_processes_derive_the_same_id_of_the_end_of_a_lost_run() -> None:
    """
    No process knows the time of the end, so the id does not depend on it.
    """
    lose_a_run()

    ends = [end_of(lost) for _ in range(2) for lost in lost_runs(journal_path())]

    assert len(ends) == 2
    assert len({end.id for end in ends}) == 1
    assert ends[0].ended_at is None


def test_a_lost_run_has_a_final_failure_of_a_task_that_would_have_been_retried() -> None:
    """
    The launcher's report says that another attempt follows, so the final one has an id of its own.
    """

    def wait_for_the_retry() -> None:
        record = RunRecord(journal_path(), RUN)
        record.begin(STARTED_AT, BEFORE, {})
        record.note(["First"], RUNNING, 1, is_final=False)

    assert status_of_fork(wait_for_the_retry) == 0
    with Publisher.open(read_settings()) as publisher:
        attempt = Attempt(RUN, "First", attempt=1, max_attempts=2)
        EventReporter(Reporter.LAUNCHER, attempt, publisher=publisher).report(
            TaskFailed, cause=Cause.EXCEPTION, final=False
        )
        report_lost_runs(publisher)

    failures = [event for event in on_the_bus() if isinstance(event, TaskFailed)]
    assert [(each.attempt, each.final) for each in failures] == [(1, False), (None, True)]
    (run,) = RunState(on_the_bus()).runs
    (attempt_view,) = run.tasks[0].attempts
    assert (attempt_view.number, attempt_view.cause) == (1, "exception")


def test_a_task_that_nobody_saw_end_has_a_final_failure_without_a_time() -> None:
    """
    Its launcher was killed with the run, and the report has only the time at which somebody looked.
    """
    lose_a_run()
    with Publisher.open(read_settings()) as publisher:
        reporter = EventReporter(
            Reporter.LAUNCHER, Attempt(RUN, "First", attempt=1, max_attempts=1), publisher=publisher
        )
        reporter.report(TaskStarted)
        report_lost_runs(publisher)

    (run,) = RunState(on_the_bus()).runs
    (attempt,) = run.tasks[0].attempts
    assert (attempt.number, attempt.state, attempt.cause) == (1, State.FAILED, "lost")
    assert (attempt.ended_at, attempt.duration_seconds) == (None, None)


def test_a_run_that_lives_is_not_lost() -> None:
    """
    Its process holds the lock of its record, also after code of this process has opened and closed the file.
    """
    record = begun()
    record.note(["First"], "success", 1)

    with Publisher.open(read_settings()) as publisher:
        report_lost_runs(publisher)

    assert list(lost_runs(journal_path())) == []
    assert on_the_bus() == []
    assert len(records_beside(journal_path())) == 1
    record.end()
    assert records_beside(journal_path()) == []


def test_a_run_that_ended_before_its_process_was_killed_has_one_end() -> None:
    """
    The process may be killed between the report of the end and the removal of the record.
    """

    def end() -> None:
        begun()
        with Publisher.open(read_settings()) as publisher:
            reporter = EventReporter(Reporter.ENGINE, RUN, publisher=publisher)
            reporter.report(WorkflowFinished, None, RUN_ENDED + RUN.run_id, ended_at=STARTED_AT)

    assert status_of_fork(end) == 0
    assert list(lost_runs(journal_path())) == []

    with Publisher.open(read_settings()) as publisher:
        report_lost_runs(publisher)

    assert [event.name for event in on_the_bus()] == ["workflow.finished"]
    assert failure_messages() == 0
    assert records_beside(journal_path()) == []


def test_a_task_that_succeeded_after_the_death_of_its_run_has_succeeded() -> None:
    """
    Its launcher has seen the success, so no failure of it is announced.
    """
    lose_a_run()

    with Publisher.open(read_settings()) as publisher:
        publisher.remember(SUCCEEDED + Attempt(RUN, "First", attempt=1, max_attempts=3).key)
        report_lost_runs(publisher)

    end = on_the_bus()[-1]
    assert isinstance(end, WorkflowFailed)
    assert end.tasks == {"First": "success", "Last": "no_status"}
    assert failure_messages() == 0


def test_looking_at_a_lost_run_publishes_nothing() -> None:
    """
    `timeline` draws the run as failed with the reason, and `events list` has a remark beside its output.
    """
    lose_a_run()

    timeline = run_command("timeline")
    listed = run_command("events", "list")

    assert "failed at an unknown time, last sign of life after" in " ".join(timeline.stdout.split())
    assert "lost: the process that ran it" in timeline.stdout
    assert f"run {RUN.run_id} has no end yet, lost: the process that ran it" in " ".join(listed.stderr.split())
    assert "workflow.failed" not in listed.stdout
    assert [event.name for event in on_the_bus()] == ["workflow.started"]
    assert len(records_beside(journal_path())) == 1


@pytest.mark.parametrize("text", ["", '{"run": ["long_', '{}\n{"task"', "[]", "null"])
def test_a_record_without_a_whole_first_line_is_of_no_run(text: str) -> None:
    """
    Its process was killed before it had published the start of the run.
    """
    assert RecordedRun.parse(text) is None


def test_a_record_is_read_up_to_a_line_that_was_cut() -> None:
    """
    The process may be killed while it writes.
    """
    record = begun()
    (path,) = records_beside(journal_path())

    read = RecordedRun.parse(path.read_text() + '{"task": "Last", "sta')

    assert read is not None
    assert (read.run, read.started_at) == (RUN, STARTED_AT)
    assert (read.states, read.attempts) == ({"First": RUNNING, "Last": "no_status"}, {"First": 1})
    record.end()


@pytest.mark.parametrize("line", [b'{"state": "success"}\n', b"\x00\xff\xfe\n", b"[]\n"])
def test_a_record_with_a_damaged_line_is_reported_up_to_it(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """
    The host may fail while the file is written; the record does not stay for every later process.
    """
    lose_a_run()
    (path,) = records_beside(journal_path())
    path.write_bytes(path.read_bytes() + line + b'{"task": "Last", "state": "success", "attempt": 1}\n')
    assert [lost.states for lost in lost_runs(journal_path())] == [{"First": RUNNING, "Last": "no_status"}]

    with Publisher.open(read_settings()) as publisher:
        report_lost_runs(publisher)

    end = on_the_bus()[-1]
    assert isinstance(end, WorkflowFailed)
    assert end.tasks == {"First": "failed", "Last": "no_status"}
    assert records_beside(journal_path()) == []
    assert warnings_in(caplog) == [
        f"the record {path} of run {RUN.run_id} is damaged: the reported states of its tasks may be older than its end"
    ]


def test_a_record_with_a_damaged_first_line_is_removed_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """
    No process can know its run.
    """
    lose_a_run()
    (path,) = records_beside(journal_path())
    path.write_bytes(b"\xff" + path.read_bytes())

    with Publisher.open(read_settings()) as publisher:
        report_lost_runs(publisher)

    assert [event.name for event in on_the_bus()] == ["workflow.started"]
    assert records_beside(journal_path()) == []
    assert warnings_in(caplog) == [
        f"the record {path} of a run is damaged and removed: the end of this run is not reported"
    ]


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """
    Return the warnings that were logged.
    """
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_run_is_not_recorded_without_the_lock_of_its_record() -> None:
    """
    Otherwise it would be reported as lost while it lasts.
    """
    path = journal_path().with_name(f"{journal_path().stem}.{RUN.run_id}.run")
    path.parent.mkdir(parents=True, exist_ok=True)
    other = FileLock(path)
    assert other.acquire()

    with pytest.raises(JournalError, match="is locked by another process"):
        begun()

    assert path.read_bytes() == b""
    other.remove()


def test_an_unusable_folder_of_the_journal_is_one_warning_of_a_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The publisher logs the cause, so the missing record of the run is no other warning.
    """
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", "/proc/unrecorded")  # a process names each cause once
    reports = RunReports(RUN, read_settings())

    reports.open()
    reports.started(STARTED_AT, Graph(nodes=("First",), edges=()))
    reports.close()

    causes = [record.getMessage() for record in caplog.records if "Events are kept in" in record.getMessage()]
    assert len(causes) == 1
    assert "no other process can report the end" not in caplog.text


def test_who_delivers_in_place_of_a_killed_run_reports_an_unusable_folder(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    As long as the process of the run lives, that one reports the folder.
    """
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", "/proc/orphaned")  # a process names each cause once
    with Publisher.open(read_settings(), delivers=False) as publisher:
        reporter = EventReporter(Reporter.LAUNCHER, RUN, publisher=publisher)
        reporter.report(WorkflowStarted, started_at=STARTED_AT)
        before = caplog.text

        publisher.begin_delivery()
        reporter.report(WorkflowStarted, started_at=STARTED_AT)

    assert before == ""
    assert "/proc/orphaned cannot be created" in caplog.text


def test_an_empty_record_is_removed() -> None:
    """
    A process that was killed while it began its run leaves nothing that every later process reads.
    """
    with Publisher.open(read_settings()) as publisher:
        path = journal_path().with_name(f"{journal_path().stem}.{RUN.run_id}.run")
        path.touch()

        report_lost_runs(publisher)

    assert not path.exists()
    assert on_the_bus() == []


def test_a_relay_publishes_the_end_of_a_lost_run(monkeypatch: pytest.MonkeyPatch, refusing_port: int) -> None:
    """
    It does so while the broker does not answer; the end waits in the outbox with the other events.
    """
    address = f'{{"mesh_address": "127.0.0.1", "mesh_port": {refusing_port}}}'
    monkeypatch.setenv("MESH_CONFIG", f'{{"interservice-bus": {address}}}')
    monkeypatch.setenv("EVENT_FLUSH_TIMEOUT", "0.1")
    lose_a_run()
    relay = Relay(read_settings())
    relaying = threading.Thread(target=relay.run)

    relaying.start()
    wait_until(lambda: not records_beside(journal_path()))
    relay.stop()
    relaying.join()

    bodies = Journal.look(journal_path(), lambda journal: [entry.message.body for entry in journal.read(0, 100)])
    assert sum(b"lost: the process that ran it" in body for body in bodies) == 1


def test_a_run_is_not_reported_as_lost_while_a_launcher_of_it_lives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Of two parallel tasks, one ends with the killed process of the run, and the other one succeeds after that.
    """
    monkeypatch.setenv("FAULT_MARKS", str(tmp_path))
    program = "from tests.launched import unequal; unequal.run(recipe_run_id=1, max_parallel=2)"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert {process.stdout.readline() for _ in range(2)} == {"Waits | waiting\n", "SucceedsWhenTold | waiting\n"}
        launchers = children_of(process.pid)

        process.kill()
        wait_until(lambda: sum(map(has_ended, launchers)) == 1)
        before = [event.name for event in on_the_bus()]
        looked_at = list(lost_runs(journal_path()))
        (tmp_path / "told").touch()
        wait_until(lambda: all(map(has_ended, launchers)))

    (end,) = (event for event in on_the_bus() if isinstance(event, WorkflowFailed))
    assert "task.failed" in before
    assert "workflow.failed" not in before
    assert looked_at == []
    assert end.tasks == {"Waits": "failed", "SucceedsWhenTold": "success"}
    assert failure_messages() == 1
    assert records_beside(journal_path()) == []


def has_ended(pid: int) -> bool:
    """
    Return True if a process is gone, or is a zombie that nobody waits for.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


KILLED_BETWEEN_TASKS = """\
import os, signal
from dkist_processing_core import TaskBase, Workflow

class First(TaskBase):
    def run(self):
        os.kill(os.getpid(), signal.SIGKILL)

class Last(TaskBase):
    def run(self):
        pass

workflow = Workflow(process_category="killed", process_name="between")
workflow.add_node(First)
workflow.add_node(Last, upstreams=First)
workflow.run(recipe_run_id=1)
"""


def test_the_next_run_publishes_the_end_of_a_run_that_no_launcher_has_seen_die() -> None:
    """
    A run is killed while none of its launchers lives: its end is published before the next run starts.
    """
    assert run_python(KILLED_BETWEEN_TASKS, {}).returncode == -9
    assert [event.name for event in on_the_bus()].count("workflow.failed") == 0

    run_python(KILLED_BETWEEN_TASKS, {})

    first, second = RunState(on_the_bus()).runs
    assert (first.state, second.state) == (State.FAILED, State.RUNNING)
    assert {task.name: task.state for task in first.tasks} == {"First": State.FAILED, "Last": State.NOT_RUN}
    assert len(records_beside(journal_path())) == 1
