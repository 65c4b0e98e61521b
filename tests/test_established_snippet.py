"""
The usage snippet of release 7.x runs unchanged, and any client can read its events.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_structured_event

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from tests.running import ROOT, run_python
from tests.services.broker import Broker

CANARY = "canary-Pa55word/with@odd:characters"
RUN = "from tests.established import w; result = w.run(recipe_run_id=1); assert result.succeeded"
BY_HAND = """
from tests.established import MyTask1, MyTask2
for MyTask in (MyTask1, MyTask2):
    with MyTask(recipe_run_id=1, workflow_name="My_Workflow", workflow_version="dev") as task: task()
"""
Event = dict[str, Any]


@pytest.fixture
def read_events(broker: Broker) -> Callable[[], list[Event]]:
    """
    A function that has the plain script read every event, and the `cloudevents` package decode it.
    """
    command = [sys.executable, str(ROOT / "tests" / "plain_reader.py")]
    where = [str(broker.port), broker.vhost, broker.username, broker.password]
    subprocess.run([*command, "declare", *where], check=True)

    def read() -> list[Event]:
        done = subprocess.run([*command, "read", *where], check=True, capture_output=True, text=True)
        events = []
        for line in done.stdout.splitlines():
            message = json.loads(line)
            event = from_structured_event(
                RabbitMQMessage(
                    headers={}, content_type=message["content_type"], body=base64.b64decode(message["body"])
                )
            )
            assert event.get_id() == message["message_id"]
            data = event.get_data()
            assert isinstance(data, dict)
            events.append({"type": event.get_type(), "source": event.get_source(), **data})
        return events

    return read


def test_the_workflow_s_events_are_read_by_a_plain_client(
    broker: Broker, read_events: Callable[[], list[Event]]
) -> None:
    """
    Every lifecycle event of a run arrives in order, and states its run.
    """
    done = run_python(RUN, broker.env)

    events = read_events()
    assert (done.returncode, done.stdout) == (0, "MyTask1 | Running MyTask1\nMyTask2 | Running MyTask2\n")
    assert [(event["type"].removeprefix("edu.nso.dkist."), event.get("taskName")) for event in events] == [
        ("workflow.started", None),
        ("task.dispatched", "MyTask1"),
        ("task.started", "MyTask1"),
        ("task.finished", "MyTask1"),
        ("task.dispatched", "MyTask2"),
        ("task.started", "MyTask2"),
        ("task.finished", "MyTask2"),
        ("workflow.finished", None),
    ]
    assert {(event["source"], event["recipeRunId"], event["workflowVersion"]) for event in events} == {
        ("/workflows/My_Workflow/dev", 1, "dev")
    }
    assert len({event["dagRunId"] for event in events}) == 1


def test_tasks_by_hand_are_read_by_a_plain_client(broker: Broker, read_events: Callable[[], list[Event]]) -> None:
    """
    Each task called directly reports its start and its end, in one run by hand.
    """
    done = run_python(BY_HAND, broker.env)

    events = read_events()
    assert (done.returncode, done.stderr) == (0, "")
    assert [(event["type"].removeprefix("edu.nso.dkist."), event["taskName"]) for event in events] == [
        ("task.started", "MyTask1"),
        ("task.finished", "MyTask1"),
        ("task.started", "MyTask2"),
        ("task.finished", "MyTask2"),
    ]
    (run_id,) = {event["dagRunId"] for event in events}
    assert run_id.startswith("hand__1__")


def kept_in_journal(environment: dict[str, str]) -> int:
    """
    Return how many messages the journal of a destination holds.
    """
    values = {name.lower(): value for name, value in environment.items()}
    with open_bus(DKISTProcessingCoreConfiguration(**values)).open_journal() as journal:
        return len(journal.read(0, 1000))


def bytes_of(folder: Path) -> bytes:
    """
    Return everything that the files below a folder hold.
    """
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_task_without_a_broker_succeeds_silently(state_dir: Path) -> None:
    """
    The embedded journal needs no configuration and gives no warning.
    """
    done = run_python(BY_HAND, {"ISB_PASSWORD": CANARY})

    assert (done.returncode, done.stdout, done.stderr) == (0, "Running MyTask1\nRunning MyTask2\n", "")
    assert kept_in_journal({}) == 4
    assert CANARY.encode() not in bytes_of(state_dir)


def test_a_closed_port_costs_one_warning_and_no_event(state_dir: Path, refusing_port: int) -> None:
    """
    The task succeeds, and its events wait in the outbox.
    """
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": refusing_port}}
    environment = {"MESH_CONFIG": json.dumps(mesh), "ISB_PASSWORD": CANARY}

    done = run_python(BY_HAND, environment)

    assert (done.returncode, done.stdout) == (0, "Running MyTask1\nRunning MyTask2\n")
    assert len(done.stderr.splitlines()) == 1
    assert f"RabbitMQ at 127.0.0.1:{refusing_port} refuses the connection: nothing listens there" in done.stderr
    assert f"Events are kept in {state_dir}/outbox-" in done.stderr
    assert kept_in_journal(environment) == 4
    assert CANARY not in done.stderr
    assert CANARY.encode() not in bytes_of(state_dir)


def test_a_wrong_password_costs_one_warning_and_no_event(state_dir: Path, broker: Broker) -> None:
    """
    The warning names the variables, and the password is found nowhere.
    """
    environment = {**broker.env, "ISB_PASSWORD": CANARY}

    done = run_python(BY_HAND, environment)

    assert (done.returncode, done.stdout) == (0, "Running MyTask1\nRunning MyTask2\n")
    assert len(done.stderr.splitlines()) == 1
    assert "refuses the credentials (ISB_USERNAME, ISB_PASSWORD). Events are kept in" in done.stderr
    assert kept_in_journal(environment) == 4
    assert CANARY not in done.stderr
    assert CANARY.encode() not in bytes_of(state_dir)


def test_a_password_that_a_task_spills_is_found_nowhere(broker: Broker, state_dir: Path) -> None:
    """
    It is neither in the events of a task that fails with it in its message, nor in the journal.
    """
    program = (
        "import os\n"
        "from dkist_processing_core import TaskBase\n"
        "class Spilling(TaskBase):\n"
        "    def run(self):\n"
        "        raise RuntimeError(f'no access with {dict(os.environ)[\"ISB_PASSWORD\"]!r} at amqp://u:pw@host/')\n"
        "with Spilling(recipe_run_id=1, workflow_name='W', workflow_version='1') as task: task()\n"
    )
    mesh = {"interservice-bus": {"mesh_address": "127.0.0.1", "mesh_port": broker.port}}

    for environment in ({}, {"MESH_CONFIG": json.dumps(mesh)}):
        done = run_python(program, {**environment, "ISB_PASSWORD": CANARY})
        assert done.returncode == 1

    kept = bytes_of(state_dir)
    assert kept.count(b"no access with '[redacted]' at amqp://[redacted]@host/") >= 2
    assert CANARY.encode() not in kept
    assert b"u:pw@" not in kept
