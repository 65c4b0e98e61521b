"""
Adds a type of event, and a field of an event, by the steps of CONTRIBUTING.md, in a copy of the package.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "dkist_processing_core"
CLASS = """
class TaskApplauded(TaskEvent, frozen=True, kw_only=True, dict=True):
    \"\"\"Signals that somebody liked an attempt.\"\"\"

    name: ClassVar[str] = "task.applauded"

    hands: Annotated[Count, about("How many hands clapped.")]
    why: Annotated[FreeText | None, about("What they say.", Cut.NOTE)] = None


"""
BEFORE_START = """        case TaskStarted():
"""
WORDS = """        case TaskApplauded():
            return [f"{event.hands} hands"]
"""
USE = """
from datetime import UTC, datetime
from dkist_processing_core.runs.wording.facts import facts
from dkist_processing_core.events import TaskApplauded, TaskStarted, decode, encode, fit
from dkist_processing_core.events.schema import schema
from dkist_processing_core.runs import RunState

identity = dict(
    time=datetime(2026, 11, 22, 12, tzinfo=UTC), reported_by="task", workflow_name="W", workflow_version="1",
    run_id="r", recipe_run_id=1, task_name="A", attempt=1, max_attempts=1,
)
event = TaskApplauded(**identity, hands=2, why="secret \\x00 " + "w" * 100_000)
assert decode(encode(event)) == event
assert len(encode(fit(event))) <= 65536
assert event.redacted(lambda text: text.replace("secret", "")).why.startswith(" \\N{REPLACEMENT CHARACTER}")
(run,) = RunState([TaskStarted(**identity), event]).runs
assert run.tasks[0].name == "A"
assert facts(event) == "2 hands"
print(sorted(schema(TaskApplauded)["properties"]))
"""
FIELD = """    frames: Annotated[Count | None, about("How many frames the task has written.")] = None
"""
BEFORE_PEAK = """    if event.peak_memory is not None:
"""
SHORT = """    if event.frames is not None:
        yield f"{event.frames} frames"
"""
BEFORE_PROGRESS = """    if attempt.progress is not None and attempt.state is not State.FINISHED:
"""
DETAIL = """    if end is not None and end.name == "task.finished":
        yield end_detail(end), "dim"
"""
OF_FIELD = """
from datetime import UTC, datetime
from dkist_processing_core import RunState, TaskBase, subscribe
from dkist_processing_core.cli.draw.lines import EventLines
from dkist_processing_core.cli.draw.timeline import draw_timeline
from dkist_processing_core.events import decode, encode
from dkist_processing_core.launcher._verdict import Circumstances, judge
from dkist_processing_core.launcher.process_end import ProcessEnd

class A(TaskBase):
    def run(self):
        pass

with A(recipe_run_id=1, workflow_name="W", workflow_version="1") as task:
    task()
events = list(subscribe(replay=True, every_report=True, timeout=0.05))
end = events[-1]
assert (end.name, end.frames, decode(encode(end))) == ("task.finished", 7, end)
reports = {"returned": True, "end": "task.finished", "is_on_disk": False, "facts": {"frames": 8}}
end_of_process = ProcessEnd(exit_code=0, processor_seconds=1.0, duration_seconds=1.0, reports=reports)
assert judge(end_of_process, Circumstances()).facts["frames"] == 8
(run,) = RunState(events).runs
assert run.tasks[0].attempts[0].end.frames == 7
print(*EventLines().lines(end))
print(*draw_timeline(run, width=80, now=datetime.now(UTC)), sep="\\n")
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """
    Copy the package, the schemas, the documentation and the examples of events, and return the folder.
    """
    for folder in (PACKAGE, "telemetry", "docs", "tests/golden"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "test_golden.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests")
    return tmp_path


def run(copy: Path, *arguments: str) -> str:
    """
    Run Python in the folder of the copy, and return the output.
    """
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def edit(copy: Path, module: str, before: str, after: str) -> None:
    """
    Replace the first occurrence of a text in a module of the copy, which a further event or field does not change.
    """
    path = copy / PACKAGE / module
    assert before in path.read_text(), f"{module} has changed: update the anchor {before!r} in this test"
    path.write_text(path.read_text().replace(before, after, 1))


def make_events(copy: Path) -> None:
    """
    Run the commands of `make events`.
    """
    run(copy, "-m", f"{PACKAGE}.events.schema", "telemetry/schemas")
    run(copy, "-m", f"{PACKAGE}.events.page", "docs/reference/events.md")


def append_example(copy: Path) -> None:
    """
    Run the command of CONTRIBUTING.md that appends an example with the field.
    """
    command = re.search(r"-m tests.golden .*? >> \S+", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    assert command is not None
    *arguments, _, file = shlex.split(command[0].replace("\\\n", " "))
    line = run(copy, *arguments)
    with (copy / file).open("a") as examples:
        examples.write(line)
    assert json.loads(json.loads(line)["body"])["data"]["frames"] == 7


def test_a_type_of_event_is_added_by_the_steps_that_are_written_down(copy: Path) -> None:
    """
    Three files are changed by hand, and schema and page are generated. Codec, redaction, shortening, fold and text then
    support the event.
    """
    edit(copy, "events/facts.py", "EVENT_CLASSES: tuple", f"{CLASS.lstrip()}EVENT_CLASSES: tuple")
    edit(copy, "events/__init__.py", "    TaskDispatched,\n", "    TaskApplauded,\n    TaskDispatched,\n")
    edit(copy, "runs/wording/facts.py", "    TaskDispatched,\n", "    TaskApplauded,\n    TaskDispatched,\n")
    edit(copy, "runs/wording/facts.py", BEFORE_START, f"{WORDS}{BEFORE_START}")
    make_events(copy)

    assert "'hands'" in run(copy, "-c", USE)
    assert (copy / "telemetry" / "schemas" / "task.applauded.v1.json").exists()
    page = (copy / "docs" / "reference" / "events.md").read_text()
    assert re.search(r"## `task.applauded`\n\nSignals that somebody liked an attempt.\n", page)
    assert "| `hands` | integer, always | How many hands clapped. |" in page


@pytest.mark.parametrize(
    ("following", "observed"),
    [("\n\nclass TaskFailed(", "self._facts_of_success()"), ("    provisional: Annotated[", "self._facts_of_end()")],
    ids=["TaskFinished", "TaskEnd"],
)
def test_a_field_is_added_by_the_steps_that_are_written_down(following: str, observed: str, copy: Path) -> None:
    """
    The task reports it, the launcher accepts it, and schema, page, codec, fold and drawings contain it.
    """
    edit(copy, "events/facts.py", following, f"{FIELD}{following}")
    edit(copy, "attempt/lifecycle.py", observed, f'{observed} | {{"frames": 7}}')
    edit(copy, "runs/wording/facts.py", BEFORE_PEAK, f"{SHORT}{BEFORE_PEAK}")
    edit(copy, "cli/draw/attempts.py", BEFORE_PROGRESS, f"{DETAIL}{BEFORE_PROGRESS}")
    make_events(copy)

    line, *timeline = run(copy, "-c", OF_FIELD).splitlines()
    assert re.search(r", 7 frames, peak \d+ MB\b", line)
    assert any(re.match(r"    7 frames, peak \d+ MB\b", each) for each in timeline)
    schema = json.loads((copy / "telemetry" / "schemas" / "task.finished.v1.json").read_text())
    assert schema["properties"]["frames"]["description"] == "How many frames the task has written."
    append_example(copy)
    assert " passed" in run(copy, "-m", "pytest", "-q", "-c", os.devnull, "tests/test_golden.py")
    page = (copy / "docs" / "reference" / "events.md").read_text()
    assert page.count("| `frames` | integer | How many frames the task has written. |") == 1


@pytest.mark.parametrize("title", ["Adding a type of event", "Adding a field to an event"])
def test_the_steps_name_the_files_that_there_are(title: str) -> None:
    """
    Each file that the steps name exists, and at most six are changed by hand.
    """
    section = (ROOT / "CONTRIBUTING.md").read_text().partition(f"## {title}")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([\w/]+\.(?:py|md|jsonl))`", section))

    assert named
    assert {name for name in named if not (ROOT / PACKAGE / name).exists() and not (ROOT / name).exists()} == set()
    assert len(set(re.findall(r"^\d\. `([\w/.]+)`", section, flags=re.MULTILINE))) <= 6
