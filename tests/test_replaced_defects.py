"""
Defects of release 7.x, and the behaviour of this library instead.

Each test is named after the present behaviour, and its docstring describes the defect of release 7.x. Not here: how the
behaviour is implemented, which the tests of each module cover.
"""

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dkist_processing_core import TaskBase, Workflow, subscribe
from dkist_processing_core.build_utils import export_dags, extract_workflows_from_package, validate_workflows
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.delivery.publisher import Publisher
from dkist_processing_core.environments import Environments, Requirement
from dkist_processing_core.errors import EnvironmentBuildError, WorkflowError
from dkist_processing_core.events import TaskFailed, TaskFinished, TaskStarted
from dkist_processing_core.failure_callback import chat_ops_notification
from dkist_processing_core.identity import to_run_data
from tests.clients import importing, module, write_package
from tests.facts import finished, started
from tests.running import run_command, run_python
from tests.sample import workflow as sample_workflow
from tests.services.broker import Broker
from tests.services.otlp import OtlpReceiver
from tests.services.proxy import Proxy
from tests.services.sockets import LOOPBACK, BlackHole

pytestmark = pytest.mark.once

FAILURE_QUEUE = "recipe.run.failure.q"
FAILURE_KEY = "recipe.run.failure.m"
ANNOUNCE = partial(chat_ops_notification, workflow_name="l0_to_l1_visp", workflow_version="1.0", task_name="First")
CONTEXT = {"run_id": "manual__1", "task_instance": SimpleNamespace(log_url="http://airflow.example/log")}
"""The context of Airflow's callbacks, with the names that the callback of 7.x reads."""

DEFAULT_PIP_TIMEOUT = 15
Make = Callable[[Mapping[str, str]], ModuleType]


class First(TaskBase):
    """
    A task without work.
    """

    def run(self) -> None:
        """
        Do nothing.
        """


class Second(First):
    """
    Another task.
    """


class Third(First):
    """
    A third task.
    """


def workflow_of_one() -> Workflow:
    """
    Return a workflow that contains the first task.
    """
    built = Workflow(
        input_data="l0", output_data="l1", category="visp", workflow_package=__package__, workflow_version="1.0"
    )
    built.add_node(First)
    return built


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """
    Return a function that writes a package `scratch` with modules, and imports it.
    """
    with ExitStack() as stack:

        def write(files: Mapping[str, str]) -> ModuleType:
            write_package(tmp_path, files)
            return stack.enter_context(importing(tmp_path))

        yield write


def waiting_announcements() -> list[dict[str, Any]]:
    """
    Return the failure messages in the journal.
    """
    with open_bus(DKISTProcessingCoreConfiguration.read()).open_journal() as journal:
        messages = [entry.message for entry in journal.read(0, 100)]
    return [json.loads(message.body) for message in messages if message.routing_key == FAILURE_KEY]


def heard_announcements(broker: Broker) -> list[tuple[str, dict[str, Any]]]:
    """
    Return id and body of each failure message that a consumer of the failure queue receives.
    """
    heard: list[tuple[str, dict[str, Any]]] = []
    with broker.connect() as connection:
        channel = connection.channel()
        while True:
            method, properties, body = channel.basic_get(FAILURE_QUEUE, auto_ack=True)
            if method is None:
                return heard
            heard.append((properties.message_id, json.loads(body)))


# The failure message


def test_a_failure_that_no_broker_hears_is_announced_once_when_one_is_there(
    proxied: tuple[Broker, Proxy], use: Callable[[Broker], None]
) -> None:
    """
    In 7.x, the message was lost if the broker was down, with a line in the log.
    """
    broker, proxy = proxied
    use(broker)
    proxy.refuse()

    ANNOUNCE(CONTEXT)
    (waiting,) = waiting_announcements()
    proxy.accept()
    drained, again = (run_command("outbox", "drain") for _ in range(2))

    assert (waiting["taskName"], waiting["dagRunId"]) == ("First", "manual__1")
    assert (drained.returncode, again.returncode) == (0, 0), drained.stderr + again.stderr
    assert waiting_announcements() == []
    assert [body for _, body in heard_announcements(broker)] == [waiting]


def test_a_broker_under_a_memory_alarm_holds_up_no_announcement(owned: Broker) -> None:
    """
    In 7.x, the publisher waited as long as the broker's memory alarm was on.
    """
    owned.node.memory_alarm(on=True)

    began = time.monotonic()
    ANNOUNCE(CONTEXT)
    took = time.monotonic() - began
    waiting = waiting_announcements()
    owned.node.memory_alarm(on=False)
    drained = run_command("outbox", "drain")

    assert took < 10
    assert drained.returncode == 0, drained.stderr
    heard = heard_announcements(owned)
    assert [body for _, body in heard[:1]] == waiting
    # A message that the broker read late, and had not confirmed, is sent a second time with the same id.
    assert len({identifier for identifier, _ in heard}) == 1


def test_many_events_share_one_connection(proxied: tuple[Broker, Proxy], use: Callable[[Broker], None]) -> None:
    """
    In 7.x, each message opened a connection.
    """
    broker, proxy = proxied
    use(broker)

    with Publisher.open(DKISTProcessingCoreConfiguration.read()) as publisher:
        for number in range(20):
            publisher.publish(started(f"A{number}"), finished(f"A{number}"))

    assert proxy.accepted == 1
    assert waiting_announcements() == []


def test_every_attempt_has_a_start_and_an_end_on_the_bus() -> None:
    """
    In 7.x, only failures were published, without the error, the attempt or a time.
    """

    class Fails(First):
        def run(self) -> None:
            raise ArithmeticError("no good")

    Second(1, "W", "1")()
    with pytest.raises(ArithmeticError):
        Fails(1, "W", "1")()

    events = list(subscribe(replay=True, timeout=0.05))
    assert [type(event) for event in events] == [TaskStarted, TaskFinished, TaskStarted, TaskFailed]
    failed = events[-1]
    assert isinstance(failed, TaskFailed)
    assert (failed.error_type, failed.message, failed.attempt) == ("ArithmeticError", "no good", 1)
    assert failed.time.tzinfo is not None


# The data of a run

NOTING = """
from pathlib import Path
from dkist_processing_core import TaskBase, Workflow

class Notes(TaskBase):
    def run(self) -> None:
        Path(f"ran for {self.recipe_run_id}").touch()

workflow = Workflow(process_category="scratch", process_name="w", workflow_package=__package__, workflow_version="dev")
workflow.add_node(Notes)
"""


def command_and_variables(file: Path) -> tuple[str, dict[str, str]]:
    """
    Return the command of the operator in an exported file of one task, and the templates of its variables.
    """
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            found |= {
                str(key.value): str(value.value)
                for key, value in pairs
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
            }
    return found["bash_command"], {name: value for name, value in found.items() if name.isupper()}


def test_a_recipe_run_id_is_data_and_never_a_command(make: Make, tmp_path: Path) -> None:
    """
    In 7.x, it was inserted, unquoted, into Python inside a shell command.
    """
    package = make({"w.py": NOTING})
    (file,) = export_dags(package, tmp_path / "dags")
    command, templates = command_and_variables(file)
    folder = tmp_path / "worker"
    folder.mkdir()

    def start(recipe_run_id: object) -> int:
        """
        Run the operator's command with the variables that the engine has rendered, and return the exit status.
        """
        rendered = {
            "DKIST_CORE_PYTHON": sys.executable,
            "DKIST_CORE_RUN_ID": "manual__1",
            "DKIST_CORE_RECIPE_RUN_ID": to_run_data(recipe_run_id),
            "DKIST_CORE_ATTEMPT": "1",
            "DKIST_CORE_MAX_ATTEMPTS": "1",
        }
        variables = {name: "" if "{{" in value else value for name, value in templates.items()} | rendered
        return subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=folder,
            env={**os.environ, **variables, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            check=False,
            timeout=300,
        ).returncode

    hostile = ["1; touch x", "$(touch x)", "`touch x`", "__import__('os').system('touch x')"]
    assert [start(each) for each in hostile] == [1] * 4
    assert list(folder.iterdir()) == []
    assert start(5) == 0
    assert [path.name for path in folder.iterdir()] == ["ran for 5"]
    assert "recipe" not in command


# Building a workflow


def test_a_task_that_waits_for_itself_is_refused() -> None:
    """
    In 7.x, a self-loop passed `add_node` and the export, and failed in Airflow.
    """
    workflow = workflow_of_one()

    with pytest.raises(WorkflowError, match="Second cannot wait for itself"):
        workflow.add_node(Second, upstreams=Second)

    assert "Second" not in workflow.dag_source()


def test_a_node_that_is_refused_leaves_nothing_behind() -> None:
    """
    In 7.x, the node stayed in the workflow and in its export after `add_node` had failed.
    """
    workflow = workflow_of_one()
    before = workflow.dag_source()

    with pytest.raises(WorkflowError, match="Second waits for Third, which is not in l0_to_l1_visp"):
        workflow.add_node(Second, upstreams=Third)

    assert workflow.dag_source() == before
    workflow.add_node(Second, upstreams=First)
    assert [node.name for node in workflow.nodes] == ["First", "Second"]


def test_upstreams_may_be_a_tuple() -> None:
    """
    In 7.x, a tuple of upstreams raised a TypeError about lists.
    """
    workflow = workflow_of_one()
    workflow.add_node(Second)
    workflow.add_node(Third, upstreams=(First, Second))

    assert workflow.graph.edges == (("First", "Third"), ("Second", "Third"))


def test_the_caller_s_lists_stay_the_caller_s() -> None:
    """
    In 7.x, the list of upstreams was not copied, so that changing it changed the workflow.
    """
    workflow, upstreams, extras = workflow_of_one(), [First], ["asdf"]
    workflow.add_node(Second, upstreams=upstreams, pip_extras=extras)
    before = workflow.dag_source()
    upstreams.append(Third)
    extras.append("quality")

    assert workflow.dag_source() == before
    assert workflow.graph.edges == (("First", "Second"),)


# Exporting and validating


def test_validation_leaves_the_export_folder_alone(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    In 7.x, it wrote into `./export`, and deleted the folder with all its files.
    """
    package = make({"w.py": module("w")})
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "precious").write_text("mine")
    monkeypatch.chdir(tmp_path)

    validate_workflows(package)

    assert {path.name: path.read_text() for path in Path("export").iterdir()} == {"precious": "mine"}


def test_two_workflows_of_one_name_are_refused_before_a_file_is_written(make: Make, tmp_path: Path) -> None:
    """
    In 7.x, the second one's file silently replaced the first one's.
    """
    package = make({"a.py": module("w"), "b.py": module("w")})

    with pytest.raises(WorkflowError, match=r"scratch.b: scratch_w 1.0 would overwrite .* scratch.a: scratch_w 1.0;"):
        export_dags(package, tmp_path / "dags")
    with pytest.raises(WorkflowError, match=r"scratch.b: scratch_w 1.0 would overwrite .* scratch.a: scratch_w 1.0;"):
        validate_workflows(package)

    assert not (tmp_path / "dags").exists()


def test_an_imported_workflow_is_exported_where_it_is_defined_and_only_once(make: Make, tmp_path: Path) -> None:
    """
    In 7.x, it was exported once more for each module that imported it.
    """
    package = make({"a.py": module("w"), "b.py": "from scratch.a import w\n", "c.py": "from scratch.a import *\n"})

    assert [each.workflow_name for each in extract_workflows_from_package(package)] == ["scratch_w"]
    assert export_dags(package, tmp_path / "dags") == [tmp_path / "dags" / "scratch_w_1.0.py"]


def test_an_export_is_the_same_in_every_process(tmp_path: Path) -> None:
    """
    In 7.x, the tags were in a set, and their order differed between runs.
    """
    exports = "from pathlib import Path; from tests.sample import workflow; workflow().export_dag(Path({!r}))"
    for seed in ("1", "2", "3"):
        done = run_python(exports.format(str(tmp_path / seed)), {"PYTHONHASHSEED": seed})
        assert done.returncode == 0, done.stderr

    contents = {file.read_bytes() for file in tmp_path.glob("*/*.py")}
    assert contents == {sample_workflow().dag_source().encode()}


def test_exporting_makes_the_folders_above(make: Make, tmp_path: Path) -> None:
    """
    In 7.x, a folder whose parent was missing raised a FileNotFoundError.
    """
    package = make({"w.py": module("w")})
    folders = [tmp_path / each / "b" / "c" for each in ("workflow", "package", "valid")]

    workflow_of_one().export_dag(folders[0])
    export_dags(package, folders[1])
    validate_workflows(package, folders[2])

    assert [len(list(folder.iterdir())) for folder in folders] == [1, 1, 1]


# Telemetry, logs and settings

DOUBTFUL = """
from dkist_processing_core import TaskBase
from opentelemetry.trace import StatusCode

class Doubtful(TaskBase):
    def run(self):
        with self.telemetry_span("doubtful") as span:
            span.set_status(StatusCode.ERROR, "as the author says")
        with self.telemetry_span("plain"):
            pass

Doubtful(recipe_run_id=1, workflow_name="W", workflow_version="1")()
"""


def test_the_status_that_an_author_sets_stands(otlp: OtlpReceiver) -> None:
    """
    In 7.x, a span without an exception got the status OK, even if its author had set another one.
    """
    done = run_python(DOUBTFUL, otlp.grpc_env)
    assert done.returncode == 0, done.stderr

    found = otlp.wait_for(
        lambda receiver: [span for span in receiver.spans() if span.name == "Doubtful"] and receiver.spans()
    )
    spans = {span.name: (span.status_code, span.status_message) for span in found}
    assert spans["doubtful"] == ("ERROR", "as the author says")
    assert spans["plain"] == ("UNSET", "")


IMPORTING = """
import ast, importlib, logging, pkgutil, sys, warnings

root = logging.getLogger()
root.addHandler(logging.NullHandler())
root.setLevel(37)

def state():
    return [
        [*root.handlers], [*root.filters], root.level, root.disabled, logging.getLogRecordFactory(),
        logging.getLoggerClass(), logging.root.manager.disable, logging.lastResort, logging.raiseExceptions,
        warnings.showwarning, sys.excepthook, sys.stdout, sys.stderr,
    ]

before = state()

# All that an exported file does but what it asks of the engine itself.
tree = ast.parse(open(sys.argv[1]).read())
tree.body = [
    node for node in tree.body
    if not isinstance(node, ast.With) and not (isinstance(node, ast.ImportFrom) and node.module.startswith("airflow"))
]
names = {}
exec(compile(tree, sys.argv[1], "exec"), names)
announce = names["callbacks"].on_failure_of("First")[-1]
assert state() == before, "the exported file"

import dkist_processing_core
imported = 0
for info in pkgutil.walk_packages(dkist_processing_core.__path__, "dkist_processing_core."):
    if "._" not in info.name:
        module = importlib.import_module(info.name)
        [getattr(module, name) for name in getattr(module, "__all__", ())]
        imported += 1
from dkist_processing_core.config import core_configurations
assert state() == before, "the modules"

announce({"run_id": "manual__1"})
assert state() == before, "the callback"
print(imported)
"""


def test_importing_leaves_the_root_logger_alone(tmp_path: Path) -> None:
    """
    In 7.x, importing the package replaced the root's handlers, including those of Airflow's processes.
    """
    file = sample_workflow().export_dag(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, file], capture_output=True, text=True, check=False, timeout=300
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


SECRETS = {
    "ISB_PASSWORD": "canary-broker",
    "ARCHIVE_TOKEN": "canary-token",
    "ARCHIVE_URL": "https://reader:canary-url@archive.example/",
}
LOGGING = """
import logging
logging.basicConfig(level=logging.DEBUG)
from dkist_processing_core import TaskBase
from dkist_processing_core.config import DKISTProcessingCoreConfiguration

class Settings(DKISTProcessingCoreConfiguration):
    archive_token: str
    archive_url: str

class Trusting(TaskBase):
    def run(self):
        settings = Settings()
        settings.log_configurations()
        settings.log_configurations(log_parent_configurations=False)
        logging.getLogger("author").info("%s %r", settings, settings)
        raise PermissionError(f"{settings.isb_password} and {settings.isb_password!r} were refused")

try:
    with Trusting(recipe_run_id=1, workflow_name="W", workflow_version="1") as task: task()
except PermissionError:
    print("refused")
"""


@contextmanager
def folder_with_settings(folder: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """
    Make a folder with a file of these settings the current folder.
    """
    folder.mkdir()
    (folder / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in settings.items()))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


def test_no_secret_reaches_the_log(tmp_path: Path, refusing_port: int) -> None:
    """
    In 7.x, every setting was logged at import with the passwords in its URLs, and an error about `.env` contained all
    values.
    """
    said = []
    for name, address in {"sound": LOOPBACK, "url": "amqp://guest:canary-mesh@broker.example"}.items():
        mesh = json.dumps({"interservice-bus": {"mesh_address": address, "mesh_port": refusing_port}})
        with folder_with_settings(tmp_path / name, {**SECRETS, "MESH_CONFIG": mesh}):
            done = subprocess.run(
                [sys.executable, "-c", LOGGING],
                env={**os.environ, "OTEL_TRACES_EXPORTER": "console", "EVENT_FLUSH_TIMEOUT": "0.1"},
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
        said.append(done.stdout + done.stderr)

    sound, url = said
    assert "isb_password: [redacted]" in sound
    assert "archive_token: [redacted]" in sound
    assert "archive_url: https://[redacted]@archive.example/" in sound
    assert "refused\n" in sound
    assert "MESH_CONFIG: found a value that is not shown" in url
    assert "canary" not in sound + url


def test_a_key_that_nobody_knows_does_not_break_the_import(tmp_path: Path) -> None:
    """
    In 7.x, it ended the import with a traceback of pydantic.
    """
    program = (
        "from dkist_processing_core import TaskBase; from dkist_processing_core.config import core_configurations;"
        "print(core_configurations.isb_vhost)"
    )
    with folder_with_settings(tmp_path / "work", {"NOT_OF_OURS": "1", "ISB_VHOST": "own"}):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)

    assert (done.stdout, done.stderr) == ("own\n", "")


# Installing


def connections_to(hole: BlackHole) -> int:
    """
    Return the number of clients that have connected so far.
    """
    count = 0
    with suppress(TimeoutError):
        while True:
            hole.wait_for_connection(0.05)
            count += 1
    return count


def test_the_installer_is_as_patient_as_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    In 7.x, the settings `PIP_TIMEOUT` and `PIP_RETRIES` had no effect, and an installation had the default timeout.
    """
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    elsewhere = {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "UV_CACHE_DIR": str(tmp_path / "uv")}
    made = []
    for retries in (0, 1):
        settings = {"PIP_TIMEOUT": "1", "PIP_RETRIES": str(retries)}
        with BlackHole() as hole, folder_with_settings(tmp_path / f"work-{retries}", settings):
            environ = {**os.environ, **elsewhere, "PIP_INDEX_URL": f"http://{hole.host}:{hole.port}/simple"}
            cache = Environments(tmp_path / "environments", environ=environ)
            began = time.monotonic()
            with pytest.raises(EnvironmentBuildError, match=r"no environment of small-pipeline==1.0 could be built"):
                cache.prepare(Requirement.of("small-pipeline", "1.0"))
            made.append((connections_to(hole), time.monotonic() - began < DEFAULT_PIP_TIMEOUT))

    assert made == [(1, True), (2, True)]
