"""
Adds a type of event by the steps of CONTRIBUTING.md, in a copy of the package.
"""

import re
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
USE = """
from datetime import UTC, datetime
from dkist_processing_core.cli.draw.facts import facts
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
facts(event)
print(sorted(schema(TaskApplauded)["properties"]))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """
    Copy the package, the schemas and the documentation, and return the folder.
    """
    for folder in (PACKAGE, "telemetry", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(copy: Path, *arguments: str) -> str:
    """
    Run Python in the folder of the copy, and return the output.
    """
    done = subprocess.run(
        [sys.executable, *arguments], cwd=copy, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_type_of_event_is_added_by_the_steps_that_are_written_down(copy: Path) -> None:
    """
    Two files are changed by hand, and schema and page are generated. Codec, redaction, shortening and fold then support
    the event.
    """
    facts, exports = copy / PACKAGE / "events" / "facts.py", copy / PACKAGE / "events" / "__init__.py"
    facts.write_text(facts.read_text().replace("EVENT_CLASSES: tuple", f"{CLASS.lstrip()}EVENT_CLASSES: tuple"))
    exports.write_text(
        exports.read_text().replace("    TaskDispatched,\n", "    TaskApplauded,\n    TaskDispatched,\n", 1)
    )

    run(copy, "-m", f"{PACKAGE}.events.schema", "telemetry/schemas")
    run(copy, "-m", f"{PACKAGE}.events.page", "docs/reference/events.md")

    assert "'hands'" in run(copy, "-c", USE)
    assert (copy / "telemetry" / "schemas" / "task.applauded.v1.json").exists()
    page = (copy / "docs" / "reference" / "events.md").read_text()
    assert re.search(r"## `task.applauded`\n\nSignals that somebody liked an attempt.\n", page)
    assert "| `hands` | integer, always | How many hands clapped. |" in page


def test_the_steps_name_the_files_that_there_are() -> None:
    """
    Each file that the steps name exists, and at most six are changed by hand.
    """
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Adding a type of event")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\d\. `([\w/.]+)`", section, flags=re.MULTILINE))

    assert {name for name in named if not (ROOT / PACKAGE / name).exists()} == set()
    assert len(named) <= 6
