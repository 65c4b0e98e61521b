"""
A real Airflow, run from the settings in ``config/airflow`` with a private PostgreSQL: its processes and its REST API.

Not here: the reports of its workflows, and their broker.
"""

import atexit
import base64
import json
import os
import secrets
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from tests.services.broker import Broker
from tests.services.postgres import PostgresServer
from tests.services.processes import (
    SESSION_VARIABLE,
    descendants,
    is_alive,
    listeners,
    wait_for_end,
    with_environment,
)
from tests.services.sockets import LOOPBACK, free_ports
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config" / "airflow"
ENVIRONMENT = ROOT / ".venv-airflow"

AIRFLOW_VARIABLE = "DKIST_CORE_TEST_AIRFLOW"
"""A variable of all processes that one Airflow starts, including tasks: it identifies orphans."""

_TEMPLATE = "airflow_template"
_KEPT = ("PATH", "LANG", "TZ", "TMPDIR", "USER", "LOGNAME", SESSION_VARIABLE)
_ENDS = {
    "run": frozenset({"success", "failed"}),
    "task": frozenset({"success", "failed", "skipped", "upstream_failed"}),
}
_START_SECONDS = 300.0
_SECONDS = 300.0
_POLL_SECONDS = 0.1
_CALL_SECONDS = 300.0
_LOG_TAIL = 3000

# Settings that are seconds and minutes in a deployment, shortened so that a test need not wait.
_QUICK = {
    "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
    "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__WORKERS__MISSING_DAG_RETRY_DELAY": "2",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "1",
    "AIRFLOW__CORE__PARALLELISM": "4",
    "AIRFLOW__API__WORKERS": "1",
    # Every request is accepted: the tests are about tasks, and the port is on loopback.
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
}


class MissingAirflowError(RuntimeError):
    """
    Airflow's environment does not exist; the message states the command that creates it.
    """


class AirflowError(RuntimeError):
    """
    Airflow failed or did not answer; the message ends with its logs.
    """


@dataclass(frozen=True)
class TaskProcesses:
    """
    The processes of one running task, as Airflow nests them.
    """

    launcher: int
    """The process of the operator's command: bash, or the program that replaced bash by exec."""
    runner: int
    """Airflow's task runner, which waits for the command and calls the callbacks."""
    supervisor: int
    """The executor's worker, between the runner and the API server."""


def require_airflow(environment: Path = ENVIRONMENT) -> None:
    """
    Raise one sentence if the environment of Airflow is missing.
    """
    if not (environment / "bin" / "airflow").exists():
        raise MissingAirflowError(f"Airflow is missing: run `make {environment.name}/.stamp-airflow`")


def read_settings(file: Path) -> dict[str, str]:
    """
    Read a file of ``NAME=value`` lines as systemd and container runtimes do: the value is taken literally.
    """
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def processes_of_task(variables: Mapping[str, str]) -> TaskProcesses | None:
    """
    Find the one running task whose environment holds these variables; None if there is none.

    The operator's command and its children have them: the first of them is the command itself. Airflow's own processes
    were forked before the variables were set.
    """
    found = set.intersection(*(with_environment(name, value) for name, value in variables.items()))
    for pid in found:
        with suppress(OSError):
            runner = _parent(pid)
            if runner not in found and runner > 1:
                return TaskProcesses(launcher=pid, runner=runner, supervisor=_parent(runner))
    return None


class Component:
    """
    One process of Airflow, with its children, which a test may stop, kill and start again.
    """

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        """
        Prepare a command.
        """
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._environment = environment
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._started = datetime.now(UTC)
        self._log_before = 0
        self._orphans: dict[int, dict[int, str]] = {}

    @property
    def is_running(self) -> bool:
        """
        Whether the process lives.
        """
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """
        The process id of the component itself.
        """
        if self._process is None:
            raise AirflowError(f"{self.name} is not running")
        return self._process.pid

    @property
    def pids(self) -> set[int]:
        """
        The process ids of the component and of all processes that it started, including orphans.
        """
        return {self.pid, *descendants(self.pid), *_in_session(self.pid)} if self.is_running else set()

    @property
    def orphans(self) -> set[int]:
        """
        The process ids that an earlier run of the component left behind when it was killed.
        """
        found: set[int] = set()
        for session, seen in self._orphans.items():
            # While a process of a session lives, no other process gets its number.
            if any(_start_of(pid) == start for pid, start in seen.items()):
                found |= _in_session(session)
        return found

    def start(self) -> None:
        """
        Start the process, or start it again, and return at once.
        """
        if self.is_running:
            return
        self._started = datetime.now(UTC)
        with self.log.open("ab") as output:
            self._log_before = output.tell()
            self._process = subprocess.Popen(
                [*_ending_with_us(), *self._command],
                env=dict(self._environment),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 20.0) -> None:
        """
        Request the end of the process; after the timeout, kill it and its children if they still run.

        A scheduler waits for the tasks of its LocalExecutor to end.
        """
        if self._process is None:
            return
        pids = self.pids
        self._process.send_signal(how)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self._process.kill()
        self._process.wait()
        self._process = None
        end(pids)

    def kill(self, *, children: bool = False) -> None:
        """
        End the process without warning (SIGKILL); its children live on as orphans, unless they are to be killed in
        addition.

        Those of a scheduler, the workers of the LocalExecutor, go on with their tasks and ignore SIGTERM.
        """
        if self._process is None:
            return
        pids = self.pids
        if self.is_running:
            self._orphans[self.pid] = {pid: _start_of(pid) for pid in pids - {self.pid}}
        self._process.kill()
        self._process.wait()
        self._process = None
        if children:
            end(pids)

    def has_beaten(self, heartbeat: str | None) -> bool:
        """
        Whether a heartbeat, in the form of ISO 8601, is of the running process and not of its predecessor.
        """
        return heartbeat is not None and datetime.fromisoformat(heartbeat) > self._started

    def log_since_start(self) -> str:
        """
        Return the log that the process has written since its last start.
        """
        with self.log.open("rb") as log:
            log.seek(self._log_before)
            return log.read().decode(errors="replace")

    def tail(self) -> str:
        """
        Return the end of the process's log.
        """
        with suppress(FileNotFoundError):
            return f"\n--- end of {self.log.name} ---\n{self.log.read_text(errors='replace')[-_LOG_TAIL:]}"
        return ""


class Airflow:
    """
    A private Airflow: a database on the given server, a folder, and processes that end with this one.

    Its processes end with the thread that started them, so start it from the main one.
    """

    def __init__(
        self,
        folder: Path,
        postgres: PostgresServer,
        *,
        dags_folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        celery: Broker | None = None,
        virtualenv: Path = ENVIRONMENT,
    ) -> None:
        """
        Choose the port and write the settings: those of ``config/airflow`` for the LocalExecutor, or for Celery with
        this broker, and the values that ``environment`` adds or changes for every process.
        """
        require_airflow(virtualenv)
        self.virtualenv = virtualenv
        self.folder = folder
        self.dags_folder = dags_folder or folder / "dags"
        self.logs_folder = folder / "logs"
        self.mark = secrets.token_hex(8)
        (self.port,) = free_ports(1)
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.workers: list[Component] = []
        self._postgres = postgres
        self._database = f"airflow_{self.mark}"
        self._token = ""
        self._owner = 0
        for path in (folder, self.dags_folder, self.logs_folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._celery = celery
        self.environment = self._settings() | dict(environment or {})
        self.api_server = self._component("api-server", "api-server")
        self.scheduler = self._component("scheduler", "scheduler", "--skip-serve-logs")
        self.dag_processor = self._component("dag-processor", "dag-processor")

    def __enter__(self) -> Self:
        """
        Start everything but workers.
        """
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """
        End everything, and delete the database.
        """
        self.close()

    @property
    def components(self) -> list[Component]:
        """
        All processes, in the order in which they may be stopped.
        """
        return [*self.workers, self.scheduler, self.dag_processor, self.api_server]

    def start(self) -> None:
        """
        Create the database if there is none, start all components that do not run, including workers, and return when
        all answer.

        Raises:
            AirflowError: a component ended or did not answer in time.
        """
        if not self._owner:
            template = migrate(self._postgres, self.folder, self.virtualenv)
            self._postgres.create_database(self._database, template=template)
            self._owner = os.getpid()
            atexit.register(self._close_at_exit)
        try:
            for component in self.components:
                component.start()
            self._wait(self._is_ready, _START_SECONDS, "every process to answer")
        except BaseException:
            self.close()
            raise
        exposed = [found for found in listeners(self._pids()) if not found.is_loopback]
        if exposed:
            self.close()
            raise AirflowError(f"Airflow listened off loopback: {exposed}")

    def recover(self) -> None:
        """
        Undo the effects of a test on the processes: end orphans, as the workers of a killed scheduler are, and start
        ended components.
        """
        end(self.orphans())
        if not all(component.is_running for component in self.components):
            self.start()

    def orphans(self) -> set[int]:
        """
        Return the ids of processes that this Airflow started and that no running component owns.

        Airflow names its processes by overwriting their environment, so that they are known by their session; tasks,
        which may have a session of their own, are known by their environment.
        """
        left = set[int]().union(*(component.orphans for component in self.components))
        return (left | with_environment(AIRFLOW_VARIABLE, self.mark)) - self._pids()

    def add_worker(self, *queues: str, concurrency: int = 1) -> Component:
        """
        Add a Celery worker that serves these queues: `start` starts it with the rest; of an Airflow that has started,
        it is started at once.
        """
        name = f"worker-{'-'.join(queues)}-{len(self.workers)}"
        worker = self._component(
            name,
            *("celery", "worker", "--queues", ",".join(queues), "--concurrency", str(concurrency)),
            *("--celery-hostname", f"{name}@%h", "--skip-serve-logs", "--without-gossip", "--without-mingle"),
        )
        self.workers.append(worker)
        if self._owner:
            worker.start()
        return worker

    def close(self) -> None:
        """
        End everything at once, including orphans, and delete the database; a second call has no effect.
        """
        if not self._owner:
            return
        for component in self.components:
            component.kill(children=True)
        end(self.orphans())
        if self._postgres.is_running:
            self._postgres.drop_database(self._database)
        self._owner = 0
        atexit.unregister(self._close_at_exit)

    def airflow(self, *arguments: str, timeout: float = _CALL_SECONDS) -> str:
        """
        Run ``airflow ARGUMENTS`` with the settings of this one, and return its output (about 5 s).
        """
        return _airflow(self.virtualenv, arguments, self.environment, self.folder, timeout)

    def add_dag(self, name: str, text: str) -> Path:
        """
        Put a file into the DAGs folder, in one step, so that it is never seen half written.
        """
        file = self.dags_folder / f"{name}.py"
        draft = self.folder / f"{name}.draft"
        draft.write_text(text, encoding="utf-8")
        return draft.replace(file)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """
        Start a run, and return its id.
        """
        body = {"conf": dict(conf or {}), "logical_date": None} | ({"dag_run_id": run_id} if run_id else {})
        return str(self.rest("POST", f"dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def run_of(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """
        Return a run as the REST API shows it.
        """
        return self.rest("GET", f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")

    def tasks_of(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """
        Return the task instances of a run as the REST API shows them, by task id.
        """
        found = self.rest("GET", f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances?limit=500")
        return {task["task_id"]: task for task in found["task_instances"]}

    def mark_task(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """
        Mark a task as succeeded or failed by hand, as a person does on the page.
        """
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}"
        self.rest("PATCH", path, {"new_state": state})

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """
        Mark a run as succeeded or failed by hand.
        """
        self.rest("PATCH", f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}", {"state": state})

    def clear(self, dag_id: str, run_id: str, task_ids: Sequence[str] | None = None, **options: Any) -> None:
        """
        Clear tasks of a run, all or these, so that they run again; ``options`` are those of ``clearTaskInstances``.
        """
        body = {"dry_run": False, "only_failed": False, "dag_run_id": run_id} | options
        self.rest("POST", f"dags/{dag_id}/clearTaskInstances", body | ({"task_ids": task_ids} if task_ids else {}))

    def wait_for_dag(self, dag_id: str, seconds: float = _SECONDS) -> None:
        """
        Return when a DAG can be started in the current version of its file; an import error of a file that names it
        ends the wait.
        """

        def is_there() -> bool:
            for error in self.rest("GET", "importErrors?limit=500")["import_errors"]:
                file = self.dags_folder / error["filename"]
                if _is_after(error["timestamp"], file) and dag_id in file.read_text(encoding="utf-8"):
                    raise AirflowError(f"{file.name} cannot be imported: {error['stack_trace']}")
            dags = self.rest("GET", f"dags?dag_id_pattern={dag_id}&exclude_stale=true&limit=500")["dags"]
            return any(
                _is_after(dag["last_parsed_time"], Path(dag["fileloc"]), took=dag.get("last_parse_duration") or 0.0)
                for dag in dags
                if dag["dag_id"] == dag_id and dag["last_parsed_time"]
            )

        self._wait(is_there, seconds, f"the DAG {dag_id}")

    def wait_for_run(self, dag_id: str, run_id: str, *states: str, seconds: float = _SECONDS) -> dict[str, Any]:
        """
        Return a run when it is in one of these states; an end in another state is an error.
        """
        return self._wait_for("run", lambda: self.run_of(dag_id, run_id), states, seconds, f"run {run_id} of {dag_id}")

    def wait_for_task(
        self, dag_id: str, run_id: str, task_id: str, *states: str, seconds: float = _SECONDS
    ) -> dict[str, Any]:
        """
        Return a task instance when it is in one of these states; an end in another state is an error.
        """
        what = f"task {task_id} of run {run_id} of {dag_id}"
        return self._wait_for(
            "task", lambda: self.tasks_of(dag_id, run_id).get(task_id, {"state": None}), states, seconds, what
        )

    def wait_for_processes(self, dag_id: str, run_id: str, task_id: str, seconds: float = _SECONDS) -> TaskProcesses:
        """
        Return the processes of a task when its command runs.
        """
        task = {"DAG_ID": dag_id, "DAG_RUN_ID": run_id, "TASK_ID": task_id}
        variables = {f"AIRFLOW_CTX_{name}": value for name, value in task.items()}
        found: list[TaskProcesses] = []

        def runs() -> bool:
            if processes := processes_of_task(variables):
                found.append(processes)
            return bool(found)

        self._wait(runs, seconds, f"the command of task {task_id} of run {run_id}")
        return found[0]

    def log_of(self, dag_id: str, run_id: str, task_id: str, attempt: int = 1) -> str:
        """
        Return a task's log as text, empty if there is none: the other fields of a line follow its message as JSON.
        """
        folder = self.logs_folder / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        with suppress(FileNotFoundError):
            lines = (folder / f"attempt={attempt}.log").read_text(encoding="utf-8", errors="replace").splitlines()
            return "\n".join(_as_text(line) for line in lines)
        return ""

    def logs(self) -> str:
        """
        Return the ends of all processes' logs.
        """
        return "".join(component.tail() for component in reversed(self.components))

    def rest(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """
        Send a request to the REST API, version 2; the path follows ``/api/v2/``.

        Raises:
            AirflowError: it was refused; the message holds the answer.
            OSError: no server answered.
        """
        if not self._token:
            self._token = self._ask("GET", "/auth/token", {})["access_token"]
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            return self._ask(method, f"/api/v2/{path}", headers, body)
        except urllib.error.HTTPError as error:
            answer = error.read().decode(errors="replace")
            raise AirflowError(f"{method} {path} was answered {error.code}: {answer}") from error

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json", **headers}, method=method
        )
        with urllib.request.urlopen(request, timeout=_CALL_SECONDS) as answer:
            found: dict[str, Any] = json.loads(answer.read() or b"{}")
            return found

    def _wait_for(
        self, kind: str, ask: Callable[[], dict[str, Any]], states: Iterable[str], seconds: float, what: str
    ) -> dict[str, Any]:
        wanted = set(states)
        seen: dict[str, Any] = {}

        def is_there() -> bool:
            seen.update(ask())
            if seen["state"] in _ENDS[kind] - wanted:
                raise AirflowError(f"{what} ended as {seen['state']}, not as {sorted(wanted)}: {seen}{self.logs()}")
            return seen["state"] in wanted

        self._wait(is_there, seconds, f"{what} to be {sorted(wanted)}", seen)
        return seen

    def _wait(
        self, condition: Callable[[], bool], seconds: float, what: str, seen: Mapping[str, Any] | None = None
    ) -> None:
        try:
            wait_until(condition, seconds, every=_POLL_SECONDS)
        except AssertionError as error:
            told = f"; last seen: {dict(seen)}" if seen else ""
            raise AirflowError(f"waited {seconds} s in vain for {what}{told}{self.logs()}") from error

    def _is_ready(self) -> bool:
        """
        Whether all processes send heartbeats, and the API server has spent the time of its first answer to a worker.
        """
        ended = [component.name for component in self.components if not component.is_running]
        if ended:
            raise AirflowError(f"these ended by themselves: {', '.join(ended)}{self.logs()}")
        try:
            self._ask("GET", "/execution/health/ping", {})
            health = self.rest("GET", "monitor/health")
        except OSError:
            return False
        return (
            self.scheduler.has_beaten(health["scheduler"]["latest_scheduler_heartbeat"])
            and self.dag_processor.has_beaten(health["dag_processor"]["latest_dag_processor_heartbeat"])
            and self._workers_are_ready()
        )

    def _workers_are_ready(self) -> bool:
        ended = [worker.name for worker in self.workers if not worker.is_running]
        if ended:
            raise AirflowError(f"these ended by themselves: {', '.join(ended)}{self.logs()}")
        return all(" ready." in worker.log_since_start() for worker in self.workers)

    def _component(self, name: str, *arguments: str) -> Component:
        return Component(name, [str(self.virtualenv / "bin" / "airflow"), *arguments], self.environment, self.folder)

    def _pids(self) -> set[int]:
        return set[int]().union(*(component.pids for component in self.components))

    def _settings(self) -> dict[str, str]:
        """
        Return the environment of all processes: this machine's, without another Airflow's variables, and the settings.
        """
        executor = "celery-executor" if self._celery else "local-executor"
        settings = read_settings(CONFIG / "common.env") | read_settings(CONFIG / f"{executor}.env") | _QUICK
        database = self._postgres.url(self._database)
        settings |= {
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API__HOST": LOOPBACK,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.logs_folder),
        }
        if self._celery:
            broker = self._celery
            address = f"{broker.username}:{broker.password}@{broker.host}:{broker.port}/{quote(broker.vhost, safe='')}"
            settings |= {
                "AIRFLOW__CELERY__BROKER_URL": f"amqp://{address}",
                "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
            }
        return _environment(self.folder) | settings | {AIRFLOW_VARIABLE: self.mark}

    def _close_at_exit(self) -> None:
        # A fork of this process inherits the registration, and must not end its parent's Airflow.
        if os.getpid() == self._owner:
            self.close()


def migrate(postgres: PostgresServer, folder: Path, virtualenv: Path = ENVIRONMENT) -> str:
    """
    Make the database that all others of one version are copies of, with the pools that we deploy, once for each server
    (6 s); return its name.
    """
    template = _TEMPLATE if virtualenv == ENVIRONMENT else f"{_TEMPLATE}_{virtualenv.name}"
    if postgres.execute(f"SELECT 1 FROM pg_database WHERE datname = '{template}'"):
        return template
    draft = f"{template}_draft"
    # An earlier try may have failed.
    postgres.execute(f'DROP DATABASE IF EXISTS "{draft}"')
    settings = read_settings(CONFIG / "common.env") | {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.create_database(draft),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
    }
    for command in (["db", "migrate"], ["pools", "import", str(CONFIG / "pools.json")]):
        _airflow(virtualenv, command, _environment(folder) | settings, folder, _CALL_SECONDS)
    postgres.execute(f'ALTER DATABASE "{draft}" RENAME TO "{template}"')
    return template


def end(pids: Iterable[int], timeout: float = 100.0) -> None:
    """
    End these processes at once (SIGKILL), and return when they have ended.
    """
    alive = {pid for pid in pids if is_alive(pid)}
    for pid in alive:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    left = wait_for_end(alive, timeout)
    if left:
        raise AirflowError(f"these processes did not end: {sorted(left)}")


def _airflow(
    virtualenv: Path, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float
) -> str:
    done = subprocess.run(
        [virtualenv / "bin" / "airflow", *arguments],
        env=dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if done.returncode != 0:
        raise AirflowError(f"airflow {' '.join(arguments)} exited with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def _environment(folder: Path) -> dict[str, str]:
    """
    Return this machine's environment without variables that might configure Airflow, a task, or the library.
    """
    kept = {name: value for name, value in os.environ.items() if name in _KEPT}
    return kept | {"AIRFLOW_HOME": str(folder), "HOME": str(folder), "PYTHONUNBUFFERED": "1"}


def _ending_with_us() -> list[str]:
    """
    Return the prefix that makes the kernel end a command when its parent dies, in any way (PR_SET_PDEATHSIG).

    By SIGTERM: only a scheduler that may still act ends its workers.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []


def _parent(pid: int) -> int:
    return int(_status(pid)[1])


def _start_of(pid: int) -> str:
    """
    Return when a process began, in the kernel's ticks: together with its number this identifies it. Empty if it has
    ended.
    """
    with suppress(OSError):
        return _status(pid)[19]
    return ""


def _in_session(leader: int) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if os.getsid(int(entry.name)) == leader:
                    found.add(int(entry.name))
    return found


def _is_after(when: str, file: Path, took: float = 0.0) -> bool:
    """
    Return whether an object that ended at a time, in the form of ISO 8601, began after the last change of an existing
    file.
    """
    with suppress(FileNotFoundError):
        return datetime.fromisoformat(when).timestamp() - took > file.stat().st_mtime
    return False


def _status(pid: int) -> list[str]:
    """
    Return the fields of /proc/PID/stat from the third one on: the second, the command, may contain anything.
    """
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _as_text(line: str) -> str:
    """
    Return a line of a task's log, which is JSON, as its message and the rest.
    """
    try:
        entry = json.loads(line)
        message = entry.pop("event")
    except (ValueError, KeyError, AttributeError, TypeError):
        return line
    rest = {name: value for name, value in entry.items() if name not in {"timestamp", "filename", "lineno"}}
    return f"{message} {json.dumps(rest)}" if rest else str(message)
