"""
An author's code may change its process: all reports of a run still go to the destination that was set at its start.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dkist_processing_core.airflow.callbacks import Callbacks
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.events import Event, Reporter, TaskFailed, TaskFinished, TaskStarted
from dkist_processing_core.identity import Attempt, Run
from dkist_processing_core.settings.origin import Origin, _Handed, take
from tests.running import ROOT, run_command, status_of_fork
from tests.services.broker import Broker
from tests.test_delivery import settings_of

SCRIPT = """\
import os
from pathlib import Path
from dkist_processing_core import TaskBase, Workflow
{module}
class A(TaskBase):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        {constructor}
    def run(self):
        {run}
class B(TaskBase):
    def run(self):
        pass
workflow = Workflow(process_category="only", process_name="one", workflow_version="dev")
workflow.add_node(A)
workflow.add_node(B, upstreams=A)
def main():
    {main}
if __name__ == "__main__":
    main()
"""
LAUNCHED = "workflow.run(recipe_run_id=1)"
AT_A_PROMPT = "A.__qualname__ = B.__qualname__ = 'main.<locals>'; workflow.run(recipe_run_id=1)"
ONE_BY_HAND = "A(recipe_run_id=1, workflow_name='w', workflow_version='1')()"
BROKER = json.dumps({"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": 1}})
CHANGED = "; ".join(
    [
        "os.environ['HOME'] = os.environ['XDG_STATE_HOME'] = str(Path('elsewhere').absolute())",
        f"os.environ['MESH_CONFIG'] = {BROKER!r}",
        "import dotenv; dotenv.load_dotenv('elsewhere/.env', override=True)",
        "Path('.env').write_text('DKIST_CORE_STATE_DIR=elsewhere\\n')",
        "os.chdir('elsewhere')",
    ]
)


def execute(
    folder: Path,
    *,
    main: str = LAUNCHED,
    module: str = "",
    constructor: str = "pass",
    run: str = "pass",
    **environment: str,
) -> "subprocess.CompletedProcess[str]":
    """
    Run the two tasks in a separate folder, where all settings have their defaults.
    """
    (folder / "elsewhere").mkdir(exist_ok=True)
    (folder / "elsewhere" / ".env").write_text(f"MESH_CONFIG='{BROKER}'\nDKIST_CORE_STATE_DIR=/nonexistent/state\n")
    script = folder / "one.py"
    script.write_text(SCRIPT.format(module=module, constructor=constructor, run=run, main=main))
    inherited = {name: value for name, value in os.environ.items() if name not in {"DKIST_CORE_STATE_DIR", "HOME"}}
    return subprocess.run(
        [sys.executable, script],
        cwd=folder,
        env={**inherited, "HOME": str(folder / "home"), "EVENT_FLUSH_TIMEOUT": "0.1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def reports_below(folder: Path) -> list[Event]:
    """
    Return the events of the one journal below a folder.
    """
    (journal,) = folder.rglob("*.db")
    settings = DKISTProcessingCoreConfiguration(dkist_core_state_dir=journal.parent, mesh_config={})
    return list(subscribe(settings=settings, replay=True, timeout=0, every_report=True))


def ends(events: list[Event]) -> set[tuple[str, str]]:
    """
    Return the reporter and the task of each end event.
    """
    return {(event.reported_by, event.task_name) for event in events if isinstance(event, TaskFinished | TaskFailed)}


@pytest.mark.parametrize("change", [CHANGED, "os.environ.clear()"], ids=["much", "all variables"])
@pytest.mark.parametrize("where", ["module", "constructor"])
def test_launched_tasks_report_where_the_run_reports(state_dir: Path, change: str, where: str) -> None:
    """
    The end of each task and of the run are in one journal, for each change by the author's code.
    """
    code = change if where != "module" else f"if __name__ != '__main__':\n    {change}"

    done = execute(state_dir, **{where: code})

    events = reports_below(state_dir)
    assert ends(events) == {(Reporter.TASK, "A"), (Reporter.TASK, "B")}, done.stderr
    assert [event.name for event in events if event.name.startswith("workflow")] == [
        "workflow.started",
        "workflow.finished",
    ]


@pytest.mark.parametrize("where", ["constructor", "run"])
@pytest.mark.parametrize("main", [LAUNCHED, ONE_BY_HAND, AT_A_PROMPT], ids=["launched", "by hand", "at a prompt"])
def test_a_relative_folder_stays_where_it_was(state_dir: Path, main: str, where: str) -> None:
    """
    The start and the end of a task are in one journal, in the folder that was set at the start.
    """
    done = execute(state_dir, main=main, DKIST_CORE_STATE_DIR="state", **{where: CHANGED})

    names = [event.name for event in reports_below(state_dir) if getattr(event, "task_name", "A") == "A"]
    assert (names.count("task.started"), names.count("task.finished")) == (1, 1), done.stderr
    assert [*state_dir.rglob("*.db")] == [state_dir / "state" / "embedded.db"]


def test_the_file_of_settings_is_read_once_for_a_run(state_dir: Path) -> None:
    """
    Its relative paths are relative to its folder, even for tasks that start in another one or after a change of the
    file.
    """
    (state_dir / ".env").write_text("DKIST_CORE_STATE_DIR=${PLACE}/state\n")

    execute(state_dir, run="os.chdir('elsewhere'); Path('../.env').write_text('')", PLACE="named")

    (journal,) = state_dir.rglob("*.db")
    assert journal == state_dir / "named" / "state" / "embedded.db"
    assert ends(reports_below(state_dir)) == {(Reporter.TASK, "A"), (Reporter.TASK, "B")}


@pytest.mark.parametrize("main", [LAUNCHED, ONE_BY_HAND], ids=["launched", "by hand"])
def test_a_secret_that_is_no_longer_set_is_not_shown(state_dir: Path, main: str) -> None:
    """
    An author may remove a secret from the environment and then raise an exception with it.
    """
    secret = "canary-hunter22"

    execute(
        state_dir,
        main=main,
        constructor="self.secret = os.environ.pop('ARCHIVE_TOKEN')",
        run="raise ValueError(self.secret)",
        ARCHIVE_TOKEN=secret,
    )

    failed = [event for event in reports_below(state_dir) if isinstance(event, TaskFailed)]
    assert [event.error_type for event in failed if event.reported_by == Reporter.TASK] == ["ValueError"]
    assert all(secret not in f"{event}" for event in failed)


@pytest.mark.parametrize("main", [LAUNCHED, ONE_BY_HAND], ids=["launched", "by hand"])
def test_a_secret_of_the_file_that_is_no_setting_is_not_shown(state_dir: Path, main: str) -> None:
    """
    A library or the author's code may read the secret from the file, and an exception may quote it.
    """
    secret = "canary-hunter22"
    (state_dir / ".env").write_text(f"GLOBUS_CLIENT_SECRET={secret}\n")

    execute(
        state_dir,
        main=main,
        module="import dotenv",
        run="raise ValueError(dotenv.dotenv_values('.env')['GLOBUS_CLIENT_SECRET'])",
    )

    failed = [event for event in reports_below(state_dir) if isinstance(event, TaskFailed)]
    assert [event.message for event in failed if event.reported_by == Reporter.TASK] == ["[redacted]"]
    assert all(secret not in f"{event}" for event in failed)


@pytest.mark.parametrize("main", [LAUNCHED, ONE_BY_HAND], ids=["launched", "by hand"])
def test_a_collector_is_spoken_to_as_the_variables_said_at_first(state_dir: Path, main: str) -> None:
    """
    This includes the variables that the SDK reads. The author's code sees the variable as the author has set it.
    """
    done = execute(
        state_dir,
        main=main,
        constructor="os.environ['OTEL_EXPORTER_OTLP_TIMEOUT'] = 'soon'",
        run="print(self.tracer is None, os.environ['OTEL_EXPORTER_OTLP_TIMEOUT'])",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1",
    )

    assert "False soon" in done.stdout
    assert "are not exported: ValueError" not in done.stdout + done.stderr


def test_a_launcher_reports_where_the_engine_s_callbacks_report(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The engine starts the launcher in another folder, where neither a relative path nor the file of settings would be
    found.
    """
    monkeypatch.chdir(state_dir)
    monkeypatch.delenv("DKIST_CORE_STATE_DIR")
    (state_dir / ".env").write_text("DKIST_CORE_STATE_DIR=state\n")
    (state_dir / "elsewhere").mkdir()
    task = SimpleNamespace(env={}, queue="default")

    Callbacks(workflow_name="w", workflow_version="dev", nodes=("Succeeds",), edges=()).on_execute({"task": task})

    attempt = Attempt(Run("w", "dev", "run", 1), "Succeeds", 1, 1)
    subprocess.run(
        [sys.executable, "-m", "dkist_processing_core.launcher"],
        cwd=state_dir / "elsewhere",
        env={**os.environ, **task.env, **attempt.to_environ(), "DKIST_CORE_TASK_MODULE": "tests.launched"}
        | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        timeout=300,
    )
    assert ends(reports_below(state_dir)) == {(Reporter.TASK, "Succeeds")}


def test_every_setting_of_the_file_is_handed_over() -> None:
    """
    Other variables of the file are not handed over, except secrets, which are redacted.
    """
    names = {name.upper() for name in DKISTProcessingCoreConfiguration.model_fields}
    dotenv = dict.fromkeys([*names, "SOMEBODY_ELSES", "SOME_TOKEN"], "x")
    variables = Origin({}, folder="/", home=None, uid=0, dotenv=dotenv).to_environ()

    take(variables)
    try:
        found = Origin.of_process()
    finally:
        _Handed.origin = None

    assert set(found.dotenv) == {*names, "SOME_TOKEN"}
    assert variables == {}


def test_what_is_too_long_to_be_a_variable_keeps_no_process_from_being_started() -> None:
    """
    Settings that are too long for a variable are not handed over.
    """
    long = Origin({}, folder="/", home=None, uid=0, dotenv={"MESH_CONFIG": "x" * 200_000})

    assert long.to_environ() == {}


HOMELESS = """\
import logging, os, sys
from dkist_processing_core.delivery import drainer
from dkist_processing_core.bus.amqp import link
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from tests.facts import started
logging.basicConfig(format="%(levelname)s %(message)s")
"localhost".encode("idna")
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(1000770000)
    os.setuid(1000770000)
else:
    # Everybody else has a home, but not there.
    os.environ["DKIST_CORE_STATE_DIR"] = "~no-such-user/state"
with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
    for name in sys.argv[1:]:
        publisher.publish(started(name))
    print(publisher.flush(30))
"""


def test_without_a_home_events_reach_a_living_broker(broker: Broker, tmp_path: Path) -> None:
    """
    The events are kept in memory until then, with one warning, and no folder with the name ~ is created.
    """
    tmp_path.chmod(0o755)
    left_out = {"DKIST_CORE_STATE_DIR", "HOME", "XDG_STATE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in left_out} | broker.env

    done = subprocess.run(
        [sys.executable, "-c", HOMELESS, "A", "B"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.stdout == "True\n", done.stderr
    assert [line for line in done.stderr.splitlines() if "WARNING" in line] == [
        line for line in done.stderr.splitlines() if "there is no folder for journals: found ~" in line
    ]
    assert done.stderr.count("Events are kept in memory") == 1
    assert [*tmp_path.iterdir()] == []
    settings = settings_of(broker)
    arrived = subscribe("task.started", settings=settings, replay=True, timeout=0.0)
    assert [event.task_name for event in arrived if isinstance(event, TaskStarted)] == ["A", "B"]


@pytest.mark.parametrize("command", [("outbox", "list"), ("outbox", "drain"), ("outbox", "retry", "--all")])
def test_without_a_home_commands_do_not_say_that_nothing_waits(command: tuple[str, ...], tmp_path: Path) -> None:
    """
    One error names the setting.
    """
    done = run_command(*command, cwd=tmp_path, DKIST_CORE_STATE_DIR="~no-such-user/state", MESH_CONFIG=BROKER)

    told = "there is no folder for journals: found ~no-such-user/state, and no such home; set DKIST_CORE_STATE_DIR"
    assert (done.returncode != 0, "Traceback" in done.stderr) == (True, False)
    assert told in " ".join(done.stderr.split())


def test_a_folder_that_this_user_may_not_look_into_holds_no_settings(tmp_path: Path) -> None:
    """
    A service may start in the folder of the user who has started it.
    """

    def read() -> None:
        os.chdir(tmp_path)
        tmp_path.chmod(0)
        if os.getuid() == 0:
            os.setuid(65534)
        assert Origin.now().problem is None

    try:
        assert status_of_fork(read) == 0
    finally:
        tmp_path.chmod(0o700)
