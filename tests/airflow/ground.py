"""
Setup of the tests with a real Airflow: a released pipeline, its exported workflows, and all events that reach the bus.

Not here: Airflow itself (tests.services.airflow).
"""

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dkist_processing_core import RunState
from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.consumer import subscribe
from dkist_processing_core.events import Event, RecipeRunFailureMessage, TaskEnd
from dkist_processing_core.journal import Journal
from dkist_processing_core.runs import RunView
from tests.running import ROOT, command
from tests.services.airflow import ENVIRONMENT, Airflow
from tests.services.broker import Broker
from tests.services.postgres import PostgresServer
from tests.services.wheels import make_wheel
from tests.waiting import wait_until

FAULTY = Path(__file__).parent / "packages" / "faulty"
EXAMPLE = ROOT / "examples" / "solar_calibration"
# Time limits are for a machine that is under full load.
SECONDS = 600.0
# An operator may attach these without reading the exported files: a time limit, and a condition.
POLICY = """\
from datetime import timedelta


def skip(context):
    from airflow.sdk.exceptions import AirflowSkipException

    raise AirflowSkipException("not today")


def task_policy(task):
    if task.task_id == "Overstays":
        task.execution_timeout = timedelta(seconds=2)
    if task.task_id == "IsSkipped":
        task._pre_execute_hook = skip
"""


def release(folder: Path) -> None:
    """
    Put the wheels of this library and of two pipelines, the example and the faulty one, into a folder, for installers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    make_wheel(
        folder,
        "faulty",
        "1.0",
        requires=["dkist-processing-core"],
        extras={"frozen": []},
        files={f"faulty/{file.name}": file.read_text() for file in FAULTY.glob("*.py")},
    )
    make_wheel(
        folder,
        "solar-calibration",
        "1.0",
        requires=["dkist-processing-core[examples]"],
        extras={"frozen": []},
        files={f"solar_calibration/{file.name}": file.read_text() for file in EXAMPLE.glob("*.py")},
    )


def exported(folder: Path) -> None:
    """
    Export the workflows of both pipelines as their repositories do: as files, or unpacked from an archive.
    """
    for package, options in ((FAULTY, ()), (EXAMPLE, ("--zip",))):
        subprocess.run(
            command("workflows", "export", package.name, "--path", str(folder), *options),
            env={**os.environ, "BUILD_VERSION": "1.0", "PYTHONPATH": str(package.parent)},
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
    (archive,) = folder.glob("*.zip")
    shutil.unpack_archive(archive, folder)
    archive.unlink()


@dataclass(frozen=True)
class Arrival:
    """
    A report, and when it was on the bus, in seconds since 1970.
    """

    at: float
    event: Event


class Listener:
    """
    A thread that records the events on the bus, and when they arrive.
    """

    def __init__(self, broker: Broker) -> None:
        """
        Begin to listen.
        """
        self._broker = broker
        self.arrivals: list[Arrival] = []
        self._announced: list[str] = []
        self._events = subscribe(every_report=True, settings=settings_of(broker))
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for event in self._events:
            self.arrivals.append(Arrival(time.time(), event))

    def close(self) -> None:
        """
        Stop listening.
        """
        self._events.close()

    def of(self, run_id: str) -> list[Event]:
        """
        Return the received events of a run, in order.
        """
        return [arrival.event for arrival in list(self.arrivals) if arrival.event.run_id == run_id]

    def view(self, run_id: str) -> RunView:
        """
        Return the run as all reports together describe it.
        """
        (run,) = RunState(self.of(run_id)).runs
        return run

    def wait_for(self, run_id: str, *names: str, seconds: float = SECONDS) -> None:
        """
        Wait until an event of each of these names has arrived.
        """
        wait_until(lambda: set(names) <= {event.name for event in self.of(run_id)}, seconds)

    def wait_for_end(self, run_id: str, seconds: float = SECONDS) -> None:
        """
        Wait until Airflow's report about the whole run has arrived.
        """
        wait_until(lambda: any(event.name in ENDS_OF_RUN for event in self.of(run_id)), seconds)

    def first_end(self, run_id: str, task: str, attempt: int) -> Arrival:
        """
        Return the first report of an attempt's end.
        """
        return next(
            arrival
            for arrival in list(self.arrivals)
            if isinstance(arrival.event, TaskEnd)
            and (arrival.event.run_id, arrival.event.task_name, arrival.event.attempt) == (run_id, task, attempt)
        )

    def announced(self) -> list[str]:
        """
        Return the run ids of all failure messages that have arrived, including repetitions.
        """
        with self._broker.connect() as connection:
            channel = connection.channel()
            while True:
                _, _, body = channel.basic_get(RecipeRunFailureMessage.queue, auto_ack=True)
                if body is None:
                    return list(self._announced)
                self._announced.append(json.loads(body)["dagRunId"])


class Ground:
    """
    An Airflow with the exported workflows, and the folders that its tasks use.
    """

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer,
        broker: Broker,
        *,
        wheels: Path,
        state: Path,
        celery: Broker | None = None,
        variables: Mapping[str, str] | None = None,
        virtualenv: Path = ENVIRONMENT,
    ) -> None:
        """
        Prepare an Airflow whose tasks report to a broker, with the released pipelines; `open` starts it.
        """
        self.broker = broker
        self.folder = folder
        self.state = state
        self.environments = wheels.parent / "environments"
        self.listener: Listener
        self._numbers = itertools.count(1)
        environment = {
            "FAULTY_FOLDER": str(folder),
            "SOLAR_CALIBRATION_DIR": str(folder / "solar"),
            "PIP_FIND_LINKS": wheels.as_uri(),
            "DKIST_CORE_ENVIRONMENTS_DIR": str(self.environments),
            "DKIST_CORE_STATE_DIR": str(state),
            "AIRFLOW__CORE__PARALLELISM": "16",
        }
        self.airflow = Airflow(
            folder / "home",
            postgres,
            environment=broker.env | environment | dict(variables or {}),
            celery=celery,
            virtualenv=virtualenv,
        )

    @contextmanager
    def open(self) -> Iterator[Self]:
        """
        Export the workflows, attach the policy, start Airflow, and listen to the bus, for the length of a block.
        """
        exported(self.airflow.dags_folder)
        policy = self.airflow.folder / "config" / "airflow_local_settings.py"
        policy.parent.mkdir(exist_ok=True)
        policy.write_text(POLICY)
        with listening(self.broker) as self.listener, self.airflow:
            yield self

    def next_number(self) -> int:
        """
        Return the next recipe run id, with a pipe for a task that waits.
        """
        number = next(self._numbers)
        os.mkfifo(self.folder / f"pipe-{number}")
        return number

    def release(self, number: int) -> None:
        """
        Let the task that waits go on.
        """
        (self.folder / f"pipe-{number}").write_text("go on")

    def is_kept(self, name: str, run_id: str) -> bool:
        """
        Return True if an event of a run is pending on this host.
        """
        bus = open_bus(settings_of(self.broker, self.state))
        kept = Journal.look(bus.journal_path, lambda journal: journal.pending(0, 10_000))
        found = [entry.message.properties for entry in kept]
        return any((each.type, each.correlation_id) == (f"edu.nso.dkist.{name}", run_id) for each in found)

    def drain(self) -> None:
        """
        Deliver the pending events to the broker, as an operator does; repeat while the broker is still starting.
        """
        variables = self.broker.env | {"DKIST_CORE_STATE_DIR": str(self.state)}

        def is_drained() -> bool:
            done = subprocess.run(command("outbox", "drain"), env=os.environ | variables, check=False)
            return done.returncode == 0

        wait_until(is_drained, SECONDS, every=0.5)


ENDS_OF_RUN = ("workflow.finished", "workflow.failed")


@contextmanager
def listening(broker: Broker) -> Iterator[Listener]:
    """
    Listen to all events that arrive, during the block.
    """
    listener = Listener(broker)
    try:
        yield listener
    finally:
        listener.close()


def settings_of(broker: Broker, state: Path | None = None) -> DKISTProcessingCoreConfiguration:
    """
    Return the settings that name a broker, and optionally a state folder.
    """
    return DKISTProcessingCoreConfiguration(
        dkist_core_state_dir=state,
        mesh_config=json.loads(broker.env["MESH_CONFIG"]),
        isb_username=broker.username,
        isb_password=broker.password,
        isb_vhost=broker.vhost,
    )
