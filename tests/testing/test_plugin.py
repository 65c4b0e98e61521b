"""
The plugin of pytest, in the tests of a project that installs the package.
"""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from dkist_processing_core import TaskBase, Workflow, subscribe
from dkist_processing_core.consumer.replay import replayed
from dkist_processing_core.events import TaskFailed
from dkist_processing_core.inbox import Database
from dkist_processing_core.settings.configuration import DKISTProcessingCoreConfiguration
from dkist_processing_core.settings.reading import read_settings
from dkist_processing_core.testing import START, FixedClock, FixedIds, InMemoryBus, SampleRun, sample_event

PROJECT = """
import pytest
from dkist_processing_core import TaskBase, subscribe

class Parse(TaskBase):
    def run(self):
        raise KeyError("missing")

def test_the_failure_is_reported(dkist_core_bus, dkist_core_clock, dkist_core_ids):
    with pytest.raises(KeyError):
        Parse(recipe_run_id=1, workflow_name="w", workflow_version="1")()

    assert [event.name for event in dkist_core_bus.events] == ["task.started", "task.failed"]
    assert dkist_core_bus.events[0].run_id == "hand__1__20261122T090000Z__00000001"
"""
PROBE = """
import json, sys
import pytest

class Probe:
    def pytest_sessionfinish(self):
        print()
        print("loaded", json.dumps(sorted(name for name in sys.modules if name.startswith("dkist_processing_core"))))
        print("plugins", json.dumps(sorted(sys.modules.keys() & {
            "sqlalchemy", "alembic", "hypothesis", "pika", "msgspec", "pydantic", "opentelemetry", "sqlite3", "rich"})))

sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:randomly", *sys.argv[1:]],
                     plugins=[Probe()]))
"""


class Parse(TaskBase):
    """A task that succeeds."""

    def run(self) -> None:
        """Do nothing."""


def run_project(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a project with one test file, and show what it has loaded."""
    (folder / "test_project.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [sys.executable, "-c", PROBE, str(folder)], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


def found_in(ran: subprocess.CompletedProcess[str], what: str) -> list[str]:
    """Return a list that the probe has printed."""
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith(f"{what} ")]
    found: list[str] = json.loads(line.removeprefix(f"{what} "))
    return found


def test_a_project_has_the_fixtures_by_installing_the_package(tmp_path: Path) -> None:
    """No import and no configuration is needed."""
    ran = run_project(tmp_path, PROJECT)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


def test_pytest_loads_the_plugin_and_nothing_else_of_the_package(tmp_path: Path) -> None:
    """It loads in every project that installs the package, whether the project uses it or not."""
    ran = run_project(tmp_path, "def test_nothing():\n    pass\n")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert found_in(ran, "loaded") == ["dkist_processing_core", "dkist_processing_core.pytest_plugin"]
    assert found_in(ran, "plugins") == []


def test_the_bus_of_a_test_is_in_memory(
    dkist_core_bus: InMemoryBus, dkist_core_clock: FixedClock, dkist_core_ids: FixedIds, dkist_core_state_dir: Path
) -> None:
    """Tasks, publishers and subscriptions of this process use it; no file is written."""
    failure = sample_event(TaskFailed, "ParseL0")
    with subscribe("task.failed", name="operators", timeout=0.0) as failures:
        dkist_core_bus.publish(failure)
        Parse(recipe_run_id=1, workflow_name="w", workflow_version="1")()

        assert list(failures) == [failure]

    assert [event.name for event in dkist_core_bus.events] == ["task.failed", "task.started", "task.finished"]
    assert dkist_core_bus.events[-1].time == dkist_core_clock.now == START
    assert dkist_core_ids() == "00000002"
    assert list(dkist_core_state_dir.iterdir()) == []


def test_the_folder_of_a_test_holds_the_embedded_bus(dkist_core_state_dir: Path) -> None:
    """A run whose tasks are processes reports there."""
    workflow = Workflow(process_category="plugin", process_name="test")
    workflow.add_node(Parse)

    assert workflow.run(recipe_run_id=1)

    names = [event.name for event in replayed(read_settings())]
    assert names == ["workflow.started", "task.dispatched", "task.started", "task.finished", "workflow.finished"]
    assert (dkist_core_state_dir / "embedded.db").exists()


@pytest.mark.parametrize("is_in_file", [True, False])
def test_no_setting_of_a_project_leads_out_of_the_folder_of_a_test(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_in_file: bool
) -> None:
    """Broker, collector and inbox may be named in the environment or in the file `.env`; a test must not use them."""
    variables = {
        "MESH_CONFIG": '{"interservice-bus": {"mesh_address": "broker.example", "mesh_port": 5672}}',
        "DKIST_CORE_INBOX": "postgresql://inbox.example/production",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example:4317",
        "OTEL_TRACES_EXPORTER": "otlp",
    }
    monkeypatch.chdir(tmp_path)
    if is_in_file:
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
    else:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    folder = request.getfixturevalue("dkist_core_state_dir")

    settings = read_settings()
    with closing(Database.open(None, settings)) as database:
        assert database.where == f"sqlite:///{folder}/inbox.db"
    assert not settings.names_broker
    assert DKISTProcessingCoreConfiguration().otel_traces_exporter == "none"


def test_a_sample_run_can_be_published(dkist_core_bus: InMemoryBus) -> None:
    """A program under test receives it as a real one."""
    run = SampleRun()
    run.fail("ParseL0")
    with subscribe("task.failed", every_report=True, timeout=0.0) as failures:
        dkist_core_bus.publish(*run.events)

        assert [failure.reported_by for failure in failures] == ["task", "engine"]
