"""
The recording of a task's process, by real processes that are started as a launcher starts them, and that end hard.

Not here: the memory (test_recorder.py), and the events that contain what was recorded.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dkist_processing_core.launcher.bootstrap import FILE, MODULE, program, variables
from dkist_processing_core.process.descriptors import open_numbers
from dkist_processing_core.recorder import _sampler, region, writing
from dkist_processing_core.recorder.reading import Recording, read
from tests.running import ROOT, run_python
from tests.test_faults import environ_of

LIMIT_SECONDS = 100
SECRET = "hunter2secret"
# The end of each: the process waits until the sampler has seen it there, and kills itself.
TASK = f"""
import ctypes, faulthandler, gc, logging, multiprocessing, os, resource
import signal, subprocess, sys, threading, time, warnings
from pathlib import Path
from dkist_processing_core import TaskBase

log = logging.getLogger("author")
LIMIT_OF_SAMPLE = {LIMIT_SECONDS / 2}

def last_line():
    # The sampler sees the task here: a sample that is due now may be of an earlier line, the one after it is not.
    sampler = next((each for each in gc.get_objects() if type(each).__name__ == "Sampler"), None)
    due, left = getattr(sampler, "_due", 0.0), 2 if sampler else 0
    while left and time.monotonic() < due + LIMIT_OF_SAMPLE:
        if sampler._due != due:
            due, left = sampler._due, left - 1
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

class A(TaskBase):
    def run(self):
        secret = {SECRET!r}
{{run}}
"""


@dataclass
class Ended:
    """
    A process that has ended, with what it has recorded.
    """

    status: int
    output: str
    recording: Recording

    @property
    def first_frames(self) -> list[str]:
        """
        The frames of the first thread, without the line numbers.
        """
        frames = (self.recording.stack or "").split("\n\n")[0].splitlines()[1:]
        return [f"{frame.split(':')[0].strip()} {frame.split(' in ')[1]}" for frame in frames]


def recorded(
    folder: Path, run: str, *options: str, source: str = TASK, prefix: Sequence[str] = (), **environment: str
) -> Ended:
    """
    Run a task with these lines as its `run` to the end of its process, and return what it has recorded.

    `options` are the interpreter's, and `prefix` is a command that starts it.
    """
    path = folder / "own.py"
    path.write_text(source.replace("{run}", "".join(f"        {line}\n" for line in run.splitlines())))
    made = region.create(None)
    assert made is not None
    assert made.descriptor is not None
    # Only a launched task records its phases, and handles a termination request: it has a pipe to report on.
    reading, reports = os.pipe()
    identity = {"TASK": "A", "RECIPE_RUN_ID": "1", "WORKFLOW": "W", "VERSION": "1", "RUN_ID": "r", "ATTEMPT": "1"}
    done = subprocess.run(
        [*prefix, sys.executable, *options, "-u", "-P", "-c", program()],
        cwd=ROOT,
        env={
            **os.environ,
            **{f"DKIST_CORE_{name}": value for name, value in identity.items()},
            **variables(),
            MODULE: "own",
            FILE: str(path),
            "PYTHONPATH": str(ROOT),
            "SITE_TOKEN": SECRET,
            "WRITTEN": str(folder),
            "DKIST_CORE_REPORT_FD": str(reports),
            region.VARIABLE: str(made.descriptor),
            **environment,
        },
        pass_fds=(made.descriptor, reports),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    ended = Ended(done.returncode, done.stdout, read(made))
    os.close(reading)
    os.close(reports)
    made.close()
    return ended


KILLED = """
threading.Thread(target=threading.Event().wait, name=f"waits for {secret}", daemon=True).start()
for number in range(30):
    log.info("line %d with %s", number, secret)
self.progress(3, 12, "frame", f"with {secret}")
last_line()
"""


def test_a_killed_task_leaves_its_stacks_its_log_its_phase_and_its_progress(tmp_path: Path) -> None:
    """
    No secret is in it, and no variable's value.
    """
    ended = recorded(tmp_path, KILLED)

    found = ended.recording
    assert ended.status == -signal.SIGKILL
    assert ended.first_frames == ["own.py last_line", "own.py run"]
    assert found.top_frame is not None
    assert found.top_frame.endswith(" in last_line")
    assert (found.stack or "").split("\n\n")[1].startswith('Thread "waits for [redacted]":\n  threading.py:')
    assert 0.0 < (found.stack_age or 0.0) < (found.phase_age or 0.0) < LIMIT_SECONDS
    lines = (found.log or "").splitlines()
    assert [line.partition(" INFO ")[2] for line in lines] == [
        f"author: line {number} with [redacted]" for number in range(30)
    ]
    assert (found.phase, found.progress) == ("run", "3/12 frame: with [redacted]")
    assert (found.stack_age or 0.0) < (found.progress_age or 0.0) <= (found.phase_age or 0.0)
    assert SECRET not in repr(found)


def test_a_log_while_the_module_is_loaded_is_recorded_as_well(tmp_path: Path) -> None:
    """
    A task that fails in its import is the one whose log is missed most.
    """
    ended = recorded(tmp_path, "", source=TASK.replace("class A", 'log.warning("loaded")\nlast_line()\nclass A'))

    assert (ended.recording.log or "").endswith(" WARNING author: loaded")
    assert ended.first_frames == ["own.py last_line", "own.py <module>"]
    assert ended.recording.phase is None


FORGOTTEN = """
os.environ["NEW_TOKEN"] = "token of the task"
log.warning("the first")
del os.environ["NEW_TOKEN"]
log.warning("deleted: %s", "token of the task")
logging.getLogger(f"client.{secret}").warning("named")
logging.addLevelName(35, secret)
log.log(35, "level")
last_line()
"""


def test_the_whole_line_is_redacted_and_a_deleted_secret_remains_one(tmp_path: Path) -> None:
    """
    A task may take a secret out of its environment, and log it afterwards.
    """
    ended = recorded(tmp_path, FORGOTTEN)

    assert [line.split(" ", 2)[2] for line in (ended.recording.log or "").splitlines()] == [
        "WARNING author: the first",
        "WARNING author: deleted: [redacted]",
        "WARNING client.[redacted]: named",
        "[redacted] author: level",
    ]


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"])
def test_the_log_of_a_task_shows_the_exact_stack_of_a_fatal_error(name: str, tmp_path: Path) -> None:
    """
    The status of the process is that of the signal, as without a recorder.
    """
    ended = recorded(tmp_path, f"resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\nos.kill(os.getpid(), signal.{name})")

    assert ended.status == -getattr(signal, name)
    assert ended.output.startswith("Fatal Python error: ")
    shown = ended.output.partition("Current thread")[2].splitlines()[1]
    assert shown.startswith(f'  File "{tmp_path}/own.py", line ')
    assert shown.endswith(" in run")


OWN_HANDLER = """
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
file = Path(os.environ["WRITTEN"], "fatal").open("w")
faulthandler.enable(file)
ctypes.string_at(0)
"""


def test_the_author_s_own_handler_of_fatal_errors_has_the_stack_alone(tmp_path: Path) -> None:
    """
    Whether it was enabled before or after the recorder.
    """
    ended = recorded(tmp_path, OWN_HANDLER)

    assert (ended.status, ended.output) == (-signal.SIGSEGV, "")
    assert (tmp_path / "fatal").read_text().startswith("Fatal Python error: Segmentation fault")


FORKS = """
assert threading.active_count() == 1
def count(): return len(os.listdir("/proc/self/task"))
def fork():
    child = os.fork()
    if not child:
        log.warning("of the fork")
        self.progress(99)
        # A sampler that had gone on in the fork would take stacks meanwhile.
        time.sleep(1.2)
        os._exit(count() - 1)
    assert os.waitpid(child, 0)[1] == 0
for _ in range(20):
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
fork()
assert count() == 2, count()
log.warning("of the task")
last_line()
"""


def test_a_fork_beside_the_sampler_warns_of_nothing_and_records_nothing(tmp_path: Path) -> None:
    """
    The thread ends before the fork, and goes on in the parent alone.
    """
    ended = recorded(tmp_path, FORKS, "-W", "error")

    assert (ended.status, "Warning" in ended.output) == (-signal.SIGKILL, False), ended.output
    assert [line.split(" WARNING ")[1] for line in (ended.recording.log or "").splitlines()] == ["author: of the task"]
    assert ended.recording.progress is None
    assert ended.first_frames[:2] == ["own.py last_line", "own.py run"]


FORKS_AND_LIMITS = """
class Limit(Exception): pass
def limit(*_): raise Limit
def interrupt(*_): raise KeyboardInterrupt
def fork():
    child = os.fork()
    if not child: os._exit(0)
    os.waitpid(child, 0)
def forks():
    # In a function, since Python 3.13 excludes the jump of a loop from the `try` around it.
    began = time.monotonic()
    while time.monotonic() < began + LIMIT: fork()
fork()
started = time.monotonic()
for _ in range(20): fork()
cost = (time.monotonic() - started) / 20
lost = []
for number in range(100):
    timer, kind = (signal.ITIMER_REAL, signal.SIGALRM) if number % 3 else (signal.ITIMER_PROF, signal.SIGPROF)
    signal.signal(kind, limit if number % 2 else interrupt)
    try:
        signal.setitimer(timer, cost * (number % 50 + 1) / 50)
        forks()
        lost.append(number)
    except (Limit, KeyboardInterrupt): pass
print("lost", lost, flush=True)
subprocess.Popen(["sh", "-c", f"sleep {0.02 + cost * part}; kill -TERM {os.getpid()}"])
forks()
"""


@pytest.mark.parametrize("part", [0.1, 0.4, 0.7])
def test_no_time_limit_and_no_termination_request_is_lost_in_a_fork(part: float, tmp_path: Path) -> None:
    """
    The interpreter drops what is raised in the functions that it calls at a fork, those of `logging` included.
    """
    ended = recorded(tmp_path, f"part, LIMIT = {part}, {LIMIT_SECONDS / 4}\n{FORKS_AND_LIMITS}")

    assert ended.status == 128 + signal.SIGTERM, ended.output
    assert "lost []\n" in ended.output
    assert "Exception ignored" not in ended.output
    assert "signals.py" not in ended.output


FORKS_OF_THREADS = """
def forks():
    for _ in range(25):
        child = os.fork()
        if not child:
            log.warning("of the fork")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
def logs():
    for number in range(500):
        log.warning("line %d", number)
threads = [threading.Thread(target=target) for target in (forks, forks, logs)]
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    for thread in threads: thread.start()
    for thread in threads: thread.join()
last_line()
"""


def test_forks_of_several_threads_at_once_leave_the_sampler_running(tmp_path: Path) -> None:
    """
    No fork hangs at a lock that its parent held, and the log is that of the parent.
    """
    ended = recorded(tmp_path, FORKS_OF_THREADS)

    assert ended.status == -signal.SIGKILL, ended.output
    lines = (ended.recording.log or "").splitlines()
    assert [line.split(": ")[1] for line in lines] == [f"line {number}" for number in range(500)]
    assert ended.first_frames[:2] == ["own.py last_line", "own.py run"]


POOLS = """
for method in ("fork", "spawn"):
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(abs, range(-20, 0)) == list(range(20, 0, -1))
last_line()
"""


def test_pools_work_beside_the_sampler(tmp_path: Path) -> None:
    """
    Of forks and of new processes.
    """
    ended = recorded(tmp_path, POOLS)

    assert ended.status == -signal.SIGKILL, ended.output
    assert ended.first_frames[:2] == ["own.py last_line", "own.py run"]


CLOSES = """
os.closerange(3, 4096)
files = [Path(os.environ["WRITTEN"], f"file{number}").open("w+b", buffering=0) for number in range(200)]
for _ in range(2):
    for file in files: file.write(b"x" * 5000)
    log.warning("written")
    self.progress(1)
"""


@pytest.mark.parametrize("end", ["last_line()", "os.kill(os.getpid(), signal.SIGSEGV)", ""])
def test_an_author_s_files_with_all_numbers_hold_what_the_author_wrote(end: str, tmp_path: Path) -> None:
    """
    Whatever the end: what is recorded goes through the memory, whose descriptor is closed at once.
    """
    ended = recorded(tmp_path, f"resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n{CLOSES}{end}")

    files = sorted(tmp_path.glob("file*"))
    assert len(files) == 200, ended.output
    assert {path.read_bytes() for path in files} == {b"x" * 10_000}
    assert (ended.recording.log or "").count("author: written") == 2
    assert ended.recording.progress == "1"


OPEN = """
links = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
print([link for link in links if "recorder" in link], [name for name in os.environ if "RECORDER" in name])
"""


def test_the_descriptor_is_closed_before_the_author_s_code(tmp_path: Path) -> None:
    """
    Neither its number nor a copy is open, and no variable names it.
    """
    ended = recorded(tmp_path, OPEN)

    assert ended.output.splitlines()[:1] == ["[] []"]


LIMITED = """
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 1024 * 1024, resource.RLIM_INFINITY))
for _ in range(3):
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
log.warning("limited")
self.progress(1)
"""


def test_a_task_without_memory_for_a_thread_goes_on(tmp_path: Path) -> None:
    """
    The stacks are old or absent; the log is there.
    """
    ended = recorded(tmp_path, LIMITED)

    assert (ended.status, "Traceback" in ended.output) == (0, False), ended.output
    assert "author: limited" in (ended.recording.log or "")


COUNTED = """
log.warning("limited")
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize(("gibibytes", "threads"), [(1, 1), (64, 2)])
def test_a_task_with_few_addresses_keeps_them(gibibytes: int, threads: int, tmp_path: Path) -> None:
    """
    A thread would take seventy MiB of what `ulimit -v` leaves, so there is one only under a much larger limit.
    """
    limited = ["/bin/sh", "-c", f'ulimit -v {gibibytes * 1024 * 1024} && exec "$@"', "sh"]

    ended = recorded(tmp_path, COUNTED, prefix=limited)

    assert (ended.status, ended.output.splitlines()[-1]) == (0, str(threads)), ended.output
    assert (ended.recording.log or "").endswith("author: limited")


COLLECTED = """
import gc
seen = set()
class Garbage:
    def __del__(self):
        seen.add(threading.get_ident())
def waits(depth):
    if depth:
        waits(depth - 1)
    else:
        event.wait()
event = threading.Event()
threads = [threading.Thread(target=waits, args=(40,)) for _ in range(8)]
for thread in threads: thread.start()
gc.collect()
garbage = Garbage()
garbage.itself = garbage
del garbage
gc.set_threshold(gc.get_count()[0] + 60)
# The sampler takes several samples meanwhile.
time.sleep(2)
gc.set_threshold(700)
print(gc.isenabled(), seen <= {threading.get_ident()}, threading.active_count(), flush=True)
gc.collect()
event.set()
last_line()
"""


def test_no_destructor_of_the_author_s_runs_in_the_thread_that_takes_the_stacks(tmp_path: Path) -> None:
    """
    The cyclic collector runs in the thread whose new object is one too many, and the stacks have many frames.
    """
    ended = recorded(tmp_path, COLLECTED)

    assert "True True 9\n" in ended.output
    assert ended.first_frames == ["own.py last_line", "own.py run"]


HOLDS = """
time.sleep(0.7)
signal.setitimer(signal.ITIMER_REAL, float(os.environ["HELD"]))
ctypes.PyDLL(None).usleep(20_000_000)
"""


@pytest.mark.parametrize("seconds", [1.5, pytest.param(10.0, marks=pytest.mark.soak)])
def test_a_library_that_holds_the_interpreter_shows_as_the_age_of_the_stack(seconds: float, tmp_path: Path) -> None:
    """
    The stack is that of the moment before.
    """
    ended = recorded(tmp_path, HOLDS, HELD=str(seconds))

    assert ended.status == -signal.SIGALRM
    assert seconds - 0.1 <= (ended.recording.stack_age or 0.0) < seconds + 1.0
    assert ended.first_frames[0] == "own.py run"


MANY = """
def waits(event): event.wait()
event = threading.Event()
for number in range(200):
    threading.Thread(target=waits, args=(event,), name=f"worker {number}", daemon=True).start()
for number in range(10_000):
    log.debug("not shown") or log.warning("line %d", number)
last_line()
"""


def test_many_threads_and_many_lines_are_recorded_as_far_as_there_is_room(tmp_path: Path) -> None:
    """
    The main thread comes first, and the last lines are complete and in order.
    """
    ended = recorded(tmp_path, MANY, source=TASK.replace("class A", "logging.lastResort = None\nclass A"))

    threads = (ended.recording.stack or "").split("\n\n")
    lines = [line.split(": ")[1] for line in (ended.recording.log or "").splitlines()]
    assert ended.status == -signal.SIGKILL, ended.output
    assert ended.first_frames[0] == "own.py last_line"
    assert 100 < len(threads) <= 201
    assert len((ended.recording.stack or "").encode()) <= 32 * 1024
    assert len(lines) > 900
    assert lines == [f"line {number}" for number in range(10_000 - len(lines), 10_000)]


ALARMS = """
caught, armed = [], []
class Alarm(BaseException): pass
def ring(*_):
    if armed:
        armed.clear()
        raise Alarm
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
until = time.monotonic() + 1.5
while time.monotonic() < until or len(caught) < 20:
    try:
        armed.append(1)
        for _ in range(20):
            log.warning("line %d", len(caught))
            time.sleep(0.0005)
    except Alarm:
        caught.append(1)
signal.setitimer(signal.ITIMER_REAL, 0)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(10)
"""


def test_signals_reach_the_author_s_handlers_beside_the_sampler(tmp_path: Path) -> None:
    """
    Their exceptions leave the recorder whole, and a termination request ends the task as without one.
    """
    ended = recorded(tmp_path, ALARMS)

    # A record whose formatting was interrupted has its format string.
    texts = [line.rpartition(": line ")[2] for line in (ended.recording.log or "").splitlines()]
    lines = [int(text) for text in texts if text.isdecimal()]
    assert ended.status == 128 + signal.SIGTERM
    assert lines == sorted(lines)
    assert lines[-1] >= 19


def test_an_environment_without_a_recorder_closes_the_descriptor(tmp_path: Path) -> None:
    """
    As with an older release, of which nothing can be recorded.
    """
    source = (
        "import os\n"
        "class A:\n"
        "    def __init__(self, **_): print([n for n in os.listdir('/proc/self/fd') if 'recorder' in"
        " os.path.realpath(f'/proc/self/fd/{n}')])\n"
        "    def __enter__(self): return self.__class__\n"
        "    def __exit__(self, *_): pass\n"
    )
    source = source.replace("self.__class__", "lambda: None")

    ended = recorded(tmp_path, "", "-S", "-I", source=source)

    assert (ended.status, ended.output) == (0, "[]\n")
    assert ended.recording == Recording(stack=None)


SUPERVISED = """
import dataclasses, json, os, time
from dkist_processing_core.launcher._on_demand import ReportsOnDemand
from dkist_processing_core.launcher._supervision import Supervision
from dkist_processing_core.launcher._task_environment import TaskEnvironment
from dkist_processing_core.launcher.assignment import Assignment
from dkist_processing_core.launcher.termination_requests import TerminationRequests

assignment = Assignment.take_from(dict(os.environ))
with TerminationRequests() as requests:
    reports = ReportsOnDemand(assignment, time.time_ns())
    supervision = Supervision(assignment, TaskEnvironment(None, reports, requests), requests, reports)
    supervision.run()
names = [os.path.basename(os.path.realpath(f"/proc/self/fd/{n}")) for n in os.listdir("/proc/self/fd")]
found = dataclasses.asdict(supervision.recording) | {"is_open": any("recorder" in name for name in names)}
print(json.dumps(found | {"is_own": supervision.process.pid == found["pid"]}))
"""


def test_a_launcher_has_the_recording_after_the_end(tmp_path: Path) -> None:
    """
    With the identity of the attempt; its descriptor is closed.
    """
    ran = run_python(SUPERVISED, environ_of("IsKilled", FAULT_MARKS=str(tmp_path)))

    found = json.loads(ran.stdout.splitlines()[-1])
    assert (found["phase"], found["is_own"], found["is_open"]) == ("run", True, False)
    assert found["identity"] == {"run_id": "manual__1", "task": "IsKilled", "attempt": 1, "pid": found["pid"]}


def test_stacks_leave_out_what_is_beyond_their_limits() -> None:
    """
    The deepest frames remain, and the threads of this package do not count.
    """
    event, began = threading.Event(), threading.Barrier(3)

    def waits() -> None:
        began.wait()
        event.wait()

    def recurses(depth: int) -> None:
        if depth:
            recurses(depth - 1)
        else:
            waits()

    threads = [
        threading.Thread(target=recurses, args=(300,), name="deep\nand secret"),
        threading.Thread(target=waits, name="dkist-core-own"),
    ]
    for thread in threads:
        thread.start()
    began.wait()
    seen: list[str] = []
    reader = threading.Thread(target=lambda: seen.append(_sampler.stacks(lambda text: text.replace("secret", "***"))))
    reader.start()
    reader.join()
    event.set()
    for thread in threads:
        thread.join()

    (text,) = seen
    deep = next(part for part in text.split("\n\n") if part.startswith('Thread "deep and ***":'))
    assert "dkist-core-own" not in text
    assert len(deep.rstrip("\n").splitlines()) == 102
    assert deep.rstrip("\n").endswith("\n  ...")
    assert " in waits\n" in deep


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        (f"{sys.path[-1]}/astropy/io/fits/core.py", "astropy/io/fits/core.py"),
        (f"{sys.path[-1]}/scipy/sparse/linalg/eigen/__init__.py", "scipy/.../eigen/__init__.py"),
        ("/nowhere/folder/own.py", "own.py"),
        ("/nowhere/folder/__init__.py", "folder/__init__.py"),
    ],
)
def test_a_frame_shows_the_package_of_its_file(file: str, shown: str) -> None:
    """
    Many packages have a `core.py`.
    """
    scope: dict[str, Any] = {}
    exec(compile("def f():\n    began.set()\n    event.wait()", file, "exec"), scope)
    scope |= {"began": threading.Event(), "event": threading.Event()}
    thread = threading.Thread(target=scope["f"])
    thread.start()
    scope["began"].wait()
    text = _sampler.stacks(str)
    scope["event"].set()
    thread.join()

    assert re.search(rf"^  {re.escape(shown)}:[23] in f$", text, re.MULTILINE)


def test_what_is_recorded_nowhere_costs_nothing() -> None:
    """
    The functions do nothing in a process without a recorder, and a descriptor of something else is refused.
    """
    before = open_numbers()
    writing.record_phase("run")
    writing.record_progress("1")

    assert writing.read_samples() == {}
    assert open_numbers() == before
