"""
Author's code that observing affects: it runs as often as without, and its exceptions are reported unchanged.

Not here: how an exception is described (test_failure).
"""

import json
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dkist_processing_core import TaskBase, Workflow, subscribe
from dkist_processing_core.build_utils.find import find_workflows
from dkist_processing_core.events import Cause, TaskFailed, TaskFinished, TaskProgressed
from tests.clients import TASKS, importing, workflow, write_package
from tests.running import run_python
from tests.services.otlp import OtlpReceiver

IDENTITY: dict[str, Any] = {"recipe_run_id": 1, "workflow_name": "W", "workflow_version": "1"}

COUNTED = """
import collections, json, logging
from dkist_processing_core import TaskBase
calls = collections.Counter()

class Once(logging.Filter):
    seen = set()
    def filter(self, record):
        calls["filter"] += 1
        text = record.getMessage()
        is_new = text not in self.seen
        self.seen.add(text)
        return is_new

class Scrubs(logging.Filter):
    def filter(self, record):
        record.msg, record.args = record.getMessage().replace("hunter", "***"), ()
        return True

class Value:
    def __str__(self):
        calls["str"] += 1
        return f"value {calls['str']}"

class Form(logging.Formatter):
    def format(self, record):
        calls["format"] += 1
        return super().format(record)

class Json(logging.Handler):
    def emit(self, record):
        calls["emit"] += 1
        print(json.dumps({"message": record.getMessage()}))

class Error(Exception):
    def __str__(self):
        calls["error"] += 1
        return "as it is"

handler = logging.StreamHandler()
handler.setFormatter(Form())
formed, plain, scrubbed = (logging.getLogger(name) for name in ("formed", "plain", "scrubbed"))
formed.addHandler(handler)
plain.addHandler(Json())
scrubbed.addHandler(logging.NullHandler())
scrubbed.addFilter(Scrubs())
for logger in (formed, plain):
    logger.addFilter(Once())
    logger.propagate = False
before = logging.Logger.callHandlers, logging.LogRecord.getMessage

class Counts(TaskBase):
    def run(self):
        formed.warning("formed %s", Value())
        plain.warning("plain %s", Value())
        for _ in range(2):
            plain.warning("said once")
        scrubbed.warning("scrubbed %s", "hunter")
        try:
            raise Error
        except Error:
            formed.warning("with an error", exc_info=True)

assert (logging.Logger.callHandlers, logging.LogRecord.getMessage) == before
with Counts(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
assert (logging.Logger.callHandlers, logging.LogRecord.getMessage) == before
print(json.dumps(calls))
"""


SEEDED = """
import logging, random
from dkist_processing_core import TaskBase

class Draws(TaskBase):
    def run(self):
        random.seed(1)
        for number in range(5):
            with self.telemetry_span(f"step {number}"):
                self.progress(number, 5)
                logging.getLogger("author").warning("step")
            print(random.random())

with Draws(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
"""


def test_observing_draws_none_of_the_author_s_random_numbers(otlp: OtlpReceiver, refusing_port: int) -> None:
    """
    A task that seeds the generator gets the same sequence with telemetry and with a broker that is tried again.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}

    plain = run_python(SEEDED, {"OTEL_SDK_DISABLED": "true"})
    observed = run_python(SEEDED, otlp.grpc_env | {"MESH_CONFIG": json.dumps(mesh)})

    assert len(plain.stdout.splitlines()) == 5
    assert observed.stdout == plain.stdout


def test_exporting_log_records_runs_none_of_the_author_s_code_again(otlp: OtlpReceiver) -> None:
    """
    No filter, formatter, handler or value runs again. A record that passed the filters is exported once, as they left
    it.
    """
    plain, exported = run_python(COUNTED, {}), run_python(COUNTED, otlp.grpc_env)
    assert (plain.returncode, exported.returncode) == (0, 0), exported.stderr

    assert exported.stdout == plain.stdout
    assert json.loads(plain.stdout.splitlines()[-1])["filter"] == 5
    otlp.wait_for(lambda receiver: len(receiver.logs()) >= 5)
    bodies = [record.body for record in otlp.logs()]
    assert bodies[:4] == ["formed value 2", "plain value 4", "said once", "scrubbed ***"]
    assert bodies[4].startswith("with an error\nTraceback")
    assert bodies[5:] == []


RECORDED = """
from dkist_processing_core.recorder import reading, region, writing
recorder = region.create(None)
writing.begin(recorder.descriptor)
{program}
print("recorded", json.dumps(reading.read(recorder).log))
"""


def log_recorded(program: str) -> tuple[str, list[str]]:
    """
    Run a program beside a recorder, and return its output and the texts of the log records in the recorder.
    """
    done = run_python(RECORDED.replace("{program}", f"import json\n{program}"), {})
    assert done.returncode == 0, done.stderr
    output, _, recorded = done.stdout.rpartition("recorded ")
    return output, [line.partition(": ")[2] or line for line in json.loads(recorded).splitlines()]


def test_recording_log_records_runs_none_of_the_author_s_code_again() -> None:
    """
    A record is recorded once, as the handlers have shown it.
    """
    plain = run_python(COUNTED, {})

    output, recorded = log_recorded(COUNTED)

    assert output == plain.stdout
    assert recorded[:4] == ["formed value 2", "plain value 4", "said once", "scrubbed ***"]
    assert recorded[4:6] == ["with an error", "Traceback (most recent call last):"]


def test_what_the_author_s_logging_raises_is_the_same_with_a_recorder() -> None:
    """
    A value that no handler formats is not formatted for the recorder either.
    """
    plain = run_python(RAISES.replace("SystemExit", "OSError"), {})

    output, recorded = log_recorded(RAISES.replace('raise SystemExit("of the value")', "print('formatted')"))

    assert output == plain.stdout
    assert recorded[:2] == ["%s", "shown %s"]
    assert "no hash" in recorded


RAISES = """
import logging
from dkist_processing_core import TaskBase
class Value:
    def __str__(self): raise SystemExit("of the value")
calls = {"shown": 0, "braces": 0}
class Fails:
    def __str__(self):
        calls["shown"] += 1
        raise ValueError("of a value that is shown")
class Braces(logging.LogRecord):
    def getMessage(self):
        calls["braces"] += 1
        return self.msg.format(*self.args)
class Calls(logging.Handler):
    def emit(self, record): record.getMessage()
class Unhashable(logging.LogRecord):
    def __eq__(self, other): return self is other
class Refuses(logging.Filter):
    def filter(self, record): raise LookupError("of the filter")
class Raises(TaskBase):
    def run(self):
        logging.getLogger("unshown").addHandler(logging.NullHandler())
        logging.getLogger("unshown").warning("%s", Value())
        logging.getLogger("shown").warning("shown %s", Fails())
        logging.setLogRecordFactory(Braces)
        own = logging.getLogger("own")
        own.addHandler(Calls())
        own.propagate = False
        own.warning("braces {} {}", "of", "its own")
        logging.setLogRecordFactory(Unhashable)
        logging.getLogger("unhashable").warning("no %s", "hash")
        logging.setLogRecordFactory(logging.LogRecord)
        print(calls)
        logging.getLogger("refused").addFilter(Refuses())
        logging.getLogger("refused").warning("a line")
try:
    Raises(recipe_run_id=1, workflow_name="W", workflow_version="1")()
except BaseException as error:
    print(repr(error), error.__context__)
"""


def test_what_the_author_s_logging_raises_is_the_same_with_an_export(otlp: OtlpReceiver) -> None:
    """
    A filter's exception leaves the task; an exception of a value that no handler formats does not. Nothing is formatted
    again.
    """
    plain, exported = run_python(RAISES, {}), run_python(RAISES, otlp.grpc_env)

    counted = "{'shown': 1, 'braces': 1}\n"
    assert exported.stdout == plain.stdout == f"{counted}LookupError('of the filter') None\n", exported.stderr
    otlp.wait_for(lambda receiver: len(receiver.logs()) >= 4)
    assert {"%s", "shown %s", "braces {} {}", "no hash"} == {record.body for record in otlp.logs()} - {"a line"}


class Early(TaskBase):
    """
    Fails in its constructor, outside of the part that the task itself reports.
    """

    def __init__(self, recipe_run_id: int, workflow_name: str, workflow_version: str) -> None:
        """
        Fail.
        """
        super().__init__(recipe_run_id, workflow_name, workflow_version)
        self.fail()

    def fail(self) -> None:
        """
        Raise.
        """

    def run(self) -> None:
        """
        Do nothing.
        """


class Unnamed(Early):
    """
    Fails with an exception without a module.
    """

    def fail(self) -> None:
        """
        Raise.
        """
        raise type("OwnError", (Exception,), {"__module__": None})("no good")


class Leaving(type):
    """
    A metaclass whose class names end the program.
    """

    def __getattribute__(cls, name: str) -> Any:
        """
        Leave when it is asked for a name.
        """
        if name in ("__name__", "__qualname__", "__module__"):
            raise SystemExit(0)
        return super().__getattribute__(name)


class EvasiveError(Exception, metaclass=Leaving):
    """
    An exception whose every part ends the program.
    """

    def __str__(self) -> NoReturn:
        """
        Leave.
        """
        raise SystemExit(0)

    __repr__ = __str__
    __class__ = __cause__ = __context__ = __notes__ = property(__str__)


class Evasive(Early):
    """
    Fails with an exception that raises on every access.
    """

    def fail(self) -> None:
        """
        Raise.
        """
        raise EvasiveError


class NoSource:
    """
    A loader of a module that raises when its source is requested.
    """

    def get_source(self, _: str) -> NoReturn:
        """
        Raise.
        """
        raise ZeroDivisionError


def _of_no_source() -> None:
    module = types.ModuleType("generated")
    module.__dict__["__loader__"] = NoSource()
    exec(compile("def fail(): raise ValueError('no good')", "/nowhere/generated.py", "exec"), module.__dict__)
    module.fail()


class Generated(Early):
    """
    Fails in a module whose source is not available.
    """

    def fail(self) -> None:
        """
        Raise.
        """
        _of_no_source()


odd = Workflow(process_category="author", process_name="code")
for each in (Unnamed, Evasive, Generated):
    odd.add_node(each)

UNPRINTABLE = "(its text cannot be read: __str__ raised SystemExit)"


def test_an_exception_of_a_constructor_is_reported_whatever_it_does_when_asked() -> None:
    """
    The program that starts a launched task reports it as the task itself does: class, text and stack are the author's.
    """
    odd.run(recipe_run_id=1, max_parallel=3)

    reports = list(subscribe("task.failed", replay=True, timeout=0.05))
    ends = {each.task_name: each for each in reports if isinstance(each, TaskFailed)}
    assert {each.cause for each in ends.values()} == {Cause.EXCEPTION}
    said = {name: (end.error_type, end.message) for name, end in ends.items()}
    assert said == {
        "Unnamed": ("OwnError", "no good"),
        "Evasive": ("tests.test_author_code.EvasiveError", UNPRINTABLE),
        "Generated": ("ValueError", "no good"),
    }
    assert '  File "/nowhere/generated.py", line 1, in fail\n' in str(ends["Generated"].stack)


def call(task_class: type[TaskBase]) -> TaskBase:
    """
    Run a task by hand.
    """
    with task_class(**IDENTITY) as task:
        task()
    return task


def ended() -> TaskFailed | TaskFinished:
    """
    Return the one end that is on the bus.
    """
    (end,) = subscribe("task.finished", "task.failed", replay=True, timeout=0.05)
    assert isinstance(end, TaskFailed | TaskFinished)
    return end


class LeavingWithoutCodeError(SystemExit):
    """
    An exit whose status cannot be read.
    """

    @property
    def code(self) -> NoReturn:  # type: ignore[override]
        """
        Raise.
        """
        raise ZeroDivisionError


ERRORS = {"evasive": EvasiveError, "an exit without code": LeavingWithoutCodeError}


@pytest.mark.parametrize("kind", ERRORS)
def test_the_exception_that_leaves_a_task_is_the_author_s(kind: str) -> None:
    """
    If a part of the library raises, the end is still reported, and the same exception object goes on.
    """
    error = ERRORS[kind]()

    class Raises(TaskBase):
        def run(self) -> None:
            raise error

    left: list[BaseException] = []
    try:
        call(Raises)
    except BaseException as caught:  # noqa: BLE001 - which one is what is looked at
        left.append(caught)

    assert [id(each) for each in left] == [id(error)]
    assert isinstance(ended(), TaskFailed)


class Measured:
    """
    A number that counts its conversions.
    """

    def __init__(self, error: BaseException | None = None) -> None:
        """
        Store an error to raise at a conversion, if there is one.
        """
        self.error = error
        self.asked = 0

    def __float__(self) -> float:
        """
        Count, and return a number.
        """
        self.asked += 1
        if self.error is not None:
            raise self.error
        return 2.5


def test_progress_asks_the_author_s_number_once_and_when_it_is_given() -> None:
    """
    The last report is sent with the end. A number that raises must not do so there, in addition to the task's
    exception.
    """
    numbers = [Measured(), Measured(), Measured(ZeroDivisionError())]

    class Reports(TaskBase):
        def run(self) -> None:
            for number in (numbers[0], numbers[2], numbers[1]):
                self.progress(number)  # type: ignore[arg-type]
            raise LookupError

    with pytest.raises(LookupError):
        call(Reports)

    reports = list(subscribe("task.progressed", replay=True, timeout=0.05))
    assert [each.done for each in reports if isinstance(each, TaskProgressed)] == [2.5, 2.5]
    assert [number.asked for number in numbers] == [1, 1, 1]


class Mute(Exception):  # noqa: N818 - it says nothing
    """
    An exception without a text.
    """

    def __str__(self) -> NoReturn:
        """
        Raise.
        """
        raise ZeroDivisionError


def _raise_mute(_: object) -> NoReturn:
    raise Mute


@pytest.mark.parametrize(
    "attributes",
    [
        {"base_telemetry_attributes": 5},
        {"base_telemetry_attributes": property(_raise_mute)},
        {"task_name": property(_raise_mute, lambda *_: None)},
    ],
    ids=["no attributes", "attributes that raise", "a name that raises"],
)
def test_what_a_task_says_of_itself_costs_the_events_only(attributes: Mapping[str, Any]) -> None:
    """
    The task runs without its events.
    """
    ran: list[int] = []

    call(type("Says", (TaskBase,), {"run": lambda _: ran.append(1), **attributes}))

    assert len(ran) == 1


def test_a_phase_is_asked_for_once() -> None:
    """
    A phase may be a property with effects, and its value may raise at each access to an attribute.
    """
    asked: list[str] = []

    class Closed:
        def __getattr__(self, name: str) -> NoReturn:
            raise LookupError(name)

        def __call__(self) -> None:
            asked.append("called")

    class Prepares(TaskBase):
        @property
        def run(self) -> Callable[[], None]:
            asked.append("looked up")
            return Closed()

    call(Prepares)

    assert asked == ["looked up", "called"]


HOSTED = """
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
class Broken(SpanProcessor):
    def on_start(self, span, parent_context=None): raise ZeroDivisionError("of the host")
    def on_end(self, span): raise ZeroDivisionError("of the host")
provider = TracerProvider()
trace.set_tracer_provider(provider)
provider.add_span_processor(Broken())
from dkist_processing_core import TaskBase
class Raises(TaskBase):
    def run(self):
        with self.telemetry_span(object(), attributes=5):
            raise LookupError("mine")
try:
    Raises(recipe_run_id=1, workflow_name="W", workflow_version="1")()
except BaseException as error:
    print(repr(error))
"""


def test_a_host_s_provider_that_raises_does_not_reach_the_task() -> None:
    """
    The span of the author that fails in the provider is not exported; the author's exception leaves the task.
    """
    done = run_python(HOSTED, {})

    assert done.stdout == "LookupError('mine')\n", done.stderr
    assert "a span is not exported: ZeroDivisionError: of the host" in done.stderr
    assert isinstance(ended(), TaskFailed)


PROXY = """
class Proxy:
    @property
    def __class__(self): raise RuntimeError("outside of a request")
proxy = Proxy()
"""


def test_what_stands_beside_a_workflow_is_not_asked_what_it_is(tmp_path: Path) -> None:
    """
    A proxy in the module, as web frameworks have, does not keep its workflows from being found.
    """
    write_package(tmp_path, {"w.py": TASKS + PROXY + workflow("w")})

    with importing(tmp_path) as package:
        assert len(find_workflows(package)) == 1


class Signed(type(TaskBase)):  # type: ignore[misc]
    """
    A class of tasks that hide the arguments of their constructors.
    """

    @property
    def __signature__(cls) -> NoReturn:
        """
        Raise.
        """
        raise ZeroDivisionError


def test_a_class_that_does_not_show_its_constructor_is_a_task_all_the_same() -> None:
    """
    Its arguments are only checked when it is constructed.
    """

    class Closed(TaskBase, metaclass=Signed):
        def run(self) -> None:
            pass

    built = Workflow(process_category="closed", process_name="constructor")
    built.add_node(Closed)

    assert [node.name for node in built.nodes] == ["Closed"]


HANDLER_RAISES = """
import logging
from dkist_processing_core import TaskBase

class Refuses(logging.Handler):
    def emit(self, record):
        if record.name.startswith("dkist_processing_core"):
            raise RuntimeError("of the handler")

class A(TaskBase):
    def run(self):
        logging.getLogger().addHandler(Refuses())
        self.progress("many")

with A(recipe_run_id=1, workflow_name="w", workflow_version="1") as task:
    task()
"""


def test_a_log_handler_of_the_author_that_raises_for_our_lines_does_not_end_the_task() -> None:
    """
    Errors of observing are logged, and the logging may fail in addition.
    """
    done = run_python(HANDLER_RAISES, {})

    assert done.returncode == 0, done.stderr
    assert list(subscribe("task.finished", replay=True, timeout=0))
