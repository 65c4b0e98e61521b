"""
A site of a test: a broker behind a proxy, an OTLP receiver, a server that answers as Airflow, the lasting commands of
`dkist-core`, and a Prometheus that scrapes them with the deployed jobs.

Not here: the provoked faults, and what Prometheus must show (test_scraped).
"""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from dkist_processing_core.bus import open_bus
from dkist_processing_core.config import DKISTProcessingCoreConfiguration
from dkist_processing_core.events import Event
from dkist_processing_core.journal.message import to_message
from dkist_processing_core.journal.otlp import MOST_BYTES, OtlpJournal
from dkist_processing_core.otlp.destination import destination_of, journal_path
from tests.conftest import CLEANED_NAMES, CLEANED_PREFIXES
from tests.deployed import RULES, jobs
from tests.running import ROOT, command
from tests.services.airflow_rest import FakeAirflow, fake_airflow
from tests.services.broker import Broker
from tests.services.otlp import OtlpReceiver
from tests.services.processes import SESSION_VARIABLE
from tests.services.prometheus import PrometheusServer
from tests.services.proxy import Proxy
from tests.services.sockets import LOOPBACK, free_ports
from tests.services.storage import disk_folder
from tests.waiting import wait_until

SECONDS = 100.0
INTERVAL = "500ms"
EXCHANGE = "workflow.events.x"
PROGRAMS = """
import os, time
from dkist_processing_core import Consumer

operators = Consumer("operators", max_tries=2, first_pause=0.1)
tried = set()

@operators.on("task.failed")
def announce(failure):
    if os.path.exists("give_up") or failure.id not in tried:
        tried.add(failure.id)
        raise LookupError(failure.task_name)

@operators.on("task.progressed")
def follow(progress):
    # It holds the worker until the test removes the file.
    while os.path.exists("hold"):
        time.sleep(0.05)
"""
# A start that is expected each minute.
EXPECTED = """
[[expect]]
workflow = "site_expected"
schedule = "* * * * *"
grace = "1s"
"""
# The thresholds and windows of the alerts, for faults that last seconds.
_SHORTER = {
    r"\boffset 1h\b": "offset 3s",
    r"\[(1h|15m|10m)\]": "[3s]",
    r"> (3600|600)$": "> 2",
    r"> 300$": "> 0.5",
    r"> (100|10000)\b": "> 10",
    r"> 120$": "> 8",
    r"> 2\.5$": "> 0.5",
}


def sooner(path: Path) -> dict[str, Any]:
    """
    Return the rules of a file with short windows and low thresholds, and without a time before an alert.

    Their records have other names, since the dashboards read the deployed ones.
    """
    rules: dict[str, Any] = yaml.safe_load(path.read_text())
    for group in rules["groups"]:
        group["name"] += "-sooner"
        for rule in group["rules"]:
            if "alert" in rule:
                rule["for"] = "0s"
            else:
                rule["record"] = rule["record"].replace("dkist_core:", "sooner:")
            for pattern, shorter in _SHORTER.items():
                rule["expr"] = re.sub(pattern, shorter, rule["expr"], flags=re.MULTILINE)
            rule["expr"] = rule["expr"].replace("dkist_core:", "sooner:")
    return rules


@dataclass
class Site:
    """
    The processes of a site, and what a test does there.
    """

    folder: Path
    environment: Mapping[str, str]
    broker: Broker
    proxy: Proxy
    otlp: OtlpReceiver
    airflow: FakeAirflow
    prometheus: PrometheusServer
    processes: Mapping[str, subprocess.Popen[bytes]]

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """
        Run `dkist-core` to its end with the settings of the site.
        """
        return subprocess.run(
            command(*arguments),
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def report(self, *events: Event) -> None:
        """
        Append events to the outbox of the site, as a task does that ends before they are sent.
        """
        with open_bus(self.settings()).open_journal() as journal:
            journal.append([to_message(event, EXCHANGE) for event in events])

    def settings(self) -> DKISTProcessingCoreConfiguration:
        """
        Return the settings of the site's processes.
        """
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            return DKISTProcessingCoreConfiguration.read()

    @contextmanager
    def journal_of_telemetry(self, most_bytes: int = MOST_BYTES) -> Iterator[OtlpJournal]:
        """
        Open the journal in which the processes of the site wait for the collector; it is created if missing.
        """
        settings = self.settings()
        path, destination = journal_path(settings), destination_of(settings)
        with OtlpJournal.open(path, destination=destination, most_bytes=most_bytes) as journal:
            yield journal

    @contextmanager
    def flag(self, name: str) -> Iterator[None]:
        """
        Have the handlers of the consumer fail (`give_up`) or wait (`hold`) during the block.
        """
        (self.folder / name).touch()
        try:
            yield
        finally:
            (self.folder / name).unlink()

    def fires(self, alert: str, labels: str = "", seconds: float = SECONDS) -> None:
        """
        Wait until an alert fires, of those with these labels.
        """
        self.prometheus.wait_for(lambda server: server.query(firing(alert, labels)), seconds)

    def ends(self, alert: str, labels: str = "", seconds: float = SECONDS) -> None:
        """
        Wait until an alert does not fire any more.
        """
        self.prometheus.wait_for(lambda server: not server.query(firing(alert, labels)), seconds)


def firing(alert: str, labels: str) -> str:
    """
    Return the query for an alert that fires, of those with these labels.
    """
    return f'ALERTS{{alertstate="firing", alertname="{alert}", {labels}}}'


@contextmanager
def open_site(broker: Broker, folder: Path) -> Iterator[Site]:
    """
    Start a site in a folder, and end it.
    """
    (folder / "site_programs.py").write_text(PROGRAMS)
    with ExitStack() as stack:
        (folder / "state").mkdir(mode=0o700)
        state = stack.enter_context(disk_folder(folder / "state"))
        otlp, proxy = stack.enter_context(OtlpReceiver()), stack.enter_context(Proxy(broker.port))
        airflow = stack.enter_context(fake_airflow(admits_all=True))
        clean = {
            name: value
            for name, value in os.environ.items()
            if name == SESSION_VARIABLE or (name not in CLEANED_NAMES and not name.startswith(CLEANED_PREFIXES))
        }
        own = {
            "DKIST_CORE_STATE_DIR": str(state),
            "DKIST_CORE_AIRFLOW_URL": airflow.url,
            "MESH_CONFIG": broker.env["MESH_CONFIG"].replace(str(broker.port), str(proxy.port)),
            "OTEL_METRICS_EXPORTER": "none",
            "OPENBLAS_NUM_THREADS": "1",  # the example's threads would only wait for each other
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), str(ROOT / "examples")]),
        }
        environment = clean | broker.env | otlp.grpc_env | own
        (folder / "expect.toml").write_text(EXPECTED)
        ports = dict(zip(("collect", "watch", "relay", "consume"), free_ports(4), strict=True))
        programs = {
            "collect": ["collect"],
            "watch": ["watch", "--expect", str(folder / "expect.toml"), "--reconcile-every", "2s"],
            "relay": ["outbox", "relay"],
            "consume": ["consume", "site_programs:operators"],
        }
        processes = {}
        for name, arguments in programs.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command(*arguments, "--listen", str(ports[name]))],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            stack.callback(_end, process)
            processes[name] = process
            if name == "collect":
                # Otherwise the watcher may be the one that keeps the store.
                wait_until(lambda: _receives(ports["collect"]))
        ports["rabbitmq"] = stack.enter_context(broker.node.metrics())
        prometheus = stack.enter_context(PrometheusServer(folder / "prometheus", _settings(folder, ports)))
        yield Site(folder, environment, broker, proxy, otlp, airflow, prometheus, processes)


def _settings(folder: Path, ports: Mapping[str, int]) -> dict[str, Any]:
    """
    Return the settings of Prometheus: the deployed jobs and rules, at the addresses of this site.
    """
    # Not the deployed alerts: some of them would end after minutes.
    files = [str(path) for path in RULES if path.stem == "recording"]
    for path in RULES:
        rules = folder / f"sooner-{path.name}"
        rules.write_text(yaml.dump(sooner(path)))
        files.append(str(rules))
    scraped = {job: [ports[name]] for job in jobs() if (name := job.removeprefix("dkist-core-")) in ports}
    # The deployed targets of `collect` include the watcher.
    scraped["dkist-core-collect"].append(ports["watch"])
    return {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": files,
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"{LOOPBACK}:{port}" for port in ports]}]}
            for job, ports in scraped.items()
        ],
    }


def _receives(port: int) -> bool:
    """
    Return True if the consumer that serves its health at a port receives.
    """
    with suppress(OSError), urlopen(f"http://{LOOPBACK}:{port}/", timeout=SECONDS) as answer:
        return b'"receives": true' in answer.read()
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """
    End a process that a test may have stopped.
    """
    process.kill()
    process.wait()
