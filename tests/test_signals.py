"""
A signal handler of the author that raises, such as a time limit, while this package works in the same thread.

Not here: handlers that publish (test_reentrance.py), and termination requests (test_termination.py).
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dkist_processing_core import subscribe
from dkist_processing_core.events import TaskFailed
from dkist_processing_core.runs import RunState, RunView, State, TaskView
from tests.running import ROOT, run_python
from tests.services.broker import Broker
from tests.services.otlp import OtlpReceiver
from tests.test_reentrance import reports

AT_EACH_LINE = """
import faulthandler, json, logging, signal, sys
from dkist_processing_core import TaskBase
from dkist_processing_core.attempt import lifecycle

faulthandler.dump_traceback_later(50, exit=True)
lifecycle.PROGRESS_SECONDS = 0.0
seen, raised, caught = set(), [], []

def limit(number, frame):
    raised.append(number)
    raise TimeoutError(f"time limit {len(raised)}")

def is_watched(frame):
    return "/dkist_processing_core/" in frame.f_code.co_filename

def is_lost_in_any_program(frame):
    # The logging module takes what is raised in a handler of logs for an error of that handler.
    callers = []
    while frame is not None:
        callers.append(frame.f_code.co_name)
        frame = frame.f_back
    return "emit" in callers and "_keep" not in callers and "_log" not in callers

def trace(frame, event, argument):
    place = frame.f_lineno, frame.f_code
    if event == "line" and place not in seen and not is_lost_in_any_program(frame):
        seen.add(place)
        signal.raise_signal(signal.SIGALRM)
    return trace

# The lines of the span are logged too: handlers of logs then see the package's own records first.
logging.getLogger("dkist_processing_core.task").setLevel(logging.DEBUG)

class A(TaskBase):
    def step(self):
        with self.telemetry_span("step"):
            logging.getLogger("author").warning("here %s", 1)
        self.progress(len(caught), note="a note")

    def run(self):
        signal.signal(signal.SIGALRM, limit)
        before = None
        while before != len(seen):
            before = len(seen)
            try:
                # A trace function that raises is not called any more.
                sys.settrace(lambda frame, *_: trace if is_watched(frame) else None)
                self.step()
            except TimeoutError as error:
                # One that strikes while another is on its way takes that one with it.
                while error is not None:
                    caught.append(str(error))
                    error = error.__context__
            finally:
                sys.settrace(None)
        assert signal.signal(signal.SIGALRM, signal.SIG_DFL) is limit
        self.progress(10_000)

with A(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
print(json.dumps([len(raised), len(set(caught)), len(seen)]))
"""


def runs() -> list[RunView]:
    """
    Return the runs of the embedded journal.
    """
    return list(RunState(subscribe(replay=True, every_report=True, timeout=0.05)).runs)


def without_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Remove coverage measurement from a program that uses the trace function.
    """
    for name in [name for name in os.environ if name.startswith("COV")]:
        monkeypatch.delenv(name)


def test_a_time_limit_of_the_author_s_reaches_run_at_whichever_line_it_strikes(
    otlp: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The exception leaves the interrupted call, no error is logged, and the task continues to report.
    """
    without_coverage(monkeypatch)

    done = run_python(AT_EACH_LINE, otlp.grpc_env)

    assert done.returncode == 0, done.stderr[-3000:]
    raised, caught, lines = json.loads(done.stdout)
    assert raised == caught
    assert raised > 50
    assert lines > 300
    assert "rror of this package" not in done.stderr
    assert "Logging error" not in done.stderr
    (run,) = runs()
    assert run.tasks[0].state is State.FINISHED
    assert max(number for _, number in reports()) == len(reports()) - 1


STRUCK = """
import json, logging, signal, sys
from dkist_processing_core import TaskBase, Workflow

def limit(number, frame):
    raise TimeoutError("time limit")

def trace(frame, event, argument):
    if frame.f_code.co_name == {function!r} and frame.f_code.co_filename.endswith("/lifecycle.py"):
        sys.settrace(None)
        signal.raise_signal(signal.SIGALRM)

class A(TaskBase):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        signal.signal(signal.SIGALRM, limit)
        sys.settrace(trace)

    def run(self):
        pass

workflow = Workflow(process_category="no", process_name="limit", workflow_package="no.package", workflow_version="1")
workflow.add_node(A)

if __name__ == "__main__":
    if sys.argv[1] == "run":
        print(workflow.run(1).succeeded)
    else:
        try:
            A(1, "w", "1")()
        except TimeoutError as error:
            print(error)
"""


def struck(function: str, form: str, folder: Path) -> tuple[str, TaskView]:
    """
    Run a task with a time limit that raises in a function of its lifecycle; return the output and the task.
    """
    script = folder / "limits.py"
    script.write_text(STRUCK.format(function=function))
    done = subprocess.run(
        [sys.executable, script, form], capture_output=True, text=True, check=False, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    ((task,),) = (run.tasks for run in runs())
    return done.stdout, task


@pytest.mark.parametrize("form", ["run", "by hand"])
def test_a_time_limit_that_strikes_as_a_task_begins_fails_it(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The exception ends the first phase, and the start has an end.
    """
    without_coverage(monkeypatch)

    printed, task = struck("_begin", form, tmp_path)

    (attempt,) = task.attempts
    assert isinstance(attempt.end, TaskFailed)
    assert (attempt.end.error_type, attempt.end.phase) == ("TimeoutError", "pre_run")
    assert (printed == "time limit\n") == (form == "by hand")


@pytest.mark.parametrize("form", ["run", "by hand"])
def test_a_time_limit_that_strikes_as_a_task_ends_does_not_undo_its_end(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    It reaches the caller of a task. A launched task has no caller.
    """
    without_coverage(monkeypatch)

    printed, task = struck("_conclude", form, tmp_path)

    (attempt,) = task.attempts
    assert task.state is State.FINISHED
    assert attempt.contradictions == ()
    assert (printed == "time limit\n") == (form == "by hand")


HANDLER_OF_LOGS = """
import logging, os, signal
from dkist_processing_core import TaskBase

class Limit(logging.Handler):
    def emit(self, record):
        # As one does that waits for a server of logs.
        before = signal.signal(signal.SIGALRM, lambda *_: print("inner"))
        signal.raise_signal(signal.SIGALRM)
        signal.signal(signal.SIGALRM, before)
        signal.raise_signal(signal.SIGALRM)
        print("logged")

class A(TaskBase):
    def run(self):
        logging.getLogger().addHandler(Limit())
        logging.getLogger("dkist_processing_core.task").setLevel(logging.DEBUG)
        signal.signal(signal.SIGALRM, lambda *_: print("outer"))
        with self.telemetry_span("step"):
            logging.getLogger().handlers.clear()
        if os.fork() == 0:
            signal.raise_signal(signal.SIGALRM)
            os._exit(0)
        os.wait()
        print(signal.getsignal(signal.SIGALRM).__name__)

with A(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


def test_a_handler_of_logs_may_have_handlers_of_signals_of_its_own() -> None:
    """
    The handlers that it installs run at once, and afterwards the author's handler is restored.
    """
    done = run_python(HANDLER_OF_LOGS, {"PYTHONUNBUFFERED": "1"})

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["inner", "logged", "outer", "outer", "<lambda>"]


CHAINED = """
import logging, signal
from dkist_processing_core import TaskBase

class Chains(logging.Handler):
    def emit(self, record):
        logging.getLogger().removeHandler(self)
        before = signal.getsignal(signal.SIGALRM)
        signal.signal(signal.SIGALRM, lambda *given: print("inner", *map(str, before(*given) or ())))

class A(TaskBase):
    def run(self):
        signal.signal(signal.SIGALRM, lambda *_: print("outer"))
        logging.getLogger().addHandler(Chains())
        logging.getLogger("dkist_processing_core.task").setLevel(logging.DEBUG)
        with self.telemetry_span("step"):
            pass
        self.progress(1)
        signal.raise_signal(signal.SIGALRM)

with A(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


def test_a_handler_of_logs_may_install_a_handler_that_goes_on_to_the_one_before() -> None:
    """
    The new handler gets the previous one, or its replacement, and can call it even after the package has deferred both.
    """
    done = run_python(CHAINED, {"PYTHONUNBUFFERED": "1"})

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["outer", "inner"]


ACTIONS = """
import ctypes, faulthandler, signal, sys
from dkist_processing_core import TaskBase

def action(number):
    found = ctypes.create_string_buffer(1024)
    ctypes.pythonapi.sigaction(number, None, found)
    # The handler, 64 signals of the mask, and the flags of glibc; what lies between is not written.
    return found.raw[:16], found.raw[136:140]

class A(TaskBase):
    def run(self):
        numbers = signal.SIGALRM, signal.SIGUSR1
        for number in numbers:
            signal.signal(number, lambda *_: print("called"))
        signal.siginterrupt(signal.SIGALRM, False)
        faulthandler.register(signal.SIGUSR1, chain=True)
        before = list(map(action, numbers))
        self.progress(1)
        print(before == list(map(action, numbers)))
        signal.raise_signal(signal.SIGUSR1)

with A(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
"""


def test_what_the_system_does_at_a_signal_stays_as_the_author_has_set_it() -> None:
    """
    The author may set it by `siginterrupt`, or by a library whose handler runs before Python's.
    """
    done = run_python(ACTIONS, {"PYTHONUNBUFFERED": "1"})

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "called"]
    assert "most recent call first" in done.stderr


STRUCK_CONTEXTS = """
import linecache, signal, sys
from dkist_processing_core.process.signals import signals_deferred

seen, kept, alarms, notes, is_struck = set(), [], 0, 0, True

def limit(*_):
    global alarms
    alarms += 1
    raise TimeoutError

def note(*_):
    global notes
    notes += 1

def trace(frame, event, argument):
    global is_struck
    code = frame.f_code
    if not code.co_filename.endswith("/signals.py"):
        return None
    place = frame.f_lineno, code
    # What is due goes with what strikes as its own handler is called.
    is_called = "deliver" in code.co_name + linecache.getline(code.co_filename, frame.f_lineno)
    if event == "line" and place not in seen and not (is_struck or is_called) and is_watched(frame):
        seen.add(place)
        is_struck = True
        signal.raise_signal(number)
    return trace

def is_watched(frame):
    while frame is not None and frame.f_code.co_name != sys.argv[1]:
        frame = frame.f_back
    return frame is not None

def step():
    try:
        sys.settrace(trace)
        with signals_deferred():
            sys.settrace(None)
            before = notes
            signal.raise_signal(signal.SIGUSR1)
            assert notes == before, kept[-1]
            sys.settrace(trace)
            sys._getframe().f_trace = None
    finally:
        sys.settrace(None)

number = getattr(signal, sys.argv[2])
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGALRM, limit)
signal.signal(signal.SIGUSR1, note)
while is_struck:
    is_struck, notes_before = False, notes
    try:
        step()
    except (TimeoutError, KeyboardInterrupt) as error:
        # As a prompt keeps the last one, with its frames.
        kept.append(error)
    if sys.argv[1] == "__exit__":
        assert notes == notes_before + 1, kept[-1]
    notes_before = notes
    signal.raise_signal(signal.SIGUSR1)
    assert notes == notes_before + 1, seen
print(len(seen), len(kept))
"""


@pytest.mark.parametrize(("function", "number"), [("__enter__", "SIGINT"), ("__exit__", "SIGALRM")])
def test_what_strikes_as_handlers_are_held_back_or_called_again_changes_nothing_for_the_others(
    function: str, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Due signals are delivered and the next context defers them, even if the exception is kept with its frames.
    """
    without_coverage(monkeypatch)

    done = subprocess.run(
        [sys.executable, "-c", STRUCK_CONTEXTS, function, number],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    lines, raised = map(int, done.stdout.split())
    assert lines > 5
    assert raised > 5


OTHER_MAIN_THREAD = """
import _thread, signal, sys
assert "threading" not in sys.modules
signal.signal(signal.SIGALRM, lambda *_: None)
is_done = _thread.allocate_lock()
is_done.acquire()

def work():
    try:
        # The first thread to import `threading` is the main one for it, before Python 3.13.
        from dkist_processing_core.process.signals import signals_deferred
        with signals_deferred():
            print("here")
    finally:
        is_done.release()

_thread.start_new_thread(work, ())
is_done.acquire()
"""


def test_nothing_is_held_back_where_the_interpreter_has_another_main_thread() -> None:
    """
    An example is a program with an embedded interpreter, whose handlers run in another thread than the task.
    """
    done = run_python(OTHER_MAIN_THREAD, {})

    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")


SUBSCRIBED = """
import linecache, signal, sys
from dkist_processing_core import subscribe
from dkist_processing_core.bus import open_bus
from dkist_processing_core.journal.message import to_message
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from tests.facts import started

names = [f"T{number}" for number in range(250)]
seen, raised, caught, found = set(), 0, [], []

def limit(*_):
    global raised
    raised += 1
    raise TimeoutError("time limit")

def is_watched(frame):
    return "/dkist_processing_core/" in frame.f_code.co_filename

def trace(frame, event, argument):
    place = frame.f_lineno, frame.f_code
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    # By then the event is handed out.
    is_over = frame.f_code.co_name == "__next__" and line == "return event"
    if event == "line" and place not in seen and not is_over:
        seen.add(place)
        signal.raise_signal(signal.SIGALRM)
    return trace

def interrupted(action):
    while True:
        try:
            sys.settrace(lambda frame, *_: trace if is_watched(frame) else None)
            return action()
        except TimeoutError as error:
            while error is not None:
                caught.append(error)
                error = error.__context__
        finally:
            sys.settrace(None)

def read():
    for event in events:
        found.append(event.task_name)

signal.signal(signal.SIGALRM, limit)
bus = open_bus(DKISTProcessingCoreConfiguration.read())
with interrupted(lambda: subscribe(name="n", timeout=0.1)) as events, bus.open_journal() as journal:
    journal.append([to_message(started(name), bus.event_exchange) for name in names])
    interrupted(read)
print(raised, len(set(map(id, caught))), found == names)
"""


def test_a_time_limit_around_a_subscription_leaves_it_whichever_line_it_strikes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    It is not treated as an error of the journal, and no event is skipped.
    """
    without_coverage(monkeypatch)

    done = run_python(SUBSCRIBED, {})

    assert done.returncode == 0, done.stderr[-3000:]
    raised, caught, is_complete = done.stdout.split()
    assert (caught, is_complete, done.stderr) == (raised, "True", "")
    assert int(raised) > 50


SUBSCRIBED_AT_A_BROKER = """
import signal, sys
from dkist_processing_core import subscribe

def limit(*_):
    raise TimeoutError("time limit")

def trace(frame, event, argument):
    if frame.f_code.co_name == "poll" and "/pika/" in frame.f_code.co_filename:
        sys.settrace(None)
        signal.raise_signal(signal.SIGALRM)

signal.signal(signal.SIGALRM, limit)
sys.settrace(trace)
try:
    subscribe(timeout=0)
except TimeoutError as error:
    print(error)
"""


def test_a_time_limit_around_a_subscription_is_no_error_of_the_broker(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The time limit raises while the package waits for the connection.
    """
    without_coverage(monkeypatch)

    done = run_python(SUBSCRIBED_AT_A_BROKER, broker.env)

    assert (done.returncode, done.stdout) == (0, "time limit\n"), done.stderr


INTERRUPTED_RUNS = """
import json, logging, signal, sys
from dkist_processing_core import TaskBase, Workflow

class A(TaskBase):
    retries = 0

    def run(self):
        sys.settrace(lambda frame, *_: trace if is_watched(frame) else None)
        caller = sys._getframe()
        while caller := caller.f_back:
            caller.f_trace = trace if is_watched(caller) else None
        if fails:
            raise ValueError

def is_watched(frame):
    folder, _, name = frame.f_code.co_filename.rpartition("/")
    return folder.endswith("/dkist_processing_core/local") and name not in {"child.py", "display.py"}

def trace(frame, event, argument):
    global is_struck
    place = frame.f_lineno, frame.f_code
    # Nothing can hold an interrupt off between the end of the loop and the end of the run.
    if event == "line" and frame.f_code.co_name != "execute" and place not in seen and not is_struck:
        seen.add(place)
        is_struck = True
        signal.raise_signal(signal.SIGINT)
    return trace

class B(A):
    def run(self):
        sys.settrace(None)

workflow = Workflow(process_category="no", process_name="run", workflow_package="no.package", workflow_version="1")
workflow.add_node(A)
workflow.add_node(B, upstreams=A)
logging.disable()
fails, seen, number, is_struck = sys.argv[1] == "fails", set(), 0, True
while is_struck:
    number, is_struck = number + 1, False
    try:
        workflow.run(number)
        assert not is_struck
    except KeyboardInterrupt:
        pass
    sys.settrace(None)
print(number)
"""


@pytest.mark.parametrize("end", ["finishes", "fails"])
def test_a_run_that_is_interrupted_at_any_line_knows_how_its_task_had_ended(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Even between the end of a task and its recording, the engine's state is the one that the task has reported.
    """
    without_coverage(monkeypatch)

    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_RUNS, end],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, done.stderr
    found = [(run.tasks[0].state, run.tasks[0].engine_state, run.tasks[1].engine_state) for run in runs()]
    assert len(found) == int(done.stdout) > 20
    if end == "finishes":
        assert {each[:2] for each in found} == {(State.FINISHED, "success")}
    else:
        assert {each[:2] for each in found} == {(State.FAILED, "failed")}
        # An end that is recorded after the interrupt no longer decides about other tasks.
        assert {each[2] for each in found} <= {"upstream_failed", "no_status"}


TERMINATED_RUN = """
import signal, sys
from tests.pipelines import diamond

def trace(frame, event, argument):
    if frame.f_code.co_name == "_settle":
        sys.settrace(None)
        signal.raise_signal(signal.SIGTERM)

sys.settrace(trace)
diamond.run(recipe_run_id=5)
"""


def test_a_run_that_is_terminated_as_it_learns_of_an_end_books_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The task keeps its reported state, and the run ends as terminated.
    """
    without_coverage(monkeypatch)

    done = run_python(TERMINATED_RUN, {})

    (run,) = runs()
    assert done.returncode == -signal.SIGTERM
    assert run.state is State.FAILED
    assert [task.engine_state for task in run.tasks] == ["success", "no_status", "no_status", "no_status"]


AT_EACH_INSTRUCTION_OF_A_HOOK = """
import dis, os, sys
from dkist_processing_core.process.signals import around_forks

class Limit(Exception): pass

calls = []
around_forks(lambda: calls.append("before"), lambda: calls.append("after"))
# The interpreter calls handlers of signals at these instructions, and nowhere else in a function that calls nothing.
handles = lambda name: name == "RESUME" or (name.startswith("JUMP_BACKWARD") and "NO_INTERRUPT" not in name)
names = {}

def hooked(frame, event, argument):
    if frame.f_code.co_name != "_steps":
        return None
    frame.f_trace_opcodes = True
    names.update((each.offset, each.opname) for each in dis.get_instructions(frame.f_code))
    return at_instruction

def at_instruction(frame, event, argument):
    global left
    if event == "opcode" and handles(names[frame.f_lasti]):
        left -= 1
        if left == 0:
            raise Limit
    return at_instruction

for number in range(1, 100):
    left, raised = number, False
    calls.clear()
    sys.settrace(hooked)
    try:
        child = os.fork()
        if not child:
            os._exit(0)
    except Limit:
        raised = True
    finally:
        sys.settrace(None)
    print(calls, raised)
    if left > 0:
        break
"""


def test_an_exception_at_any_instruction_of_a_hook_of_forks_is_raised_after_the_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The jumps of a loop included, at which the interpreter calls handlers too.
    """
    without_coverage(monkeypatch)

    done = run_python(AT_EACH_INSTRUCTION_OF_A_HOOK, {})

    assert (done.returncode, done.stderr) == (0, "")
    *struck, last = done.stdout.splitlines()
    assert len(struck) >= 2
    assert set(struck) == {"['before', 'after'] True"}
    assert last == "['before', 'after'] False"
