"""
Tests of TaskBase and of the life of an attempt.
"""

import copy
import gc
import logging
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import StatusCode

from dkist_processing_core import RunState, TaskBase, subscribe
from dkist_processing_core.attempt import lifecycle
from dkist_processing_core.delivery.reporter import errors_logged
from dkist_processing_core.errors import IdentityError
from dkist_processing_core.events import Cause, Event, TaskFailed, TaskFinished, TaskProgressed, TaskStarted

Recorded = Callable[[], list[Event]]
AS_IN = 'as in self.progress(3, 12, "frame")'
AT = "(test_task.py, line N)"


class NoOp(TaskBase):
    """
    A task without work.
    """

    def run(self) -> None:
        """
        Do nothing.
        """


class AllPhases(TaskBase):
    """
    A task that records its phases, and fails in the phase `failing_phase`.
    """

    failing_phase: str | None = None
    error: BaseException = ValueError("no good")

    def __init__(self, recipe_run_id: int, workflow_name: str, workflow_version: str) -> None:
        """
        Start without phases.
        """
        super().__init__(recipe_run_id=recipe_run_id, workflow_name=workflow_name, workflow_version=workflow_version)
        self.phases: list[str] = []

    def _enter(self, phase: str) -> None:
        self.phases.append(phase)
        if phase == self.failing_phase:
            raise self.error

    def pre_run(self) -> None:
        """
        Record the phase.
        """
        self._enter("pre_run")

    def run(self) -> None:
        """
        Record the phase.
        """
        self._enter("run")

    def post_run(self) -> None:
        """
        Record the phase.
        """
        self._enter("post_run")


def call(task_class: type[TaskBase], **values: Any) -> TaskBase:
    """
    Run a task by hand, as its author does.
    """
    identity: dict[str, Any] = {"recipe_run_id": 1, "workflow_name": "W", "workflow_version": "1"}
    with task_class(**identity | values) as task:
        task()
    return task


@pytest.fixture
def recorded(state_dir: Path) -> Recorded:  # noqa: ARG001 - events of this test alone
    """
    Return a function that returns all reports on the embedded bus.
    """
    return lambda: list(subscribe(replay=True, every_report=True, timeout=0.05))


def test_a_task_by_hand_reports_its_start_and_its_end(recorded: Recorded) -> None:
    """
    One start and one end are reported, with phases, timings and resources, in a run by hand.
    """
    task = call(AllPhases, recipe_run_id=76)

    first, last = recorded()
    assert isinstance(task, AllPhases)
    assert task.phases == ["pre_run", "run", "post_run"]
    assert isinstance(first, TaskStarted)
    assert isinstance(last, TaskFinished)
    assert first.pid == os.getpid()
    assert first.run_id.startswith("hand__76__")
    assert (last.run_id, last.task_name, last.attempt, last.max_attempts) == (first.run_id, "AllPhases", 1, 1)
    assert list(last.phases) == ["pre_run", "run", "post_run"]
    assert last.duration_seconds is not None
    assert last.duration_seconds >= sum(last.phases.values())
    # The opening of the bus is part of the attempt, and the first event was published after it.
    assert (last.time - first.time).total_seconds() >= last.duration_seconds - 0.001
    assert last.peak_memory_bytes is not None
    assert last.peak_memory_bytes > 1024 * 1024


@pytest.mark.parametrize("wrong", [{"exit_code": "seven"}, {"frames": 7}], ids=["value", "field"])
def test_a_fact_that_does_not_fit_costs_no_end(
    wrong: dict[str, Any], recorded: Recorded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The failure is reported with its cause, and one message names the error.
    """
    monkeypatch.setattr(AllPhases, "failing_phase", "run")
    monkeypatch.setattr(lifecycle, "failure_of", lambda _: wrong)

    with pytest.raises(ValueError, match="no good"):
        call(AllPhases)

    last = recorded()[-1]
    assert isinstance(last, TaskFailed)
    assert (last.cause, last.final, last.phase) == (Cause.EXCEPTION, True, None)
    (message,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert message.startswith("most facts of task.failed of AllPhases are not published: ")


@pytest.mark.parametrize("phase", ["pre_run", "run", "post_run"])
def test_an_exception_in_any_phase_is_reported_and_raised_unchanged(
    phase: str, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The failure names the phase, and the same exception object reaches the caller.
    """
    error = ValueError("no good")
    monkeypatch.setattr(AllPhases, "failing_phase", phase)
    monkeypatch.setattr(AllPhases, "error", error)

    with pytest.raises(ValueError, match="no good") as caught:
        call(AllPhases)

    end = recorded()[-1]
    assert caught.value is error
    assert isinstance(end, TaskFailed)
    assert (end.cause, end.phase, end.error_type, end.message) == (Cause.EXCEPTION, phase, "ValueError", "no good")
    assert end.final is True
    assert end.stack is not None
    assert f"in {phase}" in end.stack
    assert list(end.phases)[-1] == phase


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (SystemExit(3), {"cause": Cause.EXIT_CODE, "exit_code": 3}),
        (SystemExit(-1), {"cause": Cause.EXIT_CODE, "exit_code": 255}),
        (SystemExit(2**70 + 7), {"cause": Cause.EXIT_CODE, "exit_code": 7}),
        (SystemExit("a reason"), {"cause": Cause.EXIT_CODE, "exit_code": 1}),
        (SystemExit(), {"cause": Cause.EXIT_CODE, "exit_code": 0}),
        (KeyboardInterrupt(), {"cause": Cause.SIGNAL, "signal": "SIGINT"}),
        (MemoryError(), {"cause": Cause.OUT_OF_MEMORY}),
    ],
)
def test_what_is_no_ordinary_exception_has_a_cause_of_its_own(
    error: BaseException, expected: dict[str, object], recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    An exit, a keyboard interrupt and a lack of memory are failures with separate causes.
    """
    monkeypatch.setattr(AllPhases, "failing_phase", "run")
    monkeypatch.setattr(AllPhases, "error", error)

    with pytest.raises(type(error)):
        call(AllPhases)

    end = recorded()[-1]
    assert isinstance(end, TaskFailed)
    assert expected == {name: getattr(end, name) for name in expected}


def test_a_second_call_is_the_next_attempt_of_the_same_run(recorded: Recorded) -> None:
    """
    There is one run by hand per process, workflow, version and recipe run.
    """
    call(NoOp, recipe_run_id=77)
    call(NoOp, recipe_run_id=77)
    call(NoOp, recipe_run_id=78)

    runs = RunState(recorded()).runs
    attempts = {view.run.recipe_run_id: [a.number for a in view.tasks[0].attempts] for view in runs}
    assert attempts == {77: [1, 2], 78: [1]}


def test_the_identity_is_taken_by_the_task_it_names_and_lent_to_no_other(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A task that is called inside a task is a separate run by hand.
    """

    class Outer(TaskBase):
        def run(self) -> None:
            assert not [name for name in os.environ if name.startswith("DKIST_CORE_") and "RUN_ID" in name]
            call(NoOp)

    for name, value in {
        "RUN_ID": "manual__1", "ATTEMPT": "2", "MAX_ATTEMPTS": "3", "WORKFLOW": "W", "VERSION": "1", "TASK": "Outer",
        "RECIPE_RUN_ID": "1", "LOG_URL": "http://log/1",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"DKIST_CORE_{name}", value)

    call(Outer)

    starts = {event.task_name: event for event in recorded() if isinstance(event, TaskStarted)}
    assert (starts["Outer"].run_id, starts["Outer"].attempt, starts["Outer"].max_attempts) == ("manual__1", 2, 3)
    assert starts["NoOp"].run_id.startswith("hand__")


def test_a_failure_by_hand_is_final_whatever_the_engine_would_do(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A failure by hand is not retried automatically, so an alarm on final failures must not wait for a retry.
    """
    monkeypatch.setattr(AllPhases, "failing_phase", "run")
    monkeypatch.setattr(AllPhases, "retries", 1)

    for _ in range(2):
        with pytest.raises(ValueError, match="no good"):
            call(AllPhases, recipe_run_id=79)

    ends = [event for event in recorded() if isinstance(event, TaskFailed)]
    assert [(end.attempt, end.max_attempts, end.final) for end in ends] == [(1, 1, True), (2, 2, True)]


def test_progress_is_rate_limited_and_its_last_report_always_leaves(recorded: Recorded) -> None:
    """
    An inner loop may report any number of times.
    """

    class Counting(TaskBase):
        def run(self) -> None:
            for number in range(10_000):
                self.progress(number, 10_000, "frame", "\x00counting")

    call(Counting)

    reports = [event for event in recorded() if isinstance(event, TaskProgressed)]
    assert 2 <= len(reports) <= 5
    assert [report.sequence for report in reports] == list(range(len(reports)))
    assert reports[0].done == 0
    last = reports[-1]
    assert (last.done, last.total, last.unit, last.note) == (
        9_999,
        10_000,
        "frame",
        "\N{REPLACEMENT CHARACTER}counting",
    )


def test_progress_that_is_no_number_does_not_break_the_task(
    recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """
    One warning is logged, and the task continues.
    """

    class Odd(TaskBase):
        def run(self) -> None:
            self.progress(float("nan"))

    class Other(TaskBase):
        def run(self) -> None:
            self.progress("frame", 3)  # type: ignore[arg-type]
            self.progress(3, 4, 5)  # type: ignore[arg-type]

    class Huge(TaskBase):
        def run(self) -> None:
            self.progress(1, 10**400)

    call(Odd)
    call(Other)
    call(Huge)

    assert isinstance(recorded()[-1], TaskFinished)
    told = [re.sub(r"line \d+", "line N", record.getMessage()) for record in caplog.records]
    assert told == [
        f"task.progressed of Odd is not published: done: found nan, expected a finite number, {AS_IN} {AT}",
        (
            "task.progressed of Other is not published: done: found a value of type str, expected a finite number, "
            f"{AS_IN} {AT}"
        ),
        f"task.progressed of Other is not published: unit: found a value of type int, expected a text or None, {AS_IN}",
        "task.progressed of Huge is not published: total: expected a number",
    ]


def test_progress_outside_of_a_run_does_nothing(recorded: Recorded) -> None:
    """
    A helper that reports progress can be tested without a running task.
    """
    NoOp(recipe_run_id=1, workflow_name="W", workflow_version="1").progress(1)

    assert recorded() == []


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "MESH_CONFIG",
            "nonsense",
            "NoOp publishes no events and no telemetry: MESH_CONFIG: found 'nonsense', expected",
        ),
        (
            "MESH_CONFIG",
            '{"interservice-bus": {"mesh_address": "amqp://core:canary@127.0.0.1", "mesh_port": 5672}}',
            "NoOp publishes no events and no telemetry: MESH_CONFIG: found a value that is not shown, expected",
        ),
    ],
)
def test_what_is_wrong_with_observing_never_reaches_the_observed(
    variable: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    With wrong settings, no events are published and one message is logged, and the task runs.
    """
    monkeypatch.setenv(variable, value)

    call(NoOp)

    assert [record.getMessage().startswith(message) for record in caplog.records] == [True]


def test_an_unusable_folder_never_reaches_the_observed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    If no broker accepts the events, they are lost. One message states the reason, and one the number.
    """
    monkeypatch.setenv("DKIST_CORE_STATE_DIR", "/proc/nowhere")

    call(NoOp)

    why, lost = [record.getMessage() for record in caplog.records]
    assert why.startswith("the journals' folder /proc/nowhere cannot be created: ")
    assert lost == "2 events are lost: /proc/nowhere/embedded.db could not be written to"


class Mute:
    """
    A value whose `repr` raises.
    """

    def __repr__(self) -> str:
        """
        Raise an exception.
        """
        raise RuntimeError


class Index:
    """
    An integer of another class, such as those of tables.
    """

    def __index__(self) -> int:
        """
        Return the integer.
        """
        return 5


@pytest.mark.parametrize("value", [5, "5", "005", Index()])
def test_a_recipe_run_id_becomes_a_number(value: Any, recorded: Recorded) -> None:
    """
    The task's attribute and the events have the same integer, for each type of the argument.
    """
    task = call(NoOp, recipe_run_id=value)

    assert (type(task.recipe_run_id), task.recipe_run_id) == (int, 5)
    assert {event.recipe_run_id for event in recorded()} == {5}


@pytest.mark.parametrize(
    "value",
    [*("abc", "", "1.0", "1$(touch x)", "1_0", "9" * 5000), *(None, [1], 1j, b"12", True, 1.9), *(-1, 2**63), Mute()],
)
def test_a_recipe_run_id_that_is_no_number_makes_no_task(value: Any, recorded: Recorded) -> None:
    """
    The task would not belong to that recipe run. The error contains at most 40 characters of the value.
    """
    with pytest.raises(
        IdentityError,
        match=r"^recipe_run_id: found .{1,40}, expected an integer or decimal digits, from 0 to 2\^63 - 1$",
    ):
        NoOp(value, "W", "1")

    assert recorded() == []


def test_a_conditional_call_of_super_is_reported_as_it_is_made(recorded: Recorded) -> None:
    """
    A subclass may override `__call__`, and call its base or not.
    """

    class Conditional(NoOp):
        is_called = False

        def __call__(self) -> None:
            if self.is_called:
                super().__call__()

    call(Conditional)
    assert recorded() == []

    Conditional.is_called = True
    call(Conditional)
    assert [event.name for event in recorded()] == ["task.started", "task.finished"]


def test_a_task_is_gone_when_nobody_holds_it() -> None:
    """
    With telemetry off, no instrument holds a reference to the task, even if a gauge's callback does. A notebook creates
    many tasks.
    """

    class Observed(NoOp):
        def __init__(self, recipe_run_id: int, workflow_name: str, workflow_version: str) -> None:
            super().__init__(recipe_run_id, workflow_name, workflow_version)
            self.gauge = self.meter.create_observable_gauge(
                name="g", description="", callbacks=[lambda _: [Observation(self.recipe_run_id)]]
            )

    known = weakref.ref(call(Observed))
    gc.collect()

    assert known() is None


class Pools(NoOp):
    """
    A task that uses a pool of processes.
    """

    def work(self, number: int) -> int:
        """
        Compute a part.
        """
        return number * int(self.recipe_run_id)

    def run(self) -> None:
        """
        Compute two parts in other processes.
        """
        self.meter.create_counter(name="parts").add(2)
        with self.telemetry_span("pool"), ProcessPoolExecutor(2, multiprocessing.get_context("forkserver")) as pool:
            self.done = list(pool.map(self.work, [1, 2]))


def test_a_task_hands_its_methods_to_a_pool() -> None:
    """
    The observation of the task stays in this process. Another process gets a copy of all other attributes.
    """
    task = call(Pools, recipe_run_id=3)

    assert isinstance(task, Pools)
    assert task.done == [3, 6]


class Slotted(NoOp):
    """
    A task with a slot.
    """

    __slots__ = ("value",)

    def run(self) -> None:
        """
        Copy the task while it is observed.
        """
        self.value = "kept"
        self.frames = [1]
        self.meter.create_counter(name="parts").add(2)
        self.copies = copies_of(self)


class Stateful:
    """
    A mixin that defines the state of a copy.
    """

    def __getstate__(self) -> Any:
        """
        Return all attributes, as many classes do, and one more.
        """
        return {**vars(self), "given": True}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """
        Set the attributes.
        """
        vars(self).update(state, taken=True)


class Reduced:
    """
    A mixin that defines how a copy is created.
    """

    def __reduce__(self) -> Any:
        """
        Create the copy by the constructor, and set all attributes.
        """
        return (type(self), (1, "W", "1"), vars(self))


class MixinFirst(Stateful, Slotted):
    """
    A task with the mixin before the base.
    """


class MixinLast(Slotted, Stateful):
    """
    A task with the mixin after the base.
    """


class IsReduced(Reduced, Slotted):
    """
    A task with the other mixin.
    """


def copies_of(task: TaskBase) -> list[Any]:
    """
    Return copies of a task by `copy` and by each protocol of `pickle`.
    """
    pickled = [pickle.loads(pickle.dumps(task, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    return [copy.copy(task), copy.deepcopy(task), *pickled]


def test_a_copy_of_a_task_keeps_what_its_author_has_it_keep(recorded: Recorded) -> None:
    """
    A copy keeps slots, and the state that a mixin defines, in any order of the bases. The observation stays with the
    task.
    """
    kinds: list[type[TaskBase]] = [Slotted, MixinFirst, MixinLast, IsReduced]
    made: dict[type[TaskBase], list[Any]] = {kind: vars(call(kind))["copies"] for kind in kinds}

    for kind, copies in made.items():
        for each in copies:
            each.progress(1)
            assert (each.frames, each.recipe_run_id, type(each)) == ([1], 1, kind)
    assert {each.value for each in made[Slotted]} == {"kept"}
    for each in made[MixinFirst] + made[MixinLast]:
        assert (each.given, each.taken) == (True, True)
    assert not [event for event in recorded() if isinstance(event, TaskProgressed)]


def test_a_copy_that_shares_the_attributes_of_a_task_is_observed_for_itself(recorded: Recorded) -> None:
    """
    The copy may be called while the task runs, and the task continues to report.
    """

    class CallsACopy(Stateful, NoOp):
        def run(self) -> None:
            if "inner" in vars(self):
                return
            inner = copy.copy(self)
            vars(inner)["inner"] = True
            inner()
            self.progress(7)

    call(CallsACopy)

    kinds = [type(event).__name__ for event in recorded()]
    assert kinds == ["TaskStarted", "TaskStarted", "TaskFinished", "TaskProgressed", "TaskFinished"]


def test_the_log_shows_the_steps_of_a_task(caplog: pytest.LogCaptureFixture) -> None:
    """
    The log shows the start and the end of each step, and the error that ended it.
    """

    class Steps(NoOp):
        def run(self) -> None:
            with self.telemetry_span("read"):
                pass
            with self.telemetry_span(name="fit"):
                raise ValueError("no limb")

    caplog.set_level(logging.DEBUG)

    with pytest.raises(ValueError, match="no limb"):
        call(Steps)

    told = [record.getMessage() for record in caplog.records if record.name == "dkist_processing_core.task"]
    assert [re.sub(r"\d+ ms$", "N s", line) for line in told] == [
        "read began",
        "read ended after N s",
        "fit began",
        "fit ended by ValueError after N s",
    ]


def test_the_author_s_instruments_and_spans_cost_nothing_without_a_collector() -> None:
    """
    Meters, spans and attributes work in constructors and outside of runs, with telemetry off.
    """

    class Measured(NoOp):
        def __init__(self, recipe_run_id: int, workflow_name: str, workflow_version: str) -> None:
            super().__init__(recipe_run_id, workflow_name, workflow_version)
            self.frames = self.meter.create_counter(name=self.format_metric_name("frames"), unit="1", description="")

            def observe(_: CallbackOptions) -> list[Observation]:
                return [Observation(1)]

            self.meter.create_observable_gauge(name=self.format_metric_name("g"), description="", callbacks=[observe])

        def run(self) -> None:
            with self.telemetry_span("outer"), self.apm_step(name="inner") as span:
                span.set_status(StatusCode.OK)
                self.frames.add(1, attributes=self.base_telemetry_attributes)

    task = call(Measured)

    assert task.base_telemetry_attributes == {
        "recipe.run.id": 1,
        "workflow.name": "W",
        "workflow.version": "1",
        "task.name": "Measured",
        "nomad.allocation.id": "unknown-allocation-id",
        "nomad.allocation.name": "unknown-allocation-name",
        "nomad.allocation.group": "unknown-allocation-group",
    }
    assert task.format_metric_name("tasks.executed") == "dkist.processing.tasks.executed"


def test_an_author_s_own_attributes_stay_among_the_base_s(recorded: Recorded) -> None:
    """
    The attributes are a dict of the task, as in 7.x. An author may add to it or replace it.
    """

    class Extends(NoOp):
        def __init__(self, recipe_run_id: int, workflow_name: str, workflow_version: str) -> None:
            super().__init__(recipe_run_id, workflow_name, workflow_version)
            self.base_telemetry_attributes["camera"] = 2

    class Replaces(NoOp):
        def __init__(self, recipe_run_id: int, workflow_name: str, workflow_version: str) -> None:
            super().__init__(recipe_run_id, workflow_name, workflow_version)
            self.base_telemetry_attributes = {"camera": 3}

    extended, replaced = call(Extends), call(Replaces)

    assert extended.base_telemetry_attributes["camera"] == 2
    assert extended.base_telemetry_attributes["task.name"] == "Extends"
    assert replaced.base_telemetry_attributes == {"camera": 3}
    assert len([event for event in recorded() if isinstance(event, TaskFinished)]) == 2


def test_the_base_s_hooks_raise_nothing_and_rollback_is_left_to_people() -> None:
    """
    A subclass may call super() of each hook. The lifecycle never calls `rollback`.
    """

    class Cautious(NoOp):
        rolled_back = False

        def rollback(self) -> None:
            super().rollback()
            self.rolled_back = True

    task = call(Cautious)
    assert isinstance(task, Cautious)
    assert not task.rolled_back

    task.rollback()
    assert task.rolled_back
    assert repr(task) == "Cautious(recipe_run_id=1, workflow_name='W', workflow_version='1')"


def test_a_task_without_run_cannot_be_made() -> None:
    """
    `run` is abstract.
    """
    with pytest.raises(TypeError, match=r"abstract method '?run'?"):
        TaskBase(1, "W", "1")  # type: ignore[abstract]


def test_a_no_op_task_needs_neither_engine_nor_broker_client_nor_sdk(state_dir: Path) -> None:
    """
    On the embedded journal with telemetry off, the process of a task imports only modules that it uses.
    """
    program = (
        "import sys\n"
        "from dkist_processing_core import TaskBase\n"
        "class T(TaskBase):\n"
        "    def run(self): pass\n"
        "with T(recipe_run_id=1, workflow_name='W', workflow_version='1') as task: task()\n"
        "unwanted = ('airflow', 'pika', 'starlette', 'fastapi', 'flask', 'rich', 'opentelemetry.sdk', 'grpc',\n"
        "            'dkist_processing_core.journal.damage', 'dkist_processing_core.journal._pages',\n"
        "            'dkist_processing_core.bus.embedded.unnamed_receiver',\n"
        "            'dkist_processing_core.bus.embedded.named_receiver',\n"
        "            'dkist_processing_core.bus.topology')\n"
        "print([name for name in unwanted if name in sys.modules])\n"
    )

    shown = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "DKIST_CORE_STATE_DIR": str(state_dir)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout == "[]\n"
    assert shown.stderr == ""


def test_no_time_for_the_network_costs_no_event(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `EVENT_FLUSH_TIMEOUT=0` does not wait for the broker, and all events are on disk.
    """
    monkeypatch.setenv("EVENT_FLUSH_TIMEOUT", "0")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(call_no_op, range(20))

    assert len(recorded()) == 40


def call_no_op(number: int) -> None:
    """
    Call a task without work in the current process.
    """
    call(NoOp, recipe_run_id=number)


def test_a_fork_that_fails_does_not_end_its_parent_s_attempt(recorded: Recorded) -> None:
    """
    One attempt has one end, even if other processes leave its code.
    """

    class Forking(TaskBase):
        def run(self) -> None:
            child = os.fork()
            if child == 0:
                raise RuntimeError
            os.waitpid(child, 0)

    try:
        call(Forking)
    except RuntimeError:
        os._exit(0)

    assert [event.name for event in recorded()] == ["task.started", "task.finished"]


@pytest.mark.parametrize(
    ("variable", "value", "warnings"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", 1),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", 1),
        ("RETRY_CONFIG", "nonsense", 1),
        ("PIP_TIMEOUT", "x", 1),
        ("OTEL_SDK_DISABLED", "maybe", 0),
        ("OTEL_TRACES_EXPORTER", "NONE", 0),
    ],
)
def test_settings_that_events_do_not_need_do_not_cost_them(
    variable: str,
    value: str,
    warnings: int,
    recorded: Recorded,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    A wrong setting is logged in one message, and its default is used.
    """
    monkeypatch.setenv(variable, value)
    call(NoOp)
    monkeypatch.delenv(variable)

    assert [event.name for event in recorded()] == ["task.started", "task.finished"]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == warnings
    assert all(line.startswith(f"NoOp runs with a default instead: {variable}: found ") for line in said)


@pytest.mark.parametrize("name", [Path("W"), b"W", ["W"], None])
@pytest.mark.parametrize("field", ["workflow_name", "workflow_version"])
def test_a_name_that_is_no_text_costs_the_events_only(
    field: str, name: Any, recorded: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The constructor of 7.x accepts any value.
    """
    task = call(AllPhases, **{field: name})

    assert isinstance(task, AllPhases)
    assert task.phases == ["pre_run", "run", "post_run"]
    assert recorded() == []
    (record,) = caplog.records
    assert record.getMessage().startswith(f"AllPhases publishes no events: {field}: found ")


def test_a_task_that_does_not_call_the_base_s_constructor_is_refused() -> None:
    """
    Its process would seem to succeed without any event. One sentence states what its constructor must do.
    """

    class Nameless(AllPhases):
        def __init__(self) -> None:
            self.phases = []

    task = Nameless()
    with pytest.raises(TypeError) as refusal:
        task()

    assert task.phases == []
    assert str(refusal.value) == (
        "Nameless has no recipe_run_id: its __init__ must call "
        "super().__init__(recipe_run_id, workflow_name, workflow_version)"
    )
    assert repr(task) == "Nameless(recipe_run_id=None, workflow_name=None, workflow_version=None)"


def test_the_author_s_attributes_may_have_any_usual_name(recorded: Recorded) -> None:
    """
    The attributes of this package have other names.
    """

    class Own(AllPhases):
        def __init__(self, recipe_run_id: int, workflow_name: str, workflow_version: str) -> None:
            super().__init__(recipe_run_id, workflow_name, workflow_version)
            self._settings = self._telemetry = self._lifecycle = "the author's"

        def run(self) -> None:
            self.progress(1)

    task = call(Own)

    assert isinstance(task, Own)
    assert (task._settings, task._telemetry, task._lifecycle) == ("the author's",) * 3
    assert [event.name for event in recorded()] == ["task.started", "task.progressed", "task.finished"]


def test_a_secret_that_stands_in_the_file_of_settings_is_redacted(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state_dir: Path
) -> None:
    """
    The secret is not in the environment, and is redacted in the events.
    """
    (tmp_path / ".env").write_text("ISB_PASSWORD=canary-hunter22\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AllPhases, "failing_phase", "run")
    monkeypatch.setattr(AllPhases, "error", ValueError("no access with canary-hunter22"))

    with pytest.raises(ValueError, match="canary-hunter22"):
        call(AllPhases)

    end = recorded()[-1]
    assert isinstance(end, TaskFailed)
    assert end.message == "no access with [redacted]"
    assert [file for file in state_dir.iterdir() if b"canary" in file.read_bytes()] == []


def test_a_value_that_cannot_be_stated_is_not_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """
    A wrong value of an author may contain a secret. One message names the field.
    """

    class Odd(TaskBase):
        def run(self) -> None:
            self.progress({"pw": "canary"})  # type: ignore[arg-type]

    call(Odd)

    (record,) = caplog.records
    assert record.getMessage().startswith("task.progressed of Odd is not published: done")
    assert "canary" not in caplog.text
    assert "http" not in caplog.text


def test_an_error_of_ours_is_logged_without_secrets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The stack is logged, without the environment's secrets and the given ones.
    """
    monkeypatch.setenv("A_SECRET", "canary-1")

    with errors_logged("it is not done", secrets=["canary-2"]):
        raise KeyError("canary-1 canary-2")
    with errors_logged("it is not done", secrets=["canary-2"]):
        raise ValueError("canary-1 canary-2")

    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("it is not done: an error of this package\nTraceback")
    assert first.endswith("KeyError: '[redacted] [redacted]'\n")
    assert second == "it is not done: [redacted] [redacted]"


class Coroutine(TaskBase):
    """
    A task with an asynchronous `run`.
    """

    async def run(self) -> None:  # type: ignore[override]
        """
        Return a coroutine that is never run.
        """


class Generator(TaskBase):
    """
    A task with a generator as `run`.
    """

    def run(self) -> Any:
        """
        Return a generator that is never run.
        """
        yield 1


class AsyncGenerator(TaskBase):
    """
    A task with an asynchronous generator as `run`.
    """

    async def run(self) -> Any:
        """
        Return an asynchronous generator that is never run.
        """
        yield 1


@pytest.mark.parametrize("task_class", [Coroutine, Generator, AsyncGenerator])
def test_a_phase_that_has_not_run_does_not_finish(task_class: type[TaskBase], recorded: Recorded) -> None:
    """
    The call only creates an object, and the failure states that.
    """
    with pytest.raises(TypeError, match=rf"^{task_class.__name__}\.run is an? .*, which never runs"):
        call(task_class)

    end = recorded()[-1]
    assert isinstance(end, TaskFailed)
    assert (end.phase, end.error_type) == ("run", "TypeError")


def test_progress_from_many_threads_has_numbers_of_its_own(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The number is part of the id of an event.
    """
    monkeypatch.setattr(lifecycle, "PROGRESS_SECONDS", 0.0)

    class Threaded(TaskBase):
        def run(self) -> None:
            together = threading.Barrier(8)

            def report() -> None:
                together.wait()
                for done in range(25):
                    self.progress(done)

            threads = [threading.Thread(target=report) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    call(Threaded)

    reports = [event for event in recorded() if isinstance(event, TaskProgressed)]
    assert sorted(report.sequence for report in reports) == list(range(200))
